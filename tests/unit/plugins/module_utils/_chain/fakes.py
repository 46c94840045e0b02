# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small nodes on 127.0.0.1 that answer like the real ones, the nasty answers included."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import typing as t
import urllib.parse

HTML_404 = (404, "text/html", b"<!doctype html><title>404 Not Found</title>")


class FakeNode:
    """``routes`` maps a path (or ``"POST /path"``) to a JSON value, a (status, value) pair, a (status, type, bytes) triple, or
    a callable that gets the request's headers (and its query, as the header ``:query``) and returns one of these."""

    def __init__(self, routes: dict[str, t.Any]) -> None:
        self.routes = routes
        self.seen: list[tuple[str, dict[str, str], t.Any]] = []
        self.headers: dict[str, dict[str, str]] = {}
        self.url = ""

    def paths(self) -> list[str]:
        return [line for line, _headers, _body in self.seen]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers and body in one segment, or every answer waits for a delayed acknowledgement

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.serve("GET")

    def do_POST(self) -> None:
        self.serve("POST")

    def serve(self, method: str) -> None:
        node = self.server.node  # type: ignore[attr-defined]
        parts = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {":query": parts.query, **{k.lower(): v for k, v in self.headers.items()}}
        line = parts.path if method == "GET" else f"POST {parts.path}"
        node.seen.append((line, headers, json.loads(body) if body else None))
        found = node.routes.get(line, HTML_404)
        if callable(found):
            found = found(headers)
        if not (isinstance(found, tuple) and len(found) == 3):
            status, value = found if isinstance(found, tuple) else (200, found)
            found = (status, "application/json", json.dumps(value).encode())
        status, kind, data = found
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in node.headers.get(line, {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serving(routes: dict[str, t.Any]) -> t.Iterator[FakeNode]:
    node = FakeNode(routes)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.node = node  # type: ignore[attr-defined]
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hash_of(height: int, chain: str = "a") -> str:
    return f"{chain}{height:063x}"


def block(height: int, chain: str = "a", signers: t.Sequence[str] | None = None) -> dict[str, t.Any]:
    doc = {
        "index": height,
        "hash": hash_of(height, chain),
        "previous_hash": hash_of(height - 1, chain) if height else "0",
        "merkle_root": "0" * 64,
        "timestamp": 1700000000.0 + height,
        "miner": "TXAIminer",
        "transactions": [{"txid": f"{height:064x}", "metadata": {}}],
        "difficulty": 0,
        "nonce": 0,
    }
    if signers is not None:
        doc["last_commit"] = {
            "height": height - 1,
            "round": 0,
            "block_hash": doc["previous_hash"],
            "signatures": [{"address": a, "signature": "00"} for a in signers],
        }
    return doc


def common(tip: int, chain: str = "a", signers: t.Sequence[str] | None = None) -> dict[str, t.Any]:
    routes: dict[str, t.Any] = {
        "/health": {"status": "healthy", "services": {"api": "running", "storage": "ok", "p2p": "ok"}, "network": {"peers": 3}},
        "/stats": {
            "chain_height": tip + 1,
            "is_mining": True,
            "peers": 3,
            "pending_transactions_count": 2,
            "miner_address": "TXAIminer",
        },
        "/block/latest": {
            "block_number": tip,
            "hash": hash_of(tip, chain),
            "timestamp": 1700000000.0 + tip,
            "summary": {"height": tip, "hash": hash_of(tip, chain)},
        },
        "/peers": {
            "count": 2,
            "peers": ["http://p1", "wss://me:8765"],
            "verbose": True,
            "connections": [{"peer_id": "1"}, {"peer_id": "2"}],
        },
        "/metrics": (200, "text/plain; version=0.0.4", b"# HELP x y\nxai_validator_double_sign_events_total 0.0\n"),
        "/csrf-token": {"csrf_token": "tok1", "session_id": "sid"},
        "/contracts/governance/status": {
            "success": True,
            "feature_name": "smart_contracts",
            "config_enabled": False,
            "governance_enabled": False,
            "contract_manager_ready": False,
        },
    }
    for height in range(tip + 1):
        routes[f"/blocks/{height}"] = block(height, chain, None if signers is None else signers if height else ())
    return routes


def xai(tip: int = 5, **more: t.Any) -> dict[str, t.Any]:
    """As a real node with its own identity as the only validator."""
    return {
        **common(tip),
        "/finality/status": {"finality_enabled": True, "total_validators": 1, "highest_finalized_height": tip, "quorum_power": 1},
        "/finality/validators": {
            "finality_enabled": True,
            "total_validators": 1,
            "validators": [{"address": "xaitest1me", "public_key": "ab", "voting_power": 1}],
        },
        # Older blocks without transactions: what a restarted node serves here.
        "/blocks": {"total": tip + 1, "limit": 10, "offset": 0, "blocks": [{"index": tip, "hash": hash_of(tip)}]},
        **more,
    }


VALIDATORS = ("TXAIa", "TXAIb", "TXAIc", "TXAId")


def reference(
    tip: int = 5, address: str | None = "TXAIa", version: str = "1.0.0", chain: str = "a", **more: t.Any
) -> dict[str, t.Any]:
    return {
        **common(tip, chain, signers=VALIDATORS),
        "/version": {
            "software": "refnode",
            "version": version,
            "release_id": version,
            "storage_level": 1,
            "chain_id": "devnet-1",
            "genesis_hash": hash_of(0, chain),
            "signature_scheme": "full-v1",
        },
        "/finality/status": {
            "finalized_height": tip,
            "finalized_hash": hash_of(tip, chain),
            "equivocations": [],
            "validator_address": address,
        },
        "/finality/validators": {"validators": [{"address": a, "public_key": "ab", "voting_power": 10} for a in VALIDATORS]},
        **more,
    }
