# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single steps, on directories alone: what the engine's whole turns can't show with a node that tears nothing."""

from __future__ import annotations

import json
import os
import types
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, journal
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import CLOCK
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import control, past, steps, turn
from ansible_collections.chainops.validator.plugins.module_utils._host.engine import Context
from ansible_collections.chainops.validator.plugins.module_utils._host.service import State
from ansible_collections.chainops.validator.plugins.module_utils._state import snapshot
from ansible_collections.chainops.validator.plugins.module_utils._state.verify import verify
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._host import world as worlds


class Chain:
    """A chain whose node tears a file when it stops. What isn't said here is as with XAI."""

    def __init__(self) -> None:
        self.real = adapter("xai")
        self.mends = 0

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self.real, name)

    def mend(self, data_dir: str, *, dry: bool = False) -> dict[str, t.Any] | None:
        self.mends += 1
        path = os.path.join(data_dir, "torn")
        if not os.path.exists(path):
            return None
        os.replace(path, os.path.join(data_dir, "whole"))
        return {"torn_write": "torn"}


class Service:
    """A node that is down until it is started."""

    pid: int | None = None

    def state(self) -> State:
        return State(self.pid, self.pid is not None, True, None, None, "down")

    def start(self, patience: float) -> int:
        self.pid = os.getpid()
        return self.pid


class Host:
    def __init__(self, root: str, **changes: t.Any) -> None:
        self.world = worlds.World(root, "same", 1, proof={"proposal_id": "p1"})
        os.makedirs(self.world.data)
        os.makedirs(self.world.home.root)
        with open(os.path.join(self.world.data, "schema.json"), "w", encoding="utf-8") as stream:
            json.dump({"level": 1}, stream)
        there = control.Situation(None, None, None, os.path.join(root, "old"), None, 1)
        self.body = control.compose(self.world.request(**changes), there, "0" * 64)
        self.effects = steps.HostEffects(turn.load(self.body), self.world.home)
        self.chain, self.service = Chain(), Service()
        self.effects.adapter = t.cast(t.Any, self.chain)
        self.effects.service = t.cast(t.Any, self.service)
        self.noted: dict[str, t.Any] = {}

    def do(self, step: str, *records: dict[str, t.Any]) -> dict[str, t.Any]:
        context = Context(records, CLOCK.monotonic() + 60, False, lambda **facts: self.noted.update(facts), CLOCK)
        return self.effects.do(step, context)


def done(step: str, **facts: t.Any) -> dict[str, t.Any]:
    return {"kind": "done", "step": step, "way": turn.FORWARD, "facts": facts, "seconds": 1.0}


def begun(step: str) -> dict[str, t.Any]:
    return {"kind": "begin", "step": step, "way": turn.FORWARD}


@pytest.fixture
def host(tmp_path: t.Any) -> Host:
    return Host(str(tmp_path))


def test_what_the_stop_tore_is_mended_before_it_is_sealed(host: Host) -> None:
    with open(os.path.join(host.world.data, "torn"), "wb"):
        pass
    seen = [done("check", chain_id="c", proof_sha256="ff"), done("stop", height=7, clean=True)]
    sealed = host.do("freeze", *seen)
    assert sealed["mended"] == {"torn_write": "torn"}
    tree = os.path.join(sealed["path"], "roots", "data")
    assert os.path.exists(os.path.join(tree, "whole")) and not os.path.exists(os.path.join(tree, "torn"))
    facts = snapshot.load(sealed["path"]).facts
    assert facts["why"] == "rollback point of turn t1 of rollout r1"
    assert (facts["proposal_id"], facts["proof_sha256"], facts["height"]) == ("p1", "ff", 7) and "mended" not in facts
    # The step taken again finds the same seal.
    assert host.do("freeze", *seen)["root_sha256"] == sealed["root_sha256"] and verify(sealed["path"]).ok


@pytest.mark.parametrize(
    ("changes", "records", "mends"),
    [
        ({"migrations": []}, [done("freeze", mended=None), begun("start")], 0),
        # A release that ran and died may have torn what was whole.
        ({"migrations": []}, [done("freeze", mended=None), begun("start"), begun("start")], 1),
        # An engine of another version sealed without mending.
        ({"migrations": []}, [done("freeze"), begun("start")], 1),
        ({}, [done("freeze", mended=None), begun("start")], 1),
    ],
)
def test_data_are_mended_once_unless_somebody_wrote_to_them(
    tmp_path: t.Any, changes: t.Any, records: list[dict[str, t.Any]], mends: int
) -> None:
    step = {"id": "1", "from_level": 1, "to_level": 2, "forward": ["/bin/true"]}
    host = Host(str(tmp_path), **{"migrations": [step], **changes})
    assert host.do("start", *records)["pid"] == os.getpid()
    assert host.chain.mends == mends


def test_a_plan_of_an_older_version_has_no_budget(tmp_path: t.Any) -> None:
    policy = {"kill": False, "migrate": "in_place"}
    host = Host(str(tmp_path / "old"), policy=policy)
    assert host.do("prepare")["predicted_stop_window"]["budget"] == 0.0
    host = Host(str(tmp_path / "new"), policy={**policy, "stop_window_budget": 0.000001})
    with pytest.raises(Refused, match="the node was not stopped"):
        host.do("prepare")
    assert host.noted["predicted_stop_window"]["budget"] == 0.000001


def test_old_trees_are_named_where_space_is_short(host: Host, tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "node" / ".chainops" / "unit1" / "trees" / "old-x" / "data"
    tree.mkdir(parents=True)
    (tree / "big").write_bytes(bytes(3 << 20))
    paths = host.world.home.turn("t0")
    os.makedirs(paths.root)
    with open(paths.plan, "wb") as stream:
        stream.write(canonical.pretty({**host.body, "turn_id": "t0", "rollout_id": "r0"}))
    with journal.Journal(paths.journal) as log:
        for record in (begun("migrate"), done("migrate", old_trees=[str(tree)])):
            log.append({**record, "mono": 1.0, "wall": 1.0, "boot": "b"})
    monkeypatch.setattr(steps.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    broken = host.world.home.turn("t9")
    os.makedirs(broken.root)
    for path in (broken.plan, broken.journal):
        with open(path, "wb") as stream:
            stream.write(b"{}")
    problems: list[str] = []
    host.effects._check_space(t.cast(t.Any, None), problems)
    assert "1 old trees of rollout r0 hold 3 MiB" in problems[0]
    # A turn of the next rollout takes them away when it is over, unless somebody has to look at the host.
    host.effects.service = t.cast(t.Any, type("Up", (), {"guarded": lambda self: False})())
    host.effects.close({"outcome": turn.FAILED})
    assert tree.exists() and past.due(host.world.home, "r0") == []
    host.effects.close({"outcome": turn.COMMITTED})
    assert not tree.exists() and past.put_aside(host.world.home) == {}


@pytest.mark.parametrize(("inodes", "says"), [(None, []), (5000, []), (999, ["999 inodes free beside"])])
def test_inodes_that_copies_would_take_from_the_node(
    host: Host, monkeypatch: pytest.MonkeyPatch, inodes: int | None, says: list[str]
) -> None:
    monkeypatch.setattr(steps, "free_inodes", lambda path: inodes)
    problems: list[str] = []
    host.effects._check_space(t.cast(t.Any, None), problems)
    assert [problem[: len(said)] for problem, said in zip(problems, says)] == says and len(problems) == len(says)


@pytest.mark.parametrize(
    ("looked", "lease", "says"),
    [
        ({"checked_at": {"wall": "2026-01-31T12:00:00.123Z"}}, 0, ""),
        ({"drained_at": {"wall": "2026-01-31T12:00:00.123Z"}}, 0, ""),
        ({"checked_at": {"wall": "2026-01-31T11:58:01.123Z"}}, 0, ""),
        ({"checked_at": {"wall": "2026-01-31T11:57:59.123Z"}}, 0, "121 s old, and stands for 120 s"),
        ({"checked_at": {"wall": "2026-01-31T11:50:00.123Z"}}, 900, ""),
        ({"checked_at": {"wall": "2026-01-31T11:40:00.123Z"}}, 900, "1200 s old, and stands for 900 s"),
        ({"checked_at": {"wall": "2026-01-31T12:00:09.123Z"}}, 0, ""),
        ({"checked_at": {"wall": "2026-01-31T12:01:00.123Z"}}, 0, "clocks differ"),
        ({"checked_at": {"wall": "soon"}}, 0, "doesn't say when"),
        ({"checked_at": None, "drained_at": None}, 0, "doesn't say when"),
    ],
)
def test_a_receipt_stands_for_a_while(looked: dict[str, t.Any], lease: float, says: str) -> None:
    found = steps.stale({"gateway": "gw1", "lease": lease, **looked}, 1769860800.123)
    assert (says in found[0]) if says else found == []


class Pending(Chain):
    """Nodes by URL: ids of what each has pending."""

    def __init__(self, nodes: dict[str, str]) -> None:
        super().__init__()
        self.nodes = nodes

    def client(self, url: str, **dummy: t.Any) -> t.Any:
        held = self.nodes[url]
        return types.SimpleNamespace(
            pending_transactions=lambda: tuple({"txid": txid} for txid in held),
            transaction=lambda txid: {"state": "pending", "height": None} if txid in held else None,
            close=lambda: None,
        )


@pytest.mark.parametrize(
    ("peer", "says"), [("ab", ""), ("a", "1 accepted transactions are in no block and with no other node: b")]
)
def test_what_only_this_node_has_accepted_keeps_it_from_being_stopped(tmp_path: t.Any, peer: str, says: str) -> None:
    host = Host(str(tmp_path), peers=["http://peer"])
    host.effects.adapter = t.cast(t.Any, Pending({str(host.body["api_url"]): "ab", "http://peer": peer}))
    problems: list[str] = []
    context = Context([], CLOCK.monotonic() + 0.2, False, lambda **facts: None, CLOCK)
    host.effects._check_handover(context, problems)
    assert problems == ([says] if says else [])
