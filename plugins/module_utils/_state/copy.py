# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copying one file, with its SHA-256 taken on the way, and what surrounds its content: owner, mode, times, attributes.

Three ways, chosen by probing (``method_for``): ``reflink`` (the copy shares its blocks; the hash is taken of the copy, which
can't change any more), ``direct`` (each byte is read once, hashed and written, past the page cache, which stays the node's own)
and ``copy`` (the same through the page cache). Holes stay holes.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import errno
import fcntl
import gc
import hashlib
import mmap
import os
import pickle
import signal
import stat
import threading
import typing as t

from .._core.clock import CLOCK
from .kernel import can_clone, can_go_direct, clone, die_with, same_blocks
from .scan import DIRECTORY, FILE, SYMLINK, Found, found

BLOCK = 1 << 20
#: A disk serves several requests at a time as fast as one, also where there are fewer cores.
THREADS = 4
# From so many items on, processes are worth their start.
_MANY = 2000
REFLINK, DIRECT, COPY = "reflink", "direct", "copy"
#: Smaller files cost more requests than the page cache costs copies.
_DIRECT_FROM = 256 << 10
#: What direct requests start and end at: no disk wants more.
_ALIGN = 4096

_ZERO = bytes(BLOCK)
_local = threading.local()

T = t.TypeVar("T")
R = t.TypeVar("R")


class Hashed(t.NamedTuple):
    """SHA-256 of a file's first ``at`` bytes, to go on from. It can't leave the process that hashed them."""

    at: int
    state: t.Any


class Copied(t.NamedTuple):
    """``stable`` is false when the file changed, or may have, while it was read; ``size`` bytes were copied all the same.

    ``sparse``: the copy has holes. That is a fact about the copy: what a file system says of the source may still change.
    ``hashed``: of a large file's whole blocks.
    """

    sha256: str
    size: int
    stable: bool
    source: Found
    xattrs: dict[str, str]
    sparse: bool = False
    hashed: Hashed | None = None


class Pace:
    """Lets so many bytes a second through, over all threads together."""

    def __init__(self, bytes_per_second: float) -> None:
        self.rate = bytes_per_second
        self._lock = threading.Lock()
        self._free = CLOCK.monotonic()

    def spend(self, count: int) -> None:
        """Wait until the bytes that were just moved may have been. An idle second is not saved up."""
        with self._lock:
            now = CLOCK.monotonic()
            self._free = max(self._free, now) + count / self.rate
            wait = self._free - now
        if wait > 0:
            CLOCK.sleep(wait)


class Gone(Exception):
    """The name has vanished, or is another thing than the one that was seen."""


def _buffer() -> memoryview:
    """This thread's block, aligned to a page as direct requests want it."""
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(mmap.mmap(-1, BLOCK))
    return view


def method_for(directory: bytes) -> str:
    """The best way to copy into a directory from its own file system, by trying it."""
    return REFLINK if can_clone(directory) else DIRECT if can_go_direct(directory) else COPY


def _go_direct(handle: int, on: bool) -> bool:
    """Past the page cache from now on, or through it. False when nothing changed by that."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    if bool(flags & os.O_DIRECT) == on:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags ^ os.O_DIRECT)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            return False
        raise
    return True


def _read(handle: int, view: memoryview, at: int) -> int:
    try:
        return os.preadv(handle, [view], at)
    except OSError as exc:
        # A disk with larger blocks than ours, or a place between two of them.
        if exc.errno != errno.EINVAL or not _go_direct(handle, False):
            raise
        return os.preadv(handle, [view], at)


def _write(handle: int, view: memoryview, at: int, direct: bool) -> None:
    """Write all of it. Direct requests are of whole blocks; what is left at a file's end goes through the page cache."""
    while view:
        part = view[: len(view) & -_ALIGN or len(view)] if direct else view
        try:
            put = os.pwrite(handle, part, at)
        except OSError as exc:
            if exc.errno != errno.EINVAL or not _go_direct(handle, False):
                raise
            continue
        view, at = view[put:], at + put


def clean_mode(kind: str, mode: int) -> int:
    """The mode we keep: set-uid and, on files, set-gid have no place in a node's data."""
    return mode & (0o3777 if kind == DIRECTORY else 0o777)


def open_seen(path: bytes, seen: Found) -> tuple[int, os.stat_result]:
    """Open for reading the very file that was seen; the handle, and what it is now. Raises Gone."""
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
    return handle, info


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


def _stream(
    source: int,
    size: int,
    sparse: bool,
    state: t.Any,
    target: int | None,
    start: int = 0,
    pace: Pace | None = None,
    hashed: list[Hashed] | None = None,
) -> int:
    """Hash ``size`` bytes from ``start``, writing them to the same places of ``target``. Returns where it ended.

    ``hashed`` is given what the state was after the last whole block.
    """
    view = _buffer()
    direct = target is not None and size >= _DIRECT_FROM and bool(fcntl.fcntl(target, fcntl.F_GETFL) & os.O_DIRECT)
    for begin, end, data in _extents(source, size, sparse):
        at = max(begin, start)
        while at < end:
            if not data:
                want = min(BLOCK, end - at)
                state.update(_ZERO[:want] if want < BLOCK else _ZERO)
                at += want
                continue
            if hashed is not None and at and at + BLOCK > end:
                hashed[:] = [Hashed(at, state.copy())]
                hashed = None
            # A whole block is asked for, also at the end: direct requests have no other length.
            got = min(_read(source, view, at), end - at)
            if got == 0:
                return at
            state.update(view[:got])
            if target is not None:
                _write(target, view[:got], at, direct)
            if pace is not None:
                pace.spend(got)
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
        handle, dummy = open_seen(path, seen)
    except Gone:
        return False
    try:
        return _first_hole(handle) < seen.size
    finally:
        os.close(handle)


def hash_seen(path: bytes, seen: Found, *, cached: bool = False, pace: Pace | None = None) -> Copied:
    """SHA-256 of a file that was seen, without copying it. ``cached``: its content is likely in the page cache."""
    handle, before = open_seen(path, seen)
    try:
        if before.st_size >= _DIRECT_FROM and not cached:
            _go_direct(handle, True)
        state = hashlib.sha256()
        size = _stream(handle, before.st_size, is_sparse(seen), state, None, pace=pace)
        return _result(handle, seen, before, state.hexdigest(), size)
    finally:
        os.close(handle)


def copy_seen(
    path: bytes,
    seen: Found,
    target: bytes,
    method: str,
    meta: Found | None = None,
    *,
    cached: bool = False,
    pace: Pace | None = None,
    known: Hashed | None = None,
) -> Copied:
    """Copy a file that was seen to a new name. What had that name is removed first.

    Owner, mode and times of the copy are those of ``meta``, or of the source. ``cached``: nobody writes to the source any
    more, and its content is likely in the page cache, so that is where it is read. ``known``: of the copy that has the target's
    name; where the new one shares its blocks with that, they are not hashed again.
    """
    with contextlib.ExitStack() as stack:
        source, before = open_seen(path, seen)
        stack.callback(os.close, source)
        old: int | None = None
        if known is not None and method == REFLINK:
            with contextlib.suppress(FileNotFoundError):
                old = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, old)
        out = _create(target, clean_mode(FILE, (meta or seen).mode))
        stack.callback(os.close, out)
        sparse = before.st_blocks * 512 < before.st_size
        start, state = 0, hashlib.sha256()
        hashed: list[Hashed] = []
        after: os.stat_result | None = None
        large = before.st_size >= _DIRECT_FROM
        if method == REFLINK and before.st_size and clone(source, out):
            after = None if cached else os.fstat(source)
            size = os.fstat(out).st_size
            # The copies are compared, not copy and source: neither of them changes any more.
            if known is not None and old is not None and size >= known.at and not sparse and same_blocks(old, out, known.at):
                start, state, hashed = known.at, known.state.copy(), [known]
            if large and not cached:
                _go_direct(out, True)
            _stream(source if cached else out, size, sparse, state, None, start, pace, None if sparse else hashed)
        else:
            if large and method != COPY:
                _go_direct(out, True)
                if not cached:
                    _go_direct(source, True)
            size = _stream(source, before.st_size, sparse, state, out, pace=pace)
            if sparse:
                os.ftruncate(out, size)
        result = _result(source, seen, before, state.hexdigest(), size, after)
        apply(out, meta or result.source, result.xattrs)
        return result._replace(sparse=sparse and _first_hole(out) < size, hashed=hashed[0] if hashed else None)


def append_seen(
    path: bytes, seen: Found, target: bytes, old_size: int, old_sha256: str, *, cached: bool = False
) -> Copied | None:
    """Bring a copy of a file that only grew up to date by writing its tail. None unless it is provably that and a tail."""
    source, before = open_seen(path, seen)
    try:
        if before.st_size < old_size:
            return None
        if old_size >= _DIRECT_FROM and not cached:
            _go_direct(source, True)
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
    same = (before.st_mtime_ns, before.st_ctime_ns, before.st_size, size) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        size,
        after.st_size,
    )
    return Copied(sha256, size, same, found(seen.path, after), read_xattrs(handle))


def _create(target: bytes, mode: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(target, flags, mode)
    except FileExistsError:
        os.unlink(target)
        return os.open(target, flags, mode)


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
    given = (now.st_uid, now.st_gid) != (meta.uid, meta.gid)
    if given:
        os.chown(what, meta.uid, meta.gid, follow_symlinks=follow)
    for name, value in xattrs.items():
        os.setxattr(what, name, base64.b64decode(value), follow_symlinks=follow)
    mode = clean_mode(meta.type, meta.mode)
    # Giving a file away takes bits from its mode.
    if meta.type != SYMLINK and (given or stat.S_IMODE(now.st_mode) != mode or xattrs):
        os.chmod(what, mode)
    os.utime(what, ns=(meta.mtime_ns, meta.mtime_ns), follow_symlinks=follow)


def parallel(
    work: t.Callable[[T], R], items: t.Sequence[T], weight: t.Callable[[T], int], *, forks: bool = True
) -> t.Iterator[R]:
    """Do the work several at a time; results come in order. The first error stops the rest.

    Small items travel in batches, so that a hundred thousand of them don't cost a hundred thousand hand-overs. Large ones are
    worked on by threads, which only hash and wait for the disk; very many small ones by processes, where that is possible
    (``forks``: the work changes nothing in this process), because threads would hand each other the interpreter at each call.
    """
    batches: list[list[T]] = []
    room = total = 0
    for item in items:
        if room <= 0:
            batches.append([])
            room = 8 << 20
        batches[-1].append(item)
        size = weight(item)
        room -= size + (128 << 10)
        total += size
    many = len(items) >= _MANY and total < len(items) * _DIRECT_FROM
    # A lock that another thread holds would stay locked for good in a fork.
    if many and forks and threading.active_count() == 1:
        return _forked(work, batches)
    return _threaded(work, batches)


def _threaded(work: t.Callable[[T], R], batches: list[list[T]]) -> t.Iterator[R]:
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


def _forked(work: t.Callable[[T], R], batches: list[list[T]]) -> t.Iterator[R]:
    """Each of some processes takes every so-manieth batch, and may be one pipe's content ahead of whoever reads."""
    children: list[tuple[int, t.BinaryIO]] = []
    # What a collection in the child would touch, it would have to copy.
    gc.freeze()
    try:
        for number in range(THREADS):
            children.append(_child(work, batches[number::THREADS], [stream for dummy, stream in children]))
        for index in range(len(batches)):
            try:
                error, result = pickle.load(children[index % THREADS][1])  # noqa: S301 - from our own fork
            except EOFError:
                raise OSError(errno.ECHILD, "a process that copied files was ended from outside") from None
            if error is not None:
                raise error
            yield from result
    finally:
        gc.unfreeze()
        for pid, stream in children:
            stream.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _child(work: t.Callable[[T], R], batches: list[list[T]], others: list[t.BinaryIO]) -> tuple[int, t.BinaryIO]:
    ours, theirs = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, open(ours, "rb")
    try:
        gc.disable()
        os.close(ours)
        for other in others:
            other.close()
        die_with(parent)
        with open(theirs, "wb") as stream:
            for batch in batches:
                try:
                    answer: tuple[t.Any, list[R]] = (None, [work(item) for item in batch])
                except Exception as exc:  # handed to the parent, who raises it
                    answer = (exc, [])
                pickle.dump(answer, stream, pickle.HIGHEST_PROTOCOL)
                stream.flush()
    finally:
        # Whatever happened, what the parent does at its end is not for the child to do.
        os._exit(0)
