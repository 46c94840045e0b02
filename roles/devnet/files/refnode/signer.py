# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The consensus key and its memory: what was signed last is on disk before a signature leaves the process."""

from __future__ import annotations

import os
import time
import typing as t

from . import block, canon, keys, layout

LAST_SIGNED = "finality/last_signed.json"
LOCK = "finality/lock.json"


class Refused(Exception):
    """Signing this would be signing at or below what was signed before."""


class Signer:
    """Signs each (height, round, step) at most once, in rising order, across restarts."""

    def __init__(self, data_dir: str, identity: t.Mapping[str, str], chain_id: str) -> None:
        self.address, self._private, self.public_key = identity["address"], identity["private_key"], identity["public_key"]
        self.chain_id = chain_id
        self.path = os.path.join(data_dir, LAST_SIGNED)
        self.lock_path = os.path.join(data_dir, LOCK)
        self.known = True  # False: there is no record, which is only harmless on a chain without blocks
        self.height, self.round, self.step, self.block_hash = 0, 0, 0, ""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._load()

    def _load(self) -> None:
        try:
            last = canon.read_json(self.path)
            if last["address"] != self.address:
                raise ValueError(f"it is of {last['address']}, this node signs as {self.address}")
            mark = (last["height"], last["round"], last["step"])
            if not all(isinstance(part, int) and not isinstance(part, bool) and part >= 0 for part in mark):
                raise ValueError("height, round and step must be whole numbers from 0")
            self.height, self.round, self.step = mark
            self.block_hash = str(last.get("block_hash", ""))
        except FileNotFoundError:
            self.known = False
        except (ValueError, KeyError, TypeError) as exc:
            raise layout.StorageError(
                f"{self.path} can't be trusted ({exc}); this node must not sign until it is put right"
            ) from exc

    @property
    def mark(self) -> tuple[int, int, int]:
        return self.height, self.round, self.step

    def hold_above(self, height: int) -> None:
        """Sign nothing up to and with this height (used where no record of earlier signatures exists)."""
        if (height, 2**31, block.PRECOMMIT) > self.mark:
            self._record(height, 2**31, block.PRECOMMIT, "")
        self.known = True

    def _record(self, height: int, round_: int, step: int, hash_: str) -> None:
        body = {
            "address": self.address,
            "height": height,
            "round": round_,
            "step": step,
            "block_hash": hash_,
            "updated": round(time.time(), 3),
        }
        canon.write_file(self.path, canon.dumps(body).encode() + b"\n", mode=0o600)
        self.height, self.round, self.step, self.block_hash = height, round_, step, hash_

    def _sign(self, height: int, round_: int, step: int, hash_: str, message: bytes) -> str:
        if (height, round_, step) <= self.mark:
            raise Refused(f"asked to sign {(height, round_, step)}, signed {self.mark} before")
        self._record(height, round_, step, hash_)
        return keys.ed_sign(self._private, message)

    def vote(self, height: int, round_: int, step: int, hash_: str) -> dict[str, t.Any]:
        """A signed prevote or precommit. Raises Refused."""
        signature = self._sign(height, round_, step, hash_, block.vote_message(self.chain_id, height, round_, step, hash_))
        return {
            "type": "vote",
            "height": height,
            "round": round_,
            "step": step,
            "block_hash": hash_,
            "address": self.address,
            "signature": signature,
        }

    def proposal(self, height: int, round_: int, valid_round: int, body: dict[str, t.Any]) -> dict[str, t.Any]:
        """A signed proposal. Raises Refused."""
        message = block.proposal_message(self.chain_id, height, round_, valid_round, body["hash"])
        signature = self._sign(height, round_, block.PROPOSE, body["hash"], message)
        return {
            "type": "proposal",
            "height": height,
            "round": round_,
            "valid_round": valid_round,
            "block": body,
            "address": self.address,
            "signature": signature,
        }

    # -- the lock: what this node must stand by within a height, also after a restart -----------------------------------------

    def save_lock(self, height: int, round_: int, body: dict[str, t.Any]) -> None:
        canon.write_file(
            self.lock_path, canon.dumps({"height": height, "round": round_, "block": body}).encode() + b"\n", mode=0o600
        )

    def load_lock(self, height: int) -> tuple[int, dict[str, t.Any] | None]:
        """(round, block) locked at this height, (-1, None) when there is none."""
        try:
            lock = canon.read_json(self.lock_path)
            if lock["height"] == height:
                return lock["round"], lock["block"]
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as exc:
            raise layout.StorageError(
                f"{self.lock_path} can't be read ({exc}); this node must not sign until it is put right"
            ) from exc
        return -1, None
