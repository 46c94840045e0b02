# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.ahead import in_turn


class Lane:
    """Items of one lane; knows whether it was closed, and how many were taken from it."""

    def __init__(self, items: t.Iterable[t.Any]) -> None:
        self.items = items
        self.begun = 0
        self.closed = threading.Event()

    def __call__(self) -> t.Generator[t.Any, None, None]:
        try:
            for item in self.items:
                self.begun += 1
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 40), lanes=st.integers(1, 5))
def test_items_come_in_order(count: int, lanes: int) -> None:
    made = [Lane(range(count)[number::lanes]) for number in range(lanes)]
    assert list(in_turn([lane() for lane in made])) == list(range(count))
    assert all(lane.closed.wait(10) for lane in made)


def test_a_failure_comes_at_its_turn_and_ends_the_others() -> None:
    lanes = [Lane(iter(range(0, 10**9, 2))), Lane([1, 3, KeyError("five"), 7])]
    seen = []
    with pytest.raises(KeyError, match="five"):
        for item in in_turn([lane() for lane in lanes]):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]
    assert all(lane.closed.wait(10) for lane in lanes)


def test_who_stops_taking_ends_the_lanes_and_none_runs_far_ahead() -> None:
    lanes = [Lane(range(10**9)) for _number in range(4)]
    items = t.cast(t.Generator[int, None, None], in_turn([lane() for lane in lanes], "unit"))
    assert [next(items) for _number in range(6)] == [0, 0, 0, 0, 1, 1]
    items.close()
    assert all(lane.closed.wait(10) for lane in lanes)
    # Taken, one that waits to be taken, one that was just made, and one more for the room that closing makes.
    assert all(lane.begun <= 5 for lane in lanes)
    for thread in threading.enumerate():
        if thread.name.startswith("unit "):
            thread.join(10)
            assert not thread.is_alive()
