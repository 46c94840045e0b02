# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 8, 14, 17 and 20 to 23: receipts, proofs, plans, snapshots and manifests that are not what they should be."""

from __future__ import annotations

import copy
import functools
import time
import typing as t
import urllib.request

from trial import BACK, FORWARD, Case, Trial, part

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical

SOCKET = "/run/haproxy/admin.sock"


def refused_untouched(trial: Trial, words: str, change: t.Callable[[Trial, str], dict[str, t.Any]]) -> str:
    """The turn's own check refuses, and the node that runs is not touched."""
    turn_id = trial.ready()
    before = trial.node()["pid"]
    result = trial.start(turn_id, **change(trial, turn_id)).answer()["result"]
    trial.expect(not result["touched"] and trial.node()["pid"] == before, f"the node was touched: {result['reason']}")
    trial.expect(words in str(result["reason"]), f"for another reason: {result['reason']}")
    trial.ended(turn_id, result, "put_back")
    return f"refused: {str(result['reason'])[:80]}"


def altered(seal: bool, **values: t.Any) -> t.Callable[[Trial, str], dict[str, t.Any]]:
    """A proof with other values, by their path. ``seal``: its own digest fits, as somebody's would who knows the format."""

    def change(trial: Trial, turn_id: str) -> dict[str, t.Any]:
        proof = copy.deepcopy(trial.proof["proof"])
        for path, value in values.items():
            *above, last = path.split("__")
            target = proof
            for name in above:
                target = target[name]
            target[last] = value
        if seal:
            proof["sha256"] = canonical.digest({name: value for name, value in proof.items() if name != "sha256"})
        return {"proof": proof}

    return change


def expired(trial: Trial, turn_id: str) -> dict[str, t.Any]:
    height = int(trial.proof["proof"]["read"]["height"])
    return altered(True, policy__valid_blocks=1, expires_height=height + 1)(trial, turn_id)


def no_receipt(trial: Trial, turn_id: str) -> dict[str, t.Any]:
    return {"drain_receipts": []}


def other_receipt(trial: Trial, turn_id: str) -> dict[str, t.Any]:
    return {"drain_receipts": [{**trial.receipts[0], "turn_id": "an-earlier-turn"}]}


def other_key(trial: Trial, turn_id: str) -> dict[str, t.Any]:
    other = next(host for host in trial.net.validators if host != trial.host)
    return {"expected_address": trial.net.key(other)}


def other_migration(trial: Trial, turn_id: str) -> dict[str, t.Any]:
    migrations = copy.deepcopy(trial.net.release("2.0.0")["migrations"])
    migrations[0]["to_level"] = 3
    return {"migrations": migrations}


def gateway_silent_before(trial: Trial) -> str:
    """One gateway does not answer before the drain: no drain, no stop."""
    gateway = trial.net.gateways[-1]
    turn_id = trial.new_turn()
    trial.lock()
    before = trial.node()["pid"]
    trial.net.sh(gateway, f"mv {SOCKET} {SOCKET}.away")
    try:
        trial.refused(lambda: trial.drain(turn_id, timeout=2.0))
        said = trial.start(turn_id).answer()["result"]
    finally:
        trial.net.sh(gateway, f"mv {SOCKET}.away {SOCKET}")
    trial.expect(not said["touched"] and trial.node()["pid"] == before, "the node was touched without a drain")
    trial.undrain(turn_id)
    trial.unlock()
    return f"nothing touched: {str(said['reason'])[:60]}"


def gateway_silent_after(trial: Trial) -> str:
    """One gateway does not answer before the host is put back: there it stays drained, is told to be, and is put back later."""
    gateway = trial.net.gateways[-1]
    turn_id = trial.ready()
    result = trial.start(turn_id).answer()["result"]
    trial.net.sh(gateway, f"mv {SOCKET} {SOCKET}.away")
    try:
        trial.refused(lambda: trial.undrain(turn_id, timeout=2.0))
    finally:
        trial.net.sh(gateway, f"mv {SOCKET}.away {SOCKET}")
    stands = trial.net.ask(gateway, "gateway_look")
    receipt = stands["receipts"][trial.host]
    trial.expect(receipt["state"] == "drained" and receipt["turn_id"] == turn_id, f"forgotten: {receipt}")
    return f"{trial.end(turn_id, result)}; it was said to be drained meanwhile"


def request_that_never_ends(trial: Trial) -> str:
    """Something is in flight for longer than a drain may take: it fails, the server is put back, and nothing is stopped."""
    turn_id = trial.new_turn()
    trial.lock()
    before = trial.node()["pid"]

    def slow() -> int:
        url = f"{trial.net.api(trial.net.gateways[0])}/health?delay_ms=9000"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)

    # One for each server of one gateway, whoever comes first.
    flights = [trial.net.pool.submit(slow) for dummy in range(2 * len(trial.net.validators))]
    time.sleep(0.7)
    said = trial.refused(lambda: trial.drain(turn_id, timeout=2.0), "is not empty after", "it is in rotation again")
    trial.expect([one.result(40) for one in flights] == [200] * len(flights), "a request that was in flight was not served")
    trial.expect(trial.node()["pid"] == before, "the node was touched")
    # The other gateway had nothing in flight.
    trial.undrain(turn_id)
    trial.unlock()
    trial.turns.clear()
    return f"nothing touched: {said[:70]}"


def plan_edited(trial: Trial) -> str:
    """Somebody edits the plan of a turn that is under way: no engine goes on by it, and with the old one the turn is finished."""
    at = trial.stands(*part("done", "stop", "forward"))
    folder = f"/var/lib/chainops/{trial.host}/journal/{at.turn_id}"
    trial.net.sh(
        trial.host,
        f'cp -a {folder}/plan.json /run/plan.json && sed -i \'s/"height_advance": 2/"height_advance": 0/\' {folder}/plan.json',
    )
    trial.net.sh(trial.host, f"! cmp -s /run/plan.json {folder}/plan.json")
    at.controller.kill()
    trial.net.ask(trial.host, "kill", pid=at.pid, signal="SIGKILL")
    time.sleep(2.5)
    unit = trial.net.sh(trial.host, f"systemctl is-active chainops-turn@{trial.host}", check=False)
    trial.expect(
        unit != "active" and trial.node()["pid"] is None, f"an engine went on by an edited plan: unit {unit}, {trial.node()}"
    )
    trial.net.sh(trial.host, f"cp -a /run/plan.json {folder}/plan.json")
    result = trial.asked_again(at)
    outcome = trial.ended(at.turn_id, result, "committed")
    return f"refused while edited; then {outcome}"


def journal_edited(trial: Trial) -> str:
    """A record in the middle of the journal is changed: no engine believes the rest, and the mended one is gone on with."""
    at = trial.stands(*part("done", "stop", "forward"))
    path = f"/var/lib/chainops/{trial.host}/journal/{at.turn_id}/journal.log"
    at.controller.kill()
    trial.net.ask(trial.host, "kill", pid=at.pid, signal="SIGSTOP")
    wrong, right = '"step":"quard"', '"step":"guard"'
    trial.net.ask(trial.host, "replace", path=path, old=right, new=wrong)
    trial.net.ask(trial.host, "kill", pid=at.pid, signal="SIGKILL")
    time.sleep(2.5)
    trial.expect(trial.node()["pid"] is None, "an engine went on by an edited journal")
    trial.net.ask(trial.host, "replace", path=path, old=wrong, new=right)
    result = trial.asked_again(at)
    outcome = trial.ended(at.turn_id, result, "committed")
    return f"refused while edited; then {outcome}"


def manifest_edited(trial: Trial) -> str:
    """Nobody goes back by a manifest that does not verify."""
    turn_id = trial.ready()
    path = f"/var/lib/chainops/{trial.host}/migration_manifest.json"
    before = trial.node()["pid"]
    trial.net.sh(trial.host, f'cp -a {path} /run/manifest.json && sed -i \'0,/"outcome": "/s//"outcome": "x/\' {path}')
    try:
        said = trial.refused(lambda: trial.again(turn_id), "does not verify")
    finally:
        trial.net.sh(trial.host, f"cp -a /run/manifest.json {path}")
    trial.expect(trial.node()["pid"] == before, "the node was touched")
    trial.undrain(turn_id)
    trial.unlock()
    trial.turns.clear()
    return f"refused: {said[:80]}"


def rollback_point_damaged(trial: Trial) -> str:
    """One bit of the rollback point is flipped: nothing is restored from it, and the host stays what it is."""
    turn_id = trial.ready()
    path = str(trial.net.ask(trial.host, "rollback_point", instance=trial.host)["file"])
    trial.net.ask(trial.host, "flip", path=path, at=600)
    try:
        result = trial.start(turn_id).answer()["result"]
    finally:
        trial.net.ask(trial.host, "flip", path=path, at=600)
    outcome = trial.ended(turn_id, result, "put_back")
    return f"{outcome}: {str(result['reason'])[-80:]}"


def there_and_back_again(trial: Trial) -> str:
    """Forward, back, and the rollback rolled back: three turns of one rollout, the last-signed height never down."""
    outcomes = []
    for way in (FORWARD, BACK, FORWARD):
        turn_id = trial.ready()
        result = trial.start(turn_id, way).answer()["result"]
        outcomes.append(trial.end(turn_id, result, way=way))
    trial.expect(outcomes == ["committed"] * 3, f"they ended {outcomes}")
    return "three turns committed"


def _cases() -> list[Case]:
    def refused(name: str, row: str, words: str, change: t.Callable[[Trial, str], dict[str, t.Any]], quick: bool = False) -> Case:
        return Case(name, row, functools.partial(refused_untouched, words=words, change=change), quick=quick)

    return [
        refused("proof-that-was-edited", "14", "the proof was changed", altered(False, proposal_id="another")),
        refused("proof-of-another-chain", "14", "governance proof", altered(True, chain__chain_id="another-chain"), quick=True),
        refused("proof-of-other-blocks", "14", "governance proof", altered(True, read__hash="0" * 64)),
        refused("proof-that-has-expired", "14", "governance proof", expired),
        refused("no-drain-receipt", "17", "no drain receipt", no_receipt, quick=True),
        refused("drain-receipt-of-another-turn", "17", "the drain receipt", other_receipt),
        refused("another-key-than-expected", "20", "the node signs as", other_key),
        refused("migrations-lead-elsewhere", "21", "the migrations lead to", other_migration),
        Case("gateway-silent-before-the-drain", "17", gateway_silent_before, quick=True),
        Case("gateway-silent-before-the-undrain", "17", gateway_silent_after),
        Case("request-in-flight-longer-than-a-drain", "17", request_that_never_ends),
        Case("plan-edited-in-the-stop-window", "23", plan_edited),
        Case("journal-edited-in-the-stop-window", "23", journal_edited),
        Case("manifest-edited", "23", manifest_edited, BACK),
        Case("rollback-point-damaged", "8", rollback_point_damaged, BACK),
        Case("rollback-of-the-rollback", "22", there_and_back_again),
    ]


CASES = _cases()
