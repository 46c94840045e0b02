# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory, on which the real engine takes a turn while everything that can go wrong does.

Real here: the machine, the engine, the journal's bytes, every step, the probe's verdict, how a unit is guarded, started and
stopped. Simulated: the disk under the journal (sectors that a power cut loses, space, errors of fsync), small files, clocks,
systemd, the node and its network, and what copies, migrates and restores data.

Everything that touches the world passes ``World.event``, which counts. A schedule says at which counts what goes wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import types
import typing as t
from unittest import mock

from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import (
    Block,
    Layout,
    NodeStatus,
    Validator,
    Watermark,
)
from ansible_collections.chainops.validator.plugins.module_utils._core import journal
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import (
    Busy,
    ChainopsError,
    CommandFailed,
    HttpError,
    Unreachable,
)
from ansible_collections.chainops.validator.plugins.module_utils._host import (
    control,
    engine,
    engine_main,
    fence,
    past,
    procs,
    release,
    service,
    steps,
    turn,
)
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._state import (
    migration,
    rehearse,
    restore,
    retention,
    snapshot,
    watermark,
)
from ansible_collections.chainops.validator.plugins.module_utils._state import verify as state_verify

ADDRESS = "TXAIunit1"
HOME = Home("/sim/state", "unit1")
JOURNAL = HOME.turn("t1").journal
DATA = "/sim/node/data"
PATHS = {"src": "/sim/releases/src", "dst": "/sim/releases/" + "d" * 64}
SIDES = {path: side for side, path in PATHS.items()}
PEERS = [f"http://10.0.0.{n}:8545" for n in (1, 2, 3)]
#: Seconds a block takes.
PACE = 0.2
SECTOR = 512
RESERVE = 48 << 10
#: First words of what needs little space; everything else that needs any, needs much.
SMALL = ("write", "record", "switch")
BASE = 100
TOTAL = 40.0
CONFIRM = 4.0


class Killed(BaseException):
    """The engine is gone: nothing after it happens."""


class Again(BaseException):
    """The engine starts over in the same process."""


class Violation(BaseException):
    """What must never be, was. Not an Exception: the engine takes those for a step that failed."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """``at``: the number of the event it comes with."""

    at: int
    kind: str
    value: float = 0.0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One run, wholly said. ``word``: seconds after the beginning at which somebody confirms (or objects), None for never."""

    seed: int
    direction: str = "forward"
    migrations: bool = True
    migrate: str = "in_place"
    new: str = "good"
    old: str = "good"
    kill: bool = False
    confirm: str | None = None
    word: float | None = None
    says: str = "commit"
    faults: tuple[Fault, ...] = ()


# -- time, and what is on disk ---------------------------------------------------------------------------------------------


class Ticking(Clock):
    """Real seconds pass by ``sleep`` alone. Monotonic starts anew with each boot; the wall clock steps when it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.real = 0.0
        self.booted = -1000.0
        self.offset = 1.8e9

    def monotonic(self) -> float:
        return self.real - self.booted

    def wall(self) -> float:
        return self.real + self.offset

    def sleep(self, seconds: float) -> None:
        end = self.real + seconds
        while self.real < end - 1e-9:
            self.real = min(end, self.real + 0.5)
            self.world.tick()


class File:
    """What everybody sees, what a power cut leaves, and which sectors are on their way from the one to the other."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.kept = bytearray()
        self.dirty: set[int] = set()
        self.named = False

    def write(self, at: int, data: bytes) -> None:
        if len(self.seen) < at + len(data):
            self.seen.extend(bytes(at + len(data) - len(self.seen)))
        self.seen[at : at + len(data)] = data
        self.dirty.update(range(at // SECTOR, (at + len(data) - 1) // SECTOR + 1))

    def sync(self) -> None:
        if len(self.kept) < len(self.seen):
            self.kept.extend(bytes(len(self.seen) - len(self.kept)))
        for number in self.dirty:
            self.kept[number * SECTOR : (number + 1) * SECTOR] = self.seen[number * SECTOR : (number + 1) * SECTOR]
        self.dirty.clear()

    def power_cut(self, chance: random.Random) -> None:
        for number in sorted(self.dirty):
            if chance.random() < 0.5:
                part = self.seen[number * SECTOR : (number + 1) * SECTOR]
                if len(self.kept) < number * SECTOR + len(part):
                    self.kept.extend(bytes(number * SECTOR + len(part) - len(self.kept)))
                self.kept[number * SECTOR : number * SECTOR + len(part)] = part
        self.dirty.clear()
        self.seen = bytearray(self.kept)


class Disk:
    """The journal's disk: stands for the ``os`` that ``_core.journal`` uses."""

    O_RDWR, O_CREAT, O_CLOEXEC = os.O_RDWR, os.O_CREAT, os.O_CLOEXEC

    def __init__(self, world: World) -> None:
        self.world = world
        self.files: dict[str, File] = {}
        self.open_files: dict[int, str] = {}
        self.full = False
        self.data_full = False  # the disk that the data are on; what is small is on the other one
        self.spare = 0  # small files that fit in what was set aside, once it is given up
        self.path = types.SimpleNamespace(
            exists=lambda path: path in self.files, dirname=os.path.dirname, abspath=os.path.abspath
        )

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self.world.event("journal open")
        if path not in self.files:
            self.files[path] = File()
        handle = 100 + len(self.open_files)
        self.open_files[handle] = path
        return handle

    def _file(self, handle: int) -> File:
        return self.files[self.open_files[handle]]

    def _grow(self, file: File, size: int) -> None:
        if size > len(file.seen):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            file.write(len(file.seen), bytes(size - len(file.seen)))

    def posix_fallocate(self, handle: int, at: int, size: int) -> None:
        self._grow(self._file(handle), at + size)

    def pwrite(self, handle: int, data: bytes | memoryview, at: int) -> int:
        file, data = self._file(handle), bytes(data)
        self.world.event("journal write")
        if self.full and at + len(data) > len(file.seen):
            room = max(0, len(file.seen) - at)
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[:room]
        file.write(at, data)
        if len(data) > SECTOR // 4:
            self.world.event("journal written")
        return len(data)

    def pread(self, handle: int, size: int, at: int) -> bytes:
        return bytes(self._file(handle).seen[at : at + size])

    def fdatasync(self, handle: int) -> None:
        file = self._file(handle)
        try:
            self.world.event("journal sync")
        except (OSError, ChainopsError) as exc:
            # What an error of fsync leaves behind is seen, is not on disk, and nobody will write it any more.
            file.dirty.clear()
            raise OSError(errno.EIO, "Input/output error") from exc
        file.sync()
        self.world.event("journal synced")

    fsync = fdatasync

    def close(self, handle: int) -> None:
        self.open_files.pop(handle, None)

    def read(self, path: str, mode: str = "rb") -> t.Any:
        data = bytes(self.files[path].seen)
        return contextlib.nullcontext(types.SimpleNamespace(read=lambda: data))

    def sync_names(self, path: str) -> None:
        for name, file in self.files.items():
            if os.path.dirname(name) == path:
                file.named = True

    def power_cut(self, chance: random.Random) -> None:
        for name, file in list(self.files.items()):
            if not file.named:
                del self.files[name]
                continue
            file.power_cut(chance)


class Small:
    """Small files: stands for ``_core.files``, for ``open`` and for ``os`` where a room uses them for these alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.content: dict[str, bytes] = {}
        self.unlinked: dict[str, bytes] = {}
        self.os = types.SimpleNamespace(
            unlink=self.unlink,
            rmdir=lambda path: None,
            getpid=lambda: 42,
            uname=os.uname,
            path=types.SimpleNamespace(
                exists=self.content.__contains__,
                isdir=lambda path: path in SIDES,
                join=os.path.join,
                dirname=os.path.dirname,
                basename=os.path.basename,
                abspath=os.path.abspath,
                realpath=lambda path: self.world.link if path == "/sim/current" else path,
            ),
        )

    def read_or_none(self, path: str) -> bytes | None:
        if path == HOME.turn("t1").confirm:
            return self.world.word()
        return self.content.get(path)

    def write_atomic(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.world.event(f"write {os.path.basename(path)}", space=True)
        self.content[path] = bytes(data)
        self.unlinked.pop(path, None)
        self.world.event(f"written {os.path.basename(path)}")

    def set_aside(self, path: str, size: int) -> None:
        self.write_atomic(path, bytes(size))

    def make_dir(self, path: str, mode: int = 0o755) -> None: ...

    def fsync_dir(self, path: str) -> None:
        for name in [name for name in self.unlinked if os.path.dirname(name) == path]:
            del self.unlinked[name]

    def unlink(self, path: str) -> None:
        self.world.event(f"unlink {os.path.basename(path)}")
        if path not in self.content:
            raise FileNotFoundError(path)
        self.unlinked[path] = self.content.pop(path)
        if path == HOME.reserve:
            self.world.disk.spare = len(self.unlinked[path]) // 8192
        self.world.event(f"unlinked {os.path.basename(path)}")

    def open(self, path: str, mode: str = "r", encoding: str | None = None) -> t.Any:
        self.content[path] = b""
        return contextlib.nullcontext(types.SimpleNamespace(write=lambda text: None))

    def power_cut(self, chance: random.Random) -> None:
        for path, data in self.unlinked.items():
            if chance.random() < 0.5:
                self.content[path] = data
        self.unlinked.clear()
        for path in [path for path in self.content if path.startswith("/run/")]:
            del self.content[path]


# -- the node, and who starts it -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Data:
    """A data directory. ``by``: the releases that wrote to it since it was sealed or brought here."""

    level: int
    height: int
    half: bool = False
    by: frozenset[str] = frozenset()


@dataclasses.dataclass
class Process:
    pid: int
    side: str
    behave: str
    began: float
    main: bool = True
    ends: float | None = None
    how: tuple[str, int] = ("exited", 0)


class Unit(service.Systemd):
    """The real unit, asking a simulated systemctl."""

    def __init__(self, world: World) -> None:
        super().__init__("node.service", HOME, clock=world.clock)
        self.world = world

    def ctl(self, *arguments: str, timeout: float = 30.0, check: bool = True) -> str:
        return self.world.systemctl(arguments)

    def last_words(self) -> list[str]:
        return ["it said nothing"]


class Status(NodeStatus):
    """As quick as it can be: it is asked for a million times."""

    def as_dict(self) -> dict[str, t.Any]:
        return dict(self.__dict__)


class Client:
    """A node's API."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.own = url not in PEERS

    def _node(self) -> Process | None:
        self.world.tick()
        if not self.own:
            if self.world.cut_off > self.world.clock.real:
                raise Unreachable("no route")
            return None
        node = self.world.main
        if node is None or self.world.clock.real < node.began + 0.3:
            raise Unreachable("connection refused")
        return node

    def status(self) -> NodeStatus:
        node, world = self._node(), self.world
        height = world.network() if node is None else world.data.height
        address = None if node is None else "TXAIother" if node.behave == "other_key" else ADDRESS
        healthy = node is None or node.behave != "sick"
        return Status(height, self._hash(height, node), None, None, None, "c", "g", address, 3, 3, 0, False, True, healthy)

    @staticmethod
    def _hash(height: int, node: Process | None) -> str:
        return f"{'fork' if node is not None and node.behave == 'fork' and height > BASE else 'block'}{height}"

    def block_hash(self, height: int) -> str:
        return self._hash(height, self._node())

    def block(self, height: int) -> Block:
        node = self._node()
        if node is not None and height > self.world.data.height:
            raise HttpError("no such block", url="", status=404, body="")
        return Block(height, "h", "p", 0.0, None, (), (ADDRESS,) if height in self.world.signed else (), {})

    def validators(self) -> tuple[Validator, ...]:
        self._node()
        return (Validator(ADDRESS, 1.0),)

    def equivocations(self) -> tuple[t.Mapping[str, t.Any], ...]:
        self._node()
        return ()

    def close(self) -> None: ...


class Adapter:
    """The chain, as the steps need it."""

    name = "xai"
    confirmations = 6
    layout = Layout((), stop_signal="SIGINT", stop_timeout=2.0)

    def __init__(self, world: World) -> None:
        self.world = world

    def client(self, url: str, *, timeout: float = 10.0) -> Client:
        return Client(self.world, url)

    def read_watermark(self, data_dir: str) -> Watermark:
        self.world.tick()
        return Watermark(self.world.mark, 0, 3, ADDRESS)

    def lock_holder(self, data_dir: str) -> int | None:
        return next((process.pid for process in self.world.alive()), None)

    def mend(self, data_dir: str, *, dry: bool = False) -> None:
        self.world.event("mend")

    def storage_level(self, data_dir: str) -> int:
        return self.world.data.level


class Pool:
    """Threads that are none: what they would do is done at once."""

    def __init__(self, max_workers: int = 1) -> None: ...

    def submit(self, work: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        value = work(*arguments)
        return types.SimpleNamespace(done=lambda: True, result=lambda: value)

    def map(self, work: t.Callable[[t.Any], t.Any], items: t.Iterable[t.Any]) -> list[t.Any]:
        return [work(item) for item in items]

    def shutdown(self, wait: bool = True) -> None: ...


# -- the whole ---------------------------------------------------------------------------------------------------------------


def plan_of(schedule: Schedule) -> turn.Plan:
    key = (schedule.direction, schedule.migrations, schedule.migrate, schedule.kill, schedule.confirm)
    if key not in _PLANS:
        _PLANS[key] = _plan(*key)
    return _PLANS[key]


_PLANS: dict[t.Any, turn.Plan] = {}


def _plan(direction: str, migrations: bool, migrate: str, kill: bool, confirm: str | None) -> turn.Plan:
    levels = {"src": 1, "dst": 2 if migrations else 1}
    if direction == "back":
        levels = {"src": levels["dst"], "dst": levels["src"]}
    step = {"id": "m", "from_level": 1, "to_level": 2, "forward": ["/bin/migrate"]}
    request = control.Request(
        state=control.UPGRADED if direction == "forward" else control.ROLLED_BACK,
        instance=HOME.instance,
        state_dir=HOME.state_dir,
        chain="xai",
        api_url="http://127.0.0.1:8545",
        turn_id="t1",
        rollout_id="r1",
        release={"id": "dst", "sha256": "d" * 64, "version": None, "level": levels["dst"], "dir": PATHS["dst"]},
        release_link="/sim/current",
        service={"manager": "systemd", "unit": "node.service", "scope": "system"},
        data_dir=DATA,
        roots=[{"name": "data", "path": DATA}],
        snapshot_id="turn-t1",
        back_to={"snapshot_id": "turn-t0", "sha256": "e" * 64} if direction == "back" else None,
        migrations=[step] if migrations and direction == "forward" else [],
        proof={},
        proof_sha256=None,
        fence_token=1,
        drain_receipts=[],
        require_drain=False,
        client_addresses=[],
        expected_address=ADDRESS,
        peers=PEERS,
        probe={"deadline": 3.0, "height_advance": 2, "max_lag": 3, "min_peers": None, "signs": True},
        budgets={"prepare": 5.0, "stop": 2.0, "freeze": 5.0, "migrate": 5.0, "start": 2.0, "total": TOTAL},
        policy={"kill": kill, "migrate": migrate, "stop_window_budget": 0.0},
        confirm={"deadline": CONFIRM, "on_silence": confirm} if confirm else None,
    )
    there = control.Situation(None, None, None, PATHS["src"], None, levels["src"])
    return turn.load(control.compose(request, there, "0" * 64))


class World:
    """One host on its way through one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        _Now.world = self
        self.schedule = schedule
        self.plan = plan_of(schedule)
        self.chance = random.Random(schedule.seed)
        self.faults: dict[int, list[Fault]] = {}
        for fault in schedule.faults:
            self.faults.setdefault(fault.at, []).append(fault)
        self.events = 0
        self.quiet = True
        self.trace: list[str] = []
        self.clock = Ticking(self)
        self.disk, self.small = Disk(self), Small(self)
        self.adapter = Adapter(self)
        self.boot = 1
        self.link = PATHS["src"]
        self.levels = {"src": int(self.plan.body["old"]["level"]), "dst": int(self.plan.body["new"]["level"])}
        self.data = Data(self.levels["src"], BASE, by=frozenset({"src"}))
        self.point = Data(self.levels["dst"], BASE - 50) if schedule.direction == "back" else None
        self.swap: tuple[Data, int] | None = None
        self.sealed: Data | None = None
        self.signed: dict[int, int] = {}
        self.mark = self.recorded = BASE
        self.processes: list[Process] = []
        self.ended: tuple[str, int] = ("exited", 0)
        self.loaded: str | None = None
        self.restart_at: float | None = None
        self.cut_off = -1.0
        self.alarm: float | None = None
        self.refused = self.kills = self.reboots = 0
        self.sessions = self.rests = 0
        self.done: dict[tuple[str, str], int] = {}
        self.highest_token = 1
        self.disturbed = False
        self.unit = Unit(self)

    # -- what goes wrong ------------------------------------------------------------------------------------------------

    def event(self, name: str, *, space: bool = False) -> None:
        """Something is about to touch the world, or has. May raise what the schedule says."""
        self.clock.real += 0.001
        if self.quiet:
            return
        self.events += 1
        small = name.partition(" ")[0] in SMALL
        if space and (self.disk.full if small else self.disk.data_full):
            if not small or not self.disk.spare:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.disk.spare -= 1
        for fault in self.faults.pop(self.events, ()):
            self.tick()
            self.trace.append(f"{self.events} {name}: {fault.kind} {fault.value:g}")
            getattr(self, f"_{fault.kind}")(fault.value)

    def _kill(self, value: float) -> None:
        self.kills += 1
        raise Killed

    def _reboot(self, value: float) -> None:
        self.disturbed = True
        self.reboots += 1
        self.disk.power_cut(self.chance)
        self.small.power_cut(self.chance)
        self.processes.clear()
        self.restart_at = None
        self.clock.sleep(value)
        self.boot += 1
        self.clock.booted = self.clock.real - 10.0
        self.loaded = self._drop_in()
        self.start_unit("the boot")
        raise Killed

    def _fail(self, value: float) -> None:
        self.disturbed = True
        kinds = (
            OSError(errno.EIO, "Input/output error"),
            OSError(errno.ENOSPC, "No space left on device"),
            CommandFailed("it exited 1", argv=[], code=1, output=""),
            Busy("somebody holds it"),
            KeyError("a bug"),
        )
        raise kinds[int(value) % len(kinds)]

    def _hang(self, value: float) -> None:
        self.disturbed = True
        if self.alarm is None:
            self.clock.sleep(30.0)
            raise CommandFailed("it did not finish in 30 s", argv=[], code=None, output="")
        self.clock.sleep(max(0.0, self.alarm - self.clock.real))
        raise engine.Stuck

    def _step_clock(self, value: float) -> None:
        self.clock.offset += value

    def _fill(self, value: float) -> None:
        self.disturbed = True
        self.disk.full = self.disk.data_full = True

    def _fill_state(self, value: float) -> None:
        self.disturbed = True
        self.disk.full = True

    def _free(self, value: float) -> None:
        self.disk.full = self.disk.data_full = False

    def _intrude(self, value: float) -> None:
        """Somebody, or something, starts the unit."""
        self.start_unit("somebody")

    def _crash(self, value: float) -> None:
        """The node dies by itself."""
        self.disturbed = True
        for process in self.alive():
            process.ends, process.how = self.clock.real, ("dumped", 6)
        self.tick()

    def _partition(self, value: float) -> None:
        self.disturbed = True
        self.cut_off = self.clock.real + value

    def _take_over(self, value: float) -> None:
        """Another controller comes, with a higher token."""
        self.highest_token += 1
        self.small.content[HOME.fence] = b"%d\n" % self.highest_token

    # -- the node -------------------------------------------------------------------------------------------------------

    def network(self) -> int:
        return BASE + int(self.clock.real / PACE)

    def alive(self) -> list[Process]:
        return [p for p in self.processes if p.ends is None or p.ends > self.clock.real]

    @property
    def main(self) -> Process | None:
        return next((process for process in self.alive() if process.main), None)

    def tick(self) -> None:
        """What the node did until now."""
        now = self.clock.real
        if self.restart_at is not None and now >= self.restart_at:
            self.restart_at = None
            self.start_unit("its manager")
        for process in list(self.processes):
            self._work(process, now if process.ends is None else min(now, process.ends))
            if process.ends is not None and process.ends <= now:
                self.processes.remove(process)
                if process.main:
                    self.ended = process.how
                    if self.loaded is None and process.how[0] != "exited":
                        self.restart_at = now + 0.1

    def _work(self, process: Process, now: float) -> None:
        if now < process.began + 0.3 or process.behave in ("stall", "dies") or self.cut_off > now:
            return
        for height in range(self.data.height + 1, BASE + int(now / PACE) + 1):
            self.data.height = height
            self.data.by |= {process.side}
            if height > self.mark:
                if height in self.signed:
                    raise Violation(f"height {height} signed by {self.signed[height]} and by {process.pid}")
                self.signed[height] = process.pid
                self.mark = height
        newest = max(self.signed, default=BASE)
        if self.mark < newest:
            raise Violation(f"the key's last-signed height is {self.mark}, and it signed {newest}")

    def spawn(self, who: str) -> None:
        side = SIDES[self.link]
        for other in self.alive():
            raise Violation(f"{who} starts a node while pid {other.pid} works on the same key")
        if self.data.half or self.data.level != self.levels[side]:
            raise Violation(f"{who} starts {side} on data at level {self.data.level}{', half done' if self.data.half else ''}")
        if side == "src" and "dst" in self.data.by:
            raise Violation(f"{who} starts the release before on data that the one after it has written to")
        pid = 1000 + len(self.trace) + self.events * 10 + self.sessions
        behave = self.schedule.old if side == "src" else self.schedule.new
        process = Process(pid, side, behave, self.clock.real)
        if behave == "dies":
            process.ends, process.how = self.clock.real + 0.5, ("exited", 1)
        self.data.by |= {side}
        self.processes.append(process)
        self.trace.append(f"{self.events} {who} starts {side} as {pid}")

    def _drop_in(self) -> str | None:
        data = self.small.content.get(self.unit.drop_in)
        return None if data is None else data.decode()

    def start_unit(self, who: str) -> None:
        """As systemd does it: triggering conditions are met when one of them is."""
        if self.main is not None:
            return
        wanted = [line[len("ConditionPathExists=|") :] for line in (self.loaded or "").splitlines() if "=|" in line]
        met = [(path[1:] not in self.small.content) if path[0] == "!" else path in self.small.content for path in wanted]
        if wanted and not any(met):
            self.refused += 1
            return
        self.spawn(who)

    def systemctl(self, arguments: t.Sequence[str]) -> str:
        verb = arguments[0]
        self.event(f"systemctl {verb}")
        self.tick()
        if verb == "show":
            node = self.main
            stopping = node is not None and node.ends is not None
            states = {
                "MainPID": node.pid if node else 0,
                "ActiveState": "deactivating" if stopping else "active" if node else "inactive",
                "SubState": "running" if node else "dead",
                "ExecMainCode": {"exited": 1, "killed": 2, "dumped": 3}[self.ended[0]],
                "ExecMainStatus": self.ended[1],
                "Result": "success",
                "LoadState": "loaded",
                "UnitFileState": "enabled",
                "KillMode": "control-group",
                "NeedDaemonReload": "no",
                "DropInPaths": self.unit.drop_in if self.loaded is not None else "",
                "Restart": "no" if self.loaded is not None and "Restart=no" in self.loaded else "always",
            }
            return "".join(f"{key}={value}\n" for key, value in states.items())
        if verb == "daemon-reload":
            self.loaded = self._drop_in()
        elif verb == "start":
            self.start_unit("the engine" if self.unit.permit in self.small.content else "its manager")
        elif verb == "kill":
            self._signal(arguments[-2].partition("=")[2])
        self.event(f"systemctl {verb} is through")
        return ""

    def _signal(self, name: str) -> None:
        for process in self.alive():
            if name == "SIGKILL":
                process.ends, process.how = self.clock.real, ("killed", 9)
            elif process.behave == "deaf" or process.ends is not None:
                continue
            else:
                process.ends = self.clock.real + {"slow": 3.0, "late": 1.0}.get(process.behave, 0.3)
                if process.behave == "stray":
                    child = dataclasses.replace(process, pid=process.pid + 1, main=False, ends=self.clock.real + 1.2)
                    self.processes.append(child)
        self.tick()

    def wait_gone(self, pid: int, timeout: float, clock: Clock) -> bool:
        until = clock.monotonic() + timeout
        while any(process.pid == pid for process in self.alive()):
            if clock.monotonic() >= until:
                return False
            clock.sleep(0.05)
        return True

    def running(self, pid: int, *more: t.Any) -> release.Running:
        side = next((p.side for p in self.alive() if p.pid == pid), None)
        path = PATHS[side] if side else None
        return release.Running(pid, path, None, "it is simulated")

    # -- data -----------------------------------------------------------------------------------------------------------

    def _down(self, what: str) -> None:
        self.tick()
        for process in self.alive():
            raise Violation(f"{what} while pid {process.pid} works on the data")

    def hot_copy(self, spec: t.Any, **options: t.Any) -> t.Any:
        self.event("hot copy", space=True)
        return types.SimpleNamespace(bytes=1, predicted_freeze_seconds=0.1)

    def hot_test(self, spec: t.Any) -> t.Any:
        return types.SimpleNamespace(as_dict=dict)

    def freeze(self, spec: t.Any, facts: t.Any, **options: t.Any) -> t.Any:
        self.event("freeze", space=True)
        self._down("sealed")
        if self.sealed is None:
            if self.data.half or self.data.level != self.levels["src"]:
                raise Violation("a rollback point was sealed that is not what was before")
            if "dst" in self.data.by:
                raise Violation("a rollback point was sealed after the release to go to had written to the data")
            self.sealed = dataclasses.replace(self.data)
        self.event("frozen")
        return types.SimpleNamespace(snapshot_id="turn-t1", path="/sim/sealed", root_sha256="f" * 64, bytes=1)

    def migrate(self, todo: t.Any, data_dir: str, *more: t.Any, in_place: bool, **options: t.Any) -> t.Any:
        self.event("migrate", space=True)
        self._down("migrated")
        ended = types.SimpleNamespace(as_dict=lambda: {"steps": [], "old_trees": []})
        if self.data.level == self.levels["dst"] and not self.data.half:
            return ended
        if self.data.half:
            raise Violation("half migrated data were migrated again")
        after = dataclasses.replace(self.data, level=self.levels["dst"])
        if in_place:
            self.data.half = True
            self.event("half migrated", space=True)
            self.data = after
        else:
            self._exchange(after, self.mark)
        self.event("migrated")
        return ended

    def _exchange(self, after: Data, mark: int) -> None:
        """``mark``: the key's last-signed height in the new tree; written before the trees are exchanged."""
        self.swap = after, mark
        self.data.half = True
        self.event("half exchanged")
        self._exchanged()

    def _exchanged(self) -> None:
        if self.swap is not None:
            self.data, mark = self.swap
            self.swap = None
            if mark < self.mark:
                raise Violation(f"the key's last-signed height went from {self.mark} to {mark}")
            self.mark = mark

    def finish(self, data_dir: str, instance: str) -> None:
        if self.swap is not None:
            self._down("an exchange was finished")
            self.event("finish an exchange")
            self._exchanged()

    def restore(self, path: str, roots: t.Any, adapter: t.Any, expect: t.Any, mark: Watermark | None = None) -> t.Any:
        self.event("restore", space=True)
        self.tick()
        if self.alive():
            raise Busy("the data are in use")
        self.finish(DATA, HOME.instance)
        point = self.sealed if path == "/sim/sealed" else self.point
        if point is None:
            raise Violation("there is nothing to restore")
        # The worst that a restore could do: the signing state becomes the snapshot's, or what the engine says it must be.
        self._exchange(dataclasses.replace(point), max(point.height, mark.height if mark else 0))
        self.event("restored")
        return types.SimpleNamespace(as_dict=lambda: {"old_trees": []})

    def record(self, root: str, mark: Watermark) -> Watermark:
        self.event("record the watermark", space=True)
        self.recorded = max(self.recorded, mark.height)
        return Watermark(self.recorded, 0, 3, ADDRESS)

    def switch(self, link: str, directory: str) -> None:
        self.event("switch", space=True)
        self.link = directory
        self.event("switched")

    def word(self) -> bytes | None:
        told = self.schedule.word
        return self.schedule.says.encode() if told is not None and self.clock.real >= told else None

    # -- the engine -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alarmed(self, seconds: float, last_resort: t.Callable[[], None]) -> t.Iterator[None]:
        self.alarm = self.clock.real + seconds
        try:
            yield
        finally:
            self.alarm = None

    def again(self) -> None:
        raise Again

    def enter(self, step: str, way: str, context: engine.Context) -> None:
        """Write-ahead, and nothing done twice that is known to have been done."""
        if self.disk.files[JOURNAL].dirty:
            raise Violation(f"{step} ({way}) begins before that is on disk")
        records = [r for r in context.records if r.get("step") == step and r.get("way") == way and r["kind"] != "note"]
        if records[-1]["kind"] != "begin":
            raise Violation(f"{step} ({way}) begins and the journal does not say so")
        before = records[-2]["kind"] if len(records) > 1 else None
        if before == "done" or (before == "fail" and way == turn.FORWARD and step != "commit"):
            raise Violation(f"{step} ({way}) is taken again after it was {before}")
        if before is None and self.done.get((step, way)):
            raise Violation(f"{step} ({way}) was taken before, and the journal has forgotten it")
        if context.in_doubt != (before == "begin"):
            raise Violation(f"{step} ({way}) is told in_doubt={context.in_doubt} after {before}")
        self.done[step, way] = self.done.get((step, way), 0) + 1

    def open_turn(self) -> bool:
        return engine_main.open_turn(HOME) is not None

    def session(self) -> str | None:
        """One engine from its start to its end. None: it died, or starts over."""
        self.sessions += 1
        try:
            with journal.Journal(JOURNAL, reserve=RESERVE) as log:
                worker = engine.Engine(
                    self.plan,
                    log,
                    Effects(self),
                    engine="0" * 64,
                    clock=self.clock,
                    boot=str(self.boot),
                    again=self.again,
                )
                return worker.run()
        except (Killed, Again):
            self.alarm = None
        except (OSError, ChainopsError, KeyError) as exc:
            self.trace.append(f"{self.events} the engine dies of {type(exc).__name__}: {exc}")
        self.clock.sleep(0.1)
        return None

    def records(self) -> list[dict[str, t.Any]]:
        return journal.read(JOURNAL)


class Effects(steps.HostEffects):
    """The real steps, with a look at how they are called."""

    def __init__(self, world: World) -> None:
        super().__init__(world.plan, HOME, clock=world.clock)
        self.world = world

    def do(self, step: str, context: engine.Context) -> dict[str, t.Any]:
        self.world.enter(step, turn.FORWARD, context)
        self.world.event(f"do {step}")
        token = self.world.highest_token
        facts = super().do(step, context)
        if step == "check" and token > 1:
            raise Violation(f"a turn under token 1 begins on a host that has seen {token}")
        self.world.event(f"done {step}")
        return facts

    def undo(self, undo: str, context: engine.Context) -> dict[str, t.Any]:
        step = next(s.name for s in self.world.plan.steps if s.kind.undo == undo)
        self.world.enter(step, turn.UNDO, context)
        self.world.event(f"undo {step}")
        facts = super().undo(undo, context)
        self.world.event(f"undone {step}")
        return facts

    def close(self, result: dict[str, t.Any]) -> None:
        if result["outcome"] == turn.RUNNING:
            raise Violation("the turn is closed and its journal does not say so")
        super().close(result)


class _Now:
    """The world that the patched rooms speak to."""

    world: World


def _told(name: str) -> t.Callable[..., t.Any]:
    def call(*arguments: t.Any, **options: t.Any) -> t.Any:
        return getattr(_Now.world, name)(*arguments, **options)

    return call


class _Through:
    """Whatever is asked of it is asked of a part of the world that is simulated now."""

    def __init__(self, *way: str) -> None:
        self._way = way

    def __getattr__(self, name: str) -> t.Any:
        found: t.Any = _Now.world
        for part in self._way:
            found = getattr(found, part)
        return getattr(found, name)


_SPEC = snapshot.SnapshotSpec(HOME.instance, "turn-t1", "/sim/node/.chainops/unit1/snapshots", (), (), (), (), 0.0)


@contextlib.contextmanager
def patched() -> t.Iterator[None]:
    """Everything below the engine and its steps is simulated in it."""
    small, small_os = _Through("small"), _Through("small", "os")
    futures = types.SimpleNamespace(ThreadPoolExecutor=Pool, Future=object, wait=lambda *arguments, **options: None)
    nothing = types.SimpleNamespace(problems=[])
    changes: list[tuple[t.Any, str, t.Any]] = [
        (journal, "os", _Through("disk")),
        (journal, "open", lambda path, mode: _Now.world.disk.read(path, mode)),
        (journal, "fsync_dir", lambda path: _Now.world.disk.sync_names(path)),
        (steps, "os", small_os),
        (steps, "files", small),
        (service, "os", small_os),
        (service, "files", small),
        (service, "open", lambda *arguments, **options: _Now.world.small.open(*arguments, **options)),
        (service, "wait_gone", _told("wait_gone")),
        (service, "make", lambda spec, home: _Now.world.unit),
        (engine_main, "files", small),
        (fence, "files", small),
        (engine, "alarm", _told("alarmed")),
        (steps, "chain_adapter", lambda name: _Now.world.adapter),
        (steps, "concurrent", types.SimpleNamespace(futures=futures)),
        (steps, "check_on_host", lambda *arguments, **options: []),
        (steps, "tree_size", lambda path: (0, 0)),
        (steps, "free_inodes", lambda path: None),
        (steps.canonical, "pretty", lambda value: b""),
        (steps.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1 << 40)),
        (steps.hostgate, "load", lambda *arguments: None),
        (release, "switch", _told("switch")),
        (release, "target", lambda link: _Now.world.link),
        (release, "running", _told("running")),
        (release, "require_complete", lambda path, sha256: None),
        (procs, "start_ticks", lambda pid: pid),
        (procs, "connections", lambda: []),
        (procs, "at_rest", lambda port: set()),
        (past, "results", lambda *arguments, **options: []),
        (past, "due", lambda *arguments: []),
        (snapshot.SnapshotSpec, "for_adapter", lambda *arguments: _SPEC),
        (snapshot, "hot_copy", _told("hot_copy")),
        (snapshot, "freeze", _told("freeze")),
        (rehearse, "hot_test", _told("hot_test")),
        (retention, "hold", lambda *arguments: None),
        (migration, "run", _told("migrate")),
        (migration, "level", lambda *arguments: _Now.world.data.level),
        (restore, "restore", _told("restore")),
        (restore, "finish", _told("finish")),
        (restore, "pending", lambda *arguments: None),
        (restore, "reap", lambda *arguments: None),
        (state_verify, "verify", lambda *arguments, **options: nothing),
        (watermark, "record", _told("record")),
        (watermark, "recorded", lambda *arguments: Watermark(_Now.world.recorded, 0, 3, ADDRESS)),
    ]
    with contextlib.ExitStack() as stack:
        for where, name, value in changes:
            stack.enter_context(mock.patch.object(where, name, value, create=name == "open"))
        yield


def begin(schedule: Schedule) -> World:
    """A host with a turn that was opened on it and a node that runs."""
    world = World(schedule)
    world.spawn("its manager")
    world.clock.sleep(1.0)
    with journal.Journal(JOURNAL, reserve=RESERVE) as log:
        log.append({"kind": "open", "plan_sha256": "0" * 64, "mono": 0.0, "wall": world.clock.wall(), "boot": "1"})
    world.small.content[HOME.open] = b"t1\n"
    world.small.content[HOME.fence] = b"1\n"
    world.quiet = False
    return world


def play(schedule: Schedule) -> tuple[World, str]:
    """Engines one after the other until the turn is over. Raises Violation."""
    world = begin(schedule)
    bound = len(schedule.faults) * 4 + 24
    outcome = None
    while world.open_turn():
        if world.sessions >= bound:
            raise Violation(f"{world.sessions} engines did not end the turn")
        outcome = world.session()
        if outcome is not None and world.open_turn():
            # It rests. Somebody looks: there is space again and nothing holds the data, and the engine is started once more.
            world.rests += 1
            world.disk.full = world.disk.data_full = False
            world.clock.sleep(10.0)
            outcome = None
    world.clock.sleep(3.0)
    return world, judge(world)


def judge(world: World) -> str:
    """Old or new, whole; the journal says which; running, or called failed with the reason; nothing left in the way."""
    schedule, records = world.schedule, world.records()
    result = turn.result(world.plan, records)
    outcome, node = result["outcome"], world.main

    def require(true: bool, what: str) -> None:
        if not true:
            raise Violation(f"{what} ({outcome}: {result['reason']})")

    require(outcome in (turn.COMMITTED, turn.PUT_BACK, turn.FAILED), "the journal does not say how it ended")
    require(world.loaded is None and world._drop_in() is None and not world.unit.guarded(), "the guard is still there")
    require(world.unit.permit not in world.small.content, "a permit was left behind")
    require(world.swap is None and not world.data.half, "the data are neither old nor new")
    side = SIDES[world.link]
    require(world.data.level == world.levels[side], f"the link leads to {side} and the data are at level {world.data.level}")
    if outcome == turn.COMMITTED:
        require(side == "dst", "committed, and the link does not lead to the new release")
    elif outcome == turn.PUT_BACK:
        require(side == "src" and "dst" not in world.data.by, "put back, and not what it was")
    if node is not None:
        require(node.side == side, f"the link leads to {side} and {node.side} runs")
    if outcome != turn.FAILED and not _late_death(world):
        require(node is not None, "nothing runs")
    if outcome == turn.FAILED:
        require(bool(result["reason"]), "failed, and no reason is told")
    if outcome == turn.COMMITTED:
        bad = {"stall", "fork", "dies", "other_key", "sick"}
        require(schedule.new not in bad, f"a release that is {schedule.new} was committed")
        require(
            not any(r["kind"] == "fail" and r["way"] == turn.FORWARD and r["step"] != "commit" for r in records), "a step failed"
        )
    require(world.mark >= max(world.signed, default=BASE), "the watermark is below what was signed")
    require(world.recorded >= BASE, "the remembered watermark went down")
    kinds = [record["kind"] for record in records]
    require(kinds.count("closed") == 1 and kinds[-1] == "closed", "records after the end")
    require(kinds.count("back") <= 1, "the turn turned back twice")
    return str(outcome)


def _late_death(world: World) -> bool:
    """The node is one that dies, or was hit after the last look at it; its manager brings it back where it may."""
    return world.restart_at is not None or (world.main is None and world.disturbed and world.ended[0] == "exited")
