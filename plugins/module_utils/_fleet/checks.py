# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators' own checks, as data: a URL, and a JMESPath expression that must say true of the JSON that it answers.

Evaluated on the controller, which needs the library ``jmespath`` for it and for nothing else.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, InputError
from .._core.http import HttpClient, public_url
from .network import Finding

try:
    import jmespath
    import jmespath.exceptions

    JMESPATH_ERROR = ""
except ImportError as exc:
    jmespath = None
    JMESPATH_ERROR = str(exc)

#: Seconds that an answer "too many requests" may ask us to wait.
_PATIENCE = 30.0


@dataclasses.dataclass(frozen=True)
class Check:
    """``url``: whole, or a path (``/stats``) that every node is asked. ``attempts``: how often it is asked until it holds."""

    name: str
    url: str
    expression: str
    headers: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    attempts: int = 3
    delay: float = 1.0


@dataclasses.dataclass(frozen=True)
class Result:
    """Whether one check held at one place; ``said`` is what the expression gave, or why there is nothing to give."""

    check: str
    node: str | None
    url: str
    ok: bool
    said: str


def require(checks: t.Sequence[Check]) -> None:
    """Raises InputError when checks can't be evaluated here, or can't be right; before anybody is asked anything."""
    if not checks:
        return
    if jmespath is None:
        raise InputError(
            f"checks need the Python library jmespath on the controller, in the same Python as ansible-core ({JMESPATH_ERROR}): "
            "install it, or leave checks out"
        )
    names = [check.name for check in checks]
    if len(set(names)) < len(names):
        raise InputError(f"two checks have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    for check in checks:
        if check.attempts < 1 or check.delay < 0:
            raise InputError(f"check {check.name!r}: attempts must be at least 1, delay not negative")
        if not check.url.startswith(("/", "http://", "https://")):
            raise InputError(f"check {check.name!r}: url must be a path, asked of every node, or begin with http:// or https://")
        try:
            jmespath.compile(check.expression)
        except jmespath.exceptions.JMESPathError as exc:
            raise InputError(f"check {check.name!r}: not a JMESPath expression: {exc}") from exc


def holds(expression: str, document: t.Any) -> tuple[bool, str]:
    """(whether it is exactly true, what it is). Truthy is not enough: an expression that finds nothing must not pass."""
    try:
        value = jmespath.search(expression, document)
    except jmespath.exceptions.JMESPathError as exc:
        return False, f"{expression}: {exc}"
    except (TypeError, ValueError) as exc:  # a comparison or a function of what isn't there
        return False, f"{expression}: {exc}"
    return value is True, f"{expression} is {str(value)[:120] if value is not None else 'null'}"


def run(
    checks: t.Sequence[Check], nodes: t.Mapping[str, str], *, timeout: float = 10.0, clock: Clock = CLOCK
) -> tuple[Result, ...]:
    """Ask all of them. ``nodes``: API addresses by name."""
    require(checks)
    results = []
    for check in checks:
        places: list[tuple[str | None, str]] = [(None, check.url)]
        if check.url.startswith("/"):
            places = [(name, url.rstrip("/") + check.url) for name, url in nodes.items()]
        results += [_one(check, node, url, timeout, clock) for node, url in places]
    return tuple(results)


def _one(check: Check, node: str | None, url: str, timeout: float, clock: Clock) -> Result:
    ok, said = False, ""
    for attempt in range(check.attempts):
        if attempt:
            clock.sleep(check.delay)
        ok, said = _ask(check, url, timeout, clock)
        if ok:
            break
    return Result(check.name, node, public_url(url), ok, said)


def _ask(check: Check, url: str, timeout: float, clock: Clock) -> tuple[bool, str]:
    scheme, _sep, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    try:
        with HttpClient(f"{scheme}://{host}", timeout=timeout, headers=check.headers, max_bytes=16 << 20, clock=clock) as client:
            answer = client.get(slash + path or "/")
            wait = answer.headers.get("retry-after", "")
            if answer.status == 429 and wait.isdigit() and int(wait) <= _PATIENCE:
                clock.sleep(float(wait))
                answer = client.get(slash + path or "/")
            if answer.status != 200:
                return False, f"status {answer.status}, not 200"
            return holds(check.expression, answer.json())
    except ChainopsError as exc:
        return False, exc.message


def findings(results: t.Iterable[Result]) -> list[Finding]:
    """What did not hold."""
    return [
        Finding("check", one.node, f"check {one.check!r}{f' of {one.node}' if one.node else ''} does not hold: {one.said}")
        for one in results
        if not one.ok
    ]
