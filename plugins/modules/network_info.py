#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: network_info
short_description: Look at many nodes at once and judge the network
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Asks all nodes at the same time and compares them where they can be compared, at the highest height all of them have; and,
    when some are stuck, the others among themselves as well.
  - Counts the voting power that is there. A validator counts as away unless it was seen - its node reachable, on the chain, and,
    where blocks carry signatures, signing. Where the chain knows no power, the nodes count equally.
  - Never fails because the answer is no. An unreachable node is data; whether the network is well is in RV(network.ok), and
    what is wrong with it in RV(network.problems).
options:
  chain:
    description: Which kind of nodes these are; the name of an adapter.
    type: str
    default: xai
  nodes:
    description: The nodes to ask. Each is named once and has a URL of its own.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name, usually the inventory host's.
        type: str
        required: true
      api_url:
        description: Where its HTTP API answers, as seen from where the module runs.
        type: str
        required: true
      address:
        description:
          - The address it signs with, where known. A node that tells another one is a problem; a node that can't be asked is
            known by it.
        type: str
  timeout:
    description: Seconds a single answer may take.
    type: float
    default: 10.0
  window:
    description: Over how many of the last blocks signatures are counted. V(0) leaves it out.
    type: int
    default: 20
  max_lag:
    description: How many blocks a node may be behind the highest one.
    type: int
    default: 5
  max_clock_skew:
    description: How many seconds a node's clock may be off the clock of where the module runs.
    type: float
    default: 5.0
  max_tip_age:
    description: How old the newest block may be, in seconds. V(0) leaves it out, for chains that make no empty blocks.
    type: float
    default: 120.0
  advance:
    description:
      - How many blocks every node must add while it is watched. V(0) waits for nobody; then only O(max_tip_age) tells a network
        that stands still.
    type: int
    default: 0
  advance_timeout:
    description: Seconds they have to do so.
    type: float
    default: 60.0
  checks:
    description:
      - Checks of your own. Each asks a URL for JSON, and holds when a JMESPath expression makes exactly C(true) of it; null, a
        number or a list that isn't empty are not true. An answer other than 200 is none; an answer that tells when to ask again
        (429) is heeded.
      - They need the Python library C(jmespath) where the module runs; without it, it fails and says so.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called when it does not hold.
        type: str
        required: true
      url:
        description: What to ask. A path such as V(/stats) is asked of every node.
        type: str
        required: true
      expression:
        description: The JMESPath expression, such as V(height > `100` && status == 'ok').
        type: str
        required: true
      headers:
        description: HTTP headers to send, such as one with a token.
        type: dict
        default: {}
      attempts:
        description: How often to ask until it holds.
        type: int
        default: 3
      delay:
        description: Seconds in between.
        type: float
        default: 1.0
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
"""

EXAMPLES = r"""
- name: Look at the whole network
  chainops.validator.network_info:
    nodes:
      - {name: val1, api_url: "http://10.0.0.1:8545"}
      - {name: val2, api_url: "http://10.0.0.2:8545"}
      - {name: val3, api_url: "http://10.0.0.3:8545"}
      - {name: val4, api_url: "http://10.0.0.4:8545"}
  register: look

- name: See that all of it moves, and what operators want of it holds
  chainops.validator.network_info:
    nodes:
      - {name: val1, api_url: "http://10.0.0.1:8545"}
      - {name: val2, api_url: "http://10.0.0.2:8545"}
    advance: 2
    checks:
      - {name: nothing waits for long, url: /stats, expression: "pending_transactions_count < `1000`"}
      - name: the explorer follows
        url: https://explorer.example.net/api/status
        expression: "synced == `true` && lag < `5`"
  delegate_to: localhost

- name: Stop unless val2 can be taken away now
  ansible.builtin.assert:
    that: blockers | length == 0
    fail_msg: "{{ blockers | join('; ') }}"
  vars:
    blockers: "{{ look.network | chainops.validator.turn_blockers('val2') }}"
"""

RETURN = r"""
network:
  description: What the nodes say together.
  returned: always
  type: dict
  contains:
    ok: {description: Whether nothing is wrong., type: bool, returned: always, sample: true}
    agree: {description: Whether all reachable nodes have the same blocks., type: bool, returned: always, sample: true}
    common_height: {description: The highest height all reachable nodes have., type: int, returned: always, sample: 1204}
    common_hash: {description: The block most of them have there., type: str, returned: always, sample: 9f2c...}
    height_max: {description: The highest tip., type: int, returned: always, sample: 1205}
    height_min: {description: The lowest tip., type: int, returned: always, sample: 1204}
    height_spread: {description: The difference of the two., type: int, returned: always, sample: 1}
    final_height: {description: Highest height that can't be undone., type: int, returned: always, sample: 1204}
    chain_id: {description: Which chain it is., type: str, returned: always, sample: devnet-1}
    power_known: {description: Whether the chain knows it; else nodes count equally., type: bool, returned: always, sample: true}
    power_total: {description: All voting power., type: float, returned: always, sample: 40.0}
    power_online: {description: The power that was seen., type: float, returned: always, sample: 40.0}
    power_offline: {description: The power that was not., type: float, returned: always, sample: 0.0}
    power_offline_fraction: {description: Its share of all power., type: float, returned: always, sample: 0.0}
    window: {description: Over how many blocks signatures were counted., type: int, returned: always, sample: 20}
    validators:
      description: The validators, or the nodes where the chain knows no validators.
      type: list
      elements: dict
      returned: always
      contains:
        address: {description: Its address., type: str, returned: always, sample: TXAI1f...}
        power: {description: Its voting power., type: float, returned: always, sample: 10.0}
        node: {description: Which of the nodes it is., type: str, returned: always, sample: val1}
        online: {description: Whether it was seen; null when nobody knows., type: bool, returned: always, sample: true}
        signed: {description: How many of the last blocks it signed., type: int, returned: always, sample: 20}
        missed: {description: How many of them it did not., type: int, returned: always, sample: 0}
    nodes:
      description:
        - Every node that was asked, with what M(chainops.validator.validator_info) tells of it, its C(lag), and C(missed) blocks.
      type: list
      elements: dict
      returned: always
      sample: [{name: val1, reachable: true, height: 1204, lag: 1, version: 1.0.0, online: true, power: 10.0, missed: 0}]
    equivocations:
      description: Double signing that nodes recorded, and which of them did.
      type: list
      elements: dict
      returned: always
      sample: []
    checks:
      description: What came of O(checks), at each place that was asked.
      type: list
      elements: dict
      returned: always
      sample:
        - check: nothing waits for long
          node: val1
          ok: true
          said: pending_transactions_count < `1000` is True
          url: http://10.0.0.1:8545/stats
    findings:
      description: What is wrong, with its kind and the node it concerns (null for the network).
      type: list
      elements: dict
      returned: always
      sample: [{kind: behind, node: val3, text: val3 is 12 blocks behind (at most 5)}]
    problems:
      description: The same for people.
      type: list
      elements: str
      returned: always
      sample: ["val3 is 12 blocks behind (at most 5)"]
"""

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._fleet import checks, look, network
from ansible_collections.chainops.validator.plugins.module_utils._module import base

OPTIONS = {
    "chain": {"type": "str", "default": "xai"},
    "nodes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "api_url": {"type": "str", "required": True},
            "address": {"type": "str"},
        },
    },
    "timeout": {"type": "float", "default": 10.0},
    "window": {"type": "int", "default": 20},
    "max_lag": {"type": "int", "default": 5},
    "max_clock_skew": {"type": "float", "default": 5.0},
    "max_tip_age": {"type": "float", "default": 120.0},
    "advance": {"type": "int", "default": 0},
    "advance_timeout": {"type": "float", "default": 60.0},
    "checks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "expression": {"type": "str", "required": True},
            "headers": {"type": "dict", "default": {}, "no_log": True},
            "attempts": {"type": "int", "default": 3},
            "delay": {"type": "float", "default": 1.0},
        },
    },
}


def act(module):
    """Ask and judge."""
    given = module.params
    nodes = [look.Node(one["name"], one["api_url"], one["address"] or None) for one in given["nodes"]]
    limits = network.Limits(lag=given["max_lag"], clock_skew=given["max_clock_skew"], tip_age=given["max_tip_age"])
    own = [checks.Check(**{**one, "headers": {k: str(v) for k, v in one["headers"].items()}}) for one in given["checks"]]
    found = look.look(
        adapter(given["chain"]),
        nodes,
        timeout=given["timeout"],
        window=given["window"],
        limits=limits,
        advance=given["advance"],
        advance_timeout=given["advance_timeout"],
        own_checks=own,
    )
    return {"changed": False, "network": found}


def main():
    base.run(base.ArgumentSpec(OPTIONS).module(), act)


if __name__ == "__main__":
    main()
