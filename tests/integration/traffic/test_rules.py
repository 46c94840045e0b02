# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules that the collection ships, by Prometheus's own tool."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

from .conftest import program

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parents[2] / "roles" / "verify" / "files" / "rollout.rules.yml"


def promtool(*arguments: str) -> str:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert "SUCCESS: 9 rules found" in promtool("check", "rules", str(RULES))


def test_the_rules_fire_when_they_should_and_only_then(tmp_path: pathlib.Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(HERE / "rollout_rules_test.yml", tmp_path)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "rollout_rules_test.yml"))
