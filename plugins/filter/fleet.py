# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError
from ansible_collections.chainops.validator.plugins.module_utils._fleet import leases, network, rollout, status
from ansible_collections.chainops.validator.plugins.module_utils._fleet.waves import waves
from ansible_collections.chainops.validator.plugins.module_utils._manifest import fleet as manifests


def _said(what):
    """The same function, with our errors and missing keys said the way Ansible says errors of filters."""

    def act(*args, **kwargs):
        try:
            return what(*args, **kwargs)
        except ChainopsError as exc:
            raise AnsibleFilterError(exc.message) from exc
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise AnsibleFilterError(f"{what.__name__}: the input is not what it should be: {type(exc).__name__}: {exc}") from exc

    return act


def cut(hosts, sizes):
    """Lists of lists: what Ansible can loop over."""
    return [list(wave) for wave in waves(list(hosts), list(sizes) if not isinstance(sizes, str) else sizes)]


def from_host(hosts, host):
    """The hosts from one on, itself among them; none when it isn't there."""
    listed = list(hosts)
    return listed[listed.index(host) :] if host in listed else []


def turn_blockers(judged, host, budget=None, putting_back=False):
    """What stands against taking this host away now."""
    return network.blockers(judged, host, None if budget is None else float(budget), bool(putting_back))


class FilterModule:
    def filters(self):
        return {
            "waves": _said(cut),
            "from_host": _said(from_host),
            "network_nodes": _said(rollout.nodes),
            "turn_blockers": _said(turn_blockers),
            "fleet_plan": _said(rollout.plan),
            "way_back": _said(rollout.way_back),
            "fleet_status": _said(status.rows),
            "left_over": _said(status.left_over),
            "lock_plan": _said(leases.decide),
            "lock_held": _said(leases.held),
            "replica_looks": _said(manifests.of_round),
            "replica_asks": _said(manifests.asks),
            "replica_offers": _said(manifests.offers),
            "replica_records": _said(manifests.records),
            "replica_refusals": _said(manifests.refusals),
            "replica_verdict": _said(manifests.judge),
        }
