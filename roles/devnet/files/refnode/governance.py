# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Governance as a pure state machine over transactions, in XAI's encoding and by XAI's rules, but replayable.

A governance transaction is one whose ``metadata.type`` is one of six words. The rules: at least ``min_voters`` yes voters, at
least ``approval_percent`` of the yes and no power, and no yes voter above ``max_individual_power_percent`` of the yes power
(the cap rejects, it doesn't clip). Power is what each voter declares, as on XAI. Execution needs the code review and the
implementation vote as well, and a payload equal to the proposed one.

Differences to XAI, on purpose: malformed metadata is refused (there, it halts the chain); a proposal id can't be submitted
twice (there, the second replaces the content and keeps the votes); a proposal is executed at most once; status is recomputed
from the votes, never sticky. As on XAI, a ``rollback_change`` only marks the proposal and reverts nothing.
"""

from __future__ import annotations

import typing as t

from . import canon
from .tx import Rejected

TYPES = ("governance_proposal", "governance_vote", "code_review", "implementation_vote", "proposal_execution", "rollback_change")
FEATURES = (
    "airdrops",
    "treasure_hunts",
    "time_capsules",
    "mining_bonuses",
    "social_bonuses",
    "fee_refunds",
    "ai_development_pool",
    "exchange",
    "social_recovery",
    "token_burning",
)
RULES: dict[str, float] = {
    "min_voters": 5,
    "approval_percent": 66,
    "max_individual_power_percent": 20,
    "min_code_reviewers": 5,
    "implementation_approval_percent": 50,
}
RANGES = {"min_voters": (100, 10_000), "approval_percent": (51, 90)}


def kind(tx: t.Mapping[str, t.Any]) -> str | None:
    """The governance type of a transaction, or None."""
    metadata = tx.get("metadata")
    found = metadata.get("type") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) and found in TYPES else None


def _require(metadata: t.Mapping[str, t.Any], name: str, kinds: tuple[type, ...], what: str) -> t.Any:
    value = metadata.get(name)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or value == "":
        raise Rejected("invalid_metadata", f"metadata.{name} must be {what}", field=f"metadata.{name}")
    return value


def _power(metadata: t.Mapping[str, t.Any], name: str) -> None:
    value = metadata.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10**15:
        raise Rejected("invalid_metadata", f"metadata.{name} must be a number from 0 to 10^15", field=f"metadata.{name}")


def check(tx: t.Mapping[str, t.Any]) -> None:
    """Shape of the metadata. Raises Rejected; a block with such a transaction is void."""
    found = kind(tx)
    metadata = tx["metadata"]
    if found is None:
        if tx["tx_type"] in TYPES:
            raise Rejected("invalid_metadata", f"tx_type {tx['tx_type']} needs metadata.type", field="metadata.type")
        return
    proposal = _require(metadata, "proposal_id", (str,), "a non-empty text")
    if len(proposal) > 200:
        raise Rejected("invalid_metadata", "metadata.proposal_id is longer than 200 characters", field="metadata.proposal_id")
    if found == "governance_proposal":
        for name in ("title", "description", "proposal_type"):
            _require(metadata, name, (str,), "a non-empty text")
        if not isinstance(metadata.get("proposal_payload", {}), dict):
            raise Rejected("invalid_metadata", "metadata.proposal_payload must be an object", field="metadata.proposal_payload")
        _power(metadata, "submitter_voting_power")
    elif found == "governance_vote":
        if metadata.get("vote") not in ("yes", "no", "abstain"):
            raise Rejected("invalid_metadata", "metadata.vote must be yes, no or abstain", field="metadata.vote")
        _power(metadata, "voting_power")
    elif found == "code_review":
        _require(metadata, "approved", (bool,), "true or false")
        _power(metadata, "voting_power")
    elif found == "implementation_vote":
        _require(metadata, "approved", (bool,), "true or false")
    elif found == "proposal_execution":
        if not isinstance(metadata.get("proposal_payload", {}), dict):
            raise Rejected("invalid_metadata", "metadata.proposal_payload must be an object", field="metadata.proposal_payload")
    elif found == "rollback_change":
        _require(metadata, "original_proposal_id", (str,), "a non-empty text")


def empty() -> dict[str, t.Any]:
    """The state before the first governance transaction; JSON all through."""
    return {
        "rules": dict(RULES),
        "features": {**dict.fromkeys(FEATURES, True), "smart_contracts": False},
        "proposals": {},
        "failed": 0,
    }


def approved(proposal: t.Mapping[str, t.Any], rules: t.Mapping[str, float]) -> bool:
    """The vote alone."""
    yes = [entry["power"] for entry in proposal["votes"].values() if entry["vote"] == "yes"]
    no = sum(entry["power"] for entry in proposal["votes"].values() if entry["vote"] == "no")
    total = sum(yes)
    if len(yes) < rules["min_voters"] or total <= 0:
        return False
    if total / (total + no) * 100 < rules["approval_percent"]:
        return False
    return all(power / total * 100 <= rules["max_individual_power_percent"] for power in yes)


def reviewed(proposal: t.Mapping[str, t.Any], rules: t.Mapping[str, float]) -> bool:
    reviews = list(proposal["reviews"].values())
    total = sum(entry["power"] for entry in reviews)
    good = sum(entry["power"] for entry in reviews if entry["approved"])
    return len(reviews) >= rules["min_code_reviewers"] and total > 0 and good / total * 100 >= rules["approval_percent"]


def implemented(proposal: t.Mapping[str, t.Any], rules: t.Mapping[str, float]) -> bool:
    needed = int(len(proposal["yes_ever"]) * rules["implementation_approval_percent"] / 100)
    return sum(1 for good in proposal["implementation"].values() if good) >= needed


def status(proposal: t.Mapping[str, t.Any], rules: t.Mapping[str, float]) -> str:
    """XAI's words, recomputed."""
    if proposal["rolled_back"]:
        return "rolled_back"
    if proposal["executed_height"] is not None:
        return "executed"
    if not approved(proposal, rules):
        return "proposed"
    if not reviewed(proposal, rules):
        return "approved_voting"
    return "implementation_approved" if proposal["implementation"] and implemented(proposal, rules) else "code_review_passed"


def apply(state: dict[str, t.Any], tx: t.Mapping[str, t.Any], height: int) -> bool:
    """Apply one well-formed governance transaction in place. False when it has no effect (it is still part of the chain)."""
    done = _apply(state, tx, height)
    if not done:
        state["failed"] += 1
    return done


def _apply(state: dict[str, t.Any], tx: t.Mapping[str, t.Any], height: int) -> bool:
    found, metadata, sender = kind(tx), tx["metadata"], tx["sender"]
    proposals = state["proposals"]
    if found == "governance_proposal":
        if metadata["proposal_id"] in proposals:
            return False
        payload = metadata.get("proposal_payload") or {}
        proposals[metadata["proposal_id"]] = {
            "submitter": sender,
            "txid": tx["txid"],
            "height": height,
            "title": metadata["title"],
            "description": metadata["description"],
            "proposal_type": metadata["proposal_type"],
            "payload": payload,
            "payload_hash": canon.digest(payload),
            "votes": {},
            "yes_ever": [],
            "reviews": {},
            "implementation": {},
            "executed_height": None,
            "rolled_back": False,
        }
        return True
    name = metadata["original_proposal_id"] if found == "rollback_change" else metadata["proposal_id"]
    proposal = proposals.get(name)
    if proposal is None:
        return False
    if found == "governance_vote":
        proposal["votes"][sender] = {"vote": metadata["vote"], "power": metadata.get("voting_power", 0)}
        if metadata["vote"] == "yes" and sender not in proposal["yes_ever"]:
            proposal["yes_ever"].append(sender)
    elif found == "code_review":
        proposal["reviews"][sender] = {"approved": metadata["approved"], "power": metadata.get("voting_power", 0)}
    elif found == "implementation_vote":
        proposal["implementation"][sender] = metadata["approved"]
    elif found == "rollback_change":
        proposal["rolled_back"] = True
    elif found == "proposal_execution":
        return _execute(state, proposal, metadata, height)
    return True


def _execute(state: dict[str, t.Any], proposal: dict[str, t.Any], metadata: t.Mapping[str, t.Any], height: int) -> bool:
    rules = state["rules"]
    if proposal["executed_height"] is not None or proposal["rolled_back"]:
        return False
    if not (approved(proposal, rules) and reviewed(proposal, rules) and implemented(proposal, rules)):
        return False
    payload = metadata.get("proposal_payload") or proposal["payload"]
    if canon.digest(payload) != proposal["payload_hash"]:
        return False
    proposal["executed_height"] = height
    if proposal["proposal_type"] == "feature_activation":
        feature, enabled = payload.get("feature_name"), payload.get("enabled", True)
        if feature not in state["features"] or not isinstance(enabled, bool):
            return False
        state["features"][feature] = enabled
    elif proposal["proposal_type"] in ("protocol_parameter", "modify_governance_rules"):
        return _set_rule(state, proposal["proposal_type"], payload)
    return True


def _set_rule(state: dict[str, t.Any], proposal_type: str, payload: t.Mapping[str, t.Any]) -> bool:
    """``protocol_parameter`` is held to ranges, ``modify_governance_rules`` isn't: as on XAI."""
    if proposal_type == "protocol_parameter":
        changes = {payload.get("parameter"): payload.get("new_value")}
    else:
        changes = {payload.get("rule_name"): payload.get("new_value")}
    for name, value in changes.items():
        low, high = RANGES.get(name, (None, None)) if proposal_type == "protocol_parameter" else (0, 10**9)
        if name not in state["rules"] or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if low is None or high is None or not low <= value <= high:
            return False
    state["rules"].update(changes)
    return True
