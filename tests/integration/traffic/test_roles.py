# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles drain and undrain as they are, between a real HAProxy and a validator's state directory."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import yaml

from ansible_collections.chainops.validator.plugins.module_utils._gateway.haproxy import HAProxy

from .conftest import Gateway


class Play:
    """One validator (val1) and one gateway (gw), both this machine."""

    def __init__(self, gateway: Gateway, **variables: t.Any) -> None:
        self.folder = gateway.folder
        self.state = gateway.folder / "state"
        self.variables = {
            **{"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "validator_become": False},
            **{"validator_gateway_server": "a", "validator_instance": "val1", "validator_state_dir": str(self.state)},
            **{"rollout_gateways": ["gw"], "rollout_gateway_socket": gateway.socket, "rollout_drain_timeout": 20},
            **{"__rollout_turn_id": "t1", "__rollout_token": 3, "undrain_token": 3, "undrain_turn_id": "t1", "drain_lease": 0},
            **variables,
        }

    def run(self, *roles: dict[str, t.Any]) -> tuple[int, str]:
        tasks = [{"ansible.builtin.include_role": {"rolespec_validate": False, **role}} for role in roles]
        receipts = {"receipt_dir": str(self.folder / "receipts")}
        play = {
            **{"hosts": "val1", "gather_facts": False, "tasks": tasks},
            # The gateways' own records are where the test can lose them.
            "module_defaults": {"chainops.validator.api_drain": receipts, "chainops.validator.api_drain_info": receipts},
        }
        roles_of = [{"role": f"chainops.validator.{name}"} for name in ("rollout", "validator")]
        (self.folder / "play.yml").write_text(yaml.safe_dump([{**play, "roles": roles_of}]))
        (self.folder / "vars.json").write_text(json.dumps(self.variables))
        (self.folder / "inventory.yml").write_text("all: {hosts: {val1: {}, gw: {}}}\n")
        files = [str(self.folder / name) for name in ("inventory.yml", "play.yml", "vars.json")]
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", files[0], files[1], "-e", f"@{files[2]}"],
            env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        return done.returncode, done.stdout + done.stderr

    def journal(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads((self.state / "val1" / "drain" / "a.json").read_text()))


OUT, BACK = {"name": "chainops.validator.drain"}, {"name": "chainops.validator.undrain"}
OVER = {"name": "chainops.validator.undrain", "tasks_from": "over"}


def stands(gateway: Gateway) -> dict[str, tuple[str, int]]:
    return {s.label: (s.state, s.weight) for s in HAProxy(gateway.socket).look().find("a")}


def test_a_gateway_that_loses_its_disk_meanwhile_gets_the_host_back_as_it_was(gateway: Gateway) -> None:
    driver = HAProxy(gateway.socket)
    driver.set_weight("api", "a", 20)
    before = stands(gateway)
    play = Play(gateway)
    code, said = play.run(OUT)
    assert code == 0, said
    assert {state for state, dummy in stands(gateway).values()} == {"drain"}
    wrote = play.journal()
    assert wrote["state"] == "drained" and wrote["turn_id"] == "t1"
    assert {f"{b}/a": (was["state"], was["weight"]) for b, was in wrote["before"]["gw"].items()} == before
    lost: pathlib.Path = gateway.folder / "receipts" / "a.json"
    assert json.loads(lost.read_text())["state"] == "drained"
    lost.unlink()
    driver.set_weight("api", "a", 70)
    play.variables["upgrade_settled"] = {"drains": {"a": wrote}}
    code, said = play.run(BACK, OVER)
    assert code == 0, said
    assert stands(gateway) == before and play.journal()["state"] == "active"


def test_what_cannot_be_written_down_leaves_every_gateway_as_it_is(gateway: Gateway) -> None:
    before = stands(gateway)
    play = Play(gateway)
    (play.state).write_text("a file, where the state directory should be")
    code, said = play.run(OUT)
    assert code != 0 and "Not a directory" in said, said
    assert stands(gateway) == before and not (gateway.folder / "receipts" / "a.json").exists()
