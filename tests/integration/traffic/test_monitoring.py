# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitoring modules against a real Prometheus and a real Alertmanager. The tests run in order and share both."""

from __future__ import annotations

import json
import time
import typing as t

from .conftest import Monitoring, until

Ansible = t.Callable[..., t.Dict[str, t.Any]]
NEVER = "rule NeverFires can't ever fire: no series for xai_no_such_total in the last 900 s"


def look(ansible: Ansible, monitoring: Monitoring, **options: t.Any) -> dict[str, t.Any]:
    return ansible("monitoring_info", prometheus_url=monitoring.url, alertmanager_url=monitoring.alertmanager_url, **options)


def test_a_rule_that_can_not_fire_is_told_and_a_baseline_excuses_it(ansible: Ansible, monitoring: Monitoring) -> None:
    expected = {"expected_jobs": ["xai-node"], "expected_rules": ["NodeDown", "FewPeers"], "expected_receivers": ["operators"]}
    until(lambda: look(ansible, monitoring, **expected)["problems"] == [NEVER], "all is scraped, and the rule is found", 40)
    before = look(ansible, monitoring, **expected)
    assert not before["ok"] and before["services"]["prometheus"]["targets"] == 4 and before["services"]["alertmanager"]["up"]
    after = look(ansible, monitoring, **expected, baseline=before)
    assert after["ok"] and after["problems"] == [] and after["known_problems"] == [NEVER]
    named = look(ansible, monitoring, expected_rules=["NeverFires"], baseline=before)
    assert not named["ok"], "what is named as expected is never excused"


def test_what_is_expected_and_not_there(ansible: Ansible, monitoring: Monitoring) -> None:
    answer = look(ansible, monitoring, expected_jobs=["xai-nod"], expected_rules=["NoRule"], expected_receivers=["nobody"])
    assert [p for p in answer["problems"] if p != NEVER] == [
        "expected job 'xai-nod' has no target; there are: xai-node",
        "expected rule 'NoRule' is not loaded",
        "expected receiver 'nobody' is not configured",
    ]
    assert "prometheus_url" in ansible("monitoring_info", alertmanager_url="http://127.0.0.1:1", expected_jobs=["x"])["msg"]


def test_values_receivers_and_silences_by_accident(ansible: Ansible, monitoring: Monitoring) -> None:
    named = [
        {"name": "peers", "query": "xai_peers_connected", "min": 1, "max": 9},
        {"name": "lag", "query": "max(xai_lag)", "max": 2},
        {"name": "gone", "query": "xai_no_such_metric"},
    ]
    answer = look(ansible, monitoring, expected_values=named, expected_receivers=["operators", "nobody-listens"])
    said = [p for p in answer["problems"] if p != NEVER]
    assert said[0] == "expected receiver 'nobody-listens' sends nothing anywhere: it has no integration"
    assert said[1].startswith("lag is ") and said[1].endswith(", more than 2") and said[2:] == ["gone: no data"]
    assert answer["values"]["peers"] == [3, 3, 3, 3]
    accident = {
        "alertmanager_url": monitoring.alertmanager_url,
        "matchers": [{"name": "instance", "value": "val[12].*", "regex": True}],
        "comment": "forgotten",
        "created_by": "alex",
    }
    made = ansible("alertmanager_silence", **accident)
    assert [one["state"] for one in made["silences"]] == ["in force"]
    hidden = look(ansible, monitoring, expected_rules=["NodeDown"])
    assert any(p.startswith("a silence hides NodeDown until ") and "alex: forgotten" in p for p in hidden["problems"])
    gone = ansible("alertmanager_silence", state="absent", alertmanager_url=monitoring.alertmanager_url, id=made["silence_id"])
    assert [one["state"] for one in gone["silences"]] == ["removed"]
    assert not any("hides" in p for p in look(ansible, monitoring, expected_rules=["NodeDown"])["problems"])


def test_a_canary_like_the_others_passes_and_a_worse_one_fails_early(ansible: Ansible, monitoring: Monitoring) -> None:
    options = {
        "prometheus_url": monitoring.url,
        "canary": ["val1"],
        "baseline": ["val2", "val3", "val4"],
        "step": 0.5,
        "checks": [
            {"name": "peers", "query": "xai_peers_connected", "direction": "higher", "floor": 0.5},
            {"name": "blocks", "query": "rate(xai_chain_height[5s])", "direction": "higher", "tolerance": 0.5},
        ],
    }
    time.sleep(6)
    # What a rate says in the first five seconds looks back to before the watch; it goes on until it knows.
    good = ansible("canary_analysis_info", soak=8, extend=60, **options)
    assert (good["verdict"], good["reasons"]) == ("pass", []), good
    assert [c["samples"][0] >= 5 for c in good["checks"]] == [True, True]
    bad, saved = monitoring.exporters["val1"], monitoring.exporters["val1"].metrics
    frozen = str(saved())
    bad.metrics = lambda: frozen.replace("xai_peers_connected 3", "xai_peers_connected 0")
    began = time.monotonic()
    answer = ansible(
        "canary_analysis_info", soak=60, looks=10, settle=6, **options, progress_file=str(monitoring.folder / "looks")
    )
    assert answer["verdict"] == "fail" and time.monotonic() - began < 45, "it does not soak to the end"
    assert {c["name"]: c["verdict"] for c in answer["checks"]}["peers"] == "fail"
    assert json.loads((monitoring.folder / "looks").read_text().splitlines()[-1])["verdict"] == "fail"
    bad.metrics = lambda: None
    time.sleep(2)
    silent = ansible("canary_analysis_info", soak=4, **options)
    assert silent["verdict"] == "inconclusive" and "canary val1: no data" in silent["reasons"][0]
    bad.metrics = saved


def test_doubled_series_nan_and_nonsense_are_no_verdict(ansible: Ansible, monitoring: Monitoring) -> None:
    until(lambda: look(ansible, monitoring)["problems"] == [NEVER], "all is well again", 30)
    options = {"prometheus_url": monitoring.url, "canary": ["val1"], "baseline": ["val2"], "step": 0.5, "soak": 3, "looks": 1}
    for query, why in (
        ('label_replace(xai_lag, "x", "1", "", "") or xai_peers_connected', "2 series where one was expected"),
        ("xai_lag * NaN", "NaN"),
        ("xai_no_such_metric", "no data"),
        ("sum(xai_lag)", "no data"),
        ("xai_lag{", "parse error"),
    ):
        answer = ansible("canary_analysis_info", **options, checks=[{"name": "c", "query": query}])
        assert answer["verdict"] == "inconclusive" and why in answer["reasons"][0], (query, answer)


def test_a_silence_for_exactly_one_turn(ansible: Ansible, monitoring: Monitoring) -> None:
    options = {
        "alertmanager_url": monitoring.alertmanager_url,
        "matchers": [{"name": "instance", "value": "val1(:[0-9]+)?", "regex": True}],
        "comment": "turn-1",
        "duration": 600,
    }
    assert ansible("alertmanager_silence", **options, _check=True)["changed"]
    first = ansible("alertmanager_silence", **options)
    assert first["changed"] and first["silence_id"]
    again = ansible("alertmanager_silence", **options)
    assert not again["changed"] and again["silence_id"] == first["silence_id"]
    longer = ansible("alertmanager_silence", **{**options, "duration": 3600})
    assert longer["changed"] and longer["silence_id"] == first["silence_id"]
    other = ansible("alertmanager_silence", **{**options, "comment": "turn-2"})
    monitoring.exporters["val1"].metrics = lambda: None
    until(lambda: any(a["silenced"] for a in look(ansible, monitoring)["firing"]), "the alert fires, silenced", 30)
    answer = look(ansible, monitoring)
    assert [a["name"] for a in answer["firing"]] == ["NodeDown"]
    assert not any("NodeDown fires" in p for p in answer["problems"]), "silenced: told, but no problem"
    gone = ansible("alertmanager_silence", state="absent", alertmanager_url=monitoring.alertmanager_url, comment="turn-1")
    assert gone["changed"] and gone["silence_id"] == first["silence_id"]
    assert not ansible("alertmanager_silence", state="absent", alertmanager_url=monitoring.alertmanager_url, comment="turn-1")[
        "changed"
    ]
    left = ansible("alertmanager_silence", state="absent", alertmanager_url=monitoring.alertmanager_url, id=other["silence_id"])
    assert left["changed"]
    until(lambda: any("NodeDown fires" in p for p in look(ansible, monitoring)["problems"]), "now it is a problem", 30)
    refused = ansible("alertmanager_silence", **{**options, "matchers": [{"name": "instance", "value": ".*", "regex": True}]})
    assert refused["failed"] and "picks out something" in refused["msg"]


def test_services_that_are_down_are_never_a_pass(ansible: Ansible, monitoring: Monitoring) -> None:
    before = look(ansible, monitoring)
    monitoring.stop("alertmanager")
    monitoring.stop("prometheus")
    answer = look(ansible, monitoring, baseline=before)
    assert not answer["ok"] and [p.split(":")[0] for p in answer["problems"]] == ["prometheus is down", "alertmanager is down"]
    twice = look(ansible, monitoring, baseline=answer)
    assert not twice["ok"], "also when it was down before"
    canary = ansible(
        "canary_analysis_info", prometheus_url=monitoring.url, canary=["val1"], baseline=["val2"], soak=1, looks=1,
        checks=[{"name": "c", "query": "up"}],
    )  # fmt: skip
    assert canary["verdict"] == "inconclusive" and "no answer" in canary["reasons"][0]
    silence = {"alertmanager_url": monitoring.alertmanager_url, "comment": "turn-9", "state": "absent"}
    assert ansible("alertmanager_silence", **silence)["failed"]
    left = ansible("alertmanager_silence", **silence, best_effort=True)
    assert not left["changed"] and left["silences"][0]["state"].startswith("not removed: "), left
    assert "ends by itself" in str(left["warnings"])
