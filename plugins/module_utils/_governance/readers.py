# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several readers, one account of the chain.

Every reader is asked by itself. They must agree on the block hash at one pinned height and on the full content of every
governance transaction up to it: where a block hash doesn't cover metadata, equal hashes can hide different votes. A reader
that lies, lags, stalls, truncates or answers with rubbish is a reader that didn't answer; why is kept.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
import typing as t

from .._chain import xai_coins
from .._chain.protocol import Block, NodeClient
from .._core.clock import CLOCK, Clock, wait_for
from .._core.errors import ChainopsError, InputError, IntegrityError, WaitTimeout
from .._core.http import public_url
from . import model, replay
from .cache import Cache, Known
from .model import Record

T = t.TypeVar("T")

#: Readers asked at the same time; more than that wait for their turn.
MAX_THREADS = 32

#: Connections to one reader while its blocks are read: with more, a node on the way to its limits would notice us.
LANES = 4


@dataclasses.dataclass(frozen=True)
class Reader:
    """An independent node."""

    name: str
    url: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one reader. ``reason`` is None for one that agreed."""

    name: str
    url: str
    agreed: bool
    reason: str | None
    height: int | None

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the readers agreed on; ``problems`` says why they didn't (then height and hash are None, and nothing was read)."""

    answers: tuple[Answer, ...]
    required: int
    problems: tuple[str, ...]
    height: int | None = None
    hash: str | None = None
    final: bool = False
    genesis_hash: str | None = None
    chain_id: str | None = None
    scheme: str | None = None
    records: tuple[Record, ...] = ()
    agreed: tuple[str, ...] = ()
    blocks_read: int = 0  # by the reader that read most; the rest came from the verified cache
    seconds_per_block: float | None = None
    #: What voters and reviewers (lower case) held at that height; None where the chain can't tell.
    held: t.Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class _Hello:
    """A reader's first answer. ``height`` is the highest one it takes for settled."""

    chain: tuple[str, str | None, str]  # genesis hash, chain id, signature scheme
    height: int
    final: bool
    address: str | None


@dataclasses.dataclass(frozen=True)
class _Account:
    """One reader's account up to the pinned height."""

    hash: str
    digest: str
    records: tuple[Record, ...]
    blocks: int
    seconds_per_block: float | None
    coins: xai_coins.Coins | None
    coins_digest: str | None

    def key(self) -> tuple[str, str, str | None]:
        """What readers must agree on. All coins, not just the voters': the cache keeps them, and later voters hold some, too."""
        return (self.hash, self.digest, self.coins_digest)


def required_readers(asked: int, wanted: int = 0) -> int:
    """How many must agree: what was said, else more than two thirds of those asked, and at least two."""
    return wanted if wanted > 0 else max(2, asked * 2 // 3 + 1)


def read(
    readers: t.Sequence[Reader],
    connect: t.Callable[[Reader], NodeClient],
    *,
    min_readers: int = 0,
    confirmations: int = 0,
    patience: float = 10.0,
    budget: float = 300.0,
    cache: Cache | None = None,
    count_coins: bool = False,
    clock: Clock = CLOCK,
) -> Reading:
    """Ask all readers and return what enough of them agree on.

    ``confirmations`` (blocks) is how far below its tip a node is believed where nothing is ever final. ``patience`` (seconds)
    bounds the first answer, and how long a reader that is behind, or slower than those that agree already, is waited for;
    ``budget`` (seconds) bounds one reader's whole account. ``count_coins`` also counts what voters and reviewers hold, where
    blocks tell. Raises InputError for readers that can't be told apart.
    """
    _distinct(readers)
    needed = required_readers(len(readers), min_readers)
    if needed > len(readers):
        hint = "; set min_readers to 1 to trust a single one" if len(readers) == 1 else ""
        problem = f"{len(readers)} readers asked, {needed} must agree: name more readers{hint}"
        return Reading(tuple(Answer(r.name, public_url(r.url), False, None, None) for r in readers), needed, (problem,))
    session = _Session(readers, connect, needed, confirmations, patience, budget, count_coins, clock)
    try:
        return session.read(cache)
    finally:
        session.close()


class _Session:
    """One gathering of accounts. Clients are used by one thread at a time, each by its own."""

    def __init__(
        self,
        readers: t.Sequence[Reader],
        connect: t.Callable[[Reader], NodeClient],
        needed: int,
        confirmations: int,
        patience: float,
        budget: float,
        count_coins: bool,
        clock: Clock,
    ) -> None:
        self.readers = {reader.name: reader for reader in readers}
        self.clients = {reader.name: connect(reader) for reader in readers}
        self.needed = needed
        self.confirmations = confirmations
        self.patience = patience
        self.budget = budget
        self.count_coins = count_coins
        self.clock = clock
        self.reasons: dict[str, str] = {}
        self.hellos: dict[str, _Hello] = {}

    def close(self) -> None:
        for name, client in self.clients.items():
            if self.reasons.get(name) != _SILENT:  # a thread may still sit in that one
                client.close()

    def read(self, cache: Cache | None) -> Reading:
        self.hellos = self._ask(
            dict.fromkeys(self.clients, self._hello),
            3 * self.patience,
            lambda done: self._largest(done, lambda hello: hello.chain)[1] is not None,
        )
        group, chain = self._largest(self.hellos, lambda hello: hello.chain)
        if chain is None:
            return self._nothing("readers are on different chains" if len(self.hellos) >= self.needed else None)
        for name in set(self.hellos) - set(group):
            genesis, chain_id, scheme = self.hellos[name].chain
            self.reasons[name] = f"is on another chain: {chain_id or 'no id'}, genesis {genesis[:12]}, scheme {scheme}"
        height = sorted((self.hellos[name].height for name in group), reverse=True)[self.needed - 1]
        if height < 0:
            return self._nothing(f"the chain has fewer than {self.confirmations} blocks, which is how long we wait for settling")
        known = cache.load(chain[0], self.needed, self._counter(chain[2]) is not None) if cache is not None else None
        if known is not None and known.height > height:
            known = None
        accounts = self._accounts(group, height, known)
        agreed, key = self._largest(accounts, _Account.key)
        if key is None and known is not None:
            # Not even the cache's own last block may stand any more: once more, from the first block.
            for name in group:
                self.reasons.pop(name, None)
            accounts = self._accounts(group, height, None)
            agreed, key = self._largest(accounts, _Account.key)
        if key is None:
            return self._nothing(f"they tell different things at height {height}", accounts, height)
        account = accounts[agreed[0]]
        for name in set(accounts) - set(agreed):
            self.reasons[name] = _departure(accounts[name], account, height)
        if cache is not None:
            coins = None if account.coins is None else account.coins.state()
            cache.store(Known(chain[0], height, account.hash, account.records, len(agreed), coins))
        return Reading(
            answers=self._answers(agreed),
            required=self.needed,
            problems=(),
            height=height,
            hash=account.hash,
            final=all(self.hellos[name].final for name in agreed),
            genesis_hash=chain[0],
            chain_id=chain[1],
            scheme=chain[2],
            records=account.records,
            agreed=tuple(agreed),
            blocks_read=max(accounts[name].blocks for name in agreed),
            seconds_per_block=_pace(accounts[name].seconds_per_block for name in agreed),
            held=None if account.coins is None else account.coins.held(r.sender for r in account.records if r.kind in _WEIGHED),
        )

    def _hello(self, name: str) -> _Hello:
        client = self.clients[name]
        # In this order: the tip may move between the two questions, but never below what was final.
        final = client.final_height()
        status = client.status()
        settled = final if final is not None else status.height - self.confirmations
        if final is not None and final > status.height:
            raise IntegrityError(f"calls height {final} final, but its tip is {status.height}")
        chain = (client.block_hash(0), status.chain_id, client.signature_scheme())
        return _Hello(chain, settled, final is not None, status.address)

    def _accounts(self, group: t.Sequence[str], height: int, known: Known | None) -> dict[str, _Account]:
        def enough(done: t.Mapping[str, _Account]) -> bool:
            return self._largest(done, _Account.key)[1] is not None

        jobs = {name: lambda name: self._account(name, height, known) for name in group}
        return self._ask(jobs, self.budget, enough)

    def _account(self, name: str, height: int, known: Known | None) -> _Account:
        client = self.clients[name]
        coins = self._counter(self.hellos[name].chain[2], known.coins if known is not None else None)
        if self.hellos[name].height < height:
            self._catch_up(client, height)
        first, before, records = 0, None, list[Record]()
        if known is not None:
            there = client.block_hash(known.height)
            if there != known.hash:
                raise IntegrityError(
                    f"has block {there[:12]} at height {known.height}, where {known.readers} readers agreed on "
                    f"{known.hash[:12]} before"
                )
            first, before, records = known.height + 1, known.hash, list(known.records)
        if first > height:
            return self._told(known.hash if known else "", records, 0, None, coins)
        times: list[float] = []

        def look(block: Block) -> None:
            if block.height == 0 and block.hash != self.hellos[name].chain[0]:
                raise IntegrityError("tells two hashes for its first block")
            times.append(block.time)
            if coins is not None:
                coins.take(block)

        walked = replay.walk(client, first, height, before, look)
        records.extend(walked.records)
        recent = times[-101:] if first else times[1:][-101:]  # a genesis block's time says nothing
        pace = (recent[-1] - recent[0]) / (len(recent) - 1) if len(recent) > 1 else None
        return self._told(walked.hash, records, height - first + 1, pace, coins)

    @staticmethod
    def _told(tip: str, records: list[Record], blocks: int, pace: float | None, coins: xai_coins.Coins | None) -> _Account:
        digest = None if coins is None else coins.digest()
        return _Account(tip, replay.records_digest(records), tuple(records), blocks, pace, coins, digest)

    def _counter(self, scheme: str, state: t.Any = None) -> xai_coins.Coins | None:
        return xai_coins.counter(scheme, state) if self.count_coins else None

    def _catch_up(self, client: NodeClient, height: int) -> None:
        def settled() -> int:
            final = client.final_height()
            return final if final is not None else client.status().height - self.confirmations

        try:
            # Half of the patience: the others may be done by now, and then nobody is waited for longer than the whole of it.
            half = self.patience / 2
            wait_for(settled, lambda now: now >= height, timeout=half, what=f"height {height}", clock=self.clock)
        except WaitTimeout as exc:
            raise IntegrityError(f"lags: {exc.fields.get('last')} of {height} settled blocks") from exc

    def _ask(
        self,
        jobs: t.Mapping[str, t.Callable[[str], T]],
        limit: float,
        enough: t.Callable[[t.Mapping[str, T]], bool] = lambda done: False,
    ) -> dict[str, T]:
        """Run the jobs side by side; those that fail or don't finish in time leave their reason.

        Once ``enough`` have answered, the others get ``patience`` seconds more.
        """
        done: dict[str, T] = {}
        failed: dict[str, str] = {}
        news = threading.Condition()
        slots = threading.Semaphore(MAX_THREADS)

        def work(name: str, job: t.Callable[[str], T]) -> None:
            with slots:
                try:
                    result = job(name)
                except ChainopsError as exc:
                    with news:
                        failed[name] = exc.message
                        news.notify()
                except Exception as exc:  # what a hostile answer makes us stumble over is that reader's failure, not ours
                    with news:
                        failed[name] = f"its answer makes no sense: {type(exc).__name__}: {exc}"
                        news.notify()
                else:
                    with news:
                        done[name] = result
                        news.notify()

        for name, job in jobs.items():
            threading.Thread(target=work, args=(name, job), name=f"reader {name}", daemon=True).start()
        rounds = -(-len(jobs) // MAX_THREADS)
        until = self.clock.monotonic() + limit * rounds
        with news:
            settled = False
            while len(done) + len(failed) < len(jobs):
                if not settled and enough(done):
                    settled, until = True, min(until, self.clock.monotonic() + self.patience)
                left = until - self.clock.monotonic()
                if left <= 0:
                    break
                news.wait(min(left, 1.0))
            answered, reasons = dict(done), dict(failed)
        for name in jobs:
            if name not in answered:
                self.reasons[name] = reasons.get(name, _SILENT)
        return answered

    def _largest(self, answers: t.Mapping[str, T], key: t.Callable[[T], t.Any]) -> tuple[list[str], t.Any]:
        """Names and key of the one group that is large enough; ([], None) when there is none, or more than one."""
        groups: dict[t.Any, list[str]] = {}
        for name in self.readers:
            if name in answers:
                groups.setdefault(key(answers[name]), []).append(name)
        large = [(names, which) for which, names in groups.items() if self._voices(names) >= self.needed]
        return large[0] if len(large) == 1 else ([], None)

    def _voices(self, names: t.Sequence[str]) -> int:
        """How many nodes speak under these names: two names of one signing address are one node.

        Only where validators sign what is final is that address a node's own; elsewhere it is just where rewards go.
        """
        known = [hello for hello in (self.hellos.get(name) for name in names) if hello is not None]
        signing = [hello.address for hello in known if hello.final and hello.address is not None]
        return len(names) - (len(signing) - len({address.lower() for address in signing}))

    def _answers(self, agreed: t.Sequence[str]) -> tuple[Answer, ...]:
        return tuple(
            Answer(
                name,
                public_url(reader.url),
                name in agreed,
                None if name in agreed else self.reasons.get(name, "too few agree with it"),
                self.hellos[name].height if name in self.hellos else None,
            )
            for name, reader in self.readers.items()
        )

    def _nothing(
        self, why: str | None = None, accounts: t.Mapping[str, _Account] | None = None, height: int | None = None
    ) -> Reading:
        for name, account in (accounts or {}).items():
            told = f"block {height} is {account.hash[:12]}, {len(account.records)} governance transactions {account.digest[:12]}"
            self.reasons.setdefault(name, told)
        reasons = [f"{name}: {self.reasons[name]}" for name in self.readers if name in self.reasons]
        text = f"fewer than {self.needed} of {len(self.readers)} readers agree"
        if why:
            text += f": {why}"
        if reasons:
            text += f" ({'; '.join(reasons)})"
        return Reading(self._answers(()), self.needed, (text,))


#: What power stands behind.
_WEIGHED = (model.VOTE, model.REVIEW)

_SILENT = "did not answer in time"


def _departure(account: _Account, agreed: _Account, height: int) -> str:
    words = replay.difference(account.records, agreed.records)
    if words is not None:
        return words
    if account.hash == agreed.hash:
        return f"counts other coins up to height {height}: its transactions move others than the same ones elsewhere"
    return f"has block {account.hash[:12]} at height {height}, the others have {agreed.hash[:12]}"


def _pace(told: t.Iterable[float | None]) -> float | None:
    """The middle one: blocks' times are nothing that readers have to agree on."""
    sane = [seconds for seconds in told if seconds is not None and 0 <= seconds < math.inf]
    return statistics.median(sane) if sane else None


def _distinct(readers: t.Sequence[Reader]) -> None:
    if not readers:
        raise InputError("no readers: name at least one node to read the chain from")
    for what, seen in (
        ("name", [reader.name for reader in readers]),
        ("url", [reader.url.rstrip("/").lower() for reader in readers]),
    ):
        twice = sorted({value for value in seen if seen.count(value) > 1})
        if twice:
            shown = twice[0] if what == "name" else public_url(twice[0])
            raise InputError(f"readers: {what} {shown!r} is listed twice; one node counts once", twice=shown)
