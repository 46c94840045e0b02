# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains without a network, and networks of real processes on loopback ports."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request

from refnode import block as blocks
from refnode import canon, keys, tx
from refnode import genesis as genesis_tool
from refnode.chain import Chain

PACKAGE = pathlib.Path(blocks.__file__).resolve().parent
KEY, ADMIN, SECRET = "unit-key", "unit-admin", "unit-secret"


class Members:
    """The keys of a network made for a test."""

    def __init__(self, folder: pathlib.Path, validators: int = 4, accounts: int = 6, **more: t.Any) -> None:
        self.folder = folder
        genesis_tool.make(str(folder), validators=validators, accounts=accounts, **more)
        self.genesis = blocks.Genesis(canon.read_json(str(folder / "genesis.json")))
        self.identities = [
            canon.read_json(str(folder / "validators" / str(n) / "node_identity.json")) for n in range(1, validators + 1)
        ]
        self.accounts = canon.read_json(str(folder / "accounts.json"))["accounts"]

    def data_dir(self, path: pathlib.Path, number: int | None = 1) -> pathlib.Path:
        """A fresh data directory; number None: an observer's."""
        path.mkdir(parents=True)
        (path / "genesis.json").write_bytes((self.folder / "genesis.json").read_bytes())
        if number is not None:
            target = path / "node_identity.json"
            target.write_bytes((self.folder / "validators" / str(number) / "node_identity.json").read_bytes())
            target.chmod(0o600)
        return path

    def transfer(self, sender: int, nonce: int, amount: float = 0.5, **more: t.Any) -> dict[str, t.Any]:
        more.setdefault("recipient", self.accounts[(sender + 1) % len(self.accounts)]["address"])
        more.setdefault("timestamp", round(time.time(), 3))
        return tx.build(self.accounts[sender]["private_key"], self.genesis.chain_id, amount=amount, nonce=nonce, **more)

    def governance(self, sender: int, nonce: int, kind: str, proposal: str = "p-1", **metadata: t.Any) -> dict[str, t.Any]:
        body = {"type": kind, "proposal_id": proposal, **metadata}
        return self.transfer(sender, nonce, 0, tx_type=kind, metadata=body)

    def commit(self, block: dict[str, t.Any], signers: t.Sequence[int] | None = None, round_: int = 0) -> dict[str, t.Any]:
        message = blocks.vote_message(self.genesis.chain_id, block["index"], round_, blocks.PRECOMMIT, block["hash"])
        chosen = self.identities if signers is None else [self.identities[i] for i in signers]
        signatures = [{"address": i["address"], "signature": keys.ed_sign(i["private_key"], message)} for i in chosen]
        return blocks.commit(block["index"], round_, block["hash"], signatures)

    def next_block(self, chain: Chain, transactions: list[dict[str, t.Any]]) -> dict[str, t.Any]:
        return blocks.build(
            self.genesis,
            chain.state,
            proposer=self.genesis.validators.proposer(chain.height + 1, 0),
            round_=0,
            timestamp=round(chain.tip()["timestamp"] + 1, 3),
            transactions=transactions,
            last_commit=chain.record(chain.height)["commit"],
            version=1,
        )

    def extend(self, chain: Chain, transactions: list[dict[str, t.Any]] | None = None) -> dict[str, t.Any]:
        block = self.next_block(chain, transactions or [])
        chain.commit(block, self.commit(block))
        return block


def tree(path: pathlib.Path) -> dict[str, str]:
    """Relative name -> digest of every file."""
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.rglob("*")) if p.is_file()}


# Below those that the kernel hands out to whoever asks for any, and each worker has its own: a port that is chosen now is still
# free when the node that it is for begins.
_FIRST = 26_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_PORTS = itertools.cycle(range(_FIRST, _FIRST + 1_000))


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in itertools.islice(_PORTS, 1_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no ports are free")


def release(folder: pathlib.Path, version: str, level: int, misbehave: dict[str, t.Any] | None = None) -> pathlib.Path:
    """An unpacked release as far as a process can tell."""
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "refnode").symlink_to(PACKAGE)
    (folder / "release.json").write_text(json.dumps({"id": version, "version": version, "level": level}))
    if misbehave:
        (folder / "misbehave.json").write_text(json.dumps(misbehave))
    return folder


class Process:
    """One node process."""

    def __init__(self, net: Net, number: int, data: pathlib.Path) -> None:
        self.net, self.number, self.data = net, number, data
        self.port, self.p2p = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.popen: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.log"

    def start(self, release: pathlib.Path, *flags: str, wait: bool = True, **env: str) -> None:
        peers = [p.url for p in self.net.nodes if p is not self]
        command = [
            sys.executable,
            "-m",
            "refnode",
            "--port",
            str(self.port),
            "--p2p-port",
            str(self.p2p),
            "--data-dir",
            str(self.data),
            *flags,
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(release / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XAI_API_KEYS": KEY,
            "XAI_API_ADMIN_TOKEN": ADMIN,
            "REFNODE_CSRF_SECRET": SECRET,
            "REFNODE_BLOCK_INTERVAL": "0.4",
            "REFNODE_TEST_ENDPOINTS": "1",
            **env,
        }
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen([*command, "--peers", *peers], env=environment, stdout=out, stderr=out)
        if wait:
            self.wait(lambda: self.get("/health") is not None, 20, "answers")

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Seconds it took."""
        assert self.popen is not None
        began = time.monotonic()
        self.popen.send_signal(number)
        self.popen.wait(20)
        return time.monotonic() - began

    def call(self, method: str, path: str, body: t.Any = None, **headers: str) -> tuple[int, t.Any, t.Any]:
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **named}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                raw, status, got = answer.read(), answer.status, answer.headers
        except urllib.error.HTTPError as exc:
            raw, status, got = exc.read(), exc.code, exc.headers
        try:
            return status, json.loads(raw), got
        except ValueError:
            return status, raw.decode(), got

    def get(self, path: str) -> t.Any:
        try:
            status, body, _headers = self.call("GET", path)
        except OSError:
            return None
        return body if status in (200, 503) else None

    @property
    def height(self) -> int:
        found = self.get("/block/latest?summary=1")
        return found["block_number"] if found else -1

    def token(self) -> dict[str, str]:
        _status, body, headers = self.call("GET", "/csrf-token")
        return {"X_CSRF_Token": body["csrf_token"], "Cookie": headers["Set-Cookie"].split(";")[0], "X_API_Key": KEY}

    def send(self, entry: t.Any, **headers: str) -> tuple[int, t.Any]:
        status, body, _headers = self.call("POST", "/send", entry, **(headers or self.token()))
        return status, body

    def wait(self, condition: t.Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            if self.popen is not None and self.popen.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"node {self.number}: never {what}\n{self.log.read_text()[-4000:]}")


class Net:
    """A network; ends every process it started."""

    def __init__(self, folder: pathlib.Path, validators: int = 4, **more: t.Any) -> None:
        self.folder = folder
        self.members = Members(folder / "genesis", validators, **more)
        self.nodes: list[Process] = []
        for number in range(1, validators + 1):
            self.nodes.append(Process(self, number, self.members.data_dir(folder / f"n{number}", number)))

    def observer(self) -> Process:
        node = Process(self, 99, self.members.data_dir(self.folder / "observer", None))
        return node

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_unused: object) -> None:
        for node in self.nodes:
            if node.popen is not None and node.popen.poll() is None:
                node.popen.kill()
                node.popen.wait()

    def at(self, height: int, seconds: float = 90, nodes: t.Sequence[Process] | None = None) -> None:
        for node in nodes or self.nodes:
            node.wait(lambda node=node: node.height >= height, seconds, f"reaches height {height}")

    def agree(self) -> int:
        """All nodes have the same blocks up to the lowest tip, which is returned."""
        lowest = min(node.height for node in self.nodes)
        for height in range(lowest + 1):
            hashes = {node.get(f"/blocks/{height}")["hash"] for node in self.nodes}
            assert len(hashes) == 1, f"fork at height {height}: {hashes}"
        return lowest
