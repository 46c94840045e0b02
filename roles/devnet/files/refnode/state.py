# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chain state: balances, nonces and governance, as a pure function of the blocks."""

from __future__ import annotations

import copy
import hashlib
import typing as t

from . import canon, governance
from .tx import Rejected, units

_MODULUS = 1 << 256


def _leaf(address: str, balance: int, nonce: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{address}:{balance}:{nonce}".encode()).digest(), "big")


class State:
    """State after block ``height``. Balances are base units; ``nonces`` hold the last nonce used."""

    def __init__(self) -> None:
        self.height = -1
        self.block_hash = ""
        self.balances: dict[str, int] = {}
        self.nonces: dict[str, int] = {}
        self.governance = governance.empty()
        self.transactions = 0
        self._sum = 0
        self._governance_digest: str | None = None
        self.dirty: set[str] = set()  # addresses changed since the last save; the store clears it

    # -- reading ------------------------------------------------------------------------------------------------------------

    def balance(self, address: str) -> int:
        return self.balances.get(address, 0)

    def next_nonce(self, address: str) -> int:
        return self.nonces.get(address, -1) + 1

    def supply(self) -> int:
        return sum(self.balances.values())

    def feature(self, name: str) -> bool:
        return bool(self.governance["features"].get(name, False))

    def root(self) -> str:
        """Digest of everything. Sums the leaves' hashes, so that a block costs what it changes, not what there is."""
        if self._governance_digest is None:
            self._governance_digest = canon.digest(self.governance)
        return canon.digest({"accounts": f"{self._sum:064x}", "governance": self._governance_digest})

    # -- loading and saving -------------------------------------------------------------------------------------------------

    def load(
        self, height: int, block_hash: str, balances: dict[str, int], nonces: dict[str, int], gov: dict[str, t.Any], txs: int
    ) -> None:
        self.height, self.block_hash, self.transactions = height, block_hash, txs
        self.balances, self.nonces, self.governance = balances, nonces, gov
        self._sum = sum(_leaf(a, balances.get(a, 0), nonces.get(a, -1)) for a in balances.keys() | nonces.keys()) % _MODULUS
        self._governance_digest = None
        self.dirty = set()

    # -- writing ------------------------------------------------------------------------------------------------------------

    def _set(self, address: str, balance: int, nonce: int) -> None:
        if address in self.balances or address in self.nonces:
            self._sum -= _leaf(address, self.balance(address), self.nonces.get(address, -1))
        self.balances[address] = balance
        if nonce >= 0:
            self.nonces[address] = nonce
        self._sum = (self._sum + _leaf(address, balance, self.nonces.get(address, -1))) % _MODULUS
        self.dirty.add(address)

    def credit(self, address: str, amount: int) -> None:
        self._set(address, self.balance(address) + amount, self.nonces.get(address, -1))

    def check(self, tx: t.Mapping[str, t.Any]) -> None:
        """Can this transaction be applied now? Raises Rejected."""
        governance.check(tx)
        cost = units(tx["amount"]) + units(tx["fee"], "fee")
        expected = self.next_nonce(tx["sender"])
        if tx["nonce"] != expected:
            raise Rejected(
                "transaction_rejected", f"nonce {tx['nonce']} is not the next one ({expected})", reason="nonce", expected=expected
            )
        if cost > self.balance(tx["sender"]):
            raise Rejected(
                "transaction_rejected", "insufficient funds", reason="funds", needed=cost, available=self.balance(tx["sender"])
            )

    def apply_tx(self, tx: t.Mapping[str, t.Any], height: int, proposer: str) -> None:
        """Raises Rejected and changes nothing when the transaction is void."""
        self.check(tx)
        sender, recipient, amount, fee = tx["sender"], tx["recipient"], units(tx["amount"]), units(tx["fee"], "fee")
        self._set(sender, self.balance(sender) - amount - fee, tx["nonce"])
        if amount:
            self.credit(recipient, amount)
        if fee:
            self.credit(proposer, fee)
        if governance.kind(tx):
            governance.apply(self.governance, tx, height)
            self._governance_digest = None

    def apply_block(self, block: t.Mapping[str, t.Any]) -> None:
        """Raises Rejected half way for a void block: apply to a ``trial()`` first."""
        for tx in block["transactions"]:
            self.apply_tx(tx, block["index"], block["miner"])
        self.height, self.block_hash = block["index"], block["hash"]
        self.transactions += len(block["transactions"])

    def trial(self) -> Trial:
        return Trial(self)


class Trial(State):
    """A throw-away state on top of another: reads through, writes only to itself."""

    def __init__(self, base: State) -> None:
        super().__init__()
        self.height, self.block_hash, self.transactions = base.height, base.block_hash, base.transactions
        self.balances = Overlay(base.balances)
        self.nonces = Overlay(base.nonces)
        self._base_governance: dict[str, t.Any] | None = base.governance
        self.governance = base.governance
        self._sum = base._sum
        self._governance_digest = base._governance_digest

    def apply_tx(self, tx: t.Mapping[str, t.Any], height: int, proposer: str) -> None:
        if self._base_governance is not None and governance.kind(tx):
            self.governance, self._base_governance = copy.deepcopy(self.governance), None
        super().apply_tx(tx, height, proposer)


class Overlay(dict[str, int]):
    """A dict that falls back to another one for what it doesn't hold."""

    def __init__(self, base: t.Mapping[str, int]) -> None:
        super().__init__()
        self.base = base

    def get(self, key: str, default: t.Any = None) -> t.Any:
        return super().get(key, self.base.get(key, default))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self.base
