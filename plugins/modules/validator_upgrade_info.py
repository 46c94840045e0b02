#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validator_upgrade_info
short_description: Which release a validator runs, and what became of its turns
version_added: 0.1.0
description:
  - Reads journals, the running process, the release link, the lock and the fence of one instance on its host.
  - Never fails because something is missing or not well; that is said in what it returns.
author:
  - chainops.validator contributors (@chainops)
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
  - chainops.validator.instance
  - chainops.validator.turn
options:
  chain:
    description: Which kind of node it is.
    type: str
    default: xai
  data_dir:
    description: The node's data directory, to tell its storage level. Left out, the level isn't told.
    type: path
  release_sha256:
    description:
      - The release that a rollout goes to, the digest of its archive for each architecture. With it C(state) of RV(status) tells
        V(old) from V(new).
    type: list
    elements: str
    default: []
  migrations:
    description: Ids of the migrations that a turn would run, for RV(predicted_stop_window).
    type: list
    elements: str
    default: []
  limit:
    description: How many turns to return, the latest first.
    type: int
    default: 10
  wait:
    description:
      - Seconds to wait, at most, until no engine works on the host any more; the engine of a turn that is under way ends it by
        itself. What is returned is how the host is then.
    type: float
    default: 0
seealso:
  - module: chainops.validator.validator_upgrade
"""

EXAMPLES = r"""
- name: Look at this host
  chainops.validator.validator_upgrade_info:
    instance: node1
    service: xai-node.service
    release_link: /opt/node1/current
    data_dir: /var/lib/xai/data
    release_sha256: "{{ rollout_release.artifacts.x86_64.sha256 }}"
  register: host
"""

RETURN = r"""
running:
  description:
    - The release that the node's process uses.
    - C(sha256) is null where it can't be told or isn't content-addressed.
  returned: success
  type: dict
  sample:
    pid: 812
    path: /var/lib/chainops/node1/releases/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    how: files in use
    link: /var/lib/chainops/node1/releases/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    level: 1
turns:
  description: Results of turns, the latest first; the same as C(result.json) on the host.
  returned: success
  type: list
  elements: dict
  sample:
    - id: prop-7-node1
      outcome: committed
open_turn:
  description:
    - The turn under way, with its last step and since when; null when there is none.
    - C(noted) is what that step has found out so far. While the new release is watched it holds C(progress) with the heights,
      what is not yet so and the seconds left; while somebody's word is waited for, C(seconds_left) and C(on_silence).
  returned: success
  type: dict
  sample:
    id: prop-7-node1
    step: probe
    way: forward
    since: 1767225600.0
    noted:
      progress: {height: 817, network_height: 819, waits_for: ["height 817; 821 is needed (819 + 2)"], seconds_left: 88.0}
    engine: true
predicted_stop_window:
  description:
    - How long the node would be down in an upgrade, as far as earlier turns of this host tell (the longest of the last five).
    - C(seconds) is the sum of the known C(parts), null when none is; C(unknown) names the others.
  returned: success
  type: dict
  sample:
    seconds: 3.1
    parts: {stop: 1.0, freeze: 0.4, migrate: 0.0, start: 1.7}
    unknown: []
    turns: 2
    budget: 0.0
    words: 3.1 s (stop 1, freeze 0.4, start 1.7)
drains:
  description:
    - How its gateways had the host before a turn took it out of them, by its name there. The host's own record, which
      M(chainops.validator.api_drain) writes (C(driver=journal)). It is over when C(state) is V(active).
  returned: success
  type: dict
  sample: {node1: {state: active, turn_id: prop-7-node1, before: {gw1: {api: {state: ready, weight: 100}}}}}
fence:
  description: The highest token this host has seen.
  returned: success
  type: int
  sample: 3
lock:
  description: Who holds this host, and whether the lease has C(expired) by the host's own clock; empty when nobody does.
  returned: success
  type: dict
  sample: {}
unrecorded:
  description:
    - The entry that the last turn should have in the manifest and doesn't, because its controller was gone by then; or null.
    - It can be handed to M(chainops.validator.migration_manifest) as it is.
  returned: success
  type: dict
  sample: {kind: upgrade, rollout_id: prop-7, turn_id: prop-7-node1-1}
guarded:
  description: Whether only the engine can start the node now.
  returned: success
  type: bool
  sample: false
status:
  description:
    - The host in one row. C(state) is V(old), V(new), V(in turn), V(put back), V(needs help) or V(unknown).
  returned: success
  type: dict
  sample:
    instance: node1
    state: new
    step: null
    since: 1767225600.0
    release: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    turn: prop-7-node1
    why: null
problems:
  description: What could not be read, and why.
  returned: success
  type: list
  elements: str
  sample: []
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._gateway import receipt
from ansible_collections.chainops.validator.plugins.module_utils._host import overview
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._module import options
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._module.turn_options import TURN, service_spec


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    overview.settle(home, params["wait"])
    found = overview.look(
        home,
        service_spec(params),
        params["release_link"],
        chain=params["chain"],
        data_dir=params["data_dir"],
        target=params["release_sha256"],
        limit=params["limit"],
        migrations=params["migrations"],
    )
    drains, problems = receipt.all_of(home.at("drain"))
    return {"changed": False, **found, "problems": [*found["problems"], *problems], "drains": drains}


def main() -> None:
    spec = ArgumentSpec(
        options.INSTANCE,
        TURN,
        chain={"type": "str", "default": "xai"},
        data_dir={"type": "path"},
        release_sha256={"type": "list", "elements": "str", "default": []},
        migrations={"type": "list", "elements": "str", "default": []},
        limit={"type": "int", "default": 10},
        wait={"type": "float", "default": 0},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
