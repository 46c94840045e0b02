# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, files, pack
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import IntegrityError, Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._gateway import receipt, unit, watch
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Wish, alone
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._gateway.test_drain import Ticks, pair, saved

NOW = {"boot_id": "b1", "boottime": 100.0}


@pytest.fixture
def wish(tmp_path: pathlib.Path) -> Wish:
    return Wish("a", None, "gw1", str(tmp_path / "receipts"), "val1", "turn-1", 7, timeout=5.0, lease=900.0)


def lease(wish: Wish, **changes: t.Any) -> watch.Lease:
    return dataclasses.replace(watch.Lease("haproxy", "/x", wish, watch.until(900)), **changes)


def given(wish: Wish, **changes: t.Any) -> str:
    path = watch.lease_path(wish.receipt_dir, wish.server)
    files.make_dir(watch.folder(wish.receipt_dir))
    files.write_atomic(path, canonical.pretty(lease(wish, **changes).as_dict()))
    return path


def told(wish: Wish) -> dict[str, t.Any]:
    return unit.status(wish.receipt_dir, wish.server) or {}


@pytest.mark.parametrize(
    ("record", "until", "says"),
    [
        (None, {}, watch.RELEASED),
        ({"state": "active", "fence_token": 7}, {}, watch.RELEASED),
        ({"state": "drained", "fence_token": 8}, {}, watch.SUPERSEDED),
        ({"state": "drained", "fence_token": 7}, {}, watch.WATCH),
        ({"state": "draining", "fence_token": 7}, {}, watch.WATCH),
        ({"state": "drained", "fence_token": 7}, {"boottime": 100.0}, watch.EXPIRED),
        # The wall clock may jump while the machine is up; after a restart it is all there is.
        ({"state": "drained", "fence_token": 7}, {"wall": 0.0}, watch.WATCH),
        ({"state": "drained", "fence_token": 7}, {"wall": 0.0, "boot_id": "b0"}, watch.EXPIRED),
        ({"state": "drained", "fence_token": 7}, {"boottime": 0.0, "boot_id": "b0"}, watch.WATCH),
    ],
)
def test_what_a_look_comes_to(wish: Wish, record: t.Any, until: dict[str, t.Any], says: str) -> None:
    ends = {"wall": 2000.0, "boottime": 200.0, "boot_id": "b1", **until}
    assert watch.judge(lease(wish, until=ends), record, NOW, 1000.0) == says
    assert watch.judge(None, record, NOW, 1000.0) == watch.RELEASED


def test_a_lease_is_read_as_it_was_written(wish: Wish) -> None:
    long = dataclasses.replace(wish, long_backends=("ws",))
    wanted = lease(long)
    assert watch.load(given(long, until=wanted.until)) == wanted
    path = given(wish)
    pathlib.Path(path).write_text('{"format": "chainops.watch/1"}')
    with pytest.raises(IntegrityError):
        watch.load(path)


def test_a_server_that_a_reload_let_in_is_taken_out_again(wish: Wish) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()
    it = watch.Watch(gateway, given(wish), Ticks())
    assert it.once() == watch.WATCH and gateway.orders == ["api/a drain"]
    gateway.change("api/a", state="ready")
    assert it.once() == watch.WATCH and gateway.orders == ["api/a drain", "api/a drain"]
    assert told(wish)["reasserted"] == 1 and told(wish)["state"] == "watching"


def test_a_gateway_that_is_restarting_is_asked_again(wish: Wish) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()

    def away() -> None:
        gateway.change("api/a", state="ready")
        raise Unreachable("refused", url="x")

    gateway.events = {gateway.looks + 1: away}
    it = watch.Watch(gateway, given(wish), Ticks())
    assert it.once() == watch.WATCH and it.error == "refused"
    assert it.once() == watch.WATCH and it.error == "" and gateway.servers["api/a"].state == "drain"


@pytest.mark.parametrize("was", ["drain", "maint"])
def test_what_was_out_before_is_not_the_watchs_to_touch(wish: Wish, was: str) -> None:
    gateway = pair(state=was)
    Drain(gateway, wish, Ticks()).out()
    gateway.change("api/a", state="ready")
    watch.Watch(gateway, given(wish), Ticks()).once()
    assert gateway.orders == []


@pytest.mark.parametrize(("put_back", "state"), [(False, "drain"), (True, "ready")])
def test_past_its_lease_it_stops_and_says_so(wish: Wish, put_back: bool, state: str) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()
    path = given(wish, until=watch.until(-1), put_back=put_back)
    assert watch.Watch(gateway, path, Ticks()).run() == watch.EXPIRED
    assert gateway.servers["api/a"].state == state and told(wish)["state"] == "expired"
    if put_back:
        assert saved(wish)["state"] == "active"
    else:
        assert saved(wish)["state"] == "drained" and "nobody takes the server out again" in saved(wish)["watch"]["message"]
        gateway.change("api/a", state="ready")
        assert watch.Watch(gateway, path, Ticks()).run() == watch.EXPIRED and gateway.servers["api/a"].state == "ready"


def test_it_yields_to_whoever_drains_or_puts_back(wish: Wish) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()
    path = given(wish)
    gateway.change("api/a", state="ready")
    with alone(wish, Ticks()):
        assert watch.Watch(gateway, path, Ticks()).once() == watch.WATCH
    assert gateway.orders == ["api/a drain"]


def test_it_ends_when_the_server_is_back_or_another_rollouts(wish: Wish) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()
    path = given(wish)
    Drain(gateway, dataclasses.replace(wish, fence_token=8), Ticks()).out()
    gateway.change("api/a", state="ready")
    assert watch.Watch(gateway, path, Ticks()).run() == watch.SUPERSEDED and gateway.servers["api/a"].state == "ready"
    Drain(gateway, dataclasses.replace(wish, fence_token=8), Ticks()).back()
    assert watch.Watch(gateway, path, Ticks()).run() == watch.RELEASED


SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {log}
"""


def test_where_there_is_systemd_the_watch_is_an_enabled_unit(
    wish: Wish, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units, log = tmp_path / "units", tmp_path / "log"
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(log=log))
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    unit.start(lease(wish), systemd=True, units=str(units))
    name = "chainops-drain@a.service"
    assert log.read_text().splitlines() == ["daemon-reload", f"enable {name}", f"restart {name}"]
    assert "WantedBy=multi-user.target" in (units / "chainops-drain@.service").read_text()
    command = (units / f"{name}.d" / "instance.conf").read_text()
    assert f'"--lease" "{watch.lease_path(wish.receipt_dir, "a")}"' in command and ".pyz" in command
    log.unlink()
    unit.stop(wish.receipt_dir, "a", systemd=True, units=str(units))
    assert log.read_text().splitlines() == [f"disable --now {name}", "daemon-reload"]
    assert not (units / f"{name}.d").exists() and watch.load(watch.lease_path(wish.receipt_dir, "a")) is None
    log.unlink()
    unit.stop(wish.receipt_dir, "a", systemd=True, units=str(units))
    assert not log.exists(), "the second time there is nothing to end"


def test_names_of_units() -> None:
    assert unit.unit_name("10.0.0.1:8545") == "chainops-drain@10.0.0.1:8545.service"
    assert unit.unit_name("[fd00::1]:80") == r"chainops-drain@\x5bfd00::1\x5d:80.service"


def test_the_program_stands_by_itself(wish: Wish) -> None:
    """It runs without the environment, and without anything but the standard library and its own rooms."""
    data = pack.build(pack.sources("_gateway/watch.py"), unit._MAIN)
    assert data == pack.build(pack.sources("_gateway/watch.py"), unit._MAIN)
    program = pathlib.Path(wish.receipt_dir).parent / "watch.pyz"
    program.write_bytes(data)
    receipt.save(wish.receipt_dir, {"server": "a", "format": receipt.FORMAT, "before": {}, "state": "active", "fence_token": 7})
    done = subprocess.run(
        [sys.executable, "-I", "-B", str(program), "--lease", given(wish)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.strip()) == (0, "chainops-drain: a: released")
    assert json.loads(pathlib.Path(watch.status_path(wish.receipt_dir, "a")).read_text())["state"] == "released"
