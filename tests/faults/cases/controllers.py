# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 1 to 3: controllers that sleep and wake up, two of them at once, and the lock between them."""

from __future__ import annotations

import functools
import json
import time

from trial import BACK, FORWARD, HOLDER, Broken, Case, Controller, Refusal, Trial, part, wait

from cases.boundaries import records

OTHER = "someone-else@another-controller"


def over(trial: Trial) -> None:
    """Wait until this host's turn has ended, without being its caller."""
    script = f"[ ! -e /var/lib/chainops/{trial.host}/journal/open ] && ! systemctl is-active -q chainops-turn@{trial.host}"
    wait(lambda: trial.net.ask(trial.host, "shell", script=script)["rc"] == 0, "the engine ended the turn by itself", 120.0, 0.2)


def asleep_and_taken_over(trial: Trial, parts: tuple[str, ...]) -> str:
    """The controller is stopped at a boundary, somebody else takes over when lease and engine have ended, and it wakes up."""
    turn_id = trial.ready(lease=1.0)
    old = trial.token
    trial.arm("stop-after", *parts)
    controller = trial.start(turn_id)
    pid = trial.fired(controller)
    controller.signal("SIGSTOP")
    time.sleep(1.2)
    # Expired by its lease, but the engine still works under it: age alone is nothing.
    kept = trial.net.ask(trial.host, "hold", instance=trial.host, rollout_id="other", holder=OTHER)
    trial.expect(not kept["granted"] and "the engine works on turn" in kept["reason"], f"taken from under an engine: {kept}")
    trial.cont(pid)
    over(trial)
    new = trial.lock(holder=OTHER, rollout="other")
    trial.expect(new > old, f"the new token {new} is not above the old one, {old}")
    trial.drain(turn_id, token=new)
    controller.signal("SIGCONT")
    result = controller.answer()["result"]
    # What it learns is true; what it wants to do next is refused, by the host and by the gateways.
    trial.refused(lambda: trial.undrain(turn_id, token=old), "is older than")
    trial.refused(lambda: trial.drain(turn_id, token=old), "is older than")
    # Whoever took over writes down what came of it, so that there is a way back that the old one could want.
    trial.record(turn_id, result)
    trial.token = old
    way = BACK if trial.case.way == FORWARD else FORWARD
    trial.refused(lambda: trial.again(f"{turn_id}-late", way, timeout=20.0), "is older than")
    told = trial.net.ask(trial.host, "hold", instance=trial.host, rollout_id=trial.rollout, holder=HOLDER)
    trial.expect(not told["granted"] and OTHER in told["reason"], f"the old holder was not told who took over: {told}")
    trial.token = new
    trial.undrain(turn_id)
    trial.unlock(holder=OTHER, rollout="other")
    outcome = trial.end(turn_id, result, undrain=False)
    trial.expect(outcome == "committed", f"it ended {outcome}: {result['reason']}")
    return f"{outcome}; the old controller refused under token {old} < {new}"


def connection_lost(trial: Trial) -> str:
    """Only this machine's end of the connection goes, as a laptop does; the call on the host is orphaned."""
    at = trial.stands(*part("begin", "freeze", "forward"))
    at.controller.lose()
    trial.cont(at.pid)
    result = trial.asked_again(at)
    trial.expect(result["sessions"] == 1, "the engine was started twice")
    return trial.end(at.turn_id, result)


def killed_while_it_opens(trial: Trial, mode: str) -> str:
    """The caller dies around the first record, before the turn is open: nothing begins, and the same call later does it all."""
    turn_id = trial.ready()
    before = trial.node()["pid"]
    trial.arm(mode, *part("open"))
    controller = trial.start(turn_id, preload=True)
    try:
        raise Broken(f"the caller was not killed: {json.dumps(controller.answer())[:300]}")
    except Broken as gone:
        trial.expect("gave no answer" in str(gone), str(gone))
    here = trial.node()
    trial.expect(here["pid"] == before and not here["guarded"], f"something was touched: {here}")
    result = trial.again(turn_id)["result"]
    outcome = trial.end(turn_id, result)
    trial.expect(outcome == "committed" and result["sessions"] == 1, f"{outcome}: {result['reason']}")
    return outcome


def silence(trial: Trial, on_silence: str) -> str:
    """The dead-man: nobody is there to confirm, and the host decides by its policy."""
    policy = {"confirm": {"deadline": 2.0, "on_silence": on_silence}}
    at = trial.stands(*part("begin", "confirm"), **policy)
    at.controller.kill()
    trial.cont(at.pid)
    over(trial)
    result = trial.asked_again(at)
    outcome = trial.end(at.turn_id, result)
    trial.expect(outcome == {"commit": "committed", "put_back": "put_back"}[on_silence], f"it ended {outcome}")
    return f"{outcome}, decided by the host"


def engine_dies_again_and_again(trial: Trial) -> str:
    """Three times in one step is enough: the turn goes back."""
    turn_id = trial.ready()
    trial.arm("kill-after", *part("begin", "probe", "forward"), times=3)
    controller = trial.start(turn_id)
    result = controller.answer()["result"]
    outcome = trial.ended(turn_id, result, "put_back", words="died in it 3 times")
    return f"{outcome} after {result['sessions']} sessions"


def written_again(trial: Trial, mode: str, parts: tuple[str, ...]) -> str:
    """The engine dies with half a record on disk (kill-torn), or the disk refuses one (eio).

    What wasn't promised is dropped and written again: nothing goes on unwritten, and the unit starts another engine.
    """
    turn_id = trial.ready()
    trial.arm(mode, *parts)
    result = trial.start(turn_id).answer()["result"]
    outcome = trial.end(turn_id, result)
    trial.expect(
        outcome == "committed" and result["sessions"] == 2, f"{outcome} in {result['sessions']} sessions: {result['reason']}"
    )
    return f"{outcome} after {result['sessions']} sessions"


def same_turn_twice(trial: Trial) -> str:
    """One job started twice: both wait for the same turn, and there is one."""
    turn_id = trial.ready()
    both = [trial.start(turn_id), trial.start(turn_id)]
    outcomes = []
    for one in both:
        try:
            outcomes.append(one.answer()["result"])
        except Refusal as no:
            trial.expect("under way" in str(no) or "meanwhile" in str(no), f"refused for another reason: {no}")
    trial.expect(bool(outcomes), "nobody did it")
    trial.expect({one["outcome"] for one in outcomes} == {"committed"} and outcomes[0]["sessions"] == 1, f"{outcomes}"[:300])
    return f"{trial.end(turn_id, outcomes[0])}, once, for {len(outcomes)} of 2 callers"


def two_turns_at_once(trial: Trial) -> str:
    """Two controllers, each with a turn and a receipt of its own, on one host: one wins, the other is told."""
    trial.lock()
    calls = []
    for dummy in range(2):
        turn_id = trial.new_turn()
        trial.drain(turn_id)
        calls.append((turn_id, trial.request(turn_id)))
    running = [(turn_id, Controller(trial.net, trial.host, {"request": asked, "timeout": 120.0})) for turn_id, asked in calls]
    won, refused = [], []
    for turn_id, one in running:
        try:
            won.append((turn_id, one.answer()))
        except Refusal as no:
            refused.append(str(no))
    trial.expect(len(won) == 1 and len(refused) == 1, f"{len(won)} won; refused: {refused}")
    trial.expect("under way" in refused[0] or "opened on this host meanwhile" in refused[0], f"another reason: {refused[0]}")
    trial.turns[trial.host] = [won[0][0]]
    result = won[0][1]["result"]
    outcome = trial.end(won[0][0], result)
    trial.expect(outcome == "committed", f"it ended {outcome}: {result['reason']}")
    return f"one {outcome}; the other: {refused[0][:60]}"


# -- the lock alone ----------------------------------------------------------------------------------------------------


def race_for_the_lock(trial: Trial) -> str:
    """Ten times two holders at the same moment on all hosts: never two with a majority."""
    hosts = trial.net.validators
    won = {HOLDER: 0, OTHER: 0}
    for number in range(10):
        asked = [(holder, host) for host in hosts for holder in ((HOLDER, OTHER) if number % 2 else (OTHER, HOLDER))]

        def ask(pair: tuple[str, str]) -> tuple[str, bool, str]:
            holder, host = pair
            told = trial.net.ask(host, "hold", instance=host, rollout_id=f"race-{holder}", holder=holder)
            return holder, bool(told["granted"]), str(told["reason"])

        answers = list(trial.net.pool.map(ask, asked))
        count = {holder: sum(granted for who, granted, dummy in answers if who == holder) for holder in won}
        trial.expect(count[HOLDER] + count[OTHER] == len(hosts), f"some host was given to both or to nobody: {count}")
        for holder, votes in count.items():
            won[holder] += votes * 2 > len(hosts)
        for who, granted, reason in answers:
            trial.expect(
                granted or (OTHER if who == HOLDER else HOLDER) in reason, f"the refusal does not name the holder: {reason}"
            )
        for holder in won:
            trial.unlock(holder=holder, rollout=f"race-{holder}")
    return f"majorities of 10 rounds: {won[HOLDER]} and {won[OTHER]}"


def lease_of_a_dead_holder(trial: Trial) -> str:
    """Refused with the holder's name while the lease runs, granted with a higher token when it has run out."""
    first = trial.lock(lease=2.0)
    said = trial.refused(lambda: trial.lock(holder=OTHER, rollout="other"), HOLDER, "its lease runs on")
    time.sleep(2.2)
    second = trial.lock(holder=OTHER, rollout="other")
    trial.expect(second > first, f"token {second} after {first}")
    trial.unlock(holder=OTHER, rollout="other")
    return f"first: {said[:60]}...; then token {first} -> {second}"


def lease_and_the_clock(trial: Trial, seconds: int) -> str:
    """A clock that steps ends no lease within one boot, and lengthens none."""
    trial.lock(lease=2.0)
    ask = json.dumps({"instance": trial.host, "rollout_id": "other", "holder": OTHER})
    script = (
        f"echo '{ask}' | LD_PRELOAD=/var/lib/faults/boundary.so FAULTS_CLOCK={seconds} python3 -B /var/lib/faults/agent.py hold"
    )
    # Renewed only here: starting a process takes its time.
    trial.net.ask(trial.host, "hold", instance=trial.host, rollout_id=trial.rollout, holder=HOLDER, lease_seconds=30.0)
    early = json.loads(trial.net.sh(trial.host, script))["ok"]
    trial.expect(not early["granted"] and "its lease runs on" in early["reason"], f"taken by a clock that stepped: {early}")
    trial.net.ask(trial.host, "hold", instance=trial.host, rollout_id=trial.rollout, holder=HOLDER, lease_seconds=0.5)
    time.sleep(0.7)
    late = json.loads(trial.net.sh(trial.host, script))["ok"]
    trial.expect(late["granted"] and "expired" in late["reason"], f"not given although it has run out: {late}")
    trial.net.ask(trial.host, "release", instance=trial.host, rollout_id="other", holder=OTHER)
    trial.unlock()
    return f"kept, then given, with the clock {seconds:+d} s off"


def lease_across_a_reboot(trial: Trial) -> str:
    """A host that comes up again still knows who holds it."""
    trial.lock(lease=600.0)
    trial.turns[trial.host] = []
    trial.net.reboot(trial.host)
    told = trial.net.ask(trial.host, "hold", instance=trial.host, rollout_id="other", holder=OTHER)
    trial.expect(not told["granted"] and HOLDER in told["reason"], f"forgotten: {told}")
    again = trial.lock()
    trial.unlock()
    return f"held across the reboot, renewed under token {again}"


def broken_deliberately(trial: Trial) -> str:
    """Breaking is possible, goes on record with both names, and the one it was taken from is refused."""
    first = trial.lock()
    second = trial.lock(holder=OTHER, rollout="other", break_it=True)
    trial.refused(lambda: trial.lock(), OTHER)
    kept = trial.net.sh(trial.host, f"tail -n 1 /var/lib/chainops/{trial.host}/evidence/lock.jsonl")
    line = json.loads(kept)
    trial.expect(line["holder"] == OTHER and line["broke"]["holder"] == HOLDER, f"the record: {line}")
    trial.token = first
    turn_id = "never-begun"
    trial.refused(lambda: trial.again(turn_id, FORWARD, timeout=10.0), "is older than")
    trial.unlock(holder=OTHER, rollout="other")
    return f"recorded; token {first} -> {second}, the old one refused"


def _cases() -> list[Case]:
    found = []
    there, back = records(FORWARD), records(BACK)
    for name in ("begin-check", "done-stop", "begin-migrate", "note-answered", "begin-commit"):
        act = functools.partial(asleep_and_taken_over, parts=there[name])
        found.append(Case(f"controller-sleeps-through-a-takeover-at-{name}", "2", act, quick=name == "done-stop"))
    for name in ("done-guard", "done-restore", "done-start"):
        act = functools.partial(asleep_and_taken_over, parts=back[name])
        found.append(Case(f"controller-sleeps-through-a-takeover-on-the-way-back-at-{name}", "2", act, BACK))
    found.append(Case("controller-loses-its-connection", "1", connection_lost))
    found.append(
        Case("controller-killed-before-the-turn-is-open", "1", functools.partial(killed_while_it_opens, mode="kill-before"))
    )
    found.append(
        Case("controller-killed-after-the-first-record", "1", functools.partial(killed_while_it_opens, mode="kill-after"))
    )
    for on_silence in ("commit", "put_back"):
        name = f"nobody-confirms-and-silence-means-{on_silence.replace('_', '-')}"
        found.append(Case(name, "1", functools.partial(silence, on_silence=on_silence), quick=on_silence == "put_back"))
    found.append(Case("engine-dies-three-times-in-one-step", "1", engine_dies_again_and_again))
    for name in ("done-stop", "begin-switch", "closed"):
        act = functools.partial(written_again, mode="kill-torn", parts=there[name])
        found.append(Case(f"journal-torn-at-{name}", "1", act, quick=name == "begin-switch"))
    for name in ("begin-freeze", "done-start"):
        act = functools.partial(written_again, mode="eio", parts=there[name])
        found.append(Case(f"journal-refuses-a-record-at-{name}", "7", act))
    found.append(Case("one-turn-started-twice-at-once", "3", same_turn_twice, BACK))
    found.append(Case("two-turns-started-at-once", "3", two_turns_at_once, quick=True))
    found.append(Case("two-rollouts-race-for-the-lock", "3", race_for_the_lock, "", quick=True))
    found.append(Case("lock-holder-is-dead", "3", lease_of_a_dead_holder, "", quick=True))
    found.append(Case("lock-is-broken-deliberately", "3", broken_deliberately, ""))
    found.append(Case("lock-and-a-clock-two-hours-ahead", "16", functools.partial(lease_and_the_clock, seconds=7200), ""))
    found.append(Case("lock-and-a-clock-two-hours-behind", "16", functools.partial(lease_and_the_clock, seconds=-7200), ""))
    found.append(Case("lock-holder-s-host-is-rebooted", "3", lease_across_a_reboot, ""))
    return found


CASES = _cases()
