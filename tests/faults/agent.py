#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fault suite does on a host: what a module would do there, without a playbook around it, and looking.

    agent.py ACT    with its arguments as JSON on standard input; answers with a line of JSON, {"ok": ...} or {"error": ...}
    agent.py serve  the same for many: a line {"id", "act", "asked"} each, answered as they are done, until standard input ends

The collection's own code comes along as lib.zip, as it comes along in a module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import typing as t

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib.zip"))

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, files, journal
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError
from ansible_collections.chainops.validator.plugins.module_utils._gateway import receipt
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Wish
from ansible_collections.chainops.validator.plugins.module_utils._gateway.registry import driver
from ansible_collections.chainops.validator.plugins.module_utils._host import (
    aftermath,
    control,
    fence,
    lock,
    overview,
    procs,
    service,
)
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest
from ansible_collections.chainops.validator.plugins.module_utils._report import secrets as hidden
from ansible_collections.chainops.validator.plugins.module_utils._state import names, restore, snapshot, verify, watermark

Args = t.Dict[str, t.Any]
STATE = "/var/lib/chainops"
DATA = "/var/lib/xai/data"
UNIT = "xai-node.service"
RECEIPTS = "/var/lib/chainops/gateway"


def turn(asked: Args) -> Args:
    """What validator_upgrade does: look, decide, begin or attach, wait."""
    body = dict(asked["request"])
    if body["release"] is None:
        known = control.way_back(body)
        body.update(release=known["release"], back_to=known["back_to"], proof_sha256=known["proof_sha256"])
    request = control.Request(**body)
    control.validate(request)
    there = control.survey(request)
    decision = control.decide(request, there)
    if asked.get("dry"):
        return {"decision": decision.kind, "preconditions": control.preconditions(request, there)}
    if decision.kind == "nothing":
        return {"decision": decision.kind, "result": control.untouched(request, there)}
    if decision.kind == "start":
        control.begin(request, there)
    elif decision.kind == "attach":
        control.attach(request)
    timeout = float(asked.get("timeout", 120.0)) if decision.kind != "ended" else 0.0
    return {"decision": decision.kind, "result": control.wait(control.home_of(request), request.turn_id, timeout)}


def asking(asked: Args, current: lock.Lease | None) -> lock.Asking:
    """``break_it``: whoever holds it now."""
    breaks = current.token if asked.pop("break_it", False) and current is not None else 0
    return lock.Asking(**asked, run=asked["holder"], breaks=breaks)


def hold(asked: Args) -> Args:
    home = Home(STATE, asked.pop("instance"))
    before, decision = lock.hold(home, asking(asked, lock.held(home.lock)))
    return {
        "granted": decision.granted,
        "reason": decision.reason,
        "token": decision.lease.token if decision.lease else 0,
        "holder": decision.lease.holder if decision.lease else "",
        "changed": decision.changed,
        "before": before.as_dict() if before else {},
    }


def seen_token(asked: Args) -> Args:
    return {"token": fence.highest(Home(STATE, asked["instance"]).fence)}


def release(asked: Args) -> Args:
    home = Home(STATE, asked.pop("instance"))
    dummy, decision = lock.release(home, asking(asked, lock.held(home.lock)))
    return {"granted": decision.granted, "reason": decision.reason}


def gateway(asked: Args) -> Args:
    state = asked.pop("state")
    wish = Wish(backend="validators", gateway=os.uname().nodename, receipt_dir=RECEIPTS, **asked)
    drain = Drain(driver("haproxy", "/run/haproxy/admin.sock"), wish)
    done = drain.out() if state == "drained" else drain.back()
    return {"receipt": done["receipt"], "drain": done["drain"]}


def record(asked: Args) -> Args:
    added = manifest.append(Home(STATE, asked["instance"]).manifest, asked["entry"])
    return {"seq": added.seq}


def write_down(asked: Args) -> Args:
    """The last turn, where nobody wrote it down, as `resume` does."""
    home = Home(STATE, asked["instance"])
    entry = aftermath.unrecorded(home)
    if entry is not None:
        manifest.append(home.manifest, {**entry, "instance": asked["instance"]})
    return {"entry": entry}


def look(asked: Args) -> Args:
    """Everything the checker wants to know of a validator's host."""
    name = asked["instance"]
    home = Home(STATE, name)
    spec = {"manager": "systemd", "unit": UNIT, "scope": "system"}
    seen = overview.look(home, spec, asked["link"], chain="xai", data_dir=DATA, limit=0)
    node = service.make(spec, home)
    assert isinstance(node, service.Systemd)
    shown = node.show("ActiveState", "Restart", "NRestarts", "DropInPaths", "MainPID", "ExecMainStartTimestampMonotonic")
    engine = node.ctl("show", f"chainops-turn@{name}.service", "--property=ActiveState,SubState,MainPID").split()
    chain = adapter("xai")
    live = chain.read_watermark(DATA)
    mark = watermark.combine(live, watermark.recorded(home.root, asked["address"]), address=asked["address"])
    problems: list[str] = [str(item) for item in seen["problems"]]
    turns: dict[str, Args] = {}
    for turn_id in home.turns():
        try:
            records = journal.read(home.turn(turn_id).journal)
            if turn_id in asked["turns"]:
                plan = canonical.loads(files.read_or_none(home.turn(turn_id).plan) or b"", "plan")
                turns[turn_id] = {
                    "result": control.outcome(home, turn_id),
                    "proof_sha256": canonical.digest(plan["proof"]) if plan["proof"] else plan["proof_sha256"],
                    "proposal_id": plan["proof"].get("proposal_id"),
                    "release_sha256": plan["new"]["sha256"],
                    "records": [
                        {k: r.get(k) for k in ("kind", "step", "way", "reason", "pid") if k in r}
                        | (
                            {"facts": {"proof_sha256": r["facts"].get("proof_sha256")}}
                            if r.get("step") == "check" and "facts" in r
                            else {}
                        )
                        for r in records
                    ],
                }
        except (ChainopsError, OSError) as exc:
            problems.append(f"journal {turn_id}: {exc}")
    snapshots = names.snapshots_dir(DATA, name)
    sealed: dict[str, Args] = {}
    for snapshot_id in asked["snapshots"]:
        verdict = verify.verify(snapshot.sealed_path(snapshots, snapshot_id))
        sealed[snapshot_id] = {"id": snapshot_id, "verified": not verdict.problems, "problems": list(verdict.problems)[:3]}
    return {
        "running": seen["running"],
        "link": seen["running"]["link"],
        "level": seen["running"]["level"],
        "open": seen["open_turn"],
        "guarded": seen["guarded"],
        "lock": seen["lock"],
        "fence": seen["fence"],
        "unit": shown,
        "engine": engine,
        "engine_at_work": lock.engine_at_work(home),
        "turns": turns,
        "turn_ids": home.turns(),
        "watermark": watermark.as_dict(mark) if mark else None,
        "manifest": {
            "valid": not manifest.verify(home.manifest),
            "entries": len(manifest.sound(home.manifest)),
            "problems": manifest.verify(home.manifest)[:3],
        },
        "snapshots": sealed,
        "pending": restore.pending(DATA, name),
        "data_holder": chain.lock_holder(DATA),
        "secrets": scan(home, asked["secrets"]),
        "problems": problems,
    }


def scan(home: Home, secrets: list[str]) -> Args:
    """Secrets looked for in all that the collection wrote on this host, and in what its engine and its unit said."""
    blobs: dict[str, bytes] = {}
    for root, folders, found in os.walk(home.root):
        if root == home.root:
            folders[:] = [one for one in folders if one not in ("releases", "engine")]
        for name in found:
            path = os.path.join(root, name)
            blobs[path] = (files.read_or_none(path) or b"").replace(b"\0", b"")
    said = subprocess.run(
        ["journalctl", "--quiet", "--no-pager", "--output=cat", "-u", f"chainops-turn@{home.instance}.service"],
        capture_output=True,
        check=False,
        timeout=20,
    ).stdout
    blobs["journald"] = said
    with open("/proc/self/cmdline", "rb") as stream:
        blobs["argv"] = stream.read()
    found_in = hidden.search(secrets, blobs)
    return {"secrets": len(secrets), "files": len(blobs), "bytes": sum(map(len, blobs.values())), "found": found_in}


def gateway_look(asked: Args) -> Args:
    """How the gateway stands: each server as it says, and each receipt."""
    seen = driver("haproxy", "/run/haproxy/admin.sock").look()
    servers = {one.name: dataclasses.asdict(one) for one in seen.servers if one.backend == "validators"}
    receipts = {name: receipt.load(RECEIPTS, name) for name in servers}
    return {"servers": servers, "receipts": receipts}


def arm(asked: Args) -> Args:
    for name in ("armed", "fired"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(HERE, name))
    if asked.get("mode"):
        lines = [f"{asked['mode']} {asked.get('times', 1)} {asked.get('seconds', 0.0)}", *asked["parts"]]
        files.write_atomic(os.path.join(HERE, "armed"), "".join(line + "\n" for line in lines).encode())
    return {}


def fired(asked: Args) -> Args:
    """Wait until the boundary was reached."""
    until = time.monotonic() + float(asked["timeout"])
    while time.monotonic() < until:
        if os.path.exists(os.path.join(HERE, "fired")):
            time.sleep(0.05)
            at_work = lock.engine_at_work(Home(STATE, asked["instance"]))
            return {"pid": at_work["pid"] if at_work else 0}
        time.sleep(0.02)
    raise ChainopsError(f"the boundary was not reached within {asked['timeout']} s")


def kill(asked: Args) -> Args:
    os.kill(int(asked["pid"]), signal.Signals[asked["signal"]])
    return {}


def wait_open(asked: Args) -> Args:
    """Wait until this host's engine is at work on a turn, in or past a step."""
    home = Home(STATE, asked["instance"])
    until = time.monotonic() + float(asked["timeout"])
    while time.monotonic() < until:
        for turn_id in home.turns():
            if turn_id in asked.get("known", ()):
                continue
            try:
                records = journal.read(home.turn(turn_id).journal)
            except (ChainopsError, OSError):
                continue
            if any(r.get("step") == asked["step"] and r["kind"] == asked.get("kind", "begin") for r in records):
                return {"turn_id": turn_id}
        time.sleep(0.02)
    raise ChainopsError(f"no turn came to {asked['step']} within {asked['timeout']} s")


def shell(asked: Args) -> Args:
    done = subprocess.run(
        ["/bin/sh", "-c", asked["script"]], capture_output=True, text=True, check=False, timeout=asked.get("timeout", 60)
    )
    return {"rc": done.returncode, "out": done.stdout[-4000:], "err": done.stderr[-2000:]}


def rollback_point(asked: Args) -> Args:
    """A file of blocks in the snapshot that this host would go back to."""
    home = Home(STATE, asked["instance"])
    points = [entry.fields["snapshot_id"] for entry in manifest.read(home.manifest) if entry.kind == "upgrade"]
    root = snapshot.sealed_path(names.snapshots_dir(DATA, home.instance), str(points[-1]))
    found = sorted(os.path.join(at, name) for at, dummy, listed in os.walk(root) for name in listed if name.startswith("blocks_"))
    return {"file": found[0]}


def flip(asked: Args) -> Args:
    """One bit of a file, with its times as they were."""
    was = os.stat(asked["path"])
    with open(asked["path"], "r+b") as stream:
        stream.seek(asked["at"])
        byte = stream.read(1)[0]
        stream.seek(asked["at"])
        stream.write(bytes([byte ^ 1]))
    os.utime(asked["path"], ns=(was.st_atime_ns, was.st_mtime_ns))
    return {}


def replace(asked: Args) -> Args:
    """Bytes of a file, where they come first, by as many others."""
    with open(asked["path"], "r+b") as stream:
        at = stream.read().index(asked["old"].encode())
        stream.seek(at)
        stream.write(asked["new"].encode())
    return {}


def node(asked: Args) -> Args:
    """The unit's process, and what the machine calls this boot."""
    home = Home(STATE, asked["instance"])
    unit = service.make({"manager": "systemd", "unit": UNIT, "scope": "system"}, home)
    state = unit.state()
    return {"pid": state.pid, "text": state.text, "guarded": unit.guarded(), "boot": procs.boot_id()}


ACTS = {
    act.__name__: act
    for act in (
        turn,
        hold,
        seen_token,
        release,
        gateway,
        record,
        write_down,
        look,
        gateway_look,
        arm,
        fired,
        kill,
        wait_open,
        shell,
        node,
        rollback_point,
        flip,
        replace,
    )
}


def act_on(name: str, asked: Args) -> Args:
    # A host that was rebooted in rehearsal has a boot id of its own, for whoever comes in by ssh, too.
    told = files.read_or_none(os.path.join(HERE, "boot_id"))
    if told:
        os.environ["CHAINOPS_BOOT_ID"] = told.decode("ascii").strip()
    try:
        return {"ok": ACTS[name](asked)}
    except ChainopsError as exc:
        return {"error": exc.as_dict()}
    except Exception:
        return {"broken": traceback.format_exc()}


def serve() -> int:
    def one(line: str) -> None:
        wanted = json.loads(line)
        answer = json.dumps({"id": wanted["id"], **act_on(wanted["act"], wanted["asked"])})
        with alone:
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()

    alone = threading.Lock()
    for line in sys.stdin:
        threading.Thread(target=one, args=(line,), daemon=True).start()
    return 0


def main() -> int:
    if sys.argv[1] == "serve":
        return serve()
    print(json.dumps(act_on(sys.argv[1], json.load(sys.stdin))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
