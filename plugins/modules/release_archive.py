#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: release_archive
short_description: Unpack an approved release beside the running one
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Checks the archive's digest, unpacks it to the directory named after that digest, and marks it complete. Touches nothing that
    runs.
  - An approved digest says that it is the very archive, not that somebody looked into it. So the archive may hold one top
    directory, which is left out, and in it files, directories, hard links to its own files and symbolic links that nothing lies
    below. Anything else (absolute names, C(..), devices, set-uid files, names that are there twice, more than O(max_entries) or
    O(max_bytes)) is refused by name, and nothing of it is left.
  - Files belong to whoever runs the module, and nobody else may write to them. C(.tar), C(.tar.gz), C(.tar.bz2) and C(.tar.xz).
options:
  src:
    description: The archive, on the host. Not needed where the release is unpacked already.
    type: path
    required: true
  sha256:
    description: Its digest, as approved.
    type: str
    required: true
  dest:
    description: Where it goes; the last part of the path is the digest.
    type: path
    required: true
  max_entries:
    description: The most names it may hold.
    type: int
    default: 200000
  max_bytes:
    description: The most bytes it may unpack to.
    type: int
    default: 17179869184
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
"""

EXAMPLES = r"""
- name: Unpack the release
  chainops.validator.release_archive:
    src: /srv/xai-2.0.0-x86_64.tar.gz
    sha256: "{{ sha256 }}"
    dest: /var/lib/chainops/node1/releases/{{ sha256 }}
"""

RETURN = r"""
path:
  description: Where the release is.
  returned: always
  type: str
  sample: /var/lib/chainops/node1/releases/9f2c…
entries:
  description: How many names were unpacked.
  returned: when something was unpacked
  type: int
  sample: 412
bytes:
  description: How many bytes of files were.
  returned: when something was unpacked
  type: int
  sample: 5242880
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import IntegrityError
from ansible_collections.chainops.validator.plugins.module_utils._host import archive, release
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    where, sha256 = params["dest"], params["sha256"]
    try:
        release.require_complete(where, sha256)
        there = True
    except IntegrityError:
        there = False
    change = Change({"unpacked": there}, {"unpacked": True}, header=where)
    done: dict[str, t.Any] = {}
    if change.changed and not module.check_mode:
        os.makedirs(os.path.dirname(where), 0o755, exist_ok=True)
        done = archive.unpack(params["src"], sha256, where, archive.Limits(params["max_entries"], params["max_bytes"]))
    return {**change.result(), "path": where, **done}


def main() -> None:
    spec = ArgumentSpec(
        src={"type": "path", "required": True},
        sha256={"type": "str", "required": True},
        dest={"type": "path", "required": True},
        max_entries={"type": "int", "default": 200_000},
        max_bytes={"type": "int", "default": 16 << 30},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
