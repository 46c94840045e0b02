# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics that may be looked at after every sample, and need few of them. Pure.

**A sequential signed-rank test.** Under "the differences lie symmetrically around ``limit`` or below it", the sign of each
``x - limit`` is a fair coin at best, whatever its size; so are all of them together, given the sizes. A gambler who bets on
plus, a share of the capital that grows with the difference's rank among those seen so far, can't expect to win: the capital
after each sample is a non-negative supermartingale that begins at 1, and the chance that it ever reaches 1/alpha is at most
alpha, however often one looks and whenever one stops. The capital here is the mean of bets of several sizes, as nobody knows
the best one beforehand. No distribution is assumed but symmetry, and outliers count by rank alone.

Sources: Reynolds 1975, "A sequential signed-rank test for symmetry" (ranks among those so far); de la Pena 1999, "A general class
of exponential inequalities for martingales and ratios" (exp over cosh, for symmetric differences); Ville 1939 (the bound);
Johari, Pekelis and Walsh 2015, "Always valid inference" (looking as often as one likes); Ramdas et al. 2020, "Admissible
anytime-valid sequential inference must rely on nonnegative martingales" (mixtures).

**A trend**: the median of all pairwise slopes (Theil 1950, Sen 1968), its interval from the variance of Kendall's S. This one is
not sequential; who looks several times divides alpha by the looks.

Both want samples that don't hang together: ``blocks`` makes fewer of them that do not, by the lag-1 autocorrelation
(Hamed and Rao 1998).
"""

from __future__ import annotations

import bisect
import math
import statistics
import typing as t

#: Sizes of the bets: the small one wins slowly but survives contradiction, the large one needs agreement.
BETS = (1.0, 2.0)
_MOST = 240


def quantile(tail: float) -> float:
    """The standard normal's value that is exceeded with probability ``tail``."""
    return statistics.NormalDist().inv_cdf(1 - tail)


def evidence(differences: t.Iterable[float], at_zero: int = -1) -> float:
    """Natural logarithm of the capital: how much speaks for "above zero". ``at_zero``: how a zero counts, as -1 or 1."""
    sizes: list[float] = []
    logs = [0.0] * len(BETS)
    for x in differences:
        size = abs(x)
        below, upto = bisect.bisect_left(sizes, size), bisect.bisect_right(sizes, size)
        bisect.insort(sizes, size)
        rank = (below + 1 + upto + 1) / 2 / len(sizes)
        sign = at_zero if x == 0 else 1 if x > 0 else -1
        for i, bet in enumerate(BETS):
            logs[i] += sign * bet * rank - _log_cosh(bet * rank)
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(BETS))


def _log_cosh(x: float) -> float:
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)


def interval(differences: t.Sequence[float], alpha: float) -> tuple[float, float]:
    """What the differences may lie around: every value that neither side's test rejects at ``alpha``. Infinite ends: too few."""
    need = math.log(1 / alpha)
    if not differences:
        return -math.inf, math.inf
    least, most = min(differences), max(differences)

    def end(sign: int) -> float:
        # The lower end of sign * differences, by halving: at `inside` nothing is rejected, at `outside` it is.
        outside, inside = (least, most) if sign > 0 else (most, least)
        width = (most - least) or 1.0
        outside -= sign * width
        if evidence([sign * (x - outside) for x in differences]) < need:
            return -sign * math.inf
        for _step in range(26):
            middle = (outside + inside) / 2
            if evidence([sign * (x - middle) for x in differences]) >= need:
                outside = middle
            else:
                inside = middle
        return outside if abs(outside - inside) < 1e-9 * (1 + abs(inside)) else (outside + inside) / 2

    return end(1), end(-1)


def centre(values: t.Sequence[float], z: float) -> tuple[float, float, float]:
    """(low, estimate, high) of what values lie around: Hodges and Lehmann's median of pairwise means. Infinite ends: too few."""
    few = thinned(values, 60)
    n = len(few)
    if not n:
        return -math.inf, 0.0, math.inf
    means = sorted((few[i] + few[j]) / 2 for i in range(n) for j in range(i, n))
    k = math.floor(n * (n + 1) / 4 - z * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    low, high = (means[k], means[len(means) - 1 - k]) if k >= 0 else (-math.inf, math.inf)
    return low, statistics.median(means), high


def slope(values: t.Sequence[float], z: float) -> tuple[float, float, float]:
    """(low, estimate, high) change a sample. Infinite ends: too few."""
    few, every = thinned(values, _MOST), max(1.0, len(values) / _MOST)
    n = len(few)
    if n < 2:
        return -math.inf, 0.0, math.inf
    slopes = sorted((few[j] - few[i]) / (j - i) / every for i in range(n) for j in range(i + 1, n))
    deviation = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    k = math.floor((len(slopes) - deviation) / 2)
    low, high = (slopes[k], slopes[len(slopes) - 1 - k]) if k >= 0 else (-math.inf, math.inf)
    return low, statistics.median(slopes), high


def inflation(values: t.Sequence[float]) -> float:
    """How many correlated samples are worth one independent one: (1+r)/(1-r), r the lag-1 autocorrelation, at least 1."""
    r = autocorrelation(values)
    return (1 + r) / (1 - r)


def autocorrelation(values: t.Sequence[float]) -> float:
    """Of neighbours; from 0 to 0.9, 0 where there is nothing to go by."""
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    spread = math.fsum((v - mean) ** 2 for v in values)
    if n < 3 or spread == 0:
        return 0.0
    r = math.fsum((a - mean) * (b - mean) for a, b in zip(values, values[1:])) / spread
    return min(max(r, 0.0), 0.9)


def block_length(noises: t.Iterable[t.Sequence[float]], most: int = 12) -> int:
    """How many neighbours to take together, by the mean autocorrelation of ``noises``; what chance alone does is none."""
    long = [noise for noise in noises if len(noise) >= 8]
    if not long:
        return 1
    r = statistics.fmean(autocorrelation(noise) for noise in long)
    if r * r * sum(map(len, long)) <= 4:
        return 1
    return min(math.ceil((1 + r) / (1 - r) - 1e-9), most)


def blocks(values: t.Sequence[float], length: int) -> list[float]:
    """Medians of ``length`` neighbours each; what is left over is the oldest, and dropped."""
    first = len(values) % length
    return [statistics.median(values[i : i + length]) for i in range(first, len(values), length)]


def thinned(values: t.Sequence[float], most: int) -> list[float]:
    """At most ``most``, evenly taken: pairs stay countable, and intervals get wider, not narrower."""
    if len(values) <= most:
        return list(values)
    return [values[i * len(values) // most] for i in range(most)]
