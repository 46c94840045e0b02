# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What many looks at single nodes say about the network. Pure: ``judge`` takes views and returns findings.

Nodes are compared at a height all of them have, never at their tips: those differ by the time it takes to ask.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._chain.protocol import NodeStatus, Validator
from .power import HARD_LIMIT, Member, PowerVerdict, decide

Json = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class View:
    """One look at one node. ``status`` None: it could not be asked, ``error`` says why; ``gone``: it didn't answer at all.

    ``expected_address`` is the signing address the inventory gives it; ``hashes`` are block hashes by height.
    """

    name: str
    api_url: str
    expected_address: str | None = None
    status: NodeStatus | None = None
    error: str | None = None
    gone: bool = False
    final_height: int | None = None
    validators: tuple[Validator, ...] = ()
    equivocations: tuple[t.Mapping[str, t.Any], ...] = ()
    hashes: t.Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Signing:
    """Who signed the last ``window`` blocks, as one node serves them: blocks per address; and who signed any of the newest."""

    window: int
    signed: t.Mapping[str, int]
    lately: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Above these, something is a finding. Blocks and seconds; 0 seconds of ``tip_age`` means it isn't looked at.

    Double signing longer ago than ``memory`` blocks is listed, but is no finding any more.
    """

    lag: int = 5
    clock_skew: float = 5.0
    tip_age: float = 120.0
    memory: int = 1000


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something wrong: with one node, or (``node`` None) with the network."""

    kind: str
    node: str | None
    text: str


def heights_to_compare(views: t.Sequence[View], lag: int) -> tuple[int, ...]:
    """The highest height that all nodes have; and, when some are far behind, the highest that all the others have."""
    heights = [view.status.height for view in views if view.status is not None]
    if not heights:
        return ()
    current = [height for height in heights if height >= max(heights) - lag]
    return tuple(sorted({min(heights), min(current)}))


def differing(views: t.Sequence[View], height: int) -> tuple[str | None, tuple[str, ...]]:
    """The hash most nodes have at a height, and who has another. Without a majority: None, and everybody who has one."""
    having = {view.name: view.hashes[height] for view in views if height in view.hashes}
    counts: dict[str, int] = {}
    for block_hash in having.values():
        counts[block_hash] = counts.get(block_hash, 0) + 1
    for block_hash, count in counts.items():
        if count * 2 > len(having):
            return block_hash, tuple(name for name, its in having.items() if its != block_hash)
    return None, tuple(having)


def judge(views: t.Sequence[View], signing: Signing | None, limits: Limits, now: float) -> Json:
    """The ``network`` that the module returns. ``now`` is the wall clock, seconds since the epoch."""
    seen = [view for view in views if view.status is not None]
    findings = [
        Finding("unreachable", view.name, f"{view.name} could not be asked: {view.error}") for view in views if not view.status
    ]
    heights = heights_to_compare(views, limits.lag)
    agree, common_hash, forked = _agreement(seen, heights, findings)
    highest = max((view.status.height for view in seen if view.status), default=None)
    behind = _behind(seen, highest, limits, findings)
    _same_chain(seen, findings)
    _addresses(views, findings)
    _clocks_and_tips(seen, limits, now, findings)
    _isolation(views, seen, findings)
    equivocations = _equivocations(seen, (highest or 0) - limits.memory, findings)
    validators, known = _validator_set(seen, forked | behind, findings)
    rows = _rows(views, validators, known, signing, forked | behind)
    power = decide(_members(rows), ())
    _power_findings(rows, power, signing, findings)
    return {
        "ok": not findings,
        "agree": agree,
        "common_height": heights[0] if heights else None,
        "common_hash": common_hash,
        "height_max": highest,
        "height_min": min((view.status.height for view in seen if view.status), default=None),
        "height_spread": None if highest is None else highest - min(v.status.height for v in seen if v.status),
        "final_height": max((v.final_height for v in seen if v.final_height is not None), default=None),
        "chain_id": next((v.status.chain_id for v in seen if v.status and v.status.chain_id), None),
        "validators": rows,
        "power_known": known,
        "power_total": power.total,
        "power_online": power.total - power.offline,
        "power_offline": power.offline,
        "power_offline_fraction": power.after,
        "window": signing.window if signing else 0,
        "equivocations": equivocations,
        "nodes": [_node(view, rows, heights, highest) for view in views],
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "problems": [finding.text for finding in findings],
    }


def with_findings(network: t.Mapping[str, t.Any], more: t.Sequence[Finding]) -> Json:
    """A judged network with findings of other kinds."""
    return {
        **network,
        "ok": network["ok"] and not more,
        "findings": [*network["findings"], *(dataclasses.asdict(finding) for finding in more)],
        "problems": [*network["problems"], *(finding.text for finding in more)],
    }


def blockers(network: t.Mapping[str, t.Any], host: str, budget: float | None = None, putting_back: bool = False) -> list[str]:
    """What stands against taking one node of a judged network away now; empty when nothing does.

    What is wrong with the host itself doesn't count (it may be just why it is to be changed), except a key on two hosts.
    ``putting_back``: a host is put back also while others are in a bad way, or a release that broke several could never be
    undone; and one that is away already takes no more power away.
    """
    node = next((one for one in network["nodes"] if one["name"] == host), None)
    if node is None:
        return [f"{host} is not among the nodes that were asked"]
    against = [str(one["text"]) for one in network["findings"] if _counts(one, host, putting_back)]
    if node["address"] is None and not node["reachable"] and network["power_known"]:
        against.append(f"nobody knows which validator {host} is")
    if putting_back and node["online"] is False:
        return against
    return against + list(decide(_members(network["validators"]), {host}, budget).reasons)


def _counts(finding: t.Mapping[str, t.Any], host: str, putting_back: bool) -> bool:
    kind, own = str(finding["kind"]), bool(finding["node"] == host)
    if kind == "duplicate_key":
        return True
    if putting_back:
        return kind == "chain" or (kind == "address" and own)
    # The power budget says it better, with this host counted.
    return kind != "power" and not own


def _members(rows: t.Sequence[t.Mapping[str, t.Any]]) -> list[Member]:
    """Validators under the names of their nodes, where one of ours runs them."""
    return [Member(row["node"] or row["address"], row["power"], row["online"]) for row in rows]


def _agreement(seen: t.Sequence[View], heights: tuple[int, ...], findings: list[Finding]) -> tuple[bool, str | None, set[str]]:
    forked: set[str] = set()
    agree, common_hash = bool(heights), None
    for height in heights:
        block_hash, others = differing(seen, height)
        common_hash = block_hash if height == heights[0] else common_hash
        for view in seen:
            if height not in view.hashes and view.status is not None and view.status.height >= height:
                agree = False
                findings.append(Finding("no_block", view.name, f"{view.name} could not serve block {height}: {view.error}"))
        if block_hash is None and others:
            agree = False
            text = ", ".join(f"{view.name} {view.hashes[height][:16]}" for view in seen if height in view.hashes)
            findings.append(Finding("fork", None, f"no majority on block {height}: {text}"))
        elif others:
            agree = False
            for name in sorted(set(others) - forked):
                findings.append(Finding("fork", name, f"{name} has another block {height} than most nodes"))
        forked.update(others)
    return agree, common_hash, forked


def _behind(seen: t.Sequence[View], highest: int | None, limits: Limits, findings: list[Finding]) -> set[str]:
    late = set()
    for view in seen:
        if view.status is not None and highest is not None and view.status.height < highest - limits.lag:
            late.add(view.name)
            lag = highest - view.status.height
            findings.append(Finding("behind", view.name, f"{view.name} is {lag} blocks behind (at most {limits.lag})"))
    return late


def _same_chain(seen: t.Sequence[View], findings: list[Finding]) -> None:
    for what, field in (("chain id", "chain_id"), ("genesis block", "genesis_hash")):
        values: dict[str, list[str]] = {}
        for view in seen:
            value = getattr(view.status, field)
            if value is not None:
                values.setdefault(value, []).append(view.name)
        if len(values) > 1:
            text = "; ".join(f"{value[:24]}: {', '.join(names)}" for value, names in sorted(values.items()))
            findings.append(Finding("chain", None, f"the nodes differ in their {what}: {text}"))


def _addresses(views: t.Sequence[View], findings: list[Finding]) -> None:
    users: dict[str, list[str]] = {}
    for view in views:
        told = view.status.address if view.status else None
        if told and view.expected_address and told.lower() != view.expected_address.lower():
            findings.append(
                Finding("address", view.name, f"{view.name} signs as {told}, and the inventory says {view.expected_address}")
            )
        address = told or view.expected_address
        if address:
            users.setdefault(address.lower(), []).append(view.name)
    for address, names in users.items():
        if len(names) > 1:
            text = f"{' and '.join(names)} have the same signing address {address}: one key on two hosts signs twice"
            findings.extend(Finding("duplicate_key", name, text) for name in names[:1])


def _clocks_and_tips(seen: t.Sequence[View], limits: Limits, now: float, findings: list[Finding]) -> None:
    for view in seen:
        offset = view.status.clock_offset if view.status else None
        if offset is not None and abs(offset) > limits.clock_skew:
            findings.append(
                Finding(
                    "clock", view.name, f"the clock of {view.name} is {offset:+.1f} s off ours (at most {limits.clock_skew} s)"
                )
            )
    times = [view.status.tip_time for view in seen if view.status and view.status.tip_time is not None]
    if limits.tip_age > 0 and times and now - max(times) > limits.tip_age:
        age = now - max(times)
        findings.append(Finding("halted", None, f"the newest block anywhere is {age:.0f} s old (at most {limits.tip_age:.0f} s)"))


def _isolation(views: t.Sequence[View], seen: t.Sequence[View], findings: list[Finding]) -> None:
    for view in seen:
        # A node that tells no version is an XAI node, whose list of connections is often empty while blocks arrive.
        if len(views) > 1 and view.status and view.status.version is not None and view.status.peers_live == 0:
            findings.append(Finding("isolated", view.name, f"{view.name} has no live peer"))


def _equivocations(seen: t.Sequence[View], since: int, findings: list[Finding]) -> list[Json]:
    found: dict[tuple[str, ...], Json] = {}
    for view in seen:
        for record in view.equivocations:
            key = tuple(str(record.get(name)) for name in ("address", "height", "round", "step"))
            entry = found.setdefault(key, {**record, "seen_by": []})
            entry["seen_by"].append(view.name)
    for entry in found.values():
        height = entry.get("height")
        if isinstance(height, int) and height < since:
            continue
        who = entry.get("address") or "somebody"
        text = f"{who} signed twice at height {entry.get('height', '?')} (recorded by {', '.join(entry['seen_by'])})"
        findings.append(Finding("equivocation", None, text))
    return list(found.values())


def _validator_set(
    seen: t.Sequence[View], doubtful: t.Collection[str], findings: list[Finding]
) -> tuple[tuple[Validator, ...], bool]:
    """The set most nodes tell, those that are behind or forked not asked; and whether any node knew one."""
    told = [view for view in seen if view.name not in doubtful] or list(seen)
    sets: dict[t.Any, list[View]] = {}
    for view in told:
        key = tuple(sorted((one.address.lower(), one.power) for one in view.validators))
        sets.setdefault(key, []).append(view)
    if not sets:
        return (), False
    best = max(sets.values(), key=len)
    if len(sets) > 1:
        odd = sorted(view.name for group in sets.values() if group is not best for view in group)
        findings.append(Finding("validators", None, f"{', '.join(odd)} know another validator set than most nodes"))
    return best[0].validators, bool(best[0].validators)


def _rows(
    views: t.Sequence[View],
    validators: tuple[Validator, ...],
    known: bool,
    signing: Signing | None,
    doubtful: t.Collection[str],
) -> list[Json]:
    """One row per validator; where the chain knows none, one per node, all equal. Online is what was seen, never assumed."""
    rows: list[Json] = []
    if not known:
        for view in views:
            rows.append(
                {
                    "address": (view.status.address if view.status else None) or view.expected_address or view.name,
                    "power": 1.0,
                    "node": view.name,
                    "online": view.status is not None and view.name not in doubtful,
                    "signed": None,
                    "missed": None,
                }
            )
        return rows
    by_address: dict[str, View] = {}
    for view in views:
        address = (view.status.address if view.status else None) or view.expected_address
        if address:
            by_address.setdefault(address.lower(), view)
    counted = {address.lower(): count for address, count in signing.signed.items()} if signing and signing.window else None
    lately = {address.lower() for address in signing.lately} if signing else set()
    # A node that can't be asked and has no known address may be any validator that is not one of the others.
    stranger = any(view.status is None and not view.expected_address for view in views)
    for one in validators:
        node = by_address.get(one.address.lower())
        signed = None if counted is None else counted.get(one.address.lower(), 0)
        if node is not None:
            online: bool | None = node.status is not None and node.name not in doubtful and signed != 0
        else:
            online = None if signed is None or stranger else one.address.lower() in lately
        rows.append(
            {
                "address": one.address,
                "power": one.power,
                "node": node.name if node else None,
                "online": online,
                "signed": signed,
                "missed": None if signed is None or signing is None else signing.window - signed,
            }
        )
    return rows


def _power_findings(rows: t.Sequence[Json], power: PowerVerdict, signing: Signing | None, findings: list[Finding]) -> None:
    reachable_but_silent = {finding.node for finding in findings if finding.kind in ("unreachable", "behind", "fork")}
    for row in rows:
        if signing and signing.window >= 5 and row["signed"] == 0 and row["node"] and row["node"] not in reachable_but_silent:
            text = f"{row['node']} ({row['address']}) signed none of the last {signing.window} blocks"
            findings.append(Finding("not_signing", row["node"], text))
    if power.total and power.offline >= float(HARD_LIMIT) * power.total:
        share = power.offline / power.total * 100
        findings.append(Finding("power", None, f"{share:.1f} % of the voting power is away: a third stops the chain"))


def _node(view: View, rows: t.Sequence[Json], heights: tuple[int, ...], highest: int | None) -> Json:
    status = view.status
    row = next((row for row in rows if row["node"] == view.name), None)
    facts: Json = {field.name: None for field in dataclasses.fields(NodeStatus)}
    facts.update(status.as_dict() if status else {"healthy": False, "issues": []})
    return {
        **facts,
        "name": view.name,
        "api_url": view.api_url,
        "reachable": status is not None,
        "error": view.error,
        "address": (status.address if status else None) or view.expected_address,
        "lag": None if status is None or highest is None else highest - status.height,
        "hash_at_common": view.hashes.get(heights[0]) if heights else None,
        "final_height": view.final_height,
        "power": row["power"] if row else 0.0,
        "online": row["online"] if row else status is not None,
        "missed": row["missed"] if row else None,
    }
