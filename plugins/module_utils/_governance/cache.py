# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What readers agreed on before, kept on the controller so that the next gate reads only new blocks.

It is used only where a reader still has the same block at the height it ends at, and only for a gate that asks for no more
readers than agreed back then. A damaged, foreign or older-format file is as good as none.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from .._core import canonical
from .._core.errors import ChainopsError
from .._core.files import make_dir, read_or_none, write_atomic
from .model import Record, record_of

_FORMAT = "chainops.governance-cache/2"


@dataclasses.dataclass(frozen=True)
class Known:
    """Every governance transaction from the first block to ``height``, as ``readers`` readers agreed on it.

    ``coins`` is the state of a ``Coins`` there, None where nobody counted.
    """

    genesis_hash: str
    height: int
    hash: str
    records: tuple[Record, ...]
    readers: int
    coins: t.Any = None


class Cache:
    """One file per chain in a directory of the controller."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def load(self, genesis_hash: str, needed: int, counted: bool = False) -> Known | None:
        """What is known of a chain, when at least ``needed`` readers agreed on it. With coins or without: one file each."""
        try:
            data = read_or_none(self._path(genesis_hash, counted))
            raw = None if data is None else canonical.loads(data, "governance cache")
            if not isinstance(raw, dict) or raw.pop("sha256", None) != canonical.digest(raw) or raw.get("format") != _FORMAT:
                return None
            records = tuple(map(_record, raw["records"]))
            known = Known(raw["genesis_hash"], raw["height"], raw["hash"], records, raw["readers"], raw["coins"])
        except (ChainopsError, OSError, KeyError, TypeError, ValueError):
            return None
        right = known.genesis_hash == genesis_hash and (known.coins is not None) is counted
        return known if right and known.readers >= needed else None

    def store(self, known: Known) -> None:
        """Keep it. A cache that can't be written costs time, nothing else."""
        raw: dict[str, t.Any] = {
            "format": _FORMAT,
            "genesis_hash": known.genesis_hash,
            "height": known.height,
            "hash": known.hash,
            "readers": known.readers,
            "coins": known.coins,
            "records": [{"height": r.height, "index": r.index, "tx": dict(r.tx or {})} for r in known.records],
        }
        raw["sha256"] = canonical.digest(raw)
        try:
            make_dir(self.directory, 0o700)
            write_atomic(self._path(known.genesis_hash, known.coins is not None), canonical.dumps(raw), 0o600)
        except OSError:
            return

    def _path(self, genesis_hash: str, counted: bool) -> str:
        name = re.sub(r"[^0-9A-Za-z]", "", genesis_hash)[:32]
        return os.path.join(self.directory, f"governance-{name}{'-coins' if counted else ''}.json")


class Memory(Cache):
    """The same for the life of this process, where nothing is to be kept."""

    def __init__(self) -> None:
        super().__init__("")
        self._known: dict[tuple[str, bool], Known] = {}

    def load(self, genesis_hash: str, needed: int, counted: bool = False) -> Known | None:
        known = self._known.get((genesis_hash, counted))
        return known if known is not None and known.readers >= needed else None

    def store(self, known: Known) -> None:
        self._known[(known.genesis_hash, known.coins is not None)] = known


def _record(raw: t.Mapping[str, t.Any]) -> Record:
    return record_of(raw["height"], raw["index"], raw["tx"])
