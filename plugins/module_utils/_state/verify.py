# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a tree what the manifest says? Reads the snapshot itself, and names the file and the difference."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._core.errors import ChainopsError
from . import sealed
from .copy import Gone, clean_mode, has_hole, hash_seen, parallel, read_xattrs
from .fault import is_there, storage
from .names import Patterns, decode, encode
from .scan import DIRECTORY, FILE, SYMLINK, Found, join, scan
from .sealed import Entry, Manifest

LIMIT = 1000


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``problems`` is empty exactly when ``ok``. ``files`` and ``bytes``: what was looked at."""

    ok: bool
    problems: tuple[str, ...]
    files: int
    bytes: int
    root_sha256: str
    facts: dict[str, t.Any]
    deep: bool

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "problems": list(self.problems)}


def verify(path: str, deep: bool = True, expect_root: str | None = None) -> Verdict:
    """Compare a snapshot with its seal, and the seal with ``expect_root`` where it is known from elsewhere.

    Quick looks at names, types, sizes, owners, modes, times, links and attributes; deep also reads every byte. Never raises
    because the answer is no.
    """
    try:
        with storage(f"read snapshot {path}"):
            manifest = sealed.read(os.path.join(path, sealed.NAME))
    except ChainopsError as exc:
        return Verdict(False, (exc.message,), 0, 0, "", {}, deep)
    problems: list[str] = []
    if expect_root and manifest.root_sha256 != expect_root:
        problems.append(
            f"the seal is {manifest.root_sha256}, expected {expect_root}: this is another snapshot, or was sealed again"
        )
    try:
        with storage(f"read snapshot {path}"):
            for root in manifest.header["roots"]:
                name = str(root["name"])
                where = os.fsencode(os.path.join(path, sealed.TREES, name))
                problems += compare(where, of_root(manifest, name), deep=deep)
    except ChainopsError as exc:
        problems.append(exc.message)
    cut = problems[:LIMIT] + ([f"and {len(problems) - LIMIT} more"] if len(problems) > LIMIT else [])
    header = manifest.header
    return Verdict(not problems, tuple(cut), header["files"], header["bytes"], manifest.root_sha256, dict(header["facts"]), deep)


def of_root(manifest: Manifest, name: str) -> list[Entry]:
    """The entries of one root, in order."""
    return [entry for entry in manifest.entries if entry.root == name]


def compare(where: bytes, entries: t.Sequence[Entry], *, deep: bool, ignore: Patterns | None = None) -> list[str]:
    """Every difference between a tree on disk and entries of one root, as text. Names that match ``ignore`` don't count.

    Raises OSError when the tree can't be read.
    """
    name = entries[0].root
    if not is_there(where):
        return [f"{name}: missing"]
    if os.path.islink(where):
        return [f"{name}: is a symbolic link"]
    skip = ignore or Patterns(())
    wanted = {entry.path: entry for entry in entries if not skip.match(entry.path)}
    seen = scan(where, skip)
    there = {item.path: item for item in seen.kept}
    problems = [f"{wanted[path].label}: missing" for path in sorted(wanted.keys() - there.keys())]
    # A directory that is only there because something ignored is in it doesn't count either.
    holding = {folder for item in seen.excluded for folder in _above(item.path)}
    extra = sorted((there.keys() - wanted.keys() - holding) | {item.path for item in seen.skipped})
    problems += [f"{name}/{encode(path)}: not in the snapshot" for path in extra]
    for path in sorted(wanted.keys() & there.keys()):
        problems += _differences(wanted[path], there[path], join(where, path))
    inodes: dict[bytes, int] = {path: there[path].ino for path in wanted.keys() & there.keys()}
    for path, entry in wanted.items():
        if entry.link and path in inodes and inodes[path] != inodes.get(decode(entry.link)):
            problems.append(f"{entry.label}: no longer one file with {name}/{entry.link}")
    if deep:
        todo = [
            (entry, there[path])
            for path, entry in wanted.items()
            if entry.type == FILE
            and not entry.link
            and path in there
            and there[path].type == FILE
            and there[path].size == entry.size
        ]
        problems += [text for text in parallel(lambda pair: _content(where, *pair), todo, lambda pair: pair[0].size) if text]
    return problems


def _above(path: bytes) -> t.Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _content(where: bytes, entry: Entry, item: Found) -> str:
    try:
        got = hash_seen(join(where, entry.path), item)
    except Gone:
        return f"{entry.label}: changed while it was read"
    except OSError as exc:
        return f"{entry.label}: can't be read: {exc.strerror}"
    if got.sha256 != entry.sha256:
        return f"{entry.label}: content differs (sha256 {got.sha256}, sealed {entry.sha256})"
    return ""


def _differences(entry: Entry, item: Found, path: bytes) -> list[str]:
    label = entry.label
    if entry.type != item.type:
        return [f"{label}: is a {item.type}, sealed a {entry.type}"]
    texts: list[str] = []
    if entry.type == FILE and entry.size != item.size:
        texts.append(f"{label}: size {item.size}, sealed {entry.size}")
    mode = clean_mode(item.type, item.mode) if item.type != SYMLINK else entry.mode
    if mode != entry.mode or (item.type == FILE and item.mode & 0o7000):
        texts.append(f"{label}: mode {item.mode:04o}, sealed {entry.mode:04o}")
    if (item.uid, item.gid) != (entry.uid, entry.gid):
        texts.append(f"{label}: owner {item.uid}:{item.gid}, sealed {entry.uid}:{entry.gid}")
    # Putting a name into a directory, or taking one out, is reported as such.
    if item.mtime_ns != entry.mtime_ns and item.type != DIRECTORY:
        texts.append(f"{label}: modified at {item.mtime_ns} ns, sealed {entry.mtime_ns} ns")
    if entry.type == SYMLINK:
        target = encode(os.readlink(path))
        if target != entry.target:
            texts.append(f"{label}: points to {target}, sealed {entry.target}")
    if entry.sparse and not has_hole(path, item):
        texts.append(f"{label}: is no longer sparse")
    xattrs = read_xattrs(path)
    if xattrs != dict(entry.xattrs):
        names = sorted(
            set(xattrs) ^ set(entry.xattrs) | {n for n in set(xattrs) & set(entry.xattrs) if xattrs[n] != entry.xattrs[n]}
        )
        texts.append(f"{label}: extended attributes differ: {', '.join(names)}")
    return texts
