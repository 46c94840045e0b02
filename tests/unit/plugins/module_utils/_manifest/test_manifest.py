# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json
import pathlib
import subprocess
import sys
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._manifest import evidence
from ansible_collections.chainops.validator.plugins.module_utils._manifest.manifest import (
    START,
    append,
    head,
    protected,
    read,
    sound,
    verify,
)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "migration_manifest.json")


def entry(number: int, **more: t.Any) -> dict[str, t.Any]:
    return {"kind": "upgrade", "rollout_id": "r1", "turn_id": f"t{number}", "snapshot_id": f"s{number}", **more}


def test_entries_follow_one_another(path: str) -> None:
    assert read(path) == () and verify(path) == [] and head(path) == START
    first, second = append(path, entry(1)), append(path, entry(2))
    assert (first.seq, first.prev, second.seq, second.prev) == (1, START, 2, first.hash)
    assert head(path) == second.hash and read(path) == (first, second)
    assert append(path, entry(1)) == first and len(read(path)) == 2
    with pytest.raises(Refused, match="another snapshot_id"):
        append(path, entry(1, snapshot_id="other"))
    append(path, entry(1, kind="rollback"))
    assert len(read(path)) == 3


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"kind": "other"},
        {"kind": "upgrade", "seq": 5},
        {"kind": "upgrade", "evidence": []},
        {"kind": "upgrade", "x": float("nan")},
        {"kind": "upgrade", "x": {1, 2}},
    ],
)
def test_what_is_no_entry(path: str, bad: dict[str, t.Any]) -> None:
    with pytest.raises(InputError):
        append(path, bad)
    assert not pathlib.Path(path).exists()


CHANGES: dict[str, tuple[t.Callable[[list[t.Any]], t.Any], str]] = {
    "edited": (lambda e: e[1].update(snapshot_id="evil"), "entry 2: its content does not match"),
    "dropped": (lambda e: e.pop(1), "entry 2: it says it is number 3"),
    "first dropped": (lambda e: e.pop(0), "entry 1: it says it is number 2"),
    "exchanged": (lambda e: e.__setitem__(slice(0, 2), [e[1], e[0]]), "entry 1: it says"),
    "added": (lambda e: e.insert(1, copy.deepcopy(e[0])), "entry 2: it says it is number 1"),
    "no entry": (lambda e: e.append("x"), "entry 4: not an entry"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_first_broken_entry_is_named_and_nothing_is_added(path: str, name: str) -> None:
    for number in range(3):
        append(path, entry(number))
    change, text = CHANGES[name]
    value = json.loads(pathlib.Path(path).read_text())
    change(value["entries"])
    pathlib.Path(path).write_text(json.dumps(value))
    broken = pathlib.Path(path).read_bytes()
    assert len(verify(path)) == 1 and verify(path)[0].startswith(text)
    for act in (lambda: append(path, entry(9)), lambda: read(path), lambda: head(path), lambda: protected(path)):
        with pytest.raises(IntegrityError):
            act()
    assert pathlib.Path(path).read_bytes() == broken
    assert len(sound(path)) == int(text.split()[1].rstrip(":")) - 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_byte_shows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    place = tmp_path_factory.mktemp("m") / "m.json"
    for number in range(2):
        append(str(place), entry(number))
    raw = bytearray(place.read_bytes())
    before = json.loads(raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    place.write_bytes(raw)
    try:
        same = json.loads(raw) == before
    except ValueError:
        same = False
    assert bool(verify(str(place))) != same


def test_writers_at_once_lose_nothing(path: str) -> None:
    code = """
import sys
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy
from ansible_collections.chainops.validator.plugins.module_utils._manifest.manifest import append
done = 0
while done < 10:
    try:
        append(sys.argv[1], {"kind": "upgrade", "turn_id": f"{sys.argv[2]}-{done}"})
        done += 1
    except Busy:
        pass
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, path, str(n)], env={"PYTHONPATH": ":".join(sys.path)}) for n in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(read(path)) == 30 and verify(path) == []


def test_rollback_points_are_needed_until_the_rollout_is_finished(path: str) -> None:
    append(path, entry(1))
    append(path, entry(2, rollout_id="r2"))
    assert set(protected(path)) == {"s1", "s2"}
    append(path, {"kind": "finish", "rollout_id": "r1"})
    assert protected(path) == {"s2": "rollback point of rollout r2, which is not finished"}


def test_digests_of_evidence_are_kept_and_show_what_was_changed(path: str, tmp_path: pathlib.Path) -> None:
    log, plan = tmp_path / "evidence/lock.jsonl", tmp_path / "journal/t1/plan.json"
    for one in (log, plan):
        one.parent.mkdir(parents=True)
    log.write_bytes(b"one\ntorn" + b"\0" * 5 + b"\n" + b"\0" * 50)
    plan.write_bytes(b"{}")
    missing = tmp_path / "evidence/none"
    told = evidence.seen(str(tmp_path), [str(log), str(plan), str(missing)])
    assert [(one["path"], one["size"]) for one in told] == [("evidence/lock.jsonl", 4), ("journal/t1/plan.json", 2)]
    added = append(path, entry(1), told)
    assert added.fields["evidence"] == told
    # The same said again is the same, whatever became of the files.
    assert append(path, entry(1), told[:1]) == added
    log.write_bytes(b"one\ntwo\n" + b"\0" * 50)
    assert evidence.changed(str(tmp_path), read(path)) == []
    log.write_bytes(b"One\ntwo\n")
    plan.unlink()
    assert evidence.changed(str(tmp_path), read(path)) == ["entry 1: evidence/lock.jsonl was changed after it was recorded"]
    log.write_bytes(b"on")
    assert len(evidence.changed(str(tmp_path), read(path))) == 1


def test_digests_of_what_lies_elsewhere_are_not_looked_at(path: str, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    append(path, entry(1), [{"path": "../outside", "size": 1, "sha256": "0"}, {"path": str(outside), "size": 1, "sha256": "0"}])
    assert evidence.changed(str(tmp_path / "inside"), read(path)) == []
