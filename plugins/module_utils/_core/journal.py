# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write-ahead journal: append-only, checksummed, fsynced records.

One record a line: ``<16 hex digits> <canonical JSON body>\\n``. The digits are the beginning of SHA-256(previous record's
digits + body), so that a cut, a flipped bit or an exchanged line shows. A torn last line (power cut while writing) is
dropped on reading: what wasn't fsynced was not promised. The file is pre-allocated, so that a full disk can't stop an undo.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import typing as t

from . import canonical
from .errors import IntegrityError
from .files import fsync_dir

RESERVE = 256 << 10
_START = "0" * 16


def _check(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode("ascii") + body).hexdigest()[:16]


def read(path: str) -> list[dict[str, t.Any]]:
    """Every whole record, in order. Raises IntegrityError when a record that isn't the last doesn't verify."""
    return _scan(path)[0]


def _scan(path: str) -> tuple[list[dict[str, t.Any]], str, int]:
    with open(path, "rb") as stream:
        data = stream.read()
    records: list[dict[str, t.Any]] = []
    previous, offset = _START, 0
    while offset < len(data) and data[offset] != 0:
        end = data.find(b"\n", offset)
        line = data[offset : end if end >= 0 else len(data)].split(b"\0")[0]
        check, dummy, body = line.partition(b" ")
        if end < 0 or check.decode("ascii", "replace") != _check(previous, body):
            rest = data[end + 1 :].strip(b"\0\n") if end >= 0 else b""
            if rest:
                raise IntegrityError(f"journal {path}: record {len(records) + 1} does not verify", path=path)
            break
        records.append(canonical.loads(body, f"journal {path}, record {len(records) + 1}"))
        previous, offset = check.decode("ascii"), end + 1
    return records, previous, offset


class Journal:
    """An open journal. ``append`` returns only when the record is on disk."""

    def __init__(self, path: str, reserve: int = RESERVE) -> None:
        self.path = path
        fresh = not os.path.exists(path)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.records, self._previous, self._offset = ([], _START, 0) if fresh else _scan(path)
            # Allocated with content zero: records then overwrite blocks the file already owns.
            os.posix_fallocate(self._handle, 0, max(reserve, self._offset))
            os.fsync(self._handle)
        except BaseException:
            self.close()
            raise
        if fresh:
            fsync_dir(os.path.dirname(os.path.abspath(path)))

    def append(self, record: dict[str, t.Any]) -> None:
        """Write one record and wait until it is durable."""
        body = canonical.dumps(record)
        check = _check(self._previous, body)
        line = check.encode("ascii") + b" " + body + b"\n"
        view = memoryview(line)
        at = self._offset
        while view:
            written = os.pwrite(self._handle, view, at)
            view, at = view[written:], at + written
        # What a torn write left behind this record must not look like another one.
        tail = os.pread(self._handle, 1, at)
        if tail not in (b"", b"\0"):
            os.pwrite(self._handle, b"\0", at)
        os.fdatasync(self._handle)
        self._previous, self._offset = check, at
        self.records.append(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._handle)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
