# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching what the canary's verdict is made of: series from Prometheus, signers from the chain."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing as t

from .._chain.protocol import Block, NodeClient
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, InputError
from . import canary as judge
from .canary import Check, Evidence, Outcome, Points, Tip
from .readers import Prometheus, Series

#: Tips are compared this many blocks down: where blocks aren't final at once, two honest tips may differ for a moment.
DEPTH = 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """``window``, ``past``, ``soak``, ``step``, ``settle``: seconds. ``addresses``: canary host to its signing address."""

    canary: tuple[str, ...]
    baseline: tuple[str, ...]
    checks: tuple[Check, ...]
    addresses: t.Mapping[str, str]
    label: str = "instance"
    window: float = 0.0
    past: float = 0.0
    before: float = 0.0
    soak: float = 0.0
    step: float = 5.0
    settle: float = 0.0
    looks: int = 4
    max_missed: int = 0
    min_blocks: int = 5
    max_lag: int = 3


def host_of(labels: t.Mapping[str, str], label: str, hosts: t.Iterable[str]) -> str | None:
    """Which host a series is of: its label is the host's name, or the name and a port."""
    value = labels.get(label, "")
    name, colon, port = value.rpartition(":")
    wanted = set(hosts)
    return value if value in wanted else name if colon and port.isdigit() and name in wanted else None


def by_host(series: t.Iterable[Series], label: str, hosts: t.Sequence[str]) -> dict[str, list[Points]]:
    result: dict[str, list[Points]] = {host: [] for host in hosts}
    for one in series:
        host = host_of(one.labels, label, hosts)
        if host is not None:
            result[host].append(one.points)
    return result


def gather(api: Prometheus, plan: Plan, check: Check, start: float, end: float) -> Evidence:
    """One check's evidence. What can't be asked becomes its ``problem``; a query that can't be right raises InputError."""
    hosts = [*plan.canary, *plan.baseline]
    try:
        now = by_host(api.query_range(check.query, start, end, plan.step), plan.label, hosts)
        past: dict[str, list[Points]] = {}
        if plan.past > 0 and plan.before > 0:
            past = by_host(api.query_range(check.query, plan.before - plan.past, plan.before, plan.step), plan.label, hosts)
    except InputError:
        raise
    except ChainopsError as exc:
        return Evidence({}, {}, {}, start, end, plan.step, problem=exc.message)
    return Evidence({h: now[h] for h in plan.canary}, {h: now[h] for h in plan.baseline}, past, start, end, plan.step)


def _block(client: NodeClient, height: int) -> Block:
    return client.block(height)


class Signers:
    """Who signed which block, from the first reader that answers; each height is read once.

    A block tells who signed the one before it, so the tip's own signers are known one block later.
    """

    def __init__(self, clients: t.Sequence[NodeClient]) -> None:
        self.clients = clients
        self.first: int | None = None
        self.seen: dict[int, tuple[str, ...] | None] = {}
        self.problem = ""

    def _ask(self, look: t.Callable[[NodeClient], t.Any]) -> t.Any:
        self.problem = "no reader was given"
        for client in self.clients:
            try:
                return look(client)
            except ChainopsError as exc:
                self.problem = exc.message
        return None

    def mark(self, back: int = 0) -> None:
        """Count from the next block on, or from ``back`` blocks before it."""
        status = self._ask(lambda client: client.status())
        if status is not None:
            self.first = max(status.height + 1 - back, 0)

    def read(self) -> None:
        """Read what is new. Stops quietly where no reader answers (``problem``); a later call goes on from there."""
        if self.first is None:
            self.mark()
            return
        status = self._ask(lambda client: client.status())
        if status is None:
            return
        height = max(self.seen, default=self.first - 1) + 1
        while height < status.height:
            block = self._ask(functools.partial(_block, height=height + 1))
            if block is None:
                return
            self.seen[height] = block.signers
            height += 1


class Tips:
    """Where the canaries' and the others' chains end, look after look. Clients by host."""

    def __init__(self, canary: t.Mapping[str, NodeClient], baseline: t.Mapping[str, NodeClient]) -> None:
        self.canary = canary
        self.baseline = baseline
        self.seen: dict[str, list[Tip]] = {host: [] for host in canary}

    def read(self) -> None:
        heights = {host: h for host, client in self.baseline.items() if (h := _height(client)) is not None}
        best = max(heights, key=lambda host: heights[host]) if heights else None
        for host, client in self.canary.items():
            height = _height(client)
            agrees: bool | None = None
            if height is not None and best is not None:
                common = max(min(height, heights[best]) - DEPTH, 0)
                with contextlib.suppress(ChainopsError):
                    agrees = client.block_hash(common) == self.baseline[best].block_hash(common)
            self.seen[host].append(Tip(height, heights[best] if best is not None else None, agrees))


def _height(client: NodeClient) -> int | None:
    try:
        return client.status().height
    except ChainopsError:
        return None


def watch(
    plan: Plan,
    api: Prometheus | None,
    signers: Signers | None,
    tips: Tips | None = None,
    clock: Clock = CLOCK,
    tell: t.Callable[[dict[str, t.Any]], None] = lambda look: None,
) -> dict[str, t.Any]:
    """Soak and judge. ``{"verdict", "checks", "looks", "seconds"}``; ends early when something fails."""
    began = clock.monotonic()
    if signers is not None:
        signers.mark(0 if plan.soak else 4 * plan.min_blocks)
    if plan.settle:
        clock.sleep(plan.settle)
        if signers is not None and plan.soak:
            signers.mark()
    origin, opened = clock.wall(), clock.monotonic()
    offset = _offset(api, origin)
    if tips is not None:
        tips.read()
    looks: list[dict[str, t.Any]] = []
    count = max(plan.looks, 1) if plan.soak else 1
    outcomes: list[Outcome] = []
    for number in range(1, count + 1):
        target = opened + plan.soak * number / count
        while (left := target - clock.monotonic()) > 0:
            clock.sleep(min(left, 1.0))
        if signers is not None:
            signers.read()
        if tips is not None:
            tips.read()
        final = number == count
        end = origin + offset + (clock.monotonic() - opened)
        start = end - plan.window if plan.window else origin + offset
        outcomes = []
        for check in plan.checks:
            if api is None:
                outcomes.append(Outcome(check.name, judge.INCONCLUSIVE, "no prometheus_url to ask"))
                continue
            evidence = gather(api, plan, check, start, end)
            outcomes.append(judge.assess(check, evidence, looks=count, final=final))
        outcomes += _missed(plan, signers, final)
        if tips is not None:
            outcomes += [judge.follows(host, seen, plan.max_lag) for host, seen in sorted(tips.seen.items())]
        said = judge.verdict(outcomes)
        look = {"seconds": round(clock.monotonic() - began, 1), "verdict": said, "look": number, "of": count}
        looks.append(look)
        tell({**look, "checks": [o.as_dict() for o in outcomes]})
        if said == judge.FAIL:
            break
    return {
        "verdict": judge.verdict(outcomes),
        "checks": [o.as_dict() for o in outcomes],
        "looks": looks,
        "seconds": round(clock.monotonic() - began, 1),
    }


def _offset(api: Prometheus | None, origin: float) -> float:
    """Prometheus's clock minus ours: windows are cut on its clock."""
    if api is None:
        return 0.0
    try:
        return api.now() - origin
    except ChainopsError:
        return 0.0


def _missed(plan: Plan, signers: Signers | None, final: bool) -> list[Outcome]:
    if signers is None or not plan.addresses:
        return []
    outcomes = judge.missed(signers.seen, plan.addresses, plan.max_missed, plan.min_blocks)
    if signers.problem and not signers.seen:
        return [dataclasses.replace(o, verdict=judge.INCONCLUSIVE, reason=signers.problem) for o in outcomes]
    return [o if final or o.verdict != judge.PASS else dataclasses.replace(o, reason=f"so far: {o.reason}") for o in outcomes]
