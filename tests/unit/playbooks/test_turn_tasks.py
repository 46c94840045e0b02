# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of a hundred pays for every task of a turn a hundred times, one after the other."""

from __future__ import annotations

import pathlib
import typing as t

import yaml

REPO = pathlib.Path(__file__).resolve().parents[3]
# Three of them came later: every gateway lets go before any is waited for, monitoring is asked before the host goes
# back, and the lease is renewed on a majority.
MOST = 17


def expanded(tasks: list[dict[str, t.Any]], role: str = "") -> list[str]:
    """Names of the tasks that a host runs on the main path: imports followed, hooks and rescues left out."""
    found: list[str] = []
    for task in tasks:
        wanted = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role")
        imported = task.get("ansible.builtin.import_tasks")
        if "block" in task:
            found += expanded(task["block"], role) + expanded(task.get("always", []), role)
        elif wanted:
            name = wanted["name"].rpartition(".")[2]
            found += expanded(read(f"roles/{name}/tasks/{wanted.get('tasks_from', 'main')}.yml"), name)
        elif imported:
            found += expanded(read(f"roles/{role}/tasks/{imported}"), role)
        elif "rollout_hooks" not in str(task.get("ansible.builtin.include_tasks", "")):
            found.append(f"{role}: {task['name']}")
    return found


def read(path: str) -> t.Any:
    return yaml.safe_load((REPO / path).read_text(encoding="utf-8"))


def test_a_turn_is_few_tasks():
    (turns,) = [play for play in read("playbooks/upgrade.yml") if play["name"] == "Turns"]
    names = expanded(turns["tasks"])
    assert "upgrade: Take the turn" in names
    assert len(names) <= MOST, names


def test_all_of_the_stop_window_is_one_task():
    """Between the drain and the look from outside there is nothing but the turn, which the host takes by itself."""
    (turns,) = [play for play in read("playbooks/upgrade.yml") if play["name"] == "Turns"]
    names = expanded(turns["tasks"])
    drained, followed = (
        names.index("drain: Drain on every gateway"),
        names.index("verify: See from outside that the instance is well"),
    )
    assert names[drained + 1 : followed] == ["upgrade: Take the turn"]


def test_a_rollback_point_is_tested_before_the_drain_and_verified_before_the_next_turn():
    (turns,) = [play for play in read("playbooks/upgrade.yml") if play["name"] == "Turns"]
    names = expanded(turns["tasks"])
    order = [
        "snapshot: Copy the data while the node runs",
        "drain: Drain on every gateway",
        "undrain: Put back on every gateway",
        "record: Write the turn down",
        "snapshot: Verify the rollback point, and ship it",
    ]
    assert [name for name in names if name in order] == order
    (hot,), (verified,) = read("roles/snapshot/tasks/main.yml"), read("roles/snapshot/tasks/verified.yml")
    assert hot["chainops.validator.state_snapshot"]["test"] is True
    assert "rollout_stop_window_budget" in hot["chainops.validator.state_snapshot"]["stop_window_budget"]
    options = verified["chainops.validator.state_snapshot"]
    assert (options["state"], options["deep"]) == ("verified", True) and "ignore_errors" not in verified
    # A turn that came about is not written down as put back because of what came after it.
    (written,) = [
        task for task in read("roles/rollback/tasks/rescue.yml") if task["name"] == "Write down that the turn was put back"
    ]
    assert "(record_entry | default({})).entry is not defined" in written["when"]


def test_old_trees_go_where_a_rollout_ends():
    for path in ("roles/record/tasks/finished.yml", "roles/rollback/tasks/clean_up.yml"):
        reaping = [task for task in read(path) if task.get("chainops.validator.state_restore", {}).get("state") == "reaped"]
        assert len(reaping) == 1, path
    for path in ("playbooks/upgrade.yml", "playbooks/rollback.yml"):
        assert "tasks_from: finished" in (REPO / path).read_text(encoding="utf-8"), path


def test_nobody_is_told_anything_that_leaves_out_a_break_glass():
    said = read("roles/announce/vars/main.yml")
    assert said["__announce_text"].startswith("{{ __announce_loudly ~")
    for name in ("channel", "document"):
        text = (REPO / f"roles/announce/tasks/{name}.yml").read_text(encoding="utf-8")
        for line in text.splitlines():
            if "announce_message" in line or ".text" in line:
                assert "__announce_loudly" in line, line


def test_the_gate_asks_people_wherever_it_is_asked():
    for name in ("read", "recheck"):
        (task,) = read(f"roles/govern/tasks/{name}.yml")
        options = task["chainops.validator.governance_proposal_info"]
        assert "rollout_approvals" in options["approvals"] and "rollout_break_glass" in options["break_glass"]


def test_monitoring_must_see_a_host_well_before_it_goes_back_to_its_gateways():
    (turns,) = [play for play in read("playbooks/upgrade.yml") if play["name"] == "Turns"]
    names = expanded(turns["tasks"])
    assert names.index("verify: See that monitoring sees it well") + 1 == names.index("undrain: Put back on every gateway")


def test_every_turn_is_silenced_and_unsilenced_whatever_happens():
    (turns,) = [play for play in read("playbooks/upgrade.yml") if play["name"] == "Turns"]
    (forward,) = [task for task in turns["tasks"] if task["name"] == "Turn"]
    (back,) = [task for task in read("roles/rollback/tasks/main.yml") if task["name"] == "Go back"]
    for turn in (forward, back):
        inside = [task["name"] for task in turn["block"]]
        assert inside.index("Silence") < inside.index("Drain")
        assert [task["vars"]["announce_silence_state"] for task in turn["always"]] == ["absent"]
    (silence,) = read("roles/announce/tasks/silence.yml")
    (matcher,) = silence["chainops.validator.alertmanager_silence"]["matchers"]
    assert matcher["value"] == "{{ inventory_hostname | regex_escape }}(:[0-9]+)?", "the name, and nothing like it"


def test_a_run_that_goes_on_looks_at_the_canary_again():
    (soak,) = read("roles/verify/tasks/soak.yml")
    first, _check_mode = soak["when"]
    assert "verify_fleet.pending[0] and verify_done | length > 0" in first
    assert (
        "verify_done | difference(verify_fleet.pending) | length == 0" in soak["chainops.validator.canary_analysis_info"]["past"]
    )
    assert soak["failed_when"] == "verify_soak.verdict != 'pass'"


def test_operators_own_checks_are_asked_before_during_and_after():
    asked = [
        task["chainops.validator.network_info"].get("checks")
        for path in ("roles/preflight/tasks/fleet.yml", "roles/preflight/tasks/recheck.yml", "roles/verify/tasks/network.yml")
        for task in read(path)
        if "chainops.validator.network_info" in task
    ]
    assert asked == ["{{ rollout_checks }}"] * 3
