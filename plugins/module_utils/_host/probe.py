# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the new release follow the chain? Samples are taken by the engine; the verdict is a pure function.

"Healthy" is never enough: a node that says so and stays at its height, follows another chain or signs with another key, fails.
"""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class Sample:
    """One look at the node and its peers.

    ``release``: real path of the release the process runs (None: can't be told). ``status``: the node's status as a dict, or None
    while it doesn't answer. ``peers``: url to ``{"height", "compared", "same"}`` (is their block at height ``compared`` ours?) or
    None where unreachable. ``equivocations``: those known of the expected address (None: not asked or not told). ``signed``: the
    expected address signed a block above where it started (None: the chain doesn't tell).
    """

    alive: bool
    release: str | None = None
    status: t.Mapping[str, t.Any] | None = None
    peers: t.Mapping[str, t.Mapping[str, t.Any] | None] = dataclasses.field(default_factory=dict)
    equivocations: int | None = None
    signed: bool | None = None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a plan and its stop expect. ``floor``: the height to be passed by ``advance`` blocks."""

    release: str
    version: str | None
    address: str | None
    floor: int
    advance: int
    max_lag: int
    min_peers: int
    equivocations: int | None
    must_sign: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``fatal``: no waiting will mend it. ``pending``: what is not yet so. Neither: it follows the chain."""

    fatal: tuple[str, ...]
    pending: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.fatal and not self.pending

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.fatal or self.pending


def network_height(peers: t.Mapping[str, t.Mapping[str, t.Any] | None]) -> int | None:
    """The height that at least half of the answering peers have reached (a single liar can't raise it). None: nobody answers."""
    heights = sorted(peer["height"] for peer in peers.values() if peer is not None)
    return heights[(len(heights) - 1) // 2] if heights else None


def judge(wanted: Wanted, sample: Sample) -> Verdict:
    """Decide about one sample."""
    if not sample.alive:
        return Verdict(("the process is gone",), ())
    fatal: list[str] = []
    pending: list[str] = []
    if sample.release is None:
        pending.append("which release the process runs can't be told")
    elif sample.release != wanted.release:
        fatal.append(f"the process runs {sample.release}, not {wanted.release}")
    status = sample.status
    if status is None:
        return Verdict(tuple(fatal), (*pending, "its API doesn't answer"))
    version, address, height = status.get("version"), status.get("address"), status["height"]
    if wanted.version is not None and version is not None and version != wanted.version:
        fatal.append(f"it tells version {version}, not {wanted.version}")
    if wanted.address is not None:
        if address is None:
            pending.append("it doesn't tell its address")
        elif address.lower() != wanted.address.lower():
            fatal.append(f"it signs as {address}, not {wanted.address}")
    if not status.get("healthy"):
        pending.append("it doesn't say it is healthy: " + (", ".join(status.get("issues") or ()) or "no reason given"))
    if height < wanted.floor + wanted.advance:
        pending.append(f"height {height}; {wanted.floor + wanted.advance} is needed ({wanted.floor} + {wanted.advance})")
    pending.extend(_against_peers(wanted, sample, height))
    if wanted.equivocations is not None and sample.equivocations is not None and sample.equivocations > wanted.equivocations:
        fatal.append(f"{sample.equivocations - wanted.equivocations} new equivocation(s) recorded for its key")
    if wanted.must_sign and sample.signed is False:
        pending.append("it has not signed a block since it started")
    return Verdict(tuple(fatal), tuple(pending))


def _against_peers(wanted: Wanted, sample: Sample, height: int) -> list[str]:
    if wanted.min_peers <= 0:
        return []
    answering = {url: peer for url, peer in sample.peers.items() if peer is not None}
    if len(answering) < wanted.min_peers:
        return [f"{len(answering)} of {len(sample.peers)} peers answer; {wanted.min_peers} are needed"]
    found: list[str] = []
    network = network_height(answering)
    if network is not None and height < network - wanted.max_lag:
        found.append(f"height {height} is {network - height} behind its peers ({network})")
    # A block from before the stop would be the same on a fork, too: only newer ones tell.
    newer = [url for url, peer in answering.items() if peer["compared"] > wanted.floor]
    same = [url for url in newer if answering[url]["same"]]
    if len(same) < wanted.min_peers:
        others = sorted(set(newer) - set(same))
        found.append(
            f"{len(same)} peers have the same block above height {wanted.floor}, {wanted.min_peers} are needed"
            + (f"; another block have: {', '.join(others)}" if others else "")
        )
    return found
