# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters and the Prometheus text format, under the XAI node's names where it has one."""

from __future__ import annotations

import os
import time
import typing as t

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as handle:
        return int(handle.read().split()[1]) * _PAGE


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


class Metrics:
    """What this process counts. Gauges are given at the time of the scrape."""

    def __init__(self) -> None:
        self.started = time.time()
        self.requests: dict[tuple[str, str, int], int] = {}
        self.errors = 0
        self.duration_sum = 0.0
        self.duration_count = 0
        self.buckets = [0] * len(BUCKETS)
        self.counters: dict[str, float] = {}

    def request(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        key = (method, endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.errors += status >= 500
        self.duration_sum += seconds
        self.duration_count += 1
        for i, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self.buckets[i] += 1

    def count(self, name: str, by: float = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def security(self, severity: str) -> None:
        """One event; on XAI it would be counted twice."""
        self.count("xai_security_events_total")
        if severity in ("warning", "critical"):
            self.count(f"xai_security_events_{severity}_total")

    def render(
        self, gauges: t.Mapping[str, float], labelled: t.Mapping[str, t.Sequence[tuple[t.Mapping[str, str], float]]]
    ) -> str:
        """``gauges``: name -> value; ``labelled``: name -> [(labels, value)]. Names ending in _total are counters."""
        lines: list[str] = []

        def kind(name: str) -> str:
            return "counter" if name.endswith("_total") else "gauge"

        for name, value in sorted({**self.counters, **gauges}.items()):
            lines += [f"# TYPE {name} {kind(name)}", f"{name} {_number(value)}"]
        for name, samples in sorted(labelled.items()):
            lines.append(f"# TYPE {name} {kind(name)}")
            lines += [f"{name}{{{_labels(labels)}}} {_number(value)}" for labels, value in samples]
        lines.append("# TYPE xai_api_requests_total counter")
        for (method, endpoint, status), value in sorted(self.requests.items()):
            lines.append(f'xai_api_requests_total{{method="{method}",endpoint="{endpoint}",status="{status}"}} {value}')
        lines.append("# TYPE xai_api_request_duration_seconds histogram")
        for bound, value in zip(BUCKETS, self.buckets):
            lines.append(f'xai_api_request_duration_seconds_bucket{{le="{bound}"}} {value}')
        lines.append(f'xai_api_request_duration_seconds_bucket{{le="+Inf"}} {self.duration_count}')
        lines.append(f"xai_api_request_duration_seconds_sum {self.duration_sum:.6f}")
        lines.append(f"xai_api_request_duration_seconds_count {self.duration_count}")
        return "\n".join(lines) + "\n"


def _labels(labels: t.Mapping[str, str]) -> str:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return ",".join(f'{name}="{escape(text)}"' for name, text in labels.items())


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
