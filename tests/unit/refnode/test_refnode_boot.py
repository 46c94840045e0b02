# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal's boot, with the reference node: cut off, on a copy, with what the operator wants run against it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import sys
import threading

import pytest
from refnode_support import Members, free_ports, release

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._state import boot
from ansible_collections.chainops.validator.plugins.module_utils._state.boot import Boot, Command

XAI = adapter("xai")
ASK = "import os, urllib.request; print(urllib.request.urlopen(os.environ['API_BASE_URL'] + '/block/latest', timeout=5).status)"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a booted copy is cut off from every network, which takes root")


@dataclasses.dataclass
class Place:
    data: str
    boot: Boot


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    members = Members(tmp_path / "members")
    data = members.data_dir(tmp_path / "data", None)
    port, p2p = free_ports(2)
    argv = (sys.executable, "-m", "refnode", "--port", str(port), "--p2p-port", str(p2p), "--data-dir", str(data), "--no-mining")
    env = {"PYTHONPATH": str(release(tmp_path / "r", "2.0.0", 1) / "lib"), "PYTHONDONTWRITEBYTECODE": "1", "XAI_API_KEYS": "k"}
    return Place(str(data), Boot(argv, f"http://127.0.0.1:{port}", env, timeout=60.0))


def python(name: str, code: str, timeout: float = 60.0) -> Command:
    return Command(name, (sys.executable, "-c", code), timeout)


def test_it_boots_answers_and_is_gone_afterwards(place: Place) -> None:
    done = boot.boot(dataclasses.replace(place.boot, commands=(python("ask", ASK),)), place.data, XAI)
    assert (done.ok, done.problems, done.height) == (True, (), 0)
    assert [(row["name"], row["code"], row["output"].strip()) for row in done.commands] == [("ask", 0, "200")]
    port = int(place.boot.url.rpartition(":")[2])
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
    # The directory is nobody's any more.
    assert boot.boot(place.boot, place.data, XAI).ok


def test_nobody_can_be_dialled_from_in_there(place: Place) -> None:
    heard: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def listen() -> None:
            while not over.is_set():
                try:
                    heard.append(server.accept())
                except TimeoutError:
                    continue

        over = threading.Event()
        listener = threading.Thread(target=listen)
        listener.start()
        dial = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 3)"
        links = "print([line.split(':')[0].strip() for line in open('/proc/self/net/dev').read().splitlines()[2:]])"
        commands = (python("dial", dial), python("links", links))
        try:
            done = boot.boot(dataclasses.replace(place.boot, commands=commands), place.data, XAI)
        finally:
            over.set()
            listener.join()
    assert not heard and not done.ok and done.problems == ("dial: exit status 1",)
    assert done.commands[1]["output"].strip() == "['lo']"


def test_another_chain_than_the_network_has_is_refused(place: Place) -> None:
    genesis = boot.boot(dataclasses.replace(place.boot, genesis_hash="ab" * 32), place.data, XAI)
    assert not genesis.ok and "genesis is" in genesis.problems[0] and genesis.height is None
    # Nothing is run against a node that is not the one that was meant.
    low = boot.boot(dataclasses.replace(place.boot, min_height=5, commands=(python("ask", ASK),)), place.data, XAI)
    assert not low.ok and "at height 0; its data go to 5" in low.problems[0] and low.commands == ()


def test_an_api_that_never_answers_is_a_failure_with_the_last_state(place: Place) -> None:
    nobody = boot.boot(dataclasses.replace(place.boot, argv=("/bin/sleep", "600"), timeout=2.0), place.data, XAI)
    assert not nobody.ok and "not ready in 2 s: " in nobody.problems[0] and nobody.height is None


def test_what_fails_says_how(place: Place) -> None:
    commands = (
        python("late", "import time; print('waiting', flush=True); time.sleep(600)", 1.0),
        python("wrong", "print('one'); raise SystemExit(3)"),
        Command("missing", ("/nowhere/suite",)),
        python("good", "print('fine')"),
    )
    done = boot.boot(dataclasses.replace(place.boot, commands=commands), place.data, XAI)
    assert [problem.partition(":")[0] for problem in done.problems] == ["late", "wrong", "missing"]
    assert "did not finish in 1.0 s" in done.problems[0] and "exit status 3" in done.problems[1]
    assert "could not start /nowhere/suite" in done.problems[2]
    assert [row["code"] for row in done.commands] == [None, 3, None, 0]
    assert "one" in done.commands[1]["output"] and "waiting" in done.commands[0]["output"]


def test_a_release_that_does_not_start_says_its_last_words(place: Place) -> None:
    argv = (sys.executable, "-c", "print('no module named wallets'); raise SystemExit(1)")
    done = boot.boot(dataclasses.replace(place.boot, argv=argv), place.data, XAI)
    assert not done.ok and "ended by itself (1)" in done.problems[0] and "wallets" in done.output
    nothing = boot.boot(dataclasses.replace(place.boot, argv=("/nowhere/node",)), place.data, XAI)
    assert not nothing.ok and "could not start /nowhere/node" in nothing.problems[0]


def test_it_runs_bare_and_as_the_owner_of_the_data(place: Place, tmp_path: pathlib.Path) -> None:
    os.chmod(tmp_path, 0o755)
    os.chown(place.data, 4321, 4321)
    argv = ("/bin/sh", "-c", "id -u; id -G; env | grep -v ^PWD= | sort; exit 1")
    done = boot.boot(dataclasses.replace(place.boot, argv=argv, env={"A": "b"}), place.data, XAI)
    assert done.output.split("\n") == ["4321", "4321", "A=b", "LANG=C.UTF-8", f"PATH={boot._PATH}", "_=/usr/bin/env", ""] or (
        done.output.split("\n") == ["4321", "4321", "A=b", "LANG=C.UTF-8", f"PATH={boot._PATH}", ""]
    )


def test_an_environment_file_is_read_as_systemd_does(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "env"
    path.write_text("# what\n; that\n\nA=1\nB = 'two words' \nC=\"x\"\n")
    assert boot.environment(str(path)) == {"A": "1", "B": "two words", "C": "x"}
    path.write_text("A=1\nsecret without a name\n")
    with pytest.raises(InputError, match="line 2") as caught:
        boot.environment(str(path))
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="no environment file"):
        boot.environment(str(tmp_path / "nothing"))


def test_without_root_it_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match="root"):
        boot.boot(place.boot, place.data, XAI)
