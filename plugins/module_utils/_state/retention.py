# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshots there are, and which of them may go.

A rollback point is held by name: files in ``holds/`` inside the snapshot. A snapshot that is held, that the caller says is
needed (the manifest of an unfinished rollout names it), that somebody works with right now, or that is the last good one,
is never removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import typing as t

from .._core import canonical, files
from .._core.clock import CLOCK
from .._core.errors import Busy, ChainopsError, InputError, IntegrityError, Refused
from . import sealed
from .fault import storage
from .kernel import idle_io
from .names import check_id
from .snapshot import clear_still
from .swap import delete_tree
from .verify import verify

HOLDS = "holds"
LOCK = "lock"
_HOT, _GONE = "hot-", ".gone-"


class Pruned(t.NamedTuple):
    """``kept``: why a snapshot that was over the number could not go, by id."""

    removed: tuple[str, ...]
    kept: dict[str, str]


def hold(snapshot_path: str, name: str, why: str) -> None:
    """Keep a snapshot from being removed until ``unhold`` with the same name. Doing it again changes nothing."""
    path = _hold_path(snapshot_path, name)
    with storage("hold a snapshot"), in_use(snapshot_path):
        if not os.path.exists(path):
            files.make_dir(os.path.dirname(path), 0o700)
            files.write_atomic(path, canonical.pretty({"why": why, "since": CLOCK.stamp()}), 0o600)


def unhold(snapshot_path: str, name: str) -> bool:
    """Let go of a snapshot. False when it wasn't held under that name."""
    path = _hold_path(snapshot_path, name)
    with storage("let go of a snapshot"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        files.fsync_dir(os.path.dirname(path))
    return True


def holds(snapshot_path: str) -> dict[str, str]:
    """Why a snapshot is held, by name of the hold. An unreadable hold holds all the same."""
    folder = os.path.join(snapshot_path, HOLDS)
    result: dict[str, str] = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.startswith("."):
            continue
        try:
            result[name] = str(canonical.loads(files.read_or_none(os.path.join(folder, name)) or b"", name)["why"])
        except (ChainopsError, KeyError, TypeError):
            result[name] = "unknown: the hold can't be read"
    return result


def _hold_path(snapshot_path: str, name: str) -> str:
    check_id(name)
    if not os.path.exists(os.path.join(snapshot_path, sealed.NAME)):
        raise InputError(f"{snapshot_path} is not a sealed snapshot", path=snapshot_path)
    return os.path.join(snapshot_path, HOLDS, name)


@contextlib.contextmanager
def in_use(snapshot_path: str, *, alone: bool = False) -> t.Iterator[None]:
    """Keep a snapshot from being removed while it is worked with (shared), or be the only one (``alone``). Raises Busy."""
    path = os.path.join(snapshot_path, LOCK)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as exc:
        raise InputError(f"there is no snapshot at {snapshot_path}", path=snapshot_path) from exc
    except OSError as exc:
        if exc.errno in (errno.EROFS, errno.EACCES) and not alone:
            # Where we can't write, we can't remove either.
            yield
            return
        raise
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Busy(f"snapshot {snapshot_path} is in use by another process", path=snapshot_path) from exc
        yield
    finally:
        os.close(handle)


def inventory(snapshots: str) -> list[dict[str, t.Any]]:
    """Every snapshot, the oldest first: id, path, sealed, root_sha256, files, bytes, facts, created, holds, problem.

    A snapshot whose manifest can't be read is listed, with ``problem``.
    """
    result: list[dict[str, t.Any]] = []
    for name in sorted(os.listdir(snapshots)) if os.path.isdir(snapshots) else []:
        path = os.path.join(snapshots, name)
        if name.startswith(".") or not os.path.isdir(path):
            continue
        item: dict[str, t.Any] = {
            "id": name[len(_HOT) :] if name.startswith(_HOT) else name,
            "path": path,
            "sealed": not name.startswith(_HOT),
            "root_sha256": "",
            "files": 0,
            "bytes": 0,
            "facts": {},
            "created": "",
            "holds": {} if name.startswith(_HOT) else holds(path),
            "problem": "",
        }
        if item["sealed"]:
            try:
                header, root_sha256 = sealed.read_header(os.path.join(path, sealed.NAME))
                known = {key: header[key] for key in ("files", "bytes", "facts", "created")}
                item.update(known, root_sha256=root_sha256)
            except (IntegrityError, KeyError) as exc:
                item["problem"] = str(exc)
        result.append(item)
    return sorted(result, key=lambda item: (item["created"] or "~", item["id"]))


def remove(snapshots: str, snapshot_id: str, protected: t.Mapping[str, str] | None = None) -> bool:
    """Remove one snapshot, sealed or hot. False when there is none of that id.

    ``protected``: ids that must stay, with the reason. Raises Refused with the reason, or Busy.
    """
    check_id(snapshot_id)
    with storage(f"remove snapshot {snapshot_id}"):
        _sweep(snapshots)
        done = False
        path = os.path.join(snapshots, snapshot_id)
        if os.path.isdir(path):
            check_removable(snapshots, snapshot_id, protected)
            with in_use(path, alone=True):
                os.rename(path, os.path.join(snapshots, f"{_GONE}{snapshot_id}-{secrets.token_hex(4)}"))
            done = True
        hot = os.path.join(snapshots, _HOT + snapshot_id)
        if os.path.isdir(hot):
            with files.locked(os.path.join(snapshots, f".{snapshot_id}.lock"), what=f"snapshot {snapshot_id}"):
                os.rename(hot, os.path.join(snapshots, f"{_GONE}{snapshot_id}-{secrets.token_hex(4)}"))
            done = True
        _sweep(snapshots)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(snapshots, f".{snapshot_id}.lock"))
    return done


def check_removable(snapshots: str, snapshot_id: str, protected: t.Mapping[str, str] | None = None) -> None:
    """Raises Refused with the reason when a sealed snapshot must stay."""
    if os.path.isdir(os.path.join(snapshots, check_id(snapshot_id))):
        reason = _needed(snapshots, snapshot_id, protected or {})
        if reason:
            raise Refused(f"snapshot {snapshot_id} was not removed: {reason}", snapshot_id=snapshot_id, reason=reason)


def prunable(snapshots: str, keep: int, protected: t.Mapping[str, str] | None = None) -> Pruned:
    """What ``prune`` would do."""
    if keep < 1:
        raise InputError(f"keep must be at least 1, not {keep}")
    whole = [item for item in inventory(snapshots) if item["sealed"]]
    removed: list[str] = []
    kept: dict[str, str] = {}
    for item in whole[: max(0, len(whole) - keep)]:
        reason = _needed(snapshots, item["id"], protected or {}, frozenset(removed))
        if reason:
            kept[item["id"]] = reason
        else:
            removed.append(item["id"])
    return Pruned(tuple(removed), kept)


def prune(snapshots: str, keep: int, protected: t.Mapping[str, str] | None = None) -> Pruned:
    """Remove the oldest sealed snapshots beyond ``keep``, apart from those that are needed."""
    plan = prunable(snapshots, keep, protected)
    removed: list[str] = []
    kept = dict(plan.kept)
    for snapshot_id in plan.removed:
        try:
            remove(snapshots, snapshot_id, protected)
            removed.append(snapshot_id)
        except (Busy, Refused) as exc:
            kept[snapshot_id] = exc.message
    return Pruned(tuple(removed), kept)


def _needed(snapshots: str, snapshot_id: str, protected: t.Mapping[str, str], going: frozenset[str] = frozenset()) -> str:
    """Why a sealed snapshot must stay; empty when it may go."""
    if snapshot_id in protected:
        return protected[snapshot_id]
    path = os.path.join(snapshots, snapshot_id)
    held = holds(path)
    if held:
        name, why = next(iter(held.items()))
        return f"held by {name}: {why}"
    if not _good(path):
        return ""
    others = [item for item in inventory(snapshots) if item["sealed"] and item["id"] != snapshot_id and item["id"] not in going]
    if not any(_good(item["path"]) for item in reversed(others)):
        return "it is the last good one"
    return ""


def _good(path: str) -> bool:
    return verify(path, deep=False).ok


def _sweep(snapshots: str) -> None:
    """Delete what was taken out of the way, now or by a removal that was interrupted."""
    with idle_io():
        for name in os.listdir(snapshots) if os.path.isdir(snapshots) else []:
            if name.startswith(_GONE):
                clear_still(os.path.join(snapshots, name))
                delete_tree(os.path.join(snapshots, name))
