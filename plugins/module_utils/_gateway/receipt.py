# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway host remembers of a drain: how the server was before, for which turn, and when it was seen empty.

One file a server, written before the gateway is touched, so that whoever comes next can put the server back as it was.
The highest fencing token seen stays in it for good: an older rollout that wakes up late is refused.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._core import canonical
from .._core.errors import ChainopsError, InputError, IntegrityError, Refused
from .._core.files import make_dir, read_or_none, write_atomic

FORMAT = "chainops.drain/1"
DRAINING, DRAINED, ACTIVE = "draining", "drained", "active"
_NAME = re.compile(r"[A-Za-z0-9_.:\-\[\]]{1,200}")


def path_of(folder: str, server: str) -> str:
    if not _NAME.fullmatch(server) or server.startswith("."):
        raise InputError(f"{server!r} can't be a server's name: letters, digits, and _ . : - [ ] only, not starting with a dot")
    return os.path.join(folder, f"{server}.json")


def load(folder: str, server: str) -> dict[str, t.Any] | None:
    """The record of a server, or None. Raises IntegrityError when the file isn't one."""
    path = path_of(folder, server)
    data = read_or_none(path)
    if data is None:
        return None
    record = canonical.loads(data, path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("before"), dict):
        raise IntegrityError(
            f"{path} is not a drain's record; look how the gateway stands, put it right by hand, then remove the file", path=path
        )
    return record


def all_of(folder: str) -> tuple[dict[str, dict[str, t.Any]], list[str]]:
    """Every server's record, and what is wrong with those that can't be read."""
    found: dict[str, dict[str, t.Any]] = {}
    problems: list[str] = []
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return {}, []
    except OSError as exc:
        return {}, [f"{folder}: {exc.strerror}"]
    for name in names:
        if name.startswith(".") or not name.endswith(".json"):
            continue
        try:
            record = load(folder, name[: -len(".json")])
            if record is not None:
                found[str(record["server"])] = record
        except (ChainopsError, OSError, KeyError) as exc:
            problems.append(exc.message if isinstance(exc, ChainopsError) else f"{name}: {exc}")
    return found, problems


def save(folder: str, record: t.Mapping[str, t.Any]) -> None:
    make_dir(folder, 0o750)
    write_atomic(path_of(folder, str(record["server"])), canonical.pretty(dict(record)), 0o640)


def is_of(record: t.Mapping[str, t.Any] | None, state: str, turn_id: str, token: int) -> bool:
    """Whether a record is in a state, and of this turn."""
    wanted = (state, turn_id, token)
    return record is not None and (record.get("state"), record.get("turn_id"), record.get("fence_token")) == wanted


def check_fence(record: t.Mapping[str, t.Any] | None, token: int) -> None:
    """Raises Refused when a newer rollout has been here."""
    highest = int((record or {}).get("fence_token", 0))
    if token < highest:
        raise Refused(
            f"fencing token {token} is older than {highest}, seen here from turn {(record or {}).get('turn_id') or '?'}: "
            "another rollout has taken over; take the rollout lock again for a newer token",
            fence_token=token,
            highest=highest,
        )
