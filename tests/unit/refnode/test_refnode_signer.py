# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refnode import keys, layout, signer
from refnode.block import PRECOMMIT, PREVOTE

IDENTITY = keys.identity("33" * 32)
A, B = "a" * 64, "b" * 64


@pytest.fixture
def fresh(tmp_path):
    return lambda: signer.Signer(str(tmp_path), IDENTITY, "unit-1")


def test_nothing_is_signed_at_or_below_the_mark(fresh):
    one = fresh()
    one.vote(5, 1, PREVOTE, A)
    for height, round_, step, hash_ in ((5, 1, PREVOTE, B), (5, 1, PREVOTE, A), (5, 0, PRECOMMIT, A), (4, 9, PRECOMMIT, A)):
        with pytest.raises(signer.Refused):
            one.vote(height, round_, step, hash_)
        with pytest.raises(signer.Refused):
            fresh().vote(height, round_, step, hash_)  # after a restart as well
    assert fresh().vote(5, 1, PRECOMMIT, A)["signature"]


def test_the_mark_is_on_disk_before_the_signature_exists(fresh, tmp_path, monkeypatch):
    one = fresh()

    def sign(_key, _message):
        raise KeyboardInterrupt  # ended between writing and signing

    monkeypatch.setattr(keys, "ed_sign", sign)
    with pytest.raises(KeyboardInterrupt):
        one.vote(7, 0, PREVOTE, A)
    body = json.loads((tmp_path / signer.LAST_SIGNED).read_bytes())
    assert (body["height"], body["round"], body["step"], body["block_hash"], body["address"]) == (
        7,
        0,
        PREVOTE,
        A,
        IDENTITY["address"],
    )
    assert (tmp_path / signer.LAST_SIGNED).stat().st_mode & 0o777 == 0o600


def test_it_is_synced_before_it_is_used(fresh, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda _handle: order.append("fsync"))
    monkeypatch.setattr(keys, "ed_sign", lambda _key, _message: order.append("sign") or "00")
    one = fresh()
    one.vote(1, 0, PREVOTE, A)
    assert order[-1] == "sign" and "fsync" in order[:-1]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"address":"x","height":1,"round":0,"step":1}', b'{"height":-1}', b"\xff"]
)
def test_a_damaged_record_stops_the_node(fresh, tmp_path, content):
    (tmp_path / "finality").mkdir()
    (tmp_path / signer.LAST_SIGNED).write_bytes(content)
    with pytest.raises(layout.StorageError, match="must not sign"):
        fresh()


def test_a_mark_raised_from_outside_is_kept(fresh, tmp_path):
    fresh().vote(3, 0, PREVOTE, A)
    path = tmp_path / signer.LAST_SIGNED
    path.write_text(
        json.dumps({"address": IDENTITY["address"], "height": 50, "round": 2, "step": 3, "block_hash": "", "updated": 0})
    )
    with pytest.raises(signer.Refused):
        fresh().vote(50, 2, PRECOMMIT, A)
    assert fresh().vote(50, 3, PREVOTE, A)


def test_without_a_record_a_height_is_left_out(fresh):
    one = fresh()
    assert not one.known
    one.hold_above(9)
    with pytest.raises(signer.Refused):
        one.vote(9, 1000, PRECOMMIT, A)
    assert one.vote(10, 0, PREVOTE, A)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from([2, 3]), st.sampled_from([A, B])), max_size=25)
)
def test_no_sequence_of_requests_and_restarts_signs_twice(tmp_path_factory, asked):
    folder = tmp_path_factory.mktemp("s")
    one, signed = signer.Signer(str(folder), IDENTITY, "unit-1"), {}
    for number, (height, round_, step, hash_) in enumerate(asked):
        if number % 3 == 2:
            one = signer.Signer(str(folder), IDENTITY, "unit-1")
        try:
            one.vote(height, round_, step, hash_)
        except signer.Refused:
            continue
        assert (height, round_, step) not in signed and all((height, round_, step) > mark for mark in signed)
        signed[(height, round_, step)] = hash_


def test_the_lock_outlives_a_restart(fresh):
    fresh().save_lock(4, 1, {"hash": A})
    assert fresh().load_lock(4) == (1, {"hash": A})
    assert fresh().load_lock(5) == (-1, None)
