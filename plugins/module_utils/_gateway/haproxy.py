# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy through its Runtime API (the ``stats socket`` with ``level admin``), over a unix socket or TCP.

Each question opens its own connection: it costs 0.1 ms, and a reload can't leave us talking to a process that is going away.
Columns and state bits are those of the management guide (``show stat``, ``show servers state``) of HAProxy 2.0 and later.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import socket
import typing as t

from .._core import tcp
from .._core.clock import CLOCK, Clock
from .._core.errors import InputError, Refused, Unreachable
from . import sockets, statefile
from .protocol import DRAIN, MAINT, READY, Look, Server, in_all

_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,255}")
_ANY_MAINT, _ANY_DRAIN = 0x01 | 0x02 | 0x04 | 0x20 | 0x40, 0x08 | 0x10
_CHECK_CONFIGURED = 0x02
_STARTING, _RUNNING = 1, 2
#: Where ``show servers state`` has the administrative state.
_ADMIN_COLUMN = 6
_MAX_ANSWER = 32 << 20
_ASK = "show info;show stat;show servers state"
_WORDS = {READY, DRAIN, MAINT}


class HAProxy:
    """``endpoint`` is a path (unix socket), ``unix:PATH`` or ``[tcp:]HOST:PORT``."""

    name = "haproxy"
    can_maintain = can_end_sessions = live_weights = True

    def __init__(self, endpoint: str, timeout: float = 5.0, proc: str = "/proc", clock: Clock = CLOCK) -> None:
        self._clock = clock
        self.endpoint = endpoint
        self.timeout = timeout
        self._proc = proc
        self._target: str | tuple[str, int]
        if endpoint.startswith("unix:") or endpoint.startswith("/"):
            self._target = endpoint[5:] if endpoint.startswith("unix:") else endpoint
            self.local = True
        else:
            host, dummy, port = (endpoint[4:] if endpoint.startswith("tcp:") else endpoint).rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise InputError(
                    f"not a Runtime API address: {endpoint!r}; expected /path/to/socket or HOST:PORT", address=endpoint
                )
            self._target = (host.strip("[]"), int(port))
            self.local = host in ("localhost", "::1", "[::1]") or host.startswith("127.")

    def ask(self, commands: str) -> str:
        """One connection: commands joined by ``;``, the answer to its end. Raises Unreachable."""
        try:
            return _converse(self._connect(), commands, self.endpoint)
        except OSError as exc:
            raise Unreachable(
                f"no answer from HAProxy's Runtime API at {self.endpoint}: {exc}; "
                "it needs `stats socket … level admin` in the global section",
                url=self.endpoint,
            ) from exc

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target, timeout=self.timeout)
        return _dial(self._target, self.timeout)

    def look(self) -> Look:
        text = self.ask(_ASK)
        pid, age, servers = parse(text, self.endpoint)
        old = replaced(pid, self._proc) if self.local else None
        if old is None:
            return Look(str(pid), age, servers, None)
        return Look(str(pid), age, servers, in_all(old), os.path.join(self._proc, str(pid), "net"), old)

    def set_state(self, backend: str, server: str, state: str) -> None:
        if state not in _WORDS:
            raise InputError(f"unknown server state {state!r}; known: {', '.join(sorted(_WORDS))}")
        order = f"set server {_checked(backend)}/{_checked(server)} state {state}"
        if state == READY:
            # First, so that no reload in between brings back a drain that is over.
            self._keep(backend, server, False)
            self._order(order)
        else:
            self._order(order)
            with contextlib.suppress(Refused):  # said by outlasts
                self._keep(backend, server, True)

    def set_weight(self, backend: str, server: str, weight: int) -> None:
        if not 0 <= weight <= 256:
            raise InputError(f"weight {weight} is out of HAProxy's range, 0 to 256")
        self._order(f"set server {_checked(backend)}/{_checked(server)} weight {weight}")

    def end_sessions(self, backend: str, server: str) -> int:
        self._order(f"shutdown sessions server {_checked(backend)}/{_checked(server)}")
        pid = int(_info(self.ask("show info")).get("Pid") or 0)
        ended = 0
        for old in (replaced(pid, self._proc) or {}) if self.local else ():
            with contextlib.suppress(OSError, IndexError):  # it ended by itself
                ended += _end_in_old(self._proc, old, backend, server)
        return ended

    def outlasts(self, backend: str, server: str) -> str:
        try:
            return self._keep(backend, server, True)
        except Refused as exc:
            return exc.message

    def _keep(self, backend: str, server: str, out: bool) -> str:
        """Have the server's row in the file that a new process reads, or not; returns why it can't be there. Raises Refused."""
        place = self._state_file(backend)
        if not place.path:
            return place.why
        now = statefile.parse(self.ask(f"show servers state {_checked(backend)}"))
        row = now.find(backend, server)
        if out and (row is None or not int(row.split()[_ADMIN_COLUMN])):
            return f"{backend}/{server} is not out"
        statefile.keep(place.path, now, backend, server, out, self._clock)
        return ""

    def _state_file(self, backend: str) -> statefile.Place:
        if not self.local:
            return statefile.Place(why="from another machine it can't be told, or changed, what HAProxy loads")
        pid = _info(self.ask("show info")).get("Pid", "")
        try:
            if sockets.comm(self._proc, int(pid)) != "haproxy":
                raise FileNotFoundError(pid)
            with open(os.path.join(self._proc, pid, "cmdline"), "rb") as stream:
                argv = [os.fsdecode(word) for word in stream.read().split(b"\0")]
            # A worker may be in a chroot; its master is where it was started, and starts the next one.
            parent = sockets.stat(self._proc, int(pid))[1]
            starter = parent if sockets.comm(self._proc, int(parent)) == "haproxy" else pid
            found = statefile.read(argv, os.readlink(os.path.join(self._proc, starter, "cwd")))
        except (OSError, ValueError) as exc:
            return statefile.Place(why=f"what HAProxy loads can't be seen from here: {exc}")
        return found.get(backend, statefile.Place(why=f"backend {backend} is not in HAProxy's configuration files"))

    def _order(self, command: str) -> None:
        words = self.ask(command).strip()
        if words:  # an order that was obeyed is answered with nothing
            raise Refused(f"HAProxy at {self.endpoint} refused `{command}`: {words[:200]}", command=command, answer=words[:200])


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} can't be a name in HAProxy: letters, digits, and _ . : - only")
    return name


def _info(text: str) -> dict[str, str]:
    """What ``show info`` tells, by name."""
    return {key: value.strip() for key, colon, value in (line.partition(": ") for line in text.splitlines()) if colon}


def parse(text: str, where: str = "HAProxy") -> tuple[int, float, tuple[Server, ...]]:
    """The answers to ``show info;show stat;show servers state`` as (pid, age in seconds, servers); else Unreachable."""
    info: dict[str, str] = {}
    stats: dict[tuple[str, str], dict[str, str]] = {}
    states: dict[tuple[str, str], dict[str, str]] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("# pxname,"):
            rows = [line[2:]]
            for row in lines:
                if not row.strip():
                    break
                rows.append(row)
            stats = {(r["pxname"], r["svname"]): r for r in csv.DictReader(rows) if r.get("type") == "2"}
        elif line.startswith("# be_id "):
            names = line[2:].split()
            for row in lines:
                if not row.strip():
                    break
                cells = dict(zip(names, row.split()))
                states[(cells.get("be_name", ""), cells.get("srv_name", ""))] = cells
        elif ": " in line and not stats:
            key, dummy, value = line.partition(": ")
            info[key] = value.strip()
    if not info.get("Pid", "").isdigit() or not stats or set(states) != set(stats):
        raise Unreachable(
            f"{where} doesn't speak HAProxy's Runtime API, has no servers, or our access level is too low; "
            f"it said: {text.strip()[:200]!r}",
            url=where,
        )
    uptime = info.get("Uptime_sec", "0")
    age = float(uptime) if uptime.isdigit() else 0.0
    return int(info["Pid"]), age, tuple(_server(stats[key], states[key], where) for key in sorted(stats))


def _server(stat: t.Mapping[str, str], state: t.Mapping[str, str], where: str) -> Server:
    try:
        admin, operation = int(state["srv_admin_state"]), int(state["srv_op_state"])
        checked = bool(int(state["srv_check_state"]) & _CHECK_CONFIGURED)
        full = int(stat.get("check_rise") or 1) + int(stat.get("check_fall") or 1) - 1
        return Server(
            backend=stat["pxname"],
            name=stat["svname"],
            address=_place(stat.get("addr") or f"{state['srv_addr']}:{state.get('srv_port', '0')}"),
            state=MAINT if admin & _ANY_MAINT else DRAIN if admin & _ANY_DRAIN else READY,
            up=operation in (_STARTING, _RUNNING),
            confirmed=not checked or int(state["srv_check_health"]) >= full,
            weight=int(state["srv_uweight"]),
            initial_weight=int(state["srv_iweight"]),
            backup=stat.get("bck") == "1",
            sessions=int(stat["scur"] or 0),
            queued=int(stat["qcur"] or 0),
            total=int(stat["stot"] or 0),
        )
    except (KeyError, ValueError) as exc:
        raise Unreachable(
            f"{where}: can't read the state of {stat.get('pxname')}/{stat.get('svname')}: {exc!r}", url=where
        ) from exc


def _place(address: str) -> str:
    end = tcp.parted(address)
    return address if end is None else tcp.place(*end)


def _dial(path: str, timeout: float) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        link.connect(path)
    except BaseException:
        link.close()
        raise
    return link


def _converse(link: socket.socket, commands: str, where: str, *, over: bool = False) -> str:
    """Ask, and read the answer to its end. ``over``: say that nothing more is coming, or a master waits for more."""
    pieces: list[bytes] = []
    size = 0
    with link:
        link.sendall(commands.encode("ascii") + b"\n")
        if over:
            link.shutdown(socket.SHUT_WR)
        while piece := link.recv(1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_ANSWER:
                raise Unreachable(f"{where} answered with more than {_MAX_ANSWER} bytes", url=where)
    return b"".join(pieces).decode("utf-8", "replace")


def replaced(current: int, proc: str = "/proc") -> dict[int, dict[str, int]] | None:
    """What the HAProxy processes that ``current`` took over from still do, by pid, per ``host:port`` dialled.

    After a reload the old process serves its requests to the end, out of sight of the new one's statistics: a zero there
    is not a zero. Such a process has the same parent and network name space. Its established connections are counted; where the
    master has a socket (``-S``, as Debian's unit has), the old process itself is asked how many of them are requests and how many
    are only kept for later. None when it can't be seen (another machine or container, or not root).
    """
    try:
        family = _family(proc, current)
        held: dict[int, set[str]] = {}
        for entry in _siblings(proc, family[0]):
            if entry.isdigit() and int(entry) != current:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                    if sockets.comm(proc, int(entry)) == "haproxy" and _family(proc, int(entry)) == family:
                        held[int(entry)] = sockets.inodes_of(proc, int(entry))
        found: dict[int, dict[str, int]] = {}
        for pid, counts in zip(held, sockets.dialled(os.path.join(proc, str(current), "net"), *held.values())):
            requests = _told_by_master(proc, family[0], pid) if counts else None
            found[pid] = counts if requests is None else requests
        return found
    except (OSError, IndexError):
        return None


def _ask_old(proc: str, master: str, pid: int, command: str) -> str | None:
    """What an old process answers through its master's socket; None where the master has none, or it doesn't answer."""
    try:
        with open(os.path.join(proc, master, "cmdline"), "rb") as handle:
            words = handle.read().decode("utf-8", "replace").split("\0")
        place = words[words.index("-S") + 1].partition(",")[0]
        path = place[5:] if place.startswith("unix@") else place
        return _converse(_dial(path, 1.0), f"@!{pid} {command}", path, over=True).strip() if path.startswith("/") else None
    except (OSError, ValueError, IndexError, Unreachable):
        return None


def _end_in_old(proc: str, pid: int, backend: str, server: str) -> int:
    """End the sessions that an old process has with a server, one by one: of its servers it knows no more. Returns how many."""
    master = _family(proc, pid)[0]
    wanted = {f"be={backend}", f"srv={server}"}
    said = (_ask_old(proc, master, pid, "show sess") or "").splitlines()
    named = [line.partition(":")[0] for line in said if wanted <= set(line.split()) and line.startswith("0x")]
    return sum(_ask_old(proc, master, pid, f"shutdown session {one}") == "" for one in named)


def _servers_of_old(proc: str, master: str, pid: int) -> list[dict[str, str]] | None:
    """Rows of its statistics, one a server; None where it can't be asked."""
    rows = (_ask_old(proc, master, pid, "show stat") or "").splitlines()
    if not rows or not rows[0].startswith("# pxname,"):
        return None
    return [row for row in csv.DictReader([rows[0][2:], *rows[1:]]) if row.get("type") == "2"]


def _told_by_master(proc: str, master: str, pid: int) -> dict[str, int] | None:
    """Requests at each server, and waiting for it, in an old process; None where the master has no socket or can't tell."""
    try:
        found: dict[str, int] = {}
        for row in _servers_of_old(proc, master, pid) or [{}]:
            address = _place(row["addr"])
            found[address] = found.get(address, 0) + int(row["scur"] or 0) + int(row["qcur"] or 0)
        return None if "" in found else found
    except (ValueError, KeyError):
        return None


def _siblings(proc: str, parent: str) -> list[str]:
    """Processes that may have that parent; all there are where the kernel doesn't list children."""
    try:
        with open(os.path.join(proc, parent, "task", parent, "children"), encoding="ascii") as handle:
            return handle.read().split()
    except OSError:
        return os.listdir(proc)


def _family(proc: str, pid: int) -> tuple[str, str]:
    """(parent, network name space) of a process that is an HAProxy; FileNotFoundError when it isn't one."""
    if sockets.comm(proc, pid) != "haproxy":
        raise FileNotFoundError(pid)
    return sockets.stat(proc, pid)[1], os.readlink(os.path.join(proc, str(pid), "ns", "net"))
