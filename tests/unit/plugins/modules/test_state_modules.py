# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state and manifest modules as Ansible runs them: check mode, run, run again."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import typing as t

import pytest

testing = pytest.importorskip("ansible.module_utils.testing")

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, journal
from ansible_collections.chainops.validator.plugins.module_utils._host import turn
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify
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


def test_manifests_are_kept_by_other_hosts(host: Host) -> None:
    here = {"instance": "n1", "state_dir": str(host.base / "state")}
    there = {"instance": "n2", "state_dir": str(host.base / "state")}
    journal_of = host.base / "state/n2/journal/t1"
    journal_of.mkdir(parents=True)
    (journal_of / "journal.log").write_bytes(b"{}\n" + b"\0" * 20)
    for number in range(1, 4):
        host(migration_manifest, **there, entry={"kind": "upgrade", "rollout_id": "r", "turn_id": f"t{number}"})
    told = host(migration_manifest_info, **there, after=[0, 2], evidence=True)
    assert (
        told["valid"]
        and [one["seq"] for one in told["entries"]] == [1, 2, 3]
        and told["marks"] == {"2": told["entries"][1]["hash"]}
    )
    assert (
        told["entries"][0]["evidence"][0]["path"] == "journal/t1/journal.log" and told["entries"][0]["evidence"][0]["size"] == 3
    )
    (journal_of / "journal.log").write_bytes(b"[]\n")
    seen = host(migration_manifest_info, **there, evidence=True, after=[])
    assert seen["problems"] == ["entry 1: journal/t1/journal.log was changed after it was recorded"] and seen["entries"] == []
    offer = {"origin": "v2", "seq": 3, "head": told["head"], "entries": told["entries"], "marks": told["marks"]}
    planned = host(migration_manifest, True, **here, state="replicated", replicas=[offer])
    assert planned["changed"] and planned["diff"]["after"]["v2"]["seq"] == 3 and not (host.base / "state/n1").exists()
    done = host(migration_manifest, **here, state="replicated", replicas=[offer])
    assert done["changed"] and done["replicas"][0]["state"] == "extended"
    again = host(migration_manifest, **here, state="replicated", replicas=[offer])
    assert not again["changed"] and again["replicas"][0]["state"] == "same"
    seen = host(migration_manifest_info, **here, replicas=True)
    assert [(one["origin"], one["seq"], one["head"], one["valid"]) for one in seen["replicas"]] == [("v2", 3, told["head"], True)]
    assert seen["entries"] == [] and seen["seq"] == 0
    path = pathlib.Path(done["replicas"][0]["path"])
    assert path.read_bytes() == pathlib.Path(told["path"]).read_bytes()
    # What is shorter now is refused; the others that came along are kept all the same.
    short = {**offer, "seq": 2, "head": told["entries"][1]["hash"], "entries": []}
    refused = host(migration_manifest, **here, state="replicated", replicas=[short, {**offer, "origin": "v3"}])
    assert (
        refused["failed"] and "the manifest of v2 is not the one in" in refused["msg"] and "it ends at entry 2" in refused["msg"]
    )
    assert [one["state"] for one in refused["error"]["replicas"]] == ["refused", "extended"]
    assert path.read_bytes() == pathlib.Path(told["path"]).read_bytes()
    many = host(migration_manifest, **here, state="replicated", replicas=[{**offer, "entries": told["entries"] * 400}])
    assert many["error"]["kind"] == "InputError" and "at most 1000 entries" in many["msg"]


def test_a_migration_is_fenced(host: Host) -> None:
    (host.base / "state/n1").mkdir(parents=True)
    (host.base / "state/n1/fence").write_text("7\n")
    step = {"id": "m", "from_level": 1, "to_level": 2, "forward": ["/bin/false"]}
    options = {"data_dir": str(host.data), "release_dir": "/", "migrations": [step], "state_dir": str(host.base / "state")}
    for check in (True, False):
        refused = host(state_migration, check, **options, instance="n1", fence_token=6)
        assert refused["error"]["kind"] == "Refused" and "older than 7" in refused["msg"]
    nameless = host(state_migration, **options, mode="rehearse", fence_token=8)
    assert nameless["error"]["kind"] == "InputError" and "fence_token needs instance" in nameless["msg"]
    assert host(state_migration, True, **options, instance="n1", fence_token=8)["changed"]
    assert host(state_migration, **options, instance="n1", fence_token=8)["error"]["kind"] == "CommandFailed"
    assert (host.base / "state/n1/fence").read_text() == "8\n"


def test_a_hot_copy_is_tested_and_held_against_the_budget(host: Host) -> None:
    refused = host.snapshot(snapshot_id="s1", test=True, stop_window_budget=0.000001)
    assert refused["failed"] and "at least" in refused["msg"] and "stop, start unknown" in refused["msg"]
    hot = host.snapshot(snapshot_id="s1", test=True, stop_window_budget=600, migrations=["0002"])["snapshot"]
    assert hot["tested"]["files"] == hot["files"] and hot["tested"]["before"] == 0
    assert hot["predicted_stop_window"]["unknown"] == ["stop", "migrate", "start"]
    assert hot["predicted_stop_window"]["seconds"] == hot["predicted_freeze_seconds"]
    again = host.snapshot(snapshot_id="s1", test=True)["snapshot"]
    assert (again["tested"]["files"], again["tested"]["before"]) == (0, hot["files"])
    assert "tested" not in host.snapshot(snapshot_id="s1")["snapshot"]


def script(host: Host, text: str) -> list[str]:
    path = host.base / "hook"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return [str(path), "{path}", "{id} of {instance}", "{root_sha256}"]


def test_a_hook_runs_once_for_each_sealed_snapshot(host: Host) -> None:
    told = host.base / "told"
    words = "$CHAINOPS_SNAPSHOT_ID $CHAINOPS_SNAPSHOT_INSTANCE $CHAINOPS_SNAPSHOT_PATH $CHAINOPS_SNAPSHOT_ROOT_SHA256"
    hook = script(host, f'printf "%s\\n" "$@" "{words}" >> {told}\n')
    assert "hook" not in host.snapshot(snapshot_id="s1", hook=hook)["snapshot"] and not told.exists()  # hot
    planned = host.snapshot(True, snapshot_id="s1", phase="sealed", hook=hook)
    assert planned["snapshot"]["hook"]["changed"] and not told.exists()
    sealed = host.snapshot(snapshot_id="s1", phase="sealed", hook=hook)["snapshot"]
    path, root = sealed["path"], sealed["root_sha256"]
    expected = [path, "s1 of n1", root, f"s1 n1 {path} {root}"]
    assert sealed["hook"]["changed"] and told.read_text().splitlines() == expected
    for options in ({"phase": "sealed"}, {"state": "verified"}):
        for check in (True, False):
            again = host.snapshot(check, snapshot_id="s1", hook=hook, **options)
            assert not again["changed"] and not again["snapshot"]["hook"]["changed"]
    assert told.read_text().splitlines() == expected
    # Another argument list is another hook; what is remembered of one is not its arguments.
    assert host.snapshot(state="verified", snapshot_id="s1", hook=[*hook, "password=hunter2"])["changed"]
    remembered = list(pathlib.Path(path, "hooks").iterdir())
    assert len(remembered) == 2 and not any("hunter2" in item.read_text() for item in remembered)
    assert verify(path).ok


def test_a_hook_that_fails_is_told_and_the_snapshot_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(state_snapshot.AnsibleModule, "warn", lambda module, text: warnings.append(text))
    hook = script(host, "echo looking; echo password=hunter2; echo no route to the store; exit 3\n")
    failed = host.snapshot(snapshot_id="s1", phase="sealed", hook=[*hook, "--key=hunter2"])
    assert failed["failed"] and "exited 3" in failed["msg"] and "no route to the store" in failed["msg"]
    assert "the snapshot stays" in failed["msg"] and "hunter2" not in json.dumps(failed["error"]) + failed["msg"]
    warned = host.snapshot(state="verified", snapshot_id="s1", hook=hook, hook_required=False)
    assert not warned["changed"] and "no route" in warned["snapshot"]["hook"]["error"] and "no route" in warnings[0]
    # It was not remembered as done.
    assert host.snapshot(state="verified", snapshot_id="s1", hook=script(host, "exit 0\n"))["changed"]
    late = host.snapshot(state="verified", snapshot_id="s1", hook=[*script(host, "sleep 60\n"), "2"], hook_timeout=0.2)
    assert late["failed"] and "did not finish in 0.2 s" in late["msg"]
    # A snapshot that doesn't verify is not shipped.
    pathlib.Path(warned["snapshot"]["path"], "roots/data/blocks/blocks_0.json").write_text("x")
    told = host.base / "told"
    assert "does not verify" in host.snapshot(state="verified", snapshot_id="s1", hook=script(host, f"touch {told}\n"))["msg"]
    assert not told.exists()
    for bad, says in ((["restic"], "absolute path"), (["/bin/true", "{ids}"], "unknown placeholder {ids}")):
        refused = host.snapshot(snapshot_id="s2", phase="sealed", hook=bad)
        assert refused["failed"] and says in refused["msg"]
    assert [item["id"] for item in host.snapshots()] == ["s1"]


def test_a_snapshot_that_restic_took_away_and_brought_back_is_whole(host: Host) -> None:
    restic = shutil.which("restic")
    assert restic, "restic is not installed; tools/setup.sh installs it"
    (host.data / "odd name\n").write_text("odd")
    (host.data / "link").symlink_to("schema.json")
    os.link(host.data / "schema.json", host.data / "same")
    password = host.base / "password"
    password.write_text("a secret\n")
    store, back = host.base / "store", host.base / "back"
    environment = {**os.environ, "RESTIC_PASSWORD_FILE": str(password), "RESTIC_CACHE_DIR": str(host.base / "cache")}

    def run(*argv: str) -> None:
        done = subprocess.run([restic, "--repo", str(store), *argv], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run("init")
    options = ["--repo", str(store), "--password-file", str(password), "--cache-dir", str(host.base / "cache")]
    hook = [restic, *options, "backup", "--tag", "{instance}", "--tag", "{root_sha256}", "{path}"]
    host.snapshot(snapshot_id="s1")
    sealed = host.snapshot(snapshot_id="s1", phase="sealed")["snapshot"]
    shipped = host.snapshot(state="verified", snapshot_id="s1", hook=hook)
    assert shipped["changed"] and shipped["snapshot"]["hook"]["changed"]
    assert not host.snapshot(state="verified", snapshot_id="s1", hook=hook)["changed"]
    run("restore", "latest", "--tag", sealed["root_sha256"], "--target", str(back))
    verdict = verify(str(back) + sealed["path"], deep=True, expect_root=sealed["root_sha256"])
    assert verdict.ok and verdict.files == sealed["files"], verdict.problems


def took(host: Host, turn_id: str, rollout_id: str, trees: list[str]) -> None:
    """A turn's journal, as far as it counts here."""
    paths = Home(host.common["state_dir"], "n1").turn(turn_id)
    os.makedirs(paths.root)
    seconds: dict[str, float] = dict.fromkeys(
        ("check", "prepare", "guard", "stop", "freeze", "restore", "switch", "start", "probe", "commit"), 1.0
    )
    undo = dict.fromkeys(("unguard", "start_old", "restore_own", "switch_back", "stop_new"), 1.0)
    plan = {"format": turn.FORMAT, "turn_id": turn_id, "rollout_id": rollout_id, "direction": "back", "budgets": {"total": 9.0}}
    plan["steps"] = turn.steps_of("back", seconds, undo, confirm=False)
    pathlib.Path(paths.plan).write_bytes(canonical.pretty(plan))
    stamp = {"mono": 1.0, "wall": 1.0, "boot": "b"}
    with journal.Journal(paths.journal) as log:
        log.append({"kind": "begin", "step": "restore", "way": "forward", **stamp})
        facts = {"old_trees": trees}
        log.append({"kind": "done", "step": "restore", "way": "forward", "facts": facts, "seconds": 1.0, **stamp})


def gone(*paths: pathlib.Path) -> None:
    until = time.monotonic() + 60
    while any(os.path.lexists(path) for path in paths):
        assert time.monotonic() < until, f"still there: {paths}"
        time.sleep(0.02)


def test_old_trees_go_when_their_rollout_is_finished(host: Host) -> None:
    workspace = host.base / "srv/.chainops/n1"
    host.snapshot(snapshot_id="s1", phase="sealed")
    trees: dict[str, list[str]] = {}
    for name in ("r1", "r2", "byhand"):
        host.data.joinpath("schema.json").write_text('{"level": 9}')
        host.unit.write_text(f"changed by {name}")
        trees[name] = host.restore(snapshot_id="s1")["restored"]["old_trees"]
        assert len(trees[name]) == 2
    took(host, "t1", "r1", trees["r1"])
    took(host, "t2", "r2", trees["r2"])
    assert host.restore(state="reaped")["reaped"] == []
    host(migration_manifest, instance="n1", state_dir=host.common["state_dir"], entry={"kind": "finish", "rollout_id": "r1"})
    planned = host.restore(True, state="reaped")
    assert planned["changed"] and sorted(planned["reaped"]) == sorted(trees["r1"]) and all(map(os.path.lexists, trees["r1"]))
    done = host.restore(state="reaped")
    # They are out of the way at once, and gone a little later.
    assert done["changed"] and done["reaped"] == planned["reaped"] and not any(map(os.path.lexists, trees["r1"]))
    gone(*(path for path in (workspace / "trees").glob("going-*")))
    assert not host.restore(state="reaped")["changed"]
    assert all(map(os.path.lexists, [*trees["r2"], *trees["byhand"]]))
    refused = host.restore(state="reaped", old_trees=trees["r2"])
    assert refused["failed"] and "a rollout that is not finished" in refused["msg"] and all(map(os.path.lexists, trees["r2"]))
    assert "not an old tree" in host.restore(state="reaped", old_trees=[str(host.data)])["msg"] and host.data.exists()
    # What a deleting that was interrupted left goes with the next one.
    (workspace / "trees/going-left/data").mkdir(parents=True)
    assert host.restore(state="reaped", old_trees=trees["byhand"])["changed"]
    gone(*(path for path in (workspace / "trees").glob("going-*")))
    assert sorted(os.listdir(workspace / "trees")) == [
        os.path.basename(os.path.dirname(next(p for p in trees["r2"] if p.endswith("data"))))
    ]
    assert host.restore(snapshot_id="s1")["differences"] == []
    missing = host.restore()
    assert missing["failed"] and "snapshot_id" in missing["msg"]
