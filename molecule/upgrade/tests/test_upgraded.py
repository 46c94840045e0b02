# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


def test_every_host_is_new(devnet):
    for host in devnet.validators:
        assert host.release() == devnet.digest("2.0.0")
        assert host.api_get("/version")["version"] == "2.0.0"
        assert host.json_file("/var/lib/xai/data/schema.json") == {"level": 2}


def test_every_host_had_one_turn_and_it_was_committed(devnet):
    """One: the second run, and the one in check mode, began none."""
    for host in devnet.validators:
        assert [turn["outcome"] for turn in host.turns()] == ["committed"]
        assert not host.open_turn()


def test_the_stop_window_was_one_task(devnet):
    """From stop to probe the host went by its own journal, in one go: no round trip of a controller is in between."""
    for host in devnet.validators:
        (turn,) = host.turns()
        assert turn["sessions"] == 1
        names = [step["name"] for step in turn["steps"]]
        assert names.index("stop") < names.index("freeze") < names.index("switch") < names.index("start") < names.index("probe")


def test_the_chain_went_on_as_one(devnet, eventually):
    assert devnet.same_chain()
    assert devnet.equivocations() == []
    before = {host.name: host.api_get("/block/latest?summary=1")["block_number"] for host in devnet.validators}
    eventually(
        lambda: all(host.api_get("/block/latest?summary=1")["block_number"] > before[host.name] for host in devnet.validators),
        "every validator follows the chain",
    )


def test_every_server_is_back_in_the_gateway(devnet):
    assert devnet.gateway_servers().items() >= {host.name: "UP" for host in devnet.validators}.items()


def test_manifest_names_what_was_done(devnet):
    for host in devnet.validators:
        manifest = host.json_file(f"/var/lib/chainops/{host.name}/migration_manifest.json")
        text = str(manifest)
        assert devnet.digest("2.0.0") in text
        assert "upgrade-2.0.0" in text


def test_the_report_is_there(devnet):
    report = devnet.home / "report"
    assert (report / "report.json").stat().st_size > 0


def test_operators_documents_were_appended_to_once(devnet):
    """Also with the second run, and the one in check mode."""
    texts = {
        name: (devnet.home / "report" / name).read_text(encoding="utf-8") for name in ("RUNBOOK_INDEX.md", "CLIENT_DIVERSITY.md")
    }
    assert texts["RUNBOOK_INDEX.md"].count("is done: 4 validators run release 2.0.0") == 1
    assert texts["CLIENT_DIVERSITY.md"].count("before upgrade-2.0.0 is done") == 1
