# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import typing as t

from .clock import CLOCK, Clock
from .errors import Busy


def fsync_dir(path: str) -> None:
    """Make renames and new names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_dir(path: str, mode: int = 0o755) -> None:
    """Create a directory and its parents, durably. Existing ones are left as they are."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    make_dir(parent, mode)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    fsync_dir(parent)


def write_atomic(path: str, data: bytes | t.Iterable[bytes], mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Replace a file's content, given whole or in parts, so that a reader, or a crash, sees the old one or the new one, whole.

    ``owner`` is uid and gid; ours by default. What a crash leaves behind ends in ``.tmp``, which snapshots leave out.
    """
    parent = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines((data,) if isinstance(data, bytes) else data)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_dir(parent)


def set_aside(path: str, size: int) -> None:
    """A file that owns ``size`` bytes of its file system, durably, for whoever deletes it when there is no other space."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(handle, 0, size)
        os.fsync(handle)
    finally:
        os.close(handle)
    fsync_dir(os.path.dirname(os.path.abspath(path)))


def switch_link(link: str, target: str) -> None:
    """Point a symbolic link elsewhere, atomically and durably."""
    parent = os.path.dirname(os.path.abspath(link))
    temporary = os.path.join(parent, f".{os.path.basename(link)}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, link)
    fsync_dir(parent)


def read_or_none(path: str) -> bytes | None:
    """A file's content, or None when there is no such file."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def locked(path: str, *, what: str) -> t.Iterator[None]:
    """Hold an exclusive flock on a file (made when missing). Raises Busy at once when somebody else holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Busy(f"{what}: another process holds {path}", path=path) from exc
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked_dir(path: str, *, what: str, patience: float = 5.0, clock: Clock = CLOCK) -> t.Iterator[None]:
    """Hold an exclusive flock on a directory that is somebody else's: nothing is left in it. Waits; raises Busy, OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = clock.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if clock.monotonic() >= until:
                    raise Busy(f"{what}: another process holds {path}", path=path) from exc
                clock.sleep(0.05)
        yield
    finally:
        os.close(handle)
