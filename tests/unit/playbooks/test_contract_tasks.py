# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the API answered before a rollout, and what monitoring said, as preflight records it and the hosts keep it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml

pytest.importorskip("ansible.cli")

from ansible_collections.chainops.validator.plugins.module_utils._contract import contract
from ansible_collections.chainops.validator.tests.unit.playbooks.alertmanager import Alertmanager
from ansible_collections.chainops.validator.tests.unit.playbooks.fleet_of_files import Fleet
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._contract.test_contract import HASH, Node, node

__all__ = ["node"]

found = importlib.util.find_spec("ansible_collections.chainops.validator.plugins")
COLLECTIONS = pathlib.Path(next(iter(found.submodule_search_locations or ())) if found else "").parents[3]
MUTE = {"config": {"original": "receivers:\n- name: operators\n"}}
HOSTS = ["a", "b"]


def play(
    folder: pathlib.Path,
    url: str,
    *more: str,
    begin: str = "witness",
    after: t.Sequence[dict[str, t.Any]] = (),
    **variables: t.Any,
) -> tuple[bool, str]:
    """Runs the tasks with two hosts that are directories of this machine: whether it went well, and all that was said."""
    hosts = {
        name: {"preflight_host": {"variables": {"validator_state_dir": str(folder / name), "validator_instance": "v"}}}
        for name in HOSTS
    }
    base = {
        "validator_become": False,
        "rollout_id": "up/../grade 1",
        "rollout_hosts": HOSTS,
        "rollout_gateway_url": url,
        "rollout_contract_options": {"generated": 0},
        "govern_gate": {"proposal": {"submitted_txid": HASH}},
        **variables,
    }
    inventory = {"all": {"hosts": {**hosts, "localhost": base}, "vars": {"ansible_connection": "local"}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    role = {"name": "chainops.validator.preflight", "tasks_from": begin, "rolespec_validate": False}
    tasks = [{"name": "Record", "ansible.builtin.include_role": role}, *after]
    (folder / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), encoding="utf-8"
    )
    env = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(folder / "hosts.yml"), *more, str(folder / "play.yml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert "failed=" in done.stdout, done.stdout + done.stderr
    return done.returncode == 0, done.stdout


def kept(folder: pathlib.Path, what: str = "witness") -> dict[str, str]:
    return {path.parents[2].name: path.read_text() for path in sorted(folder.glob(f"*/v/evidence/{what}-*"))}


def test_the_first_record_is_kept_on_every_host_and_counts(node: Node, tmp_path: pathlib.Path) -> None:
    well, said = play(tmp_path, node.url, "--check")
    assert well and kept(tmp_path) == {}, said
    well, said = play(tmp_path, node.url)
    assert well, said
    first = kept(tmp_path)
    assert set(first) == set(HOSTS) and len(set(first.values())) == 1
    assert contract.unpack(first["a"])["exercised"][0] == "GET /block/{block_hash}"
    (path,) = (tmp_path / "b").glob("v/evidence/*")
    path.unlink()  # the controller died before it had written all of them
    node.asked.clear()
    replay = {
        "chainops.validator.openapi_contract_info": {
            "base_url": "{{ rollout_gateway_url }}",
            "generated": 0,
            "mode": "replay",
            "witness": "{{ preflight_witness }}",
            "parameters": {"txid": HASH},
        },
        "register": "again",
        "failed_when": "not again.verdict.ok",
    }
    node.twist = lambda path, status, body: (status, {**body, "uptime": None}) if path == "/health" else (status, body)
    well, said = play(tmp_path, node.url, after=[replay])
    assert not well and "$.uptime can be null now" in said
    assert kept(tmp_path) == first


def test_hosts_that_remember_different_answers_stop_a_rollout(node: Node, tmp_path: pathlib.Path) -> None:
    assert play(tmp_path, node.url)[0]
    (path,) = (tmp_path / "b").glob("v/evidence/*")
    path.write_text(path.read_text() + " ")
    well, said = play(tmp_path, node.url)
    assert not well and "hold different records" in said


def test_a_rollout_does_not_begin_with_an_operation_that_can_not_be_asked(node: Node, tmp_path: pathlib.Path) -> None:
    node.twist = lambda path, status, body: (status, {"blocks": []}) if path == "/blocks" else (status, body)
    well, said = play(tmp_path, node.url)
    assert not well and "no host was touched" in said and "GET /blocks/{index} was skipped" in said
    assert kept(tmp_path) == {}
    assert play(
        tmp_path, node.url, rollout_contract_options={"generated": 0, "parameters": {"index": "1", "block_hash": "1".zfill(64)}}
    )[0]


def test_a_record_that_can_not_be_read_is_no_record_that_isnt_there(node: Node, tmp_path: pathlib.Path) -> None:
    assert play(tmp_path, node.url)[0]
    (path,) = (tmp_path / "b").glob("v/evidence/*")
    path.unlink()
    path.mkdir()
    well, _said = play(tmp_path, node.url)
    assert not well and set(kept_files(tmp_path)) == {"a"}


def kept_files(folder: pathlib.Path) -> list[str]:
    return [path.parents[2].name for path in folder.glob("*/v/evidence/witness-*") if path.is_file()]


@pytest.fixture
def alertmanager() -> t.Iterator[Alertmanager]:
    with contextlib.closing(Alertmanager(lambda method, path: True)) as one:
        yield one


def test_what_monitoring_said_first_counts_and_not_what_upgraded_hosts_broke_since(
    alertmanager: Alertmanager, tmp_path: pathlib.Path
) -> None:
    tell = {"ansible.builtin.debug": {"msg": "excused: {{ preflight_monitoring.findings | map(attribute='id') | join(' ') }}."}}

    def begin(*more: str) -> tuple[bool, str]:
        asked = {"alertmanager_url": alertmanager.url}
        return play(tmp_path, "", *more, begin="monitoring", after=[tell], rollout_monitoring=asked)

    well, said = begin("--check")
    assert well and "excused: ." in said and kept(tmp_path, "monitoring") == {}, said
    assert begin()[0]
    first = kept(tmp_path, "monitoring")
    assert set(first) == set(HOSTS) and len(set(first.values())) == 1
    alertmanager.answers["/api/v2/status"] = MUTE
    well, said = begin()
    assert well and "excused: ." in said and kept(tmp_path, "monitoring") == first, said
    for path in tmp_path.glob("*/v/evidence/monitoring-*"):
        path.unlink()
    well, said = begin()
    assert well and "excused: alertmanager:mute." in said, "had it been so before"
    (path,) = tmp_path.glob("b/v/evidence/monitoring-*")
    path.write_text(first["b"])
    well, said = begin()
    assert not well and "hold different records of what monitoring said" in " ".join(said.split())


def test_the_fleet_is_verified_against_what_its_hosts_keep_and_says_when_there_is_nothing(
    node: Node, alertmanager: Alertmanager, tmp_path: pathlib.Path
) -> None:
    fleet = Fleet(tmp_path, 1)
    api = {
        "rollout_gateway_url": node.url,
        "rollout_contract_options": {"generated": 0, "parameters": {"txid": HASH}},
        "rollout_monitoring": {"alertmanager_url": alertmanager.url},
    }
    code, said = fleet.run("verify", **api)
    assert code == 0 and "No host keeps a record of how it answered before rollout p7" in " ".join(said.split()), said
    assert "No host keeps a record of what monitoring said before rollout p7" in " ".join(said.split()), said
    code, said = fleet.run("upgrade", **api)
    assert code == 0, said
    code, said = fleet.run("verify", **api)
    assert code == 0 and "compared with how it answered before rollout p7, as h1 keep it" in " ".join(said.split()), said
    # It gets as far as the contract only if what monitoring says now is excused by what it said then.
    alertmanager.answers["/api/v2/status"] = MUTE
    (record,) = tmp_path.glob("state/h1/evidence/monitoring-*")
    record.write_text(json.dumps({"findings": [{"id": "alertmanager:mute"}], "values": {}}))
    node.twist = lambda path, status, body: (status, {**body, "uptime": None}) if path == "/health" else (status, body)
    code, said = fleet.run("verify", **api)
    assert code != 0 and "$.uptime can be null now" in said
    (record,) = tmp_path.glob("state/h1/evidence/witness-*")
    record.write_text("")
    code, said = fleet.run("verify", **api)
    assert code != 0 and "needs the witness" in said, "a record that was lost is not one that never was"
