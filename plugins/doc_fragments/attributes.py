# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What the C(attributes) of every module mean; a module adds C(support) and, where needed, C(details)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/chainops.validator.validator) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - chainops.validator.validator
  check_mode:
    description: Can run in check mode and says what would change without changing it.
  diff_mode:
    description: Returns what changed, or would change, as a before and an after.
  idempotent:
    description: When run twice in a row with the same options, the second run changes nothing.
"""

    # For modules that change something. Where one falls short, or needs to say more, its own word goes before this.
    FULL = r"""
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

    # For modules that only read.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: This module only reads.
  diff_mode:
    support: N/A
    details: This module only reads.
  idempotent:
    support: full
    details: This module only reads.
"""
