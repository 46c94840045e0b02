# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of one instance: a lease with a growing token.

One host's answer is one vote; whoever holds a majority of the instance's inventory hosts holds the rollout. A host lends a token
to one run, once and for good, also after that run has given it back: so no two runs ever have a majority under the same token.
A lease that has expired is only taken over when no engine works on the host. A holder is a rollout and the run that goes
through it, together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import typing as t

from .._core import canonical, files
from .._core.clock import CLOCK, Clock
from .._core.errors import Busy, InputError, IntegrityError, Refused
from .._manifest import manifest
from . import fence, procs
from .paths import Home


@dataclasses.dataclass(frozen=True)
class Lease:
    """Who holds a host. Times are seconds; ``mono`` and ``boot`` make it immune to a stepping clock within one boot.

    ``holder`` is for people, ``run`` tells one run from another, ``about`` is what else is known of it. A lease that was given
    back stays as ``released``: the host goes on to know whose its token was.
    """

    rollout_id: str
    holder: str
    token: int
    acquired: float
    renewed: float
    lease_seconds: float
    mono: float
    boot: str
    run: str = ""
    about: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    released: bool = False

    @property
    def expires(self) -> float:
        """Wall clock, for people."""
        return self.renewed + self.lease_seconds

    def expired(self, now: t.Mapping[str, t.Any]) -> bool:
        """``now``: ``{"mono", "wall", "boot"}``."""
        if now["boot"] == self.boot:
            return bool(now["mono"] - self.mono >= self.lease_seconds)
        return bool(now["wall"] >= self.expires)

    def words(self) -> str:
        return f"rollout {self.rollout_id}, held by {self.holder} under token {self.token}"

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "expires": self.expires}


@dataclasses.dataclass(frozen=True)
class Asking:
    """Who asks, for what. ``token`` 0: the next one. ``over``: tokens of holders known to be dead. ``breaks``: one to break."""

    rollout_id: str
    holder: str
    run: str
    about: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    token: int = 0
    lease_seconds: float = 900.0
    over: t.Sequence[int] = ()
    breaks: int = 0

    def owns(self, lease: Lease) -> bool:
        return (lease.rollout_id, lease.run) == (self.rollout_id, self.run)


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
    current: Lease | None, asking: Asking, *, highest: int, working: str | None, moment: t.Mapping[str, t.Any]
) -> Decision:
    """Pure. ``highest``: the fence. ``working``: the turn an engine works on, if any."""
    floor, token = max(highest, current.token if current else 0), asking.token
    if token and token < floor:
        return Decision(False, current, f"token {token} is older than {floor}, which this host has seen", False)
    fresh = Lease(
        asking.rollout_id,
        asking.holder,
        0,
        moment["wall"],
        moment["wall"],
        asking.lease_seconds,
        moment["mono"],
        moment["boot"],
        asking.run,
        dict(asking.about),
    )
    if current is not None and asking.owns(current):
        kept = max(token, current.token)
        if kept < highest:
            return Decision(False, current, f"token {kept} is older than {highest}, which this host has seen", False)
        acquired = moment["wall"] if current.released else current.acquired
        again = dataclasses.replace(fresh, token=kept, acquired=acquired)
        late = not current.released and current.expired(moment)
        reason = "taken again" if current.released else "renewed after it had expired" if late else "renewed"
        return Decision(True, again, reason, kept != current.token or current.released)
    if token and token == floor:
        whose = f"was lent to {current.words()}" if current and current.token == floor else "has been seen here"
        return Decision(False, current, f"token {token} {whose}; a token is lent once", False)
    taken = dataclasses.replace(fresh, token=token or floor + 1)
    if current is None or current.released:
        return Decision(True, taken, "it was free", True)
    who = current.words()
    if asking.breaks == current.token:
        return Decision(True, taken, f"broken: it was {who}", True, broke=current)
    gone = "its process is gone" if current.token in asking.over else "its lease has expired"
    if current.token not in asking.over and not current.expired(moment):
        return Decision(False, current, f"{who}; its lease runs on", False)
    if working is not None:
        return Decision(False, current, f"{who}; {gone} but the engine works on turn {working}", False)
    return Decision(True, taken, f"taken over from {who}: {gone}", True)


def decide_released(current: Lease | None, asking: Asking) -> Decision:
    """Pure. Only the holder releases; with its token in ``breaks`` anybody does, and it is recorded."""
    if current is None or current.released:
        return Decision(True, current, "it was free", False)
    given = dataclasses.replace(current, released=True)
    if asking.owns(current):
        return Decision(True, given, "released", True)
    if asking.breaks == current.token:
        return Decision(True, given, f"broken: it was {current.words()}", True, broke=current)
    return Decision(False, current, f"{current.words()}; only its holder releases it", False)


def read(path: str) -> Lease | None:
    """The lock file, or None. Raises IntegrityError when it isn't a lease."""
    raw = files.read_or_none(path)
    if raw is None:
        return None
    document = canonical.loads(raw, f"lock {path}")
    known = {field.name for field in dataclasses.fields(Lease)}
    try:
        lease = Lease(**{name: value for name, value in document.items() if name in known})
    except (AttributeError, TypeError) as exc:
        raise IntegrityError(f"lock {path} is not a lease: {exc}; find out who wrote it, then remove it", path=path) from exc
    # Written before runs had names: then a holder was one.
    return lease if lease.run else dataclasses.replace(lease, run=lease.holder)


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


def held(path: str) -> Lease | None:
    """The lease that is in force, or has only expired; None for one that was given back."""
    lease = read(path)
    return None if lease is None or lease.released else lease


@contextlib.contextmanager
def _writable(home: Home) -> t.Iterator[None]:
    """What the file system can't do, said: a lock that can't be written is not held."""
    try:
        yield
    except OSError as exc:
        hints = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EROFS: "mount it writable"}
        raise Refused(
            f"the lock of {home.instance} can't be kept in {home.root}: {exc.strerror or exc}; it is not held. "
            f"{hints.get(exc.errno or 0, 'Mend that').capitalize()} and run again",
            path=home.root,
            errno=exc.errno,
        ) from exc


@contextlib.contextmanager
def exclusive(home: Home, timeout: float = 10.0, clock: Clock = CLOCK) -> t.Iterator[None]:
    """Be alone with the instance's lock and fence for a moment. Raises Busy after ``timeout`` seconds."""
    until = clock.monotonic() + timeout
    while True:
        with _writable(home):
            files.make_dir(home.root)
            alone = files.locked(home.at("mutex"), what=f"instance {home.instance}")
            try:
                alone.__enter__()
                break
            except Busy:
                if clock.monotonic() >= until:
                    raise
        clock.sleep(0.02)
    try:
        yield
    finally:
        alone.__exit__(None, None, None)


def hold(home: Home, asking: Asking, *, dry: bool = False, clock: Clock = CLOCK) -> tuple[Lease | None, Decision]:
    """Ask for the lock; returns what was there before and the decision. ``dry``: decide, write nothing."""
    if not asking.rollout_id or not asking.holder or not asking.run:
        raise InputError("a lock needs a rollout_id, a holder and a run")
    if asking.lease_seconds <= 0:
        raise InputError(f"lease_seconds must be above 0, not {asking.lease_seconds:g}")
    # The files are replaced whole, so a look needs no lock; and a look leaves nothing behind.
    with contextlib.nullcontext() if dry else exclusive(home, clock=clock):
        current = read(home.lock)
        engine = engine_at_work(home)
        decision = decide_held(
            current,
            asking,
            highest=fence.highest(home.fence),
            working=engine["turn_id"] if engine else None,
            moment=now(clock),
        )
        if decision.granted and decision.lease is not None and not dry:
            with _writable(home):
                # What is broken is on record before it is: a record that can't be written breaks nothing.
                _record(home, decision, asking, clock)
                fence.admit(home.fence, decision.lease.token)
                write(home.lock, decision.lease)
        return current, decision


def release(home: Home, asking: Asking, *, dry: bool = False, clock: Clock = CLOCK) -> tuple[Lease | None, Decision]:
    """Give the lock back; the fence stays, and whose its token was."""
    if not os.path.isdir(home.root):
        return None, decide_released(None, asking)
    with contextlib.nullcontext() if dry else exclusive(home, clock=clock):
        current = read(home.lock)
        decision = decide_released(current, asking)
        if decision.changed and decision.lease is not None and not dry:
            with _writable(home):
                _record(home, decision, asking, clock)
                write(home.lock, decision.lease)
        return current, decision


def renew(home: Home, token: int, clock: Clock = CLOCK) -> None:
    """Push the expiry of the lease under this token; nothing happens when the lock is another's. The caller is ``exclusive``."""
    current = held(home.lock)
    if current is not None and current.token == token:
        moment = now(clock)
        write(home.lock, dataclasses.replace(current, renewed=moment["wall"], mono=moment["mono"], boot=moment["boot"]))


def use(home: Home, token: int, *, dry: bool = False, clock: Clock = CLOCK) -> None:
    """Before anything is changed under a rollout's token: refuse an old one, remember a new one, renew the lease under it.

    Raises Refused for a token lower than one seen, and when that can't be written down. ``dry``: refuse only. 0 is no rollout's
    token: somebody works by hand, and nothing is looked at.
    """
    if token == 0:
        return
    if dry:
        fence.require(home.fence, token)
        return
    with exclusive(home, clock=clock), _writable(home):
        fence.admit(home.fence, token)
        renew(home, token, clock)


def _record(home: Home, decision: Decision, asking: Asking, clock: Clock) -> None:
    """Who took, gave or broke what, one line each; renewals aren't worth a line."""
    if not decision.changed:
        return
    token = decision.lease.token if decision.lease else None
    if decision.broke is not None:
        entry = {
            "rollout_id": asking.rollout_id,
            "turn_id": f"lock-{decision.broke.token}",
            "holder": asking.holder,
            "token": token,
        }
        broke = {name: value for name, value in decision.broke.as_dict().items() if name not in ("mono", "boot", "about")}
        manifest.append(home.manifest, {**entry, "kind": "lock_broken", "instance": home.instance, "broke": broke})
    files.make_dir(home.evidence)
    line = {
        "at": clock.stamp(),
        "rollout_id": asking.rollout_id,
        "holder": asking.holder,
        "what": decision.reason,
        "token": token,
        "broke": decision.broke.as_dict() if decision.broke else None,
    }
    handle = os.open(os.path.join(home.evidence, "lock.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, canonical.dumps(line) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
