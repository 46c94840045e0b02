# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import types
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused, WaitTimeout
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Wish
from ansible_collections.chainops.validator.plugins.module_utils._gateway.node import NodePause
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._gateway.test_drain import Ticks


class Node:
    """As an XAI node does: enabling is refused while it is paused, and a restart keeps the pause but not the switch."""

    api_url = "http://node"

    def __init__(self, paused: bool | None = False, mining: bool = True) -> None:
        self.is_paused, self.mining = paused, mining
        self.deaf = False
        self.orders: list[str] = []
        self.before_order: t.Callable[[], None] = lambda: None

    def status(self) -> t.Any:
        return types.SimpleNamespace(mining=self.mining)

    def paused(self) -> bool | None:
        return self.is_paused

    def pause(self, reason: str) -> bool:
        self.before_order()
        self.orders.append("pause")
        was, self.is_paused = self.mining, True
        self.mining = self.mining and self.deaf
        return was

    def unpause(self, reason: str, *, resume_mining: bool) -> None:
        self.orders.append("unpause+mine" if resume_mining else "unpause")
        self.is_paused, self.mining = False, self.mining or resume_mining

    def restart(self) -> None:
        self.mining = True

    def close(self) -> None: ...

    @property
    def stands(self) -> tuple[bool | None, bool]:
        return self.is_paused, self.mining


@pytest.fixture
def wish(tmp_path: pathlib.Path) -> Wish:
    return Wish("node:val1", None, "val1", str(tmp_path / "receipts"), "val1", "t1", 7, timeout=5.0)


def pause(node: Node, wish: Wish) -> NodePause:
    return NodePause(t.cast("t.Any", node), t.cast("t.Any", node), wish, Ticks())


@pytest.mark.parametrize(("paused", "mining", "restarts", "restored_paused"), list(itertools.product([False, True], repeat=4)))
def test_it_ends_as_it_began_whatever_happens_between(
    wish: Wish, paused: bool, mining: bool, restarts: bool, restored_paused: bool
) -> None:
    """A snapshot of a node that was paused for its drain brings the pause back; a restart brings back mining."""
    node = Node(paused, mining)
    first = pause(node, wish).out()
    assert node.stands == ((True, mining) if paused else (True, False))
    assert first["receipt"]["state"] == "drained" and first["receipt"]["before"] == {"node": {"paused": paused, "mining": mining}}
    if restarts:
        node.restart()
    if restored_paused:
        node.is_paused = True
    pause(node, wish).back()
    assert node.stands == (paused, mining)
    assert not pause(node, wish).back()["drain"], "the second time there is nothing to do"


def test_what_was_is_on_disk_before_the_node_is_touched(wish: Wish) -> None:
    node = Node()
    seen: list[t.Any] = []
    node.before_order = lambda: seen.append(json.loads((pathlib.Path(wish.receipt_dir) / "node:val1.json").read_text()))
    pause(node, wish).out()
    assert seen[0]["state"] == "draining" and seen[0]["before"] == {"node": {"paused": False, "mining": True}}


def test_pausing_again_changes_nothing_and_keeps_what_was(wish: Wish) -> None:
    node = Node()
    pause(node, wish).out()
    again = pause(node, dataclasses.replace(wish, turn_id="t2", fence_token=8)).out()
    assert again["before"] == again["after"] and node.orders == ["pause"]
    assert again["receipt"]["before"] == {"node": {"paused": False, "mining": True}}


def test_check_mode_predicts_and_leaves_no_trace(wish: Wish) -> None:
    node = Node()
    told = pause(node, wish).out(check_mode=True)
    assert told["before"] != told["after"] and node.orders == [] and not pathlib.Path(wish.receipt_dir).exists()


def test_a_node_that_goes_on_mining_is_put_back_and_it_fails(wish: Wish) -> None:
    node = Node()
    node.deaf = True
    with pytest.raises(WaitTimeout, match="it stands as before") as caught:
        pause(node, wish).out()
    assert caught.value.fields["put_back"] and node.stands == (False, True)
    assert json.loads((pathlib.Path(wish.receipt_dir) / "node:val1.json").read_text())["state"] == "active"


def test_an_older_rollout_is_refused_and_a_mute_node_is_not_touched(wish: Wish) -> None:
    node = Node()
    pause(node, wish).out()
    with pytest.raises(Refused, match="older"):
        pause(node, dataclasses.replace(wish, fence_token=6)).back()
    mute = Node(paused=None)
    with pytest.raises(InputError, match="admin token"):
        pause(mute, dataclasses.replace(wish, server="node:val2")).out()
    assert mute.orders == []
