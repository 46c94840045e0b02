# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib
import threading
import time
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain import xai_tx
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError, InputError, Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance.cache import Cache
from ansible_collections.chainops.validator.plugins.module_utils._governance.readers import Reader, Reading, required_readers
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import (
    Chain,
    Client,
    address,
    vote,
)


def ask(clients: t.Mapping[str, Client], **options: t.Any) -> Reading:
    options.setdefault("patience", 3.0)
    listed = [Reader(name, f"http://{name}") for name in clients]
    return reading.read(listed, lambda reader: clients[reader.name], **options)


def four(chain: Chain, **last: t.Any) -> dict[str, Client]:
    return {"a": chain.client(), "b": chain.client(), "c": chain.client(), "d": chain.client(**last)}


def reason(result: Reading, name: str) -> str:
    return next(answer.reason or "" for answer in result.answers if answer.name == name)


@pytest.mark.parametrize(
    ("asked", "wanted", "needed"), [(1, 0, 2), (2, 0, 2), (3, 0, 3), (4, 0, 3), (7, 0, 5), (1, 1, 1), (4, 2, 2)]
)
def test_how_many_must_agree(asked: int, wanted: int, needed: int) -> None:
    assert required_readers(asked, wanted) == needed


def test_readers_that_agree(chain: Chain) -> None:
    chain.approve()
    result = ask(four(chain))
    assert result.problems == ()
    assert (result.height, result.hash) == (4, chain.blocks[4]["hash"])
    assert (result.agreed, result.required, result.final) == (("a", "b", "c", "d"), 3, True)
    assert len(result.records) == 16
    assert result.seconds_per_block == pytest.approx(1.0)


def hide_no(raw: dict[str, t.Any]) -> None:
    raw["transactions"] = [tx for tx in raw["transactions"] if tx["metadata"].get("vote") != "no"]


def flip(raw: dict[str, t.Any]) -> None:
    for tx in raw["transactions"]:
        if tx["metadata"].get("vote") == "no":
            tx["metadata"]["vote"] = "yes"


def add_vote(raw: dict[str, t.Any]) -> None:
    if raw["index"] == 3:
        raw["transactions"].append({"txid": "f" * 64, "sender": "TXAIx", "metadata": vote()})


def forge_hash(raw: dict[str, t.Any]) -> None:
    if raw["index"] == 3:
        raw["hash"] = "e" * 64


def fork(raw: dict[str, t.Any]) -> None:
    if raw["index"] >= 2:
        raw["hash"] = "fork" + raw["hash"][4:]
    if raw["index"] >= 3:
        raw["previous_hash"] = "fork" + raw["previous_hash"][4:]


def other_chain(raw: dict[str, t.Any]) -> None:
    raw["hash"] = "other" + raw["hash"][5:]
    raw["previous_hash"] = "other" + raw["previous_hash"][5:]


def rubbish(raw: dict[str, t.Any]) -> None:
    raw["transactions"] = [None]


def wrong_block(raw: dict[str, t.Any]) -> None:
    raw["index"] = 1 if raw["index"] == 3 else raw["index"]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (hide_no, "hides governance_vote"),
        (flip, "with another metadata"),
        (add_vote, "which the others don't have"),
        (forge_hash, "block 4 follows"),
        (fork, "the others have"),
        (other_chain, "on another chain"),
        (rubbish, "makes no sense"),
        (wrong_block, "asked for block 3"),
    ],
)
def test_a_liar_in_the_minority_changes_nothing_and_a_majority_of_them_closes(
    chain: Chain, lie: t.Callable[[dict[str, t.Any]], None], words: str
) -> None:
    chain.submit()
    chain.pass_votes()
    chain.act((5, vote("no", 30.0)))
    chain.mine()
    truth = ask(four(chain))
    result = ask(four(chain, lie=lie))
    assert (result.problems, result.agreed) == ((), ("a", "b", "c"))
    assert (result.hash, result.records) == (truth.hash, truth.records)
    assert words in reason(result, "d")
    clients = four(chain, lie=lie)
    clients["c"].lie = lie
    split = ask(clients)
    assert split.hash is None and not split.records
    assert "fewer than 3 of 4 readers agree" in split.problems[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"error": Unreachable("no answer from http://d: refused", url="http://d")}, "refused"),
        ({"error": HttpError("answer is not valid JSON: NaN is not JSON", url="", status=200)}, "NaN"),
        ({"error": KeyError("index")}, "makes no sense"),
        ({"error": RecursionError("deep")}, "makes no sense"),
        ({"behind": 2}, "lags"),
        ({"height": 10**9}, ""),
    ],
)
def test_a_reader_that_fails_is_one_that_did_not_answer(chain: Chain, fault: dict[str, t.Any], words: str) -> None:
    chain.approve()
    result = ask(four(chain, **fault), patience=1.0)
    assert result.problems == ()
    assert result.height == 4
    assert set(result.agreed) >= {"a", "b", "c"}
    assert words in reason(result, "d")


def test_a_reader_that_stalls_is_not_waited_for_past_the_patience(chain: Chain) -> None:
    chain.approve()
    event = threading.Event()
    start = time.monotonic()
    result = ask(four(chain, stall=event), patience=0.5, budget=60.0)
    assert time.monotonic() - start < 5
    assert result.problems == ()
    assert reason(result, "d") == "did not answer in time"
    clients = four(chain, stall=event)
    clients["c"].stall = event
    start = time.monotonic()
    assert "fewer than 3" in ask(clients, patience=0.5, budget=60.0).problems[0]
    assert time.monotonic() - start < 5
    event.set()


def test_a_reader_slightly_behind_is_waited_for(chain: Chain) -> None:
    chain.approve()
    clients = four(chain, behind=1)
    threading.Timer(0.2, lambda: setattr(clients["d"], "behind", 0)).start()
    assert ask(clients, patience=3.0).agreed == ("a", "b", "c", "d")


def test_where_nothing_is_final_the_height_is_some_blocks_below_the_tip(chain: Chain) -> None:
    chain.approve()
    clients = {name: chain.client(final=False) for name in "abc"}
    result = ask(clients, confirmations=2)
    assert (result.height, result.final) == (2, False)
    assert "fewer than 9 blocks" in ask(clients, confirmations=9).problems[0]


def test_one_reader_is_believed_only_when_told_to(chain: Chain) -> None:
    chain.approve()
    alone = ask({"a": chain.client()})
    assert "set min_readers to 1" in alone.problems[0]
    assert ask({"a": chain.client()}, min_readers=1).problems == ()


def test_two_camps_that_are_both_large_enough_close_the_gate(chain: Chain) -> None:
    chain.approve()
    clients = four(chain, lie=add_vote)
    clients["c"].lie = add_vote
    assert ask(clients, min_readers=2).problems != ()


def test_one_node_under_two_names_counts_once(chain: Chain) -> None:
    chain.approve()
    same = {name: chain.client(validator="TXAIsame") for name in "abc"}
    assert "fewer than 3 of 3" in ask(same).problems[0]
    assert ask({name: chain.client(validator=f"TXAI{name}") for name in "abc"}).problems == ()


@pytest.mark.parametrize(
    "listed", [[], [Reader("a", "http://x"), Reader("a", "http://y")], [Reader("a", "http://x/"), Reader("b", "http://X")]]
)
def test_readers_that_cannot_be_told_apart_are_refused(listed: list[Reader]) -> None:
    with pytest.raises(InputError, match="readers"):
        reading.read(listed, lambda reader: pytest.fail("asked"))


def test_passwords_in_urls_do_not_show(chain: Chain) -> None:
    result = reading.read([Reader("a", "http://user:hunter2@a:1/")], lambda reader: chain.client())
    assert "hunter2" not in repr(result)


def test_the_next_reading_reads_only_new_blocks(chain: Chain, tmp_path: pathlib.Path) -> None:
    chain.approve()
    cache = Cache(str(tmp_path / "cache"))
    first = ask(four(chain), cache=cache)
    chain.act((6, vote("no")))
    clients = four(chain)
    second = ask(clients, cache=cache)
    assert (first.blocks_read, second.blocks_read) == (5, 1)
    assert sorted(set(clients["a"].served)) == [0, 4, 5]
    assert second.records == ask(four(chain)).records
    again = ask(four(chain), cache=cache)
    assert (again.blocks_read, again.hash) == (0, second.hash)
    assert again.records == second.records


def test_a_cache_is_not_believed_against_the_readers(chain: Chain, tmp_path: pathlib.Path) -> None:
    cache = Cache(str(tmp_path))
    chain.approve()
    ask(four(chain), cache=cache)
    other = Chain()
    assert other.blocks[0]["hash"] == chain.blocks[0]["hash"]
    for _ in range(6):
        other.act((1, vote()))
    result = ask(four(other), cache=cache)
    assert result.problems == ()
    assert result.records == ask(four(other)).records
    # A reader that left the agreed chain is out.
    clients = four(other)
    chain.mine(), chain.mine()
    clients["d"] = chain.client()
    assert "where 4 readers agreed on" in reason(ask(clients, cache=cache), "d")


def test_a_cache_of_fewer_readers_or_a_damaged_one_is_as_good_as_none(chain: Chain, tmp_path: pathlib.Path) -> None:
    cache = Cache(str(tmp_path))
    chain.approve()
    ask({"a": chain.client()}, min_readers=1, cache=cache)
    assert ask(four(chain), cache=cache).blocks_read == 5
    assert ask(four(chain), cache=cache).blocks_read == 0
    (file,) = tmp_path.iterdir()
    raw = json.loads(file.read_bytes())
    raw["records"] = raw["records"][:3]
    file.write_text(json.dumps(raw))
    assert ask(four(chain), cache=cache).blocks_read == 5
    file.write_bytes(b"[")
    assert ask(four(chain), cache=cache).blocks_read == 5
    assert oct(file.stat().st_mode)[-3:] == "600"


def test_a_tip_that_moves_between_two_questions_is_no_contradiction(chain: Chain) -> None:
    class Moving(Client):
        def status(self) -> t.Any:
            seen = super().status()
            self.chain.mine()
            return seen

        def final_height(self) -> int | None:
            seen = super().final_height()
            self.chain.mine()
            return seen

    chain.approve()
    result = ask({name: Moving(chain) for name in "abc"})
    assert result.problems == ()


def test_a_node_that_calls_more_final_than_it_has_is_not_believed(chain: Chain) -> None:
    class Boasting(Client):
        def final_height(self) -> int | None:
            return 10**9

    chain.approve()
    clients = four(chain)
    clients["d"] = Boasting(chain)
    result = ask(clients)
    assert result.height == 4
    assert "calls height 1000000000 final" in reason(result, "d")


def test_clients_are_closed(chain: Chain) -> None:
    clients = four(chain)
    ask(clients)
    assert all(client.closed for client in clients.values())


def coinful() -> Chain:
    """On XAI: each of five voters was rewarded once, and voter 4 has given half of it away since."""
    chain = Chain(None, xai_tx.LEGACY)
    rewards = [{"address": address(who), "amount": 64.0} for who in range(5)]
    chain.mine({"txid": "rewards", "sender": "COINBASE", "amount": 320.0, "metadata": {}, "outputs": rewards})
    chain.pass_votes()
    given = [{"address": address(7), "amount": 32.0}, {"address": address(4), "amount": 32.0}]
    spent = [{"txid": "rewards", "vout": 4}]
    chain.mine({"txid": "gift", "sender": address(4), "metadata": {}, "inputs": spent, "outputs": given})
    return chain


def test_what_voters_hold_is_counted_at_the_height_that_was_read(tmp_path: pathlib.Path) -> None:
    chain = coinful()
    held = {address(who).lower(): 64.0 if who < 4 else 32.0 for who in range(5)}
    assert ask(four(chain), count_coins=True).held == held
    assert ask(four(chain)).held is None
    assert ask(four(Chain()), count_coins=True).held is None  # blocks of this kind don't tell
    cache = Cache(str(tmp_path))
    ask(four(chain), count_coins=True, cache=cache)
    ask(four(chain), cache=cache)  # one that doesn't count leaves the other's cache alone
    chain.act((7, vote()))
    again = ask(four(chain), count_coins=True, cache=cache)
    assert again.blocks_read == 1
    assert again.held == {**held, address(7).lower(): 32.0}


def test_who_moves_other_coins_departs() -> None:
    def more(raw: dict[str, t.Any]) -> None:
        for tx in raw["transactions"]:
            for output in tx.get("outputs") or ():
                output["amount"] = 1e6

    chain = coinful()
    result = ask(four(chain, lie=more), count_coins=True)
    assert result.agreed == ("a", "b", "c")
    assert "counts other coins up to height 3" in reason(result, "d")
    assert result.held is not None and max(result.held.values()) == 64.0
    liars = {name: chain.client(lie=more if name in "cd" else None) for name in "abcd"}
    assert ask(liars, count_coins=True).problems != ()
    assert ask(four(chain, lie=more)).agreed == ("a", "b", "c", "d")  # governance alone is the same


def test_the_pace_is_not_one_readers_to_tell(chain: Chain) -> None:
    def hurry(raw: dict[str, t.Any]) -> None:
        raw["timestamp"] = 1e300 * raw["index"]

    chain.approve()
    clients = {"liar": chain.client(lie=hurry), **four(chain)}
    assert ask(clients).seconds_per_block == pytest.approx(1.0)
