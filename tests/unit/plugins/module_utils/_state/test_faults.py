# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk can do to a snapshot, a restore and a migration: fail at any call, fill up, lie, lose power.

Whatever happens, each live directory is the old one or the new one, whole; what was signed last is never forgotten; what
comes out is an error of ours; and once the disk is well again the same act succeeds.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._state import restore, snapshot
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import freeze
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify
from ansible_collections.chainops.validator.plugins.module_utils._state.watermark import Watermark

from .conftest import KEY, make_node
from .test_restore import QUIET, copied, leftovers, quick_place, sealed_then_changed, signed, without_signing

__all__ = ["quick_place"]

HERE = pathlib.Path(__file__).parent
ONCE, FOREVER, KILL = range(3)
OPEN, CREATE, READ, WRITE, SYNC, RENAME, LINK, MKDIR, UNLINK, TRUNCATE, META, CLONE, LOOK = (1 << n for n in range(13))
ALL = (1 << 13) - 1
FILLING = CREATE | WRITE | RENAME | LINK | MKDIR | TRUNCATE | META | CLONE
CHANGING = FILLING | SYNC | UNLINK

#: How a disk fails: at which calls, what fails from then on (0: nothing), and with what.
DISKS = {
    "a bad moment": (ALL, 0, errno.EIO),
    "dead": (CHANGING, ALL, errno.EIO),
    "full": (FILLING, FILLING, errno.ENOSPC),
    "over quota": (FILLING, 0, errno.EDQUOT),
    "read-only": (CHANGING, CHANGING, errno.EROFS),
}


class FailingDisk:
    """A process that carries out acts on a disk that fails as it is told."""

    def __init__(self, shim: pathlib.Path) -> None:
        root = pathlib.Path(restore.__file__).parents[6]
        path = os.pathsep.join([str(root), *(entry for entry in sys.path if entry)])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "faultchild.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def do(self, act: str, below: pathlib.Path, **order: t.Any) -> dict[str, t.Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"act": act, "below": str(below), **order}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, t.Any] = json.loads(self.process.stdout.readline())
        assert "foreign" not in answer, answer["foreign"]
        return answer


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[FailingDisk]:
    shim = tmp_path_factory.mktemp("shim") / "faultshim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "faultshim.c", "-ldl"], check=True)
    running = FailingDisk(shim)
    yield running
    assert running.process.stdin is not None
    running.process.stdin.close()
    running.process.wait(30)


def at_every_call(disk: FailingDisk, kind: str, act: str, below: pathlib.Path, **order: t.Any) -> t.Iterator[dict[str, t.Any]]:
    """Let the act meet the fault at its first call, at its second, and so on, until none is left.

    Each time everything below the folder is as it was at the beginning.
    """
    template = below.with_name("template")
    copied(below, template)
    counted, afterwards, code = DISKS[kind]
    how = FOREVER if afterwards else ONCE
    at = 0
    while True:
        at += 1
        answer = disk.do(act, below, counted=counted, afterwards=afterwards, errno=code, how=how, at=at, **order)
        if not answer["failed"]:
            assert "result" in answer, answer
            assert at > 10
            return
        # An error says what the disk said; but makedirs, when it can't look, says that something is in the way.
        said = answer.get("message", os.strerror(code))
        assert os.strerror(code) in said or os.strerror(errno.EEXIST) in said, f"at {at}: {answer}"
        yield {"at": at, **answer}
        shutil.rmtree(below)
        copied(template, below)


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_fails_anywhere_in_a_restore(disk: FailingDisk, quick_place: pathlib.Path, kind: str) -> None:
    work = quick_place / "node"
    node = make_node(work)
    node.write("blocks/large", os.urandom(300_001))
    path, then = sealed_then_changed(node)
    old, new = without_signing(node.contents()), without_signing(then)
    seen = set()
    order = {"roots": [(r.name, r.path) for r in node.roots], "snapshot": path, "key": KEY}
    for answer in at_every_call(disk, kind, "put_back", work, **order):
        live = without_signing(node.contents())
        assert all(live[root] in (old[root], new[root]) for root in live), f"neither old nor new: {answer}"
        assert signed(node) == 12, answer
        assert pathlib.Path(node.data, "node_identity.json").read_text() == "a newer key", answer
        interrupted = restore.pending(node.data, "n1") is not None
        seen.add(("result" in answer, interrupted, live == new))
        if "result" in answer:
            assert live == new and not interrupted, f"said to be done, and is not: {answer}"
        if interrupted:
            # What a disk that died in the midst of the swap leaves to whoever comes when it is back.
            done = restore.finish(node.data, "n1")
            assert done is not None and without_signing(node.contents()) == new, answer
            assert all(os.path.lexists(tree) for tree in done.old_trees) and len(done.old_trees) == 3, answer
        elif live == old and answer["at"] % 4:
            continue  # each time would take its time
        again = restore.restore(path, node.roots, QUIET, {}, Watermark(9, 0, 0, KEY))
        assert without_signing(node.contents()) == new and signed(node) == 12 and not leftovers(node), answer
        assert again.watermark == Watermark(12, 0, 3, KEY)
    # Before the swap, and in the midst of it.
    assert {(False, False, False), (False, True, False)} <= seen


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_fails_anywhere_in_a_snapshot(disk: FailingDisk, quick_place: pathlib.Path, kind: str) -> None:
    work = quick_place / "node"
    node = make_node(work)
    node.write("blocks/large", os.urandom(300_001))
    place = snapshot.sealed_path(node.spec().snapshots_dir, "s1")
    data = os.path.join(node.data, "blocks")
    before = {name: (pathlib.Path(data, name).read_bytes()) for name in os.listdir(data)}
    for answer in at_every_call(disk, kind, "take", work, roots=[(r.name, r.path) for r in node.roots]):
        for name in ("blocks_0.json", "large"):
            assert pathlib.Path(data, name).read_bytes() == before[name], answer
        finished = os.path.isdir(place)
        assert finished or "result" not in answer, f"said to be sealed, and is not: {answer}"
        if finished:
            verdict = verify(place)
            assert verdict.ok, f"sealed, but not whole: {answer}: {verdict.problems}"
            assert restore.differences(place, node.roots, QUIET) == [], answer
        elif answer["at"] % 4:
            continue  # each time would take its time
        else:
            done = freeze(node.spec(), {"height": 1})
            verdict = verify(done.path)
            assert verdict.ok, f"{answer}: {verdict.problems}"
            assert restore.differences(done.path, node.roots, QUIET) == [], answer
        assert freeze(node.spec(), {}).path == place
