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

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
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


def test_every_host_keeps_what_every_other_wrote_down_and_verify_says_so(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path)
    code, said = fleet.run("upgrade")
    assert code == 0, said
    assert whole(fleet) and fleet.recorded("h1") == ["upgrade", "finish"]
    assert "3 of 3 manifests are kept whole by every other host" in said
    before = {pair: copy(fleet, *pair).stat().st_mtime_ns for pair in pairs(fleet)}
    code, said = fleet.run("verify", rollout_gateway_url="")
    assert code == 0, said
    assert "3 of 3 manifests are kept whole by every other host" in said
    assert {pair: copy(fleet, *pair).stat().st_mtime_ns for pair in pairs(fleet)} == before
    code, said = fleet.run("rollback")
    assert code == 0, said
    assert whole(fleet) and fleet.recorded("h1") == ["upgrade", "finish", "rollback", "finish"]


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


def test_a_manifest_that_was_rewritten_stops_a_rollout_before_anything_is_touched(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    assert fleet.run("upgrade")[0] == 0
    assert fleet.run("rollback")[0] == 0
    kept = copy(fleet, "h2", "h1").read_bytes()
    end = manifest.read(str(own(fleet, "h1")))[-1]
    rewrite(own(fleet, "h1"), proposal_id="another")
    other = manifest.read(str(own(fleet, "h1")))[-1]
    fleet.change(calls=[])
    for playbook in ("upgrade", "verify"):
        code, said = fleet.run(playbook)
        assert code != 0, said
        told = words(said)
        assert "REFUSED: h1's manifest is not the one that is kept on h2" in told, told
        assert f"entry 4 is {other.hash} there, and {end.hash} is kept: it was rewritten" in told, told
        assert "roles/record/README.md" in told
    assert touched(fleet) == [] and copy(fleet, "h2", "h1").read_bytes() == kept
    assert [fleet.lease(host)["released"] for host in fleet.hosts] == [True, True]
    # Going back waits for nobody, and says so all the same.
    code, said = fleet.run("close")
    assert code != 0 and "REFUSED: h1's manifest" in words(said) and fleet.drained() == []


def test_a_manifest_that_is_cut_meanwhile_stops_the_rollout_before_the_next_host(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 3)
    hook = tmp_path / "hook.yml"
    # After h1's turn somebody on it makes a manifest of its own; what is recorded then belongs to that.
    entry = {"kind": "upgrade", "rollout_id": "evil", "turn_id": "evil"}
    evil = tmp_path / "evil.json"
    manifest.append(str(evil), entry)
    own(fleet, "h1").parent.mkdir(exist_ok=True)
    manifest.append(str(own(fleet, "h1")), {**entry, "rollout_id": "old"})
    tasks = [
        {
            "name": "Exchange it",
            "ansible.builtin.copy": {"src": str(evil), "dest": str(own(fleet, "h1")), "mode": "0644"},
            "when": "inventory_hostname == 'h1'",
        }
    ]
    hook.write_text(json.dumps(tasks))
    code, said = fleet.run("upgrade", rollout_hooks={"post_upgrade": str(hook)})
    told = words(said)
    assert code != 0 and "h2 is not touched" in told and "h1's manifest is not the one that is kept on h2" in told, told
    assert fleet.releases() == {"h1": "new", "h2": "old", "h3": "old"} and fleet.drained() == []
    assert fleet.lease("h3")["released"]


def test_a_host_that_lost_its_manifest_is_told_who_keeps_it_and_gets_it_back(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    assert fleet.run("upgrade")[0] == 0
    own(fleet, "h1").unlink()
    code, said = fleet.run("verify")
    assert code != 0 and "kept on h2: there is none any more, and entry 2" in words(said)
    own(fleet, "h1").write_bytes(copy(fleet, "h2", "h1").read_bytes())
    code, said = fleet.run("verify")
    assert code == 0, said


def test_a_disk_that_takes_no_copy_stops_nobody_and_is_caught_up_with(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    in_the_way = fleet.folder / "state" / "h2" / replica.DIRECTORY
    in_the_way.write_text("in the way")
    code, said = fleet.run("upgrade")
    assert code == 0, said
    assert "h2 is behind with h1" in said
    in_the_way.unlink()
    code, said = fleet.run("verify")
    assert code == 0 and "h2 is behind with h1" in said, said
    code, said = fleet.run("close")
    assert code == 0 and whole(fleet), said


def test_a_rehearsal_keeps_nothing(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    manifest_of = {host: {"kind": "upgrade", "turn_id": f"old-{host}"} for host in fleet.hosts}
    for host, entry in manifest_of.items():
        manifest.append(str(own(fleet, host)), entry)
    code, said = fleet.run("upgrade", "--check")
    assert code == 0, said
    assert list(fleet.folder.glob("state/*/replicas")) == []
    assert canonical.loads(own(fleet, "h1").read_bytes())["entries"][0]["seq"] == 1
