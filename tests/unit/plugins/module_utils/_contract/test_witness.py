# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._contract import contract, shape, witness
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["etag", "vary", "cache-control", "x-api-version", "date", "access-control-allow-origin", "x-other"])
ANSWERS = st.builds(
    lambda body, status, headers, ms: answer(body, status, headers=headers, ms=ms),
    JSON,
    st.sampled_from([200, 404, None]),
    st.dictionaries(NAMES, st.text("ab, ", max_size=4), max_size=3),
    st.floats(0.1, 900),
)


def answer(
    body: t.Any, status: int | None = 200, *, headers: t.Any = None, ms: float = 5.0, path: str = "/a", **more: t.Any
) -> dict[str, t.Any]:
    asked = {"operation": "GET /a", "path": path, "query": {}, "about": "found"}
    if status is None:
        return {**asked, "status": None, "error": "refused", **more}
    kept = witness.headers_of(headers or {})
    return {
        **asked,
        "status": status,
        "content_type": "application/json",
        "shape": shape.of(body),
        "headers": kept,
        "ms": [ms],
        **more,
    }


def kinds(before: t.Any, after: t.Any, factor: float = 5.0) -> list[tuple[str, str]]:
    return [(d["kind"], d["path"]) for d in witness.compare([before], [after], factor) if d["breaking"]]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (answer({"a": 1}), answer({"a": 2}), []),
        (answer({"a": 1}), answer({"b": 1}), [("removed", "$.a")]),
        (answer({"a": 1}), answer({"a": None}), [("null", "$.a")]),
        (answer({"a": 1}), answer({"a": "1"}), [("type", "$.a")]),
        (answer({}, 404), answer({}), [("status", "/a")]),
        (answer({}), answer(None, None), [("status", "/a")]),
        (answer(None, None), answer({}), []),
        (answer({}), answer({}, content_type="text/html"), [("content-type", "/a")]),
        (answer({}), answer({}, shape=None), [("type", "$")]),
        (answer({"error": "x"}, 404), answer({"message": "x"}, 404), [("removed", "$.error")]),
        (answer({}, headers={"etag": "1"}), answer({}, headers={"etag": "2"}), []),
        (answer({}, headers={"etag": "1"}), answer({}), [("header", "header etag")]),
        (answer({}), answer({}, headers={"etag": "1"}), []),
        (
            answer({}, headers={"cache-control": "no-store"}),
            answer({}, headers={"cache-control": "max-age=9"}),
            [("header", "header cache-control")],
        ),
        (answer({}, headers={"vary": "A, b"}), answer({}, headers={"vary": "B,a"}), []),
        (
            answer({}, headers={"access-control-allow-origin": "*"}),
            answer({}),
            [("header", "header access-control-allow-origin")],
        ),
        (answer({}, headers={"date": "x", "server": "y"}), answer({}), []),
        (
            answer({}, headers={"content-type": "text/plain; charset=utf-8"}),
            answer({}, headers={"content-type": 'text/plain; charset="latin-1"'}),
            [("header", "header charset")],
        ),
        (answer({}, ms=100), answer({}, ms=400), []),
        (answer({}, ms=10), answer({}, ms=200), []),
        (answer({}, ms=100), answer({}, ms=600), [("latency", "latency")]),
        (answer([{"n": i} for i in range(8)]), answer([{"n": i} for i in range(8, 0, -1)]), [("order", "$")]),
        (answer([{"n": i} for i in range(8)]), answer([{"n": 1}, {"n": 0}]), [("order", "$")]),
        (answer([{"n": i} for i in range(8)]), answer([{"n": 5}]), []),
        (answer([{"n": i} for i in range(7)]), answer([{"n": 1}, {"n": 0}]), []),
        (answer([{"n": 1}, {"n": 0}] * 8), answer([{"n": i} for i in range(8)]), []),
        (answer(list("hgfedcba")), answer(list("abc")), [("order", "$")]),
        (answer([1, 2, 2, 3, 4, 5, 6, 7, 8]), answer([1, 1, 2]), []),
        (answer([{"n": i, "m": {}} for i in range(8)]), answer([{"m": {}}, {"m": {}}]), [("removed", "$[].n")]),
    ],
)
def test_what_old_clients_notice(before: t.Any, after: t.Any, found: list[tuple[str, str]]) -> None:
    assert kinds(before, after) == found


def test_how_long_it_takes_counts_by_the_quickest_now_and_the_slowest_before() -> None:
    before = answer({}, ms=50)
    assert kinds(before, {**answer({}), "ms": [5000.0, 4000.0, 80.0]}) == []
    assert kinds({**before, "ms": [50.0, 2000.0]}, answer({}, ms=5000)) == []
    assert kinds(before, {**answer({}), "ms": [5000.0, 4000.0]}) == [("latency", "latency")]
    assert kinds(before, {**answer({}), "ms": [5000.0, 4000.0]}, 0) == []


def test_a_header_that_was_not_always_there_is_no_promise() -> None:
    before = [answer({}, headers={"etag": "1"}), answer({}, path="/b")]
    assert [d for d in witness.compare(before, [answer({}), answer({}, path="/b")], 0) if d["breaking"]] == []


@pytest.mark.parametrize(
    ("rule", "before", "after", "found"),
    [
        ({"enum": ["a", "b"]}, "a", "b", []),
        ({"enum": ["a", "b"]}, "a", "c", [("enum", "$")]),
        ({"type": "string"}, "a", "c", []),
        ({"properties": {"s": {"enum": ["a"]}}}, {"s": "a"}, {"s": "c"}, [("enum", "$.s")]),
        ({"items": {"enum": ["a"]}}, ["a"], ["a", "c"], [("enum", "$[]")]),
        ({"items": {"enum": ["a"]}}, [], ["c"], []),
        ({"allOf": [{"properties": {"s": {"enum": ["a"]}}}]}, {"s": "a"}, {"s": "c"}, [("enum", "$.s")]),
        ({"additionalProperties": {"enum": ["a"]}}, {"f" * 20: "a"}, {"e" * 20: "c"}, [("enum", "$.*")]),
    ],
)
def test_a_new_word_is_told_where_the_document_has_only_so_many(rule: t.Any, before: t.Any, after: t.Any, found: t.Any) -> None:
    kept = shape.promised({}, rule, shape.of_answer({}, rule, before))
    seen = shape.of_answer({}, rule, after)
    assert [(d.kind, d.path) for d in shape.compare(kept, seen) if d.breaking] == found


@given(st.lists(ANSWERS, max_size=5))
def test_answers_are_no_different_from_themselves(answers: list[t.Any]) -> None:
    assert witness.compare(answers, answers, 5.0) == []


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=5))
def test_every_difference_names_its_operation_and_can_be_declared(pairs: list[tuple[t.Any, t.Any]]) -> None:
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    found = witness.compare(before, after, 5.0)
    assert all(contract.matches("GET /a *", d["id"]) and d["id"].split(" ", 3)[2] == d["kind"] for d in found)
    lost = [a["path"] for b, a in pairs if b["status"] is not None and a["status"] != b["status"]]
    assert len([d for d in found if d["kind"] == "status"]) == len(lost)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_a_packed_witness_comes_back_whole(value: dict[str, t.Any]) -> None:
    text = contract.pack(value)
    assert json.dumps(contract.unpack(text + "\n"), sort_keys=True) == json.dumps(value, sort_keys=True)
    assert not set(text) & set("{}[]%#'\"` \n")


def test_a_witness_that_was_changed_is_refused() -> None:
    text = contract.pack({"format": "chainops.witness/1", "requests": [{"a": 1}] * 50})
    form, digest, packed = text.split(":")
    broken = [
        "",
        "{}",
        packed,
        f"chainops.witness/2:{digest}:{packed}",
        f"{form}:{'0' * 64}:{packed}",
        f"{form}:{digest}:{packed[:-8]}",
    ]
    for one in [*broken, f"{form}:{digest}:!!!", f"{form}:{digest}:", f"{form}"]:
        with pytest.raises(InputError, match="witness"):
            contract.unpack(one)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("GET /a removed $.x", "GET /a removed $.x", True),
        ("GET /a removed $.x", "GET /a removed $.xy", False),
        ("GET /a removed $.a[].b[].c", "GET /a removed $.a[].b[].c", True),
        ("GET /a * $.a[].*", "GET /a type $.a[].b", True),
        ("GET /? removed $.x", "GET /a removed $.x", False),
        ("*", "anything\nat all", True),
        ("GET /a removed $.[x]", "GET /a removed $.x", False),
    ],
)
def test_a_star_is_any_text_and_all_else_is_itself(pattern: str, text: str, fits: bool) -> None:
    assert contract.matches(pattern, text) is fits
