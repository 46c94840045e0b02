# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout would do to a fleet. Pure, from the facts that preflight gathered."""

from __future__ import annotations

import typing as t

from .validity import Instance
from .validity import problems as unfit
from .waves import waves

Facts = t.Mapping[str, t.Any]


def nodes(instances: t.Sequence[Facts], names: t.Sequence[str]) -> list[dict[str, str]]:
    """``[{"name", "api_url", "address"}]`` for network_info, from each host's resolved ``validator_*`` variables."""
    found = []
    for name, one in zip(names, instances):
        node = {"name": name, "api_url": str(one["validator_reader_url"])}
        if one.get("validator_address"):
            node["address"] = str(one["validator_address"])
        found.append(node)
    return found


def plan(
    hosts: t.Sequence[Facts],
    release: Facts,
    sizes: t.Sequence[int | str],
    network: Facts,
    more_readers: t.Sequence[Facts] = (),
    max_skew: float = 5.0,
) -> dict[str, t.Any]:
    """Who is to be upgraded, in which waves, and what stands against it.

    ``hosts``: preflight's fact for each host (name, machine, variables, arch, clock in seconds off, node, running, open_turn);
    ``network``: network_info's answer. A host is done when its node runs the very archive; it is then in no wave. Nothing may
    start while ``problems`` has an entry.
    """
    names = [str(one["name"]) for one in hosts]
    # Without a release (a rollback reads it from the manifests) nobody is pending.
    artifacts: Facts = release.get("artifacts") or {}
    problems = list(unfit([_instance(one) for one in hosts]))
    pending: list[str] = []
    for one in hosts:
        name, arch = str(one["name"]), str(one["arch"])
        if artifacts and arch not in artifacts:
            problems.append(f"{name} is {arch}, and release {release['id']} has archives for {', '.join(sorted(artifacts))} only")
        elif artifacts and (one["running"] or {}).get("sha256") != artifacts[arch]["sha256"]:
            pending.append(name)
        if one["open_turn"]:
            problems.append(f"{name} has an unfinished turn ({one['open_turn']['id']}): run chainops.validator.resume")
        if abs(float(one["clock"])) > max_skew:
            problems.append(f"the clock of {name} is {one['clock']} s off the controller's (at most {max_skew})")
    chains = sorted({str(one["variables"]["validator_chain"]) for one in hosts})
    if len(chains) > 1:
        problems.append(f"the hosts are of several chains: {', '.join(chains)}")
    problems += [str(problem) for problem in network["problems"]]
    everyone = nodes([one["variables"] for one in hosts], names)
    genesis = next((one["node"]["genesis_hash"] for one in hosts if one["node"].get("genesis_hash")), "")
    return {
        "chain": chains[0] if chains else "",
        "chain_id": network.get("chain_id") or genesis,
        "hosts": names,
        "pending": pending,
        "waves": [list(wave) for wave in waves(pending, sizes)] if pending else [],
        "nodes": everyone,
        "readers": [{"name": one["name"], "url": one["api_url"]} for one in everyone]
        + [{"name": str(one["name"]), "url": str(one["url"])} for one in more_readers],
        "problems": problems,
    }


def _instance(one: Facts) -> Instance:
    variables: Facts = one["variables"]
    return Instance(
        name=str(one["name"]),
        machine=str(one["machine"]),
        instance=str(variables["validator_instance"]),
        service=str(variables["validator_service"]),
        data_dir=str(variables["validator_data_dir"]),
        address=str(variables.get("validator_address") or ""),
        api_url=str(variables["validator_reader_url"]),
    )
