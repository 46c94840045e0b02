# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the disk, as errors of ours."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from .._core.errors import ChainopsError
from .names import encode

_ADVICE = {
    errno.ENOSPC: "free space or inodes on that file system",
    errno.EDQUOT: "raise the quota",
    errno.EIO: "the disk reports an error: look at the kernel's log",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "run as root",
    errno.EPERM: "run as root",
    errno.ENAMETOOLONG: "a path in the tree is too long to be copied",
}


class StorageFault(ChainopsError):
    """The file system refused. Fields: errno (symbol), path."""


def is_there(path: str | bytes) -> bool:
    """Is there anything of that name? Where ``os.path`` says no, this raises what the disk said: no answer is not a no."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_directory(path: str | bytes) -> bool:
    """Is there a directory of that name, or a link to one? Raises OSError where that can't be told."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextlib.contextmanager
def storage(what: str) -> t.Iterator[None]:
    """Turn an OSError of what follows into a StorageFault that says what was being done and where."""
    try:
        yield
    except OSError as exc:
        name = exc.filename if isinstance(exc.filename, (str, bytes)) else None
        path = encode(os.fsencode(name)) if name else ""
        symbol = errno.errorcode.get(exc.errno or 0, "?")
        advice = _ADVICE.get(exc.errno or 0)
        raise StorageFault(
            f"could not {what}: {exc.strerror or exc}{': ' + path if path else ''}{'; ' + advice if advice else ''}",
            errno=symbol,
            path=path,
        ) from exc
