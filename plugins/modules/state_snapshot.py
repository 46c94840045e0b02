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
  rate:
    description: Bytes a second that are read while the node runs, at most, so that it keeps its disk; 0 for as many as there are.
    type: float
    default: 0.0
  test:
    description:
      - With O(phase=hot), restore what was copied to a scratch place on the same file system, compare every byte, and delete it
        again, all at the lowest I/O priority. What was tested before and has not changed since is not tested again.
      - Where the file system can't share blocks and has no room for a second copy, every byte is read and compared instead.
    type: bool
    default: false
  stop_window_budget:
    description:
      - With O(phase=hot), fail when the node would be down for longer than this many seconds if it were stopped now; 0 for never.
      - Sealing is predicted from the copy, stopping and starting from this host's earlier turns (the longest of the last five).
        What nobody has measured yet counts as nothing, and is named in RV(snapshot.predicted_stop_window).
    type: float
    default: 0.0
  migrations:
    description: Ids of the migrations that a turn would run, for O(stop_window_budget).
    type: list
    elements: str
    default: []
  hook:
    description:
      - A command for the snapshot once it is sealed, such as one that copies it off the host; an argument list, no shell. The
        first is the absolute path of a program.
      - V({path}), V({id}), V({instance}) and V({root_sha256}) in it are filled in, and are in its environment as
        E(CHAINOPS_SNAPSHOT_PATH), E(CHAINOPS_SNAPSHOT_ID), E(CHAINOPS_SNAPSHOT_INSTANCE) and E(CHAINOPS_SNAPSHOT_ROOT_SHA256).
      - It runs after O(phase=sealed) or O(state=verified), once for each snapshot and argument list; that it succeeded is
        remembered with the snapshot. It must stand being run again when it failed half way.
    type: list
    elements: str
    default: []
  hook_timeout:
    description: Seconds the hook may take; past them it is killed with all its children.
    type: float
    default: 3600.0
  hook_required:
    description: Whether a hook that fails fails the module. Without, it is a warning. The snapshot stays either way.
    type: bool
    default: true
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
  - chainops.validator.fence
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

- name: Ship it off the host, once it is known to be whole
  chainops.validator.state_snapshot:
    state: verified
    instance: node1
    snapshot_id: before-2.0.0
    hook: [/usr/bin/restic, --repository-file, /etc/restic/repository, --password-file, /etc/restic/password, backup, "{path}"]
    roots: [{name: data, path: /var/lib/xai/node1}]

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
    predicted_stop_window:
      description:
        - How long the node would be down if it were stopped now. C(seconds) is the sum of the C(parts) that are known,
          C(unknown) names the others, C(turns) is how many earlier turns it rests on.
      type: dict
      returned: when hot
      sample:
        seconds: 3.1
        parts: {"stop": 1.0, "freeze": 0.7, "migrate": 0.0, "start": 1.4}
        unknown: []
        turns: 2
        budget: 10.0
    tested:
      description: What the test restore did. C(method) is V(reflink), V(copy) or V(read).
      type: dict
      returned: when hot, with O(test)
      sample: {"snapshot_id": before-2.0.0, "files": 6012, "bytes": 4170000000, "before": 0, "method": copy, "seconds": 9.1}
    hook:
      description: Whether the hook ran now (C(changed)) or had run before, and how long it took; C(error) when it failed.
      type: dict
      returned: when sealed, with O(hook)
      sample: {"changed": true, "seconds": 41.0}
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
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy, CommandFailed, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import forecast, lock, past
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import FENCE, INSTANCE, ROOTS
from ansible_collections.chainops.validator.plugins.module_utils._state import hook, rehearse, retention, snapshot
from ansible_collections.chainops.validator.plugins.module_utils._state.kernel import idle_io
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, SnapshotSpec
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify


def spec_of(params: dict[str, t.Any]) -> SnapshotSpec:
    """The snapshot the options describe."""
    roots = tuple(Root(root["name"], root["path"]) for root in params["roots"])
    if params["data_dir"] and "data" not in {root.name for root in roots}:
        roots += (Root("data", params["data_dir"]),)
    chain = adapter(params["chain"])
    return SnapshotSpec.for_adapter(params["instance"], params["snapshot_id"] or "none", roots, chain, params["rate"])


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
        now["predicted_stop_window"] = within_budget(params, hot.predicted_freeze_seconds)
        if params["test"]:
            now["tested"] = rehearse.hot_test(spec).as_dict()
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


def within_budget(params: dict[str, t.Any], freeze: float) -> dict[str, t.Any]:
    """The stop window as it is predicted now. Raises Refused when it is over the budget."""
    earlier = past.results(Home(params["state_dir"], params["instance"]), 2 * forecast.TURNS)
    prediction = forecast.predict(earlier, freeze=freeze, migrations=params["migrations"], budget=params["stop_window_budget"])
    problem = forecast.over(prediction)
    if problem:
        raise Refused(f"{problem}; nothing was stopped", predicted=prediction)
    return prediction


def shipped(module: AnsibleModule, spec: SnapshotSpec) -> dict[str, t.Any]:
    """Run the hook for a sealed snapshot, unless it has run."""
    params, path = module.params, snapshot.sealed_path(spec.snapshots_dir, spec.snapshot_id)
    if module.check_mode:
        ran = os.path.isdir(path) and hook.done(path, params["hook"])
        return {"changed": not ran, "seconds": 0.0}
    try:
        return hook.run(path, params["hook"], params["hook_timeout"]).as_dict()
    except CommandFailed as exc:
        if params["hook_required"]:
            raise
        module.warn(exc.message)
        return {"changed": False, "seconds": 0.0, "error": exc.message}


def verified(module: AnsibleModule, spec: SnapshotSpec) -> tuple[Change, dict[str, t.Any]]:
    path = snapshot.sealed_path(spec.snapshots_dir, spec.snapshot_id)
    with idle_io():
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
    if params["hook"]:
        hook.check(params["hook"])
    home = Home(params["state_dir"], params["instance"])
    lock.use(home, params["fence_token"], dry=module.check_mode)
    protected = manifest.protected(home.manifest)
    result: dict[str, t.Any] = {"changed": False, "removed": [], "kept": {}}
    if params["snapshot_id"]:
        do = {"present": present, "verified": verified}.get(params["state"])
        change, item = do(module, spec) if do else absent(module, spec, protected)
        result.update(change.result(), snapshot=item)
        if params["hook"] and (params["state"] == "verified" or (params["state"], params["phase"]) == ("present", "sealed")):
            item["hook"] = shipped(module, spec)
            result["changed"] = result["changed"] or item["hook"]["changed"]
        result["removed"] = [spec.snapshot_id] if params["state"] == "absent" and change.changed else []
    if params["keep"] is not None and params["state"] != "verified":
        prune = retention.prunable if module.check_mode else retention.prune
        pruned = prune(spec.snapshots_dir, params["keep"], protected)
        result["removed"] += pruned.removed
        result["kept"] = pruned.kept
        result["changed"] = result["changed"] or bool(pruned.removed)
    # Copying and verifying may have taken longer than the lease.
    lock.use(home, params["fence_token"], dry=module.check_mode)
    return result


def main() -> None:
    spec = ArgumentSpec(
        INSTANCE,
        ROOTS,
        FENCE,
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
        rate={"type": "float", "default": 0.0},
        test={"type": "bool", "default": False},
        stop_window_budget={"type": "float", "default": 0.0},
        migrations={"type": "list", "elements": "str", "default": []},
        hook={"type": "list", "elements": "str", "default": []},
        hook_timeout={"type": "float", "default": 3600.0},
        hook_required={"type": "bool", "default": True},
        deep={"type": "bool", "default": True},
        keep={"type": "int"},
    )
    required_if = [("state", "present", ["snapshot_id"]), ("state", "verified", ["snapshot_id"])]
    run(spec.module(required_if=[*required_if, ("state", "absent", ["snapshot_id", "keep"], True)]), act)


if __name__ == "__main__":
    main()
