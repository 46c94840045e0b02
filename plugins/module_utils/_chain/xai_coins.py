# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds what on XAI, counted from blocks: no node is asked for a balance.

Coins are outputs of transactions, a miner's reward included, until an input names them. The reference node's blocks don't say
what accounts began with, so that nothing can be counted there.
"""

from __future__ import annotations

import math
import typing as t

from .._core import canonical
from .._core.errors import IntegrityError
from . import xai_tx
from .protocol import Block

_Place = t.Tuple[str, int]


class Coins:
    """Fed with every block from the first on, in order. Addresses are compared in lower case.

    An output that can't be read is worth nothing to anybody. An input that can't be read is an IntegrityError: what it spends
    would go on counting.
    """

    def __init__(self, state: t.Any = None) -> None:
        """``state`` is what an earlier one's ``state`` was. Raises IntegrityError for anything else."""
        self._unspent: dict[_Place, tuple[str, float]] = {}
        try:
            for txid, vout, address, amount in state or ():
                self._unspent[(str(txid), int(vout))] = (str(address), float(amount))
        except (TypeError, ValueError) as exc:
            raise IntegrityError(f"not a list of unspent outputs: {exc}") from exc

    def take(self, block: Block) -> None:
        """One more block. Outputs first: a later transaction of the same block may spend them."""
        for tx in block.transactions:
            for place, output in enumerate(_list(tx, "outputs")):
                address, amount = (output.get("address"), output.get("amount")) if isinstance(output, dict) else (None, None)
                number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
                if isinstance(address, str) and number and 0 < t.cast(float, amount) < math.inf:
                    self._unspent[(str(tx.get("txid")), place)] = (address.lower(), float(t.cast(float, amount)))
        for tx in block.transactions:
            for spent in _list(tx, "inputs"):
                txid, vout = (spent.get("txid"), spent.get("vout")) if isinstance(spent, dict) else (None, None)
                if not isinstance(txid, str) or not isinstance(vout, int):
                    raise IntegrityError(f"block {block.height} spends something that can't be read: {str(spent)[:80]}")
                self._unspent.pop((txid, vout), None)

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


def _list(tx: t.Mapping[str, t.Any], name: str) -> list[t.Any]:
    value = tx.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise IntegrityError(f"{name} of transaction {str(tx.get('txid'))[:12]} are not a list")
    return value
