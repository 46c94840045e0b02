# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import threading
import urllib.parse

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain import registry, xai
from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import FeatureState
from ansible_collections.chainops.validator.plugins.module_utils._core import clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError, InputError, Unreachable
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._chain import fakes
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._core import hostile


class FakeClock(clock.Clock):
    """Time passes only while sleeping."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def ticking():
    return FakeClock()


def client(node, ticking=None, **options):
    return xai.XaiClient(node.url, timeout=5, clock=ticking or FakeClock(), **options)


def test_status_of_an_xai_node_tells_only_what_the_node_tells():
    with fakes.serving(fakes.xai(tip=5)) as node, client(node) as it:
        status = it.status()
    assert (status.height, status.tip_hash, status.tip_time) == (5, fakes.hash_of(5), 1700000005.0)
    assert (status.version, status.release_id, status.chain_id) == (None, None, None)
    assert status.genesis_hash == fakes.hash_of(0)
    assert status.address == "xaitest1me"
    assert (status.peers_configured, status.peers_live, status.mempool) == (3, 2, 2)
    assert (status.paused, status.mining, status.healthy, status.issues) == (None, True, True, ())


def test_status_of_a_reference_node():
    with fakes.serving(fakes.reference(tip=7, version="2.0.0")) as node, client(node) as it:
        status = it.status()
    assert (status.height, status.version, status.release_id, status.chain_id) == (7, "2.0.0", "2.0.0", "devnet-1")
    assert (status.address, status.genesis_hash) == ("TXAIa", fakes.hash_of(0))
    assert "/blocks/0" not in node.paths()


def test_version_is_asked_anew_so_that_an_upgrade_shows():
    with fakes.serving(fakes.reference(version="1.0.0")) as node, client(node) as it:
        assert it.status().version == "1.0.0"
        node.routes["/version"]["version"] = "2.0.0"
        assert it.status().version == "2.0.0"


@pytest.mark.parametrize("kind", [fakes.xai, fakes.reference])
def test_a_node_tells_of_one_feature(kind):
    path = "/contracts/governance/status"
    with fakes.serving(kind()) as node, client(node) as it:
        assert it.feature("smart_contracts") == FeatureState("smart_contracts", False, False, False)
        node.routes[path].update(config_enabled=True, governance_enabled=True, contract_manager_ready=True)
        assert it.feature("smart_contracts") == FeatureState("smart_contracts", True, True, True)
        node.routes[path] = {"feature_name": "smart_contracts", "governance_enabled": True}
        assert it.feature("smart_contracts") == FeatureState("smart_contracts", True)
        asked = node.paths().count(path)
        assert it.feature("exchange") is None
        assert node.paths().count(path) == asked
        del node.routes[path]
        assert it.feature("smart_contracts") is None


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"feature_name": "smart_contracts"},
        {"feature_name": "smart_contracts", "governance_enabled": None},
        {"feature_name": "smart_contracts", "governance_enabled": "true"},
        {"feature_name": "smart_contracts", "governance_enabled": 1},
        {"feature_name": "exchange", "governance_enabled": True},
        {"governance_enabled": True},
        {"feature_name": "smart_contracts", "governance_enabled": True, "config_enabled": "yes"},
        {
            "feature_name": "smart_contracts",
            "governance_enabled": False,
            "config_enabled": True,
            "contract_manager_ready": True,
        },
        (503, {"error": "busy"}),
        (200, "text/html", b"<html>all fine</html>"),
        (
            200,
            "application/json",
            b'{"feature_name": "smart_contracts", "governance_enabled": false, "governance_enabled": true}',
        ),
    ],
)
def test_a_feature_answer_that_is_nonsense_is_refused(answer):
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/contracts/governance/status"] = answer
        with pytest.raises(HttpError):
            it.feature("smart_contracts")


def test_an_old_xai_node_has_no_finality_routes():
    routes = fakes.xai()
    del routes["/finality/status"], routes["/finality/validators"]
    with fakes.serving(routes) as node, client(node) as it:
        assert it.validators() == ()
        assert it.final_height() is None
        status = it.status()
        assert (status.address, status.issues) == (None, ())


def test_an_xai_node_alone_in_its_own_set_is_no_set_and_its_finality_no_finality():
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        assert it.validators() == ()
        assert it.final_height() is None


def test_an_xai_node_with_a_configured_set():
    routes = fakes.xai()
    routes["/finality/validators"]["validators"].append({"address": "xaitest1you", "public_key": "cd", "voting_power": 3})
    routes["/finality/status"] = {"total_validators": 2, "highest_finalized_height": 4}
    with fakes.serving(routes) as node, client(node) as it:
        assert [(v.address, v.power) for v in it.validators()] == [("xaitest1me", 1.0), ("xaitest1you", 3.0)]
        assert it.final_height() == 4
        assert it.status().address is None
        node.routes["/stats"]["miner_address"] = "xaitest1YOU"
        assert it.status().address == "xaitest1you"


def test_validators_and_finality_of_a_reference_node():
    with fakes.serving(fakes.reference(tip=9)) as node, client(node) as it:
        assert [v.power for v in it.validators()] == [10.0] * 4
        assert it.final_height() == 9
        assert it.equivocations() == ()
        node.routes["/finality/status"]["equivocations"] = [{"address": "TXAIb", "height": 3}]
        assert it.equivocations()[0]["address"] == "TXAIb"


@pytest.mark.parametrize(
    "entry",
    [
        {"address": "a", "voting_power": -1},
        {"address": "a", "voting_power": "10"},
        {"address": "a", "voting_power": True},
        {"address": "", "voting_power": 1},
        {"voting_power": 1},
        "a",
    ],
)
def test_a_validator_set_that_is_nonsense_is_refused(entry):
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/finality/validators"] = {"validators": [entry]}
        with pytest.raises(HttpError):
            it.validators()


def test_a_validator_listed_twice_is_refused():
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/finality/validators"]["validators"] *= 2
        with pytest.raises(HttpError, match="twice"):
            it.validators()


def test_block_of_a_reference_node_carries_who_signed_the_one_before():
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        block = it.block(4)
    assert block.signers == fakes.VALIDATORS
    assert (block.height, block.hash, block.previous_hash) == (4, fakes.hash_of(4), fakes.hash_of(3))
    assert block.transactions[0]["txid"].endswith("4")
    assert block.raw["difficulty"] == 0


def test_block_of_an_xai_node_has_no_signers_and_names_the_key_that_made_it():
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        assert it.block(4).signers is None
        assert it.block(4).proposer == "TXAIminer"
        node.routes["/blocks/3"]["miner_pubkey"] = "02ab"
        assert it.block(3).proposer == "02ab"


def paged(node, tips):
    """``GET /blocks`` as nodes answer it; the tip moves on to the next of ``tips`` with every page."""
    left = list(tips)

    def serve(headers):
        asked = {name: int(value) for name, value in urllib.parse.parse_qsl(headers[":query"])}
        tip = left.pop(0) if len(left) > 1 else left[0]
        top = tip - asked["offset"]
        listed = [node.routes[f"/blocks/{height}"] for height in range(top, max(top - asked["limit"], -1), -1)]
        return {"total": tip + 1, **asked, "blocks": listed}

    return serve


@pytest.mark.parametrize(
    ("first", "last", "tips", "pages", "alone"),
    [
        (0, 20, [20], 3, 0),
        (3, 3, [20], 1, 1),  # the first page is asked for as if the range ended at the tip
        (0, 20, [22], 4, 1),
        (0, 20, [20, 21, 22, 23], 3, 2),
        (0, 20, [25, 20], 5, 1),  # a tip that comes down
        (9, 8, [20], 0, 0),
    ],
)
def test_blocks_of_a_reference_node_come_in_pages(monkeypatch, first, last, tips, pages, alone):
    monkeypatch.setattr(xai, "PAGE", 8)
    with fakes.serving(fakes.reference(tip=25)) as node, client(node) as it:
        node.routes["/blocks"] = paged(node, tips)
        got = list(it.blocks(first, last))
        assert got == [it.block(height) for height in range(first, last + 1)]
        singles = node.paths()[: -len(got) or None]
    assert (singles.count("/blocks"), sum(path.startswith("/blocks/") for path in singles)) == (pages, alone)


def test_blocks_of_an_xai_node_come_one_by_one():
    with fakes.serving(fakes.xai(tip=5)) as node, client(node) as it:
        assert [block.height for block in it.blocks(1, 5)] == [1, 2, 3, 4, 5]
        assert "/blocks" not in node.paths()


@pytest.mark.parametrize("broken", [None, {"total": 6, "blocks": [3]}, {"total": 6}, {"total": "6", "blocks": []}])
def test_a_page_that_is_none_is_refused(broken):
    with fakes.serving(fakes.reference(tip=5)) as node, client(node) as it:
        node.routes["/blocks"] = broken
        with pytest.raises(HttpError):
            list(it.blocks(0, 5))


def test_a_page_with_headers_only_is_refused():
    with fakes.serving(fakes.reference(tip=5)) as node, client(node) as it:
        node.routes["/blocks"] = {"total": 6, "blocks": [{**node.routes["/blocks/0"], "transactions": None}]}
        with pytest.raises(HttpError, match="header only"):
            list(it.blocks(0, 5))


def test_a_height_that_is_not_there_is_a_404():
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        node.routes["/blocks/6"] = (404, {"error": "Block not found"})
        with pytest.raises(HttpError) as caught:
            it.block(6)
    assert caught.value.fields["status"] == 404


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ({"index": 3}, "instead of 4"),
        ({"index": "4"}, "not a whole number"),
        ({"transactions": None}, "header only"),
        ({"transactions": ["x"]}, "header only"),
        ({"hash": ""}, "no hash"),
        ({"last_commit": {"signatures": "all"}}, "last_commit"),
    ],
)
def test_a_block_that_is_not_what_was_asked_for_is_refused(broken, word):
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/blocks/4"] = {**node.routes["/blocks/4"], **broken}
        with pytest.raises(HttpError, match=word):
            it.block(4)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<html>hello</html>"),
        (200, "application/json", b'{"block_number": 5, "block_number": 6, "hash": "a"}'),
        (200, "application/json", b'{"block_number": NaN, "hash": "a"}'),
        (200, "application/json", b'{"block_number": 5'),
        (200, "application/json", b"[]"),
        (500, "text/html", b"<title>500</title>"),
        (302, "text/html", b""),
        fakes.HTML_404,
    ],
)
def test_a_tip_that_cannot_be_read_is_an_error_and_never_a_guess(answer):
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        node.routes["/block/latest"] = answer
        with pytest.raises(HttpError):
            it.status()


def test_what_else_a_node_cannot_say_is_an_issue():
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/health"] = (500, "text/html", b"<title>500</title>")
        node.routes["/stats"] = (200, "application/json", b"{")
        node.routes["/peers"] = fakes.HTML_404
        status = it.status()
    assert (status.height, status.healthy, status.mempool, status.mining, status.peers_live) == (5, False, None, None, None)
    assert any("/health answered 500" in issue for issue in status.issues)
    assert any("/stats" in issue for issue in status.issues)


def test_a_degraded_node_names_its_issues():
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        node.routes["/health"] = (503, {"status": "degraded", "services": {"issues": ["no_connected_peers"]}, "error": "x"})
        status = it.status()
    assert (status.healthy, status.issues) == (False, ("no_connected_peers", "x"))


def test_unreachable_is_unreachable():
    with fakes.serving({}) as node:
        url = node.url
    with pytest.raises(Unreachable):
        xai.XaiClient(url, timeout=2).status()


def test_a_wrong_version_answer_is_not_taken_for_an_xai_node():
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        node.routes["/version"] = (500, "text/plain", b"starting")
        with pytest.raises(HttpError, match="500"):
            it.signature_scheme()
        del node.routes["/version"]
        assert it.signature_scheme() == "xai-legacy"
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        assert it.signature_scheme() == "full-v1"


def test_one_path_of_an_xai_node_is_asked_once_a_second(ticking):
    with fakes.serving(fakes.xai()) as node, client(node, ticking) as it:
        for _ in range(4):
            it.status()
        assert 2.5 <= sum(ticking.slept) <= 4.0
        before = ticking.now
        for height in range(5):
            it.block(height)
        assert ticking.now == before  # other paths are other budgets; 0 was asked long ago
    assert node.paths().count("/version") == 1


def test_a_reference_node_is_asked_as_often_as_one_likes(ticking):
    with fakes.serving(fakes.reference()) as node, client(node, ticking) as it:
        for _ in range(10):
            it.status()
    assert ticking.slept == []


def test_pace_forgets_old_paths(ticking):
    pace = xai.Pace(ticking)
    for number in range(2000):
        pace.wait(f"/blocks/{number}", 1.0)
        ticking.now += 0.1
    assert len(pace._last) <= 513


def test_429_is_waited_out(ticking):
    answers = [(429, {"error": "Rate limit exceeded"}), (429, {"error": "x", "retry_after": 7})]
    with fakes.serving(fakes.xai()) as node, client(node, ticking) as it:
        node.routes["/address/A/nonce"] = lambda _headers: answers.pop(0) if answers else {"next_nonce": 4}
        assert it.nonce("A") == 4
    assert ticking.slept == [2.0, 7.0]


def test_429_for_longer_than_our_patience_is_said(ticking):
    with fakes.serving(fakes.xai()) as node, client(node, ticking) as it:
        node.routes["/address/A/nonce"] = (429, {"error": "Rate limit exceeded", "retry_after": 60})
        with pytest.raises(HttpError, match="429"):
            it.nonce("A")
    assert sum(ticking.slept) <= 15


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"found": True, "block": 4, "confirmations": 2, "transaction": {}}, {"state": "included", "height": 4}),
        ({"found": True, "status": "pending"}, {"state": "pending", "height": None}),
        ((404, {"found": False, "error": "Transaction not found"}), None),
    ],
)
def test_transaction(answer, expected):
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        node.routes["/transaction/ab"] = answer
        assert it.transaction("ab") == expected


def held_by(pending, pages=None):
    """``GET /transactions`` of a node that holds these."""

    def answer(headers):
        asked = {name: int(value) for name, value in urllib.parse.parse_qsl(headers[":query"])}
        if pages is not None:
            pages.append((asked["offset"], asked["limit"]))
        shown = pending[asked["offset"] :][: asked["limit"]]
        return {"count": len(pending), **asked, "transactions": shown}

    return answer


@pytest.mark.parametrize("kind", [fakes.xai, fakes.reference])
def test_pending_transactions_come_whole(kind):
    held = [{"txid": "ab", "sender": "TXAIa", "metadata": {"type": "governance_vote", "vote": "yes"}}]
    with fakes.serving(kind()) as node, client(node) as it:
        assert it.pending_transactions() is None  # it has no such route
        node.routes["/transactions"] = held_by([])
        assert it.pending_transactions() == ()
        node.routes["/transactions"] = held_by(held)
        assert it.pending_transactions() == tuple(held)


@pytest.mark.parametrize(
    ("held", "asked", "got"),
    [
        (499, [(0, 500)], 499),
        (500, [(0, 500), (500, 500)], 500),
        (1200, [(0, 500), (500, 500), (1000, 500)], 1200),
        (9000, [(0, 500), (500, 500), (1000, 500), (1500, 500)], 2000),
    ],
)
def test_pending_transactions_come_in_pages_and_not_without_end(held, asked, got):
    pages = []
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/transactions"] = held_by([{"txid": f"{number:064x}"} for number in range(held)], pages)
        found = it.pending_transactions()
    assert pages == asked
    assert [tx["txid"] for tx in found] == [f"{number:064x}" for number in range(got)]


def test_a_node_that_shows_the_same_page_for_ever_is_not_asked_for_ever():
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/transactions"] = {"transactions": [{"txid": f"{number:064x}"} for number in range(500)]}
        assert len(it.pending_transactions()) == 500
        assert node.paths().count("/transactions") == 2


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"transactions": "none"},
        {"transactions": ["ab"]},
        {"transactions": [{"sender": "a"}]},
        [],
        (500, {}),
        (200, "text/html", b"<p>"),
    ],
)
def test_pending_transactions_that_are_none_are_an_error(answer):
    with fakes.serving(fakes.reference()) as node, client(node) as it:
        node.routes["/transactions"] = answer
        with pytest.raises(HttpError):
            it.pending_transactions()


@pytest.mark.parametrize("answer", [fakes.HTML_404, (404, {"error": "no route"}), {"found": True}, (500, {"found": False})])
def test_a_transaction_answer_that_is_none_is_an_error(answer):
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        node.routes["/transaction/ab"] = answer
        with pytest.raises(HttpError):
            it.transaction("ab")


def guarded(tokens, txid="t1"):
    """A /send that wants the current CSRF token, the session's cookie and the key."""

    def send(headers):
        if headers.get("x-api-key") != "key":
            return (401, {"success": False, "error": "API key missing", "code": "unauthorized"})
        if headers.get("x-csrf-token") != tokens[0] or headers.get("cookie") != "xai_wallet_session=s.e-c_r=":
            return (403, {"error": "CSRF token validation failed"})
        return {"success": True, "txid": txid, "message": "ok"}

    return send


@pytest.fixture
def writable():
    tokens = ["tok1"]
    routes = fakes.xai()
    routes["POST /send"] = guarded(tokens)
    routes["/csrf-token"] = lambda _headers: {"csrf_token": tokens[0], "session_id": "sid"}
    with fakes.serving(routes) as node:
        node.headers["/csrf-token"] = {"Set-Cookie": "xai_wallet_session=s.e-c_r=; Secure; HttpOnly; Path=/; SameSite=Strict"}
        node.tokens = tokens
        yield node


def test_send_carries_key_token_and_cookie(writable):
    with client(writable, api_key="key") as it:
        assert it.send({"txid": "t1", "amount": 1.5}) == "t1"
    assert writable.seen[-1][2] == {"txid": "t1", "amount": 1.5}


def test_send_gets_a_new_token_after_a_restart(writable):
    with client(writable, api_key="key") as it:
        it.send({})
        writable.tokens[0] = "tok2"
        assert it.send({}) == "t1"
    assert writable.paths().count("POST /send") == 3


def test_send_is_not_repeated_when_a_handler_refuses(writable):
    with client(writable, api_key="key") as it:
        it.send({})
        writable.routes["POST /send"] = (403, {"success": False, "error": "limit", "code": "spend_limit_exceeded"})
        with pytest.raises(HttpError, match="spend_limit_exceeded"):
            it.send({})
    assert writable.paths().count("POST /send") == 2


@pytest.mark.parametrize("status", [400, 401, 423])
def test_refusals_keep_the_nodes_words(writable, status):
    writable.routes["POST /send"] = (status, {"success": False, "error": "because", "code": "why"})
    with client(writable, api_key="key") as it, pytest.raises(HttpError, match="because") as caught:
        it.send({})
    assert caught.value.fields["status"] == status


def test_another_txid_than_ours_is_an_error(writable):
    with client(writable, api_key="key") as it, pytest.raises(HttpError, match="whose txid is t2"):
        it.send({"txid": "t2"})


def test_the_key_is_in_no_error(writable):
    with client(writable, api_key="wrong-secret-key") as it, pytest.raises(HttpError) as caught:
        it.send({})
    assert "wrong-secret-key" not in str(caught.value.as_dict())


def admin_routes(log, mining=True):
    state = {"paused": False, "mining": mining}

    def post(path, check, change):
        def act(headers):
            if headers.get("x-admin-token") != "adm":
                return (401, {"code": "unauthorized", "error": "no"})
            log.append(path)
            if check and state["paused"]:
                return (423, {"code": "paused", "error": "paused"})
            state.update(change)
            return {"success": True}

        return act

    routes = fakes.xai()
    routes["/stats"] = lambda _headers: {"is_mining": state["mining"], "peers": 1}
    routes["/admin/emergency/status"] = lambda headers: (
        {"is_paused": state["paused"]} if headers.get("x-admin-token") == "adm" else (401, {"error": "no"})
    )
    routes["POST /admin/emergency/pause"] = post("pause", False, {"paused": True})
    routes["POST /admin/emergency/unpause"] = post("unpause", False, {"paused": False})
    routes["POST /admin/mining/enable"] = post("enable", True, {"mining": True})
    routes["POST /admin/mining/disable"] = post("disable", False, {"mining": False})
    return routes


def test_pause_and_back_in_the_order_the_node_wants():
    log = []
    with fakes.serving(admin_routes(log)) as node, client(node, admin_token="adm") as it:
        was_mining = it.pause("upgrade")
        assert (was_mining, it.paused(), it.status().mining) == (True, True, False)
        it.unpause("done", resume_mining=was_mining)
        assert (it.paused(), it.status().mining) == (False, True)
    assert log == ["pause", "disable", "unpause", "enable"]


def test_a_node_that_did_not_mine_is_not_made_to():
    log = []
    with fakes.serving(admin_routes(log, mining=False)) as node, client(node, admin_token="adm") as it:
        it.unpause("done", resume_mining=it.pause("upgrade"))
    assert log == ["pause", "unpause"]


def test_pause_is_unknown_without_the_token_and_asked_for_rarely(ticking):
    with fakes.serving(admin_routes([])) as node:
        with client(node) as it:
            assert it.paused() is None
            assert it.status().paused is None
        with client(node, ticking, admin_token="adm") as it:
            for _ in range(40):
                assert it.status().paused is False
    assert node.paths().count("/admin/emergency/status") <= 3


def test_double_signs_an_xai_node_counted():
    with fakes.serving(fakes.xai()) as node, client(node) as it:
        assert it.equivocations() == ()
        node.routes["/metrics"] = (200, "text/plain", b'xai_validator_double_sign_events_total{v="1"} 2.0\nother 1\n')
        assert it.equivocations() == ({"address": None, "count": 2},)
        node.routes["/metrics"] = fakes.HTML_404
        assert it.equivocations() == ()


def test_registry():
    adapter = registry.adapter("xai")
    assert adapter.name == "xai" and adapter.layout.stop_signal == "SIGINT"
    assert adapter.client("http://127.0.0.1:1").api_url == "http://127.0.0.1:1"
    with pytest.raises(InputError, match="known: xai"):
        registry.adapter("solana")
    with pytest.raises(InputError, match="http"):
        adapter.client("127.0.0.1:8545")


def told(tip, paths):
    """A hostile server's script for a good node with ``tip + 1`` blocks; ``paths`` are its exceptions."""

    def script(path):
        bare = path.partition("?")[0]
        if path in paths or bare in paths:
            return paths.get(path, paths.get(bare))
        return hostile.answer(json.dumps(fakes.xai(tip)[bare]).encode()) if bare in fakes.xai(tip) else missing()

    return script


def missing():
    return hostile.answer(b"nothing here", "404 Not Found")


def test_several_connections_give_the_same_blocks_in_order_and_no_more_than_that_many_at_once():
    with hostile.serving(told(70, {})) as node, xai.XaiClient(node.url, timeout=5, lanes=3) as it:
        assert [block.height for block in it.blocks(2, 70)] == list(range(2, 71))
        assert 1 <= node.most <= 3
        assert sorted(node.asked) == sorted(["/version", *(f"/blocks/{height}" for height in range(2, 71))])


@pytest.mark.parametrize("tips", [[60], [60, 63, 70]])
def test_several_connections_read_pages_of_a_reference_node(monkeypatch, tips):
    monkeypatch.setattr(xai, "PAGE", 8)
    with fakes.serving(fakes.reference(tip=70)) as node, client(node, lanes=4) as it:
        node.routes["/blocks"] = paged(node, tips)
        assert list(it.blocks(5, 60)) == [it.block(height) for height in range(5, 61)]


def test_a_failure_among_several_connections_comes_where_it_belongs():
    bad = {"/blocks/21": hostile.answer(b"<html>"), "/blocks/30": hostile.answer(b"{}"), "/blocks/40": [600.0]}
    with hostile.serving(told(60, bad)) as node, xai.XaiClient(node.url, timeout=2, lanes=4) as it:
        seen = []
        with pytest.raises(HttpError, match="blocks/21 is not valid JSON"):
            for block in it.blocks(0, 60):
                seen.append(block.height)
        assert seen == list(range(21))


def test_who_stops_reading_leaves_no_connection_behind():
    with hostile.serving(told(400, {})) as node:
        it = xai.XaiClient(node.url, timeout=2, lanes=4)
        blocks = it.blocks(0, 400)
        assert next(blocks).height == 0
        blocks.close()
        it.close()
        for thread in threading.enumerate():
            if thread.name.startswith(f"blocks of {node.url}"):
                thread.join(10)
                assert not thread.is_alive()
        while node.connections():  # the server has yet to see that they are closed
            threading.Event().wait(0.01)
        # What was asked for is bounded by what may be under way, not by the length of the chain.
        assert len(node.asked) < 1 + 4 * 4 * xai.ROW


def test_a_limit_that_one_of_several_connections_meets_is_waited_out():
    seen = []

    def script(path):
        seen.append(path)
        if path == "/blocks/17" and seen.count(path) == 1:
            return hostile.answer(b'{"error": "Rate limit exceeded", "retry_after": 0.1}', "429 Too Many Requests")
        return told(60, {})(path)

    with hostile.serving(script) as node, xai.XaiClient(node.url, timeout=2, lanes=4) as it:
        assert [block.height for block in it.blocks(0, 60)] == list(range(61))
        assert seen.count("/blocks/17") == 2


def test_the_pace_of_many_paths_is_kept_without_looking_through_all_of_them_each_time(ticking):
    pace = xai.Pace(ticking)
    for number in range(3000):
        pace.wait(f"/blocks/{number}", 1.0)
    assert ticking.slept == []
    pace.wait("/blocks/2999", 1.0)
    assert ticking.slept == [1.0]
    ticking.now += 60
    for number in range(20000):
        pace.wait(f"/other/{number}", 1.0)
        ticking.now += 1
    assert len(pace._last) < 7000
