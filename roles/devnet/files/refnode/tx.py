# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions: shape, identity and signature (scheme ``full-v1``).

The signed message is the canonical JSON of every field that means something, the chain's id among them; so neither metadata
nor type can be changed under a signature, and a transaction of one network is void on another.
"""

from __future__ import annotations

import decimal
import hashlib
import typing as t

from . import canon, keys

SCHEME = "full-v1"
UNIT = 100_000_000  # base units in one coin
MAX_BYTES = 65_536
SIGNED = ("sender", "recipient", "amount", "fee", "public_key", "nonce", "timestamp", "tx_type", "inputs", "outputs", "metadata")
FIELDS = (*SIGNED, "txid", "signature")


class Rejected(Exception):
    """A transaction that the network doesn't take. ``code`` is what the API answers with."""

    def __init__(self, code: str, message: str, **context: t.Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = context


def message(tx: t.Mapping[str, t.Any], chain_id: str) -> bytes:
    return canon.dumps({**{name: tx[name] for name in SIGNED}, "chain_id": chain_id}).encode("ascii")


def txid(tx: t.Mapping[str, t.Any], chain_id: str) -> str:
    return hashlib.sha256(message(tx, chain_id)).hexdigest()


def units(value: t.Any, name: str = "amount") -> int:
    """Base units of a JSON number. Raises Rejected when it is negative, not a number, or finer than one base unit."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Rejected("invalid_payload", f"{name} must be a number", field=name)
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        raise Rejected("invalid_payload", f"{name} must be finite", field=name)
    exact = decimal.Decimal(repr(value)) * UNIT
    if exact < 0:
        raise Rejected("invalid_payload", f"{name} must not be negative", field=name)
    if exact > 10**26 or exact != exact.to_integral_value():
        raise Rejected("invalid_payload", f"{name} must be a multiple of 0.00000001", field=name)
    return int(exact)


def build(
    private_key: str,
    chain_id: str,
    *,
    recipient: str,
    amount: float,
    nonce: int,
    timestamp: float,
    fee: float = 0.0,
    tx_type: str = "normal",
    metadata: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """A signed transaction, ready for ``POST /send``."""
    public = keys.public_key_of(private_key)
    tx: dict[str, t.Any] = {
        "sender": keys.address_of(public),
        "recipient": recipient,
        "amount": amount,
        "fee": fee,
        "public_key": public,
        "nonce": nonce,
        "timestamp": timestamp,
        "tx_type": tx_type,
        "inputs": [],
        "outputs": [],
        "metadata": dict(metadata or {}),
    }
    tx["txid"] = txid(tx, chain_id)
    tx["signature"] = keys.sign(private_key, message(tx, chain_id))
    return tx


def parse(payload: t.Any, chain_id: str) -> dict[str, t.Any]:
    """The transaction in a request body, with defaults filled in. Raises Rejected with what is wrong; checks no signature."""
    if not isinstance(payload, dict):
        raise Rejected("invalid_payload", "the body must be a JSON object")
    missing = [
        n for n in ("sender", "recipient", "amount", "public_key", "nonce", "timestamp", "signature") if payload.get(n) is None
    ]
    if missing:
        raise Rejected("invalid_payload", f"missing: {', '.join(missing)}", missing=missing)
    defaults = {"fee": 0.0, "tx_type": "normal", "inputs": [], "outputs": [], "metadata": {}}
    given = {name: payload[name] for name in (*SIGNED, "signature") if payload.get(name) is not None}
    tx: dict[str, t.Any] = {**defaults, **given}
    check_shape(tx)
    expected = txid(tx, chain_id)
    if payload.get("txid") not in (None, expected):
        raise Rejected("txid_mismatch", "Transaction hash mismatch", expected=expected, provided=payload.get("txid"))
    tx["txid"] = expected
    return tx


def check_shape(tx: t.Mapping[str, t.Any]) -> None:
    """Types and bounds only. Raises Rejected."""
    for name in ("sender", "recipient"):
        if not keys.is_address(tx[name]):
            raise Rejected(
                "invalid_address", f"{name} is not an address of this network (TXAI and 40 hex digits with checksum)", field=name
            )
    for name, kind in (
        ("public_key", str),
        ("signature", str),
        ("tx_type", str),
        ("inputs", list),
        ("outputs", list),
        ("metadata", dict),
    ):
        if not isinstance(tx[name], kind):
            raise Rejected("invalid_payload", f"{name} has the wrong type", field=name)
    if isinstance(tx["nonce"], bool) or not isinstance(tx["nonce"], int) or not 0 <= tx["nonce"] < 2**53:
        raise Rejected("invalid_payload", "nonce must be a whole number from 0", field="nonce")
    if isinstance(tx["timestamp"], bool) or not isinstance(tx["timestamp"], (int, float)) or not 0 <= tx["timestamp"] < 2**40:
        raise Rejected("invalid_payload", "timestamp must be seconds since the epoch", field="timestamp")
    if tx["inputs"] or tx["outputs"]:
        raise Rejected("invalid_payload", "this network keeps coins by account: inputs and outputs must be empty", field="inputs")
    if len(tx["tx_type"]) > 40:
        raise Rejected("invalid_payload", "tx_type is too long", field="tx_type")
    units(tx["amount"], "amount")
    units(tx["fee"], "fee")
    try:
        size = len(canon.dumps(tx))
    except (ValueError, RecursionError) as exc:
        raise Rejected("invalid_payload", f"not representable as JSON: {exc}") from exc
    if size > MAX_BYTES:
        raise Rejected("invalid_payload", f"larger than {MAX_BYTES} bytes", size=size)


def check_signature(tx: t.Mapping[str, t.Any], chain_id: str) -> None:
    """Raises Rejected unless the sender's key signed exactly this transaction for exactly this chain."""
    try:
        sender = keys.address_of(tx["public_key"])
    except ValueError as exc:
        raise Rejected("invalid_signature", "public_key is not hex", sender=tx["sender"]) from exc
    if sender != tx["sender"]:
        raise Rejected("invalid_signature", "public_key does not belong to sender", sender=tx["sender"])
    if not keys.verify(tx["public_key"], message(tx, chain_id), tx["signature"]):
        raise Rejected("invalid_signature", "Invalid signature", sender=tx["sender"])


def check_complete(tx: t.Any, chain_id: str) -> None:
    """Everything that can be checked without chain state, for a transaction inside a block or from a peer. Raises Rejected."""
    if not isinstance(tx, dict) or set(tx) != set(FIELDS):
        raise Rejected("invalid_payload", "a transaction must have exactly the fields of the scheme")
    check_shape(tx)
    if tx["txid"] != txid(tx, chain_id):
        raise Rejected("txid_mismatch", "Transaction hash mismatch")
    check_signature(tx, chain_id)
