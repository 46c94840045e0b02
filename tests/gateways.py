# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real HAProxy as a process on loopback, for tests and measurements. What isn't installed is a failure, not a skip."""

from __future__ import annotations

import pathlib
import shutil
import signal
import socket
import subprocess
import time
import typing as t


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin")
    assert found, f"{name} is not installed; on Debian: apt-get install {name}"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: t.Callable[[], t.Any], what: str, seconds: float = 15.0) -> t.Any:
    """What a condition comes to, once it is true. An OSError is a no."""
    end = time.monotonic() + seconds
    last: t.Any = None
    while time.monotonic() < end:
        try:
            last = condition()
            if last:
                return last
        except OSError as exc:
            last = exc
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s; last: {last!r}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class HAProxyProcess:
    """With a master process, as distributions start it. ``{folder}`` and ``{port}`` of its configuration are filled in here."""

    def __init__(self, folder: pathlib.Path, config: str, *options: str, **fields: t.Any) -> None:
        self.folder, self.port, self.socket = folder, free_port(), str(folder / "admin.sock")
        path = folder / "haproxy.cfg"
        path.write_text(config.format(folder=folder, port=self.port, **fields), encoding="utf-8")
        self.log = (folder / "haproxy.log").open("wb")
        self.process = subprocess.Popen(
            [program("haproxy"), "-W", *options, "-f", str(path)], stdout=self.log, stderr=subprocess.STDOUT
        )
        until(lambda: socket.create_connection(("127.0.0.1", self.port), timeout=1).close() is None, "haproxy listens")

    def reload(self) -> None:
        self.process.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        stop(self.process)
        self.log.close()
