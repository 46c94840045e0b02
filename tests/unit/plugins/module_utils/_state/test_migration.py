# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
import textwrap
import time
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import (
    CommandFailed,
    InputError,
    IntegrityError,
    Refused,
)
from ansible_collections.chainops.validator.plugins.module_utils._state import migration, restore, swap
from ansible_collections.chainops.validator.plugins.module_utils._state.migration import BACK, FORWARD, parse, rehearse, run

from .conftest import tree

XAI = adapter("xai")
#: One that other users may run as well.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
TOOL = f"""\
#!{PYTHON}
import json, os, sys
data, to = sys.argv[1], int(sys.argv[2])
where = os.path.join(data, "schema.json")
level = json.load(open(where))["level"]
if "--check" in sys.argv:
    sys.exit(0 if level == to else 3)
asked = os.path.join(data, "behave")
behave = open(asked).read() if os.path.exists(asked) else ""
source, target = os.path.join(data, f"state.{{level}}"), os.path.join(data, f"state.{{to}}")
text = open(source).read()
if behave == "half":
    os.unlink(source)
    print("the disk is full", file=sys.stderr)
    sys.exit(7)
if behave == "hang":
    import time
    time.sleep(60)
if behave != "lossy" or to > level:
    text = "\\n".join(reversed(text.split("\\n")))
with open(target, "w") as stream:
    stream.write(text)
os.unlink(source)
if behave != "forgets":
    with open(where, "w") as stream:
        json.dump({{"level": to}}, stream)
with open(os.path.join(data, "who"), "w") if behave == "who" else open(os.devnull, "w") as stream:
    json.dump([os.getuid(), dict(os.environ), os.getcwd(), sys.argv], stream)
"""


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """``data`` at level 1 and a release with a tool that takes it to 2 and back."""
    data = tmp_path / "srv" / "data"
    (data / "finality").mkdir(parents=True)
    (data / "schema.json").write_text('{"level": 1}')
    (data / "state.1").write_text("a\nb\nc")
    (data / "node_identity.json").write_text("key")
    (data / "finality/last_signed.json").write_text(json.dumps({"address": "k", "height": 3, "round": 0, "step": 1}))
    tool = tmp_path / "release" / "migrate"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    tool.chmod(0o755)
    return tmp_path


def step(**more: t.Any) -> dict[str, t.Any]:
    tool = "{release}/migrate"
    return {
        "id": "0002",
        "from_level": 1,
        "to_level": 2,
        "forward": [tool, "{data}", "2"],
        "back": [tool, "{data}", "1"],
        "reversible": True,
        **more,
    }


def forth(place: pathlib.Path, direction: str = FORWARD, timeout: float = 30, **more: t.Any) -> migration.MigrationResult:
    steps = parse([step()])
    return run(steps, str(place / "srv/data"), str(place / "release"), direction, timeout, adapter=XAI, instance="n1", **more)


@pytest.mark.parametrize("in_place", [False, True])
def test_forward_and_back(place: pathlib.Path, in_place: bool) -> None:
    data = str(place / "srv/data")
    before = tree(data)
    there = forth(place, in_place=in_place, digests=True)
    assert (there.from_level, there.to_level, there.changed) == (1, 2, True) and there.digest_before != there.digest_after
    assert (place / "srv/data/state.2").read_text() == "c\nb\na" and (place / "srv/data/node_identity.json").read_text() == "key"
    again = forth(place, in_place=in_place)
    assert not again.changed and again.steps[0]["skipped"] and again.old_trees == ()
    back = forth(place, BACK, in_place=in_place, digests=True)
    assert back.digest_after == there.digest_before and back.to_level == 1
    assert {name: item[-1] for name, item in tree(data).items()} == {name: item[-1] for name, item in before.items()}
    if not in_place:
        assert tree(there.old_trees[0]) == before
        assert restore.reap([*there.old_trees, *back.old_trees]) == 2


@pytest.mark.parametrize(
    ("behave", "kind", "text"),
    [
        ("half", CommandFailed, "exited 7: the disk is full"),
        ("hang", CommandFailed, "did not finish"),
        ("forgets", CommandFailed, "at level 1 and not 2"),
    ],
)
def test_a_failed_half_leaves_the_live_directory(place: pathlib.Path, behave: str, kind: type[Exception], text: str) -> None:
    (place / "srv/data/behave").write_text(behave)
    before = tree(str(place / "srv/data"))
    began = time.monotonic()
    with pytest.raises(kind, match=text):
        forth(place, timeout=1.5)
    assert time.monotonic() - began < 10
    assert tree(str(place / "srv/data")) == before
    assert not list(place.rglob("new-*")) and swap.pending(str(place / "srv/data"), "n1") is None


def test_a_rehearsal_compares_the_bytes(place: pathlib.Path) -> None:
    data, release = str(place / "srv/data"), str(place / "release")
    scratch = migration.scratch_copy(data, str(place / "scratch"), XAI)
    assert not (place / "scratch/data/node_identity.json").exists()
    done = rehearse(parse([step()]), scratch, release, 30, adapter=XAI)
    assert [(s["direction"], s["to_level"]) for s in done.steps] == [("forward", 2), ("back", 1), ("forward", 2)]
    assert json.loads((place / "scratch/data/schema.json").read_text()) == {"level": 2}
    assert json.loads((place / "srv/data/schema.json").read_text()) == {"level": 1}
    (place / "srv/data/behave").write_text("lossy")
    lossy = migration.scratch_copy(data, str(place / "lossy"), XAI)
    with pytest.raises(IntegrityError, match=r"state\.1 among them"):
        rehearse(parse([step()]), lossy, release, 30, adapter=XAI)
    with pytest.raises(Refused, match="not empty"):
        migration.scratch_copy(data, str(place / "scratch"), XAI)


def test_not_reversible_is_not_compared_and_one_way_stays_one_way(place: pathlib.Path) -> None:
    (place / "srv/data/behave").write_text("lossy")
    scratch = migration.scratch_copy(str(place / "srv/data"), str(place / "a"), XAI)
    assert len(rehearse(parse([step(reversible=False)]), scratch, str(place / "release"), 30, adapter=XAI).steps) == 3
    one_way = parse([step(reversible=False, back=[])])
    scratch = migration.scratch_copy(str(place / "srv/data"), str(place / "b"), XAI)
    assert len(rehearse(one_way, scratch, str(place / "release"), 30, adapter=XAI).steps) == 1
    with pytest.raises(Refused, match="no way back"):
        run(one_way, scratch, str(place / "release"), BACK, 30, adapter=XAI, in_place=True)


def test_several_steps_and_the_wrong_level(place: pathlib.Path) -> None:
    third = step(
        id="0003",
        from_level=2,
        to_level=3,
        forward=["{release}/migrate", "{data}", "3"],
        back=["{release}/migrate", "{data}", "2"],
    )
    steps = parse([step(), third])
    data, release = str(place / "srv/data"), str(place / "release")
    assert run(steps, data, release, FORWARD, 30, adapter=XAI, in_place=True).to_level == 3
    back = run(steps, data, release, BACK, 30, adapter=XAI, in_place=True)
    assert [s["id"] for s in back.steps] == ["0003", "0002"] and back.to_level == 1
    with pytest.raises(Refused, match="at level 1, but migration 0003 starts from level 2"):
        run(steps[1:], data, release, FORWARD, 30, adapter=XAI, in_place=True)
    (place / "srv/data/schema.json").write_text('{"level": 9}')
    with pytest.raises(Refused, match="at level 9"):
        run(steps, data, release, FORWARD, 30, adapter=XAI, in_place=True)


def test_commands_run_bare_and_as_the_owner(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "s3cret")
    (place / "srv/data/behave").write_text("who")
    uid = os.getuid()
    if uid == 0:
        uid = 65534
        for folder in [place, *place.parents]:
            if (
                str(folder).startswith(str(pathlib.Path(place).anchor))
                and folder != folder.parent
                and not folder.stat().st_mode & 1
            ):
                folder.chmod(folder.stat().st_mode | 0o011)
        for path in [place / "srv/data", *(place / "srv/data").rglob("*")]:
            os.chown(path, uid, uid)
    forth(place)
    who, env, cwd, argv = json.loads((place / "srv/data/who").read_text())
    assert who == uid and "SOME_SECRET" not in env and cwd == "/" and argv[2] == "2"
    found = os.stat(place / "srv/data/state.2")
    assert (found.st_uid, stat.S_IMODE(os.stat(place / "srv/data").st_mode)) == (uid, 0o755)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"forward": []}, "no forward command"),
        ({"forward": ["{home}/x"]}, "unknown placeholder {home}"),
        ({"forward": "rm -rf"}, "must be a list of strings"),
        ({"to_level": 1}, "to_level the higher one"),
        ({"from_level": "1"}, "whole numbers"),
        ({"from_level": True}, "whole numbers"),
        ({"id": ""}, "has no id"),
        ({"colour": "blue"}, "unknown keys: colour"),
        ({"back": []}, "needs a back command"),
    ],
)
def test_a_declaration_that_cannot_be_used_says_why(change: dict[str, t.Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse([step(**change)])
    assert text in caught.value.message and "migrations[0]" in caught.value.message


def test_steps_must_join() -> None:
    with pytest.raises(InputError, match="starts at level 5"):
        parse([step(), step(id="x", from_level=5, to_level=6)])
    with pytest.raises(InputError, match="must be a list"):
        parse(textwrap.dedent("nothing"))


def test_a_chain_without_levels_takes_every_step_in_order(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XAI records none. Steps that name levels, or none of them, can't be mixed."""
    monkeypatch.setattr(type(XAI), "storage_level", lambda self, data: None)
    first, second = (
        {"id": name, "forward": ["/bin/sh", "-c", f"echo {name} >> {{data}}/taken"], "back": ["/bin/true"]} for name in ("a", "b")
    )
    steps = parse([first, second])
    todo = [step["id"] for step in migration.preview(steps, str(place / "srv/data"), FORWARD, XAI).steps if not step["skipped"]]
    assert todo == ["a", "b"]
    run(steps, str(place / "srv/data"), str(place / "release"), FORWARD, 60, adapter=XAI, instance="n1")
    assert (place / "srv/data/taken").read_text() == "a\nb\n"
    with pytest.raises(InputError, match="starts at level"):
        parse([first, {**second, "from_level": 1, "to_level": 2}])
    with pytest.raises(InputError, match="both left out"):
        parse([{**first, "from_level": 1}])


def test_steps_without_levels_are_refused_where_the_chain_records_one(place: pathlib.Path) -> None:
    steps = parse([{"id": "a", "forward": ["/bin/true"]}])
    with pytest.raises(Refused, match="names no levels"):
        run(steps, str(place / "srv/data"), str(place / "release"), FORWARD, 60, adapter=XAI, instance="n1")


@pytest.mark.parametrize("said", [True, False, None])
def test_what_a_release_says_of_mixed_fleets_is_kept(said: bool | None) -> None:
    assert parse([{"id": "a", "forward": ["/bin/true"], "mixed_fleet": said}])[0].mixed_fleet is said
    with pytest.raises(InputError, match="mixed_fleet"):
        parse([{"id": "a", "forward": ["/bin/true"], "mixed_fleet": "maybe"}])
