# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP API, in the XAI node's shapes.

Two height conventions, as there: /health, /stats and /blocks tell the number of blocks, everything else the index of the tip.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import statistics
import time
import typing as t
import urllib.parse

from . import governance, keys, metrics, misbehave, release, tx
from .access import Access, failure
from .web import Request, Response, reply

if t.TYPE_CHECKING:
    from .node import Node

TRUE = frozenset(("1", "true", "yes", "on"))
_HASH = re.compile(r"(0x)?[0-9a-f]{64}\Z")
_INTEGER = re.compile(r"-?[0-9]{1,18}\Z", re.ASCII)
_VERSIONED = re.compile(r"/(?:api/)?(v[0-9]+)(?=/|\Z)")


class Problem(Exception):
    """Ends a request with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def _integer(request: Request, name: str, default: int, low: int, high: int | None) -> int:
    """A query parameter. Raises Problem for what is no number or out of range (high None: capped by nobody)."""
    text = request.query.get(name)
    if text is None:
        return default
    if not _INTEGER.match(text) or int(text) < low or (high is not None and int(text) > high):
        bound = f"from {low} to {high}" if high is not None else f"from {low}"
        raise Problem(failure(f"{name} must be a whole number {bound}", "invalid_pagination", 400))
    return int(text)


def coins(units: int) -> float:
    return units / tx.UNIT


class Api:
    """Routes of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.access = Access()
        self.metrics = metrics.Metrics()
        self._due = 0.0  # of wrong answers
        self.face = misbehave.Face(node.ways, node.chain.height)
        self.test_endpoints = os.environ.get("REFNODE_TEST_ENDPOINTS") == "1"
        self.feature_override: bool | None = None
        self.faucet_lock = asyncio.Lock()
        self.routes: dict[str, dict[str, t.Callable[..., t.Any]]] = {
            "/": {"GET": self.root},
            "/health": {"GET": self.health},
            "/version": {"GET": self.version},
            "/openapi.json": {"GET": self.openapi},
            "/metrics": {"GET": self.prometheus},
            "/stats": {"GET": self.stats},
            "/block/latest": {"GET": self.latest},
            "/block/{block_hash}": {"GET": self.block_by_hash},
            "/blocks": {"GET": self.blocks},
            "/blocks/{index}": {"GET": self.block},
            "/peers": {"GET": self.peers},
            "/peers/add": {"POST": self.add_peer},
            "/mempool": {"GET": self.mempool},
            "/mempool/stats": {"GET": self.mempool_stats},
            "/transactions": {"GET": self.pending},
            "/transaction/{txid}": {"GET": self.transaction},
            "/address/{address}/nonce": {"GET": self.nonce},
            "/balance/{address}": {"GET": self.balance},
            "/history/{address}": {"GET": self.history},
            "/sync/status": {"GET": self.sync_status},
            "/finality/status": {"GET": self.finality_status},
            "/finality/validators": {"GET": self.finality_validators},
            "/contracts/governance/status": {"GET": self.feature_status},
            "/contracts/governance/feature": {"POST": self.feature_toggle},
            "/csrf-token": {"GET": self.csrf_token},
            "/send": {"POST": self.send},
            "/faucet/claim": {"POST": self.faucet},
            "/admin/emergency/status": {"GET": self.emergency_status},
            "/admin/emergency/pause": {"POST": self.pause},
            "/admin/emergency/unpause": {"POST": self.unpause},
            "/admin/mining/status": {"GET": self.mining_status},
            "/admin/mining/enable": {"POST": self.mining_enable},
            "/admin/mining/disable": {"POST": self.mining_disable},
            "/admin/peers": {"GET": self.admin_peers},
            "/p2p/messages": {"POST": self.p2p_messages},
            "/p2p/status": {"GET": self.p2p_status},
            "/p2p/blocks": {"GET": self.p2p_blocks},
            "/p2p/round": {"GET": self.p2p_round},
            "/p2p/mempool": {"GET": self.p2p_mempool},
            "/p2p/tx": {"POST": self.p2p_tx},
            "/p2p/faucet": {"POST": self.p2p_faucet},
        }
        self._patterns = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template) + r"\Z"), template)
            for template in self.routes
            if "{" in template
        ]

    # -- dispatch -----------------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        """One request, one answer; whatever goes wrong inside is a 500 without details."""
        began = time.monotonic()
        template, response = "unknown", failure("Internal server error", "internal_error", 500)
        try:
            template, response = await self._dispatch(request)
        except Problem as problem:
            response = problem.response
        except Exception:
            self.node.log.exception("%s %s failed", request.method, request.path)
        way = self.node.ways.break_contract
        if way and request.method == "GET" and not request.path.startswith(("/p2p/", "/openapi.json", "/csrf-token", "/admin/")):
            response = self._broken(way, request.path, response)
        response.headers.setdefault("X-API-Version", "v2")
        if not template.startswith("/p2p/"):
            self.metrics.request(request.method, template, response.status, time.monotonic() - began)
        return response

    def _broken(self, way: str, path: str, response: Response) -> Response:
        body = json.loads(response.body) if response.content_type == "application/json" and response.body else None
        status, shown = misbehave.break_contract(way, path, response.status, body)
        return response if (status, shown) == (response.status, body) else reply(shown, status)

    async def handle_p2p(self, request: Request) -> Response:
        """The peer-to-peer port serves only what peers ask for."""
        return await self.handle(request) if request.path.startswith("/p2p/") else reply({"error": "Not found"}, 404)

    async def _dispatch(self, request: Request) -> tuple[str, Response]:
        version = _VERSIONED.match(request.path)
        if version:
            if version[1] not in ("v1", "v2"):
                return "unknown", failure(f"API version {version[1]} is not supported", "unsupported_api_version", 404)
            request.path = request.path[version.end() :] or "/"
        limited = self.access.too_many(request)
        if limited:
            return "limited", limited
        template, arguments = request.path, {}
        if template not in self.routes:
            for pattern, name in self._patterns:
                match = pattern.match(request.path)
                if match:
                    template = name
                    arguments = {key: urllib.parse.unquote(text, errors="replace") for key, text in match.groupdict().items()}
                    break
            else:
                return "unknown", reply({"error": "Not found"}, 404)
        methods = self.routes[template]
        allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"})
        if request.method == "OPTIONS":
            return template, Response(204, headers={"Allow": ", ".join(allowed)})
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            return template, reply({"error": "Method not allowed"}, 405, Allow=", ".join(allowed))
        refused = self.access.csrf(request)
        if refused:
            return template, refused
        if not template.startswith("/p2p/"):
            await self._dawdle(request)
            if self._goes_wrong(template):
                return template, failure("Internal server error", "internal_error", 500)
        try:
            found = handler(request, **arguments)
            return template, (await found) if asyncio.iscoroutine(found) else found
        except Problem as problem:
            return template, problem.response

    async def _dawdle(self, request: Request) -> None:
        """Slow on purpose: by misbehaviour, or a test's own ``?delay_ms=``."""
        wait = self.node.ways.slow / 1000
        if self.test_endpoints:
            wait += _integer(request, "delay_ms", 0, 0, 30_000) / 1000
        if wait:
            await asyncio.sleep(wait)

    def _goes_wrong(self, template: str) -> bool:
        """Every so many requests of clients, evenly: by misbehaviour."""
        if not self.node.ways.errors or template in ("/health", "/metrics", "/openapi.json") or template.startswith("/admin/"):
            return False
        self._due += self.node.ways.errors / 100
        wrong = self._due >= 1
        self._due -= wrong
        return wrong

    def _body(self, request: Request) -> dict[str, t.Any]:
        try:
            value = request.json() if request.body else {}
        except ValueError as exc:
            raise Problem(failure(f"the body is not valid JSON: {exc}", "invalid_payload", 400)) from None
        if not isinstance(value, dict):
            raise Problem(failure("the body must be a JSON object", "invalid_payload", 400))
        return value

    def _must(self, refused: Response | None) -> None:
        if refused:
            self.metrics.security("warning")
            raise Problem(refused)

    def _not_paused(self, operation: str) -> None:
        if self.node.pause.paused:
            self.metrics.security("warning")
            raise Problem(
                failure(
                    "Operations are paused by administrator", "paused", 423, operation=operation, status=self.node.pause.status()
                )
            )

    # -- about the node -----------------------------------------------------------------------------------------------------

    def root(self, request: Request) -> Response:
        chain = self.node.chain
        return reply(
            {
                "status": "online",
                "node": "refnode",
                "version": release.INFO["version"],
                "chain_id": chain.genesis.chain_id,
                "endpoints": sorted(path for path in self.routes if not path.startswith("/p2p/")),
            }
        )

    def version(self, request: Request) -> Response:
        chain = self.node.chain
        return reply(
            {
                "software": "refnode",
                "version": release.INFO["version"],
                "release_id": release.INFO["id"],
                "storage_level": chain.level,
                "chain_id": chain.genesis.chain_id,
                "genesis_hash": self.node.network.genesis_hash,
                "signature_scheme": tx.SCHEME,
            }
        )

    def openapi(self, request: Request) -> Response:
        from .openapi import document

        return reply(document())

    def _tip(self) -> dict[str, t.Any]:
        return self._shown(self.node.chain.tip())

    def _shown(self, block: dict[str, t.Any]) -> dict[str, t.Any]:
        return self.face.show(block, self.node.chain.block)

    def health(self, request: Request) -> Response:
        node, issues = self.node, []
        chain = node.chain
        writable = os.access(chain.data_dir, os.W_OK)
        if not writable:
            issues.append("storage_unwritable")
        if node.network.peers and not node.network.live():
            issues.append("no_connected_peers")
        if len(chain.mempool.pending) > 10_000:
            issues.append("mempool_backlog")
        if node.ways.refuse_health:
            issues.append("blockchain_unavailable")
        if node.ways.stall or node.stalled:
            issues = []
        services: dict[str, t.Any] = {"api": "running", "storage": "healthy" if writable else "degraded", "p2p": "running"}
        body: dict[str, t.Any] = {
            "status": "unhealthy" if node.ways.refuse_health else "degraded" if issues else "healthy",
            "timestamp": time.time(),
            "blockchain": {
                "accessible": True,
                "height": chain.height + 1,
                "difficulty": 0,
                "total_supply": coins(chain.state.supply()),
                "latest_block_hash": self._tip()["hash"],
            },
            "services": services,
            "network": {"peers": node.network.live(), "configured": len(node.network.peers)},
            "backlog": {"pending_transactions": len(chain.mempool.pending), "orphan_blocks": 0, "orphan_transactions": 0},
        }
        if issues:
            services["issues"] = issues
            body["error"] = issues[0]
        return reply(body, 503 if issues else 200)

    def stats(self, request: Request) -> Response:
        node, chain = self.node, self.node.chain
        pool = chain.mempool
        return reply(
            {
                "chain_height": chain.height + 1,
                "pending_transactions_count": len(pool.pending),
                "orphan_blocks_count": 0,
                "orphan_transactions_count": 0,
                "total_circulating_supply": coins(chain.state.supply()),
                "difficulty": 0,
                "mempool_size_bytes": self._pool_bytes(),
                "latest_block_hash": self._tip()["hash"],
                "timestamp": time.time(),
                "mempool_rejected_invalid_total": pool.rejected,
                "mempool_rejected_banned_total": 0,
                "mempool_rejected_low_fee_total": 0,
                "mempool_rejected_sender_cap_total": 0,
                "mempool_evicted_low_fee_total": 0,
                "mempool_expired_total": pool.expired,
                "mempool_active_bans": 0,
                "miner_address": node.address,
                "peers": len(node.network.peers),
                "is_mining": node.mining,
                "node_uptime": time.time() - self.metrics.started,
            }
        )

    def _pool_bytes(self) -> int:
        pool = self.node.chain.mempool
        return sum(pool.sizes.get(txid, 0) for txid in pool.pending)

    # -- blocks -------------------------------------------------------------------------------------------------------------

    def latest(self, request: Request) -> Response:
        block = self._tip()
        summary = {
            "height": block["index"],
            "hash": block["hash"],
            "miner": block["miner"],
            "timestamp": block["timestamp"],
            "transactions": len(block["transactions"]),
            "difficulty": 0,
        }
        body = {"summary": summary, "block_number": block["index"], "hash": block["hash"], "timestamp": block["timestamp"]}
        if request.query.get("summary", "false").lower() not in TRUE:
            body["block"] = block
        return reply(body)

    def blocks(self, request: Request) -> Response:
        limit = _integer(request, "limit", 10, 1, 200)
        offset = _integer(request, "offset", 0, 0, None)
        top = self.node.chain.height
        found = (
            [self._shown(self.node.chain.block(h)) for h in range(top - offset, max(top - offset - limit, -1), -1)]
            if offset <= top
            else []
        )
        return reply({"total": top + 1, "limit": limit, "offset": offset, "blocks": found})

    def _tagged(self, request: Request, block: dict[str, t.Any]) -> Response:
        tag = f'"{block["hash"]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(304, headers={"ETag": tag})
        return reply(block, 200, ETag=tag, Cache_Control="public, max-age=31536000, immutable")

    def block(self, request: Request, index: str) -> Response:
        if not _INTEGER.match(index):
            return reply({"error": "Block index must be integer"}, 400)
        if not 0 <= int(index) <= self.node.chain.height:
            return reply({"error": "Block not found"}, 404)
        return self._tagged(request, self._shown(self.node.chain.block(int(index))))

    def block_by_hash(self, request: Request, block_hash: str) -> Response:
        normal = block_hash.lower()
        if not _HASH.match(normal):
            return reply({"error": "Invalid block hash"}, 400)
        height = self.node.chain.index.height_of_hash(normal.removeprefix("0x"))
        if height is None:
            return reply({"error": "Block not found"}, 404)
        return self._tagged(request, self._shown(self.node.chain.block(height)))

    # -- accounts and transactions ------------------------------------------------------------------------------------------

    def transaction(self, request: Request, txid: str) -> Response:
        chain = self.node.chain
        height = chain.index.height_of_tx(txid)
        if height is not None:
            entry = next((e for e in self._shown(chain.block(height))["transactions"] if e["txid"] == txid), None)
            if entry is not None:
                return reply({"found": True, "block": height, "confirmations": chain.height + 1 - height, "transaction": entry})
        pending = chain.mempool.pending.get(txid)
        if pending is not None:
            return reply({"found": True, "status": "pending", "transaction": pending})
        return reply({"found": False, "error": "Transaction not found"}, 404)

    def pending(self, request: Request) -> Response:
        limit, offset = _integer(request, "limit", 50, 1, 500), _integer(request, "offset", 0, 0, None)
        held = list(self.node.chain.mempool.pending.values())
        return reply({"count": len(held), "limit": limit, "offset": offset, "transactions": held[offset : offset + limit]})

    def nonce(self, request: Request, address: str) -> Response:
        chain = self.node.chain
        confirmed = chain.state.next_nonce(address) - 1
        following = chain.mempool.ahead.next_nonce(address)
        pending = following - 1 if following - 1 > confirmed else None
        return reply({"address": address, "confirmed_nonce": confirmed, "next_nonce": following, "pending_nonce": pending})

    def balance(self, request: Request, address: str) -> Response:
        units = self.node.chain.state.balance(address)
        return reply(
            {
                "address": address,
                "balance": coins(units),
                "balance_xai": f"{units / tx.UNIT:.8f} XAI",
                "balance_base_units": str(units),
            }
        )

    def history(self, request: Request, address: str) -> Response:
        limit, offset = _integer(request, "limit", 50, 1, 500), _integer(request, "offset", 0, 0, None)
        total, rows = self.node.chain.index.history(address, limit, offset)
        entries = [self._shown(self.node.chain.block(height))["transactions"][position] for height, position in rows]
        return reply({"address": address, "transaction_count": total, "limit": limit, "offset": offset, "transactions": entries})

    def mempool(self, request: Request) -> Response:
        limit = _integer(request, "limit", 100, 0, 1000)
        return reply({"success": True, "limit": limit, "mempool": self._overview(limit)})

    def _overview(self, limit: int) -> dict[str, t.Any]:
        pool, now = self.node.chain.mempool, time.time()
        pending = list(pool.pending.values())
        size = self._pool_bytes()
        fees = [float(entry["fee"]) for entry in pending]
        rates = [float(entry["fee"]) / max(pool.sizes.get(entry["txid"], 1), 1) for entry in pending]
        ages = [now - entry["timestamp"] for entry in pending]
        return {
            "pending_count": len(pending),
            "pool_size": len(pending),
            "size_bytes": size,
            "size_kb": size / 1024,
            "total_amount": sum((float(entry["amount"]) for entry in pending), 0.0),
            "total_fees": sum(fees, 0.0),
            "avg_fee": statistics.fmean(fees) if fees else 0.0,
            "median_fee": statistics.median(fees) if fees else 0.0,
            "avg_fee_rate": statistics.fmean(rates) if rates else 0.0,
            "median_fee_rate": statistics.median(rates) if rates else 0.0,
            "min_fee_rate": min(rates, default=0.0),
            "max_fee_rate": max(rates, default=0.0),
            "sponsored_transactions": 0,
            "oldest_transaction_age_seconds": max(ages, default=0.0),
            "newest_transaction_age_seconds": min(ages, default=0.0),
            "limits": {"max_transactions": 10_000, "max_per_sender": 1_000, "min_fee_rate": 0.0, "max_age_seconds": 86_400},
            "rejections": {
                "invalid_total": pool.rejected,
                "banned_total": 0,
                "low_fee_total": 0,
                "sender_cap_total": 0,
                "evicted_low_fee_total": 0,
                "expired_total": pool.expired,
                "active_bans": 0,
            },
            "timestamp": now,
            "transactions": [
                {
                    "txid": e["txid"],
                    "sender": e["sender"],
                    "recipient": e["recipient"],
                    "amount": e["amount"],
                    "fee": e["fee"],
                    "fee_rate": float(e["fee"]) / max(pool.sizes.get(e["txid"], 1), 1),
                    "size_bytes": pool.sizes.get(e["txid"], 0),
                    "timestamp": e["timestamp"],
                    "age_seconds": now - e["timestamp"],
                    "nonce": e["nonce"],
                    "type": e["tx_type"],
                    "rbf_enabled": False,
                    "gas_sponsor": None,
                }
                for e in pending[:limit]
            ],
            "transactions_returned": min(limit, len(pending)),
        }

    def mempool_stats(self, request: Request) -> Response:
        limit = _integer(request, "limit", 0, 0, 1000)
        view = self._overview(limit)
        ratio = min(view["pending_count"] / view["limits"]["max_transactions"], 1.0)
        word = "critical" if ratio >= 0.9 else "elevated" if ratio >= 0.7 else "moderate" if ratio >= 0.5 else "normal"
        base = view["median_fee_rate"] or view["avg_fee_rate"]
        return reply(
            {
                "success": True,
                "limit": limit,
                "timestamp": view["timestamp"],
                "fees": {
                    "average_fee": view["avg_fee"],
                    "median_fee": view["median_fee"],
                    "average_fee_rate": view["avg_fee_rate"],
                    "median_fee_rate": view["median_fee_rate"],
                    "min_fee_rate": view["min_fee_rate"],
                    "max_fee_rate": view["max_fee_rate"],
                    "recommended_fee_rates": {
                        "slow": max(base * 0.75, view["min_fee_rate"]),
                        "standard": base,
                        "priority": base * 1.25,
                    },
                },
                "pressure": {
                    "status": word,
                    "capacity_ratio": ratio,
                    "pending_transactions": view["pending_count"],
                    "max_transactions": view["limits"]["max_transactions"],
                    "age_pressure": min(max(view["oldest_transaction_age_seconds"] / 86_400, 0.0), 1.0),
                    "oldest_transaction_age_seconds": view["oldest_transaction_age_seconds"],
                    "size_bytes": view["size_bytes"],
                    "size_kb": view["size_kb"],
                },
                "sponsored_transactions": 0,
                "rejections": view["rejections"],
                "transactions": view["transactions"],
                "transactions_returned": view["transactions_returned"],
            }
        )

    async def send(self, request: Request) -> Response:
        self._must(self.access.key(request))
        self._not_paused("send_transaction")
        chain = self.node.chain
        try:
            entry = tx.parse(self._body(request), chain.genesis.chain_id)
            governance.check(entry)
            tx.check_signature(entry, chain.genesis.chain_id)
            await self._admit(entry)
        except tx.Rejected as exc:
            return failure(exc.message, exc.code, 400, **exc.context)
        if not await self._relay(entry):
            return failure("No peer could be reached; the transaction was not taken. Send it again later.", "not_relayed", 503)
        return reply({"success": True, "txid": entry["txid"], "message": "Transaction submitted successfully"})

    async def _admit(self, entry: dict[str, t.Any]) -> None:
        """Into the mempool. A gap before its nonce may be ours (just restarted): ask the peers once. Raises Rejected."""
        pool = self.node.chain.mempool
        try:
            pool.add(entry, checked=True)
        except tx.Rejected as exc:
            if exc.context.get("reason") not in ("nonce", "funds") or entry["nonce"] < exc.context.get("expected", 0):
                raise
            await self.node.network.pull_mempools()
            pool.add(entry, checked=True)

    async def _relay(self, entry: dict[str, t.Any]) -> bool:
        """Peers have it before the client hears "accepted": a stop right after loses nothing."""
        network = self.node.network
        if not network.peers:
            self.node.chain.save_pending()
            return True
        if await network.spread(entry):
            return True
        self.node.chain.mempool.pending.pop(entry["txid"], None)
        self.node.chain.mempool.refresh()
        return False

    async def faucet(self, request: Request) -> Response:
        self._must(self.access.key(request))
        address = self._body(request).get("address")
        if not isinstance(address, str) or not address:
            self.metrics.count("xai_faucet_errors_total")
            return failure("Invalid faucet request", "invalid_payload", 400)
        if not keys.is_address(address):
            self.metrics.count("xai_faucet_errors_total")
            return failure(
                f"Invalid address for this network. Expected prefix {keys.PREFIX}.",
                "invalid_address",
                400,
                expected_prefix=keys.PREFIX,
            )
        answer = await self._claim(address) if self.node.faucet_key else await self._forward_claim(address)
        self.metrics.count("xai_faucet_claims_total" if answer.status == 200 else "xai_faucet_errors_total")
        return answer

    async def _claim(self, address: str) -> Response:
        chain, amount, key = self.node.chain, self.node.chain.genesis.faucet_amount, t.cast(str, self.node.faucet_key)
        if amount <= 0:
            return failure("Faucet amount is not configured", "faucet_misconfigured", 503)
        async with self.faucet_lock:
            own = keys.address_of(keys.public_key_of(key))
            entry = tx.build(
                key,
                chain.genesis.chain_id,
                recipient=address,
                amount=amount,
                nonce=chain.mempool.ahead.next_nonce(own),
                timestamp=round(time.time(), 3),
                tx_type="faucet",
            )
            try:
                await self._admit(entry)
            except tx.Rejected as exc:
                return failure(exc.message, exc.code, 400, **exc.context)
            if not await self._relay(entry):
                return failure("No peer could be reached; nothing was paid out", "not_relayed", 503)
        return reply(
            {
                "success": True,
                "amount": amount,
                "txid": entry["txid"],
                "message": f"Testnet faucet claim successful! {amount} XAI will be added to your address after the next block.",
                "note": "This is testnet XAI - it has no real value!",
            }
        )

    async def _forward_claim(self, address: str) -> Response:
        """A node without a faucet of its own (an observer) asks its peers for theirs."""
        for peer in self.node.network.peers:
            with contextlib.suppress(Exception):
                status, body = await peer.client.request("POST", "/p2p/faucet", {"address": address}, timeout=3.0)
                if status == 200 and isinstance(body, dict):
                    await self.node.network.pull_mempools()
                    return reply(body)
        return failure("Faucet is disabled on this network", "faucet_disabled", 403)

    # -- network and finality -----------------------------------------------------------------------------------------------

    def peers(self, request: Request) -> Response:
        network = self.node.network
        verbose = request.query.get("verbose", "false").lower() in TRUE
        body: dict[str, t.Any] = {"verbose": verbose, "count": len(network.peers), "peers": sorted(p.url for p in network.peers)}
        if verbose:
            connections = [
                {
                    "peer_id": p.address or p.url,
                    "url": p.url,
                    "connected": p.live,
                    "connected_at": p.connected_at,
                    "last_seen": p.seen or None,
                    "height": p.height if p.height >= 0 else None,
                    "latency_ms": round(p.client.latency * 1000, 2),
                    "wrong_chain": p.wrong_chain,
                }
                for p in network.peers
            ]
            body |= {
                "connections": [c for c in connections if c["connected"]],
                "configured": connections,
                "connected_total": network.live(),
                "count": network.live(),
                "diversity": {},
                "limits": {},
                "trusted_peers": [],
                "banned_peers": [],
                "discovered": [],
            }
        return reply(body)

    def add_peer(self, request: Request) -> Response:
        self._must(self.access.key(request))
        url = self._body(request).get("url")
        try:
            if not isinstance(url, str):
                raise ValueError("url must be a text")
            self.node.network.add(url)
        except ValueError as exc:
            return failure(str(exc), "invalid_payload", 400)
        return reply({"success": True, "message": f"Peer {url} added"})

    def admin_peers(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        request.query["verbose"] = "true"
        return self.peers(request)

    def sync_status(self, request: Request) -> Response:
        chain, best = self.node.chain, self.node.network.best()
        return reply(
            {
                "sync_status": {
                    "header_sync": {"enabled": False},
                    "checkpoint_sync": {"enabled": False, "stage": "idle"},
                    "state_sync": {
                        "current_height": chain.height,
                        "pending_transactions": len(chain.mempool.pending),
                        "target_height": best,
                        "syncing": best - chain.height > 1,
                    },
                }
            }
        )

    def finality_status(self, request: Request) -> Response:
        chain = self.node.chain
        members = chain.genesis.validators
        tip = self._tip()
        return reply(
            {
                "success": True,
                "finality_enabled": True,
                "finalized_height": tip["index"],
                "finalized_hash": tip["hash"],
                "highest_finalized_height": tip["index"],
                "finalized_blocks": tip["index"] + 1,
                "total_validators": len(members.keys),
                "total_power": members.total,
                "quorum_power": members.total * 2 // 3 + 1,
                "pending_blocks": 0,
                "validator_address": self.node.address if self.node.is_validator else None,
                "equivocations": self.node.evidence.listed(),
            }
        )

    def finality_validators(self, request: Request) -> Response:
        members = self.node.chain.genesis.validators.members
        return reply(
            {
                "success": True,
                "finality_enabled": True,
                "total_validators": len(members),
                "validators": [{"address": a, "public_key": k, "voting_power": p} for a, k, p in members],
            }
        )

    def feature_status(self, request: Request) -> Response:
        enabled = self.node.chain.state.feature("smart_contracts") if self.feature_override is None else self.feature_override
        configured = os.environ.get("XAI_VM_ENABLED") == "1"
        return reply(
            {
                "success": True,
                "feature_name": "smart_contracts",
                "config_enabled": configured,
                "governance_enabled": enabled,
                "contract_manager_ready": enabled and configured,
                "contracts_tracked": 0,
                "receipts_tracked": 0,
            }
        )

    def feature_toggle(self, request: Request) -> Response:
        """As on XAI: flips this node's answer alone, without a vote, until the next start. Chain state is untouched."""
        self._must(self.access.administrator(request, always=True))
        enabled = self._body(request).get("enabled")
        if not isinstance(enabled, bool):
            return failure("enabled must be true or false", "invalid_payload", 400)
        self.feature_override = enabled
        self.metrics.security("critical")
        return reply({"success": True, "feature_name": "smart_contracts", "enabled": enabled})

    # -- control ------------------------------------------------------------------------------------------------------------

    def csrf_token(self, request: Request) -> Response:
        return self.access.issue(request)

    def emergency_status(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        return reply({"success": True, **self.node.pause.status(), "circuit_breaker": {"state": "CLOSED", "failure_count": 0}})

    def pause(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        reason = str(self._body(request).get("reason") or "Manual emergency pause").strip()
        self.node.pause.set(True, reason)
        self.metrics.security("critical")
        return reply({"success": True, "paused": True, "reason": reason})

    def unpause(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        reason = str(self._body(request).get("reason") or "Manual unpause").strip()
        self.node.pause.set(False, reason)
        self.metrics.security("warning")
        return reply({"success": True, "paused": False, "reason": reason})

    def _mining(self) -> dict[str, t.Any]:
        return {
            "success": True,
            "is_mining": self.node.mining,
            "mining_enabled": self.node.mining,
            "miner_address": self.node.address,
            "mining_requested": self.node.is_validator,
        }

    def mining_status(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        return reply(self._mining())

    def mining_enable(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        self._not_paused("mining_enable")
        if not self.node.is_validator:
            return failure("This node holds no validator key", "not_a_validator", 400)
        self.node.set_mining(True)
        return reply(self._mining())

    def mining_disable(self, request: Request) -> Response:
        self._must(self.access.administrator(request))
        self.node.set_mining(False)
        return reply(self._mining())

    # -- peers --------------------------------------------------------------------------------------------------------------

    def p2p_messages(self, request: Request) -> Response:
        try:
            return reply(self.node.network.hear(request.json()))
        except ValueError as exc:
            return failure(str(exc), "invalid_payload", 400)

    def p2p_status(self, request: Request) -> Response:
        return reply(self.node.network.greeting())

    def p2p_blocks(self, request: Request) -> Response:
        chain = self.node.chain
        begin, limit = _integer(request, "from", 1, 0, None), _integer(request, "limit", 50, 1, 200)
        records, size = [], 0
        for height in range(begin, min(begin + limit, chain.height + 1)):
            record = chain.record(height)
            size += sum(chain.mempool.sizes.get(e["txid"], 600) for e in record["block"]["transactions"]) + 2000
            if records and size > 4_000_000:
                break
            records.append(record)
        return reply({**self.node.network.greeting(), "blocks": records})

    def p2p_round(self, request: Request) -> Response:
        height = _integer(request, "height", 0, 0, None)
        consensus = self.node.consensus
        return reply({**self.node.network.greeting(), "messages": consensus.messages(height) if consensus.running else []})

    def p2p_mempool(self, request: Request) -> Response:
        pending = list(self.node.chain.mempool.pending.values())
        return reply({**self.node.network.greeting(), "transactions": pending[:2000]})

    def p2p_tx(self, request: Request) -> Response:
        body = self._body(request)
        if body.get("genesis_hash") != self.node.network.genesis_hash:
            return failure("another chain", "wrong_chain", 409)
        return reply({**self.node.network.greeting(), "have": self.node.network.take(body.get("transactions"))})

    async def p2p_faucet(self, request: Request) -> Response:
        address = self._body(request).get("address")
        if not self.node.faucet_key or not keys.is_address(address):
            return failure("Faucet is disabled on this network", "faucet_disabled", 403)
        return await self._claim(t.cast(str, address))

    # -- metrics ------------------------------------------------------------------------------------------------------------

    def prometheus(self, request: Request) -> Response:
        if self.node.ways.no_metrics:
            return reply({"error": "Not found"}, 404)
        node, chain = self.node, self.node.chain
        best = node.network.best()
        gauges: dict[str, float] = {
            "xai_chain_height": chain.height + 1,
            "xai_best_known_block_number": best,
            "xai_sync_status": int(best - chain.height <= 1),
            "xai_pending_transactions": len(chain.mempool.pending),
            "xai_peers_connected": node.network.live(),
            "xai_node_uptime_seconds": time.time() - self.metrics.started,
            "xai_consensus_forks_total": 0,
            "xai_consensus_reorgs_total": 0,
            "xai_consensus_finalized_height": chain.height,
            "xai_validator_votes_total": node.consensus.votes_cast,
            "xai_validator_double_sign_events_total": len(node.evidence.listed()),
            "xai_mempool_size_bytes": self._pool_bytes(),
            "xai_mempool_rejected_invalid_total": chain.mempool.rejected,
            "xai_mempool_expired_total": chain.mempool.expired,
            "xai_mempool_active_bans": 0,
            "xai_blocks_mined_total": node.blocks_proposed,
            "xai_blocks_received_total": node.blocks_seen,
            "xai_transactions_processed_total": chain.state.transactions,
            "xai_p2p_messages_sent_total": node.network.sent,
            "xai_p2p_messages_received_total": node.network.received,
            "xai_p2p_dial_failures_total": node.network.dials_failed,
            "xai_api_active_connections": node.server.connections(),
            "xai_api_errors_total": self.metrics.errors,
            "xai_validator_active_count": len(chain.genesis.validators.keys),
            "xai_withdrawals_daily_total": 0,
            "xai_withdrawals_rate_per_minute": 0,
            "xai_withdrawals_time_locked_backlog": 0,
            "xai_withdrawal_pending_queue": 0,
            "process_resident_memory_bytes": metrics.resident_bytes(),
            "process_cpu_seconds_total": metrics.cpu_seconds(),
            "process_start_time_seconds": self.metrics.started,
            "xai_block_interval_seconds": node.last_interval,
            "refnode_consensus_failed_rounds_total": node.consensus.rounds_failed,
            "refnode_storage_level": chain.level,
            "refnode_paused": int(node.pause.paused),
        }
        for name in (
            "xai_security_events_total",
            "xai_security_events_warning_total",
            "xai_security_events_critical_total",
            "xai_faucet_claims_total",
            "xai_faucet_errors_total",
        ):
            gauges[name] = self.metrics.counters.get(name, 0)
        labelled = {
            "xai_validator_missed_blocks_total": [({"validator": a}, float(n)) for a, n in sorted(node.missed.items())],
            "refnode_build_info": [({"version": str(release.INFO["version"]), "release_id": str(release.INFO["id"])}, 1.0)],
        }
        text = self.metrics.render(gauges, labelled)
        return Response(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")
