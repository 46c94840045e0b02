# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of an instance's evidence, kept in the entries of its manifest, and with its copies on the other hosts.

Only of what is never rewritten: a turn's plan and journal, the log of the lock. Such a file may grow, so an entry tells the
digest of the whole lines that there were. A journal is allocated beforehand; the zeros at its end are none of it, and neither is
what an interrupted write left there.
"""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._core import files
from .manifest import Entry


def seen(root: str, paths: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """``{"path" (below root), "size", "sha256"}`` of each of these files that there is."""
    found = []
    for path in paths:
        data = files.read_or_none(path)
        if data is not None:
            told = data.partition(b"\0")[0]
            told = told[: told.rfind(b"\n") + 1] or told
            found.append({"path": os.path.relpath(path, root), "size": len(told), "sha256": hashlib.sha256(told).hexdigest()})
    return found


def changed(root: str, entries: t.Iterable[Entry]) -> list[str]:
    """Which files are no longer what an entry tells of them. One that is gone is not: old evidence may be put elsewhere."""
    found = []
    for entry in entries:
        for path, size, digest in _told(entry):
            data = _inside(root, path)
            if data is not None and hashlib.sha256(data[:size]).hexdigest() != digest:
                found.append(f"entry {entry.seq}: {path} was changed after it was recorded")
    return found


def _told(entry: Entry) -> list[tuple[str, int, str]]:
    """Path, size and digest of each file; none where an entry has something else by that name."""
    try:
        return [(str(one["path"]), int(one["size"]), str(one["sha256"])) for one in entry.fields.get("evidence") or ()]
    except (TypeError, KeyError, ValueError):
        return []


def _inside(root: str, name: str) -> bytes | None:
    """A file below a directory; None for one that is gone, or elsewhere."""
    path = os.path.normpath(os.path.join(root, name))
    return files.read_or_none(path) if path.startswith(os.path.join(root, "")) else None
