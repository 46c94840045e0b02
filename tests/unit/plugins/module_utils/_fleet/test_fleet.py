# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._fleet import power, validity
from ansible_collections.chainops.validator.plugins.module_utils._fleet.waves import waves

HOSTS = st.lists(st.text("abcdefgh", min_size=1, max_size=4), unique=True, max_size=30)
SIZES = st.lists(st.integers(1, 40) | st.integers(1, 100).map(lambda n: f"{n}%"), min_size=1, max_size=5)


# Waves


@given(HOSTS, SIZES)
def test_waves_hold_everybody_once_and_in_order(hosts, sizes):
    cut = waves(hosts, sizes)
    assert [host for wave in cut for host in wave] == hosts
    assert all(cut)
    assert cut == waves(list(hosts), list(sizes))
    if len(hosts) > 1:
        assert len(cut[0]) < len(hosts)


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (4, [1, "100%"], [1, 3]),
        (4, ["1", "100%"], [1, 3]),
        (10, [1, "50%"], [1, 5, 4]),
        (10, [1, 2], [1, 2, 2, 2, 2, 1]),
        (10, ["5%", "25%", "100%"], [1, 2, 7]),
        (3, ["33.4 %"], [1, 1, 1]),
        (1, [1, "100%"], [1]),
        (1, ["100%"], [1]),
        (4, ["100%"], [3, 1]),
        (4, [99], [3, 1]),
        (0, [1], []),
    ],
)
def test_wave_sizes(count, sizes, expected):
    assert [len(wave) for wave in waves([f"v{n}" for n in range(count)], sizes)] == expected


@pytest.mark.parametrize(
    "sizes", [[], "1", ["0%"], ["101%"], [0], [-1], ["-5%"], [True], [1.5], ["half"], [None], ["1e3%"], ["10%0"], ["²"]]
)
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(InputError, match="wave size"):
        waves(["a", "b"], sizes)


def test_a_host_twice_is_refused():
    with pytest.raises(InputError, match="listed twice: b"):
        waves(["a", "b", "b"], [1])


# Power


def members(*powers, away=(), unknown=()):
    return [power.Member(f"v{n}", p, None if n in unknown else n not in away) for n, p in enumerate(powers)]


@pytest.mark.parametrize(
    ("of", "budget", "allowed"),
    [
        (members(1, 1, 1, 1), None, True),
        (members(1, 1, 1), None, False),  # one of three is a third
        (members(1, 1, 1, 1, away=[1]), None, False),
        (members(1, 1, 1, 1, unknown=[1]), None, False),
        (members(1, 1, 1, 1, away=[0]), None, True),  # it is the one that is away
        (members(*[1] * 10, away=[1, 2]), None, True),
        (members(*[1] * 9, away=[1, 2]), None, False),
        (members(1, 1, 1, 1), 0.25, False),
        (members(1, 1, 1, 1), 0.26, True),
        (members(1, 1, 1), 0.9, False),  # a looser budget than a third is a third
        (members(40, 30, 30), None, False),
        (members(1, 50, 49), None, True),
        (members(0.1, 0.1, 0.1, away=[1]), None, False),
        (members(1), None, False),
        (members(0, 0), None, False),
        ([], None, False),
    ],
)
def test_who_can_be_spared(of, budget, allowed):
    verdict = power.decide(of, ["v0"], budget)
    assert verdict.allowed is allowed
    assert bool(verdict.reasons) is not allowed


def test_the_reason_has_numbers_and_names():
    (reason,) = power.decide(members(1, 1, 1, 1, away=[2]), ["v0"]).reasons
    assert reason == "50.0 % of the voting power would be away, and it must stay below 33.3 %; already away: v2"


def test_an_observer_has_no_power():
    verdict = power.decide(members(1, 1, 1, 1, away=[1]), ["observer"])
    assert verdict.allowed and verdict.after == 0.25


@given(
    st.lists(st.tuples(st.integers(0, 10**15), st.sampled_from([True, False, None])), max_size=12),
    st.sets(st.integers(0, 12)),
    st.none() | st.floats(0.001, 1),
)
def test_power_is_never_above_a_third_when_allowed(facts, going, budget):
    of = [power.Member(f"v{n}", p, online) for n, (p, online) in enumerate(facts)]
    verdict = power.decide(of, {f"v{n}" for n in going}, budget)
    away = sum(p for n, (p, online) in enumerate(facts) if online is not True or n in going)
    total = sum(p for p, _online in facts)
    assert verdict.total == total
    if verdict.allowed:
        assert away * 3 < total
        assert budget is None or away < budget * total or budget > 1 / 3
    if budget is None:
        assert verdict.allowed == (away * 3 < total)
    # More that goes, or less that is known, never makes it allowed.
    assert not (not verdict.allowed and power.decide(of, {f"v{n}" for n in going | {0}}, budget).allowed)


@pytest.mark.parametrize("budget", [0, -1, 1.1, "much", True, float("nan"), float("inf")])
def test_budgets_that_are_none(budget):
    with pytest.raises(InputError, match="power budget"):
        power.decide(members(1, 1), [], budget)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_powers_that_are_none(bad):
    with pytest.raises(InputError, match="voting power of v0"):
        power.decide(members(bad, 1), [])


def test_a_validator_twice():
    with pytest.raises(InputError, match="twice: v0"):
        power.decide(members(1) * 2, [])


# Validity


def instance(number, **fields):
    made = validity.Instance(
        name=f"h{number}",
        machine=f"m{number}",
        instance="xai",
        service="xai.service",
        data_dir="/var/lib/xai",
        address=f"TXAI{number}",
        api_url=f"http://10.0.0.{number}:8545",
    )
    return dataclasses.replace(made, **fields)


def test_a_fleet_that_is_one():
    assert validity.problems([instance(1)]) == ()
    assert validity.problems([instance(n) for n in range(1, 5)]) == ()


def test_several_instances_on_one_machine():
    second = instance(2, machine="m1", instance="xai2", service="xai2.service", data_dir="/var/lib/xai2")
    assert validity.problems([instance(1), second]) == ()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"address": "txai1"}, "signing address"),
        ({"api_url": "http://10.0.0.1:8545/"}, "the API"),
        ({"machine": "m1"}, "data directory"),
        ({"machine": "m1", "data_dir": "/x", "service": "y"}, "instance name xai"),
        ({"machine": "m1", "data_dir": "/x", "instance": "y"}, "service xai.service"),
        ({"machine": "m1", "data_dir": "/var/lib/xai/../xai/", "instance": "y", "service": "y"}, "data directory /var/lib/xai"),
        ({"machine": "m1", "data_dir": "/var/lib/xai/sub", "instance": "y", "service": "y"}, "lies inside"),
        ({"name": "h1"}, "h1 is listed twice"),
        ({"instance": ""}, "h2 has no instance name"),
    ],
)
def test_two_names_for_one_instance_or_one_key_on_two_hosts(fields, word):
    found = validity.problems([instance(1), instance(2, **fields)])
    assert any(word in problem for problem in found), found


def test_nobody():
    assert validity.problems([]) == ("there are no validators to act on",)


def test_unknown_addresses_are_not_alike():
    assert validity.problems([instance(n, address="", api_url="") for n in (1, 2)]) == ()
