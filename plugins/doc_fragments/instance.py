# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in C(INSTANCE) of C(module_utils/_module/options.py)."""

    DOCUMENTATION = r"""
options:
  instance:
    description:
      - Name of the validator instance on this host. Several instances on one machine have different names.
    type: str
    required: true
  state_dir:
    description:
      - Directory that holds what the collection keeps about its instances, outside of every data directory, so that no
        restore rewinds it.
    type: path
    default: /var/lib/chainops
"""
