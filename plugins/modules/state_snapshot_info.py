#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: state_snapshot_info
short_description: List the snapshots of an instance and say whether they verify
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Lists every snapshot of an instance, hot and sealed, the oldest first, with what holds it.
  - Compares sealed ones with their manifests when asked to. Never fails because one does not verify.
options:
  instance:
    description: Name of the validator instance on this host.
    type: str
    required: true
  data_dir:
    description: The data directory of the instance.
    type: path
    required: true
  snapshot_id:
    description: Look at this one alone.
    type: str
  verify:
    description:
      - V(quick) compares names, sizes, owners, modes and times with the manifest; V(deep) also reads every byte.
    type: str
    choices: [none, quick, deep]
    default: quick
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
"""

EXAMPLES = r"""
- name: Which snapshots are there, and are they whole?
  chainops.validator.state_snapshot_info:
    instance: node1
    data_dir: /var/lib/xai/node1
    verify: deep
  register: seen
"""

RETURN = r"""
snapshots:
  description: The snapshots, the oldest first.
  returned: always
  type: list
  elements: dict
  contains:
    id: {description: Its name., type: str, returned: always, sample: before-2.0.0}
    path:
      description: Where it is.
      type: str
      returned: always
      sample: /var/lib/xai/.chainops/node1/snapshots/before-2.0.0
    sealed: {description: Whether it is sealed., type: bool, returned: always, sample: true}
    ok: {description: Whether it verifies., type: bool, returned: when sealed and verified, sample: true}
    problems: {description: The differences found., type: list, elements: str, returned: always, sample: []}
    root_sha256: {description: Digest that names its whole content., type: str, returned: always, sample: 9f2c...}
    files: {description: How many files it has., type: int, returned: always, sample: 6012}
    bytes: {description: How many bytes they have., type: int, returned: always, sample: 4170000000}
    facts: {description: What it was sealed with., type: dict, returned: always, sample: {"height": 1204}}
    created: {description: When it was sealed., type: str, returned: always, sample: "2026-01-31T12:00:00.123Z"}
    holds: {description: Why it is kept., type: dict, returned: always, sample: {"turn-7": "rollback point of this turn"}}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._state.names import snapshots_dir
from ansible_collections.chainops.validator.plugins.module_utils._state.retention import inventory
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    items = inventory(snapshots_dir(params["data_dir"], params["instance"]))
    items = [item for item in items if params["snapshot_id"] in (None, item["id"])]
    for item in items:
        problem = item.pop("problem")
        item["problems"] = [problem] if problem else []
        if item["sealed"] and params["verify"] != "none":
            verdict = verify(item["path"], deep=params["verify"] == "deep")
            item.update(ok=verdict.ok, problems=list(verdict.problems))
    return {"changed": False, "snapshots": items}


def main() -> None:
    spec = ArgumentSpec(
        instance={"type": "str", "required": True},
        data_dir={"type": "path", "required": True},
        snapshot_id={"type": "str"},
        verify={"type": "str", "choices": ["none", "quick", "deep"], "default": "quick"},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
