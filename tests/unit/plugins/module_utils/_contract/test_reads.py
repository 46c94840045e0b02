# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._contract.reads import Reads, TimeUp, asked_to_wait, plain
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused
from ansible_collections.chainops.validator.plugins.module_utils._core.http import HttpClient, Response


class Still(Clock):
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Line(HttpClient):
    """What was sent when, with the answers that a test wants."""

    def __init__(self, clock: Still, *answers: tuple[int, dict[str, str]]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.still = clock
        self.answers = list(answers)
        self.sent: list[tuple[float, str, str]] = []
        self.headers: list[t.Mapping[str, str]] = []

    def request(self, method: str, path: str, **more: t.Any) -> Response:
        self.sent.append((self.still.now, method, path))
        self.headers.append(more.get("headers") or {})
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        return Response(status, headers, b"{}", path)


def reads(*answers: tuple[int, dict[str, str]], **options: t.Any) -> tuple[Reads, Line, Still]:
    clock = Still()
    line = Line(clock, *answers)
    return Reads(line, clock=clock, **options), line, clock


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "HEAD", "CONNECT", "QUERY", "get", "GET ", ""]
)
def test_nothing_but_get_is_sent(method: str) -> None:
    one, line, _clock = reads()
    with pytest.raises(Refused):
        one.send(method, "/stats")
    assert line.sent == []


@given(st.text(max_size=8).filter(lambda text: text != "GET"))
def test_no_other_word_is_get(method: str) -> None:
    with pytest.raises(Refused):
        plain(method, "/stats", {}, None)


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/stats", {}, b"{}"),
        ("/stats", {}, "x"),
        ("/stats", {"X-HTTP-Method-Override": "DELETE"}, None),
        ("/stats", {"x-http-method": "POST"}, None),
        ("/stats", {"X-Method-Override": "POST"}, None),
        ("/stats?_method=DELETE", {}, None),
        ("/stats?a=1&%5Fmethod=DELETE", {}, None),
        ("/stats?_METHOD=delete", {}, None),
        ("/a/../admin", {}, None),
        ("/a/%2e%2E/admin", {}, None),
        ("/a/..%2fadmin", {}, None),
        ("/a/%2e%2e%5cadmin", {}, None),
        ("//elsewhere/stats", {}, None),
        ("http://elsewhere/stats", {}, None),
        ("stats", {}, None),
    ],
)
def test_what_could_be_more_than_a_read_is_refused(target: str, headers: dict[str, str], body: t.Any) -> None:
    one, line, _clock = reads()
    with pytest.raises(Refused):
        one.send("GET", target, headers, body)
    assert line.sent == []


def test_what_says_who_asks_is_ours_alone() -> None:
    one, line, _clock = reads()
    one.send(
        "GET",
        "/stats",
        {"Authorization": "x", "COOKIE": "x", "Host": "x", "X-API-Key": "x", "Content-Length": "9", "If-None-Match": "1"},
    )
    assert line.headers == [{"If-None-Match": "1"}]


def test_dots_within_a_name_are_a_name() -> None:
    one, line, _clock = reads()
    one.get("/v1.0/a..b/%2E%2E%2E", {"x": "../y"})
    assert line.sent[0][2] == "/v1.0/a..b/%2E%2E%2E?" + urllib.parse.urlencode({"x": "../y"})


@given(st.integers(1, 6), st.lists(st.sampled_from(["/a", "/b", "/b?x=1"]), max_size=40))
def test_no_path_is_asked_more_often_than_its_rate_in_any_minute(rate: int, paths: list[str]) -> None:
    one, line, _clock = reads(per_path=rate, seconds=1e9)
    for path in paths:
        one.send("GET", path)
    assert len(line.sent) == len(paths)
    for start, _method, path in line.sent:
        same = [moment for moment, _get, other in line.sent if other.partition("?")[0] == path.partition("?")[0]]
        assert sum(start <= moment < start + 60 for moment in same) <= rate


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *[(None, 5.0), ("", 5.0), ("7", 7.0), (" 7 ", 7.0), ("0", 0.0), ("3600", 60.0)],
        *[("-1", 5.0), ("1.5", 5.0), ("9" * 30, 5.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 5.0), ("\u0663", 5.0)],
    ],
)
def test_how_long_a_node_may_ask_to_wait(header: str | None, seconds: float) -> None:
    assert asked_to_wait(header) == seconds


def test_a_node_that_says_429_is_waited_for_and_not_for_ever() -> None:
    one, line, _clock = reads((429, {"retry-after": "30"}), (200, {}))
    assert one.get("/a")[0].status == 200
    assert [moment - 1000 for moment, _get, _path in line.sent] == [0, 30]
    one, line, _clock = reads(*[(429, {})] * 9)
    assert one.get("/a")[0].status == 429
    assert len(line.sent) == 3


def test_when_the_time_is_up_nothing_more_is_sent() -> None:
    one, line, clock = reads(per_path=1, seconds=30)
    one.get("/a")
    with pytest.raises(TimeUp, match="30 seconds"):
        one.get("/a")  # it would have to wait for longer
    one.get("/b")
    clock.now += 30
    with pytest.raises(TimeUp):
        one.get("/c")
    assert [path for _moment, _get, path in line.sent] == ["/a", "/b"]


def test_a_pause_is_between_any_two() -> None:
    one, line, _clock = reads(pause=2.0)
    for path in "/a", "/b", "/c":
        one.get(path)
    assert [moment - 1000 for moment, _get, _path in line.sent] == [0, 2, 4]
