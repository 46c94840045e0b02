# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller still owes a host after a turn: to write it down. A host knows that by itself, whoever asks.

A controller may die between the end of a turn and the manifest's entry. The entry is then made from the turn's own plan and
result, so that the next controller need not know what the one before it knew.
"""

from __future__ import annotations

import typing as t

from .._core import canonical
from .._core.errors import IntegrityError
from .._manifest import manifest
from . import control, engine_main, turn
from .paths import Home

Fields = t.Mapping[str, t.Any]


def entry(plan: Fields, result: Fields) -> dict[str, t.Any] | None:
    """Pure. The manifest's entry that a turn is due; None while it isn't over, and for one that touched nothing.

    ``plan``: the turn's plan document; ``result``: what ``turn.result`` makes of its journal.
    """
    # Past its commit a turn has brought the host to the new release, also when that doesn't run any more: back is by this entry.
    if result["outcome"] == turn.COMMITTED or (result["outcome"] == turn.FAILED and result["commit"]):
        kind = "upgrade" if result["direction"] == "forward" else "rollback"
    elif result["outcome"] in (turn.PUT_BACK, turn.FAILED) and result["touched"] and result["ended"] is not None:
        kind = "put_back"
    else:
        return None
    new, snapshot, proof = result["new"], result["snapshot"], plan.get("proof") or {}
    glass = proof.get("break_glass") or {}
    return {
        "kind": kind,
        "rollout_id": result["rollout_id"],
        "turn_id": result["id"],
        "proposal_id": proof.get("proposal_id") or "",
        "release": {"id": new.get("id"), "sha256": new.get("sha256")},
        "previous": dict(result["old"]),
        "snapshot_id": snapshot.get("id") or "",
        "snapshot_sha256": snapshot.get("sha256") or "",
        "migrations": [str(item.get("id")) for item in plan.get("migrations") or ()],
        "break_glass": {name: glass.get(name) for name in ("reason", "expires_height")} if glass else {},
        "outcome": result["outcome"],
        "proof_sha256": (canonical.digest(dict(proof)) if proof else plan.get("proof_sha256")) or "",
    }


def recorded(entries: t.Iterable[manifest.Entry], turn_id: str) -> bool:
    """Pure. Whether a turn is written down, whatever as."""
    return any(item.fields.get("turn_id") == turn_id for item in entries)


def unrecorded(home: Home) -> dict[str, t.Any] | None:
    """The entry that the last turn of a host is due and doesn't have; None when nothing is due.

    Raises IntegrityError for a manifest or a plan that isn't what it should be.
    """
    opened = engine_main.open_turn(home)
    last = next((name for name in home.turns() if name != opened), None)
    if last is None:
        return None
    result = control.outcome(home, last)
    if result is None:
        raise IntegrityError(f"the journal of turn {last} is gone", turn_id=last)
    due = entry(engine_main.load(home, last).body, result)
    return None if due is None or recorded(manifest.read(home.manifest), last) else due
