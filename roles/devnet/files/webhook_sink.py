# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for whatever people are told through: takes every POST and keeps it, so that a test can ask what was said.

    POST /anything            kept as one line of JSON: time, path, body (parsed when it is JSON), whether it was authorized
    GET  /received[?path=/x]  everything kept so far, as a JSON list

Usage: webhook_sink.py PORT FILE
"""

from __future__ import annotations

import json
import sys
import threading
import time
import typing as t
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_LIMIT = 1 << 20


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    path_of_file: t.ClassVar[str]
    lock = threading.Lock()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_LIMIT:
            self.close_connection = True
            self.answer(413, {"error": f"more than {BODY_LIMIT} bytes"})
            return
        raw = self.rfile.read(length)
        try:
            body: t.Any = json.loads(raw)
        except ValueError:
            body = raw.decode("utf-8", "replace")
        entry = {
            "time": time.time(),
            "path": self.path,
            # Never the value: what is kept here is read by people.
            "authorized": "Authorization" in self.headers,
            "body": body,
        }
        with self.lock, open(self.path_of_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.answer(200, {"ok": True})

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        if parts.path != "/received":
            self.answer(404, {"error": "only /received"})
            return
        wanted = urllib.parse.parse_qs(parts.query).get("path")
        try:
            with self.lock, open(self.path_of_file, encoding="utf-8") as file:
                entries = [json.loads(line) for line in file]
        except FileNotFoundError:
            entries = []
        self.answer(200, [entry for entry in entries if not wanted or entry["path"] in wanted])

    def answer(self, status: int, body: t.Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    Sink.path_of_file = sys.argv[2]
    ThreadingHTTPServer(("", int(sys.argv[1])), Sink).serve_forever()
