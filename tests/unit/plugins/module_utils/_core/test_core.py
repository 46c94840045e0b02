# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, clock, files, journal, process
from ansible_collections.chainops.validator.plugins.module_utils._core import http as core_http
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import (
    Busy,
    CommandFailed,
    HttpError,
    InputError,
    IntegrityError,
    Unreachable,
    WaitTimeout,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class FakeClock(clock.Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


@given(JSON)
def test_canonical_form_survives_a_round_trip_and_is_stable(value: t.Any) -> None:
    once = canonical.dumps(value)
    assert canonical.dumps(canonical.loads(once)) == once


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', "NaN", "[1e400]", "[-1e999]", "[" + "9" * 100 + "]", '{"a":', "<html>", "[" * 100000]
)
def test_documents_that_lie_are_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="reader 3"):
        canonical.loads(text, "reader 3")


def test_a_value_that_is_not_json_has_no_canonical_form() -> None:
    with pytest.raises(ValueError):
        canonical.dumps(float("nan"))


def test_waiting_ends_with_the_last_state() -> None:
    fake = FakeClock()
    seen = iter(range(100))
    with pytest.raises(WaitTimeout) as caught:
        clock.wait_for(lambda: next(seen), lambda n: False, timeout=5, interval=1, what="a miracle", clock=fake)
    assert caught.value.fields["last"] == 5
    assert fake.now == pytest.approx(5)


def test_waiting_survives_errors_and_looks_at_least_once() -> None:
    fake = FakeClock()
    answers: list[t.Any] = [Unreachable("gone", url="http://x"), 7]

    def look() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return t.cast(int, answer)

    assert clock.wait_for(look, lambda n: n == 7, timeout=3, interval=1, what="seven", clock=fake) == 7
    assert clock.wait_for(lambda: 1, lambda n: True, timeout=0, what="now", clock=fake) == 1


def test_a_file_is_replaced_whole(tmp_path: t.Any) -> None:
    path = str(tmp_path / "f")
    files.write_atomic(path, b"one", 0o600)
    files.write_atomic(path, b"two", 0o640)
    assert files.read_or_none(path) == b"two"
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_has_its_owner_and_mode_before_it_has_its_name(tmp_path: t.Any, monkeypatch: t.Any) -> None:
    path = str(tmp_path / "f")
    seen = []

    def replace(source: str, target: str) -> None:
        facts = os.stat(source)
        seen.append((os.path.basename(source)[:3], source[-4:], facts.st_uid, facts.st_gid, facts.st_mode & 0o7777))
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="power cut"):
        files.write_atomic(path, b"one", 0o640, (os.getuid(), os.getgid()))
    assert seen == [(".f.", ".tmp", os.getuid(), os.getgid(), 0o640)]
    assert os.listdir(tmp_path) == []


def test_a_link_is_switched_and_a_lock_excludes(tmp_path: t.Any) -> None:
    link = str(tmp_path / "current")
    files.switch_link(link, "a")
    files.switch_link(link, "b")
    assert os.readlink(link) == "b"
    lock = str(tmp_path / "lock")
    with files.locked(lock, what="test"), pytest.raises(Busy, match="test"), files.locked(lock, what="test"):
        pass


def test_a_journal_gives_back_what_was_promised(tmp_path: t.Any) -> None:
    path = str(tmp_path / "j")
    with journal.Journal(path, reserve=4096) as log:
        for n in range(300):  # past the reserve
            log.append({"n": n})
    assert [r["n"] for r in journal.read(path)] == list(range(300))
    with journal.Journal(path) as log:
        log.append({"n": 300})
    assert len(journal.read(path)) == 301


@given(cut=st.integers(0, 400), junk=st.binary(max_size=40).filter(lambda b: b"\n" not in b))
def test_a_torn_last_record_is_dropped_and_written_over(tmp_path_factory: t.Any, cut: int, junk: bytes) -> None:
    path = str(tmp_path_factory.mktemp("j") / "j")
    with journal.Journal(path, reserve=4096) as log:
        log.append({"n": 0, "text": "x" * 50})
        whole = log._offset
        log.append({"n": 1, "text": "y" * 200})
        end = log._offset
    at = min(whole + cut, end - 1)
    with open(path, "r+b") as stream:
        stream.seek(at)
        stream.write((junk + b"\0" * (end - at))[: end - at])
    kept = len(journal.read(path))
    assert kept == 1
    with journal.Journal(path) as log:
        log.append({"n": 2})
    assert [r["n"] for r in journal.read(path)] == [0, 2]


def test_a_changed_record_shows(tmp_path: t.Any) -> None:
    path = str(tmp_path / "j")
    with journal.Journal(path) as log:
        for n in range(3):
            log.append({"n": n})
    data = bytearray((tmp_path / "j").read_bytes())
    data[data.index(b'"n":1') + 4] = ord("7")
    (tmp_path / "j").write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="record 2"):
        journal.read(path)


def test_nothing_of_interrupted_writes_over_each_other_is_taken_for_a_record(tmp_path: t.Any) -> None:
    path = str(tmp_path / "j")
    with journal.Journal(path, reserve=8192) as log:
        log.append({"n": 0})
        start = log._offset
    # Of two long records only later sectors reached the disk, of a third one only the first.
    for at, left in ((1000, b"a" * 1000 + b"\n"), (3000, b"b" * 1000 + b"\n"), (0, b"c" * 600)):
        with journal.Journal(path, reserve=8192) as log:
            assert log.records == [{"n": 0}]
        with open(path, "r+b") as stream:
            stream.seek(start + at)
            stream.write(left)
    assert journal.read(path) == [{"n": 0}]
    with journal.Journal(path, reserve=8192) as log:
        log.append({"n": 1})
    assert [r["n"] for r in journal.read(path)] == [0, 1]


def test_a_record_that_is_missing_before_others_shows(tmp_path: t.Any) -> None:
    path = str(tmp_path / "j")
    with journal.Journal(path) as log:
        log.append({"n": 0})
        start = log._offset
        log.append({"n": 1})
        end = log._offset
        log.append({"n": 2})
        log.append({"n": 3})
    with open(path, "r+b") as stream:
        stream.seek(start)
        stream.write(bytes(end - start))
    with pytest.raises(IntegrityError, match="record 2"):
        journal.read(path)
    with pytest.raises(IntegrityError, match="record 2"):
        journal.Journal(path)


def test_a_journal_takes_nothing_more_after_an_error_until_it_is_opened_anew(
    tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "j")
    synced: list[int] = []

    def fails(handle: int) -> None:
        synced.append(handle)
        raise OSError(5, "Input/output error")

    with journal.Journal(path) as log:
        log.append({"n": 0})
        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "fdatasync", fails)
            with pytest.raises(OSError, match="Input/output error"):
                log.append({"n": 1})
        with pytest.raises(OSError, match="an earlier record could not be written"):
            log.append({"n": 2})
    assert len(synced) == 1 and log.records == [{"n": 0}]
    # It may be there or not; whoever goes on makes sure of it before anything else.
    with journal.Journal(path) as log:
        seen = [r["n"] for r in log.records]
        log.append({"n": 3})
    assert [r["n"] for r in journal.read(path)] == [*seen, 3]


def test_a_full_disk_keeps_no_journal_from_being_opened_and_written(tmp_path: t.Any) -> None:
    """RLIMIT_FSIZE is the full disk here: nothing gets longer than it is."""
    path = str(tmp_path / "j")
    with journal.Journal(path, reserve=16384) as log:
        log.append({"n": 0})
    size = os.path.getsize(path)
    code = (
        "import resource, signal, sys\n"
        "from ansible_collections.chainops.validator.plugins.module_utils._core import journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "with journal.Journal(sys.argv[1], reserve=16384) as log:\n"
        "    for n in range(1, 100): log.append({'n': n})\n"
        "try:\n"
        "    journal.Journal(sys.argv[1] + '2', reserve=2 * 16384)\n"
        "except OSError: print('refused')\n"
    )
    done = process.run(
        [sys.executable, "-c", code, path], timeout=30, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.output == "refused\n"
    assert [r["n"] for r in journal.read(path)] == list(range(100)) and os.path.getsize(path) == size


def test_commands_end_and_say_how() -> None:
    assert process.run(["/bin/sh", "-c", "echo hi"], timeout=5).output == "hi\n"
    with pytest.raises(CommandFailed, match="exited 3: why") as caught:
        process.run(["/bin/sh", "-c", "echo why; exit 3"], timeout=5)
    assert caught.value.fields["code"] == 3
    with pytest.raises(CommandFailed, match="did not finish"):
        process.run(["/bin/sleep", "30"], timeout=0.2)
    with pytest.raises(CommandFailed, match="could not start"):
        process.run(["/nonexistent"], timeout=1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: t.ClassVar[set[t.Any]] = set()

    def do_GET(self) -> None:
        type(self).connections.add(self.client_address)
        body, status, length = {
            "/ok": (b'{"a": 1}', 200, None),
            "/html": (b"<html>", 200, None),
            "/short": (b'{"a": 1}', 200, 100),
            "/missing": (b'{"error": "no"}', 404, None),
            "/moved": (b"", 302, None),
            "/big": (b"x" * 5000, 200, None),
        }[self.path.split("?")[0]]
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        if status == 302:
            self.send_header("Location", "/ok")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = bool(length)

    def log_message(self, *args: t.Any) -> None:
        pass


@pytest.fixture
def server() -> t.Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_http_keeps_the_connection_and_refuses_bad_answers(server: str) -> None:
    Handler.connections.clear()
    with core_http.HttpClient(server, timeout=2, max_bytes=1000, retries=0) as client:
        assert client.get_json("/ok") == {"a": 1}
        assert client.get_json("/ok", {"q": "s"}) == {"a": 1}
        assert len(Handler.connections) == 1
        for path, word in (
            ("/html", "not valid JSON"),
            ("/short", "short|IncompleteRead"),
            ("/moved", "302"),
            ("/big", "larger"),
        ):
            with pytest.raises((HttpError, Unreachable), match=word):
                client.get_json(path)
        with pytest.raises(HttpError) as caught:
            client.get_json("/missing")
        assert caught.value.fields["status"] == 404
        assert json.loads(caught.value.fields["body"]) == {"error": "no"}


def test_nobody_there_and_urls_without_secrets() -> None:
    with core_http.HttpClient("http://127.0.0.1:9", timeout=0.5, retries=0) as client, pytest.raises(Unreachable):
        client.get("/")
    assert core_http.public_url("http://user:pass@host:1/p?token=x#f") == "http://host:1/p"
    with pytest.raises(InputError):
        core_http.HttpClient("host:80")
