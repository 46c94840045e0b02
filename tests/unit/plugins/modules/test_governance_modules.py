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

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
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
    implementation,
    key,
    payload,
    proposal,
    review,
    rollback,
    vote,
)
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.signers import signed, signers

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
        elif path == "/transactions" and self.chain.shows_pending:
            self.answer(200, {"count": len(self.chain.pending), "transactions": list(self.chain.pending)})
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


def reports(path: pathlib.Path) -> list[dict[str, t.Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def in_time(report: pathlib.Path, steps: t.Sequence[t.Callable[[], t.Any]]) -> threading.Thread:
    """Takes a step each time that what the step before led to was reported."""

    def take() -> None:
        enough = 1
        for step in steps:
            while not report.exists() or len(reports(report)) < enough:
                if over.wait(0.01):
                    return
            step()
            # The next report may be of a reading that began before the step; the one after it is not.
            enough = len(reports(report)) + 2

    over = threading.Event()
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def trio(chain: Chain, node: str) -> t.Iterator[list[dict[str, str]]]:
    with served(chain) as second, served(chain) as third:
        yield [{"name": name, "url": url} for name, url in (("a", node), ("b", second), ("c", third))]


WAIT = {"proposal_id": ID, "wait_timeout": 300, "wait_interval": 0.02}


@pytest.mark.parametrize("keep", [True, False])
def test_the_gate_is_waited_for_and_says_what_for(
    chain: Chain, trio: list[dict[str, str]], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], keep: bool
) -> None:
    told = tmp_path / "told"
    helper = in_time(told, [chain.submit, chain.pass_votes, chain.pass_reviews, chain.pass_implementation])
    options: dict[str, t.Any] = {"cache_dir": str(tmp_path / "c")} if keep else {}
    found = call(
        governance_proposal_info, capsys, True, **WAIT, **options, readers=trio, wait_for="open", progress_file=str(told)
    )
    helper.join(300)
    assert (found["verdict"]["open"], found["changed"]) == (True, False), found
    assert found["wait"]["stage"] == "implementation_approved"
    assert found["chain_read"]["blocks_read"] < 5  # the last reading read only what was new
    said = reports(told)
    assert said[-1] == found["wait"]
    stages = list(dict.fromkeys(one["stage"] for one in said))
    assert stages == ["absent", "proposed", "approved_voting", "code_review_passed", "implementation_approved"]
    voting = next(one for one in said if one["stage"] == "proposed")
    assert "0 of 5 yes voters (the chain's rule)" in voting["missing"]
    assert voting["text"].startswith("waiting for open of 'upgrade-2.0.0': proposed at height 1; 0 of 5 yes voters")


def test_a_stage_that_was_passed_was_reached(
    chain: Chain, trio: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    chain.submit()
    chain.pass_votes()
    for stage in ("proposed", "approved_voting"):
        found = call(governance_proposal_info, capsys, **WAIT, readers=trio, wait_for=stage)
        assert (found.get("failed"), found["verdict"]["stage"]) == (None, "approved_voting")


def test_a_wait_that_takes_too_long_fails_with_the_last_answer(
    chain: Chain, trio: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    chain.submit()
    chain.act(*((who, vote()) for who in range(4)))
    late = call(governance_proposal_info, capsys, **{**WAIT, "wait_timeout": 0.1}, readers=trio, wait_for="approved_voting")
    assert late["failed"]
    assert "waiting for approved_voting of 'upgrade-2.0.0': proposed at height 2; 4 of 5 yes voters" in late["msg"]
    assert late["tally"]["chain"]["stage"] == "proposed"
    assert proving.check_binding(late["proof"], "ab" * 32, "x86_64") != []
    assert late["proposal"]["submitted_height"] == 1


@pytest.mark.parametrize(
    ("wanted", "acts", "words"),
    [
        ("executed", [(9, rollback())], "executed can't be reached any more: rolled back at height 5"),
        ("open", [(9, rollback())], "open can't be reached any more: rolled back at height 5"),
        ("executed", [(9, proposal())], "executed can't be reached any more: the id was submitted again at height 5"),
    ],
)
def test_what_can_not_come_any_more_is_not_waited_for(
    chain: Chain,
    trio: list[dict[str, str]],
    capsys: pytest.CaptureFixture[str],
    wanted: str,
    acts: list[tuple[int, dict[str, t.Any]]],
    words: str,
) -> None:
    chain.approve()
    chain.act(*acts)
    ended = call(governance_proposal_info, capsys, **{**WAIT, "wait_timeout": 1e6}, readers=trio, wait_for=wanted)
    assert ended["failed"] and ended["msg"].startswith(words), ended["msg"]
    assert ended["proof"]["verdict"] == ended["verdict"]


def test_a_vote_that_was_lost_in_its_period_is_not_waited_for(
    chain: Chain, trio: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    chain.submit()
    chain.act(*((who, vote()) for who in range(4)))
    chain.mine()
    wait = {**WAIT, "wait_timeout": 1e6, "readers": trio, "wait_for": "open"}
    ended = call(governance_proposal_info, capsys, **wait, policy={"voting_period": 2})
    assert ended["failed"]
    assert "open can't be reached any more: the voting period ended at height 3: 4 of 5 yes voters" in ended["msg"]
    longer = call(governance_proposal_info, capsys, **{**wait, "wait_timeout": 0}, policy={"voting_period": 3})
    assert longer["msg"].startswith("waited")
    assert longer["tally"]["waits"] == [{"what": "voting period", "until_height": 4, "blocks_left": 1, "seconds": 1.0}]


def test_another_payload_than_the_approved_one_is_not_waited_for(
    chain: Chain, trio: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    chain.submit()
    wait = {**WAIT, "wait_timeout": 1e6, "readers": trio, "payload": payload(risk="none")}
    ended = call(governance_proposal_info, capsys, **wait, wait_for="open")
    assert ended["failed"] and 'approved is "low", about to run is "none"' in ended["msg"]
    assert not call(governance_proposal_info, capsys, **wait, wait_for="proposed").get("failed")


def test_what_was_given_wrongly_is_not_waited_for(
    trio: list[dict[str, str]], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wait = {**WAIT, "wait_timeout": 1e6, "wait_for": "open", "readers": trio}
    for wrong, words in (
        ({"readers": [trio[0], trio[0]]}, "is listed twice"),
        ({"wait_interval": 0}, "wait_interval must be above 0"),
        ({"policy": {"witnesses": 4}}, "policy.witnesses is 4, but only 3 readers are listed"),
        ({"progress_file": str(tmp_path)}, "can't be written: Is a directory"),
    ):
        found = call(governance_proposal_info, capsys, **{**wait, **t.cast("dict[str, t.Any]", wrong)})
        assert found["failed"] and words in found["msg"], found["msg"]


@pytest.mark.parametrize("rewritten", [False, True])
def test_votes_are_witnessed_while_the_gate_is_waited_for(
    trio: list[dict[str, str]],
    chain: Chain,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    rewritten: bool,
) -> None:
    """Each step is taken only once readers were seen to hold what is to be mined."""
    told = tmp_path / "told"
    options = {**WAIT, "readers": trio, "policy": {"witnesses": 3, "power": "declared"}, "cache_dir": str(tmp_path / "c")}
    chain.scheme, chain.chain_id = xai_tx.LEGACY, None
    content = payload(chain_id=chain.blocks[0]["hash"])

    def relay(tx: dict[str, t.Any]) -> None:
        if rewritten and tx["metadata"].get("voting_power") == 19.0:
            tx["metadata"]["vote"] = "yes"

    def last_pending() -> int:
        said = reports(told) if told.exists() else []  # (a file that was just made is empty for a moment)
        return int(said[-1]["pending"]) if said else 0

    def cast(*acts: tuple[int, dict[str, t.Any]]) -> None:
        chain.hold(*acts)
        while last_pending() < len(acts):
            if over.wait(0.01):
                return
        # (all three must have been seen: the report counts transactions, the file who held them)
        wanted = {tx["txid"] for tx in chain.pending}
        while any(sum(one["txid"] == txid for one in sightings(tmp_path)) < 3 for txid in wanted):
            if over.wait(0.01):
                return
        chain.mine_pending(relay)

    def act() -> None:
        cast((9, proposal(content=content)))
        cast(*((who, vote()) for who in range(5)), (6, vote("no", 19.0)))
        cast(*((who, review()) for who in range(5)))
        cast(*((who, implementation()) for who in range(5)))

    over = threading.Event()
    helper = threading.Thread(target=act, daemon=True)
    helper.start()
    stage = "implementation_approved"
    found = call(governance_proposal_info, capsys, **options, wait_for=stage, progress_file=str(told))
    over.set()
    helper.join(300)
    assert found["verdict"]["stage"] == stage, found["msg"]
    later = call(governance_proposal_info, capsys, **options)
    if rewritten:
        assert not later["verdict"]["open"]
        assert "was rewritten: 3 readers held it with another metadata" in later["verdict"]["reasons"][0]
        assert "0 of 3 witnesses" in later["tally"]["notes"][0]
    else:
        assert later["verdict"]["open"], later["verdict"]
        assert set(later["proof"]["witnesses"].values()) == {3}
        assert proving.check_on_host(later["proof"], "ab" * 32, "x86_64", chain.client()) == []
    blind = call(governance_proposal_info, capsys, **{**options, "cache_dir": str(tmp_path / "other")})
    assert "0 of 3 readers held the submission before it was mined (policy)" in blind["verdict"]["reasons"]
    assert call(governance_proposal_info, capsys, **{**options, "policy": {"power": "declared"}})["verdict"]["open"]
    # Nobody on this chain was ever given a coin.
    assert (
        "0 of 5 yes voters (policy)" in call(governance_proposal_info, capsys, **{**options, "policy": {}})["verdict"]["reasons"]
    )


def sightings(folder: pathlib.Path) -> list[dict[str, t.Any]]:
    files = list((folder / "c").glob("witness-*.json"))
    return t.cast("list[dict[str, t.Any]]", json.loads(files[0].read_text())["sightings"]) if files else []


def test_readers_that_can_not_tell_what_they_hold_are_named(
    chain: Chain, capsys: pytest.CaptureFixture[str], trio: list[dict[str, str]]
) -> None:
    chain.approve()
    chain.shows_pending = False
    found = call(governance_proposal_info, capsys, proposal_id=ID, readers=trio, policy={"witnesses": 1})
    reasons = found["verdict"]["reasons"]
    assert "0 of 1 readers held the submission before it was mined (policy)" in reasons
    assert "b can't tell what it holds before it is mined, so it can be no witness" in reasons


def test_people_beside_the_chain(chain: Chain, node: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain.approve()
    keys, alice = tmp_path / "allowed_signers", tmp_path / "alice.sig"
    keys.write_bytes(signers("alice", "bob"))
    ask: dict[str, t.Any] = {"proposal_id": ID, "payload": payload(), "readers": [{"name": "a", "url": node}], "min_readers": 1}
    people: dict[str, t.Any] = {"required": 2, "allowed_signers": str(keys)}

    def gate(given: list[dict[str, str]], **changes: t.Any) -> Result:
        return call(governance_proposal_info, capsys, **{**ask, "approvals": {**people, "signatures": given, **changes}})

    handed_in = [{"name": "alice", "path": str(alice)}]
    closed = gate(handed_in)
    assert closed["verdict"]["reasons"] == [
        f"0 of 2 approvals: alice's signature does not verify: {alice} can't be read: No such file or directory"
    ]
    text = closed["approval"]["statement"]
    assert "-n chainops-approval" in closed["approval"]["command"]
    alice.write_text(str(signed("alice", text).text), encoding="utf-8")
    handed_in.append({"name": "bob", "content": str(signed("bob", text).text)})
    opened = gate(handed_in)
    assert opened["verdict"]["open"] and opened["approval"]["verdict"]["approvers"] == ["alice", "bob"]
    assert opened["proof"]["approval"]["statement"] == text and len(opened["proof"]["approval"]["signatures"]) == 2
    assert "allowed_signers is missing" in gate(handed_in, allowed_signers=None)["msg"]
    assert "can't be read" in gate(handed_in, allowed_signers=str(tmp_path / "none"))["msg"]
    assert "approvals.signatures[0].name '-x' is not usable" in gate([{"name": "-x", "content": ""}])["msg"]
    assert "mutually exclusive" in gate([{"name": "x", "content": "", "path": "/"}])["msg"]
    assert call(governance_proposal_info, capsys, **ask)["approval"]["verdict"]["ok"]


def test_break_glass(chain: Chain, node: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain.submit()
    keys = tmp_path / "allowed_signers"
    keys.write_bytes(signers("alice", "bob"))
    ask: dict[str, t.Any] = {"proposal_id": ID, "payload": payload(), "readers": [{"name": "a", "url": node}], "min_readers": 1}

    def gate(given: list[dict[str, str]], required: int = 2, **changes: t.Any) -> Result:
        people = {"required": required, "allowed_signers": str(keys), "signatures": given}
        glass = {"reason": "key leak", "expires_height": 100, "approvals": people, **changes}
        return call(governance_proposal_info, capsys, **{**ask, "break_glass": glass})

    closed = gate([])
    assert (closed["verdict"]["open"], closed["break_glass"]["used"]) == (False, False)
    assert closed["verdict"]["reasons"][-1] == "0 of 2 break-glass approvals"
    text = closed["break_glass"]["statement"]
    given = [{"name": name, "content": str(signed(name, text, "chainops-break-glass").text)} for name in ("alice", "bob")]
    opened = gate(given)
    assert opened["verdict"]["open"] and opened["break_glass"]["used"] and opened["verdict"]["stage"] == "proposed"
    assert opened["verdict"]["break_glass"]["approvers"] == ["alice", "bob"]
    assert opened["proof"]["expires_height"] == 100
    assert not gate(given, reason="another")["verdict"]["open"]
    assert "required is 1; expected a number of people, 2 or more" in gate(given, 1)["msg"]
    assert "reason is empty" in gate(given, reason=" ")["msg"]
    del ask["payload"]
    assert "break_glass needs payload" in gate(given)["msg"]
