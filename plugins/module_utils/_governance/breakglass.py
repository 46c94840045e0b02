# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Break-glass: named people open a gate that the chain leaves closed. Pure.

It stands in for missing votes and for nothing else: not for readers that agree, not for a proposal that was rolled back or is
void, not for a payload that is another one than was signed, incomplete, or another chain's. It has a reason, it ends at a
height, and everything that comes of it says so.
"""

from __future__ import annotations

import typing as t

from . import approval, binding
from . import tally as counting
from .approval import Demand, Glass
from .model import Policy
from .tally import Tally, Verdict

#: People it takes at the least, and blocks that it may last at the most.
MIN_APPROVERS = 2
MAX_BLOCKS = 5000


def demand(asked: Demand, usual: Demand) -> Demand:
    """Who must sign: what was asked for this time, and never less than for an ordinary approval."""
    return asked.joined(usual).joined(Demand(MIN_APPROVERS))


def left(reasons: t.Sequence[str], result: Tally, policy: Policy) -> list[str]:
    """The reasons of a closed gate that no break-glass stands in for."""
    replaced = set(counting.lacking(result, policy))
    return [reason for reason in reasons if reason not in replaced]


def payload_problems(payload: t.Any, result: Tally, chain_id: str | None, genesis_hash: str | None) -> list[str]:
    """What speaks against the payload that people signed: nobody else has looked at it."""
    if not binding.is_upgrade(payload):
        return ["break-glass needs the payload that is about to run, and a whole upgrade payload"]
    found = [f"the payload is incomplete: {text}" for text in binding.problems(payload)]
    found += binding.chain_problems(payload, chain_id, genesis_hash)
    if result.submission is not None:
        found += [f"about to run is not what was approved: {text}" for text in binding.differences(result.payload, payload)]
    return found


def term_problems(glass: Glass, height: int) -> list[str]:
    """Whether it is in force at a height, and not for longer than it may be."""
    blocks = glass.expires_height - height
    if blocks <= 0:
        return [f"the break-glass expired at height {glass.expires_height}; the chain was read at {height}"]
    if blocks > MAX_BLOCKS:
        return [
            f"the break-glass would last {blocks} blocks, at most {MAX_BLOCKS} are allowed: sign one that expires at height "
            f"{height + MAX_BLOCKS} or before"
        ]
    return []


def decide(
    verdict: Verdict,
    result: Tally,
    policy: Policy,
    glass: Glass,
    people: approval.Verdict,
    payload: t.Any,
    *,
    chain_id: str | None,
    genesis_hash: str | None,
    height: int | None,
) -> Verdict:
    """The verdict with a break-glass: an open gate stays as it is, a closed one opens only if votes are all that is missing."""
    if verdict.open:
        return verdict
    if height is None or genesis_hash is None:
        against = ["break-glass does not stand in for readers that agree"]
    else:
        kept = left(verdict.reasons, result, policy)
        against = ["break-glass does not stand in for what is missing besides votes"] if kept else []
        against += [text for text in payload_problems(payload, result, chain_id, genesis_hash) if text not in kept]
        against += term_problems(glass, height)
        against += people.reasons
    if against:
        return Verdict(False, verdict.stage, (*verdict.reasons, *against))
    said = {
        "reason": glass.reason,
        "expires_height": glass.expires_height,
        "approvers": list(people.approvers),
        "instead_of": list(verdict.reasons),
    }
    return Verdict(True, verdict.stage, (), said)
