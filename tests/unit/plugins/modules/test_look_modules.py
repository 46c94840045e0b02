# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""validator_info and network_info as Ansible runs them: arguments on standard input, one JSON object out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from ansible_collections.chainops.validator.plugins.doc_fragments import instance, node, roots
from ansible_collections.chainops.validator.plugins.module_utils._module import options
from ansible_collections.chainops.validator.plugins.modules import network_info, validator_info
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._chain import fakes


def run(module, **arguments):
    done = subprocess.run(
        [sys.executable, "-m", module.__name__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip().startswith("{"), done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def served():
    with fakes.serving(fakes.reference(tip=30)) as one:
        yield one


def documented(fragment):
    return yaml.safe_load(fragment)["options"]


def agrees(spec, docs):
    """An argument spec and its documentation say the same."""
    assert set(spec) == set(docs)
    for name, option in spec.items():
        for key, default in (("type", "str"), ("required", False), ("default", None), ("elements", None)):
            assert option.get(key, default) == docs[name].get(key, default), (name, key)
        if "options" in option:
            agrees(option["options"], docs[name]["suboptions"])


def test_documentation_and_specs_agree():
    agrees(options.NODE, documented(node.ModuleDocFragment.DOCUMENTATION))
    agrees(options.INSTANCE, documented(instance.ModuleDocFragment.DOCUMENTATION))
    agrees(options.ROOTS, documented(roots.ModuleDocFragment.DOCUMENTATION))
    agrees(network_info.OPTIONS, documented(network_info.DOCUMENTATION))
    spec = {"admin_token": {"type": "str"}, "wait": {"type": "dict", "options": validator_info.WAIT}}
    agrees(spec, documented(validator_info.DOCUMENTATION))


@pytest.mark.parametrize("check", [False, True])
def test_validator_info(served, check):
    answer = run(validator_info, api_url=served.url, _ansible_check_mode=check)
    assert (answer["changed"], answer["met"], answer["node"]["height"]) == (False, True, 30) and "msg" not in answer
    documented_keys = yaml.safe_load(validator_info.RETURN)["node"]["contains"]
    assert set(documented_keys) == set(answer["node"])


def test_validator_info_never_fails_because_the_answer_is_no(served):
    answer = run(validator_info, api_url="http://127.0.0.1:1")
    assert "failed" not in answer and answer["met"] is False
    answer = run(validator_info, api_url=served.url, wait={"version": "9", "timeout": 0.1})
    assert "failed" not in answer and answer["reasons"] == ["the node is version 1.0.0, not 9"]
    # What Ansible says when a task's failed_when makes a failure of it.
    assert answer["msg"] == "the node is version 1.0.0, not 9"


def test_secrets_do_not_come_back(served):
    answer = run(
        validator_info, api_url=served.url.replace("//", "//user:hunter2hunter2@"), api_key="k3y-secret", admin_token="t0k-secret"
    )
    assert not {"hunter2hunter2", "k3y-secret", "t0k-secret"} & set(
        json.dumps(answer).replace('"', " ").replace("@", " ").split()
    )
    assert "hunter2" not in json.dumps(answer["node"]) and "secret" not in json.dumps(answer["node"])


def test_network_info(served):
    nodes = [
        {"name": "a", "api_url": served.url, "address": ""},
        {"name": "b", "api_url": "http://127.0.0.1:1", "address": "TXAIb"},
    ]
    answer = run(network_info, nodes=nodes, max_tip_age=0)
    assert "failed" not in answer and answer["changed"] is False
    network = answer["network"]
    assert (network["ok"], network["common_height"], network["power_offline"]) == (False, 30, 10)
    assert set(yaml.safe_load(network_info.RETURN)["network"]["contains"]) == set(network)
    assert network["problems"] and answer["msg"] == "; ".join(network["problems"])


def test_bad_input_fails_with_words(served):
    assert "unknown chain 'x'" in run(validator_info, api_url=served.url, chain="x")["msg"]
    assert "not an http(s) URL" in run(validator_info, api_url="127.0.0.1")["msg"]
    assert "no nodes to ask" in run(network_info, nodes=[])["msg"]
