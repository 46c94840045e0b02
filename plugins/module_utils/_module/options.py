# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several modules share. Each group has a doc fragment of the same name in ``plugins/doc_fragments``."""

from __future__ import annotations

from .base import Options

#: Which chain, and where its node answers. Doc fragment ``chainops.validator.node``.
NODE: Options = {
    "chain": {"type": "str", "default": "xai"},
    "api_url": {"type": "str", "required": True},
    "api_key": {"type": "str", "no_log": True},
    "timeout": {"type": "float", "default": 10.0},
}

#: Which instance, and where its state is kept on the host. Doc fragment ``chainops.validator.instance``.
INSTANCE: Options = {
    "instance": {"type": "str", "required": True},
    "state_dir": {"type": "path", "default": "/var/lib/chainops"},
}

#: How a gateway is spoken to, and where its host keeps its records. Doc fragment ``chainops.validator.gateway``.
GATEWAY: Options = {
    "socket": {"type": "path"},
    "address": {"type": "str"},
    "config": {"type": "path", "default": "/etc/nginx/nginx.conf"},
    "backend": {"type": "str"},
    "receipt_dir": {"type": "path", "default": "/var/lib/chainops/gateway"},
}

#: The directories that are snapshotted and restored together. Doc fragment ``chainops.validator.roots``.
ROOTS: Options = {
    "roots": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
        },
    },
}

#: The token of a rollout's lease, for what may also be used outside a rollout. Doc fragment ``chainops.validator.fence``.
FENCE: Options = {
    "fence_token": {"type": "int", "default": 0, "no_log": False},
}

#: Manifests of other hosts, to be kept here. Doc fragment ``chainops.validator.replicas``.
REPLICAS: Options = {
    "replicas": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "origin": {"type": "str", "required": True},
            "seq": {"type": "int", "required": True},
            "head": {"type": "str", "required": True},
            "entries": {"type": "list", "elements": "dict", "default": []},
            "marks": {"type": "dict", "default": {}},
        },
    },
}
