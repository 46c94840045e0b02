# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drains of a real nginx, with requests in flight, kept connections and reloads."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import os
import pathlib
import signal
import threading
import time
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused, Unreachable, WaitTimeout
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Wish
from ansible_collections.chainops.validator.plugins.module_utils._gateway.nginx import Nginx
from ansible_collections.chainops.validator.plugins.module_utils._host import clients as host_clients
from ansible_collections.chainops.validator.plugins.module_utils._host import procs

from .conftest import NginxGateway, until
from .test_haproxy import Clients


@pytest.fixture
def wish(nginx: NginxGateway) -> Wish:
    return Wish(nginx.server("a"), None, "gw", str(nginx.folder / "receipts"), "val1", "t1", 1, timeout=15.0)


@pytest.fixture
def driver(nginx: NginxGateway) -> Nginx:
    return Nginx(nginx.config)


def test_a_drain_under_load_loses_no_request_and_puts_the_file_back(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    before, mode = nginx.upstreams.read_bytes(), nginx.upstreams.stat().st_mode
    with Clients(nginx, seconds=4) as clients:
        result = Drain(driver, wish).out()
        ended = time.monotonic()
        assert nginx.upstreams.read_bytes().replace(b" down", b"") == before
        assert nginx.upstreams.read_bytes().count(b" down") == 2
        last = max(at for at, _ in nginx.nodes["a"].served)
        served = len(nginx.nodes["a"].served)
        time.sleep(0.5)
        assert len(nginx.nodes["a"].served) == served, "a drained server gets nothing"
        assert [f"{s.state}" for s in driver.look().find(wish.server)] == ["drain", "drain"]
        nginx.nodes["a"].close()
        time.sleep(0.3)
        nginx.nodes["a"].open()
        back = Drain(driver, dataclasses.replace(wish, traffic_timeout=5)).back()
        assert back["drain"]["traffic"]["seen"]
    assert clients.failed == [] and clients.done > 50
    assert ended >= last
    assert result["drain"]["curve"][0][1] > 0, "it had something to wait for"
    assert nginx.upstreams.read_bytes() == before and nginx.upstreams.stat().st_mode == mode
    assert {(s.state, s.weight) for s in driver.look().find(wish.server, "api")} == {("ready", 7)}


def test_kept_connections_of_the_gateway_are_not_taken_for_requests(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    clients = [http.client.HTTPConnection("127.0.0.1", nginx.port) for dummy in range(8)]
    for client in clients:
        client.request("GET", "/quick")
        assert client.getresponse().read() == b"ok"
    assert sum(s.sessions for s in driver.look().servers) > 0, "nginx keeps connections to its servers"
    done = Drain(driver, wish).out()
    assert done["drain"]["in_flight"] == 0
    told = done["receipt"]
    assert told["same_host"] and told["connections"] == {}, "a reload closes what is kept"
    found = host_clients.look(procs.connections(), nginx.nodes["a"].port, [told], held_by=procs.sockets_of)
    assert found.busy == () and found.gateways == {"gw": host_clients.HERE}
    for client in clients:
        client.close()


def test_requests_left_with_old_workers_are_waited_for(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = [pool.submit(nginx.get, "/slow?2") for _ in range(4)]
        until(lambda: sum(s.in_flight for s in driver.look().find(wish.server)) > 0, "requests are in flight")
        before = driver.look().generation
        nginx.reload()
        until(lambda: driver.look().generation != before, "the reload has happened")
        Drain(driver, wish).out()
        done = time.monotonic()
        assert done >= max(at for at, _ in nginx.nodes["a"].served)
        assert [f.result() for f in long] == [200] * 4


def test_a_request_that_never_ends_fails_the_drain_and_the_file_is_as_before(
    nginx: NginxGateway, driver: Nginx, wish: Wish
) -> None:
    before = nginx.upstreams.read_bytes()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = [pool.submit(nginx.get, "/slow?4") for _ in range(4)]
        until(lambda: sum(s.in_flight for s in driver.look().find(wish.server)) > 0, "requests are in flight")
        with pytest.raises(WaitTimeout, match="in rotation again") as caught:
            Drain(driver, dataclasses.replace(wish, timeout=1.0)).out()
        assert caught.value.fields["last"]["left_behind"] > 0
        assert [f.result() for f in long] == [200] * 4
    assert nginx.upstreams.read_bytes() == before


def test_a_configuration_that_nginx_does_not_accept_is_not_left_there(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    driver.look()
    broken = nginx.main.read_bytes() + b"nonsense;\n"
    nginx.main.write_bytes(broken)
    before = nginx.upstreams.read_bytes()
    with pytest.raises(Refused, match="nonsense"):
        Drain(driver, wish).out()
    assert nginx.upstreams.read_bytes() == before
    assert nginx.get("/") == 200


def test_somebody_who_takes_the_flag_away_is_answered(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    before = nginx.upstreams.read_bytes()

    def meddle() -> None:
        nginx.upstreams.write_bytes(before)
        nginx.reload()

    with Clients(nginx, seconds=1.5) as clients:
        timer = threading.Timer(0.6, meddle)
        timer.start()
        result = Drain(driver, wish).out()
        timer.join()
        assert {s.state for s in driver.look().find(wish.server)} == {"drain"}
        Drain(driver, wish).back()
    assert result["drain"]["reasserted"] >= 1 and clients.failed == []
    assert nginx.upstreams.read_bytes() == before


def test_a_flag_that_is_only_written_does_not_count(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    """As after a crash between the edit and the reload."""
    nginx.upstreams.write_bytes(nginx.upstreams.read_bytes().replace(b"weight=7", b"weight=7 down"))
    assert {s.state for s in driver.look().find(wish.server, "api")} == {"ready"}
    nginx.reload()
    until(lambda: {s.state for s in driver.look().find(wish.server, "api")} == {"drain"}, "it counts after a reload")


def test_the_last_one_that_answers_is_not_drained(nginx: NginxGateway, driver: Nginx, wish: Wish) -> None:
    nginx.nodes["b"].close()
    with pytest.raises(Refused, match="0 server"):
        Drain(driver, wish).out()
    nginx.nodes["b"].open()


def test_an_nginx_that_does_not_run_is_no_empty_one(nginx: NginxGateway, driver: Nginx) -> None:
    driver.look()
    os.kill(int((nginx.folder / "nginx.pid").read_text()), signal.SIGTERM)
    nginx.process.wait(10)
    with pytest.raises(Unreachable, match="does not run"):
        driver.look()


def test_the_module_itself(nginx: NginxGateway, ansible: t.Callable[..., dict[str, t.Any]]) -> None:
    before = nginx.upstreams.read_bytes()
    options = {
        "driver": "nginx",
        "config": nginx.config,
        "server": nginx.server("a"),
        "receipt_dir": str(nginx.folder / "r"),
        "fence_token": 3,
        "turn_id": "t9",
    }
    predicted = ansible("api_drain", **options, _check=True)
    assert predicted["changed"] and predicted["diff"]["after"]["api"]["state"] == "drain"
    assert nginx.upstreams.read_bytes() == before and not pathlib.Path(options["receipt_dir"]).exists()
    first = ansible("api_drain", **options)
    assert first["changed"] and first["drain"]["in_flight"] == 0 and first["receipt"]["driver"] == "nginx"
    assert not ansible("api_drain", **options)["changed"]
    back = ansible("api_drain", state="active", **options)
    assert back["changed"] and nginx.upstreams.read_bytes() == before
    assert not ansible("api_drain", state="active", **options)["changed"]
    refused = ansible("api_drain", **{**options, "mode": "maint"})
    assert refused["failed"] and "maint" in refused["msg"]
