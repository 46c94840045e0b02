# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._fleet import rollout, status

Json = t.Dict[str, t.Any]
OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64


def turn(outcome: str = "committed", new: str = NEW, direction: str = "forward", began: float = 1.0) -> Json:
    return {"id": "t1", "outcome": outcome, "direction": direction, "new": {"sha256": new}, "began": began}


def look(runs: str | None = OLD, turns: t.Sequence[Json] = (), said: str = "unknown", **more: t.Any) -> Json:
    running = {"pid": 1 if runs else None, "sha256": runs}
    row = {"state": said, "turn": "t1", "step": "", "since": None, "why": None}
    return {"status": row, "running": running, "turns": list(turns), "open_turn": None, "problems": [], **more}


OPEN = {"id": "t1", "step": "probe", "engine": True}
CASES: list[tuple[str, t.Any, str | None, str]] = [
    ("old", look(OLD), None, "old"),
    ("new", look(NEW, [turn()]), None, "new"),
    ("put back", look(OLD, [turn("put_back")]), None, "put back"),
    ("put back from another release", look(OLD, [turn("put_back", OTHER)]), None, "old"),
    ("a way back that was put back", look(NEW, [turn("put_back", OLD, "back")]), None, "new"),
    ("taken back", look(OLD, [turn("committed", OLD, "back")]), None, "old"),
    ("in turn", look(None, [turn("running")], "in turn", open_turn=OPEN), "drained", "in turn"),
    ("needs help", look(None, [turn("failed")], "needs help"), None, "needs help"),
    ("drained and new", look(NEW, [turn()]), "drained", "drained"),
    ("draining and old", look(OLD), "draining", "drained"),
    ("put back in rotation", look(NEW, [turn()]), "active", "new"),
    ("not running", look(None), None, "unknown"),
    ("unreachable", {"unreachable": True, "msg": "no route"}, None, "unknown"),
    ("failed", {"failed": True, "msg": "no Python"}, "drained", "unknown"),
    ("never looked at", None, None, "unknown"),
]


@pytest.mark.parametrize(("seen", "drain", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_word_a_host(seen: Json | None, drain: str | None, wanted: str) -> None:
    gateways = {"gw": {"drains": {"h1": {"state": drain}} if drain else {}}}
    (row,) = status.rows([{"name": "h1", "server": "h1", "look": seen}], gateways, [NEW, "d" * 64])
    assert row["state"] == wanted
    assert row["drained"] is (drain in ("drained", "draining"))
    if wanted == "unknown" and seen and "msg" in seen:
        assert row["problems"] == [seen["msg"]]


def test_without_a_release_the_fleet_goes_where_its_last_turn_went() -> None:
    hosts = [
        {"name": "h1", "look": look(NEW, [turn(began=5.0)])},
        {"name": "h2", "look": look(OLD, [turn("committed", OLD, began=2.0)])},
    ]
    assert [row["state"] for row in status.rows(hosts, {})] == ["new", "old"]
    assert [row["state"] for row in status.rows([{"name": "h1", "look": look(OLD)}], {})] == ["unknown"]


def test_a_gateway_that_is_silent_makes_drained_unknown() -> None:
    hosts = [{"name": "h1", "look": look(NEW, [turn()])}]
    for silent in (None, {"unreachable": True}, {"failed": True, "msg": "x"}):
        (row,) = status.rows(hosts, {"gw1": {"drains": {}}, "gw2": silent}, [NEW])
        assert row["drained"] is None and row["state"] == "new"
        assert status.left_over(hosts, {"gw2": silent})["unsure"] == ["gw2"]


def test_what_was_not_seen_through() -> None:
    hosts = [
        {"name": "h1", "server": "s1", "look": look(NEW, [turn()])},
        {"name": "h2", "server": "s2", "look": look(NEW, [turn()], unrecorded={"kind": "upgrade"})},
        {"name": "h3", "server": "s3", "look": look(None, [turn("running")], "in turn", open_turn=OPEN)},
        {"name": "h4", "server": "s4", "look": {"unreachable": True}},
    ]
    found = status.left_over(hosts, {"gw": {"drains": {"s1": {"state": "active"}, "s4": {"state": "drained"}}}})
    assert found["open"] == {"h3": "t1"} and found["drained"] == {"h4": ["gw"]} and found["unrecorded"] == ["h2"]
    assert found["hosts"] == ["h2", "h3", "h4"] and found["unsure"] == []


def journalled(state: str = "drained") -> Json:
    return {"h1": {"state": state, "turn_id": "t1", "before": {"gw1": {}, "gw2": {}, "gw3": {}}}}


def test_a_gateway_that_lost_its_record_does_not_make_a_host_forgotten() -> None:
    hosts = [{"name": "h1", "look": look(NEW, [turn()], drains=journalled())}]
    gateways = {"gw1": {"drains": {"h1": {"state": "active"}}}, "gw2": {"drains": {}}, "gw3": None}
    (row,) = status.rows(hosts, gateways, [NEW])
    assert (row["state"], row["drained"], row["drained_on"]) == ("drained", True, ["gw2"])
    assert any("gw2 lost the record" in text and "turn t1" in text for text in row["problems"])
    assert status.left_over(hosts, gateways)["drained"] == {"h1": ["gw2"]}


@pytest.mark.parametrize("drains", [{}, journalled("active")])
def test_what_is_over_in_a_hosts_journal_is_over(drains: Json) -> None:
    hosts = [{"name": "h1", "look": look(NEW, [turn()], drains=drains)}]
    (row,) = status.rows(hosts, {"gw1": {"drains": {}}}, [NEW])
    assert (row["state"], row["drained"], row["problems"]) == ("new", False, [])
    assert status.left_over(hosts, {"gw1": {"drains": {}}})["hosts"] == []


def entry(kind: str, sha256: str, rollout_id: str = "p7", snapshot: str = "s") -> Json:
    return {"kind": kind, "rollout_id": rollout_id, "release": {"sha256": sha256}, "snapshot_id": snapshot}


UP, BACK = entry("upgrade", NEW), entry("rollback", NEW)


@pytest.mark.parametrize(
    ("entries", "running", "goes"),
    [
        ([], {"sha256": NEW}, False),
        ([UP], {"sha256": NEW}, True),
        ([UP], {"sha256": OLD}, False),
        ([UP], {"sha256": None, "link": f"/var/lib/r/{NEW}"}, True),  # it is down: that is what it goes back for
        ([UP], {"sha256": NEW, "link": f"/var/lib/r/{OLD}"}, False),  # nobody knows where back is from there
        ([UP, BACK], {"sha256": OLD}, False),
        ([UP, BACK, entry("put_back", NEW)], {"sha256": OLD}, False),
        ([UP, entry("put_back", NEW)], {"sha256": NEW}, True),  # the way back was put back
        ([UP, BACK, UP], {"sha256": NEW}, True),
        ([entry("upgrade", NEW, "p6")], {"sha256": NEW}, False),
        ([entry("upgrade", NEW, snapshot="")], {"sha256": NEW}, False),  # a call that found nothing to do
        ([UP, entry("finish", ""), entry("lock_broken", "")], {"sha256": NEW}, True),
        ([UP], {"sha256": None, "link": None}, False),
    ],
)
def test_who_goes_back(entries: list[Json], running: Json, goes: bool) -> None:
    assert bool(rollout.way_back(entries, "p7", running)) is goes
