# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A zip application of the very code that is running, for what outlives a module: what Ansible unpacked is gone when it returns.

Its bytes depend on that code alone (names sorted, times fixed), so its digest names it.
"""

from __future__ import annotations

import io
import os
import sys
import typing as t
import zipfile

from .errors import ChainopsError, InputError

#: The package whose rooms these are.
PACKAGE = (__package__ or "").rpartition(".")[0]
_EPOCH = (2000, 1, 1, 0, 0, 0)


def sources(needed: str) -> dict[str, bytes]:
    """Every file of module_utils that came along, by its name inside ``module_utils``; without what belongs to Ansible.

    ``needed`` is the file without which it would be of no use: ChainopsError when it did not come along.
    """
    loader = getattr(sys.modules[__name__].__spec__, "loader", None)
    archive = getattr(loader, "archive", None)
    found: dict[str, bytes] = {}
    if archive is not None:
        prefix = PACKAGE.replace(".", "/") + "/"
        with zipfile.ZipFile(archive) as bundle:
            for name in bundle.namelist():
                if name.startswith(prefix) and name.endswith(".py"):
                    found[name[len(prefix) :]] = bundle.read(name)
    else:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        for parent, dummy, names in os.walk(root):
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(parent, name)
                    with open(path, "rb") as stream:
                        found[os.path.relpath(path, root).replace(os.sep, "/")] = stream.read()
    kept = {name: data for name, data in found.items() if not name.startswith("_module/")}
    if needed not in kept:
        raise ChainopsError(f"{needed} was not found through {loader!r}")
    return kept


def build(parts: t.Mapping[str, bytes], main: str) -> bytes:
    """The zip application's bytes, the same for the same sources. ``main``: what it runs; ``{package}`` stands for ours."""
    base = PACKAGE.replace(".", "/")
    entries = {f"{base}/{name}": data for name, data in parts.items()}
    entries["__main__.py"] = main.format(package=PACKAGE).encode("ascii")
    for name in list(entries):
        parent = os.path.dirname(name)
        while parent:
            entries.setdefault(f"{parent}/__init__.py", b"")
            parent = os.path.dirname(parent)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            bundle.writestr(info, entries[name])
    return out.getvalue()


def interpreter() -> list[str]:
    """How such an application is run: isolated from the environment, and leaving no compiled files behind."""
    return [sys.executable or "/usr/bin/python3", "-I", "-B"]


def quoted(argument: str) -> str:
    """An argument as it stands in a systemd unit. Raises InputError for what can't."""
    if any(ord(c) < 32 or c == '"' or c == "\\" for c in argument):
        raise InputError(f"{argument!r} can't stand in a unit file; use another path")
    return '"' + argument.replace("%", "%%").replace("$", "$$") + '"'
