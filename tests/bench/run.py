#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the snapshot engine against what people use instead, and the gate against the node it reads; `make bench` calls it.

    tests/bench/run.py [--size 400M]

All of it happens in build/bench/work/, which is removed at the end; the figures stay in build/bench/bench.json. Every copy is
restored, and compared with its source by a reading of our own. Exit status 1 when something failed to run or a copy was not
identical, never because of a figure.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import math
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import typing as t

import reading

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy, Record
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import tally
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._state.kernel import sync_file_system
from ansible_collections.chainops.validator.plugins.module_utils._state.restore import restore
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import (
    Root,
    SnapshotSpec,
    freeze,
    hot_copy,
    sealed_path,
)
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify

REPO = pathlib.Path(__file__).resolve().parents[2]
OUT = REPO / "build" / "bench"
WORK = OUT / "work"
DATA = WORK / "data"
DROP_CACHES = pathlib.Path("/proc/sys/vm/drop_caches")

# A validator's data directory: 4.17 GiB in 6,002 files. Another size has fewer of them, and shorter logs.
TABLE, BLOCK, LOG = 2 << 20, 36 << 10, 64 << 20
FULL = 2000 * TABLE + 4000 * BLOCK + 2 * LOG
CHANGED = 0.02

# What takes longer than this is measured once, everything else three times: the median counts.
LONG, ROUNDS = 5.0, 3
VOTES, ENTRIES = 100_000, 10_000

PROPOSAL = {
    "type": "governance_proposal",
    "proposal_id": "p",
    "title": "a release",
    "description": "what it brings",
    "proposal_type": "software_upgrade",
    "submitter_voting_power": 1.0,
    "proposal_payload": {"release": "2.0.0"},
}
VOTE = {"type": "governance_vote", "proposal_id": "p", "voting_power": 20.0}
ENTRY = {"time": "2026-01-01T00:00:00Z", "kind": "upgrade", "rollout_id": "r", "snapshot_id": "s", "proposal_id": "p"}

Tree = t.Dict[str, t.Tuple[int, int, int, str]]


class Failure(Exception):
    """Something did not run, or a copy is not what it should be; the message is for people."""


# --- the data -------------------------------------------------------------------------------------------------------------


def text(rng: random.Random, size: int) -> bytes:
    """Hexadecimal lines: a compressor halves them, as it does with hashes and addresses in JSON."""
    return b"\n".join(rng.randbytes(64).hex().encode() for dummy in range(max(1, size // 129)))


def table(rng: random.Random) -> bytes:
    """Nothing left to squeeze: databases compress their tables themselves."""
    return rng.randbytes(TABLE)


def block(rng: random.Random, number: int) -> bytes:
    return json.dumps({"index": number, "transactions": text(rng, BLOCK).decode().split("\n")}).encode()


def generate(rng: random.Random, size: int) -> None:
    share = size / FULL
    for folder in ("db", "chain", "events"):
        (DATA / folder).mkdir(parents=True)
    for number in range(max(1, round(2000 * share))):
        (DATA / "db" / f"{number:06d}.ldb").write_bytes(table(rng))
    for number in range(max(1, round(4000 * share))):
        (DATA / "chain" / f"{number:06d}.json").write_bytes(block(rng, number))
    for number in range(2):
        with (DATA / "events" / f"{number}.log").open("wb") as log:
            for dummy in range(max(1, round(64 * share))):
                log.write(text(rng, 1 << 20))
    for folder in ("db", "chain"):
        (DATA / folder).chmod(0o700)


def change(rng: random.Random) -> int:
    """What a node does to 2 % of its data: tables rewritten, blocks added, logs grown. Returns the size of those files."""
    tables, blocks = sorted((DATA / "db").iterdir()), len(list((DATA / "chain").iterdir()))
    touched = rng.sample(tables, max(1, round(len(tables) * CHANGED)))
    for path in touched:
        path.write_bytes(table(rng))
    for number in range(blocks, blocks + max(1, round(blocks * CHANGED))):
        touched.append(DATA / "chain" / f"{number:06d}.json")
        touched[-1].write_bytes(block(rng, number))
    for path in sorted((DATA / "events").iterdir()):
        touched.append(path)
        with path.open("ab") as log:
            log.write(text(rng, round(path.stat().st_size * CHANGED)))
    return sum(path.stat().st_size for path in touched)


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


def size_of(path: pathlib.Path) -> int:
    return sum(item.stat().st_size for item in (path, *path.rglob("*")) if item.is_file())


# --- ours -----------------------------------------------------------------------------------------------------------------


def engine(work: str, snapshot_id: str) -> int:
    """One thing the engine does, in a process of its own: prints how long it took, and the most memory it had.

    The interpreter's start is not counted: a turn's process is there before the node stops.
    """
    roots = (Root("data", str(DATA)),)
    chain = adapter("xai")
    spec = SnapshotSpec.for_adapter("bench", snapshot_id, roots, chain)
    path = sealed_path(spec.snapshots_dir, snapshot_id)
    works: dict[str, t.Callable[[], t.Any]] = {
        "nothing": lambda: None,
        "hot copy": lambda: hot_copy(spec),
        "freeze": lambda: freeze(spec, {"chain_id": "bench"}),
        "verify": lambda: verify(path),
        "restore": lambda: restore(path, roots, chain, {"chain_id": "bench"}),
    }
    seconds, result = clocked(works[work])
    if work == "verify" and not result.ok:
        raise Failure(f"the snapshot does not verify: {result.problems[0]}")
    # Of this program alone: getrusage also counts what the process had before exec, which is its parent's.
    peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    method = result.method if work == "hot copy" else ""
    print(json.dumps({"seconds": seconds, "peak_bytes": int(peak[1]) << 10 if peak else 0, "method": method}))
    return 0


def clocked(work: t.Callable[[], t.Any]) -> tuple[float, t.Any]:
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


# --- theirs ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tool:
    """What a user would type with the node stopped. ``{copy}`` is where the copy goes, ``{out}`` an empty directory."""

    name: str
    needs: tuple[str, ...]
    copy: tuple[str, ...]
    back: tuple[str, ...]
    verifies: str
    # The first copy is made while the node runs, and the same command again when it is stopped.
    twice: bool = False


TOOLS = (
    Tool("cp -a", ("cp",), ("cp", "-a", "data", "{copy}"), ("cp", "-a", "{copy}", "{out}/data"), "nothing"),
    Tool(
        "rsync -a, twice",
        ("rsync",),
        ("rsync", "-a", "--delete", "data/", "{copy}"),
        ("rsync", "-a", "{copy}/", "{out}/data"),
        "nothing at rest",
        twice=True,
    ),
    Tool("tar", ("tar",), ("tar", "-cf", "{copy}", "data"), ("tar", "-C", "{out}", "-xf", "{copy}"), "nothing"),
    *(
        Tool(
            f"tar + {program}",
            ("tar", program.split()[0]),
            ("tar", "-I", program, "-cf", "{copy}", "data"),
            ("tar", "-C", "{out}", "-I", program.split()[0], "-xf", "{copy}"),
            verifies,
        )
        for program, verifies in (
            ("lz4", "the archive's checksum"),
            ("zstd -1 -T0", "the archive's checksum"),
        )
    ),
    # What the chain's own state_snapshot.py does; level 9 is tarfile's default. gzip itself was no faster here, and
    # would only make the bench longer.
    Tool(
        "tarfile, gzip level 9",
        (sys.executable,),
        (sys.executable, "-m", "tarfile", "-c", "{copy}.tar.gz", "data"),
        (sys.executable, "-m", "tarfile", "-e", "{copy}.tar.gz", "{out}"),
        "the archive's CRC-32",
    ),
)


def command(words: t.Sequence[str], **places: pathlib.Path) -> None:
    """Run it in the work directory, and sync what it wrote."""
    done = subprocess.run([word.format(**places) for word in words], cwd=WORK, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(words)}: exit status {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
    sync_file_system(str(WORK))


# --- measuring ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """Seconds, round by round. ``copy`` is all of the copying, ``down`` the part of it with the node stopped."""

    name: str
    verifies: str
    copy: list[float] = dataclasses.field(default_factory=list)
    down: list[float] = dataclasses.field(default_factory=list)
    restore: list[float] = dataclasses.field(default_factory=list)
    verify: list[float] = dataclasses.field(default_factory=list)
    copy_bytes: int = 0
    problem: str = ""

    def seconds(self, what: str) -> float | None:
        values = getattr(self, what)
        return statistics.median(values) if values else None

    def ratio(self, what: str, ours: Row) -> float | None:
        mine, theirs = ours.seconds(what), self.seconds(what)
        return theirs / mine if mine and theirs else None

    def worth_another(self) -> bool:
        return not self.problem and (self.seconds("copy") or 0) < LONG


class Bench:
    """Makes the data, and measures in rounds: what else the machine does then meets all of them alike."""

    def __init__(self, size: int) -> None:
        self.rng = random.Random(size)
        self.ours = Row("chainops", "each byte, owner, mode, time")
        self.sums = Row("sha256sum --check", "each byte")
        self.rows = [Row(tool.name, tool.verifies) for tool in TOOLS]
        self.memory: dict[str, int] = {}
        self.touched = 0
        self.method = ""
        generate(self.rng, size)
        self.cold = self.forget()
        self.files, self.bytes = sum(1 for path in DATA.rglob("*") if path.is_file()), size_of(DATA)

    def forget(self) -> bool:
        """Before each measurement: nothing dirty, nothing in the page cache. False where the latter isn't allowed."""
        sync_file_system(str(WORK))
        try:
            DROP_CACHES.write_text("3")
        except OSError:
            return False
        return True

    def run(self) -> None:
        for number in range(ROUNDS):
            print(f"bench: round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
            if self.ours.worth_another():
                with self.attempt(self.ours):
                    self.take_ours(f"round-{number}")
            for tool, row in zip(TOOLS, self.rows):
                missing = [program for program in tool.needs if not shutil.which(program)]
                if missing:
                    row.problem = f"not measured: {missing[0]} is not installed"
                elif row.worth_another():
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
            for path in WORK.iterdir():
                if path == DATA:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def engine(self, work: str, snapshot_id: str) -> float:
        self.forget()
        words = [sys.executable, __file__, "--engine", work, snapshot_id]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"{work}: exit status {done.returncode}: {done.stderr.strip()[-600:]}")
        answer = json.loads(done.stdout)
        self.memory[work] = max(self.memory.get(work, 0), answer["peak_bytes"])
        self.method = answer["method"] or self.method
        return float(answer["seconds"])

    def command(self, words: t.Sequence[str], **places: pathlib.Path) -> float:
        self.forget()
        return clocked(lambda: command(words, **places))[0]

    def take_ours(self, snapshot_id: str) -> None:
        self.engine("nothing", snapshot_id)
        hot = self.engine("hot copy", snapshot_id)
        self.touched = change(self.rng)
        frozen = self.engine("freeze", snapshot_id)
        state = read_tree(DATA)
        self.ours.copy.append(hot + frozen)
        self.ours.down.append(frozen)
        self.ours.copy_bytes = size_of(WORK / ".chainops")
        self.ours.verify.append(self.engine("verify", snapshot_id))
        sums = WORK / "sums"
        sums.write_text("".join(f"{entry[3]}  data/{name}\n" for name, entry in state.items() if entry[3]))
        self.sums.verify.append(self.command(("sha256sum", "--check", "--quiet", "{sums}"), sums=sums))
        change(self.rng)
        # What compares copies with their sources must be able to say no.
        if not differences(DATA, state):
            raise Failure("the comparison of trees sees no difference where there is one")
        self.ours.restore.append(self.engine("restore", snapshot_id))
        same("restore", DATA, state)

    def take_theirs(self, tool: Tool, row: Row) -> None:
        copy, out = WORK / "copy", WORK / "out"
        out.mkdir()
        hot = 0.0
        if tool.twice:
            hot = self.command(tool.copy, copy=copy)
            change(self.rng)
        down = self.command(tool.copy, copy=copy)
        row.copy.append(hot + down)
        row.down.append(down)
        row.copy_bytes = sum(size_of(path) for path in WORK.glob("copy*"))
        row.restore.append(self.command(tool.back, copy=copy, out=out))
        same(tool.name, out / "data", read_tree(DATA))

    def failed(self) -> bool:
        return any(row.problem.startswith("failed") for row in (self.ours, *self.rows))

    def as_dict(self) -> dict[str, t.Any]:
        timed = ("copy", "down", "restore", "verify")
        return {
            "data": {"files": self.files, "bytes": self.bytes, "changed": CHANGED, "bytes_of_changed_files": self.touched},
            "cache": "cold" if self.cold else "warm",
            "method": self.method,
            "rows": [
                {
                    **dataclasses.asdict(row),
                    "median_seconds": {what: row.seconds(what) for what in timed},
                    "ratio_to_ours": {what: row.ratio(what, self.ours) for what in timed},
                }
                for row in (self.ours, *self.rows, self.sums)
            ],
            "peak_memory_bytes": self.memory,
        }

    def table(self) -> str:
        cold = "cold: dropped before each measurement" if self.cold else "warm: dropping it takes root"
        lines = [
            f"data         {self.bytes / 1e6:.0f} MB in {self.files} files; 2 % changed before the stop, in files of "
            f"{self.touched / 1e6:.0f} MB",
            f"page cache   {cold}; every sync is counted",
            f"ours         hot copy beside the node, then freeze; method {self.method}",
            f"×            times ours; up to {ROUNDS} rounds, medians",
            "",
            f"{'':24}{'all copying':>16}{'node stopped':>18}{'restore':>18}{'MB':>8}  a restore verifies",
        ]
        for row in (self.ours, *self.rows):
            if row.problem:
                lines.append(f"{row.name:24}  {row.problem}")
                continue
            cells = [
                f"{row.seconds(what):8.2f} s × {row.ratio(what, self.ours) or math.nan:5.1f}"
                for what in ("copy", "down", "restore")
            ]
            lines.append(f"{row.name:24}{'  '.join(cells)}{row.copy_bytes / 1e6:8.0f}  {row.verifies}")
        if self.sums.verify:
            lines += [
                "",
                f"verify       ours {self.ours.seconds('verify'):.2f} s ({self.ours.verifies}); {self.sums.name} "
                f"{self.sums.seconds('verify'):.2f} s, × {self.sums.ratio('verify', self.ours):.1f} ({self.sums.verifies})",
            ]
        used = ", ".join(f"{work} {peak / 1e6:.0f} MB" for work, peak in self.memory.items())
        return "\n".join([*lines, f"memory       most that ours had, interpreter and imports included: {used}"])


def pure() -> dict[str, dict[str, float]]:
    """Things a second that decisions get through: votes tallied, entries of a manifest verified.

    The best of some tries, as ``timeit`` advises: what takes longer is what else the machine did.
    """
    votes = [(f"voter{number}", {**VOTE, "vote": "yes" if number % 4 else "no"}) for number in range(VOTES)]
    records = [
        Record(height, 0, f"tx{height}", sender, "", metadata)
        for height, (sender, metadata) in enumerate([("submitter", PROPOSAL), *votes], 1)
    ]
    if len(tally(records, "p", Policy()).votes) != VOTES:
        raise Failure("the tally lost votes")
    entries: list[dict[str, t.Any]] = []
    for number in range(1, ENTRIES + 1):
        body = {"seq": number, "prev": entries[-1]["hash"] if entries else manifest.START, **ENTRY, "turn_id": f"t{number}"}
        entries.append({**body, "hash": canonical.digest(body)})
    path = WORK / manifest.NAME
    path.write_bytes(canonical.pretty({"format": manifest.FORMAT, "entries": entries}))
    if manifest.verify(str(path)):
        raise Failure(f"the manifest does not verify: {manifest.verify(str(path))[0]}")
    found = {}
    for what, count, work in (
        ("votes tallied", VOTES, lambda: tally(records, "p", Policy())),
        ("manifest entries verified", ENTRIES, lambda: manifest.verify(str(path))),
    ):
        seconds = min(clocked(work)[0] for dummy in range(2 * ROUNDS))
        found[what] = {"count": count, "seconds": seconds, "per_second": count / seconds}
    return found


def size(value: str) -> int:
    """Bytes of a number with K, M or G behind it."""
    parts = re.fullmatch(r"([1-9]\d*)([KMG]?)", value)
    if parts is None:
        raise argparse.ArgumentTypeError(f"{value!r} is not a size such as 400M or 4G")
    return int(parts[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[parts[2]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=size, default="400M", help="bytes of the data directory, such as 400M or 4G")
    parser.add_argument("--engine", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        return engine(*arguments.engine)
    # Ended from outside, it still removes what it made.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        # The data, a copy, and the tree of a restore; some room beside them.
        if shutil.disk_usage(WORK).free < 4 * arguments.size:
            raise Failure(f"not enough space in {OUT}: four times the data is needed; give a smaller SIZE")
        began = time.monotonic()
        bench = Bench(arguments.size)
        decisions = pure()
        gate = reading.measure()
        bench.run()
    except (Failure, ValueError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": os.getloadavg(),
    }
    document = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "seconds": time.monotonic() - began,
        "snapshot": bench.as_dict(),
        "decisions": decisions,
        "gate": gate,
    }
    (OUT / "bench.json").write_bytes(canonical.pretty(document))
    print(bench.table())
    for what, figures in decisions.items():
        print(f"{'decisions':13}{figures['count']:,} {what} in {figures['seconds']:.3f} s: {figures['per_second']:,.0f} a second")
    print(
        f"{'gate':13}{gate['blocks']:,} blocks replayed from one reader in {gate['replay_seconds']:.1f} s; the node serves them "
        f"in {gate['served_seconds']:.1f} s over {gate['connections']} connections: x {gate['ratio']:.2f} of what it can serve; "
        f"again, from the cache, in {gate['again_seconds']:.2f} s"
    )
    print(f"{'machine':13}{machine['cores']} cores, load {machine['load'][0]:.1f}; {document['seconds']:.0f} s in all")
    return 1 if bench.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
