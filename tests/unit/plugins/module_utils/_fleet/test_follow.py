# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._fleet import follow
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._chain import fakes


class Ticking(clock.Clock):
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def look(node, **wanted):
    wanted.setdefault("timeout", 3.0)
    return follow.look("xai", node.url, follow.Wanted(**wanted), timeout=5, clock=Ticking())


@pytest.fixture
def node():
    with fakes.serving(fakes.reference(tip=10, version="2.0.0")) as served:
        yield served


def test_a_plain_look(node):
    answer = follow.look("xai", node.url)
    assert (answer["met"], answer["reasons"]) == (True, [])
    assert (answer["node"]["height"], answer["node"]["final_height"], answer["node"]["reachable"]) == (10, 10, True)


def test_a_node_that_is_not_there():
    answer = follow.look("xai", "http://127.0.0.1:1", timeout=1)
    assert answer["met"] is False
    assert (answer["node"]["reachable"], answer["node"]["height"], answer["node"]["healthy"]) == (False, None, False)
    assert "no answer from http://127.0.0.1:1" in answer["reasons"][0]


@pytest.mark.parametrize(
    "wanted",
    [
        {"height_above": 9},
        {"advance": 0},
        {"version": "2.0.0"},
        {"version": ""},
        {"address": "txaiA"},
        {"address": ""},
        {"peers_min": 2},
        {"healthy": True},
    ],
)
def test_what_holds_is_met_at_once(node, wanted):
    answer = look(node, **wanted)
    assert answer == {**answer, "met": True, "reasons": [], "waited": 0.0}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"height_above": 10}, "height 10 is not above 10"),
        ({"advance": 1}, "height rose by 0 (from 10 to 10), not yet by 1"),
        ({"version": "3"}, "the node is version 2.0.0, not 3"),
        ({"address": "TXAIb"}, "the node signs as TXAIa, not TXAIb"),
        ({"peers_min": 3}, "2 peers, not yet 3"),
        ({"healthy": False}, "it calls itself healthy: no issue named"),
        ({"paused": False}, "its pause is unknown (is there an admin token?)"),
    ],
)
def test_what_does_not_hold_is_said_with_numbers(node, wanted, reason):
    answer = look(node, **wanted)
    assert (answer["met"], answer["reasons"]) == (False, [reason])
    assert answer["waited"] == 3.0


def test_it_waits_until_the_tip_has_risen(node):
    tips = iter(range(10, 40))

    def latest(_headers):
        tip = next(tips)
        return {"block_number": tip, "hash": fakes.hash_of(tip), "timestamp": 1.0}

    node.routes["/block/latest"] = latest
    answer = look(node, advance=3)
    assert answer["met"] and answer["node"]["height"] == 13


def test_a_node_that_comes_up_late_counts_from_when_it_did(node):
    tips = iter(range(10, 40))
    calls = []

    def latest(_headers):
        calls.append(1)
        if len(calls) < 3:
            return (503, {"error": "starting"})
        tip = next(tips)
        return {"block_number": tip, "hash": fakes.hash_of(tip)}

    node.routes["/block/latest"] = latest
    answer = look(node, advance=2)
    assert answer["met"] and answer["node"]["height"] == 12


def test_an_observer_where_a_validator_was_expected(node):
    node.routes["/finality/status"]["validator_address"] = None
    assert "names no address" in look(node, address="TXAIa")["reasons"][0]


def test_xai_nodes_tell_neither_version_nor_always_an_address():
    with fakes.serving({**fakes.xai(), "/finality/validators": fakes.HTML_404}) as node:
        assert look(node, address="TXAIa", timeout=0)["met"]
        assert "names no address" in look(node, address="TXAIa", address_required=True, timeout=0)["reasons"][0]
        assert look(node, version="1", timeout=0)["reasons"] == ["the node tells no version, not 1"]


def test_a_transaction_that_must_be_in_a_block(node):
    answers = [(404, {"found": False}), {"found": True, "status": "pending"}, {"found": True, "block": 9}]
    node.routes["/transaction/t1"] = lambda _headers: answers.pop(0) if len(answers) > 1 else answers[0]
    assert look(node, included="t1")["met"]
    node.routes["/transaction/t2"] = (500, "text/html", b"oops")
    assert any("/transaction/t2" in reason for reason in look(node, included="t2")["reasons"])


def test_same_tip_as_others_at_a_height_both_have(node):
    with fakes.serving(fakes.reference(tip=12)) as ahead, fakes.serving(fakes.reference(tip=8)) as behind:
        assert look(node, tip_of=(ahead.url, behind.url))["met"]
        assert look(ahead, tip_of=(node.url, behind.url))["met"]


def test_a_fork_is_told_by_the_hash(node):
    with fakes.serving(fakes.reference(tip=12, chain="f")) as other:
        answer = look(node, tip_of=(other.url,))
    assert answer["reasons"] == [f"block 10 is {fakes.hash_of(10)[:16]} here and {fakes.hash_of(10, 'f')[:16]} at {other.url}"]


def test_following_at_a_distance_is_not_following(node):
    with fakes.serving(fakes.reference(tip=20)) as other:
        answer = look(node, tip_of=(other.url,))
        assert "10 blocks behind" in answer["reasons"][0]
        assert look(node, tip_of=(other.url,), max_lag=10)["met"]


def test_most_of_the_others_must_answer(node):
    with fakes.serving(fakes.reference(tip=10)) as one, fakes.serving(fakes.reference(tip=10)) as two:
        dead = "http://127.0.0.1:1"
        assert look(node, tip_of=(one.url, two.url, dead))["met"]
        for others in ((one.url, dead), (dead,)):
            answer = look(node, tip_of=others)
            assert "could be compared with" in answer["reasons"][0]


def test_input_that_makes_no_sense(node):
    with pytest.raises(InputError, match="agrees with itself"):
        look(node, tip_of=(node.url + "/",))
    with pytest.raises(InputError, match="interval"):
        look(node, interval=0)
    with pytest.raises(InputError, match="unknown chain"):
        follow.look("nope", node.url)
