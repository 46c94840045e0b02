#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host after the other is drained, stopped, started and put back behind two gateways that reload at random, under load.

    PYTHONPATH=.cache/collections-dev tests/bench/drains.py [--rate 300] [--long 20] [--hosts 4] [--seed 1] [--only ours]

Once with ``chainops.validator.api_drain``, and once with ``community.general.haproxy`` in its place: real HAProxy processes and
small servers on loopback, each module run as Ansible would run it on a target. Short requests start at their times whether or not
earlier ones came back; so many long ones are in flight all the time; connections are kept (a client asks again by itself, once,
when a kept one breaks: such a request is served twice, and doesn't fail). Every request has an id that servers
write down, so that one which was served twice shows. build/bench/drains-<name>.jsonl has each failed, slow and duplicated request
with its time, between what was done to the hosts and the gateways.

``make bench`` calls it. What isn't installed is said, and left out.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._host import clients, procs
from ansible_collections.chainops.validator.tests.gateways import HAProxyProcess, free_port, program, until

REPO = pathlib.Path(__file__).resolve().parents[2]
OUT = REPO / "build" / "bench"
MODULE = REPO / "plugins" / "modules" / "api_drain.py"
OURS, THEIRS = "chainops.validator.api_drain", "community.general.haproxy"
#: Seconds: a long request; from when on one is slow; how long a host is down; between two reloads of a gateway, from and to.
LONG, SLOW, DOWN, RELOADS = 3.0, 1.0, 1.0, (2.0, 6.0)
PATIENCE = 30.0

CONFIG = """
global
  stats socket {folder}/admin.sock mode 600 level admin expose-fd listeners
  maxconn 4000
defaults
  mode http
  option redispatch 1
  retries 3
  retry-on conn-failure
  option idle-close-on-response
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout queue 10s
  timeout http-keep-alive 30s
frontend public
  bind 127.0.0.1:{port}
  default_backend api
backend api
  balance roundrobin
  option httpchk GET /health
  default-server check inter 250ms fall 2 rise 2 pool-purge-delay 500ms
{servers}
"""


class Failure(Exception):
    """Something could not be run."""


# -- a server -------------------------------------------------------------------------------------------------------------


async def _serve(port: int, ids: str) -> None:
    flying, last = 0, 0.0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal flying, last
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                body = b"ok"
                if path == "/facts":
                    body = json.dumps({"flying": flying, "last": last}).encode()
                elif path != "/health":
                    flying += 1
                    try:
                        log.write(path.partition("id=")[2].encode() + b"\n")
                        if path.startswith("/long"):
                            await asyncio.sleep(LONG)
                    finally:
                        flying -= 1
                        last = time.time()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()

    with open(ids, "ab", buffering=0) as log:
        async with await asyncio.start_server(client, "127.0.0.1", port, backlog=256) as server:
            await server.serve_forever()


class Host:
    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.name, self.port, self.ids = name, free_port(), folder / f"{name}.ids"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, "--serve", str(self.port), str(self.ids)])
        _until(lambda: self.facts() is not None, f"{self.name} answers")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def facts(self) -> dict[str, t.Any]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(b"GET /facts HTTP/1.1\r\n\r\n")
            return t.cast("dict[str, t.Any]", json.loads(link.recv(4096).split(b"\r\n\r\n", 1)[1]))


# -- a gateway ------------------------------------------------------------------------------------------------------------


class Gateway(HAProxyProcess):
    def __init__(self, name: str, folder: pathlib.Path, hosts: t.Sequence[Host]) -> None:
        self.name = name
        (folder / name).mkdir()
        servers = "\n".join(f"  server {host.name} 127.0.0.1:{host.port}" for host in hosts)
        super().__init__(folder / name, CONFIG, "-S", f"{folder / name}/master.sock", servers=servers)


# -- the two modules ------------------------------------------------------------------------------------------------------


def _module(path: pathlib.Path, options: dict[str, t.Any]) -> dict[str, t.Any]:
    done = subprocess.run(
        # Not by its path: its folder would come before the standard library, and some modules are named like parts of that.
        [sys.executable, "-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": options}),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO / ".cache" / "collections-dev"), *filter(None, sys.path)])},
    )
    try:
        return t.cast("dict[str, t.Any]", json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError) as exc:
        raise Failure(f"{path.name} ended without a result: {done.stderr[-500:]}") from exc


class Ours:
    name = OURS

    def __init__(self) -> None:
        self.receipts: dict[tuple[str, str], dict[str, t.Any]] = {}

    def _run(self, gateway: Gateway, host: Host, state: str) -> dict[str, t.Any]:
        options = {
            "state": state,
            "socket": gateway.socket,
            "server": host.name,
            "gateway": gateway.name,
            "receipt_dir": str(gateway.folder / "receipts"),
            "turn_id": f"turn-{host.name}",
            "fence_token": 1,
            "lease": 120,
            "timeout": PATIENCE,
        }
        return _module(MODULE, options)

    def out(self, gateway: Gateway, host: Host) -> dict[str, t.Any]:
        result = self._run(gateway, host, "drained")
        self.receipts[host.name, gateway.name] = result.get("receipt") or {}
        return result

    def agreed(self, host: Host) -> None:
        """As a turn does right before it stops anything: a reload may have let somebody in after the last look."""
        receipts = [receipt for (name, dummy), receipt in self.receipts.items() if name == host.name]

        def quiet() -> bool:
            return not clients.look(procs.connections(), host.port, receipts, held_by=procs.sockets_of).busy

        _until(quiet, f"no request of a gateway is at {host.name}")

    def back(self, gateway: Gateway, host: Host) -> dict[str, t.Any]:
        return self._run(gateway, host, "active")


class Theirs:
    """As its documentation has it: drain, wait for no connections, then maintenance; enabled again until it is up."""

    name = THEIRS

    def __init__(self) -> None:
        found = importlib.util.find_spec("ansible_collections")
        places = [pathlib.Path(place) for place in (found.submodule_search_locations or ()) if found] if found else []
        tail = pathlib.PurePath("community", "general", "plugins", "modules", "haproxy.py")
        paths = [place / tail for place in places if (place / tail).exists()]
        paths += [p for p in (pathlib.Path(q) / "ansible_collections" / tail for q in sys.path) if p.exists()]
        if not paths:
            raise Failure(f"{THEIRS} is not there: it comes with the package ansible")
        self.path = paths[0]

    def _run(self, gateway: Gateway, host: Host, options: dict[str, t.Any]) -> dict[str, t.Any]:
        common = {"socket": gateway.socket, "host": host.name, "backend": "api", "wait": True, "wait_interval": 1}
        return _module(self.path, {**common, "wait_retries": int(PATIENCE), **options})

    def out(self, gateway: Gateway, host: Host) -> dict[str, t.Any]:
        return self._run(gateway, host, {"state": "disabled", "drain": True})

    def agreed(self, host: Host) -> None:
        """It knows nothing of the host."""

    def back(self, gateway: Gateway, host: Host) -> dict[str, t.Any]:
        return self._run(gateway, host, {"state": "enabled"})


# -- the load -------------------------------------------------------------------------------------------------------------


class Load(threading.Thread):
    """Its own thread and event loop, so that it isn't held up by what waits for modules."""

    def __init__(self, urls: t.Sequence[str], rate: float, long: int, note: t.Callable[..., None]) -> None:
        super().__init__(daemon=True)
        self.urls, self.rate, self.long, self.note = urls, rate, long, note
        self.ended = threading.Event()
        self.requests = self.failed = self.slow = self.late = 0
        self.began: dict[str, float] = {}
        self.latencies: list[float] = []
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as exc:
            self.problem = exc

    async def _run(self) -> None:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(kind: str, expected: float) -> None:
                number = self.requests
                self.requests += 1
                url = f"{self.urls[number % len(self.urls)]}/{kind}?id={number}"
                began, clock = time.time(), time.monotonic()
                self.began[str(number)] = began
                error = ""
                try:
                    async with session.get(url) as answer:
                        await answer.read()
                        error = "" if answer.status == 200 else f"status {answer.status}"
                except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as exc:
                    error = f"{type(exc).__name__}: {exc}"
                seconds = time.monotonic() - clock
                if error:
                    self.failed += 1
                    self.note("failed", at=began, request=number, kind=kind, seconds=round(seconds, 3), error=error[:200])
                elif seconds - expected > SLOW:
                    self.slow += 1
                    self.note("slow", at=began, request=number, kind=kind, seconds=round(seconds, 3))
                if kind == "short":
                    self.latencies.append(seconds)

            async def endless() -> None:
                while not self.ended.is_set():
                    await one("long", LONG)

            long = []
            for dummy in range(self.long):
                long.append(asyncio.create_task(endless()))
                await asyncio.sleep(LONG / max(1, self.long))
            running: set[asyncio.Task[None]] = set()
            due = time.monotonic()
            while not self.ended.is_set():
                task = asyncio.create_task(one("short", 0.0))
                running.add(task)
                task.add_done_callback(running.discard)
                due += 1 / self.rate
                pause = due - time.monotonic()
                self.late += pause < -0.1
                await asyncio.sleep(max(0.0, pause))
            await asyncio.gather(*running, *long)


# -- the scenario ---------------------------------------------------------------------------------------------------------


def _until(condition: t.Callable[[], bool], what: str) -> None:
    def met() -> bool:
        with contextlib.suppress(IndexError, ValueError):
            return condition()
        return False

    try:
        until(met, what, PATIENCE)
    except AssertionError as exc:
        raise Failure(str(exc)) from exc


@dataclasses.dataclass
class Measured:
    name: str
    requests: int = 0
    failed: int = 0
    slow: int = 0
    duplicated: int = 0
    reloads: int = 0
    p99: float = 0.0
    drains: list[float] = dataclasses.field(default_factory=list)  # seconds from order to answer, both gateways
    lags: list[float] = dataclasses.field(
        default_factory=list
    )  # seconds from the last request's end to the drain's, in the module
    flying: list[int] = dataclasses.field(default_factory=list)  # requests at the host when it was stopped
    errors: list[str] = dataclasses.field(default_factory=list)

    def line(self) -> str:
        lag = f"{1000 * max(self.lags):.0f} ms after the last request's end at most" if self.lags else "it doesn't tell when"
        return (
            f"{self.name:30} {self.failed} of {self.requests} requests failed, {self.slow} slow, {self.duplicated} served twice; "
            f"{sum(self.flying)} in flight when hosts were stopped; {self.reloads} reloads; drains of "
            f"{min(self.drains):.2f} to {max(self.drains):.2f} s, ended {lag}"
            f"{f'; {len(self.errors)} calls failed: {self.errors[0][:120]}' if self.errors else ''}"
        )


def scenario(tool: Ours | Theirs, hosts: int, rate: float, long: int, seed: int) -> Measured:
    found = Measured(tool.name)
    events: list[dict[str, t.Any]] = []

    def note(event: str, at: float | None = None, **facts: t.Any) -> None:
        events.append({"time": round(time.time() if at is None else at, 3), "event": event, **facts})

    with tempfile.TemporaryDirectory(prefix="chainops-bench-") as scratch, contextlib.ExitStack() as stack:
        folder = pathlib.Path(scratch)
        machines = [Host(f"val{number}", folder) for number in range(1, hosts + 1)]
        for machine in machines:
            stack.callback(machine.stop)
            machine.start()
        gateways = []
        for name in ("gw1", "gw2"):
            gateways.append(Gateway(name, folder, machines))
            stack.callback(gateways[-1].close)
        time.sleep(1.0)
        load = Load([f"http://127.0.0.1:{gateway.port}" for gateway in gateways], rate, long, note)
        over = threading.Event()
        reloading = [
            threading.Thread(target=_reload, args=(gateway, random.Random(seed + number), over, note, found), daemon=True)
            for number, gateway in enumerate(gateways)
        ]
        stack.callback(over.set)
        stack.callback(load.ended.set)
        load.start()
        time.sleep(LONG + 1.0)
        for thread in reloading:
            thread.start()
        with concurrent.futures.ThreadPoolExecutor(len(gateways)) as pool:
            for machine in machines:
                _turn(tool, machine, gateways, pool, note, found)
        over.set()
        load.ended.set()
        load.join(60)
        for thread in reloading:
            thread.join(30)
        if load.problem is not None or load.is_alive():
            raise Failure(f"the load did not end as it should: {load.problem!r}")
        served = collections.Counter(line for machine in machines for line in machine.ids.read_text().split())
        for number, times in served.items():
            if times > 1:
                note("duplicated", at=load.began.get(number), request=int(number), times=times)
                found.duplicated += 1
    ordered = sorted(load.latencies) or [0.0]
    found.requests, found.failed, found.slow = load.requests, load.failed, load.slow
    found.p99 = ordered[int(len(ordered) * 0.99)]
    if load.late:
        note("late", count=load.late, message="this machine was too busy to start that many requests at their times")
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / f"drains-{tool.name}.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(event) + "\n" for event in sorted(events, key=lambda event: event["time"]))
    return found


def _turn(
    tool: Ours | Theirs,
    machine: Host,
    gateways: t.Sequence[Gateway],
    pool: concurrent.futures.Executor,
    note: t.Callable[..., None],
    found: Measured,
) -> None:
    note("drain", host=machine.name)
    began = time.monotonic()
    for result in pool.map(lambda gateway: tool.out(gateway, machine), gateways):
        if result.get("failed"):
            found.errors.append(str(result.get("msg")))
        drain = result.get("drain") or {}
        if "lag" in drain:
            found.lags.append(drain["lag"])
        note("drained", host=machine.name, gateway=(result.get("receipt") or {}).get("gateway"), drain=drain)
    found.drains.append(time.monotonic() - began)
    tool.agreed(machine)
    facts = machine.facts()
    found.flying.append(facts["flying"])
    note("stop", host=machine.name, in_flight=facts["flying"], idle_since=round(facts["last"], 3))
    machine.stop()
    time.sleep(DOWN)
    machine.start()
    note("started", host=machine.name)
    for result in pool.map(lambda gateway: tool.back(gateway, machine), gateways):
        if result.get("failed"):
            found.errors.append(str(result.get("msg")))
    note("back", host=machine.name)
    time.sleep(0.5)


def _reload(gateway: Gateway, dice: random.Random, over: threading.Event, note: t.Callable[..., None], found: Measured) -> None:
    while not over.wait(dice.uniform(*RELOADS)):
        gateway.reload()
        found.reloads += 1
        note("reload", gateway=gateway.name)


def measure(
    hosts: int = 4, rate: float = 300.0, long: int = 20, seed: int = 1, only: str | None = None
) -> tuple[list[Measured], list[str]]:
    """What each module did, and what was left out and why."""
    measured, left_out = [], []
    for name, make in (("ours", Ours), ("theirs", Theirs)):
        if only in (None, name):
            try:
                _installed()
                tool = make()
            except Failure as exc:
                left_out.append(str(exc))
                continue
            measured.append(scenario(tool, hosts, rate, long, seed))
    return measured, left_out


def _installed() -> None:
    try:
        program("haproxy")
    except AssertionError as exc:
        raise Failure(f"drains behind HAProxy: {exc}") from exc


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=300.0, help="short requests a second")
    parser.add_argument("--long", type=int, default=20, help="long requests in flight all the time")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the reloads")
    parser.add_argument("--only", choices=["ours", "theirs"])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(int(arguments.serve[0]), arguments.serve[1]))
        return 0
    try:
        measured, left_out = measure(arguments.hosts, arguments.rate, arguments.long, arguments.seed, arguments.only)
    except Failure as exc:
        print(f"drains: {exc}", file=sys.stderr)
        return 1
    for one in measured:
        print(one.line())
    for what in left_out:
        print(f"not measured: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
