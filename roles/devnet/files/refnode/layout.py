# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both storage levels share: the data directory's lock, level, checksums and crash-safe replacement of several files.

``blocks/`` is the truth. The state files are written every few blocks and at a clean stop; a start loads them and replays the
blocks that came after. ``checksum.json`` covers the state files and, of every block file, the part up to the same height: what
lies behind it was appended later and is proven by its own hashes and signatures.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import typing as t

from . import canon

LOCK = "node.lock"
SCHEMA = "schema.json"
CHECKSUM = "checksum.json"
STATE_WAL = "state_wal.json"
MIGRATION_WAL = "migration_wal.json"


class StorageError(Exception):
    """The data directory can't be used as it is. The message says what, where and what to do."""


class DirectoryLock:
    """An advisory lock on the whole directory (flock on ``node.lock``, which holds the owner's pid)."""

    def __init__(self, data_dir: str) -> None:
        self.path = os.path.join(data_dir, LOCK)
        self.created = False
        self._handle: int | None = None

    def acquire(self) -> None:
        self.created = not os.path.exists(self.path)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            os.close(handle)
            raise StorageError(f"{os.path.dirname(self.path)} is in use by process {holder or '?'}; stop it first") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def release(self, remove: bool = False) -> None:
        """With ``remove``, take the file away again if this lock had made it."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            if remove and self.created:
                os.unlink(self.path)
            os.close(self._handle)
            self._handle = None


def read_level(data_dir: str) -> int | None:
    """The directory's storage level, None for a directory that was never used."""
    path = os.path.join(data_dir, SCHEMA)
    try:
        level = canon.read_json(path)["level"]
    except FileNotFoundError:
        if any(os.path.exists(os.path.join(data_dir, name)) for name in ("block_index.db", "journal.log")):
            raise StorageError(f"{path} is missing, though a node has used {data_dir}; restore it from a snapshot") from None
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise StorageError(f"{path} does not tell a storage level: {exc}") from exc
    if not isinstance(level, int) or isinstance(level, bool):
        raise StorageError(f"{path} does not tell a storage level")
    return level


def schema_bytes(level: int) -> bytes:
    return canon.dumps({"level": level}).encode() + b"\n"


def checksum_bytes(height: int, hash_: str, level: int, blocks: t.Mapping[str, t.Any], state: t.Mapping[str, t.Any]) -> bytes:
    """``blocks``: {relative name: {size, sha256}} up to ``height``; ``state``: {relative name: digest entry}."""
    body = {"algorithm": "sha256", "height": height, "hash": hash_, "level": level, "blocks": dict(blocks), "state": dict(state)}
    return canon.dumps(body).encode() + b"\n"


def file_entry(data: bytes) -> dict[str, t.Any]:
    return {"size": len(data), "sha256": canon.sha256(data)}


def integrity(detail: str) -> StorageError:
    return StorageError(f"Blockchain data integrity check failed: {detail}; restore the data directory from a verified snapshot")


def replace_files(data_dir: str, files: t.Mapping[str, bytes], wal: str = STATE_WAL) -> None:
    """Replace several files as one: after a crash at any point, ``finish_replace`` makes it all old or all new."""
    for name, data in files.items():
        path = os.path.join(data_dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path + ".next", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            canon._write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
    canon.write_file(os.path.join(data_dir, wal), canon.dumps({"replace": sorted(files)}).encode())
    finish_replace(data_dir, wal)


def finish_replace(data_dir: str, wal: str = STATE_WAL) -> None:
    """Roll an interrupted replacement forward, or drop what it had only begun."""
    path = os.path.join(data_dir, wal)
    try:
        names = canon.read_json(path)["replace"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as exc:
        raise integrity(f"{path} is damaged ({exc})") from exc
    folders = {data_dir}
    for name in names:
        target = os.path.join(data_dir, name)
        folders.add(os.path.dirname(target))
        with contextlib.suppress(FileNotFoundError):
            os.replace(target + ".next", target)
    for folder in folders:
        canon.sync_dir(folder)
    os.unlink(path)


class BlockFiles:
    """Append-only files of records, one record a block, rolled at a size. The record encoding is the level's."""

    def __init__(self, data_dir: str, suffix: str, roll: int) -> None:
        self.data_dir, self.suffix, self.roll = data_dir, suffix, roll
        self.where: list[tuple[int, int, int]] = []  # height -> (file number, offset, length)
        self.digests: dict[int, t.Any] = {}  # file number -> running SHA-256 over what it holds
        self.sizes: dict[int, int] = {}
        self._writer: int | None = None
        self._writer_number = -1

    def name(self, number: int) -> str:
        return f"blocks/blocks_{number}{self.suffix}"

    def path(self, number: int) -> str:
        return os.path.join(self.data_dir, self.name(number))

    def numbers(self) -> list[int]:
        found = []
        folder = os.path.join(self.data_dir, "blocks")
        for entry in os.listdir(folder) if os.path.isdir(folder) else []:
            middle = entry[len("blocks_") : len(entry) - len(self.suffix)]
            if entry.startswith("blocks_") and entry.endswith(self.suffix) and middle.isdigit():
                found.append(int(middle))
        found.sort()
        if found != list(range(len(found))):
            raise integrity(f"block files are missing in {folder} (there are {found})")
        return found

    # -- the level's encoding -----------------------------------------------------------------------------------------------

    def encode(self, record: t.Mapping[str, t.Any]) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> t.Any:
        raise NotImplementedError

    def split(self, data: bytes, name: str) -> tuple[list[int], int]:
        """Lengths of the complete records at the start of ``data``, and how many bytes they take together."""
        raise NotImplementedError

    # -- reading ------------------------------------------------------------------------------------------------------------

    def scan(self, expected: t.Mapping[str, t.Any], repair: bool = True) -> None:
        """Read every file once: check what ``checksum.json`` promises, find the records, cut a torn last one (``repair``)."""
        numbers = self.numbers()
        missing = [name for name in expected if name not in {self.name(n) for n in numbers}]
        if missing:
            raise integrity(f"{', '.join(missing)} is missing")
        for number in numbers:
            name = self.name(number)
            with open(self.path(number), "rb") as handle:
                data = handle.read()
            promise = expected.get(name, {"size": 0, "sha256": canon.sha256(b"")})
            state = hashlib.sha256(data[: promise["size"]])
            if len(data) < promise["size"] or state.hexdigest() != promise["sha256"]:
                raise integrity(f"{name} does not match {CHECKSUM}")
            lengths, used = self.split(data, name)
            if used < len(data):
                if number != numbers[-1] or used < promise["size"]:
                    raise integrity(f"{name} ends in the middle of a record")
                if repair:
                    with open(self.path(number), "r+b") as handle:
                        handle.truncate(used)
            state.update(data[promise["size"] : used])
            offset = 0
            for length in lengths:
                self.where.append((number, offset, length))
                offset += length
            self.digests[number], self.sizes[number] = state, used

    def count(self) -> int:
        return len(self.where)

    def read(self, height: int) -> t.Any:
        """The record of a height. Raises IndexError; StorageError when it can't be decoded."""
        if height < 0:
            raise IndexError(height)
        number, offset, length = self.where[height]
        with open(self.path(number), "rb") as handle:
            data = os.pread(handle.fileno(), length, offset)
        try:
            return self.decode(data)
        except (ValueError, KeyError, TypeError) as exc:
            raise integrity(f"block {height} in {self.name(number)} can't be read ({exc})") from exc

    # -- writing ------------------------------------------------------------------------------------------------------------

    def append(self, record: t.Mapping[str, t.Any], durable: bool = True) -> None:
        data = self.encode(record)
        number = max(self.sizes, default=0)
        if self.sizes.get(number, 0) >= self.roll:
            number += 1
        if number != self._writer_number:
            self.close()
            os.makedirs(os.path.join(self.data_dir, "blocks"), exist_ok=True)
            self._writer = os.open(self.path(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._writer_number = number
        assert self._writer is not None
        offset = self.sizes.get(number, 0)
        canon._write_all(self._writer, data)
        if durable:
            os.fdatasync(self._writer)
        self.digests.setdefault(number, hashlib.sha256()).update(data)
        self.sizes[number] = offset + len(data)
        self.where.append((number, offset, len(data)))

    def entries(self) -> dict[str, t.Any]:
        """Size and digest of every file as it is now, for checksum.json."""
        return {self.name(n): {"size": self.sizes[n], "sha256": self.digests[n].copy().hexdigest()} for n in sorted(self.sizes)}

    def close(self) -> None:
        if self._writer is not None:
            os.fsync(self._writer)
            os.close(self._writer)
        self._writer, self._writer_number = None, -1


def prefix_entries(files: BlockFiles, height: int) -> dict[str, t.Any]:
    """What checksum.json says of the block files for a state at ``height``."""
    result = {}
    for number in files.numbers():
        keep = [w for w in files.where[: height + 1] if w[0] == number]
        if not keep:
            continue
        size = keep[-1][1] + keep[-1][2]
        with open(files.path(number), "rb") as handle:
            result[files.name(number)] = {"size": size, "sha256": canon.sha256(handle.read(size))}
    return result
