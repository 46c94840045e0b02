# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking through a tree: every name once, symbolic links never followed, nothing outside the tree ever seen.

Directories are opened by handle from their parent, so that a name exchanged for a link while we look leads nowhere. The
device and inode seen here are what a later ``open`` by name is checked against.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._core.errors import InputError, Refused
from .kernel import mount_points
from .names import OURS, Patterns, encode

FILE, DIRECTORY, SYMLINK, SOCKET, FIFO, DEVICE = "file", "dir", "symlink", "socket", "fifo", "device"
_TYPES = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFIFO: FIFO,
    stat.S_IFBLK: DEVICE,
    stat.S_IFCHR: DEVICE,
}
KEPT = frozenset({FILE, DIRECTORY, SYMLINK})
MAX_DEPTH = 256
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(t.NamedTuple):
    """One name. ``path`` is relative to the root, ``b""`` for the root itself."""

    path: bytes
    type: str
    dev: int
    ino: int
    nlink: int
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    blocks: int

    def stamp(self) -> str:
        """Equal stamps mean equal content, under the rule about racy timestamps (see ``snapshot.py``)."""
        return f"{self.ino}.{self.size}.{self.mtime_ns}.{self.ctime_ns}"


def found(path: bytes, info: os.stat_result) -> Found:
    """A stat result as a ``Found``."""
    return Found(
        path,
        _TYPES.get(stat.S_IFMT(info.st_mode), DEVICE),
        info.st_dev,
        info.st_ino,
        info.st_nlink,
        info.st_size,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_blocks,
    )


def join(root: bytes, relative: bytes) -> bytes:
    return root + b"/" + relative if relative else root


class Scan(t.NamedTuple):
    """``kept`` is sorted by path; ``skipped`` are sockets, FIFOs and devices; ``excluded`` matched a pattern (top-most names)."""

    kept: list[Found]
    skipped: list[Found]
    excluded: list[Found]


def nested_mounts(root: bytes) -> list[bytes]:
    """Mount points below a root (not the root itself)."""
    prefix = root.rstrip(b"/") + b"/"
    return sorted(path for path in mount_points() if path.startswith(prefix))


def scan(root: bytes, exclude: Patterns | None = None) -> Scan:
    """Look through a directory, or at a single file.

    Names that vanish while we look are left out. Raises InputError when the root isn't there, Refused when another file
    system is mounted inside: a rename can't take it along and a copy would silently leave it out or swell.
    """
    result = Scan([], [], [])
    try:
        top = found(b"", os.lstat(root))
    except FileNotFoundError as exc:
        raise InputError(f"{encode(root)} does not exist", path=encode(root)) from exc
    if top.type not in (FILE, DIRECTORY):
        raise InputError(f"{encode(root)} is a {top.type}; a root must be a directory or a file", path=encode(root))
    if top.type == FILE:
        result.kept.append(top)
        return result
    mounted = nested_mounts(root)
    if mounted:
        raise Refused(
            f"{encode(root)} has another file system mounted inside, at {encode(mounted[0])}; declare that as a root of its own "
            "outside of this one, or unmount it",
            path=encode(root),
            mounts=[encode(path) for path in mounted],
        )
    is_mount = root in mount_points()
    _walk(root, top, exclude or Patterns(()), is_mount, result)
    result.kept.sort()
    return result


def _walk(root: bytes, top: Found, exclude: Patterns, is_mount: bool, result: Scan) -> None:
    handle = os.open(root, _OPEN)
    result.kept.append(top)
    stack = [(handle, _list(b"", handle, exclude, is_mount, result))]
    try:
        while stack:
            handle, below = stack[-1]
            if not below:
                os.close(handle)
                stack.pop()
                continue
            entry = below.pop()
            if len(stack) > MAX_DEPTH:
                raise Refused(f"{encode(join(root, entry.path))} is more than {MAX_DEPTH} directories deep", path=encode(root))
            child = _enter(handle, entry)
            if child is not None:
                result.kept.append(entry)
                stack.append((child, []))
                stack[-1] = (child, _list(entry.path, child, exclude, False, result))
    finally:
        for handle, dummy in stack:
            os.close(handle)


def _enter(parent: int, entry: Found) -> int | None:
    """A handle of a directory seen in its parent, or None when it has gone or is another one by now."""
    try:
        child = os.open(entry.path.rpartition(b"/")[2], _OPEN, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            return None
        raise
    info = os.fstat(child)
    if (info.st_dev, info.st_ino) != (entry.dev, entry.ino):
        os.close(child)
        return None
    return child


def _list(prefix: bytes, handle: int, exclude: Patterns, is_mount: bool, result: Scan) -> list[Found]:
    """Sort the names of one directory into ``result``; return its directories."""
    below: list[Found] = []
    with os.scandir(handle) as names:
        for name in names:
            raw = os.fsencode(name.name)
            if not prefix and (raw == OURS or (is_mount and raw == b"lost+found")):
                continue
            relative = prefix + b"/" + raw if prefix else raw
            try:
                entry = found(relative, name.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            if exclude.names(relative):
                result.excluded.append(entry)
            elif entry.type == DIRECTORY:
                below.append(entry)
            elif entry.type in KEPT:
                result.kept.append(entry)
            else:
                result.skipped.append(entry)
    return below
