# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a tree that was built beside the live one in its place, so that a crash leaves the old one or the new one.

Before the first rename a marker, ``swap.json`` in the workspace, says what is to be exchanged with what, and how each side is
known again (device-independent: by inode). Whoever comes next finishes what the marker says: what has been exchanged is seen
by its inode. Where the kernel can't exchange two names, the old tree is renamed away and the new one renamed in; a crash
between the two leaves no live tree until the swap is finished, which is why the turn does that before anything else.
Where the live directory is a mount point it can't be renamed: its children are exchanged, one by one, under the same marker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import time
import typing as t

from .._core import canonical, files
from .._core.errors import IntegrityError, Refused
from .fault import is_there, storage
from .kernel import exchange, idle_io, mount_points, rename_new
from .names import OURS, decode, encode, make_workspace, workspace

MARKER = "swap.json"
FORMAT = "chainops.swap/1"
BUILDING, OLD, GOING = "new-", "old-", "going-"
TREES = "trees"
_FILE = ".chainops-"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the new tree of one root is built (``staged``) and where it belongs (``live``, links resolved)."""

    root: str
    live: str
    staged: str
    kind: str


class Swapped(t.NamedTuple):
    """``old``: what was live before, by root. ``method``: ``exchange``, ``rename``, ``children`` or ``none``."""

    old: tuple[str, ...]
    method: str
    seconds: float
    note: dict[str, t.Any]


def place(root: str, live: str, kind: str, instance: str, label: str) -> Place:
    """Where to build the new tree of a root, on the live one's file system: in the workspace, or for a file beside it."""
    real = os.path.realpath(live)
    if kind == "file":
        folder, name = os.path.split(real)
        return Place(root, real, os.path.join(folder, f".{name}{_FILE}{BUILDING}{label}"), kind)
    return Place(root, real, os.path.join(workspace(real, instance), TREES, BUILDING + label, root), kind)


def prepare(places: t.Sequence[Place]) -> None:
    """Make room for building, and remove what interrupted builds left. Only without a marker: then nothing of it is live."""
    for item in places:
        if item.kind == "file":
            folder, name = os.path.split(item.live)
            left = [os.path.join(folder, other) for other in os.listdir(folder) if other.startswith(f".{name}{_FILE}{BUILDING}")]
        else:
            trees = make_workspace(os.path.dirname(os.path.dirname(item.staged)))
            left = [os.path.join(trees, other) for other in os.listdir(trees) if other.startswith(BUILDING)]
        for path in left:
            delete_tree(path)
    for item in places:
        if item.kind != "file":
            make_workspace(os.path.dirname(item.staged))


def discard(places: t.Sequence[Place]) -> None:
    """Remove what was built and will not be used."""
    for item in places:
        with contextlib.suppress(OSError):
            if item.kind == "file":
                os.unlink(item.staged)
            else:
                delete_tree(item.staged)
                os.rmdir(os.path.dirname(item.staged))


@contextlib.contextmanager
def exclusive(data_dir: str, instance: str) -> t.Iterator[None]:
    """Nobody else exchanges trees of this instance meanwhile. Raises Busy."""
    with storage("lock the workspace"):
        folder = make_workspace(workspace(data_dir, instance))
    with files.locked(os.path.join(folder, ".lock"), what=f"trees of {instance}"):
        yield


def marker_path(data_dir: str, instance: str) -> str:
    return os.path.join(workspace(data_dir, instance), MARKER)


def pending(data_dir: str, instance: str) -> dict[str, t.Any] | None:
    """The marker of a swap that was begun and not finished, or None. Raises IntegrityError when it can't be read."""
    path = marker_path(data_dir, instance)
    data = files.read_or_none(path)
    if data is None:
        return None
    value = canonical.loads(data, path)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise IntegrityError(f"{path} is not in the format {FORMAT}; finish the swap by hand, then remove it", path=path)
    return value


def swap(data_dir: str, instance: str, places: t.Sequence[Place], note: dict[str, t.Any]) -> Swapped:
    """Exchange every place; all of them, or after a crash all of them once ``finish`` is called. ``note`` is kept in the marker.

    The new trees must be durable already.
    """
    pairs = [pair for item in places for pair in _pairs(item)]
    value = {
        "format": FORMAT,
        "note": note,
        "places": [
            {"root": p.root, "live": encode(os.fsencode(p.live)), "staged": encode(os.fsencode(p.staged)), "kind": p.kind}
            for p in places
        ],
        "pairs": pairs,
    }
    with storage("prepare the swap"):
        make_workspace(workspace(data_dir, instance), 0o711)
        files.write_atomic(marker_path(data_dir, instance), canonical.dumps(value), 0o600)
    done = finish(data_dir, instance)
    if done is None:
        raise IntegrityError(f"the marker {marker_path(data_dir, instance)} vanished while the swap was under way")
    return done


def finish(data_dir: str, instance: str) -> Swapped | None:
    """Carry out, or go on with, what the marker says. None when there is no marker."""
    value = pending(data_dir, instance)
    if value is None:
        return None
    began = time.monotonic()
    methods: set[str] = set()
    with storage("swap in the new tree"):
        for pair in value["pairs"]:
            methods.add(_do(decode(pair["live"]), decode(pair["staged"]), pair["old"], pair["new"]))
        seconds = time.monotonic() - began
        touched = {os.path.dirname(decode(pair[side])) for pair in value["pairs"] for side in ("live", "staged")}
        for folder in sorted(touched):
            # An earlier try may have got as far as giving the old tree its lasting name.
            with contextlib.suppress(FileNotFoundError):
                files.fsync_dir(os.fsdecode(folder))
        places = [
            Place(p["root"], os.fsdecode(decode(p["live"])), os.fsdecode(decode(p["staged"])), p["kind"]) for p in value["places"]
        ]
        old = tuple(path for path in map(_retire, places) if path)
        os.unlink(marker_path(data_dir, instance))
        files.fsync_dir(workspace(data_dir, instance))
    if any(p.kind != "file" and os.fsencode(p.live) in mount_points() for p in places):
        methods.add("children")
    method = next((name for name in ("children", "rename", "exchange") if name in methods), "none")
    return Swapped(old, method, round(seconds, 4), dict(value["note"]))


def _pairs(item: Place) -> list[dict[str, t.Any]]:
    live, staged = os.fsencode(item.live), os.fsencode(item.staged)
    if item.kind == "file" or live not in mount_points():
        return [_pair(live, staged)]
    names = (set(os.listdir(live)) | set(os.listdir(staged))) - {OURS, b"lost+found"}
    return [_pair(os.path.join(live, name), os.path.join(staged, name)) for name in sorted(names)]


def _pair(live: bytes, staged: bytes) -> dict[str, t.Any]:
    return {"live": encode(live), "staged": encode(staged), "old": _inode(live), "new": _inode(staged)}


def _inode(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def _do(live: bytes, staged: bytes, old: int | None, new: int | None) -> str:
    """Make the thing known as ``new`` live, wherever an earlier try stopped. Returns the method, or ``done``."""
    aside = staged + b".aside"
    at, beside, away = _inode(live), _inode(staged), _inode(aside)
    if at == new:
        if away is not None and away == old:
            rename_new(aside, staged)
            return "rename"
        return "done"
    if at is None and away is not None and (away, beside) == (old, new):
        rename_new(staged, live)
        rename_new(aside, staged)
        return "rename"
    if (at, beside) != (old, new):
        raise IntegrityError(
            f"{encode(live)} is neither what was there before the swap nor what was to come; the new one is {encode(staged)}: "
            "put the right one in place by hand, then remove the marker",
            path=encode(live),
            staged=encode(staged),
        )
    if old is None:
        rename_new(staged, live)
    elif new is None:
        rename_new(live, staged)
    elif not exchange(live, staged):
        rename_new(live, aside)
        rename_new(staged, live)
        rename_new(aside, staged)
        return "rename"
    return "exchange"


def _retire(item: Place) -> str:
    """Give what was live before its lasting name. Returns that, or empty when nothing was live before."""
    old = _old_name(item.staged, item.kind)
    before = item.staged if item.kind == "file" else os.path.dirname(item.staged)
    after = old if item.kind == "file" else os.path.dirname(old)
    if is_there(before):
        os.rename(before, after)
        files.fsync_dir(os.path.dirname(after))
    return old if is_there(old) else ""


def _old_name(staged: str, kind: str) -> str:
    folder, name = os.path.split(staged)
    if kind == "file":
        return os.path.join(folder, name.replace(_FILE + BUILDING, _FILE + OLD))
    trees, label = os.path.split(folder)
    return os.path.join(trees, OLD + label[len(BUILDING) :], name)


def reap(old_trees: t.Iterable[str]) -> int:
    """Delete, at low priority, what a swap put aside. Returns how many there were.

    Raises Refused for a path that is not such a tree, before anything is deleted. Trees that are gone already don't count.
    """
    paths = [os.path.abspath(path) for path in old_trees]
    for path in paths:
        if not is_old(path):
            raise Refused(f"{path} is not an old tree that a swap put aside; it was left alone", path=path)
    count = 0
    with storage("delete an old tree"), idle_io():
        for path in paths:
            if not is_there(path):
                continue
            delete_tree(path)
            count += 1
            if _FILE not in os.path.basename(path):
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(path))
    return count


def set_going(old_trees: t.Iterable[str]) -> tuple[list[str], list[str]]:
    """Take old trees out of the way by renaming, which is quick. Returns which were there, and where the deleting has to be done.

    Raises Refused as ``reap`` does. What an earlier deleting left half done lies in the same places.
    """
    paths = [os.path.abspath(path) for path in old_trees]
    for path in paths:
        if not is_old(path):
            raise Refused(f"{path} is not an old tree that a swap put aside; it was left alone", path=path)
    there = [path for path in paths if os.path.lexists(path)]
    with storage("take an old tree out of the way"):
        for path in there:
            folder, name = os.path.split(path)
            if _FILE in name:
                os.unlink(path)
            elif os.path.lexists(path):
                # Trees of several roots may lie in one directory: they were put aside together.
                trees, label = os.path.split(folder)
                os.rename(folder, os.path.join(trees, GOING + label[len(OLD) :]))
    folders = sorted({os.path.dirname(os.path.dirname(path)) for path in paths if _FILE not in os.path.basename(path)})
    return there, folders


def going(folders: t.Iterable[str]) -> list[str]:
    """What lies in these places and is to be deleted."""
    found: list[str] = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            found += [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.startswith(GOING)]
    return found


def delete_in_background(paths: t.Sequence[str]) -> None:
    """Delete trees in a process of its own, at the lowest priority; nobody waits for it. Twice at a time does no harm."""
    if not paths:
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    # From here on nothing may return to the caller's code, whatever happens.
    try:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for handle in range(3):
                os.dup2(nothing, handle)
            os.closerange(3, 65536)
            os.chdir("/")
            os.nice(19)
            with idle_io():
                for path in paths:
                    with contextlib.suppress(OSError):
                        delete_tree(path)
    finally:
        os._exit(0)


def is_old(path: str) -> bool:
    """Does the path have the form of a tree, or a file, that was put aside?"""
    parts = path.split("/")
    if re.fullmatch(r"\..+\.chainops-old-[^/]+", parts[-1]):
        return True
    return len(parts) > 5 and parts[-5] == OURS.decode() and parts[-3] == TREES and parts[-2].startswith(OLD)


def delete_tree(path: str) -> None:
    """Remove a tree of ours, also where directories in it can't be written to. Links in it are not followed."""
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    if os.geteuid() != 0:
        os.chmod(path, 0o700)
        for folder, names, dummy in os.walk(path):
            for name in names:
                where = os.path.join(folder, name)
                if not os.path.islink(where):
                    os.chmod(where, 0o700)
    shutil.rmtree(path)
