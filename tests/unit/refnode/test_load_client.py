# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the load client counts as failed, and what it asks again."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import pathlib
import sys
import typing as t

import aiohttp
import pytest

FILES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "devnet" / "files"


@pytest.fixture(scope="module")
def client() -> t.Any:
    spec = importlib.util.spec_from_file_location("load_client", FILES / "load_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["load_client"] = module
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


async def asked(client: t.Any, answers: t.Sequence[int], trickle: float) -> t.Any:
    """Two reads, one after the other, of a server that answers so many requests on each connection and closes it at the next."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = left.pop(0)
        while (head := await reader.readuntil(b"\r\n\r\n")) and count:
            count -= 1
            if b"Content-Length" in head:
                await reader.readexactly(client.DROPS)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = argparse.Namespace(url=f"http://127.0.0.1:{port}", seed=1, slow=5.0)
    load = client.Load(options, [], "chain", "key", io.StringIO())
    async with server, aiohttp.ClientSession(trace_configs=[client._connections()]) as load.session:
        client._never_by_itself(load.session)
        for dummy in range(2):
            await load.call("GET", "/health", trickle=trickle)
    return load


@pytest.mark.parametrize("trickle", [0.0, 0.02])
@pytest.mark.parametrize(("answers", "failed", "again"), [((2,), 0, 0), ((1, 1), 0, 1), ((1, 0), 1, 1), ((0, 1), 1, 0)])
def test_only_a_kept_connection_is_a_reason_to_ask_again(
    client: t.Any, trickle: float, answers: tuple[int, ...], failed: int, again: int
) -> None:
    load = asyncio.run(asked(client, answers, trickle))
    assert (load.requests, load.failed, load.asked_again) == (2, failed, again)
