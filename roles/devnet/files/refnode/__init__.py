# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference node: a small BFT network that speaks the XAI node's HTTP API and keeps its data-directory layout.

It exists so that an upgrade can be rehearsed against real processes. See README.md beside this package.
"""
