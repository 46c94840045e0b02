# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

#: Findings of network_info that say that nodes don't follow one chain.
_APART = {"unreachable", "fork", "no_block", "behind", "chain"}


def _flag(value, *path):
    """A boolean at a path of a result; what isn't there, or isn't a boolean, is an error: a gate never opens by a misspelling."""
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            raise AnsibleFilterError(f"expected a module's result with {'.'.join(path)}, and there is no {name}")
        value = value[name]
    if not isinstance(value, bool):
        raise AnsibleFilterError(f"{'.'.join(path)} is not a boolean")
    return value


def approved(result):
    """Whether the gate is open, as governance_proposal_info rebuilt it from the chain."""
    return _flag(result, "verdict", "open")


def synced(result):
    """Whether a node met what it was waited for, or all nodes of a network follow one chain."""
    if isinstance(result, Mapping) and "network" in result:
        apart = {finding["kind"] for finding in result["network"]["findings"]} & _APART
        return _flag(result, "network", "agree") and not apart
    return _flag(result, "met") and _flag(result, "node", "reachable")


class TestModule:
    def tests(self):
        return {"approved": approved, "synced": synced}
