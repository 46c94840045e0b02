# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a run may take the rollout's lock, and whether it has it. Pure, from what every host of the instance says.

A holder is dead when its lease has expired on a majority of the hosts and no engine works anywhere; or when its process is gone
from the very machine that asks. It is never dead by age alone.
"""

from __future__ import annotations

import typing as t

Facts = t.Mapping[str, t.Any]


def majority(count: int) -> int:
    """How many of ``count`` hosts more than half are."""
    return count // 2 + 1


def decide(looks: t.Mapping[str, Facts | None], holder: Facts, rollout_id: str, break_token: int = 0) -> dict[str, t.Any]:
    """What to ask every host for, or why not to ask at all.

    ``looks``: what ``rollout_lock`` said of each host of the fleet without changing it (``before``, ``working``, ``fence``), None
    where it couldn't be asked. ``holder``: ``words``, ``run``, and of ``gone`` the runs whose processes are known to be gone.

    Returns ``{"ask": bool, "token": int, "over": [tokens], "reasons": [...], "notes": [...]}``.
    """
    known = {name: look for name, look in looks.items() if look is not None and "fence" in look}
    reasons = []
    if len(known) < majority(len(looks)):
        reasons.append(f"only {len(known)} of {len(looks)} hosts could be asked, and it takes {majority(len(looks))}")
    working = sorted(f"{name} (turn {look['working']})" for name, look in known.items() if look["working"])
    own, others = _holders(known, str(holder["run"]), rollout_id)
    over, notes = [], []
    for token, lease in sorted(others.items()):
        live = sum(1 for look in known.values() if look["before"].get("token") == token and not look["before"].get("expired"))
        # Hosts that couldn't be asked may hold a lease that runs on.
        expired = len(known) - live >= majority(len(looks))
        gone = lease.get("run") in holder.get("gone", ())
        if token == break_token:
            notes.append(f"BROKEN: {words(lease)}")
        elif working and (expired or gone):
            reasons.append(f"{words(lease)}; its lease is over, but an engine still works on {', '.join(working)}: wait for it")
        elif expired or gone:
            over += [token] if gone else []
            notes.append(
                f"taken over, {'its process is gone' if gone else 'its lease has expired on a majority'}: {words(lease)}"
            )
        else:
            reasons.append(
                f"{words(lease)}; its lease runs on. If that run is gone for good, say so with rollout_break_token={token}"
            )
    if break_token and break_token not in others:
        reasons.append(f"nobody holds the fleet under token {break_token}, so there is nothing to break")
    highest = max([0, *(int(look["fence"]) for look in known.values()), *own, *others])
    token = highest if own and max(own) == highest else highest + 1
    return {"ask": not reasons, "token": token, "over": over, "reasons": reasons, "notes": notes}


def words(lease: Facts) -> str:
    """A holder, for people."""
    return f"rollout {lease['rollout_id']} is held by {lease['holder']} under token {lease['token']}"


def _holders(known: t.Mapping[str, Facts], run: str, rollout_id: str) -> tuple[list[int], dict[int, Facts]]:
    """Tokens of our own leases, and everybody else's leases by token."""
    own: list[int] = []
    others: dict[int, Facts] = {}
    for look in known.values():
        lease = look["before"]
        if not lease:
            continue
        if (lease.get("rollout_id"), lease.get("run")) == (rollout_id, run):
            own.append(int(lease["token"]))
        else:
            others[int(lease["token"])] = lease
    return own, others


def held(answers: t.Mapping[str, Facts | None], token: int) -> dict[str, t.Any]:
    """Whether a majority of the hosts lent this token. ``answers``: what ``rollout_lock`` said, None where it said nothing.

    Returns ``{"held": bool, "granted": [hosts], "of": count, "reasons": [...]}``.
    """
    granted = [name for name, answer in answers.items() if _granted(answer, token)]
    reasons = [
        f"{name}: {answer['reason'] if answer is not None and 'reason' in answer else 'could not be asked'}"
        for name, answer in answers.items()
        if name not in granted
    ]
    return {"held": len(granted) >= majority(len(answers)), "granted": granted, "of": len(answers), "reasons": reasons}


def _granted(answer: Facts | None, token: int) -> bool:
    return bool(answer and answer.get("granted") and (answer.get("lock") or {}).get("token") == token)
