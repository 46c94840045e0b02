# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The turn's modules as Ansible runs them, on a host whose node is a plain process."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest

testing = pytest.importorskip("ansible.module_utils.testing")

from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.modules import (
    migration_manifest,
    rollout_lock,
    validator_upgrade,
    validator_upgrade_info,
)
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._host import world as worlds

Result = t.Dict[str, t.Any]


class Caller:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, module: t.Any, check: bool = False, **options: t.Any) -> Result:
        with (
            testing.patch_module_args({**options, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        return t.cast(Result, json.loads(self.capsys.readouterr().out))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def world(tmp_path: pathlib.Path, request: t.Any) -> t.Iterator[worlds.World]:
    with worlds.make(str(tmp_path), **getattr(request, "param", {})) as made:
        yield made


def where(world: worlds.World) -> dict[str, t.Any]:
    process = {name: value for name, value in world.spec().items() if name != "manager"}
    return {
        "instance": "unit1",
        "state_dir": world.home.state_dir,
        "release_link": world.link,
        "service_scope": "process",
        "process": process,
        "data_dir": world.data,
    }


def how(world: worlds.World, turn_id: str, **changes: t.Any) -> dict[str, t.Any]:
    asked = world.request()
    return {
        **where(world),
        "api_url": asked.api_url,
        "turn_id": turn_id,
        "rollout_id": "r1",
        "release": {name: value for name, value in asked.release.items() if value is not None},
        "roots": asked.roots,
        "migrations": asked.migrations,
        "proof": asked.proof,
        "fence_token": 1,
        "require_drain": False,
        "expected_address": asked.expected_address,
        "peers": asked.peers,
        "probe": {"deadline": 4},
        **changes,
    }


def test_a_lock_is_asked_for_held_and_given_back(call: Caller, tmp_path: pathlib.Path) -> None:
    who = {"instance": "node1", "state_dir": str(tmp_path), "rollout_id": "r1", "holder": "alice"}
    predicted = call(rollout_lock, True, **who)
    assert (predicted["changed"], predicted["granted"], predicted["lock"]["token"]) == (True, True, 1)
    assert os.listdir(str(tmp_path)) == []
    taken = call(rollout_lock, **who)
    assert taken["changed"] and taken["granted"] and taken["fence"] == 1
    assert taken["diff"]["after"] == {"rollout_id": "r1", "holder": "alice", "token": 1}
    assert not call(rollout_lock, **who)["changed"]
    other = call(rollout_lock, **{**who, "holder": "bob"})
    assert not other["granted"] and not other["changed"] and "failed" not in other
    assert "held by alice" in other["reason"] and other["lock"]["holder"] == "alice"
    assert call(rollout_lock, **who, state="released")["changed"]
    assert not call(rollout_lock, **who, state="released")["changed"]


def test_there_again_and_back_by_what_the_manifest_says(call: Caller, world: worlds.World) -> None:
    seen = call(validator_upgrade_info, **where(world), release_sha256=world.sha("new"))
    assert seen["status"]["state"] == "old" and seen["running"]["level"] == 1 and seen["problems"] == []

    predicted = call(validator_upgrade, True, **how(world, "t1"))
    assert predicted["changed"] and predicted["preconditions"] == [] and predicted["turn"]["outcome"] == "predicted"
    assert predicted["diff"]["before"]["level"] == 1 and predicted["diff"]["after"]["level"] == 2
    assert not os.path.exists(world.home.journals)

    done = call(validator_upgrade, **how(world, "t1"))
    assert done["changed"] and done["turn"]["outcome"] == "committed", done
    for turn_id in ("t1", "t2"):
        again = call(validator_upgrade, **how(world, turn_id))
        assert not again["changed"] and again["turn"]["outcome"] == "committed"
    after = call(validator_upgrade_info, **where(world), release_sha256=world.sha("new"))
    assert after["status"]["state"] == "new" and after["open_turn"] is None and not after["guarded"]

    back = {"state": "rolled_back", "release": None, "proof": None, "migrations": []}
    lost = call(validator_upgrade, **how(world, "b1", **back))
    assert lost["failed"] and "nothing to go back to" in lost["msg"]
    manifest.append(
        world.home.manifest,
        {
            "kind": "upgrade",
            "rollout_id": "r1",
            "turn_id": "t1",
            "release": {"id": "2.0.0", "sha256": world.sha("new")},
            "previous": seen["running"],
            "snapshot_id": done["turn"]["snapshot"]["id"],
            "snapshot_sha256": done["turn"]["snapshot"]["sha256"],
            "proof_sha256": "0" * 64,
        },
    )
    returned = call(validator_upgrade, **how(world, "b1", **back))
    assert returned["changed"] and returned["turn"]["outcome"] == "committed", returned
    world.require_whole("old")
    same = call(validator_upgrade, **how(world, "b1", **back))
    assert not same["changed"] and same["turn"]["outcome"] == "committed"


def test_a_point_of_no_return_is_told_beforehand_and_kept(call: Caller, world: worlds.World) -> None:
    one_way = {"migrations": [{**item, "reversible": False} for item in world.request().migrations]}
    release = {**how(world, "t1")["release"], "new_block_format": True}
    reasons = [
        "migration 0002 is not declared reversible",
        "release 2.0.0 signs blocks in a format that the release before does not read",
    ]
    predicted = call(validator_upgrade, True, **how(world, "t1", **one_way, release=release))
    assert predicted["turn"]["one_way"] == reasons and predicted["preconditions"] == []
    assert "once that is committed there is only the way forward" in predicted["msg"] and reasons[1] in predicted["msg"]
    assert call(validator_upgrade, True, **how(world, "t1"))["turn"]["one_way"] == []

    done = call(validator_upgrade, **how(world, "t1", **one_way))
    assert done["turn"]["outcome"] == "committed" and done["turn"]["one_way"] == reasons[:1], done
    point = {"snapshot_id": done["turn"]["snapshot"]["id"], "sha256": done["turn"]["snapshot"]["sha256"]}
    old = {"id": "1.0.0", "sha256": world.sha("old"), "level": 1}
    for check in (True, False):
        asked = how(world, "b1", state="rolled_back", release=old, rollback_point=point, proof=None)
        refused = call(validator_upgrade, check, **asked)
        assert refused["failed"] and "there is only the way forward: migration 0002" in refused["msg"]
    assert not os.path.exists(world.home.turn("b1").root)
    world.require_whole("new")


def test_what_a_controller_that_is_gone_still_owes_is_told_by_the_host(call: Caller, world: worlds.World) -> None:
    unknown = call(validator_upgrade, **how(world, "t1", state="resumed"))
    assert unknown["failed"] and "not under way" in unknown["msg"]
    assert call(validator_upgrade, **how(world, "t1", timeout=0.1))["turn"]["outcome"] == "running"
    resumed = call(validator_upgrade, **how(world, "t1", state="resumed", release=None, proof=None))
    assert "failed" not in resumed and resumed["turn"]["outcome"] == "committed", resumed
    seen = call(validator_upgrade_info, **where(world), release_sha256=["0" * 64, world.sha("new")], wait=30)
    assert seen["status"]["state"] == "new" and seen["unrecorded"]["kind"] == "upgrade"
    place = {"instance": "unit1", "state_dir": world.home.state_dir}
    assert call(rollout_lock, **place, rollout_id="r1", holder="bob", token=5)["granted"]
    old = call(migration_manifest, **place, entry=seen["unrecorded"], fence_token=4)
    assert old["failed"] and "older than 5" in old["msg"]
    assert call(migration_manifest, **place, entry=seen["unrecorded"], fence_token=5)["changed"]
    assert call(validator_upgrade_info, **where(world))["unrecorded"] is None
    back = {"state": "rolled_back", "release": None, "proof": None, "migrations": [], "fence_token": 5}
    returned = call(validator_upgrade, **how(world, "b1", **back))
    assert returned["turn"]["outcome"] == "committed", returned
    world.require_whole("old")
    assert call(validator_upgrade_info, **where(world))["unrecorded"]["kind"] == "rollback"


def test_looking_at_a_lock_asks_for_nothing(call: Caller, tmp_path: pathlib.Path) -> None:
    place = {"instance": "node1", "state_dir": str(tmp_path)}
    free = call(rollout_lock, **place, state="seen")
    assert (free["changed"], free["before"], free["working"], free["fence"]) == (False, {}, "", 0)
    assert os.listdir(str(tmp_path)) == []
    call(rollout_lock, **place, rollout_id="r1", holder="alice", run="pid 1", about={"pid": 1})
    held = call(rollout_lock, **place, state="seen")["before"]
    assert (held["holder"], held["run"], held["about"], held["expired"]) == ("alice", "pid 1", {"pid": 1}, False)
    assert call(rollout_lock, **place)["failed"]
    broken = call(rollout_lock, **place, rollout_id="r2", holder="bob", break_token=1)
    assert broken["granted"] and broken["lock"]["token"] == 2 and "broken" in broken["reason"]
    (entry,) = manifest.read(os.path.join(str(tmp_path), "node1", manifest.NAME))
    assert entry.kind == "lock_broken" and entry.fields["broke"]["holder"] == "alice"


@pytest.mark.parametrize("world", [{"behave": "stall"}], indirect=True)
def test_a_host_that_was_put_back_is_a_failure_that_says_why(call: Caller, world: worlds.World) -> None:
    result = call(validator_upgrade, **how(world, "t1"))
    assert result["failed"] and result["turn"]["outcome"] == "put_back" and result["changed"]
    assert "the host was put back" in result["msg"] and "height" in result["msg"]
    world.require_whole("old")
    seen = call(validator_upgrade_info, **where(world), release_sha256=world.sha("new"))
    assert seen["status"]["state"] == "put back" and "height" in seen["status"]["why"]


def test_time_running_out_for_the_caller_is_not_the_end_of_the_turn(call: Caller, world: worlds.World) -> None:
    result = call(validator_upgrade, **how(world, "t1", timeout=0.1))
    assert result["failed"] and result["turn"]["outcome"] == "running" and "same turn_id" in result["msg"]
    started = call(validator_upgrade, **how(world, "t1", wait=False))
    assert "failed" not in started
    assert call(validator_upgrade, **how(world, "t1"))["turn"]["outcome"] == "committed"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"proof": None}, "proof is missing"),
        ({"release": None}, "release is missing"),
        ({"fence_token": 0}, "fence_token"),
        ({"process": None}, "service_scope=process needs"),
        ({"service_scope": "system"}, "service is missing"),
        ({"turn_id": "a/b"}, "turn_id"),
    ],
)
def test_what_is_asked_for_wrongly_is_said(call: Caller, tmp_path: pathlib.Path, changes: dict[str, t.Any], says: str) -> None:
    world = worlds.World(str(tmp_path), "good", 1)
    world.proof = {"format": "none"}
    result = call(validator_upgrade, **{**how(world, "t1"), **changes})
    assert result["failed"] and says in result["msg"]


def test_a_renewal_takes_along_what_other_hosts_wrote_down(call: Caller, tmp_path: pathlib.Path) -> None:
    place = {"instance": "node1", "state_dir": str(tmp_path)}
    added = call(migration_manifest, instance="node2", state_dir=str(tmp_path), entry={"kind": "upgrade", "turn_id": "t"})[
        "entry"
    ]
    offer = {"origin": "node2", "seq": 1, "head": added["hash"], "entries": [added]}
    held = {**place, "rollout_id": "r1", "holder": "bob", "token": 5}
    assert call(rollout_lock, **held)["replicas"] == []
    taken = call(rollout_lock, **held, replicas=[offer])
    assert taken["granted"] and taken["changed"] and [one["state"] for one in taken["replicas"]] == ["extended"]
    assert taken["diff"]["before"]["copies"] == {"node2": 0} and taken["diff"]["after"]["copies"] == {"node2": 1}
    assert not call(rollout_lock, **held, replicas=[offer])["changed"]
    # Another history is refused, and the lease is held all the same.
    refused = call(rollout_lock, **held, replicas=[{**offer, "head": "f" * 64}])
    assert refused["granted"] and [one["state"] for one in refused["replicas"]] == ["refused"]
    # From whoever doesn't hold the lock, nothing is taken.
    other = call(rollout_lock, **{**held, "holder": "eve", "rollout_id": "r2"}, replicas=[{**offer, "origin": "node3"}])
    assert not other["granted"] and other["replicas"] == [] and os.listdir(str(tmp_path / "node1/replicas")) == ["node2"]
