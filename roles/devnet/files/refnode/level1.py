# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage level 1, XAI's own: blocks as lines of JSON, coins in ``utxo_set.json``, nonces and governance in JSON beside it."""

from __future__ import annotations

import os
import typing as t

from . import canon, layout
from .state import State

LEVEL = 1
ROLL = 16 * 1024 * 1024
UTXO, NONCES, GOVERNANCE = "utxo_set.json", "nonces/nonces.json", "governance_state.json"
FILES = (UTXO, NONCES, GOVERNANCE)


class Blocks(layout.BlockFiles):
    def __init__(self, data_dir: str) -> None:
        super().__init__(data_dir, ".json", ROLL)

    def encode(self, record: t.Mapping[str, t.Any]) -> bytes:
        return canon.dumps(record).encode("ascii") + b"\n"

    def decode(self, data: bytes) -> t.Any:
        return canon.loads(data)

    def split(self, data: bytes, name: str) -> tuple[list[int], int]:
        lengths, start = [], 0
        while (end := data.find(b"\n", start)) >= 0:
            lengths.append(end + 1 - start)
            start = end + 1
        return lengths, start


def state_files(state: State) -> dict[str, bytes]:
    """The state as this level writes it: {relative name: bytes}. The same state is always the same bytes."""
    head = {"height": state.height, "hash": state.block_hash}
    return {
        UTXO: canon.dumps({**head, "transactions": state.transactions, "balances": dict(state.balances)}).encode() + b"\n",
        NONCES: canon.dumps({**head, "nonces": dict(state.nonces)}).encode() + b"\n",
        GOVERNANCE: canon.dumps({**head, "governance": state.governance}).encode() + b"\n",
    }


def load_state(data_dir: str, promised: t.Mapping[str, t.Any]) -> State:
    """The saved state, checked against checksum.json. Raises StorageError."""
    parts = []
    for name in FILES:
        try:
            with open(os.path.join(data_dir, name), "rb") as handle:
                data = handle.read()
        except FileNotFoundError:
            raise layout.integrity(f"{name} is missing") from None
        if promised.get(name) != layout.file_entry(data):
            raise layout.integrity(f"{name} does not match {layout.CHECKSUM}")
        parts.append(canon.loads(data))
    utxo, nonces, gov = parts
    if len({(part["height"], part["hash"]) for part in parts}) != 1:
        raise layout.integrity("the state files are of different heights")
    state = State()
    state.load(utxo["height"], utxo["hash"], utxo["balances"], nonces["nonces"], gov["governance"], utxo["transactions"])
    return state


class Backend:
    """The state files of an open directory."""

    level = LEVEL

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self.blocks = Blocks(data_dir)

    def load(self, promised: t.Mapping[str, t.Any], height: int) -> State:
        return load_state(self.data_dir, promised)

    def save(self, state: State) -> None:
        files = state_files(state)
        entries = {name: layout.file_entry(data) for name, data in files.items()}
        files[layout.CHECKSUM] = layout.checksum_bytes(state.height, state.block_hash, LEVEL, self.blocks.entries(), entries)
        layout.replace_files(self.data_dir, files)
        state.dirty.clear()

    def close(self) -> None:
        self.blocks.close()
