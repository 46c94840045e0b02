# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of one instance: a lease with a growing token.

One host's answer is one vote; whoever holds a majority of the rollout's hosts holds the rollout. A lease that has expired is only
taken over when no engine works under its token. A holder is a rollout and whoever runs it, together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import typing as t

from .._core import canonical, files
from .._core.clock import CLOCK, Clock
from .._core.errors import Busy, InputError, IntegrityError
from . import fence, procs
from .paths import Home


@dataclasses.dataclass(frozen=True)
class Lease:
    """Who holds a host. Times are seconds; ``mono`` and ``boot`` make it immune to a stepping clock within one boot."""

    rollout_id: str
    holder: str
    token: int
    acquired: float
    renewed: float
    lease_seconds: float
    mono: float
    boot: str

    @property
    def expires(self) -> float:
        """Wall clock, for people."""
        return self.renewed + self.lease_seconds

    def expired(self, now: t.Mapping[str, t.Any]) -> bool:
        """``now``: ``{"mono", "wall", "boot"}``."""
        if now["boot"] == self.boot:
            return bool(now["mono"] - self.mono >= self.lease_seconds)
        return bool(now["wall"] >= self.expires)

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "expires": self.expires}


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a request comes to. ``lease``: what the lock file holds afterwards (None: nothing)."""

    granted: bool
    lease: Lease | None
    reason: str
    changed: bool
    broke: Lease | None = None


def now(clock: Clock = CLOCK) -> dict[str, t.Any]:
    return {"mono": clock.monotonic(), "wall": clock.wall(), "boot": procs.boot_id()}


def decide_held(
    current: Lease | None,
    *,
    rollout_id: str,
    holder: str,
    token: int,
    lease_seconds: float,
    break_it: bool,
    highest: int,
    working: str | None,
    moment: t.Mapping[str, t.Any],
) -> Decision:
    """Pure. ``highest``: the fence. ``working``: the turn an engine works on under the current token, if any."""
    floor = max(highest, current.token if current else 0)
    mine = current is not None and (current.rollout_id, current.holder) == (rollout_id, holder)
    if token and token < floor:
        return Decision(False, current, f"token {token} is older than {floor}, which this host has seen", False)
    fresh = Lease(rollout_id, holder, 0, moment["wall"], moment["wall"], lease_seconds, moment["mono"], moment["boot"])
    if current is not None and mine:
        kept = max(token, current.token)
        if kept < highest:
            return Decision(False, current, f"token {kept} is older than {highest}, which this host has seen", False)
        again = dataclasses.replace(fresh, token=kept, acquired=current.acquired)
        return Decision(True, again, "renewed", kept != current.token)
    if token and token == floor and current is not None:
        return Decision(False, current, f"token {token} belongs to rollout {current.rollout_id}, held by {current.holder}", False)
    # On a host whose lock is free, the highest token seen may come back: the rollout that owns it renews what it had here.
    taken = dataclasses.replace(fresh, token=token or floor + 1)
    if current is None:
        return Decision(True, taken, "it was free", True)
    who = f"rollout {current.rollout_id}, held by {current.holder} under token {current.token}"
    if break_it:
        return Decision(True, taken, f"broken: it was {who}", True, broke=current)
    if not current.expired(moment):
        return Decision(False, current, f"{who}; its lease runs on", False)
    if working is not None:
        return Decision(False, current, f"{who}; its lease has expired but the engine works on turn {working}", False)
    return Decision(True, taken, f"the lease of {who} had expired", True)


def decide_released(current: Lease | None, *, rollout_id: str, holder: str, break_it: bool) -> Decision:
    """Pure. Only the holder releases; with ``break_it`` anybody does, and it is recorded."""
    if current is None:
        return Decision(True, None, "it was free", False)
    if (current.rollout_id, current.holder) == (rollout_id, holder):
        return Decision(True, None, "released", True)
    who = f"rollout {current.rollout_id}, held by {current.holder} under token {current.token}"
    if break_it:
        return Decision(True, None, f"broken: it was {who}", True, broke=current)
    return Decision(False, current, f"{who}; only its holder releases it", False)


def read(path: str) -> Lease | None:
    """The lock file, or None. Raises IntegrityError when it isn't a lease."""
    raw = files.read_or_none(path)
    if raw is None:
        return None
    document = canonical.loads(raw, f"lock {path}")
    try:
        return Lease(**{field.name: document[field.name] for field in dataclasses.fields(Lease)})
    except (KeyError, TypeError) as exc:
        raise IntegrityError(f"lock {path} is not a lease: {exc}; break it deliberately", path=path) from exc


def write(path: str, lease: Lease) -> None:
    files.write_atomic(path, canonical.pretty(lease.as_dict()))


def engine_at_work(home: Home) -> dict[str, t.Any] | None:
    """``{"turn_id", "token", "pid"}`` of the engine that works on this instance now, or None. Liveness is a flock, not a pid."""
    try:
        handle = os.open(home.engine_lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        raw = os.read(handle, 4096)
    finally:
        os.close(handle)
    try:
        found = canonical.loads(raw, "engine lock")
        return {"turn_id": str(found["turn_id"]), "token": int(found["token"]), "pid": int(found["pid"])}
    except (IntegrityError, KeyError, TypeError, ValueError):
        # It runs but has not said yet on what: that counts as at work.
        return {"turn_id": "unknown", "token": 0, "pid": 0}


@contextlib.contextmanager
def exclusive(home: Home, timeout: float = 10.0, clock: Clock = CLOCK) -> t.Iterator[None]:
    """Be alone with the instance's lock and fence for a moment. Raises Busy after ``timeout`` seconds."""
    files.make_dir(home.root)
    until = clock.monotonic() + timeout
    while True:
        held = files.locked(home.at("mutex"), what=f"instance {home.instance}")
        try:
            held.__enter__()
            break
        except Busy:
            if clock.monotonic() >= until:
                raise
            clock.sleep(0.02)
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def hold(
    home: Home,
    *,
    rollout_id: str,
    holder: str,
    token: int = 0,
    lease_seconds: float = 900.0,
    break_it: bool = False,
    dry: bool = False,
    clock: Clock = CLOCK,
) -> tuple[Lease | None, Decision]:
    """Ask for the lock; returns what was there before and the decision. ``dry``: decide, write nothing."""
    if not rollout_id or not holder:
        raise InputError("a lock needs a rollout_id and a holder")
    if lease_seconds <= 0:
        raise InputError(f"lease_seconds must be above 0, not {lease_seconds:g}")
    # The files are replaced whole, so a look needs no lock; and a look leaves nothing behind.
    with contextlib.nullcontext() if dry else exclusive(home, clock=clock):
        current = read(home.lock)
        engine = engine_at_work(home)
        decision = decide_held(
            current,
            rollout_id=rollout_id,
            holder=holder,
            token=token,
            lease_seconds=lease_seconds,
            break_it=break_it,
            highest=fence.highest(home.fence),
            working=engine["turn_id"] if engine else None,
            moment=now(clock),
        )
        if decision.granted and decision.lease is not None and not dry:
            fence.admit(home.fence, decision.lease.token)
            write(home.lock, decision.lease)
            _record(home, decision, rollout_id, holder, clock)
        return current, decision


def release(
    home: Home, *, rollout_id: str, holder: str, break_it: bool = False, dry: bool = False, clock: Clock = CLOCK
) -> tuple[Lease | None, Decision]:
    """Give the lock back; the fence stays."""
    if not os.path.isdir(home.root):
        return None, decide_released(None, rollout_id=rollout_id, holder=holder, break_it=break_it)
    with contextlib.nullcontext() if dry else exclusive(home, clock=clock):
        current = read(home.lock)
        decision = decide_released(current, rollout_id=rollout_id, holder=holder, break_it=break_it)
        if decision.changed and not dry:
            os.unlink(home.lock)
            files.fsync_dir(home.root)
            _record(home, decision, rollout_id, holder, clock)
        return current, decision


def renew(home: Home, token: int, clock: Clock = CLOCK) -> None:
    """Push the expiry of the lease under this token; nothing happens when the lock is another's. The caller is ``exclusive``."""
    current = read(home.lock)
    if current is not None and current.token == token:
        moment = now(clock)
        write(home.lock, dataclasses.replace(current, renewed=moment["wall"], mono=moment["mono"], boot=moment["boot"]))


def _record(home: Home, decision: Decision, rollout_id: str, holder: str, clock: Clock) -> None:
    """Who took, gave or broke what, one line each; renewals aren't worth a line."""
    if not decision.changed:
        return
    files.make_dir(home.evidence)
    line = {
        "at": clock.stamp(),
        "rollout_id": rollout_id,
        "holder": holder,
        "what": decision.reason,
        "token": decision.lease.token if decision.lease else None,
        "broke": decision.broke.as_dict() if decision.broke else None,
    }
    handle = os.open(os.path.join(home.evidence, "lock.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, canonical.dumps(line) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
