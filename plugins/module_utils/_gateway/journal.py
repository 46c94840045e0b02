# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a validator writes down of its gateways before any of them is touched: how it stood there.

A gateway remembers that itself. It may lose its disk while a server is out of it; then this is what the server is put back to.
The record is a receipt like a gateway's, but that ``before`` is by gateway.
"""

from __future__ import annotations

import typing as t

from .._core.clock import CLOCK, Clock
from . import receipt
from .drain import Before, Wish, alone, choose, moment, note, remember
from .protocol import GatewayDriver

Looks = t.Mapping[str, t.Mapping[str, t.Any]]
Record = t.Mapping[str, t.Any]


def look(driver: GatewayDriver, server: str, backend: str | None, receipt_dir: str) -> dict[str, t.Any]:
    """How a server stands on this gateway, or stood before a drain that is not over: ``before``.

    ``known``: whether the gateway has a record of it at all. Raises InputError when there is no such server.
    """
    record = receipt.load(receipt_dir, server)
    seen = driver.look()
    return {"before": remember(seen, choose(seen, server, backend), record), "known": record is not None}


def remembered(looks: Looks, record: Record | None) -> dict[str, Before]:
    """How the server was before, by gateway.

    A gateway that knows is believed. One that has lost what it knew shows a server as we left it: then what was written down
    here counts, as it does for gateways that weren't looked at.
    """
    unfinished = dict(record["before"]) if record is not None and record["state"] != receipt.ACTIVE else {}
    found = {name: dict(seen["before"]) for name, seen in looks.items() if seen["known"] or name not in unfinished}
    return {**unfinished, **found}


class Journal:
    """Acts on the validator's own host. ``looks``: what ``look`` told, by gateway."""

    name = "journal"

    def __init__(self, wish: Wish, looks: Looks, clock: Clock = CLOCK) -> None:
        self.wish = wish
        self.looks = looks
        self.clock = clock

    def out(self, check_mode: bool = False) -> dict[str, t.Any]:
        """Write it down. Raises Refused (fence), Busy."""
        with alone(self.wish, self.clock, check_mode):
            record = self._record()
            wanted = note(self.wish, self.name, remembered(self.looks, record), receipt.DRAINED)
            if record is not None and all(record.get(key) == value for key, value in wanted.items()):
                return self._written(record, record, check_mode)
            return self._written(record, {**wanted, "noted_at": moment(self.clock)}, check_mode)

    def back(self, check_mode: bool = False) -> dict[str, t.Any]:
        """Write down that it is over. Raises Refused (fence), Busy."""
        with alone(self.wish, self.clock, check_mode):
            record = self._record()
            if record is None or record["state"] == receipt.ACTIVE:
                return self._written(record, record, check_mode)
            return self._written(record, {**record, "state": receipt.ACTIVE, "restored_at": moment(self.clock)}, check_mode)

    def _record(self) -> dict[str, t.Any] | None:
        record = receipt.load(self.wish.receipt_dir, self.wish.server)
        receipt.check_fence(record, self.wish.fence_token)
        return record

    def _written(self, record: Record | None, wanted: Record | None, check_mode: bool) -> dict[str, t.Any]:
        if wanted is not None and wanted is not record and not check_mode:
            receipt.save(self.wish.receipt_dir, wanted)
        told = {"drain": None, "receipt": None, "journal": record if check_mode else wanted}
        return {"before": _shown(record), "after": _shown(wanted), **told}


def _shown(record: Record | None) -> dict[str, t.Any]:
    keys = ("state", "turn_id", "fence_token", "before")
    return {} if record is None else {key: record.get(key) for key in keys}
