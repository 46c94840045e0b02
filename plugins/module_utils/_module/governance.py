# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the governance modules share: their options, the key, and one way from a plan to a transaction in a block."""

from __future__ import annotations

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from .._chain import registry
from .._chain.protocol import NodeClient
from .._core.errors import InputError
from .._governance import acting, approval, binding, people, readers, signing
from .._governance.cache import Cache
from .._governance.tally import Tally
from .base import Options

#: Nodes to read the chain from, and how they are believed. Doc fragment ``chainops.validator.readers``.
READERS: Options = {
    "readers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
        },
    },
    "min_readers": {"type": "int", "default": 0},
    "confirmations": {"type": "int"},
    "read_timeout": {"type": "float", "default": 300.0},
    "cache_dir": {"type": "path"},
}

#: Who signs, and how long a transaction is waited for. Doc fragment ``chainops.validator.signing``.
SIGNING: Options = {
    "key_file": {"type": "path", "no_log": False},
    "key_env": {"type": "str", "default": "CHAINOPS_SIGNING_KEY", "no_log": False},
    "network": {"type": "str", "default": "testnet", "choices": ["testnet", "mainnet"]},
    "wait_timeout": {"type": "float", "default": 120.0},
}

#: People who approve beside the chain; the module that has them documents them.
_PEOPLE: Options = {
    "required": {"type": "int", "default": 0},
    "names": {"type": "list", "elements": "str", "default": []},
    "allowed_signers": {"type": "path"},
    "signatures": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path"},
            "content": {"type": "str"},
        },
        "mutually_exclusive": [("path", "content")],
        "required_one_of": [("path", "content")],
    },
}
PEOPLE: Options = {
    "approvals": {"type": "dict", "default": {}, "apply_defaults": True, "options": _PEOPLE},
    "break_glass": {
        "type": "dict",
        "options": {
            "reason": {"type": "str", "required": True},
            "expires_height": {"type": "int", "required": True},
            "approvals": {"type": "dict", "required": True, "options": _PEOPLE},
        },
    },
}

_PREFIXES = {"testnet": "TXAI", "mainnet": "XAI"}


def client(module: AnsibleModule) -> NodeClient:
    """The node that the NODE options name."""
    options = module.params
    return registry.adapter(options["chain"]).client(options["api_url"], timeout=options["timeout"], api_key=options["api_key"])


def confirmations(options: t.Mapping[str, t.Any]) -> int:
    """How far below its tip a node of this chain is believed where nothing is ever final."""
    given = options["confirmations"]
    return registry.adapter(options["chain"]).confirmations if given is None else int(given)


def cache_of(options: t.Mapping[str, t.Any]) -> Cache | None:
    return Cache(options["cache_dir"]) if options["cache_dir"] else None


def read_chain(options: t.Mapping[str, t.Any], cache: Cache | None, *, count_coins: bool = False) -> readers.Reading:
    """What the readers that the READERS options name agree on."""
    adapter = registry.adapter(options["chain"])
    return readers.read(
        [readers.Reader(**reader) for reader in options["readers"]],
        lambda reader: adapter.client(reader.url, timeout=options["timeout"], lanes=readers.LANES),
        min_readers=options["min_readers"],
        confirmations=confirmations(options),
        patience=options["timeout"],
        budget=options["read_timeout"],
        cache=cache,
        count_coins=count_coins,
    )


def reading_facts(read: readers.Reading) -> dict[str, t.Any]:
    """What was read, as modules return it; keys are always the same."""
    return {
        "height": read.height,
        "hash": read.hash,
        "final": read.final,
        "chain_id": read.chain_id,
        "genesis_hash": read.genesis_hash,
        "seconds_per_block": read.seconds_per_block,
        "blocks_read": read.blocks_read,
        "readers": [answer.as_dict() for answer in read.answers],
    }


class Signer:
    """The key that the SIGNING options name, for their network."""

    def __init__(self, module: AnsibleModule) -> None:
        options = module.params
        self.key = _key(module, options["key_file"], options["key_env"])
        self.prefix = _PREFIXES[options["network"]]
        self.address = self.key.address(self.prefix)


def _key(module: AnsibleModule, key_file: str | None, key_env: str) -> signing.Key:
    signing.require()
    if key_file is not None:
        key = signing.load_key_file(key_file)
    elif os.environ.get(key_env):
        key = signing.load_key(os.environ[key_env], f"environment variable {key_env}")
    else:
        raise InputError(f"no key to sign with: give key_file, or the key in the environment variable {key_env}")
    module.no_log_values.add(key.secret_hex())
    return key


def act(module: AnsibleModule, node: NodeClient, signer: Signer, metadata: t.Any, ledger: acting.Ledger) -> acting.Included:
    """Send what was planned and wait until it is in a block."""
    return acting.submit(node, signer.key, metadata, ledger, timeout=module.params["wait_timeout"], prefix=signer.prefix)


def asked(options: t.Mapping[str, t.Any], where: str, least: int = 0) -> people.Asked:
    """People as the PEOPLE options name them. A signature that isn't there yet is no error: nobody has signed, then."""
    given = []
    for number, one in enumerate(options["signatures"]):
        name = approval.require_name(one["name"], f"{where}.signatures[{number}].name")
        text, problem = one["content"], None
        if text is None:
            try:
                text = _content(one["path"], approval.MAX_SIGNATURE).decode("utf-8", "replace")
            except OSError as exc:
                problem = f"{one['path']} can't be read: {exc.strerror}"
        given.append(approval.Signature(name, text, problem))
    signers, demand = None, approval.Demand.from_dict(options, where, least)
    if options["allowed_signers"] is not None and demand.required:
        try:
            signers = _content(options["allowed_signers"], approval.MAX_SIGNERS)
        except OSError as exc:
            path = options["allowed_signers"]
            raise InputError(f"{where}.allowed_signers: {path} can't be read: {exc.strerror}", path=path) from exc
    return people.Asked(demand, tuple(given), signers)


def _content(path: str, most: int) -> bytes:
    """A file's content, cut just past what is too much."""
    with open(path, "rb") as stream:
        return stream.read(most + 1)


def proposal_facts(result: Tally) -> dict[str, t.Any]:
    """A proposal as the modules return it; keys are always the same."""
    first = result.submission
    data = first.metadata if first is not None else {}
    return {
        "id": result.proposal_id,
        "stage": result.stage,
        "title": data.get("title"),
        "description": data.get("description"),
        "proposal_type": data.get("proposal_type"),
        "submitter": first.sender if first is not None else None,
        "submitted_height": first.height if first is not None else None,
        "submitted_txid": first.txid if first is not None else None,
        "payload": result.payload,
        "payload_sha256": None if result.payload is None else binding.payload_digest(result.payload),
        "executed_height": None if result.executed is None else result.executed.height,
        "executed_txid": None if result.executed is None else result.executed.txid,
        "rolled_back_height": None if result.rolled_back is None else result.rolled_back.height,
        "rolled_back_txid": None if result.rolled_back is None else result.rolled_back.txid,
        "rolled_back_by": None if result.rolled_back is None else result.rolled_back.sender,
    }
