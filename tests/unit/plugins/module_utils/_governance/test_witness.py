# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import os
import pathlib
import stat
import threading
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._core.files import locked
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance import signing, witness
from ansible_collections.chainops.validator.plugins.module_utils._governance import tally as counting
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy, Record, record_of
from ansible_collections.chainops.validator.plugins.module_utils._governance.witness import Book, Index, Seen, Sighting
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    ID,
    Chain,
    Client,
    address,
    implementation,
    payload,
    proposal,
    review,
    vote,
)

Act = t.Tuple[int, t.Dict[str, t.Any]]
Tx = t.Dict[str, t.Any]
NAMES = ("a", "b", "c")
URLS = {name: f"http://{name}" for name in NAMES}


class FakeClock(clock.Clock):
    now = 1_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Gate:
    """Readers that are looked at by hand, and the gate over them."""

    def __init__(self, chain: Chain, policy: dict[str, t.Any] | None = None, **odd: t.Any) -> None:
        self.chain = chain
        self.policy = Policy.from_dict({"witnesses": 2} if policy is None else policy)
        self.clients = {name: chain.client(final=False, **(odd if name == "c" else {})) for name in NAMES}
        self.book = Book()
        self.watchers = {name: witness.Watcher(URLS[name], client, self.book) for name, client in self.clients.items()}

    def look(self, *names: str) -> None:
        for name in names or NAMES:
            self.watchers[name].look()

    def cast(self, *acts: Act, seen_by: t.Sequence[str] = NAMES, rewrite: t.Callable[[Tx], None] | None = None) -> int:
        self.chain.hold(*acts)
        if seen_by:
            self.look(*seen_by)
        return self.chain.mine_pending(rewrite)

    def ask(self, silent: tuple[str, ...] = ()) -> tuple[counting.Tally, counting.Verdict, dict[str, t.Any]]:
        found = reading.read([reading.Reader(n, u) for n, u in URLS.items()], lambda r: self.clients[r.name], patience=5.0)
        assert found.genesis_hash is not None, found.problems
        sightings, contents = self.book.on(found.genesis_hash)
        index = Index(sightings, URLS.values())
        seen = Seen(
            index.counts(found.records),
            witness.rewritten(found.records, index, contents, ID, self.policy.witnesses),
            silent,
        )
        wrong = signing.problems(found.records, found.scheme, found.chain_id)
        result, verdict = proving.judge(found, ID, self.policy, None, wrong, seen)
        proof = proving.build(
            found, result, verdict, self.policy, chain="xai", confirmations=0, signatures_verified=not wrong, seen=seen
        )
        return result, verdict, proof


def legacy() -> Chain:
    """A chain as XAI's: no id, and signatures that don't cover metadata."""
    chain = Chain(None, xai_tx.LEGACY)
    chain.mine()
    return chain


def votes(word: str = "yes", who: t.Iterable[int] = range(5)) -> list[Act]:
    return [(number, vote(word)) for number in who]


def submission(chain: Chain) -> Act:
    return (9, proposal(content=payload(chain_id=chain.blocks[0]["hash"])))


def everything(gate: Gate, **how: t.Any) -> None:
    gate.cast(submission(gate.chain))
    gate.cast(*votes(), **how)
    gate.cast(*((who, review()) for who in range(5)))
    gate.cast(*((who, implementation()) for who in range(5)))


# --- end to end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_what_all_readers_held_counts_and_the_host_agrees(number: int) -> None:
    gate = Gate(legacy(), {"witnesses": number})
    everything(gate)
    result, verdict, proof = gate.ask()
    assert verdict.open, verdict.reasons
    assert not any("witnesses" in note for note in result.notes)
    assert set(proof["witnesses"].values()) == ({3} if number else set())
    assert len(proof["witnesses"]) == (16 if number else 0)
    assert proving.check_on_host(proof, "ab" * 32, "x86_64", gate.chain.client()) == []
    word = f"had to be held by {number} readers" if number else "what the readers agree on is what stands in blocks"
    assert any(word in limit for limit in proof["limits"])


def test_what_too_few_held_counts_against_and_says_so() -> None:
    gate = Gate(legacy())
    gate.cast(submission(gate.chain))
    gate.cast(*votes(who=range(4)))
    gate.cast((4, vote()), seen_by=["b"])
    gate.cast(*((who, review()) for who in range(5)))
    gate.cast(*((who, implementation()) for who in range(5)))
    result, verdict, _proof = gate.ask()
    assert (verdict.open, verdict.stage) == (False, "proposed")
    words = "where what fewer than 2 readers held before it was mined counts against (policy)"
    assert verdict.reasons == (
        f"4 of 5 yes voters, {words}",
        f"the strongest yes voter has 25.0 % of the yes power; at most 20 % is allowed, {words}",
    )
    assert len(result.notes) == 1
    assert result.notes[0].endswith(f"by {address(4)} at height 4: 1 of 2 witnesses")
    assert result.chain is not None and result.chain.ok


@pytest.mark.parametrize("what", ["votes", "reviews", "implementation"])
def test_each_kind_needs_them(what: str) -> None:
    gate = Gate(legacy())
    gate.cast(submission(gate.chain))
    gate.cast(*votes(), seen_by=["a"] if what == "votes" else NAMES)
    gate.cast(*((who, review()) for who in range(5)), seen_by=["a"] if what == "reviews" else NAMES)
    gate.cast(*((who, implementation()) for who in range(5)), seen_by=["a"] if what == "implementation" else NAMES)
    result, verdict, _proof = gate.ask()
    assert not verdict.open
    assert len(result.notes) == 5
    stages = {"votes": "proposed", "reviews": "approved_voting", "implementation": "code_review_passed"}
    assert verdict.stage == stages[what]


def test_a_submission_that_too_few_held_closes_the_gate() -> None:
    gate = Gate(legacy())
    gate.cast(submission(gate.chain), seen_by=["c"])
    gate.cast(*votes())
    gate.cast(*((who, review()) for who in range(5)))
    gate.cast(*((who, implementation()) for who in range(5)))
    _result, verdict, proof = gate.ask()
    assert verdict.reasons == ("1 of 2 readers held the submission before it was mined (policy)",)
    assert proving.check_on_host(proof, "ab" * 32, "x86_64", gate.chain.client()) != []


def test_a_relay_that_turns_a_no_into_a_yes_is_caught() -> None:
    def relay(tx: Tx) -> None:
        if tx["metadata"].get("vote") == "no":
            tx["metadata"]["vote"] = "yes"

    def cast(gate: Gate) -> None:
        gate.cast(submission(gate.chain))
        gate.cast(*votes(who=range(5)), *votes("no", who=(5, 6, 7)), rewrite=relay)
        gate.cast(*((who, review()) for who in range(5)))
        gate.cast(*((who, implementation()) for who in range(5)))

    blind = Gate(legacy(), {})
    cast(blind)
    assert blind.ask()[1].open  # signatures are good and all readers agree: blocks alone don't show it
    gate = Gate(legacy())
    cast(gate)
    result, verdict, _proof = gate.ask()
    assert not verdict.open
    rewritten = [reason for reason in verdict.reasons if "was rewritten" in reason]
    assert len(rewritten) == 3
    assert "3 readers held it with another metadata before it was mined (governance_vote: 'no')" in rewritten[0]
    assert any("62.5 % of 66 %" in reason for reason in verdict.reasons)
    assert sum("0 of 2 witnesses" in note for note in result.notes) == 3


def test_a_relay_that_turns_a_yes_into_a_no_is_caught_and_voting_again_mends_it() -> None:
    def relay(tx: Tx) -> None:
        tx["metadata"]["vote"] = "no"

    gate = Gate(legacy())
    gate.cast(submission(gate.chain))
    gate.cast(*votes(who=range(1, 6)))
    gate.cast((0, vote()), rewrite=relay)
    gate.cast(*((who, review()) for who in range(5)))
    gate.cast(*((who, implementation()) for who in range(6)))
    _result, verdict, _proof = gate.ask()
    assert [reason for reason in verdict.reasons if f"by {address(0)} at height 4 was rewritten: 3 readers" in reason]
    gate.cast((0, vote()))
    gate.cast((0, implementation()))
    _result, verdict, _proof = gate.ask()
    assert verdict.open, verdict.reasons


@pytest.mark.parametrize(
    "change",
    [{"voting_power": 0}, {"vote": "abstain"}, {"proposal_id": "another"}, {"type": "code_review", "approved": True}],
)
def test_whatever_the_relay_changes(change: dict[str, t.Any]) -> None:
    gate = Gate(legacy())
    everything(gate)
    assert gate.ask()[1].open
    gate.cast((7, vote("no", 1.0)), rewrite=lambda tx: tx["metadata"].update(change))
    _result, verdict, _proof = gate.ask()
    assert not verdict.open
    assert any("was rewritten: 3 readers held it with another metadata" in reason for reason in verdict.reasons)


def test_one_reader_that_makes_things_up_changes_nothing() -> None:
    def made_up(held: list[Tx]) -> list[Tx]:
        for tx in held:
            if tx["metadata"]["type"] == "governance_vote":
                tx["metadata"]["vote"] = "no"
        return held

    gate = Gate(legacy(), holds=made_up)
    everything(gate)
    result, verdict, proof = gate.ask()
    assert verdict.open, verdict.reasons
    assert sorted(set(proof["witnesses"].values())) == [2, 3]
    assert result.notes == ()


def test_a_reader_that_held_two_versions_vouches_for_neither() -> None:
    gate = Gate(legacy())
    gate.cast(submission(gate.chain))
    honest = gate.chain.hold((0, vote("no")))[0]
    gate.look("a", "b")
    honest["metadata"]["vote"] = "yes"
    gate.look("a", "b", "c")
    gate.chain.mine_pending()
    result, _verdict, _proof = gate.ask()
    assert result.notes[0].endswith("1 of 2 witnesses")


def test_what_was_held_only_once_it_was_mined_is_no_witness() -> None:
    gate = Gate(legacy())
    txs = gate.chain.hold(submission(gate.chain))
    gate.chain.mine_pending()
    gate.chain.pending = txs
    gate.look()
    gate.chain.pending = []
    result, verdict, proof = gate.ask()
    assert proof["witnesses"] == {record_of(2, 0, txs[0]).sha256: 0}
    assert "0 of 2 readers held the submission before it was mined (policy)" in verdict.reasons
    assert result.stage == "proposed"


def test_two_names_of_one_validator_are_one_witness() -> None:
    chain = Chain()
    book = Book()
    chain.hold((9, proposal()))
    for name, who in (("a", "V1"), ("b", "v1"), ("c", "V2")):
        witness.Watcher(URLS[name], chain.client(validator=who), book).look()
    chain.mine_pending()
    sightings, _contents = book.on(chain.blocks[0]["hash"])
    record = record_of(1, 0, chain.blocks[1]["transactions"][0])
    assert Index(sightings, URLS.values()).witnesses(record) == 2
    assert Index(sightings, [URLS["a"]]).witnesses(record) == 1
    assert Index(sightings, ["http://elsewhere"]).witnesses(record) == 0


def test_readers_that_can_not_tell_are_named() -> None:
    gate = Gate(legacy(), holds=lambda held: None)
    assert gate.watchers["c"].look() == "can't tell what it holds before it is mined"
    gate.cast(submission(gate.chain), seen_by=["a", "c"])
    _result, verdict, _proof = gate.ask(("c can't tell what it holds before it is mined",))
    assert verdict.reasons[0] == "c can't tell what it holds before it is mined, so it can be no witness"


def test_what_came_after_the_proof_has_no_witness_on_the_host() -> None:
    gate = Gate(legacy())
    everything(gate)
    proof = gate.ask()[2]
    gate.chain.act((5, vote("yes", 10.0)))
    assert proving.check_on_host(proof, "ab" * 32, "x86_64", gate.chain.client()) == []
    gate.chain.act((6, vote("yes", 90.0)))
    problems = proving.check_on_host(proof, "ab" * 32, "x86_64", gate.chain.client())
    assert any("counts against" in text for text in problems), problems


def test_a_proof_whose_witnesses_were_taken_away_is_none() -> None:
    gate = Gate(legacy())
    everything(gate)
    proof = gate.ask()[2]
    for witnesses in ({}, dict.fromkeys(proof["witnesses"], 1), [], {"ab": "2"}, {"ab": True}):
        raw = {**proof, "witnesses": witnesses}
        raw.pop("sha256")
        raw["sha256"] = canonical.digest(raw)
        assert proving.check_binding(raw, "ab" * 32, "x86_64") != []


# --- only stricter --------------------------------------------------------------------------------------------------------

ACTS = st.one_of(
    st.builds(vote, st.sampled_from(["yes", "no", "abstain"]), st.sampled_from([0, 1, 5.5, 20.0, 60.0])),
    st.builds(review, st.booleans(), st.sampled_from([1, 20.0])),
    st.builds(implementation, st.booleans()),
)
LOOSE = {
    "min_voters": 1,
    "approval_percent": 50,
    "max_individual_power_percent": 60,
    "min_code_reviewers": 1,
    "implementation_approval_percent": 50,
    "review_approval_percent": 50,
}


def plain_records(acts: t.Sequence[Act]) -> list[Record]:
    made = [(9, proposal()), *acts]
    return [
        record_of(number, 0, {"txid": f"{number:064x}", "sender": f"V{who}", "metadata": metadata})
        for number, (who, metadata) in enumerate(made, 1)
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), ACTS), max_size=24), st.lists(st.integers(0, 3), min_size=25, max_size=25))
def test_witnesses_only_make_it_stricter(acts: list[Act], numbers: list[int]) -> None:
    records = plain_records(acts)
    rules = {"thresholds": LOOSE, "chain_thresholds": {**LOOSE, "max_individual_power_percent": 100}}
    held = {record.sha256: number for record, number in zip(records, numbers)}
    opened = []
    before: list[t.Any] = []
    for needed in (0, 1, 2, 3, 4):
        policy = Policy.from_dict({**rules, "witnesses": needed})
        result = counting.tally(records, ID, policy, held)
        opened.append(counting.decide(result, policy).open)
        checks = result.policy.as_dict()["checks"] if result.policy is not None else []
        if needed:
            assert len(checks) == len(before) + 1
            assert all(old["ok"] or not new["ok"] for old, new in zip(before, (c for c in checks if c["name"] != "witnesses")))
        else:
            before = checks
    assert not any(opened[1:]) or opened[0]
    assert not opened[4]  # nobody was seen four times
    full = Policy.from_dict({**rules, "witnesses": 3})
    all_seen = counting.tally(records, ID, full, dict.fromkeys(held, 3))
    assert counting.decide(all_seen, full).open == opened[0]


def test_no_account_of_witnesses_is_none_at_all() -> None:
    records = plain_records(votes())
    policy = Policy.from_dict({"witnesses": 1})
    for held in (None, {}):
        result = counting.tally(records, ID, policy, held)
        assert "0 of 1 readers held the submission before it was mined (policy)" in counting.decide(result, policy).reasons


@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_a_number_of_witnesses_that_is_none(value: t.Any) -> None:
    with pytest.raises(InputError, match=r"policy\.witnesses"):
        Policy.from_dict({"witnesses": value})


def test_a_transaction_that_stands_in_two_blocks_counts_by_the_first() -> None:
    tx = {"txid": "ab", "sender": "V", "metadata": vote()}
    early, late = record_of(5, 0, tx), record_of(9, 0, tx)
    index = Index([Sighting("ab", early.sha256, "http://a", "http://a", 7, 0.0)], ["http://a/"])
    assert index.witnesses(late) == 1
    assert index.counts([early, late]) == index.counts([late, early]) == {early.sha256: 0}


# --- keeping --------------------------------------------------------------------------------------------------------------


def sighting(number: int, reader: str = "http://a", tip: int = 5, at: float = FakeClock.now) -> tuple[Sighting, Tx]:
    content = {"txid": f"{number:064x}", "sender": "V", "metadata": vote(power=number)}
    return Sighting(content["txid"], record_of(0, 0, content).sha256, reader, reader, tip, at), content


def add(book: Book, *found: tuple[Sighting, Tx], genesis: str = "ge") -> None:
    book.add(genesis, [one for one, _content in found], {one.sha256: content for one, content in found})


def kept(folder: pathlib.Path, genesis: str = "ge", mined: t.Mapping[str, int] | None = None, height: int = 9) -> list[str]:
    book = Book(FakeClock())
    witness.sync(book, str(folder), genesis, mined or {}, height)
    return sorted(one.txid for one in book.on(genesis)[0])


def test_it_is_kept_privately_by_chain_and_merged(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "cache"
    for number in (1, 2):  # two gates, neither of which knows what the other saw
        book = Book(FakeClock())
        add(book, sighting(number))
        witness.sync(book, str(folder), "ge", {}, 9)
        witness.sync(book, str(folder), "ge", {}, 9)
    assert kept(folder) == [f"{1:064x}", f"{2:064x}"]
    assert kept(folder, "another") == []
    path = folder / "witness-ge.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = path.stat().st_ino
    kept(folder)
    assert path.stat().st_ino == before  # nothing new, nothing written


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"tip":5', b'"tip":4'), (b"witness/1", b"witness/0"), (b"}", b""), (b'"sightings"', b'"others"'), (b'"ge"', b'"xx"')],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: pathlib.Path, old: bytes, new: bytes) -> None:
    book = Book(FakeClock())
    add(book, sighting(1))
    witness.sync(book, str(tmp_path), "ge", {}, 9)
    path = tmp_path / "witness-ge.json"
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    assert kept(tmp_path) == []


def test_a_folder_that_can_not_be_written_costs_nothing_but_the_memory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    book = Book(FakeClock())
    add(book, sighting(1))
    witness.sync(book, str(tmp_path / "file"), "ge", {}, 9)
    assert len(book.on("ge")[0]) == 1


def test_what_is_old_is_forgotten(tmp_path: pathlib.Path) -> None:
    book = Book(FakeClock())
    day = witness.PENDING_SECONDS
    add(book, sighting(1), sighting(2, at=FakeClock.now - day - 1), sighting(3, at=FakeClock.now - 9 * day), sighting(4))
    mined = {f"{3:064x}": 8, f"{4:064x}": 7}
    book.forget("ge", mined, 8)
    assert sorted(int(one.txid, 16) for one in book.on("ge")[0]) == [1, 3, 4]
    book.forget("ge", mined, 8 + witness.MINED_BLOCKS)
    assert sorted(int(one.txid, 16) for one in book.on("ge")[0]) == [1, 3]
    assert len(book.on("ge")[1]) == 2


def test_a_reader_that_makes_up_transactions_without_end_crowds_out_nobody() -> None:
    book = Book(FakeClock())
    add(book, sighting(1, reader="http://b"))
    add(book, *(sighting(number, reader="http://a", at=FakeClock.now + number) for number in range(2, witness.MAX_PENDING + 50)))
    book.forget("ge", {}, 9)
    seen = book.on("ge")[0]
    assert [one.txid for one in seen if one.reader == "http://b"] == [f"{1:064x}"]
    assert len(seen) == witness.MAX_PENDING + 1


def test_and_so_do_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "MAX_BYTES", 4000)
    book = Book(FakeClock())
    add(book, *(sighting(number) for number in range(100)))
    assert 20 < len(book.on("ge")[0]) < 60  # 2 * 4000 bytes of about 170 each
    book.forget("ge", {}, 9)
    assert 10 < len(book.on("ge")[0]) < 30
    add(book, sighting(500, at=FakeClock.now + 1))
    assert sighting(500)[0].txid in {one.txid for one in book.on("ge")[0]}


def test_the_lowest_tip_counts() -> None:
    book = Book(FakeClock())
    add(book, sighting(1, tip=7))
    add(book, sighting(1, tip=5))
    add(book, sighting(1, tip=6))
    assert [one.tip for one in book.on("ge")[0]] == [5]


# --- looking --------------------------------------------------------------------------------------------------------------


def test_only_governance_is_noted_and_rubbish_hides_nothing() -> None:
    chain = Chain()
    chain.hold((9, proposal()))
    other = chain.sign(1, {"type": "note"})

    def held(txs: list[Tx]) -> list[Tx]:
        broken = copy.deepcopy(txs[0])
        broken["metadata"]["title"] = float("nan")
        return [other, {"txid": "x"}, {"txid": "y", "metadata": "vote"}, broken, *txs]

    book = Book()
    assert witness.Watcher("http://a", chain.client(holds=held), book).look() is None
    assert [one.txid for one in book.on(chain.blocks[0]["hash"])[0]] == [chain.pending[0]["txid"]]


def test_what_is_known_is_not_asked_about_again() -> None:
    chain = Chain()
    chain.hold((9, proposal()))
    client = chain.client()
    watcher = witness.Watcher("http://a", client, Book())
    watcher.look()
    client.tip_height = None  # type: ignore[assignment,method-assign]
    watcher.look()
    chain.hold((1, vote()))
    with pytest.raises(TypeError):
        watcher.look()


def test_readers_on_another_chain_are_kept_apart() -> None:
    one, two = Chain("one"), Chain("two")
    book = Book()
    for chain in (one, two):
        chain.hold((9, proposal()))
        witness.Watcher("http://a", chain.client(), book).look()
    assert len(book.on(one.blocks[0]["hash"])[0]) == 1
    assert len(book.on("nothing")[0]) == 0


def test_a_watch_looks_at_all_and_says_who_is_silent() -> None:
    chain = Chain()
    chain.hold((9, proposal()))
    stall = threading.Event()
    clients: dict[str, Client] = {
        "a": chain.client(validator="a"),
        "b": chain.client(validator="b"),
        "mute": chain.client(holds=lambda held: None),
        "gone": chain.client(error=Unreachable("no answer", url="")),
        "broken": chain.client(holds=lambda held: [None]),  # type: ignore[list-item]
        "stalls": chain.client(stall=stall),
    }
    book = Book()
    urls = {name: f"http://{name}" for name in clients}
    try:
        with witness.Watch(urls, lambda url: clients[url[7:]], book, patience=0.0, interval=0.01) as watch:
            for name in set(clients) - {"stalls"}:
                assert watch._looked[name].wait(30)
        assert {one.node for one in book.on(chain.blocks[0]["hash"])[0]} == {"a", "b"}
        silent = watch.silent()
        assert [text.partition(" ")[0] for text in silent] == ["mute", "gone", "broken", "stalls"]
        assert silent[1] == "gone could not be asked what it holds: no answer"
        assert silent[3] == "stalls did not answer in time"
    finally:
        stall.set()


def test_a_watch_goes_on_looking() -> None:
    chain = Chain()
    noticed = threading.Event()

    class Noticing(Book):
        def add(self, *given: t.Any) -> None:
            super().add(*given)
            noticed.set()

    with witness.Watch({"a": "http://a"}, lambda url: chain.client(), Noticing(), patience=5.0, interval=0.01) as watch:
        watch._looked["a"].wait(10)
        chain.hold((9, proposal()))
        assert noticed.wait(10)


def test_the_lock_of_another_gate_is_respected(tmp_path: pathlib.Path) -> None:
    book = Book(FakeClock())
    add(book, sighting(1))
    with locked(str(tmp_path / "witness-ge.json.lock"), what="test"):
        witness.sync(book, str(tmp_path), "ge", {}, 9)
    assert not os.path.exists(tmp_path / "witness-ge.json")
    witness.sync(book, str(tmp_path), "ge", {}, 9)
    assert kept(tmp_path) == [f"{1:064x}"]
