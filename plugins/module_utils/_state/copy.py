# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copying one file, with its SHA-256 taken on the way, and what surrounds its content: owner, mode, times, attributes.

Two ways, chosen by probing: ``reflink`` (the copy shares its blocks; the hash is taken of the copy, which can't change any
more) and ``copy`` (each byte is read once, hashed and written). Holes stay holes.
"""

from __future__ import annotations

import base64
import concurrent.futures
import errno
import hashlib
import os
import stat
import threading
import typing as t

from .kernel import clone
from .scan import DIRECTORY, FILE, SYMLINK, Found, found

BLOCK = 1 << 20
THREADS = max(2, min(4, os.cpu_count() or 2))
REFLINK, COPY = "reflink", "copy"

_ZERO = bytes(BLOCK)
_local = threading.local()

T = t.TypeVar("T")
R = t.TypeVar("R")


class Copied(t.NamedTuple):
    """``stable`` is false when the file changed, or may have, while it was read; ``size`` bytes were copied all the same.

    ``sparse``: the copy has holes. That is a fact about the copy: what a file system says of the source may still change.
    """

    sha256: str
    size: int
    stable: bool
    source: Found
    xattrs: dict[str, str]
    sparse: bool = False


class Gone(Exception):
    """The name has vanished, or is another thing than the one that was seen."""


def _buffer() -> memoryview:
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(bytearray(BLOCK))
    return view


def clean_mode(kind: str, mode: int) -> int:
    """The mode we keep: set-uid and, on files, set-gid have no place in a node's data."""
    return mode & (0o3777 if kind == DIRECTORY else 0o777)


def open_seen(path: bytes, seen: Found) -> int:
    """Open for reading the very file that was seen. Raises Gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise Gone from exc
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise Gone from exc
        raise
    info = os.fstat(handle)
    if (info.st_dev, info.st_ino) != (seen.dev, seen.ino) or not stat.S_ISREG(info.st_mode):
        os.close(handle)
        raise Gone
    return handle


def _extents(handle: int, size: int, sparse: bool) -> t.Iterator[tuple[int, int, bool]]:
    """``(start, end, data?)`` from 0 to ``size``, without gaps."""
    at = 0
    while sparse and at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                break
            if exc.errno == errno.EINVAL:
                sparse = False
                break
            raise
        start = min(start, size)
        end = min(os.lseek(handle, start, os.SEEK_HOLE), size) if start < size else size
        if start > at:
            yield at, start, False
        if end > start:
            yield start, end, True
        at = end
    if at < size:
        yield at, size, not sparse


def _stream(source: int, size: int, sparse: bool, state: t.Any, target: int | None, start: int = 0) -> int:
    """Hash ``size`` bytes from ``start``, writing them to the same places of ``target``. Returns where it ended."""
    view = _buffer()
    for begin, end, data in _extents(source, size, sparse):
        at = max(begin, start)
        while at < end:
            want = min(BLOCK, end - at)
            if not data:
                state.update(_ZERO[:want] if want < BLOCK else _ZERO)
                at += want
                continue
            got = os.preadv(source, [view[:want]], at)
            if got == 0:
                return at
            state.update(view[:got])
            if target is not None:
                put = 0
                while put < got:
                    put += os.pwrite(target, view[put:got], at + put)
            at += got
    return size


def is_sparse(seen: Found) -> bool:
    return seen.type == FILE and seen.blocks * 512 < seen.size


def _first_hole(handle: int) -> int:
    """Where the first hole begins; the file's size when it has none."""
    try:
        return os.lseek(handle, 0, os.SEEK_HOLE)
    except OSError:
        return os.fstat(handle).st_size


def has_hole(path: bytes, seen: Found) -> bool:
    """Has a file that was seen a hole? Asked of its extents: the blocks it owns may be more than its content needs."""
    try:
        handle = open_seen(path, seen)
    except Gone:
        return False
    try:
        return _first_hole(handle) < seen.size
    finally:
        os.close(handle)


def hash_seen(path: bytes, seen: Found) -> Copied:
    """SHA-256 of a file that was seen, without copying it."""
    handle = open_seen(path, seen)
    try:
        before = os.fstat(handle)
        state = hashlib.sha256()
        size = _stream(handle, before.st_size, is_sparse(seen), state, None)
        return _result(handle, seen, before, state.hexdigest(), size)
    finally:
        os.close(handle)


def copy_seen(path: bytes, seen: Found, target: bytes, method: str, meta: Found | None = None) -> Copied:
    """Copy a file that was seen to a new name. What had that name is removed first.

    Owner, mode and times of the copy are those of ``meta``, or of the source.
    """
    source = open_seen(path, seen)
    try:
        out = _create(target)
        try:
            before = os.fstat(source)
            sparse = is_sparse(found(seen.path, before))
            state = hashlib.sha256()
            after: os.stat_result | None = None
            if method == REFLINK and before.st_size and clone(source, out):
                after = os.fstat(source)
                size = os.fstat(out).st_size
                _stream(out, size, sparse, state, None)
            else:
                size = _stream(source, before.st_size, sparse, state, out)
                if os.fstat(out).st_size != size:
                    os.ftruncate(out, size)
            result = _result(source, seen, before, state.hexdigest(), size, after)
            apply(out, meta or result.source, result.xattrs)
            return result._replace(sparse=sparse and _first_hole(out) < size)
        finally:
            os.close(out)
    finally:
        os.close(source)


def append_seen(path: bytes, seen: Found, target: bytes, old_size: int, old_sha256: str) -> Copied | None:
    """Bring a copy of a file that only grew up to date by writing its tail. None unless it is provably that and a tail."""
    source = open_seen(path, seen)
    try:
        before = os.fstat(source)
        if before.st_size < old_size:
            return None
        state = hashlib.sha256()
        _stream(source, old_size, False, state, None)
        if state.hexdigest() != old_sha256:
            return None
        try:
            out = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(out).st_nlink != 1 or os.fstat(out).st_size < old_size:
                return None
            os.ftruncate(out, old_size)
            size = _stream(source, before.st_size, False, state, out, old_size)
            result = _result(source, seen, before, state.hexdigest(), size)
            apply(out, result.source, result.xattrs)
            return result
        finally:
            os.close(out)
    finally:
        os.close(source)


def _result(
    handle: int, seen: Found, before: os.stat_result, sha256: str, size: int, after: os.stat_result | None = None
) -> Copied:
    after = after or os.fstat(handle)
    first, last = found(seen.path, before), found(seen.path, after)
    return Copied(sha256, size, first.stamp() == last.stamp() and size == after.st_size, last, read_xattrs(handle))


def _create(target: bytes) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(target, flags, 0o600)
    except FileExistsError:
        os.unlink(target)
        return os.open(target, flags, 0o600)


def read_xattrs(what: int | bytes) -> dict[str, str]:
    """Extended attributes by name, base64. Without root, only those that anyone may set; capabilities of programs never."""
    follow = isinstance(what, int)
    try:
        names = os.listxattr(what, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
            return {}
        raise
    result: dict[str, str] = {}
    for name in names:
        ours = name.startswith(("user.", "system.posix_acl_"))
        if name == "security.capability" or not (ours or os.geteuid() == 0):
            continue
        try:
            result[name] = base64.b64encode(os.getxattr(what, name, follow_symlinks=follow)).decode("ascii")
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise
    return result


def apply(what: int | bytes, meta: Found, xattrs: t.Mapping[str, str]) -> None:
    """Give a copy (an open file, or a name that may be a directory or a symbolic link) its owner, attributes, mode and times."""
    follow = isinstance(what, int)
    now = os.stat(what, follow_symlinks=follow) if not follow else os.fstat(t.cast(int, what))
    if (now.st_uid, now.st_gid) != (meta.uid, meta.gid):
        os.chown(what, meta.uid, meta.gid, follow_symlinks=follow)
    for name, value in xattrs.items():
        os.setxattr(what, name, base64.b64decode(value), follow_symlinks=follow)
    if meta.type != SYMLINK:
        os.chmod(what, clean_mode(meta.type, meta.mode))
    os.utime(what, ns=(meta.mtime_ns, meta.mtime_ns), follow_symlinks=follow)


def parallel(work: t.Callable[[T], R], items: t.Sequence[T], weight: t.Callable[[T], int]) -> t.Iterator[R]:
    """Do the work in a few threads; results come in order. The first error stops the rest.

    Small items travel in batches, so that a hundred thousand of them don't cost a hundred thousand hand-overs.
    """
    batches: list[list[T]] = []
    room = 0
    for item in items:
        if room <= 0:
            batches.append([])
            room = 8 << 20
        batches[-1].append(item)
        room -= weight(item) + (128 << 10)
    stop = threading.Event()

    def do(batch: list[T]) -> list[R]:
        done: list[R] = []
        for item in batch:
            if stop.is_set():
                break
            done.append(work(item))
        return done

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        try:
            for result in pool.map(do, batches):
                yield from result
        finally:
            stop.set()
