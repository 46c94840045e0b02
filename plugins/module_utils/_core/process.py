# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a command of a plan: an argument list, never a shell, with a deadline and a bounded tail of output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import typing as t

from .errors import CommandFailed

TAIL = 4000
#: How many lines of somebody's output are shown, and how much of each.
LINES, WIDTH = 10, 200
#: What a program may tell about itself that nobody else should read: values that are named like secrets, and what may be a key.
_SECRET = re.compile(
    r"(?i)((?:password|passphrase|secret|token|api[_-]?key|private[_-]?key|credentials?|authorization|mnemonic|seed)\w*[\"']?\s*[=:]\s*)"
    r"\S.*|[0-9a-f]{64,}"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Done(t.NamedTuple):
    """How a command ended. ``output`` is the tail of stdout and stderr together."""

    code: int
    output: str


def run(
    argv: t.Sequence[str],
    *,
    timeout: float,
    env: t.Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: int | None = None,
    group: int | None = None,
    check: bool = True,
    feed: bytes | None = None,
) -> Done:
    """Run to the end. Past ``timeout`` seconds the whole process group is killed. ``feed`` is what it reads; by default nothing.

    Raises CommandFailed when it can't be started, times out, or (with ``check``) exits non-zero.
    """
    shown = list(argv)

    def become() -> None:
        if group is not None:
            os.setgroups([])
            os.setgid(group)
        if user is not None:
            os.setuid(user)

    try:
        process = subprocess.Popen(
            shown,
            stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=become if user is not None or group is not None else None,
        )
    except OSError as exc:
        raise CommandFailed(f"could not start {shown[0]}: {exc}", argv=shown, code=None, output="") from exc
    try:
        out, dummy = process.communicate(feed, timeout=timeout)
    except subprocess.TimeoutExpired as exc:
        os.killpg(process.pid, signal.SIGKILL)
        out, dummy = process.communicate()
        raise CommandFailed(f"{shown[0]} did not finish in {timeout} s", argv=shown, code=None, output=_tail(out)) from exc
    done = Done(process.returncode, _tail(out))
    if check and done.code != 0:
        last = done.output.strip().splitlines()[-1:] or [""]
        raise CommandFailed(f"{shown[0]} exited {done.code}: {last[0]}", argv=shown, code=done.code, output=done.output)
    return done


def _tail(out: bytes | None) -> str:
    return (out or b"")[-TAIL:].decode("utf-8", "replace")


def quotable(text: str) -> list[str]:
    """The last lines of what a program said, without what nobody else should read."""
    said = (_SECRET.sub(r"\1(hidden)", _COLOUR.sub("", line)).strip() for line in text.splitlines())
    return [line[:WIDTH] for line in said if line][-LINES:]
