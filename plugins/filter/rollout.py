# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure helpers for the playbooks; what they decide is decided, and tested, in module_utils."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError
from ansible_collections.chainops.validator.plugins.module_utils._fleet import rollout
from ansible_collections.chainops.validator.plugins.module_utils._fleet.network import blockers
from ansible_collections.chainops.validator.plugins.module_utils._fleet.waves import waves
from ansible_collections.chainops.validator.plugins.module_utils._governance import binding


def _readable(function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Our errors as Ansible's, with the message alone."""

    def filtered(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return function(*args, **kwargs)
        except ChainopsError as exc:
            raise AnsibleFilterError(exc.message) from exc

    return filtered


def turn_blockers(network: dict[str, t.Any], host: str, budget: float | None = None, putting_back: bool = False) -> list[str]:
    return blockers(network, host, None if budget is None else float(budget), putting_back)


def from_host(hosts: t.Sequence[str], host: str) -> list[str]:
    names = list(hosts)
    return names[names.index(host) :] if host in names else names


def cut_waves(hosts: t.Sequence[str], sizes: t.Sequence[int | str]) -> list[list[str]]:
    return [list(wave) for wave in waves(list(hosts), list(sizes))]


class FilterModule:
    """The collection's filters; each is documented in the YAML file of its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "fleet_plan": _readable(rollout.plan),
            "from_host": from_host,
            "network_nodes": rollout.nodes,
            "turn_blockers": _readable(turn_blockers),
            "upgrade_payload": _readable(binding.draft),
            "waves": _readable(cut_waves),
        }
