# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is gone in the middle of its way: Ansible rescues nobody who is unreachable, and people must be told."""

from __future__ import annotations

import pathlib

import pytest
import yaml

pytest.importorskip("ansible.module_utils.testing")
pytest.importorskip("ansible.cli")

from ansible_collections.chainops.validator.tests.unit.playbooks.fleet_of_files import Fleet


def test_a_host_that_is_gone_before_its_drain_stops_the_rollout_and_is_named(tmp_path: pathlib.Path) -> None:
    fleet = Fleet(tmp_path, 2)
    hook = tmp_path / "gone.yml"
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    hook.write_text(yaml.safe_dump([{"name": "Go", "ansible.builtin.set_fact": gone, "when": "inventory_hostname == 'h2'"}]))
    code, said = fleet.run("upgrade", rollout_hooks={"pre_drain": str(hook)}, verify_timeout=1)
    words = " ".join(said.split())
    assert code != 0 and "stopped at h2" in words, said[-3000:]
    assert "Turn: unknown, the host is unreachable" in words
    assert fleet.releases() == {"h1": "new", "h2": "old"} and fleet.drained() == []
