# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.clock import CLOCK
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused
from ansible_collections.chainops.validator.plugins.module_utils._gateway import statefile

HEADER = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time"


def states(*rows: tuple[str, str, int]) -> statefile.States:
    lines = [f"3 {backend} 1 {server} 10.0.0.1 2 {admin} 70 70 5" for backend, server, admin in rows]
    return statefile.parse("\n".join(["1", HEADER, *lines]) + "\n\n")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("backend api\n", None),
        ("global\n  server-state-file /s\nbackend api\n", None),
        ("global\n  server-state-file /s\ndefaults\n  load-server-state-from-file global\nbackend api\n", "/s"),
        ("global\n server-state-file /s # here\nbackend api\n\tload-server-state-from-file 'global'\n", "/s"),
        (
            "global\n server-state-base /b\n server-state-file s\ndefaults\n load-server-state-from-file global\nlisten api",
            "/b/s",
        ),
        ("global\n server-state-file s\nbackend api\n load-server-state-from-file global\n", "/run/here/s"),
        ("defaults\n load-server-state-from-file global\nbackend api\n", None),
        # What a backend says of itself counts more than what defaults say, and the last defaults more than the first.
        ("global\n server-state-file /s\ndefaults\n load-server-state-from-file global\ndefaults\nbackend api\n", None),
        (
            "global\n server-state-file /s\ndefaults\n load-server-state-from-file global\n"
            "backend api\n load-server-state-from-file none",
            None,
        ),
        ("global\n server-state-base /b\ndefaults\n load-server-state-from-file local\nbackend api\n", "/b/api"),
        ("global\n server-state-base /b\nbackend api\n load-server-state-from-file local\n server-state-file-name x\n", "/b/x"),
        ("backend api\n load-server-state-from-file local\n server-state-file-name /x\n", "/x"),
        ("backend api\n load-server-state-from-file local\n server-state-file-name use-backend-name\n", None),
        (
            "global\n server-state-file /s\ndefaults one\n load-server-state-from-file global\ndefaults two from one\ndefaults\n"
            "backend api from two\n",
            "/s",
        ),
        # A frontend's own, and other sections, are nothing to a backend.
        ("global\n server-state-file /s\nbackend api\nfrontend f\n load-server-state-from-file global\n", None),
        ("global\n server-state-file /s\npeers p\n load-server-state-from-file global\nbackend api\n", None),
        ('global\n server-state-file "$HOME/s"\nbackend api\n load-server-state-from-file global\n', None),
        (
            "global\n server-state-file /s\nbackend api\n.if feature(X)\n load-server-state-from-file global\n.endif\n",
            None,
        ),
        (
            "global\n server-state-file /s\nbackend api\n  http-request set-var(x) str(it's)\n"
            " load-server-state-from-file global\n",
            "/s",
        ),
    ],
)
def test_where_a_new_process_reads_from(text: str, path: str | None) -> None:
    place = statefile.places(text, "/run/here")["api"]
    assert (place.path or None) == path and bool(place.why) is (path is None)


def test_the_configuration_is_found_by_the_command_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "2.cfg").write_text("backend api\n")
    (tmp_path / "conf.d" / "1.cfg").write_text("defaults\n load-server-state-from-file global\n")
    (tmp_path / "conf.d" / "3.bak").write_text("defaults\n")
    (tmp_path / "main.cfg").write_text("global\n server-state-file state\n")
    argv = ["/usr/sbin/haproxy", "-sf", "12", "-x", "sockpair@3", "-Ws", "-f", "main.cfg", "-f", "conf.d", "-p", "/run/x.pid"]
    assert statefile.read(argv, str(tmp_path)) == {"api": statefile.Place(str(tmp_path / "state"))}
    moved = ["haproxy", "-C", "conf.d", "-f", "../main.cfg", "--", "1.cfg", "2.cfg"]
    assert statefile.read(moved, str(tmp_path)) == {"api": statefile.Place(str(tmp_path / "conf.d" / "state"))}
    with pytest.raises(FileNotFoundError):
        statefile.read(["haproxy", "-f", "gone"], str(tmp_path))


def test_a_file_has_the_rows_of_who_is_out_and_leaves_others_alone(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "state")
    now = states(("api", "a", 8), ("api", "b", 0))
    statefile.keep(path, now, "api", "a", False, CLOCK)
    assert not os.path.exists(path), "nothing to take away, nothing made"
    statefile.keep(path, now, "api", "a", True, CLOCK)
    assert statefile.parse(pathlib.Path(path).read_text()) == states(("api", "a", 8))
    os.chmod(path, 0o640)
    first = os.stat(path).st_ino
    statefile.keep(path, now, "api", "a", True, CLOCK)
    assert os.stat(path).st_ino == first, "what is there already is not written again"
    statefile.keep(path, states(("ws", "b", 1)), "ws", "b", True, CLOCK)
    statefile.keep(path, states(("api", "a", 0)), "api", "a", False, CLOCK)
    assert statefile.parse(pathlib.Path(path).read_text()) == states(("ws", "b", 1))
    assert os.stat(path).st_mode & 0o777 == 0o640
    statefile.keep(path, states(("ws", "b", 0)), "ws", "b", False, CLOCK)
    assert pathlib.Path(path).read_text() == f"1\n{HEADER}\n", "HAProxy complains of a file without a version"


@pytest.mark.parametrize(
    "content", ["2\n# be_id\n", "nonsense\n", "1\n", f"1\n{HEADER}\n3 api\n", f"1\n{HEADER} more\n{'3 x ' * 5}\n"]
)
def test_a_file_that_is_none_is_not_overwritten(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "state"
    path.write_text(content)
    with pytest.raises(Refused, match="can't be changed"):
        statefile.keep(str(path), states(("api", "a", 8)), "api", "a", True, CLOCK)
    assert path.read_text() == content
    with pytest.raises(Refused, match="No such file"):
        statefile.keep(str(tmp_path / "none" / "state"), states(("api", "a", 8)), "api", "a", True, CLOCK)


ROWS = st.lists(st.tuples(st.sampled_from(["api", "ws"]), st.sampled_from(["a", "b"]), st.integers(0, 8)), max_size=4)


def once(rows: t.Iterable[tuple[str, str, int]]) -> statefile.States:
    return states(*{row[:2]: row for row in rows}.values())


@given(ROWS, ROWS, st.booleans())
def test_only_the_servers_own_row_changes(
    there: list[tuple[str, str, int]], now: list[tuple[str, str, int]], wanted: bool
) -> None:
    before, told = once(there), once(now)
    after = statefile.with_row(before, told, "api", "a", wanted)
    assert [row for row in after.rows if row[:2] != ("api", "a")] == [row for row in before.rows if row[:2] != ("api", "a")]
    assert after.find("api", "a") == (told.find("api", "a") if wanted else None) and statefile.parse(after.text()) == after
