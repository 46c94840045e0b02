# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Silences that are ours: found again by who made them and why, never by what they match."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._core.errors import InputError
from .readers import JsonDict, moment

_EVERYTHING = ("", ".*", ".+", "^.*$", "^.+$")


@dataclasses.dataclass(frozen=True)
class Step:
    """What has to be done: ``create``, ``extend`` (``id``), ``expire`` (``ids``) or ``keep``. ``body`` is for the API."""

    action: str
    ids: tuple[str, ...] = ()
    body: JsonDict | None = None


def matchers(wanted: t.Iterable[t.Mapping[str, t.Any]]) -> list[JsonDict]:
    """As the API has them, sorted. Raises InputError for none, and for such that would match every alert."""
    result = [
        {
            "name": str(m["name"]),
            "value": str(m["value"]),
            "isRegex": bool(m.get("regex")),
            "isEqual": m.get("equal") is not False,
        }
        for m in wanted
    ]
    narrow = [m for m in result if m["isEqual"] and m["value"] not in (_EVERYTHING if m["isRegex"] else ("",))]
    if not narrow:
        raise InputError("a silence needs at least one matcher that picks out something: {name: instance, value: val1}")
    return sorted(result, key=lambda m: (m["name"], m["value"]))


def _same(silence: JsonDict, wanted: list[JsonDict]) -> bool:
    have = [{**m, "isEqual": m.get("isEqual", True)} for m in silence.get("matchers", [])]
    return sorted(have, key=lambda m: (m["name"], m["value"])) == wanted


def ours(silences: t.Iterable[JsonDict], created_by: str, comment: str, silence_id: str | None) -> list[JsonDict]:
    """Not expired, and made by us for this reason (or with this id)."""
    return [
        s
        for s in silences
        if s.get("status", {}).get("state") != "expired"
        and (s.get("id") == silence_id if silence_id else s.get("createdBy") == created_by and s.get("comment") == comment)
    ]


def present(
    silences: t.Iterable[JsonDict], wanted: list[JsonDict], created_by: str, comment: str, duration: float, now: float
) -> Step:
    """Keep one that still lasts for half of ``duration`` (seconds), else extend it, else create one."""
    body: JsonDict = {
        "matchers": wanted,
        "startsAt": _stamp(now),
        "endsAt": _stamp(now + duration),
        "createdBy": created_by,
        "comment": comment,
    }
    for silence in ours(silences, created_by, comment, None):
        if _same(silence, wanted):
            if moment(str(silence["endsAt"])) - now >= duration / 2:
                return Step("keep", (str(silence["id"]),))
            return Step("extend", (str(silence["id"]),), {**body, "id": silence["id"], "startsAt": silence["startsAt"]})
    return Step("create", (), body)


def _stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
