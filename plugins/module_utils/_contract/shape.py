# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of JSON: which fields, of which types, may be null, which words, in which order. Shapes of several answers are
joined; two can be compared.

A shape is JSON itself, so that a witness can be kept in a file: ``{"types": [...], "fields": {name: shape}, "optional": [...],
"items": shape, "order": {field: ["rising" | "falling" | "mixed", different values]}, "words": [...]}``. Objects that use
identifiers as keys (addresses, hashes, numbers) have one field, ``*``. ``order`` is of a list's items, by each of their fields,
or by themselves under the name ``""``. ``words`` are there only where the document says that there are only so many.
"""

from __future__ import annotations

import re
import typing as t

from .schema import JsonDict, kind, resolve

#: Different values that a list must have had in order, before that order counts as one: by chance it is one in 40,320.
ORDERED = 8
_MAX_DEPTH = 100

_IDENTIFIER = re.compile(r"(?:0x)?[0-9a-fA-F]{16,}|\d+|[A-Za-z]{2,8}[0-9A-Za-z]{24,}")


def of(value: t.Any) -> JsonDict:
    """The shape of one value."""
    shape: JsonDict = {"types": [kind(value)]}
    if isinstance(value, dict):
        fields: dict[str, JsonDict] = {}
        for name, inner in value.items():
            key = "*" if _IDENTIFIER.fullmatch(name) else name
            fields[key] = join(fields[key], of(inner)) if key in fields else of(inner)
        shape["fields"], shape["optional"] = fields, []
    elif isinstance(value, list):
        items: JsonDict | None = None
        for inner in value:
            items = of(inner) if items is None else join(items, of(inner))
        if items is not None:
            shape["items"] = items
        order = _order(value)
        if order:
            shape["order"] = order
    return shape


def _order(items: t.Sequence[t.Any]) -> dict[str, list[t.Any]]:
    """By which fields the items are in order, and by which they are not; nothing of fields with a single value."""
    rows = items if all(isinstance(one, dict) for one in items) else [{"": one} for one in items]
    found: dict[str, list[t.Any]] = {}
    for name in rows[0] if rows else ():
        if _IDENTIFIER.fullmatch(name):
            continue
        column: list[t.Any] = [row.get(name) for row in rows]
        kinds = {"number" if k in ("integer", "number") else k for k in map(kind, column)}
        if kinds not in ({"number"}, {"string"}):
            continue
        different = len(set(column))
        if different > 1:
            rising = column == sorted(column)
            falling = column == sorted(column, reverse=True)
            found[name] = ["rising" if rising else "falling" if falling else "mixed", different]
    return found


def _one_order(a: JsonDict, b: JsonDict) -> JsonDict:
    joined: JsonDict = {**a, **b}
    for name in {*a} & {*b}:
        joined[name] = [a[name][0] if a[name][0] == b[name][0] else "mixed", max(a[name][1], b[name][1])]
    return joined


def join(a: JsonDict, b: JsonDict) -> JsonDict:
    """The shape that both fit."""
    shape: JsonDict = {"types": sorted({*a["types"], *b["types"]})}
    if "fields" in a and "fields" in b:
        names = sorted({*a["fields"], *b["fields"]})
        shape["fields"] = {
            n: join(a["fields"][n], b["fields"][n])
            if n in a["fields"] and n in b["fields"]
            else (a["fields"].get(n) or b["fields"][n])
            for n in names
        }
        shape["optional"] = sorted(
            {*a.get("optional", []), *b.get("optional", []), *(n for n in names if n not in a["fields"] or n not in b["fields"])}
        )
    elif "fields" in a or "fields" in b:
        one = a if "fields" in a else b
        shape["fields"], shape["optional"] = one["fields"], one.get("optional", [])
    if "items" in a or "items" in b:
        shape["items"] = join(a["items"], b["items"]) if "items" in a and "items" in b else a.get("items") or b["items"]
    if "order" in a or "order" in b:
        shape["order"] = _one_order(a.get("order", {}), b.get("order", {}))
    if "words" in a or "words" in b:
        shape["words"] = sorted({*a.get("words", []), *b.get("words", [])})
    return shape


def of_answer(document: JsonDict, schema: t.Any, value: t.Any) -> JsonDict:
    """The shape of an answer, with the words that it used where the document lists which there are."""
    shape = of(value)
    _note(document, schema, value, shape, 0)
    return shape


def _note(document: JsonDict, schema: t.Any, value: t.Any, shape: JsonDict, depth: int) -> None:
    if depth > _MAX_DEPTH:
        return
    rule = resolve(document, schema)
    if isinstance(value, str) and isinstance(rule.get("enum"), list):
        shape["words"] = sorted({*shape.get("words", []), value})
    if isinstance(value, dict):
        known, rest = rule.get("properties", {}), rule.get("additionalProperties", True)
        for name, inner in value.items():
            key = "*" if _IDENTIFIER.fullmatch(name) else name
            _note(document, known.get(name, rest), inner, shape["fields"][key], depth + 1)
    if isinstance(value, list) and "items" in rule:
        for inner in value:
            _note(document, rule["items"], inner, shape["items"], depth + 1)
    for part in (one for key in ("allOf", "anyOf", "oneOf") for one in rule.get(key, [])):
        _note(document, part, value, shape, depth + 1)


def promised(document: JsonDict, schema: t.Any, seen: JsonDict) -> JsonDict:
    """``seen``, widened to what the document promises: fractions where it says ``number``, null where it allows null, every word
    that it lists.

    What was seen once is a narrow witness: the sum of an empty mempool is 0 and looks like an integer, the document knows better.
    """
    rule = resolve(document, schema)
    wide = dict(seen)
    wanted = rule.get("type")
    names = [wanted] if isinstance(wanted, str) else list(wanted or [])
    if "number" in names and "integer" in seen["types"]:
        wide["types"] = sorted({*wide["types"], "number"} - {"integer"})
    if "null" in names or rule.get("nullable") is True:
        wide["types"] = sorted({*wide["types"], "null"})
    if isinstance(rule.get("enum"), list) and "words" in seen:
        wide["words"] = sorted({*seen["words"], *(one for one in rule["enum"] if isinstance(one, str))})
    if "fields" in seen:
        known, rest = rule.get("properties", {}), rule.get("additionalProperties", True)
        wide["fields"] = {n: promised(document, known.get(n, rest), one) for n, one in seen["fields"].items()}
    if "items" in seen and "items" in rule:
        wide["items"] = promised(document, rule["items"], seen["items"])
    for part in (one for key in ("allOf", "anyOf", "oneOf") for one in rule.get(key, [])):
        wide = promised(document, part, wide)
    return wide


class Difference(t.NamedTuple):
    """``kind``: removed, added, type, null, empty, enum, order. ``breaking`` is False for what old clients don't notice."""

    kind: str
    path: str
    words: str
    breaking: bool


def compare(before: JsonDict, after: JsonDict, path: str = "$") -> list[Difference]:
    """What is different in ``after``. A whole number where any number was is no difference; the other way round is one."""
    found: list[Difference] = []
    old, new = set(before["types"]), set(after["types"])
    if "null" in new and "null" not in old:
        found.append(Difference("null", path, f"{path} can be null now; it was {_words(old)}", True))
    fresh = new - old - {"null"}
    if "number" in old:
        fresh.discard("integer")
    if fresh and old != {"null"}:
        found.append(Difference("type", path, f"{path} is {_words(fresh)} now; it was {_words(old)}", True))
    elif fresh:
        found.append(Difference("type", path, f"{path} is {_words(fresh)} now; it was always null", False))
    if "fields" in before and "fields" in after:
        for name in sorted({*before["fields"], *after["fields"]}):
            inner = f"{path}.{name}"
            if name not in after["fields"]:
                if name != "*":
                    sometimes = name in before.get("optional", [])
                    words = f"{inner} is gone{' (it was not always there)' if sometimes else ''}"
                    found.append(Difference("removed", inner, words, not sometimes))
            elif name not in before["fields"]:
                found.append(Difference("added", inner, f"{inner} is new", False))
            else:
                if name in after.get("optional", []) and name not in before.get("optional", []):
                    found.append(Difference("removed", inner, f"{inner} is not always there any more", True))
                found.extend(compare(before["fields"][name], after["fields"][name], inner))
    fresh_words = sorted({*after.get("words", [])} - {*before["words"]}) if "words" in before else []
    if fresh_words:
        listed, known = ", ".join(map(repr, fresh_words)), ", ".join(map(repr, before["words"]))
        found.append(Difference("enum", path, f"{path} can be {listed} now; it was one of {known}", True))
    for name, (was, different) in sorted(before.get("order", {}).items()):
        now = after.get("order", {}).get(name)
        if was != "mixed" and different >= ORDERED and now is not None and now[0] != was:
            by = f" by {name}" if name else ""
            found.append(Difference("order", path, f"{path} is {_ORDERS[now[0]]}{by} now; it was {_ORDERS[was]}", True))
    if "items" in before and "items" in after:
        found.extend(compare(before["items"], after["items"], f"{path}[]"))
    elif "items" in before and "array" in new:
        found.append(Difference("empty", path, f"{path} is empty now; it had items", False))
    return found


_ORDERS = {"rising": "in rising order", "falling": "in falling order", "mixed": "in no order"}


def _words(types: t.Iterable[str]) -> str:
    return " or ".join(sorted(types))
