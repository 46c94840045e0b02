#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_report
short_description: Writes the evidence of a rollout as JSON and as one page that opens offline
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Judges the ten invariants from what was collected, and writes C(report.json) and C(report.html). What was not collected is
    "not observed" and never counts as held.
  - Values that their names call secret are left out. The values given as O(secrets) are looked for in everything that is written
    and under O(scan). When one turns up in the evidence itself, nothing is written.
  - Runs on the controller.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
attributes:
  diff_mode:
    details: Shows the invariants, not the whole page.
requirements:
  - Jinja2, which comes with ansible-core
options:
  dest:
    description: The directory to write into. It is made when missing.
    type: path
    required: true
  rollout:
    description:
      - What was collected; every part may be missing.
      - C(id), C(proposal_id), C(network), C(operator), C(started), C(finished) (ISO 8601, or seconds since the epoch), C(outcome)
        (V(success), V(rolled_back), V(stopped), V(failed) or V(refused)), C(reason), C(power_budget), C(plan) (free form).
      - C(release) has C(id), C(version) and C(sha256) (of the artifact that was approved and run).
      - C(proof) has C(sha256), C(open), C(height), C(readers), C(tally), C(release_sha256) and C(reasons),
        and where people had a say C(approvers), or C(break_glass) as the gate's verdict has it.
      - C(hosts) is a list of C(name), C(address), C(wave), C(canary), C(before) and C(after) (C(version), C(sha256) of the
        running release), C(turn) (as M(chainops.validator.validator_upgrade) returns it), C(journal_verified), C(proof_problems)
        (list; what the host itself found wrong with the proof), C(watermark) (C(before), C(after)), C(snapshot)
        (C(id), C(verified)) and C(manifest) (C(valid), C(entries), C(problems)).
      - C(copies) has, of the copies that hosts keep of one another's manifests, C(kept_by) (by host, C(hosts) of C(of) that have
        its last entry), C(refused) (what must not be) and C(words).
      - C(drains) is a list of receipts as M(chainops.validator.api_drain) returns them, the last one of each server and
        gateway. A receipt tells by itself how the server stands.
      - C(canary) is a list of results of M(chainops.validator.canary_analysis_info), each with its C(wave).
      - C(contract) is a result, or a verdict, of M(chainops.validator.openapi_contract_info).
      - C(load) has C(requests), C(failed), C(double_spends), and whatever else is to be shown.
      - C(chain) has C(equivocations) (list), C(first_height), C(last_height), C(missed_blocks) (by address or host) and C(power)
        (list of C(at) and C(offline_fraction)).
      - C(events) is a list of C(at), C(host), C(what), C(result) and C(seconds), for the log and the timeline.
    type: dict
    required: true
  secrets:
    description: Secrets to look for. None of them is ever written.
    type: list
    elements: str
    default: []
  scan:
    description: Files and directories on this host that must not hold any of O(secrets), such as logs.
    type: list
    elements: path
    default: []
  colour:
    description: Whether RV(summary) has colours for a terminal.
    type: bool
    default: false
seealso:
  - module: chainops.validator.api_drain
  - module: chainops.validator.canary_analysis_info
  - module: chainops.validator.openapi_contract_info
"""

EXAMPLES = r"""
- name: Write the report
  chainops.validator.rollout_report:
    dest: "{{ rollout_report_dir }}"
    rollout: "{{ record_evidence }}"
    secrets: ["{{ validator_api_key }}", "{{ validator_admin_token }}"]
    scan: ["{{ playbook_dir }}/ansible.log"]
  delegate_to: localhost
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""

RETURN = r"""
files:
  description: What was written.
  returned: success
  type: dict
  sample: {json: /srv/report/report.json, html: /srv/report/report.html}
invariants:
  description: The ten invariants by name.
  returned: success
  type: dict
  sample:
    I1:
      id: I1
      promise: No validator key ever signs on two hosts, or twice for one height.
      status: held
      evidence: no equivocation recorded by any node
held:
  description: All ten are held.
  returned: success
  type: bool
  sample: false
broken:
  description: Those that are not held.
  returned: success
  type: list
  elements: str
  sample: []
not_observed:
  description: Those that nothing is known of.
  returned: success
  type: list
  elements: str
  sample: [I10]
summary:
  description: The same for a terminal.
  returned: success
  type: str
  sample: "UPGRADED  release 2.0.0, proposal upgrade-2, rollout upgrade-2"
"""

import os

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._core.files import make_dir, read_or_none, write_atomic
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._report import collect, invariants, page, secrets, summary


def gather(p):
    rollout = collect.complete(secrets.redact(p["rollout"]))
    if p["secrets"]:
        rollout["secrets_scan"] = found = secrets.scan(p["secrets"], rollout, p["scan"])
        if "the evidence" in found["found"]:
            raise Refused(
                "a secret is in the evidence that was collected; nothing was written. Find which task collects it", **found
            )
    return rollout


def statuses(data):
    try:
        return {k: v["status"] for k, v in canonical.loads(data, "the former report")["invariants"].items()} if data else {}
    except Exception:
        return {"former report": "unreadable"}


def act(module):
    p = module.params
    rollout = gather(p)
    judged = invariants.judge(rollout)
    try:
        document = page.document(rollout, judged)
        new = {"json": canonical.dumps(document) + b"\n", "html": page.render(rollout, judged)}
        told = summary.summary(rollout, colour=p["colour"])
    except (TypeError, ValueError, KeyError, AttributeError) as exc:
        raise InputError(f"rollout holds something of another shape than documented: {exc!r}") from exc
    files = {kind: os.path.join(p["dest"], f"report.{kind}") for kind in new}
    old = {kind: read_or_none(path) for kind, path in files.items()}
    if old != new and not module.check_mode:
        make_dir(p["dest"])
        for kind, path in files.items():
            write_atomic(path, new[kind])
    diff = Change(statuses(old["json"]), {one.id: one.status for one in judged}, header=files["json"]).result()["diff"]
    return {
        "changed": old != new,
        "diff": diff,
        "files": files,
        **{key: document[key] for key in ("invariants", "held", "broken", "not_observed")},
        "summary": told,
    }


def main():
    spec = ArgumentSpec(
        dest={"type": "path", "required": True},
        rollout={"type": "dict", "required": True},
        secrets={"type": "list", "elements": "str", "default": [], "no_log": True},
        scan={"type": "list", "elements": "path", "default": []},
        colour={"type": "bool", "default": False},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
