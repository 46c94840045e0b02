# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import typing as t
from unittest import mock

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import pack
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import (
    InputError,
    IntegrityError,
    Refused,
    WaitTimeout,
)
from ansible_collections.chainops.validator.plugins.module_utils._core.process import Done
from ansible_collections.chainops.validator.plugins.module_utils._host import install, procs, release, service
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def releases(tmp_path: t.Any) -> str:
    root = os.path.join(str(tmp_path), "releases")
    for name in (OLD, NEW):
        os.makedirs(os.path.join(root, name))
        with open(os.path.join(root, name, "node.py"), "w", encoding="utf-8") as stream:
            stream.write("import time\ntime.sleep(60)\n")
        with open(os.path.join(root, name + ".complete"), "w", encoding="utf-8") as stream:
            stream.write(name)
    os.symlink(os.path.join(root, OLD), os.path.join(str(tmp_path), "current"))
    return root


@pytest.fixture
def spawn() -> t.Iterator[t.Callable[..., int]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], **options: t.Any) -> int:
        process = subprocess.Popen(argv, **options)
        started.append(process)
        time.sleep(0.2)
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def link_of(releases: str) -> str:
    return os.path.join(os.path.dirname(releases), "current")


def test_a_process_is_known_by_its_working_directory(releases: str, spawn: t.Callable[..., int]) -> None:
    link = link_of(releases)
    pid = spawn([sys.executable, "node.py"], cwd=link)
    release.switch(link, os.path.join(releases, NEW))
    found = release.running(pid, link, releases)
    assert (found.sha256, found.how) == (OLD, "files in use")


def test_a_process_is_known_by_the_script_it_was_given(releases: str, spawn: t.Callable[..., int]) -> None:
    pid = spawn([sys.executable, os.path.join(releases, OLD, "node.py")])
    assert release.running(pid, link_of(releases), releases).sha256 == OLD


def test_a_process_started_through_the_link_runs_what_it_leads_to_until_the_link_moves(
    releases: str, spawn: t.Callable[..., int]
) -> None:
    link = link_of(releases)
    pid = spawn([sys.executable, os.path.join(link, "node.py")])
    assert release.running(pid, link, releases).sha256 == OLD
    release.switch(link, os.path.join(releases, NEW))
    found = release.running(pid, link, releases)
    assert found.sha256 is None and "switched after" in found.how
    assert release.running(spawn([sys.executable, os.path.join(link, "node.py")]), link, releases).sha256 == NEW


def test_an_unknown_process_is_not_guessed_at(releases: str, spawn: t.Callable[..., int]) -> None:
    assert release.running(spawn(["/bin/sleep", "60"]), link_of(releases), releases).sha256 is None
    assert release.running(2**22 - 1, link_of(releases), releases).path is None


def test_a_release_has_to_be_there_to_its_end(releases: str) -> None:
    where = os.path.join(releases, NEW)
    release.require_complete(where, NEW)
    with pytest.raises(IntegrityError, match="not named after"):
        release.require_complete(where, OLD)
    with open(where + ".complete", "w", encoding="utf-8") as stream:
        stream.write(OLD)
    with pytest.raises(IntegrityError, match="names another digest"):
        release.require_complete(where, NEW)
    os.unlink(where + ".complete")
    with pytest.raises(IntegrityError, match="not unpacked to its end"):
        release.require_complete(where, NEW)
    shutil.rmtree(where)
    with pytest.raises(IntegrityError, match="not installed"):
        release.require_complete(where, NEW)


def test_a_directory_where_a_link_is_expected_is_left_alone(releases: str) -> None:
    link = link_of(releases)
    os.unlink(link)
    os.mkdir(link)
    with pytest.raises(Refused, match="not a symbolic link"):
        release.target(link)
    with pytest.raises(Refused, match="left alone"):
        release.switch(link, os.path.join(releases, NEW))


def test_a_process_that_ends_wakes_whoever_waits_for_it(spawn: t.Callable[..., int]) -> None:
    pid = spawn(["/bin/sleep", "0.5"])
    start = time.monotonic()
    assert service.wait_gone(pid, 10)
    assert time.monotonic() - start < 5
    assert not procs.alive(pid)
    assert not service.wait_gone(spawn(["/bin/sleep", "60"]), 0.1)


def plain(tmp_path: t.Any, argv: list[str]) -> service.Plain:
    return service.Plain(argv, os.path.join(str(tmp_path), "pid"), Home(str(tmp_path), "node1"))


def test_a_plain_process_is_stopped_by_its_signal_and_never_killed_in_silence(tmp_path: t.Any) -> None:
    deaf = plain(tmp_path, ["/bin/sh", "-c", "trap '' INT; while :; do sleep 0.1; done"])
    pid = deaf.start(5)
    time.sleep(0.3)
    try:
        assert deaf.start(5) == pid  # it runs already
        with pytest.raises(WaitTimeout, match="was not killed"):
            service.stop(deaf, "SIGINT", 0.3, kill=False)
        assert procs.alive(pid)
        stopped = service.stop(deaf, "SIGINT", 0.3, kill=True)
        assert stopped["killed"] and not stopped["clean"]
    finally:
        if procs.alive(pid):
            os.kill(pid, 9)
    with pytest.raises(InputError, match="unknown signal"):
        service.number("SIGWHATEVER")


class Told(service.Systemd):
    """A unit whose manager says what the test wants."""

    def __init__(self, home: Home, scope: str = "system", **says: str) -> None:
        super().__init__("node.service", home, scope=scope)
        self.says = {"LoadState": "loaded", "ActiveState": "inactive", "ExecMainCode": "1", "Result": "success", **says}
        self.calls: list[tuple[str, ...]] = []

    def ctl(self, *arguments: str, timeout: float = 30.0, check: bool = True) -> str:
        self.calls.append(arguments)
        return "".join(f"{key}={value}\n" for key, value in self.says.items()) if arguments[0] == "show" else ""


def test_what_the_manager_killed_by_itself_is_told(tmp_path: t.Any, spawn: t.Callable[..., int]) -> None:
    pid = spawn([sys.executable, "-c", ""])
    for result, killed in (("timeout", True), ("oom-kill", True), ("success", False), ("exit-code", False)):
        node = Told(Home(str(tmp_path), "node1"), Result=result)
        # It was there when it was asked to stop, and is gone now; what of its children is left, the manager killed.
        states = [service.State(pid, True, True, None, None, "active"), node.state()]
        with mock.patch.object(node, "state", lambda states=states: states.pop(0) if len(states) > 1 else states[0]):
            stopped = service.stop(node, "SIGINT", 5.0, kill=False)
        assert (stopped["killed"], stopped["clean"]) == (killed, not killed)
        assert ("kill", "--kill-who=all", "--signal=SIGINT", "node.service") in node.calls


def test_a_users_unit_speaks_to_the_users_manager_which_has_to_linger(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    asked: list[list[str]] = []
    monkeypatch.setattr(service, "run", lambda argv, **options: asked.append(argv) or Done(0, "LoadState=loaded\n"))
    node = service.make({"manager": "systemd", "unit": "node.service", "scope": "user"}, Home(str(tmp_path), "node1"))
    assert isinstance(node, service.Systemd) and node.permit == "/run/user/7/chainops/node1/permit"
    assert node.drop_in.endswith("/.config/systemd/user/node.service.d/zzz-chainops-guard.conf")
    node.lingers = str(tmp_path / "alice")
    (problem,) = node.problems()
    assert problem.endswith("loginctl enable-linger alice")
    (tmp_path / "alice").touch()
    assert node.problems() == []
    assert all(argv[:2] == ["systemctl", "--user"] for argv in asked)
    assert service.make({"manager": "systemd", "unit": "n.service"}, Home(str(tmp_path), "n")).lingers is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(("scope", "target"), [("system", "multi-user.target"), ("user", "default.target")])
def test_the_engines_unit_waits_for_what_it_works_on_and_comes_before_the_node(tmp_path: t.Any, scope: str, target: str) -> None:
    home = Home(os.path.join(str(tmp_path), "a b"), "node1")
    node = Told(home, scope)
    node.unit_dir = str(tmp_path / "units")
    assert install.install_unit(node, home, "f" * 64, ["/mnt/da$ta", "/opt/100%"])
    drop_in = (tmp_path / "units" / "chainops-turn@node1.service.d" / "instance.conf").read_text()
    assert "Before=node.service\n" in drop_in
    assert f'RequiresMountsFor="/mnt/da$ta" "/opt/100%%" "{tmp_path}/a b/node1"\n' in drop_in
    template = (tmp_path / "units" / "chainops-turn@.service").read_text()
    assert f"WantedBy={target}" in template and "RestartPreventExitStatus=3\n" in template
    assert node.calls == [("daemon-reload",), ("enable", "chainops-turn@node1.service")]


def test_what_a_node_said_last_is_told(tmp_path: t.Any) -> None:
    log = tmp_path / "log"
    argv = ["/bin/sh", "-c", "seq 1 100; printf 'x%.0s' $(seq 1 5000); echo; echo; echo 'integrity check failed' >&2"]
    node = service.Plain(argv, str(tmp_path / "pid"), Home(str(tmp_path), "node1"), log=str(log))
    assert node.last_words() == []
    service.wait_gone(node.start(5), 10)
    said = node.last_words()
    assert said[-1] == "integrity check failed" and said[-2] == "x" * service.WIDTH
    assert plain(tmp_path, ["/bin/true"]).last_words() == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Security: XAI_API_KEY=abc def", "Security: XAI_API_KEY=(hidden)"),
        ('{"private_key": "xyz", "height": 3}', '{"private_key": (hidden)'),
        ("loaded " + "ab" * 32, "loaded (hidden)"),
        ("\x1b[31mException: no such file\x1b[0m", "Exception: no such file"),
        ("Authorization: Bearer x", "Authorization: (hidden)"),
        ("the token was refused", "the token was refused"),
    ],
)
def test_what_a_node_said_last_tells_no_secret(tmp_path: t.Any, line: str, told: str) -> None:
    (tmp_path / "log").write_text(line + "\n")
    node = service.Plain(["/bin/true"], str(tmp_path / "pid"), Home(str(tmp_path), "node1"), log=str(tmp_path / "log"))
    assert node.last_words() == [told]


def test_the_guard_of_a_unit_lets_only_a_permit_start_it(tmp_path: t.Any) -> None:
    unit = service.Systemd("xai-node.service", Home(os.path.join(str(tmp_path), "a%b"), "node1"))
    text = unit.guard_text()
    assert f"ConditionPathExists=|!{tmp_path}/a%%b/node1/journal/open\n" in text
    assert "ConditionPathExists=|/run/chainops/node1/permit\n" in text
    assert "Restart=no" in text
    for name in ("xai-node", "a/b.service", "x y.service", "-.service/"):
        with pytest.raises(InputError):
            service.Systemd(name, Home(str(tmp_path), "node1"))
    with pytest.raises(InputError, match="unit file"):
        pack.quoted('a"b')
