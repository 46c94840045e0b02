# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest


def test_no_host_was_touched(devnet):
    for host in devnet.validators:
        assert host.release() == devnet.digest("1.0.0")
        assert host.turns() == []
        assert not host.open_turn()
        assert host.output("systemctl show --property NRestarts --value xai-node.service") == "0"
    assert devnet.gateway_servers().items() >= {host.name: "UP" for host in devnet.validators}.items()


@pytest.mark.parametrize(
    ("proposal", "said"),
    [
        ("too-few", "3 of 5"),
        ("other-digest", "sha256"),
        ("never-submitted", "never-submitted"),
    ],
)
def test_the_message_says_which_condition_failed(devnet, proposal, said):
    assert said in devnet.log(proposal)
