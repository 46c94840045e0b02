# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File names as JSON text, patterns over them, and where the trees of an instance live.

Names are bytes to the kernel and need not be valid UTF-8. As text every byte that isn't part of a printable character, and
``%`` itself, is percent-encoded, so that the text is printable, unique and reversible.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import typing as t

from .._core.errors import InputError, Refused
from .kernel import mount_points

#: The name of the root that is the node's data directory.
DATA = "data"
#: Where we keep our own trees; never part of a snapshot.
OURS = b".chainops"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_ROOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def encode(name: bytes) -> str:
    """``b"a\\nb%\\xff"`` becomes ``"a%0Ab%25%FF"``."""
    if name.isascii():
        text = name.decode("ascii")
        if text.isprintable() and "%" not in text:
            return text
    parts: list[str] = []
    for char in name.decode("utf-8", "surrogateescape"):
        if char != "%" and char.isprintable():
            parts.append(char)
        else:
            parts.extend(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
    return "".join(parts)


def decode(text: str) -> bytes:
    """The bytes that ``encode`` was given."""
    if "%" not in text:
        return text.encode("utf-8")
    parts = re.split(r"%([0-9A-F]{2})", text)
    return b"".join(bytes([int(part, 16)]) if index % 2 else part.encode("utf-8") for index, part in enumerate(parts))


class Patterns:
    """``fnmatch`` globs relative to a root. A pattern that matches a directory covers everything below it."""

    def __init__(self, patterns: t.Iterable[str]) -> None:
        globs = [pattern.strip("/") for pattern in patterns]
        either = "|".join(fnmatch.translate(glob) for glob in globs if glob)
        self._match = re.compile(either).match if either else None

    def match(self, relative: bytes) -> bool:
        """Is the name covered, by itself or by a directory above it?"""
        if self._match is None:
            return False
        name = os.fsdecode(relative)
        while name:
            if self._match(name):
                return True
            name = name.rpartition("/")[0]
        return False

    def names(self, relative: bytes) -> bool:
        """Is the name covered by itself? Enough for whoever goes down from the top and stops at what is covered."""
        return self._match is not None and self._match(os.fsdecode(relative)) is not None


def check_id(snapshot_id: str) -> str:
    """Raises InputError unless the id is fit to be a directory's name."""
    if not _ID.fullmatch(snapshot_id) or snapshot_id.startswith("hot-"):
        raise InputError(
            f"snapshot id {snapshot_id!r} is not usable: letters, digits and ._+- only, not starting with a dot or 'hot-'",
            snapshot_id=snapshot_id,
        )
    return snapshot_id


def check_root(name: str) -> str:
    """Raises InputError unless the name of a root is fit to be a directory's name."""
    if not _ROOT.fullmatch(name):
        raise InputError(f"root name {name!r} is not usable: letters, digits, _ and - only", root=name)
    return name


def check_instance(instance: str) -> str:
    """Raises InputError unless the instance's name is fit to be a directory's name."""
    if not _ID.fullmatch(instance):
        raise InputError(f"instance name {instance!r} is not usable: letters, digits and ._+- only", instance=instance)
    return instance


def workspace(data_dir: str, instance: str) -> str:
    """Where the trees of an instance live: ``.chainops/<instance>``, on the file system of the data directory.

    That is beside the data directory, or inside it when it is a mount point itself.
    """
    real = os.path.realpath(data_dir)
    base = real if os.fsencode(real) in mount_points() else os.path.dirname(real)
    return os.path.join(base, OURS.decode(), check_instance(instance))


def snapshots_dir(data_dir: str, instance: str) -> str:
    """Where the snapshots of an instance live."""
    return os.path.join(workspace(data_dir, instance), "snapshots")


def make_workspace(path: str, mode: int = 0o711) -> str:
    """Create a directory of ours below ``.chainops``, and refuse one that somebody else made.

    Directories can be passed through (a migration runs as the node's user on a copy in there) but not listed.
    """
    parts: list[str] = []
    while os.path.basename(path):
        parts.append(path)
        if os.path.basename(path) == OURS.decode():
            break
        path = os.path.dirname(path)
    for step in reversed(parts):
        last = step == parts[0]
        try:
            os.mkdir(step, mode if last else 0o711)
        except FileExistsError:
            found = os.lstat(step)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise Refused(
                    f"{step} is not a directory of ours (owner {found.st_uid}); remove it or run as its owner", path=step
                ) from None
        else:
            os.chmod(step, mode if last else 0o711)
    return parts[0]
