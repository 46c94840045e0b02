# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A turn as a written plan and a pure state machine.

The plan says which steps there are, how each is undone and how long it may take. The journal says what happened. From the
two, ``next_action`` decides what comes next: go on, go back, or it is over. There is no state elsewhere, so an engine that
died at any point continues by asking again. Nothing here touches the world.

Records of a journal, in order of writing (every one carries ``mono``, ``wall`` and ``boot``)::

    {"kind": "open", "plan_sha256": digest}                  the plan this journal belongs to; the first record
    {"kind": "session", "engine": sha256, "pid": int}        an engine began to work on this journal
    {"kind": "unready", "error": {...}}                       it could not: the service or the data directory did not answer
    {"kind": "begin", "step": name, "way": "forward"|"undo"}  written before the effect
    {"kind": "note",  "step": name, "way": ..., "facts": {...}}  something to remember before the effect goes on
    {"kind": "done",  "step": name, "way": ..., "facts": {...}, "seconds": float}
    {"kind": "fail",  "step": name, "way": ..., "error": {...}, "seconds": float}
    {"kind": "back",  "reason": str}                          from here on only undoing
    {"kind": "gave_up", "step": name, "reason": str}          a soft undo was left undone
    {"kind": "closed", "outcome": ..., "reason": str|None}    the end
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._core.errors import IntegrityError

FORMAT = "chainops.turn/1"

FORWARD, UNDO = "forward", "undo"
COMMITTED, PUT_BACK, FAILED, RUNNING = "committed", "put_back", "failed", "running"

#: How often a step may be begun again after the engine died in it, before the turn goes back.
MAX_BEGINS = 3
#: How often one engine tries an undo before it gives up (soft) or rests (hard).
MAX_UNDO_FAILS = 3

Record = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class StepKind:
    """What is always true of a step. ``undo`` names what takes it back; None: there is nothing to take back.

    ``soft``: when this undo fails the host is whole all the same (only not running), so the guard may go.
    """

    name: str
    effect: str
    undo: str | None = None
    soft: bool = False


_CHECK = StepKind("check", "preconditions: proof, fence, drain, space, releases; watermark recorded")
_PREPARE = StepKind("prepare", "hot snapshot refreshed while the node still runs")
_GUARD = StepKind("guard", "nobody but the engine can start the node", "unguard")
_STOP = StepKind("stop", "node stopped by its own signal, and gone", "start_old", soft=True)
_FREEZE = StepKind("freeze", "delta copied, snapshot sealed")
_MIGRATE = StepKind("migrate", "data brought to the new release's storage level", "restore_own")
_RESTORE = StepKind("restore", "data of the rollback point swapped in, watermark kept", "restore_own")
_SWITCH = StepKind("switch", "release link points to the new release", "switch_back")
_START = StepKind("start", "new release started by the engine", "stop_new")
_PROBE = StepKind("probe", "new release follows the chain with the expected key")
_CONFIRM = StepKind("confirm", "somebody confirmed, or silence was decided")
_COMMIT = StepKind("commit", "guard removed; no way back by this turn")

#: Steps of a turn, by direction.
SEQUENCES: t.Mapping[str, tuple[StepKind, ...]] = {
    "forward": (_CHECK, _PREPARE, _GUARD, _STOP, _FREEZE, _MIGRATE, _SWITCH, _START, _PROBE, _CONFIRM, _COMMIT),
    "back": (_CHECK, _PREPARE, _GUARD, _STOP, _FREEZE, _RESTORE, _SWITCH, _START, _PROBE, _CONFIRM, _COMMIT),
}
#: The whole-turn deadline counts from the beginning of this step; what comes before touches nothing.
DEADLINE_FROM = "guard"
#: Once the new release follows, waiting for somebody's word has its own deadline, and a commit is never turned back.
PAST_DEADLINE = (_CONFIRM, _COMMIT)


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of one plan. Deadlines are seconds."""

    kind: StepKind
    deadline: float
    undo_deadline: float

    @property
    def name(self) -> str:
        return self.kind.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """A turn's plan, checked. ``body`` is the whole JSON document; the machine needs only what has a field."""

    turn_id: str
    direction: str
    steps: tuple[Step, ...]
    total: float
    changes_data: bool
    body: t.Mapping[str, t.Any]

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


def steps_of(
    direction: str, deadlines: t.Mapping[str, float], undo_deadlines: t.Mapping[str, float], confirm: bool
) -> list[dict[str, t.Any]]:
    """The ``steps`` of a plan document: name, effect, undo, and how long each may take (seconds)."""
    return [
        {
            "name": kind.name,
            "effect": kind.effect,
            "undo": kind.undo,
            "deadline": float(deadlines[kind.name]),
            "undo_deadline": float(undo_deadlines.get(kind.undo or "", 0.0)),
        }
        for kind in SEQUENCES[direction]
        if confirm or kind is not _CONFIRM
    ]


def load(document: t.Any) -> Plan:
    """A plan from its JSON document. Raises IntegrityError when it isn't one this engine knows."""

    def bad(what: str) -> IntegrityError:
        return IntegrityError(f"turn plan: {what}; it was not written by this version and is not executed")

    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise bad(f"format is not {FORMAT}")
    direction = str(document.get("direction"))
    if direction not in SEQUENCES:
        raise bad(f"direction {direction!r} is unknown")
    known = {kind.name: kind for kind in SEQUENCES[direction]}
    needed = [name for name in known if name != _CONFIRM.name]
    steps: list[Step] = []
    try:
        for raw in document["steps"]:
            kind = known[raw["name"]]
            if raw["undo"] != kind.undo:
                raise bad(f"step {kind.name}: undo {raw['undo']!r} is not {kind.undo!r}")
            steps.append(Step(kind, float(raw["deadline"]), float(raw["undo_deadline"])))
        total = float(document["budgets"]["total"])
        turn_id = str(document["turn_id"])
    except (KeyError, TypeError, ValueError) as exc:
        raise bad(f"{type(exc).__name__}: {exc}") from exc
    names = [step.name for step in steps]
    if [name for name in names if name != _CONFIRM.name] != needed or names != [name for name in known if name in names]:
        raise bad(f"steps {names} are not the sequence of direction {direction}")
    if any(step.deadline <= 0 or (step.kind.undo and step.undo_deadline <= 0) for step in steps) or total <= 0:
        raise bad("every deadline must be above 0 seconds")
    changes = direction == "back" or bool(document.get("migrations"))
    return Plan(turn_id, direction, tuple(steps), total, changes, document)


@dataclasses.dataclass(frozen=True)
class Action:
    """What comes next. ``kind``: do, undo, back (decide to go back), give_up, close, rest, over.

    ``rest``: an undo that must not be skipped keeps failing; the journal and the guard stay, the next engine tries again.
    """

    kind: str
    step: str | None = None
    reason: str | None = None
    outcome: str | None = None
    in_doubt: bool = False


@dataclasses.dataclass
class _Past:
    """What the journal says of one step, one way."""

    begins: int = 0
    done: bool = False
    fails: int = 0
    fails_now: int = 0  # in this session
    error: t.Mapping[str, t.Any] | None = None
    open: bool = False  # begun, and neither done nor failed
    facts: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class History:
    """A journal, read."""

    past: dict[tuple[str, str], _Past] = dataclasses.field(default_factory=dict)
    back: str | None = None
    gave_up: dict[str, str] = dataclasses.field(default_factory=dict)
    unready: int = 0  # in this session
    unready_error: t.Mapping[str, t.Any] | None = None
    closed: str | None = None
    closed_reason: str | None = None

    def of(self, step: str, way: str = FORWARD) -> _Past:
        return self.past.setdefault((step, way), _Past())

    def begun(self, step: str) -> bool:
        return self.of(step).begins > 0


def history(records: t.Iterable[Record]) -> History:
    """What a journal's records amount to. Raises IntegrityError for a record no engine writes."""
    seen = History()
    for record in records:
        kind = record.get("kind")
        if kind == "session":
            seen.unready = 0
            for past in seen.past.values():
                past.fails_now = 0
        elif kind == "unready":
            seen.unready += 1
            seen.unready_error = record.get("error")
        elif kind in ("begin", "done", "fail"):
            past = seen.of(str(record["step"]), str(record["way"]))
            past.open = kind == "begin"
            if kind == "begin":
                past.begins += 1
            elif kind == "done":
                past.done, past.facts = True, record.get("facts") or {}
            else:
                past.fails += 1
                past.fails_now += 1
                past.error = record.get("error")
        elif kind == "back":
            seen.back = str(record["reason"])
        elif kind == "gave_up":
            seen.gave_up[str(record["step"])] = str(record["reason"])
        elif kind == "closed":
            seen.closed, seen.closed_reason = str(record["outcome"]), record.get("reason")
        elif kind not in ("note", "open"):
            raise IntegrityError(f"journal holds a record of unknown kind {kind!r}")
    return seen


def undo_needed(plan: Plan, seen: History, step: Step) -> bool:
    """Is there anything to take back? Data is restored when a migration, or the new release itself, may have written to it."""
    if step.kind.undo is None or not seen.begun(step.name):
        return False
    if step.kind.undo == "restore_own":
        return plan.changes_data or seen.begun(_START.name)
    return True


def next_action(plan: Plan, records: t.Iterable[Record], elapsed: float = 0.0) -> Action:
    """Decide from the journal alone. ``elapsed``: seconds since the turn began to touch the host (see ``elapsed``)."""
    seen = history(records)
    if seen.closed is not None:
        return Action("over", outcome=seen.closed, reason=seen.closed_reason)
    if seen.unready >= MAX_UNDO_FAILS:
        return Action("rest", reason=f"the engine could not take up the turn: {_words(seen.unready_error)}")
    return _go_on(plan, seen, elapsed) if seen.back is None else _go_back(plan, seen)


def _go_on(plan: Plan, seen: History, elapsed: float) -> Action:
    for step in plan.steps:
        past = seen.of(step.name)
        if past.done:
            continue
        if step.kind is _COMMIT and past.begins:
            # The guard may be gone already: from here there is only forward.
            if past.fails_now >= MAX_UNDO_FAILS:
                return Action("rest", step.name, reason=f"commit keeps failing: {_words(past.error)}")
            return Action("do", step.name, in_doubt=past.open)
        if past.fails:
            return Action("back", step.name, reason=f"{step.name}: {_words(past.error)}")
        if elapsed >= plan.total and step.kind not in PAST_DEADLINE:
            return Action("back", step.name, reason=f"{step.name}: the turn's {plan.total:g} s are over")
        # Waiting is nobody's fault: however often it is interrupted, its own deadline ends it.
        if past.begins >= MAX_BEGINS and step.kind is not _CONFIRM:
            return Action("back", step.name, reason=f"{step.name}: the engine died in it {past.begins} times")
        return Action("do", step.name, in_doubt=past.open)
    if seen.of(_COMMIT.name).facts.get("runs") is False:
        return Action("close", outcome=FAILED, reason="committed, but the new release doesn't run any more")
    return Action("close", outcome=COMMITTED, reason=seen.of(_CONFIRM.name).facts.get("why"))


def _go_back(plan: Plan, seen: History) -> Action:
    for step in reversed(plan.steps):
        if not undo_needed(plan, seen, step):
            continue
        past = seen.of(step.name, UNDO)
        if past.done or step.name in seen.gave_up:
            continue
        if past.fails_now >= MAX_UNDO_FAILS:
            reason = f"{step.kind.undo}: {_words(past.error)}"
            return Action("give_up" if step.kind.soft else "rest", step.name, reason=reason)
        return Action("undo", step.name, in_doubt=past.open)
    if seen.gave_up:
        return Action("close", outcome=FAILED, reason="; ".join([seen.back or "", *seen.gave_up.values()]))
    if seen.of(DEADLINE_FROM, UNDO).facts.get("runs") is False:
        return Action("close", outcome=FAILED, reason=f"{seen.back}; put back, but the old release doesn't run any more")
    if seen.of(_STOP.name, UNDO).facts.get("follows") is False:
        why = seen.of(_STOP.name, UNDO).facts.get("why")
        return Action("close", outcome=FAILED, reason=f"{seen.back}; put back, but the old release doesn't follow: {why}")
    return Action("close", outcome=PUT_BACK, reason=seen.back)


def _words(error: t.Mapping[str, t.Any] | None) -> str:
    return str((error or {}).get("message", "unknown error"))


def find(records: t.Sequence[Record], kind: str, step: str, way: str = FORWARD) -> Record | None:
    """The last record of its kind for a step."""
    for record in reversed(records):
        if record.get("kind") == kind and record.get("step") == step and record.get("way", FORWARD) == way:
            return record
    return None


def facts(records: t.Sequence[Record], step: str, way: str = FORWARD) -> dict[str, t.Any]:
    """What a finished step found out; empty while it isn't done."""
    record = find(records, "done", step, way)
    return dict(record["facts"]) if record else {}


def notes(records: t.Sequence[Record], step: str, way: str = FORWARD) -> dict[str, t.Any]:
    """Everything noted for a step one way, later notes over earlier ones."""
    merged: dict[str, t.Any] = {}
    for record in records:
        if record.get("kind") == "note" and record.get("step") == step and record.get("way") == way:
            merged.update(record["facts"])
    return merged


def between(first: Record, last: Record) -> float:
    """Seconds from one stamp to another: monotonic within one boot, by the wall clock (never negative) across a reboot."""
    if first["boot"] == last["boot"]:
        return float(last["mono"]) - float(first["mono"])
    return max(0.0, float(last["wall"]) - float(first["wall"]))


def elapsed(records: t.Sequence[Record], now: Record, since: str = DEADLINE_FROM) -> float:
    """Seconds since a step was first begun, by default the one from which on the turn touches the host; 0 while it wasn't.

    ``now``: ``{"mono", "wall", "boot"}``. Boot by boot, so that a clock that steps back can't stretch the deadline of a boot
    that is still going on.
    """
    start = next((i for i, r in enumerate(records) if r.get("kind") == "begin" and r.get("step") == since), None)
    if start is None:
        return 0.0
    stamps = [*records[start:], now]
    return sum(max(0.0, between(a, b)) for a, b in zip(stamps, stamps[1:]))


def result(plan: Plan, records: t.Sequence[Record]) -> dict[str, t.Any]:
    """The evidence of a turn, whatever its state: what ``result.json`` holds and what the module returns."""
    seen = history(records)
    action = next_action(plan, records)
    outcome = seen.closed or (FAILED if action.kind == "rest" else RUNNING)
    stop, probe, freeze = notes(records, "stop"), notes(records, "probe"), facts(records, "freeze")
    back_facts = facts(records, "stop", UNDO)
    after = back_facts if seen.back is not None else facts(records, "probe")
    body = plan.body
    return {
        "format": "chainops.turn-result/1",
        "id": plan.turn_id,
        "rollout_id": body.get("rollout_id"),
        "instance": body.get("instance"),
        "direction": plan.direction,
        "outcome": outcome,
        "reason": seen.closed_reason or seen.back or action.reason,
        "touched": seen.begun(_STOP.name),
        "confirmed": facts(records, _CONFIRM.name).get("confirmed"),
        "began": records[0].get("wall") if records else None,
        "ended": records[-1].get("wall") if seen.closed else None,
        "old": body.get("old"),
        "new": body.get("new"),
        "steps": timeline(records),
        "sessions": sum(1 for record in records if record.get("kind") == "session"),
        "stop_window_seconds": _window(records, seen),
        "predicted_stop_window": notes(records, "prepare").get("predicted_stop_window"),
        "freeze_seconds": freeze.get("seconds"),
        "heights": {
            "own_at_stop": stop.get("height"),
            "network_at_stop": stop.get("network_height"),
            "own_at_end": after.get("height", probe.get("height")),
            "network_at_end": after.get("network_height"),
        },
        "snapshot": {
            "id": freeze.get("snapshot_id"),
            "sha256": freeze.get("root_sha256"),
            "path": freeze.get("path"),
            "clean": freeze.get("clean"),
        },
        "watermark": {
            "before": facts(records, "freeze").get("watermark") or facts(records, "check").get("watermark"),
            "after": after.get("watermark"),
        },
        "one_way": list(body.get("one_way") or ()),
        "old_trees": old_trees(records),
        "commit": facts(records, "commit") or None,
    }


def old_trees(records: t.Iterable[Record]) -> list[str]:
    """Trees that restores and migrations of a turn put aside. They are kept until its rollout is finished."""
    return [str(path) for record in records for path in (record.get("facts") or {}).get("old_trees") or ()]


def _window(records: t.Sequence[Record], seen: History) -> float | None:
    """Seconds from the stop signal to the first healthy, advancing answer; of the old release when it was put back."""
    noted = [record for record in records if record.get("kind") == "note"]
    begin = next((record for record in noted if (record["step"], record["way"]) == ("stop", FORWARD)), None)
    if begin is None:
        return None
    end = ("stop", UNDO) if seen.back is not None else ("probe", FORWARD)
    for record in noted:
        if (record["step"], record["way"]) == end and "advancing" in record["facts"]:
            return round(between(begin, record), 3)
    return None


def timeline(records: t.Sequence[Record]) -> list[dict[str, t.Any]]:
    """Steps as they happened: ``{"name", "way", "state": done|failed|begun|gave_up, "at", "seconds", "facts"|"error"}``."""
    rows: list[dict[str, t.Any]] = []
    for record in records:
        kind = record.get("kind")
        if kind == "begin":
            rows.append({"name": record["step"], "way": record["way"], "state": "begun", "at": record["wall"], "seconds": None})
        elif kind in ("done", "fail"):
            row = next(r for r in reversed(rows) if r["name"] == record["step"] and r["way"] == record["way"])
            row.update(state="done" if kind == "done" else "failed", seconds=record.get("seconds"))
            row.update({"facts": record["facts"]} if kind == "done" else {"error": record.get("error")})
    return rows
