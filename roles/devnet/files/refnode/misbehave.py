# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Misbehaviour on demand, for tests; nothing of it is ever on by itself.

Switched on by ``REFNODE_MISBEHAVE`` (``stall,slow=200``) or by ``misbehave.json`` at the release's root (``{"stall": true}``),
so that a bad *release* can be built. The environment wins where both name a switch.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import typing as t

from . import block as blocks
from . import governance, release

SWITCHES: dict[str, type] = {
    "refuse_health": bool,
    "stall": bool,
    "stall_at": int,
    "fork": bool,
    "leak": float,
    "slow": float,
    "errors": float,
    "lie_governance": str,
    "slow_stop": float,
    "die_at_start": bool,
    "no_metrics": bool,
    "break_contract": str,
}
DEFAULTS: dict[str, t.Any] = {
    "leak": 4.0,
    "slow": 500.0,
    "errors": 20.0,
    "lie_governance": "flip",
    "slow_stop": 30.0,
    "break_contract": "rename",
}
#: What each text switch takes.
CHOICES = {
    "lie_governance": ("flip", "omit", "rehash"),
    "break_contract": ("rename", "null", "empty", "yes", "order"),
}


@dataclasses.dataclass(frozen=True)
class Misbehaviour:
    """What this process does wrong. The defaults do nothing wrong."""

    refuse_health: bool = False  # /health answers 503
    stall: bool = False  # starts, says healthy, never follows the chain
    stall_at: int | None = None  # follows up to this height only
    fork: bool = False  # serves other hashes from its first own height on, and neither proposes nor votes
    leak: float = 0.0  # MiB of memory lost a second
    slow: float = 0.0  # milliseconds added to each API answer
    errors: float = 0.0  # percent of API answers that are a 500; not those about itself
    lie_governance: str = ""  # flip: votes turned round; omit: "no" votes left out; rehash: flipped, with hashes to match
    slow_stop: float = 0.0  # seconds a stop takes longer
    die_at_start: bool = False  # exits 1 before it opens anything
    no_metrics: bool = False  # /metrics is 404
    break_contract: str = (
        ""  # rename: a field; null: in place of a number; empty: 200 {} for what isn't there; yes: 200 to all; order
    )

    def any(self) -> dict[str, t.Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}


def parse(text: str) -> dict[str, t.Any]:
    """``a,b=1`` as a dict. Raises ValueError for a switch that doesn't exist."""
    found: dict[str, t.Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        found[name] = value if equals else True
    return clean(found)


def clean(raw: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    result: dict[str, t.Any] = {}
    for name, value in raw.items():
        kind = SWITCHES.get(name)
        if kind is None:
            raise ValueError(f"unknown misbehaviour {name!r}; known: {', '.join(SWITCHES)}")
        if value is False or value is None:
            continue
        if value is True and kind is not bool:
            if name not in DEFAULTS:
                raise ValueError(f"misbehaviour {name} needs a value, as in {name}=10")
            value = DEFAULTS[name]
        result[name] = value if kind is bool and value is True else kind(value)
    for name, choices in CHOICES.items():
        if name in result and result[name] not in choices:
            raise ValueError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}")
    return result


def load() -> Misbehaviour:
    path = os.path.join(release.ROOT, "misbehave.json")
    found: dict[str, t.Any] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as handle:
            found |= clean(json.load(handle))
    found |= parse(os.environ.get("REFNODE_MISBEHAVE", ""))
    return Misbehaviour(**found)


def break_contract(way: str, path: str, status: int, body: t.Any) -> tuple[int, t.Any]:
    """What becomes of an answer to a read: its status, and its JSON body (None for one that is no JSON)."""
    if way == "rename" and path == "/stats":
        return status, {("connected" if name == "peers" else name): value for name, value in body.items()}
    if way == "null" and path == "/stats":
        return status, {**body, "difficulty": None}
    if way == "order" and path == "/blocks" and status == 200:
        return status, {**body, "blocks": body["blocks"][::-1]}
    if (way == "empty" and status == 404 and path.startswith(("/blocks/", "/block/", "/transaction/"))) or way == "yes":
        return 200, {}
    return status, body


def _lie(entry: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    altered = copy.deepcopy(dict(entry))
    metadata = altered["metadata"]
    if "vote" in metadata:
        metadata["vote"] = {"yes": "no", "no": "yes"}.get(metadata["vote"], "yes")
    if "approved" in metadata:
        metadata["approved"] = not metadata["approved"]
    if isinstance(metadata.get("proposal_payload"), dict):
        metadata["proposal_payload"] = {**metadata["proposal_payload"], "note": "altered"}
    return altered


class Face:
    """The blocks as this node shows them to the outside: the true ones, unless it is told to lie."""

    def __init__(self, ways: Misbehaviour, height: int) -> None:
        self.ways = ways
        self.fork_from = max(height, 1)
        self._forged: dict[int, dict[str, t.Any]] = {}

    def show(self, block: dict[str, t.Any], previous: t.Callable[[int], dict[str, t.Any]]) -> dict[str, t.Any]:
        """``previous`` returns the true block of a height."""
        if self.ways.lie_governance and any(governance.kind(entry) for entry in block["transactions"]):
            kept = block["transactions"]
            if self.ways.lie_governance == "omit":
                kept = [entry for entry in kept if entry["metadata"].get("vote") != "no"]
            else:
                kept = [_lie(entry) if governance.kind(entry) else entry for entry in kept]
            block = {**block, "transactions": kept}
            if self.ways.lie_governance == "rehash":
                block["merkle_root"] = blocks.merkle_root(kept)
                block["hash"] = blocks.block_hash(block)
        if self.ways.fork and block["index"] >= self.fork_from:
            return self._forge(block, previous)
        return block

    def _forge(self, block: dict[str, t.Any], previous: t.Callable[[int], dict[str, t.Any]]) -> dict[str, t.Any]:
        for height in range(self.fork_from, block["index"] + 1):
            if height not in self._forged:
                true = previous(height)
                fake = {**true, "timestamp": round(true["timestamp"] + 0.5, 3)}
                if height > self.fork_from:
                    fake["previous_hash"] = self._forged[height - 1]["hash"]
                fake["hash"] = blocks.block_hash(fake)
                self._forged[height] = fake
        return self._forged[block["index"]]
