# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connections a gateway's processes hold, as the kernel tells it under ``/proc``."""

from __future__ import annotations

import contextlib
import os

from .._core import tcp


def comm(proc: str, pid: int) -> str:
    """The name of a process's program. Raises FileNotFoundError or ProcessLookupError when there is no such process."""
    with open(os.path.join(proc, str(pid), "comm"), encoding="utf-8", errors="replace") as handle:
        return handle.read().strip()


def stat(proc: str, pid: int) -> list[str]:
    """What ``/proc/<pid>/stat`` has after the program's name: state, parent, ..."""
    with open(os.path.join(proc, str(pid), "stat"), encoding="utf-8", errors="replace") as handle:
        return handle.read().rpartition(")")[2].split()


def inodes_of(proc: str, pid: int) -> set[str]:
    """Inodes of the sockets that a process holds. Raises PermissionError for somebody else's."""
    folder = os.path.join(proc, str(pid), "fd")
    inodes: set[str] = set()
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(os.path.join(folder, number))
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    return inodes


def dialled(net: str, *groups: set[str]) -> list[dict[str, int]]:
    """How many sockets of each group are established, by ``host:port`` dialled. ``net``: a process's ``/proc/<pid>/net``."""
    counts: list[dict[str, int]] = [{} for dummy in groups]
    if not any(groups):
        return counts
    for row in tcp.table(net, {tcp.ESTABLISHED}):
        for group, found in zip(groups, counts):
            if row.inode in group:
                key = tcp.place(row.remote, row.remote_port)
                found[key] = found.get(key, 0) + 1
    return counts
