#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: state_restore
short_description: Put a snapshot back without rewinding what the key has signed
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Builds new trees beside the live ones out of a sealed snapshot, compares every byte with the manifest on the way,
    and exchanges
    them atomically. The old trees are kept and returned.
  - Keys, node identity and signing state stay as they are live. The watermark is set to the highest of the live one,
    the snapshot's,
    the one recorded on the host and O(min_watermark), and never goes down.
  - Refuses a snapshot that is not as it was sealed or is of another chain, a directory that is in use, and a file
    system without room.
    The live directories are as they were then.
  - With O(target), restores to a place of its own instead, for rehearsals; nothing live is touched and no keys are put
    there.
  - With O(state=reaped), deletes what restores and turns of finished rollouts put aside, at the lowest priority and in the
    background.
options:
  state:
    description:
      - V(present) restores O(snapshot_id).
      - V(reaped) deletes the old trees of turns whose rollout is finished, as the instance's manifest says, or those in
        O(old_trees). They are out of the way when the module returns; the deleting goes on without it.
    type: str
    choices: [present, reaped]
    default: present
  snapshot_id:
    description: Name of the sealed snapshot. Required for O(state=present).
    type: str
  old_trees:
    description:
      - For O(state=reaped), what an earlier restore or migration by hand returned as C(old_trees). A tree of a turn whose
        rollout is not finished is refused.
    type: list
    elements: path
    default: []
  data_dir:
    description: The data directory. By default the root named V(data).
    type: path
  chain:
    description: Which kind of node this is; the name of an adapter.
    type: str
    default: xai
  target:
    description:
      - Directory for a test restore, missing or empty; each root becomes a name in it. Omit it to restore in place,
        with the node down.
    type: path
  only:
    description: Names of the roots to restore in place. By default all that are given in O(roots).
    type: list
    elements: str
  expect:
    description: What the snapshot must have been sealed with. What isn't given isn't compared.
    type: dict
    default: {}
    suboptions:
      chain_id:
        description: The chain's id.
        type: str
      genesis_hash:
        description: Hash of the first block.
        type: str
      root_sha256:
        description: The digest by which the snapshot is known from elsewhere, for example from the migration manifest.
        type: str
  min_watermark:
    description: The last thing the key is known to have signed, for example as seen on chain.
    type: dict
    suboptions:
      height:
        description: Height of the block.
        type: int
        required: true
      round:
        description: Round in that height.
        type: int
        default: 0
      step:
        description: Step in that round.
        type: int
        default: 0
      address:
        description: The key's address.
        type: str
        default: ""
attributes:
  idempotent:
    details: Directories that are as the snapshot has them, apart from what a restore leaves alone, are not restored again.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
  - chainops.validator.fence
  - chainops.validator.roots
"""

EXAMPLES = r"""
- name: Go back, with the node down
  chainops.validator.state_restore:
    instance: node1
    snapshot_id: before-2.0.0
    roots:
      - {name: data, path: /var/lib/xai/node1}
      - {name: unit, path: /etc/systemd/system/xai-node.service}
  register: done

- name: Delete what it put aside
  chainops.validator.state_restore:
    state: reaped
    instance: node1
    old_trees: "{{ done.restored.old_trees }}"
    roots: [{name: data, path: /var/lib/xai/node1}]

- name: Does it restore?
  chainops.validator.state_restore:
    instance: node1
    snapshot_id: before-2.0.0
    target: /var/lib/xai/rehearsal
    roots: [{name: data, path: /var/lib/xai/node1}]
"""

RETURN = r"""
restored:
  description: What was put back. Empty when nothing had to be.
  returned: with O(state=present)
  type: dict
  contains:
    snapshot_id: {description: The snapshot., type: str, returned: when restored, sample: before-2.0.0}
    root_sha256: {description: Its digest., type: str, returned: when restored, sample: 9f2c...}
    old_trees:
      description: What was live before.
      type: list
      elements: str
      returned: when in place
      sample: [/var/lib/xai/.chainops/node1/trees/old-x/data]
    watermark:
      description: The watermark now in force.
      type: dict
      returned: when in place
      sample: {"height": 1210, "round": 0, "step": 3, "address": "TXAI1f"}
    kept:
      description: Names taken from the live data directory.
      type: list
      elements: str
      returned: when in place
      sample: [node_identity.json]
    paths:
      description: Where each root is.
      type: dict
      returned: with O(target)
      sample: {"data": "/var/lib/xai/rehearsal/data"}
    files: {description: How many files., type: int, returned: when restored, sample: 6012}
    bytes: {description: How many bytes., type: int, returned: when restored, sample: 4170000000}
    seconds: {description: How long it took., type: float, returned: when restored, sample: 8.1}
    swap_seconds: {description: How long the exchange took., type: float, returned: when in place, sample: 0.0004}
    method: {description: "How the trees were exchanged, or copied.", type: str, returned: when restored, sample: exchange}
reaped:
  description: Old trees that are, or in check mode would be, deleted.
  returned: with O(state=reaped)
  type: list
  elements: str
  sample: [/var/lib/xai/.chainops/node1/trees/old-x/data]
differences:
  description: How the directories differed from the snapshot before; at most 100.
  returned: with O(state=present)
  type: list
  elements: str
  sample: ["data/schema.json: size 13, sealed 12"]
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import lock, past
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import FENCE, INSTANCE, ROOTS
from ansible_collections.chainops.validator.plugins.module_utils._state import names, restore, swap, watermark
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, data_root, sealed_path


def reap(module: AnsibleModule) -> dict[str, t.Any]:
    """Delete what nobody needs any more, without waiting for it."""
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    due = past.due(home)
    needed = sorted({os.path.abspath(path) for path in params["old_trees"]} & (past.put_aside(home).keys() - set(due)))
    if needed:
        raise Refused(f"{needed[0]} belongs to a rollout that is not finished; it was left alone", paths=needed)
    trees = [path for path in [*due, *params["old_trees"]] if os.path.lexists(path)]
    change = Change({"old_trees": trees} if trees else {}, {})
    if not module.check_mode:
        dummy, folders = swap.set_going(trees)
        own = [os.path.join(names.workspace(root["path"], params["instance"]), swap.TREES) for root in params["roots"]]
        swap.delete_in_background(swap.going(sorted({*folders, *own})))
    return {**change.result(), "reaped": trees}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    lock.use(Home(params["state_dir"], params["instance"]), params["fence_token"], dry=module.check_mode)
    if params["state"] == "reaped":
        return reap(module)
    chain = adapter(params["chain"])
    roots = tuple(Root(root["name"], root["path"]) for root in params["roots"])
    if params["data_dir"] and "data" not in {root.name for root in roots}:
        roots += (Root("data", params["data_dir"]),)
    path = sealed_path(names.snapshots_dir(data_root(roots).path, params["instance"]), params["snapshot_id"])
    expect = {name: value for name, value in params["expect"].items() if value is not None}
    target = params["target"]
    interrupted = not target and restore.pending(data_root(roots).path, params["instance"]) is not None
    places = roots if not target else tuple(Root(root.name, os.path.join(target, root.name)) for root in roots)
    chosen = [root for root in places if params["only"] is None or root.name in params["only"]]
    found = restore.differences(path, chosen, chain, expect=expect) if not interrupted else ["an exchange was interrupted"]
    change = Change({"differences": found[:100]} if found else {}, {}, header=f"snapshot {params['snapshot_id']}")
    done: dict[str, t.Any] = {}
    if change.changed and not module.check_mode:
        if target:
            done = restore.restore_to(path, target, chain, expect).as_dict()
        else:
            known = watermark.recorded(os.path.join(params["state_dir"], params["instance"]))
            floor = watermark.combine(watermark.from_dict(params["min_watermark"]), known)
            done = restore.restore(path, roots, chain, expect, floor, only=params["only"]).as_dict()
    return {**change.result(), "restored": done, "differences": found[:100]}


def main() -> None:
    mark = {name: {"type": "int", "default": 0} for name in ("round", "step")}
    facts = {name: {"type": "str"} for name in ("chain_id", "genesis_hash", "root_sha256")}
    floor = {"height": {"type": "int", "required": True}, **mark, "address": {"type": "str", "default": ""}}
    spec = ArgumentSpec(
        INSTANCE,
        ROOTS,
        FENCE,
        state={"type": "str", "choices": ["present", "reaped"], "default": "present"},
        snapshot_id={"type": "str"},
        old_trees={"type": "list", "elements": "path", "default": []},
        data_dir={"type": "path"},
        chain={"type": "str", "default": "xai"},
        target={"type": "path"},
        only={"type": "list", "elements": "str"},
        expect={"type": "dict", "default": {}, "options": facts},
        min_watermark={"type": "dict", "options": floor},
    )
    exclusive = [("target", "only"), ("target", "min_watermark")]
    run(spec.module(mutually_exclusive=exclusive, required_if=[("state", "present", ["snapshot_id"])]), act)


if __name__ == "__main__":
    main()
