# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the modules that need a node, a gateway or a chain, while playbooks, roles, lock and manifest are the real ones.

WANT_JSON: Ansible hands over the options in a file. The world is one JSON file that a flock guards; every call is written down
in it. ``faults`` in it say what goes wrong, each once:
``{"<module>/<host>": {"kill": pid} | {"wait": path} | {"gate": stage} | {"answer": result}}``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import sys
import time
import typing as t

WORLD = pathlib.Path(os.environ["CHAINOPS_TEST_WORLD"])
Json = t.Dict[str, t.Any]


@contextlib.contextmanager
def world() -> t.Iterator[Json]:
    with open(WORLD.parent / "mutex", "w", encoding="ascii") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        there = json.loads(WORLD.read_text(encoding="utf-8"))
        yield there
        WORLD.write_text(json.dumps(there), encoding="utf-8")


def turn_of(host: Json) -> Json | None:
    return host["turns"][0] if host["turns"] else None


def validator_upgrade_info(here: Json, p: Json) -> Json:
    host = here["hosts"][p["instance"]]
    last = turn_of(host)
    manifest = pathlib.Path(p["state_dir"], p["instance"], "migration_manifest.json")
    written = manifest.exists() and bool(last) and f'"{last["id"]}"' in manifest.read_text(encoding="utf-8")
    due = None
    if last and not written:
        due = {
            "kind": "upgrade" if last["direction"] == "forward" else "rollback",
            "rollout_id": last["rollout_id"],
            "turn_id": last["id"],
            "release": {"id": "2", "sha256": last["new"]["sha256"]},
            "snapshot_id": "s",
        }
    running = {"pid": 1, "sha256": host["release"], "link": f"/r/{host['release']}", "level": 1}
    row = {"state": "unknown", "step": None, "since": None, "turn": last and last["id"], "why": None}
    window = {"seconds": None, "parts": {}, "unknown": [], "turns": 0, "budget": 0.0, "words": "not known yet"}
    return {
        "running": running,
        "turns": host["turns"],
        "open_turn": None,
        "predicted_stop_window": window,
        "fence": 0,
        "lock": {},
        "guarded": False,
        "unrecorded": due,
        "status": row,
        "problems": [],
        "drains": here.get("journals", {}),
    }


def validator_upgrade(here: Json, p: Json) -> Json:
    host = here["hosts"][p["instance"]]
    fence = pathlib.Path(p["state_dir"], p["instance"], "fence")
    if fence.exists() and int(p["fence_token"]) < int(fence.read_text(encoding="ascii")):
        return {"failed": True, "msg": "token is older than one which this host has seen"}
    back = p["state"] == "rolled_back"
    new = here["old"] if back else p["release"]["sha256"]
    turn = {
        "id": p["turn_id"],
        "rollout_id": p["rollout_id"],
        "direction": "back" if back else "forward",
        "outcome": "committed",
        "reason": None,
        "touched": True,
        "began": time.time(),
        "ended": time.time(),
        "old": {"sha256": host["release"]},
        "new": {"sha256": new},
        "snapshot": {"id": f"turn-{p['turn_id']}", "sha256": "0" * 64},
    }
    host["release"] = new
    host["turns"].insert(0, turn)
    return {"changed": True, "turn": turn}


def validator_info(here: Json, p: Json) -> Json:
    return {"met": True, "reasons": [], "node": {"version": "", "height": 10, "chain_id": "c", "genesis_hash": "g"}}


def network_info(here: Json, p: Json) -> Json:
    names = [one["name"] for one in p["nodes"]]
    nodes = [{"name": n, "address": n, "reachable": True, "online": True, "version": ""} for n in names]
    rows = [{"address": n, "node": n, "power": 1.0, "online": True, "signed": 1, "missed": 0} for n in names]
    rows += [{"address": f"x{i}", "node": None, "power": 1.0, "online": True, "signed": 1, "missed": 0} for i in range(4)]
    network = {"ok": True, "nodes": nodes, "validators": rows, "findings": [], "problems": [], "equivocations": [], "window": 0}
    power = {"power_known": True, "power_total": float(len(rows)), "power_offline": 0.0}
    return {"network": {**network, **power, "height_max": 10, "height_min": 10}}


def governance_proposal_info(here: Json, p: Json) -> Json:
    is_open = here["gate"] == "implementation_approved"
    return {
        "verdict": {"open": is_open, "stage": here["gate"], "reasons": [] if is_open else [f"it is {here['gate']}"]},
        "proof": {"proposal_id": p["proposal_id"]},
        "proof_sha256": "1" * 64,
        "tally": {"chain": None, "policy": None},
        "proposal": {"submitted_txid": ""},
        "chain_read": {"height": 10, "readers": []},
        "approval": {"verdict": {"required": 0}, "statement": None},
    }


def canary_analysis_info(here: Json, p: Json) -> Json:
    return {"verdict": "pass", "reasons": []}


def state_snapshot(here: Json, p: Json) -> Json:
    return {"snapshot": {"id": p.get("snapshot_id")}}


def state_restore(here: Json, p: Json) -> Json:
    return {"reaped": []}


def state_snapshot_info(here: Json, p: Json) -> Json:
    return {"snapshots": []}


def rollout_report(here: Json, p: Json) -> Json:
    return {}


def api_drain(here: Json, p: Json) -> Json:
    out = p["state"] == "drained"
    if p["driver"] == "journal":
        server = p["server"]
        record = {**here.setdefault("journals", {}).get(server, {"before": {}}), "turn_id": p["turn_id"]}
        record["state"] = "drained" if out else "active"
        record["before"].update({name: look["before"] for name, look in (p.get("looks") or {}).items()})
        here["journals"][server] = record
        return {"changed": True, "receipt": None, "drain": None, "journal": record}
    here.setdefault("befores", []).append([p["server"], p["state"], p.get("before")])
    here["drains"][p["server"]] = {"state": "drained" if out else "active", "turn_id": p["turn_id"], "server": p["server"]}
    receipt = {"gateway": "gw", "server": p["server"], "state": p["state"], "turn_id": p["turn_id"]}
    return {"changed": True, "receipt": receipt, "drain": {"seconds": 0.1}}


def api_drain_info(here: Json, p: Json) -> Json:
    look = {"before": {"api": {"state": "ready", "weight": 100}}, "known": p.get("server") in here["drains"]}
    return {"drains": here["drains"], "problems": [], **({"look": look} if p.get("server") else {})}


def main() -> None:
    name = pathlib.Path(sys.argv[0]).name.removeprefix("AnsiballZ_").removesuffix(".py")
    with open(sys.argv[1], encoding="utf-8") as stream:
        p = json.load(stream)
    with world() as here:
        host = p.get("instance") or ""
        said = globals()[name](here, p) if not p.get("_ansible_check_mode") or name.endswith("_info") else {}
        name = f"{name}:journal" if p.get("driver") == "journal" else name
        # What a call may hang or die in comes after what it does.
        fault = here["faults"].pop(f"{name}/{host}", {})
        here["calls"].append([name, host, p.get("state") or "", p.get("_ansible_check_mode", False), said.get("failed", False)])
        here["gate"] = fault.get("gate", here["gate"])
        said = {**said, **fault.get("answer", {})}
    if "kill" in fault:
        os.kill(int((WORLD.parent / "controller").read_text(encoding="ascii")), signal.SIGKILL)
    if "wait" in fault:
        (WORLD.parent / "waiting").touch()
        for dummy in range(3000):
            if pathlib.Path(fault["wait"]).exists():
                break
            time.sleep(0.1)
    print(json.dumps({"changed": False, **said}))


if __name__ == "__main__":
    main()
