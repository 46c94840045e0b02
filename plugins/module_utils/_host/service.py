# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a node's process is started and stopped, behind one protocol: systemd (system or user), or a plain process for rehearsals.

The guard keeps everybody but the engine from starting the node while a journal is open, also after a reboot. Starting is never
believed: ``start`` returns when the process is there, because ``systemctl start`` exits 0 also when a condition isn't met.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import re
import select
import signal as signals
import subprocess
import typing as t

from .._core import files
from .._core.clock import CLOCK, Clock
from .._core.errors import CommandFailed, InputError, Refused, WaitTimeout
from .._core.process import LINES, WIDTH, quotable, run
from . import procs
from .paths import Home

POLL = 0.02
_UNIT = re.compile(r"[A-Za-z0-9@_.:\\-]{1,200}\.service\Z")


@dataclasses.dataclass(frozen=True)
class State:
    """What the manager says. ``status``: exit code or signal number of the last main process, as the manager counts."""

    pid: int | None
    active: bool
    settled: bool  # nothing is on its way up or down
    ended: str | None  # how the last main process ended: exited, killed, dumped
    status: int | None
    text: str
    forced: bool = False  # the manager ran out of patience and killed what was left of it


class Service(t.Protocol):
    """One node's process."""

    name: str

    def state(self) -> State: ...

    def problems(self) -> list[str]:
        """What would keep a turn from working: no such unit, masked, conditions that defeat the guard."""

    def signal(self, name: str) -> None:
        """Send a signal to the node, as its manager would on stopping."""

    def start(self, timeout: float) -> int:
        """Start it, guard or not, and return its pid. Raises WaitTimeout or CommandFailed when there is no process."""

    def guard(self) -> None:
        """From now on, while the journal is open, only ``start`` of this class starts the node. Durable, idempotent."""

    def guarded(self) -> bool: ...

    def unguard(self) -> None: ...

    def reload(self) -> None:
        """Make the manager read its files again when a restore may have changed them."""

    def revoke(self) -> None:
        """Take back a permit that an engine left behind when it died while starting the node."""

    def last_words(self) -> list[str]:
        """The last lines that the node wrote before it went; none where they can't be had."""


def wait_gone(pid: int, timeout: float, clock: Clock = CLOCK) -> bool:
    """Wait until a process is gone (a zombie counts as gone); woken by the kernel, not by polling, where it can be."""
    until = clock.monotonic() + timeout
    handle = _pidfd(pid)
    try:
        while procs.alive(pid):
            left = until - clock.monotonic()
            if left <= 0:
                return False
            if handle is not None:
                watcher = select.poll()
                watcher.register(handle, select.POLLIN)
                watcher.poll(min(left, 0.5) * 1000)
            else:
                clock.sleep(min(POLL, left))
        return True
    finally:
        if handle is not None:
            os.close(handle)


def _pidfd(pid: int) -> int | None:
    opener = getattr(os, "pidfd_open", None)
    with contextlib.suppress(OSError):
        if opener is not None:
            return int(opener(pid))
    return None


def number(name: str) -> signals.Signals:
    """A signal by name. Raises InputError for a name there isn't."""
    try:
        return signals.Signals[name]
    except KeyError:
        raise InputError(f"unknown signal {name!r}; expected a name such as SIGINT") from None


class Systemd:
    """A unit of the system's or the calling user's manager."""

    def __init__(self, unit: str, home: Home, *, scope: str = "system", clock: Clock = CLOCK) -> None:
        if not _UNIT.match(unit):
            raise InputError(f"service {unit!r} is not the name of a service unit (NAME.service)", service=unit)
        if scope not in ("system", "user"):
            raise InputError(f"service scope {scope!r} is unknown; expected system or user")
        self.name = unit
        self.home = home
        self.scope = scope
        self._clock = clock
        self.lingers: str | None = None
        if scope == "system":
            self.unit_dir, runtime = "/etc/systemd/system", "/run"
        else:
            user = pwd.getpwuid(os.getuid())
            runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
            self.unit_dir = os.path.join(user.pw_dir, ".config", "systemd", "user")
            self.lingers = f"/var/lib/systemd/linger/{user.pw_name}"
            os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
        self.permit = os.path.join(runtime, "chainops", home.instance, "permit")
        # Drop-ins are applied in the order of their names, and the guard's word must be the last.
        self.drop_in = os.path.join(self.unit_dir, f"{unit}.d", "zzz-chainops-guard.conf")

    def ctl(self, *arguments: str, timeout: float = 30.0, check: bool = True) -> str:
        """Output of systemctl. Raises CommandFailed."""
        scope = ["--user"] if self.scope == "user" else []
        return run(["systemctl", *scope, *arguments], timeout=timeout, check=check).output

    def show(self, *properties: str) -> dict[str, str]:
        output = self.ctl("show", self.name, *(f"--property={name}" for name in properties))
        pairs = (line.partition("=") for line in output.splitlines())
        return {key: value for key, dummy, value in pairs}

    def state(self) -> State:
        shown = self.show("MainPID", "ActiveState", "SubState", "ExecMainCode", "ExecMainStatus", "Result")
        pid = int(shown.get("MainPID") or 0) or None
        active = shown.get("ActiveState", "")
        code = {"1": "exited", "2": "killed", "3": "dumped"}.get(shown.get("ExecMainCode", ""))
        return State(
            pid=pid,
            active=active == "active",
            settled=active in ("active", "inactive", "failed"),
            ended=code,
            status=int(shown.get("ExecMainStatus") or 0),
            text=f"{active} ({shown.get('SubState', '')})",
            forced=shown.get("Result") in ("timeout", "watchdog", "oom-kill"),
        )

    def problems(self) -> list[str]:
        shown = self.show("LoadState", "UnitFileState", "KillMode")
        if shown.get("LoadState") != "loaded":
            return [f"unit {self.name} is {shown.get('LoadState') or 'unknown'} to the {self.scope} manager"]
        found = []
        if shown.get("UnitFileState") in ("masked", "masked-runtime"):
            found.append(f"unit {self.name} is masked")
        if self.lingers is not None and not os.path.exists(self.lingers):
            found.append(
                f"the user manager that runs unit {self.name} ends with its user's last session, and with it the node and the "
                f"engine: loginctl enable-linger {os.path.basename(self.lingers)}"
            )
        if self._other_triggers():
            found.append(
                f"unit {self.name} has a triggering condition of its own (ConditionX=|...), which would open the guard; "
                "make it a plain one"
            )
        return found

    def _other_triggers(self) -> list[str]:
        lines, inside = [], False
        for line in self.ctl("cat", self.name).splitlines():
            if line.startswith("# /"):
                inside = line.endswith(os.path.basename(self.drop_in))
            elif not inside and re.match(r"\s*Condition\w+\s*=\s*\|", line):
                lines.append(line.strip())
        return lines

    def signal(self, name: str) -> None:
        # As the unit says: its main process alone, or all of them (a wrapper doesn't pass signals on).
        whom = "all" if self.show("KillMode").get("KillMode", "") in ("control-group", "") else "main"
        self.ctl("kill", f"--kill-who={whom}", f"--signal={number(name).name}", self.name)

    def start(self, timeout: float) -> int:
        files.make_dir(os.path.dirname(self.permit), 0o755)
        with open(self.permit, "w", encoding="ascii") as stream:
            stream.write(f"{os.getpid()}\n")
        try:
            # Starts of other days must not count against the limit of this one.
            self.ctl("reset-failed", self.name, check=False)
            self.ctl("start", "--no-block", self.name)
            until = self._clock.monotonic() + timeout
            while True:
                state = self.state()
                if state.pid is not None:
                    return state.pid
                if self._clock.monotonic() >= until:
                    raise WaitTimeout(f"{self.name} has no process {timeout:g} s after its start: {state.text}", last=state.text)
                self._clock.sleep(POLL)
        finally:
            self.revoke()

    def reload(self) -> None:
        if self.show("NeedDaemonReload").get("NeedDaemonReload") == "yes":
            self.ctl("daemon-reload")

    def revoke(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.permit)

    def last_words(self) -> list[str]:
        user = self.scope == "user"
        # Of the node alone: what the manager says about it is known.
        whose = f"_SYSTEMD_{'USER_' if user else ''}UNIT={self.name}"
        options = ["--user"] if user else []
        try:
            said = run(["journalctl", *options, "--quiet", "--no-pager", "--output=cat", f"--lines={LINES}", whose], timeout=10.0)
        except CommandFailed:
            return []
        return quotable(said.output)

    def guard_text(self) -> str:
        opened, permit = self.home.open.replace("%", "%%"), self.permit.replace("%", "%%")
        return (
            "# Written by chainops.validator: an upgrade of this node is under way and only its engine may start it.\n"
            "# It goes by itself when the upgrade ends. See validator_upgrade_info.\n"
            "[Unit]\n"
            f"ConditionPathExists=|!{opened}\n"
            f"ConditionPathExists=|{permit}\n"
            "[Service]\n"
            "Restart=no\n"
        )

    def guard(self) -> None:
        self.revoke()
        text = self.guard_text().encode("utf-8")
        if files.read_or_none(self.drop_in) != text:
            files.make_dir(os.path.dirname(self.drop_in))
            files.write_atomic(self.drop_in, text)
        self.ctl("daemon-reload")
        shown = self.show("DropInPaths", "Restart")
        if self.drop_in not in shown.get("DropInPaths", "").split() or shown.get("Restart") != "no":
            raise Refused(f"the guard of {self.name} has no effect: {shown}", service=self.name)

    def guarded(self) -> bool:
        return os.path.exists(self.drop_in)

    def unguard(self) -> None:
        self.revoke()
        if self.guarded():
            os.unlink(self.drop_in)
            parent = os.path.dirname(self.drop_in)
            files.fsync_dir(parent)
            with contextlib.suppress(OSError):  # not empty: others have drop-ins too
                os.rmdir(parent)
        self.ctl("daemon-reload")


class Plain:
    """A process without a manager, known by a file with its pid: for rehearsals and tests. Nobody restarts it after a reboot."""

    def __init__(
        self,
        argv: t.Sequence[str],
        pidfile: str,
        home: Home,
        *,
        cwd: str | None = None,
        env: t.Mapping[str, str] | None = None,
        log: str | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        if not argv:
            raise InputError("a plain process needs an argv")
        self.name = os.path.basename(argv[0])
        self.argv = list(argv)
        self.pidfile = pidfile
        self.home = home
        self.cwd = cwd
        self.env = dict(env or {})
        self.log = log or os.devnull
        self.flag = home.at("guarded")
        self._clock = clock

    def _pid(self) -> int | None:
        raw = (files.read_or_none(self.pidfile) or b"").split()
        if len(raw) != 2 or not all(part.isdigit() for part in raw):
            return None
        pid, ticks = int(raw[0]), int(raw[1])
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # ours, if this process started it: no zombies
        return pid if procs.alive(pid) and procs.start_ticks(pid) == ticks else None

    def state(self) -> State:
        pid = self._pid()
        return State(pid, pid is not None, True, None, None, "running" if pid else "not running")

    def problems(self) -> list[str]:
        return []

    def signal(self, name: str) -> None:
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number(name))

    def start(self, timeout: float) -> int:
        pid = self._pid()
        if pid is not None:
            return pid
        with open(self.log, "ab") as out:
            try:
                process = subprocess.Popen(
                    self.argv,
                    cwd=self.cwd,
                    env={**os.environ, **self.env},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as exc:
                raise CommandFailed(f"could not start {self.argv[0]}: {exc}", argv=self.argv, code=None, output="") from exc
        files.write_atomic(self.pidfile, f"{process.pid} {procs.start_ticks(process.pid)}\n".encode("ascii"))
        _CHILDREN[process.pid] = process
        return process.pid

    def guard(self) -> None:
        files.write_atomic(self.flag, b"")

    def guarded(self) -> bool:
        return os.path.exists(self.flag)

    def unguard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.flag)

    def reload(self) -> None:
        pass

    def revoke(self) -> None:
        pass

    def last_words(self) -> list[str]:
        try:
            with open(self.log, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - LINES * WIDTH))
                return quotable(stream.read().decode("utf-8", "replace"))
        except OSError:
            return []


#: Kept so that the interpreter doesn't complain about processes it should wait for; they outlive the engine.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


def make(spec: t.Mapping[str, t.Any], home: Home) -> Service:
    """A service from a plan: ``{"manager": "systemd", "unit", "scope"}`` or ``{"manager": "process", "argv", "pidfile"}``."""
    manager = spec.get("manager")
    if manager == "systemd":
        return Systemd(str(spec["unit"]), home, scope=str(spec.get("scope", "system")))
    if manager == "process":
        return Plain(
            list(spec["argv"]), str(spec["pidfile"]), home, cwd=spec.get("cwd"), env=spec.get("env"), log=spec.get("log")
        )
    raise InputError(f"unknown service manager {manager!r}; expected systemd or process")


def stop(service: Service, name: str, timeout: float, *, kill: bool, clock: Clock = CLOCK) -> dict[str, t.Any]:
    """Ask the node to stop and wait until it has, whole.

    Returns ``{"pid", "killed", "clean", "seconds", "ended", "status"}``; ``killed`` also where its manager killed what the main
    process left behind. Raises WaitTimeout when it is still there after
    ``timeout`` seconds; it is only ever killed when ``kill`` says so, and that is reported.
    """
    start = clock.monotonic()
    until = start + timeout
    pid = service.state().pid
    killed = False
    if pid is not None:
        service.signal(name)
        if not wait_gone(pid, timeout, clock):
            if not kill:
                raise WaitTimeout(
                    f"{service.name} (pid {pid}) did not stop within {timeout:g} s of {name}; it was not killed",
                    pid=pid,
                    signal=name,
                )
            killed = True
            service.signal("SIGKILL")
            if not wait_gone(pid, 10.0, clock):
                raise WaitTimeout(f"{service.name} (pid {pid}) is still there 10 s after SIGKILL", pid=pid, signal="SIGKILL")
    while True:
        state = service.state()
        if state.settled and state.pid is None:
            break
        if clock.monotonic() >= until + 10.0:
            raise WaitTimeout(f"{service.name} ended but its unit is {state.text}", pid=pid)
        clock.sleep(POLL)
    killed = killed or (pid is not None and state.forced)
    wanted = state.ended in (None, "exited") or (state.ended == "killed" and state.status == int(number(name)))
    return {
        "pid": pid,
        "killed": killed,
        "clean": not killed and wanted,
        "ended": state.ended,
        "status": state.status,
        "seconds": round(clock.monotonic() - start, 3),
    }
