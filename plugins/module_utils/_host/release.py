# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installed releases, the link that chooses one, and which one a process really runs."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from .._core import files
from .._core.errors import InputError, IntegrityError, Refused
from . import procs

#: How coarsely the kernel tells when processes started and links changed, in seconds.
CLOCK_GRAIN = 0.05

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def require_digest(value: str, what: str) -> str:
    if not _DIGEST.match(value):
        raise InputError(f"{what} {value!r} is not a SHA-256 in lower-case hex", value=value)
    return value


def digest_of(path: str) -> str | None:
    """The digest a release's directory is named after; None for one that isn't content-addressed."""
    name = os.path.basename(path.rstrip("/"))
    return name if _DIGEST.match(name) else None


@dataclasses.dataclass(frozen=True)
class Running:
    """Which release a process uses. ``path`` None: it can't be told, and ``how`` says why."""

    pid: int
    path: str | None
    sha256: str | None
    how: str

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


def require_complete(directory: str, sha256: str) -> None:
    """Raises IntegrityError unless the directory is that release, unpacked to its end.

    The marker ``<directory>.complete`` is written last by whoever unpacked it; where it names a digest, it is this one.
    """
    if digest_of(directory) != sha256:
        raise IntegrityError(f"release directory {directory} is not named after its digest {sha256}", path=directory)
    if not os.path.isdir(directory) or os.path.islink(directory):
        raise IntegrityError(f"release {sha256} is not installed: {directory} is not a directory", path=directory)
    marker = files.read_or_none(directory + ".complete")
    if marker is None:
        raise IntegrityError(f"release {sha256} was not unpacked to its end: {directory}.complete is missing", path=directory)
    named = re.findall(rb"\b[0-9a-f]{64}\b", marker)
    if named and sha256.encode("ascii") not in named:
        raise IntegrityError(f"{directory}.complete names another digest than {sha256}", path=directory)
    mode = os.stat(directory).st_mode
    if mode & 0o002:
        raise IntegrityError(f"release directory {directory} is writable by everybody", path=directory)


def target(link: str) -> str:
    """Where the release link leads, resolved. Raises Refused when it isn't a link to a directory."""
    if not os.path.islink(link):
        raise Refused(f"release link {link} is not a symbolic link; point it to the release that runs now", path=link)
    real = os.path.realpath(link)
    if not os.path.isdir(real):
        raise Refused(f"release link {link} leads to {real}, which is not a directory", path=link)
    return real


def switch(link: str, directory: str) -> None:
    """Point the link to a release, atomically. Nothing happens when it points there already."""
    if os.path.islink(link) and os.readlink(link) == directory:
        return
    if os.path.lexists(link) and not os.path.islink(link):
        raise Refused(f"release link {link} is not a symbolic link and is left alone", path=link)
    files.switch_link(link, directory)


def running(pid: int, link: str, releases: str, others: t.Iterable[str] = ()) -> Running:
    """Which release a process uses.

    First by what the kernel has resolved: executable, working directory and mapped files under ``releases/<digest>`` (or under
    one of ``others``, releases that aren't content-addressed). A process that shows nothing there (an interpreter with plain
    scripts) but was started through the link, and after the link was last switched, runs what the link leads to.
    """
    roots = {os.path.realpath(path) for path in others}
    releases = os.path.realpath(releases)
    if os.path.isdir(releases):
        roots.update(os.path.join(releases, name) for name in os.listdir(releases) if _DIGEST.match(name))
    shown = procs.paths(pid)
    if not shown:
        return Running(pid, None, None, "no such process, or not ours to see")
    found = {root for root in roots for path in shown if path == root or path.startswith(root + os.sep)}
    if len(found) == 1:
        path = found.pop()
        return Running(pid, path, digest_of(path), "files in use")
    if found:
        return Running(pid, None, None, f"files of {len(found)} releases in use: {', '.join(sorted(found))}")
    arguments = procs.cmdline(pid)
    started = procs.started_at(pid)
    if started is None or not os.path.islink(link):
        return Running(pid, None, None, "no file of a release in use")
    if not any(argument == link or argument.startswith(link.rstrip("/") + "/") for argument in arguments):
        return Running(pid, None, None, f"no file of a release in use, and not started through {link}")
    if os.lstat(link).st_ctime > started + CLOCK_GRAIN:
        return Running(pid, None, None, f"{link} was switched after the process started")
    path = os.path.realpath(link)
    return Running(pid, path, digest_of(path), "started through the link")
