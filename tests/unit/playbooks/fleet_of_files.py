# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of "hosts" on this machine: the real playbooks, roles, lock and manifests; ``stub.py`` for whatever needs a node."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
import typing as t

found = importlib.util.find_spec("ansible_collections.chainops.validator.plugins")
REPO = pathlib.Path(next(iter(found.submodule_search_locations or ())) if found else "").resolve().parent
STUBBED = (
    "api_drain",
    "api_drain_info",
    "canary_analysis_info",
    "governance_proposal_info",
    "network_info",
    "rollout_report",
    "state_restore",
    "state_snapshot",
    "state_snapshot_info",
    "validator_info",
    "validator_upgrade",
    "validator_upgrade_info",
)
OLD, NEW = "a" * 64, "b" * 64
Json = t.Dict[str, t.Any]


class Fleet:
    def __init__(self, folder: pathlib.Path, count: int = 3) -> None:
        self.folder = folder
        self.hosts = [f"h{number}" for number in range(1, count + 1)]
        self.world = folder / "world.json"
        self._collection()
        hosts = {host: {"release": OLD, "turns": []} for host in self.hosts}
        self.world.write_text(
            json.dumps({"old": OLD, "gate": "implementation_approved", "hosts": hosts, "drains": {}, "calls": [], "faults": {}})
        )
        for host in self.hosts:
            unpacked = folder / "state" / host / "releases"
            unpacked.mkdir(parents=True)
            (unpacked / f"{NEW}.complete").touch()
        inventory = {
            "all": {
                "vars": self._variables(),
                "children": {
                    "validators": {"hosts": {host: {"ansible_host": host} for host in self.hosts}},
                    "gateways": {"hosts": {"gw": {}}},
                },
            }
        }
        (folder / "inventory.json").write_text(json.dumps(inventory))

    def _collection(self) -> None:
        root = self.folder / "collections" / "ansible_collections" / "chainops" / "validator"
        (root / "plugins" / "modules").mkdir(parents=True)
        for name in ("roles", "playbooks", "meta", "galaxy.yml"):
            (root / name).symlink_to(REPO / name)
        for path in (REPO / "plugins").iterdir():
            if path.name not in ("modules", "__pycache__"):
                (root / "plugins" / path.name).symlink_to(path)
        for path in (REPO / "plugins" / "modules").glob("*.py"):
            if path.stem not in STUBBED:
                (root / "plugins" / "modules" / path.name).symlink_to(path)
        stub = pathlib.Path(__file__).with_name("stub.py").read_text(encoding="utf-8")
        for name in STUBBED:
            (root / "plugins" / "modules" / f"{name}.py").write_text(f"#!/usr/bin/python\n{stub}", encoding="utf-8")

    def _variables(self) -> Json:
        artifact = {"src": "/nowhere.tar.gz", "sha256": NEW}
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "validator_become": False,
            "validator_state_dir": str(self.folder / "state"),
            "validator_data_dir": "/data/{{ inventory_hostname }}",
            "validator_service": "{{ inventory_hostname }}.service",
            "validator_address": "{{ inventory_hostname }}",
            "rollout_release": {
                "id": "2",
                "artifacts": dict.fromkeys({platform.machine(), "x86_64", "aarch64"}, artifact),
            },
            "rollout_proposal_id": "p7",
            "rollout_report_dir": str(self.folder / "report"),
            "rollout_stage": False,
        }

    def command(self, playbook: str, *arguments: str, **variables: t.Any) -> list[str]:
        return [
            *(sys.executable, "-m", "ansible", "playbook", "-i", str(self.folder / "inventory.json")),
            *(f"chainops.validator.{playbook}", "-e", json.dumps(variables), *arguments),
        ]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_DEPRECATION_WARNINGS": "False",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "CHAINOPS_TEST_WORLD": str(self.world),
        }

    def start(self, playbook: str, *arguments: str, log: str = "log", **variables: t.Any) -> subprocess.Popen[bytes]:
        with open(self.folder / log, "wb") as stream:
            started = subprocess.Popen(
                self.command(playbook, *arguments, **variables), env=self.environment(), stdout=stream, stderr=subprocess.STDOUT
            )
        (self.folder / "controller").write_text(str(started.pid))
        return started

    def run(self, playbook: str, *arguments: str, log: str = "log", **variables: t.Any) -> tuple[int, str]:
        started = self.start(playbook, *arguments, log=log, **variables)
        code = started.wait(timeout=900)
        return code, self.said(log)

    def said(self, log: str = "log") -> str:
        return (self.folder / log).read_text(encoding="utf-8", errors="replace")

    def there(self) -> Json:
        return t.cast(Json, json.loads(self.world.read_text(encoding="utf-8")))

    def change(self, **changes: t.Any) -> None:
        self.world.write_text(json.dumps({**self.there(), **changes}))

    def releases(self) -> dict[str, str]:
        return {host: {OLD: "old", NEW: "new"}[its["release"]] for host, its in self.there()["hosts"].items()}

    def turns(self) -> dict[str, list[str]]:
        """Directions of each host's turns, the first one first."""
        return {host: [turn["direction"] for turn in reversed(its["turns"])] for host, its in self.there()["hosts"].items()}

    def drained(self) -> list[str]:
        return sorted(server for server, record in self.there()["drains"].items() if record["state"] == "drained")

    def recorded(self, host: str) -> list[str]:
        path = self.folder / "state" / host / "migration_manifest.json"
        return [entry["kind"] for entry in json.loads(path.read_text())["entries"]] if path.exists() else []

    def lease(self, host: str) -> Json:
        path = self.folder / "state" / host / "lock"
        return t.cast(Json, json.loads(path.read_text())) if path.exists() else {}
