# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second gate: what people say beside the chain, put together with what the chain says."""

from __future__ import annotations

import dataclasses
import typing as t

from .._core import canonical
from .._core.errors import InputError
from . import approval, binding, breakglass
from .approval import Demand, Glass, Signature
from .model import Policy
from .readers import Reading
from .tally import Tally, Verdict


@dataclasses.dataclass(frozen=True)
class Asked:
    """Who is asked, what they handed in, and the list of keys that they are known by (None where there is none)."""

    demand: Demand = dataclasses.field(default_factory=Demand)
    signatures: tuple[Signature, ...] = ()
    signers: bytes | None = None

    def heard(self, text: str | None, namespace: str, what: str) -> approval.Verdict:
        """Who of them signed a text; None is what nobody can sign. Raises InputError where nothing says whose keys are whose."""
        if not self.demand.required:
            return approval.decide(self.demand, ())
        if self.signers is None:
            raise InputError(
                f"{self.demand.required} {what} are required, but allowed_signers is missing: it says whose keys are whose"
            )
        checked: list[approval.Checked] = []
        if text is not None and self.signatures:
            checked = approval.verify(text, namespace, self.signatures, self.signers)
        return approval.decide(self.demand, checked, what)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The verdict of both gates, what to tell about people, and what of it the proof carries."""

    verdict: Verdict
    approval: t.Mapping[str, t.Any]
    break_glass: t.Mapping[str, t.Any] | None
    carried: t.Mapping[str, t.Any]


def consult(
    reading: Reading,
    result: Tally,
    verdict: Verdict,
    policy: Policy,
    payload: t.Any,
    usual: Asked,
    glass: Glass | None = None,
    emergency: Asked | None = None,
) -> Answer:
    """Both gates must say yes; or ``emergency`` says it for a chain that is only short of votes.

    ``payload`` is what is about to run, None where nobody said. Raises InputError for a break-glass without one: what people
    open the gate for must be what runs.
    """
    meant = result.payload if payload is None else payload

    def text(terms: Glass | None) -> str | None:
        if reading.genesis_hash is None or meant is None:
            return None
        digest = binding.payload_digest(meant)
        return approval.statement(reading.chain_id, reading.genesis_hash, result.proposal_id, digest, terms)

    carried: dict[str, t.Any] = {}
    broken: dict[str, t.Any] | None = None
    by_chain = verdict
    if glass is not None and emergency is not None:
        if payload is None:
            raise InputError("break_glass needs payload: what is about to run is what people open the gate for")
        emergency = dataclasses.replace(emergency, demand=breakglass.demand(emergency.demand, usual.demand))
        said = text(glass)
        people = emergency.heard(said, approval.BREAK_GLASS, "break-glass approvals")
        verdict = breakglass.decide(
            by_chain,
            result,
            policy,
            glass,
            people,
            payload,
            chain_id=reading.chain_id,
            genesis_hash=reading.genesis_hash,
            height=reading.height,
        )
        terms = {"reason": glass.reason, "expires_height": glass.expires_height}
        broken = {**terms, "used": verdict.break_glass is not None, **_told(said, approval.BREAK_GLASS, people)}
        if verdict.break_glass is not None and said is not None:
            sha256 = binding.payload_digest(payload)
            signed = approval.carried(said, emergency.signatures, people)
            carried["break_glass"] = {**terms, "payload": payload, "payload_sha256": sha256, **signed}
    said = text(None)
    people = usual.heard(said, approval.APPROVAL, "approvals")
    if usual.demand.required and said is not None:
        carried["approval"] = approval.carried(said, usual.signatures, people)
    if verdict.break_glass is None:
        verdict = Verdict(verdict.open and people.ok, verdict.stage, (*verdict.reasons, *people.reasons))
    return Answer(verdict, _told(said, approval.APPROVAL, people), broken, carried)


def _told(text: str | None, namespace: str, people: approval.Verdict) -> dict[str, t.Any]:
    return {
        "statement": text,
        "statement_sha256": None if text is None else canonical.sha256_hex(text.encode("ascii")),
        "namespace": namespace,
        "command": approval.command(namespace),
        "verdict": people.as_dict(),
    }
