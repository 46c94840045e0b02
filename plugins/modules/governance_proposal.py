# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: governance_proposal
short_description: Submit, execute or roll back an on-chain proposal
version_added: 0.1.0
author:
  - chainops.validator contributors (@chainops)
description:
  - Sends one signed transaction and waits until it is in a block. That a node accepts a transaction does not mean that it will be
    included, so a lost one is sent again, over the same nonce and coins.
  - Decides by what stands in the node's blocks, and sends nothing when the proposal is as wanted already.
  - Refuses what would harm the chain, or what the chain would mine and then ignore.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.node
  - chainops.validator.signing
options:
  state:
    description:
      - V(submitted), the proposal stands on the chain with this type and payload. One with another payload is refused, since a
        second submission under an id voids it.
      - V(executed), it was executed. Refused unless the chain's rule is met.
      - V(closed), it is off the list of open proposals, which on XAI means executed.
      - V(rolled_back), it is marked as rolled back, which closes its gate for good. XAI accepts that from anybody and
        reverts nothing, so what an executed proposal did is put back by another proposal, see O(revert).
    type: str
    default: submitted
    choices: [submitted, executed, closed, rolled_back]
  proposal_id:
    description: The proposal's id. Letters, digits and C(._:+-).
    type: str
    required: true
  title:
    description: Title. Required for O(state=submitted).
    type: str
  description:
    description: Description. Required for O(state=submitted).
    type: str
  proposal_type:
    description:
      - What the chain does on execution. A type that it doesn't know, as the default, makes it do nothing but record that.
    type: str
    default: software_upgrade
  payload:
    description:
      - What is proposed. Required for O(state=submitted).
      - A dictionary with C(format) is an upgrade payload and must be a whole one, for this chain.
    type: dict
  revert:
    description:
      - With O(state=rolled_back), file the proposal that puts back what this one did when it was executed, as O(proposal_id) with
        C(.revert) at its end. The network must vote on it like on any other.
      - It is filed for features and thresholds, whose value before is known from the blocks, and only while this proposal's value
        is in force. RV(note) says what to do about all else.
      - When another proposal has that id, the rollback is sent all the same, and then the module fails and says what to do.
    type: bool
    default: true
  chain_thresholds:
    description:
      - What the chain's own rule starts from, for a network that was not started with XAI's numbers; as
        O(chainops.validator.governance_proposal_info#module:policy.chain_thresholds).
    type: dict
    default: {}
  voting_power:
    description: The submitter's declared voting power. It counts for nothing in the tally.
    type: float
    default: 1.0
seealso:
  - module: chainops.validator.governance_proposal_info
  - module: chainops.validator.governance_vote
"""

EXAMPLES = r"""
- name: Propose a release
  chainops.validator.governance_proposal:
    api_url: http://val1.example.org:8545
    api_key: "{{ validator_api_key }}"
    key_file: /etc/chainops/proposer.key
    proposal_id: upgrade-2.0.0
    title: Release 2.0.0
    description: The storage format of level 2
    payload: "{{ upgrade_payload }}"
  delegate_to: localhost

- name: Close it when the fleet is done
  chainops.validator.governance_proposal:
    state: closed
    api_url: http://val1.example.org:8545
    api_key: "{{ validator_api_key }}"
    key_file: /etc/chainops/proposer.key
    proposal_id: upgrade-2.0.0
  delegate_to: localhost

- name: Mark it as rolled back
  chainops.validator.governance_proposal:
    state: rolled_back
    api_url: http://val1.example.org:8545
    api_key: "{{ validator_api_key }}"
    key_file: /etc/chainops/proposer.key
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
  sample: 812
attempts:
  description: How often it had to be sent.
  returned: success
  type: int
  sample: 1
proposal:
  description: The proposal as it stands in the node's blocks now.
  returned: success
  type: dict
  sample: {id: upgrade-2.0.0, stage: proposed, submitted_height: 812, payload_sha256: 6f0c..}
metadata:
  description: What was sent, or would be in check mode; null when nothing had to be.
  returned: success
  type: dict
  sample: {type: rollback_change, proposal_id: upgrade-2.0.0, original_proposal_id: upgrade-2.0.0}
reverts:
  description: Whether the chain undid what the proposal had done. XAI never does.
  returned: O(state=rolled_back)
  type: bool
  sample: false
reverting_proposal:
  description:
    - The proposal that puts back what this one did, as it stands or was filed; null where there is none.
    - In check mode, one that would be filed has no C(txid) and no C(height).
  returned: O(state=rolled_back)
  type: dict
  sample:
    id: activate-smart-contracts.revert
    txid: 4be0..
    height: 830
    payload: {feature_name: smart_contracts, enabled: false}
note:
  description: What the rollback leaves as it is, and what must happen for it to be put back.
  returned: O(state=rolled_back)
  type: str
  sample: >-
    The rollback reverts nothing: what proposal 'activate-smart-contracts' did when executed at height 812 stays, smart_contracts
    is true. To put false back, the network must vote on proposal 'activate-smart-contracts.revert' and execute it.
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import NodeClient
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._governance import acting, binding
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy
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


def plan(module: AnsibleModule, node: NodeClient, current: Tally) -> acting.Metadata | None:
    """What to send, or None."""
    options = module.params
    if options["state"] == "submitted":
        if binding.is_upgrade(options["payload"]):
            wrong = binding.chain_problems(options["payload"], node.status().chain_id, node.block_hash(0))
            if wrong:
                raise InputError(wrong[0])
        return acting.plan_submission(
            current,
            title=options["title"],
            description=options["description"],
            proposal_type=options["proposal_type"],
            payload=options["payload"],
            voting_power=options["voting_power"],
        )
    return acting.plan_rollback(current) if options["state"] == "rolled_back" else acting.plan_execution(current)


def reached(state: str, result: Tally) -> bool:
    """Whether the chain did with the transaction what it was sent for."""
    if state == "submitted":
        return result.submission is not None
    return (result.rolled_back if state == "rolled_back" else result.executed) is not None


def shown(result: Tally) -> dict[str, t.Any]:
    """What the diff compares."""
    facts = proposal_facts(result)
    return {name: facts[name] for name in ("id", "stage", "title", "description", "proposal_type", "payload")}


def expected(state: str, metadata: acting.Metadata, before: dict[str, t.Any]) -> dict[str, t.Any]:
    """What ``shown`` would say once it is included."""
    if state != "submitted":
        return {**before, "stage": "rolled_back" if state == "rolled_back" else "executed"}
    told = {name: metadata[name] for name in ("title", "description", "proposal_type")}
    return {**before, **told, "stage": "proposed", "payload": metadata["proposal_payload"]}


def propose(module: AnsibleModule) -> dict[str, t.Any]:
    """Plan, and unless only checking, send and look again."""
    options, state = module.params, module.params["state"]
    acting.require_id(options["proposal_id"])
    policy = Policy.from_dict({"chain_thresholds": options["chain_thresholds"]})
    signer, node = Signer(module), client(module)
    ledger = acting.scan(node, signer.address)
    current = ledger.tally(options["proposal_id"], policy)
    metadata = plan(module, node, current)
    before = shown(current)
    after = before if metadata is None else expected(state, metadata, before)
    result: dict[str, t.Any] = {"txid": None, "height": None, "attempts": 0, "metadata": metadata}
    if metadata is not None and not module.check_mode:
        included, ledger = send(module, node, signer, metadata, ledger, policy, lambda now: reached(state, now))
        current = ledger.tally(options["proposal_id"], policy)
        result.update(txid=included.txid, height=included.height, attempts=included.attempts)
    if state == "rolled_back":
        told, was, becomes = revert(module, node, signer, ledger, policy)
        before, after = {**before, "reverting_proposal": was}, {**after, "reverting_proposal": becomes}
        result.update(told)
    return {**result, **Change(before, after, options["proposal_id"]).result(), "proposal": proposal_facts(current)}


def send(
    module: AnsibleModule,
    node: NodeClient,
    signer: Signer,
    metadata: acting.Metadata,
    ledger: acting.Ledger,
    policy: Policy,
    done: t.Callable[[Tally], bool],
) -> tuple[acting.Included, acting.Ledger]:
    """Get it into a block, and read on. Raises Refused when the chain did nothing with it."""
    included = act(module, node, signer, metadata, ledger)
    ledger = acting.scan(node, signer.address, ledger)
    current = ledger.tally(metadata["proposal_id"], policy)
    if not done(current):
        raise Refused(
            f"{included.txid} is in block {included.height}, but did nothing: {'; '.join(current.notes[-1:])}",
            txid=included.txid,
            height=included.height,
        )
    return included, ledger


def revert(
    module: AnsibleModule, node: NodeClient, signer: Signer, ledger: acting.Ledger, policy: Policy
) -> tuple[dict[str, t.Any], dict[str, t.Any] | None, dict[str, t.Any] | None]:
    """What to return about the reverting proposal, and how it was and becomes for the diff.

    Called once the rollback is in a block: somebody who took the reverting proposal's id must not keep a gate open.
    """
    wanted = acting.plan_revert(ledger.records, module.params["proposal_id"], policy)
    told: dict[str, t.Any] = {"reverts": False, "reverting_proposal": None, "note": wanted.note}
    if wanted.proposal_id is None:
        return told, None, None
    if not module.params["revert"]:
        told["note"] += " It was not filed, as revert is false."
        return told, None, None
    current = ledger.tally(wanted.proposal_id, policy)
    metadata = wanted.submission(current, module.params["voting_power"])
    before = shown(current) if current.submission is not None else None
    after = before if metadata is None else expected("submitted", metadata, shown(current))
    if metadata is not None and not module.check_mode:
        _included, ledger = send(module, node, signer, metadata, ledger, policy, lambda now: reached("submitted", now))
        current = ledger.tally(wanted.proposal_id, policy)
    told["note"] += wanted.stands(current)
    told["reverting_proposal"] = {
        "id": wanted.proposal_id,
        "txid": current.submission.txid if current.submission is not None else None,
        "height": current.submission.height if current.submission is not None else None,
        "payload": wanted.payload,
    }
    return told, before, after


def main() -> None:
    spec = ArgumentSpec(
        NODE,
        SIGNING,
        state={"type": "str", "default": "submitted", "choices": ["submitted", "executed", "closed", "rolled_back"]},
        proposal_id={"type": "str", "required": True},
        title={"type": "str"},
        description={"type": "str"},
        proposal_type={"type": "str", "default": "software_upgrade"},
        payload={"type": "dict"},
        revert={"type": "bool", "default": True},
        chain_thresholds={"type": "dict", "default": {}},
        voting_power={"type": "float", "default": 1.0},
    )
    run(spec.module(required_if=[("state", "submitted", ("title", "description", "payload"))]), propose)


if __name__ == "__main__":
    main()
