# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring a snapshot: a new tree is built beside the live one, verified, and exchanged with it.

What is put back is the state, never the signer: keys, node identity and signing state come from the live tree, and the
watermark of the new tree is the highest of all that are known. Every byte is hashed while it is copied out of the snapshot
and compared with the seal; until the exchange the live tree is not touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import typing as t

from .._chain.protocol import ChainAdapter, Watermark
from .._core.clock import CLOCK
from .._core.errors import Busy, InputError, IntegrityError, Refused
from . import sealed, swap, watermark
from .copy import COPY, Gone, apply, copy_seen, method_for, parallel, read_xattrs
from .fault import is_directory, is_there, storage
from .kernel import can_clone, sync_file_system
from .names import DATA, Patterns, decode, encode
from .retention import in_use
from .scan import DIRECTORY, FILE, SYMLINK, Found, found, join, scan
from .sealed import Entry, Manifest
from .snapshot import Root, data_root, hard_links, resolve
from .swap import Place, Swapped, reap
from .verify import compare, of_root

__all__ = ["Restored", "Scratch", "differences", "finish", "pending", "reap", "restore", "restore_to"]

_RESERVE = 64 << 20


@dataclasses.dataclass(frozen=True)
class Restored:
    """``old_trees``: what was live before, kept until ``reap``. ``kept``: names taken from the live data directory.

    ``kind`` is ``migration`` when ``finish`` finished a migration's exchange; the snapshot's fields are empty then.
    """

    snapshot_id: str
    root_sha256: str
    old_trees: tuple[str, ...]
    watermark: Watermark | None
    method: str
    files: int
    bytes: int
    seconds: float
    swap_seconds: float
    kept: tuple[str, ...]
    kind: str = "restore"

    def as_dict(self) -> dict[str, t.Any]:
        lists = {"old_trees": list(self.old_trees), "kept": list(self.kept)}
        return {**dataclasses.asdict(self), **lists, "watermark": watermark.as_dict(self.watermark)}


@dataclasses.dataclass(frozen=True)
class Scratch:
    """A test restore. ``paths``: where each root is now."""

    snapshot_id: str
    root_sha256: str
    paths: dict[str, str]
    files: int
    bytes: int
    seconds: float
    method: str

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@storage("restore a snapshot")
def restore(
    snapshot_path: str,
    roots: t.Sequence[Root],
    adapter: ChainAdapter,
    expect: t.Mapping[str, t.Any],
    min_watermark: Watermark | None = None,
    *,
    only: t.Sequence[str] | None = None,
) -> Restored:
    """Put the roots of a snapshot back, with the node down. The old trees are kept; ``reap`` removes them.

    ``expect`` may hold chain_id, genesis_hash and root_sha256: each must be what the snapshot was sealed with.
    ``min_watermark`` is the highest known from elsewhere (recorded on the host, seen on chain). An interrupted restore is
    finished first; when it was of this snapshot, its result is the answer. Raises Refused, Busy or IntegrityError, and has
    not touched the live trees then.
    """
    start = CLOCK.monotonic()
    manifest = _sealed(snapshot_path, expect)
    if manifest.header.get("live"):
        raise Refused(
            f"snapshot {manifest.header['snapshot_id']} was sealed beside a running node, for "
            "rehearsals; it is not a rollback point",
            snapshot_id=manifest.header["snapshot_id"],
        )
    real = resolve(roots)
    data = data_root(real).path
    instance = str(manifest.header["instance"])
    with swap.exclusive(data, instance), in_use(snapshot_path):
        interrupted = finish(data, instance, locked=True)
        if interrupted is not None and interrupted.root_sha256 == manifest.root_sha256:
            return interrupted
        _unused(adapter, data)
        places = _places(manifest, real, instance, only)
        with storage(f"restore snapshot {manifest.header['snapshot_id']}"):
            swap.prepare(places)
            try:
                _room(manifest, places)
                method = ""
                kept: tuple[str, ...] = ()
                mark: Watermark | None = None
                for item in places:
                    how = _build(snapshot_path, manifest, item.root, item.staged, adapter)
                    method = method or how
                    if item.root == DATA:
                        kept = _keep_live(item, Patterns(adapter.layout.never_restore))
                        mark = _raise_watermark(adapter, item, manifest, min_watermark)
                _unused(adapter, data)
                for folder in sorted({os.path.dirname(item.staged) for item in places}):
                    sync_file_system(folder)
            except BaseException:
                swap.discard(places)
                raise
        note = {
            "kind": "restore",
            "snapshot_id": manifest.header["snapshot_id"],
            "root_sha256": manifest.root_sha256,
            "watermark": watermark.as_dict(mark),
            "files": manifest.header["files"],
            "bytes": manifest.header["bytes"],
            "kept": list(kept),
        }
        done = swap.swap(data, instance, places, note)
    return _restored(done, CLOCK.monotonic() - start)


@storage("look for an interrupted swap")
def pending(data_dir: str, instance: str) -> str | None:
    """The id of the snapshot (or ``migration``) whose exchange was begun and not finished, or None."""
    marker = swap.pending(data_dir, instance)
    if marker is None:
        return None
    return str(marker["note"].get("snapshot_id") or marker["note"].get("kind") or "?")


@storage("finish an interrupted swap")
def finish(data_dir: str, instance: str, *, locked: bool = False) -> Restored | None:
    """Finish an exchange that was interrupted. None when there is nothing to finish. Call it before the node is started."""
    start = CLOCK.monotonic()
    if swap.pending(data_dir, instance) is None:
        return None
    with contextlib.nullcontext() if locked else swap.exclusive(data_dir, instance):
        done = swap.finish(data_dir, instance)
    return None if done is None else _restored(done, CLOCK.monotonic() - start)


@storage("restore a snapshot")
def restore_to(snapshot_path: str, target: str, adapter: ChainAdapter, expect: t.Mapping[str, t.Any] | None = None) -> Scratch:
    """A test restore, verified byte by byte, into a directory that is missing or empty: ``<target>/<root>``.

    It holds no keys, identity or signing state (a snapshot has none). Raises Refused when the target is in use.
    """
    start = CLOCK.monotonic()
    manifest = _sealed(snapshot_path, expect or {})
    target = os.path.abspath(target)
    with storage(f"restore to {target}"), in_use(snapshot_path):
        if is_there(target) and (not is_directory(target) or os.listdir(target)):
            raise Refused(f"{target} is not empty; a test restore needs a directory of its own", path=target)
        os.makedirs(target, 0o755, exist_ok=True)
        paths = {str(root["name"]): os.path.join(target, str(root["name"])) for root in manifest.header["roots"]}
        places = [
            Place(str(r["name"]), paths[str(r["name"])], paths[str(r["name"])], str(r["kind"])) for r in manifest.header["roots"]
        ]
        _room(manifest, places)
        try:
            methods = [_build(snapshot_path, manifest, item.root, item.staged, adapter) for item in places]
        except BaseException:
            for path in paths.values():
                swap.delete_tree(path)
            raise
    header = manifest.header
    seconds = round(CLOCK.monotonic() - start, 3)
    return Scratch(header["snapshot_id"], manifest.root_sha256, paths, header["files"], header["bytes"], seconds, methods[0])


@storage("compare with a snapshot")
def differences(
    snapshot_path: str,
    roots: t.Sequence[Root],
    adapter: ChainAdapter,
    *,
    expect: t.Mapping[str, t.Any] | None = None,
    deep: bool = True,
) -> list[str]:
    """How trees on disk differ from a snapshot, apart from what a restore leaves alone. Empty: a restore would change nothing.

    Raises Refused as ``restore`` does when the snapshot is not the one that is expected.
    """
    manifest = _sealed(snapshot_path, expect or {})
    problems: list[str] = []
    for root in roots:
        entries = of_root(manifest, root.name)
        if not entries:
            raise InputError(f"snapshot {manifest.header['snapshot_id']} has no root {root.name}", root=root.name)
        with storage(f"compare {root.path}"):
            problems += compare(
                os.fsencode(os.path.realpath(root.path)), entries, deep=deep, ignore=_left_alone(adapter, root.name)
            )
    return problems


def _restored(done: Swapped, seconds: float) -> Restored:
    note = done.note
    return Restored(
        str(note.get("snapshot_id", "")),
        str(note.get("root_sha256", "")),
        done.old,
        watermark.from_dict(note.get("watermark")),
        done.method,
        int(note.get("files", 0)),
        int(note.get("bytes", 0)),
        round(seconds, 3),
        done.seconds,
        tuple(note.get("kept", ())),
        str(note.get("kind", "restore")),
    )


def _sealed(snapshot_path: str, expect: t.Mapping[str, t.Any]) -> Manifest:
    """The manifest, when it is whole and the one that is expected."""
    manifest = sealed.read(os.path.join(snapshot_path, sealed.NAME))
    facts = {**manifest.header["facts"], "root_sha256": manifest.root_sha256}
    unknown = set(expect) - {"chain_id", "genesis_hash", "root_sha256"}
    if unknown:
        raise InputError(f"can't expect {', '.join(sorted(unknown))} of a snapshot; known: chain_id, genesis_hash, root_sha256")
    for name, value in expect.items():
        if value is not None and facts.get(name) != value:
            raise Refused(
                f"snapshot {manifest.header['snapshot_id']} has {name} {facts.get(name)!r}, expected {value!r}; "
                "it was not restored",
                fact=name,
                has=facts.get(name),
                expected=value,
            )
    return manifest


def _unused(adapter: ChainAdapter, data: str) -> None:
    if not is_directory(data):
        return
    pid = adapter.lock_holder(data)
    if pid is not None:
        raise Busy(f"{data} is in use by process {pid}; stop the node first", pid=pid, path=data)


def _places(manifest: Manifest, roots: t.Sequence[Root], instance: str, only: t.Sequence[str] | None) -> list[Place]:
    kinds = {str(root["name"]): str(root["kind"]) for root in manifest.header["roots"]}
    wanted = [root for root in roots if only is None or root.name in only]
    missing = sorted({root.name for root in wanted} - kinds.keys()) + sorted(set(only or ()) - {root.name for root in roots})
    if missing or not wanted:
        raise InputError(
            f"snapshot {manifest.header['snapshot_id']} has roots {', '.join(sorted(kinds))}; "
            f"asked for {', '.join(missing) or 'none'}",
            roots=sorted(kinds),
        )
    label = f"{manifest.header['snapshot_id']}-{secrets.token_hex(4)}"
    for root in wanted:
        there = is_there(root.path)
        if there and is_directory(root.path) != (kinds[root.name] == DIRECTORY):
            raise Refused(f"root {root.name} ({root.path}) is not a {kinds[root.name]} any more", root=root.name, path=root.path)
        if not there and not is_directory(os.path.dirname(root.path)):
            raise InputError(f"root {root.name}: {os.path.dirname(root.path)} does not exist", root=root.name)
    return [swap.place(root.name, root.path, kinds[root.name], instance, label) for root in wanted]


def _room(manifest: Manifest, places: t.Sequence[Place]) -> None:
    """Raises Refused when a file system has not enough bytes or inodes for the new trees."""
    need: dict[int, list[t.Any]] = {}
    for item in places:
        folder = item.staged
        while not is_directory(folder):
            folder = os.path.dirname(folder)
        entry = need.setdefault(os.stat(folder).st_dev, [folder, 0, 0])
        entries = of_root(manifest, item.root)
        if not can_clone(os.fsencode(folder)):
            entry[1] += sum((e.size + 4095) & ~4095 for e in entries if not e.link and not e.sparse)
        entry[2] += len(entries)
    for folder, size, names in need.values():
        free = os.statvfs(folder)
        if size + _RESERVE > free.f_bavail * free.f_frsize:
            raise Refused(
                f"not enough space at {folder}: {size + _RESERVE} bytes needed, {free.f_bavail * free.f_frsize} free",
                needed=size + _RESERVE,
                free=free.f_bavail * free.f_frsize,
                path=folder,
            )
        if free.f_files and names + 64 > free.f_favail:
            raise Refused(
                f"not enough inodes at {folder}: {names + 64} needed, {free.f_favail} free",
                needed=names + 64,
                free=free.f_favail,
                path=folder,
            )


def _left_alone(adapter: ChainAdapter, root: str) -> Patterns:
    """What a restore never takes out of a snapshot, whatever the snapshot holds."""
    return Patterns((*adapter.layout.never_restore, *adapter.layout.volatile) if root == DATA else ())


def _build(snapshot_path: str, manifest: Manifest, root: str, target: str, adapter: ChainAdapter) -> str:
    """Copy one root out of a snapshot, comparing every byte with the seal. Returns the method.

    Raises IntegrityError naming the first file that is not as it was sealed.
    """
    source = os.fsencode(os.path.join(snapshot_path, sealed.TREES, root))
    out = os.fsencode(target)
    entries = of_root(manifest, root)
    problems = compare(source, entries, deep=False)
    if problems:
        raise IntegrityError(
            f"the snapshot is not as it was sealed, nothing was restored: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            problems=problems[:20],
        )
    method = method_for(os.path.dirname(out))
    skip = _left_alone(adapter, root)
    entries = [entry for entry in entries if not skip.match(entry.path)]
    here = {entry.path for entry in entries}
    for entry in entries:
        if entry.type == DIRECTORY:
            os.mkdir(join(out, entry.path), 0o700)
    linked = [entry for entry in entries if entry.link and decode(entry.link) in here]
    plain = [entry for entry in entries if entry.type == FILE and not (entry.link and decode(entry.link) in here)]

    def bring(entry: Entry) -> str:
        path = join(source, entry.path)
        try:
            copied = copy_seen(path, found(entry.path, os.lstat(path)), join(out, entry.path), method)
        except (Gone, FileNotFoundError):
            return f"{entry.label}: changed while it was restored"
        if (copied.sha256, copied.size) != (entry.sha256, entry.size):
            return f"{entry.label}: content differs (sha256 {copied.sha256}, sealed {entry.sha256})"
        return ""

    for problem in parallel(bring, plain, lambda entry: entry.size):
        if problem:
            raise IntegrityError(f"the snapshot is not as it was sealed, nothing was restored: {problem}", problems=[problem])
    for entry in entries:
        path = join(out, entry.path)
        if entry.type == SYMLINK:
            os.symlink(decode(entry.target), path)
            apply(path, entry.meta(), entry.xattrs)
    for entry in linked:
        os.link(join(out, decode(entry.link)), join(out, entry.path), follow_symlinks=False)
    for entry in reversed(entries):
        if entry.type == DIRECTORY:
            apply(join(out, entry.path), entry.meta(), entry.xattrs)
    return method


def _keep_live(item: Place, never: Patterns) -> tuple[str, ...]:
    """Take keys, identity and signing state over from the live data directory into the new tree. Returns their names."""
    live, staged = os.fsencode(item.live), os.fsencode(item.staged)
    if not is_directory(live):
        return ()
    seen = scan(live)
    by_path = {entry.path: entry for entry in seen.kept}
    ours = [entry for entry in seen.kept if never.match(entry.path)]
    touched: dict[bytes, Found] = {}
    for entry in ours:
        parent = entry.path.rpartition(b"/")[0]
        for folder in _above(parent):
            if is_there(join(staged, folder)):
                touched.setdefault(folder, found(folder, os.lstat(join(staged, folder))))
            else:
                os.mkdir(join(staged, folder), 0o700)
                touched[folder] = by_path[folder]
    links = hard_links(ours)
    for entry in ours:
        source, target = join(live, entry.path), join(staged, entry.path)
        if is_there(target) and entry.type != DIRECTORY:
            os.unlink(target)
        if entry.type == DIRECTORY:
            with contextlib.suppress(FileExistsError):
                os.mkdir(target, 0o700)
            touched[entry.path] = entry
        elif entry.type == SYMLINK:
            os.symlink(os.readlink(source), target)
            apply(target, entry, read_xattrs(source))
        elif entry.path in links:
            os.link(join(staged, links[entry.path]), target, follow_symlinks=False)
        elif not copy_seen(source, entry, target, COPY, entry).stable:
            raise Refused(
                f"{encode(source)} changed while it was copied: something still writes to the directory", path=encode(source)
            )
    for folder in sorted(touched, reverse=True):
        meta = touched[folder]
        origin = join(live, folder) if folder in by_path and by_path[folder] is meta else join(staged, folder)
        apply(join(staged, folder), meta, read_xattrs(origin))
    return tuple(encode(entry.path) for entry in ours if entry.type != DIRECTORY)


def _above(folder: bytes) -> list[bytes]:
    parts = folder.split(b"/") if folder else []
    return [b"/".join(parts[: n + 1]) for n in range(len(parts))]


def _raise_watermark(adapter: ChainAdapter, item: Place, manifest: Manifest, floor: Watermark | None) -> Watermark | None:
    """Write the highest known watermark into the new tree. Raises IntegrityError when the live one can't be read."""
    try:
        live = adapter.read_watermark(item.live) if is_directory(item.live) else None
    except IntegrityError as exc:
        raise IntegrityError(
            f"the live signing state can't be read, so it can't be kept from going down: {exc.message}. Find out from "
            "the chain what the key signed last, give that as the lowest watermark, and move the broken file elsewhere",
            **exc.fields,
        ) from exc
    then = watermark.from_dict(manifest.header["facts"].get("watermark"))
    mark = watermark.combine(live, then, floor, address=live.address if live else "")
    if mark is None:
        return None
    return watermark.raise_to(adapter, item.staged, mark)
