# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 4 to 7, 16 and 20: a host's network, its node, its disk, its clock, and a new release that does not do as it should."""

from __future__ import annotations

import contextlib
import functools
import time
import typing as t

from trial import BACK, BUDGETS, FORWARD, PROBE, Case, Trial, part, wait

from cases.boundaries import records

SMALL = "/mnt/small"


# -- guard and reboot --------------------------------------------------------------------------------------------------


def guarded_against_others(trial: Trial) -> str:
    """While the turn is open, nobody else starts the node: not systemctl, not its own unit, and not a reboot."""
    at = trial.stands(*part("done", "freeze", "forward"))
    for order in ("start", "restart", "reload-or-restart"):
        trial.net.sh(trial.host, f"systemctl {order} xai-node.service", check=False)
        time.sleep(0.3)
        trial.expect(trial.node()["pid"] is None, f"systemctl {order} got past the guard")
    result = trial.goes_on(at)
    outcome = trial.ended(at.turn_id, result, "committed")
    return outcome


def guarded_across_a_reboot(trial: Trial) -> str:
    """The host comes up with the node's unit enabled and a turn half done: the node stays down until the engine has looked."""
    at = trial.stands(*part("begin", "switch", "forward"))
    trial.arm("stop-after", *part("session"))
    trial.net.reboot(trial.host)
    at.controller.lose()
    pid = trial.fired()
    enabled = trial.net.sh(trial.host, "systemctl is-enabled xai-node.service")
    trial.expect(
        enabled == "enabled" and trial.node()["pid"] is None, f"the node ({enabled}) was started by the reboot: {trial.node()}"
    )
    trial.net.sh(trial.host, "systemctl start xai-node.service", check=False)
    time.sleep(0.5)
    trial.expect(trial.node()["pid"] is None, "systemctl start got past the guard after the reboot")
    trial.cont(pid)
    result = trial.asked_again(at)
    outcome = trial.ended(at.turn_id, result, "committed", "put_back")
    return outcome


def rebooted_twice(trial: Trial) -> str:
    """And once more while the engine takes the turn up again."""
    at = trial.stands(*part("done", "stop", "forward"))
    trial.arm("stop-after", *part("session"))
    trial.net.reboot(trial.host)
    at.controller.lose()
    trial.fired()
    trial.net.reboot(trial.host)
    result = trial.asked_again(at)
    outcome = trial.end(at.turn_id, result)
    trial.expect(outcome in ("committed", "put_back") and result["sessions"] == 3, f"{outcome} in {result['sessions']} sessions")
    return f"{outcome} after {result['sessions']} sessions"


# -- network -----------------------------------------------------------------------------------------------------------


def cut_off_for_a_while(trial: Trial, parts: tuple[str, ...], seconds: float) -> str:
    """Everything is dropped from a boundary on, and comes back within the probe's deadline: the host decides alone."""
    at = trial.stands(*parts)
    with trial.net.being_cut(trial.host):
        trial.net.podman("exec", trial.net.container(trial.host), "kill", "-CONT", str(at.pid))
        time.sleep(seconds)
    at.controller.kill()
    result = trial.asked_again(at)
    outcome = trial.ended(at.turn_id, result, "committed", sessions=1)
    return f"{outcome}, cut off for {seconds:g} s"


def cut_off_until_it_gives_up(trial: Trial, ports: tuple[int, ...]) -> str:
    """No peer answers until the probe's deadline: back to the old release, alone."""
    policy = {"probe": {**PROBE, "deadline": 8.0}}
    at = trial.stands(*part("done", "switch", "forward"), **policy)
    inside = (trial.net.container(trial.host), "kill", "-CONT")
    trial.arm("stop-after", *part("begin", "stop", "undo"))
    with trial.net.being_cut(trial.host, ports=ports):
        trial.net.podman("exec", *inside, str(at.pid))
        fired = ("exec", trial.net.container(trial.host), "test", "-e", "/var/lib/faults/fired")
        wait(lambda: trial.net.podman(*fired) == "", "it went back before its old node had to follow again", 60.0, 0.3)
    trial.cont(at.pid)
    with contextlib.suppress(Exception):
        at.controller.kill()
    result = trial.asked_again(at)
    outcome = trial.ended(at.turn_id, result, "put_back")
    return f"{outcome}: {str(result['reason'])[:70]}"


def only_the_controller_is_cut_off(trial: Trial) -> str:
    """Peers and clients reach the host, ssh does not: nothing of the turn needs it."""
    at = trial.stands(*part("begin", "stop", "forward"))
    container = trial.net.container(trial.host)
    with trial.net.being_cut(trial.host, ports=(22,)):
        trial.net.podman("exec", container, "kill", "-CONT", str(at.pid))
        opened = f"/var/lib/chainops/{trial.host}/journal/open"
        wait(
            lambda: trial.net.podman("exec", container, "sh", "-c", f"test ! -e {opened} && echo over") == "over",
            "it ended",
            60,
            0.3,
        )
    at.controller.kill()
    result = trial.asked_again(at)
    outcome = trial.ended(at.turn_id, result, "committed", sessions=1)
    return f"{outcome}, and told afterwards"


# -- the node ----------------------------------------------------------------------------------------------------------


def killed_in_its_flush(trial: Trial) -> str:
    """The node is killed instead of stopping: the snapshot says that it is not a clean one."""
    at = trial.stands(*part("note", "stop", "forward"))
    trial.net.sh(trial.host, "systemctl kill --signal=SIGKILL xai-node.service")
    wait(lambda: trial.node()["pid"] is None, "the node is gone", 10)
    result = trial.goes_on(at)
    outcome = trial.end(at.turn_id, result)
    trial.expect(result["snapshot"]["clean"] is False, f"its snapshot says clean: {result['snapshot']}")
    return f"{outcome}; the snapshot is marked unclean"


def does_not_stop(trial: Trial) -> str:
    """The node hangs and ignores its signal: it is not killed, the turn goes back, and the node goes on."""
    policy = {"budgets": {**BUDGETS, "stop": 4.0}}
    at = trial.stands(*part("note", "stop", "forward"), **policy)
    node = trial.node()["pid"]
    trial.net.sh(trial.host, f"kill -STOP {node}")
    trial.arm("stop-after", *part("fail", "stop", "forward"))
    trial.cont(at.pid)
    trial.fired(at.controller)
    trial.expect(trial.node()["pid"] == node, "the node was killed, silently")
    trial.net.sh(trial.host, f"kill -CONT {node}")
    result = trial.goes_on(at)
    outcome = trial.ended(at.turn_id, result, "put_back", words="did not stop within")
    return f"{outcome}: {str(result['reason'])[:60]}"


def dies_in_the_probe(trial: Trial) -> str:
    at = trial.stands(*part("note", "probe", "forward", '"answered":true'))
    trial.net.sh(trial.host, "systemctl kill --signal=SIGKILL xai-node.service")
    wait(lambda: trial.node()["pid"] is None, "the node is gone", 10)
    result = trial.goes_on(at)
    outcome = trial.ended(at.turn_id, result, "put_back", words="the process is gone")
    return f"{outcome}: {str(result['reason'])[:60]}"


def misbehaves(trial: Trial, switch: str, words: str) -> str:
    """The new release's process runs and is wrong, by a switch in its environment that is off again before the old one starts."""
    policy = {"probe": {**PROBE, "deadline": 8.0}}
    folder = "/run/systemd/system/xai-node.service.d"
    at = trial.stands(*part("done", "stop", "forward"), **policy)
    drop_in = f"[Service]\\nEnvironment=REFNODE_MISBEHAVE={switch}\\n"
    trial.net.sh(trial.host, f"mkdir -p {folder} && printf '{drop_in}' > {folder}/faults.conf && systemctl daemon-reload")
    trial.arm("stop-after", *part("back"))
    trial.cont(at.pid)
    trial.fired(at.controller)
    trial.net.sh(trial.host, f"rm -r {folder} && systemctl daemon-reload")
    result = trial.goes_on(at)
    outcome = trial.end(at.turn_id, result)
    trial.expect(outcome == "put_back" and words in str(result["reason"]), f"{outcome}: {result['reason']}")
    return f"{outcome}: {str(result['reason'])[:70]}"


# -- disks -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(trial: Trial, what: str, more: int, inodes: int = 0) -> t.Iterator[None]:
    """A directory on a small file system, tmpfs, for the time of a case, with the host drained; then back, as it is then.

    ``more``: megabytes beyond what is in it; ``inodes``: as many more.
    """
    options = f"size=$(($(du -sm {what} | cut -f1) + {more}))m"
    if inodes:
        options += f",nr_inodes=$(($(find {what} | wc -l) + {inodes}))"
    trial.net.sh(
        trial.host,
        f"set -e; systemctl stop xai-node; mkdir -p {SMALL}; mount -t tmpfs -o {options} faults {SMALL};"
        f" if cp -a {what} {SMALL}/it; then mount --bind {SMALL}/it {what}; systemctl start xai-node;"
        f" else umount {SMALL}; systemctl start xai-node; exit 1; fi",
    )
    follows(trial)
    # What was connected to it before is gone, and what has come anew is in no receipt yet.
    trial.drain(trial.turns[trial.host][-1])
    try:
        yield
    finally:
        trial.net.sh(
            trial.host,
            f"set -e; rm -rf {SMALL}/filler {SMALL}/fillers; systemctl stop xai-node; cp -a {SMALL}/it {what}.new;"
            f" umount {what}; umount {SMALL}; mv {what} {what}.old; mv {what}.new {what}; rm -rf {what}.old;"
            " systemctl start xai-node",
        )
        follows(trial)


def follows(trial: Trial) -> None:
    others = [host for host in trial.net.validators if host != trial.host]
    wait(
        lambda: trial.net.height(trial.host) >= max(map(trial.net.height, others)) - 1,
        f"{trial.host} is at the tip of the chain",
        40.0,
        0.3,
    )


def fill(trial: Trial, *, inodes: bool = False, leave: int = 0) -> None:
    """``leave``: kilobytes that stay free."""
    if inodes:
        # Some are left for the node, at every moment: it writes its state anew all the time.
        script = f"mkdir -p {SMALL}/fillers && cd {SMALL}/fillers && seq $(($(stat -f -c %d {SMALL}) - 40)) | xargs touch"
    else:
        # Never a moment without what is to stay free.
        script = f"head -c $(($(df -k --output=avail {SMALL} | tail -1) - {leave}))K /dev/zero > {SMALL}/filler"
    trial.net.sh(trial.host, script, check=False)


def full_before(trial: Trial, inodes: bool) -> str:
    """The host's own check, or its hot copy, sees it, and the node is not stopped."""
    turn_id = trial.ready()
    with small_disk(trial, "/var/lib/xai", 300 if inodes else 100, 2000 if inodes else 0):
        fill(trial, inodes=inodes, leave=0 if inodes else 8000)
        before = trial.node()["pid"]
        result = trial.start(turn_id).answer()["result"]
        trial.expect(trial.node()["pid"] == before and not result["touched"], f"the node was touched: {result['reason']}")
    trial.ended(turn_id, result, "put_back")
    return f"nothing touched: {str(result['reason'])[:80]}"


def fills_up(trial: Trial, step: str) -> str:
    """The disk is full from the beginning of a step on: back. Room is made then, because the old node needs some to run."""
    turn_id = trial.ready()
    with small_disk(trial, "/var/lib/xai", 300):
        trial.arm("stop-after", *part("begin", step, "forward"))
        controller = trial.start(turn_id)
        pid = trial.fired(controller)
        fill(trial)
        trial.arm("stop-after", *part("back"))
        trial.cont(pid)
        trial.fired(controller)
        trial.net.sh(trial.host, f"rm -f {SMALL}/filler")
        trial.cont(pid)
        result = controller.answer()["result"]
    outcome = trial.ended(turn_id, result, "put_back")
    return f"{outcome}: {str(result['reason'])[:80]}"


def state_is_full(trial: Trial) -> str:
    """No room where journals are, from the stop on: the journal was allocated, and the turn ends by it."""
    turn_id = trial.ready()
    with small_disk(trial, f"/var/lib/chainops/{trial.host}", 200):
        trial.arm("stop-after", *part("begin", "stop", "forward"))
        controller = trial.start(turn_id)
        pid = trial.fired(controller)
        fill(trial)
        trial.cont(pid)
        result = controller.answer()["result"]
    outcome = trial.ended(turn_id, result, "committed", "put_back")
    return f"{outcome}: {result['reason']}"


def clock_steps(trial: Trial, parts: tuple[str, ...], seconds: float) -> str:
    """The wall clock of the engine steps at a boundary: deadlines are counted by another one."""
    turn_id = trial.ready()
    trial.arm("clock", *parts, seconds=seconds)
    result = trial.start(turn_id).answer()["result"]
    outcome = trial.ended(turn_id, result, "committed", sessions=1)
    window = result["stop_window_seconds"]
    trial.expect(window is not None and 0 < window < 60, f"the stop window was measured as {window} s")
    return f"{outcome}, stop window {window} s"


def _cases() -> list[Case]:
    found = [
        Case("guard-keeps-everybody-else-from-starting-the-node", "5", guarded_against_others),
        Case("guard-keeps-the-node-down-across-a-reboot", "5", guarded_across_a_reboot, quick=True),
        Case("host-rebooted-twice", "5", rebooted_twice),
        Case("only-ssh-is-cut-off", "4", only_the_controller_is_cut_off, quick=True),
        Case("cut-off-until-the-probe-gives-up", "4", functools.partial(cut_off_until_it_gives_up, ports=())),
        Case("peers-cut-off-until-the-probe-gives-up", "4", functools.partial(cut_off_until_it_gives_up, ports=(8545, 8765))),
        Case("node-killed-in-its-flush", "6", killed_in_its_flush, quick=True),
        Case("node-does-not-stop", "6", does_not_stop),
        Case("new-node-dies-in-the-probe", "20", dies_in_the_probe),
    ]
    there = records(FORWARD)
    for name in ("done-guard", "done-stop", "done-start"):
        act = functools.partial(cut_off_for_a_while, parts=there[name], seconds=6.0)
        found.append(Case(f"cut-off-for-a-while-from-{name}", "4", act))
    for switch, words in (
        ("stall", "is needed"),
        ("fork", "have the same block"),
        ("die_at_start", "the process is gone"),
        ("refuse_health", "healthy"),
    ):
        act = functools.partial(misbehaves, switch=switch, words=words)
        found.append(Case(f"new-release-{switch.replace('_', '-')}", "20", act, quick=switch == "fork"))
    for name, seconds in (("begin-stop", 3600.0), ("done-start", -3600.0)):
        act = functools.partial(clock_steps, parts=there[name], seconds=seconds)
        found.append(Case(f"clock-steps-an-hour-{'ahead' if seconds > 0 else 'back'}-at-{name}", "16", act))
    act = functools.partial(clock_steps, parts=records(BACK)["begin-restore"], seconds=-3600.0)
    found.append(Case("clock-steps-back-on-the-way-back", "16", act, BACK))
    found.append(Case("disk-full-before-the-turn", "7", functools.partial(full_before, inodes=False)))
    found.append(Case("no-inodes-before-the-turn", "7", functools.partial(full_before, inodes=True)))
    for step in ("freeze", "migrate"):
        found.append(Case(f"disk-fills-up-in-{step}", "7", functools.partial(fills_up, step=step), quick=step == "freeze"))
    found.append(Case("disk-fills-up-in-restore", "7", functools.partial(fills_up, step="restore"), BACK))
    found.append(Case("state-directory-fills-up", "7", state_is_full))
    return found


CASES = _cases()
