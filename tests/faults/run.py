#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives rollouts into every fault that the suite knows, on real hosts, and checks the invariants after each.

Prints one line a case: how it ended, its name, the row of the table in README.md, what came of the turn, seconds, and the
invariants that were checked. Ends with `N passed, N failed`; exit status 0 only when every case that was to run has passed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import typing as t

import checker
from cases import CASES
from network import HERE, REPO, Broken, Clients, JsonDict, Network, Refusal, wait
from trial import BACK, FORWARD, Case, Trial

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._host import install

OUT = REPO / "build" / "faults"
PROPOSAL = "faults-2.0.0"
VERSIONS = {FORWARD: "1.0.0", BACK: "2.0.0"}
#: What the proof lasts, in blocks: longer than the suite.
POLICY = {"valid_blocks": 20000}


class Suite:
    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.started = time.monotonic()
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.net: Network
        self.clients: Clients
        self.proof: JsonDict
        self.used: collections.Counter[str] = collections.Counter()
        self.number = 0

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:7.1f} s  {text}", flush=True)

    # -- the network -----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(OUT / "logs", ignore_errors=True)
        self.net = Network(OUT)
        if not self.keep:
            self.net.play("devnet", "-e", "devnet_state=absent").must(True, timeout=180)
        if not self.keep or not self._gate_fits():
            self.net.play("devnet").must(True, timeout=900)
        (OUT / "lib.zip").write_bytes(install.build(install.sources()))
        shim = ["cc", "-O2", "-shared", "-fPIC", "-o", str(OUT / "boundary.so"), str(HERE / "boundary.c"), "-ldl"]
        subprocess.run(shim, check=True)
        self.net.equip()
        arguments = {
            "rollout_proposal_id": PROPOSAL,
            "rollout_release": self.net.release("2.0.0"),
            "rollout_report_dir": str(OUT / "report"),
            "rollout_policy": POLICY,
            "faults_gate_file": str(OUT / "gate.json"),
            "faults_chain_id": json.loads((self.net.home / "network" / "network.json").read_text())["chain_id"],
            "faults_readers": [{"name": host, "url": self.net.api(host)} for host in self.net.validators],
        }
        (OUT / "prepare.json").write_text(json.dumps({**arguments, "announce_channels": []}), encoding="utf-8")
        (OUT / "rollout.json").write_text(json.dumps({**arguments, **QUICKER}), encoding="utf-8")
        fresh = not self._gate_fits()
        if fresh:
            self.net.play(str(HERE / "prepare.yml"), "-e", f"@{OUT / 'prepare.json'}").must(True, timeout=400)
        gate = json.loads((OUT / "gate.json").read_text(encoding="utf-8"))
        if not gate["verdict"]["open"]:
            raise Broken(f"the gate is not open: {gate['verdict']['reasons']}")
        self.proof = {**gate, "id": PROPOSAL, "digest": canonical.digest(gate["proof"])}
        self.clients = Clients([self.net.address[gateway] for gateway in self.net.gateways])
        self.clients.start()
        if not fresh:
            self.recover(None)

    def _gate_fits(self) -> bool:
        """Kept from a run before, on the same network (--keep)."""
        path = OUT / "gate.json"
        if not self.keep or not path.exists():
            return False
        network = self.net.home / "network" / "network.json"
        return network.exists() and json.loads(network.read_text())["genesis_hash"] in path.read_text(encoding="utf-8")

    def down(self) -> None:
        if hasattr(self, "clients"):
            self.clients.stopped.set()
        if not self.keep and hasattr(self, "net"):
            self.net.play("devnet", "-e", "devnet_state=absent").must(True, timeout=180)

    # -- cases -----------------------------------------------------------------------------------------------------------

    def versions(self) -> dict[str, str]:
        return {host: self.net.version(host) for host in self.net.validators}

    def choose(self, case: Case) -> str:
        """The host that was longest left alone of those that run what the case starts from; one is brought there if need be."""
        versions = self.versions()
        wanted = VERSIONS[case.way or FORWARD]
        fitting = [host for host in self.net.validators if versions[host] == wanted]
        if not fitting:
            host = min(self.net.validators, key=lambda one: self.used[one])
            self.plain(host, BACK if wanted == "1.0.0" else FORWARD)
            return host
        return min(fitting, key=lambda one: self.used[one])

    def plain(self, host: str, way: str) -> None:
        """A turn without any fault."""
        self.number += 1
        trial = Trial(self.net, self.clients, self.proof, Case(f"to-{way}", "", lambda trial: "", way), host, self.number)
        turn_id = trial.ready()
        result = trial.start(turn_id).answer()["result"]
        if result["outcome"] != "committed":
            raise Broken(f"a plain turn of {host} ended {result['outcome']}: {result['reason']}")
        trial.end(turn_id, result)
        checker.settled(self.net)

    def run(self, cases: list[Case]) -> None:
        """Those for one host in whichever order moves the fewest hosts for nothing; those for the whole fleet last."""
        waiting = [case for case in cases if not case.fleet]
        while waiting:
            old = sum(version == "1.0.0" for version in self.versions().values())
            preferred = FORWARD if old * 2 >= len(self.net.validators) else BACK
            case = next((one for one in waiting if one.way in (preferred, "")), waiting[0])
            waiting.remove(case)
            self.one(case)
        for case in cases:
            if case.fleet:
                self.one(case)

    def one(self, case: Case) -> None:
        began = time.monotonic()
        trial: Trial | None = None
        self.number += 1
        try:
            if case.fleet:
                for host, version in self.versions().items():
                    if version != case.fleet:
                        self.plain(host, BACK if case.fleet == "1.0.0" else FORWARD)
                host = self.net.validators[0]
            else:
                host = self.choose(case)
            self.used[host] = self.number
            began = time.monotonic()
            trial = Trial(self.net, self.clients, self.proof, case, host, self.number)
            outcome = case.act(trial)
            checked = trial.check()
        except Exception as error:
            seconds = time.monotonic() - began
            self.failed.append(case.name)
            known = isinstance(error, (Broken, Refusal, OSError, subprocess.SubprocessError))
            text = str(error) if known else traceback.format_exc()
            self.say(f"FAILED  {case.name:<46} row {case.row:<6} {trial.host if trial else '-':<5} {seconds:6.1f} s  {text}")
            print(f"           again: make faults CASE={case.name}", flush=True)
            self.recover(trial)
            return
        self.passed.append(case.name)
        where, seconds = "fleet" if case.fleet else trial.host, time.monotonic() - began
        self.say(f"ok      {case.name:<46} row {case.row:<6} {where:<5} {seconds:6.1f} s  {outcome}; {' '.join(checked)}")

    def recover(self, trial: Trial | None) -> None:
        """After a failed case: bring the fleet back to where the next one can begin, by the means an operator has."""
        for host in self.net.validators:
            try:
                self.net.mend(host)
                if self.net.podman("inspect", "--format", "{{.State.Running}}", self.net.container(host)) != "true":
                    self.net.podman("start", self.net.container(host))
                wait(lambda: self.net.ask(host, "arm") == {}, f"{host} answers", 30, 0.5)
                self.net.sh(
                    host,
                    f"kill -CONT $(systemctl show chainops-turn@{host} --property MainPID --value) 2>/dev/null;"
                    f" systemctl start --no-block chainops-turn@{host} 2>/dev/null;"
                    f" for i in $(seq 100); do [ -e /var/lib/chainops/{host}/journal/open ] || break; sleep 0.5; done;"
                    f" rm -f /var/lib/chainops/{host}/lock;"
                    " rm -r /run/systemd/system/xai-node.service.d && systemctl daemon-reload && systemctl restart xai-node;"
                    " systemctl start xai-node",
                    check=False,
                    timeout=90,
                )
                self.net.ask(host, "write_down", instance=host)
            except (Broken, Refusal) as error:
                self.say(f"        {host} can't be brought back: {error}")
        try:
            for gateway, seen in self.net.ask_all(self.net.gateways, "gateway_look").items():
                for name, server in seen["servers"].items():
                    if server["state"] != "ready":
                        token = int((seen["receipts"][name] or {}).get("fence_token", 0))
                        asked = {"server": name, "instance": name, "fence_token": token, "timeout": 60.0}
                        self.net.ask(gateway, "gateway", state="active", **asked)
            checker.settled(self.net)
        except (Broken, Refusal) as error:
            self.say(f"        the fleet is not whole: {error}")


#: As in every rollout, only quicker.
QUICKER = {
    "rollout_stage": False,
    "rollout_close": False,
    # One wave: a canary is watched for longer than a case may take, and that is tested elsewhere.
    "rollout_wave_sizes": ["100%"],
    "rollout_monitoring": {},
    "rollout_canary_checks": [],
    "rollout_gateway_url": "",
    "announce_channels": [],
    "govern_key_file": "{{ devnet_home }}/network/accounts/operator1.key",
    "govern_cache_dir": str(OUT / "cache"),
}


def chosen(names: t.Sequence[str], quick: bool) -> list[Case]:
    known = {case.name: case for case in CASES}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no case {', '.join(unknown)}; make faults CASE=? lists them")
    if names:
        return [known[name] for name in names]
    return [case for case in CASES if case.quick or not quick]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these cases")
    parser.add_argument("--quick", action="store_true", help="those of make test")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up, and take those that an earlier --keep left")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    arguments = parser.parse_args()
    if len({case.name for case in CASES}) != len(CASES):
        sys.exit("two cases have one name")
    if arguments.list or arguments.names == ["?"]:
        for case in CASES:
            print(f"{case.name:<48} row {case.row:<6} {'quick' if case.quick else ''}")
        return 0
    cases = chosen(arguments.names, arguments.quick)
    if os.geteuid():
        sys.exit("the hosts are containers with systemd and a network of their own: run as root")
    os.environ.setdefault("DEVNET_NAME", "faults")
    os.environ.setdefault("DEVNET_SUBNET", "10.89.91.0/24")
    os.environ["DEVNET_VALIDATORS"], os.environ["DEVNET_GATEWAYS"] = "4", "2"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    suite = Suite(keep=arguments.keep)
    try:
        suite.say(f"{len(cases)} cases, on four validators and two gateways in containers of this machine")
        suite.up()
        suite.say("up, and the release is approved and unpacked")
        suite.run(cases)
    except (Broken, Refusal, subprocess.SubprocessError, KeyboardInterrupt) as error:
        print(f"faults: {error or 'interrupted'}", file=sys.stderr)
    finally:
        try:
            suite.down()
        except Broken as error:
            print(f"faults: the hosts can't be removed: {error}", file=sys.stderr)
            suite.failed.append("removing the hosts")
    left = [case.name for case in cases if case.name not in suite.passed and case.name not in suite.failed]
    for name in left:
        print(f"not run: {name}")
    print(f"\n{len(suite.passed)} passed, {len(suite.failed) + len(left)} failed")
    return 1 if suite.failed or left or not suite.passed else 0


if __name__ == "__main__":
    sys.exit(main())
