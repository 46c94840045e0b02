# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._fleet import holder

PROCESS: dict[str, t.Any] = {
    "user": "alice",
    "host": "bastion",
    "place": "bastion/1a35c1ff/7",
    "pid": 4711,
    "ticks": 884321,
    "started": "2026-01-31T12:00:00Z",
    "url": "",
}


def test_a_person_at_a_prompt() -> None:
    said = holder.describe({}, PROCESS)
    assert said["words"] == "alice on bastion, pid 4711 since 2026-01-31T12:00:00Z"
    assert said["run"] == "bastion/1a35c1ff/7:4711:884321"
    assert holder.describe({}, {**PROCESS, "pid": 4712})["run"] != said["run"]
    assert holder.describe({}, {**PROCESS, "ticks": 9})["run"] != said["run"]
    assert holder.describe({}, PROCESS, "the night shift")["words"].startswith("the night shift on bastion")


@pytest.mark.parametrize("prefix", ["awx", "tower"])
def test_a_job_of_a_controller(prefix: str) -> None:
    variables = {f"{prefix}_job_id": 88, f"{prefix}_user_name": "bob"}
    said = holder.describe(variables, {**PROCESS, "url": "https://awx.example.net/"})
    assert "bob on bastion, job 88 (https://awx.example.net/#/jobs/playbook/88), pid 4711" in said["words"]
    assert said["about"]["job"] == "88" and said["about"]["url"].endswith("/88")
    # Another pod is the same job; another job, or another controller's, is another run.
    again = holder.describe(variables, {**PROCESS, "url": "https://awx.example.net", "pid": 1, "place": "pod"})
    assert again["run"] == said["run"]
    assert holder.describe({**variables, f"{prefix}_job_id": 89}, PROCESS)["run"] != said["run"]
    assert holder.describe(variables, {**PROCESS, "url": "https://other"})["run"] != said["run"]


def test_jobs_of_one_workflow_are_one_run() -> None:
    upgrade = holder.describe({"awx_job_id": 88, "awx_workflow_job_id": 80}, PROCESS)
    close = holder.describe({"awx_job_id": 91, "awx_workflow_job_id": 80}, PROCESS)
    assert upgrade["run"] == close["run"] and "job 88 of workflow 80" in upgrade["words"]


@pytest.mark.parametrize(
    ("about", "there", "gone"),
    [
        ({}, {}, True),
        ({}, {4711: 884321}, False),
        ({}, {4711: 5}, True),  # its number went to somebody else
        ({"place": "elsewhere/1/1"}, {}, False),
        ({"place": ""}, {}, False),
        ({"job": "88"}, {}, False),
        ({"pid": "4711"}, {}, False),
        ({"ticks": None}, {}, False),
    ],
)
def test_who_is_known_to_be_gone(about: dict[str, t.Any], there: dict[int, int], gone: bool) -> None:
    lease = {"run": "x", "about": {**PROCESS, "job": "", **about}}
    assert holder.gone(lease, PROCESS["place"], there.get) is gone
    assert not holder.gone({"run": "x"}, PROCESS["place"], there.get)
    assert not holder.gone(lease, "", there.get)
