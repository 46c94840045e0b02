# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that call themselves healthy and are not: each is caught, by the look from outside or by the canary's analysis.

Four real reference nodes, scraped by a real Prometheus that has the rules this collection ships. The first node is the canary,
and is started again for each test with another way to misbehave.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import typing as t
import urllib.request

import pytest

from .conftest import free_port, program, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "roles" / "devnet" / "files"), str(ROOT / "tests" / "unit" / "refnode")]

import refnode_support as refnodes

Ansible = t.Callable[..., t.Dict[str, t.Any]]
OTHERS = ["val2", "val3", "val4"]
RULES = ROOT / "roles" / "verify" / "files" / "rollout.rules.yml"
MEMORY = {"name": "memory", "query": "process_resident_memory_bytes", "tolerance": 0.3, "floor": 2e7}
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: xai-node
    static_configs:
{targets}
"""


class Fleet:
    def __init__(self, folder: pathlib.Path) -> None:
        self.net = refnodes.Net(folder / "net", validators=4)
        self.release = refnodes.release(folder / "release", "1.0.0", 1)
        for number in range(4):
            self.start(number)
        self.net.at(3)
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        targets = "\n".join(
            f'      - {{targets: ["127.0.0.1:{node.port}"], labels: {{instance: "val{node.number}"}}}}' for node in self.net.nodes
        )
        (folder / "prometheus.yml").write_text(CONFIG.format(rules=RULES, targets=targets))
        self.log = (folder / "prometheus.log").open("wb")
        self.prometheus = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        until(lambda: urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).status == 200, "Prometheus is ready", 60)

    def start(self, number: int, misbehave: str = "") -> None:
        node = self.net.nodes[number]
        if node.popen is not None and node.popen.poll() is None:
            node.stop()
        node.start(self.release, REFNODE_BLOCK_INTERVAL="1.0", REFNODE_MISBEHAVE=misbehave)

    def nodes(self) -> list[dict[str, str]]:
        return [
            {"name": f"val{node.number}", "api_url": node.url, "address": identity["address"]}
            for node, identity in zip(self.net.nodes, self.net.members.identities)
        ]

    def close(self) -> None:
        self.prometheus.terminate()
        try:
            self.prometheus.wait(20)
        except subprocess.TimeoutExpired:
            self.prometheus.kill()
            self.prometheus.wait()
        self.log.close()
        self.net.__exit__()


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
