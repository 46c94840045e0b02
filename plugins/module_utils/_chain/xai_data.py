# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an XAI node's data directory means, and the two small files beside the chain that an upgrade reads or writes."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import stat
import typing as t

from .._core import canonical
from .._core.errors import IntegrityError, Refused
from .._core.files import make_dir, read_or_none, write_atomic
from .protocol import Layout, Watermark

SCHEMA = "schema.json"
LAST_SIGNED = "finality/last_signed.json"
NONCES = "nonces/nonces.json"
BLOCKS = re.compile(r"blocks_(\d+)\.json\Z")
DIGESTS = "checksum.json"
TRANSACTION = "txn_log.json"

LAYOUT = Layout(
    never_restore=(
        # Keys: a copy of them on another host, or an old one on this host, is another validator.
        "node_identity.json",
        "keys/*",
        "certs/*",
        "secure_keys/*",
        "wallets/*",
        # What was signed, and what was final because of it.
        "finality/*",
        # Slashing evidence. XAI nodes also keep the emergency pause in it: a snapshot of a drained node would come back paused.
        "slashing.db",
        "slashing.db-*",
        # The node's own log may lie in the data directory; rewinding it would lose the account of what happened.
        "logs/*",
    ),
    # A database's -wal is not among them: after a kill it holds what was committed last. Its -shm is made anew.
    volatile=("*.sock", "*.pid", "*.lock", "*.tmp", "*.next", "*-shm", "state_wal.json", "migration_wal.json", ".migration/*"),
    # journal.log is not among them: XAI empties it after each write of a block's state.
    append_only=("blocks/blocks_*.json", "blocks/blocks_*.bin"),
    stop_signal="SIGINT",
    stop_timeout=60.0,
)


def storage_level(data_dir: str) -> int | None:
    """The level in ``schema.json``; None when there is no such file (XAI writes none). Raises IntegrityError for nonsense."""
    path = os.path.join(data_dir, SCHEMA)
    raw = read_or_none(path)
    if raw is None:
        return None
    doc = canonical.loads(raw, path)
    level = doc.get("level") if isinstance(doc, dict) else None
    if not isinstance(level, int) or isinstance(level, bool) or level < 0:
        raise IntegrityError(f'{path} does not say {{"level": number}}', path=path)
    return level


def read_watermark(data_dir: str) -> Watermark | None:
    """What ``finality/last_signed.json`` says; None when there is none (XAI nodes and observers keep none).

    Raises IntegrityError when it can't be understood: then nobody knows what the key signed, and it must not sign.
    """
    doc = _last_signed(data_dir)
    return None if doc is None else _mark(doc, os.path.join(data_dir, LAST_SIGNED))


def write_watermark(data_dir: str, mark: Watermark) -> None:
    """Write the last-signed file whole and durably, with the owner and mode it had (else the data directory's owner, 0600).

    Raises Refused when it would lower the same key's mark, or replace another key's.
    """
    path = os.path.join(data_dir, LAST_SIGNED)
    old = _last_signed(data_dir)
    block_hash = None
    if old is not None:
        there = _mark(old, path)
        if there.address and mark.address and there.address != mark.address:
            raise Refused(f"{path} belongs to another key ({there.address})", path=path, address=there.address)
        if there > mark:
            raise Refused(f"{path} is at height {there.height}, above {mark.height}: a watermark never goes down", path=path)
        block_hash = old.get("block_hash") if there == mark else None
    doc = {
        "address": mark.address or (old or {}).get("address", ""),
        "height": mark.height,
        "round": mark.round,
        "step": mark.step,
        "block_hash": block_hash,
        "updated": datetime.datetime.now(tz=datetime.timezone.utc).timestamp(),
    }
    _replace(path, canonical.pretty(doc), like=data_dir)


def mend_torn_write(data_dir: str) -> dict[str, t.Any] | None:
    """Undo, or bring to its end, the writing of a block that was cut short by the node's stop. None where nothing was.

    An XAI node stops wherever its threads are. For a block it adds a line to ``blocks/blocks_<n>.json``, then replaces its
    state files together, by way of ``txn_log.json``, then writes ``checksum.json`` with the SHA-256 of all of them; torn in
    between, it starts in no release ("Blockchain data integrity check failed"), or, where the block began a file of its own, with
    coins that lack that block. So, with the node stopped: where the state is as listed, the files of blocks are cut back to where
    they have their listed digest, and peers send the block again (the node reads past a row too many in ``block_index.db``);
    where the new state is there, or ready to be moved in place, the list is written anew.

    Raises IntegrityError, and has changed nothing, when what differs is older than the list: that is no torn write.
    """
    path = os.path.join(data_dir, DIGESTS)
    raw = read_or_none(path)
    if raw is None or storage_level(data_dir) is not None:
        return None
    listed = canonical.loads(raw, path)
    if not isinstance(listed, dict) or not all(isinstance(one, str) for one in listed.values()):
        raise IntegrityError(f"{path} is not a list of digests", path=path)
    folder = os.path.join(data_dir, "blocks")
    there = [f"blocks/{name}" for name in sorted(os.listdir(folder)) if BLOCKS.match(name)] if os.path.isdir(folder) else []
    changed = [name for name in sorted({*listed, *there}) if _digest(os.path.join(data_dir, name)) != listed.get(name)]
    moves = _prepared(data_dir)
    if not changed and not moves:
        return None
    since = os.stat(path).st_mtime_ns
    for name in changed:
        try:
            written = os.stat(os.path.join(data_dir, name)).st_mtime_ns
        except FileNotFoundError:
            raise IntegrityError(f"{name} is in {path}, but not on disk", path=path, file=name) from None
        if written < since:
            raise IntegrityError(f"{name} is not what {path} says, and older: it was not torn, but changed", path=path, file=name)
    if moves or not set(changed) <= set(there):
        for source, target in moves:
            os.replace(source, target)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(data_dir, TRANSACTION))
        everything = {name: _digest(os.path.join(data_dir, name)) for name in sorted({*listed, *there})}
        _replace(path, canonical.pretty(everything), like=data_dir)
        return {"listed_anew": sorted({*changed, *(os.path.basename(target) for _source, target in moves)})}
    ends = {name: _end(os.path.join(data_dir, name), listed.get(name)) for name in changed}
    for name, end in ends.items():
        block_file = os.path.join(data_dir, name)
        if name not in listed:
            os.unlink(block_file)
            continue
        # Not in place: a snapshot may share the file.
        with open(block_file, "rb") as stream:
            _replace(block_file, stream.read(end), like=data_dir)
    return {"cut_back": ends}


def _digest(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for part in iter(lambda: stream.read(1 << 20), b""):
                digest.update(part)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def _prepared(data_dir: str) -> list[tuple[str, str]]:
    """The state files that are written whole under other names, and the names they are to get."""
    raw = read_or_none(os.path.join(data_dir, TRANSACTION))
    try:
        doc = json.loads(raw or b"{}")
        if doc.get("status") != "prepared":
            return []
        names = [(os.path.basename(one), os.path.basename(other)) for one, other in zip(doc["temp_files"], doc["files"])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # torn itself: what it was to say had not begun
    pairs = [(os.path.join(data_dir, one), os.path.join(data_dir, other)) for one, other in names]
    return [(source, target) for source, target in pairs if os.path.isfile(source)]


def _end(path: str, digest: str | None) -> int:
    """After how many bytes, at the end of a line, a file has this digest; 0 for a file that is to have none."""
    if digest is None:
        return 0
    found, end = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        for line in stream:
            if found.hexdigest() == digest:
                return end
            found.update(line)
            end += len(line)
    raise IntegrityError(f"{path} does not begin with what {DIGESTS} lists of it", path=path)


def mend_nonces(data_dir: str, *, dry: bool = False) -> dict[str, t.Any] | None:
    """Write each sender's last nonce, as the blocks on disk have it, to ``nonces/nonces.json``.

    An XAI node that doesn't mine counts nonces in its mempool only and starts from that file, which nobody keeps for it. Started
    without, it refuses for good, and "healthy", the first block in which an account that had sent something sends again. Blocks
    are lines of JSON in ``blocks/blocks_<n>.json``; where a height is there twice, the later one counts, as for the node itself.

    All blocks are read while the node is stopped; ``dry`` only looks whether it could, also while the node runs. A directory that
    tells its storage level isn't XAI's own, and its node counts by itself: nothing is written there. Raises IntegrityError when a
    block can't be read or one is missing.
    """
    folder = os.path.join(data_dir, "blocks")
    if storage_level(data_dir) is not None or not os.path.isdir(folder):
        return None
    blocks: dict[int, list[tuple[str, int]]] = {}
    numbered = ((BLOCKS.match(name), name) for name in os.listdir(folder))
    for _number, name in sorted((int(match.group(1)), name) for match, name in numbered if match):
        path = os.path.join(folder, name)
        with open(path, "rb") as stream:
            for row, line in enumerate(stream, 1):
                try:
                    index, sent = _sent(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as exc:
                    if dry and not line.endswith(b"\n"):  # a running node is writing it
                        break
                    raise IntegrityError(f"line {row} of {path} is not a block: {exc!r:.100}", path=path, line=row) from exc
                blocks[index] = sent
    if sorted(blocks) != list(range(len(blocks))):
        raise IntegrityError(f"{folder} lacks blocks: it has {len(blocks)}, up to height {max(blocks)}", path=folder)
    last: dict[str, int] = {}
    for height in range(len(blocks)):
        for sender, nonce in blocks[height]:
            last[sender] = max(last.get(sender, nonce), nonce)
    path = os.path.join(data_dir, NONCES)
    if not dry:
        _replace(path, canonical.pretty({**_numbers(path), **last}), like=data_dir)
    return {"file": NONCES, "senders": len(last), "height": len(blocks) - 1}


def _numbers(path: str) -> dict[str, int]:
    """What the file says already: addresses that never sent, such as contracts, have nonces as well. Nothing of a broken one."""
    try:
        doc = json.loads(read_or_none(path) or b"{}")
    except ValueError:
        return {}
    return (
        {key: one for key, one in doc.items() if isinstance(one, int) and not isinstance(one, bool)}
        if isinstance(doc, dict)
        else {}
    )


def _sent(block: dict[str, t.Any]) -> tuple[int, list[tuple[str, int]]]:
    """Height, and who sent with which nonce. A block's fields may be in a ``header``; a coinbase counts for nobody."""
    head = block.get("header") or block
    return int(head["index"]), [
        (str(one["sender"]), int(one["nonce"]))
        for one in block["transactions"]
        if one["sender"] != "COINBASE" and one.get("nonce") is not None
    ]


def _last_signed(data_dir: str) -> dict[str, t.Any] | None:
    path = os.path.join(data_dir, LAST_SIGNED)
    raw = read_or_none(path)
    if raw is None:
        return None
    doc = canonical.loads(raw, path)
    if not isinstance(doc, dict):
        raise IntegrityError(f"{path} is not a JSON object", path=path)
    return doc


def _mark(doc: t.Mapping[str, t.Any], path: str) -> Watermark:
    numbers = [doc.get(name) for name in ("height", "round", "step")]
    whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n >= -1]
    if len(whole) != 3 or not isinstance(doc.get("address"), str):
        raise IntegrityError(f"{path} does not hold address, height, round and step", path=path)
    return Watermark(whole[0], whole[1], whole[2], doc["address"])


def _replace(path: str, data: bytes, like: str) -> None:
    parent = os.path.dirname(path)
    facts, mode = os.stat(like), 0o600
    if not os.path.isdir(parent):
        make_dir(parent, 0o700)
        os.chown(parent, facts.st_uid, facts.st_gid)
    with contextlib.suppress(FileNotFoundError):
        facts = os.stat(path)
        mode = stat.S_IMODE(facts.st_mode)
    write_atomic(path, data, mode, (facts.st_uid, facts.st_gid))
