# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers: gossip of votes, proposals and transactions, catching up, and repair of what got lost on the way."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import secrets
import time
import typing as t

from . import tx
from .block import Invalid
from .chain import Chain
from .consensus import Consensus
from .web import Client, Unreachable

log = logging.getLogger("refnode.network")

BATCH = 100  # blocks asked for at once
QUEUE = 500  # messages kept for a peer that is away
PING = 0.5  # seconds


class Peer:
    """One configured peer."""

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        self.url = self.client.url
        self.queue: collections.deque[dict[str, t.Any]] = collections.deque(maxlen=QUEUE)
        self.wake = asyncio.Event()
        self.connected_at: float | None = None
        self.seen = 0.0
        self.height = -1
        self.address: str | None = None
        self.wrong_chain = False
        self.failures = 0

    @property
    def live(self) -> bool:
        return self.connected_at is not None and not self.wrong_chain

    def heard(self, body: t.Mapping[str, t.Any], genesis_hash: str) -> None:
        self.wrong_chain = body.get("genesis_hash") != genesis_hash
        self.seen = time.time()
        self.connected_at = self.connected_at or self.seen
        self.failures = 0
        if not self.wrong_chain and isinstance(body.get("height"), int):
            self.height = body["height"]
            self.address = body.get("address")

    def lost(self) -> None:
        self.connected_at = None
        self.failures += 1


class Network:
    """All peers of one node. ``follow`` False: neither catches up nor listens (used to misbehave)."""

    def __init__(self, chain: Chain, urls: t.Sequence[str], address: str | None) -> None:
        self.chain, self.address = chain, address
        self.genesis_hash = chain.genesis.block()["hash"]
        self.node_id = secrets.token_hex(8)  # of this process: how a node recognises its own URL among its peers
        self.peers = [Peer(url) for url in dict.fromkeys(url.rstrip("/") for url in urls)]
        self.consensus: Consensus | None = None
        self.follow = True
        self.stall_at: int | None = None
        self.synced = asyncio.Event()
        self.sent = self.received = 0
        self.dials_failed = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._kick = asyncio.Event()
        self._want = False
        self._behind_since: float | None = None
        self._last_commit = time.monotonic()
        self.on_fatal: t.Callable[[Exception], None] = lambda exc: None

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._talk(peer)) for peer in self.peers]
        self._tasks += [
            asyncio.create_task(self._guard(self._sync_loop())),
            asyncio.create_task(self._guard(self._repair_loop())),
        ]

    async def _guard(self, loop: t.Coroutine[t.Any, t.Any, None]) -> None:
        try:
            await loop
        except Exception as exc:
            log.critical("network task failed: %s", exc, exc_info=True)
            self.on_fatal(exc)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.client.close()

    def add(self, url: str) -> bool:
        """A peer told by the operator. False when it is known."""
        peer = Peer(url)
        if any(peer.url == known.url for known in self.peers):
            return False
        self.peers.append(peer)
        self._tasks.append(asyncio.create_task(self._talk(peer)))
        return True

    # -- facts --------------------------------------------------------------------------------------------------------------

    def live(self) -> int:
        return sum(1 for peer in self.peers if peer.live)

    def best(self) -> int:
        """Highest tip known in the network."""
        return max([self.chain.height, *(peer.height for peer in self.peers if peer.live)])

    def greeting(self) -> dict[str, t.Any]:
        return {"genesis_hash": self.genesis_hash, "height": self.chain.height, "address": self.address, "node_id": self.node_id}

    # -- gossip -------------------------------------------------------------------------------------------------------------

    def broadcast(self, message: dict[str, t.Any]) -> None:
        for peer in self.peers:
            peer.queue.append(message)
            peer.wake.set()

    async def _talk(self, peer: Peer) -> None:
        """Send what is queued as soon as it is there, a greeting when there is nothing."""
        while True:
            if not peer.queue:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING):
                        await peer.wake.wait()
            peer.wake.clear()
            batch = [peer.queue.popleft() for _unused in range(min(len(peer.queue), 200))]
            try:
                status, body = await peer.client.request(
                    "POST", "/p2p/messages", {**self.greeting(), "messages": batch}, timeout=5.0
                )
                if not isinstance(body, dict):
                    raise Unreachable(f"{peer.url} answers {status}, not as a node does")
                if body.get("node_id") == self.node_id:
                    self.peers.remove(peer)
                    return
                peer.heard(body, self.genesis_hash)
                self.sent += len(batch)
                if peer.height > self.chain.height:
                    self._kick.set()
            except Unreachable:
                if peer.connected_at is not None:
                    log.info("lost peer %s", peer.url)
                peer.lost()
                self.dials_failed += 1
                peer.queue.extendleft(
                    reversed([m for m in batch if m.get("height", self.chain.height) >= self.chain.height][:200])
                )
                await asyncio.sleep(min(0.1 * peer.failures, 0.5))

    def hear(self, body: t.Any) -> dict[str, t.Any]:
        """A peer's ``POST /p2p/messages``. Raises ValueError for what is no such body."""
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise ValueError("messages must be a list")
        if body.get("genesis_hash") == self.genesis_hash and self.follow and self.consensus is not None:
            for message in body["messages"]:
                self.received += 1
                if isinstance(message, dict) and message.get("type") == "evidence":
                    self.consensus.receive(message.get("first"))
                    self.consensus.receive(message.get("second"))
                else:
                    self.consensus.receive(message)
            if isinstance(body.get("height"), int) and body["height"] > self.chain.height:
                self._kick.set()
        return self.greeting()

    async def _ask_all(self, method: str, path: str, value: t.Any = None, timeout: float = 1.0) -> list[tuple[Peer, int, t.Any]]:
        async def ask(peer: Peer) -> tuple[Peer, int, t.Any] | None:
            try:
                return (peer, *await peer.client.request(method, path, value, timeout=timeout, connect=min(timeout, 0.5)))
            except Unreachable:
                return None

        answers = await asyncio.gather(*(ask(peer) for peer in self.peers))
        return [answer for answer in answers if answer is not None]

    # -- transactions -------------------------------------------------------------------------------------------------------

    async def spread(self, entry: dict[str, t.Any]) -> int:
        """Hand a transaction to every peer; returns how many have it now."""
        answers = await self._ask_all("POST", "/p2p/tx", {"genesis_hash": self.genesis_hash, "transactions": [entry]})
        return sum(1 for _peer, status, body in answers if status == 200 and isinstance(body, dict) and body.get("have") == 1)

    def take(self, entries: t.Any) -> int:
        """Transactions from a peer; returns how many this node has now. Bad ones are dropped."""
        have = 0
        for entry in entries if isinstance(entries, list) else []:
            try:
                self.chain.mempool.add(entry)
                have += 1
            except tx.Rejected as exc:
                if exc.context.get("reason") == "duplicate":
                    have += 1
                elif exc.context.get("reason") == "nonce" and entry["nonce"] > exc.context["expected"]:
                    have += 1 if self.chain.mempool.park(entry) else 0
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return have

    async def pull_mempools(self) -> None:
        for _peer, status, body in await self._ask_all("GET", "/p2p/mempool"):
            if status == 200 and isinstance(body, dict) and body.get("genesis_hash") == self.genesis_hash:
                self.take(body.get("transactions"))

    # -- catching up --------------------------------------------------------------------------------------------------------

    def want_block(self) -> None:
        self._want = True

    def committed(self) -> None:
        self._last_commit = time.monotonic()
        self._behind_since = None

    async def first_contact(self) -> None:
        """At start: hear every peer once, catch up, and fetch what is pending."""
        for peer, _status, body in await self._ask_all("GET", "/p2p/status"):
            if isinstance(body, dict) and body.get("node_id") == self.node_id:
                self.peers.remove(peer)
            elif isinstance(body, dict):
                peer.heard(body, self.genesis_hash)
        await self._catch_up()
        await self.pull_mempools()

    async def _sync_loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.25):
                    await self._kick.wait()
            self._kick.clear()
            lag = self.best() - self.chain.height
            if not self.follow or lag <= 0:
                self._behind_since = None
                continue
            self._behind_since = self._behind_since or time.monotonic()
            voting = self.consensus is not None and self.consensus.running and self.consensus.signer is not None
            if lag == 1 and voting and time.monotonic() - self._behind_since < 0.3:
                await asyncio.sleep(0.05)  # most likely the votes are just arriving
                self._kick.set()
                continue
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Fetch blocks until no live peer is ahead."""
        for _attempt in range(10_000):
            ahead = sorted((p for p in self.peers if p.live and p.height > self.chain.height), key=lambda p: -p.height)
            if not ahead or not self.follow:
                break
            if not await self._fetch(ahead[0]):
                ahead[0].height = -1  # until it speaks again
        self._behind_since = None

    async def _fetch(self, peer: Peer) -> bool:
        """One batch from one peer. False when it didn't help."""
        begin = self.chain.height + 1
        try:
            status, body = await peer.client.request("GET", f"/p2p/blocks?from={begin}&limit={BATCH}", timeout=10.0)
        except Unreachable:
            peer.lost()
            return False
        records = body.get("blocks") if status == 200 and isinstance(body, dict) else None
        if not isinstance(records, list) or not records:
            return False
        running = self.consensus is not None and self.consensus.running
        began = self.chain.height
        try:
            for record in records:
                if self.stall_at is not None and self.chain.height >= self.stall_at:
                    self.follow = False
                    running = False
                    if self.consensus:
                        self.consensus.stop()
                    break
                if self.consensus and self.consensus.running:
                    self.consensus.stop()
                if record["block"]["index"] <= self.chain.height:
                    continue
                self.chain.commit(record["block"], record["commit"], durable=record is records[-1])
                self.committed()
                if len(records) > 3:
                    await asyncio.sleep(0)
        except (Invalid, KeyError, TypeError, AttributeError) as exc:
            log.warning("blocks from %s refused: %s", peer.url, exc)
            return self.chain.height > began
        finally:
            if running and self.consensus:
                self.consensus.start()
        return self.chain.height > began

    # -- repair -------------------------------------------------------------------------------------------------------------

    async def _repair_loop(self) -> None:
        """When no block comes, ask the peers for the votes of this height; spread again what has been pending for long."""
        spread_at = time.monotonic()
        while True:
            await asyncio.sleep(0.25)
            consensus = self.consensus
            if consensus is None or not consensus.running or not self.follow:
                continue
            overdue = time.monotonic() - self._last_commit > consensus.timing.interval + 0.5
            if self._want or (overdue and consensus.signer is not None):
                self._want = False
                await self.pull_round()
            now = time.monotonic()
            if now - spread_at > 2.0:
                spread_at = now
                pool = self.chain.mempool
                old = [entry for txid, entry in pool.pending.items() if now - pool.since.get(txid, now) > 3.0][:200]
                if old:
                    await self._ask_all("POST", "/p2p/tx", {"genesis_hash": self.genesis_hash, "transactions": old})

    async def pull_round(self) -> None:
        consensus = self.consensus
        if consensus is None:
            return
        for peer, status, body in await self._ask_all("GET", f"/p2p/round?height={consensus.height}"):
            if status != 200 or not isinstance(body, dict):
                continue
            peer.heard(body, self.genesis_hash)
            if not peer.wrong_chain:
                for message in body.get("messages", []):
                    consensus.receive(message)
