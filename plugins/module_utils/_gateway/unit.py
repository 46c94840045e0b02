# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and ending the watch over a drain: a persistent, enabled unit where there is systemd, a detached process elsewhere.

Enabled, so that a gateway's host that is restarted takes the drain up again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import typing as t

from .._core import canonical, files, pack, process
from . import watch

UNITS = "/etc/systemd/system"
TEMPLATE = """\
# Written by chainops.validator. Takes a server out of rotation again when its gateway has forgotten that it is drained.
[Unit]
Description=Watch over the drain of %i
After=network.target haproxy.service nginx.service
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart=/bin/false
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=2

[Install]
WantedBy=multi-user.target
"""
_MAIN = "import sys\n\nfrom {package}._gateway.watch import main\n\nsys.exit(main())\n"
_NEEDED = "_gateway/watch.py"


def has_systemd() -> bool:
    return os.path.isdir("/run/systemd/system") and os.geteuid() == 0


def unit_name(server: str) -> str:
    """What a unit's name can't hold is written as systemd writes it."""
    escaped = re.sub(r"[^A-Za-z0-9:_.-]", lambda found: "\\x" + format(ord(found.group()), "02x"), server)
    return f"chainops-drain@{escaped}.service"


def start(lease: watch.Lease, *, systemd: bool | None = None, units: str = UNITS) -> None:
    """Write the lease and see to it that somebody watches. A watch that runs already takes the new lease up by itself.

    Raises CommandFailed.
    """
    wish = lease.wish
    place = watch.folder(wish.receipt_dir)
    files.make_dir(place, 0o750)
    data = pack.build(pack.sources(_NEEDED), _MAIN)
    program = os.path.join(place, f"{canonical.sha256_hex(data)}.pyz")
    if files.read_or_none(program) != data:
        files.write_atomic(program, data, 0o755)
    path = watch.lease_path(wish.receipt_dir, wish.server)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(watch.status_path(wish.receipt_dir, wish.server))
    files.write_atomic(path, canonical.pretty(lease.as_dict()), 0o640)
    argv = [*pack.interpreter(), program, "--lease", path]
    if has_systemd() if systemd is None else systemd:
        _start_unit(unit_name(wish.server), argv, units)
        return
    with open(os.path.join(place, f"{wish.server}.log"), "ab") as log:
        _SPAWNED.append(
            subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd="/"
            )
        )


#: Watches of plain processes, so that the interpreter doesn't complain about children it didn't wait for.
_SPAWNED: list[subprocess.Popen[bytes]] = []


def _start_unit(name: str, argv: t.Sequence[str], units: str) -> None:
    wanted = {
        os.path.join(units, "chainops-drain@.service"): TEMPLATE,
        os.path.join(units, f"{name}.d", "instance.conf"): (
            f"[Service]\nExecStart=\nExecStart={' '.join(pack.quoted(one) for one in argv)}\n"
        ),
    }
    for path, text in wanted.items():
        if files.read_or_none(path) != text.encode("utf-8"):
            files.make_dir(os.path.dirname(path))
            files.write_atomic(path, text.encode("utf-8"))
    for order in (["daemon-reload"], ["enable", name], ["restart", name]):
        _systemctl(*order)


def stop(receipt_dir: str, server: str, *, systemd: bool | None = None, units: str = UNITS) -> dict[str, t.Any] | None:
    """End the watch, and return the last it said; None when there was none. Twice is fine."""
    path = watch.lease_path(receipt_dir, server)
    said = status(receipt_dir, server)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    name = unit_name(server)
    drop_in = os.path.join(units, f"{name}.d")
    if (has_systemd() if systemd is None else systemd) and os.path.isdir(drop_in):
        _systemctl("disable", "--now", name)
        shutil.rmtree(drop_in, ignore_errors=True)
        _systemctl("daemon-reload")
    return said


def status(receipt_dir: str, server: str) -> dict[str, t.Any] | None:
    """What the watch said last; None when it has said nothing."""
    data = files.read_or_none(watch.status_path(receipt_dir, server))
    return None if data is None else dict(canonical.loads(data, "the watch's status"))


def _systemctl(*arguments: str) -> None:
    process.run(["systemctl", *arguments], timeout=30)
