# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks, commits and the validator set.

A block's hash covers all of it: every transaction whole (through ``merkle_root``), the commit of the block before
(``last_commit``) and the state before it (``state_root``). A commit is the set of precommits of one round; it is good when
their signers hold more than two thirds of the voting power.
"""

from __future__ import annotations

import hashlib
import math
import typing as t

from . import canon, keys, tx
from .state import State

ZERO = "0" * 64
PROPOSE, PREVOTE, PRECOMMIT = 1, 2, 3
MAX_TRANSACTIONS = 2000
FIELDS = frozenset(
    (
        "index",
        "version",
        "chain_id",
        "previous_hash",
        "hash",
        "timestamp",
        "merkle_root",
        "miner",
        "round",
        "transactions",
        "last_commit",
        "difficulty",
        "nonce",
        "state_root",
    )
)


class Invalid(Exception):
    """A block, commit or message that breaks a rule."""


class Genesis:
    """The document every node of a network starts from. Raises Invalid for a bad one."""

    def __init__(self, document: t.Any) -> None:
        self.document = document
        try:
            self.chain_id: str = document["chain_id"]
            self.timestamp = float(document["timestamp"])
            members = [(m["address"], m["public_key"], m["voting_power"]) for m in document["validators"]]
            self.accounts: dict[str, int] = {a: int(v) for a, v in document["accounts"].items()}
            self.faucet_amount = float(document.get("faucet_amount", 0.0))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise Invalid(f"genesis document lacks or garbles {exc}") from exc
        if not isinstance(self.chain_id, str) or not self.chain_id:
            raise Invalid("genesis: chain_id must be a non-empty text")
        self.validators = ValidatorSet(members)
        if sum(self.accounts.values()) >= 2**62 or min(self.accounts.values(), default=0) < 0:
            raise Invalid("genesis: balances must not be negative and must sum to less than 2^62 base units")

    def state(self) -> State:
        state = State()
        for address, balance in sorted(self.accounts.items()):
            state.credit(address, balance)
        block = self.block()
        state.height, state.block_hash = 0, block["hash"]
        return state

    def block(self) -> dict[str, t.Any]:
        """Block 0. Its merkle_root is the digest of the genesis document."""
        block: dict[str, t.Any] = {
            "index": 0,
            "version": 1,
            "chain_id": self.chain_id,
            "previous_hash": ZERO,
            "timestamp": self.timestamp,
            "merkle_root": canon.digest(self.document),
            "miner": "COINBASE",
            "round": 0,
            "transactions": [],
            "last_commit": commit(-1, 0, ZERO, []),
            "difficulty": 0,
            "nonce": 0,
            "state_root": ZERO,
        }
        block["hash"] = block_hash(block)
        return block


class ValidatorSet:
    """Members with voting power and the order in which they propose: smooth weighted round robin, computed once."""

    def __init__(self, members: t.Sequence[tuple[str, str, int]]) -> None:
        if not members:
            raise Invalid("genesis: there must be at least one validator")
        self.members = sorted(members)
        for address, public_key, power in self.members:
            if not isinstance(power, int) or isinstance(power, bool) or not 0 < power < 10**12:
                raise Invalid(f"genesis: voting power of {address} must be a whole number above 0")
            if keys.address_of(public_key) != address:
                raise Invalid(f"genesis: {address} is not the address of its public key")
        self.keys = {address: public_key for address, public_key, _power in self.members}
        self.powers = {address: power for address, _key, power in self.members}
        if len(self.keys) != len(self.members):
            raise Invalid("genesis: a validator is listed twice")
        self.total = sum(self.powers.values())
        self._schedule = self._rotation()

    def _rotation(self) -> list[str]:
        divisor = math.gcd(*self.powers.values())
        weights = {address: power // divisor for address, power in self.powers.items()}
        while sum(weights.values()) > 4096:
            weights = {address: max(1, weight // 2) for address, weight in weights.items()}
        total, credit, order = sum(weights.values()), dict.fromkeys(weights, 0), []
        for _unused in range(total):
            for address, weight in weights.items():
                credit[address] += weight
            chosen = max(sorted(credit), key=lambda a: credit[a])
            credit[chosen] -= total
            order.append(chosen)
        return order

    def proposer(self, height: int, round_: int) -> str:
        return self._schedule[(height + round_) % len(self._schedule)]

    def power_of(self, addresses: t.Iterable[str]) -> int:
        return sum(self.powers.get(address, 0) for address in set(addresses))

    def quorum(self, addresses: t.Iterable[str]) -> bool:
        """More than two thirds of the power."""
        return self.power_of(addresses) * 3 > self.total * 2

    def third(self, addresses: t.Iterable[str]) -> bool:
        """More than one third of the power: at least one of them is honest."""
        return self.power_of(addresses) * 3 > self.total


def commit(height: int, round_: int, hash_: str, signatures: list[dict[str, str]]) -> dict[str, t.Any]:
    return {"height": height, "round": round_, "block_hash": hash_, "signatures": sorted(signatures, key=lambda s: s["address"])}


def merkle_root(transactions: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """SHA-256 tree over the transactions' canonical JSON; an odd node moves up unpaired. Leaves and nodes are told apart."""
    level = [hashlib.sha256(b"\x00" + canon.dumps(entry).encode("ascii")).digest() for entry in transactions]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()


def block_hash(block: t.Mapping[str, t.Any]) -> str:
    return canon.digest({name: value for name, value in block.items() if name not in ("hash", "transactions")})


def vote_message(chain_id: str, height: int, round_: int, step: int, hash_: str) -> bytes:
    """What a prevote or precommit signs. An empty hash is a vote for no block."""
    return canon.dumps({"chain_id": chain_id, "height": height, "round": round_, "step": step, "block_hash": hash_}).encode(
        "ascii"
    )


def proposal_message(chain_id: str, height: int, round_: int, valid_round: int, hash_: str) -> bytes:
    return canon.dumps(
        {
            "chain_id": chain_id,
            "height": height,
            "round": round_,
            "step": PROPOSE,
            "block_hash": hash_,
            "valid_round": valid_round,
        }
    ).encode("ascii")


def check_commit(value: t.Any, genesis: Genesis, height: int, hash_: str) -> None:
    """Raises Invalid unless the commit finalises block ``hash_`` at ``height``. Block 0 needs no signatures."""
    if not isinstance(value, dict) or set(value) != {"height", "round", "block_hash", "signatures"}:
        raise Invalid(f"commit for height {height} is malformed")
    if value["height"] != height or value["block_hash"] != hash_:
        raise Invalid(f"commit names height {value['height']} {str(value['block_hash'])[:12]}, not {height} {hash_[:12]}")
    round_, entries = value["round"], value["signatures"]
    if not isinstance(round_, int) or isinstance(round_, bool) or round_ < 0 or not isinstance(entries, list):
        raise Invalid(f"commit for height {height} is malformed")
    if height == 0:
        if entries or round_:
            raise Invalid("the commit of block 0 must be empty")
        return
    addresses = [entry.get("address") if isinstance(entry, dict) else None for entry in entries]
    if addresses != sorted({a for a in addresses if isinstance(a, str)}):
        raise Invalid(f"commit for height {height}: signers are not sorted and unique")
    message = vote_message(genesis.chain_id, height, round_, PRECOMMIT, hash_)
    for entry in entries:
        key = genesis.validators.keys.get(entry["address"])
        if key is None or set(entry) != {"address", "signature"} or not isinstance(entry["signature"], str):
            raise Invalid(f"commit for height {height}: {entry['address']} is not a validator")
        if not keys.ed_verify(key, message, entry["signature"]):
            raise Invalid(f"commit for height {height}: bad signature of {entry['address']}")
    if not genesis.validators.quorum(t.cast("list[str]", addresses)):
        raise Invalid(f"commit for height {height}: its signers hold no more than two thirds of the power")


def build(
    genesis: Genesis,
    state: State,
    *,
    proposer: str,
    round_: int,
    timestamp: float,
    transactions: list[dict[str, t.Any]],
    last_commit: dict[str, t.Any],
    version: int,
) -> dict[str, t.Any]:
    """The next block on top of ``state``."""
    block: dict[str, t.Any] = {
        "index": state.height + 1,
        "version": version,
        "chain_id": genesis.chain_id,
        "previous_hash": state.block_hash,
        "timestamp": timestamp,
        "merkle_root": merkle_root(transactions),
        "miner": proposer,
        "round": round_,
        "transactions": transactions,
        "last_commit": last_commit,
        "difficulty": 0,
        "nonce": 0,
        "state_root": state.root(),
    }
    block["hash"] = block_hash(block)
    return block


def check_block(block: t.Any, genesis: Genesis, state: State, parent_time: float, versions: t.Collection[int]) -> State:
    """Full validation on top of ``state``; returns the trial state after the block. Raises Invalid."""
    if not isinstance(block, dict) or set(block) != FIELDS or not isinstance(block["transactions"], list):
        raise Invalid("block is malformed")
    if block["index"] != state.height + 1 or block["previous_hash"] != state.block_hash:
        raise Invalid(f"block {block['index']} does not follow block {state.height}")
    if block["version"] not in versions:
        raise Invalid(f"block version {block['version']} is not allowed here (allowed: {sorted(versions)})")
    if block["chain_id"] != genesis.chain_id or block["difficulty"] != 0 or block["nonce"] != 0:
        raise Invalid("block is of another chain")
    stamp = block["timestamp"]
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)) or not parent_time < stamp < 2**40:
        raise Invalid("block's time does not advance")
    round_ = block["round"]
    if not isinstance(round_, int) or isinstance(round_, bool) or round_ < 0:
        raise Invalid("block's round is malformed")
    if block["miner"] != genesis.validators.proposer(block["index"], round_):
        raise Invalid(f"{block['miner']} is not the proposer of height {block['index']} round {round_}")
    if len(block["transactions"]) > MAX_TRANSACTIONS:
        raise Invalid("block holds too many transactions")
    try:
        if block["merkle_root"] != merkle_root(block["transactions"]) or block["hash"] != block_hash(block):
            raise Invalid(f"block {block['index']}: hash or merkle_root does not match its content")
        if block["state_root"] != state.root():
            raise Invalid(f"block {block['index']} was made on another state than ours")
        check_commit(block["last_commit"], genesis, state.height, state.block_hash)
        for entry in block["transactions"]:
            tx.check_complete(entry, genesis.chain_id)
        after = state.trial()
        after.apply_block(block)
    except tx.Rejected as exc:
        raise Invalid(f"block {block['index']} holds a void transaction: {exc.message}") from exc
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise Invalid(f"block is malformed: {exc}") from exc
    return after
