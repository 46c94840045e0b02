# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests ask with: every answer is read from the network or from a host, none from what the playbook said."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t
import urllib.request

import pytest
import testinfra

REPO = pathlib.Path(__file__).resolve().parents[1]
INVENTORY = REPO / "inventories" / "devnet"


def get(url: str, timeout: float = 5.0) -> t.Any:
    """JSON from one of the devnet's own addresses."""
    with urllib.request.urlopen(url, timeout=timeout) as response:
        return json.load(response)


@dataclasses.dataclass(frozen=True)
class Host:
    name: str
    address: str
    shell: t.Any  # testinfra's host

    @property
    def api(self) -> str:
        return f"http://{self.address}:8545"

    def api_get(self, path: str) -> t.Any:
        return get(self.api + path)

    def json_file(self, path: str) -> t.Any:
        return json.loads(self.shell.file(path).content_string)

    def output(self, command: str) -> str:
        done = self.shell.run(command)
        assert done.rc == 0, f"{self.name}: {command}: {done.stderr}"
        return str(done.stdout).strip()

    def turns(self) -> list[dict[str, t.Any]]:
        """What each turn that this host has ever begun ended with."""
        listed = self.output(f"ls -d /var/lib/chainops/{self.name}/journal/*/ 2>/dev/null || true").splitlines()
        return [self.json_file(f"{path}result.json") for path in sorted(listed)]

    def open_turn(self) -> bool:
        return bool(self.shell.file(f"/var/lib/chainops/{self.name}/journal/open").exists)

    def release(self) -> str:
        """The digest of the release that the link points at."""
        return pathlib.PurePosixPath(self.output(f"readlink -f /opt/{self.name}/current")).name

    def started(self) -> str:
        """When the node's process was started: another value is another process."""
        return self.output("systemctl show --property ExecMainStartTimestampMonotonic --value xai-node.service")


@dataclasses.dataclass(frozen=True)
class Devnet:
    validators: tuple[Host, ...]
    gateways: tuple[Host, ...]
    home: pathlib.Path

    def release(self, name: str) -> dict[str, t.Any]:
        """The descriptor of a release that the devnet built: 1.0.0, 2.0.0, 2.0.1-stall."""
        path = self.home.parent / ".releases" / f"xai-refnode-{name}-x86_64.release.json"
        return t.cast("dict[str, t.Any]", json.loads(path.read_text(encoding="utf-8")))

    def digest(self, name: str) -> str:
        return str(self.release(name)["artifacts"]["x86_64"]["sha256"])

    def log(self, name: str) -> str:
        """What a playbook that a scenario ran said."""
        return (self.home / "logs" / f"{name}.log").read_text(encoding="utf-8")

    def handed_over(self, name: str) -> dict[str, t.Any]:
        """What a playbook left for the next job of a workflow."""
        events = (self.home / "runner" / name / "artifacts" / "job" / "job_events").glob("*.json")
        told = [json.loads(path.read_text(encoding="utf-8")) for path in events]
        (stats,) = [event["event_data"] for event in told if event["event"] == "playbook_on_stats"]
        return t.cast("dict[str, t.Any]", stats["artifact_data"])

    def gateway_servers(self) -> dict[str, str]:
        """Status of each server, as HAProxy tells it on its socket."""
        shown = self.gateways[0].output(
            'python3 -c \'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/haproxy/admin.sock"); '
            's.sendall(b"show stat -1 4 -1\\n"); print(s.makefile().read())\''
        )
        rows = list(csv.DictReader(shown.lstrip("# ").splitlines()))
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == "validators"}

    def equivocations(self) -> list[t.Any]:
        return [one for host in self.validators for one in host.api_get("/finality/status")["equivocations"]]

    def __getitem__(self, name: str) -> Host:
        return next(host for host in (*self.validators, *self.gateways) if host.name == name)

    def same_chain(self) -> bool:
        """Every validator has the same block at the lowest of their tips."""
        lowest = min(int(host.api_get("/block/latest?summary=1")["block_number"]) for host in self.validators)
        return len({host.api_get(f"/blocks/{lowest}")["hash"] for host in self.validators}) == 1


@pytest.fixture(scope="session")
def devnet() -> Devnet:
    listed = subprocess.run([sys.executable, INVENTORY / "hosts.py"], check=True, capture_output=True, env=os.environ)
    inventory = json.loads(listed.stdout)
    addresses = {name: facts.get("ansible_host") for name, facts in inventory["_meta"]["hostvars"].items()}

    def group(name: str) -> tuple[Host, ...]:
        return tuple(
            Host(host, addresses[host], testinfra.get_host(f"ansible://{host}", ansible_inventory=str(INVENTORY)))
            for host in inventory[name]["hosts"]
        )

    return Devnet(group("validators"), group("gateways"), pathlib.Path(inventory["all"]["vars"]["devnet_home"]))


@pytest.fixture(scope="session")
def eventually() -> t.Callable[..., None]:
    def wait(holds: t.Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.25)

    return wait
