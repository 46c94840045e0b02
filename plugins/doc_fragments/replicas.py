# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in C(REPLICAS) of C(module_utils/_module/options.py)."""

    DOCUMENTATION = r"""
options:
  replicas:
    description:
      - Manifests of other hosts, to be kept here, as P(chainops.validator.replica_offers#filter) puts them together. Each copy
        is C(replicas/<origin>/migration_manifest.json) in the instance's directory below O(state_dir).
      - A copy is only ever extended. When its last entry is not in what is offered (rewritten, cut off, forked, or lost), it is
        left as it is, and that is told as V(refused).
      - A call takes at most 1000 entries of 1 MiB together, and refuses more. What doesn't fit comes with the next one.
    type: list
    elements: dict
    default: []
    suboptions:
      origin:
        description: Whose manifest it is; the name of its host in the inventory.
        type: str
        required: true
      seq:
        description: Number of its last entry; V(0) for none.
        type: int
        required: true
      head:
        description: Hash of its last entry; 64 zeros for none.
        type: str
        required: true
      entries:
        description:
          - Those that come after the copy's last one, in their order, as M(chainops.validator.migration_manifest_info) tells
            them.
        type: list
        elements: dict
        default: []
      marks:
        description: Hashes of entries by their number, as it tells them. One that is not the copy's refuses what is offered.
        type: dict
        default: {}
"""
