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

from .._core.errors import InputError, Refused, Unreachable
from . import sockets
from .protocol import DRAIN, MAINT, READY, Look, Server

_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,255}")
_ANY_MAINT, _ANY_DRAIN = 0x01 | 0x02 | 0x04 | 0x20 | 0x40, 0x08 | 0x10
_CHECK_CONFIGURED = 0x02
_STARTING, _RUNNING = 1, 2
_MAX_ANSWER = 32 << 20
_ASK = "show info;show stat;show servers state"
_WORDS = {READY, DRAIN, MAINT}


class HAProxy:
    """``endpoint`` is a path (unix socket), ``unix:PATH`` or ``[tcp:]HOST:PORT``."""

    name = "haproxy"
    can_maintain = can_end_sessions = live_weights = True

    def __init__(self, endpoint: str, timeout: float = 5.0, proc: str = "/proc") -> None:
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
            with self._connect() as link:
                link.sendall(commands.encode("ascii") + b"\n")
                pieces: list[bytes] = []
                size = 0
                while piece := link.recv(1 << 16):
                    pieces.append(piece)
                    size += len(piece)
                    if size > _MAX_ANSWER:
                        raise Unreachable(f"{self.endpoint} answered with more than {_MAX_ANSWER} bytes", url=self.endpoint)
        except OSError as exc:
            raise Unreachable(
                f"no answer from HAProxy's Runtime API at {self.endpoint}: {exc}; "
                "it needs `stats socket … level admin` in the global section",
                url=self.endpoint,
            ) from exc
        return b"".join(pieces).decode("utf-8", "replace")

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target, timeout=self.timeout)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(self.timeout)
            link.connect(self._target)
        except BaseException:
            link.close()
            raise
        return link

    def look(self) -> Look:
        text = self.ask(_ASK)
        pid, age, servers = parse(text, self.endpoint)
        return Look(str(pid), age, servers, left_behind(pid, self._proc) if self.local else None)

    def set_state(self, backend: str, server: str, state: str) -> None:
        if state not in _WORDS:
            raise InputError(f"unknown server state {state!r}; known: {', '.join(sorted(_WORDS))}")
        self._order(f"set server {_checked(backend)}/{_checked(server)} state {state}")

    def set_weight(self, backend: str, server: str, weight: int) -> None:
        if not 0 <= weight <= 256:
            raise InputError(f"weight {weight} is out of HAProxy's range, 0 to 256")
        self._order(f"set server {_checked(backend)}/{_checked(server)} weight {weight}")

    def end_sessions(self, backend: str, server: str) -> None:
        self._order(f"shutdown sessions server {_checked(backend)}/{_checked(server)}")

    def _order(self, command: str) -> None:
        words = self.ask(command).strip()
        if words:  # an order that was obeyed is answered with nothing
            raise Refused(f"HAProxy at {self.endpoint} refused `{command}`: {words[:200]}", command=command, answer=words[:200])


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} can't be a name in HAProxy: letters, digits, and _ . : - only")
    return name


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
            address=stat.get("addr") or f"{state['srv_addr']}:{state.get('srv_port', '0')}",
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


def left_behind(current: int, proc: str = "/proc") -> dict[str, int] | None:
    """Established connections, per ``host:port`` dialled, of the HAProxy processes that ``current`` took over from.

    After a reload the old process serves its requests to the end, out of sight of the new one's statistics: a zero there
    is not a zero. Such a process has the same parent and network name space. None when it can't be seen (another machine
    or container, or not root).
    """
    try:
        family = _family(proc, current)
        inodes: set[str] = set()
        for entry in os.listdir(proc):
            if entry.isdigit() and int(entry) != current:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                    if sockets.comm(proc, int(entry)) == "haproxy" and _family(proc, int(entry)) == family:
                        inodes |= sockets.inodes_of(proc, int(entry))
        return sockets.dialled(os.path.join(proc, str(current), "net"), inodes)[0]
    except (OSError, IndexError):
        return None


def _family(proc: str, pid: int) -> tuple[str, str]:
    """(parent, network name space) of a process that is an HAProxy; FileNotFoundError when it isn't one."""
    if sockets.comm(proc, pid) != "haproxy":
        raise FileNotFoundError(pid)
    return sockets.stat(proc, pid)[1], os.readlink(os.path.join(proc, str(pid), "ns", "net"))
