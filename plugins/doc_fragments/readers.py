# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options of ``_module/governance.py: READERS``."""

    DOCUMENTATION = r"""
options:
  readers:
    description:
      - Independent nodes to read the chain from. The answer is what enough of them agree on, block by block.
      - A node that lies, lags, stalls or answers with rubbish is a node that did not answer; why is returned.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What to call it in reasons and proofs. Must be unique.
        type: str
        required: true
      url:
        description: Where its HTTP API answers, as seen from where the module runs. Must be unique.
        type: str
        required: true
  min_readers:
    description:
      - How many readers must agree on the block hash at one height and on the content of every governance transaction up to it.
      - V(0) means more than two thirds of those listed, and at least two.
      - To believe a single node, V(1) must be said explicitly.
    type: int
    default: 0
  confirmations:
    description:
      - How many blocks below its tip a node is believed where no block is ever final.
      - The chain adapter's own number when omitted. Means nothing where blocks become final.
    type: int
  read_timeout:
    description: Seconds that a single reader may take for its whole account of the chain.
    type: float
    default: 300.0
  cache_dir:
    description:
      - Directory where the module runs in which to keep what readers agreed on, so that the next call reads only new blocks.
      - It is used only where the readers still have the same block, and never for a call that asks for more agreement.
      - M(chainops.validator.governance_proposal_info) also keeps there what readers held before it was mined.
      - Nothing is kept when omitted.
    type: path
"""
