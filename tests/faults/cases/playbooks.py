# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 26 and 27 with whole playbooks: what Ansible can be told, and inventories that are wrong."""

from __future__ import annotations

import functools
import pathlib
import typing as t

from network import Play
from trial import FORWARD, Case, Trial

OLD = "1.0.0"


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


def inventory(trial: Trial, text: str) -> pathlib.Path:
    path = trial.net.out / f"{trial.rollout}.ini"
    path.write_text(text, encoding="utf-8")
    return path


def refused(trial: Trial, *arguments: str, words: str = "", name: str = "upgrade", hosts: str = "") -> str:
    """``hosts``: lines of another inventory beside the devnet's, with the addresses and keys of its hosts filled in."""
    more: dict[str, t.Any] = {}
    if hosts:
        first = trial.net.validators[0]
        more["inventory"] = inventory(trial, hosts.format(address=trial.net.address[first], key=trial.net.key(first)))
    play(trial, name, *arguments, **more).must(False, *([words] if words else []))
    trial.expect(not turns(trial), f"turns were begun: {trial.turns}")
    return "refused, nothing touched"


def _cases() -> list[Case]:
    def no(case: str, row: str, *arguments: str, quick: bool = False, **more: t.Any) -> Case:
        return Case(case, row, functools.partial(_refused, arguments=arguments, more=more), FORWARD, quick, fleet=OLD)

    def _refused(trial: Trial, arguments: tuple[str, ...], more: dict[str, t.Any]) -> str:
        return refused(trial, *arguments, **more)

    second = "[validators]\n"
    found = [
        no("ansible-limit-to-one-host", "26", "--limit", "val2", quick=True),
        no("ansible-limit-with-localhost", "26", "--limit", "val2,localhost", words="This is part of a rollout"),
        no("ansible-start-at-the-drain", "26", "--start-at-task", "Drain on every gateway"),
        no("ansible-start-at-the-turn", "26", "--start-at-task", "Take the turn", quick=True),
        no("ansible-tags-of-nothing", "26", "--tags", "nothing-has-this-tag", words="This is part of a rollout"),
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
    ]
    return found


CASES = _cases()
