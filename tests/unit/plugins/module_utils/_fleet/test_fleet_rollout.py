# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._fleet import rollout

RELEASE = {"id": "2.0.0", "artifacts": {"x86_64": {"sha256": "new"}, "aarch64": {"sha256": "arm"}}}


def host(number, **facts):
    return {
        "name": f"val{number}",
        "variables": {
            "validator_chain": "xai",
            "validator_instance": "xai",
            "validator_service": "xai-node.service",
            "validator_data_dir": "/var/lib/xai/data",
            "validator_address": f"TXAI{number}",
            "validator_reader_url": f"http://10.0.0.{number}:8545",
            **facts.pop("variables", {}),
        },
        "arch": "x86_64",
        "node": {"chain_id": "devnet-1"},
        "running": {"sha256": "old"},
        "open_turn": None,
        **facts,
    }


def network(count=4, **facts):
    return {
        "problems": [],
        "findings": [],
        "power_known": True,
        "nodes": [{"name": f"val{n}", "address": f"TXAI{n}", "reachable": True, "online": True} for n in range(1, count + 1)],
        "validators": [{"address": f"TXAI{n}", "power": 1.0, "node": f"val{n}", "online": True} for n in range(1, count + 1)],
        **facts,
    }


def plan(hosts, net=None, **options):
    return rollout.plan(hosts, RELEASE, options.pop("sizes", [1, "100%"]), net or network(len(hosts)), **options)


FLEET = [host(n) for n in range(1, 5)]


def test_a_fleet_that_is_fit():
    made = plan(FLEET, more_readers=[{"name": "outside", "url": "http://r:1"}])
    assert made["problems"] == []
    assert made["waves"] == [["val1"], ["val2", "val3", "val4"]]
    assert (made["chain"], made["chain_id"], made["pending"]) == ("xai", "devnet-1", ["val1", "val2", "val3", "val4"])
    assert made["nodes"][0] == {"name": "val1", "api_url": "http://10.0.0.1:8545", "address": "TXAI1"}
    assert made["readers"][-1] == {"name": "outside", "url": "http://r:1"} and len(made["readers"]) == 5


def test_who_runs_the_archive_already_is_done():
    hosts = [host(1, running={"sha256": "new"}), host(2, running=None), *FLEET[2:]]
    assert plan(hosts)["waves"] == [["val2"], ["val3", "val4"]]
    done = [host(n, running={"sha256": "new"}) for n in range(1, 5)]
    assert (plan(done)["waves"], plan(done)["problems"]) == ([], [])


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (host(4, arch="riscv64"), "val4 is riscv64, and release 2.0.0 has archives for aarch64, x86_64 only"),
        (host(4, open_turn="t7"), "val4 has an unfinished turn (t7)"),
        (host(4, node={"chain_id": "other"}), "not of one chain"),
        (host(4, variables={"validator_address": "TXAI1"}), "val1 and val4 share the signing address"),
        (host(4, variables={"validator_reader_url": "http://10.0.0.1:8545/"}), "val1 and val4 share the API"),
        (host(4, name="val1"), "val1 is listed twice"),
    ],
)
def test_what_stands_against_it(broken, word):
    assert any(word in problem for problem in plan([*FLEET[:3], broken])["problems"])


def test_the_networks_problems_are_ours():
    assert plan(FLEET, network(problems=["val3 is behind"], findings=[{"kind": "behind", "node": "val3", "text": "x"}]))[
        "problems"
    ] == ["val3 is behind"]


def test_three_validators_cannot_spare_one():
    found = plan(FLEET[:3])["problems"]
    assert len(found) == 3 and "val1 can't be spared: 33.3 %" in found[0]
    assert plan(FLEET, power_budget=0.2)["problems"]


def test_nobody():
    made = rollout.plan([], RELEASE, [1], network(0))
    assert (made["problems"], made["waves"]) == (["there are no validators to act on"], [])
