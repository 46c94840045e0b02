# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in C(GATEWAY) of C(module_utils/_module/options.py)."""

    DOCUMENTATION = r"""
options:
  socket:
    description: Path of HAProxy's Runtime API socket. Exactly one of O(socket) and O(address) is needed for HAProxy.
    type: path
  address:
    description: >-
      C(HOST:PORT) of HAProxy's Runtime API. From another machine, requests that a reload left behind can't be seen; then nothing
      counts as empty before the gateway's process is older than the time that a drain may take.
    type: str
  config:
    description: Path of nginx's main configuration file.
    type: path
    default: /etc/nginx/nginx.conf
  backend:
    description: The backend to act on. Without it, every backend that has the server.
    type: str
  receipt_dir:
    description: Where this gateway keeps its records of drains.
    type: path
    default: /var/lib/chainops/gateway
"""
