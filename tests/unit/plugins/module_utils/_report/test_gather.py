# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks register becomes what the report judges; and what they didn't register is never taken for good."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._report import invariants
from ansible_collections.chainops.validator.plugins.module_utils._report.gather import gather
from ansible_collections.chainops.validator.plugins.module_utils._report.page import render

OLD, NEW = "a" * 64, "b" * 64


def looped(name: str, **result: t.Any) -> dict[str, t.Any]:
    return {"results": [{"record_item": name, **result}]}


def about() -> dict[str, t.Any]:
    return {
        "id": "r1",
        "proposal_id": "p1",
        "outcome": "success",
        "power_budget": 0.333,
        "release": {"id": "2"},
        "artifacts": {"x86_64": {"sha256": NEW}},
        "waves": [["v1"]],
        "gate": {
            "proof_sha256": "c" * 64,
            "verdict": {"open": True, "reasons": []},
            "chain_read": {"height": 7, "readers": [1, 2]},
            "tally": {"chain": {"checks": [{"text": "5 of 5 yes voters"}]}, "policy": {"checks": []}},
        },
    }


def turn() -> dict[str, t.Any]:
    return {
        "format": "chainops.turn-result/1",
        "id": "r1-v1-1",
        "outcome": "committed",
        "steps": [{"name": "check", "state": "done", "at": 10.0, "seconds": 0.1, "way": "forward"}],
        "snapshot": {"id": "s1", "sha256": "d" * 64},
        "watermark": {"before": {"height": 5}, "after": {"height": 9}},
    }


def host() -> dict[str, t.Any]:
    receipt = {"gateway": "g1", "server": "v1", "instance": "v1", "state": "drained", "turn_id": "r1-v1-1"}
    return {
        "preflight_host": {
            "turn_id": "r1-v1-1",
            "running": {"sha256": OLD},
            "node": {"version": "1"},
            "variables": {"validator_address": "TXAI1"},
        },
        "preflight_again": {
            "network": {
                "power_total": 4.0,
                "power_offline": 0.0,
                "validators": [{"node": "v1", "power": 1.0, "online": True}],
            }
        },
        "drain_done": {"results": [{"receipt": receipt, "drain": {"seconds": 0.5}}]},
        "undrain_done": {"results": [{"receipt": {**receipt, "state": "active", "restored_at": {"wall": 30.0}}}]},
    }


def seen() -> dict[str, t.Any]:
    return {
        "turns": looped("v1", turns=[turn()], running={"sha256": NEW}, status={"state": "new"}),
        "manifests": looped("v1", valid=True, entries=[{}], problems=[]),
        "snapshots": looped("v1", snapshots=[{"id": "s1", "ok": True}]),
        "network": {
            "network": {
                "height_min": 40,
                "window": 20,
                "equivocations": [],
                "validators": [{"node": "v1", "address": "TXAI1", "missed": 1}],
                "nodes": [{"name": "v1", "version": "2"}],
            }
        },
    }


def statuses(rollout: dict[str, t.Any]) -> dict[str, str]:
    return {one.id: one.status for one in invariants.judge(rollout)}


def test_everything_registered_is_judged() -> None:
    from ansible_collections.chainops.validator.plugins.module_utils._report import collect

    rollout = gather({"v1": host()}, seen(), about())
    assert rollout["hosts"][0]["after"] == {"sha256": NEW, "version": "2"}
    assert rollout["drains"][0]["restored"] is True and rollout["drains"][0]["seconds"] == 0.5
    assert rollout["chain"]["power"] == [{"at": 10.0, "offline_fraction": 0.25}]
    assert rollout["proof"]["tally"] == {"chain": ["5 of 5 yes voters"], "policy": []}
    held = statuses(collect.complete(rollout))
    assert {name for name, status in held.items() if status == "held"} >= {"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9"}
    assert held["I10"] == "not_observed"


COPY = {"origin": "v1", "seq": 1, "head": "h1", "valid": True, "problems": []}
MANIFEST = {"valid": True, "problems": [], "entries": [{"seq": 1, "hash": "h1"}], "seq": 1, "head": "h1", "replicas": []}
KEPT = [
    ({**MANIFEST, "replicas": [COPY]}, "held", "1 manifest with 1 entry, all verify; 2 of 2 manifests are kept whole"),
    ({**MANIFEST, "replicas": []}, "held", "; 1 of 2 manifests are kept whole by every other host; v2 is behind with v1"),
    ({"unreachable": True}, "held", "0 of 1 manifests are kept whole by every other host; not asked: v2; v2 is behind with v1"),
    ({**MANIFEST, "replicas": [{**COPY, "head": "evil"}]}, "broken", "kept on v2: entry 1 is h1 there, and evil is kept"),
    ({**MANIFEST, "replicas": [{**COPY, "seq": 2}]}, "broken", "it ends at entry 1 (h1), and entry 2 (h1) is kept"),
]


@pytest.mark.parametrize(("other", "status", "says"), KEPT)
def test_manifests_are_held_against_their_copies(other: dict[str, t.Any], status: str, says: str) -> None:
    first = {**MANIFEST, "replicas": [{**COPY, "origin": "v2"}]}
    manifests = {"results": [{"record_item": "v1", **first}, {"record_item": "v2", **other}]}
    rollout = gather({"v1": host(), "v2": {}}, {**seen(), "manifests": manifests}, about())
    (i7,) = [one for one in invariants.judge(rollout) if one.id == "I7"]
    assert i7.status == status and says in i7.evidence, i7


def test_a_gate_that_people_opened_is_told_as_such() -> None:
    glass = {"reason": "key leak", "expires_height": 9, "approvers": ["alice", "bob"], "instead_of": ["4 of 5 yes voters"]}
    verdict = {"open": True, "reasons": [], "break_glass": glass}
    gate = {**about()["gate"], "verdict": verdict, "tally": {"chain": None, "policy": None}}
    rollout = gather({"v1": host()}, seen(), {**about(), "gate": gate})
    assert rollout["proof"]["break_glass"] == glass and rollout["proof"]["tally"] == {"chain": [], "policy": []}
    usual = {**about()["gate"], "approval": {"verdict": {"approvers": ["carol"]}}}
    rollout = gather({"v1": host()}, seen(), {**about(), "gate": usual})
    assert rollout["proof"]["break_glass"] is None and rollout["proof"]["approvers"] == ["carol"]


def test_a_host_that_could_not_be_asked_is_not_taken_for_good() -> None:
    blind = {name: {"results": [{"record_item": "v1", "unreachable": True}]} for name in ("turns", "manifests", "snapshots")}
    rollout = gather({"v1": host()}, blind, about())
    assert rollout["hosts"][0]["after"].get("sha256") is None
    assert "held" not in {statuses(rollout)[name] for name in ("I1", "I2", "I4", "I6", "I7")}


def test_a_drain_that_was_not_undone_shows() -> None:
    left = host()
    del left["undrain_done"]
    rollout = gather({"v1": left}, seen(), about())
    assert rollout["drains"][0]["restored"] is False


def test_a_gateway_that_let_go_first_and_was_waited_for_later_is_one_drain() -> None:
    one = host()
    (waited,) = one["drain_done"]["results"]
    let_go = {"receipt": {**waited["receipt"], "state": "draining"}, "drain": {"seconds": 0.0}}
    one["drain_done"]["results"] = [{"receipt": None, "drain": None, "journal": {}}, let_go, waited]
    (drain,) = gather({"v1": one}, seen(), about())["drains"]
    assert (drain["state"], drain["seconds"], drain["restored"]) == ("drained", 0.5, True)


def test_silences_are_listed_with_what_became_of_them() -> None:
    one = {
        "id": "s1",
        "state": "removed",
        "matchers": ["instance=~v1(:[0-9]+)?"],
        "starts_at": "a",
        "ends_at": "b",
        "comment": "r1-v1-1",
    }
    rollout = gather({"v1": {**host(), "announce_silenced": {"silence_id": "s1", "silences": [one]}}}, seen(), about())
    assert rollout["silences"] == [{**one, "host": "v1"}]
    page = render(rollout, []).decode()
    assert "removed" in page and "instance=~v1(:[0-9]+)?" in page
    assert gather({"v1": {**host(), "announce_silenced": {"skipped": True}}}, seen(), about())["silences"] == []
