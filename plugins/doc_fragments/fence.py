# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in C(FENCE) of C(module_utils/_module/options.py)."""

    DOCUMENTATION = r"""
options:
  fence_token:
    description:
      - The token that M(chainops.validator.rollout_lock) gave to the rollout that this call belongs to. A lower one than the
        host has seen is refused, and the lease under it is renewed.
      - V(0) for a call that belongs to no rollout.
    type: int
    default: 0
"""
