# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations of the storage format: declared steps, each with a command forward, one back and one to check.

Commands are argument lists with the placeholders ``{release}`` and ``{data}``; they run as the owner of the data directory,
with a bare environment, under one deadline. By default they act on a copy that is exchanged with the live directory when all
of them have succeeded; in place only under a sealed rollback point.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import secrets
import typing as t

from .._chain.protocol import ChainAdapter
from .._core import canonical, process
from .._core.clock import CLOCK
from .._core.errors import CommandFailed, InputError, IntegrityError, Refused
from . import swap
from .copy import apply, copy_seen, hash_seen, method_for, parallel, read_xattrs
from .fault import is_directory, is_there, storage
from .kernel import sync_file_system
from .names import DATA, Patterns, check_instance, encode
from .scan import DIRECTORY, FILE, SYMLINK, Found, join, scan
from .snapshot import hard_links

FORWARD, BACK = "forward", "back"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}


@dataclasses.dataclass(frozen=True)
class MigrationStep:
    """One step between two storage levels. ``reversible``: forward and back again gives the same bytes.

    The levels are None where the chain records none: such a step is always taken. ``mixed_fleet``: may hosts before and after
    it run in one network, as they do while a rollout goes on? None: the release doesn't say.
    """

    id: str
    from_level: int | None
    to_level: int | None
    forward: tuple[str, ...]
    back: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    reversible: bool = False
    mixed_fleet: bool | None = None

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "forward": list(self.forward), "back": list(self.back), "check": list(self.check)}


@dataclasses.dataclass(frozen=True)
class MigrationResult:
    """``steps``: ``{"id", "direction", "from_level", "to_level", "seconds", "skipped"}`` in the order they were taken.

    The digests cover names, types and content of the data directory, not times; empty where they weren't asked for.
    """

    direction: str
    from_level: int | None
    to_level: int | None
    steps: tuple[dict[str, t.Any], ...]
    digest_before: str
    digest_after: str
    seconds: float
    old_trees: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return any(not step["skipped"] for step in self.steps)

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "steps": list(self.steps), "old_trees": list(self.old_trees)}


def parse(items: t.Any) -> tuple[MigrationStep, ...]:
    """Steps from a release's declaration, in order. Raises InputError naming the item that isn't usable."""
    if not isinstance(items, (list, tuple)):
        raise InputError("migrations must be a list")
    steps = tuple(_parse(index, item) for index, item in enumerate(items))
    for one, other in zip(steps, steps[1:]):
        if other.from_level != one.to_level:
            raise InputError(
                f"migration {other.id} starts at level {other.from_level}, but {one.id} before it ends at {one.to_level}"
            )
    if len({step.id for step in steps}) != len(steps):
        raise InputError("two migrations have the same id")
    return steps


def _parse(index: int, item: t.Any) -> MigrationStep:
    where = f"migrations[{index}]"
    if not isinstance(item, t.Mapping):
        raise InputError(f"{where} must be a dictionary")
    unknown = set(item) - {field.name for field in dataclasses.fields(MigrationStep)}
    if unknown:
        raise InputError(f"{where} has unknown keys: {', '.join(sorted(map(str, unknown)))}")
    first, last = item.get("from_level"), item.get("to_level")
    numbers = first.__class__ is int and last.__class__ is int and 0 <= first < last
    if not (numbers or (first is None and last is None)):
        raise InputError(
            f"{where}: from_level and to_level must be whole numbers, and to_level the higher one, or both left out where the "
            f"chain records no level; got {first!r} and {last!r}"
        )
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise InputError(f"{where} has no id")
    argvs = {key: _argv(f"{where}.{key}", item.get(key) or ()) for key in ("forward", "back", "check")}
    if not argvs["forward"]:
        raise InputError(f"{where} has no forward command")
    reversible = item.get("reversible", False)
    if not isinstance(reversible, bool) or (reversible and not argvs["back"]):
        raise InputError(f"{where}: reversible must be true or false, and needs a back command when true")
    mixed = item.get("mixed_fleet")
    if mixed is not None and not isinstance(mixed, bool):
        raise InputError(f"{where}: mixed_fleet must be true or false, or left out when nobody knows")
    return MigrationStep(name, first, last, argvs["forward"], argvs["back"], argvs["check"], reversible, mixed)


def _argv(where: str, value: t.Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise InputError(f"{where} must be a list of strings: the command and its arguments")
    for word in value:
        for name in _PLACEHOLDER.findall(word):
            if name not in ("release", "data"):
                raise InputError(f"{where} has an unknown placeholder {{{name}}}; known: {{release}}, {{data}}")
    return tuple(value)


def level(data_dir: str, adapter: ChainAdapter) -> int | None:
    """The storage level on disk; None where the chain records none."""
    return adapter.storage_level(data_dir)


@storage("migrate")
def run(
    steps: t.Sequence[MigrationStep],
    data_dir: str,
    release_dir: str,
    direction: str,
    timeout: float,
    *,
    adapter: ChainAdapter,
    in_place: bool = False,
    instance: str = "",
    digests: bool = False,
) -> MigrationResult:
    """Take the steps forward, or back in reverse order, with the node down. Steps that are behind us already are skipped.

    By default on a copy that is exchanged with the live directory at the end (``instance`` names the workspace): a step that
    fails leaves the live directory as it was. ``in_place`` acts on the directory itself; the caller holds a rollback point.
    ``timeout``: seconds for all commands together. Raises CommandFailed, or Refused when the directory is at no level the steps
    start from or a step has no way back.
    """
    start = CLOCK.monotonic()
    data = os.path.realpath(data_dir)
    before = level(data, adapter)
    todo = _plan(steps, direction, before)
    digest = tree_digest(data, adapter) if digests else ""
    old: tuple[str, ...] = ()
    if not todo or in_place:
        _unused(adapter, data)
        taken = _take(todo, data, release_dir, direction, CLOCK.monotonic() + timeout, adapter)
    else:
        taken, old = _on_copy(todo, data, release_dir, direction, CLOCK.monotonic() + timeout, adapter, check_instance(instance))
    skipped = [_record(step, direction, 0.0, True) for step in steps if step not in todo]
    order = [step.id for step in (steps if direction == FORWARD else list(reversed(steps)))]
    return MigrationResult(
        direction,
        before,
        level(data, adapter),
        tuple(sorted([*skipped, *taken], key=lambda step: order.index(step["id"]))),
        digest,
        tree_digest(data, adapter) if digests else "",
        round(CLOCK.monotonic() - start, 3),
        old,
    )


def preview(steps: t.Sequence[MigrationStep], data_dir: str, direction: str, adapter: ChainAdapter) -> MigrationResult:
    """What ``run`` would do; the digests and times are empty. Raises Refused as it does."""
    now = level(data_dir, adapter)
    todo = _plan(steps, direction, now)
    order = list(steps) if direction == FORWARD else list(reversed(steps))
    last = _record(todo[-1], direction, 0.0, False)["to_level"] if todo else now
    taken = tuple(_record(step, direction, 0.0, step not in todo) for step in order)
    return MigrationResult(direction, now, last, taken, "", "", 0.0)


def scratch_copy(data_dir: str, scratch: str, adapter: ChainAdapter) -> str:
    """A copy, without keys, of a data directory that is not in use. Returns its path, ``<scratch>/data``."""
    _unused(adapter, data_dir)
    with storage(f"copy {data_dir}"):
        if is_there(scratch) and (not is_directory(scratch) or os.listdir(scratch)):
            raise Refused(f"{scratch} is not empty; a rehearsal needs a directory of its own", path=scratch)
        os.makedirs(scratch, 0o755, exist_ok=True)
        target = os.path.join(os.path.realpath(scratch), DATA)
        copy_tree(os.path.realpath(data_dir), target, Patterns((*adapter.layout.never_restore, *adapter.layout.volatile)))
    return target


def rehearse(
    steps: t.Sequence[MigrationStep], data_dir: str, release_dir: str, timeout: float, *, adapter: ChainAdapter
) -> MigrationResult:
    """There and back, and there again, on a copy that is the caller's to lose; it is left migrated forward.

    Where every step is reversible, going back must give the same bytes: raises IntegrityError naming the first file that is not
    as it was. Without a way back the steps are only taken forward.
    """
    start = CLOCK.monotonic()
    ends = start + timeout
    before = level(data_dir, adapter)
    todo = _plan(steps, FORWARD, before)
    original = tree_contents(data_dir, adapter)
    taken = _take(todo, data_dir, release_dir, FORWARD, ends, adapter)
    if todo and all(step.back for step in todo):
        taken += _take(list(reversed(todo)), data_dir, release_dir, BACK, ends, adapter)
        if all(step.reversible for step in todo):
            _same(original, tree_contents(data_dir, adapter), todo)
        taken += _take(todo, data_dir, release_dir, FORWARD, ends, adapter)
    return MigrationResult(
        "rehearsal",
        before,
        level(data_dir, adapter),
        tuple(taken),
        _digest(original),
        tree_digest(data_dir, adapter),
        round(CLOCK.monotonic() - start, 3),
    )


def _plan(steps: t.Sequence[MigrationStep], direction: str, now: int | None) -> list[MigrationStep]:
    """The steps still to be taken, in the order of taking."""
    if direction not in (FORWARD, BACK):
        raise InputError(f"direction must be {FORWARD} or {BACK}, not {direction!r}")
    if not steps:
        return []
    todo = list(steps)
    for step in steps:
        if now is not None and (step.from_level is None or step.to_level is None):
            raise Refused(f"the data directory is at level {now}, but migration {step.id} names no levels", migration=step.id)
    if now is not None:
        todo = [step for step in todo if _ahead(step, direction, now)]
    if direction == BACK:
        todo.reverse()
        for step in todo:
            if not step.back:
                raise Refused(f"migration {step.id} has no way back; restore a snapshot instead", migration=step.id)
    if now is not None and todo:
        starts = todo[0].from_level if direction == FORWARD else todo[0].to_level
        if starts != now:
            raise Refused(
                f"the data directory is at level {now}, but migration {todo[0].id} starts from level {starts}",
                level=now,
                migration=todo[0].id,
            )
    elif now is not None:
        end = steps[-1].to_level if direction == FORWARD else steps[0].from_level
        if now != end:
            raise Refused(f"the data directory is at level {now}; the migrations lead to level {end}", level=now)
    return todo


def _ahead(step: MigrationStep, direction: str, now: int) -> bool:
    starts = step.from_level if direction == FORWARD else step.to_level
    return starts is not None and (starts >= now if direction == FORWARD else starts <= now)


def _record(step: MigrationStep, direction: str, seconds: float, skipped: bool) -> dict[str, t.Any]:
    ends = (step.from_level, step.to_level) if direction == FORWARD else (step.to_level, step.from_level)
    return {
        "id": step.id,
        "direction": direction,
        "from_level": ends[0],
        "to_level": ends[1],
        "seconds": round(seconds, 3),
        "skipped": skipped,
    }


def _take(
    todo: t.Sequence[MigrationStep], data: str, release: str, direction: str, ends: float, adapter: ChainAdapter
) -> list[dict[str, t.Any]]:
    taken: list[dict[str, t.Any]] = []
    for step in todo:
        began = CLOCK.monotonic()
        _command(step, step.forward if direction == FORWARD else step.back, data, release, ends)
        wanted = step.to_level if direction == FORWARD else step.from_level
        now = level(data, adapter)
        if now is not None and now != wanted:
            raise CommandFailed(
                f"migration {step.id} exited 0, but the data directory is at level {now} and not {wanted}",
                argv=[],
                code=0,
                output="",
            )
        if step.check:
            _command(step, step.check, data, release, ends)
        taken.append(_record(step, direction, CLOCK.monotonic() - began, False))
    return taken


def _command(step: MigrationStep, template: t.Sequence[str], data: str, release: str, ends: float) -> None:
    words = {"release": os.path.abspath(release), "data": data}
    argv = [_PLACEHOLDER.sub(lambda match: words[match.group(1)], word) for word in template]
    left = ends - CLOCK.monotonic()
    if left <= 0:
        raise CommandFailed(f"migration {step.id}: no time left for {argv[0]}", argv=argv, code=None, output="")
    owner = os.stat(data)
    drop = os.geteuid() == 0 and owner.st_uid != 0
    process.run(
        argv,
        timeout=left,
        env=_ENVIRONMENT,
        cwd="/",
        user=owner.st_uid if drop else None,
        group=owner.st_gid if drop else None,
    )


def _unused(adapter: ChainAdapter, data: str) -> None:
    pid = adapter.lock_holder(data)
    if pid is not None:
        raise Refused(f"{data} is in use by process {pid}; stop the node first", pid=pid, path=data)


def _on_copy(
    todo: t.Sequence[MigrationStep],
    data: str,
    release: str,
    direction: str,
    ends: float,
    adapter: ChainAdapter,
    instance: str,
) -> tuple[list[dict[str, t.Any]], tuple[str, ...]]:
    with swap.exclusive(data, instance), storage(f"migrate {data}"):
        if swap.pending(data, instance) is not None:
            raise Refused(
                "an exchange of the data directory was interrupted; finish that first", path=swap.marker_path(data, instance)
            )
        _unused(adapter, data)
        place = swap.place(DATA, data, DIRECTORY, instance, f"migration-{secrets.token_hex(4)}")
        swap.prepare([place])
        try:
            copy_tree(data, place.staged)
            taken = _take(todo, place.staged, release, direction, ends, adapter)
            _unused(adapter, data)
            sync_file_system(place.staged)
        except BaseException:
            swap.discard([place])
            raise
        done = swap.swap(data, instance, [place], {"kind": "migration", "migrations": [step.id for step in todo]})
    return taken, done.old


def copy_tree(source: str, target: str, exclude: Patterns | None = None) -> None:
    """Copy a whole directory that nobody writes to, keys and all; sockets, FIFOs and devices are left out."""
    origin, out = os.fsencode(source), os.fsencode(target)
    seen = scan(origin, exclude).kept
    links = hard_links(seen)
    for entry in seen:
        if entry.type == DIRECTORY:
            os.mkdir(join(out, entry.path), 0o700)
    method = method_for(out)

    def bring(entry: Found) -> bytes:
        stable = copy_seen(join(origin, entry.path), entry, join(out, entry.path), method, entry).stable
        return b"" if stable else entry.path

    plain = [entry for entry in seen if entry.type == FILE and entry.path not in links]
    for moving in parallel(bring, plain, lambda entry: entry.size):
        if moving:
            raise Refused(
                f"{encode(moving)} changed while it was copied: something still writes to {source}", path=encode(moving)
            )
    for entry in seen:
        path = join(out, entry.path)
        if entry.type == SYMLINK:
            os.symlink(os.readlink(join(origin, entry.path)), path)
            apply(path, entry, read_xattrs(join(origin, entry.path)))
        elif entry.path in links:
            os.link(join(out, links[entry.path]), path, follow_symlinks=False)
    for entry in reversed(seen):
        if entry.type == DIRECTORY:
            apply(join(out, entry.path), entry, read_xattrs(join(origin, entry.path)))


def tree_contents(data_dir: str, adapter: ChainAdapter) -> dict[str, str]:
    """Name -> what is there (``file:<mode>:<sha256>``, ``dir:<mode>``, ``symlink:<target>``), without what is volatile."""
    root = os.fsencode(data_dir)
    with storage(f"read {data_dir}"):
        seen = scan(root, Patterns(adapter.layout.volatile)).kept
        plain = [entry for entry in seen if entry.type == FILE]
        hashes = parallel(lambda entry: hash_seen(join(root, entry.path), entry).sha256, plain, lambda entry: entry.size)
        contents = {encode(entry.path): f"file:{entry.mode:o}:{sha256}" for entry, sha256 in zip(plain, hashes)}
        for entry in seen:
            if entry.type == DIRECTORY:
                contents[encode(entry.path)] = f"dir:{entry.mode:o}"
            elif entry.type == SYMLINK:
                contents[encode(entry.path)] = f"symlink:{encode(os.readlink(join(root, entry.path)))}"
    return contents


def tree_digest(data_dir: str, adapter: ChainAdapter) -> str:
    """One digest for ``tree_contents``."""
    return _digest(tree_contents(data_dir, adapter))


def _digest(contents: t.Mapping[str, str]) -> str:
    return hashlib.sha256(canonical.dumps(dict(contents))).hexdigest()


def _same(before: t.Mapping[str, str], after: t.Mapping[str, str], steps: t.Sequence[MigrationStep]) -> None:
    different = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if different:
        raise IntegrityError(
            f"forward and back again is not what it was: {len(different)} names differ, {different[0]} among them; declare the "
            "migration as not reversible, or mend it",
            files=different[:20],
            migrations=[step.id for step in steps],
        )
