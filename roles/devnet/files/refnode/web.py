# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 over asyncio streams: a server that drains and a client that keeps its connections.

Only what the node needs. A web framework would take longer to import than a whole stop, migration and start may take.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http
import time
import typing as t
import urllib.parse

from . import canon

MAX_HEAD = 65_536  # bytes
MAX_BODY = 10 * 1024 * 1024
IDLE_SECONDS = 75.0
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "QUERY"))


class BadRequest(Exception):
    """The bytes are no HTTP request we read; the connection ends after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclasses.dataclass
class Request:
    method: str
    path: str  # as sent, without the query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    remote: str
    keep_alive: bool = True

    def json(self) -> t.Any:
        """The body as strict JSON. Raises ValueError."""
        return canon.loads(self.body)


@dataclasses.dataclass
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    def encode(self, *, head_only: bool, keep_alive: bool) -> bytes:
        try:
            reason = http.HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {reason}", "Server: refnode"]
        if self.status != 304:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append("Connection: keep-alive" if keep_alive else "Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        return head if head_only or self.status == 304 else head + self.body


def reply(value: t.Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer."""
    return Response(
        status, canon.dumps(value).encode("ascii"), headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


Handler = t.Callable[[Request], t.Awaitable[Response]]


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.busy = False


class Server:
    """Serves one handler on any number of sockets."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.draining = False
        self.busy = 0
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def listen(self, host: str, port: int) -> None:
        """Raises OSError when the address is taken."""
        server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD, backlog=512, reuse_address=True)
        self._servers.append(server)

    def connections(self) -> int:
        return len(self._connections)

    async def drain(self, seconds: float) -> bool:
        """Take no new connection, close idle ones, let requests in flight finish. False when some didn't in time."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            if not connection.busy:
                connection.writer.close()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
            done = True
        except TimeoutError:
            done = False
        for connection in list(self._connections):
            connection.writer.close()
        return done

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        peer = writer.get_extra_info("peername")
        remote = peer[0] if isinstance(peer, tuple) else "unknown"
        try:
            while not self.draining:
                try:
                    request = await self._read(reader, writer, remote)
                except BadRequest as exc:
                    writer.write(reply({"error": exc.message}, exc.status).encode(head_only=False, keep_alive=False))
                    await writer.drain()
                    break
                if request is None:
                    break
                connection.busy = True
                self.busy += 1
                self._idle.clear()
                try:
                    response = await self.handler(request)
                    keep = request.keep_alive and not self.draining
                    writer.write(response.encode(head_only=request.method == "HEAD", keep_alive=keep))
                    await writer.drain()
                finally:
                    connection.busy = False
                    self.busy -= 1
                    if not self.busy:
                        self._idle.set()
                if not keep:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, remote: str) -> Request | None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise BadRequest(431, "request head too large") from None
        lines = head[:-4].decode("latin-1").lstrip("\r\n").split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadRequest(400, "malformed request line")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequest(400, "malformed header")
            key = name.lower()
            if key in ("content-length", "transfer-encoding", "host") and key in headers and headers[key] != value.strip():
                raise BadRequest(400, f"contradictory {key}")
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers and key != "host" else value.strip()
        if parts[0] not in METHODS:
            raise BadRequest(501, "unknown method")
        async with asyncio.timeout(IDLE_SECONDS):
            body = await self._body(reader, writer, headers)
        target, _hash, _fragment = parts[1].partition("#")
        if target.startswith(("http://", "https://")):
            target = "/" + target.split("/", 3)[3] if target.count("/") >= 3 else "/"
        path, _mark, query = target.partition("?")
        try:
            pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=200)
        except ValueError:
            raise BadRequest(400, "malformed query") from None
        connection = headers.get("connection", "").lower()
        keep = "close" not in connection if parts[2] == "HTTP/1.1" else "keep-alive" in connection
        values: dict[str, str] = {}
        for name, value in pairs:  # given twice, a parameter is neither of the two
            values[name] = f"{values[name]},{value}" if name in values else value
        return Request(parts[0], path, values, headers, body, remote, keep)

    @staticmethod
    async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: t.Mapping[str, str]) -> bytes:
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and length is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if coding is None and length is None:
            return b""
        if length is not None and not (length.isascii() and length.isdigit()):
            raise BadRequest(400, "malformed Content-Length")
        if length is not None and int(length) > MAX_BODY:
            raise BadRequest(413, "request body too large")
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length is not None:
            return await reader.readexactly(int(length))
        if t.cast(str, coding).lower() != "chunked":
            raise BadRequest(501, "unknown Transfer-Encoding")
        chunks, total = [], 0
        while True:
            try:
                line = await reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0].strip(), 16)
            except (ValueError, asyncio.LimitOverrunError):
                raise BadRequest(400, "malformed chunk") from None
            total += size
            if size < 0 or total > MAX_BODY:
                raise BadRequest(413, "request body too large")
            if size == 0:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return b"".join(chunks)
            chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)


class Unreachable(Exception):
    """No answer from a peer."""


class Client:
    """Talks to one base URL over kept connections. Safe to use from many tasks of one loop."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// URL")
        self.url = url.rstrip("/")
        self.host, self.port = parts.hostname, parts.port or 80
        self._pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.latency = 0.0

    async def request(
        self,
        method: str,
        path: str,
        value: t.Any = None,
        *,
        timeout: float = 5.0,
        connect: float = 1.0,
        headers: t.Mapping[str, str] | None = None,
    ) -> tuple[int, t.Any]:
        """(status, JSON body or None). Raises Unreachable."""
        body = b"" if value is None else canon.dumps(value).encode("ascii")
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", f"Content-Length: {len(body)}"]
        if body:
            lines.append("Content-Type: application/json")
        lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
        message = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                while self._pool:
                    pair = self._pool.pop()
                    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, OSError):
                        return await self._exchange(pair, message, began)
                async with asyncio.timeout(connect):
                    pair = await asyncio.open_connection(self.host, self.port, limit=MAX_HEAD)
                return await self._exchange(pair, message, began)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as exc:
            raise Unreachable(f"{self.url}: {type(exc).__name__} {exc}".strip()) from exc

    async def _exchange(
        self, pair: tuple[asyncio.StreamReader, asyncio.StreamWriter], message: bytes, began: float
    ) -> tuple[int, t.Any]:
        reader, writer = pair
        good = False
        try:
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            headers = {
                name.strip().lower(): text.strip() for name, _colon, text in (line.partition(":") for line in head[1:]) if name
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.latency = time.monotonic() - began
            if headers.get("connection", "").lower() != "close" and len(self._pool) < 8:
                self._pool.append(pair)
                good = True
        finally:
            if not good:
                writer.close()
        return status, canon.loads(body) if body and headers.get("content-type", "").startswith("application/json") else None

    def close(self) -> None:
        for _reader, writer in self._pool:
            writer.close()
        self._pool.clear()
