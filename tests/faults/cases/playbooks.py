# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 1 to 4, 22, 26 and 27 with whole playbooks: what Ansible can be told, controllers that go, inventories that are wrong."""

from __future__ import annotations

import functools
import pathlib
import signal
import time
import typing as t

from network import Play
from trial import FORWARD, Broken, Case, Refusal, Trial, part, wait

from cases.controllers import OTHER

OLD, NEW = "1.0.0", "2.0.0"


def play(trial: Trial, name: str, *arguments: str, rollout: str = "", **more: t.Any) -> Play:
    """A playbook of this case's rollout."""
    options = ["-e", f"@{trial.net.out / 'rollout.json'}", "-e", f"rollout_id={rollout or trial.rollout}"]
    return trial.net.play(name, *options, *arguments, **more)


def turns(trial: Trial, rollout: str = "") -> dict[str, list[str]]:
    """The turns that this rollout has begun so far, by host; the checker looks at them."""
    for host in trial.net.validators:
        listed = trial.net.sh(host, f"ls -rt /var/lib/chainops/{host}/journal")
        mine = [name for name in listed.split() if name.startswith(f"{rollout or trial.rollout}-{host}-")]
        if mine:
            trial.turns[host] = [*trial.turns.get(host, ()), *(name for name in mine if name not in trial.turns.get(host, ()))]
    return trial.turns


def versions(trial: Trial) -> set[str]:
    return {trial.net.version(host) for host in trial.net.validators}


def all_new_once(trial: Trial, wanted: str = NEW) -> str:
    """Every host is new, by one turn each: none was repeated, none forgotten."""
    turns(trial)
    trial.expect(versions(trial) == {wanted}, f"the fleet runs {versions(trial)}")
    counts = {host: len(trial.turns.get(host, ())) for host in trial.net.validators}
    trial.expect(set(counts.values()) == {1}, f"turns of this rollout: {counts}")
    return f"all {wanted}, one turn each"


def inventory(trial: Trial, text: str) -> pathlib.Path:
    path = trial.net.out / f"{trial.rollout}.ini"
    path.write_text(text, encoding="utf-8")
    return path


def reaches(trial: Trial, host: str, step: str, kind: str = "begin", timeout: float = 200.0) -> str:
    """Wait until a turn of this rollout on a host is at a step."""
    known = trial.evidence.before[host]["turn_ids"]
    found = trial.net.ask(
        host, "wait_open", instance=host, step=step, kind=kind, known=known, timeout=timeout, patience=timeout + 10
    )
    return str(found["turn_id"])


# -- refused, with nothing touched -----------------------------------------------------------------------------------------


def refused(trial: Trial, *arguments: str, words: str = "", name: str = "upgrade", hosts: str = "") -> str:
    """``hosts``: lines of another inventory beside the devnet's, with the addresses and keys of its hosts filled in."""
    more: dict[str, t.Any] = {}
    if hosts:
        first = trial.net.validators[0]
        more["inventory"] = inventory(trial, hosts.format(address=trial.net.address[first], key=trial.net.key(first)))
    play(trial, name, *arguments, **more).must(False, *([words] if words else []))
    trial.expect(not turns(trial), f"turns were begun: {trial.turns}")
    return "refused, nothing touched"


def harmless(trial: Trial, *arguments: str, name: str = "upgrade") -> str:
    """It may end well, and does nothing."""
    play(trial, name, *arguments).must(True)
    trial.expect(not turns(trial), f"turns were begun: {trial.turns}")
    return "did nothing"


def unreachable(trial: Trial) -> str:
    host = trial.net.validators[2]
    with trial.net.being_cut(host, ports=(22,)):
        play(trial, "upgrade").must(False, f"{host} is unreachable; nothing was touched")
    trial.expect(not turns(trial), f"turns were begun: {trial.turns}")
    return "refused, nothing touched"


def held_by_another(trial: Trial) -> str:
    """Another rollout holds the fleet: the second one is told by whom."""
    trial.lock(holder=OTHER, rollout="other")
    play(trial, "upgrade").must(False, OTHER)
    trial.unlock(holder=OTHER, rollout="other")
    trial.expect(not turns(trial), f"turns were begun: {trial.turns}")
    return f"refused: held by {OTHER}"


def while_one_is_in_turn(trial: Trial, name: str) -> str:
    """One host's turn is under way: `status` says where it is, and nobody begins another."""
    turn_id = trial.ready()
    trial.arm("stop-after", *part("begin", "freeze", "forward"))
    controller = trial.start(turn_id)
    pid = trial.fired(controller)
    if name == "status":
        play(trial, "status").must(True, "in turn", "freeze", turn_id)
    else:
        play(trial, name).must(False)
    trial.expect(not turns(trial, "never") or list(trial.turns) == [trial.host], f"turns were begun: {trial.turns}")
    trial.cont(pid)
    result = controller.answer()["result"]
    return f"{trial.end(turn_id, result)}, and `{name}` {'told it' if name == 'status' else 'was refused'}"


# -- controllers that go -----------------------------------------------------------------------------------------------------


def killed_and_resumed(trial: Trial, host: str, step: str, how: str, resume: str) -> str:
    """The controller goes while one host is at a step of its turn; the next one finishes the rollout."""
    running = play(trial, "upgrade")
    try:
        reaches(trial, host, step)
    except Refusal as no:
        running.kill()
        raise Broken(f"{no}; see {running.log}") from no
    if how == "SIGKILL":
        running.kill()
    else:
        for dummy in range(2):
            running.signal(signal.SIGINT)
            time.sleep(0.3)
        trial.expect(running.done(60.0) != 0, "Ctrl-C twice ended as success")
    time.sleep(0.5)
    play(trial, resume).must(True, timeout=400.0)
    return all_new_once(trial)


def killed_while_drained(trial: Trial) -> str:
    """Killed between drain and turn: the next one knows that the host is out, and brings it back in the end."""
    host = trial.net.validators[0]
    hook = trial.net.out / "hold.yml"
    hook.write_text(
        "- name: Hold\n  ansible.builtin.command: {argv: [sleep, '120']}\n  changed_when: false\n  delegate_to: localhost\n",
        encoding="utf-8",
    )
    running = play(trial, "upgrade", "-e", f'{{"rollout_hooks": {{"pre_upgrade": "{hook}"}}}}')

    def out() -> bool:
        told = trial.net.ask(trial.net.gateway, "gateway_look")["receipts"][host]
        return bool(told and told["state"] == "drained" and told["turn_id"].startswith(trial.rollout))

    wait(out, f"{host} is drained", 120.0, 0.3)
    running.kill()
    play(trial, "resume").must(True, timeout=400.0)
    return all_new_once(trial)


def two_at_once(trial: Trial) -> str:
    """Two operators start it, one a little later: one upgrades the fleet, the other is told who does."""
    first = play(trial, "upgrade", "-e", "rollout_operator=first-operator")
    wait(
        lambda: trial.net.sh(trial.net.validators[0], f"test -e /var/lib/chainops/{trial.net.validators[0]}/lock") == "",
        "lock",
        120.0,
    )
    second = play(trial, "upgrade", "-e", "rollout_operator=second-operator", rollout=f"{trial.rollout}-too")
    second.must(False, "first-operator")
    first.must(True, timeout=400.0)
    return f"{all_new_once(trial)}; the other refused"


def asleep_and_taken_over(trial: Trial) -> str:
    """The whole playbook is stopped in the first host's turn, another operator breaks its lock and finishes, and it wakes up."""
    host = trial.net.validators[0]
    sleeper = play(trial, "upgrade", "-e", "rollout_operator=sleeper")
    first_turn = reaches(trial, host, "migrate")
    sleeper.signal(signal.SIGSTOP)
    wait(lambda: trial.net.sh(host, f"test ! -e /var/lib/chainops/{host}/journal/open") == "", "the turn ended by itself", 90.0)
    trial.host = host
    trial.lock(holder="waker", rollout=trial.rollout, break_it=True)
    taken = play(trial, "upgrade", "-e", "rollout_operator=waker").must(True, timeout=400.0)
    sleeper.signal(signal.SIGCONT)
    sleeper.must(False, timeout=300.0)
    trial.expect("is older than" in sleeper.text, f"it failed for another reason than its token; see {sleeper.log}")
    trial.expect(first_turn.startswith(trial.rollout) and taken.process.returncode == 0, "another turn")
    trial.still_drained.clear()
    return f"{all_new_once(trial)}; the sleeper refused by its token"


def free_and_one_fork(trial: Trial) -> str:
    """Strategy free and one fork change nothing; then the way back, interrupted twice and taken up, one fork, too."""
    play(trial, "upgrade", "-f", "1", env={"ANSIBLE_STRATEGY": "free"}).must(True, timeout=600.0)
    there = all_new_once(trial)
    last = trial.net.validators[-1]
    known = trial.evidence.before[last]["turn_ids"] + trial.turns[last]
    running = play(trial, "rollback", "-f", "1")
    trial.net.ask(last, "wait_open", instance=last, step="restore", known=known, timeout=200.0, patience=210.0)
    for dummy in range(2):
        running.signal(signal.SIGINT)
        time.sleep(0.3)
    trial.expect(running.done(60.0) != 0, "Ctrl-C twice ended as success")
    wait(lambda: trial.net.sh(last, f"test ! -e /var/lib/chainops/{last}/journal/open") == "", "the turn ended by itself", 90.0)
    play(trial, "rollback", "-f", "1").must(True, timeout=600.0)
    turns(trial)
    trial.expect(versions(trial) == {OLD}, f"the fleet runs {versions(trial)}")
    counts = {host: len(trial.turns.get(host, ())) for host in trial.net.validators}
    trial.expect(set(counts.values()) == {2}, f"turns of this rollout, there and back: {counts}")
    return f"{there}; then all {OLD}"


def _cases() -> list[Case]:
    def no(case: str, row: str, *arguments: str, quick: bool = False, **more: t.Any) -> Case:
        return Case(case, row, functools.partial(_refused, arguments=arguments, more=more), FORWARD, quick, fleet=OLD)

    def _refused(trial: Trial, arguments: tuple[str, ...], more: dict[str, t.Any]) -> str:
        return refused(trial, *arguments, **more)

    def idle(case: str, row: str, *arguments: str) -> Case:
        return Case(case, row, lambda trial: harmless(trial, *arguments), FORWARD, fleet=OLD)

    second = "[validators]\n"
    found = [
        no("ansible-limit-to-one-host", "26", "--limit", "val2", quick=True),
        no("ansible-limit-with-localhost", "26", "--limit", "val2,localhost", words="did not pass preflight"),
        no("ansible-start-at-the-drain", "26", "--start-at-task", "Drain on every gateway"),
        no("ansible-start-at-the-turn", "26", "--start-at-task", "Take the turn", quick=True),
        idle("ansible-tags-of-nothing", "26", "--tags", "nothing-has-this-tag"),
        idle("ansible-check-on-a-live-fleet", "26", "--check"),
        no("ansible-python-missing-on-one-host", "26", hosts=second + "val3 ansible_python_interpreter=/nonexistent/python3\n"),
        no("ansible-become-fails-on-one-host", "26", hosts=second + "val3 ansible_become_exe=/bin/false\n"),
        no("no-hosts-at-all", "27", "-e", '{"rollout_group": "nobody", "rollout_hosts": []}'),
        no(
            "one-machine-under-two-names",
            "27",
            hosts=second + "twin ansible_host={address} validator_address={key} validator_instance=val1\n",
            quick=True,
        ),
        no("one-key-on-two-hosts", "27", hosts=second + "val2 validator_address={key}\n"),
        Case("one-host-unreachable", "4", unreachable, FORWARD, fleet=OLD),
        Case("fleet-held-by-another-rollout", "3", held_by_another, FORWARD, fleet=OLD),
        Case(
            "upgrade-while-a-host-is-in-turn", "22", functools.partial(while_one_is_in_turn, name="upgrade"), FORWARD, fleet=OLD
        ),
        Case(
            "rollback-while-a-host-is-in-turn", "22", functools.partial(while_one_is_in_turn, name="rollback"), FORWARD, fleet=OLD
        ),
        Case("status-while-a-host-is-in-turn", "22", functools.partial(while_one_is_in_turn, name="status"), FORWARD, fleet=OLD),
        Case(
            "playbook-killed-at-the-second-stop",
            "1",
            functools.partial(killed_and_resumed, host="val2", step="stop", how="SIGKILL", resume="resume"),
            FORWARD,
            True,
            fleet=OLD,
        ),
        Case(
            "playbook-interrupted-twice-at-the-third-probe",
            "26",
            functools.partial(killed_and_resumed, host="val3", step="probe", how="SIGINT", resume="upgrade"),
            FORWARD,
            fleet=OLD,
        ),
        Case("playbook-killed-while-a-host-is-drained", "1", killed_while_drained, FORWARD, fleet=OLD),
        Case("two-playbooks-at-once", "3", two_at_once, FORWARD, fleet=OLD),
        Case("playbook-sleeps-through-a-takeover", "2", asleep_and_taken_over, FORWARD, fleet=OLD),
        Case("strategy-free-one-fork-and-an-interrupted-rollback", "26", free_and_one_fork, FORWARD, fleet=OLD),
    ]
    return found


CASES = _cases()
