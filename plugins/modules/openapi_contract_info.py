#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: openapi_contract_info
short_description: Tells whether a node's API is as promised, and still as it was
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Reads the API's OpenAPI document and sends every C(GET) operation, with values found in the node's own answers, such as a
    block's index and a transaction's id, and for things that aren't there. Status, content type and body must be as the document
    says.
  - Beside them, schemathesis makes up O(generated) valid and as many invalid requests for each operation and checks the answers.
    This needs schemathesis, so the module runs on the controller (C(delegate_to=localhost)), and fails where that library is
    missing.
  - With O(mode=record) returns a RV(witness), which says what every operation answered, and holds the document. With
    O(mode=replay), sends exactly the same requests again and lists what is different in status, content type, headers, types,
    nulls, words of an enumeration, order of lists and time taken; and what is different in the document, for reads and writes.
  - Nothing but C(GET) without a body is ever sent, whatever the document declares, and no header or parameter that a server could
    take for another method.
  - Never fails because the contract is broken; that is data. Nothing exercised, anything skipped, or a server that says 200 to
    what its document doesn't have, is not RV(verdict.ok).
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.info
requirements:
  - schemathesis >= 4, unless O(generated=0)
  - PyYAML, where the document is YAML
options:
  base_url:
    description: Where the API answers. Without it, the environment variable E(API_BASE_URL); one of the two is needed.
    required: true
    type: str
  spec:
    description: The OpenAPI 3 document, as a URL or a path on this host. Without it, C(/openapi.json) under O(base_url).
    type: str
  mode:
    description:
      - V(check) only compares with the document.
      - V(record) returns a witness as well.
      - V(replay) compares with O(witness) as well. What was wrong already when the witness was recorded is told apart.
      - The module keeps nothing anywhere. The roles keep the witness on the hosts, so that a rollout that goes on after an
        interruption compares with what was before its first host.
    type: str
    choices: [check, record, replay]
    default: check
  witness:
    description: What a run with O(mode=record) returned as RV(witness).
    type: str
  parameters:
    description: >-
      Values to ask for, by the parameter's name or by C(operationId.name), where the node's own answers don't tell one.
    type: dict
    default: {}
  skip:
    description: >-
      Operations that need not be exercised, as C(GET /path/{name}) or by C(operationId), with C(*) for any text. They are told in
      RV(verdict.excused).
    type: list
    elements: str
    default: []
  allowed_changes:
    description:
      - Breaking differences that the proposal declares, as C(GET /path kind $.field) with C(*) for any text.
      - Kinds are C(removed), C(added), C(type), C(null), C(enum), C(order), C(status), C(content-type), C(header), C(latency),
        C(parameter) and C(narrowed). In place of a field there may be C(operation), C(response 404), C(content TYPE),
        C(header NAME), C(parameter NAME), C(request $.field), C(latency), or for C(status) and C(content-type) the path that was
        asked.
    type: list
    elements: str
    default: []
  examples:
    description: How many different values to ask each operation for.
    type: int
    default: 3
  negative:
    description: Ask each operation that has parameters in its path for something that isn't there as well.
    type: bool
    default: true
  generated:
    description: >-
      How many valid, and as many invalid, requests schemathesis makes up for each operation. V(0) leaves that out and needs no
      schemathesis.
    type: int
    default: 5
  seed:
    description: What they are made up from. The same document and seed ask the same.
    type: int
    default: 1
  rate_limit:
    description: >-
      How often one exact path is asked in a minute at most. Beyond that it is waited, and so it is where the node says 429. A
      node that goes on saying so has its operation in RV(verdict.skipped).
    type: int
    default: 60
  pause:
    description: Seconds between two requests.
    type: float
    default: 0
  time_limit:
    description: Seconds that all requests may take. What could not be asked until then is in RV(verdict.skipped).
    type: float
    default: 600
  latency_factor:
    description: >-
      An operation that takes this many times as long as in the witness, and at least 250 milliseconds longer, is a difference:
      the quickest of its answers compared with the slowest before. V(0) for none.
    type: float
    default: 5
  api_key:
    description: API key, sent as C(X-API-Key).
    type: str
  admin_token:
    description: Admin token, sent as C(X-Admin-Token).
    type: str
  timeout:
    description: Seconds for each answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Record how the API answers
  chainops.validator.openapi_contract_info:
    base_url: http://gateway:8545
    mode: record
  register: before
  delegate_to: localhost

- name: Does it still?
  chainops.validator.openapi_contract_info:
    base_url: http://gateway:8545
    mode: replay
    witness: "{{ before.witness }}"
    allowed_changes:
      - GET /stats removed $.node_uptime
  register: after
  failed_when: not after.verdict.ok
  delegate_to: localhost
"""

RETURN = r"""
verdict:
  description: Whether the contract is kept, and why not.
  returned: success
  type: dict
  contains:
    ok: {description: The contract is kept., type: bool, returned: always, sample: true}
    reasons: {description: Why it isn't., type: list, elements: str, returned: always, sample: []}
    operations: {description: How many C(GET) operations the document has., type: int, returned: always, sample: 14}
    exercised: {description: How many of them were sent., type: int, returned: always, sample: 14}
    coverage:
      description: >-
        For each operation how many requests were sent for what the node has (C(found)), for what it hasn't (C(absent)) and made
        up (C(generated)), and which statuses came.
      type: dict
      returned: always
      sample: {"GET /blocks/{index}": {found: 3, absent: 1, generated: 20, statuses: {"200": 5, "404": 19}}}
    requests: {description: How many requests that took., type: int, returned: always, sample: 31}
    skipped:
      description: Operations that were not sent.
      type: list
      elements: dict
      returned: always
      sample: [{before: false, operation: "GET /transaction/{txid}", reason: nothing known to ask for as 'txid'}]
    excused:
      description: Operations that O(skip) leaves out.
      type: list
      elements: str
      returned: always
      sample: []
    unsent: {description: Operations that are never sent., type: list, elements: str, returned: always, sample: ["POST /send"]}
    failures:
      description: Answers that are not as the document says, without what the witness already had.
      type: list
      elements: dict
      returned: always
      sample: [{operation: GET /stats, path: /stats, problem: "$.peers: is null, should be integer"}]
    known_failures: {description: Those that the witness already had., type: list, elements: dict, returned: always, sample: []}
    differences:
      description: Breaking differences from the witness, without those that are allowed.
      type: list
      elements: str
      returned: always
      sample: ["GET /stats: $.peers can be null now; it was integer", "GET /blocks: the document: query parameter limit is gone"]
    allowed: {description: Breaking differences that are allowed., type: list, elements: str, returned: always, sample: []}
    unseen:
      description: What O(allowed_changes) has and no difference is.
      type: list
      elements: str
      returned: always
      sample: []
    unimportant:
      description: Differences that old clients don't notice.
      type: list
      elements: str
      returned: always
      sample: ["GET /stats: $.uptime is new"]
witness:
  description: What to give to O(witness) after the upgrade. One word of packed JSON, with its digest.
  returned: mode is record
  type: str
  sample: chainops.witness/1:9f2c...:eNqrVkrLz1eyUkpKLFKqBQAhugT5
"""

import urllib.parse

from ansible.module_utils.basic import env_fallback

from ansible_collections.chainops.validator.plugins.module_utils._contract import contract, generated
from ansible_collections.chainops.validator.plugins.module_utils._contract.reads import Reads
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._core.http import HttpClient, expect
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, run

try:
    import yaml
except ImportError:
    yaml = None


def plain(value):
    """What YAML makes of a document, as JSON would have it: keys are strings, dates are text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def parse(data, where):
    text = data.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("{"):
        return canonical.loads(text, where)
    if yaml is None:
        raise InputError(f"{where} is not JSON, and reading YAML needs the Python library PyYAML on this host", spec=where)
    try:
        document = plain(yaml.safe_load(text))
    except yaml.YAMLError as exc:
        raise InputError(f"{where} is neither JSON nor YAML: {str(exc)[:200]}", spec=where) from exc
    if not isinstance(document, dict):
        raise InputError(f"{where} is not an OpenAPI document", spec=where)
    return document


def load(spec, http, timeout):
    if spec is None:
        answer = http.get("/openapi.json")
        if answer.status == 404:
            raise InputError(f"{answer.url} is not there: this API serves no OpenAPI document, so say where one is (spec)")
        return parse(expect(answer).body, answer.url)
    if spec.startswith(("http://", "https://")):
        parts = urllib.parse.urlsplit(spec)
        other = HttpClient(f"{parts.scheme}://{parts.netloc}", timeout=timeout)
        return parse(expect(other.get(parts.path or "/", dict(urllib.parse.parse_qsl(parts.query)))).body, other.url(parts.path))
    try:
        with open(spec, "rb") as stream:
            return parse(stream.read(), spec)
    except OSError as exc:
        raise InputError(f"can't read the OpenAPI document {spec}: {exc.strerror}", spec=spec) from exc


def act(module):
    p = module.params
    if not p["base_url"]:
        raise InputError(
            "where does the API answer? Give base_url, or set API_BASE_URL in the environment of whoever runs this module"
        )
    if p["mode"] == "replay" and not p["witness"]:
        raise InputError("mode replay needs the witness that mode record returned")
    secrets = {"X-API-Key": p["api_key"], "X-Admin-Token": p["admin_token"]}
    http = HttpClient(p["base_url"], timeout=p["timeout"], headers={k: v for k, v in secrets.items() if v})
    if p["generated"] > 0:
        generated.require()
    document = load(p["spec"], http, p["timeout"])
    reads = Reads(http, per_path=p["rate_limit"], pause=p["pause"], seconds=p["time_limit"])
    options = contract.Options(
        parameters={str(k): str(v) for k, v in p["parameters"].items()},
        skip=tuple(p["skip"]),
        examples=max(p["examples"], 1),
        negative=p["negative"],
        generated=p["generated"],
        seed=p["seed"],
        scratch=module.tmpdir,
    )
    worker = contract.Contract(reads, document, options)
    before = contract.unpack(p["witness"]) if p["mode"] == "replay" else None
    differences = []
    if before:
        differences = contract.differences(before, worker.replay(before, p["latency_factor"]), document, p["latency_factor"])
    done = worker.exercise()
    verdict = contract.judge(done, differences, before, p["allowed_changes"])
    result = {"changed": False, "verdict": verdict}
    return {**result, "witness": contract.pack(contract.witness_of(done, document))} if p["mode"] == "record" else result


def main():
    spec = ArgumentSpec(
        base_url={"type": "str", "required": True, "fallback": (env_fallback, ["API_BASE_URL"])},
        spec={"type": "str"},
        mode={"type": "str", "choices": ["check", "record", "replay"], "default": "check"},
        witness={"type": "str"},
        parameters={"type": "dict", "default": {}},
        skip={"type": "list", "elements": "str", "default": []},
        allowed_changes={"type": "list", "elements": "str", "default": []},
        examples={"type": "int", "default": 3},
        negative={"type": "bool", "default": True},
        generated={"type": "int", "default": 5},
        seed={"type": "int", "default": 1},
        rate_limit={"type": "int", "default": 60},
        pause={"type": "float", "default": 0},
        time_limit={"type": "float", "default": 600},
        latency_factor={"type": "float", "default": 5},
        api_key={"type": "str", "no_log": True},
        admin_token={"type": "str", "no_log": True},
        timeout={"type": "float", "default": 10},
    )
    run(spec.module(), act)


if __name__ == "__main__":
    main()
