# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The side of a turn that a module calls: look at the host, decide what the call comes to, write the plan, start the engine.

A call may die at any point, too. It writes the plan and the journal's first record before it says that the turn is open, and
whoever calls again with the same turn id finds it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._chain.registry import adapter as chain_adapter
from .._core import canonical, files, journal
from .._core.clock import CLOCK, Clock
from .._core.errors import Busy, ChainopsError, InputError, IntegrityError, Refused
from .._manifest import manifest
from . import engine_main, fence, install, lock, past, release, service, turn
from .engine import Context
from .paths import Home, Turn, require_name
from .steps import HostEffects

UPGRADED, ROLLED_BACK, RESUMED = "upgraded", "rolled_back", "resumed"
DIRECTIONS = {UPGRADED: "forward", ROLLED_BACK: "back"}
#: Seconds a dead engine may stay dead while somebody waits, before it is started again.
REVIVE_AFTER = 3.0


@dataclasses.dataclass(frozen=True)
class Request:
    """What a caller wants, checked for shape. ``release`` and ``back_to`` are filled in from the manifest for a way back."""

    state: str
    instance: str
    state_dir: str
    chain: str
    api_url: str
    turn_id: str
    rollout_id: str
    release: t.Mapping[str, t.Any]
    release_link: str
    service: t.Mapping[str, t.Any]
    data_dir: str
    roots: t.Sequence[t.Mapping[str, str]]
    snapshot_id: str
    back_to: t.Mapping[str, t.Any] | None
    migrations: t.Sequence[t.Mapping[str, t.Any]]
    proof: t.Mapping[str, t.Any]
    proof_sha256: str | None
    fence_token: int
    drain_receipts: t.Sequence[t.Mapping[str, t.Any]]
    require_drain: bool
    client_addresses: t.Sequence[str]
    expected_address: str | None
    peers: t.Sequence[str]
    probe: t.Mapping[str, t.Any]
    budgets: t.Mapping[str, float]
    policy: t.Mapping[str, t.Any]
    confirm: t.Mapping[str, t.Any] | None
    own_sockets: bool = True


@dataclasses.dataclass(frozen=True)
class Situation:
    """What there is on the host. ``requested``: result of the turn asked for, when it was begun before.

    ``one_way``: why there is no way back from the release that the host was brought to, when there is none.
    """

    open_turn: str | None
    requested: t.Mapping[str, t.Any] | None
    requested_release: str | None
    link_path: str
    running: release.Running | None
    level: int | None
    one_way: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Decision:
    """``kind``: start, attach (to the open turn), ended (this turn is over), nothing (the host is already so)."""

    kind: str
    reason: str


def decide(request: Request, there: Situation) -> Decision:
    """Pure. Raises Busy when another turn is open, Refused when the id was used for something else."""
    wanted = request.release["sha256"]
    if there.requested is not None:
        if there.requested_release != wanted:
            raise Refused(
                f"turn {request.turn_id} was for release {there.requested_release}, not {wanted}; use another turn_id",
                turn_id=request.turn_id,
            )
        if there.open_turn == request.turn_id:
            return Decision("attach", f"turn {request.turn_id} is under way")
        if there.requested["outcome"] != turn.RUNNING:
            return Decision("ended", f"turn {request.turn_id} ended {there.requested['outcome']}")
        if there.requested["sessions"]:
            raise Refused(
                f"the journal of turn {request.turn_id} has no end, and nothing says that it is open: somebody removed "
                f"{os.path.basename(os.path.dirname(home_of(request).open))}/open; find out who before going on",
                turn_id=request.turn_id,
            )
        # Whoever wrote its first record died before the turn was open: no engine has seen it, and it begins now.
    if there.open_turn is not None:
        raise Busy(f"turn {there.open_turn} is under way on this host; wait for it or resume it", turn_id=there.open_turn)
    level = request.release.get("level")
    same_level = level is None or there.level is None or level == there.level
    path = os.path.realpath(release_dir(request))
    if there.running is not None and there.running.path == path == there.link_path and same_level:
        return Decision("nothing", f"it runs release {request.release['id']} at level {there.level} already")
    reason = f"it runs {_shown(there)}, and shall run release {request.release['id']}"
    if request.state == ROLLED_BACK and there.one_way:
        raise Refused(
            f"{reason}, but there is only the way forward: {'; '.join(there.one_way)}; bring a release that mends what is wrong",
            one_way=list(there.one_way),
        )
    reasons = one_way(request)
    if reasons:
        reason += f"; once that is committed there is only the way forward: {'; '.join(reasons)}"
    return Decision("start", reason)


def one_way(request: Request) -> list[str]:
    """Pure: why the turn's commit is a point of no return; empty when it isn't one."""
    if request.state == ROLLED_BACK:
        return []
    reasons = [f"migration {item['id']} is not declared reversible" for item in request.migrations if not item.get("reversible")]
    if request.release.get("new_block_format"):
        reasons.append(f"release {request.release['id']} signs blocks in a format that the release before does not read")
    return reasons


def _shown(there: Situation) -> str:
    return there.running.path if there.running is not None and there.running.path else there.link_path


def home_of(request: Request) -> Home:
    return Home(request.state_dir, request.instance)


def release_dir(request: Request) -> str:
    """Where the release to go to is unpacked."""
    told = request.release.get("dir")
    return str(told) if told else os.path.join(home_of(request).releases, str(request.release["sha256"]))


def survey(request: Request) -> Situation:
    """Look, and change nothing."""
    home = home_of(request)
    node = service.make(request.service, home)
    link_path = release.target(request.release_link)
    pid = node.state().pid
    known = outcome(home, request.turn_id)
    return Situation(
        open_turn=engine_main.open_turn(home),
        requested=known,
        requested_release=known["new"]["sha256"] if known else None,
        link_path=link_path,
        running=release.running(pid, request.release_link, home.releases, [link_path]) if pid else None,
        level=chain_adapter(request.chain).storage_level(request.data_dir),
        one_way=_came_one_way(home, link_path) if request.state == ROLLED_BACK else (),
    )


def _came_one_way(home: Home, path: str) -> tuple[str, ...]:
    """Why nothing leads back from the release at this path: what the last turn said that brought the host to it."""
    for result in past.results(home, limit=10**6):
        if result["outcome"] == turn.COMMITTED and os.path.realpath(str((result["new"] or {}).get("path"))) == path:
            return tuple(str(reason) for reason in result["one_way"])
    return ()


def outcome(home: Home, turn_id: str) -> dict[str, t.Any] | None:
    """A turn's result so far, from its journal; None when it was never opened."""
    paths = home.turn(turn_id)
    if not os.path.exists(paths.journal):
        return None
    records = journal.read(paths.journal)
    if not records:
        return None
    return turn.result(engine_main.load(home, turn_id), records)


def from_manifest(state_dir: str, instance: str, running: str | None) -> dict[str, t.Any]:
    """Where the manifest says this host goes back to: ``{"release", "back_to", "proof_sha256"}``.

    That is what the last upgrade to the release that runs says. Raises Refused when there is none.
    """
    path = Home(state_dir, instance).manifest
    problems = manifest.verify(path)
    if problems:
        raise IntegrityError(f"{path} does not verify: {problems[0]}; without it nobody knows where to go back to", path=path)
    for entry in reversed(manifest.read(path)):
        fields = entry.fields
        # An entry without a snapshot is of a call that found nothing to do.
        leads_here = running is not None and fields.get("release", {}).get("sha256") == running
        if entry.kind == "upgrade" and leads_here and fields.get("snapshot_id"):
            before = fields["previous"]
            return {
                "release": {
                    "id": before.get("id") or before.get("sha256") or before["path"],
                    "sha256": before.get("sha256"),
                    "version": before.get("version"),
                    "level": before.get("level"),
                    "dir": before.get("path"),
                },
                "back_to": {"snapshot_id": fields["snapshot_id"], "sha256": fields["snapshot_sha256"]},
                "proof_sha256": fields.get("proof_sha256"),
            }
    raise Refused(f"{path} has no upgrade to release {running}, which runs now; there is nothing to go back to", path=path)


def compose(request: Request, there: Situation, engine: str) -> dict[str, t.Any]:
    """The plan document of a turn that begins now."""
    direction = DIRECTIONS[request.state]
    adapter = chain_adapter(request.chain)
    forward, undo = deadlines(request.budgets, request.probe, adapter.layout.stop_timeout, request.confirm)
    return {
        "format": turn.FORMAT,
        "turn_id": request.turn_id,
        "rollout_id": request.rollout_id,
        "instance": request.instance,
        "direction": direction,
        "chain": request.chain,
        "api_url": request.api_url,
        "engine": engine,
        "service": dict(request.service),
        "data_dir": request.data_dir,
        "roots": [dict(root) for root in request.roots],
        "release_link": request.release_link,
        "old": {"path": there.link_path, "sha256": release.digest_of(there.link_path), "level": there.level},
        "new": {
            "path": release_dir(request),
            "sha256": request.release["sha256"],
            "id": request.release["id"],
            "version": request.release.get("version"),
            "level": request.release.get("level"),
        },
        "snapshot_id": request.snapshot_id,
        "back_to": dict(request.back_to) if request.back_to else None,
        "migrations": [dict(item) for item in request.migrations] if direction == "forward" else [],
        "proof": dict(request.proof),
        "proof_sha256": request.proof_sha256,
        "fence_token": request.fence_token,
        "drain_receipts": [dict(item) for item in request.drain_receipts],
        "require_drain": request.require_drain,
        "client_addresses": list(request.client_addresses),
        "own_sockets": request.own_sockets,
        "expected_address": request.expected_address,
        "peers": list(request.peers),
        "probe": dict(request.probe),
        "budgets": {"total": float(request.budgets["total"])},
        "policy": dict(request.policy),
        "confirm": dict(request.confirm) if request.confirm else None,
        "one_way": one_way(request),
        "steps": turn.steps_of(direction, forward, undo, request.confirm is not None),
    }


def deadlines(
    budgets: t.Mapping[str, t.Any], probe: t.Mapping[str, t.Any], stop_timeout: float, confirm: t.Mapping[str, t.Any] | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds for each step and for each undo. An undo gets more than what it undoes: it has to come about."""
    stop, start, follow = float(budgets.get("stop") or stop_timeout), float(budgets["start"]), float(probe["deadline"])
    freeze, migrate = float(budgets["freeze"]), float(budgets["migrate"])
    forward = {
        "check": 600.0,
        "prepare": float(budgets["prepare"]),
        "guard": 60.0,
        "stop": stop,
        "freeze": freeze,
        "migrate": migrate,
        "restore": migrate,
        "switch": 30.0,
        "start": start,
        "probe": follow,
        "confirm": float(confirm["deadline"]) + start + follow if confirm else 1.0,
        "commit": 60.0,
    }
    undo = {
        "unguard": 60.0,
        "start_old": stop + start + follow,
        "restore_own": 2 * (freeze + migrate),
        "switch_back": 60.0,
        "stop_new": 2 * stop + 20.0,
    }
    return forward, undo


def validate(request: Request) -> None:
    """Raises InputError for what can't be, before anything is looked at."""
    require_name(request.turn_id, "turn_id")
    if request.state == UPGRADED or request.release.get("sha256") is not None:
        release.require_digest(str(request.release.get("sha256")), "release.sha256")
    elif not request.release.get("dir"):
        raise InputError("the release to go back to has neither sha256 nor dir")
    if "data" not in [root["name"] for root in request.roots]:
        raise InputError("roots must hold one named data, the data directory")
    if next(root["path"] for root in request.roots if root["name"] == "data") != request.data_dir:
        raise InputError(f"the root named data is not data_dir ({request.data_dir})")
    if request.fence_token < 1:
        raise InputError("fence_token must be 1 or more; take it from rollout_lock")
    if request.confirm is not None and request.confirm["on_silence"] not in ("commit", "put_back"):
        raise InputError(f"confirm.on_silence is {request.confirm['on_silence']!r}; expected commit or put_back")


def preconditions(request: Request, there: Situation) -> list[str]:
    """What would keep the turn from beginning now; nothing is written. For check mode."""
    plan = turn.load(compose(request, there, "0" * 64))
    effects = HostEffects(plan, home_of(request))
    problems: list[str] = []
    try:
        fence.require(effects.home.fence, request.fence_token)
    except ChainopsError as exc:
        problems.append(exc.message)
    context = Context([], CLOCK.monotonic() + 30.0, False, lambda **facts: None, CLOCK)
    return problems + effects.preconditions(context)


def worked_on(request: Request) -> list[str]:
    """Directories that the engine needs."""
    return [request.data_dir, os.path.dirname(request.release_link), *(str(root["path"]) for root in request.roots)]


def begin(request: Request, there: Situation) -> None:
    """Write the plan, open the journal, start the engine. Raises Refused for an old token, Busy when somebody was faster."""
    home = home_of(request)
    files.make_dir(home.journals)
    with lock.exclusive(home):
        fence.admit(home.fence, request.fence_token)
        lock.renew(home, request.fence_token)
        now_open = engine_main.open_turn(home)
        if now_open is not None:
            raise Busy(f"turn {now_open} was opened on this host meanwhile", turn_id=now_open)
        digest = install.install(home)
        node = service.make(request.service, home)
        if isinstance(node, service.Systemd):
            install.install_unit(node, home, digest, worked_on(request))
        body = compose(request, there, digest)
        turn.load(body)
        paths = home.turn(request.turn_id)
        files.make_dir(paths.root, 0o700)
        _forget_unopened(paths)
        files.write_atomic(paths.plan, canonical.pretty(body), 0o600)
        with journal.Journal(paths.journal) as log:
            log.append({"kind": "open", "plan_sha256": canonical.digest(body), **lock.now()})
        files.write_atomic(home.open, request.turn_id.encode("ascii") + b"\n")
    install.start(node, home, digest)


def _forget_unopened(paths: Turn) -> None:
    """Make room for a turn whose first caller died before it was open. Raises Busy for one that an engine has had."""
    if not os.path.exists(paths.journal):
        return
    if len(journal.read(paths.journal)) > 1:
        raise Busy(f"turn {os.path.basename(paths.root)} was taken by somebody else meanwhile; call again")
    os.unlink(paths.journal)
    files.fsync_dir(paths.root)


def attach(request: Request) -> None:
    """See that the open turn's engine works; start it where it doesn't."""
    home = home_of(request)
    with lock.exclusive(home):
        fence.admit(home.fence, request.fence_token)
        lock.renew(home, request.fence_token)
    revive(home, request.turn_id)


def resume(home: Home, turn_id: str, fence_token: int, timeout: float) -> dict[str, t.Any]:
    """See that the engine of an open turn works, wait for it, and tell what the turn came to.

    Raises Refused for an old token, InputError when this is not the turn that is open.
    """
    if engine_main.open_turn(home) != turn_id:
        known = outcome(home, turn_id)
        if known is None or known["outcome"] == turn.RUNNING:
            raise InputError(f"turn {turn_id} is not under way on {home.instance}", turn_id=turn_id)
        return known
    lock.use(home, fence_token)
    revive(home, turn_id)
    return wait(home, turn_id, timeout)


def keep(home: Home, fence_token: int) -> None:
    """Renew the lease once more after a long wait. Whoever took over meanwhile keeps it; what came of the turn is told anyway."""
    with contextlib.suppress(Refused, Busy):
        lock.use(home, fence_token)


def revive(home: Home, turn_id: str) -> None:
    """Start the engine that a turn's plan pins, unless it works already. Raises IntegrityError when it isn't what was pinned."""
    if lock.engine_at_work(home) is not None:
        return
    plan = engine_main.load(home, turn_id)
    digest = str(plan.body["engine"])
    path = install.engine_path(home, digest)
    if not os.path.exists(path) or canonical.sha256_file(path) != digest:
        raise IntegrityError(f"{path} is not the engine that turn {turn_id} was begun with", path=path)
    install.start(service.make(plan.body["service"], home), home, digest)


def wait(home: Home, turn_id: str, timeout: float, *, clock: Clock = CLOCK, interval: float = 0.2) -> dict[str, t.Any]:
    """The turn's result when it is over or rests, or what it is after ``timeout`` seconds (outcome running)."""
    until = clock.monotonic() + timeout
    dead_since: float | None = None
    while True:
        found = outcome(home, turn_id)
        if found is None:
            raise IntegrityError(f"the journal of turn {turn_id} is gone", turn_id=turn_id)
        working = lock.engine_at_work(home) is not None
        rests = found["outcome"] != turn.RUNNING and found["ended"] is None and not working
        cleaned_up = found["ended"] is not None and engine_main.open_turn(home) != turn_id
        if rests or cleaned_up:
            return found
        now = clock.monotonic()
        if now >= until:
            return found
        dead_since = None if working else dead_since or now
        if dead_since is not None and now - dead_since >= REVIVE_AFTER:
            dead_since = None
            revive(home, turn_id)
        clock.sleep(min(interval, max(0.01, until - now)))


def way_back(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Where a module's options lead when they don't say where back is.

    A turn that was begun already keeps its own answer: after it, something else runs, and the manifest would say otherwise.
    """
    home = Home(params["state_dir"], params["instance"])
    if os.path.exists(home.turn(params["turn_id"]).plan):
        body = engine_main.load(home, params["turn_id"]).body
        known = {**body["new"], "dir": body["new"]["path"]}
        return {"release": known, "back_to": body["back_to"], "proof_sha256": body["proof_sha256"]}
    leads = release.target(params["release_link"])
    return from_manifest(params["state_dir"], params["instance"], release.digest_of(leads))


def side(request: Request, there: Situation, *, after: bool) -> dict[str, t.Any]:
    """The host before or after, for a diff."""
    if not after:
        sha256 = there.running.sha256 if there.running else None
        return {"release": sha256 or _shown(there), "level": there.level, "link": there.link_path}
    level = request.release.get("level")
    target = release_dir(request)
    return {"release": request.release["sha256"] or target, "level": there.level if level is None else level, "link": target}


def untouched(request: Request, there: Situation) -> dict[str, t.Any]:
    """A result for a host that needs no turn."""
    return {
        "id": request.turn_id,
        "rollout_id": request.rollout_id,
        "instance": request.instance,
        "outcome": turn.COMMITTED,
        "reason": "nothing to do",
        "touched": False,
        "steps": [],
        "stop_window_seconds": None,
        "predicted_stop_window": None,
        "freeze_seconds": None,
    }


def predicted(request: Request, there: Situation) -> dict[str, t.Any]:
    """A result for check mode: the steps that would be taken."""
    plan = compose(request, there, "0" * 64)
    steps = [{"name": step["name"], "way": turn.FORWARD, "state": "predicted", "does": step["effect"]} for step in plan["steps"]]
    shown = {name: plan[name] for name in ("old", "new", "direction", "one_way")}
    window = HostEffects(turn.load(plan), home_of(request)).predict()
    return {
        **untouched(request, there),
        **shown,
        "steps": steps,
        "outcome": "predicted",
        "reason": None,
        "predicted_stop_window": window,
    }


def sentence(result: t.Mapping[str, t.Any]) -> str:
    """What became of a turn, in words; for messages."""
    name = f"turn {result['id']} of {result['instance']}"
    if result["outcome"] == turn.COMMITTED:
        return f"{name} is committed" + (f": {result['reason']}" if result["reason"] else "")
    if result["outcome"] == turn.PUT_BACK:
        how = "the host was put back" if result["touched"] else "nothing was touched"
        return f"{name} did not come about, {how}: {result['reason']}"
    steps = result["steps"]
    last = f"{steps[-1]['name']} ({steps[-1]['way']}, {steps[-1]['state']})" if steps else "none"
    if result["outcome"] == turn.RUNNING:
        return f"{name} still runs, last step {last}; it ends by itself: call again with the same turn_id to wait for it"
    return f"{name} needs help, last step {last}: {result['reason']}"
