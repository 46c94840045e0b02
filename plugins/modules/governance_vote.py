# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: governance_vote
short_description: Cast a vote, a code review or an implementation vote on an on-chain proposal
version_added: 0.1.0
author:
  - chainops.validator contributors (@chainops)
description:
  - Sends one signed transaction and waits until it is in a block, sending it again when the node drops it.
  - Changes nothing when the same vote of the same address already stands.
  - Refuses what the chain would mine and then ignore, and votes on proposals that are over.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.node
  - chainops.validator.signing
options:
  kind:
    description:
      - V(vote), for or against the proposal.
      - V(review), of the code.
      - V(implementation), of what was built; only those who voted yes may.
    type: str
    required: true
    choices: [vote, review, implementation]
  proposal_id:
    description: The proposal's id.
    type: str
    required: true
  vote:
    description: The vote. Used with O(kind=vote).
    type: str
    default: "yes"
    choices: ["yes", "no", abstain]
  approved:
    description: Whether it is approved. Used with O(kind=review) and O(kind=implementation).
    type: bool
    default: true
  comments:
    description: A reviewer's comments. Used with O(kind=review). Other comments alone don't make another review.
    type: str
    default: ""
  voting_power:
    description:
      - The declared voting power. Used with O(kind=vote) and O(kind=review).
      - On XAI a proposal passes only when no single yes voter has more than a fifth of the yes power.
    type: float
    default: 1.0
seealso:
  - module: chainops.validator.governance_proposal
  - module: chainops.validator.governance_proposal_info
"""

EXAMPLES = r"""
- name: Vote for a proposal
  chainops.validator.governance_vote:
    kind: vote
    api_url: http://val1.example.org:8545
    api_key: "{{ validator_api_key }}"
    key_file: /etc/chainops/voter.key
    proposal_id: upgrade-2.0.0
    vote: "yes"
    voting_power: 20.0
  delegate_to: localhost

- name: Approve the code
  chainops.validator.governance_vote:
    kind: review
    api_url: http://val1.example.org:8545
    api_key: "{{ validator_api_key }}"
    key_file: /etc/chainops/voter.key
    proposal_id: upgrade-2.0.0
    comments: Read, built and run on the test network
    voting_power: 20.0
  delegate_to: localhost

- name: Approve the implementation
  chainops.validator.governance_vote:
    kind: implementation
    api_url: http://val1.example.org:8545
    api_key: "{{ validator_api_key }}"
    key_file: /etc/chainops/voter.key
    proposal_id: upgrade-2.0.0
  delegate_to: localhost
"""

RETURN = r"""
txid:
  description: The transaction that was included; null when none was sent.
  returned: success
  type: str
  sample: 9c1b6f0e54a2d7c38be0a1f4f60d2f4e4ad2c4b97c1de0ad3d2f6dfb0d4f7a11
height:
  description: The height of its block; null when none was sent.
  returned: success
  type: int
  sample: 815
attempts:
  description: How often it had to be sent.
  returned: success
  type: int
  sample: 1
address:
  description: The address that votes.
  returned: success
  type: str
  sample: TXAI0c5F8b1D2e3a4C5d6E7f8091a2b3C4d5e6F70819
metadata:
  description: What was sent, or would be in check mode; null when nothing had to be.
  returned: success
  type: dict
  sample: {type: governance_vote, proposal_id: upgrade-2.0.0, vote: "yes", voting_power: 20.0}
proposal:
  description: The proposal as it stands in the node's blocks now.
  returned: success
  type: dict
  sample: {id: upgrade-2.0.0, stage: proposed, submitted_height: 812, payload_sha256: 6f0c..}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._governance import acting
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import Tally
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.governance import (
    SIGNING,
    Signer,
    act,
    client,
    proposal_facts,
)
from ansible_collections.chainops.validator.plugins.module_utils._module.options import NODE


def shown(result: Tally, kind: str, address: str) -> dict[str, t.Any]:
    """What the diff compares: this address's word as it stands."""
    entry = acting.standing_vote(result, kind, address)
    return {} if entry is None else {name: entry[name] for name in ("vote", "approved", "power") if name in entry}


def expected(metadata: acting.Metadata) -> dict[str, t.Any]:
    """What ``shown`` would say once it is included."""
    names = {"vote": "vote", "approved": "approved", "voting_power": "power"}
    return {shown_as: metadata[name] for name, shown_as in names.items() if name in metadata}


def cast(module: AnsibleModule) -> dict[str, t.Any]:
    """Plan, and unless only checking, send and look again."""
    options = module.params
    acting.require_id(options["proposal_id"])
    signer, node = Signer(module), client(module)
    ledger = acting.scan(node, signer.address)
    current = ledger.tally(options["proposal_id"])
    metadata = acting.plan_vote(
        current,
        options["kind"],
        signer.address,
        vote=options["vote"],
        approved=options["approved"],
        comments=options["comments"],
        voting_power=options["voting_power"],
    )
    before = shown(current, options["kind"], signer.address)
    change = Change(before, before if metadata is None else expected(metadata), f"{options['kind']} of {signer.address}")
    result: dict[str, t.Any] = {"txid": None, "height": None, "attempts": 0, "metadata": metadata, "address": signer.address}
    result.update(change.result())
    if metadata is not None and not module.check_mode:
        included = act(module, node, signer, metadata, ledger)
        current = acting.scan(node, signer.address, ledger).tally(options["proposal_id"])
        result.update(txid=included.txid, height=included.height, attempts=included.attempts)
    return {**result, "proposal": proposal_facts(current)}


def main() -> None:
    spec = ArgumentSpec(
        NODE,
        SIGNING,
        kind={"type": "str", "required": True, "choices": ["vote", "review", "implementation"]},
        proposal_id={"type": "str", "required": True},
        vote={"type": "str", "default": "yes", "choices": ["yes", "no", "abstain"]},
        approved={"type": "bool", "default": True},
        comments={"type": "str", "default": ""},
        voting_power={"type": "float", "default": 1.0},
    )
    run(spec.module(), cast)


if __name__ == "__main__":
    main()
