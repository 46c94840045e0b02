# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_coins, xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import Block
from ansible_collections.chainops.validator.plugins.module_utils._chain.xai_coins import Coins
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import IntegrityError


def block(height: int, *txs: dict[str, t.Any]) -> Block:
    return Block(height, f"h{height}", f"h{height - 1}", 0.0, None, txs, None, {})


def pay(txid: str, outputs: t.Any, inputs: t.Any = None) -> dict[str, t.Any]:
    return {"txid": txid, "inputs": inputs, "outputs": outputs}


def out(address: str, amount: t.Any) -> dict[str, t.Any]:
    return {"address": address, "amount": amount}


def counted(*blocks: Block) -> Coins:
    coins = Coins()
    for one in blocks:
        coins.take(one)
    return coins


def test_coins_come_from_outputs_and_go_with_inputs() -> None:
    coins = counted(
        block(0, pay("reward", [out("TXAIa", 10.0)])),
        block(1, pay("one", [out("TXAIb", 4), out("txaiA", 5.5)], [{"txid": "reward", "vout": 0}])),
    )
    assert coins.held(["TXAIA", "txaib", "nobody"]) == {"nobody": 0.0, "txaia": 5.5, "txaib": 4.0}


def test_an_output_may_be_spent_in_its_own_block_whatever_the_order() -> None:
    spend = pay("two", [out("b", 1.0)], [{"txid": "one", "vout": 0}])
    assert counted(block(0, spend, pay("one", [out("a", 1.0)]))).held("ab") == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize("amount", [-1, 0, float("nan"), float("inf"), "7", None, True, [1]])
def test_an_output_that_is_none_is_worth_nothing(amount: t.Any) -> None:
    assert counted(block(0, pay("x", [out("a", amount), "text", out("a", 2.0)]))).held("a") == {"a": 2.0}


@pytest.mark.parametrize("inputs", ["x", {"txid": "x"}, ["x"], [{"txid": 1, "vout": 0}], [{"txid": "x", "vout": "0"}], [{}]])
def test_what_spends_something_unreadable_is_not_passed_over(inputs: t.Any) -> None:
    with pytest.raises(IntegrityError, match=r"can't be read|not a list"):
        counted(block(0, pay("y", [], inputs)))


def test_only_blocks_of_xai_tell() -> None:
    assert xai_coins.counter(xai_tx.FULL) is None
    assert isinstance(xai_coins.counter(xai_tx.LEGACY), Coins)


@pytest.mark.parametrize("state", [5, [["x"]], [["x", 0, "a", "much"]], "text"])
def test_a_state_that_is_none_is_refused(state: t.Any) -> None:
    with pytest.raises(IntegrityError, match="unspent outputs"):
        Coins(state)


MOVES = st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcd"), st.integers(1, 64)), max_size=40)


@given(MOVES, st.integers(0, 40))
def test_nothing_is_lost_on_the_way_nor_by_going_on_later(moves: list[tuple[int, str, int]], cut: int) -> None:
    """Against balances kept by hand: each move spends one unspent output and gives change; the first outputs are rewards."""
    unspent: list[tuple[str, str, float]] = [(f"r{n}", "abcd"[n % 4], 64.0) for n in range(10)]
    blocks = [block(0, *(pay(txid, [out(who, amount)]) for txid, who, amount in unspent))]
    spendable = {txid: (who, amount, 0) for txid, who, amount in unspent}
    balance = dict.fromkeys("abcd", 0.0)
    for who, amount, _vout in spendable.values():
        balance[who] += amount
    for number, (which, to, amount) in enumerate(moves, 1):
        txid = f"r{which}" if f"r{which}" in spendable else next(iter(spendable))
        who, whole, vout = spendable.pop(txid)
        sent = min(float(amount), whole)
        outputs = [out(to, sent), *([out(who, whole - sent)] if whole > sent else [])]
        blocks.append(block(number, pay(f"t{number}", outputs, [{"txid": txid.split("#")[0], "vout": vout}])))
        spendable[f"t{number}#0"] = (to, sent, 0)
        if whole > sent:
            spendable[f"t{number}#1"] = (who, whole - sent, 1)
        balance[who] -= sent
        balance[to] += sent
    coins = counted(*blocks)
    assert coins.held("abcd") == balance
    assert sum(coins.held("abcd").values()) == 640.0
    later = Coins(canonical.loads(canonical.dumps(counted(*blocks[:cut]).state()), "state"))
    for one in blocks[cut:]:
        later.take(one)
    assert (later.digest(), later.held("abcd")) == (coins.digest(), balance)
