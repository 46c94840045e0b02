# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copying files: the same bytes by every way, whatever the disk says to direct requests, and many of them at once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused
from ansible_collections.chainops.validator.plugins.module_utils._state import copy
from ansible_collections.chainops.validator.plugins.module_utils._state.scan import Found, found

LARGE = 3 * copy.BLOCK


def seen(path: pathlib.Path) -> Found:
    return found(b"", os.lstat(path))


def is_direct(handle: int) -> bool:
    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts requests past the page cache and through it."""
    counts = {"direct": 0, "cached": 0}
    for name in ("preadv", "pwrite"):
        real = getattr(os, name)

        def counted(handle: int, *rest: t.Any, real: t.Callable[..., int] = real) -> int:
            counts["direct" if is_direct(handle) else "cached"] += 1
            return real(handle, *rest)

        monkeypatch.setattr(os, name, counted)
    return counts


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, copy._DIRECT_FROM, LARGE - 1, LARGE, LARGE + 1, LARGE + 4096 + 7])
@pytest.mark.parametrize("method", [copy.DIRECT, copy.COPY, copy.REFLINK])
@pytest.mark.parametrize("cached", [False, True])
def test_every_way_gives_the_same_bytes(tmp_path: pathlib.Path, size: int, method: str, cached: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    content = os.urandom(size)
    source.write_bytes(content)
    os.chmod(source, 0o640)
    os.utime(source, ns=(5, 7))
    done = copy.copy_seen(bytes(source), seen(source), bytes(target), method, cached=cached)
    assert target.read_bytes() == content
    assert (done.sha256, done.size, done.stable) == (hashlib.sha256(content).hexdigest(), size, True)
    assert (os.stat(target).st_mode & 0o7777, os.stat(target).st_mtime_ns) == (0o640, 7)
    assert copy.hash_seen(bytes(target), seen(target), cached=cached).sha256 == done.sha256


def test_large_files_leave_the_page_cache_to_the_node(tmp_path: pathlib.Path, requests: dict[str, int]) -> None:
    if copy.method_for(bytes(tmp_path)) == copy.COPY:
        pytest.skip(f"the file system of {tmp_path} takes no direct requests")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(LARGE + 100))
    requests.update(direct=0, cached=0)
    copy.copy_seen(bytes(source), seen(source), bytes(tmp_path / "target"), copy.DIRECT)
    # Four blocks read and three written; the rest is no whole block of a disk, which says so.
    assert requests == {"direct": 4 + 3 + 1, "cached": 1}
    copy.copy_seen(bytes(source), seen(source), bytes(tmp_path / "again"), copy.DIRECT, cached=True)
    assert requests == {"direct": 8 + 3 + 1, "cached": 1 + 4 + 1}


@pytest.mark.parametrize("asks", ["preadv", "pwrite", "open"])
def test_a_disk_that_takes_no_direct_requests_gets_others(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    """Some file systems say no when asked for it, others when the first request comes."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(LARGE + 5))
    refused = [0]
    real_fcntl = fcntl.fcntl

    def no(handle: int, *rest: t.Any) -> t.Any:
        if asks == "open" and rest[0] == fcntl.F_SETFL and rest[1] & os.O_DIRECT:
            refused[0] += 1
            raise OSError(errno.EINVAL, "no such thing here")
        return real_fcntl(handle, *rest)

    monkeypatch.setattr(fcntl, "fcntl", no)
    if asks != "open":
        real = getattr(os, asks)

        def picky(handle: int, *rest: t.Any) -> int:
            if is_direct(handle):
                refused[0] += 1
                raise OSError(errno.EINVAL, "no such thing here")
            return real(handle, *rest)  # type: ignore[no-any-return]

        monkeypatch.setattr(os, asks, picky)
    done = copy.copy_seen(bytes(source), seen(source), bytes(target), copy.DIRECT)
    assert refused[0] and target.read_bytes() == source.read_bytes()
    assert done.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_grown_tail_is_read_past_the_cache_too(tmp_path: pathlib.Path, requests: dict[str, int]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(LARGE + 11))
    first = copy.copy_seen(bytes(source), seen(source), bytes(target), copy.DIRECT)
    with source.open("ab") as stream:
        stream.write(os.urandom(copy.BLOCK))
    requests.update(direct=0)
    grown = copy.append_seen(bytes(source), seen(source), bytes(target), first.size, first.sha256)
    assert grown is not None and grown.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert target.read_bytes() == source.read_bytes() and requests["direct"] >= 4


def test_a_pace_bounds_what_is_moved_by_all_threads_together(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    class Still(clock.Clock):
        def monotonic(self) -> float:
            return sum(slept)

        def sleep(self, seconds: float) -> None:
            slept.append(seconds)

    monkeypatch.setattr(copy, "CLOCK", Still())
    pace = copy.Pace(1000.0)
    for dummy in range(10):
        pace.spend(500)
    assert sum(slept) == pytest.approx(5.0)


def _many(size: int) -> list[int]:
    return list(range(size))


@pytest.mark.parametrize("forks", [True, False])
def test_many_small_items_come_back_in_order(forks: bool) -> None:
    items = _many(copy._MANY * 2)
    here = os.getpid()
    found = list(copy.parallel(lambda item: (item, os.getpid() != here), items, lambda item: 10, forks=forks))
    assert [item for item, dummy in found] == items
    assert {elsewhere for dummy, elsewhere in found} == {forks}


def test_where_other_threads_run_nothing_is_forked() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        here = os.getpid()
        assert set(copy.parallel(lambda item: os.getpid(), _many(copy._MANY), lambda item: 1)) == {here}
    finally:
        over.set()
        other.join()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken", "/a/name"), Refused("it moved", path="/a/name"), copy.Gone()])
def test_an_error_in_a_fork_is_raised_here(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[int] = []
    real = os.fork
    monkeypatch.setattr(os, "fork", lambda: (children.append(real()), children[-1])[1])

    def work(item: int) -> int:
        if item == copy._MANY + 3:
            raise error
        return item

    with pytest.raises(type(error)) as caught:
        list(copy.parallel(work, _many(copy._MANY * 2), lambda item: 1))
    assert str(caught.value) == str(error) and getattr(caught.value, "fields", {}) == getattr(error, "fields", {})
    assert len(children) == copy.THREADS
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_fork_that_is_ended_from_outside_is_an_error() -> None:
    def work(item: int) -> int:
        if item == copy._MANY + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(OSError, match="ended from outside"):
        list(copy.parallel(work, _many(copy._MANY * 2), lambda item: 1))


ORPHANS = """
import os, sys, time
from ansible_collections.chainops.validator.plugins.module_utils._state import copy
def work(item):
    if item == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    return item
list(copy.parallel(work, list(range(copy._MANY)), lambda item: 1))
"""


def test_forks_die_with_who_started_them() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait(30)
        for dummy in range(100):
            try:
                state = pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return
            if state == "Z":
                return
            clock.CLOCK.sleep(0.1)
    pytest.fail(f"process {child} lives on")
