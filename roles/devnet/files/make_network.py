# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what a new network of reference nodes starts from, once; what is there already stays as it is.

    make_network.py DIRECTORY CHAIN_ID VALIDATOR... [--accounts NAME...]

    DIRECTORY/genesis.json             the same for every node: validators with equal power, funded accounts
    DIRECTORY/identities/NAME.json     each validator's signing key (secret)
    DIRECTORY/accounts/NAME.json       keys of the funded accounts (secret)
    DIRECTORY/accounts/NAME.key        the private key of the same alone, as modules take it (secret)
    DIRECTORY/public.json              {"validators": {NAME: address}, "accounts": {NAME: address}}

Prints `made` or `kept`. Needs `cryptography` in the interpreter that runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from refnode import keys, tx

POWER = 100
COINS = 1_000_000


def write(path: pathlib.Path, text: str, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def pretty(value: t.Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("chain_id")
    parser.add_argument("validators", nargs="+")
    parser.add_argument("--accounts", nargs="*", default=[])
    arguments = parser.parse_args()
    public = arguments.directory / "public.json"
    if public.exists():
        made = json.loads(public.read_text(encoding="utf-8"))
        if sorted(made["validators"]) != sorted(arguments.validators):
            print(
                f"{public} is of another set of validators ({', '.join(made['validators'])}): remove the devnet first",
                file=sys.stderr,
            )
            return 1
        print("kept")
        return 0
    identities = {name: keys.new_identity() for name in arguments.validators}
    accounts = {name: keys.new_account() for name in arguments.accounts}
    genesis = {
        "chain_id": arguments.chain_id,
        "timestamp": int(time.time()),
        "validators": [
            {"address": one["address"], "public_key": one["public_key"], "voting_power": POWER} for one in identities.values()
        ],
        "accounts": {one["address"]: COINS * tx.UNIT for one in accounts.values()},
        "faucet_amount": 10.0,
    }
    for name, one in identities.items():
        write(arguments.directory / "identities" / f"{name}.json", pretty(one), 0o600)
    for name, one in accounts.items():
        write(arguments.directory / "accounts" / f"{name}.json", pretty(one), 0o600)
        write(arguments.directory / "accounts" / f"{name}.key", one["private_key"] + "\n", 0o600)
    write(arguments.directory / "genesis.json", pretty(genesis), 0o644)
    # Last: it says that all the rest is there.
    told = {
        "validators": {name: one["address"] for name, one in identities.items()},
        "accounts": {name: one["address"] for name, one in accounts.items()},
    }
    write(public, pretty(told), 0o644)
    print("made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
