# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Doing slow things ahead of time, side by side, and getting them in order."""

from __future__ import annotations

import queue
import threading
import typing as t

T = t.TypeVar("T")


def in_turn(lanes: t.Sequence[t.Generator[T, None, None]], name: str = "lane") -> t.Iterator[T]:
    """One item of each lane in turn, the first lane first; it ends with the first lane that has no more at its turn.

    Every lane runs in a thread of its own, and is at most one item ahead of what was taken from it. What a lane raises is
    raised at that item's turn. However the taking ends, no lane begins another item, and each is closed, in its thread, as
    soon as it is done with the one it is at. Nobody waits for that: threads are daemons, and what a lane waits for needs a
    timeout of its own.
    """
    stop = threading.Event()
    results: list[queue.Queue[tuple[list[T], BaseException | None]]] = [queue.Queue(1) for _lane in lanes]

    def run(lane: t.Generator[T, None, None], out: queue.Queue[tuple[list[T], BaseException | None]]) -> None:
        try:
            for item in lane:
                out.put(([item], None))
                if stop.is_set():
                    return
            out.put(([], None))
        except BaseException as exc:
            out.put(([], exc))
        finally:
            lane.close()

    for number, (lane, out) in enumerate(zip(lanes, results), 1):
        threading.Thread(target=run, args=(lane, out), name=f"{name} {number}", daemon=True).start()
    try:
        while True:
            for out in results:
                items, failure = out.get()
                if failure is not None:
                    raise failure
                if not items:
                    return
                yield items[0]
    finally:
        stop.set()
        for out in results:
            while not out.empty():  # room for what a lane may be about to put: it sees the stop right after
                out.get()
