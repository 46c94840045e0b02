# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting the engine on a host: the zip application, its unit, and starting it.

The zip is made of the very code that is running, so a module brings the engine along in its own payload. Its bytes depend on that
code alone: names sorted, times fixed. Its name is its digest, and a plan pins it.
"""

from __future__ import annotations

import os
import subprocess
import typing as t

from .._core import canonical, files, pack
from . import engine_main
from .paths import Home
from .service import Service, Systemd

# Not a plain exit: that would wait for threads that still wait for a peer's answer.
_MAIN = "import os\n\nfrom {package}._host.engine_main import main\n\nos._exit(main())\n"


def sources() -> dict[str, bytes]:
    """What the engine is made of; see ``pack.sources``."""
    return pack.sources("_host/engine_main.py")


def build(parts: t.Mapping[str, bytes]) -> bytes:
    """The zip application's bytes, the same for the same sources."""
    return pack.build(parts, _MAIN)


def install(home: Home) -> str:
    """Put the engine beside the others, if it isn't there; returns its digest."""
    data = build(sources())
    digest = canonical.sha256_hex(data)
    path = engine_path(home, digest)
    if files.read_or_none(path) != data:
        files.make_dir(home.engines)
        files.write_atomic(path, data, 0o755)
    return digest


def engine_path(home: Home, digest: str) -> str:
    return os.path.join(home.engines, f"{digest}.pyz")


def command(home: Home, digest: str) -> list[str]:
    """How an engine is run: isolated from the environment, and leaving no compiled files behind."""
    return [
        *pack.interpreter(),
        engine_path(home, digest),
        "run",
        "--state-dir",
        home.state_dir,
        "--instance",
        home.instance,
    ]


TEMPLATE = """\
# Written by chainops.validator. Takes up an unfinished upgrade of a node, also after a reboot; does nothing when there is none.
[Unit]
Description=Upgrade turn of %i
# Stopping it between stop and start would leave the node down; it ends by itself.
RefuseManualStop=yes
StartLimitIntervalSec=60
StartLimitBurst=20

[Service]
Type=simple
ExecStart=/bin/false
Restart=on-failure
RestartSec=100ms
RestartPreventExitStatus={needs_help}
OOMScoreAdjust=-900

[Install]
WantedBy={target}
"""


def unit_name(home: Home) -> str:
    return f"chainops-turn@{home.instance}.service"


def install_unit(service: Systemd, home: Home, digest: str, paths: t.Iterable[str]) -> bool:
    """The template and this instance's drop-in, enabled. True when something was changed.

    ``paths``: what the engine works on. After a reboot it must not look at a mount point before what belongs there is mounted.
    """
    target = "multi-user.target" if service.scope == "system" else "default.target"
    name = unit_name(home)
    mounts = " ".join(pack.quoted(path).replace("$$", "$") for path in sorted({home.root, *paths}))
    argv = " ".join(pack.quoted(argument) for argument in command(home, digest))
    wanted = {
        os.path.join(service.unit_dir, "chainops-turn@.service"): (
            TEMPLATE.format(needs_help=engine_main.NEEDS_HELP, target=target)
        ),
        os.path.join(service.unit_dir, f"{name}.d", "instance.conf"): (
            f"[Unit]\nBefore={service.name}\nRequiresMountsFor={mounts}\n\n[Service]\nExecStart=\nExecStart={argv}\n"
        ),
    }
    changed = False
    for path, text in wanted.items():
        if files.read_or_none(path) != text.encode("utf-8"):
            files.make_dir(os.path.dirname(path))
            files.write_atomic(path, text.encode("utf-8"))
            changed = True
    enabled = os.path.join(service.unit_dir, f"{target}.wants", name)
    if changed:
        service.ctl("daemon-reload")
    if not os.path.islink(enabled):
        service.ctl("enable", name)
        changed = True
    return changed


def start(service: Service, home: Home, digest: str) -> None:
    """Start the engine; returns at once. Where it runs already, nothing happens: there is one flock."""
    if isinstance(service, Systemd):
        service.ctl("reset-failed", unit_name(home), check=False)
        service.ctl("start", "--no-block", unit_name(home))
        return
    with open(home.at("engine.log"), "ab") as log:
        process = subprocess.Popen(
            command(home, digest), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd="/"
        )
    _SPAWNED.append(process)


#: Engines of plain processes, so that the interpreter doesn't complain about children it didn't wait for.
_SPAWNED: list[subprocess.Popen[bytes]] = []
