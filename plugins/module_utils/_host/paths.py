# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an instance keeps what on its host. Nothing of it lies in the data directory, so no restore can rewind it."""

from __future__ import annotations

import contextlib
import os
import re

from .._core.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


def require_name(value: str, what: str) -> str:
    """The name itself. Raises InputError for one that could leave its directory or needs escaping in a unit name."""
    if not _NAME.match(value):
        raise InputError(
            f"{what} {value!r} is not usable; it needs 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit",
            value=value,
        )
    return value


class Home:
    """The paths of one instance."""

    def __init__(self, state_dir: str, instance: str) -> None:
        self.state_dir = os.path.abspath(state_dir)
        self.instance = require_name(instance, "instance")
        self.root = os.path.join(self.state_dir, instance)

    def at(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    @property
    def journals(self) -> str:
        return self.at("journal")

    @property
    def open(self) -> str:
        """Holds the id of the unfinished turn; missing when there is none. The guard looks at it."""
        return self.at("journal", "open")

    def turn(self, turn_id: str) -> Turn:
        return Turn(self.at("journal", require_name(turn_id, "turn_id")))

    def turns(self) -> list[str]:
        """Ids of the turns that have a journal, the one written to last first."""
        found: list[tuple[float, str]] = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.journals):
                with contextlib.suppress(OSError):
                    found.append((os.stat(os.path.join(self.journals, name, "journal.log")).st_mtime, name))
        return [name for dummy, name in sorted(found, reverse=True)]

    @property
    def releases(self) -> str:
        return self.at("releases")

    @property
    def engines(self) -> str:
        return self.at("engine")

    @property
    def reserve(self) -> str:
        """Space that is set aside while a turn is under way, for the small files that its end needs on a full disk."""
        return self.at("reserve")

    @property
    def engine_lock(self) -> str:
        """Flocked by a running engine; holds its turn id and token."""
        return self.at("engine.lock")

    @property
    def fence(self) -> str:
        return self.at("fence")

    @property
    def lock(self) -> str:
        return self.at("lock")

    @property
    def manifest(self) -> str:
        return self.at("migration_manifest.json")

    @property
    def evidence(self) -> str:
        return self.at("evidence")


class Turn:
    """The files of one turn."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.plan = os.path.join(root, "plan.json")
        self.journal = os.path.join(root, "journal.log")
        self.result = os.path.join(root, "result.json")
        self.confirm = os.path.join(root, "confirm")
