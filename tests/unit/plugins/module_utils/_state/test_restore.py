# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy, InputError, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._state import kernel, snapshot, swap
from ansible_collections.chainops.validator.plugins.module_utils._state.fault import StorageFault
from ansible_collections.chainops.validator.plugins.module_utils._state.restore import (
    differences,
    finish,
    pending,
    reap,
    restore,
    restore_to,
)
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, SnapshotSpec, freeze, hot_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify
from ansible_collections.chainops.validator.plugins.module_utils._state.watermark import Watermark

from .conftest import KEY, XAI, Node, make_node, tree


class Quiet(type(XAI)):  # type: ignore[misc]
    """Doesn't ask /proc who uses the directory: that is tested by itself, and slow a thousand times over."""

    def lock_holder(self, data_dir: str) -> None:
        return None


QUIET = Quiet()
SIGNING = (b"finality", b"finality/last_signed.json", b"node_identity.json")


def sealed_then_changed(node: Node) -> tuple[str, dict[str, dict[bytes, t.Any]]]:
    """Seal, then let the node live on. Returns the snapshot's path and what was live when it was sealed."""
    sealed = freeze(node.spec(), {"chain_id": "c", "genesis_hash": "g", "watermark": {"address": KEY, "height": 7}})
    then = node.contents()
    node.write("blocks/blocks_1.json", "rewritten by the new release")
    node.write("blocks/blocks_7.json", "new")
    os.unlink(os.path.join(node.data, "utxo_set.json"))
    node.write("schema.json", '{"level": 2}')
    node.sign(12)
    node.write("node_identity.json", "a newer key")
    pathlib.Path(node.roots[1].path).write_text("[Service]\nExecStart=/opt/2\n")
    pathlib.Path(node.roots[2].path, "cache").write_text("newer wallet")
    return sealed.path, then


def without_signing(contents: dict[str, dict[bytes, t.Any]]) -> dict[str, dict[bytes, t.Any]]:
    return {root: {name: item for name, item in names.items() if name not in SIGNING} for root, names in contents.items()}


def signed(node: Node) -> int:
    return int(json.loads(pathlib.Path(node.data, "finality/last_signed.json").read_text())["height"])


def leftovers(node: Node) -> list[str]:
    return [
        str(path)
        for path in node.base.rglob("*")
        if "/new-" in str(path) or ".chainops-new-" in str(path) or path.name == "swap.json"
    ]


def test_state_goes_back_and_the_signer_stays(node: Node) -> None:
    path, then = sealed_then_changed(node)
    before = node.contents()
    done = restore(path, node.roots, XAI, {"chain_id": "c", "genesis_hash": "g"}, Watermark(10, 0, 0, KEY))
    assert without_signing(node.contents()) == without_signing(then)
    assert pathlib.Path(node.data, "node_identity.json").read_text() == "a newer key"
    assert signed(node) == 12 and done.watermark == Watermark(12, 0, 3, KEY)
    assert done.method == "exchange" and done.swap_seconds < 1 and done.snapshot_id == "s1"
    assert set(done.kept) == {"node_identity.json", "finality/last_signed.json"}
    # What was live is kept, whole, until it is reaped.
    old = {
        name: tree(next(path for path in done.old_trees if pick in path))
        for name, pick in (("data", "/data"), ("unit", "xai.service"))
    }
    assert old["data"] == before["data"] and old["unit"] == before["unit"]
    assert differences(path, node.roots, XAI) == [] and not leftovers(node)
    assert reap(done.old_trees) == 3 and reap(done.old_trees) == 0
    assert not any(os.path.lexists(path) for path in done.old_trees)


@pytest.mark.parametrize(
    ("live", "sealed", "floor", "ends"), [(12, 7, None, 12), (3, 7, None, 7), (3, 2, 20, 20), (None, 7, None, 7)]
)
def test_the_watermark_is_the_highest_known(node: Node, live: int | None, sealed: int, floor: int | None, ends: int) -> None:
    path = freeze(node.spec(), {"watermark": {"address": KEY, "height": sealed}}).path
    if live is None:
        os.unlink(os.path.join(node.data, "finality/last_signed.json"))
    else:
        node.sign(live)
    restore(path, node.roots, XAI, {}, None if floor is None else Watermark(floor, 0, 0, KEY))
    assert signed(node) == ends


def test_an_unreadable_watermark_is_not_guessed(node: Node) -> None:
    path, _ = sealed_then_changed(node)
    node.write("finality/last_signed.json", "{")
    before = node.contents()
    with pytest.raises(IntegrityError, match="signing state can't be read"):
        restore(path, node.roots, XAI, {})
    assert node.contents() == before and not leftovers(node)


def test_keys_in_a_snapshot_are_not_restored_even_so(node: Node) -> None:
    """A snapshot that somebody took without excluding anything."""
    spec = SnapshotSpec("n1", "all", node.spec().snapshots_dir, node.roots)
    path = freeze(spec, {}).path
    assert "node_identity.json" in os.listdir(os.path.join(path, "roots/data"))
    scratch = restore_to(path, str(node.base / "scratch"), XAI)
    names = {str(p.relative_to(scratch.paths["data"])) for p in pathlib.Path(scratch.paths["data"]).rglob("*")}
    assert "node_identity.json" not in names and "finality/last_signed.json" not in names
    node.sign(99)
    os.unlink(os.path.join(node.data, "node_identity.json"))
    restore(path, node.roots, XAI, {})
    assert signed(node) == 99 and not os.path.exists(os.path.join(node.data, "node_identity.json"))


def test_only_some_roots(node: Node) -> None:
    path, then = sealed_then_changed(node)
    before = node.contents()
    restore(path, node.roots, XAI, {}, only=["unit"])
    after = node.contents()
    assert after["unit"] == then["unit"] and after["data"] == before["data"] and after["wallets"] == before["wallets"]


def test_what_is_not_there_any_more_is_put_back(node: Node) -> None:
    path, then = sealed_then_changed(node)
    shutil.rmtree(node.data)
    os.unlink(node.roots[1].path)
    done = restore(path, node.roots, XAI, {}, Watermark(30, 0, 0, KEY))
    assert without_signing(node.contents()) == without_signing(then) and signed(node) == 30
    assert len(done.old_trees) == 1  # the wallets


def test_through_a_symbolic_link(node: Node) -> None:
    os.rename(node.data, node.base / "elsewhere")
    os.symlink(node.base / "elsewhere", node.data)
    path, dummy = sealed_then_changed(node)
    restore(path, node.roots, XAI, {})
    assert os.path.islink(node.data)
    assert differences(path, node.roots, XAI) == []


def refusals(node: Node, path: str) -> t.Iterator[tuple[type[Exception], str, t.Callable[[], object]]]:
    yield Refused, "chain_id 'c', expected 'other'", lambda: restore(path, node.roots, XAI, {"chain_id": "other"})
    yield Refused, "genesis_hash", lambda: restore(path, node.roots, XAI, {"genesis_hash": "other"})
    yield Refused, "root_sha256", lambda: restore(path, node.roots, XAI, {"root_sha256": "0" * 64})
    yield InputError, "can't expect", lambda: restore(path, node.roots, XAI, {"colour": "blue"})
    yield InputError, "asked for config", lambda: restore(path, (*node.roots, Root("config", str(node.base / "c"))), XAI, {})
    yield InputError, "asked for nothing", lambda: restore(path, node.roots, XAI, {}, only=["nothing"])
    yield IntegrityError, "not a sealed snapshot", lambda: restore(path + "x", node.roots, XAI, {})
    yield Refused, "not empty", lambda: restore_to(path, node.data, XAI)


def test_refused_without_touching_anything(node: Node) -> None:
    path, _ = sealed_then_changed(node)
    before = node.contents()
    for kind, text, act in refusals(node, path):
        with pytest.raises(kind, match=text):
            act()
        assert node.contents() == before and not leftovers(node)


@pytest.mark.parametrize("harm", ["flip", "truncate", "missing", "extra", "mode"])
def test_a_harmed_snapshot_is_not_restored(node: Node, harm: str) -> None:
    path, _ = sealed_then_changed(node)
    victim = pathlib.Path(path, "roots/data/blocks/blocks_0.json")
    info = victim.stat()
    if harm == "flip":
        content = victim.read_bytes()
        victim.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        os.utime(victim, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif harm == "truncate":
        os.truncate(victim, 1)
    elif harm == "missing":
        victim.unlink()
    elif harm == "extra":
        victim.with_name("more").write_text("x")
    else:
        victim.chmod(0o666)
    before = node.contents()
    with pytest.raises(IntegrityError, match="nothing was restored: data/blocks/"):
        restore(path, node.roots, XAI, {})
    assert node.contents() == before and not leftovers(node)
    with pytest.raises(IntegrityError):
        restore_to(path, str(node.base / "scratch"), XAI)
    assert os.listdir(node.base / "scratch") == []


def test_a_directory_in_use_is_left_alone(node: Node) -> None:
    path, _ = sealed_then_changed(node)
    before = node.contents()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", "--data-dir", node.data], stdin=subprocess.PIPE
    ) as child:
        with pytest.raises(Busy, match=f"in use by process {child.pid}"):
            restore(path, node.roots, XAI, {})
        child.kill()
    assert node.contents() == before


def test_not_enough_room_is_said_before_anything_is_built(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = sealed_then_changed(node)
    real = os.statvfs(node.data)

    def small(_: object) -> os.statvfs_result:
        return os.statvfs_result((*real[:3], 10, 10, *real[5:]))

    monkeypatch.setattr(os, "statvfs", small)
    with pytest.raises(Refused, match="not enough space"):
        restore(path, node.roots, XAI, {})
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:5], 1000, 3, 3, *real[8:])))
    with pytest.raises(Refused, match="not enough inodes"):
        restore(path, node.roots, XAI, {})
    assert not leftovers(node)


@pytest.fixture(params=["3m"])
def small_disk(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> t.Iterator[pathlib.Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", place], capture_output=True).returncode
    ):
        pytest.skip("can't mount a file system here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_leaves_the_live_tree(small_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(small_disk / "node")
    node.write("big", os.urandom(1 << 20))
    sealed = freeze(node.spec(), {})
    node.write("big", "small now")
    node.write("filler", os.urandom(1 << 20))
    before = node.contents()
    monkeypatch.setattr("ansible_collections.chainops.validator.plugins.module_utils._state.restore._room", lambda *_: None)
    with pytest.raises(StorageFault, match="No space left"):
        restore(sealed.path, node.roots, XAI, {})
    assert node.contents() == before and not leftovers(node)
    with pytest.raises(StorageFault, match="free space"):
        freeze(node.spec("s2"), {})
    assert not os.path.exists(snapshot.sealed_path(node.spec().snapshots_dir, "s2")) and verify(sealed.path).ok


@pytest.mark.parametrize("small_disk", ["200m"], indirect=True)
def test_a_mount_point_has_its_children_exchanged(small_disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    node = make_node(tmp_path / "node")
    plain = tree(node.data)
    shutil.copytree(node.data, small_disk, symlinks=True, dirs_exist_ok=True)
    os.unlink(small_disk / "private/same")
    os.link(small_disk / "utxo_set.json", small_disk / "private/same")
    node.data = str(small_disk)
    node.roots = (Root("data", node.data), *node.roots[1:])
    assert snapshot.snapshots_dir(node.data, "n1") == f"{node.data}/.chainops/n1/snapshots"
    hot_copy(node.spec())
    path, then = sealed_then_changed(node)
    assert then["data"].keys() == plain.keys()
    done = restore(path, node.roots, XAI, {})
    assert done.method == "children" and signed(node) == 12
    assert without_signing(node.contents()) == without_signing(then)
    assert tree(next(old for old in done.old_trees if old.endswith("/data")))[b"blocks/blocks_7.json"][-1] == b"new"
    reap(done.old_trees)


def test_a_mount_inside_a_root_is_refused(node: Node) -> None:
    inside = os.path.join(node.data, "mnt")
    os.mkdir(inside)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", inside], capture_output=True).returncode:
        pytest.skip("can't mount a file system here")
    try:
        with pytest.raises(Refused, match="another file system mounted inside"):
            hot_copy(node.spec())
    finally:
        subprocess.run(["umount", "-l", inside], check=True)


def test_reap_takes_nothing_but_old_trees(node: Node) -> None:
    for path in (node.data, "/", str(node.base), f"{node.base}/srv/.chainops/n1/snapshots/s1", f"{node.base}/old-x/data"):
        with pytest.raises(Refused):
            reap([path])


# Killed with SIGKILL before the n-th call that changes anything, for every n.

CHANGING = (
    "open",
    "mkdir",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "link",
    "symlink",
    "chmod",
    "utime",
    "pwrite",
    "fsync",
    "chown",
)


def killed(act: t.Callable[[], object], at: int, *, two_renames: bool = False) -> bool:
    """Run in a child that kills itself before its ``at``-th change. False when it ended by itself before that."""
    pid = os.fork()
    if pid == 0:
        count = [0]

        def counting(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
            def wrapped(*args: t.Any, **more: t.Any) -> t.Any:
                count[0] += 1
                if count[0] >= at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **more)

            return wrapped

        try:
            for name in CHANGING:
                setattr(os, name, counting(getattr(os, name)))
            kernel._rename = counting(kernel._rename)
            if two_renames:
                swap.exchange = lambda one, other: False
            act()
            os._exit(0)
        except BaseException as exc:
            print(repr(exc), file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child failed by itself at {at}"
    return os.WIFSIGNALED(status)


@pytest.fixture
def quick_place(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A folder in memory where there is one: hundreds of syncs take their time on a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield pathlib.Path(name)


def copied(template: pathlib.Path, place: pathlib.Path) -> None:
    subprocess.run(["cp", "-a", template, place], check=True)


@pytest.mark.parametrize("two_renames", [False, True])
def test_killed_anywhere_in_a_restore(quick_place: pathlib.Path, two_renames: bool) -> None:
    work = quick_place / "node"
    node = make_node(work)
    path, then = sealed_then_changed(node)
    new = without_signing(then)
    old = without_signing(node.contents())
    template = quick_place / "template"
    copied(work, template)
    at, swapped_early, seen = 0, 0, set()
    while True:
        at += 1
        shutil.rmtree(work)
        copied(template, work)
        if not killed(lambda: restore(path, node.roots, QUIET, {}, Watermark(9, 0, 0, KEY)), at, two_renames=two_renames):
            break
        interrupted = pending(node.data, "n1") is not None
        if not two_renames:
            live = without_signing(node.contents())
            for root in ("data", "unit", "wallets"):
                assert live[root] in (old[root], new[root]), f"killed at {at}: {root} is neither old nor new"
            seen.add(live["data"] == new["data"])
        done = finish(node.data, "n1")
        assert (done is not None) == interrupted
        live = without_signing(node.contents())
        assert live in (old, new), f"killed at {at}: a mix after finishing"
        assert live == new or not interrupted
        assert signed(node) == 12 and pathlib.Path(node.data, "node_identity.json").read_text() == "a newer key"
        swapped_early += interrupted
        again = restore(path, node.roots, QUIET, {}, Watermark(9, 0, 0, KEY))
        assert without_signing(node.contents()) == new and signed(node) == 12 and not leftovers(node)
        assert again.watermark == Watermark(12, 0, 3, KEY)
    assert at > 80 and swapped_early >= 6
    assert two_renames or seen == {True, False}


def test_killed_anywhere_in_a_snapshot(quick_place: pathlib.Path) -> None:
    work = quick_place / "node"
    node = make_node(work)
    before = node.contents()
    copied(work, quick_place / "template")

    def both() -> None:
        hot_copy(node.spec())
        node.write("blocks/blocks_1.json", "changed")
        os.unlink(os.path.join(node.data, "private/link"))
        freeze(node.spec(), {"height": 1})

    at = 0
    while True:
        at += 1
        shutil.rmtree(work)
        copied(quick_place / "template", work)
        before = node.contents()
        if not killed(both, at):
            break
        live = node.contents()
        assert all(live[root] == before[root] for root in ("unit", "wallets"))
        finished = os.path.isdir(snapshot.sealed_path(node.spec().snapshots_dir, "s1"))
        if finished:
            assert verify(snapshot.sealed_path(node.spec().snapshots_dir, "s1")).ok, f"killed at {at}: sealed but not whole"
        done = freeze(node.spec(), {"height": 1})
        verdict = verify(done.path)
        assert verdict.ok, f"killed at {at}: {verdict.problems}"
        if not finished:
            assert differences(done.path, node.roots, XAI) == [], f"killed at {at}"
    assert at > 60
    assert stat.S_IMODE(os.stat(node.spec().snapshots_dir).st_mode) == 0o700
