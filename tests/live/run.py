#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades four real XAI nodes with the collection's own playbooks, unchanged; `make live` calls it.

    XAI_SRC=DIR XAI_PYTHON=PATH [XAI_SRC_NEW=DIR] tests/live/run.py [--keep] [--only STEP...]

XAI_SRC and XAI_SRC_NEW are checkouts of the node (the same one: then the same code under a new release id), XAI_PYTHON a Python
with its dependencies. All that is made is in build/live/; hosts are containers on a network without a way out. Ends with a line
`N passed, N failed`; exit status 0 only if nothing failed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import typing as t

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[1]
WORK = REPO / "build" / "live"
VOTERS = 5
COINS = 1024.0
NODES_DIR = "releases"

# Where XAI writes into its own tree: there the archive has links into the process's working directory, which the unit puts
# outside of the release, and the observer of the rehearsal into its scratch directory.
WRITTEN = {
    "src/xai/core/logs": "logs",
    "src/xai/core/data": "data",
    "src/blockchain_data": "blockchain_data",
    "blockchain_data": "blockchain_data",
}
OWN = {"RELEASE", "run"}
LEFT_OUT = {".git", "__pycache__", ".venv", "venv", "node_modules", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


class Failure(Exception):
    """Something didn't go as it should; the message is for people."""


# --- releases -------------------------------------------------------------------------------------------------------------


def pack(tree: pathlib.Path, name: str, target: pathlib.Path) -> str:
    """What runs of a checkout, its src/ and the files beside it, as a .tar.gz that depends on their content and on `name` alone.

    Returns the archive's SHA-256.
    """
    top = f"xai-{name}"
    with (
        open(target, "wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):

        def add(path: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", mode: int = 0o644, link: str = "") -> None:
            info = tarfile.TarInfo(f"{top}/{path}" if path else top)
            info.type, info.size, info.mode, info.linkname = kind, len(data), mode, link
            tar.addfile(info, io.BytesIO(data))

        add("", tarfile.DIRTYPE, mode=0o755)
        # What makes one release of two when both checkouts are the same code.
        add("RELEASE", data=f"{name}\n".encode())
        # The node's working directory; the unit mounts the real one here.
        add("run", tarfile.DIRTYPE, mode=0o755)
        for parent, directories, files in os.walk(tree):
            relative = pathlib.Path(parent).relative_to(tree)
            skipped = {*WRITTEN, *OWN}
            if str(relative) == ".":
                directories[:] = [d for d in directories if d == "src"]
            directories[:] = sorted(d for d in directories if d not in LEFT_OUT and str(relative / d) not in skipped)
            for directory in list(directories):
                if (pathlib.Path(parent) / directory).is_symlink():
                    directories.remove(directory)
                    files.append(directory)
                else:
                    add(str(relative / directory), tarfile.DIRTYPE, mode=0o755)
            for file in sorted(files):
                path = pathlib.Path(parent) / file
                where = str(relative / file)
                if file.endswith(".pyc") or where in skipped:
                    continue
                if path.is_symlink():
                    add(where, tarfile.SYMTYPE, link=os.readlink(path), mode=0o777)
                elif path.is_file():
                    add(where, data=path.read_bytes(), mode=0o755 if os.access(path, os.X_OK) else 0o644)
        for where, kept in WRITTEN.items():
            add(where, tarfile.SYMTYPE, link=f"/proc/self/cwd/tree/{kept}", mode=0o777)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def release(tree: pathlib.Path, name: str) -> dict[str, t.Any]:
    directory = WORK / NODES_DIR
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"xai-{name}.tar.gz"
    digest = pack(tree, name, archive)
    described = {
        "id": f"{name}-{digest[:12]}",
        "module": "node",
        "artifacts": {platform.machine(): {"src": str(archive), "sha256": digest}},
        "migrations": [],
    }
    write_json(directory / f"xai-{name}.release.json", {"rollout_release": described})
    return {"id": described["id"], "sha256": digest, "archive": str(archive), "source": str(tree)}


def try_start(python: str, archive: str) -> None:
    """Does the node start at all, and does it take transactions that say what they spend? Without a network."""
    scratch = WORK / "try"
    shutil.rmtree(scratch, ignore_errors=True)
    for kept in set(WRITTEN.values()):
        (scratch / "run" / "tree" / kept).mkdir(parents=True)
    subprocess.run(["tar", "-xzf", archive, "-C", str(scratch), "--strip-components=1", "--keep-directory-symlink"], check=True)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(scratch / "src"),
        "HOME": str(scratch / "run"),
        "XAI_NETWORK": "testnet",
        "XAI_DATA_DIR": str(scratch / "run" / "data"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--net", python, *arguments],
            cwd=scratch / "run",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    answer = ask("-m", "xai.core.node", "--help")
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["(it said nothing)"])[-1]
        raise Failure(
            f"{archive}: this node does not start with {python}: {last}. "
            "Either a dependency is missing there, or the checkout is not whole."
        )
    if "--no-mining" not in answer.stdout:
        raise Failure(f"{archive}: this revision of the node has no --no-mining: four nodes that all mine fork. Use a later one.")
    sources = "".join(path.read_text(errors="replace") for path in (scratch / "src").rglob("api_routes/transactions.py"))
    if "inputs=model.inputs" not in sources:
        raise Failure(
            f"{archive}: POST /send of this revision takes no inputs, so it accepts no signed transaction, and nobody could vote."
        )
    shutil.rmtree(scratch)


# --- the network ----------------------------------------------------------------------------------------------------------


def make_network(python: str, releases: dict[str, t.Any], hosts: list[str]) -> dict[str, t.Any]:
    """Keys, genesis and everything the inventory asks for. Private keys only go to files of their own."""
    sys.path[:0] = os.environ["ANSIBLE_COLLECTIONS_PATH"].split(":")
    from ansible_collections.chainops.validator.plugins.module_utils._governance.signing import load_key

    keys = WORK / "keys"
    keys.mkdir(mode=0o700)

    def make_key(name: str) -> dict[str, t.Any]:
        secret = "00" + secrets.token_hex(31)
        key = load_key(secret, name)
        path = keys / f"{name}.json"
        path.touch(mode=0o600)
        write_json(path, {"private_key": secret, "public_key": key.public_key, "address": key.address()})
        return {"address": key.address(), "public_key": key.public_key, "key_file": str(path)}

    validators = {name: make_key(name) for name in hosts}
    voters = [make_key(f"voter{number}") for number in range(1, VOTERS + 1)]
    proposer = make_key("proposer")
    closer = make_key("closer")
    stranger = make_key("stranger")

    start = float(int(time.time()) - 5)
    funded = [account["address"] for account in [*voters, proposer, closer, stranger] for _ in range(3)]
    write_json(
        WORK / "genesis.json",
        {
            "index": 0,
            "timestamp": start,
            "previous_hash": "0" * 64,
            "nonce": 0,
            "difficulty": 4,
            "version": 1,
            "transactions": [
                {
                    "sender": "COINBASE",
                    "recipient": address,
                    "amount": COINS,
                    "fee": 0.0,
                    "timestamp": start,
                    "signature": None,
                    "txid": hashlib.sha256(f"{start} {number} {address}".encode()).hexdigest(),
                }
                for number, address in enumerate(funded)
            ],
        },
    )
    mounts = interpreter_mounts(python)
    network = {
        "python": python,
        "mounts": [{"src": path, "dest": path} for path in mounts],
        "mount_parents": sorted({str(parent) for path in mounts for parent in pathlib.Path(path).parents} - {"/"}),
        "releases": releases,
        "validators": {
            name: {"address": key["address"], "public_key": key["public_key"], "voting_power": 1}
            for name, key in validators.items()
        },
        "validator_keys": {name: key["key_file"] for name, key in validators.items()},
        "genesis": str(WORK / "genesis.json"),
        # Last in turn: while it is down there are no blocks.
        "miner": hosts[-1],
        "voters": voters,
        "proposer": proposer,
        "closer": closer,
        "stranger": stranger,
    }
    write_json(WORK / "network.json", network)
    return network


def interpreter_mounts(python: str) -> list[str]:
    """Directories that hosts must see so that this interpreter runs there. Nothing of /usr: they have their own."""
    answer = subprocess.run(
        [python, "-c", "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix]))"], capture_output=True, text=True
    )
    if answer.returncode:
        raise Failure(f"XAI_PYTHON={python} does not run: {answer.stderr.strip()}")
    found = [prefix for prefix in json.loads(answer.stdout) if not prefix.startswith("/usr")]
    if not found:
        raise Failure(f"XAI_PYTHON={python} is the system's own: put the node's dependencies into a virtual environment")
    return sorted({os.path.realpath(prefix) for prefix in found} | set(found))


# --- clients --------------------------------------------------------------------------------------------------------------


def get(address: str, path: str, timeout: float = 10.0) -> tuple[int, t.Any]:
    connection = http.client.HTTPConnection(address, 8545, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(body)
        return answer.status, body.decode(errors="replace")
    finally:
        connection.close()


class Clients(threading.Thread):
    """Reads through the gateway twice a second and counts what fails. XAI allows a client 120 requests a minute for each path.

    An XAI node answers a request for its latest block with 500 now and then, upgrade or not (its handler races its own miner).
    That is counted apart: what an upgrade breaks shows as a refused connection, an answer cut short, or the gateway's 502 to 504.
    """

    PATHS = ("/block/latest?summary=1", "/stats", "/blocks/1", "/mempool/stats")

    def __init__(self, gateway: str) -> None:
        super().__init__(daemon=True)
        self.gateway = gateway
        self.asked = 0
        self.failed: list[str] = []
        self.own: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.5):
            path = self.PATHS[self.asked % len(self.PATHS)]
            self.asked += 1
            try:
                status, _ = get(self.gateway, path)
                if status != 200:
                    (self.own if status == 500 else self.failed).append(f"{time.strftime('%T')} {path}: HTTP {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{time.strftime('%T')} {path}: {type(error).__name__}: {error}")


# --- playbooks ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    rc: int
    log: pathlib.Path
    recap: dict[str, dict[str, int]]

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def playbook(step: str, name: str, *arguments: str, timeout: int = 600, env: dict[str, str] | None = None) -> Run:
    """Runs a playbook against the live inventory; its output goes to build/live/logs/<step>.log."""
    log = WORK / "logs" / f"{step}.log"
    log.parent.mkdir(exist_ok=True)
    recap = WORK / "logs" / f"{step}.recap.json"
    command = ["ansible-playbook", "-i", str(HERE / "inventory"), name, *arguments]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=REPO, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(env or {})},
        )  # fmt: skip
        try:
            rc = process.wait(timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Failure(f"{name} was not done after {timeout} s; see {log.relative_to(REPO)}") from None
    recap.unlink(missing_ok=True)
    return Run(rc, log, read_recap(log.read_text(encoding="utf-8", errors="replace")))


def read_recap(text: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in text.rpartition("PLAY RECAP")[2].splitlines()[1:]:
        host, colon, numbers = line.partition(":")
        if colon and "ok=" in numbers:
            found[host.strip()] = {key: int(value) for key, value in (pair.split("=") for pair in numbers.split())}
    return found


def must(run: Run, what: str) -> Run:
    if run.rc:
        raise Failure(
            f"{what} (status {run.rc}). The end of {run.log.relative_to(REPO)}:\n" + "\n".join(run.text().splitlines()[-40:])
        )
    return run


# --- the test -------------------------------------------------------------------------------------------------------------


class Live:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.started = time.monotonic()
        self.inventory: dict[str, t.Any] = {}

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:7.1f} s  {text}", flush=True)

    def check(self, what: str, ok: bool, detail: t.Any = "") -> None:
        if ok:
            self.passed += 1
            self.say(f"  ok      {what}")
        else:
            self.failed += 1
            self.say(f"  FAILED  {what}: {detail}")

    # what is there

    def addresses(self) -> dict[str, str]:
        variables = self.inventory["_meta"]["hostvars"]
        return {name: variables[name]["ansible_host"] for name in self.inventory["validators"]["hosts"]}

    def gateway(self) -> str:
        return str(self.inventory["_meta"]["hostvars"][self.inventory["gateways"]["hosts"][0]]["ansible_host"])

    def tips(self) -> dict[str, tuple[int, str]]:
        found = {}
        for name, address in self.addresses().items():
            try:
                status, answer = get(address, "/block/latest?summary=1")
            except OSError:
                continue
            if status == 200:
                found[name] = (int(answer["block_number"]), str(answer["hash"]))
        return found

    def follow(self, blocks: int, timeout: float) -> tuple[bool, str]:
        """Do all nodes get further by `blocks` from where the highest is now, on one chain?"""
        first = self.tips()
        goal = max((height for height, _ in first.values()), default=0) + blocks
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            tips = self.tips()
            if len(tips) == len(self.addresses()) and min(height for height, _ in tips.values()) >= goal:
                hashes = {name: get(address, f"/blocks/{goal}")[1].get("hash") for name, address in self.addresses().items()}
                return len(set(hashes.values())) == 1, f"block {goal}: {hashes}"
            time.sleep(1.5)
        return False, f"wanted height {goal} everywhere within {timeout:.0f} s, and have {self.tips()}"

    def facts(self, step: str) -> dict[str, t.Any]:
        path = WORK / f"facts-{step}.json"
        must(
            playbook(f"facts-{step}", str(HERE / "facts.yml"), "-e", f"live_facts_file={path}", timeout=180),
            "the hosts can't be asked",
        )
        return t.cast("dict[str, t.Any]", json.loads(path.read_text()))

    # what is done

    def run(self, python: str, old: pathlib.Path, new: pathlib.Path) -> None:
        self.say("packing the releases")
        releases = {"old": release(old, "live-1"), "new": release(new, "live-2")}
        for one in releases.values():
            try_start(python, one["archive"])
            self.say(f"  {one['id']} from {one['source']}")
        self.inventory = json.loads(
            subprocess.run(
                [sys.executable, str(HERE / "inventory" / "hosts.py")], check=True, capture_output=True, text=True
            ).stdout
        )
        make_network(python, releases, self.inventory["validators"]["hosts"])
        self.say("four hosts, a gateway, and a node of the first release on each host")
        must(playbook("up", str(HERE / "up.yml"), timeout=1800), "the network does not come up")
        self.check("the network makes blocks, one chain", *self.follow(3, 180))
        self.snapshots()
        before = self.facts("before")
        self.check(
            "every node runs the first release",
            all(releases["old"]["sha256"] in str(host["cwd"]) for host in before.values()),
            {name: host["cwd"] for name, host in before.items()},
        )
        self.govern(releases["new"])
        clients = Clients(self.gateway())
        clients.start()
        try:
            self.upgrade(releases["new"], before)
        finally:
            clients.stopped.set()
            clients.join(15)
        self.check(
            f"clients behind the gateway: {clients.asked} requests, none failed",
            clients.asked > 20 and not clients.failed,
            f"{len(clients.failed)} failed: {clients.failed[:10]}",
        )
        self.check(
            f"the nodes' own errors stay rare: {len(clients.own)}",
            len(clients.own) <= clients.asked / 100,
            clients.own[:10],
        )

    def snapshots(self) -> None:
        self.say("ten snapshots of the node that mines, each restored and booted")
        path = WORK / "snapshots.json"
        run = playbook("snapshots", str(HERE / "snapshots.yml"), "-e", f"live_snapshots_file={path}", timeout=1500)
        must(run, "the snapshots can't be taken")
        rounds = json.loads(path.read_text(encoding="utf-8"))
        accepted = sum(1 for one in rounds if one["ok"])
        self.check(f"{accepted} of 10 snapshots of a running node are accepted by a node", accepted == len(rounds) == 10, rounds)

    def arguments(self, one: dict[str, t.Any]) -> list[str]:
        return ["-e", f"@{WORK / NODES_DIR / 'xai-live-2.release.json'}", "-e", f"rollout_proposal_id=upgrade-{one['id']}"]

    def govern(self, one: dict[str, t.Any]) -> None:
        self.say("the proposal")
        proposer = ["-e", f"govern_key_file={WORK / 'keys' / 'proposer.json'}"]
        run = playbook("propose", "chainops.validator.propose", *self.arguments(one), *proposer, timeout=600)
        must(run, "it can't be proposed")
        # Nothing is ever final on XAI: readers don't see it before it has its confirmations.
        self.check("it gets its confirmations", *self.follow(8, 180))
        run = playbook("too-early", "chainops.validator.upgrade", *self.arguments(one), timeout=600)
        refused = run.rc != 0 and "0 of 5 yes voters" in run.text()
        self.check("an upgrade without votes is refused, with numbers", refused, f"status {run.rc}; see {run.log}")
        self.gate(one, "proposed", missing="0 of 5 yes voters")
        self.say("five votes, five reviews, five approvals of the implementation; the gate after each")
        for kind, stage, missing in (
            ("vote", "approved_voting", "0 of 5 code reviewers"),
            ("review", "code_review_passed", "0 of 2 implementation approvals"),
            ("implementation", "implementation_approved", None),
        ):
            ballot = ["-e", json.dumps({"live_kinds": [kind]})]
            must(playbook(kind, str(HERE / "vote.yml"), *self.arguments(one), *ballot, timeout=900), f"no {kind} gets in")
            self.gate(one, stage, missing)

    def gate(self, one: dict[str, t.Any], stage: str, missing: str | None) -> None:
        """Does the gate see this stage, once it has its confirmations, and is it closed by what is `missing`, or open?"""
        path = WORK / f"gate-{stage}.json"
        readers = [{"name": name, "url": f"http://{address}:8545"} for name, address in self.addresses().items()]
        told = {"live_gate_file": str(path), "live_stage": stage, "live_readers": readers}
        run = playbook(f"gate-{stage}", str(HERE / "gate.yml"), *self.arguments(one), "-e", json.dumps(told), timeout=400)
        must(run, f"the gate does not get to see the stage {stage}")
        verdict = json.loads(path.read_text(encoding="utf-8"))["verdict"]
        closed = missing is not None and not verdict["open"] and any(missing in reason for reason in verdict["reasons"])
        ok = verdict["stage"] == stage and (closed if missing else verdict["open"])
        self.check(f"stage {stage}: the gate is {'closed, ' + missing if missing else 'open'}", ok, verdict)

    def aftermath(self, one: dict[str, t.Any]) -> None:
        """The proposal was executed when the rollout finished; on XAI anybody may mark it as rolled back."""
        self.gate(one, "executed", missing=None)
        must(playbook("roll-back", str(HERE / "roll_back.yml"), *self.arguments(one), timeout=300), "it can't be rolled back")
        self.check("it gets its confirmations", *self.follow(8, 180))
        self.gate(one, "rolled_back", missing="rolled back at height")

    def upgrade(self, one: dict[str, t.Any], before: dict[str, t.Any]) -> None:
        self.say("the upgrade")
        height = max(height for height, _ in self.tips().values())
        must(playbook("upgrade", "chainops.validator.upgrade", *self.arguments(one), timeout=2400), "the upgrade failed")
        self.check("the upgrade playbook ends well", True)
        self.check("the network makes blocks, one chain", *self.follow(3, 180))
        self.check("it went on in the meantime", min((h for h, _ in self.tips().values()), default=0) > height, self.tips())
        after = self.facts("after")
        for name, host in after.items():
            was = before[name]
            self.check(f"{name} runs the new release", one["sha256"] in str(host["cwd"]), host["cwd"])
            self.check(
                f"{name} has its keys and its identity", host["identity"] == was["identity"], (was["identity"], host["identity"])
            )
            self.check(
                f"{name} has its signing state",
                all(host["finality"].get(path) is not None for path in was["finality"])
                and all(host["slashing"].get(table, 0) >= number for table, number in was["slashing"].items()),
                (was["finality"], host["finality"], was["slashing"], host["slashing"]),
            )
            self.check(
                f"{name} never crashed", host["restarts"] == 0 and host["active"] == "active", (host["restarts"], host["active"])
            )
            self.check(
                f"{name} has a manifest that names the release", one["sha256"] in json.dumps(host["manifest"]), host["manifest"]
            )
        run = must(playbook("verify", "chainops.validator.verify", *self.arguments(one), timeout=900), "verify failed")
        self.check("the verify playbook agrees", run.rc == 0)
        run = must(playbook("again", "chainops.validator.upgrade", *self.arguments(one), timeout=900), "the second run failed")
        self.check("a second run changes nothing", not any(host["changed"] for host in run.recap.values()), run.recap)
        self.aftermath(one)


def write_json(path: pathlib.Path, content: t.Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def settings() -> tuple[str, pathlib.Path, pathlib.Path]:
    python = os.environ.get("XAI_PYTHON", "")
    old = pathlib.Path(os.environ.get("XAI_SRC") or "/nonexistent")
    new = pathlib.Path(os.environ.get("XAI_SRC_NEW") or old)
    if not os.access(python, os.X_OK):
        raise Failure(f"XAI_PYTHON={python or '(not set)'}: must be a Python that has the dependencies of the XAI node")
    for name, tree in (("XAI_SRC", old), ("XAI_SRC_NEW", new)):
        if not (tree / "src" / "xai" / "core" / "node.py").is_file():
            raise Failure(
                f"{name}={os.environ.get(name, '(not set)')}: not a checkout of the XAI node (no src/xai/core/node.py in it)"
            )
    if os.geteuid():
        raise Failure("the hosts are containers with systemd and a network of their own: run as root")
    return python, old.resolve(), new.resolve()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the hosts up at the end")
    arguments = parser.parse_args()
    os.environ.setdefault("DEVNET_NAME", "live")
    os.environ.setdefault("DEVNET_SUBNET", "10.89.90.0/24")
    os.environ["DEVNET_VALIDATORS"], os.environ["DEVNET_GATEWAYS"] = "4", "1"
    os.environ["LIVE_DIR"] = str(WORK)
    live = Live()
    try:
        python, old, new = settings()
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        write_json(WORK / "network.json", {"mounts": []})
        must(playbook("down-before", str(HERE / "down.yml"), timeout=180), "what an earlier run left can't be removed")
        try:
            live.run(python, old, new)
        except BaseException:
            live.failed += 1
            raise
        finally:
            if live.failed:
                playbook("journals", str(HERE / "journals.yml"), timeout=180)
            if arguments.keep:
                live.say(f"the hosts stay up: {', '.join(f'{name} {address}' for name, address in live.addresses().items())}")
            else:
                must(playbook("down", str(HERE / "down.yml"), timeout=180), "the hosts can't be removed")
    except Failure as error:
        live.failed = live.failed or 1
        print(f"live: {error}", file=sys.stderr)
    print(f"\n{live.passed} passed, {live.failed} failed")
    return 1 if live.failed else 0


if __name__ == "__main__":
    sys.exit(main())
