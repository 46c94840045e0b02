# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this release is: read from ``release.json`` at the root of the unpacked archive."""

from __future__ import annotations

import json
import os
import typing as t

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _load() -> dict[str, t.Any]:
    """A checkout has no release.json: it is a development build that knows everything."""
    try:
        with open(os.path.join(ROOT, "release.json"), encoding="utf-8") as handle:
            return {"id": "dev", "version": "0.0.0-dev", "level": 2, **json.load(handle)}
    except FileNotFoundError:
        level = int(os.environ.get("REFNODE_DEV_LEVEL", "2"))
        return {"id": "dev", "version": "0.0.0-dev", "level": level}


INFO = _load()
