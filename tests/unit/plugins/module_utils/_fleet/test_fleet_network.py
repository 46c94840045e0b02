# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import time

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain import registry
from ansible_collections.chainops.validator.plugins.module_utils._core import clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._fleet import look, network
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._chain import fakes

LIMITS = network.Limits(tip_age=0)


class NoWait(clock.Clock):
    def __init__(self):
        self.slept = 0.0

    def sleep(self, seconds):
        self.slept += seconds


@pytest.fixture
def net():
    """``net(routes, ...)`` serves nodes v0, v1, ... and returns (nodes to ask, servers)."""
    with contextlib.ExitStack() as stack:

        def start(*routes):
            servers = [stack.enter_context(fakes.serving(one)) for one in routes]
            return [look.Node(f"v{n}", one.url) for n, one in enumerate(servers)], servers

        yield start


def four(tip=30, **more):
    return [fakes.reference(tip=tip, address=address, **more) for address in fakes.VALIDATORS]


def ask(nodes, **options):
    options.setdefault("limits", LIMITS)
    return look.look(registry.adapter("xai"), nodes, timeout=5, clock=options.pop("clock", NoWait()), **options)


def kinds(answer):
    return sorted({(finding["kind"], finding["node"]) for finding in answer["findings"]}, key=str)


DEAD = look.Node("dead", "http://127.0.0.1:1")


def test_a_network_that_is_well(net):
    nodes, _servers = net(*four())
    answer = ask(nodes)
    assert answer["problems"] == []
    assert (answer["ok"], answer["agree"], answer["common_height"], answer["common_hash"]) == (True, True, 30, fakes.hash_of(30))
    assert (answer["power_total"], answer["power_online"], answer["power_offline_fraction"]) == (40, 40, 0)
    assert (answer["power_known"], answer["window"], answer["final_height"], answer["chain_id"]) == (True, 20, 30, "devnet-1")
    assert [row["node"] for row in answer["validators"]] == ["v0", "v1", "v2", "v3"]
    assert {row["missed"] for row in answer["validators"]} == {0}
    assert network.blockers(answer, "v1") == []
    assert network.blockers(answer, "elsewhere") == ["elsewhere is not among the nodes that were asked"]


def test_nodes_at_different_heights_are_compared_where_all_are(net):
    tips = [28, 30, 31, 29]
    routes = [fakes.reference(tip=tip, address=a) for tip, a in zip(tips, fakes.VALIDATORS)]
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert (answer["agree"], answer["common_height"], answer["height_max"], answer["height_spread"]) == (True, 28, 31, 3)
    assert answer["ok"]


def test_a_forked_node_is_named_and_its_power_is_away(net):
    routes = four()
    routes[2] = fakes.reference(tip=30, address=fakes.VALIDATORS[2], chain="f")
    routes[2]["/version"]["genesis_hash"] = fakes.hash_of(0)
    nodes, _servers = net(*routes)
    waiting = NoWait()
    answer = ask(nodes, clock=waiting)
    assert kinds(answer) == [("fork", "v2")]
    assert (answer["agree"], answer["power_offline"]) == (False, 10)
    assert waiting.slept == 6.0
    assert "v2 has another block 30" in network.blockers(answer, "v1")[0]
    assert network.blockers(answer, "v2") == []


def test_a_fork_that_heals_is_none(net):
    routes = four()
    good = routes[1]["/blocks/30"]
    answers = [fakes.block(30, "f", fakes.VALIDATORS)]
    routes[1]["/blocks/30"] = lambda _headers: answers.pop() if answers else good
    nodes, _servers = net(*routes)
    assert ask(nodes)["ok"]


def test_a_fork_above_a_node_that_is_stuck_is_still_seen(net):
    """The stuck node drags the common height below the fork: the others are compared among themselves as well."""
    routes = four()
    routes[0] = fakes.reference(tip=5, address=fakes.VALIDATORS[0])
    routes[3]["/blocks/30"] = fakes.block(30, "f", fakes.VALIDATORS)
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert answer["common_height"] == 5
    assert kinds(answer) == [("behind", "v0"), ("fork", "v3"), ("power", None)]


def test_without_a_majority_nobody_is_right(net):
    routes = four()
    for index in (2, 3):
        routes[index]["/blocks/30"] = fakes.block(30, "f", fakes.VALIDATORS)
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert ("fork", None) in kinds(answer)
    assert answer["common_hash"] is None
    assert answer["power_online"] == 0


def test_an_unreachable_node_is_data_and_counts_as_away(net):
    nodes, _servers = net(*four()[:3])
    answer = ask([*nodes, look.Node("dead", "http://127.0.0.1:1", "TXAId")])
    assert kinds(answer) == [("unreachable", "dead")]
    row = answer["validators"][3]
    assert (row["node"], row["online"], row["missed"]) == ("dead", False, 0)
    assert answer["power_offline_fraction"] == 0.25
    assert "50.0 %" in network.blockers(answer, "v0")[-1]
    assert network.blockers(answer, "dead") == []
    node = next(one for one in answer["nodes"] if one["name"] == "dead")
    assert (node["reachable"], node["height"], node["online"]) == (False, None, False)
    assert "no answer" in node["error"]


def test_a_node_that_stumbles_once_is_asked_again_and_one_that_is_gone_is_not(net):
    routes = four()
    good, tries = routes[1]["/block/latest"], []

    def stumble(_headers):
        tries.append(1)
        return good if len(tries) > 1 else (500, "text/html", b"<title>500</title>")

    routes[1]["/block/latest"] = stumble
    nodes, servers = net(*routes)
    assert ask(nodes)["ok"]
    servers[1].routes["/block/latest"] = (500, "text/html", b"<title>500</title>")
    waiting = NoWait()
    assert kinds(ask(nodes, clock=waiting)) == [("unreachable", "v1")]
    assert waiting.slept == 6.0
    waiting = NoWait()
    ask([nodes[0], DEAD], clock=waiting)
    assert waiting.slept == 0.0


def test_nobody_reachable():
    answer = ask([DEAD, look.Node("dead2", "http://127.0.0.1:2")])
    assert (answer["ok"], answer["agree"], answer["common_height"]) == (False, False, None)
    assert network.blockers(answer, "dead")


def test_a_validator_of_somebody_else_is_there_when_it_signs(net):
    routes = four()
    for height in range(1, 31):
        for one in routes:
            one[f"/blocks/{height}"] = fakes.block(height, signers=fakes.VALIDATORS[:3])
    nodes, _servers = net(*routes[:2])
    answer = ask(nodes)
    assert [row["online"] for row in answer["validators"]] == [True, True, True, False]
    assert [row["missed"] for row in answer["validators"]] == [0, 0, 0, 20]
    assert answer["ok"]
    assert "50.0 %" in network.blockers(answer, "v0")[0]


def test_a_validator_of_somebody_else_that_signed_only_before_is_away(net):
    routes = four()
    for height in range(26, 31):
        for one in routes:
            one[f"/blocks/{height}"] = fakes.block(height, signers=fakes.VALIDATORS[:3])
    nodes, _servers = net(*routes[:2])
    assert [row["online"] for row in ask(nodes)["validators"]] == [True, True, True, False]


def test_an_unreachable_node_nobody_can_place_makes_the_others_validators_unknown(net):
    nodes, _servers = net(*four()[:3])
    answer = ask([*nodes, DEAD])
    assert [row["online"] for row in answer["validators"]] == [True, True, True, None]
    assert answer["power_offline_fraction"] == 0.25
    assert "50.0 %" in network.blockers(answer, "v0")[-1]
    assert "nobody knows which validator dead is" in network.blockers(answer, "dead")


def test_a_node_that_answers_and_does_not_sign_is_away(net):
    routes = four()
    for height in range(1, 31):
        for one in routes:
            one[f"/blocks/{height}"] = fakes.block(height, signers=fakes.VALIDATORS[1:])
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert kinds(answer) == [("not_signing", "v0")]
    assert answer["power_offline"] == 10


def test_one_key_on_two_hosts_stops_everything(net):
    routes = four()
    routes[1] = fakes.reference(tip=30, address="TXAIa")
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert any("one key on two hosts" in problem for problem in answer["problems"])
    for putting_back in (False, True):
        assert any("one key on two hosts" in reason for reason in network.blockers(answer, "v0", None, putting_back))


def test_a_key_other_than_the_inventorys(net):
    nodes, _servers = net(*four())
    answer = ask([look.Node("v0", nodes[0].api_url, "TXAIb"), *nodes[2:]])
    assert ("address", "v0") in kinds(answer)


def test_clocks(net):
    routes = four()
    now = time.time()
    routes[1]["/health"] = {"status": "healthy", "timestamp": now + 100}
    routes[2]["/health"] = {"status": "healthy", "timestamp": now}
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert kinds(answer) == [("clock", "v1")]
    assert 90 < answer["nodes"][1]["clock_offset"] <= 100
    assert abs(answer["nodes"][2]["clock_offset"]) < 3


def test_a_halted_chain(net):
    nodes, _servers = net(*four())
    assert kinds(ask(nodes, limits=network.Limits(tip_age=60))) == [("halted", None)]


def test_another_chain(net):
    routes = four()
    routes[3]["/version"]["chain_id"] = "mainnet"
    nodes, _servers = net(*routes)
    assert kinds(ask(nodes)) == [("chain", None)]


def test_double_signing_is_collected_and_old_ones_are_history(net):
    routes = four()
    record = {"address": "TXAIb", "height": 20, "round": 0, "step": 2, "hashes": ["a", "b"]}
    for one in routes[:2]:
        one["/finality/status"]["equivocations"] = [record]
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert answer["equivocations"] == [{**record, "seen_by": ["v0", "v1"]}]
    assert kinds(answer) == [("equivocation", None)]
    answer = ask(nodes, limits=network.Limits(tip_age=0, memory=5))
    assert answer["ok"] and len(answer["equivocations"]) == 1


def test_putting_back_goes_on_where_going_forward_stops(net):
    """Two of four broken by a release: the chain stands still, and each must be put back all the same."""
    nodes, _servers = net(*four()[:2])
    answer = ask([*nodes, look.Node("v2", "http://127.0.0.1:1", "TXAIc"), look.Node("v3", "http://127.0.0.1:2", "TXAId")])
    assert network.blockers(answer, "v2")
    assert network.blockers(answer, "v2", None, True) == []
    assert network.blockers(answer, "v0", None, True)  # but a third one isn't taken away for it


def test_xai_nodes_count_equally(net):
    routes = [fakes.xai(tip=10) for _ in range(4)]
    for index, one in enumerate(routes):
        one["/finality/validators"]["validators"][0]["address"] = f"xaitest1{index}"
    nodes, servers = net(*routes)
    answer = ask(nodes, clock=clock.CLOCK)
    assert answer["problems"] == []
    assert (answer["power_known"], answer["power_total"], answer["window"]) == (False, 4, 0)
    assert network.blockers(answer, "v0") == []
    assert "/blocks" not in servers[0].paths()
    answer = ask([*nodes[:3], DEAD], clock=clock.CLOCK)
    assert "50.0 %" in network.blockers(answer, "v0")[-1]


def test_three_nodes_cannot_spare_one(net):
    nodes, _servers = net(*(fakes.xai(tip=3, **{"/finality/validators": fakes.HTML_404}) for _ in range(3)))
    answer = ask(nodes, clock=clock.CLOCK)
    assert network.blockers(answer, "v0") == ["33.3 % of the voting power would be away, and it must stay below 33.3 %"]


def test_nodes_that_disagree_about_the_validators(net):
    routes = four()
    routes[1]["/finality/validators"] = {"validators": [{"address": "TXAIb", "voting_power": 1000}]}
    nodes, _servers = net(*routes)
    answer = ask(nodes)
    assert kinds(answer) == [("validators", None)]
    assert answer["power_total"] == 40


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ([], "no nodes"),
        ([look.Node("a", "http://x:1"), look.Node("a", "http://x:2")], "one name: a"),
        ([look.Node("a", "http://x:1"), look.Node("b", "http://X:1/")], "one api_url"),
    ],
)
def test_asking_one_node_twice_is_refused(nodes, word):
    with pytest.raises(InputError, match=word):
        ask(nodes)
