# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._host import aftermath
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest

PLAN: dict[str, t.Any] = {
    "proof": {"proposal_id": "p7", "break_glass": {"reason": "cve", "expires_height": 9, "signatures": ["x"]}},
    "migrations": [{"id": "0002"}],
    "proof_sha256": "f" * 64,
}
RESULT: dict[str, t.Any] = {
    "id": "p7-h1-1",
    "rollout_id": "p7",
    "direction": "forward",
    "outcome": "committed",
    "touched": True,
    "ended": 5.0,
    "old": {"path": "/r/a", "sha256": "a" * 64, "level": 1},
    "new": {"id": "2.0.0", "sha256": "b" * 64},
    "commit": {"runs": True},
    "snapshot": {"id": "turn-p7-h1-1", "sha256": "c" * 64},
}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "upgrade"),
        ({"direction": "back"}, "rollback"),
        ({"outcome": "put_back", "commit": None}, "put_back"),
        ({"outcome": "failed", "commit": None}, "put_back"),
        ({"outcome": "failed", "commit": {"runs": False}}, "upgrade"),  # committed, and then it died
        ({"outcome": "put_back", "commit": None, "touched": False}, None),
        ({"outcome": "failed", "commit": None, "ended": None}, None),  # it rests: whoever resumes it decides what it comes to
        ({"outcome": "running", "ended": None}, None),
    ],
)
def test_what_a_turn_is_due(change: dict[str, t.Any], kind: str | None) -> None:
    due = aftermath.entry(PLAN, {**RESULT, **change})
    assert (due and due["kind"]) == kind


def test_the_entry_says_where_back_is_and_under_which_proof(tmp_path: t.Any) -> None:
    due = aftermath.entry(PLAN, RESULT)
    assert due is not None and due["previous"] == RESULT["old"] and due["snapshot_id"] == "turn-p7-h1-1"
    assert due["proof_sha256"] == canonical.digest(PLAN["proof"]) and due["proposal_id"] == "p7"
    assert due["break_glass"] == {"reason": "cve", "expires_height": 9} and due["migrations"] == ["0002"]
    back = aftermath.entry({"proof": {}, "proof_sha256": "f" * 64}, {**RESULT, "direction": "back"})
    assert back is not None and back["proof_sha256"] == "f" * 64 and back["break_glass"] == {}
    path = str(tmp_path / manifest.NAME)
    assert not aftermath.recorded(manifest.read(path), RESULT["id"])
    manifest.append(path, due)
    assert aftermath.recorded(manifest.read(path), RESULT["id"])
