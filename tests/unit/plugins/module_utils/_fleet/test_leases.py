# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import random
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._fleet import leases
from ansible_collections.chainops.validator.plugins.module_utils._host import lock

Json = t.Dict[str, t.Any]


def lease(token: int, run: str = "r-alice", *, expired: bool = False, rollout: str = "p7") -> Json:
    return {"rollout_id": rollout, "holder": f"the holder of {run}", "run": run, "token": token, "expired": expired}


def look(before: Json | None = None, *, fence: int = 0, working: str = "") -> Json:
    return {"before": before or {}, "fence": fence, "working": working}


BOB: Json = {"words": "bob", "run": "r-bob", "gone": []}
LIVE, DEAD = lease(4), lease(4, expired=True)

CASES: list[tuple[str, list[Json | None], Json, dict[str, t.Any]]] = [
    ("nobody holds it", [look(), look(fence=3), look(fence=1)], {}, {"ask": True, "token": 4, "over": []}),
    ("one in three holds a live lease", [look(LIVE, fence=4), look(), look()], {}, {"ask": True, "token": 5}),
    ("a majority's leases run on", [look(LIVE, fence=4), look(LIVE, fence=4), look(DEAD, fence=4)], {}, {"ask": False}),
    ("expired on a majority", [look(DEAD, fence=4), look(DEAD, fence=4), look(LIVE, fence=4)], {}, {"ask": True, "over": []}),
    ("expired on half", [look(DEAD), look(DEAD), look(LIVE), look(LIVE)], {}, {"ask": False}),
    ("expired, an engine at work", [look(DEAD), look(DEAD, working="t1"), look(DEAD)], {}, {"ask": False}),
    ("its process is gone", [look(LIVE), look(LIVE), look(LIVE)], {"gone": ["r-alice"]}, {"ask": True, "over": [4], "token": 5}),
    ("gone, an engine at work", [look(LIVE), look(LIVE), look(LIVE, working="t1")], {"gone": ["r-alice"]}, {"ask": False}),
    ("unknown hosts may hold a live lease", [look(DEAD), look(DEAD), None, None], {}, {"ask": False}),
    ("too few can be asked", [look(), None, None], {}, {"ask": False}),
    ("a majority can be asked", [look(), look(), None], {}, {"ask": True, "token": 1}),
    ("ours already", [look(lease(4, "r-bob"), fence=4), look(fence=4), look(fence=2)], {}, {"ask": True, "token": 4}),
    ("ours, overtaken", [look(lease(4, "r-bob"), fence=4), look(fence=6), look(fence=2)], {}, {"ask": True, "token": 7}),
    ("our run in another rollout", [look(lease(4, "r-bob", rollout="p8"), fence=4)] * 3, {}, {"ask": False}),
    ("broken", [look(LIVE, working="t1")] * 3, {"break": 4}, {"ask": True, "token": 5}),
    ("another one broken", [look(LIVE)] * 3, {"break": 3}, {"ask": False}),
    ("nothing to break", [look()] * 3, {"break": 3}, {"ask": False}),
    ("one host", [look(fence=9)], {}, {"ask": True, "token": 10}),
]


@pytest.mark.parametrize(("looks", "more", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_whether_to_ask(looks: list[Json | None], more: Json, wanted: Json) -> None:
    holder = {**BOB, "gone": more.get("gone", [])}
    found = leases.decide({f"h{i}": one for i, one in enumerate(looks)}, holder, "p7", more.get("break", 0))
    assert {name: found[name] for name in wanted} == wanted
    assert bool(found["reasons"]) is not found["ask"]


def test_whoever_is_refused_is_told_by_whom_and_what_could_be_done() -> None:
    (reason,) = leases.decide({"a": look(LIVE)}, BOB, "p7")["reasons"]
    assert "rollout p7 is held by the holder of r-alice under token 4" in reason and "rollout_break_token=4" in reason
    (reason,) = leases.decide({"a": look(DEAD, working="t1")}, BOB, "p7")["reasons"]
    assert "a (turn t1)" in reason


def answer(granted: bool, token: int = 5, reason: str = "it was free") -> Json:
    return {"granted": granted, "lock": {"token": token}, "reason": reason}


@pytest.mark.parametrize(
    ("answers", "held"),
    [
        ([answer(True)] * 3, True),
        ([answer(True), answer(True), None], True),
        ([answer(True), answer(True), None, None], False),
        ([answer(True), answer(False), answer(False)], False),
        ([answer(True), answer(True, 6), answer(True, 4)], False),
        ([answer(True), answer(True), {"msg": "disk full", "failed": True}], True),
        ([answer(True), {"msg": "disk full", "failed": True}], False),
    ],
)
def test_it_is_held_by_a_majority_under_one_token(answers: list[Json | None], held: bool) -> None:
    found = leases.held({f"h{i}": one for i, one in enumerate(answers)}, 5)
    assert found["held"] is held and len(found["granted"]) + len(found["reasons"]) == len(answers)


class Host:
    """A host as ``_host.lock`` keeps it, without the disk; its clock runs at its own pace and steps."""

    def __init__(self) -> None:
        self.lease: lock.Lease | None = None
        self.fence, self.working, self.acted = 0, False, 0
        self.mono, self.wall, self.boot, self.pace = 0.0, 1e9, "b0", 1.0

    def moment(self) -> Json:
        return {"mono": self.mono, "wall": self.wall, "boot": self.boot}

    def look(self) -> Json:
        held = self.lease if self.lease and not self.lease.released else None
        before = {**held.as_dict(), "expired": held.expired(self.moment())} if held else {}
        return {"before": before, "fence": self.fence, "working": "t" if self.working else ""}

    def hold(self, asking: lock.Asking) -> Json:
        said = lock.decide_held(
            self.lease, asking, highest=self.fence, working="t" if self.working else None, moment=self.moment()
        )
        if said.granted and said.lease:
            assert said.lease.token >= self.fence
            self.lease, self.fence = said.lease, said.lease.token
        return {"granted": said.granted, "lock": said.lease.as_dict() if said.lease else {}, "reason": said.reason}

    def release(self, asking: lock.Asking) -> None:
        self.lease = lock.decide_released(self.lease, asking).lease

    def use(self, token: int) -> bool:
        """What ``lock.use`` does."""
        if token < self.fence:
            return False
        self.fence = token
        return True


class Run:
    """A controller: it looks, it asks, it acts; between any two of its calls anything may happen."""

    def __init__(self, name: str) -> None:
        self.name, self.token, self.plan = name, 0, None  # type: tuple[str, int, Json | None] | t.Any
        self.answers: dict[str, Json | None] = {}
        self.done = False

    def asking(self, token: int = 0, over: t.Sequence[int] = (), breaks: int = 0) -> lock.Asking:
        return lock.Asking("p7", self.name, self.name, {}, token, 60.0, tuple(over), breaks)


@pytest.mark.parametrize("seed", range(150))
def test_no_two_runs_ever_have_a_majority_under_one_token(seed: int) -> None:
    """Random calls of several runs on hosts that are cut off, reboot, and whose clocks step: every order of every call."""
    chance = random.Random(seed)
    hosts = {f"h{i}": Host() for i in range(chance.choice([1, 2, 3, 4, 5, 7]))}
    runs = [Run(f"run{i}") for i in range(3)]
    owners: dict[int, str] = {}
    acted: dict[str, int] = dict.fromkeys(hosts, 0)
    for dummy in range(250):
        cut = {name for name in hosts if chance.random() < 0.2}
        run, name = chance.choice(runs), chance.choice(list(hosts))
        host, deed = hosts[name], chance.random()
        if deed < 0.15:
            for one in hosts.values():
                one.mono, one.wall = one.mono + 20 * one.pace, one.wall + 20 * one.pace
        elif deed < 0.2:
            host.wall += chance.choice([-3600, 3600])
        elif deed < 0.23:
            host.boot, host.mono = f"b{chance.random()}", 0.0
        elif deed < 0.27:
            host.working = not host.working
        elif deed < 0.3:
            host.release(run.asking())
        elif run.plan is None:
            seen = {key: None if key in cut else one.look() for key, one in hosts.items()}
            tokens = [one["before"]["token"] for one in seen.values() if one and one["before"]]
            breaks = chance.choice(tokens) if tokens and chance.random() < 0.1 else 0
            found = leases.decide(seen, {"run": run.name, "words": "", "gone": []}, "p7", breaks)
            if found["ask"]:
                run.plan, run.answers, run.token = {**found, "breaks": breaks, "left": list(hosts)}, {}, 0
        elif run.plan["left"]:
            key = run.plan["left"].pop()
            asked = run.asking(run.plan["token"], run.plan["over"], run.plan["breaks"])
            run.answers[key] = None if key in cut else hosts[key].hold(asked)
        elif not run.token:
            if leases.held(run.answers, run.plan["token"])["held"]:
                run.token = run.plan["token"]
                assert owners.setdefault(run.token, run.name) == run.name, f"token {run.token} has two owners"
            else:
                run.plan = None
        elif chance.random() < 0.3:
            run.plan = None
        elif name not in cut and host.use(run.token):
            assert run.token >= acted[name], "an older token acted after a newer one"
            acted[name] = run.token
    assert all(host.fence >= acted[name] for name, host in hosts.items())


def test_two_at_once_one_wins_or_none(seed: int = 0) -> None:
    """Every interleaving of two runs that ask three hosts: never both, and whoever acts first everywhere wins."""
    import itertools

    won = set()
    for order in set(itertools.permutations([0, 0, 0, 1, 1, 1])):
        for ways in itertools.product([["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]], repeat=2):
            hosts = {name: Host() for name in "abc"}
            runs = [Run("one"), Run("two")]
            left = [list(way) for way in ways]
            for which in order:
                name = left[which].pop(0)
                runs[which].answers[name] = hosts[name].hold(runs[which].asking(1))
            holding = [leases.held(run.answers, 1)["held"] for run in runs]
            assert holding != [True, True]
            won.add(tuple(holding))
    assert {(True, False), (False, True)} <= won
