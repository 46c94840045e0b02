# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 8, 14, 17, 20, 21 and 23: receipts, proofs, journals, snapshots and manifests that are not what they should be."""

from __future__ import annotations

import copy
import functools
import time
import typing as t
import urllib.request

from trial import BACK, Case, Trial, part

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical

SOCKET = "/run/haproxy/admin.sock"


def refused_untouched(trial: Trial, words: str, change: t.Callable[[Trial, str], dict[str, t.Any]]) -> str:
    """The turn's own check refuses, and the node that runs is not touched."""
    turn_id = trial.ready()
    before = trial.node()["pid"]
    result = trial.start(turn_id, **change(trial, turn_id)).answer()["result"]
    trial.expect(not result["touched"] and trial.node()["pid"] == before, f"the node was touched: {result['reason']}")
    trial.expect(words in str(result["reason"]), f"for another reason: {result['reason']}")
    outcome = trial.end(turn_id, result)
    trial.expect(outcome == "put_back", f"it ended {outcome}")
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
    """The gateway does not answer before the drain: no drain, no stop."""
    gateway = trial.net.gateway
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


def request_that_never_ends(trial: Trial) -> str:
    """Something is in flight for longer than a drain may take: it fails, the server is put back, and nothing is stopped."""
    turn_id = trial.new_turn()
    trial.lock()
    before = trial.node()["pid"]

    def slow() -> int:
        url = f"{trial.net.api(trial.net.gateway)}/health?delay_ms=9000"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)

    # One for each server, whoever comes first.
    flights = [trial.net.pool.submit(slow) for dummy in range(2 * len(trial.net.validators))]
    time.sleep(0.7)
    said = trial.refused(lambda: trial.drain(turn_id, timeout=2.0), "is not empty after", "it is in rotation again")
    trial.expect([one.result(40) for one in flights] == [200] * len(flights), "a request that was in flight was not served")
    trial.expect(trial.node()["pid"] == before, "the node was touched")
    trial.unlock()
    trial.turns.clear()
    return f"nothing touched: {said[:70]}"


def journal_edited(trial: Trial) -> str:
    """A record in the middle of the journal is changed: no engine believes the rest, and the mended one is gone on with."""
    turn_id = trial.ready()
    path = f"/var/lib/chainops/{trial.host}/journal/{turn_id}/journal.log"
    trial.arm("stop-after", *part("done", "stop", "forward"))
    controller = trial.start(turn_id)
    pid = trial.fired(controller)
    controller.kill()
    trial.net.ask(trial.host, "kill", pid=pid, signal="SIGSTOP")
    wrong, right = '"step":"quard"', '"step":"guard"'
    trial.net.ask(trial.host, "replace", path=path, old=right, new=wrong)
    trial.net.ask(trial.host, "kill", pid=pid, signal="SIGKILL")
    time.sleep(2.5)
    trial.expect(trial.node()["pid"] is None, "an engine went on by an edited journal")
    trial.net.ask(trial.host, "replace", path=path, old=wrong, new=right)
    result = trial.again(turn_id)["result"]
    outcome = trial.end(turn_id, result)
    trial.expect(outcome == "committed", f"it ended {outcome}: {result['reason']}")
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
    outcome = trial.end(turn_id, result)
    trial.expect(outcome == "put_back", f"it ended {outcome}")
    return f"{outcome}: {str(result['reason'])[-80:]}"


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
        Case("request-in-flight-longer-than-a-drain", "17", request_that_never_ends),
        Case("journal-edited-in-the-stop-window", "23", journal_edited),
        Case("manifest-edited", "23", manifest_edited, BACK),
        Case("rollback-point-damaged", "8", rollback_point_damaged, BACK),
    ]


CASES = _cases()
