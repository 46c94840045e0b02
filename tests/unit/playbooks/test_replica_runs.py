# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts on a fleet of files whose manifests are kept by one another: who is told of what, and who is stopped by it."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

pytest.importorskip("ansible.module_utils.testing")
pytest.importorskip("ansible.cli")

from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest, replica
from ansible_collections.chainops.validator.tests.unit.playbooks.fleet_of_files import Fleet

TURNS = ["validator_upgrade", "api_drain", "state_snapshot"]


def own(fleet: Fleet, host: str) -> pathlib.Path:
    return fleet.folder / "state" / host / manifest.NAME


def copy(fleet: Fleet, holder: str, origin: str) -> pathlib.Path:
    return pathlib.Path(replica.path_of(str(fleet.folder / "state" / holder), origin))


def pairs(fleet: Fleet) -> list[tuple[str, str]]:
    return [(holder, origin) for holder in fleet.hosts for origin in fleet.hosts if holder != origin]


def whole(fleet: Fleet) -> bool:
    return all(copy(fleet, holder, origin).read_bytes() == own(fleet, origin).read_bytes() for holder, origin in pairs(fleet))


def words(said: str) -> str:
    return " ".join(said.split())


def rewrite(path: pathlib.Path, **changes: t.Any) -> None:
    """As root on the host can: another history, whole in itself."""
    entries = [{**entry.as_dict(), **changes} for entry in manifest.read(str(path))]
    path.unlink()
    for entry in entries:
        manifest.append(str(path), {key: value for key, value in entry.items() if key not in ("seq", "prev", "time", "hash")})


def touched(fleet: Fleet) -> list[t.Any]:
    return [call for call in fleet.there()["calls"] if call[0] in TURNS]


def seed(fleet: Fleet, count: int = 2) -> None:
    """An earlier rollout: manifests with some entries, and everybody's copies of them."""
    for host in fleet.hosts:
        for number in range(count):
            manifest.append(str(own(fleet, host)), {"kind": "upgrade", "rollout_id": "old", "turn_id": f"{host}-{number}"})
    for holder, origin in pairs(fleet):
        entries = manifest.read(str(own(fleet, origin)))
        offered = replica.Offered(count, entries[-1].hash, [entry.as_dict() for entry in entries])
        assert replica.take(str(fleet.folder / "state" / holder), origin, offered)["state"] == "extended"


def test_every_host_keeps_what_every_other_wrote_down_and_verify_says_so(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    code, said = fleet.run("upgrade")
    assert code == 0, said
    assert whole(fleet) and fleet.recorded("h1") == ["upgrade", "finish"]
    assert "2 of 2 manifests are kept whole by every other host" in said
    assert fleet.lease("h1")["lease_seconds"] == 1020
    before = {pair: copy(fleet, *pair).stat().st_mtime_ns for pair in pairs(fleet)}
    code, said = fleet.run("verify")
    assert code == 0, said
    assert "2 of 2 manifests are kept whole by every other host" in said
    assert {pair: copy(fleet, *pair).stat().st_mtime_ns for pair in pairs(fleet)} == before


def test_the_record_of_a_turn_is_with_the_others_before_the_next_host_is_touched(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.change(faults={"validator_upgrade/h2": {"kill": True}})
    assert fleet.run("upgrade")[0] < 0
    assert fleet.recorded("h1") == ["upgrade"]
    assert [copy(fleet, holder, "h1").read_bytes() == own(fleet, "h1").read_bytes() for holder in ("h2", "h3")] == [True, True]
    # What nobody wrote down is, and goes to the others, also when the gate is closed meanwhile.
    fleet.change(gate="proposed")
    assert fleet.run("resume")[0] != 0
    assert fleet.recorded("h2") == ["upgrade"]
    assert copy(fleet, "h1", "h2").read_bytes() == own(fleet, "h2").read_bytes()


def test_a_manifest_that_was_rewritten_or_lost_stops_a_rollout_before_anything_is_touched(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    seed(fleet)
    kept = copy(fleet, "h2", "h1").read_bytes()
    end = manifest.read(str(own(fleet, "h1")))[-1]
    rewrite(own(fleet, "h1"), rollout_id="another")
    other = manifest.read(str(own(fleet, "h1")))[-1]
    for playbook in ("upgrade", "verify"):
        code, said = fleet.run(playbook)
        told = words(said)
        assert code != 0 and "REFUSED: h1's manifest is not the one that is kept on h2" in told, told
        assert f"entry 2 is {other.hash} there, and {end.hash} is kept: it was rewritten" in told, told
        assert "roles/record/README.md" in told
    assert touched(fleet) == [] and copy(fleet, "h2", "h1").read_bytes() == kept
    assert [fleet.lease(host)["released"] for host in fleet.hosts] == [True, True]
    own(fleet, "h1").unlink()
    # Cleaning up waits for nobody, and says so all the same.
    code, said = fleet.run("close", rollout_proposal_id="")
    assert code != 0 and "kept on h2: there is none any more, and entry 2" in words(said), said
    assert [fleet.lease(host)["released"] for host in fleet.hosts] == [True, True]
    # As roles/record/README.md says.
    own(fleet, "h1").write_bytes(copy(fleet, "h2", "h1").read_bytes())
    code, said = fleet.run("verify")
    assert code == 0, said


def test_a_manifest_that_is_exchanged_meanwhile_stops_the_rollout_before_the_next_host(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    seed(fleet)
    evil, hook = tmp_path / "evil.json", tmp_path / "hook.yml"
    for number in range(2):
        manifest.append(str(evil), {"kind": "upgrade", "rollout_id": "evil", "turn_id": f"{number}"})
    # After h1's turn somebody gives it another history, and the record of the turn follows that.
    exchange = {"src": str(evil), "dest": str(own(fleet, "h1")), "mode": "0644"}
    hook.write_text(json.dumps([{"name": "Exchange it", "ansible.builtin.copy": exchange}]))
    code, said = fleet.run("upgrade", rollout_hooks={"post_upgrade": str(hook)})
    told = words(said)
    assert code != 0 and "h2 is not touched" in told and "h1's manifest is not the one that is kept on h2: entry 2 is" in told, (
        told
    )
    assert fleet.releases() == {"h1": "new", "h2": "old"} and fleet.drained() == []
    assert [fleet.lease(host)["released"] for host in fleet.hosts] == [True, True]


def test_a_disk_that_takes_no_copy_stops_nobody_and_is_caught_up_with(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    in_the_way = fleet.folder / "state" / "h2" / replica.DIRECTORY
    in_the_way.write_text("in the way")
    code, said = fleet.run("upgrade")
    assert code == 0 and "h2 is behind with h1" in said, said
    in_the_way.unlink()
    code, said = fleet.run("close", rollout_proposal_id="")
    assert code == 0 and whole(fleet), said


def test_who_cannot_be_reached_is_told_and_keeps_nobody_from_it(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 3)
    seed(fleet)
    manifest.append(str(own(fleet, "h1")), {"kind": "finish", "rollout_id": "old"})
    inventory = json.loads((tmp_path / "inventory.json").read_text())
    inventory["all"]["children"]["validators"]["hosts"]["h3"] = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
    }
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    code, said = fleet.run("close", rollout_proposal_id="")
    told = words(said)
    assert code != 0 and "UNREACHABLE" in said and "REFUSED" not in said, said
    assert "not asked: h3; h3 is behind with h1, h2" in told, told
    assert copy(fleet, "h2", "h1").read_bytes() == own(fleet, "h1").read_bytes()
    assert [fleet.lease(host)["released"] for host in ("h1", "h2")] == [True, True]


def test_a_rehearsal_keeps_nothing(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    seed(fleet)
    manifest.append(str(own(fleet, "h1")), {"kind": "finish", "rollout_id": "old"})
    before = {path: path.read_bytes() for path in fleet.folder.glob("state/**/*.json")}
    code, said = fleet.run("close", "--check", rollout_proposal_id="", rollout_gateways=[])
    assert code == 0 and "2 of 2 manifests are kept whole" in said, said
    assert {path: path.read_bytes() for path in fleet.folder.glob("state/**/*.json")} == before
