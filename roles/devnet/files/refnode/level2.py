# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage level 2: blocks as compressed, checksummed binary records, the whole state in one SQLite file, ``utxo.db``."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import typing as t
import zlib

from . import canon, layout
from .state import State

LEVEL = 2
ROLL = 8 * 1024 * 1024
DATABASE = "utxo.db"
_HEAD = struct.Struct(">II")  # length of the compressed record, CRC-32 of it


class Blocks(layout.BlockFiles):
    def __init__(self, data_dir: str) -> None:
        super().__init__(data_dir, ".bin", ROLL)

    def encode(self, record: t.Mapping[str, t.Any]) -> bytes:
        return self.encode_text(canon.dumps(record).encode("ascii"))

    @staticmethod
    def encode_text(text: bytes) -> bytes:
        packed = zlib.compress(text, 6)
        return _HEAD.pack(len(packed), zlib.crc32(packed)) + packed

    @staticmethod
    def decode_text(data: bytes) -> bytes:
        length, crc = _HEAD.unpack_from(data)
        packed = data[_HEAD.size :]
        if len(packed) != length or zlib.crc32(packed) != crc:
            raise ValueError("its check sum is wrong")
        try:
            return zlib.decompress(packed)
        except zlib.error as exc:
            raise ValueError(str(exc)) from exc

    def decode(self, data: bytes) -> t.Any:
        return canon.loads(self.decode_text(data))

    def split(self, data: bytes, name: str) -> tuple[list[int], int]:
        lengths, start = [], 0
        while start + _HEAD.size <= len(data):
            length, crc = _HEAD.unpack_from(data, start)
            end = start + _HEAD.size + length
            if end > len(data):
                break
            if zlib.crc32(memoryview(data)[start + _HEAD.size : end]) != crc:
                raise layout.integrity(f"record {len(lengths)} of {name} is damaged")
            lengths.append(end - start)
            start = end
        return lengths, start


def create(path: str, state: State) -> None:
    """Write a whole state into a new database file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    connection = _open(path)
    with contextlib.closing(connection), connection:
        connection.execute(
            "CREATE TABLE accounts (address TEXT PRIMARY KEY, balance INTEGER NOT NULL, nonce INTEGER) WITHOUT ROWID"
        )
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        _write(connection, state, sorted(state.balances.keys() | state.nonces.keys()))


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _write(connection: sqlite3.Connection, state: State, addresses: t.Iterable[str]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)",
        [(a, state.balances.get(a, 0), state.nonces.get(a)) for a in addresses],
    )
    meta = {
        "height": state.height,
        "hash": state.block_hash,
        "transactions": state.transactions,
        "governance": state.governance,
        "digest": state.root(),
    }
    connection.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, canon.dumps(value)) for key, value in meta.items()]
    )


def read(path: str) -> State:
    """The state in a database. Raises StorageError when its rows don't add up to its digest."""
    if not os.path.exists(path):
        raise layout.integrity(f"{DATABASE} is missing")
    try:
        with contextlib.closing(_open(path)) as connection:
            rows = connection.execute("SELECT address, balance, nonce FROM accounts").fetchall()
            meta = {key: canon.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}
        state = State()
        balances = {address: balance for address, balance, _nonce in rows}
        nonces = {address: nonce for address, _balance, nonce in rows if nonce is not None}
        state.load(meta["height"], meta["hash"], balances, nonces, meta["governance"], meta["transactions"])
    except (sqlite3.Error, ValueError, KeyError, TypeError) as exc:
        raise layout.integrity(f"{DATABASE} can't be read ({exc})") from exc
    if state.root() != meta.get("digest"):
        raise layout.integrity(f"the rows of {DATABASE} do not match its digest")
    return state


def digest_entry(state: State) -> dict[str, t.Any]:
    """What checksum.json says of the database: the digest of what it means, for its bytes depend on its history."""
    return {"digest": state.root(), "height": state.height}


class Backend:
    """The state database of an open directory."""

    level = LEVEL

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self.blocks = Blocks(data_dir)
        self.path = os.path.join(data_dir, DATABASE)

    def load(self, promised: t.Mapping[str, t.Any], height: int) -> State:
        state = read(self.path)
        entry = promised.get(DATABASE)
        # Killed between the database and checksum.json, the database is the newer one; it can never be the older.
        if (
            not isinstance(entry, dict)
            or state.height < height
            or (state.height == height and entry.get("digest") != state.root())
        ):
            raise layout.integrity(f"{DATABASE} does not match {layout.CHECKSUM}")
        return state

    def save(self, state: State) -> None:
        if not os.path.exists(self.path):
            create(self.path, state)
        else:
            with contextlib.closing(_open(self.path)) as connection, connection:
                _write(connection, state, sorted(state.dirty))
        entries = {DATABASE: digest_entry(state)}
        data = layout.checksum_bytes(state.height, state.block_hash, LEVEL, self.blocks.entries(), entries)
        canon.write_file(os.path.join(self.data_dir, layout.CHECKSUM), data)
        state.dirty.clear()

    def close(self) -> None:
        self.blocks.close()
