# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""XAI nodes, and the reference node that speaks the same API and more.

Which of the two answers is found out once per client: only the reference node has ``GET /version`` (an XAI node answers 404).
What the two don't share is told apart in one place each:

* Version, release, chain id: XAI tells none, so they are None.
* Validators: an XAI node without a configured set names itself as the only one. That is no set, so it is not reported as one;
  the same goes for the "finality" a node declares by its own vote.
* Live peers: ``/stats`` counts configured ones in both; live ones are the connections of ``/peers?verbose=true``.
* XAI allows 120 requests a minute for each path (and 20 for admin paths), so each path is asked at most once a second there.
"""

from __future__ import annotations

import http.cookies
import math
import typing as t

from .._core.ahead import in_turn
from .._core.clock import CLOCK, Clock
from .._core.errors import ChainopsError, HttpError, Unreachable
from .._core.http import HttpClient, Response, excerpt, expect
from . import usage, xai_data, xai_tx
from .protocol import Block, FeatureState, Layout, NodeStatus, Validator, Watermark

Json = t.Dict[str, t.Any]

#: Seconds between two requests for one path of an XAI node, and for one of its admin paths (20 a minute).
PACE, ADMIN_PACE = 1.0, 3.0
#: An XAI node's pause is asked for at most this often by ``status()``: admin paths are also limited to 200 an hour.
PAUSE_AGE = 20.0
#: Whole blocks asked for at once: most of what a page saves, and the largest blocks still fit into an answer.
PAGE = 50
#: Pending transactions asked for at once (more are refused), and in all: what lies beyond that is looked at another time.
PENDING_PAGE, MAX_PENDING = 500, 2000
#: The one feature whose state a node tells.
VISIBLE_FEATURE = "smart_contracts"
#: Blocks that one of several connections reads in a row where they come one by one.
ROW = 8
#: The metric in which an XAI node counts double signing by validators it watches.
_DOUBLE_SIGNS = "xai_validator_double_sign_events_total"


class Pace:
    """Keeps requests for one path apart. Injectable clock; remembers only paths that still matter."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._many = 512

    def wait(self, path: str, interval: float) -> None:
        """Sleep until ``interval`` seconds have passed since the last request for ``path``."""
        now = self._clock.monotonic()
        due = self._last.get(path, -math.inf) + interval
        if due > now:
            self._clock.sleep(due - now)
            now = self._clock.monotonic()
        if len(self._last) > self._many:
            self._last = {known: at for known, at in self._last.items() if now - at < ADMIN_PACE}
            self._many = max(512, 2 * len(self._last))  # what is left may all matter still: looking through it has a price
        self._last[path] = now


class XaiClient:
    """One node over HTTP. Not thread-safe: one a thread.

    ``lanes`` is how many connections ``blocks`` may use at once, so that the node works while we do; with 1 it reads over the one
    that everything else goes over.

    Every method raises Unreachable, or HttpError for an answer that isn't what was asked for. 429 answers are waited out as long
    as that fits into three times ``timeout``.
    """

    def __init__(
        self,
        api_url: str,
        *,
        timeout: float = 10.0,
        api_key: str | None = None,
        admin_token: str | None = None,
        lanes: int = 1,
        clock: Clock = CLOCK,
    ) -> None:
        self.api_url = api_url
        self._timeout = timeout
        self._lanes = lanes
        self._top = -1
        self._http = HttpClient(api_url, timeout=timeout, clock=clock)
        self._clock = clock
        self._patience = 3 * timeout
        self._pace = Pace(clock)
        self._shared: dict[str, tuple[float, Response]] = {}
        self._keys = {"X-API-Key": api_key} if api_key else {}
        self._admin = {"X-Admin-Token": admin_token} if admin_token else {}
        self._is_xai: bool | None = None
        self._genesis: str | None = None
        self._csrf: dict[str, str] | None = None
        self._paused: tuple[float, bool | None] = (-math.inf, None)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> XaiClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Reading

    def status(self) -> NodeStatus:
        """One look. Fails only when the node doesn't answer or can't say what its tip is; all else it can't say is an issue."""
        told = self._version()
        issues: list[str] = []
        healthy, clock_offset = self._health(issues)
        tip = self._doc("/block/latest", {"summary": 1})
        stats = self._maybe("/stats", issues) or {}
        finality = self._maybe("/finality/status", issues) or {}
        height = _height(tip, "block_number", self._http.url("/block/latest"))
        return NodeStatus(
            height=height,
            tip_hash=_text(tip, "hash", self._http.url("/block/latest")),
            tip_time=_number(tip.get("timestamp")),
            version=_optional_text(told, "version"),
            release_id=_optional_text(told, "release_id"),
            chain_id=_optional_text(told, "chain_id"),
            genesis_hash=_optional_text(told, "genesis_hash") if told is not None else self._genesis_hash(issues),
            address=self._own_address(stats, issues) if told is None else _optional_text(finality, "validator_address"),
            peers_configured=_count(stats.get("peers")),
            peers_live=self._live_peers(issues),
            mempool=_count(stats.get("pending_transactions_count")),
            paused=self._recent_pause(issues),
            mining=stats["is_mining"] if isinstance(stats.get("is_mining"), bool) else None,
            healthy=healthy,
            issues=tuple(issues),
            clock_offset=clock_offset,
        )

    def tip_height(self) -> int:
        return _height(self._doc("/block/latest", {"summary": 1}), "block_number", self._http.url("/block/latest"))

    def block(self, height: int) -> Block:
        """``GET /blocks/<height>``: the only route on which an XAI node serves whole blocks after a restart."""
        path = f"/blocks/{height}"
        return self._as_block(self._doc(path), height, self._http.url(path))

    def blocks(self, first: int, last: int) -> t.Iterator[Block]:
        """In pages, but not of an XAI node: its pages lack the transactions of what is older than its process, and for each of
        them it goes through its whole chain."""
        self._version()
        step = ROW if self._is_xai else PAGE
        starts = range(first, last + 1, step)
        lanes = min(self._lanes, len(starts))
        if lanes < 2:
            yield from self._run(first, last)
            return
        batches = in_turn([self._lane(starts[lane::lanes], step, last) for lane in range(lanes)], f"blocks of {self.api_url}")
        try:
            for batch, failure in batches:
                yield from batch
                if failure is not None:
                    raise failure
        finally:
            t.cast(t.Generator[t.Any, None, None], batches).close()

    def _lane(
        self, starts: t.Sequence[int], step: int, last: int
    ) -> t.Generator[tuple[list[Block], Exception | None], None, None]:
        """What one of several connections reads: blocks from each of ``starts`` on, and what kept it from reading more."""
        with XaiClient(self.api_url, timeout=self._timeout, clock=self._clock) as other:
            other._is_xai, other._top = self._is_xai, self._top
            for start in starts:
                batch: list[Block] = []
                failure: Exception | None = None
                try:
                    for block in other._run(start, min(start + step - 1, last)):
                        batch.append(block)  # what came before a failure counts
                except Exception as exc:
                    failure = exc
                yield batch, failure

    def _run(self, first: int, last: int) -> t.Iterator[Block]:
        page: dict[int, Json] = {}
        self._top = max(self._top, last)
        for height in range(first, last + 1):
            if height not in page and not self._is_xai:
                page = self._page(height, min(PAGE, last - height + 1))
            # New blocks shift a page: what it misses is asked for alone, and the next page knows the new top.
            yield self._as_block(page[height], height, self._http.url("/blocks")) if height in page else self.block(height)

    def _page(self, first: int, count: int) -> dict[int, Json]:
        """Blocks by height: ``count`` of them from ``first`` on while the tip is where it was (they are counted from there)."""
        doc = self._doc("/blocks", {"limit": count, "offset": max(0, self._top - first - count + 1)})
        listed = doc.get("blocks")
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise _wrong(self._http.url("/blocks"), "blocks that are not a list of objects")
        numbered = ((_count(item.get("index")), item) for item in listed)
        self._top = _height(doc, "total", self._http.url("/blocks")) - 1
        return {index: item for index, item in numbered if index is not None}

    def _as_block(self, doc: Json, height: int, url: str) -> Block:
        if _height(doc, "index", url) != height:
            raise _wrong(url, f"block {doc.get('index')} instead of {height}")
        transactions = doc.get("transactions")
        if not isinstance(transactions, list) or not all(isinstance(tx, dict) for tx in transactions):
            raise _wrong(url, "a block without its transactions (a header only)")
        return Block(
            height=height,
            hash=_text(doc, "hash", url),
            previous_hash=_text(doc, "previous_hash", url),
            time=_number(doc.get("timestamp")) or 0.0,
            # XAI nodes disagree about "miner" (a reward address on the node that mined it, its key elsewhere), not about the key.
            proposer=_optional_text(doc, "miner_pubkey") or _optional_text(doc, "miner"),
            transactions=tuple(transactions),
            signers=_signers(doc, url),
            raw=doc,
        )

    def block_hash(self, height: int) -> str:
        return self.block(height).hash

    def validators(self) -> tuple[Validator, ...]:
        """The set the node knows; empty where it knows none (the caller then counts its nodes equally)."""
        listed = self._listed_validators()
        return () if self._is_xai and len(listed) < 2 else listed

    def final_height(self) -> int | None:
        """None on an XAI node that has no more than its own vote to go by."""
        self._version()
        doc = self._maybe("/finality/status")
        if doc is None or (self._is_xai and (_count(doc.get("total_validators")) or 0) < 2):
            return None
        return _count(doc.get("finalized_height" if not self._is_xai else "highest_finalized_height"))

    def transaction(self, txid: str) -> t.Mapping[str, t.Any] | None:
        self._version()
        path = f"/transaction/{txid}"
        answer = self._get(path)
        doc = _object(answer if answer.status == 404 else expect(answer))
        if answer.status == 404:
            if doc.get("found") is False:
                return None
            expect(answer)
        if doc.get("block") is not None:
            return {"state": "included", "height": _height(doc, "block", self._http.url(path))}
        if doc.get("status") == "pending":
            return {"state": "pending", "height": None}
        raise _wrong(self._http.url(path), "neither a block nor a pending transaction", answer)

    def pending_transactions(self) -> tuple[Json, ...] | None:
        """``GET /transactions``: whole ones, metadata included (``/mempool`` lists the same ones, cut short)."""
        self._version()
        path, held = "/transactions", dict[str, Json]()
        while len(held) < MAX_PENDING:
            answer = self._get(path, {"limit": PENDING_PAGE, "offset": len(held)})
            if answer.status == 404:
                return None
            doc = _object(expect(answer))
            listed = doc.get("transactions")
            if not isinstance(listed, list) or not all(isinstance(tx, dict) for tx in listed):
                raise _wrong(self._http.url(path), "pending transactions that are not a list of objects")
            before = len(held)
            # Blocks that come meanwhile shift the pages: one that is listed twice is still one.
            held.update((_text(tx, "txid", self._http.url(path)), tx) for tx in listed[:PENDING_PAGE])
            if len(listed) < PENDING_PAGE or len(held) == before:
                break
        return tuple(held.values())[:MAX_PENDING]

    def nonce(self, address: str) -> int:
        self._version()
        path = f"/address/{address}/nonce"
        return _height(self._doc(path), "next_nonce", self._http.url(path))

    def equivocations(self) -> tuple[t.Mapping[str, t.Any], ...]:
        """What peers recorded. An XAI node names nobody, it only counts: then one entry ``{"address": None, "count": n}``."""
        self._version()
        if self._is_xai:
            count = self._counted_double_signs()
            return ({"address": None, "count": count},) if count else ()
        doc = self._doc("/finality/status")
        listed = doc.get("equivocations", [])
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise _wrong(self._http.url("/finality/status"), "equivocations that are not a list of objects")
        return tuple(listed)

    def feature(self, name: str) -> FeatureState | None:
        """Only ``smart_contracts`` shows over HTTP. What a non-mining XAI node says may lag: it takes an execution in only with a
        later reorganisation or a restart."""
        if name != VISIBLE_FEATURE:
            return None
        self._version()
        path = "/contracts/governance/status"
        doc, url = self._maybe(path), self._http.url(path)
        if doc is None:
            return None
        if doc.get("feature_name") != name:
            raise _wrong(url, f"feature {doc.get('feature_name')!r:.40} instead of {name!r}")
        enabled = _flag(doc, "governance_enabled", url)
        if enabled is None:
            raise _wrong(url, "no governance_enabled")
        configured, ready = _flag(doc, "config_enabled", url), _flag(doc, "contract_manager_ready", url)
        if ready and not (enabled and configured):
            raise _wrong(url, "contract_manager_ready without governance_enabled and config_enabled, which can't be")
        return FeatureState(name, enabled, configured, ready)

    def signature_scheme(self) -> str:
        told = self._version()
        return xai_tx.LEGACY if told is None else _text(told, "signature_scheme", self._http.url("/version"))

    # Writing

    def send(self, tx: t.Mapping[str, t.Any]) -> str:
        """Submit once. When the answer got lost, the node is asked whether it has the transaction before it goes out again."""
        self._version()
        try:
            doc = self._post("/send", dict(tx), self._keys)
        except Unreachable:
            if isinstance(tx.get("txid"), str) and self.transaction(tx["txid"]) is not None:
                return str(tx["txid"])
            doc = self._post("/send", dict(tx), self._keys)
        url = self._http.url("/send")
        txid = _text(doc, "txid", url)
        if tx.get("txid") not in (None, txid):
            raise _wrong(url, f"txid {txid[:80]} for a transaction whose txid is {str(tx['txid'])[:80]}")
        return txid

    def paused(self) -> bool | None:
        """Whether the node refuses clients' writes; None without an admin token, or where there is no such thing."""
        self._version()
        if not self._admin:
            return None
        path = "/admin/emergency/status"
        answer = self._get(path, headers=self._admin)
        if answer.status in (404, 503):
            return None
        value = _object(expect(answer)).get("is_paused")
        if not isinstance(value, bool):
            raise _wrong(self._http.url(path), "no is_paused", answer)
        self._paused = (self._clock.monotonic(), value)
        return value

    def pause(self, reason: str) -> bool:
        """Refuse clients' writes, then stop mining: in this order, or writes go on while mining stops.

        Returns whether the node was mining, which ``unpause`` wants to know. Needs the admin token. Pausing twice is fine.
        """
        self._version()
        was_mining = bool(self._doc("/stats").get("is_mining"))
        self._admin_post("/admin/emergency/pause", {"reason": reason})
        self._paused = (self._clock.monotonic(), True)
        if was_mining:
            self._admin_post("/admin/mining/disable", {})
        return was_mining

    def unpause(self, reason: str, *, resume_mining: bool) -> None:
        """Accept clients' writes, then mine again if told so: the other way round, enabling is refused (423)."""
        self._version()
        self._admin_post("/admin/emergency/unpause", {"reason": reason})
        self._paused = (self._clock.monotonic(), False)
        if resume_mining:
            self._admin_post("/admin/mining/enable", {})

    # Facts that take more than one field

    def _version(self) -> Json | None:
        """What the reference node says of itself, asked anew each time (it changes in an upgrade); None from an XAI node."""
        if self._is_xai:
            return None
        answer = self._get("/version")
        if answer.status == 404:
            self._is_xai = True
            return None
        doc = _object(expect(answer))
        self._is_xai = False
        return doc

    def _health(self, issues: list[str]) -> tuple[bool, float | None]:
        """What the node says of itself, and how far its clock is from ours (the answer carries the time)."""
        before = self._clock.wall()
        try:
            answer = self._get("/health")
            doc = _object(expect(answer, 200, 503))
        except HttpError as exc:
            issues.append(f"health: {exc.message}")
            return False, None
        after = self._clock.wall()
        services = doc.get("services")
        listed = services.get("issues") if isinstance(services, dict) else None
        issues.extend(str(issue) for issue in listed or ())
        if isinstance(doc.get("error"), str):
            issues.append(doc["error"])
        stamp = _number(doc.get("timestamp"))
        # The node looked at its clock somewhere between: what lies outside is the least by which the clocks differ.
        offset = None if stamp is None else round(stamp - min(max(stamp, before), after), 3)
        return answer.status == 200 and doc.get("status") == "healthy", offset

    def _live_peers(self, issues: list[str]) -> int | None:
        doc = self._maybe("/peers", issues, {"verbose": "true"})
        connections = None if doc is None else doc.get("connections")
        if not isinstance(connections, list):
            return None
        peers = [peer for peer in connections if isinstance(peer, dict)]
        return sum(1 for one in peers if one.get("connected", True) and not one.get("banned") and not one.get("wrong_chain"))

    def _listed_validators(self) -> tuple[Validator, ...]:
        self._version()
        doc = self._maybe("/finality/validators")
        if doc is None:
            return ()
        url = self._http.url("/finality/validators")
        listed = doc.get("validators")
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise _wrong(url, "validators that are not a list of objects")
        found: dict[str, Validator] = {}
        for item in listed:
            power = _number(item.get("voting_power"))
            if power is None or power < 0:
                raise _wrong(url, f"a voting power that is not one: {item.get('voting_power')!r:.40}")
            address = _text(item, "address", url)
            if address in found:
                raise _wrong(url, f"validator {address[:80]} twice")
            found[address] = Validator(address, power, _optional_text(item, "public_key"))
        return tuple(found.values())

    def _own_address(self, stats: Json, issues: list[str]) -> str | None:
        """An XAI node doesn't say which validator it is. Its reward address tells, when the set has it; a node without a
        configured set lists its own identity, alone."""
        try:
            listed = [one.address for one in self._listed_validators()]
        except HttpError as exc:
            issues.append(exc.message)
            return None
        rewarded = _optional_text(stats, "miner_address")
        if len(listed) == 1:
            return listed[0]
        return next((address for address in listed if xai_tx.same_address(address, rewarded)), None)

    def _genesis_hash(self, issues: list[str]) -> str | None:
        if self._genesis is None:
            try:
                self._genesis = self.block(0).hash
            except HttpError as exc:
                issues.append(exc.message)
        return self._genesis

    def _recent_pause(self, issues: list[str]) -> bool | None:
        at, value = self._paused
        if not self._admin or (self._is_xai and self._clock.monotonic() - at < PAUSE_AGE):
            return value
        try:
            return self.paused()
        except HttpError as exc:
            issues.append(exc.message)
            return None

    def _counted_double_signs(self) -> int:
        answer = self._get("/metrics")
        if answer.status == 404:
            return 0
        total = 0.0
        for line in expect(answer).body.decode("utf-8", "replace").splitlines():
            name, _space, value = line.rpartition(" ")
            if name.partition("{")[0] == _DOUBLE_SIGNS:
                try:
                    total += float(value)
                except ValueError as exc:
                    raise _wrong(answer.url, f"a sample of {_DOUBLE_SIGNS} that is not a number", answer) from exc
        return int(total) if math.isfinite(total) else 0

    # Requests

    def _get(self, path: str, query: t.Mapping[str, t.Any] | None = None, headers: t.Mapping[str, str] | None = None) -> Response:
        """GET. What several questions of one look have in common is asked once, where asking again would mean to wait."""
        shared = bool(self._is_xai) and path.startswith(("/finality/", "/blocks/"))
        if shared and path in self._shared and self._clock.monotonic() - self._shared[path][0] < PACE:
            return self._shared[path][1]
        answer = self._patiently(path, lambda: self._http.request("GET", path, query=query, headers=headers))
        if shared:
            if len(self._shared) > 32:
                self._shared.clear()
            self._shared[path] = (self._clock.monotonic(), answer)
        return answer

    def _doc(self, path: str, query: t.Mapping[str, t.Any] | None = None) -> Json:
        return _object(expect(self._get(path, query)))

    def _maybe(self, path: str, issues: list[str] | None = None, query: t.Mapping[str, t.Any] | None = None) -> Json | None:
        """None where the node has no such route. With ``issues``, any other wrong answer is noted there instead of raised."""
        try:
            answer = self._get(path, query)
            return None if answer.status == 404 else _object(expect(answer))
        except HttpError as exc:
            if issues is None:
                raise
            issues.append(exc.message)
            return None

    def _admin_post(self, path: str, body: Json) -> Json:
        return self._post(path, body, {**self._keys, **self._admin})

    def _post(self, path: str, body: Json, headers: t.Mapping[str, str]) -> Json:
        """POST with a CSRF token. The token may be of a process that has since been restarted: one 403 gets a new one."""
        fresh = self._csrf is None
        answer = self._post_once(path, body, headers)
        if answer.status == 403 and not fresh and not _has_code(answer):
            self._csrf = None
            answer = self._post_once(path, body, headers)
        return _object(expect(answer, *range(200, 300)))

    def _post_once(self, path: str, body: Json, headers: t.Mapping[str, str]) -> Response:
        if self._csrf is None:
            self._csrf = self._csrf_headers()
        sent = {**headers, **self._csrf}

        def act() -> Response:
            # Over a new connection: a kept one may have been closed by the server, and a POST is not repeated blindly.
            self._http.close()
            return self._http.request("POST", path, body=body, headers=sent)

        return self._patiently(path, act)

    def _csrf_headers(self) -> dict[str, str]:
        """Token and session cookie. The cookie is marked Secure, so it is carried by hand over plain HTTP."""
        answer = self._get("/csrf-token")
        if answer.status == 404:
            return {}
        doc = _object(expect(answer))
        headers = {"X-CSRF-Token": _text(doc, "csrf_token", answer.url)}
        jar = http.cookies.SimpleCookie()
        try:
            jar.load(answer.headers.get("set-cookie", ""))
        except http.cookies.CookieError as exc:
            raise _wrong(answer.url, "a cookie that is not one", answer) from exc
        if jar:
            headers["Cookie"] = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in jar.items())
        return headers

    def _patiently(self, path: str, act: t.Callable[[], Response]) -> Response:
        until = self._clock.monotonic() + self._patience
        tries = 0
        while True:
            if self._is_xai:
                self._pace.wait(path, ADMIN_PACE if path.startswith("/admin/") else PACE)
            answer = act()
            if answer.status != 429:
                return answer
            tries += 1
            pause = _retry_after(answer) or min(2.0**tries, 30.0)
            if self._clock.monotonic() + pause > until:
                return answer
            self._clock.sleep(pause)


class XaiAdapter:
    """Adapter ``xai``."""

    name = "xai"
    layout: Layout = xai_data.LAYOUT
    confirmations = 6

    def client(
        self, api_url: str, *, timeout: float = 10.0, api_key: str | None = None, admin_token: str | None = None, lanes: int = 1
    ) -> XaiClient:
        return XaiClient(api_url, timeout=timeout, api_key=api_key, admin_token=admin_token, lanes=lanes)

    def admin(
        self, api_url: str, *, timeout: float = 10.0, api_key: str | None = None, admin_token: str | None = None
    ) -> XaiClient:
        return XaiClient(api_url, timeout=timeout, api_key=api_key, admin_token=admin_token)

    def storage_level(self, data_dir: str) -> int | None:
        return xai_data.storage_level(data_dir)

    def read_watermark(self, data_dir: str) -> Watermark | None:
        return xai_data.read_watermark(data_dir)

    def write_watermark(self, data_dir: str, mark: Watermark) -> None:
        xai_data.write_watermark(data_dir, mark)

    def lock_holder(self, data_dir: str) -> int | None:
        """An XAI node keeps no lock file: see ``usage.user_of`` for what counts."""
        return usage.user_of(data_dir)

    def mend(self, data_dir: str, *, dry: bool = False) -> Json | None:
        """See ``xai_data.mend_torn_write`` and ``xai_data.mend_nonces``."""
        torn = None if dry else xai_data.mend_torn_write(data_dir)
        nonces = xai_data.mend_nonces(data_dir, dry=dry)
        return nonces if torn is None else {**(nonces or {}), "torn_write": torn}


def _wrong(url: str, what: str, answer: Response | None = None) -> HttpError:
    body = excerpt(answer.body) if answer is not None else ""
    return HttpError(f"{url} answered {what}", url=url, status=answer.status if answer is not None else 200, body=body)


def _object(answer: Response) -> Json:
    doc = answer.json()
    if not isinstance(doc, dict):
        raise _wrong(answer.url, "JSON that is not an object", answer)
    return doc


def _count(value: t.Any) -> int | None:
    """A whole number from zero, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: t.Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else None


def _height(doc: Json, key: str, url: str) -> int:
    value = _count(doc.get(key))
    if value is None:
        raise _wrong(url, f"{key} {doc.get(key)!r:.40}, which is not a whole number")
    return value


def _text(doc: t.Mapping[str, t.Any], key: str, url: str) -> str:
    value = doc.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(url, f"no {key}")
    return value


def _optional_text(doc: t.Mapping[str, t.Any] | None, key: str) -> str | None:
    value = None if doc is None else doc.get(key)
    return value if isinstance(value, str) and value else None


def _flag(doc: Json, key: str, url: str) -> bool | None:
    """True, false, or None where it is left out."""
    value = doc.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(url, f"{key} {value!r:.40}, which is neither true nor false")
    return value


def _signers(doc: Json, url: str) -> tuple[str, ...] | None:
    """Who signed the block before; None where blocks carry no signatures (XAI)."""
    commit = doc.get("last_commit")
    if commit is None:
        return None
    signatures = commit.get("signatures") if isinstance(commit, dict) else None
    if not isinstance(signatures, list) or not all(isinstance(item, dict) for item in signatures):
        raise _wrong(url, "a last_commit without a list of signatures")
    return tuple(_text(item, "address", url) for item in signatures)


def _has_code(answer: Response) -> bool:
    """Whether a handler refused (its errors have a code), and not the CSRF check before it."""
    try:
        return "code" in _object(answer)
    except ChainopsError:
        return False


def _retry_after(answer: Response) -> float | None:
    """Seconds, from the header or the body of a 429; None when it says nothing usable."""
    try:
        return max(0.1, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        pass
    try:
        return _number(_object(answer).get("retry_after"))
    except ChainopsError:
        return None
