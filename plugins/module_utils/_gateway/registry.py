# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drivers, by name. Another gateway is one file and one line here."""

from __future__ import annotations

import typing as t

from .._core.errors import InputError
from .haproxy import HAProxy
from .nginx import Nginx
from .protocol import GatewayDriver

DRIVERS: dict[str, t.Callable[[str, float], GatewayDriver]] = {
    "haproxy": HAProxy,
    "nginx": Nginx,
}


def driver(name: str, endpoint: str, timeout: float = 5.0) -> GatewayDriver:
    """Raises InputError for a gateway nobody wrote a driver for."""
    if name not in DRIVERS:
        raise InputError(f"unknown gateway driver {name!r}; known: {', '.join(sorted(DRIVERS))}", driver=name)
    return DRIVERS[name](endpoint, timeout)
