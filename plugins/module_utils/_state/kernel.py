# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel offers and Python's ``os`` doesn't: cloning, exchanging, one sync for a whole file system, mount points."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import signal
import struct
import typing as t

FICLONE = 0x40049409
_FIEMAP, _FIEMAP_SYNC, _FIEMAP_HEADER, _FIEMAP_EXTENT = 0xC020660B, 1, "=QQLLLL", "=QQQ16xL12x"
# The last one; merged from several; shared with another file. Any other flag says that a place isn't one, or not yet.
_FIEMAP_PLAIN = 0x1 | 0x1000 | 0x2000
_EXTENTS_AT_ONCE, _EXTENTS_AT_MOST = 256, 4096
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_BTRFS_MAGIC, _BTRFS_TOP, _BTRFS_READ_ONLY = 0x9123683E, 256, 1 << 1
_BTRFS_SNAP_CREATE_V2, _BTRFS_SNAP_DESTROY = 0x50009417, 0x5000940F
#: The inode number under which a btrfs snapshot shows a subvolume that lies inside its source, and was not taken along.
BTRFS_LEFT_OUT = 2
_NOT_OFFERED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EPERM})

_libc = ctypes.CDLL(None, use_errno=True)


def clone(source: int, target: int) -> bool:
    """Make ``target`` (an open, empty file) share the blocks of ``source``. False where the file system can't."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as exc:
        if exc.errno in _NOT_OFFERED or exc.errno == errno.ETXTBSY:
            return False
        raise
    return True


def same_blocks(one: int, other: int, upto: int) -> bool:
    """Do two open files have the same blocks of the disk for their first ``upto`` bytes? Then they hold the same there.

    Only where it can be proven: both have plain extents of their own, none compressed, inline or not written yet. No file system
    that shares blocks writes to one that is shared. The structures are those of the kernel's ``linux/fiemap.h``.
    """
    first = _extents(one, upto)
    return first is not None and first == _extents(other, upto)


def _extents(handle: int, upto: int) -> list[tuple[int, int, int]] | None:
    """``(place in the file, place on the disk, length)`` of the first ``upto`` bytes; None where that isn't known for sure."""
    found: list[tuple[int, int, int]] = []
    at, head, each = 0, struct.calcsize(_FIEMAP_HEADER), struct.calcsize(_FIEMAP_EXTENT)
    while at < upto:
        answer = bytearray(head + each * _EXTENTS_AT_ONCE)
        struct.pack_into(_FIEMAP_HEADER, answer, 0, at, upto - at, _FIEMAP_SYNC, 0, _EXTENTS_AT_ONCE, 0)
        try:
            fcntl.ioctl(handle, _FIEMAP, answer)
        except OSError as exc:
            if exc.errno in _NOT_OFFERED:
                return None
            raise
        count = struct.unpack_from(_FIEMAP_HEADER, answer)[3]
        for number in range(count):
            logical, physical, length, flags = struct.unpack_from(_FIEMAP_EXTENT, answer, head + each * number)
            if flags & ~_FIEMAP_PLAIN or not length:
                return None
            length, at = min(length, upto - logical), logical + length
            if found and (sum(found[-1][::2]), sum(found[-1][1:])) == (logical, physical):
                found[-1] = (*found[-1][:2], found[-1][2] + length)
            else:
                found.append((logical, physical, length))
        if count < _EXTENTS_AT_ONCE:
            return found
        if len(found) > _EXTENTS_AT_MOST:
            return None
    return found


def can_clone(directory: bytes) -> bool:
    """Probe, with two small files, whether the file system of a directory can share blocks."""
    first, second = (os.path.join(directory, f".probe-{os.getpid()}-{n}".encode()) for n in (1, 2))
    try:
        with open(first, "wb") as one:
            one.write(b"probe")
        with open(first, "rb") as one, open(second, "wb") as two:
            return clone(one.fileno(), two.fileno())
    finally:
        for path in (first, second):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def can_go_direct(directory: bytes) -> bool:
    """Probe, with a small file, whether the file system of a directory takes requests past the page cache."""
    path = os.path.join(directory, f".probe-{os.getpid()}-3".encode())
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_DIRECT, 0o600)
        try:
            with mmap.mmap(-1, 4096) as page:
                return os.pwrite(handle, page, 0) == 4096 and os.preadv(handle, [page], 0) == 4096
        finally:
            os.close(handle)
    except OSError as exc:
        if exc.errno in _NOT_OFFERED:
            return False
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def snapshot_subvolume(source: str, target: str) -> bool:
    """Make ``target`` a read-only snapshot of ``source``, at one moment. False unless that is a btrfs subvolume, and we may.

    The structures are those of the kernel's ``linux/btrfs.h``.
    """
    folder, name = os.path.split(os.fsencode(target))
    if os.stat(source).st_ino != _BTRFS_TOP or _file_system(source) != _BTRFS_MAGIC:
        return False
    from_, into = os.open(source, os.O_RDONLY | os.O_CLOEXEC), os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(into, _BTRFS_SNAP_CREATE_V2, bytearray(struct.pack("=qQQ32x4040s", from_, 0, _BTRFS_READ_ONLY, name)))
    except OSError as exc:
        if exc.errno in _NOT_OFFERED or exc.errno == errno.EACCES:
            return False
        raise
    finally:
        os.close(from_)
        os.close(into)
    return True


def delete_subvolume(path: str) -> None:
    """Delete what ``snapshot_subvolume`` made."""
    folder, name = os.path.split(os.fsencode(path))
    into = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(into, _BTRFS_SNAP_DESTROY, bytearray(struct.pack("=q4088s", 0, name)))
    finally:
        os.close(into)


def _file_system(path: str) -> int:
    """``f_type`` of statfs(2), which is the first long of its answer on every Linux."""
    answer = (ctypes.c_long * 32)()
    if _libc.statfs(os.fsencode(path), ctypes.byref(answer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return int(answer[0]) & 0xFFFFFFFF


def sync_file_system(path: str | bytes) -> None:
    """Write out everything dirty on the file system that holds ``path``, and wait for it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call = getattr(_libc, "syncfs", None)
        if call is None:
            os.sync()
        elif call(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fsdecode(path))
    finally:
        os.close(handle)


def exchange(one: str | bytes, other: str | bytes) -> bool:
    """Swap two names atomically. False where the kernel or the file system doesn't offer it."""
    return _rename(one, other, _RENAME_EXCHANGE)


def rename_new(source: str | bytes, target: str | bytes) -> None:
    """Rename without ever replacing anything. Raises FileExistsError."""
    if not _rename(source, target, _RENAME_NOREPLACE):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))
        os.rename(source, target)


def _rename(source: str | bytes, target: str | bytes, flags: int) -> bool:
    call = getattr(_libc, "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(source), None, os.fsdecode(target))


def mount_points() -> dict[bytes, str]:
    """Every mount point this process sees, with the type of what is mounted there. Bind mounts are among them."""
    with open("/proc/self/mountinfo", "rb") as stream:
        lines = stream.read().splitlines()
    found: dict[bytes, str] = {}
    for line in lines:
        before, dummy, after = line.partition(b" - ")
        path = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m.group(1), 8)]), before.split(b" ")[4])
        found[path] = after.split(b" ")[0].decode("ascii", "replace")
    return found


def die_with(parent: int) -> None:
    """Have this process killed when its parent ends, also when that was killed."""
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def own_namespaces() -> None:
    """Give this process a network of its own, without anything in it, and the processes it starts numbers of their own."""
    new_network, new_processes = 0x40000000, 0x20000000
    if _libc.unshare(new_network | new_processes) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextlib.contextmanager
def idle_io() -> t.Iterator[None]:
    """Do what follows (in this thread) with the lowest I/O priority, where the kernel lets us say so."""
    numbers = {"x86_64": (251, 252), "aarch64": (30, 31)}.get(os.uname().machine)
    if numbers is None:
        yield
        return
    setter, getter = numbers
    before = _libc.syscall(getter, 1, 0)
    _libc.syscall(setter, 1, 0, 3 << 13)
    try:
        yield
    finally:
        if before >= 0:
            _libc.syscall(setter, 1, 0, before)
