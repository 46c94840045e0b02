# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drains of a real HAProxy, with requests in flight and reloads."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import socket
import threading
import time
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused, Unreachable, WaitTimeout
from ansible_collections.chainops.validator.plugins.module_utils._gateway import receipt, unit
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Wish
from ansible_collections.chainops.validator.plugins.module_utils._gateway.haproxy import HAProxy
from ansible_collections.chainops.validator.plugins.module_utils._host import clients, procs

from .conftest import Gateway, NginxGateway, until


class Clients:
    """Short requests all the time, and some long ones always in flight; every failure is kept."""

    def __init__(self, gateway: Gateway | NginxGateway, long: int = 6, seconds: float = 1.0) -> None:
        self.gateway = gateway
        self.failed: list[str] = []
        self.done = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(f"/slow?{seconds}",)) for _ in range(long)]
        self._threads += [threading.Thread(target=self._run, args=("/quick",)) for _ in range(2)]

    def _run(self, path: str) -> None:
        while not self._stop.is_set():
            try:
                self.gateway.get(path)
                self.done += 1
            except Exception as exc:
                self.failed.append(f"{path}: {exc!r}")
            if path == "/quick":
                time.sleep(0.01)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        time.sleep(0.6)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def wish(gateway: Gateway) -> Wish:
    return Wish("a", None, "gw", str(gateway.folder / "receipts"), "val1", "t1", 1, timeout=10.0)


@pytest.fixture
def wish6(gateway6: Gateway) -> Wish:
    return Wish("a", None, "gw", str(gateway6.folder / "receipts"), "val1", "t1", 1, timeout=10.0)


def states(driver: HAProxy) -> dict[str, str]:
    return {s.label: s.state for s in driver.look().servers}


@pytest.mark.parametrize("how", ["unix", "tcp"])
def test_a_drain_under_load_loses_no_request_and_ends_with_the_last_one(gateway: Gateway, wish: Wish, how: str) -> None:
    driver = HAProxy(gateway.socket if how == "unix" else f"127.0.0.1:{gateway.runtime}")
    with Clients(gateway) as clients:
        result = Drain(driver, wish).out()
        ended = time.monotonic()
        last = max(at for at, _ in gateway.nodes["a"].served)
        served = len(gateway.nodes["a"].served)
        time.sleep(0.5)
        assert len(gateway.nodes["a"].served) == served, "a drained server gets nothing"
        gateway.nodes["a"].alive = False
        time.sleep(0.5)
        gateway.nodes["a"].alive = True
        back = Drain(driver, dataclasses.replace(wish, traffic_timeout=5)).back()
        assert back["drain"]["traffic"]["seen"]
    assert clients.failed == [] and clients.done > 50
    assert 0.2 < result["drain"]["seconds"] < 3
    assert ended - last < 0.25, "and it notices at once that the last request has ended"
    assert set(states(driver).values()) == {"ready"}
    assert {s.label: s.weight for s in driver.look().servers if s.name == "a"} == {"api/a": 70, "ws/a": 1}


def test_a_reload_hides_requests_from_the_statistics_but_not_from_us(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    before = driver.look().generation
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = [pool.submit(gateway.get, "/slow?2.5") for _ in range(4)]
        until(lambda: sum(s.in_flight for s in driver.look().find("a")) > 0, "requests are in flight")
        gateway.reload()
        until(lambda: driver.look().generation != before, "the reload has happened")
        assert sum(s.in_flight for s in driver.look().servers) == 0, "the new process says zero"
        started = time.monotonic()
        result = Drain(driver, wish).out()
        assert time.monotonic() - started > 0.7, "but the drain has waited for the old one"
        last = max(at for at, _ in gateway.nodes["a"].served)
        assert time.monotonic() >= last
        assert [f.result() for f in long] == [200] * 4
    assert result["drain"]["curve"][0][1] > 0


def test_connections_that_an_old_process_keeps_for_later_are_no_requests(mastered: Gateway) -> None:
    driver = HAProxy(mastered.socket)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for dummy in range(8):
            mastered.get("/quick")
        long = [pool.submit(mastered.get, "/slow?3") for _ in range(3)]
        until(lambda: sum(s.in_flight for s in driver.look().servers) == 3, "requests are in flight")
        before = driver.look()
        busy = {s.address: s.sessions for s in before.find("a", "api") + before.find("b", "api")}
        mastered.reload()
        until(lambda: driver.look().generation != before.generation, "the reload has happened")
        assert driver.look().left_behind == {**dict.fromkeys(busy, 0), **busy}
        assert [f.result() for f in long] == [200] * 3


@pytest.mark.parametrize("kind", ["mastered", "gateway"])
def test_a_long_request_with_a_replaced_process_is_ended_where_the_master_has_a_socket_and_named_where_not(
    kind: str, request: pytest.FixtureRequest
) -> None:
    running: Gateway = request.getfixturevalue(kind)
    driver = HAProxy(running.socket)
    wish = Wish("a", None, "gw", str(running.folder / "receipts"), "val1", "t1", 1, timeout=4.0)
    wish = dataclasses.replace(wish, long_backends=("ws",), long_deadline=0.5)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = [pool.submit(running.get, "/ws/slow?9") for _ in range(4)]
        until(lambda: sum(s.in_flight for s in driver.look().find("a", "ws")) > 1, "requests are in flight")
        before = driver.look().generation
        held = driver.look().find("a", "ws")[0].sessions
        running.reload()
        until(lambda: driver.look().generation != before, "the reload has happened")
        assert driver.look().old[int(before)][f"127.0.0.1:{running.nodes['a'].port}"] >= held
        if kind == "mastered":
            done = Drain(driver, wish).out()["drain"]
            assert done["ended"] == {"ws": held} and done["replaced"] == {before: held}
        else:
            with pytest.raises(WaitTimeout, match=rf"left with a replaced process \(pid {before}\)") as caught:
                Drain(driver, wish).out()
            assert caught.value.fields["replaced"][before] >= held
        answers = [f.exception() is None for f in long]
        assert answers.count(True) == (4 - held if kind == "mastered" else 4)


def test_a_reload_in_the_middle_of_a_drain_is_answered(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    with Clients(gateway, seconds=1.5) as clients:
        timer = threading.Timer(0.3, gateway.reload)
        timer.start()
        result = Drain(driver, wish).out()
        timer.join()
        assert states(driver)["api/a"] == "drain"
        Drain(driver, wish).back()
    assert (result["drain"]["reloads"], result["drain"]["reasserted"]) == (1, 1)
    assert clients.failed == []


def test_a_drain_that_a_reload_undid_later_is_asserted_again_and_said(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    driver.set_weight("api", "a", 20)
    Drain(driver, wish).out()
    again = Drain(driver, wish).out()
    assert again["before"] == again["after"]
    before = driver.look().generation
    gateway.reload()
    until(lambda: driver.look().generation != before, "the reload has happened")
    assert states(driver)["api/a"] == "ready"
    third = Drain(driver, wish).out()
    assert third["before"] != third["after"] and states(driver)["api/a"] == "drain"
    Drain(driver, wish).back()
    assert {s.weight for s in driver.look().find("a", "api")} == {20}, "the weight set at run time is back, too"


def test_a_request_that_never_ends_fails_the_drain_and_puts_the_server_back(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = [pool.submit(gateway.get, "/ws/slow?4") for _ in range(2)]
        until(lambda: sum(s.in_flight for s in driver.look().find("a")) > 0, "requests are in flight")
        with pytest.raises(WaitTimeout, match="in rotation again") as caught:
            Drain(driver, dataclasses.replace(wish, timeout=0.7)).out()
        assert caught.value.fields["left"]["ws"]["sessions"] == 1
        assert set(states(driver).values()) == {"ready"}
        assert [f.result() for f in long] == [200, 200]


def test_the_last_one_that_is_up_is_not_drained(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    gateway.nodes["b"].alive = False
    until(lambda: not driver.look().find("b", "api")[0].up, "b is seen down")
    with pytest.raises(Refused, match="0 server"):
        Drain(driver, wish).out()
    assert states(driver)["api/a"] == "ready"


def test_a_dead_server_stays_out_until_its_checks_pass(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    sticky = dataclasses.replace(wish, mode="maint", timeout=1.0)
    Drain(driver, sticky).out()
    assert states(driver)["api/a"] == "maint"
    gateway.nodes["a"].alive = False
    with pytest.raises(WaitTimeout, match="stays drained"):
        Drain(driver, sticky).back()
    assert states(driver)["api/a"] == "drain"
    gateway.nodes["a"].alive = True
    Drain(driver, dataclasses.replace(sticky, timeout=10)).back()
    look = driver.look().find("a", "api")[0]
    assert (look.state, look.up, look.confirmed, look.weight) == ("ready", True, True, 70)


def test_what_haproxy_refuses_and_where_nothing_answers(gateway: Gateway) -> None:
    driver = HAProxy(gateway.socket)
    with pytest.raises(Refused, match="No such server"):
        driver.set_state("api", "nobody", "drain")
    for nobody in (str(gateway.folder / "none.sock"), "127.0.0.1:1"):
        with pytest.raises(Unreachable, match="stats socket"):
            HAProxy(nobody).look()


def test_the_module_itself(gateway: Gateway, ansible: t.Callable[..., dict[str, t.Any]]) -> None:
    options = {
        "socket": gateway.socket,
        "server": "a",
        "receipt_dir": str(gateway.folder / "r"),
        "fence_token": 3,
        "turn_id": "t9",
    }
    predicted = ansible("api_drain", **options, _check=True)
    assert predicted["changed"] and predicted["diff"]["after"]["api"]["state"] == "drain"
    first = ansible("api_drain", **options)
    assert first["changed"] and first["drain"]["in_flight"] == 0 and first["receipt"]["fence_token"] == 3
    assert not ansible("api_drain", **options)["changed"]
    refused = ansible("api_drain", **{**options, "fence_token": 2})
    assert refused["failed"] and refused["error"]["kind"] == "Refused" and refused["error"]["highest"] == 3
    back = ansible("api_drain", state="active", **options)
    assert back["changed"] and back["receipt"]["state"] == "active"
    assert not ansible("api_drain", state="active", **options)["changed"]


def test_a_watch_takes_the_server_out_again_until_its_lease_is_over(
    gateway: Gateway, ansible: t.Callable[..., dict[str, t.Any]]
) -> None:
    driver = HAProxy(gateway.socket)
    folder = gateway.folder / "r"
    options = {"socket": gateway.socket, "server": "a", "receipt_dir": str(folder), "fence_token": 3, "turn_id": "t9"}

    def reload() -> None:
        before = driver.look().generation
        gateway.reload()
        until(lambda: driver.look().generation != before, "the reload has happened")

    def out() -> bool:
        return states(driver)["api/a"] == states(driver)["ws/a"] == "drain"

    ansible("api_drain", **options, lease=60)
    for dummy in range(2):
        reload()
        until(out, "it is out again")
    until(lambda: unit.status(str(folder), "a") is not None, "the watch has said something")
    renewed = ansible("api_drain", **options, lease=2)
    assert not renewed["changed"] and renewed["receipt"]["reasserted"] == 0 and renewed["watch"]["reasserted"] >= 2
    until(lambda: "watch" in (receipt.load(str(folder), "a") or {}), "the lease is over, and the receipt says so")
    reload()
    assert states(driver)["api/a"] == "ready", "nobody takes it out any more"
    assert out() is False and ansible("api_drain", **options, lease=60)["changed"]
    back = ansible("api_drain", state="active", **options)
    assert back["receipt"]["state"] == "active" and set(states(driver).values()) == {"ready"}
    reload()
    time.sleep(0.5)
    assert set(states(driver).values()) == {"ready"}


def test_connections_kept_for_later_are_told_apart_from_requests_of_a_reload(gateway: Gateway, wish: Wish) -> None:
    """The gateway is on the node's own host here, so its program's connections count and not those of its address."""
    driver, port = HAProxy(gateway.socket), gateway.nodes["a"].port
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(gateway.get, ["/slow?0.3"] * 12)) == [200] * 12
        told = Drain(driver, wish).out()["receipt"]
        assert told["same_host"] and told["source_addresses"] == []
        assert len(told["connections"]["127.0.0.1"]) > 3, "HAProxy keeps connections of a drained server for later"

        def seen() -> clients.Found:
            return clients.look(procs.connections(), port, [told], held_by=procs.sockets_of)

        with socket.create_connection(("127.0.0.1", port)):  # an operator's own
            found = until(lambda: None if (now := seen()).busy else now, "nothing but what was kept, between two health checks")
        assert found.idle > 3 and found.gateways == {"gw": clients.HERE}
        before = driver.look().generation
        gateway.reload()
        until(lambda: driver.look().generation != before, "the reload has happened")
        late = [pool.submit(gateway.get, "/slow?2") for _ in range(6)]
        until(lambda: sum(s.in_flight for s in driver.look().find("a", "api")) > 0, "requests are in flight")
        for dummy in range(20):
            assert seen().busy == ("127.0.0.1",)
        assert [f.result() for f in late] == [200] * 6
    Drain(driver, wish).back()


def test_no_request_reaches_a_drained_server_over_reloads_where_haproxy_reads_states(
    remembering: Gateway, ansible: t.Callable[..., dict[str, t.Any]]
) -> None:
    """Without a watch: what a new process does with its very first request is the state file's doing alone."""
    driver, state, dice = HAProxy(remembering.socket), remembering.folder / "state", random.Random(7)
    options = {"socket": remembering.socket, "server": "a", "receipt_dir": str(remembering.folder / "r"), "fence_token": 3}
    driver.set_weight("api", "a", 20)
    with Clients(remembering, long=2) as clients:
        done = ansible("api_drain", **options)
        assert done["drain"]["reload_safe"] and done["receipt"]["reload_safe"] and done["drain"]["reload_why"] == []
        served, taken = len(remembering.nodes["a"].served), len(remembering.nodes["b"].served)
        for dummy in range(12):
            time.sleep(dice.uniform(0.0, 0.4))
            before = driver.look().generation
            remembering.reload()
            until(lambda before=before: driver.look().generation != before, "the reload has happened")
            assert states(driver)["api/a"] == states(driver)["ws/a"] == "drain"
        assert len(remembering.nodes["a"].served) == served, "and not one request came"
        assert len(remembering.nodes["b"].served) > taken + 100
        assert not ansible("api_drain", **options)["changed"]
        assert ansible("api_drain", state="active", **options)["changed"]
        assert [line.split()[1:4:2] for line in state.read_text().splitlines()[2:]] == [], "nothing is left there"
        assert {s.label: s.weight for s in driver.look().find("a")} == {"api/a": 20, "ws/a": 1}
        remembering.reload()
        until(lambda: len(remembering.nodes["a"].served) > served, "it takes requests again, also after a reload")
    assert set(states(driver).values()) == {"ready"} and clients.done > 100


def test_in_maintenance_a_server_stays_out_over_a_reload_as_well(remembering: Gateway) -> None:
    driver = HAProxy(remembering.socket)
    sticky = Wish("a", None, "gw", str(remembering.folder / "receipts"), "val1", "t1", 1, timeout=10.0, mode="maint")
    assert Drain(driver, sticky).out()["drain"]["reload_safe"]
    before = driver.look().generation
    remembering.reload()
    until(lambda: driver.look().generation != before, "the reload has happened")
    assert states(driver)["api/a"] == states(driver)["ws/a"] == "maint"
    Drain(driver, sticky).back()
    assert set(states(driver).values()) == {"ready"}


def test_where_haproxy_reads_no_states_the_lines_for_it_are_told(gateway: Gateway, wish: Wish) -> None:
    driver = HAProxy(gateway.socket)
    told = Drain(driver, wish).out()
    assert told["drain"]["reload_safe"] is told["receipt"]["reload_safe"] is False
    assert all("load-server-state-from-file global" in words for words in told["drain"]["reload_why"])
    Drain(driver, wish).back()


def test_a_state_file_that_cannot_be_read_costs_the_drain_nothing(remembering: Gateway) -> None:
    driver, state = HAProxy(remembering.socket), remembering.folder / "state"
    state.write_text("somebody's notes\n")
    wish = Wish("a", None, "gw", str(remembering.folder / "receipts"), "val1", "t1", 1, timeout=10.0)
    told = Drain(driver, wish).out()["drain"]
    assert told["in_flight"] == 0 and told["reload_safe"] is False and "can't be changed" in told["reload_why"][0]
    assert state.read_text() == "somebody's notes\n"


def test_an_ipv6_server_is_drained_like_any_other(gateway6: Gateway, wish6: Wish) -> None:
    driver = HAProxy(gateway6.socket)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = [pool.submit(gateway6.get, "/slow?2") for _ in range(4)]
        until(lambda: sum(s.in_flight for s in driver.look().find("a")) > 0, "requests are in flight")
        before = driver.look().generation
        gateway6.reload()
        until(lambda: driver.look().generation != before, "the reload has happened")
        result = Drain(driver, wish6).out()
        assert time.monotonic() >= max(at for at, _ in gateway6.nodes["a"].served)
        assert result["drain"]["curve"][0][1] > 0, "what the old process serves is seen"
        assert [f.result() for f in long] == [200] * 4
