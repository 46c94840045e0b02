# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own pause, where the chain has one: after the gateways have let go of it, and before they take it back.

A pause may outlive a restart and travel inside a snapshot, and a mining switch may not: so what the node is asked to be in the
end is what was written down before it was touched, whatever a restart or a restore has made of it meanwhile. The order of pause
and mining switch is the adapter's business.
"""

from __future__ import annotations

import typing as t

from .._chain.protocol import AdminClient, NodeClient
from .._core.clock import CLOCK, Clock, wait_for
from .._core.errors import ChainopsError, InputError, WaitTimeout
from . import receipt
from .drain import Wish, alone, moment, note

#: The only place there is, where a gateway has backends.
PLACE = "node"
Standing = t.Dict[str, bool]


def asked(was: t.Mapping[str, bool]) -> Standing:
    """How a node is to stand while it is drained. One that was paused by somebody else stays as it is."""
    return dict(was) if was["paused"] else {"paused": True, "mining": False}


class NodePause:
    """Acts on one node. Both clients are of the same node."""

    name = "node"

    def __init__(self, node: NodeClient, admin: AdminClient, wish: Wish, clock: Clock = CLOCK) -> None:
        self.node = node
        self.admin = admin
        self.wish = wish
        self.clock = clock

    def look(self) -> Standing:
        """Raises InputError where the node can't be paused, or doesn't tell."""
        paused, mining = self.admin.paused(), self.node.status().mining
        if paused is None:
            raise InputError(
                f"{self.node.api_url} doesn't tell whether it is paused: this takes its admin token, and a chain with a pause"
            )
        return {"paused": paused, "mining": bool(mining)}

    def out(self, check_mode: bool = False) -> dict[str, t.Any]:
        """Pause. Raises Refused (fence), InputError, WaitTimeout (it was put back), Busy."""
        with alone(self.wish, self.clock, check_mode):
            began = self.clock.monotonic()
            record, now = self._record(), self.look()
            known = record is not None and record["state"] != receipt.ACTIVE
            was: Standing = dict(record["before"][PLACE]) if record is not None and known else now
            wanted = asked(was)
            if check_mode:
                return _result(now, wanted, None, None)
            receipt.save(self.wish.receipt_dir, self._note(was, receipt.DRAINING))
            if now != wanted:
                self.admin.pause(self._reason("pause"))
                self._wait(wanted, was)
            seconds = round(self.clock.monotonic() - began, 3)
            at = moment(self.clock)
            found = {"samples": 1, "seconds": seconds, "reloads": 0, "reasserted": 0, "drained_at": at}
            if now == wanted and receipt.is_of(record, receipt.DRAINED, self.wish.turn_id, self.wish.fence_token):
                found = {key: (record or {}).get(key) for key in found}
            told = {**self._note(was, receipt.DRAINED), **found, "checked_at": at}
            receipt.save(self.wish.receipt_dir, told)
            return _result(now, wanted, {"in_flight": 0, "seconds": seconds, "before": {PLACE: was}}, told)

    def back(self, check_mode: bool = False) -> dict[str, t.Any]:
        """Put back what was. Without a record of ours nothing is changed. Raises Refused (fence), WaitTimeout, Busy."""
        with alone(self.wish, self.clock, check_mode):
            began = self.clock.monotonic()
            record, now = self._record(), self.look()
            if record is None or record["state"] == receipt.ACTIVE:
                return _result(now, now, None, record)
            was: Standing = dict(record["before"][PLACE])
            if check_mode:
                return _result(now, was, None, record)
            self._put(was)
            seconds = round(self.clock.monotonic() - began, 3)
            kept = {key: record.get(key) for key in ("drained_at", "checked_at", "samples", "seconds")}
            told = {**self._note(was, receipt.ACTIVE), **kept, "restored_at": moment(self.clock)}
            receipt.save(self.wish.receipt_dir, told)
            return _result(now, was, {"seconds": seconds, "before": {PLACE: was}}, told)

    def _put(self, was: Standing) -> None:
        now, why = self.look(), self._reason("unpause")
        if now == was:
            return
        if was["paused"]:
            self.admin.pause(why)
        else:
            if now["mining"] and not was["mining"]:  # a restart has switched it on; pausing switches it off
                self.admin.pause(why)
            self.admin.unpause(why, resume_mining=was["mining"] and not now["mining"])
        self._see(was)

    def _see(self, wanted: Standing) -> None:
        wait_for(
            self.look,
            lambda now: now == wanted,
            timeout=self.wish.timeout,
            what=f"{self.node.api_url} to stand as {wanted}",
            clock=self.clock,
        )

    def _wait(self, wanted: Standing, was: Standing) -> None:
        try:
            self._see(wanted)
        except WaitTimeout as exc:
            put_back, ending = True, "it stands as before"
            try:
                self._put(was)
                receipt.save(self.wish.receipt_dir, self._note(was, receipt.ACTIVE))
            except ChainopsError as other:
                put_back, ending = False, f"it could NOT be put back ({other.message}) and may still be paused"
            raise WaitTimeout(f"{exc.message}; {ending}", **{**exc.fields, "put_back": put_back}) from exc

    def _record(self) -> dict[str, t.Any] | None:
        record = receipt.load(self.wish.receipt_dir, self.wish.server)
        receipt.check_fence(record, self.wish.fence_token)
        return record

    def _note(self, was: Standing, state: str) -> dict[str, t.Any]:
        return note(self.wish, self.name, {PLACE: dict(was)}, state)

    def _reason(self, what: str) -> str:
        return f"{what} for turn {self.wish.turn_id or '?'}"


def _result(now: Standing, wanted: Standing, drain: dict[str, t.Any] | None, told: dict[str, t.Any] | None) -> dict[str, t.Any]:
    return {"before": {PLACE: now}, "after": {PLACE: wanted}, "drain": drain, "receipt": told}
