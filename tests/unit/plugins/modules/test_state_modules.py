# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state and manifest modules as Ansible runs them: check mode, run, run again."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

testing = pytest.importorskip("ansible.module_utils.testing")

from ansible_collections.chainops.validator.plugins.modules import (
    migration_manifest,
    migration_manifest_info,
    state_migration,
    state_restore,
    state_snapshot,
    state_snapshot_info,
)

Result = t.Dict[str, t.Any]


class Host:
    """An instance ``n1`` with a data directory and a unit file."""

    def __init__(self, base: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.base, self.capsys = base, capsys
        self.data = base / "srv" / "data"
        (self.data / "blocks").mkdir(parents=True)
        (self.data / "finality").mkdir()
        (self.data / "blocks/blocks_0.json").write_text("{}\n" * 100)
        (self.data / "schema.json").write_text('{"level": 1}')
        (self.data / "node_identity.json").write_text("the private key")
        self.sign(7)
        self.unit = base / "n1.service"
        self.unit.write_text("[Service]\n")
        roots = [{"name": "data", "path": str(self.data)}, {"name": "unit", "path": str(self.unit)}]
        self.common = {"instance": "n1", "state_dir": str(base / "state"), "roots": roots}

    def sign(self, height: int) -> None:
        mark = {"address": "k", "height": height, "round": 0, "step": 3}
        (self.data / "finality/last_signed.json").write_text(json.dumps(mark))

    def __call__(self, module: t.Any, check: bool = False, **options: t.Any) -> Result:
        with (
            testing.patch_module_args({**options, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        return t.cast(Result, json.loads(self.capsys.readouterr().out))

    def snapshot(self, check: bool = False, **options: t.Any) -> Result:
        return self(state_snapshot, check, **self.common, **options)

    def restore(self, check: bool = False, **options: t.Any) -> Result:
        return self(state_restore, check, **self.common, **options)

    def snapshots(self, **options: t.Any) -> list[Result]:
        return t.cast(t.List[Result], self(state_snapshot_info, instance="n1", data_dir=str(self.data), **options)["snapshots"])


@pytest.fixture
def host(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, capsys)


def test_a_snapshot_from_hot_to_gone(host: Host) -> None:
    planned = host.snapshot(True, snapshot_id="s1")
    assert planned["changed"] and host.snapshots() == [] and not (host.base / "srv/.chainops").exists()
    hot = host.snapshot(snapshot_id="s1")
    assert hot["changed"] and not hot["snapshot"]["sealed"] and hot["snapshot"]["predicted_freeze_seconds"] > 0
    sealing = {"snapshot_id": "s1", "phase": "sealed", "facts": {"chain_id": "c", "height": 3}}
    planned = host.snapshot(True, **sealing)
    assert planned["changed"] and [item["sealed"] for item in host.snapshots()] == [False]
    done = host.snapshot(**sealing)
    assert (
        done["changed"] and done["snapshot"]["sealed"] and done["diff"]["after"]["root_sha256"] == done["snapshot"]["root_sha256"]
    )
    again = host.snapshot(**sealing)
    assert not again["changed"] and again["snapshot"]["root_sha256"] == done["snapshot"]["root_sha256"]
    assert not host.snapshot(snapshot_id="s1")["changed"]
    assert host.snapshot(state="verified", snapshot_id="s1")["snapshot"]["problems"] == []
    seen = host.snapshots(verify="deep")
    assert seen[0]["ok"] and seen[0]["facts"] == {"chain_id": "c", "height": 3}
    # The last good one stays, in check mode as well.
    for check in (True, False):
        refused = host.snapshot(check, state="absent", snapshot_id="s1")
        assert refused["failed"] and "last good one" in refused["msg"] and refused["error"]["kind"] == "Refused"
    host.snapshot(snapshot_id="s2", phase="sealed")
    planned = host.snapshot(True, state="absent", keep=1)
    assert planned["removed"] == ["s1"] and len(host.snapshots()) == 2
    done = host.snapshot(state="absent", snapshot_id="s1")
    assert done["changed"] and done["removed"] == ["s1"] and [item["id"] for item in host.snapshots()] == ["s2"]
    assert not host.snapshot(state="absent", snapshot_id="s1")["changed"]


def test_a_harmed_snapshot_fails_verified_and_only_informs_otherwise(host: Host) -> None:
    path = host.snapshot(snapshot_id="s1", phase="sealed")["snapshot"]["path"]
    pathlib.Path(path, "roots/data/blocks/blocks_0.json").write_text("x")
    failed = host.snapshot(state="verified", snapshot_id="s1")
    assert failed["failed"] and "data/blocks/blocks_0.json: size 1, sealed 300" in failed["msg"]
    seen = host.snapshots()
    assert not seen[0]["ok"] and "size 1" in seen[0]["problems"][0]
    before = (host.data / "blocks/blocks_0.json").read_text()
    (host.data / "schema.json").write_text('{"level": 2}')
    failed = host.restore(snapshot_id="s1")
    assert failed["failed"] and "nothing was restored" in failed["msg"]
    assert (host.data / "schema.json").read_text() == '{"level": 2}' and (
        host.data / "blocks/blocks_0.json"
    ).read_text() == before


def test_a_running_node_is_not_sealed_but_beside_it_one_can(host: Host) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "--data-dir", str(host.data)], stdin=subprocess.PIPE) as node:
        failed = host.snapshot(snapshot_id="s1", phase="sealed")
        assert failed["failed"] and failed["error"]["kind"] == "Busy" and str(node.pid) in failed["msg"]
        live = host.snapshot(snapshot_id="s1", phase="sealed", live=True)
        assert live["changed"] and live["snapshot"]["sealed"]
        target = str(host.base / "rehearsal")
        assert host.restore(snapshot_id="s1", target=target)["restored"]["paths"]["data"] == target + "/data"
        node.kill()
    (host.data / "schema.json").write_text("{}")
    assert "not a rollback point" in host.restore(snapshot_id="s1")["msg"]


def test_a_restore_in_place(host: Host) -> None:
    facts = {"chain_id": "c", "watermark": {"address": "k", "height": 7}}
    root = host.snapshot(snapshot_id="s1", phase="sealed", facts=facts)["snapshot"]["root_sha256"]
    same = {"snapshot_id": "s1", "expect": {"chain_id": "c", "root_sha256": root}}
    assert not host.restore(**same)["changed"]
    (host.data / "schema.json").write_text('{"level": 2}')
    host.unit.write_text("[Service]\nnew\n")
    host.sign(12)
    planned = host.restore(True, **same)
    assert planned["changed"] and any("schema.json" in text for text in planned["diff"]["before"]["differences"])
    assert (host.data / "schema.json").read_text() == '{"level": 2}'
    done = host.restore(**same, min_watermark={"height": 20, "address": "k"})
    assert done["changed"] and done["restored"]["watermark"]["height"] == 20 and len(done["restored"]["old_trees"]) == 2
    assert host.unit.read_text() == "[Service]\n" and (host.data / "node_identity.json").read_text() == "the private key"
    assert json.loads((host.data / "finality/last_signed.json").read_text())["height"] == 20
    assert not host.restore(**same)["changed"]
    for expect in ({"chain_id": "x"}, {"root_sha256": "0"}):
        assert host.restore(snapshot_id="s1", expect=expect)["error"]["kind"] == "Refused"


def test_a_test_restore_changes_once(host: Host) -> None:
    host.snapshot(snapshot_id="s1", phase="sealed")
    target = host.base / "rehearsal"
    assert host.restore(True, snapshot_id="s1", target=str(target))["changed"] and not target.exists()
    assert host.restore(snapshot_id="s1", target=str(target))["changed"]
    assert not host.restore(snapshot_id="s1", target=str(target))["changed"]
    assert not (target / "data/node_identity.json").exists() and (target / "unit").read_text() == "[Service]\n"
    (target / "data/schema.json").write_text("{}")
    assert "not empty" in host.restore(snapshot_id="s1", target=str(target))["msg"]


def test_a_migration(host: Host) -> None:
    tool = host.base / "release/migrate"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "{\\"level\\": $2}" > "$1/schema.json"\n')
    tool.chmod(0o755)
    step = {
        "id": "m",
        "from_level": 1,
        "to_level": 2,
        "forward": ["{release}/migrate", "{data}", "2"],
        "back": ["{release}/migrate", "{data}", "1"],
    }
    options = {"instance": "n1", "data_dir": str(host.data), "release_dir": str(tool.parent), "migrations": [step]}
    planned = host(state_migration, True, **options)
    assert planned["changed"] and planned["migration"]["to_level"] == 2 and "1" in (host.data / "schema.json").read_text()
    done = host(state_migration, **options)
    assert done["changed"] and done["migration"]["to_level"] == 2 and len(done["migration"]["old_trees"]) == 1
    assert not host(state_migration, **options)["changed"]
    assert host(state_migration, **options, direction="back", mode="live")["migration"]["to_level"] == 1
    rehearsed = host(state_migration, **options, mode="rehearse", scratch=str(host.base / "scratch"))
    assert len(rehearsed["migration"]["steps"]) == 3 and "1" in (host.data / "schema.json").read_text()
    bad = host(state_migration, **{**options, "migrations": [{**step, "forward": ["{nope}"]}]})
    assert bad["failed"] and "unknown placeholder" in bad["msg"]


def test_the_manifest(host: Host) -> None:
    common = {"instance": "n1", "state_dir": str(host.base / "state")}
    entry = {"kind": "upgrade", "rollout_id": "r", "turn_id": "t", "snapshot_id": "s1", "release": {"id": "2.0.0"}}
    assert host(migration_manifest, True, **common, entry=entry)["changed"] and not (host.base / "state").exists()
    done = host(migration_manifest, **common, entry=entry)
    assert done["changed"] and done["entry"]["seq"] == 1 and done["head"] == done["entry"]["hash"]
    again = host(migration_manifest, **common, entry=entry)
    assert not again["changed"] and again["entry"] == done["entry"]
    assert host(migration_manifest, **common, entry={**entry, "snapshot_id": "s2"})["error"]["kind"] == "Refused"
    seen = host(migration_manifest_info, **common, head=done["head"])
    assert seen["valid"] and seen["entries"][0]["rollout_id"] == "r" and seen["entries"][0]["instance"] == "n1"
    assert not host(migration_manifest_info, **common, head="ff")["valid"]
    # A snapshot that an unfinished rollout may go back to can't be removed.
    host.snapshot(snapshot_id="s1", phase="sealed")
    host.snapshot(snapshot_id="s2", phase="sealed")
    assert "rollout r, which is not finished" in host.snapshot(state="absent", snapshot_id="s1")["msg"]
    assert host.snapshot(state="absent", keep=1)["kept"]["s1"].startswith("rollback point")
    host(migration_manifest, **common, entry={"kind": "finish", "rollout_id": "r"})
    assert host.snapshot(state="absent", snapshot_id="s1")["changed"]
    path = pathlib.Path(done["path"])
    path.write_text(path.read_text().replace('"t"', '"u"'))
    broken = host(migration_manifest_info, **common)
    assert not broken["valid"] and broken["entries"] == [] and broken["problems"][0].startswith("entry 1: its content")
    assert host(migration_manifest, **common, entry={"kind": "finish", "rollout_id": "q"})["failed"]
    other = host(migration_manifest_info, instance="n2", state_dir=str(host.base / "state"))
    assert other["valid"] and other["entries"] == []
    assert os.listdir(host.base / "state") == ["n1"]
