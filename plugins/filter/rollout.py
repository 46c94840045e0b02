# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure helpers for the playbooks; what they decide is decided, and tested, in module_utils."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError
from ansible_collections.chainops.validator.plugins.module_utils._governance import binding
from ansible_collections.chainops.validator.plugins.module_utils._report.gather import gather


def _readable(function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Our errors as Ansible's, with the message alone."""

    def filtered(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return function(*args, **kwargs)
        except ChainopsError as exc:
            raise AnsibleFilterError(exc.message) from exc

    return filtered


class FilterModule:
    """The collection's filters; each is documented in the YAML file of its name."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"evidence": _readable(gather), "upgrade_payload": _readable(binding.draft)}
