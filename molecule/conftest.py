# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests ask with: every answer is read from the network or from a host, none from what the playbook said."""

from __future__ import annotations

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

    def journals(self) -> list[pathlib.PurePosixPath]:
        """One directory for each turn that this host has ever begun."""
        listed = self.output(f"ls -d /var/lib/chainops/{self.name}/journal/*/ 2>/dev/null || true")
        return [pathlib.PurePosixPath(line) for line in listed.splitlines()]

    def running_release(self) -> str:
        """The digest of the release that the link points at and the process was started from."""
        link = self.output(f"readlink -f /opt/{self.name}/current")
        pid = self.output("systemctl show --property MainPID --value xai-node.service")
        assert pid != "0", f"{self.name}: the node is not running"
        command_line = self.shell.file(f"/proc/{pid}/cmdline").content_string
        maps = self.output(f"grep -c {link} /proc/{pid}/maps || true")
        assert f"/opt/{self.name}/current" in command_line or link in command_line or int(maps) > 0
        return pathlib.PurePosixPath(link).name


@dataclasses.dataclass(frozen=True)
class Devnet:
    validators: tuple[Host, ...]
    gateways: tuple[Host, ...]
    home: pathlib.Path

    def __getitem__(self, name: str) -> Host:
        return next(host for host in (*self.validators, *self.gateways) if host.name == name)

    def same_chain(self) -> bool:
        """Every validator has the same block at the lowest of their tips."""
        tips = [host.api_get("/block/latest") for host in self.validators]
        lowest = min(int(tip["index"]) for tip in tips)
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
