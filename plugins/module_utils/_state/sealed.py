# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sealed form of a snapshot: a header, and one entry for each name, under one digest.

``manifest.json`` is one JSON document, ``{"header": {...}, "entries": [...]}``, with each entry in canonical form on a line
of its own, sorted by root and path. A leaf is SHA-256(0x00 + entry), a node SHA-256(0x01 + left + right), an odd last one
goes up as it is (the tree of RFC 6962). The header holds the tree's root, the chain's facts and the counts;
``root_sha256``, by which a snapshot is known elsewhere, is the digest of the header.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import itertools
import os
import typing as t

from .._core import canonical
from .._core.errors import InputError, IntegrityError
from .copy import clean_mode
from .names import check_id, check_instance, check_root, decode, encode
from .scan import DIRECTORY, FILE, SYMLINK, Found

FORMAT = "chainops.snapshot/1"
NAME = "manifest.json"
TREES = "roots"

_HEAD, _ENTRIES, _LAST = b'{"header":', b',"entries":[\n', b"]}\n"
# A line, in bytes: the header names what was left out, an entry may have long attributes.
_LONGEST = 64 << 20
_AT_ONCE = 1000

Header = t.Dict[str, t.Any]


class Entry(t.NamedTuple):
    """One name in a snapshot. ``link`` is the path whose content this one shares (a hard link), else empty."""

    root: str
    path: bytes
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    sha256: str = ""
    target: str = ""
    link: str = ""
    sparse: bool = False
    xattrs: t.Mapping[str, str] = {}

    def as_dict(self) -> dict[str, t.Any]:
        """The entry as it is stored; what doesn't apply is left out."""
        entry: dict[str, t.Any] = {
            "root": self.root,
            "path": encode(self.path),
            "type": self.type,
            "mode": f"{self.mode:04o}",
            "uid": self.uid,
            "gid": self.gid,
            "mtime_ns": self.mtime_ns,
        }
        if self.type == FILE:
            entry["size"] = self.size
            entry["sha256"] = self.sha256
            if self.link:
                entry["link"] = self.link
            if self.sparse:
                entry["sparse"] = True
        elif self.type == SYMLINK:
            entry["target"] = self.target
        if self.xattrs:
            entry["xattrs"] = dict(self.xattrs)
        return entry

    def meta(self) -> Found:
        """What a restored name gets."""
        return Found(self.path, self.type, 0, 0, 1, self.size, self.mode, self.uid, self.gid, self.mtime_ns, 0, 0)

    @property
    def label(self) -> str:
        """For messages: ``data/blocks/blocks_1.json``."""
        return f"{self.root}/{encode(self.path)}" if self.path else self.root


def entry_of(root: str, seen: Found, **more: t.Any) -> Entry:
    """An entry for something that was seen."""
    mode = clean_mode(seen.type, seen.mode) if seen.type != SYMLINK else 0o777
    size = seen.size if seen.type == FILE else 0
    return Entry(root, seen.path, seen.type, size, mode, seen.uid, seen.gid, seen.mtime_ns, **more)


def parse_entry(value: t.Any) -> Entry:
    """Raises IntegrityError for an entry that isn't one, or whose path would leave its root."""
    try:
        path = decode(value["path"])
        parts = path.split(b"/") if path else []
        if any(part in (b"", b".", b"..") for part in parts) or b"\0" in path:
            raise ValueError(f"unsafe path {value['path']!r}")
        if value["type"] not in (FILE, DIRECTORY, SYMLINK):
            raise ValueError(f"unknown type {value['type']!r}")
        mode = int(value["mode"], 8)
        if mode != clean_mode(value["type"], mode):
            raise ValueError(f"mode {value['mode']} has bits that are never kept")
        xattrs = dict(value.get("xattrs", {}))
        for data in xattrs.values():
            base64.b64decode(data, validate=True)
        return Entry(
            str(value["root"]),
            path,
            value["type"],
            _number(value, "size", 0, 2**63 - 1) if value["type"] == FILE else 0,
            mode,
            _number(value, "uid", 0, 2**32 - 2),
            _number(value, "gid", 0, 2**32 - 2),
            _number(value, "mtime_ns", -(2**63), 2**63 - 1),
            str(value.get("sha256", "")),
            str(value.get("target", "")),
            str(value.get("link", "")),
            bool(value.get("sparse", False)),
            xattrs,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise IntegrityError(f"snapshot manifest: an entry is not valid: {exc}") from exc


def _number(value: t.Mapping[str, t.Any], name: str, least: int, most: int) -> int:
    """A whole number that the kernel takes."""
    number = value[name]
    if number.__class__ is not int or not least <= number <= most:
        raise ValueError(f"{name} is {number!r}")
    return int(number)


def leaf(line: bytes) -> bytes:
    """Digest of an entry's canonical bytes, as it counts in the tree."""
    return hashlib.sha256(b"\0" + line).digest()


def merkle(leaves: t.Sequence[bytes]) -> str:
    """Root of the tree over the digests of the leaves, hex."""
    sha = hashlib.sha256
    level = list(leaves) or [sha(b"").digest()]
    while len(level) > 1:
        paired = [sha(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0].hex()


def seal(header: Header, entries: t.Iterable[Entry]) -> tuple[list[bytes], str]:
    """``(manifest.json in parts, root_sha256)``. Adds format, counts and the tree's root to the header."""
    parts = [b""]
    leaves: list[bytes] = []
    count = size = 0
    for entry in entries:
        line = canonical.dumps(entry.as_dict())
        leaves.append(leaf(line))
        parts.append((b",\n" if len(parts) > 1 else b"") + line)
        if entry.type == FILE:
            count += 1
            size += 0 if entry.link else entry.size
    whole: Header = {
        **header,
        "format": FORMAT,
        "entries": len(leaves),
        "files": count,
        "bytes": size,
        "merkle_root": merkle(leaves),
    }
    head = canonical.dumps(whole)
    parts[0] = _HEAD + head + _ENTRIES
    parts.append(b"\n" + _LAST)
    return parts, hashlib.sha256(head).hexdigest()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A manifest whose digests agree with its content."""

    header: Header
    root_sha256: str
    entries: tuple[Entry, ...] = ()


def read(path: str) -> Manifest:
    """Read and check a whole manifest. Raises IntegrityError."""
    leaves: list[bytes] = []
    entries: list[Entry] = []
    what = f"snapshot manifest {path}"
    with _opened(path) as stream:
        header = _head(path, stream.readline(_LONGEST))
        ended = False
        # A hundred thousand entries as they are parsed take more memory than all else: a few at a time.
        while not ended:
            lines = list(itertools.islice(iter(lambda: stream.readline(_LONGEST), b""), _AT_ONCE))
            ended = not lines or lines[-1] == _LAST
            texts = [line.rstrip(b"\n").rstrip(b",") for line in lines if line != _LAST]
            values = canonical.loads(b"[" + b",".join(texts) + b"]", what)
            if not lines or len(values) != len(texts):
                raise IntegrityError(f"{what} does not end, or has something else among its entries", path=path)
            leaves += map(leaf, texts)
            entries += [parse_entry(value) for value in values]
        rest = stream.read(1)
    if rest or merkle(leaves) != header.get("merkle_root") or len(leaves) != header.get("entries"):
        raise IntegrityError(f"{what}: the entries are not the ones that were sealed", path=path)
    _structure(path, header, entries)
    return Manifest(header, canonical.digest(header), tuple(entries))


def _structure(path: str, header: Header, entries: t.Sequence[Entry]) -> None:
    """Every name once, below directories that are entries themselves: nothing can be written through a link, or outside."""
    kinds: dict[tuple[str, bytes], Entry] = {}
    roots = {str(root["name"]): str(root["kind"]) for root in header["roots"]}
    for entry in entries:
        parent = kinds.get((entry.root, entry.path.rpartition(b"/")[0]))
        problem = ""
        if entry.root not in roots:
            problem = "is in no declared root"
        elif (entry.root, entry.path) in kinds:
            problem = "is there twice"
        elif not entry.path and entry.type != roots[entry.root]:
            problem = f"is a {entry.type}, its root was declared a {roots[entry.root]}"
        elif entry.path and (parent is None or parent.type != DIRECTORY):
            problem = "is not below a directory"
        elif entry.link:
            first = kinds.get((entry.root, decode(entry.link)))
            if first is None or first.link or (first.type, first.sha256, first.size) != (FILE, entry.sha256, entry.size):
                problem = f"shares its content with {entry.link!r}, which is not such a file"
        if problem:
            raise IntegrityError(f"snapshot manifest {path}: {entry.label} {problem}", path=path)
        kinds[(entry.root, entry.path)] = entry
    for name in roots:
        if (name, b"") not in kinds:
            raise IntegrityError(f"snapshot manifest {path}: root {name} has no entry", path=path)


def read_header(path: str) -> tuple[Header, str]:
    """The header and ``root_sha256`` alone, without looking at the entries. Raises IntegrityError."""
    with _opened(path) as stream:
        header = _head(path, stream.readline(_LONGEST))
    return header, canonical.digest(header)


def _head(path: str, line: bytes) -> Header:
    if not line.startswith(_HEAD) or not line.endswith(_ENTRIES):
        raise IntegrityError(f"{path} is not a snapshot manifest", path=path)
    return _header(path, canonical.loads(line[len(_HEAD) : -len(_ENTRIES)], f"snapshot manifest {path}"))


def _header(path: str, header: t.Any) -> Header:
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("roots"), list):
        raise IntegrityError(f"snapshot manifest {path} is not in the format {FORMAT}", path=path)
    try:
        # They become parts of paths.
        check_id(header["snapshot_id"])
        check_instance(header["instance"])
        names = [check_root(root["name"]) for root in header["roots"]]
        kinds = {root["kind"] for root in header["roots"]}
        if not names or len(set(names)) != len(names) or not kinds <= {FILE, DIRECTORY}:
            raise ValueError("its roots are not usable")
        if not isinstance(header["facts"], dict):
            raise ValueError("its facts are not a mapping")
        for count in ("files", "bytes", "entries"):
            _number(header, count, 0, 2**63 - 1)
        if not all(isinstance(header[name], str) for name in ("method", "created")):
            raise ValueError("its texts are not text")
    except (KeyError, TypeError, ValueError, InputError) as exc:
        raise IntegrityError(f"snapshot manifest {path}: the header is not valid: {exc}", path=path) from exc
    return header


@contextlib.contextmanager
def _opened(path: str) -> t.Iterator[t.BinaryIO]:
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed below
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise IntegrityError(f"{os.path.dirname(path)} is not a sealed snapshot: it has no {NAME}", path=path) from exc
    with stream:
        yield stream
