# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever becomes of monitoring: nobody's lease is held for it, and what could not be put in order is told."""

from __future__ import annotations

import pathlib
import signal
import typing as t

import pytest

pytest.importorskip("ansible.module_utils.testing")
pytest.importorskip("ansible.cli")

from ansible_collections.chainops.validator.tests.unit.playbooks.alertmanager import Alertmanager
from ansible_collections.chainops.validator.tests.unit.playbooks.fleet_of_files import Fleet

NOBODY = {"alertmanager_url": "http://127.0.0.1:1"}


@pytest.fixture
def alertmanager() -> t.Iterator[t.Callable[[t.Callable[[str, str], bool]], Alertmanager]]:
    made: list[Alertmanager] = []

    def make(well: t.Callable[[str, str], bool]) -> Alertmanager:
        made.append(Alertmanager(well))
        return made[-1]

    yield make
    for one in made:
        one.close()


def released(fleet: Fleet) -> list[bool]:
    return [fleet.lease(host)["released"] for host in fleet.hosts]


@pytest.mark.parametrize("playbook", ["close", "resume"])
def test_what_was_left_is_put_in_order_without_alertmanager(tmp_path: pathlib.Path, playbook: str) -> None:
    fleet = Fleet(tmp_path)
    fleet.change(faults={"validator_upgrade/h2": {"kill": True}})
    assert fleet.run("upgrade")[0] == -signal.SIGKILL
    assert fleet.drained() == ["h2"] and fleet.recorded("h2") == []

    code, said = fleet.run(playbook, rollout_monitoring=NOBODY)
    assert "Alertmanager was not reached" in said and "ends by itself" in said
    assert fleet.drained() == [] and fleet.recorded("h2") == ["upgrade"]
    assert released(fleet) == [True] * 3
    # Nobody is drained without a silence, so the third host waits for Alertmanager; what was left did not.
    assert (code == 0) is (playbook == "close"), said
    assert fleet.releases() == {"h1": "new", "h2": "new", "h3": "old"}


def test_hosts_that_do_not_serve_are_named_and_not_held(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 1)
    fleet.change(faults={"validator_upgrade/h1": {"kill": True}})
    assert fleet.run("upgrade")[0] == -signal.SIGKILL
    fleet.change(faults={"validator_info/": {"answer": {"met": False, "reasons": ["it stands still"]}}})
    code, said = fleet.run("close")
    assert code != 0 and "does not follow the chain (it stands still)" in " ".join(said.split())
    assert fleet.drained() == ["h1"] and released(fleet) == [True]


def test_a_silence_that_stays_stops_no_rollout(tmp_path: pathlib.Path, alertmanager: t.Any) -> None:
    there = alertmanager(lambda method, path: method != "DELETE")
    fleet = Fleet(tmp_path, 2)
    code, said = fleet.run("upgrade", rollout_monitoring={"alertmanager_url": there.url})
    assert code == 0, said
    assert "Alertmanager was not reached for" in said
    assert [silence["status"]["state"] for silence in there.silences] == ["active"] * 2
    assert set(fleet.releases().values()) == {"new"} and released(fleet) == [True] * 2


def down_after_the_first_turn() -> t.Callable[[str, str], bool]:
    """Alertmanager goes when it has removed a silence."""
    asked: list[str] = []

    def well(method: str, path: str) -> bool:
        asked.append(method)
        return "DELETE" not in asked[:-1]

    return well


def test_monitoring_that_is_worse_at_the_end_holds_nobody(tmp_path: pathlib.Path, alertmanager: t.Any) -> None:
    there = alertmanager(down_after_the_first_turn())
    fleet = Fleet(tmp_path, 1)
    code, said = fleet.run("upgrade", rollout_monitoring={"alertmanager_url": there.url})
    assert code != 0 and "alertmanager is down" in " ".join(said.split())
    assert [silence["status"]["state"] for silence in there.silences] == ["expired"]
    assert fleet.releases() == {"h1": "new"} and fleet.drained() == [] and released(fleet) == [True]


def test_the_way_back_in_the_same_run_does_not_wait_for_monitoring(tmp_path: pathlib.Path, alertmanager: t.Any) -> None:
    there = alertmanager(down_after_the_first_turn())
    fleet = Fleet(tmp_path, 2)
    fleet.change(faults={"api_drain/h1": {"gate": "rolled_back"}})
    code, said = fleet.run("upgrade", rollout_on_withdrawn="rollback", rollout_monitoring={"alertmanager_url": there.url})
    assert code != 0 and "it is rolled_back" in said and "were taken back to the release before" in " ".join(said.split())
    assert fleet.turns() == {"h1": ["forward", "back"], "h2": []} and set(fleet.releases().values()) == {"old"}
    assert fleet.drained() == [] and released(fleet) == [True] * 2


def test_a_rollout_that_can_not_begin_holds_nobody(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 1)
    code, said = fleet.run("upgrade", rollout_gateway_url="http://127.0.0.1:1")
    assert code != 0 and "Ask everything that the API's document has" in said
    assert fleet.releases() == {"h1": "old"} and released(fleet) == [True]
