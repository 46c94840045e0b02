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


def endpoint(name: str, socket: str | None, address: str | None, config: str) -> str:
    """Where a gateway is spoken to, of what a caller names. Raises InputError when it names nothing."""
    if name == "nginx":
        return config
    if not (socket or address):
        raise InputError("HAProxy is spoken to through its socket or its address: give one of them")
    return str(socket or address)
