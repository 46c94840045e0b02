# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: one small JSON document that says what was read, from whom, and what follows, so that others can check it again.

It carries no authority of its own: whoever holds it recomputes the tally and compares the transactions with the blocks of a
node of their own (``check_on_host``). Signatures are checked where it is made, on the controller.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._chain.protocol import NodeClient
from .._core import canonical
from .._core.errors import ChainopsError, InputError
from . import approval, binding, breakglass, hostgate, model, replay, witness
from . import tally as counting
from .approval import Carried, Glass
from .model import Policy, Record, Thresholds
from .readers import Reading

FORMAT = "chainops.proof/1"

#: What a proof can't promise, by what the chain leaves open.
_LIMITS = {
    "unsigned_metadata": (
        "this chain's signatures and transaction ids cover neither metadata nor tx_type: a relay could have rewritten a vote "
        "before it was mined; what the readers agree on is what stands in blocks"
    ),
    "witnessed_metadata": (
        "this chain's signatures and transaction ids cover neither metadata nor tx_type: a relay could have rewritten a vote "
        "before it was mined; the submission and what counts for it had to be held by {witnesses} readers, word for word, before"
    ),
    "declared_power": "voting power is what voters declared; the chain checks it against nothing",
    "held_power": "what voters hold was counted by the readers, from blocks since the first; a host does not count it again",
    "no_finality": "no block of this chain is ever final: the height read is only {confirmations} blocks below the tip",
    "single_reader": "one reader alone was believed",
    "unverified": "transaction signatures were not verified",
}


def judge(
    reading: Reading,
    proposal_id: str,
    policy: Policy,
    payload: t.Any = None,
    signature_problems: t.Sequence[str] | None = None,
    seen: witness.Seen | None = None,
) -> tuple[counting.Tally, counting.Verdict]:
    """Tally what was read and decide. ``payload`` is what is about to run; None leaves that to whoever checks the proof.

    ``signature_problems`` is None where nobody verified signatures: then the gate stays closed. ``seen`` is what readers held
    before it was mined, for a policy that asks for witnesses.
    """
    records = counting.relevant(reading.records, proposal_id)
    result = counting.tally(
        records,
        proposal_id,
        policy,
        None if seen is None else seen.held,
        held=reading.held,
        height=reading.height,
        pace=reading.seconds_per_block,
    )
    result = dataclasses.replace(result, waits=(*result.waits, *_activation(result.payload, reading)))
    further = list(reading.problems)
    if seen is not None and policy.witnesses:
        further.extend(seen.rewritten)
    if result.submission is None and not further:
        further.extend(
            f"there is a proposal {subject!r}, which looks alike but is another one"
            for subject in sorted({r.subject for r in reading.records if isinstance(r.subject, str)})
            if binding.looks_like(subject, proposal_id)
        )
    if result.submission is not None:
        further.extend(_judge_payload(result.payload, payload, reading))
        if signature_problems is None:
            further.append("transaction signatures were not verified")
        further.extend(signature_problems or ())
        if seen is not None and policy.witnesses and result.policy is not None and not result.policy.ok:
            further.extend(f"{text}, so it can be no witness" for text in seen.silent)
    if reading.problems:
        # Nothing is known, least of all that the proposal isn't there.
        return result, counting.Verdict(False, "unknown", tuple(further))
    return result, counting.decide(result, policy, further)


def _judge_payload(approved: t.Any, running: t.Any, reading: Reading) -> list[str]:
    found: list[str] = []
    if binding.is_upgrade(approved):
        found.extend(f"the approved payload is incomplete: {text}" for text in binding.problems(approved))
        found.extend(binding.chain_problems(approved, reading.chain_id, reading.genesis_hash))
    if running is not None:
        found.extend(f"about to run is not what was approved: {text}" for text in binding.differences(approved, running))
    return found


def _activation(approved: t.Any, reading: Reading) -> list[counting.Wait]:
    height = approved.get("activation_height") if binding.is_upgrade(approved) else None
    if height.__class__ is not int or reading.height is None or reading.height >= height:
        return []
    why = f"activation height {height} is"
    return [counting.Wait.until(counting.ACTIVATION, why, height, reading.height, reading.seconds_per_block)]


def build(
    reading: Reading,
    result: counting.Tally,
    verdict: counting.Verdict,
    policy: Policy,
    *,
    chain: str,
    confirmations: int,
    payload: t.Any = None,
    signatures_verified: bool,
    seen: witness.Seen | None = None,
    people: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """The document. It is the same, byte for byte, for the same reading.

    ``people`` is what people said besides (``approval``, ``break_glass``), where anybody was asked.
    """
    listed = counting.relevant(reading.records, result.proposal_id)
    held = seen.held if seen is not None and policy.witnesses else {}
    people = people or {}
    proof: dict[str, t.Any] = {
        "format": FORMAT,
        "proposal_id": result.proposal_id,
        "chain": {"name": chain, "chain_id": reading.chain_id, "genesis_hash": reading.genesis_hash},
        "read": {
            "height": reading.height,
            "hash": reading.hash,
            "final": reading.final,
            "readers_required": reading.required,
            "readers": [answer.as_dict() for answer in reading.answers],
            "problems": list(reading.problems),
        },
        "transactions": [r.as_dict() for r in listed],
        "held": _held_by(listed, reading.held),
        "witnesses": {r.sha256: held[r.sha256] for r in listed if r.subject == result.proposal_id and r.sha256 in held},
        "payload": result.payload,
        "payload_sha256": None if result.payload is None else binding.payload_digest(result.payload),
        "compared_with_sha256": None if payload is None else binding.payload_digest(payload),
        "policy": policy.as_dict(),
        "tally": result.as_dict(),
        "verdict": verdict.as_dict(),
        "expires_height": None if reading.height is None else _expiry(reading.height, policy, people.get("break_glass")),
        "signature_scheme": reading.scheme,
        "signatures_verified": signatures_verified,
        "limits": _limits(reading, confirmations, signatures_verified, policy),
        **people,
    }
    proof["sha256"] = canonical.digest(proof)
    return proof


def _held_by(listed: t.Iterable[Record], held: t.Mapping[str, float] | None) -> dict[str, float] | None:
    """What the voters and reviewers among these held."""
    if held is None:
        return None
    senders = {record.sender.lower() for record in listed if record.kind in (model.VOTE, model.REVIEW)}
    return {who: held[who] for who in sorted(senders) if who in held}


def _expiry(height: int, policy: Policy, glass: t.Mapping[str, t.Any] | None) -> int:
    last = height + policy.valid_blocks
    return last if glass is None else min(last, int(glass["expires_height"]))


def _limits(reading: Reading, confirmations: int, signatures_verified: bool, policy: Policy) -> list[str]:
    witnesses, counted = policy.witnesses, policy.power == model.LESSER and reading.held is not None
    holds = {
        "unsigned_metadata": reading.scheme == "xai-legacy" and not witnesses,
        "witnessed_metadata": reading.scheme == "xai-legacy" and witnesses > 0,
        "declared_power": not counted,
        "held_power": counted,
        "no_finality": reading.height is not None and not reading.final,
        "single_reader": len(reading.agreed) == 1,
        "unverified": not signatures_verified,
    }
    return [text.format(confirmations=confirmations, witnesses=witnesses) for name, text in _LIMITS.items() if holds[name]]


# --- checking it again ----------------------------------------------------------------------------------------------------


class _BrokenGlass:
    """What a proof says of a break-glass: its terms, the payload that was signed, and by whom."""

    def __init__(self, raw: t.Any) -> None:
        self.terms = Glass.from_dict(raw)
        self.payload: t.Any = raw["payload"]
        self.carried = Carried.from_dict(raw, "break_glass")


class _Proof:
    """A proof that is what it says it is. Raises InputError for anything else. ``local`` is what the host has of its own."""

    def __init__(self, raw: t.Any, local: hostgate.HostGate | None = None) -> None:
        self.local = local or hostgate.HostGate()
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise InputError(f"not a gate proof of format {FORMAT}")
        claimed = raw.get("sha256")
        try:
            actual = canonical.digest({name: value for name, value in raw.items() if name != "sha256"})
        except (TypeError, ValueError) as exc:
            raise InputError(f"the proof is not plain JSON: {exc}") from exc
        if claimed != actual:
            raise InputError(f"the proof was changed: its digest is {actual}, it says {claimed}")
        try:
            self.proposal_id: str = raw["proposal_id"]
            self.genesis_hash: str = raw["chain"]["genesis_hash"]
            self.chain_id: str | None = raw["chain"]["chain_id"]
            self.height: int = raw["read"]["height"]
            self.hash: str = raw["read"]["hash"]
            self.expires: int = raw["expires_height"]
            self.verdict: t.Mapping[str, t.Any] = raw["verdict"]
            self.payload: t.Any = raw["payload"]
            self.signatures_verified: bool = raw["signatures_verified"]
            self.policy = Policy.from_dict(raw["policy"])
            self.records = tuple(Record.from_dict(item) for item in raw["transactions"])
            self.witnesses: t.Mapping[str, int] = raw.get("witnesses") or {}
            if not isinstance(self.witnesses, dict) or any(n.__class__ is not int for n in self.witnesses.values()):
                raise InputError("the proof's witnesses are not numbers by digest")
            self.held: t.Mapping[str, float] | None = raw["held"]
            if self.held is not None and (
                not isinstance(self.held, dict) or any(n.__class__ not in (int, float) for n in self.held.values())
            ):
                raise InputError("the proof's holdings are not numbers by address")
            self.approval = Carried.from_dict(raw["approval"], "approval") if "approval" in raw else None
            self.glass = _BrokenGlass(raw["break_glass"]) if "break_glass" in raw else None
            kinds = (
                (self.proposal_id, str),
                (self.genesis_hash, str),
                (self.height, int),
                (self.hash, str),
                (self.expires, int),
                (self.verdict, dict),
            )
            if any(value.__class__ is not kind for value, kind in kinds):
                raise InputError("the proof lacks what was read: it was made where the readers did not agree")
            if self.expires != _expiry(self.height, self.policy, raw.get("break_glass")):
                raise InputError("the proof's expiry is not its height and the policy's valid_blocks, or its break-glass's end")
        except (KeyError, TypeError) as exc:
            raise InputError(f"the proof is incomplete: {type(exc).__name__}: {exc}") from exc

    def softened(self, known: t.Mapping[str, t.Any]) -> list[str]:
        """Where the proof assumes another rule of the chain than the one that is known here."""
        here = Thresholds().changed(known).as_dict()
        assumed = Thresholds().changed(self.policy.chain_thresholds).as_dict()
        return [
            f"the proof assumes that the chain's {name} started as {assumed[name]}; known here is {here[name]}"
            for name in here
            if assumed[name] != here[name]
        ]

    def own_problems(self, release_sha256: str, arch: str) -> list[str]:
        """What speaks against it before any node is asked: its verdict, recomputed, and what it binds."""
        result = self.tally(self.records, self.height)
        found, payload = self.against(result), result.payload
        if self.glass is not None:
            payload = self.glass.payload
            found += breakglass.term_problems(self.glass.terms, self.height)
        if self.verdict.get("open") is not True:
            found.extend(str(reason) for reason in self.verdict.get("reasons") or ["its verdict is not open"])
        if self.signatures_verified is not True:
            found.append("transaction signatures were not verified when it was made")
        if canonical.digest(result.payload) != canonical.digest(self.payload):
            found.append("the payload it shows is not the one that was submitted")
        if binding.is_upgrade(payload):
            found.extend(f"the approved payload is incomplete: {text}" for text in binding.problems(payload))
        found.extend(binding.artifact_problems(payload, release_sha256, arch))
        found.extend(binding.chain_problems(payload, self.chain_id, self.genesis_hash))
        return list(dict.fromkeys(found))

    def tally(self, records: t.Sequence[Record], height: int) -> counting.Tally:
        """As it was counted for the proof. What voters hold who came after it is not known, and believed: it only counts where it
        closes the gate again."""
        held = self.held
        if held is not None:
            late = (r for r in records if r.height > self.height and r.kind in (model.VOTE, model.REVIEW))
            declared = {r.sender.lower(): r.metadata.get("voting_power", 0) for r in late if r.sender.lower() not in held}
            held = {**declared, **held}
        return counting.tally(records, self.proposal_id, self.policy, self.witnesses, held=held, height=height)

    def against(self, result: counting.Tally) -> list[str]:
        """What a tally says against it. People may have opened the gate where votes were missing, and nothing else."""
        reasons = list(counting.decide(result, self.policy).reasons)
        softer = self.local.policy_problems(self.policy, result)
        if self.glass is None:
            return reasons + softer
        return [
            *breakglass.left(reasons, result, self.policy),
            *softer,
            *breakglass.payload_problems(self.glass.payload, result, self.chain_id, self.genesis_hash),
        ]

    def missing_people(self) -> list[str]:
        """Whether the people that this host asks for have signed, as far as this host can tell."""
        if self.glass is None:
            return self.local.approval_problems(self._statement(self.payload), self.approval)
        text = self._statement(self.glass.payload, self.glass.terms)
        return self.local.break_glass_problems(text, self.glass.carried)

    def _statement(self, payload: t.Any, glass: Glass | None = None) -> str:
        digest = binding.payload_digest(payload)
        return approval.statement(self.chain_id, self.genesis_hash, self.proposal_id, digest, glass)


def check_binding(proof: t.Any, release_sha256: str, arch: str) -> list[str]:
    """Problems of a proof by itself: digest, recomputed verdict, release digest and architecture. No node, no expiry.

    This is what putting a host back asks: the proof under which it was changed, not an open gate.
    """
    try:
        return _Proof(proof).own_problems(release_sha256, arch)
    except ChainopsError as exc:
        return [exc.message]


def check_on_host(
    proof: t.Any,
    release_sha256: str,
    arch: str,
    client: NodeClient,
    *,
    chain_thresholds: t.Mapping[str, t.Any] | None = None,
    local: hostgate.HostGate | None = None,
    each: t.Callable[[int, int], None] | None = None,
) -> list[str]:
    """Problems of a proof as the host's own node sees them; empty means valid now. Needs the standard library alone.

    Reads every block of the node from the submission to its tip: the listed transactions must be there with the
    same content, no other one about this proposal or about thresholds, and what came after the proof must not close the gate.
    ``chain_thresholds`` is what this host knows the chain's rule to start from, where that isn't XAI's numbers: whoever made
    the proof can't soften the rule. ``local`` is what stands on the host (``hostgate``): its policy, the people it asks for,
    and the chain's rule where ``chain_thresholds`` isn't given; without it no break-glass is taken. ``each(height, last)`` is
    told of every block. A node that doesn't answer is a problem, never an error.
    """
    try:
        checked = _Proof(proof, local)
        known = checked.local.chain_thresholds if chain_thresholds is None else chain_thresholds
        found = checked.softened(known) + checked.own_problems(release_sha256, arch) or checked.missing_people()
        if not found:
            found = _against_node(checked, client, each)
    except ChainopsError as exc:
        return [exc.message]
    return found


def _against_node(proof: _Proof, client: NodeClient, each: t.Callable[[int, int], None] | None) -> list[str]:
    tip = client.status().height
    if tip < proof.height:
        return [f"this node is at height {tip}, {proof.height - tip} blocks before the height the proof was made at"]
    if tip > proof.expires:
        return [f"the proof expired at height {proof.expires}; this node is at {tip}"]
    genesis = client.block_hash(0)
    if genesis != proof.genesis_hash:
        return [f"this node is on another chain: its first block is {genesis}, the proof's {proof.genesis_hash}"]
    listed = {(record.height, record.index): record for record in proof.records}
    own = [record for record in proof.records if record.subject == proof.proposal_id]
    submitted = min((record.height for record in own if record.kind == model.PROPOSAL), default=0)
    seen: dict[tuple[int, int], Record] = {}
    hashes: dict[int, str] = {}

    def look(block: t.Any) -> None:
        if block.height == proof.height:
            hashes[block.height] = block.hash
        if each is not None:
            each(block.height, tip)

    for height in sorted({place[0] for place in listed if place[0] < submitted}):
        for record in replay.extract(client.block(height)):
            seen[(record.height, record.index)] = record
    for record in replay.walk(client, submitted, tip, each=look).records:
        seen[(record.height, record.index)] = record
    if hashes.get(proof.height) != proof.hash:
        return [f"this node's block {proof.height} is {hashes.get(proof.height)}, the proof's is {proof.hash}"]
    return _compare_with_blocks(proof, tip, listed, seen)


def _compare_with_blocks(
    proof: _Proof, tip: int, listed: t.Mapping[tuple[int, int], Record], seen: t.Mapping[tuple[int, int], Record]
) -> list[str]:
    found: list[str] = []
    for place, record in sorted(listed.items()):
        there = seen.get(place)
        where = f"{record.kind} {record.txid[:12]} at height {record.height}"
        if there is None:
            found.append(f"this node's blocks don't have {where}")
        elif there != record:
            found.append(f"this node's blocks have {where} with other content")
    subjects = {proof.proposal_id, *(record.subject for record in listed.values())}
    subjects |= {record.subject for record in seen.values() if counting.may_change_thresholds(record)}
    later: list[Record] = []
    for place, record in sorted(seen.items()):
        if place in listed or not isinstance(record.subject, str) or record.subject not in subjects:
            continue
        if record.height <= proof.height:
            found.append(f"the proof does not list {record.kind} {record.txid[:12]} at height {record.height}")
        else:
            later.append(record)
    if later and not found:
        records = sorted((*listed.values(), *later), key=lambda record: (record.height, record.index))
        against = proof.against(proof.tally(records, tip))
        found.extend(f"since the proof was made: {reason}" for reason in against)
    return found
