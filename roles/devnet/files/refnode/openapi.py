# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own OpenAPI 3.0.3 document, served at ``/openapi.json``. What it says of the read endpoints is exact."""

from __future__ import annotations

import typing as t

from . import release

Schema = dict[str, t.Any]

HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
MAYBE_TEXT: Schema = {"type": "string", "nullable": True}
MAYBE_WHOLE: Schema = {"type": "integer", "nullable": True}


def record(properties: t.Mapping[str, Schema], optional: t.Collection[str] = ()) -> Schema:
    """An object; every property is required unless named in ``optional``."""
    return {"type": "object", "required": sorted(set(properties) - set(optional)), "properties": dict(properties)}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, schema: Schema, kind: str = "application/json") -> Schema:
    return {"description": description, "content": {kind: {"schema": schema}}}


def query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def path(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def span(low: int, high: int | None, default: int) -> Schema:
    schema: Schema = {"type": "integer", "minimum": low, "default": default}
    if high is not None:
        schema["maximum"] = high
    return schema


LIMITED = answer("Too many requests", ref("Error"))
NOT_FOUND = answer("Not found", ref("Error"))
BAD = answer("Bad request", ref("Error"))
ETAG = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": TEXT,
    "description": "ETag of the block the client has",
}


def get(
    summary: str,
    tag: str,
    good: Schema,
    *parameters: Schema,
    bad: bool = False,
    missing: bool = False,
    more: t.Mapping[str, Schema] | None = None,
) -> Schema:
    responses: Schema = {"200": good, "429": LIMITED}
    if bad:
        responses["400"] = BAD
    if missing:
        responses["404"] = NOT_FOUND
    operation: Schema = {"summary": summary, "tags": [tag], "responses": {**responses, **(more or {})}}
    if parameters:
        operation["parameters"] = list(parameters)
    return {"get": operation}


def _schemas() -> dict[str, Schema]:
    transaction = record(
        {
            "txid": HASH,
            "sender": TEXT,
            "recipient": TEXT,
            "amount": NUMBER,
            "fee": NUMBER,
            "public_key": TEXT,
            "nonce": WHOLE,
            "timestamp": NUMBER,
            "signature": TEXT,
            "tx_type": TEXT,
            "inputs": array({"type": "object"}),
            "outputs": array({"type": "object"}),
            "metadata": {"type": "object"},
        }
    )
    commit = record(
        {
            "height": {"type": "integer", "minimum": -1},
            "round": WHOLE,
            "block_hash": HASH,
            "signatures": array(record({"address": TEXT, "signature": TEXT})),
        }
    )
    block = record(
        {
            "index": WHOLE,
            "version": WHOLE,
            "chain_id": TEXT,
            "previous_hash": HASH,
            "hash": HASH,
            "timestamp": NUMBER,
            "merkle_root": HASH,
            "state_root": HASH,
            "miner": TEXT,
            "round": WHOLE,
            "transactions": array(ref("Transaction")),
            "last_commit": ref("Commit"),
            "difficulty": WHOLE,
            "nonce": WHOLE,
        }
    )
    health = record(
        {
            "status": {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]},
            "timestamp": NUMBER,
            "blockchain": record(
                {"accessible": FLAG, "height": WHOLE, "difficulty": WHOLE, "total_supply": NUMBER, "latest_block_hash": HASH}
            ),
            "services": record({"api": TEXT, "storage": TEXT, "p2p": TEXT, "issues": array(TEXT)}, optional=("issues",)),
            "network": record({"peers": WHOLE, "configured": WHOLE}),
            "backlog": record({"pending_transactions": WHOLE, "orphan_blocks": WHOLE, "orphan_transactions": WHOLE}),
            "error": TEXT,
        },
        optional=("error",),
    )
    equivocation = record({"address": TEXT, "height": WHOLE, "round": WHOLE, "step": WHOLE, "hashes": array(TEXT)})
    return {
        "Error": record(
            {"success": FLAG, "error": TEXT, "code": TEXT, "context": {"type": "object"}, "found": FLAG},
            optional=("success", "code", "context", "found"),
        ),
        "Transaction": transaction,
        "Commit": commit,
        "Block": block,
        "Health": health,
        "Equivocation": equivocation,
    }


def _reads() -> dict[str, Schema]:
    address = path("address", {"type": "string", "minLength": 1}, "TXAI and 40 hex digits; unknown addresses hold nothing")
    block = answer("The block", ref("Block"))
    same = {"304": {"description": "The client has this block"}}
    summary = record(
        {"height": WHOLE, "hash": HASH, "miner": TEXT, "timestamp": NUMBER, "transactions": WHOLE, "difficulty": WHOLE}
    )
    latest = record(
        {"summary": summary, "block_number": WHOLE, "hash": HASH, "timestamp": NUMBER, "block": ref("Block")}, optional=("block",)
    )
    stats = {
        **dict.fromkeys(
            ("chain_height", "pending_transactions_count", "orphan_blocks_count", "mempool_size_bytes", "peers"), WHOLE
        ),
        **dict.fromkeys(("total_circulating_supply", "timestamp", "node_uptime"), NUMBER),
        "latest_block_hash": HASH,
        "miner_address": TEXT,
        "is_mining": FLAG,
        "difficulty": WHOLE,
    }
    version = {
        **dict.fromkeys(("software", "version", "release_id", "chain_id", "signature_scheme"), TEXT),
        "storage_level": WHOLE,
        "genesis_hash": HASH,
    }
    pages = [query("limit", span(1, 200, 10), "blocks"), query("offset", span(0, None, 0), "blocks to skip, from the newest")]
    entry = record(
        {"found": FLAG, "block": WHOLE, "confirmations": WHOLE, "status": TEXT, "transaction": ref("Transaction")},
        optional=("block", "confirmations", "status"),
    )
    history_pages = [query("limit", span(1, 500, 50), "transactions"), query("offset", span(0, None, 0), "transactions to skip")]
    sync = record(
        {
            "header_sync": record({"enabled": FLAG}),
            "checkpoint_sync": record({"enabled": FLAG, "stage": TEXT}),
            "state_sync": record(
                {"current_height": WHOLE, "pending_transactions": WHOLE, "target_height": WHOLE, "syncing": FLAG}
            ),
        }
    )
    finality = {
        **dict.fromkeys(("finalized_height", "highest_finalized_height", "finalized_blocks", "total_validators"), WHOLE),
        **dict.fromkeys(("total_power", "quorum_power", "pending_blocks"), WHOLE),
        "success": FLAG,
        "finality_enabled": FLAG,
        "finalized_hash": HASH,
        "validator_address": MAYBE_TEXT,
        "equivocations": array(ref("Equivocation")),
    }
    feature = {
        **dict.fromkeys(("success", "config_enabled", "governance_enabled", "contract_manager_ready"), FLAG),
        "feature_name": TEXT,
        "contracts_tracked": WHOLE,
        "receipts_tracked": WHOLE,
    }
    nonce = record(
        {
            "address": TEXT,
            "confirmed_nonce": {"type": "integer", "minimum": -1},
            "next_nonce": WHOLE,
            "pending_nonce": MAYBE_WHOLE,
        }
    )
    peers = record(
        {
            "verbose": FLAG,
            "count": WHOLE,
            "peers": array(TEXT),
            "connections": array({"type": "object"}),
            "connected_total": WHOLE,
        },
        optional=("connections", "connected_total"),
    )
    pool = record(
        {"pending_count": WHOLE, "size_bytes": WHOLE, "transactions": array({"type": "object"}), "transactions_returned": WHOLE}
    )
    return {
        "/health": get(
            "Is the node well",
            "node",
            answer("Healthy", ref("Health")),
            more={"503": answer("Degraded or unhealthy", ref("Health"))},
        ),
        "/version": get("What runs here", "node", answer("The release and the chain", record(version))),
        "/stats": get("Chain and node figures", "node", answer("Figures; chain_height is the number of blocks", record(stats))),
        "/metrics": get("Prometheus metrics", "node", answer("Text format 0.0.4", TEXT, "text/plain")),
        "/block/latest": get(
            "The tip",
            "blocks",
            answer("The newest block", latest),
            query("summary", TEXT, "1, true, yes or on: without the block itself"),
        ),
        "/block/{block_hash}": get(
            "A block by its hash",
            "blocks",
            block,
            path("block_hash", {"type": "string", "pattern": "^(0[xX])?[0-9a-fA-F]{64}$"}, "64 hex digits"),
            ETAG,
            bad=True,
            missing=True,
            more=same,
        ),
        "/blocks": get(
            "Blocks, newest first",
            "blocks",
            answer("A page", record({"total": WHOLE, "limit": WHOLE, "offset": WHOLE, "blocks": array(ref("Block"))})),
            *pages,
            bad=True,
        ),
        "/blocks/{index}": get(
            "A block by its index",
            "blocks",
            block,
            path("index", {"type": "integer"}, "0 is the first"),
            ETAG,
            bad=True,
            missing=True,
            more=same,
        ),
        "/peers": get(
            "Peers", "network", answer("Peers", peers), query("verbose", TEXT, "1, true, yes or on: with live connections")
        ),
        "/mempool": get(
            "Pending transactions",
            "transactions",
            answer("Overview", record({"success": FLAG, "limit": WHOLE, "mempool": pool})),
            query("limit", span(0, 1000, 100), "transactions listed"),
            bad=True,
        ),
        "/mempool/stats": get(
            "Fees and pressure",
            "transactions",
            answer(
                "Figures", record({"success": FLAG, "limit": WHOLE, "fees": {"type": "object"}, "pressure": {"type": "object"}})
            ),
            query("limit", span(0, 1000, 0), "transactions listed"),
            bad=True,
        ),
        "/transactions": get(
            "Pending transactions, whole",
            "transactions",
            answer(
                "A page, in the order they came",
                record({"count": WHOLE, "limit": WHOLE, "offset": WHOLE, "transactions": array(ref("Transaction"))}),
            ),
            *history_pages,
            bad=True,
        ),
        "/transaction/{txid}": get(
            "A transaction",
            "transactions",
            answer("Included (with block) or pending (with status)", entry),
            path("txid", {"type": "string", "minLength": 1}, "its id"),
            missing=True,
        ),
        "/address/{address}/nonce": get("Nonces of an address", "accounts", answer("Nonces", nonce), address, missing=True),
        "/balance/{address}": get(
            "Balance of an address",
            "accounts",
            answer("Balance", record({"address": TEXT, "balance": NUMBER, "balance_xai": TEXT, "balance_base_units": TEXT})),
            address,
            missing=True,
        ),
        "/history/{address}": get(
            "Transactions of an address",
            "accounts",
            answer(
                "A page",
                record(
                    {
                        "address": TEXT,
                        "transaction_count": WHOLE,
                        "limit": WHOLE,
                        "offset": WHOLE,
                        "transactions": array(ref("Transaction")),
                    }
                ),
            ),
            address,
            *history_pages,
            bad=True,
            missing=True,
        ),
        "/sync/status": get("Catching up", "network", answer("Heights are tip indexes", record({"sync_status": sync}))),
        "/finality/status": get("Finality and contradictions seen", "network", answer("Finality", record(finality))),
        "/finality/validators": get(
            "The validator set",
            "network",
            answer(
                "Validators",
                record(
                    {
                        "success": FLAG,
                        "finality_enabled": FLAG,
                        "total_validators": WHOLE,
                        "validators": array(record({"address": TEXT, "public_key": TEXT, "voting_power": WHOLE})),
                    }
                ),
            ),
        ),
        "/contracts/governance/status": get(
            "State of the smart_contracts feature", "governance", answer("State", record(feature))
        ),
        "/csrf-token": get(
            "A token for writes", "access", answer("Token and session cookie", record({"csrf_token": TEXT, "session_id": TEXT}))
        ),
    }


def _write(summary: str, body: Schema, good: Schema, refusals: t.Collection[str]) -> Schema:
    texts = {
        "400": "Refused; code says why",
        "401": "No valid API key",
        "403": "No valid CSRF token, or switched off",
        "423": "Paused",
        "429": "Too many requests",
        "503": "No peer could be reached, nothing was taken",
    }
    responses = {"200": answer("Accepted", good), **{code: answer(texts[code], ref("Error")) for code in sorted(refusals)}}
    content = {"application/json": {"schema": body}}
    return {
        "post": {
            "summary": summary,
            "tags": ["writes"],
            "security": [{"apiKey": []}],
            "requestBody": {"required": True, "content": content},
            "responses": responses,
        }
    }


def document() -> Schema:
    """The whole document."""
    done = record({"success": FLAG, "txid": HASH, "message": TEXT})
    claim = record({"address": {"type": "string", "pattern": "^TXAI[0-9a-f]{40}$"}})
    paths = _reads()
    paths["/send"] = _write("Submit a signed transaction", {"type": "object"}, done, ("400", "401", "403", "423", "429", "503"))
    paths["/faucet/claim"] = _write(
        "Ask for test coins",
        claim,
        record({**done["properties"], "amount": NUMBER}),
        ("400", "401", "403", "429", "503"),
    )
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Reference node",
            "version": str(release.INFO["version"]),
            "description": "A small BFT network for rehearsals, in the shapes of the XAI node's HTTP API.",
            "license": {"name": "GPL-3.0-or-later"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }
