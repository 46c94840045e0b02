# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary of the devnet, as its inventory has it judged: with these very expressions, settings, scrapes and rules.

Four real reference nodes behind a real HAProxy, under requests, scraped by a real Prometheus. The first one is upgraded for real,
data and all, and passes; then it is started with releases that call themselves healthy and are not.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import typing as t
import urllib.error
import urllib.request

import jinja2
import pytest
import yaml

from .conftest import free_port, program, until
from .nodes import ROOT, Fleet, refnodes

Ansible = t.Callable[..., t.Dict[str, t.Any]]
ROLE = ROOT / "roles" / "devnet"
SETTINGS = yaml.safe_load((ROOT / "inventories" / "devnet" / "group_vars" / "all.yml").read_text(encoding="utf-8"))
NAMES = ["val1", "val2", "val3", "val4"]
# Names and metrics as roles/devnet/templates/haproxy.cfg.j2 has them; ports of its own for each node.
HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend api
  bind 127.0.0.1:{port}
  default_backend validators
backend validators
  balance roundrobin
  option httpchk
  http-check send meth GET uri /health
  http-check expect status 200
  default-server inter 1s fastinter 250ms fall 2 rise 2
{servers}
frontend metrics
  bind 127.0.0.1:{metrics}
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""


class Devnet(Fleet):
    """The fleet, a gateway in front of it, and clients."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.port, self.metrics = free_port(), free_port()
        super().__init__(folder)
        self.upgraded = refnodes.release(folder / "upgraded", "2.0.0", 2)
        servers = "\n".join(f"  server val{node.number} 127.0.0.1:{node.port} check" for node in self.net.nodes)
        (folder / "haproxy.cfg").write_text(HAPROXY.format(port=self.port, metrics=self.metrics, servers=servers))
        self.gateway = subprocess.Popen([program("haproxy"), "-f", str(folder / "haproxy.cfg")], stdout=self.log, stderr=self.log)
        until(lambda: self.ask() == 200, "the gateway answers", 30)
        self.quiet = threading.Event()
        self.clients = [threading.Thread(target=self.client) for dummy in range(2)]
        for client in self.clients:
            client.start()

    def config(self, folder: pathlib.Path) -> str:
        """The role's own template, and all the rules that the role copies; ports of its own for each target."""
        servers = [{"name": f"val{node.number}", "address": f"NODE{node.number}"} for node in self.net.nodes]
        text = (ROLE / "templates" / "prometheus.yml.j2").read_text(encoding="utf-8")
        text = jinja2.Template(text).render(__devnet_servers=servers, devnet_api_port="PORT", inventory_hostname="gw1")
        for node in self.net.nodes:
            text = text.replace(f"NODE{node.number}:PORT", f"127.0.0.1:{node.port}")
        (folder / "rules").mkdir()
        tasks = yaml.safe_load((ROLE / "tasks" / "gateway.yml").read_text(encoding="utf-8"))
        (copied,) = [task["loop"] for task in tasks if "ansible.builtin.copy" in task]
        for item in copied:
            if item["dest"].startswith("/etc/prometheus/rules/"):
                source = item["src"].replace("{{ role_path }}", str(ROLE))
                shutil.copy(source if source.startswith("/") else ROLE / "files" / source, folder / "rules")
        return text.replace("/etc/prometheus/rules", str(folder / "rules")).replace("127.0.0.1:8404", f"127.0.0.1:{self.metrics}")

    def ask(self) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            return int(exc.code)

    def client(self) -> None:
        while not self.quiet.wait(0.05):
            with contextlib.suppress(OSError):
                self.ask()

    def upgrade(self) -> float:
        """Takes the first node to level 2; when that began."""
        began = time.time()
        self.stop(0)
        migrate = "import sys; from refnode import migrate; sys.exit(migrate.main())"
        command = [sys.executable, "-c", migrate, "--data-dir", str(self.net.nodes[0].data), "--to", "2"]
        subprocess.run(command, check=True, env={"PYTHONPATH": str(self.upgraded / "lib")}, timeout=60)
        self.start(0, release=self.upgraded)
        return began

    def close(self) -> None:
        self.quiet.set()
        for client in self.clients:
            client.join(30)
        self.gateway.terminate()
        try:
            self.gateway.wait(20)
        except subprocess.TimeoutExpired:
            self.gateway.kill()
            self.gateway.wait()
        super().close()


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Devnet]:
    running = Devnet(tmp_path_factory.mktemp("devnet"))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def upgraded(devnet: Devnet) -> float:
    """When the canary's upgrade began, half a minute after everybody was started."""
    time.sleep(30)
    return devnet.upgrade()


def soak(ansible: Ansible, devnet: Devnet, before: float, **options: t.Any) -> dict[str, t.Any]:
    """What roles/verify/tasks/soak.yml asks, with the inventory's settings."""
    given = {
        "canary": NAMES[:1],
        "baseline": NAMES[1:],
        "prometheus_url": devnet.url,
        "checks": SETTINGS["rollout_canary_checks"],
        "soak": SETTINGS["rollout_soak_seconds"],
        "extend": SETTINGS["rollout_soak_extend"],
        "step": SETTINGS["rollout_soak_step"],
        "past": SETTINGS["rollout_soak_past"],
        "before": before,
        "began": before,
        "nodes": [],
    }
    return ansible("canary_analysis_info", **{**given, **options})


def told(answer: dict[str, t.Any]) -> str:
    """As text, which pytest shows whole."""
    return json.dumps({name: answer.get(name) for name in ("msg", "reasons", "looks", "checks")}, indent=1)


def test_the_rules_that_the_inventory_expects_are_loaded_and_read_what_is_there(ansible: Ansible, devnet: Devnet) -> None:
    expected = SETTINGS["rollout_monitoring"]["expected_rules"]
    assert {name for name in expected if name.startswith("Chainops")}

    def problems() -> list[str]:
        answer = ansible(
            "monitoring_info",
            prometheus_url=devnet.url,
            expected_jobs=SETTINGS["rollout_monitoring"]["expected_jobs"],
            expected_rules=expected,
        )
        return [p for p in answer["problems"] if p.startswith(("rule", "expected"))]

    until(lambda: problems() == [], "every rule was evaluated, and reads series that exist", 60)


def test_an_upgrade_that_is_good_goes_on_and_takes_no_longer_than_was_said(
    ansible: Ansible, devnet: Devnet, upgraded: float
) -> None:
    # A machine that starves a node of its core makes it miss a block; the others' cores are the same.
    answer = soak(ansible, devnet, upgraded, nodes=devnet.nodes(), max_missed=1000)
    assert answer["verdict"] == "pass", told(answer)
    names = {check["name"]: check for check in answer["checks"]}
    for check in SETTINGS["rollout_canary_checks"]:
        assert names[check["name"]]["verdict"] == "pass" and names[check["name"]]["samples"][0] >= 5, told(answer)


@pytest.mark.parametrize(
    ("misbehave", "seen"),
    [
        ("slow=500", "time that nine of ten answers take"),
        ("errors=20", "share of answers that are errors"),
        ("leak", "memory"),
    ],
)
def test_a_bad_one_stops_there(ansible: Ansible, devnet: Devnet, upgraded: float, misbehave: str, seen: str) -> None:
    """By its metrics alone: nodes aren't asked, which would see some of it, too."""
    devnet.start(0, misbehave, devnet.upgraded)
    answer = soak(ansible, devnet, upgraded)
    assert answer["verdict"] == "fail", told(answer)
    assert seen in [check["name"] for check in answer["checks"] if check["verdict"] == "fail"], told(answer)


def test_errors_that_it_does_not_count_itself_are_counted_at_the_gateway(
    ansible: Ansible, devnet: Devnet, upgraded: float
) -> None:
    devnet.start(0, "errors=20", devnet.upgraded)
    (gateway,) = [check for check in SETTINGS["rollout_canary_checks"] if "haproxy" in check["query"]]
    answer = soak(ansible, devnet, upgraded, checks=[gateway])
    assert answer["verdict"] == "fail", told(answer)


def test_one_that_tells_nothing_does_not_go_on(ansible: Ansible, devnet: Devnet, upgraded: float) -> None:
    devnet.start(0, "no_metrics", devnet.upgraded)
    answer = soak(ansible, devnet, upgraded, extend=0)
    assert answer["verdict"] == "inconclusive", told(answer)
    assert any("memory: canary val1: " in reason for reason in answer["reasons"]), told(answer)
