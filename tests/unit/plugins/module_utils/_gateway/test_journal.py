# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._gateway import journal
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Wish
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._gateway.test_drain import Ticks, pair, saved

READY = {"api": {"state": "ready", "weight": 30}}
OUT = {"api": {"state": "drain", "weight": 30}}
Json = t.Dict[str, t.Any]


@pytest.fixture
def wish(tmp_path: pathlib.Path) -> Wish:
    return Wish("a", None, "gw1", str(tmp_path / "drain"), "val1", "turn-1", 7, timeout=5.0)


@pytest.fixture
def gateway_wish(wish: Wish, tmp_path: pathlib.Path) -> Wish:
    return dataclasses.replace(wish, receipt_dir=str(tmp_path / "receipts"))


def looked(before: Json, known: bool = True) -> Json:
    return {"before": before, "known": known}


@pytest.mark.parametrize(
    ("looks", "record", "says"),
    [
        ({"gw1": looked(READY)}, None, {"gw1": READY}),
        ({"gw1": looked(OUT, known=False)}, None, {"gw1": OUT}),
        # A gateway that knows is believed, whatever was written down here.
        ({"gw1": looked(OUT)}, {"state": "drained", "before": {"gw1": READY}}, {"gw1": OUT}),
        # One that has lost what it knew shows the server as we left it.
        ({"gw1": looked(OUT, known=False)}, {"state": "drained", "before": {"gw1": READY}}, {"gw1": READY}),
        ({"gw1": looked(OUT, known=False)}, {"state": "active", "before": {"gw1": READY}}, {"gw1": OUT}),
        ({"gw2": looked(READY)}, {"state": "drained", "before": {"gw1": READY}}, {"gw1": READY, "gw2": READY}),
    ],
)
def test_what_is_remembered(looks: Json, record: Json | None, says: Json) -> None:
    assert journal.remembered(looks, record) == says


def test_it_is_written_down_once_and_called_over_once(wish: Wish) -> None:
    looks = {"gw1": looked(READY)}
    predicted = journal.Journal(wish, looks, Ticks()).out(check_mode=True)
    assert predicted["before"] != predicted["after"] and predicted["journal"] is None
    assert not pathlib.Path(wish.receipt_dir).exists()
    first = journal.Journal(wish, looks, Ticks()).out()
    assert first["journal"] == saved(wish) and saved(wish)["before"] == {"gw1": READY} and saved(wish)["noted_at"]["wall"]
    assert first["receipt"] is None, "it is no receipt of a gateway"
    again = journal.Journal(wish, looks, Ticks()).out()
    assert again["before"] == again["after"] and again["journal"] == first["journal"]
    over = journal.Journal(wish, {}, Ticks()).back(check_mode=True)
    assert over["before"]["state"] == "drained" and over["after"]["state"] == "active" and saved(wish)["state"] == "drained"
    over = journal.Journal(wish, {}, Ticks()).back()
    assert over["journal"] == saved(wish) and saved(wish)["state"] == "active" and saved(wish)["before"] == {"gw1": READY}
    again = journal.Journal(wish, {}, Ticks()).back()
    assert again["before"] == again["after"] and again["journal"] == over["journal"]


def test_nothing_was_ever_written_down(wish: Wish) -> None:
    found = journal.Journal(wish, {}, Ticks()).back()
    assert found["before"] == found["after"] == {} and found["journal"] is None


def test_an_older_rollout_changes_nothing_in_it(wish: Wish) -> None:
    journal.Journal(wish, {"gw1": looked(READY)}, Ticks()).out()
    late = journal.Journal(dataclasses.replace(wish, fence_token=6), {"gw1": looked(OUT)}, Ticks())
    for act in (late.out, late.back):
        with pytest.raises(Refused):
            act()
    assert saved(wish)["before"] == {"gw1": READY} and saved(wish)["state"] == "drained"


def test_a_look_tells_how_it_was_before_a_drain_that_is_not_over(gateway_wish: Wish) -> None:
    gateway = pair(weight=30)
    assert journal.look(gateway, "a", None, gateway_wish.receipt_dir) == looked(READY, known=False)
    Drain(gateway, gateway_wish, Ticks()).out()
    assert journal.look(gateway, "a", None, gateway_wish.receipt_dir) == looked(READY)
    Drain(gateway, gateway_wish, Ticks()).back()
    gateway.change("api/a", weight=50)
    assert journal.look(gateway, "a", None, gateway_wish.receipt_dir)["before"]["api"]["weight"] == 50
    with pytest.raises(InputError, match="no server 'c'"):
        journal.look(gateway, "c", None, gateway_wish.receipt_dir)


@pytest.mark.parametrize("was", ["ready", "maint"])
def test_a_gateway_that_lost_its_disk_is_put_back_by_what_the_validator_knows(gateway_wish: Wish, was: str) -> None:
    gateway = pair(weight=30, state=was)
    before = journal.look(gateway, "a", None, gateway_wish.receipt_dir)["before"]
    Drain(gateway, gateway_wish, Ticks()).out()
    pathlib.Path(gateway_wish.receipt_dir, "a.json").unlink()
    gateway.change("api/a", weight=100, state="ready" if was == "maint" else "drain")
    nothing = Drain(gateway, gateway_wish, Ticks()).back()
    assert nothing["drain"] is None, "by itself it doesn't know"
    done = Drain(gateway, gateway_wish, Ticks(), known=before).back()
    assert done["drain"]["told_by"] == "validator"
    assert (gateway.servers["api/a"].state, gateway.servers["api/a"].weight) == (was, 30)
    again = Drain(gateway, gateway_wish, Ticks(), known=before).back()
    assert again["before"] == again["after"] and again["drain"] is None, "now the gateway knows by itself"


def test_draining_anew_what_a_gateway_forgot_keeps_how_it_was(gateway_wish: Wish) -> None:
    gateway = pair(weight=30)
    Drain(gateway, gateway_wish, Ticks()).out()
    pathlib.Path(gateway_wish.receipt_dir, "a.json").unlink()
    done = Drain(gateway, gateway_wish, Ticks(), known=READY).out()
    assert done["drain"]["told_by"] == "validator" and done["receipt"]["before"] == READY
    back = Drain(gateway, gateway_wish, Ticks(), known=OUT).back()
    assert back["drain"]["told_by"] == "gateway" and gateway.servers["api/a"].state == "ready"
    assert json.loads(pathlib.Path(gateway_wish.receipt_dir, "a.json").read_text())["state"] == "active"
