#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: feature_activation_info
short_description: Is a feature active on every node, and by which executed proposal
version_added: 0.1.0
author:
  - chainops.validator contributors (@chainops)
description:
  - Reads every governance transaction from blocks, through several independent nodes that must agree, and finds out what executed
    proposals made of a feature. Then asks every node how it has the feature.
  - Names nodes that have it otherwise without any proposal, nodes that have not followed one, and nodes that can't be asked or
    don't tell.
  - A rollback of a proposal marks it and reverts nothing, so what it activated stays active, which is said.
  - Never fails because the answer is no, and takes no answer for a good one.
  - Run it on the controller (C(delegate_to=localhost)).
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
  - chainops.validator.readers
attributes:
  action_group: {}
requirements:
  - cryptography (Python library, where the module runs)
options:
  chain:
    description: Name of the chain adapter.
    type: str
    default: xai
  feature:
    description:
      - Name of the feature in the chain's registry.
      - XAI nodes show one over HTTP, V(smart_contracts). Of the others only the chain's view is known, and no node passes.
      - A threshold's name, as V(min_voters), gives the chain's view of that.
    type: str
    required: true
  proposal_id:
    description:
      - The proposal that is meant to activate it. When given, the feature being active by any other is not
        RV(verdict.active_everywhere).
      - It need not be on the chain yet.
    type: str
  nodes:
    description: The nodes to ask. Each is named once and has a URL of its own.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name, usually the inventory host's.
        type: str
        required: true
      api_url:
        description: Where its HTTP API answers, as seen from where the module runs.
        type: str
        required: true
      address:
        description: Not used; accepted so that the list of M(chainops.validator.network_info) fits.
        type: str
  chain_thresholds:
    description:
      - What the chain's own rule starts from, for a network that was not started with XAI's numbers; as
        O(chainops.validator.governance_proposal_info#module:policy.chain_thresholds).
    type: dict
    default: {}
  timeout:
    description: Seconds to wait for a node's first answer, for each further one, and for a reader that is slower than the others.
    type: float
    default: 10.0
seealso:
  - module: chainops.validator.governance_proposal_info
  - module: chainops.validator.governance_proposal
"""

EXAMPLES = r"""
- name: Look who has smart contracts active, and by which proposal
  chainops.validator.feature_activation_info:
    feature: smart_contracts
    proposal_id: activate-smart-contracts
    nodes:
      - {name: val1, api_url: "http://val1.example.org:8545"}
      - {name: val2, api_url: "http://val2.example.org:8545"}
    readers:
      - {name: val1, url: "http://val1.example.org:8545"}
      - {name: val2, url: "http://val2.example.org:8545"}
  delegate_to: localhost
  register: activation

- name: Stop unless it is inactive on every node
  ansible.builtin.assert:
    that: activation.verdict.inactive_everywhere
    fail_msg: "{{ activation.verdict.reasons | join('; ') }}"
"""

RETURN = r"""
nodes:
  description: Every node that was asked.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str, returned: always, sample: val1}
    active:
      description: Whether it has the feature active; null when that can't be told.
      type: bool
      returned: always
      sample: true
    expected:
      description: Whether it should, by the chain; null when that can't be told.
      type: bool
      returned: always
      sample: true
    by:
      description: The proposal whose execution made it so; null for a node that is otherwise, or as the chain began.
      type: str
      returned: always
      sample: activate-smart-contracts
    configured:
      description: Whether the node's own configuration lets the feature run; null when it doesn't tell.
      type: bool
      returned: always
      sample: true
    problem: {description: What is wrong with it; null when nothing is., type: str, returned: always, sample: null}
  sample:
    - {name: val1, active: true, expected: true, by: activate-smart-contracts, configured: true, problem: null}
chain:
  description: What the chain made of the feature.
  returned: always
  type: dict
  contains:
    known: {description: Whether the readers agree., type: bool, returned: always, sample: true}
    start: {description: Its value when the chain began., type: raw, returned: always, sample: false}
    value: {description: Its value by the last execution., type: raw, returned: always, sample: true}
    expected: {description: Whether it is active; null for what is no feature., type: bool, returned: always, sample: true}
    by: {description: The proposal it has its value by., type: str, returned: always, sample: activate-smart-contracts}
    executed:
      description:
        - Every execution that set it, first one first; C(before) and C(value) are what it was and became.
        - One with C(rolled_back) and C(in_effect) was rolled back, which reverted nothing.
      type: list
      elements: dict
      returned: always
      sample:
        - proposal_id: activate-smart-contracts
          txid: 9c1b..
          height: 812
          before: false
          value: true
          rolled_back: false
          in_effect: true
  sample: {known: true, start: false, value: false, expected: false, by: null, executed: []}
proposal:
  description: The proposal of O(proposal_id) as it stands in blocks; null when none was named, or the readers don't agree.
  returned: always
  type: dict
  sample: {id: activate-smart-contracts, stage: executed, executed_height: 812}
verdict:
  description: What follows for all nodes together.
  returned: always
  type: dict
  contains:
    inactive_everywhere:
      description: Every node has it inactive, and so does the chain. A node that just hasn't followed would turn at a restart.
      type: bool
      returned: always
      sample: true
    active_everywhere:
      description: Every node has it active, and the chain too, by O(proposal_id) where that is given.
      type: bool
      returned: always
      sample: false
    toggled_without_proposal:
      description: Nodes that have it otherwise than any executed proposal ever made it.
      type: list
      elements: str
      returned: always
      sample: []
    not_followed:
      description: Nodes that have it as it was before the last executed proposal.
      type: list
      elements: str
      returned: always
      sample: []
    unknown:
      description: Nodes that could not be asked or don't tell. With one of them, nothing is everywhere.
      type: list
      elements: str
      returned: always
      sample: []
    reasons:
      description: All that is wrong, in words.
      type: list
      elements: str
      returned: always
      sample: []
    notes:
      description: What is worth knowing and changes nothing.
      type: list
      elements: str
      returned: always
      sample: []
chain_read:
  description: What was read, and from whom; as M(chainops.validator.governance_proposal_info) returns it.
  returned: always
  type: dict
  sample: {height: 900, hash: 1f.., final: true, chain_id: devnet-1, blocks_read: 12, readers: []}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain import registry
from ansible_collections.chainops.validator.plugins.module_utils._governance import activation, signing, tally
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy, Record, Thresholds
from ansible_collections.chainops.validator.plugins.module_utils._governance.readers import Reading
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Options, run
from ansible_collections.chainops.validator.plugins.module_utils._module.governance import (
    READERS,
    cache_of,
    proposal_facts,
    read_chain,
    reading_facts,
)

OPTIONS: Options = {
    "chain": {"type": "str", "default": "xai"},
    "feature": {"type": "str", "required": True},
    "proposal_id": {"type": "str"},
    "nodes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "api_url": {"type": "str", "required": True},
            "address": {"type": "str"},
        },
    },
    "chain_thresholds": {"type": "dict", "default": {}},
    "timeout": {"type": "float", "default": 10.0},
}


def problems(read: Reading, records: t.Sequence[Record]) -> list[str]:
    """Why the chain's view can't be believed; empty when it can."""
    if read.problems or not records:
        return list(read.problems)
    wrong = signing.problems(records, read.scheme, read.chain_id)
    return ["transaction signatures were not verified"] if wrong is None else wrong


def look(module: AnsibleModule) -> dict[str, t.Any]:
    """Read the chain, ask the nodes, judge."""
    options, name = module.params, module.params["feature"]
    signing.require()
    policy = Policy.from_dict({"chain_thresholds": options["chain_thresholds"]})
    nodes = [activation.Node(one["name"], one["api_url"]) for one in options["nodes"]]
    activation.require_distinct(nodes)
    read = read_chain(options, cache_of(options))
    # After the chain, so that a node can't seem to be ahead of what was read only because of the time the reading took.
    answers = activation.ask(registry.adapter(options["chain"]), nodes, name, timeout=options["timeout"])
    mine = activation.relevant(read.records, name, *([options["proposal_id"]] if options["proposal_id"] else []))
    wrong = problems(read, mine)
    found = own = None
    if not wrong:
        found = activation.history(mine, name, Thresholds().changed(policy.chain_thresholds))
        own = tally.tally(mine, options["proposal_id"], policy) if options["proposal_id"] else None
    listed, verdict = activation.judge(found, answers, own=own, height=read.height, problems=wrong)
    return {
        "changed": False,
        "nodes": listed,
        "chain": {
            "known": found is not None,
            "start": found.start if found is not None else None,
            "value": found.value if found is not None else None,
            "expected": found.expected if found is not None else None,
            "by": found.by if found is not None else None,
            "executed": [step.as_dict() for step in found.steps] if found is not None else [],
        },
        "proposal": proposal_facts(own) if own is not None else None,
        "verdict": verdict.as_dict(),
        "chain_read": reading_facts(read),
    }


def main() -> None:
    run(ArgumentSpec(READERS, OPTIONS).module(), look)


if __name__ == "__main__":
    main()
