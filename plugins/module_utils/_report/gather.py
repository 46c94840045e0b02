# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a playbook registered to what ``rollout_report`` takes. Pure; what is missing stays missing, and shows."""

from __future__ import annotations

import typing as t

from .._manifest import fleet
from .invariants import JsonDict

Facts = t.Mapping[str, t.Any]


def _results(registered: t.Any) -> list[JsonDict]:
    """The results of a task, looped or not; none when it was skipped or never ran."""
    if not isinstance(registered, dict) or registered.get("skipped"):
        return []
    return [one for one in registered.get("results", [registered]) if isinstance(one, dict) and not one.get("skipped")]


def _by_host(registered: t.Any) -> dict[str, JsonDict]:
    """Results of a loop over hosts, by host; those that failed are left out."""
    return {str(one["record_item"]): one for one in _results(registered) if not one.get("failed") and not one.get("unreachable")}


def gather(hosts: t.Mapping[str, Facts], seen: Facts, about: Facts) -> JsonDict:
    """``hosts``: the variables of every instance (``hostvars``), by name; ``seen``: what evidence.yml registered (``turns``,
    ``manifests``, ``snapshots`` looped over hosts; ``network``); ``about``: fields that go into the rollout as they are, with
    ``waves``, ``artifacts``, ``gate`` and ``turn_ids`` to be used here.
    """
    about = dict(about)
    waves: t.Sequence[t.Sequence[str]] = about.pop("waves")
    artifacts: Facts = about.pop("artifacts")
    gate: Facts | None = about.pop("gate", None)
    turns, manifests, snapshots = (_by_host(seen.get(name)) for name in ("turns", "manifests", "snapshots"))
    approved = sorted({str(one["sha256"]) for one in artifacts.values()})
    rows: list[JsonDict] = []
    drains: list[JsonDict] = []
    power: list[JsonDict] = []
    canaries: list[JsonDict] = []
    silences: list[JsonDict] = []
    for name, its in hosts.items():
        preflight: Facts = its.get("preflight_host") or {}
        turn = next((one for one in (turns.get(name) or {}).get("turns", ()) if one.get("id") == preflight.get("turn_id")), None)
        rows.append(_host(name, preflight, turn, turns.get(name), manifests.get(name), snapshots.get(name), waves))
        drains += _drains(its)
        silences += [{**s, "host": name} for one in _results(its.get("announce_silenced")) for s in one.get("silences", ())]
        again: Facts = (its.get("preflight_again") or its.get("rollback_network") or {}).get("network") or {}
        if again and turn:
            power.append({"at": _began(turn), "offline_fraction": _offline(again, name)})
        canaries += [{**one, "wave": len(canaries) + 1} for one in _results(its.get("verify_soak")) if one.get("verdict")]
    network: Facts = (seen.get("network") or {}).get("network") or {}
    copies = _copies({name: manifests.get(name) for name in hosts})
    versions = {one["name"]: one["version"] for one in network.get("nodes", ())}
    for row in rows:
        row["after"]["version"] = versions.get(row["name"])
    chain: JsonDict = {"power": power}
    if network:
        last = network["height_min"]
        chain["equivocations"] = network["equivocations"]
        chain["last_height"] = last
        chain["first_height"] = last - network["window"]
        chain["missed_blocks"] = {str(one["node"] or one["address"]): one["missed"] for one in network["validators"]}
    rollout: JsonDict = {
        **about,
        "hosts": rows,
        "drains": drains,
        "canary": canaries,
        "silences": silences,
        "chain": chain,
        **({"copies": copies} if copies else {}),
    }
    rollout.setdefault("release", {})["sha256"] = approved[0] if len(approved) == 1 else None
    if gate:
        rollout["proof"] = {
            "sha256": gate["proof_sha256"],
            "open": gate["verdict"]["open"],
            "reasons": gate["verdict"]["reasons"],
            "height": gate["chain_read"]["height"],
            "readers": len(gate["chain_read"]["readers"]),
            # The chain's own rule and our policy, each said once, as a person would; neither for a proposal that isn't there.
            "tally": {rule: _texts(gate["tally"][rule]) for rule in ("chain", "policy")},
            "release_sha256": rollout["release"]["sha256"],
            "break_glass": gate["verdict"].get("break_glass"),
            "approvers": (gate.get("approval") or {}).get("verdict", {}).get("approvers", []),
        }
    return rollout


def _host(
    name: str,
    preflight: Facts,
    turn: JsonDict | None,
    journals: JsonDict | None,
    manifest: JsonDict | None,
    snapshots: JsonDict | None,
    waves: t.Sequence[t.Sequence[str]],
) -> JsonDict:
    wave = next((number for number, names in enumerate(waves, 1) if name in names), None)
    before: Facts = preflight.get("running") or {}
    after: Facts = (journals or {}).get("running") or {}
    row: JsonDict = {
        "name": name,
        "address": (preflight.get("variables") or {}).get("validator_address") or None,
        "wave": wave,
        "canary": wave == 1,
        "before": {"sha256": before.get("sha256"), "version": (preflight.get("node") or {}).get("version")},
        "after": {"sha256": after.get("sha256")},
    }
    if journals is not None:
        row["state"] = journals["status"]["state"]
    if turn:
        row["turn"] = turn
        checked = [step for step in turn.get("steps", ()) if step.get("name") == "check" and step.get("state") == "done"]
        if checked:  # the engine refuses to go past a check that found something
            row["proof_problems"] = []
    if manifest is not None:
        row["manifest"] = {
            "valid": manifest["valid"],
            "entries": len(manifest["entries"]),
            "problems": manifest["problems"],
        }
    point = ((turn or {}).get("snapshot") or {}).get("id")
    sealed = [one for one in (snapshots or {}).get("snapshots", ()) if one["id"] == point]
    if sealed:
        row["snapshot"] = {"id": point, "verified": bool(sealed[0]["ok"])}
    return row


def _copies(manifests: t.Mapping[str, Facts | None]) -> JsonDict:
    """How the manifests stand against the copies that the other hosts keep; nothing where no host told of copies."""
    if not any(one and "replicas" in one for one in manifests.values()):
        return {}
    looks = {
        name: {**one, "marks": {str(entry["seq"]): entry["hash"] for entry in one["entries"]}}
        if one and "replicas" in one
        else None
        for name, one in manifests.items()
    }
    judged = fleet.judge(looks, {})
    kept_by = {name: {"hosts": len(row["kept_by"]), "of": row["of"]} for name, row in judged["origins"].items()}
    return {"kept_by": kept_by, "refused": judged["refused"], "words": judged["words"]}


def _texts(count: Facts | None) -> list[str]:
    return [one["text"] for one in count["checks"]] if count else []


def _began(turn: Facts) -> t.Any:
    steps = turn.get("steps") or [{}]
    return steps[0].get("at")


def _offline(network: Facts, name: str) -> float:
    """The share of the power that is away while this host takes its turn."""
    total = float(network["power_total"]) or 1.0
    own = sum(float(one["power"]) for one in network["validators"] if one["node"] == name and one["online"] is not False)
    return round((float(network["power_offline"]) + own) / total, 6)


def _drains(its: Facts) -> list[JsonDict]:
    back = {one["receipt"]["gateway"]: one["receipt"] for one in _results(its.get("undrain_done")) if one.get("receipt")}
    found: dict[str, JsonDict] = {}
    # A gateway lets go of a host first, and is waited for later: the last it said counts.
    for one in _results(its.get("drain_done")):
        if not one.get("receipt"):
            continue
        receipt = dict(one["receipt"], seconds=one["drain"]["seconds"], restored=False)
        again = back.get(receipt["gateway"])
        if again:
            receipt.update(restored=again["state"] == "active", restored_at=again.get("restored_at"))
        found[str(receipt["gateway"])] = receipt
    return list(found.values())
