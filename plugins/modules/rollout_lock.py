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
  - Asks one host for its lock, a lease with a token that only grows. Who holds the locks of a majority of the rollout's hosts
    holds the rollout; counting is the caller's.
  - A host that refuses says who holds it, since when and until when. That is an answer, RV(granted=false), not a failure.
  - A lease that has expired is taken over only when no engine works under its token. The same rollout and holder get it again,
    and longer.
  - Hosts remember the highest token they have seen and refuse lower ones, so an old controller that wakes up can do nothing.
author:
  - chainops.validator contributors (@chainops)
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
attributes:
  idempotent:
    details: Renewing a lease that is one's own is not reported as a change.
options:
  state:
    description:
      - V(held) takes the lock, or renews it.
      - V(released) gives it back. What the host remembers of tokens stays.
    type: str
    choices: [held, released]
    default: held
  rollout_id:
    description: The rollout that asks.
    type: str
    required: true
  holder:
    description:
      - Who runs it, from where, as which job. Shown to whoever is refused.
      - A rollout that goes on from another machine is another holder.
    type: str
    required: true
  token:
    description:
      - The token to hold it under; V(0) takes the next one that this host has not seen.
      - Hosts may have seen different ones. Take the highest that any host gave, and ask all of them again for that.
    type: int
    default: 0
  lease_seconds:
    description: How long the lease lasts when nobody renews it.
    type: float
    default: 900
  break:
    description:
      - Take it from its holder, expired or not. The host keeps a record of it.
      - Only when somebody has made sure that the holder is gone.
    type: bool
    default: false
seealso:
  - module: chainops.validator.validator_upgrade
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
  returned: success
  type: bool
  sample: true
reason:
  description: Why, in words; names the holder when it is no.
  returned: success
  type: str
  sample: it was free
lock:
  description: Who holds this host now; empty when nobody does.
  returned: success
  type: dict
  sample:
    rollout_id: prop-7
    holder: "alice@bastion, job 4711"
    token: 3
    acquired: 1767225600.0
    renewed: 1767225600.0
    lease_seconds: 900.0
    expires: 1767226500.0
fence:
  description: The highest token this host has seen.
  returned: success
  type: int
  sample: 3
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._host import fence, lock
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._module import options
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run


def shown(lease: lock.Lease | None, *, diff: bool = False) -> dict[str, t.Any]:
    """A lease for people. In a diff only what a change is about: not the times, which move with every renewal."""
    if lease is None:
        return {}
    names = ("rollout_id", "holder", "token") + (() if diff else ("acquired", "renewed", "lease_seconds", "expires"))
    whole = lease.as_dict()
    return {name: whole[name] for name in names}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    asked: dict[str, t.Any] = {
        "rollout_id": params["rollout_id"],
        "holder": params["holder"],
        "break_it": params["break"],
        "dry": module.check_mode,
    }
    if params["state"] == "held":
        before, decision = lock.hold(home, token=params["token"], lease_seconds=params["lease_seconds"], **asked)
    else:
        before, decision = lock.release(home, **asked)
    change = Change(shown(before, diff=True), shown(decision.lease, diff=True), f"lock of {home.instance}")
    return {
        **change.result(),
        "granted": decision.granted,
        "reason": decision.reason,
        "lock": shown(decision.lease),
        "fence": fence.highest(home.fence),
    }


def main() -> None:
    spec = ArgumentSpec(
        options.INSTANCE,
        state={"type": "str", "choices": ["held", "released"], "default": "held"},
        rollout_id={"type": "str", "required": True},
        holder={"type": "str", "required": True},
        token={"type": "int", "default": 0, "no_log": False},
        lease_seconds={"type": "float", "default": 900},
        **{"break": {"type": "bool", "default": False}},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
