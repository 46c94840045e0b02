# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts are taken together. Pure."""

from __future__ import annotations

import re
import typing as t

from .._core.errors import InputError

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%\Z")


def waves(hosts: t.Sequence[str], sizes: t.Sequence[int | str]) -> tuple[tuple[str, ...], ...]:
    """Cut ``hosts`` into waves, in their order: the first is the canary, the last size repeats until nobody is left.

    A size is a number of hosts or a share of all of them (``"50%"``, rounded down, at least one host). The canary never is the
    whole fleet: of several hosts, at least one waits for it. No hosts, no waves. Raises InputError for a host that is there
    twice, for no sizes, and for a size that isn't one.
    """
    twice = sorted({host for host in hosts if list(hosts).count(host) > 1})
    if twice:
        raise InputError(f"hosts listed twice: {', '.join(twice)}; one host is one instance, taken once", hosts=twice)
    if isinstance(sizes, (str, bytes)) or not sizes:
        raise InputError(f"wave sizes must be a list such as [1, '100%'], not {sizes!r:.60}")
    counts = [_count(size, len(hosts)) for size in sizes]
    if len(hosts) > 1:
        counts[0] = min(counts[0], len(hosts) - 1)
    cut: list[tuple[str, ...]] = []
    start = 0
    while start < len(hosts):
        size = counts[min(len(cut), len(counts) - 1)]
        cut.append(tuple(hosts[start : start + size]))
        start += size
    return tuple(cut)


def _count(size: int | str, total: int) -> int:
    share = _SHARE.match(size.strip()) if isinstance(size, str) else None
    if share is not None:
        percent = float(share.group(1))
        if not 0 < percent <= 100:
            raise InputError(f"wave size {size!r} is out of range; a share is above 0% and at most 100%", size=size)
        return max(1, int(total * percent / 100))
    whole = size if isinstance(size, int) and not isinstance(size, bool) else 0
    if isinstance(size, str) and re.fullmatch(r"\d{1,9}", size.strip()):
        whole = int(size)
    if whole < 1:
        raise InputError(
            f"wave size {size!r:.60} is neither a number of hosts from 1 nor a share such as '50%'", size=str(size)[:60]
        )
    return whole
