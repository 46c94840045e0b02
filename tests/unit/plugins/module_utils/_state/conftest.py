# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small node's directories, to take snapshots of and to harm."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import stat
import subprocess
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, SnapshotSpec

XAI = adapter("xai")
KEY = "TXAIkey"


class Node:
    """Data directory, a wallet directory and a unit file under one folder."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.data = str(base / "srv" / "data")
        self.roots = (
            Root("data", self.data),
            Root("unit", str(base / "etc" / "xai.service")),
            Root("wallets", str(base / "home" / "w")),
        )

    def spec(self, snapshot_id: str = "s1") -> SnapshotSpec:
        return SnapshotSpec.for_adapter("n1", snapshot_id, self.roots, XAI)

    def write(self, name: str, content: str | bytes) -> pathlib.Path:
        path = pathlib.Path(self.data, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def sign(self, height: int) -> None:
        self.write("finality/last_signed.json", json.dumps({"address": KEY, "height": height, "round": 0, "step": 3}))

    def contents(self) -> dict[str, dict[bytes, t.Any]]:
        return {root.name: tree(root.path) for root in self.roots}


def tree(path: str) -> dict[bytes, t.Any]:
    """Everything a person would compare: type, mode, content, target, mtime of files. Our own folder is left out."""
    root = os.fsencode(path)
    result: dict[bytes, t.Any] = {}
    stack = [b""]
    while stack:
        name = stack.pop()
        where = os.path.join(root, name) if name else root
        info = os.lstat(where)
        if stat.S_ISDIR(info.st_mode):
            result[name] = ("dir", stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
            stack += [os.path.join(name, other) for other in os.listdir(where) if other != b".chainops"]
        elif stat.S_ISLNK(info.st_mode):
            result[name] = ("symlink", os.readlink(where))
        elif stat.S_ISREG(info.st_mode):
            with open(where, "rb") as stream:
                result[name] = ("file", stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, stream.read())
        else:
            result[name] = ("other",)
    return result


def make_node(base: pathlib.Path) -> Node:
    for folder in ("srv/data", "etc", "home/w"):
        (base / folder).mkdir(parents=True)
    node = Node(base)
    for number in range(3):
        node.write(f"blocks/blocks_{number}.json", f'{{"index": {number}}}\n' * 50)
    node.write("utxo_set.json", '{"a": 1}')
    node.write("schema.json", '{"level": 1}')
    node.write("node_identity.json", "the private key")
    node.sign(7)
    os.chmod(node.write("private/notes", "mine"), 0o600)
    os.symlink("../utxo_set.json", os.path.join(node.data, "private", "link"))
    os.link(os.path.join(node.data, "utxo_set.json"), os.path.join(node.data, "private", "same"))
    (base / "etc" / "xai.service").write_text("[Service]\nExecStart=/opt/1\n")
    (base / "home" / "w" / "cache").write_text("wallet")
    return node


@contextlib.contextmanager
def mounted(base: pathlib.Path, system: str) -> t.Iterator[pathlib.Path]:
    """A file system of its own in a file."""
    place, image = base / system, base / f"{system}.img"
    if os.geteuid() != 0 or not shutil.which(f"mkfs.{system}"):
        pytest.skip(f"this test makes a file system: it needs root and mkfs.{system}, which tools/setup.sh hosts installs")
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(320 << 20)
    subprocess.run([f"mkfs.{system}", "-q", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel can't mount {system}: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return make_node(tmp_path / "node")
