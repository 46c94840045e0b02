#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node small enough for unit tests: it speaks what the adapter asks, keeps a data directory, signs, and misbehaves as told.

The network it belongs to is a clock: its height is a function of the time. A release is a directory with this file as
``bin/xai-node`` and ``bin/migrate`` beside a ``release.json``.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import signal
import sys
import threading
import time
import typing as t
import urllib.parse


class Network:
    """``{"origin", "pace", "blocks": [...], "addresses": [...]}``: the blocks there are, and one more each ``pace`` seconds."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as stream:
            told = json.load(stream)
        self.origin, self.pace, self.addresses = told["origin"], told["pace"], told["addresses"]
        self.blocks: list[dict[str, t.Any]] = told["blocks"]

    def height(self) -> int:
        return self.first + int((time.time() - self.origin) / self.pace)

    @property
    def first(self) -> int:
        return self._first

    def ready(self) -> Network:
        self._first = len(self.blocks) - 1
        return self

    def block(self, index: int, salt: str = "") -> dict[str, t.Any]:
        while len(self.blocks) <= index:
            before = self.blocks[-1]
            here = len(self.blocks)
            self.blocks.append(
                {
                    "index": here,
                    "previous_hash": before["hash"],
                    "hash": hashlib.sha256(f"{before['hash']}{here}".encode()).hexdigest(),
                    "timestamp": self.origin + (here - self.first) * self.pace,
                    "transactions": [],
                    "miner": self.addresses[here % len(self.addresses)],
                    "last_commit": {"signatures": [{"address": a, "signature": "00"} for a in self.addresses]},
                }
            )
        block = {**self.blocks[index], "previous_hash": self.blocks[index]["previous_hash"] or "0" * 64}
        return {**block, "hash": hashlib.sha256((block["hash"] + salt).encode()).hexdigest()} if salt else block


def write(path: str, value: t.Any) -> None:
    with open(path + ".tmp", "w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".tmp", path)


def read(path: str) -> t.Any:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


#: What every node of the network knows of double signing.
DOUBLE = os.environ.get("FAKE_NETWORK", "") + ".double"


class Node:
    def __init__(self, data: str, release: dict[str, t.Any], network: Network, signed_log: str) -> None:
        self.data, self.release, self.network, self.signed_log = data, release, network, signed_log
        self.behave = release.get("behave", "")
        if read(os.path.join(data, "schema.json"))["level"] != release["level"]:
            sys.exit(f"data are at another level than {release['level']}")
        self.address = "TXAIother" if self.behave == "other_key" else read(os.path.join(data, "node_identity.json"))["address"]
        self.height = read(os.path.join(data, "state.json"))["height"]
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(self.network.pace / 4):
            tip = self.network.height()
            if self.behave == "stall":
                continue
            while self.height < tip:
                self.height += 1
                with open(os.path.join(self.data, "blocks", "blocks_0.json"), "a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"index": self.height}) + "\n")
            self.save()
            self.sign(tip)

    def save(self) -> None:
        write(os.path.join(self.data, "state.json"), {"height": self.height, "by": self.release["version"]})

    def sign(self, height: int) -> None:
        path = os.path.join(self.data, "finality", "last_signed.json")
        if read(path)["height"] >= height:
            return
        if self.behave == "equivocates":
            write(DOUBLE, {"address": self.address, "height": height})
        write(path, {"address": self.address, "height": height, "round": 0, "step": 3, "block_hash": "", "updated": time.time()})
        with open(self.signed_log, "a", encoding="utf-8") as stream:
            stream.write(f"{height} {os.getpid()}\n")

    def answer(self, path: str) -> t.Any:
        path, _, query = path.partition("?")
        salt = "fork" if self.behave == "fork" else ""
        if path == "/version":
            return {
                "version": self.release["version"],
                "release_id": self.release["version"],
                "chain_id": "unit-1",
                "genesis_hash": self.network.block(0)["hash"],
                "signature_scheme": "full-v1",
            }
        if path == "/health":
            return {"status": "degraded" if self.behave == "sick" else "healthy", "services": {}}
        if path == "/block/latest":
            block = self.network.block(self.height, salt)
            return {"block_number": self.height, "hash": block["hash"], "timestamp": block["timestamp"]}
        if path == "/stats":
            return {"peers": 3, "pending_transactions_count": 0, "is_mining": True}
        if path == "/finality/status":
            found = [read(DOUBLE)] if os.path.exists(DOUBLE) else []
            return {"finalized_height": self.height, "validator_address": self.address, "equivocations": found}
        if path == "/finality/validators":
            return {"validators": [{"address": a, "voting_power": 1} for a in self.network.addresses]}
        if path == "/peers":
            return {"connections": [{"alive": True}] * 3}
        if path == "/blocks":
            asked = {name: int(value) for name, value in urllib.parse.parse_qsl(query)}
            heights = range(self.height - asked["offset"], -1, -1)[: asked["limit"]]
            return {"total": self.height + 1, "blocks": [self.network.block(height, salt) for height in heights]}
        if path.startswith("/blocks/") and path[8:].isdigit() and int(path[8:]) <= self.height:
            return self.network.block(int(path[8:]), salt)
        return None


def serve(node: Node, port: int) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told = node.answer(self.path)
            body = json.dumps({"error": "not found"} if told is None else told).encode()
            self.send_response(404 if told is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: t.Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def migrate(arguments: list[str]) -> None:
    data, level = arguments[arguments.index("--data-dir") + 1], int(arguments[arguments.index("--to") + 1])
    if os.path.exists(os.path.join(data, "fail_migration")):
        write(os.path.join(data, "state.json"), {"half": True})
        sys.exit("the migration fails half way")
    time.sleep(float(os.environ.get("MIGRATE_SECONDS", "0")))
    state = read(os.path.join(data, "state.json"))
    write(os.path.join(data, "state.json"), {**state, "format": level})
    write(os.path.join(data, "schema.json"), {"level": level})


def main() -> None:
    here = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    release = read(os.path.join(here, "release.json"))
    if os.path.basename(sys.argv[0]) == "migrate":
        return migrate(sys.argv[1:])
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    if release.get("behave") == "dies":
        sys.exit("I die at start")
    starts = os.environ["FAKE_SIGNED"] + ".starts"
    with open(starts, "a", encoding="ascii") as stream:
        stream.write(".")
    if release.get("behave") == "faints" and os.path.getsize(starts) == 2:
        sys.exit("I die at my second start")
    node = Node(options["--data-dir"], release, Network(os.environ["FAKE_NETWORK"]).ready(), os.environ["FAKE_SIGNED"])
    ends = threading.Event()

    def stop(signum: int, frame: t.Any) -> None:
        if release.get("behave") != "deaf":
            ends.set()

    signal.signal(signal.SIGINT, stop)
    serve(node, int(options["--port"]))
    worker = threading.Thread(target=node.run)
    worker.start()
    while not ends.wait(0.05):
        pass
    node.stopping.set()
    worker.join()
    if release.get("behave") == "slow":
        time.sleep(3)
    node.save()
    os._exit(0)


if __name__ == "__main__":
    main()
