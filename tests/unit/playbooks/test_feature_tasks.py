# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``rollout_feature`` as the roles look at it: off before the first turn, as the chain says at the end."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml

pytest.importorskip("ansible.module_utils.testing")
pytest.importorskip("ansible.cli")

from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import Chain
from ansible_collections.chainops.validator.tests.unit.plugins.modules.test_activation_modules import ON, executed, fleet

found = importlib.util.find_spec("ansible_collections.chainops.validator.plugins")
COLLECTIONS = pathlib.Path(next(iter(found.submodule_search_locations or ())) if found else "").parents[3]


def play(folder: pathlib.Path, tasks: dict[str, str], nodes: list[dict[str, str]], **more: t.Any) -> tuple[bool, str]:
    """Runs the tasks of a role with a fleet of these nodes: whether it went well, and all that was said."""
    book = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [{"name": "Tasks", "ansible.builtin.include_role": {**tasks, "rolespec_validate": False}}],
            "vars": {
                "preflight_fleet": {
                    "chain": "xai",
                    "nodes": [{**node, "address": ""} for node in nodes],
                    "readers": [{"name": node["name"], "url": node["api_url"]} for node in nodes],
                    "pending": ["a"],
                },
                "rollout_feature": "smart_contracts",
                "verify_timeout": 3,
                "govern_cache_dir": str(folder / "cache"),
                "verify_cache_dir": str(folder / "cache"),
                **more,
            },
        }
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(book), encoding="utf-8")
    env = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", str(folder / "play.yml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert "failed=" in done.stdout, done.stdout + done.stderr
    return done.returncode == 0, done.stdout


GATE = {"name": "chainops.validator.govern", "tasks_from": "feature"}
END = {"name": "chainops.validator.verify", "tasks_from": "feature"}


def test_the_gate_wants_it_off_everywhere(tmp_path: pathlib.Path) -> None:
    chain = Chain()
    with fleet(chain, a=False, b=False) as nodes:
        assert play(tmp_path, GATE, nodes)[0]
    with fleet(chain, a=False, b=True) as nodes:
        well, said = play(tmp_path, GATE, nodes)
        assert not well and "no host is touched" in said and "b: has it active, and no executed proposal" in said
    executed(chain, "on", ON)
    with fleet(chain, a=True, b=True) as nodes:
        well, said = play(tmp_path, GATE, nodes)
        assert not well and "It is active everywhere, by on" in said
        done = {
            "chain": "xai",
            "nodes": nodes,
            "readers": [{"name": n["name"], "url": n["api_url"]} for n in nodes],
            "pending": [],
        }
        assert play(tmp_path, GATE, nodes, preflight_fleet=done)[0]


def test_the_end_wants_it_as_the_chain_says(tmp_path: pathlib.Path) -> None:
    chain = Chain()
    with fleet(chain, a=False, b=False) as nodes:
        well, said = play(tmp_path, END, nodes)
        assert well and "smart_contracts is inactive on every node, by the chain as it began" in said
    executed(chain, "on", ON)
    with fleet(chain, a=True, b=False) as nodes:
        well, said = play(tmp_path, END, nodes)
        assert not well and "b: has it inactive" in said
    with fleet(chain, a=True, b=True) as nodes:
        well, said = play(tmp_path, END, nodes, verify_nodes=nodes, verify_chain="xai", preflight_fleet="none here")
        assert well and "smart_contracts is active on every node, by on" in said
