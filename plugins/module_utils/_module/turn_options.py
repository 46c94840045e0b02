# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the turn's modules share. Doc fragment ``chainops.validator.turn``."""

from __future__ import annotations

import typing as t

from .._core.errors import InputError
from .base import Options

TURN: Options = {
    "release_link": {"type": "path", "required": True},
    "service": {"type": "str"},
    "service_scope": {"type": "str", "choices": ["system", "user", "process"], "default": "system"},
    "process": {
        "type": "dict",
        "options": {
            "argv": {"type": "list", "elements": "str", "required": True},
            "pidfile": {"type": "path", "required": True},
            "cwd": {"type": "path"},
            "env": {"type": "dict"},
            "log": {"type": "path"},
        },
    },
}


def service_spec(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What ``_host.service.make`` takes."""
    if params["service_scope"] == "process":
        if not params["process"]:
            raise InputError("service_scope=process needs process.argv and process.pidfile")
        return {"manager": "process", **params["process"]}
    if not params["service"]:
        raise InputError("service is missing: the name of the node's systemd unit")
    return {"manager": "systemd", "unit": params["service"], "scope": params["service_scope"]}
