# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


def test_status_was_handed_over_as_data(devnet):
    rows = devnet.handed_over("status")["chainops_status"]
    assert {row["host"]: (row["state"], row["release"]) for row in rows} == {
        host.name: ("new", devnet.digest("2.0.0")) for host in devnet.validators
    }


def test_every_host_is_old_again(devnet):
    for host in devnet.validators:
        assert host.release() == devnet.digest("1.0.0")
        assert host.api_get("/version")["version"] == "1.0.0"
        assert host.json_file("/var/lib/xai/data/schema.json") == {"level": 1}


def test_every_host_had_a_turn_there_and_one_back_and_no_other(devnet):
    for host in devnet.validators:
        assert [(turn["direction"], turn["outcome"]) for turn in host.turns()] == [
            ("forward", "committed"),
            ("back", "committed"),
        ]
        assert not host.open_turn()


def test_last_one_first(devnet):
    began = [host.turns()[-1]["began"] for host in devnet.validators]
    assert began == sorted(began, reverse=True)


def test_the_chain_went_on_as_one(devnet, eventually):
    assert devnet.equivocations() == []
    eventually(devnet.same_chain, "every validator has the same block")
    before = {host.name: host.api_get("/block/latest?summary=1")["block_number"] for host in devnet.validators}
    eventually(
        lambda: all(host.api_get("/block/latest?summary=1")["block_number"] > before[host.name] for host in devnet.validators),
        "every validator follows the chain",
    )


def test_no_watermark_went_down(devnet):
    """Also where the data directory went back: what the key may sign next is above all that it has signed."""
    for host in devnet.validators:
        for turn in host.turns():
            assert turn["watermark"]["after"]["height"] >= turn["watermark"]["before"]["height"] > 0


def test_every_server_is_back_in_the_gateway(devnet, eventually):
    wanted = {host.name: "UP" for host in devnet.validators}.items()
    eventually(lambda: devnet.gateway_servers().items() >= wanted, "every server is up")


def test_the_gate_is_shut_for_good(devnet):
    assert "The gate is closed (rolled_back)" in devnet.log("refused")
    told = devnet.gateways[0].output("cat /var/lib/webhook-sink/received.jsonl")
    assert "did not begin, and no validator was touched" in told


def test_the_rollback_is_in_the_ticket_that_the_rollout_is_in(devnet):
    ticket = (devnet.home / "report" / "ticket.md").read_text(encoding="utf-8")
    assert ticket.index("begins") < ticket.index("is done") < ticket.index("was rolled back on val1, val2, val3, val4")


def test_no_secret_is_in_what_a_controller_keeps(devnet):
    """Jobs' variables hold none either: they come from the inventory."""
    secrets = [path.read_text(encoding="utf-8").strip() for path in (devnet.home / "secrets").iterdir()]
    secrets += [path.read_text(encoding="utf-8").strip() for path in (devnet.home / "network" / "accounts").glob("*.key")]
    assert len(secrets) > 5
    assert all(len(secret) > 8 for secret in secrets)
    kept = [path for where in ("runner", "logs", "report") for path in (devnet.home / where).rglob("*") if path.is_file()]
    assert len(kept) > 100
    for path in kept:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [path for secret in secrets if secret in text]
