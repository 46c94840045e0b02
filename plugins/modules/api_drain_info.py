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
  - Reads records alone, unless a O(server) is named; then it also asks the gateway how that one stands.
  - On a validator, with O(receipt_dir) in the instance's state directory, it returns what is written down there
    (M(chainops.validator.api_drain) with C(driver=journal)).
options:
  server:
    description: A server to ask the gateway about, by the name that it has there. The gateway must have it.
    type: str
  driver:
    description: The kind of gateway.
    type: str
    choices: [haproxy, nginx]
    default: haproxy
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
  - chainops.validator.gateway
seealso:
  - module: chainops.validator.api_drain
"""

EXAMPLES = r"""
- name: Is anybody still drained here?
  chainops.validator.api_drain_info:
  register: gateway

- name: How does it stand there?
  chainops.validator.api_drain_info:
    server: val1
    socket: /run/haproxy/admin.sock
  register: gateway
"""

RETURN = r"""
drains:
  description: The records, by server.
  returned: success
  type: dict
  sample: {val1: {state: drained, turn_id: r1-val1-1, fence_token: 7, gateway: gw1}}
look:
  description:
    - How O(server) stands in each backend (C(before)), or stood before a drain that is not over, and whether the gateway has a
      record of it at all (C(known)).
    - Made for O(chainops.validator.api_drain#module:looks).
  returned: a server is named
  type: dict
  sample: {before: {api: {state: ready, weight: 100}}, known: true}
problems:
  description: Records that can't be read, and why.
  returned: success
  type: list
  elements: str
  sample: []
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._gateway import journal, receipt
from ansible_collections.chainops.validator.plugins.module_utils._gateway.registry import driver, endpoint
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import GATEWAY


def act(module: AnsibleModule) -> dict[str, t.Any]:
    p = module.params
    drains, problems = receipt.all_of(p["receipt_dir"])
    found: dict[str, t.Any] = {"changed": False, "drains": drains, "problems": problems}
    if p["server"] is None:
        return found
    gateway = driver(p["driver"], endpoint(p["driver"], p["socket"], p["address"], p["config"]))
    return {**found, "look": journal.look(gateway, p["server"], p["backend"], p["receipt_dir"])}


def main() -> None:
    spec = ArgumentSpec(
        GATEWAY,
        server={"type": "str"},
        driver={"type": "str", "choices": ["haproxy", "nginx"], "default": "haproxy"},
    )
    run(spec.module(mutually_exclusive=[("socket", "address")]), act)


if __name__ == "__main__":
    main()
