# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From which addresses a gateway's host reaches a server, and which connections to it are open there.

It goes into the receipt, so that the server's own host knows whom to look for. Connections that are open while nothing is in
flight carry no request: what a gateway keeps for later, and those of other programs on its host, as a scraper's.
"""

from __future__ import annotations

import os
import typing as t

from .._core import tcp


def reach(rows: t.Iterable[tcp.Row], servers: t.Iterable[str], sources: t.Mapping[str, str | None]) -> dict[str, t.Any]:
    """What a receipt says of it. ``servers``: ``host:port`` each; ``sources``: by the server's host, the address towards it.

    ``same_host``: a server's address is the gateway host's own. Such an address tells nothing, everybody there has it, and it is
    not among ``source_addresses``. ``connections``: ports by address.
    """
    ends = {end for end in map(tcp.parted, servers) if end is not None}
    addresses: set[str] = set()
    connections: dict[str, set[int]] = {}
    same_host = False
    for host, source in sources.items():
        same_host |= source == host or tcp.is_loopback(host)
        addresses |= {source} - {None, host}  # type: ignore[arg-type]
    for row in rows:
        if row.established and (row.remote, row.remote_port) in ends:
            connections.setdefault(row.local, set()).add(row.local_port)
            same_host |= row.local == row.remote
            addresses |= {row.local} - {row.remote}
    return {
        "source_addresses": sorted(one for one in addresses if not tcp.is_loopback(one)),
        "connections": {address: sorted(ports) for address, ports in sorted(connections.items())},
        "same_host": same_host,
    }


def look(net: str | None, servers: t.Iterable[str]) -> dict[str, t.Any] | None:
    """As ``reach``, of this very moment; None where it can't be told. ``net``: ``/proc/<pid>/net`` of a gateway's process."""
    if net is None:
        return None
    places = sorted(set(servers))
    hosts = sorted({end[0] for end in map(tcp.parted, places) if end is not None})
    try:
        rows = tcp.table(net, {tcp.ESTABLISHED})
        # In another name space, the address from which this process would go there is not the gateway's.
        here = os.readlink("/proc/self/ns/net") == os.readlink(os.path.join(os.path.dirname(net), "ns", "net"))
    except OSError:
        return None
    return reach(rows, places, {host: tcp.source_towards(host) for host in hosts} if here else {})
