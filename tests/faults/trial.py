# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One case while it runs: a host, its rollout, and the hands of a controller that may be killed at any point."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
import typing as t

import checker
from network import ON_HOST, Broken, Clients, JsonDict, Network, Refusal, answer, wait

HOLDER = "faults@controller"
FORWARD, BACK = "forward", "back"
ROOTS = [
    {"name": "data", "path": "/var/lib/xai/data"},
    {"name": "wallets", "path": "/var/lib/xai/wallets"},
    {"name": "config", "path": "/etc/xai"},
    {"name": "unit", "path": "/etc/systemd/system/xai-node.service"},
]
PROBE: JsonDict = {"deadline": 40.0, "height_advance": 2, "max_lag": 3, "min_peers": None, "signs": True}
BUDGETS: JsonDict = {"prepare": 60.0, "stop": 15.0, "freeze": 60.0, "migrate": 60.0, "start": 20.0, "total": 150.0}


@dataclasses.dataclass(frozen=True)
class Case:
    """``way``: the turn that it gives one host, "" for none. ``fleet``: the release that all hosts must run before it."""

    name: str
    row: str
    act: t.Callable[[Trial], str]
    way: str = FORWARD
    quick: bool = False
    fleet: str = ""
    without: tuple[str, ...] = ()


class Controller:
    """A module call as a controller makes it: a process here, and one on the host that goes with it."""

    def __init__(self, net: Network, host: str, asked: JsonDict, *, preload: bool = False, user: str = "") -> None:
        """``preload``: the shim is under the caller, too. ``user``: who asks, where it isn't root."""
        self.net, self.host = net, host
        self.pidfile = f"/run/faults-{time.monotonic_ns()}.pid"
        shim = f"LD_PRELOAD={ON_HOST}/boundary.so " if preload else ""
        command = f"{shim}exec {f'runuser -u {user} -- ' if user else ''}python3 -B {ON_HOST}/agent.py turn"
        self.process = subprocess.Popen(
            [*net.ssh(host), f"echo $$ > {self.pidfile}; {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked))
        self.process.stdin.close()
        self.process.stdin = None

    def signal(self, name: str) -> None:
        """To both of its ends: a laptop that is closed takes the connection with it, a killed job the remote process."""
        with contextlib.suppress(Broken, Refusal):
            self.net.sh(self.host, f"kill -{name.removeprefix('SIG')} $(cat {self.pidfile})", check=False)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.Signals[name])

    def kill(self) -> None:
        self.signal("SIGKILL")
        self.process.communicate(timeout=20)

    def lose(self) -> None:
        """Only the end on this machine goes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=20)

    def answer(self, timeout: float = 180.0) -> JsonDict:
        """Raises Refusal, or Broken."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise Broken(f"{self.host}: the turn's caller did not come back within {timeout:g} s") from error
        try:
            told = json.loads(out.splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise Broken(f"{self.host}: the turn's caller gave no answer: {err.strip()[-600:]}") from error
        return answer(self.host, "turn", told)


@dataclasses.dataclass(frozen=True)
class Standing:
    """A turn whose engine was stopped, or killed, at a boundary. ``pid``: the engine's, 0 when there is none."""

    turn_id: str
    controller: Controller
    pid: int
    changes: JsonDict


class Trial:
    """What a case has in its hands. Everything it does to a host is in ``turns``, so that the checker knows where to look."""

    def __init__(self, net: Network, clients: Clients, proof: JsonDict, case: Case, host: str, number: int) -> None:
        self.net, self.clients, self.proof, self.case, self.host = net, clients, proof, case, host
        # Turns are named for good, and a network may be kept for another run.
        self.rollout = f"{net.run}-{number}-{case.name}"[:48]
        self.turns: dict[str, list[str]] = {}
        self.token = 0
        self.receipts: list[JsonDict] = []
        self.still_drained: set[str] = set()
        self.held = False
        #: What this host's inventory would say otherwise than the others', and who takes its turns.
        self.settings: JsonDict = {}
        self.user = ""
        self.evidence = checker.Evidence(net, clients, proof, exact=not case.fleet)

    # -- the lock and the gateways -------------------------------------------------------------------------------------

    def lock(self, *, holder: str = HOLDER, rollout: str = "", lease: float = 900.0, break_it: bool = False) -> int:
        """Ask every host, as a rollout does. Returns the token of a majority; raises Broken when there is none."""
        seen = self.net.ask_all(self.net.validators, "seen_token", instance=lambda host: host)
        answers = self.net.ask_all(
            self.net.validators,
            "hold",
            instance=lambda host: host,
            token=max(one["token"] for one in seen.values()) + 1,
            rollout_id=rollout or self.rollout,
            holder=holder,
            lease_seconds=lease,
            break_it=break_it,
        )
        granted = {host: one for host, one in answers.items() if one["granted"]}
        if len(granted) * 2 <= len(answers):
            raise Refusal({"message": "; ".join(sorted({one["reason"] for one in answers.values() if not one["granted"]}))})
        self.held = True
        self.token = max(one["token"] for one in granted.values())
        return self.token

    def unlock(self, *, holder: str = HOLDER, rollout: str = "") -> None:
        self.net.ask_all(
            self.net.validators, "release", instance=lambda host: host, rollout_id=rollout or self.rollout, holder=holder
        )
        self.held = False

    def drain(self, turn_id: str, *, token: int = 0, **changes: t.Any) -> None:
        self.receipts = [one["receipt"] for one in self._gateways("drained", turn_id, token, **changes)]

    def undrain(self, turn_id: str, *, token: int = 0, timeout: float = 60.0) -> None:
        self._gateways("active", turn_id, token, timeout=timeout)

    def _gateways(self, state: str, turn_id: str, token: int, **changes: t.Any) -> list[JsonDict]:
        """All at once, and each to its end, as a play on them does. Raises what the first that didn't do it said."""
        asked = {"server": self.host, "instance": self.host, "turn_id": turn_id, "fence_token": token or self.token, **changes}
        told = [self.net.pool.submit(self.net.ask, name, "gateway", state=state, **asked) for name in self.net.gateways]
        concurrent.futures.wait(told)
        return [one.result() for one in told]

    # -- turns ---------------------------------------------------------------------------------------------------------

    def new_turn(self, host: str = "") -> str:
        name = host or self.host
        ids = self.turns.setdefault(name, [])
        ids.append(f"{self.rollout}-{name}-{len(ids) + 1}")
        return ids[-1]

    def request(self, turn_id: str, way: str = "", **changes: t.Any) -> JsonDict:
        """What roles/upgrade asks of validator_upgrade, on this host."""
        net, host = self.net, self.host
        release = net.release("2.0.0")
        forward = (way or self.case.way) == FORWARD
        return {
            "state": "upgraded" if forward else "rolled_back",
            "instance": host,
            "state_dir": "/var/lib/chainops",
            "chain": "xai",
            "api_url": "http://127.0.0.1:8545",
            "turn_id": turn_id,
            "rollout_id": self.rollout,
            "release": {"id": "2.0.0", "sha256": net.digest("2.0.0"), "version": "2.0.0", "level": 2} if forward else None,
            "release_link": checker.link(host),
            "service": {"manager": "systemd", "unit": "xai-node.service", "scope": "system"},
            "data_dir": "/var/lib/xai/data",
            "roots": ROOTS,
            "snapshot_id": f"turn-{turn_id}",
            "back_to": None,
            "migrations": release["migrations"] if forward else [],
            "proof": self.proof["proof"] if forward else {},
            "proof_sha256": None,
            "fence_token": self.token,
            "drain_receipts": self.receipts,
            "require_drain": True,
            "client_addresses": [],
            "expected_address": net.key(host),
            "peers": [net.api(other) for other in net.validators if other != host],
            "probe": PROBE,
            "budgets": BUDGETS,
            "policy": {"kill": False, "migrate": "in_place", "stop_window_budget": 0.0},
            "confirm": None,
            **self.settings,
            **changes,
        }

    def ready(self, *, lease: float = 900.0) -> str:
        """Locked and drained: the host may be stopped. Returns the id of the turn that it is ready for."""
        turn_id = self.new_turn()
        self.lock(lease=lease)
        self.drain(turn_id)
        return turn_id

    def start(
        self, turn_id: str, way: str = "", *, timeout: float = 150.0, preload: bool = False, **changes: t.Any
    ) -> Controller:
        asked = {"request": self.request(turn_id, way, **changes), "timeout": timeout}
        return Controller(self.net, self.host, asked, preload=preload, user=self.user)

    def again(self, turn_id: str, way: str = "", *, timeout: float = 150.0, **changes: t.Any) -> JsonDict:
        """The same call once more, as `resume` makes it: it waits for the turn, or says what came of it."""
        return self.start(turn_id, way, timeout=timeout, **changes).answer()

    def stands(self, *parts: str, mode: str = "stop-after", **changes: t.Any) -> Standing:
        """A turn begun on a host that is ready for it, and its engine at the record that has these parts."""
        turn_id = self.ready()
        self.arm(mode, *parts)
        controller = self.start(turn_id, **changes)
        return Standing(turn_id, controller, self.fired(controller), changes)

    def goes_on(self, at: Standing) -> JsonDict:
        """The engine goes on, its caller waits for it. Returns the result."""
        self.cont(at.pid)
        return t.cast("JsonDict", at.controller.answer()["result"])

    def asked_again(self, at: Standing) -> JsonDict:
        """What whoever asks learns when that caller is gone. Returns the result."""
        return t.cast("JsonDict", self.again(at.turn_id, **at.changes)["result"])

    def ended(self, turn_id: str, result: JsonDict, *wanted: str, words: str = "", sessions: int = 0) -> str:
        """``end``; raises Broken unless it came to this, for this reason, in so many sessions (0: any)."""
        outcome = self.end(turn_id, result)
        fits = outcome in wanted and words in str(result["reason"]) and sessions in (0, result["sessions"])
        self.expect(fits, f"it ended {outcome} in {result['sessions']} sessions ({result['reason']}), expected {wanted} {words}")
        return outcome

    def end(self, turn_id: str, result: JsonDict, *, way: str = "", undrain: bool = True) -> str:
        """What a rollout does after a turn: the host goes back to the gateways, the manifest is written, the lock given back."""
        if undrain:
            self.undrain(turn_id)
        self.record(turn_id, result, way)
        if self.held:
            self.unlock()
        return str(result["outcome"])

    def record(self, turn_id: str, result: JsonDict, way: str = "") -> None:
        """Write the turn down in the host's manifest; a second time changes nothing."""
        outcome = str(result["outcome"])
        kind = {FORWARD: "upgrade", BACK: "rollback"}[way or self.case.way] if outcome == "committed" else "put_back"
        if result["touched"]:
            self.net.ask(
                self.host,
                "record",
                instance=self.host,
                entry={
                    "kind": kind,
                    "rollout_id": self.rollout,
                    "turn_id": turn_id,
                    "proposal_id": self.proof["id"],
                    "release": {"id": result["new"].get("id"), "sha256": result["new"]["sha256"]},
                    "previous": {
                        "sha256": result["old"]["sha256"],
                        "path": result["old"]["path"],
                        "level": result["old"]["level"],
                    },
                    "snapshot_id": result["snapshot"]["id"] or "",
                    "snapshot_sha256": result["snapshot"]["sha256"] or "",
                    "outcome": outcome,
                    "proof_sha256": self.proof["digest"],
                },
            )

    # -- boundaries ----------------------------------------------------------------------------------------------------

    def arm(self, mode: str, *parts: str, times: int = 1, seconds: float = 0.0) -> None:
        self.net.ask(self.host, "arm", mode=mode, parts=list(parts), times=times, seconds=seconds)

    def disarm(self) -> None:
        self.net.ask(self.host, "arm")

    def fired(self, controller: Controller | None = None, timeout: float = 60.0) -> int:
        """Wait for the boundary; returns the engine's pid. Raises what the turn's caller came back with before it was reached."""
        reached = self.net.pool.submit(self.net.ask, self.host, "fired", instance=self.host, timeout=timeout)
        while controller is not None and not reached.done():
            if controller.process.poll() is not None and not concurrent.futures.wait([reached], 1.0).done:
                raise Broken(f"the turn was over before it came to the boundary: {json.dumps(controller.answer())[:600]}")
            time.sleep(0.02)
        return int(reached.result()["pid"])

    def cont(self, pid: int) -> None:
        self.net.ask(self.host, "kill", pid=pid, signal="SIGCONT")

    def node(self) -> JsonDict:
        return self.net.ask(self.host, "node", instance=self.host)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(what)

    def refused(self, call: t.Callable[[], t.Any], *words: str) -> str:
        """Raises Broken unless the call is refused, with these words."""
        try:
            answer = call()
        except Refusal as no:
            missing = [word for word in words if word not in str(no)]
            if missing:
                raise Broken(f"it was refused, but for another reason than {missing}: {no}") from no
            return str(no)
        raise Broken(f"it was not refused: {json.dumps(answer)[:400]}")

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """The invariants that hold. Raises Broken for one that doesn't, or for a fleet that isn't whole."""
        checker.settled(self.net)
        rollout = self.evidence.collect(self.turns, self.rollout)
        bad = checker.problems(self.net, rollout) + checker.never_fell(self.net, self.evidence.before, rollout["seen"])
        if not self.turns:
            for host in self.net.validators:
                old, new = self.evidence.before[host], rollout["seen"][host]
                if old["unit"]["MainPID"] != new["unit"]["MainPID"] or old["turn_ids"] != new["turn_ids"]:
                    bad.append(f"{host} was touched, and should not have been")
        if bad:
            raise Broken("; ".join(bad))
        return checker.judge(rollout, self.case.without, self.still_drained)


def part(kind: str, step: str = "", way: str = "", *more: str) -> tuple[str, ...]:
    """What a journal's record of this kind has in it, for ``arm``."""
    found = [f'"kind":"{kind}"']
    if step:
        found.append(f'"step":"{step}"')
    if way:
        found.append(f'"way":"{way}"')
    return (*found, *more)


__all__ = ["BACK", "FORWARD", "HOLDER", "Broken", "Case", "Controller", "Refusal", "Trial", "part", "wait"]
