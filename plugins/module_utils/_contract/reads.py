# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only way from this room to a node: GET, at a pace the node bears, until the time is up.

Whatever a document declares and whoever makes requests from it, what is not a plain read is refused here: another method, a
body, a header or query that would have a server take the request for another method, a path that climbs.
"""

from __future__ import annotations

import collections
import typing as t
import urllib.parse

from .._core.clock import CLOCK, Clock
from .._core.errors import Refused
from .._core.http import HttpClient, Response

#: Seconds in which a path may be asked ``per_path`` times.
WINDOW = 60.0
#: How often a request is sent at most while the node says 429, and the seconds between that it may ask for.
_TRIES, _PATIENCE = 3, WINDOW

#: What frameworks take for another method than the one that was sent.
_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override", "x-original-method"})
_OVERRIDE_QUERY = frozenset({"_method", "x-http-method-override", "x-http-method", "x-method-override"})
#: What says who asks, and what frames a request: ours alone.
_OURS = frozenset(
    {"authorization", "cookie", "host", "x-api-key", "x-admin-token", "x-csrf-token", "content-length", "transfer-encoding"}
    | {
        "connection",
        "expect",
        "te",
        "trailer",
        "upgrade",
        "accept-encoding",
        "x-forwarded-for",
        "x-original-url",
        "x-rewrite-url",
    }
)


class TimeUp(Refused):
    """The time for the whole run is over: nothing more is sent."""


class Reads:
    """Sends reads. ``per_path``: requests to one path in a minute; ``pause``: seconds between any two; ``seconds``: for all.

    A node that answers 429 is waited for, as long as it says, at most a minute a time.
    """

    def __init__(
        self, http: HttpClient, *, per_path: int = 60, pause: float = 0.0, seconds: float = 600.0, clock: Clock = CLOCK
    ) -> None:
        self.http = http
        self.per_path = max(per_path, 1)
        self.pause = pause
        self.clock = clock
        self.sent = 0
        self.seconds = seconds
        self._until = clock.monotonic() + seconds
        self._asked: dict[str, collections.deque[float]] = {}

    def get(self, path: str, query: t.Mapping[str, str] | None = None) -> tuple[Response, float]:
        """(the answer, milliseconds it took). Raises what the HTTP client raises, and TimeUp."""
        return self.send("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def send(
        self, method: str, target: str, headers: t.Mapping[str, str] | None = None, body: bytes | str | None = None
    ) -> tuple[Response, float]:
        """``target``: path and query, escaped. Raises Refused, before anything is sent, for what is not a plain read."""
        kept = plain(method, target, headers or {}, body)
        for attempt in range(1, _TRIES + 1):
            self._wait(target.partition("?")[0])
            start = self.clock.monotonic()
            self.sent += 1
            response = self.http.request("GET", target, headers=kept)
            took = round((self.clock.monotonic() - start) * 1000, 1)
            if response.status != 429 or attempt == _TRIES:
                break
            self._rest(asked_to_wait(response.headers.get("retry-after")))
        return response, took

    def _wait(self, path: str) -> None:
        """Until another request to this path is within its rate."""
        asked = self._asked.setdefault(path, collections.deque())
        if self.sent and self.pause:
            self._rest(self.pause)
        if len(asked) >= self.per_path:
            self._rest(asked[0] + WINDOW - self.clock.monotonic())
            asked.popleft()
        self._rest(0.0)
        asked.append(self.clock.monotonic())

    def _rest(self, seconds: float) -> None:
        left = self._until - self.clock.monotonic()
        if left <= max(seconds, 0.0):
            raise TimeUp(
                f"the {self.seconds:g} seconds for all requests were up; the node's rate limit leaves no more (raise time_limit)"
            )
        if seconds > 0:
            self.clock.sleep(seconds)


def plain(method: str, target: str, headers: t.Mapping[str, str], body: bytes | str | None) -> dict[str, str]:
    """The headers that may go with this request. Raises Refused for what is not a plain read."""
    if method != "GET":
        raise Refused(f"{method} is never sent: reading takes GET alone", method=method)
    if body:
        raise Refused("a read with a body is never sent", method=method)
    parts = urllib.parse.urlsplit(target)
    path = urllib.parse.unquote(parts.path, errors="replace")
    if not target.startswith("/") or parts.netloc or any(one in ("..", ".") for one in path.replace("\\", "/").split("/")):
        raise Refused(f"not a path below the node's own address: {target[:200]}", method=method)
    names = {name.lower() for name, _value in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)}
    found = sorted((names & _OVERRIDE_QUERY) | ({name.lower() for name in headers} & _OVERRIDES))
    if found:
        raise Refused(f"{found[0]} would make another method of it, and is never sent", method=method)
    return {name: value for name, value in headers.items() if name.lower() not in _OURS}


def asked_to_wait(header: str | None) -> float:
    """Seconds that a 429 asks for; 5 where it doesn't say in whole seconds, and never more than a minute."""
    text = (header or "").strip()
    return min(float(text), _PATIENCE) if text.isascii() and text.isdigit() and len(text) < 9 else 5.0
