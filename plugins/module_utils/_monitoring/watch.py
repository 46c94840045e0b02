# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching what the canary's verdict is made of: series from Prometheus, signers from the chain."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import statistics
import typing as t

from .._chain.protocol import Block, NodeClient, NodeStatus
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, InputError
from . import canary as judge
from . import promql
from .canary import Check, Evidence, Outcome, Points, Tip
from .readers import Prometheus, Series

#: Tips are compared this many blocks down: where blocks aren't final at once, two honest tips may differ for a moment.
DEPTH = 2


#: How often nodes are asked how they are during a soak, at least.
PROBES = 16
#: Of the whole rollout's blocks, at most so many are read to count what was missed.
MOST_BLOCKS = 2000


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a whole rollout may use up. ``{window}`` in the query becomes the time since it began, as PromQL writes it."""

    name: str
    query: str
    allowed: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """``window``, ``past``, ``soak``, ``extend``, ``step``, ``settle``, ``max_slower``: seconds; ``before`` and ``began``: since
    the epoch. ``addresses``: canary host to its signing address; ``fleet``: every host of ours to its address.
    """

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
    extend: float = 0.0
    max_slower: float = 0.3
    height_query: str = ""
    began: float = 0.0
    budgets: tuple[Budget, ...] = ()
    since_height: int = 0
    budget_missed: int = -1
    fleet: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


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
    raw = promql.raw_counters(check.query)
    if raw:
        problem = f"{', '.join(raw)} only ever grows, and starts again with the node: compare rate(...) or increase(...) of it"
        return Evidence({}, {}, {}, start, end, plan.step, problem=problem)
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

    def __init__(self, clients: t.Sequence[NodeClient], first: int | None = None) -> None:
        self.clients = clients
        self.first = first
        self.seen: dict[int, tuple[str, ...] | None] = {}
        self.made: dict[int, tuple[float, str | None]] = {}
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

    def latest(self, most: int) -> None:
        """Begin later when there would be more than ``most`` blocks to read."""
        status = self._ask(lambda client: client.status())
        if status is not None and self.first is not None:
            self.first = max(self.first, status.height - most)

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
            self.made[height + 1] = (block.time, block.proposer)
            height += 1


class Tips:
    """Where the canaries' and the others' chains end, look after look. Clients by host."""

    def __init__(self, canary: t.Mapping[str, NodeClient], baseline: t.Mapping[str, NodeClient]) -> None:
        self.canary = canary
        self.baseline = baseline
        self.seen: dict[str, list[Tip]] = {host: [] for host in canary}

    def read(self) -> None:
        told = {host: status for host, client in self.baseline.items() if (status := _status(client)) is not None}
        heights = {host: status.height for host, status in told.items()}
        peers = [status.peers_live for status in told.values() if status.peers_live is not None]
        best = max(heights, key=lambda host: heights[host]) if heights else None
        for host, client in self.canary.items():
            status = _status(client)
            height = status.height if status is not None else None
            agrees: bool | None = None
            if height is not None and best is not None:
                common = max(min(height, heights[best]) - DEPTH, 0)
                with contextlib.suppress(ChainopsError):
                    agrees = client.block_hash(common) == self.baseline[best].block_hash(common)
            self.seen[host].append(
                Tip(
                    height,
                    heights[best] if best is not None else None,
                    agrees,
                    status.peers_live if status is not None else None,
                    statistics.median(peers) if peers else None,
                )
            )


def _status(client: NodeClient) -> NodeStatus | None:
    try:
        return client.status()
    except ChainopsError:
        return None


class Probes:
    """What we see of every node ourselves, one small request each, again and again: no exporter can lie about it.

    Each host's tip height and how long the answer took, at the same moments; no answer is NaN.
    """

    def __init__(self, clients: t.Mapping[str, NodeClient], step: float, clock: Clock = CLOCK) -> None:
        self.clients = clients
        self.step = step
        self.clock = clock
        self.moments: list[float] = []
        self.heights: dict[str, list[tuple[float, float]]] = {host: [] for host in clients}
        self.seconds: dict[str, list[tuple[float, float]]] = {host: [] for host in clients}

    def sample(self) -> None:
        """Ask every node once."""
        at = len(self.moments) * self.step
        self.moments.append(self.clock.monotonic())
        for host, client in self.clients.items():
            began = self.clock.monotonic()
            height = float("nan")
            with contextlib.suppress(ChainopsError):
                height = float(client.tip_height())
            took = self.clock.monotonic() - began
            self.heights[host].append((at, height))
            self.seconds[host].append((at, float("nan") if math.isnan(height) else took))

    def outcomes(self, plan: Plan, looks: int, final: bool) -> list[Outcome]:
        """Nobody asked for these to be proven good, so they can only fail."""
        checks = (
            (Check("time to answer, as seen from here", "", judge.LOWER, 1.0, plan.max_slower, 0.0, detect=True), self.seconds),
            (
                Check("height, as seen from here", "", judge.HIGHER, 0.0, float(max(plan.max_lag, 1)), 600.0, detect=True),
                self.heights,
            ),
        )
        end = max(len(self.moments) - 1, 0) * self.step
        return [
            judge.assess(
                check,
                Evidence(
                    {h: [series[h]] for h in plan.canary if h in series},
                    {h: [series[h]] for h in plan.baseline if h in series},
                    {},
                    0.0,
                    end,
                    self.step,
                ),
                looks=looks,
                final=final,
            )
            for check, series in checks
        ]

    def seen(self, host: str) -> list[tuple[float, int]]:
        return [(when, int(h)) for when, (_at, h) in zip(self.moments, self.heights.get(host, ())) if not math.isnan(h)]


def watch(
    plan: Plan,
    api: Prometheus | None,
    signers: Signers | None,
    tips: Tips | None = None,
    clock: Clock = CLOCK,
    tell: t.Callable[[dict[str, t.Any]], None] = lambda look: None,
    probes: Probes | None = None,
) -> dict[str, t.Any]:
    """Soak and judge. ``{"verdict", "checks", "looks", "seconds", "seconds_more"}``.

    Ends early when something fails, and goes on for up to ``plan.extend`` seconds while it is inconclusive.
    """
    began = clock.monotonic()
    if signers is not None:
        signers.mark(0 if plan.soak else 4 * plan.min_blocks)
    if plan.settle:
        clock.sleep(plan.settle)
        if signers is not None and plan.soak:
            signers.mark()
    origin, opened = clock.wall(), clock.monotonic()
    offset = _offset(api, origin)
    whole = Signers(signers.clients, plan.since_height) if signers is not None and plan.budget_missed >= 0 else None
    if tips is not None:
        tips.read()
    looks: list[dict[str, t.Any]] = []
    count = max(plan.looks, 1) if plan.soak else 1
    more = math.ceil(plan.extend * count / plan.soak - 1e-9) if plan.soak else 0
    outcomes: list[Outcome] = []
    number = 0
    while True:
        number += 1
        target = opened + min(plan.soak * number / count, plan.soak + plan.extend)
        # Reading slow nodes takes long; they must be asked often enough all the same, or nobody would see that they are slow.
        least = PROBES * number // count if probes is not None and plan.soak else 0
        while (left := target - clock.monotonic()) > 0 or (probes is not None and len(probes.moments) < least):
            if probes is not None and (left <= 0 or clock.monotonic() >= opened + len(probes.moments) * probes.step):
                probes.sample()
            clock.sleep(min(max(left, 0.0), 1.0 if probes is None else min(probes.step, 1.0)))
        if signers is not None:
            signers.read()
        if tips is not None:
            tips.read()
        final = number >= count
        end = origin + offset + (clock.monotonic() - opened)
        start = end - plan.window if plan.window else origin + offset
        outcomes = []
        for check in plan.checks:
            if api is None:
                outcomes.append(Outcome(check.name, judge.INCONCLUSIVE, "no prometheus_url to ask"))
                continue
            # Without a soak it is not known how long ago the restart was; the caller's window says what is to be judged.
            checked = dataclasses.replace(check, look_back=promql.look_back(check.query) if plan.soak else 0.0)
            evidence = gather(api, plan, checked, start, end)
            outcomes.append(judge.assess(checked, evidence, looks=count + more, final=final))
        outcomes += _missed(plan, signers, final)
        if tips is not None:
            outcomes += [judge.follows(host, seen, plan.max_lag) for host, seen in sorted(tips.seen.items())]
            outcomes += [judge.keeps_peers(host, seen) for host, seen in sorted(tips.seen.items())]
        if signers is not None and plan.addresses:
            outcomes += judge.late(signers.made, plan.addresses)
        if probes is not None and plan.soak:
            outcomes += probes.outcomes(plan, count + more, final)
        if final and api is not None and probes is not None and plan.height_query:
            outcomes += _truthful(plan, api, probes, clock)
        if final:
            outcomes += _budgets(plan, api, whole, end)
        said = judge.verdict(outcomes)
        wait = _seconds_more(outcomes)
        look = {
            "seconds": round(clock.monotonic() - began, 1),
            "verdict": said,
            "look": number,
            "of": count,
            "seconds_more": wait,
        }
        looks.append(look)
        tell({**look, "text": _text(look, outcomes, final), "checks": [o.as_dict() for o in outcomes]})
        if said == judge.FAIL or (final and (said == judge.PASS or number >= count + more)):
            break
    return {
        "verdict": judge.verdict(outcomes),
        "checks": [o.as_dict() for o in outcomes],
        "looks": looks,
        "seconds": round(clock.monotonic() - began, 1),
        "seconds_more": _seconds_more(outcomes) if judge.verdict(outcomes) == judge.INCONCLUSIVE else None,
    }


def _seconds_more(outcomes: t.Sequence[Outcome]) -> float | None:
    """How long until everything would be settled; None where that isn't known for all that is unclear."""
    unclear = [o.seconds_more for o in outcomes if o.verdict == judge.INCONCLUSIVE]
    return max((s for s in unclear if s is not None), default=0.0) if None not in unclear else None


def _text(look: t.Mapping[str, t.Any], outcomes: t.Sequence[Outcome], final: bool) -> str:
    """One line for people."""
    bad = [o for o in outcomes if o.verdict == judge.FAIL] or [o for o in outcomes if o.verdict == judge.INCONCLUSIVE]
    well = sum(o.verdict == judge.PASS for o in outcomes)
    which = f"look {look['look']} of {look['of']}" if look["look"] <= look["of"] else f"look {look['look']}, {look['of']} planned"
    more = f", about {look['seconds_more']:.0f} s more" if look["seconds_more"] and final else ""
    why = f": {bad[0].name}: {bad[0].reason}" if bad and (final or bad[0].verdict == judge.FAIL) else ""
    return f"soak, {which}: {look['verdict'] if final or bad else 'so far well'}, {well} of {len(outcomes)} well{more}{why}"


def _truthful(plan: Plan, api: Prometheus, probes: Probes, clock: Clock) -> list[Outcome]:
    try:
        answer = by_host(api.query(plan.height_query), plan.label, list(probes.clients))
    except ChainopsError:
        return []  # a Prometheus that does not answer is told by the checks
    return [
        judge.truthful(
            host,
            answer[host][0][-1][1] if len(answer[host]) == 1 else None,
            probes.seen(host),
            clock.monotonic(),
            2.5 * plan.step + 1,
            plan.max_lag,
        )
        for host in probes.clients
    ]


def _budgets(plan: Plan, api: Prometheus | None, whole: Signers | None, now: float) -> list[Outcome]:
    outcomes = []
    for budget in plan.budgets:
        name = f"budget: {budget.name}"
        if api is None:
            outcomes.append(judge.spent(name, None, budget.allowed, "no prometheus_url to ask"))
            continue
        try:
            answer = api.query(budget.query.replace("{window}", f"{max(int(now - plan.began), 1)}s"))
        except ChainopsError as exc:
            outcomes.append(judge.spent(name, None, budget.allowed, exc.message))
            continue
        why = "no data" if not answer else f"{len(answer)} series where one number was expected"
        outcomes.append(judge.spent(name, answer[0].points[-1][1] if len(answer) == 1 else None, budget.allowed, why))
    if whole is not None and plan.fleet:
        whole.latest(MOST_BLOCKS)
        whole.read()
        told = [{a.lower() for a in who} for who in whole.seen.values() if who is not None]
        missed = sum(address.lower() not in who for who in told for address in plan.fleet.values())
        if not whole.seen or told:
            name = f"budget: blocks that the fleet did not sign, of {len(told)} since height {whole.first}"
            outcomes.append(judge.spent(name, float(missed) if told else None, float(plan.budget_missed), whole.problem))
    return outcomes


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
