# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel tells of TCP connections, addresses written as people write them.

``/proc/net/tcp`` and ``tcp6`` say which there are; netlink's sock_diag (``linux/inet_diag.h``, and ``struct tcp_info`` in
``linux/tcp.h``) says when either end last sent something.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import struct
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


#: NETLINK_SOCK_DIAG; SOCK_DIAG_BY_FAMILY; NLM_F_REQUEST and NLM_F_DUMP; INET_DIAG_INFO; the end of a dump, and an error.
_DIAG, _BY_FAMILY, _DUMP, _INFO, _DONE, _ERROR = 4, 20, 0x301, 2, 3, 2
_PATIENCE = 2.0


def answered(sent_ago: int, received_ago: int, sent: int, received: int) -> bool:
    """Whether the other end waits for nothing, as far as bytes tell: it has asked nothing, or what came last went out from here.

    Milliseconds since data were last sent and received, bytes that were acknowledged and received. The kernel's clock ticks every
    few milliseconds: where both fell into one tick, what was received is taken for answered if anything ever was.
    """
    return received == 0 or (sent > 1 and sent_ago <= received_ago)


def at_rest(port: int) -> set[tuple[str, int]]:
    """Other ends of established connections to a local port that are ``answered``. Raises OSError where nobody tells."""
    found = set()
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        for local, remote, remote_port, info in _diag(family, size):
            if local == port and len(info) >= 136:
                sent_ago, dummy, received_ago = struct.unpack_from("=III", info, 44)
                if answered(sent_ago, received_ago, *struct.unpack_from("=QQ", info, 120)):
                    found.add((plain(remote), remote_port))
    return found


def _diag(family: int, size: int) -> t.Iterator[tuple[int, str, int, bytes]]:
    """(local port, remote address, remote port, tcp_info) of every established connection."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _DIAG) as link:
        link.settimeout(_PATIENCE)
        body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, 1 << int(ESTABLISHED, 16)) + bytes(48)
        link.send(struct.pack("=IHHII", 16 + len(body), _BY_FAMILY, _DUMP, 1, 0) + body)
        while True:
            data = link.recv(1 << 17)
            at = 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR or length < 16:
                    raise OSError(f"sock_diag: message {kind} of {length} bytes")
                message = data[at + 16 : at + length]
                local, remote_port = struct.unpack_from(">HH", message, 4)
                remote = socket.inet_ntop(family, message[24 : 24 + size])
                yield local, remote, remote_port, _attribute(message, 72)
                at += -(-length // 4) * 4


def _attribute(message: bytes, at: int) -> bytes:
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _INFO:
            return message[at + 4 : at + length]
        at += max(4, -(-length // 4) * 4)
    return b""
