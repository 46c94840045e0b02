# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process that makes a hot copy remembers for the freeze that it does itself, so that the node is down for less long.

Nothing depends on it: a freeze in another process, or one after the hot copy was touched by somebody else, reads again from the
disk what it needs.
"""

from __future__ import annotations

import os
import typing as t

from .copy import Hashed
from .scan import found

C = t.TypeVar("C")


class Memory(t.Generic[C]):
    """Of one hot copy. ``hashed``: for large files that share their blocks with their copies, by root and path, with the stamp
    of the source that was hashed; see ``copy.Hashed``."""

    def __init__(self) -> None:
        self.hashed: dict[tuple[str, bytes], tuple[str, Hashed]] = {}
        self._cache: C | None = None
        self._of = ""

    def keep(self, cache: C, name: str) -> None:
        """What was just written to the file ``name``, as it was before it was written down."""
        self._cache, self._of = cache, self._stamp(name)

    def take(self, name: str) -> C | None:
        """What the file says, if that is what was kept; once, because who takes it may take it apart."""
        cache, self._cache = self._cache, None
        return cache if self._of == self._stamp(name) else None

    @staticmethod
    def _stamp(name: str) -> str:
        try:
            return f"{name} {found(b'', os.stat(name)).stamp()}"
        except FileNotFoundError:
            return ""
