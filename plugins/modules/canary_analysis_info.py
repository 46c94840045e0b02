#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: canary_analysis_info
short_description: Judges upgraded hosts against those that are not upgraded yet
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Watches for O(soak) seconds, then says V(pass), V(fail) or V(inconclusive), with the numbers, and how much longer it would
    take to know. Ends early when something fails; goes on for up to O(extend) seconds while it is inconclusive.
  - Four kinds of evidence. Metrics, as O(checks) of PromQL queries, each compared with the baseline hosts at the same moments and
    with how far apart the two were before. Blocks, counted from the chain - those that the upgraded hosts' keys did not sign, and
    those that they made late. The nodes themselves, asked again and again - whether they follow the chain, with the same blocks
    as the others, answer as fast, and keep their peers. And O(budgets), for the rollout as a whole.
  - No data is inconclusive, and so are gaps, NaN, stale samples, several series for one host, counters at face value (a restart
    sets them back), samples that look back to before the watch began, and an exporter that tells another height than its node.
  - A metric's check is a sequential signed-rank test, which holds at every look. A canary that is just as bad as is allowed fails
    with a probability of at most 2 %, and passes with one of at most 5 %; six samples that agree are the fewest for a pass. A
    trend that would leave what is allowed within O(checks[].horizon) fails as well; one that only seems to, or that fewer than
    eleven samples can't tell, is inconclusive, so give it the time to show (O(extend)). Methods, sources and error rates of
    simulated rollouts are in the README of the role C(verify).
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
options:
  canary:
    description: Names of the upgraded hosts.
    type: list
    elements: str
    required: true
  baseline:
    description: Names of the hosts that are not upgraded. With none, metrics are compared with the canary's own past alone.
    type: list
    elements: str
    default: []
  prometheus_url:
    description: Address of Prometheus. Needed for O(checks).
    type: str
  label:
    description: The label that names the host. Its value is the host's name, or the name and a port.
    type: str
    default: instance
  checks:
    description: What to compare.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in the verdict.
        type: str
        required: true
      query:
        description: >-
          PromQL that gives one series for each host. Counters need C(rate) or C(increase), which also see to the reset that the
          restart itself causes. Use ranges that are short beside O(soak), as neighbours that share data count as one sample.
        type: str
        required: true
      direction:
        description: What is better.
        type: str
        choices: [lower, higher, same]
        default: lower
      tolerance:
        description: How much worse it may be, as a share of the baseline.
        type: float
        default: 0.2
      floor:
        description: How much worse it may be at least, in the query's own unit. Needed where the baseline is near zero.
        type: float
        default: 0
      horizon:
        description: >-
          Seconds within which a trend, going on, must not leave what is allowed. V(0) doesn't look for trends. Otherwise at least
          eleven samples are needed, so that there are eight after the warm-up.
        type: float
        default: 3600
      unclear:
        description:
          - What a comparison comes to that is too close to tell after O(soak).
          - With V(pass), a canary that seems to be within what is allowed, with no trend to be seen, passes without a proof, and
            the reason says so. One that seems to be outside is watched for up to O(extend) seconds more, as with
            V(inconclusive). No data is inconclusive either way.
          - For networks that one rehearses on. The error rates that are told for passing hold for V(inconclusive) alone.
        type: str
        choices: [inconclusive, pass]
        default: inconclusive
  soak:
    description: Seconds to watch. With V(0) the verdict is about the last O(window) seconds, at once.
    type: float
    default: 0
  extend:
    description: Seconds to go on watching after O(soak) while the verdict is inconclusive.
    type: float
    default: 0
  settle:
    description: Seconds to wait before the watch begins, so that what the restart itself did is not counted.
    type: float
    default: 0
  window:
    description: Seconds that are judged, up to now. V(0) means the time of the soak, or 60 without a soak.
    type: float
    default: 0
  past:
    description: Seconds of every host's own past to compare with, up to O(before). V(0) compares with other hosts alone.
    type: float
    default: 0
  before:
    description: When the upgrade of the canary began, in seconds since the epoch.
    type: float
    default: 0
  step:
    description: Seconds between two samples. Not less than the scrape interval, or the same scrape would count twice.
    type: float
    default: 5
  looks:
    description: How often to look during the soak.
    type: int
    default: 4
  chain:
    description: Which chain the nodes are of.
    type: str
    default: xai
  nodes:
    description: The nodes, canary and baseline, to read blocks from. Baseline nodes are asked first.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The host's name, as in O(canary) and O(baseline).
        type: str
        required: true
      api_url:
        description: Where the node answers.
        type: str
        required: true
      address:
        description: The address its key signs with. Without it, its blocks are not counted.
        type: str
  max_missed:
    description: How many blocks an upgraded host may leave unsigned during the watch.
    type: int
    default: 0
  min_blocks:
    description: How many blocks must be seen before missed ones are judged.
    type: int
    default: 5
  max_lag:
    description: How many blocks an upgraded node may be behind the highest of the others.
    type: int
    default: 3
  max_slower:
    description: How many seconds longer than the others an upgraded node may take to answer, as seen from where this runs.
    type: float
    default: 0.3
  height_query:
    description: >-
      PromQL for the height that the nodes export. It is held against what they say themselves; one that lies makes the verdict
      inconclusive. Empty leaves it out. Looked at where there are O(prometheus_url), O(nodes) and a O(soak).
    type: str
    default: xai_chain_height
  began:
    description: When the rollout began, in seconds since the epoch. Needed for O(budgets).
    type: float
    default: 0
  budgets:
    description: What the rollout as a whole may use up.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in the verdict.
        type: str
        required: true
      query:
        description: PromQL that gives one number. C({window}) in it becomes the time since O(began).
        type: str
        required: true
      allowed:
        description: The most that it may be.
        type: float
        required: true
  since_height:
    description: The height at which the rollout began, for O(budget_missed).
    type: int
    default: 0
  budget_missed:
    description: >-
      How many blocks all of O(nodes) together may leave unsigned since O(since_height), their stops included; the latest 2,000
      blocks count. V(-1) leaves it out.
    type: int
    default: -1
  progress_file:
    description: File that every look is appended to, a line of JSON each, for whoever is watching.
    type: path
  timeout:
    description: Seconds for each answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Watch the canary for two minutes
  chainops.validator.canary_analysis_info:
    canary: [val1]
    baseline: [val2, val3, val4]
    prometheus_url: http://monitor:9090
    soak: 120
    checks:
      - name: connected peers
        query: xai_peers_connected
        direction: higher
        floor: 1
      - name: blocks per second
        query: rate(xai_chain_height[30s])
        direction: higher
    nodes:
      - {name: val1, api_url: "http://val1:8545", address: TXAI0a1b}
      - {name: val2, api_url: "http://val2:8545", address: TXAI2c3d}
  register: canary
  failed_when: canary.verdict != 'pass'
  delegate_to: localhost
"""

RETURN = r"""
verdict:
  description: V(fail) when one check fails, V(pass) when all that apply pass, else V(inconclusive).
  returned: success
  type: str
  sample: pass
reasons:
  description: Why it isn't V(pass), for people.
  returned: success
  type: list
  elements: str
  sample: ["val1 follows the chain: 41 blocks behind the others, allowed 3"]
checks:
  description: The checks, and their numbers.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: The check., type: str, returned: always, sample: connected peers}
    verdict: {description: "V(pass), V(fail), V(inconclusive) or V(not_applicable).", type: str, returned: always, sample: pass}
    reason: {description: Why., type: str, returned: always, sample: "shift +0 (from +0 to +0), allowed 1, higher is better"}
    canary: {description: The canary's median., type: float, returned: always, sample: 3.0}
    baseline: {description: The baseline's median., type: float, returned: always, sample: 3.0}
    shift: {description: How much higher the canary is., type: float, returned: always, sample: 0.0}
    low: {description: The lower end of the shift's confidence interval., type: float, returned: always, sample: 0.0}
    high: {description: The upper end of the shift's confidence interval., type: float, returned: always, sample: 0.0}
    allowed: {description: How far it may be on the bad side., type: float, returned: always, sample: 1.0}
    samples: {description: How many samples of the canary and of the baseline., type: list, returned: always, sample: [24, 72]}
    seconds_more: {description: About how much longer that would take., type: float, returned: always, sample: 45.0}
    p_worse: {description: "At most so likely if it were as allowed, whenever asked.", type: float, returned: always, sample: 1.0}
    p_fine: {description: "At most so likely if it were worse, whenever asked.", type: float, returned: always, sample: 0.004}
    per_hour: {description: How much it changes an hour beside the others., type: float, returned: always, sample: 0.0}
    needs: {description: About how many samples of the canary would settle it., type: int, returned: always, sample: 60}
looks:
  description: The verdict at each look during the soak.
  returned: success
  type: list
  elements: dict
  sample: [{look: 1, of: 4, seconds: 30.0, seconds_more: 10.0, verdict: inconclusive}]
seconds:
  description: How long it watched.
  returned: success
  type: float
  sample: 120.2
seconds_more:
  description: About how much longer it would take until nothing is inconclusive; null where that can't be told, or isn't asked.
  returned: success
  type: float
  sample: 40.0
"""

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run, teller
from ansible_collections.chainops.validator.plugins.module_utils._monitoring import canary, watch
from ansible_collections.chainops.validator.plugins.module_utils._monitoring.readers import Prometheus

PLAIN = (
    *("label", "past", "before", "soak", "extend", "step", "settle", "looks", "max_missed", "min_blocks", "max_lag"),
    *("max_slower", "height_query", "began", "since_height", "budget_missed"),
)


NOT_NEGATIVE = ("soak", "extend", "settle", "window", "past", "max_missed", "max_lag", "max_slower")


def plan_of(p):
    both = set(p["canary"]) & set(p["baseline"])
    if not p["canary"] or both:
        raise InputError(f"canary must name hosts, and none of the baseline's; in both: {', '.join(sorted(both)) or 'none'}")
    if p["step"] <= 0 or min(p[n] for n in NOT_NEGATIVE) < 0 or p["min_blocks"] < 1:
        raise InputError(f"step and min_blocks must be positive; {', '.join(NOT_NEGATIVE)} not negative")
    if p["past"] and not p["before"]:
        raise InputError("past needs before: when did the upgrade of the canary begin?")
    if (p["checks"] or p["budgets"]) and not p["prometheus_url"]:
        raise InputError("checks and budgets need prometheus_url")
    if p["budgets"] and not p["began"]:
        raise InputError("budgets need began: when did the rollout begin?")
    return watch.Plan(
        canary=tuple(p["canary"]),
        baseline=tuple(p["baseline"]),
        checks=tuple(canary.Check(**check) for check in p["checks"]),
        addresses={n["name"]: n["address"] for n in p["nodes"] if n["name"] in p["canary"] and n["address"]},
        budgets=tuple(watch.Budget(**budget) for budget in p["budgets"]),
        fleet={n["name"]: n["address"] for n in p["nodes"] if n["address"]},
        window=p["window"] or (0 if p["soak"] else 60),
        **{name: p[name] for name in PLAIN},
    )


def follow(p):
    """(signers, tips, probes) of the nodes given; None for each without nodes."""
    if not p["nodes"]:
        return None, None, None
    chain = adapter(p["chain"])
    clients = {n["name"]: chain.client(n["api_url"], timeout=p["timeout"]) for n in p["nodes"]}
    ours = {name: c for name, c in clients.items() if name in p["canary"]}
    others = {name: c for name, c in clients.items() if name not in p["canary"]}
    # A dozen looks at least, and not more than a node can bear.
    probes = watch.Probes(clients, min(max(p["soak"] / 24, 0.5), 15.0))
    return watch.Signers([*others.values(), *ours.values()]), watch.Tips(ours, others), probes


def act(module):
    p = module.params
    plan = plan_of(p)
    api = Prometheus(p["prometheus_url"], p["timeout"]) if p["prometheus_url"] else None
    signers, tips, probes = follow(p)
    result = watch.watch(plan, api, signers, tips, tell=teller(p["progress_file"]), probes=probes)
    bad = [c for c in result["checks"] if c["verdict"] in (canary.FAIL, canary.INCONCLUSIVE)]
    reasons = [f"{c['name']}: {c['reason']}" for c in bad] if result["checks"] else ["nothing was checked"]
    return {"changed": False, "reasons": reasons, **result}


NUMBER = {"type": "float", "default": 0}
CHECK = {
    "name": {"type": "str", "required": True},
    "query": {"type": "str", "required": True},
    "direction": {"type": "str", "choices": ["lower", "higher", "same"], "default": "lower"},
    "tolerance": {"type": "float", "default": 0.2},
    "floor": NUMBER,
    "horizon": {"type": "float", "default": 3600},
    "unclear": {"type": "str", "choices": ["inconclusive", "pass"], "default": "inconclusive"},
}
BUDGET = {
    "name": {"type": "str", "required": True},
    "query": {"type": "str", "required": True},
    "allowed": {"type": "float", "required": True},
}
NODE = {"name": {"type": "str", "required": True}, "api_url": {"type": "str", "required": True}, "address": {"type": "str"}}


def main():
    spec = ArgumentSpec(
        dict.fromkeys(("soak", "extend", "settle", "window", "past", "before", "began"), NUMBER),
        canary={"type": "list", "elements": "str", "required": True},
        baseline={"type": "list", "elements": "str", "default": []},
        prometheus_url={"type": "str"},
        label={"type": "str", "default": "instance"},
        checks={"type": "list", "elements": "dict", "default": [], "options": CHECK},
        step={"type": "float", "default": 5},
        looks={"type": "int", "default": 4},
        chain={"type": "str", "default": "xai"},
        nodes={"type": "list", "elements": "dict", "default": [], "options": NODE},
        max_missed={"type": "int", "default": 0},
        min_blocks={"type": "int", "default": 5},
        max_lag={"type": "int", "default": 3},
        max_slower={"type": "float", "default": 0.3},
        height_query={"type": "str", "default": "xai_chain_height"},
        budgets={"type": "list", "elements": "dict", "default": [], "options": BUDGET},
        since_height={"type": "int", "default": 0},
        budget_missed={"type": "int", "default": -1},
        progress_file={"type": "path"},
        timeout={"type": "float", "default": 10},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
