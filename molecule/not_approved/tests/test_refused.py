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


def test_too_few_votes_are_told_with_their_number(devnet):
    log = devnet.log("too-few")
    assert "3 of 5 yes voters" in log
    assert "3 of 5 code reviewers" in log


def test_another_digest_is_told_with_both(devnet):
    log = devnet.log("other-digest")
    assert "is not what was approved" in log
    assert devnet.digest("2.0.0") in log
    assert devnet.digest("2.0.1-stall") in log


def test_a_proposal_that_is_not_there_is_told_by_its_name(devnet):
    assert "there is no proposal 'never-submitted' on the chain" in devnet.log("never-submitted")


@pytest.mark.parametrize("proposal", ["too-few", "other-digest", "never-submitted"])
def test_it_was_the_gate_that_refused(devnet, proposal):
    assert "The gate is closed" in devnet.log(proposal)
