# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: API keys, the admin token, CSRF tokens and rate limits, as the XAI node asks for them.

CSRF tokens are an HMAC over the session and an expiry under a secret that all nodes share (``REFNODE_CSRF_SECRET``), so a token
taken from one node is good on every other. Without the variable each process makes its own secret: XAI's behaviour, where a
token dies with the process.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
import typing as t

from .web import Request, Response, reply

COOKIE = "xai_wallet_session"
LIFETIME = 86_400  # seconds
EXEMPT = (
    "/health",
    "/metrics",
    "/stats",
    "/blocks",
    "/transaction",
    "/balance",
    "/peer",
    "/faucet/claim",
    "/csrf-token",
    "/p2p/",
)
SAFE = ("GET", "HEAD", "OPTIONS")


def _words(name: str) -> frozenset[str]:
    return frozenset(filter(None, (word.strip() for word in os.environ.get(name, "").split(","))))


def _among(offered: str, known: t.Iterable[str]) -> bool:
    found = [
        hmac.compare_digest(offered.encode("utf-8", "replace"), word.encode()) for word in known
    ]  # all of them, in equal time
    return any(found)


def failure(message: str, code: str, http_status: int, /, **context: t.Any) -> Response:
    """XAI's error body."""
    body: dict[str, t.Any] = {"success": False, "error": message, "code": code}
    if context:
        body["context"] = context
    return reply(body, http_status)


class Access:
    """Checks of one process; everything comes from the environment."""

    def __init__(self) -> None:
        self.required = os.environ.get("XAI_API_AUTH_REQUIRED", "1") not in ("0", "false", "no")
        self.keys = _words("XAI_API_KEYS")
        self.admin = _words("XAI_API_ADMIN_TOKEN") | _words("XAI_API_ADMIN_KEYS")
        self._secret = (os.environ.get("REFNODE_CSRF_SECRET") or secrets.token_hex(32)).encode()
        self.limited = os.environ.get("XAI_RATE_LIMIT_ENABLED", "1") not in ("0", "false", "no")
        self.limit = int(os.environ.get("REFNODE_RATE_LIMIT", "12000"))
        self.admin_limit = int(os.environ.get("REFNODE_ADMIN_RATE_LIMIT", "600"))
        self._window = 0
        self._counts: dict[tuple[str, str], int] = {}

    # -- rates --------------------------------------------------------------------------------------------------------------

    def too_many(self, request: Request) -> Response | None:
        """Requests a minute for one client and one path."""
        if not self.limited or request.path.startswith("/p2p/"):
            return None
        window = int(time.monotonic() // 60)
        if window != self._window:
            self._window, self._counts = window, {}
        key = (request.remote, request.path)
        self._counts[key] = self._counts.get(key, 0) + 1
        if request.path.startswith("/admin/"):
            if self._counts[key] > self.admin_limit:
                answer = failure("Rate limit exceeded", "rate_limited", 429)
                body = {"success": False, "error": "Rate limit exceeded", "code": "rate_limited", "retry_after": 60}
                answer = reply(body, 429)
                answer.headers = {"Retry-After": "60", "X-RateLimit-Limit": str(self.admin_limit), "X-RateLimit-Remaining": "0"}
                return answer
        elif self._counts[key] > self.limit:
            return reply({"error": "Rate limit exceeded. Please try again later."}, 429)
        return None

    # -- CSRF ---------------------------------------------------------------------------------------------------------------

    def _mac(self, *parts: str) -> str:
        return hmac.new(self._secret, "|".join(parts).encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _session(self, request: Request) -> str | None:
        for piece in request.headers.get("cookie", "").split(";"):
            name, _equals, value = piece.strip().partition("=")
            session, _dot, mac = value.partition(".")
            if (
                name == COOKIE
                and session
                and hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac("session", session).encode())
            ):
                return session
        return None

    def issue(self, request: Request) -> Response:
        """``GET /csrf-token``."""
        session = self._session(request) or secrets.token_hex(16)
        expiry = f"{int(time.time()) + LIFETIME:x}"
        answer = reply({"csrf_token": f"{expiry}.{self._mac('token', session, expiry)}", "session_id": session})
        cookie = f"{COOKIE}={session}.{self._mac('session', session)}"
        answer.headers = {"Set-Cookie": f"{cookie}; Secure; HttpOnly; Path=/; SameSite=Strict", "Cache-Control": "no-store"}
        return answer

    def csrf(self, request: Request) -> Response | None:
        """The refusal, or None when the request may go on."""
        if request.method in SAFE or request.path.startswith(EXEMPT):
            return None
        token = request.headers.get("x-csrf-token") or request.headers.get("x-csrftoken") or ""
        session = self._session(request)
        expiry, _dot, mac = token.partition(".")
        good = session is not None and hmac.compare_digest(
            mac.encode("utf-8", "replace"), self._mac("token", session or "", expiry).encode()
        )
        if good and int(expiry, 16) >= time.time():
            return None
        return reply({"error": "Security validation failed. Please refresh and try again."}, 403)

    # -- keys ---------------------------------------------------------------------------------------------------------------

    def _offered(self, request: Request) -> str:
        bearer = request.headers.get("authorization", "")
        return (
            request.headers.get("x-api-key")
            or (bearer[7:] if bearer.startswith("Bearer ") else "")
            or request.query.get("api_key", "")
        )

    def key(self, request: Request) -> Response | None:
        """Refusal of a write without an API key (an admin token does as well)."""
        if not self.required or _among(self._offered(request), self.keys) or self._is_admin(request):
            return None
        reason = "invalid_api_key" if self._offered(request) else "missing_api_key"
        return failure("API key required", "unauthorized", 401, reason=reason)

    def _is_admin(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        token = request.headers.get("x-admin-token") or (given[6:] if given.startswith("Admin ") else "")
        return bool(token) and _among(token, self.admin)

    def administrator(self, request: Request, *, always: bool = False) -> Response | None:
        """As on XAI, without required authentication the admin routes are open, except those that say ``always``."""
        if self._is_admin(request) or (not self.required and not always):
            return None
        if request.headers.get("x-admin-token") or request.headers.get("authorization", "").startswith("Admin "):
            return failure("Insufficient permissions", "admin_unauthorized", 403)
        return failure("Admin token missing", "admin_unauthorized", 401)
