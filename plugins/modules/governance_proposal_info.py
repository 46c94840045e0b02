# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: governance_proposal_info
short_description: Rebuild a proposal from the chain, tally it again, and return a verdict with its proof
version_added: 0.1.0
author:
  - chainops.validator contributors (@chainops)
description:
  - Reads every governance transaction from blocks, through several independent nodes that must agree, and never asks a node what
    it thinks of a proposal.
  - Recomputes the chain's own rule, and counts once more by a policy on top. The gate is open only when both say yes.
  - Says of every "no" what is missing, and by how much.
  - Returns a proof that a host can check again by itself, against its own node.
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
  proposal_id:
    description: The proposal's id, exactly.
    type: str
    required: true
  payload:
    description:
      - What is about to run. The gate is closed unless it equals, byte for byte, what was approved.
      - When omitted, the proof still binds the approved payload, and whoever checks the proof compares.
    type: dict
  policy:
    description: What is asked on top of the chain's rule.
    type: dict
    default: {}
    suboptions:
      thresholds:
        description:
          - Thresholds for our own count, by name; the chain's where omitted.
          - Names are C(min_voters), C(approval_percent), C(max_individual_power_percent), C(min_code_reviewers),
            C(implementation_approval_percent) and C(review_approval_percent).
          - They can only make the gate stricter, since the chain's rule is applied unchanged beside them.
        type: dict
      chain_thresholds:
        description:
          - What the chain's own rule starts from, by the same names, for a network that was not started with XAI's numbers.
          - Changes by executed proposals are followed in any case.
        type: dict
      required_stage:
        description: The stage from which the gate may open.
        type: str
        choices: [implementation_approved, executed]
      valid_blocks:
        description: For how many blocks a proof is valid; V(1000) when omitted.
        type: int
  timeout:
    description: Seconds to wait for a node's first answer, for each further one, and for a reader that is slower than the others.
    type: float
    default: 10.0
seealso:
  - module: chainops.validator.governance_proposal
  - module: chainops.validator.governance_vote
"""

EXAMPLES = r"""
- name: Ask whether exactly this release may be rolled out
  chainops.validator.governance_proposal_info:
    proposal_id: upgrade-2.0.0
    readers:
      - {name: val1, url: "http://val1.example.org:8545"}
      - {name: val2, url: "http://val2.example.org:8545"}
      - {name: val3, url: "http://val3.example.org:8545"}
    payload: "{{ upgrade_payload }}"
    cache_dir: "{{ lookup('env', 'HOME') }}/.cache/chainops"
  delegate_to: localhost
  register: gate

- name: Stop unless it may
  ansible.builtin.assert:
    that: gate.verdict.open
    fail_msg: "{{ gate.verdict.reasons | join('; ') }}"
"""

RETURN = r"""
verdict:
  description: Whether the gate is open.
  returned: always
  type: dict
  contains:
    open:
      description: V(true) only when the chain's rule and the policy both say yes, and the readers agree.
      type: bool
    stage:
      description:
        - C(absent), C(proposed), C(approved_voting), C(code_review_passed), C(implementation_approved), C(executed) or
          C(rolled_back).
        - C(void) for an id that was submitted twice, C(unknown) where the readers don't agree.
      type: str
    reasons:
      description: Why it is closed, each with what is missing; empty when open.
      type: list
      elements: str
  sample:
    open: false
    stage: proposed
    reasons: ["4 of 5 yes voters (the chain's rule)"]
proposal:
  description: The proposal as it stands in blocks. Values are null for one that isn't there.
  returned: always
  type: dict
  sample: {id: upgrade-2.0.0, stage: implementation_approved, title: Release 2.0.0, submitted_height: 812, payload_sha256: 6f0c..}
tally:
  description: Both counts with all their conditions, the votes that count, thresholds in force, and notes on what did not count.
  returned: always
  type: dict
  sample: {stage: implementation_approved, chain: {ok: true}, policy: {ok: true}, notes: []}
chain_read:
  description: What was read.
  returned: always
  type: dict
  contains:
    height:
      description: The pinned height; null where the readers don't agree.
      type: int
    hash:
      description: Hash of the block there.
      type: str
    final:
      description: Whether that block can never be undone.
      type: bool
    chain_id:
      description: The chain's id; null where it has none.
      type: str
    genesis_hash:
      description: Hash of the first block.
      type: str
    seconds_per_block:
      description: Mean time between the latest blocks.
      type: float
    blocks_read:
      description: Blocks that had to be read; the others came from the cache.
      type: int
    readers:
      description: Every reader, whether it agreed, and why not.
      type: list
      elements: dict
  sample: {height: 900, hash: 1f.., final: true, chain_id: devnet-1, genesis_hash: 0a.., seconds_per_block: 1.0, blocks_read: 12}
proof:
  description:
    - The document to hand to the hosts. Made also for a closed gate, where it proves that.
    - Lists the chain's limits in C(limits).
  returned: always
  type: dict
  sample: {format: chainops.proof/1, proposal_id: upgrade-2.0.0, expires_height: 1900}
proof_sha256:
  description: Its digest, as it says itself.
  returned: always
  type: str
  sample: 3b7e1d9a4c60c1f7c7f6f7a54c80ddc4c1c1f9d1b02d6be0d9c3c6c1f3f1a9be
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain import registry
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance import signing
from ansible_collections.chainops.validator.plugins.module_utils._governance import tally as counting
from ansible_collections.chainops.validator.plugins.module_utils._governance.cache import Cache
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._module.governance import READERS, proposal_facts


def gate(module: AnsibleModule) -> dict[str, t.Any]:
    """Read, tally, decide, prove."""
    options = module.params
    signing.require()
    policy = Policy.from_dict(options["policy"])
    adapter = registry.adapter(options["chain"])
    confirmations = adapter.confirmations if options["confirmations"] is None else options["confirmations"]
    read = reading.read(
        [reading.Reader(**reader) for reader in options["readers"]],
        lambda reader: adapter.client(reader.url, timeout=options["timeout"]),
        min_readers=options["min_readers"],
        confirmations=confirmations,
        patience=options["timeout"],
        budget=options["read_timeout"],
        cache=Cache(options["cache_dir"]) if options["cache_dir"] else None,
    )
    mine = counting.relevant(read.records, options["proposal_id"])
    wrong = signing.problems(mine, read.scheme, read.chain_id) if mine else []
    result, verdict = proving.judge(read, options["proposal_id"], policy, options["payload"], wrong)
    proof = proving.build(
        read,
        result,
        verdict,
        policy,
        chain=adapter.name,
        confirmations=confirmations,
        payload=options["payload"],
        signatures_verified=wrong == [],
    )
    return {
        "changed": False,
        "verdict": verdict.as_dict(),
        "proposal": proposal_facts(result),
        "tally": result.as_dict(),
        "chain_read": {
            "height": read.height,
            "hash": read.hash,
            "final": read.final,
            "chain_id": read.chain_id,
            "genesis_hash": read.genesis_hash,
            "seconds_per_block": read.seconds_per_block,
            "blocks_read": read.blocks_read,
            "readers": [answer.as_dict() for answer in read.answers],
        },
        "proof": proof,
        "proof_sha256": proof["sha256"],
    }


def main() -> None:
    spec = ArgumentSpec(
        READERS,
        chain={"type": "str", "default": "xai"},
        proposal_id={"type": "str", "required": True},
        payload={"type": "dict"},
        policy={
            "type": "dict",
            "default": {},
            "options": {
                "thresholds": {"type": "dict"},
                "chain_thresholds": {"type": "dict"},
                "required_stage": {"type": "str", "choices": ["implementation_approved", "executed"]},
                "valid_blocks": {"type": "int"},
            },
        },
        timeout={"type": "float", "default": 10.0},
    )
    run(spec.module(), gate)


if __name__ == "__main__":
    main()
