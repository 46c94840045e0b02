# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Canonical JSON, digests and durable files."""

from __future__ import annotations

import hashlib
import json
import os
import typing as t


def dumps(value: t.Any) -> str:
    """Sorted keys, no white space, ASCII escapes, no NaN: the text that is hashed, signed and stored."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: t.Any) -> str:
    """SHA-256 of the canonical text, lower-case hex."""
    return hashlib.sha256(dumps(value).encode("ascii")).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _constant(text: str) -> t.NoReturn:
    raise ValueError(f"{text} is not JSON")


def _pairs(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key in an object")
    return result


def loads(data: bytes | str) -> t.Any:
    """Strict JSON: duplicate keys, NaN, infinities and unpaired surrogates are refused. Raises ValueError."""
    try:
        value = json.loads(data, parse_constant=_constant, object_pairs_hook=_pairs)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return value


def write_file(path: str, data: bytes, *, mode: int | None = None, durable: bool = True) -> None:
    """Replace a file atomically; with ``durable`` it survives a power cut once this returns."""
    temporary = f"{path}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    handle = os.open(temporary, flags, 0o644 if mode is None else mode)
    try:
        os.write(handle, data) if len(data) < 65536 else _write_all(handle, data)
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, path)
    if durable:
        sync_dir(os.path.dirname(path))


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def sync_dir(path: str) -> None:
    handle = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: str) -> t.Any:
    """Raises FileNotFoundError or ValueError naming the path."""
    with open(path, "rb") as handle:
        data = handle.read()
    try:
        return loads(data)
    except ValueError as exc:
        raise ValueError(f"{path} is not valid JSON: {exc}") from exc
