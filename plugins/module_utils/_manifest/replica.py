# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of other hosts' manifests. A copy is only ever extended: whoever rewrites, shortens or forks a manifest, as root if need
be, can't take back what the other hosts of the rollout keep of it.

``<instance>/replicas/<origin>/migration_manifest.json`` is a manifest as its origin has it, so that it can be copied back as it
is. ``origin`` is the name of the host in the inventory, percent-encoded where a file name can't have it. A call hands over at
most ``MOST_ENTRIES`` entries and ``MOST_BYTES`` of them in canonical form; what doesn't fit comes with the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t
import urllib.parse

from .._core import canonical, files
from .._core.errors import Busy, InputError
from . import manifest
from .manifest import START, Entry

DIRECTORY = "replicas"
#: What one call hands over, of all origins together.
MOST_ENTRIES, MOST_BYTES = 1000, 1 << 20
#: What an origin tells at once; four times that fits into a call.
TOLD_ENTRIES, TOLD_BYTES = 250, 1 << 18

EXTENDED, SAME, BEHIND, REFUSED = "extended", "same", "behind", "refused"


@dataclasses.dataclass(frozen=True)
class Offered:
    """What an origin says of its manifest. ``seq``, ``head``: number and hash of its last entry, 0 and 64 zeros for none.

    ``entries``: some of them, as they are stored, in their order. ``marks``: hashes of entries by number, which may contradict a
    copy also where the entries in between aren't at hand.
    """

    seq: int
    head: str
    entries: t.Sequence[t.Any] = ()
    marks: t.Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What becomes of a copy: ``state``, the entries to add (when extended), and why, in words."""

    state: str
    reason: str = ""
    added: tuple[Entry, ...] = ()


def offer(kept: t.Sequence[Entry], offered: Offered) -> Verdict:
    """Whether a copy may be extended by what its origin offers. Pure.

    ``extended``: by ``added``, which follows what is kept. ``same``: nothing is new. ``behind``: there is more, and it doesn't
    follow yet. ``refused``: what is kept is not in what is offered.
    """
    have, top = len(kept), kept[-1].hash if kept else START
    if offered.seq < 0 or (offered.seq == 0) != (offered.head == START):
        return Verdict(REFUSED, f"a manifest of {offered.seq} entries can't end in {offered.head}")
    for number, said in sorted(offered.marks.items()):
        if 0 < number <= have and kept[number - 1].hash != said:
            return Verdict(REFUSED, _rewritten(number, said, kept[number - 1].hash))
    if offered.seq < have:
        return Verdict(REFUSED, cut(offered.seq, offered.head, have, top))
    if offered.seq == have:
        return Verdict(SAME) if offered.head == top else Verdict(REFUSED, _rewritten(have, offered.head, top))
    new = []
    for item in offered.entries:
        about: dict[str, t.Any] = item if isinstance(item, dict) else {}
        its, its_hash = about.get("seq"), about.get("hash")
        if not isinstance(its, int) or isinstance(its, bool) or its < 1 or its > offered.seq:
            return Verdict(REFUSED, f"what is offered has something that is no entry of 1 to {offered.seq}: number {its!r}")
        if its > have:
            new.append(item)
        elif its_hash != kept[its - 1].hash:
            return Verdict(REFUSED, _rewritten(its, its_hash, kept[its - 1].hash))
    if not new or new[0]["seq"] != have + 1:
        return Verdict(BEHIND, f"entries {have + 1} to {offered.seq} are missing here")
    if have and new[0].get("prev") != top:
        return Verdict(REFUSED, _rewritten(have, new[0].get("prev"), top))
    added, problem = manifest.follow(kept, new)
    if problem:
        return Verdict(REFUSED, f"what is offered is broken: {problem}")
    if added[-1].seq == offered.seq and added[-1].hash != offered.head:
        return Verdict(REFUSED, _rewritten(offered.seq, offered.head, added[-1].hash))
    left = offered.seq - added[-1].seq
    return Verdict(EXTENDED, f"entries {added[-1].seq + 1} to {offered.seq} are missing here" if left else "", added)


def cut(seq: int, head: str, have: int, top: str) -> str:
    """A manifest that is shorter than a copy, in words."""
    there = f"it ends at entry {seq} ({head})" if seq else "there is none any more"
    return f"{there}, and entry {have} ({top}) is kept: entries were cut off, or it was lost"


def _rewritten(number: int, said: t.Any, kept: str) -> str:
    return f"entry {number} is {said} there, and {kept} is kept: it was rewritten"


def compare(kept: t.Mapping[str, t.Any], now: t.Mapping[str, t.Any]) -> Verdict:
    """A copy as ``kept_here`` tells it, against its origin's manifest as it tells it (``seq``, ``head``, ``marks``). Pure."""
    have, top = int(kept["seq"]), str(kept["head"])
    if not kept["valid"]:
        return Verdict(REFUSED, f"the copy is broken: {'; '.join(kept['problems'])}")
    marks = {int(number): str(said) for number, said in (now.get("marks") or {}).items()}
    if int(now["seq"]) < have:
        return Verdict(REFUSED, cut(int(now["seq"]), str(now["head"]), have, top))
    said = str(now["head"]) if int(now["seq"]) == have else START if have == 0 else marks.get(have)
    if said is not None and said != top:
        return Verdict(REFUSED, _rewritten(have, said, top))
    if int(now["seq"]) == have:
        return Verdict(SAME)
    return Verdict(BEHIND, f"entries {have + 1} to {now['seq']} are missing here")


def told(
    entries: t.Sequence[Entry], after: t.Iterable[int], most: int = TOLD_ENTRIES, size: int = TOLD_BYTES
) -> tuple[Entry, ...]:
    """What an origin tells to copies that end at the numbers ``after``, at least one entry where there is one.

    The newest first, so that a copy that has everything to catch up with doesn't keep the others from what is new.
    """
    taken: dict[int, Entry] = {}
    room = size
    for start in sorted({number for number in after if 0 <= number < len(entries)}, reverse=True):
        for entry in entries[start:]:
            if entry.seq in taken:
                break
            room -= len(canonical.dumps(entry.as_dict()))
            if taken and (room < 0 or len(taken) >= most):
                return tuple(taken[number] for number in sorted(taken))
            taken[entry.seq] = entry
    return tuple(taken[number] for number in sorted(taken))


def asked(offered: t.Sequence[t.Mapping[str, t.Any]]) -> list[tuple[str, Offered]]:
    """What a module was handed over, checked. Raises InputError for what can't be, and for more than a call may hand over."""
    try:
        # What is stored is what is read back.
        plain = canonical.loads(canonical.dumps([dict(one) for one in offered]), "replicas")
        found = [
            (
                require_origin(str(one["origin"])),
                Offered(
                    int(one["seq"]),
                    str(one["head"]),
                    tuple(one.get("entries") or ()),
                    {int(number): str(said) for number, said in (one.get("marks") or {}).items()},
                ),
            )
            for one in plain
        ]
    except (TypeError, ValueError, AttributeError, KeyError) as exc:
        raise InputError(f"replicas: not what it should be: {type(exc).__name__}: {exc}") from exc
    names = [origin for origin, dummy in found]
    if len(set(names)) < len(names):
        raise InputError(f"replicas: {next(name for name in names if names.count(name) > 1)} is given twice")
    count = sum(len(one.entries) for dummy, one in found)
    size = sum(len(canonical.dumps(list(one.entries))) for dummy, one in found)
    if count > MOST_ENTRIES or size > MOST_BYTES:
        raise InputError(
            f"replicas: {count} entries of {size} bytes; a call hands over at most {MOST_ENTRIES} entries and "
            f"{MOST_BYTES} bytes. Hand over the rest with the next one"
        )
    return found


def require_origin(origin: str) -> str:
    """The name itself. Raises InputError for one that no file can have."""
    name = urllib.parse.quote(origin, safe="")
    if name in ("", ".", "..") or len(name) > 200:
        raise InputError(f"origin {origin!r} is not usable; it needs 1 to 200 letters, digits, '.', '_' or '-'", origin=origin)
    return origin


def path_of(root: str, origin: str) -> str:
    """Where the instance whose state is in ``root`` keeps the manifest of another host."""
    return os.path.join(root, DIRECTORY, urllib.parse.quote(require_origin(origin), safe=""), manifest.NAME)


def take(root: str, origin: str, offered: Offered, *, dry: bool = False) -> dict[str, t.Any]:
    """Extend a copy, durably, by what is offered, or say why not. ``dry``: only say what would be.

    Returns ``{"origin", "state", "reason", "before": {"seq", "head"}, "seq", "head", "path"}``. A refusal is an answer, and so is
    a copy that can't be written now: it is behind.
    """
    path = path_of(root, origin)
    if dry:
        return _take(path, origin, offered, write=False)
    try:
        files.make_dir(os.path.dirname(path))
        with files.locked(path + ".lock", what=f"copy of the manifest of {origin}"):
            return _take(path, origin, offered, write=True)
    except (Busy, OSError) as exc:
        why = exc.message if isinstance(exc, Busy) else f"{path} can't be written: {exc.strerror or exc}"
        kept: tuple[Entry, ...] = ()
        with contextlib.suppress(OSError):
            kept = manifest.sound(path)
        end = _end(kept)
        return {"origin": origin, "state": BEHIND, "reason": why, "before": end, **end, "path": path}


def _take(path: str, origin: str, offered: Offered, *, write: bool) -> dict[str, t.Any]:
    kept, problems = manifest.look(path)
    verdict = Verdict(REFUSED, f"the copy is broken: {problems[0]}") if problems else offer(kept, offered)
    now = (*kept, *verdict.added)
    if verdict.added and write:
        manifest.write(path, now)
    return {
        "origin": origin,
        "state": verdict.state,
        "reason": verdict.reason,
        "before": _end(kept),
        **_end(now),
        "path": path,
    }


def _end(entries: t.Sequence[Entry]) -> dict[str, t.Any]:
    return {"seq": len(entries), "head": entries[-1].hash if entries else START}


def kept_here(root: str) -> list[dict[str, t.Any]]:
    """Every copy: ``{"origin", "seq", "head", "valid", "problems", "path"}``, by origin."""
    try:
        names = sorted(os.listdir(os.path.join(root, DIRECTORY)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        path = os.path.join(root, DIRECTORY, name, manifest.NAME)
        entries, problems = manifest.look(path)
        if entries or problems:
            about = {"valid": not problems, "problems": problems, "path": path}
            found.append({"origin": urllib.parse.unquote(name), **_end(entries), **about})
    return found
