# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError, InputError, Refused, WaitTimeout
from ansible_collections.chainops.validator.plugins.module_utils._governance import acting, signing
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import Tally
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    CHAIN_ID,
    ID,
    Chain,
    Client,
    address,
    execution,
    implementation,
    key,
    payload,
    proposal,
    review,
    rollback,
    vote,
)


class FakeClock(Clock):
    """Every sleep mines a block, if told to."""

    def __init__(self, chain: Chain | None = None) -> None:
        self.now, self.chain = 0.0, chain

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 5000.0 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)
        if self.chain is not None:
            self.chain.mine()


def standing(chain: Chain) -> Tally:
    return acting.scan(chain.client()).tally(ID)


def submission(current: Tally, **changes: t.Any) -> t.Any:
    wanted: dict[str, t.Any] = {
        "title": "Release 2.0.0",
        "description": "The new storage",
        "proposal_type": "software_upgrade",
        "payload": payload(),
        "voting_power": 1.0,
    }
    return acting.plan_submission(current, **{**wanted, **changes})


def test_a_submission_is_sent_once_and_another_one_under_the_id_refused(chain: Chain) -> None:
    assert submission(standing(chain)) == proposal()
    chain.submit()
    assert submission(standing(chain)) is None
    assert submission(standing(chain), title="Other words") is None
    with pytest.raises(Refused, match=r"use a new id .*risk"):
        submission(standing(chain), payload=payload(risk="none"))
    with pytest.raises(Refused, match="proposal_type"):
        submission(standing(chain), proposal_type="other")


@pytest.mark.parametrize(
    "changes",
    [
        {"title": ""},
        {"description": " "},
        {"proposal_type": ""},
        {"payload": {}},
        {"payload": None},
        {"payload": {"format": "chainops.upgrade/1"}},
        {"payload": {"proposal_type": "modify_governance_rules", "rule_name": "min_voters", "new_value": "5"}},
        {"payload": {"rule_name": "min_voters"}, "proposal_type": "modify_governance_rules"},
        {"payload": {"feature_name": "x"}, "proposal_type": "feature_activation"},
        {"voting_power": float("nan")},
        {"voting_power": -1.0},
    ],
)
def test_what_would_harm_the_chain_is_not_sent(chain: Chain, changes: dict[str, t.Any]) -> None:
    with pytest.raises(InputError):
        submission(standing(chain), **changes)


@pytest.mark.parametrize("name", ["", "a b", "-x", "upgrade\u200b", "x" * 129, "é"])
def test_ids_that_can_be_misread_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="proposal_id"):
        acting.require_id(name)


def test_votes_reviews_and_implementation_votes_are_cast_once(chain: Chain) -> None:
    with pytest.raises(Refused, match="there is no proposal"):
        acting.plan_vote(standing(chain), "vote", address(0))
    chain.submit()
    me = address(0)
    wanted = acting.plan_vote(standing(chain), "vote", me, vote="yes", voting_power=20.0)
    assert wanted == vote()
    with pytest.raises(Refused, match="has not voted yes"):
        acting.plan_vote(standing(chain), "implementation", me)
    chain.act((0, vote()))
    now = standing(chain)
    assert acting.plan_vote(now, "vote", me, vote="yes", voting_power=20) is None
    assert acting.plan_vote(now, "vote", me, vote="no", voting_power=20) == vote("no", 20)
    assert acting.plan_vote(now, "vote", me, vote="yes", voting_power=21) is not None
    assert acting.plan_vote(now, "review", me, voting_power=20.0) == review()
    assert acting.plan_vote(now, "implementation", me) == implementation()
    chain.act((0, review()), (0, implementation()))
    now = standing(chain)
    assert acting.plan_vote(now, "review", me, voting_power=20.0) is None
    assert acting.plan_vote(now, "review", me, approved=False, voting_power=20.0) is not None
    assert acting.plan_vote(now, "implementation", me) is None
    assert acting.plan_vote(now, "implementation", me, approved=False) is not None


def test_nobody_votes_on_what_is_over(chain: Chain) -> None:
    chain.approve()
    chain.act((3, execution()))
    with pytest.raises(Refused, match="was executed at height 5"):
        acting.plan_vote(standing(chain), "vote", address(0), vote="no")
    chain.act((3, rollback()))
    with pytest.raises(Refused, match="rolled back"):
        acting.plan_vote(standing(chain), "vote", address(0), vote="no")


def test_an_execution_is_sent_when_it_would_work_and_once(chain: Chain) -> None:
    with pytest.raises(Refused, match="no proposal"):
        acting.plan_execution(standing(chain))
    chain.submit()
    chain.pass_votes()
    with pytest.raises(Refused, match="0 of 5 code reviewers"):
        acting.plan_execution(standing(chain))
    chain.pass_reviews()
    chain.pass_implementation()
    assert acting.plan_execution(standing(chain)) == execution()
    chain.act((1, execution()))
    assert acting.plan_execution(standing(chain)) is None


def test_a_rollback_is_sent_once(chain: Chain) -> None:
    with pytest.raises(Refused, match="no proposal"):
        acting.plan_rollback(standing(chain))
    chain.submit()
    assert acting.plan_rollback(standing(chain)) == rollback()
    chain.act((1, rollback()))
    assert acting.plan_rollback(standing(chain)) is None


def send(chain: Chain, client: Client, clock: Clock | None = None, timeout: float = 30.0, who: int = 1) -> acting.Included:
    ledger = acting.scan(client, address(who))
    return acting.submit(client, key(who), vote(), ledger, timeout=timeout, clock=clock or FakeClock())


def test_a_transaction_is_waited_for_until_it_is_in_a_block(chain: Chain) -> None:
    chain.submit()
    client = chain.client()
    included = send(chain, client)
    assert included == acting.Included(client.sent[0]["txid"], 2, 1)
    assert signing.problem(chain.blocks[2]["transactions"][0], xai_tx.FULL, CHAIN_ID) is None
    assert standing(chain).votes[0]["address"] == address(1)


def test_a_lost_transaction_is_sent_again_over_the_same_nonce(chain: Chain) -> None:
    client = chain.client()
    client.mine_at = 3
    included = send(chain, client, FakeClock(chain), timeout=60.0)
    assert included.attempts == 3
    assert {tx["nonce"] for tx in client.sent} == {0}
    assert len({tx["txid"] for tx in client.sent}) == 3


def test_a_scan_goes_on_where_another_ended(chain: Chain) -> None:
    chain.submit()
    client = chain.client()
    early = acting.scan(client, address(1))
    assert acting.scan(client, address(1), early) is early
    chain.act((1, vote()), (2, vote()))
    client.served.clear()
    late = acting.scan(client, address(1), early)
    assert client.served == [2]
    assert late == acting.scan(client, address(1))
    assert (late.sent, len(late.records)) == (1, 3)


def test_one_that_never_gets_in_is_a_timeout_with_the_last_state(chain: Chain) -> None:
    client = chain.client()
    client.mine_at = 1000
    with pytest.raises(WaitTimeout, match="it is in no block") as caught:
        send(chain, client, FakeClock(chain), timeout=12.0)
    assert caught.value.fields["last"]["txids"]
    assert len(client.sent) == 12  # a block every quarter of a second, four blocks each


def test_a_refusal_is_told_at_once(chain: Chain) -> None:
    client = chain.client()
    client.refuse = HttpError("answered 400: transaction_rejected", url="", status=400, body="")
    with pytest.raises(HttpError, match="transaction_rejected"):
        send(chain, client)


def test_coins_move_where_the_chain_wants_them_to() -> None:
    chain = Chain(None, xai_tx.LEGACY)
    me = address(1)
    coins = {"txid": "c" * 64, "sender": "COINBASE", "metadata": {}, "outputs": [{"address": me, "amount": 1024.0}]}
    chain.mine(coins)
    client = chain.client()
    send(chain, client)
    send(chain, client)
    first, second = client.sent
    assert first["inputs"] == [{"txid": "c" * 64, "vout": 0}]
    assert first["outputs"] == [{"address": me, "amount": 1.0}, {"address": me, "amount": 1022.9921875}]
    assert second["inputs"] == [{"txid": first["txid"], "vout": 1}]
    assert (first["nonce"], second["nonce"]) == (0, 1)
    assert signing.problem(first, xai_tx.LEGACY, None) is None
    with pytest.raises(Refused, match="holds no single output"):
        send(chain, client, who=2)


def test_metadata_too_large_for_the_chain_is_not_sent() -> None:
    chain = Chain(None, xai_tx.LEGACY)
    big = proposal(content={"note": "x" * 4096})
    client = chain.client()
    with pytest.raises(InputError, match="the chain takes 4096"):
        acting.submit(client, key(1), big, acting.scan(client, address(1)), timeout=1.0)
    assert client.sent == []


HEX = f"{12345:064x}"


@pytest.mark.parametrize("text", [HEX, f"0x{HEX}\n", f'{{"private_key": "{HEX}", "address": "x"}}'])
def test_keys_are_read_in_both_forms(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    assert signing.load_key_file(str(path)).address() == signing.Key(12345).address()


@pytest.mark.parametrize(
    "text",
    ["", "hunter2" * 9, f'{{"key": "{HEX}"}}', f'{{"private_key": "{HEX}"', '{"private_key": 12345}', "0" * 64, "f" * 64],
)
def test_a_bad_key_is_refused_without_showing_it(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        signing.load_key_file(str(path))
    assert "hunter2" not in caught.value.message
    assert HEX not in str(caught.value.as_dict())
    assert caught.value.__cause__ is None
    with pytest.raises(InputError, match="no such file"):
        signing.load_key_file(str(path) + "x")


def test_a_key_does_not_show_itself() -> None:
    assert "3039" not in repr(signing.Key(0x3039)).replace(signing.Key(0x3039).public_key[:16], "")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("signature", None, "not signed"),
        ("signature", "00" * 64, "out of range"),
        ("signature", "01" * 64, "does not verify"),
        ("public_key", "04" * 64, "not its sender's"),
        ("sender", "TXAI" + "0" * 40, "not its sender's"),
        ("amount", 5.0, "its id is not that of its content"),
        ("metadata", {}, "its id is not that of its content"),
        ("txid", "0" * 64, "its id is not that of its content"),
    ],
)
def test_what_is_wrong_with_a_signature_is_told(chain: Chain, field: str, value: t.Any, words: str) -> None:
    tx = chain.sign(1, vote())
    assert signing.problem(tx, xai_tx.FULL, CHAIN_ID) is None
    assert signing.problem(tx, xai_tx.FULL, "other") is not None
    assert words in (signing.problem({**tx, field: value}, xai_tx.FULL, CHAIN_ID) or "")


# --- reverting ------------------------------------------------------------------------------------------------------------

FLAG = {"feature_name": "smart_contracts", "enabled": True}
RULES = "modify_governance_rules"


def executed(chain: Chain, proposal_id: str, content: t.Any, kind: str = "feature_activation", voters: int = 5) -> None:
    chain.act((9, proposal(proposal_id, content, kind)))
    chain.act(*((who, act(proposal_id=proposal_id)) for act in (vote, review, implementation) for who in range(voters)))
    chain.act((8, execution(content, proposal_id)))


def reverting(chain: Chain, proposal_id: str = "on") -> acting.Revert:
    return acting.plan_revert(acting.scan(chain.client()).records, proposal_id)


def at(chain: Chain, proposal_id: str) -> Tally:
    return acting.scan(chain.client()).tally(proposal_id)


@pytest.mark.parametrize(
    ("content", "kind", "reverts"),
    [
        (FLAG, "feature_activation", ("feature_activation", {"feature_name": "smart_contracts", "enabled": False})),
        (
            {"feature_name": "exchange", "enabled": False},
            "feature_activation",
            ("feature_activation", {"feature_name": "exchange", "enabled": True}),
        ),
        (
            {**FLAG, "proposal_type": "feature_activation"},
            "software_upgrade",
            ("feature_activation", {"feature_name": "smart_contracts", "enabled": False}),
        ),
        ({"rule_name": "min_voters", "new_value": 4}, RULES, (RULES, {"rule_name": "min_voters", "new_value": 5})),
        (
            {"parameter": "approval_percent", "new_value": 51},
            "protocol_parameter",
            ("protocol_parameter", {"parameter": "approval_percent", "new_value": 66}),
        ),
        # 5 is out of the range that a protocol_parameter may set: the chain would execute that and do nothing.
        (
            {"parameter": "min_voters", "new_value": 100},
            "protocol_parameter",
            (RULES, {"rule_name": "min_voters", "new_value": 5}),
        ),
    ],
)
def test_what_an_execution_did_is_put_back_by_a_proposal(
    chain: Chain, content: dict[str, t.Any], kind: str, reverts: tuple[str, dict[str, t.Any]]
) -> None:
    executed(chain, "on", content, kind)
    wanted = reverting(chain)
    assert (wanted.proposal_id, wanted.proposal_type, wanted.payload) == ("on.revert", *reverts)
    assert "the network must vote on proposal 'on.revert'" in wanted.note and "reverts nothing" in wanted.note
    metadata = wanted.submission(at(chain, "on.revert"))
    assert metadata is not None and "Proposal on set" in metadata["description"]
    chain.act((9, metadata))
    assert wanted.submission(at(chain, "on.revert")) is None
    assert wanted.stands(at(chain, "on.revert")) == " It stands since height 4 (proposed)."


def test_a_reverting_proposal_that_is_executed_puts_back_what_was_there(chain: Chain) -> None:
    executed(chain, "four", {"rule_name": "min_voters", "new_value": 4}, RULES)
    executed(chain, "three", {"parameter": "min_voters", "new_value": 100}, "protocol_parameter")
    wanted = reverting(chain, "three")
    assert wanted.payload == {"rule_name": "min_voters", "new_value": 4}
    assert wanted.proposal_type is not None and wanted.proposal_id is not None
    executed(chain, wanted.proposal_id, wanted.payload, wanted.proposal_type, voters=100)
    assert at(chain, "three").chain_thresholds.min_voters == 4
    done = reverting(chain, "three")
    assert done.proposal_id is None
    assert "proposal 'three.revert' set min_voters to 4" in done.note


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"amount": 5}, "treasury_allocation", "what a treasury_allocation changed, and from what, can't be told"),
        ({"action_type": "pause_transactions"}, "emergency_action", "propose what puts that back"),
        ({"parameter": "block_reward", "new_value": 3.0}, "protocol_parameter", "what a protocol_parameter changed"),
        ({"parameter": "min_voters", "new_value": 1}, "protocol_parameter", "the chain did nothing on the execution"),
        ({"parameter": ["x"], "new_value": 1}, "protocol_parameter", "can't be told"),
        ({"rule_name": "nonsense", "new_value": 1}, RULES, "the chain did nothing on the execution"),
        ({"feature_name": "warp", "enabled": True}, "feature_activation", "the chain did nothing on the execution"),
        ({"feature_name": "exchange", "enabled": True}, "feature_activation", "exchange was true before"),
        (payload(), "software_upgrade", "the chain did nothing on the execution but record it (software_upgrade)"),
    ],
)
def test_what_can_not_or_need_not_be_put_back_is_said(chain: Chain, content: t.Any, kind: str, words: str) -> None:
    executed(chain, "on", content, kind)
    wanted = reverting(chain)
    assert (wanted.proposal_id, wanted.payload) == (None, None)
    assert words in wanted.note


def test_nothing_is_reverted_that_was_not_done(chain: Chain) -> None:
    assert reverting(chain).proposal_id is None
    chain.approve(FLAG)
    assert "not executed" in reverting(chain, ID).note
    chain.act((8, execution({"feature_name": "smart_contracts", "enabled": False})))
    assert reverting(chain, ID).proposal_id is None  # of another payload: the chain did nothing


def test_a_value_that_is_no_longer_the_proposals_own_is_left_alone(chain: Chain) -> None:
    executed(chain, "on", FLAG)
    executed(chain, "off", {**FLAG, "enabled": False})
    assert "proposal 'off' set smart_contracts to false" in reverting(chain).note
    chain.act((8, execution(FLAG, "on")))
    assert reverting(chain).payload == {**FLAG, "enabled": False}


def test_executed_twice_in_a_row_it_goes_back_to_before_the_first_time(chain: Chain) -> None:
    executed(chain, "on", FLAG)
    chain.act((8, execution(FLAG, "on")))
    assert reverting(chain).payload == {**FLAG, "enabled": False}


def test_one_id_with_changing_content_is_for_people(chain: Chain) -> None:
    executed(chain, "on", FLAG)
    chain.act((9, proposal("on", {"feature_name": "exchange", "enabled": False}, "feature_activation")))
    chain.act((8, execution({"feature_name": "exchange", "enabled": False}, "on")))
    wanted = reverting(chain)
    assert wanted.proposal_id is None and "It set exchange, smart_contracts" in wanted.note


def test_another_proposal_under_the_reverting_id_is_refused_with_what_to_do(chain: Chain) -> None:
    executed(chain, "on", FLAG)
    chain.act((3, proposal("on.revert", FLAG, "feature_activation")))
    with pytest.raises(Refused, match=r'under an id of your choice .*"enabled": false.*revert: false'):
        reverting(chain).submission(at(chain, "on.revert"))


def test_a_reverting_proposal_that_is_over_can_not_do_it_again(chain: Chain) -> None:
    executed(chain, "on", FLAG)
    executed(chain, "on.revert", {**FLAG, "enabled": False})
    chain.act((8, execution(FLAG, "on")))
    wanted = reverting(chain)
    assert wanted.submission(at(chain, "on.revert")) is None
    assert "was executed before" in wanted.stands(at(chain, "on.revert"))
    assert "submit the same under another id" in wanted.stands(at(chain, "on.revert"))


def test_an_id_too_long_for_an_ending_is_said(chain: Chain) -> None:
    long = "x" * 125
    executed(chain, long, FLAG)
    wanted = reverting(chain, long)
    assert wanted.proposal_id is None
    assert "To put false back takes a feature_activation proposal" in wanted.note
