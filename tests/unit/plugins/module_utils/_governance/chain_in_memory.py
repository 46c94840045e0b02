# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A chain in memory, with real keys and real signatures, and nodes that serve it truthfully or not."""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import Block, NodeStatus
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError
from ansible_collections.chainops.validator.plugins.module_utils._governance.signing import Key

CHAIN_ID = "unit-1"
ID = "upgrade-2.0.0"


@functools.cache
def key(number: int) -> Key:
    return Key(int.from_bytes(hashlib.sha256(f"key {number}".encode()).digest(), "big") % 2**250 + 1)


def address(number: int) -> str:
    return key(number).address()


def payload(**changes: t.Any) -> dict[str, t.Any]:
    base = {
        "format": "chainops.upgrade/1",
        "chain_id": CHAIN_ID,
        "release": {"id": "2.0.0", "level": 2, "artifacts": {"x86_64": "ab" * 32}},
        "migrations": [{"id": "0002-utxo-db", "direction": "forward", "from_level": 1, "to_level": 2}],
        "snapshot": {"required": True},
        "target": {"module": "storage"},
        "activation_height": 0,
        "risk": "low",
        "reports": {"api": None, "security": None, "monitoring": None},
        "links": {"code": "https://example.org/code", "documents": []},
    }
    return {**base, **changes}


def proposal(proposal_id: str = ID, content: t.Any = None, kind: str = "software_upgrade") -> dict[str, t.Any]:
    return {
        "type": "governance_proposal",
        "proposal_id": proposal_id,
        "title": "Release 2.0.0",
        "description": "The new storage",
        "proposal_type": kind,
        "submitter_voting_power": 1.0,
        "proposal_payload": payload() if content is None else content,
    }


def vote(word: str = "yes", power: t.Any = 20.0, proposal_id: str = ID) -> dict[str, t.Any]:
    return {"type": "governance_vote", "proposal_id": proposal_id, "vote": word, "voting_power": power}


def review(approved: bool = True, power: t.Any = 20.0, proposal_id: str = ID) -> dict[str, t.Any]:
    return {"type": "code_review", "proposal_id": proposal_id, "approved": approved, "comments": "", "voting_power": power}


def implementation(approved: bool = True, proposal_id: str = ID) -> dict[str, t.Any]:
    return {"type": "implementation_vote", "proposal_id": proposal_id, "approved": approved}


def execution(content: t.Any = None, proposal_id: str = ID) -> dict[str, t.Any]:
    return {
        "type": "proposal_execution",
        "proposal_id": proposal_id,
        "proposal_payload": payload() if content is None else content,
    }


def rollback(proposal_id: str = ID) -> dict[str, t.Any]:
    return {"type": "rollback_change", "proposal_id": proposal_id, "original_proposal_id": proposal_id}


class Chain:
    """Blocks, and what is sent goes into the next one."""

    def __init__(self, chain_id: str | None = CHAIN_ID, scheme: str = xai_tx.FULL) -> None:
        self.chain_id = chain_id
        self.scheme = scheme
        self.nonces: dict[int, int] = {}
        self.blocks: list[dict[str, t.Any]] = []
        self.pending: list[dict[str, t.Any]] = []
        self.shows_pending = True  # over HTTP
        self.mine()

    def sign(self, who: int, metadata: dict[str, t.Any], **fields: t.Any) -> dict[str, t.Any]:
        nonce = self.nonces.get(who, 0)
        self.nonces[who] = nonce + 1
        draft = xai_tx.draft(
            public_key=key(who).public_key,
            nonce=nonce,
            timestamp=1000.0 + len(self.blocks),
            recipient=address(who),
            metadata=metadata,
            **fields,
        )
        return xai_tx.signed(draft, self.scheme, self.chain_id, key(who).sign)

    def mine(self, *txs: dict[str, t.Any]) -> int:
        """One block; its height."""
        previous = self.blocks[-1]["hash"] if self.blocks else "0" * 64
        raw: dict[str, t.Any] = {"index": len(self.blocks), "previous_hash": previous, "chain": self.chain_id}
        raw["hash"] = canonical.digest({**raw, "txids": [tx["txid"] for tx in txs]})
        self.blocks.append({**raw, "transactions": list(txs), "timestamp": 1000.0 + len(self.blocks)})
        return raw["index"]

    def act(self, *acts: tuple[int, dict[str, t.Any]]) -> int:
        """A block with signed transactions of (who, metadata)."""
        return self.mine(*(self.sign(who, metadata) for who, metadata in acts))

    def hold(self, *acts: tuple[int, dict[str, t.Any]]) -> list[dict[str, t.Any]]:
        """Signed transactions of (who, metadata), as nodes hold them before they are mined."""
        self.pending.extend(self.sign(who, metadata) for who, metadata in acts)
        return self.pending[-len(acts) :]

    def mine_pending(self, rewrite: t.Callable[[dict[str, t.Any]], None] | None = None) -> int:
        """A block with what is held, which a relay may have rewritten; its height."""
        txs, self.pending = copy.deepcopy(self.pending), []
        for tx in txs if rewrite is not None else ():
            rewrite(tx)
        return self.mine(*txs)

    def submit(self, content: t.Any = None) -> None:
        self.act((9, proposal(content=content)))

    def pass_votes(self) -> None:
        self.act(*((who, vote()) for who in range(5)))

    def pass_reviews(self) -> None:
        self.act(*((who, review()) for who in range(5)))

    def pass_implementation(self) -> None:
        self.act(*((who, implementation()) for who in range(5)))

    def approve(self, content: t.Any = None) -> None:
        """A proposal all the way to implementation_approved."""
        self.submit(content)
        self.pass_votes()
        self.pass_reviews()
        self.pass_implementation()

    def client(self, **behaviour: t.Any) -> Client:
        return Client(self, **behaviour)


class Client:
    """A node that serves the chain. ``lie`` changes a block's raw copy, and ``holds`` what it shows as pending (None: it has no
    such route); ``height`` and ``final`` are what it claims."""

    def __init__(
        self,
        chain: Chain,
        *,
        lie: t.Callable[[dict[str, t.Any]], None] | None = None,
        height: int | None = None,
        final: bool = True,
        behind: int = 0,
        stall: threading.Event | None = None,
        error: Exception | None = None,
        validator: str | None = None,
        holds: t.Callable[[list[dict[str, t.Any]]], list[dict[str, t.Any]] | None] | None = None,
    ) -> None:
        self.api_url = "http://node"
        self.chain = chain
        self.lie = lie
        self.claimed = height
        self.is_final = final
        self.behind = behind
        self.stall = stall
        self.error = error
        self.validator = validator
        self.holds = holds
        self.served: list[int] = []
        self.sent: list[dict[str, t.Any]] = []
        self.closed = False
        self.mine_at = 1  # every n-th transaction sent gets into a block
        self.refuse: HttpError | None = None

    def _answer(self) -> None:
        if self.stall is not None:
            self.stall.wait(30)
        if self.error is not None:
            raise self.error

    def tip(self) -> int:
        return self.claimed if self.claimed is not None else len(self.chain.blocks) - 1 - self.behind

    def status(self) -> NodeStatus:
        self._answer()
        return NodeStatus(
            height=self.tip(), tip_hash="", tip_time=None, version=None, release_id=None, chain_id=self.chain.chain_id,
            genesis_hash=None, address=self.validator, peers_configured=None, peers_live=None, mempool=None, paused=None,
            mining=None, healthy=True,
        )  # fmt: skip

    def tip_height(self) -> int:
        self._answer()
        return self.tip()

    def pending_transactions(self) -> tuple[t.Mapping[str, t.Any], ...] | None:
        self._answer()
        held: list[dict[str, t.Any]] | None = copy.deepcopy(self.chain.pending)
        if self.holds is not None and held is not None:
            held = self.holds(held)
        return None if held is None else tuple(held)

    def block(self, height: int) -> Block:
        self._answer()
        self.served.append(height)
        if height >= len(self.chain.blocks) - self.behind:
            raise HttpError("no such block", url=self.api_url, status=404, body="")
        raw = copy.deepcopy(self.chain.blocks[height])
        if self.lie is not None:
            self.lie(raw)
        return Block(
            raw["index"], raw["hash"], raw["previous_hash"], raw["timestamp"], None, tuple(raw["transactions"]), None, raw
        )

    def blocks(self, first: int, last: int) -> t.Iterator[Block]:
        return (self.block(height) for height in range(first, last + 1))

    def block_hash(self, height: int) -> str:
        return self.block(height).hash

    def validators(self) -> tuple[t.Any, ...]:
        return ()

    def final_height(self) -> int | None:
        self._answer()
        return self.tip() if self.is_final else None

    def transaction(self, txid: str) -> None:
        return None

    def send(self, tx: t.Mapping[str, t.Any]) -> str:
        if self.refuse is not None:
            raise self.refuse
        self.sent.append(dict(tx))
        if len(self.sent) % self.mine_at == 0:
            self.chain.mine(dict(tx))
        return str(tx["txid"])

    def nonce(self, who: str) -> int:
        return sum(tx["sender"] == who for block in self.chain.blocks for tx in block["transactions"])

    def equivocations(self) -> tuple[t.Any, ...]:
        return ()

    def feature(self, name: str) -> None:
        return None

    def signature_scheme(self) -> str:
        self._answer()
        return self.chain.scheme

    def close(self) -> None:
        self.closed = True
