# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a directory, for nodes that keep neither a lock nor a pid file: asked of the kernel, in /proc.

A process counts as a user when it holds a lock on a file at the top of the directory, has a file in it open for writing or
mapped, or was started with the directory as an argument. Readers alone (a backup, somebody's pager) don't count. Needs root
or the node's own account: what belongs to others shows only by its command line.
"""

from __future__ import annotations

import contextlib
import os


def user_of(directory: str, option: str = "--data-dir", proc: str = "/proc") -> int | None:
    """Pid of a live process, other than this one, that uses ``directory``; the lowest when there are several; None when nobody.

    ``option`` is the command-line option by which a node is told its data directory (as ``OPTION DIR`` or ``OPTION=DIR``).
    """
    root = os.path.realpath(directory)
    if not os.path.isdir(root):
        return None
    lockers = _lockers(root, proc)
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        if pid == os.getpid():
            continue
        uses = pid in lockers or _writes(pid, root, proc) or _was_told(pid, root, option, proc)
        if uses and not _dead(pid, proc):
            return pid
    return None


def _dead(pid: int, proc: str) -> bool:
    """Gone, or a zombie: it holds nothing any more."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])
    except OSError:
        return True


def _lockers(root: str, proc: str) -> set[int]:
    """Pids in /proc/locks whose lock is on a file at the top of the directory (``maj:min:inode``, hexadecimal device)."""
    inodes: set[str] = set()
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    inodes.add(f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}")
    pids: set[int] = set()
    with contextlib.suppress(OSError), open(f"{proc}/locks", encoding="ascii") as stream:
        for line in stream:
            words = line.split()
            for before, word in zip(words, words[1:]):
                if word in inodes and before.isdigit():
                    pids.add(int(before))
    return pids


def _writes(pid: int, root: str, proc: str) -> bool:
    handles: list[str] = []
    with contextlib.suppress(OSError):
        handles = os.listdir(f"{proc}/{pid}/fd")
    for handle in handles:
        try:
            inside = os.readlink(f"{proc}/{pid}/fd/{handle}").startswith(root + os.sep)
            if inside and _writable(pid, handle, proc):
                return True
        except (OSError, ValueError):  # closed meanwhile
            continue
    return _mapped(pid, root, proc)


def _writable(pid: int, handle: str, proc: str) -> bool:
    with open(f"{proc}/{pid}/fdinfo/{handle}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _mapped(pid: int, root: str, proc: str) -> bool:
    """Whether a file in it is mapped shared and writable: a database's memory map outlives its file descriptor."""
    maps = _read(f"{proc}/{pid}/maps")
    inside = os.fsencode(root + os.sep)
    if inside not in maps:  # the longest of a process's files, and this says no of nearly all of them
        return False
    rows = (line.split(None, 5) for line in maps.split(b"\n"))
    return any(len(row) == 6 and row[1][1:2] == b"w" and row[1][3:4] == b"s" and row[5].startswith(inside) for row in rows)


def _was_told(pid: int, root: str, option: str, proc: str) -> bool:
    told = [os.fsdecode(word) for word in _read(f"{proc}/{pid}/cmdline").split(b"\0")]
    if not any(word.startswith(option) for word in told):
        return False
    home = "/"
    with contextlib.suppress(OSError):
        home = os.readlink(f"{proc}/{pid}/cwd")
    places = [after for word, after in zip(told, told[1:]) if word == option]
    places += [word[len(option) + 1 :] for word in told if word.startswith(option + "=")]
    return any(os.path.realpath(os.path.join(home, place)) == root for place in places)


def _read(path: str) -> bytes:
    """Nothing of a process that is gone, or that we may not look into."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as stream:
        return stream.read()
    return b""
