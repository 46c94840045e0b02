#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: migration_manifest
short_description: Record what was done to an instance, for good
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Appends one entry to the instance's C(migration_manifest.json). Each entry carries the hash of the one before, so
    that an entry that
    is edited, dropped or moved later shows.
  - Refuses to add to a chain that is broken.
  - Saying the same again (same kind, rollout and turn) changes nothing; saying something else about the same turn is
    refused.
options:
  entry:
    description: The entry. Further keys are kept as they are.
    type: dict
    required: true
attributes:
  idempotent:
    details: Needs V(rollout_id) or V(turn_id) in O(entry) to know an entry again.
notes:
  - O(entry) has a key V(kind), one of V(upgrade), V(rollback), V(put_back), V(finish) and V(lock_broken). V(finish) ends a
    rollout; its rollback points may be removed from then on. V(lock_broken) is what M(chainops.validator.rollout_lock) writes.
  - Usual further keys are V(rollout_id), V(turn_id), V(proposal_id), V(release), V(previous), V(snapshot_id),
    V(snapshot_sha256),
    V(migrations), V(proof_sha256) and V(break_glass) (by whom, why and until when, where people opened the gate).
  - V(seq), V(prev), V(time), V(hash) and V(instance) are filled in.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
  - chainops.validator.fence
"""

EXAMPLES = r"""
- name: Record the upgrade
  chainops.validator.migration_manifest:
    instance: node1
    entry:
      kind: upgrade
      rollout_id: r-7
      turn_id: r-7-node1
      proposal_id: prop-3
      release: {id: 2.0.0, sha256: 9f2c}
      snapshot_id: before-2.0.0
"""

RETURN = r"""
entry:
  description: The entry as it is stored. In check mode without what would be filled in.
  returned: always
  type: dict
  sample: {"seq": 3, "prev": "41ab...", "hash": "77c0...", "kind": "upgrade", "turn_id": "r-7-node1"}
head:
  description: Hash of the last entry.
  returned: always
  type: str
  sample: 77c0...
path:
  description: Where the manifest is.
  returned: always
  type: str
  sample: /var/lib/chainops/node1/migration_manifest.json
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._core import files
from ansible_collections.chainops.validator.plugins.module_utils._host import lock
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import FENCE, INSTANCE


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    path = home.manifest
    lock.use(home, params["fence_token"], dry=module.check_mode)
    entry = {**params["entry"], "instance": params["instance"]}
    known = manifest.known(path, entry)
    head = manifest.head(path)
    if known is not None:
        return {"changed": False, "entry": known.as_dict(), "head": head, "path": path, "diff": {"before": {}, "after": {}}}
    if module.check_mode:
        return {**Change({}, entry, header=path).result(), "entry": entry, "head": head, "path": path}
    files.make_dir(os.path.dirname(path))
    added = manifest.append(path, entry)
    return {**Change({}, added.as_dict(), header=path).result(), "entry": added.as_dict(), "head": added.hash, "path": path}


def main() -> None:
    run(ArgumentSpec(INSTANCE, FENCE, entry={"type": "dict", "required": True}).module(), act)


if __name__ == "__main__":
    main()
