# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much voting power may be away. Pure.

A network of validators stops when a third of its power is away (more than two thirds must sign), so that is the hard limit;
an operator may set a tighter budget. Who isn't known to be there counts as away.
"""

from __future__ import annotations

import dataclasses
import fractions
import typing as t

from .._core.errors import InputError

#: Away power must stay below this share of all power, whatever the budget.
HARD_LIMIT = fractions.Fraction(1, 3)


@dataclasses.dataclass(frozen=True)
class Member:
    """A validator of the network. ``online`` None means that nobody knows."""

    name: str
    power: float
    online: bool | None


@dataclasses.dataclass(frozen=True)
class PowerVerdict:
    """``after`` is the share of all power that would be away, ``limit`` the share it must stay below; shares from 0 to 1."""

    allowed: bool
    total: float
    offline: float
    after: float
    limit: float
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self) | {"reasons": list(self.reasons)}


def decide(members: t.Sequence[Member], leaving: t.Collection[str], budget: float | None = None) -> PowerVerdict:
    """May those named ``leaving`` go away now, besides everybody who already is?

    A name that is no member has no power (an observer). With no members at all nothing is known, and the answer is no.
    ``budget`` is a share from 0 to 1; anything above a third is a third. Raises InputError for a budget that is no share, a
    power that isn't one, and members listed twice.
    """
    limit = _limit(budget)
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        raise InputError(f"validators listed twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    powers = {member.name: _power(member) for member in members}
    total = sum(powers.values(), fractions.Fraction(0))
    away = {member.name for member in members if member.online is not True}
    offline = sum((powers[name] for name in away), fractions.Fraction(0))
    after = sum((powers[name] for name in away | (set(leaving) & set(powers))), fractions.Fraction(0))
    reasons: list[str] = []
    if total == 0:
        reasons.append("no validator with any power is known, so nobody can be spared")
    elif after >= limit * total:
        already = f"; already away: {', '.join(sorted(away))}" if away else ""
        reasons.append(
            f"{_percent(after / total)} of the voting power would be away, and it must stay below {_percent(limit)}{already}"
        )
    share = after / total if total else fractions.Fraction(1)
    return PowerVerdict(not reasons, float(total), float(offline), float(share), float(limit), tuple(reasons))


def _limit(budget: float | None) -> fractions.Fraction:
    if budget is None:
        return HARD_LIMIT
    try:
        share = fractions.Fraction(str(budget))
    except (ValueError, ZeroDivisionError):
        share = fractions.Fraction(0)
    if isinstance(budget, bool) or not 0 < share <= 1:
        raise InputError(
            f"power budget {budget!r:.40} is not a share above 0 and at most 1 (a third is the most that is ever used)"
        )
    return min(share, HARD_LIMIT)


def _power(member: Member) -> fractions.Fraction:
    try:
        power = fractions.Fraction(member.power)
    except (ValueError, OverflowError, TypeError) as exc:
        raise InputError(f"voting power of {member.name} is not a number: {member.power!r:.40}") from exc
    if power < 0:
        raise InputError(f"voting power of {member.name} is negative: {member.power!r:.40}")
    return power


def _percent(share: fractions.Fraction) -> str:
    return f"{float(share) * 100:.1f} %"
