# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core import tcp
from ansible_collections.chainops.validator.plugins.module_utils._host import clients

PORT = 8545


def row(remote: str, port: int, *, state: str = "01", queued: bool = False, local_port: int = PORT) -> tcp.Row:
    return tcp.Row("10.0.0.9", local_port, remote, port, state, queued, "0")


def receipt(**changes: t.Any) -> dict[str, t.Any]:
    told = {"source_addresses": ["10.0.0.5"], "connections": {"10.0.0.5": [4000]}, "same_host": False}
    return {"gateway": "gw1", "driver": "haproxy", **told, **changes}


@pytest.mark.parametrize(
    ("rows", "busy", "idle", "gateway"),
    [
        ([], (), 0, clients.UNSEEN),
        ([row("10.0.0.5", 4000)], (), 1, clients.SEEN),
        ([row("10.0.0.5", 4001)], ("10.0.0.5",), 0, clients.SEEN),
        # What was kept for later has work again.
        ([row("10.0.0.5", 4000, queued=True)], ("10.0.0.5",), 0, clients.SEEN),
        # A connection that is over still shows that its address comes here as it is.
        ([row("10.0.0.5", 4001, state="06")], (), 0, clients.SEEN),
        ([row("10.0.0.7", 4000)], (), 0, clients.UNSEEN),
        ([row("10.0.0.5", 4001, local_port=22)], (), 0, clients.UNSEEN),
    ],
)
def test_what_comes_from_a_gateway_is_a_request_unless_its_receipt_says_otherwise(
    rows: list[tcp.Row], busy: tuple[str, ...], idle: int, gateway: str
) -> None:
    found = clients.look(rows, PORT, [receipt()])
    assert (found.busy, found.idle, found.gateways) == (busy, idle, {"gw1": gateway})


def test_a_new_connection_that_waits_for_nothing_is_no_request() -> None:
    rest = {("10.0.0.5", 4001)}
    assert clients.look([row("10.0.0.5", 4001)], PORT, [receipt()], at_rest=rest).busy == ()
    assert clients.look([row("10.0.0.5", 4001, queued=True)], PORT, [receipt()], at_rest=rest).busy == ("10.0.0.5",)
    # The operator's own addresses are to be gone, whatever they do.
    assert clients.look([row("10.0.0.5", 4001)], PORT, [receipt()], ["10.0.0.5"], at_rest=rest).busy == ("10.0.0.5",)


def test_a_receipt_of_an_older_version_is_read_and_stands_alone() -> None:
    for old in ({"gateway": "gw1", "driver": "haproxy"}, receipt(source_addresses=None, connections=None, same_host=None)):
        found = clients.look([row("10.0.0.5", 4001)], PORT, [old])
        assert (found.busy, found.gateways) == ((), {"gw1": clients.UNTOLD})
        assert "doesn't say from where" in clients.words(found.gateways, [old])[0]


def test_what_the_operator_lists_is_looked_for_as_well_and_kept_connections_count() -> None:
    rows = [row("10.0.0.5", 4000), row("10.0.0.6", 5000)]
    assert clients.look(rows, PORT, [receipt()], ["::ffff:10.0.0.6"]).busy == ("10.0.0.6",)
    assert clients.look(rows, PORT, [receipt()], ["10.0.0.5"]).busy == ("10.0.0.5",)
    assert clients.look([row("127.0.0.1", 1)], PORT, [], ["127.0.0.1"]).busy == ("127.0.0.1",)


def test_a_node_that_paused_itself_is_no_gateway() -> None:
    found = clients.look([], PORT, [receipt(driver="node", gateway="node val1")])
    assert found.gateways == {} and clients.words(found.gateways, [receipt(driver="node")]) == []


def test_of_a_gateway_on_this_host_its_programs_connections_count_and_no_others() -> None:
    local = receipt(source_addresses=[], connections={"127.0.0.1": [4000]}, same_host=True)
    both = [
        tcp.Row("127.0.0.1", port, "127.0.0.1", PORT, "01", False, inode)
        for port, inode in ((4000, "1"), (4001, "2"), (4002, "3"))
    ]
    both += [tcp.Row("127.0.0.1", PORT, one.local, one.local_port, "01", False, "0") for one in both]
    # Another validator at the same port is not this one.
    both.append(tcp.Row("10.0.0.9", 4003, "10.0.0.8", PORT, "01", False, "1"))
    assert clients.look(both, PORT, [local], held_by={"haproxy": {"1", "2"}}.__getitem__).busy == ("127.0.0.1",)
    found = clients.look(both, PORT, [local], held_by={"haproxy": {"1"}}.__getitem__)
    assert (found.busy, found.idle, found.total, found.gateways) == ((), 1, 3, {"gw1": clients.HERE})
    assert clients.words(found.gateways, [local]) == []


@pytest.mark.parametrize(("had", "says"), [({"10.0.0.5": [4000]}, "1 connection"), ({}, "none open")])
def test_a_gateway_that_is_not_seen_is_said_to_be_unconfirmed(had: dict[str, list[int]], says: str) -> None:
    one = receipt(connections=had)
    (told,) = clients.words(clients.look([], PORT, [one]).gateways, [one])
    assert says in told and "stands alone" in told and "10.0.0.5" in told
    assert clients.words({"gw1": clients.SEEN}, [one]) == []


ENDS = st.tuples(st.sampled_from(["10.0.0.5", "10.0.0.6", "10.0.0.7"]), st.integers(1, 6))


@given(st.lists(ENDS, unique=True), st.lists(ENDS, unique=True), st.sets(st.sampled_from(["10.0.0.5", "10.0.0.6"])))
def test_nothing_from_a_gateway_is_overlooked(open_now: list[t.Any], told: list[t.Any], sources: set[str]) -> None:
    known: dict[str, list[int]] = {}
    for address, port in told:
        known.setdefault(address, []).append(port)
    found = clients.look([row(*end) for end in open_now], PORT, [receipt(source_addresses=sorted(sources), connections=known)])
    assert set(found.busy) == {address for address, port in open_now if address in sources and (address, port) not in told}
    assert found.idle == sum(1 for end in open_now if end[0] in sources and end in told)
