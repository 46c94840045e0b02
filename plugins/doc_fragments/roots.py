# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in C(ROOTS) of C(module_utils/_module/options.py)."""

    DOCUMENTATION = r"""
options:
  roots:
    description:
      - Directories and files that are snapshotted and restored together. One must be named V(data), the node's data directory;
        others are, for example, wallet caches, configuration, and the service unit.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the root inside a snapshot.
        type: str
        required: true
      path:
        description:
          - Where it lies on the host.
        type: path
        required: true
"""
