# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import Chain


@pytest.fixture
def chain() -> Chain:
    return Chain()
