# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate among nodes that misbehave, over real connections: a minority changes nothing, a majority closes it, nothing hangs."""

from __future__ import annotations

import contextlib
import copy
import http.server
import socket
import threading
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain.xai import XaiAdapter
from ansible_collections.chainops.validator.plugins.module_utils._governance import proof as proving
from ansible_collections.chainops.validator.plugins.module_utils._governance import readers as reading
from ansible_collections.chainops.validator.plugins.module_utils._governance import signing
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import Policy
from ansible_collections.chainops.validator.plugins.module_utils._governance.tally import Verdict
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import ID, Chain, vote
from ansible_collections.chainops.validator.tests.unit.plugins.modules.test_governance_modules import Handler, served

# Seconds: for an answer, for a whole account, and after which something hangs.
TIMEOUT, BUDGET, HANGS = 1.0, 4.0, 60.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

#: What is answered where blocks are asked for, and a word of the reason that is kept.
BODIES = {
    "HTML": (b"<html><body>Welcome</body></html>", "not valid JSON"),
    "nothing": (b"", "not valid JSON"),
    "cut JSON": (b'{"total": 5, "blocks": [{"index"', "not valid JSON"),
    "a key twice": (b'{"total": 1, "total": 5, "blocks": []}', "duplicate key"),
    "NaN": (b'{"total": 5, "blocks": [{"index": 0, "timestamp": NaN}]}', "NaN"),
    "1e400": (b'{"total": 5, "blocks": [{"index": 0, "timestamp": 1e400}]}', "1e400"),
    "a huge number": (b'{"total": ' + b"9" * 100_000 + b', "blocks": []}', ""),
    "too deep": (b"[" * 200_000 + b"]" * 200_000, ""),
    "no object": (b"[1, 2, 3]", "not an object"),
    "a list of nothing": (b'{"total": 5, "blocks": [null]}', "not a list of objects"),
}


class Hostile(Handler):
    """Truthful until more blocks than the first are asked for."""

    body: bytes | None = None
    act = ""
    over: threading.Event

    def do_GET(self) -> None:
        if not self.path.startswith("/blocks") or self.path == "/blocks/0":
            super().do_GET()
        elif self.body is not None:
            self.wfile.write(HEAD % len(self.body) + self.body)
        elif self.act == "short":
            self.wfile.write(HEAD % 5000 + b'{"total": 5')
            self.close_connection = True
        elif self.act == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/blocks")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.act == "error":
            self.answer(500, {"error": "internal"})
        elif self.act == "silent":
            self.over.wait(HANGS)
        else:  # a byte now and then
            with contextlib.suppress(OSError):
                self.wfile.write(HEAD % 10_000)
                while not self.over.wait(0.1):
                    self.wfile.write(b" ")


@contextlib.contextmanager
def hostile(chain: Chain, **behaviour: t.Any) -> t.Iterator[str]:
    over = threading.Event()
    handler = type("BoundHostile", (Hostile,), {"chain": chain, "over": over, **behaviour})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def gate(urls: t.Sequence[str]) -> tuple[reading.Reading, Verdict]:
    """What the gate says of these nodes; a gate that hangs fails the test."""
    answers: list[tuple[reading.Reading, Verdict]] = []

    def ask() -> None:
        listed = [reading.Reader(f"n{number}", url) for number, url in enumerate(urls)]
        adapter = XaiAdapter()
        read = reading.read(
            listed,
            lambda reader: adapter.client(reader.url, timeout=TIMEOUT, lanes=reading.LANES),
            patience=TIMEOUT,
            budget=BUDGET,
            count_coins=True,
        )
        wrong = signing.problems(read.records, read.scheme, read.chain_id)
        answers.append((read, proving.judge(read, ID, Policy(), None, wrong)[1]))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HANGS)
    assert answers, f"it did not end within {HANGS} s"
    return answers[0]


def check(
    chain: Chain, bad: t.Callable[[], t.ContextManager[str]], words: str, stack: contextlib.ExitStack, stage: str = "unknown"
) -> None:
    """One of four changes nothing, two of four close the gate: three must agree. ``stage`` is what is known then."""
    good = [stack.enter_context(served(chain)) for _number in range(3)]
    liars = [stack.enter_context(bad()) for _number in range(2)]
    read, verdict = gate([*good, liars[0]])
    assert verdict.open, verdict.reasons
    assert read.agreed == ("n0", "n1", "n2")
    assert words in str(read.answers[3].reason)
    read, verdict = gate([*good[:2], *liars])
    assert not verdict.open
    assert verdict.stage == stage
    assert ("fewer than 3 of 4 readers agree" in verdict.reasons[0]) is (stage == "unknown")


@pytest.fixture
def chain() -> Chain:
    found = Chain()
    found.approve()
    return found


@pytest.mark.parametrize("name", BODIES)
def test_answers_that_are_none(chain: Chain, name: str) -> None:
    body, words = BODIES[name]
    with contextlib.ExitStack() as stack:
        check(chain, lambda: hostile(chain, body=body), words, stack)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("short", "cut short"),
        ("redirect", "302"),
        ("error", "500"),
        ("silent", ""),
        ("slow", ""),
    ],
)
def test_nodes_that_do_not_answer_properly(chain: Chain, act: str, words: str) -> None:
    with contextlib.ExitStack() as stack:
        check(chain, lambda: hostile(chain, act=act), words, stack)


def test_nodes_that_are_not_there(chain: Chain) -> None:
    @contextlib.contextmanager
    def nobody() -> t.Iterator[str]:
        with socket.socket() as taken:  # bound, and nobody listens
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"

    with contextlib.ExitStack() as stack:
        check(chain, nobody, "refused", stack)


def stale(chain: Chain) -> None:
    del chain.blocks[3:]


def fork(chain: Chain) -> None:
    for block in chain.blocks[3:]:
        block["hash"] = "f" * 8 + block["hash"][8:]
    for block in chain.blocks[4:]:
        block["previous_hash"] = "f" * 8 + block["previous_hash"][8:]


def another(chain: Chain) -> None:
    chain.chain_id = "another"
    chain.blocks[0]["hash"] = "0" * 64
    chain.blocks[1]["previous_hash"] = "0" * 64


def extra_voters(chain: Chain) -> None:
    chain.blocks[2]["transactions"].append(chain.sign(6, vote("yes", 1e9)))


def fewer_votes(chain: Chain) -> None:
    del chain.blocks[2]["transactions"][0]


def negative_power(chain: Chain) -> None:
    chain.blocks[2]["transactions"][0]["metadata"]["voting_power"] = -20.0


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (stale, "lags"),
        (fork, "the others have"),
        (another, "another chain"),
        (extra_voters, "which the others don't have"),
        (fewer_votes, ""),
        (negative_power, "another metadata"),
    ],
)
def test_nodes_with_an_account_of_their_own(chain: Chain, lie: t.Callable[[Chain], None], words: str) -> None:
    theirs = copy.deepcopy(chain)
    lie(theirs)
    with contextlib.ExitStack() as stack:
        # The height that three have is an earlier one then, and told truthfully.
        check(chain, lambda: served(theirs), words, stack, "approved_voting" if lie is stale else "unknown")
