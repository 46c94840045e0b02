# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of the playbooks: controllers that die, that sleep, that come in pairs; gates that close; hooks that say no."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
import typing as t

import pytest
import yaml

pytest.importorskip("ansible.module_utils.testing")
pytest.importorskip("ansible.cli")

from ansible_collections.chainops.validator.tests.unit.playbooks.fleet_of_files import Fleet
from ansible_collections.chainops.validator.tests.unit.playbooks.test_replica_runs import whole

ONCE = {"h1": ["forward"], "h2": ["forward"], "h3": ["forward"]}


def until(what: t.Callable[[], bool], run: t.Any) -> None:
    for dummy in range(3000):
        if what():
            return
        assert run.poll() is None, "it ended before that"
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def test_killed_between_turn_and_gateway_nobody_is_forgotten_and_nobody_repeated(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.change(faults={"validator_upgrade/h2": {"kill": True}})
    assert fleet.run("upgrade")[0] == -signal.SIGKILL
    assert fleet.releases() == {"h1": "new", "h2": "new", "h3": "old"} and fleet.drained() == ["h2"]
    assert fleet.recorded("h2") == []

    fleet.change(gate="proposed")
    code, said = fleet.run("status", status_file=str(tmp_path / "status.json"))
    rows = {row["host"]: row for row in json.loads((tmp_path / "status.json").read_text())}
    assert code == 0 and {host: row["state"] for host, row in rows.items()} == {"h1": "new", "h2": "drained", "h3": "old"}
    assert rows["h2"]["drained_on"] == ["gw"] and any("not in the manifest" in text for text in rows["h2"]["problems"])
    before = {"gw": {"api": {"state": "ready", "weight": 100}}}
    assert fleet.there()["journals"]["h2"] == {"state": "drained", "turn_id": "p7-h2-1", "before": before}
    assert "drained on gw" in said

    # The gate is closed meanwhile: the host that was left is seen through all the same, and the fleet holds.
    code, said = fleet.run("resume")
    assert code != 0 and "taken over, its process is gone" in said
    assert "the fleet stays between: h1, h2 new, h3 old" in said
    assert fleet.drained() == [] and fleet.recorded("h2") == ["upgrade"]
    assert [fleet.lease(host)["released"] for host in fleet.hosts] == [True] * 3
    # What the host wrote down of its gateways is handed to them, and then called over.
    assert ["h2", "active", before["gw"]] in fleet.there()["befores"]
    assert fleet.there()["journals"]["h2"]["state"] == "active"

    fleet.change(gate="implementation_approved")
    code, said = fleet.run("upgrade")
    assert code == 0, said
    assert fleet.turns() == ONCE and fleet.drained() == []
    assert {journal["state"] for journal in fleet.there()["journals"].values()} == {"active"}
    assert [fleet.recorded(host) for host in fleet.hosts] == [["upgrade", "finish"]] * 3
    tokens = [fleet.lease(host)["token"] for host in fleet.hosts]
    assert tokens == [3, 3, 3]


@pytest.mark.parametrize(("asleep", "done"), [("state_snapshot/h2", "old"), ("validator_upgrade/h2", "new")])
def test_a_controller_that_sleeps_through_a_break_can_do_nothing_more(tmp_path: pathlib.Path, asleep: str, done: str) -> None:
    """Before the last turn, and after it, when there is something left to be seen through before the rollout goes on."""
    fleet = Fleet(tmp_path, 2)
    go = tmp_path / "go"
    fleet.change(faults={asleep: {"wait": str(go)}})
    first = fleet.start("upgrade", log="first")
    until((tmp_path / "waiting").exists, first)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        code, said = fleet.run("upgrade", log="second")
        assert code != 0 and "rollout p7 is held by" in said and f"pid {first.pid} since" in said
        assert "rollout_break_token=1" in said and fleet.releases() == {"h1": "new", "h2": done}
        code, said = fleet.run("upgrade", log="third", rollout_break_token=1)
        assert code == 0, said
        assert "BROKEN: rollout p7 is held by" in said
        assert fleet.recorded("h2")[0] == "lock_broken"
    finally:
        go.touch()
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait(timeout=900) != 0
    said = fleet.said("first")
    assert "token 1 is older than 2" in said or "is older than 2, which this host has seen" in said
    assert fleet.turns() == {"h1": ["forward"], "h2": ["forward"]} and fleet.drained() == []


def test_what_was_held_because_the_proposal_is_rolled_back_is_taken_back_by_the_next_run(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    fleet.change(faults={"api_drain/h1": {"gate": "rolled_back"}})
    code, said = fleet.run("upgrade", rollout_on_withdrawn="hold")
    assert code != 0 and "it is rolled_back" in said
    assert fleet.releases() == {"h1": "new", "h2": "old"} and fleet.turns() == {"h1": ["forward"], "h2": []}
    assert fleet.drained() == [] and fleet.lease("h1")["released"]
    code, said = fleet.run("resume", rollout_on_withdrawn="rollback")
    assert code != 0 and "were taken back" in " ".join(said.split())
    assert set(fleet.releases().values()) == {"old"}


HOOKS = {
    "pre_drain": ("old", [], []),
    "pre_upgrade": ("old", [], []),
    "post_upgrade": ("new", ["h1"], ["upgrade"]),
    "pre_undrain": ("new", ["h1"], ["upgrade"]),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_says_no_leaves_the_host_as_is_promised(tmp_path: pathlib.Path, hook: str) -> None:
    fleet = Fleet(tmp_path, 1)
    release, drained, recorded = HOOKS[hook]
    path = tmp_path / "hook.yml"
    path.write_text(yaml.safe_dump([{"name": "Ask", "ansible.builtin.fail": {"msg": "the hook says no"}}]))
    code, said = fleet.run("upgrade", rollout_hooks={hook: str(path)})
    assert code != 0 and "the hook says no" in said
    assert fleet.releases() == {"h1": release} and fleet.drained() == drained
    assert fleet.recorded("h1") == recorded and fleet.lease("h1")["released"]
    assert ("STILL DRAINED" in said) is bool(drained)
    drains = [call[2] for call in fleet.there()["calls"] if call[0] == "api_drain"]
    # Let go of, then waited for.
    drained_twice = ["drained", "drained"]
    assert drains == {"pre_drain": [], "pre_upgrade": [*drained_twice, "active"]}.get(hook, drained_twice)


@pytest.mark.parametrize(
    ("playbook", "arguments", "says"),
    [
        ("upgrade", ["--limit", "h1"], "leave out --limit (now h1)"),
        ("rollback", ["--limit", "validators"], "leave out --limit (now validators)"),
        ("upgrade", ["--tags", "drain"], "--skip-tags (now drain without any)"),
        ("close", ["--skip-tags", "x"], "--skip-tags (now all without x)"),
        ("rollback", ["--start-at-task", "Write down that the rollout is finished"], "lock was not taken in this run"),
        ("upgrade", ["--start-at-task", "Drain on every gateway"], "The rollout was begun in its middle"),
    ],
)
def test_a_part_of_a_rollout_is_refused_before_anything_is_touched(
    tmp_path: pathlib.Path, playbook: str, arguments: list[str], says: str
) -> None:
    fleet = Fleet(tmp_path, 2)
    code, said = fleet.run(playbook, *arguments)
    assert code != 0 and says in " ".join(said.split()), said
    changes = {"validator_upgrade", "api_drain", "state_snapshot", "state_restore"}
    assert [call for call in fleet.there()["calls"] if call[0] in changes] == []
    assert not fleet.lease("h1") and not fleet.recorded("h1")


def test_back_last_one_first_and_there_again(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    assert fleet.run("upgrade")[0] == 0
    fleet.change(faults={"validator_upgrade/h2": {"kill": True}}, calls=[])
    assert fleet.run("rollback")[0] == -signal.SIGKILL
    assert fleet.releases() == {"h1": "new", "h2": "old"} and fleet.drained() == ["h2"]
    code, said = fleet.run("rollback")
    assert code == 0, said
    assert set(fleet.releases().values()) == {"old"} and fleet.drained() == []
    assert whole(fleet) and fleet.recorded("h1") == ["upgrade", "finish", "rollback", "finish"]
    # A way back may have to catch up, before it commits and before it is looked at from outside: the lease counts that.
    assert fleet.lease("h1")["lease_seconds"] == 1020 + 2 * 600
    calls = [call[0] + "/" + call[1] for call in fleet.there()["calls"] if call[0] in ("validator_upgrade", "network_info")]
    assert [call for call in calls if call != "network_info/"] == ["validator_upgrade/h2", "validator_upgrade/h1"]
    # Right before each turn backwards the network is looked at, and the node that went before has caught up.
    assert all(calls[index - 1] == "network_info/" for index, call in enumerate(calls) if call.startswith("validator_upgrade"))
    code, said = fleet.run("upgrade")
    assert code == 0, said
    assert fleet.turns() == {host: ["forward", "back", "forward"] for host in fleet.hosts}
