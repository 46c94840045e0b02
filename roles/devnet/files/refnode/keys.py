# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys: secp256k1 for transactions, Ed25519 for consensus, and addresses in XAI's legacy form.

``cryptography`` is imported where it is first needed, so that tools which only move files start without it.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import typing as t

from .keccak import keccak256

PREFIX = "TXAI"
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_ADDRESS = re.compile(r"TXAI[0-9a-fA-F]{40}\Z")


@functools.lru_cache(maxsize=65536)
def checksummed(raw_hex: str) -> str:
    """TXAI + 40 hex digits in mixed case: a letter is upper where the keccak-256 of the lower-case digits has a nibble >= 8."""
    lower = raw_hex.lower()
    marks = keccak256(lower.encode("ascii")).hex()
    return PREFIX + "".join(c.upper() if c.isalpha() and int(m, 16) >= 8 else c for c, m in zip(lower, marks))


@functools.lru_cache(maxsize=65536)
def address_of(public_key: str) -> str:
    """Address of a hex public key: the first 40 hex digits of its SHA-256, checksummed."""
    return checksummed(hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:40])


def is_address(text: t.Any) -> bool:
    """True for a well-formed address: right prefix and, where letters are in mixed case, the right checksum."""
    if not isinstance(text, str) or not _ADDRESS.match(text):
        return False
    body = text[len(PREFIX) :]
    return body in (body.lower(), body.upper()) or checksummed(body) == text


# -- transactions: secp256k1 ------------------------------------------------------------------------------------------------


def new_account() -> dict[str, str]:
    """A fresh account: {private_key, public_key, address}."""
    return account(f"{secrets.randbelow(_ORDER - 1) + 1:064x}")


def account(private_key: str) -> dict[str, str]:
    """The account of a hex private key."""
    public = public_key_of(private_key)
    return {"private_key": private_key, "public_key": public, "address": address_of(public)}


@functools.lru_cache(maxsize=4096)
def _private(private_key: str) -> t.Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.derive_private_key(int(private_key, 16), ec.SECP256K1())


@functools.lru_cache(maxsize=16384)
def _public(public_key: str) -> t.Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), b"\x04" + bytes.fromhex(public_key))


def public_key_of(private_key: str) -> str:
    """X||Y of the key's point, 64 bytes, hex."""
    numbers = _private(private_key).public_key().public_numbers()
    return (numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")).hex()


def sign(private_key: str, message: bytes) -> str:
    """ECDSA over SHA-256 of the message: raw r||s, low s, hex."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    r, s = utils.decode_dss_signature(_private(private_key).sign(message, ec.ECDSA(hashes.SHA256())))
    s = min(s, _ORDER - s)
    return (r.to_bytes(32, "big") + s.to_bytes(32, "big")).hex()


def verify(public_key: str, message: bytes, signature: str) -> bool:
    """False for anything but a canonical, valid signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    try:
        raw = bytes.fromhex(signature)
        if len(raw) != 64 or len(bytes.fromhex(public_key)) != 64:
            return False
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        if not (0 < r < _ORDER and 0 < s <= _ORDER // 2):
            return False
        _public(public_key).verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        return True
    except (InvalidSignature, ValueError, TypeError):
        return False


# -- consensus: Ed25519 -----------------------------------------------------------------------------------------------------


def new_identity() -> dict[str, str]:
    """A fresh consensus key: {address, public_key, private_key}, raw bytes in hex."""
    return identity(secrets.token_hex(32))


def identity(private_key: str) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private_key)).public_key().public_bytes_raw().hex()
    return {"address": address_of(public), "public_key": public, "private_key": private_key}


@functools.lru_cache(maxsize=64)
def _ed_private(private_key: str) -> t.Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private_key))


@functools.lru_cache(maxsize=1024)
def _ed_public(public_key: str) -> t.Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))


def ed_sign(private_key: str, message: bytes) -> str:
    return t.cast(bytes, _ed_private(private_key).sign(message)).hex()


@functools.lru_cache(maxsize=8192)
def ed_verify(public_key: str, message: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        _ed_public(public_key).verify(bytes.fromhex(signature), message)
        return True
    except (InvalidSignature, ValueError, TypeError):
        return False
