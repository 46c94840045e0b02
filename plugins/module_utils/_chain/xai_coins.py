# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds what on XAI, counted from blocks: no node is asked for a balance.

Coins are outputs of transactions, a miner's reward included, until their owner spends them. XAI nodes look at neither inputs nor
outputs of a transaction that calls itself a reward or a trade settlement, whoever sends it, so that anybody can make coins. Here
only the first transaction of a block, and those of the first block, make any; whatever else pays out more than its sender spent
pays nothing, and nobody spends what is somebody else's. What is counted like that is never more than there rightly is.

The reference node's blocks don't say what accounts began with, so that nothing can be counted there.
"""

from __future__ import annotations

import math
import typing as t

from .._core import canonical
from .._core.errors import IntegrityError
from . import xai_tx
from .protocol import Block

_Place = t.Tuple[str, int]

COINBASE = "COINBASE"
#: Coins in one output: more than any chain has, and far from where floats end.
MAX_AMOUNT = 1e30
#: Nodes add floats in orders of their own.
_SLACK = 1e-9


class Coins:
    """Fed with every block from the first on, in order. Addresses are compared in lower case."""

    def __init__(self, state: t.Any = None) -> None:
        """``state`` is what an earlier one's ``state`` was. Raises IntegrityError for anything else."""
        self._unspent: dict[_Place, tuple[str, float]] = {}
        try:
            for txid, vout, address, amount in state or ():
                self._unspent[(str(txid), int(vout))] = (str(address), float(amount))
        except (TypeError, ValueError) as exc:
            raise IntegrityError(f"not a list of unspent outputs: {exc}") from exc

    def take(self, block: Block) -> None:
        """One more block. What can't be read in it pays nothing and spends nothing."""
        for place, tx in enumerate(block.transactions):
            txid, sender = tx.get("txid"), tx.get("sender")
            if not isinstance(txid, str) or not isinstance(sender, str):
                continue
            made = [_output(output) for output in _list(tx, "outputs")]
            paid = math.fsum(amount for _address, amount in made)
            if sender == COINBASE and (place == 0 or block.height == 0):
                covered = _number(tx.get("amount"))  # which nodes hold to the block's reward and fees
            else:
                covered = self._spend(tx, sender.lower())
            if paid <= covered * (1 + _SLACK):
                for number, (address, amount) in enumerate(made):
                    if amount > 0:
                        self._unspent.setdefault((txid, number), (address, amount))

    def _spend(self, tx: t.Mapping[str, t.Any], sender: str) -> float:
        """Take away what a transaction spends of its sender's own; how much that is."""
        amounts: list[float] = []
        for spent in _list(tx, "inputs"):
            where = (spent.get("txid"), spent.get("vout")) if isinstance(spent, dict) else (None, None)
            if isinstance(where[0], str) and isinstance(where[1], int):
                address, amount = self._unspent.get(t.cast(_Place, where), ("", 0.0))
                if address == sender:
                    amounts.append(amount)
                    del self._unspent[t.cast(_Place, where)]
        return math.fsum(amounts)

    def held(self, addresses: t.Iterable[str]) -> dict[str, float]:
        """What each of them holds, by its lower-case spelling."""
        wanted: dict[str, list[float]] = {address.lower(): [] for address in addresses}
        for address, amount in self._unspent.values():
            if address in wanted:
                wanted[address].append(amount)
        return {address: math.fsum(amounts) for address, amounts in sorted(wanted.items())}

    def state(self) -> list[list[t.Any]]:
        """To go on from later; the same for the same blocks. One entry for each unspent output, some 150 bytes as JSON."""
        return [[txid, vout, address, amount] for (txid, vout), (address, amount) in sorted(self._unspent.items())]

    def digest(self) -> str:
        return canonical.digest(self.state())


def counter(scheme: str | None, state: t.Any = None) -> Coins | None:
    """Where blocks of this signature scheme tell who holds what; None where they don't."""
    return Coins(state) if scheme == xai_tx.LEGACY else None


def _output(raw: t.Any) -> tuple[str, float]:
    """Address in lower case and amount; nobody and 0 for what is none."""
    address, amount = (raw.get("address"), raw.get("amount")) if isinstance(raw, dict) else (None, None)
    worth = _number(amount)
    return (address.lower(), worth) if isinstance(address, str) and worth else ("", 0.0)


def _number(value: t.Any) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < MAX_AMOUNT
    return float(value) if good else 0.0


def _list(tx: t.Mapping[str, t.Any], name: str) -> list[t.Any]:
    value = tx.get(name)
    return value if isinstance(value, list) else []
