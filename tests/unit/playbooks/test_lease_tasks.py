# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lease lasts for whatever lies between two renewals, also where the role that tells it isn't loaded."""

from __future__ import annotations

import pathlib
import typing as t

import yaml

REPO = pathlib.Path(__file__).resolve().parents[3]


def read(path: str) -> t.Any:
    return yaml.safe_load((REPO / path).read_text(encoding="utf-8"))


def test_the_lock_knows_how_long_a_way_back_may_catch_up() -> None:
    default = read("roles/rollback/defaults/main.yml")["rollback_catch_up"]
    assert read("roles/rollout/vars/main.yml")["__rollout_catch_up"] == f"{{{{ rollback_catch_up | default({default}) }}}}"


def test_every_lock_under_which_a_way_back_may_be_taken_up_counts_it() -> None:
    for path, lock in {"rollback": "parts/lock.yml", "close": "parts/lock.yml", "parts/see_through": "lock.yml"}.items():
        (taken,) = [play for play in read(f"playbooks/{path}.yml") if play.get("ansible.builtin.import_playbook") == lock]
        assert taken["vars"]["preflight_putting_back"] is True, path
    (forward,) = [
        play for play in read("playbooks/upgrade.yml") if play.get("ansible.builtin.import_playbook") == "parts/lock.yml"
    ]
    assert "vars" not in forward
