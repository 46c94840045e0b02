# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What openapi_contract_info says of a real process: that keeps its contract, and that breaks it in every way that the gate must
catch. Only what the process answers is real here; nothing is patched."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from refnode_support import Net, release

from ansible_collections.chainops.validator.plugins.modules import openapi_contract_info

# Several processes each that wait for one another: not two of these at a time.
pytestmark = pytest.mark.xdist_group("networks")


def run(**arguments):
    environment = {**os.environ, **arguments.pop("environment", {})}
    done = subprocess.run(
        [sys.executable, "-m", openapi_contract_info.__name__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"generated": 0, **arguments}}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert done.stdout.strip().startswith("{"), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A chain of one validator that is long enough for an order to show, its node, and what it answered: everything is kept."""
    folder = tmp_path_factory.mktemp("contract")
    with Net(folder / "net", 1, accounts=2) as net:
        (node,) = net.nodes
        good = release(folder / "good", "1.0.0", 1)
        node.start(good, REFNODE_BLOCK_INTERVAL="0.1")
        net.at(3)
        transfer = net.members.transfer(0, 0)
        assert node.send(transfer)[0] == 200
        node.wait(lambda: node.height >= 12, 60, "is long enough")
        node.stop()
        node.start(good)
        asked = {"base_url": node.url, "parameters": {"txid": transfer["txid"]}}
        before = run(mode="record", generated=2, **asked)
        node.stop()
        yield folder, node, asked, before


@pytest.fixture
def replayed(chain, tmp_path):
    _folder, node, asked, before = chain

    def replay(misbehave=None, **more):
        node.start(release(tmp_path / "after", "1.0.0", 1, misbehave))
        return run(**{"mode": "replay", "witness": before["witness"], **asked, **more})

    yield replay
    if node.popen is not None and node.popen.poll() is None:
        node.stop()


def test_a_node_that_keeps_its_contract_is_a_pass_and_everything_counts(chain, replayed):
    before = chain[3]["verdict"]
    assert before["ok"], before["reasons"]
    assert before["exercised"] == before["operations"] > 15
    assert before["skipped"] == before["excused"] == before["failures"] == []
    for label, seen in before["coverage"].items():
        assert seen["found"] >= 1 and seen["generated"] >= 1, label
        assert (seen["absent"] == 1) == ("{" in label), label
    after = replayed(generated=2)
    assert after["verdict"]["ok"], after["verdict"]["reasons"]
    assert after["changed"] is False


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("rename", "GET /stats: $.peers is gone"),
        ("null", "GET /stats: $.difficulty can be null now; it was integer"),
        ("empty", "GET /blocks/{index}: /blocks/999999999999: status 200 now; it was 404"),
        ("yes", "GET /health: $.status is gone"),
        ("order", "GET /blocks: $.blocks is in rising order by index now; it was in falling order"),
    ],
)
def test_the_gate_fails_on(replayed, way, words):
    verdict = replayed({"break_contract": way})["verdict"]
    assert not verdict["ok"] and words in verdict["differences"], verdict["reasons"]


@pytest.mark.parametrize("generated", [0, 2])
def test_a_node_that_says_yes_to_everything_is_no_pass_without_a_witness_either(replayed, generated):
    verdict = replayed({"break_contract": "yes"}, mode="check", generated=generated)["verdict"]
    assert not verdict["ok"] and any("its answers prove nothing" in reason for reason in verdict["reasons"])


def test_a_renamed_field_that_the_proposal_declares_is_let_through_and_told(replayed):
    declared = ["GET /stats removed $.peers", "GET /nothing removed operation"]
    verdict = replayed({"break_contract": "rename"}, allowed_changes=declared)["verdict"]
    assert verdict["allowed"] == ["GET /stats: $.peers is gone"] and verdict["unseen"] == ["GET /nothing removed operation"]
    assert verdict["differences"] == []


def test_a_node_that_limits_the_rate_is_waited_for_and_what_there_is_no_time_for_is_no_pass(replayed):
    verdict = replayed(mode="check", rate_limit=1, time_limit=5)["verdict"]
    assert not verdict["ok"]
    assert any("seconds for all requests were up" in one["reason"] for one in verdict["skipped"])


def test_api_base_url_is_where_the_api_is_unless_told_otherwise(chain, replayed):
    _folder, node, asked, _before = chain
    replayed(mode="check")
    environment = {"API_BASE_URL": node.url}
    assert run(parameters=asked["parameters"], environment=environment)["verdict"]["ok"]
    answer = run(base_url="http://127.0.0.1:1", environment=environment)
    assert answer["failed"] and "127.0.0.1:1" in answer["msg"]
    assert "base_url" in run(environment={"API_BASE_URL": ""})["msg"]
