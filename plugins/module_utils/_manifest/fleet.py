# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the manifests of a fleet get to its other hosts, and whether they are what those keep. Pure.

A round is three calls to each host, whatever the fleet's size: which manifest has it, and which copies does it keep (``looks``);
what is new in its manifest after where the others' copies end (``news``); what is handed over to it (``answers``). All three are
what the modules returned, by the host's name; an empty dict, or one without what is needed, for whoever could not be asked.
"""

from __future__ import annotations

import typing as t

from .._core import canonical
from . import replica
from .manifest import START

Facts = t.Mapping[str, t.Any]
Hosts = t.Mapping[str, t.Optional[Facts]]

TO_DO = (
    "Nobody goes on from here: look at both files, and at the copies on the other hosts. How to tell which of them is right, "
    "and how to put a manifest back that was lost: roles/record/README.md"
)


#: How many records a renewal of the lease hands over.
LATEST = 16


def _told(answers: Hosts) -> dict[str, Facts]:
    """Those that said which manifest they have."""
    return {name: dict(one) for name, one in answers.items() if one and "seq" in one and "head" in one}


def _kept(look: Facts) -> dict[str, Facts]:
    return {str(one["origin"]): one for one in look.get("replicas") or ()}


def _none(origin: str) -> Facts:
    return {"origin": origin, "seq": 0, "head": START, "valid": True, "problems": []}


def of_round(looks: Hosts, number: t.Any) -> dict[str, Facts]:
    """What was told in one round: a host that it didn't get to must not be taken for what it was in an earlier one."""
    return {name: look if look and str(look.get("round")) == str(number) else {} for name, look in looks.items()}


def asks(looks: Hosts) -> dict[str, list[int]]:
    """Whom to ask for what is new, after which entries: for each origin, where the copies end that aren't its manifest."""
    known = _told(looks)
    ends: dict[str, set[int]] = {}
    for holder, look in known.items():
        copies = _kept(look)
        for origin in known:
            there = copies.get(origin) or _none(origin)
            if origin != holder and (there["seq"], there["head"]) != (known[origin]["seq"], known[origin]["head"]):
                ends.setdefault(origin, set()).add(int(there["seq"]))
    return {origin: sorted(numbers) for origin, numbers in ends.items()}


def offers(looks: Hosts, news: Hosts) -> dict[str, list[dict[str, t.Any]]]:
    """What to hand over, by host: of every manifest that its copy isn't yet. Small ones first, as many as fit into a call."""
    known, fresh = _told(looks), _told(news)
    return {holder: _offers(known, fresh, holder) for holder in known}


def _offers(known: t.Mapping[str, Facts], fresh: t.Mapping[str, Facts], holder: str) -> list[dict[str, t.Any]]:
    found = []
    copies = _kept(known[holder])
    for origin in known:
        now, there = fresh.get(origin) or known[origin], copies.get(origin) or _none(origin)
        if origin == holder or (there["seq"], there["head"]) == (now["seq"], now["head"]):
            continue
        run: list[t.Any] = []
        for entry in now.get("entries") or ():
            if entry["seq"] == int(there["seq"]) + 1 + len(run):
                run.append(entry)
        about = {"origin": origin, "seq": now["seq"], "head": now["head"]}
        found.append((len(canonical.dumps(run)), {**about, "entries": run, "marks": dict(now.get("marks") or {})}))
    return _fitting(found)


def _fitting(found: list[tuple[int, dict[str, t.Any]]]) -> list[dict[str, t.Any]]:
    """Offers, given with their sizes, the small ones first; of one that doesn't fit any more its beginning."""
    entries, room = replica.MOST_ENTRIES, replica.MOST_BYTES
    result = []
    for dummy, one in sorted(found, key=lambda pair: (pair[0], str(pair[1]["origin"]))):
        run = []
        for entry in one["entries"]:
            size = len(canonical.dumps(entry)) + 2
            if entries < 1 or size > room:
                break
            entries, room = entries - 1, room - size
            run.append(entry)
        result.append({**one, "entries": run})
    return result


def records(registered: Hosts) -> list[dict[str, t.Any]]:
    """What this run wrote down last, to be handed over to all hosts; the rest comes with the next round.

    ``registered``: what ``migration_manifest`` returned on each host.
    """
    found = []
    for origin, one in registered.items():
        entry = (one or {}).get("entry") or {}
        # In check mode there is no entry yet.
        if "hash" not in entry:
            continue
        marks = {str(entry["seq"] - 1): entry["prev"]} if entry["seq"] > 1 else {}
        found.append({"origin": origin, "seq": entry["seq"], "head": entry["hash"], "entries": [entry], "marks": marks})
    latest = sorted(found, key=lambda one: str(one["entries"][0]["time"]))[-LATEST:]
    return [one for one in _fitting([(0, one) for one in latest]) if one["entries"]]


def judge(looks: Hosts, news: Hosts, answers: Hosts | None = None) -> dict[str, t.Any]:
    """How the copies stand, with what was handed over, or, without ``answers``, as they are.

    Returns ``{"origins": {origin: {"seq", "head", "kept_by": [hosts], "behind": {host: why}, "of": count}}, "refused": [...],
    "unasked": [hosts], "words": str}``. ``refused``: what must not be, each with both hosts, numbers and digests.
    """
    known, fresh, said = _told(looks), _told(news), answers or {}
    copies = {holder: _kept(look) for holder, look in known.items()}
    refused: list[str] = []
    origins: dict[str, t.Any] = {}
    for origin, first in known.items():
        now = fresh.get(origin) or first
        row: dict[str, t.Any] = {"seq": now["seq"], "head": now["head"], "kept_by": [], "behind": {}, "of": len(looks) - 1}
        against: dict[str, list[str]] = {}
        for holder in looks:
            if holder == origin:
                continue
            state, reason = _stands(copies.get(holder), said.get(holder), origin, now, answers is not None)
            if now.get("valid") is False:
                row["behind"][holder] = "the manifest is broken"
            elif state == replica.SAME:
                row["kept_by"].append(holder)
            elif state == replica.REFUSED:
                against.setdefault(reason, []).append(holder)
            else:
                row["behind"][holder] = reason
        if now.get("valid") is False:
            refused.append(f"{origin}: its manifest {now.get('path', '')} is broken: {'; '.join(now.get('problems') or ())}")
        refused += [_refusal(origin, holders, reason) for reason, holders in against.items()]
        origins[origin] = row
    unasked = sorted(name for name in looks if name not in known)
    return {
        "origins": origins,
        "refused": refused,
        "unasked": unasked,
        "words": _words(origins, refused, unasked),
    }


def _stands(
    look: t.Mapping[str, Facts] | None, answer: Facts | None, origin: str, now: Facts, handed_over: bool
) -> tuple[str, str]:
    """State and reason of a host's copy. ``look``: all its copies, by origin."""
    if look is None:
        return replica.BEHIND, "it could not be asked"
    there = look.get(origin) or _none(origin)
    done = next((one for one in _results(answer) if one["origin"] == origin), None)
    if done is not None:
        state = str(done["state"])
        if state == replica.EXTENDED:
            state = replica.SAME if (done["seq"], done["head"]) == (now["seq"], now["head"]) else replica.BEHIND
        return state, str(done["reason"])
    seen = replica.compare(there, now)
    if handed_over and seen.state == replica.BEHIND:
        why = str((answer or {}).get("msg") or "nothing was handed over")
        return replica.BEHIND, f"{seen.reason}: {why}"
    return seen.state, seen.reason


def _results(answer: Facts | None) -> list[Facts]:
    """What a host said of each copy, also where the module failed because one was refused."""
    if not answer:
        return []
    return list(answer.get("replicas") or (answer.get("error") or {}).get("replicas") or ())


def refusals(results: t.Iterable[Facts | None]) -> list[str]:
    """What hosts refused of what was handed over with their lease, with their names: ``results`` of a loop over hosts."""
    found = []
    for result in results:
        for one in _results(result):
            if one["state"] == replica.REFUSED:
                holder = str((result or {}).get("preflight_item", ["a host"])[0])
                found.append(_refusal(str(one["origin"]), [holder], str(one["reason"])))
    return found


def _refusal(origin: str, holders: t.Sequence[str], reason: str) -> str:
    return f"{origin}'s manifest is not the one that is kept on {', '.join(holders)}: {reason}"


def _words(origins: t.Mapping[str, Facts], refused: t.Sequence[str], unasked: t.Sequence[str]) -> str:
    rows = {origin: row for origin, row in origins.items() if row["seq"]}
    whole = sum(1 for row in rows.values() if len(row["kept_by"]) == row["of"])
    behind: dict[str, list[str]] = {}
    for origin, row in rows.items():
        for holder in row["behind"]:
            behind.setdefault(holder, []).append(origin)
    words = [f"REFUSED: {'; '.join(refused)}. {TO_DO}"] if refused else []
    words += [f"{whole} of {len(rows)} manifests are kept whole by every other host"]
    words += [f"not asked: {', '.join(unasked)}"] if unasked else []
    words += [f"{holder} is behind with {', '.join(names)}" for holder, names in behind.items()]
    return "; ".join(words)
