# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time, and waiting for things.

Waiting uses the monotonic clock alone; the wall clock is only ever written down. Both are injectable, so that decisions
about time can be tested without any passing.
"""

from __future__ import annotations

import datetime
import time
import typing as t

from .errors import ChainopsError, WaitTimeout

T = t.TypeVar("T")


class Clock:
    """The machine's clocks. Seconds, as float."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def stamp(self) -> str:
        """The wall clock as ``2026-01-31T12:00:00.123Z``."""
        moment = datetime.datetime.fromtimestamp(self.wall(), tz=datetime.timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


CLOCK = Clock()


def wait_for(
    look: t.Callable[[], T],
    enough: t.Callable[[T], bool],
    *,
    timeout: float,
    what: str,
    interval: float = 0.5,
    clock: Clock = CLOCK,
    describe: t.Callable[[T], t.Any] = lambda state: state,
    progress: t.Callable[[T], None] | None = None,
) -> T:
    """Look again and again until ``enough(state)``; return that state.

    ``look`` may raise ChainopsError: that counts as "not yet" and is remembered. It looks at least once, also with a
    timeout of 0. Raises WaitTimeout with ``waited`` (seconds) and ``last`` (``describe`` of the last state, or the last error).
    """
    start = clock.monotonic()
    last: t.Any = None
    while True:
        try:
            state = look()
        except ChainopsError as exc:
            last = exc.as_dict()
        else:
            if enough(state):
                return state
            last = describe(state)
            if progress is not None:
                progress(state)
        waited = clock.monotonic() - start
        if waited >= timeout:
            raise WaitTimeout(f"waited {waited:.1f} s for {what}; last seen: {last}", waited=round(waited, 3), last=last)
        clock.sleep(min(interval, max(0.0, timeout - waited)))
