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
import re
import typing as t

from .._core.errors import ChainopsError
from . import promql
from .readers import Alertmanager, Grafana, JsonDict, Loki, Prometheus, moment

MAX_SELECTORS = 1000


@dataclasses.dataclass(frozen=True)
class Expectations:
    """What has to be there. ``max_scrape_age`` 0 means three times a target's own interval; seconds."""

    jobs: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
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


def ask_prometheus(api: Prometheus, wall: float, window: int) -> JsonDict:
    """Facts of one Prometheus. What couldn't be asked is None, with its reason under ``errors``."""
    facts: JsonDict = {"url": api.http.url(""), "up": True, "wall": wall}
    _try(facts, "ready", api.ready)
    if facts["ready"] is None:
        return {**facts, "up": False}
    for what in ("version", "targets", "rules", "alertmanagers", "alerts", "now"):
        _try(facts, what, getattr(api, what))
    wanted = sorted({s for rule in facts["rules"] or [] for s in promql.selectors(str(rule.get("query", "")))})
    facts["selectors"] = {}
    for selector in wanted[:MAX_SELECTORS]:
        answer: JsonDict = {}
        _try(answer, "has", functools.partial(api.has, selector, window))
        facts["selectors"][selector] = answer["has"]
    return facts


def ask_alertmanager(api: Alertmanager) -> JsonDict:
    facts: JsonDict = {"url": api.http.url(""), "up": True}
    _try(facts, "ready", api.ready)
    if facts["ready"] is None:
        return {**facts, "up": False}
    for what in ("version", "receivers", "silences", "alerts"):
        _try(facts, what, getattr(api, what))
    return facts


def ask_grafana(api: Grafana, token: bool, dashboards: t.Iterable[str]) -> JsonDict:
    facts: JsonDict = {"url": api.http.url(""), "up": True}
    health = _try(facts, "health", api.health)
    if health is None:
        return {**facts, "up": False}
    facts["dashboards"] = {}
    for uid in dashboards:
        answer: JsonDict = {}
        _try(answer, "has", functools.partial(api.has_dashboard, uid))
        facts["dashboards"][uid] = answer["has"]
    if token:
        sources = _try(facts, "data_sources", api.data_sources) or []
        facts["data_source_health"] = {}
        for source in sources:
            answer = {}
            _try(answer, "is", functools.partial(api.data_source_health, str(source.get("uid"))))
            facts["data_source_health"][str(source.get("name"))] = (answer["is"] or {}).get("status")
    return facts


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


def judge(services: t.Mapping[str, JsonDict], expect: Expectations) -> tuple[Finding, ...]:
    """Every finding, in order of service."""
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
        for target in targets:
            yield from _target(target, now, expect)
        jobs = {str(target.get("labels", {}).get("job", "")) for target in targets}
        for job in expect.jobs:
            if job not in jobs:
                yield Finding(f"job:{job}", name, f"expected job {job!r} has no target; there are: {_list(jobs)}", True)
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


def _target(target: JsonDict, now: float | None, expect: Expectations) -> t.Iterator[Finding]:
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
    for silence in facts["silences"] or []:
        if silence.get("status", {}).get("state") == "active" and _catches_all(silence):
            who = f"{silence.get('createdBy', '?')}: {silence.get('comment', '')}"[:120]
            yield Finding(
                f"silence:{silence.get('id')}", name, f"a silence hides every alert until {silence.get('endsAt')} ({who})"
            )


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
    for source, status in facts.get("data_source_health", {}).items():
        if status != "OK":
            yield Finding(f"data-source:{source}", "grafana", f"data source {source!r} does not answer: {status or 'no status'}")


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
