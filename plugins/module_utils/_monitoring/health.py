# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is monitoring able to tell the truth? Collected first, judged purely afterwards.

A service that is down, empty or stale is a finding of its own, never a pass. What was broken before an upgrade is told
apart from what is new by each finding's ``id``; what the caller named as expected is required whatever was before.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing as t

from .._core.errors import ChainopsError
from . import promql
from .readers import Alertmanager, Grafana, JsonDict, Loki, Prometheus, moment

MAX_SELECTORS = 1000


#: Seconds that an alert may need from Prometheus to Alertmanager.
DELIVERY = 120.0
OURS = "chainops.validator"


@dataclasses.dataclass(frozen=True)
class Value:
    """A number that must be there, for each series of ``query``, and within bounds. ``max_rise``: above what it was before."""

    name: str
    query: str
    min: float | None = None
    max: float | None = None
    max_rise: float | None = None
    required: bool = False


@dataclasses.dataclass(frozen=True)
class Expectations:
    """What has to be there. ``max_scrape_age`` 0 means three times a target's own interval; seconds."""

    jobs: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    data_sources: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()
    dashboards: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    ignore_alerts: tuple[str, ...] = ("Watchdog",)
    max_scrape_age: float = 0.0
    max_clock_skew: float = 30.0
    window: int = 900


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something wrong. ``required``: it fails whatever was before."""

    id: str
    service: str
    message: str
    required: bool = False

    def as_dict(self) -> JsonDict:
        return dataclasses.asdict(self)


# -- collecting ----------------------------------------------------------------------------------------------------------


def _try(facts: JsonDict, what: str, look: t.Callable[[], t.Any]) -> t.Any:
    try:
        facts[what] = look()
    except (ChainopsError, KeyError, TypeError, ValueError, AttributeError) as exc:
        message = exc.message if isinstance(exc, ChainopsError) else f"an answer of another shape than expected ({exc!r})"
        facts.setdefault("errors", {})[what] = message
        facts[what] = None
    return facts[what]


def ask_prometheus(api: Prometheus, wall: float, window: int, values: t.Iterable[Value] = ()) -> JsonDict:
    """Facts of one Prometheus. What couldn't be asked is None, with its reason under ``errors``."""
    facts: JsonDict = {"url": api.http.url(""), "up": True, "wall": wall}
    _try(facts, "ready", api.ready)
    if facts["ready"] is None:
        return {**facts, "up": False}
    for what in ("version", "targets", "rules", "alertmanagers", "alerts", "now"):
        _try(facts, what, getattr(api, what))
    _try(facts, "samples", api.up)
    facts["values"] = {}
    for value in values:
        read: JsonDict = {}
        _try(read, "is", functools.partial(_numbers, api, value.query))
        facts["values"][value.name] = {"is": read["is"], "why": (read.get("errors") or {}).get("is", "no data")}
    wanted = sorted({s for rule in facts["rules"] or [] for s in promql.selectors(str(rule.get("query", "")))})
    facts["selectors"] = {}
    for selector in wanted[:MAX_SELECTORS]:
        answer: JsonDict = {}
        _try(answer, "has", functools.partial(api.has, selector, window))
        facts["selectors"][selector] = answer["has"]
    return facts


def _numbers(api: Prometheus, query: str) -> list[float]:
    return [one.points[-1][1] for one in api.query(query)]


def ask_alertmanager(api: Alertmanager) -> JsonDict:
    facts: JsonDict = {"url": api.http.url(""), "up": True}
    _try(facts, "ready", api.ready)
    if facts["ready"] is None:
        return {**facts, "up": False}
    for what in ("version", "config", "receivers", "silences", "alerts"):
        _try(facts, what, getattr(api, what))
    return facts


def ask_grafana(api: Grafana, token: bool, dashboards: t.Iterable[str]) -> JsonDict:
    facts: JsonDict = {"url": api.http.url(""), "up": True}
    health = _try(facts, "health", api.health)
    if health is None:
        return {**facts, "up": False}
    facts.update(dashboards={}, panels={}, token=token)
    for uid in dashboards:
        answer: JsonDict = {}
        board = _try(answer, "has", functools.partial(api.dashboard, uid))
        facts["dashboards"][uid] = None if "errors" in answer else board is not None
        facts["panels"][uid] = panel_queries(board or {})
    if token:
        sources = _try(facts, "data_sources", api.data_sources) or []
        facts["data_source_health"] = {}
        for source in sources:
            answer = {}
            _try(answer, "is", functools.partial(api.data_source_health, str(source.get("uid"))))
            facts["data_source_health"][str(source.get("name"))] = (answer["is"] or {}).get("status")
    return facts


def panel_queries(board: t.Any) -> list[str]:
    """The PromQL of a dashboard's panels, rows and all, with what its variables would fill in left open."""
    if isinstance(board, list):
        return [query for one in board for query in panel_queries(one)]
    if not isinstance(board, dict):
        return []
    found = [query for key in ("panels", "rows", "targets") for query in panel_queries(board.get(key))]
    expression = board.get("expr")
    if isinstance(expression, str) and expression.strip():
        open_ended = re.sub(r'[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*"[^"]*\$[^"]*"\s*,?', "", expression)
        found.append(re.sub(r"\$\{?\w+\}?", "5m", open_ended))
    return found


def look_into_panels(facts: JsonDict, api: Prometheus, window: int) -> None:
    """Which series that dashboards read exist: ``facts["panel_series"][uid]``, by selector; None could not be asked."""
    facts["panel_series"] = {}
    for uid, queries in facts.get("panels", {}).items():
        wanted = sorted({s for query in queries for s in promql.selectors(query)})[:MAX_SELECTORS]
        facts["panel_series"][uid] = {}
        for selector in wanted:
            answer: JsonDict = {}
            _try(answer, "has", functools.partial(api.has, selector, window))
            facts["panel_series"][uid][selector] = answer["has"]


def ask_loki(api: Loki, streams: t.Iterable[str], window: int) -> JsonDict:
    facts: JsonDict = {"url": api.http.url(""), "up": True}
    _try(facts, "ready", api.ready)
    if facts["ready"] is None:
        return {**facts, "up": False}
    facts["streams"] = {}
    for selector in streams:
        answer: JsonDict = {}
        _try(answer, "lines", functools.partial(api.lines, selector, window))
        facts["streams"][selector] = answer["lines"]
    return facts


# -- judging -------------------------------------------------------------------------------------------------------------


def judge(
    services: t.Mapping[str, JsonDict], expect: Expectations, baseline: t.Mapping[str, t.Any] | None = None
) -> tuple[Finding, ...]:
    """Every finding, in order of service. ``baseline``: for values that must not rise above what they were."""
    judges: dict[str, t.Callable[[JsonDict, Expectations], t.Iterator[Finding]]] = {
        "prometheus": _prometheus,
        "alertmanager": _alertmanager,
        "grafana": _grafana,
        "loki": _loki,
    }
    found: list[Finding] = []
    for name, facts in services.items():
        for what, why in (facts.get("errors") or {}).items():
            down = not facts["up"]
            text = f"{name} is down: {why}" if down else f"{name} doesn't tell its {what}: {why}"
            found.append(Finding(f"{name}:{'down' if down else 'unread:' + what}", name, text, True))
        if facts["up"]:
            found.extend(judges[name](facts, expect))
    found.extend(_hidden(services, expect))
    found.extend(_deaf(services))
    found.extend(_values(services.get("prometheus", {}), expect, (baseline or {}).get("values") or {}))
    found.extend(_firing(firing(services, expect)))
    return tuple(found)


def firing(services: t.Mapping[str, JsonDict], expect: Expectations) -> list[JsonDict]:
    """Firing alerts: ``{name, labels, severity, since, silenced, ignored}``."""
    silenced = {
        _key(a.get("labels", {}))
        for a in (services.get("alertmanager", {}).get("alerts") or [])
        if a.get("status", {}).get("state") == "suppressed"
    }
    result = []
    for alert in services.get("prometheus", {}).get("alerts") or []:
        if alert.get("state") == "firing":
            labels = {str(k): str(v) for k, v in alert.get("labels", {}).items()}
            name = labels.get("alertname", "")
            result.append(
                {
                    "name": name,
                    "labels": labels,
                    "severity": labels.get("severity", ""),
                    "since": str(alert.get("activeAt", "")),
                    "silenced": _key(labels) in silenced,
                    "ignored": name in expect.ignore_alerts,
                }
            )
    return sorted(result, key=lambda a: _key(a["labels"]))


def _hidden(services: t.Mapping[str, JsonDict], expect: Expectations) -> t.Iterator[Finding]:
    """Silences, not the rollout's own, under which an expected alert would say nothing about some target."""
    prometheus = services.get("prometheus", {})
    named = {str(rule.get("name")): rule for rule in prometheus.get("rules") or [] if rule.get("type") != "recording"}
    targets = [t_.get("labels", {}) for t_ in prometheus.get("targets") or []]
    places = [labels for labels in targets if not expect.jobs or labels.get("job") in expect.jobs] or [{}]
    for silence in services.get("alertmanager", {}).get("silences") or []:
        if silence.get("status", {}).get("state") != "active" or silence.get("createdBy") == OURS or _catches_all(silence):
            continue
        hidden = sorted(
            {
                name
                for name in expect.rules
                if name in named
                for place in places
                if _matches(silence, {**place, **(named[name].get("labels") or {}), "alertname": name})
            }
        )
        if hidden:
            who = f"{silence.get('createdBy', '?')}: {silence.get('comment', '')}"[:120]
            text = f"a silence hides {', '.join(hidden)} until {silence.get('endsAt')} ({who})"
            yield Finding(f"silence:{silence.get('id')}", "alertmanager", text, True)


def _matches(silence: JsonDict, labels: t.Mapping[str, t.Any]) -> bool:
    """As Alertmanager does: regular expressions are anchored, and a label that isn't there is empty."""
    for matcher in silence.get("matchers", []):
        value, wanted = str(labels.get(matcher.get("name"), "")), str(matcher.get("value", ""))
        try:
            same = bool(re.fullmatch(wanted, value)) if matcher.get("isRegex") else value == wanted
        except re.error:
            same = True  # Go knows expressions that we don't; it may match
        if same is not bool(matcher.get("isEqual", True)):
            return False
    return True


def _deaf(services: t.Mapping[str, JsonDict]) -> t.Iterator[Finding]:
    """Alerts that have fired for a while, and that Alertmanager has not heard of."""
    prometheus, heard = services.get("prometheus", {}), services.get("alertmanager", {}).get("alerts")
    now = prometheus.get("now")
    if heard is None or now is None:
        return
    for alert in prometheus.get("alerts") or []:
        labels = alert.get("labels", {})
        if alert.get("state") != "firing" or now - moment(str(alert.get("activeAt", "0001-"))) < DELIVERY:
            continue
        if not any(all(one.get("labels", {}).get(k) == v for k, v in labels.items()) for one in heard):
            text = (
                f"alert {labels.get('alertname')} has fired for more than {DELIVERY:.0f} s, and Alertmanager has not heard of it"
            )
            yield Finding("alertmanager:deaf", "alertmanager", text, True)
            return


def _values(facts: JsonDict, expect: Expectations, before: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    if not facts.get("up"):
        return
    for value in expect.values:
        read = facts["values"][value.name]
        numbers = [n for n in read["is"] or [] if not math.isnan(n)]
        if not numbers:
            yield Finding(f"value:{value.name}:none", "prometheus", f"{value.name}: {read['why']}", True)
            continue
        if value.max is not None and max(numbers) > value.max:
            text = f"{value.name} is {max(numbers):g}, more than {value.max:g}"
            yield Finding(f"value:{value.name}:max", "prometheus", text, value.required)
        if value.min is not None and min(numbers) < value.min:
            text = f"{value.name} is {min(numbers):g}, less than {value.min:g}"
            yield Finding(f"value:{value.name}:min", "prometheus", text, value.required)
        was = [n for n in before.get(value.name) or [] if isinstance(n, (int, float))]
        if value.max_rise is not None and was and max(numbers) > max(was) + value.max_rise:
            text = f"{value.name} is {max(numbers):g}, and was {max(was):g}: it may rise by {value.max_rise:g}"
            yield Finding(f"value:{value.name}:rise", "prometheus", text, True)


def values(services: t.Mapping[str, JsonDict]) -> JsonDict:
    """The numbers that were asked for, by name; what is no number is left out."""
    read = services.get("prometheus", {}).get("values") or {}
    return {name: [n for n in one["is"] or [] if math.isfinite(n)] for name, one in read.items()}


def _key(labels: t.Mapping[str, t.Any]) -> str:
    return ",".join(f"{k}={labels[k]}" for k in sorted(labels))


def _firing(alerts: t.Iterable[JsonDict]) -> t.Iterator[Finding]:
    for alert in alerts:
        if not alert["silenced"] and not alert["ignored"]:
            key = _key({k: v for k, v in alert["labels"].items() if k != "alertname"})
            yield Finding(f"alert:{alert['name']}:{key}", "prometheus", f"alert {alert['name']} fires ({key or 'no labels'})")


def _prometheus(facts: JsonDict, expect: Expectations) -> t.Iterator[Finding]:
    name = "prometheus"
    targets, rules, now = facts["targets"], facts["rules"], facts["now"]
    if now is not None and abs(now - facts["wall"]) > expect.max_clock_skew:
        yield Finding(
            "prometheus:clock",
            name,
            f"its clock differs from ours by {now - facts['wall']:+.0f} s, more than {expect.max_clock_skew:g} s: "
            "nothing it says about time can be trusted",
            True,
        )
    if targets is not None:
        if not targets:
            yield Finding("prometheus:no-targets", name, "it scrapes nothing: no active target", True)
        stored = None if facts["samples"] is None else {_place(labels): value for labels, value in facts["samples"]}
        for target in targets:
            yield from _target(target, now, expect, stored)
        jobs = {str(target.get("labels", {}).get("job", "")) for target in targets}
        for job in expect.jobs:
            if job not in jobs:
                yield Finding(f"job:{job}", name, f"expected job {job!r} has no target; there are: {_list(jobs)}", True)
    if rules == []:
        yield Finding("prometheus:no-rules", name, "it has no rule: no alert can ever fire")
    if rules is not None:
        loaded = {str(rule.get("name", "")) for rule in rules}
        for rule_name in expect.rules:
            if rule_name not in loaded:
                yield Finding(f"rule:{rule_name}:missing", name, f"expected rule {rule_name!r} is not loaded", True)
        for rule in rules:
            yield from _rule(rule, facts["selectors"], expect)
        if len(facts["selectors"]) >= MAX_SELECTORS:
            yield Finding("prometheus:too-many-rules", name, f"only the first {MAX_SELECTORS} selectors of rules were checked")
    if facts["alertmanagers"] == []:
        yield Finding("prometheus:no-alertmanager", name, "it has no Alertmanager: alerts that fire reach nobody")


def _place(labels: t.Mapping[str, t.Any]) -> tuple[str, str]:
    return str(labels.get("job", "")), str(labels.get("instance", ""))


def _target(
    target: JsonDict, now: float | None, expect: Expectations, stored: t.Mapping[tuple[str, str], float] | None
) -> t.Iterator[Finding]:
    labels = target.get("labels", {})
    job, instance = str(labels.get("job", "")), str(labels.get("instance", ""))
    where, required = f"target {instance} of job {job!r}", job in expect.jobs
    if target.get("health") != "up":
        why = str(target.get("lastError", "") or target.get("health", "unknown"))
        yield Finding(f"target:{job}:{instance}", "prometheus", f"{where} is {target.get('health')}: {why[:200]}", required)
        return
    limit = expect.max_scrape_age or 3 * _seconds(str(target.get("scrapeInterval", ""))) + 5
    last = moment(str(target.get("lastScrape", "0001-")))
    if now is not None and now - last > limit:
        text = f"{where} was last scraped {now - last:.0f} s ago, more than {limit:g} s"
        yield Finding(f"target:{job}:{instance}", "prometheus", text, required)
    elif stored is not None and stored.get((job, instance)) != 1:
        text = f"{where} is said to be up, but no scrape of it is in the database"
        yield Finding(f"target:{job}:{instance}:unstored", "prometheus", text, required)


def _seconds(text: str) -> float:
    """Go's short durations (``15s``, ``1m30s``); 60 when there is none."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    return sum(int(n) * units[u] for n, u in parts) if parts else 60.0


def _rule(rule: JsonDict, has: t.Mapping[str, bool | None], expect: Expectations) -> t.Iterator[Finding]:
    title = str(rule.get("name", ""))
    required = title in expect.rules
    if rule.get("health") == "err":
        text = f"rule {title} can't be evaluated: {str(rule.get('lastError', ''))[:200]}"
        yield Finding(f"rule:{title}:error", "prometheus", text, required)
    missing = [s for s in promql.selectors(str(rule.get("query", ""))) if has.get(s) is False]
    if missing:
        text = f"rule {title} can't ever fire: no series for {', '.join(missing)} in the last {expect.window} s"
        yield Finding(f"rule:{title}:series", "prometheus", text, required)
    unknown = [s for s in promql.selectors(str(rule.get("query", ""))) if s in has and has[s] is None]
    if unknown:
        yield Finding(f"rule:{title}:unknown", "prometheus", f"rule {title}: could not look for {', '.join(unknown)}", required)


def _alertmanager(facts: JsonDict, expect: Expectations) -> t.Iterator[Finding]:
    name = "alertmanager"
    if facts["receivers"] == []:
        yield Finding("alertmanager:no-receivers", name, "it has no receiver: alerts reach nobody", True)
    for receiver in expect.receivers:
        if facts["receivers"] is not None and receiver not in facts["receivers"]:
            yield Finding(f"receiver:{receiver}", name, f"expected receiver {receiver!r} is not configured", True)
        elif facts["config"] and receiver in mute_receivers(facts["config"]):
            text = f"expected receiver {receiver!r} sends nothing anywhere: it has no integration"
            yield Finding(f"receiver:{receiver}:mute", name, text, True)
    if facts["receivers"] and facts["config"] and set(facts["receivers"]) <= set(mute_receivers(facts["config"])):
        yield Finding("alertmanager:mute", name, "no receiver has any integration: alerts reach nobody")
    for silence in facts["silences"] or []:
        if silence.get("status", {}).get("state") == "active" and _catches_all(silence):
            who = f"{silence.get('createdBy', '?')}: {silence.get('comment', '')}"[:120]
            yield Finding(
                f"silence:{silence.get('id')}", name, f"a silence hides every alert until {silence.get('endsAt')} ({who})"
            )


def mute_receivers(config: str) -> list[str]:
    """Receivers without any ``..._configs``, in the configuration as Alertmanager itself writes it."""
    mute: list[str] = []
    inside = False
    for line in config.splitlines():
        if line and line[0] not in " -":
            inside = line.startswith("receivers:")
        elif inside and (found := re.match(r"- name: *(.*?) *$", line)):
            mute.append(found.group(1).strip("'\""))
        elif inside and mute and re.match(r"  \w+_configs:", line):
            mute[-1] = ""
    return [name for name in mute if name]


def _catches_all(silence: JsonDict) -> bool:
    return all(
        m.get("isRegex") and m.get("isEqual", True) and m.get("value") in (".*", ".+", "^.*$", "^.+$")
        for m in silence.get("matchers", [])
    )


def _grafana(facts: JsonDict, expect: Expectations) -> t.Iterator[Finding]:
    if facts["health"].get("database") != "ok":
        yield Finding("grafana:database", "grafana", f"its database is {facts['health'].get('database', 'not told')!r}", True)
    for uid, there in facts["dashboards"].items():
        if not there:
            why = "does not exist" if there is False else "could not be asked for (a token may be needed)"
            yield Finding(f"dashboard:{uid}", "grafana", f"expected dashboard {uid!r} {why}", True)
        elif not facts["panels"][uid]:
            yield Finding(f"dashboard:{uid}:empty", "grafana", f"expected dashboard {uid!r} has no panel that asks for anything")
        series = facts.get("panel_series", {}).get(uid) or {}
        gone = [selector for selector, has in series.items() if not has]
        if gone:
            text = f"dashboard {uid!r}: {len(gone)} of {len(series)} series that it shows don't exist: {', '.join(gone[:3])}"
            yield Finding(f"dashboard:{uid}:series", "grafana", text + (" and others" if len(gone) > 3 else ""))
    if not facts.get("token"):
        yield Finding("grafana:no-token", "grafana", "without grafana_token nobody knows whether its data sources answer")
    if facts.get("data_sources") == []:
        yield Finding("grafana:no-data-sources", "grafana", "it has no data source: dashboards show nothing", True)
    for source, status in facts.get("data_source_health", {}).items():
        if status != "OK":
            text = f"data source {source!r} does not answer: {status or 'no status'}"
            yield Finding(f"data-source:{source}", "grafana", text, source in expect.data_sources)
    for source in expect.data_sources:
        if facts.get("token") and source not in facts.get("data_source_health", {}):
            yield Finding(f"data-source:{source}:missing", "grafana", f"expected data source {source!r} does not exist", True)


def _loki(facts: JsonDict, expect: Expectations) -> t.Iterator[Finding]:
    for selector, lines in facts["streams"].items():
        if not lines:
            why = "could not be asked for" if lines is None else f"has had no line for {expect.window} s"
            yield Finding(f"stream:{selector}", "loki", f"expected stream {selector} {why}", True)


def _list(names: t.Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def summary(services: t.Mapping[str, JsonDict]) -> JsonDict:
    """The services as results show them: counts instead of lists."""
    short: JsonDict = {}
    for name, facts in services.items():
        entry: JsonDict = {"url": facts["url"], "up": facts["up"], "version": facts.get("version")}
        if name == "grafana" and facts.get("health"):
            entry["version"] = facts["health"].get("version")
        for what in ("targets", "rules", "silences", "receivers", "alertmanagers"):
            if isinstance(facts.get(what), list):
                entry[what] = len(facts[what])
        short[name] = entry
    return short


def compare(findings: t.Iterable[Finding], baseline: t.Mapping[str, t.Any] | None) -> tuple[list[Finding], list[Finding]]:
    """(what fails, what was already so before). Without a baseline everything fails; required ones always do."""
    before = {str(f["id"]) for f in (baseline or {}).get("findings", [])}
    found = list(findings)
    known = [f for f in found if not f.required and f.id in before]
    return [f for f in found if f not in known], known
