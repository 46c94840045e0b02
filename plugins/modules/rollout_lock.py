#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: One rollout at a time on an instance's host
version_added: 0.1.0
description:
  - Asks one host for its lock, a lease with a token that only grows. Who holds the locks of a majority of the instance's
    inventory hosts holds the rollout; counting is the caller's.
  - A host that refuses says who holds it, since when and until when. That is an answer, RV(granted=false), not a failure.
  - A lease that has expired is taken over only when no engine works on the host. The same rollout and run get it again,
    and longer.
  - A host lends a token to one run, also after that has given it back. So no two runs ever have a majority under one token.
  - Hosts remember the highest token they have seen and refuse lower ones, so an old controller that wakes up can do nothing.
  - A lock that can't be written down (disk full, file system read-only) is not held, and the module fails.
  - A renewal may hand over what was recorded on other hosts meanwhile (O(replicas)). A host of a large fleet is asked once
    before each turn, and not twice.
author:
  - chainops.validator contributors (@chainops)
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
  - chainops.validator.replicas
attributes:
  idempotent:
    details: Renewing a lease that is one's own is not reported as a change.
options:
  state:
    description:
      - V(held) takes the lock, or renews it.
      - V(released) gives it back. What the host remembers of tokens stays.
      - V(seen) only looks, and changes nothing.
    type: str
    choices: [held, released, seen]
    default: held
  rollout_id:
    description: The rollout that asks. Required unless O(state=seen).
    type: str
  holder:
    description: Who runs it, from where, as which job, in words. Shown to whoever is refused. Required
      unless O(state=seen).
    type: str
  run:
    description:
      - Which run of Ansible asks. Two runs of one person are two holders. By default what O(holder) says.
      - The lookup P(chainops.validator.rollout_holder#lookup) tells all three.
    type: str
  about:
    description: What else is known of the run, kept beside the lease. Must not hold secrets.
    type: dict
    default: {}
  token:
    description:
      - The token to hold it under; V(0) takes the next one that this host has not seen.
      - Hosts may have seen different ones. Ask all of them for one more than the highest that any has seen.
    type: int
    default: 0
  lease_seconds:
    description: How long the lease lasts when nobody renews it.
    type: float
    default: 900
  over:
    description:
      - Tokens of holders that are known to be dead. Their leases need not have expired, but no engine may work on the host.
    type: list
    elements: int
    default: []
  break_token:
    description:
      - Take it from the holder that has this token, whatever its lease and its engine say; V(0) breaks nothing. Naming the token
        makes sure that it is the holder that was looked at.
      - The host keeps it in its manifest, as V(lock_broken).
      - Only when somebody has made sure that the holder is gone.
    type: int
    default: 0
seealso:
  - module: chainops.validator.validator_upgrade
  - module: chainops.validator.migration_manifest
"""

EXAMPLES = r"""
- name: Ask this host for its lock
  chainops.validator.rollout_lock:
    instance: node1
    rollout_id: prop-7
    holder: "alice@bastion, job 4711"
  register: lock

- name: Give it back
  chainops.validator.rollout_lock:
    instance: node1
    rollout_id: prop-7
    holder: "alice@bastion, job 4711"
    state: released
"""

RETURN = r"""
granted:
  description: Whether this host's answer is yes.
  returned: O(state) is not V(seen)
  type: bool
  sample: true
reason:
  description: Why, in words; names the holder when it is no.
  returned: O(state) is not V(seen)
  type: str
  sample: it was free
lock:
  description: Who holds this host now; empty when nobody does.
  returned: O(state) is not V(seen)
  type: dict
  sample:
    rollout_id: prop-7
    holder: "alice@bastion, job 4711"
    token: 3
    acquired: 1767225600.0
    renewed: 1767225600.0
    lease_seconds: 900.0
    expires: 1767226500.0
    run: "bastion:4711:8843"
    about: {user: alice, host: bastion, pid: 4711}
before:
  description:
    - The same of whoever held it before, with V(expired), as the host's own clock sees it; empty when it was free.
  returned: success
  type: dict
  sample: {}
working:
  description: The turn that an engine works on now; empty when none does.
  returned: success
  type: str
  sample: ""
fence:
  description: The highest token this host has seen.
  returned: success
  type: int
  sample: 3
replicas:
  description:
    - What became of each copy in O(replicas), as M(chainops.validator.migration_manifest) tells it. Here one that is refused
      is no failure; the lease is held all the same.
  returned: O(state=held), granted
  type: list
  elements: dict
  sample: [{"origin": "node2", "state": "same", "reason": "", "seq": 5, "head": "77c0..."}]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._host import fence, lock
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._manifest import replica
from ansible_collections.chainops.validator.plugins.module_utils._module import options
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run


def shown(lease: lock.Lease | None, *, diff: bool = False) -> dict[str, t.Any]:
    """A lease for people. In a diff only what a change is about: not the times, which move with every renewal."""
    if lease is None or lease.released:
        return {}
    names = ("rollout_id", "holder", "token")
    whole = lease.as_dict()
    more = ("acquired", "renewed", "lease_seconds", "expires", "run", "about")
    return {name: whole[name] for name in (names if diff else names + more)}


def seen(home: Home, before: lock.Lease | None) -> dict[str, t.Any]:
    """How the host stood before."""
    engine = lock.engine_at_work(home)
    expired = {"expired": before.expired(lock.now())} if before and not before.released else {}
    return {
        "before": {**shown(before), **expired},
        "working": engine["turn_id"] if engine else "",
        "fence": fence.highest(home.fence),
    }


def ends(taken: list[dict[str, t.Any]], *, before: bool = False) -> dict[str, t.Any]:
    """Where the copies end that this call extended, for a diff."""
    found = {one["origin"]: one["before"]["seq"] if before else one["seq"] for one in taken if one["state"] == replica.EXTENDED}
    return {"copies": found} if found else {}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    if params["state"] == "seen":
        return {"changed": False, "diff": {"before": {}, "after": {}}, **seen(home, lock.held(home.lock))}
    offered = replica.asked(params["replicas"])
    asking = lock.Asking(
        params["rollout_id"],
        params["holder"],
        params["run"] or params["holder"],
        params["about"],
        params["token"],
        params["lease_seconds"],
        tuple(params["over"]),
        params["break_token"],
    )
    ask = lock.hold if params["state"] == "held" else lock.release
    before, decision = ask(home, asking, dry=module.check_mode)
    taken = []
    if params["state"] == "held" and decision.granted:
        taken = [replica.take(home.root, origin, one, dry=module.check_mode) for origin, one in offered]
    change = Change(
        {**shown(before, diff=True), **ends(taken, before=True)},
        {**shown(decision.lease, diff=True), **ends(taken)},
        f"lock of {home.instance}",
    )
    return {
        **change.result(),
        "replicas": taken,
        "granted": decision.granted,
        "reason": decision.reason,
        "lock": shown(decision.lease),
        **seen(home, before),
    }


def main() -> None:
    spec = ArgumentSpec(
        options.INSTANCE,
        options.REPLICAS,
        state={"type": "str", "choices": ["held", "released", "seen"], "default": "held"},
        rollout_id={"type": "str"},
        holder={"type": "str"},
        run={"type": "str"},
        about={"type": "dict", "default": {}},
        token={"type": "int", "default": 0, "no_log": False},
        lease_seconds={"type": "float", "default": 900},
        over={"type": "list", "elements": "int", "default": []},
        break_token={"type": "int", "default": 0, "no_log": False},
    )
    who = ["rollout_id", "holder"]
    run(spec.module(required_if=[("state", "held", who), ("state", "released", who)]), act)


if __name__ == "__main__":
    main()
