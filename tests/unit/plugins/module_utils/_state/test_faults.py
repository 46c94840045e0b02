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
import stat
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._state import migration, restore, sealed, snapshot
from ansible_collections.chainops.validator.plugins.module_utils._state.fault import StorageFault
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import freeze, hot_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify
from ansible_collections.chainops.validator.plugins.module_utils._state.watermark import Watermark

from .conftest import KEY, Node, make_node, tree
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
    "a bad moment": (ALL & ~LOOK, 0, errno.EIO),
    "a bad look": (LOOK, 0, errno.EIO),
    "dead": (CHANGING, ALL, errno.EIO),
    "full": (FILLING, FILLING, errno.ENOSPC),
    "over quota": (FILLING, 0, errno.EDQUOT),
    "unreadable": (OPEN | READ, 0, errno.EIO),
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

    Each time everything below the folder is as it was at the beginning; the caller may say, by ``untouched``, that it still is.
    """
    template = below.with_name("template")
    copied(below, template)
    counted, afterwards, code = DISKS[kind]
    how = FOREVER if afterwards else ONCE
    at = 0
    while True:
        # There are hundreds of looks, many of them the same ones again.
        at += 3 if counted == LOOK else 1
        answer = disk.do(act, below, counted=counted, afterwards=afterwards, errno=code, how=how, at=at, **order)
        if not answer["failed"]:
            assert "result" in answer, answer
            assert at > 10
            return
        # An error says what the disk said; but makedirs, when it can't look, says that something is in the way.
        said = answer.get("message", os.strerror(code))
        assert os.strerror(code) in said or os.strerror(errno.EEXIST) in said, f"at {at}: {answer}"
        answer.update(at=at, untouched=False)
        yield answer
        if not answer["untouched"]:
            shutil.rmtree(below)
            copied(template, below)


@pytest.mark.parametrize("kind", ["a bad moment", "a bad look", "dead", "full", "over quota", "read-only"])
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
            answer["untouched"] = not leftovers(node)
            continue  # each time would take its time
        again = restore.restore(path, node.roots, QUIET, {}, Watermark(9, 0, 0, KEY))
        assert without_signing(node.contents()) == new and signed(node) == 12 and not leftovers(node), answer
        assert again.watermark == Watermark(12, 0, 3, KEY)
    # Before the swap, and in the midst of it.
    assert {(False, False, False), (False, True, False)} <= seen


@pytest.mark.parametrize("kind", ["a bad moment", "a bad look", "dead", "full", "over quota", "read-only"])
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


TOOL = """#!/bin/sh
printf '{"level": 2}' >"$1/schema.json"
rm "$1/blocks/blocks_0.json"
"""


@pytest.mark.parametrize("kind", ["a bad moment", "a bad look", "dead", "full"])
def test_a_disk_that_fails_anywhere_in_a_migration(disk: FailingDisk, quick_place: pathlib.Path, kind: str) -> None:
    work = quick_place / "node"
    node = make_node(work)
    node.sign(12)
    tool = quick_place / "release" / "migrate"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    tool.chmod(0o755)
    step = {"id": "2", "from_level": 1, "to_level": 2, "forward": ["{release}/migrate", "{data}"]}
    order = {"roots": [("data", node.data)], "release": str(tool.parent), "step": step}
    old = tree(node.data)
    new = {name: old[name][:4] for name in old if name != b"blocks/blocks_0.json"}
    for answer in at_every_call(disk, kind, "migrate", work, **order):
        live = tree(node.data)
        done = b"blocks/blocks_0.json" not in live
        assert {name: live[name][:4] for name in live} == new if done else live == old, answer
        assert done or "result" not in answer, answer
        assert signed(node) == 12, answer
        interrupted = restore.pending(node.data, "n1") is not None
        restore.finish(node.data, "n1")
        if done or interrupted:
            assert {name: item[:4] for name, item in tree(node.data).items()} == new, answer
        elif answer["at"] % 8 == 0:
            again = migration.run(
                migration.parse([step]), node.data, str(tool.parent), migration.FORWARD, 30, adapter=QUIET, instance="n1"
            )
            assert again.to_level == 2 and {name: item[:4] for name, item in tree(node.data).items()} == new


def test_verify_says_no_where_it_could_not_read(disk: FailingDisk, quick_place: pathlib.Path) -> None:
    work = quick_place / "node"
    node = make_node(work)
    path = freeze(node.spec(), {}).path
    before = node.contents()
    for answer in at_every_call(disk, "unreadable", "look", work, snapshot=path):
        verdict = answer["result"]
        assert not verdict["ok"] and any(os.strerror(errno.EIO) in text for text in verdict["problems"]), answer
    scratch = work / "scratch"
    roots = [(r.name, r.path) for r in node.roots]
    for answer in at_every_call(disk, "unreadable", "try_out", work, snapshot=path, scratch=str(scratch), roots=roots):
        if "result" in answer:
            assert answer["result"][1] == [] or os.strerror(errno.EIO) in answer["result"][1][0], answer
        assert node.contents() == before and verify(path).ok, answer


# What was written when: the order in which a disk that loses power may rely on it.

Call = t.Tuple[str, str, str]
WRITING = {"create", "write", "writev", "pwrite", "pwrite64", "pwritev64v2", "posix_fallocate64", "ftruncate", "ftruncate64"}
WRITING |= {"mkdir", "link", "symlink", "unlink", "clone", "chmod", "fchmod", "chown", "lchown", "fchown", "futimens"}
WRITING |= {"utimensat", "setxattr", "lsetxattr", "fsetxattr"}
SYNCING = {"fsync", "fdatasync"}


def calls_of(disk: FailingDisk, act: str, below: pathlib.Path, log: pathlib.Path, **order: t.Any) -> list[Call]:
    answer = disk.do(act, below, log=str(log), **order)
    assert "result" in answer, answer
    return [t.cast(Call, tuple(line.split("\t"))) for line in log.read_text().split("\n") if line]


def renames(calls: list[Call]) -> list[int]:
    return [n for n, call in enumerate(calls) if call[0].startswith("rename")]


def every_rename_lasts(calls: list[Call]) -> None:
    """The directory a name was moved into is synced afterwards, by itself or with its whole file system."""
    for n in renames(calls):
        folder = os.path.dirname(calls[n][2])
        later = [call for call in calls[n + 1 :] if (call[0] in SYNCING and call[1] == folder) or call[0] == "syncfs"]
        # The directory itself may have been given its lasting name since.
        moved = [calls[m][2] for m in renames(calls) if m > n and folder.startswith(calls[m][1])]
        assert later or moved, calls[n]


def atomic_writes_last(calls: list[Call]) -> None:
    """What is renamed over a file was synced after the last write to it."""
    for n in renames(calls):
        source = calls[n][1]
        if source.endswith(".tmp"):
            touched = [m for m, call in enumerate(calls[:n]) if call[1] == source and call[0] in ("create", "write")]
            assert any(call[0] in SYNCING and call[1] == source for call in calls[max(touched) : n]), calls[n]


def test_a_snapshot_is_on_the_disk_before_it_has_its_name(disk: FailingDisk, tmp_path: pathlib.Path) -> None:
    node = make_node(tmp_path / "node")
    node.write("blocks/large", os.urandom(300_001))
    calls = calls_of(disk, "take", tmp_path / "node", tmp_path / "log", roots=[(r.name, r.path) for r in node.roots])
    done = snapshot.sealed_path(node.spec().snapshots_dir, "s1")
    hot = snapshot.hot_path(node.spec().snapshots_dir, "s1")
    named = next(n for n in renames(calls) if calls[n][1:] == (hot, done))
    trees = [n for n, call in enumerate(calls) if call[0] in WRITING and call[1].startswith(hot + "/roots")]
    synced = [n for n, call in enumerate(calls) if call[0] == "syncfs" and call[1] == hot]
    assert len(trees) > 50 and any(max(trees) < n < named for n in synced)
    sealed = next(n for n in renames(calls) if calls[n][2] == hot + "/manifest.json")
    assert max(synced) < sealed < named
    assert any(call[0] in SYNCING and call[1] == hot for call in calls[sealed:named])
    assert any(call[0] in SYNCING and call[1] == os.path.dirname(done) for call in calls[named:])
    every_rename_lasts(calls)
    atomic_writes_last(calls)


def test_new_trees_are_on_the_disk_before_the_swap_and_the_swap_before_it_is_forgotten(
    disk: FailingDisk, tmp_path: pathlib.Path
) -> None:
    node = make_node(tmp_path / "node")
    path, dummy = sealed_then_changed(node)
    order = {"roots": [(r.name, r.path) for r in node.roots], "snapshot": path, "key": KEY}
    calls = calls_of(disk, "put_back", tmp_path / "node", tmp_path / "log", **order)
    exchanged = [n for n in renames(calls) if calls[n][1] in {root.path for root in node.roots}]
    assert len(exchanged) == 3
    for n in exchanged:
        staged = calls[n][2]
        written = [m for m, call in enumerate(calls[:n]) if call[0] in WRITING and call[1].startswith(staged)]
        synced = [m for m, call in enumerate(calls[:n]) if call[0] == "syncfs" and call[1] == os.path.dirname(staged)]
        assert written and max(written) < max(synced), staged
    marker = os.path.join(node.base, "srv/.chainops/n1/swap.json")
    marked = next(n for n in renames(calls) if calls[n][2] == marker)
    assert max(n for n, call in enumerate(calls) if call[0] == "syncfs") < marked
    assert any(call[0] in SYNCING and call[1] == os.path.dirname(marker) for call in calls[marked : exchanged[0]])
    forgotten = next(n for n, call in enumerate(calls) if call[:2] == ("unlink", marker))
    for n in exchanged:
        for folder in map(os.path.dirname, calls[n][1:]):
            assert any(call[0] in SYNCING and call[1] == folder for call in calls[exchanged[-1] : forgotten]), folder
    assert any(call[0] in SYNCING and call[1] == os.path.dirname(marker) for call in calls[forgotten:])
    every_rename_lasts(calls)
    atomic_writes_last(calls)


# A disk that is really full.


@pytest.fixture
def little_disk(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """An ext4 of its own, with few inodes."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(160 << 20)
    made = (
        shutil.which("mkfs.ext4")
        and not subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "512", image], check=False, capture_output=True
        ).returncode
    )
    if os.geteuid() != 0 or not made or subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode:
        pytest.skip("can't mount a file system here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def no_space(place: pathlib.Path) -> None:
    """Take what is left, to the last block."""
    size = 1 << 20
    with (place / "filler").open("wb", buffering=0) as stream:
        while size:
            try:
                stream.write(bytes(size))
            except OSError as exc:
                assert exc.errno == errno.ENOSPC
                size //= 2
        os.fsync(stream.fileno())


def no_inodes(place: pathlib.Path) -> None:
    (place / "filler").mkdir()
    with pytest.raises(OSError, match="No space"):
        for number in range(10_000):
            (place / "filler" / str(number)).touch()


@pytest.mark.parametrize("fill", [no_space, no_inodes])
def test_a_disk_that_is_full_when_the_node_has_been_stopped(
    little_disk: pathlib.Path, fill: t.Callable[[pathlib.Path], None]
) -> None:
    node = make_node(little_disk / "node")
    large = node.write("large", os.urandom(3 << 20))
    hot_copy(node.spec())
    with large.open("r+b") as stream:
        stream.write(b"changed")
    (pathlib.Path(node.data) / "sub").mkdir()
    node.write("sub/new", os.urandom(1 << 20))
    fill(little_disk)
    before = node.contents()
    with pytest.raises(StorageFault, match=r"No space left on device.*; free space or inodes on that file system") as caught:
        freeze(node.spec(), {})
    assert caught.value.fields["errno"] == "ENOSPC"
    assert node.contents() == before
    assert not os.path.exists(snapshot.sealed_path(node.spec().snapshots_dir, "s1"))
    filler = little_disk / "filler"
    shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
    done = freeze(node.spec(), {})
    assert verify(done.path).ok and restore.differences(done.path, node.roots, QUIET) == []
    # And a restore that would not fit leaves everything as it is.
    large.write_bytes(b"small")
    before = node.contents()
    fill(little_disk)
    with pytest.raises((Refused, StorageFault), match=r"not enough|No space left on device"):
        restore.restore(done.path, node.roots, QUIET, {})
    assert node.contents() == before and not leftovers(node)


# A disk that lies.


def damages(path: pathlib.Path) -> t.Iterator[tuple[str, t.Callable[[], object]]]:
    """Each thing that can be wrong with one file of a snapshot."""
    content = path.read_bytes()
    info = path.stat()

    def put(data: bytes) -> None:
        with path.open("r+b") as stream:
            stream.truncate(0)
            stream.write(data)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    for where in sorted({0, len(content) // 2, len(content) - 1}):
        flipped = bytearray(content)
        flipped[where] ^= 0x80
        yield f"bit flip at {where}", lambda flipped=flipped: put(flipped)
    yield "truncated", lambda: put(content[:-1])
    yield "emptied", lambda: put(b"")
    yield "grown", lambda: put(content + b"\0")
    yield "all zeros", lambda: put(bytes(len(content)))
    yield "missing", path.unlink
    yield "a directory", lambda: (path.unlink(), path.mkdir())
    yield "a link", lambda: (path.rename(path.with_name("elsewhere")), path.symlink_to("elsewhere"))
    yield "a fifo", lambda: (path.unlink(), os.mkfifo(path))
    yield "mode", lambda: path.chmod(stat.S_IMODE(info.st_mode) ^ 0o004)
    yield "set-uid", lambda: path.chmod(stat.S_IMODE(info.st_mode) | 0o4000)
    yield "time", lambda: os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    if os.geteuid() == 0:
        yield "owner", lambda: os.chown(path, 12345, 54321)
    if info.st_nlink == 1 and path.parent.name != "roots":
        yield "a hard link elsewhere", lambda: os.link(path, path.with_name("more"))


def test_every_damage_to_every_file_is_named_and_nothing_of_it_restored(quick_place: pathlib.Path) -> None:
    node = make_node(quick_place / "node")
    sealed_id = sealed_then_changed(node)[0]
    good = quick_place / "good"
    copied(pathlib.Path(sealed_id), good)
    before = node.contents()
    names = sorted(str(p.relative_to(good)) for p in (good / "roots").rglob("*") if p.is_file() and not p.is_symlink())
    assert len(names) == 9
    count = 0
    for name in names:
        number = 0
        while True:
            shutil.rmtree(sealed_id)
            copied(good, pathlib.Path(sealed_id))
            todo = list(damages(pathlib.Path(sealed_id, name)))
            if number == len(todo):
                break
            what, harm = todo[number]
            harm()
            number += 1
            count += 1
            problems = verify(sealed_id).problems
            label = name[len("roots/") :]
            assert any(label in text or os.path.dirname(label) in text for text in problems), f"{what} of {name}: {problems}"
            with pytest.raises(ChainopsError):
                restore.restore(sealed_id, node.roots, QUIET, {})
            assert node.contents() == before and not leftovers(node), f"{what} of {name}"
    assert count > 100


def test_no_byte_of_a_manifest_can_be_other_than_it_was(quick_place: pathlib.Path) -> None:
    node = make_node(quick_place / "node")
    done = freeze(node.spec(), {"height": 5})
    manifest = pathlib.Path(done.path, "manifest.json")
    whole = manifest.read_bytes()
    for at in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        manifest.write_bytes(flipped)
        assert not verify(done.path, deep=False, expect_root=done.root_sha256).ok, f"bit {at % 8} of byte {at}"
        verify(done.path, deep=False)
    for at in range(0, len(whole), 5):
        manifest.write_bytes(whole[:at])
        assert not verify(done.path, deep=False).ok, f"cut at {at}"
        with pytest.raises(IntegrityError):
            restore.restore(done.path, node.roots, QUIET, {})
    manifest.write_bytes(whole + b" ")
    assert not verify(done.path).ok
    manifest.write_bytes(whole)
    assert verify(done.path).ok


# Trees and manifests that somebody prepared.


def reseal(path: str, change: t.Callable[[dict[str, t.Any], list[dict[str, t.Any]]], None]) -> None:
    """Change a manifest and seal it again, as somebody would who knows the format."""
    manifest = pathlib.Path(path, "manifest.json")
    value = json.loads(manifest.read_bytes())
    header, entries = value["header"], value["entries"]
    change(header, entries)
    lines = [json.dumps(e, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() for e in entries]
    header.update({"entries": len(lines), "merkle_root": sealed.merkle([sealed.leaf(line) for line in lines])})
    head = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    manifest.write_bytes(b'{"header":' + head + b',"entries":[\n' + b",\n".join(lines) + b"\n]}\n")


def one(**more: t.Any) -> t.Callable[[dict[str, t.Any], list[dict[str, t.Any]]], None]:
    def change(header: dict[str, t.Any], entries: list[dict[str, t.Any]]) -> None:
        entries.append({**next(e for e in entries if e["path"] == "schema.json"), "path": "zz", **more})

    return change


def head(**more: t.Any) -> t.Callable[[dict[str, t.Any], list[dict[str, t.Any]]], None]:
    return lambda header, entries: header.update(more)


def root(**more: t.Any) -> t.Callable[[dict[str, t.Any], list[dict[str, t.Any]]], None]:
    return lambda header, entries: header["roots"].append({**header["roots"][0], **more})


HOSTILE = {
    "an absolute path": one(path="/etc/evil"),
    "an empty part": one(path="blocks//evil"),
    "a dot": one(path="./evil"),
    "a NUL": one(path="ev%00il"),
    "up from below": one(path="blocks/../../evil"),
    "below a file": one(path="schema.json/evil"),
    "below a link": one(path="private/link/evil"),
    "a link to outside": one(link="../../../etc/passwd"),
    "a link to itself": one(link="zz"),
    "no path": one(path=None),
    "a path that is no text": one(path=["x"]),
    "an endless size": one(size=10**30),
    "a negative size": one(size=-1),
    "an endless owner": one(uid=10**30),
    "a negative owner": one(uid=-7),
    "an endless time": one(mtime_ns=10**40),
    "a mode that is none": one(mode="0999"),
    "attributes that are none": one(xattrs=["x"]),
    "an attribute that is none": one(xattrs={"user.x": 3}),
    "a root outside": root(name="../evil"),
    "a root twice": root(),
    "a root that is no object": lambda header, entries: header["roots"].append("x"),
    "a root without a name": lambda header, entries: header["roots"][0].pop("name"),
    "a root without a kind": lambda header, entries: header["roots"][0].pop("kind"),
    "no roots": head(roots=[]),
    "facts that are none": head(facts="x"),
    "no facts": lambda header, entries: header.pop("facts"),
    "no instance": lambda header, entries: header.pop("instance"),
    "an instance outside": head(instance="../../evil"),
    "no id": lambda header, entries: header.pop("snapshot_id"),
    "an id outside": head(snapshot_id="../../evil"),
    "an entry that is none": lambda header, entries: entries.append("x"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_manifest_that_somebody_prepared_is_refused(node: Node, what: str) -> None:
    path = sealed_then_changed(node)[0]
    reseal(path, lambda header, entries: None)
    assert verify(path).ok
    reseal(path, HOSTILE[what])
    before = {name: item for name, item in tree(str(node.base)).items() if b".chainops" not in name}
    assert not verify(path).ok
    for act in (
        lambda: restore.restore(path, node.roots, QUIET, {}),
        lambda: restore.restore_to(path, str(node.base / "scratch"), QUIET),
        lambda: restore.differences(path, node.roots, QUIET),
    ):
        with pytest.raises(ChainopsError):
            act()
    shutil.rmtree(node.base / "scratch", ignore_errors=True)
    after = {name: item for name, item in tree(str(node.base)).items() if b".chainops" not in name}
    assert after == before and not leftovers(node)


EXCHANGING = """
import ctypes, os, sys
one, other = map(os.fsencode, sys.argv[1:3])
libc = ctypes.CDLL(None)
print("go", flush=True)
while libc.renameat2(-100, one, -100, other, 2) == 0:
    pass
"""


def test_a_directory_that_becomes_a_link_while_it_is_copied_leads_nowhere(node: Node, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(20):
        node.write(f"turns/{number}", "inside")
        (outside / str(number)).write_text("outside")
    os.chmod(outside, 0o701)
    untouched = tree(str(outside))
    os.symlink(outside, os.path.join(node.data, "away"))
    command = [sys.executable, "-c", EXCHANGING, os.path.join(node.data, "turns"), os.path.join(node.data, "away")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        for number in range(15):
            hot_copy(node.spec(f"s{number}"))
        child.kill()
    for number in range(15):
        place = pathlib.Path(snapshot.hot_path(node.spec().snapshots_dir, f"s{number}"), "roots")
        for path in place.rglob("*"):
            assert path.is_symlink() or path.is_dir() or path.read_bytes() != b"outside", path
        done = freeze(node.spec(f"s{number}"), {})
        assert verify(done.path).ok and restore.differences(done.path, node.roots, QUIET) == []
    assert tree(str(outside)) == untouched


def test_a_tree_that_is_too_deep_is_refused_and_devices_are_left_out(node: Node) -> None:
    if os.geteuid() == 0:
        os.mknod(os.path.join(node.data, "null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    done = freeze(node.spec(), {})
    assert verify(done.path).ok and not os.path.lexists(os.path.join(done.path, "roots/data/null"))
    here = os.open(node.data, os.O_RDONLY)
    for dummy in range(1500):
        os.mkdir("d" * 8, dir_fd=here)
        deeper = os.open("d" * 8, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    for act in (lambda: hot_copy(node.spec("s2")), lambda: freeze(node.spec("s3"), {})):
        with pytest.raises(ChainopsError, match="directories deep"):
            act()
    subprocess.run(["rm", "-rf", os.path.join(node.data, "d" * 8)], check=True)
