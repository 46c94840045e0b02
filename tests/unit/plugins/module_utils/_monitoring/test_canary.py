# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import math
import random
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._monitoring import canary, watch
from ansible_collections.chainops.validator.plugins.module_utils._monitoring.canary import Check, Evidence, Outcome, Tip

STEP = 5.0
HOSTS = ("b1", "b2", "b3")


def points(values: t.Iterable[float], start: float = 0.0) -> list[tuple[float, float]]:
    return [(start + i * STEP, v) for i, v in enumerate(values)]


def evidence(mine: t.Sequence[float], *others: t.Sequence[float], past: dict[str, t.Sequence[float]] | None = None) -> Evidence:
    return Evidence(
        {"c": [points(mine)]},
        {f"b{i + 1}": [points(o)] for i, o in enumerate(others)},
        {h: [points(v)] for h, v in (past or {}).items()},
        0.0,
        STEP * (len(mine) - 1),
        STEP,
    )


def noisy(rng: random.Random, level: float, count: int = 12, spread: float = 1.0) -> list[float]:
    return [rng.gauss(level, spread) for _ in range(count)]


def verdict(check: Check, what: Evidence, **options: t.Any) -> Outcome:
    return canary.assess(check, what, **options)


@pytest.mark.parametrize(
    ("direction", "mine", "expected"),
    [
        ("higher", 3.0, "pass"), ("higher", 0.0, "fail"), ("higher", 9.0, "pass"),
        ("lower", 3.0, "pass"), ("lower", 9.0, "fail"), ("lower", 0.0, "pass"),
        ("same", 3.0, "pass"), ("same", 9.0, "fail"), ("same", 0.0, "fail"),
    ],
)  # fmt: skip
def test_constant_series_are_judged_by_direction(direction: str, mine: float, expected: str) -> None:
    what = evidence([mine] * 12, *[[3.0] * 12] * 3)
    assert verdict(Check("c", "q", direction), what).verdict == expected


def test_no_data_in_any_form_is_inconclusive() -> None:
    good = [3.0] * 12
    base = evidence(good, good, good)
    holes: list[tuple[Evidence, str]] = [
        (dataclasses.replace(base, canary={"c": []}), "no data"),
        (dataclasses.replace(base, canary={}), "no canary"),
        (dataclasses.replace(base, canary={"c": [points(good), points(good)]}), "2 series"),
        (dataclasses.replace(base, canary={"c": [points([math.nan] * 12)]}), "NaN"),
        (dataclasses.replace(base, canary={"c": [points([3.0] * 10 + [math.inf, math.nan])]}), "NaN or infinite"),
        (dataclasses.replace(base, canary={"c": [points(good[:8])]}), "stale"),
        (dataclasses.replace(base, canary={"c": [points(good)[::3] + points(good)[-1:]]}), "gaps"),
        (dataclasses.replace(base, canary={"c": [points(good, start=1000)]}), "no data in the window"),
        (dataclasses.replace(base, baseline={"b1": [], "b2": []}), "baseline: b1: no data; b2: no data"),
        (dataclasses.replace(base, baseline={}), "no baseline host, and no past"),
        (dataclasses.replace(base, problem="no answer from prometheus"), "no answer"),
        (evidence([3.0] * 4, [3.0] * 4), "only 4 samples"),
    ]
    for what, words in holes:
        outcome = verdict(Check("c", "q"), what)
        assert outcome.verdict == "inconclusive" and words in outcome.reason, (words, outcome)


def test_one_blind_baseline_host_of_three_is_no_excuse() -> None:
    what = evidence([3.0] * 12, [3.0] * 12, [3.0] * 12)
    assert verdict(Check("c", "q"), dataclasses.replace(what, baseline={**what.baseline, "b3": []})).verdict == "pass"


def test_a_host_that_was_always_different_is_not_punished_and_a_change_is_seen_through_it() -> None:
    check = Check("latency", "q", "lower", tolerance=0.2)
    past = {"c": [20.0] * 12, "b1": [10.0] * 12, "b2": [11.0] * 12}
    assert verdict(check, evidence([20.0] * 12, [10.0] * 12, [11.0] * 12)).verdict == "fail", "without a past it looks bad"
    assert verdict(check, evidence([20.0] * 12, [10.0] * 12, [11.0] * 12, past=past)).verdict == "pass"
    worse = evidence([26.0] * 12, [10.0] * 12, [11.0] * 12, past=past)
    assert verdict(check, worse).verdict == "fail"
    everyone = evidence([30.0] * 12, [20.0] * 12, [21.0] * 12, past=past)
    assert verdict(check, everyone).verdict == "pass", "what happened to all is not the canary's doing"


def test_the_last_wave_is_compared_with_its_own_past() -> None:
    check = Check("c", "q", "lower")
    assert verdict(check, evidence([10.0] * 12, past={"c": [10.0] * 12})).verdict == "pass"
    assert verdict(check, evidence([20.0] * 12, past={"c": [10.0] * 12})).verdict == "fail"


def test_before_the_last_look_it_can_only_fail() -> None:
    fine, awful = evidence([3.0] * 12, [3.0] * 12), evidence([30.0] * 12, [3.0] * 12)
    assert verdict(Check("c", "q"), fine, looks=4, final=False).verdict == "inconclusive"
    assert verdict(Check("c", "q"), awful, looks=4, final=False).verdict == "fail"


def test_too_close_to_tell_says_how_many_samples_would_settle_it() -> None:
    rng = random.Random(3)
    what = evidence(noisy(rng, 10.9, 6, 2.0), noisy(rng, 10, 6, 2.0), noisy(rng, 10, 6, 2.0))
    outcome = verdict(Check("c", "q", tolerance=0.1), what)
    assert outcome.verdict == "inconclusive" and outcome.needs is not None and outcome.needs > 6


def rates(shift: float, tolerance: float, runs: int = 300, looks: int = 4) -> dict[str, float]:
    rng = random.Random(20260131)
    check = Check("c", "q", "lower", tolerance=tolerance)
    said = {"pass": 0, "fail": 0, "inconclusive": 0}
    for _ in range(runs):
        mine, others = noisy(rng, 10 + shift, 24), [noisy(rng, 10, 24) for _ in HOSTS]
        outcome = Outcome("c", "inconclusive", "")
        for look in range(1, looks + 1):
            n = 24 * look // looks
            outcome = verdict(check, evidence(mine[:n], *[o[:n] for o in others]), looks=looks, final=look == looks)
            if outcome.verdict == "fail":
                break
        said[outcome.verdict] += 1
    return {k: v / runs for k, v in said.items()}


def test_error_rates_over_many_simulated_soaks() -> None:
    same = rates(0.0, 0.15)
    assert same["fail"] <= 0.01 and same["pass"] >= 0.85, same
    worse = rates(3.0, 0.15)
    assert worse["fail"] >= 0.97 and worse["pass"] == 0, worse
    edge = rates(1.5, 0.15)  # exactly what is allowed: must rarely pass, and rarely fail
    assert edge["pass"] <= 0.08 and edge["fail"] <= 0.05, edge


def test_missed_blocks_are_counted_exactly() -> None:
    signers: dict[int, tuple[str, ...] | None] = dict.fromkeys(range(10, 20), ("A1", "B2", "C3"))
    assert [o.verdict for o in canary.missed(signers, {"val1": "a1"}, 0, 5)] == ["pass"], "case is only a checksum"
    signers[15] = ("B2", "C3")
    (outcome,) = canary.missed(signers, {"val1": "A1"}, 0, 5)
    assert outcome.verdict == "fail" and "heights 15" in outcome.reason
    assert canary.missed(signers, {"val1": "A1"}, 1, 5)[0].verdict == "pass"
    assert canary.missed(signers, {"val1": "A1"}, 0, 11)[0].verdict == "inconclusive"
    assert canary.missed({1: None, 2: None}, {"val1": "A1"}, 0, 1)[0].verdict == "not_applicable"
    assert canary.missed({}, {"val1": "A1"}, 0, 1)[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("tips", "expected", "words"),
    [
        ([Tip(10, 10, True), Tip(20, 20, True)], "pass", "10 blocks further, same"),
        ([Tip(10, 10, True), Tip(20, 20, False)], "fail", "another block"),
        ([Tip(10, 10, True), Tip(10, 20, True)], "fail", "10 blocks behind"),
        ([Tip(10, 10, True), Tip(10, 10, True)], "inconclusive", "no new block"),
        ([Tip(10, 10, True), Tip(None, 20, None)], "inconclusive", "does not answer"),
        ([Tip(10, 10, True)], "inconclusive", "not enough looks"),
        ([Tip(10, None, None), Tip(20, None, None)], "pass", "alone"),
        ([], "inconclusive", "does not answer"),
    ],
)
def test_following_the_chain(tips: list[Tip], expected: str, words: str) -> None:
    outcome = canary.follows("val1", tips, 3)
    assert (outcome.verdict, words in outcome.reason) == (expected, True), outcome


def test_the_whole_verdict() -> None:
    def of(*said: str) -> str:
        return canary.verdict([Outcome("x", v, "") for v in said])

    assert of("pass", "pass") == "pass"
    assert of("pass", "not_applicable") == "pass"
    assert of("pass", "inconclusive") == "inconclusive"
    assert of("pass", "inconclusive", "fail") == "fail"
    assert of() == of("not_applicable") == "inconclusive"


class Ticks(Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1000.0 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


@dataclasses.dataclass
class Status:
    height: int
    peers_live: int | None = None


@dataclasses.dataclass
class BlockOf:
    signers: tuple[str, ...] | None
    time: float = 0.0
    proposer: str | None = None


class Node:
    """A node whose chain grows by one block a second."""

    def __init__(self, clock: Ticks, stuck_at: int | None = None, down: bool = False, absent: set[int] | None = None) -> None:
        self.clock, self.stuck_at, self.down, self.absent = clock, stuck_at, down, absent or set()

    def status(self) -> Status:
        if self.down:
            raise Unreachable("refused", url="x")
        height = 100 + int(self.clock.now)
        return Status(height if self.stuck_at is None else min(height, self.stuck_at))

    def block(self, height: int) -> BlockOf:
        assert height <= self.status().height
        return BlockOf(("B", "C") if height - 1 in self.absent else ("A", "B", "C"))

    def block_hash(self, height: int) -> str:
        return f"hash-{height}"


def soak(canary_node: dict[str, t.Any], other: dict[str, t.Any]) -> dict[str, t.Any]:
    clock = Ticks()
    mine, others = Node(clock, **canary_node), Node(clock, **other)
    plan = watch.Plan(("val1",), ("val2",), (), {"val1": "A"}, soak=20, looks=4)
    clients: t.Any = [others, mine]
    tips = watch.Tips(t.cast("t.Any", {"val1": mine}), t.cast("t.Any", {"val2": others}))
    return watch.watch(plan, None, watch.Signers(clients), tips, clock)


def test_a_soak_with_nothing_but_the_chain() -> None:
    good = soak({}, {})
    assert good["verdict"] == "pass" and len(good["looks"]) == 4
    stuck = soak({"stuck_at": 101}, {})
    assert stuck["verdict"] == "fail" and stuck["seconds"] < 11, "it ends early"
    missing = soak({}, {"absent": {107}})
    assert missing["verdict"] == "fail" and "heights 107" in missing["checks"][0]["reason"]
    assert soak({"down": True}, {})["verdict"] == "inconclusive"
    assert soak({"down": True}, {"down": True})["verdict"] == "inconclusive"


def test_a_host_is_known_by_its_name_with_or_without_a_port() -> None:
    hosts = ["val1", "10.0.0.1", "val10"]
    assert watch.host_of({"instance": "val1"}, "instance", hosts) == "val1"
    assert watch.host_of({"instance": "val1:8545"}, "instance", hosts) == "val1"
    assert watch.host_of({"instance": "10.0.0.1:8545"}, "instance", hosts) == "10.0.0.1"
    assert watch.host_of({"instance": "val1x"}, "instance", hosts) is None
    assert watch.host_of({}, "instance", hosts) is None
