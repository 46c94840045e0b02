#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated rollouts: how often is a good canary stopped, and a bad one let through?

    tests/bench/canary_study.py [--rollouts 10000] [--seed 20260131] [--processes N]

Each rollout is a canary beside three hosts that are not upgraded, watched for 240 s (48 samples, 4 looks) and for up to
240 s more while it is unclear, after ten minutes of past. Five metrics, as unfriendly as real ones: hosts that always differed,
neighbours in time that hang together, heavy tails, shocks that hit everybody; and blocks, of which anybody may miss one now and
then. Prints, for each kind of canary, how often it passed, failed and stayed inconclusive, with 95 % intervals (Wilson 1927), and
how often that took more than 240 s.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import math
import os
import random
import sys
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._monitoring import canary
from ansible_collections.chainops.validator.plugins.module_utils._monitoring.canary import Check, Evidence

STEP, SOAK, LOOKS, PAST, BLOCKS_A_SAMPLE = 5.0, 48, 4, 120, 2
LONGER = "longer"
HOSTS = ("canary", "b1", "b2", "b3")
CHECKS = {
    "latency": Check("latency", "", "lower", 0.25, 0.005),
    "peers": Check("peers", "", "higher", 0.0, 4.0),
    "blocks": Check("blocks", "", "higher", 0.1, 0.0),
    "memory": Check("memory", "", "lower", 0.2, 0.0),
    "errors": Check("errors", "", "lower", 0.0, 0.5),
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is wrong with a canary: a change of one metric's sample, ``n`` samples after the restart."""

    name: str
    good: bool
    metric: str = ""
    change: t.Callable[[float, int, random.Random], float] = lambda value, n, rng: value
    miss: float = 0.0005  # probability of not signing a block
    everybody: float = 1.0  # what happens to all hosts' latency during the watch
    blind: str = ""
    may_pass: float = 0.0  # for the small study: what is hard to see in so short a watch may now and then pass
    may_stop: float = 0.1  # and what is good be stopped, or held up


def after(n: int, start: int, factor: float) -> float:
    return factor if n >= start else 1.0


KINDS = (
    Kind("as before", True),
    Kind("a shock hits everybody: latency doubles", True, everybody=2.0),
    Kind(
        "warms up: memory from 92 % to its old level within a minute",
        True,
        "memory",
        lambda v, n, r: v * (1 - 0.08 * math.exp(-n / 3)),
    ),
    Kind(
        "warms up for minutes: memory from 92 %, of what is missing a third each minute later",
        True,
        "memory",
        lambda v, n, r: v * (1 - 0.08 * math.exp(-n * STEP / 60)),
    ),
    Kind(
        "warms up all the time: memory from 92 %, of what is missing a third each two minutes later",
        True,
        "memory",
        lambda v, n, r: v * (1 - 0.08 * math.exp(-n * STEP / 120)),
        may_stop=0.3,
    ),
    Kind("a little worse, well within bounds: latency +5 %", True, "latency", lambda v, n, r: v * 1.05),
    Kind("just as bad as allowed: latency +25 %", False, "latency", lambda v, n, r: v * 1.25, may_pass=0.1),
    Kind("latency +50 %", False, "latency", lambda v, n, r: v * 1.5),
    Kind("latency +100 %", False, "latency", lambda v, n, r: v * 2.0),
    Kind("latency +100 %, from the middle of the watch on", False, "latency", lambda v, n, r: v * after(n, SOAK // 2, 2.0)),
    Kind("two errors a second", False, "errors", lambda v, n, r: v + 2.0),
    Kind("a third of its peers gone", False, "peers", lambda v, n, r: v * 0.67),
    Kind("loses a peer every 30 s", False, "peers", lambda v, n, r: v - n // 6),
    Kind("leaks 2 % of its memory a minute", False, "memory", lambda v, n, r: v * (1 + 0.02 * n * STEP / 60), may_pass=0.1),
    Kind("a fifth fewer blocks", False, "blocks", lambda v, n, r: v * 0.8),
    Kind("does not sign 8 % of the blocks", False, miss=0.08),
    Kind("no data of the canary", False, blind="canary"),
    Kind("no data of the others", False, blind="others"),
)


class World:
    """The metrics of four hosts, sample by sample."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.level = {host: rng.uniform(0.8, 1.25) for host in HOSTS}
        self.noise: dict[tuple[str, str], float] = {}
        self.common = 0.0

    def _ar(self, host: str, metric: str, phi: float, spread: float) -> float:
        key = (host, metric)
        self.noise[key] = phi * self.noise.get(key, 0.0) + self.rng.gauss(0, spread * math.sqrt(1 - phi * phi))
        return self.noise[key]

    def sample(self) -> dict[str, dict[str, float]]:
        rng = self.rng
        self.common = 0.8 * self.common + rng.gauss(0, 0.06)
        found: dict[str, dict[str, float]] = {metric: {} for metric in CHECKS}
        for host in HOSTS:
            level = self.level[host]
            tail = 4.0 if rng.random() < 0.02 else 1.0
            found["latency"][host] = 0.04 * level * math.exp(self.common + self._ar(host, "latency", 0.3, 0.1)) * tail
            found["peers"][host] = float(round(24 * level + self._ar(host, "peers", 0.7, 1.0)))
            found["blocks"][host] = 0.5 * (1 + 0.5 * self.common) + self._ar(host, "blocks", 0.2, 0.02)
            found["memory"][host] = 200 * level * (1 + self._ar(host, "memory", 0.8, 0.005))
            found["errors"][host] = 0.2 if rng.random() < 0.05 else 0.0
        return found


def rollout(kind: Kind, rng: random.Random) -> tuple[str, int]:
    """The verdict on one simulated canary, and after how many looks."""
    world = World(rng)
    past = [world.sample() for _n in range(PAST)]
    watched: list[dict[str, dict[str, float]]] = []
    signers: dict[int, tuple[str, ...] | None] = {}
    said = canary.INCONCLUSIVE
    for look in range(1, 2 * LOOKS + 1):
        while len(watched) < SOAK * look // LOOKS:
            now, n = world.sample(), len(watched)
            now["latency"] = {host: value * kind.everybody for host, value in now["latency"].items()}
            if kind.metric:
                now[kind.metric]["canary"] = kind.change(now[kind.metric]["canary"], n, rng)
            watched.append(now)
            for _block in range(BLOCKS_A_SAMPLE):
                signers[len(signers)] = ("b",) if rng.random() < kind.miss else ("a", "b")
        final = look >= LOOKS
        outcomes = canary.missed(signers, {"canary": "a"}, 1, 5)
        for metric, check in CHECKS.items():
            outcomes.append(canary.assess(check, _evidence(kind, metric, past, watched), looks=2 * LOOKS, final=final))
        said = canary.verdict(outcomes)
        if said == canary.FAIL or (final and said == canary.PASS):
            break
    return said, look


def _evidence(
    kind: Kind, metric: str, past: list[dict[str, dict[str, float]]], watched: list[dict[str, dict[str, float]]]
) -> Evidence:
    def series(host: str, samples: list[dict[str, dict[str, float]]]) -> list[list[tuple[float, float]]]:
        if kind.blind == ("canary" if host == "canary" else "others"):
            return []
        return [[(i * STEP, one[metric][host]) for i, one in enumerate(samples)]]

    return Evidence(
        {"canary": series("canary", watched)},
        {host: series(host, watched) for host in HOSTS[1:]},
        {host: series(host, past) for host in HOSTS},
        0.0,
        STEP * (len(watched) - 1),
        STEP,
    )


def rates(kind: Kind, runs: int, seed: int) -> dict[str, float]:
    """Shares of verdicts, and of those that came after more looks than planned. The same seed gives the same."""
    rng = random.Random(f"{seed} {kind.name}")
    said = {canary.PASS: 0, canary.FAIL: 0, canary.INCONCLUSIVE: 0, LONGER: 0}
    for _run in range(runs):
        verdict, looks = rollout(kind, rng)
        said[verdict] += 1
        said[LONGER] += looks > LOOKS
    return {verdict: count / runs for verdict, count in said.items()}


def rates_of(number: int, runs: int, seed: int) -> dict[str, float]:
    return rates(KINDS[number], runs, seed)


def wilson(share: float, runs: int) -> tuple[float, float]:
    z = 1.96
    middle = share + z * z / (2 * runs)
    half = z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))
    return max((middle - half) / (1 + z * z / runs), 0.0), min((middle + half) / (1 + z * z / runs), 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20260131)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2)
    arguments = parser.parse_args()
    runs = arguments.rollouts // len(KINDS)
    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        found = list(pool.map(rates_of, range(len(KINDS)), [runs] * len(KINDS), [arguments.seed] * len(KINDS)))
    print(f"{runs * len(KINDS)} rollouts, {runs} of each kind, seed {arguments.seed}\n")
    print("| canary | wrong verdict | 95 % interval | pass | fail | inconclusive | longer |\n|---|---|---|---|---|---|---|")
    for kind, share in zip(KINDS, found):
        # A good canary must not fail; a bad one, or one that nobody can see, must not pass.
        wrong = share[canary.FAIL if kind.good else canary.PASS]
        low, high = wilson(wrong, runs)
        what = "false abort" if kind.good else "false promote"
        shares = " | ".join(f"{100 * share[v]:.1f} %" for v in (canary.PASS, canary.FAIL, canary.INCONCLUSIVE, LONGER))
        print(f"| {kind.name} | {what} {100 * wrong:.2f} % | {100 * low:.2f} to {100 * high:.2f} % | {shares} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
