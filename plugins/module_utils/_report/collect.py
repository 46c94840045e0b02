# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was collected to what a page and a terminal show: one row a host, one lane a host, headline numbers. Pure."""

from __future__ import annotations

import datetime
import typing as t

from .._core.errors import InputError
from . import invariants
from .invariants import Invariant, JsonDict

#: Steps of a turn, by what they mean to the node's clients: before it stops, while it is down, after.
_DOWN = ("stop", "freeze", "migrate", "restore", "switch", "start", "probe")


def seconds_of(value: t.Any) -> float | None:
    """Seconds since the epoch of a number or an ISO 8601 time; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    try:
        text = str(value).replace("Z", "+00:00")
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


def stamp(seconds: float | None) -> str:
    """``2026-01-31 12:00:00 UTC``, or a dash."""
    if seconds is None:
        return "–"
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def foretold(prediction: t.Any) -> str:
    """What a turn's stop window was predicted to be: ``predicted 3.10 s``; empty where it was not."""
    if not isinstance(prediction, dict) or prediction.get("seconds") is None:
        return ""
    least = "at least " if prediction.get("unknown") else ""
    return f"predicted {least}{span(prediction['seconds'])}"


def span(seconds: float | None) -> str:
    """A time for people: ``0.84 s``, ``42 s``, ``3 min 07 s``."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def complete(rollout: t.Mapping[str, t.Any]) -> JsonDict:
    """A copy in which hosts carry what their turns already tell: watermarks, snapshot, that the journal was read and verified.

    Raises InputError for parts of another type than documented.
    """
    for key in ("hosts", "drains", "canary", "silences", "events"):
        value = rollout.get(key)
        if value is not None and (not isinstance(value, list) or any(not isinstance(one, dict) for one in value)):
            raise InputError(f"rollout.{key} must be a list of dicts, not {str(value)[:60]!r}", key=key)
    for key in ("release", "proof", "load", "chain"):
        value = rollout.get(key)
        if value is not None and not isinstance(value, dict):
            raise InputError(f"rollout.{key} must be a dict, not {str(value)[:60]!r}", key=key)
    hosts = []
    for raw in rollout.get("hosts") or []:
        if not raw.get("name"):
            raise InputError("every one of rollout.hosts needs a name", key="hosts")
        host = dict(raw)
        turn = host.get("turn") or {}
        if turn.get("format"):  # a turn's result is read from its journal, and a journal that doesn't verify can't be read
            host.setdefault("journal_verified", True)
        if turn.get("watermark") and host.get("watermark") is None:
            host["watermark"] = turn["watermark"]
        if (turn.get("snapshot") or {}).get("id") and host.get("snapshot") is None:
            host["snapshot"] = {"id": turn["snapshot"]["id"], "sha256": turn["snapshot"].get("sha256"), "verified": None}
        hosts.append(host)
    drains = []
    for raw in rollout.get("drains") or []:
        drain = dict(raw)
        if drain.get("restored") is None and drain.get("state") in ("active", "drained", "draining"):
            drain["restored"] = drain["state"] == "active"
        drains.append(drain)
    return {**rollout, "hosts": hosts, **({"drains": drains} if drains else {})}


def _short(version: t.Mapping[str, t.Any] | None) -> str:
    known = version or {}
    return str(known.get("version") or known.get("id") or str(known.get("sha256") or "–")[:12])


def kinds(bars: t.Iterable[t.Mapping[str, t.Any]]) -> set[str]:
    """Which kinds of bars there are, for the legend."""
    return {str(one["kind"]) for one in bars}


def host_rows(rollout: t.Mapping[str, t.Any]) -> list[JsonDict]:
    """One row a host, in the order given."""
    missed = (rollout.get("chain") or {}).get("missed_blocks") or {}
    rows = []
    for host in rollout.get("hosts") or []:
        turn = host.get("turn") or {}
        drains = [d for d in rollout.get("drains") or [] if d.get("server") == host["name"] or d.get("instance") == host["name"]]
        times = [float(d["seconds"]) for d in drains if d.get("seconds") is not None]
        key = host.get("address") if host.get("address") in missed else host["name"]
        rows.append(
            {
                "name": str(host["name"]),
                "wave": host.get("wave"),
                "canary": bool(host.get("canary")),
                "before": _short(host.get("before")),
                "after": _short(host.get("after")),
                "outcome": str(turn.get("outcome") or "not touched").replace("_", " "),
                "reason": str(turn.get("reason") or ""),
                "stop_window": turn.get("stop_window_seconds"),
                "predicted": foretold(turn.get("predicted_stop_window")),
                "freeze": turn.get("freeze_seconds"),
                "drain": max(times) if times else None,
                "missed": missed.get(key),
                "snapshot": str((host.get("snapshot") or {}).get("id") or ""),
                "snapshot_verified": (host.get("snapshot") or {}).get("verified"),
                "manifest": (host.get("manifest") or {}).get("valid"),
            }
        )
    return rows


def lanes(rollout: t.Mapping[str, t.Any]) -> JsonDict:
    """The overview: for each host what happened when, as shares (0 to 100) of the whole time.

    ``{"start", "end", "ticks": [{"at", "text"}], "lanes": [{"name", "bars": [{"kind", "left", "width", "title"}]}]}``; without
    any time at all, no lanes.
    """
    bars: dict[str, list[tuple[str, float, float, str]]] = {}
    for host in rollout.get("hosts") or []:
        name = str(host["name"])
        bars[name] = []
        for drain in rollout.get("drains") or []:
            if name in (drain.get("server"), drain.get("instance")):
                end = seconds_of((drain.get("drained_at") or {}).get("wall"))
                if end is not None:
                    took = float(drain.get("seconds") or 0)
                    title = f"drained on {drain.get('gateway')} in {span(took)}"
                    bars[name].append(("drain", end - took, end, title))
                    back = seconds_of((drain.get("restored_at") or {}).get("wall"))
                    if back is not None and back > end:
                        bars[name].append(("out", end, back, f"out of {drain.get('gateway')} for {span(back - end)}"))
        for step in _steps(host):
            bars[name].append((step["kind"], step["from"], step["to"], step["title"]))
    for event in rollout.get("events") or []:
        at, took = seconds_of(event.get("at")), float(event.get("seconds") or 0)
        if at is not None and took > 0:
            name = str(event.get("host") or "fleet")
            bars.setdefault(name, []).append(("soak", at, at + took, f"{event.get('what', '')} ({span(took)})"))
    moments = [m for lane in bars.values() for dummy, a, b, dummy in lane for m in (a, b)]
    moments += [m for key in ("started", "finished") if (m := seconds_of(rollout.get(key))) is not None]
    if len(moments) < 2 or max(moments) <= min(moments):
        return {"start": None, "end": None, "ticks": [], "lanes": []}
    first, last = min(moments), max(moments)
    whole = last - first
    order = {"out": 0, "soak": 0, "drain": 1}
    return {
        "start": first,
        "end": last,
        "ticks": [{"at": round(100 * s / whole, 3), "text": _tick(s)} for s in _ticks(whole)],
        "lanes": [
            {
                "name": name,
                "bars": [
                    {
                        "kind": kind,
                        "left": round(100 * (a - first) / whole, 3),
                        "width": round(max(100 * (b - a) / whole, 0.35), 3),
                        "title": title,
                    }
                    for kind, a, b, title in sorted(lane, key=lambda bar: (order.get(bar[0], 2), bar[1]))
                ],
            }
            for name, lane in bars.items()
        ],
    }


def unconfirmed(rollout: t.Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """(host, words) of gateways whose receipt stood alone, because the host couldn't see for itself that they had let go."""
    found = []
    for host in rollout.get("hosts") or []:
        for step in (host.get("turn") or {}).get("steps") or []:
            if step.get("name") == "check":
                found += [(str(host["name"]), str(words)) for words in (step.get("facts") or {}).get("unconfirmed") or []]
    return found


def _steps(host: t.Mapping[str, t.Any]) -> list[JsonDict]:
    result = []
    for step in (host.get("turn") or {}).get("steps") or []:
        at, took = seconds_of(step.get("at")), step.get("seconds")
        if at is None:
            continue
        name, back = str(step.get("name")), step.get("way") == "undo"
        kind = "undo" if back else "failed" if step.get("state") == "failed" else name if name in _DOWN else "turn"
        words = f"{'undo ' if back else ''}{name}: {step.get('state')}{f' in {span(float(took))}' if took is not None else ''}"
        result.append({"name": name, "kind": kind, "from": at, "to": at + float(took or 0), "title": words, "undo": back})
    return result


def windows(rollout: t.Mapping[str, t.Any]) -> JsonDict:
    """Each turn's critical section by itself, seconds from the node's stop: ``{"longest", "ticks", "rows"}``."""
    rows = []
    for host in rollout.get("hosts") or []:
        steps = [s for s in _steps(host) if s["name"] in _DOWN]
        if steps:
            zero = min(s["from"] for s in steps)
            rows.append({"name": str(host["name"]), "steps": steps, "zero": zero, "length": max(s["to"] for s in steps) - zero})
    longest = max((r["length"] for r in rows), default=0.0)
    if longest <= 0:
        return {"longest": None, "ticks": [], "rows": []}
    for row in rows:
        row["bars"] = [
            {
                "kind": s["kind"],
                "name": s["name"],
                "left": round(100 * (s["from"] - row["zero"]) / longest, 3),
                "width": round(max(100 * (s["to"] - s["from"]) / longest, 0.35), 3),
                "title": s["title"],
            }
            for s in row.pop("steps")
        ]
    ticks = [{"at": round(100 * s / longest, 3), "text": _tick(s)} for s in _ticks(longest)]
    return {"longest": longest, "ticks": ticks, "rows": rows}


def _tick(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min" if seconds < 7200 else f"{seconds / 3600:g} h"


def _ticks(whole: float) -> list[float]:
    """Round moments, four to nine of them."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
    step = next((s for s in steps if whole / s <= 8), whole / 6)
    return [round(i * step, 3) for i in range(int(whole / step) + 1)]


def headline(rollout: t.Mapping[str, t.Any], judged: t.Sequence[Invariant]) -> list[JsonDict]:
    """The numbers people look for first: ``{"label", "value", "note", "good": bool | None}``."""
    rows = host_rows(rollout)
    done = [r for r in rows if r["outcome"] == "committed"]
    back = [r for r in rows if r["outcome"] == "put back"]
    load = rollout.get("load") or {}
    missed = [r["missed"] for r in rows if r["missed"] is not None]
    stops = [r["stop_window"] for r in rows if r["stop_window"] is not None]
    drains = [r["drain"] for r in rows if r["drain"] is not None]
    broken = [i.id for i in judged if i.status == invariants.BROKEN]
    unseen = [i.id for i in judged if i.status == invariants.NOT_OBSERVED]
    held = len(judged) - len(broken) - len(unseen)

    def tile(label: str, value: t.Any, note: str = "", good: bool | None = None) -> JsonDict:
        return {"label": label, "value": "not observed" if value is None else str(value), "note": note, "good": good}

    failed, twice = load.get("failed"), load.get("double_spends")
    note = f"of {int(load['requests']):,}" if load.get("requests") else ""
    holds = " ".join([f"broken: {', '.join(broken)}"] * bool(broken) + [f"not observed: {', '.join(unseen)}"] * bool(unseen))
    return [
        tile("hosts upgraded", f"{len(done)} of {len(rows)}", f"{len(back)} put back" if back else ""),
        tile("invariants held", f"{held} of {len(judged)}", holds, False if broken else None if unseen else True),
        tile("failed requests", failed, note, None if failed is None else failed == 0),
        tile("double spends", twice, "", None if twice is None else twice == 0),
        tile("most missed blocks", max(missed) if missed else None, "per validator"),
        tile(
            "longest stop window",
            span(max(stops)) if stops else None,
            f"median {span(sorted(stops)[len(stops) // 2])}" if stops else "",
        ),
        tile("longest drain", span(max(drains)) if drains else None),
    ]


OUTCOMES: dict[str, tuple[str, str]] = {
    "success": ("Upgraded", "good"),
    "rolled_back": ("Rolled back", "warn"),
    "stopped": ("Stopped", "warn"),
    "failed": ("Failed", "bad"),
    "refused": ("Refused", "warn"),
}


def outcome(rollout: t.Mapping[str, t.Any], judged: t.Sequence[Invariant]) -> tuple[str, str]:
    """(words, ``good``, ``warn`` or ``bad``). A broken invariant is never good, whatever the rollout says of itself."""
    words, grade = OUTCOMES.get(str(rollout.get("outcome")), ("Outcome not told", "warn"))
    broken = any(i.status == invariants.BROKEN for i in judged)
    return (f"{words}, promise broken" if broken else words), ("bad" if broken else grade)
