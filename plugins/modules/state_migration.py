#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: state_migration
short_description: Run a declared storage migration forward or back
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Takes a data directory from one storage level to another by the commands a release declares. They run as the
    directory's owner,
    without a shell and with a bare environment, under one deadline.
  - Steps that are behind the directory already are skipped, so that a second run changes nothing.
options:
  data_dir:
    description: The data directory.
    type: path
    required: true
  release_dir:
    description: The unpacked release whose commands are run; C({release}) in a command.
    type: path
    required: true
  instance:
    description: Name of the instance; needed with O(mode=copy), whose copy is made in the instance's workspace.
    type: str
  chain:
    description: Which kind of node this is; the name of an adapter.
    type: str
    default: xai
  migrations:
    description: The steps, as the release declares them, from the lowest level up.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: Name of the step.
        type: str
        required: true
      from_level:
        description: Storage level it starts from.
        type: int
        required: true
      to_level:
        description: Storage level it ends at.
        type: int
        required: true
      forward:
        description: The command and its arguments. C({release}) and C({data}) stand for the two directories.
        type: list
        elements: str
        required: true
      back:
        description: The command for the way back.
        type: list
        elements: str
        default: []
      check:
        description: A command that exits 0 when the directory is sound; run after the step, in both directions.
        type: list
        elements: str
        default: []
      reversible:
        description: Whether forward and back again gives the same bytes.
        type: bool
        default: false
  direction:
    description: Which way to go.
    type: str
    choices: [forward, back]
    default: forward
  mode:
    description:
      - V(copy) runs the commands on a copy beside the directory, and exchanges the two when all of them have
        succeeded. A step that fails
        leaves the directory as it was.
      - V(live) runs them on the directory itself; have a sealed snapshot.
      - V(rehearse) goes forward, back and forward again on a directory that is yours to lose, or on a copy of it in
        O(scratch), and
        compares the bytes where every step is reversible.
    type: str
    choices: [copy, live, rehearse]
    default: copy
  scratch:
    description: Where V(rehearse) makes its copy, without keys; missing or empty. By default there is no copy.
    type: path
  timeout:
    description: Seconds for all commands together.
    type: float
    default: 600.0
attributes:
  idempotent:
    support: partial
    details: O(mode=rehearse) always runs the steps that are still ahead of the directory.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
"""

EXAMPLES = r"""
- name: Rehearse on a restored snapshot
  chainops.validator.state_migration:
    data_dir: /var/lib/xai/rehearsal/data
    release_dir: /var/lib/chainops/node1/releases/9f2c
    migrations: "{{ rollout_release.migrations }}"
    mode: rehearse

- name: Migrate, with the node down
  chainops.validator.state_migration:
    instance: node1
    data_dir: /var/lib/xai/node1
    release_dir: /var/lib/chainops/node1/releases/9f2c
    migrations: "{{ rollout_release.migrations }}"
"""

RETURN = r"""
migration:
  description: What was done, or would be in check mode.
  returned: always
  type: dict
  contains:
    direction: {description: "V(forward), V(back) or V(rehearsal).", type: str, returned: always, sample: forward}
    from_level: {description: Level before; null where the chain records none., type: int, returned: always, sample: 1}
    to_level: {description: Level after., type: int, returned: always, sample: 2}
    steps:
      description: Each step with its direction, levels, seconds, and whether it was skipped.
      returned: always
      type: list
      elements: dict
      sample: [{"id": "0002-utxo-db", "direction": "forward", "from_level": 1, "to_level": 2, "seconds": 0.3, "skipped": false}]
    digest_before: {description: Digest of names and content before., type: str, returned: always, sample: 53d4...}
    digest_after: {description: The same afterwards., type: str, returned: always, sample: 4e15...}
    seconds: {description: How long it took., type: float, returned: always, sample: 1.1}
    old_trees:
      description: The directory from before the exchange.
      type: list
      elements: str
      returned: always
      sample: []
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._state import migration


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    chain = adapter(params["chain"])
    steps = migration.parse(params["migrations"])
    rehearsal = params["mode"] == "rehearse"
    data, release, timeout = params["data_dir"], params["release_dir"], params["timeout"]
    plan = migration.preview(steps, data, "forward" if rehearsal else params["direction"], chain)
    change = Change(
        {"level": plan.from_level, "todo": [s["id"] for s in plan.steps if not s["skipped"]]},
        {"level": plan.to_level, "todo": []},
    )
    if module.check_mode or not change.changed:
        return {**change.result(), "migration": plan.as_dict()}
    if rehearsal:
        if params["scratch"]:
            data = migration.scratch_copy(data, params["scratch"], chain)
        done = migration.rehearse(steps, data, release, timeout, adapter=chain)
    else:
        done = migration.run(
            steps,
            data,
            release,
            params["direction"],
            timeout,
            adapter=chain,
            in_place=params["mode"] == "live",
            instance=params["instance"] or os.path.basename(data),
            digests=True,
        )
    return {**change.result(), "migration": done.as_dict()}


def main() -> None:
    words = {"type": "list", "elements": "str", "default": []}
    step = {
        "id": {"type": "str", "required": True},
        "from_level": {"type": "int", "required": True},
        "to_level": {"type": "int", "required": True},
        "forward": {"type": "list", "elements": "str", "required": True},
        "back": words,
        "check": words,
        "reversible": {"type": "bool", "default": False},
    }
    spec = ArgumentSpec(
        data_dir={"type": "path", "required": True},
        release_dir={"type": "path", "required": True},
        instance={"type": "str"},
        chain={"type": "str", "default": "xai"},
        migrations={"type": "list", "elements": "dict", "required": True, "options": step},
        direction={"type": "str", "choices": ["forward", "back"], "default": "forward"},
        mode={"type": "str", "choices": ["copy", "live", "rehearse"], "default": "copy"},
        scratch={"type": "path"},
        timeout={"type": "float", "default": 600.0},
    )
    run(spec.module(required_if=[("mode", "copy", ["instance"])]), act)


if __name__ == "__main__":
    main()
