# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence: a host remembers the highest token it has seen and refuses lower ones.

So an old controller that wakes up after somebody else took over can do nothing.
"""

from __future__ import annotations

from .._core import files
from .._core.errors import IntegrityError, Refused


def highest(path: str) -> int:
    """The highest token seen; 0 when none was. Raises IntegrityError for a file that holds no token."""
    raw = files.read_or_none(path)
    if raw is None:
        return 0
    text = raw.decode("ascii", "replace").strip()
    if not text.isdigit():
        raise IntegrityError(f"fence {path} holds no number; find out who wrote it before going on", path=path)
    return int(text)


def require(path: str, token: int) -> None:
    """Raises Refused for a token lower than one already seen. Writes nothing."""
    seen = highest(path)
    if token < 1 or token < seen:
        raise Refused(
            f"token {token} is older than {seen}, which this host has seen: another rollout took over; take the lock again",
            token=token,
            highest=seen,
        )


def admit(path: str, token: int) -> None:
    """As ``require``, and remember the token, durably. The caller holds the instance's flock."""
    require(path, token)
    if token > highest(path):
        files.write_atomic(path, b"%d\n" % token)
