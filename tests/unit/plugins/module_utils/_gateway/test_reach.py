# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import socket

from ansible_collections.chainops.validator.plugins.module_utils._core import tcp
from ansible_collections.chainops.validator.plugins.module_utils._gateway import reach

SERVER = "10.0.0.9:8545"


def row(local: str, local_port: int, remote: str = "10.0.0.9", remote_port: int = 8545, state: str = "01") -> tcp.Row:
    return tcp.Row(local, local_port, remote, remote_port, state, False, "1")


def test_addresses_are_the_route_and_what_connections_show() -> None:
    rows = [row("10.0.0.5", 4001), row("10.0.0.6", 4002), row("10.0.0.5", 4000), row("10.0.0.5", 1, state="06")]
    rows += [row("10.0.0.5", 2, remote="10.0.0.8"), row("10.0.0.5", 3, remote_port=80)]
    assert reach.reach(rows, [SERVER], {"10.0.0.9": "10.0.0.5"}) == {
        "source_addresses": ["10.0.0.5", "10.0.0.6"],
        "connections": {"10.0.0.5": [4000, 4001], "10.0.0.6": [4002]},
        "same_host": False,
    }


def test_a_servers_every_address_counts_and_none_is_no_address() -> None:
    found = reach.reach(
        [row("2001:db8::5", 7, remote="2001:db8::9")],
        [SERVER, "[2001:db8::9]:8545", "unix"],
        {"10.0.0.9": "10.0.0.5", "2001:db8::9": None},
    )
    assert found["source_addresses"] == ["10.0.0.5", "2001:db8::5"]


def test_an_address_that_everybody_has_tells_nothing() -> None:
    for host in ("127.0.0.1", "10.0.0.9"):
        found = reach.reach([row(host, 4000, remote=host)], [f"{host}:8545"], {host: host})
        assert found == {"source_addresses": [], "connections": {host: [4000]}, "same_host": True}
    assert reach.reach([row("10.0.0.9", 4000)], [SERVER], {})["same_host"], "another name space has no route to tell it by"


def test_of_this_very_moment() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        found = reach.look(f"/proc/{os.getpid()}/net", [f"127.0.0.1:{port}"])
        assert found == {"source_addresses": [], "connections": {"127.0.0.1": [client.getsockname()[1]]}, "same_host": True}
    assert reach.look(None, [SERVER]) is None and reach.look("/proc/0/net", [SERVER]) is None
