# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


def test_the_rollout_stopped_at_the_next_boundary(devnet):
    canary, *others = devnet.validators
    assert [turn["outcome"] for turn in canary.turns()] == ["committed"]
    assert canary.release() == devnet.digest("2.0.0")
    for host in others:
        assert host.turns() == []
        assert host.release() == devnet.digest("1.0.0")
        assert host.output("systemctl show --property NRestarts --value xai-node.service") == "0"


def test_it_says_who_withdrew_the_approval_and_which_host_was_spared(devnet):
    log = devnet.log("withdrawn")
    assert "rolled back at height" in log
    assert "who did not submit it" in log
    assert f"{devnet.validators[1].name} is not touched" in log


def test_people_were_told(devnet):
    told = devnet.gateways[0].output("cat /var/lib/webhook-sink/received.jsonl")
    assert "withdrawn" in told
    assert "failed" in told


def test_nobody_is_left_drained_and_the_network_goes_on(devnet, eventually):
    wanted = {host.name: "UP" for host in devnet.validators}.items()
    eventually(lambda: devnet.gateway_servers().items() >= wanted, "every server is up")
    assert devnet.equivocations() == []
    eventually(devnet.same_chain, "the mixed fleet is on one chain")
    assert not any(host.open_turn() for host in devnet.validators)
