# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier turns of an instance left: what they came to, and the trees that they put aside.

Such a tree is kept until the rollout that it belongs to is finished, which the manifest says. A rollout that nobody finished
is superseded when a turn of another one begins: only one at a time holds a host.
"""

from __future__ import annotations

import os
import typing as t

from .._core import canonical, files, journal
from .._core.errors import ChainopsError
from .._manifest import manifest
from . import turn
from .paths import Home


def results(home: Home, limit: int, *, without: str = "") -> list[dict[str, t.Any]]:
    """Results of turns, the latest first, apart from the turn ``without``. One that can't be read is left out."""
    found: list[dict[str, t.Any]] = []
    for name in home.turns():
        if len(found) >= limit:
            break
        if name == without:
            continue
        try:
            paths = home.turn(name)
            raw = files.read_or_none(paths.plan)
            if raw is not None:
                found.append(turn.result(turn.load(canonical.loads(raw, paths.plan)), journal.read(paths.journal)))
        except (ChainopsError, OSError, LookupError, TypeError, ValueError, StopIteration):
            # Whatever is wrong with it, what it put aside is then nobody's to delete, and this turn can do without.
            continue
    return found


def put_aside(home: Home) -> dict[str, str]:
    """Trees that turns put aside and that are still there, with the rollout that each belongs to."""
    found: dict[str, str] = {}
    for result in results(home, limit=10**6):
        for path in result["old_trees"]:
            if os.path.lexists(path):
                found[path] = str(result["rollout_id"])
    return found


def finished(home: Home) -> set[str]:
    """Rollouts that ended on this host, and of which nothing was recorded since. Raises IntegrityError."""
    done: set[str] = set()
    for entry in manifest.read(home.manifest):
        rollout = str(entry.fields.get("rollout_id") or "")
        if entry.kind == "finish":
            done.add(rollout)
        elif entry.kind != "lock_broken":
            done.discard(rollout)
    return done


def due(home: Home, current: str | None = None) -> list[str]:
    """Trees that nobody needs any more. ``current``: the rollout that is under way, which supersedes all others."""
    there = put_aside(home)
    if not there:
        return []
    over = finished(home)
    return sorted(path for path, rollout in there.items() if rollout in over or current not in (None, rollout))
