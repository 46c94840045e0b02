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
from ansible_collections.chainops.validator.plugins.module_utils._monitoring import canary, promql, readers, watch
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

    def __init__(
        self,
        clock: Ticks,
        stuck_at: int | None = None,
        down: bool = False,
        absent: set[int] | None = None,
        slow: float = 0.0,
        rate: float = 1.0,
    ) -> None:
        self.clock, self.stuck_at, self.down, self.absent = clock, stuck_at, down, absent or set()
        self.slow, self.rate = slow, rate

    def tip_height(self) -> int:
        self.clock.now += self.slow
        return self.status().height

    def status(self) -> Status:
        if self.down:
            raise Unreachable("refused", url="x")
        height = 100 + int(self.clock.now * self.rate)
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


@pytest.mark.parametrize(
    ("query", "seconds", "raw"),
    [
        ("xai_peers_connected", 0, ()),
        ("rate(xai_chain_height[30s])", 30, ()),
        ("xai_security_events_total", 0, ("xai_security_events_total",)),
        ("sum by (x_total) (rate(a_total{job='b_count'}[1m30s]))", 90, ()),
        ("a_sum / rate(a_count[5m])", 300, ("a_sum",)),
        ("histogram_quantile(0.9, sum by (le) (rate(h_bucket{a='b'} [2m])))", 120, ()),
        ("max_over_time(rate(a_total[1m])[10m:30s])", 660, ()),
        ("increase(a_total[1h]) # b_total", 3600, ()),
    ],
)
def test_what_a_query_looks_back_to(query: str, seconds: float, raw: tuple[str, ...]) -> None:
    assert promql.look_back(query) == seconds
    assert promql.raw_counters(query) == raw


def test_samples_that_reach_back_to_before_the_restart_are_none() -> None:
    """What ``rate`` says until its range has passed is partly of the time before: of the old release, and of the stop."""
    check = Check("c", "rate(x[15s])", "higher", tolerance=0.1, look_back=15.0)
    mixed = evidence([0.0] * 3 + [3.0] * 21, [3.0] * 24, [3.0] * 24)
    assert verdict(check, mixed).verdict == "pass"
    assert verdict(dataclasses.replace(check, look_back=0.0), mixed).shift == 0.0
    short = verdict(dataclasses.replace(check, look_back=300.0), mixed)
    assert short.verdict == "inconclusive" and "looks back 300 s, and only 115 s were watched" in short.reason
    crawling = verdict(check, evidence([3.0] * 11, [3.0] * 11))
    assert crawling.verdict == "inconclusive" and crawling.seconds_more == 90.0, (
        "shared data count once: 2 blocks of 15 s, 8 needed"
    )


def test_one_bad_host_of_several_upgraded_ones_is_enough() -> None:
    what = evidence([3.0] * 12, [3.0] * 12, [3.0] * 12)
    both = dataclasses.replace(what, canary={"c": what.canary["c"], "d": [points([9.0] * 12)]})
    outcome = verdict(Check("c", "q"), both)
    assert outcome.verdict == "fail" and outcome.reason.startswith("d: ")
    blind = dataclasses.replace(what, canary={"c": what.canary["c"], "d": []})
    assert verdict(Check("c", "q"), blind).verdict == "inconclusive"


@pytest.mark.parametrize("direction", ["lower", "higher", "same"])
def test_slow_poison_is_a_trend_and_warming_up_is_not(direction: str) -> None:
    sign = {"lower": 1, "higher": -1, "same": 1}[direction]
    check = Check("memory", "q", direction, tolerance=0.2)
    leak = evidence([100.0 + sign * 0.05 * i for i in range(48)], [100.0] * 48, [101.0] * 48)
    outcome = verdict(check, leak)
    assert outcome.verdict == "fail" and "gets worse by 36 an hour" in outcome.reason, outcome
    assert verdict(dataclasses.replace(check, horizon=0.0), leak).verdict == "pass", "nobody asked"
    warm = evidence([100 - sign * 8 * math.exp(-i / 3) for i in range(48)], [100.0] * 48, [101.0] * 48)
    assert verdict(check, warm).verdict == "pass"
    together = evidence(*[[100.0 + sign * 0.05 * i for i in range(48)]] * 3)
    assert verdict(check, together).verdict == "pass", "what all do is not the canary's"
    better = evidence([100.0 - sign * 0.05 * i for i in range(48)], [100.0] * 48, [101.0] * 48)
    assert verdict(check, better).verdict == ("fail" if direction == "same" else "pass")


@pytest.mark.parametrize("direction", ["lower", "higher", "same"])
def test_what_only_seems_to_get_worse_is_watched_for_longer(direction: str) -> None:
    sign = {"lower": 1, "higher": -1, "same": 1}[direction]
    check = Check("memory", "q", direction, tolerance=0.2)
    rng = random.Random(2)
    base = [noisy(rng, 100, 200, 0.5) for _host in range(4)]

    def leaking(samples: int) -> Outcome:
        return verdict(
            check, evidence([v + sign * 0.1 * i for i, v in enumerate(base[0][:samples])], *[b[:samples] for b in base[1:]])
        )

    doubt = leaking(24)
    assert doubt.verdict == "inconclusive" and "seems to get worse" in doubt.reason and doubt.seconds_more, doubt
    assert leaking(72).verdict == "fail"
    ebbing = [v - sign * 8 * math.exp(-i / 24) for i, v in enumerate(base[0])]
    assert {verdict(check, evidence(ebbing[:n], *[b[:n] for b in base[1:]])).verdict for n in range(48, 121, 6)} <= {
        "pass",
        "inconclusive",
    }
    assert verdict(check, evidence(ebbing, *base[1:])).verdict == "pass"


def test_on_a_network_to_rehearse_on_what_seems_well_goes_on_and_what_does_not_seem_so_does_not() -> None:
    strict = Check("c", "q", floor=1.0, tolerance=0.0, horizon=0.0)
    lenient = dataclasses.replace(strict, unclear="pass")
    rng = random.Random(3)
    few = noisy(rng, 10, 6, 2.0), noisy(rng, 10, 6, 2.0)
    assert verdict(strict, evidence(*few)).verdict == "inconclusive"
    well = verdict(lenient, evidence(*few))
    assert well.verdict == "pass" and well.reason.startswith("not proven, but nothing speaks against it")
    assert verdict(lenient, evidence(*few), final=False).verdict == "inconclusive", "not before it was watched"
    worse = [value + 2.5 for value in few[0]]
    assert verdict(lenient, evidence(worse, few[1])).verdict == "inconclusive"
    assert verdict(lenient, evidence([9.0] * 12, [3.0] * 12)).verdict == "fail"
    assert verdict(lenient, evidence([3.0] * 4, [3.0] * 4)).verdict == "inconclusive", "nothing known is nothing that seems well"
    ahead = dataclasses.replace(lenient, horizon=300.0)
    slowly = [10 + 0.06 * i for i in range(24)]
    assert verdict(ahead, evidence(slowly, *[noisy(rng, 10, 24, 0.1) for _host in range(3)])).verdict == "inconclusive", (
        "a trend speaks against it"
    )
    fast = [10 + 0.06 * i for i in range(9)]
    blind = verdict(ahead, evidence(fast, [10.0] * 9))
    assert blind.verdict == "inconclusive" and blind.seconds_more, "so few samples have no trend to be seen"
    assert "6 samples after the warm-up can't tell whether it gets worse, at least 8 are needed" in blind.reason
    assert verdict(lenient, evidence(fast, [10.0] * 9)).verdict == "pass", "nobody asked"


def test_what_nobody_asked_for_can_only_fail() -> None:
    check = Check("c", "q", detect=True)
    assert verdict(check, evidence([3.0] * 4, [3.0] * 4)).verdict == "not_applicable"
    rng = random.Random(3)
    unclear = evidence(noisy(rng, 10.9, 6, 2.0), noisy(rng, 10, 6, 2.0))
    assert verdict(check, unclear).verdict == "pass"
    assert verdict(check, evidence([9.0] * 12, [3.0] * 12)).verdict == "fail"


@pytest.mark.parametrize(
    ("mine", "others", "expected"),
    [
        ([3, 3, 3], [3, 3, 3], "pass"),
        ([3, 0, 0], [3, 2, 2], "fail"),
        ([3, 0, 3], [3, 2, 3], "pass"),
        ([0, 0, 0], [0, 0, 0], "not_applicable"),
        ([9, 8, 6], [9, 9, 9], "fail"),
        ([9, 8, 6], [9, 8, 6], "pass"),
        ([9, 8, 9], [9, 9, 9], "pass"),
        ([None, None], [3, 3], "not_applicable"),
        ([3, 3], [None, None], "not_applicable"),
        ([3], [3], "not_applicable"),
    ],
)
def test_falling_and_missing_peers(mine: list[int | None], others: list[float | None], expected: str) -> None:
    tips = [Tip(10, 10, True, peers=m, others_peers=o) for m, o in zip(mine, others)]
    assert canary.keeps_peers("val1", tips).verdict == expected


def test_blocks_that_come_late_are_told_by_who_made_them() -> None:
    def chain(late: float, blocks: int = 60) -> dict[int, tuple[float, str | None]]:
        made: dict[int, tuple[float, str | None]] = {0: (0.0, "B")}
        for height in range(1, blocks):
            who = "ABCD"[height % 4]
            made[height] = (made[height - 1][0] + (late if who == "A" else 1.0), who)
        return made

    assert [o.verdict for o in canary.late(chain(1.1), {"val1": "a"})] == ["pass"]
    (outcome,) = canary.late(chain(2.5), {"val1": "a"})
    assert outcome.verdict == "fail" and "2.50 s when it makes it, 1.00 s when others do" in outcome.reason
    assert canary.late(chain(9.0, 12), {"val1": "a"})[0].verdict == "not_applicable"
    assert canary.late({1: (1.0, None), 2: (2.0, None)}, {"val1": "a"})[0].verdict == "not_applicable"


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        (121.0, "pass"),
        (120.0, "pass"),
        (115.0, "pass"),
        (100.0, "inconclusive"),
        (140.0, "inconclusive"),
        (None, "not_applicable"),
        (math.nan, "not_applicable"),
    ],
)
def test_an_exporter_that_lies_is_no_evidence(exported: float | None, expected: str) -> None:
    seen = [(float(i), 100 + i) for i in range(21)]
    assert canary.truthful("val1", exported, seen, 20.0, 5.0, 3).verdict == expected
    assert canary.truthful("val1", exported, [], 20.0, 5.0, 3).verdict == "not_applicable"


@pytest.mark.parametrize(
    ("used", "allowed", "expected"),
    [(0, 0, "pass"), (5, 10, "pass"), (11, 10, "fail"), (None, 1, "inconclusive"), (math.nan, 1, "inconclusive")],
)
def test_an_error_budget(used: float | None, allowed: float, expected: str) -> None:
    assert canary.spent("budget: x", used, allowed).verdict == expected


def test_a_soak_tells_how_it_goes_in_words() -> None:
    said: list[dict[str, t.Any]] = []
    clock = Ticks()
    nodes = {"val1": Node(clock), "val2": Node(clock)}
    plan = watch.Plan(("val1",), ("val2",), (), {"val1": "A"}, soak=20, looks=2)
    clients: t.Any = nodes
    tips = watch.Tips({"val1": clients["val1"]}, {"val2": clients["val2"]})
    probes = watch.Probes(clients, 1.0, clock)
    watch.watch(plan, None, watch.Signers([clients["val2"]]), tips, clock, said.append, probes)
    assert [one["text"].split(",")[0:2] for one in said] == [
        ["soak", " look 1 of 2: so far well"],
        ["soak", " look 2 of 2: pass"],
    ]


def probing(extend: float = 40, **spoilt: t.Any) -> dict[str, t.Any]:
    clock = Ticks()
    nodes = {"val1": Node(clock, **spoilt), "val2": Node(clock), "val3": Node(clock)}
    clients: t.Any = nodes
    plan = watch.Plan(("val1",), ("val2", "val3"), (), {}, soak=40, extend=extend, looks=4)
    tips = watch.Tips({"val1": clients["val1"]}, {h: clients[h] for h in ("val2", "val3")})
    return watch.watch(plan, None, None, tips, clock, probes=watch.Probes(clients, 1.0, clock))


def test_what_is_seen_of_the_nodes_themselves_needs_no_exporter() -> None:
    good = probing()
    assert good["verdict"] == "pass" and good["seconds"] == pytest.approx(40, abs=3)
    slow = probing(slow=0.6)
    assert slow["verdict"] == "fail" and slow["seconds"] < 40
    assert [c["name"] for c in slow["checks"] if c["verdict"] == "fail"] == ["time to answer, as seen from here"]
    crawling = probing(rate=0.7)
    assert crawling["verdict"] == "fail"


def test_a_node_so_slow_that_looking_takes_all_the_time_is_seen_to_be_slow() -> None:
    class Slow(Node):
        def status(self) -> Status:
            self.clock.now += 2.0  # many requests to a slow node
            return super().status()

    clock = Ticks()
    nodes: t.Any = {"val1": Slow(clock, slow=0.9), "val2": Node(clock), "val3": Node(clock)}
    plan = watch.Plan(("val1",), ("val2", "val3"), (), {}, soak=8, looks=4)
    tips = watch.Tips({"val1": nodes["val1"]}, {h: nodes[h] for h in ("val2", "val3")})
    assert watch.watch(plan, None, None, tips, clock, probes=watch.Probes(nodes, 1.0, clock))["verdict"] == "fail"


def test_an_unclear_soak_goes_on_and_says_when_it_gives_up() -> None:
    down = probing(down=True)
    assert down["verdict"] == "inconclusive" and down["seconds"] == pytest.approx(80, abs=3) and len(down["looks"]) == 8
    short = probing(extend=3, down=True)
    assert short["seconds"] == pytest.approx(43, abs=3) and len(short["looks"]) == 5, "less than from look to look is not nothing"


class Metrics:
    """A Prometheus whose every query gives what it is told."""

    def __init__(self, clock: Ticks, answer: t.Callable[[str, float], t.Sequence[readers.Series]]) -> None:
        self.clock, self.answer = clock, answer
        self.asked: list[str] = []

    def now(self) -> float:
        return self.clock.wall()

    def query(self, expression: str) -> t.Sequence[readers.Series]:
        self.asked.append(expression)
        return self.answer(expression, self.clock.wall())

    def query_range(self, expression: str, start: float, end: float, step: float) -> t.Sequence[readers.Series]:
        return []


def budgets(number: float | None, missed: int = -1, absent: set[int] | None = None) -> dict[str, t.Any]:
    clock = Ticks()
    nodes = {"val1": Node(clock), "val2": Node(clock, absent=absent)}
    clients: t.Any = nodes
    plan = watch.Plan(
        *(("val1",), ("val2",), (), {}),
        soak=20, began=940.0, budgets=(watch.Budget("errors", "sum(increase(e_total[{window}]))", 10),),
        since_height=100, budget_missed=missed, fleet={"val1": "A", "val2": "B"},
    )  # fmt: skip
    series = [] if number is None else [readers.Series({}, ((0.0, number),))]
    api: t.Any = Metrics(clock, lambda query, at: series)
    tips = watch.Tips({"val1": clients["val1"]}, {"val2": clients["val2"]})
    result = watch.watch(plan, api, watch.Signers([clients["val2"]]), tips, clock)
    assert api.asked == ["sum(increase(e_total[80s]))"], "since the rollout began, once, at the end"
    return result


def test_a_budget_is_of_the_whole_rollout() -> None:
    assert budgets(9.0)["verdict"] == "pass"
    assert budgets(11.0)["verdict"] == "fail"
    assert budgets(None)["verdict"] == "inconclusive"
    assert budgets(0.0, missed=2, absent={105, 107})["verdict"] == "pass"
    over = budgets(0.0, missed=1, absent={105, 107})
    assert over["verdict"] == "fail" and "2 of 1 used" in over["checks"][-1]["reason"]


def test_a_counter_at_face_value_is_refused() -> None:
    clock = Ticks()
    api: t.Any = Metrics(clock, lambda query, at: [])
    found = watch.gather(api, watch.Plan(("val1",), ("val2",), (), {}), Check("c", "xai_errors_total"), 0, 60)
    assert "starts again with the node" in found.problem


def test_a_soak_that_reads_an_exporter_that_repeats_itself() -> None:
    clock = Ticks()
    nodes: t.Any = {"val1": Node(clock), "val2": Node(clock)}
    plan = watch.Plan(("val1",), ("val2",), (), {}, soak=60, looks=1, height_query="xai_chain_height")

    def exported(query: str, at: float) -> list[readers.Series]:
        true = 101 + int(at - 1000)
        return [
            readers.Series({"instance": "val1:1"}, ((at, 105.0),)),
            readers.Series({"instance": "val2:1"}, ((at, float(true)),)),
        ]

    api: t.Any = Metrics(clock, exported)
    tips = watch.Tips({"val1": nodes["val1"]}, {"val2": nodes["val2"]})
    result = watch.watch(plan, api, None, tips, clock, probes=watch.Probes(nodes, 2.0, clock))
    said = {c["name"]: c["verdict"] for c in result["checks"] if c["name"].startswith("exporter")}
    assert said == {
        "exporter of val1 tells what its node does": "inconclusive",
        "exporter of val2 tells what its node does": "pass",
    }
    assert result["verdict"] == "inconclusive"
