# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of a turn do on a host.

Decisions are elsewhere: ``turn`` says which step comes next, ``probe`` says whether a node follows its chain.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import errno
import os
import shutil
import typing as t
import urllib.parse

from .._chain import handover
from .._chain.protocol import ChainAdapter, NodeClient
from .._chain.registry import adapter as chain_adapter
from .._core import canonical, files
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, HttpError, IntegrityError, Refused, Unreachable, WaitTimeout
from .._governance import hostgate
from .._governance.proof import check_on_host
from .._state import migration, rehearse, retention, watermark
from .._state import restore as state_restore
from .._state import snapshot as state_snapshot
from .._state import verify as state_verify
from .._state.fault import StorageFault
from . import clients, fence, forecast, past, probe, procs, release, turn
from . import service as services
from .engine import Context
from .paths import Home

T = t.TypeVar("T")
MIB = 1 << 20
#: Inodes that stay free beside those of the copies.
INODES = 1000
#: A peer's answer may take this long (seconds) while a node is watched; a dead one must not hold the watch.
PEER_TIMEOUT = 2.0
#: A chain's own rate limits bear about two looks a second; before the first answer nobody counts.
FAST, SLOW = 0.05, 0.5
#: Seconds between two starts of an old release that dies.
AGAIN = 5.0
#: A watch says how far it is every so many seconds, and not more than so often: the journal's space is for undoing.
REPORT, REPORTS = 5.0, 30
#: Seconds that other nodes may take to hear of what this one has accepted.
HANDOVER = 30.0
#: Seconds that connections of a gateway may take to end, once it has called the host empty: a health check, a last answer.
CLIENTS = 10.0
#: Seconds for which a drain receipt stands where nobody on the gateway watches the drain, and by which clocks may differ.
RECEIPT_AGE, SKEW = 120.0, 10.0
#: Bytes set aside for what an undo writes besides the journal: a watermark, a guard, a result, each of a few kilobytes.
RESERVE = 1 << 20
#: The hot copy is brought up to date until sealing is predicted to take no longer than this (seconds), or it doesn't get better.
FREEZE_GOAL = 0.3


class HostEffects:
    """The real effects. ``plan`` is a checked plan; everything else is read from its body."""

    def __init__(self, plan: turn.Plan, home: Home, *, clock: Clock = CLOCK, gate_dir: str = hostgate.DIRECTORY) -> None:
        body = plan.body
        self.plan = plan
        self.body = body
        self.home = home
        self.clock = clock
        self.gate_dir = gate_dir  # never from the plan: whoever asks must not say where the host's own policy stands
        self.adapter: ChainAdapter = chain_adapter(str(body["chain"]))
        self.service = services.make(body["service"], home)
        self.roots = tuple(state_snapshot.Root(str(r["name"]), str(r["path"])) for r in body["roots"])
        self.data_dir = str(body["data_dir"])
        self.old: t.Mapping[str, t.Any] = body["old"]
        self.new: t.Mapping[str, t.Any] = body["new"]
        self.link = str(body["release_link"])
        self.address: str | None = body.get("expected_address") or None
        self.spec = state_snapshot.SnapshotSpec.for_adapter(home.instance, str(body["snapshot_id"]), self.roots, self.adapter)
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        # An engine that died in between just takes longer.
        self._hot: state_snapshot.Memory[t.Any] = state_snapshot.Memory()

    # -- the machine's side ---------------------------------------------------------------------------------------------

    def session(self) -> None:
        self.service.revoke()
        # A swap that a power cut interrupted is brought to its end before anybody looks at the data.
        if self.service.state().pid is None:
            self._somehow(lambda: state_restore.finish(self.data_dir, self.home.instance))

    def do(self, step: str, context: Context) -> dict[str, t.Any]:
        effect: t.Callable[[Context], dict[str, t.Any]] = getattr(self, f"_do_{step}")
        if self.plan.step(step).kind in turn.PAST_DEADLINE:
            return self._somehow(lambda: effect(context))
        return effect(context)

    def undo(self, undo: str, context: Context) -> dict[str, t.Any]:
        effect: t.Callable[[Context], dict[str, t.Any]] = getattr(self, f"_undo_{undo}")
        return self._somehow(lambda: effect(context))

    def _somehow(self, effect: t.Callable[[], T]) -> T:
        """What can't be turned back any more, or is the way back: on a full disk, it takes what was set aside for it."""
        try:
            return effect()
        except (OSError, StorageFault) as exc:
            code = errno.errorcode.get(exc.errno or 0) if isinstance(exc, OSError) else exc.fields.get("errno")
            if code not in ("ENOSPC", "EDQUOT"):
                raise
            try:
                os.unlink(self.home.reserve)
            except FileNotFoundError:
                raise exc from None
        return effect()

    def rest(self, result: dict[str, t.Any]) -> None:
        with contextlib.suppress(OSError):
            self._somehow(lambda: files.write_atomic(self.home.turn(self.plan.turn_id).result, canonical.pretty(result)))

    def close(self, result: dict[str, t.Any]) -> None:
        """The result is evidence, the journal is the truth: a full disk must not keep the journal open."""
        self.rest(result)
        if self.service.guarded():
            self.service.unguard()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.home.open)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.home.reserve)
        with contextlib.suppress(FileNotFoundError):
            files.fsync_dir(self.home.journals)
        # What this rollout put aside stays until it is finished. What another one left is deleted; it may take long.
        if result["outcome"] != turn.FAILED:
            with contextlib.suppress(ChainopsError, OSError):
                state_restore.reap(past.due(self.home, str(self.body["rollout_id"])))

    # -- looking --------------------------------------------------------------------------------------------------------

    def _client(self, url: str | None = None, timeout: float = 10.0) -> NodeClient:
        return self.adapter.client(url or str(self.body["api_url"]), timeout=timeout)

    def _peers(self) -> list[str]:
        return [str(url) for url in self.body["peers"]]

    def _running(self, pid: int) -> release.Running:
        others = [str(side["path"]) for side in (self.old, self.new)]
        return release.running(pid, self.link, self.home.releases, others)

    def _network_height(self) -> int | None:
        """What at least half of the answering peers have reached; None when none answers (or there are none)."""

        def height(url: str) -> dict[str, t.Any] | None:
            client = self._client(url, PEER_TIMEOUT)
            try:
                return {"height": client.status().height}
            except ChainopsError:
                return None
            finally:
                client.close()

        urls = self._peers()
        if not urls:
            return None
        pool = self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(max_workers=len(urls))
        return probe.network_height(dict(zip(urls, pool.map(height, urls))))

    def _mark(self) -> watermark.Watermark | None:
        """The highest thing the key is known to have signed, on disk or remembered; remembered from now on."""
        live = self.adapter.read_watermark(self.data_dir)
        mark = watermark.combine(live, watermark.recorded(self.home.root, self.address), address=self.address or "")
        return None if mark is None else watermark.record(self.home.root, mark)

    def _alone(self, patience: float = 0.0) -> None:
        """Raises Refused while a process uses the data directory: two nodes on one key would sign twice.

        ``patience``: seconds that a process which the node left behind gets to go, too.
        """
        until = self.clock.monotonic() + patience
        while (holder := self.adapter.lock_holder(self.data_dir)) is not None:
            if self.clock.monotonic() >= until:
                raise Refused(f"{self.data_dir} is in use by pid {holder}; nothing may touch it or be started on it", pid=holder)
            self.clock.sleep(FAST)

    # -- forward --------------------------------------------------------------------------------------------------------

    def _do_check(self, context: Context) -> dict[str, t.Any]:
        fence.require(self.home.fence, int(self.body["fence_token"]))
        problems = self.service.problems()
        facts: dict[str, t.Any] = {}
        for look in self._looks():
            try:
                facts.update(look(context, problems))
            except (ChainopsError, OSError) as exc:
                problems.append(exc.message if isinstance(exc, ChainopsError) else str(exc))
        if problems:
            raise Refused("; ".join(problems), problems=problems)
        mark = self._mark()
        return {**facts, "watermark": watermark.as_dict(mark) if mark else None}

    def _looks(self) -> list[t.Callable[[Context, list[str]], dict[str, t.Any]]]:
        return [
            self._check_releases,
            self._check_node,
            self._check_proof,
            self._check_drain,
            self._check_space,
            self._check_data,
        ]

    def preconditions(self, context: Context) -> list[str]:
        """What would keep the turn from beginning now, found as the turn finds it. For check mode: nobody has drained yet."""
        problems = self.service.problems()
        for look in self._looks():
            if look != self._check_drain:
                try:
                    look(context, problems)
                except (ChainopsError, OSError) as exc:
                    problems.append(exc.message if isinstance(exc, ChainopsError) else str(exc))
        problem = forecast.over(self.predict())
        return [*problems, problem] if problem else problems

    def _check_releases(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        if self.new["sha256"] is not None:
            release.require_complete(str(self.new["path"]), str(self.new["sha256"]))
        elif not os.path.isdir(str(self.new["path"])):
            # Where the host came from may be older than content-addressed releases.
            problems.append(f"the release to go back to is gone: {self.new['path']}")
        leads = release.target(self.link)
        if leads != os.path.realpath(str(self.old["path"])):
            problems.append(f"{self.link} leads to {leads}, not to {self.old['path']} as when this turn was planned")
        return {}

    def _check_node(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        state = self.service.state()
        if state.pid is None:
            problems.append(f"{self.service.name} is not running ({state.text}); a turn starts from a running node")
            return {}
        running = self._running(state.pid)
        if running.path is not None and running.path != os.path.realpath(str(self.old["path"])):
            problems.append(f"the process runs {running.path}, not {self.old['path']}")
        client = self._client()
        try:
            status = client.status()
            if self.address and status.address and status.address.lower() != self.address.lower():
                problems.append(f"the node signs as {status.address}, not as {self.address}")
        finally:
            client.close()
        return {
            "pid": state.pid,
            "running": running.as_dict(),
            "height": status.height,
            "tip_hash": status.tip_hash,
            "chain_id": status.chain_id,
            "genesis_hash": status.genesis_hash,
            "version": status.version,
            "address": status.address,
            "equivocations": self._known_equivocations(),
            "signs": self._is_validator(),
        }

    def _is_validator(self) -> bool:
        client = self._client()
        try:
            return any(self.address and v.address.lower() == self.address.lower() for v in client.validators())
        except ChainopsError:
            return False
        finally:
            client.close()

    def _known_equivocations(self) -> int | None:
        """The most that this node or any peer knows of."""
        known: list[int] = []
        for url in (None, *self._peers()):
            client = self._client(url, PEER_TIMEOUT)
            try:
                count = self._equivocations(client)
            finally:
                client.close()
            if count is not None:
                known.append(count)
        return max(known, default=None)

    def _equivocations(self, client: NodeClient) -> int | None:
        """Equivocations this node knows of the expected key; None where it isn't told."""
        if not self.address:
            return None
        try:
            found = client.equivocations()
        except ChainopsError:
            return None
        # Some nodes only count, and name nobody: then it may be ours.
        ours = (item for item in found if str(item.get("address") or self.address).lower() == self.address.lower())
        return sum(int(item.get("count", 1)) for item in ours)

    def _check_proof(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        """Forward needs a proof that is valid now; putting back needs only that the host was changed under one."""
        if self.plan.direction == "back":
            return {"proof_sha256": self.body.get("proof_sha256")}
        local = hostgate.load(self.home.instance, self.gate_dir)
        proof = dict(self.body["proof"])
        client = self._client()
        try:
            found = check_on_host(proof, str(self.new["sha256"]), os.uname().machine, client, local=local)
        finally:
            client.close()
        problems.extend(f"governance proof: {item}" for item in found)
        facts: dict[str, t.Any] = {"proof_sha256": canonical.digest(proof)}
        if "break_glass" in proof:
            facts["break_glass"] = {name: proof["break_glass"].get(name) for name in ("reason", "expires_height")}
        return facts

    def _check_drain(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        receipts = self.body["drain_receipts"]
        if self.body["require_drain"] and not receipts:
            problems.append("no drain receipt: drain the host first, or say require_drain=false where no gateway leads to it")
        for receipt in receipts:
            problems.extend(drain_problems(receipt, self.home.instance, self.plan.turn_id, int(self.body["fence_token"])))
            problems.extend(stale(receipt, self.clock.wall()))
        facts = {"drained": len(receipts), **self._check_clients(context, problems)}
        return {**facts, **self._check_handover(context, problems)} if receipts else facts

    def _check_clients(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        """This host's own sockets must agree with its gateways' receipts, or it is said that they can't."""
        port = urllib.parse.urlsplit(str(self.body["api_url"])).port or 80
        # A plan that an older version wrote doesn't say; its receipts name no addresses either.
        receipts = self.body["drain_receipts"] if self.body.get("own_sockets", True) else []
        until = self.clock.monotonic() + min(context.left(), CLIENTS)
        gateways: dict[str, str] = {}
        while True:
            listed = self.body.get("client_addresses") or ()
            rest = procs.at_rest(port) if receipts else ()
            found = clients.look(procs.connections(), port, receipts, listed, held_by=procs.sockets_of, at_rest=rest)
            gateways = {name: clients.SEEN if gateways.get(name) == clients.SEEN else now for name, now in found.gateways.items()}
            if not found.busy or self.clock.monotonic() >= until:
                break
            self.clock.sleep(FAST)
        if found.busy:
            problems.append(f"clients are still connected to port {port} from {', '.join(found.busy)}")
        facts: dict[str, t.Any] = {"connections": found.total, "idle_connections": found.idle, "gateways": gateways}
        unconfirmed = clients.words(gateways, receipts)
        return {**facts, "unconfirmed": unconfirmed} if unconfirmed else facts

    def _check_handover(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        """What this node has accepted must be in a block or with another node: stopped with it, it could be spent twice."""
        client, peers = self._client(), [self._client(url, PEER_TIMEOUT) for url in self._peers()]
        if not peers:
            return {}
        until = self.clock.monotonic() + min(context.left(), HANDOVER)
        try:
            while left := handover.stranded(client, peers):
                if self.clock.monotonic() >= until:
                    named = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
                    problems.append(f"{len(left)} accepted transactions are in no block and with no other node: {named}")
                    break
                self.clock.sleep(SLOW)
        finally:
            for one in (client, *peers):
                one.close()
        return {"stranded": None if left is None else len(left)}

    def _check_space(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        """A migration's copy and a restore's tree may each be as large as the data; journals and results are small."""
        size, count = tree_size(self.data_dir)
        needed = 2 * size + 64 * MIB
        beside = os.path.dirname(os.path.abspath(self.data_dir))
        free, inodes = shutil.disk_usage(beside).free, free_inodes(beside)
        if free < needed:
            problems.append(f"{free // MIB} MiB free beside {self.data_dir}, {needed // MIB} MiB are needed{self._put_aside()}")
        # A copy that takes the last one would end the node, which writes its state as new files.
        if inodes is not None and inodes < 2 * count + INODES:
            problems.append(f"{inodes} inodes free beside {self.data_dir}, {2 * count + INODES} are needed{self._put_aside()}")
        own = shutil.disk_usage(self.home.root).free
        if own < 64 * MIB:
            problems.append(f"{own // MIB} MiB free under {self.home.root}, 64 MiB are needed")
        return {"data_bytes": size, "free_bytes": free}

    def _put_aside(self) -> str:
        """What takes space and may be had back, for a message; empty when there is nothing."""
        trees = past.put_aside(self.home)
        if not trees:
            return ""
        size = sum(tree_size(path)[0] for path in trees)
        rollouts = ", ".join(sorted(set(trees.values())))
        return (
            f"; {len(trees)} old trees of rollout {rollouts} hold {size // MIB} MiB: they go when it is finished (close), "
            "or with state_restore state=reaped"
        )

    def _check_data(self, context: Context, problems: list[str]) -> dict[str, t.Any]:
        pending = state_restore.pending(self.data_dir, self.home.instance)
        if pending is not None:
            problems.append(f"an interrupted restore of {pending} has to be finished first")
        try:
            self.adapter.mend(self.data_dir, dry=True)
        except IntegrityError as exc:
            problems.append(f"the node could not be started again: {exc.message}")
        level = migration.level(self.data_dir, self.adapter)
        if self.plan.direction == "back":
            verdict = state_verify.verify(self._target_snapshot(), deep=False, expect_root=self.body["back_to"]["sha256"])
            problems.extend(f"rollback point: {item}" for item in verdict.problems)
            return {"level": level}
        steps = migration.parse(self.body["migrations"])
        wanted, ends = self.new.get("level"), level
        for step in steps:
            if ends == step.from_level:
                ends = step.to_level
        if wanted is not None and ends is not None and ends != wanted:
            problems.append(f"the data are at level {level} and the migrations lead to {ends}; the release needs level {wanted}")
        return {"level": level}

    def _do_prepare(self, context: Context) -> dict[str, t.Any]:
        files.set_aside(self.home.reserve, RESERVE)
        hot = state_snapshot.hot_copy(self.spec, budget=FREEZE_GOAL, memory=self._hot)
        # What was tested before the drain is not tested again; with the node still running, nothing is lost by what is left.
        tested = rehearse.hot_test(self.spec)
        prediction = self.predict(hot.predicted_freeze_seconds)
        context.note(predicted_stop_window=prediction)
        problem = forecast.over(prediction)
        if problem:
            raise Refused(f"{problem}; the node was not stopped", predicted=prediction)
        return {
            "snapshot_id": self.spec.snapshot_id,
            "bytes": hot.bytes,
            "predicted_freeze_seconds": hot.predicted_freeze_seconds,
            "predicted_stop_window": prediction,
            "tested": tested.as_dict(),
        }

    def predict(self, freeze: float | None = None) -> dict[str, t.Any]:
        """The stop window of this turn as it can be told now."""
        return forecast.predict(
            past.results(self.home, 2 * forecast.TURNS, without=self.plan.turn_id),
            freeze=freeze,
            direction=self.plan.direction,
            migrations=[str(item["id"]) for item in self.body["migrations"]],
            # A plan that an older version wrote knows no budget.
            budget=float(self.body["policy"].get("stop_window_budget") or 0.0),
        )

    def _do_guard(self, context: Context) -> dict[str, t.Any]:
        self.service.guard()
        return {}

    def _do_stop(self, context: Context) -> dict[str, t.Any]:
        known = turn.notes(context.records, "stop")
        if not known:
            check = turn.facts(context.records, "check")
            network = self._network_height()
            client = self._client(timeout=PEER_TIMEOUT)
            try:
                status = client.status()
                height, tip = status.height, status.tip_hash
            except ChainopsError:
                height, tip = int(check["height"]), str(check["tip_hash"])
            finally:
                client.close()
            # The window opens with this record; nothing slow may come between it and the signal.
            known = {"height": height, "tip_hash": tip, "network_height": network}
            context.note(**known)
        layout = self.adapter.layout
        stopped = services.stop(
            self.service, layout.stop_signal, context.left(), kill=bool(self.body["policy"]["kill"]), clock=self.clock
        )
        self._alone(context.left())
        return {**known, **stopped}

    def _do_freeze(self, context: Context) -> dict[str, t.Any]:
        check, stop = turn.facts(context.records, "check"), turn.facts(context.records, "stop")
        # A rollback point is whole: what the stop tore is mended before it is sealed, not after it was restored.
        mended = self.adapter.mend(self.data_dir)
        start = self.clock.monotonic()
        mark = self._mark()
        # None of these may differ when the step is taken again.
        facts = {
            "chain_id": check.get("chain_id"),
            "genesis_hash": check.get("genesis_hash"),
            "height": stop.get("height"),
            "tip_hash": stop.get("tip_hash"),
            "level": check.get("level"),
            "release": {"id": self.old.get("id"), "sha256": self.old.get("sha256"), "path": self.old["path"]},
            "why": f"rollback point of turn {self.plan.turn_id} of rollout {self.body.get('rollout_id')}",
            "turn_id": self.plan.turn_id,
            "rollout_id": self.body.get("rollout_id"),
            "proposal_id": self.body["proof"].get("proposal_id"),
            "proof_sha256": check.get("proof_sha256"),
            "clean": bool(stop.get("clean")),
            "watermark": watermark.as_dict(mark) if mark else None,
        }
        sealed = state_snapshot.freeze(self.spec, facts, memory=self._hot)
        retention.hold(sealed.path, f"turn-{self.plan.turn_id}", "rollback point of this turn")
        return {
            "snapshot_id": sealed.snapshot_id,
            "path": sealed.path,
            "root_sha256": sealed.root_sha256,
            "bytes": sealed.bytes,
            "clean": facts["clean"],
            "watermark": facts["watermark"],
            "mended": mended,
            "seconds": round(self.clock.monotonic() - start, 3),
        }

    def _do_migrate(self, context: Context) -> dict[str, t.Any]:
        steps = migration.parse(self.body["migrations"])
        if not steps:
            return {"steps": []}
        in_place = self.body["policy"]["migrate"] == "in_place"
        if in_place and context.in_doubt:
            raise Refused("the engine died while it migrated in place; the data are restored, not migrated a second time")
        if context.in_doubt and any(step.from_level is None for step in steps):
            raise Refused("the engine died while it migrated, and no level says how far it came; the data are restored")
        done = migration.run(
            steps,
            self.data_dir,
            str(self.new["path"]),
            "forward",
            context.left(),
            adapter=self.adapter,
            in_place=in_place,
            instance=self.home.instance,
        )
        return {**done.as_dict(), "in_place": in_place}

    def _do_restore(self, context: Context) -> dict[str, t.Any]:
        self._alone()
        return self._restore(self._target_snapshot(), self.body["back_to"]["sha256"])

    def _target_snapshot(self) -> str:
        return state_snapshot.sealed_path(self.spec.snapshots_dir, str(self.body["back_to"]["snapshot_id"]))

    def _restore(self, path: str, root_sha256: str | None) -> dict[str, t.Any]:
        done = state_restore.restore(path, self.roots, self.adapter, {"root_sha256": root_sha256}, self._safe_mark())
        self.service.reload()
        return done.as_dict()

    def _safe_mark(self) -> watermark.Watermark | None:
        """What the key must not go below.

        Where its file can't be read any more, it is taken to have signed everything the network may have.
        """
        try:
            return self._mark()
        except IntegrityError:
            network = self._network_height()
            known = watermark.recorded(self.home.root, self.address)
            if network is None:
                raise
            guess = watermark.Watermark(height=network + 1, round=0, step=3, address=self.address or "")
            mark = watermark.combine(known, guess, address=self.address or "")
            return None if mark is None else watermark.record(self.home.root, mark)

    def _do_switch(self, context: Context) -> dict[str, t.Any]:
        release.switch(self.link, str(self.new["path"]))
        return {"link": self.link, "to": self.new["path"]}

    def _do_start(self, context: Context) -> dict[str, t.Any]:
        sealed = turn.facts(context.records, "freeze")
        begun = sum(
            1 for r in context.records if (r.get("kind"), r.get("step"), r.get("way")) == ("begin", "start", turn.FORWARD)
        )
        if "mended" in sealed and not self.plan.changes_data and begun == 1:
            # Nobody has written to the data since they were mended: reading all blocks again would only take time.
            return {**self._start(context.left(), mend=False), "mended": sealed["mended"]}
        return self._start(context.left())

    def _start(self, patience: float, *, mend: bool = True) -> dict[str, t.Any]:
        """Start the node, unless it runs, with what it forgets while it is down made anew."""
        pid, mended = self.service.state().pid, None
        if pid is None:
            self._alone(patience / 2)
            mended = self.adapter.mend(self.data_dir) if mend else None
            pid = self.service.start(patience)
        return {"pid": pid, "ticks": procs.start_ticks(pid), "mended": mended}

    def _do_probe(self, context: Context) -> dict[str, t.Any]:
        return self._follow(context, turn.facts(context.records, "start"))

    def _follow(self, context: Context, started: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Wait until the new release follows the chain as the plan wants it."""
        check, stop = turn.facts(context.records, "check"), turn.facts(context.records, "stop")
        options = self.body["probe"]
        watch = Watch(self, context, stop, str(self.new["path"]), int(options["height_advance"]), started)
        wanted = watch.wanted(
            version=self.new.get("version"),
            max_lag=int(options["max_lag"]),
            min_peers=self._min_peers(),
            must_sign=bool(options["signs"]) and bool(check.get("signs")),
            equivocations=check.get("equivocations"),
        )
        found = watch.until_followed(wanted)
        mark = self._mark()
        return {**found, "watermark": watermark.as_dict(mark) if mark else None}

    def _min_peers(self) -> int:
        listed, wanted = len(self._peers()), self.body["probe"].get("min_peers")
        return int(wanted) if wanted is not None else listed // 2 + 1 if listed else 0

    def _do_confirm(self, context: Context) -> dict[str, t.Any]:
        """Wait for somebody's word. Silence is decided by policy, so that the host never hangs on a controller that is gone.

        Whatever was said, only a release that follows the chain now is committed.
        """
        policy, started = self.body["confirm"], turn.facts(context.records, "start")
        if context.in_doubt and self.service.state().pid is None:
            # The host was rebooted, and its guard kept the node down.
            started = self._start(context.left() / 2)
        patience = max(0.0, float(policy["deadline"]) - context.spent)
        context.note(seconds_left=round(patience, 1), on_silence=policy["on_silence"])
        word = self._word(patience)
        if word not in (None, "commit"):
            raise Refused(f"somebody asked for the host to be put back: {word}")
        why = None
        if word is None:
            why = f"nobody confirmed within {float(policy['deadline']):g} s, and silence means "
            if policy["on_silence"] == "put_back":
                raise WaitTimeout(f"{why}putting back")
            why += "committing what follows the chain"
        return {"confirmed": word is not None, "why": why, **self._follow(context, started)}

    def _word(self, patience: float) -> str | None:
        """What somebody said, or None. Raises Refused when the node dies meanwhile: its manager may not start it again."""
        path = self.home.turn(self.plan.turn_id).confirm
        until = self.clock.monotonic() + patience
        while True:
            word = (files.read_or_none(path) or b"").strip()
            if word:
                return word.decode("utf-8", "replace")[:200]
            if self.service.state().pid is None:
                log = self.service.last_words()
                said = f"; the last it said: {log[-1]}" if log else ""
                raise Refused(f"the process went while somebody's word was waited for{said}", log=log)
            left = until - self.clock.monotonic()
            if left <= 0:
                return None
            self.clock.sleep(min(SLOW, left))

    def _do_commit(self, context: Context) -> dict[str, t.Any]:
        return self._let_go(context)

    def _let_go(self, context: Context) -> dict[str, t.Any]:
        """Take the guard away. A node that it kept down (the host rebooted after the last step) is started first."""
        self._up(context)
        self.service.unguard()
        # It may have died while the guard still kept its manager from bringing it back.
        return {"runs": self._up(context)}

    def _up(self, context: Context) -> bool:
        if self.service.state().pid is None:
            with contextlib.suppress(ChainopsError):
                self._start(context.left() / 2)
                return True
            return False
        return True

    # -- back -----------------------------------------------------------------------------------------------------------

    def _undo_stop_new(self, context: Context) -> dict[str, t.Any]:
        """What the new release wrote is thrown away, so it may be killed when it doesn't stop; that is said."""
        # A permit that the start could not take back would let anybody start what is half undone.
        self.service.revoke()
        half = max(1.0, context.left() / 2)
        stopped = services.stop(self.service, self.adapter.layout.stop_signal, half, kill=True, clock=self.clock)
        self._alone(context.left() / 2)
        mark = self._safe_mark()
        return {**stopped, "watermark": watermark.as_dict(mark) if mark else None}

    def _undo_switch_back(self, context: Context) -> dict[str, t.Any]:
        release.switch(self.link, str(self.old["path"]))
        return {"link": self.link, "to": self.old["path"]}

    def _undo_restore_own(self, context: Context) -> dict[str, t.Any]:
        self._alone()
        sealed = turn.facts(context.records, "freeze")
        return self._restore(str(sealed["path"]), str(sealed["root_sha256"]))

    def _undo_start_old(self, context: Context) -> dict[str, t.Any]:
        """The old release runs again. When it runs but doesn't follow the chain, that is a fact and not an error: it is whole."""
        check, stop = turn.facts(context.records, "check"), turn.notes(context.records, "stop")
        was = check.get("pid")
        try:
            started = self._start(context.left())
        except IntegrityError as exc:
            # It was whole when it was stopped, and is better than nothing: it is started, and the error is told.
            pid = self.service.start(context.left())
            started = {"pid": pid, "ticks": procs.start_ticks(pid), "mended": {"error": exc.message}}
        pid = started["pid"]
        watch = Watch(self, context, stop or check, str(self.old["path"]), 1, started if pid != was else {})
        wanted = watch.wanted(version=None, max_lag=10**9, min_peers=min(1, self._min_peers()))
        # One that was asked to stop and was too slow may still go; as long as the guard is there, nobody else would see.
        settle = self.plan.step("stop").deadline if pid == was and stop else 0.0
        found: dict[str, t.Any]
        try:
            found = {**watch.until_followed(wanted, restarts=True, settle=settle), "follows": True}
        except WaitTimeout as exc:
            found = {"follows": False, "why": str(exc.fields.get("last") or exc.message)}
        mark = self._mark()
        return {
            **found,
            "mended": started["mended"],
            "never_stopped": pid == was,
            "watermark": watermark.as_dict(mark) if mark else None,
        }

    def _undo_unguard(self, context: Context) -> dict[str, t.Any]:
        return self._let_go(context)


class Watch:
    """Looks at the node and its peers until the verdict is in."""

    def __init__(
        self,
        host: HostEffects,
        context: Context,
        stop: t.Mapping[str, t.Any],
        path: str,
        advance: int,
        started: t.Mapping[str, t.Any],
    ) -> None:
        """``started``: pid and start ticks of the process that the engine itself started through the link."""
        self.started = started
        self.host = host
        self.context = context
        self.path = os.path.realpath(path)
        self.advance = advance
        self.own_at_stop = int(stop["height"])
        self.floor = max(self.own_at_stop, int(stop.get("network_height") or 0))
        # Between its last answer and its end the old release may have signed more than it was asked for.
        sealed = turn.facts(context.records, "freeze").get("watermark") or {}
        self.signed_before = max(self.floor + 1, int(sealed.get("height") or 0))
        self.clock = host.clock
        self.client = host._client(timeout=PEER_TIMEOUT)
        self.peers = {url: host._client(url, PEER_TIMEOUT) for url in host._peers()}
        self.seen: dict[str, dict[str, t.Any] | None] = dict.fromkeys(self.peers)
        self.asked: dict[str, concurrent.futures.Future[dict[str, t.Any] | None]] = {}
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(self.peers)))
        self.hashes: dict[int, str] = {}
        self.signed: bool | None = None
        self.signed_upto: int | None = None
        self.equivocations: int | None = None

    def wanted(
        self, *, version: str | None, max_lag: int, min_peers: int, must_sign: bool = False, equivocations: int | None = None
    ) -> probe.Wanted:
        return probe.Wanted(
            release=self.path,
            version=version,
            address=self.host.address,
            floor=self.floor,
            advance=self.advance,
            max_lag=max_lag,
            min_peers=min_peers,
            equivocations=equivocations,
            must_sign=must_sign,
        )

    def until_followed(self, wanted: probe.Wanted, *, restarts: bool = False, settle: float = 0.0) -> dict[str, t.Any]:
        """Facts when the node follows. Raises Refused when it can't any more, WaitTimeout (with ``last``) when time is up.

        With ``restarts`` a node that died is started again: its unit, which may do so otherwise, is guarded. ``settle``: seconds
        to look on in any case, unless the node dies and is started again meanwhile.
        """
        start = again = self.clock.monotonic()
        settled = start + settle
        answered = advancing = heard = False
        last: probe.Verdict | None = None
        looks = 0
        every = max(REPORT, self.context.left() / REPORTS)
        report = start + every
        try:
            while True:
                sample = self._look()
                if sample.status is not None and not answered:
                    answered = True
                    # The old release may have gone on after it was asked for its height, and the new one has that from it.
                    wanted = _raised(wanted, sample.status["height"])
                    self.context.note(answered=True, height=sample.status["height"])
                if sample.status is not None and not advancing and sample.status["height"] > self.own_at_stop:
                    advancing = True
                    self.context.note(advancing=True, height=sample.status["height"])
                network = probe.network_height(sample.peers)
                if network is not None and not heard:
                    heard = True
                    # What the network made while the node was away is caught up, not followed.
                    wanted = _raised(wanted, network)
                verdict = last = probe.judge(wanted, sample)
                if self.clock.monotonic() >= report:
                    report += every
                    self._report(sample, verdict)
                looked_on = self.clock.monotonic() >= settled or self.context.left(0.0) <= 0.0
                if verdict.ok and sample.status is not None and looked_on:
                    return {
                        "height": sample.status["height"],
                        "network_height": network,
                        "version": sample.status.get("version"),
                        "address": sample.status.get("address"),
                        "release": sample.release,
                        "signed": sample.signed,
                        "peers": dict(sample.peers),
                        "followed_after": round(self.clock.monotonic() - start, 3),
                    }
                if verdict.fatal and not restarts:
                    log = [] if sample.alive else self.host.service.last_words()
                    words = "; ".join(verdict.fatal) + (f"; the last it said: {log[-1]}" if log else "")
                    raise Refused(words, problems=list(verdict.fatal), log=log)
                if not sample.alive and self.clock.monotonic() >= again:
                    again = settled = self.clock.monotonic() + AGAIN
                    with contextlib.suppress(ChainopsError):
                        self.started = self.host._start(self.context.left())
                if self.context.left(0.0) <= 0.0:
                    words = "; ".join(last.reasons)
                    waited = round(self.clock.monotonic() - start, 1)
                    raise WaitTimeout(f"after {waited:g} s: {words}", last=words, waited=waited)
                looks += answered
                self.clock.sleep(FAST if looks < 40 else SLOW)
        finally:
            self.pool.shutdown(wait=False)
            self.client.close()

    def _report(self, sample: probe.Sample, verdict: probe.Verdict) -> None:
        """How far it is, for whoever looks while it runs."""
        self.context.note(
            progress={
                "height": sample.status["height"] if sample.status else None,
                "network_height": probe.network_height(sample.peers),
                "waits_for": [reason[:200] for reason in verdict.reasons[:5]],
                "seconds_left": round(self.context.left(0.0), 1),
            }
        )

    def _look(self) -> probe.Sample:
        pid = self.host.service.state().pid
        if pid is None:
            return probe.Sample(alive=False)
        running = self.host._running(pid)
        if running.path is None and (self.started.get("pid"), self.started.get("ticks")) == (pid, procs.start_ticks(pid)):
            # The engine started this very process after it had switched the link.
            running = dataclasses.replace(running, path=os.path.realpath(self.host.link))
        try:
            status = self.client.status()
        except (HttpError, Unreachable, IntegrityError):
            return probe.Sample(alive=True, release=running.path)
        self._ask_peers(status.height)
        self._signatures(status.height)
        self._count_equivocations(self.client)
        return probe.Sample(
            alive=True,
            release=running.path,
            status=status.as_dict(),
            peers=dict(self.seen),
            equivocations=self.equivocations,
            signed=self.signed,
        )

    def _ask_peers(self, own: int) -> None:
        """Collect what peers have answered, and ask those again that have nothing under way."""
        for url, client in self.peers.items():
            future = self.asked.get(url)
            if future is not None and not future.done():
                continue
            if future is not None:
                self.seen[url] = future.result()
            self.asked[url] = self.pool.submit(self._ask, client, own)
        if self.asked:
            concurrent.futures.wait(self.asked.values(), timeout=0.2)
            self.seen.update({url: future.result() for url, future in self.asked.items() if future.done()})
        for url, peer in self.seen.items():
            if peer is not None and peer.get("hash") is not None:
                self.seen[url] = {**peer, "same": peer["hash"] == self._own_hash(peer["compared"])}

    def _ask(self, client: NodeClient, own: int) -> dict[str, t.Any] | None:
        try:
            height = client.status().height
            compared = min(own, height)
            answer = {"height": height, "compared": compared, "hash": client.block_hash(compared), "same": False}
            self._count_equivocations(client)
            return answer
        except ChainopsError:
            return None

    def _count_equivocations(self, client: NodeClient) -> None:
        known = self.host._equivocations(client)
        if known is not None:
            self.equivocations = max(known, self.equivocations or 0)

    def _own_hash(self, height: int) -> str | None:
        try:
            if height not in self.hashes:
                self.hashes = {height: self.client.block_hash(height)}
            return self.hashes[height]
        except ChainopsError:
            return None

    def _signatures(self, height: int) -> None:
        """Has our key signed a block since the start? Each new block is looked at once."""
        address = (self.host.address or "").lower()
        if not address or self.signed:
            return
        first = (self.signed_before if self.signed_upto is None else self.signed_upto) + 1
        for number in range(max(first, height - 20), height + 1):
            try:
                block = self.client.block(number)
            except ChainopsError:
                return
            self.signed_upto = number
            if block.signers is not None:
                self.signed = bool(self.signed) or any(signer.lower() == address for signer in block.signers)


def _raised(wanted: probe.Wanted, height: int) -> probe.Wanted:
    return dataclasses.replace(wanted, floor=max(wanted.floor, height))


def tree_size(path: str) -> tuple[int, int]:
    """Size of the files below a directory, as ``st_size``, and how many names there are. What vanishes meanwhile has no size."""
    total = count = 0
    for root, folders, names in os.walk(path):
        count += len(folders) + len(names)
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total, count


def free_inodes(path: str) -> int | None:
    """Those that are left on a file system; None where it makes them as it needs them."""
    found = os.statvfs(path)
    return found.f_favail if found.f_files else None


def drain_problems(receipt: t.Mapping[str, t.Any], instance: str, turn_id: str, token: int) -> list[str]:
    """What keeps a drain receipt from standing for this turn; empty when it does."""
    wanted = {"format": "chainops.drain/1", "state": "drained", "instance": instance, "turn_id": turn_id, "fence_token": token}
    return [
        f"the drain receipt of gateway {receipt.get('gateway')!r} says {name} {receipt.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if receipt.get(name) != value
    ]


def stale(receipt: t.Mapping[str, t.Any], now: float) -> list[str]:
    """What is wrong with a receipt's age: past its lease, a gateway may have let clients in. ``now``: seconds since the epoch."""
    looked = receipt.get("checked_at") or receipt.get("drained_at") or {}
    lease = max(float(receipt.get("lease") or 0), RECEIPT_AGE)
    try:
        age = now - datetime.datetime.fromisoformat(str(looked["wall"]).replace("Z", "+00:00")).timestamp()
    except (KeyError, TypeError, ValueError):
        return [f"the drain receipt of gateway {receipt.get('gateway')!r} doesn't say when it was looked at"]
    if -SKEW <= age <= lease:
        return []
    return [
        f"the drain receipt of gateway {receipt.get('gateway')!r} is {age:.0f} s old, and stands for {lease:.0f} s: drain again"
        if age > 0
        else f"the drain receipt of gateway {receipt.get('gateway')!r} is of {-age:.0f} s from now: the clocks differ"
    ]
