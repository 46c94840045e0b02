# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every host of a fleet stands, and what an earlier controller left undone. Pure, from what hosts and gateways say.

Whoever couldn't be asked is ``unknown``; nothing here fails because of it.
"""

from __future__ import annotations

import typing as t

Facts = t.Mapping[str, t.Any]

#: A gateway's record of a drain that has not ended.
_OUT = ("draining", "drained")


def _answered(look: Facts | None) -> bool:
    return bool(look and not look.get("unreachable") and not look.get("failed") and "status" in look)


def _records(gateways: t.Mapping[str, Facts | None]) -> tuple[dict[str, Facts], list[str]]:
    """What each gateway remembers, by gateway; and those that couldn't be asked."""
    known, silent = {}, []
    for name, said in gateways.items():
        if said and not said.get("unreachable") and not said.get("failed") and isinstance(said.get("drains"), t.Mapping):
            known[name] = said["drains"]
        else:
            silent.append(name)
    return known, silent


def drained_on(server: str, gateways: t.Mapping[str, Facts | None]) -> tuple[list[str], bool]:
    """Gateways that a server is out of by a drain of ours, and whether all of them could be asked."""
    known, silent = _records(gateways)
    return sorted(name for name, drains in known.items() if (drains.get(server) or {}).get("state") in _OUT), not silent


def _journal(look: Facts | None, server: str) -> Facts:
    """What a host's own journal says of a drain that is not over; empty when there is none."""
    record = ((look or {}).get("drains") or {}).get(server) or {}
    return record if record.get("state") in _OUT else {}


def lost_on(server: str, look: Facts | None, gateways: t.Mapping[str, Facts | None]) -> list[str]:
    """Gateways that a host was taken out of by its own journal, and that have no record of it any more."""
    known = _records(gateways)[0]
    return sorted(name for name in _journal(look, server).get("before") or {} if name in known and server not in known[name])


def target_of(hosts: t.Sequence[Facts], wanted: t.Sequence[str]) -> list[str]:
    """Digests of the release that the fleet goes to: those that are given, or where the last turn forward of any host went."""
    if wanted:
        return [str(one) for one in wanted]
    turns = [turn for one in hosts if _answered(one.get("look")) for turn in one["look"].get("turns", ())]
    forward = [turn for turn in turns if turn.get("direction") == "forward" and (turn.get("new") or {}).get("sha256")]
    last = max(forward, key=lambda turn: float(turn.get("began") or 0), default=None)
    return [str(last["new"]["sha256"])] if last else []


def rows(
    hosts: t.Sequence[Facts], gateways: t.Mapping[str, Facts | None], wanted: t.Sequence[str] = ()
) -> list[dict[str, t.Any]]:
    """One row a host.

    ``hosts``: ``name``, ``server`` (at the gateways), ``look`` (validator_upgrade_info), ``node`` (validator_info).
    """
    target = target_of(hosts, wanted)
    return [_row(one, gateways, target) for one in hosts]


def _row(one: Facts, gateways: t.Mapping[str, Facts | None], target: t.Sequence[str]) -> dict[str, t.Any]:
    server = str(one.get("server") or one["name"])
    out, sure = drained_on(server, gateways)
    lost = lost_on(server, one.get("look"), gateways)
    node = ((one.get("node") or {}).get("node")) or {}
    row: dict[str, t.Any] = {
        "host": one["name"],
        "state": "unknown",
        "release": "unknown",
        "version": node.get("version") or "",
        "height": node.get("height") if node.get("height") is not None else "unknown",
        "drained": True if out or lost else None if gateways and not sure else False,
        "drained_on": sorted({*out, *lost}),
        "turn": "",
        "step": "",
        "since": None,
        "why": "",
        "held_by": "",
        "token": None,
        "problems": [],
    }
    look = one.get("look")
    if not _answered(look) or look is None:
        row["problems"] = [str((look or {}).get("msg") or "could not be asked").strip().splitlines()[0][:300]]
        return row
    said, running, lease = look["status"], look.get("running") or {}, look.get("lock") or {}
    opened, turns = look.get("open_turn") or {}, look.get("turns") or ()
    row.update(
        release=running.get("sha256") or "unknown",
        turn=said.get("turn") or "",
        step=said.get("step") or "",
        since=said.get("since"),
        why=said.get("why") or "",
        held_by=lease.get("holder") or "",
        token=lease.get("token"),
        problems=[str(problem) for problem in look.get("problems") or ()],
    )
    if opened:
        row["problems"] += [] if opened.get("engine") else ["no engine works on its turn: run chainops.validator.resume"]
    if look.get("unrecorded"):
        row["problems"].append("its last turn is not in the manifest: run chainops.validator.resume, or close")
    if lost:
        row["problems"].append(
            f"{', '.join(lost)} lost the record of its drain; the host's own, of turn "
            f"{_journal(look, server).get('turn_id') or '?'}, tells how it was there: run chainops.validator.resume, or close"
        )
    row["state"] = _state(said, running, turns[0] if turns else None, target, bool(out or lost))
    return row


def _state(said: Facts, running: Facts, last: Facts | None, target: t.Sequence[str], out: bool) -> str:
    if said.get("state") in ("in turn", "needs help"):
        return str(said["state"])
    if out:
        return "drained"
    sha256 = running.get("sha256")
    if running.get("pid") is None or sha256 is None or not target:
        return "unknown"
    if sha256 in target:
        return "new"
    if last and last.get("outcome") == "put_back" and (last.get("new") or {}).get("sha256") in target:
        return "put back"
    return "old"


def left_over(hosts: t.Sequence[Facts], gateways: t.Mapping[str, Facts | None]) -> dict[str, t.Any]:
    """What an earlier controller began and didn't see through.

    ``hosts`` as for ``rows``. Returns ``{"open": {host: turn}, "drained": {host: [gateways]}, "unrecorded": [hosts],
    "hosts": [hosts], "unsure": [gateways]}``: turns that aren't over, drains of ours that aren't, turns that nobody wrote down,
    and all of these hosts.
    """
    opened, drained, unrecorded = {}, {}, []
    for one in hosts:
        name, look = str(one["name"]), one.get("look")
        server = str(one.get("server") or name)
        out = sorted({*drained_on(server, gateways)[0], *lost_on(server, look, gateways)})
        if out:
            drained[name] = out
        if _answered(look) and look is not None:
            if look.get("open_turn"):
                opened[name] = str(look["open_turn"]["id"])
            if look.get("unrecorded"):
                unrecorded.append(name)
    names = [str(one["name"]) for one in hosts]
    return {
        "open": opened,
        "drained": drained,
        "unrecorded": unrecorded,
        "hosts": [name for name in names if name in opened or name in drained or name in unrecorded],
        "unsure": _records(gateways)[1],
    }
