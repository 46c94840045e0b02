# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain of one node: its directory, its blocks, its state, its indexes and what is pending."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import typing as t

from . import canon, layout, level1, release, tx
from .block import Genesis, Invalid, check_block, check_commit
from .state import State, Trial

FLUSH_EVERY = 10  # blocks
CACHE = 256  # records kept parsed
MEMPOOL_LIMIT = 10_000
SENDER_LIMIT = 1_000
MAX_FUTURE = 120.0  # seconds
MAX_AGE = 86_400.0


def backend_for(data_dir: str, level: int) -> t.Any:
    if level == 1:
        return level1.Backend(data_dir)
    from . import level2

    return level2.Backend(data_dir)


def choose_level(data_dir: str, compat: bool) -> int:
    """The level to run at. Raises StorageError when this release and this directory don't belong together."""
    found, own = layout.read_level(data_dir), release.INFO["level"]
    if os.path.exists(os.path.join(data_dir, layout.MIGRATION_WAL)):
        raise layout.StorageError(f"{data_dir} is in the middle of a migration; run bin/migrate again to finish it")
    if found is None:
        return 1 if compat else own
    if found > own:
        raise layout.StorageError(
            f"{data_dir} has storage level {found}, release {release.INFO['version']} understands up to level {own}; "
            f"migrate it back (bin/migrate --to {own} of the newer release) or start the newer release"
        )
    if found < own and not compat:
        raise layout.StorageError(
            f"{data_dir} has storage level {found}, release {release.INFO['version']} needs level {own}; "
            f"run bin/migrate --data-dir {data_dir} --to {own}, or set XAI_STORAGE_COMPAT=1 to run it at level {found}"
        )
    return found


class Index:
    """Hash and transaction lookups in ``block_index.db`` and ``address_index.db``: caches, rebuilt whenever in doubt."""

    def __init__(self, data_dir: str) -> None:
        self.paths = [os.path.join(data_dir, name) for name in ("block_index.db", "address_index.db")]
        self.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.paths[0], isolation_level=None)
        connection.execute("ATTACH ? AS addr", (self.paths[1],))
        for schema in ("main", "addr"):
            connection.execute(f"PRAGMA {schema}.journal_mode = WAL")
            connection.execute(f"PRAGMA {schema}.synchronous = OFF")
        connection.execute("CREATE TABLE IF NOT EXISTS blocks (height INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE)")
        connection.execute("CREATE TABLE IF NOT EXISTS txs (txid TEXT PRIMARY KEY, height INTEGER NOT NULL) WITHOUT ROWID")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS addr.history (address TEXT, height INTEGER, position INTEGER, txid TEXT, "
            "PRIMARY KEY (address, height, position)) WITHOUT ROWID"
        )
        return connection

    def rebuild(self) -> None:
        """Start from nothing."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        for path in self.paths:
            for suffix in ("", "-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path + suffix)
        self.connection = self._open()

    def tip(self) -> tuple[int, str]:
        row = self.connection.execute("SELECT height, hash FROM blocks ORDER BY height DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (-1, "")

    def add(self, blocks: t.Iterable[t.Mapping[str, t.Any]]) -> None:
        self.connection.execute("BEGIN")
        for block in blocks:
            height = block["index"]
            self.connection.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?)", (height, block["hash"]))
            for position, entry in enumerate(block["transactions"]):
                self.connection.execute("INSERT OR REPLACE INTO txs VALUES (?, ?)", (entry["txid"], height))
                for address in {entry["sender"], entry["recipient"]}:
                    self.connection.execute(
                        "INSERT OR REPLACE INTO addr.history VALUES (?, ?, ?, ?)", (address, height, position, entry["txid"])
                    )
        self.connection.execute("COMMIT")

    def height_of_hash(self, hash_: str) -> int | None:
        row = self.connection.execute("SELECT height FROM blocks WHERE hash = ?", (hash_,)).fetchone()
        return row[0] if row else None

    def height_of_tx(self, txid: str) -> int | None:
        row = self.connection.execute("SELECT height FROM txs WHERE txid = ?", (txid,)).fetchone()
        return row[0] if row else None

    def history(self, address: str, limit: int, offset: int) -> tuple[int, list[tuple[int, int]]]:
        total = self.connection.execute("SELECT COUNT(*) FROM addr.history WHERE address = ?", (address,)).fetchone()[0]
        rows = self.connection.execute(
            "SELECT height, position FROM addr.history WHERE address = ? ORDER BY height DESC, position DESC LIMIT ? OFFSET ?",
            (address, limit, offset),
        ).fetchall()
        return total, rows

    def close(self) -> None:
        self.connection.close()


class Mempool:
    """Accepted transactions that are in no block yet, in the order they came; always applicable one after the other."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.pending: dict[str, dict[str, t.Any]] = {}
        self.since: dict[str, float] = {}
        self.sizes: dict[str, int] = {}
        self.parked: dict[str, dict[int, dict[str, t.Any]]] = {}
        self.rejected = 0
        self.expired = 0
        self.ahead: Trial = chain.state.trial()

    def add(self, entry: dict[str, t.Any], *, checked: bool = False) -> None:
        """Raises Rejected. ``checked``: shape and signature are known to be good."""
        txid = entry["txid"]
        if txid in self.pending or self.chain.index.height_of_tx(txid) is not None:
            raise tx.Rejected("transaction_rejected", "transaction is already known", reason="duplicate", txid=txid)
        try:
            if not checked:
                tx.check_complete(entry, self.chain.genesis.chain_id)
            now = time.time()
            if entry["timestamp"] > now + MAX_FUTURE:
                raise tx.Rejected(
                    "future_timestamp", "Transaction timestamp too far in the future", timestamp=entry["timestamp"], now=now
                )
            if entry["timestamp"] < now - MAX_AGE:
                raise tx.Rejected("stale_timestamp", "Transaction timestamp too old", timestamp=entry["timestamp"], now=now)
            if len(self.pending) >= MEMPOOL_LIMIT:
                raise tx.Rejected("transaction_rejected", "the mempool is full", reason="full")
            if self.ahead.next_nonce(entry["sender"]) - self.chain.state.next_nonce(entry["sender"]) >= SENDER_LIMIT:
                raise tx.Rejected("transaction_rejected", "too many pending transactions of this sender", reason="sender_cap")
            self.ahead.apply_tx(entry, self.chain.height + 1, entry["sender"])
        except tx.Rejected:
            self.rejected += 1
            raise
        self.pending[txid] = entry
        self.since[txid] = time.monotonic()
        self.sizes[txid] = len(canon.dumps(entry))
        self._unpark(entry["sender"])

    def park(self, entry: dict[str, t.Any]) -> bool:
        """Keep a gossiped transaction whose turn has not come (its forerunners may still be on their way)."""
        mine = self.parked.setdefault(entry["sender"], {})
        if len(mine) >= 64 or len(self.parked) > 1000:
            return False
        mine[entry["nonce"]] = entry
        return True

    def _unpark(self, sender: str) -> None:
        mine = self.parked.get(sender)
        if not mine:
            return
        entry = mine.pop(self.ahead.next_nonce(sender), None)
        if not mine:
            del self.parked[sender]
        if entry is not None:
            with contextlib.suppress(tx.Rejected):
                self.add(entry)

    def refresh(self) -> None:
        """After a block: drop what it holds, and what can no longer be applied."""
        old, self.pending = self.pending, {}
        self.ahead = self.chain.state.trial()
        for txid, entry in old.items():
            try:
                self.ahead.apply_tx(entry, self.chain.height + 1, entry["sender"])
                self.pending[txid] = entry
            except tx.Rejected:
                self.since.pop(txid, None)
                self.sizes.pop(txid, None)
        for sender in list(self.parked):
            for nonce in [n for n in self.parked[sender] if n < self.ahead.next_nonce(sender)]:
                del self.parked[sender][nonce]
            if not self.parked[sender]:
                del self.parked[sender]
            else:
                self._unpark(sender)

    def select(self, limit: int, max_bytes: int) -> list[dict[str, t.Any]]:
        chosen, size = [], 0
        for txid, entry in self.pending.items():
            size += self.sizes[txid]
            if len(chosen) >= limit or size > max_bytes:
                break
            chosen.append(entry)
        return chosen


class Chain:
    """An open data directory. Only one process can have it open."""

    def __init__(
        self, data_dir: str, *, genesis_path: str | None = None, compat: bool = False, versions: t.Collection[int] = (1,)
    ) -> None:
        self.data_dir = data_dir
        self.versions = frozenset(versions)
        os.makedirs(os.path.join(data_dir, "blocks"), exist_ok=True) if not os.path.isdir(data_dir) else None
        self.lock = layout.DirectoryLock(data_dir)
        self.lock.acquire()
        try:
            self.genesis = self._genesis(genesis_path)
            self.level = choose_level(data_dir, compat)
            self.backend = backend_for(data_dir, self.level)
            self._cache: dict[int, t.Any] = {}
            self.state = self._open()
            self.saved_height = self.state.height if self.backend.blocks.count() else -1
            self._replay()
            self.index = Index(data_dir)
            self._catch_up_index()
            self.mempool = Mempool(self)
            self._load_pending()
        except BaseException:
            self.lock.release()
            raise

    # -- opening ------------------------------------------------------------------------------------------------------------

    def _genesis(self, given: str | None) -> Genesis:
        own = os.path.join(self.data_dir, "genesis.json")
        path = own if os.path.exists(own) else given
        if path is None or not os.path.exists(path):
            raise layout.StorageError(
                f"no genesis: put the network's genesis.json into {self.data_dir} (a node never makes its own)"
            )
        try:
            genesis = Genesis(canon.read_json(path))
        except (ValueError, Invalid) as exc:
            raise layout.StorageError(f"{path}: {exc}") from exc
        if path != own:
            with open(path, "rb") as handle:
                canon.write_file(own, handle.read())
        return genesis

    def _open(self) -> State:
        layout.finish_replace(self.data_dir)
        checksum = os.path.join(self.data_dir, layout.CHECKSUM)
        schema = os.path.join(self.data_dir, layout.SCHEMA)
        if not os.path.exists(schema):
            return self._create()
        try:
            promised = canon.read_json(checksum)
            self.backend.blocks.scan(promised["blocks"])
            state: State = self.backend.load(promised["state"], promised["height"])
        except FileNotFoundError:
            raise layout.integrity(f"{checksum} is missing") from None
        except (ValueError, KeyError, TypeError) as exc:
            raise layout.integrity(f"{checksum} is damaged ({exc})") from exc
        top = promised.get("height")
        if promised.get("algorithm") != "sha256" or promised.get("level") != self.level or not isinstance(top, int):
            raise layout.integrity(f"{checksum} is damaged")
        if not 0 <= top < self.backend.blocks.count() or self.block(top)["hash"] != promised.get("hash"):
            raise layout.integrity(f"{checksum} does not belong to these blocks")
        if state.height >= self.backend.blocks.count():
            raise layout.integrity(f"the state is at height {state.height}, the blocks end before it")
        if self.block(0)["hash"] != self.genesis.block()["hash"]:
            raise layout.StorageError(f"{self.data_dir} belongs to another network: its block 0 is not that of genesis.json")
        if self.block(state.height)["hash"] != state.block_hash:
            raise layout.integrity(f"the state does not belong to block {state.height}")
        return state

    def _create(self) -> State:
        """A fresh directory. ``schema.json`` comes last: before it, the directory counts as never used."""
        for name in ("blocks", "checkpoints", "finality", "nonces"):
            if name != "nonces" or self.level == 1:
                os.makedirs(os.path.join(self.data_dir, name), exist_ok=True)
        for number in self.backend.blocks.numbers():
            os.unlink(self.backend.blocks.path(number))
        state = self.genesis.state()
        block = self.genesis.block()
        self.backend.blocks.append({"block": block, "commit": block["last_commit"] | {"height": 0, "block_hash": block["hash"]}})
        self.backend.save(state)
        for name in ("contracts_state.json", "contract_receipts.json"):
            canon.write_file(os.path.join(self.data_dir, name), b"{}\n", durable=False)
        canon.write_file(os.path.join(self.data_dir, layout.SCHEMA), layout.schema_bytes(self.level))
        return state

    def _replay(self) -> None:
        """Blocks behind the saved state prove themselves: links, hashes, signatures, state."""
        for height in range(self.state.height + 1, self.backend.blocks.count()):
            record = self.record(height)
            try:
                block = record["block"]
                check_block(block, self.genesis, self.state, self.block(height - 1)["timestamp"], self.versions)
                check_commit(record["commit"], self.genesis, height, block["hash"])
            except (Invalid, KeyError, TypeError) as exc:
                raise layout.integrity(f"block {height}: {exc}") from exc
            self.state.apply_block(block)

    def _catch_up_index(self) -> None:
        try:
            height, hash_ = self.index.tip()
            if height > self.height or (height >= 0 and self.block(height)["hash"] != hash_):
                raise sqlite3.DatabaseError("index of another chain")
        except sqlite3.Error:
            self.index.rebuild()
            height = -1
        for start in range(height + 1, self.height + 1, 500):
            self.index.add(self.block(h) for h in range(start, min(start + 500, self.height + 1)))

    def _load_pending(self) -> None:
        path = os.path.join(self.data_dir, "pending_transactions.json")
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            for entry in canon.read_json(path)["transactions"]:
                with contextlib.suppress(tx.Rejected):
                    self.mempool.add(entry)

    # -- reading ------------------------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Index of the tip."""
        return self.state.height

    def record(self, height: int) -> t.Any:
        """{"block", "commit"}. Raises IndexError."""
        found = self._cache.get(height)
        if found is None:
            found = self.backend.blocks.read(height)
            self._remember(height, found)
        return found

    def _remember(self, height: int, record: t.Any) -> None:
        self._cache[height] = record
        while len(self._cache) > CACHE:
            del self._cache[next(iter(self._cache))]

    def block(self, height: int) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.record(height)["block"])

    def tip(self) -> dict[str, t.Any]:
        return self.block(self.height)

    # -- writing ------------------------------------------------------------------------------------------------------------

    def validate(self, block: t.Any) -> None:
        """Is this a good next block? Raises Invalid."""
        check_block(block, self.genesis, self.state, self.tip()["timestamp"], self.versions)

    def commit(self, block: dict[str, t.Any], commit: dict[str, t.Any], *, validated: bool = False, durable: bool = True) -> None:
        """Append a final block. Raises Invalid and changes nothing when it isn't one."""
        if not validated:
            self.validate(block)
        check_commit(commit, self.genesis, block["index"], block["hash"])
        record = {"block": block, "commit": commit}
        self.backend.blocks.append(record, durable)
        self.state.apply_block(block)
        self._remember(block["index"], record)
        self.index.add([block])
        self.mempool.refresh()
        if self.height - self.saved_height >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        if self.saved_height != self.height:
            self.backend.save(self.state)
            self.saved_height = self.height

    def save_pending(self) -> None:
        data = canon.dumps({"transactions": list(self.mempool.pending.values())}).encode() + b"\n"
        canon.write_file(os.path.join(self.data_dir, "pending_transactions.json"), data)

    def log(self, event: str, **fields: t.Any) -> None:
        """One line in ``journal.log``."""
        line = canon.dumps({"time": round(time.time(), 3), "event": event, "height": self.height, **fields}) + "\n"
        with open(os.path.join(self.data_dir, "journal.log"), "a", encoding="ascii") as handle:
            handle.write(line)

    def close(self) -> None:
        self.save_pending()
        self.flush()
        self.backend.close()
        self.index.close()
        self.lock.release()
