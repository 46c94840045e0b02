# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Activation: what the chain's executed proposals made of a feature, and which nodes have it so.

``history`` and ``judge`` are pure; ``ask`` is the effect. A node may have a feature active without any proposal (an administrator
can switch it on that node alone), or not have it although the chain does (XAI nodes that don't mine take an execution in only
with a later reorganisation or a restart): both are named, and neither is taken for the other without saying so.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import typing as t

from .._chain.protocol import ChainAdapter, FeatureState, NodeClient, require_distinct
from .._core.errors import ChainopsError
from . import model, tally
from .model import Record, Thresholds
from .tally import ChainRule, Tally

#: Nodes asked at the same time.
MAX_THREADS = 32


@dataclasses.dataclass(frozen=True)
class Step:
    """An execution that set the feature. ``in_effect``: it is the last one, so that its value is the one in force.

    ``rolled_back``: a rollback of the proposal stands on the chain. That takes nothing back.
    """

    proposal_id: str
    txid: str
    height: int
    before: t.Any
    value: t.Any
    rolled_back: bool
    in_effect: bool

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class History:
    """All that the chain did to a feature or threshold. ``kind`` is None for a name that the chain doesn't know."""

    name: str
    kind: str | None
    start: t.Any
    value: t.Any
    steps: tuple[Step, ...]

    @property
    def expected(self) -> bool | None:
        """Whether every node that follows the chain has the feature active; None for what isn't a feature."""
        return bool(self.value) if self.kind == tally.FEATURE else None

    @property
    def by(self) -> str | None:
        """The proposal whose execution made it what it is; None where it is as the chain began."""
        return self.steps[-1].proposal_id if self.steps else None


@dataclasses.dataclass(frozen=True)
class Node:
    """Where to ask."""

    name: str
    api_url: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one node said; ``state`` None with ``problem`` None means that it was reached and doesn't tell."""

    name: str
    state: FeatureState | None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Both "everywhere" are about nodes and chain at once: a node that only hasn't followed yet turns at its next restart."""

    inactive_everywhere: bool
    active_everywhere: bool
    toggled_without_proposal: tuple[str, ...]
    not_followed: tuple[str, ...]
    unknown: tuple[str, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, t.Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}


def history(records: t.Sequence[Record], name: str, thresholds: Thresholds | None = None) -> History:
    """What executed proposals did to ``name``, from governance records in chain order (those of other proposals included)."""
    rule = ChainRule(thresholds or Thresholds())
    start = _value(rule, name)
    rolled_back = set()
    for record in records:
        if rule.apply(record) is None and record.kind == model.ROLLBACK:
            rolled_back.add(record.subject)
    effects = [effect for effect in rule.effects if effect.name == name]
    steps = tuple(
        Step(
            proposal_id=effect.record.subject,
            txid=effect.record.txid,
            height=effect.record.height,
            before=effect.before,
            value=effect.value,
            rolled_back=effect.record.subject in rolled_back,
            in_effect=effect is effects[-1],
        )
        for effect in effects
    )
    kind = tally.FEATURE if name in tally.FEATURES else tally.THRESHOLD if name in model.THRESHOLDS else None
    return History(name, kind, start, _value(rule, name), steps)


def _value(rule: ChainRule, name: str) -> t.Any:
    return rule.features.get(name, getattr(rule.thresholds, name) if name in model.THRESHOLDS else None)


def relevant(records: t.Sequence[Record], name: str, *more: str) -> tuple[Record, ...]:
    """The records that ``history`` depends on: of proposals that could set it, and of those that could change thresholds; and
    those of the proposals in ``more``."""
    wanted = {record.subject for record in records if _could_set(record, name) or tally.may_change_thresholds(record)}
    wanted.update(more)
    return tuple(record for record in records if isinstance(record.subject, str) and record.subject in wanted)


def _could_set(record: Record, name: str) -> bool:
    if record.kind != model.PROPOSAL or not isinstance(record.subject, str):
        return False
    kind, payload = tally.proposed(record)
    return kind == "feature_activation" and payload.get("feature_name") == name


# --- verdict --------------------------------------------------------------------------------------------------------------


def judge(
    found: History | None,
    answers: t.Sequence[Answer],
    *,
    own: Tally | None = None,
    height: int | None = None,
    problems: t.Sequence[str] = (),
) -> tuple[list[dict[str, t.Any]], Verdict]:
    """Every node as it is and as it should be, and the verdict on all of them.

    ``found`` is None where the readers don't agree; ``problems`` says why. ``own`` is the tally of the proposal that is meant
    to activate the feature, and ``height`` how far the chain was read.
    """
    expected = found.expected if found is not None else None
    wrong = [*problems, *(_not_a_feature(found)), *(_own_problems(found, own))]
    unproven = _unproven(found, own)
    toggled: list[str] = []
    behind: list[str] = []
    unknown: list[str] = []
    reasons: list[str] = []
    notes: list[str] = []
    nodes = []
    for answer in answers:
        active = answer.state.enabled if answer.state is not None else None
        problem = None
        if active is None:
            problem = answer.problem or "does not tell whether it is active"
            unknown.append(answer.name)
        elif found is not None and expected is not None and active is not expected:
            followed, problem = _departure(found, active, height)
            (behind if followed else toggled).append(answer.name)
        if problem is not None:
            reasons.append(f"{answer.name}: {problem}")
        if answer.state is not None and active and answer.state.configured is False:
            notes.append(f"{answer.name}: governance has it active, but this node's own configuration keeps it from running")
        nodes.append(
            {
                "name": answer.name,
                "active": active,
                "expected": expected,
                "by": found.by if found is not None and active is not None and active is expected else None,
                "configured": answer.state.configured if answer.state is not None else None,
                "problem": problem,
            }
        )
    for step in found.steps if found is not None else ():
        if step.rolled_back and step.in_effect:
            notes.append(
                f"proposal {step.proposal_id!r} was rolled back and is still in effect: a rollback only marks it, and to revert "
                "takes a proposal of its own"
            )
    clean = bool(answers) and not (wrong or reasons)
    verdict = Verdict(
        inactive_everywhere=clean and expected is False,
        active_everywhere=clean and expected is True and unproven is None,
        toggled_without_proposal=tuple(toggled),
        not_followed=tuple(behind),
        unknown=tuple(unknown),
        reasons=(*wrong, *([unproven] if unproven is not None else []), *reasons),
        notes=tuple(notes),
    )
    return nodes, verdict


def _not_a_feature(found: History | None) -> list[str]:
    if found is None or found.kind == tally.FEATURE:
        return []
    if found.kind == tally.THRESHOLD:
        return [f"{found.name!r} is a threshold, which is {found.value!r}; no node tells what it has"]
    return [f"the chain knows no feature {found.name!r} and does nothing about it; it knows {', '.join(sorted(tally.FEATURES))}"]


def _own_problems(found: History | None, own: Tally | None) -> list[str]:
    """What is wrong with the proposal that is said to activate the feature. Not to be there yet is fine."""
    if found is None or own is None or own.submission is None:
        return []
    kind, payload = tally.proposed(own.submission)
    if kind != "feature_activation" or payload.get("feature_name") != found.name:
        return [f"proposal {own.proposal_id!r} is not about {found.name!r}"]
    if not payload.get("enabled", True):
        return [f"proposal {own.proposal_id!r} switches {found.name!r} off, it does not activate it"]
    return []


def _unproven(found: History | None, own: Tally | None) -> str | None:
    """Active by the chain, but not by an executed proposal, or not by the one that was meant to."""
    if found is None or own is None or not found.expected:
        return None
    if any(step.proposal_id == own.proposal_id and step.value for step in found.steps):
        return None
    how = f"by proposal {found.by!r}" if found.by is not None else "since the chain began"
    return f"{found.name} is active {how}; proposal {own.proposal_id!r}, which was to activate it, never did ({own.stage})"


def _departure(found: History, active: bool, height: int | None) -> tuple[bool, str]:
    """Whether the node may just not have followed the chain, and in words what is wrong with it."""
    word, other = ("active", "inactive") if active else ("inactive", "active")
    read = "" if height is None else f" (as read up to height {height})"
    earlier = [bool(found.start), *(bool(step.value) for step in found.steps[:-1])]
    if not found.steps or active not in earlier:
        return False, f"has it {word}, and no executed proposal made it so{read}: it was switched on this node alone"
    last = found.steps[-1]
    return True, (
        f"has it {word}, but proposal {last.proposal_id!r} made it {other} at height {last.height}: it has not followed, and "
        "would at a restart; or it was switched back on this node alone"
    )


# --- effects --------------------------------------------------------------------------------------------------------------


def ask(adapter: ChainAdapter, nodes: t.Sequence[Node], name: str, *, timeout: float = 10.0) -> list[Answer]:
    """Ask all nodes at the same time. What can't be asked is data. Raises InputError for what is no URL."""
    require_distinct(nodes)
    clients = [adapter.client(node.api_url, timeout=timeout) for node in nodes]

    def one(node: Node, client: NodeClient) -> Answer:
        try:
            return Answer(node.name, client.feature(name))
        except ChainopsError as exc:
            return Answer(node.name, None, exc.message)
        finally:
            client.close()

    with concurrent.futures.ThreadPoolExecutor(max_workers=min(len(nodes), MAX_THREADS)) as pool:
        return list(pool.map(one, nodes, clients))
