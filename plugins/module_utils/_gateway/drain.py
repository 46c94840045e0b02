# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draining one server on one gateway, and putting it back.

Empty means: nothing in flight in ``k`` samples one after the other, the server out of rotation in each of them, and nothing
left with a process that a reload replaced. A timeout is a failure: the server is put back as it was, and what was left is told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from .._core.clock import CLOCK, Clock
from .._core.errors import Busy, ChainopsError, InputError, Refused, WaitTimeout
from .._core.files import locked, make_dir, read_or_none
from . import reach, receipt
from .protocol import DRAIN, MAINT, READY, GatewayDriver, Look, Server

Before = t.Dict[str, t.Dict[str, t.Any]]

#: What the last receipt of a drain keeps of the one before.
KEPT = ("drained_at", "checked_at", "samples", "seconds", "reloads", "reasserted")
#: In how many steps a server gets its share back.
STEPS = 10
#: Seconds to wait for whoever else is at this server.
PATIENCE = 5.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """One look at the server that is being drained, all its backends together."""

    at: float  # monotonic seconds
    in_flight: int  # sessions and queue
    left_behind: int | None  # connections of replaced processes; None = can't be seen
    out: bool  # out of rotation in every backend
    certain: bool  # replaced processes can be seen, or there can't be any left

    @property
    def empty(self) -> bool:
        return self.in_flight == 0 and not self.left_behind and self.out and self.certain


def sample(look: Look, server: str, backends: t.Iterable[str], at: float, patience: float) -> Sample:
    """``patience``: how old (seconds) a gateway process must be before we believe that none older is left unseen."""
    wanted = set(backends)
    found = [s for s in look.find(server) if s.backend in wanted]
    left = None if look.left_behind is None else sum(look.left_behind.get(a, 0) for a in {s.address for s in found})
    return Sample(
        at=at,
        in_flight=sum(s.in_flight for s in found),
        left_behind=left,
        out=len(found) == len(wanted) and all(s.state != READY for s in found),
        certain=left is not None or look.age > patience,
    )


def drained(samples: t.Sequence[Sample], k: int) -> bool:
    """Whether the last ``k`` samples were all empty."""
    return k >= 1 and len(samples) >= k and all(s.empty for s in samples[-k:])


def replaced(look: Look, server: str, backends: t.Container[str]) -> dict[str, int]:
    """How much of a server each replaced process still holds, by its pid; those that hold something."""
    places = {address for s in look.find(server) if s.backend in backends for address in (s.address, *s.also)}
    counts = {str(pid): sum(held.get(address, 0) for address in places) for pid, held in look.old.items()}
    return {pid: count for pid, count in counts.items() if count}


def choose(look: Look, server: str, backend: str | None) -> tuple[Server, ...]:
    """The server's places in the gateway. Raises InputError when there is none."""
    found = look.find(server, backend)
    if not found:
        known = sorted({s.name for s in look.servers if backend in (None, s.backend)})
        where = f"backend {backend!r}" if backend else "any backend"
        raise InputError(
            f"no server {server!r} in {where} of this gateway; there are: {', '.join(known) or 'none'}", server=server
        )
    return found


def require_others(look: Look, targets: t.Iterable[Server], min_active: int) -> None:
    """Raises Refused when a backend would be left with fewer than ``min_active`` servers that take traffic."""
    for target in targets:
        if target.state != READY:
            continue  # it carries nothing now: leaving it out takes nothing away
        others = [s.name for s in look.servers if s.backend == target.backend and s.name != target.name and s.takes_traffic]
        if len(others) < min_active:
            raise Refused(
                f"draining {target.label} would leave {len(others)} server(s) that take traffic ({', '.join(others) or 'none'}); "
                f"at least {min_active} must stay: bring another one back first",
                backend=target.backend,
                others=others,
                min_active=min_active,
            )


def remember(look: Look, targets: t.Sequence[Server], record: t.Mapping[str, t.Any] | None) -> Before:
    """How each place was before anyone drained it. What an unfinished drain wrote down is never overwritten."""
    known: Before = {}
    still_there = {s.backend for s in look.find(targets[0].name)}
    if record is not None and record.get("state") != receipt.ACTIVE:
        known = {str(k): dict(v) for k, v in record["before"].items() if str(k) in still_there}
    for target in targets:
        known.setdefault(target.backend, {"state": target.state, "weight": target.weight})
    return known


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a caller wants, apart from the state. Times are in seconds; for a ``lease`` somebody sees that it stays so."""

    server: str
    backend: str | None
    gateway: str
    receipt_dir: str
    instance: str = ""
    turn_id: str = ""
    fence_token: int = 0
    min_active: int = 1
    samples: int = 3
    interval: float = 0.025
    timeout: float = 60.0
    mode: str = DRAIN
    traffic_timeout: float = 0.0
    lease: float = 0.0
    long_backends: tuple[str, ...] = ()
    long_deadline: float = 0.0
    slow_start: float = 0.0
    wait: bool = True


def standing(look: Look, server: str, backends: t.Iterable[str] | None = None) -> dict[str, dict[str, t.Any]]:
    """``{backend: {"state", "weight"}}``: what diffs show."""
    return {
        s.backend: {"state": s.state, "weight": s.weight}
        for s in look.find(server)
        if backends is None or s.backend in set(backends)
    }


class Drain:
    """Acts on one gateway. ``before`` and ``after`` of the results are what ``standing`` tells."""

    def __init__(self, driver: GatewayDriver, wish: Wish, clock: Clock = CLOCK, known: Before | None = None) -> None:
        """``known``: how the server was before, for a gateway that has lost its own record of it."""
        self.driver = driver
        self.wish = wish
        self.clock = clock
        self.known = known

    # -- out -------------------------------------------------------------------------------------------------------------

    def out(self, check_mode: bool = False) -> dict[str, t.Any]:
        """Take the server out and wait until it is empty.

        Raises Refused (fence, too few others), InputError (no such server), WaitTimeout (``left``, ``put_back``), Busy.
        """
        with self._alone(check_mode):
            return self._out(check_mode)

    def _out(self, check_mode: bool) -> dict[str, t.Any]:
        wish = self.wish
        record = receipt.load(wish.receipt_dir, wish.server)
        receipt.check_fence(record, wish.fence_token)
        look = self.driver.look()
        targets = choose(look, wish.server, wish.backend)
        self._require_able(targets)
        require_others(look, targets, wish.min_active)
        before = remember(look, targets, self._remembered(record))
        now = standing(look, wish.server, before)
        wanted = {b: {**now.get(b, {}), "state": self._held(was)} for b, was in before.items()}
        if check_mode:
            return {"before": now, "after": wanted, "drain": None, "receipt": None}
        known = now == wanted and receipt.is_of(record, receipt.DRAINED, wish.turn_id, wish.fence_token)
        began = self.clock.monotonic()
        note = self._note(before, receipt.DRAINING)
        if wish.wait or not known:
            receipt.save(wish.receipt_dir, note)
        try:
            if not wish.wait:
                for backend in self._orders(look, before, DRAIN):
                    self.driver.set_state(backend, wish.server, DRAIN)
                took = {"seconds": round(self.clock.monotonic() - began, 3), "before": before, "told_by": self._teller(record)}
                return {"before": now, "after": wanted, "drain": took, "receipt": dict(record or {}) if known else note}
            began_with = self._reached(look, before) or {}
            drain = self._empty(before)
        except Refused as exc:
            raise self._refused(before, exc) from exc
        now_at = moment(self.clock)
        found = {key: drain[key] for key in ("samples", "seconds", "reloads", "reasserted")}
        safe = {"reload_safe": drain["reload_safe"]}
        drain["told_by"] = self._teller(record)
        found["drained_at"] = now_at
        if known:
            # Nothing has let it in meanwhile: the receipt is fresh, the drain was then.
            found = {key: (record or {}).get(key) for key in found}
        note = {
            **note,
            **found,
            **safe,
            **self._told(began_with, drain.pop("reach")),
            "state": receipt.DRAINED,
            "checked_at": now_at,
        }
        receipt.save(wish.receipt_dir, note)
        return {"before": now, "after": wanted, "drain": drain, "receipt": note}

    def _require_able(self, targets: t.Iterable[Server]) -> None:
        """Raises InputError for a wish that this gateway can't fulfil, before anything is touched."""
        wish, name = self.wish, self.driver.name
        if wish.mode == MAINT and not self.driver.can_maintain:
            raise InputError(f"{name} knows no mode maint: a server that is drained there takes no request of any kind")
        if wish.long_backends and not self.driver.can_end_sessions:
            raise InputError(f"{name} can't end single requests; give its workers a deadline (worker_shutdown_timeout) instead")
        strange = sorted(set(wish.long_backends) - {target.backend for target in targets})
        if strange:
            raise InputError(f"long_backends names {', '.join(strange)}, where {wish.server} is not")

    def _refused(self, before: Before, exc: Refused) -> Refused:
        """The gateway said no halfway: put back what can be, and say both."""
        try:
            self._restore(self.driver.look(), before)
            receipt.save(self.wish.receipt_dir, self._note(before, receipt.ACTIVE))
            ending, put_back = "it stands as before", True
        except ChainopsError as other:
            ending, put_back = f"it could NOT be put back ({other.message}) and may still be drained", False
        return Refused(f"{exc.message}; {ending}", **{**exc.fields, "put_back": put_back})

    @staticmethod
    def _told(first: t.Mapping[str, t.Any], last: t.Mapping[str, t.Any] | None) -> dict[str, t.Any]:
        """Whom the server's host is to look for. Connections of before the drain show addresses that there are none from now."""
        if last is None:
            return {"source_addresses": None, "connections": None, "same_host": None}
        addresses = {*first.get("source_addresses", ()), *last["source_addresses"]}
        return {**last, "source_addresses": sorted(addresses), "same_host": last["same_host"] or first.get("same_host", False)}

    def _remembered(self, record: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
        """The gateway's own record counts; without any, what is known from elsewhere is an unfinished drain's."""
        return {"state": receipt.DRAINING, "before": self.known} if record is None and self.known else record

    def _teller(self, record: t.Mapping[str, t.Any] | None) -> str:
        return "validator" if record is None and self.known else "gateway"

    def _held(self, was: t.Mapping[str, t.Any]) -> str:
        """A place that was out before stays out in its own way."""
        return self.wish.mode if was["state"] == READY else str(was["state"])

    def _empty(self, before: Before) -> dict[str, t.Any]:
        wish, clock = self.wish, self.clock
        start = clock.monotonic()
        seen: list[Sample] = []
        curve: list[list[float]] = []
        first, reasserted, busy_until = True, 0, 0.0
        reloads: list[str] = []
        ended: dict[str, int] = {}
        old: dict[str, int] = {}
        held = DRAIN
        error = ""
        while True:
            try:
                look = self.driver.look()
                if look.generation not in reloads:
                    reloads.append(look.generation)
                orders = self._orders(look, before, held)
                if orders:
                    reasserted += 0 if first else 1
                    for backend in orders:
                        self.driver.set_state(backend, wish.server, held)
                    look = self.driver.look()
                first = False
                if wish.long_backends and not ended and clock.monotonic() - start >= wish.long_deadline:
                    ended = self._end_long(look)
                taken = sample(look, wish.server, before, clock.monotonic() - start, wish.timeout)
                for pid, count in replaced(look, wish.server, before).items():
                    old[pid] = max(count, old.get(pid, 0))
                error = ""
            except Refused:
                raise
            except ChainopsError as exc:  # a reload closes the door for a moment
                taken, error = Sample(clock.monotonic() - start, 1, None, False, False), exc.message
            seen.append(taken)
            busy_until = busy_until if taken.empty else taken.at
            flight = taken.in_flight + (taken.left_behind or 0)
            if not error and (not curve or curve[-1][1] != flight):
                curve.append([round(taken.at, 3), flight])
            if drained(seen, wish.samples):
                if held == wish.mode:
                    met = self._reached(look, before)
                    if met is None or self._still_empty(look, before, taken):
                        break
                    seen = []
                    continue
                # Sticky requests can still come to a server in drain, never to one in maintenance.
                held, seen, first = MAINT, [], True
                continue
            if taken.at >= wish.timeout:
                self._give_up(before, taken, error)
            del seen[: -wish.samples]
            clock.sleep(wish.interval)
        return {
            "in_flight": 0,
            "seconds": round(seen[-1].at, 3),
            "empty_since": round(seen[-wish.samples].at, 3),
            "lag": round(seen[-1].at - busy_until, 3),
            "ended": ended,
            "samples": wish.samples,
            "curve": curve[:200],
            "reasserted": reasserted,
            "reloads": len(reloads) - 1,
            "replaced": old,
            "before": before,
            "reach": met,
            **self._outlasts(before),
        }

    def _reached(self, look: Look, before: Before) -> dict[str, t.Any] | None:
        """What the gateway's host has to do with the server at this moment; None where it can't be told."""
        places = [s for s in look.find(self.wish.server) if s.backend in before]
        return reach.look(look.net, (address for s in places for address in (s.address, *s.also)))

    def _still_empty(self, look: Look, before: Before, last: Sample) -> bool:
        """A connection that is open carries no request only if nothing is in flight afterwards either, with the same process."""
        try:
            now = self.driver.look()
        except ChainopsError:
            return False
        return now.generation == look.generation and sample(now, self.wish.server, before, last.at, self.wish.timeout).empty

    def _outlasts(self, before: Before) -> dict[str, t.Any]:
        """Whether a reload leaves the server out; why it doesn't. Places that were out before are not ours to keep out."""
        held = [backend for backend, was in before.items() if was["state"] == READY]
        try:
            why = [words for words in dict.fromkeys(self.driver.outlasts(one, self.wish.server) for one in held) if words]
        except ChainopsError as exc:
            why = [exc.message]
        return {"reload_safe": not why, "reload_why": why}

    def _end_long(self, look: Look) -> dict[str, int]:
        """Their time is over: requests in the backends of long ones are ended by the gateway, and counted."""
        ended = {}
        for place in look.find(self.wish.server):
            if place.backend in self.wish.long_backends and (place.sessions or (look.left_behind or {}).get(place.address)):
                ended[place.backend] = place.sessions + self.driver.end_sessions(place.backend, place.name)
        return {backend: count for backend, count in ended.items() if count}

    def _orders(self, look: Look, before: Before, held: str) -> list[str]:
        """Backends where the server must be told (again) to stay out."""
        places = {s.backend: s for s in choose(look, self.wish.server, self.wish.backend)}
        return [
            b
            for b, was in before.items()
            if was["state"] == READY and b in places and (places[b].state == READY or (held == MAINT != places[b].state))
        ]

    def _give_up(self, before: Before, last: Sample, error: str) -> t.NoReturn:
        wish = self.wish
        left: dict[str, t.Any] = {}
        old: dict[str, int] = {}
        put_back, problem = False, ""
        try:
            look = self.driver.look()
            left = {
                s.backend: {"sessions": s.sessions, "queued": s.queued} for s in look.find(wish.server) if s.backend in before
            }
            old = replaced(look, wish.server, before)
            self._restore(look, before)
            receipt.save(wish.receipt_dir, self._note(before, receipt.ACTIVE))
            put_back = True
        except ChainopsError as exc:
            problem = exc.message
        ending = "it is in rotation again" if put_back else f"it could NOT be put back ({problem}) and may still be drained"
        unseen = "" if last.certain or error else "; requests of a replaced gateway process can't be seen from here"
        raise WaitTimeout(
            f"{wish.server} is not empty after {last.at:.1f} s on gateway {wish.gateway}: {last.in_flight} in flight"
            f"{f', {last.left_behind} left with a replaced process{_pids(old)}' if last.left_behind else ''}{unseen}"
            f"{f' (last error: {error})' if error else ''}; {ending}",
            waited=round(last.at, 3),
            last={"in_flight": last.in_flight, "left_behind": last.left_behind, "out_of_rotation": last.out},
            left=left,
            replaced=old,
            put_back=put_back,
            server=wish.server,
            gateway=wish.gateway,
        )

    # -- back ------------------------------------------------------------------------------------------------------------

    def back(self, check_mode: bool = False) -> dict[str, t.Any]:
        """Put the server back exactly as it was, once its health checks say that it is up.

        A server that was out before we came stays out; without a record of ours nothing is changed. Raises Refused,
        InputError, WaitTimeout (it stays drained: a dead server gets no traffic), Busy.
        """
        with self._alone(check_mode):
            return self._back(check_mode)

    def _back(self, check_mode: bool) -> dict[str, t.Any]:
        wish = self.wish
        record = receipt.load(wish.receipt_dir, wish.server)
        receipt.check_fence(record, wish.fence_token)
        look = self.driver.look()
        targets = choose(look, wish.server, wish.backend)
        memory = self._remembered(record)
        ours = memory is not None and memory.get("state") != receipt.ACTIVE
        before: Before = {str(k): dict(v) for k, v in memory["before"].items()} if memory is not None and ours else {}
        now = standing(look, wish.server, before or {s.backend for s in targets})
        wanted = {**now, **{b: was for b, was in before.items() if b in now}}
        if check_mode or not ours:
            return {"before": now, "after": wanted, "drain": None, "receipt": record}
        start = self.clock.monotonic()
        look = self._wait_up(look, before)
        total = sum(s.total for s in look.find(wish.server) if s.backend in before)
        if wish.slow_start > 0:
            look = self._ease(look, before)
        self._restore(look, before)
        kept = {
            key: (record or {}).get(key) for key in ("drained_at", "checked_at", "samples", "seconds", "reloads", "reasserted")
        }
        note = {**self._note(before, receipt.ACTIVE), **kept, "restored_at": moment(self.clock)}
        receipt.save(wish.receipt_dir, note)
        traffic = self._wait_traffic(before, total)
        took = round(self.clock.monotonic() - start, 3)
        drain = {"seconds": took, "before": before, "told_by": self._teller(record), "traffic": traffic}
        return {"before": now, "after": wanted, "drain": drain, "receipt": note}

    def _wait_up(self, look: Look, before: Before) -> Look:
        wish, clock = self.wish, self.clock
        start = clock.monotonic()
        waiting = {b for b, was in before.items() if was["state"] == READY}
        error = ""
        while True:
            places = [s for s in look.find(wish.server) if s.backend in waiting]
            for place in places:
                if place.state == MAINT:  # checks are off in maintenance; in drain they run and no traffic comes
                    self.driver.set_state(place.backend, wish.server, DRAIN)
            down = [s.label for s in places if s.state == MAINT or not (s.up and s.confirmed)]
            if not down and not error:
                return look
            waited = clock.monotonic() - start
            if waited >= wish.timeout:
                raise WaitTimeout(
                    f"{', '.join(down) or wish.server} is not up in the checks of gateway {wish.gateway} after {waited:.1f} s"
                    f"{f' (last error: {error})' if error else ''}; it stays drained, so that no request goes to a dead server",
                    waited=round(waited, 3),
                    last={"down": down, "error": error},
                    server=wish.server,
                    gateway=wish.gateway,
                )
            clock.sleep(wish.interval)
            try:
                look, error = self.driver.look(), ""
            except ChainopsError as exc:
                error = exc.message

    def _ease(self, look: Look, before: Before) -> Look:
        """A tenth of its share of the requests at first, and all of it ``slow_start`` seconds later. Returns the last look."""
        if not self.driver.live_weights:
            raise InputError(f"{self.driver.name} changes weights by a reload alone: no slow start there")
        for step in range(1, STEPS):
            for place in look.find(self.wish.server):
                was = before.get(place.backend)
                if was is not None and was["state"] == READY and int(was["weight"]) > 1:
                    self.driver.set_weight(place.backend, place.name, max(1, int(was["weight"]) * step // STEPS))
                if was is not None and place.state != was["state"]:
                    self.driver.set_state(place.backend, place.name, str(was["state"]))
            self.clock.sleep(self.wish.slow_start / (STEPS - 1))
            look = self.driver.look()
        return look

    def _restore(self, look: Look, before: Before) -> None:
        for place in look.find(self.wish.server):
            was = before.get(place.backend)
            if was is None:
                continue
            if place.weight != was["weight"]:
                self.driver.set_weight(place.backend, place.name, int(was["weight"]))
            if place.state != was["state"]:
                self.driver.set_state(place.backend, place.name, str(was["state"]))

    def _wait_traffic(self, before: Before, total: int) -> dict[str, t.Any]:
        """Sessions that came since; waiting for the first is a courtesy, not a condition (there may be no client)."""
        start = self.clock.monotonic()
        while True:
            places = [s for s in self.driver.look().find(self.wish.server) if s.backend in before]
            since = max(sum(s.total for s in places) - total, 0)
            waited = self.clock.monotonic() - start
            if since or waited >= self.wish.traffic_timeout:
                return {"sessions": since, "seen": since > 0, "seconds": round(waited, 3)}
            self.clock.sleep(self.wish.interval)

    def _alone(self, check_mode: bool) -> t.ContextManager[None]:
        return alone(self.wish, self.clock, check_mode)

    def _note(self, before: Before, state: str) -> dict[str, t.Any]:
        return note(self.wish, self.driver.name, before, state)


def _pids(old: t.Iterable[str]) -> str:
    named = ", ".join(old)
    return f" (pid {named})" if named else ""


@contextlib.contextmanager
def alone(wish: Wish, clock: Clock, check_mode: bool = False) -> t.Iterator[None]:
    """One at a time for one server of one gateway; waits a moment for others. Looking alone leaves no trace."""
    if check_mode:
        yield
        return
    path = os.path.join(os.path.dirname(receipt.path_of(wish.receipt_dir, wish.server)), f".{wish.server}.lock")
    make_dir(wish.receipt_dir, 0o750)
    with contextlib.ExitStack() as stack:
        until = clock.monotonic() + PATIENCE
        while True:
            try:
                stack.enter_context(locked(path, what=f"draining or putting back {wish.server}"))
                break
            except Busy:  # whoever watches a drain holds it for a moment at a time
                if clock.monotonic() >= until:
                    raise
                clock.sleep(0.02)
        yield


def note(wish: Wish, driver: str, before: t.Mapping[str, t.Any], state: str) -> dict[str, t.Any]:
    """A receipt, as far as it is known before anything was done."""
    return {
        "format": receipt.FORMAT,
        "state": state,
        "server": wish.server,
        "backend": wish.backend,
        "backends": sorted(before),
        "gateway": wish.gateway,
        "instance": wish.instance,
        "turn_id": wish.turn_id,
        "fence_token": wish.fence_token,
        "before": before,
        "drained_at": None,
        "checked_at": None,
        "samples": None,
        "lease": wish.lease,
        "driver": driver,
    }


def moment(clock: Clock = CLOCK) -> dict[str, t.Any]:
    """Now, as wall clock, as seconds since boot (sleep included), and which boot."""
    boot = read_or_none("/proc/sys/kernel/random/boot_id")
    return {
        "wall": clock.stamp(),
        "boottime": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        "boot_id": boot.decode("ascii").strip() if boot else "",
    }
