#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client load for the devnet: reads and signed transfers through the gateway, and an account of what became of each.

Connections are kept. Long requests (``--long``) are reads whose own few bytes take seconds to arrive, so that the gateway and the
node hold them all that time; so many are always under way. The node has no websockets, so none are opened.

Open loop: requests start at their times whether or not earlier ones came back, as those of many independent clients would.
Nothing is retried silently: a request that fails is counted as failed, even if the same transfer gets through later. One thing is
asked again, and counted: a read whose kept connection turns out to be closed, which is no answer to anything. HTTP clients do so
by themselves (RFC 9112, 9.3.1), and a gateway that is reloaded closes what is kept. At the end every block that was made in the
meantime is read, and each accepted transfer must be in exactly one of them.

Needs aiohttp and cryptography (controller only). The API key comes from ``--api-key-file`` or the environment variable
``LOAD_API_KEY``, never from the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import sys
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import aiohttp
from refnode import tx as transactions

MAX_SECONDS = 7200.0  # a forgotten client ends by itself
MAX_RATE = 500.0
INCLUSION_SECONDS = 30.0
DROPS = 10  # bytes of a long request
LISTED = 200  # failures kept in the summary; all of them are in --out


@dataclasses.dataclass
class Account:
    address: str
    private_key: str
    nonce: int = -1  # the next one; -1: ask the network
    busy: bool = False


@dataclasses.dataclass
class Sent:
    """One accepted transfer."""

    txid: str
    sender: str
    nonce: int
    at: float
    height: int | None = None


class Load:
    """One run."""

    def __init__(self, options: argparse.Namespace, accounts: list[Account], chain_id: str, api_key: str, out: t.TextIO) -> None:
        self.options, self.accounts, self.chain_id, self.api_key, self.out = options, accounts, chain_id, api_key, out
        self.url = options.url.rstrip("/")
        self.stopping = asyncio.Event()
        self.requests = self.reads = self.writes = self.failed = self.slow = self.csrf_403 = 0
        self.skipped_transfers = self.longs = self.asked_again = 0
        self.slows: list[dict[str, t.Any]] = []
        self.latencies: list[float] = []
        self.failures: list[dict[str, t.Any]] = []
        self.by_status: collections.Counter[str] = collections.Counter()
        self.sent: dict[str, Sent] = {}
        self.doubtful: dict[str, Sent] = {}
        self.csrf: dict[str, str] = {}
        self._turn = 0
        self._random = random.Random(options.seed)  # noqa: S311 (a load pattern, not a secret)
        self.session: aiohttp.ClientSession

    # -- one request --------------------------------------------------------------------------------------------------------

    def note(self, event: str, **fields: t.Any) -> None:
        self.out.write(json.dumps({"time": round(time.time(), 3), "event": event, **fields}, sort_keys=True) + "\n")
        self.out.flush()

    def _fail(self, kind: str, path: str, status: int | None, error: str, seconds: float, began: float) -> None:
        entry = {
            "at": round(began, 3),
            "kind": kind,
            "path": path,
            "status": status,
            "error": error[:300],
            "seconds": round(seconds, 3),
        }
        self.failed += 1
        if len(self.failures) < LISTED:
            self.failures.append(entry)
        self.note("failed", **entry)

    async def call(
        self,
        method: str,
        path: str,
        body: t.Any = None,
        *,
        accept: t.Collection[int] = (200,),
        headers: t.Mapping[str, str] | None = None,
        trickle: float = 0.0,
        again: bool = True,
    ) -> tuple[int | None, t.Any]:
        """(status, JSON); status None when there was no answer. Counts and records.

        ``trickle``: seconds that sending takes. ``again``: whether it may be sent again when its kept connection is closed.
        """
        began, clock = time.time(), time.monotonic()
        self.requests += again
        kind = "long" if trickle else "read" if method == "GET" else "write"
        sent: dict[str, t.Any] = {"json": body}
        if trickle:
            sent, headers = {"data": _drops(trickle)}, {"Content-Length": str(DROPS)}
        status: int | None = None
        value: t.Any = None
        error = ""
        connections: list[bool] = []  # those that it went out on, and whether each was a kept one
        try:
            async with self.session.request(
                method, self.url + path, headers=headers, trace_request_ctx=connections, **sent
            ) as answer:
                status = answer.status
                text = await answer.text()
                with contextlib.suppress(ValueError):
                    value = json.loads(text)
                if value is None:
                    error = f"no JSON: {text[:200]}"
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as exc:
            error = f"{type(exc).__name__}: {exc}"
            closed = connections == [True] and isinstance(exc, (aiohttp.ServerDisconnectedError, ConnectionError))
            if closed and again and method == "GET":
                self.asked_again += 1
                return await self.call(method, path, accept=accept, trickle=trickle, again=False)
        seconds = time.monotonic() - clock
        if not trickle:
            self.latencies.append(seconds)
        self.by_status[str(status)] += 1
        if seconds > self.options.slow + trickle:
            self.slow += 1
            late = {"at": round(began, 3), "kind": kind, "path": path, "status": status, "seconds": round(seconds, 3)}
            self.slows = [*self.slows, late][:LISTED]
            self.note("slow", **late)
        if status == 403 and method == "POST":
            self.csrf_403 += 1
            self.note("csrf_403", path=path)
        elif status is None or status not in accept or error:
            self._fail(kind, path, status, error or json.dumps(value)[:300], seconds, began)
        return status, value

    # -- reads --------------------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        self.reads += 1
        account = self._random.choice(self.accounts)
        known = list(self.sent)[-50:]
        paths = [
            "/block/latest?summary=1",
            "/stats",
            "/blocks?limit=3",
            f"/balance/{account.address}",
            f"/address/{account.address}/nonce",
        ]
        if known:
            paths.append(f"/transaction/{self._random.choice(known)}")
        path = self._random.choice(paths)
        await self.call("GET", path, accept=(200, 404) if path.startswith("/transaction/") else (200,))

    async def long(self) -> None:
        while not self.stopping.is_set():
            self.longs += 1
            await self.call("GET", "/block/latest?summary=1", trickle=self.options.long_seconds)

    # -- transfers ----------------------------------------------------------------------------------------------------------

    async def _credentials(self, renew: bool = False) -> dict[str, str]:
        if renew or not self.csrf:
            async with self.session.get(self.url + "/csrf-token") as answer:
                body = await answer.json()
                cookie = answer.headers.get("Set-Cookie", "").split(";")[0]
            self.csrf = {"X-CSRF-Token": body["csrf_token"], "Cookie": cookie}
        return {**self.csrf, "X-API-Key": self.api_key}

    async def _nonce(self, account: Account) -> None:
        status, body = await self.call("GET", f"/address/{account.address}/nonce")
        if status == 200:
            account.nonce = body["next_nonce"]

    async def transfer(self) -> None:
        """One transfer from the next account that is free."""
        for _unused in self.accounts:
            self._turn = (self._turn + 1) % len(self.accounts)
            if not self.accounts[self._turn].busy:
                break
        account = self.accounts[self._turn]
        if account.busy:
            self.skipped_transfers += 1
            return
        account.busy = True
        try:
            if account.nonce < 0:
                await self._nonce(account)
            if account.nonce >= 0:
                await self._transfer(account)
        finally:
            account.busy = False

    async def _transfer(self, account: Account) -> None:
        recipient = self._random.choice([other for other in self.accounts if other is not account] or [account])
        entry = transactions.build(
            account.private_key,
            self.chain_id,
            recipient=recipient.address,
            amount=0.25,
            nonce=account.nonce,
            timestamp=round(time.time(), 3),
        )
        made = Sent(entry["txid"], account.address, account.nonce, time.time())
        for attempt in range(5):
            self.writes += 1
            headers = await self._credentials(renew=attempt > 0)
            status, _body = await self.call("POST", "/send", entry, headers=headers)
            if status == 200:
                self.sent[made.txid] = made
                self.doubtful.pop(made.txid, None)
                account.nonce += 1
                return
            if status != 403:
                break
        # Refused or unanswered. What it became is for the chain to say: ask before this nonce is used again.
        self.doubtful[made.txid] = made
        account.nonce = -1
        await asyncio.sleep(1)

    # -- the run ------------------------------------------------------------------------------------------------------------

    async def _pace(self, rate: float, start: t.Callable[[], t.Coroutine[t.Any, t.Any, None]]) -> None:
        """Start one each 1/rate seconds until told to stop."""
        if rate <= 0:
            return
        running: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self.stopping.is_set():
            task = asyncio.create_task(start())
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / rate
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), max(0.0, due - time.monotonic()))
        for answer in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(answer, BaseException):
                self._fail("client", "", None, repr(answer), 0.0, time.time())

    async def _tip(self) -> int:
        """Through retries, uncounted: this is the check, not the load."""
        return int((await self._ask("/block/latest?summary=1"))["block_number"])

    async def _ask(self, path: str) -> t.Any:
        base = (self.options.check_url or self.url).rstrip("/")
        error: object = None
        for _attempt in range(20):
            try:
                async with self.session.get(base + path) as answer:
                    if answer.status == 200:
                        return await answer.json()
                    error = f"status {answer.status}"
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as exc:
                error = exc
            await asyncio.sleep(0.5)
        raise RuntimeError(f"{base}{path} can't be read for the final check: {error}")

    async def run(self) -> dict[str, t.Any]:
        timeout = aiohttp.ClientTimeout(total=self.options.timeout)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[_connections()]
        ) as self.session:
            _never_by_itself(self.session)
            first = await self._tip()
            began = time.time()
            self.note("started", url=self.url, first_height=first)
            limit = min(self.options.duration or MAX_SECONDS, MAX_SECONDS)
            asyncio.get_running_loop().call_later(limit, self.stopping.set)
            await asyncio.gather(
                self._pace(self.options.rate, self.read),
                self._pace(self.options.transfer_rate, self.transfer),
                *(self.long() for dummy in range(self.options.long)),
            )
            ended = time.time()
            found = await self._check(first)
            summary = self._summary(began, ended, first, found)
            self.note("ended", **{key: summary[key] for key in ("requests", "failed", "lost", "double_spends")})
            return summary

    async def _check(self, first: int) -> dict[str, t.Any]:
        """Read the blocks since the start: where each transfer is, and whether anything is there twice."""
        where: dict[str, list[int]] = collections.defaultdict(list)
        nonces: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
        height = max(first - 2, 0)
        deadline = time.monotonic() + INCLUSION_SECONDS
        while True:
            top = await self._tip()
            while height < top:
                height += 1
                for entry in (await self._ask(f"/blocks/{height}"))["transactions"]:
                    where[entry["txid"]].append(height)
                    nonces[(entry["sender"], entry["nonce"])].append(entry["txid"])
            missing = [txid for txid in self.sent if txid not in where]
            if not missing or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        for txid, made in self.sent.items():
            made.height = where[txid][0] if txid in where else None
            self.note("transfer", txid=txid, sender=made.sender, nonce=made.nonce, sent=round(made.at, 3), height=made.height)
        twice = [{"txid": txid, "heights": heights} for txid, heights in where.items() if len(heights) > 1]
        twice += [{"sender": s, "nonce": n, "txids": txids} for (s, n), txids in nonces.items() if len(set(txids)) > 1]
        return {
            "last_height": height,
            "lost": missing,
            "double_spends": twice,
            "doubtful_included": sum(1 for txid in self.doubtful if txid in where),
        }

    def _summary(self, began: float, ended: float, first: int, found: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        ordered = sorted(self.latencies) or [0.0]

        def at(share: float) -> float:
            return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 4)

        included = sum(1 for made in self.sent.values() if made.height is not None)
        return {
            "ok": self.failed == 0 and not found["lost"] and not found["double_spends"] and self.requests > 0,
            "url": self.url,
            "started": round(began, 3),
            "ended": round(ended, 3),
            "seconds": round(ended - began, 3),
            "requests": self.requests,
            "reads": self.reads,
            "writes": self.writes,
            "long_requests": self.longs,
            "failed": self.failed,
            "slow": self.slow,
            "csrf_403": self.csrf_403,
            "asked_again": self.asked_again,
            "by_status": dict(sorted(self.by_status.items())),
            "transfers_sent": len(self.sent),
            "transfers_included": included,
            "transfers_refused_or_unanswered": len(self.doubtful),
            "refused_but_included": found["doubtful_included"],
            "transfers_skipped": self.skipped_transfers,
            "lost": len(found["lost"]),
            "lost_txids": found["lost"][:LISTED],
            "double_spends": len(found["double_spends"]),
            "double_spend_list": found["double_spends"][:LISTED],
            "first_height": first,
            "last_height": found["last_height"],
            "latency_seconds": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": round(ordered[-1], 4)},
            "failures": self.failures,
            "slow_requests": self.slows,
        }


def _connections() -> aiohttp.TraceConfig:
    """Tells each request which connections it went out on, and whether each was a kept one."""

    async def kept(session: aiohttp.ClientSession, context: t.Any, params: t.Any) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.append(True)

    async def new(session: aiohttp.ClientSession, context: t.Any, params: t.Any) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.append(False)

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(kept)
    trace.on_connection_create_end.append(new)
    return trace


def _never_by_itself(session: aiohttp.ClientSession) -> None:
    """aiohttp would ask again on new connections, too, and tell nobody. There is no public way to keep it from that."""
    session._retry_connection = False


async def _drops(seconds: float) -> t.AsyncIterator[bytes]:
    """``DROPS`` bytes, evenly."""
    for dummy in range(DROPS):
        await asyncio.sleep(seconds / DROPS)
        yield b" "


def _read_key(options: argparse.Namespace) -> str:
    if options.api_key_file:
        return pathlib.Path(options.api_key_file).read_text(encoding="utf-8").strip()
    return os.environ.get("LOAD_API_KEY", "")


async def _main(options: argparse.Namespace) -> int:
    document = json.loads(pathlib.Path(options.accounts).read_text(encoding="utf-8"))
    accounts = [Account(a["address"], a["private_key"]) for a in document["accounts"]][options.skip_accounts :]
    if not accounts:
        raise SystemExit(f"load_client: {options.accounts} holds no account (after --skip-accounts {options.skip_accounts})")
    with open(options.out, "a", encoding="utf-8") as out:
        load = Load(options, accounts, document["chain_id"], _read_key(options), out)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, load.stopping.set)
        summary = await load.run()
    target = pathlib.Path(options.summary)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(target)
    return 0 if summary["ok"] else 1


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Reads and signed transfers against a reference network, with an account at the end."
    )
    parser.add_argument("--url", required=True, help="the gateway, as clients see it")
    parser.add_argument("--check-url", help="where the final check reads blocks; the gateway when omitted")
    parser.add_argument("--accounts", required=True, help="accounts.json of the network's genesis")
    parser.add_argument("--skip-accounts", type=int, default=0, help="leave the first N accounts to others (voters, say)")
    parser.add_argument("--rate", type=float, default=20.0, help="reads a second")
    parser.add_argument("--transfer-rate", type=float, default=2.0, help="transfers a second")
    parser.add_argument("--long", type=int, default=0, help="long requests under way all the time")
    parser.add_argument("--long-seconds", type=float, default=3.0, help="how long each of them takes")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds; 0: until SIGTERM or SIGINT")
    parser.add_argument("--timeout", type=float, default=15.0, help="seconds a client waits for an answer")
    parser.add_argument("--slow", type=float, default=2.0, help="seconds from which an answer is called slow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True, help="JSON lines: every failed or slow request, every transfer")
    parser.add_argument("--summary", required=True, help="JSON written at the end")
    parser.add_argument("--api-key-file", help="file with the API key; else LOAD_API_KEY from the environment")
    options = parser.parse_args(argv)
    if (
        not (0 <= options.rate <= MAX_RATE and 0 <= options.transfer_rate <= MAX_RATE)
        or options.rate + options.transfer_rate == 0
        or not (0 <= options.long <= MAX_RATE and 0 < options.long_seconds <= options.timeout / 2)
    ):
        parser.error(f"rates must be from 0 to {MAX_RATE:g} a second, and not both 0; long requests take up to half of --timeout")
    try:
        return asyncio.run(_main(options))
    except (RuntimeError, OSError, ValueError, KeyError) as exc:
        print(f"load_client: {exc}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
