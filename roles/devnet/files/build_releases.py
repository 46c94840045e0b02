# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the reference node's releases that a devnet is used with, unless they are there as asked for.

    build_releases.py DIRECTORY RELEASES

RELEASES is JSON: a list of {version, level[, id][, suffix][, misbehave]}, as build_release.py takes them. DIRECTORY gets the
archives and their descriptors. Prints `built` or `kept`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def inputs(releases: str) -> str:
    digest = hashlib.sha256(releases.encode())
    for path in sorted([*HERE.glob("refnode/**/*.py"), HERE / "build_release.py", HERE / "vendor.txt"]):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build(directory: pathlib.Path, one: dict[str, object]) -> None:
    command = [sys.executable, str(HERE / "build_release.py"), "--out", str(directory), "--cache", str(directory / ".vendor")]
    command += ["--arch", platform.machine(), "--version", str(one["version"]), "--level", str(one["level"])]
    for option in ("id", "suffix"):
        if one.get(option):
            command += [f"--{option}", str(one[option])]
    if one.get("misbehave"):
        command += ["--misbehave", json.dumps(one["misbehave"])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    directory, releases = pathlib.Path(sys.argv[1]), sys.argv[2]
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / ".stamp"
    # Two devnets that come up at once share the directory.
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        want = inputs(releases)
        if stamp.exists() and stamp.read_text(encoding="utf-8") == want:
            print("kept")
            return 0
        for one in json.loads(releases):
            try:
                build(directory, one)
            except subprocess.CalledProcessError:
                print(f"building release {one['version']} failed: see above", file=sys.stderr)
                return 1
        stamp.write_text(want, encoding="utf-8")
    print("built")
    return 0


if __name__ == "__main__":
    sys.exit(main())
