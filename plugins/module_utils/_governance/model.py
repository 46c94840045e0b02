# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about governance as it stands in blocks. Frozen, and free of any judgement."""

from __future__ import annotations

import dataclasses
import typing as t

from .._core import canonical
from .._core.errors import InputError

PROPOSAL = "governance_proposal"
VOTE = "governance_vote"
REVIEW = "code_review"
IMPLEMENTATION = "implementation_vote"
EXECUTION = "proposal_execution"
ROLLBACK = "rollback_change"

#: ``metadata.type`` of the transactions that the chain takes for governance.
KINDS = (PROPOSAL, VOTE, REVIEW, IMPLEMENTATION, EXECUTION, ROLLBACK)

#: Those by which addresses say what they think; the last word of each counts.
VOICES = frozenset((VOTE, REVIEW, IMPLEMENTATION))

#: What of a transaction is read and compared. Nodes may add fields of their own (confirmations, say); those mean nothing here.
CONTENT = (
    "txid",
    "sender",
    "recipient",
    "amount",
    "fee",
    "public_key",
    "nonce",
    "timestamp",
    "signature",
    "tx_type",
    "inputs",
    "outputs",
    "metadata",
)

#: Stages of a proposal, in their order. ``absent`` and ``void`` are ours; the others are the chain's words.
ABSENT = "absent"
VOID = "void"
PROPOSED = "proposed"
VOTED = "approved_voting"
REVIEWED = "code_review_passed"
APPROVED = "implementation_approved"
EXECUTED = "executed"
ROLLED_BACK = "rolled_back"

#: Which power counts for us (``Policy.power``).
LESSER = "lesser"
DECLARED = "declared"


@dataclasses.dataclass(frozen=True)
class Record:
    """One governance transaction, and where it stands in the chain.

    ``sha256`` is the digest of the transaction's full content. ``tx`` is that content where it is at hand: a proof carries
    only the digest and what the tally needs.
    """

    height: int
    index: int  # place in its block
    txid: str
    sender: str
    sha256: str
    metadata: t.Mapping[str, t.Any]
    tx: t.Mapping[str, t.Any] | None = dataclasses.field(default=None, compare=False, repr=False)

    kind: str = dataclasses.field(init=False, compare=False)
    #: The proposal it acts on. A rollback names it apart, whatever else its ``proposal_id`` says.
    subject: t.Any = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        kind = str(self.metadata.get("type"))
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "subject", self.metadata.get("original_proposal_id" if kind == ROLLBACK else "proposal_id"))

    def as_dict(self) -> dict[str, t.Any]:
        """As it is listed in a proof."""
        return {
            "height": self.height,
            "index": self.index,
            "txid": self.txid,
            "sender": self.sender,
            "sha256": self.sha256,
            "metadata": dict(self.metadata),
        }

    @staticmethod
    def from_dict(raw: t.Any) -> Record:
        """Raises InputError for anything that isn't a listed record."""
        wanted: dict[str, type] = {"height": int, "index": int, "txid": str, "sender": str, "sha256": str, "metadata": dict}
        if not isinstance(raw, dict) or any(raw.get(name).__class__ is not kind for name, kind in wanted.items()):
            raise InputError("not a listed governance transaction: height, index, txid, sender, sha256 and metadata are needed")
        return Record(**{name: raw[name] for name in wanted})


def content(tx: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The fields of a transaction that are read and compared; what it lacks stays out."""
    return {name: tx[name] for name in CONTENT if name in tx}


def record_of(height: int, index: int, tx: t.Mapping[str, t.Any]) -> Record:
    """The record of a governance transaction at its place."""
    kept = content(tx)
    return Record(height, index, str(tx.get("txid")), str(tx.get("sender")), canonical.digest(kept), tx["metadata"], tx=kept)


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The chain's rule in numbers; the defaults are those an XAI node starts with.

    Percentages are of 100. ``review_approval_percent`` is a constant in the node's code, the others can be changed by
    executed proposals.
    """

    min_voters: t.Any = 5
    approval_percent: t.Any = 66
    max_individual_power_percent: t.Any = 20
    min_code_reviewers: t.Any = 5
    implementation_approval_percent: t.Any = 50
    review_approval_percent: t.Any = 66

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)

    def changed(self, values: t.Mapping[str, t.Any]) -> Thresholds:
        return dataclasses.replace(self, **values)


THRESHOLDS = tuple(field.name for field in dataclasses.fields(Thresholds))


@dataclasses.dataclass(frozen=True)
class Policy:
    """What we ask on top of the chain's rule.

    ``thresholds`` replaces single thresholds for our own count (the chain's rule is applied beside it, unchanged).
    ``chain_thresholds`` says what the chain's rule starts from where that isn't XAI's; executed proposals still change it.
    ``required_stage`` is implementation_approved or executed. ``valid_blocks`` is how long a proof lasts. ``witnesses`` is how
    many readers must have held the submission, and what counts for it, before it was mined (see ``witness``).
    ``voting_period`` is for how many blocks after the submission votes count for us; ``timelock`` for how many blocks our count
    must have held without a break; 0 is neither. ``power`` is the lesser of declared and held, where the chain can tell what was
    held, or as declared.
    """

    thresholds: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    chain_thresholds: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    required_stage: str = APPROVED
    valid_blocks: int = 1000
    witnesses: int = 0
    voting_period: int = 0
    timelock: int = 0
    power: str = LESSER

    def as_dict(self) -> dict[str, t.Any]:
        """Canonical: two equal policies have equal dicts."""
        return {
            "thresholds": dict(self.thresholds),
            "chain_thresholds": dict(self.chain_thresholds),
            "required_stage": self.required_stage,
            "valid_blocks": self.valid_blocks,
            "witnesses": self.witnesses,
            "voting_period": self.voting_period,
            "timelock": self.timelock,
            "power": self.power,
        }

    @staticmethod
    def from_dict(raw: t.Mapping[str, t.Any] | None) -> Policy:
        """Raises InputError naming the key that is unknown or of the wrong kind."""
        given = {name: value for name, value in (raw or {}).items() if value is not None}
        unknown = sorted(set(given) - {field.name for field in dataclasses.fields(Policy)})
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(Policy))
            raise InputError(f"policy: unknown key {unknown[0]!r}; known: {known}", unknown=unknown)
        for name in ("thresholds", "chain_thresholds"):
            given[name] = _thresholds(name, given.get(name) or {})
        stage = given.setdefault("required_stage", APPROVED)
        if stage not in (APPROVED, EXECUTED):
            raise InputError(f"policy.required_stage is {stage!r}; expected {APPROVED} or {EXECUTED}")
        power = given.setdefault("power", LESSER)
        if power not in (LESSER, DECLARED):
            raise InputError(f"policy.power is {power!r}; expected {LESSER} or {DECLARED}")
        for name, least, default in (("valid_blocks", 1, 1000), ("voting_period", 0, 0), ("timelock", 0, 0), ("witnesses", 0, 0)):
            value = given.setdefault(name, default)
            if value.__class__ is not int or value < least:
                what = "readers" if name == "witnesses" else "blocks"
                raise InputError(f"policy.{name} is {value!r}; expected a number of {what}, {least} or more")
        return Policy(**given)


def _thresholds(where: str, values: t.Any) -> dict[str, t.Any]:
    if not isinstance(values, dict):
        raise InputError(f"policy.{where} must be a dictionary of thresholds")
    for name, value in values.items():
        if name not in THRESHOLDS:
            raise InputError(f"policy.{where}: unknown threshold {name!r}; known: {', '.join(THRESHOLDS)}")
        whole = name in ("min_voters", "min_code_reviewers")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < 0:
            raise InputError(f"policy.{where}.{name} is {value!r}; expected a {'whole ' if whole else ''}number, 0 or more")
    return dict(values)
