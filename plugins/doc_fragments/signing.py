# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options of ``_module/governance.py: SIGNING``."""

    DOCUMENTATION = r"""
options:
  key_file:
    description:
      - File where the module runs, with the private key that signs the transaction.
      - Either 64 hexadecimal digits, or JSON with them as C(private_key).
      - The key is never put into arguments, logs, diffs or results.
    type: path
  key_env:
    description: Environment variable that holds the key when O(key_file) is omitted, in the same forms.
    type: str
    default: CHAINOPS_SIGNING_KEY
  network:
    description: Which network the key's address belongs to.
    type: str
    default: testnet
    choices: [testnet, mainnet]
  wait_timeout:
    description:
      - Seconds to wait until the transaction is in a block; it is sent again when the node drops it.
      - Past them the module fails, and says what it sent. Running it again is safe.
    type: float
    default: 120.0
notes:
  - Run it on the controller (C(delegate_to=localhost)), one at a time for a key.
requirements:
  - cryptography (Python library, where the module runs)
"""
