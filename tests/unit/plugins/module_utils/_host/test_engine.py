# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole turns: the real engine and its real effects, cut off and led astray, with a plain process as the node."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import socket
import subprocess
import time
import types
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Busy, CommandFailed, InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import control, engine_main, install, lock, past, turn
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._state import snapshot
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._host import world as worlds


@pytest.fixture
def world(tmp_path: t.Any, request: t.Any) -> t.Iterator[worlds.World]:
    options = getattr(request, "param", {})
    with worlds.make(str(tmp_path), **options) as made:
        yield made


def upgrade(world: worlds.World, timeout: float = 60.0, **changes: t.Any) -> dict[str, t.Any]:
    request = world.request(**changes)
    control.validate(request)
    there = control.survey(request)
    assert control.decide(request, there).kind == "start"
    control.begin(request, there)
    return control.wait(world.home, request.turn_id, timeout)


def why(world: worlds.World, result: dict[str, t.Any]) -> str:
    with open(world.home.at("engine.log"), encoding="utf-8") as stream:
        return json.dumps(result, indent=1) + stream.read()


def test_from_one_release_to_the_next(world: worlds.World) -> None:
    result = upgrade(world)
    assert result["outcome"] == "committed", why(world, result)
    world.require_whole("new")
    assert result["freeze_seconds"] < 3 and 0 < result["stop_window_seconds"] < 10
    assert result["watermark"]["after"]["height"] >= result["watermark"]["before"]["height"]
    assert result["heights"]["own_at_end"] > result["heights"]["network_at_stop"]
    with open(world.home.turn("t1").result, encoding="utf-8") as stream:
        assert json.load(stream) == result
    facts = snapshot.load(result["snapshot"]["path"]).facts
    assert facts["why"] == "rollback point of turn t1 of rollout r1" and facts["rollout_id"] == "r1"
    assert facts["proposal_id"] == world.proof["proposal_id"] and facts["proof_sha256"] == canonical.digest(world.proof)
    # It was tested by restoring it before the node was stopped, and nothing of the test is left.
    tested = next(step for step in result["steps"] if step["name"] == "prepare")["facts"]["tested"]
    assert tested["files"] > 0 and not os.path.exists(os.path.join(os.path.dirname(result["snapshot"]["path"]), "..", "test"))

    # A second call finds it done, with the same turn's id and with another one's.
    request = world.request()
    there = control.survey(request)
    assert control.decide(request, there).kind == "ended"
    request = world.request("t2")
    assert control.decide(request, control.survey(request)).kind == "nothing"


@pytest.mark.parametrize(
    ("world", "says"),
    [
        ({"behave": "stall"}, "height"),
        ({"behave": "fork"}, "peers have the same block"),
        ({"behave": "dies"}, "gone"),
        ({"behave": "other_key"}, "signs as TXAIother"),
        ({"behave": "sick"}, "healthy"),
        ({"behave": "equivocates"}, "equivocation"),
    ],
    indirect=["world"],
)
def test_a_release_that_does_not_follow_is_put_back(world: worlds.World, says: str) -> None:
    result = upgrade(world)
    assert result["outcome"] == "put_back", why(world, result)
    assert says in result["reason"]
    world.require_whole("old")
    assert result["stop_window_seconds"] > 0


@pytest.mark.parametrize("world", [{"old": "faints", "behave": "dies"}], indirect=True)
def test_an_old_release_that_dies_once_is_started_again(world: worlds.World) -> None:
    result = upgrade(world)
    assert result["outcome"] == "put_back", why(world, result)
    world.require_whole("old")


@pytest.mark.parametrize("world", [{"behave": "same"}], indirect=True)
def test_a_release_of_the_same_level_needs_no_migration(world: worlds.World) -> None:
    result = upgrade(world)
    assert result["outcome"] == "committed", why(world, result)
    world.require_whole("new")


@pytest.mark.parametrize("world", [{"old": "deaf"}], indirect=True)
def test_a_node_that_does_not_stop_is_not_killed_and_keeps_running(world: worlds.World) -> None:
    pid = world.node().state().pid
    budgets = {**world.request().budgets, "stop": 1.0}
    result = upgrade(world, budgets=budgets)
    assert result["outcome"] == "put_back", why(world, result)
    assert "did not stop within" in result["reason"] and "not killed" in result["reason"]
    assert world.node().state().pid == pid
    world.require_whole("old")


@pytest.mark.parametrize("world", [{"old": "deaf"}], indirect=True)
def test_a_node_may_be_killed_when_the_policy_says_so_and_then_its_snapshot_says_unclean(world: worlds.World) -> None:
    budgets = {**world.request().budgets, "stop": 1.0}
    result = upgrade(world, budgets=budgets, policy={"kill": True, "migrate": "copy"})
    assert result["outcome"] == "committed", why(world, result)
    assert result["snapshot"]["clean"] is False
    world.require_whole("new")


def test_a_migration_that_fails_half_way_is_put_back(world: worlds.World) -> None:
    with open(os.path.join(world.data, "fail_migration"), "w", encoding="utf-8"):
        pass
    result = upgrade(world)
    assert result["outcome"] == "put_back" and result["reason"].startswith("migrate"), why(world, result)
    world.require_whole("old")


def test_what_is_wrong_beforehand_stops_nothing(world: worlds.World) -> None:
    pid = world.node().state().pid
    bad = json.loads(json.dumps(world.proof))
    bad["tally"] = {}
    everything = {
        "proof": bad,
        "require_drain": True,
        "drain_receipts": [{"gateway": "gw1", "state": "draining"}],
        "expected_address": "TXAIsomebody",
        "client_addresses": ["127.0.0.1"],
        "release": {**world.request().release, "level": 3},
    }
    with socket.create_connection(("127.0.0.1", world.port)):
        result = upgrade(world, **everything)
    assert (result["outcome"], result["touched"]) == ("put_back", False), why(world, result)
    for says in (
        "governance proof",
        "gateway 'gw1' says state 'draining'",
        "signs as",
        "still connected",
        "needs level 3",
    ):
        assert says in result["reason"]
    assert [row["name"] for row in result["steps"]] == ["check"]
    assert "no drain receipt" in upgrade(world, turn_id="t2", require_drain=True)["reason"]
    assert world.node().state().pid == pid


def test_a_connection_that_the_gateway_did_not_tell_of_keeps_the_node_running(world: worlds.World) -> None:
    pid = world.node().state().pid
    at = {"wall": datetime.datetime.now(datetime.timezone.utc).isoformat()}
    receipt = {"gateway": "gw1", "driver": "haproxy", "format": "chainops.drain/1", "state": "drained", "instance": "unit1"}
    receipt = {**receipt, "turn_id": "t1", "fence_token": 1, "checked_at": at, "same_host": False}
    with socket.create_connection(("127.0.0.1", world.port), source_address=("127.0.0.2", 0)) as link:
        told = {"127.0.0.2": [link.getsockname()[1]]}
        link.send(b"GET /health HTTP/1.1\r\n")  # and not the rest of it
        result = upgrade(world, drain_receipts=[{**receipt, "source_addresses": ["127.0.0.2"], "connections": {}}])
        assert result["outcome"] == "put_back" and not result["touched"], why(world, result)
        assert "still connected" in result["reason"] and "127.0.0.2" in result["reason"]
        assert world.node().state().pid == pid
        again = {**receipt, "turn_id": "t2", "source_addresses": ["127.0.0.2"], "connections": told}
        result = upgrade(world, turn_id="t2", drain_receipts=[again])
    assert result["outcome"] == "committed", why(world, result)
    facts = result["steps"][0]["facts"]
    assert facts["idle_connections"] == 1 and facts["gateways"] == {"gw1": "seen"} and "unconfirmed" not in facts


def test_a_gateway_that_is_not_seen_here_is_said_to_be_unconfirmed(world: worlds.World) -> None:
    at = {"wall": datetime.datetime.now(datetime.timezone.utc).isoformat()}
    receipt = {"gateway": "gw1", "driver": "haproxy", "format": "chainops.drain/1", "state": "drained", "instance": "unit1"}
    receipt = {**receipt, "turn_id": "t1", "fence_token": 1, "checked_at": at, "same_host": False}
    result = upgrade(world, drain_receipts=[{**receipt, "source_addresses": ["192.0.2.7"], "connections": {}}])
    assert result["outcome"] == "committed", why(world, result)
    assert "gateway gw1: no connection from 192.0.2.7" in result["steps"][0]["facts"]["unconfirmed"][0]


def test_a_stop_that_would_take_longer_than_allowed_does_not_begin(world: worlds.World) -> None:
    pid = world.node().state().pid
    policy = {**world.request().policy, "stop_window_budget": 0.000001}
    result = upgrade(world, policy=policy)
    assert result["outcome"] == "put_back" and not result["touched"], why(world, result)
    assert "the node would be down for at least" in result["reason"] and "stop, migrate, start unknown" in result["reason"]
    assert result["predicted_stop_window"]["parts"]["freeze"] > 0 and result["stop_window_seconds"] is None
    assert [step["name"] for step in result["steps"]] == ["check", "prepare"]
    assert world.node().state().pid == pid
    world.require_whole("old")


def test_a_rollback_point_that_would_not_restore_is_found_before_the_stop(world: worlds.World) -> None:
    pid = world.node().state().pid
    roots = (snapshot.Root("data", world.data),)
    spec = snapshot.SnapshotSpec.for_adapter("unit1", "turn-t1", roots, adapter("xai"))
    hot = snapshot.hot_copy(spec)
    harmed = os.path.join(hot.path, "roots", "data", "blocks", "quiet.json")
    with open(os.path.join(world.data, "blocks", "quiet.json"), "wb") as stream:
        stream.write(b"as it was")
    os.utime(stream.name, (1, 1))
    time.sleep(2.1)  # until its times are proof of its content
    snapshot.hot_copy(spec)
    with open(harmed, "wb") as stream:
        stream.write(b"as it is.")
    result = upgrade(world)
    assert result["outcome"] == "put_back" and not result["touched"], why(world, result)
    assert "data/blocks/quiet.json: content differs" in result["reason"]
    assert world.node().state().pid == pid


def test_an_old_token_is_refused_and_another_turn_waits(world: worlds.World) -> None:
    lock.hold(world.home, lock.Asking("other", "bob", "bob", token=5))
    request = world.request()
    with pytest.raises(Refused, match="older than 5"):
        control.begin(request, control.survey(request))
    assert not os.path.exists(world.home.open)
    os.makedirs(world.home.journals, exist_ok=True)
    with open(world.home.open, "w", encoding="utf-8") as stream:
        stream.write("t0\n")
    with pytest.raises(Busy, match="t0"):
        control.decide(request, control.survey(request))


def test_a_turn_id_is_for_one_release(world: worlds.World) -> None:
    result = upgrade(world)
    assert result["outcome"] == "committed", why(world, result)
    other = world.request(release={**world.request().release, "sha256": "c" * 64})
    with pytest.raises(Refused, match="use another turn_id"):
        control.decide(other, control.survey(other))


@pytest.mark.parametrize(
    "changes",
    [
        {"turn_id": "../t"},
        {"release": {"id": "x", "sha256": "abc"}},
        {"roots": [{"name": "keys", "path": "/k"}]},
        {"roots": [{"name": "data", "path": "/elsewhere"}]},
        {"fence_token": 0},
        {"confirm": {"deadline": 1, "on_silence": "shrug"}},
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_looked_at(tmp_path: t.Any, changes: dict[str, t.Any]) -> None:
    with pytest.raises(InputError):
        control.validate(worlds.World(str(tmp_path), "good").request(**changes))


def test_there_and_back(world: worlds.World) -> None:
    there = upgrade(world)
    assert there["outcome"] == "committed", why(world, there)
    time.sleep(1.0)
    top = world.signed()[-1]
    back = upgrade(
        world,
        turn_id="t2",
        state=control.ROLLED_BACK,
        release={"id": "1.0.0", "sha256": world.sha("old"), "version": "1.0.0", "level": 1, "dir": None},
        back_to={"snapshot_id": "turn-t1", "sha256": there["snapshot"]["sha256"]},
        migrations=[],
        proof={},
    )
    assert back["outcome"] == "committed", why(world, back)
    assert back["watermark"]["before"]["height"] >= top
    world.require_whole("old")
    # And to the new one again: nothing of the way back is in its way.
    again = upgrade(world, turn_id="t3")
    assert again["outcome"] == "committed", why(world, again)
    world.require_whole("new")
    # Two turns forward tell the third one what to expect; of the way back nobody knew what the restore would take.
    assert there["predicted_stop_window"]["unknown"] == ["stop", "migrate", "start"]
    assert back["predicted_stop_window"]["unknown"] == ["migrate"] and back["predicted_stop_window"]["turns"] == 1
    assert again["predicted_stop_window"]["unknown"] == [] and again["predicted_stop_window"]["turns"] == 2
    assert again["predicted_stop_window"]["seconds"] == pytest.approx(sum(again["predicted_stop_window"]["parts"].values()))
    # What the restore put aside is kept until the rollout is finished, or another one takes its turn.
    workspace = os.path.join(os.path.dirname(world.data), ".chainops", "unit1")
    (tree,) = back["old_trees"]
    assert there["old_trees"] == again["old_trees"] == [] and os.path.isdir(tree)
    assert past.put_aside(world.home) == {tree: "r1"}
    assert past.due(world.home) == past.due(world.home, "r1") == [] and past.due(world.home, "r2") == [tree]
    manifest.append(world.home.manifest, {"kind": "finish", "rollout_id": "r1"})
    assert past.due(world.home) == [tree]
    manifest.append(world.home.manifest, {"kind": "upgrade", "rollout_id": "r1", "turn_id": "t9"})
    assert past.due(world.home) == []
    assert {"turn-t1", "turn-t2", "turn-t3"} <= set(os.listdir(os.path.join(workspace, "snapshots")))


@pytest.mark.parametrize(
    ("confirm", "word", "outcome"),
    [
        ({"deadline": 20.0, "on_silence": "put_back"}, b"commit\n", "committed"),
        ({"deadline": 1.0, "on_silence": "put_back"}, None, "put_back"),
        ({"deadline": 1.0, "on_silence": "commit"}, None, "committed"),
        ({"deadline": 20.0, "on_silence": "commit"}, b"the metrics look bad\n", "put_back"),
    ],
)
def test_silence_is_decided_by_policy(world: worlds.World, confirm: dict[str, t.Any], word: bytes | None, outcome: str) -> None:
    if word is not None:
        os.makedirs(world.home.turn("t1").root, exist_ok=True)
        with open(world.home.turn("t1").confirm, "wb") as stream:
            stream.write(word)
    result = upgrade(world, confirm=confirm)
    assert result["outcome"] == outcome, why(world, result)
    world.require_whole("new" if outcome == "committed" else "old")


class Deadly:
    """Kills the engine when what it begins is on disk, with the library that the fault suite preloads: no chance is in it."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.library = root / "boundary.so"
        source = pathlib.Path(control.__file__).parents[3] / "tests" / "faults" / "boundary.c"
        root.mkdir()
        subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", f'-DFAULTS_DIR="{root}"', "-o", str(self.library), str(source), "-ldl"], check=True
        )

    def at(self, step: str, way: str = "forward") -> None:
        (self.root / "armed").write_text(f'kill-after 1 0\n"kind":"begin"\n"step":"{step}"\n"way":"{way}"\n')

    def wait(self, world: worlds.World) -> None:
        until = time.monotonic() + 40
        while not (self.root / "fired").exists() or lock.engine_at_work(world.home) is not None:
            assert time.monotonic() < until, "the turn never came there"
            time.sleep(0.01)


@pytest.fixture
def deadly(world: worlds.World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Deadly:
    made = Deadly(tmp_path / "deadly")
    monkeypatch.setenv("LD_PRELOAD", str(made.library))  # for the engines that this test starts; the world's nodes run already
    return made


@pytest.mark.parametrize("step", ["guard", "stop", "freeze", "migrate", "switch", "start", "probe"])
def test_the_engine_is_killed_and_another_one_ends_the_turn(world: worlds.World, deadly: Deadly, step: str) -> None:
    request = world.request()
    deadly.at(step)
    control.begin(request, control.survey(request))
    deadly.wait(world)
    assert os.path.exists(world.home.open)
    control.attach(request)
    result = control.wait(world.home, "t1", 60.0)
    assert result["outcome"] in ("committed", "put_back"), why(world, result)
    assert result["sessions"] == 2
    world.require_whole("new" if result["outcome"] == "committed" else "old")


def test_a_turn_whose_caller_died_before_it_was_open_begins_with_the_next_call(world: worlds.World, monkeypatch: t.Any) -> None:
    """Plan and first record are there, and no engine has seen them: that is no end, and nothing to wait for."""
    request = world.request()

    class Gone(BaseException):
        pass

    def gone(path: str, *args: t.Any, **kwargs: t.Any) -> None:
        if path == world.home.open:
            raise Gone
        write(path, *args, **kwargs)

    write = control.files.write_atomic
    with monkeypatch.context() as patch, pytest.raises(Gone):
        patch.setattr(control.files, "write_atomic", gone)
        control.begin(request, control.survey(request))
    assert control.outcome(world.home, "t1")["outcome"] == "running" and not os.path.exists(world.home.open)
    # Under another plan: what was written down is not what is asked for now.
    again = world.request(budgets={**request.budgets, "total": 119.0})
    there = control.survey(again)
    assert control.decide(again, there).kind == "start"
    control.begin(again, there)
    result = control.wait(world.home, "t1", 60.0)
    assert result["outcome"] == "committed" and result["sessions"] == 1, why(world, result)
    world.require_whole("new")
    # Whoever looked before that and comes late does not begin it a second time.
    with pytest.raises(Busy, match="was taken by somebody else meanwhile"):
        control.begin(again, there)


def test_a_journal_without_an_end_that_is_not_open_is_nothing_to_go_on_with(world: worlds.World, deadly: Deadly) -> None:
    request = world.request()
    deadly.at("check")
    control.begin(request, control.survey(request))
    deadly.wait(world)
    os.unlink(world.home.open)
    with pytest.raises(Refused, match="has no end"):
        control.decide(request, control.survey(request))


@pytest.mark.parametrize("world", [{"behave": "stall"}], indirect=True)
@pytest.mark.parametrize("step", ["start", "switch", "migrate", "stop"])
def test_the_engine_is_killed_while_it_puts_back(world: worlds.World, deadly: Deadly, step: str) -> None:
    request = world.request(probe={**world.request().probe, "deadline": 1.0})
    deadly.at(step, "undo")
    control.begin(request, control.survey(request))
    deadly.wait(world)
    result = control.wait(world.home, "t1", 60.0)  # whoever waits also revives
    assert result["outcome"] == "put_back", why(world, result)
    world.require_whole("old")


def test_the_engine_is_the_code_that_runs_and_pinned_by_its_digest(world: worlds.World, deadly: Deadly) -> None:
    parts = install.sources()
    assert install.build(parts) == install.build(dict(reversed(list(parts.items()))))
    assert not any(name.startswith("_module") for name in parts)
    assert all(b"import ansible" not in data and b"from ansible." not in data for data in parts.values())
    request = world.request()
    digest = install.install(world.home)
    path = install.engine_path(world.home, digest)
    assert canonical.sha256_file(path) == digest
    deadly.at("check")
    control.begin(request, control.survey(request))
    deadly.wait(world)
    with open(path, "ab") as stream:
        stream.write(b"x")
    with pytest.raises(Exception, match="is not the engine"):
        control.attach(request)
    os.truncate(path, os.path.getsize(path) - 1)
    # Nor is a plan executed that was changed after the journal was opened.
    plan = world.home.turn("t1").plan
    with open(plan, encoding="utf-8") as stream:
        body = json.load(stream)
    with open(plan, "w", encoding="utf-8") as stream:
        json.dump({**body, "require_drain": True}, stream)
    assert engine_main.main(["run", "--state-dir", world.home.state_dir, "--instance", "unit1"]) == engine_main.NEEDS_HELP


def test_a_turn_whose_end_was_written_and_not_cleaned_up_is_cleaned_up(world: worlds.World) -> None:
    result = upgrade(world)
    assert result["outcome"] == "committed", why(world, result)
    # As if the engine had died right after it wrote the end.
    with open(world.home.open, "w", encoding="ascii") as stream:
        stream.write("t1\n")
    world.node().guard()
    again = control.wait(world.home, "t1", 30.0)
    assert again["outcome"] == "committed" and again["sessions"] == 1
    assert not os.path.exists(world.home.open) and not world.node().guarded()


def test_an_engine_that_can_not_ask_its_manager_is_started_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(BaseException):
        pass

    ended: list[int] = []

    def leave(code: int) -> None:
        ended.append(code)
        raise Gone

    def silent() -> None:
        raise CommandFailed("systemctl did not finish in 30 s", argv=[], code=None, output="")

    monkeypatch.setattr(engine_main.os, "_exit", leave)
    effects = types.SimpleNamespace(service=types.SimpleNamespace(state=silent))
    with pytest.raises(Gone):
        engine_main._again(t.cast(t.Any, effects))
    assert ended == [engine_main.AGAIN] and engine_main.AGAIN not in (engine_main.OK, engine_main.NEEDS_HELP)


def test_an_engine_without_an_open_turn_has_nothing_to_do(tmp_path: t.Any) -> None:
    assert engine_main.main(["run", "--state-dir", str(tmp_path), "--instance", "unit1"]) == engine_main.OK
    assert turn.next_action  # the room is importable without Ansible
