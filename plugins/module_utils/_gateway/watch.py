# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeing to it that what is drained stays drained: a gateway that reloads or restarts knows nothing of a drain any more.

A small process on the gateway's host looks again and again, and takes the server out again when it is in. It does so for as long
as its lease lasts and not longer: when nobody renews it, nobody may be there any more who would put the server back, so it stops,
and says so in the receipt. By itself it puts nothing back, unless it was told to. It yields to whoever holds the server's lock,
and ends when the receipt says that the server is back, or belongs to a newer rollout.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
import typing as t

from .._core import canonical, files
from .._core.clock import CLOCK, Clock
from .._core.errors import Busy, ChainopsError, InputError, IntegrityError
from . import receipt
from .drain import Drain, Wish, alone, moment
from .protocol import DRAIN, MAINT, READY, GatewayDriver
from .registry import driver

FORMAT = "chainops.watch/1"
#: Seconds between two looks, and between two times that it writes down that it looks.
LOOK, TELL = 0.2, 2.0
#: What a look comes to.
WATCH, RELEASED, SUPERSEDED, EXPIRED = "watching", "released", "superseded", "expired"


@dataclasses.dataclass(frozen=True)
class Lease:
    """What is watched, how the gateway is spoken to, and until when."""

    driver: str
    endpoint: str
    wish: Wish
    until: t.Mapping[str, t.Any]  # wall (seconds since the epoch), boottime (seconds since boot), boot_id
    put_back: bool = False

    def as_dict(self) -> dict[str, t.Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}


def folder(receipt_dir: str) -> str:
    return os.path.join(receipt_dir, "watch")


def lease_path(receipt_dir: str, server: str) -> str:
    return receipt.path_of(folder(receipt_dir), server)


def status_path(receipt_dir: str, server: str) -> str:
    return lease_path(receipt_dir, server)[: -len(".json")] + ".status"


def until(seconds: float, clock: Clock = CLOCK) -> dict[str, t.Any]:
    """The end of a lease that begins now."""
    now = moment(clock)
    return {"wall": clock.wall() + seconds, "boottime": now["boottime"] + seconds, "boot_id": now["boot_id"]}


def load(path: str) -> Lease | None:
    """Raises IntegrityError for a file that is no lease."""
    data = files.read_or_none(path)
    if data is None:
        return None
    try:
        body = dict(canonical.loads(data, path))
        if body.pop("format") != FORMAT:
            raise ValueError("another format")
        wish = dict(body.pop("wish"))
        wish["long_backends"] = tuple(wish["long_backends"])
        return Lease(wish=Wish(**wish), **body)
    except (KeyError, TypeError, ValueError) as exc:
        raise IntegrityError(f"{path} is not the lease of a watch: {exc}", path=path) from exc


def judge(lease: Lease | None, record: t.Mapping[str, t.Any] | None, now: t.Mapping[str, t.Any], wall: float) -> str:
    """What a watch is to do. The time since boot counts; the wall clock only when the machine has been restarted."""
    if lease is None or record is None or record["state"] == receipt.ACTIVE:
        return RELEASED
    if int(record["fence_token"]) > lease.wish.fence_token:
        return SUPERSEDED
    same_boot = now["boot_id"] == lease.until["boot_id"]
    over = now["boottime"] >= lease.until["boottime"] if same_boot else wall >= lease.until["wall"]
    return EXPIRED if over else WATCH


class Watch:
    """Watches one server. ``path`` is that of its lease, which may be renewed meanwhile."""

    def __init__(self, gateway: GatewayDriver, path: str, clock: Clock = CLOCK) -> None:
        self.gateway = gateway
        self.path = path
        self.clock = clock
        self.reasserted = 0
        self.error = ""
        self._told = float("-inf")

    def once(self) -> str:
        """One look, and what it came to. A gateway that doesn't answer is asked again."""
        lease = load(self.path)
        if lease is None:
            return RELEASED
        try:
            with alone(lease.wish, _Impatient(self.clock)):
                record = receipt.load(lease.wish.receipt_dir, lease.wish.server)
                verdict = judge(lease, record, moment(self.clock), self.clock.wall())
                if verdict == WATCH and record is not None:
                    self._hold(lease, record)
                elif verdict == EXPIRED and record is not None:
                    self._say(lease, record)
        except Busy:
            return WATCH  # whoever drains or puts back sees to it
        if verdict == EXPIRED and lease.put_back:
            self._put_back(lease)
        self._tell(lease, verdict)
        return verdict

    def _hold(self, lease: Lease, record: t.Mapping[str, t.Any]) -> None:
        held = MAINT if lease.wish.mode == MAINT and record["state"] == receipt.DRAINED else DRAIN
        try:
            for place in self.gateway.look().find(lease.wish.server):
                was = record["before"].get(place.backend)
                if was is not None and was["state"] == READY and place.state == READY:
                    self.gateway.set_state(place.backend, place.name, held)
                    self.reasserted += 1
                    self._told = float("-inf")
                    _print(f"{place.label} was in rotation again, and is out again")
            self.error = ""
        except ChainopsError as exc:
            if self.error != exc.message:
                _print(exc.message)
            self.error = exc.message

    def _say(self, lease: Lease, record: t.Mapping[str, t.Any]) -> None:
        told = "the lease is over: from now on nobody takes the server out again when the gateway reloads"
        receipt.save(lease.wish.receipt_dir, {**record, "watch": {"state": EXPIRED, "at": moment(self.clock), "message": told}})
        _print(f"{lease.wish.server}: {told}")

    def _put_back(self, lease: Lease) -> None:
        try:
            Drain(self.gateway, lease.wish, self.clock).back()
            _print(f"{lease.wish.server} is back in rotation, as was asked for when the lease is over")
        except ChainopsError as exc:
            self.error = exc.message
            _print(f"{lease.wish.server} could not be put back: {exc.message}")

    def _tell(self, lease: Lease, verdict: str) -> None:
        now = self.clock.monotonic()
        if verdict == WATCH and now - self._told < TELL:
            return
        self._told = now
        found = {"state": verdict, "looked_at": moment(self.clock), "reasserted": self.reasserted, "error": self.error}
        files.write_atomic(status_path(lease.wish.receipt_dir, lease.wish.server), canonical.pretty(found), 0o640)

    def run(self) -> str:
        """Until there is nothing more to watch; the lease's end at the latest."""
        while (verdict := self.once()) == WATCH:
            self.clock.sleep(LOOK)
        return verdict


class _Impatient(Clock):
    """For whoever would rather look another time than wait for a lock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked = 0

    def monotonic(self) -> float:
        self._asked += 1
        return float("inf") if self._asked > 1 else self._clock.monotonic()


def _print(words: str) -> None:
    sys.stderr.write(f"chainops-drain: {words}\n")
    sys.stderr.flush()


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Sees to it that a drained server stays drained.")
    parser.add_argument("--lease", required=True, help="the lease's file")
    path = parser.parse_args(argv).lease
    try:
        lease = load(path)
        if lease is None:
            return 0
        with files.locked(f"{path}.lock", what=f"watching {lease.wish.server}"):
            _print(f"{lease.wish.server}: {Watch(driver(lease.driver, lease.endpoint), path).run()}")
    except Busy:
        return 0  # one watch is enough
    except (InputError, IntegrityError) as exc:
        _print(exc.message)
        return 2
    except (ChainopsError, OSError) as exc:
        _print(str(exc))
        time.sleep(1)
        return 1
    return 0
