# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import files
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy, InputError, IntegrityError
from ansible_collections.chainops.validator.plugins.module_utils._state import rehearse
from ansible_collections.chainops.validator.plugins.module_utils._state.copy import COPY, DIRECT, REFLINK
from ansible_collections.chainops.validator.plugins.module_utils._state.rehearse import READ, hot_test
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import freeze, hot_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify

from .conftest import Node, tree


def scratch(node: Node) -> str:
    return os.path.join(os.path.dirname(node.spec().snapshots_dir), "test")


def test_a_hot_copy_is_restored_and_the_restored_is_gone(node: Node) -> None:
    node.write("odd\nname\xff".encode("latin-1").decode("utf-8", "surrogateescape"), "odd")
    node.write("empty", "")
    with open(node.write("sparse", b""), "r+b") as stream:
        stream.truncate(1 << 20)
    before = node.contents()
    hot = hot_copy(node.spec())
    done = hot_test(node.spec())
    # A file of two names is tested once.
    assert (done.files, done.before) == (hot.files - 1, 0) and done.method in (COPY, DIRECT, REFLINK)
    assert not os.path.exists(scratch(node)) and node.contents() == before
    assert verify(freeze(node.spec(), {}).path).ok
    assert not os.path.exists(os.path.join(node.spec().snapshots_dir, "s1", "tested.json"))


def test_only_what_was_copied_anew_is_tested_again(node: Node) -> None:
    hot = hot_copy(node.spec())
    first = hot_test(node.spec())
    again = hot_test(node.spec())
    assert (again.files, again.bytes, again.before) == (0, 0, first.files)
    node.write("utxo_set.json", '{"a": 22}')
    hot_copy(node.spec())
    third = hot_test(node.spec())
    assert (third.files, third.before) == (1, first.files - 1)
    # Harm that comes after a test is found by the next one: it shows in the file's times.
    with open(os.path.join(hot.path, "roots/data/blocks/blocks_1.json"), "r+b") as stream:
        stream.write(b"!")
    with pytest.raises(IntegrityError, match=r"blocks_1\.json: content differs"):
        hot_test(node.spec())


def _cut(path: str) -> None:
    os.truncate(path, 3)


def _flip(path: str) -> None:
    with open(path, "r+b") as stream:
        byte = stream.read(1)
        stream.seek(0)
        stream.write(bytes([byte[0] ^ 1]))


def _lead_elsewhere(path: str) -> None:
    os.unlink(path)
    os.symlink("elsewhere", path)


def _directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize(
    ("name", "harm", "says"),
    [
        ("data/blocks/blocks_1.json", _flip, "data/blocks/blocks_1.json: content differs"),
        ("data/blocks/blocks_1.json", _cut, "data/blocks/blocks_1.json: size 3, copied"),
        ("data/blocks/blocks_1.json", os.unlink, "data/blocks/blocks_1.json: missing"),
        ("data/blocks/blocks_1.json", _directory, "is a dir, was copied as a file"),
        ("data/private/link", _lead_elsewhere, "data/private/link: leads elsewhere"),
        ("data/blocks/more.json", lambda path: open(path, "w").close(), "data/blocks/more.json: was not copied"),
        ("unit", _flip, "unit: content differs"),
        ("unit", os.unlink, "unit: missing"),
    ],
)
@pytest.mark.parametrize("room", [True, False])
def test_a_copy_that_would_not_restore_is_not_believed_any_more(
    node: Node, monkeypatch: pytest.MonkeyPatch, room: bool, name: str, harm: t.Callable[[str], None], says: str
) -> None:
    monkeypatch.setattr(rehearse._Test, "fits", lambda test, hot: room)
    hot = hot_copy(node.spec())
    harm(os.path.join(hot.path, "roots", name))
    with pytest.raises(IntegrityError, match=says):
        hot_test(node.spec())
    assert not os.path.exists(scratch(node))
    with pytest.raises(InputError, match="copy again first"):
        hot_test(node.spec())
    # The next copy begins anew, and is good.
    hot_copy(node.spec())
    assert hot_test(node.spec()).files > 0
    assert verify(freeze(node.spec(), {}).path).ok


def test_without_room_every_byte_is_read_and_nothing_written(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    hot = hot_copy(node.spec())
    monkeypatch.setattr(rehearse, "_RESERVE", 1 << 62)
    done = hot_test(node.spec())
    assert (done.method, done.files) == (READ, hot.files - 1)
    assert not os.path.exists(scratch(node) + ".lock"), "nothing was prepared for writing"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_is_left_alone(node: Node, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    hot = hot_copy(node.spec())

    def full(*args: t.Any) -> t.Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(rehearse, "copy_seen", full)
    assert (hot_test(node.spec()).method, os.path.exists(scratch(node))) == (READ, False)
    assert tree(hot.path)


def test_what_an_interrupted_test_left_goes_and_two_at_a_time_do_not(node: Node) -> None:
    with pytest.raises(InputError, match="no hot copy"):
        hot_test(node.spec())
    hot_copy(node.spec())
    os.makedirs(os.path.join(scratch(node), "data", "blocks"))
    with files.locked(scratch(node) + ".lock", what="a test"), pytest.raises(Busy):
        hot_test(node.spec())
    assert hot_test(node.spec()).files > 0 and not os.path.exists(scratch(node))
