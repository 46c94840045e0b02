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
import typing as t


def user_of(directory: str, option: str = "--data-dir", proc: str = "/proc") -> int | None:
    """Pid of a live process, other than this one, that uses ``directory``; the lowest when there are several; None when nobody.

    ``option`` is the command-line option by which a node is told its data directory (as ``OPTION DIR`` or ``OPTION=DIR``).
    """
    root = os.path.realpath(directory)
    if not os.path.isdir(root):
        return None
    lockers = _lockers(root, proc)
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        if pid == os.getpid() or _dead(pid, proc):
            continue
        if pid in lockers or _writes(pid, root, proc) or _was_told(pid, root, option, proc):
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
    try:
        handles = os.listdir(f"{proc}/{pid}/fd")
    except OSError:
        return False
    for handle in handles:
        with contextlib.suppress(OSError, ValueError):
            if _inside(os.readlink(f"{proc}/{pid}/fd/{handle}"), root) and _writable(pid, handle, proc):
                return True
    return any(_inside(path, root) for path in _mapped(pid, proc))


def _writable(pid: int, handle: str, proc: str) -> bool:
    with open(f"{proc}/{pid}/fdinfo/{handle}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _mapped(pid: int, proc: str) -> t.Iterator[str]:
    """Files mapped shared and writable: a database's memory map outlives its file descriptor."""
    with contextlib.suppress(OSError), open(f"{proc}/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[1][1] == "w" and fields[1][3] == "s":
                yield fields[5].rstrip("\n")


def _was_told(pid: int, root: str, option: str, proc: str) -> bool:
    try:
        with open(f"{proc}/{pid}/cmdline", "rb") as stream:
            words = [os.fsdecode(word) for word in stream.read().split(b"\0")]
        home = os.readlink(f"{proc}/{pid}/cwd")
    except OSError:
        words, home = [], "/"
    for index, word in enumerate(words):
        if word.startswith(option + "="):
            told = word[len(option) + 1 :]
        elif word == option and index + 1 < len(words):
            told = words[index + 1]
        else:
            continue
        if os.path.realpath(os.path.join(home, told)) == root:
            return True
    return False


def _inside(path: str, root: str) -> bool:
    return path.startswith(root + os.sep)
