# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The adapters there are: plain imports, so that whatever packs this collection's code finds them."""

from __future__ import annotations

from .protocol import ChainAdapter, require_chain
from .xai import XaiAdapter

_ADAPTERS: dict[str, ChainAdapter] = {XaiAdapter.name: XaiAdapter()}


def adapter(name: str) -> ChainAdapter:
    """The adapter of a chain. Raises InputError for a name nobody wrote one for."""
    require_chain(name, _ADAPTERS)
    return _ADAPTERS[name]
