# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy, InputError, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._core.files import locked
from ansible_collections.chainops.validator.plugins.module_utils._state import (
    copy,
    kernel,
    names,
    restore,
    retention,
    sealed,
    snapshot,
)
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, SnapshotSpec, freeze, hot_copy, load
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify

from .conftest import XAI, Node, make_node, mounted, tree

NAME = st.binary(min_size=1, max_size=12).filter(
    lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b"..", b".chainops")
)


@given(st.binary(max_size=40).filter(lambda raw: b"\0" not in raw))
def test_names_are_printable_and_come_back(raw: bytes) -> None:
    text = names.encode(raw)
    assert text.isprintable() and names.decode(text) == raw
    assert json.loads(json.dumps(text)) == text


@given(
    st.one_of(st.binary(max_size=20), st.text("abc/.%\"\\ ~\x7f\x1f'", max_size=20).map(str.encode)),
    st.integers(-(2**62), 2**62),
    st.sampled_from(["file", "dir", "symlink"]),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=1),
    st.booleans(),
)
def test_an_entry_written_quickly_is_canonical(path: bytes, number: int, kind: str, xattrs: dict[str, str], sparse: bool) -> None:
    entry = sealed.Entry("data", path, kind, abs(number), 0o640, 1, 2, number, "ab" * 32, "t", "", sparse, xattrs)
    assert entry.line() == canonical.dumps(entry.as_dict())


def test_a_pattern_covers_what_is_below_it() -> None:
    match = names.Patterns(("finality/*", "node_identity.json", "secure")).match
    assert match(b"finality/a/b") and match(b"node_identity.json") and match(b"secure/x/y") and match(b"finality/\xff")
    assert not match(b"finality") and not match(b"other/node_identity.json") and not match(b"insecure/x")


def test_hot_then_frozen_is_what_is_there(node: Node) -> None:
    hot = hot_copy(node.spec())
    assert (hot.files, hot.copied_files) == (9, 8) and hot.predicted_freeze_seconds > 0
    node.write("blocks/blocks_2.json", "changed")
    node.write("blocks/blocks_3.json", "new")
    os.unlink(os.path.join(node.data, "blocks/blocks_0.json"))
    done = freeze(node.spec(), {"chain_id": "c", "height": 9})
    verdict = verify(done.path, expect_root=done.root_sha256)
    assert verdict.ok and verdict.deep and verdict.facts == {"chain_id": "c", "height": 9}
    expected = node.contents()
    for name in (b"node_identity.json", b"finality/last_signed.json"):
        del expected["data"][name]
    for root in node.roots:
        assert tree(os.path.join(done.path, "roots", root.name)) == expected[root.name]
    assert freeze(node.spec(), {}) == done == load(done.path)


def test_second_pass_copies_only_what_changed(node: Node) -> None:
    hot_copy(node.spec())
    time.sleep(0.12)
    hot_copy(node.spec())
    node.write("blocks/blocks_1.json", "x")
    again = hot_copy(node.spec())
    assert again.copied_files == 1


def test_a_snapshot_holds_no_keys(node: Node) -> None:
    done = freeze(node.spec(), {})
    whole = b"".join(path.read_bytes() for path in pathlib.Path(done.path).rglob("*") if path.is_file())
    assert b"the private key" not in whole
    header, _ = sealed.read_header(os.path.join(done.path, "manifest.json"))
    assert next(root for root in header["roots"] if root["name"] == "data")["excluded"] == [
        "finality/last_signed.json",
        "node_identity.json",
    ]


@pytest.mark.parametrize("same_times", [True, False])
def test_same_size_and_mtime_but_other_content_is_seen(node: Node, same_times: bool) -> None:
    path = node.write("state.db", "aaaa")
    before = path.stat()
    hot_copy(node.spec())
    path.write_text("bbbb")
    if same_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = freeze(node.spec(), {})
    assert pathlib.Path(done.path, "roots/data/state.db").read_text() == "bbbb"


def test_a_write_through_an_already_dirty_map_is_seen(node: Node) -> None:
    """The times of a file don't move when a mapped page is written that is dirty already."""
    path = node.write("map.db", b"a" * 4096)
    code = """
import mmap, os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(handle, 4096)
view[0:1] = b"b"
print("dirty", flush=True)
sys.stdin.readline()
view[0:1] = b"c"
print("done", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        time.sleep(0.2)
        hot_copy(node.spec())
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
    done = freeze(node.spec(), {})
    assert pathlib.Path(done.path, "roots/data/map.db").read_bytes()[:1] == b"c"


def test_files_that_move_while_they_are_copied_end_up_right(node: Node) -> None:
    """A writer runs during the hot copy; the freeze after it has the last word."""
    for number in range(60):
        node.write(f"blocks/b{number}", os.urandom(20_000))
    code = """
import os, random, sys, time
base, ends = sys.argv[1], time.monotonic() + 20
print("go", flush=True)
while time.monotonic() < ends:
    name = os.path.join(base, "blocks", f"b{random.randrange(80)}")
    if random.random() < 0.1 and os.path.exists(name):
        os.unlink(name)
    else:
        with open(name, "r+b" if os.path.exists(name) else "wb") as stream:
            stream.seek(random.randrange(20_000))
            stream.write(os.urandom(64))
"""
    with subprocess.Popen([sys.executable, "-c", code, node.data], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        hot_copy(node.spec())
        hot_copy(node.spec())
        child.kill()
    done = freeze(node.spec(), {})
    assert verify(done.path).ok
    live = {name: item for name, item in tree(node.data).items() if name.startswith(b"blocks/")}
    kept = {name: item for name, item in tree(done.path + "/roots/data").items() if name.startswith(b"blocks/")}
    assert live == kept


def test_append_only_files_are_brought_up_by_their_tail(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    path = node.write("blocks/blocks_9.json", b"x" * 300_000)
    hot_copy(node.spec())
    with path.open("ab") as stream:
        stream.write(b"tail")
    written = []
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: written.append(len(data)) or real(handle, data, at))
    done = freeze(node.spec(), {})
    assert 4 in written and max(written) < 300_000
    assert (
        verify(done.path).ok
        and pathlib.Path(done.path, "roots/data/blocks/blocks_9.json").read_bytes() == b"x" * 300_000 + b"tail"
    )


def test_a_rewritten_prefix_is_not_taken_for_a_tail(node: Node) -> None:
    path = node.write("blocks/blocks_9.json", b"x" * 1000)
    hot_copy(node.spec())
    path.write_bytes(b"y" * 2000)
    done = freeze(node.spec(), {})
    assert pathlib.Path(done.path, "roots/data/blocks/blocks_9.json").read_bytes() == b"y" * 2000


def test_holes_stay_holes(node: Node) -> None:
    path = node.write("sparse.db", b"")
    with path.open("r+b") as stream:
        stream.seek(5 << 20)
        stream.write(b"end")
        stream.truncate(20 << 20)
    done = freeze(node.spec(), {})
    kept = pathlib.Path(done.path, "roots/data/sparse.db")
    assert kept.stat().st_size == 20 << 20 and kept.stat().st_blocks * 512 < 1 << 20
    entry = next(item for item in sealed.read(done.path + "/manifest.json").entries if item.path == b"sparse.db")
    assert entry.sparse and entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_odd_names_links_and_special_files(node: Node) -> None:
    base = os.fsencode(node.data)
    for raw in (b"new\nline", b"\xff\xfe", b"100%", b"-rf", b" ", "\u202eevil".encode()):
        with open(os.path.join(base, raw), "wb") as stream:
            stream.write(raw)
    os.mkfifo(os.path.join(node.data, "fifo"))
    os.symlink("/etc/passwd", os.path.join(node.data, "out"))
    os.symlink("/", os.path.join(node.data, "dir-out"))
    hot_copy(node.spec())
    done = freeze(node.spec(), {})
    assert verify(done.path).ok
    kept = tree(done.path + "/roots/data")
    assert kept[b"out"] == ("symlink", b"/etc/passwd") and kept[b"\xff\xfe"][-1] == b"\xff\xfe" and b"fifo" not in kept
    header, _ = sealed.read_header(done.path + "/manifest.json")
    assert header["roots"][0]["skipped"] == [["fifo", "fifo"]]


def test_set_uid_is_not_kept_and_said(node: Node) -> None:
    os.chmod(node.write("tool", "x"), 0o4755)
    done = freeze(node.spec(), {})
    header, _ = sealed.read_header(done.path + "/manifest.json")
    assert header["roots"][0]["stripped"] == ["tool"]
    assert os.stat(done.path + "/roots/data/tool").st_mode & 0o7777 == 0o755 and verify(done.path).ok


def test_extended_attributes_are_kept_and_checked(node: Node) -> None:
    path = node.write("tagged", "x")
    try:
        os.setxattr(path, "user.note", b"v")
    except OSError:
        pytest.skip("this file system keeps no user attributes")
    done = freeze(node.spec(), {})
    assert os.getxattr(done.path + "/roots/data/tagged", "user.note") == b"v"
    os.setxattr(done.path + "/roots/data/tagged", "user.note", b"w")
    assert any("tagged: extended attributes differ: user.note" in text for text in verify(done.path, deep=False).problems)


def test_a_name_that_changes_its_kind_between_passes(node: Node) -> None:
    node.write("a", "file")
    node.write("b/inner", "file")
    os.symlink("a", os.path.join(node.data, "c"))
    hot_copy(node.spec())
    os.unlink(os.path.join(node.data, "a"))
    node.write("a/deep/er", "now a directory")
    shutil.rmtree(os.path.join(node.data, "b"))
    node.write("b", "now a file")
    os.unlink(os.path.join(node.data, "c"))
    node.write("c", "now a file")
    os.unlink(os.path.join(node.data, "private/same"))
    node.write("private/same", "no longer linked")
    done = freeze(node.spec(), {})
    assert verify(done.path).ok
    live = tree(node.data)
    assert {name: live[name] for name in tree(done.path + "/roots/data")} == tree(done.path + "/roots/data")


def test_what_cannot_be_taken_is_refused(node: Node, tmp_path: pathlib.Path) -> None:
    def spec(*roots: Root, snapshot_id: str = "x") -> SnapshotSpec:
        return SnapshotSpec("n1", snapshot_id, str(tmp_path / ".chainops/n1/snapshots"), roots)

    data = Root("data", node.data)
    for bad in (
        spec(Root("wallets", node.data)),
        spec(data, Root("data", str(tmp_path))),
        spec(data, Root("in", node.data + "/blocks")),
        spec(Root("data", node.data + "/nothing")),
        spec(data, snapshot_id="../x"),
        spec(data, snapshot_id="hot-x"),
        spec(data, Root("../x", str(tmp_path / "y"))),
    ):
        with pytest.raises(InputError):
            hot_copy(bad)
    with pytest.raises(InputError, match="plain JSON"):
        freeze(node.spec(), {"x": object()})
    freeze(node.spec(), {})
    with pytest.raises(Refused, match="sealed already"):
        hot_copy(node.spec())
    with pytest.raises(Refused, match="of other roots"):
        freeze(SnapshotSpec("n1", "s1", node.spec().snapshots_dir, node.roots[:1]), {})


def test_two_at_once_is_one_too_many(node: Node) -> None:
    hot_copy(node.spec())
    with locked(os.path.join(node.spec().snapshots_dir, ".s1.lock"), what="test"), pytest.raises(Busy):
        hot_copy(node.spec())


def test_a_writer_during_the_freeze_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = copy.copy_seen

    def slow(path: bytes, *rest: object, **more: object) -> object:
        if path.endswith(b"blocks_1.json"):
            read = os.preadv

            def preadv(handle: int, buffers: list[memoryview], at: int) -> int:
                node.write("blocks/blocks_1.json", "changed meanwhile")
                return read(handle, buffers, at)

            monkeypatch.setattr(os, "preadv", preadv)
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "copy_seen", slow)
    with pytest.raises(Refused, match="still writes"):
        freeze(node.spec(), {})
    assert not os.path.exists(snapshot.sealed_path(node.spec().snapshots_dir, "s1"))


def test_verify_names_the_file_and_the_difference(node: Node) -> None:
    done = freeze(node.spec(), {})
    base = pathlib.Path(done.path, "roots/data")

    def keep_times(path: pathlib.Path, change: object) -> None:
        info = path.stat()
        change(path)  # type: ignore[operator]
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    keep_times(base / "blocks/blocks_0.json", lambda path: path.write_bytes(path.read_bytes().replace(b"0", b"9", 1)))
    os.truncate(base / "blocks/blocks_1.json", 3)
    os.unlink(base / "blocks/blocks_2.json")
    (base / "extra").write_text("x")
    os.chmod(base / "private/notes", 0o644)
    os.unlink(base / "private/link")
    os.symlink("elsewhere", base / "private/link")
    quick = verify(done.path, deep=False).problems
    deep = verify(done.path).problems
    for text in (
        "data/blocks/blocks_1.json: size 3, sealed 650",
        "data/blocks/blocks_2.json: missing",
        "data/extra: not in the snapshot",
        "data/private/notes: mode 0644, sealed 0600",
        "data/private/link: points to elsewhere, sealed ../utxo_set.json",
    ):
        assert text in quick and text in deep
    assert not any("blocks_0" in text for text in quick)
    assert any(text.startswith("data/blocks/blocks_0.json: content differs (sha256 ") for text in deep)


def test_swapped_files_and_broken_hard_links_are_seen(node: Node) -> None:
    done = freeze(node.spec(), {})
    base = pathlib.Path(done.path, "roots/data")
    (base / "blocks/blocks_0.json").rename(base / "t")
    (base / "blocks/blocks_1.json").rename(base / "blocks/blocks_0.json")
    (base / "t").rename(base / "blocks/blocks_1.json")
    shutil.copy2(base / "utxo_set.json", base / "t")
    (base / "t").rename(base / "utxo_set.json")
    problems = verify(done.path).problems
    assert sum("content differs" in text for text in problems) == 2
    assert "data/utxo_set.json: no longer one file with data/private/same" in problems


def test_a_manifest_that_was_edited_is_seen(node: Node) -> None:
    done = freeze(node.spec(), {"height": 5})
    path = pathlib.Path(done.path, "manifest.json")
    whole = path.read_bytes()
    for old, new, why in (
        (b'"size":650', b'"size":651', "not the ones that were sealed"),
        (b'"height":5', b'"height":6', "expected"),
        (whole[-200:], b"", "not valid JSON"),
    ):
        path.write_bytes(whole.replace(old, new, 1))
        verdict = verify(done.path, expect_root=done.root_sha256)
        assert not verdict.ok and why in verdict.problems[0]
    path.unlink()
    assert not verify(done.path).ok


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"path": "../evil"}, "unsafe path"),
        ({"path": "private/link/evil"}, "not below a directory"),
        ({"path": "utxo_set.json"}, "there twice"),
        ({"mode": "4755"}, "never kept"),
        ({"type": "device"}, "unknown type"),
        ({"link": "nothing"}, "not such a file"),
    ],
)
def test_a_hostile_manifest_is_refused(node: Node, change: dict[str, str], why: str) -> None:
    """Resealed by somebody who knows the format: only the recorded root would tell, but it can't lead outside."""
    done = freeze(node.spec(), {})
    path = os.path.join(done.path, "manifest.json")
    manifest = sealed.read(path)
    entries = [
        {**e.as_dict(), **change} if e.path == b"utxo_set.json" and "link" in change else e.as_dict() for e in manifest.entries
    ]
    if "link" not in change:
        entries.append({**next(e for e in entries if e["path"] == "schema.json"), "path": "zz", **change})
    lines = [json.dumps(e, sort_keys=True, separators=(",", ":")).encode() for e in entries]
    header = {**manifest.header, "entries": len(lines), "merkle_root": sealed.merkle([sealed.leaf(line) for line in lines])}
    head = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    pathlib.Path(path).write_bytes(b'{"header":' + head + b',"entries":[\n' + b",\n".join(lines) + b"\n]}\n")
    with pytest.raises(IntegrityError, match=why):
        sealed.read(path)
    assert not verify(done.path).ok


def _random_tree(base: bytes, rng: random.Random, raws: list[bytes]) -> None:
    folders, plain = [base], []
    for raw in raws:
        where = os.path.join(rng.choice(folders), raw)
        if os.path.lexists(where) or len(where) > 900:
            continue
        kind = rng.randrange(6)
        if kind == 0:
            os.mkdir(where)
            folders.append(where)
        elif kind == 1:
            os.symlink(rng.choice([b"x", b"/", raw, b".."]), where)
        elif kind == 2 and plain:
            os.link(rng.choice(plain), where)
        else:
            with open(where, "wb") as stream:
                stream.write(rng.randbytes(rng.choice([0, 1, 100, 5000])))
                if rng.random() < 0.1:
                    stream.truncate(100_000)
            os.chmod(where, rng.choice([0o600, 0o644, 0o400, 0o755]))
            plain.append(where)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(NAME, max_size=25), st.lists(NAME, max_size=8), st.randoms(use_true_random=False))
def test_any_tree_is_sealed_verified_and_restored(
    tmp_path_factory: pytest.TempPathFactory, first: list[bytes], later: list[bytes], rng: random.Random
) -> None:
    base = tmp_path_factory.mktemp("any")
    data = base / "d" / "data"
    data.mkdir(parents=True)
    _random_tree(os.fsencode(data), rng, first)
    roots = (Root("data", str(data)),)
    spec = SnapshotSpec("n", "s", snapshot.snapshots_dir(str(data), "n"), roots)
    hot_copy(spec)
    for name in list(os.listdir(os.fsencode(data))):
        where = os.path.join(os.fsencode(data), name)
        if rng.random() < 0.2:
            if os.path.isdir(where) and not os.path.islink(where):
                shutil.rmtree(where)
            else:
                os.unlink(where)
    _random_tree(os.fsencode(data), rng, later)
    done = freeze(spec, {})
    assert verify(done.path).problems == ()
    assert tree(done.path + "/roots/data") == tree(str(data))
    scratch = restore.restore_to(done.path, str(base / "scratch"), _Keyless())
    assert tree(scratch.paths["data"]) == tree(str(data))
    plain = [path for path in pathlib.Path(done.path, "roots/data").rglob("*") if path.is_file() and not path.is_symlink()]
    if plain:
        victim = rng.choice(plain)
        content = victim.read_bytes()
        info = victim.stat()
        os.chmod(victim, 0o600)
        victim.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"x")
        os.chmod(victim, info.st_mode)
        os.utime(victim, ns=(info.st_atime_ns, info.st_mtime_ns))
        label = "data/" + names.encode(os.fsencode(victim.relative_to(done.path + "/roots/data")))
        linked = info.st_nlink > 1
        problems = verify(done.path).problems
        assert problems and (linked or all(text.startswith(label + ":") for text in problems))


class _Keyless:
    """An adapter of a chain whose data directory is nothing but data."""

    name = "none"
    layout = type(XAI.layout)(never_restore=())

    def lock_holder(self, data_dir: str) -> None:
        return None

    def read_watermark(self, data_dir: str) -> None:
        return None


@pytest.fixture
def subvolume(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A btrfs subvolume to be a data directory."""
    with mounted(tmp_path, "btrfs") as place:
        subprocess.run(["btrfs", "-q", "subvolume", "create", place / "data"], check=True)
        yield place / "data"


def test_a_subvolume_is_copied_as_it_was_at_one_moment(
    subvolume: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(tmp_path / "node")
    shutil.copytree(node.data, subvolume, symlinks=True, dirs_exist_ok=True)
    node.data = str(subvolume)
    node.roots = (Root("data", node.data), *node.roots[1:])
    taken = sorted(tree(node.data))
    real, writing = snapshot.parallel, [0]

    def busy(*args: t.Any, **more: t.Any) -> t.Any:
        writing[0] += 1
        node.write(f"blocks/busy_{writing[0]}.json", "written while the copy is made")
        return real(*args, **more)

    monkeypatch.setattr(snapshot, "parallel", busy)
    with monkeypatch.context() as without:
        without.setattr(snapshot, "snapshot_subvolume", lambda source, target: False)
        with pytest.raises(Refused, match="did not hold still"):
            freeze(node.spec("never"), {}, live=True, patience=3.0)
    done = freeze(node.spec("live"), {}, live=True, patience=30.0)
    held = sorted(entry.path for entry in sealed.read(f"{done.path}/manifest.json").entries if entry.root == "data")
    # The last pass writes once for each of the three roots: none of that is in its copy, which was begun before.
    late = {b"blocks/busy_%d.json" % number for number in range(writing[0] - 2, writing[0] + 1)}
    assert set(held) >= set(taken) - {b"", b"node_identity.json"} - {n for n in taken if n.startswith(b"finality")}
    assert not late & set(held) and late < set(tree(node.data))
    assert verify(done.path).ok
    hot = hot_copy(node.spec())
    assert hot.method == "btrfs snapshot" and not [name for name in os.listdir(hot.path) if name.startswith(".still")]
    assert verify(freeze(node.spec(), {}).path).ok


def test_what_an_interrupted_pass_held_still_goes(subvolume: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It has the keys in it: neither a sealed snapshot nor a removed one may leave it lying about."""
    node = make_node(tmp_path / "node")
    shutil.copytree(node.data, subvolume, symlinks=True, dirs_exist_ok=True)
    node.data = str(subvolume)
    node.roots = (Root("data", node.data), *node.roots[1:])
    for snapshot_id in ("s1", "s2"):
        hot = hot_copy(node.spec(snapshot_id))
        assert kernel.snapshot_subvolume(node.data, f"{hot.path}/.still-data")
    done = freeze(node.spec("s1"), {})
    assert not os.path.exists(f"{done.path}/.still-data")
    assert retention.remove(node.spec().snapshots_dir, "s2")
    assert os.listdir(node.spec().snapshots_dir) == ["s1"] or sorted(os.listdir(node.spec().snapshots_dir)) == [".s1.lock", "s1"]


def test_a_subvolume_inside_another_is_not_left_out(subvolume: pathlib.Path, tmp_path: pathlib.Path) -> None:
    node = make_node(tmp_path / "node")
    shutil.copytree(node.data, subvolume, symlinks=True, dirs_exist_ok=True)
    subprocess.run(["btrfs", "-q", "subvolume", "create", subvolume / "inner"], check=True)
    (subvolume / "inner" / "file").write_text("inside")
    node.data = str(subvolume)
    node.roots = (Root("data", node.data), *node.roots[1:])
    hot = hot_copy(node.spec())
    assert hot.method == "reflink"
    done = freeze(node.spec(), {})
    assert pathlib.Path(done.path, "roots/data/inner/file").read_text() == "inside" and verify(done.path).ok
