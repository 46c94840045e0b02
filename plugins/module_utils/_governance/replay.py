# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Governance rebuilt from the transactions in blocks, in block order, from one node.

What a node says about its own governance is never asked: only blocks count.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._chain.protocol import Block, NodeClient
from .._core import canonical
from .._core.errors import IntegrityError
from .model import KINDS, Record, record_of


@dataclasses.dataclass(frozen=True)
class Walk:
    """Blocks ``first`` to ``last`` of one node, linked: their governance transactions, and the last block's hash and time."""

    first: int
    last: int
    hash: str
    time: float
    records: tuple[Record, ...]


def extract(block: Block) -> tuple[Record, ...]:
    """The governance transactions of a block, by the chain's own criterion: one of the six types, and some proposal id."""
    found = []
    for index, tx in enumerate(block.transactions):
        metadata = tx.get("metadata")
        if not isinstance(metadata, dict):
            continue
        kind = metadata.get("type")
        if not isinstance(kind, str) or kind not in KINDS or not metadata.get("proposal_id"):
            continue
        found.append(record_of(block.height, index, tx))
    return tuple(found)


def walk(
    client: NodeClient,
    first: int,
    last: int,
    previous_hash: str | None = None,
    each: t.Callable[[Block], None] | None = None,
) -> Walk:
    """Read blocks ``first`` to ``last`` (inclusive) and check that each one follows from the one before.

    ``previous_hash`` is the hash the first one must follow from; None leaves that open (the first block has none). ``each`` is
    called with every block. Raises IntegrityError for a block that isn't the one asked for or doesn't follow.
    """
    records: list[Record] = []
    expected, stamp = previous_hash, 0.0
    height = first - 1
    for height, block in enumerate(client.blocks(first, last), first):
        if block.height != height:
            raise IntegrityError(f"asked for block {height}, got block {block.height}", height=height)
        if expected is not None and block.previous_hash != expected:
            raise IntegrityError(
                f"block {height} follows {_short(block.previous_hash)}, but block {height - 1} is {_short(expected)}",
                height=height,
            )
        expected, stamp = block.hash, block.time
        records.extend(extract(block))
        if each is not None:
            each(block)
    if expected is None or height != last:
        raise IntegrityError(f"asked for blocks {first} to {last}, got them up to {height}")
    return Walk(first, last, expected, stamp, tuple(records))


def records_digest(records: t.Iterable[Record]) -> str:
    """One digest of what several governance transactions say and where they stand."""
    return canonical.digest([[record.height, record.index, record.sha256] for record in records])


def difference(theirs: t.Sequence[Record], agreed: t.Sequence[Record]) -> str | None:
    """Where one account of governance departs from the agreed one, in words; None where it doesn't."""
    mine = {(record.height, record.index): record for record in theirs}
    others = {(record.height, record.index): record for record in agreed}
    for place in sorted(set(mine) | set(others)):
        here, there = mine.get(place), others.get(place)
        if here is None and there is not None:
            return f"hides {there.kind} {_short(there.txid)} of block {place[0]}"
        if here is not None and there is None:
            return f"shows {here.kind} {_short(here.txid)} in block {place[0]}, which the others don't have"
        if here is not None and there is not None and here.sha256 != there.sha256:
            fields = sorted(
                name
                for name in set(here.tx or {}) | set(there.tx or {})
                if (here.tx or {}).get(name) != (there.tx or {}).get(name)
            )
            return f"shows {there.kind} {_short(there.txid)} of block {place[0]} with another {', '.join(fields) or 'content'}"
    return None


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:12] + "…"
