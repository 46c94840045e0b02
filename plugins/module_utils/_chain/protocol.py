# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a validator node is, to the rest of the collection.

An adapter knows one kind of node: how to ask it things and what its data directory means. Heights are always the index of
a block (the tip of a chain with N blocks has height N-1), whatever the chain's own API counts.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._core.errors import InputError
from .._core.http import public_url


@dataclasses.dataclass(frozen=True)
class NodeStatus:
    """One look at one node. What the chain doesn't tell is None, never a guess."""

    height: int
    tip_hash: str
    tip_time: float | None  # seconds since the epoch
    version: str | None
    release_id: str | None
    chain_id: str | None
    genesis_hash: str | None
    address: str | None  # the address this node signs with; None for an observer or where the chain doesn't tell
    peers_configured: int | None
    peers_live: int | None
    mempool: int | None
    paused: bool | None
    mining: bool | None
    healthy: bool  # what the node says of itself; never enough by itself
    issues: tuple[str, ...] = ()
    clock_offset: float | None = None  # least seconds by which the node's clock is ahead of ours (negative: behind)

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self) | {"issues": list(self.issues)}


@dataclasses.dataclass(frozen=True)
class Validator:
    """A member of the set at the tip. ``power`` is in the chain's own units; 1 each where the chain knows none."""

    address: str
    power: float
    public_key: str | None = None


@dataclasses.dataclass(frozen=True)
class Block:
    """One block as a reader served it. ``transactions`` are raw JSON objects; ``signers`` signed the block BEFORE this one."""

    height: int
    hash: str
    previous_hash: str
    time: float
    proposer: str | None
    transactions: tuple[t.Mapping[str, t.Any], ...]
    signers: tuple[str, ...] | None
    raw: t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class FeatureState:
    """What one node says of a feature. ``enabled`` is governance's switch as this node has it; ``configured`` whether its own
    configuration lets it run, ``ready`` whether it does; None where it doesn't tell."""

    name: str
    enabled: bool
    configured: bool | None = None
    ready: bool | None = None


@dataclasses.dataclass(frozen=True, order=True)
class Watermark:
    """The last thing a key signed. Ordered by height, then round, then step; ``address`` names the key."""

    height: int
    round: int = 0
    step: int = 0
    address: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a data directory means. Patterns are ``fnmatch`` globs relative to the data root, ``/`` as separator.

    ``never_restore``: keys, node identity, signing state: a restore keeps what is live.
    ``volatile``: locks, sockets, temporary files: neither copied nor restored.
    ``append_only``: files that only grow at the end while the node runs (for fast deltas).
    """

    never_restore: tuple[str, ...]
    volatile: tuple[str, ...] = ()
    append_only: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    stop_timeout: float = 60.0


class NodeClient(t.Protocol):
    """Talks to one node. Every method raises HttpError or Unreachable; none guesses."""

    api_url: str

    def status(self) -> NodeStatus: ...

    def tip_height(self) -> int:
        """The tip's height alone, in one request."""

    def block(self, height: int) -> Block:
        """Raises HttpError with status 404 for a height that isn't there."""

    def blocks(self, first: int, last: int) -> t.Iterator[Block]:
        """Blocks ``first`` to ``last`` (inclusive) in order, asked for in the cheapest way that this node has."""

    def block_hash(self, height: int) -> str: ...

    def validators(self) -> tuple[Validator, ...]: ...

    def final_height(self) -> int | None:
        """Highest height that can't be undone; None where nothing is ever final."""

    def transaction(self, txid: str) -> t.Mapping[str, t.Any] | None:
        """``{"state": "pending"|"included", "height": int|None}`` or None when the node doesn't know it."""

    def pending_transactions(self) -> tuple[t.Mapping[str, t.Any], ...] | None:
        """Whole transactions that the node holds and that are in no block yet, as it would put them into one.

        A bounded number of them, in the node's own order; None where it can't tell.
        """

    def send(self, tx: t.Mapping[str, t.Any]) -> str:
        """Submit a signed transaction; returns its txid. Accepted is not included: ask ``transaction``."""

    def nonce(self, address: str) -> int:
        """The nonce the next transaction of an address must carry (pending ones counted)."""

    def equivocations(self) -> tuple[t.Mapping[str, t.Any], ...]: ...

    def feature(self, name: str) -> FeatureState | None:
        """How this node has a feature that governance switches; None where it doesn't tell."""

    def signature_scheme(self) -> str:
        """``full-v1`` (covers everything) or ``xai-legacy`` (covers neither metadata nor tx_type)."""

    def close(self) -> None: ...


class AdminClient(t.Protocol):
    """Takes one node's API out of service and puts it back, with the operator's credentials."""

    api_url: str

    def paused(self) -> bool | None:
        """None where it can't be told."""

    def pause(self, reason: str) -> bool:
        """Refuse clients' writes and stop producing blocks; returns whether it was producing any. Twice is fine."""

    def unpause(self, reason: str, *, resume_mining: bool) -> None:
        """Put back what ``pause`` took away; produce blocks again only when it did before."""

    def close(self) -> None: ...


class ChainAdapter(t.Protocol):
    """One kind of node."""

    name: str
    layout: Layout
    confirmations: int  # blocks to wait where nothing is ever final

    def client(
        self, api_url: str, *, timeout: float = 10.0, api_key: str | None = None, admin_token: str | None = None, lanes: int = 1
    ) -> NodeClient:
        """``lanes``: connections that reading many blocks may use at once; a host is gentle to its own node, and uses one."""

    def admin(
        self, api_url: str, *, timeout: float = 10.0, api_key: str | None = None, admin_token: str | None = None
    ) -> AdminClient:
        """Raises InputError where nodes can't be taken out of service by themselves."""

    def storage_level(self, data_dir: str) -> int | None:
        """The storage format's level on disk; None where the chain records none."""

    def read_watermark(self, data_dir: str) -> Watermark | None:
        """The key's last-signed state on disk; None where the chain keeps none. Raises IntegrityError when unreadable."""

    def write_watermark(self, data_dir: str, mark: Watermark) -> None:
        """Write the last-signed file, durably, in the node's own format, keeping owner and mode."""

    def lock_holder(self, data_dir: str) -> int | None:
        """Pid of a live process that uses the directory, or None."""

    def mend(self, data_dir: str, *, dry: bool = False) -> dict[str, t.Any] | None:
        """Make what this kind of node forgets or tears when it stops, and needs, whole again; says what, None for nothing.

        Called with the node stopped, right before each start; twice is fine. ``dry`` looks whether it could, also while the node
        runs. Raises IntegrityError when the blocks can't be read: a node started like that would refuse the chain.
        """


class Named(t.Protocol):
    """A node to ask: what it is called, and where."""

    @property
    def name(self) -> str: ...

    @property
    def api_url(self) -> str: ...


def require_distinct(nodes: t.Sequence[Named]) -> None:
    """Raises InputError for no nodes, and for two of one name or one URL: one of them would not have been asked."""
    if not nodes:
        raise InputError("no nodes to ask")
    urls = [public_url(node.api_url).rstrip("/").lower() for node in nodes]
    for what, values in (("name", [node.name for node in nodes]), ("api_url", urls)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InputError(f"two nodes have one {what}: {', '.join(twice)}; each node is named and asked once")


def require_chain(name: str, known: t.Iterable[str]) -> None:
    """Raises InputError for a chain nobody wrote an adapter for."""
    names = sorted(known)
    if name not in names:
        raise InputError(f"unknown chain {name!r}; known: {', '.join(names)}", chain=name)
