# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Activation and reverting as Ansible runs them, against nodes that answer over HTTP."""

from __future__ import annotations

import contextlib
import http.server
import pathlib
import threading
import typing as t

import pytest

testing = pytest.importorskip("ansible.module_utils.testing")

import yaml

from ansible_collections.chainops.validator.plugins.doc_fragments import readers as fragment
from ansible_collections.chainops.validator.plugins.modules import feature_activation_info, governance_proposal
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    Chain,
    execution,
    implementation,
    payload,
    proposal,
    review,
    rollback,
    vote,
)
from ansible_collections.chainops.validator.tests.unit.plugins.modules.test_governance_modules import Handler, Person, call

ON = {"feature_name": "smart_contracts", "enabled": True}
OFF = {**ON, "enabled": False}


class Featured(Handler):
    """A node that also tells how it has the feature."""

    has: t.Any = None

    def do_GET(self) -> None:
        if self.path == "/contracts/governance/status" and self.has is not None:
            told = {"feature_name": "smart_contracts", "config_enabled": True, "contract_manager_ready": self.has}
            self.answer(200, {**told, "governance_enabled": self.has})
        else:
            super().do_GET()


@contextlib.contextmanager
def fleet(chain: Chain, **has: t.Any) -> t.Iterator[list[dict[str, str]]]:
    """Nodes by name, each with the feature as it has it; None: one that doesn't tell."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for name, one in has.items():
            handler = type("Bound", (Featured,), {"chain": chain, "has": one})
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            nodes.append({"name": name, "api_url": f"http://127.0.0.1:{server.server_port}"})
        yield nodes


def look(
    nodes: list[dict[str, str]], capsys: pytest.CaptureFixture[str], feature: str = "smart_contracts", **more: t.Any
) -> dict[str, t.Any]:
    readers = [{"name": node["name"], "url": node["api_url"]} for node in nodes]
    return call(feature_activation_info, capsys, **{"feature": feature, "nodes": nodes, "readers": readers, **more})


def passed(chain: Chain, proposal_id: str, content: dict[str, t.Any], kind: str = "feature_activation") -> None:
    chain.act((9, proposal(proposal_id, content, kind)))
    chain.act(*((who, act(proposal_id=proposal_id)) for act in (vote, review, implementation) for who in range(5)))


def executed(chain: Chain, proposal_id: str, content: dict[str, t.Any], kind: str = "feature_activation") -> None:
    passed(chain, proposal_id, content, kind)
    chain.act((8, execution(content, proposal_id)))


@pytest.fixture
def chain() -> Chain:
    return Chain()


def test_inactive_before_and_active_after(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(chain, a=False, b=False, c=False) as nodes:
        before = look(nodes, capsys, proposal_id="on")
        assert before["verdict"]["inactive_everywhere"] and before["verdict"]["reasons"] == []
        assert (before["changed"], before["proposal"]["stage"], before["chain"]["executed"]) == (False, "absent", [])
        executed(chain, "on", ON)
        lagging = look(nodes, capsys, proposal_id="on")
        assert lagging["verdict"]["not_followed"] == ["a", "b", "c"]
        assert not lagging["verdict"]["inactive_everywhere"] and not lagging["verdict"]["active_everywhere"]
    chain.act((3, rollback("on")))
    with fleet(chain, a=True, b=True, c=True) as nodes:
        after = look(nodes, capsys, proposal_id="on", _ansible_check_mode=True)
        assert after["verdict"]["active_everywhere"] and after["verdict"]["reasons"] == []
        assert [node["by"] for node in after["nodes"]] == ["on", "on", "on"]
        (step,) = after["chain"]["executed"]
        assert (step["proposal_id"], step["height"], step["rolled_back"], step["in_effect"]) == ("on", 3, True, True)
        assert "still in effect" in after["verdict"]["notes"][0]
        assert not look(nodes, capsys, proposal_id="other")["verdict"]["active_everywhere"]


def test_who_toggled_who_is_silent_and_who_is_gone(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    passed(chain, "on", ON)
    with fleet(chain, a=False, b=True, c=None, d="yes") as nodes:
        nodes.append({"name": "gone", "api_url": "http://127.0.0.1:1", "address": "TXAIe"})
        readers = [{"name": node["name"], "url": node["api_url"]} for node in nodes[:4]]
        seen = look(nodes, capsys, readers=readers, timeout=2)
        assert seen["verdict"]["toggled_without_proposal"] == ["b"]
        assert seen["verdict"]["unknown"] == ["c", "d", "gone"]
        assert {node["name"]: node["active"] for node in seen["nodes"]} == {
            "a": False,
            "b": True,
            "c": None,
            "d": None,
            "gone": None,
        }
        assert "neither true nor false" in seen["nodes"][3]["problem"]
        assert not seen["verdict"]["inactive_everywhere"] and not seen["verdict"]["active_everywhere"]


def test_readers_that_disagree_leave_nothing_known(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    other = Chain("other-1")
    with fleet(chain, a=False) as mine, fleet(other, b=False) as theirs:
        seen = look(mine + theirs, capsys)
        assert seen["chain"] == {"known": False, "start": None, "value": None, "expected": None, "by": None, "executed": []}
        assert not seen["verdict"]["inactive_everywhere"]
        assert "fewer than 2 of 2 readers agree" in seen["verdict"]["reasons"][0]
        assert [node["expected"] for node in seen["nodes"]] == [None, None]


def test_a_forged_vote_leaves_nothing_known(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    executed(chain, "on", ON)
    tx = chain.blocks[2]["transactions"][0]
    tx["signature"] = "ab" * 64
    with fleet(chain, a=True, b=True) as nodes:
        seen = look(nodes, capsys)
        assert not seen["verdict"]["active_everywhere"] and not seen["chain"]["known"]
        assert tx["txid"][:12] in seen["verdict"]["reasons"][0]


def test_what_no_node_tells_passes_nowhere_but_is_shown(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    executed(chain, "off", {"feature_name": "exchange", "enabled": False})
    executed(chain, "six", {"rule_name": "min_voters", "new_value": 6}, "modify_governance_rules")
    with fleet(chain, a=False, b=False) as nodes:
        seen = look(nodes, capsys, "exchange")
        assert (seen["chain"]["start"], seen["chain"]["expected"], seen["chain"]["by"]) == (True, False, "off")
        assert seen["verdict"]["unknown"] == ["a", "b"] and not seen["verdict"]["inactive_everywhere"]
        assert look(nodes, capsys, "min_voters")["chain"]["value"] == 6
        assert look(nodes, capsys, "min_voters", chain_thresholds={"min_voters": 3})["chain"]["start"] == 3
        assert "knows no feature 'smart-contracts'" in look(nodes, capsys, "smart-contracts")["verdict"]["reasons"][0]


def test_bad_input_fails_with_words(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(chain, a=False, b=False) as nodes:
        readers = [{"name": node["name"], "url": node["api_url"]} for node in nodes]
        assert "no nodes to ask" in look([], capsys, readers=readers)["msg"]
        assert "two nodes have one name: a" in look([nodes[0], nodes[0]], capsys, readers=readers)["msg"]
        assert "unknown threshold 'voters'" in look(nodes, capsys, chain_thresholds={"voters": 1})["msg"]
        assert "not an http(s) URL" in look([{"name": "x", "api_url": "val1"}], capsys, readers=readers)["msg"]


def test_what_is_returned_is_what_is_documented(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(feature_activation_info.RETURN)
    with fleet(chain, a=False, b=False) as nodes:
        seen = look(nodes, capsys)
    assert set(documented) <= set(seen)
    for name in ("chain", "verdict"):
        assert set(documented[name]["contains"]) == set(seen[name])
    assert set(documented["nodes"]["contains"]) == set(seen["nodes"][0])
    options = yaml.safe_load(feature_activation_info.DOCUMENTATION)["options"]
    assert set(options) == set(feature_activation_info.OPTIONS)
    assert not set(options) & set(yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"])
    for name, spec in feature_activation_info.OPTIONS.items():
        assert options[name].get("default") == spec.get("default") and options[name]["type"] == spec["type"]


# --- reverting ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def person(chain: Chain, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> t.Iterator[Person]:
    with fleet(chain, a=False) as nodes:
        made = Person(1, tmp_path, nodes[0]["api_url"], capsys)
        made.options["proposal_id"] = "on"
        yield made


def test_a_rollback_files_the_proposal_that_reverts(chain: Chain, person: Person) -> None:
    executed(chain, "on", ON)
    before = len(chain.blocks)
    planned = person(governance_proposal, check=True, state="rolled_back")
    assert (planned["changed"], len(chain.blocks)) == (True, before)
    assert planned["reverting_proposal"] == {"id": "on.revert", "txid": None, "height": None, "payload": OFF}
    assert planned["diff"]["before"]["reverting_proposal"] is None
    assert planned["diff"]["after"]["reverting_proposal"]["payload"] == OFF
    done = person(governance_proposal, state="rolled_back")
    assert (done["changed"], done["height"], len(chain.blocks)) == (True, before, before + 2)
    assert done["diff"] == planned["diff"]
    assert (done["reverts"], done["proposal"]["stage"]) == (False, "rolled_back")
    filed = done["reverting_proposal"]
    assert (filed["id"], filed["height"], filed["payload"]) == ("on.revert", before + 1, OFF)
    assert filed["txid"] == chain.blocks[-1]["transactions"][0]["txid"]
    assert "the network must vote on proposal 'on.revert'" in done["note"]
    again = person(governance_proposal, state="rolled_back")
    assert (again["changed"], again["txid"], again["reverting_proposal"]) == (False, None, filed)
    assert again["diff"]["before"] == again["diff"]["after"] == done["diff"]["after"]
    assert len(chain.blocks) == before + 2


def test_what_was_filed_reverts_once_the_network_agrees(chain: Chain, person: Person, capsys: pytest.CaptureFixture[str]) -> None:
    executed(chain, "on", ON)
    assert person(governance_proposal, state="rolled_back")["reverting_proposal"]
    chain.act(*((who, act(proposal_id="on.revert")) for act in (vote, review, implementation) for who in range(5)))
    assert person(governance_proposal, state="executed", proposal_id="on.revert")["changed"]
    with fleet(chain, a=False, b=False) as nodes:
        seen = look(nodes, capsys)
        assert seen["verdict"]["inactive_everywhere"]
        assert [step["proposal_id"] for step in seen["chain"]["executed"]] == ["on", "on.revert"]
    over = person(governance_proposal, state="rolled_back")
    assert (over["changed"], over["reverting_proposal"]) == (False, None)
    assert "There is nothing to revert" in over["note"]


def test_a_rollback_somebody_else_sent_is_completed(chain: Chain, person: Person) -> None:
    executed(chain, "on", ON)
    chain.act((7, rollback("on")))
    done = person(governance_proposal, state="rolled_back")
    assert (done["changed"], done["txid"], done["reverting_proposal"]["id"]) == (True, None, "on.revert")


def test_what_is_put_back_is_what_this_network_began_with(chain: Chain, person: Person) -> None:
    executed(chain, "on", {"rule_name": "min_voters", "new_value": 2}, "modify_governance_rules")
    planned = person(governance_proposal, check=True, state="rolled_back", chain_thresholds={"min_voters": 3})
    assert planned["reverting_proposal"]["payload"] == {"rule_name": "min_voters", "new_value": 3}
    assert "unknown threshold" in person(governance_proposal, state="rolled_back", chain_thresholds={"voters": 3})["msg"]


def test_filing_can_be_switched_off(chain: Chain, person: Person) -> None:
    executed(chain, "on", ON)
    before = len(chain.blocks)
    done = person(governance_proposal, state="rolled_back", revert=False)
    assert (done["changed"], done["reverting_proposal"], len(chain.blocks)) == (True, None, before + 1)
    assert "not filed, as revert is false" in done["note"]


def test_the_reverting_id_taken_by_another_does_not_keep_the_gate_open(chain: Chain, person: Person) -> None:
    executed(chain, "on", ON)
    chain.act((7, proposal("on.revert", ON, "feature_activation")))
    assert person(governance_proposal, check=True, state="rolled_back")["failed"]
    refused = person(governance_proposal, state="rolled_back")
    assert refused["failed"] and refused["error"]["kind"] == "Refused"
    assert "revert: false" in refused["msg"]
    assert chain.blocks[-1]["transactions"][0]["metadata"] == rollback("on")
    assert person(governance_proposal, state="rolled_back", revert=False)["proposal"]["stage"] == "rolled_back"


def test_an_upgrade_that_was_rolled_back_has_nothing_to_revert(chain: Chain, person: Person) -> None:
    executed(chain, "on", payload(), "software_upgrade")
    done = person(governance_proposal, state="rolled_back")
    assert (done["changed"], done["reverting_proposal"]) == (True, None)
    assert "the chain did nothing on the execution but record it" in done["note"]
