# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError, InputError, Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._core.http import HttpClient
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._core import hostile

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ENDLESS = [
    (b"", b"HTTP/1.1 200 OKOKOK"),
    (OK, b"X-More: y\r\n"),
    (OK + b"X-Long: ", b"y"),
    (b"", CONTINUE),
    (OK + b"\r\n", b"x"),
    (OK + b"Content-Length: 999999999\r\n\r\n", b"x"),
    (CHUNKED, b"1\r\nx\r\n"),
    (CHUNKED + b"5;", b"extension"),
    (CHUNKED + b"0\r\n", b"Trailer: x\r\n"),
]


def client(server: hostile.Server, **options: t.Any) -> HttpClient:
    return HttpClient(server.url, **{"timeout": 0.4, "deadline": 0.8, "max_bytes": 50_000, "retries": 0, **options})


@pytest.mark.parametrize(("first", "again"), ENDLESS)
def test_an_answer_that_never_ends_is_given_up_at_the_deadline(first: bytes, again: bytes) -> None:
    with hostile.serving(lambda path: hostile.drip(first, again)) as server, client(server) as http:
        outcome = hostile.ends(lambda: http.get("/"), 8)
        assert isinstance(outcome, HttpError) and "took longer than 0.8 s" in outcome.message


@pytest.mark.parametrize(("first", "again"), ENDLESS)
def test_an_answer_without_end_is_given_up_at_the_cap(first: bytes, again: bytes) -> None:
    # No deadline that could end it first.
    with hostile.serving(lambda path: hostile.flood(first, again)) as server, client(server, deadline=600.0) as http:
        outcome = hostile.ends(lambda: http.get("/"), 60)
        assert isinstance(outcome, (HttpError, Unreachable)), outcome
        assert any(word in outcome.message for word in ("larger than", "LineTooLong", "more than 200 lines", "informational"))


def test_a_server_that_says_nothing_is_given_up_at_the_timeout() -> None:
    with hostile.serving(lambda path: [600.0]) as server, client(server) as http:
        assert isinstance(hostile.ends(lambda: http.get("/"), 8), Unreachable)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK + b"Content-Length: 2\r\n\r\nhi", b"hi"),
        (OK + b"content-length:2\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (CHUNKED + b"2;x=y\r\nhi\r\n4\r\n you\r\n0\r\nTrailer: x\r\n\r\n", b"hi you"),
        (OK + b"\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (CONTINUE + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_answers_as_servers_may_frame_them(raw: bytes, body: bytes) -> None:
    with hostile.serving(lambda path: [raw]) as server, client(server) as http:
        assert http.get("/").body == body


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        OK,
        OK + b"no colon\r\n\r\n",
        OK + b" folded: x\r\n\r\n",
        OK + b"Content-Length: -2\r\n\r\nhi",
        OK + b"Content-Length: " + b"9" * 60_000 + b"\r\n\r\nhi",
        OK + b"Content-Length: 20\r\n\r\ncut short",
        CHUNKED + b"5\r\nhi",
        CHUNKED + b"zz\r\nhi",
        CHUNKED + b"-5\r\nhi\r\n",
    ],
)
def test_an_answer_that_is_none_is_refused(raw: bytes) -> None:
    with hostile.serving(lambda path: [raw]) as server, client(server) as http:
        assert isinstance(hostile.ends(lambda: http.get("/"), 8), (HttpError, Unreachable))


def test_a_connection_closed_while_idle_is_opened_again() -> None:
    with hostile.serving(lambda path: list(hostile.answer(b"{}"))[:1]) as server, client(server) as http:
        assert [http.get(path).status for path in ("/a", "/b", "/c")] == [200] * 3
        assert server.asked == ["/a", "/b", "/c"]


def test_two_lengths_are_none() -> None:
    raw = OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi"
    with hostile.serving(lambda path: [raw]) as server, client(server) as http, pytest.raises(Unreachable, match="is none"):
        http.get("/")


def test_what_was_left_of_one_deadline_does_not_shorten_the_next_wait() -> None:
    class Clock(clock.Clock):
        def __init__(self) -> None:
            self.ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    ticking = Clock()

    def script(path: str) -> hostile.Script:
        if path == "/late":
            yield OK + b"Content-Length: 2\r\n\r\n"
            yield 0.05
            ticking.ahead += 99.5
            yield b"h"
            yield 0.05
            yield b"i"
        else:
            yield 1.0
            yield from hostile.answer(b"{}")
        yield hostile.KEEP

    with hostile.serving(script) as server, client(server, timeout=30.0, deadline=100.0, clock=ticking) as http:
        assert [http.get(path).status for path in ("/late", "/next")] == [200] * 2
        assert server.asked == ["/late", "/next"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a b", {}), ("/a\r\nX: y", {}), ("/\u00e9", {}), ("/", {"X": "y\r\nZ: z"}), ("/", {"X\n": "y"})],
)
def test_nothing_slips_into_a_request(path: str, headers: dict[str, str]) -> None:
    with hostile.serving(lambda path: hostile.answer(b"{}")) as server, client(server) as http:
        with pytest.raises(InputError, match="not fit for a request"):
            http.request("GET", path, headers=headers)
        assert server.asked == []
