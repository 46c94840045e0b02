#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: api_drain_info
short_description: What a gateway remembers of drains
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Runs on the gateway's host and returns the records that M(chainops.validator.api_drain) keeps there, of all servers at once.
  - A server is out by a drain of ours while the C(state) of its record is V(draining) or V(drained).
  - Reads records alone. How the server stands in the gateway now is the gateway's to say.
options:
  receipt_dir:
    description: Where the records are.
    type: path
    default: /var/lib/chainops/gateway
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
seealso:
  - module: chainops.validator.api_drain
"""

EXAMPLES = r"""
- name: Is anybody still drained here?
  chainops.validator.api_drain_info:
  register: gateway
"""

RETURN = r"""
drains:
  description: The records, by server.
  returned: success
  type: dict
  sample: {val1: {state: drained, turn_id: r1-val1-1, fence_token: 7, gateway: gw1}}
problems:
  description: Records that can't be read, and why.
  returned: success
  type: list
  elements: str
  sample: []
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._gateway import receipt
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run


def act(module: AnsibleModule) -> dict[str, t.Any]:
    drains, problems = receipt.all_of(module.params["receipt_dir"])
    return {"changed": False, "drains": drains, "problems": problems}


def main() -> None:
    run(ArgumentSpec(receipt_dir={"type": "path", "default": "/var/lib/chainops/gateway"}).module(), act)


if __name__ == "__main__":
    main()
