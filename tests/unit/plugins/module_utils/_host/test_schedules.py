# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of turns on a simulated host, each with its own accidents; and the machine, spoiled, to see that they show."""

from __future__ import annotations

import dataclasses
import random
import types
import typing as t
from unittest import mock

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._host import service, steps, turn
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._host import simulated
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._host.simulated import Fault, Schedule, Violation

#: Random schedules, and into how many tests they are split.
RANDOM, PARTS = 8_400, 12
#: At every single event of these turns the engine is killed, and the host is rebooted. With the least number of events.
EVERYWHERE = (
    ({"direction": "forward", "new": "good"}, 150),
    ({"direction": "forward", "new": "stall"}, 200),
    ({"direction": "forward", "new": "dies", "migrations": False}, 200),
    ({"direction": "forward", "new": "good", "confirm": "put_back", "word": 0.0, "migrate": "copy"}, 150),
    ({"direction": "back", "new": "good"}, 150),
    ({"direction": "back", "new": "stall"}, 200),
)
#: A turn in which nothing goes wrong has about so many events; accidents come among them, and among those that they cause.
EVENTS = 220

KINDS = (
    ("kill", 6),
    ("reboot", 6),
    ("fail", 6),
    ("hang", 3),
    ("crash", 2),
    ("intrude", 4),
    ("step_clock", 2),
    ("fill", 2),
    ("free", 1),
    ("partition", 1),
    ("take_over", 1),
)
NEW = ("good", "good", "good", "good", "stall", "fork", "dies", "other_key", "sick", "deaf", "slow", "stray")
OLD = ("good", "good", "good", "good", "good", "deaf", "slow", "late", "stray")


def schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(seed)
    names, weights = zip(*KINDS)
    faults = []
    for dummy in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6, 9))):
        kind = chance.choices(names, weights)[0]
        value = {
            "reboot": chance.choice((1.0, 20.0, 300.0)),
            "step_clock": chance.choice((-86400.0, -30.0, 30.0, 86400.0)),
            "fail": float(chance.randrange(5)),
            "partition": chance.choice((1.0, 6.0)),
        }.get(kind, 0.0)
        faults.append(Fault(chance.randint(1, EVENTS), kind, value))
    return Schedule(
        seed,
        direction=chance.choice(("forward", "forward", "back")),
        migrations=chance.random() < 0.6,
        migrate=chance.choice(("in_place", "copy")),
        new=chance.choice(NEW),
        old=chance.choice(OLD),
        kill=chance.random() < 0.3,
        confirm=chance.choice((None, None, "commit", "put_back")),
        word=chance.choice((None, 0.0, chance.uniform(0.0, 15.0))),
        says=chance.choice(("commit", "commit", "commit", "no")),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def outcome_of(one: Schedule) -> str:
    try:
        return simulated.play(one)[1]
    except Violation as exc:
        return f"violation: {exc}"
    except Exception as exc:
        return f"violation: {type(exc).__name__}: {exc}"


def smallest(one: Schedule) -> Schedule:
    """The schedule without what isn't needed to go wrong."""
    plain: list[dict[str, t.Any]] = [{"new": "good"}, {"old": "good"}, {"confirm": None}, {"migrations": False}, {"kill": False}]
    smaller = True
    while smaller:
        smaller = False
        fewer = [{"faults": one.faults[:n] + one.faults[n + 1 :]} for n in range(len(one.faults))]
        for change in [*fewer, *plain]:
            other = dataclasses.replace(one, **change)
            if other != one and outcome_of(other).startswith("violation"):
                one, smaller = other, True
                break
    return one


def require_fine(one: Schedule) -> str:
    """What a schedule ends in. Fails with the smallest schedule that goes wrong in its place."""
    outcome = outcome_of(one)
    if outcome.startswith("violation"):
        least = smallest(one)
        message = outcome_of(least)
        told = "\n  ".join(simulated._Now.world.trace)
        pytest.fail(f"seed {one.seed}: {outcome}\n\nthe smallest like it: {least}\n{message}\n  {told}")
    return outcome


@pytest.fixture(autouse=True)
def patched() -> t.Iterator[None]:
    with simulated.patched():
        yield


def test_there_are_enough_of_them() -> None:
    assert RANDOM + 2 * sum(least for dummy, least in EVERYWHERE) >= 10_000


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_a_host_ends_old_or_new(part: int) -> None:
    ends: dict[str, int] = {}
    happened = {"refused": 0, "kills": 0, "reboots": 0, "rests": 0}
    for seed in range(part, RANDOM, PARTS):
        outcome = require_fine(schedule(seed))
        ends[outcome] = ends.get(outcome, 0) + 1
        for name in happened:
            happened[name] += getattr(simulated._Now.world, name)
        if outcome == turn.FAILED:
            # Put back, and cut off from the others while somebody looked, or its manager failed at every try to start it.
            records = simulated._Now.world.records()
            tries = [r for r in records if (r["kind"], r.get("step"), r.get("way")) == ("fail", "stop", turn.UNDO)]
            assert "the old release doesn't follow" in records[-1]["reason"] or len(tries) >= turn.MAX_UNDO_FAILS, seed
    assert sum(ends.values()) == RANDOM // PARTS
    # The accidents are neither so many nor so few that only one end is ever seen, and they do happen.
    assert all(ends.get(name, 0) > RANDOM // PARTS // 50 for name in (turn.COMMITTED, turn.PUT_BACK)), ends
    assert all(number > 0 for number in happened.values()), happened


@pytest.mark.parametrize("kind", ["kill", "reboot"])
@pytest.mark.parametrize(("how", "least"), EVERYWHERE)
def test_a_host_is_whole_and_runs_wherever_its_engine_or_its_power_went(how: dict[str, t.Any], least: int, kind: str) -> None:
    at = 0
    while True:
        at += 1
        one = Schedule(at, faults=(Fault(at, kind, 20.0),), **how)
        outcome = require_fine(one)
        if simulated._Now.world.faults:
            break  # the turn was over before
        assert outcome != turn.FAILED, (at, turn.result(simulated._Now.world.plan, simulated._Now.world.records())["reason"])
        assert simulated._Now.world.main is not None and simulated._Now.world.sessions <= 3
    assert at > least


@pytest.mark.parametrize(
    ("how", "outcome", "confirmed", "says"),
    [
        ({"confirm": "put_back", "word": 0.0}, "committed", True, ""),
        ({"confirm": "put_back", "word": 6.0}, "committed", True, ""),
        ({"confirm": "put_back", "word": 30.0}, "put_back", None, "nobody confirmed within 4 s, and silence means putting back"),
        ({"confirm": "put_back"}, "put_back", None, "silence means putting back"),
        ({"confirm": "commit"}, "committed", False, "nobody confirmed within 4 s, and silence means committing"),
        ({"confirm": "commit", "word": 0.0, "says": "no"}, "put_back", None, "somebody asked for the host to be put back: no"),
    ],
)
def test_silence_is_decided_in_time_and_told(how: dict[str, t.Any], outcome: str, confirmed: bool | None, says: str) -> None:
    world, ended = simulated.play(Schedule(1, **how))
    result = turn.result(world.plan, world.records())
    assert (ended, result["confirmed"]) == (outcome, confirmed) and says in (result["reason"] or "")
    noted = turn.notes(world.records(), "confirm")
    assert noted["seconds_left"] <= simulated.CONFIRM and noted["on_silence"] == how["confirm"]


@pytest.mark.parametrize("on_silence", ["commit", "put_back"])
def test_however_often_the_wait_for_a_word_is_interrupted_it_ends_in_time(on_silence: str) -> None:
    events = range(simulated.play(Schedule(1))[0].events - 10, 2000, 3)
    world, outcome = simulated.play(Schedule(1, confirm=on_silence, faults=tuple(Fault(n, "kill") for n in events[:30])))
    waited = turn.elapsed(world.records(), turn.find(world.records(), "closed", "") or world.records()[-1], since="confirm")
    assert outcome == {"commit": "committed", "put_back": "put_back"}[on_silence], world.trace
    assert waited < simulated.CONFIRM + 10.0


def test_a_host_that_is_rebooted_while_a_word_is_waited_for_runs_meanwhile() -> None:
    base = Schedule(1, confirm="put_back")
    world, dummy = simulated.play(base)
    asked = next(n for n in range(1, world.events) if _dies_in(base, n, "confirm"))
    world, outcome = simulated.play(dataclasses.replace(base, word=40.0, faults=(Fault(asked + 1, "reboot", 1.0),)))
    assert any("the engine starts dst" in line for line in world.trace[2:])
    assert outcome == turn.PUT_BACK


def _dies_in(base: Schedule, at: int, step: str) -> bool:
    world = simulated.begin(dataclasses.replace(base, faults=(Fault(at, "kill"),)))
    world.session()
    last = world.records()[-1]
    return bool(last.get("step") == step and last["kind"] == "begin")


def test_how_far_a_probe_is_can_be_seen_while_it_runs() -> None:
    with mock.patch.object(steps, "REPORT", 0.5):
        world, outcome = simulated.play(Schedule(1, new="stall"))
    told = [
        r["facts"]["progress"]
        for r in world.records()
        if r["kind"] == "note" and "progress" in r["facts"] and r["way"] == "forward"
    ]
    assert outcome == turn.PUT_BACK and 3 <= len(told) <= steps.REPORTS
    assert told[-1]["network_height"] > told[0]["network_height"] and told[-1]["seconds_left"] < told[0]["seconds_left"]
    assert "behind its peers" in " ".join(told[-1]["waits_for"])


def test_a_node_that_stops_too_slowly_is_started_again_before_the_host_is_let_go() -> None:
    world, outcome = simulated.play(Schedule(1, old="slow"))
    assert outcome == turn.PUT_BACK and world.main is not None
    assert turn.facts(world.records(), "stop", turn.UNDO)["never_stopped"]


def test_blocks_of_the_old_release_are_none_that_the_new_one_followed() -> None:
    """It added five after it was asked for its height, and peers are slow to say how far the network is."""

    class Slow(simulated.Pool):
        def submit(self, work: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
            value, clock = work(*arguments), simulated._Now.world.clock
            at = clock.real + 0.3
            return types.SimpleNamespace(done=lambda: clock.real >= at, result=lambda: value)

    with mock.patch.object(steps.concurrent.futures, "ThreadPoolExecutor", Slow):
        assert simulated.play(Schedule(1, old="late"))[1] == turn.COMMITTED
        world, outcome = simulated.play(Schedule(1, old="late", new="stall"))
    stop, sealed = turn.facts(world.records(), "stop"), turn.facts(world.records(), "freeze")
    assert sealed["watermark"]["height"] >= stop["height"] + 4
    assert outcome == turn.PUT_BACK


def test_a_process_that_the_node_leaves_behind_is_waited_for() -> None:
    world, outcome = simulated.play(Schedule(1, old="stray"))
    assert outcome == turn.COMMITTED
    assert turn.facts(world.records(), "stop")["clean"]


def test_a_permit_that_was_left_behind_opens_no_guard() -> None:
    # The engine can't take its permit back after the start, and somebody starts the unit while the data are exchanged.
    first = simulated.play(Schedule(1, migrations=False, new="stall"))[0]
    permit = next(n for n in range(1, first.events) if _event(n) == "unlink permit" and n > 60)
    for at in range(permit + 1, first.events):
        require_fine(Schedule(1, migrations=False, new="stall", faults=(Fault(permit, "fail"), Fault(at, "intrude"))))


def _event(at: int) -> str:
    """What the event of this number is."""
    world = simulated.begin(Schedule(1, migrations=False, new="stall", faults=(Fault(at, "step_clock"),)))
    world.session()
    told = next(line for line in world.trace if "step_clock" in line)
    return told.partition(" ")[2].partition(":")[0]


def test_a_full_disk_from_the_first_step_on_keeps_no_turn_from_its_end() -> None:
    for at in range(1, simulated.play(Schedule(1, new="stall"))[0].events):
        one = Schedule(at, new="stall", faults=(Fault(at, "fill"),))
        require_fine(one)
        # It is the journal that never fails: what needs space (a restore) may have to wait for it.
        assert not any("the engine dies" in line for line in simulated._Now.world.trace)


def test_what_was_set_aside_ends_a_turn_where_nothing_more_can_be_written_beside_the_journal() -> None:
    for new in ("good", "stall"):
        for at in range(1, simulated.play(Schedule(1, new=new))[0].events):
            outcome = require_fine(Schedule(at, new=new, faults=(Fault(at, "fill_state"),)))
            assert simulated._Now.world.rests == 0, f"{new}, full from event {at} on: it waits for help"
            assert outcome in (turn.COMMITTED, turn.PUT_BACK)


def test_an_engine_that_can_not_take_up_a_turn_says_so_and_rests() -> None:
    world = simulated.begin(Schedule(1))
    with mock.patch.object(steps.HostEffects, "session", side_effect=OSError("no manager answers")):
        assert world.session() == turn.FAILED
    result = turn.result(world.plan, world.records())
    assert (result["outcome"], result["reason"]) == (
        "failed",
        "the engine could not take up the turn: OSError: no manager answers",
    )
    assert world.open_turn()
    assert world.session() == turn.COMMITTED


# -- the tests of the test: a machine that is spoiled is found out ----------------------------------------------------------


def _sequence(*names: str) -> t.Any:
    kinds = {kind.name: kind for kind in turn.SEQUENCES["forward"]}
    return mock.patch.dict(t.cast(t.Any, turn.SEQUENCES), {"forward": tuple(kinds[name] for name in names)})


def _ends_at_once(plan: turn.Plan, seen: turn.History) -> turn.Action:
    return turn.Action("close", outcome=turn.PUT_BACK, reason=seen.back)


_NEXT, _UNDO_NEEDED = turn.next_action, turn.undo_needed

SPOILED: dict[str, t.Any] = {
    "the guard is never taken away": lambda: mock.patch.object(service.Systemd, "unguard", lambda self: None),
    "the guard forbids nothing": lambda: mock.patch.object(service.Systemd, "guard_text", lambda self: "[Service]\nRestart=no\n"),
    "the guard is taken away first": lambda: mock.patch.object(
        steps.HostEffects, "_undo_stop_new", lambda self, context: self.service.unguard() or {}
    ),
    "no watermark is kept": lambda: mock.patch.object(steps.HostEffects, "_safe_mark", lambda self: None),
    "it is committed before it is probed": lambda: _sequence(
        "check", "prepare", "guard", "stop", "freeze", "migrate", "switch", "start", "commit", "probe", "confirm"
    ),
    "it is closed before it is undone": lambda: mock.patch.object(turn, "_go_back", _ends_at_once),
    "what the new release wrote stays": lambda: mock.patch.object(
        turn, "undo_needed", lambda plan, seen, step: _UNDO_NEEDED(plan, seen, step) and step.name != "migrate"
    ),
    "nobody is told of a doubt": lambda: mock.patch.object(
        turn, "next_action", lambda *arguments: dataclasses.replace(_NEXT(*arguments), in_doubt=False)
    ),
    "nothing is synced": lambda: mock.patch.object(simulated.Disk, "fdatasync", lambda self, handle: None),
    "nobody looks whether the data are in use": lambda: mock.patch.object(steps.HostEffects, "_alone", lambda *arguments: None),
    "the node is not looked at after the guard": lambda: mock.patch.object(
        steps.HostEffects, "_let_go", lambda self, context: self.service.unguard() or {"runs": True}
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_machine_is_found_out(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "_PLANS", {})
    with SPOILED[how]():
        assert any(outcome_of(schedule(seed)).startswith("violation") for seed in range(RANDOM // 4)), how
