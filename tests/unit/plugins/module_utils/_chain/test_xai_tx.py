# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, IntegrityError

# What an XAI node itself made of seeded keys: amounts whole and broken, inputs, an output that is an integer, metadata.
PUBLIC = (
    "1b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"
    "70beaf8f588b541507fed6a642c5ab42dfdf8120a7f639de5122d47a69a8e8d1"
)
FROM_A_NODE = [
    {
        "txid": "af841eafd3bb28709b8aae29a31d9ae824be7ffbd47deb7ae3e20a24ab5f2d14",
        "sender": "TXAIE047C8ffEb69e4F853676b3EFb1D59FE8D42bF46",
        "recipient": "TXAID4Bf432eEc169006ac4565a614f1ad27855260e3",
        "amount": 20.0,
        "fee": 0.25,
        "public_key": PUBLIC,
        "nonce": 0,
        "timestamp": 1700000000.125,
        "tx_type": "normal",
        "inputs": [],
        "outputs": [{"address": "TXAID4Bf432eEc169006ac4565a614f1ad27855260e3", "amount": 20.0}],
        "metadata": {},
    },
    {
        "txid": "9636aba807a81e251a47e359dc127fc5ec0b0656c0dcdee48a20083725e03c44",
        "sender": "TXAIE456Fc37a0aD020e1aE0F6D12F4aC51dD2b19264",
        "recipient": "TXAIeC2b8901f120864e99Ec3103e47Db398E1C97753",
        "amount": 7,
        "fee": 0,
        "nonce": 1,
        "timestamp": 1700000001.125,
        "tx_type": "normal",
        "inputs": [{"txid": "ab" * 32, "vout": 1}],
        "outputs": [
            {"address": "TXAIeC2b8901f120864e99Ec3103e47Db398E1C97753", "amount": 5},
            {"address": "TXAIeC2b8901f120864e99Ec3103e47Db398E1C97753", "amount": 1.75},
        ],
        "metadata": {"type": "governance_vote"},
    },
    {
        "txid": "b754ae649ddab0fbe82691aa31127860c0892cf3bab8c077e6e3a7cf459f2e7e",
        "sender": "TXAIf4EEAB4e83aB63c88d72Ba1D544f2fe9c1518173",
        "recipient": "TXAIa943e786Cf6A6b4618f50dF6fF1aDC5FF219023A",
        "amount": 0.1,
        "fee": 1e-07,
        "nonce": 2,
        "timestamp": 1700000002.125,
        "metadata": {},
    },
]


@pytest.mark.parametrize("tx", FROM_A_NODE)
def test_legacy_txid_is_what_a_node_computes(tx):
    assert xai_tx.txid(tx, xai_tx.LEGACY) == tx["txid"]
    assert xai_tx.txid(tx, xai_tx.LEGACY, "testnet") == tx["txid"]
    assert xai_tx.message(tx, xai_tx.LEGACY) == tx["txid"].encode()
    assert xai_tx.txid(tx, xai_tx.LEGACY, "mainnet") != tx["txid"]


def test_legacy_covers_neither_metadata_nor_type_and_full_covers_both():
    tx = FROM_A_NODE[0]
    other = {**tx, "metadata": {"type": "governance_vote"}, "tx_type": "governance_vote"}
    assert xai_tx.txid(tx, xai_tx.LEGACY) == xai_tx.txid(other, xai_tx.LEGACY)
    assert xai_tx.txid(tx, xai_tx.FULL, "c") != xai_tx.txid(other, xai_tx.FULL, "c")


@pytest.mark.parametrize(
    "field", ["sender", "recipient", "amount", "fee", "public_key", "nonce", "timestamp", "inputs", "outputs"]
)
def test_full_covers_every_field(field):
    tx = FROM_A_NODE[0]
    assert xai_tx.txid({**tx, field: "changed"}, xai_tx.FULL, "c") != xai_tx.txid(tx, xai_tx.FULL, "c")


def test_full_message_is_canonical_json_with_the_chain_in_it():
    tx = FROM_A_NODE[0]
    expected = {k: v for k, v in tx.items() if k not in ("txid", "signature")} | {"chain_id": "devnet-1"}
    body = json.dumps(expected, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    assert xai_tx.message(tx, xai_tx.FULL, "devnet-1") == body
    assert xai_tx.txid(tx, xai_tx.FULL, "devnet-1") == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("tx", "scheme", "chain", "word"),
    [
        (FROM_A_NODE[0], "full-v1", None, "chain's id"),
        (FROM_A_NODE[2], "full-v1", "c", "lacks public_key, tx_type, inputs, outputs"),
        ({"amount": 1}, "xai-legacy", None, "lacks sender, timestamp"),
        ({**FROM_A_NODE[0], "amount": "lots"}, "xai-legacy", None, "not an amount"),
        ({**FROM_A_NODE[0], "amount": float("nan")}, "xai-legacy", None, "not"),
        ({**FROM_A_NODE[0], "amount": float("nan")}, "full-v1", "c", "plain JSON"),
        (FROM_A_NODE[0], "md5", "c", "unknown signature scheme"),
    ],
)
def test_bad_input_says_what(tx, scheme, chain, word):
    with pytest.raises(InputError, match=word):
        xai_tx.message(tx, scheme, chain)


def test_the_output_a_node_adds_by_itself_is_hashed_and_not_drafted():
    tx = FROM_A_NODE[0]
    made = xai_tx.draft(public_key=PUBLIC, recipient=tx["recipient"], amount=20.0, fee=0.25, nonce=0, timestamp=tx["timestamp"])
    assert made["sender"] == tx["sender"]
    assert xai_tx.txid(made, xai_tx.LEGACY) == tx["txid"]
    assert made["outputs"] == []


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
    ],
)
def test_keccak_known_answers(data, digest):
    assert xai_tx.keccak_256(data).hex() == digest


@given(st.binary(max_size=400))
def test_keccak_permutation_agrees_with_sha3(data):
    """SHA3-256 is the same sponge with another padding byte: the permutation is checked against the standard library's."""
    rate = 136
    padded = bytearray(data) + b"\x06" + b"\0" * (rate - len(data) % rate - 1)
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), rate):
        for index in range(rate // 8):
            lanes[index] ^= int.from_bytes(padded[start + 8 * index : start + 8 * index + 8], "little")
        lanes = xai_tx._permute(lanes)
    assert b"".join(lane.to_bytes(8, "little") for lane in lanes[:4]) == hashlib.sha3_256(data).digest()


def test_addresses():
    sender = FROM_A_NODE[0]["sender"]
    assert xai_tx.address(PUBLIC) == sender
    assert xai_tx.checksummed(sender.lower()) == sender
    assert xai_tx.address(PUBLIC, "XAI") == xai_tx.checksummed("XAI" + sender[4:])
    assert xai_tx.belongs(sender.upper(), PUBLIC)
    assert not xai_tx.belongs(FROM_A_NODE[1]["sender"], PUBLIC)
    assert not xai_tx.belongs("xaitest1abc", PUBLIC)
    assert not xai_tx.belongs(sender, "zz")
    assert xai_tx.same_address(sender, sender.lower()) and not xai_tx.same_address(None, None)
    assert (xai_tx.context(sender), xai_tx.context("XAI" + sender[4:])) == ("testnet", "mainnet")
    with pytest.raises(InputError, match="not an address"):
        xai_tx.checksummed(sender + "0")
    with pytest.raises(InputError, match="128 hex digits"):
        xai_tx.address("04" + PUBLIC)


@given(st.integers(1, xai_tx.CURVE_ORDER - 1), st.integers(1, xai_tx.CURVE_ORDER - 1))
def test_signatures_are_low_and_come_back(r, s):
    low = min(s, xai_tx.CURVE_ORDER - s)
    assert xai_tx.signature_parts(xai_tx.raw_signature(r, s)) == (r, low)


@pytest.mark.parametrize("bad", ["", "zz", "00" * 64, "11" * 63, "11" * 32 + "ff" * 32, None])
def test_bad_signatures_are_refused(bad):
    with pytest.raises(IntegrityError):
        xai_tx.signature_parts(bad)


@pytest.mark.parametrize("scheme", xai_tx.SCHEMES)
def test_signed_with_a_real_key_verifies(scheme):
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import utils

    key = ec.derive_private_key(int.from_bytes(b"\1" * 32, "big"), ec.SECP256K1())
    numbers = key.public_key().public_numbers()
    public = (numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")).hex()
    assert public == PUBLIC

    def sign(body: bytes) -> tuple[int, int]:
        return utils.decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))

    tx = xai_tx.signed(xai_tx.draft(public_key=public, nonce=3, timestamp=1.5), scheme, "testnet", sign)
    parts = xai_tx.signature_parts(tx["signature"])
    body = xai_tx.message(tx, scheme, "testnet")
    key.public_key().verify(utils.encode_dss_signature(*parts), body, ec.ECDSA(hashes.SHA256()))
    assert tx["txid"] == xai_tx.txid(tx, scheme, "testnet")
