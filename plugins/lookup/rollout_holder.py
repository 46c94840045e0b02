# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_holder
short_description: Who runs this rollout, from where, as which job
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Tells this run of Ansible from every other one, for M(chainops.validator.rollout_lock).
  - A run is one process of C(ansible-playbook); in AWX and its kin a job, and jobs of one workflow are one run.
  - Says also which holders of the leases that are given are known to be gone, because their processes were of this very machine
    and aren't there any more. Elsewhere, and of jobs, nothing is known, and a lease has to expire.
options:
  _terms:
    description: Leases, as M(chainops.validator.rollout_lock) returns them in RV(chainops.validator.rollout_lock#module:before).
    type: list
    elements: dict
    default: []
  operator:
    description: Who runs it. By default the user of the controller's job, or of the process.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Remember who we are
  ansible.builtin.set_fact:
    holder: "{{ lookup('chainops.validator.rollout_holder') }}"
"""

RETURN = r"""
_raw:
  description:
    - C(words) for people, C(run) to tell runs apart, C(about) with all that is known, and C(gone), the runs among the leases'
      that are known to be gone.
  type: list
  elements: dict
  sample:
    - words: alice on bastion, pid 4711 since 2026-01-31T12:00:00Z
      run: "bastion/1a35c1ff/4026531836:4711:884321"
      about: {user: alice, host: bastion, pid: 4711, job: ""}
      gone: []
"""

import datetime
import getpass
import multiprocessing
import os
import socket

from ansible.plugins.lookup import LookupBase

from ansible_collections.chainops.validator.plugins.module_utils._fleet import holder
from ansible_collections.chainops.validator.plugins.module_utils._host import procs


def place():
    """What tells the processes that can be seen here from everybody else's; empty where it can't be told."""
    try:
        return f"{socket.gethostname()}/{procs.boot_id()[:8]}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def process():
    """The ansible-playbook process: templates are often rendered in a worker that it forked."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent is not None else os.getpid()
    since = procs.started_at(pid) if place() else None
    moment = (
        datetime.datetime.fromtimestamp(since, datetime.timezone.utc) if since else datetime.datetime.now(datetime.timezone.utc)
    )
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {
        "user": user,
        "host": socket.gethostname(),
        "place": place(),
        "pid": pid,
        "ticks": procs.start_ticks(pid),
        "started": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "url": os.environ.get("AWX_HOST") or os.environ.get("TOWER_HOST") or "",
    }


def ticks_of(pid):
    """When a process started; None when there is none, or what is left of it is only to be reaped."""
    return procs.start_ticks(pid) if procs.alive(pid) else None


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        ours = process()
        said = holder.describe(variables or {}, ours, self.get_option("operator"))
        leases = [lease for term in terms for lease in (term if isinstance(term, list) else [term]) if lease]
        gone = [lease["run"] for lease in leases if holder.gone(lease, ours["place"], ticks_of)]
        return [{**said, "gone": sorted(set(gone))}]
