#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_info
short_description: Tells whether monitoring is able to tell the truth, and what fires
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Asks Prometheus, Alertmanager, Grafana and Loki, as far as their addresses are given, and lists everything that is wrong.
    A service that is down is wrong, and so are targets that are down, were not scraped recently, or whose scrapes are not in the
    database; rules and dashboards that read series which don't exist; an Alertmanager that nobody sends to, that sends to nobody,
    or that hasn't heard of what fires; silences that are not the rollout's own and hide an expected alert; data sources that
    don't answer; and alerts that fire and are not silenced.
  - With O(baseline), what was already wrong before is told apart, and only what is new, or was named as expected, makes
    RV(ok) false.
  - Never fails because something is wrong; that is data.
  - Tested against real Prometheus 2.42 and Alertmanager 0.25; Grafana and Loki only against answers written by hand after the
    documentation of their HTTP APIs, as neither can be installed from Debian, nor as a program from a language's registry.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
options:
  prometheus_url:
    description: Address of Prometheus.
    type: str
  alertmanager_url:
    description: Address of Alertmanager.
    type: str
  grafana_url:
    description: Address of Grafana.
    type: str
  grafana_token:
    description: A service account's token. Without it, only Grafana's own health and public dashboards can be read.
    type: str
  loki_url:
    description: Address of Loki.
    type: str
  expected_jobs:
    description: Scrape jobs that must have targets, all of them up.
    type: list
    elements: str
    default: []
  expected_rules:
    description: Alerting or recording rules that must be loaded, work, and read series that exist.
    type: list
    elements: str
    default: []
  expected_receivers:
    description: Receivers that Alertmanager must have.
    type: list
    elements: str
    default: []
  expected_dashboards:
    description: Identifiers (uid) of dashboards that Grafana must have.
    type: list
    elements: str
    default: []
  expected_data_sources:
    description: Names of data sources that Grafana must have, and that must answer. Needs O(grafana_token).
    type: list
    elements: str
    default: []
  expected_values:
    description:
      - Numbers that must be there and within bounds, such as counters of security events, withdrawals, and their backlog. What
        can't be read is always wrong.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in findings, and in RV(values).
        type: str
        required: true
      query:
        description: PromQL. Each of its series is held against the bounds.
        type: str
        required: true
      min:
        description: The least that it may be.
        type: float
      max:
        description: The most that it may be.
        type: float
      max_rise:
        description: By how much it may be more than in O(baseline).
        type: float
      required:
        description: O(baseline) does not excuse that it is out of O(expected_values[].min) and O(expected_values[].max).
        type: bool
        default: false
  expected_streams:
    description: >-
      LogQL selectors that must have had lines in Loki, with a filter where wanted, such as C({job="xai"}), or the governance
      execution log as C({job="xai"} |= "governance").
    type: list
    elements: str
    default: []
  ignore_alerts:
    description: Alerts that are meant to fire always.
    type: list
    elements: str
    default: [Watchdog]
  max_scrape_age:
    description: Seconds since a target was last scraped. V(0) means three times the target's own interval.
    type: float
    default: 0
  max_clock_skew:
    description: Seconds that Prometheus's clock may differ from this machine's.
    type: float
    default: 30
  window:
    description: Seconds in which a series, or a log line, must have been seen to count as existing.
    type: int
    default: 900
  baseline:
    description: What this module returned before the upgrade.
    type: dict
  timeout:
    description: Seconds for each answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: See what monitoring already complains about
  chainops.validator.monitoring_info:
    prometheus_url: http://monitor:9090
    alertmanager_url: http://monitor:9093
    expected_jobs: [xai-node]
    expected_rules: [NodeDown]
    expected_values:
      - {name: withdrawal backlog, query: xai_withdrawals_time_locked_backlog, max: 5}
      - {name: security events in 5 minutes, query: "increase(xai_security_events_total[5m])", max: 25}
  register: before

- name: Does it complain about anything new?
  chainops.validator.monitoring_info:
    prometheus_url: http://monitor:9090
    alertmanager_url: http://monitor:9093
    expected_jobs: [xai-node]
    expected_rules: [NodeDown]
    baseline: "{{ before }}"
  register: after
  failed_when: not after.ok
"""

RETURN = r"""
ok:
  description: Nothing is wrong, or nothing that wasn't wrong before (see O(baseline)).
  returned: success
  type: bool
  sample: true
problems:
  description: What is wrong, for people. Without what O(baseline) excuses.
  returned: success
  type: list
  elements: str
  sample: ["rule NodeDown can't ever fire: no series for up{job=\"xai-node\"} in the last 900 s"]
known_problems:
  description: What is wrong, and was before.
  returned: success
  type: list
  elements: str
  sample: []
findings:
  description: Everything that is wrong, for machines. This is what O(baseline) compares.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: The same for the same trouble at another time., type: str, returned: always, sample: "rule:NodeDown:series"}
    service: {description: Which service., type: str, returned: always, sample: prometheus}
    message: {description: The trouble., type: str, returned: always, sample: "rule NodeDown can't ever fire"}
    required: {description: A baseline does not excuse it., type: bool, returned: always, sample: true}
values:
  description: The numbers of O(expected_values), one for each series.
  returned: success
  type: dict
  sample: {withdrawal backlog: [0.0, 0.0]}
firing:
  description: Alerts that fire, silenced or not.
  returned: success
  type: list
  elements: dict
  sample:
    - ignored: false
      labels: {alertname: NodeDown, instance: val1, severity: critical}
      name: NodeDown
      severity: critical
      silenced: true
      since: "2026-01-31T12:00:00.123Z"
services:
  description: The services that were asked.
  returned: success
  type: dict
  sample:
    prometheus: {alertmanagers: 1, rules: 12, targets: 5, up: true, url: "http://monitor:9090", version: 2.42.0}
"""

from ansible_collections.chainops.validator.plugins.module_utils._core.clock import CLOCK
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._monitoring import health, readers

VALUE = {
    "name": {"type": "str", "required": True},
    "query": {"type": "str", "required": True},
    "min": {"type": "float"},
    "max": {"type": "float"},
    "max_rise": {"type": "float"},
    "required": {"type": "bool", "default": False},
}
LISTS = (
    "expected_jobs",
    "expected_rules",
    "expected_receivers",
    "expected_dashboards",
    "expected_data_sources",
    "expected_streams",
)


def collect(p, expect):
    wait = p["timeout"]
    services = {}
    if p["prometheus_url"]:
        api = readers.Prometheus(p["prometheus_url"], wait)
        services["prometheus"] = health.ask_prometheus(api, CLOCK.wall(), expect.window, expect.values)
    if p["alertmanager_url"]:
        services["alertmanager"] = health.ask_alertmanager(readers.Alertmanager(p["alertmanager_url"], wait))
    if p["grafana_url"]:
        grafana = readers.Grafana(p["grafana_url"], wait, p["grafana_token"])
        services["grafana"] = health.ask_grafana(grafana, bool(p["grafana_token"]), expect.dashboards)
        if services.get("prometheus", {}).get("up"):
            health.look_into_panels(services["grafana"], api, expect.window)
    if p["loki_url"]:
        services["loki"] = health.ask_loki(readers.Loki(p["loki_url"], wait), expect.streams, expect.window)
    return services


def act(module):
    p = module.params
    needs = {
        "prometheus_url": (*LISTS[:2], "expected_values"),
        "alertmanager_url": LISTS[2:3],
        "grafana_url": LISTS[3:5],
        "grafana_token": LISTS[4:5],
        "loki_url": LISTS[5:],
    }
    for url, lists in needs.items():
        for name in lists:
            if p[name] and not p[url]:
                raise InputError(f"{name} can't be looked for without {url}", option=url)
    expect = health.Expectations(
        **{name[len("expected_") :]: tuple(p[name]) for name in LISTS},
        values=tuple(health.Value(**value) for value in p["expected_values"]),
        ignore_alerts=tuple(p["ignore_alerts"]),
        **{name: p[name] for name in ("max_scrape_age", "max_clock_skew", "window")},
    )
    services = collect(p, expect)
    findings = health.judge(services, expect, p["baseline"])
    new, known = health.compare(findings, p["baseline"])
    return {
        "changed": False,
        "ok": not new,
        "problems": [f.message for f in new],
        "known_problems": [f.message for f in known],
        "findings": [f.as_dict() for f in findings],
        "values": health.values(services),
        "firing": health.firing(services, expect),
        "services": health.summary(services),
    }


def main():
    urls = ["prometheus_url", "alertmanager_url", "grafana_url", "loki_url"]
    spec = ArgumentSpec(
        {name: {"type": "str"} for name in urls},
        {name: {"type": "list", "elements": "str", "default": []} for name in LISTS},
        expected_values={"type": "list", "elements": "dict", "default": [], "options": VALUE},
        grafana_token={"type": "str", "no_log": True},
        ignore_alerts={"type": "list", "elements": "str", "default": ["Watchdog"]},
        max_scrape_age={"type": "float", "default": 0},
        max_clock_skew={"type": "float", "default": 30},
        window={"type": "int", "default": 900},
        baseline={"type": "dict"},
        timeout={"type": "float", "default": 10},
    )
    run(spec.module(required_one_of=[urls]), act)


if __name__ == "__main__":
    main()
