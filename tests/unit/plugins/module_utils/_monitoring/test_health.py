# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import HttpError, InputError, Unreachable
from ansible_collections.chainops.validator.plugins.module_utils._core.http import Response
from ansible_collections.chainops.validator.plugins.module_utils._monitoring import health, promql, readers, silence
from ansible_collections.chainops.validator.plugins.module_utils._monitoring.health import Expectations

RECORDED = pathlib.Path(__file__).parent / "recorded"
NEVER = "rule NeverFires can't ever fire: no series for xai_no_such_total in the last 900 s"
DOWN = "target val4:8545 of job 'xai-node' is down: server returned HTTP status 500 Internal Server Error"
FIRES = "alert NodeDown fires (instance=val4:8545,job=xai-node,severity=critical)"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('up{job="xai-node"} == 0', ['up{job="xai-node"}']),
        ("increase(xai_security_events_total[5m]) > 25", ["xai_security_events_total"]),
        ("sum by (job, instance) (rate(a_total[5m])) / on(job) group_left(x) b", ["a_total", "b"]),
        ("sum(rate(a[5m])) without (instance)", ["a"]),
        ("absent(gone) or absent_over_time(gone2[5m]) or here", ["here"]),
        ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[5m]))) > 1e3", ["h_bucket"]),
        ('{__name__=~"x.*", job!="a}b"} offset 5m', ['{__name__=~"x.*",job!="a}b"}']),
        ("a{b='c'} and a unless bool_thing # not this one", ["a", "a{b='c'}", "bool_thing"]),
        ("max_over_time(rate(a[5m])[1h:1m] offset 1d) > Inf", ["a"]),
        ("time() - process_start_time_seconds > 3600", ["process_start_time_seconds"]),
        ('ALERTS{alertname="x"} * vector(1)', []),
        ("job:xai_peers:sum > bool 3 @ end()", ["job:xai_peers:sum"]),
        ("1 + 2", []),
    ],
)
def test_the_series_that_an_expression_reads(expression: str, found: list[str]) -> None:
    assert list(promql.selectors(expression)) == found


@given(st.text(alphabet="abz_:{}()[]\"'`=~!,0159mse+-*/ #\n", max_size=60))
def test_no_expression_hangs_or_breaks_the_reader(text: str) -> None:
    promql.selectors(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T12:00:00.123456789Z", 1769860800.123456789),
        ("2026-01-31T13:00:00+01:00", 1769860800.0),
        ("2026-01-31T13:00:00.5+01:00", 1769860800.5),
        ("0001-01-01T00:00:00Z", 0.0),
    ],
)
def test_times_as_go_writes_them(text: str, seconds: float) -> None:
    assert readers.moment(text) == pytest.approx(seconds, abs=1e-6)


class Recorded:
    """The HTTP client of a reader, answering what a real service once did."""

    def __init__(self, answers: dict[str, t.Any]) -> None:
        self.answers = answers
        self.down = False

    def url(self, path: str) -> str:
        return "http://monitor" + path

    def get(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> Response:
        if self.down:
            raise Unreachable("no answer from http://monitor: refused", url="http://monitor")
        key = path
        if query and "query" in query and "last_over_time" in query["query"]:
            key = "has " + query["query"].split("(", 2)[2].rpartition("[")[0]
        elif query:
            key += "?" + "&".join(f"{k}={v}" for k, v in query.items())
        if path.endswith("ready"):
            return Response(200, {}, b"ready", self.url(path))
        if key not in self.answers:
            return Response(404, {}, b"not here", self.url(path))
        return Response(200, {}, json.dumps(self.answers[key]).encode(), self.url(path))

    def get_json(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> t.Any:
        return readers.expect(self.get(path, query)).json()


def prometheus() -> tuple[readers.Prometheus, Recorded]:
    api = readers.Prometheus("http://monitor", 1)
    http = Recorded(json.loads((RECORDED / "prometheus.json").read_text()))
    http.answers.setdefault("has job:xai_peers:sum", http.answers["has xai_peers_connected"])
    api.http = t.cast("t.Any", http)
    return api, http


def alertmanager() -> tuple[readers.Alertmanager, Recorded]:
    api = readers.Alertmanager("http://monitor", 1)
    http = Recorded(json.loads((RECORDED / "alertmanager.json").read_text()))
    api.http = t.cast("t.Any", http)
    return api, http


def facts(window: int = 900) -> dict[str, dict[str, t.Any]]:
    api, http = prometheus()
    wall = http.answers["/api/v1/query?query=time()"]["data"]["result"][0]
    return {
        "prometheus": health.ask_prometheus(api, wall, window),
        "alertmanager": health.ask_alertmanager(alertmanager()[0]),
    }


def messages(services: dict[str, dict[str, t.Any]], expect: Expectations = Expectations()) -> list[str]:
    return [f.message for f in health.judge(services, expect)]


def target(services: dict[str, dict[str, t.Any]]) -> dict[str, t.Any]:
    """One that was up."""
    return next(one for one in services["prometheus"]["targets"] if one["labels"]["instance"] == "val1:8545")


def test_what_a_real_prometheus_said_is_understood() -> None:
    services = facts()
    assert messages(services) == [DOWN, NEVER, FIRES]
    assert health.summary(services)["prometheus"]["targets"] == 4
    assert health.summary(services)["alertmanager"]["version"]
    api, http = prometheus()
    http.answers = {k.replace("range", "/api/v1/query_range"): v for k, v in http.answers.items()}
    http.get = lambda path, query=None: Response(200, {}, json.dumps(http.answers[path]).encode(), path)  # type: ignore[method-assign]
    found = api.query_range("x", 0, 1, 1)
    assert {s.labels["instance"] for s in found} >= {"val1:8545", "val2:8545"} and found[0].points[0][1] == 3.0


def test_only_new_breakage_fails_but_what_is_required_always_does() -> None:
    findings = health.judge(facts(), Expectations())
    baseline = {"findings": [f.as_dict() for f in findings]}
    assert health.compare(findings, baseline) == ([], list(findings))
    assert health.compare(findings, None)[0] == list(findings)
    required = health.judge(facts(), Expectations(jobs=("xai-node",), rules=("NeverFires",)))
    new, known = health.compare(required, baseline)
    assert [f.message for f in new] == [DOWN, NEVER] and [f.message for f in known] == [FIRES]
    fresh = facts()
    target(fresh).update(health="down", lastError="refused")
    new, _ = health.compare(health.judge(fresh, Expectations()), baseline)
    assert [f.id for f in new] == ["target:xai-node:val1:8545"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f["prometheus"].update(targets=[]), "it scrapes nothing"),
        (lambda f: f["prometheus"].update(alertmanagers=[]), "reach nobody"),
        (lambda f: f["prometheus"].update(wall=f["prometheus"]["wall"] + 120), "its clock differs from ours by -120 s"),
        (lambda f: target(f).update(lastScrape="2026-01-01T00:00:00Z"), "was last scraped"),
        (lambda f: target(f).update(health="unknown"), "is unknown"),
        (
            lambda f: f["prometheus"]["rules"][0].update(health="err", lastError="many-to-many"),
            "can't be evaluated: many-to-many",
        ),
        (lambda f: f["prometheus"]["selectors"].update(xai_peers_connected=None), "could not look for xai_peers_connected"),
        (lambda f: f["alertmanager"].update(receivers=[]), "it has no receiver"),
        (
            lambda f: f["alertmanager"]["silences"].append(
                {"id": "1", "status": {"state": "active"}, "matchers": [{"name": "a", "value": ".*", "isRegex": True}]}
            ),
            "hides every alert",
        ),
    ],
)
def test_every_way_to_be_wrong_is_a_finding(spoil: t.Callable[[t.Any], None], words: str) -> None:
    before = set(messages(facts()))
    services = facts()
    spoil(services)
    assert [m for m in messages(services) if m not in before and words in m]


def test_services_that_are_down_or_talk_nonsense_are_findings() -> None:
    api, http = prometheus()
    http.down = True
    down = {"prometheus": health.ask_prometheus(api, 0, 900)}
    assert messages(down) == ["prometheus is down: no answer from http://monitor: refused"]
    api, http = prometheus()
    http.answers["/api/v1/rules"] = {"status": "error", "error": "loading"}
    del http.answers["/api/v1/targets?state=active"]
    http.answers["/api/v1/alertmanagers"] = {"status": "success", "data": []}
    odd = {"prometheus": health.ask_prometheus(api, 0, 900)}
    said = messages(odd)
    assert any("doesn't tell its rules" in m for m in said)
    assert any("doesn't tell its targets" in m for m in said)
    assert any("doesn't tell its alertmanagers: an answer of another shape" in m for m in said)
    assert all(f.required for f in health.judge(odd, Expectations()) if "tell" in f.message)


def test_silenced_and_ignored_alerts_are_told_but_no_problem() -> None:
    services = facts()
    services["alertmanager"]["alerts"][0]["status"]["state"] = "suppressed"
    assert FIRES not in messages(services)
    assert health.firing(services, Expectations())[0]["silenced"] is True
    assert FIRES not in messages(facts(), Expectations(ignore_alerts=("NodeDown",)))


def test_grafana_and_loki_in_the_shapes_they_document() -> None:
    grafana = readers.Grafana("http://monitor", 1, "t0ken")
    grafana.http = t.cast(
        "t.Any",
        Recorded(
            {
                "/api/health": {"database": "ok", "version": "10.4.1", "commit": "x"},
                "/api/dashboards/uid/xai-overview": {"dashboard": {}},
                "/api/datasources": [{"uid": "p1", "name": "Prometheus"}, {"uid": "l1", "name": "Loki"}],
                "/api/datasources/uid/p1/health": {"status": "OK", "message": "fine"},
                "/api/datasources/uid/l1/health": {"status": "ERROR", "message": "no"},
            }
        ),
    )
    loki = readers.Loki("http://monitor", 1)

    class Lines(Recorded):
        def get(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> Response:
            lines = "0" if query and "silent" in query["query"] else "42"
            body = {"data": {"result": [{"metric": {}, "value": [1, lines]}]}}
            return Response(200, {}, json.dumps(body).encode(), path)

    loki.http = t.cast("t.Any", Lines({}))
    services = {
        "grafana": health.ask_grafana(grafana, True, ("xai-overview", "xai-none")),
        "loki": health.ask_loki(loki, ('{job="xai"}', '{job="silent"}'), 900),
    }
    assert messages(services) == [
        "expected dashboard 'xai-none' does not exist",
        "data source 'Loki' does not answer: ERROR",
        'expected stream {job="silent"} has had no line for 900 s',
    ]
    services["grafana"]["health"]["database"] = "failing"
    assert "its database is 'failing'" in messages(services)


MATCH = [{"name": "instance", "value": "val1", "regex": False, "equal": True}]


def held(ends: float, **changes: t.Any) -> dict[str, t.Any]:
    return {
        "id": "s1",
        "status": {"state": "active"},
        "matchers": [{"name": "instance", "value": "val1", "isRegex": False, "isEqual": True}],
        "startsAt": "2026-01-31T12:00:00Z",
        "endsAt": silence._stamp(ends),
        "createdBy": "chainops",
        "comment": "turn-1",
        **changes,
    }


def test_a_silence_is_kept_extended_or_made() -> None:
    wanted, now = silence.matchers(MATCH), 1769860800.0

    def plan(*have: dict[str, t.Any]) -> silence.Step:
        return silence.present(have, wanted, "chainops", "turn-1", 600, now)

    assert plan().action == "create"
    assert plan(held(now + 400)) == silence.Step("keep", ("s1",))
    longer = plan(held(now + 200))
    assert (
        (longer.action, longer.ids) == ("extend", ("s1",)) and longer.body and longer.body["startsAt"] == "2026-01-31T12:00:00Z"
    )
    assert readers.moment(longer.body["endsAt"]) == pytest.approx(now + 600)
    for other in ({"comment": "turn-2"}, {"createdBy": "alex"}, {"matchers": []}, {"status": {"state": "expired"}}):
        assert plan(held(now + 400, **other)).action == "create"


@pytest.mark.parametrize(
    "wide",
    [
        [],
        [{"name": "instance", "value": ".*", "regex": True}],
        [{"name": "instance", "value": ""}],
        [{"name": "x", "value": "y", "equal": False}],
    ],
)
def test_a_silence_of_everything_is_refused(wide: list[dict[str, t.Any]]) -> None:
    with pytest.raises(InputError, match="picks out something"):
        silence.matchers(wide)


def test_a_query_that_gives_no_vector_is_an_input_error() -> None:
    api, http = prometheus()
    http.answers["/api/v1/query?query=x"] = {"status": "success", "data": {"resultType": "string", "result": [1, "a"]}}
    with pytest.raises(InputError):
        api.query("x")
    http.answers["/api/v1/query?query=y"] = {"status": "error", "error": "parse error"}
    with pytest.raises(HttpError, match="parse error"):
        api.query("y")
