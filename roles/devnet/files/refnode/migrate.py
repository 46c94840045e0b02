# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``bin/migrate``: take a stopped node's data directory from one storage level to another, or back.

Everything is written beside the old files first, then a list of what to put in place is committed, then it is carried out. Ended
before the list is there, the old directory is untouched; ended after, running it again finishes the work (the node refuses to
start in between). Files that don't depend on the level (indexes, keys, signing state, genesis) are not touched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
import typing as t

from . import canon, layout, level1, release

STAGING = ".migration"


def _level2() -> t.Any:
    try:
        from . import level2
    except ImportError:
        raise layout.StorageError(
            f"release {release.INFO['version']} knows storage level 1 only; use bin/migrate of a release that knows level 2"
        ) from None
    return level2


def _module(level: int) -> t.Any:
    return level1 if level == 1 else _level2()


def _finish(data_dir: str) -> bool:
    """Carry out a committed list. False when there is none."""
    path = os.path.join(data_dir, layout.MIGRATION_WAL)
    try:
        plan = canon.read_json(path)
    except FileNotFoundError:
        return False
    staging = os.path.join(data_dir, STAGING)
    folders = {data_dir}
    for name in plan["put"]:
        target = os.path.join(data_dir, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        folders.add(os.path.dirname(target))
        with contextlib.suppress(FileNotFoundError):
            os.replace(os.path.join(staging, name), target)
    for name in plan["drop"]:
        folders.add(os.path.dirname(os.path.join(data_dir, name)))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(data_dir, name))
    for folder in folders:
        if os.path.isdir(folder):
            canon.sync_dir(folder)
    for name in plan.get("drop_folders", []):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(data_dir, name))
    shutil.rmtree(staging, ignore_errors=True)
    os.unlink(path)
    canon.sync_dir(data_dir)
    return True


def _load(data_dir: str, level: int, repair: bool = True) -> tuple[t.Any, t.Any, dict[str, t.Any]]:
    """Open the directory at its level, verified: (backend, state as saved, checksum document)."""
    if repair:
        layout.finish_replace(data_dir)
    elif os.path.exists(os.path.join(data_dir, layout.STATE_WAL)):
        raise layout.StorageError(
            f"{data_dir} was not stopped cleanly; run bin/migrate without --check, or start and stop the node once"
        )
    path = os.path.join(data_dir, layout.CHECKSUM)
    try:
        checksum = canon.read_json(path)
        backend = _module(level).Backend(data_dir)
        backend.blocks.scan(checksum["blocks"], repair)
        state = backend.load(checksum["state"], checksum["height"])
    except FileNotFoundError:
        raise layout.integrity(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError) as exc:
        raise layout.integrity(f"{path} is damaged ({exc})") from exc
    return backend, state, checksum


def _owner(data_dir: str) -> tuple[int, int]:
    found = os.stat(data_dir)
    return found.st_uid, found.st_gid


def _own(path: str, owner: tuple[int, int]) -> None:
    """Files made by root in a directory of the node's user must be the user's."""
    if os.geteuid() == 0:
        os.chown(path, *owner)


def run(data_dir: str, to: int, check: bool = False) -> dict[str, t.Any]:
    """Migrate, or with ``check`` only say whether it could. Returns a summary. Raises StorageError; then nothing was changed."""
    began = time.monotonic()
    if not os.path.isdir(data_dir):
        raise layout.StorageError(f"{data_dir} is not a directory")
    lock = layout.DirectoryLock(data_dir)
    lock.acquire()
    try:
        finished = False if check else _finish(data_dir)
        if check and os.path.exists(os.path.join(data_dir, layout.MIGRATION_WAL)):
            raise layout.StorageError(f"{data_dir} is in the middle of a migration; run bin/migrate without --check to finish it")
        level = layout.read_level(data_dir)
        if level is None:
            raise layout.StorageError(f"{data_dir} holds no node's data (no {layout.SCHEMA})")
        if level not in (1, 2) or to not in (1, 2):
            raise layout.StorageError(f"no migration from level {level} to level {to}")
        if level == 2 or to == 2:
            _level2()
        summary: dict[str, t.Any] = {"from_level": level, "to_level": to, "changed": False, "finished_earlier_run": finished}
        backend, state, _checksum = _load(data_dir, level, repair=not check)
        summary |= {
            "height": state.height,
            "blocks": backend.blocks.count(),
            "accounts": len(state.balances),
            "digest": state.root(),
        }
        if level != to and not check:
            _stage(data_dir, level, to, backend, state)
            _finish(data_dir)
            again, after, _unused = _load(data_dir, to)
            again.close()
            if after.root() != state.root() or again.blocks.count() != backend.blocks.count():
                raise layout.StorageError(f"{data_dir}: the migrated state differs from the old one; restore the snapshot")
            summary["changed"] = True
        backend.close()
        summary["seconds"] = round(time.monotonic() - began, 3)
        return summary
    finally:
        lock.release(remove=True)


def _stage(data_dir: str, level: int, to: int, backend: t.Any, state: t.Any) -> None:
    """Write the new level's files into the staging folder and commit the list."""
    staging, owner = os.path.join(data_dir, STAGING), _owner(data_dir)
    mode = os.stat(os.path.join(data_dir, layout.SCHEMA)).st_mode & 0o777
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(os.path.join(staging, "blocks"))
    target = _module(to)
    blocks = target.Blocks(staging)
    for height in range(backend.blocks.count()):
        blocks.append(backend.blocks.read(height), durable=False)
    blocks.close()
    entries = layout.prefix_entries(blocks, state.height)
    put = [blocks.name(number) for number in blocks.numbers()]
    if to == 1:
        files = target.state_files(state)
        promised = {name: layout.file_entry(data) for name, data in files.items()}
    else:
        files = {}
        target.create(os.path.join(staging, target.DATABASE), state)
        put.append(target.DATABASE)
        promised = {target.DATABASE: target.digest_entry(state)}
    files[layout.CHECKSUM] = layout.checksum_bytes(state.height, state.block_hash, to, entries, promised)
    files[layout.SCHEMA] = layout.schema_bytes(to)
    for name, data in files.items():
        path = os.path.join(staging, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(data)
    put += sorted(files)
    for folder, folders, names in os.walk(staging):
        for name in names:
            path = os.path.join(folder, name)
            _own(path, owner)
            os.chmod(path, mode)
            handle_ = os.open(path, os.O_RDONLY)
            os.fsync(handle_)
            os.close(handle_)
        for name in folders:
            _own(os.path.join(folder, name), owner)
        canon.sync_dir(folder)
    drop = [backend.blocks.name(number) for number in backend.blocks.numbers()]
    drop += list(level1.FILES) if level == 1 else [_level2().DATABASE]
    plan = {"from_level": level, "to_level": to, "put": put, "drop": drop, "drop_folders": ["nonces"] if level == 1 else []}
    wal = os.path.join(data_dir, layout.MIGRATION_WAL)
    if to == 1:
        nonces = os.path.join(data_dir, "nonces")
        os.makedirs(nonces, exist_ok=True)
        _own(nonces, owner)
    canon.write_file(wal, canon.dumps(plan).encode())


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="migrate", description="Take a stopped node's data directory to another storage level.")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--to", required=True, type=int, choices=(1, 2))
    parser.add_argument("--check", action="store_true", help="verify the directory and say what would be done; change nothing")
    arguments = parser.parse_args(argv)
    try:
        summary = run(arguments.data_dir, arguments.to, arguments.check)
    except layout.StorageError as exc:
        print(f"migrate: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"migrate: {exc}; the data directory is as it was, or running this again finishes the work", file=sys.stderr)
        return 1
    print(json.dumps(summary, sort_keys=True))
    return 0
