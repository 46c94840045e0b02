# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Canonical JSON and digests.

Canonical form: UTF-8, keys sorted by code point, no white space, ASCII escapes, no NaN or infinity. It is what Python's
``json.dumps(sort_keys=True, separators=(",", ":"))`` writes. Everything that is hashed or signed by us goes through here.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from .errors import IntegrityError

# Made once: json.dumps makes one for each call.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def dumps(value: t.Any) -> bytes:
    """Canonical bytes of a JSON value. Raises ValueError for NaN, infinities and values JSON doesn't know."""
    return _ENCODER.encode(value).encode("ascii")


def pretty(value: t.Any) -> bytes:
    """The same value for people: indented, sorted, with a final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def digest(value: t.Any) -> str:
    """SHA-256 of the canonical form, lower-case hex."""
    return hashlib.sha256(dumps(value)).hexdigest()


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes, lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str, block: int = 1 << 20) -> str:
    """SHA-256 of a file's content, lower-case hex; reads ``block`` bytes at a time."""
    state = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(block):
            state.update(chunk)
    return state.hexdigest()


def _pairs(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _value in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice!r}")
    return result


def _constant(text: str) -> t.NoReturn:
    raise ValueError(f"{text} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {text[:40]}")
    return value


def _int(text: str) -> int:
    if len(text) > 78:  # 256 bits; longer ones exist only to hurt the reader
        raise ValueError(f"integer too long: {len(text)} digits")
    return int(text)


def loads(data: bytes | str, what: str = "JSON document") -> t.Any:
    """Parse strictly: duplicate keys, NaN, infinities, overflowing floats and huge integers are refused.

    Raises IntegrityError naming ``what``.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except (ValueError, RecursionError) as exc:
        raise IntegrityError(f"{what} is not valid JSON: {exc}") from exc
