#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two rollouts on a network of this machine's containers, under client load: a good one, and one that the canary stops.

Act one: release 1.0.0 to 2.0.0, which changes the storage format, on four validators. Act two: 2.0.1, which starts, calls itself
healthy and doesn't follow the chain. Ends with a summary read from evidence: from blocks, from the hosts' journals through the
report, and from the load client's own account. Exit status 0 only if both acts ended as they should.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t
import urllib.request

REPO = pathlib.Path(__file__).resolve().parents[1]
OUT = REPO / "build" / "demo"
INVENTORY = REPO / "inventories" / "devnet"
MAX_MISSED = 3
# How long the node that does not follow the chain is given to begin; a healthy one takes three.
STALL_SECONDS = 15
START = time.monotonic()


class Failed(Exception):
    """The demo did not end as it should."""


def say(text: str = "") -> None:
    print(f"{time.monotonic() - START:7.1f} s  {text}" if text else "", flush=True)


def act(text: str) -> None:
    print(f"\n{'─' * 100}\n{text}\n{'─' * 100}", flush=True)


def get(url: str) -> t.Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def play(name: str, *arguments: str, log: str, expect: bool = True, quiet: bool = False) -> int:
    """Run a playbook with the timeline as its output; everything goes to a log as well. Stops the demo on another ending."""
    path = OUT / "logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, ANSIBLE_LOG_PATH=str(path))
    if not quiet:
        environment["ANSIBLE_STDOUT_CALLBACK"] = "chainops.validator.timeline"
    command = ["ansible-playbook", "-i", str(INVENTORY), name, *arguments]
    done = subprocess.run(command, cwd=REPO, env=environment, stdout=subprocess.DEVNULL if quiet else None, check=False)
    if (done.returncode == 0) != expect:
        raise Failed(f"{name} ended with status {done.returncode}; the whole log is in {path.relative_to(REPO)}")
    return done.returncode


@dataclasses.dataclass
class Network:
    """What the demo knows of the devnet, from its inventory alone."""

    validators: dict[str, str]
    gateway: str
    home: pathlib.Path

    @classmethod
    def read(cls) -> Network:
        listed = subprocess.run([sys.executable, INVENTORY / "hosts.py"], check=True, capture_output=True, text=True)
        inventory = json.loads(listed.stdout)
        address = {name: facts.get("ansible_host", "") for name, facts in inventory["_meta"]["hostvars"].items()}
        return cls(
            {name: f"http://{address[name]}:8545" for name in inventory["validators"]["hosts"]},
            f"http://{address[inventory['gateways']['hosts'][0]]}:8545",
            pathlib.Path(inventory["all"]["vars"]["devnet_home"]),
        )

    def versions(self) -> dict[str, str]:
        return {name: str(get(f"{url}/version")["version"]) for name, url in self.validators.items()}

    def height(self) -> int:
        return int(get(f"{self.gateway}/block/latest?summary=1")["block_number"])

    def missed(self, first: int, last: int) -> dict[str, int]:
        """Blocks from ``first`` to ``last`` that a validator did not sign, from the commits that the next blocks carry."""
        public = json.loads((self.home / "network" / "public.json").read_text(encoding="utf-8"))["validators"]
        count = dict.fromkeys(self.validators, 0)
        for height in range(first + 1, last + 2):
            commit = get(f"{self.gateway}/blocks/{height}")["last_commit"]
            signers = {one["address"] for one in commit["signatures"]}
            for name in count:
                count[name] += public[name] not in signers
        return count

    def equivocations(self) -> list[t.Any]:
        return [one for url in self.validators.values() for one in get(f"{url}/finality/status")["equivocations"]]


class Load:
    """Reads and signed transfers through the gateway, from before the first drain until after the last."""

    def __init__(self, network: Network, name: str) -> None:
        self.summary = OUT / f"{name}-load.json"
        self.summary.unlink(missing_ok=True)
        self._log = (OUT / "logs" / f"{name}-load.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(REPO / "roles" / "devnet" / "files" / "load_client.py")),
                *("--url", network.gateway),
                *("--accounts", str(network.home / "network" / "accounts.json"), "--skip-accounts", "5"),
                *("--api-key-file", str(network.home / "secrets" / "api_key")),
                *("--rate", "40", "--transfer-rate", "4", "--long", "4", "--duration", "1500"),
                *("--out", str(OUT / f"{name}-load.jsonl"), "--summary", str(self.summary)),
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        time.sleep(3)
        if self._process.poll() is not None:
            raise Failed(f"the load client ended at once; see build/demo/logs/{name}-load.log")

    def stop(self) -> dict[str, t.Any]:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise Failed("the load client did not end within 90 s") from None
        finally:
            self._log.close()
        if not self.summary.exists():
            raise Failed("the load client left no summary; see build/demo/logs")
        return t.cast("dict[str, t.Any]", json.loads(self.summary.read_text(encoding="utf-8")))


def release(network: Network, name: str) -> pathlib.Path:
    """A variables file for a rollout of a release that the devnet built."""
    descriptor = network.home.parent / ".releases" / f"xai-refnode-{name}-x86_64.release.json"
    path = OUT / f"release-{name}.json"
    path.write_text(json.dumps({"rollout_release": json.loads(descriptor.read_text(encoding="utf-8"))}), encoding="utf-8")
    return path


def rollout(network: Network, name: str, proposal: str) -> tuple[str, ...]:
    where = OUT / proposal
    where.mkdir(parents=True, exist_ok=True)
    return (
        *("-e", f"@{release(network, name)}", "-e", f"rollout_proposal_id={proposal}"),
        *("-e", f"rollout_report_dir={where}", "-e", "rollout_risk='low: rehearsed on this very network'"),
    )


def report(where: str, load: dict[str, t.Any]) -> dict[str, t.Any]:
    """The rollout's report, written once more with what the clients saw."""
    path = OUT / where / "report.json"
    if not path.exists():
        raise Failed(f"the rollout left no report at {path.relative_to(REPO)}")
    rollout = json.loads(path.read_text(encoding="utf-8"))["rollout"]
    rollout["load"] = load
    options = OUT / f"{where}.json"
    options.write_text(json.dumps({"dest": str(path.parent), "rollout": rollout}), encoding="utf-8")
    play(str(REPO / "tools" / "report.yml"), "-e", f"@{options}", log=f"{where}-report", quiet=True)
    return t.cast("dict[str, t.Any]", json.loads(path.read_text(encoding="utf-8")))


class Checks:
    """What must hold at the end, with what was seen; printed line by line."""

    def __init__(self) -> None:
        self.failed = 0

    def line(self, holds: bool, what: str, seen: t.Any) -> None:
        self.failed += not holds
        print(f"  {'ok    ' if holds else 'FAILED'}  {what:<72} {seen}", flush=True)


def traffic(checks: Checks, load: dict[str, t.Any]) -> None:
    checks.line(load["requests"] > 0 and load["failed"] == 0, "failed client requests", f"{load['failed']} of {load['requests']}")
    sent = load["transfers_sent"]
    checks.line(sent > 0 and load["lost"] == 0, "transfers lost", f"{load['lost']} of {sent}")
    checks.line(load["double_spends"] == 0, "double spends", load["double_spends"])


def invariants(checks: Checks, told: dict[str, t.Any]) -> None:
    for name, one in sorted(told["invariants"].items(), key=lambda item: int(item[0][1:])):
        checks.line(one["status"] == "held", f"{name} {one['promise']}"[:72], f"{one['status']}: {one['evidence']}"[:110])


def turns(checks: Checks, told: dict[str, t.Any]) -> None:
    for host in told["rollout"]["hosts"]:
        turn = host.get("turn") or {}
        drained = max((one["seconds"] for one in told["rollout"]["drains"] if one["instance"] == host["name"]), default=None)
        seconds = f"stop window {turn.get('stop_window_seconds')} s, freeze {turn.get('freeze_seconds')} s, drain {drained} s"
        whole = turn.get("outcome") == "committed" and (host.get("manifest") or {}).get("valid") is True
        checks.line(whole, f"{host['name']}: turn committed, manifest verified", seconds)


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "logs").mkdir(parents=True)
    act("The network: four validators, a gateway, Prometheus and Alertmanager, as containers of this machine")
    play("chainops.validator.devnet", "-e", "devnet_state=absent", log="down", quiet=True)
    play("chainops.validator.devnet", log="devnet", quiet=True)
    network = Network.read()
    say(f"up: {', '.join(f'{name} {version}' for name, version in network.versions().items())}; clients at {network.gateway}")

    act("Act one: release 2.0.0, behind an approved proposal, under client load")
    load = Load(network, "act-one")
    first = network.height()
    one = rollout(network, "2.0.0", "upgrade-2.0.0")
    play("chainops.validator.propose", *one, log="1-propose")
    play(str(REPO / "tools" / "vote.yml"), *one, log="1-vote")
    play("chainops.validator.upgrade", *one, log="1-upgrade")
    last = network.height() - 1
    loaded_one = load.stop()
    versions_one, missed_one, told_one = network.versions(), network.missed(first, last), report("upgrade-2.0.0", loaded_one)

    act("Act two: release 2.0.1 starts, calls itself healthy, and does not follow the chain")
    load = Load(network, "act-two")
    two = rollout(network, "2.0.1-stall", "upgrade-2.0.1")
    play("chainops.validator.propose", *two, log="2-propose")
    play(str(REPO / "tools" / "vote.yml"), *two, log="2-vote")
    say("staging is left out (it would catch this release: its observer does not follow); the next playbook is meant to fail,")
    say(f"{STALL_SECONDS} s after the canary's node has started")
    impatient = ("-e", "rollout_stage=false", "-e", f"upgrade_probe_deadline={STALL_SECONDS}")
    play("chainops.validator.upgrade", *two, *impatient, log="2-upgrade", expect=False)
    shutil.copytree(OUT / "upgrade-2.0.1", OUT / "stopped")
    play("chainops.validator.rollback", *two, log="2-rollback")
    loaded_two = load.stop()
    told_two = report("stopped", loaded_two)
    versions_two = network.versions()

    checks = Checks()
    act("Act one, from evidence")
    checks.line(set(versions_one.values()) == {"2.0.0"}, "every validator runs 2.0.0", versions_one)
    traffic(checks, loaded_one)
    checks.line(max(missed_one.values()) <= MAX_MISSED, f"missed blocks of {last - first}, at most {MAX_MISSED} each", missed_one)
    turns(checks, told_one)
    invariants(checks, told_one)
    act("Act two, from evidence")
    checks.line(set(versions_two.values()) == {"2.0.0"}, "every validator runs 2.0.0 again", versions_two)
    outcomes = {host["name"]: host["turn"]["outcome"] for host in told_two["rollout"]["hosts"] if host.get("turn")}
    checks.line(outcomes == {"val1": "put_back"}, "the canary, and only the canary, was touched and put back", outcomes)
    reason = next((host["turn"]["reason"] for host in told_two["rollout"]["hosts"] if host.get("turn")), "")
    checks.line(bool(reason), "because", reason)
    traffic(checks, loaded_two)
    checks.line(network.equivocations() == [], "double signing seen by any validator", network.equivocations())
    invariants(checks, told_two)
    print(f"\n  Report pages: {OUT.relative_to(REPO)}/upgrade-2.0.0/report.html and stopped/report.html")
    print("  make demo-down removes the network.")
    say(f"{'both acts ended as they should' if not checks.failed else f'{checks.failed} checks FAILED'}")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        say(f"FAILED: {failure}")
        sys.exit(1)
