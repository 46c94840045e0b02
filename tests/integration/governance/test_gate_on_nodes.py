# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proposal on a real chain: four reference nodes, real blocks, the modules run by ansible-playbook."""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._chain import registry
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.tests.integration.governance.conftest import API_KEY, Network, Tasks

SHA = "ab" * 32
PREFIX = "chainops.validator.governance_"
Task = t.Dict[str, t.Any]


class Story:
    """Tasks of the people involved. Account 0 proposes, 1 to 5 vote."""

    def __init__(self, network: Network, folder: pathlib.Path, proposal_id: str) -> None:
        self.network = network
        self.id = proposal_id
        self.folder = folder
        self.chain_id = registry.adapter("xai").client(network.urls[0]).status().chain_id
        for number, account in enumerate(network.accounts[:6]):
            path = folder / f"key{number}"
            path.write_text(account["private_key"])
            path.chmod(0o600)

    def payload(self, **changes: t.Any) -> dict[str, t.Any]:
        base: dict[str, t.Any] = {
            "format": "chainops.upgrade/1",
            "chain_id": self.chain_id,
            "release": {"id": "2.0.0", "level": 2, "artifacts": {"x86_64": SHA}},
            "migrations": [{"id": "0002-utxo-db", "direction": "forward", "from_level": 1, "to_level": 2}],
            "snapshot": {"required": True},
            "target": {"module": "storage"},
            "activation_height": 0,
            "risk": "low",
            "reports": {"api": None, "security": None, "monitoring": None},
            "links": {"code": "https://example.org/code", "documents": []},
        }
        return {**base, **changes}

    def signed(self, module: str, who: int, **options: t.Any) -> Task:
        basics = {"api_url": self.network.urls[0], "api_key": API_KEY, "key_file": str(self.folder / f"key{who}")}
        return {PREFIX + module: {**basics, "proposal_id": self.id, **options}}

    def submit(self, **changes: t.Any) -> Task:
        words = {"title": "Release 2.0.0", "description": "The storage format of level 2"}
        return self.signed("proposal", 0, **words, payload=self.payload(**changes))

    def everybody(self, kind: str, **options: t.Any) -> list[Task]:
        return [self.signed("vote", who, kind=kind, **options) for who in range(1, 6)]

    def gate(self, *readers: int, **options: t.Any) -> Task:
        asked = {"proposal_id": self.id, "readers": self.network.readers(*readers), "payload": self.payload()}
        return {PREFIX + "proposal_info": {**asked, **options}}


def outcome(result: t.Any) -> tuple[bool, str]:
    print(result["verdict"])  # shown when a test fails
    return result["verdict"]["open"], result["verdict"]["stage"]


def test_a_proposal_from_nothing_to_rolled_back(network: Network, tmp_path: pathlib.Path, play: Tasks) -> None:
    story = Story(network, tmp_path, "upgrade-2.0.0")
    gate = story.gate(cache_dir=str(tmp_path / "cache"))

    nothing, planned = play(gate, story.submit(), check=True, diff=True)
    assert outcome(nothing) == (False, "absent")
    assert (planned["changed"], planned["txid"]) == (True, None)

    first, again, proposed = play(story.submit(), story.submit(), gate)
    assert first["changed"] and first["height"] > 0
    assert not again["changed"]
    assert outcome(proposed) == (False, "proposed")
    assert "0 of 5 yes voters (the chain's rule)" in proposed["verdict"]["reasons"]
    liar = next(reader for reader in proposed["chain_read"]["readers"] if reader["name"] == "node3")
    assert not liar["agreed"] and "with another metadata" in liar["reason"]

    *votes, four, fifth, last, voted = play(
        *story.everybody("vote", voting_power=20.0)[:4],
        gate,
        story.signed("vote", 5, kind="vote", voting_power=20.0),
        story.signed("vote", 5, kind="vote", voting_power=20.0),
        gate,
    )
    assert all(vote["changed"] for vote in (*votes, fifth)) and not last["changed"]
    assert outcome(four) == (False, "proposed")
    assert "4 of 5 yes voters (the chain's rule)" in four["verdict"]["reasons"]
    assert outcome(voted) == (False, "approved_voting")
    assert voted["chain_read"]["blocks_read"] < voted["chain_read"]["height"]

    *_reviews, reviewed = play(*story.everybody("review", voting_power=20.0, comments="read and built"), gate)
    assert outcome(reviewed) == (False, "code_review_passed")
    assert reviewed["verdict"]["reasons"] == ["0 of 2 implementation approvals, by 5 yes voters (the chain's rule)"]

    results = play(*story.everybody("implementation"), gate, story.gate(payload=story.payload(risk="none")))
    approved, other = results[-2], results[-1]
    assert outcome(approved) == (True, "implementation_approved")
    assert outcome(other) == (False, "implementation_approved")
    assert 'risk: approved is "low", about to run is "none"' in other["verdict"]["reasons"][0]

    # Every host checks the proof against its own node; the liar's host is the one that refuses.
    for number in range(4):
        node = registry.adapter("xai").client(network.urls[number])
        problems = proving.check_on_host(approved["proof"], SHA, "x86_64", node)
        assert (problems == []) is (number != 3), problems
    honest = registry.adapter("xai").client(network.urls[0])
    assert "approved for x86_64 is" in proving.check_on_host(approved["proof"], "cd" * 32, "x86_64", honest)[0]
    assert "no release is approved for aarch64" in proving.check_on_host(approved["proof"], SHA, "aarch64", honest)[0]
    assert proving.check_on_host(proposed["proof"], SHA, "x86_64", honest) != []

    done, executed = play(story.signed("proposal", 2, state="closed"), gate)
    assert done["changed"] and outcome(executed) == (True, "executed")
    assert proving.check_on_host(approved["proof"], SHA, "x86_64", honest) == []

    undone, closed = play(story.signed("proposal", 0, state="rolled_back"), gate)
    assert undone["changed"] and undone["reverts"] is False
    assert outcome(closed) == (False, "rolled_back")
    problems = proving.check_on_host(approved["proof"], SHA, "x86_64", honest)
    assert any("since the proof was made: rolled back at height" in text for text in problems)

    for account in network.accounts[:6]:
        assert account["private_key"] not in play.output  # type: ignore[attr-defined]
        assert account["private_key"] not in str(closed) + str(done)


def test_a_majority_of_liars_closes_the_gate(network: Network, tmp_path: pathlib.Path, play: Tasks) -> None:
    story = Story(network, tmp_path, "upgrade-2.0.1")
    ready = play(
        story.submit(),
        *story.everybody("vote"),
        *story.everybody("review"),
        *story.everybody("implementation"),
        story.gate(),
        story.gate(0, 1, 2),
        story.gate(0, 3),
        story.gate(0),
        story.gate(0, min_readers=1),
    )
    everybody, honest, pair, alone, trusted = ready[-5:]
    assert outcome(everybody) == (True, "implementation_approved")
    assert outcome(honest) == (True, "implementation_approved")
    assert outcome(pair) == (False, "unknown")
    assert outcome(alone) == (False, "unknown")
    assert "set min_readers to 1" in alone["verdict"]["reasons"][0]
    assert outcome(trusted) == (True, "implementation_approved")
    assert "one reader alone was believed" in trusted["proof"]["limits"]

    # Nobody voted no, so that leaving out such votes is no lie; the other two are told apart from the truth.
    for lie, words in (("lie_governance=omit", None), ("lie_governance=rehash", "follows"), ("fork", "")):
        network.stop(2)
        network.start(2, lie)
        network.wait_height(network.height(0) + 2, 2)
        (split,) = play(story.gate())
        if words is None:
            assert outcome(split) == (True, "implementation_approved")
        else:
            assert outcome(split) == (False, "unknown")
            assert words in next(reader["reason"] for reader in split["chain_read"]["readers"] if reader["name"] == "node2")
    network.stop(2)
    (down,) = play(story.gate())
    assert outcome(down) == (False, "unknown")
    assert "fewer than 3 of 4 readers agree" in down["verdict"]["reasons"][0]
    network.start(2)
