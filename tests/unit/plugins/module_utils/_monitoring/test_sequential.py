# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._monitoring import sequential

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=24)


@pytest.mark.parametrize(
    "sizes", [(1.0, 2.0, 3.0, 4.0, 5.0), (5.0, 1.0, 4.0, 1.0, 3.0), (1.0, 1.0, 1.0, 1.0, 1.0), (9.0, 7.0, 5.0, 3.0, 1.0)]
)
def test_no_bet_wins_on_a_fair_coin(sizes: tuple[float, ...]) -> None:
    """Over all signs of given sizes, the capital is 1 on average: exactly, not about. That is what the bound follows from."""
    capitals = [
        math.exp(sequential.evidence([sign * size for sign, size in zip(signs, sizes)]))
        for signs in itertools.product((-1, 1), repeat=len(sizes))
    ]
    assert math.fsum(capitals) / len(capitals) == pytest.approx(1.0, rel=1e-9)


def test_the_capital_that_is_ever_reached_keeps_its_bound() -> None:
    """Looking after every one of 60 samples, of several symmetric distributions, the bound of 5 % holds."""
    rng = random.Random(11)
    for draw in (lambda: rng.gauss(0, 1), lambda: rng.choice((-1.0, 1.0)), lambda: math.tan(math.pi * (rng.random() - 0.5))):
        crossed = 0
        for _run in range(400):
            seen = [draw() for _ in range(60)]
            crossed += any(sequential.evidence(seen[:n]) >= math.log(20) for n in range(1, 61, 3))
        assert crossed / 400 <= 0.05


def test_six_samples_that_agree_are_enough_to_pass_and_eight_to_fail() -> None:
    assert sequential.evidence([1.0] * 5 + [1.0]) > math.log(20)
    assert sequential.evidence([1.0] * 8) > math.log(50)
    assert sequential.evidence([-1.0] * 8) < math.log(0.05)
    assert sequential.evidence([0.0] * 6) < 0 < sequential.evidence([0.0] * 6, 1)
    assert sequential.evidence([]) == pytest.approx(0)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_an_interval_holds_what_nothing_speaks_against_and_turns_with_its_sign(values: list[float]) -> None:
    low, high = sequential.interval(values, 0.05)
    assert low <= high
    if math.isfinite(low):
        assert min(values) - (max(values) - min(values) or 1.0) <= low <= max(values)
    turned = sequential.interval([-v for v in values], 0.05)
    scale = 1e-6 * (1 + max(map(abs, values)))
    for ours, theirs in ((low, -turned[1]), (high, -turned[0])):
        assert ours == theirs or abs(ours - theirs) <= scale


def test_an_interval_narrows_with_samples_and_holds_the_truth() -> None:
    rng = random.Random(5)
    held, widths = 0, []
    for _run in range(200):
        values = [rng.gauss(3, 1) for _ in range(40)]
        low, high = sequential.interval(values, 0.05)
        held += low <= 3 <= high
        few = sequential.interval(values[:10], 0.05)
        widths.append((few[1] - few[0], high - low))
    assert held / 200 >= 0.95
    assert sum(a > b for a, b in widths) / 200 >= 0.95


def test_slopes_and_centres() -> None:
    low, estimate, high = sequential.slope([2.0 * i for i in range(20)], 2.0)
    assert (low, estimate, high) == (2.0, 2.0, 2.0)
    assert sequential.slope([1.0, 2.0], 2.0)[0] == -math.inf
    assert sequential.slope([3.0] * 20, 2.0) == (0.0, 0.0, 0.0)
    long = sequential.slope([float(i) for i in range(1000)], 2.0)
    assert long[1] == pytest.approx(1.0, rel=0.02)
    assert sequential.centre([5.0] * 12, 2.0) == (5.0, 5.0, 5.0)
    low, estimate, high = sequential.centre([4.0, 5.0, 6.0] * 10 + [1000.0], 2.0)
    assert 4 < low <= estimate <= high < 6.5
    assert not math.isfinite(sequential.centre([1.0, 2.0], 3.0)[0])


def test_correlated_samples_count_for_less() -> None:
    slow = [math.sin(i / 8) for i in range(48)]
    assert sequential.inflation(slow) > 5
    assert sequential.inflation([1.0, -1.0] * 20) == 1.0
    assert sequential.inflation([3.0] * 10) == 1.0
    assert sequential.block_length([slow]) > 5
    assert sequential.block_length([[3.0] * 10, [1.0, -1.0] * 5]) == 1
    assert sequential.block_length([]) == sequential.block_length([[1.0] * 3]) == 1
    assert sequential.blocks([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3) == [2.0, 5.0]
