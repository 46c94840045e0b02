# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host believes of its own, whoever asks it: a policy that stands on the host and that no proof brings along.

``/etc/chainops/<instance>/gate.json``, all keys optional::

    {"chain_thresholds": {...},                      what the chain's rule starts from; XAI's numbers where left out
     "policy": {...},                                the least that a proof's policy must ask for, spelled like the policy itself
     "approvals": {"required": 2, "names": [...]},   people who must have signed, beside the chain's approval
     "break_glass": false}                           whether people may open the gate where the chain leaves it closed

``/etc/chainops/<instance>/allowed_signers`` says whose keys are whose; see ssh-keygen(1). Both belong to root, or to whoever
the engine runs as, and nobody else can write there. What can't be read, or could have been written by others, refuses everything.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._core import canonical
from .._core.errors import InputError, IntegrityError, Refused
from . import approval, breakglass, model
from .approval import Carried, Demand
from .model import Policy
from .tally import Tally

DIRECTORY = "/etc/chainops"
POLICY = "gate.json"
SIGNERS = "allowed_signers"

_KEYS = ("chain_thresholds", "policy", "approvals", "break_glass")


# --- is a policy as strict as another? ------------------------------------------------------------------------------------

_AT_LEAST = "at least"
_AT_MOST = "at most"

#: What makes a policy stricter, by field: a higher number, a lower one, or a later one of these words.
STRICTNESS: t.Mapping[str, str | tuple[str, ...]] = {
    "min_voters": _AT_LEAST,
    "approval_percent": _AT_LEAST,
    "max_individual_power_percent": _AT_MOST,
    "min_code_reviewers": _AT_LEAST,
    "implementation_approval_percent": _AT_LEAST,
    "review_approval_percent": _AT_LEAST,
    "required_stage": (model.APPROVED, model.EXECUTED),
    "valid_blocks": _AT_MOST,
    "witnesses": _AT_LEAST,
    "voting_period": _AT_LEAST,
    "timelock": _AT_LEAST,
    "power": ("declared", "lesser"),
}


def softer(asked: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any]) -> list[str]:
    """Where ``given`` is softer than ``asked``, both as ``flat`` gives them. What ``asked`` doesn't have is left alone."""
    found = []
    for name, wanted in asked.items():
        rule, have = STRICTNESS.get(name), given.get(name)
        if rule is None:
            found.append(f"{name} can't be compared by this version")
        elif not _as_strict(rule, wanted, have):
            words = f"{rule} {wanted}" if isinstance(rule, str) else f"{wanted} or stricter"
            found.append(f"{name} is {have}, this host asks for {words}")
    return found


def _as_strict(rule: str | tuple[str, ...], wanted: t.Any, have: t.Any) -> bool:
    if isinstance(rule, tuple):
        return have in rule and wanted in rule and rule.index(have) >= rule.index(wanted)
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in (wanted, have)):
        return False
    return bool(have >= wanted) if rule == _AT_LEAST else bool(have <= wanted)


def flat(policy: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A policy's fields on one level, thresholds among the others; those without a value left out."""
    fields = {name: value for name, value in policy.items() if name not in ("thresholds", "chain_thresholds")}
    return {name: value for name, value in {**fields, **(policy.get("thresholds") or {})}.items() if value is not None}


# --- the files ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class HostGate:
    """What stands on the host; as it is here, nothing. ``signers`` is what allowed_signers holds, None where there is none."""

    path: str = os.path.join(DIRECTORY, "INSTANCE", POLICY)
    chain_thresholds: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    policy: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)  # only what the file says
    approvals: Demand = dataclasses.field(default_factory=Demand)
    break_glass: bool = False
    signers: bytes | None = None

    def policy_problems(self, policy: Policy, result: Tally) -> list[str]:
        """Where a proof asks for less than this host. Compared are the thresholds that the proof really counted with."""
        given = flat({**policy.as_dict(), "thresholds": result.policy_thresholds.as_dict()})
        return [f"its policy is softer than {self.path}: {text}" for text in softer(flat(self.policy), given)]

    def approval_problems(self, text: str, given: Carried | None) -> list[str]:
        """Whether the people this host asks for have signed exactly this statement, by this host's own list of keys."""
        if not self.approvals.required:
            return []
        return self._signed(text, given, approval.APPROVAL, self.approvals, "approvals")

    def break_glass_problems(self, text: str, given: Carried) -> list[str]:
        """The same for a break-glass, which a host takes only if it was told to."""
        if not self.break_glass:
            return [f"it is a break-glass, which this host takes from nobody: {self.path} does not say so"]
        asked = breakglass.demand(Demand(), self.approvals)
        return self._signed(text, given, approval.BREAK_GLASS, asked, "break-glass approvals")

    def _signed(self, text: str, given: Carried | None, namespace: str, asked: Demand, what: str) -> list[str]:
        if self.signers is None:
            where = os.path.join(os.path.dirname(self.path), SIGNERS)
            return [f"{self.path} asks for {asked.required} {what}, but there is no {where} to know people by"]
        if given is not None and given.statement != text:
            return [f"the {what} it carries are for something else: {given.statement.strip()[:400]}"]
        checked = approval.verify(text, namespace, given.signatures, self.signers) if given is not None else []
        verdict = approval.decide(asked, checked, what)
        return [f"{reason} (this host's own count)" for reason in verdict.reasons]


def load(instance: str, directory: str = DIRECTORY) -> HostGate:
    """What this host has for an instance. Raises Refused for what is broken, or could have been written by anybody else."""
    home = os.path.join(directory, instance)
    path = os.path.join(home, POLICY)
    for parent in (directory, home):
        try:
            _require_own(os.stat(parent), parent, stat.S_ISDIR, "a directory")
        except FileNotFoundError:
            return HostGate(path)
        except OSError as exc:
            raise _refused(parent, f"can't be looked at: {exc.strerror}") from exc
    raw = _read(path)
    if raw is None:
        return HostGate(path)
    try:
        return _parse(canonical.loads(raw, path), path, _read(os.path.join(home, SIGNERS)))
    except (InputError, IntegrityError) as exc:
        raise _refused(path, f"says what can't be: {exc.message}") from exc


def _parse(said: t.Any, path: str, signers: bytes | None) -> HostGate:
    if not isinstance(said, dict):
        raise InputError("it must be a JSON object")
    unknown = sorted(set(said) - set(_KEYS))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; known: {', '.join(_KEYS)}")
    policy = said.get("policy", {})
    if not isinstance(policy, dict) or "chain_thresholds" in policy:
        raise InputError("policy must be an object, and chain_thresholds stands beside it, not in it")
    checked = Policy.from_dict({**policy, "chain_thresholds": said.get("chain_thresholds", {})})
    incomparable = sorted(set(flat(policy)) - set(STRICTNESS))
    if incomparable:
        raise InputError(f"policy.{incomparable[0]} can't be compared with a proof's")
    glass = said.get("break_glass", False)
    if not isinstance(glass, bool):
        raise InputError(f"break_glass is {glass!r}; expected true or false")
    return HostGate(
        path,
        chain_thresholds=checked.chain_thresholds,
        policy=policy,
        approvals=Demand.from_dict(said.get("approvals", {})),
        break_glass=glass,
        signers=signers,
    )


def _read(path: str) -> bytes | None:
    """A file's content, None where there is none. Looked at and read through one descriptor: nothing changes in between."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        link = ": it is a symbolic link" if os.path.islink(path) else f": {exc.strerror}"
        raise _refused(path, f"can't be read{link}") from exc
    try:
        _require_own(os.fstat(handle), path, stat.S_ISREG, "a file")
        with os.fdopen(handle, "rb", closefd=False) as stream:
            data = stream.read(approval.MAX_SIGNERS + 1)
    finally:
        os.close(handle)
    if len(data) > approval.MAX_SIGNERS:
        raise _refused(path, f"is larger than {approval.MAX_SIGNERS} bytes")
    return data


def _require_own(facts: os.stat_result, path: str, right: t.Callable[[int], bool], what: str) -> None:
    if not right(facts.st_mode):
        raise _refused(path, f"is not {what}")
    if facts.st_uid not in (0, os.geteuid()):
        raise _refused(path, f"belongs to uid {facts.st_uid}, not to root or to uid {os.geteuid()}, which this runs as")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _refused(path, f"can be written by others than its owner (mode {stat.S_IMODE(facts.st_mode):04o}): chmod go-w it")


def _refused(path: str, why: str) -> Refused:
    return Refused(f"{path} {why}; while it is so, this host refuses every proof", path=path)
