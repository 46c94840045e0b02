# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout of four hosts leaves behind, as the playbooks collect it. Invented, but in the shapes of the real thing."""

from __future__ import annotations

import hashlib
import typing as t

START = 1_769_860_800.0  # 2026-01-31 12:00:00 UTC
OLD, NEW = hashlib.sha256(b"1.0.0").hexdigest(), hashlib.sha256(b"2.0.0").hexdigest()
NAMES = ("val1", "val2", "val3", "val4")
DOWN = (("stop", 0.4), ("freeze", 0.71), ("migrate", 0.52), ("switch", 0.01), ("start", 0.48), ("probe", 2.1))


def address(name: str) -> str:
    return "TXAI" + hashlib.sha256(name.encode()).hexdigest()[:40]


def steps(began: float, slow: float = 1.0) -> list[dict[str, t.Any]]:
    rows, at = [], began
    for name, took in (("check", 0.2), ("prepare", 1.3), ("guard", 0.05), *[(n, s * slow) for n, s in DOWN], ("commit", 0.1)):
        rows.append({"name": name, "way": "forward", "state": "done", "at": at, "seconds": round(took, 3), "facts": {}})
        at += took
    return rows


def turn(number: int, name: str, began: float, slow: float = 1.0) -> dict[str, t.Any]:
    height = 400 + 40 * number
    return {
        "format": "chainops.turn-result/1",
        "id": f"r7-{name}",
        "outcome": "committed",
        "reason": "",
        "steps": steps(began, slow),
        "stop_window_seconds": round(sum(s for _, s in DOWN) * slow, 3),
        "freeze_seconds": round(0.71 * slow, 3),
        "snapshot": {"id": f"r7-{name}", "sha256": hashlib.sha256(name.encode()).hexdigest()},
        "watermark": {
            "before": {"height": height, "round": 0, "step": 3, "address": address(name)},
            "after": {"height": height + 7, "round": 0, "step": 3, "address": address(name)},
        },
    }


def good() -> dict[str, t.Any]:
    hosts, drains, events = [], [], []
    at = START + 9.0
    for number, name in enumerate(NAMES):
        events.append({"at": at, "host": name, "what": "its turn begins", "result": "ok"})
        took = 0.9 + 0.6 * number
        empty = at + 1.4 + took
        began = empty + 0.3
        hosts.append(
            {
                "name": name,
                "address": address(name),
                "wave": 1 if number == 0 else 2,
                "canary": number == 0,
                "before": {"version": "1.0.0", "sha256": OLD},
                "after": {"version": "2.0.0", "sha256": NEW},
                "turn": turn(number, name, began, 1 + 0.13 * number),
                "proof_problems": [],
                "snapshot": {"id": f"r7-{name}", "verified": True},
                "manifest": {"valid": True, "entries": 1, "problems": []},
            }
        )
        end = began + 7.2
        drains.append(
            {
                "server": name,
                "instance": name,
                "gateway": "gw1",
                "turn_id": f"r7-{name}",
                "fence_token": 7,
                "state": "active",
                "samples": 3,
                "reloads": 0,
                "seconds": took,
                "drained_at": {"wall": empty, "boottime": 1000.0 + number, "boot_id": "b"},
                "restored_at": {"wall": end},
                "restored": True,
            }
        )
        events.append({"at": end, "host": name, "what": "is back in rotation on release 2.0.0", "result": "ok"})
        at = end + 1.5
        if number == 0:
            events.append({"at": at, "host": "", "what": "soak after wave 1", "seconds": 30.0, "result": "ok"})
            at += 31.0
    events.append({"at": at, "host": "", "what": "contract run, report", "seconds": 2.5, "result": "ok"})
    checks = [
        {"name": "connected peers", "verdict": "pass", "canary": 3.0, "baseline": 3.0,
         "reason": "shift +0 (from +0 to +0), allowed 1, higher is better"},
        {"name": "blocks per second", "verdict": "pass", "canary": 0.99, "baseline": 1.0,
         "reason": "shift -0.004 (from -0.02 to +0.01), allowed 0.2, higher is better"},
        {"name": "missed blocks of val1", "verdict": "pass", "canary": 0.0, "baseline": None,
         "reason": "0 of 29 blocks not signed, allowed 0"},
        {"name": "val1 follows the chain", "verdict": "pass", "canary": 466, "baseline": 466,
         "reason": "30 blocks further, same as the others"},
    ]  # fmt: skip
    return {
        "id": "r7",
        "proposal_id": "upgrade-2.0.0",
        "network": "the devnet's four validators",
        "operator": "alex",
        "started": START,
        "finished": at + 3.0,
        "outcome": "success",
        "power_budget": 0.333,
        "release": {"id": "2.0.0", "version": "2.0.0", "sha256": NEW},
        "proof": {
            "sha256": hashlib.sha256(b"proof").hexdigest(),
            "open": True,
            "height": 391,
            "readers": 4,
            "release_sha256": NEW,
            "tally": {"yes": 100, "no": 0, "voters": 5, "approval_percent": 100, "reviewers": 5},
        },
        "hosts": hosts,
        "drains": drains,
        "canary": [{"wave": 1, "verdict": "pass", "seconds": 30.1, "checks": checks}],
        "contract": {
            "verdict": {"ok": True, "operations": 20, "exercised": 20, "requests": 40, "reasons": [],
                        "unimportant": ["GET /version: $.storage_level is new"]}
        },
        "load": {"requests": 18240, "failed": 0, "double_spends": 0, "transfers": 402, "p99_ms": 41.7, "rate_per_second": 150},
        "chain": {
            "equivocations": [],
            "first_height": 391,
            "last_height": 540,
            "missed_blocks": {address("val1"): 2, address("val2"): 2, address("val3"): 3, address("val4"): 2},
            "power": [{"at": START + 10 * i, "offline_fraction": 0.25 if i % 2 else 0.0} for i in range(8)],
        },
        "events": events,
        "secrets_scan": {"secrets": 3, "files": 2, "bytes": 148213, "found": []},
    }  # fmt: skip


def bad() -> dict[str, t.Any]:
    """Act two: the canary starts, says "healthy", doesn't follow the chain, and is put back."""
    rollout = good()
    host = rollout["hosts"][0]
    began = host["turn"]["steps"][0]["at"]
    rows = steps(began)[:9]
    rows[-1].update(state="failed", seconds=12.0, error={"message": "height stays at 441"})
    at = rows[-1]["at"] + 12.0
    for name, took in (("stop", 0.3), ("switch", 0.02), ("restore", 0.4), ("start", 0.5), ("probe", 2.0)):
        rows.append({"name": name, "way": "undo", "state": "done", "at": at, "seconds": took, "facts": {}})
        at += took
    host["turn"].update(
        outcome="put_back",
        reason="the new release does not follow the chain: its height stays at 441 while the network is at 455",
        steps=rows,
        stop_window_seconds=17.44,
    )
    host["after"] = dict(host["before"])
    for other in rollout["hosts"][1:]:
        for key in ("turn", "proof_problems", "snapshot", "manifest"):
            other.pop(key)
        other["after"] = dict(other["before"])
    rollout["drains"] = rollout["drains"][:1]
    rollout["drains"][0]["restored_at"]["wall"] = at + 1
    rollout.update(
        outcome="stopped",
        reason="The canary did not follow the chain. It was put back, the rollout stopped, and no other host was touched.",
        canary=[],
        contract=None,
        finished=at + 4,
        events=[
            {"at": began, "host": "val1", "what": "its turn begins", "result": "ok"},
            {"at": at, "host": "val1", "what": "the turn failed, the host was put back", "result": "failed"},
        ],
        release={"id": "2.0.1", "version": "2.0.1", "sha256": NEW},
    )
    rollout["chain"]["missed_blocks"] = {address("val1"): 17}
    return rollout
