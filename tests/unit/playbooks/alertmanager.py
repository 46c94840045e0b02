# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Alertmanager for playbooks: what monitoring_info and alertmanager_silence ask of one."""

from __future__ import annotations

import http.server
import json
import threading
import typing as t

#: Paths that answer while Alertmanager is well.
ANSWERS: dict[str, t.Any] = {
    "/-/ready": "",
    "/api/v2/status": {"config": {"original": "receivers: [{name: operators, webhook_configs: [{url: http://there}]}]"}},
    "/api/v2/receivers": [{"name": "operators"}],
    "/api/v2/alerts": [],
}


class Alertmanager:
    """Keeps silences, until ``well`` says that it is not: asked with a method and a path before each answer."""

    def __init__(self, well: t.Callable[[str, str], bool]) -> None:
        self.silences: list[dict[str, t.Any]] = []
        self.answers = dict(ANSWERS)
        this = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(size)
                path = self.path.partition("?")[0]
                said = this.at(self.command, path, sent) if well(self.command, path) else None
                body = json.dumps(said).encode() if said != "" else b""
                self.send_response(503 if said is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def at(self, method: str, path: str, sent: bytes) -> t.Any:
        if path == "/api/v2/silences" and method == "POST":
            self.silences.append({**json.loads(sent), "id": f"s{len(self.silences)}", "status": {"state": "active"}})
            return {"silenceID": self.silences[-1]["id"]}
        if path == "/api/v2/silences":
            return self.silences
        if method == "DELETE":
            one = next(s for s in self.silences if s["id"] == path.rpartition("/")[2])
            one["status"]["state"] = "expired"
            return ""
        return self.answers[path]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
