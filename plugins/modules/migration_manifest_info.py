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
  after:
    description:
      - Return only what copies that end at these entries don't have, V(0) for one that has nothing; at most 250 entries of
        256 KiB together, the newest before older ones. RV(marks) tells the hash of each of these entries.
      - An empty list returns no entries. By default all are returned.
    type: list
    elements: int
  evidence:
    description:
      - Whether files that entries tell the digests of are looked at. One that was changed is a problem; one that is gone isn't.
    type: bool
    default: false
  replicas:
    description: Whether to tell RV(replicas), too. Every copy is verified, which takes a second for each 20,000 entries or so.
    type: bool
    default: false
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
  - chainops.validator.instance
seealso:
  - module: chainops.validator.migration_manifest
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

- name: Whose manifests are kept here, up to where?
  chainops.validator.migration_manifest_info:
    instance: node1
    after: []
    replicas: true
"""

RETURN = r"""
entries:
  description: The entries, the oldest first, up to the first broken one. With O(after), some of them.
  returned: always
  type: list
  elements: dict
  sample: [{"seq": 1, "kind": "upgrade", "turn_id": "r-7-node1", "hash": "77c0..."}]
head:
  description: Hash of the last entry, before the first broken one; 64 zeros when there is none.
  returned: always
  type: str
  sample: 77c0...
seq:
  description: Its number; V(0) when there is none.
  returned: always
  type: int
  sample: 5
marks:
  description: The hash of each entry in O(after) that there is, by its number.
  returned: with O(after)
  type: dict
  sample: {"4": "41ab..."}
replicas:
  description: Other hosts' manifests that are kept here.
  returned: with O(replicas)
  type: list
  elements: dict
  sample:
    - origin: node2
      seq: 5
      head: 77c0...
      valid: true
      problems: []
      path: /var/lib/chainops/node1/replicas/node2/migration_manifest.json
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

from ansible_collections.chainops.validator.plugins.module_utils._manifest import evidence, manifest, replica
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import INSTANCE


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    path = os.path.join(params["state_dir"], params["instance"], manifest.NAME)
    entries, problems = manifest.look(path)
    for entry in entries:
        if entry.fields.get("instance", params["instance"]) != params["instance"]:
            problems.append(f"entry {entry.seq}: it is about instance {entry.fields['instance']}")
    if params["evidence"]:
        problems += evidence.changed(os.path.dirname(path), entries)
    if params["head"] and params["head"] not in {manifest.START, *(entry.hash for entry in entries)}:
        problems.append(f"no entry has the hash {params['head']}: entries were cut off, or this is another manifest")
    after = params["after"]
    told = entries if after is None else replica.told(entries, after)
    result = {
        "changed": False,
        "entries": [entry.as_dict() for entry in told],
        "head": entries[-1].hash if entries else manifest.START,
        "seq": len(entries),
        "valid": not problems,
        "problems": problems,
        "path": path,
    }
    if after is not None:
        result["marks"] = {str(number): entries[number - 1].hash for number in after if 0 < number <= len(entries)}
    if params["replicas"]:
        result["replicas"] = replica.kept_here(os.path.dirname(path))
    return result


def main() -> None:
    spec = ArgumentSpec(
        INSTANCE,
        head={"type": "str"},
        evidence={"type": "bool", "default": False},
        after={"type": "list", "elements": "int"},
        replicas={"type": "bool", "default": False},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
