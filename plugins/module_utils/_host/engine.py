# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Executes a turn: asks the machine what comes next, writes it down, does it, writes down how it went.

The engine never needs the controller. It may die at any point: the next one reads the journal and goes on or goes back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import types
import typing as t

from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, WaitTimeout
from . import procs, turn

#: Seconds an effect gets past its deadline before it is interrupted, and then to let itself be interrupted.
GRACE = 5.0
#: Seconds before something that failed and has to come about is tried again.
AGAIN = 0.5
#: What an error may take of a journal: characters of a text, and of one in a list, and items of a list.
TEXT, ITEM, ITEMS = 2000, 200, 20


class Log(t.Protocol):
    """A journal: ``_core.journal.Journal``, or a list in a test."""

    records: list[dict[str, t.Any]]

    def append(self, record: dict[str, t.Any]) -> None: ...


class Context:
    """What an effect may know and do besides its work."""

    def __init__(
        self,
        records: t.Sequence[turn.Record],
        until: float,
        in_doubt: bool,
        note: t.Callable[..., None],
        clock: Clock,
        spent: float = 0.0,
    ) -> None:
        """``in_doubt``: the engine died in this step. ``spent``: seconds since the step was first begun."""
        self.records = records
        self.in_doubt = in_doubt
        self.note = note
        self.clock = clock
        self.spent = spent
        self._until = until

    def left(self, at_least: float = 0.1) -> float:
        """Seconds until the deadline, never less than ``at_least``."""
        return max(at_least, self._until - self.clock.monotonic())


class Effects(t.Protocol):
    """What the steps do to the world. Each is idempotent; each raises when it didn't come about."""

    def session(self) -> None:
        """Called once when an engine takes up the journal, before anything else."""

    def do(self, step: str, context: Context) -> dict[str, t.Any]: ...

    def undo(self, undo: str, context: Context) -> dict[str, t.Any]: ...

    def close(self, result: dict[str, t.Any]) -> None:
        """Called after the end was written: keep the result, the journal is no longer open. May be called again."""

    def rest(self, result: dict[str, t.Any]) -> None:
        """Called when this engine can't go on: keep the result, everything else stays as it is."""


class Stuck(BaseException):
    """An effect ignored its deadline. Not an Exception: nothing on the way may swallow it."""


@contextlib.contextmanager
def alarm(seconds: float, last_resort: t.Callable[[], None]) -> t.Iterator[None]:
    """Interrupt what runs in it after ``seconds`` by raising Stuck; when that doesn't end it, call ``last_resort``."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    rings = 0

    def ring(signum: int, frame: types.FrameType | None) -> None:
        nonlocal rings
        rings += 1
        if rings > 1:
            last_resort()
        raise Stuck

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Engine:
    """One engine on one journal. ``again`` starts the engine afresh (threads and children gone); it does not return."""

    def __init__(
        self,
        plan: turn.Plan,
        log: Log,
        effects: Effects,
        *,
        engine: str = "",
        clock: Clock = CLOCK,
        boot: str | None = None,
        again: t.Callable[[], None] = lambda: os._exit(75),
        tell: t.Callable[[t.Mapping[str, t.Any]], None] = lambda record: None,
    ) -> None:
        self.plan = plan
        self.log = log
        self.effects = effects
        self.engine = engine
        self.clock = clock
        self.boot = boot if boot is not None else procs.boot_id()
        self._again = again
        self._tell = tell

    def stamp(self) -> dict[str, t.Any]:
        return {"mono": round(self.clock.monotonic(), 6), "wall": round(self.clock.wall(), 3), "boot": self.boot}

    def _write(self, **record: t.Any) -> None:
        stamped = {**record, **self.stamp()}
        self.log.append(stamped)
        self._tell(stamped)

    def run(self) -> str:
        """Work until the turn is over, or rests because an undo keeps failing. Returns the outcome."""
        if turn.history(self.log.records).closed is None:
            self._write(kind="session", engine=self.engine, pid=os.getpid())
            self._take_up()
        while True:
            elapsed = turn.elapsed(self.log.records, self.stamp())
            action = turn.next_action(self.plan, self.log.records, elapsed)
            if action.kind == "over":
                self.effects.close(turn.result(self.plan, self.log.records))
                return str(action.outcome)
            if action.kind == "rest":
                self.effects.rest(turn.result(self.plan, self.log.records))
                return turn.FAILED
            if action.kind == "back":
                self._write(kind="back", reason=action.reason)
            elif action.kind == "give_up":
                self._write(kind="gave_up", step=action.step, reason=action.reason)
            elif action.kind == "close":
                self._write(kind="closed", outcome=action.outcome, reason=action.reason)
            else:
                self._perform(action, elapsed)

    def _take_up(self) -> None:
        """Early in a boot not everything may answer yet. What never does is told, and the machine makes the engine rest."""
        for dummy in range(turn.MAX_UNDO_FAILS):
            try:
                self.effects.session()
                return
            except Exception as exc:
                self._write(kind="unready", error=told(exc))
                self.clock.sleep(AGAIN)

    def _perform(self, action: turn.Action, elapsed: float) -> None:
        step = self.plan.step(str(action.step))
        way = turn.FORWARD if action.kind == "do" else turn.UNDO
        spent = turn.elapsed(self.log.records, self.stamp(), since=step.name)
        self._write(kind="begin", step=step.name, way=way)
        start = self.clock.monotonic()
        seconds = step.deadline if way == turn.FORWARD else step.undo_deadline
        if way == turn.FORWARD and elapsed > 0 and step.kind not in turn.PAST_DEADLINE:
            seconds = min(seconds, max(0.0, self.plan.total - elapsed))
        context = Context(
            self.log.records,
            start + seconds,
            action.in_doubt,
            lambda **facts: self._write(kind="note", step=step.name, way=way, facts=facts),
            self.clock,
            spent,
        )
        stuck = False
        error: dict[str, t.Any] | None = None
        facts: dict[str, t.Any] = {}
        try:
            with alarm(seconds + GRACE, self._again):
                if way == turn.FORWARD:
                    facts = self.effects.do(step.name, context)
                else:
                    facts = self.effects.undo(str(step.kind.undo), context)
        except Stuck:
            stuck = True
            error = WaitTimeout(f"it did not end within {seconds:.0f} s and was interrupted", waited=seconds).as_dict()
        except Exception as exc:  # whatever it was, the turn has to end old or new
            error = told(exc)
        took = round(self.clock.monotonic() - start, 3)
        if error is None:
            self._write(kind="done", step=step.name, way=way, facts=facts, seconds=took)
            return
        self._write(kind="fail", step=step.name, way=way, error=error, seconds=took)
        if stuck:
            # Threads and children of the effect may live on; what comes next must be alone.
            self._again()
        elif way == turn.UNDO:
            self.clock.sleep(AGAIN)


def told(exc: Exception) -> dict[str, t.Any]:
    """An error as a record holds it: never so much that it eats the space that was set aside for the records of an undo."""
    whole = exc.as_dict() if isinstance(exc, ChainopsError) else {"message": f"{type(exc).__name__}: {exc}"}
    return {"kind": type(exc).__name__, **{name: _short(value) for name, value in whole.items()}}


def _short(value: t.Any, width: int = TEXT) -> t.Any:
    if isinstance(value, str) and len(value) > width:
        return f"{value[:width]} ({len(value) - width} more characters)"
    if isinstance(value, (list, tuple)):
        more = [f"{len(value) - ITEMS} more"] if len(value) > ITEMS else []
        return [_short(item, ITEM) for item in value[:ITEMS]] + more
    if isinstance(value, dict):
        return {str(name): _short(item, ITEM) for name, item in list(value.items())[:ITEMS]}
    return value
