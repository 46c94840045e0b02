# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of real processes on loopback ports."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import statistics
import subprocess
import sys
import time

import pytest
from refnode import canon, keys, migrate
from refnode import release as release_module
from refnode.block import vote_message
from refnode_support import ADMIN, KEY, PACKAGE, Net, release, tree

from ansible_collections.chainops.validator.plugins.module_utils._chain.xai import XaiClient
from ansible_collections.chainops.validator.plugins.module_utils._governance import replay, witness

# Several processes each that wait for one another: not two of these at a time.
pytestmark = pytest.mark.xdist_group("networks")


@pytest.fixture
def one(tmp_path):
    return release(tmp_path / "release-1", "1.0.0", 1)


@pytest.fixture
def two(tmp_path):
    return release(tmp_path / "release-2", "2.0.0", 2)


@pytest.fixture
def net(tmp_path):
    with Net(tmp_path / "net") as made:
        yield made


def started(net, where, **env):
    for node in net.nodes:
        node.start(where, wait=False, **env)
    net.at(2)
    return net


def test_a_network_lives_through_a_kill(net, one):
    started(net, one)
    first, victim = net.nodes[0], net.nodes[3]
    token = first.token()
    sent = []
    for number in range(6):
        entry = net.members.transfer(number % 3, number // 3)
        status, body = net.nodes[number % 4].send(entry, **token)  # a token of one node is good on every other
        assert status == 200, body
        sent.append(body["txid"])
    victim.stop(signal.SIGKILL)
    down_at = first.height
    net.at(down_at + 4, nodes=net.nodes[:3])
    victim.start(one)
    tip = first.height
    victim.wait(lambda: victim.height >= tip, 30, "catches up")
    net.at(tip + 6)
    assert net.agree() > tip
    for txid in sent:
        assert {node.get(f"/transaction/{txid}")["block"] for node in net.nodes} == {first.get(f"/transaction/{txid}")["block"]}
    address = net.members.identities[3]["address"]
    signed = {h: {s["address"] for s in first.get(f"/blocks/{h + 1}")["last_commit"]["signatures"]} for h in range(1, tip + 5)}
    assert all(len(signers) >= 3 for signers in signed.values())
    missed = [h for h, signers in signed.items() if address not in signers and h not in (1, 2, 3)]  # it may start last
    assert missed and all(down_at <= h <= tip + 1 for h in missed), (missed, down_at, tip)
    others = {i["address"] for i in net.members.identities[:3]}
    short = [h for h, signers in signed.items() if h not in (1, 2, 3) and not others <= signers]
    assert len(short) <= 1, f"a node that was up is counted missing at {short}"  # (one may be late once, where cores are few)
    for node in net.nodes:
        assert node.get("/finality/status")["equivocations"] == []


def test_every_validator_signs_every_block_when_nothing_happens(net, one):
    started(net, one)
    net.at(15)
    signed = [len(net.nodes[0].get(f"/blocks/{height}")["last_commit"]["signatures"]) for height in range(6, 15)]
    assert min(signed) >= 3 and signed.count(4) >= 8, signed  # (one may be late once, where cores are few)
    stamps = [net.nodes[0].get(f"/blocks/{h}")["timestamp"] for h in range(5, 15)]
    assert statistics.median(later - stamp for stamp, later in zip(stamps, stamps[1:])) < 1.0  # asked for 0.4 s


def test_from_release_1_to_2_one_by_one(net, one, two):
    started(net, one)
    for position, node in enumerate(net.nodes):
        node.stop()
        if position == 2:  # the compatibility flag: release 2 on the old format
            node.start(two, XAI_STORAGE_COMPAT="1")
            assert node.get("/version")["storage_level"] == 1
        else:
            refused = subprocess.run(
                [sys.executable, "-m", "refnode", "--data-dir", str(node.data)],
                env={"PYTHONPATH": str(two / "lib")},
                capture_output=True,
                text=True,
            )
            assert refused.returncode == 1 and "run bin/migrate" in refused.stderr
            moved = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "import sys; from refnode.migrate import main; sys.exit(main(sys.argv[1:]))",
                    "--data-dir",
                    str(node.data),
                    "--to",
                    "2",
                ],
                env={"PYTHONPATH": str(two / "lib")},
                capture_output=True,
                text=True,
            )
            assert moved.returncode == 0 and json.loads(moved.stdout)["changed"], moved.stderr
            node.start(two)
            assert node.get("/version")["storage_level"] == 2
        assert node.get("/version")["version"] == "2.0.0"
        tip = max(n.height for n in net.nodes)
        net.at(tip + 2)
        status, body = node.send(net.members.transfer(0, position))
        assert status == 200, body
    net.at(net.nodes[0].height + 2)
    net.agree()
    node = net.nodes[0]  # and back
    node.stop()
    refused = subprocess.run(
        [sys.executable, "-m", "refnode", "--data-dir", str(node.data)],
        env={"PYTHONPATH": str(one / "lib")},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1 and "understands up to level 1" in refused.stderr
    migrate.run(str(node.data), 1)
    node.start(one)
    net.at(max(n.height for n in net.nodes) + 3)
    net.agree()
    assert all(n.get("/finality/status")["equivocations"] == [] for n in net.nodes)


def test_a_stalling_release_says_healthy_and_does_not_follow(net, one, tmp_path):
    bad = release(tmp_path / "bad", "2.0.1", 2, {"stall": True})
    started(net, one)
    node = net.nodes[1]
    node.stop()
    stuck = node.data
    node.start(bad, XAI_STORAGE_COMPAT="1")
    height = node.height
    others = [n for n in net.nodes if n is not node]
    net.at(height + 6, nodes=others)
    assert node.height == height
    status, body, _headers = node.call("GET", "/health")
    assert (status, body["status"]) == (200, "healthy")
    assert node.get("/version")["version"] == "2.0.1"
    node.stop()
    node.start(one)  # put back
    net.at(others[0].height + 2)
    net.agree()
    assert stuck == node.data


def test_it_stops_cleanly_and_quickly_and_finishes_what_it_began(net, one):
    started(net, one)
    node = net.nodes[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = pool.submit(node.call, "GET", "/stats?delay_ms=1500")
        time.sleep(0.4)
        began = time.monotonic()
        seconds = node.stop(signal.SIGINT)
        status, body, _headers = long.result()
    assert status == 200 and body["chain_height"] > 0
    assert 0.8 < seconds < 3 and time.monotonic() - began < 3
    assert node.popen.returncode == 0
    idle = net.nodes[1]
    assert idle.stop(signal.SIGTERM) < 0.5
    assert canon.read_json(str(idle.data / "checksum.json"))["height"] > 0
    assert (idle.data / "node.lock").read_bytes() == b""


def test_accepted_means_relayed(net, one):
    """A transaction answered with 200 survives the immediate death of the node that took it."""
    started(net, one)
    for number, node in enumerate(net.nodes[:3]):
        entry = net.members.transfer(number, 0)
        assert node.send(entry)[0] == 200
        node.popen.kill()
        node.popen.wait()
        other = net.nodes[3]
        assert other.get(f"/transaction/{entry['txid']}")["found"]
        node.start(one)
        other.wait(lambda entry=entry: "block" in other.get(f"/transaction/{entry['txid']}"), 20, "includes it")
        net.at(other.height + 1)


def test_what_is_pending_is_shown_whole_by_all_who_hold_it(net, one):
    started(net, one)
    for node in net.nodes[2:]:  # two of four make no block
        node.stop(signal.SIGKILL)
    entries = [
        net.members.governance(0, 0, "governance_vote", vote="yes", voting_power=20.0),
        net.members.transfer(1, 0),
    ]
    for entry in entries:
        assert net.nodes[0].send(entry)[0] == 200
    for node in net.nodes[:2]:
        node.wait(lambda node=node: node.get("/transactions")["count"] == 2, 15, "holds both")
        with XaiClient(node.url) as client:
            assert list(client.pending_transactions()) == entries
        assert node.get("/transactions?limit=1&offset=1")["transactions"] == entries[1:]
        assert node.call("GET", "/transactions?limit=0")[0] == 400
    book = witness.Book()
    readers = {str(node.number): node.url for node in net.nodes[:3]}
    with witness.Watch(readers, XaiClient, book, patience=20.0) as watch:
        assert [text.partition(" ")[0] for text in watch.silent()] == ["3"]
    for node in net.nodes[2:]:
        node.start(one, wait=False)
    with XaiClient(net.nodes[1].url) as client:
        net.nodes[1].wait(lambda: client.pending_transactions() == (), 30, "has them in a block")
        height = client.transaction(entries[0]["txid"])["height"]
        (vote,) = replay.extract(client.block(height))
        sightings, contents = book.on(client.block_hash(0))
    assert vote.tx == entries[0] == contents[vote.sha256]
    assert witness.Index(sightings, readers.values()).witnesses(vote) == 2
    assert {sighting.node for sighting in sightings} == {i["address"].lower() for i in net.members.identities[:2]}


def test_writes_are_guarded(net, one):
    started(net, one)
    node = net.nodes[0]
    entry = net.members.transfer(0, 0)
    token = node.token()
    assert node.send(entry, X_API_Key=KEY)[0] == 403
    assert node.send(entry, **{**token, "X_CSRF_Token": token["X_CSRF_Token"][:-1] + "0"})[0] in (200, 403)
    without = {k: v for k, v in token.items() if k != "X_API_Key"}
    status, body = node.send(net.members.transfer(1, 0), **without)
    assert (status, body["code"]) == (401, "unauthorized")
    status, body = node.send({**net.members.transfer(1, 0), "amount": 5}, **token)
    assert (status, body["code"]) == (400, "txid_mismatch")
    first = net.members.transfer(2, 0)
    assert node.send(first, **token)[0] == 200
    for again in (first, net.members.transfer(2, 0, 0.25)):
        status, body = net.nodes[2].send(again, **token)
        assert (status, body["code"]) == (400, "transaction_rejected"), body
    status, body = node.send(net.members.transfer(3, 0, timestamp=1.0), **token)
    assert (status, body["code"]) == (400, "stale_timestamp")
    status, body = node.send(net.members.transfer(3, 0, timestamp=time.time() + 999), **token)
    assert (status, body["code"]) == (400, "future_timestamp")
    bad = net.members.governance(3, 0, "governance_proposal", title="no description")
    status, body = node.send(bad, **token)
    assert (status, body["code"]) == (400, "invalid_metadata")
    admin = {**token, "X_Admin_Token": ADMIN}
    assert node.call("POST", "/admin/emergency/pause", {"reason": "drain"}, **token)[0] == 401
    assert node.call("POST", "/admin/emergency/pause", {"reason": "drain"}, **admin)[:2] == (
        200,
        {"success": True, "paused": True, "reason": "drain"},
    )
    status, body = node.send(net.members.transfer(4, 0), **token)
    assert (status, body["code"]) == (423, "paused")
    node.stop()
    node.start(one)
    assert node.call("GET", "/admin/emergency/status", X_Admin_Token=ADMIN)[1]["is_paused"] is True
    assert node.call("POST", "/admin/emergency/unpause", {}, **admin)[0] == 200
    assert node.send(net.members.transfer(4, 0), **token)[0] == 200


def test_an_observer_follows_and_serves(net, one, two):
    started(net, one)
    observer = net.observer()
    net.nodes.append(observer)
    observer.start(two, "--no-mining")
    net.at(net.nodes[0].height + 2)
    net.agree()
    status = observer.get("/finality/status")
    assert status["validator_address"] is None and observer.get("/stats")["is_mining"] is False
    known = {v["address"] for v in observer.get("/finality/validators")["validators"]}
    assert json.loads((observer.data / "node_identity.json").read_bytes())["address"] not in known
    assert observer.get("/peers?verbose=true")["connected_total"] == 4
    person = keys.new_account()["address"]
    code, body, _headers = observer.call("POST", "/faucet/claim", {"address": person}, X_API_Key=KEY)
    assert code == 200, body
    observer.wait(lambda: observer.get(f"/balance/{person}")["balance"] == 16.0, 15, "sees the faucet's coins")
    assert observer.send(net.members.transfer(0, 0))[0] == 200


def test_governance_over_the_network(net, one):
    started(net, one)
    node = net.nodes[1]
    token = node.token()

    def send(sender, nonce, kind, **metadata):
        code, body = node.send(net.members.governance(sender, nonce, kind, **metadata), **token)
        assert code == 200, body

    payload = {"feature_name": "smart_contracts", "enabled": True}
    send(0, 0, "governance_proposal", title="t", description="d", proposal_type="feature_activation", proposal_payload=payload)
    for voter in range(5):
        send(voter, 1 if voter == 0 else 0, "governance_vote", vote="yes", voting_power=20)
        send(voter, 2 if voter == 0 else 1, "code_review", approved=True, comments="", voting_power=20)
        send(voter, 3 if voter == 0 else 2, "implementation_vote", approved=True)
    assert not node.get("/contracts/governance/status")["governance_enabled"]
    send(5, 0, "proposal_execution", proposal_payload=payload)
    for each in net.nodes:
        each.wait(lambda each=each: each.get("/contracts/governance/status")["governance_enabled"], 15, "activates the feature")
    assert node.call("GET", "/governance/proposals")[0] == 404
    restarted = net.nodes[2]
    restarted.stop(signal.SIGKILL)
    restarted.start(one)
    assert restarted.get("/contracts/governance/status")["governance_enabled"]


def test_a_key_that_signs_twice_is_noticed_by_all(net, one):
    started(net, one)
    culprit = net.members.identities[3]
    net.nodes[3].stop()
    height = net.nodes[0].height + 3
    votes = []
    for hash_ in ("a" * 64, "b" * 64):
        message = vote_message(net.members.genesis.chain_id, height, 0, 2, hash_)
        votes.append(
            {
                "type": "vote",
                "height": height,
                "round": 0,
                "step": 2,
                "block_hash": hash_,
                "address": culprit["address"],
                "signature": keys.ed_sign(culprit["private_key"], message),
            }
        )
    net.at(height - 1, nodes=net.nodes[:3])
    genesis_hash = net.nodes[0].get("/version")["genesis_hash"]
    for node, vote in zip(net.nodes[:2], votes):  # each of two peers sees one half
        node.call("POST", "/p2p/messages", {"genesis_hash": genesis_hash, "height": 0, "messages": [vote]})
    net.nodes[0].call("POST", "/p2p/messages", {"genesis_hash": genesis_hash, "height": 0, "messages": [votes[1]]})
    for node in net.nodes[:3]:
        node.wait(lambda node=node: len(node.get("/finality/status")["equivocations"]) == 1, 10, "notices")
        found = node.get("/finality/status")["equivocations"][0]
        assert found["address"] == culprit["address"] and sorted(found["hashes"]) == ["a" * 64, "b" * 64] and found["step"] == 2
        assert "xai_validator_double_sign_events_total 1" in node.call("GET", "/metrics")[1]
    node = net.nodes[0]
    node.stop(signal.SIGKILL)
    node.start(one)
    assert len(node.get("/finality/status")["equivocations"]) == 1  # slashing.db


def test_a_validator_without_record_does_not_sign_what_it_may_have_signed(net, one):
    started(net, one)
    node = net.nodes[2]
    node.stop()
    for name in list(tree(node.data)):
        if name not in ("genesis.json", "node_identity.json"):
            (node.data / name).unlink()
    net.at(node_height := max(n.height for n in net.nodes if n is not node) + 2, nodes=[n for n in net.nodes if n is not node])
    node.start(one)
    net.at(node_height + 5)
    net.agree()
    assert all(n.get("/finality/status")["equivocations"] == [] for n in net.nodes)
    # (not each block has all four: three are enough, and the fourth may come a moment after)
    first = net.nodes[0]
    signed = [first.get(f"/blocks/{height}")["last_commit"]["signatures"] for height in range(node_height, first.height)]
    assert max(map(len, signed)) == 4


@pytest.mark.parametrize(
    ("ways", "check"),
    [
        ({"refuse_health": True}, lambda n, net: n.call("GET", "/health")[0] == 503),
        ({"no_metrics": True}, lambda n, net: n.call("GET", "/metrics")[0] == 404),
        ({"slow": 700}, lambda n, net: _seconds(lambda: n.get("/stats")) > 0.6),
        ({"errors": 50}, lambda n, net: [n.call("GET", "/stats")[0] for _request in range(4)] == [200, 500] * 2),
        ({"fork": True}, lambda n, net: _forked(n, net)),
        ({"stall_at": 12}, lambda n, net: _stalls(n, net, 12)),
        ({"slow_stop": 2}, lambda n, net: n.stop() > 1.9),
        ({"leak": 20}, lambda n, net: _leaks(n)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_misbehaviour_on_demand(tmp_path, one, ways, check):
    bad = release(tmp_path / "bad", "1.0.1", 1, ways)
    with Net(tmp_path / "net") as net:
        for node in net.nodes[1:]:
            node.start(one, wait=False)
        net.nodes[0].start(bad)
        net.at(3, nodes=net.nodes[1:])
        assert check(net.nodes[0], net)
        assert net.nodes[1].get("/health")["status"] == "healthy"


def _seconds(call):
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _forked(node, net):
    net.at(4)
    return (
        all(node.get(f"/blocks/{h}")["hash"] != net.nodes[1].get(f"/blocks/{h}")["hash"] for h in (2, 3))
        and node.get("/blocks/3")["previous_hash"] == node.get("/blocks/2")["hash"]
    )


def _stalls(node, net, height):
    net.at(height + 5, nodes=net.nodes[1:])
    return node.height == height and node.get("/health")["status"] == "healthy"


def _memory(node):
    lines = node.call("GET", "/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith("process_resident_memory_bytes")).split()[1])


def _leaks(node):
    before = _memory(node)
    node.wait(lambda: _memory(node) > before + 40 * 2**20, 10, "leaks")
    return True


def test_a_liar_changes_what_it_shows_and_nothing_else(tmp_path, one):
    liar = release(tmp_path / "liar", "1.0.1", 1, {"lie_governance": "flip"})
    with Net(tmp_path / "net") as net:
        net.nodes[0].start(liar, wait=False)
        for node in net.nodes[1:]:
            node.start(one, wait=False)
        net.at(2)
        entry = net.members.governance(0, 0, "governance_proposal", title="t", description="d", proposal_type="x")
        assert net.nodes[1].send(entry)[0] == 200
        vote = net.members.governance(0, 1, "governance_vote", vote="no", voting_power=5)
        assert net.nodes[1].send(vote)[0] == 200
        net.nodes[1].wait(lambda: "block" in net.nodes[1].get(f"/transaction/{vote['txid']}"), 15, "includes the vote")
        height = net.nodes[1].get(f"/transaction/{vote['txid']}")["block"]
        net.at(height + 1)

        def shown(node):
            return next(e["metadata"]["vote"] for e in node.get(f"/blocks/{height}")["transactions"] if e["txid"] == vote["txid"])

        assert (shown(net.nodes[0]), shown(net.nodes[1])) == ("yes", "no")
        assert net.nodes[0].get(f"/blocks/{height + 1}")["hash"] == net.nodes[1].get(f"/blocks/{height + 1}")["hash"]


def test_die_at_start_and_unknown_switches(tmp_path, one):
    for switch, message in (("die_at_start", "told to die"), ("walk", "unknown misbehaviour")):
        done = subprocess.run(
            [sys.executable, "-m", "refnode", "--data-dir", str(tmp_path / "none")],
            env={"PYTHONPATH": str(one / "lib"), "REFNODE_MISBEHAVE": switch},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and message in done.stderr


def test_the_source_tree_itself_misbehaves_in_no_way():
    assert not (PACKAGE.parent.parent / "misbehave.json").exists() and release_module.INFO["id"] == "dev"
