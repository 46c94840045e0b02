# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._chain import usage, xai_data
from ansible_collections.chainops.validator.plugins.module_utils._chain.protocol import Watermark
from ansible_collections.chainops.validator.plugins.module_utils._chain.xai import XaiAdapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import IntegrityError, Refused


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data/finality").mkdir(parents=True)
    return tmp_path / "data"


def last_signed(data, **fields):
    doc = {"address": "TXAIa", "height": 7, "round": 1, "step": 3, "block_hash": "ab", "updated": 1.0, **fields}
    (data / "finality/last_signed.json").write_text(json.dumps(doc))
    return doc


def test_level(data):
    assert xai_data.storage_level(str(data)) is None
    (data / "schema.json").write_text('{"level": 2}')
    assert xai_data.storage_level(str(data)) == 2


@pytest.mark.parametrize(
    "text", ["", "2", '{"level": "2"}', '{"level": true}', '{"level": -1}', "{}", '{"level": 1, "level": 2}']
)
def test_a_level_that_is_none_is_an_error(data, text):
    (data / "schema.json").write_text(text)
    with pytest.raises(IntegrityError):
        xai_data.storage_level(str(data))


def test_watermark_is_read(data):
    assert xai_data.read_watermark(str(data)) is None
    last_signed(data)
    mark = xai_data.read_watermark(str(data))
    assert mark == Watermark(7, 1, 3)
    assert mark.address == "TXAIa"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"height": 7}', '{"address":"a","height":"7","round":0,"step":1}'])
def test_a_watermark_that_cannot_be_read_is_an_error(data, text):
    (data / "finality/last_signed.json").write_text(text)
    with pytest.raises(IntegrityError):
        xai_data.read_watermark(str(data))


def test_watermark_is_written_with_the_owner_and_mode_it_had(data):
    last_signed(data)
    path = data / "finality/last_signed.json"
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    xai_data.write_watermark(str(data), Watermark(8, 0, 2, "TXAIa"))
    facts = path.stat()
    assert facts.st_mode & 0o7777 == 0o640
    if os.geteuid() == 0:
        assert (facts.st_uid, facts.st_gid) == (12345, 23456)
    doc = json.loads(path.read_text())
    assert {**doc, "updated": 0} == {
        "address": "TXAIa",
        "height": 8,
        "round": 0,
        "step": 2,
        "block_hash": None,
        "updated": 0,
    }
    assert os.listdir(data / "finality") == ["last_signed.json"]


def test_a_new_watermark_belongs_to_the_data_directorys_owner(tmp_path):
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 23456)
    xai_data.write_watermark(str(tmp_path), Watermark(8, 0, 2, "TXAIa"))
    for path in (tmp_path / "finality", tmp_path / "finality/last_signed.json"):
        assert path.stat().st_uid == tmp_path.stat().st_uid
    assert (tmp_path / "finality/last_signed.json").stat().st_mode & 0o7777 == 0o600


@given(st.tuples(*[st.integers(0, 3)] * 3), st.tuples(*[st.integers(0, 3)] * 3))
def test_a_watermark_never_goes_down(tmp_path_factory, old, new):
    data = tmp_path_factory.mktemp("data")
    (data / "finality").mkdir()
    last_signed(data, height=old[0], round=old[1], step=old[2])
    if new < old:
        with pytest.raises(Refused, match="never goes down"):
            xai_data.write_watermark(str(data), Watermark(*new, address="TXAIa"))
    else:
        xai_data.write_watermark(str(data), Watermark(*new, address="TXAIa"))
    assert xai_data.read_watermark(str(data)) == Watermark(*max(old, new))


def test_writing_what_is_there_keeps_what_was_signed(data):
    last_signed(data)
    xai_data.write_watermark(str(data), Watermark(7, 1, 3, "TXAIa"))
    assert json.loads((data / "finality/last_signed.json").read_text())["block_hash"] == "ab"


def test_another_keys_watermark_is_not_replaced(data):
    last_signed(data)
    with pytest.raises(Refused, match="another key"):
        xai_data.write_watermark(str(data), Watermark(9, 0, 0, "TXAIother"))


def matches(patterns, path):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def test_what_a_restore_must_not_touch():
    layout = xai_data.LAYOUT
    for path in ("node_identity.json", "finality/last_signed.json", "slashing.db", "slashing.db-wal", "keys/p2p/key.pem"):
        assert matches(layout.never_restore, path), path
    for path in ("blocks/blocks_0.json", "utxo_set.json", "genesis.json", "nonces/nonces.json", "checksum.json", "journal.log"):
        assert not matches(layout.never_restore + layout.volatile, path), path
    assert matches(layout.append_only, "blocks/blocks_12.json")
    assert not matches(layout.append_only, "journal.log")


HOLD = "import sys,fcntl,os,time\n{}\nprint('ready',flush=True)\nsys.stdin.read()"


def holder(code, *args, cwd=None):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(code), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd
    )
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("code", "args", "used"),
    [
        ("f=open('DIR/blocks.json','a')", (), True),
        ("os.makedirs('DIR/a/b');f=open('DIR/a/b/log','w')", (), True),
        ("f=open('DIR/there');fcntl.flock(f,fcntl.LOCK_EX)", (), True),
        ("import mmap;f=open('DIR/there','r+b');m=mmap.mmap(f.fileno(),1);f.close()", (), True),
        ("", ("--data-dir", "DIR"), True),
        ("", ("--data-dir=DIR/../data",), True),
        ("", ("--data-dir", "."), True),
        ("f=open('DIR/there')", (), False),
        ("f=open('DIR-other','w')", (), False),
        ("", ("--data-dir", "/"), False),
    ],
)
def test_who_uses_a_directory(tmp_path, code, args, used):
    root = tmp_path / "data"
    root.mkdir()
    (root / "there").write_text("x")
    process = holder(code.replace("DIR", str(root)), *(a.replace("DIR", str(root)) for a in args), cwd=str(root))
    try:
        assert usage.user_of(str(root)) == (process.pid if used else None)
    finally:
        process.communicate(b"", timeout=10)
    assert usage.user_of(str(root)) is None


def test_we_and_the_dead_do_not_count(tmp_path):
    with open(tmp_path / "mine", "w"):
        assert usage.user_of(str(tmp_path)) is None
    zombie = subprocess.Popen([sys.executable, "-c", "pass", "--data-dir", str(tmp_path)])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert usage.user_of(str(tmp_path)) is None
    zombie.wait()
    assert usage.user_of(str(tmp_path / "missing")) is None


def block(index, *sent, **more):
    transactions = [{"sender": "COINBASE", "nonce": None}, *({"sender": sender, "nonce": nonce} for sender, nonce in sent)]
    return json.dumps({"index": index, "transactions": transactions, **more}) + "\n"


def write_blocks(data, *files):
    (data / "blocks").mkdir()
    for number, lines in enumerate(files):
        (data / "blocks" / f"blocks_{number}.json").write_text("".join(lines))
    (data / "nonces").mkdir()
    (data / "nonces/nonces.json").write_text("{}")


def nonces(data):
    return json.loads((data / "nonces/nonces.json").read_text())


def test_each_senders_last_nonce_is_written(data):
    write_blocks(data, [block(0), block(1, ("a", 0), ("b", 0))], [block(2, ("a", 1), ("a", 2)), block(3)])
    assert xai_data.mend_nonces(str(data)) == {"file": "nonces/nonces.json", "senders": 2, "height": 3}
    assert nonces(data) == {"a": 2, "b": 0}
    assert xai_data.mend_nonces(str(data)) == {"file": "nonces/nonces.json", "senders": 2, "height": 3}
    assert nonces(data) == {"a": 2, "b": 0}


@pytest.mark.parametrize(("there", "kept"), [('{"contract": 4, "a": 7, "x": "y"}', {"contract": 4}), ("{", {}), ("[]", {})])
def test_what_blocks_say_nothing_of_stays(data, there, kept):
    write_blocks(data, [block(0, ("a", 0))])
    (data / "nonces/nonces.json").write_text(there)
    xai_data.mend_nonces(str(data))
    assert nonces(data) == {**kept, "a": 0}


def test_of_two_blocks_at_a_height_the_later_one_counts(data):
    """XAI appends the other branch of a reorganisation, and loads the last line that it finds for a height."""
    write_blocks(data, [block(0), block(1, ("a", 0)), block(2, ("a", 1)), block(1, ("b", 0)), block(2)])
    xai_data.mend_nonces(str(data))
    assert nonces(data) == {"b": 0}


def test_files_are_in_the_order_of_their_numbers(data):
    write_blocks(data, *([block(index, ("a", index))] for index in range(11)), [block(10, ("a", 99))])
    xai_data.mend_nonces(str(data))
    assert nonces(data) == {"a": 99}


def test_a_header_may_be_apart(data):
    write_blocks(data, [json.dumps({"header": {"index": 0}, "transactions": [{"sender": "a", "nonce": 0}]}) + "\n"])
    xai_data.mend_nonces(str(data))
    assert nonces(data) == {"a": 0}


@pytest.mark.parametrize("lines", [[block(0), '{"index": 1, "trans'], [block(0), "[]\n"], [block(0), block(2)], [block(1)]])
def test_blocks_that_cannot_be_counted_are_an_error_and_nothing_is_written(data, lines):
    write_blocks(data, lines)
    with pytest.raises(IntegrityError):
        xai_data.mend_nonces(str(data))
    assert nonces(data) == {}


def test_looking_writes_nothing(data):
    write_blocks(data, [block(0, ("a", 0))])
    assert xai_data.mend_nonces(str(data), dry=True)["senders"] == 1
    assert nonces(data) == {}


def test_a_node_that_counts_by_itself_is_left_alone(data):
    write_blocks(data, [block(0, ("a", 0))])
    (data / "schema.json").write_text('{"level": 1}')
    assert xai_data.mend_nonces(str(data)) is None
    assert nonces(data) == {}


def test_without_blocks_there_is_nothing_to_mend(data):
    assert xai_data.mend_nonces(str(data)) is None


# --- a write that the node's stop tore


STATE = ("utxo_set.json", "pending_transactions.json", "contracts_state.json", "contract_receipts.json")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add_block(data, height, number=0, length=1):
    """What an XAI node does for a block, write by write. The state is the height that it is of."""
    path = data / f"blocks/blocks_{number}.json"
    lines = block(height, (f"sender{height}", 0))
    if length < 1:
        path.write_text((path.read_text() if path.exists() else "") + lines[: int(len(lines) * length)])
        yield "a part of the line"
        return
    with path.open("a") as stream:
        stream.write(lines)
    yield "the line"
    temporary = [f"{name}.tmp.txn_{height}" for name in STATE]
    log = {"id": "txn", "status": "pending", "files": [str(data / name) for name in STATE], "temp_files": []}
    (data / "txn_log.json").write_text(json.dumps(log))
    yield "pending"
    for name in temporary:
        (data / name).write_text(json.dumps(height))
        yield name
    log.update(status="prepared", temp_files=[str(data / name) for name in temporary])
    (data / "txn_log.json").write_text(json.dumps(log))
    yield "prepared"
    for source, target in zip(temporary, STATE):
        (data / source).replace(data / target)
        yield target
    (data / "txn_log.json").unlink()
    yield "the state"
    names = [*STATE, *(f"blocks/{one.name}" for one in (data / "blocks").iterdir())]
    (data / "next").write_text(json.dumps({name: digest(data / name) for name in names}))
    (data / "next").replace(data / "checksum.json")


@pytest.fixture
def running(data):
    (data / "blocks").mkdir()
    for height in range(3):
        list(add_block(data, height))
    return data


def starts(data):
    """Whether an XAI node takes its files for good, and which height blocks and state are at."""
    listed = json.loads((data / "checksum.json").read_text())
    assert {name: digest(data / name) for name in listed} == listed
    lines = [json.loads(line) for path in sorted((data / "blocks").iterdir()) for line in path.read_text().splitlines()]
    heights = {json.loads((data / name).read_text()) for name in STATE}
    assert heights == {lines[-1]["index"]}, (heights, lines[-1])
    return lines[-1]["index"]


def test_nothing_is_mended_where_nothing_was_torn(running):
    before = {path: path.read_bytes() for path in running.rglob("*") if path.is_file()}
    assert xai_data.mend_torn_write(str(running)) is None
    assert {path: path.read_bytes() for path in running.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("number", [0, 1], ids=["same file", "next file"])
def test_wherever_a_write_is_torn_blocks_and_state_go_together_after(running, tmp_path, number):
    writes = list(add_block(shutil.copytree(running, tmp_path / "whole"), 3, number))
    reached = []
    for torn in range(1, len(writes) + 1):
        data = shutil.copytree(running, tmp_path / f"torn{torn}")
        for _write in itertools.islice(add_block(data, 3, number), torn):
            pass
        assert xai_data.mend_torn_write(str(data)) is not None, writes[torn - 1]
        reached.append(starts(data))
        assert xai_data.mend_torn_write(str(data)) is None
    assert reached == [2] * writes.index("prepared") + [3] * (len(writes) - writes.index("prepared"))


def test_a_line_that_was_cut_short_goes_and_its_file_is_a_new_one(running, tmp_path):
    path = running / "blocks/blocks_0.json"
    os.link(path, tmp_path / "shared")  # as a snapshot may
    assert list(add_block(running, 3, length=0.5)) == ["a part of the line"]
    torn = path.read_bytes()
    mode = path.stat().st_mode
    assert XaiAdapter().mend(str(running)) == {
        "file": "nonces/nonces.json",
        "senders": 3,
        "height": 2,
        "torn_write": {"cut_back": {"blocks/blocks_0.json": path.stat().st_size}},
    }
    assert starts(running) == 2 and path.stat().st_mode == mode
    assert (tmp_path / "shared").read_bytes() == torn


@pytest.mark.parametrize("name", ["blocks/blocks_0.json", "utxo_set.json"])
def test_what_changed_before_the_list_was_written_is_no_torn_write(running, name):
    path = running / name
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(0, (running / "checksum.json").stat().st_mtime_ns - 1))
    with pytest.raises(IntegrityError, match="was not torn"):
        xai_data.mend_torn_write(str(running))
    assert path.read_bytes().endswith(b" ")


def test_blocks_that_were_rewritten_or_are_gone_are_not_mended(running):
    path = running / "blocks/blocks_0.json"
    path.write_text(block(0) + block(1) + block(2) + block(3))
    with pytest.raises(IntegrityError, match="does not begin with"):
        xai_data.mend_torn_write(str(running))
    path.unlink()
    with pytest.raises(IntegrityError, match="not on disk"):
        xai_data.mend_torn_write(str(running))


def test_a_node_without_a_list_or_of_another_kind_is_left_alone(running):
    next(add_block(running, 3))
    (running / "schema.json").write_text('{"level": 1}')
    assert xai_data.mend_torn_write(str(running)) is None
    (running / "schema.json").unlink()
    (running / "checksum.json").write_text("[]")
    with pytest.raises(IntegrityError, match="not a list of digests"):
        xai_data.mend_torn_write(str(running))
    (running / "checksum.json").unlink()
    assert xai_data.mend_torn_write(str(running)) is None
