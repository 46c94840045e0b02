# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the operator's for a sealed snapshot: the way off the host, with the tool that is used there already.

It runs once for each snapshot: that it succeeded is remembered beside the seal, in ``hooks/``, under the digest of its argument
list (the list itself may hold secrets). Nothing of it is part of what is sealed.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._core import canonical, files, process
from .._core.clock import CLOCK
from .._core.errors import CommandFailed, InputError
from . import sealed
from .fault import storage
from .retention import in_use

HOOKS = "hooks"
PREFIX = "CHAINOPS_SNAPSHOT_"
_PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)\}")


class Ran(t.NamedTuple):
    """``changed`` is false when it had run before."""

    changed: bool
    seconds: float

    def as_dict(self) -> dict[str, t.Any]:
        return dict(self._asdict())


def values(snapshot_path: str) -> dict[str, str]:
    """What a command may ask for: path, id, instance, root_sha256. Raises IntegrityError where there is no sealed snapshot."""
    header, root_sha256 = sealed.read_header(os.path.join(snapshot_path, sealed.NAME))
    return {
        "path": snapshot_path,
        "id": str(header["snapshot_id"]),
        "instance": str(header["instance"]),
        "root_sha256": root_sha256,
    }


def check(argv: t.Sequence[str]) -> None:
    """Raises InputError for a command that can't be one."""
    known = ("path", "id", "instance", "root_sha256")
    if not argv or not os.path.isabs(argv[0]):
        raise InputError("hook must be a list of arguments that begins with the absolute path of a program")
    for word in argv:
        for name in _PLACEHOLDER.findall(word):
            if name not in known:
                raise InputError(f"hook has an unknown placeholder {{{name}}}; known: {', '.join(f'{{{one}}}' for one in known)}")


def done(snapshot_path: str, argv: t.Sequence[str]) -> bool:
    """Has this command succeeded for this snapshot?"""
    return os.path.exists(_memory(snapshot_path, argv))


def run(snapshot_path: str, argv: t.Sequence[str], timeout: float) -> Ran:
    """Run a command for a snapshot, unless it has succeeded before. The snapshot can't be removed meanwhile.

    Raises CommandFailed with the last lines it said; its arguments, which may hold secrets, are not among the error's fields.
    """
    check(argv)
    memory = _memory(snapshot_path, argv)
    found = values(snapshot_path)
    with in_use(snapshot_path):
        if os.path.exists(memory):
            return Ran(False, 0.0)
        start = CLOCK.monotonic()
        filled = [_PLACEHOLDER.sub(lambda match: found[match.group(1)], word) for word in argv]
        told = {PREFIX + name.upper(): value for name, value in found.items()}
        try:
            process.run(filled, timeout=timeout, env={**os.environ, **told}, cwd="/")
        except CommandFailed as exc:
            said = process.quotable(str(exc.fields.get("output") or ""))
            code = exc.fields.get("code")
            how = f"exited {code}" if code is not None else exc.message if not said else f"did not finish in {timeout:g} s"
            raise CommandFailed(
                f"the hook of snapshot {found['id']} failed, the snapshot stays: {argv[0]} {how}{'; it said: ' if said else ''}"
                + " | ".join(said),
                argv=[argv[0]],
                code=code,
                output="\n".join(said),
            ) from None
        seconds = round(CLOCK.monotonic() - start, 3)
        with storage("remember that the hook ran"):
            files.make_dir(os.path.dirname(memory), 0o700)
            note = {"program": argv[0], "finished": CLOCK.stamp(), "seconds": seconds}
            files.write_atomic(memory, canonical.pretty(note), 0o600)
    return Ran(True, seconds)


def _memory(snapshot_path: str, argv: t.Sequence[str]) -> str:
    return os.path.join(snapshot_path, HOOKS, canonical.digest(list(argv)) + ".json")
