# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 1 to 4, 13, 22, 26 and 27 with whole playbooks: what Ansible can be told, controllers that go, wrong inventories."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import random
import signal
import threading
import time
import typing as t

from network import HERE, Load, Play
from trial import FORWARD, Broken, Case, Refusal, Trial, part, wait

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from cases.controllers import OTHER

OLD, NEW = "1.0.0", "2.0.0"


def play(trial: Trial, name: str, *arguments: str, rollout: str = "", **more: t.Any) -> Play:
    """A playbook of this case's rollout."""
    options = ["-e", f"@{trial.net.out / 'rollout.json'}", "-e", f"rollout_id={rollout or trial.rollout}"]
    return trial.net.play(name, *options, *arguments, **more)


def turns(trial: Trial, rollout: str = "") -> dict[str, list[str]]:
    """The turns that this rollout has begun so far, by host; the checker looks at them."""
    for host in trial.net.validators:
        journals = f"/var/lib/chainops/{host}/journal"
        listed = trial.net.sh(host, f"test ! -e {journals} || ls -rt {journals}")  # before its first turn a host has none
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


def refused(
    trial: Trial, *arguments: str, words: str, name: str = "upgrade", hosts: str = "", env: t.Mapping[str, str] | None = None
) -> str:
    """``words``: why. ``hosts``: lines of another inventory beside the devnet's, with its hosts' addresses and keys filled in."""
    more: dict[str, t.Any] = {"env": env} if env else {}
    if hosts:
        first = trial.net.validators[0]
        more["inventory"] = inventory(trial, hosts.format(address=trial.net.address[first], key=trial.net.key(first)))
    play(trial, name, *arguments, **more).must(False, words)
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
    at = trial.stands(*part("begin", "freeze", "forward"))
    if name == "status":
        play(trial, "status").must(True, "in turn", "freeze", at.turn_id)
    else:
        play(trial, *name.split(), "-e", "upgrade_settle_timeout=5").must(False)
    trial.expect(trial.node()["pid"] is None, "the node was started behind the engine's back")
    trial.expect(not turns(trial, "never") or list(trial.turns) == [trial.host], f"turns were begun: {trial.turns}")
    result = trial.goes_on(at)
    return f"{trial.end(at.turn_id, result)}, and `{name}` {'told it' if name == 'status' else 'was refused'}"


# -- controllers that go -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in a rollout's run a controller is when it goes: a host, and a step of its turn or a hook of its way."""

    host: str
    step: str = ""
    hook: str = ""

    def options(self, trial: Trial) -> list[str]:
        """What makes a playbook wait there, where it is a hook."""
        if not self.hook:
            return []
        tasks = [
            {
                "name": "Say that it is here",
                "ansible.builtin.copy": {"content": "", "dest": str(self._mark(trial)), "mode": "0600"},
            },
            {"name": "Hold", "ansible.builtin.command": {"argv": ["sleep", "300"]}, "changed_when": False},
        ]
        here = {"delegate_to": "localhost", "become": False, "when": f"inventory_hostname == '{self.host}'"}
        hook = trial.net.out / f"{trial.rollout}-hold.yml"
        hook.write_text(json.dumps([task | here for task in tasks]), encoding="utf-8")
        return ["-e", json.dumps({"rollout_hooks": {self.hook: str(hook)}})]

    def reached(self, trial: Trial, running: Play) -> None:
        def there() -> bool:
            if running.process.poll() is not None:
                raise Broken(f"the playbook was over before it came there; see {running.log}")
            return self._mark(trial).exists()

        if self.hook:
            wait(there, f"{self.host} is at {self.hook}", 240.0, 0.2)
            return
        try:
            reaches(trial, self.host, self.step)
        except Refusal as no:
            raise Broken(f"{no}; see {running.log}") from no

    def _mark(self, trial: Trial) -> pathlib.Path:
        return trial.net.out / f"{trial.rollout}-here"


def goes(running: Play, how: str) -> None:
    if how == "SIGKILL":
        running.kill()
        return
    for dummy in range(2):
        running.signal(signal.SIGINT)
        time.sleep(0.3)
    if running.done(60.0) == 0:
        raise Broken(f"Ctrl-C twice ended as success; see {running.log}")


def gone(trial: Trial, place: Place, how: str, *arguments: str) -> Play:
    """An `upgrade` whose controller goes at a place."""
    running = play(trial, "upgrade", *arguments, *place.options(trial))
    try:
        place.reached(trial, running)
        goes(running, how)
    finally:
        running.kill()
    return running


def killed_and_resumed(trial: Trial, place: Place, how: str = "SIGKILL", resume: str = "resume") -> str:
    """The controller goes while one host is at a place of its way; the next one finishes the rollout."""
    gone(trial, place, how)
    play(trial, resume).must(True, timeout=400.0)
    return all_new_once(trial)


def killed_again_and_again(trial: Trial) -> str:
    """Up to six controllers, one after the other, are killed some tasks after they began; the last one comes to the end."""
    chance = random.Random(6)
    killed, running = 0, play(trial, "upgrade")
    while killed < 6:
        tasks = chance.randint(60, 150)
        wait(
            lambda: running.process.poll() is not None or running.text.count("\nTASK [") >= tasks,
            f"{tasks} tasks of {running.log}",
            300.0,
            0.2,
        )
        if running.process.poll() is not None:
            break
        running.kill()
        killed, running = killed + 1, play(trial, "resume")
    running.must(True, timeout=400.0)
    trial.expect(killed >= 3, f"only {killed} were killed")
    return f"{all_new_once(trial)}, by controller number {killed + 1}"


def own_proposal(trial: Trial) -> list[str]:
    """One of this case's own, approved: what is rolled back on chain can't be approved again. Returns options of playbooks."""
    proposal = f"{trial.rollout}-own"
    gate = trial.net.out / f"{trial.rollout}-gate.json"
    own = ["-e", f"rollout_proposal_id={proposal}"]
    prepared = ["-e", f"@{trial.net.out / 'prepare.json'}", *own, "-e", f"faults_gate_file={gate}"]
    trial.net.play(str(HERE / "prepare.yml"), *prepared).must(True, timeout=400.0)
    told = json.loads(gate.read_text(encoding="utf-8"))
    trial.evidence.proof = {**told, "id": proposal, "digest": canonical.digest(told["proof"])}
    return own


def approval_withdrawn(trial: Trial) -> str:
    """The controller goes in the second host's turn, the proposal is rolled back on chain: held, and old when that is wanted."""
    own = own_proposal(trial)
    gone(trial, Place("val2", step="stop"), "SIGKILL", *own)
    trial.net.play(str(HERE / "withdraw.yml"), *own).must(True)
    # Held is what happens unless it was decided otherwise; nobody is taken further.
    play(trial, "resume", *own).must(False, "the fleet stays between")
    trial.expect(set(turns(trial)) == {"val1", "val2"}, f"turns: {trial.turns}")
    play(trial, "resume", *own, "-e", "rollout_on_withdrawn=rollback").must(False, "was rolled back on chain", timeout=400.0)
    turns(trial)
    trial.expect(versions(trial) == {OLD}, f"the fleet runs {versions(trial)}")
    counts = {host: len(trial.turns.get(host, ())) for host in trial.net.validators}
    trial.expect(counts == {"val1": 2, "val2": 2, "val3": 0, "val4": 0}, f"turns there and back: {counts}")
    return f"held first, then all {OLD} again"


def two_at_once(trial: Trial) -> str:
    """Two operators start it, one a little later: one upgrades the fleet, the other is told who does."""
    first = play(trial, "upgrade", "-e", "rollout_operator=first-operator")
    host = trial.net.validators[0]
    # An earlier rollout's is there, too.
    wait(lambda: trial.net.sh(host, f"grep {trial.rollout} /var/lib/chainops/{host}/lock"), "the first one has the lock", 120.0)
    second = play(trial, "upgrade", "-e", "rollout_operator=second-operator", rollout=f"{trial.rollout}-too")
    second.must(False, "first-operator")
    first.must(True, timeout=400.0)
    return f"{all_new_once(trial)}; the other refused"


def checked_beside(trial: Trial) -> str:
    """Somebody runs it with --check while it runs: the rollout notices nothing."""
    live = play(trial, "upgrade")
    reaches(trial, trial.net.validators[1], "prepare")
    check = play(trial, "upgrade", "--check", "--diff", "-e", "upgrade_settle_timeout=5")
    check.done(200.0)
    trial.expect(live.process.poll() is None, "the rollout was over before the check was: nothing was seen")
    live.must(True, timeout=400.0)
    return f"{all_new_once(trial)}; the check ended with status {check.process.returncode}"


def busy(trial: Trial) -> str:
    """300 short requests a second and 20 of three seconds under way, through two gateways that reload at random moments."""
    drains = trial.net.out / f"{trial.rollout}-drains.json"
    keep = {
        "name": "Keep what the drains told",
        "ansible.builtin.copy": {
            "content": "{{ drain_done.results | map(attribute='drain') | to_json }}\n",
            "dest": f"{drains}-{{{{ inventory_hostname }}}}",
        },
        "delegate_to": "localhost",
        "become": False,
    }
    hook = trial.net.out / f"{trial.rollout}-keep.yml"
    hook.write_text(json.dumps([keep]), encoding="utf-8")
    chance = random.Random(5)
    over = threading.Event()

    def reload() -> int:
        times = 0
        while not over.wait(chance.uniform(2.0, 6.0)):
            trial.net.sh(chance.choice(trial.net.gateways), "systemctl reload haproxy")
            times += 1
        return times

    loads = [Load(trial.net, gateway, f"{trial.rollout}-{gateway}", rate=150.0, long=10) for gateway in trial.net.gateways]
    reloading = trial.net.pool.submit(reload)
    try:
        play(trial, "upgrade", "-e", json.dumps({"rollout_hooks": {"pre_upgrade": str(hook)}})).must(True, timeout=900.0)
    finally:
        over.set()
        reloads = reloading.result(60.0)
        told = [load.stop() for load in loads]
    bad = {key: [one[key] for one in told] for key in ("failed", "lost", "double_spends") if any(one[key] for one in told)}
    trial.expect(not bad, f"clients saw {bad}; see {[load.out for load in loads]}")
    asked, rate = sum(one["requests"] for one in told), sum(one["requests"] / one["seconds"] for one in told)
    trial.expect(rate > 270.0 and reloads >= 10, f"{rate:.0f} requests a second and {reloads} reloads prove nothing")
    told_by = [json.loads(pathlib.Path(f"{drains}-{host}").read_text(encoding="utf-8")) for host in trial.net.validators]
    # Those that waited: before them the host's own journal was written, and each gateway let go.
    found = [drain for drains_of in told_by for drain in drains_of if drain and "lag" in drain]
    trial.expect(len(found) == len(told_by) * len(trial.net.gateways), f"{len(found)} drains told how they ended")
    lag = max(drain["lag"] for drain in found)
    again = sum(drain["reasserted"] for drain in found)
    return (
        f"{all_new_once(trial)}; 0 of {asked} requests failed at {rate:.0f}/s, {reloads} reloads, {len(found)} drains ended"
        f" {1000 * lag:.0f} ms after the last request's end at most, {again} told again"
    )


def asleep_and_taken_over(trial: Trial) -> str:
    """The whole playbook is stopped in the first host's turn, another operator breaks its lock and finishes, and it wakes up."""
    host = trial.net.validators[0]
    sleeper = play(trial, "upgrade", "-e", "rollout_operator=sleeper")
    first_turn = reaches(trial, host, "migrate")
    sleeper.signal(signal.SIGSTOP)
    wait(lambda: trial.net.sh(host, f"test ! -e /var/lib/chainops/{host}/journal/open") == "", "the turn ended by itself", 90.0)
    # Whoever sleeps is not gone, as far as anybody can tell: it takes a decision to break its lock.
    play(trial, "upgrade", "-e", "rollout_operator=waker").must(False, "sleeper")
    lease = json.loads(trial.net.sh(host, f"cat /var/lib/chainops/{host}/lock"))
    options = ("-e", "rollout_operator=waker", "-e", f"rollout_break_token={lease['token']}")
    taken = play(trial, "upgrade", *options).must(True, timeout=400.0)
    sleeper.signal(signal.SIGCONT)
    sleeper.must(False, timeout=300.0)
    trial.expect("is older than" in sleeper.text, f"it failed for another reason than its token; see {sleeper.log}")
    trial.expect(first_turn.startswith(trial.rollout) and taken.process.returncode == 0, "another turn")
    trial.still_drained.clear()
    return f"{all_new_once(trial)}; the sleeper refused by its token"


def free_and_one_fork(trial: Trial) -> str:
    """Strategy free and one fork change nothing; then the way back, interrupted twice and taken up, one fork, too."""
    own = own_proposal(trial)
    play(trial, "upgrade", "-f", "1", *own, env={"ANSIBLE_STRATEGY": "free"}).must(True, timeout=600.0)
    there = all_new_once(trial)
    last = trial.net.validators[-1]
    known = trial.evidence.before[last]["turn_ids"] + trial.turns[last]
    running = play(trial, "rollback", "-f", "1", *own)
    trial.net.ask(last, "wait_open", instance=last, step="restore", known=known, timeout=200.0, patience=210.0)
    goes(running, "SIGINT")
    wait(lambda: trial.net.sh(last, f"test ! -e /var/lib/chainops/{last}/journal/open") == "", "the turn ended by itself", 90.0)
    play(trial, "rollback", "-f", "1", *own).must(True, timeout=600.0)
    turns(trial)
    trial.expect(versions(trial) == {OLD}, f"the fleet runs {versions(trial)}")
    counts = {host: len(trial.turns.get(host, ())) for host in trial.net.validators}
    trial.expect(set(counts.values()) == {2}, f"turns of this rollout, there and back: {counts}")
    return f"{there}; then all {OLD}"


def _cases() -> list[Case]:
    def no(case: str, row: str, *arguments: str, quick: bool = False, **more: t.Any) -> Case:
        return whole(case, row, _refused, quick=quick, arguments=arguments, more=more)

    def _refused(trial: Trial, arguments: tuple[str, ...], more: dict[str, t.Any]) -> str:
        return refused(trial, *arguments, **more)

    def whole(case: str, row: str, act: t.Callable[..., str], *, quick: bool = False, **more: t.Any) -> Case:
        return Case(case, row, functools.partial(act, **more), FORWARD, quick, fleet=OLD)

    def idle(case: str, row: str, *arguments: str) -> Case:
        return whole(case, row, lambda trial: harmless(trial, *arguments))

    second = "[validators]\n"
    part, middle, lost = (
        "This is part of a rollout",
        "The rollout was begun in its middle",
        "did not pass preflight",
    )
    found = [
        no("ansible-limit-to-one-host", "26", "--limit", "val2", words=part, quick=True),
        no("ansible-limit-with-localhost", "26", "--limit", "val2,localhost", words=part),
        no("ansible-start-at-the-drain", "26", "--start-at-task", "Drain on every gateway", words=middle),
        no("ansible-start-at-the-turn", "26", "--start-at-task", "Take the turn", words=middle, quick=True),
        no("ansible-tags-of-nothing", "26", "--tags", "nothing-has-this-tag", words=part),
        idle("ansible-check-on-a-live-fleet", "26", "--check"),
        no(
            "ansible-python-missing-on-one-host",
            "26",
            hosts=second + "val3 ansible_python_interpreter=/nonexistent/python3\n",
            words=lost,
        ),
        no(
            "ansible-become-fails-on-one-host",
            "26",
            hosts=second + "val3 ansible_become_exe=/bin/false\n",
            # The devnet's user is root, who becomes root only when told to.
            env={"ANSIBLE_BECOME_ALLOW_SAME_USER": "true"},
            words=lost,
        ),
        no("no-hosts-at-all", "27", "-e", '{"rollout_group": "nobody", "rollout_hosts": []}', words="There are no validators"),
        no(
            "one-machine-under-two-names",
            "27",
            hosts=second + "twin ansible_host={address} validator_address={key} validator_instance=val1\n",
            words="two nodes have one api_url",
            quick=True,
        ),
        no("one-key-on-two-hosts", "27", hosts=second + "val2 validator_address={key}\n", words="share the signing address"),
        whole("one-host-unreachable", "4", unreachable),
        whole("fleet-held-by-another-rollout", "3", held_by_another),
        *(
            whole(
                f"{name.split()[0]}{'-check' if ' ' in name else ''}-while-a-host-is-in-turn",
                row,
                while_one_is_in_turn,
                name=name,
            )
            for name, row in (("status", "22"), ("upgrade", "22"), ("rollback", "22"), ("upgrade --check", "26"))
        ),
        whole("playbook-killed-before-the-third-drain", "1", killed_and_resumed, place=Place("val3", hook="pre_drain")),
        whole("playbook-killed-while-a-host-is-drained", "1", killed_and_resumed, place=Place("val1", hook="pre_upgrade")),
        whole("playbook-killed-at-the-second-stop", "1", killed_and_resumed, place=Place("val2", step="stop")),
        whole("playbook-killed-between-turn-and-verify", "1", killed_and_resumed, place=Place("val4", hook="post_upgrade")),
        whole(
            "playbook-killed-before-the-undrain",
            "1",
            killed_and_resumed,
            place=Place("val2", hook="pre_undrain"),
            resume="upgrade",
        ),
        whole(
            "playbook-interrupted-twice-at-the-third-probe",
            "26",
            killed_and_resumed,
            place=Place("val3", step="probe"),
            how="SIGINT",
            resume="upgrade",
        ),
        whole("playbook-killed-again-and-again", "1", killed_again_and_again),
        whole("approval-withdrawn-while-nobody-is-there", "13", approval_withdrawn),
        whole("check-mode-beside-a-rollout", "26", checked_beside),
        whole("two-gateways-busy-and-reloaded", "17", busy),
        whole("two-playbooks-at-once", "3", two_at_once),
        whole("playbook-sleeps-through-a-takeover", "2", asleep_and_taken_over),
        whole("strategy-free-one-fork-and-an-interrupted-rollback", "26", free_and_one_fork),
    ]
    return found


CASES = _cases()
