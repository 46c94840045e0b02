# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exercising a node's read operations, recording what it answers, and judging it later.

What an operation needs (a block's index, a transaction's id) is found in the node's own answers to the operations that need
nothing. Each operation with parameters is also asked for something that surely isn't there: a 404 that becomes an empty 200 is
a change of meaning that no shape shows. And something is asked for that the document doesn't have at all: a server that says
yes to that would say yes to everything.
"""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import hashlib
import re
import typing as t
import urllib.parse
import zlib

from .._core import canonical
from .._core.errors import ChainopsError, InputError, IntegrityError
from .._core.http import Response
from . import evolution, generated, schema, shape
from . import witness as witnesses
from .reads import Reads, TimeUp
from .schema import JsonDict

FORMAT = "chainops.witness/1"
_UNSAFE = ("post", "put", "patch", "delete", "trace")
_VERBS = ("get", "head", "options", *_UNSAFE)
_ABSENT = {"integer": "999999999999", "number": "999999999999", "string": "f" * 64}
_POOL_LIMIT = 20
_MAX_WITNESS = 256 << 20
#: How often an operation that seems slow is asked again before that is believed.
_AGAIN = 3
#: Said of a whole API, not of an operation.
_ANY = "the API"
_LIMITED = "the node says 429 although it was waited for (lower rate_limit, or raise time_limit)"


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
    """``parameters``: values by name, or by ``operation.name``. ``skip``: patterns. ``generated``: requests to make up for each
    operation, valid and invalid ones each, from ``seed``; ``scratch``: a directory for what that writes."""

    parameters: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    skip: tuple[str, ...] = ()
    examples: int = 3
    negative: bool = True
    generated: int = 0
    seed: int = 1
    scratch: str = "."


def matches(pattern: str, text: str) -> bool:
    """``*`` is any text; everything else is itself (the ``[]`` of a list's items, too)."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


class Contract:
    """One run against one node."""

    def __init__(self, reads: Reads, document: JsonDict, options: Options) -> None:
        self.reads = reads
        self.document = document
        self.options = options
        self.pool = Pool()
        self.coverage: dict[str, JsonDict] = {}

    # -- conformance, and the witness ------------------------------------------------------------------------------------

    def exercise(self) -> JsonDict:
        """Ask everything once or a few times. ``{"operations", "exercised", "skipped", "excused", "unsent", "coverage",
        "credulous", "failures", "requests"}``."""
        reads, unsent = operations(self.document)
        requests: list[JsonDict] = []
        skipped: dict[str, str] = {}
        failures: list[JsonDict] = []
        exercised: set[str] = set()
        excused = {o.label for o in reads if self._excused(o.label, o.operation_id)}
        self.coverage = {o.label: {"found": 0, "absent": 0, "generated": 0, "statuses": {}} for o in reads}
        # What needs nothing first: its answers tell what the others can be asked for. What stays open is tried once more.
        waiting = sorted((o for o in reads if o.label not in excused), key=lambda o: (len(o.in_path), o.path))
        for dummy in range(2):
            again: list[Operation] = []
            for operation in waiting:
                why = self._one(operation, requests, failures)
                if why:
                    skipped[operation.label] = why
                    again.append(operation)
                else:
                    exercised.add(operation.label)
                    skipped.pop(operation.label, None)
            waiting = again
        if self.options.generated > 0:
            self._make_up([o for o in reads if o.label not in excused], skipped, failures)
        return {
            "operations": len(reads),
            "exercised": sorted(exercised),
            "skipped": [{"operation": k, "reason": v} for k, v in sorted(skipped.items())],
            "excused": sorted(excused),
            "unsent": unsent,
            "coverage": self.coverage,
            "credulous": self._credulous(reads, failures),
            "failures": failures,
            "requests": requests,
        }

    def _count(self, label: str, about: str, status: str, number: int = 1) -> None:
        seen = self.coverage[label]
        seen[about] += number
        seen["statuses"][status] = seen["statuses"].get(status, 0) + number

    def _make_up(self, reads: t.Sequence[Operation], skipped: dict[str, str], failures: list[JsonDict]) -> None:
        sent, found = generated.exercise(
            self.document,
            self.reads,
            count=self.options.generated,
            seed=self.options.seed,
            excused=self._excused,
            scratch=self.options.scratch,
        )
        failures += found
        for operation in reads:
            one = sent.get(operation.label) or generated.Sent(0, {}, "schemathesis did not collect it")
            for status, number in one.statuses.items():
                self._count(operation.label, "generated", status, number)
            if one.skipped:
                skipped.setdefault(operation.label, f"generated requests: {one.skipped}")

    def _credulous(self, reads: t.Sequence[Operation], failures: list[JsonDict]) -> str:
        """Why this server can't be believed; empty when it can. It is asked for what the document has no path for."""
        path = "/" + "/".join(
            ["no-such-path", canonical.digest(self.document)[:16]] * (1 + max((o.path.count("/") for o in reads), default=0))
        )
        try:
            response, dummy = self.reads.get(path)
        except ChainopsError as exc:
            failures.append({"operation": _ANY, "path": path, "problem": exc.message})
            return ""
        if response.status >= 300:
            return ""
        return f"{_ANY} answers {response.status} to what its document doesn't have ({path}): its answers prove nothing"

    def _one(self, operation: Operation, requests: list[JsonDict], failures: list[JsonDict]) -> str:
        """Empty when it was exercised, else why it could not be."""
        choices, why = self._choices(operation)
        if why:
            return why
        asked = []
        try:
            for values in choices:
                asked.append(self._ask(operation, values, "found", failures))
            if self.options.negative and operation.in_path:
                values = {p.name: _ABSENT.get(p.type, _ABSENT["string"]) for p in operation.in_path}
                asked.append(self._ask(operation, {**choices[0], **values}, "absent", failures))
        except TimeUp as exc:
            return exc.message
        if any(request["status"] == 429 for request in asked):
            return _LIMITED
        requests += asked
        return ""

    def _excused(self, label: str, operation_id: str) -> bool:
        return any(matches(pattern, name) for pattern in self.options.skip for name in (label, operation_id))

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
            response, took = self.reads.get(path, query)
        except TimeUp:
            raise
        except ChainopsError as exc:
            failures.append({"operation": operation.label, "path": path, "problem": exc.message})
            self._count(operation.label, about, "none")
            return {**request, "status": None, "error": exc.message}
        self._count(operation.label, about, str(response.status))
        wanted, dummy = _promise(self.document, operation, response)
        request.update(_answer(self.document, wanted, response), ms=[took])
        if request["shape"] is not None and wanted is not None:
            request["shape"] = shape.promised(self.document, wanted, request["shape"])
        if response.status == 429:
            return request
        good = 200 <= response.status < 300
        if about == "found" and good:
            self.pool.learn(_parsed(response))
        problems = conforms(self.document, operation, response)
        if about == "found" and not good:
            problems.insert(0, f"answered {response.status}")
        failures += [{"operation": operation.label, "path": path, "problem": problem} for problem in problems]
        return request

    # -- replay ----------------------------------------------------------------------------------------------------------

    def replay(self, witness: JsonDict, factor: float = 0.0) -> list[JsonDict]:
        """Ask exactly what the witness was asked. The answers, in the witness's order, for ``witness.compare``. What seems to
        have become slow by ``factor`` is asked a few times more."""
        if (
            not isinstance(witness, dict)
            or witness.get("format") != FORMAT
            or not (witness.get("requests") and witness.get("document"))
        ):
            raise InputError("the witness is empty or not one: give `witness` as it came from a run with mode: record")
        old = witness["document"]
        known = {operation.label: operation for operation in operations(old)[0]}
        answers = [self._repeat(old, known.get(request["operation"]), request) for request in witness["requests"]]
        slow = {one["operation"] for one in witnesses.slower(witness["requests"], answers, factor)} if factor > 0 else set()
        for request, answer in zip(witness["requests"], answers):
            if request["operation"] in slow and answer["status"] is not None:
                slow.discard(request["operation"])
                for dummy in range(_AGAIN):
                    answer["ms"] += self._repeat(old, None, request).get("ms", [])
        return answers

    def _repeat(self, old: JsonDict, operation: Operation | None, request: JsonDict) -> JsonDict:
        asked = {"operation": request["operation"], "path": request["path"], "about": request["about"]}
        try:
            response, took = self.reads.get(request["path"], request["query"])
        except ChainopsError as exc:
            return {**asked, "status": None, "error": exc.message}
        wanted = _promise(old, operation, response)[0] if operation is not None else None
        return {**asked, **_answer(old, wanted, response), "ms": [took]}


def _answer(document: JsonDict, wanted: t.Any, response: Response) -> JsonDict:
    value = _parsed(response)
    return {
        "status": response.status,
        "content_type": _kind(response),
        "headers": witnesses.headers_of(response.headers),
        "shape": shape.of_answer(document, {} if wanted is None else wanted, value) if value is not None else None,
    }


def differences(witness: JsonDict, answers: t.Sequence[JsonDict], document: JsonDict, factor: float) -> list[JsonDict]:
    """Everything that is not as the witness has it: the answers, and what the document promises. Pure."""
    found = witnesses.compare(witness["requests"], answers, factor)
    for one in evolution.compare(witness["document"], document):
        found.append(witnesses.difference(one.operation, one.kind, one.where, f"the document: {one.words}", one.breaking))
    return found


# -- verdict ---------------------------------------------------------------------------------------------------------------


def judge(run: JsonDict, differences: t.Sequence[JsonDict], witness: JsonDict | None, allowed: t.Iterable[str]) -> JsonDict:
    """Pure. Not ok: nothing exercised, anything skipped, a server that says yes to everything, failures the witness didn't have,
    breaking differences that nobody declared."""
    patterns = list(allowed)
    known_before = {(f["operation"], _problem_key(f["problem"])) for f in (witness or {}).get("failures", [])}
    skipped_before = {s["operation"] for s in (witness or {}).get("skipped", [])}
    new = [f for f in run["failures"] if (f["operation"], _problem_key(f["problem"])) not in known_before]
    known = [f for f in run["failures"] if f not in new]
    breaking = [d for d in differences if d["breaking"]]
    declared = [d for d in breaking if any(matches(p, d["id"]) for p in patterns)]
    undeclared = [d for d in breaking if d not in declared]
    reasons: list[str] = []
    if not run["exercised"]:
        reasons.append(f"no operation was exercised ({run['operations']} in the document)")
    if run["credulous"]:
        reasons.append(run["credulous"])
    reasons += [f"{s['operation']} was skipped: {s['reason']}" for s in run["skipped"]]
    before = set((witness or {}).get("exercised", []))
    told = {s["operation"] for s in run["skipped"]} | {d["operation"] for d in breaking}
    reasons += [f"{label} was exercised before and is not any more" for label in sorted(before - set(run["exercised"]) - told)]
    reasons += [f"{f['operation']}: {f['problem']}" for f in new]
    reasons += [f"{d['operation']}: {d['words']}" for d in undeclared]
    return {
        "ok": not reasons,
        "reasons": list(dict.fromkeys(reasons)),
        "operations": run["operations"],
        "exercised": len(run["exercised"]),
        "requests": sum(one[about] for one in run["coverage"].values() for about in ("found", "absent", "generated")),
        "coverage": run["coverage"],
        "skipped": [{**s, "before": s["operation"] in skipped_before} for s in run["skipped"]],
        "excused": run["excused"],
        "unsent": run["unsent"],
        "failures": new,
        "known_failures": known,
        "differences": [f"{d['operation']}: {d['words']}" for d in undeclared],
        "allowed": [f"{d['operation']}: {d['words']}" for d in declared],
        "unseen": [p for p in patterns if not any(matches(p, d["id"]) for d in breaking)] if witness else [],
        "unimportant": [f"{d['operation']}: {d['words']}" for d in differences if not d["breaking"]],
    }


def _problem_key(problem: str) -> str:
    """The same trouble with another block's numbers is the same trouble; with another status it is another."""
    return re.sub(r"(status |answered |Received: )?([0-9a-fA-F]{16,}|\d+)", lambda m: m[0] if m[1] else "#", problem)


def pack(witness: JsonDict) -> str:
    """A witness as one word. Much of it is the node's own text, and must not come near a template; and it is large."""
    data = canonical.dumps(witness)
    return f"{FORMAT}:{hashlib.sha256(data).hexdigest()}:{base64.b64encode(zlib.compress(data, 9)).decode('ascii')}"


def unpack(text: str) -> JsonDict:
    """What ``pack`` packed, whole. Raises InputError for anything else."""
    form, _colon, rest = text.strip().partition(":")
    digest, _colon, packed = rest.partition(":")
    if form != FORMAT:
        raise InputError("the witness is empty or not one: give `witness` as it came from a run with mode: record")
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(packed, validate=True), _MAX_WITNESS)
    except (ValueError, zlib.error) as exc:
        raise InputError(f"the witness is broken: {exc}") from exc
    if not unpacker.eof or hashlib.sha256(data).hexdigest() != digest:
        raise InputError("the witness is broken: it is not what was recorded")
    witness: JsonDict = canonical.loads(data, "the witness")
    return witness


def witness_of(run: JsonDict, document: JsonDict) -> JsonDict:
    """What to keep until after the upgrade."""
    return {
        "format": FORMAT,
        "document": document,
        "document_sha256": canonical.digest(document),
        "version": str((document.get("info") or {}).get("version", "")),
        **{key: run[key] for key in ("exercised", "skipped", "failures", "requests")},
    }
