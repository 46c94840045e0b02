# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two OpenAPI documents of one API, the old and the new: what an old client would run into. Pure.

An answer may become narrower and never wider: a client must understand all that can come. A request may become wider and never
narrower: what a client sends must go on being taken. Writes are compared like reads; nothing is sent.
"""

from __future__ import annotations

import re
import typing as t

from .._core import canonical
from .._core.errors import IntegrityError
from . import schema
from .schema import JsonDict

_VERBS = ("get", "head", "options", "post", "put", "patch", "delete", "trace")
_ALL = frozenset({"object", "array", "string", "boolean", "null", "number"})
_MAX_DEPTH, _MAX_STEPS = 40, 20_000
Trail = t.Tuple[t.Tuple[str, str], ...]

#: Limits, and whether a larger number lets more through.
_LIMITS = {
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), True),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), False),
}


class Change(t.NamedTuple):
    """``kind``: removed, added, type, null, enum, parameter, narrowed. ``where``: ``$.field`` of a body, or ``operation``,
    ``response 404``, ``content TYPE``, ``header NAME``, ``parameter NAME``, ``request $.field``."""

    operation: str
    kind: str
    where: str
    words: str
    breaking: bool


def compare(old: JsonDict, new: JsonDict) -> list[Change]:
    """Every change, breaking ones and others. Raises IntegrityError for references that lead nowhere."""
    before, after = _operations(old), _operations(new)
    found: list[Change] = []
    for key, (label, path, raw) in before.items():
        if key not in after:
            found.append(Change(label, "removed", "operation", f"{label} was in the document and is not any more", True))
            continue
        _Pair(old, new, label, found).operation(path, raw, after[key][1], after[key][2])
    for key, (label, _path, _raw) in after.items():
        if key not in before:
            found.append(Change(label, "added", "operation", f"{label} is new in the document", False))
    return list(dict.fromkeys(found))


def _operations(document: JsonDict) -> dict[tuple[str, str], tuple[str, str, JsonDict]]:
    """By verb and path, whatever the path calls its parameters: (label, path, operation with the path's parameters)."""
    found: dict[tuple[str, str], tuple[str, str, JsonDict]] = {}
    for path, raw in sorted((document.get("paths") or {}).items()):
        item = schema.resolve(document, raw)
        for verb in _VERBS:
            if verb in item:
                operation = schema.resolve(document, item[verb])
                parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
                key = (verb, re.sub(r"\{[^}]*\}", "{}", path))
                found[key] = (f"{verb.upper()} {path}", path, {**operation, "parameters": parameters})
    return found


class _Pair:
    """One operation in both documents."""

    def __init__(self, old: JsonDict, new: JsonDict, label: str, found: list[Change], steps: int = 0) -> None:
        self.steps = steps
        self.old = old
        self.new = new
        self.label = label
        self.found = found

    def say(self, kind: str, where: str, words: str, breaking: bool) -> None:
        self.found.append(Change(self.label, kind, where, words, breaking))

    def operation(self, old_path: str, old: JsonDict, new_path: str, new: JsonDict) -> None:
        self._parameters(_parameters(self.old, old_path, old), _parameters(self.new, new_path, new))
        self._request(old.get("requestBody"), new.get("requestBody"))
        before, after = old.get("responses") or {}, new.get("responses") or {}
        for code in sorted(map(str, before)):
            match = after.get(code, after.get(f"{code[0]}XX", after.get("default")))
            if match is None:
                self.say("removed", f"response {code}", f"response {code} is not in the document any more", code[0] in "2d")
            else:
                self._response(code, schema.resolve(self.old, before[code]), schema.resolve(self.new, match))
        for code in sorted(set(map(str, after)) - set(map(str, before))):
            known = f"{code[0]}XX" in before or "default" in before
            # A client that knows no other success takes the new one for something else.
            breaking = code.startswith("2") and not known
            self.say("added", f"response {code}", f"response {code} is new in the document", breaking)

    def _response(self, code: str, old: JsonDict, new: JsonDict) -> None:
        before, after = old.get("content") or {}, new.get("content") or {}
        for kind in sorted(before):
            if kind not in after:
                self.say("removed", f"content {kind}", f"response {code} is not {kind} any more", True)
            else:
                self._answer(f"in response {code}", before[kind].get("schema"), after[kind].get("schema"), "$", ())
        for kind in sorted(set(after) - set(before)):
            self.say("added", f"content {kind}", f"response {code} can be {kind} now", False)
        headers = {name.lower(): one for name, one in (new.get("headers") or {}).items()}
        for name in sorted(old.get("headers") or {}):
            if name.lower() not in headers:
                self.say("removed", f"header {name}", f"response {code} has no header {name} any more", True)

    def _parameters(self, old: dict[tuple[str, str], JsonDict], new: dict[tuple[str, str], JsonDict]) -> None:
        for key, one in old.items():
            name = one.get("name", key[1])
            where = f"parameter {name}"
            if key not in new:
                self.say("removed", where, f"{key[0]} parameter {name} is gone; what a client asks with it may be ignored", True)
                continue
            if _required(new[key]) and not _required(one):
                self.say("parameter", where, f"{key[0]} parameter {name} is required now", True)
            self._taken(where, one.get("schema"), new[key].get("schema"), ())
        for key in sorted(set(new) - set(old)):
            name, must = new[key].get("name", key[1]), _required(new[key])
            words = f"{key[0]} parameter {name} is new" + (" and required" if must else "")
            self.say("parameter" if must else "added", f"parameter {name}", words, must)

    def _request(self, old: t.Any, new: t.Any) -> None:
        before = schema.resolve(self.old, old) if old is not None else None
        after = schema.resolve(self.new, new) if new is not None else None
        if after is None:
            if before is not None:
                self.say("removed", "request $", "the request takes no body any more", True)
            return
        if after.get("required") and not (before or {}).get("required"):
            self.say("parameter", "request $", "the request needs a body now", True)
        kinds = (before or {}).get("content") or {}
        for kind in sorted(kinds):
            if kind not in (after.get("content") or {}):
                self.say("removed", f"content {kind}", f"the request can't be {kind} any more", True)
            else:
                self._taken("request $", kinds[kind].get("schema"), after["content"][kind].get("schema"), ())

    # -- schemas ---------------------------------------------------------------------------------------------------------

    def _answer(self, place: str, raw_old: t.Any, raw_new: t.Any, where: str, trail: Trail) -> None:
        """All that can come must have been possible before."""
        opened = self._open(raw_old, raw_new, trail)
        if opened is None:
            return
        old, new, trail = opened
        was, now = _types(old), _types(new)
        if "null" in now and "null" not in was:
            self.say("null", where, f"{where} can be null now ({place})", True)
        if _wider(now - {"null"}, was):
            self.say("type", where, f"{where} can be {_list(now - {'null'})} now; it was {_list(was)} ({place})", True)
            return
        grown = _lost(_values(new), _values(old))
        if grown:
            self.say("enum", where, f"{where} can be {grown} now ({place})", True)
        for key in ("anyOf", "oneOf"):
            for alternative in new.get(key, []):
                if key in old and not any(self._fits(one, alternative, "_answer", place, trail) for one in old[key]):
                    self.say("type", where, f"{where} has an alternative that it didn't have ({place})", True)
            if key in new and key not in old and any(not self._fits(raw_old, one, "_answer", place, trail) for one in new[key]):
                self.say("type", where, f"{where} can be one of several things now ({place})", True)
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in sorted(before):
            inner, must = f"{where}.{name}", name in old.get("required", ())
            if name not in after:
                self.say("removed", inner, f"{inner} is gone{'' if must else ' (it was optional)'} ({place})", True)
                continue
            if must and name not in new.get("required", ()):
                self.say("removed", inner, f"{inner} is not always there any more ({place})", True)
            self._answer(place, before[name], after[name], inner, trail)
        for name in sorted(set(after) - set(before)):
            closed = old.get("additionalProperties") is False
            self.say("added", f"{where}.{name}", f"{where}.{name} is new ({place})", closed)
        rest, later = old.get("additionalProperties"), new.get("additionalProperties")
        if isinstance(rest, dict):
            self._answer(place, rest, later if later is not None else True, f"{where}.*", trail)
        if "items" in old or "items" in new:
            self._answer(place, old.get("items", {}), new.get("items", {}), f"{where}[]", trail)

    def _taken(self, where: str, raw_old: t.Any, raw_new: t.Any, trail: Trail) -> None:
        """All that a client sent must be taken still."""
        opened = self._open(raw_old, raw_new, trail)
        if opened is None:
            return
        old, new, trail = opened
        was, now = _types(old), _types(new)
        if "null" in was and "null" not in now:
            self.say("null", where, f"{where} can't be null any more", True)
        if _wider(was - {"null"}, now):
            self.say("type", where, f"{where} must be {_list(now)} now; it could be {_list(was)}", True)
            return
        if _lost(_values(old), _values(new)):
            allowed = ", ".join(map(repr, _values(new) or ()))
            self.say("enum", where, f"{where} must be one of {allowed} now", True)
        for key in ("anyOf", "oneOf"):
            if key in new and not all(
                any(self._fits(one, other, "_taken", where, trail) for other in new[key]) for one in old.get(key, [raw_old])
            ):
                self.say("type", where, f"{where} lacks an alternative that it had", True)
        for name, more in _LIMITS.items():
            if _tighter(old.get(name), new.get(name), more):
                self.say("narrowed", where, f"{where}: {name} is {new[name]} now; it was {old.get(name, 'not limited')}", True)
        if new.get("pattern") is not None and new.get("pattern") != old.get("pattern"):
            self.say("narrowed", where, f"{where}: must match another pattern now ({new['pattern']!r})", True)
        if new.get("uniqueItems") and not old.get("uniqueItems"):
            self.say("narrowed", where, f"{where}: must not have the same item twice now", True)
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            self.say("parameter", f"{where}.{name}", f"{where}.{name} is required now", True)
        for name in sorted(before):
            if name in after:
                self._taken(f"{where}.{name}", before[name], after[name], trail)
            else:
                closed = new.get("additionalProperties") is False
                self.say("removed", f"{where}.{name}", f"{where}.{name} is gone", closed)
        if "items" in old or "items" in new:
            self._taken(f"{where}[]", old.get("items", {}), new.get("items", {}), trail)

    def _open(self, old: t.Any, new: t.Any, trail: Trail) -> tuple[JsonDict, JsonDict, Trail] | None:
        """Both schemas flat, and the way to here; None where there is nothing to compare, or it is being compared further up."""
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise IntegrityError(f"{self.label}: the OpenAPI document's schemas are too entangled to compare")
        pair = _refs(old, new)
        if pair in trail or len(trail) > _MAX_DEPTH or (old is None and new is None):
            return None
        return flat(self.old, old), flat(self.new, new), (*trail, pair or ("", str(len(trail))))

    def _fits(self, old: t.Any, new: t.Any, way: str, place: str, trail: Trail) -> bool:
        """Whether one alternative goes for another without anything breaking."""
        found: list[Change] = []
        pair = _Pair(self.old, self.new, self.label, found, self.steps)
        if way == "_answer":
            pair._answer(place, old, new, "$", trail)
        else:
            pair._taken(place, old, new, trail)
        self.steps = pair.steps
        return not any(one.breaking for one in found)


def _refs(old: t.Any, new: t.Any) -> tuple[str, str] | None:
    """What both refer to: a pair that comes again further down is a tree of itself."""
    both = isinstance(old, dict) and isinstance(new, dict) and "$ref" in old and "$ref" in new
    return (str(old["$ref"]), str(new["$ref"])) if both else None


def flat(document: JsonDict, raw: t.Any) -> JsonDict:
    """A schema without references and ``allOf``: what all of its parts say together. ``True`` and nothing at all allow all."""
    return _flat(document, raw, 0)


def _flat(document: JsonDict, raw: t.Any, depth: int) -> JsonDict:
    one = schema.resolve(document, {} if raw is None else raw)
    if "allOf" not in one or depth > _MAX_DEPTH:
        return one
    whole = {key: value for key, value in one.items() if key != "allOf"}
    for part in one["allOf"]:
        other = _flat(document, part, depth + 1)
        types = _types(whole) & _types(other)
        enums = [e for e in (whole.get("enum"), other.get("enum")) if isinstance(e, list)]
        whole = {
            **other,
            **whole,
            "properties": {**other.get("properties", {}), **whole.get("properties", {})},
            "required": sorted({*other.get("required", ()), *whole.get("required", ())}),
            "type": sorted(types) if types != _ALL else sorted(_ALL),
        }
        whole.pop("nullable", None)
        if len(enums) > 1:
            whole["enum"] = [one for one in enums[0] if one in enums[1]]
    return whole


def _types(one: JsonDict) -> frozenset[str]:
    """Which types a flat schema lets through; ``integer`` is a kind of its own, below ``number``."""
    wanted = one.get("type")
    if "const" in one and wanted is None:
        return frozenset({schema.kind(one["const"])})
    if wanted is None:
        found = {schema.kind(value) for value in one["enum"]} if isinstance(one.get("enum"), list) and one["enum"] else set(_ALL)
    else:
        found = {wanted} if isinstance(wanted, str) else set(wanted)
    return frozenset(found | ({"null"} if one.get("nullable") is True else set()))


def _wider(some: t.AbstractSet[str], limit: t.AbstractSet[str]) -> bool:
    """Whether ``some`` has what ``limit`` hasn't."""
    return any(kind not in limit and not (kind == "integer" and "number" in limit) for kind in some)


def _list(types: t.AbstractSet[str]) -> str:
    return "anything" if types >= _ALL - {"null"} else " or ".join(sorted(types)) or "nothing"


def _values(one: JsonDict) -> list[t.Any] | None:
    """The only values there are; None where any will do."""
    if "const" in one:
        return [one["const"]]
    return one["enum"] if isinstance(one.get("enum"), list) else None


def _lost(before: t.Any, after: t.Any) -> str:
    """Which values of ``before`` are not in ``after``, in words; ``before`` None is any value, ``after`` None takes all."""
    if not isinstance(after, list):
        return ""
    if not isinstance(before, list):
        return "anything"
    known = [canonical.dumps(value) for value in after]
    return ", ".join(repr(value) for value in before if canonical.dumps(value) not in known)


def _tighter(old: t.Any, new: t.Any, more: bool) -> bool:
    if new is None or new == old:
        return False
    if isinstance(new, bool) or isinstance(old, bool):  # 3.0: a switch beside minimum or maximum
        return new is True
    return old is None or (new < old if more else new > old)


def _required(parameter: JsonDict) -> bool:
    return bool(parameter.get("required")) or parameter.get("in") == "path"


def _parameters(document: JsonDict, path: str, operation: JsonDict) -> dict[tuple[str, str], JsonDict]:
    """By place and name; those of the path by their position, so that another name there is no change."""
    positions = {name: str(i) for i, name in enumerate(re.findall(r"\{([^}]+)\}", path))}
    found: dict[tuple[str, str], JsonDict] = {}
    for raw in operation["parameters"]:
        one = schema.resolve(document, raw)
        place, name = str(one.get("in")), str(one.get("name"))
        found[(place, positions.get(name, name) if place == "path" else name.lower() if place == "header" else name)] = one
    return found
