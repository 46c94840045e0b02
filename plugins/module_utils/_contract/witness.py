# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers before and after, compared by shape and meaning. Pure: what was asked and answered comes in, differences go out."""

from __future__ import annotations

import re
import typing as t

from . import shape
from .schema import JsonDict

#: An operation is slower when its quickest answer now took this many milliseconds longer than its slowest before, and ``factor``
#: times as long.
SLOWER_MS = 250.0

#: Headers whose value clients go by. Of the others they see whether they are there.
_VALUES = frozenset({"cache-control", "content-encoding", "content-language", "content-disposition", "link", "location"})
_VALUE_PREFIXES = ("access-control-", "x-api-version", "api-version")
_LISTS = frozenset({"vary", "access-control-allow-methods", "access-control-allow-headers", "access-control-expose-headers"})
#: Headers of the connection, of one request or of the moment.
_PASSING = frozenset(
    {
        "age",
        "alt-svc",
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "server",
        "trailer",
        "via",
        "warning",
    }
    | {"transfer-encoding", "x-request-id", "x-correlation-id", "x-served-by", "x-cache", "traceparent", "retry-after", "expires"}
)


def headers_of(raw: t.Mapping[str, str]) -> dict[str, str]:
    """What of an answer's headers is kept: the value where clients go by it, else nothing but that it is there."""
    kept = {}
    for name, value in raw.items():
        if name in _LISTS:
            kept[name] = ", ".join(sorted({part.strip().lower() for part in value.split(",") if part.strip()}))
        elif name in _VALUES or name.startswith(_VALUE_PREFIXES):
            kept[name] = re.sub(r"\s+", " ", value.strip())
        elif name not in _PASSING:
            kept[name] = ""
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", raw.get("content-type", ""), re.IGNORECASE)
    return {**kept, "charset": charset.group(1).lower()} if charset else kept


def difference(operation: str, kind: str, where: str, words: str, breaking: bool) -> JsonDict:
    """``id`` is what a declared change is matched with: ``GET /path kind $.field``."""
    return {
        "id": f"{operation} {kind} {where}",
        "operation": operation,
        "kind": kind,
        "path": where,
        "words": words,
        "breaking": breaking,
    }


def compare(before: t.Sequence[JsonDict], after: t.Sequence[JsonDict], factor: float) -> list[JsonDict]:
    """``before`` and ``after``: requests with their answers, in the same order: ``operation``, ``path``, ``about``, ``status``,
    ``content_type``, ``shape``, ``headers``, ``ms`` (a list); one that got no answer has ``status`` None and ``error``. What got
    none before is not compared. ``factor`` 0 leaves out how long answers take.
    """
    if len(before) != len(after):
        raise AssertionError("every request of the witness has one answer")
    found: list[JsonDict] = []
    groups: dict[tuple[str, str, int], list[tuple[JsonDict, JsonDict]]] = {}
    for old, new in zip(before, after):
        if old["status"] is not None:
            groups.setdefault((old["operation"], old["about"], old["status"]), []).append((old, new))
    for (operation, _about, status), pairs in groups.items():
        same = [(old, new) for old, new in pairs if new["status"] == status]
        for old, new in pairs:
            path = old["path"]
            if new["status"] is None:
                found.append(difference(operation, "status", path, f"{path}: no answer now: {new.get('error', '')}", True))
            elif new["status"] != status:
                words = f"{path}: status {new['status']} now; it was {status}"
                found.append(difference(operation, "status", path, words, True))
            elif new["content_type"] != old["content_type"]:
                words = f"{path}: content type {new['content_type'] or 'missing'} now; it was {old['content_type'] or 'missing'}"
                found.append(difference(operation, "content-type", path, words, True))
        if same:
            found += [difference(operation, *one) for one in _shapes(same)]
            found += [difference(operation, *one) for one in _headers(status, same)]
    if factor > 0:
        found += slower(before, after, factor)
    return found


def _shapes(pairs: t.Sequence[tuple[JsonDict, JsonDict]]) -> list[shape.Difference]:
    before, after = (_joined(pair[side]["shape"] for pair in pairs) for side in (0, 1))
    if before is not None and after is not None:
        return shape.compare(before, after)
    if before is not None:
        return [shape.Difference("type", "$", "the answer is not JSON any more", True)]
    return []


def _joined(shapes: t.Iterable[JsonDict | None]) -> JsonDict | None:
    whole: JsonDict | None = None
    for one in shapes:
        if one is not None:
            whole = one if whole is None else shape.join(whole, one)
    return whole


def _headers(status: int, pairs: t.Sequence[tuple[JsonDict, JsonDict]]) -> list[tuple[str, str, str, bool]]:
    """Only what every answer had before counts as a promise."""
    before, after = ([pair[side]["headers"] for pair in pairs] for side in (0, 1))
    found: list[tuple[str, str, str, bool]] = []
    for name in sorted(set.intersection(*map(set, before))):
        where = f"header {name}"
        was, now = {one[name] for one in before}, {one.get(name) for one in after}
        if None in now:
            found.append(("header", where, f"header {name} is gone from answers with status {status}", True))
        elif len(was) == 1 and not now <= was:
            words = f"header {name} is {', '.join(sorted(str(one) for one in now - was))!r} now; it was {next(iter(was))!r}"
            found.append(("header", where, words, True))
    fresh = set.intersection(*map(set, after)) - set.union(*map(set, before))
    found += [("header", f"header {name}", f"header {name} is new", False) for name in sorted(fresh)]
    return found


def slower(before: t.Sequence[JsonDict], after: t.Sequence[JsonDict], factor: float) -> list[JsonDict]:
    """Operations that became slow, by the quickest answer now and the slowest before: one bad moment is not a difference."""
    times: dict[str, tuple[list[float], list[float]]] = {}
    for old, new in zip(before, after):
        if old["status"] is not None and old["status"] == new["status"]:
            was, now = times.setdefault(old["operation"], ([], []))
            was += old["ms"]
            now += new["ms"]
    found = []
    for operation, (was, now) in times.items():
        if was and now and min(now) > factor * max(was) and min(now) > max(was) + SLOWER_MS:
            words = f"takes at least {min(now):.0f} ms now; it took at most {max(was):.0f} ms"
            found.append(difference(operation, "latency", "latency", words, True))
    return found
