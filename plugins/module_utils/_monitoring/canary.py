# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the canary as good as the others? Pure statistics: samples in, verdict and numbers out.

For each check, how far the canary lies from its baseline is estimated by the Hodges-Lehmann shift (the median of all pairwise
differences) with its Mann-Whitney confidence interval: no assumption about distributions, and it works from few samples. Each
host is first measured against its own past, where there is one, so that a host that was always different isn't punished. The
interval is widened for samples that follow one another closely (lag-1 autocorrelation). Then:

* pass: even the bad end of the interval is within tolerance (non-inferiority);
* fail: even the good end is outside it;
* inconclusive: everything else, and whatever can't be trusted: no data, gaps, NaN, two series for one host, stale series.

Looking again and again while soaking would sooner or later see a failure by chance: the error allowed for a failure is divided
by the number of looks (Bonferroni).

Sources: Hodges and Lehmann 1963; Hollander and Wolfe, Nonparametric Statistical Methods, chapter 4 (interval by normal
approximation); Hamed and Rao 1998 (effective sample size under autocorrelation).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import typing as t

PASS, FAIL, INCONCLUSIVE, NOT_APPLICABLE = "pass", "fail", "inconclusive", "not_applicable"
LOWER, HIGHER, SAME = "lower", "higher", "same"
MIN_SAMPLES = 5
_MAX_SAMPLES = 240

Points = t.Sequence[t.Tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Check:
    """``direction``: what is better. Allowed is the larger of ``tolerance`` (share of the baseline) and ``floor`` (its unit)."""

    name: str
    query: str
    direction: str = LOWER
    tolerance: float = 0.2
    floor: float = 0.0


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


def quantile(tail: float) -> float:
    """The standard normal's value that is exceeded with probability ``tail``."""
    return statistics.NormalDist().inv_cdf(1 - tail)


def inflation(values: t.Sequence[float]) -> float:
    """How many correlated samples are worth one independent one: (1+r)/(1-r), r the lag-1 autocorrelation, at least 1."""
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    spread = math.fsum((v - mean) ** 2 for v in values)
    if n < 3 or spread == 0:
        return 1.0
    r = math.fsum((a - mean) * (b - mean) for a, b in zip(values, values[1:])) / spread
    r = min(max(r, 0.0), 0.9)
    return (1 + r) / (1 - r)


def shift(canary: t.Sequence[float], baseline: t.Sequence[float], z: float, wider: float = 1.0) -> tuple[float, float, float]:
    """(low, estimate, high) of canary minus baseline. The ends are infinite when there are too few samples for ``z``."""
    differences = sorted(a - b for a in canary for b in baseline)
    n, m = len(canary), len(baseline)
    deviation = math.sqrt(n * m * (n + m + 1) / 12 * wider)
    k = math.floor(n * m / 2 - z * deviation)
    low, high = (differences[k], differences[n * m - 1 - k]) if k >= 0 else (-math.inf, math.inf)
    return low, statistics.median(differences), high


def assess(check: Check, evidence: Evidence, *, looks: int = 1, alpha: float = 0.05, final: bool = True) -> Outcome:
    """The verdict on one check. ``looks``: how often it will be looked at in all; before the ``final`` one it can only fail."""

    def unclear(reason: str) -> Outcome:
        return Outcome(check.name, INCONCLUSIVE, reason)

    if evidence.problem:
        return unclear(evidence.problem)
    if not evidence.canary:
        return unclear("no canary")
    window = (evidence.start, evidence.end, evidence.step)
    ours: list[list[float]] = []
    names: list[str] = []
    for host, series in sorted(evidence.canary.items()):
        values, why = usable(series, *window)
        if why:
            return unclear(f"canary {host}: {why}")
        ours.append(values)
        names.append(host)
    theirs: dict[str, list[float]] = {}
    excuses: list[str] = []
    for host, series in sorted(evidence.baseline.items()):
        values, why = usable(series, *window)
        if why:
            excuses.append(f"{host}: {why}")
        else:
            theirs[host] = values
    if len(excuses) > len(evidence.baseline) / 2:
        return unclear(f"baseline: {'; '.join(excuses)}")
    own = {host: middle for host in [*names, *theirs] if (middle := _middle(evidence.past.get(host, ()))) is not None}
    if not theirs:
        # Nobody left to compare with (the last wave): against its own past alone.
        if any(name not in own for name in names):
            return unclear("no baseline host, and no past of the canary's own")
        reference = [v for name in names for v in _values(evidence.past[name])]
        level = statistics.median(reference)
    else:
        reference = [v for values in theirs.values() for v in values]
        level = statistics.median(reference)
        if all(host in own for host in [*names, *theirs]):
            # Every host's own past is taken off, and the baseline's put back on, so that the tolerance keeps its meaning.
            common = statistics.median(own[host] for host in theirs)
            ours = [[v - own[name] + common for v in values] for name, values in zip(names, ours)]
            theirs = {host: [v - own[host] + common for v in values] for host, values in theirs.items()}
            reference = [v for values in theirs.values() for v in values]
    mine = [v for values in ours for v in values]
    wider = max([inflation(values) for values in [*ours, *theirs.values()]] or [1.0])
    allowed = max(check.tolerance * abs(level), check.floor)
    mine_few, reference_few = _thin(mine), _thin(reference)
    low, estimate, high = shift(mine_few, reference_few, quantile(alpha), wider)
    fail_low, dummy, fail_high = shift(mine_few, reference_few, quantile(alpha / 5 / max(looks, 1)), wider)
    worst = {LOWER: high, HIGHER: -low, SAME: max(high, -low)}[check.direction]
    best = {LOWER: fail_low, HIGHER: -fail_high, SAME: max(fail_low, -fail_high)}[check.direction]
    numbers: dict[str, t.Any] = {
        "canary": statistics.median(mine),
        "baseline": statistics.median(reference),
        "shift": estimate,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
        "allowed": allowed,
        "samples": (len(mine), len(reference)),
    }
    said = f"shift {estimate:+.4g} (from {low:+.4g} to {high:+.4g}), allowed {allowed:.4g}, {check.direction} is better"
    if best > allowed:
        return Outcome(check.name, FAIL, said, **numbers)
    if not final:
        return Outcome(check.name, INCONCLUSIVE, f"still watching: {said}", **numbers)
    if worst <= allowed:
        return Outcome(check.name, PASS, said, **numbers)
    return Outcome(check.name, INCONCLUSIVE, f"too close to tell: {said}", needs=_needs(check, numbers, len(mine)), **numbers)


def _needs(check: Check, numbers: t.Mapping[str, t.Any], have: int) -> int | None:
    """The interval narrows with the root of the samples: how many until it fits between the shift and what is allowed."""
    if numbers["low"] is None or numbers["high"] is None:
        return 2 * have
    half = (numbers["high"] - numbers["low"]) / 2
    bad = {LOWER: numbers["shift"], HIGHER: -numbers["shift"], SAME: abs(numbers["shift"])}[check.direction]
    room = abs(numbers["allowed"] - bad)
    return None if room <= 0 else min(math.ceil(have * max((half / room) ** 2, 1.1)), 1_000_000)


def _values(series: t.Sequence[Points]) -> list[float]:
    return [v for points in series for dummy, v in points if math.isfinite(v)]


def _middle(series: t.Sequence[Points]) -> float | None:
    values = _values(series)
    return statistics.median(values) if len(series) == 1 and len(values) >= MIN_SAMPLES else None


def _thin(values: list[float]) -> list[float]:
    """At most 240, evenly taken: the pairs stay countable, and the interval gets wider, not narrower."""
    if len(values) <= _MAX_SAMPLES:
        return values
    return [values[i * len(values) // _MAX_SAMPLES] for i in range(_MAX_SAMPLES)]


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


def verdict(outcomes: t.Sequence[Outcome]) -> str:
    """One failure fails; otherwise one doubt, or nothing to go by, is a doubt. What doesn't apply says nothing either way."""
    said = {o.verdict for o in outcomes} - {NOT_APPLICABLE}
    return FAIL if FAIL in said else PASS if said == {PASS} else INCONCLUSIVE
