# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from hosts, chain and gateway after a case, and what must be true of it.

The invariants themselves are judged by the collection's own report; here is where its evidence comes from, for each case anew.
Nothing that a case did or was told is believed.
"""

from __future__ import annotations

import time
import typing as t

from network import Broken, Clients, JsonDict, Network, Refusal, get, wait

from ansible_collections.chainops.validator.plugins.module_utils._report import invariants

#: Seconds without a block that count as a third of the power, or more, being away.
GAP = 20.0
BUDGET = 0.333
STATE_OF = {1: "1.0.0", 2: "2.0.0"}


def link(host: str) -> str:
    return f"/opt/{host}/current"


class Evidence:
    """What there was before a case; ``collect`` reads what there is after it."""

    def __init__(self, net: Network, clients: Clients, proof: JsonDict, *, exact: bool) -> None:
        """``exact``: turns carry this very proof; a playbook reads the chain anew, and its own proof is of the same proposal."""
        self.net, self.clients, self.proof, self.exact = net, clients, proof, exact
        self.moment = time.monotonic()
        self.before = look(net, {}, {})
        self.height = min(net.pool.map(net.height, net.validators))

    def collect(self, turns: t.Mapping[str, t.Sequence[str]], about: str) -> JsonDict:
        """A rollout as the report module takes it. ``turns``: host to the turns that the case gave it, the last one counts."""
        net = self.net
        after = look(net, turns, {})
        sealed = {}
        for host, seen in after.items():
            results = [seen["turns"][name]["result"] for name in turns.get(host, ()) if name in seen["turns"]]
            wanted = [one["snapshot"]["id"] for one in results if one and one["snapshot"]["id"]]
            if wanted:
                sealed[host] = net.ask(host, "look", **asked(net, host, (), wanted))["snapshots"]
        hosts = [self._host(host, after[host], turns.get(host, ()), sealed.get(host, {})) for host in net.validators]
        gateways = net.ask_all(net.gateways, "gateway_look")
        requests, failures = self.clients.since(self.moment)
        last = max(net.height(host) for host in net.validators)
        scans = [seen["secrets"] for seen in after.values()]
        current = [one for one in hosts if one.get("turn")]
        new = current[-1]["turn"]["new"]["sha256"] if current else None
        return {
            "id": about,
            "proposal_id": self.proof["verdict"].get("proposal_id", "faults"),
            "release": {"sha256": new} if new else {},
            "power_budget": BUDGET,
            "proof": {"open": self.proof["verdict"]["open"], "sha256": self.proof["digest"]},
            "hosts": hosts,
            "chain": {
                "equivocations": equivocations(net),
                "power": power(net, self.height, last),
                "first_height": self.height,
                "last_height": last,
            },
            "drains": [
                {"server": name, "gateway": gateway, "restored": restored(seen["receipts"][name], server)}
                for gateway, seen in gateways.items()
                for name, server in seen["servers"].items()
            ],
            "load": {"requests": requests, "failed": len(failures), "failures": failures[:5]},
            "secrets_scan": {
                "secrets": min(one["secrets"] for one in scans),
                "files": sum(one["files"] for one in scans),
                "bytes": sum(one["bytes"] for one in scans),
                "found": [f"{host}: {path}" for host, seen in after.items() for path in seen["secrets"]["found"]],
            },
            "seen": after,
        }

    def _host(self, host: str, seen: JsonDict, turn_ids: t.Sequence[str], sealed: JsonDict) -> JsonDict:
        told: JsonDict = {"name": host}
        known = [name for name in turn_ids if name in seen["turns"]]
        if not known:
            return told
        one = seen["turns"][known[-1]]
        result = one["result"]
        problems = []
        # A plan that was refused may carry anything.
        if result["touched"] and one["proposal_id"] not in (None, self.proof["id"]):
            problems.append(f"the plan of {known[-1]} carries a proof of proposal {one['proposal_id']}")
        if result["touched"] and self.exact and one["proof_sha256"] != self.proof["digest"]:
            problems.append(f"the plan of {known[-1]} carries proof {one['proof_sha256']}")
        checked = [r for r in one["records"] if r.get("step") == "check" and r["kind"] == "done"]
        if result["touched"] and not checked:
            problems.append(f"{known[-1]} touched the node without having checked the proof")
        for record in checked:
            if record["facts"]["proof_sha256"] != one["proof_sha256"]:
                problems.append(f"{known[-1]} checked another proof: {record['facts']['proof_sha256']}")
        told.update(
            turn=result,
            before={"sha256": result["old"]["sha256"]},
            after={"sha256": seen["running"]["sha256"]},
            journal_verified=not [item for item in seen["problems"] if item.startswith("journal")],
            watermark={"before": self.before[host]["watermark"], "after": seen["watermark"]},
            proof_problems=problems,
            manifest=seen["manifest"],
        )
        snapshot = sealed.get(result["snapshot"]["id"] or "")
        if snapshot:
            told["snapshot"] = snapshot
        return told


def asked(net: Network, host: str, turns: t.Sequence[str], snapshots: t.Sequence[str]) -> JsonDict:
    return {
        "instance": host,
        "link": link(host),
        "address": net.key(host),
        "turns": list(turns),
        "snapshots": list(snapshots),
        "secrets": net.secrets(),
    }


def look(net: Network, turns: t.Mapping[str, t.Sequence[str]], snapshots: t.Mapping[str, t.Sequence[str]]) -> dict[str, JsonDict]:
    def one(host: str) -> JsonDict:
        return net.ask(host, "look", **asked(net, host, turns.get(host, ()), snapshots.get(host, ())))

    return dict(zip(net.validators, net.pool.map(one, net.validators)))


def restored(receipt: JsonDict | None, server: JsonDict) -> bool | None:
    """In rotation, still drained, or (None) forgotten: out of it with a receipt that says it is not, or without any."""
    serves = server["state"] == "ready" and server["up"]
    if receipt is None or receipt["state"] == "active":
        return True if serves else None
    return False


def equivocations(net: Network) -> list[JsonDict]:
    found: list[JsonDict] = []
    for host in net.validators:
        found += get(f"{net.api(host)}/finality/status")["equivocations"]
    return found


def power(net: Network, first: int, last: int) -> list[JsonDict]:
    """What was away, by the blocks: who did not sign each one, and how long there was none."""
    keys = {net.key(host) for host in net.validators}
    samples: list[JsonDict] = []
    before: float | None = None
    reader = max(net.validators, key=net.height)
    for height in range(max(first, 2), last + 1):
        block = get(f"{net.api(reader)}/blocks/{height}")
        signers = [one["address"] for one in block["last_commit"]["signatures"]]
        if len(signers) != len(set(signers)):
            raise Broken(f"block {height} carries two signatures of one key: {signers}")
        moment = float(block["timestamp"])
        away = 1 - len(keys & set(signers)) / len(keys)
        if before is not None and moment - before > GAP:
            away = max(away, 0.5)
        samples.append({"height": height - 1, "offline_fraction": away})
        before = moment
    return samples


def settled(net: Network, seconds: float = 45.0) -> None:
    """The fleet as every case must leave it: one chain that goes on, everybody in it, nobody drained, locked or in turn."""

    def heights() -> dict[str, int]:
        return dict(zip(net.validators, net.pool.map(net.height, net.validators)))

    def one_chain() -> bool:
        seen = heights()
        if max(seen.values()) - min(seen.values()) > 2:
            return False
        lowest = min(seen.values())
        return len({get(f"{net.api(host)}/blocks/{lowest}")["hash"] for host in net.validators}) == 1

    wait(one_chain, "all validators are on one chain, at its tip", seconds, 0.3)
    first = min(heights().values())
    wait(lambda: min(heights().values()) > first, "every validator follows the chain", 20.0, 0.2)

    def serving() -> bool:
        seen = net.ask_all(net.gateways, "gateway_look").values()
        taking = [sum(one["state"] == "ready" and one["up"] for one in gateway["servers"].values()) for gateway in seen]
        return taking == [len(net.validators)] * len(net.gateways)

    wait(serving, "every server takes traffic on every gateway", 20.0, 0.3)


def problems(net: Network, rollout: JsonDict) -> list[str]:
    """What is wrong with the hosts as they are, whatever the case was."""
    found: list[str] = []
    for host, seen in rollout["seen"].items():
        running, unit = seen["running"], seen["unit"]
        wanted = next((name for name in STATE_OF.values() if net.digest(name) == running["sha256"]), None)
        told = get(f"{net.api(host)}/version")["version"]
        if wanted is None or running["path"] != seen["link"] or told != wanted or STATE_OF.get(seen["level"]) != wanted:
            where = f"runs {running['path']} ({told}), link {seen['link']}, storage level {seen['level']}"
            found.append(f"{host} is neither old nor new: {where}")
        if seen["open"]:
            found.append(f"{host} has an open turn: {seen['open']}")
        if seen["guarded"] or unit["Restart"] != "on-failure" or "chainops" in unit["DropInPaths"]:
            found.append(f"{host} is still guarded: {unit}")
        if unit["ActiveState"] != "active":
            found.append(f"{host}: the node's unit is {unit['ActiveState']}")
        if seen["data_holder"] not in (None, int(unit["MainPID"])):
            found.append(f"{host}: the data are used by pid {seen['data_holder']}, and the unit's is {unit['MainPID']}")
        if seen["lock"]:
            found.append(f"{host} is still locked by {seen['lock']['holder']}")
        if seen["engine_at_work"]:
            found.append(f"{host}: an engine works on {seen['engine_at_work']}")
        if seen["pending"]:
            found.append(f"{host}: a restore of {seen['pending']} is not finished")
        found += [f"{host}: {problem}" for problem in seen["problems"]]
        if not seen["manifest"]["valid"]:
            found.append(f"{host}: manifest: {seen['manifest']['problems']}")
    return found


def judge(rollout: JsonDict, without: t.Collection[str], still_drained: t.Collection[str] = ()) -> list[str]:
    """Ids of the invariants that were checked and hold. Raises Broken for any other that the case concerns."""
    touched = [one for one in rollout["hosts"] if one.get("turn")]
    left_out = set(without)
    if not touched:
        # No turn of this case: these are about turns. What is about hosts is looked at in any case.
        left_out |= {"I2", "I4", "I5", "I6", "I7"}
    elif any("snapshot" not in one and one["turn"]["outcome"] != "committed" for one in touched):
        left_out.add("I6")
    verdicts = [one for one in invariants.judge(rollout) if one.id not in left_out]
    bad = [f"{one.id} {one.status}: {one.evidence}" for one in verdicts if one.status != invariants.HELD]
    if rollout["load"]["failed"] and "I10" not in left_out:
        bad.append(f"failed requests: {rollout['load']['failures']}")
    drained = {one["server"] for one in rollout["drains"] if one["restored"] is not True}
    if drained != set(still_drained):
        bad.append(f"I9: drained are {sorted(drained)}, expected {sorted(still_drained)}")
    if bad:
        raise Broken("; ".join(bad))
    checked = [one.id for one in verdicts]
    return checked if touched else [*checked, "untouched"]


def never_fell(net: Network, before: t.Mapping[str, JsonDict], after: t.Mapping[str, JsonDict]) -> list[str]:
    """I2 on every host, in turn or not."""
    found = []
    for host in net.validators:
        marks = [
            (one["watermark"]["height"], one["watermark"].get("round", 0), one["watermark"].get("step", 0))
            if one["watermark"]
            else (0, 0, 0)
            for one in (before[host], after[host])
        ]
        if marks[1] < marks[0]:
            found.append(f"I2: the last-signed height of {host} fell from {marks[0]} to {marks[1]}")
    return found


__all__ = ["Evidence", "Refusal", "judge", "look", "never_fell", "problems", "settled"]
