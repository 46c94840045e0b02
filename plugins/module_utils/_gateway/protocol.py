# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway is, to the rest of the collection.

A driver tells how servers stand and changes how they stand. It decides nothing: that is ``drain.py``.
"""

from __future__ import annotations

import dataclasses
import typing as t

#: ``ready`` takes new requests, ``drain`` takes none (but sticky ones), ``maint`` takes none at all and is not checked.
READY, DRAIN, MAINT = "ready", "drain", "maint"


@dataclasses.dataclass(frozen=True)
class Server:
    """One server of one backend at one moment."""

    backend: str
    name: str
    address: str  # host:port as the gateway dials it
    state: str  # what was asked for: ready, drain or maint
    up: bool  # the gateway believes it is up; it also believes so of a server fresh out of maintenance
    confirmed: bool  # its health checks say so, all of the last ones; True where it has none
    weight: int
    initial_weight: int
    backup: bool
    sessions: int  # requests (HTTP) or connections (TCP) at the server now
    queued: int  # waiting for this very server
    total: int  # sessions since the gateway's process started
    also: tuple[str, ...] = ()  # further host:port that it dials for this server

    @property
    def in_flight(self) -> int:
        return self.sessions + self.queued

    @property
    def takes_traffic(self) -> bool:
        return self.state == READY and self.up and self.weight > 0

    @property
    def label(self) -> str:
        return f"{self.backend}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything a driver sees in one round trip.

    ``generation`` changes when the gateway's process is replaced (a reload). ``left_behind`` counts, per ``host:port``,
    what processes of an earlier generation still hold; None when that can't be seen from here. ``age``: seconds since
    this generation began. ``net``: the ``/proc/<pid>/net`` of its process; None when it can't be seen from here.
    """

    generation: str
    age: float
    servers: tuple[Server, ...]
    left_behind: t.Mapping[str, int] | None
    net: str | None = None
    #: The processes of earlier generations, by pid, and what each holds, per ``host:port``. ``left_behind`` is their sum.
    old: t.Mapping[int, t.Mapping[str, int]] = dataclasses.field(default_factory=dict)

    def find(self, name: str, backend: str | None = None) -> tuple[Server, ...]:
        return tuple(s for s in self.servers if s.name == name and backend in (None, s.backend))


def in_all(old: t.Mapping[int, t.Mapping[str, int]]) -> dict[str, int]:
    """``Look.left_behind`` of ``Look.old``."""
    found: dict[str, int] = {}
    for counts in old.values():
        for address, count in counts.items():
            found[address] = found.get(address, 0) + count
    return found


class GatewayDriver(t.Protocol):
    """Talks to one gateway. Raises Unreachable when it doesn't answer, Refused when it says no."""

    name: str
    can_maintain: bool  # knows maintenance as something else than a drain
    can_end_sessions: bool
    live_weights: bool  # a weight is changed without a reload

    def look(self) -> Look: ...

    def set_state(self, backend: str, server: str, state: str) -> None:
        """``ready``, ``drain`` or ``maint``."""

    def set_weight(self, backend: str, server: str, weight: int) -> None: ...

    def outlasts(self, backend: str, server: str) -> str:
        """See to it that a reload begins with the server out, as it is now; why it doesn't, or nothing."""

    def end_sessions(self, backend: str, server: str) -> int:
        """End every request that is at the server now; their clients see a connection that broke.

        Those of earlier generations as well, where they can be told to; returns how many these were.
        """
