# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which series a PromQL expression reads, and how far back: enough of the language to tell a rule that can't ever fire, and a
query whose samples are older than they look.

Grammar: the query language of Prometheus 2.x (vector selectors, aggregations with ``by``/``without``, vector matching).
"""

from __future__ import annotations

import math
import re
import typing as t

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
      | (?P<comment>\#[^\n]*)
      | (?P<number>(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?:ms|[smhdwy])?(?:\d+(?:ms|[smhdwy]))*|\.\d+))
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<mark>[{}()\[\],])
      | (?P<other>\s+|.)""",
    re.VERBOSE,
)
_AGGREGATIONS = frozenset(
    {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk", "topk", "quantile", "limitk"}
)
_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan", "start", "end"})
_ABSENT = frozenset({"absent", "absent_over_time"})
#: Made by Prometheus itself, and missing whenever all is well.
_OWN = frozenset({"ALERTS", "ALERTS_FOR_STATE"})


def selectors(expression: str) -> tuple[str, ...]:
    """The instant-vector selectors of an expression, sorted, each once. Those that are expected to be absent don't count."""
    tokens = [
        (m.lastgroup or "", m.group())
        for m in _TOKEN.finditer(expression)
        if m.lastgroup != "comment" and not (m.lastgroup == "other" and m.group().isspace())
    ]
    found: set[str] = set()
    calls: list[str] = []
    i = 0

    def peek(at: int) -> str:
        return tokens[at][1] if at < len(tokens) else ""

    while i < len(tokens):
        kind, text = tokens[i]
        if text == "[":
            i = _close(tokens, i, "[", "]")
        elif text == "(":
            calls.append("")
        elif text == ")":
            calls = calls[:-1]
        elif text == "{":
            end = _close(tokens, i, "{", "}")
            _add(found, "", tokens[i : end + 1], calls)
            i = end
        elif kind == "name":
            low = text.lower()
            if low in _LABEL_LISTS and peek(i + 1) == "(":
                i = _close(tokens, i + 1, "(", ")")
            elif peek(i + 1) == "(":
                calls.append(low)
                i += 1
            elif low in _WORDS or low in _LABEL_LISTS or (low in _AGGREGATIONS and peek(i + 1).lower() in ("by", "without")):
                pass
            elif peek(i + 1) == "{":
                end = _close(tokens, i + 1, "{", "}")
                _add(found, text, tokens[i + 1 : end + 1], calls)
                i = end
            else:
                _add(found, text, [], calls)
        i += 1
    return tuple(sorted(found))


_RANGE = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*(?:\]|:)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_COUNTER = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*_(?:total|count|sum|bucket))\b(?!\s*\()")
_SELECTED = re.compile(r"\s*(?:\{[^{}]*\})?\s*\[")


def _bare(expression: str) -> str:
    """Without strings, which may hold anything, and comments."""
    return "".join(
        '""' if m.lastgroup == "string" else "" if m.lastgroup == "comment" else m.group() for m in _TOKEN.finditer(expression)
    )


def seconds(text: str) -> float:
    """A duration as Prometheus writes it: ``30s``, ``1m30s``. 0 for none."""
    return math.fsum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def look_back(expression: str) -> float:
    """Seconds of the longest range in it: how old data each of its samples may be made of. Subqueries add to what they hold."""
    ranges = [seconds(m.group(1)) for m in _RANGE.finditer(_bare(expression))]
    return math.fsum(ranges) if ":" in expression and len(ranges) > 1 else max(ranges, default=0.0)


def raw_counters(expression: str) -> tuple[str, ...]:
    """Counters that it takes at face value. A restart sets them to zero, so that they compare hosts' ages, not hosts."""
    bare = _bare(expression)
    labels = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
    bare = labels.sub(" ", bare)
    return tuple(sorted({m.group(1) for m in _COUNTER.finditer(bare) if not _SELECTED.match(bare, m.end())}))


def _close(tokens: t.Sequence[tuple[str, str]], start: int, opening: str, closing: str) -> int:
    depth = 0
    for i in range(start, len(tokens)):
        if tokens[i][0] == "mark":
            depth += (tokens[i][1] == opening) - (tokens[i][1] == closing)
            if depth == 0:
                return i
    return len(tokens) - 1


def _add(found: set[str], name: str, braces: t.Sequence[tuple[str, str]], calls: t.Sequence[str]) -> None:
    if name in _OWN or any(call in _ABSENT for call in calls):
        return
    text = name + "".join(word for dummy, word in braces)
    if text not in ("", "{}"):
        found.add(text)
