# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fractions
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy, Record, Thresholds
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import (
    ChainRule,
    Tally,
    _exact_sum,
    decide,
    tally,
)
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    ID,
    execution,
    implementation,
    payload,
    proposal,
    review,
    rollback,
    vote,
)

Act = t.Tuple[str, t.Dict[str, t.Any]]


def records(acts: t.Sequence[Act]) -> list[Record]:
    return [
        Record(height, 0, f"tx{height:04d}", sender, f"{height:064x}", metadata)
        for height, (sender, metadata) in enumerate(acts, 1)
    ]


def count(*acts: Act, policy: Policy | None = None) -> Tally:
    return tally(records(acts), ID, policy or Policy())


def says(*acts: Act, policy: Policy | None = None) -> tuple[bool, str, str]:
    rule = policy or Policy()
    verdict = decide(count(*acts, policy=rule), rule)
    return verdict.open, verdict.stage, "; ".join(verdict.reasons)


SUBMIT: Act = ("S", proposal())
YES = [(name, vote()) for name in "ABCDE"]
REVIEWS = [(name, review()) for name in "ABCDE"]
IMPL = [(name, implementation()) for name in "ABCDE"]
APPROVED = [SUBMIT, *YES, *REVIEWS, *IMPL]


def test_every_stage_is_followed_and_every_no_has_its_numbers() -> None:
    assert says()[:2] == (False, "absent")
    assert "no proposal 'upgrade-2.0.0'" in says()[2]
    opened, stage, why = says(SUBMIT)
    assert (opened, stage) == (False, "proposed")
    assert "0 of 5 yes voters (the chain's rule)" in why
    opened, stage, why = says(SUBMIT, *YES[:4])
    assert (opened, stage) == (False, "proposed")
    assert "4 of 5 yes voters" in why
    assert "the strongest yes voter has 25.0 % of the yes power; at most 20 % is allowed" in why
    opened, stage, why = says(SUBMIT, *YES)
    assert (opened, stage) == (False, "approved_voting")
    assert "0 of 5 code reviewers" in why
    opened, stage, why = says(SUBMIT, *YES, *REVIEWS)
    assert (opened, stage) == (False, "code_review_passed")
    assert "0 of 2 implementation approvals, by 5 yes voters" in why
    assert says(*APPROVED) == (True, "implementation_approved", "")
    assert says(*APPROVED, ("X", execution())) == (True, "executed", "")


def test_the_gate_opens_exactly_where_the_chain_says_implementation_approved() -> None:
    assert not says(SUBMIT, *YES, *REVIEWS, *IMPL[:1])[0]
    assert says(SUBMIT, *YES, *REVIEWS, *IMPL[:2])[0]


@pytest.mark.parametrize(
    ("powers", "against", "chain_ok"),
    [
        ([20] * 5, [51], True),  # 66.2 %
        ([20] * 5, [52], False),  # 65.8 %
        ([66, 66, 66, 66, 66], [170], True),  # exactly 66 %
        ([20, 20, 20, 20, 21], [], False),  # the cap rejects, it doesn't clip
        ([20, 20, 20, 20, 1e9], [], False),
        ([20, 20, 20, 20, 20, 0], [], True),  # six voters, nobody above 20 %
        ([0] * 5, [], False),
        ([20] * 5, [], True),
        ([0.1] * 5, [], True),
        ([0.7] * 5, [], True),
        ([1.1] * 5, [], True),
        ([20] * 4, [], False),
        ([10] * 10, [1e9], False),  # no-power is not capped
        ([10] * 10, [51.515151], True),
        ([1] * 5, [2.575], True),
    ],
)
def test_votes_against_the_chains_thresholds(powers: list[float], against: list[float], chain_ok: bool) -> None:
    acts = [SUBMIT]
    acts += [(f"Y{i}", vote("yes", power)) for i, power in enumerate(powers)]
    acts += [(f"N{i}", vote("no", power)) for i, power in enumerate(against)]
    result = count(*acts)
    assert result.chain is not None
    assert (result.chain.stage == "approved_voting") is chain_ok


def test_float_noise_is_told_apart_from_a_real_excess() -> None:
    acts = [SUBMIT, *((f"Y{i}", vote("yes", 66)) for i in range(5)), ("N", vote("no", 170.0000001))]
    result = count(*acts)
    assert result.policy is not None
    assert "65.999999999" not in str(result.policy.missing())
    assert any("of 66 % of the voting power" in text and "66.0 %" not in text for text in result.policy.missing())


def test_the_last_vote_counts_and_an_approval_that_is_withdrawn_is_withdrawn() -> None:
    assert not says(*APPROVED, ("A", vote("no")))[0]
    assert not says(*APPROVED, ("A", vote("abstain")))[0]
    assert says(*APPROVED, ("A", vote("no")), ("A", vote("yes")))[0]
    assert not says(*APPROVED, ("A", review(False)), ("B", review(False)))[0]
    acts = [SUBMIT, *YES, *REVIEWS, ("A", implementation()), ("B", implementation()), ("A", implementation(False))]
    assert "1 of 2 implementation approvals" in says(*acts)[2]


def test_an_implementation_approval_of_somebody_who_changed_their_mind_counts_for_the_chain_alone() -> None:
    six = [(name, vote("yes", 10)) for name in "ABCDEF"]
    acts = [
        SUBMIT,
        *six,
        *REVIEWS,
        ("A", implementation()),
        ("B", implementation()),
        ("C", implementation()),
        ("A", vote("no", 0)),
    ]
    result = count(*acts)
    assert result.chain is not None and result.policy is not None
    assert "3 of 3" in next(check.text for check in result.chain.implementation)
    assert "2 of 2" in next(check.text for check in result.policy.implementation)


def test_one_address_in_two_spellings_votes_once() -> None:
    acts = [SUBMIT, *YES[:4], ("d", vote())]
    result = count(*acts)
    assert result.policy is not None and result.chain is not None
    assert "4 of 5 yes voters" in result.policy.missing()
    assert not any(text.endswith("of 5 yes voters") for text in result.chain.missing())


@pytest.mark.parametrize("power", [-20, 0, "20", None, True, [20]])
def test_a_power_that_is_none_carries_nobody(power: t.Any) -> None:
    opened, _stage, why = says(SUBMIT, *YES[:4], ("E", vote("yes", power)), *REVIEWS, *IMPL)
    assert not opened
    assert "4 of 5 yes voters" in why


def test_a_power_the_chain_itself_stumbles_over_closes_the_gate() -> None:
    opened, _stage, why = says(*APPROVED, ("F", vote("no", "many")))
    assert not opened
    assert "the chain's own rule can't be computed" in why


def test_negative_no_power_helps_nobody() -> None:
    weak = [(name, vote("yes", 20)) for name in "ABCDE"]
    against = ("N", vote("no", 60))
    helper = ("M", vote("no", -60))
    result = count(SUBMIT, *weak, against, helper)
    assert result.chain is not None and result.policy is not None
    assert result.chain.stage == "approved_voting"
    assert result.policy.stage == "proposed"


def test_nothing_counts_before_the_submission() -> None:
    opened, stage, _why = says(*YES, *REVIEWS, SUBMIT)
    assert (opened, stage) == (False, "proposed")


def test_nothing_counts_after_the_execution() -> None:
    done = [*APPROVED, ("X", execution())]
    assert says(*done, *((name, vote("no")) for name in "ABCDE")) == (True, "executed", "")
    assert any("came after proposal_execution" in note for note in count(*done, ("A", vote("no"))).notes)


def test_an_execution_too_early_or_of_another_payload_is_none() -> None:
    assert says(SUBMIT, *YES, ("X", execution()))[:2] == (False, "approved_voting")
    result = count(*APPROVED, ("X", execution({"other": 1})))
    assert result.executed is None
    assert any("its payload is not the approved one" in note for note in result.notes)
    late = count(SUBMIT, *YES, *REVIEWS, ("X", execution()), *IMPL)
    assert (late.executed, late.stage) == (None, "implementation_approved")


@pytest.mark.parametrize("who", ["S", "stranger"])
def test_a_rollback_closes_the_gate_for_good_whoever_sent_it(who: str) -> None:
    for before in ([SUBMIT], APPROVED, [*APPROVED, ("X", execution())]):
        opened, stage, why = says(*before, (who, rollback()), *YES)
        assert (opened, stage) == (False, "rolled_back")
        assert f"by {who}" in why
        assert ("who did not submit it" in why) is (who != "S")


def test_a_rollback_of_another_proposal_under_our_id_is_not_ours() -> None:
    other = {**rollback("other"), "proposal_id": ID}
    assert says(*APPROVED, ("S", other))[0]


def test_a_second_submission_voids_the_id_even_when_it_is_the_same() -> None:
    for content in (payload(), payload(risk="none")):
        opened, stage, why = says(*APPROVED, ("S", proposal(content=content)))
        assert (opened, stage) == (False, "void")
        assert "use a new id" in why


def test_a_malformed_submission_is_none() -> None:
    broken = {name: value for name, value in proposal().items() if name != "title"}
    assert says(("S", broken), *YES)[1] == "absent"
    assert says(("S", broken), *APPROVED)[0]


def test_thresholds_in_force_follow_executed_proposals() -> None:
    change = {"rule_name": "min_voters", "new_value": 6}
    meta: list[Act] = [("S", proposal("rules", change, "modify_governance_rules"))]
    meta += [(name, vote(proposal_id="rules")) for name in "ABCDE"]
    meta += [(name, review(proposal_id="rules")) for name in "ABCDE"]
    meta += [(name, implementation(proposal_id="rules")) for name in "ABCDE"]
    fire: Act = ("S", execution(change, "rules"))
    assert says(*meta, *APPROVED)[0]
    opened, _stage, why = says(*meta, fire, *APPROVED)
    assert not opened and "5 of 6 yes voters" in why
    opened, _stage, why = says(*APPROVED, *meta, fire)
    assert not opened and "5 of 6 yes voters" in why
    assert says(*APPROVED, ("X", execution()), *meta, fire)[0] is False  # our own count asks for what is in force now
    assert count(*meta, fire).threshold_changes == ("min_voters became 6 at height 17 by proposal 'rules'",)


@pytest.mark.parametrize(
    ("value", "taken"), [(99, False), (100, True), (10000, True), (10001, False), ("100", False), (100.0, False)]
)
def test_protocol_parameters_have_the_chains_ranges(value: t.Any, taken: bool) -> None:
    rule = ChainRule(Thresholds(min_voters=1, max_individual_power_percent=100, min_code_reviewers=1))
    change = {"parameter": "min_voters", "new_value": value}
    acts = [("S", proposal("p", change, "protocol_parameter")), ("A", vote(proposal_id="p")), ("A", review(proposal_id="p"))]
    for record in records([*acts, ("S", execution(change, "p"))]):
        rule.apply(record)
    assert rule.thresholds.min_voters == (value if taken else 1)


def test_policy_can_ask_for_more_than_the_chain_does() -> None:
    strict = Policy.from_dict({"thresholds": {"min_voters": 6}})
    assert says(*APPROVED, policy=strict)[2] == "5 of 6 yes voters (policy)"
    executed = Policy.from_dict({"required_stage": "executed"})
    assert says(*APPROVED, policy=executed) == (False, "implementation_approved", "not executed, which the policy requires")
    assert says(*APPROVED, ("X", execution()), policy=executed)[0]
    small = Policy.from_dict(
        {"chain_thresholds": {"min_voters": 1, "max_individual_power_percent": 100, "min_code_reviewers": 1}}
    )
    assert says(SUBMIT, YES[0], REVIEWS[0], IMPL[0], policy=small)[0]
    assert not says(SUBMIT, YES[0], REVIEWS[0], policy=small)[0]  # the chain would ask for 0 of 1


@pytest.mark.parametrize(
    "raw",
    [
        {"threshold": {}},
        {"thresholds": {"voters": 1}},
        {"thresholds": {"min_voters": -1}},
        {"thresholds": {"min_voters": 4.5}},
        {"thresholds": {"min_voters": True}},
        {"thresholds": [1]},
        {"required_stage": "proposed"},
        {"valid_blocks": 0},
        {"voting_period": -1},
        {"timelock": 1.5},
        {"timelock": True},
        {"power": "all"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(raw: dict[str, t.Any]) -> None:
    with pytest.raises(InputError, match="policy"):
        Policy.from_dict(raw)


def timed(*acts: Act, height: int | None, pace: float | None = None, **rule: int) -> tuple[Tally, str]:
    policy = Policy.from_dict(rule)
    found = tally(records(acts), ID, policy, height=height, pace=pace)
    return found, "; ".join(decide(found, policy).reasons)


def test_votes_after_the_voting_period_do_not_count_for_us() -> None:
    found, reasons = timed(*APPROVED, height=40, voting_period=4)  # submitted at 1, the fifth vote is in block 6
    assert reasons.startswith("4 of 5 yes voters (policy); the strongest yes voter has 25.0 % of the yes power")
    assert found.chain is not None and found.chain.ok
    assert [note for note in found.notes if "tx0006" in note] == [
        "governance_vote tx0006 by E at height 6 does not count: the voting period ended at height 5"
    ]
    assert timed(*APPROVED, height=40, voting_period=5)[1] == ""


def test_the_end_of_the_voting_period_is_waited_for() -> None:
    found, reasons = timed(*APPROVED, height=20, pace=2.0, voting_period=29)
    assert reasons == "the voting period of 29 blocks ends at height 30, 10 blocks away, about 20 s (policy)"
    assert found.as_dict()["waits"] == [{"what": "voting period", "until_height": 30, "blocks_left": 10, "seconds": 20.0}]
    assert timed(*APPROVED, height=30, voting_period=29)[1] == ""


@pytest.mark.parametrize(
    ("further", "height", "since"),
    [
        ([], 22, 13),  # votes, reviews, and two of five implementation votes: blocks 2 to 13
        ([], 23, None),
        ([("A", vote("no"))], 22, 0),
        ([("A", vote("no")), ("A", vote())], 27, 18),
        ([("A", vote("no")), ("A", vote())], 28, None),
        ([("Z", vote("abstain"))], 22, 13),
        ([("A", vote())], 23, None),
    ],
)
def test_a_timelock_runs_while_our_count_holds_without_a_break(further: list[Act], height: int, since: int | None) -> None:
    found, reasons = timed(*APPROVED, *further, height=height, pace=1.5, timelock=10)
    if since is None:
        assert (reasons, found.waits) == ("", ())
    elif since == 0:
        assert "4 of 5 yes voters" in reasons and found.waits == ()
    else:
        left = since + 10 - height
        text = f"approved since height {since}; the timelock of 10 blocks ends at height {since + 10}, {left} blocks away"
        assert reasons == f"{text}, about {left * 1.5:.0f} s (policy)"
        assert found.approved_height == since


def test_a_timelock_needs_to_know_the_height() -> None:
    assert "can't be told without the height" in timed(*APPROVED, height=None, timelock=1)[1]
    assert "can't be told without the height" in timed(*APPROVED, height=None, voting_period=1)[1]


def test_a_threshold_that_rises_breaks_the_timelock() -> None:
    change = {"rule_name": "min_voters", "new_value": 6}
    other: list[Act] = [
        ("S", proposal("p", change, "modify_governance_rules")),
        *((name, vote(proposal_id="p")) for name in "ABCDE"),
        *((name, review(proposal_id="p")) for name in "ABCDE"),
        *((name, implementation(proposal_id="p")) for name in "ABCDE"),
    ]
    sixth: list[Act] = [("F", vote())]
    acts = [*APPROVED, *other, ("S", execution(change, "p")), *sixth]
    found, _reasons = timed(*acts, height=60, timelock=50)
    assert found.approved_height == len(acts)  # the sixth yes, not the first five


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (None, ""),
        (dict.fromkeys("abcde", 20.0), ""),
        (dict.fromkeys("abcde", 1e9), ""),
        ({**dict.fromkeys("bcde", 20.0), "a": 0.0}, "4 of 5 yes voters (policy)"),
        (dict.fromkeys("bcde", 20.0), "4 of 5 yes voters (policy)"),
        ({**dict.fromkeys("bcde", 20.0), "a": 30.0}, ""),
        ({**dict.fromkeys("bcde", 10.0), "a": 20.0}, "the strongest yes voter has 33.3 % of the yes power"),
        ({}, "0 of 5 yes voters (policy)"),
        ({**dict.fromkeys("abcde", 20.0), "a": float("nan")}, "4 of 5 yes voters (policy)"),
    ],
)
def test_nobody_votes_with_more_than_they_hold(held: dict[str, float] | None, words: str) -> None:
    policy = Policy()
    found = tally(records(APPROVED), ID, policy, held=held)
    reasons = "; ".join(decide(found, policy).reasons)
    assert words in reasons if words else reasons == ""
    assert found.chain is not None and found.chain.ok  # the chain believes what is declared
    believed = Policy.from_dict({"power": "declared"})
    assert decide(tally(records(APPROVED), ID, believed, held=held), believed).open


def test_what_is_held_shows_beside_what_is_declared() -> None:
    found = tally(records(APPROVED), ID, Policy(), held={**dict.fromkeys("abcd", 20.0), "e": 7.5})
    assert [(one["power"], one["declared"]) for one in found.votes] == [*[(20, 20)] * 4, (7.5, 20)]
    assert (
        "governance_vote tx0006 by E at height 6 counts with 7.5, which is what its sender holds; declared is 20.0" in found.notes
    )


# A plain re-statement of the chain's rule, written apart from the code under test.

NAMES = "ABCDEFGH"
POWERS = st.sampled_from([0, 1, 20, 20.0, 21, 5.5, 0.1, 1e6])
ACTS = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.builds(vote, st.sampled_from(["yes", "yes", "yes", "no", "abstain"]), POWERS)),
    st.tuples(st.sampled_from(NAMES), st.builds(review, st.booleans(), POWERS)),
    st.tuples(st.sampled_from(NAMES), st.builds(implementation, st.booleans())),
    st.tuples(st.sampled_from(NAMES), st.just(execution())),
    st.tuples(st.sampled_from(NAMES), st.just(rollback())),
    st.tuples(st.sampled_from(NAMES), st.just(proposal())),
)


def plainly(acts: t.Sequence[Act]) -> tuple[bool, bool]:
    """(conditions hold now, was ever executed), as the node would have it."""
    known = executed = False
    votes: dict[str, tuple[str, t.Any]] = {}
    ever: set[str] = set()
    reviews: dict[str, tuple[bool, t.Any]] = {}
    impl: dict[str, bool] = {}

    def holds() -> bool:
        yes = [p for v, p in votes.values() if v == "yes"]
        power = 0
        for p in yes:
            power += p
        no = 0
        for v, p in votes.values():
            no += p if v == "no" else 0
        if len(yes) < 5 or power + no <= 0 or power / (power + no) * 100 < 66:
            return False
        if any((p / power * 100 if power > 0 else 0) > 20 for p in yes):
            return False
        total = good = 0
        for approved, p in reviews.values():
            total += p
            good += p if approved else 0
        if len(reviews) < 5 or (good / total * 100 if total > 0 else 0) < 66:
            return False
        return bool(ever) and sum(1 for who, ok in impl.items() if ok and who in ever) >= int(len(ever) * 0.5)

    for who, data in acts:
        kind = data["type"]
        if kind == "governance_proposal":
            known = True
        elif not known:
            continue
        elif kind == "governance_vote":
            votes[who] = (data["vote"], data["voting_power"])
            if data["vote"] == "yes":
                ever.add(who)
        elif kind == "code_review":
            reviews[who] = (data["approved"], data["voting_power"])
        elif kind == "implementation_vote" and who in ever:
            impl[who] = data["approved"]
        elif kind == "proposal_execution" and holds():
            executed = True
    return known and holds(), executed


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTS, max_size=60), st.booleans())
def test_the_chains_rule_is_the_chains_rule(acts: list[Act], boosted: bool) -> None:
    history = [SUBMIT, *(YES + REVIEWS + IMPL if boosted else []), *acts]
    rule = ChainRule(Thresholds())
    executions = []
    for record in records(history):
        done = rule.apply(record) is None
        if record.kind == "proposal_execution":
            executions.append(done)
    assert (rule.count(ID).ok, any(executions)) == plainly(history)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTS, max_size=40))
def test_open_means_that_both_say_yes_and_nothing_speaks_against_it(acts: list[Act]) -> None:
    history = [*APPROVED, *acts]
    result = count(*history)
    verdict = decide(result, Policy())
    kinds = [data["type"] for _who, data in history]
    if "rollback_change" in kinds or kinds.count("governance_proposal") > 1:
        assert not verdict.open
    if verdict.open:
        assert plainly(history)[0] or plainly(history)[1]
        assert result.policy is not None and result.policy.ok
        assert not verdict.reasons
    else:
        assert verdict.reasons


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTS, max_size=40), st.permutations(range(5)))
def test_the_order_of_first_votes_does_not_change_our_own_count(acts: list[Act], order: list[int]) -> None:
    one = count(SUBMIT, *YES, *acts)
    other = count(SUBMIT, *(YES[i] for i in order), *acts)
    assert one.policy is not None and other.policy is not None
    assert one.policy.missing() == other.policy.missing()


@settings(max_examples=200, deadline=None)
@given(st.lists(ACTS, max_size=25), st.integers(1, 30), st.integers(0, 12))
def test_a_timelock_is_what_looking_at_every_height_says(acts: list[Act], timelock: int, later: int) -> None:
    history = records([*APPROVED, *acts])
    height = len(history) + later
    policy = Policy.from_dict({"timelock": timelock})
    since = None
    for now in range(1, height + 1):
        ours = tally([record for record in history if record.height <= now], ID, Policy()).policy
        since = None if ours is None or not ours.ok else now if since is None else since
    found = tally(history, ID, policy, height=height)
    assert decide(found, policy).open == (
        decide(tally(history, ID, Policy()), Policy()).open and height - (since or 0) >= timelock
    )
    if since is not None and since > height - timelock:
        assert found.approved_height == since
        assert [(wait.until_height, wait.blocks_left) for wait in found.waits] == [(since + timelock, since + timelock - height)]
    else:
        assert found.waits == ()


@pytest.mark.parametrize(
    ("acts", "rule", "held", "words"),
    [
        # The one who says no holds nothing, or says so late: without them it would be 100 %.
        ([("F", vote("no", 30.0))], {"thresholds": {"approval_percent": 85}}, dict.fromkeys("abcde", 20.0), "80.0 % of 85 %"),
        ([("E", vote("no"))], {"thresholds": {"approval_percent": 90}, "voting_period": 16}, None, "83.3 % of 90 %"),
    ],
)
def test_what_a_restriction_leaves_out_may_have_been_a_no(
    acts: list[Act], rule: dict[str, t.Any], held: dict[str, float] | None, words: str
) -> None:
    six = [SUBMIT, *YES, *REVIEWS, *IMPL, ("G", vote()), *acts]  # G's vote is in block 17
    policy = Policy.from_dict(rule)
    reasons = decide(
        tally(records(six), ID, policy, held=None if held is None else {**held, "g": 20.0}, height=60), policy
    ).reasons
    assert any(words in text and "late votes and powers beyond what is held count, too" in text for text in reasons), reasons


RULES = st.fixed_dictionaries(
    {
        "thresholds": st.fixed_dictionaries(
            {},
            optional={
                "min_voters": st.integers(1, 8),
                "approval_percent": st.integers(50, 95),
                "max_individual_power_percent": st.integers(10, 40),
            },
        ),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ACTS, max_size=30),
    RULES,
    st.dictionaries(st.sampled_from(NAMES.lower()), st.sampled_from([0.0, 5.0, 20.0, 1e6])),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_a_restriction_never_opens_a_gate(
    acts: list[Act], rule: dict[str, t.Any], held: dict[str, float], period: int, timelock: int
) -> None:
    history = records([*APPROVED, *acts])
    plain = Policy.from_dict(rule)
    strict = Policy.from_dict({**rule, "voting_period": period, "timelock": timelock})
    if decide(tally(history, ID, strict, held=held, height=80), strict).open:
        assert decide(tally(history, ID, plain), plain).open


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(min_value=5e-324, allow_infinity=False) | st.integers(1, 10**30), max_size=40))
def test_our_sums_are_exact(values: list[int | float]) -> None:
    assert _exact_sum(values) == sum(map(fractions.Fraction, values), fractions.Fraction(0))


def test_a_hundred_thousand_votes_are_counted() -> None:
    history = records([SUBMIT, *((f"V{i}", vote("yes" if i % 4 else "no", 1.5 + i % 7)) for i in range(100_000))])
    assert tally(history, ID, Policy()).stage == "approved_voting"
