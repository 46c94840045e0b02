#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: state_snapshot
short_description: Take, verify or remove a snapshot of a validator's directories
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Copies the declared roots of an instance while its node runs (O(phase=hot)) and, once the node is down, copies what
    has changed
    since and seals the whole (O(phase=sealed)). A sealed snapshot has a manifest of every file under one digest.
  - Snapshots are kept on the data directory's own file system, in C(.chainops/INSTANCE/snapshots) beside it.
  - Keys, node identity and signing state, as the chain's adapter names them, are never in a snapshot.
  - A snapshot that is a rollback point of an unfinished rollout, is in use, or is the last good one, is never removed.
options:
  state:
    description:
      - V(present) takes the snapshot, as far as O(phase) says.
      - V(verified) compares a sealed snapshot with its manifest, and fails when it differs.
      - V(absent) removes the snapshot O(snapshot_id), or, without one, the oldest ones beyond O(keep).
    type: str
    choices: [present, verified, absent]
    default: present
  phase:
    description:
      - V(hot) copies while the node runs. Doing it again copies what has changed.
      - V(sealed) needs the node to be down, unless O(live=true).
    type: str
    choices: [hot, sealed]
    default: hot
  snapshot_id:
    description: Name of the snapshot. Letters, digits, dot, underscore, plus and minus.
    type: str
  data_dir:
    description: The data directory. By default the root named V(data).
    type: path
  chain:
    description: Which kind of node this is; the name of an adapter.
    type: str
    default: xai
  facts:
    description:
      - What is worth knowing about the state that is sealed, such as V(chain_id), V(genesis_hash), V(height), V(tip_hash),
        V(release), V(level) and V(watermark). A restore compares the first two, and never goes below the watermark.
    type: dict
    default: {}
  live:
    description:
      - Seal beside a running node, in a moment in which nothing changes. What is sealed is what a crash at that
        moment would have
        left. It is meant for rehearsals and is never restored over the live directories.
    type: bool
    default: false
  patience:
    description: Seconds to wait for such a moment.
    type: float
    default: 60.0
  freeze_budget:
    description:
      - With O(phase=hot), go on refreshing until sealing is predicted to take at most this many seconds, in at most
        O(passes) passes.
    type: float
  passes:
    description: How often the directories are gone through at most, with O(phase=hot).
    type: int
    default: 3
  deep:
    description: With O(state=verified), whether every byte is read. Without, names, sizes, owners, modes and times are compared.
    type: bool
    default: true
  keep:
    description: How many sealed snapshots to keep. Older ones are removed, apart from those that are needed.
    type: int
attributes:
  idempotent:
    support: partial
    details: A sealed snapshot never changes. A hot one is refreshed, and is changed as long as the node goes on writing.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
  - chainops.validator.roots
"""

EXAMPLES = r"""
- name: Copy while the node runs
  chainops.validator.state_snapshot:
    instance: node1
    snapshot_id: before-2.0.0
    roots:
      - {name: data, path: /var/lib/xai/node1}
      - {name: unit, path: /etc/systemd/system/xai-node.service}
  register: hot

- name: Seal it, with the node down
  chainops.validator.state_snapshot:
    instance: node1
    snapshot_id: before-2.0.0
    phase: sealed
    facts: {chain_id: devnet-1, height: 1204}
    roots:
      - {name: data, path: /var/lib/xai/node1}
      - {name: unit, path: /etc/systemd/system/xai-node.service}

- name: Keep three
  chainops.validator.state_snapshot:
    state: absent
    instance: node1
    keep: 3
    roots: [{name: data, path: /var/lib/xai/node1}]
"""

RETURN = r"""
snapshot:
  description: The snapshot. In check mode, and when it was removed, only what is known.
  returned: when O(snapshot_id) is given
  type: dict
  contains:
    id: {description: Its name., type: str, returned: always, sample: before-2.0.0}
    path:
      description: Where it is.
      type: str
      returned: always
      sample: /var/lib/xai/.chainops/node1/snapshots/before-2.0.0
    sealed: {description: Whether it is sealed., type: bool, returned: always, sample: true}
    root_sha256:
      description: Digest of its manifest's header; names its whole content.
      type: str
      returned: when sealed
      sample: 9f2c...
    files: {description: How many files it has., type: int, returned: success, sample: 6012}
    bytes: {description: How many bytes they have., type: int, returned: success, sample: 4170000000}
    facts: {description: What was given as O(facts)., type: dict, returned: when sealed, sample: {"height": 1204}}
    seconds: {description: How long the hot copy or the freeze took., type: float, returned: success, sample: 0.66}
    method: {description: V(reflink) or V(copy)., type: str, returned: success, sample: copy}
    predicted_freeze_seconds:
      description: How long sealing it would take now.
      type: float
      returned: when hot
      sample: 0.7
    copied_bytes: {description: How much was copied by this call., type: int, returned: when hot, sample: 90000000}
    problems:
      description: How it differs from its manifest.
      type: list
      elements: str
      returned: with O(state=verified)
      sample: []
removed:
  description: Ids of the snapshots that were, or would be, removed.
  returned: always
  type: list
  elements: str
  sample: [before-1.9.0]
kept:
  description: Why snapshots beyond O(keep) were kept, by id.
  returned: always
  type: dict
  sample: {"before-1.8.0": "held by turn-7: rollback point of this turn"}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy, IntegrityError
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import INSTANCE, ROOTS
from ansible_collections.chainops.validator.plugins.module_utils._state import retention, snapshot
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, SnapshotSpec
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify


def spec_of(params: dict[str, t.Any]) -> SnapshotSpec:
    """The snapshot the options describe."""
    roots = tuple(Root(root["name"], root["path"]) for root in params["roots"])
    if params["data_dir"] and "data" not in {root.name for root in roots}:
        roots += (Root("data", params["data_dir"]),)
    return SnapshotSpec.for_adapter(params["instance"], params["snapshot_id"] or "none", roots, adapter(params["chain"]))


def look(spec: SnapshotSpec) -> dict[str, t.Any]:
    """What there is of a snapshot now."""
    done = snapshot.sealed_path(spec.snapshots_dir, spec.snapshot_id)
    hot = snapshot.hot_path(spec.snapshots_dir, spec.snapshot_id)
    if os.path.isdir(done):
        return result_of({"sealed": True, **snapshot.load(done).as_dict()})
    return {"id": spec.snapshot_id, "path": hot if os.path.isdir(hot) else "", "sealed": False}


def result_of(values: dict[str, t.Any]) -> dict[str, t.Any]:
    return {("id" if name == "snapshot_id" else name): value for name, value in values.items()}


def shown(item: dict[str, t.Any]) -> dict[str, t.Any]:
    """The part of a snapshot that counts as a change."""
    return (
        {name: item[name] for name in ("id", "sealed", "root_sha256", "refreshed") if item.get(name)} if item.get("path") else {}
    )


def present(module: AnsibleModule, spec: SnapshotSpec) -> tuple[Change, dict[str, t.Any]]:
    params, before = module.params, look(spec)
    if before["sealed"]:
        return Change({}, {}), before
    planned = {"id": spec.snapshot_id, "sealed": params["phase"] == "sealed", "refreshed": True}
    if module.check_mode:
        return Change(shown(before), planned), {**before, **planned}
    if params["phase"] == "hot":
        hot = snapshot.hot_copy(spec, passes=params["passes"], budget=params["freeze_budget"])
        now = result_of({"sealed": False, **hot.as_dict()})
        planned["refreshed"] = not before["path"] or hot.copied_files > 0
        return Change(shown(before), planned if planned["refreshed"] else shown(before)), now
    data = snapshot.data_root(spec.roots).path
    pid = None if params["live"] else adapter(params["chain"]).lock_holder(data)
    if pid is not None:
        raise Busy(
            f"{data} is in use by process {pid}; stop the node first, or seal with live=true for a rehearsal", pid=pid, path=data
        )
    now = result_of(
        {"sealed": True, **snapshot.freeze(spec, params["facts"], live=params["live"], patience=params["patience"]).as_dict()}
    )
    return Change(shown(before), shown(now)), now


def verified(module: AnsibleModule, spec: SnapshotSpec) -> tuple[Change, dict[str, t.Any]]:
    path = snapshot.sealed_path(spec.snapshots_dir, spec.snapshot_id)
    verdict = verify(path, deep=module.params["deep"])
    if not verdict.ok:
        raise IntegrityError(
            f"snapshot {spec.snapshot_id} does not verify: {verdict.problems[0]} ({len(verdict.problems)} problems)",
            path=path,
            problems=list(verdict.problems),
        )
    return Change({}, {}), {**look(spec), "problems": []}


def absent(module: AnsibleModule, spec: SnapshotSpec, protected: dict[str, str]) -> tuple[Change, dict[str, t.Any]]:
    before = look(spec)
    if before["path"] and not module.check_mode:
        retention.remove(spec.snapshots_dir, spec.snapshot_id, protected)
    elif before["path"]:
        retention.check_removable(spec.snapshots_dir, spec.snapshot_id, protected)
    return Change(shown(before), {}), {"id": spec.snapshot_id, "path": "", "sealed": False}


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    spec = spec_of(params)
    protected = manifest.protected(os.path.join(params["state_dir"], params["instance"], manifest.NAME))
    result: dict[str, t.Any] = {"changed": False, "removed": [], "kept": {}}
    if params["snapshot_id"]:
        do = {"present": present, "verified": verified}.get(params["state"])
        change, item = do(module, spec) if do else absent(module, spec, protected)
        result.update(change.result(), snapshot=item)
        result["removed"] = [spec.snapshot_id] if params["state"] == "absent" and change.changed else []
    if params["keep"] is not None and params["state"] != "verified":
        prune = retention.prunable if module.check_mode else retention.prune
        pruned = prune(spec.snapshots_dir, params["keep"], protected)
        result["removed"] += pruned.removed
        result["kept"] = pruned.kept
        result["changed"] = result["changed"] or bool(pruned.removed)
    return result


def main() -> None:
    spec = ArgumentSpec(
        INSTANCE,
        ROOTS,
        state={"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
        phase={"type": "str", "choices": ["hot", "sealed"], "default": "hot"},
        snapshot_id={"type": "str"},
        data_dir={"type": "path"},
        chain={"type": "str", "default": "xai"},
        facts={"type": "dict", "default": {}},
        live={"type": "bool", "default": False},
        patience={"type": "float", "default": 60.0},
        freeze_budget={"type": "float"},
        passes={"type": "int", "default": 3, "no_log": False},
        deep={"type": "bool", "default": True},
        keep={"type": "int"},
    )
    required_if = [("state", "present", ["snapshot_id"]), ("state", "verified", ["snapshot_id"])]
    run(spec.module(required_if=[*required_if, ("state", "absent", ["snapshot_id", "keep"], True)]), act)


if __name__ == "__main__":
    main()
