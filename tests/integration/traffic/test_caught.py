# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that call themselves healthy and are not: each is caught, by the look from outside or by the canary's analysis.

Four real reference nodes, scraped by a real Prometheus that has the rules this collection ships. The first node is the canary,
and is started again for each test with another way to misbehave.
"""

from __future__ import annotations

import typing as t

import pytest

from .nodes import Fleet, refnodes

Ansible = t.Callable[..., t.Dict[str, t.Any]]
OTHERS = ["val2", "val3", "val4"]
MEMORY = {"name": "memory", "query": "process_resident_memory_bytes", "tolerance": 0.3, "floor": 2e7}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    running = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield running
    finally:
        running.close()


def soak(ansible: Ansible, fleet: Fleet, **options: t.Any) -> dict[str, t.Any]:
    given = {
        "canary": ["val1"],
        "baseline": OTHERS,
        "prometheus_url": fleet.url,
        "nodes": fleet.nodes(),
        "soak": 24,
        "extend": 24,
        "settle": 3,
        "step": 1,
        "looks": 4,
        "max_missed": 1000,  # this machine may starve a node of its core; what is caught here is caught without it
        "checks": [MEMORY],
        "timeout": 5,
        **options,
    }
    return ansible("canary_analysis_info", **given)


def failed(answer: dict[str, t.Any]) -> list[str]:
    return [check["name"] for check in answer["checks"] if check["verdict"] == "fail"]


def outside(ansible: Ansible, fleet: Fleet, **wait: t.Any) -> dict[str, t.Any]:
    first, *others = fleet.nodes()
    wanted = {"advance": 1, "tip_of": [one["api_url"] for one in others], "timeout": 20, **wait}
    return ansible("validator_info", api_url=first["api_url"], admin_token=refnodes.ADMIN, wait=wanted)


def test_a_healthy_one_passes(ansible: Ansible, fleet: Fleet) -> None:
    assert outside(ansible, fleet, timeout=60, paused=False)["met"]
    answer = soak(ansible, fleet)
    assert answer["verdict"] == "pass", (answer["reasons"], answer["looks"])
    named = ("ThirdAway", "ValidatorAwayTooLong", "ChainStalled", "ValidatorCrawls", "RestartLoop")
    rules = [f"Chainops{name}" for name in named]
    seen = ansible("monitoring_info", prometheus_url=fleet.url, expected_jobs=["xai-node"], expected_rules=rules)
    assert [p for p in seen["problems"] if p.startswith(("rule", "expected", "target"))] == []


@pytest.mark.parametrize(
    ("misbehave", "check"),
    [
        ("stall", "val1 follows the chain"),
        ("fork", "val1 follows the chain"),
        ("slow=900", "time to answer, as seen from here"),
        ("leak=6", "memory"),
    ],
)
def test_a_bad_one_fails(ansible: Ansible, fleet: Fleet, misbehave: str, check: str) -> None:
    fleet.start(0, misbehave)
    if misbehave in ("stall", "fork"):
        assert not outside(ansible, fleet)["met"], "the look from outside has seen it, too"
    answer = soak(ansible, fleet)
    assert answer["verdict"] == "fail" and check in failed(answer), (answer["reasons"], answer["looks"])


def test_a_paused_one_is_seen_by_its_operator(ansible: Ansible, fleet: Fleet) -> None:
    fleet.start(0)
    node = fleet.net.nodes[0]
    headers = {"X_Admin_Token": refnodes.ADMIN, **node.token()}
    assert node.call("POST", "/admin/emergency/pause", {"reason": "test"}, **headers)[0] == 200
    assert node.get("/health")["status"] == "healthy", "which it says of itself"
    answer = outside(ansible, fleet, paused=False)
    assert not answer["met"] and "its pause is paused" in answer["reasons"]


def test_one_whose_exporter_is_gone_is_not_let_through(ansible: Ansible, fleet: Fleet) -> None:
    fleet.start(0, "no_metrics")
    answer = soak(ansible, fleet, soak=12, extend=0)
    assert answer["verdict"] in ("inconclusive", "fail")
    assert any(r.startswith("memory: canary val1") for r in answer["reasons"]), answer["reasons"]


def test_one_whose_peers_are_all_dead_is_not_let_through(ansible: Ansible, fleet: Fleet) -> None:
    fleet.start(0)
    for node in fleet.net.nodes[1:]:
        node.stop()
    assert fleet.net.nodes[0].get("/health") is not None, "it answers"
    assert not outside(ansible, fleet, timeout=5)["met"]
    answer = soak(ansible, fleet, soak=8, extend=0, settle=0, timeout=1)
    assert answer["verdict"] != "pass"
    found = ansible("network_info", nodes=fleet.nodes(), timeout=1)["network"]
    assert not found["ok"] and sum(f["kind"] == "unreachable" for f in found["findings"]) == 3
