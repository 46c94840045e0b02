# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refnode import governance
from refnode.tx import Rejected


def action(sender, kind, proposal="p", **metadata):
    return {"sender": sender, "txid": "0" * 64, "tx_type": kind, "metadata": {"type": kind, "proposal_id": proposal, **metadata}}


def propose(proposal="p", **more):
    fields = {"title": "t", "description": "d", "proposal_type": "feature_activation"}
    fields["proposal_payload"] = {"feature_name": "smart_contracts", "enabled": True}
    return action("submitter", "governance_proposal", proposal, **{**fields, **more})


def play(*actions):
    state = governance.empty()
    for height, entry in enumerate(actions, 1):
        governance.check(entry)
        governance.apply(state, entry, height)
    return state


def votes(*powers, vote="yes", first=0):
    return [action(f"v{first + i}", "governance_vote", vote=vote, voting_power=power) for i, power in enumerate(powers)]


def whole_way(*extra):
    reviews = [action(f"r{i}", "code_review", approved=True, voting_power=10) for i in range(5)]
    built = [action(f"v{i}", "implementation_vote", approved=True) for i in range(2)]
    return [propose(), *votes(20, 20, 20, 20, 20), *reviews, *built, *extra]


@pytest.mark.parametrize(
    ("yes", "no", "expected"),
    [
        ((20, 20, 20, 20, 20), (), True),
        ((20, 20, 20, 20, 21), (), False),  # one above the cap rejects, it isn't clipped
        ((20, 20, 20, 20), (), False),  # four voters
        ((20, 20, 20, 20, 20), (51,), True),  # 66.2 %
        ((20, 20, 20, 20, 20), (52,), False),
        ((0, 0, 0, 0, 0), (), False),
        ((5, 5, 5, 5, 5, 1e9), (), False),  # one claims a billion
        ((1,) * 10, (), True),
    ],
)
def test_the_vote(yes, no, expected):
    state = play(propose(), *votes(*yes), *votes(*no, vote="no", first=50))
    assert governance.approved(state["proposals"]["p"], state["rules"]) is expected


def test_the_last_vote_of_an_address_counts_and_abstaining_counts_for_nothing():
    state = play(propose(), *votes(20, 20, 20, 20, 20), *votes(20, vote="no"), *votes(99, vote="abstain", first=70))
    assert governance.status(state["proposals"]["p"], state["rules"]) == "proposed"
    state = play(propose(), *votes(20, 20, 20, 20, 20), *votes(99, vote="abstain", first=70))
    assert governance.status(state["proposals"]["p"], state["rules"]) == "approved_voting"


def test_the_whole_way_activates_the_feature():
    state = play(*whole_way())
    assert governance.status(state["proposals"]["p"], state["rules"]) == "implementation_approved"
    assert not state["features"]["smart_contracts"]
    state = play(*whole_way(action("anyone", "proposal_execution")))
    assert governance.status(state["proposals"]["p"], state["rules"]) == "executed"
    assert state["features"]["smart_contracts"]


def test_execution_needs_everything():
    for left_out in ("governance_vote", "code_review", "implementation_vote"):
        actions = [a for a in whole_way(action("x", "proposal_execution")) if a["tx_type"] != left_out]
        state = play(*actions)
        assert not state["features"]["smart_contracts"], left_out
        assert state["failed"] == 1
    other = action("x", "proposal_execution", proposal_payload={"feature_name": "exchange", "enabled": False})
    assert not play(*whole_way(other))["features"]["smart_contracts"]


def test_a_proposal_id_is_taken_once_and_executed_once():
    again = propose(title="another", proposal_payload={"feature_name": "exchange", "enabled": False})
    state = play(*whole_way(again, action("x", "proposal_execution"), action("x", "proposal_execution")))
    assert state["proposals"]["p"]["title"] == "t" and state["features"]["exchange"] and state["failed"] == 2


def test_rollback_marks_and_reverts_nothing():
    state = play(*whole_way(action("x", "proposal_execution"), action("anyone", "rollback_change", original_proposal_id="p")))
    assert governance.status(state["proposals"]["p"], state["rules"]) == "rolled_back"
    assert state["features"]["smart_contracts"]


def test_rules_can_be_changed_within_bounds():
    def change(proposal_type, **payload):
        actions = whole_way(action("x", "proposal_execution"))
        actions[0] = propose(proposal_type=proposal_type, proposal_payload=payload)
        return play(*actions)["rules"]

    assert change("protocol_parameter", parameter="min_voters", new_value=100)["min_voters"] == 100
    assert change("protocol_parameter", parameter="min_voters", new_value=1)["min_voters"] == 5
    assert change("modify_governance_rules", rule_name="min_voters", new_value=1)["min_voters"] == 1
    assert change("modify_governance_rules", rule_name="nonsense", new_value=1) == governance.RULES


@pytest.mark.parametrize(
    "bad",
    [
        propose(title=None),
        propose(title=""),
        propose(description=5),
        propose(proposal_type=None),
        propose(proposal_payload=[]),
        propose(submitter_voting_power="many"),
        action("v", "governance_vote", vote="maybe"),
        action("v", "governance_vote"),
        action("v", "governance_vote", vote="yes", voting_power=-1),
        action("v", "governance_vote", vote="yes", voting_power=True),
        action("v", "code_review", approved="yes"),
        action("v", "implementation_vote"),
        action("v", "rollback_change"),
        action("v", "governance_vote", proposal="", vote="yes"),
        action("v", "governance_vote", proposal=7, vote="yes"),
        action("v", "governance_vote", proposal="x" * 201, vote="yes"),
        {"sender": "v", "tx_type": "governance_vote", "metadata": {}},
    ],
)
def test_malformed_metadata_is_refused(bad):
    with pytest.raises(Rejected) as caught:
        governance.check(bad)
    assert "metadata" in caught.value.message


@given(st.lists(st.sampled_from(range(30)), max_size=60))
def test_replay_is_deterministic_and_unknown_proposals_do_no_harm(order):
    pool = [
        *whole_way(action("x", "proposal_execution")),
        propose("q"),
        action("z", "governance_vote", "nowhere", vote="yes", voting_power=1),
    ]
    pool += [action("x", "rollback_change", original_proposal_id="p"), *votes(1, 2, 3, 4, vote="no"), *votes(7, 8, 9, first=10)]
    chosen = [pool[i % len(pool)] for i in order]
    before = copy.deepcopy(chosen)
    assert play(*chosen) == play(*chosen)
    assert chosen == before
