# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance import signing
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import Verdict
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    CHAIN_ID,
    ID,
    Chain,
    execution,
    payload,
    proposal,
    review,
    rollback,
    vote,
)

SHA = "ab" * 32
Proof = t.Dict[str, t.Any]


def gate(chain: Chain, running: t.Any = None, policy: dict[str, t.Any] | None = None, **last: t.Any) -> tuple[Verdict, Proof]:
    clients = {"a": chain.client(), "b": chain.client(), "c": chain.client(), "d": chain.client(**last)}
    rule = Policy.from_dict(policy)
    found = reading.read(
        [reading.Reader(name, f"http://{name}") for name in clients], lambda reader: clients[reader.name], patience=5.0
    )
    problems = signing.problems(found.records, found.scheme, found.chain_id)
    result, verdict = proving.judge(found, ID, rule, running, problems)
    made = proving.build(
        found, result, verdict, rule, chain="xai", confirmations=6, payload=running, signatures_verified=problems == []
    )
    return verdict, made


def resealed(proof: Proof, **changes: t.Any) -> Proof:
    """What somebody who can edit a proof can do."""
    raw = {**copy.deepcopy(proof), **changes}
    raw.pop("sha256")
    return {**raw, "sha256": canonical.digest(raw)}


@pytest.fixture
def approved(chain: Chain) -> Chain:
    chain.approve()
    chain.mine()
    return chain


def test_an_open_gate_convinces_a_host(approved: Chain) -> None:
    verdict, proof = gate(approved, payload())
    assert verdict.open, verdict.reasons
    assert json.loads(json.dumps(proof)) == proof
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) == []
    assert gate(approved, payload())[1] == proof
    seen: list[int] = []
    proving.check_on_host(proof, SHA, "x86_64", approved.client(), each=lambda height, last: seen.append(height))
    assert seen == [1, 2, 3, 4, 5]


def test_the_gate_is_closed_at_every_stage_before(chain: Chain) -> None:
    for step, stage in (
        (chain.mine, "absent"),
        (chain.submit, "proposed"),
        (chain.pass_votes, "approved_voting"),
        (chain.pass_reviews, "code_review_passed"),
    ):
        step()
        verdict, proof = gate(chain, payload())
        assert (verdict.open, verdict.stage) == (False, stage)
        assert proving.check_on_host(proof, SHA, "x86_64", chain.client()) != []
    chain.pass_implementation()
    assert gate(chain, payload())[0].open


def test_another_digest_another_architecture_another_payload(approved: Chain) -> None:
    verdict, proof = gate(approved, payload(release={"id": "2.0.0", "level": 2, "artifacts": {"x86_64": "cd" * 32}}))
    assert not verdict.open
    assert "release.artifacts.x86_64" in verdict.reasons[0]
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) != []
    good = gate(approved, payload())[1]
    assert "release's digest is" in proving.check_on_host(good, "cd" * 32, "x86_64", approved.client())[0]
    assert "no release is approved for aarch64" in proving.check_on_host(good, SHA, "aarch64", approved.client())[0]
    assert proving.check_binding(good, SHA, "x86_64") == []
    assert proving.check_binding(good, "cd" * 32, "x86_64") != []


def test_a_payload_meant_for_another_chain(chain: Chain) -> None:
    chain.approve(payload(chain_id="other-1"))
    verdict, _proof = gate(chain)
    assert 'the payload is for chain "other-1"; this is "unit-1"' in verdict.reasons


def test_activation_height_not_reached(chain: Chain) -> None:
    chain.approve(payload(activation_height=10))
    verdict, _proof = gate(chain)
    assert verdict.reasons == ("activation height 10 is 6 blocks away, about 6 s",)
    for _ in range(6):
        chain.mine()
    assert gate(chain)[0].open


def test_readers_that_disagree_close_the_gate_and_say_so(approved: Chain) -> None:
    found = reading.read([reading.Reader("a", "http://a")], lambda reader: approved.client())
    result, verdict = proving.judge(found, ID, Policy(), payload(), [])
    assert (verdict.open, verdict.stage) == (False, "unknown")
    proof = proving.build(found, result, verdict, Policy(), chain="xai", confirmations=6, signatures_verified=True)
    assert "did not agree" in proving.check_on_host(proof, SHA, "x86_64", approved.client())[0]


def test_a_look_alike_id_is_pointed_out(chain: Chain) -> None:
    chain.act((9, proposal("upgrade-2.O.0")))
    assert "looks alike" in "; ".join(gate(chain)[0].reasons)


def test_a_forged_signature_closes_the_gate(chain: Chain) -> None:
    chain.submit()
    forged = chain.sign(1, vote("no"))
    forged["metadata"] = vote("yes")
    forged["txid"] = xai_tx.txid(forged, xai_tx.FULL, CHAIN_ID)
    chain.mine(forged)
    assert any("its signature does not verify" in reason for reason in gate(chain)[0].reasons)


def test_unverified_signatures_close_the_gate(approved: Chain) -> None:
    found = reading.read([reading.Reader(n, f"http://{n}") for n in "ab"], lambda reader: approved.client())
    result, verdict = proving.judge(found, ID, Policy(), None, None)
    assert verdict.reasons == ("transaction signatures were not verified",)
    proof = proving.build(found, result, verdict, Policy(), chain="xai", confirmations=6, signatures_verified=False)
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) != []


def test_a_proof_expires_by_height(approved: Chain) -> None:
    proof = gate(approved, payload(), {"valid_blocks": 3})[1]
    assert proof["expires_height"] == 8
    for _ in range(3):
        approved.mine()
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) == []
    approved.mine()
    assert "expired at height 8" in proving.check_on_host(proof, SHA, "x86_64", approved.client())[0]
    later = resealed(proof, expires_height=10_000)
    assert "expiry" in proving.check_on_host(later, SHA, "x86_64", approved.client())[0]


@pytest.mark.parametrize(
    ("acts", "words"),
    [
        ([(7, rollback())], "rolled back at height 6"),
        ([(7, proposal())], "submitted again at height 6"),
        ([(0, vote("no")), (1, vote("no"))], "3 of 5 yes voters"),
        ([(0, review(False)), (1, review(False))], "60.0 % of 66 % of the reviewing power"),
    ],
)
def test_what_happened_since_the_proof_counts(approved: Chain, acts: list[tuple[int, dict[str, t.Any]]], words: str) -> None:
    proof = gate(approved, payload())[1]
    approved.act(*acts)
    problems = proving.check_on_host(proof, SHA, "x86_64", approved.client())
    assert any(text.startswith("since the proof was made: ") and words in text for text in problems), problems


def test_an_execution_or_one_more_yes_since_the_proof_is_no_harm(approved: Chain) -> None:
    proof = gate(approved, payload())[1]
    approved.act((3, execution()), (6, vote("yes")))
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) == []


def test_a_proof_that_leaves_out_a_vote_is_found_out(chain: Chain) -> None:
    chain.submit()
    chain.pass_votes()
    chain.act((6, vote("no", 60.0)))
    chain.pass_reviews()
    chain.pass_implementation()
    verdict, proof = gate(chain, payload())
    assert not verdict.open
    lies = Chain()
    lies.approve()
    open_verdict, other = gate(lies, payload())
    kept = [item for item in proof["transactions"] if item["metadata"].get("vote") != "no"]
    forged = resealed(proof, transactions=kept, verdict=other["verdict"], tally=other["tally"])
    assert open_verdict.open and proving.check_binding(forged, SHA, "x86_64") == []
    problems = proving.check_on_host(forged, SHA, "x86_64", chain.client())
    assert any("does not list governance_vote" in text for text in problems)


def test_a_proof_with_a_vote_of_its_own_is_found_out(approved: Chain) -> None:
    proof = gate(approved, payload())[1]
    items = copy.deepcopy(proof["transactions"])
    items[1]["metadata"]["voting_power"] = 19.0
    items[2]["metadata"]["voting_power"] = 19.0
    assert proving.check_on_host(resealed(proof, transactions=items), SHA, "x86_64", approved.client()) != []
    items = copy.deepcopy(proof["transactions"])
    items[1]["sha256"] = "0" * 64
    problems = proving.check_on_host(resealed(proof, transactions=items), SHA, "x86_64", approved.client())
    assert "with other content" in problems[0]
    extra = [*proof["transactions"], {**items[1], "index": 77}]
    problems = proving.check_on_host(resealed(proof, transactions=extra), SHA, "x86_64", approved.client())
    assert "this node's blocks don't have" in problems[0]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_proof_that_was_changed_is_none(approved: Chain, number: int) -> None:
    proof = gate(approved, payload())[1]
    broken: list[t.Any] = [
        {**proof, "payload": {}},
        {**proof, "sha256": "0" * 64},
        resealed(proof, payload=payload(risk="none")),
        resealed(proof, transactions="none"),
        resealed(proof, transactions=[{"height": "1"}]),
        resealed(proof, read={}),
        resealed(proof, policy={"thresholds": {"min_voters": -1}}),
        ["proof"],
    ]
    assert proving.check_on_host(broken[number], SHA, "x86_64", approved.client()) != []


def test_a_weakened_policy_does_not_weaken_the_chains_rule(chain: Chain) -> None:
    chain.submit()
    chain.act(*((who, vote()) for who in range(4)))
    verdict, _proof = gate(chain, payload(), {"thresholds": {"min_voters": 1}})
    assert "4 of 5 yes voters (the chain's rule)" in verdict.reasons


def test_a_rule_of_the_chain_that_the_host_does_not_know_is_not_taken_from_the_proof(chain: Chain) -> None:
    softer = {"min_voters": 1, "max_individual_power_percent": 100, "min_code_reviewers": 1}
    chain.submit()
    chain.act((0, vote()), (0, review()), (0, {"type": "implementation_vote", "proposal_id": ID, "approved": True}))
    verdict, proof = gate(chain, payload(), {"chain_thresholds": softer})
    assert verdict.open
    problems = proving.check_on_host(proof, SHA, "x86_64", chain.client())
    assert "the chain's min_voters started as 1; known here is 5" in problems[0]
    assert proving.check_on_host(proof, SHA, "x86_64", chain.client(), chain_thresholds=softer) == []


def test_a_node_that_is_behind_on_another_chain_forked_or_silent_says_no(approved: Chain) -> None:
    proof = gate(approved, payload())[1]

    def problems(**behaviour: t.Any) -> str:
        return "; ".join(proving.check_on_host(proof, SHA, "x86_64", approved.client(**behaviour)))

    assert "2 blocks before" in problems(behind=2)
    assert "no answer" in problems(error=Unreachable("no answer", url=""))
    other = Chain("other-1")
    for _ in range(6):
        other.mine()
    assert "on another chain" in proving.check_on_host(proof, SHA, "x86_64", other.client())[0]
    fork = Chain()
    fork.approve()
    fork.act((1, vote()))
    fork.mine()
    assert "this node's block 5 is" in proving.check_on_host(proof, SHA, "x86_64", fork.client())[0]

    def hide(raw: dict[str, t.Any]) -> None:
        raw["transactions"] = raw["transactions"][:3]

    assert "this node's blocks don't have" in problems(lie=hide)


def test_thresholds_changed_since_the_proof_close_it_and_failed_attempts_do_not(approved: Chain) -> None:
    change = {"rule_name": "min_voters", "new_value": 6}
    proof = gate(approved, payload())[1]
    approved.act((8, proposal("rules", change, "modify_governance_rules")))
    approved.act((8, execution(change, "rules")))
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) == []
    approved.act(
        *((who, vote(proposal_id="rules")) for who in range(5)), *((who, review(proposal_id="rules")) for who in range(5))
    )
    approved.act(*((who, {"type": "implementation_vote", "proposal_id": "rules", "approved": True}) for who in range(5)))
    midway = gate(approved, payload())[1]
    approved.act((8, execution(change, "rules")))
    for made in (proof, midway):
        problems = proving.check_on_host(made, SHA, "x86_64", approved.client())
        assert any("5 of 6 yes voters" in text for text in problems), problems
    verdict, later = gate(approved, payload())
    assert not verdict.open
    assert later["tally"]["thresholds"]["chain"]["min_voters"] == 6


def test_a_timelock_that_was_over_stays_over_on_the_host_until_somebody_takes_a_yes_back(approved: Chain) -> None:
    for _ in range(4):
        approved.mine()
    verdict, waiting = gate(approved, payload(), {"timelock": 20})
    assert not verdict.open
    assert "the timelock of 20 blocks ends at height" in verdict.reasons[0]
    assert proving.check_on_host(waiting, SHA, "x86_64", approved.client()) != []
    verdict, proof = gate(approved, payload(), {"timelock": 3})
    assert verdict.open, verdict.reasons
    approved.mine()
    assert proving.check_on_host(proof, SHA, "x86_64", approved.client()) == []
    approved.act((0, vote("no")))
    approved.act((0, vote()))
    found = proving.check_on_host(proof, SHA, "x86_64", approved.client())
    assert len(found) == 1 and found[0].startswith("since the proof was made: approved since height")


def test_limits_are_listed_plainly() -> None:
    legacy = Chain(None, xai_tx.LEGACY)
    for _ in range(3):
        legacy.mine()
    legacy.submit(payload(chain_id=legacy.blocks[0]["hash"]))
    clients = {name: legacy.client(final=False) for name in "ab"}
    found = reading.read(
        [reading.Reader(n, f"http://{n}") for n in clients], lambda reader: clients[reader.name], confirmations=0
    )
    result, verdict = proving.judge(found, ID, Policy(), None, signing.problems(found.records, found.scheme, found.chain_id))
    proof = proving.build(found, result, verdict, Policy(), chain="xai", confirmations=6, signatures_verified=True)
    assert not any("signature" in reason for reason in verdict.reasons)
    told = " ".join(proof["limits"])
    assert "cover neither metadata nor tx_type" in told
    assert "ever final" in told


def test_a_host_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, ansible_collections.chainops.validator.plugins.module_utils._governance.proof\n"
        "foreign = [n for n in sys.modules if n.split('.')[0] in ('cryptography', 'ansible', 'yaml', 'jinja2')]\n"
        "sys.exit(repr(foreign) if foreign else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
