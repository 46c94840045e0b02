# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write-ahead journal: append-only, checksummed, fsynced records.

One record a line: ``<16 hex digits> <canonical JSON body>\\n``. The digits are the beginning of SHA-256(previous record's
digits + body), so that a cut, a flipped bit or an exchanged line shows. Behind the last record there are zeros, or what is
left of one record whose writing was interrupted; that is dropped on reading: what wasn't fsynced was not promised. The file
is pre-allocated, so that a full disk can't stop an undo.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import typing as t

from . import canonical
from .errors import IntegrityError
from .files import fsync_dir

#: Bytes that a journal owns beyond what it holds when it is opened.
RESERVE = 256 << 10
_START = "0" * 16


def _check(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode("ascii") + body).hexdigest()[:16]


def read(path: str) -> list[dict[str, t.Any]]:
    """Every whole record, in order. Raises IntegrityError when a record that isn't the last doesn't verify."""
    for dummy in range(2):
        # A look beside a writer may see records and not the one before them; the next look sees that, too.
        with contextlib.suppress(IntegrityError):
            return _parse(_content(path), path)[0]
    return _parse(_content(path), path)[0]


def _content(path: str) -> bytes:
    with open(path, "rb") as stream:
        return bytes(stream.read())


def _parse(data: bytes, path: str) -> tuple[list[dict[str, t.Any]], str, int]:
    records: list[dict[str, t.Any]] = []
    previous, offset = _START, 0
    while (end := data.find(b"\n", offset)) >= 0:
        check, dummy, body = data[offset:end].partition(b" ")
        if check.decode("ascii", "replace") != _check(previous, body):
            break
        records.append(canonical.loads(body, f"journal {path}, record {len(records) + 1}"))
        previous, offset = check.decode("ascii"), end + 1
    # Whatever sectors of one record reached the disk, its line feed is the last byte that isn't zero.
    if end >= 0 and data[end + 1 :].strip(b"\0"):
        raise IntegrityError(f"journal {path}: record {len(records) + 1} does not verify", path=path)
    return records, previous, offset


class Journal:
    """An open journal. ``append`` returns only when the record is on disk."""

    def __init__(self, path: str, reserve: int = RESERVE) -> None:
        self.path = path
        self._broken = False
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = _content(path)
            self.records, self._previous, self._offset = _parse(data, path)
            size = max(len(data), self._offset + reserve)
            try:
                os.posix_fallocate(self._handle, 0, size)
            except OSError:
                if not self.records:
                    raise
                size = len(data)  # a full disk; what was allocated is there
            # Written anew, although it is there: a record may be seen whose fsync failed and that nobody would write any more.
            # Zeros take away what an interrupted write left behind, and records overwrite blocks the file already owns.
            self._put(data[: self._offset] + bytes(size - self._offset), 0)
            os.fsync(self._handle)
            if not self.records:
                fsync_dir(os.path.dirname(os.path.abspath(path)))
        except BaseException:
            self.close()
            raise

    def _put(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, at)
            view, at = view[written:], at + written

    def append(self, record: dict[str, t.Any]) -> None:
        """Write one record and wait until it is durable. After an error the journal takes no more until it is opened anew."""
        if self._broken:
            raise OSError(errno.EIO, "an earlier record could not be written", self.path)
        body = canonical.dumps(record)
        check = _check(self._previous, body)
        line = check.encode("ascii") + b" " + body + b"\n"
        self._broken = True
        self._put(line, self._offset)
        os.fdatasync(self._handle)
        self._broken = False
        self._previous, self._offset = check, self._offset + len(line)
        self.records.append(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._handle)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
