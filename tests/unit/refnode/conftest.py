# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the reference node's package on the path; what builds chains and networks is in ``refnode_support.py``."""

from __future__ import annotations

import pathlib
import sys

FILES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "devnet" / "files"
sys.path[:0] = [str(FILES), str(pathlib.Path(__file__).resolve().parent)]
