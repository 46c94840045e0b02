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


def silence_of(name: str, value: str, regex: bool = False, **changes: t.Any) -> dict[str, t.Any]:
    matcher = {"name": name, "value": value, "isRegex": regex, "isEqual": True}
    return {"id": "s", "status": {"state": "active"}, "matchers": [matcher], "createdBy": "alex", "endsAt": "later", **changes}


@pytest.mark.parametrize(
    ("silence", "hides"),
    [
        (silence_of("alertname", "NodeDown"), True),
        (silence_of("instance", "val2(:[0-9]+)?", regex=True), True),
        (silence_of("severity", "critical"), True),
        (silence_of("alertname", "Node"), False),
        (silence_of("alertname", "Node", regex=True), False),
        (silence_of("team", ""), True),
        (silence_of("team", "other"), False),
        (silence_of("alertname", "(?P<", regex=True), True),
        (silence_of("alertname", "NodeDown", createdBy="chainops.validator"), False),
        (silence_of("alertname", "NodeDown", status={"state": "pending"}), False),
    ],
)
def test_a_silence_by_accident_is_found_by_what_it_hides(silence: dict[str, t.Any], hides: bool) -> None:
    services = facts()
    services["alertmanager"]["silences"].append(silence)
    said = [f for f in health.judge(services, Expectations(jobs=("xai-node",), rules=("NodeDown",))) if f.id == "silence:s"]
    assert [f.required for f in said] == [True] * hides, said
    assert not [f for f in health.judge(services, Expectations()) if f.id == "silence:s"], "nobody named it"


def test_an_alertmanager_that_hears_nothing_or_tells_nobody() -> None:
    services = facts()
    services["alertmanager"]["alerts"].clear()
    fresh = services["prometheus"]["alerts"][0]["activeAt"]
    services["prometheus"]["alerts"][0]["activeAt"] = "2026-11-22T21:00:00Z"
    assert any("has not heard of it" in m for m in messages(services))
    services["prometheus"]["alerts"][0]["activeAt"] = fresh
    assert not any("has not heard of it" in m for m in messages(services)), "it may still be on its way"
    config = "global:\n  resolve_timeout: 5m\nroute:\n  receiver: operators\nreceivers:\n- name: operators\n- name: 'pager'\n"
    services = facts()
    services["alertmanager"].update(config=config, receivers=["operators", "pager"])
    assert any("no receiver has any integration" in m for m in messages(services))
    assert any("'operators' sends nothing anywhere" in m for m in messages(services, Expectations(receivers=("operators",))))
    services["alertmanager"]["config"] += "  webhook_configs:\n  - url: <secret>\ntemplates: []\n"
    assert health.mute_receivers(services["alertmanager"]["config"]) == ["operators"]
    assert not any("no receiver has any" in m for m in messages(services))


def test_a_prometheus_that_stores_nothing_or_has_no_rules() -> None:
    services = facts()
    services["prometheus"]["samples"] = []
    assert sum("no scrape of it is in the database" in m for m in messages(services)) == 3
    services = facts()
    services["prometheus"]["rules"] = []
    assert "it has no rule: no alert can ever fire" in messages(services)


NAN = float("nan")


@pytest.mark.parametrize(
    ("numbers", "bounds", "words"),
    [
        ([3.0], {"max": 5}, ""),
        ([3.0, 7.0], {"max": 5}, "backlog is 7, more than 5"),
        ([3.0, 0.5], {"min": 1}, "backlog is 0.5, less than 1"),
        ([], {"max": 5}, "backlog: no data"),
        ([NAN], {"max": 5}, "backlog: no data"),
        (None, {}, "backlog: refused"),
        ([12.0], {"max_rise": 2}, ""),
        ([12.5], {"max_rise": 2}, "backlog is 12.5, and was 10: it may rise by 2"),
    ],
)
def test_values_are_held_against_their_bounds(numbers: list[float] | None, bounds: dict[str, float], words: str) -> None:
    services = facts()
    services["prometheus"]["values"] = {"backlog": {"is": numbers, "why": "refused" if numbers is None else "no data"}}
    expect = Expectations(values=(health.Value("backlog", "q", **bounds),))
    before = {"findings": [], "values": {"backlog": [9.0, 10.0]}}
    said = [f for f in health.judge(services, expect, before) if f.id.startswith("value:")]
    assert [f.message for f in said] == ([words] if words else [])
    assert all(f.required for f in said if ":none" in f.id or ":rise" in f.id)
    json.dumps(health.values(services), allow_nan=False)


def test_the_queries_of_a_dashboard_and_the_series_they_read() -> None:
    board = {
        "panels": [
            {
                "type": "row",
                "panels": [{"targets": [{"expr": 'rate(xai_a_total{instance=~"$host",job="x"}[$__rate_interval])'}]}],
            },
            {"targets": [{"expr": "xai_b"}, {"expr": " "}, {"query": "not this"}]},
        ],
        "rows": [{"panels": [{"targets": [{"expr": 'sum(xai_c{job="$job"})'}]}]}],
    }
    queries = health.panel_queries(board)
    assert [promql.selectors(query) for query in queries] == [('xai_a_total{job="x"}',), ("xai_b",), ("xai_c{}",)]
    grafana = {"up": True, "health": {"database": "ok"}, "dashboards": {"x": True, "y": True}, "panels": {"x": queries, "y": []}}
    grafana.update(token=False, panel_series={"x": {"xai_b": True, "xai_c": False, "xai_d": None}})
    assert messages({"grafana": grafana}) == [
        "dashboard 'x': 2 of 3 series that it shows don't exist: xai_c, xai_d",
        "expected dashboard 'y' has no panel that asks for anything",
        "without grafana_token nobody knows whether its data sources answer",
    ]
    grafana.update(token=True, dashboards={}, data_sources=[], data_source_health={})
    assert messages({"grafana": grafana}, Expectations(data_sources=("Prometheus",))) == [
        "it has no data source: dashboards show nothing",
        "expected data source 'Prometheus' does not exist",
    ]


class Bad(Recorded):
    """A service that is up, and whose every answer is the same nonsense."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__({})
        self.status, self.body = status, body

    def get(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> Response:
        return Response(200 if path.endswith("ready") else self.status, {}, self.body, self.url(path))


@pytest.mark.parametrize("service", ["prometheus", "alertmanager", "grafana", "loki"])
@pytest.mark.parametrize(
    "http",
    [
        Bad(200, b"<html>welcome</html>"),
        Bad(200, b"{}"),
        Bad(200, b"[]"),
        Bad(200, b'{"status":"success","data":{}}'),
        Bad(200, b"null"),
        Bad(502, b"bad gateway"),
        Bad(401, b'{"message":"unauthorized"}'),
    ],
)
def test_a_service_that_lies_or_says_nothing_never_passes(service: str, http: Bad) -> None:
    apis: dict[str, t.Any] = {
        "prometheus": readers.Prometheus("http://monitor", 1),
        "alertmanager": readers.Alertmanager("http://monitor", 1),
        "grafana": readers.Grafana("http://monitor", 1, "t0ken"),
        "loki": readers.Loki("http://monitor", 1),
    }
    api = apis[service]
    api.http = t.cast("t.Any", http)
    seen = {
        "prometheus": lambda: health.ask_prometheus(api, 0, 900),
        "alertmanager": lambda: health.ask_alertmanager(api),
        "grafana": lambda: health.ask_grafana(api, True, ("board",)),
        "loki": lambda: health.ask_loki(api, ('{job="xai"}',), 900),
    }[service]()
    findings = health.judge({service: seen}, Expectations())
    assert any(f.required for f in findings), (service, findings)
    baseline = {"findings": [f.as_dict() for f in findings]}
    assert health.compare(findings, baseline)[0], "nor when it was like that before"


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
                "/api/dashboards/uid/xai-overview": {"dashboard": {"panels": [{"targets": [{"expr": "up"}]}]}},
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
