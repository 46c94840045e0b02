# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watermarks: the last thing a key signed. Whatever is restored, a watermark only ever goes up."""

from __future__ import annotations

import os
import typing as t

from .._chain.protocol import ChainAdapter, Watermark
from .._core import canonical, files
from .._core.clock import CLOCK
from .._core.errors import InputError, IntegrityError

__all__ = ["Watermark", "as_dict", "combine", "from_dict", "raise_to", "record", "recorded"]

FORMAT = "chainops.watermark/1"
NAME = "watermark.json"


def as_dict(mark: Watermark | None) -> dict[str, t.Any] | None:
    """``{"address", "height", "round", "step"}``, or None."""
    if mark is None:
        return None
    return {"address": mark.address, "height": mark.height, "round": mark.round, "step": mark.step}


def from_dict(value: t.Any) -> Watermark | None:
    """The watermark in a JSON value; None stays None. Raises InputError for anything that isn't one."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InputError(f"not a watermark: {value!r}; expected height, round, step and address")
    numbers = [value.get("height"), value.get("round", 0), value.get("step", 0)]
    address = value.get("address") or ""
    if not isinstance(address, str) or any(isinstance(n, bool) or not isinstance(n, int) or n < -1 for n in numbers):
        raise InputError(
            f"not a watermark: {value!r}; height, round and step are whole numbers (-1: nothing yet), address is text"
        )
    return Watermark(numbers[0], numbers[1], numbers[2], address)


def combine(*marks: Watermark | None, address: str = "") -> Watermark | None:
    """The highest of them; None when there is none.

    With ``address``, marks that name another key don't count: they bind that key. One that names no key always counts.
    """
    counted = [mark for mark in marks if mark is not None and (not address or mark.address in ("", address))]
    if not counted:
        return None
    top = max(counted)
    name = address or top.address or next((mark.address for mark in counted if mark.address), "")
    return Watermark(top.height, top.round, top.step, name)


def raise_to(adapter: ChainAdapter, data_dir: str, mark: Watermark) -> Watermark:
    """Write a watermark into a data directory unless what is there is as high. Returns what is in force afterwards.

    Raises IntegrityError when the one that is there can't be read, or what was written can't be read back.
    """
    live = adapter.read_watermark(data_dir)
    if live is not None and live >= mark:
        return live
    adapter.write_watermark(data_dir, mark)
    now = adapter.read_watermark(data_dir)
    if now is None or now < mark:
        raise IntegrityError(
            f"the watermark of {data_dir} was written as {as_dict(mark)} but reads {as_dict(now)}", path=data_dir
        )
    return now


def record(instance_dir: str, mark: Watermark) -> Watermark:
    """Remember a watermark outside the data directory, for each address by itself. Never lowers; returns what is remembered."""
    path = os.path.join(instance_dir, NAME)
    with files.locked(path + ".lock", what="watermark"):
        marks = _read(path)
        before = marks.get(mark.address)
        if before is not None and before >= mark:
            return before
        marks[mark.address] = mark
        value = {"format": FORMAT, "written": CLOCK.stamp(), "marks": [as_dict(marks[name]) for name in sorted(marks)]}
        files.write_atomic(path, canonical.pretty(value), 0o600)
    return mark


def recorded(instance_dir: str, address: str | None = None) -> Watermark | None:
    """What ``record`` remembered for an address, or, without one, the highest of all. Raises IntegrityError when unreadable."""
    marks = _read(os.path.join(instance_dir, NAME))
    return combine(*marks.values(), address=address or "")


def _read(path: str) -> dict[str, Watermark]:
    data = files.read_or_none(path)
    if data is None:
        return {}
    value = canonical.loads(data, path)
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("marks"), list):
        raise IntegrityError(f"{path} is not in the format {FORMAT}", path=path)
    marks: dict[str, Watermark] = {}
    for item in value["marks"]:
        try:
            mark = from_dict(item)
        except InputError as exc:
            raise IntegrityError(f"{path}: {exc.message}", path=path) from exc
        if mark is None or mark.address in marks:
            raise IntegrityError(f"{path} names no key, or one key twice", path=path)
        marks[mark.address] = mark
    return marks
