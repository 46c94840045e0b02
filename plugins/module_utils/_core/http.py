# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that opens HTTP connections: keep-alive, on ``http.client``.

Every request has a timeout, a deadline and a size cap, from the first byte of an answer on. Redirects are never followed (a
redirect to another chain is a lie, not an answer). The server's error body is kept. Only idempotent verbs are retried, with
jitter.
"""

from __future__ import annotations

import http.client
import io
import random
import re
import socket
import ssl
import typing as t
import urllib.parse

from . import canonical
from .clock import CLOCK, Clock
from .errors import HttpError, InputError, Unreachable

IDEMPOTENT = frozenset({"GET", "HEAD"})

#: Bytes of an answer before its body, and lines of them: more is not a head.
MAX_HEAD, MAX_LINES = 1 << 16, 200

#: What has no place in a request's first line.
_UNFIT = re.compile(r"[^!-~]")


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
    exchange, so that a server that sends a byte now and then can't hold us. Where it sends them makes no difference: status,
    headers, chunk sizes and trailers are read through the same two caps.
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
        self._public = public_url(self.base_url)
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
        return self._public + path.partition("?")[0]

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
        try:
            if connection.sock is None:
                connection.connect()
            sock: socket.socket = connection.sock
            sock.settimeout(self.timeout)  # the answer before may have been near its deadline
            sock.sendall(self._head(method, target, data, headers) + (data or b""))
            answer = _Answer(_Wire(sock, self.timeout, self.deadline, self.max_bytes, shown, self._clock), method)
            answer.begin()
            body = self._read(answer, shown)
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

    def _head(self, method: str, target: str, data: bytes | None, headers: t.Mapping[str, str]) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._parts.netloc.rpartition('@')[2]}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if data is not None or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(data or b'')}")
        head = "\r\n".join(lines)
        # What comes from elsewhere (a txid, a token) must not become another header or another request.
        if _UNFIT.search(target) or _UNFIT.search(method) or head.count("\r") + head.count("\n") != 2 * len(lines) - 2:
            raise InputError(f"not fit for a request: {method!r} {target!r:.200} with headers {', '.join(headers)!r:.200}")
        return head.encode("latin-1") + b"\r\n\r\n"

    def _connect(self) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._tls is not None:
            return http.client.HTTPSConnection(host, self._parts.port, timeout=self.timeout, context=self._tls)
        return http.client.HTTPConnection(host, self._parts.port, timeout=self.timeout)

    def _read(self, answer: http.client.HTTPResponse, shown: str) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := answer.read1(1 << 16):
            size += len(piece)
            pieces.append(piece)
            if size > self.max_bytes:
                raise HttpError(f"answer of {shown} is larger than {self.max_bytes} bytes", url=shown, status=answer.status)
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


class _Wire(io.RawIOBase):
    """What a server sends as one answer: not for longer than ``seconds`` in all, and not more than ``most`` bytes of body."""

    def __init__(self, sock: socket.socket, timeout: float, seconds: float, most: int, shown: str, clock: Clock) -> None:
        self._sock = sock
        self._timeout = timeout
        self._seconds = seconds
        self._clock = clock
        self._until = clock.monotonic() + seconds
        self._most = most
        self._left = most + 2 * MAX_HEAD + (most >> 2)  # what frames a body may take a quarter of it
        self._shown = shown

    def makefile(self, mode: str) -> io.BufferedReader:
        """What the library asks a socket for."""
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        left = self._until - self._clock.monotonic()
        try:
            if left <= 0:
                raise socket.timeout
            if left < self._timeout:
                self._sock.settimeout(left)
            size = self._sock.recv_into(buffer)
        except (socket.timeout, TimeoutError) as exc:
            if left > self._timeout:
                raise
            words = f"answer of {self._shown} took longer than {self._seconds:g} s"
            raise HttpError(words, url=self._shown, status=None) from exc
        self._left -= size
        if self._left < 0:
            raise HttpError(f"answer of {self._shown} is larger than {self._most} bytes", url=self._shown, status=None)
        return size


class _Answer(http.client.HTTPResponse):
    """An answer read through a ``_Wire``. Its head is plain lines: the library's own way is made for e-mail, takes as long as all
    the rest of a small exchange, and waits for ever while a server says "100 Continue"."""

    def __init__(self, wire: _Wire, method: str) -> None:
        super().__init__(t.cast(socket.socket, wire), method=method)
        self._asked = method

    def begin(self) -> None:
        left = MAX_HEAD
        for _try in range(MAX_LINES):
            left = self._head(left)
            if self.status // 100 != 1 or self.status == 101:
                break
        else:
            raise http.client.BadStatusLine("nothing but informational answers")
        connection = (self.headers.get("connection") or "").lower()
        lengths = {value.strip() for value in self.headers.get_all("content-length") or ()}
        self.chunked = (self.headers.get("transfer-encoding") or "").strip().lower() == "chunked"
        self.chunk_left = None
        self.length = None
        if self._asked == "HEAD" or self.status in (204, 304):
            self.chunked, self.length = False, 0
        elif not self.chunked and lengths:
            text = lengths.pop()
            if lengths or not (text.isascii() and text.isdigit() and len(text) < 19):
                raise http.client.HTTPException(f"a Content-Length that is none: {text:.40}")
            self.length = int(text)
        self.will_close = "close" in connection if self.version == 11 else "keep-alive" not in connection
        if not self.chunked and self.length is None:
            self.will_close = True

    def _head(self, left: int) -> int:
        """Status line and headers, of no more than ``left`` bytes; how many bytes are left."""
        self.headers = self.msg = http.client.HTTPMessage()
        first = True
        for _line in range(MAX_LINES):
            raw = self.fp.readline(left + 1)
            left -= len(raw)
            if left < 0:
                raise http.client.LineTooLong("head")
            if not raw.endswith(b"\n"):
                raise http.client.RemoteDisconnected("closed without an answer" if first and not raw else "head cut short")
            line = raw.decode("latin-1").strip("\r\n")
            if first:
                protocol, _space, rest = line.partition(" ")
                code, _space, self.reason = rest.partition(" ")
                if protocol not in ("HTTP/1.0", "HTTP/1.1") or not (len(code) == 3 and code.isascii() and code.isdigit()):
                    raise http.client.BadStatusLine(repr(line[:100]))
                self.version, self.status = int(protocol[5] + protocol[7]), int(code)
                self.code, first = self.status, False
                continue
            if not line:
                return left
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise http.client.HTTPException(f"a header that is none: {line[:100]!r}")
            self.headers.set_raw(name, value.strip())
        raise http.client.HTTPException(f"more than {MAX_LINES} lines before the body")


def expect(response: Response, *statuses: int) -> Response:
    """The response when its status is one of ``statuses`` (default 200), else HttpError with the server's words."""
    if response.status in (statuses or (200,)):
        return response
    words = excerpt(response.body)
    raise HttpError(f"{response.url} answered {response.status}: {words}", url=response.url, status=response.status, body=words)
