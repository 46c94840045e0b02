# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import (
    Busy,
    ChainopsError,
    InputError,
    IntegrityError,
    Refused,
)
from ansible_collections.chainops.validator.plugins.module_utils._state.retention import (
    hold,
    holds,
    in_use,
    inventory,
    prunable,
    prune,
    remove,
    unhold,
)
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import freeze, hot_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.watermark import (
    Watermark,
    as_dict,
    combine,
    from_dict,
    raise_to,
    record,
    recorded,
)

from .conftest import KEY, XAI, Node

MARKS = st.builds(Watermark, st.integers(-1, 50), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", "a", "b"]))


@given(st.lists(MARKS, max_size=6))
def test_combine_is_the_highest_that_counts(marks: list[Watermark]) -> None:
    assert combine() is None and combine(None) is None
    top = combine(*marks)
    assert top == (max(marks) if marks else None)
    mine = combine(*marks, None, address="a")
    counted = [mark for mark in marks if mark.address in ("", "a")]
    assert mine == (max(counted) if counted else None) and (mine is None or mine.address == "a")
    assert all(from_dict(as_dict(mark)) == mark for mark in marks)


@pytest.mark.parametrize("bad", [5, {}, {"height": "1"}, {"height": -2}, {"height": True}, {"height": 1, "address": 5}])
def test_what_is_no_watermark(bad: object) -> None:
    with pytest.raises(InputError, match="not a watermark"):
        from_dict(bad)


def test_a_watermark_is_only_raised(node: Node) -> None:
    assert raise_to(XAI, node.data, Watermark(5, 0, 0, KEY)) == Watermark(7, 0, 3)
    assert raise_to(XAI, node.data, Watermark(8, 0, 0, KEY)) == Watermark(8)
    assert XAI.read_watermark(node.data) == Watermark(8)


def test_recorded_marks_never_go_down(tmp_path: pathlib.Path) -> None:
    where = str(tmp_path)
    assert recorded(where) is None
    assert record(where, Watermark(5, 0, 0, "a")) == Watermark(5)
    assert record(where, Watermark(4, 9, 9, "a")) == Watermark(5)
    record(where, Watermark(9, 0, 0, "b"))
    assert recorded(where, "a") == Watermark(5) and recorded(where) == Watermark(9) and recorded(where, "c") is None
    (tmp_path / "watermark.json").write_text('{"format": "chainops.watermark/1", "marks": [{"height": "x"}]}')
    with pytest.raises(IntegrityError):
        recorded(where)
    with pytest.raises(IntegrityError):
        record(where, Watermark(50))


def three(node: Node) -> str:
    for number in range(3):
        freeze(node.spec(f"s{number}"), {})
    return node.spec().snapshots_dir


def test_what_is_needed_stays(node: Node) -> None:
    where = three(node)
    first = os.path.join(where, "s0")
    hold(first, "turn-1", "rollback point")
    hold(first, "turn-1", "said again")
    assert holds(first) == {"turn-1": "rollback point"}
    with pytest.raises(Refused, match="held by turn-1: rollback point"):
        remove(where, "s0")
    assert unhold(first, "turn-1") and not unhold(first, "turn-1")
    with pytest.raises(Refused, match="rollback point of r1"):
        remove(where, "s0", {"s0": "rollback point of r1"})
    with in_use(first), pytest.raises(Busy):
        remove(where, "s0")
    assert remove(where, "s0") and not remove(where, "s0")
    assert sorted(os.listdir(where)) == [".s1.lock", ".s2.lock", "s1", "s2"]


def test_the_last_good_one_stays(node: Node) -> None:
    where = three(node)
    for name in ("s1", "s2"):
        os.unlink(os.path.join(where, name, "roots/data/utxo_set.json"))
    with pytest.raises(Refused, match="last good one"):
        remove(where, "s0")
    assert prune(where, 1).kept == {"s0": "it is the last good one"}
    assert [item["id"] for item in inventory(where)] == ["s0", "s2"]
    assert remove(where, "s2")


def test_pruning_takes_the_oldest(node: Node) -> None:
    where = three(node)
    hold(os.path.join(where, "s0"), "me", "why not")
    assert prunable(where, 1).removed == ("s1",)
    done = prune(where, 1)
    assert done.removed == ("s1",) and done.kept == {"s0": "held by me: why not"}
    with pytest.raises(InputError):
        prune(where, 0)


def test_a_hot_one_can_go_and_a_broken_one_is_listed(node: Node) -> None:
    where = three(node)
    hot_copy(node.spec("h"))
    pathlib.Path(where, "s1", "manifest.json").write_text("{}")
    shutil.rmtree(os.path.join(where, "s1", "roots"))
    seen = {item["id"]: item for item in inventory(where)}
    assert not seen["h"]["sealed"] and seen["s1"]["problem"] and seen["s0"]["root_sha256"]
    assert remove(where, "h") and remove(where, "s1")


def test_a_broken_hold_holds(node: Node) -> None:
    where = three(node)
    hold(os.path.join(where, "s0"), "x", "y")
    pathlib.Path(where, "s0/holds/x").write_text("")
    with pytest.raises(ChainopsError, match="can't be read"):
        remove(where, "s0")
    with pytest.raises(InputError):
        hold(os.path.join(where, "nothing"), "x", "y")


def test_an_interrupted_removal_is_finished_by_the_next(node: Node) -> None:
    where = three(node)
    os.rename(os.path.join(where, "s0"), os.path.join(where, ".gone-s0-1"))
    assert [item["id"] for item in inventory(where)] == ["s1", "s2"]
    remove(where, "nothing")
    assert ".gone-s0-1" not in os.listdir(where)
    assert json.loads(pathlib.Path(where, "s1/seal.json").read_text())["seconds"] >= 0
