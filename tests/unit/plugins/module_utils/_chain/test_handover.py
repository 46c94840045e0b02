# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._chain import handover
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Unreachable


class Node:
    def __init__(self, pending: t.Iterable[str] | None, included: t.Iterable[str] = (), dead: bool = False) -> None:
        self.pending = None if pending is None else set(pending)
        self.included, self.dead = set(included), dead

    def pending_transactions(self) -> t.Any:
        if self.dead:
            raise Unreachable("refused", url="x")
        return None if self.pending is None else tuple({"txid": txid} for txid in sorted(self.pending))

    def transaction(self, txid: str) -> t.Any:
        if self.dead:
            raise Unreachable("refused", url="x")
        if txid in self.included:
            return {"state": "included", "height": 1}
        return {"state": "pending", "height": None} if txid in (self.pending or ()) else None


def stranded(node: Node, *others: Node) -> list[str] | None:
    return handover.stranded(t.cast("t.Any", node), t.cast("t.Any", others))


IDS = st.sets(st.sampled_from("abcdefgh"))


@given(IDS, st.lists(st.tuples(IDS, IDS, st.booleans()), min_size=1, max_size=3))
def test_what_no_other_living_node_has_is_stranded(own: set[str], others: list[tuple[set[str], set[str], bool]]) -> None:
    nodes = [Node(pending, included, dead) for pending, included, dead in others]
    known = {txid for pending, included, dead in others if not dead for txid in pending | included}
    if own and all(dead for *dummy, dead in others):
        with pytest.raises(Unreachable, match="other nodes"):
            stranded(Node(own), *nodes)
    else:
        assert stranded(Node(own), *nodes) == sorted(own - known)


def test_what_got_into_a_block_meanwhile_is_not() -> None:
    assert stranded(Node("ab", included="a"), Node("")) == ["b"]


def test_a_node_that_cannot_tell_says_so() -> None:
    assert stranded(Node(None), Node("")) is None


def test_others_that_do_not_list_what_they_have_are_asked_for_each() -> None:
    assert stranded(Node("ab"), Node(None, included="a")) == ["b"]
