# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refnode import keys, tx
from refnode.keccak import keccak256

CHAIN = "unit-1"
KEY = "11" * 32
OTHER = keys.account("22" * 32)


def made(**more):
    return tx.build(KEY, CHAIN, **{"recipient": OTHER["address"], "amount": 1.5, "nonce": 0, "timestamp": time.time(), **more})


def test_keccak_is_the_original_one():
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    assert keccak256(b"a" * 135) != keccak256(b"a" * 136) != keccak256(b"a" * 137)


def test_addresses_carry_a_checksum():
    address = OTHER["address"]
    assert keys.is_address(address) and keys.is_address(address[:4] + address[4:].lower())
    letter = next(i for i, c in enumerate(address) if i >= 4 and c.isalpha())
    assert not keys.is_address(address[:letter] + address[letter].swapcase() + address[letter + 1 :])
    for bad in (None, 5, "", "TXAI", "XAI" + address[4:], address + "0", address[:-1] + "g", address + "\n"):
        assert not keys.is_address(bad)


def test_what_is_signed_verifies_and_survives_a_round_trip():
    entry = made(metadata={"type": "x", "deep": {"list": [1, 2.5, None, "é"]}})
    parsed = tx.parse(entry, CHAIN)
    assert parsed == entry
    tx.check_complete(parsed, CHAIN)


@pytest.mark.parametrize("field", tx.SIGNED)
def test_the_signature_covers_every_field(field):
    entry = made(metadata={"vote": "yes"})
    changed = {
        "amount": 1.25,
        "fee": 0.5,
        "nonce": 1,
        "timestamp": entry["timestamp"] + 1,
        "tx_type": "other",
        "metadata": {"vote": "no"},
        "recipient": entry["sender"],
        "sender": OTHER["address"],
        "public_key": OTHER["public_key"],
        "inputs": [{"txid": "0"}],
        "outputs": [{"address": "0"}],
    }[field]
    with pytest.raises(tx.Rejected):
        forged = {**entry, field: changed}
        forged["txid"] = tx.txid(forged, CHAIN)
        tx.check_complete(forged, CHAIN)


def test_a_transaction_of_another_chain_is_void():
    with pytest.raises(tx.Rejected) as caught:
        tx.check_complete(made(), "another")
    assert caught.value.code == "txid_mismatch"


def test_a_high_s_signature_is_refused():
    entry = made()
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int(entry["signature"][64:], 16)
    assert not keys.verify(entry["public_key"], tx.message(entry, CHAIN), entry["signature"][:64] + f"{s:064x}")


@pytest.mark.parametrize(
    "change",
    [
        {"amount": -1},
        {"amount": math.inf},
        {"amount": math.nan},
        {"amount": True},
        {"amount": "1"},
        {"amount": 0.000000001},
        {"amount": 1e300},
        {"fee": -0.5},
        {"nonce": -1},
        {"nonce": 1.0},
        {"nonce": 2**60},
        {"timestamp": "now"},
        {"recipient": "somebody"},
        {"recipient": 7},
        {"metadata": []},
        {"inputs": [{}]},
        {"tx_type": "x" * 41},
        {"metadata": {"blob": "x" * 70_000}},
        {"signature": 5},
    ],
)
def test_nonsense_is_refused_with_a_reason(change):
    with pytest.raises(tx.Rejected) as caught:
        tx.parse({**made(), "txid": None, **change}, CHAIN)
    assert caught.value.code in ("invalid_payload", "invalid_address") and caught.value.message


@given(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(),
        st.lists(st.integers()),
        st.dictionaries(
            st.sampled_from(tx.FIELDS),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(),
                st.lists(st.integers()),
                st.dictionaries(st.text(), st.integers()),
            ),
        ),
    )
)
def test_parse_never_fails_otherwise(payload):
    with pytest.raises(tx.Rejected):
        tx.parse(payload, CHAIN)


@given(st.integers(0, 10**15))
def test_units_are_exact(base):
    assert tx.units(base / tx.UNIT) == base or base > 2**53
    assert tx.units(19.99) + tx.units(0.01) == tx.units(20)
