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


def pay(txid: str, outputs: t.Any, inputs: t.Any = None, sender: str = "COINBASE", amount: t.Any = 1e6) -> dict[str, t.Any]:
    return {"txid": txid, "sender": sender, "amount": amount, "inputs": inputs, "outputs": outputs}


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
        block(1, pay("fees", []), pay("one", [out("TXAIb", 4), out("txaiA", 5.5)], [{"txid": "reward", "vout": 0}], "TXAIa")),
    )
    assert coins.held(["TXAIA", "txaib", "nobody"]) == {"nobody": 0.0, "txaia": 5.5, "txaib": 4.0}


def test_what_a_block_made_may_be_spent_in_it() -> None:
    spend = pay("two", [out("b", 1.0)], [{"txid": "one", "vout": 0}], "a")
    assert counted(block(5, pay("one", [out("a", 1.0)]), spend)).held("ab") == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize("amount", [-1, 0, float("nan"), float("inf"), 1e31, "7", None, True, [1]])
def test_an_output_that_is_none_is_worth_nothing(amount: t.Any) -> None:
    assert counted(block(0, pay("x", [out("a", amount), "text", out("a", 2.0)]))).held("a") == {"a": 2.0}


@pytest.mark.parametrize(
    "inputs", ["x", {"txid": "x"}, ["x"], [{"txid": 1, "vout": 0}], [{"txid": "g", "vout": "0"}], [{}], None]
)
def test_what_spends_nothing_readable_pays_nothing(inputs: t.Any) -> None:
    genesis = block(0, pay("g", [out("a", 5.0)]))
    assert counted(genesis, block(1, pay("r", []), pay("y", [out("b", 5.0)], inputs, "a"))).held("ab") == {"a": 5.0, "b": 0.0}


GENESIS = block(0, pay("g", [out("a", 5.0), out("b", 3.0)]))


@pytest.mark.parametrize(
    ("tx", "held"),
    [
        # Nodes check nothing about these, whoever sends them.
        (pay("x", [out("c", 1e9)], None, "c") | {"tx_type": "trade_settlement"}, {"a": 5.0, "b": 3.0, "c": 0.0}),
        (pay("x", [out("c", 1e9)], None, "c") | {"tx_type": "coinbase"}, {"a": 5.0, "b": 3.0, "c": 0.0}),
        # Calls itself a reward, further down in the block.
        (pay("x", [out("c", 1e9)]), {"a": 5.0, "b": 3.0, "c": 0.0}),
        # Somebody else's coins, alone and beside one's own.
        (pay("x", [out("c", 5.0)], [{"txid": "g", "vout": 0}], "c"), {"a": 5.0, "b": 3.0, "c": 0.0}),
        (pay("x", [out("c", 8.0)], [{"txid": "g", "vout": 0}, {"txid": "g", "vout": 1}], "b"), {"a": 5.0, "b": 0.0, "c": 0.0}),
        # More than was spent; the same output twice.
        (pay("x", [out("c", 5.1)], [{"txid": "g", "vout": 0}], "a"), {"a": 0.0, "b": 3.0, "c": 0.0}),
        (pay("x", [out("c", 10.0)], [{"txid": "g", "vout": 0}] * 2, "a"), {"a": 0.0, "b": 3.0, "c": 0.0}),
        # A known id once more.
        (pay("g", [out("c", 5.0)], [{"txid": "g", "vout": 0}], "a"), {"a": 0.0, "b": 3.0, "c": 5.0}),
        (pay("g", [out("c", 1.0), out("c", 4.0)], [{"txid": "g", "vout": 0}], "a"), {"a": 0.0, "b": 3.0, "c": 1.0}),
    ],
)
def test_nobody_makes_coins_or_moves_those_of_others(tx: dict[str, t.Any], held: dict[str, float]) -> None:
    coins = counted(GENESIS, block(1, pay("reward", []), tx))
    assert coins.held("abc") == held
    # What was paid with nothing is nothing to pay with either.
    coins.take(block(2, pay("later", []), pay("z", [out("d", 1.0)], [{"txid": "x", "vout": 0}], "c")))
    assert coins.held("d") == {"d": 0.0}


def test_a_reward_is_worth_what_nodes_check() -> None:
    assert counted(block(1, pay("r", [out("a", 12.0)], amount=12.0))).held("a") == {"a": 12.0}
    assert counted(block(1, pay("r", [out("a", 1e9)], amount=12.0))).held("a") == {"a": 0.0}


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
        spend = pay(f"t{number}", outputs, [{"txid": txid.split("#")[0], "vout": vout}], who)
        blocks.append(block(number, pay(f"none{number}", []), spend))
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
