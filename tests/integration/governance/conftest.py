# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Four reference nodes on the loopback interface, from a release archive built here, and playbooks run against them."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import typing as t
import urllib.request

import pytest

COLLECTION = pathlib.Path(__file__).resolve().parents[3]
BUILDER = COLLECTION / "roles" / "devnet" / "files" / "build_release.py"
API_KEY = "integration-api-key"
INTERVAL = 1.0


class Network:
    """``urls[i]`` is node i's API. A node can be restarted with misbehaviour."""

    def __init__(self, release: pathlib.Path, folder: pathlib.Path, size: int = 4) -> None:
        self.release = release
        self.folder = folder
        self.csrf = secrets.token_hex(8)
        genesis = folder / "genesis"
        made = [str(release / "bin" / "xai-node-genesis"), "--validators", str(size), "--accounts", "12", "--out", str(genesis)]
        subprocess.run(made, check=True, capture_output=True, timeout=60)
        self.accounts = json.loads((genesis / "accounts.json").read_text())["accounts"]
        self.ports = _free_ports(2 * size)
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports[:size]]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(size):
            data = folder / f"data{number}"
            data.mkdir()
            shutil.copy(genesis / "genesis.json", data)
            shutil.copy(genesis / "validators" / str(number + 1) / "node_identity.json", data)

    def start(self, number: int, misbehave: str = "") -> None:
        log = (self.folder / f"node{number}.log").open("ab")
        environment = {
            **os.environ,
            "XAI_API_KEYS": API_KEY,
            "XAI_API_ADMIN_TOKEN": secrets.token_hex(8),
            "REFNODE_CSRF_SECRET": self.csrf,
            "REFNODE_BLOCK_INTERVAL": str(INTERVAL),
            "REFNODE_MISBEHAVE": misbehave,
        }
        argv = [str(self.release / "bin" / "xai-node"), "--host", "127.0.0.1", "--port", str(self.ports[number])]
        argv += ["--p2p-port", str(self.ports[number + len(self.urls)]), "--data-dir", str(self.folder / f"data{number}")]
        argv += ["--peers", *self.urls]
        self.processes[number] = subprocess.Popen(
            argv, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        log.close()

    def stop(self, number: int) -> None:
        process = self.processes.pop(number)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)

    def height(self, number: int = 0) -> int:
        with urllib.request.urlopen(self.urls[number] + "/block/latest?summary=1", timeout=5) as answer:
            return int(json.load(answer)["block_number"])

    def wait_height(self, height: int, number: int = 0, timeout: float = 60.0) -> None:
        until = time.monotonic() + timeout
        while True:
            try:
                if self.height(number) >= height:
                    return
            except OSError:
                pass
            if time.monotonic() > until:
                raise AssertionError((self.folder / f"node{number}.log").read_text()[-4000:])
            time.sleep(0.1)

    def readers(self, *numbers: int) -> list[dict[str, str]]:
        return [{"name": f"node{number}", "url": self.urls[number]} for number in numbers or range(len(self.urls))]


def _die_with_parent() -> None:
    """However this test run ends, it leaves no node behind (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An unpacked release of the reference node."""
    if not BUILDER.exists():
        pytest.skip("this tree has no reference node to build")
    out = tmp_path_factory.mktemp("release")
    cache = COLLECTION / ".cache" / "vendor"
    argv = [sys.executable, str(BUILDER), "--version", "1.0.0", "--level", "1", "--out", str(out), "--cache", str(cache)]
    subprocess.run(argv, check=True, timeout=300)
    (archive,) = out.glob("*.tar.gz")
    unpacked = out / "unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(out / "raw", filter="data")
    (inner,) = (out / "raw").iterdir()
    inner.rename(unpacked)
    return unpacked


@pytest.fixture(scope="module")
def network(release: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Network]:
    """Four nodes that produce blocks; the last one lies about governance to whoever asks."""
    made = Network(release, tmp_path_factory.mktemp("network"))
    try:
        for number in range(4):
            made.start(number, "lie_governance" if number == 3 else "")
        made.wait_height(2)
        yield made
    finally:
        for number in list(made.processes):
            made.stop(number)


Tasks = t.Callable[..., t.List[t.Any]]


@pytest.fixture
def play(tmp_path: pathlib.Path) -> Tasks:
    """Run tasks in one playbook on localhost; the results they registered as ``r0``, ``r1``..., in order."""

    def run(*tasks: dict[str, t.Any], check: bool = False, diff: bool = False) -> list[t.Any]:
        listed = [{**task, "register": f"r{number}"} for number, task in enumerate(tasks)]
        keep = {
            "ansible.builtin.copy": {
                "content": "{{ [" + ", ".join(f"r{n}" for n in range(len(tasks))) + "] | to_json }}",
                "dest": str(tmp_path / "results.json"),
                "mode": "0600",
            },
            "check_mode": False,
            "diff": False,
        }
        book = tmp_path / "play.yml"
        book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [*listed, keep]}]))
        environment = {
            **os.environ,
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        }
        program = pathlib.Path(sys.executable).with_name("ansible-playbook")
        argv = [str(program), "-i", "localhost,", "-c", "local", *(["--check"] if check else []), *(["--diff"] if diff else [])]
        done = subprocess.run(
            [*argv, "-vvv", str(book)], env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        run.output = done.stdout + done.stderr  # type: ignore[attr-defined]
        return t.cast(t.List[t.Any], json.loads((tmp_path / "results.json").read_text()))

    return run
