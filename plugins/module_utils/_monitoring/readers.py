# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading Prometheus, Alertmanager, Grafana and Loki through their HTTP APIs. Nothing here judges."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._core.clock import CLOCK
from .._core.errors import HttpError, InputError
from .._core.http import HttpClient, expect

JsonDict = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Series:
    """One series of an answer. ``points``: (seconds since the epoch, value), oldest first; values may be NaN."""

    labels: t.Mapping[str, str]
    points: tuple[tuple[float, float], ...]


def _number(text: t.Any) -> float:
    return float(str(text).replace("Inf", "inf"))


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time (as Go writes it: nanoseconds, Z or an offset); 0.0 for Go's zero time."""
    if text.startswith("0001-"):
        return 0.0
    head, dummy, rest = text.replace("Z", "+00:00").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if rest else head[19:]
    parsed = datetime.datetime.fromisoformat(head[:19] + (zone or "+00:00"))
    return parsed.timestamp() + float(f"0.{digits or 0}")


def _dicts(value: t.Any) -> list[JsonDict]:
    """Raises TypeError for anything but a list of objects: what reads as one by accident must not."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise TypeError(f"not a list of objects: {str(value)[:60]!r}")
    return value


class _Api:
    """What the four have in common."""

    def __init__(self, url: str, timeout: float, headers: t.Mapping[str, str] | None = None) -> None:
        self.url = url
        self.http = HttpClient(url, timeout=timeout, headers=headers)

    def close(self) -> None:
        self.http.close()


class Prometheus(_Api):
    """API v1 of Prometheus 2.26 or later. Every method raises HttpError or Unreachable."""

    def _data(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> t.Any:
        answer = self.http.get("/api/v1" + path, query)
        if answer.status not in (200, 400, 422):
            expect(answer)
        body = answer.json()
        if not isinstance(body, dict) or body.get("status") != "success" or "data" not in body:
            words = str(body.get("error", body) if isinstance(body, dict) else body)[:300]
            raise HttpError(f"{answer.url}: {words}", url=answer.url, status=answer.status, body=words)
        return body["data"]

    def ready(self) -> bool:
        return expect(self.http.get("/-/ready")).status == 200

    def version(self) -> str:
        return str(self._data("/status/buildinfo").get("version", ""))

    def targets(self) -> list[JsonDict]:
        return _dicts(self._data("/targets", {"state": "active"})["activeTargets"])

    def rules(self) -> list[JsonDict]:
        """Every rule, with ``group``: recording rules have ``type: recording``."""
        return [{**rule, "group": g["name"]} for g in _dicts(self._data("/rules")["groups"]) for rule in _dicts(g["rules"])]

    def alertmanagers(self) -> list[str]:
        return [str(a.get("url", "")) for a in self._data("/alertmanagers")["activeAlertmanagers"]]

    def alerts(self) -> list[JsonDict]:
        return _dicts(self._data("/alerts")["alerts"])

    def query(self, expression: str) -> tuple[Series, ...]:
        data = self._data("/query", {"query": expression})
        if data["resultType"] == "scalar":
            return (Series({}, ((float(data["result"][0]), _number(data["result"][1])),)),)
        if data["resultType"] != "vector":
            raise InputError(f"{expression!r} is a {data['resultType']}; a number for each host is needed", query=expression)
        return tuple(Series(r["metric"], ((float(r["value"][0]), _number(r["value"][1])),)) for r in data["result"])

    def query_range(self, expression: str, start: float, end: float, step: float) -> tuple[Series, ...]:
        data = self._data(
            "/query_range", {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        )
        if data["resultType"] != "matrix":
            raise InputError(f"{expression!r} gives no series over time", query=expression)
        return tuple(Series(r["metric"], tuple((float(a), _number(v)) for a, v in r["values"])) for r in data["result"])

    def now(self) -> float:
        return self.query("time()")[0].points[0][1]

    def up(self) -> list[tuple[JsonDict, float]]:
        """Labels and value of every ``up`` there is: what a scrape left in the database, not what the scraper says of itself."""
        return [(dict(one.labels), one.points[-1][1]) for one in self.query("up")]

    def has(self, selector: str, seconds: int) -> bool:
        """Whether a selector had any sample in the last ``seconds``."""
        return bool(self.query(f"count(last_over_time({selector}[{int(seconds)}s]))"))


class Alertmanager(_Api):
    """API v2 of Alertmanager 0.20 or later."""

    def ready(self) -> bool:
        return expect(self.http.get("/-/ready")).status == 200

    def version(self) -> str:
        return str(self.http.get_json("/api/v2/status").get("versionInfo", {}).get("version", ""))

    def config(self) -> str:
        """The configuration in force, as it writes it (YAML, without secrets); empty where it doesn't tell."""
        return str((self.http.get_json("/api/v2/status").get("config") or {}).get("original", ""))

    def receivers(self) -> list[str]:
        return [str(r["name"]) for r in _dicts(self.http.get_json("/api/v2/receivers"))]

    def alerts(self) -> list[JsonDict]:
        return _dicts(self.http.get_json("/api/v2/alerts"))

    def silences(self) -> list[JsonDict]:
        """Those that are not expired."""
        return [s for s in _dicts(self.http.get_json("/api/v2/silences")) if s.get("status", {}).get("state") != "expired"]

    def silence(self, body: JsonDict) -> str:
        """Create one (without ``id``) or replace one (with it); returns its id."""
        return str(self.http.post_json("/api/v2/silences", body)["silenceID"])

    def expire(self, silence_id: str) -> None:
        expect(self.http.request("DELETE", f"/api/v2/silence/{silence_id}"))


class Grafana(_Api):
    """``token``: a service account's; without it only the health is read."""

    def __init__(self, url: str, timeout: float, token: str | None = None) -> None:
        super().__init__(url, timeout, {"Authorization": f"Bearer {token}"} if token else None)

    def health(self) -> JsonDict:
        return dict(self.http.get_json("/api/health"))

    def data_sources(self) -> list[JsonDict]:
        return _dicts(self.http.get_json("/api/datasources"))

    def data_source_health(self, uid: str) -> JsonDict:
        return dict(expect(self.http.get(f"/api/datasources/uid/{uid}/health"), 200, 400, 500).json())

    def dashboard(self, uid: str) -> JsonDict | None:
        """None when there is none."""
        answer = expect(self.http.get(f"/api/dashboards/uid/{uid}"), 200, 404)
        return dict(answer.json()["dashboard"]) if answer.status == 200 else None


class Loki(_Api):
    def ready(self) -> bool:
        return expect(self.http.get("/ready")).status == 200

    def lines(self, selector: str, seconds: int) -> float:
        """Log lines of a stream selector in the last ``seconds``."""
        query = {"query": f"sum(count_over_time({selector}[{int(seconds)}s]))", "time": f"{CLOCK.wall():.3f}"}
        result = self.http.get_json("/loki/api/v1/query", query)["data"]["result"]
        return sum(_number(r["value"][1]) for r in result)
