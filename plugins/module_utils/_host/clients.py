# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is still connected to a node that its gateways call empty, as the node's own host sees it. Pure.

A gateway's receipt tells from which addresses it comes, and which of its host's connections carried no request when it was empty.
Any other connection from there is a request, which a reload may have let in after the gateway's last look; unless what went over
it last was sent from here, as to a scraper on the gateway's host that has connected anew.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._core import tcp

Receipt = t.Mapping[str, t.Any]

#: What this host can say of a gateway's word: it sees connections under the address that the gateway named; it sees none, so they
#: may arrive under another (translated on the way), or there were none; the gateway is on this very host, where its program is
#: looked for instead of its address; the gateway named no address.
SEEN, UNSEEN, HERE, UNTOLD = "seen", "unseen", "same host", "untold"


@dataclasses.dataclass(frozen=True)
class Found:
    busy: tuple[str, ...]  # addresses of those that are still there
    idle: int  # connections that carry no request
    total: int  # established connections to the port
    gateways: t.Mapping[str, str]  # SEEN, UNSEEN, HERE or UNTOLD, of each


def _told(receipts: t.Iterable[Receipt]) -> set[tuple[str, int]]:
    return {
        (tcp.plain(str(address)), int(port))
        for receipt in receipts
        for address, ports in (receipt.get("connections") or {}).items()
        for port in ports
    }


def look(
    rows: t.Sequence[tcp.Row],
    port: int,
    receipts: t.Sequence[Receipt],
    listed: t.Iterable[str] = (),
    held_by: t.Callable[[str], set[str]] = lambda program: set(),
    at_rest: t.Collection[tuple[str, int]] = (),
) -> Found:
    """``listed``: the operator's addresses, whose every connection counts. ``held_by``: inodes of a program's sockets.

    ``at_rest``: other ends of connections that wait for nothing.
    """
    gateways = [receipt for receipt in receipts if receipt.get("driver") != "node"]
    told, strict = _told(gateways), {tcp.plain(one) for one in listed}
    named = {name: {tcp.plain(str(one)) for one in receipt.get("source_addresses") or ()} for name, receipt in _named(gateways)}
    sources = {address for found in named.values() for address in found}
    # Of a gateway on this host, the other end of its connections is in the same table.
    own = {
        inode for program in {str(one.get("driver")) for one in gateways if one.get("same_host")} for inode in held_by(program)
    }
    ends = {(row.local, row.local_port) for row in rows if row.inode in own}
    mine = [row for row in rows if row.local_port == port]
    joined = [row for row in mine if row.established]
    busy, idle = set(), 0
    for row in joined:
        end = (row.remote, row.remote_port)
        if row.remote in strict:
            busy.add(row.remote)
        elif row.remote in sources or end in ends:
            if (end in told or end in at_rest) and not row.queued:
                idle += 1
            else:
                busy.add(row.remote)
    seen = {row.remote for row in mine}
    verdicts = {name: _verdict(receipt, named[name], seen) for name, receipt in _named(gateways)}
    return Found(tuple(sorted(busy)), idle, len(joined), verdicts)


def _verdict(receipt: Receipt, sources: set[str], seen: set[str]) -> str:
    if receipt.get("same_host"):
        return HERE
    if not sources:
        return UNTOLD
    return SEEN if sources & seen else UNSEEN


def _named(receipts: t.Iterable[Receipt]) -> list[tuple[str, Receipt]]:
    return [(str(receipt.get("gateway")), receipt) for receipt in receipts]


def words(gateways: t.Mapping[str, str], receipts: t.Iterable[Receipt]) -> list[str]:
    """What the operator should know of gateways whose word this host can't confirm; empty when it confirms all."""
    found = []
    for name, receipt in _named(receipts):
        if gateways.get(name) == UNSEEN:
            addresses = ", ".join(receipt.get("source_addresses") or ())
            had = sum(len(ports) for ports in (receipt.get("connections") or {}).values())
            why = (
                f"it had {had} connection(s) open, so they end now or arrive here under another address"
                if had
                else "it had none open"
            )
            found.append(f"gateway {name}: no connection from {addresses} is seen here ({why}); its receipt stands alone")
        elif gateways.get(name) == UNTOLD:
            found.append(f"gateway {name} doesn't say from where it comes; its receipt stands alone")
    return found
