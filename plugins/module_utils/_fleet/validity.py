# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an inventory describes a fleet that a rollout can act on. Pure."""

from __future__ import annotations

import dataclasses
import posixpath
import typing as t
import urllib.parse


@dataclasses.dataclass(frozen=True)
class Instance:
    """One inventory host: one instance. ``machine`` tells machines apart (a machine id, or where it is connected to)."""

    name: str
    machine: str
    instance: str
    service: str = ""
    data_dir: str = ""
    address: str = ""
    api_url: str = ""


def problems(instances: t.Sequence[Instance]) -> tuple[str, ...]:
    """What stands against acting on these instances; empty when nothing does.

    Several instances on one machine are fine while they share neither name, service nor data directory. Two that share a
    signing address, or an API as others see it, are one instance under two names, or one key on two hosts: the thing that must
    never be (two of them would sign at one height).
    """
    if not instances:
        return ("there are no validators to act on",)
    found: list[str] = []
    names = [one.name for one in instances]
    found += [f"{name} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
    found += [f"{one.name} has no instance name" for one in instances if not one.instance]
    found += _shared(instances, "the instance name {} on one machine", lambda one: one.instance and (one.machine, one.instance))
    found += _shared(instances, "the service {} on one machine", lambda one: one.service and (one.machine, one.service))
    found += _shared(instances, "the data directory {} on one machine", lambda one: one.data_dir and (one.machine, _path(one)))
    found += _shared(instances, "the signing address {} (one key on two hosts signs twice)", lambda one: (one.address.lower(),))
    found += _shared(instances, "the API {}", lambda one: (_api(one.api_url),))
    for one in instances:
        for other in instances:
            same_machine = one is not other and one.machine == other.machine and one.data_dir and other.data_dir
            if same_machine and _path(other).startswith(_path(one) + "/"):
                found.append(f"the data directory of {other.name} lies inside that of {one.name}")
    return tuple(found)


def _shared(instances: t.Sequence[Instance], what: str, key: t.Callable[[Instance], t.Any]) -> list[str]:
    groups: dict[t.Any, list[str]] = {}
    for one in instances:
        value = key(one)
        if value and value[-1]:
            groups.setdefault(value, []).append(one.name)
    return [
        f"{' and '.join(names)} share {what.format(value[-1])}" for value, names in sorted(groups.items()) if len(set(names)) > 1
    ]


def _path(one: Instance) -> str:
    return posixpath.normpath(one.data_dir)


def _api(url: str) -> str:
    parts = urllib.parse.urlsplit(url.strip())
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    return f"{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}" if parts.hostname else ""
