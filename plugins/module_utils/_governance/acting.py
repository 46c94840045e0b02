# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acting on chain: which transaction would bring about a wanted state, and getting it into a block.

``plan_*`` are pure: what stands in blocks and what is wanted in, metadata to send or None out. ``submit`` is the effect. An
accepted transaction is not an included one: only what is then found in a block counts, and what got lost is sent again, over
the same nonce and the same coins, so that no two of them can ever both be included.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing as t

from .._chain import xai_tx
from .._chain.protocol import Block, NodeClient
from .._core.clock import CLOCK, Clock
from .._core.errors import HttpError, InputError, Refused, Unreachable, WaitTimeout
from . import binding, model, replay
from .model import Policy, Record, Thresholds
from .tally import FEATURE, PARAMETER_RANGES, ChainRule, Effect, Tally, proposed, tally, threshold_in_range

#: Bytes of metadata that every node takes: more breaks the block for XAI nodes that rebuild the transaction.
MAX_METADATA = {xai_tx.LEGACY: 4096, xai_tx.FULL: 60000}

#: Where coins change hands: what a transaction to oneself moves, and its fee. Binary fractions, so that floats add up.
SELF_TRANSFER, FEE = 1.0, 0.0078125

#: New blocks without the transaction after which it counts as lost, and seconds between two looks for a new block.
LOST_AFTER, LOOK_EVERY = 4, 0.25

#: Types of proposals whose execution changes something that is not in the replay.
_UNFOLLOWED = ("treasury_allocation", "emergency_action", "add_proposal_type", "add_parameter", "parameter_change")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}\Z")

Metadata = t.Dict[str, t.Any]


class Signer(t.Protocol):
    """Whoever holds the key."""

    public_key: str

    def address(self, prefix: str = "TXAI") -> str: ...

    def sign(self, message: bytes) -> tuple[int, int]: ...


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What one node's blocks say: every governance transaction, and one address's coins and number of transactions."""

    height: int
    hash: str
    records: tuple[Record, ...]
    sent: int
    unspent: t.Mapping[tuple[str, int], float]

    def tally(self, proposal_id: str, policy: Policy | None = None) -> Tally:
        return tally(self.records, proposal_id, policy or Policy())


@dataclasses.dataclass(frozen=True)
class Included:
    """A transaction in a block. ``attempts`` counts how often it had to be sent."""

    txid: str
    height: int
    attempts: int


def scan(client: NodeClient, address: str | None = None, since: Ledger | None = None) -> Ledger:
    """Read a node's whole chain, first block to tip; or only what came ``since`` an earlier scan for the same address."""
    tip = client.status().height
    if since is not None and tip <= since.height:
        return since
    coins: dict[tuple[str, int], float] = dict(since.unspent) if since is not None else {}
    sent = since.sent if since is not None else 0

    def look(block: Block) -> None:
        nonlocal sent
        # Outputs first: a later transaction of the same block may spend them.
        for tx in block.transactions:
            for place, output in enumerate(tx.get("outputs") or ()):
                if output.get("address") == address:
                    coins[(str(tx.get("txid")), place)] = float(output["amount"])
        for tx in block.transactions:
            sent += tx.get("sender") == address
            for spent in tx.get("inputs") or ():
                coins.pop((str(spent.get("txid")), spent.get("vout")), None)

    first, before, known = (0, None, ()) if since is None else (since.height + 1, since.hash, since.records)
    walked = replay.walk(client, first, tip, before, look if address is not None else None)
    return Ledger(tip, walked.hash, (*known, *walked.records), sent, coins)


# --- plans: pure ----------------------------------------------------------------------------------------------------------


def require_id(proposal_id: str) -> None:
    """Raises InputError for an id that people could misread or a chain choke on."""
    if not _ID.match(proposal_id):
        raise InputError(
            f"proposal_id {proposal_id!a} must be 1 to 128 of A-Z a-z 0-9 . _ : + - and begin with a letter or digit"
        )


def plan_submission(
    current: Tally, *, title: str, description: str, proposal_type: str, payload: t.Any, voting_power: float
) -> Metadata | None:
    """What to send so that this proposal stands under this id. Raises Refused when another one stands there already."""
    require_id(current.proposal_id)
    for name, value in (("title", title), ("description", description), ("proposal_type", proposal_type)):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{name} must not be empty: a proposal without it stops XAI nodes from processing blocks")
    _require_harmless(proposal_type, payload)
    if current.submission is not None:
        standing = current.submission.metadata
        wrong = binding.differences(current.payload, payload)
        if standing.get("proposal_type") != proposal_type:
            wrong.insert(0, f"proposal_type: submitted is {standing.get('proposal_type')!r}, wanted is {proposal_type!r}")
        if wrong:
            raise Refused(
                f"proposal {current.proposal_id!r} was submitted at height {current.submission.height} with other content, "
                f"and a second submission would void it; use a new id ({'; '.join(wrong)})",
                differences=wrong,
            )
        return None
    return {
        "type": model.PROPOSAL,
        "proposal_id": current.proposal_id,
        "title": title,
        "description": description,
        "proposal_type": proposal_type,
        "submitter_voting_power": _number(voting_power),
        "proposal_payload": payload,
    }


def _require_harmless(proposal_type: str, payload: t.Any) -> None:
    if not isinstance(payload, dict) or not payload:
        raise InputError("payload must be a dictionary with something in it")
    if binding.is_upgrade(payload):
        binding.require_complete(payload)
    kind = payload.get("proposal_type", proposal_type)
    if kind in ("modify_governance_rules", "protocol_parameter"):
        _number(payload.get("new_value"), "payload.new_value")  # anything else stops XAI nodes from counting votes
    if kind == "feature_activation":
        feature, enabled = payload.get("feature_name"), payload.get("enabled")
        if not isinstance(feature, str) or not isinstance(enabled, bool):
            raise InputError("payload of a feature_activation needs feature_name (text) and enabled (true or false)")


def plan_execution(current: Tally) -> Metadata | None:
    """What to send so that a proposal is executed. Raises Refused when the chain would mine it and do nothing."""
    _require_standing(current, "execute")
    if current.executed is not None:
        return None
    if current.chain is None:
        raise AssertionError("a submitted proposal has a tally")
    if not current.chain.ok:
        missing = current.chain.missing()
        raise Refused(
            f"proposal {current.proposal_id!r} can't be executed yet, the chain would take the transaction and do nothing: "
            + "; ".join(missing),
            missing=missing,
        )
    return {"type": model.EXECUTION, "proposal_id": current.proposal_id, "proposal_payload": current.payload}


def plan_rollback(current: Tally) -> Metadata | None:
    """What to send so that a proposal is marked as rolled back. On XAI that reverts nothing by itself."""
    if current.submission is None:
        raise Refused(f"there is no proposal {current.proposal_id!r} on the chain to roll back")
    if current.rolled_back is not None:
        return None
    return {
        "type": model.ROLLBACK,
        "proposal_id": current.proposal_id,
        "original_proposal_id": current.proposal_id,
    }


@dataclasses.dataclass(frozen=True)
class Revert:
    """What it takes to undo what a proposal did. ``proposal_id`` None: there is nothing to file, and ``note`` says why.

    The rest is the reverting proposal, as ``submission`` plans it.
    """

    note: str
    proposal_id: str | None = None
    proposal_type: str | None = None
    payload: Metadata | None = None
    title: str = ""
    description: str = ""

    def submission(self, current: Tally, voting_power: float = 1.0) -> Metadata | None:
        """What to send so that the reverting proposal stands, None when it does. Raises Refused when another has its id."""
        if self.proposal_type is None:
            raise AssertionError("there is something to file")
        try:
            return plan_submission(
                current,
                title=self.title,
                description=self.description,
                proposal_type=self.proposal_type,
                payload=self.payload,
                voting_power=voting_power,
            )
        except Refused as exc:
            raise Refused(
                f"{self.note} But {exc.message}. Submit it under an id of your choice (state: submitted, proposal_type: "
                f"{self.proposal_type}, payload: {json.dumps(self.payload)}), and give revert: false here",
                **exc.fields,
            ) from exc

    def stands(self, current: Tally) -> str:
        """How it is with the reverting proposal, once it stands."""
        if current.submission is None:
            return ""
        if current.blocking or current.executed is not None:
            over = "; ".join(current.blocking) or "it was executed before, and what it put back has been set again since"
            return f" Proposal {self.proposal_id!r} can't do that any more ({over}): submit the same under another id."
        return f" It stands since height {current.submission.height} ({current.stage})."


def plan_revert(records: t.Sequence[Record], proposal_id: str, policy: Policy | None = None) -> Revert:
    """The proposal that would put back what this one did: a rollback marks it, and the chain takes nothing back by itself.

    ``policy`` says what thresholds the chain started with, where those aren't XAI's: they may be what has to be put back.
    Only what the replay follows can be put back: features and thresholds. For all else the note says what to do.
    """
    rule = ChainRule(Thresholds().changed((policy or Policy()).chain_thresholds))
    submission = execution = None
    for record in records:
        taken = rule.apply(record) is None
        if record.subject == proposal_id and taken:
            submission = record if record.kind == model.PROPOSAL else submission
            execution = record if record.kind == model.EXECUTION else execution
    if submission is None or execution is None:
        return Revert(
            "The chain takes a rollback from anybody, marks the proposal and reverts nothing. This one was not executed, so that "
            "nothing has to be reverted."
        )
    executed = f"The rollback reverts nothing: what proposal {proposal_id!r} did when executed at height {execution.height} stays"
    mine = [effect for effect in rule.effects if effect.record.subject == proposal_id]
    names = sorted({effect.name for effect in mine})
    if not names:
        return Revert(_no_effect(submission, executed))
    if len(names) > 1:
        return Revert(
            f"{executed}. It set {', '.join(names)}, under one id with changing content, so no reverting proposal is filed: "
            "propose each value that is wanted back by itself."
        )
    of_name = [effect for effect in rule.effects if effect.name == names[0]]
    last = of_name[-1]
    if last.record.subject != proposal_id:
        return Revert(
            f"There is nothing to revert: proposal {last.record.subject!r} set {last.name} to {json.dumps(last.value)} at height "
            f"{last.record.height}, after proposal {proposal_id!r} was executed."
        )
    first = last
    for effect in reversed(of_name):  # executed again and again, it took the value from what was there before the first time
        if effect.record.subject != proposal_id:
            break
        first = effect
    if first.before == last.value:
        return Revert(
            f"There is nothing to revert: {last.name} was {json.dumps(last.value)} before proposal {proposal_id!r} as well."
        )
    return _revert(proposal_id, last, first.before, f"{executed}, {last.name} is {json.dumps(last.value)}")


def _revert(proposal_id: str, effect: Effect, before: t.Any, stands: str) -> Revert:
    new_id = f"{proposal_id}.revert"
    if effect.kind == FEATURE:
        before = bool(before)
        kind, payload = "feature_activation", {"feature_name": effect.name, "enabled": before}
    elif threshold_in_range(effect.name, before):
        kind, payload = "protocol_parameter", {"parameter": effect.name, "new_value": before}
    else:  # the chain would execute the other kind and ignore it
        kind, payload = "modify_governance_rules", {"rule_name": effect.name, "new_value": before}
    wanted = f"a {kind} proposal with payload {json.dumps(payload)}"
    try:
        require_id(new_id)
        _require_harmless(kind, payload)
    except InputError as exc:
        return Revert(
            f"{stands}. No reverting proposal is filed: {exc.message}. To put {json.dumps(before)} back takes {wanted}."
        )
    return Revert(
        note=f"{stands}. To put {json.dumps(before)} back, the network must vote on proposal {new_id!r} and execute it.",
        proposal_id=new_id,
        proposal_type=kind,
        payload=payload,
        title=f"Revert {proposal_id}: {effect.name} back to {json.dumps(before)}",
        description=(
            f"Proposal {proposal_id} set {effect.name} to {json.dumps(effect.value)} at height {effect.record.height} "
            f"(transaction {effect.record.txid}). Rolling it back reverted nothing. This puts {json.dumps(before)} back."
        ),
    )


def _no_effect(submission: Record, executed: str) -> str:
    """Words for an execution that the replay saw no effect of."""
    kind, payload = proposed(submission)
    followed = str(payload.get("parameter")) in PARAMETER_RANGES
    if kind in _UNFOLLOWED or (kind == "protocol_parameter" and not followed):
        return (
            f"{executed}, and what a {kind} changed, and from what, can't be told from the blocks. No reverting proposal is "
            "filed: find out what it changed, and propose what puts that back."
        )
    return f"There is nothing to revert: the chain did nothing on the execution but record it ({kind})."


def plan_vote(
    current: Tally,
    kind: str,
    address: str,
    *,
    vote: str = "yes",
    approved: bool = True,
    comments: str = "",
    voting_power: float = 1.0,
) -> Metadata | None:
    """What to send so that an address's vote, review or implementation vote stands as wanted."""
    _require_standing(current, "vote on")
    if current.executed is not None:
        raise Refused(
            f"proposal {current.proposal_id!r} was executed at height {current.executed.height}; a vote would count for nothing "
            "and make XAI nodes show it as merely approved again"
        )
    last = standing_vote(current, kind, address)
    if kind == "vote":
        wanted: Metadata = {"type": model.VOTE, "vote": vote, "voting_power": _number(voting_power)}
        same = last is not None and last["vote"] == vote and last["power"] == voting_power
    elif kind == "review":
        wanted = {"type": model.REVIEW, "approved": approved, "comments": comments, "voting_power": _number(voting_power)}
        same = last is not None and last["approved"] is approved and last["power"] == voting_power
    else:
        mine = standing_vote(current, "vote", address)
        if mine is None or mine["vote"] != "yes":
            raise Refused(
                f"{address} has not voted yes on {current.proposal_id!r}, and only yes voters may approve or reject the "
                "implementation; the chain would take the transaction and do nothing"
            )
        wanted = {"type": model.IMPLEMENTATION, "approved": approved}
        same = last is not None and last["approved"] is approved
    return None if same else {**wanted, "proposal_id": current.proposal_id}


def standing_vote(current: Tally, kind: str, address: str) -> t.Mapping[str, t.Any] | None:
    """An address's vote, review or implementation vote as it counts now."""
    entries = {"vote": current.votes, "review": current.reviews}.get(kind, current.implementation)
    return next((entry for entry in entries if xai_tx.same_address(entry["address"], address)), None)


def _require_standing(current: Tally, verb: str) -> None:
    if current.submission is None:
        raise Refused(f"there is no proposal {current.proposal_id!r} on the chain to {verb}")
    if current.blocking:
        raise Refused(f"proposal {current.proposal_id!r} is {current.stage.replace('_', ' ')}: {'; '.join(current.blocking)}")


def _number(value: t.Any, name: str = "voting_power") -> t.Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise InputError(f"{name} is {value!r}; expected a number, 0 or more")
    return value


# --- effects --------------------------------------------------------------------------------------------------------------


def submit(
    client: NodeClient,
    key: Signer,
    metadata: Metadata,
    ledger: Ledger,
    *,
    timeout: float,
    prefix: str = "TXAI",
    clock: Clock = CLOCK,
) -> Included:
    """Sign, send, and wait until the transaction is in a block. Raises WaitTimeout when it isn't after ``timeout`` seconds.

    ``ledger`` is a scan for the key's address. Send to the node that produces blocks where only one does: others may drop
    what they were given.
    """
    scheme, chain_id = client.signature_scheme(), client.status().chain_id
    size, most = len(json.dumps(metadata)), MAX_METADATA.get(scheme, 4096)
    if size > most:
        raise InputError(f"the transaction's metadata is {size} bytes; the chain takes {most}", bytes=size)
    address = key.address(prefix)
    draft = _draft(client, key, address, metadata, scheme, ledger)
    until = clock.monotonic() + timeout
    watch = _Watch(client, ledger.height + 1)
    sent: list[str] = []
    refused: str | None = None
    looked_since = 0
    while True:
        if not sent or looked_since >= LOST_AFTER:
            tx = xai_tx.signed({**draft, "timestamp": clock.wall()}, scheme, chain_id, key.sign)
            looked_since = 0
            try:
                client.send(tx)
                sent.append(tx["txid"])
            except HttpError as exc:
                # The first refusal is final. Later ones may just mean that the earlier transaction is still waiting.
                if not sent:
                    raise
                refused = exc.message
            except Unreachable as exc:
                # It may have arrived: look for it in blocks like for any other.
                sent.append(tx["txid"])
                refused = exc.message
        new, found = watch.look(sent)
        looked_since += new
        if found is not None:
            return Included(found[0], found[1], len(sent))
        if clock.monotonic() >= until:
            raise WaitTimeout(
                f"sent {metadata['type']} {len(sent)} times and looked for it up to block {watch.next - 1} for {timeout:.0f} s: "
                "it is in no block" + (f"; the node's last refusal: {refused}" if refused else ""),
                waited=timeout,
                last={"txids": sent, "height": watch.next - 1, "refused": refused},
            )
        if not new:
            clock.sleep(min(LOOK_EVERY, max(0.0, until - clock.monotonic())))


class _Watch:
    """Looks through blocks as they come."""

    def __init__(self, client: NodeClient, first: int) -> None:
        self.client = client
        self.next = first

    def look(self, txids: t.Sequence[str]) -> tuple[int, tuple[str, int] | None]:
        """How many blocks are new (at most one), and the transaction found in it."""
        try:
            block = self.client.block(self.next)
        except (HttpError, Unreachable):  # not there yet, or the node is busy: the timeout ends it
            return 0, None
        self.next += 1
        for tx in block.transactions:
            if tx.get("txid") in txids:
                return 1, (str(tx["txid"]), block.height)
        return 1, None


def _draft(client: NodeClient, key: Signer, address: str, metadata: Metadata, scheme: str, ledger: Ledger) -> dict[str, t.Any]:
    basics: dict[str, t.Any] = {
        "public_key": key.public_key,
        "sender": address,
        "recipient": address,
        "timestamp": 0.0,
        "metadata": metadata,
    }
    if scheme != xai_tx.LEGACY:
        return xai_tx.draft(nonce=client.nonce(address), **basics)
    # XAI wants coins to move, tells nobody's coins, and its non-mining nodes miscount nonces: all that comes from the blocks.
    none: tuple[tuple[str, int], float] = (("", 0), 0.0)
    (txid, vout), held = max(ledger.unspent.items(), key=lambda item: (item[1], item[0]), default=none)
    change = held - SELF_TRANSFER - FEE
    if change < 0:
        raise Refused(
            f"{address} holds no single output of at least {SELF_TRANSFER + FEE} coins, which this chain wants to move in every "
            f"transaction; the largest is {held}",
            address=address,
        )
    outputs = [{"address": address, "amount": SELF_TRANSFER}]
    if change > 0:
        outputs.append({"address": address, "amount": change})
    return xai_tx.draft(
        nonce=ledger.sent, amount=SELF_TRANSFER, fee=FEE, inputs=[{"txid": txid, "vout": vout}], outputs=outputs, **basics
    )
