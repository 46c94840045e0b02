#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alertmanager_silence
short_description: Silences exactly this host for exactly this turn
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Makes, extends or ends a silence in Alertmanager. A silence is found again by O(created_by) and O(comment), so the comment
    should name the turn.
  - Every silence ends by itself after O(duration), also when nobody comes back to end it.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
attributes:
  idempotent:
    details: A silence that still lasts for at least half of O(duration) is left as it is; a shorter one is extended.
options:
  state:
    description: Whether there is to be such a silence.
    type: str
    choices: [present, absent]
    default: present
  alertmanager_url:
    description: Address of Alertmanager.
    type: str
    required: true
  matchers:
    description: What is silenced; all of them must match. Required with O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A label's name.
        type: str
        required: true
      value:
        description: The label's value.
        type: str
        required: true
      regex:
        description: The value is an anchored regular expression.
        type: bool
        default: false
      equal:
        description: V(false) matches what is different.
        type: bool
        default: true
  duration:
    description: Seconds from now until the silence ends by itself.
    type: float
    default: 900
  created_by:
    description: Who makes it.
    type: str
    default: chainops.validator
  comment:
    description: Why; name the turn. Required with O(state=present); with O(state=absent), this or O(id).
    type: str
  id:
    description: With O(state=absent), the silence to end.
    type: str
  best_effort:
    description:
      - An Alertmanager that doesn't answer, or refuses, is warned of and listed in RV(silences), and does not fail the task. For
        the end of a turn, when there is more to put in order than a silence, which ends by itself.
    type: bool
    default: false
  timeout:
    description: Seconds for each answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Silence the host for its turn
  chainops.validator.alertmanager_silence:
    alertmanager_url: http://monitor:9093
    matchers:
      - {name: instance, value: "{{ inventory_hostname | regex_escape }}(:[0-9]+)?", regex: true}
    duration: 600
    comment: "{{ rollout_turn_id }}"
  delegate_to: localhost

- name: And no longer
  chainops.validator.alertmanager_silence:
    state: absent
    alertmanager_url: http://monitor:9093
    comment: "{{ rollout_turn_id }}"
    best_effort: true
  delegate_to: localhost
"""

RETURN = r"""
silence_id:
  description: The silence in force, or the last one ended. Empty when there is none, and in check mode for a new one.
  returned: success
  type: str
  sample: 3b2d0b9c-7a0c-4f2b-8f0e-2f5a2d3c1e4f
silences:
  description: >-
    The silence in force, or those that were ended, for the report. With O(best_effort), C(state) may begin with C(not removed) or
    C(not made), and say why.
  returned: success
  type: list
  elements: dict
  sample:
    - comment: upgrade-2.0.0-val1-1
      ends_at: "2026-01-31T12:10:00.000000Z"
      id: 3b2d0b9c-7a0c-4f2b-8f0e-2f5a2d3c1e4f
      matchers: ["instance=~val1(:[0-9]+)?"]
      starts_at: "2026-01-31T12:00:00.000000Z"
      state: removed
"""

from ansible_collections.chainops.validator.plugins.module_utils._core.clock import CLOCK
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError, InputError
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._monitoring import silence
from ansible_collections.chainops.validator.plugins.module_utils._monitoring.readers import Alertmanager


def shown(one):
    return {key: one.get(key) for key in ("matchers", "endsAt", "createdBy", "comment")}


def listed(one, state):
    return {
        "id": one.get("id", ""),
        "state": state,
        "matchers": [
            f"{m['name']}{'=' if m.get('isEqual', True) else '!'}{'~' if m['isRegex'] else '='}{m['value']}"
            for m in one["matchers"]
        ],
        "starts_at": one.get("startsAt", ""),
        "ends_at": one.get("endsAt", ""),
        "comment": one.get("comment", ""),
    }


def present(p, api, check_mode):
    if p["duration"] <= 0:
        raise InputError(f"duration must be more than 0 seconds, not {p['duration']}")
    have = api.silences()
    step = silence.present(have, silence.matchers(p["matchers"]), p["created_by"], p["comment"], p["duration"], CLOCK.wall())
    found = next((s for s in have if s["id"] in step.ids), None)
    before = shown(found) if found else {}
    if step.action == "keep":
        return {**Change(before, before).result(), "silence_id": step.ids[0], "silences": [listed(found, "in force")]}
    silence_id = step.ids[0] if step.ids else ""
    if not check_mode:
        silence_id = api.silence(step.body)
    made = listed({**step.body, "id": silence_id}, "in force")
    return {**Change(before, shown(step.body)).result(), "silence_id": silence_id, "silences": [made]}


def absent(p, api, check_mode):
    found = silence.ours(api.silences(), p["created_by"], p["comment"], p["id"])
    for one in found if not check_mode else ():
        api.expire(one["id"])
    before = {one["id"]: shown(one) for one in found}
    gone = [listed(one, "removed") for one in found]
    return {**Change(before, {}).result(), "silence_id": found[-1]["id"] if found else "", "silences": gone}


def not_done(p, why):
    """What is told of a silence that could not be seen to."""
    state = f"{'not made' if p['state'] == 'present' else 'not removed'}: {why}"
    wanted = silence.matchers(p["matchers"]) if p["matchers"] else []
    return {
        **Change({}, {}).result(),
        "silence_id": "",
        "silences": [listed({"id": p["id"] or "", "matchers": wanted, "comment": p["comment"] or ""}, state)],
    }


def act(module):
    p = module.params
    try:
        api = Alertmanager(p["alertmanager_url"], p["timeout"])
        return (present if p["state"] == "present" else absent)(p, api, module.check_mode)
    except ChainopsError as exc:
        if not p["best_effort"] or isinstance(exc, InputError):
            raise
        ends = "it is not silenced" if p["state"] == "present" else "a silence that is still in force ends by itself"
        module.warn(
            f"Alertmanager was not reached for {p['comment'] or p['id']}, and nothing waits for it; {ends}: {exc.message}"
        )
        return not_done(p, exc.message)


def main():
    spec = ArgumentSpec(
        state={"type": "str", "choices": ["present", "absent"], "default": "present"},
        alertmanager_url={"type": "str", "required": True},
        matchers={
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "value": {"type": "str", "required": True},
                "regex": {"type": "bool", "default": False},
                "equal": {"type": "bool", "default": True},
            },
        },
        duration={"type": "float", "default": 900},
        created_by={"type": "str", "default": "chainops.validator"},
        comment={"type": "str"},
        id={"type": "str"},
        best_effort={"type": "bool", "default": False},
        timeout={"type": "float", "default": 10},
    )
    run(spec.module(required_if=[("state", "present", ["comment"]), ("state", "absent", ["comment", "id"], True)]), act)


if __name__ == "__main__":
    main()
