# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The governance modules as Ansible runs them, against nodes that answer over HTTP."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import threading
import typing as t
import urllib.parse

import pytest

testing = pytest.importorskip("ansible.module_utils.testing")

from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.modules import (
    governance_proposal,
    governance_proposal_info,
    governance_vote,
)
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    ID,
    Chain,
    address,
    key,
    payload,
    vote,
)

SECRET = "0" * 64  # never a key
Result = t.Dict[str, t.Any]


class Handler(http.server.BaseHTTPRequestHandler):
    """The routes that the adapter needs."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    chain: Chain
    hide = ""

    def log_message(self, *args: t.Any) -> None:
        pass

    def answer(self, status: int, body: t.Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def shows(self, tx: t.Mapping[str, t.Any]) -> bool:
        return not self.hide or tx["metadata"].get("vote") != self.hide

    def do_GET(self) -> None:
        blocks = self.chain.blocks
        tip = blocks[-1]
        path, _mark, query = self.path.partition("?")
        known: dict[str, t.Any] = {
            "/version": {"version": "1", "chain_id": self.chain.chain_id, "signature_scheme": self.chain.scheme},
            "/health": {"status": "healthy"},
            "/block/latest": {"block_number": tip["index"], "hash": tip["hash"], "timestamp": tip["timestamp"]},
            "/stats": {},
            "/finality/status": {"finalized_height": tip["index"]},
            "/csrf-token": {"csrf_token": "t"},
        }
        shown = [{**block, "transactions": [tx for tx in block["transactions"] if self.shows(tx)]} for block in blocks]
        if path == "/blocks":
            asked = {name: int(value) for name, value in urllib.parse.parse_qsl(query)}
            self.answer(200, {"total": len(blocks), "blocks": shown[::-1][asked["offset"] :][: asked["limit"]]})
        elif path.startswith("/blocks/") and int(path[8:]) < len(blocks):
            self.answer(200, shown[int(path[8:])])
        elif path.startswith("/address/"):
            who = path.split("/")[2]
            self.answer(200, {"next_nonce": sum(tx["sender"] == who for block in blocks for tx in block["transactions"])})
        elif path in known:
            self.answer(200, known[path])
        else:
            self.answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        tx = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("X-API-Key") != "an api key":
            self.answer(401, {"code": "unauthorized"})
            return
        self.chain.mine(tx)
        self.answer(200, {"success": True, "txid": tx["txid"]})


@contextlib.contextmanager
def served(chain: Chain, hide: str = "") -> t.Iterator[str]:
    handler = type("Bound", (Handler,), {"chain": chain, "hide": hide})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def node(chain: Chain) -> t.Iterator[str]:
    with served(chain) as url:
        yield url


def call(module: t.Any, capsys: pytest.CaptureFixture[str], check: bool = False, **options: t.Any) -> Result:
    with testing.patch_module_args({**options, "_ansible_check_mode": check, "_ansible_diff": True}), pytest.raises(SystemExit):
        module.main()
    return t.cast(Result, json.loads(capsys.readouterr().out))


class Person:
    """Somebody with a key file, who calls modules."""

    def __init__(self, number: int, folder: pathlib.Path, node: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.key_file = folder / f"key{number}"
        self.secret = key(number).secret_hex()
        self.key_file.write_text(self.secret)
        self.options = {"api_url": node, "api_key": "an api key", "key_file": str(self.key_file), "proposal_id": ID}
        self.capsys = capsys

    def __call__(self, module: t.Any, check: bool = False, **options: t.Any) -> Result:
        result = call(module, self.capsys, check, **{**self.options, **options})
        # (api_key and the like are in "invocation", masked)
        assert self.secret not in json.dumps(result)
        return result


SUBMIT = {"title": "Release 2.0.0", "description": "The new storage", "payload": payload()}


def test_a_proposal_from_submission_to_closing(
    chain: Chain, node: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [Person(number, tmp_path, node, capsys) for number in range(5)]

    def step(stage: str, person: Person, module: t.Any, **options: t.Any) -> None:
        before = len(chain.blocks)
        planned = person(module, check=True, **options)
        assert (planned["changed"], planned["txid"], len(chain.blocks)) == (True, None, before)
        done = person(module, **options)
        assert (done["changed"], done["height"], done["attempts"]) == (True, before, 1), done
        assert done["proposal"]["stage"] == stage
        assert done["diff"] == planned["diff"]
        again = person(module, **options)
        assert (again["changed"], again["txid"], again["diff"]["before"]) == (False, None, again["diff"]["after"])
        assert len(chain.blocks) == before + 1

    step("proposed", people[0], governance_proposal, **SUBMIT)
    for number, person in enumerate(people):
        step("approved_voting" if number == 4 else "proposed", person, governance_vote, kind="vote", voting_power=20.0)
    for number, person in enumerate(people):
        stage = "code_review_passed" if number == 4 else "approved_voting"
        step(stage, person, governance_vote, kind="review", voting_power=20.0, comments="fine")
    step("code_review_passed", people[0], governance_vote, kind="implementation")
    early = people[0](governance_proposal, state="executed")
    assert early["failed"] and "1 of 2 implementation approvals" in early["msg"]
    assert early["error"]["kind"] == "Refused"
    step("implementation_approved", people[1], governance_vote, kind="implementation")
    step("executed", people[2], governance_proposal, state="closed")
    assert people[0](governance_proposal, state="executed")["changed"] is False
    step("rolled_back", people[3], governance_proposal, state="rolled_back")
    assert people[0](governance_proposal, state="rolled_back")["reverts"] is False


def test_another_payload_under_the_same_id_is_refused(
    chain: Chain, node: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person = Person(1, tmp_path, node, capsys)
    assert person(governance_proposal, **SUBMIT)["changed"]
    other = person(governance_proposal, **{**SUBMIT, "payload": payload(risk="none")})
    assert other["failed"] and 'risk: approved is "low", about to run is "none"' in other["msg"]
    wrong_chain = person(governance_proposal, **{**SUBMIT, "proposal_id": "b", "payload": payload(chain_id="x")})
    assert wrong_chain["failed"] and 'this is "unit-1"' in wrong_chain["msg"]
    assert len(chain.blocks) == 2


def test_keys_come_from_a_file_or_the_environment(
    chain: Chain, node: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.submit()
    person = Person(1, tmp_path, node, capsys)
    del person.options["key_file"]
    assert "no key to sign with" in person(governance_vote, kind="vote")["msg"]
    monkeypatch.setitem(os.environ, "CHAINOPS_SIGNING_KEY", person.secret)
    assert person(governance_vote, kind="vote")["address"] == address(1)
    refused = person(governance_vote, kind="vote", vote="no", api_key="another")
    assert refused["failed"] and "401" in refused["msg"]


def test_the_gate(chain: Chain, node: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain.submit()
    chain.pass_votes()
    chain.act((5, vote("no", 30.0)))
    with served(chain) as second, served(chain) as third, served(chain, hide="no") as liar:
        readers = [{"name": name, "url": url} for name, url in (("a", node), ("b", second), ("c", third), ("liar", liar))]
        ask: dict[str, t.Any] = {"proposal_id": ID, "readers": readers, "payload": payload(), "cache_dir": str(tmp_path / "c")}
        closed = call(governance_proposal_info, capsys, **ask)
        assert (closed["changed"], closed["verdict"]["open"], closed["verdict"]["stage"]) == (False, False, "approved_voting")
        assert closed["verdict"]["reasons"][0] == "0 of 5 code reviewers (the chain's rule)"
        assert "hides governance_vote" in closed["chain_read"]["readers"][3]["reason"]
        chain.pass_reviews()
        chain.pass_implementation()
        opened = call(governance_proposal_info, capsys, check=True, **ask)
        assert opened["verdict"] == {"open": True, "stage": "implementation_approved", "reasons": []}
        assert opened["chain_read"]["blocks_read"] == 2
        assert opened["proof_sha256"] == opened["proof"]["sha256"]
        assert proving.check_on_host(opened["proof"], "ab" * 32, "x86_64", chain.client()) == []
        other = call(governance_proposal_info, capsys, **{**ask, "payload": payload(activation_height=7)})
        assert not other["verdict"]["open"]
        assert "activation_height: approved is 0, about to run is 7" in other["verdict"]["reasons"][0]
        absent = call(governance_proposal_info, capsys, **{**ask, "proposal_id": "upgrade-2.O.0"})
        assert "looks alike" in absent["verdict"]["reasons"][0]
        alone = call(governance_proposal_info, capsys, **{**ask, "readers": readers[:1]})
        assert alone["verdict"]["stage"] == "unknown"
        bad = call(governance_proposal_info, capsys, **{**ask, "policy": {"thresholds": {"voters": 1}}})
        assert bad["failed"] and "unknown threshold 'voters'" in bad["msg"]
