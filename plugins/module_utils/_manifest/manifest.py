# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``migration_manifest.json``: what was done to an instance, by whose decision, and how to get back. Append-only.

One JSON document, ``{"format": ..., "entries": [...]}``. Each entry carries its number, the hash of the one before it and its
own: SHA-256 of its canonical form without ``hash``. An entry that was edited, dropped, added or moved breaks the chain there.
That the chain was not cut at its end, or exchanged as a whole, shows by comparing its head with copies kept elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._core import canonical, files
from .._core.clock import CLOCK
from .._core.errors import InputError, IntegrityError, Refused

FORMAT = "chainops.migration-manifest/1"
NAME = "migration_manifest.json"
START = "0" * 64
#: ``finish`` ends a rollout: its rollback points are no longer needed. ``lock_broken``: somebody took a lock from its holder.
KINDS = ("upgrade", "rollback", "put_back", "finish", "lock_broken")
_OWN = ("seq", "prev", "time", "kind", "hash")
#: Digests of files, filled in where there are any; see ``evidence.py``. Not what an entry says.
_EVIDENCE = "evidence"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry. ``fields`` is everything the writer said apart from the kind."""

    seq: int
    prev: str
    time: str
    kind: str
    fields: dict[str, t.Any]
    hash: str

    def as_dict(self) -> dict[str, t.Any]:
        return {**self.fields, "seq": self.seq, "prev": self.prev, "time": self.time, "kind": self.kind, "hash": self.hash}


def append(path: str, entry: t.Mapping[str, t.Any], evidence: t.Sequence[t.Mapping[str, t.Any]] = ()) -> Entry:
    """Add an entry, durably; number, time and hashes are filled in. The same said again (kind, rollout and turn) changes nothing.

    ``evidence``: digests of files, kept with it.

    Raises InputError for an entry that can't be one, IntegrityError when the chain is broken (nothing is added to it), Refused
    when that turn is recorded already with other content, Busy when another process is writing.
    """
    kind, fields = _check(entry)
    with files.locked(path + ".lock", what="migration manifest"):
        entries = read(path)
        there = recorded(entries, kind, fields)
        if there is not None:
            return there
        last = entries[-1] if entries else None
        body = {
            **fields,
            **({_EVIDENCE: [dict(one) for one in evidence]} if evidence else {}),
            "seq": last.seq + 1 if last else 1,
            "prev": last.hash if last else START,
            "time": CLOCK.stamp(),
            "kind": kind,
        }
        added = _entry({**body, "hash": canonical.digest(body)})
        write(path, (*entries, added))
    return added


def write(path: str, entries: t.Sequence[Entry]) -> None:
    """Replace the file by these entries, which follow one another. The caller is alone with it."""
    files.write_atomic(path, canonical.pretty({"format": FORMAT, "entries": [item.as_dict() for item in entries]}), 0o644)


def known(path: str, entry: t.Mapping[str, t.Any]) -> Entry | None:
    """The entry that says this already, or None; raises what ``append`` would raise. Writes nothing."""
    kind, fields = _check(entry)
    return recorded(read(path), kind, fields)


def recorded(entries: t.Sequence[Entry], kind: str, fields: t.Mapping[str, t.Any]) -> Entry | None:
    """The entry that says this already. Raises Refused when one of the same kind, rollout and turn says something else."""
    key = (fields.get("rollout_id"), fields.get("turn_id"))
    if key == (None, None):
        return None
    for item in reversed(entries):
        if kind == "finish" and item.kind != "finish" and item.fields.get("rollout_id") == fields.get("rollout_id"):
            return None  # it went on after it had been finished, and ends once more
        if item.kind == kind and (item.fields.get("rollout_id"), item.fields.get("turn_id")) == key:
            said = {name: value for name, value in item.fields.items() if name != _EVIDENCE}
            if canonical.dumps(said) == canonical.dumps(dict(fields)):
                return item
            different = sorted(name for name in said.keys() | fields.keys() if said.get(name) != fields.get(name))
            raise Refused(
                f"entry {item.seq} records this {kind} already, with another {', '.join(different)}; an entry is never changed",
                seq=item.seq,
                different=different,
            )
    return None


def read(path: str) -> tuple[Entry, ...]:
    """All entries; none when there is no file. Raises IntegrityError naming the first entry that breaks the chain."""
    entries, problems = _load(path)
    if problems:
        raise IntegrityError(f"{path}: {problems[0]}", path=path, problems=problems)
    return entries


def verify(path: str) -> list[str]:
    """What is wrong with the chain, the first broken entry named; empty when nothing is."""
    return _load(path)[1]


def head(path: str) -> str:
    """The hash of the last entry, 64 zeros when there is none. Raises IntegrityError."""
    entries = read(path)
    return entries[-1].hash if entries else START


def sound(path: str) -> tuple[Entry, ...]:
    """The entries before the first broken one: for showing, never for deciding."""
    return _load(path)[0]


def look(path: str) -> tuple[tuple[Entry, ...], list[str]]:
    """``sound`` and ``verify`` in one, of the same bytes."""
    return _load(path)


def follow(before: t.Sequence[Entry], items: t.Iterable[t.Any]) -> tuple[tuple[Entry, ...], str]:
    """Those of ``items``, as they are stored, that follow ``before``; and what is wrong with the first that doesn't, if any."""
    first, previous = (before[-1].seq + 1, before[-1].hash) if before else (1, START)
    entries: list[Entry] = []
    for number, item in enumerate(items, first):
        problem = _broken(number, previous, item)
        if problem:
            return tuple(entries), f"entry {number}: {problem}"
        entries.append(_entry(item))
        previous = entries[-1].hash
    return tuple(entries), ""


def protected(path: str) -> dict[str, str]:
    """Snapshots that rollouts without a ``finish`` entry may still go back to, with the reason. Raises IntegrityError."""
    open_points: dict[str, dict[str, str]] = {}
    for entry in read(path):
        rollout = str(entry.fields.get("rollout_id") or "")
        if entry.kind == "finish":
            open_points.pop(rollout, None)
        elif entry.kind == "upgrade" and entry.fields.get("snapshot_id"):
            reason = f"rollback point of rollout {rollout or '?'}, which is not finished"
            open_points.setdefault(rollout, {})[str(entry.fields["snapshot_id"])] = reason
    return {snapshot: reason for points in open_points.values() for snapshot, reason in points.items()}


def _check(entry: t.Mapping[str, t.Any]) -> tuple[str, dict[str, t.Any]]:
    kind = entry.get("kind")
    if kind not in KINDS:
        raise InputError(f"manifest entry: kind must be one of {', '.join(KINDS)}, not {kind!r}")
    fields = {name: value for name, value in entry.items() if name != "kind"}
    taken = sorted(set(fields) & {*_OWN, _EVIDENCE})
    if taken:
        raise InputError(f"manifest entry: {', '.join(taken)} can't be given, they are filled in")
    try:
        # What is stored is what is read back: the hash must not depend on who wrote it.
        return str(kind), dict(canonical.loads(canonical.dumps(fields), "manifest entry"))
    except (TypeError, ValueError) as exc:
        raise InputError(f"manifest entry: not plain JSON: {exc}") from exc


def _entry(value: t.Mapping[str, t.Any]) -> Entry:
    fields = {name: item for name, item in value.items() if name not in _OWN}
    return Entry(value["seq"], value["prev"], value["time"], value["kind"], fields, value["hash"])


def _load(path: str) -> tuple[tuple[Entry, ...], list[str]]:
    """The entries up to the first broken one, and what is wrong with it."""
    data = files.read_or_none(path)
    if data is None:
        return (), []
    try:
        value = canonical.loads(data, os.path.basename(path))
    except IntegrityError as exc:
        return (), [exc.message]
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("entries"), list):
        return (), [f"not in the format {FORMAT}"]
    entries, problem = follow((), value["entries"])
    return entries, [problem] if problem else []


def _broken(number: int, previous: str, item: t.Any) -> str:
    if not isinstance(item, dict) or not all(name in item for name in _OWN):
        return f"not an entry: {', '.join(_OWN)} must be there"
    body = {name: value for name, value in item.items() if name != "hash"}
    if canonical.digest(body) != item["hash"]:
        return "its content does not match its hash: it was changed after it was written"
    if item["seq"] != number:
        return f"it says it is number {item['seq']}: an entry before it was dropped or added"
    if item["prev"] != previous:
        return "it does not follow the entry before it: one was exchanged, dropped or moved"
    if item["kind"] not in KINDS or not isinstance(item["time"], str):
        return f"kind {item['kind']!r} is unknown"
    return ""
