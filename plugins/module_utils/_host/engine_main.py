# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry point of the zip application: take up the instance's open journal, or exit 0 when there is none.

Standard library and these rooms only; no ``ansible.*``. Everything is imported before the node is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import time
import typing as t

from .._core import canonical, files
from .._core.errors import ChainopsError, InputError, IntegrityError
from .._core.journal import Journal
from . import procs, turn
from .engine import Engine
from .paths import Home
from .steps import HostEffects

#: The turn ended old or new, and whole.
OK = 0
#: Somebody has to look: an undo keeps failing, or the old release doesn't run. The unit isn't restarted after this one.
NEEDS_HELP = 3
#: To be started once more, by its unit or by whoever waits.
AGAIN = 75


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chainops-turn", description="Take up the open turn of an instance.")
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--instance", required=True)
    options = parser.parse_args(argv)
    try:
        home = Home(options.state_dir, options.instance)
        with _alone(home) as handle:
            if handle is None:
                _say(f"another engine works on {home.instance}")
                return OK
            code, last = OK, None
            # Another turn may be opened while this engine still cleans up after the last one.
            while (turn_id := open_turn(home)) is not None and turn_id != last:
                code, last = _run(home, handle, turn_id), turn_id
            return code
    except ChainopsError as exc:
        _say(f"{type(exc).__name__}: {exc.message}")
        return NEEDS_HELP if isinstance(exc, (InputError, IntegrityError)) else AGAIN


def open_turn(home: Home) -> str | None:
    """The id of the unfinished turn, or None."""
    raw = files.read_or_none(home.open)
    return raw.decode("utf-8", "replace").strip() if raw is not None else None


def load(home: Home, turn_id: str) -> turn.Plan:
    """A turn's plan as it was pinned when its journal was opened. Raises IntegrityError when it was changed since."""
    paths = home.turn(turn_id)
    raw = files.read_or_none(paths.plan)
    if raw is None:
        raise IntegrityError(f"turn {turn_id} has no plan at {paths.plan}", path=paths.plan)
    return turn.load(canonical.loads(raw, paths.plan))


def _run(home: Home, handle: int, turn_id: str) -> int:
    plan = load(home, turn_id)
    with Journal(home.turn(turn_id).journal) as journal:
        first = journal.records[0] if journal.records else {}
        if first.get("kind") != "open" or first.get("plan_sha256") != canonical.digest(plan.body):
            raise IntegrityError(f"the plan of turn {turn_id} is not the one its journal was opened with", turn_id=turn_id)
        os.ftruncate(handle, 0)
        os.pwrite(handle, canonical.dumps({"turn_id": turn_id, "token": plan.body["fence_token"], "pid": os.getpid()}), 0)
        effects = HostEffects(plan, home)
        engine = Engine(
            plan,
            journal,
            effects,
            engine=str(plan.body["engine"]),
            again=lambda: _again(effects),
            tell=lambda record: _tell(turn_id, record),
        )
        outcome = engine.run()
    return NEEDS_HELP if outcome == turn.FAILED else OK


@contextlib.contextmanager
def _alone(home: Home) -> t.Iterator[int | None]:
    """The engine's flock, or None when another engine has it. Those who only look hold it for a moment, so it is tried again."""
    if not os.path.isdir(home.root):
        yield None
        return
    handle = os.open(home.engine_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        for dummy in range(100):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
        else:
            yield None
            return
        yield handle
    finally:
        os.close(handle)


def _again(effects: HostEffects) -> None:
    """Start this program over in the same process: its threads end, its children (but not the node) are killed."""
    try:
        node = effects.service.state().pid
    except (ChainopsError, OSError):
        os._exit(AGAIN)  # its unit ends what it left and starts it once more
    spared = {node, *(procs.children(node) if node is not None else ())}
    for pid in procs.children(os.getpid()):
        if pid not in spared:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.execv(sys.executable, [sys.executable, *_ARGV])  # noqa: S606


#: How this interpreter was called, its options included.
_ARGV = list(getattr(sys, "orig_argv", [sys.executable, *sys.argv]))[1:]


def _tell(turn_id: str, record: t.Mapping[str, t.Any]) -> None:
    if record["kind"] != "note":
        shown = {k: v for k, v in record.items() if k in ("step", "way", "reason", "outcome", "seconds")}
        error = (record.get("error") or {}).get("message")
        _say(f"{turn_id}: {record['kind']} " + " ".join(f"{k}={v}" for k, v in shown.items()) + (f" ({error})" if error else ""))


def _say(text: str) -> None:
    # Nobody may be reading any more; that must not matter.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
