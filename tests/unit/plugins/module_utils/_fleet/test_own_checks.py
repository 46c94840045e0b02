# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core import clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._fleet import checks, look, network
from ansible_collections.chainops.validator.plugins.module_utils._fleet.checks import Check
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._chain import fakes


class Ticking(clock.Clock):
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 0.0

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def node():
    with fakes.serving(fakes.reference(tip=10)) as served:
        served.routes["/mine"] = {"status": "ok", "lag": 2, "list": [1], "names": ["a", "b"]}
        yield served


def one(node, expression, **more):
    (result,) = checks.run(
        [Check("c", more.pop("url", "/mine"), expression, **more)], {"val1": node.url}, timeout=5, clock=Ticking()
    )
    return result.ok, result.said


@pytest.mark.parametrize(
    ("expression", "ok", "words"),
    [
        ("status == 'ok' && lag < `5`", True, "True"),
        ("lag < `2`", False, "False"),
        ("contains(names, 'b')", True, "True"),
        ("length(list) == `1`", True, "True"),
        ("lag", False, "lag is 2"),
        ("list", False, "list is [1]"),
        ("nothing", False, "nothing is null"),
        ("nothing < `5`", False, "null"),
        ("length(nothing) < `5`", False, "length"),
    ],
)
def test_only_true_is_true(node, expression, ok, words):
    held, said = one(node, expression)
    assert held is ok and words in said


def test_answers_that_are_none(node):
    node.routes["/html"] = fakes.HTML_404
    assert one(node, "a", url="/html") == (False, "status 404, not 200")
    assert one(node, "a", url="/not-there")[0] is False
    (result,) = checks.run([Check("c", "http://127.0.0.1:1/x", "a")], {}, timeout=1, clock=Ticking())
    assert not result.ok and result.node is None and "no answer" in result.said


def test_it_asks_again_before_it_says_no(node):
    answers = iter([{"up": False}, (503, {"error": "starting"}), {"up": True}])
    node.routes["/later"] = lambda _headers: next(answers)
    assert one(node, "up", url="/later") == (True, "up is True")
    answers = iter([{"up": False}] * 3)
    assert one(node, "up", url="/later", attempts=2)[0] is False


def test_a_path_is_asked_of_every_node_and_a_url_once(node):
    with fakes.serving(fakes.reference(tip=10)) as other:
        other.routes["/mine"] = {"lag": 9}
        results = checks.run(
            [Check("lag", "/mine", "lag < `5`", attempts=1), Check("once", node.url + "/mine", "lag == `2`")],
            {"val1": node.url, "val2": other.url},
            timeout=5,
        )
    assert [(r.check, r.node, r.ok) for r in results] == [("lag", "val1", True), ("lag", "val2", False), ("once", None, True)]
    (finding,) = checks.findings(results)
    assert (finding.kind, finding.node) == (
        "check",
        "val2",
    ) and "check 'lag' of val2 does not hold: lag < `5` is False" in finding.text


def test_what_can_not_be_right_is_refused_before_anybody_is_asked():
    for wrong, words in (
        ([Check("c", "/x", "a ==")], "not a JMESPath expression"),
        ([Check("c", "stats", "a")], "must be a path"),
        ([Check("c", "/x", "a"), Check("c", "/y", "a")], "two checks have one name: c"),
        ([Check("c", "/x", "a", attempts=0)], "attempts must be at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            checks.require(wrong)


def test_without_the_library_it_fails_clearly_and_only_when_it_is_needed(monkeypatch):
    monkeypatch.setattr(checks, "jmespath", None)
    monkeypatch.setattr(checks, "JMESPATH_ERROR", "No module named 'jmespath'")
    checks.require([])
    with pytest.raises(InputError, match="checks need the Python library jmespath on the controller"):
        checks.require([Check("c", "/x", "a")])


def test_a_check_that_does_not_hold_stops_turns_of_other_hosts(node):
    found = look.look(
        adapter("xai"),
        [look.Node("val1", node.url)],
        limits=network.Limits(tip_age=0),
        own_checks=[Check("c", "/mine", "lag > `5`", attempts=1)],
    )
    assert not found["ok"] and found["checks"][0]["ok"] is False
    assert any("check 'c' of val1 does not hold" in text for text in found["problems"])
    well = look.look(adapter("xai"), [look.Node("val1", node.url)], limits=network.Limits(tip_age=0))
    assert well["checks"] == []
    also = network.with_findings(
        {**well, "nodes": [*well["nodes"], {**well["nodes"][0], "name": "val2"}]}, [network.Finding("check", "val1", "it")]
    )
    assert "it" in network.blockers(also, "val2")


def test_a_network_that_stands_still_is_told_by_watching_it(node):
    nodes = [look.Node("val1", node.url)]
    still = look.look(adapter("xai"), nodes, limits=network.Limits(tip_age=0), advance=1, advance_timeout=3, clock=Ticking())
    assert "val1 rose by 0 blocks in 3 s, 1 were wanted" in still["problems"]
    tips = iter(range(10, 90))

    def latest(_headers):
        tip = next(tips)
        return {"block_number": tip, "hash": fakes.hash_of(tip), "timestamp": 1.0}

    node.routes["/block/latest"] = latest
    moves = look.look(adapter("xai"), nodes, limits=network.Limits(tip_age=0), advance=2, advance_timeout=9, clock=Ticking())
    assert not any("rose by" in text for text in moves["problems"])
