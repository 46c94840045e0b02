# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases, by what is hit. A name says what happens and where."""

from __future__ import annotations

from trial import Case

from . import boundaries, controllers, hosts, playbooks, proofs, users

CASES: list[Case] = [*boundaries.CASES, *controllers.CASES, *hosts.CASES, *proofs.CASES, *users.CASES, *playbooks.CASES]
