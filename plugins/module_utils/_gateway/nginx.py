# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx (open source), which has no runtime API: ``down`` in its upstreams, and a reload.

An order is: edit the one file that has the server, let nginx test the whole, tell the master to reload, and wait until no worker
of before takes new requests. A reload that doesn't come about puts the file back as it was. What is in flight is counted where
nginx can't hide it: the connections that its workers hold to the server. Workers that are shutting down serve their requests to
the end, and are counted as left behind; they have closed what was idle, and new workers never dial a server that is down.

nginx has no health checks of its own: a server is called up when it takes a TCP connection from the gateway's host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import time
import typing as t

from .._core import files, process, tcp
from .._core.clock import CLOCK, Clock
from .._core.errors import InputError, Refused, Unreachable
from . import sockets, upstreams
from .protocol import DRAIN, MAINT, READY, Look, Server, in_all

#: Seconds: for the test of a configuration; until a reload's workers are there; for a server to take a connection, and for how
#: long it is believed that it does.
TEST, RELOAD, CONNECT, BELIEVED = 30.0, 30.0, 0.25, 2.0
_TICK = os.sysconf("SC_CLK_TCK")
_FILE = re.compile(rb"^# configuration file (.+):$", re.MULTILINE)
_PID = re.compile(rb"^\s*pid\s+([^\s;]+)\s*;", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Worker:
    pid: int
    began: float  # seconds since boot
    active: bool  # takes new requests; False: is shutting down


@dataclasses.dataclass(frozen=True)
class Config:
    """What nginx says it would load: the files, and where its pid is."""

    stamps: tuple[tuple[str, int, int], ...]  # path, time of change (ns), inode
    pid_file: str


class Nginx:
    """``endpoint`` is the path of the main configuration file."""

    name = "nginx"
    can_maintain = can_end_sessions = live_weights = False

    def __init__(
        self, endpoint: str, timeout: float = 5.0, proc: str = "/proc", program: str | None = None, clock: Clock = CLOCK
    ) -> None:
        if not endpoint.startswith("/"):
            raise InputError(f"not a path of an nginx configuration: {endpoint!r}", path=endpoint)
        self.endpoint = endpoint
        self.timeout = timeout
        self._proc = proc
        self._program = program or next((p for p in ("/usr/sbin/nginx", "/usr/local/sbin/nginx") if os.path.exists(p)), "nginx")
        self._clock = clock
        self._known: tuple[str, Config] | None = None
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._answers: dict[str, tuple[float, bool]] = {}

    # -- looking --------------------------------------------------------------------------------------------------------

    def look(self) -> Look:
        master, workers = self._processes()
        generation = "-".join([str(master), *(str(w.pid) for w in workers if w.active)])
        config = self._config(generation)
        net = os.path.join(self._proc, str(master), "net")
        active: set[str] = set().union(*(self._inodes(worker.pid) for worker in workers if worker.active))
        leaving = {worker.pid: self._inodes(worker.pid) for worker in workers if not worker.active}
        now, *held = sockets.dialled(net, active, *leaving.values())
        old = dict(zip(leaving, held))
        left = in_all(old)
        servers, left_behind = [], dict[str, int]()
        for path, changed, dummy in config.stamps:
            for place in upstreams.places(_read(path), path):
                dials = self._dials(place.address)
                key = dials[0] if dials else place.address
                left_behind[key] = sum(left.get(one, 0) for one in dials)
                took = self._in_force(workers, changed)
                servers.append(self._server(place, key, dials[1:], took, sum(now.get(one, 0) for one in dials)))
        labels = [server.label for server in servers]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise InputError(f"nginx has {', '.join(twice)} more than once; a server is drained where it stands once")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - max(w.began for w in workers if w.active)
        return Look(generation, age, tuple(servers), left_behind, net, old)

    def _server(self, place: upstreams.Place, address: str, also: tuple[str, ...], in_force: bool, connections: int) -> Server:
        up = self._answers_at(address)
        return Server(
            backend=place.upstream,
            name=place.address,
            address=address,
            # What is only written doesn't count before the workers that read it are the ones that take requests.
            state=DRAIN if place.down and in_force else READY,
            up=up,
            confirmed=up,
            weight=place.weight,
            initial_weight=place.weight,
            backup=place.backup,
            sessions=connections,
            queued=0,
            total=connections,
            also=also,
        )

    @staticmethod
    def _in_force(workers: t.Iterable[Worker], changed: int) -> bool:
        """Whether every worker that takes requests is younger than the file (``changed``: ns since the epoch)."""
        since_boot = changed / 1e9 - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
        return all(worker.began + 1 / _TICK >= since_boot for worker in workers if worker.active)

    def _processes(self) -> tuple[int, list[Worker]]:
        pid_file = self._config(None).pid_file
        text = (files.read_or_none(pid_file) or b"").strip()
        master = int(text) if text.isdigit() else 0
        try:
            if not master or sockets.comm(self._proc, master) != "nginx":
                raise Unreachable(f"nginx with {self.endpoint} does not run: {pid_file} names no nginx", url=self.endpoint)
            space = os.readlink(os.path.join(self._proc, str(master), "ns", "net"))
        except (FileNotFoundError, ProcessLookupError) as exc:
            raise Unreachable(
                f"nginx with {self.endpoint} does not run: process {master} of {pid_file} is gone", url=self.endpoint
            ) from exc
        except PermissionError as exc:
            raise Refused(f"nginx's processes can't be looked at: {exc}; this takes root") from exc
        workers = []
        for entry in os.listdir(self._proc):
            if entry.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    worker = self._worker(int(entry), master, space)
                    workers += [worker] if worker else []
        if not any(worker.active for worker in workers):
            raise Unreachable(f"nginx with {self.endpoint} has no worker that takes requests", url=self.endpoint)
        return master, workers

    def _worker(self, pid: int, master: int, space: str) -> Worker | None:
        """Any nginx of this network name space may hold requests; new ones come to the master's own workers."""
        if sockets.comm(self._proc, pid) != "nginx":
            return None
        if os.readlink(os.path.join(self._proc, str(pid), "ns", "net")) != space:
            return None
        with open(os.path.join(self._proc, str(pid), "cmdline"), "rb") as handle:
            title = handle.read().replace(b"\0", b" ").strip()
        if b"worker process" not in title:
            return None
        cells = sockets.stat(self._proc, pid)
        if cells[0] in ("Z", "X"):
            return None
        active = int(cells[1]) == master and b"shutting down" not in title
        return Worker(pid, int(cells[19]) / _TICK, active)

    def _inodes(self, pid: int) -> set[str]:
        try:
            return sockets.inodes_of(self._proc, pid)
        except (FileNotFoundError, ProcessLookupError):
            return set()
        except PermissionError as exc:
            raise Refused(f"nginx's connections can't be seen: {exc}; this takes root") from exc

    def _dials(self, address: str) -> tuple[str, ...]:
        """``host:port`` of everything that an address in an upstream stands for."""
        if address.startswith("unix:"):
            return ()
        if address not in self._addresses:
            host, port = _split(address)
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as exc:
                raise Unreachable(f"server {address} of an upstream can't be resolved: {exc}", url=address) from exc
            self._addresses[address] = tuple(dict.fromkeys(tcp.place(str(one[4][0]), int(one[4][1])) for one in found))
        return self._addresses[address]

    def _answers_at(self, address: str) -> bool:
        now = self._clock.monotonic()
        at, answer = self._answers.get(address, (-BELIEVED, False))
        if now - at >= BELIEVED:
            try:
                if address.startswith("unix:"):
                    with socket.socket(socket.AF_UNIX) as link:
                        link.settimeout(CONNECT)
                        link.connect(address[5:])
                else:
                    socket.create_connection(_split(address), timeout=CONNECT).close()
                answer = True
            except OSError:
                answer = False
            # Who is down may come up at any moment, and is waited for.
            self._answers[address] = (now if answer else now - BELIEVED * 0.9, answer)
        return answer

    def _config(self, generation: str | None) -> Config:
        """Asked of nginx when it is first wanted, after a reload, and when a file has changed."""
        if self._known is not None and generation in (None, self._known[0]):
            config = self._known[1]
            if generation is None or all(_stamp(path) == (path, *rest) for path, *rest in config.stamps):
                return config
        said = self._nginx("-T")
        paths = dict.fromkeys(os.path.realpath(_text(path)) for path in _FILE.findall(said))
        pid = _PID.search(said)
        config = Config(tuple(_stamp(path) for path in paths), self._path(_text(pid.group(1)) if pid else None))
        self._known = (generation or "", config)
        self._addresses = {}
        return config

    def _path(self, pid: str | None) -> str:
        if pid is not None and pid.startswith("/"):
            return pid
        built = self._nginx("-V").decode("utf-8", "replace")
        options = dict(re.findall(r"--(prefix|pid-path)=(\S+)", built))
        return os.path.join(options.get("prefix", "/"), pid or options.get("pid-path", "logs/nginx.pid"))

    def _nginx(self, *arguments: str) -> bytes:
        """What nginx prints (``-V`` prints as errors are). Raises Refused, with its messages alone, when it says no."""
        argv = [self._program, *arguments, "-c", self.endpoint]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST, check=False)
        except OSError as exc:
            raise Refused(f"nginx can't be run as {self._program}: {exc.strerror}") from exc
        except subprocess.TimeoutExpired as exc:
            raise Refused(f"`nginx {arguments[0]}` did not end within {TEST:g} s") from exc
        if done.returncode:
            words = "; ".join(process.quotable(done.stderr.decode("utf-8", "replace")))
            raise Refused(f"nginx does not accept {self.endpoint}: {words or done.returncode}")
        return done.stderr if arguments == ("-V",) else done.stdout

    # -- acting ---------------------------------------------------------------------------------------------------------

    def set_state(self, backend: str, server: str, state: str) -> None:
        """``drain`` and ``maint`` are both ``down``: no request comes to such a server, not even a sticky one."""
        if state not in (READY, DRAIN, MAINT):
            raise InputError(f"unknown server state {state!r}; known: drain, maint, ready")
        if server.startswith("unix:"):
            raise InputError(f"connections to {server} can't be counted, so it can't be drained: give it a TCP address")
        self._change(lambda data, path: upstreams.with_down(data, path, backend, server, state != READY), backend, server)

    def set_weight(self, backend: str, server: str, weight: int) -> None:
        self._change(lambda data, path: upstreams.with_weight(data, path, backend, server, weight), backend, server)

    def outlasts(self, backend: str, server: str) -> str:
        return ""  # it stands in the files that every worker is started from

    def end_sessions(self, backend: str, server: str) -> int:
        raise Refused(f"nginx can't end the requests at {backend}/{server} alone")

    def _change(self, edit: t.Callable[[bytes, str], bytes], backend: str, server: str) -> None:
        paths = [
            path
            for path, *dummy in self._config(None).stamps
            if any((p.upstream, p.address) == (backend, server) for p in upstreams.places(_read(path), path))
        ]
        if len(paths) != 1:
            raise InputError(f"server {server} of upstream {backend} is in {len(paths)} files of nginx, not in one")
        with files.locked_dir(os.path.dirname(paths[0]), what="changing nginx's files", patience=RELOAD, clock=self._clock):
            before = _read(paths[0])
            after = edit(before, paths[0])
            _replace(paths[0], before, after)
            try:
                self._reload()
            except BaseException:
                if after != before:
                    _replace(paths[0], after, before)
                    with contextlib.suppress(Refused, Unreachable):
                        self._reload()
                raise

    def _reload(self) -> None:
        """Raises Refused when nginx rejects the configuration, or keeps its old workers."""
        self._known = None
        self._nginx("-t")
        master, workers = self._processes()
        old = {worker.pid for worker in workers if worker.active}
        os.kill(master, signal.SIGHUP)
        until = self._clock.monotonic() + RELOAD
        while True:
            try:
                now = {worker.pid for worker in self._processes()[1] if worker.active}
            except Unreachable:
                now = set()
            if now and not now & old:
                return
            if self._clock.monotonic() >= until:
                raise Refused(
                    f"nginx has not taken up its configuration within {RELOAD:g} s of a reload: workers of before still take "
                    "requests; its error log says why"
                )
            self._clock.sleep(0.01)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _split(address: str) -> tuple[str, int]:
    """``host`` and port of an address as nginx writes it; 80 where it names none."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", address)
    if match is None:
        raise InputError(f"not an address of an upstream's server: {address!r}")
    return match.group(1).strip("[]"), int(match.group(2) or 80)


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError as exc:
        raise Unreachable(f"{path}: {exc.strerror}", url=path) from exc
    return path, found.st_ctime_ns, found.st_ino


def _read(path: str) -> bytes:
    data = files.read_or_none(path)
    if data is None:
        raise Unreachable(f"{path} is part of nginx's configuration, and gone", url=path)
    return data


def _replace(path: str, expected: bytes, data: bytes) -> None:
    """Owner and mode stay; whoever else wrote meanwhile is not overwritten."""
    if data == expected:
        return
    if _read(path) != expected:
        raise Refused(f"{path} was changed by somebody else at the same moment; look at it, then try again", path=path)
    found = os.stat(path)
    files.write_atomic(path, data, found.st_mode & 0o7777, (found.st_uid, found.st_gid))
