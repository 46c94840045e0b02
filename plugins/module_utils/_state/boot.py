# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Booting a release on a copy of the data, cut off from every network, and running what the operator wants run against it.

The node and the commands live in namespaces of their own: its network has a loopback and nothing else, so that nobody is
dialled whatever the release has written into it, and its processes end with the first of them, so that none is left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import shlex
import signal
import socket
import struct
import subprocess
import tempfile
import typing as t

from .._chain.protocol import ChainAdapter
from .._core import files, process
from .._core.clock import CLOCK
from .._core.errors import ChainopsError, CommandFailed, InputError, Refused
from .kernel import die_with, own_namespaces

#: Characters of a command's output that are told.
TAIL = 2000
#: Seconds the node has to end after its signal, and everything has beside the time it was given.
_STOP, _SPARE = 20.0, 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CUT_OFF = (
    "a booted copy must be cut off from every network, which takes root, in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN "
    "(or leave the boot out)"
)

Json = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Command:
    """What is run against the booted node. It passes when it exits 0 within ``timeout`` seconds."""

    name: str
    argv: tuple[str, ...]
    timeout: float = 300.0


@dataclasses.dataclass(frozen=True)
class Boot:
    """What to boot, and what must come of it.

    ``url``: the node's API, on the loopback. ``genesis_hash`` and ``min_height``: what a node that can't read the data, and
    begins a chain of its own, hasn't; None for what isn't known. ``timeout``: seconds until the API answers.
    """

    argv: tuple[str, ...]
    url: str
    env: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    genesis_hash: str | None = None
    min_height: int | None = None
    timeout: float = 120.0
    commands: tuple[Command, ...] = ()


@dataclasses.dataclass(frozen=True)
class Booted:
    """``problems`` is empty exactly when ``ok``. ``output``: the node's last words, when there are problems.

    ``commands``: name, code (None: it did not end), seconds, output (its end), problem.
    """

    ok: bool
    problems: tuple[str, ...]
    height: int | None
    version: str | None
    answered_after: float | None
    commands: tuple[Json, ...]
    output: str

    def as_dict(self) -> Json:
        return {**dataclasses.asdict(self), "problems": list(self.problems), "commands": list(self.commands)}


def environment(path: str) -> dict[str, str]:
    """The variables of a file such as systemd's EnvironmentFile has: NAME=value lines, with or without quotes."""
    data = files.read_or_none(path)
    if data is None:
        raise InputError(f"there is no environment file {path}", path=path)
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        name, equals, value = line.partition("=")
        try:
            words = shlex.split(value)
        except ValueError:
            words = None
        if not equals or not name.strip() or words is None:
            # The line may hold a secret: it is not shown.
            raise InputError(f"line {number} of {path} is not NAME=value", path=path, line=number)
        found[name.strip()] = " ".join(words)
    return found


def boot(what: Boot, data_dir: str, adapter: ChainAdapter) -> Booted:
    """Boot on ``data_dir``, which is the caller's to lose, as its owner. Never raises because the answer is no.

    Raises Refused where nothing can be cut off (that takes root).
    """
    if not what.argv:
        raise InputError("no command to boot the node with")
    if os.geteuid() != 0:
        raise Refused(f"{_CUT_OFF}: become root")
    # As before each start in a turn: what a running node left half written is made whole.
    adapter.mend(data_dir)
    whole = what.timeout + sum(command.timeout for command in what.commands) + _STOP + _SPARE
    ours, theirs = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            die_with(parent)
            _apart(what, data_dir, adapter, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        answer = _answer(ours, CLOCK.monotonic() + whole)
    finally:
        os.close(ours)
        # Whoever is left of its processes goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if answer is None:
        return Booted(False, (f"the rehearsal did not end in {whole:g} s, or was ended from outside",), None, None, None, (), "")
    if "error" in answer:
        raise Refused(str(answer["error"]))
    return Booted(**{**answer, "problems": tuple(answer["problems"]), "commands": tuple(answer["commands"])})


def _answer(handle: int, until: float) -> Json | None:
    data = b""
    while True:
        left = until - CLOCK.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            return None
        chunk = os.read(handle, 1 << 16)
        if not chunk:
            try:
                return dict(json.loads(data))
            except ValueError:
                return None
        data += chunk


def _apart(what: Boot, data_dir: str, adapter: ChainAdapter, out: int) -> None:
    """In the first fork: leave the namespaces; in the second, which is the first process of the new ones: do it."""
    try:
        own_namespaces()
        _loopback_up()
    except OSError as exc:
        _say(out, {"error": f"{_CUT_OFF}: {exc.strerror}"})
        return
    first = os.fork()
    if first:
        os.close(out)
        os.waitpid(first, 0)
        return
    try:
        # Seen from in there, the parent is nobody.
        die_with(0)
        _say(out, _rehearse(what, data_dir, adapter).as_dict())
    except BaseException as exc:  # whatever it was, somebody waits for an answer
        _say(out, {"error": f"the rehearsal broke: {type(exc).__name__}: {exc}"})


def _say(out: int, value: Json) -> None:
    with open(out, "wb", closefd=True) as stream:
        stream.write(json.dumps(value).encode())


def _loopback_up() -> None:
    """SIOCSIFFLAGS with IFF_UP, as netdevice(7) has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, 0x8914, struct.pack("16sh14x", b"lo", 1))


def _rehearse(what: Boot, data_dir: str, adapter: ChainAdapter) -> Booted:
    owner = os.stat(data_dir)
    problems: list[str] = []
    rows: list[Json] = []
    height: int | None = None
    version: str | None = None
    after: float | None = None
    with tempfile.TemporaryFile() as log:
        began = CLOCK.monotonic()
        try:
            node = subprocess.Popen(
                what.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8", **what.env},
                preexec_fn=lambda: _become(owner.st_uid, owner.st_gid),
            )
        except OSError as exc:
            return Booted(False, (f"could not start {what.argv[0]}: {exc.strerror}",), None, None, None, (), "")
        try:
            height, version = _first_answer(what, adapter, node, problems)
            if height is not None:
                after = round(CLOCK.monotonic() - began, 3)
                rows = [_run(command, what, owner) for command in what.commands]
                problems += [f"{row['name']}: {row['problem']}" for row in rows if row["problem"]]
                if node.poll() is not None:
                    problems.append(f"the node ended by itself ({node.returncode})")
        finally:
            _stop(node, adapter.layout.stop_signal, problems)
        log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
        output = log.read().decode("utf-8", "replace") if problems else ""
    return Booted(not problems, tuple(problems), height, version, after, tuple(rows), output)


def _become(user: int, group: int) -> None:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def _first_answer(
    what: Boot, adapter: ChainAdapter, node: subprocess.Popen[bytes], problems: list[str]
) -> tuple[int | None, str | None]:
    """Height, None when it is not what it must be, and version, once the node answers."""
    until = CLOCK.monotonic() + what.timeout
    client = adapter.client(what.url, timeout=5.0)
    last = "no answer"
    try:
        while CLOCK.monotonic() < until:
            if node.poll() is not None:
                problems.append(f"the node ended by itself ({node.returncode}) before its API answered")
                return None, None
            try:
                status = client.status()
                if what.genesis_hash and status.genesis_hash and status.genesis_hash != what.genesis_hash:
                    problems.append(f"the node's genesis is {status.genesis_hash}, the network's {what.genesis_hash}")
                elif what.min_height is not None and status.height < what.min_height:
                    problems.append(f"the node is at height {status.height}; its data go to {what.min_height} at least")
                return (None if problems else status.height), status.version
            except ChainopsError as exc:
                last = exc.message
            CLOCK.sleep(0.2)
    finally:
        client.close()
    problems.append(f"the node was not ready in {what.timeout:g} s: {last}")
    return None, None


def _run(command: Command, what: Boot, owner: os.stat_result) -> Json:
    began = CLOCK.monotonic()
    code: int | None = None
    try:
        done = process.run(
            command.argv,
            timeout=command.timeout,
            env={"PATH": _PATH, "LANG": "C.UTF-8", "API_BASE_URL": what.url},
            cwd="/",
            user=owner.st_uid,
            group=owner.st_gid,
            check=False,
        )
        code, output, problem = done.code, done.output, f"exit status {done.code}" if done.code else ""
    except CommandFailed as exc:
        output, problem = str(exc.fields.get("output") or ""), exc.message
    seconds = round(CLOCK.monotonic() - began, 3)
    return {"name": command.name, "code": code, "seconds": seconds, "output": output[-TAIL:], "problem": problem}


def _stop(node: subprocess.Popen[bytes], name: str, problems: list[str]) -> None:
    if node.poll() is None:
        node.send_signal(getattr(signal, name))
        try:
            node.wait(_STOP)
        except subprocess.TimeoutExpired:
            problems.append(f"the node did not end in {_STOP:g} s after {name}, and was killed")
            node.kill()
            node.wait()
