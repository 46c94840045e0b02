#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures snapshots and drains against what people use instead, and the gate against the node it reads; `make bench` calls it.

    tests/bench/run.py [--share 0.1]

All of it happens in build/bench/work/, which is removed at the end; the figures stay in build/bench/bench.json. Every copy is
restored, and compared with its source by a reading of our own. Exit status 1 when something failed to run or a copy was not
identical, never because of a figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import pathlib
import platform
import shutil
import signal
import sys
import time
import typing as t

import drains
import reading
import snapshots
from snapshots import Failure, clocked

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy, Record
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import tally
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest

REPO = pathlib.Path(__file__).resolve().parents[2]
OUT = REPO / "build" / "bench"
WORK = OUT / "work"

ROUNDS = 3
VOTES, ENTRIES = 100_000, 10_000

PROPOSAL = {
    "type": "governance_proposal",
    "proposal_id": "p",
    "title": "a release",
    "description": "what it brings",
    "proposal_type": "software_upgrade",
    "submitter_voting_power": 1.0,
    "proposal_payload": {"release": "2.0.0"},
}
VOTE = {"type": "governance_vote", "proposal_id": "p", "voting_power": 20.0}
ENTRY = {"time": "2026-01-01T00:00:00Z", "kind": "upgrade", "rollout_id": "r", "snapshot_id": "s", "proposal_id": "p"}


def pure() -> dict[str, dict[str, float]]:
    """Things a second that decisions get through: votes tallied, entries of a manifest verified.

    The best of some tries, as ``timeit`` advises: what takes longer is what else the machine did.
    """
    votes = [(f"voter{number}", {**VOTE, "vote": "yes" if number % 4 else "no"}) for number in range(VOTES)]
    records = [
        Record(height, 0, f"tx{height}", sender, "", metadata)
        for height, (sender, metadata) in enumerate([("submitter", PROPOSAL), *votes], 1)
    ]
    if len(tally(records, "p", Policy()).votes) != VOTES:
        raise Failure("the tally lost votes")
    entries: list[dict[str, t.Any]] = []
    for number in range(1, ENTRIES + 1):
        body = {"seq": number, "prev": entries[-1]["hash"] if entries else manifest.START, **ENTRY, "turn_id": f"t{number}"}
        entries.append({**body, "hash": canonical.digest(body)})
    path = WORK / manifest.NAME
    path.write_bytes(canonical.pretty({"format": manifest.FORMAT, "entries": entries}))
    if manifest.verify(str(path)):
        raise Failure(f"the manifest does not verify: {manifest.verify(str(path))[0]}")
    found = {}
    for what, count, work in (
        ("votes tallied", VOTES, lambda: tally(records, "p", Policy())),
        ("manifest entries verified", ENTRIES, lambda: manifest.verify(str(path))),
    ):
        seconds = min(clocked(work)[0] for dummy in range(2 * ROUNDS))
        found[what] = {"count": count, "seconds": seconds, "per_second": count / seconds}
    return found


def share(value: str) -> float:
    """A number above 0 and up to 1."""
    number = float(value)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a share above 0 and up to 1")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=share, default=1.0, help="of the full size of the data directories, such as 0.1")
    parser.add_argument("--engine", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--seed", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        return snapshots.engine(*arguments.engine)
    if arguments.seed:
        return snapshots.seed(*arguments.seed)
    # Ended from outside, it still removes what it made.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        # The data, a copy, and the tree of a restore; some room beside them.
        if shutil.disk_usage(WORK).free < 4.5 * snapshots.Large.full * arguments.share:
            raise Failure(f"not enough space in {OUT}: 4.5 times the data is needed; give a smaller SHARE")
        began = time.monotonic()
        decisions = pure()
        gate = reading.measure()
        measured, limits, left_out = snapshots.measure(WORK, arguments.share)
        drained, not_drained = drains.measure()
        left_out = [*left_out, *not_drained]
    except (Failure, drains.Failure, ValueError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": os.getloadavg(),
    }
    document = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "seconds": time.monotonic() - began,
        "share": arguments.share,
        "limits": dataclasses.asdict(limits),
        "snapshots": [bench.as_dict() for bench in measured],
        "left_out": left_out,
        "decisions": decisions,
        "drains": [dataclasses.asdict(one) for one in drained],
        "gate": gate,
    }
    (OUT / "bench.json").write_bytes(canonical.pretty(document))
    print(
        "Every sync is counted; the page cache was "
        + ("dropped before each measurement" if all(bench.cold for bench in measured) else "warm: dropping it takes root")
        + f". x: times ours. Disk: reads {limits.read / 1e9:.2f} and writes {limits.write / 1e9:.2f} GB/s, SHA-256 "
        f"{limits.sha256 / 1e9:.2f} GB/s on all cores."
    )
    for bench in measured:
        print(f"\n{bench.table(limits)}")
    for what in left_out:
        print(f"\nnot measured: {what}")
    print()
    for what, figures in decisions.items():
        print(f"{'decisions':13}{figures['count']:,} {what} in {figures['seconds']:.3f} s: {figures['per_second']:,.0f} a second")
    print(
        f"{'gate':13}{gate['blocks']:,} blocks replayed from one reader in {gate['replay_seconds']:.1f} s; the node serves them "
        f"in {gate['served_seconds']:.1f} s over {gate['connections']} connections: x {gate['ratio']:.2f} of what it can serve; "
        f"again, from the cache, in {gate['again_seconds']:.2f} s"
    )
    for one in drained:
        print(f"{'drain':13}{one.line()}")
    print(f"{'machine':13}{machine['cores']} cores, load {machine['load'][0]:.1f}; {document['seconds']:.0f} s in all")
    return 1 if any(bench.failed() for bench in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
