# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exercising a node's read operations, recording what it answers, and comparing later.

Only GET is ever sent. What an operation needs (a block's index, a transaction's id) is found in the node's own answers to the
operations that need nothing. Each operation with parameters is also asked for something that surely isn't there: a 404 that
becomes an empty 200 is a change of meaning that no shape shows.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import typing as t
import urllib.parse

from .._core import canonical
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, InputError, IntegrityError
from .._core.http import HttpClient, Response
from . import schema, shape
from .schema import JsonDict

FORMAT = "chainops.witness/1"
_UNSAFE = ("post", "put", "patch", "delete", "trace")
_VERBS = ("get", "head", "options", *_UNSAFE)
_ABSENT = {"integer": "999999999999", "number": "999999999999", "string": "f" * 64}
_POOL_LIMIT = 20


@dataclasses.dataclass(frozen=True)
class Parameter:
    name: str
    place: str  # path or query
    required: bool
    type: str
    examples: tuple[str, ...]
    maximum: int | None = None


@dataclasses.dataclass(frozen=True)
class Operation:
    """One GET of the document. ``label`` is ``GET /path/{name}``."""

    path: str
    operation_id: str
    parameters: tuple[Parameter, ...]
    responses: t.Mapping[str, t.Any]

    @property
    def label(self) -> str:
        return f"GET {self.path}"

    @property
    def in_path(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.place == "path")


def operations(document: JsonDict) -> tuple[list[Operation], list[str]]:
    """(the GETs, labels of everything that is never sent). Raises IntegrityError for what isn't an OpenAPI 3 document."""
    if not str(document.get("openapi", "")).startswith("3.") or not isinstance(document.get("paths"), dict):
        raise IntegrityError("not an OpenAPI 3 document: it lacks `openapi: 3.x` or `paths`")
    reads: list[Operation] = []
    unsent: list[str] = []
    for path, raw in sorted(document["paths"].items()):
        item = schema.resolve(document, raw)
        for verb in _VERBS:
            if verb in item and verb != "get":
                unsent.append(f"{verb.upper()} {path}")
        if "get" in item:
            reads.append(_operation(document, path, item))
    return reads, unsent


def _operation(document: JsonDict, path: str, item: JsonDict) -> Operation:
    operation = schema.resolve(document, item["get"])
    merged: dict[tuple[str, str], Parameter] = {}
    for raw in [*item.get("parameters", []), *operation.get("parameters", [])]:
        one = schema.resolve(document, raw)
        if one.get("in") in ("path", "query"):
            merged[(one["name"], one["in"])] = _parameter(document, one)
    for name in re.findall(r"\{([^}]+)\}", path):
        merged.setdefault((name, "path"), Parameter(name, "path", True, "string", ()))
    return Operation(path, str(operation.get("operationId", "")), tuple(merged.values()), operation.get("responses") or {})


def _parameter(document: JsonDict, one: JsonDict) -> Parameter:
    inner = schema.resolve(document, one.get("schema") or {})
    found = [one.get("example"), inner.get("example"), inner.get("default"), *(inner.get("enum") or [])[:1]]
    found += [e.get("value") for e in (one.get("examples") or {}).values() if isinstance(e, dict)]
    types = inner.get("type", "string")
    return Parameter(
        str(one["name"]),
        str(one["in"]),
        bool(one.get("required")) or one["in"] == "path",
        types if isinstance(types, str) else str(next((n for n in types if n != "null"), "string")),
        tuple(_text(e) for e in found if isinstance(e, (str, int, float))),
        inner["maximum"] if isinstance(inner.get("maximum"), int) else None,
    )


def _text(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- values from the node's own answers ------------------------------------------------------------------------------------

#: Other names by which a chain's own answers call what a parameter asks for.
_ALIASES = {
    "index": ("index", "block_number", "height"),
    "height": ("height", "block_number", "index"),
    "number": ("block_number", "index", "height"),
    "hash": ("block_hash", "hash"),
    "txid": ("txid", "tx_hash"),
    "id": ("txid", "id"),
    "address": ("address", "sender", "recipient", "miner", "proposer"),
}


class Pool:
    """Values seen in answers, by field name."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}

    def learn(self, value: t.Any, name: str = "") -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                self.learn(inner, key)
        elif isinstance(value, list):
            for inner in value[:_POOL_LIMIT]:
                self.learn(inner, name)
        elif isinstance(value, (str, int)) and not isinstance(value, bool) and name and str(value):
            have = self.values.setdefault(name.lower(), [])
            if str(value) not in have and len(have) < _POOL_LIMIT and len(str(value)) <= 200:
                have.append(str(value))

    def find(self, parameter: Parameter) -> list[str]:
        """Candidates of the right type: by the parameter's name, by its last word, by the names chains use for it."""
        low = parameter.name.lower()
        last = low.rpartition("_")[2]
        found: list[str] = []
        for name in (low, *_ALIASES.get(low, ()), *_ALIASES.get(last, ()), last):
            found += [v for v in self.values.get(name, []) if v not in found]
        if parameter.type in ("integer", "number"):
            found = [v for v in found if re.fullmatch(r"\d+", v)]
        return found


# -- one exchange ----------------------------------------------------------------------------------------------------------


def target(operation: Operation, values: t.Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """(path, query) with the values in place, escaped."""
    path = operation.path
    for p in operation.in_path:
        path = path.replace("{" + p.name + "}", urllib.parse.quote(values[p.name], safe=""))
    return path, {p.name: values[p.name] for p in operation.parameters if p.place == "query" and p.name in values}


def _kind(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _parsed(response: Response) -> t.Any:
    try:
        return response.json() if "json" in _kind(response) else None
    except ChainopsError:
        return None


def _promise(document: JsonDict, operation: Operation, response: Response) -> tuple[t.Any, list[str]]:
    """(the schema that the document has for this answer or None, what of status and content type it doesn't promise)."""
    responses = operation.responses
    code = str(response.status)
    raw = responses.get(code) or responses.get(f"{code[0]}XX") or responses.get("default")
    if raw is None:
        return None, [f"status {code} is not in the contract ({', '.join(sorted(map(str, responses))) or 'nothing is'})"]
    content = schema.resolve(document, raw).get("content") or {}
    if not content:
        return None, []
    kind = _kind(response)
    media = content.get(kind) or next((m for pattern, m in content.items() if fnmatch.fnmatch(kind, pattern)), None)
    if media is None:
        return None, [f"content type {kind or 'missing'} is not in the contract ({', '.join(content)})"]
    return (media.get("schema") if "json" in kind else None), []


def conforms(document: JsonDict, operation: Operation, response: Response) -> list[str]:
    """What an answer does that the document doesn't promise."""
    wanted, found = _promise(document, operation, response)
    if wanted is None:
        return found
    try:
        value = response.json()
    except ChainopsError as exc:
        return [exc.message]
    return schema.problems(document, wanted, value)


@dataclasses.dataclass(frozen=True)
class Options:
    """``parameters``: values by name, or by ``operation.name``. ``skip``, ``allowed``: fnmatch patterns."""

    parameters: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    skip: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    examples: int = 3
    negative: bool = True
    pause: float = 0.0


class Contract:
    """One run against one node."""

    def __init__(self, http: HttpClient, document: JsonDict, options: Options, clock: Clock = CLOCK) -> None:
        self.http = http
        self.document = document
        self.options = options
        self.clock = clock
        self.pool = Pool()
        self.sent = 0

    def _get(self, path: str, query: t.Mapping[str, str]) -> tuple[Response, float]:
        if self.sent and self.options.pause:
            self.clock.sleep(self.options.pause)
        self.sent += 1
        start = self.clock.monotonic()
        response = self.http.get(path, query or None)
        return response, round((self.clock.monotonic() - start) * 1000, 1)

    # -- conformance, and the witness ------------------------------------------------------------------------------------

    def exercise(self) -> JsonDict:
        """Ask everything once or a few times. ``{"exercised", "skipped", "unsent", "failures", "requests"}``."""
        reads, unsent = operations(self.document)
        requests: list[JsonDict] = []
        skipped: dict[str, str] = {}
        failures: list[JsonDict] = []
        exercised: set[str] = set()
        # What needs nothing first: its answers tell what the others can be asked for. What stays open is tried once more.
        waiting = sorted(reads, key=lambda o: (len(o.in_path), o.path))
        for dummy in range(2):
            again: list[Operation] = []
            for operation in waiting:
                why = self._one(operation, requests, failures)
                if why is None:
                    exercised.add(operation.label)
                    skipped.pop(operation.label, None)
                elif why:
                    skipped[operation.label] = why
                    again.append(operation)
            waiting = again
        return {
            "operations": len(reads),
            "exercised": sorted(exercised),
            "skipped": [{"operation": k, "reason": v} for k, v in sorted(skipped.items())],
            "unsent": unsent,
            "failures": failures,
            "requests": requests,
        }

    def _one(self, operation: Operation, requests: list[JsonDict], failures: list[JsonDict]) -> str | None:
        """None when it was exercised, "" when it is excused, else why it could not be."""
        if self._excused(operation):
            return ""
        choices, why = self._choices(operation)
        if why:
            return why
        for values in choices:
            request = self._ask(operation, values, "found", failures)
            requests.append(request)
        if self.options.negative and operation.in_path:
            values = {p.name: _ABSENT.get(p.type, _ABSENT["string"]) for p in operation.in_path}
            requests.append(self._ask(operation, {**choices[0], **values}, "absent", failures))
        return None

    def _excused(self, operation: Operation) -> bool:
        return any(
            fnmatch.fnmatchcase(n, pattern) for pattern in self.options.skip for n in (operation.label, operation.operation_id)
        )

    def _choices(self, operation: Operation) -> tuple[list[dict[str, str]], str]:
        found: dict[str, list[str]] = {}
        for p in operation.parameters:
            given = self.options.parameters.get(f"{operation.operation_id}.{p.name}") or self.options.parameters.get(p.name)
            if given is not None:
                found[p.name] = [str(given)]
            elif p.required:
                found[p.name] = (self.pool.find(p) or list(p.examples))[: self.options.examples]
                if not found[p.name]:
                    return [], f"nothing known to ask for as {p.name!r}: not in other answers, no example; give it in parameters"
        count = max((len(v) for v in found.values()), default=1)
        choices = [{name: values[i % len(values)] for name, values in found.items()} for i in range(count)]
        # The longest list as well: a quiet chain's last transaction may be many blocks back.
        long = {p.name: str(p.maximum) for p in operation.parameters if p.name == "limit" and p.maximum and p.name not in found}
        return ([*choices, {**choices[0], **long}] if long else choices), ""

    def _ask(self, operation: Operation, values: dict[str, str], about: str, failures: list[JsonDict]) -> JsonDict:
        path, query = target(operation, values)
        request: JsonDict = {"operation": operation.label, "path": path, "query": query, "about": about}
        try:
            response, took = self._get(path, query)
        except ChainopsError as exc:
            failures.append({"operation": operation.label, "path": path, "problem": exc.message})
            return {**request, "status": None}
        request.update(_answer(response), ms=took)
        wanted, dummy = _promise(self.document, operation, response)
        if request["shape"] is not None and wanted is not None:
            request["shape"] = shape.promised(self.document, wanted, request["shape"])
        if about == "found":
            if not 200 <= response.status < 300:
                failures.append({"operation": operation.label, "path": path, "problem": f"answered {response.status}"})
            else:
                self.pool.learn(_parsed(response))
        for problem in conforms(self.document, operation, response):
            failures.append({"operation": operation.label, "path": path, "problem": problem})
        return request

    # -- replay ----------------------------------------------------------------------------------------------------------

    def replay(self, witness: JsonDict) -> list[JsonDict]:
        """Ask exactly what the witness was asked, and list every difference."""
        if not isinstance(witness, dict) or witness.get("format") != FORMAT or not witness.get("requests"):
            raise InputError("the witness is empty or not one: give `witness` as it came from a run with mode: record")
        found: list[JsonDict] = []
        groups: dict[tuple[str, str, int | None], list[JsonDict]] = {}
        for request in witness["requests"]:
            groups.setdefault((request["operation"], request["about"], request["status"]), []).append(request)
        for (operation, about, status), requests in groups.items():
            if status is None:
                continue  # no answer before: nothing to compare with
            before: JsonDict | None = None
            after: JsonDict | None = None
            for request in requests:
                if request.get("shape") is not None:
                    before = request["shape"] if before is None else shape.join(before, request["shape"])
                try:
                    response, dummy = self._get(request["path"], request["query"])
                except ChainopsError as exc:
                    found.append(_difference(operation, "status", request["path"], f"no answer now: {exc.message}", True))
                    continue
                answer = _answer(response)
                if answer["status"] != status:
                    words = f"{request['path']}: status {answer['status']} now; it was {status}"
                    found.append(_difference(operation, "status", request["path"], words, True))
                    continue
                if answer["content_type"] != request["content_type"]:
                    words = f"{request['path']}: content type {answer['content_type']} now; it was {request['content_type']}"
                    found.append(_difference(operation, "content-type", request["path"], words, True))
                if answer["shape"] is not None:
                    after = answer["shape"] if after is None else shape.join(after, answer["shape"])
            if before is not None and after is not None and about == "found":
                found += [_difference(operation, d.kind, d.path, d.words, d.breaking) for d in shape.compare(before, after)]
        return found


def _answer(response: Response) -> JsonDict:
    value = _parsed(response)
    return {
        "status": response.status,
        "content_type": _kind(response),
        "shape": shape.of(value) if value is not None else None,
    }


def _difference(operation: str, kind: str, path: str, words: str, breaking: bool) -> JsonDict:
    return {
        "id": f"{operation} {kind} {path}",
        "operation": operation,
        "kind": kind,
        "path": path,
        "words": words,
        "breaking": breaking,
    }


# -- verdict ---------------------------------------------------------------------------------------------------------------


def judge(run: JsonDict, differences: t.Sequence[JsonDict], witness: JsonDict | None, allowed: t.Iterable[str]) -> JsonDict:
    """Pure. Not ok: nothing exercised, anything skipped, failures the witness didn't have, breaking differences not allowed."""
    patterns = list(allowed)
    known_before = {(f["operation"], _problem_key(f["problem"])) for f in (witness or {}).get("failures", [])}
    skipped_before = {s["operation"] for s in (witness or {}).get("skipped", [])}
    new = [f for f in run["failures"] if (f["operation"], _problem_key(f["problem"])) not in known_before]
    known = [f for f in run["failures"] if f not in new]
    breaking = [d for d in differences if d["breaking"]]
    excused = [d for d in breaking if any(fnmatch.fnmatchcase(d["id"], p) for p in patterns)]
    reasons: list[str] = []
    if not run["exercised"]:
        reasons.append(f"no operation was exercised ({run['operations']} in the document)")
    reasons += [f"{s['operation']} was skipped: {s['reason']}" for s in run["skipped"]]
    before = set((witness or {}).get("exercised", []))
    reasons += [
        f"{label} was exercised before and is not any more"
        for label in sorted(before - set(run["exercised"]))
        if label not in {s["operation"] for s in run["skipped"]} and label not in {d["operation"] for d in differences}
    ]
    reasons += [f"{f['operation']}: {f['problem']}" for f in new]
    reasons += [f"{d['operation']}: {d['words']}" for d in breaking if d not in excused]
    return {
        "ok": not reasons,
        "reasons": list(dict.fromkeys(reasons)),
        "operations": run["operations"],
        "exercised": len(run["exercised"]),
        "requests": len(run["requests"]),
        "skipped": [{**s, "before": s["operation"] in skipped_before} for s in run["skipped"]],
        "unsent": run["unsent"],
        "failures": new,
        "known_failures": known,
        "differences": [
            d["words"] if d["kind"] == "status" else f"{d['operation']}: {d['words']}" for d in breaking if d not in excused
        ],
        "allowed": [f"{d['operation']}: {d['words']}" for d in excused],
        "unimportant": [f"{d['operation']}: {d['words']}" for d in differences if not d["breaking"]],
    }


def _problem_key(problem: str) -> str:
    """The same trouble with another block's numbers is the same trouble."""
    return re.sub(r"[0-9a-fA-F]{16,}|\d+", "#", problem)


def witness_of(run: JsonDict, document: JsonDict) -> JsonDict:
    """What to keep until after the upgrade."""
    return {
        "format": FORMAT,
        "document_sha256": canonical.digest(document),
        "version": str((document.get("info") or {}).get("version", "")),
        **{key: run[key] for key in ("exercised", "skipped", "failures", "requests")},
    }
