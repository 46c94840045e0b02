# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refnode import canon, layout, level1, level2, migrate, release, tx
from refnode.block import Invalid
from refnode.chain import Chain
from refnode_support import Members, tree


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    return Members(tmp_path_factory.mktemp("genesis"))


@pytest.fixture
def at_level(monkeypatch):
    def use(level):
        monkeypatch.setitem(release.INFO, "level", level)

    return use


def opened(data, **more):
    return Chain(str(data), **more)


def grown(members, data, blocks=12, level_setter=None, level=1):
    """A directory with a few transfers and a governance proposal in it, stopped cleanly."""
    if level_setter:
        level_setter(level)
    chain = opened(members.data_dir(data))
    for n in range(blocks):
        entries = [members.transfer(0, chain.state.next_nonce(members.accounts[0]["address"]))]
        if n == 1:
            entries.append(members.governance(1, 0, "governance_proposal", title="é", description="d", proposal_type="x"))
        members.extend(chain, entries)
    root = chain.state.root()
    chain.close()
    return root


# -- the chain's own rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2])
def test_a_stopped_directory_opens_as_it_was(members, tmp_path, at_level, level):
    root = grown(members, tmp_path / "d", level_setter=at_level, level=level)
    chain = opened(tmp_path / "d")
    assert (chain.height, chain.state.root(), chain.level) == (12, root, level)
    assert [chain.block(h)["index"] for h in range(13)] == list(range(13))
    entry = chain.block(3)["transactions"][0]
    assert chain.index.height_of_tx(entry["txid"]) == 3 and chain.index.height_of_hash(chain.block(5)["hash"]) == 5
    chain.close()


@pytest.mark.parametrize("level", [1, 2])
def test_a_killed_directory_is_rebuilt_from_its_blocks(members, tmp_path, at_level, level):
    at_level(level)
    chain = opened(members.data_dir(tmp_path / "live"))
    for n in range(7):
        members.extend(chain, [members.transfer(0, n)])
    shutil.copytree(tmp_path / "live", tmp_path / "killed")  # what a SIGKILL leaves: the state is seven blocks behind
    expected = chain.state.root()
    chain.close()
    name = "blocks_0.json" if level == 1 else "blocks_0.bin"
    with open(tmp_path / "killed" / "blocks" / name, "ab") as handle:
        handle.write(b'{"torn' if level == 1 else b"\x00\x00\x01\x00torn")
    again = opened(tmp_path / "killed")
    assert (again.height, again.state.root()) == (7, expected)
    members.extend(again, [members.transfer(0, 7)])
    again.close()
    final = opened(tmp_path / "killed")
    assert final.height == 8
    final.close()


@pytest.mark.parametrize("level", [1, 2])
def test_one_process_at_a_time(members, tmp_path, at_level, level):
    at_level(level)
    chain = opened(members.data_dir(tmp_path / "d"))
    with pytest.raises(layout.StorageError, match=f"in use by process {os.getpid()}"):
        opened(tmp_path / "d")
    with pytest.raises(layout.StorageError, match="in use"):
        migrate.run(str(tmp_path / "d"), 2)
    chain.close()


@pytest.mark.parametrize("level", [1, 2])
def test_any_flipped_bit_is_noticed(members, tmp_path, at_level, level):
    grown(members, tmp_path / "d", 3, at_level, level)
    names = ["blocks/blocks_0.json", *level1.FILES] if level == 1 else ["blocks/blocks_0.bin", "utxo.db"]
    for name in [*names, "checksum.json", "schema.json"]:
        path = tmp_path / "d" / name
        before = path.read_bytes()
        where = before.index(b"TXAI") + 6 if name == "utxo.db" else len(before) // 2
        path.write_bytes(before[:where] + bytes([before[where] ^ 1]) + before[where + 1 :])
        with pytest.raises(layout.StorageError):
            opened(tmp_path / "d").close()
            pytest.fail(f"{name} at {where}")
        path.unlink()
        with pytest.raises(layout.StorageError):
            opened(tmp_path / "d").close()
        path.write_bytes(before)
    opened(tmp_path / "d").close()


def test_a_level_1_mismatch_is_told_in_the_words_of_xai(members, tmp_path, at_level):
    grown(members, tmp_path / "d", 3, at_level, 1)
    with open(tmp_path / "d" / "utxo_set.json", "ab") as handle:
        handle.write(b" ")
    with pytest.raises(layout.StorageError, match=r"Blockchain data integrity check failed: utxo_set\.json does not match"):
        opened(tmp_path / "d")


def test_releases_and_levels(members, tmp_path, at_level):
    grown(members, tmp_path / "one", 2, at_level, 1)
    grown(members, tmp_path / "two", 2, at_level, 2)
    with pytest.raises(layout.StorageError, match="run bin/migrate"):
        opened(tmp_path / "one")
    chain = opened(tmp_path / "one", compat=True)
    members.extend(chain)
    assert chain.level == 1
    chain.close()
    at_level(1)
    with pytest.raises(layout.StorageError, match="understands up to level 1"):
        opened(tmp_path / "two")
    chain = opened(tmp_path / "one")
    assert chain.height == 3
    chain.close()


def test_a_directory_of_another_network_is_refused(members, tmp_path, at_level):
    grown(members, tmp_path / "d", 2, at_level, 1)
    other = Members(tmp_path / "other")
    (tmp_path / "d" / "genesis.json").write_bytes((other.folder / "genesis.json").read_bytes())
    with pytest.raises(layout.StorageError, match="another network"):
        opened(tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(layout.StorageError, match="never makes its own"):
        opened(tmp_path / "empty")


def test_void_blocks_are_refused(members, tmp_path, at_level):
    at_level(2)
    chain = opened(members.data_dir(tmp_path / "d"))
    members.extend(chain, [members.transfer(0, 0)])
    good = members.next_block(chain, [members.transfer(0, 1)])
    twice = members.transfer(0, 1)
    bad = {
        "wrong nonce": members.next_block(chain, [members.transfer(0, 5)]),
        "same nonce twice": members.next_block(chain, [twice, members.transfer(0, 1, 0.25)]),
        "too poor": members.next_block(chain, [members.transfer(0, 1, 10.0**6)]),
        "changed after the vote": {**good, "transactions": [{**good["transactions"][0], "amount": 9.0}]},
        "not its proposer": {**good, "miner": members.identities[0]["address"], "round": 77},
        "old": {**good, "timestamp": 1.0},
        "other state": {**good, "state_root": "0" * 64},
        "metadata": members.next_block(
            chain, [members.transfer(0, 1, metadata={"type": "governance_proposal", "proposal_id": "x"})]
        ),
    }
    for name, block in bad.items():
        with pytest.raises(Invalid):
            chain.commit(block, members.commit(block))
            pytest.fail(name)
    for signers in ([0, 1], []):
        with pytest.raises(Invalid, match="two thirds"):
            chain.commit(good, members.commit(good, signers))
    forged = members.commit(good, [0, 1, 2])
    forged["signatures"][0] = {**forged["signatures"][0], "signature": "00" * 64}
    with pytest.raises(Invalid, match="bad signature"):
        chain.commit(good, forged)
    assert chain.height == 1
    chain.commit(good, members.commit(good, [0, 1, 2]))
    chain.close()


def test_the_mempool_refuses_double_spends(members, tmp_path, at_level):
    at_level(1)
    chain = opened(members.data_dir(tmp_path / "d"))
    first = members.transfer(2, 0, 600.0)
    chain.mempool.add(first)
    for entry, reason in (
        (first, "duplicate"),
        (members.transfer(2, 0, 1.0), "nonce"),
        (members.transfer(2, 2, 1.0), "nonce"),
        (members.transfer(2, 1, 600.0), "funds"),
    ):
        with pytest.raises(tx.Rejected) as caught:
            chain.mempool.add(entry)
        assert caught.value.code == "transaction_rejected" and caught.value.context["reason"] == reason
    late = members.transfer(2, 2, 1.0)
    assert chain.mempool.park(late)
    chain.mempool.add(members.transfer(2, 1, 1.0))
    assert late["txid"] in chain.mempool.pending
    chain.close()
    again = opened(tmp_path / "d")
    assert len(again.mempool.pending) == 3  # kept over a stop
    block = members.extend(again, again.mempool.select(10, 10**6))
    assert len(block["transactions"]) == 3 and not again.mempool.pending
    with pytest.raises(tx.Rejected, match="already known"):
        again.mempool.add(first)
    again.close()


# -- several files as one ---------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for a SIGKILL: nothing after it runs, no handler cleans up."""


@contextlib.contextmanager
def crash_after(monkeypatch, module, calls, names=("replace", "unlink")):
    """Let so many calls of ``os.replace``/``os.unlink`` through, then end."""
    left = [calls]

    def wrap(real):
        def call(*arguments, **keywords):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(module, name, wrap(getattr(os, name)))
        yield left


def test_a_flush_is_all_or_nothing(members, tmp_path, at_level, monkeypatch):
    at_level(1)
    for calls in range(8):
        data = tmp_path / f"d{calls}"
        chain = opened(members.data_dir(data))
        for n in range(5):
            members.extend(chain, [members.transfer(0, n)])
        expected = chain.state.root()
        ended = False
        with crash_after(monkeypatch, os, calls):
            try:
                chain.flush()
                ended = True
            except Crash:
                pass
        chain.backend.close()
        chain.index.close()
        chain.lock.release()
        again = opened(data)
        assert (again.height, again.state.root()) == (5, expected), calls
        again.close()
    assert ended, "the last round must have got through, or this test crashes nothing but the start"


# -- migration --------------------------------------------------------------------------------------------------------------


def test_there_and_back_is_byte_identical(members, tmp_path, at_level):
    root = grown(members, tmp_path / "d", level_setter=at_level, level=1)
    before = tree(tmp_path / "d")
    at_level(2)
    assert migrate.main(["--data-dir", str(tmp_path / "d"), "--to", "2", "--check"]) == 0
    assert tree(tmp_path / "d") == before, "--check must change nothing"
    told = migrate.run(str(tmp_path / "d"), 2)
    assert told["changed"] and told["digest"] == root and layout.read_level(str(tmp_path / "d")) == 2
    after = tree(tmp_path / "d")
    assert "utxo.db" in after and not {"utxo_set.json", "nonces/nonces.json", "blocks/blocks_0.json"} & set(after)
    kept = set(before) & set(after) - {"checksum.json", "schema.json"}
    assert "node_identity.json" in kept and all(before[name] == after[name] for name in kept)
    assert migrate.run(str(tmp_path / "d"), 2)["changed"] is False
    chain = opened(tmp_path / "d")
    assert chain.state.root() == root
    chain.close()
    migrate.run(str(tmp_path / "d"), 1)
    again = tree(tmp_path / "d")
    ignored = {
        "journal.log",
        *(name for name in before if name.startswith(("block_index", "address_index"))),
    }  # the node ran in between
    assert {k: v for k, v in again.items() if k not in ignored} == {k: v for k, v in before.items() if k not in ignored}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.integers(0, 25), killed=st.booleans(), roll=st.sampled_from([3000, 20_000, 16 * 2**20]), extra=st.integers(0, 3))
def test_there_and_back_for_any_directory(members, blocks, killed, roll, extra):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(level1, "ROLL", roll)
        patch.setattr(level2, "ROLL", roll // 3)
        patch.setitem(release.INFO, "level", 1)
        data = pathlib.Path(folder) / "d"
        chain = opened(members.data_dir(data))
        for n in range(blocks):
            entries = [members.transfer(s, n, fee=0.5) for s in range(min(extra, n))] if n < 3 else []
            members.extend(chain, [e for e in entries if e["nonce"] == chain.state.next_nonce(e["sender"])])
        root, height = chain.state.root(), chain.height
        if killed:
            copy = pathlib.Path(folder) / "copy"
            shutil.copytree(data, copy)
            chain.close()
            data = copy
            (data / "node.lock").write_bytes(b"")
        else:
            chain.close()
        before = tree(data)
        patch.setitem(release.INFO, "level", 2)
        migrate.run(str(data), 2)
        migrate.run(str(data), 1)
        assert tree(data) == before
        migrate.run(str(data), 2)
        chain = opened(data)
        assert (chain.height, chain.state.root()) == (height, root)
        members.extend(chain)
        chain.close()
        migrate.run(str(data), 1)
        patch.setitem(release.INFO, "level", 1)
        chain = opened(data)
        assert chain.height == height + 1
        chain.close()


@pytest.mark.parametrize("direction", [(1, 2), (2, 1)])
def test_a_migration_ended_anywhere_leaves_old_or_can_be_finished(members, tmp_path, at_level, monkeypatch, direction):
    old, new = direction
    grown(members, tmp_path / "d", 4, at_level, old)
    at_level(2)
    before = tree(tmp_path / "d")
    outcomes = set()
    for calls in range(40):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        shutil.copytree(tmp_path / "d", tmp_path / "x")
        finished = False
        with crash_after(monkeypatch, os, calls):
            try:
                migrate.run(str(tmp_path / "x"), new)
                finished = True
            except Crash:
                pass
        if finished:
            break
        if (tmp_path / "x" / layout.MIGRATION_WAL).exists():
            outcomes.add("half")
            with pytest.raises(layout.StorageError, match="middle of a migration"):
                opened(tmp_path / "x")
        else:
            now = {
                k: v for k, v in tree(tmp_path / "x").items() if not k.startswith(".migration") and k != "migration_wal.json.tmp"
            }
            assert now == before or layout.read_level(str(tmp_path / "x")) == new
            outcomes.add("old" if now == before else "new")
        migrate.run(str(tmp_path / "x"), new)
        chain = opened(tmp_path / "x", compat=True)
        assert (chain.height, chain.level) == (4, new)
        chain.close()
    assert finished and {"old", "half"} <= outcomes


def test_migrate_refuses_what_it_cannot_do(members, tmp_path, at_level, capsys):
    (tmp_path / "nothing").mkdir()
    assert migrate.main(["--data-dir", str(tmp_path / "nothing"), "--to", "2"]) == 1
    assert "holds no node's data" in capsys.readouterr().err
    assert migrate.main(["--data-dir", str(tmp_path / "missing"), "--to", "2"]) == 1
    grown(members, tmp_path / "d", 2, at_level, 1)
    path = tmp_path / "d" / "blocks" / "blocks_0.json"
    path.write_bytes(path.read_bytes().replace(b"TXAI", b"TXAJ", 1))
    before = tree(tmp_path / "d")
    assert migrate.main(["--data-dir", str(tmp_path / "d"), "--to", "2"]) == 1
    assert "does not match checksum.json" in capsys.readouterr().err
    assert tree(tmp_path / "d") == before


def test_canonical_json_is_strict():
    for bad in (b'{"a":1,"a":2}', b"NaN", b"[" * 100_000, b"{", b'{"a":Infinity}'):
        with pytest.raises(ValueError):
            canon.loads(bad)
