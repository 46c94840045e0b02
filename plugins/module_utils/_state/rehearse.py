# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A test restore of a hot copy, while the node still runs: would it restore?

Every name of the copy is built again in a scratch place, as a restore would build it, and every byte compared with the hash
that was taken while it was copied; then the scratch place is deleted. Where the file system can't share blocks and has no room
for a second copy, every byte is read and compared, and nothing written: ``method`` says which. What was tested is remembered by
the inode, size and times of the copy's files, so that a refreshed copy is tested only where it was refreshed. All of it has the
lowest I/O priority.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import typing as t

from .._core import canonical, files
from .._core.clock import CLOCK
from .._core.errors import IntegrityError
from . import swap
from .copy import Gone, copy_seen, hash_seen, method_for, parallel
from .fault import storage
from .kernel import can_clone, idle_io
from .names import encode, make_workspace
from .scan import DIRECTORY, FILE, SYMLINK, Found, join, scan
from .sealed import TREES
from .snapshot import HOT, TESTED, HotFile, SnapshotSpec, hard_links, hold_hot

READ = "read"
SCRATCH = "test"
#: A running node must not be left without room: this share of the file system stays free, and never less than this many bytes.
_RESERVE_SHARE, _RESERVE = 20, 256 << 20


@dataclasses.dataclass(frozen=True)
class Tested:
    """``files`` and ``bytes``: what was tested now. ``before``: files that were tested earlier and have not changed since."""

    snapshot_id: str
    files: int
    bytes: int
    before: int
    method: str
    seconds: float

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


def hot_test(spec: SnapshotSpec) -> Tested:
    """Restore a hot copy to a scratch place and delete it there again.

    Raises IntegrityError naming the first file that is not as it was copied; the next hot copy then copies everything anew.
    Raises InputError where there is no whole hot copy, Busy while somebody works on it.
    """
    start = CLOCK.monotonic()
    with hold_hot(spec) as (hot, remembered), storage(f"test snapshot {spec.snapshot_id}"), idle_io():
        test = _Test(hot, remembered)
        method = READ
        if test.todo and test.fits(hot):
            method = test.restore(os.path.join(os.path.dirname(spec.snapshots_dir), SCRATCH))
        elif test.todo:
            test.read()
        if test.problems:
            # Nothing of this copy is believed any more.
            os.unlink(os.path.join(hot, HOT))
            raise IntegrityError(
                f"the hot copy of snapshot {spec.snapshot_id} would not restore: {test.problems[0]} "
                f"({len(test.problems)} in all); look at the disk and the kernel's log. The next hot copy begins anew",
                path=hot,
                problems=test.problems[:20],
            )
        test.remember()
    seconds = round(CLOCK.monotonic() - start, 3)
    return Tested(spec.snapshot_id, len(test.todo), sum(item.size for item in test.todo), test.before, method, seconds)


class _Test:
    """One test. ``todo``: files that have to be tested, by root; ``problems``: what was found."""

    def __init__(self, hot: str, remembered: t.Sequence[HotFile]) -> None:
        self.hot = hot
        self.problems: list[str] = []
        self.wanted = {(item.root, item.path): item for item in remembered}
        self.kept: list[tuple[str, Found]] = []
        self.todo: list[Found] = []
        self.roots: dict[int, str] = {}
        self.before = 0
        known = self._known()
        for root in sorted({item.root for item in remembered}):
            self._look(root, known)

    def _look(self, root: str, known: t.Mapping[str, str]) -> None:
        where = self._tree(root)
        if not os.path.lexists(where):
            self.problems.append(f"{root}: missing")
            return
        seen = scan(where)
        names = {entry.path for entry in seen.kept}
        self.problems += [
            f"{_label(root, path)}: missing" for of, path in sorted(self.wanted) if of == root and path not in names
        ]
        links = hard_links(seen.kept)
        for entry in seen.kept:
            item = self.wanted.get((root, entry.path))
            if item is None:
                self.problems.append(f"{_label(root, entry.path)}: was not copied")
                continue
            kind = FILE if item.sha256 else SYMLINK if item.target else DIRECTORY
            if entry.type != kind:
                self.problems.append(f"{_label(root, entry.path)}: is a {entry.type}, was copied as a {kind}")
            elif entry.type == FILE and entry.size != item.size:
                self.problems.append(f"{_label(root, entry.path)}: size {entry.size}, copied {item.size}")
            elif entry.type == SYMLINK and encode(os.readlink(join(where, entry.path))) != item.target:
                self.problems.append(f"{_label(root, entry.path)}: leads elsewhere than what was copied")
            else:
                self.kept.append((root, entry))
                if entry.type == FILE and entry.path not in links:
                    if known.get(_label(root, entry.path)) == entry.stamp():
                        self.before += 1
                    else:
                        self.todo.append(entry)
                        self.roots[id(entry)] = root

    def fits(self, hot: str) -> bool:
        """Is there room for what has to be tested, without leaving the node short of it?"""
        free = os.statvfs(hot)
        spare = max(_RESERVE, free.f_blocks * free.f_frsize // _RESERVE_SHARE)
        size = 0 if can_clone(os.fsencode(hot)) else sum((item.size + 4095) & ~4095 for item in self.todo)
        enough = size + spare <= free.f_bavail * free.f_frsize
        return enough and (not free.f_files or 2 * len(self.kept) + 64 <= free.f_favail)

    def restore(self, scratch: str) -> str:
        """Build what has to be tested under ``scratch``. Returns the method."""
        make_workspace(os.path.dirname(scratch))
        with files.locked(scratch + ".lock", what="test restore"):
            swap.delete_tree(scratch)
            make_workspace(scratch, 0o700)
            try:
                method = method_for(os.fsencode(scratch))
                self._build(os.fsencode(scratch), method)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # The node needed the room meanwhile.
                swap.delete_tree(scratch)
                self.problems.clear()
                self.read()
                method = READ
            finally:
                swap.delete_tree(scratch)
        return method

    def _build(self, scratch: bytes, method: str) -> None:
        for root in sorted({root for root, entry in self.kept if entry.type == DIRECTORY}):
            os.mkdir(join(scratch, os.fsencode(root)), 0o700)
        for root, entry in self.kept:
            where = join(join(scratch, os.fsencode(root)), entry.path)
            if entry.type == DIRECTORY and entry.path:
                os.mkdir(where, 0o700)
            elif entry.type == SYMLINK:
                os.symlink(os.readlink(join(self._tree(root), entry.path)), where)

        def bring(entry: Found) -> str:
            root = self.roots[id(entry)]
            target = join(join(scratch, os.fsencode(root)), entry.path)
            try:
                done = copy_seen(join(self._tree(root), entry.path), entry, target, method)
            except Gone:
                return f"{_label(root, entry.path)}: changed while it was tested"
            return self._judge(root, entry, done.sha256)

        self.problems += [text for text in parallel(bring, self.todo, lambda entry: entry.size) if text]

    def read(self) -> None:
        """Read every byte that has to be tested."""

        def look(entry: Found) -> str:
            root = self.roots[id(entry)]
            try:
                done = hash_seen(join(self._tree(root), entry.path), entry)
            except Gone:
                return f"{_label(root, entry.path)}: changed while it was tested"
            return self._judge(root, entry, done.sha256)

        self.problems += [text for text in parallel(look, self.todo, lambda entry: entry.size) if text]

    def _judge(self, root: str, entry: Found, sha256: str) -> str:
        wanted = self.wanted[(root, entry.path)].sha256
        return "" if sha256 == wanted else f"{_label(root, entry.path)}: content differs (sha256 {sha256}, copied {wanted})"

    def _known(self) -> dict[str, str]:
        data = files.read_or_none(os.path.join(self.hot, TESTED))
        try:
            value = json.loads(data) if data else {}
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def remember(self) -> None:
        stamps = {_label(root, entry.path): entry.stamp() for root, entry in self.kept if entry.type == FILE}
        with contextlib.suppress(OSError):
            files.write_atomic(os.path.join(self.hot, TESTED), canonical.dumps(stamps), 0o600)

    def _tree(self, root: str) -> bytes:
        return os.fsencode(os.path.join(self.hot, TREES, root))


def _label(root: str, path: bytes) -> str:
    return f"{root}/{encode(path)}" if path else root
