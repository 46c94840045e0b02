# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in C(NODE) of C(module_utils/_module/options.py)."""

    DOCUMENTATION = r"""
options:
  chain:
    description:
      - Which kind of node this is; the name of an adapter.
    type: str
    default: xai
  api_url:
    description:
      - Where the node's HTTP API answers, for example V(http://127.0.0.1:8545), as seen from where the module runs.
    type: str
    required: true
  api_key:
    description:
      - Key for requests that need one. Reading needs none.
    type: str
  timeout:
    description:
      - Seconds a single answer may take.
    type: float
    default: 10.0
"""
