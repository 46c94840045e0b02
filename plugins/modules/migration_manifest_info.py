#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: migration_manifest_info
short_description: Read an instance's migration manifest and verify its chain
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Returns the entries of C(migration_manifest.json) and whether each follows the one before.
  - Never fails because the chain is broken. Entries from the first broken one on are not returned.
options:
  head:
    description:
      - A hash that must be among the entries', for example the head of a copy kept elsewhere. A manifest that was
        cut at its end, or
        exchanged as a whole, shows by this.
    type: str
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
  - chainops.validator.instance
"""

EXAMPLES = r"""
- name: What was done here?
  chainops.validator.migration_manifest_info:
    instance: node1
  register: history

- name: Stop unless the record is whole
  ansible.builtin.assert:
    that: history.valid
    fail_msg: "{{ history.problems | join('; ') }}"
"""

RETURN = r"""
entries:
  description: The entries, the oldest first, up to the first broken one.
  returned: always
  type: list
  elements: dict
  sample: [{"seq": 1, "kind": "upgrade", "turn_id": "r-7-node1", "hash": "77c0..."}]
head:
  description: Hash of the last entry that is returned; 64 zeros when there is none.
  returned: always
  type: str
  sample: 77c0...
valid:
  description: Whether nothing is wrong with the chain.
  returned: always
  type: bool
  sample: true
problems:
  description: What is wrong.
  returned: always
  type: list
  elements: str
  sample: ["entry 3: its content does not match its hash: it was changed after it was written"]
path:
  description: Where the manifest is.
  returned: always
  type: str
  sample: /var/lib/chainops/node1/migration_manifest.json
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import INSTANCE


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    path = os.path.join(params["state_dir"], params["instance"], manifest.NAME)
    entries, problems = manifest.sound(path), manifest.verify(path)
    for entry in entries:
        if entry.fields.get("instance", params["instance"]) != params["instance"]:
            problems.append(f"entry {entry.seq}: it is about instance {entry.fields['instance']}")
    if params["head"] and params["head"] not in {manifest.START, *(entry.hash for entry in entries)}:
        problems.append(f"no entry has the hash {params['head']}: entries were cut off, or this is another manifest")
    return {
        "changed": False,
        "entries": [entry.as_dict() for entry in entries],
        "head": entries[-1].hash if entries else manifest.START,
        "valid": not problems,
        "problems": problems,
        "path": path,
    }


def main() -> None:
    run(ArgumentSpec(INSTANCE, head={"type": "str"}).module(), act)


if __name__ == "__main__":
    main()
