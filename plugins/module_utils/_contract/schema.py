# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON against a schema of OpenAPI 3.0 (and the parts of 3.1 that matter here).

Covered: type (also a list), nullable, enum, const, properties, required, additionalProperties, items, min/max of numbers,
lengths, items and properties, multipleOf, uniqueItems, pattern, allOf, anyOf, oneOf, not, $ref within the document. ``format``
is an annotation. A keyword that constrains and isn't covered is an error of the document, never a silent pass.
"""

from __future__ import annotations

import re
import typing as t

from .._core import canonical
from .._core.errors import IntegrityError

JsonDict = t.Dict[str, t.Any]
_TYPES: dict[str, t.Callable[[t.Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "integer": lambda v: not isinstance(v, bool) and (isinstance(v, int) or (isinstance(v, float) and v.is_integer())),
}
_NOTES = frozenset(
    {"title", "description", "default", "example", "examples", "format", "deprecated", "readOnly", "writeOnly", "xml"}
    | {"externalDocs", "discriminator", "contentEncoding", "contentMediaType", "$comment", "$schema", "$id"}
)
_MAX_DEPTH = 100
_MAX_PROBLEMS = 50


def resolve(document: JsonDict, node: t.Any) -> JsonDict:
    """Follow ``$ref`` within the document. Raises IntegrityError for one that leads nowhere, round in circles, or outside."""
    seen: set[str] = set()
    while isinstance(node, dict) and "$ref" in node:
        ref = node["$ref"]
        if not isinstance(ref, str) or not ref.startswith("#/") or ref in seen:
            raise IntegrityError(f"the OpenAPI document has a reference that can't be followed: {ref!r}")
        seen.add(ref)
        node = document
        for part in ref[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, dict) or key not in node:
                raise IntegrityError(f"the OpenAPI document refers to {ref!r}, which it doesn't have")
            node = node[key]
    if isinstance(node, bool):
        return {} if node else {"not": {}}
    if not isinstance(node, dict):
        raise IntegrityError(f"the OpenAPI document has {str(node)[:80]!r} where an object is needed")
    return node


def problems(document: JsonDict, schema: t.Any, value: t.Any) -> list[str]:
    """What is wrong with ``value``, each as ``$.path: words``; at most 50."""
    found: list[str] = []
    _check(document, schema, value, "$", found, 0)
    return found[:_MAX_PROBLEMS]


def _ok(document: JsonDict, schema: t.Any, value: t.Any, depth: int) -> bool:
    found: list[str] = []
    _check(document, schema, value, "$", found, depth)
    return not found


def _check(document: JsonDict, raw: t.Any, value: t.Any, where: str, found: list[str], depth: int) -> None:
    if depth > _MAX_DEPTH or len(found) >= _MAX_PROBLEMS:
        return
    schema = resolve(document, raw)
    if value is None and schema.get("nullable") is True:
        return
    wanted = schema.get("type")
    types = [wanted] if isinstance(wanted, str) else list(wanted or [])
    if types and not any(_TYPES.get(name, lambda v: False)(value) for name in types):
        found.append(f"{where}: is {kind(value)}, should be {' or '.join(types)}")
        return
    for key, limit in schema.items():
        if key in _RULES:
            words = _RULES[key](limit, value, schema)
            if words:
                found.append(f"{where}: {words}")
        elif key not in _NESTED and key not in _NOTES and not key.startswith("x-"):
            raise IntegrityError(f"the OpenAPI document uses {key!r} in a schema, which is not supported here")
    _nested(document, schema, value, where, found, depth + 1)


def _nested(document: JsonDict, schema: JsonDict, value: t.Any, where: str, found: list[str], depth: int) -> None:
    for part in schema.get("allOf", []):
        _check(document, part, value, where, found, depth)
    if "anyOf" in schema and not any(_ok(document, part, value, depth) for part in schema["anyOf"]):
        found.append(f"{where}: fits none of the alternatives")
    if "oneOf" in schema:
        fits = sum(_ok(document, part, value, depth) for part in schema["oneOf"])
        if fits != 1:
            found.append(f"{where}: fits {fits} of the alternatives, should fit exactly one")
    if "not" in schema and _ok(document, schema["not"], value, depth):
        found.append(f"{where}: is what it must not be")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            _check(document, schema["items"], item, f"{where}[{i}]", found, depth)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name, part in known.items():
            if name in value:
                _check(document, part, value[name], f"{where}.{name}", found, depth)
        rest = schema.get("additionalProperties", True)
        for name in value:
            if name not in known and rest is not True:
                if rest is False:
                    found.append(f"{where}.{name}: is not in the contract")
                else:
                    _check(document, rest, value[name], f"{where}.{name}", found, depth)


def kind(value: t.Any) -> str:
    """The JSON type of a value; ``integer`` for whole numbers that are written as such."""
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    return {int: "integer", float: "number", str: "string", list: "array", dict: "object"}[type(value)]


def _bound(words: str, fits: t.Callable[[t.Any, t.Any], bool]) -> t.Callable[[t.Any, t.Any, JsonDict], str]:
    def rule(limit: t.Any, value: t.Any, schema: JsonDict) -> str:
        return "" if not _TYPES["number"](value) or fits(value, limit) else f"{value} is {words} {limit}"

    return rule


def _edge(kinds: type[t.Sized], words: str, fits: t.Callable[[int, int], bool]) -> t.Callable[[t.Any, t.Any, JsonDict], str]:
    def rule(limit: t.Any, value: t.Any, schema: JsonDict) -> str:
        return "" if not isinstance(value, kinds) or fits(len(value), limit) else f"has length {len(value)}, {words} {limit}"

    return rule


def _exclusive(edge: str, fits: t.Callable[[t.Any, t.Any], bool]) -> t.Callable[[t.Any, t.Any, JsonDict], str]:
    def rule(limit: t.Any, value: t.Any, schema: JsonDict) -> str:
        if isinstance(limit, bool):  # 3.0: a switch beside minimum or maximum
            limit = schema.get(edge) if limit else None
        if limit is None or not _TYPES["number"](value) or fits(value, limit):
            return ""
        return f"{value} is not beyond {limit}"

    return rule


def _missing(names: t.Any, value: t.Any, schema: JsonDict) -> str:
    gone = [name for name in names if name not in value] if isinstance(value, dict) else []
    return f"lacks {', '.join(map(repr, gone))}" if gone else ""


def _same(a: t.Any, b: t.Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


_RULES: dict[str, t.Callable[[t.Any, t.Any, JsonDict], str]] = {
    "enum": lambda limit, v, s: "" if any(_same(v, one) for one in limit) else f"is {str(v)[:60]!r}, not one of {limit}",
    "const": lambda limit, v, s: "" if _same(v, limit) else f"is {str(v)[:60]!r}, not {limit!r}",
    "minimum": _bound("less than", lambda v, limit: v >= limit),
    "maximum": _bound("more than", lambda v, limit: v <= limit),
    "exclusiveMinimum": _exclusive("minimum", lambda v, limit: v > limit),
    "exclusiveMaximum": _exclusive("maximum", lambda v, limit: v < limit),
    "multipleOf": _bound("not a multiple of", lambda v, limit: (v / limit) % 1 == 0),
    "minLength": _edge(str, "less than", lambda n, limit: n >= limit),
    "maxLength": _edge(str, "more than", lambda n, limit: n <= limit),
    "minItems": _edge(list, "less than", lambda n, limit: n >= limit),
    "maxItems": _edge(list, "more than", lambda n, limit: n <= limit),
    "minProperties": _edge(dict, "less than", lambda n, limit: n >= limit),
    "maxProperties": _edge(dict, "more than", lambda n, limit: n <= limit),
    "pattern": lambda limit, v, s: (
        "" if not isinstance(v, str) or re.search(limit, v) else f"{v[:60]!r} does not match {limit!r}"
    ),
    "uniqueItems": lambda limit, v, s: (
        "has the same item twice" if limit and isinstance(v, list) and len({canonical.dumps(i) for i in v}) < len(v) else ""
    ),
    "required": _missing,
}
_NESTED = frozenset({"type", "nullable", "properties", "additionalProperties", "items", "allOf", "anyOf", "oneOf", "not", "$ref"})
