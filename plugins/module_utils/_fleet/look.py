# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking many nodes at once, one thread and one connection a node. What can't be asked is data; ``network.judge`` decides."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import typing as t

from .._chain.protocol import ChainAdapter, NodeClient, require_distinct
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, Unreachable
from .._core.http import public_url
from . import checks
from .network import Finding, Json, Limits, Signing, View, differing, heights_to_compare, judge, with_findings

#: Nodes may differ at the tip, trail, or stumble over a request: it counts when it is still so after this (seconds, times).
AGAIN = (2.0, 4)

#: A validator that is none of our nodes is there when it signed one of this many of the newest blocks.
LATELY = 5


@dataclasses.dataclass(frozen=True)
class Node:
    """Where to ask. ``address``: the signing address it should have, if known."""

    name: str
    api_url: str
    address: str | None = None


def look(
    adapter: ChainAdapter,
    nodes: t.Sequence[Node],
    *,
    timeout: float = 10.0,
    window: int = 20,
    limits: Limits | None = None,
    advance: int = 0,
    advance_timeout: float = 60.0,
    own_checks: t.Sequence[checks.Check] = (),
    clock: Clock = CLOCK,
) -> Json:
    """Ask all nodes and judge what they say; ``window`` is over how many blocks signatures are counted (0: not at all).

    ``advance``: blocks that every node that answers must add while it is watched, for up to ``advance_timeout`` seconds (0:
    nobody waits). ``own_checks``: asked of the nodes, or of whomever they name; what doesn't hold is a finding.

    Raises InputError for no nodes, and for two of one name or one URL: a node asked twice would agree with itself.
    """
    require_distinct(nodes)
    checks.require(own_checks)
    limits = limits or Limits()
    clients = {node.name: adapter.client(node.api_url, timeout=timeout) for node in nodes}
    views: list[View] = []
    try:
        with concurrent.futures.ThreadPoolExecutor(max_workers=min(len(nodes), 32)) as pool:
            for again in range(AGAIN[1] if len(nodes) > 1 else 1):
                if again:
                    clock.sleep(AGAIN[0])
                views = list(pool.map(_view, nodes, [clients[node.name] for node in nodes], views or [None] * len(nodes)))
                heights = heights_to_compare(views, limits.lag)
                views = list(pool.map(_with_hashes, views, [clients[view.name] for view in views], [heights] * len(views)))
                stumbled = any(view.error is not None and not view.gone for view in views)
                if len(heights) == 1 and not stumbled and not differing(views, heights[0])[1]:
                    break
            signing = _signing(views, clients, heights, window, pool)
            still = _advance(views, clients, advance, advance_timeout, clock, pool) if advance > 0 else {}
    finally:
        for client in clients.values():
            client.close()
    results = checks.run(own_checks, {node.name: node.api_url for node in nodes}, timeout=timeout, clock=clock)
    more = [
        Finding("still", name, f"{name} rose by {rose} blocks in {advance_timeout:g} s, {advance} were wanted")
        for name, rose in still.items()
    ]
    found = with_findings(judge(views, signing, limits, clock.wall()), [*more, *checks.findings(results)])
    return {**found, "checks": [dataclasses.asdict(one) for one in results]}


def _advance(
    views: t.Sequence[View],
    clients: t.Mapping[str, NodeClient],
    advance: int,
    seconds: float,
    clock: Clock,
    pool: concurrent.futures.Executor,
) -> dict[str, int]:
    """Nodes that did not add as many blocks in time, and how many they did."""
    first = {view.name: view.status.height for view in views if view.status is not None}
    left = dict.fromkeys(first, 0)
    until = clock.monotonic() + seconds
    while left:
        for name, height in zip(list(left), pool.map(_tip, [clients[name] for name in left])):
            if height is not None:
                left[name] = height - first[name]
        left = {name: rose for name, rose in left.items() if rose < advance}
        if clock.monotonic() >= until:
            break
        if left:
            clock.sleep(min(1.0, max(until - clock.monotonic(), 0.05)))
    return left


def _tip(client: NodeClient) -> int | None:
    try:
        return client.tip_height()
    except ChainopsError:
        return None


def _view(node: Node, client: NodeClient, before: View | None) -> View:
    if before is not None and before.gone:
        return before  # it was given its time
    view = View(node.name, public_url(node.api_url), node.address)
    try:
        view = dataclasses.replace(view, status=client.status())
        return dataclasses.replace(
            view,
            final_height=client.final_height(),
            validators=client.validators(),
            equivocations=client.equivocations(),
        )
    except ChainopsError as exc:
        # A node that can say where it is, but not the rest, is not one to rely on.
        return dataclasses.replace(view, status=None, error=exc.message, gone=isinstance(exc, Unreachable))


def _with_hashes(view: View, client: NodeClient, heights: tuple[int, ...]) -> View:
    if view.status is None:
        return view
    hashes: dict[int, str] = {}
    error = None
    for height in heights:
        try:
            if height <= view.status.height:
                hashes[height] = client.block_hash(height)
        except ChainopsError as exc:
            error = exc.message
    return dataclasses.replace(view, hashes=hashes, error=error)


def _signing(
    views: t.Sequence[View],
    clients: t.Mapping[str, NodeClient],
    heights: tuple[int, ...],
    window: int,
    pool: concurrent.futures.Executor,
) -> Signing | None:
    """Signatures on the last blocks, from a node that most agree with. None where blocks carry none, or nobody could be read."""
    if not heights or window < 1:
        return None
    block_hash, _others = differing(views, heights[-1])
    trusted = [view.name for view in views if block_hash is not None and view.hashes.get(heights[-1]) == block_hash]
    if not trusted:
        return None
    wanted = [height for height in range(heights[-1], heights[-1] - window, -1) if height > 1]
    try:
        if not wanted or clients[trusted[0]].block(wanted[0]).signers is None:
            return None
    except ChainopsError:
        return None
    # One thread a node: blocks are shared out, as all these nodes have the same ones.
    shares = [wanted[index :: len(trusted)] for index in range(len(trusted))]
    try:
        read = list(pool.map(_signers, [clients[name] for name in trusted], shares))
    except ChainopsError:
        return None  # a node went away while it was read: then nobody is known to have signed anything
    signers = {height: addresses for share in read for height, addresses in share.items()}
    signed: dict[str, int] = {}
    for addresses in signers.values():
        for address in addresses:
            signed[address] = signed.get(address, 0) + 1
    return Signing(len(wanted), signed, frozenset().union(*(signers[height] for height in wanted[:LATELY])))


def _signers(client: NodeClient, heights: t.Sequence[int]) -> dict[int, frozenset[str]]:
    return {height: frozenset(client.block(height).signers or ()) for height in heights}
