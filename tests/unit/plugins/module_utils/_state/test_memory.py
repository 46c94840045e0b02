# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a freeze remembers of its own hot copy makes it shorter, and never wrong."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import pathlib
import random
import struct
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._state import copy, kernel, sealed, snapshot
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Memory, Root, freeze, hot_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify

from .conftest import Node, mounted

FICLONERANGE = 0x4020940D
MEGABYTE = 1 << 20
SIZE = 3 * MEGABYTE + 4097


@pytest.fixture(params=["btrfs", "xfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> t.Iterator[Node]:
    """A data directory with one large log, on a file system that shares blocks."""
    with mounted(tmp_path, request.param) as place:
        node = Node(place)
        node.roots = (Root("data", node.data),)
        node.write("events.log", random.Random(1).randbytes(SIZE))
        yield node


def read_in_freeze(node: Node, memory: Memory[t.Any] | None, monkeypatch: pytest.MonkeyPatch, snapshot_id: str) -> int:
    """Freezes; the bytes that were read for it. The digest in the manifest must be the log's, whatever was remembered."""
    real, count = copy._read, [0]

    def counting(handle: int, view: memoryview, at: int) -> int:
        got = real(handle, view, at)
        count[0] += got
        return got

    with monkeypatch.context() as patched:
        patched.setattr(copy, "_read", counting)
        done = freeze(node.spec(snapshot_id), {}, memory=memory)
    (entry,) = [one for one in sealed.read(f"{done.path}/manifest.json").entries if one.path == b"events.log"]
    assert entry.sha256 == hashlib.sha256(pathlib.Path(node.data, "events.log").read_bytes()).hexdigest()
    assert verify(done.path).ok
    return count[0]


def change(path: pathlib.Path, what: str) -> None:
    with path.open("r+b") as log:
        if what == "nothing but times":
            os.utime(log.fileno())
        elif what == "grown":
            log.seek(0, os.SEEK_END)
            log.write(b"one more line\n" * 100)
        elif what == "first byte":
            log.write(b"!")
        elif what == "a byte in the middle, size and mtime kept":
            before = os.fstat(log.fileno())
            log.seek(MEGABYTE + 17)
            log.write(b"?")
            log.flush()
            os.utime(log.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
        elif what == "through a map":
            with mmap.mmap(log.fileno(), 2 * MEGABYTE) as memory:
                memory[MEGABYTE + 5] ^= 255
        elif what == "cut and grown again":
            log.truncate(MEGABYTE // 2)
            log.seek(0, os.SEEK_END)
            log.write(b"x" * (4 * MEGABYTE))
        elif what == "cut":
            log.truncate(MEGABYTE + 1)
        elif what == "a hole":
            log.truncate(2 * MEGABYTE)
            log.truncate(SIZE)
        elif what == "one megabyte shared into another's place":
            fcntl.ioctl(log, FICLONERANGE, struct.pack("=qQQQ", log.fileno(), 0, MEGABYTE, MEGABYTE))
        elif what == "two megabytes exchanged":
            first = log.read(MEGABYTE)
            second = log.read(MEGABYTE)
            log.seek(0)
            log.write(second + first)


@pytest.mark.parametrize(
    "what, shared",
    [
        ("nothing but times", True),
        ("grown", True),
        ("first byte", False),
        ("a byte in the middle, size and mtime kept", False),
        ("through a map", False),
        ("cut and grown again", False),
        ("cut", False),
        ("a hole", False),
        ("one megabyte shared into another's place", False),
        ("two megabytes exchanged", False),
    ],
)
def test_only_what_still_shares_its_blocks_is_not_read_again(
    sharing: Node, monkeypatch: pytest.MonkeyPatch, what: str, shared: bool
) -> None:
    memory: Memory[t.Any] = Memory()
    log = pathlib.Path(sharing.data, "events.log")
    hot_copy(sharing.spec(), passes=1, memory=memory)
    change(log, what)
    size = log.stat().st_size
    count = read_in_freeze(sharing, memory, monkeypatch, "s1")
    assert count < MEGABYTE if shared else count >= min(size, 2 * MEGABYTE)


def test_it_grows_over_several_passes(sharing: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Memory[t.Any] = Memory()
    log = pathlib.Path(sharing.data, "events.log")
    for dummy in range(4):
        hot_copy(sharing.spec(), passes=1, memory=memory)
        with log.open("ab") as stream:
            stream.write(random.randbytes(MEGABYTE - 5))
    count = read_in_freeze(sharing, memory, monkeypatch, "s1")
    assert count <= 2 * MEGABYTE < log.stat().st_size


def test_another_process_between_the_two_is_noticed(sharing: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Memory[t.Any] = Memory()
    log = pathlib.Path(sharing.data, "events.log")
    hot_copy(sharing.spec(), passes=1, memory=memory)
    change(log, "grown")
    hot_copy(sharing.spec(), passes=1)
    change(log, "grown")
    assert read_in_freeze(sharing, memory, monkeypatch, "s1") >= SIZE


def test_an_interrupted_pass_makes_it_forget(sharing: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Memory[t.Any] = Memory()
    hot = hot_copy(sharing.spec(), passes=1, memory=memory)
    pathlib.Path(hot.path, snapshot.OPEN).touch()
    assert read_in_freeze(sharing, memory, monkeypatch, "s1") >= SIZE


def test_without_a_proof_everything_is_read(sharing: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Memory[t.Any] = Memory()
    hot_copy(sharing.spec(), passes=1, memory=memory)
    change(pathlib.Path(sharing.data, "events.log"), "grown")
    monkeypatch.setattr(kernel, "_FIEMAP_PLAIN", 0)
    assert read_in_freeze(sharing, memory, monkeypatch, "s1") > SIZE


def test_elsewhere_nothing_is_remembered_of_content(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel.can_clone(os.fsencode(node.base)):
        pytest.skip("temporary files are on a file system that shares blocks")
    memory: Memory[t.Any] = Memory()
    node.write("events.log", random.Random(1).randbytes(SIZE))
    hot_copy(node.spec(), passes=1, memory=memory)
    change(pathlib.Path(node.data, "events.log"), "grown")
    assert not memory.hashed
    assert read_in_freeze(node, memory, monkeypatch, "s1") > SIZE
