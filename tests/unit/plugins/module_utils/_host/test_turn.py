# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine by itself: tables of what comes next, and a simulated host that is cut off at every point there is."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import turn
from ansible_collections.chainops.validator.plugins.module_utils._host.engine import Context, Engine, told

NAMES = [kind.name for kind in turn.SEQUENCES["forward"] if kind.name != "confirm"]


def document(
    direction: str = "forward", *, migrations: bool = True, confirm: bool = False, total: float = 600.0
) -> dict[str, t.Any]:
    names = {kind.name for kind in turn.SEQUENCES[direction]}
    undos = {kind.undo for kind in turn.SEQUENCES[direction] if kind.undo}
    return {
        "format": turn.FORMAT,
        "turn_id": "t1",
        "direction": direction,
        "migrations": [{"id": "m"}] if migrations and direction == "forward" else [],
        "budgets": {"total": total},
        "steps": turn.steps_of(direction, dict.fromkeys(names, 30.0), dict.fromkeys(undos, 30.0), confirm),
    }


def record(kind: str, step: str = "", way: str = "forward", **more: t.Any) -> dict[str, t.Any]:
    return {"kind": kind, "step": step, "way": way, "mono": 0.0, "wall": 0.0, "boot": "b", **more}


def done(*names: str) -> list[dict[str, t.Any]]:
    return [r for name in names for r in (record("begin", name), record("done", name, facts={}))]


PLAN = turn.load(document())


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], ("do", "check")),
        ([record("begin", "check")], ("do", "check")),
        (done("check"), ("do", "prepare")),
        (done("check", "prepare", "guard"), ("do", "stop")),
        (
            [*done("check", "prepare", "guard"), record("begin", "stop"), record("fail", "stop", error={"message": "no"})],
            ("back", "stop"),
        ),
        (done(*NAMES), ("close", None)),
        ([*done(*NAMES), record("closed", outcome="committed")], ("over", None)),
        ([record("begin", "check"), record("fail", "check", error={}), record("back", reason="x")], ("close", None)),
        ([*done("check", "prepare"), record("begin", "guard"), record("back", reason="x")], ("undo", "guard")),
        ([*done("check", "prepare", "guard", "stop"), record("begin", "freeze"), record("back", reason="x")], ("undo", "stop")),
        (
            [*done("check", "prepare", "guard", "stop", "freeze"), record("begin", "migrate"), record("back", reason="x")],
            ("undo", "migrate"),
        ),
        ([*done(*NAMES[:8]), record("begin", "probe"), record("back", reason="x")], ("undo", "start")),
        ([*done(*NAMES[:-1]), record("begin", "commit")], ("do", "commit")),
    ],
)
def test_what_comes_next(records: list[dict[str, t.Any]], expected: tuple[str, str | None]) -> None:
    action = turn.next_action(PLAN, records)
    assert (action.kind, action.step) == expected


def test_a_step_that_kills_the_engine_every_time_is_not_tried_for_ever() -> None:
    records = [*done("check", "prepare", "guard"), *[record("begin", "stop")] * turn.MAX_BEGINS]
    assert turn.next_action(PLAN, records).kind == "back"


def test_the_deadline_of_the_whole_turn_turns_it_back_but_never_a_commit() -> None:
    late = PLAN.total + 1
    assert turn.next_action(PLAN, done("check", "prepare", "guard", "stop"), late).kind == "back"
    assert turn.next_action(PLAN, [*done(*NAMES[:-1]), record("begin", "commit")], late).kind == "do"


def test_waiting_for_a_word_has_its_own_deadline_and_is_nobodys_fault() -> None:
    plan = turn.load(document(confirm=True))
    late, follows = plan.total + 1, done(*NAMES[:-1])
    assert turn.next_action(plan, done(*NAMES[:-2]), late).kind == "back"
    assert turn.next_action(plan, follows, late).step == "confirm"
    interrupted = [*follows, *[record("begin", "confirm")] * (turn.MAX_BEGINS + 1)]
    assert turn.next_action(plan, interrupted, late) == turn.Action("do", "confirm", in_doubt=True)
    answered = [*follows, record("begin", "confirm"), record("done", "confirm", facts={"why": "nobody said a word"})]
    assert turn.next_action(plan, answered, late).step == "commit"
    action = turn.next_action(plan, [*answered, *done("commit")], late)
    assert (action.kind, action.outcome, action.reason) == ("close", "committed", "nobody said a word")


def test_an_engine_that_can_not_begin_rests_and_the_next_one_tries_again() -> None:
    failed = record("unready", error={"message": "no manager answers"})
    records = [*done("check", "prepare", "guard"), record("session"), *[failed] * (turn.MAX_UNDO_FAILS - 1)]
    assert turn.next_action(PLAN, records).step == "stop"
    records.append(failed)
    assert turn.next_action(PLAN, records).kind == "rest"
    assert "no manager answers" in turn.result(PLAN, records)["reason"]
    assert turn.next_action(PLAN, [*records, record("session")]).step == "stop"


def test_an_error_takes_no_more_of_a_journal_than_it_may() -> None:
    error = told(Refused("x" * 10**6, problems=["y" * 10**5] * 10**4, last={"z": "z" * 10**5}))
    assert error["kind"] == "Refused" and error["message"].startswith("xxx") and "998000 more characters" in error["message"]
    assert error["problems"][-1] == "9980 more" and len(str(error)) < 8192
    assert told(KeyError("a")) == {"kind": "KeyError", "message": "KeyError: 'a'"}


def test_without_a_migration_data_is_restored_only_when_the_new_release_was_started() -> None:
    plan = turn.load(document(migrations=False))
    back = record("back", reason="x")
    assert turn.next_action(plan, [*done(*NAMES[:6]), record("begin", "switch"), back]).step == "switch"
    undone = [record("begin", "switch", "undo"), record("done", "switch", "undo", facts={})]
    assert turn.next_action(plan, [*done(*NAMES[:6]), record("begin", "switch"), back, *undone]).step == "stop"
    started = [*done(*NAMES[:7]), record("begin", "start"), back]
    for name in ("start", "switch"):
        assert turn.next_action(plan, started).step == name
        started += [record("begin", name, "undo"), record("done", name, "undo", facts={})]
    assert turn.next_action(plan, started).step == "migrate"


def test_an_undo_that_must_not_be_skipped_rests_and_is_tried_again_by_the_next_engine() -> None:
    records = [*done(*NAMES[:6]), record("begin", "switch"), record("back", reason="x")]
    for _ in range(turn.MAX_UNDO_FAILS):
        assert turn.next_action(PLAN, records).kind == "undo"
        records += [record("begin", "switch", "undo"), record("fail", "switch", "undo", error={"message": "full"})]
    assert turn.next_action(PLAN, records).kind == "rest"
    assert turn.result(PLAN, records)["outcome"] == "failed"
    assert turn.next_action(PLAN, [*records, record("session")]).kind == "undo"


def test_a_host_that_is_whole_but_not_running_is_unguarded_and_called_failed() -> None:
    records = [*done("check", "prepare", "guard", "stop"), record("back", reason="x")]
    for _ in range(turn.MAX_UNDO_FAILS):
        records += [record("begin", "stop", "undo"), record("fail", "stop", "undo", error={"message": "dies"})]
    assert turn.next_action(PLAN, records).kind == "give_up"
    records.append(record("gave_up", "stop", reason="dies"))
    assert turn.next_action(PLAN, records).step == "guard"
    records += [record("begin", "guard", "undo"), record("done", "guard", "undo", facts={})]
    assert turn.next_action(PLAN, records).outcome == "failed"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "chainops.turn/9"},
        {"direction": "sideways"},
        {"steps": []},
        {"steps": document()["steps"][1:]},
        {"steps": list(reversed(document()["steps"]))},
        {"steps": [{**s, "undo": None} for s in document()["steps"]]},
        {"steps": [{**s, "deadline": 0} for s in document()["steps"]]},
        {"budgets": {}},
        {"steps": [*document()["steps"], {"name": "rm", "undo": None, "deadline": 1, "undo_deadline": 1}]},
    ],
)
def test_a_plan_that_is_not_one_of_ours_is_not_executed(change: dict[str, t.Any]) -> None:
    with pytest.raises(IntegrityError, match="turn plan"):
        turn.load({**document(), **change})


def test_time_passed_is_monotonic_within_a_boot_and_never_negative_across_boots() -> None:
    records = [
        record("begin", "guard", mono=100.0, wall=1000.0),
        record("note", "stop", mono=110.0, wall=5000.0),  # the wall clock stepped: it doesn't count
        record("session", boot="c", mono=5.0, wall=4000.0),  # a reboot, and the clock was set back
    ]
    assert turn.elapsed(records, {"mono": 8.0, "wall": 4003.0, "boot": "c"}) == pytest.approx(13.0)
    assert turn.elapsed([record("begin", "check")], {"mono": 8.0, "wall": 0.0, "boot": "b"}) == 0.0


# -- a host that can be cut off anywhere -----------------------------------------------------------------------------------


class Cut(BaseException):
    """The engine died here: nothing after it happens."""


class Wall(Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1e9 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclasses.dataclass
class Schedule:
    """Cuts by the number of the event at which they come; some of them reboot the host. ``faulty``: steps that fail."""

    cuts: dict[int, bool]
    faulty: dict[str, int]
    seen: int = 0

    def event(self, host: Host) -> None:
        self.seen += 1
        if self.seen in self.cuts:
            if self.cuts[self.seen]:
                host.reboot()
            raise Cut

    def may_fail(self, name: str) -> None:
        if self.faulty.get(name, 0) > 0:
            self.faulty[name] -= 1
            raise Refused(f"{name} fails")


class Journal:
    """A journal whose last record may be lost with the cut, as a torn write is."""

    def __init__(self, host: Host, schedule: Schedule) -> None:
        self.host, self.schedule = host, schedule
        self.records: list[dict[str, t.Any]] = host.journal

    def append(self, entry: dict[str, t.Any]) -> None:
        self.schedule.event(self.host)  # cut before it is durable
        self.records.append(entry)
        self.schedule.event(self.host)  # cut after


class Host:
    """What a turn changes, as plainly as it can be said. Data is (level, height); the node signs while it runs."""

    def __init__(self) -> None:
        self.journal: list[dict[str, t.Any]] = []
        self.open = True
        self.guarded = False
        self.link = "old"
        self.data = ("old", 10)
        self.snapshot: tuple[str, int] | None = None
        self.runs: str | None = "old"
        self.signed = 10  # highest height the key ever signed
        self.mark = 10  # what its last-signed file says
        self.ran_on: list[tuple[str, str]] = []
        self.double = False

    def node_works(self) -> None:
        """The node makes a block: what it signs must be above everything it signed before."""
        if self.runs is None:
            return
        level, height = self.data
        target = max(height, self.mark) + 1
        if target <= self.signed:
            self.double = True
        self.data, self.mark, self.signed = (level, target), target, max(self.signed, target)

    def start(self) -> None:
        self.runs = self.link
        self.ran_on.append((self.link, self.data[0]))
        self.node_works()

    def reboot(self) -> None:
        """Everything that runs ends; the service manager starts the node again unless the guard forbids it."""
        self.runs = None
        if not (self.guarded and self.open):
            self.start()


class Simulated:
    def __init__(self, host: Host, schedule: Schedule) -> None:
        self.host, self.schedule = host, schedule

    def session(self) -> None:
        self.schedule.event(self.host)

    def do(self, step: str, context: Context) -> dict[str, t.Any]:
        return self._act(f"do_{step}", context)

    def undo(self, undo: str, context: Context) -> dict[str, t.Any]:
        return self._act(f"undo_{undo}", context)

    def _act(self, name: str, context: Context) -> dict[str, t.Any]:
        self.schedule.event(self.host)  # cut before the effect
        self.schedule.may_fail(name)
        facts = getattr(self, name)(context) or {}
        self.schedule.event(self.host)  # cut after it, before it is written down
        return facts

    def do_check(self, context: Context) -> None:
        if self.host.runs != "old":
            raise Refused("not running")

    def do_prepare(self, context: Context) -> None:
        pass

    def do_guard(self, context: Context) -> None:
        self.host.guarded = True

    def do_stop(self, context: Context) -> None:
        self.host.node_works()
        self.host.runs = None

    def do_freeze(self, context: Context) -> None:
        assert self.host.runs is None
        if self.host.snapshot is None:
            self.host.snapshot = self.host.data

    def do_migrate(self, context: Context) -> None:
        assert self.host.runs is None
        self.host.data = ("half", self.host.data[1])
        self.schedule.event(self.host)
        self.host.data = ("new", self.host.data[1])

    do_restore = do_migrate

    def do_switch(self, context: Context) -> None:
        self.host.link = "new"

    def do_start(self, context: Context) -> None:
        if self.host.runs is None:
            self.host.start()

    def do_probe(self, context: Context) -> None:
        if self.host.runs != "new":
            raise Refused("gone")
        self.host.node_works()

    def do_confirm(self, context: Context) -> None:
        pass

    def do_commit(self, context: Context) -> dict[str, t.Any]:
        if self.host.runs is None:
            self.host.start()
        self.host.guarded = False
        return {"runs": True}

    def undo_stop_new(self, context: Context) -> None:
        self.host.runs = None

    def undo_switch_back(self, context: Context) -> None:
        self.host.link = "old"

    def undo_restore_own(self, context: Context) -> None:
        assert self.host.runs is None and self.host.snapshot is not None
        self.host.data = ("half", 0)
        self.schedule.event(self.host)
        self.host.data = self.host.snapshot  # the last-signed file is not part of it

    def undo_start_old(self, context: Context) -> dict[str, t.Any]:
        if self.host.runs is None:
            self.host.start()
        self.host.node_works()
        return {"follows": True}

    undo_unguard = do_commit

    def rest(self, result: dict[str, t.Any]) -> None:
        pass

    def close(self, result: dict[str, t.Any]) -> None:
        self.schedule.event(self.host)
        self.host.guarded = False
        self.host.open = False


def play(plan: turn.Plan, schedule: Schedule) -> tuple[Host, str]:
    """Run engines one after the other until one of them ends the turn."""
    host, clock = Host(), Wall()
    for boot in range(60):
        engine = Engine(plan, Journal(host, schedule), Simulated(host, schedule), clock=clock, boot=str(boot))
        try:
            outcome = engine.run()
        except Cut:
            clock.sleep(1.0)
            continue
        if host.open:  # it rests; somebody starts it again
            continue
        return host, outcome
    raise AssertionError("no engine ended the turn")


def check(host: Host, outcome: str) -> None:
    """Old or new, never between; running, unguarded; no height signed twice; no release on data of the other's level."""
    assert outcome in ("committed", "put_back"), host.journal[-1]
    side = "new" if outcome == "committed" else "old"
    assert (host.link, host.data[0], host.runs) == (side, side, side)
    assert not host.guarded and not host.open
    assert not host.double
    assert all(release == level for release, level in host.ran_on)
    failed = [r for r in host.journal if r["kind"] == "fail" and r["way"] == "forward" and r["step"] != "commit"]
    assert not failed or outcome == "put_back"


EVENTS = 160
FAULTS = st.dictionaries(
    st.sampled_from(
        [f"do_{name}" for name in NAMES[:-1]] + ["undo_stop_new", "undo_switch_back", "undo_restore_own", "undo_unguard"]
    ),
    st.integers(1, 4),
    max_size=3,
)


@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    direction=st.sampled_from(["forward", "back"]),
    cuts=st.dictionaries(st.integers(1, EVENTS), st.booleans(), max_size=8),
    faulty=FAULTS,
)
def test_whatever_happens_the_host_ends_old_or_new(direction: str, cuts: dict[int, bool], faulty: dict[str, int]) -> None:
    host, outcome = play(turn.load(document(direction)), Schedule(cuts, dict(faulty)))
    check(host, outcome)


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("fault", [None, *(f"do_{name}" for name in NAMES[:-1])])
def test_a_cut_at_every_single_point(fault: str | None, reboot: bool) -> None:
    plan = turn.load(document())
    for point in range(1, EVENTS):
        schedule = Schedule({point: reboot}, {fault: 1} if fault else {})
        host, outcome = play(plan, schedule)
        check(host, outcome)
        if schedule.seen < point:
            return
    raise AssertionError("the table of events is too short to reach the end")


def test_nothing_in_the_way_ends_new() -> None:
    host, outcome = play(PLAN, Schedule({}, {}))
    assert outcome == "committed"
    result = turn.result(PLAN, host.journal)
    assert [row["name"] for row in result["steps"]] == NAMES
    assert result["outcome"] == "committed" and result["touched"] and result["sessions"] == 1
