# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that schemathesis makes up from the document, and what it says of their answers; on the controller alone.

This is the only file here that needs more than the standard library. Schemathesis neither sends nor loads anything: it gets a
document of nothing but GETs that refers to nothing outside itself, and what it makes goes through ``reads``. A run is bounded
(``count`` valid and ``count`` invalid requests an operation, none of them made smaller afterwards) and seeded: the same
document and seed ask the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t
import urllib.parse

from .._core import canonical
from .._core.errors import ChainopsError, InputError, IntegrityError, Refused
from .reads import Reads, TimeUp
from .schema import JsonDict, resolve

try:
    import hypothesis
    import requests
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.core.failures import Failure, FailureGroup
    from schemathesis.core.result import Err
    from schemathesis.core.transport import Response as Answer
    from schemathesis.generation.case import Case
    from schemathesis.specs.openapi import checks

    _MISSING: str | None = None
except ImportError as exc:  # pragma: no cover - depends on the machine
    _MISSING = str(exc)

#: What a request needs as its server; it is never asked.
_NOWHERE = "http://node.invalid"


def available() -> bool:
    """Whether requests can be made up here."""
    return _MISSING is None


def require() -> None:
    """Raises InputError that says what to install, and where."""
    if _MISSING is not None:
        raise InputError(
            "making up requests needs the Python library schemathesis, version 4 or later, on the machine this module runs on "
            f"(the controller; delegate the task to localhost), or `generated: 0` to do without: {_MISSING}"
        )


def reads_only(document: JsonDict) -> JsonDict:
    """A copy with nothing but GETs, without links, callbacks, servers and security. Raises IntegrityError for a reference that
    leads out of the document: it would be followed, and it is not ours what it says."""
    _inside(document)
    paths: JsonDict = {}
    for path, raw in document.get("paths", {}).items():
        item = resolve(document, raw)
        if "get" in item:
            operation = {k: v for k, v in resolve(document, item["get"]).items() if k not in ("callbacks", "security", "servers")}
            paths[path] = {"get": operation, **({"parameters": item["parameters"]} if "parameters" in item else {})}
    kept = {name: document[name] for name in ("openapi", "info", "components", "jsonSchemaDialect") if name in document}
    kept["components"] = {
        k: v for k, v in (kept.get("components") or {}).items() if k not in ("securitySchemes", "callbacks", "links")
    }
    copy: JsonDict = canonical.loads(canonical.dumps({**kept, "paths": paths}), "the OpenAPI document")
    return copy


def _inside(node: t.Any) -> None:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for name in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(one.get(name), str) and not one[name].startswith("#"):
                    raise IntegrityError(f"the OpenAPI document refers to {one[name][:200]!r}, outside itself: not followed")
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


class Sent(t.NamedTuple):
    """What became of one operation: how many requests, by status, and why the rest of it was not asked (empty for nothing)."""

    requests: int
    statuses: t.Mapping[str, int]
    skipped: str


def exercise(
    document: JsonDict,
    reads: Reads,
    *,
    count: int,
    seed: int,
    excused: t.Callable[[str, str], bool],
    scratch: str,
) -> tuple[dict[str, Sent], list[JsonDict]]:
    """({label: what was sent}, failures as ``{"operation", "path", "problem"}``), of every GET that isn't excused.

    ``scratch``: a directory for what Hypothesis writes.
    """
    require()
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", scratch)
    sent: dict[str, Sent] = {}
    failures: list[JsonDict] = []
    reduced = reads_only(document)
    if not reduced["paths"]:
        return sent, failures
    loaded = schemathesis.openapi.from_dict(reduced, config=SchemathesisConfig())
    for result in loaded.get_all_operations():
        if isinstance(result, Err):
            error = result.err()
            label = f"{str(error.method or 'get').upper()} {error.path}"
            sent[label] = Sent(0, {}, f"schemathesis can't read it: {str(error).splitlines()[0][:200]}")
            continue
        operation = result.ok()
        if not excused(operation.label, str(operation.definition.raw.get("operationId", ""))):
            sent[operation.label] = _one(operation, reads, count, seed, failures)
    return sent, failures


def _one(operation: t.Any, reads: Reads, count: int, seed: int, failures: list[JsonDict]) -> Sent:
    statuses: dict[str, int] = {}
    why: list[str] = []
    left = {"requests": 0}

    def ask(case: Case[t.Any]) -> None:
        if why or left["requests"] <= 0:
            return
        left["requests"] -= 1
        request = requests.Request(**case.as_transport_kwargs(base_url=_NOWHERE)).prepare()
        path = _target(request.url or "")
        body = request.body if isinstance(request.body, (bytes, str, type(None))) else b"a stream"
        declared = {name: str(value) for name, value in (case.headers or {}).items()}
        try:
            response, took = reads.send(request.method or "", path, declared, body)
        except TimeUp as exc:
            why.append(exc.message)
            return
        except Refused as exc:
            statuses["refused"] = statuses.get("refused", 0) + 1
            why.append(exc.message)
            return
        except InputError:
            return  # no client can send it
        except ChainopsError as exc:
            failures.append({"operation": operation.label, "path": path, "problem": f"generated: {exc.message}"})
            return
        statuses[str(response.status)] = statuses.get(str(response.status), 0) + 1
        if response.status == 429:
            why.append("the node says 429 although it was waited for")
            return
        headers = {name: [value] for name, value in response.headers.items()}
        answer = Answer(response.status, headers, response.body, request, took / 1000, True)
        for problem in _problems(case, answer):
            failures.append({"operation": operation.label, "path": path, "problem": f"generated: {problem}"})

    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        left["requests"] = count
        test = hypothesis.given(case=operation.as_strategy(generation_mode=mode))(ask)
        settings = hypothesis.settings(
            max_examples=count,
            database=None,
            deadline=None,
            derandomize=False,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        # What takes anything, or nothing, can't be asked for something invalid.
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            hypothesis.seed(seed)(settings(test))()
    number = sum(n for status, n in statuses.items() if status != "refused")
    return Sent(
        number, dict(sorted(statuses.items())), why[0] if why else "" if number else "schemathesis could make no request of it"
    )


def _target(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")


def _problems(case: Case[t.Any], answer: Answer) -> list[str]:
    wanted = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
        schemathesis.checks.not_a_server_error,
    ]
    try:
        case.validate_response(answer, checks=wanted)
    except FailureGroup as exc:
        return sorted(_words(one) for one in exc.exceptions)
    return []


def _words(failure: Failure) -> str:
    """What failed and where, without what was made up: the same trouble reads the same with another request."""
    lines = [line.strip() for line in f"{failure.title}\n{failure.message}".splitlines()]
    kept = [line for line in lines if line][:3]
    return re.sub(r"\s+", " ", "; ".join(kept))[:300]
