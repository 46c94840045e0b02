# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process: options, start, stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
import time
import typing as t

from . import canon, keys, layout, misbehave, release
from .api import Api
from .block import PROPOSE
from .chain import Chain
from .consensus import Consensus, Timing
from .network import Network
from .signer import Signer
from .web import Server

DRAIN_SECONDS = 5.0


class Slashing:
    """``slashing.db``: contradictions seen on the network, and small values that outlive a restart."""

    def __init__(self, data_dir: str) -> None:
        self.connection = sqlite3.connect(os.path.join(data_dir, "slashing.db"), isolation_level=None)
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS key_value_store (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS double_signs (address TEXT, height INTEGER, round INTEGER, step INTEGER, "
            "first TEXT, second TEXT, evidence TEXT NOT NULL, seen REAL NOT NULL, PRIMARY KEY (address, height, round, step))"
        )
        self._listed: list[dict[str, t.Any]] | None = None

    def record(self, first: dict[str, t.Any], second: dict[str, t.Any]) -> bool:
        """False when this contradiction is known."""
        step = PROPOSE if first["type"] == "proposal" else first["step"]
        hashes = [m["block"]["hash"] if step == PROPOSE else m["block_hash"] or "nil" for m in (first, second)]
        row = (first["address"], first["height"], first["round"], step, *hashes, canon.dumps([first, second]), time.time())
        done = self.connection.execute("INSERT OR IGNORE INTO double_signs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).rowcount > 0
        self._listed = None
        return done

    def listed(self) -> list[dict[str, t.Any]]:
        if self._listed is None:
            rows = self.connection.execute(
                "SELECT address, height, round, step, first, second FROM double_signs ORDER BY height, address"
            )
            self._listed = [{"address": a, "height": h, "round": r, "step": s, "hashes": [x, y]} for a, h, r, s, x, y in rows]
        return self._listed

    def get(self, key: str) -> t.Any:
        row = self.connection.execute("SELECT value FROM key_value_store WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, key: str, value: t.Any) -> None:
        self.connection.execute("INSERT OR REPLACE INTO key_value_store VALUES (?, ?)", (key, canon.dumps(value)))

    def close(self) -> None:
        self.connection.close()


class Pause:
    """The emergency pause. As on XAI it outlives restarts, in slashing.db, and so travels inside snapshots."""

    KEY = "emergency_pause_state"

    def __init__(self, store: Slashing) -> None:
        self.store = store
        self.state: dict[str, t.Any] = store.get(self.KEY) or {
            "is_paused": False,
            "paused_by": None,
            "paused_timestamp": None,
            "reason": None,
        }

    @property
    def paused(self) -> bool:
        return bool(self.state["is_paused"])

    def set(self, paused: bool, reason: str) -> None:
        stamp = time.time() if paused else None
        self.state = {"is_paused": paused, "paused_by": "admin" if paused else None, "paused_timestamp": stamp, "reason": reason}
        self.store.put(self.KEY, self.state)

    def status(self) -> dict[str, t.Any]:
        return {**self.state, "circuit_breaker_state": "CLOSED"}


class Node:
    """Everything of one running node."""

    def __init__(self, options: argparse.Namespace, ways: misbehave.Misbehaviour) -> None:
        self.options, self.ways = options, ways
        self.log = logging.getLogger("refnode")
        version = int(os.environ.get("XAI_BLOCK_HEADER_VERSION", "1"))
        allowed = {int(word) for word in os.environ.get("XAI_BLOCK_HEADER_ALLOWED_VERSIONS", "1").split(",") if word.strip()}
        if version not in allowed:
            raise layout.StorageError(
                f"XAI_BLOCK_HEADER_VERSION={version} is not in XAI_BLOCK_HEADER_ALLOWED_VERSIONS "
                f"({','.join(map(str, sorted(allowed)))})"
            )
        if not allowed <= ({1} if release.INFO["level"] < 2 else {1, 2}):
            raise layout.StorageError(f"release {release.INFO['version']} does not know block header version {max(allowed)}")
        compat = os.environ.get("XAI_STORAGE_COMPAT") == "1"
        self.chain = Chain(options.data_dir, genesis_path=options.genesis, compat=compat, versions=allowed)
        identity = self._identity()
        self.address: str = identity["address"]
        self.faucet_key: str | None = identity.get("faucet_key")
        self.is_validator = self.address in self.chain.genesis.validators.keys and not options.no_mining
        self.signer = Signer(options.data_dir, identity, self.chain.genesis.chain_id) if self.is_validator else None
        self.evidence = Slashing(options.data_dir)
        self.pause = Pause(self.evidence)
        own = {f"http://{host}:{options.port}" for host in (options.host, "127.0.0.1", "localhost")}
        self.network = Network(self.chain, [url for url in options.peers if url.rstrip("/") not in own], self.address)
        env = os.environ.get
        timing = Timing(
            interval=min(float(env("REFNODE_BLOCK_INTERVAL", "1.0")), 1.0),
            propose=float(env("REFNODE_TIMEOUT_PROPOSE", "0.8")),
            vote=float(env("REFNODE_TIMEOUT_VOTE", "0.5")),
            growth=float(env("REFNODE_TIMEOUT_GROWTH", "0.4")),
        )
        self.consensus = Consensus(
            self.chain,
            self.signer,
            self.network.broadcast,
            self._committed,
            self._equivocation,
            self.network.want_block,
            timing,
            version,
        )
        self.consensus.on_fatal = self.network.on_fatal = self.fail
        self.network.consensus = self.consensus
        self.network.stall_at = ways.stall_at
        self.consensus.active = self.is_validator and not ways.fork
        self.stalled = False
        self.missed: dict[str, int] = dict.fromkeys(self.chain.genesis.validators.keys, 0)
        self.blocks_proposed = self.blocks_seen = 0
        self.last_interval = 0.0
        self.failure: Exception | None = None
        self.stopping = asyncio.Event()
        self.api = Api(self)
        self.server = Server(self.api.handle)
        self.p2p_server = Server(self.api.handle_p2p)
        self._hoard: list[bytearray] = []

    def _identity(self) -> dict[str, str]:
        """The key file, or for a node that has none a fresh identity of its own (which is never a validator's)."""
        path = os.path.join(self.options.data_dir, "node_identity.json")
        try:
            identity = t.cast("dict[str, str]", canon.read_json(path))
            derived = keys.identity(identity["private_key"])
            if derived["address"] != identity["address"]:
                raise ValueError("address does not belong to private_key")
            return {**identity, **derived}
        except FileNotFoundError:
            identity = keys.new_identity()
            canon.write_file(path, canon.dumps(identity).encode() + b"\n", mode=0o600)
            return identity
        except (ValueError, KeyError, TypeError) as exc:
            raise layout.StorageError(f"{path} can't be used: {exc}") from exc

    # -- events -------------------------------------------------------------------------------------------------------------

    def fail(self, exc: Exception) -> None:
        """Something inside broke: stop the node, with a status that says so."""
        self.failure = self.failure or exc
        self.stopping.set()

    def _committed(self, block: dict[str, t.Any]) -> None:
        self.network.committed()
        self.blocks_seen += 1
        self.blocks_proposed += block["miner"] == self.address
        if block["index"] > 1:
            signed = {entry["address"] for entry in block["last_commit"]["signatures"]}
            for address in self.missed:
                self.missed[address] += address not in signed
            self.last_interval = round(block["timestamp"] - self.chain.block(block["index"] - 1)["timestamp"], 3)
        if self.ways.stall_at is not None and block["index"] >= self.ways.stall_at:
            self.stalled = True
            self.network.follow = False
            asyncio.get_running_loop().call_soon(self.consensus.stop)

    def _equivocation(self, first: dict[str, t.Any], second: dict[str, t.Any]) -> None:
        if self.evidence.record(first, second):
            self.log.critical(
                "%s signed two different things at height %d round %d", first["address"], first["height"], first["round"]
            )
            self.network.broadcast({"type": "evidence", "height": first["height"], "first": first, "second": second})

    @property
    def mining(self) -> bool:
        return self.is_validator and self.consensus.active

    def set_mining(self, on: bool) -> None:
        self.consensus.active = on and self.is_validator

    # -- life ---------------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopping.set)
        if not self.network.peers:
            self.network.synced.set()
        try:
            await self.server.listen(self.options.host, self.options.port)
            await self.p2p_server.listen(self.options.host, self.options.p2p_port)
        except OSError as exc:
            self.log.error("cannot listen: %s", exc)
            await self._close()
            return 1
        self.chain.log("start", release=release.INFO["version"], level=self.chain.level, pid=os.getpid())
        self.log.info(
            "refnode %s at height %d, storage level %d, %s %s, api %s:%d",
            release.INFO["version"],
            self.chain.height,
            self.chain.level,
            "validator" if self.is_validator else "observer",
            self.address,
            self.options.host,
            self.options.port,
        )
        if self.ways.any():
            self.log.warning("misbehaving on demand: %s", self.ways.any())
        background = asyncio.create_task(self._join())
        leak = asyncio.create_task(self._leak())
        await self.stopping.wait()
        self.log.info("stopping")
        self.consensus.stop()
        background.cancel()
        leak.cancel()
        if self.ways.slow_stop:
            await asyncio.sleep(self.ways.slow_stop)
        drained = await self.server.drain(DRAIN_SECONDS)
        await self.p2p_server.drain(0.1)
        await self.network.stop()
        if not drained:
            self.log.warning("requests were still running after %g s", DRAIN_SECONDS)
        await self._close()
        self.log.info("stopped at height %d", self.chain.height)
        return 1 if self.failure else 0

    async def _join(self) -> None:
        """Catch up, then take part."""
        try:
            if self.ways.stall:
                self.network.follow = False
                self.stalled = True
                return
            await self.network.first_contact()
            if self.signer and not self.signer.known and self.chain.height > 0:
                # No record of what this key signed: let one more height pass than any that could have been signed before.
                self.signer.hold_above(self.chain.height + 1)
            self.network.start()
            if not self.stalled and self.network.follow:
                self.consensus.start()
                await self.network.pull_round()
            self.network.synced.set()
        except Exception as exc:
            self.log.critical("cannot join the network: %s", exc, exc_info=True)
            self.fail(exc)

    async def _leak(self) -> None:
        while self.ways.leak > 0 and len(self._hoard) < 512:
            self._hoard.append(bytearray(os.urandom(4096) * int(256 * self.ways.leak)))
            await asyncio.sleep(1)

    async def _close(self) -> None:
        self.chain.log("stop")
        self.chain.close()
        self.evidence.close()


def parser() -> argparse.ArgumentParser:
    env = os.environ.get
    found = argparse.ArgumentParser(prog="xai-node", description="The reference node.")
    found.add_argument("--port", type=int, default=int(env("XAI_API_PORT") or env("XAI_DEFAULT_PORT") or 8545))
    found.add_argument("--host", default=env("XAI_DEFAULT_HOST", "127.0.0.1"))
    found.add_argument("--p2p-port", type=int, default=8765)
    found.add_argument("--miner", default=None, help="accepted for XAI's sake; fees go to the validator's own address")
    found.add_argument("--data-dir", default=env("XAI_DATA_DIR", "data"))
    found.add_argument("--peers", nargs="*", default=[], metavar="URL")
    found.add_argument("--no-mining", action="store_true", help="observe: follow the chain, sign nothing")
    found.add_argument("--genesis", default=None, help="genesis document for a data directory that has none yet")
    return found


def main(argv: t.Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("REFNODE_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    log = logging.getLogger("refnode")
    try:
        ways = misbehave.load()
        if ways.die_at_start:
            log.error("cannot start: told to die")
            return 1
        return asyncio.run(_run(options, ways))
    except (layout.StorageError, ValueError) as exc:
        log.error("cannot start: %s", exc)
        return 1


async def _run(options: argparse.Namespace, ways: misbehave.Misbehaviour) -> int:
    return await Node(options, ways).run()
