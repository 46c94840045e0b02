# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options of ``_module/options.py: NODE``."""

    DOCUMENTATION = r"""
options:
  chain:
    description: Name of the chain adapter.
    type: str
    default: xai
  api_url:
    description: Where the node's HTTP API answers, as seen from where the module runs.
    type: str
    required: true
  api_key:
    description: API key of the node, for what it doesn't allow to everybody.
    type: str
  timeout:
    description: Seconds to wait for a connection and for each answer.
    type: float
    default: 10.0
"""
