# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tendermint's algorithm (arXiv:1807.04938), for one node.

Heights are decided one after the other. Within a height, rounds have a proposer each; a validator prevotes a proposal it finds
good, precommits (and locks on) a block that has more than two thirds of the prevotes, and a block with more than two thirds of
the precommits is final. The lock is on disk before the precommit is sent, so that a restart can't forget it.

Two additions. A validator that learns of a decision before it precommitted still signs for the decided block (as long as its
watermark allows), so that a slow machine isn't counted as missing. And the next proposer waits out the block interval, longer
while signatures of the last block are still missing, so that its commit is as full as can be.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
import typing as t

from . import block as blocks
from . import keys
from .block import PRECOMMIT, PREVOTE, PROPOSE
from .chain import Chain
from .signer import Refused, Signer

log = logging.getLogger("refnode.consensus")

NIL = ""
HISTORY = 20  # heights for which votes are remembered, to notice contradictions
BLOCK_BYTES = 1_000_000


def _fatal(call: t.Callable[..., None]) -> t.Callable[..., None]:
    """Whatever goes wrong inside the state machine (a full disk, say) ends the node: one that goes on in doubt is worse."""

    @functools.wraps(call)
    def guarded(self: Consensus, *arguments: t.Any) -> None:
        try:
            call(self, *arguments)
        except Exception as exc:
            self.stop()
            log.critical("consensus failed at height %d: %s", self.height, exc, exc_info=True)
            self.on_fatal(exc)

    return guarded


@dataclasses.dataclass
class Timing:
    """Seconds."""

    interval: float = 1.0
    propose: float = 0.8
    vote: float = 0.5
    growth: float = 0.4

    def wait(self, base: float, round_: int) -> float:
        return base + self.growth * min(round_, 10)


class Consensus:
    """The state machine. ``broadcast`` sends to every peer; ``on_commit`` hears of each block decided here."""

    def __init__(
        self,
        chain: Chain,
        signer: Signer | None,
        broadcast: t.Callable[[dict[str, t.Any]], None],
        on_commit: t.Callable[[dict[str, t.Any]], None],
        on_evidence: t.Callable[[dict[str, t.Any], dict[str, t.Any]], None],
        want_block: t.Callable[[], None],
        timing: Timing,
        version: int = 1,
    ) -> None:
        self.chain, self.signer, self.timing, self.version = chain, signer, timing, version
        self.validators = chain.genesis.validators
        self._broadcast, self._on_commit, self._on_evidence, self._want_block = broadcast, on_commit, on_evidence, want_block
        self.on_fatal: t.Callable[[Exception], None] = lambda exc: None
        self.active = True  # False: neither proposes nor votes, but follows
        self.running = False
        self.votes_cast = 0
        self.rounds_failed = 0
        self._seen: dict[tuple[int, int, int, str], dict[str, t.Any]] = {}
        self._future: list[dict[str, t.Any]] = []
        self._timer: dict[str, asyncio.TimerHandle] = {}
        self._last_start = 0.0
        self._reset(chain.height + 1)

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.running = True
        self.enter(self.chain.height + 1)

    def stop(self) -> None:
        self.running = False
        for timer in self._timer.values():
            timer.cancel()
        self._timer.clear()

    def _reset(self, height: int) -> None:
        self.height, self.round, self.step = height, -1, 0
        self.proposals: dict[int, tuple[dict[str, t.Any], int]] = {}  # round -> (block, valid round)
        self.raw_proposals: dict[int, dict[str, t.Any]] = {}
        self.votes: dict[tuple[int, int], dict[str, dict[str, t.Any]]] = {}  # (round, step) -> address -> vote
        self.locked_round, self.locked_block = -1, t.cast("dict[str, t.Any] | None", None)
        self.valid_round, self.valid_block = -1, t.cast("dict[str, t.Any] | None", None)
        self._verdicts: dict[str, bool] = {}
        self._done: set[tuple[str, int]] = set()

    @_fatal
    def enter(self, height: int) -> None:
        """Begin a height: after a decision, after blocks came from peers, at start."""
        for timer in self._timer.values():
            timer.cancel()
        self._timer.clear()
        self._reset(height)
        record = self.chain.record(height - 1)
        self.last_commit = record["commit"]
        self.last_signatures = {entry["address"]: entry["signature"] for entry in self.last_commit["signatures"]}
        if self.signer:
            self.locked_round, self.locked_block = self.signer.load_lock(height)
            self.valid_round, self.valid_block = self.locked_round, self.locked_block
        for key in [key for key in self._seen if key[0] < height - HISTORY]:
            del self._seen[key]
        if not self.running:
            return
        self._sign_late()
        now, loop = time.monotonic(), asyncio.get_running_loop()
        if self._last_start:
            due = self._last_start + self.timing.interval
        else:  # just started: pace by the tip's own time, within bounds (clocks may differ)
            due = now + min(max(record["block"]["timestamp"] + self.timing.interval - time.time(), 0.0), self.timing.interval)
        self._timer["start"] = loop.call_later(max(0.0, due - now), self._begin, now)
        future, self._future = self._future, []
        for message in future:
            self.receive(message)

    @_fatal
    def _begin(self, entered: float) -> None:
        """The interval is over. Wait on a little when signatures of the last block are still on their way."""
        patience = entered + self.timing.interval / 2
        missing = self.height > 1 and len(self.last_signatures) < len(self.validators.keys)
        if missing and time.monotonic() < patience:
            self._timer["start"] = asyncio.get_running_loop().call_later(0.02, self._begin, entered)
            return
        if self.round < 0:
            self._start_round(self._first_round())

    def _first_round(self) -> int:
        """0, or after a restart within a height the first round in which nothing was signed."""
        if self.signer and self.signer.height == self.height and self.signer.round < 2**31:
            return self.signer.round + 1
        return 0

    # -- rounds -------------------------------------------------------------------------------------------------------------

    def _start_round(self, round_: int) -> None:
        if not self.running:
            return
        if round_ == 0 or self.round < 0:
            self._last_start = time.monotonic()
        if round_ > 0:
            self.rounds_failed += 1
            log.info("height %d enters round %d", self.height, round_)
        self._cancel("start")
        self.round, self.step = round_, PROPOSE
        if self.signer and self.active and self.signer.address == self.validators.proposer(self.height, round_):
            self._propose()
        self._after("propose", self.timing.wait(self.timing.propose, round_), self._timeout_propose, round_)
        self.evaluate()

    def _after(self, name: str, seconds: float, call: t.Callable[..., None], *arguments: t.Any) -> None:
        self._cancel(name)
        self._timer[name] = asyncio.get_running_loop().call_later(seconds, call, *arguments)

    def _cancel(self, name: str) -> None:
        timer = self._timer.pop(name, None)
        if timer:
            timer.cancel()

    def _propose(self) -> None:
        assert self.signer is not None
        body = self.valid_block
        if body is None:
            parent = self.chain.tip()
            commit = blocks.commit(
                self.height - 1,
                self.last_commit["round"],
                self.last_commit["block_hash"],
                [{"address": a, "signature": s} for a, s in self.last_signatures.items()],
            )
            body = blocks.build(
                self.chain.genesis,
                self.chain.state,
                proposer=self.signer.address,
                round_=self.round,
                timestamp=max(round(time.time(), 3), round(parent["timestamp"] + 0.001, 3)),
                transactions=self.chain.mempool.select(blocks.MAX_TRANSACTIONS, BLOCK_BYTES),
                last_commit=commit,
                version=self.version,
            )
        try:
            message = self.signer.proposal(self.height, self.round, self.valid_round, body)
        except Refused as exc:
            log.warning("not proposing: %s", exc)
            return
        self._broadcast(message)
        self._accept(message)

    def _cast(self, step: int, hash_: str) -> None:
        """Vote, if there is a key, it is on, and its watermark allows."""
        self.step = step
        if not (self.signer and self.active):
            return
        try:
            message = self.signer.vote(self.height, self.round, step, hash_)
        except Refused as exc:
            log.info("not voting: %s", exc)
            return
        self.votes_cast += 1
        self._broadcast(message)
        self._accept(message)

    def _sign_late(self) -> None:
        """Sign for the block that was just decided, if this node hasn't."""
        if not (self.signer and self.active) or self.height < 2:
            return
        commit = self.last_commit
        if self.signer.address in self.last_signatures or self.signer.address not in self.validators.keys:
            return
        if (commit["height"], commit["round"], PRECOMMIT) <= self.signer.mark:
            return
        if not self.validators.quorum(self.last_signatures):
            return
        message = self.signer.vote(commit["height"], commit["round"], PRECOMMIT, commit["block_hash"])
        self.votes_cast += 1
        self.last_signatures[self.signer.address] = message["signature"]
        self._broadcast(message)

    @_fatal
    def _timeout_propose(self, round_: int) -> None:
        if self.running and self.round == round_ and self.step == PROPOSE:
            self._cast(PREVOTE, NIL)
            self.evaluate()

    @_fatal
    def _timeout_prevote(self, round_: int) -> None:
        if self.running and self.round == round_ and self.step == PREVOTE:
            self._cast(PRECOMMIT, NIL)
            self.evaluate()

    @_fatal
    def _timeout_precommit(self, round_: int) -> None:
        if self.running and self.round == round_:
            self._start_round(round_ + 1)

    # -- messages -----------------------------------------------------------------------------------------------------------

    def receive(self, message: t.Any) -> bool:
        """Take a vote or proposal from a peer. False when it is not valid. Never raises for what a peer may send."""
        try:
            if not self._check(message):
                return False
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        if self._accept(message) and self.running:
            self.evaluate()
        return True

    def _check(self, message: t.Any) -> bool:
        """Shape and signature."""
        key = self.validators.keys.get(message["address"])
        height, round_ = message["height"], message["round"]
        if key is None or type(height) is not int or type(round_) is not int or not 0 <= round_ < 10_000:
            return False
        if not self.height - HISTORY <= height <= self.height + 1_000_000:
            return False
        if message["type"] == "vote":
            step, hash_ = message["step"], message["block_hash"]
            if step not in (PREVOTE, PRECOMMIT) or not isinstance(hash_, str) or len(hash_) not in (0, 64):
                return False
            text = blocks.vote_message(self.chain.genesis.chain_id, height, round_, step, hash_)
        elif message["type"] == "proposal":
            body, valid = message["block"], message["valid_round"]
            if type(valid) is not int or not -1 <= valid < max(round_, 1) or body["hash"] != blocks.block_hash(body):
                return False
            if message["address"] != self.validators.proposer(height, round_):
                return False
            text = blocks.proposal_message(self.chain.genesis.chain_id, height, round_, valid, body["hash"])
        else:
            return False
        return keys.ed_verify(key, text, message["signature"])

    def _accept(self, message: dict[str, t.Any]) -> bool:
        """File a checked message. True when it may change something."""
        height, round_, address = message["height"], message["round"], message["address"]
        step = PROPOSE if message["type"] == "proposal" else message["step"]
        hash_ = message["block"]["hash"] if step == PROPOSE else message["block_hash"]
        if height > self.height + 1:
            return False
        before = self._seen.setdefault((height, round_, step, address), message)
        if before is not message:
            other = before["block"]["hash"] if step == PROPOSE else before["block_hash"]
            if other != hash_:
                self._on_evidence(before, message)
                return False
        if height == self.height + 1:
            if len(self._future) < 2000 and before is message:
                self._future.append(message)
            return False
        if height == self.height - 1:
            if step == PRECOMMIT and round_ == self.last_commit["round"] and hash_ == self.last_commit["block_hash"]:
                self.last_signatures[address] = message["signature"]
            return False
        if height != self.height:
            return False
        if step == PROPOSE:
            if round_ in self.proposals:
                return False
            self.proposals[round_] = (message["block"], message["valid_round"])
            self.raw_proposals[round_] = message
        else:
            self.votes.setdefault((round_, step), {})[address] = message
        return True

    def messages(self, height: int) -> list[dict[str, t.Any]]:
        """What a peer at this height may lack."""
        if height == self.height:
            found = [self.raw_proposals[r] for r in sorted(self.raw_proposals) if r >= self.round - 2 or r == self.valid_round]
            for (round_, _step), votes in sorted(self.votes.items()):
                if round_ >= self.round - 2 or round_ == self.valid_round:
                    found += list(votes.values())
            return found
        return []

    # -- the rules ----------------------------------------------------------------------------------------------------------

    def _voters(self, round_: int, step: int, hash_: str | None = None) -> list[str]:
        votes = self.votes.get((round_, step), {})
        return [a for a, vote in votes.items() if hash_ is None or vote["block_hash"] == hash_]

    def _quorum(self, round_: int, step: int, hash_: str | None = None) -> bool:
        return self.validators.quorum(self._voters(round_, step, hash_))

    def _valid(self, body: dict[str, t.Any]) -> bool:
        """Would this node build on it? Decided once a block."""
        verdict = self._verdicts.get(body["hash"])
        if verdict is None:
            try:
                self.chain.validate(body)
                verdict = body["timestamp"] <= time.time() + 10
                if not verdict:
                    log.warning("proposal of height %d is from the future", self.height)
            except blocks.Invalid as exc:
                log.warning("proposal of height %d refused: %s", self.height, exc)
                verdict = False
            self._verdicts[body["hash"]] = verdict
        return verdict

    @_fatal
    def evaluate(self) -> None:
        """Apply the rules until nothing changes."""
        while self.running and self._rule():
            pass

    def _once(self, name: str, round_: int) -> bool:
        if (name, round_) in self._done:
            return False
        self._done.add((name, round_))
        return True

    def _rule(self) -> bool:
        return (
            self._rule_decide() or self._rule_rounds() or self._rule_prevote() or self._rule_precommit() or self._rule_timeouts()
        )

    def _rule_decide(self) -> bool:
        for (round_, step), votes in self.votes.items():
            if step != PRECOMMIT:
                continue
            for hash_ in {vote["block_hash"] for vote in votes.values()} - {NIL}:
                if not self._quorum(round_, PRECOMMIT, hash_):
                    continue
                body = next((b for b, _valid in self.proposals.values() if b["hash"] == hash_), None)
                if body is None and self.valid_block is not None and self.valid_block["hash"] == hash_:
                    body = self.valid_block
                if body is None:
                    if self._once("want", round_):
                        self._want_block()
                    continue
                if not self._valid(body):
                    if self._once("void", round_):
                        log.critical("height %d: more than two thirds signed a block that is void here", self.height)
                    continue
                self._decide(body, round_, hash_)
                return True
        return False

    def _decide(self, body: dict[str, t.Any], round_: int, hash_: str) -> None:
        signatures = [
            {"address": a, "signature": vote["signature"]}
            for a, vote in self.votes[(round_, PRECOMMIT)].items()
            if vote["block_hash"] == hash_
        ]
        self.chain.commit(body, blocks.commit(self.height, round_, hash_, signatures), validated=True)
        self._on_commit(body)
        self.enter(self.height + 1)

    def _rule_rounds(self) -> bool:
        if self.round < 0 and 0 in self.proposals and self._first_round() == 0:
            self._start_round(0)  # the first proposal wakes a node that still waits out the interval
            return True
        ahead = sorted(
            {r for r, _step in self.votes if r > self.round} | {r for r in self.proposals if r > self.round}, reverse=True
        )
        for round_ in ahead:
            if round_ == 0 and self.round < 0:
                continue
            talkers = set(self._voters(round_, PREVOTE)) | set(self._voters(round_, PRECOMMIT))
            if self.validators.third(talkers):
                self._start_round(max(round_, self._first_round()))
                return True
        return False

    def _rule_prevote(self) -> bool:
        if self.step != PROPOSE or self.round not in self.proposals:
            return False
        body, valid_round = self.proposals[self.round]
        hash_ = body["hash"]
        locked = self.locked_block["hash"] if self.locked_block else None
        if valid_round >= 0 and not self._quorum(valid_round, PREVOTE, hash_):
            return False  # the polka it refers to may still arrive; the timeout ends the wait
        free = self.locked_round < 0 if valid_round < 0 else self.locked_round <= valid_round
        good = (free or locked == hash_) and self._valid(body)
        self._cancel("propose")
        self._cast(PREVOTE, hash_ if good else NIL)
        return True

    def _rule_precommit(self) -> bool:
        if self.step not in (PREVOTE, PRECOMMIT):
            return False
        if self.round in self.proposals:
            body, _valid_round = self.proposals[self.round]
            if self._quorum(self.round, PREVOTE, body["hash"]) and self._valid(body) and self._once("polka", self.round):
                self.valid_round, self.valid_block = self.round, body
                if self.step == PREVOTE:
                    self.locked_round, self.locked_block = self.round, body
                    if self.signer and self.active:
                        self.signer.save_lock(self.height, self.round, body)
                    self._cast(PRECOMMIT, body["hash"])
                return True
        if self.step == PREVOTE and self._quorum(self.round, PREVOTE, NIL):
            self._cast(PRECOMMIT, NIL)
            return True
        return False

    def _rule_timeouts(self) -> bool:
        if self.step == PREVOTE and self._quorum(self.round, PREVOTE) and self._once("prevote", self.round):
            self._after("prevote", self.timing.wait(self.timing.vote, self.round), self._timeout_prevote, self.round)
        if self.round >= 0 and self._quorum(self.round, PRECOMMIT, NIL):  # nothing can be decided in this round any more
            self._start_round(self.round + 1)
            return True
        if self.round >= 0 and self._quorum(self.round, PRECOMMIT) and self._once("precommit", self.round):
            self._after("precommit", self.timing.wait(self.timing.vote, self.round), self._timeout_precommit, self.round)
        return False
