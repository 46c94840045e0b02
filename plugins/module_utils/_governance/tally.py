# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tally: the chain's own rule, recomputed, and our policy on top. Pure: records in, verdict out.

The chain's rule is XAI's (``GovernanceState`` and its execution engine), oddities included: the cap on a single voter's share
rejects instead of clipping, ``no`` power is not capped, abstentions count for nothing, whoever ever voted yes may approve the
implementation, and a re-submitted id keeps its votes. It adds powers as floats in the order in which addresses first
voted; so do we. The node's status field is sticky and wrong after the first change of mind, so nothing here looks at it.

Our policy counts again, with exact arithmetic: the last vote of each address, whatever its spelling; what was withdrawn is
withdrawn; powers below zero, of zero, or that aren't numbers carry nobody; nothing counts after execution or rollback; a second
submission under the same id voids it. Where the policy asks for witnesses, it counts once more with what lacks them counted
against, and both must do. The gate is open only when both, the chain's rule and our policy, say yes.
"""

from __future__ import annotations

import dataclasses
import fractions
import functools
import math
import operator
import types
import typing as t

from .._core import canonical
from . import model, witness
from .model import Policy, Record, Thresholds

#: Thresholds that a passed ``protocol_parameter`` proposal may set, and the range the chain allows.
PARAMETER_RANGES = {"min_voters": (100, 10000), "approval_percent": (51, 90)}

#: Thresholds that a passed ``modify_governance_rules`` proposal may set; the chain checks no range there.
_RULES = (
    "min_voters",
    "approval_percent",
    "max_individual_power_percent",
    "min_code_reviewers",
    "implementation_approval_percent",
)

#: Features that a passed ``feature_activation`` proposal may switch, and how an XAI node starts with them.
FEATURES = types.MappingProxyType(
    {
        "airdrops": True,
        "treasure_hunts": True,
        "time_capsules": True,
        "mining_bonuses": True,
        "social_bonuses": True,
        "fee_refunds": True,
        "ai_development_pool": True,
        "exchange": True,
        "social_recovery": True,
        "token_burning": True,
        "smart_contracts": False,
    }
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One condition. ``text`` says what there is and what is needed, with numbers."""

    name: str
    ok: bool
    text: str
    have: float | None = None
    need: float | None = None

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Count:
    """The result of counting once: by the chain's rule, or by our policy."""

    voting: tuple[Check, ...]
    reviews: tuple[Check, ...]
    implementation: tuple[Check, ...]

    @property
    def stage(self) -> str:
        """The furthest stage whose conditions, and those before it, all hold."""
        reached = model.PROPOSED
        for checks, stage in (
            (self.voting, model.VOTED),
            (self.reviews, model.REVIEWED),
            (self.implementation, model.APPROVED),
        ):
            if not all(check.ok for check in checks):
                break
            reached = stage
        return reached

    @property
    def ok(self) -> bool:
        return self.stage == model.APPROVED

    def missing(self) -> list[str]:
        return [check.text for check in (*self.voting, *self.reviews, *self.implementation) if not check.ok]

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "ok": self.ok,
            "stage": self.stage,
            "checks": [check.as_dict() for check in (*self.voting, *self.reviews, *self.implementation)],
        }


#: What a payload's activation height is called among what is waited for.
ACTIVATION = "activation height"


@dataclasses.dataclass(frozen=True)
class Wait:
    """What comes by itself. ``why`` is what it takes in words; ``seconds`` is an estimate, None without one."""

    what: str
    why: str
    until_height: int
    blocks_left: int
    seconds: float | None

    @staticmethod
    def until(what: str, why: str, height: int, now: int, pace: float | None) -> Wait:
        """``now`` is the height that was read, ``pace`` the mean seconds between blocks."""
        left = height - now
        return Wait(what, why, height, left, round(left * pace, 1) if pace is not None and pace > 0 else None)

    @property
    def text(self) -> str:
        eta = "" if self.seconds is None else f", about {self.seconds:.0f} s"
        return f"{self.why} {self.blocks_left} blocks away{eta}"

    def as_dict(self) -> dict[str, t.Any]:
        shown = dataclasses.asdict(self)
        del shown["why"]
        return shown


@dataclasses.dataclass(frozen=True)
class Tally:
    """Everything that follows from a proposal's records. ``chain`` and ``policy`` are None for a proposal that isn't there.

    ``approved_height`` is since when our count has held without a break, as far as the timelock wants it known.
    """

    proposal_id: str
    stage: str
    submission: Record | None
    payload: t.Any
    executed: Record | None
    rolled_back: Record | None
    chain: Count | None
    policy: Count | None
    chain_thresholds: Thresholds
    policy_thresholds: Thresholds
    threshold_changes: tuple[str, ...]
    account: Account
    notes: tuple[str, ...]
    blocking: tuple[str, ...]  # reasons that close the gate whatever the numbers
    timed: bool  # whether the height was known, which voting period and timelock need
    approved_height: int | None
    waits: tuple[Wait, ...]

    @property
    def votes(self) -> list[dict[str, t.Any]]:
        """The vote of each address that counts for us."""
        return [self.account.entry(who, record) for who, record in self.account.votes.items()]

    @property
    def reviews(self) -> list[dict[str, t.Any]]:
        return [self.account.entry(who, record) for who, record in self.account.reviews.items()]

    @property
    def implementation(self) -> list[dict[str, t.Any]]:
        return [self.account.entry(who, record) for who, record in self.account.implementation.items()]

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "stage": self.stage,
            "chain": None if self.chain is None else self.chain.as_dict(),
            "policy": None if self.policy is None else self.policy.as_dict(),
            "thresholds": {
                "chain": self.chain_thresholds.as_dict(),
                "policy": self.policy_thresholds.as_dict(),
                "changed_by": list(self.threshold_changes),
            },
            "votes": self.votes,
            "reviews": self.reviews,
            "implementation": self.implementation,
            "approved_height": self.approved_height,
            "waits": [wait.as_dict() for wait in self.waits],
            "notes": list(self.notes),
        }


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Open or not. Every reason of a closed gate says what is missing, and by how much.

    ``break_glass`` is there only where people opened a gate that the chain leaves closed.
    """

    open: bool
    stage: str
    reasons: tuple[str, ...]
    break_glass: t.Mapping[str, t.Any] | None = None

    def as_dict(self) -> dict[str, t.Any]:
        said: dict[str, t.Any] = {"open": self.open, "stage": self.stage, "reasons": list(self.reasons)}
        if self.break_glass is not None:
            said["break_glass"] = dict(self.break_glass)
        return said


# --- the chain's own rule -------------------------------------------------------------------------------------------------


class _Proposal:
    """What the chain holds for one id."""

    def __init__(self) -> None:
        self.payload: t.Any = {}
        self.kind: t.Any = None
        self.votes: dict[str, Record] = {}  # the last of each address
        self.ever_yes: set[str] = set()
        self.reviews: dict[str, tuple[t.Any, t.Any]] = {}
        self.implementation: dict[str, t.Any] = {}
        self.count: Count | None = None  # of what is there now; forgotten with every change


@dataclasses.dataclass(frozen=True)
class Effect:
    """What an execution did: ``record`` set feature or threshold ``name`` to ``value``; it was ``before``."""

    record: Record
    kind: str  # FEATURE or THRESHOLD
    name: str
    before: t.Any
    value: t.Any


FEATURE, THRESHOLD = "feature", "threshold"


class ChainRule:
    """The chain's governance, replayed record by record. ``thresholds`` and ``features`` are those in force now."""

    def __init__(self, thresholds: Thresholds, declared: _Declared | None = None) -> None:
        self.thresholds = thresholds
        self._declared = declared or _Declared()
        self.features: dict[str, t.Any] = dict(FEATURES)
        self.effects: list[Effect] = []
        self.changes: list[tuple[Record, str]] = []
        self._proposals: dict[str, _Proposal] = {}

    def apply(self, record: Record) -> str | None:
        """None when the chain takes it, else why it does nothing with it."""
        subject, kind, data = record.subject, record.kind, record.metadata
        if not isinstance(subject, str) or not subject:
            return "its proposal id is not a text"
        proposal = self._proposals.get(subject)
        if kind == model.VOTE and proposal is not None:
            self.cast([record])
            return None
        if kind == model.PROPOSAL:
            return self._submit(subject, data)
        if proposal is None:
            return "there is no such proposal at that height"
        if kind == model.EXECUTION:
            return self._execute(proposal, record)
        proposal.count = None
        if kind == model.REVIEW:
            proposal.reviews[record.sender] = (data.get("approved"), data.get("voting_power", 0))
        elif kind == model.IMPLEMENTATION:
            if record.sender not in proposal.ever_yes:
                return "its sender never voted yes"
            proposal.implementation[record.sender] = data.get("approved", False)
        return None

    def cast(self, votes: t.Sequence[Record]) -> None:
        """The same as ``apply`` for each of these votes on one proposal that is there, in a fraction of the time."""
        proposal = self._proposals[votes[0].subject]
        proposal.count = None
        proposal.votes.update(zip([record.sender for record in votes], votes))
        proposal.ever_yes.update([record.sender for record in votes if record.metadata.get("vote") == "yes"])

    def count(self, proposal_id: str) -> Count:
        """The chain's conditions for execution, as they stand."""
        return self._count(self._proposals.get(proposal_id) or _Proposal())

    def _submit(self, subject: str, data: t.Mapping[str, t.Any]) -> str | None:
        missing = [name for name in ("title", "description", "proposal_type") if name not in data]
        if missing:
            return f"it lacks {', '.join(missing)}"
        everything = {name: value for name, value in data.items() if name not in ("type", "timestamp")}
        proposal = self._proposals.setdefault(subject, _Proposal())
        proposal.kind = data["proposal_type"]
        proposal.payload = data.get("proposal_payload", everything) or {}
        proposal.count = None
        return None

    def _count(self, proposal: _Proposal) -> Count:
        if proposal.count is None:
            proposal.count = _chain_count(proposal, self.thresholds, self._declared)
        return proposal.count

    def _execute(self, proposal: _Proposal, record: Record) -> str | None:
        count = self._count(proposal)
        if not count.ok:
            return "; ".join(count.missing())
        payload = record.metadata.get("proposal_payload") or proposal.payload
        if canonical.digest(payload) != canonical.digest(proposal.payload):
            return "its payload is not the approved one"
        self._take_effect(proposal, record)
        return None

    def _take_effect(self, proposal: _Proposal, record: Record) -> None:
        """Executed proposals may switch features and change the very thresholds; what else they do is not in the replay."""
        payload = proposal.payload
        if not isinstance(payload, dict):
            return
        kind, value = payload.get("proposal_type", proposal.kind), payload.get("new_value")
        if kind == "feature_activation":
            feature = payload.get("feature_name")
            if isinstance(feature, str) and feature in self.features:  # the chain knows no other, and does nothing about them
                enabled = payload.get("enabled", True)
                self.effects.append(Effect(record, FEATURE, feature, self.features[feature], enabled))
                self.features[feature] = enabled
            return
        name = None
        if kind == "protocol_parameter":
            if threshold_in_range(str(payload.get("parameter")), value):
                name = str(payload.get("parameter"))
        elif kind == "modify_governance_rules" and payload.get("rule_name") in _RULES:
            name = str(payload.get("rule_name"))
        if name is not None:
            self.effects.append(Effect(record, THRESHOLD, name, getattr(self.thresholds, name), value))
            self.thresholds = self.thresholds.changed({name: value})
            self.changes.append((record, f"{name} became {value!r} at height {record.height} by proposal {record.subject!r}"))
            for other in self._proposals.values():
                other.count = None


def threshold_in_range(name: str, value: t.Any) -> bool:
    """Whether a ``protocol_parameter`` proposal could set a threshold to this."""
    lowest, highest = PARAMETER_RANGES.get(name, (1, 0))
    return isinstance(value, int) and lowest <= value <= highest


def proposed(submission: Record) -> tuple[t.Any, t.Mapping[str, t.Any]]:
    """Type and payload of a submission as the chain takes them: a ``proposal_type`` in the payload goes before its own."""
    data = submission.metadata
    payload = data.get("proposal_payload", data)
    if not isinstance(payload, dict):
        payload = {}
    return payload.get("proposal_type", data.get("proposal_type")), payload


def may_change_thresholds(record: Record) -> bool:
    """Whether a submission, once executed, could change thresholds."""
    named = isinstance(record.subject, str) and record.kind == model.PROPOSAL
    return named and proposed(record)[0] in ("protocol_parameter", "modify_governance_rules")


def _chain_count(proposal: _Proposal, needed: Thresholds, declared: _Declared) -> Count:
    try:
        return Count(
            _chain_voting(declared.powers(proposal.votes.values()), needed),
            _chain_reviews(proposal.reviews, needed),
            _chain_implementation(proposal, needed),
        )
    except (TypeError, OverflowError, ValueError) as exc:
        # A power or threshold that is not a number: the node's own code fails there, so nobody can say what it decides.
        broken = (Check("chain_rule", False, f"the chain's own rule can't be computed for what was voted: {exc}"),)
        return Count(broken, broken, broken)


def _fold(values: t.Iterable[t.Any]) -> t.Any:
    """Plain addition from left to right, which is what Python before 3.12 does in ``sum``; later ones compensate floats."""
    return functools.reduce(operator.add, values, 0)


class _Declared:
    """Powers as they are declared, of yes and of no. Chain and policy mostly ask about the very same votes: looked at once."""

    def __init__(self) -> None:
        self._votes: list[Record] = []
        self._powers: tuple[list[t.Any], list[t.Any]] = [], []

    def powers(self, votes: t.Iterable[Record]) -> tuple[list[t.Any], list[t.Any]]:
        records = list(votes)
        if records != self._votes:
            said = [record.metadata for record in records]
            yes, no = ([one.get("voting_power", 0) for one in said if one.get("vote") == word] for word in ("yes", "no"))
            self._votes, self._powers = records, (yes, no)
        return self._powers


def _chain_voting(declared: tuple[list[t.Any], list[t.Any]], needed: Thresholds) -> tuple[Check, ...]:
    yes_powers, no_powers = declared
    yes = _fold(yes_powers)
    total = yes + _fold(no_powers)
    approval = float(yes / total * 100) if total > 0 else 0.0
    # The share grows with the power, so that the largest decides for all.
    share = float(max(yes_powers) / yes * 100) if yes > 0 else 0.0
    return _voting_checks(len(yes_powers), approval, share, needed)


def _chain_reviews(reviews: t.Mapping[str, tuple[t.Any, t.Any]], needed: Thresholds) -> tuple[Check, ...]:
    total = _fold(power for _approved, power in reviews.values())
    approving = _fold(power for approved, power in reviews.values() if approved)
    approval = float(approving / total * 100) if total > 0 else 0.0
    return _review_checks(len(reviews), approval, needed)


def _chain_implementation(proposal: _Proposal, needed: Thresholds) -> tuple[Check, ...]:
    ever_yes = proposal.ever_yes
    voters = len(ever_yes)
    required = int(voters * (needed.implementation_approval_percent / 100))
    given = sum(1 for sender, approved in proposal.implementation.items() if approved and sender in ever_yes)
    return (_implementation_check(given, required, voters, voters > 0 and given >= required),)


# --- conditions, in words -------------------------------------------------------------------------------------------------


def _voting_checks(
    voters: int, approval: float | fractions.Fraction, share: float | fractions.Fraction, needed: Thresholds
) -> tuple[Check, ...]:
    enough, most = needed.approval_percent, needed.max_individual_power_percent
    return (
        Check(
            "yes_voters",
            voters >= needed.min_voters,
            f"{voters} of {needed.min_voters} yes voters",
            voters,
            needed.min_voters,
        ),
        Check(
            "yes_power",
            approval >= enough,
            f"{_percent(approval, enough)} of {enough} % of the voting power says yes",
            float(approval),
            enough,
        ),
        Check(
            "individual_power",
            share <= most,
            f"the strongest yes voter has {_percent(share, most)} of the yes power; at most {most} % is allowed",
            float(share),
            most,
        ),
    )


def _review_checks(reviewers: int, approval: float | fractions.Fraction, needed: Thresholds) -> tuple[Check, ...]:
    enough = needed.review_approval_percent
    return (
        Check(
            "code_reviewers",
            reviewers >= needed.min_code_reviewers,
            f"{reviewers} of {needed.min_code_reviewers} code reviewers",
            reviewers,
            needed.min_code_reviewers,
        ),
        Check(
            "review_power",
            approval >= enough,
            f"{_percent(approval, enough)} of {enough} % of the reviewing power approves the code",
            float(approval),
            enough,
        ),
    )


def _implementation_check(given: int, required: int, voters: int, ok: bool) -> Check:
    if voters == 0:
        return Check("implementation", ok, "no yes voter who could approve the implementation", given, required)
    return Check("implementation", ok, f"{given} of {required} implementation approvals, by {voters} yes voters", given, required)


def _percent(value: float | fractions.Fraction, limit: t.Any) -> str:
    """One decimal; more where one would hide on which side of the limit it is."""
    for digits in (1, 3, 6):
        text = f"{float(value):.{digits}f}"
        if value == limit or float(text) != limit:
            break
    return text + " %"


# --- our policy -----------------------------------------------------------------------------------------------------------


class Account:
    """What counts for us, up to the execution or the rollback: the last word of each address, whatever its spelling.

    ``held`` is what addresses (lower case) held at the pinned height, None where their declared power is believed.
    """

    def __init__(self, held: t.Mapping[str, float] | None = None, declared: _Declared | None = None) -> None:
        self.votes: dict[str, Record] = {}
        self.reviews: dict[str, Record] = {}
        self.implementation: dict[str, Record] = {}
        self._held = held
        self._declared = declared or _Declared()

    def take(self, record: Record) -> None:
        kind = record.kind
        if kind == model.VOTE:
            self.cast([record])
        elif kind == model.REVIEW:
            self.reviews[record.sender.lower()] = record
        elif kind == model.IMPLEMENTATION:
            self.implementation[record.sender.lower()] = record

    def cast(self, votes: t.Sequence[Record]) -> None:
        """The same as ``take`` for each of these votes."""
        self.votes.update(zip(map(str.lower, [record.sender for record in votes]), votes))

    def power(self, who: str, record: Record) -> int | float:
        """Of a vote or a review, as it counts for us."""
        declared = _power(record.metadata.get("voting_power", 0))
        return declared if self._held is None or not declared else min(declared, _power(self._held.get(who, 0)))

    def entry(self, who: str, record: Record) -> dict[str, t.Any]:
        """For people and for programs."""
        data = record.metadata
        entry: dict[str, t.Any] = {"address": record.sender, "height": record.height, "txid": record.txid}
        if record.kind == model.VOTE:
            entry["vote"] = _vote(data.get("vote"))
        else:
            entry["approved"] = data.get("approved") is True
        if record.kind != model.IMPLEMENTATION:
            entry["power"], entry["declared"] = self.power(who, record), _power(data.get("voting_power", 0))
        return entry

    def lesser(self) -> list[str]:
        """Where less counts than was declared."""
        found = []
        for who, record in (*self.votes.items(), *self.reviews.items()) if self._held is not None else ():
            power, declared = self.power(who, record), _power(record.metadata.get("voting_power", 0))
            if power < declared:
                found.append(f"{_name(record)} counts with {power}, which is what its sender holds; declared is {declared}")
        return found

    def _powers(self) -> tuple[list[int | float], list[int | float]]:
        """Of those who vote yes, and of those who vote no; not of those who carry nothing."""
        if self._held is None:
            yes, no = self._declared.powers(self.votes.values())
        else:
            yes, no = [], []
            for who, record in self.votes.items():
                vote = record.metadata.get("vote")
                if vote == "yes" or vote == "no":
                    (yes if vote == "yes" else no).append(self.power(who, record))
        return _powers(yes), _powers(no)

    def _carries(self, who: str) -> bool:
        """Whether an address votes yes, with some power."""
        vote = self.votes.get(who)
        return vote is not None and vote.metadata.get("vote") == "yes" and bool(self.power(who, vote))

    def count(self, needed: Thresholds) -> Count:
        yes_powers, no_powers = self._powers()
        yes = _exact_sum(yes_powers)
        total = yes + _exact_sum(no_powers)
        share = fractions.Fraction(max(yes_powers)) * 100 / yes if yes else fractions.Fraction(0)
        reviews = [
            (power, record.metadata.get("approved") is True)
            for power, record in ((self.power(who, record), record) for who, record in self.reviews.items())
            if power
        ]
        reviewing = _exact_sum(power for power, _approved in reviews)
        approving = _exact_sum(power for power, approved in reviews if approved)
        given = sum(1 for who, one in self.implementation.items() if one.metadata.get("approved") is True and self._carries(who))
        # The chain rounds down, to nothing for a single voter; at least one must have looked.
        required = max(1, math.floor(len(yes_powers) * fractions.Fraction(needed.implementation_approval_percent) / 100))
        return Count(
            _voting_checks(len(yes_powers), yes * 100 / total if total else fractions.Fraction(0), share, needed),
            _review_checks(len(reviews), approving * 100 / reviewing if reviewing else fractions.Fraction(0), needed),
            (_implementation_check(given, required, len(yes_powers), given >= required),),
        )


def _vote(value: t.Any) -> str:
    """``yes`` and ``no`` as the chain spells them; whatever else counts for nobody."""
    return value if value in ("yes", "no") else "abstain"


def _power(value: t.Any) -> int | float:
    """A power that counts: a number above zero, else 0."""
    return (_powers([value]) or [0])[0]


def _powers(values: t.Iterable[t.Any]) -> list[int | float]:
    """Those of them that count."""
    return [value for value in values if (value.__class__ is float or value.__class__ is int) and 0 < value < math.inf]


def _exact_sum(values: t.Iterable[int | float]) -> fractions.Fraction:
    """The sum without rounding."""
    values = list(values)
    floats = [value for value in values if value.__class__ is float]
    total = fractions.Fraction(sum(values) if not floats else sum([value for value in values if value.__class__ is int]))
    try:
        # What is rounded away is summed up in turn: to nothing, after two or three times.
        while rounded := math.fsum(floats):
            total += fractions.Fraction(rounded)
            floats.append(-rounded)
        return total
    except OverflowError:
        return sum(map(fractions.Fraction, values), fractions.Fraction())


# --- both together --------------------------------------------------------------------------------------------------------


def tally(
    records: t.Sequence[Record],
    proposal_id: str,
    policy: Policy,
    witnessed: t.Mapping[str, int] | None = None,
    *,
    held: t.Mapping[str, float] | None = None,
    height: int | None = None,
    pace: float | None = None,
) -> Tally:
    """Count a proposal from governance records in chain order (those of other proposals included: they may change thresholds).

    ``witnessed`` is how many readers held a content before it was mined, by its digest; matters where the policy asks for it.
    ``held`` is what voters and reviewers (in lower case) held at the pinned height, None where the chain can't tell. ``height``
    is up to where was read, ``pace`` the mean seconds between blocks: for voting period and timelock, which need the height.
    """
    declared = _Declared()
    rule = ChainRule(Thresholds().changed(policy.chain_thresholds), declared)
    believed = held if policy.power == model.LESSER else None
    account = Account(believed, declared)
    # What a restriction leaves out may have been a no: counted once more without, so that none ever opens what would be closed.
    plain = Account(None, declared) if believed is not None or policy.voting_period else None
    needed, witnesses = policy.witnesses, witnessed or {}
    vouched = Account(believed) if needed else None
    standing = _Standing(
        lambda: _ours(account, plain, vouched, needed, rule.thresholds.changed(policy.thresholds)), policy.timelock, height
    )
    late = policy.voting_period
    notes: list[str] = []
    blocking: list[str] = []
    submission: Record | None = None
    executed: Record | None = None
    rolled_back: Record | None = None
    payload: t.Any = None
    chain: Count | None = None
    simple = not (policy.timelock or late or needed)
    run: list[Record] = []
    for record in records:
        if (
            simple
            and record.kind == model.VOTE
            and record.subject == proposal_id
            and submission
            and not (executed or rolled_back)
        ):
            run.append(record)  # nothing to look at one by one: most of what there is
            continue
        if run:
            run = _cast(run, rule, account, plain)
        standing.before(record)
        kind, refusal = record.kind, rule.apply(record)
        if record.subject != proposal_id:
            continue
        over = rolled_back or executed
        if refusal is not None:
            notes.append(f"{_name(record)} does nothing: {refusal}")
        elif kind in model.VOICES:
            if over is not None:
                notes.append(f"{_name(record)} does not count: it came after {_name(over)}")
                continue
            if plain is not None:
                plain.take(record)
            if late and submission is not None and kind == model.VOTE and record.height > submission.height + late:
                notes.append(f"{_name(record)} does not count: the voting period ended at height {submission.height + late}")
                continue
            account.take(record)
            if vouched is not None:
                enough = witnesses.get(record.sha256, 0) >= needed
                vouched.take(record if enough else witness.doubted(record))
                if not enough:
                    notes.append(f"{_name(record)}: {witnesses.get(record.sha256, 0)} of {needed} witnesses")
        elif kind == model.PROPOSAL:
            if submission is None:
                submission, payload = record, _payload(record)
            else:
                blocking.append(
                    f"the id was submitted again at height {record.height} by {record.sender}, which replaces what was voted on: "
                    "it is void, use a new id"
                )
        elif kind == model.ROLLBACK and rolled_back is None:
            rolled_back = record
            stranger = submission is not None and record.sender.lower() != submission.sender.lower()
            blocking.append(
                f"rolled back at height {record.height} by {record.sender}" + (", who did not submit it" if stranger else "")
            )
        elif over is not None:
            notes.append(f"{_name(record)} does not count: it came after {_name(over)}")
        elif kind == model.EXECUTION:
            executed, chain = record, rule.count(proposal_id)
    _cast(run, rule, account, plain)
    in_force = rule.thresholds
    ours = in_force.changed(policy.thresholds)
    mine: Count | None = None
    if submission is not None:
        chain = chain or rule.count(proposal_id)
        mine = _ours(account, plain, vouched, needed, ours)
        if needed:
            mine = _submitted(mine, witnesses.get(submission.sha256, 0), needed)
    approved = standing.since() if mine is not None and mine.ok else None
    return Tally(
        proposal_id=proposal_id,
        stage=_stage(submission, executed, rolled_back, bool(blocking), chain, mine),
        submission=submission,
        payload=payload,
        executed=executed,
        rolled_back=rolled_back,
        chain=chain,
        policy=mine,
        chain_thresholds=in_force,
        policy_thresholds=ours,
        threshold_changes=tuple(text for _record, text in rule.changes),
        account=account,
        notes=(*notes, *account.lesser()),
        blocking=tuple(blocking),
        timed=height is not None,
        approved_height=approved,
        waits=tuple(_waits(policy, submission, approved, height, pace)),
    )


def _cast(votes: list[Record], rule: ChainRule, *accounts: Account | None) -> list[Record]:
    """Counts them, and leaves none."""
    if votes:
        rule.cast(votes)
        for account in accounts:
            if account is not None:
                account.cast(votes)
    return []


class _Standing:
    """Since when our count holds without a break, as far as a timelock of some blocks wants it known.

    Only states that reach into these blocks are counted: what was before them matters through what it led to.
    """

    def __init__(self, count: t.Callable[[], Count], timelock: int, height: int | None) -> None:
        self._count = count
        self._first = height - timelock if timelock and height is not None else None
        self._at: int | None = None
        self._since: int | None = None

    def before(self, record: Record) -> None:
        """Called ahead of each record: what stood until its block is over now."""
        if self._first is None:
            return
        if self._at is not None and record.height != self._at and record.height > self._first:
            self._look()
        self._at = record.height

    def _look(self) -> None:
        if not self._count().ok:
            self._since = None
        elif self._since is None:
            self._since = self._at

    def since(self) -> int | None:
        """None where nobody asked, or where it does not hold."""
        if self._first is not None and self._at is not None:
            self._look()
        return self._since


def _waits(
    policy: Policy, submission: Record | None, approved: int | None, height: int | None, pace: float | None
) -> t.Iterator[Wait]:
    if submission is None or height is None:
        return
    end = submission.height + policy.voting_period
    if policy.voting_period and height < end:
        why = f"the voting period of {policy.voting_period} blocks ends at height {end},"
        yield Wait.until("voting period", why, end, height, pace)
    if policy.timelock and approved is not None and height < approved + policy.timelock:
        end = approved + policy.timelock
        why = f"approved since height {approved}; the timelock of {policy.timelock} blocks ends at height {end},"
        yield Wait.until("timelock", why, end, height, pace)


def _ours(account: Account, plain: Account | None, vouched: Account | None, witnesses: int, needed: Thresholds) -> Count:
    """All counts as one, so that what was left out of one can only make it stricter."""
    try:
        count = account.count(needed)
        if plain is not None:
            words = ", where late votes and powers beyond what is held count, too"
            count = _stricter(count, plain.count(needed), words)
        if vouched is not None:
            words = f", where what fewer than {witnesses} readers held before it was mined counts against"
            count = _stricter(count, vouched.count(needed), words)
        return count
    except (TypeError, ValueError, OverflowError) as exc:
        broken = (Check("policy", False, f"a threshold in force can't be computed with: {exc}"),)
        return Count(broken, broken, broken)


def _stricter(one: Count, other: Count, words: str) -> Count:
    """Each condition as it is where it fails first; ``words`` are added where only the other one fails."""

    def both(ones: tuple[Check, ...], others: tuple[Check, ...]) -> tuple[Check, ...]:
        return tuple(
            dataclasses.replace(second, text=second.text + words) if first.ok and not second.ok else first
            for first, second in zip(ones, others)
        )

    return Count(both(one.voting, other.voting), both(one.reviews, other.reviews), both(one.implementation, other.implementation))


def _submitted(count: Count, readers: int, needed: int) -> Count:
    text = f"{readers} of {needed} readers held the submission before it was mined"
    return dataclasses.replace(count, voting=(*count.voting, Check("witnesses", readers >= needed, text, readers, needed)))


def _payload(record: Record) -> t.Any:
    data = record.metadata
    return data.get("proposal_payload", {name: value for name, value in data.items() if name not in ("type", "timestamp")}) or {}


def _stage(
    submission: Record | None,
    executed: Record | None,
    rolled_back: Record | None,
    void: bool,
    chain: Count | None,
    mine: Count | None,
) -> str:
    if submission is None or chain is None or mine is None:
        return model.ABSENT
    if rolled_back is not None:
        return model.ROLLED_BACK
    if void:
        return model.VOID
    if executed is not None:
        return model.EXECUTED
    order = (model.PROPOSED, model.VOTED, model.REVIEWED, model.APPROVED)
    return min(chain.stage, mine.stage, key=order.index)


def _name(record: Record) -> str:
    return f"{record.kind} {record.txid[:12]} by {record.sender} at height {record.height}"


def relevant(records: t.Sequence[Record], proposal_id: str) -> tuple[Record, ...]:
    """The records a tally of this proposal may depend on: its own, and those of proposals that could change thresholds."""
    wanted = {proposal_id, *(record.subject for record in records if may_change_thresholds(record))}
    return tuple(record for record in records if isinstance(record.subject, str) and record.subject in wanted)


def decide(result: Tally, policy: Policy, further: t.Sequence[str] = ()) -> Verdict:
    """Open only when the chain's rule and our policy both say yes. ``further`` are reasons from elsewhere (readers, binding)."""
    coming = [wait.text for wait in result.waits if wait.what == ACTIVATION]
    reasons = [*further, *result.blocking, *lacking(result, policy), *coming]
    return Verdict(not reasons, result.stage, tuple(reasons))


def lacking(result: Tally, policy: Policy) -> list[str]:
    """What the votes leave missing: all that a break-glass may stand in for."""
    if result.submission is None or result.chain is None or result.policy is None:
        what = f"there is no proposal {result.proposal_id!r} on the chain"
        return [f"{what} (one that was just submitted counts once its block is final, or has its confirmations)"]
    by_chain = result.chain.missing()
    reasons = [f"{text} (the chain's rule)" for text in by_chain]
    reasons.extend(f"{text} (policy)" for text in result.policy.missing() if text not in by_chain)
    if policy.required_stage == model.EXECUTED and result.executed is None:
        reasons.append("not executed, which the policy requires")
    if (policy.voting_period or policy.timelock) and not result.timed:
        reasons.append("voting period and timelock can't be told without the height up to which was read")
    reasons.extend(f"{wait.text} (policy)" for wait in result.waits if wait.what != ACTIVATION)
    return reasons
