# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at an instance's host: what runs, what its turns came to, who holds it. Read-only, and never fails for a no."""

from __future__ import annotations

import os
import typing as t

from .._chain.registry import adapter as chain_adapter
from .._core import journal
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError
from . import aftermath, control, engine_main, fence, forecast, lock, past, release, service, turn
from .paths import Home

T = t.TypeVar("T")


def look(
    home: Home,
    service_spec: t.Mapping[str, t.Any],
    link: str,
    *,
    chain: str,
    data_dir: str | None = None,
    target: t.Sequence[str] = (),
    limit: int = 10,
    migrations: t.Sequence[str] = (),
) -> dict[str, t.Any]:
    """Everything ``validator_upgrade_info`` returns. ``target``: digests of the release a rollout goes to, one an architecture.

    ``migrations``: ids of what an upgrade would run, for the predicted stop window.
    """
    problems: list[str] = []

    def attempt(what: t.Callable[[], T], otherwise: T) -> T:
        try:
            return what()
        except (ChainopsError, OSError) as exc:
            problems.append(exc.message if isinstance(exc, ChainopsError) else str(exc))
            return otherwise

    node = service.make(service_spec, home)
    unknown = {"pid": None, "path": None, "sha256": None, "how": "it can't be told"}
    running: dict[str, t.Any] = attempt(lambda: _running(node, home, link), unknown)
    running["link"] = attempt(lambda: release.target(link), None)
    running["level"] = attempt(lambda: chain_adapter(chain).storage_level(data_dir), None) if data_dir else None
    turns = [found for name in home.turns()[:limit] if (found := attempt(lambda: control.outcome(home, name), None))]  # noqa: B023
    open_id = engine_main.open_turn(home)
    lease = attempt(lambda: lock.held(home.lock), None)
    opened = attempt(lambda: _open_row(home, open_id), {"id": open_id}) if open_id else None
    window = forecast.predict(attempt(lambda: past.results(home, 2 * forecast.TURNS), []), migrations=migrations)
    return {
        "running": running,
        "turns": turns,
        "open_turn": opened,
        "predicted_stop_window": {**window, "words": forecast.words(window)},
        "fence": attempt(lambda: fence.highest(home.fence), 0),
        "lock": {**lease.as_dict(), "expired": lease.expired(lock.now())} if lease else {},
        "unrecorded": attempt(lambda: aftermath.unrecorded(home), None),
        "guarded": node.guarded(),
        "status": status(home.instance, running, turns, opened, target),
        "problems": problems,
    }


def status(
    instance: str,
    running: t.Mapping[str, t.Any],
    turns: t.Sequence[t.Mapping[str, t.Any]],
    opened: t.Mapping[str, t.Any] | None,
    target: t.Sequence[str] = (),
) -> dict[str, t.Any]:
    """Pure: the host in one row. What runs decides between old and new; a turn only says how it came about."""
    last = turns[0] if turns else None
    row: dict[str, t.Any] = {
        "instance": instance,
        "state": "unknown",
        "step": None,
        "since": last["ended"] if last else None,
        "release": running.get("sha256") or running.get("path"),
        "turn": last["id"] if last else None,
        "why": last["reason"] if last else None,
    }
    if opened is not None:
        row.update(turn=opened["id"], step=opened.get("step"), since=opened.get("since"))
        row["state"] = "needs help" if opened.get("outcome") == turn.FAILED else "in turn"
    elif last is not None and last["outcome"] == turn.FAILED:
        row["state"] = "needs help"
    elif running.get("pid") is None or row["release"] is None:
        row["state"] = "unknown"
    elif running.get("sha256") in target:
        row["state"] = "new"
    elif last is not None and last["outcome"] == turn.PUT_BACK and (not target or last["new"]["sha256"] in target):
        row["state"] = "put back"
    else:
        row["state"] = "old" if target else "unknown"
    return row


def settle(home: Home, timeout: float, *, clock: Clock = CLOCK, interval: float = 0.5) -> None:
    """Wait, at most ``timeout`` seconds, until no engine works here any more. Starts none: that takes the rollout's lease."""
    until = clock.monotonic() + timeout
    while lock.engine_at_work(home) is not None and clock.monotonic() < until:
        clock.sleep(min(interval, max(0.01, until - clock.monotonic())))


def _running(node: service.Service, home: Home, link: str) -> dict[str, t.Any]:
    pid = node.state().pid
    if pid is None:
        return {"pid": None, "path": None, "sha256": None, "how": f"{node.name} is not running"}
    others = [os.path.realpath(link)] if os.path.islink(link) else []
    return release.running(pid, link, home.releases, others).as_dict()


def _open_row(home: Home, turn_id: str) -> dict[str, t.Any]:
    records = journal.read(home.turn(turn_id).journal)
    result = turn.result(engine_main.load(home, turn_id), records)
    last = result["steps"][-1] if result["steps"] else {}
    return {
        "id": turn_id,
        "rollout_id": result["rollout_id"],
        "outcome": result["outcome"],
        "step": last.get("name"),
        "way": last.get("way"),
        "since": last.get("at"),
        "noted": turn.notes(records, str(last.get("name")), str(last.get("way"))),
        "engine": lock.engine_at_work(home) is not None,
    }
