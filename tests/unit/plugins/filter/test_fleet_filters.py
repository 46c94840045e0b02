# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.chainops.validator.plugins.filter import fleet
from ansible_collections.chainops.validator.plugins.test import state

FILTERS = fleet.FilterModule().filters()
TESTS = state.TestModule().tests()
PLUGINS = pathlib.Path(__file__).parents[4] / "plugins"


def test_every_filter_and_test_is_documented():
    for kind, names in (("filter", FILTERS), ("test", TESTS)):
        for name in names:
            doc = yaml.safe_load((PLUGINS / kind / f"{name}.yml").read_text())
            assert doc["DOCUMENTATION"]["name"] == name
            assert doc["EXAMPLES"] and doc["RETURN"]["_value"]["description"]


def test_waves_are_lists():
    assert FILTERS["waves"](["a", "b", "c"], [1, "100%"]) == [["a"], ["b", "c"]]


@pytest.mark.parametrize("sizes", ["1", [], [0], None, 3])
def test_a_bad_size_is_an_error_of_the_filter(sizes):
    with pytest.raises(AnsibleFilterError):
        FILTERS["waves"](["a", "b"], sizes)


def test_from_host():
    assert FILTERS["from_host"](["a", "b", "c"], "b") == ["b", "c"]
    assert FILTERS["from_host"](["a"], "x") == []


def test_something_else_than_a_network_is_an_error():
    with pytest.raises(AnsibleFilterError, match="turn_blockers: the input is not what it should be"):
        FILTERS["turn_blockers"]({}, "a")


def test_approved():
    approved = TESTS["approved"]
    assert approved({"verdict": {"open": True}}) is True
    assert approved({"verdict": {"open": False}}) is False
    for wrong in ({}, {"verdict": True}, {"verdict": {"open": "true"}}, {"verdict": {"open": 1}}, None, "yes"):
        with pytest.raises(AnsibleFilterError):
            approved(wrong)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"met": True, "node": {"reachable": True}}, True),
        ({"met": False, "node": {"reachable": True}}, False),
        ({"network": {"agree": True, "findings": []}}, True),
        ({"network": {"agree": True, "findings": [{"kind": "clock"}]}}, True),
        ({"network": {"agree": True, "findings": [{"kind": "behind"}]}}, False),
        ({"network": {"agree": False, "findings": []}}, False),
    ],
)
def test_synced(result, expected):
    assert TESTS["synced"](result) is expected


@pytest.mark.parametrize("wrong", [{}, None, {"met": "yes", "node": {"reachable": True}}, {"met": True}])
def test_synced_of_something_else(wrong):
    with pytest.raises(AnsibleFilterError):
        TESTS["synced"](wrong)
