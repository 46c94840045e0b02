# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._host.probe import Sample, Wanted, judge, network_height

WANTED = Wanted(
    release="/r/new",
    version="2.0.0",
    address="TXAIa",
    floor=100,
    advance=2,
    max_lag=2,
    min_peers=2,
    equivocations=0,
    must_sign=True,
)
PEER = {"height": 103, "compared": 102, "same": True}
GOOD = Sample(
    alive=True,
    release="/r/new",
    status={"height": 102, "version": "2.0.0", "address": "txaiA", "healthy": True, "issues": ()},
    peers={"a": PEER, "b": PEER, "c": PEER},
    equivocations=0,
    signed=True,
)


def changed(status: dict[str, t.Any] | None = None, **fields: t.Any) -> Sample:
    if status is not None:
        fields["status"] = {**(GOOD.status or {}), **status}
    return dataclasses.replace(GOOD, **fields)


def test_a_node_that_follows_passes() -> None:
    assert judge(WANTED, GOOD).ok


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (changed(alive=False), "the process is gone"),
        (changed(release="/r/old"), "runs /r/old"),
        (changed({"version": "1.0.0"}), "tells version 1.0.0"),
        (changed({"address": "TXAIb"}), "signs as TXAIb"),
        (changed(equivocations=1), "1 new equivocation"),
    ],
)
def test_what_no_waiting_mends(sample: Sample, says: str) -> None:
    verdict = judge(WANTED, sample)
    assert not verdict.ok and says in "; ".join(verdict.fatal)


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (changed(release=None), "can't be told"),
        (dataclasses.replace(GOOD, status=None), "doesn't answer"),
        (changed({"address": None}), "doesn't tell its address"),
        (changed({"healthy": False, "issues": ("storage_unwritable",)}), "storage_unwritable"),
        (changed({"height": 101}), "102 is needed"),
        (changed(peers={"a": PEER, "b": None, "c": None}), "1 of 3 peers answer"),
        (changed(peers={"a": {**PEER, "same": False}, "b": {**PEER, "same": False}, "c": PEER}), "another block have: a, b"),
        # What is the same is older than the stop: a fork would have it, too.
        (changed(peers={name: {"height": 103, "compared": 100, "same": True} for name in "abc"}), "0 peers have the same block"),
        (changed(peers={name: {"height": 110, "compared": 102, "same": True} for name in "abc"}), "8 behind its peers"),
        (changed(signed=False), "not signed a block"),
    ],
)
def test_what_is_not_yet_so(sample: Sample, says: str) -> None:
    verdict = judge(WANTED, sample)
    assert not verdict.ok and not verdict.fatal and says in "; ".join(verdict.pending)


def test_what_a_chain_does_not_tell_is_not_held_against_it() -> None:
    silent = changed({"version": None}, equivocations=None, signed=None)
    assert judge(WANTED, silent).ok
    assert judge(dataclasses.replace(WANTED, version=None, address=None, min_peers=0), changed({"address": None}, peers={})).ok


def test_one_liar_does_not_raise_the_height_of_the_network() -> None:
    peers = {name: {"height": height} for name, height in (("a", 100), ("b", 101), ("c", 10**9))}
    assert network_height(peers) == 101
    assert network_height({"a": {"height": 7}, "b": {"height": 10**9}}) == 7
    assert network_height({"a": None}) is None
