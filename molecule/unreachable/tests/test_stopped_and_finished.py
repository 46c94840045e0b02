# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


def test_nothing_began_while_a_host_was_missing(devnet):
    """Each host has had one turn in all, so the first run began none."""
    assert "val3" in devnet.log("before")
    for host in devnet.validators:
        assert [turn["outcome"] for turn in host.turns()] == ["committed"]


def test_the_rollout_stopped_at_the_host_that_was_cut_off(devnet):
    log = devnet.log("between")
    assert "val2" in log
    # Those after it had their turns in the last run only.
    begun = {host.name: host.turns()[0]["began"] for host in devnet.validators}
    assert begun["val1"] < begun["val2"] < begun["val3"] < begun["val4"]


def test_people_were_told(devnet):
    told = devnet.gateways[0].output("cat /var/lib/webhook-sink/received.jsonl")
    assert "stopped at val2" in told
    assert "unknown, the host is unreachable" in told


def test_the_fleet_is_new_in_the_end(devnet):
    for host in devnet.validators:
        assert host.release() == devnet.digest("2.0.0")
        assert not host.open_turn()
    assert devnet.same_chain()
    assert devnet.equivocations() == []
    assert devnet.gateway_servers().items() >= {host.name: "UP" for host in devnet.validators}.items()
