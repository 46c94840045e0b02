# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot engine against what people use instead, on the same trees.

Two data directories: few large files (4 GB in 6,000), and many small ones (1 GB in 100,000). On the file system that the
bench is in, against every peer; on loop-mounted XFS and btrfs, where there is root, against the quickest. Every copy that is
restored is compared with its source by a reading of our own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import mmap
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import types
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._state import copy as engine_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.kernel import sync_file_system
from ansible_collections.chainops.validator.plugins.module_utils._state.restore import restore
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import (
    Memory,
    Root,
    SnapshotSpec,
    freeze,
    hot_copy,
    sealed_path,
)
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify

DROP_CACHES = pathlib.Path("/proc/sys/vm/drop_caches")
TABLE, BLOCK, LOG, SMALL = 2 << 20, 36 << 10, 64 << 20, 10 << 10
#: Shares of the data that change between the hot copy and the stop; the middle one is compared with others.
CHURN = (0.0, 0.02, 0.10)
USUAL = 0.02

Tree = t.Dict[str, t.Tuple[int, int, int, str]]


class Failure(Exception):
    """Something did not run, or a copy is not what it should be; the message is for people."""


def clocked(work: t.Callable[[], t.Any]) -> tuple[float, t.Any]:
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


# --- the data -------------------------------------------------------------------------------------------------------------


def text(rng: random.Random, size: int) -> bytes:
    """Hexadecimal lines: a compressor halves them, as it does with hashes and addresses in JSON."""
    return b"\n".join(rng.randbytes(64).hex().encode() for dummy in range(max(1, size // 129)))


def document(rng: random.Random, number: int, size: int) -> bytes:
    return json.dumps({"index": number, "transactions": text(rng, size).decode().split("\n")}).encode()


class Large:
    """Few large files: tables that a database has compressed already, blocks as JSON, two logs. 4.17 GiB in 6,002 files."""

    name = "large"
    full = 2000 * TABLE + 4000 * BLOCK + 2 * LOG

    def generate(self, top: pathlib.Path, rng: random.Random, share: float) -> None:
        for folder in ("db", "chain", "events"):
            (top / folder).mkdir(parents=True)
        for number in range(max(1, round(2000 * share))):
            (top / "db" / f"{number:06d}.ldb").write_bytes(rng.randbytes(TABLE))
        for number in range(max(1, round(4000 * share))):
            (top / "chain" / f"{number:06d}.json").write_bytes(document(rng, number, BLOCK))
        for number in range(2):
            with (top / "events" / f"{number}.log").open("wb") as log:
                for dummy in range(max(1, round(64 * share))):
                    log.write(text(rng, 1 << 20))

    def change(self, top: pathlib.Path, rng: random.Random, churn: float) -> None:
        """Tables rewritten, blocks added, logs grown."""
        tables, blocks = sorted((top / "db").iterdir()), len(list((top / "chain").iterdir()))
        for path in rng.sample(tables, round(len(tables) * churn)):
            path.write_bytes(rng.randbytes(TABLE))
        for number in range(blocks, blocks + round(blocks * churn)):
            (top / "chain" / f"{number:06d}.json").write_bytes(document(rng, number, BLOCK))
        for path in sorted((top / "events").iterdir()) if churn else []:
            with path.open("ab") as log:
                log.write(text(rng, round(path.stat().st_size * churn)))


class Small:
    """Many small files: 100,000 of 10 KiB in a hundred folders."""

    name = "small"
    full = 100_000 * SMALL

    def generate(self, top: pathlib.Path, rng: random.Random, share: float) -> None:
        for folder in range(100):
            (top / f"{folder:02d}").mkdir(parents=True)
            for number in range(max(1, round(1000 * share))):
                (top / f"{folder:02d}" / f"{number:06d}.json").write_bytes(document(rng, number, SMALL))

    def change(self, top: pathlib.Path, rng: random.Random, churn: float) -> None:
        """Files rewritten, half as many added."""
        names = sorted(top.rglob("*.json"))
        for path in rng.sample(names, round(len(names) * churn)):
            path.write_bytes(document(rng, 0, SMALL))
        for number in range(round(len(names) * churn / 2)):
            (top / f"{number % 100:02d}" / f"{len(names) + number:08d}.json").write_bytes(document(rng, number, SMALL))


def read_tree(top: pathlib.Path) -> Tree:
    """Mode, owner and content of every name. Read without the engine, which is what is being judged."""
    tree: Tree = {}
    for path in (top, *top.rglob("*")):
        info = path.lstat()
        content = ""
        if path.is_file():
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        tree[str(path.relative_to(top))] = (info.st_mode, info.st_uid, info.st_gid, content)
    return tree


def differences(top: pathlib.Path, expected: Tree) -> list[str]:
    got = read_tree(top)
    return sorted(name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))


def same(what: str, top: pathlib.Path, expected: Tree) -> None:
    wrong = differences(top, expected)
    if wrong:
        raise Failure(f"{what}: not identical with its source: {len(wrong)} names differ, {wrong[0]} among them")


# --- ours -----------------------------------------------------------------------------------------------------------------


class _NoHash:
    """Stands for SHA-256 where a copy is to be measured without it."""

    def update(self, data: object) -> None:
        pass

    def copy(self) -> _NoHash:
        return self

    def hexdigest(self) -> str:
        return "0" * 64


def engine(work: str, data: str, snapshot_id: str) -> int:
    """One thing the engine does, in a process of its own: prints how long it took, and the most memory it had.

    The interpreter's start is not counted: a turn's process is there before the node stops. Who creates also freezes, as in a
    turn, once a line on standard input says that the node is down.
    """
    roots = (Root("data", data),)
    chain = adapter("xai")
    spec = SnapshotSpec.for_adapter("bench", snapshot_id, roots, chain)
    path = sealed_path(spec.snapshots_dir, snapshot_id)
    if work == "unhashed":
        engine_copy.hashlib = types.SimpleNamespace(sha256=_NoHash)  # type: ignore[assignment]
    memory: Memory[t.Any] = Memory()
    works: dict[str, t.Callable[[], t.Any]] = {
        "create": lambda: hot_copy(spec, passes=1, memory=memory),
        "unhashed": lambda: hot_copy(spec, passes=1),
        "freeze": lambda: freeze(spec, {"chain_id": "bench"}, memory=memory),
        "verify": lambda: verify(path),
        "restore": lambda: restore(path, roots, chain, {"chain_id": "bench"}),
    }
    tell(work, works[work])
    if work == "create" and sys.stdin.readline():
        tell("freeze", works["freeze"])
    return 0


def tell(work: str, does: t.Callable[[], t.Any]) -> None:
    seconds, result = clocked(does)
    if work == "verify" and not result.ok:
        raise Failure(f"the snapshot does not verify: {result.problems[0]}")
    # Of this program alone: getrusage also counts what the process had before exec, which is its parent's.
    peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    found = {
        "seconds": seconds,
        "peak_bytes": int(peak[1]) << 10 if peak else 0,
        "method": getattr(result, "method", ""),
        "swap_seconds": getattr(result, "swap_seconds", 0.0),
        "predicted": getattr(result, "predicted_freeze_seconds", 0.0),
    }
    print(json.dumps(found), flush=True)


# --- theirs ---------------------------------------------------------------------------------------------------------------


def seed(work: str, data: str, copy: str) -> int:
    """What the seed chain's own tool does, said again: a tar archive at tarfile's own gzip level, and its digest.

    Its ``verify`` compares the archive's digest alone; its ``restore`` removes the target before it reads the archive.
    """
    archive = pathlib.Path(copy + ".tar.gz")
    if work == "create":
        with tarfile.open(archive, "w:gz") as out:
            out.add(data, arcname="data")
        pathlib.Path(copy + ".json").write_text(json.dumps({"snapshot_sha256": digest(archive)}))
    elif digest(archive) != json.loads(pathlib.Path(copy + ".json").read_text())["snapshot_sha256"]:
        return 2
    if work == "restore":
        target = pathlib.Path(data)
        shutil.rmtree(target, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(target.parent, filter="fully_trusted")
    return 0


def digest(path: pathlib.Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Tool:
    """What a user would type with the node stopped, through a shell, in a directory that holds ``data`` and nothing else of use.

    ``$copy`` is where the copy goes, ``$out`` an empty directory. ``again``: a second copy after some of the data changed.
    """

    name: str
    needs: tuple[str, ...]
    create: str
    restore: str
    verify: str = ""
    again: str = ""
    prepare: str = ""


BENCH = f"{sys.executable} {pathlib.Path(__file__).with_name('run.py')}"
TOOLS = (
    Tool("tar | lz4", ("lz4",), "tar -cf - data | lz4 -q > $copy", "lz4 -dcq $copy | tar -C $out -xf -", "lz4 -tq $copy"),
    Tool(
        "tar | zstd -1",
        ("zstd",),
        "tar -cf - data | zstd -1 -T0 -q > $copy",
        "zstd -dcq $copy | tar -C $out -xf -",
        "zstd -tq $copy",
    ),
    Tool("cp -a", ("cp",), "cp -a data $copy", "cp -a $copy $out/data"),
    Tool(
        "restic",
        ("restic",),
        "restic -q -r $copy backup data",
        "restic -q -r $copy restore latest --target $out",
        "restic -q -r $copy check --read-data",
        "restic -q -r $copy backup data",
        "restic -q -r $copy init",
    ),
    Tool(
        "borg",
        ("borg",),
        "borg create -C lz4 $copy::1 data",
        "cd $out && borg extract $copy::1",
        "borg check --verify-data $copy",
        "borg create -C lz4 $copy::2 data",
        "borg init -e none $copy",
    ),
    Tool(
        "the seed's method",
        (sys.executable,),
        f"{BENCH} --seed create data $copy",
        f"{BENCH} --seed restore $out/data $copy",
        f"{BENCH} --seed verify data $copy",
    ),
)
#: On other file systems: what is quickest elsewhere, and what is there on any machine.
QUICKEST = ("tar | lz4", "cp -a")


# --- measuring ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """Seconds by what was measured; None where a tool hasn't that. ``problem``: why there are none."""

    name: str
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    problem: str = ""


class Bench:
    """One data directory on one file system."""

    def __init__(self, where: pathlib.Path, system: str, tree: Large | Small, share: float, tools: t.Sequence[Tool]) -> None:
        self.where = where
        self.system = system
        self.tree = tree
        self.tools = tools
        self.rng = random.Random(tree.full)
        self.data = where / "data"
        self.ours = Row("chainops")
        self.rows: list[Row] = []
        self.memory = 0
        self.method = ""
        self.swap = 0.0
        self.predicted: dict[str, float] = {}
        # A data directory of its own, as a node has it; on btrfs that is what a snapshot of it would be taken of.
        if system == "btrfs":
            run(["btrfs", "-q", "subvolume", "create", str(self.data)], where)
        tree.generate(self.data, self.rng, share)
        self.cold = self.forget()
        sizes = [path.stat().st_size for path in self.data.rglob("*") if path.is_file()]
        self.files, self.bytes = len(sizes), sum(sizes)

    def forget(self) -> bool:
        """Nothing dirty, nothing in the page cache. False where the latter isn't allowed."""
        sync_file_system(str(self.where))
        try:
            DROP_CACHES.write_text("3")
        except OSError:
            return False
        return True

    def run(self) -> None:
        with self.attempt(self.ours):
            self.take_ours()
        for tool in self.tools:
            row = Row(tool.name)
            self.rows.append(row)
            say(f"{self.system}, {self.tree.name}: {tool.name}")
            missing = [program for program in tool.needs if not shutil.which(program)]
            if missing:
                row.problem = f"not measured: {missing[0]} is not installed"
                continue
            with self.attempt(row):
                self.take_theirs(tool, row)

    @contextlib.contextmanager
    def attempt(self, row: Row) -> t.Iterator[None]:
        """One tool that fails doesn't keep the others from being measured."""
        try:
            yield
        except (Failure, OSError) as exc:
            row.problem = f"failed: {exc}"
        finally:
            self.clear()

    def clear(self) -> None:
        for path in self.where.iterdir():
            if path.is_dir() and path not in (self.data, self.where / "lost+found"):
                shutil.rmtree(path)
            elif not path.is_dir():
                path.unlink()

    def engine(self, work: str, snapshot_id: str, between: t.Callable[[], None] | None = None) -> list[float]:
        """Seconds of one thing that the engine does; ``between`` it and the freeze of the same process."""
        self.forget()
        words = [sys.executable, str(pathlib.Path(__file__).with_name("run.py")), "--engine", work, str(self.data), snapshot_id]
        with subprocess.Popen(
            words, cwd=self.where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin and process.stdout and process.stderr
            lines = [process.stdout.readline()]
            if between is not None and lines[0]:
                between()
                process.stdin.write("down\n")
                process.stdin.flush()
                lines.append(process.stdout.readline())
            process.stdin.close()
            problem = process.stderr.read()
        if process.returncode or not all(lines):
            raise Failure(f"{' '.join(words)}: exit status {process.returncode}: {' '.join(problem.split())[-400:]}")
        answers = [json.loads(line) for line in lines]
        for answer in answers:
            self.memory = max(self.memory, answer["peak_bytes"])
            self.swap = max(self.swap, answer["swap_seconds"])
        if work == "create":
            self.method, self.predicted[snapshot_id] = answers[0]["method"], answers[0]["predicted"]
        return [float(answer["seconds"]) for answer in answers]

    def take_ours(self) -> None:
        """For each churn: hot copy, change, freeze with the caches as a turn finds them; and once more with cold ones."""
        found: dict[str, list[float]] = {}

        def note(what: str, seconds: float) -> None:
            found.setdefault(what, []).append(seconds)

        def stop(churn: float, cold: bool) -> None:
            self.tree.change(self.data, self.rng, churn)
            if cold:
                self.forget()

        for number, (churn, cold) in enumerate([*((churn, False) for churn in CHURN), (USUAL, True)]):
            name = f"s{number}"
            say(f"{self.system}, {self.tree.name}: chainops, {churn:.0%} changed{', cold' if cold else ''}")
            created, frozen = self.engine("create", name, functools.partial(stop, churn, cold))
            note("create", created)
            note("freeze, cold" if cold else f"freeze {churn:.0%}", frozen)
            if churn == USUAL:
                state = read_tree(self.data)
                note("verify", *self.engine("verify", name))
                self.tree.change(self.data, self.rng, USUAL)
                # What compares copies with their sources must be able to say no.
                if not differences(self.data, state):
                    raise Failure("the comparison of trees sees no difference where there is one")
                note("restore", *self.engine("restore", name))
                same("restore", self.data, state)
            self.clear()
        say(f"{self.system}, {self.tree.name}: chainops, without hashing")
        note("unhashed", *self.engine("unhashed", "s"))
        self.ours.seconds = {what: statistics.median(values) for what, values in found.items()}

    def take_theirs(self, tool: Tool, row: Row) -> None:
        copy, out = self.where / "copy", self.where / "out"

        def timed(what: str, line: str) -> None:
            if line:
                self.forget()
                row.seconds[what] = clocked(lambda: self.shell(line, copy, out))[0]

        if tool.prepare:
            self.shell(tool.prepare, copy, out)
        timed("create", tool.create)
        state = read_tree(self.data)
        timed("verify", tool.verify)
        out.mkdir()
        timed("restore", tool.restore)
        same(tool.name, out / "data", state)
        shutil.rmtree(out)
        if tool.again:
            self.tree.change(self.data, self.rng, USUAL)
            timed("again", tool.again)

    def shell(self, line: str, copy: pathlib.Path, out: pathlib.Path) -> None:
        """Run it, and sync what it wrote."""
        more = {
            "copy": str(copy),
            "out": str(out),
            "HOME": str(self.where / "home"),
            "RESTIC_PASSWORD": "of a repository that lives for a minute",
            "RESTIC_CACHE_DIR": str(self.where / "cache"),
            "BORG_BASE_DIR": str(self.where / "borg"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        run(["bash", "-c", f"set -eo pipefail; {line}"], self.where, {**os.environ, **more})
        sync_file_system(str(self.where))

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "file_system": self.system,
            "tree": self.tree.name,
            "files": self.files,
            "bytes": self.bytes,
            "cache": "cold" if self.cold else "warm",
            "method": self.method,
            "peak_memory_bytes": self.memory,
            "swap_seconds": self.swap,
            "predicted_freeze_seconds": self.predicted,
            "rows": [dataclasses.asdict(row) for row in (self.ours, *self.rows)],
        }

    def table(self, limits: Limits) -> str:
        ours = self.ours.seconds
        lines = [
            f"{self.system}, {self.bytes / 1e9:.2f} GB in {self.files:,} files; ours by {self.method or 'nothing'}",
            f"{'':20}{'create':>16}{'verify':>16}{'restore':>16}{'node stopped, 2 % changed':>28}",
        ]
        for row in (self.ours, *self.rows):
            if row.problem:
                lines.append(f"{row.name:20}  {row.problem}")
                continue
            cells = [ratio(row.seconds.get(what), ours.get(what)) for what in ("create", "verify", "restore")]
            # Who can't copy what has changed alone copies all of it, with the node stopped.
            down = row.seconds.get("freeze, cold", row.seconds.get("again", row.seconds.get("create")))
            lines.append(f"{row.name:20}{''.join(cells)}{ratio(down, ours.get('freeze, cold')):>28}")
        if not self.ours.problem:
            frozen = ", ".join(f"{ours[f'freeze {churn:.0%}']:.2f} s at {churn:.0%}" for churn in CHURN)
            lines += [
                f"freeze as in a turn (caches as the hot copy left them): {frozen}; swap {self.swap * 1000:.1f} ms; "
                f"most memory {self.memory / 1e6:.0f} MB",
                f"create takes {ours['create'] / ours['unhashed']:.2f} of the same copy without hashing; "
                + limits.shares(self.bytes, ours["create"], ours["verify"]),
            ]
        return "\n".join(lines)

    def failed(self) -> bool:
        return any(row.problem.startswith("failed") for row in (self.ours, *self.rows))


def ratio(theirs: float | None, ours: float | None) -> str:
    return f"{'-':>16}" if theirs is None else f"{theirs:7.2f} s x{theirs / ours if ours else math.nan:5.1f}"


def run(words: t.Sequence[str], where: pathlib.Path, environment: t.Mapping[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=where, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise Failure(f"{' '.join(words)}: exit status {done.returncode}: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout


def say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


# --- limits ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bytes a second: the disk past the page cache, and SHA-256 on all cores."""

    read: float
    write: float
    sha256: float

    def shares(self, size: int, create: float, verify_: float) -> str:
        disk = size / self.read + size / self.write
        return (
            f"of what the disk can do, create uses {disk / create:.0%} and verify {size / self.read / verify_:.0%}; "
            f"of SHA-256's limit {size / self.sha256 / create:.0%} and {size / self.sha256 / verify_:.0%}"
        )


def limits(where: pathlib.Path) -> Limits:
    """What this machine could do at most: large direct requests, four at a time, and hashing alone."""
    count, block = 512, 1 << 20
    path = where / "limits"
    workers = engine_copy.THREADS

    def go(flags: int, work: t.Callable[[int, mmap.mmap, int], t.Any]) -> float:
        handle = os.open(path, flags | os.O_DIRECT)

        def part(number: int) -> None:
            with mmap.mmap(-1, block) as page:
                page.write(os.urandom(4096) * (block // 4096))
                for index in range(number, count, workers):
                    work(handle, page, index * block)

        try:
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                began = time.monotonic()
                list(pool.map(part, range(workers)))
                os.fsync(handle)
                return count * block / (time.monotonic() - began)
        finally:
            os.close(handle)

    def hashed(dummy: int) -> None:
        state = hashlib.sha256()
        for dummy in range(256):
            state.update(zeros)

    try:
        write = go(os.O_RDWR | os.O_CREAT, os.pwrite)
        read = go(os.O_RDONLY, lambda handle, page, at: os.preadv(handle, [page], at))
    finally:
        path.unlink(missing_ok=True)
    zeros, cores = bytes(block), os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        seconds = clocked(lambda: list(pool.map(hashed, range(cores))))[0]
    return Limits(read, write, cores * 256 * block / seconds)


# --- file systems ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(work: pathlib.Path, system: str, size: int) -> t.Iterator[pathlib.Path]:
    """A file system of its own in a file, on a loop device without a second page cache."""
    image, where = work / f"{system}.img", work / system
    where.mkdir()
    with image.open("wb") as stream:
        stream.truncate(size)
    run([f"mkfs.{system}", "-q", str(image)], work)
    device = run(["losetup", "--find", "--show", "--direct-io=on", str(image)], work).strip()
    try:
        run(["mount", device, str(where)], work)
        try:
            yield where
        finally:
            run(["umount", str(where)], work)
    finally:
        run(["losetup", "--detach", device], work)
        image.unlink()
        where.rmdir()


def measure(work: pathlib.Path, share: float) -> tuple[list[Bench], Limits, list[str]]:
    """Everything; and what was left out, with the reason."""
    found: list[Bench] = []
    left_out: list[str] = []
    bounds = limits(work)
    own = run(["stat", "-f", "-c", "%T", str(work)], work).strip().replace("ext2/ext3", "ext4")
    for tree in (Large(), Small()):
        place = work / "own"
        place.mkdir()
        bench = Bench(place, own, tree, share, TOOLS)
        found.append(bench)
        bench.run()
        say(f"so far:\n{bench.table(bounds)}\n")
        shutil.rmtree(place)
    quick = [tool for tool in TOOLS if tool.name in QUICKEST]
    for system in ("xfs", "btrfs"):
        if os.geteuid() != 0 or not shutil.which(f"mkfs.{system}"):
            left_out.append(f"{system}: takes root and mkfs.{system}")
            continue
        for tree in (Large(), Small()):
            with mounted(work, system, int(5 * tree.full * share) + (1 << 30)) as place:
                bench = Bench(place, system, tree, share, quick)
                found.append(bench)
                bench.run()
                say(f"so far:\n{bench.table(bounds)}\n")
    return found, bounds, left_out
