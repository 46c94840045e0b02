# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import html.parser
import importlib.util
import pathlib
import re
import sys
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._report import collect, invariants, page, secrets, summary

_spec = importlib.util.spec_from_file_location("rollout_sample", pathlib.Path(__file__).parent / "sample.py")
assert _spec and _spec.loader
sample = sys.modules["rollout_sample"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sample)


def judged(rollout: dict[str, t.Any]) -> dict[str, invariants.Invariant]:
    return {i.id: i for i in invariants.judge(collect.complete(rollout))}


def statuses(rollout: dict[str, t.Any]) -> dict[str, str]:
    return {k: v.status for k, v in judged(rollout).items()}


def test_a_good_rollout_holds_everything() -> None:
    assert set(statuses(sample.good()).values()) == {"held"}
    assert set(statuses(sample.bad()).values()) == {"held"}, "a canary that was put back breaks no promise"


def test_nothing_observed_is_nothing_held() -> None:
    assert set(statuses({}).values()) == {"not_observed"}
    assert set(statuses({"hosts": [{"name": "val1"}], "chain": {}, "load": {}, "proof": {}, "drains": []}).values()) == {
        "not_observed"
    }


def test_a_first_turn_that_touched_nothing_has_nothing_to_write_down() -> None:
    rollout = sample.good()
    host(rollout)["manifest"].update(entries=0)
    host(rollout)["turn"].update(touched=False)
    assert statuses(rollout)["I7"] == "held"


def host(rollout: dict[str, t.Any], number: int = 1) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", rollout["hosts"][number])


SPOIL: list[tuple[str, t.Callable[[t.Any], t.Any], str]] = [
    ("I1", lambda r: r["chain"]["equivocations"].append({"address": "TXAI1", "height": 7}), "broken"),
    ("I1", lambda r: r["chain"].pop("equivocations"), "not_observed"),
    ("I2", lambda r: host(r)["turn"]["watermark"]["after"].update(height=1), "broken"),
    ("I2", lambda r: host(r)["turn"].pop("watermark"), "not_observed"),
    ("I2", lambda r: host(r)["turn"]["watermark"].update(before=None), "not_observed"),
    ("I3", lambda r: r["chain"]["power"].append({"offline_fraction": 0.334}), "broken"),
    ("I3", lambda r: r.update(power_budget=0.2), "broken"),
    ("I3", lambda r: r.update(power_budget=0.9, chain={"power": [{"offline_fraction": 0.4}]}), "broken"),
    ("I3", lambda r: r["chain"].update(power=[]), "not_observed"),
    ("I4", lambda r: host(r)["after"].update(sha256="0" * 64), "broken"),
    ("I4", lambda r: host(r)["turn"].update(outcome="failed"), "broken"),
    ("I4", lambda r: host(r)["turn"].update(outcome="running"), "broken"),
    ("I4", lambda r: host(r)["turn"].update(outcome="put_back"), "broken"),
    ("I4", lambda r: host(r).update(journal_verified=False), "broken"),
    ("I4", lambda r: host(r).pop("after"), "not_observed"),
    ("I4", lambda r: host(r)["turn"].pop("format"), "not_observed"),
    ("I5", lambda r: host(r)["proof_problems"].append("expired"), "broken"),
    ("I5", lambda r: r["proof"].update(open=False), "broken"),
    ("I5", lambda r: r["proof"].update(release_sha256="0" * 64), "broken"),
    ("I5", lambda r: host(r).pop("proof_problems"), "not_observed"),
    ("I5", lambda r: r.pop("proof"), "not_observed"),
    ("I6", lambda r: host(r)["snapshot"].update(verified=False), "broken"),
    ("I6", lambda r: host(r).pop("snapshot"), "not_observed"),
    ("I7", lambda r: host(r)["manifest"].update(valid=False, problems=["entry 1"]), "broken"),
    ("I7", lambda r: host(r)["manifest"].update(entries=0), "broken"),
    ("I7", lambda r: host(r).pop("manifest"), "not_observed"),
    ("I8", lambda r: r["secrets_scan"].update(found=["ansible.log"]), "broken"),
    ("I8", lambda r: r["secrets_scan"].update(secrets=0), "not_observed"),
    ("I8", lambda r: r["secrets_scan"].update(files=0), "not_observed"),
    ("I9", lambda r: r["drains"][0].pop("restored"), "held"),
    ("I9", lambda r: [r["drains"][0].pop(key) for key in ("restored", "state")], "broken"),
    ("I9", lambda r: r["drains"][0].update(restored=False), "held"),
    ("I9", lambda r: r.update(drains=[]), "not_observed"),
    ("I10", lambda r: r["load"].update(failed=1), "broken"),
    ("I10", lambda r: r["load"].update(double_spends=1), "broken"),
    ("I10", lambda r: r["load"].update(requests=0), "not_observed"),
    ("I10", lambda r: r["load"].update(requests="many"), "not_observed"),
]


@pytest.mark.parametrize(("name", "spoil", "expected"), SPOIL)
def test_each_invariant_is_judged_by_its_evidence(name: str, spoil: t.Callable[[t.Any], t.Any], expected: str) -> None:
    rollout = sample.good()
    spoil(rollout)
    assert statuses(rollout)[name] == expected, judged(rollout)[name]


def shown(rollout: dict[str, t.Any]) -> str:
    full = collect.complete(rollout)
    return page.render(full, invariants.judge(full)).decode()


def test_break_glass_is_the_first_thing_that_is_said_of_a_proof() -> None:
    rollout = sample.good()
    assert "BREAK-GLASS" not in judged(rollout)["I5"].evidence and "BREAK-GLASS" not in shown(rollout)
    glass = {"reason": "key leak", "expires_height": 9, "approvers": ["alice", "bob"], "instead_of": ["4 of 5 yes voters"]}
    rollout["proof"]["break_glass"] = glass
    said = judged(rollout)["I5"]
    assert said.status == "held"
    assert said.evidence.startswith("BREAK-GLASS by alice, bob until height 9, not approved on chain (key leak): proof ")
    assert "BREAK-GLASS by alice, bob" in summary.summary(rollout)
    text = shown(rollout)
    assert "Not approved on chain." in text and "4 of 5 yes voters" in text
    host(rollout)["proof_problems"].append("expired")
    assert judged(rollout)["I5"].evidence.startswith("BREAK-GLASS") and judged(rollout)["I5"].status == "broken"


def test_people_who_approved_beside_the_chain_are_named() -> None:
    rollout = sample.good()
    rollout["proof"]["approvers"] = ["alice", "bob"]
    assert "approved besides by alice, bob" in judged(rollout)["I5"].evidence
    assert "alice, bob approved beside the chain" in shown(rollout)


def test_a_host_that_is_still_drained_is_named() -> None:
    rollout = sample.good()
    rollout["drains"][2]["restored"] = False
    assert "STILL DRAINED: val3 on gw1" in judged(rollout)["I9"].evidence


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*sample.good(), "name", "turn", "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=150)
@given(st.sampled_from(sorted(sample.good())), ANY)
def test_data_of_another_shape_is_never_held_by_accident(key: str, junk: t.Any) -> None:
    before = statuses(sample.good())
    rollout = sample.good()
    rollout[key] = junk
    for one in invariants.judge(rollout):
        assert one.status in ("held", "broken", "not_observed") and one.evidence and before[one.id] == "held"


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("rollout", [sample.good(), sample.bad(), {}, {"outcome": "failed", "hosts": []}])
def test_the_page_is_whole_and_needs_nothing_from_outside(rollout: dict[str, t.Any]) -> None:
    full = collect.complete(rollout)
    text = page.render(full, invariants.judge(full)).decode()
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.links == [] and not tags.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert text == page.render(full, invariants.judge(full)).decode(), "the same evidence makes the same page"


def test_the_page_tells_of_gateways_whose_word_stood_alone() -> None:
    rollout = sample.good()
    says = "gateway gw1 doesn't say from where it comes; its receipt stands alone"
    rollout["hosts"][1]["turn"]["steps"][0]["facts"] = {"unconfirmed": [says]}
    text = page.render(rollout, invariants.judge(rollout)).decode()
    assert f"val2: {says}.".replace("'", "&#39;") in text
    plain = sample.good()
    assert "stands alone" not in page.render(plain, invariants.judge(plain)).decode()


def test_the_page_shows_text_as_text() -> None:
    rollout = sample.bad()
    rollout["reason"] = "<script>alert(1)</script> @channel {{ 7 * 7 }}"
    rollout["hosts"][0]["name"] = "<b>val1"
    text = page.render(rollout, invariants.judge(rollout)).decode()
    assert "<script>" not in text and "<b>val1" not in text and "{{ 7 * 7 }}" in text


def test_the_page_does_not_call_a_broken_promise_good() -> None:
    rollout = sample.good()
    rollout["load"]["failed"] = 3
    assert collect.outcome(rollout, invariants.judge(rollout)) == ("Upgraded, promise broken", "bad")


def test_the_timeline_has_a_lane_for_each_host_and_stays_in_its_frame() -> None:
    for rollout in (sample.good(), sample.bad()):
        drawn = collect.lanes(rollout)
        assert [lane["name"] for lane in drawn["lanes"]][:4] == list(sample.NAMES)
        bars = [bar for lane in drawn["lanes"] for bar in lane["bars"]]
        assert bars and all(0 <= b["left"] <= 100 and b["width"] > 0 for b in bars)
        assert 3 <= len(drawn["ticks"]) <= 9
    assert collect.lanes({}) == {"start": None, "end": None, "ticks": [], "lanes": []}


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.5, "0.50 s"), (42.4, "42 s"), (187, "3 min 07 s"), (7260, "2 h 01 min")]
)
def test_times_for_people(seconds: float | None, text: str) -> None:
    assert collect.span(seconds) == text


def test_the_terminal_summary_fits_and_tells() -> None:
    text = summary.summary(sample.good())
    assert max(map(len, text.splitlines())) <= summary.WIDTH
    assert text.startswith("UPGRADED  release 2.0.0") and "val1 (canary)" in text and "failed requests: 0 of 18,240" in text
    assert "BROKEN" not in text and "not observed" not in text
    rollout = sample.good()
    rollout["load"]["failed"] = 2
    assert "BROKEN" in summary.summary(rollout) and "\033[31m" in summary.summary(rollout, colour=True)
    assert "not observed" in summary.summary({})


def test_secrets_go_by_name_and_are_found_by_value() -> None:
    value = {
        "api_key": "k", "validator_admin_token": "t", "fence_token": 7,
        "nested": [{"password": "p", "Authorization": "Bearer x"}],
        "public_key": "fine", "token": 3, "webhook_url": "https://hooks/x", "tokens_seen": 4,
    }  # fmt: skip
    clean = secrets.redact(value)
    assert clean == {
        "api_key": "(hidden)", "validator_admin_token": "(hidden)", "fence_token": 7,
        "nested": [{"password": "(hidden)", "Authorization": "(hidden)"}],
        "public_key": "fine", "token": 3, "webhook_url": "(hidden)", "tokens_seen": 4,
    }  # fmt: skip
    assert secrets.redact({"token": "text"}) == {"token": "(hidden)"}


@pytest.mark.parametrize("written", ["s3cr/et+value", "s3cr%2Fet%2Bvalue", "czNjci9ldCt2YWx1ZQ=="])
def test_a_secret_is_found_however_it_is_written(tmp_path: pathlib.Path, written: str) -> None:
    log = tmp_path / "logs" / "ansible.log"
    log.parent.mkdir()
    log.write_text(f"before {written} after")
    found = secrets.scan(["s3cr/et+value"], {"a": 1}, [str(tmp_path)])
    assert found["found"] == [str(log)] and found["files"] == 1 and "s3cr" not in str(found)
    assert secrets.scan(["another-one"], {"a": 1}, [str(tmp_path)])["found"] == []
    assert secrets.scan(["s3cr/et+value"], {"a": ["s3cr/et+value"]}, [])["found"] == ["the evidence"]


def test_secrets_too_short_and_logs_that_are_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="told from chance"):
        secrets.scan(["abc"], {}, [])
    with pytest.raises(InputError, match="is not there"):
        secrets.scan(["abcdefgh"], {}, [str(tmp_path / "none.log")])


@pytest.mark.parametrize("junk", [{"hosts": "val1"}, {"hosts": [{}]}, {"drains": {"a": 1}}, {"release": []}, {"events": [1]}])
def test_data_of_another_shape_is_named(junk: dict[str, t.Any]) -> None:
    with pytest.raises(InputError, match=next(iter(junk))):
        collect.complete(junk)


def test_the_sample_is_not_shared_between_tests() -> None:
    assert sample.good() == sample.good() and copy.deepcopy(sample.good()) == sample.good()
