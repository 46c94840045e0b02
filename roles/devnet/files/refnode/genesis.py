# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m refnode.genesis``: a new network's genesis document, its validators' keys and some funded accounts.

All keys are made at run time and written with mode 0600; none belongs into a repository.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
import typing as t

from . import canon, keys, tx


def make(
    out: str,
    *,
    validators: int,
    accounts: int,
    chain_id: str | None = None,
    balance: float = 1000.0,
    power: int = 10,
    faucet_amount: float = 16.0,
) -> dict[str, t.Any]:
    """Write ``genesis.json``, ``accounts.json``, ``network.json`` and ``validators/<n>/node_identity.json``.

    Returns what ``network.json`` holds.
    """
    chain_id = chain_id or f"refnet-{secrets.token_hex(4)}"
    os.makedirs(out, exist_ok=True)
    members, funded = [], {}
    for number in range(1, validators + 1):
        faucet = keys.new_account()
        identity = {**keys.new_identity(), "faucet_key": faucet["private_key"]}
        folder = os.path.join(out, "validators", str(number))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        canon.write_file(os.path.join(folder, "node_identity.json"), canon.dumps(identity).encode() + b"\n", mode=0o600)
        members.append(
            {
                "name": f"validator-{number}",
                "address": identity["address"],
                "public_key": identity["public_key"],
                "voting_power": power,
            }
        )
        funded[faucet["address"]] = tx.units(1_000_000)
    people = [{"name": f"account-{n}", **keys.new_account()} for n in range(1, accounts + 1)]
    funded |= {person["address"]: tx.units(balance) for person in people}
    genesis = {
        "format": "refnode-genesis/1",
        "chain_id": chain_id,
        "timestamp": round(time.time() - 5, 3),
        "validators": members,
        "accounts": funded,
        "faucet_amount": faucet_amount,
    }
    from .block import Genesis

    network = {
        "chain_id": chain_id,
        "genesis_hash": Genesis(genesis).block()["hash"],
        "validators": [{"name": m["name"], "address": m["address"], "voting_power": m["voting_power"]} for m in members],
    }
    canon.write_file(os.path.join(out, "genesis.json"), canon.dumps(genesis).encode() + b"\n")
    canon.write_file(os.path.join(out, "network.json"), canon.dumps(network).encode() + b"\n")
    body = {"chain_id": chain_id, "accounts": people}
    canon.write_file(os.path.join(out, "accounts.json"), canon.dumps(body).encode() + b"\n", mode=0o600)
    return network


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="xai-node-genesis", description="Make the genesis document and keys of a new reference network."
    )
    parser.add_argument("--validators", type=int, default=4)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--out", required=True)
    parser.add_argument("--chain-id")
    parser.add_argument("--balance", type=float, default=1000.0, help="coins of each account")
    parser.add_argument("--power", type=int, default=10, help="voting power of each validator")
    parser.add_argument("--faucet-amount", type=float, default=16.0)
    given = parser.parse_args(argv)
    if given.validators < 1 or given.accounts < 0:
        parser.error("there must be at least one validator, and no fewer than 0 accounts")
    network = make(
        given.out,
        validators=given.validators,
        accounts=given.accounts,
        chain_id=given.chain_id,
        balance=given.balance,
        power=given.power,
        faucet_amount=given.faucet_amount,
    )
    print(canon.dumps(network))
    return 0


if __name__ == "__main__":
    sys.exit(main())
