# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of processes: alive or not, since when, which files they run from and hold open."""

from __future__ import annotations

import contextlib
import os
import time

from .._core import tcp


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return None


def alive(pid: int) -> bool:
    """Is there such a process, and is it more than a zombie?"""
    fields = _stat(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; with the pid it names a process for good. None: no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields is not None else None


def started_at(pid: int) -> float | None:
    """When the process started, seconds since the epoch as the clock counts now, to a hundredth of a second or so."""
    ticks = start_ticks(pid)
    if ticks is None:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def paths(pid: int) -> tuple[str, ...]:
    """Resolved paths a process runs from: executable, working directory and every file mapped into it."""
    found: list[str] = []
    for name in ("exe", "cwd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/{name}"))
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
        found.extend({line.split(maxsplit=5)[5].rstrip("\n") for line in stream if line.count("/")})
    return tuple(found)


def cmdline(pid: int) -> tuple[str, ...]:
    """The arguments of a process. Never shown to anybody: they may hold what they should not."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return tuple(os.fsdecode(part) for part in stream.read().split(b"\0") if part)
    except OSError:
        return ()


def children(of: int) -> list[int]:
    """Every live descendant of a process."""
    parents = {}
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else None
        if fields is not None:
            parents[int(name)] = int(fields[1])
    found: list[int] = []
    frontier = {of}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found.extend(frontier)
    return found


def connections() -> list[tcp.Row]:
    """Every TCP socket of this host, listening ones and those that are closing included."""
    return tcp.table()


def at_rest(port: int) -> set[tuple[str, int]]:
    """Other ends of connections to a port that wait for nothing; none where the kernel doesn't tell, and then all may wait."""
    try:
        return tcp.at_rest(port)
    except OSError:
        return set()


def sockets_of(program: str) -> set[str]:
    """Inodes of the sockets that processes of a program's name hold; those of processes that can't be looked at are missing."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                if stream.read().strip() != program:
                    continue
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    link = os.readlink(f"/proc/{pid}/fd/{number}")
                    if link.startswith("socket:["):
                        found.add(link[8:-1])
    return found


def boot_id() -> str:
    """Names this boot of the machine; another one after a reboot. CHAINOPS_BOOT_ID overrides it, for rehearsing a reboot."""
    override = os.environ.get("CHAINOPS_BOOT_ID")
    if override:
        return override
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()
