# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import (
    InputError,
    IntegrityError,
    Refused,
    Unreachable,
    WaitTimeout,
)
from ansible_collections.chainops.validator.plugins.module_utils._gateway import reach, receipt
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Sample, Wish, drained
from ansible_collections.chainops.validator.plugins.module_utils._gateway.haproxy import HAProxy, parse
from ansible_collections.chainops.validator.plugins.module_utils._gateway.protocol import Look, Server
from ansible_collections.chainops.validator.plugins.module_utils._gateway.registry import driver


class Ticks(Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


def server(backend: str = "api", name: str = "a", **changes: t.Any) -> Server:
    base = Server(backend, name, f"10.0.0.{ord(name[0])}:8545", "ready", True, True, 100, 100, False, 0, 0, 0)
    return dataclasses.replace(base, **changes)


class Gateway:
    """A gateway of memory: ``events`` maps a look's number to what happens right before it."""

    name = "memory"
    can_maintain = can_end_sessions = live_weights = True

    def __init__(self, *servers: Server, left: dict[str, int] | None = None) -> None:
        self.servers = {s.label: s for s in servers}
        self.left: dict[str, int] | None = left if left is not None else {}
        self.generation, self.age = 1, 1e6
        self.forgets = ""
        self.old: dict[int, dict[str, int]] = {}
        self.looks = 0
        self.orders: list[str] = []
        self.events: dict[int, t.Callable[[], None]] = {}

    def look(self) -> Look:
        self.looks += 1
        self.events.get(self.looks, lambda: None)()
        return Look(str(self.generation), self.age, tuple(self.servers.values()), self.left, old=self.old)

    def set_state(self, backend: str, server: str, state: str) -> None:
        self.orders.append(f"{backend}/{server} {state}")
        self.change(f"{backend}/{server}", state=state)

    def set_weight(self, backend: str, server: str, weight: int) -> None:
        self.orders.append(f"{backend}/{server} weight {weight}")
        self.change(f"{backend}/{server}", weight=weight)

    def outlasts(self, backend: str, server: str) -> str:
        return self.forgets

    def end_sessions(self, backend: str, server: str) -> int:
        self.orders.append(f"{backend}/{server} end")
        self.change(f"{backend}/{server}", sessions=0)
        ended = sum(sum(held.values()) for held in self.old.values())
        self.left, self.old = {}, {}
        return ended

    def change(self, label: str, **changes: t.Any) -> None:
        self.servers[label] = dataclasses.replace(self.servers[label], **changes)


@pytest.fixture
def wish(tmp_path: pathlib.Path) -> Wish:
    return Wish("a", None, "gw1", str(tmp_path / "receipts"), "val1", "turn-1", 7, timeout=5.0)


def pair(**changes: t.Any) -> Gateway:
    return Gateway(server(**changes), server(name="b"))


def saved(wish: Wish) -> dict[str, t.Any]:
    return json.loads((pathlib.Path(wish.receipt_dir) / "a.json").read_text())


FLIGHT = st.tuples(st.integers(0, 2), st.none() | st.integers(0, 1), st.booleans(), st.booleans())


@given(st.lists(FLIGHT, max_size=30), st.integers(1, 6))
def test_drained_means_k_empty_samples_in_a_row_at_the_end(flights: list[tuple[int, int | None, bool, bool]], k: int) -> None:
    samples = [Sample(float(i), n, left, out, sure) for i, (n, left, out, sure) in enumerate(flights)]
    last = samples[-k:]
    expected = len(last) == k and all(s.in_flight == 0 and not s.left_behind and s.out and s.certain for s in last)
    assert drained(samples, k) is expected


def test_zero_samples_are_never_enough() -> None:
    assert not drained([], 0)
    assert not drained([Sample(0, 0, 0, True, True)], 0)


def test_a_single_zero_between_requests_is_not_empty(wish: Wish) -> None:
    gateway = pair(sessions=4)
    for look, flying in ((3, 0), (4, 2), (5, 0), (6, 0), (7, 1), (8, 0)):
        gateway.events[look] = lambda flying=flying: gateway.change("api/a", sessions=flying)
    result = Drain(gateway, wish, Ticks()).out()
    assert gateway.looks == 10
    assert [n for _, n in result["drain"]["curve"]] == [0, 2, 0, 1, 0]
    assert result["receipt"]["state"] == "drained" and result["receipt"]["turn_id"] == "turn-1"
    assert result["receipt"]["before"] == {"api": {"state": "ready", "weight": 100}}
    assert saved(wish) == result["receipt"]


def test_the_record_is_on_disk_before_the_gateway_is_touched(wish: Wish) -> None:
    gateway = pair()
    orders: list[str] = []

    def spy(backend: str, name: str, state: str) -> None:
        orders.append(saved(wish)["state"])
        gateway.change(f"{backend}/{name}", state=state)

    gateway.set_state = spy  # type: ignore[method-assign]
    Drain(gateway, wish, Ticks()).out()
    assert orders == ["draining"]


def test_draining_again_changes_nothing_and_keeps_what_was(wish: Wish) -> None:
    gateway = pair(weight=30)
    Drain(gateway, wish, Ticks()).out()
    again = Drain(gateway, dataclasses.replace(wish, turn_id="turn-2", fence_token=8), Ticks()).out()
    assert again["before"] == again["after"]
    assert gateway.orders == ["api/a drain"]
    assert saved(wish)["before"] == {"api": {"state": "ready", "weight": 30}}
    assert saved(wish)["turn_id"] == "turn-2"


def test_a_reload_that_re_enables_the_server_is_answered_and_counted(wish: Wish) -> None:
    gateway = pair(sessions=2)

    def reload() -> None:
        gateway.generation += 1
        gateway.left = {server().address: 2}
        gateway.change("api/a", state="ready", sessions=0, weight=50)

    gateway.events = {4: reload, 8: lambda: gateway.left.clear() if gateway.left else None}
    result = Drain(gateway, wish, Ticks()).out()
    assert (result["drain"]["reloads"], result["drain"]["reasserted"]) == (1, 1)
    assert gateway.looks >= 10, "requests with the old process count, although the new one says zero"
    assert gateway.servers["api/a"].state == "drain"


def test_after_a_reload_the_weight_comes_back_too(wish: Wish) -> None:
    gateway = pair(weight=30)
    Drain(gateway, wish, Ticks()).out()
    gateway.change("api/a", weight=100)  # what a reload does to a weight set at run time
    Drain(gateway, wish, Ticks()).back()
    assert (gateway.servers["api/a"].weight, gateway.servers["api/a"].state) == (30, "ready")


def test_unseen_old_processes_are_not_taken_for_none(wish: Wish) -> None:
    gateway = pair()
    gateway.left, gateway.age = None, 1.0
    with pytest.raises(WaitTimeout, match="can't be seen from here"):
        Drain(gateway, wish, Ticks()).out()
    gateway.age = wish.timeout + 1
    assert Drain(gateway, wish, Ticks()).out()["drain"]["in_flight"] == 0


def test_a_timeout_fails_tells_what_is_left_and_puts_back(wish: Wish) -> None:
    gateway = pair(sessions=3, queued=1, weight=40)
    with pytest.raises(WaitTimeout, match=r"4 in flight.*in rotation again") as caught:
        Drain(gateway, wish, Ticks()).out()
    assert caught.value.fields["left"] == {"api": {"sessions": 3, "queued": 1}}
    assert caught.value.fields["put_back"] is True
    assert gateway.servers["api/a"].state == "ready"
    assert saved(wish)["state"] == "active"


def test_a_gateway_that_dies_while_draining_is_reported_as_perhaps_still_drained(wish: Wish) -> None:
    gateway = pair(sessions=1)

    def die() -> None:
        raise Unreachable("refused", url="x")

    gateway.events = dict.fromkeys(range(4, 10_000), die)
    with pytest.raises(WaitTimeout, match="could NOT be put back") as caught:
        Drain(gateway, wish, Ticks()).out()
    assert caught.value.fields["put_back"] is False
    assert saved(wish)["state"] == "draining", "whoever comes next still knows how it was"


def test_a_moment_without_an_answer_is_no_zero(wish: Wish) -> None:
    gateway = pair()

    def away() -> None:
        raise Unreachable("refused", url="x")

    gateway.events = {5: away}
    Drain(gateway, wish, Ticks()).out()
    assert gateway.looks == 8


@pytest.mark.parametrize("others", [{"state": "maint"}, {"state": "drain"}, {"up": False}, {"weight": 0}])
def test_the_last_server_that_takes_traffic_stays(wish: Wish, others: dict[str, t.Any]) -> None:
    gateway = Gateway(server(), server(name="b", **others))
    with pytest.raises(Refused, match=r"0 server\(s\)"):
        Drain(gateway, wish, Ticks()).out()
    assert gateway.orders == [] and not (pathlib.Path(wish.receipt_dir) / "a.json").exists()


def test_a_floor_of_two_counts_the_others(wish: Wish) -> None:
    with pytest.raises(Refused, match="at least 2"):
        Drain(pair(), dataclasses.replace(wish, min_active=2), Ticks()).out()


@pytest.mark.parametrize("was", ["drain", "maint"])
def test_a_server_that_was_out_before_stays_out_after(wish: Wish, was: str) -> None:
    gateway = pair(state=was)
    result = Drain(gateway, wish, Ticks()).out()
    assert result["before"] == result["after"] and gateway.orders == []
    gateway.change("api/a", up=False)
    back = Drain(gateway, wish, Ticks()).back()
    assert back["before"] == back["after"] and gateway.servers["api/a"].state == was


def test_every_backend_that_has_the_server_is_drained_and_put_back(wish: Wish) -> None:
    gateway = Gateway(server(), server(name="b"), server("ws"), server("ws", "b"), server("other", "b"))
    Drain(gateway, wish, Ticks()).out()
    assert gateway.orders == ["api/a drain", "ws/a drain"]
    Drain(gateway, wish, Ticks()).back()
    assert gateway.orders[2:] == ["api/a ready", "ws/a ready"]
    assert Drain(gateway, wish, Ticks()).back()["drain"] is None, "the second time there is nothing to do"


def test_maint_closes_the_door_to_sticky_clients_and_checks_again_before_opening(wish: Wish) -> None:
    gateway = pair()
    sticky = dataclasses.replace(wish, mode="maint")
    Drain(gateway, sticky, Ticks()).out()
    assert gateway.orders == ["api/a drain", "api/a maint"]
    gateway.change("api/a", confirmed=False)
    gateway.events = {gateway.looks + 5: lambda: gateway.change("api/a", confirmed=True)}
    Drain(gateway, sticky, Ticks()).back()
    assert gateway.orders[2:] == ["api/a drain", "api/a ready"]


def test_a_server_that_is_not_up_gets_no_traffic(wish: Wish) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()
    gateway.change("api/a", up=False)
    with pytest.raises(WaitTimeout, match="stays drained"):
        Drain(gateway, wish, Ticks()).back()
    assert gateway.servers["api/a"].state == "drain" and saved(wish)["state"] == "drained"


def test_what_somebody_else_drained_is_not_ours_to_put_back(wish: Wish) -> None:
    gateway = pair(state="drain")
    result = Drain(gateway, wish, Ticks()).back()
    assert result["before"] == result["after"] and gateway.orders == []


def test_the_last_receipt_tells_the_whole_drain(wish: Wish) -> None:
    gateway = pair()
    out = Drain(gateway, wish, Ticks()).out()["receipt"]
    back = Drain(gateway, wish, Ticks()).back()["receipt"]
    assert back["state"] == "active" and back["drained_at"] == out["drained_at"] and back["restored_at"]["wall"]
    assert (back["samples"], back["seconds"], back["reloads"]) == (3, out["seconds"], 0)


def test_an_older_rollout_that_wakes_up_late_is_refused(wish: Wish) -> None:
    gateway = pair()
    Drain(gateway, wish, Ticks()).out()
    late = dataclasses.replace(wish, fence_token=6)
    for act in (Drain(gateway, late, Ticks()).out, Drain(gateway, late, Ticks()).back):
        with pytest.raises(Refused, match="fencing token 6 is older than 7"):
            act()
    Drain(gateway, wish, Ticks()).back()
    with pytest.raises(Refused):
        Drain(gateway, late, Ticks()).out()


def test_check_mode_predicts_and_leaves_no_trace(wish: Wish) -> None:
    gateway = pair()
    result = Drain(gateway, wish, Ticks()).out(check_mode=True)
    assert result["before"]["api"]["state"] == "ready" and result["after"]["api"]["state"] == "drain"
    assert gateway.orders == [] and not pathlib.Path(wish.receipt_dir).exists()


def test_an_unknown_server_is_named_with_those_there_are(wish: Wish) -> None:
    with pytest.raises(InputError, match="there are: a, b"):
        Drain(pair(), dataclasses.replace(wish, server="c"), Ticks()).out()


@pytest.mark.parametrize("name", ["../evil", "a;disable server api/b", "a b", "", ".hidden", "a/b"])
def test_names_that_could_do_harm_are_refused(wish: Wish, name: str) -> None:
    with pytest.raises(InputError):
        Drain(pair(), dataclasses.replace(wish, server=name), Ticks()).out()
    with pytest.raises(InputError):
        HAProxy("/nowhere").set_state("api;x", name, "drain")


def test_a_spoilt_record_stops_us(wish: Wish) -> None:
    folder = pathlib.Path(wish.receipt_dir)
    folder.mkdir()
    (folder / "a.json").write_text('{"state": "drained"}')
    with pytest.raises(IntegrityError, match="put it right by hand"):
        Drain(pair(), wish, Ticks()).out()
    assert receipt.load(wish.receipt_dir, "b") is None


def test_long_requests_are_ended_at_their_deadline_and_reported(wish: Wish) -> None:
    gateway = Gateway(server(), server(name="b"), server("ws", sessions=2), server("ws", "b"))
    patient = dataclasses.replace(wish, long_backends=("ws",), long_deadline=1.0)
    result = Drain(gateway, patient, Ticks()).out()["drain"]
    assert result["ended"] == {"ws": 2} and 1.0 <= result["seconds"] < 1.2
    assert gateway.orders == ["api/a drain", "ws/a drain", "ws/a end"]


def leave_behind(gateway: Gateway, count: int) -> None:
    gateway.left, gateway.old = {server().address: count}, {4711: {server().address: count, "10.9.9.9:1": 5}, 4712: {}}


def test_what_a_replaced_process_holds_of_long_requests_is_ended_too_and_named(wish: Wish) -> None:
    gateway = Gateway(server(), server(name="b"), server("ws", sessions=2), server("ws", "b"))
    leave_behind(gateway, 3)
    patient = dataclasses.replace(wish, long_backends=("ws",), long_deadline=1.0)
    result = Drain(gateway, patient, Ticks()).out()["drain"]
    assert result["ended"] == {"ws": 10} and result["replaced"] == {"4711": 3} and result["seconds"] >= 1.0


def test_a_timeout_names_the_replaced_processes_that_still_hold_something(wish: Wish) -> None:
    gateway = pair()
    leave_behind(gateway, 3)
    with pytest.raises(WaitTimeout, match=r"3 left with a replaced process \(pid 4711\)") as caught:
        Drain(gateway, wish, Ticks()).out()
    assert caught.value.fields["replaced"] == {"4711": 3}


def test_other_requests_have_no_such_deadline(wish: Wish) -> None:
    gateway = Gateway(server(sessions=1), server(name="b"), server("ws"), server("ws", "b"))
    with pytest.raises(WaitTimeout, match="1 in flight"):
        Drain(gateway, dataclasses.replace(wish, long_backends=("ws",), long_deadline=1.0), Ticks()).out()
    assert "api/a end" not in gateway.orders


@pytest.mark.parametrize("lacks", ["can_maintain", "can_end_sessions"])
def test_what_a_gateway_cannot_do_is_said_before_it_is_touched(wish: Wish, lacks: str) -> None:
    gateway = pair()
    setattr(gateway, lacks, False)
    with pytest.raises(InputError):
        Drain(gateway, dataclasses.replace(wish, mode="maint", long_backends=("api",)), Ticks()).out()
    assert gateway.orders == [] and not (pathlib.Path(wish.receipt_dir) / "a.json").exists()


def test_a_refusal_halfway_puts_back_what_was_taken_out(wish: Wish) -> None:
    gateway = Gateway(server(), server(name="b"), server("ws"), server("ws", "b"))
    obey = gateway.set_state

    def balk(backend: str, name: str, state: str) -> None:
        if (backend, state) == ("ws", "drain"):
            raise Refused("no")
        obey(backend, name, state)

    gateway.set_state = balk  # type: ignore[method-assign]
    with pytest.raises(Refused, match="it stands as before") as caught:
        Drain(gateway, wish, Ticks()).out()
    assert caught.value.fields["put_back"] and gateway.servers["api/a"].state == "ready"
    assert saved(wish)["state"] == "active"


def test_a_slow_start_ends_with_exactly_the_weight_of_before(wish: Wish) -> None:
    gateway, clock = pair(weight=30), Ticks()
    Drain(gateway, wish, clock).out()
    gateway.orders.clear()
    began = clock.now
    Drain(gateway, dataclasses.replace(wish, slow_start=9.0), clock).back()
    weights = [int(order.split()[-1]) for order in gateway.orders if "weight" in order]
    assert weights == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert gateway.orders[:2] == ["api/a weight 3", "api/a ready"], "it never takes more than its share on the way"
    assert 9 <= clock.now - began < 10 and gateway.servers["api/a"].weight == 30


def test_a_fresh_receipt_keeps_when_the_drain_was(wish: Wish) -> None:
    gateway, clock = pair(sessions=1), Ticks()
    gateway.events[9] = lambda: gateway.change("api/a", sessions=0)
    first = Drain(gateway, wish, clock).out()["receipt"]
    again = Drain(gateway, wish, clock).out()["receipt"]
    assert {**again, "checked_at": None} == {**first, "checked_at": None}
    assert again["checked_at"]["boottime"] >= first["checked_at"]["boottime"]
    gateway.change("api/a", state="ready")
    third = Drain(gateway, wish, clock).out()["receipt"]
    assert third["seconds"] != first["seconds"], "a server that was let in meanwhile is drained anew"


def test_a_receipt_tells_from_where_the_gateway_comes(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, seen = pair(sessions=1), []

    def look(net: str | None, servers: t.Iterable[str]) -> dict[str, t.Any]:
        seen.append((net, list(servers)))
        address = "10.9.0.1" if len(seen) == 1 else "10.9.0.2"
        return {"source_addresses": [address], "connections": {address: [len(seen)]}, "same_host": False}

    monkeypatch.setattr(reach, "look", look)
    # The last look before the receipt is after the connections were listed: a request that came in between is not called idle.
    gateway.events = {6: lambda: gateway.change("api/a", sessions=0), 9: lambda: gateway.change("api/a", sessions=1)}
    gateway.events[10] = lambda: gateway.change("api/a", sessions=0)
    told = Drain(gateway, wish, Ticks()).out()["receipt"]
    assert seen == [(None, ["10.0.0.97:8545"])] * 3
    assert told["source_addresses"] == ["10.9.0.1", "10.9.0.2"] and told["connections"] == {"10.9.0.2": [3]}
    assert told["format"] == "chainops.drain/1", "whoever knows only the older fields reads it as before"


@pytest.mark.parametrize(
    ("forgets", "was", "safe"), [("", "ready", True), ("no file", "ready", False), ("no file", "drain", True)]
)
def test_whether_a_reload_would_let_it_in_is_said(wish: Wish, forgets: str, was: str, safe: bool) -> None:
    gateway = Gateway(server(state=was), server(name="b"), server("ws", state=was), server("ws", "b"))
    gateway.forgets = forgets
    done = Drain(gateway, wish, Ticks()).out()
    assert done["drain"]["reload_safe"] is safe is done["receipt"]["reload_safe"]
    assert done["drain"]["reload_why"] == ([] if safe else ["no file"])


def test_where_connections_cannot_be_seen_the_receipt_says_so(wish: Wish) -> None:
    told = Drain(pair(), wish, Ticks()).out()["receipt"]
    assert (told["source_addresses"], told["connections"], told["same_host"]) == (None, None, None)


def test_several_gateways_can_be_told_before_one_is_waited_for(wish: Wish) -> None:
    gateway, clock = pair(sessions=1), Ticks()
    told = Drain(gateway, dataclasses.replace(wish, wait=False), clock).out()
    assert gateway.orders == ["api/a drain"] and told["receipt"]["state"] == saved(wish)["state"] == "draining"
    assert told["before"] != told["after"] and clock.now == 0
    gateway.change("api/a", sessions=0)
    drained = Drain(gateway, wish, clock).out()
    assert gateway.orders == ["api/a drain"] and saved(wish)["before"] == {"api": {"state": "ready", "weight": 100}}
    again = Drain(gateway, dataclasses.replace(wish, wait=False), clock).out()
    assert again["receipt"] == drained["receipt"] == saved(wish), "what is known to be empty is not called in doubt"
    Drain(gateway, wish, clock).back()
    assert gateway.orders[1:] == ["api/a ready"]


def test_how_long_after_the_last_request_a_drain_ends_is_measured(wish: Wish) -> None:
    gateway = pair(sessions=1)
    gateway.events[9] = lambda: gateway.change("api/a", sessions=0)
    found = Drain(gateway, wish, Ticks()).out()["drain"]
    assert found["lag"] == pytest.approx(wish.samples * wish.interval)


@pytest.mark.parametrize("words", ["", "Permission denied\n", "<html>", "Pid: 3\n\n# pxname,svname\n"])
def test_an_answer_that_is_not_haproxys_is_no_answer(words: str) -> None:
    with pytest.raises(Unreachable):
        parse(words)


@pytest.mark.parametrize("endpoint", ["gw1", "gw1:0", "gw1:99999", ":80", "tcp:x"])
def test_addresses_that_are_none(endpoint: str) -> None:
    with pytest.raises(InputError):
        HAProxy(endpoint)


def test_drivers_are_known_by_name() -> None:
    assert driver("haproxy", "/x").name == "haproxy"
    assert driver("nginx", "/etc/nginx/nginx.conf").name == "nginx"
    with pytest.raises(InputError, match="known: haproxy"):
        driver("traefik", "/x")
