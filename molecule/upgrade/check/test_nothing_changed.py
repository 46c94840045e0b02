# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


def test_check_mode_touched_no_host(devnet):
    for host in devnet.validators:
        assert host.release() == devnet.digest("1.0.0")
        assert host.turns() == []
        assert not host.open_turn()
        assert host.json_file("/var/lib/xai/data/schema.json") == {"level": 1}


def test_check_mode_left_no_lease_and_no_drain(devnet):
    assert set(devnet.gateway_servers().values()) == {"UP"}
    for host in devnet.validators:
        assert host.output(f"ls /var/lib/chainops/{host.name}") == "releases"
