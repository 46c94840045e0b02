# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small part of the study of simulated rollouts, with bounds: seeded, so that it says the same each time."""

from __future__ import annotations

import pytest

from ansible_collections.chainops.validator.tests.bench import canary_study as study

RUNS = 20


@pytest.mark.parametrize("kind", study.KINDS, ids=lambda kind: kind.name)
def test_good_ones_go_on_and_bad_ones_do_not(kind: study.Kind) -> None:
    share = study.rates(kind, 5 if kind.blind else RUNS, 7)
    if kind.good:
        assert share["fail"] <= max(0.05, kind.may_stop / 2) and share["pass"] >= 1 - kind.may_stop, share
    elif kind.blind:
        assert share["inconclusive"] == 1, share
    else:
        assert share["pass"] <= kind.may_pass, share
