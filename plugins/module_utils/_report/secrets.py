# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping secrets out of evidence, and finding them where they should not be.

By name (``api_key: …``) they are replaced wherever they are; by value they are looked for in everything that is about to be
written and in the files that the caller names. A value that is found is never repeated: only where it was.
"""

from __future__ import annotations

import base64
import json
import os
import re
import typing as t
import urllib.parse

from .._core import canonical
from .._core.errors import InputError, Refused

HIDDEN = "(hidden)"
_NAMES = re.compile(
    r"(?:^|[_-])(?:password|passwd|secret|token|api[_-]?keys?|private[_-]?key|authorization|cookie|credentials?|service[_-]?key"
    r"|mnemonic|seed|webhook(?:[_-]url)?|passphrase)$",
    re.IGNORECASE,
)
#: Names that only look like one.
_HARMLESS = frozenset({"fence_token", "token"})
_SHORTEST = 6


def redact(value: t.Any, name: str = "") -> t.Any:
    """A copy without what its name says is secret. A fencing token is a number, and stays."""
    if isinstance(value, dict):
        return {str(k): redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(v, name) for v in value]
    if value and _NAMES.search(name) and not (name in _HARMLESS and isinstance(value, int)):
        return HIDDEN
    return value


def forms(secret: str) -> set[bytes]:
    """How a secret may have been written down."""
    raw = secret.encode("utf-8")
    texts = {
        secret,
        json.dumps(secret)[1:-1],
        urllib.parse.quote(secret, safe=""),
        base64.b64encode(raw).decode("ascii").rstrip("="),
    }
    return {text.encode("utf-8") for text in texts}


def search(secrets: t.Iterable[str], blobs: t.Mapping[str, bytes]) -> list[str]:
    """Names of the blobs that hold one. Secrets that are too short to tell from chance are refused."""
    wanted: set[bytes] = set()
    for secret in secrets:
        if len(secret) < _SHORTEST:
            raise InputError(f"a secret of fewer than {_SHORTEST} characters can't be told from chance; leave it out")
        wanted |= forms(secret)
    return sorted(name for name, data in blobs.items() if any(form in data for form in wanted))


def scan(secrets: t.Sequence[str], evidence: t.Any, paths: t.Iterable[str], limit: int = 64 << 20) -> dict[str, t.Any]:
    """``{"secrets", "files", "bytes", "found"}``: what was looked for, where, and in which it was."""
    blobs = {"the evidence": canonical.dumps(evidence)}
    for path in paths:
        for name in sorted(_files(path)):
            with open(name, "rb") as stream:
                data = stream.read(limit + 1)
            if len(data) > limit:
                raise Refused(f"{name} is larger than {limit} bytes and can't be searched for secrets", path=name)
            blobs[name] = data
    given = sorted({s for s in secrets if s})
    return {
        "secrets": len(given),
        "files": len(blobs) - 1,
        "bytes": sum(map(len, blobs.values())),
        "found": search(given, blobs),
    }


def _files(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise InputError(f"{path} was to be searched for secrets, but is not there", path=path)
    return [os.path.join(root, name) for root, dummy, names in os.walk(path) for name in names]
