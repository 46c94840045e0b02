# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._contract import evolution, schema
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import IntegrityError

Rule = t.Any


def document(answer: Rule = None, *, parameters: t.Any = (), body: Rule = None, responses: t.Any = None) -> dict[str, t.Any]:
    content = {"application/json": {"schema": {} if answer is None else answer}}
    operation: dict[str, t.Any] = {
        "parameters": list(parameters),
        "responses": {"200": {"content": content}, **(responses or {})},
    }
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return {"openapi": "3.0.3", "paths": {"/a": {"post" if body is not None else "get": operation}}}


def record(required: t.Iterable[str] = (), **properties: Rule) -> Rule:
    return {"type": "object", "required": list(required), "properties": properties}


def breaking(old: Rule, new: Rule) -> list[tuple[str, str]]:
    return [(one.kind, one.where) for one in evolution.compare(old, new) if one.breaking]


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (record(["x"], x=TEXT), record(["x"], x=TEXT), []),
        (record(["x"], x=TEXT), record(["y"], y=TEXT), [("removed", "$.x")]),
        (record(x=TEXT), record(), [("removed", "$.x")]),
        (record(["x"], x=TEXT), record([], x=TEXT), [("removed", "$.x")]),
        (record(), record(x=TEXT), []),
        ({**record(), "additionalProperties": False}, record(x=TEXT), [("added", "$.x")]),
        (record(x=TEXT), record(x=WHOLE), [("type", "$.x")]),
        (record(x=WHOLE), record(x=NUMBER), [("type", "$.x")]),
        (record(x=NUMBER), record(x=WHOLE), []),
        (record(x=TEXT), record(x={}), [("null", "$.x"), ("type", "$.x")]),
        (record(x={}), record(x=TEXT), []),
        (record(x=TEXT), record(x={**TEXT, "nullable": True}), [("null", "$.x")]),
        (record(x=TEXT), record(x={"type": ["string", "null"]}), [("null", "$.x")]),
        (record(x={**TEXT, "nullable": True}), record(x=TEXT), []),
        (record(x={"enum": ["a"]}), record(x={"enum": ["a", "b"]}), [("enum", "$.x")]),
        (record(x={"enum": ["a", "b"]}), record(x={"enum": ["a"]}), []),
        (record(x={**TEXT, "enum": ["a"]}), record(x=TEXT), [("enum", "$.x")]),
        (record(x={"const": "a"}), record(x={"const": "b"}), [("enum", "$.x")]),
        ({"type": "array", "items": record(["x"], x=TEXT)}, {"type": "array", "items": record()}, [("removed", "$[].x")]),
        ({"type": "array", "items": TEXT}, {"type": "array"}, [("null", "$[]"), ("type", "$[]")]),
        ({"additionalProperties": WHOLE}, {"additionalProperties": TEXT}, [("type", "$.*")]),
        ({"allOf": [record(["x"], x=TEXT), record(y=TEXT)]}, record(["x"], x=TEXT, y=TEXT), []),
        ({"allOf": [record(["x"], x=TEXT), record(y=TEXT)]}, record(["x"], x=TEXT), [("removed", "$.y")]),
        ({"oneOf": [TEXT, WHOLE]}, {"oneOf": [TEXT]}, []),
        ({"oneOf": [TEXT]}, {"oneOf": [TEXT, WHOLE]}, [("type", "$")]),
        (TEXT, {"anyOf": [TEXT, WHOLE]}, [("null", "$"), ("type", "$")]),
    ],
)
def test_an_answer_may_become_narrower_and_never_wider(old: Rule, new: Rule, found: list[tuple[str, str]]) -> None:
    assert breaking(document(old), document(new)) == found


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (record(x=TEXT), record(x=TEXT, y=TEXT), []),
        (record(x=TEXT), record(["y"], x=TEXT, y=TEXT), [("parameter", "request $.y")]),
        (record(x=TEXT), record(["x"], x=TEXT), [("parameter", "request $.x")]),
        (record(x=WHOLE), record(x=NUMBER), []),
        (record(x=NUMBER), record(x=WHOLE), [("type", "request $.x")]),
        (record(x={**TEXT, "nullable": True}), record(x=TEXT), [("null", "request $.x")]),
        (record(x={"enum": ["a", "b"]}), record(x={"enum": ["a"]}), [("enum", "request $.x")]),
        (record(x={"enum": ["a"]}), record(x={"enum": ["a", "b"]}), []),
        (record(x=TEXT), record(x={**TEXT, "enum": ["a"]}), [("enum", "request $.x")]),
        (record(x={**WHOLE, "maximum": 200}), record(x={**WHOLE, "maximum": 100}), [("narrowed", "request $.x")]),
        (record(x={**WHOLE, "maximum": 100}), record(x={**WHOLE, "maximum": 200}), []),
        (record(x=WHOLE), record(x={**WHOLE, "minimum": 0}), [("narrowed", "request $.x")]),
        (record(x=TEXT), record(x={**TEXT, "pattern": "^a"}), [("narrowed", "request $.x")]),
        (record(x=TEXT), record(), []),
        (record(x=TEXT), {**record(), "additionalProperties": False}, [("removed", "request $.x")]),
        ({"oneOf": [TEXT, WHOLE]}, {"oneOf": [TEXT]}, [("type", "request $")]),
        ({"oneOf": [TEXT]}, {"oneOf": [TEXT, WHOLE]}, []),
    ],
)
def test_a_request_may_become_wider_and_never_narrower(old: Rule, new: Rule, found: list[tuple[str, str]]) -> None:
    assert breaking(document(body=old), document(body=new)) == found


def query(name: str, rule: Rule, required: bool = False) -> Rule:
    return {"name": name, "in": "query", "required": required, "schema": rule}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([], [query("x", TEXT)], []),
        ([], [query("x", TEXT, True)], [("parameter", "parameter x")]),
        ([query("x", TEXT)], [query("x", TEXT, True)], [("parameter", "parameter x")]),
        ([query("x", TEXT, True)], [query("x", TEXT)], []),
        ([query("x", TEXT)], [], [("removed", "parameter x")]),
        ([query("x", {**WHOLE, "maximum": 200})], [query("x", {**WHOLE, "maximum": 50})], [("narrowed", "parameter x")]),
        ([query("x", TEXT)], [query("x", WHOLE)], [("type", "parameter x")]),
    ],
)
def test_parameters(old: t.Any, new: t.Any, found: list[tuple[str, str]]) -> None:
    assert breaking(document(parameters=old), document(parameters=new)) == found


ERROR = {"content": {"application/json": {"schema": record(["error"], error=TEXT)}}}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d["paths"].pop("/a"), [("removed", "operation")]),
        (lambda d: d["paths"]["/a"].pop("get"), [("removed", "operation")]),
        (lambda d: d["paths"].update({"/b": {"get": {"responses": {}}}}), []),
        (lambda d: d["paths"]["/a"]["get"]["responses"].pop("200"), [("removed", "response 200")]),
        (lambda d: d["paths"]["/a"]["get"]["responses"].pop("404"), []),
        (lambda d: d["paths"]["/a"]["get"]["responses"].update({"204": {}}), [("added", "response 204")]),
        (lambda d: d["paths"]["/a"]["get"]["responses"].update({"503": {}}), []),
        (
            lambda d: d["paths"]["/a"]["get"]["responses"].update({"404": {"content": {}}}),
            [("removed", "content application/json")],
        ),
        (lambda d: d["paths"]["/a"]["get"]["responses"]["200"].pop("headers"), [("removed", "header ETag")]),
    ],
)
def test_operations_responses_and_headers(change: t.Callable[[t.Any], object], found: list[tuple[str, str]]) -> None:
    old = document(record(), responses={"404": ERROR})
    old["paths"]["/a"]["get"]["responses"]["200"]["headers"] = {"ETag": {"schema": TEXT}}
    new = copy.deepcopy(old)
    change(new)
    assert breaking(old, new) == found


def test_another_name_for_the_same_place_in_a_path_is_no_change() -> None:
    def at(path: str, name: str, rule: Rule) -> Rule:
        parameter = {"name": name, "in": "path", "required": True, "schema": rule}
        return {"openapi": "3.0.3", "paths": {path: {"parameters": [parameter], "get": {"responses": {"200": {}}}}}}

    assert evolution.compare(at("/b/{index}", "index", WHOLE), at("/b/{number}", "number", WHOLE)) == []
    assert breaking(at("/b/{index}", "index", TEXT), at("/b/{number}", "number", WHOLE)) == [("type", "parameter index")]


def test_a_tree_of_itself_ends_and_every_place_is_told() -> None:
    def tree(leaf: Rule) -> Rule:
        node = {"type": "object", "properties": {"leaf": leaf, "left": {"$ref": "#/components/schemas/T"}}}
        top = record(one={"$ref": "#/components/schemas/T"}, two={"$ref": "#/components/schemas/T"})
        return {**document(top), "components": {"schemas": {"T": node}}}

    assert breaking(tree(TEXT), tree(WHOLE)) == [("type", "$.one.leaf"), ("type", "$.two.leaf")]


def test_what_is_too_entangled_is_refused_and_not_compared_for_ever() -> None:
    schemas: dict[str, Rule] = {"S0": TEXT}
    for i in range(1, 30):
        schemas[f"S{i}"] = record(a={"$ref": f"#/components/schemas/S{i - 1}"}, b={"$ref": f"#/components/schemas/S{i - 1}"})
    bomb = {**document({"$ref": "#/components/schemas/S29"}), "components": {"schemas": schemas}}
    with pytest.raises(IntegrityError, match="too entangled"):
        evolution.compare(bomb, bomb)


SIMPLE = st.sampled_from(
    [TEXT, WHOLE, NUMBER, {}, {"type": "boolean"}, {**TEXT, "nullable": True}, {"enum": ["a", "b"]}, {**TEXT, "enum": ["a"]}]
)
RULES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.builds(lambda i: {"type": "array", "items": i}, inner)
        | st.builds(
            lambda p, n: {"type": "object", "properties": p, "required": sorted(p)[:n]},
            st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
            st.integers(0, 3),
        )
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.just(0.5) | st.sampled_from(["a", "b", "c"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)


@given(RULES)
def test_a_document_has_no_difference_from_itself(rule: Rule) -> None:
    assert evolution.compare(document(rule), document(rule)) == []
    assert evolution.compare(document(body=rule), document(body=rule)) == []


@given(RULES, RULES, VALUES)
def test_what_nothing_breaks_lets_every_old_request_through_and_sends_no_new_answer(old: Rule, new: Rule, value: t.Any) -> None:
    if not breaking(document(body=old), document(body=new)) and not schema.problems({}, old, value):
        removed = "removed" in {one.kind for one in evolution.compare(document(body=old), document(body=new))}
        fresh = [one for one in schema.problems({}, new, value) if ".x" not in one or not removed]
        assert fresh == [] or not _declared(old, value)
    if not breaking(document(old), document(new)) and not schema.problems({}, new, value):
        assert schema.problems({}, old, value) == [] or not _declared(new, value)


def _declared(rule: Rule, value: t.Any) -> bool:
    """Whether every field of the value is one that the rule names: an unnamed one may be of any type by accident."""
    if isinstance(value, dict):
        known = rule.get("properties", {})
        return set(value) <= set(known) and all(_declared(known[name], inner) for name, inner in value.items())
    return all(_declared(rule.get("items", {}), inner) for inner in value) if isinstance(value, list) else True
