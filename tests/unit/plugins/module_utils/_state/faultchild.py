# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one act after the other on a disk that fails: ``faultshim.c`` must be preloaded into this process.

Each line on standard input is an order, JSON; each is carried out in a child of its own, so that the interpreter is started
once only. Each line on standard output says how that child ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError
from ansible_collections.chainops.validator.plugins.module_utils._state import migration, restore, verify
from ansible_collections.chainops.validator.plugins.module_utils._state.snapshot import Root, SnapshotSpec, freeze, hot_copy
from ansible_collections.chainops.validator.plugins.module_utils._state.watermark import Watermark

_libc = ctypes.CDLL(None)
XAI = adapter("xai")


class Quiet(type(XAI)):  # type: ignore[misc]
    """Doesn't ask /proc who uses the directory: that is no matter of the disk, and slow a thousand times over."""

    def lock_holder(self, data_dir: str) -> None:
        return None


QUIET = Quiet()


def roots(order: t.Mapping[str, t.Any]) -> tuple[Root, ...]:
    return tuple(Root(name, path) for name, path in order["roots"])


def take(order: t.Mapping[str, t.Any]) -> object:
    """Hot copy, then some life, then the freeze."""
    spec = SnapshotSpec.for_adapter("n1", order.get("id", "s1"), roots(order), XAI)
    hot_copy(spec)
    _libc.faults_pause(1)
    data = dict(order["roots"])["data"]
    with open(os.path.join(data, "blocks/blocks_1.json"), "w", encoding="ascii") as stream:
        stream.write("changed")
    with open(os.path.join(data, "blocks/blocks_2.json"), "a", encoding="ascii") as stream:
        stream.write("grown")
    _libc.faults_pause(0)
    return freeze(spec, {"height": 1}).as_dict()


def freeze_only(order: t.Mapping[str, t.Any]) -> object:
    return freeze(SnapshotSpec.for_adapter("n1", order.get("id", "s1"), roots(order), XAI), {"height": 1}).as_dict()


def put_back(order: t.Mapping[str, t.Any]) -> object:
    return restore.restore(order["snapshot"], roots(order), QUIET, {}, Watermark(9, 0, 0, order["key"])).as_dict()


def go_on(order: t.Mapping[str, t.Any]) -> object:
    done = restore.finish(dict(order["roots"])["data"], "n1")
    return done and done.as_dict()


def look(order: t.Mapping[str, t.Any]) -> object:
    return verify.verify(order["snapshot"]).as_dict()


def try_out(order: t.Mapping[str, t.Any]) -> object:
    scratch = restore.restore_to(order["snapshot"], order["scratch"], QUIET)
    return [scratch.as_dict(), restore.differences(order["snapshot"], [Root(n, p) for n, p in scratch.paths.items()], QUIET)]


def migrate(order: t.Mapping[str, t.Any]) -> object:
    steps = migration.parse([order["step"]])
    data = dict(order["roots"])["data"]
    return migration.run(steps, data, order["release"], migration.FORWARD, 60, adapter=QUIET, instance="n1").as_dict()


ACTS = {act.__name__: act for act in (take, freeze_only, put_back, go_on, look, try_out, migrate)}


def carry_out(order: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600) if order.get("log") else -1
    _libc.faults_arm(
        order["below"].encode(),
        order.get("counted", 0),
        order.get("afterwards", 0),
        order.get("at", 0),
        order.get("errno", 0),
        order.get("how", 0),
        log,
    )
    answer: dict[str, t.Any]
    try:
        result = ACTS[order["act"]](order)
        _libc.faults_pause(1)
        answer = {"result": result}
    except ChainopsError as exc:
        _libc.faults_pause(1)
        answer = {"error": type(exc).__name__, "message": exc.message}
    except BaseException:
        _libc.faults_pause(1)
        answer = {"foreign": traceback.format_exc()}
    return {**answer, "failed": bool(_libc.faults_failed())}


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as stream:
                json.dump(carry_out(json.loads(line)), stream)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            text = stream.read()
        status = os.waitpid(pid, 0)[1]
        answer = json.loads(text) if text else {"killed": os.WTERMSIG(status), "failed": True}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
