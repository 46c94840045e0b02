# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own policy where a turn asks for it: before the node's stop, against the host's own node."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import CLOCK
from ansible_collections.chainops.validator.plugins.module_utils._governance import hostgate
from ansible_collections.chainops.validator.plugins.module_utils._host import control, turn
from ansible_collections.chainops.validator.plugins.module_utils._host.engine import Context
from ansible_collections.chainops.validator.plugins.module_utils._host.steps import HostEffects
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._host import world as worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[worlds.World]:
    with worlds.make(str(tmp_path_factory.mktemp("host"))) as made:
        yield made


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "unit1").mkdir(mode=0o755)
    return tmp_path


def look(world: worlds.World, etc: pathlib.Path, **changes: t.Any) -> list[str]:
    """What the check of a turn finds, in order."""
    request = world.request(**changes)
    plan = turn.load(control.compose(request, control.survey(request), "0" * 64))
    effects = HostEffects(plan, world.home, gate_dir=str(etc))
    return effects.preconditions(Context([], CLOCK.monotonic() + 60.0, False, lambda **facts: None, CLOCK))


def say(etc: pathlib.Path, said: t.Any, mode: int = 0o644) -> None:
    path = etc / "unit1" / "gate.json"
    path.write_text(json.dumps(said), encoding="utf-8")
    path.chmod(mode)


def test_without_a_file_the_chains_own_rule_decides(world: worlds.World, etc: pathlib.Path) -> None:
    assert look(world, etc) == []


def test_what_the_file_asks_for_is_asked_before_anything_is_stopped(world: worlds.World, etc: pathlib.Path) -> None:
    say(etc, {"policy": {"valid_blocks": 1000, "thresholds": {"min_voters": 5}}})
    assert look(world, etc) == []
    say(etc, {"policy": {"valid_blocks": 999}})
    assert "valid_blocks is 1000, this host asks for at most 999" in look(world, etc)[0]
    say(etc, {"chain_thresholds": {"min_voters": 6}})
    assert "the chain's min_voters started as 5; known here is 6" in look(world, etc)[0]
    say(etc, {"approvals": {"required": 2}})
    assert "asks for 2 approvals, but there is no" in look(world, etc)[0]
    (etc / "unit1" / "allowed_signers").write_text("", encoding="utf-8")
    assert look(world, etc) == ["governance proof: 0 of 2 approvals (this host's own count)"]


def test_a_file_that_others_can_write_stops_every_turn(world: worlds.World, etc: pathlib.Path) -> None:
    say(etc, {}, 0o666)
    assert "can be written by others than its owner" in look(world, etc)[0]


def test_a_break_glass_is_refused_by_default(world: worlds.World, etc: pathlib.Path) -> None:
    proof = json.loads(json.dumps(world.proof))
    signed = {"statement": "x\n", "signatures": []}
    end = proof["expires_height"]
    proof["break_glass"] = {"reason": "hurry", "expires_height": end, "payload": proof["payload"], **signed}
    proof["sha256"] = canonical.digest({name: value for name, value in proof.items() if name != "sha256"})
    assert "which this host takes from nobody" in look(world, etc, proof=proof)[0]


def test_the_plan_can_not_say_where_the_hosts_policy_stands(world: worlds.World) -> None:
    request = world.request()
    body = {**control.compose(request, control.survey(request), "0" * 64), "gate_dir": "/tmp", "gate": {"break_glass": True}}
    assert HostEffects(turn.load(body), world.home).gate_dir == hostgate.DIRECTORY == "/etc/chainops"
    assert os.path.isabs(hostgate.DIRECTORY)
