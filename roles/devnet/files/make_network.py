# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what a new network of reference nodes starts from, once, under the names that the inventory has.

    make_network.py DIRECTORY CHAIN_ID VALIDATOR... [--accounts NAME...]

What refnode.genesis makes (genesis.json, accounts.json, network.json), and beside it:

    DIRECTORY/identities/NAME.json  each validator's node_identity.json (secret)
    DIRECTORY/accounts/NAME.key     private key of each funded account, hex, as modules take it (secret)
    DIRECTORY/public.json           {"chain_id", "validators": {NAME: address}, "accounts": {NAME: address}}

Prints `made` or `kept`. Needs `cryptography` in the interpreter that runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from refnode import genesis

BALANCE = 100_000.0


def write(path: pathlib.Path, text: str, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def make(directory: pathlib.Path, chain_id: str, validators: list[str], accounts: list[str]) -> None:
    network = genesis.make(str(directory), validators=len(validators), accounts=len(accounts), chain_id=chain_id, balance=BALANCE)
    people = json.loads((directory / "accounts.json").read_text(encoding="utf-8"))["accounts"]
    for number, name in enumerate(validators, 1):
        identity = (directory / "validators" / str(number) / "node_identity.json").read_text(encoding="utf-8")
        write(directory / "identities" / f"{name}.json", identity, 0o600)
    # Under their names they are told once; a key lies in one place.
    shutil.rmtree(directory / "validators")
    for name, person in zip(accounts, people):
        write(directory / "accounts" / f"{name}.key", person["private_key"] + "\n", 0o600)
    public = {
        "chain_id": chain_id,
        "validators": {name: one["address"] for name, one in zip(validators, network["validators"])},
        "accounts": {name: person["address"] for name, person in zip(accounts, people)},
    }
    # Last: it says that all the rest is there.
    write(directory / "public.json", json.dumps(public, indent=2) + "\n", 0o644)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("chain_id")
    parser.add_argument("validators", nargs="+")
    parser.add_argument("--accounts", nargs="*", default=[])
    given = parser.parse_args()
    public = given.directory / "public.json"
    if public.exists():
        made = json.loads(public.read_text(encoding="utf-8"))
        if list(made["validators"]) != given.validators:
            print(f"{public} is of other validators ({', '.join(made['validators'])}): remove the devnet first", file=sys.stderr)
            return 1
        print("kept")
        return 0
    make(given.directory, given.chain_id, given.validators, given.accounts)
    print("made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
