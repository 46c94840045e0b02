# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server on a real socket of 127.0.0.1 that sends exactly the bytes it is told to, at the pace it is told to."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError

#: Bytes to send, or seconds to wait before more of them. The connection is closed after the last one, unless that is KEEP.
Script = t.Iterable[t.Union[bytes, float]]
KEEP = b""

T = t.TypeVar("T")


class Server:
    """``script`` gets the path that is asked for and says what to send. ``asked`` are all paths, in the order of their coming."""

    def __init__(self, script: t.Callable[[str], Script]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.busy = 0
        self.most = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def connections(self) -> int:
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
                while line := stream.readline():
                    while stream.readline().strip():
                        pass
                    path = line.split(b" ")[1].decode()
                    with self._lock:
                        self.asked.append(path)
                        self.busy += 1
                        self.most = max(self.most, self.busy)
                    try:
                        if not self._answer(connection, self.script(path)):
                            return
                    finally:
                        with self._lock:
                            self.busy -= 1
        finally:
            with self._lock:
                self._open.discard(connection)

    def _answer(self, connection: socket.socket, script: Script) -> bool:
        piece: bytes | float = 0.0
        for piece in script:
            if isinstance(piece, float):
                if self._stop.wait(piece):
                    return False
            elif piece:
                connection.sendall(piece)
        return piece == KEEP

    def close(self) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)


@contextlib.contextmanager
def serving(script: t.Callable[[str], Script]) -> t.Iterator[Server]:
    server = Server(script)
    try:
        yield server
    finally:
        server.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> Script:
    """A good answer, with the connection left open."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body, KEEP]


def drip(first: bytes, again: bytes, every: float = 0.05) -> Script:
    """``first`` at once, and then a byte of ``again`` now and then, for ever."""
    yield first
    for number in itertools.cycle(again):
        yield every
        yield bytes([number])


def flood(first: bytes, again: bytes) -> Script:
    """``first``, and then ``again`` for ever, as fast as it goes."""
    yield first
    piece = again * (1 + (1 << 14) // len(again))
    while True:
        yield piece


def ends(work: t.Callable[[], T], within: float) -> T | ChainopsError:
    """What became of it. It must end by itself: ``within`` is many times as long as it may take."""
    outcome: list[t.Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except ChainopsError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(within)
    assert not thread.is_alive(), f"still at it after {within} s"
    return t.cast("T | ChainopsError", outcome[0])
