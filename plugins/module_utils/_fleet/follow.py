# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at one node, and waiting until it is as wanted. Conditions are pure; what can't be asked is a reason, not an error."""

from __future__ import annotations

import dataclasses
import typing as t

from .._chain.protocol import NodeClient, NodeStatus
from .._chain.registry import adapter
from .._core.clock import CLOCK, Clock, wait_for
from .._core.errors import ChainopsError, InputError, WaitTimeout
from .._core.http import public_url

Json = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Conditions; None (or empty) isn't looked at. ``timeout`` and ``interval`` in seconds, the rest in blocks or as named."""

    height_above: int | None = None
    advance: int | None = None
    tip_of: tuple[str, ...] = ()
    max_lag: int = 3
    version: str | None = None
    address: str | None = None
    address_required: bool = False
    peers_min: int | None = None
    included: str | None = None
    paused: bool | None = None
    healthy: bool | None = None
    timeout: float = 60.0
    interval: float = 0.5


@dataclasses.dataclass(frozen=True)
class Compared:
    """One other node: its tip's ``height``, and the two blocks ``at`` a height both have. ``error``: it could not be asked."""

    url: str
    height: int = -1
    at: int = -1
    ours: str = ""
    theirs: str = ""
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything one round of asking brought."""

    status: NodeStatus | None = None
    error: str | None = None
    final_height: int | None = None
    compared: tuple[Compared, ...] = ()
    included: bool | None = None
    unreadable: tuple[str, ...] = ()


def unmet(wanted: Wanted, seen: Look, first_height: int | None) -> tuple[str, ...]:
    """Which conditions don't hold, with numbers. ``first_height``: the first tip that was seen."""
    status = seen.status
    if status is None:
        return (f"the node could not be asked: {seen.error}",)
    reasons = list(seen.unreadable)
    if wanted.height_above is not None and status.height <= wanted.height_above:
        reasons.append(f"height {status.height} is not above {wanted.height_above}")
    if wanted.advance is not None:
        since = status.height if first_height is None else first_height
        if status.height - since < wanted.advance:
            reasons.append(
                f"height rose by {status.height - since} (from {since} to {status.height}), not yet by {wanted.advance}"
            )
    if wanted.version and status.version != wanted.version:
        told = "tells no version" if status.version is None else f"is version {status.version}"
        reasons.append(f"the node {told}, not {wanted.version}")
    if wanted.address:
        # Nodes that tell a version tell their address, too: null then means that it signs with none.
        if status.address is None and (wanted.address_required or status.version is not None):
            reasons.append(f"the node names no address that it signs with, and {wanted.address} was expected")
        elif status.address is not None and status.address.lower() != wanted.address.lower():
            reasons.append(f"the node signs as {status.address}, not {wanted.address}")
    if wanted.peers_min is not None:
        live = status.peers_live if status.peers_live is not None else status.peers_configured
        if (live or 0) < wanted.peers_min:
            reasons.append(f"{live if live is not None else 'unknown'} peers, not yet {wanted.peers_min}")
    if wanted.included is not None and seen.included is not True:
        reasons.append(f"transaction {wanted.included} is in no block yet")
    if wanted.paused is not None and status.paused is not wanted.paused:
        state = {True: "paused", False: "not paused", None: "unknown (is there an admin token?)"}[status.paused]
        reasons.append(f"its pause is {state}")
    if wanted.healthy is not None and status.healthy is not wanted.healthy:
        reasons.append(
            f"it calls itself {'healthy' if status.healthy else 'unhealthy'}: {', '.join(status.issues) or 'no issue named'}"
        )
    return (*reasons, *_tips(wanted, status, seen.compared))


def _tips(wanted: Wanted, status: NodeStatus, compared: t.Sequence[Compared]) -> list[str]:
    reasons = []
    answered = [one for one in compared if one.error is None]
    if len(answered) * 2 <= len(wanted.tip_of) and wanted.tip_of:
        silent = "; ".join(str(one.error) for one in compared if one.error is not None)
        reasons.append(f"only {len(answered)} of {len(wanted.tip_of)} other nodes could be compared with: {silent}")
    for one in answered:
        if one.ours != one.theirs:
            reasons.append(f"block {one.at} is {one.ours[:16]} here and {one.theirs[:16]} at {one.url}")
    if answered:
        highest = max(answered, key=lambda one: one.height)
        if status.height < highest.height - wanted.max_lag:
            lag = highest.height - status.height
            reasons.append(f"height {status.height} is {lag} blocks behind {highest.url} ({highest.height})")
    return reasons


def look(
    chain: str,
    api_url: str,
    wanted: Wanted | None = None,
    *,
    timeout: float = 10.0,
    api_key: str | None = None,
    admin_token: str | None = None,
    clock: Clock = CLOCK,
) -> Json:
    """One look, or as many as it takes; returns ``{"node", "met", "reasons", "waited"}``. Raises InputError only."""
    kind = adapter(chain)
    wanted = wanted or Wanted(timeout=0.0)
    if wanted.timeout < 0 or wanted.interval <= 0:
        raise InputError("wait.timeout must be at least 0 and wait.interval above 0 seconds")
    patience = max(0.5, min(timeout, wanted.timeout)) if wanted.timeout else timeout
    client = kind.client(api_url, timeout=patience, api_key=api_key, admin_token=admin_token)
    others = {url: kind.client(url, timeout=patience) for url in dict.fromkeys(wanted.tip_of)}
    if any(url.rstrip("/").lower() == api_url.rstrip("/").lower() for url in others):
        raise InputError(f"wait.tip_of names {public_url(api_url)} itself: a node always agrees with itself")
    first: list[int] = []
    rounds: list[tuple[Look, tuple[str, ...]]] = []
    start = clock.monotonic()

    def once() -> tuple[Look, tuple[str, ...]]:
        seen = _ask(client, others, wanted)
        if seen.status is not None and not first:
            first.append(seen.status.height)
        rounds.append((seen, unmet(wanted, seen, first[0] if first else None)))
        del rounds[:-1]
        return rounds[-1]

    try:
        wait_for(
            once,
            lambda state: not state[1],
            timeout=wanted.timeout,
            interval=wanted.interval,
            what=public_url(api_url),
            clock=clock,
            describe=lambda state: list(state[1]),
        )
    except WaitTimeout:
        pass  # what was seen last says it all
    finally:
        for one in (client, *others.values()):
            one.close()
    seen, reasons = rounds[-1]
    return {
        "node": _node(api_url, seen),
        "met": not reasons,
        "reasons": list(reasons),
        "waited": round(clock.monotonic() - start, 3),
    }


def _ask(client: NodeClient, others: t.Mapping[str, NodeClient], wanted: Wanted) -> Look:
    try:
        status = client.status()
    except ChainopsError as exc:
        return Look(error=exc.message)
    unreadable: list[str] = []
    final_height, included = None, None
    try:
        final_height = client.final_height()
        if wanted.included is not None:
            known = client.transaction(wanted.included)
            included = known is not None and known["state"] == "included"
    except ChainopsError as exc:
        unreadable.append(exc.message)
    compared = tuple(_compare(client, status, public_url(url), other) for url, other in others.items())
    return Look(status, None, final_height, compared, included, tuple(unreadable))


def _compare(client: NodeClient, status: NodeStatus, url: str, other: NodeClient) -> Compared:
    try:
        theirs = other.status()
        at = min(status.height, theirs.height)
        ours = status.tip_hash if at == status.height else client.block_hash(at)
        return Compared(url, theirs.height, at, ours, theirs.tip_hash if at == theirs.height else other.block_hash(at))
    except ChainopsError as exc:
        return Compared(url, error=exc.message)


def _node(api_url: str, seen: Look) -> Json:
    facts: Json = {field.name: None for field in dataclasses.fields(NodeStatus)}
    facts.update(seen.status.as_dict() if seen.status else {"issues": [], "healthy": False})
    return {
        **facts,
        "reachable": seen.status is not None,
        "error": seen.error,
        "api_url": public_url(api_url),
        "final_height": seen.final_height,
    }
