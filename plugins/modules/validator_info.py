#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validator_info
short_description: Look at one validator node, or wait until it is as wanted
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Asks one node over HTTP for its height, tip, peers, version, keys and flags. What the chain doesn't tell is null.
  - With O(wait), looks again and again, inside the module, until every condition holds or the time is over.
  - Never fails because the answer is no. A node that can't be reached, and a condition that did not come true, are data in
    RV(met) and RV(reasons).
  - What a node says about its own health is returned, but never counts as evidence that it follows the chain; use
    O(wait.advance) and O(wait.tip_of) for that.
options:
  admin_token:
    description:
      - Credential with which RV(node.paused) can be asked for; null without.
    type: str
  wait:
    description:
      - Conditions to wait for. All that are given must hold in one look.
    type: dict
    suboptions:
      height_above:
        description: The tip must be higher than this.
        type: int
      advance:
        description: The tip must rise by this many blocks above the first tip that was seen.
        type: int
      tip_of:
        description:
          - URLs of other nodes. The node must have the same block as each that answers, at the highest height both have; it must
            not be more than O(wait.max_lag) blocks behind the highest of them; and more than half of them must answer.
        type: list
        elements: str
      max_lag:
        description: How many blocks the node may be behind the nodes in O(wait.tip_of).
        type: int
        default: 3
      version:
        description: The version the node must tell. On a chain whose nodes tell none this never holds; leave it out there.
        type: str
      address:
        description:
          - The address the node must sign with. Where the chain doesn't let nodes tell it, this isn't looked at unless
            O(wait.address_required=true).
        type: str
      address_required:
        description: Whether a node that doesn't tell its address fails O(wait.address).
        type: bool
        default: false
      peers_min:
        description: How many live peers it must have; where the chain doesn't tell live ones, configured ones count.
        type: int
      included:
        description: Id of a transaction that must be in a block.
        type: str
      paused:
        description: Whether the node must refuse, or accept, clients' writes. Needs O(admin_token).
        type: bool
      healthy:
        description: Whether the node must call itself healthy.
        type: bool
      timeout:
        description: Seconds to wait.
        type: float
        default: 60.0
      interval:
        description: Seconds between two looks.
        type: float
        default: 0.5
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
  - chainops.validator.node
"""

EXAMPLES = r"""
- name: Look at the node
  chainops.validator.validator_info:
    api_url: http://127.0.0.1:8545
  register: look

- name: Wait until it follows the chain in release 2.0.0
  chainops.validator.validator_info:
    api_url: http://127.0.0.1:8545
    wait:
      advance: 3
      tip_of: [http://10.0.0.2:8545, http://10.0.0.3:8545]
      version: 2.0.0
      timeout: 120
  register: follows

- name: Stop unless it does
  ansible.builtin.assert:
    that: follows.met
    fail_msg: "{{ follows.reasons | join('; ') }}"
"""

RETURN = r"""
node:
  description: The last look. When the node could not be reached, RV(node.reachable) is false and the rest is null.
  returned: always
  type: dict
  contains:
    reachable: {description: Whether it answered and could say what its tip is., type: bool, returned: always, sample: true}
    error: {description: Why it could not be asked., type: str, returned: always, sample: null}
    api_url: {description: Where it was asked., type: str, returned: always, sample: "http://127.0.0.1:8545"}
    height: {description: Index of its highest block., type: int, returned: always, sample: 1204}
    tip_hash: {description: Hash of that block., type: str, returned: always, sample: 9f2c...}
    tip_time: {description: When that block was made (Unix time)., type: float, returned: always, sample: 1767225600.5}
    final_height: {description: Highest height that can't be undone., type: int, returned: always, sample: 1204}
    version: {description: The version it tells., type: str, returned: always, sample: 2.0.0}
    release_id: {description: The release it says it is., type: str, returned: always, sample: 2.0.0}
    chain_id: {description: Which chain it is on., type: str, returned: always, sample: devnet-1}
    genesis_hash: {description: Hash of the first block., type: str, returned: always, sample: 00ab...}
    address: {description: The address it signs with; null for an observer., type: str, returned: always, sample: TXAI1f...}
    peers_configured: {description: Peers in its configuration., type: int, returned: always, sample: 3}
    peers_live: {description: Peers it is connected to., type: int, returned: always, sample: 3}
    mempool: {description: Transactions that wait., type: int, returned: always, sample: 0}
    paused: {description: Whether it refuses clients' writes., type: bool, returned: always, sample: false}
    mining: {description: Whether it makes blocks., type: bool, returned: always, sample: true}
    healthy: {description: What it says of itself; no evidence., type: bool, returned: always, sample: true}
    issues: {description: What it complains about., type: list, elements: str, returned: always, sample: []}
    clock_offset:
      description: Least seconds by which its clock is ahead of the clock of where the module ran; negative when behind.
      type: float
      returned: always
      sample: 0.0
met:
  description: Whether the node was reached and every condition held.
  returned: always
  type: bool
  sample: true
reasons:
  description: What didn't hold in the last look.
  returned: always
  type: list
  elements: str
  sample: ["height 1201 is 12 blocks behind http://10.0.0.2:8545 (1213)"]
waited:
  description: Seconds from the first look to the last.
  returned: always
  type: float
  sample: 4.21
"""

from ansible_collections.chainops.validator.plugins.module_utils._fleet import follow
from ansible_collections.chainops.validator.plugins.module_utils._module import base, options

WAIT = {
    "height_above": {"type": "int"},
    "advance": {"type": "int"},
    "tip_of": {"type": "list", "elements": "str"},
    "max_lag": {"type": "int", "default": 3},
    "version": {"type": "str"},
    "address": {"type": "str"},
    "address_required": {"type": "bool", "default": False},
    "peers_min": {"type": "int"},
    "included": {"type": "str"},
    "paused": {"type": "bool"},
    "healthy": {"type": "bool"},
    "timeout": {"type": "float", "default": 60.0},
    "interval": {"type": "float", "default": 0.5},
}


def act(module):
    """Look once, or wait; both return the same shape."""
    given = module.params
    wanted = None
    if given["wait"]:
        wanted = follow.Wanted(**{**given["wait"], "tip_of": tuple(given["wait"]["tip_of"] or ())})
    keys = {name: given[name] for name in ("timeout", "api_key", "admin_token")}
    return {"changed": False, **follow.look(given["chain"], given["api_url"], wanted, **keys)}


def main():
    spec = base.ArgumentSpec(options.NODE, admin_token={"type": "str", "no_log": True}, wait={"type": "dict", "options": WAIT})
    base.run(spec.module(), act)


if __name__ == "__main__":
    main()
