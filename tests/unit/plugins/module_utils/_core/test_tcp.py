# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import time

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import tcp

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2161 0200000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 20 4 30 10 -1
   1: 0000000000000000FFFF00000300000A:2161 0000000000000000FFFF00000400000A:C351 06 00000000:00000010 00:00 0 0 0 0 1
   2: 000080FE000000000000000001000000:2161 B80D0120000000000000000001000000:C352 01 00000005:00000000 00:00 0 0 0 7 1
"""


def test_rows_are_read_as_people_write_addresses() -> None:
    first, mapped, six = tcp.parse(TABLE)
    assert first == tcp.Row("127.0.0.1", 8545, "10.0.0.2", 50000, "01", False, "4242") and first.established
    assert (mapped.local, mapped.remote, mapped.queued, mapped.established) == ("10.0.0.3", "10.0.0.4", True, False)
    assert tcp.parse(TABLE, {tcp.ESTABLISHED}) == [first, six]
    assert (six.local, six.remote, six.queued) == ("fe80::1", "2001:db8::1", True)


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("10.0.0.1", 80, "10.0.0.1:80"),
        ("::ffff:10.0.0.1", 80, "10.0.0.1:80"),
        ("2001:DB8::1", 80, "[2001:db8::1]:80"),
        ("[fe80::1%eth0]", 80, "[fe80::1]:80"),
        ("gateway", 80, "gateway:80"),
    ],
)
def test_a_place_is_written_in_one_way(host: str, port: int, text: str) -> None:
    assert tcp.place(host, port) == text
    assert tcp.parted(text) == (tcp.plain(host), port) and tcp.place(*(tcp.parted(text) or ("", 0))) == text


@pytest.mark.parametrize("text", ["unix", "unix:/run/x:80", "10.0.0.1", ":80", "10.0.0.1:http"])
def test_what_is_no_place(text: str) -> None:
    assert tcp.parted(text) is None


def test_the_kernels_table_has_our_own_connection_with_both_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        near = [row for row in tcp.table() if row.established and row.remote_port == port]
        assert [(row.local, row.local_port) for row in near] == [client.getsockname()]
    assert tcp.source_towards("127.0.0.1") == "127.0.0.1" and tcp.is_loopback("127.0.0.1") and not tcp.is_loopback("gateway")


@pytest.mark.parametrize(
    ("sent_ago", "received_ago", "sent", "received", "rests"),
    [
        (900, 900, 0, 0, True),  # connected, and nothing asked
        (4, 4, 0, 80, False),  # asked on a new connection
        (900, 4, 200, 160, False),  # asked again, on one that was kept
        (4, 900, 200, 160, True),
        (4, 4, 200, 80, True),
        (4, 4, 1, 80, False),  # what was acknowledged is the handshake's
    ],
)
def test_who_spoke_last(sent_ago: int, received_ago: int, sent: int, received: int, rests: bool) -> None:
    assert tcp.answered(sent_ago, received_ago, sent, received) is rests


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_tells_who_waits_for_an_answer(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        address = server.getsockname()[:2]
        ends = [socket.create_connection(address) for dummy in range(4)]
        accepted = [server.accept()[0] for dummy in ends]
        silent, asking, answered, again = ends
        for one, other in list(zip(ends, accepted))[2:]:
            one.send(b"GET")
            other.recv(8)
            other.send(b"200")
            one.recv(8)
        time.sleep(0.02)  # ticks of the kernel's clock
        for one, other in ((asking, accepted[1]), (again, accepted[3])):
            one.send(b"GET")
            other.recv(8)
        assert tcp.at_rest(address[1]) == {one.getsockname()[:2] for one in (silent, answered)}
        for one in (*ends, *accepted):
            one.close()
