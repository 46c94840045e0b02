# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy's server state files: what a new process believes of its servers before it takes the first request.

Without one, a reload knows nothing of a drain. With one (``load-server-state-from-file``), it begins with what that says. So a
drained server has its row there for as long as it is drained, and not longer: what such a file says is believed at every reload
to come. Rows of other servers belong to whoever wrote them. Directives and columns are those of the configuration manual
(``server-state-file``, ``server-state-base``, ``server-state-file-name``, ``load-server-state-from-file``) and of the management
guide (``show servers state``).
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import typing as t

from .._core import files
from .._core.clock import Clock
from .._core.errors import Refused

_SECTIONS = {
    *("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "cache", "userlist", "program", "mailers"),
    *("ring", "http-errors", "fcgi-app", "log-forward", "log-profile", "crt-store", "traces", "acme"),
}
_OURS = {"server-state-base", "server-state-file", "server-state-file-name", "load-server-state-from-file"}
_VERSION = "1"
#: What makes a reload safe, where nothing else is configured.
ADVICE = "add `server-state-file PATH` to the global section and `load-server-state-from-file global` to defaults"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a new process reads the state of a backend's servers from; without a ``path``, ``why`` it reads none."""

    path: str = ""
    why: str = ""


@dataclasses.dataclass
class _Proxy:
    load: str = ""
    name: str | None = None  # server-state-file-name; None: the backend's own


def _words(line: str) -> list[str]:
    """The words of a line that may mean something here; nothing of any other (there may be thousands, and this takes time)."""
    first = line.split(None, 1)[:1]
    if not first or not (first[0] in _SECTIONS or first[0] in _OURS or first[0].startswith(".")):
        return []
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # HAProxy would refuse it, too
        return []


def places(text: str, cwd: str = "/") -> dict[str, Place]:
    """Where each backend's state is read from, by a configuration. ``text``: all of its files, in their order."""
    main: dict[str, str] = {}
    defaults: dict[str, _Proxy] = {}
    proxies: dict[str, _Proxy] = {}
    latest = now = _Proxy()
    section, depth, unsure = "", 0, False
    for words in filter(None, map(_words, text.splitlines())):
        key, rest = words[0], words[1:]
        if key.startswith("."):
            depth += (key == ".if") - (key == ".endif")
            continue
        if key in _SECTIONS:
            section = key
            base = defaults.get(rest[rest.index("from") + 1], latest) if "from" in rest[:-1] else latest
            if key == "defaults":
                now = dataclasses.replace(base) if "from" in rest else _Proxy()
                latest = now
                if rest and rest[0] != "from":
                    defaults[rest[0]] = now
            elif key in ("backend", "listen") and rest:
                now = proxies[rest[0]] = dataclasses.replace(base)
            continue
        unsure |= depth > 0 and key in _OURS
        if section == "global" and key in ("server-state-base", "server-state-file") and rest:
            main[key] = rest[0]
        elif section in ("defaults", "backend", "listen") and key == "load-server-state-from-file" and rest:
            now.load = rest[0]
        elif section in ("defaults", "backend", "listen") and key == "server-state-file-name":
            now.name = rest[0] if rest and rest[0] != "use-backend-name" else None
    if unsure:
        return dict.fromkeys(proxies, Place(why="its configuration decides by .if where states are read from"))
    return {name: _place(name, proxy, main, cwd) for name, proxy in proxies.items()}


def _place(backend: str, proxy: _Proxy, main: t.Mapping[str, str], cwd: str) -> Place:
    if proxy.load not in ("global", "local"):
        return Place(why=f"backend {backend} reads no server state at a reload: {ADVICE}")
    file = main.get("server-state-file", "") if proxy.load == "global" else proxy.name or backend
    base = main.get("server-state-base", "")
    if not file or (proxy.load == "local" and not base and not file.startswith("/")):
        missing = "server-state-file" if proxy.load == "global" else "server-state-base"
        return Place(why=f"backend {backend} has `load-server-state-from-file {proxy.load}`, and the global section no {missing}")
    path = os.path.join(cwd, base, file)
    if "$" in path:
        return Place(why=f"the state file of backend {backend} is named by an environment variable")
    return Place(os.path.normpath(path))


def files_of(argv: t.Sequence[str], cwd: str) -> tuple[list[str], str]:
    """The configuration files that a command line names, in their order, and the directory that relative paths start from."""
    found: list[str] = []
    words = iter(argv[1:])
    for word in words:
        if word == "-f":
            found.append(next(words, ""))
        elif word == "-C":
            cwd = os.path.join(cwd, next(words, ""))
        elif word == "--":
            found += words
    return [os.path.join(cwd, one) for one in found if one], cwd


def read(argv: t.Sequence[str], cwd: str) -> dict[str, Place]:
    """As ``places``, of what a process with this command line would load now. Raises OSError."""
    named, cwd = files_of(argv, cwd)
    text = []
    for path in named:
        inside = sorted(os.listdir(path)) if os.path.isdir(path) else None
        for one in [path] if inside is None else [os.path.join(path, name) for name in inside if name.endswith(".cfg")]:
            with open(one, encoding="utf-8", errors="replace") as stream:
                text.append(stream.read())
    return places("\n".join(text), cwd)


@dataclasses.dataclass(frozen=True)
class States:
    """Rows of ``show servers state``, or of a file made of them. ``rows``: backend, server and the line itself."""

    header: str
    rows: tuple[tuple[str, str, str], ...]

    def find(self, backend: str, server: str) -> str | None:
        return next((line for *place, line in self.rows if place == [backend, server]), None)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in (_VERSION, self.header, *(line for *dummy, line in self.rows)))


def parse(text: str) -> States:
    """Raises ValueError for what isn't one. Nothing at all is a file without rows."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return States("", ())
    if lines[0].strip() != _VERSION or len(lines) < 2 or not lines[1].startswith("# be_id be_name srv_id srv_name "):
        raise ValueError("not server states of version 1")
    rows = []
    for line in lines[2:]:
        cells = line.split()
        if len(cells) < 8:
            raise ValueError(f"not a server's state: {line[:80]!r}")
        rows.append((cells[1], cells[3], line))
    return States(lines[1], tuple(rows))


def with_row(there: States, now: States, backend: str, server: str, wanted: bool) -> States:
    """``there`` with, or without, the row that ``now`` has of a server. Raises ValueError where their columns differ."""
    row = now.find(backend, server)
    if there.rows and wanted and there.header != now.header:
        raise ValueError("written by another version of HAProxy")
    others = tuple(one for one in there.rows if one[:2] != (backend, server))
    return States(now.header, (*others, (backend, server, row)) if wanted and row is not None else others)


def keep(path: str, now: States, backend: str, server: str, wanted: bool, clock: Clock) -> None:
    """See to it that a file has the server's row as it is now, or none. Raises Refused, with why it can't."""
    folder = os.path.dirname(path)
    try:
        with files.locked_dir(folder, what=f"changing {path}", clock=clock):
            data = files.read_or_none(path)
            if data is None and not wanted:
                return
            there = parse((data or b"").decode("utf-8", "replace"))
            after = with_row(there, now, backend, server, wanted)
            if after.rows == there.rows and data is not None and (there.header or not wanted):
                return
            found = os.stat(path) if data is not None else None
            mode, owner = (found.st_mode & 0o7777, (found.st_uid, found.st_gid)) if found else (0o644, None)
            files.write_atomic(path, after.text().encode("utf-8"), mode, owner)
    except (OSError, ValueError) as exc:
        said = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise Refused(f"the server state file {path} can't be changed: {said}", path=path) from exc
