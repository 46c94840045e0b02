# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the gate reads a chain, against what the node it reads from can serve.

The node is a process of Python's own HTTP server with its chain in memory, faster than any real one: it serves blocks one by
one, as an XAI node does, and writes each as JSON when it is asked for. What it can serve is what the same requests yield, over
the best of several numbers of connections, to a client that reads bytes and looks at none. Node and gate are processes apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import urllib.parse

from ansible_collections.chainops.validator.plugins.module_utils._chain.xai import XaiAdapter
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers
from ansible_collections.chainops.validator.plugins.module_utils._governance.cache import Cache

BLOCKS, CONNECTIONS, EVERY = 10_000, (1, 2, 4, 8), 10
#: What the gate's own client sends: reading headers is a good part of a server's work.
HEADERS = "Accept-Encoding: identity\r\nUser-Agent: chainops.validator\r\nAccept: application/json\r\n"


def chain(blocks: int) -> list[dict[str, t.Any]]:
    """What /blocks/<i> answers: each block pays a miner and moves coins twice; every tenth has a vote."""
    found, previous = [], "0" * 64
    for index in range(blocks):
        digest = hashlib.sha256(f"{previous} {index}".encode()).hexdigest()
        transactions = [_tx(index, 0, "COINBASE", {}), _tx(index, 1, "payer", {}), _tx(index, 2, "payer", {})]
        if index % EVERY == 0:
            said = {"type": "governance_vote", "proposal_id": "p", "vote": "yes", "voting_power": 20.0}
            transactions.append(_tx(index, 3, f"TXAI{index:040x}", said))
        block = {
            "index": index,
            "hash": digest,
            "previous_hash": previous,
            "timestamp": 1.0 + index,
            "transactions": transactions,
        }
        found.append({**block, "miner": "TXAI" + "0" * 40, "difficulty": 4, "nonce": index, "version": 1})
        previous = digest
    return found


def _tx(index: int, place: int, sender: str, metadata: dict[str, t.Any]) -> dict[str, t.Any]:
    txid = hashlib.sha256(f"{index} {place}".encode()).hexdigest()
    outputs = [{"address": f"TXAI{(index * 7 + place) % 997:040x}", "amount": 12.0}]
    basics = {"txid": txid, "sender": sender, "recipient": outputs[0]["address"], "amount": 12.0, "fee": 0.25, "nonce": index}
    keys = {"public_key": "ab" * 64, "signature": "cd" * 64, "tx_type": "normal", "timestamp": 1.0 + index}
    return {**basics, **keys, "inputs": [], "outputs": outputs, "metadata": metadata}


def serve(blocks: int) -> int:
    """The node: prints its port, and serves until its standard input is closed."""
    found = chain(blocks)
    known: dict[str, dict[str, t.Any]] = {f"/blocks/{index}": block for index, block in enumerate(found)}
    known["/block/latest"] = {"block_number": blocks - 1, "hash": found[-1]["hash"], "timestamp": found[-1]["timestamp"]}
    known.update({"/health": {"status": "healthy"}, "/stats": {}, "/peers": {}})

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            answer = known.get(self.path.partition("?")[0])
            body = json.dumps(answer or {}).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: t.Any) -> None:
            pass

    Handler.wbufsize = 1 << 16
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        server.shutdown()
    return 0


def fetch(url: str, blocks: int, connections: int) -> float:
    """Seconds for the same requests, over this many connections, for whoever looks at nothing."""
    parts = urllib.parse.urlsplit(url)

    def read(numbers: range) -> None:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in numbers:
                connection.sendall(f"GET /blocks/{number} HTTP/1.1\r\nHost: {parts.netloc}\r\n{HEADERS}\r\n".encode())
                data = connection.recv(1 << 16)
                while b"\r\n\r\n" not in data:
                    data += connection.recv(1 << 16)
                head, _end, body = data.partition(b"\r\n\r\n")
                left = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]) - len(body)
                while left > 0:
                    left -= len(connection.recv(1 << 16))

    threads = [threading.Thread(target=read, args=(range(first, blocks, connections),)) for first in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    return time.monotonic() - began


def replay(url: str, cache: Cache | None = None) -> tuple[float, readers.Reading]:
    """Seconds for what the gate does: read, check the links, pick governance out, count coins, agree (with itself)."""
    adapter = XaiAdapter()
    began = time.monotonic()
    found = readers.read(
        [readers.Reader("node", url)],
        lambda reader: adapter.client(reader.url, timeout=60.0, lanes=readers.LANES),
        min_readers=1,
        count_coins=True,
        cache=cache,
        budget=600.0,
    )
    return time.monotonic() - began, found


def measure() -> dict[str, t.Any]:
    """Figures: ``ratio`` is the share of what the node can serve, ``again_seconds`` a reading with the first one's cache."""
    command = [sys.executable, os.path.abspath(__file__), str(BLOCKS)]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        stack.callback(process.stdin.close)
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        fetch(url, 500, 1)
        served = {connections: fetch(url, BLOCKS, connections) for connections in CONNECTIONS}
        best = min(served, key=lambda connections: served[connections])
        with tempfile.TemporaryDirectory() as folder:
            # The best of as many tries as the node had.
            caches = [Cache(os.path.join(folder, str(number))) for number in range(len(CONNECTIONS))]
            seconds, found = min((replay(url, cache) for cache in caches), key=lambda one: one[0])
            again, later = replay(url, caches[0])
    if found.problems or len(found.records) != BLOCKS // EVERY or found.height != BLOCKS - 1 or later.blocks_read:
        raise ValueError(f"the replay went wrong: {found.problems or later.blocks_read}")
    return {
        "blocks": BLOCKS,
        "served_seconds": served[best],
        "connections": best,
        "replay_seconds": seconds,
        "ratio": served[best] / seconds,
        "again_seconds": again,
    }


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1])))
