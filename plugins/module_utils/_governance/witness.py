# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who held a transaction before it was mined, and with which content.

Where neither signature nor id cover what a transaction says (XAI), whoever passes a vote on can rewrite it, and blocks alone
don't show it. So readers are asked again and again what they hold that is in no block yet. What enough of them held, word for
word, at a tip below the block that it is in now, was not rewritten on its way there.

What was seen is kept on the controller, one file per chain, for the gate is often asked long after the votes. Nobody who didn't
look in time can make up for it: such a vote must be cast again. A damaged, foreign or older-format file is as good as none.
"""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import typing as t

from .._chain.protocol import Block, NodeClient
from .._core import canonical
from .._core.clock import CLOCK, Clock
from .._core.errors import Busy, ChainopsError
from .._core.files import locked, make_dir, read_or_none, write_atomic
from .._core.http import public_url
from . import model, replay
from .model import Record

#: Seconds between two looks at what a reader holds, and where nobody asks for witnesses yet. A transaction that is mined between
#: two looks has none. Nodes that allow less are asked less often, by their own client.
LOOK_EVERY, GLANCE_EVERY = 0.25, 1.0
#: What was seen is forgotten this many blocks after it was mined, or this many seconds after, when it never was.
MINED_BLOCKS, PENDING_SECONDS = 1_000_000, 86_400.0
#: And beyond these numbers (and bytes), the oldest first. For each reader by itself: one that makes things up crowds out nobody.
MAX_PENDING, MAX_MINED, MAX_BYTES = 2_000, 20_000, 1 << 24

_FORMAT = "chainops.governance-witness/1"
_CANNOT = "can't tell what it holds before it is mined"
_NOT_YET = "did not answer in time"

#: What must have been held to count for us, and how it reads where nobody can say what it really was: as a no.
_AGAINST: dict[str, dict[str, t.Any]] = {
    model.VOTE: {"vote": "no"},
    model.REVIEW: {"approved": False},
    model.IMPLEMENTATION: {"approved": False},
}


@dataclasses.dataclass(frozen=True)
class Sighting:
    """A reader held a transaction with this content, at a tip no higher than ``tip``; ``at`` is the wall clock."""

    txid: str
    sha256: str
    reader: str  # its URL
    node: str  # who that is: the address it signs with, where that is a node's own, else its URL
    tip: int
    at: float


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known about transactions in blocks. ``held`` is by digest of their content: how many readers held exactly that.

    ``rewritten`` are reasons that close the gate; ``silent`` says of readers why they saw nothing.
    """

    held: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    rewritten: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


def doubted(record: Record) -> Record:
    """A vote or review that lacks witnesses, as it counts for us: against, with its power. It may have been a no."""
    return dataclasses.replace(record, metadata={**record.metadata, **_AGAINST.get(record.kind, {})})


# --- counting (pure) ------------------------------------------------------------------------------------------------------


class Index:
    """Sightings by transaction, of these readers alone."""

    def __init__(self, sightings: t.Iterable[Sighting], readers: t.Iterable[str]) -> None:
        urls = {reader_url(url) for url in readers}
        self._by_txid: dict[str, list[Sighting]] = {}
        for sighting in sightings:
            if sighting.reader in urls:
                self._by_txid.setdefault(sighting.txid, []).append(sighting)

    def before(self, txid: str, height: int) -> dict[str, set[str]]:
        """Digests of what each node held under an id at a tip below ``height``."""
        held: dict[str, set[str]] = {}
        for sighting in self._by_txid.get(txid, ()):
            if sighting.tip < height:
                held.setdefault(sighting.node, set()).add(sighting.sha256)
        return held

    def witnesses(self, record: Record) -> int:
        """How many nodes held exactly this before it was mined. One that held two versions vouches for neither."""
        return sum(1 for digests in self.before(record.txid, record.height).values() if digests == {record.sha256})

    def counts(self, records: t.Iterable[Record]) -> dict[str, int]:
        """Witnesses by digest of content; of one that stands in two blocks, those before the first."""
        found: dict[str, int] = {}
        for record in records:
            number = self.witnesses(record)
            found[record.sha256] = min(number, found.get(record.sha256, number))
        return found


def rewritten(
    records: t.Sequence[Record], index: Index, contents: t.Mapping[str, t.Mapping[str, t.Any]], proposal_id: str, needed: int
) -> tuple[str, ...]:
    """Where a block has something else than at least ``needed`` readers held, about this proposal; in words.

    What its sender said again later, in the same matter, is done with.
    """
    found: dict[tuple[str, str], str | None] = {}
    for record in records:
        held = index.before(record.txid, record.height)
        texts = []
        for sha256 in sorted(set().union(*held.values()) - {record.sha256}):
            voices = sum(1 for digests in held.values() if digests == {sha256})
            there = contents.get(sha256, {})
            was = _read(there)
            about = (record.subject, was.subject if was is not None else None)
            if voices < needed or proposal_id not in about:
                continue
            fields = sorted(name for name in {*there, *(record.tx or {})} if there.get(name) != (record.tx or {}).get(name))
            texts.append(
                f"{record.kind} {record.txid[:12]} by {record.sender} at height {record.height} was rewritten: {voices} readers "
                f"held it with another {', '.join(fields) or 'content'} before it was mined{_said(was)}"
            )
            if was is not None:
                found[(record.sender.lower(), was.kind)] = texts[-1]
        if texts:
            found[(record.sender.lower(), record.kind)] = texts[-1]
        elif record.subject == proposal_id:
            found[(record.sender.lower(), record.kind)] = None
    return tuple(dict.fromkeys(text for text in found.values() if text is not None))


def account(
    records: t.Sequence[Record],
    book: Book,
    genesis_hash: str,
    readers: t.Iterable[str],
    proposal_id: str,
    needed: int,
    silent: tuple[str, ...] = (),
) -> Seen:
    """What is known about the transactions of one proposal; of ``records``, all that were read."""
    if not needed:
        return Seen()
    sightings, contents = book.on(genesis_hash)
    index = Index(sightings, readers)
    held = index.counts(record for record in records if record.subject == proposal_id)
    return Seen(held, rewritten(records, index, contents, proposal_id, needed), silent)


def pending(records: t.Iterable[Record], book: Book, genesis_hash: str, proposal_id: str) -> list[dict[str, t.Any]]:
    """Transactions about a proposal that were held and that are in no block that was read, with how many held them."""
    mined = {record.txid for record in records}
    sightings, contents = book.on(genesis_hash)
    nodes: dict[str, set[str]] = {}
    for sighting in sightings:
        if sighting.txid not in mined:
            nodes.setdefault(sighting.sha256, set()).add(sighting.node)
    found = []
    for sha256, held_by in nodes.items():
        record = _read(contents[sha256])
        if record is not None and record.subject == proposal_id:
            found.append({"kind": record.kind, "txid": record.txid, "sender": record.sender, "readers": len(held_by)})
    return found


def _read(content: t.Mapping[str, t.Any]) -> Record | None:
    """A held content as a record without a place; None where it is none."""
    block = Block(0, "", "", 0.0, None, (content,), None, {})
    try:
        return next(iter(replay.extract(block)), None)
    except (ChainopsError, ValueError, TypeError):
        return None


def _said(was: Record | None) -> str:
    if was is None:
        return ""
    word = was.metadata.get("vote") if was.kind == model.VOTE else was.metadata.get("approved")
    return f" ({was.kind}{'' if word is None else f': {word!r:.20}'})"


# --- looking --------------------------------------------------------------------------------------------------------------


class Book:
    """What was seen in this process, by chain. Threads write to it."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, dict[tuple[str, str], Sighting]] = {}
        self._contents: dict[str, dict[str, t.Any]] = {}
        self._sizes: dict[str, int] = {}
        self._fresh: dict[str, int] = {}  # bytes by reader since the bounds were last looked to

    def knows(self, genesis_hash: str, reader: str, sha256: str) -> bool:
        with self._lock:
            return (reader, sha256) in self._seen.get(genesis_hash, {})

    def add(self, genesis_hash: str, sightings: t.Iterable[Sighting], contents: t.Mapping[str, t.Mapping[str, t.Any]]) -> None:
        """Of two sightings of the same by the same reader, the one at the lower tip counts."""
        with self._lock:
            seen = self._seen.setdefault(genesis_hash, {})
            for sighting in sightings:
                key = (sighting.reader, sighting.sha256)
                if key in seen and sighting.tip >= seen[key].tip:
                    continue
                if sighting.sha256 not in self._sizes:
                    self._sizes[sighting.sha256] = len(canonical.dumps(contents[sighting.sha256]))
                fresh = self._fresh.get(sighting.reader, 0) + self._sizes[sighting.sha256]
                if fresh <= 2 * MAX_BYTES:
                    self._fresh[sighting.reader] = fresh
                    self._contents[sighting.sha256] = dict(contents[sighting.sha256])
                    seen[key] = sighting

    def on(self, genesis_hash: str) -> tuple[tuple[Sighting, ...], dict[str, dict[str, t.Any]]]:
        """Sightings on one chain, and contents by digest."""
        with self._lock:
            seen = tuple(self._seen.get(genesis_hash, {}).values())
            return seen, {sighting.sha256: self._contents[sighting.sha256] for sighting in seen}

    def forget(self, genesis_hash: str, mined: t.Mapping[str, int], height: int) -> None:
        """Keep to the bounds. ``mined`` has the heights of transactions that are in blocks up to ``height``."""
        now = self.clock.wall()
        with self._lock:
            seen = self._seen.get(genesis_hash, {})
            by_reader: dict[str, list[tuple[str, str]]] = {}
            for key in sorted(seen, key=lambda key: seen[key].at, reverse=True):
                by_reader.setdefault(key[0], []).append(key)
            kept: set[tuple[str, str]] = set()
            for keys in by_reader.values():
                in_blocks = [key for key in keys if seen[key].txid in mined]
                pending = [key for key in keys if seen[key].txid not in mined and now - seen[key].at <= PENDING_SECONDS]
                kept.update(self._within([k for k in in_blocks if height - mined[seen[k].txid] <= MINED_BLOCKS], MAX_MINED))
                kept.update(self._within(pending, MAX_PENDING))
            self._seen[genesis_hash] = {key: sighting for key, sighting in seen.items() if key in kept}
            needed = {sighting.sha256 for chain in self._seen.values() for sighting in chain.values()}
            self._contents = {sha256: content for sha256, content in self._contents.items() if sha256 in needed}
            self._sizes = {sha256: size for sha256, size in self._sizes.items() if sha256 in needed}
            self._fresh.clear()

    def _within(self, keys: t.Sequence[tuple[str, str]], number: int) -> list[tuple[str, str]]:
        """The first of them, as many as fit."""
        room, kept = MAX_BYTES, []
        for key in keys[:number]:
            room -= self._sizes[key[1]]
            if room < 0:
                break
            kept.append(key)
        return kept


class Watcher:
    """Looks at what one reader holds. Used by one thread at a time."""

    def __init__(self, url: str, client: NodeClient, book: Book) -> None:
        self.url = reader_url(url)
        self.client = client
        self.book = book
        self._who: tuple[str, str] | None = None

    def look(self) -> str | None:
        """Note what is new; None, or why nothing could be seen. Raises ChainopsError for a node that doesn't answer."""
        held = self.client.pending_transactions()
        if held is None:
            return _CANNOT
        records = [record for record in map(_read, held) if record is not None and record.tx is not None]
        if records and (self._who is None or any(not self.book.knows(self._who[0], self.url, r.sha256) for r in records)):
            # The tip is asked for afterwards: when they were held it was this one, or lower.
            tip, now = self.client.tip_height(), self.book.clock.wall()
            self._who = genesis_hash, node = self._who or self._identify()
            self.book.add(
                genesis_hash,
                [Sighting(r.txid, r.sha256, self.url, node, tip, now) for r in records],
                {r.sha256: r.tx for r in records if r.tx is not None},
            )
        return None

    def _identify(self) -> tuple[str, str]:
        """Chain and node. An address is a node's own only where validators sign what is final (see ``readers._voices``)."""
        address = self.client.status().address if self.client.final_height() is not None else None
        return self.client.block_hash(0), (address or self.url).lower()


class Watch:
    """Watchers of all readers, each in a thread of its own, from ``with`` to its end; each looks at least once.

    ``patience`` (seconds) is how long a first look may take. A reader that doesn't answer has seen nothing.
    """

    def __init__(
        self,
        readers: t.Mapping[str, str],
        connect: t.Callable[[str], NodeClient],
        book: Book,
        *,
        patience: float = 10.0,
        interval: float = LOOK_EVERY,
    ) -> None:
        self.book = book
        self._readers = readers
        self._connect = connect
        self._patience = patience
        self._interval = interval
        self._until = 0.0
        self._over = threading.Event()
        self._looked = {name: threading.Event() for name in readers}
        self._reasons: dict[str, str | None] = dict.fromkeys(readers, _NOT_YET)

    def __enter__(self) -> Watch:
        self._until = self.book.clock.monotonic() + self._patience
        for name, url in self._readers.items():
            threading.Thread(target=self._follow, args=(name, url), name=f"witness {name}", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._settle()
        self._over.set()

    def _settle(self) -> None:
        """Wait until each has looked once, while there is patience."""
        for looked in self._looked.values():
            looked.wait(max(0.0, self._until - self.book.clock.monotonic()))

    def silent(self) -> tuple[str, ...]:
        """Of each reader that can't be a witness now, why."""
        self._settle()
        return tuple(f"{name} {reason}" for name, reason in self._reasons.items() if reason is not None)

    def _follow(self, name: str, url: str) -> None:
        try:
            client = self._connect(url)
            watcher = Watcher(url, client, self.book)
            while True:
                try:
                    reason = watcher.look()
                except ChainopsError as exc:
                    reason = f"could not be asked what it holds: {exc.message}"
                except Exception as exc:  # what a hostile answer makes us stumble over is that reader's failure, not ours
                    reason = f"holds what makes no sense: {type(exc).__name__}: {exc}"
                self._reasons[name] = reason
                self._looked[name].set()
                if self._over.wait(self._interval):
                    break
            client.close()
        finally:
            self._looked[name].set()


def reader_url(url: str) -> str:
    """A reader's URL as it is written down: without credentials, in one spelling."""
    return public_url(url).rstrip("/").lower()


# --- keeping --------------------------------------------------------------------------------------------------------------


def sync(book: Book, directory: str, genesis_hash: str, mined: t.Mapping[str, int], height: int) -> None:
    """Bring book and file together: each then has what either had, within the bounds.

    What can't be written now is written the next time; gates that run side by side take turns.
    """
    path = os.path.join(directory, f"witness-{re.sub(r'[^0-9A-Za-z]', '', genesis_hash)[:32]}.json")
    try:
        make_dir(directory, 0o700)
        with locked(path + ".lock", what="witnesses"):
            stored = _load(path, genesis_hash)
            book.forget(genesis_hash, mined, height)  # so that there is room for what is stored
            book.add(genesis_hash, *stored)
            book.forget(genesis_hash, mined, height)
            sightings, contents = book.on(genesis_hash)
            if set(sightings) != set(stored[0]):
                write_atomic(path, canonical.dumps(_document(genesis_hash, sightings, contents)), 0o600)
    except (OSError, Busy):
        return


def _document(
    genesis_hash: str, sightings: t.Sequence[Sighting], contents: t.Mapping[str, t.Mapping[str, t.Any]]
) -> dict[str, t.Any]:
    ordered = sorted(sightings, key=lambda one: (one.at, one.reader, one.sha256))
    raw: dict[str, t.Any] = {
        "format": _FORMAT,
        "genesis_hash": genesis_hash,
        "sightings": [dataclasses.asdict(sighting) for sighting in ordered],
        "contents": dict(contents),
    }
    return {**raw, "sha256": canonical.digest(raw)}


def _load(path: str, genesis_hash: str) -> tuple[tuple[Sighting, ...], dict[str, dict[str, t.Any]]]:
    try:
        data = read_or_none(path)
        raw = None if data is None else canonical.loads(data, "witnesses")
        if not isinstance(raw, dict) or raw.pop("sha256", None) != canonical.digest(raw) or raw.get("format") != _FORMAT:
            return (), {}
        if raw["genesis_hash"] != genesis_hash:
            return (), {}
        sightings = tuple(map(_sighting, raw["sightings"]))
        return sightings, {sighting.sha256: dict(raw["contents"][sighting.sha256]) for sighting in sightings}
    except (ChainopsError, OSError, KeyError, TypeError, ValueError):
        return (), {}


def _sighting(raw: t.Mapping[str, t.Any]) -> Sighting:
    kinds = (("txid", str), ("sha256", str), ("reader", str), ("node", str), ("tip", int), ("at", (int, float)))
    if not all(isinstance(raw[name], kind) and not isinstance(raw[name], bool) for name, kind in kinds):
        raise ValueError("not a sighting")
    return Sighting(raw["txid"], raw["sha256"], raw["reader"], raw["node"], raw["tip"], float(raw["at"]))
