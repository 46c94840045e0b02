# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that schemathesis makes up, against a real server."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._contract import contract, generated
from ansible_collections.chainops.validator.plugins.module_utils._contract.contract import Contract, Options
from ansible_collections.chainops.validator.plugins.module_utils._contract.reads import Reads
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, IntegrityError
from ansible_collections.chainops.validator.plugins.module_utils._core.http import HttpClient
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._contract.test_contract import (
    Node,
    document,
    node,
    reads,
)

__all__ = ["node"]


@pytest.fixture
def ask(node: Node, tmp_path: pathlib.Path) -> t.Callable[..., tuple[dict[str, generated.Sent], list[dict[str, t.Any]]]]:
    def asking(spec: dict[str, t.Any], count: int = 4, seed: int = 1, seconds: float = 120) -> t.Any:
        sender = Reads(HttpClient(node.url, timeout=5), seconds=seconds)
        return generated.exercise(spec, sender, count=count, seed=seed, excused=lambda label, name: False, scratch=str(tmp_path))

    return asking


def hostile() -> dict[str, t.Any]:
    """A document that would have other things sent than reads."""
    spec = document()
    answers = {"responses": {"200": {"description": ""}}}
    every = {verb: dict(answers) for verb in ("post", "put", "patch", "delete", "trace", "options", "head")}
    link = {"again": {"operationRef": "#/paths/~1send/post"}}
    spec["paths"]["/health"].update(every)
    spec["paths"]["/health"]["get"]["responses"]["200"]["links"] = link
    spec["paths"]["/health"]["get"]["callbacks"] = {"done": {"{$request.query.url}": {"post": answers}}}
    spec["paths"]["/health"]["get"]["servers"] = [{"url": "http://127.0.0.2:1/"}]
    spec["paths"]["/admin/pause"] = every
    override = {"name": "X-HTTP-Method-Override", "in": "header", "required": True, "schema": {"enum": ["DELETE"]}}
    spec["paths"]["/over"] = {"get": {**answers, "parameters": [override]}}
    spec["paths"]["/query"] = {
        "get": {**answers, "parameters": [{"name": "_method", "in": "query", "required": True, "schema": {"enum": ["POST"]}}]}
    }
    body = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    spec["paths"]["/body"] = {"get": {**answers, "requestBody": body}}
    return spec


def test_a_document_that_declares_other_methods_gets_none_of_them_sent(node: Node, tmp_path: pathlib.Path) -> None:
    worker = Contract(Reads(HttpClient(node.url, timeout=5)), hostile(), Options(generated=4, scratch=str(tmp_path)))
    run = worker.exercise()
    assert node.methods == {"GET"}
    assert not [path for path in node.asked if path.startswith(("/admin", "/send")) or "_method" in path]
    verdict = contract.judge(run, [], None, [])
    assert not verdict["ok"]
    assert {"POST /admin/pause", "DELETE /health", "TRACE /health", "POST /send"} <= set(verdict["unsent"])
    skipped = {one["operation"]: one["reason"] for one in verdict["skipped"]}
    assert "never sent" in skipped["GET /query"] and "never sent" in skipped["GET /over"] and "GET /body" in skipped


def test_the_transport_refuses_what_schemathesis_would_send_by_itself(
    monkeypatch: pytest.MonkeyPatch, ask: t.Any, node: Node
) -> None:
    """The reduced document is one fence, the transport another: without the first, the second still holds."""
    monkeypatch.setattr(generated, "reads_only", lambda document: {k: v for k, v in document.items() if k != "security"})
    spec = document()
    spec["paths"]["/send"] = {verb: {"responses": {"200": {"description": ""}}} for verb in ("post", "delete", "trace", "put")}
    sent, _failures = ask(spec)
    assert node.methods == {"GET"}
    for label in "POST /send", "DELETE /send", "TRACE /send", "PUT /send":
        assert sent[label].requests == 0 and "never sent" in sent[label].skipped


def test_it_is_bounded_and_seeded(ask: t.Any, node: Node) -> None:
    ask(document(), count=4, seed=7)
    first, node.asked = node.asked, []
    ask(document(), count=4, seed=7)
    assert node.asked == first and len(first) <= 2 * 4 * 5
    node.asked = []
    ask(document(), count=4, seed=8)
    assert node.asked != first


def test_what_it_makes_up_is_not_only_valid(ask: t.Any, node: Node) -> None:
    sent, failures = ask(document())
    assert failures == [] or {f["operation"] for f in failures} <= {
        "GET /blocks",
        "GET /blocks/{index}",
        "GET /block/{block_hash}",
    }
    assert any(not path[8:].isdigit() for path in node.asked if path.startswith("/blocks/"))
    assert all(one.requests and not one.skipped for one in sent.values()), sent


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, {"error": "x"}, "Received: 500"),
        (200, {"status": "sick"}, "Response violates schema"),
        (201, {"status": "healthy"}, "Received: 201"),
    ],
)
def test_an_answer_that_the_document_does_not_promise_is_a_failure(
    ask: t.Any, node: Node, status: int, body: t.Any, words: str
) -> None:
    spec = document()
    spec["paths"] = {"/health": spec["paths"]["/health"]}
    assert ask(spec)[1] == []
    node.twist = lambda path, _status, _body: (status, body)
    _sent, failures = ask(spec)
    assert any(words in one["problem"] for one in failures), failures


def test_something_invalid_that_is_taken_is_a_failure(ask: t.Any, node: Node) -> None:
    limit = {"name": "limit", "in": "query", "required": True, "schema": {"type": "integer", "minimum": 1, "maximum": 9}}
    spec = document()
    spec["paths"] = {"/health": reads({"type": "object"}, "400", parameters=[limit])}
    assert any("Schema-violating request accepted" in one["problem"] for one in ask(spec)[1])


@pytest.mark.parametrize("where", ["http://127.0.0.2/x.json#/A", "file:///etc/passwd", "other.json", "/etc/passwd"])
def test_a_reference_that_leads_out_of_the_document_is_not_followed(ask: t.Any, node: Node, where: str) -> None:
    spec = document()
    spec["components"] = {"schemas": {"Unused": {"allOf": [{"$ref": where}]}}}
    with pytest.raises(IntegrityError, match="outside itself"):
        ask(spec)
    assert node.asked == []


def test_a_suite_that_collects_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch, node: Node, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(generated, "exercise", lambda *args, **more: ({}, []))
    worker = Contract(Reads(HttpClient(node.url, timeout=5)), document(), Options(generated=4, scratch=str(tmp_path)))
    verdict = contract.judge(worker.exercise(), [], None, [])
    assert not verdict["ok"]
    assert (
        verdict["skipped"][0]["reason"] == "generated requests: schemathesis did not collect it" and len(verdict["skipped"]) == 5
    )


def test_a_suite_that_runs_out_of_time_is_no_pass(ask: t.Any) -> None:
    sent, _failures = ask(document(), seconds=0)
    assert all(one.requests == 0 and "were up" in one.skipped for one in sent.values())


def test_without_schemathesis_it_fails_and_says_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, ask: t.Any, node: Node
) -> None:
    monkeypatch.setattr(generated, "_MISSING", "No module named 'schemathesis'")
    with pytest.raises(InputError, match=r"schemathesis.*controller.*delegate.*generated: 0"):
        ask(document())
    assert node.asked == [] and not generated.available()
