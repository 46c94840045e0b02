# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 1 and 5: what may die at every boundary of a turn's journal, there and back: the engine, the controller, the host."""

from __future__ import annotations

import functools

from trial import BACK, FORWARD, Case, Trial, part

STEPS = {
    FORWARD: ("check", "prepare", "guard", "stop", "freeze", "migrate", "switch", "start", "probe", "commit"),
    BACK: ("check", "prepare", "guard", "stop", "freeze", "restore", "switch", "start", "probe", "commit"),
}
#: In the order in which a turn is undone.
UNDONE = ("start", "switch", "migrate", "stop", "guard")
#: Silence puts the host back after its probe: the way to have every undo without a broken release.
PUT_BACK = {"confirm": {"deadline": 0.3, "on_silence": "put_back"}}
WHOLE = {"committed", "put_back"}


def records(way: str) -> dict[str, tuple[str, ...]]:
    """Every record that an engine writes in a turn that comes about, by a name for its boundary."""
    found = {"session": part("session")}
    for step in STEPS[way]:
        found[f"begin-{step}"] = part("begin", step, "forward")
        if step == "prepare":
            found["note-prepare"] = part("note", "prepare", "forward")
        if step == "stop":
            found["note-stop"] = part("note", "stop", "forward")
        if step == "probe":
            found["note-answered"] = part("note", "probe", "forward", '"answered":true')
            found["note-advancing"] = part("note", "probe", "forward", '"advancing":true')
        found[f"done-{step}"] = part("done", step, "forward")
    found["closed"] = part("closed")
    return found


def undo_records() -> dict[str, tuple[str, ...]]:
    found = {"back": part("back")}
    for step in UNDONE:
        found[f"begin-{step}"] = part("begin", step, "undo")
        found[f"done-{step}"] = part("done", step, "undo")
    return found


def changes(undo: bool) -> dict[str, object]:
    return dict(PUT_BACK) if undo else {}


def engine_killed(trial: Trial, mode: str, parts: tuple[str, ...], wanted: set[str], undo: bool = False) -> str:
    """The unit starts another engine; the caller that waits notices nothing but time."""
    at = trial.stands(*parts, mode=mode, **changes(undo))
    result = at.controller.answer()["result"]
    trial.expect(result["sessions"] >= 2 or "closed" in parts[0], f"nothing was killed: {result['sessions']} session")
    outcome = trial.end(at.turn_id, result)
    trial.expect(outcome in wanted, f"it ended {outcome} ({result['reason']}), expected {sorted(wanted)}")
    return f"{outcome} after {result['sessions']} sessions"


def controller_killed(trial: Trial, parts: tuple[str, ...], undo: bool = False) -> str:
    """The engine stands at the boundary while its caller, on this machine and on the host, is killed; then it goes on alone."""
    at = trial.stands(*parts, **changes(undo))
    at.controller.kill()
    trial.cont(at.pid)
    result = trial.asked_again(at)
    outcome = trial.end(at.turn_id, result)
    trial.expect(result["sessions"] == 1, f"the engine began {result['sessions']} times, and nobody had touched it")
    trial.expect(outcome == ("put_back" if undo else "committed"), f"it ended {outcome}: {result['reason']}")
    return f"{outcome} without its controller"


def rebooted(trial: Trial, parts: tuple[str, ...], undo: bool = False) -> str:
    """The host's plug is pulled while the engine stands at the boundary; the unit takes the turn up when the host is up again."""
    at = trial.stands(*parts, **changes(undo))
    trial.net.reboot(trial.host)
    at.controller.lose()
    result = trial.asked_again(at)
    outcome = trial.end(at.turn_id, result)
    trial.expect(outcome in WHOLE, f"it ended {outcome}: {result['reason']}")
    return f"{outcome} across a reboot"


#: Where a turn on its way back is cut; the others are those of the way there.
CUT_BACK = ("begin-restore", "done-restore", "done-stop", "done-switch", "begin-start", "done-probe", "begin-commit")


def _engine() -> list[Case]:
    found = []
    quick = {"done-stop", "begin-migrate", "note-answered", "closed"}
    for name, parts in records(FORWARD).items():
        wanted = {"put_back"} if name == "begin-migrate" else {"committed"}
        act = functools.partial(engine_killed, mode="kill-after", parts=parts, wanted=wanted)
        found.append(Case(f"engine-killed-after-{name}", "1", act, quick=name in quick))
    # The effect has been had, and nothing says so yet.
    for step in ("guard", "stop", "freeze", "migrate", "switch", "start", "commit"):
        wanted = {"put_back"} if step == "migrate" else {"committed"}
        act = functools.partial(engine_killed, mode="kill-before", parts=part("done", step, "forward"), wanted=wanted)
        found.append(Case(f"engine-killed-before-done-{step}", "1", act))
    for name, parts in undo_records().items():
        act = functools.partial(engine_killed, mode="kill-after", parts=parts, wanted={"put_back"}, undo=True)
        found.append(Case(f"engine-killed-in-undo-after-{name}", "1", act, quick=name == "begin-migrate"))
    for name in CUT_BACK:
        act = functools.partial(engine_killed, mode="kill-after", parts=records(BACK)[name], wanted={"committed"})
        found.append(Case(f"engine-killed-on-the-way-back-after-{name}", "1", act, BACK, quick=name == "begin-restore"))
    return found


def _host() -> list[Case]:
    """Every boundary once: where a step has begun on the way there, and where it is done on the way back."""
    found = []
    for name, parts in records(FORWARD).items():
        if not name.startswith("done-") or name == "done-migrate":
            act = functools.partial(rebooted, parts=parts)
            found.append(Case(f"host-rebooted-after-{name}", "5", act, quick=name == "begin-migrate"))
    for name, parts in records(BACK).items():
        if name.startswith("done-") or name == "begin-restore":
            act = functools.partial(rebooted, parts=parts)
            found.append(Case(f"host-rebooted-on-the-way-back-after-{name}", "5", act, BACK, quick=name == "done-restore"))
    for name, parts in undo_records().items():
        if name in ("begin-start", "begin-migrate", "begin-stop", "done-stop"):
            act = functools.partial(rebooted, parts=parts, undo=True)
            found.append(Case(f"host-rebooted-in-undo-after-{name}", "5", act))
    return found


def _controller() -> list[Case]:
    found = []
    for name, parts in records(FORWARD).items():
        if not name.startswith("done-"):
            act = functools.partial(controller_killed, parts=parts)
            found.append(Case(f"controller-killed-at-{name}", "1", act))
    for name, parts in records(BACK).items():
        if name.startswith("done-"):
            act = functools.partial(controller_killed, parts=parts)
            found.append(Case(f"controller-killed-on-the-way-back-at-{name}", "1", act, BACK, quick=name == "done-stop"))
    return found


CASES = [*_engine(), *_host(), *_controller()]
