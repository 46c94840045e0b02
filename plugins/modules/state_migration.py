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
    description:
      - Name of the instance; needed with O(mode=copy), whose copy is made in the instance's workspace, and with O(fence_token).
    type: str
  state_dir:
    description: Directory that holds what the collection keeps about its instances; needed for O(fence_token) alone.
    type: path
    default: /var/lib/chainops
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
        description:
          - Storage level it starts from. Where the chain records none, leave out both; the step is taken at each run then.
        type: int
      to_level:
        description: Storage level it ends at.
        type: int
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
      mixed_fleet:
        description:
          - Whether hosts before and after the step may run in one network, as they do while a rollout goes on. Leave it out when
            nobody knows. A rollout host by host refuses a step that says no.
        type: bool
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
        compares the bytes where every step is reversible. With O(boot), the release is then booted on it.
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
  boot:
    description:
      - With O(mode=rehearse), boots the release on the migrated copy, cut off from every network but its own loopback, waits
        until its API answers, runs O(boot.validation) against it, and stops it. It runs as the directory's owner. Takes root.
      - C({release}), C({data}) and C({url}) stand for the two directories and O(boot.url), in every command.
    type: dict
    suboptions:
      command:
        description: How the node starts, without peers and without keys.
        type: list
        elements: str
        required: true
      url:
        description: Its API, on the loopback.
        type: str
        required: true
      env:
        description: Its environment, beside C(PATH) and C(LANG).
        type: dict
        default: {}
      env_file:
        description: A file on the host with more of that, as systemd's C(EnvironmentFile) has it.
        type: path
      genesis_hash:
        description:
          - The chain's genesis hash. A release that can't read the data, and begins a chain of its own, has another; where the
            node tells none, O(boot.min_height) alone shows that.
        type: str
      min_height:
        description: The height that the copy has at least.
        type: int
      timeout:
        description: Seconds until its API answers.
        type: float
        default: 120.0
      validation:
        description:
          - What is run against it, such as the chain's own test suite. C(API_BASE_URL) in its environment is O(boot.url).
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: What to call it; by default the command itself.
            type: str
          argv:
            description: The command and its arguments; no shell. It passes when it exits 0.
            type: list
            elements: str
            required: true
          timeout:
            description: Seconds it may take.
            type: float
            default: 300.0
attributes:
  idempotent:
    support: partial
    details: O(mode=rehearse) always runs the steps that are still ahead of the directory.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.fence
"""

EXAMPLES = r"""
- name: Rehearse on a restored snapshot
  chainops.validator.state_migration:
    data_dir: /var/lib/xai/rehearsal/data
    release_dir: /var/lib/chainops/node1/releases/9f2c
    migrations: "{{ rollout_release.migrations }}"
    mode: rehearse

- name: Rehearse, boot the release on what came of it, and run its own tests
  chainops.validator.state_migration:
    data_dir: /var/lib/xai/rehearsal/data
    release_dir: /var/lib/chainops/node1/releases/9f2c
    migrations: "{{ rollout_release.migrations }}"
    mode: rehearse
    boot:
      command: ["{release}/bin/xai-node", --port, "18545", --data-dir, "{data}", --no-mining]
      url: http://127.0.0.1:18545
      min_height: 1200
      validation:
        - name: smoke
          argv: ["{release}/tests/smoke", "{url}"]
          timeout: 60

- name: Migrate, with the node down
  chainops.validator.state_migration:
    instance: node1
    data_dir: /var/lib/xai/node1
    release_dir: /var/lib/chainops/node1/releases/9f2c
    migrations: "{{ rollout_release.migrations }}"
    fence_token: "{{ lock.lock.token }}"
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
booted:
  description: What came of O(boot).
  returned: with O(boot), but not in check mode
  type: dict
  contains:
    ok: {description: "Whether it booted on these data, and everything passed.", type: bool, returned: always, sample: true}
    problems: {description: What was wrong., type: list, elements: str, returned: always, sample: []}
    height: {description: Its height when it first answered., type: int, returned: always, sample: 1212}
    version: {description: The version it told; null where it tells none., type: str, returned: always, sample: 2.0.0}
    answered_after: {description: Seconds until then., type: float, returned: always, sample: 1.9}
    commands:
      description: Each command's name, exit status, seconds and the end of its output.
      type: list
      elements: dict
      returned: always
      sample: [{"name": "smoke", "code": 0, "seconds": 3.2, "output": "12 passed", "problem": ""}]
    output: {description: "The node's last words, when something was wrong.", type: str, returned: always, sample: ""}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import ChainAdapter
from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import CommandFailed, InputError
from ansible_collections.chainops.validator.plugins.module_utils._host import lock
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import FENCE, INSTANCE
from ansible_collections.chainops.validator.plugins.module_utils._state import boot, migration


def boot_of(params: dict[str, t.Any], data: str) -> boot.Boot:
    """What the option ``boot`` asks for."""
    asked = params["boot"]

    def filled(words: list[str]) -> tuple[str, ...]:
        names = {"{release}": params["release_dir"], "{data}": data, "{url}": asked["url"]}
        for name, value in names.items():
            words = [word.replace(name, value) for word in words]
        return tuple(words)

    env = {str(name): str(value) for name, value in asked["env"].items()}
    return boot.Boot(
        filled(asked["command"]),
        asked["url"],
        {**env, **(boot.environment(asked["env_file"]) if asked["env_file"] else {})},
        asked["genesis_hash"],
        asked["min_height"],
        asked["timeout"],
        tuple(
            boot.Command(item["name"] or " ".join(item["argv"]), filled(item["argv"]), item["timeout"])
            for item in asked["validation"]
        ),
    )


def booted(asked: boot.Boot, data: str, chain: ChainAdapter) -> dict[str, t.Any]:
    """Raises CommandFailed, with all that was found, when the answer is no."""
    found = boot.boot(asked, data, chain)
    if not found.ok:
        said = found.output.strip().splitlines()[-1:]
        words = "; ".join(found.problems) + (f"; the last it said: {said[0]}" if said else "")
        raise CommandFailed(f"the release does not pass on the migrated copy: {words}", **found.as_dict())
    return found.as_dict()


def fenced(module: AnsibleModule) -> None:
    """Refuses an old token, and renews the lease under one that isn't."""
    params = module.params
    if not params["fence_token"]:
        return
    if not params["instance"]:
        raise InputError("fence_token needs instance: a token is an instance's")
    lock.use(Home(params["state_dir"], params["instance"]), params["fence_token"], dry=module.check_mode)


def act(module: AnsibleModule) -> dict[str, t.Any]:
    fenced(module)
    result = migrated(module)
    # The commands may have taken longer than the lease.
    fenced(module)
    return result


def migrated(module: AnsibleModule) -> dict[str, t.Any]:
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
    boots = rehearsal and params["boot"] is not None
    if module.check_mode or not (change.changed or boots):
        return {**change.result(), "migration": plan.as_dict()}
    if rehearsal:
        if params["scratch"]:
            data = migration.scratch_copy(data, params["scratch"], chain)
        done = migration.rehearse(steps, data, release, timeout, adapter=chain)
        if boots:
            return {**change.result(), "migration": done.as_dict(), "booted": booted(boot_of(params, data), data, chain)}
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
        "from_level": {"type": "int"},
        "to_level": {"type": "int"},
        "forward": {"type": "list", "elements": "str", "required": True},
        "back": words,
        "check": words,
        "reversible": {"type": "bool", "default": False},
        "mixed_fleet": {"type": "bool"},
    }
    validation = {
        "name": {"type": "str"},
        "argv": {"type": "list", "elements": "str", "required": True},
        "timeout": {"type": "float", "default": 300.0},
    }
    started = {
        "command": {"type": "list", "elements": "str", "required": True},
        "url": {"type": "str", "required": True},
        "env": {"type": "dict", "default": {}},
        "env_file": {"type": "path"},
        "genesis_hash": {"type": "str"},
        "min_height": {"type": "int"},
        "timeout": {"type": "float", "default": 120.0},
        "validation": {"type": "list", "elements": "dict", "default": [], "options": validation},
    }
    spec = ArgumentSpec(
        FENCE,
        data_dir={"type": "path", "required": True},
        release_dir={"type": "path", "required": True},
        instance={"type": "str"},
        state_dir=INSTANCE["state_dir"],
        chain={"type": "str", "default": "xai"},
        migrations={"type": "list", "elements": "dict", "required": True, "options": step},
        direction={"type": "str", "choices": ["forward", "back"], "default": "forward"},
        mode={"type": "str", "choices": ["copy", "live", "rehearse"], "default": "copy"},
        scratch={"type": "path"},
        timeout={"type": "float", "default": 600.0},
        boot={"type": "dict", "options": started},
    )
    run(spec.module(required_if=[("mode", "copy", ["instance"])]), act)


if __name__ == "__main__":
    main()
