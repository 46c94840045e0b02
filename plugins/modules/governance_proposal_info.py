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
  - With O(wait_for), reads again and again, inside the module, until the gate is open or a stage is reached, and says meanwhile
    in O(progress_file) what is missing. It fails when the time is over, and at once when it can't be reached any more; the
    failure carries the last answer.
  - Asks named people besides, where told to (O(approvals)). Each signs one line of text with an SSH key; OpenSSH verifies it.
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
      voting_period:
        description: For how many blocks after the submission votes count for us, and the gate waits; V(0) when omitted.
        type: int
      timelock:
        description:
          - For how many blocks our count must have held, without a break, before the gate opens; V(0) when omitted.
          - An approval that was withdrawn and given again begins anew.
        type: int
      power:
        description:
          - V(lesser), the default, counts a vote or review with what its sender declared, and never with more than it held at the
            height that was read, where that follows from the blocks. V(declared) believes it.
          - It is about our own count. The chain's rule is applied as the chain applies it.
        type: str
        choices: [lesser, declared]
      witnesses:
        description:
          - How many of the O(readers) must have held the submission, and every vote, review and implementation vote that counts
            for it, with exactly this content before it was mined; V(0), the default, asks for none.
          - Meant for chains whose signatures don't cover what a transaction says, such as XAI, where a relay can rewrite a vote.
          - What lacks witnesses counts against, with its power, for it may have been a no; a note says how many held it. A
            submission without them closes the gate, and so does a vote that as many readers held with another content, until its
            sender votes again.
          - Readers are looked at while this module runs, four times a second (an XAI node once), and what they hold is kept in
            O(cache_dir). So let it wait (O(wait_for)) from before the submission, with the same O(cache_dir) as later gates. What
            nobody looked at in time can't be made up for; it must be cast again.
          - The nodes must serve C(GET /transactions), as XAI nodes do. But those often pass nothing on before it is mined (then
            too few readers hold it, and the gate stays closed), and may refuse a block with a transaction that they hold
            themselves; try it on a test network first.
        type: int
  approvals:
    description:
      - People whose approval is asked for beside the chain's. The gate is then open only when both say yes.
      - What they sign is RV(approval.statement), with RV(approval.command). It names the chain, the proposal and the payload's
        digest, so that a signature is worth nothing for anything else.
      - Neither a name nor a key counts twice. What doesn't verify is told, and doesn't count.
      - Needs C(ssh-keygen) where the module runs, of OpenSSH 8.2 or later.
    type: dict
    default: {}
    suboptions: &people
      required:
        description: How many must have signed; V(0) asks for nobody.
        type: int
        default: 0
      names:
        description: People who must be among them, whoever else is.
        type: list
        elements: str
        default: []
      allowed_signers:
        description:
          - File where the module runs that says whose keys are whose, in the format of ssh-keygen(1), section ALLOWED SIGNERS.
          - C(namespaces="chainops-approval"), C(valid-after), C(valid-before) and C(cert-authority) mean what they always do.
        type: path
      signatures:
        description: What was handed in. A file that isn't there yet is somebody who hasn't signed.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Whose it is, as O(approvals.allowed_signers) calls them.
            type: str
            required: true
          path:
            description: File where the module runs that holds the signature.
            type: path
          content:
            description: The signature itself, for where there is no file.
            type: str
  break_glass:
    description:
      - Lets people open a gate that the chain leaves closed, when votes are all that is missing, or the time that voting period
        and timelock give them. It is loud, it ends at a height, and everything that comes of it says so.
      - It does not stand in for readers that agree, nor for a proposal that was rolled back or submitted twice, nor for a payload
        that is another one than was submitted, incomplete, or another chain's.
      - Needs O(payload). What is signed is RV(break_glass.statement), which holds the payload's digest, the reason and the end.
      - A host takes such a proof only where its own C(/etc/chainops/<instance>/gate.json) says so.
    type: dict
    suboptions:
      reason:
        description: Why the chain's approval can't be waited for; one line.
        type: str
        required: true
      expires_height:
        description: The height after which it is worth nothing; above the one that is read, by 5000 blocks at most.
        type: int
        required: true
      approvals:
        description:
          - Who must have signed it. At least V(2) are needed, and never fewer people, or others, than O(approvals) asks for.
          - C(namespaces) in the allowed signers is C(chainops-break-glass) for it.
        type: dict
        required: true
        suboptions: *people
  timeout:
    description: Seconds to wait for a node's first answer, for each further one, and for a reader that is slower than the others.
    type: float
    default: 10.0
  wait_for:
    description:
      - Wait until the gate is open (V(open)), or until the proposal has reached a stage or a later one.
      - Without it, the chain is read once, and a closed gate is an answer like any other.
    type: str
    choices: [open, proposed, approved_voting, code_review_passed, implementation_approved, executed]
  wait_timeout:
    description: Seconds to wait. The reading that is being made then is finished first.
    type: float
    default: 600.0
  wait_interval:
    description:
      - Seconds between two readings. Each reads only new blocks, with or without O(cache_dir).
    type: float
    default: 5.0
  progress_file:
    description:
      - File that RV(wait) is appended to after every reading, a line of JSON each, for whoever is watching.
      - The callback P(chainops.validator.timeline#callback) shows what it says while it waits, when told of the same file.
    type: path
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

- name: Wait for the network's decision, and see to it that no relay rewrites a vote
  chainops.validator.governance_proposal_info:
    proposal_id: upgrade-2.0.0
    readers: "{{ readers }}"
    policy:
      witnesses: 2
    wait_for: implementation_approved
    wait_timeout: 86400
    progress_file: /tmp/gate.jsonl
    cache_dir: "{{ lookup('env', 'HOME') }}/.cache/chainops"
  delegate_to: localhost

- name: Stop unless it may
  ansible.builtin.assert:
    that: gate.verdict.open
    fail_msg: "{{ gate.verdict.reasons | join('; ') }}"

- name: Ask for the chain and two people, Alice among them
  chainops.validator.governance_proposal_info:
    proposal_id: upgrade-2.0.0
    readers: "{{ readers }}"
    payload: "{{ upgrade_payload }}"
    approvals:
      required: 2
      names: [alice]
      allowed_signers: /srv/chainops/allowed_signers
      signatures:
        - {name: alice, path: /srv/chainops/alice.sig}
        - {name: bob, content: "{{ bobs_signature }}"}
  delegate_to: localhost
  register: gate
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
    break_glass:
      description: Present only where people opened what the chain leaves closed; C(instead_of) are the chain's reasons.
      type: dict
      sample:
        reason: key leak
        expires_height: 1200
        approvers: [alice, bob]
        instead_of: ["4 of 5 yes voters (the chain's rule)"]
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
approval:
  description: What people said, or have to sign.
  returned: always
  type: dict
  contains:
    statement:
      description: The line to sign, its newline included; null where nobody knows yet what it would be about.
      type: str
    statement_sha256:
      description: Its SHA-256, so that people can compare what they sign.
      type: str
    namespace:
      description: Namespace of the signature.
      type: str
    command:
      description: How to sign it.
      type: str
    verdict:
      description:
        - Whether enough people did (C(ok)), how many are C(required), the C(names) that must be among them, the C(approvers),
          the C(reasons) why it isn't so, and the C(problems) of single signatures.
      type: dict
  sample:
    statement: '{"chain_id":"devnet-1","format":"chainops.approval/1","genesis_hash":"0a..",...}'
    namespace: chainops-approval
    command: ssh-keygen -Y sign -n chainops-approval -f YOUR_KEY < STATEMENT > YOUR_NAME.sig
    verdict:
      ok: false
      required: 2
      names: []
      approvers: [alice]
      reasons: ["1 of 2 approvals: carol's signature does not verify: it is over another text than this statement"]
      problems: ["carol's signature does not verify: it is over another text than this statement"]
break_glass:
  description:
    - The same as RV(approval) for the break-glass, and its C(reason) and C(expires_height).
    - It is not used where the chain says yes.
  returned: when O(break_glass) is given
  type: dict
  contains:
    statement:
      description: As in RV(approval.statement), with the reason and the end.
      type: str
    used:
      description: Whether it opened the gate.
      type: bool
    verdict:
      description: As in RV(approval.verdict).
      type: dict
  sample: {reason: key leak, expires_height: 1200, used: true, namespace: chainops-break-glass}
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
pending:
  description:
    - Transactions about the proposal that readers were seen to hold, here or by an earlier call with the same O(cache_dir), and
      that are in no block that was read; with how many held them.
    - Empty where nobody looked, without O(cache_dir) and O(policy.witnesses).
  returned: always
  type: list
  elements: dict
  sample: [{kind: governance_vote, txid: 5b1c.., sender: TXAI1f.., readers: 3}]
wait:
  description: What was waited for, and what the last reading said.
  returned: with O(wait_for)
  type: dict
  contains:
    at:
      description: When that was.
      type: str
    proposal_id:
      description: The proposal.
      type: str
    wait_for:
      description: What was waited for.
      type: str
    waited:
      description: Seconds up to then.
      type: float
    height:
      description: The pinned height; null where the readers don't agree.
      type: int
    stage:
      description: The stage, as in RV(verdict.stage).
      type: str
    missing:
      description: What is missing, with numbers.
      type: list
      elements: str
    waits:
      description: What comes by itself, with the height, and the blocks and seconds left, as far as the tally says so.
      type: list
      elements: dict
    pending:
      description: How many transactions are in RV(pending).
      type: int
    text:
      description: All that in one line.
      type: str
  sample:
    wait_for: open
    waited: 12.4
    height: 900
    stage: proposed
    missing: ["4 of 5 yes voters (the chain's rule)"]
    pending: 1
    text: "waiting for open of 'upgrade-2.0.0': proposed at height 900; 4 of 5 yes voters (the chain's rule)"
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

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain import registry
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import CLOCK, wait_for
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, WaitTimeout
from ansible_collections.chainops.validator.plugins.module_utils._governance import breakglass, people, signing, waiting, witness
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance import tally as counting
from ansible_collections.chainops.validator.plugins.module_utils._governance.approval import Glass
from ansible_collections.chainops.validator.plugins.module_utils._governance.cache import Memory
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import LESSER, Policy
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run, teller
from ansible_collections.chainops.validator.plugins.module_utils._module.governance import (
    PEOPLE,
    READERS,
    asked,
    cache_of,
    confirmations,
    proposal_facts,
    read_chain,
    reading_facts,
)


def _emergency(glass: dict[str, t.Any]) -> people.Asked:
    return asked(glass["approvals"], "break_glass.approvals", breakglass.MIN_APPROVERS)


class Gate:
    """Reads, tallies, decides and proves, as often as it is asked; ``result`` and ``dead_end`` are of the last time."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        signing.require()
        self.options = options
        self.policy = Policy.from_dict(options["policy"])
        self.adapter = registry.adapter(options["chain"])
        self.readers = [reading.Reader(**reader) for reader in options["readers"]]
        if self.policy.witnesses > len(self.readers):
            raise InputError(f"policy.witnesses is {self.policy.witnesses}, but only {len(self.readers)} readers are listed")
        self.cache = cache_of(options) or Memory()
        self.book = witness.Book()
        self.watch: witness.Watch | None = None
        self.read: reading.Reading | None = None
        self.result: dict[str, t.Any] = {}
        self.dead_end: list[str] = []
        self._began = CLOCK.monotonic()

    def client(self, url: str) -> t.Any:
        return self.adapter.client(url, timeout=self.options["timeout"])

    def watching(self) -> t.ContextManager[t.Any]:
        """Look at what readers hold while this lasts; not where nobody would ask for it, now or later."""
        if not self.policy.witnesses and not self.options["cache_dir"]:
            return contextlib.nullcontext()
        urls = {reader.name: reader.url for reader in self.readers}
        every = witness.LOOK_EVERY if self.policy.witnesses else witness.GLANCE_EVERY
        self.watch = witness.Watch(urls, self.client, self.book, patience=self.options["timeout"], interval=every)
        return self.watch

    def ask(self) -> counting.Verdict:
        """Once. The answer is in ``result``."""
        options, policy, name = self.options, self.policy, self.options["proposal_id"]
        self.read = read = read_chain(options, self.cache, count_coins=policy.power == LESSER)
        seen, held = self.remember()
        mine = counting.relevant(read.records, name)
        wrong = signing.problems(mine, read.scheme, read.chain_id) if mine else []
        result, verdict = proving.judge(read, name, policy, options["payload"], wrong, seen)
        # Signatures are looked for anew each time: people sign while others wait.
        glass, usual = options["break_glass"], asked(options["approvals"], "approvals")
        terms = (Glass.from_dict(glass), _emergency(glass)) if glass else ()
        answer = people.consult(read, result, verdict, policy, options["payload"], usual, *terms)
        verdict = answer.verdict
        proof = proving.build(
            read,
            result,
            verdict,
            policy,
            chain=self.adapter.name,
            confirmations=confirmations(options),
            payload=options["payload"],
            signatures_verified=wrong == [],
            seen=seen,
            people=answer.carried,
        )
        self.result = {
            "changed": False,
            "verdict": verdict.as_dict(),
            "proposal": proposal_facts(result),
            "tally": result.as_dict(),
            "approval": answer.approval,
            **({} if answer.break_glass is None else {"break_glass": answer.break_glass}),
            "chain_read": reading_facts(read),
            "pending": held,
            "proof": proof,
            "proof_sha256": proof["sha256"],
        }
        if options["wait_for"]:
            waited = CLOCK.monotonic() - self._began
            self.result["wait"] = waiting.report(
                options["wait_for"], read, result, verdict, waited=waited, now=CLOCK.stamp(), pending=len(held)
            )
            self.dead_end = waiting.dead_end(
                options["wait_for"], read, result, verdict, options["payload"], wrong, policy.voting_period
            )
        return verdict

    def remember(self) -> tuple[witness.Seen, list[dict[str, t.Any]]]:
        """Keep what readers were seen to hold; who held what is in blocks now, and what isn't in any."""
        read, name = self.read, self.options["proposal_id"]
        silent = self.watch.silent() if self.watch is not None and self.policy.witnesses else ()
        if read is None or read.genesis_hash is None or read.height is None:
            return witness.Seen(silent=silent), []
        mined = {record.txid: record.height for record in reversed(read.records)}
        if self.options["cache_dir"]:
            witness.sync(self.book, self.options["cache_dir"], read.genesis_hash, mined, read.height)
        else:
            self.book.forget(read.genesis_hash, mined, read.height)
        urls = [reader.url for reader in self.readers]
        seen = witness.account(read.records, self.book, read.genesis_hash, urls, name, self.policy.witnesses, silent)
        return seen, witness.pending(read.records, self.book, read.genesis_hash, name)


def act(module: AnsibleModule) -> dict[str, t.Any]:
    """Ask once, or until it is as wanted; what can't be waited out is a failure that carries the last answer."""
    options = module.params
    wanted, tell = options["wait_for"], teller(options["progress_file"])
    if options["wait_interval"] <= 0 or options["wait_timeout"] < 0:
        raise InputError("wait_interval must be above 0 and wait_timeout at least 0 seconds")
    gate = Gate(options)
    why = ""
    with gate.watching():
        answers = [gate.ask()]  # what was given wrongly shows here, before anything is waited for
        if wanted:
            try:
                wait_for(
                    lambda: answers.pop() if answers else gate.ask(),
                    lambda verdict: waiting.reached(wanted, verdict) or bool(gate.dead_end),
                    timeout=options["wait_timeout"],
                    interval=options["wait_interval"],
                    what=wanted,
                    progress=lambda verdict: tell(gate.result["wait"]),
                )
                why = "; ".join(gate.dead_end) and f"{wanted} can't be reached any more: {'; '.join(gate.dead_end)}"
            except WaitTimeout as exc:
                why = f"waited {exc.fields['waited']:.1f} s, and not longer; {gate.result['wait']['text']}"
            tell(gate.result["wait"])
    gate.remember()
    if why:
        module.fail_json(msg=why, **gate.result)
    return gate.result


def main() -> None:
    spec = ArgumentSpec(
        READERS,
        PEOPLE,
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
                "witnesses": {"type": "int"},
                "voting_period": {"type": "int"},
                "timelock": {"type": "int"},
                "power": {"type": "str", "choices": ["lesser", "declared"]},
            },
        },
        timeout={"type": "float", "default": 10.0},
        wait_for={"type": "str", "choices": list(waiting.CHOICES)},
        wait_timeout={"type": "float", "default": 600.0},
        wait_interval={"type": "float", "default": 5.0},
        progress_file={"type": "path"},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
