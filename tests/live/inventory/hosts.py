#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The devnet's own inventory script, for a devnet with XAI nodes: same hosts, other variables (the group_vars beside this)."""

import pathlib
import runpy

runpy.run_path(str(pathlib.Path(__file__).resolve().parents[3] / "inventories" / "devnet" / "hosts.py"), run_name="__main__")
