# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel tells of TCP connections (``/proc/net/tcp`` and ``tcp6``), addresses written as people write them."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import typing as t

ESTABLISHED = "01"


class Row(t.NamedTuple):
    """One socket. ``queued``: bytes wait in it, to be sent, acknowledged or read."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    state: str  # two hexadecimal digits, as the kernel numbers them
    queued: bool
    inode: str

    @property
    def established(self) -> bool:
        return self.state == ESTABLISHED


def plain(address: str) -> str:
    """An address in the one way it is written here: no zone, no brackets, IPv4 where it is only mapped. A name stays a name."""
    bare = address.strip("[]").partition("%")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)


def place(host: str, port: int) -> str:
    """``host:port``; an IPv6 address stands in brackets."""
    bare = plain(host)
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def parted(text: str) -> tuple[str, int] | None:
    """Host and port of ``host:port``; None for what isn't one, as a unix socket's path."""
    host, dummy, port = text.rpartition(":")
    return (plain(host), int(port)) if host and port.isdigit() and not text.startswith("unix") else None


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def parse(text: str, states: t.Container[str] | None = None) -> list[Row]:
    """The rows of one table; its first line names the columns. ``states``: those that are wanted, where not all are."""
    found = []
    for line in text.splitlines()[1:]:
        cells = line.split()
        if states is not None and cells[3] not in states:
            continue
        (local, local_port), (remote, remote_port) = (_end(cell) for cell in cells[1:3])
        queued = any(int(size, 16) for size in cells[4].split(":"))
        found.append(Row(local, local_port, remote, remote_port, cells[3], queued, cells[9]))
    return found


def _end(cell: str) -> tuple[str, int]:
    host, dummy, port = cell.partition(":")
    return _address(host), int(port, 16)


@functools.lru_cache(maxsize=4096)  # a busy gateway has tens of thousands of rows, and few addresses
def _address(host: str) -> str:
    raw = b"".join(bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8))
    return plain(socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw))


def table(net: str = "/proc/net", states: t.Container[str] | None = None) -> list[Row]:
    """The sockets of a network name space. ``net``: ``/proc/net``, or a process's ``/proc/<pid>/net``."""
    found: list[Row] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(net, name), encoding="ascii") as handle:
            found += parse(handle.read(), states)
    return found


def source_towards(host: str) -> str | None:
    """The address from which this machine reaches a host; None where no way leads there. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.connect((host, 9))
            return plain(str(link.getsockname()[0]))
    except OSError:
        return None
