# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: timeline
type: notification
short_description: A rollout as a timeline that people can follow
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - One short line for every station of a rollout, with the time since the start, the host, and how it went.
  - As C(stdout_callback) it replaces Ansible's own output. In C(callbacks_enabled) beside another one it adds to it, and C(file)
    is where its lines should go then.
  - Lines that would say nothing are left out (skipped tasks, tasks of roles that only read), unless something goes wrong there.
options:
  file:
    description: Append the lines to this file as well.
    type: path
    env:
      - name: CHAINOPS_TIMELINE_FILE
    ini:
      - section: callback_chainops_timeline
        key: file
  events:
    description: Append every line as JSON to this file, for the report.
    type: path
    env:
      - name: CHAINOPS_TIMELINE_EVENTS
    ini:
      - section: callback_chainops_timeline
        key: events
  progress:
    description:
      - Show what is appended to this file while a task is still waiting, where it says something new. Give the same path to
        O(chainops.validator.governance_proposal_info#module:progress_file); the role C(govern) takes it from the environment.
    type: path
    env:
      - name: CHAINOPS_TIMELINE_PROGRESS
    ini:
      - section: callback_chainops_timeline
        key: progress
  every_task:
    description: Show every task that changed something, not only the stations.
    type: bool
    default: false
    env:
      - name: CHAINOPS_TIMELINE_EVERY_TASK
    ini:
      - section: callback_chainops_timeline
        key: every_task
"""

import json
import os
import re
import threading
import time

from ansible import constants as C
from ansible.plugins.callback import CallbackBase

#: Modules that are stations of a rollout, and what a line about them says. {key} comes from the result.
STATIONS = {
    "rollout_lock": "lock",
    "governance_proposal": "proposal",
    "governance_proposal_info": "gate",
    "governance_vote": "vote",
    "state_snapshot": "snapshot",
    "state_restore": "restore",
    "state_migration": "migration",
    "migration_manifest": "manifest",
    "validator_upgrade": "turn",
    "api_drain": "drain",
    "canary_analysis_info": "soak",
    "openapi_contract_info": "contract",
    "monitoring_info": "monitoring",
    "network_info": "network",
    "alertmanager_silence": "silence",
    "rollout_report": "report",
}
COLOURS = {"ok": C.COLOR_OK, "failed": C.COLOR_ERROR, "unreachable": C.COLOR_UNREACHABLE, "note": C.COLOR_WARN}


def number(value):
    return f"{value:.2f} s" if isinstance(value, float) else f"{value} s"


def told(module, result):
    """What a station's result says, in a few words; empty when it has nothing to add."""
    drain, turn, verdict = result.get("drain"), result.get("turn"), result.get("verdict")
    if module == "api_drain" and isinstance(drain, dict):
        gateway = (result.get("receipt") or {}).get("gateway", "")
        if (result.get("receipt") or {}).get("state") == "draining":
            return f"takes nothing new from {gateway}"
        words = "empty" if "in_flight" in drain else "back in rotation"
        return f"{words} on {gateway} after {number(drain.get('seconds', 0))}"
    if module == "validator_upgrade" and isinstance(turn, dict):
        words = str(turn.get("outcome", "")).replace("_", " ")
        window = turn.get("stop_window_seconds")
        predicted = (turn.get("predicted_stop_window") or {}).get("seconds")
        known = f" (predicted {number(predicted)})" if predicted is not None else ""
        return f"{words}{f', down for {number(window)}{known}' if window is not None else ''}"
    if module == "canary_analysis_info":
        return f"{verdict} after {number(result.get('seconds', 0))}{first(result.get('reasons'))}"
    if module == "openapi_contract_info" and isinstance(verdict, dict):
        kept = "kept" if verdict.get("ok") else "BROKEN"
        return f"{kept}, {verdict.get('exercised')} of {verdict.get('operations')} operations{first(verdict.get('reasons'))}"
    if module == "governance_proposal_info" and isinstance(verdict, dict):
        waited = (result.get("wait") or {}).get("waited")
        after = f" after {number(waited)}" if waited is not None else ""
        return f"{'open' if verdict.get('open') else 'CLOSED'}{after}{first(verdict.get('reasons'))}"
    if module == "monitoring_info":
        return "well" if result.get("ok") else f"{len(result.get('problems') or [])} problems{first(result.get('problems'))}"
    if module == "network_info":
        network = result.get("network") or {}
        agreed = "agreed" if network.get("agree") else "NOT agreed"
        return f"{agreed} at height {network.get('common_height')}{first(network.get('problems'))}"
    if module == "rollout_lock" and "granted" not in result:
        holder = (result.get("before") or {}).get("holder")
        return f"held by {holder}" if holder else "free"
    copies = result.get("replicas") or (result.get("error") or {}).get("replicas") or []
    if module == "migration_manifest" and copies:
        return ", ".join(
            f"{sum(1 for one in copies if one['state'] == state)} {state}" for state in sorted({one["state"] for one in copies})
        )
    if module == "rollout_lock":
        token = (result.get("lock") or {}).get("token")
        if not result.get("granted"):
            return "not granted"
        refused = [f"{one['origin']}: {one['reason']}" for one in copies if one["state"] == "refused"]
        if refused:
            return f"held, token {token}; REFUSED to keep another history of {'; '.join(refused)}"
        return f"held, token {token}" if token else "given back"
    if module == "rollout_report":
        broken = result.get("broken") or []
        return f"{'broken: ' + ', '.join(broken) + '; ' if broken else ''}{(result.get('files') or {}).get('html', '')}"
    if module == "state_snapshot" and isinstance(result.get("snapshot"), dict):
        snapshot = result["snapshot"]
        size = int(snapshot.get("bytes") or 0) / 1e6
        return f"{snapshot.get('files', '?')} files, {size:.1f} MB in {number(snapshot.get('seconds') or 0)}"
    return ""


def same_lease(result):
    """Whether a lease was only renewed, and nothing that came along was refused."""
    if any(one["state"] == "refused" for one in result.get("replicas") or ()):
        return False
    return (result.get("before") or {}).get("token") == (result.get("lock") or {}).get("token") or not result.get("changed")


def first(reasons):
    return f": {reasons[0]}" if reasons else ""


class Progress:
    """What others append to a file, a line of JSON each, from now on. Heights, times and countdowns are nothing new."""

    SAME = ("at", "waited", "height", "text")
    COUNTDOWN = re.compile(r"\d+(\.\d+)?(?= (blocks?|s|seconds?)\b)")

    def __init__(self, path):
        self._path = path
        self._place = os.path.getsize(path) if os.path.exists(path) else 0
        self._last = None

    def news(self):
        """Texts that are new; whole lines only. A file that is gone, or holds something else, has none."""
        try:
            with open(self._path, "rb") as stream:
                stream.seek(self._place)
                data = stream.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._place += len(data)
        texts = []
        for line in data.splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and isinstance(said.get("text"), str):
                waits = [wait.get("what") for wait in said.get("waits") or () if isinstance(wait, dict)]
                missing = [self.COUNTDOWN.sub("some", str(text)) for text in said.get("missing") or ()]
                what = {**{key: value for key, value in said.items() if key not in self.SAME}, "waits": waits, "missing": missing}
                if what != self._last:
                    texts.append(said["text"])
                self._last = what
        return texts


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"  # so that it can be enabled beside another one; as stdout_callback it works all the same
    CALLBACK_NEEDS_ENABLED = True
    CALLBACK_NAME = "chainops.validator.timeline"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._began = time.monotonic()
        self._tasks = {}
        self._play = None
        self._ended = threading.Event()

    # -- lines -----------------------------------------------------------------------------------------------------------

    def _line(self, host, station, words, result="ok", seconds=None):
        elapsed = time.monotonic() - self._began
        clock = f"{int(elapsed) // 60:3d}:{elapsed % 60:04.1f}"
        words = " ".join(str(words).split())
        text = f"{clock}  {host[:16]:<16}  {station[:12]:<12}  {words}"
        self._display.display(text if len(text) < 400 else text[:399] + "…", color=COLOURS.get(result, C.COLOR_VERBOSE))
        self._append("file", text + "\n")
        event = {"at": round(time.time(), 3), "host": host, "what": f"{station}: {words}", "result": result, "seconds": seconds}
        self._append("events", json.dumps(event) + "\n")

    def _append(self, option, text):
        path = self.get_option(option)
        if path:
            try:
                with open(path, "a", encoding="utf-8") as stream:
                    stream.write(text)
            except OSError as exc:
                self._display.warning(f"timeline: can't write {path}: {exc}")

    def _about(self, result):
        """(host, station, module, seconds) of a result; a delegated task is still about its host."""
        task = result._task
        module = (task.resolved_action or task.action).rpartition(".")[2]
        role = task._role.get_name().rpartition(".")[2] if task._role else ""
        seconds = time.monotonic() - self._tasks.get(task._uuid, time.monotonic())
        return result._host.get_name(), STATIONS.get(module, role or "task"), module, round(seconds, 3)

    def _clean(self, result):
        """A result as other callbacks may show it; nothing of one that is not to be logged."""
        data = result._result
        if data.get("_ansible_no_log") or result._task.no_log:
            return None
        return data

    def _follow(self, path):
        progress = Progress(path)

        def watch():
            while not self._ended.wait(0.5):
                for text in progress.news():
                    self._line("localhost", "waiting", text, "note")

        threading.Thread(target=watch, name="timeline", daemon=True).start()

    # -- events ----------------------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook):
        self._began = time.monotonic()
        if self.get_option("progress"):
            self._follow(self.get_option("progress"))

    def v2_playbook_on_play_start(self, play):
        name = play.get_name().strip()
        if name and name != self._play:
            self._play = name
            self._line("", "──", name, "note")

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._tasks[task._uuid] = time.monotonic()

    def v2_playbook_on_handler_task_start(self, task):
        self._tasks[task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result):
        host, station, module, seconds = self._about(result)
        data = self._clean(result)
        if result._task.loop or data is None:  # items speak for themselves
            return
        if module in STATIONS:
            words = told(module, data) or ("done" if data.get("changed") else "nothing to do")
            self._line(host, station, f"{result._task.get_name().rpartition(' : ')[2]}: {words}", "ok", seconds)
        elif module == "debug" and isinstance(data.get("msg"), str):
            self._line(host, station, data["msg"], "note", seconds)
        elif data.get("changed") and self.get_option("every_task"):
            self._line(host, station, result._task.get_name().rpartition(" : ")[2], "ok", seconds)

    def v2_runner_item_on_ok(self, result):
        host, station, module, seconds = self._about(result)
        data = self._clean(result)
        if module == "rollout_lock" and data and data.get("granted") and same_lease(data):  # renewed, once more
            return
        if data is not None and module in STATIONS:
            words = told(module, data) or ("done" if data.get("changed") else "nothing to do")
            label = data.get("_ansible_item_label")
            self._line(host, station, f"{label}: {words}" if isinstance(label, str) else words, "ok", seconds)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        host, station, _module, seconds = self._about(result)
        data = self._clean(result)
        if data is not None and "results" in data and result._task.loop:
            return
        name = result._task.get_name().rpartition(" : ")[2]
        # Where failed_when decided, Ansible's message has words of its own before the module's reasons.
        words = "its output is hidden" if data is None else data.get("reasons") or data.get("msg") or "failed"
        if isinstance(words, list):
            words = "; ".join(map(str, words))
        self._line(host, station, f"{name}: {words}", "note" if ignore_errors else "failed", seconds)

    def v2_runner_item_on_failed(self, result):
        self.v2_runner_on_failed(result)

    def v2_runner_on_unreachable(self, result):
        host, station, _module, seconds = self._about(result)
        self._line(host, station, "unreachable", "unreachable", seconds)

    def v2_playbook_on_no_hosts_matched(self):
        self._line("", "──", "no host matched", "note")

    def v2_playbook_on_stats(self, stats):
        self._ended.set()
        bad = sorted(h for h in stats.processed if stats.failures.get(h) or stats.dark.get(h))
        changed = sorted(h for h in stats.processed if stats.changed.get(h))
        words = f"ended with trouble on {', '.join(bad)}" if bad else f"ended well; changed: {', '.join(changed) or 'nothing'}"
        self._line("", "──", words, "failed" if bad else "ok")
