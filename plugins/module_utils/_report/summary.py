# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout's summary for a terminal: plain text, at most 100 columns."""

from __future__ import annotations

import typing as t

from . import collect, invariants

_MARKS = {invariants.HELD: "held", invariants.BROKEN: "BROKEN", invariants.NOT_OBSERVED: "not observed"}
_COLOURS = {"good": "\033[32m", "bad": "\033[31m", "warn": "\033[33m"}
WIDTH = 100


def table(header: t.Sequence[str], rows: t.Sequence[t.Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be; numbers to the right."""
    every = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    right = [all(row[i][:1].isdigit() or row[i] in ("–", "") for row in rows) for i in range(len(header))]
    lines = []
    for row in every:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right)]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "  ".join("─" * w for w in widths), *lines[1:]]


def summary(rollout: t.Mapping[str, t.Any], *, colour: bool = False) -> str:
    """The whole summary, read from the collected evidence alone. ``colour``: with terminal colours."""
    full = collect.complete(rollout)
    judged = invariants.judge(full)
    words, grade = collect.outcome(full, judged)
    release = full.get("release") or {}
    lines = [
        f"{_paint(words.upper(), grade, colour)}  release {release.get('id', '?')}, proposal {full.get('proposal_id') or '?'}, "
        f"rollout {full.get('id') or '?'}",
        "",
    ]
    rows = []
    for row in collect.host_rows(full):
        rows.append(
            [
                row["name"] + (" (canary)" if row["canary"] else ""),
                row["before"],
                row["after"],
                row["outcome"],
                collect.span(row["drain"]),
                collect.span(row["stop_window"]) + (f" ({row['predicted']})" if row["predicted"] else ""),
                collect.span(row["freeze"]),
                "–" if row["missed"] is None else str(row["missed"]),
            ]
        )
    if rows:
        lines += table(["host", "before", "after", "outcome", "drain", "stop window", "freeze", "missed blocks"], rows)
        lines += [""]
        lines += [f"{row['name']}: {row['reason']}"[:WIDTH] for row in collect.host_rows(full) if row["reason"]]
    for tile in collect.headline(full, judged)[2:4]:
        lines.append(f"{tile['label']}: {tile['value']} {tile['note']}".rstrip())
    manifests = [h.get("manifest") or {} for h in invariants.touched(full)]
    seen = [m.get("valid") for m in manifests]
    told = "not observed" if not seen or None in seen else "verified" if all(seen) else "DOES NOT VERIFY"
    lines += [f"manifest: {told}", ""]
    for one in judged:
        mark = _paint(_MARKS[one.status].ljust(12), {"held": "good", "broken": "bad"}.get(one.status, "warn"), colour)
        lines.append(f"{one.id:>3}  {mark}  {one.evidence}"[: WIDTH + (len(mark) - 12)])
    return "\n".join(lines).rstrip() + "\n"


def _paint(text: str, grade: str, colour: bool) -> str:
    return f"{_COLOURS[grade]}{text}\033[0m" if colour else text
