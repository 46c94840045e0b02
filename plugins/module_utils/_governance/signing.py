# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and signatures, on the controller alone: this is the only file here that needs more than the standard library.

The library is ``cryptography``. ``available()`` says whether it is there; whatever needs it says so when it isn't.
"""

from __future__ import annotations

import typing as t

from .._chain import xai_tx
from .._core import canonical
from .._core.errors import ChainopsError, InputError
from .._core.files import read_or_none
from .model import Record

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    _MISSING: str | None = None
except ImportError as exc:  # pragma: no cover - depends on the machine
    _MISSING = str(exc)


def available() -> bool:
    """Whether signatures can be made and verified here."""
    return _MISSING is None


def require() -> None:
    """Raises InputError that says what to install, and where."""
    if _MISSING is not None:
        raise InputError(
            "signatures need the Python library cryptography on the machine this module runs on (the controller; delegate the "
            f"task to localhost): {_MISSING}"
        )


class Key:
    """A private key on secp256k1. Shows nothing of itself."""

    def __init__(self, secret: int) -> None:
        require()
        if not 1 <= secret < xai_tx.CURVE_ORDER:
            raise InputError("the private key is not a number of the curve secp256k1")
        self._private = ec.derive_private_key(secret, ec.SECP256K1())
        numbers = self._private.public_key().public_numbers()
        self.public_key: str = (numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")).hex()

    def __repr__(self) -> str:
        return f"Key(public_key={self.public_key[:16]}…)"

    def address(self, prefix: str = "TXAI") -> str:
        return xai_tx.address(self.public_key, prefix)

    def secret_hex(self) -> str:
        """For whoever must keep it out of what is shown."""
        return format(self._private.private_numbers().private_value, "064x")

    def sign(self, message: bytes) -> tuple[int, int]:
        """ECDSA with SHA-256: r and s."""
        r, s = utils.decode_dss_signature(self._private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r, s


def load_key(text: str, where: str) -> Key:
    """A key from hex, or from JSON with ``private_key`` in hex. ``where`` names the source; the text never shows in messages."""
    text = text.strip()
    if text.startswith("{"):
        try:
            found = canonical.loads(text, where)
        except ChainopsError:
            raise InputError(f"{where} is not valid JSON") from None  # the parser's words may quote what it read
        inner = found.get("private_key") if isinstance(found, dict) else None
        if not isinstance(inner, str):
            raise InputError(f"{where} has no private_key")
        text = inner
    text = text.strip()
    text = text[2:] if text[:2] in ("0x", "0X") else text
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise InputError(f"{where} must hold a private key of 64 hex digits, or JSON with it as private_key")
    return Key(int.from_bytes(raw, "big"))


def load_key_file(path: str) -> Key:
    """A key from a file. Raises InputError when it can't be read."""
    try:
        data = read_or_none(path)
    except OSError as exc:
        raise InputError(f"key file {path}: {exc.strerror}", path=path) from exc
    if data is None:
        raise InputError(f"key file {path}: there is no such file", path=path)
    try:
        return load_key(data.decode("ascii"), f"key file {path}")
    except UnicodeDecodeError:
        raise InputError(f"key file {path} is not text", path=path) from None


def problem(tx: t.Mapping[str, t.Any], scheme: str, chain_id: str | None) -> str | None:
    """What is wrong with a transaction's id, sender or signature; None when all three hold."""
    require()
    sender, public_key, signature = tx.get("sender"), tx.get("public_key"), tx.get("signature")
    if not isinstance(sender, str) or not isinstance(public_key, str) or not isinstance(signature, str):
        return "it is not signed"
    try:
        if not xai_tx.belongs(sender, public_key):
            return "its public key is not its sender's"
        message = xai_tx.message(tx, scheme, chain_id)
        if tx.get("txid") != xai_tx.txid(tx, scheme, chain_id):
            return "its id is not that of its content"
        r, s = xai_tx.signature_parts(signature)
        raw = bytes.fromhex(public_key)
        x, y = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256K1()).public_key()
        public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except ChainopsError as exc:
        return exc.message
    except InvalidSignature:
        return "its signature does not verify"
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        return f"it can't be verified: {exc}"
    return None


def problems(records: t.Iterable[Record], scheme: str | None, chain_id: str | None) -> list[str] | None:
    """What is wrong with the signatures of records; None when nobody can tell here because the library is missing."""
    if not available() or scheme is None:
        return None
    found = []
    for record in records:
        words = problem(record.tx or {}, scheme, chain_id)
        if words is not None:
            found.append(f"{record.kind} {record.txid[:12]} at height {record.height}: {words}")
    return found
