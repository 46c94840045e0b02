# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second gate from end to end: a real tally, real signatures, a proof, and a host that has a mind of its own."""

from __future__ import annotations

import copy
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._governance import approval, people, signing
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance.approval import Demand, Glass
from ansible_collections.chainops.validator.plugins.module_utils._governance.hostgate import HostGate
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    CHAIN_ID,
    ID,
    Chain,
    payload,
    proposal,
    review,
    rollback,
    vote,
)
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.signers import signed, signers

SHA = "ab" * 32
SIGNERS = signers("alice", "bob", "carol")
TWO = Demand(2)
GLASS = Glass("the signing key leaked", 500)
Proof = t.Dict[str, t.Any]


class Gate:
    """One gate over a chain, asked with whoever signed what."""

    def __init__(self, chain: Chain, **options: t.Any) -> None:
        self.chain = chain
        self.proposal_id = options.get("proposal_id", ID)
        self.payload = options.get("payload", payload())
        self.policy = Policy.from_dict(options.get("policy"))
        self.readers = options.get("readers", 4)

    def text(self, glass: Glass | None = None, **changes: t.Any) -> str:
        values = {
            "chain_id": CHAIN_ID,
            "genesis_hash": self.chain.blocks[0]["hash"],
            "proposal_id": self.proposal_id,
            "payload_sha256": canonical.digest(self.payload),
            **changes,
        }
        return approval.statement(**values, glass=glass)

    def sign(self, *names: str, glass: Glass | None = None, **changes: t.Any) -> tuple[approval.Signature, ...]:
        namespace = approval.APPROVAL if glass is None else approval.BREAK_GLASS
        return tuple(signed(name, self.text(glass, **changes), namespace) for name in names)

    def ask(
        self,
        signatures: t.Sequence[approval.Signature] = (),
        demand: Demand = Demand(),
        *,
        glass: Glass | None = None,
        emergency: t.Sequence[approval.Signature] = (),
        urgent: Demand = TWO,
    ) -> tuple[people.Answer, Proof]:
        clients = {name: self.chain.client() for name in "abcd"[: self.readers]}
        read = reading.read(
            [reading.Reader(name, f"http://{name}") for name in clients], lambda reader: clients[reader.name], patience=5.0
        )
        problems = signing.problems(read.records, read.scheme, read.chain_id)
        result, verdict = proving.judge(read, self.proposal_id, self.policy, self.payload, problems)
        usual = people.Asked(demand, tuple(signatures), SIGNERS)
        there = people.Asked(urgent, tuple(emergency), SIGNERS) if glass is not None else None
        answer = people.consult(read, result, verdict, self.policy, self.payload, usual, glass, there)
        proof = proving.build(
            read,
            result,
            answer.verdict,
            self.policy,
            chain="xai",
            confirmations=6,
            payload=self.payload,
            signatures_verified=problems == [],
            people=answer.carried,
        )
        return answer, proof

    def broken(self, *names: str, glass: Glass = GLASS) -> tuple[people.Answer, Proof]:
        return self.ask(glass=glass, emergency=self.sign(*names, glass=glass))

    def host(self, proof: Proof, local: HostGate | None = None, sha: str = SHA, arch: str = "x86_64") -> list[str]:
        return proving.check_on_host(proof, sha, arch, self.chain.client(), local=local)


def host(**changes: t.Any) -> HostGate:
    return HostGate("/etc/chainops/unit/gate.json", **{"signers": SIGNERS, **changes})


def resealed(proof: Proof, **changes: t.Any) -> Proof:
    raw = {**copy.deepcopy(proof), **changes}
    raw.pop("sha256")
    return {**raw, "sha256": canonical.digest(raw)}


@pytest.fixture
def approved(chain: Chain) -> Gate:
    chain.approve()
    chain.mine()
    return Gate(chain)


@pytest.fixture
def short(chain: Chain) -> Gate:
    """A proposal that has one vote too few."""
    chain.submit()
    chain.act(*((who, vote()) for who in range(4)))
    chain.mine()
    return Gate(chain)


# --- approvals beside the chain's -----------------------------------------------------------------------------------------


def test_nobody_asked_changes_nothing(approved: Gate) -> None:
    answer, proof = approved.ask()
    assert answer.verdict.as_dict() == {"open": True, "stage": "implementation_approved", "reasons": []}
    assert "approval" not in proof and "break_glass" not in proof
    assert answer.approval["statement"] == approved.text()
    assert answer.approval["statement_sha256"] == canonical.sha256_hex(approved.text().encode())


def test_the_chain_and_the_people_must_both_say_yes(approved: Gate) -> None:
    closed, proof = approved.ask(approved.sign("alice"), TWO)
    assert closed.verdict.reasons == ("1 of 2 approvals",)
    assert approved.host(proof) != []
    opened, proof = approved.ask(approved.sign("alice", "bob"), TWO)
    assert opened.verdict.open and approved.host(proof) == []
    assert approved.host(proof, host(approvals=TWO)) == []
    assert approved.host(proof, host(approvals=Demand(2, ("bob",)))) == []


def test_people_do_not_replace_the_chain(short: Gate) -> None:
    answer, proof = short.ask(short.sign("alice", "bob", "carol"), TWO)
    assert not answer.verdict.open and "4 of 5 yes voters (the chain's rule)" in answer.verdict.reasons
    assert "4 of 5 yes voters (the chain's rule)" in short.host(proof, host(approvals=TWO))
    open_verdict = {"open": True, "stage": "implementation_approved", "reasons": []}
    assert "4 of 5 yes voters (the chain's rule)" in short.host(resealed(proof, verdict=open_verdict), host())


@pytest.mark.parametrize(
    "changes",
    [{"payload_sha256": "cd" * 32}, {"chain_id": "other-1"}, {"genesis_hash": "0" * 64}, {"proposal_id": "upgrade-2.O.0"}],
)
def test_an_approval_of_something_else_is_worth_nothing(approved: Gate, changes: dict[str, str]) -> None:
    stolen = approved.sign("alice", "bob", **changes)
    answer, _proof = approved.ask(stolen, TWO)
    assert "alice's signature does not verify: it is over another text" in answer.verdict.reasons[0]
    good = approved.ask(approved.sign("alice", "bob"), TWO)[1]
    carried = {**good["approval"], "signatures": [one.as_dict() for one in stolen]}
    assert "0 of 2 approvals" in approved.host(resealed(good, approval=carried), host(approvals=TWO))[0]
    moved = {**carried, "statement": approved.text(**changes)}
    problems = approved.host(resealed(good, approval=moved), host(approvals=TWO))
    assert "approvals it carries are for something else" in problems[0]


def test_a_host_counts_by_its_own_keys_and_not_by_the_controllers(approved: Gate) -> None:
    proof = approved.ask(approved.sign("alice", "bob"), TWO)[1]
    others = signers("carol", ("alice", "mallory"))
    problems = approved.host(proof, host(approvals=TWO, signers=others))
    assert "0 of 2 approvals" in problems[0] and "this host's own count" in problems[0]
    assert "the key that made it is none of alice's" in problems[0]
    assert "no line of the allowed signers holds the key that made it for bob" in problems[0]
    none = approved.host(proof, host(approvals=TWO, signers=None))
    assert "there is no /etc/chainops/unit/allowed_signers" in none[0]
    assert "carol must be among" in approved.host(proof, host(approvals=Demand(2, ("carol",))))[0]
    assert "2 of 3 approvals" in approved.host(proof, host(approvals=Demand(3)))[0]


def test_a_proof_without_approvals_does_not_satisfy_a_host_that_asks_for_them(approved: Gate) -> None:
    proof = approved.ask()[1]
    assert approved.host(proof) == []
    assert approved.host(proof, host(approvals=TWO)) == ["0 of 2 approvals (this host's own count)"]
    claimed = {"statement": approved.text(), "signatures": [], "verdict": {"ok": True, "approvers": ["alice", "bob"]}}
    assert approved.host(resealed(proof, approval=claimed), host(approvals=TWO)) == ["0 of 2 approvals (this host's own count)"]


@pytest.mark.parametrize("raw", [None, [], {}, {"statement": 1}, {"statement": "x", "signatures": [{"name": "-x"}]}])
def test_a_proof_with_broken_approvals_is_none(approved: Gate, raw: t.Any) -> None:
    proof = resealed(approved.ask(approved.sign("alice", "bob"), TWO)[1], approval=raw)
    assert approved.host(proof) != []


def test_no_keys_to_know_people_by_is_an_error_and_no_verdict(approved: Gate) -> None:
    with pytest.raises(InputError, match="allowed_signers is missing"):
        people.Asked(TWO).heard("x\n", approval.APPROVAL, "approvals")


def test_where_readers_disagree_there_is_nothing_to_sign(approved: Gate) -> None:
    approved.readers = 1
    answer, proof = approved.ask(approved.sign("alice", "bob"), TWO)
    assert answer.approval["statement"] is None
    assert not answer.verdict.open and "0 of 2 approvals" in answer.verdict.reasons
    assert approved.host(proof) != []


# --- break-glass ----------------------------------------------------------------------------------------------------------


def test_two_people_open_a_gate_that_only_lacks_votes(short: Gate) -> None:
    closed, proof = short.broken("alice")
    assert not closed.verdict.open and closed.verdict.reasons[-1] == "1 of 2 break-glass approvals"
    assert "break_glass" not in proof and "break_glass" not in closed.verdict.as_dict()
    answer, proof = short.broken("alice", "bob")
    verdict = answer.verdict.as_dict()
    assert (verdict["open"], verdict["stage"], verdict["reasons"]) == (True, "proposed", [])
    told = verdict["break_glass"]
    assert (told["reason"], told["expires_height"], told["approvers"]) == (GLASS.reason, 500, ["alice", "bob"])
    assert "4 of 5 yes voters (the chain's rule)" in told["instead_of"]
    assert answer.break_glass is not None and answer.break_glass["used"] is True
    assert proof["expires_height"] == 500 and proof["break_glass"]["payload"] == payload()
    assert short.host(proof, host(break_glass=True)) == []
    assert proving.check_binding(proof, SHA, "x86_64") == []


def test_a_host_takes_it_only_where_its_own_file_says_so(short: Gate) -> None:
    proof = short.broken("alice", "bob")[1]
    for local in (None, host(), host(approvals=TWO)):
        problems = short.host(proof, local)
        assert len(problems) == 1 and "a break-glass, which this host takes from nobody" in problems[0]
    few = host(break_glass=True, signers=signers("alice"))
    assert "1 of 2 break-glass approvals" in short.host(proof, few)[0]
    assert "there is no /etc/chainops/unit/allowed_signers" in short.host(proof, host(break_glass=True, signers=None))[0]
    assert "2 of 3 break-glass" in short.host(proof, host(break_glass=True, approvals=Demand(3)))[0]
    assert "carol must be among" in short.host(proof, host(break_glass=True, approvals=Demand(1, ("carol",))))[0]


def test_it_works_for_a_proposal_that_is_not_there_yet(chain: Chain) -> None:
    chain.mine()
    gate = Gate(chain)
    answer, proof = gate.broken("alice", "bob")
    assert (answer.verdict.open, answer.verdict.stage) == (True, "absent")
    assert gate.host(proof, host(break_glass=True)) == []
    assert "release's digest is" in gate.host(proof, host(break_glass=True), sha="cd" * 32)[0]
    assert "no release is approved for aarch64" in gate.host(proof, host(break_glass=True), arch="aarch64")[0]
    chain.act((7, proposal(content=payload(risk="high"))))
    problems = gate.host(proof, host(break_glass=True))
    assert "since the proof was made" in problems[0] and "risk" in problems[0]


def test_an_open_gate_needs_none(approved: Gate) -> None:
    answer, proof = approved.broken("alice", "bob")
    assert answer.verdict.as_dict() == {"open": True, "stage": "implementation_approved", "reasons": []}
    assert "break_glass" not in proof and answer.break_glass is not None and answer.break_glass["used"] is False
    assert approved.host(proof) == []


def test_approvals_that_are_asked_for_are_not_broken_with_it(approved: Gate) -> None:
    answer, _proof = approved.ask((), TWO, glass=GLASS, emergency=approved.sign("alice", "bob", glass=GLASS))
    assert answer.verdict.reasons == ("0 of 2 approvals",)


def test_it_asks_for_no_fewer_people_than_usual(short: Gate) -> None:
    given = short.sign("alice", "bob", glass=GLASS)
    answer, _proof = short.ask((), Demand(3, ("carol",)), glass=GLASS, emergency=given, urgent=Demand(1))
    assert "2 of 3 break-glass approvals" in answer.verdict.reasons
    assert "carol must be among the break-glass approvals and is not" in answer.verdict.reasons
    given = short.sign("alice", "bob", "carol", glass=GLASS)
    assert short.ask((), Demand(3, ("carol",)), glass=GLASS, emergency=given, urgent=Demand(2))[0].verdict.open


def never(gate: Gate, words: str, glass: Glass = GLASS) -> None:
    answer, proof = gate.broken("alice", "bob", glass=glass)
    assert not answer.verdict.open and "break_glass" not in proof
    assert any(words in reason for reason in answer.verdict.reasons), answer.verdict.reasons
    assert gate.host(proof, host(break_glass=True)) != []


def test_what_it_never_stands_in_for(short: Gate) -> None:
    chain = short.chain
    never(Gate(chain, readers=1), "break-glass does not stand in for readers that agree")
    never(Gate(chain, payload=payload(risk="none")), "about to run is not what was approved: risk")
    never(Gate(chain, proposal_id="other", payload=payload(chain_id="other-1")), 'the payload is for chain "other-1"')
    never(Gate(chain, proposal_id="other", payload=payload(risk=7)), "the payload is incomplete: risk")
    never(Gate(chain, proposal_id="other", payload={"any": "thing"}), "a whole upgrade payload")
    never(Gate(chain, proposal_id="upgrade-2.O.0"), "break-glass does not stand in for what is missing besides votes")
    chain.act((7, rollback()))
    never(short, "rolled back at height")


def test_not_for_a_void_proposal_nor_for_an_activation_height_to_come(chain: Chain) -> None:
    chain.submit()
    chain.submit()
    never(Gate(chain), "it is void, use a new id")
    later = payload(activation_height=90)
    other = Chain()
    other.submit(later)
    never(Gate(other, payload=later), "activation height 90 is")


def test_it_ends_and_can_not_last_for_long(short: Gate) -> None:
    height = len(short.chain.blocks) - 1
    never(short, f"the break-glass expired at height {height}; the chain was read at {height}", Glass("x", height))
    never(short, "would last 5001 blocks, at most 5000", Glass("x", height + 5001))
    assert short.broken("alice", "bob", glass=Glass("x", height + 5000))[0].verdict.open
    answer, proof = short.broken("alice", "bob", glass=Glass("x", height + 2))
    assert answer.verdict.open and proof["expires_height"] == height + 2
    short.chain.mine()
    short.chain.mine()
    assert short.host(proof, host(break_glass=True)) == []
    short.chain.mine()
    assert f"expired at height {height + 2}" in short.host(proof, host(break_glass=True))[0]


def test_it_lasts_no_longer_than_any_other_proof(short: Gate) -> None:
    brief = Gate(short.chain, policy={"valid_blocks": 3})
    proof = brief.broken("alice", "bob")[1]
    assert proof["expires_height"] == len(short.chain.blocks) - 1 + 3


def test_one_signature_can_never_be_taken_for_the_other(short: Gate) -> None:
    as_approval = tuple(signed(name, short.text(GLASS)) for name in ("alice", "bob"))
    answer, _proof = short.ask(glass=GLASS, emergency=as_approval)
    assert "made for another purpose, not in the namespace chainops-break-glass" in answer.verdict.reasons[-1]
    answer, _proof = short.ask(glass=GLASS, emergency=short.sign("alice", "bob"))
    assert "made for another purpose" in answer.verdict.reasons[-1]


def test_it_needs_the_payload_that_is_about_to_run(short: Gate) -> None:
    text = short.sign("alice", "bob", glass=GLASS)
    short.payload = None
    with pytest.raises(InputError, match="break_glass needs payload"):
        short.ask(glass=GLASS, emergency=text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda glass: {**glass, "reason": "all is well"}, "are for something else"),
        (lambda glass: {**glass, "payload": payload(risk="none")}, "about to run is not what was approved"),
        (lambda glass: {**glass, "statement": "yes\n"}, "are for something else"),
        (lambda glass: {**glass, "signatures": glass["signatures"][:1]}, "1 of 2 break-glass"),
        (
            lambda glass: {**glass, "signatures": [glass["signatures"][0], {**glass["signatures"][0], "name": "bob"}]},
            "none of bob's",
        ),
        (lambda glass: {**glass, "expires_height": 400}, "expiry"),
        (lambda glass: {**glass, "reason": ""}, "reason is empty"),
        (lambda glass: {key: value for key, value in glass.items() if key != "payload"}, "incomplete"),
        (lambda glass: None, "must be a dictionary"),
    ],
)
def test_a_break_glass_that_was_changed_on_the_way(
    short: Gate, change: t.Callable[[dict[str, t.Any]], t.Any], words: str
) -> None:
    proof = short.broken("alice", "bob")[1]
    changed = resealed(proof, break_glass=change(proof["break_glass"]))
    problems = "; ".join(short.host(changed, host(break_glass=True)))
    assert words in problems, problems


def test_a_longer_life_in_the_proof_is_found_out(short: Gate) -> None:
    proof = short.broken("alice", "bob")[1]
    longer = resealed(proof, expires_height=900, break_glass={**proof["break_glass"], "expires_height": 900})
    assert "are for something else" in short.host(longer, host(break_glass=True))[0]


def test_what_happened_since_a_break_glass_counts(short: Gate) -> None:
    proof = short.broken("alice", "bob")[1]
    short.chain.act((0, vote("no")), (1, review(False)))
    assert short.host(proof, host(break_glass=True)) == []
    short.chain.act((7, rollback()))
    assert "since the proof was made: rolled back" in short.host(proof, host(break_glass=True))[0]


def test_a_break_glass_that_hides_a_rollback_is_found_out(short: Gate) -> None:
    honest = short.broken("alice", "bob")[1]
    short.chain.act((7, rollback()))
    short.chain.mine()
    tip = short.chain.blocks[-1]
    raised = {**honest["read"], "height": tip["index"], "hash": tip["hash"]}
    forged = resealed(honest, read=raised)
    assert "does not list rollback_change" in "; ".join(short.host(forged, host(break_glass=True)))
    absent = resealed(honest, read=raised, transactions=[], payload=None)
    assert "does not list" in "; ".join(short.host(absent, host(break_glass=True)))


# --- a host's own policy --------------------------------------------------------------------------------------------------


def test_a_policy_softer_than_the_hosts_is_refused(chain: Chain) -> None:
    chain.submit()
    chain.act(*((who, vote(power=10.0)) for who in range(10)))
    chain.pass_reviews()
    chain.act(*((who, {"type": "implementation_vote", "proposal_id": ID, "approved": True}) for who in range(10)))
    strict = {"thresholds": {"min_voters": 7, "max_individual_power_percent": 15}, "required_stage": "implementation_approved"}
    soft, hard = Gate(chain), Gate(chain, policy={**strict, "valid_blocks": 50})
    local = host(policy={**strict, "valid_blocks": 100})
    problems = sorted(soft.host(soft.ask()[1], local))
    where = "its policy is softer than /etc/chainops/unit/gate.json: "
    assert problems == [
        f"{where}max_individual_power_percent is 20, this host asks for at most 15",
        f"{where}min_voters is 5, this host asks for at least 7",
        f"{where}valid_blocks is 1000, this host asks for at most 100",
    ]
    assert hard.host(hard.ask()[1], local) == []
    stage = host(policy={"required_stage": "executed"})
    assert "required_stage is implementation_approved, this host asks for executed" in hard.host(hard.ask()[1], stage)[0]


def test_a_network_with_numbers_of_its_own_can_be_upgraded_where_the_host_knows_them(chain: Chain) -> None:
    own = {"min_voters": 1, "max_individual_power_percent": 100, "min_code_reviewers": 1}
    chain.submit()
    chain.act((0, vote()), (0, review()), (0, {"type": "implementation_vote", "proposal_id": ID, "approved": True}))
    gate = Gate(chain, policy={"chain_thresholds": own})
    answer, proof = gate.ask()
    assert answer.verdict.open
    assert "known here is 5" in gate.host(proof)[0] and "known here is 5" in gate.host(proof, host())[0]
    assert gate.host(proof, host(chain_thresholds=own)) == []
    assert "known here is 2" in gate.host(proof, host(chain_thresholds={**own, "min_voters": 2}))[0]
