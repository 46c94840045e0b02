# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import http.server
import json
import threading
import typing as t
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._contract import contract, schema, shape
from ansible_collections.chainops.validator.plugins.module_utils._contract.contract import Contract, Options
from ansible_collections.chainops.validator.plugins.module_utils._contract.reads import Reads
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, IntegrityError
from ansible_collections.chainops.validator.plugins.module_utils._core.http import HttpClient

HASH = "ab" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def words(rule: t.Any, value: t.Any) -> list[str]:
    return schema.problems({}, rule, value)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "integer"}, [1, 1.0, -3], [True, "1", 1.5, None]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "string", "nullable": True}, ["a", None], [1]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        (
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
            [{"a": "x", "b": 1}],
            [{}, {"a": 1}, []],
        ),
        ({"type": "object", "additionalProperties": False, "properties": {"a": {}}}, [{"a": 1}, {}], [{"b": 1}]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "1"}]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "uniqueItems": True}, [[1, 2]], [[], ["a"], [1, 1]]),
        ({"enum": ["a", 1]}, ["a", 1], ["b", True, 2]),
        ({"const": 1}, [1], [True, 2]),
        ({"minimum": 1, "exclusiveMinimum": True}, [2], [1]),
        ({"exclusiveMinimum": 1, "maximum": 3}, [2, 3], [1, 4]),
        ({"multipleOf": 5}, [10], [11]),
        ({"type": "string", "pattern": "^[0-9a-f]{4}$", "maxLength": 4}, ["00ff"], ["xyz", "00ff0"]),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, [3], [2, "3"]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [3, "x"], [None]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, [1, 3.5], [4]),
        ({"not": {"type": "null"}}, [1], [None]),
        ({"type": "object", "maxProperties": 1}, [{"a": 1}], [{"a": 1, "b": 2}]),
    ],
)
def test_every_keyword_accepts_and_refuses(rule: t.Any, good: list[t.Any], bad: list[t.Any]) -> None:
    assert [v for v in good if words(rule, v)] == []
    assert [v for v in bad if not words(rule, v)] == []


def test_what_a_document_must_not_do() -> None:
    document = {"components": {"schemas": {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}}}}
    for rule in ({"$ref": "#/components/schemas/A"}, {"$ref": "#/nowhere"}, {"$ref": "http://evil/x"}, {"patternProperties": {}}):
        with pytest.raises(IntegrityError):
            schema.problems(document, rule, 1)
    tree = {"components": {"schemas": {"T": {"type": "array", "items": {"$ref": "#/components/schemas/T"}}}}}
    assert schema.problems(tree, {"$ref": "#/components/schemas/T"}, [[[], []], []]) == []
    assert schema.problems(tree, {"$ref": "#/components/schemas/T"}, [[[1]]]) == ["$[0][0][0]: is integer, should be array"]


@given(JSON)
def test_a_value_has_no_difference_from_itself_and_its_own_shape(value: t.Any) -> None:
    one = shape.of(value)
    assert shape.compare(one, one) == []
    assert shape.join(one, one) == one
    assert json.loads(json.dumps(one)) == one


@given(JSON, JSON)
def test_what_was_seen_before_is_no_difference_later(a: t.Any, b: t.Any) -> None:
    both = shape.join(shape.of(a), shape.of(b))
    assert [d for d in shape.compare(both, shape.of(a)) if d.breaking] == []
    assert [d for d in shape.compare(both, shape.of(b)) if d.breaking] == []


@pytest.mark.parametrize(
    ("before", "after", "kind", "breaking"),
    [
        ({"a": 1}, {"b": 1}, "removed", True),
        ({"a": 1}, {"a": 1, "b": 2}, "added", False),
        ({"a": 1}, {"a": None}, "null", True),
        ({"a": 1}, {"a": "1"}, "type", True),
        ({"a": 1.5}, {"a": 2}, None, False),
        ({"a": 1}, {"a": 1.5}, "type", True),
        ({"a": None}, {"a": 1}, "type", False),
        ([{"a": 1}, {"a": 1, "b": 1}], [{"a": 1}], "removed", False),
        ([{"a": 1}], [{"a": 1}, {}], "removed", True),
        ([1], [], "empty", False),
        ({"ab" * 16: 1}, {"cd" * 16: 1}, None, False),
        ({"TXAI" + "0a" * 20: {"n": 1}}, {"TXAI" + "1b" * 20: {"n": "x"}}, "type", True),
    ],
)
def test_differences_by_kind(before: t.Any, after: t.Any, kind: str | None, breaking: bool) -> None:
    found = shape.compare(shape.of(before), shape.of(after))
    assert [(d.kind, d.breaking) for d in found if kind is None or d.kind == kind] == ([] if kind is None else [(kind, breaking)])


# -- against a server --------------------------------------------------------------------------------------------------------

BLOCK = {
    "type": "object",
    "required": ["index", "hash", "transactions"],
    "properties": {
        "index": {"type": "integer"},
        "hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "transactions": {"type": "array", "items": {"type": "object", "required": ["txid"]}},
    },
}


def reads(rule: t.Any, *others: str, parameters: t.Any = ()) -> dict[str, t.Any]:
    answer = {"description": "", "content": {"application/json": {"schema": rule}}}
    return {"get": {"parameters": list(parameters), "responses": {"200": answer, **{o: {"description": ""} for o in others}}}}


def document() -> dict[str, t.Any]:
    index = {"name": "index", "in": "path", "required": True, "schema": {"type": "integer"}}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 200}}
    return {
        "openapi": "3.0.3",
        "info": {"title": "node", "version": "1"},
        "paths": {
            "/health": reads({"type": "object", "required": ["status"], "properties": {"status": {"enum": ["healthy"]}}}),
            "/blocks": reads({"type": "object", "properties": {"blocks": {"type": "array", "items": BLOCK}}}, parameters=[limit]),
            "/blocks/{index}": reads(BLOCK, "404", parameters=[index]),
            "/block/{block_hash}": reads(BLOCK, "404"),
            "/transaction/{txid}": reads({"type": "object", "required": ["found"]}, "404"),
            "/send": {"post": {"responses": {"200": {"description": ""}}}},
        },
    }


class Node:
    """A node of memory on a real socket: ``twist`` may change any answer."""

    def __init__(self) -> None:
        self.twist: t.Callable[[str, int, t.Any], tuple[int, t.Any]] = lambda path, status, body: (status, body)
        self.asked: list[str] = []
        self.methods: set[str] = set()
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                node.methods.add(self.command)
                node.asked.append(self.path)
                path = urllib.parse.urlsplit(self.path).path
                status, body = node.twist(path, *node.answer(path, self.path))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_TRACE = do_CONNECT = do_QUERY = do_GET

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def block(self, index: int) -> dict[str, t.Any]:
        transactions = [{"txid": HASH, "amount": 1.5}] if index == 3 else []
        return {"index": index, "hash": f"{index:064x}", "transactions": transactions}

    def answer(self, path: str, whole: str) -> tuple[int, t.Any]:
        if path == "/openapi.json":
            return 200, document()
        if path == "/health":
            return 200, {"status": "healthy", "uptime": 1}
        if path == "/blocks":
            first = 0 if "limit=200" in whole else 8
            return 200, {"blocks": [self.block(i) for i in range(10, first, -1)]}
        if path.startswith("/blocks/"):
            index = int(path[8:])
            return (200, self.block(index)) if index <= 10 else (404, {"error": "not found"})
        if path.startswith("/block/"):
            index = int(path[7:], 16)
            return (200, self.block(index)) if index <= 10 else (404, {"error": "not found"})
        if path == f"/transaction/{HASH}":
            return 200, {"found": True, "block": 3}
        return 404, {"error": "not found"}


@pytest.fixture
def node() -> t.Iterator[Node]:
    running = Node()
    yield running
    running.server.shutdown()
    running.server.server_close()


def exercise(node: Node, spec: dict[str, t.Any] | None = None, **options: t.Any) -> tuple[dict[str, t.Any], Contract]:
    worker = Contract(Reads(HttpClient(node.url, timeout=5)), spec or document(), Options(**options))
    return worker.exercise(), worker


def replayed(node: Node, allowed: t.Iterable[str] = ()) -> t.Callable[..., dict[str, t.Any]]:
    """Record now; the function returned replays and judges."""
    run, _ = exercise(node)
    witness = json.loads(json.dumps(contract.witness_of(run, document())))
    assert contract.judge(run, [], None, [])["ok"]

    def after(spec: dict[str, t.Any] | None = None, factor: float = 0) -> dict[str, t.Any]:
        worker = Contract(Reads(HttpClient(node.url, timeout=5)), spec or document(), Options())
        answers = worker.replay(witness, factor)
        differences = contract.differences(witness, answers, spec or document(), factor)
        return contract.judge(worker.exercise(), differences, witness, allowed)

    return after


def test_everything_readable_is_exercised_with_values_the_node_told(node: Node) -> None:
    run, _ = exercise(node)
    verdict = contract.judge(run, [], None, [])
    assert verdict["ok"] and verdict["exercised"] == verdict["operations"] == 5 and verdict["unsent"] == ["POST /send"]
    assert f"/transaction/{HASH}" in node.asked, "found only in the longest list"
    assert "/blocks/999999999999" in node.asked, "and for what isn't there"
    assert node.methods == {"GET"}


@pytest.mark.parametrize(
    ("schema_", "before", "after", "kinds"),
    [
        ({"type": "number"}, 0, 0.5, []),
        ({"type": "integer"}, 0, 0.5, ["type"]),
        ({}, 0, 0.5, ["type"]),
        ({"type": "number"}, 0, "0.5", ["type"]),
        ({"type": "number", "nullable": True}, 0, None, []),
        ({"type": ["number", "null"]}, 0, None, []),
        ({"type": "string"}, "a", None, ["null"]),
        ({"properties": {"fee": {"$ref": "#/components/schemas/Coins"}}}, {"fee": 0}, {"fee": 0.5}, []),
        ({"properties": {"other": {"type": "number"}}}, {"fee": 0}, {"fee": 0.5}, ["type"]),
        ({"additionalProperties": {"type": "number"}}, {"fee": 0}, {"fee": 0.5}, []),
        ({"items": {"type": "number"}}, [0], [0.5], []),
        ({"allOf": [{"properties": {"fee": {"type": "number"}}}, {"properties": {"x": {}}}]}, {"fee": 0}, {"fee": 0.5}, []),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, 0, 0.5, []),
    ],
)
def test_the_document_promises_more_than_one_answer_shows(schema_: t.Any, before: t.Any, after: t.Any, kinds: list[str]) -> None:
    document = {"components": {"schemas": {"Coins": {"type": "number"}}}}
    witness = shape.promised(document, schema_, shape.of(before))
    assert [one.kind for one in shape.compare(witness, shape.of(after)) if one.breaking] == kinds


def test_unchanged_is_ok(node: Node) -> None:
    assert replayed(node)()["ok"]


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("/health", lambda s, b: (s, {"status": "healthy", "up_time": 1}), "$.uptime is gone"),
        ("/health", lambda s, b: (s, {**b, "uptime": None}), "$.uptime can be null now; it was integer"),
        ("/health", lambda s, b: (s, {**b, "uptime": "1"}), "$.uptime is string now; it was integer"),
        ("/health", lambda s, b: (503, b), "status 503 now; it was 200"),
        ("/blocks/999999999999", lambda s, b: (200, {}), "status 200 now; it was 404"),
        ("/blocks/10", lambda s, b: (404, {"error": "x"}), "status 404 now; it was 200"),
    ],
)
def test_what_old_clients_would_notice(node: Node, path: str, change: t.Any, words: str) -> None:
    after = replayed(node)
    node.twist = lambda asked, status, body: change(status, body) if asked == path else (status, body)
    verdict = after()
    assert not verdict["ok"] and any(words in d for d in verdict["differences"]), verdict


def test_a_change_that_the_proposal_declares_is_allowed_and_told(node: Node) -> None:
    after = replayed(node, ["GET /health removed $.uptime"])
    node.twist = lambda path, status, body: (status, {"status": "healthy", "extra": 1}) if path == "/health" else (status, body)
    verdict = after()
    assert verdict["ok"] and verdict["allowed"] == ["GET /health: $.uptime is gone"]
    assert verdict["unimportant"] == ["GET /health: $.extra is new"]


def test_what_was_broken_before_is_known_and_what_is_new_fails(node: Node) -> None:
    node.twist = lambda path, status, body: (503, {"error": "x"}) if path == "/health" else (status, body)
    run, _ = exercise(node)
    before = contract.judge(run, [], None, [])
    assert not before["ok"] and any("answered 503" in r for r in before["reasons"])
    witness = contract.witness_of(run, document())
    worker = Contract(Reads(HttpClient(node.url, timeout=5)), document(), Options())
    found = contract.differences(witness, worker.replay(witness), document(), 0)
    again = contract.judge(worker.exercise(), found, witness, [])
    assert again["ok"] and again["known_failures"] and not again["failures"]


def test_nothing_exercised_or_anything_skipped_is_not_a_pass(node: Node) -> None:
    empty = {"openapi": "3.0.3", "info": {}, "paths": {"/send": document()["paths"]["/send"]}}
    run, _ = exercise(node, empty)
    assert contract.judge(run, [], None, [])["reasons"] == ["no operation was exercised (0 in the document)"]
    more = copy.deepcopy(document())
    more["paths"]["/account/{name}"] = reads({"type": "object"}, "404")
    run, _ = exercise(node, more)
    verdict = contract.judge(run, [], None, [])
    assert not verdict["ok"] and verdict["skipped"][0]["operation"] == "GET /account/{name}"
    run, _ = exercise(node, more, skip=("GET /account/*",))
    assert contract.judge(run, [], None, [])["ok"]
    run, _ = exercise(node, more, parameters={"name": "alex"})
    assert any("answered 404" in f["problem"] for f in run["failures"]), "it was sent"


def test_an_operation_that_vanished_from_the_document_is_still_asked(node: Node) -> None:
    after = replayed(node)
    smaller = document()
    del smaller["paths"]["/health"]
    node.twist = lambda path, status, body: (404, {"error": "gone"}) if path == "/health" else (status, body)
    verdict = after(smaller)
    assert not verdict["ok"] and any("/health: status 404 now" in d for d in verdict["differences"])
    node.twist = lambda path, status, body: (status, body)
    assert any("not any more" in r for r in after(smaller)["reasons"]), "the document must go on promising it"


def test_a_server_that_says_200_to_everything_is_caught(node: Node) -> None:
    after = replayed(node)
    node.twist = lambda path, status, body: (200, {})
    assert not after()["ok"]


def test_answers_that_break_their_own_document(node: Node) -> None:
    node.twist = lambda path, status, body: (
        (status, {**body, "hash": "zz"}) if path.startswith("/blocks/") and status == 200 else (status, body)
    )
    run, _ = exercise(node)
    assert any("does not match" in f["problem"] for f in run["failures"])


@pytest.mark.parametrize("witness", [{}, {"format": "chainops.witness/1", "requests": []}, {"format": "x", "requests": [1]}])
def test_a_witness_that_says_nothing_is_refused(node: Node, witness: dict[str, t.Any]) -> None:
    worker = Contract(Reads(HttpClient(node.url, timeout=5)), document(), Options())
    with pytest.raises(InputError, match="witness"):
        worker.replay(witness)


@pytest.mark.parametrize("broken", [{}, {"openapi": "2.0", "paths": {}}, {"openapi": "3.0.0"}, {"swagger": "2.0", "paths": {}}])
def test_other_documents_are_refused(broken: dict[str, t.Any]) -> None:
    with pytest.raises(IntegrityError):
        contract.operations(broken)


def test_values_are_escaped_into_paths() -> None:
    (operation,), _ = contract.operations({"openapi": "3.0.0", "paths": {"/a/{x}": reads({})}})
    assert contract.target(operation, {"x": "../b?c#d/é"})[0] == "/a/..%2Fb%3Fc%23d%2F%C3%A9"


def test_a_server_that_says_200_to_everything_is_caught_without_a_witness(node: Node) -> None:
    lax = document()
    for item in lax["paths"].values():
        if "get" in item:
            item["get"]["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "object"}
    run, _ = exercise(node, lax)
    assert contract.judge(run, [], None, [])["ok"], "this document promises next to nothing"
    node.twist = lambda path, status, body: (200, body)
    run, _ = exercise(node, lax)
    verdict = contract.judge(run, [], None, [])
    assert any("its answers prove nothing" in reason for reason in verdict["reasons"])
    witness = contract.witness_of(run, lax)
    again = contract.judge(run, [], witness, ["*"])
    assert not again["ok"], "nor does it help that it said so before"


def test_a_node_that_limits_the_rate_is_not_exercised(node: Node) -> None:
    node.twist = lambda path, status, body: (429, {"error": "slowly"}) if path == "/health" else (status, body)
    worker = Contract(Reads(HttpClient(node.url, timeout=5), seconds=3), document(), Options())
    verdict = contract.judge(worker.exercise(), [], None, [])
    assert not verdict["ok"] and "GET /health" in {one["operation"] for one in verdict["skipped"]}


def test_what_is_excused_is_told_and_all_excused_is_no_pass(node: Node) -> None:
    run, _ = exercise(node, skip=("GET /health",))
    verdict = contract.judge(run, [], None, [])
    assert verdict["ok"] and verdict["excused"] == ["GET /health"] and verdict["exercised"] == 4
    run, _ = exercise(node, skip=("*",))
    assert not contract.judge(run, [], None, [])["ok"]


def test_coverage_counts_what_was_sent(node: Node) -> None:
    run, worker = exercise(node)
    verdict = contract.judge(run, [], None, [])
    seen = verdict["coverage"]["GET /blocks/{index}"]
    assert (seen["found"], seen["absent"], seen["generated"], seen["statuses"]) == (3, 1, 0, {"200": 3, "404": 1})
    assert verdict["requests"] == worker.reads.sent - 1 == len(node.asked) - 1, "and one for what isn't in the document"


class Dial(Clock):
    """Time that passes when the test says so."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("naps", "slow"), [([], False), ([0.7], False), ([0.7] * 4, True), ([0.7] * 3, False)])
def test_an_operation_that_became_slow_is_asked_again_before_that_is_believed(node: Node, naps: list[float], slow: bool) -> None:
    dial = Dial()
    worker = Contract(Reads(HttpClient(node.url, timeout=5), clock=dial), document(), Options())
    witness = contract.witness_of(worker.exercise(), document())
    left = list(naps)

    def dawdle(path: str, status: int, body: t.Any) -> tuple[int, t.Any]:
        dial.now += left.pop() if path == "/health" and left else 0.001
        return status, body

    node.twist = dawdle
    found = contract.differences(witness, worker.replay(witness, 5.0), document(), 5.0)
    assert [(one["kind"], one["operation"]) for one in found] == ([("latency", "GET /health")] if slow else [])


def test_another_status_is_another_trouble() -> None:
    kept = {"failures": [{"operation": "GET /a", "problem": "status 500 is not in the contract (200)"}]}
    run: dict[str, t.Any] = {"operations": 1, "exercised": ["GET /a"], "skipped": [], "excused": [], "unsent": [], "coverage": {}}
    for status, known in (500, True), (404, False):
        problem = {"operation": "GET /a", "problem": f"status {status} is not in the contract (200)"}
        verdict = contract.judge({**run, "credulous": "", "failures": [problem]}, [], kept, [])
        assert verdict["ok"] is known
