# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for an open gate or for a stage: what is enough, what can never come, and what to tell people meanwhile. Pure."""

from __future__ import annotations

import typing as t

from . import binding, model
from .readers import Reading
from .tally import Tally, Verdict

OPEN = "open"
STAGES = (model.PROPOSED, model.VOTED, model.REVIEWED, model.APPROVED, model.EXECUTED)
#: What can be waited for: the gate, or a stage, any later one included.
CHOICES = (OPEN, *STAGES)


def reached(wanted: str, verdict: Verdict) -> bool:
    """Whether it is as wanted. A stage that was passed was reached."""
    if wanted == OPEN:
        return verdict.open
    return verdict.stage in STAGES and STAGES.index(verdict.stage) >= STAGES.index(wanted)


def dead_end(
    wanted: str,
    reading: Reading,
    result: Tally,
    verdict: Verdict,
    payload: t.Any,
    wrong: t.Sequence[str],
    voting_period: int = 0,
) -> list[str]:
    """Why it can't be reached under this id any more; empty while it can.

    ``payload`` is what is about to run, ``wrong`` what is wrong with signatures: blocks don't change, so neither mends itself.
    Nor does a vote that is lost when its ``voting_period`` is over.
    Readers that don't agree, and a proposal that isn't there yet, are no end.
    """
    if reading.problems or result.submission is None:
        return []
    if verdict.stage not in (model.ABSENT, *STAGES):
        return list(result.blocking) or [f"its stage is {verdict.stage}"]
    if wanted != OPEN or verdict.open:
        return []
    found = list(wrong)
    if binding.is_upgrade(result.payload):
        found.extend(f"the approved payload is incomplete: {text}" for text in binding.problems(result.payload))
        found.extend(binding.chain_problems(result.payload, reading.chain_id, reading.genesis_hash))
    if payload is not None:
        differences = binding.differences(result.payload, payload)
        found.extend(f"about to run is not what was approved: {text}" for text in differences)
    checks = () if result.policy is None else result.policy.voting
    end = result.submission.height + voting_period
    if voting_period and reading.height is not None and reading.height >= end:
        lost = [check.text for check in checks if not check.ok]
        found.extend(f"the voting period ended at height {end}: {text}" for text in lost)
    found.extend(check.text for check in checks if check.name == "witnesses" and not check.ok)
    if result.executed is not None and result.policy is not None and not result.policy.ok:
        missing = "; ".join(result.policy.missing())
        found.append(f"nothing counts any more since it was executed at height {result.executed.height}: {missing}")
    return found


def report(
    wanted: str, reading: Reading, result: Tally, verdict: Verdict, *, waited: float, now: str, pending: int = 0
) -> dict[str, t.Any]:
    """What is waited for, for people and for programs: where it stands, what is missing, and what comes by itself and when.

    ``waited`` is in seconds, ``now`` a time stamp, ``pending`` how many transactions about it are in no block yet.
    """
    waits = [dict(wait) for wait in result.as_dict().get("waits") or ()]
    parts = [f"waiting for {wanted} of {result.proposal_id!r}: {_stands(reading, verdict)}"]
    if pending:
        parts.append(f"{pending} more transactions about it are held, but in no block yet")
    parts.extend(verdict.reasons)
    parts.extend(map(_until, waits))
    return {
        "at": now,
        "proposal_id": result.proposal_id,
        "wait_for": wanted,
        "waited": round(waited, 3),
        "height": reading.height,
        "stage": verdict.stage,
        "missing": list(verdict.reasons),
        "waits": waits,
        "pending": pending,
        "text": "; ".join(parts),
    }


def _stands(reading: Reading, verdict: Verdict) -> str:
    return f"{verdict.stage} at height {reading.height}" if reading.height is not None else verdict.stage


def _until(wait: t.Mapping[str, t.Any]) -> str:
    seconds = wait.get("seconds")
    eta = f", about {seconds:.0f} s" if isinstance(seconds, (int, float)) else ""
    return f"{wait.get('what')}: {wait.get('blocks_left')} blocks left, until height {wait.get('until_height')}{eta}"
