#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a release archive of the reference node: ``xai-refnode-<version>-<arch>.tar.gz`` and its descriptor beside it.

The same input gives the same bytes: fixed order, owners, modes and times, and byte code without references to where it was
made. Byte code is added when a CPython 3.11 is at hand (the hosts' Python); without it the node only starts slower.

Runs with any Python >= 3.9. Dependencies come from the package index once, pinned by hash, into ``--cache``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import typing as t

HERE = pathlib.Path(__file__).resolve().parent
PLATFORMS = {
    "x86_64": ("x86_64-manylinux_2_28", "manylinux_2_28_x86_64"),
    "aarch64": ("aarch64-manylinux_2_28", "manylinux_2_28_aarch64"),
}
LEVEL_2_ONLY = {"level2.py"}
DROPPED = (
    ".pyi",
    ".pyc",
    ".h",
    ".rs",
    "py.typed",
    "RECORD",
    "INSTALLER",
    "REQUESTED",
    "WHEEL",
    "entry_points.txt",
    "top_level.txt",
    ".lock",
)

LAUNCHER = """#!/bin/sh
# The physical path, so that a process never changes release under way when a link to it does.
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")") || exit 1
exec "${REFNODE_PYTHON:-python3}" -I -B "$root/lib/start.py" %s "$@"
"""

START = '''"""Puts the release's own directories first and hands over."""

import os
import sys

_LIB = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [_LIB, os.path.join(os.path.dirname(_LIB), "vendor")]

if sys.argv[1] == "node":
    from refnode.node import main
elif sys.argv[1] == "migrate":
    from refnode.migrate import main
else:
    from refnode.genesis import main
sys.exit(main(sys.argv[2:]))
'''

COMPILE = """
import importlib.util, marshal, sys
for line in sys.stdin.read().splitlines():
    source, shown, target = line.split("\\t")
    data = open(source, "rb").read()
    code = compile(data, shown, "exec", dont_inherit=True, optimize=0)
    # Unchecked hash pyc (PEP 552); marshal version 2 has no references, whose flags depend on what else is alive.
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(data)
    open(target, "wb").write(head + marshal.dumps(code, 2))
"""


class BuildError(Exception):
    """The release can't be built; the message says what is missing."""


def cpython311(preferred: str | None) -> str | None:
    """A CPython 3.11 to compile with, or None. Raises BuildError when the one asked for isn't."""
    for candidate in [preferred] if preferred else [sys.executable, "python3.11", "/usr/bin/python3"]:
        found = shutil.which(candidate)
        if found is None:
            continue
        probe = subprocess.run(
            [found, "-c", "import sys; print(sys.version_info[:2] == (3, 11) and sys.implementation.name)"],
            capture_output=True,
            text=True,
        )
        if probe.returncode == 0 and probe.stdout.strip() == "cpython":
            return found
    if preferred:
        raise BuildError(f"--python {preferred} is not a CPython 3.11")
    return None


def vendor(cache: pathlib.Path, arch: str) -> pathlib.Path:
    """The dependencies, unpacked; fetched once. Raises BuildError."""
    requirements = HERE / "vendor.txt"
    target = cache / f"vendor-{arch}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    if (target / ".complete").exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    uv_platform, pip_platform = PLATFORMS[arch]
    common = ["--target", str(target), "--require-hashes", "--no-deps", "-r", str(requirements), "--python-version", "3.11"]
    uv = ["pip", "install", "--quiet", *common, "--python-platform", uv_platform, "--only-binary", ":all:"]
    platforms = [pip_platform, pip_platform.replace("_2_28_", "2014_")]
    pip = [
        "pip",
        "install",
        "--quiet",
        *common,
        "--only-binary",
        ":all:",
        "--no-compile",
        "--implementation",
        "cp",
        "--abi",
        "cp311",
        "--abi",
        "abi3",
        *[word for name in platforms for word in ("--platform", name)],
    ]
    tries = [[tool, *uv] for tool in ("uv", str(pathlib.Path(sys.executable).parent / "uv")) if shutil.which(tool)]
    tries += [
        [python, "-m", *pip] for python in dict.fromkeys((sys.executable, "python3", "/usr/bin/python3")) if shutil.which(python)
    ]
    said = []
    for command in tries:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0 and (target / "cryptography").is_dir():
            (target / ".complete").touch()
            return target
        said.append(f"{command[0]}: {(done.stderr or done.stdout).strip()[-400:]}")
        shutil.rmtree(target, ignore_errors=True)
    raise BuildError(
        "the dependencies in vendor.txt could not be fetched; needs uv or pip and a package index\n" + "\n".join(said)
    )


def wanted(relative: pathlib.PurePath) -> bool:
    """Is a vendored file of use at run time (or its licence)?"""
    parts = relative.parts
    if relative.name.endswith(DROPPED) or "__pycache__" in parts or parts[0] in ("bin", "cffi") or "sboms" in parts:
        return False
    if parts[0].endswith(".dist-info"):
        return "LICENSE" in relative.name.upper()
    return relative.name != ".complete"


def collect(arguments: argparse.Namespace) -> tuple[dict[str, bytes], dict[str, pathlib.Path]]:
    """(files by content, files by path) of the archive, keyed by their place in it."""
    content: dict[str, bytes] = {}
    paths: dict[str, pathlib.Path] = {}
    info = {
        "id": arguments.id or arguments.version,
        "version": arguments.version,
        "level": arguments.level,
        "software": "refnode",
    }
    content["release.json"] = (json.dumps(info, sort_keys=True) + "\n").encode()
    if arguments.misbehave:
        content["misbehave.json"] = (json.dumps(arguments.misbehave, sort_keys=True) + "\n").encode()
    for name, word in (("xai-node", "node"), ("migrate", "migrate"), ("xai-node-genesis", "genesis")):
        content[f"bin/{name}"] = (LAUNCHER % word).encode()
    content["lib/start.py"] = START.encode()
    for source in sorted((HERE / "refnode").glob("*.py")):
        if arguments.level >= 2 or source.name not in LEVEL_2_ONLY:
            paths[f"lib/refnode/{source.name}"] = source
    root = vendor(pathlib.Path(arguments.cache), arguments.arch)
    for source in sorted(root.rglob("*")):
        if source.is_file() and wanted(source.relative_to(root)):
            paths[f"vendor/{source.relative_to(root).as_posix()}"] = source
    return content, paths


def add_bytecode(python: str, paths: dict[str, pathlib.Path], scratch: pathlib.Path) -> dict[str, pathlib.Path]:
    """Byte code for every module of ours and of the vendored ones that a start imports."""
    scratch.mkdir(parents=True, exist_ok=True)
    result, lines = {}, []
    for number, (place, source) in enumerate(sorted(paths.items())):
        if not place.endswith(".py"):
            continue
        target = scratch / f"{number}.pyc"
        parent, name = place.rsplit("/", 1)
        result[f"{parent}/__pycache__/{name[:-3]}.cpython-311.pyc"] = target
        lines.append(f"{source}\t{place}\t{target}")
    subprocess.run([python, "-I", "-c", COMPILE], input="\n".join(lines), text=True, check=True)
    return result


def pack(out: pathlib.Path, top: str, content: dict[str, bytes], paths: dict[str, pathlib.Path]) -> str:
    """Write the archive; returns its SHA-256."""
    names = sorted([*content, *paths])
    folders = sorted({str(parent) for name in names for parent in pathlib.PurePosixPath(name).parents if str(parent) != "."})
    temporary = out.with_suffix(".part")
    with (
        open(temporary, "wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for folder in ["", *folders]:
            entry = tarfile.TarInfo(f"{top}/{folder}".rstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in names:
            data = content[name] if name in content else paths[name].read_bytes()
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode = len(data), 0o755 if name.startswith("bin/") or name.endswith(".so") else 0o644
            tar.addfile(entry, io.BytesIO(data))
    os.replace(temporary, out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def descriptor(arguments: argparse.Namespace, archive: pathlib.Path, digest: str) -> dict[str, t.Any]:
    """What a rollout needs to know of the release (``rollout_release``)."""
    argv = ["{release}/bin/migrate", "--data-dir", "{data}"]
    migration = {
        "id": "0002-utxo-db",
        "from_level": 1,
        "to_level": 2,
        "forward": [*argv, "--to", "2"],
        "back": [*argv, "--to", "1"],
        "check": [*argv, "--to", "2", "--check"],
        "reversible": True,
        "mixed_fleet": True,
    }
    return {
        "id": arguments.id or arguments.version,
        "version": arguments.version,
        "level": arguments.level,
        "module": "storage",
        "artifacts": {arguments.arch: {"src": str(archive), "sha256": digest}},
        "migrations": [migration] if arguments.level >= 2 else [],
    }


def build(arguments: argparse.Namespace) -> dict[str, t.Any]:
    out = pathlib.Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    suffix = f"-{arguments.suffix}" if arguments.suffix else ""
    name = f"xai-refnode-{arguments.version}{suffix}-{arguments.arch}"
    content, paths = collect(arguments)
    python = cpython311(arguments.python)
    scratch = out / f".{name}.pyc"
    try:
        if python:
            paths = {**paths, **add_bytecode(python, paths, scratch)}
        archive = out / f"{name}.tar.gz"
        digest = pack(archive, f"xai-refnode-{arguments.version}", content, paths)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    described = descriptor(arguments, archive, digest)
    (out / f"{name}.release.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return described


def misbehaviour(text: str) -> dict[str, t.Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('must be an object, as in {"stall": true}')
    sys.path.insert(0, str(HERE))
    from refnode.misbehave import clean

    try:
        clean(value)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return value


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build a release archive of the reference node.")
    parser.add_argument("--version", required=True, help="what the node tells over HTTP, such as 2.0.0")
    parser.add_argument("--id", help="release id; the version when omitted")
    parser.add_argument("--suffix", help="added to the file's name only, such as stall")
    parser.add_argument("--level", required=True, type=int, choices=(1, 2), help="storage level it works at")
    parser.add_argument("--misbehave", type=misbehaviour, metavar="JSON", help='build a bad release, as in {"stall": true}')
    parser.add_argument("--arch", choices=sorted(PLATFORMS), default="x86_64")
    parser.add_argument("--out", required=True, help="folder for the archive and its descriptor")
    parser.add_argument(
        "--cache", default=str(pathlib.Path("~/.cache/chainops-refnode").expanduser()), help="folder for fetched dependencies"
    )
    parser.add_argument("--python", help="a CPython 3.11 to compile byte code with")
    arguments = parser.parse_args(argv)
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+_-]*", arguments.version):
        parser.error("--version may hold letters, digits and . + _ - only")
    try:
        print(json.dumps(build(arguments), indent=2, sort_keys=True))
    except (BuildError, subprocess.CalledProcessError) as exc:
        print(f"build_release: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
