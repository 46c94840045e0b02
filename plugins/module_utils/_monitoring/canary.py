# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the canary as good as the others? Pure statistics: samples in, verdict and numbers out.

Every upgraded host is judged by itself. At each moment its sample is compared with the median of the baseline hosts' at the same
moment, so what happens to everybody at once says nothing; and where there is a past, with how far apart the two were before the
upgrade, so a host that was always different isn't punished. What is left are differences that lie around zero when nothing
changed. Two questions are put to them (``sequential``):

* are they around more than what is allowed? Always valid: asked at every look, and the first yes is a failure.
* are they around less than what is allowed? Asked at the end: yes is a pass, neither is inconclusive, and the test says how much
  longer it would take at this pace.

Where nobody can tell yet, or what there is can't be trusted (no data, gaps, NaN, two series for one host, stale series, a query
that reaches back to before the restart, a counter compared by its face value), it is inconclusive, too.

What is within bounds now and won't be for long is looked for beside it: a trend which, going on, would leave what is allowed
within ``horizon`` seconds fails as well (slow poison: leaks, falling peers, growing backlogs).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import typing as t

from . import sequential
from .sequential import block_length, blocks

PASS, FAIL, INCONCLUSIVE, NOT_APPLICABLE = "pass", "fail", "inconclusive", "not_applicable"
LOWER, HIGHER, SAME = "lower", "higher", "same"
MIN_SAMPLES = 5
#: A trend takes so many, of the last two thirds of what was watched.
MIN_TRENDING = 8
#: How likely a canary that is exactly as bad as allowed may fail, or pass; and one without any trend may show one.
ALPHA_FAIL, ALPHA_PASS, ALPHA_TREND = 0.02, 0.05, 0.0005
#: How likely a canary without any trend may be watched for longer because there seems to be one.
ALPHA_DOUBT = 0.05

Points = t.Sequence[t.Tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Check:
    """``direction``: what is better. Allowed is the larger of ``tolerance`` (share of the baseline) and ``floor`` (its unit).

    ``horizon``: seconds within which a trend must not lead out of what is allowed; 0: trends aren't looked for.
    ``look_back``: seconds that each sample is made of (``rate(x[30s])``: 30). Neighbours that share data count as one, and
    samples that reach back to before ``Evidence.start`` count as none.
    ``detect``: it can only fail. For what nobody asked to be proven good.
    ``unclear``: "pass" goes on, after the planned watch, without a proof that the canary is within what is allowed, as long as it
    seems to be. What seems to be outside, gets worse, or isn't known, is no pass either way.
    """

    name: str
    query: str
    direction: str = LOWER
    tolerance: float = 0.2
    floor: float = 0.0
    horizon: float = 3600.0
    look_back: float = 0.0
    detect: bool = False
    unclear: str = INCONCLUSIVE


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What one check's query gave. Hosts by name; each host has a list of series, of which there should be exactly one.

    ``start``, ``end``, ``step``: seconds; ``past`` is each host's own window before the upgrade (may be empty).
    """

    canary: t.Mapping[str, t.Sequence[Points]]
    baseline: t.Mapping[str, t.Sequence[Points]]
    past: t.Mapping[str, t.Sequence[Points]]
    start: float
    end: float
    step: float
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One check's verdict. Shifts are in the query's unit, positive = canary higher; None where nothing could be computed."""

    name: str
    verdict: str
    reason: str
    canary: float | None = None
    baseline: float | None = None
    shift: float | None = None
    low: float | None = None
    high: float | None = None
    allowed: float | None = None
    samples: tuple[int, int] = (0, 0)
    needs: int | None = None  # about how many samples a host would settle it
    seconds_more: float | None = None  # about how much longer that takes
    p_worse: float | None = None  # always valid: at most so likely if it were within what is allowed
    p_fine: float | None = None  # at most so likely if it were not
    per_hour: float | None = None  # how much an hour it changes, the common trend taken off

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "samples": list(self.samples)}


def usable(series: t.Sequence[Points], start: float, end: float, step: float) -> tuple[list[float], str]:
    """(values, why not). Exactly one series, complete to four fifths, no NaN but a tenth, fresh at the end."""
    if not series:
        return [], "no data"
    if len(series) > 1:
        return [], f"{len(series)} series where one was expected: aggregate in the query, or select more closely"
    inside = [(at, v) for at, v in series[0] if start - step / 2 <= at <= end + step / 2]
    values = [v for dummy, v in inside if math.isfinite(v)]
    if not inside:
        return [], "no data in the window"
    if len(inside) - len(values) > len(inside) / 10:
        return [], f"{len(inside) - len(values)} of {len(inside)} samples are NaN or infinite"
    if inside[-1][0] < end - 2.5 * step:
        return [], f"stale: the last sample is {end - inside[-1][0]:.0f} s older than the window's end"
    expected = int((end - start) / step) + 1
    if len(inside) < 0.8 * expected:
        return [], f"gaps: {len(inside)} samples of {expected}"
    if len(values) < MIN_SAMPLES:
        return [], f"only {len(values)} samples, at least {MIN_SAMPLES} are needed"
    return values, ""


@dataclasses.dataclass(frozen=True)
class _Compared:
    """One canary host against its reference, ``length`` samples to a difference, so that they hang together no more.

    ``apart``: seconds from one difference to the next. ``trending``: the single samples of the last two thirds. ``mean`` is of
    all samples, and ``noise`` the standard deviation that they have without any change.
    """

    host: str
    differences: list[float]
    trending: list[float]
    off: tuple[float, float, float]  # how far apart they were before: low, estimate, high
    canary: float
    reference: float
    expected: float
    apart: float
    samples: tuple[int, int]
    length: int
    mean: float
    noise: float


def assess(check: Check, evidence: Evidence, *, looks: int = 1, final: bool = True) -> Outcome:
    """The verdict on one check: of its worst host. ``looks``: how often trends are looked at; before the ``final`` one it can
    only fail."""
    worst = _assess(check, evidence, looks, final)
    if not check.detect or worst.verdict != INCONCLUSIVE:
        return worst
    if worst.shift is None:
        return dataclasses.replace(worst, verdict=NOT_APPLICABLE)
    return dataclasses.replace(worst, verdict=PASS, seconds_more=None, reason=f"nothing speaks against it: {worst.reason}")


def _assess(check: Check, evidence: Evidence, looks: int, final: bool) -> Outcome:
    if evidence.problem:
        return Outcome(check.name, INCONCLUSIVE, evidence.problem)
    if not evidence.canary:
        return Outcome(check.name, INCONCLUSIVE, "no canary")
    theirs: dict[str, dict[int, float]] = {}
    excuses: list[str] = []
    for host, series in sorted(evidence.baseline.items()):
        values, why = _usable(check, series, evidence)
        if why:
            excuses.append(f"{host}: {why}")
        else:
            theirs[host] = values
    if len(excuses) > len(evidence.baseline) / 2:
        return Outcome(check.name, INCONCLUSIVE, f"baseline: {'; '.join(excuses)}")
    found = [_one(check, evidence, host, theirs, len(evidence.canary), looks, final) for host in sorted(evidence.canary)]
    order = (FAIL, INCONCLUSIVE, PASS)
    return min(found, key=lambda one: (order.index(one.verdict), one.p_worse if one.p_worse is not None else 0.0))


def _usable(check: Check, series: t.Sequence[Points], evidence: Evidence) -> tuple[dict[int, float], str]:
    """(values by moment, why not)."""
    start = evidence.start + check.look_back
    if check.look_back and start > evidence.end - (MIN_SAMPLES - 1) * evidence.step:
        reaches = f"each sample looks back {check.look_back:g} s, and only {evidence.end - evidence.start:.0f} s were watched"
        return {}, f"{reaches}: watch longer, or use a shorter range"
    _values, why = usable(series, start, evidence.end, evidence.step)
    return ({}, why) if why else (_moments(series[0], start, evidence.end, evidence.step), "")


def _moments(points: Points, start: float, end: float, step: float) -> dict[int, float]:
    half = step / 2
    return {round(at / step): v for at, v in points if math.isfinite(v) and start - half <= at <= end + half}


def _compare(check: Check, evidence: Evidence, host: str, theirs: t.Mapping[str, dict[int, float]]) -> _Compared | str:
    """Or why there is nothing to compare."""
    mine, why = _usable(check, evidence.canary[host], evidence)
    if why:
        return f"canary {host}: {why}"
    own = {name: past for name in (host, *theirs) if (past := _past(evidence.past.get(name, ()), evidence.step))}
    before: list[float] = []
    if theirs:
        others = {name: values for name, values in theirs.items() if name in own} if host in own else {}
        if len(others) * 2 > len(theirs):
            theirs = others
            before = _apart(own[host], [own[name] for name in others])
            if len(before) < MIN_SAMPLES:
                before = []
        reference = [v for values in theirs.values() for v in values.values()]
    else:
        # Nobody left to compare with (the last wave): against its own past alone.
        if host not in own:
            return "no baseline host, and no past of the canary's own"
        before = list(own[host].values())
        reference = before
    apart = _apart(mine, list(theirs.values()))
    if len(apart) < MIN_SAMPLES:
        return f"canary {host}: only {len(apart)} samples at moments of the baseline's, at least {MIN_SAMPLES} are needed"
    noises = (
        [before] if len(before) >= 8 else [_apart(theirs[name], [v for n, v in theirs.items() if n != name]) for name in theirs]
    )
    alone = len(theirs) == 1 and not before
    if alone:
        noises = [apart]  # which tells how samples hang together, but not how far they lie apart without any change
    # Overlapping ranges are one sample; so are neighbours that hang together.
    length = max(block_length(noises), math.ceil(check.look_back / evidence.step - 1e-9))
    level = statistics.median(reference)
    off = (0.0, 0.0, 0.0)
    if before:
        off = sequential.centre(
            blocks(before, min(length, max(1, len(before) // MIN_SAMPLES))), sequential.quantile(ALPHA_FAIL / 2)
        )
        if not math.isfinite(off[0]):
            off = (min(before), off[1], max(before))
    few = blocks(apart, min(length, len(apart)))
    spreads = [statistics.pstdev(noise) for noise in noises if len(noise) >= 8 and not alone]
    return _Compared(
        host,
        few,
        apart[len(apart) // 3 :],
        off,
        statistics.median(mine.values()),
        level,
        level + off[1] if theirs else off[1],
        length * evidence.step,
        (len(mine), len(reference)),
        length,
        statistics.fmean(apart),
        max(spreads, default=math.inf),
    )


def _apart(mine: t.Mapping[int, float], others: t.Sequence[t.Mapping[int, float]]) -> list[float]:
    """At each moment that most of them have: mine minus the others' median. Alone: mine."""
    if not others:
        return [v for _at, v in sorted(mine.items())]
    found = []
    for at, value in sorted(mine.items()):
        seen = [one[at] for one in others if at in one]
        if len(seen) * 2 > len(others):
            found.append(value - statistics.median(seen))
    return found


def _past(series: t.Sequence[Points], step: float) -> dict[int, float]:
    """Moments count from its own end, so that hosts' pasts can be laid side by side; empty when it is not to be used."""
    if len(series) != 1 or len(series[0]) < MIN_SAMPLES:
        return {}
    values = {round(at / step): v for at, v in series[0] if math.isfinite(v)}
    return values if len(values) >= max(MIN_SAMPLES, 0.9 * len(series[0])) else {}


def _one(
    check: Check,
    evidence: Evidence,
    host: str,
    theirs: t.Mapping[str, dict[int, float]],
    canaries: int,
    looks: int,
    final: bool,
) -> Outcome:
    seen = _compare(check, evidence, host, theirs)
    if isinstance(seen, str):
        return Outcome(check.name, INCONCLUSIVE, seen)
    allowed = max(check.tolerance * abs(seen.expected), check.floor)
    sides = {LOWER: (1,), HIGHER: (-1,), SAME: (1, -1)}[check.direction]
    off_low, off, off_high = seen.off
    # What the past leaves open counts for the canary when it is to fail, and against it when it is to pass.
    for_it = {1: off_high, -1: off_low}
    against = {1: off_low, -1: off_high}
    # Samples that hang together leave few independent ones. Then a second test is asked as well, and each gets half.
    spent = (2 if off_low != off_high else 1) * (2 if seen.length > 1 else 1)
    tails = canaries * len(sides)
    worse = max(
        max(
            sequential.evidence([side * (d - for_it[side]) - allowed for d in seen.differences]),
            _far(seen, side * (seen.mean - for_it[side]) - allowed, max(looks, 1)),
        )
        for side in sides
    )
    fine = min(
        max(
            sequential.evidence([allowed - side * (d - against[side]) for d in seen.differences], 1),
            _far(seen, allowed - side * (seen.mean - against[side]), 1),
        )
        for side in sides
    )
    need_worse, need_fine = math.log(spent * tails / ALPHA_FAIL), math.log(spent / ALPHA_PASS)
    estimate = statistics.median(d - off for d in seen.differences)
    trend = _trend(check, seen, sides, max(looks, 1), canaries, allowed)
    failed = worse >= need_worse or bool(trend.fails)
    low, high = -math.inf, math.inf
    said = f"shift {estimate:+.4g}, allowed {allowed:.4g}, {check.direction} is better"
    if final or failed:
        low, high = sequential.interval([d - off for d in seen.differences], ALPHA_PASS)
        said = f"shift {estimate:+.4g} (from {low:+.4g} to {high:+.4g}), allowed {allowed:.4g}, {check.direction} is better"
    if canaries > 1:
        said = f"{host}: {said}"
    outcome = functools.partial(
        Outcome,
        check.name,
        canary=seen.canary,
        baseline=seen.reference,
        shift=estimate,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        allowed=allowed,
        samples=seen.samples,
        p_worse=min(1.0, math.exp(-worse) * spent * tails),
        p_fine=min(1.0, math.exp(-fine) * spent),
        per_hour=trend.per_hour,
    )
    if failed:
        return outcome(FAIL, "; ".join(filter(None, (said, trend.fails))))
    bad = max(side * estimate for side in sides)
    more = _more(allowed - bad, need_worse if bad > allowed else need_fine, seen)
    if not final:
        return outcome(INCONCLUSIVE, f"still watching: {said}", seconds_more=more)
    if fine >= need_fine:
        if trend.doubt:
            return outcome(INCONCLUSIVE, f"{said}; {trend.doubt}", seconds_more=round(seen.apart * len(seen.differences) / 2, 1))
        return outcome(PASS, said)
    if check.unclear == PASS and bad <= allowed and not trend.doubt:
        return outcome(PASS, f"not proven, but nothing speaks against it: {said}")
    needs = None if more is None else seen.samples[0] + math.ceil(more / evidence.step)
    longer = "watching longer would hardly settle it" if more is None else f"about {more:.0f} s more would settle it"
    reason = "; ".join(filter(None, (f"too close to tell: {said}", trend.doubt, longer)))
    return outcome(INCONCLUSIVE, reason, needs=needs, seconds_more=more)


def _far(seen: _Compared, room: float, looks: int) -> float:
    """Minus the logarithm of Cantelli's bound (1928): how likely is a mean so far from the limit, when it has at most the
    deviation of a single sample, whatever the distribution and however the samples hang together? 0 for independent samples,
    which have a better test."""
    if seen.length == 1 or room <= 0 or not math.isfinite(seen.noise):
        return 0.0
    return math.log1p((room / seen.noise) ** 2) - math.log(looks) if seen.noise > 0 else 100.0


def _more(room: float, need: float, seen: _Compared) -> float | None:
    """Seconds until the evidence is enough, should the differences go on as they do; None when that is very long."""
    middle = statistics.median(seen.differences)
    scatter = statistics.median(abs(d - middle) for d in seen.differences) * 1.4826
    # What one sample is worth: at most nearly one doubling, and for a small effect half its square (as for the normal).
    pace = min(0.6, (room / scatter) ** 2 / 2) if scatter else 0.6 if room else 0.0
    have = len(seen.differences)
    wanted = math.inf if pace == 0 else (need + math.log(len(sequential.BETS))) / pace
    return round(max(1, math.ceil(wanted) - have) * seen.apart, 1) if wanted <= 200 * have else None


@dataclasses.dataclass(frozen=True)
class _Trend:
    """``fails``, ``doubt``: what is said of it, or nothing."""

    per_hour: float | None = None
    fails: str = ""
    doubt: str = ""


def _trend(check: Check, seen: _Compared, sides: t.Sequence[int], looks: int, canaries: int, allowed: float) -> _Trend:
    """Does it lead out of what is allowed? Only the last two thirds count, so that warming up after a start is no trend.

    It fails when that is sure, began in the earlier half, and is still to be seen in the later one alone, as warming up slowly
    ebbs. What only seems so is doubted, and so is what too few samples can't tell.
    """
    if check.horizon <= 0:
        return _Trend()
    if len(seen.trending) < MIN_TRENDING:
        few = f"{len(seen.trending)} samples after the warm-up can't tell whether it gets worse"
        return _Trend(doubt=f"{few}, at least {MIN_TRENDING} are needed: watch longer or more closely, or take horizon 0")
    step = seen.apart / seen.length
    sure = sequential.quantile(ALPHA_TREND / canaries / looks / len(sides))
    unsure = sequential.quantile(ALPHA_DOUBT / canaries / len(sides))
    estimate = sequential.slope(seen.trending, 0.0)[1]
    per_hour = estimate / step * 3600
    worse = f"worse by {abs(per_hour):.4g} an hour"
    middle = len(seen.trending) // 2
    earlier, later = seen.trending[:middle], seen.trending[middle:]
    for side in sides:
        least = _least(seen, seen.trending, side, sure) / step
        still = min(least, _least(seen, later, side, unsure) / step)
        began = side * sequential.slope(earlier, 0.0)[1] > 0
        if still > 0 and still * check.horizon > allowed and began:
            leaves = f"if that goes on, what is allowed is left in {allowed / least:.0f} s at the latest"
            return _Trend(per_hour, fails=f"it gets {worse}; {leaves}, looked ahead {check.horizon:.0f} s")
    for side in sides:
        least = _least(seen, seen.trending, side, unsure) / step
        if least > 0 and least * check.horizon > allowed:
            return _Trend(
                per_hour, doubt=f"it seems to get {worse}, which would leave what is allowed within {check.horizon:.0f} s"
            )
    return _Trend(per_hour)


def _least(seen: _Compared, samples: t.Sequence[float], side: int, z: float) -> float:
    """The least change a sample towards ``side`` that ``samples`` speak for, as sure as ``z`` says."""
    low, estimate, high = sequential.slope(samples, z)
    if seen.length > 1:
        # Ranks know too little of samples that hang together; how far these wander without any change is known.
        half = z * seen.noise * math.sqrt(12 * seen.length / len(samples) ** 3)
        low, high = estimate - half, estimate + half
    return side * (low if side > 0 else high)


def missed(
    signers: t.Mapping[int, t.Iterable[str] | None], addresses: t.Mapping[str, str], allowed: int, min_blocks: int
) -> list[Outcome]:
    """Blocks that each host's key didn't sign, of all in ``signers`` (by height). Exact: no statistics in it.

    ``addresses``: host to address. None for a height: that block doesn't say who signed it.
    """
    told = {height: {a.lower() for a in who} for height, who in signers.items() if who is not None}
    outcomes = []
    for host, address in sorted(addresses.items()):
        name = f"missed blocks of {host}"
        if signers and not told:
            outcomes.append(Outcome(name, NOT_APPLICABLE, "this chain's blocks don't say who signed them"))
            continue
        if len(told) < min_blocks:
            reason = f"only {len(told)} blocks that say who signed them, at least {min_blocks} are needed"
            outcomes.append(Outcome(name, INCONCLUSIVE, reason, samples=(len(told), 0), needs=min_blocks))
            continue
        gone = sorted(h for h, who in told.items() if address.lower() not in who)
        where = f" (heights {', '.join(map(str, gone[:10]))}{' …' if len(gone) > 10 else ''})" if gone else ""
        reason = f"{len(gone)} of {len(told)} blocks not signed{where}, allowed {allowed}"
        verdict = PASS if len(gone) <= allowed else FAIL
        outcomes.append(Outcome(name, verdict, reason, canary=float(len(gone)), allowed=float(allowed), samples=(len(told), 0)))
    return outcomes


@dataclasses.dataclass(frozen=True)
class Tip:
    """Where one host's chain ended at one look. ``agrees``: its block is the others' at the same height; None = not known."""

    height: int | None
    others: int | None  # the highest of the baseline's; None where there is none or it didn't answer
    agrees: bool | None
    peers: int | None = None  # live ones
    others_peers: float | None = None  # the median of the baseline's


def follows(host: str, tips: t.Sequence[Tip], max_lag: int) -> Outcome:
    """Whether a host follows the chain: same blocks, not behind by more than ``max_lag``, and going on when the others do."""
    name = f"{host} follows the chain"
    known = [tip for tip in tips if tip.height is not None]
    if any(tip.agrees is False for tip in known):
        at = next(tip for tip in known if tip.agrees is False)
        return Outcome(name, FAIL, f"another block than the others' at height {at.height} or below", samples=(len(known), 0))
    if not known or tips[-1].height is None:
        return Outcome(name, INCONCLUSIVE, "the node does not answer", samples=(len(known), 0))
    last, went = known[-1], (known[-1].height or 0) - (known[0].height or 0)
    numbers: dict[str, t.Any] = {"canary": last.height, "baseline": last.others, "samples": (len(known), 0)}
    if last.others is not None and last.height is not None and last.others - last.height > max_lag:
        reason = f"{last.others - last.height} blocks behind the others, allowed {max_lag}"
        return Outcome(name, FAIL, reason, shift=float(last.height - last.others), allowed=float(max_lag), **numbers)
    if len(known) > 1 and went > 0 and (last.agrees or last.others is None):
        return Outcome(name, PASS, f"{went} blocks further, {'same as the others' if last.agrees else 'alone'}", **numbers)
    seen = [tip.others for tip in known if tip.others is not None]
    if seen and seen[-1] > seen[0] and went == 0 and len(known) > 1 and seen[-1] - seen[0] > max_lag:
        return Outcome(name, FAIL, f"stands still at height {last.height} while the others went on to {seen[-1]}", **numbers)
    reason = "not enough looks" if len(known) < 2 else "no new block to follow" if went == 0 else "no other node to compare with"
    return Outcome(name, INCONCLUSIVE, reason, **numbers)


def keeps_peers(host: str, tips: t.Sequence[Tip]) -> Outcome:
    """Whether a host is as connected as the others, look after look. It can only fail: where nobody tells, nothing is said."""
    name = f"{host} keeps its peers"
    known = [(tip.peers, tip.others_peers) for tip in tips if tip.peers is not None and tip.others_peers]
    numbers: dict[str, t.Any] = {"samples": (len(known), 0)}
    if len(known) < 2:
        return Outcome(name, NOT_APPLICABLE, "its live peers, or the others', are not told", **numbers)
    (first, _before), (last, others) = known[0], known[-1]
    numbers.update(canary=float(last), baseline=others)
    if all(mine * 2 < theirs for mine, theirs in known[-2:]):
        return Outcome(name, FAIL, f"{last} live peers, the others have {others:g}", **numbers)
    mine = [peers for peers, _theirs in known]
    falls = all(a >= b for a, b in zip(mine, mine[1:])) and len(set(mine)) > 2
    if falls and last <= first - 2 and others >= known[0][1]:
        return Outcome(name, FAIL, f"its live peers fall: {', '.join(map(str, mine))}; the others keep {others:g}", **numbers)
    return Outcome(name, PASS, f"{last} live peers, the others have {others:g}", **numbers)


def late(made: t.Mapping[int, tuple[float, str | None]], addresses: t.Mapping[str, str]) -> list[Outcome]:
    """Whether a host's own blocks come later than the others'. ``made``: time and proposer by height. It can only fail.

    Late is more than twice the time that a block takes when somebody else makes it.
    """
    times = {h: (at - made[h - 1][0], (who or "").lower()) for h, (at, who) in made.items() if h - 1 in made and who}
    outcomes = []
    for host, address in sorted(addresses.items()):
        name = f"blocks of {host} come in time"
        mine = [took for _h, (took, who) in sorted(times.items()) if who == address.lower()]
        theirs = [took for took, who in times.values() if who not in {a.lower() for a in addresses.values()}]
        if len(mine) < MIN_SAMPLES or len(theirs) < MIN_SAMPLES:
            outcomes.append(Outcome(name, NOT_APPLICABLE, f"it made {len(mine)} blocks, the others {len(theirs)}: too few"))
            continue
        usual = statistics.median(theirs)
        numbers: dict[str, t.Any] = {
            "canary": statistics.median(mine),
            "baseline": usual,
            "shift": statistics.median(mine) - usual,
            "allowed": usual,
            "samples": (len(mine), len(theirs)),
        }
        speaks = sequential.evidence([took - 2 * usual for took in mine])
        reason = f"a block takes {numbers['canary']:.2f} s when it makes it, {usual:.2f} s when others do"
        verdict_ = FAIL if speaks >= math.log(len(addresses) / ALPHA_FAIL) else PASS
        outcomes.append(Outcome(name, verdict_, reason, **numbers))
    return outcomes


def spent(name: str, used: float | None, allowed: float, why: str = "") -> Outcome:
    """An error budget of the whole rollout: what is used of it, in the query's unit; None could not be told, and why."""
    if used is None or not math.isfinite(used):
        return Outcome(name, INCONCLUSIVE, why or "no data", allowed=allowed)
    share = f" ({100 * used / allowed:.0f} %)" if allowed else ""
    reason = f"{used:.4g} of {allowed:.4g} used{share} since the rollout began"
    return Outcome(name, PASS if used <= allowed else FAIL, reason, canary=used, allowed=allowed)


def truthful(
    host: str, exported: float | None, seen: t.Sequence[tuple[float, int]], at: float, slack: float, max_lag: int
) -> Outcome:
    """Whether an exporter tells the height that its node has. ``seen``: (seconds, height) as the node itself said; ``at`` is now.

    ``slack``: seconds that what is exported may be old. An exporter that lies, or repeats itself, is no evidence of anything.
    """
    name = f"exporter of {host} tells what its node does"
    if not seen:
        return Outcome(name, NOT_APPLICABLE, "the node itself did not tell its height")
    if exported is None or not math.isfinite(exported):
        return Outcome(name, NOT_APPLICABLE, "it exports no height")
    old = [height for when, height in seen if when <= at - slack] or [seen[0][1]]
    least, most = max(old) - max_lag, max(height for _when, height in seen) + 1 + max_lag
    numbers: dict[str, t.Any] = {"canary": exported, "baseline": float(seen[-1][1]), "samples": (len(seen), 0)}
    if least <= exported <= most:
        return Outcome(name, PASS, f"height {exported:.0f}, the node is at {seen[-1][1]}", **numbers)
    reason = f"it says height {exported:.0f}, and the node itself {seen[-1][1]}: nothing it says can be trusted"
    return Outcome(name, INCONCLUSIVE, reason, **numbers)


def verdict(outcomes: t.Sequence[Outcome]) -> str:
    """One failure fails; otherwise one doubt, or nothing to go by, is a doubt. What doesn't apply says nothing either way."""
    said = {o.verdict for o in outcomes} - {NOT_APPLICABLE}
    return FAIL if FAIL in said else PASS if said == {PASS} else INCONCLUSIVE
