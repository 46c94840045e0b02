# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What feature_activation_info says of a network of real processes: a toggle without a proposal, and an activation by one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from refnode_support import ADMIN, Net, release

from ansible_collections.chainops.validator.plugins.modules import feature_activation_info

pytest.importorskip("cryptography")

# Several processes each that wait for one another: not two of these at a time.
pytestmark = pytest.mark.xdist_group("networks")

PAYLOAD = {"feature_name": "smart_contracts", "enabled": True}


@pytest.fixture
def one(tmp_path):
    return release(tmp_path / "release-1", "1.0.0", 1)


@pytest.fixture
def net(tmp_path, one):
    with Net(tmp_path / "net", 3) as made:
        for node in made.nodes:
            node.start(one, wait=False)
        made.at(2)
        yield made


def look(net):
    nodes = [{"name": f"val{node.number}", "api_url": node.url} for node in net.nodes]
    asked = {
        "feature": "smart_contracts",
        "proposal_id": "p-1",
        "nodes": nodes,
        "readers": [{"name": node["name"], "url": node["api_url"]} for node in nodes],
    }
    done = subprocess.run(
        [sys.executable, "-m", feature_activation_info.__name__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": asked}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip().startswith("{"), done.stderr
    return json.loads(done.stdout)


def test_a_toggle_without_a_proposal_is_named_and_an_activation_is_followed(net, one):
    culprit = net.nodes[1]
    assert look(net)["verdict"]["inactive_everywhere"]
    status, _body, _headers = culprit.call(
        "POST", "/contracts/governance/feature", {"enabled": True, "reason": "try it"}, **culprit.token(), X_Admin_Token=ADMIN
    )
    assert status == 200
    seen = look(net)
    assert (seen["verdict"]["toggled_without_proposal"], seen["verdict"]["unknown"]) == (["val2"], [])
    assert not seen["verdict"]["inactive_everywhere"]
    assert [node["active"] for node in seen["nodes"]] == [False, True, False]
    culprit.stop()
    culprit.start(one)  # forgets it, as XAI does
    assert look(net)["verdict"]["inactive_everywhere"]

    token = net.nodes[0].token()

    def send(sender, nonce, kind, **metadata):
        code, body = net.nodes[0].send(net.members.governance(sender, nonce, kind, **metadata), **token)
        assert code == 200, body

    send(0, 0, "governance_proposal", title="t", description="d", proposal_type="feature_activation", proposal_payload=PAYLOAD)
    for voter in range(5):
        send(voter, 1 if voter == 0 else 0, "governance_vote", vote="yes", voting_power=20)
        send(voter, 2 if voter == 0 else 1, "code_review", approved=True, comments="", voting_power=20)
        send(voter, 3 if voter == 0 else 2, "implementation_vote", approved=True)
    # In one block with the votes, it might come before them, and execute nothing.
    net.at(max(node.height for node in net.nodes) + 2)
    send(5, 0, "proposal_execution", proposal_payload=PAYLOAD)
    send(5, 1, "rollback_change", original_proposal_id="p-1")
    for node in net.nodes:
        node.wait(lambda node=node: node.get("/contracts/governance/status")["governance_enabled"], 60, "activates the feature")
    net.at(max(node.height for node in net.nodes) + 2)
    seen = look(net)
    assert seen["verdict"]["active_everywhere"], seen["verdict"]
    assert [node["by"] for node in seen["nodes"]] == ["p-1"] * 3
    assert [(step["rolled_back"], step["in_effect"]) for step in seen["chain"]["executed"]] == [(True, True)]
    culprit.call(
        "POST", "/contracts/governance/feature", {"enabled": False, "reason": "off"}, **culprit.token(), X_Admin_Token=ADMIN
    )
    assert look(net)["verdict"]["not_followed"] == ["val2"]
