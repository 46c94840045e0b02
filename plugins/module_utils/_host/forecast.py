# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a node will be down, told before it is stopped.

The window is stop, freeze, migrate (or restore) and start. How long sealing takes follows from the hot copy; the rest is what
earlier turns of this host took, the longest of the last few. What nobody has measured is unknown, and is said to be: a
prediction with unknown parts is what the window takes at least.
"""

from __future__ import annotations

import typing as t

from . import turn

#: How many earlier turns count.
TURNS = 5
STOP, FREEZE, MIGRATE, START = PARTS = ("stop", "freeze", "migrate", "start")

Result = t.Mapping[str, t.Any]


def predict(
    earlier: t.Sequence[Result],
    *,
    freeze: float | None = None,
    direction: str = "forward",
    migrations: t.Sequence[str] = (),
    budget: float = 0.0,
) -> dict[str, t.Any]:
    """``{"seconds", "parts", "unknown", "turns", "budget"}``; ``seconds`` is the sum of the known parts, None when none is known.

    ``earlier``: results of this host's turns, the latest first. ``freeze``: what the hot copy predicts; without it, what earlier
    turns took. ``migrations``: ids of the steps to be taken. ``budget``: 0 for none.
    """
    wanted = list(migrations)
    measured = [parts(result, direction, wanted) for result in earlier]
    found: dict[str, float | None] = {}
    for name in PARTS:
        known = [one[name] for one in measured if one.get(name) is not None][:TURNS]
        found[name] = max(known, default=None)
    if freeze is not None:
        found[FREEZE] = round(freeze, 3)
    if direction == "forward" and not wanted:
        found[MIGRATE] = 0.0
    told = [value for value in found.values() if value]
    return {
        "seconds": round(sum(told), 3) if told else None,
        "parts": found,
        "unknown": [name for name in PARTS if found[name] is None],
        "turns": min(TURNS, sum(1 for one in measured if one)),
        "budget": budget,
    }


def parts(result: Result, direction: str, migrations: t.Sequence[str]) -> dict[str, float]:
    """What a turn says of each part, in seconds. A turn that was put back shows how long stop and freeze take, no more."""
    rows = {
        row["name"]: row for row in result.get("steps") or () if row.get("way") == turn.FORWARD and row.get("state") == "done"
    }
    found: dict[str, float] = {}
    if STOP in rows and rows[STOP].get("seconds") is not None:
        found[STOP] = float(rows[STOP]["seconds"])
    if FREEZE in rows and result.get("freeze_seconds") is not None:
        found[FREEZE] = float(result["freeze_seconds"])
    row = rows.get("migrate") or rows.get("restore") or {}
    changed = float(row.get("seconds") or 0.0)
    if row and (direction == "back" if row["name"] == "restore" else direction == "forward" and _ids(row) == list(migrations)):
        found[MIGRATE] = changed
    window = result.get("stop_window_seconds")
    if result.get("outcome") == turn.COMMITTED and window is not None and {STOP, FREEZE} <= found.keys():
        # What is left of the window: mending, and the way to the first block of the release that was started.
        found[START] = round(max(0.0, float(window) - found[STOP] - found[FREEZE] - changed), 3)
    return found


def _ids(row: t.Mapping[str, t.Any]) -> list[str]:
    return [str(step["id"]) for step in (row.get("facts") or {}).get("steps") or () if not step.get("skipped")]


def over(prediction: t.Mapping[str, t.Any]) -> str:
    """Why the node must not be stopped, with the numbers; empty when the prediction keeps to its budget, or there is none."""
    budget, seconds = float(prediction["budget"] or 0.0), prediction["seconds"]
    if budget <= 0 or seconds is None or seconds <= budget:
        return ""
    return f"the node would be down for {words(prediction)}, and {budget:g} s are allowed (stop_window_budget)"


def words(prediction: t.Mapping[str, t.Any]) -> str:
    """``at least 3.4 s (stop 1.2, freeze 0.4, start 1.8; migrate unknown)``."""
    if prediction["seconds"] is None:
        return "a time that nobody has measured on this host yet"
    known = ", ".join(f"{name} {value:g}" for name, value in prediction["parts"].items() if value)
    unknown = f"; {', '.join(prediction['unknown'])} unknown" if prediction["unknown"] else ""
    return f"{'at least ' if unknown else ''}{prediction['seconds']:g} s ({known}{unknown})"
