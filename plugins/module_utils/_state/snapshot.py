# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a snapshot: hot while the node runs, then frozen and sealed while it is down.

``hot-<id>`` holds the copy while it is being made: ``roots/<root>`` and ``hot.jsonl``, which says for each file what was
copied. A later pass, and the freeze, copy only what has changed since. Sealing writes the manifest, syncs the file system
once and renames ``hot-<id>`` to ``<id>``: a snapshot without the prefix is whole.

When is a file unchanged? When inode, size, mtime and ctime are what they were when it was hashed, and the ctime is older
than the moment *before* the file system was last synced, by more than the resolution of its clock. A write in the same tick
would not show in the times; nor would one through a memory map, to a page that was dirty already: the sync cleans the
pages, so that any later write has to touch the times again. Everything else is hashed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import random
import shutil
import stat
import time
import typing as t

from .._chain.protocol import ChainAdapter
from .._core import canonical, files
from .._core.clock import CLOCK
from .._core.errors import InputError, IntegrityError, Refused
from . import sealed
from .copy import (
    REFLINK,
    Copied,
    Gone,
    Hashed,
    Pace,
    append_seen,
    apply,
    copy_seen,
    hash_seen,
    method_for,
    parallel,
    read_xattrs,
)
from .fault import is_directory, is_there, storage
from .kernel import BTRFS_LEFT_OUT, delete_subvolume, rename_new, snapshot_subvolume, sync_file_system
from .memory import Memory
from .names import (
    DATA,
    Patterns,
    check_id,
    check_instance,
    check_root,
    decode,
    encode,
    make_workspace,
    snapshots_dir,
    workspace,
)
from .scan import DIRECTORY, FILE, SYMLINK, Found, Scan, found, join, scan
from .sealed import NAME, TREES, Entry, entry_of

__all__ = [
    "DATA",
    "HotSnapshot",
    "Memory",
    "Root",
    "Sealed",
    "SnapshotSpec",
    "freeze",
    "hot_copy",
    "load",
    "sealed_path",
    "snapshots_dir",
    "workspace",
]

HOT = "hot.jsonl"
OPEN = "pass-open"
STILL = ".still-"
#: The way of copying, where the data directory is a btrfs subvolume: from a snapshot of that.
SUBVOLUME = "btrfs snapshot"
TESTED = "tested.json"
STATS = "seal.json"
_FINE_TICK = 50_000_000
_COARSE_TICK = 2_000_000_000
_GUESS_BYTES_PER_SECOND = 300e6
# One for all: most names have no attributes.
_NONE: t.Mapping[str, str] = {}

Progress = t.Callable[[t.Dict[str, t.Any]], None]


@dataclasses.dataclass(frozen=True)
class Root:
    """A directory, or a single file, that belongs to the instance. The one named ``data`` is the data directory."""

    name: str
    path: str


@dataclasses.dataclass(frozen=True)
class SnapshotSpec:
    """What to take, and where to put it. The globs are relative to the data root.

    ``never_restore`` and ``volatile`` names are not copied at all: a snapshot holds no keys. ``rate``: bytes a second that
    are read while the node runs, at most; 0 for as many as there are.
    """

    instance: str
    snapshot_id: str
    snapshots_dir: str
    roots: tuple[Root, ...]
    never_restore: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    append_only: tuple[str, ...] = ()
    rate: float = 0.0

    @classmethod
    def for_adapter(
        cls, instance: str, snapshot_id: str, roots: t.Sequence[Root], adapter: ChainAdapter, rate: float = 0.0
    ) -> SnapshotSpec:
        """The spec for a chain's data directory, in the place where its snapshots belong."""
        layout = adapter.layout
        where = snapshots_dir(data_root(roots).path, instance)
        return cls(instance, snapshot_id, where, tuple(roots), layout.never_restore, layout.volatile, layout.append_only, rate)


@dataclasses.dataclass(frozen=True)
class HotSnapshot:
    """A copy made while the node runs. ``delta_*``: what had changed again when the last pass was over."""

    snapshot_id: str
    path: str
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    delta_files: int
    delta_bytes: int
    predicted_freeze_seconds: float
    seconds: float
    passes: int
    method: str

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Sealed:
    """A whole snapshot. ``seconds`` is how long the freeze took."""

    snapshot_id: str
    path: str
    root_sha256: str
    files: int
    bytes: int
    facts: dict[str, t.Any]
    seconds: float
    method: str

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


class _Known(t.NamedTuple):
    """What was copied under one name. ``trusted``: an equal stamp proves equal content."""

    stamp: str
    trusted: bool
    sha256: str
    size: int
    xattrs: t.Mapping[str, str]
    target: str
    sparse: bool = False

    @property
    def kind(self) -> str:
        return FILE if self.sha256 else SYMLINK if self.target else DIRECTORY


def _known(row: list[t.Any]) -> _Known:
    stamp, trusted, sha256, size, xattrs, target, sparse = row
    return _Known(stamp, trusted, sha256, size, xattrs or _NONE, target, sparse)


_Cache = t.Dict[str, t.Dict[bytes, _Known]]


class _Pass(t.NamedTuple):
    """One pass over all roots. ``still``: those that were read as they were at one moment."""

    scans: dict[str, Scan]
    cache: _Cache
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    scan_seconds: float
    copy_seconds: float
    still: tuple[str, ...] = ()


def data_root(roots: t.Sequence[Root]) -> Root:
    """The root that is the data directory. Raises InputError when there is none."""
    for root in roots:
        if root.name == DATA:
            return root
    raise InputError(f"no root is named {DATA!r}; declared: {', '.join(root.name for root in roots) or 'none'}")


def resolve(roots: t.Sequence[Root]) -> tuple[Root, ...]:
    """The roots with symbolic links resolved, sorted by name. Raises InputError for roots that overlap or repeat."""
    result = tuple(
        sorted((Root(check_root(root.name), os.path.realpath(root.path)) for root in roots), key=lambda root: root.name)
    )
    data_root(result)
    for index, one in enumerate(result):
        for other in result[index + 1 :]:
            if one.name == other.name:
                raise InputError(f"two roots are named {one.name!r}", root=one.name)
            if os.path.commonpath((one.path, other.path)) in (one.path, other.path):
                raise InputError(
                    f"root {one.name} ({one.path}) and root {other.name} ({other.path}) overlap; "
                    "each file may belong to one root only",
                    roots=[one.name, other.name],
                )
    return result


def sealed_path(snapshots: str, snapshot_id: str) -> str:
    """Where a sealed snapshot is."""
    return os.path.join(snapshots, check_id(snapshot_id))


def hot_path(snapshots: str, snapshot_id: str) -> str:
    """Where a snapshot is until it is sealed."""
    return os.path.join(snapshots, "hot-" + check_id(snapshot_id))


@storage("read a snapshot")
def load(path: str) -> Sealed:
    """Read what a sealed snapshot says of itself. Raises IntegrityError when there is no sealed snapshot."""
    header, root_sha256 = sealed.read_header(os.path.join(path, NAME))
    stats = files.read_or_none(os.path.join(path, STATS))
    seconds = float(canonical.loads(stats, STATS)["seconds"]) if stats else 0.0
    return Sealed(
        str(header["snapshot_id"]),
        path,
        root_sha256,
        int(header["files"]),
        int(header["bytes"]),
        dict(header["facts"]),
        seconds,
        str(header["method"]),
    )


@storage("copy a snapshot")
def hot_copy(
    spec: SnapshotSpec,
    progress: Progress | None = None,
    *,
    passes: int = 3,
    budget: float | None = None,
    memory: Memory[_Cache] | None = None,
) -> HotSnapshot:
    """Copy everything while the node runs, then what has changed, until a freeze should take at most ``budget`` seconds.

    At least one pass and at most ``passes``; it also stops when another pass would not make the freeze shorter. Without a
    budget there is one pass, and a second one when much had changed. Calling it again refreshes the copy. ``memory`` shortens
    later passes and the freeze of the same process. Raises Refused when the snapshot is sealed already, Busy while somebody else
    works on it.
    """
    start = CLOCK.monotonic()
    memory = memory or Memory()
    with _working(spec) as (roots, hot, method):
        count, copied_files, copied_bytes = 0, 0, 0
        predicted = float("inf")
        while True:
            done, sync_seconds = _hot_pass(spec, roots, hot, method, progress, memory)
            count += 1
            copied_files, copied_bytes = copied_files + done.copied_files, copied_bytes + done.copied_bytes
            delta_files, delta_bytes, entries = _delta(spec, roots, done.cache)
            before, predicted = predicted, _predict(done, sync_seconds, delta_bytes, entries)
            good = predicted <= budget if budget is not None else delta_bytes < max(64 << 20, done.bytes // 20)
            if good or count >= passes or predicted > before * 0.8:
                break
    return HotSnapshot(
        spec.snapshot_id,
        hot,
        done.files,
        done.bytes,
        copied_files,
        copied_bytes,
        delta_files,
        delta_bytes,
        round(predicted, 3),
        round(CLOCK.monotonic() - start, 3),
        count,
        SUBVOLUME if done.still else method,
    )


class HotFile(t.NamedTuple):
    """What a hot copy remembers of one name that it copied. ``sha256`` is empty for what isn't a file."""

    root: str
    path: bytes
    sha256: str
    size: int
    target: str


@contextlib.contextmanager
def hold_hot(spec: SnapshotSpec) -> t.Iterator[tuple[str, list[HotFile]]]:
    """Keep a hot copy as it is meanwhile, and say where it is and what it holds. Raises InputError where none is whole."""
    hot = hot_path(spec.snapshots_dir, spec.snapshot_id)
    if not os.path.isdir(hot):
        raise InputError(f"there is no hot copy {hot}", path=hot)
    with files.locked(os.path.join(spec.snapshots_dir, f".{spec.snapshot_id}.lock"), what=f"snapshot {spec.snapshot_id}"):
        if os.path.exists(os.path.join(hot, OPEN)) or not os.path.exists(os.path.join(hot, HOT)):
            raise InputError(f"the hot copy {hot} was interrupted; copy again first", path=hot)
        cache = _load(hot)
        yield (
            hot,
            [
                HotFile(root, path, known.sha256, known.size, known.target)
                for root, entries in cache.items()
                for path, known in sorted(entries.items())
            ],
        )


@storage("freeze a snapshot")
def freeze(
    spec: SnapshotSpec,
    facts: dict[str, t.Any],
    *,
    live: bool = False,
    patience: float = 60.0,
    memory: Memory[_Cache] | None = None,
) -> Sealed:
    """With the node down: copy what has changed since the hot copy, and seal. Without a hot copy everything is copied.

    ``memory``: of the hot copy, where this process made it.

    Sealed already under this id: the same answer again. A snapshot that was sealed of other roots is refused.

    ``live`` seals beside a running node, for rehearsals: it waits, at most ``patience`` seconds, for a moment in which nothing
    changed from the beginning of a pass to its end. Such a snapshot is what a crash would have left, and is never restored over
    a live directory. Raises Refused when there is no such moment.
    """
    start = CLOCK.monotonic()
    memory = memory or Memory()
    try:
        canonical.dumps(facts)
    except (TypeError, ValueError) as exc:
        raise InputError(f"the facts of snapshot {spec.snapshot_id} are not plain JSON: {exc}") from exc
    done = sealed_path(spec.snapshots_dir, spec.snapshot_id)
    if is_directory(done):
        _same_roots(spec, done)
        return load(done)
    with _working(spec) as (roots, hot, method), storage(f"freeze snapshot {spec.snapshot_id}"):
        if live:
            result = _quiet_pass(spec, roots, hot, method, patience, memory)
        else:
            result = _run_pass(spec, roots, hot, method, None, None, memory)
        header: sealed.Header = {
            "snapshot_id": spec.snapshot_id,
            "instance": spec.instance,
            "created": CLOCK.stamp(),
            "method": method,
            "facts": facts,
            "live": live,
            "never_restore": sorted(spec.never_restore),
            "volatile": sorted(spec.volatile),
            "roots": [_describe(root, result.scans[root.name]) for root in roots],
        }
        directories: list[Entry] = []
        document, dummy = sealed.seal(header, _noting(_entries(roots, result), directories))
        _finish_directories(hot, directories)
        sync_file_system(hot)
        files.write_atomic(os.path.join(hot, NAME), document, 0o600)
        rename_new(hot, done)
        files.fsync_dir(spec.snapshots_dir)
        seconds = round(CLOCK.monotonic() - start, 3)
        # Nobody relies on it: it is not worth waiting for the disk while the node is down.
        with open(os.path.join(done, STATS), "wb") as stream:
            stream.write(canonical.dumps({"seconds": seconds}))
        for name in (HOT, OPEN, TESTED, ".now"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(done, name))
    return load(done)


def _describe(root: Root, seen: Scan) -> dict[str, t.Any]:
    """A root in the header. ``stripped`` are files whose set-uid or set-gid bit was not kept."""
    return {
        "name": root.name,
        "path": encode(os.fsencode(root.path)),
        "kind": seen.kept[0].type,
        "excluded": sorted(encode(entry.path) for entry in seen.excluded),
        "skipped": [[encode(entry.path), entry.type] for entry in sorted(seen.skipped)],
        "stripped": sorted(encode(entry.path) for entry in seen.kept if entry.type == FILE and entry.mode & 0o6000),
    }


def _same_roots(spec: SnapshotSpec, done: str) -> None:
    header, dummy = sealed.read_header(os.path.join(done, NAME))
    has = {str(root["name"]): str(root["path"]) for root in header["roots"]}
    wants = {root.name: encode(os.fsencode(root.path)) for root in resolve(spec.roots)}
    if has != wants:
        raise Refused(
            f"snapshot {spec.snapshot_id} is sealed already, of other roots ({has}); take a new one under another id",
            snapshot_id=spec.snapshot_id,
            has=has,
            wants=wants,
        )


@contextlib.contextmanager
def _working(spec: SnapshotSpec) -> t.Iterator[tuple[tuple[Root, ...], str, str]]:
    """Hold the snapshot's lock, with its place made and the way of copying chosen."""
    check_instance(spec.instance)
    roots = resolve(spec.roots)
    hot = hot_path(spec.snapshots_dir, spec.snapshot_id)
    for root in roots:
        if not is_there(root.path):
            raise InputError(f"root {root.name}: {root.path} does not exist", root=root.name, path=root.path)
        if os.path.realpath(spec.snapshots_dir).startswith(root.path + "/") and f"{root.path}/.chainops/" not in f"{hot}/":
            raise InputError(f"snapshots would be kept inside root {root.name} ({root.path}); keep them outside", root=root.name)
    if is_directory(sealed_path(spec.snapshots_dir, spec.snapshot_id)):
        raise Refused(
            f"snapshot {spec.snapshot_id} is sealed already; take a new one under another id", snapshot_id=spec.snapshot_id
        )
    with storage(f"prepare snapshot {spec.snapshot_id}"):
        make_workspace(spec.snapshots_dir, 0o700)
        with files.locked(os.path.join(spec.snapshots_dir, f".{spec.snapshot_id}.lock"), what=f"snapshot {spec.snapshot_id}"):
            os.makedirs(os.path.join(hot, TREES), 0o700, exist_ok=True)
            clear_still(hot)
            method = method_for(os.fsencode(hot))
            yield roots, hot, method


def _hot_pass(
    spec: SnapshotSpec, roots: tuple[Root, ...], hot: str, method: str, progress: Progress | None, memory: Memory[_Cache]
) -> tuple[_Pass, float]:
    with storage(f"copy snapshot {spec.snapshot_id}"):
        clean = _now(hot)
        for device_root in {os.lstat(root.path).st_dev: root for root in roots}.values():
            sync_file_system(device_root.path)
        with _still(roots, hot) as sources:
            done = _run_pass(spec, sources, hot, method, clean, progress, memory)
            done = done._replace(still=tuple(root.name for root in sources if root not in roots))
        began = time.monotonic()
        sync_file_system(hot)
        seconds = time.monotonic() - began
        files.write_atomic(os.path.join(hot, HOT), _dump(done.cache), 0o600)
        memory.keep(done.cache, os.path.join(hot, HOT))
        os.unlink(os.path.join(hot, OPEN))
    return done, seconds


def clear_still(hot: str) -> None:
    """Remove what an interrupted pass left."""
    for name in os.listdir(hot):
        if name.startswith(STILL):
            delete_subvolume(os.path.join(hot, name))


@contextlib.contextmanager
def _still(roots: tuple[Root, ...], hot: str) -> t.Iterator[tuple[Root, ...]]:
    """The roots, with those that are btrfs subvolumes as they are at this moment.

    Copies are made from there. It may hold keys, which a snapshot of ours never does, so it goes when they are made.
    """
    with contextlib.ExitStack() as stack:
        sources: list[Root] = []
        for root in roots:
            place = os.path.join(hot, STILL + root.name)
            if snapshot_subvolume(root.path, place):
                stack.callback(delete_subvolume, place)
                # A subvolume inside the root was not taken along.
                if not any(entry.ino == BTRFS_LEFT_OUT for entry in scan(os.fsencode(place)).kept):
                    root = Root(root.name, place)
            sources.append(root)
        yield tuple(sources)


def _quiet_pass(
    spec: SnapshotSpec, roots: tuple[Root, ...], hot: str, method: str, patience: float, memory: Memory[_Cache]
) -> _Pass:
    """Passes until one during which nothing moved: what was copied is then what was there at one moment."""
    ends = CLOCK.monotonic() + patience
    while True:
        done, dummy = _hot_pass(spec, roots, hot, method, None, memory)
        after = _scan_all(spec, roots)
        if all(
            sorted(after[root.name].kept) == done.scans[root.name].kept
            and all(_is_copied(entry, done.cache[root.name]) for entry in after[root.name].kept)
            for root in roots
            if root.name not in done.still
        ):
            return done
        if CLOCK.monotonic() > ends:
            raise Refused(
                f"snapshot {spec.snapshot_id}: the directory did not hold still for one pass in {patience:.0f} s; "
                "stop the node first",
                snapshot_id=spec.snapshot_id,
            )
        CLOCK.sleep(random.uniform(0.02, 0.25))  # noqa: S311 - out of step with the node's own rhythm


def _is_copied(entry: Found, cache: t.Mapping[bytes, _Known]) -> bool:
    known = cache.get(entry.path)
    return known is not None and (entry.type == DIRECTORY or (known.trusted and known.stamp == entry.stamp()))


def _now(hot: str) -> int:
    """The time of the file system's own clock, in nanoseconds."""
    handle = os.open(os.path.join(hot, ".now"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.utime(handle)
        return os.fstat(handle).st_ctime_ns
    finally:
        os.close(handle)


def _dump(cache: _Cache) -> t.Iterator[bytes]:
    """A line for each name; a hundred thousand of them as one value would take more memory than all else."""
    for root, entries in cache.items():
        for path, known in entries.items():
            yield canonical.dumps([root, encode(path), *known]) + b"\n"


def _load(hot: str) -> _Cache:
    result: _Cache = {}
    name = os.path.join(hot, HOT)
    try:
        with open(name, "rb") as stream:
            for lines in iter(lambda: list(itertools.islice(stream, 1000)), []):
                # Our own cache, not somebody's document: the strict reader takes three times as long, inside the stop window.
                for root, path, *known in json.loads(b"[" + b",".join(lines) + b"]"):
                    result.setdefault(root, {})[decode(path)] = _known(known)
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as exc:
        raise IntegrityError(f"{name} is not what was written: {exc}; remove {hot} and copy again", path=hot) from exc
    return result


def _trees(hot: str, root: str) -> bytes:
    return os.fsencode(os.path.join(hot, TREES, root))


def _scan_all(spec: SnapshotSpec, roots: tuple[Root, ...]) -> dict[str, Scan]:
    exclude = Patterns((*spec.never_restore, *spec.volatile))
    return {root.name: scan(os.fsencode(root.path), exclude if root.name == DATA else None) for root in roots}


def _run_pass(
    spec: SnapshotSpec,
    roots: tuple[Root, ...],
    hot: str,
    method: str,
    clean: int | None,
    progress: Progress | None,
    memory: Memory[_Cache],
) -> _Pass:
    """Make the copy equal to what is there now. ``clean``: when the last sync began; None while the node is down.

    Raises Refused when a file won't hold still although the node is down.
    """
    opened = os.path.join(hot, OPEN)
    kept = memory.take(os.path.join(hot, HOT))
    known = kept if kept is not None else _load(hot)
    # An interrupted pass may have left, or taken away, names that the cache knows nothing about.
    unsure = is_there(opened) or not known
    if unsure or kept is None:
        # Somebody else may have worked on the copies.
        memory.hashed.clear()
    os.close(os.open(opened, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    began = time.monotonic()
    scans = _scan_all(spec, roots)
    scanned = time.monotonic()
    cache: _Cache = {}
    totals = [0, 0, 0, 0]
    pace = Pace(spec.rate) if spec.rate > 0 and clean is not None else None
    for root in roots:
        before = known.pop(root.name, {})
        work = _RootPass(spec, root, _trees(hot, root.name), scans[root.name], before, method, clean, pace, memory)
        cache[root.name] = work.run(unsure, totals, progress)
    if clean is None and any(not entry.trusted for entries in cache.values() for entry in entries.values()):
        moving = [encode(path) for entries in cache.values() for path, entry in entries.items() if not entry.trusted]
        raise Refused(
            f"{len(moving)} files changed while they were sealed, {moving[0]} among them: "
            "something still writes to the directory",
            files=moving[:20],
        )
    return _Pass(scans, cache, totals[0], totals[1], totals[2], totals[3], scanned - began, time.monotonic() - scanned)


class _RootPass:
    """One pass over one root."""

    def __init__(
        self,
        spec: SnapshotSpec,
        root: Root,
        target: bytes,
        seen: Scan,
        known: dict[bytes, _Known],
        method: str,
        clean: int | None,
        pace: Pace | None,
        memory: Memory[_Cache],
    ) -> None:
        self.memory = memory
        self.source = os.fsencode(root.path)
        self.name = root.name
        self.target = target
        self.seen = seen
        self.known = known
        self.method = method
        self.clean = clean
        self.pace = pace
        self.append_only = Patterns(spec.append_only if root.name == DATA else ())
        self.links = hard_links(seen.kept)

    def run(self, unsure: bool, totals: list[int], progress: Progress | None) -> dict[bytes, _Known]:
        """Returns the new cache; adds files, bytes, copied files and copied bytes to ``totals``."""
        kept = self.seen.kept
        current = {entry.path: entry.type for entry in kept}
        self._clear(current, unsure)
        for entry in kept:
            if entry.type == DIRECTORY:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(join(self.target, entry.path), 0o700)
        cache: dict[bytes, _Known] = {}
        todo: list[Found] = []
        for entry in kept:
            if entry.path in self.links:
                continue
            if entry.type == DIRECTORY:
                cache[entry.path] = _Known(entry.stamp(), True, "", 0, _NONE, "")
                continue
            before = self.known.get(entry.path)
            if before is not None and before.trusted and before.stamp == entry.stamp():
                cache[entry.path] = before
                totals[1] += entry.size if entry.type == FILE else 0
            else:
                todo.append(entry)
        totals[0] += sum(1 for entry in kept if entry.type == FILE)
        for entry, result in zip(todo, parallel(self._bring, todo, lambda item: item.size, forks=self.pace is None)):
            if result is None:
                continue
            cache[entry.path], copied = result
            totals[1] += cache[entry.path].size
            if copied:
                totals[2] += 1
                totals[3] += cache[entry.path].size
            if progress is not None:
                progress({"root": self.name, "copied_files": totals[2], "copied_bytes": totals[3]})
        self._link(cache)
        if self.clean is None:
            # A shared copy can't show that its source moved on while it was hashed: look once more at what was copied.
            for entry in todo:
                known = cache[entry.path]
                if found(entry.path, os.lstat(join(self.source, entry.path))).stamp() != known.stamp:
                    cache[entry.path] = known._replace(trusted=False)
        return cache

    def _clear(self, current: dict[bytes, str], unsure: bool) -> None:
        """Take away what is no longer there, or is something else by now."""
        if unsure:
            stale = _clear_tree(self.target, current)
        else:
            stale = [path for path, known in self.known.items() if current.get(path) != known.kind]
        for path in stale:
            _remove(join(self.target, path))

    def _bring(self, entry: Found) -> tuple[_Known, bool] | None:
        """Copy one name, or find that its copy is good. None when it has gone."""
        before = self.known.get(entry.path)
        path, target = join(self.source, entry.path), join(self.target, entry.path)
        try:
            if entry.type == SYMLINK:
                return self._symlink(entry, path, target), False
            hashed = self._hashed(entry, before)
            if hashed is None and before is not None and before.stamp == entry.stamp():
                looked = hash_seen(path, entry, cached=self.frozen, pace=self.pace)
                if looked.sha256 == before.sha256 and looked.size == before.size:
                    return self._remember(looked)._replace(sparse=before.sparse), False
            if hashed is None and before is not None and entry.size > before.size and self.append_only.match(entry.path):
                grown = append_seen(path, entry, target, before.size, before.sha256, cached=self.frozen)
                if grown is not None:
                    return self._remember(grown), True
            done = copy_seen(path, entry, target, self.method, cached=self.frozen, pace=self.pace, known=hashed)
            if done.hashed is not None and self.method == REFLINK:
                self.memory.hashed[self.name, entry.path] = (done.source.stamp(), done.hashed)
            return self._remember(done), True
        except Gone:
            if self.clean is None:
                raise Refused(
                    f"{encode(path)} went away while it was sealed: something still writes to the directory", path=encode(path)
                ) from None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            return None

    def _hashed(self, entry: Found, before: _Known | None) -> Hashed | None:
        """What is remembered of the copy that is there, which the new one may share its blocks with."""
        stamp, hashed = self.memory.hashed.get((self.name, entry.path), ("", None))
        return hashed if before is not None and before.stamp == stamp else None

    @property
    def frozen(self) -> bool:
        """Nobody writes any more; what was written last is likely in the page cache."""
        return self.clean is None

    def _remember(self, copied: Copied) -> _Known:
        return _Known(
            copied.source.stamp(),
            copied.stable and trustworthy(copied.source, self.clean),
            copied.sha256,
            copied.size,
            copied.xattrs,
            "",
            copied.sparse,
        )

    def _symlink(self, entry: Found, path: bytes, target: bytes) -> _Known:
        try:
            text = os.readlink(path)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
                raise Gone from exc
            raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        os.symlink(text, target)
        xattrs = read_xattrs(path)
        apply(target, entry, xattrs)
        return _Known(entry.stamp(), trustworthy(entry, self.clean), "", 0, xattrs, encode(text))

    def _link(self, cache: dict[bytes, _Known]) -> None:
        for path, first in self.links.items():
            target, original = join(self.target, path), join(self.target, first)
            if first not in cache:
                _remove(target)
                continue
            cache[path] = cache[first]
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(target), os.lstat(original)):
                    continue
                os.unlink(target)
            os.link(original, target, follow_symlinks=False)


def trustworthy(entry: Found, clean: int | None) -> bool:
    """May an equal stamp be taken for equal content later on? ``clean``: when the last sync began; None: nobody writes."""
    if clean is None:
        return True
    tick = _FINE_TICK if entry.ctime_ns % 1_000_000 else _COARSE_TICK
    return entry.ctime_ns + tick < clean


def hard_links(kept: t.Sequence[Found]) -> dict[bytes, bytes]:
    """Path -> first path, for every file that shares its inode with one that sorts before it."""
    first: dict[tuple[int, int], bytes] = {}
    links: dict[bytes, bytes] = {}
    for entry in kept:
        if entry.type == FILE and entry.nlink > 1:
            origin = first.setdefault((entry.dev, entry.ino), entry.path)
            if origin != entry.path:
                links[entry.path] = origin
    return links


def _clear_tree(target: bytes, current: dict[bytes, str]) -> list[bytes]:
    """Open up what an earlier, interrupted pass left, and say what of it has to go."""
    if not is_there(target):
        return []
    stale: list[bytes] = []
    stack = [b""]
    while stack:
        path = stack.pop()
        where = join(target, path)
        info = os.lstat(where)
        kind = DIRECTORY if stat.S_ISDIR(info.st_mode) else SYMLINK if stat.S_ISLNK(info.st_mode) else FILE
        if current.get(path) != kind:
            stale.append(path)
        elif kind == DIRECTORY:
            os.chmod(where, 0o700)
            stack.extend(path + b"/" + name if path else name for name in os.listdir(where))
    return stale


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(path)


def _delta(spec: SnapshotSpec, roots: tuple[Root, ...], cache: _Cache) -> tuple[int, int, int]:
    """Files and bytes that a freeze right now would have to read, and how many names there are."""
    with storage(f"scan for snapshot {spec.snapshot_id}"):
        scans = _scan_all(spec, roots)
    count = size = names = 0
    for name, seen in scans.items():
        names += len(seen.kept)
        for entry in seen.kept:
            if entry.type == FILE:
                known = cache[name].get(entry.path)
                if known is None or not known.trusted or known.stamp != entry.stamp():
                    count, size = count + 1, size + entry.size
    return count, size, names


def _predict(done: _Pass, sync_seconds: float, delta_bytes: int, entries: int) -> float:
    """Seconds a freeze would take now: look at every name, copy the delta at the speed seen, write the manifest, sync."""
    speed = done.copied_bytes / done.copy_seconds if done.copied_bytes > 32 << 20 else _GUESS_BYTES_PER_SECOND
    share = min(1.0, delta_bytes / max(done.copied_bytes, 1))
    return done.scan_seconds + delta_bytes / speed + entries * 15e-6 + sync_seconds * share + 0.05


def _entries(roots: tuple[Root, ...], result: _Pass) -> t.Iterator[Entry]:
    for root in roots:
        seen, cache = result.scans[root.name], result.cache[root.name]
        links = hard_links(seen.kept)
        for entry in seen.kept:
            if entry.type == DIRECTORY:
                yield entry_of(root.name, entry, xattrs=read_xattrs(join(os.fsencode(root.path), entry.path)))
                continue
            first = links.get(entry.path)
            known = cache[first or entry.path]
            if entry.type == SYMLINK:
                yield entry_of(root.name, entry, target=known.target, xattrs=known.xattrs)
            else:
                link = encode(first) if first is not None else ""
                yield entry_of(root.name, entry, sha256=known.sha256, link=link, sparse=known.sparse, xattrs=known.xattrs)


def _noting(entries: t.Iterable[Entry], directories: list[Entry]) -> t.Iterator[Entry]:
    for entry in entries:
        if entry.type == DIRECTORY:
            directories.append(entry)
        yield entry


def _finish_directories(hot: str, directories: t.Sequence[Entry]) -> None:
    """Directories get their owner, mode and times last, the deepest first."""
    for entry in reversed(directories):
        apply(join(_trees(hot, entry.root), entry.path), entry.meta(), entry.xattrs)
