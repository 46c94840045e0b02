# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import tarfile

import build_release
import pytest


@pytest.fixture
def vendored(tmp_path, monkeypatch):
    """Stands in for the fetched dependencies, which are not what is tested here."""
    root = tmp_path / "vendored"
    (root / "cryptography").mkdir(parents=True)
    (root / "cryptography" / "__init__.py").write_text("")
    (root / "cryptography" / "_x.so").write_bytes(b"\x7fELF")
    (root / "cryptography-1.dist-info" / "licenses").mkdir(parents=True)
    (root / "cryptography-1.dist-info" / "RECORD").write_text("x")
    (root / "cryptography-1.dist-info" / "licenses" / "LICENSE").write_text("free")
    (root / ".complete").touch()
    monkeypatch.setattr(build_release, "vendor", lambda _cache, _arch: root)
    return root


def built(out, *arguments):
    assert build_release.main(["--version", "2.0.0", "--level", "2", "--out", str(out), *arguments]) == 0
    name = next(out.glob("*.tar.gz"))
    with tarfile.open(name) as tar:
        return name, {member.name.partition("/")[2]: member for member in tar}


def test_the_same_input_gives_the_same_bytes(vendored, tmp_path, monkeypatch, capsys):
    one, _members = built(tmp_path / "one")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    os.utime(vendored / "cryptography" / "__init__.py", (1, 1))
    two, _members = built(tmp_path / "elsewhere" / "two")
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(one.read_bytes())


def test_what_an_archive_holds(vendored, tmp_path, capsys):
    archive, members = built(tmp_path / "two")
    assert members["bin/xai-node"].mode == 0o755 and members["lib/refnode/node.py"].mode == 0o644
    assert {
        "release.json",
        "lib/refnode/level2.py",
        "vendor/cryptography/_x.so",
        "vendor/cryptography-1.dist-info/licenses/LICENSE",
    } <= set(members)
    assert not any("RECORD" in name or name.startswith("misbehave") for name in members)
    assert all(member.uid == 0 and member.mtime == 0 for member in members.values())
    told = json.loads(next((tmp_path / "two").glob("*.release.json")).read_text())
    assert told["artifacts"]["x86_64"] == {"src": str(archive), "sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}
    assert told["level"] == 2 and told["migrations"][0]["from_level"] == 1


def test_release_1_knows_nothing_of_level_2_and_a_bad_one_says_what_it_does(vendored, tmp_path, capsys):
    out = tmp_path / "one"
    assert build_release.main(["--version", "1.0.0", "--level", "1", "--out", str(out), "--misbehave", '{"stall": true}']) == 0
    with tarfile.open(next(out.glob("*.tar.gz"))) as tar:
        names = tar.getnames()
        body = tar.extractfile("xai-refnode-1.0.0/misbehave.json").read()
    assert not any("level2" in name for name in names) and json.loads(body) == {"stall": True}


@pytest.mark.parametrize(
    "arguments",
    [["--misbehave", '{"dance": true}'], ["--misbehave", "[]"], ["--misbehave", "{"], ["--python", "/bin/sh"], ["--level", "3"]],
)
def test_bad_options_are_refused(vendored, tmp_path, arguments, capsys):
    try:
        status = build_release.main(["--version", "1.0.0", "--level", "1", "--out", str(tmp_path / "o"), *arguments])
    except SystemExit as exc:
        status = exc.code
    assert status != 0 and not list((tmp_path / "o").glob("*.tar.gz"))


def test_a_real_release_runs_on_bare_python(tmp_path, capsys):
    """Needs a package index once, or a filled cache."""
    python = build_release.cpython311(None)
    if python is None:
        pytest.skip("no CPython 3.11 here")
    try:
        archive, _members = built(tmp_path / "real")
    except AssertionError:
        pytest.skip(f"the release's dependencies can't be fetched here: {capsys.readouterr().err[-300:]}")
    subprocess.run(["tar", "-xzf", str(archive), "--strip-components=1", "-C", str(tmp_path)], check=True)
    environment = {"PATH": "/usr/bin:/bin", "REFNODE_PYTHON": python}
    made = subprocess.run(
        [str(tmp_path / "bin" / "xai-node-genesis"), "--out", str(tmp_path / "g"), "--validators", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(made.stdout)["validators"]) == 2
    link = tmp_path / "current"
    link.symlink_to(tmp_path)
    shown = subprocess.run([str(link / "bin" / "migrate"), "--help"], env=environment, capture_output=True, text=True)
    assert shown.returncode == 0 and "--to" in shown.stdout
