# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that opens HTTP connections: keep-alive, on ``http.client``.

Every request has a timeout and a size cap. Redirects are never followed (a redirect to another chain is a lie, not an
answer). The server's error body is kept. Only idempotent verbs are retried, with jitter.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import typing as t
import urllib.parse

from . import canonical
from .clock import CLOCK, Clock
from .errors import HttpError, InputError, Unreachable

IDEMPOTENT = frozenset({"GET", "HEAD"})


class Response(t.NamedTuple):
    """``headers`` has lower-case names; ``body`` is whole."""

    status: int
    headers: t.Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> t.Any:
        """The body, parsed strictly. Raises HttpError when it is not JSON."""
        try:
            return canonical.loads(self.body, f"answer of {self.url}")
        except Exception as exc:
            raise HttpError(str(exc), url=self.url, status=self.status, body=excerpt(self.body)) from exc


def excerpt(body: bytes, limit: int = 400) -> str:
    """The beginning of a body, for messages."""
    return body[:limit].decode("utf-8", "replace")


def public_url(url: str) -> str:
    """The URL without user, password, query and fragment: fit for messages and reports."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return urllib.parse.urlunsplit((parts.scheme, host + port, parts.path, "", ""))


class HttpClient:
    """One keep-alive connection to one server. Not thread-safe: one a thread.

    ``timeout`` is seconds for connecting and for each read; ``max_bytes`` caps a body; ``deadline`` (seconds) caps one whole
    exchange, so that a server that sends a byte now and then can't hold us.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10.0,
        deadline: float | None = None,
        headers: t.Mapping[str, str] | None = None,
        max_bytes: int = 64 << 20,
        retries: int = 1,
        ca_file: str | None = None,
        verify_tls: bool = True,
        clock: Clock = CLOCK,
    ) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"not an http(s) URL: {public_url(base_url) or base_url!r}; expected http://HOST:PORT")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.deadline = deadline if deadline is not None else max(3 * timeout, timeout + 5)
        self.max_bytes = max_bytes
        self.retries = retries
        self._headers = {"User-Agent": "chainops.validator", "Accept": "application/json", **(headers or {})}
        self._parts = parts
        self._clock = clock
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
            if not verify_tls:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def url(self, path: str) -> str:
        """Base URL and path, without secrets."""
        return public_url(self.base_url + path)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: t.Mapping[str, t.Any] | None = None,
        body: t.Any = None,
        headers: t.Mapping[str, str] | None = None,
    ) -> Response:
        """One exchange, whatever its status. Raises Unreachable, or HttpError for a broken answer."""
        target = self._parts.path.rstrip("/") + path
        if query:
            target += "?" + urllib.parse.urlencode(query)
        sent = dict(self._headers, **(headers or {}))
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else canonical.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        attempts = 1 + (self.retries if method in IDEMPOTENT else 0)
        for attempt in range(1, attempts + 1):
            try:
                return self._exchange(method, target, data, sent, self.url(path))
            except Unreachable:
                if attempt == attempts:
                    raise
                self._clock.sleep(random.uniform(0.05, 0.25) * attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable code")

    def _exchange(self, method: str, target: str, data: bytes | None, headers: dict[str, str], shown: str) -> Response:
        reused = self._connection is not None
        connection = self._connection = self._connection or self._connect()
        until = self._clock.monotonic() + self.deadline
        try:
            connection.request(method, target, body=data, headers=headers)
            answer = connection.getresponse()
            body = self._read(answer, until, shown)
        except HttpError:
            self.close()
            raise
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            # A server may close an idle connection at any time: for that alone, a safe request goes once more over a new one.
            if reused and method in IDEMPOTENT and not isinstance(exc, (socket.timeout, TimeoutError)):
                return self._exchange(method, target, data, headers, shown)
            raise Unreachable(f"no answer from {shown}: {type(exc).__name__}: {exc}", url=shown) from exc
        if answer.will_close:
            self.close()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, body, shown)

    def _connect(self) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._tls is not None:
            return http.client.HTTPSConnection(host, self._parts.port, timeout=self.timeout, context=self._tls)
        return http.client.HTTPConnection(host, self._parts.port, timeout=self.timeout)

    def _read(self, answer: http.client.HTTPResponse, until: float, shown: str) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := answer.read1(1 << 16):
            size += len(piece)
            pieces.append(piece)
            if size > self.max_bytes:
                raise HttpError(f"answer of {shown} is larger than {self.max_bytes} bytes", url=shown, status=answer.status)
            if self._clock.monotonic() > until:
                raise HttpError(f"answer of {shown} took longer than {self.deadline} s", url=shown, status=answer.status)
        if answer.length:  # read1 ends quietly when a body is cut short
            raise HttpError(f"answer of {shown} was cut short by {answer.length} bytes", url=shown, status=answer.status)
        answer.close()  # read to its end: the connection is free for the next request
        return b"".join(pieces)

    def get(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> Response:
        """GET, whatever the status."""
        return self.request("GET", path, query=query)

    def get_json(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> t.Any:
        """GET; a 200 with JSON, or HttpError."""
        return expect(self.get(path, query)).json()

    def post_json(self, path: str, body: t.Any, headers: t.Mapping[str, str] | None = None) -> t.Any:
        """POST JSON; a 2xx with JSON, or HttpError."""
        return expect(self.request("POST", path, body=body, headers=headers), *range(200, 300)).json()


def expect(response: Response, *statuses: int) -> Response:
    """The response when its status is one of ``statuses`` (default 200), else HttpError with the server's words."""
    if response.status in (statuses or (200,)):
        return response
    words = excerpt(response.body)
    raise HttpError(f"{response.url} answered {response.status}: {words}", url=response.url, status=response.status, body=words)
