# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

pytest.importorskip("ansible.plugins.callback")

from ansible_collections.chainops.validator.plugins.callback import timeline


def said(height: int, **more: t.Any) -> dict[str, t.Any]:
    what = {"wait_for": "open", "stage": "proposed", "missing": ["4 of 5 yes voters"], "waits": [], **more}
    return {"at": f"t{height}", "waited": height * 1.0, "height": height, "text": f"line {height}", **what}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "progress"
    path.write_text(json.dumps(said(1)) + "\n")
    return path


def append(path: pathlib.Path, *reports: t.Any, end: str = "\n") -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("\n".join(json.dumps(report) for report in reports) + end)


def test_only_what_is_new_is_shown(file: pathlib.Path) -> None:
    progress = timeline.Progress(str(file))
    assert progress.news() == []  # of an earlier run
    append(file, said(2), said(3), said(4, missing=["5 of 5 code reviewers"]))
    assert progress.news() == ["line 2", "line 4"]
    append(file, said(5, missing=["5 of 5 code reviewers"]))
    assert progress.news() == []
    append(file, said(6, stage="approved_voting"))
    assert progress.news() == ["line 6"]


def test_a_countdown_is_shown_once(file: pathlib.Path) -> None:
    progress = timeline.Progress(str(file))
    for left in (30, 20, 10, 1):
        waits = [{"what": "timelock", "until_height": 99, "blocks_left": left, "seconds": left * 1.0}]
        append(file, said(99 - left, missing=["4 of 5 voters", f"it ends in {left} blocks, about {left} s"], waits=waits))
    append(file, said(99, missing=["3 of 5 voters", "it ends in 0 blocks, about 0 s"], waits=waits))
    assert progress.news() == ["line 69", "line 99"]


def test_half_a_line_is_waited_for_and_rubbish_is_passed_over(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "progress"
    progress = timeline.Progress(str(path))
    assert progress.news() == []  # not there yet
    append(path, said(1), end="")
    assert progress.news() == []
    append(path, end="\nrubbish\n[]\n{}\n")
    append(path, said(2, stage="voted"))
    assert progress.news() == ["line 1", "line 2"]


def test_a_gate_that_was_waited_for_says_how_long() -> None:
    result = {"verdict": {"open": True, "reasons": []}, "wait": {"waited": 12.5}}
    assert timeline.told("governance_proposal_info", result) == "open after 12.50 s"
    assert timeline.told("governance_proposal_info", {"verdict": {"open": False, "reasons": ["no"]}}) == "CLOSED: no"


COPIES = [
    {"origin": "v1", "state": "extended", "reason": ""},
    {"origin": "v2", "state": "refused", "reason": "entry 2 is a there"},
]


def test_what_became_of_copies_is_told() -> None:
    assert timeline.told("migration_manifest", {"replicas": COPIES}) == "1 extended, 1 refused"
    assert timeline.told("migration_manifest", {"failed": True, "error": {"replicas": COPIES}}) == "1 extended, 1 refused"
    assert timeline.told("migration_manifest", {"entry": {}}) == ""


@pytest.mark.parametrize(
    ("before", "copies", "quiet", "says"),
    [
        (5, [], True, "held, token 5"),
        (5, COPIES[:1], True, "held, token 5"),
        (4, COPIES[:1], False, "held, token 5"),
        (5, COPIES, False, "held, token 5; REFUSED to keep another history of v2: entry 2 is a there"),
    ],
)
def test_a_renewal_is_told_when_something_that_came_along_was_refused(
    before: int, copies: list[dict[str, str]], quiet: bool, says: str
) -> None:
    changed = before != 5 or bool(copies)
    result = {"granted": True, "changed": changed, "before": {"token": before}, "lock": {"token": 5}, "replicas": copies}
    assert timeline.same_lease(result) is quiet and timeline.told("rollout_lock", result) == says
