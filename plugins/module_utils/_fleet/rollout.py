# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout would do to a fleet: pure, from the facts that preflight gathered."""

from __future__ import annotations

import re
import typing as t

from .network import blockers
from .validity import Instance, problems
from .waves import waves

Facts = t.Mapping[str, t.Any]
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def nodes(instances: t.Sequence[Facts], names: t.Sequence[str]) -> list[dict[str, str]]:
    """``[{"name", "api_url", "address"}]`` for network_info, from each host's resolved ``validator_*`` variables."""
    return [
        {"name": name, "api_url": str(one["validator_reader_url"]), "address": str(one.get("validator_address") or "")}
        for name, one in zip(names, instances)
    ]


def instances(hosts: t.Sequence[Facts]) -> list[Instance]:
    """For ``validity.problems``, from preflight's facts. Without ``machine``, each host is taken for a machine of its own."""
    made = []
    for one in hosts:
        its: Facts = one["variables"]
        made.append(
            Instance(
                name=str(one["name"]),
                machine=str(one.get("machine") or one["name"]),
                instance=str(its.get("validator_instance") or ""),
                service=str(its.get("validator_service") or ""),
                data_dir=str(its.get("validator_data_dir") or ""),
                address=str(its.get("validator_address") or ""),
                api_url=str(its.get("validator_reader_url") or ""),
            )
        )
    return made


def plan(
    hosts: t.Sequence[Facts],
    release: Facts,
    sizes: t.Sequence[int | str],
    network: Facts,
    more_readers: t.Sequence[Facts] = (),
    power_budget: float | None = None,
    putting_back: bool = False,
) -> dict[str, t.Any]:
    """Who is to be upgraded, in which waves, and what stands against it.

    ``hosts``: preflight's fact for each host (name, variables, arch, node, running, open_turn, machine);
    ``network``: network_info's answer. A host is done when its node runs the very archive; it is then in no wave.
    ``putting_back``: the fleet is taken back, and that the network isn't well may be just why; each turn looks again.
    Nothing may start while ``problems`` has an entry. Raises InputError for sizes that are none.
    """
    names = [str(one["name"]) for one in hosts]
    found = list(problems(instances(hosts)))
    pending: list[str] = []
    for one in hosts:
        if not _done(one, release):
            pending.append(str(one["name"]))
        found += _of_host(one, release)
    chains = sorted({str(one["variables"]["validator_chain"]) for one in hosts})
    ids = sorted({str(one["node"]["chain_id"]) for one in hosts if one["node"].get("chain_id")})
    if len(chains) > 1 or len(ids) > 1:
        found.append(f"the hosts are not of one chain: {', '.join(chains)}; {', '.join(ids)}")
    found += [str(problem) for problem in network.get("problems", ())] if not putting_back else []
    if not found and not putting_back:
        for name in pending:
            found += [f"{name} can't be spared: {reason}" for reason in blockers(network, name, power_budget)]
    genesis = next((str(one["node"]["genesis_hash"]) for one in hosts if one["node"].get("genesis_hash")), "")
    everyone = nodes([one["variables"] for one in hosts], names)
    return {
        "chain": chains[0] if chains else "",
        # A chain without an id is known by its first block.
        "chain_id": ids[0] if ids else genesis,
        "hosts": names,
        "pending": pending,
        "waves": [list(wave) for wave in waves(list(dict.fromkeys(pending)), sizes)],
        "nodes": everyone,
        "readers": [{"name": one["name"], "url": one["api_url"]} for one in everyone] + [dict(one) for one in more_readers],
        "height": network.get("height_max"),
        "problems": found,
    }


def way_back(entries: t.Sequence[Facts], rollout_id: str, running: Facts) -> dict[str, t.Any]:
    """The manifest's entry by which this rollout brought a host to what it runs; empty when it didn't, or took it back already.

    ``running``: as validator_upgrade_info tells it. The release that the link leads to counts, also while the node is down.
    """
    linked = str(running.get("link") or "").rpartition("/")[2]
    runs = {linked} if _DIGEST.match(linked) else {str(running.get("sha256") or "")}
    for entry in reversed(entries):
        if entry["kind"] == "upgrade" and entry.get("rollout_id") == rollout_id and entry.get("snapshot_id"):
            return dict(entry) if (entry.get("release") or {}).get("sha256") in runs else {}
    return {}


def _done(one: Facts, release: Facts) -> bool:
    artifact = release["artifacts"].get(one["arch"])
    return artifact is not None and (one["running"] or {}).get("sha256") == artifact["sha256"]


def _of_host(one: Facts, release: Facts) -> list[str]:
    name, known = one["name"], ", ".join(sorted(release["artifacts"]))
    found = []
    if one["arch"] not in release["artifacts"]:
        found.append(f"{name} is {one['arch']}, and release {release['id']} has archives for {known} only")
    if one["open_turn"]:
        found.append(f"{name} has an unfinished turn ({one['open_turn']}): run chainops.validator.resume")
    return found
