# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions of XAI-like chains as bytes: what is signed, what the txid covers, which address a key has.

No cryptography here: whoever holds a key signs ``message()`` with ECDSA over secp256k1 and SHA-256 and hands r and s to
``raw_signature()``. Two schemes:

``full-v1``     message = canonical JSON of everything, the chain's id among it; txid = SHA-256 of the message.
``xai-legacy``  what XAI nodes do: the txid is the SHA-256 of some fields (neither ``metadata`` nor ``tx_type`` nor
                ``public_key``), and the message is the txid's 64 hex digits as ASCII. Who relies on the metadata of such a
                transaction must read it from a block, through several readers.
"""

from __future__ import annotations

import decimal
import hashlib
import typing as t

from .._core import canonical
from .._core.errors import InputError, IntegrityError

FULL = "full-v1"
LEGACY = "xai-legacy"
SCHEMES = (FULL, LEGACY)

#: Order of the group of secp256k1 (SEC 2, version 2, section 2.4.1).
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

#: Address prefix and the chain context that XAI hashes for it, where the chain tells no id.
_CONTEXTS = {"TXAI": "testnet", "XAI": "mainnet"}

_FULL_FIELDS = (
    "sender",
    "recipient",
    "amount",
    "fee",
    "public_key",
    "nonce",
    "timestamp",
    "tx_type",
    "inputs",
    "outputs",
    "metadata",
)

Transaction = t.Mapping[str, t.Any]


def draft(
    *,
    public_key: str,
    nonce: int,
    timestamp: float,
    sender: str | None = None,
    recipient: str = "",
    amount: float = 0.0,
    fee: float = 0.0,
    tx_type: str = "normal",
    inputs: t.Sequence[Transaction] = (),
    outputs: t.Sequence[Transaction] = (),
    metadata: Transaction | None = None,
) -> dict[str, t.Any]:
    """A complete transaction without txid and signature. ``sender`` defaults to the key's own test network address.

    XAI nodes keep coins by output: name inputs and outputs there. The reference node keeps them by account: name none.
    """
    return {
        "sender": sender or address(public_key),
        "recipient": recipient,
        "amount": amount,
        "fee": fee,
        "public_key": public_key.lower(),
        "nonce": nonce,
        "timestamp": timestamp,
        "tx_type": tx_type,
        "inputs": [dict(spent) for spent in inputs],
        "outputs": [dict(output) for output in outputs],
        "metadata": dict(metadata or {}),
    }


def message(tx: Transaction, scheme: str, chain_id: str | None = None) -> bytes:
    """The bytes a signature of ``tx`` is over (ECDSA hashes them once more, with SHA-256).

    ``chain_id`` is what the node tells; None (XAI tells none) derives ``testnet`` or ``mainnet`` from the sender's address, and
    is refused for ``full-v1``. Raises InputError for a field that is missing or of the wrong kind.
    """
    if scheme == FULL:
        return _full(tx, chain_id)
    if scheme == LEGACY:
        return _legacy_digest(tx, chain_id).encode("ascii")
    raise InputError(f"unknown signature scheme {scheme!r}; known: {', '.join(SCHEMES)}", scheme=scheme)


def txid(tx: Transaction, scheme: str, chain_id: str | None = None) -> str:
    """The transaction's id, recomputed (never the one it claims); lower-case hex."""
    body = message(tx, scheme, chain_id)
    return body.decode("ascii") if scheme == LEGACY else hashlib.sha256(body).hexdigest()


def signed(tx: Transaction, scheme: str, chain_id: str | None, sign: t.Callable[[bytes], tuple[int, int]]) -> dict[str, t.Any]:
    """A copy of ``tx`` with txid and signature; ``sign`` gets the message and returns ECDSA's r and s."""
    r, s = sign(message(tx, scheme, chain_id))
    return {**tx, "txid": txid(tx, scheme, chain_id), "signature": raw_signature(r, s)}


def raw_signature(r: int, s: int) -> str:
    """r and s as 128 hex digits, s made low: high ones are refused, as anybody could flip them."""
    for name, value in (("r", r), ("s", s)):
        if not 1 <= value < CURVE_ORDER:
            raise InputError(f"signature component {name} is out of range")
    low = min(s, CURVE_ORDER - s)
    return (r.to_bytes(32, "big") + low.to_bytes(32, "big")).hex()


def signature_parts(signature: str) -> tuple[int, int]:
    """r and s of a raw signature. Raises IntegrityError for a wrong length, a component out of range, or a high s."""
    try:
        raw = bytes.fromhex(signature)
    except (ValueError, TypeError):
        raw = b""
    if len(raw) != 64:
        raise IntegrityError("a signature must be 128 hex digits (r and s, 32 bytes each)")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    if not 1 <= r < CURVE_ORDER or not 1 <= s <= CURVE_ORDER // 2:
        raise IntegrityError("a signature's r or s is out of range, or its s is high")
    return r, s


def address(public_key: str, prefix: str = "TXAI") -> str:
    """The address a public key (X and Y, 64 bytes, hex) signs for: prefix, 40 hex digits of its SHA-256, checksum in the case.

    The checksum is EIP-55's: a letter is upper case where the hex digit at the same place of Keccak-256(lower-case digits)
    is 8 or more.
    """
    try:
        raw = bytes.fromhex(public_key)
    except (ValueError, TypeError):
        raw = b""
    if len(raw) != 64:
        raise InputError("a public key must be 128 hex digits (X and Y without a prefix byte)")
    return checksummed(prefix + hashlib.sha256(raw).hexdigest()[:40])


def checksummed(text: str) -> str:
    """An address in its one right spelling. Raises InputError when it isn't a XAI/TXAI address with 40 hex digits."""
    prefix, digits = _split(text)
    mask = keccak_256(digits.encode("ascii")).hex()
    return prefix + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(digits, mask))


def same_address(one: str | None, other: str | None) -> bool:
    """Whether two spellings mean one address: the case carries only a checksum, and nodes differ in how they compute it."""
    return one is not None and other is not None and one.lower() == other.lower()


def belongs(sender: str, public_key: str) -> bool:
    """Whether an address is that of a public key. False, not an error, when either is malformed."""
    try:
        prefix, _digits = _split(sender)
        return same_address(address(public_key, prefix), sender)
    except InputError:
        return False


def context(sender: str) -> str:
    """What XAI mixes into a hash for the network an address belongs to: ``testnet`` or ``mainnet``."""
    return _CONTEXTS[_split(sender)[0]]


def _split(text: str) -> tuple[str, str]:
    prefix = "TXAI" if text[:4].upper() == "TXAI" else "XAI"
    digits = text[len(prefix) :].lower()
    if text[: len(prefix)].upper() != prefix or len(digits) != 40 or set(digits) - set("0123456789abcdef"):
        raise InputError(f"not an address: {text[:60]!r}; expected TXAI or XAI and 40 hex digits")
    return prefix, digits


def _full(tx: Transaction, chain_id: str | None) -> bytes:
    if not chain_id:
        raise InputError(f"scheme {FULL} needs the chain's id, and the node told none")
    missing = [name for name in _FULL_FIELDS if name not in tx]
    if missing:
        raise InputError(f"transaction lacks {', '.join(missing)}", missing=missing)
    try:
        return canonical.dumps({**{name: tx[name] for name in _FULL_FIELDS}, "chain_id": chain_id})
    except (ValueError, TypeError) as exc:
        raise InputError(f"transaction is not plain JSON: {exc}") from exc


def _legacy_digest(tx: Transaction, chain_id: str | None) -> str:
    missing = [name for name in ("sender", "amount", "timestamp") if name not in tx]
    if missing:
        raise InputError(f"transaction lacks {', '.join(missing)}", missing=missing)
    recipient = tx.get("recipient") or ""
    amount, fee = _money(tx["amount"], "amount"), _money(tx.get("fee") or 0.0, "fee")
    outputs = list(tx.get("outputs") or ())
    if not outputs and recipient and amount > 0:
        outputs = [{"address": recipient, "amount": amount}]
    try:
        return canonical.digest(
            {
                "chain_context": chain_id or context(tx["sender"]),
                "sender": tx["sender"],
                "recipient": recipient,
                "amount": amount,
                "fee": fee,
                "timestamp": float(tx["timestamp"]),
                "nonce": tx.get("nonce"),
                "inputs": list(tx.get("inputs") or ()),
                "outputs": outputs,
            }
        )
    except (ValueError, TypeError) as exc:
        raise InputError(f"transaction is not plain JSON: {exc}") from exc


def _money(value: t.Any, name: str) -> float:
    """Amounts the way XAI nodes read them: a float, cut after 18 decimals."""
    try:
        if isinstance(value, bool):
            raise TypeError("a boolean")
        return float(decimal.Decimal(str(value)).quantize(decimal.Decimal("1e-18"), rounding=decimal.ROUND_DOWN))
    except (decimal.InvalidOperation, TypeError, ValueError) as exc:
        raise InputError(f"{name} is not an amount: {value!r:.60}") from exc


def _rotate(lane: int, by: int) -> int:
    return ((lane << by) | (lane >> (64 - by))) & 0xFFFFFFFFFFFFFFFF if by else lane


def _round_constants() -> tuple[int, ...]:
    """The 24 constants of Keccak-f[1600], from their linear feedback register (Keccak reference 3.0, section 1.2)."""
    constants, register = [], 1
    for _round in range(24):
        constant = 0
        for power in range(7):
            if register & 1:
                constant |= 1 << ((1 << power) - 1)
            register = ((register << 1) ^ (0x171 if register & 0x80 else 0)) & 0xFF
        constants.append(constant)
    return tuple(constants)


_CONSTANTS = _round_constants()


def keccak_256(data: bytes) -> bytes:
    """Keccak-256 with the original padding (Keccak reference 3.0), which the standard library lacks: SHA-3 pads differently."""
    rate = 136
    padded = bytearray(data) + b"\x01" + b"\0" * (rate - len(data) % rate - 1)
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), rate):
        for index in range(rate // 8):
            at = start + 8 * index
            lanes[index] ^= int.from_bytes(padded[at : at + 8], "little")
        lanes = _permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


def _permute(a: list[int]) -> list[int]:
    for constant in _CONSTANTS:
        column = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
        parity = [column[x - 1] ^ _rotate(column[(x + 1) % 5], 1) for x in range(5)]
        a = [lane ^ parity[index % 5] for index, lane in enumerate(a)]
        x, y, moved = 1, 0, a[1]
        b = list(a)
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            b[x + 5 * y] = _rotate(moved, (step + 1) * (step + 2) // 2 % 64)
            moved = a[x + 5 * y]
        a = [b[i] ^ (~b[i - i % 5 + (i + 1) % 5] & b[i - i % 5 + (i + 2) % 5]) for i in range(25)]
        a[0] ^= constant
    return a
