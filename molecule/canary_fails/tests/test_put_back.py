# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


def test_every_host_runs_the_old_release_at_the_old_level(devnet):
    for host in devnet.validators:
        assert host.release() == devnet.digest("1.0.0")
        assert host.api_get("/version")["version"] == "1.0.0"
        assert host.json_file("/var/lib/xai/data/schema.json") == {"level": 1}
        assert not host.open_turn()


def test_staging_had_refused_it_already(devnet):
    log = devnet.log("stage")
    assert "Wait until it has found peers and reached the network" in log
    assert "not yet by 2" in log


def test_the_canary_and_only_the_canary_was_touched(devnet):
    canary, *others = devnet.validators
    assert [turn["outcome"] for turn in canary.turns()] == ["put_back"]
    for host in others:
        assert host.turns() == []
        # The same process since the devnet was made.
        assert host.output("systemctl show --property NRestarts --value xai-node.service") == "0"


def test_nobody_signed_twice_and_the_canary_follows_again(devnet, eventually):
    canary = devnet.validators[0]
    assert devnet.equivocations() == []
    eventually(devnet.same_chain, "the canary is on the network's chain")
    before = canary.api_get("/block/latest?summary=1")["block_number"]
    eventually(lambda: canary.api_get("/block/latest?summary=1")["block_number"] > before, "the canary follows the chain")


def test_every_server_is_back_in_the_gateway(devnet, eventually):
    wanted = {host.name: "UP" for host in devnet.validators}.items()
    eventually(lambda: devnet.gateway_servers().items() >= wanted, "every server is up")


def test_people_were_told(devnet):
    told = devnet.gateways[0].output("cat /var/lib/webhook-sink/received.jsonl")
    assert "upgrade-2.0.1" in told
    assert "failed" in told
