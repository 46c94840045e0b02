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
  - With O(state=replicated), keeps what other hosts' manifests say, so that whoever loses or rewrites one, as root if need
    be, can't take that back.
options:
  state:
    description:
      - V(present) adds O(entry) to the instance's own manifest.
      - V(replicated) keeps O(replicas). All of them are looked at; then the module fails when one was refused, with
        RV(replicas) in C(error.replicas).
    type: str
    choices: [present, replicated]
    default: present
  entry:
    description: The entry. Further keys are kept as they are. Required with O(state=present).
    type: dict
attributes:
  idempotent:
    details: Needs V(rollout_id) or V(turn_id) in O(entry) to know an entry again.
notes:
  - O(entry) has a key V(kind), one of V(upgrade), V(rollback), V(put_back), V(finish) and V(lock_broken). V(finish) ends a
    rollout; its rollback points may be removed from then on. V(lock_broken) is what M(chainops.validator.rollout_lock) writes.
  - Usual further keys are V(rollout_id), V(turn_id), V(proposal_id), V(release), V(previous), V(snapshot_id),
    V(snapshot_sha256),
    V(migrations), V(proof_sha256) and V(break_glass) (by whom, why and until when, where people opened the gate).
  - V(seq), V(prev), V(time), V(hash) and V(instance) are filled in, and so is V(evidence), with digests of what is never
    rewritten (C(path), C(size), C(sha256)), namely the turn's plan and journal, and the log of the lock.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
  - chainops.validator.fence
  - chainops.validator.replicas
seealso:
  - module: chainops.validator.migration_manifest_info
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

- name: Keep what node2 has that is new here
  chainops.validator.migration_manifest:
    state: replicated
    instance: node1
    replicas:
      - origin: node2
        seq: 5
        head: "{{ told.head }}"
        entries: "{{ told.entries }}"
        marks: "{{ told.marks }}"
"""

RETURN = r"""
entry:
  description: The entry as it is stored. In check mode without what would be filled in.
  returned: with O(state=present)
  type: dict
  sample: {"seq": 3, "prev": "41ab...", "hash": "77c0...", "kind": "upgrade", "turn_id": "r-7-node1"}
head:
  description: Hash of the last entry.
  returned: with O(state=present)
  type: str
  sample: 77c0...
path:
  description: Where the manifest is.
  returned: with O(state=present)
  type: str
  sample: /var/lib/chainops/node1/migration_manifest.json
replicas:
  description: What became of each copy, or would in check mode.
  returned: with O(state=replicated)
  type: list
  elements: dict
  contains:
    origin: {description: Whose manifest it is., type: str, returned: always, sample: node2}
    state:
      description:
        - V(extended); V(same), when nothing is new; V(behind), when there is more and it doesn't follow yet, or can't be written
          now; V(refused), when what is kept is not in what was offered, or is broken itself.
      type: str
      returned: always
      sample: extended
    reason: {description: Why; with numbers and digests when refused., type: str, returned: always, sample: ""}
    before:
      description: Number and hash of the copy's last entry before.
      type: dict
      returned: always
      sample: {"seq": 4, "head": "41ab..."}
    seq: {description: Number of its last entry now., type: int, returned: always, sample: 5}
    head: {description: Hash of its last entry now., type: str, returned: always, sample: 77c0...}
    path:
      description: Where it is.
      type: str
      returned: always
      sample: /var/lib/chainops/node1/replicas/node2/migration_manifest.json
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._core import files
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import lock
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._manifest import evidence, manifest, replica
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import FENCE, INSTANCE, REPLICAS


def replicate(module: AnsibleModule, home: Home) -> dict[str, t.Any]:
    """Keep what other hosts' manifests say."""
    offered = replica.asked(module.params["replicas"])
    done = [replica.take(home.root, origin, one, dry=module.check_mode) for origin, one in offered]
    refused = [
        f"the manifest of {one['origin']} is not the one in {one['path']}: {one['reason']}"
        for one in done
        if one["state"] == replica.REFUSED
    ]
    if refused:
        raise Refused(f"{'; '.join(refused)}. A copy is never overwritten: find out which of the two is right", replicas=done)
    before = {one["origin"]: one["before"] for one in done if one["before"]["seq"]}
    after = {one["origin"]: {"seq": one["seq"], "head": one["head"]} for one in done if one["seq"]}
    return {**Change(before, after, header=f"copies that {home.instance} keeps").result(), "replicas": done}


def evidence_of(home: Home, entry: dict[str, t.Any]) -> list[str]:
    """Files whose digests are kept with an entry: of its turn, and the log of the lock."""
    paths = [home.at("evidence", "lock.jsonl")]
    with contextlib.suppress(InputError):
        turn = home.turn(str(entry.get("turn_id") or ""))
        paths += [turn.plan, turn.journal]
    return paths


def record(module: AnsibleModule, home: Home) -> dict[str, t.Any]:
    """Add to the instance's own manifest."""
    path = home.manifest
    entry = {**module.params["entry"], "instance": home.instance}
    known = manifest.known(path, entry)
    head = manifest.head(path)
    if known is not None:
        return {"changed": False, "entry": known.as_dict(), "head": head, "path": path, "diff": {"before": {}, "after": {}}}
    if module.check_mode:
        return {**Change({}, entry, header=path).result(), "entry": entry, "head": head, "path": path}
    files.make_dir(os.path.dirname(path))
    added = manifest.append(path, entry, evidence.seen(home.root, evidence_of(home, entry)))
    return {**Change({}, added.as_dict(), header=path).result(), "entry": added.as_dict(), "head": added.hash, "path": path}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    lock.use(home, params["fence_token"], dry=module.check_mode)
    return replicate(module, home) if params["state"] == "replicated" else record(module, home)


def main() -> None:
    spec = ArgumentSpec(
        INSTANCE,
        FENCE,
        REPLICAS,
        state={"type": "str", "choices": ["present", "replicated"], "default": "present"},
        entry={"type": "dict"},
    )
    run(spec.module(required_if=[("state", "present", ["entry"])]), act)


if __name__ == "__main__":
    main()
