# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host on this machine for a whole turn: a plain process as the node, three peers, and a proof that is a real one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import typing as t
import urllib.request

from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance import signing
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy
from ansible_collections.chainops.validator.plugins.module_utils._host import control, service
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance import chain_in_memory as gov

HERE = os.path.dirname(os.path.abspath(__file__))
ADDRESS = "TXAIunit1"
PACE = 0.15


@functools.cache
def approved(sha256: str) -> str:
    """JSON of (proof, blocks): a chain on which a release of this digest is approved for this machine."""
    chain = gov.Chain()
    content = gov.payload(release={"id": "2.0.0", "level": 2, "artifacts": {os.uname().machine: sha256}})
    chain.approve(content)
    chain.mine()
    clients = {name: chain.client() for name in "abcd"}
    found = reading.read(
        [reading.Reader(name, f"http://{name}") for name in clients], lambda reader: clients[reader.name], patience=0.5
    )
    problems = signing.problems(found.records, found.scheme, found.chain_id)
    rule = Policy.from_dict(None)
    result, verdict = proving.judge(found, gov.ID, rule, content, problems)
    assert verdict.open, verdict.reasons
    proof = proving.build(
        found, result, verdict, rule, chain="xai", confirmations=6, payload=content, signatures_verified=problems == []
    )
    return json.dumps([proof, chain.blocks])


# Below those that the kernel hands out to whoever asks for any, and each worker has its own: a port that is chosen now is
# still free when the node that it is for begins.
_PORTS = itertools.cycle(range(*(18_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) + n for n in (0, 1_000))))


def free_port() -> int:
    for port in itertools.islice(_PORTS, 1_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@dataclasses.dataclass
class World:
    root: str
    behave: str
    port: int = 0
    proof: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    peers: list[str] = dataclasses.field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    @property
    def home(self) -> Home:
        return Home(os.path.join(self.root, "state"), "unit1")

    @property
    def data(self) -> str:
        return os.path.join(self.root, "node", "data")

    @property
    def link(self) -> str:
        return os.path.join(self.root, "current")

    @property
    def network(self) -> str:
        return os.path.join(self.root, "network.json")

    @property
    def level(self) -> int:
        return 1 if self.behave == "same" else 2

    def sha(self, side: str) -> str:
        return hashlib.sha256((side if side == "old" else self.behave).encode()).hexdigest()

    def spec(self) -> dict[str, t.Any]:
        return {
            "manager": "process",
            "argv": [os.path.join(self.link, "bin", "xai-node"), "--data-dir", self.data, "--port", str(self.port)],
            "pidfile": os.path.join(self.root, "node.pid"),
            "cwd": self.root,
            "env": {"FAKE_NETWORK": self.network, "FAKE_SIGNED": os.path.join(self.root, "signed.log")},
            "log": os.path.join(self.root, "node.log"),
        }

    def node(self) -> service.Service:
        return service.make(self.spec(), self.home)

    def request(self, turn_id: str = "t1", **changes: t.Any) -> control.Request:
        migration = {
            "id": "0002",
            "from_level": 1,
            "to_level": 2,
            "forward": ["{release}/bin/migrate", "--data-dir", "{data}", "--to", "2"],
            "back": ["{release}/bin/migrate", "--data-dir", "{data}", "--to", "1"],
            "check": ["/bin/true"],
            "reversible": True,
        }
        asked: dict[str, t.Any] = {
            "state": control.UPGRADED,
            "instance": "unit1",
            "state_dir": self.home.state_dir,
            "chain": "xai",
            "api_url": f"http://127.0.0.1:{self.port}",
            "turn_id": turn_id,
            "rollout_id": "r1",
            "release": {"id": "2.0.0", "sha256": self.sha("new"), "version": "2.0.0", "level": self.level, "dir": None},
            "release_link": self.link,
            "service": self.spec(),
            "data_dir": self.data,
            "roots": [{"name": "data", "path": self.data}],
            "snapshot_id": f"turn-{turn_id}",
            "back_to": None,
            "migrations": [migration] if self.level == 2 else [],
            "proof": self.proof,
            "proof_sha256": None,
            "fence_token": 1,
            "drain_receipts": [],
            "require_drain": False,
            "client_addresses": [],
            "expected_address": ADDRESS,
            "peers": self.peers,
            "probe": {"deadline": 4.0, "height_advance": 2, "max_lag": 3, "min_peers": None, "signs": True},
            "budgets": {"prepare": 60.0, "stop": 5.0, "freeze": 30.0, "migrate": 30.0, "start": 10.0, "total": 120.0},
            "policy": {"kill": False, "migrate": "in_place"},
            "confirm": None,
        }
        return control.Request(**{**asked, **changes})

    def read(self, *names: str) -> t.Any:
        with open(os.path.join(self.data, *names), encoding="utf-8") as stream:
            return json.load(stream)

    def signed(self) -> list[int]:
        with open(os.path.join(self.root, "signed.log"), encoding="utf-8") as stream:
            return [int(line.split()[0]) for line in stream]

    def require_whole(self, side: str) -> None:
        """The host is old or new, runs, follows, and nothing of the turn is left in its way."""
        assert os.path.basename(os.readlink(self.link)) == self.sha(side)
        assert self.read("schema.json") == {"level": 1 if side == "old" else self.level}
        assert self.node().state().pid is not None
        assert not self.node().guarded() and not os.path.exists(self.home.open)
        until, before = time.monotonic() + 10, self.read("state.json")["height"]
        while self.read("state.json")["height"] <= before + 1:
            assert time.monotonic() < until, "the node does not advance"
            time.sleep(0.1)
        assert self.read("state.json")["by"] == ("1.0.0" if side == "old" else "2.0.0")
        signed = self.signed()
        assert signed == sorted(set(signed)), "a height was signed twice, or after a higher one"

    def kill_node(self) -> None:
        pid = self.node().state().pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _unpack(home: Home, sha256: str, version: str, level: int, behave: str) -> None:
    where = os.path.join(home.releases, sha256)
    os.makedirs(os.path.join(where, "bin"))
    for name in ("xai-node", "migrate"):
        shutil.copy(os.path.join(HERE, "fake_node.py"), os.path.join(where, "bin", name))
    with open(os.path.join(where, "release.json"), "w", encoding="utf-8") as stream:
        json.dump({"version": version, "level": level, "behave": behave}, stream)
    with open(where + ".complete", "w", encoding="utf-8") as stream:
        stream.write(sha256 + "\n")


def _data(where: str, height: int, address: str) -> None:
    for name in ("blocks", "finality"):
        os.makedirs(os.path.join(where, name))
    values = {
        "schema.json": {"level": 1},
        "state.json": {"height": height, "by": "1.0.0"},
        "node_identity.json": {"address": address},
        "finality/last_signed.json": {
            "address": address,
            "height": height,
            "round": 0,
            "step": 3,
            "block_hash": "",
            "updated": 0,
        },
    }
    for name, value in values.items():
        with open(os.path.join(where, name), "w", encoding="utf-8") as stream:
            json.dump(value, stream)


def _answers(port: int) -> None:
    until = time.monotonic() + 15
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return
        assert time.monotonic() < until, f"no node answers on port {port}"
        time.sleep(0.05)


@contextlib.contextmanager
def make(root: str, behave: str = "good", old: str = "") -> t.Iterator[World]:
    """``behave``: how the new release is; ``old``: how the old one is."""
    world = World(root, behave, free_port())
    world.proof, blocks = json.loads(approved(world.sha("new")))
    _unpack(world.home, world.sha("old"), "1.0.0", 1, old)
    _unpack(world.home, world.sha("new"), "2.0.0", world.level, behave)
    with open(world.network, "w", encoding="utf-8") as stream:
        addresses = [ADDRESS, "TXAIpeer1", "TXAIpeer2", "TXAIpeer3"]
        json.dump({"origin": time.time(), "pace": PACE, "blocks": blocks, "addresses": addresses}, stream)
    os.symlink(os.path.join(world.home.releases, world.sha("old")), world.link)
    _data(world.data, len(blocks) - 1, ADDRESS)
    with open(os.path.join(root, "signed.log"), "w", encoding="utf-8"):
        pass
    try:
        for number in range(1, 4):
            data, port = os.path.join(root, f"peer{number}"), free_port()
            _data(data, len(blocks) - 1, f"TXAIpeer{number}")
            argv = [
                os.path.join(world.home.releases, world.sha("old"), "bin", "xai-node"),
                "--data-dir",
                data,
                "--port",
                str(port),
            ]
            env = {**os.environ, "FAKE_NETWORK": world.network, "FAKE_SIGNED": os.path.join(root, f"peer{number}.log")}
            world.processes.append(subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            world.peers.append(f"http://127.0.0.1:{port}")
            _answers(port)
        world.node().start(5)
        _answers(world.port)
        yield world
    finally:
        world.kill_node()
        for process in world.processes:
            process.kill()
            process.wait()
