# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._gateway import upstreams

FILE = b"""\
# upstream ghost { server 10.9.9.9:1; }
map $http_upgrade $connection { default upgrade; '' close; }
upstream api {
    least_conn;\t# server 10.9.9.8:1;
    server 10.0.0.1:8545 weight=5 max_fails=3;
    server "10.0.0.2:8545"
        weight=2 ;
    server [fd00::3]:8545 backup; server node4.example down;
    keepalive 16;
}
upstream ws { server 10.0.0.1:8545; }
server { listen 80; location ~ "^/a{2}" { return 200 "server 10.9.9.7:1; } ${x}"; } location / { proxy_pass http://api; } }
"""


def listed(data: bytes) -> list[tuple[str, str, bool, int, bool]]:
    return [(p.upstream, p.address, p.down, p.weight, p.backup) for p in upstreams.places(data, "f")]


def test_servers_are_found_where_nginx_finds_them() -> None:
    assert listed(FILE) == [
        ("api", "10.0.0.1:8545", False, 5, False),
        ("api", "10.0.0.2:8545", False, 2, False),
        ("api", "[fd00::3]:8545", False, 1, True),
        ("api", "node4.example", True, 1, False),
        ("ws", "10.0.0.1:8545", False, 1, False),
    ]


def test_one_place_changes_and_nothing_else() -> None:
    changed = upstreams.with_down(FILE, "f", "api", "10.0.0.1:8545", True)
    assert changed == FILE.replace(b"weight=5 max_fails=3;", b"weight=5 max_fails=3 down;")
    assert upstreams.with_down(changed, "f", "api", "10.0.0.1:8545", True) == changed
    assert upstreams.with_down(changed, "f", "api", "10.0.0.1:8545", False) == FILE
    assert upstreams.with_down(FILE, "f", "api", "node4.example", False) == FILE.replace(b"example down", b"example")


def test_weights() -> None:
    assert upstreams.with_weight(FILE, "f", "api", "10.0.0.1:8545", 7) == FILE.replace(b"weight=5", b"weight=7")
    assert b"upstream ws { server 10.0.0.1:8545 weight=3; }" in upstreams.with_weight(FILE, "f", "ws", "10.0.0.1:8545", 3)
    with pytest.raises(Refused, match="down"):
        upstreams.with_weight(FILE, "f", "ws", "10.0.0.1:8545", 0)


SPACE = st.sampled_from([b" ", b"\n", b"\t ", b" # a } comment;\n "])
OPTION = st.sampled_from([b"weight=3", b"backup", b"max_fails=0", b"fail_timeout=30s", b'"slow"'])


@st.composite
def servers(draw: t.Any) -> bytes:
    """An upstream of some servers, laid out as people do."""
    text = b"upstream" + draw(SPACE) + b"api" + draw(SPACE) + b"{"
    for number in range(draw(st.integers(1, 4))):
        text += draw(SPACE) + b"server" + draw(SPACE) + b"10.0.0.%d:80" % number
        for option in draw(st.lists(OPTION, max_size=3, unique=True)):
            text += draw(SPACE) + option
        text += draw(st.sampled_from([b";", b" ;", b"\n;"]))
    return text + draw(SPACE) + b"}\n"


@given(servers(), st.data())
def test_down_and_up_again_gives_the_same_bytes(data: bytes, draw: t.Any) -> None:
    before = upstreams.places(data, "f")
    chosen = draw.draw(st.sampled_from(before))
    down = upstreams.with_down(data, "f", "api", chosen.address, True)
    assert [p.down for p in upstreams.places(down, "f")] == [p.address == chosen.address for p in before]
    assert upstreams.with_down(down, "f", "api", chosen.address, False) == data


@pytest.mark.parametrize(
    "text",
    [
        b"upstream api { server a:1;",
        b"upstream api { server a:1; } }",
        b"upstream api { server a:1 }",
        b'upstream api { server "a:1; }',
        b"upstream api { include servers.conf; }",
        b"worker_processes 1",
    ],
)
def test_what_cannot_be_read_for_sure_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        upstreams.places(text, "f")


def test_a_server_that_stands_twice_or_nowhere_is_not_changed() -> None:
    for text in (b"upstream api { server a:1; server a:1 backup; }", b"upstream api { server b:1; }"):
        with pytest.raises(InputError, match="times, not once"):
            upstreams.with_down(text, "f", "api", "a:1", True)
