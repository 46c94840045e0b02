# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._host import forecast


def result(outcome: str = "committed", migrate: float | None = None, restore: float | None = None, **times: t.Any) -> t.Any:
    """A turn that took 1 s to stop, 0.5 s to seal and 2 s to start, unless ``times`` say otherwise."""
    stop, freeze = times.get("stop", 1.0), times.get("freeze", 0.5)
    rows = [
        {"name": "stop", "way": "forward", "state": "done", "seconds": stop},
        {"name": "freeze", "way": "forward", "state": "done", "seconds": freeze + 0.1},
    ]
    if migrate is not None:
        facts = {"steps": [{"id": "0002", "skipped": False}]}
        rows.append({"name": "migrate", "way": "forward", "state": "done", "seconds": migrate, "facts": facts})
    if restore is not None:
        rows.append({"name": "restore", "way": "forward", "state": "done", "seconds": restore, "facts": {}})
    window = stop + freeze + (migrate or 0.0) + (restore or 0.0) + times.get("start", 2.0)
    return {"outcome": outcome, "steps": rows, "freeze_seconds": freeze, "stop_window_seconds": round(window, 3)}


NOTHING = {"stop": None, "freeze": None, "migrate": None, "start": None}


@pytest.mark.parametrize(
    ("earlier", "options", "parts"),
    [
        ([], {}, {**NOTHING, "migrate": 0.0}),
        ([], {"freeze": 0.7}, {**NOTHING, "migrate": 0.0, "freeze": 0.7}),
        ([result()], {}, {"stop": 1.0, "freeze": 0.5, "migrate": 0.0, "start": 2.0}),
        # The hot copy knows better than an earlier turn.
        ([result()], {"freeze": 0.7}, {"stop": 1.0, "freeze": 0.7, "migrate": 0.0, "start": 2.0}),
        # Only these very migrations, and only this direction, tell how long the data take.
        ([result(migrate=3.0)], {"migrations": ["0002"]}, {"stop": 1.0, "freeze": 0.5, "migrate": 3.0, "start": 2.0}),
        ([result(migrate=3.0)], {"migrations": ["0003"]}, {"stop": 1.0, "freeze": 0.5, "migrate": None, "start": 2.0}),
        ([result(restore=4.0)], {"migrations": ["0002"]}, {"stop": 1.0, "freeze": 0.5, "migrate": None, "start": 2.0}),
        ([result(restore=4.0)], {"direction": "back"}, {"stop": 1.0, "freeze": 0.5, "migrate": 4.0, "start": 2.0}),
        ([result(migrate=3.0)], {"direction": "back"}, {"stop": 1.0, "freeze": 0.5, "migrate": None, "start": 2.0}),
        # A turn that was put back says nothing of how long a release takes to start.
        ([result("put_back")], {}, {"stop": 1.0, "freeze": 0.5, "migrate": 0.0, "start": None}),
        # The longest of the last five counts, older ones don't.
        ([result(stop=2.0), *[result()] * 4, result(stop=9.0)], {}, {"stop": 2.0, "freeze": 0.5, "migrate": 0.0, "start": 2.0}),
        # A result of another version, or of a turn that never stopped the node.
        ([{"outcome": "put_back", "steps": []}, {}], {}, {**NOTHING, "migrate": 0.0}),
    ],
)
def test_what_is_known_of_a_stop_window(earlier: t.Any, options: t.Any, parts: t.Any) -> None:
    found = forecast.predict(earlier, **options)
    assert found["parts"] == parts
    assert found["unknown"] == [name for name, value in parts.items() if value is None]


@given(
    st.lists(
        st.builds(result, st.sampled_from(["committed", "put_back"]), stop=st.floats(0, 90), start=st.floats(0, 90)), max_size=7
    ),
    st.one_of(st.none(), st.floats(0, 1000)),
    st.floats(0, 1000),
)
def test_a_budget_refuses_exactly_what_is_known_to_be_over_it(earlier: t.Any, freeze: float | None, budget: float) -> None:
    found = forecast.predict(earlier, freeze=freeze, budget=budget)
    known = [value for value in found["parts"].values() if value]
    assert found["seconds"] == (round(sum(known), 3) if known else None)
    refused = forecast.over(found)
    assert bool(refused) == (budget > 0 and bool(known) and found["seconds"] > budget)
    assert ("at least" in forecast.words(found)) == bool(found["unknown"] and known)


def test_numbers_are_told() -> None:
    found = forecast.predict([result("put_back")], freeze=0.4, budget=1.2)
    assert forecast.over(found) == (
        "the node would be down for at least 1.4 s (stop 1, freeze 0.4; start unknown), "
        "and 1.2 s are allowed (stop_window_budget)"
    )
    assert forecast.words(forecast.predict([])) == "a time that nobody has measured on this host yet"
