# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a rollout: which run of Ansible, by whom, from where, as which job.

Two runs are the same only when they are one process, or jobs of one workflow (a workflow's jobs come one after the other, and
the one that cleans up must be able to take up what the one before it held).
"""

from __future__ import annotations

import typing as t

Facts = t.Mapping[str, t.Any]


def describe(variables: Facts, process: Facts, operator: str = "") -> dict[str, t.Any]:
    """Pure. ``variables``: Ansible's; a controller such as AWX tells the job there, as ``awx_*`` or ``tower_*``.

    ``process``: ``user``, ``host``, ``place`` (what tells one machine's processes from another's), ``pid``, ``ticks`` (when it
    started, as the kernel counts), ``started`` (ISO 8601, UTC), ``url`` (the controller's address, or empty).
    Returns ``{"words", "run", "about"}``.
    """

    def told(name: str) -> str:
        return str(variables.get(f"awx_{name}") or variables.get(f"tower_{name}") or "")

    who = operator or told("user_name") or str(process["user"])
    job, workflow, base = told("job_id"), told("workflow_job_id"), str(process.get("url") or "").rstrip("/")
    url = f"{base}/#/jobs/playbook/{job}" if base and job else ""
    own = f"{process['place']}:{process['pid']}:{process['ticks']}"
    run = f"workflow {base} {workflow}".replace("  ", " ") if workflow else f"job {base} {job}".replace("  ", " ") if job else own
    about = {
        "user": who,
        "host": process["host"],
        "place": process["place"],
        "pid": process["pid"],
        "ticks": process["ticks"],
        "started": process["started"],
        "job": job,
        "workflow": workflow,
        "url": url,
    }
    from_job = f", job {job}{f' of workflow {workflow}' if workflow else ''}{f' ({url})' if url else ''}" if job else ""
    return {
        "words": f"{who} on {process['host']}{from_job}, pid {process['pid']} since {process['started']}",
        "run": run,
        "about": about,
    }


def gone(lease: Facts, place: str, ticks_of: t.Callable[[int], int | None]) -> bool:
    """Whether the process behind a lease is known to be gone: it was one of this very place, and isn't there any more.

    A run that is a job of a controller isn't one process, and of another place's processes nobody here knows anything.
    """
    about = lease.get("about") or {}
    if about.get("job") or not place or about.get("place") != place:
        return False
    pid, ticks = about.get("pid"), about.get("ticks")
    if not isinstance(pid, int) or not isinstance(ticks, int):
        return False
    return ticks_of(pid) != ticks
