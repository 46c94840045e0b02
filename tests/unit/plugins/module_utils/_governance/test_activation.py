# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import FeatureState
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError, InputError
from ansible_collections.chainops.validator.plugins.module_utils._governance import activation
from ansible_collections.chainops.validator.plugins.module_utils._governance.activation import Answer, History, Verdict
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy, Record, Thresholds
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import tally
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    execution,
    implementation,
    proposal,
    review,
    rollback,
    vote,
)

Act = t.Tuple[str, t.Dict[str, t.Any]]

FLAG = "smart_contracts"
KIND = "feature_activation"
RULES = "modify_governance_rules"


def switch(enabled: t.Any = True, name: t.Any = FLAG) -> dict[str, t.Any]:
    return {"feature_name": name, "enabled": enabled}


def records(acts: t.Iterable[Act]) -> list[Record]:
    return [
        Record(height, 0, f"tx{height:04d}", sender, f"{height:064x}", metadata)
        for height, (sender, metadata) in enumerate(acts, 1)
    ]


def approved(proposal_id: str, content: t.Any, kind: str = KIND) -> list[Act]:
    return [
        ("S", proposal(proposal_id, content, kind)),
        *((name, vote(proposal_id=proposal_id)) for name in "ABCDE"),
        *((name, review(proposal_id=proposal_id)) for name in "ABCDE"),
        *((name, implementation(proposal_id=proposal_id)) for name in "ABCDE"),
    ]


def executed(proposal_id: str, content: t.Any, kind: str = KIND) -> list[Act]:
    return [*approved(proposal_id, content, kind), ("X", execution(content, proposal_id))]


def followed(*acts: Act, name: str = FLAG) -> History:
    return activation.history(records(acts), name)


def told(found: History) -> tuple[t.Any, t.Any, list[tuple[str, t.Any, t.Any]]]:
    return found.expected, found.by, [(step.proposal_id, step.before, step.value) for step in found.steps]


ON, OFF = executed("on", switch()), executed("off", switch(False))


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ([], (False, None, [])),
        (approved("on", switch()), (False, None, [])),  # approved is not executed
        (ON, (True, "on", [("on", False, True)])),
        (ON + OFF, (False, "off", [("on", False, True), ("off", True, False)])),
        (
            [*ON, *OFF, ("X", execution(switch(), "on"))],  # an XAI node executes again and again
            (True, "on", [("on", False, True), ("off", True, False), ("on", False, True)]),
        ),
        (executed("on", {"feature_name": FLAG}), (True, "on", [("on", False, True)])),  # left out, enabled is true
        (executed("on", switch(0)), (False, "on", [("on", False, 0)])),
        (executed("on", switch(), "software_upgrade"), (False, None, [])),
        (executed("on", {**switch(), "proposal_type": KIND}, "software_upgrade"), (True, "on", [("on", False, True)])),
        (executed("on", {**switch(), "proposal_type": "other"}), (False, None, [])),
        (executed("on", switch(name="smart-contracts")), (False, None, [])),
        (executed("on", switch(name=["smart_contracts"])), (False, None, [])),
        (executed("on", switch(name="exchange")), (False, None, [])),
        ([*approved("on", switch()), ("X", execution(switch(False), "on"))], (False, None, [])),  # another payload
        ([("X", execution(switch(), "on")), *approved("on", switch())], (False, None, [])),  # before it was approved
    ],
)
def test_what_executed_proposals_made_of_a_feature(acts: list[Act], expected: t.Any) -> None:
    assert told(followed(*acts)) == expected


def test_features_begin_as_the_chain_has_them() -> None:
    assert (followed().expected, followed().start, followed().kind) == (False, False, "feature")
    assert (followed(name="exchange").expected, followed(name="exchange").by) == (True, None)
    nothing = followed(*executed("on", switch(name="warp")), name="warp")
    assert (nothing.kind, nothing.expected, nothing.value, nothing.steps) == (None, None, None, ())


def test_a_rollback_is_shown_and_takes_nothing_back() -> None:
    found = followed(*ON, ("anybody", rollback("on")))
    assert found.expected is True
    assert [(step.rolled_back, step.in_effect) for step in found.steps] == [(True, True)]
    found = followed(*ON, ("anybody", rollback("on")), *OFF)
    assert [(step.proposal_id, step.rolled_back, step.in_effect) for step in found.steps] == [
        ("on", True, False),
        ("off", False, True),
    ]
    assert followed(("anybody", rollback("on")), *ON).steps[0].rolled_back is False  # of a proposal that wasn't there


def test_thresholds_have_a_history_too() -> None:
    acts = executed("four", {"rule_name": "min_voters", "new_value": 4}, RULES)
    found = followed(*acts, name="min_voters")
    assert (found.kind, found.expected, found.start, found.value, found.by) == ("threshold", None, 5, 4, "four")
    assert activation.history(records(acts), "min_voters", Thresholds(min_voters=3)).start == 3


def test_thresholds_that_were_changed_decide_what_is_executed() -> None:
    seven = executed("seven", {"rule_name": "min_voters", "new_value": 7}, RULES)
    assert followed(*seven, *ON).expected is False
    assert followed(*ON, *seven).expected is True


IDS = ("on", "off", "rule", "else")
CONTENT = {"on": (switch(), KIND), "off": (switch(False), KIND), "else": (switch(False, "exchange"), KIND)}
CONTENT["rule"] = ({"rule_name": "min_voters", "new_value": 6}, RULES)
ACTS = st.one_of(
    st.sampled_from(IDS).map(lambda name: executed(name, *CONTENT[name])),
    st.sampled_from(IDS).map(lambda name: [("X", execution(CONTENT[name][0], name))]),
    st.sampled_from(IDS).map(lambda name: [("X", rollback(name))]),
    st.tuples(st.sampled_from(IDS), st.sampled_from("ABCDEFG"), st.sampled_from(["yes", "no"])).map(
        lambda it: [(it[1], vote(it[2], proposal_id=it[0]))]
    ),
    st.sampled_from(IDS).map(lambda name: [("Y", proposal(name, *CONTENT["on"]))]),
)
HISTORIES = st.lists(ACTS, max_size=8).map(lambda some: records(act for acts in some for act in acts))


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.sampled_from([FLAG, "exchange", "min_voters"]))
def test_the_relevant_records_are_enough(all_of_them: list[Record], name: str) -> None:
    assert activation.history(activation.relevant(all_of_them, name), name) == activation.history(all_of_them, name)


@settings(max_examples=150, deadline=None)
@given(HISTORIES)
def test_every_step_begins_where_the_last_one_ended(all_of_them: list[Record]) -> None:
    found = activation.history(all_of_them, FLAG)
    values = [found.start, *(step.value for step in found.steps)]
    assert [step.before for step in found.steps] == values[:-1]
    assert found.value == values[-1]
    assert [step.in_effect for step in found.steps] == [False] * (len(found.steps) - 1) + [True] * bool(found.steps)
    before = [record for record in all_of_them if record.kind != "rollback_change"]
    assert activation.history(before, FLAG).value == found.value


# --- verdict --------------------------------------------------------------------------------------------------------------


def says(name: str, active: bool | None, configured: bool | None = True) -> Answer:
    return Answer(name, None if active is None else FeatureState(FLAG, active, configured, None))


def judged(found: History | None, *active: bool | None, **more: t.Any) -> tuple[list[dict[str, t.Any]], Verdict]:
    return activation.judge(found, [says(f"val{number}", one) for number, one in enumerate(active, 1)], **more)


def test_inactive_everywhere_and_active_everywhere() -> None:
    nodes, verdict = judged(followed(), False, False)
    assert (verdict.inactive_everywhere, verdict.active_everywhere, verdict.reasons, verdict.notes) == (True, False, (), ())
    assert nodes[0] == {"name": "val1", "active": False, "expected": False, "by": None, "configured": True, "problem": None}
    nodes, verdict = judged(followed(*ON), True, True)
    assert (verdict.inactive_everywhere, verdict.active_everywhere, verdict.reasons) == (False, True, ())
    assert [node["by"] for node in nodes] == ["on", "on"]


@pytest.mark.parametrize(
    ("acts", "active", "toggled", "behind", "words"),
    [
        ([], [True, False], ["val1"], [], "val1: has it active, and no executed proposal made it so"),
        (approved("on", switch()), [True, True], ["val1", "val2"], [], "no executed proposal"),
        (ON, [True, False], [], ["val2"], "val2: has it inactive, but proposal 'on' made it active at height 17"),
        (ON, [False, False], [], ["val1", "val2"], "would at a restart"),
        (ON + OFF, [True, False], [], ["val1"], "val1: has it active, but proposal 'off' made it inactive at height 34"),
        (OFF, [True, False], ["val1"], [], "no executed proposal"),  # nobody ever activated it
    ],
)
def test_who_toggled_and_who_has_not_followed(
    acts: list[Act], active: list[bool], toggled: list[str], behind: list[str], words: str
) -> None:
    nodes, verdict = judged(followed(*acts), *active)
    assert (list(verdict.toggled_without_proposal), list(verdict.not_followed)) == (toggled, behind)
    assert words in "; ".join(verdict.reasons)
    assert not verdict.inactive_everywhere and not verdict.active_everywhere
    wrong = [node["name"] for node in nodes if node["problem"] is not None]
    assert wrong == toggled + behind
    assert all(node["by"] is None for node in nodes if node["name"] in wrong)


@pytest.mark.parametrize("acts", [[], ON])
def test_no_data_is_not_a_pass(acts: list[Act]) -> None:
    found = followed(*acts)
    expected = bool(found.expected)
    _nodes, verdict = judged(found, expected, None)
    assert verdict.unknown == ("val2",)
    assert not verdict.inactive_everywhere and not verdict.active_everywhere
    assert "val2: does not tell whether it is active" in verdict.reasons
    _nodes, verdict = activation.judge(found, [says("a", expected), Answer("b", None, "no answer from http://b")])
    assert (verdict.unknown, verdict.reasons) == (("b",), ("b: no answer from http://b",))
    _nodes, verdict = activation.judge(found, [])
    assert not verdict.inactive_everywhere and not verdict.active_everywhere
    nodes, verdict = judged(None, expected, expected, problems=["fewer than 2 of 3 readers agree"])
    assert not verdict.inactive_everywhere and not verdict.active_everywhere
    assert verdict.reasons == ("fewer than 2 of 3 readers agree",)
    assert [(node["active"], node["expected"], node["by"]) for node in nodes] == [(expected, None, None)] * 2


def test_a_name_that_is_no_feature_passes_nowhere() -> None:
    _nodes, verdict = judged(followed(name="smart-contracts"), False)
    assert not verdict.inactive_everywhere
    assert "knows no feature 'smart-contracts'" in verdict.reasons[0] and FLAG in verdict.reasons[0]
    _nodes, verdict = judged(followed(name="min_voters"), None)
    assert "is a threshold, which is 5" in verdict.reasons[0]


def own(acts: list[Act], proposal_id: str) -> t.Any:
    return tally(records(acts), proposal_id, Policy())


def test_the_proposal_that_was_meant_to_activate_it() -> None:
    for acts, active in (([], False), (approved("on", switch()), False), (ON, True)):
        _nodes, verdict = judged(followed(*acts), active, own=own(acts, "on"))
        assert (verdict.inactive_everywhere, verdict.active_everywhere, verdict.reasons) == (not active, active, ())
    acts = [*executed("sly", switch()), *approved("on", switch())]
    _nodes, verdict = judged(followed(*acts), True, own=own(acts, "on"))
    assert not verdict.active_everywhere
    assert verdict.reasons == (
        "smart_contracts is active by proposal 'sly'; proposal 'on', which was to activate it, never did "
        "(implementation_approved)",
    )
    for content, words in (
        (switch(name="exchange"), "is not about 'smart_contracts'"),
        (switch(False), "switches 'smart_contracts' off"),
    ):
        acts = approved("on", content)
        _nodes, verdict = judged(followed(*acts), False, own=own(acts, "on"))
        assert not verdict.inactive_everywhere and words in verdict.reasons[0]


def test_what_is_worth_knowing_is_noted() -> None:
    found = followed(*ON, ("anybody", rollback("on")))
    _nodes, verdict = activation.judge(found, [says("a", True), says("b", True, configured=False)])
    assert verdict.active_everywhere
    assert "b: governance has it active, but this node's own configuration" in verdict.notes[0]
    assert "'on' was rolled back and is still in effect" in verdict.notes[1]


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.lists(st.sampled_from([True, False, None]), max_size=5))
def test_everywhere_means_every_node_and_the_chain(all_of_them: list[Record], active: list[bool | None]) -> None:
    found = activation.history(all_of_them, FLAG)
    nodes, verdict = judged(found, *active)
    same = bool(active) and all(one is found.expected for one in active)
    assert (verdict.inactive_everywhere, verdict.active_everywhere) == (same and not found.expected, same and found.expected)
    assert bool(verdict.reasons) is bool(active and not same)
    named = (*verdict.toggled_without_proposal, *verdict.not_followed, *verdict.unknown)
    assert sorted(named) == sorted(node["name"] for node in nodes if node["active"] is not found.expected)


# --- asking ---------------------------------------------------------------------------------------------------------------


class Adapter:
    """Nodes by their URL: a state, None, or an error."""

    def __init__(self, **nodes: t.Any) -> None:
        self.nodes = nodes
        self.open = 0

    def client(self, api_url: str, *, timeout: float) -> t.Any:
        adapter, said = self, self.nodes[api_url.rpartition("/")[2]]
        self.open += 1

        class Client:
            def feature(self, name: str) -> t.Any:
                if isinstance(said, Exception):
                    raise said
                return said

            def close(self) -> None:
                adapter.open -= 1

        return Client()


def test_every_node_is_asked_and_what_goes_wrong_is_data() -> None:
    state = FeatureState(FLAG, True)
    adapter = Adapter(a=state, b=None, c=HttpError("answered rubbish", url="", status=200, body=""))
    nodes = [activation.Node(name, f"http://h/{name}") for name in "abc"]
    assert activation.ask(t.cast(t.Any, adapter), nodes, FLAG) == [
        Answer("a", state),
        Answer("b", None),
        Answer("c", None, "answered rubbish"),
    ]
    assert adapter.open == 0


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "no nodes to ask"),
        ([("a", "http://h/1"), ("a", "http://h/2")], "two nodes have one name: a"),
        ([("a", "http://h/1"), ("b", "http://H/1/")], "two nodes have one api_url"),
    ],
)
def test_a_node_is_asked_once(nodes: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        activation.require_distinct([activation.Node(*one) for one in nodes])
