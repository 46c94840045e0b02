# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host, as root, with nothing but Python: facts.py SERVICE DATA_DIR RUN_DIR STATE_DIR. Prints JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys


def digest(path):
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return None


def tree(path):
    found = {}
    for parent, _, names in os.walk(path):
        for name in names:
            full = os.path.join(parent, name)
            found[os.path.relpath(full, path)] = digest(full)
    return found


def rows(path):
    """Number of rows of each table: evidence and slashing records may grow, never shrink."""
    if not os.path.exists(path):
        return {}
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [row[0] for row in base.execute("select name from sqlite_master where type='table'")]
        return {name: base.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables}
    finally:
        base.close()


def load(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None


def show(service, field):
    return subprocess.run(
        ["systemctl", "show", "--property", field, "--value", service], capture_output=True, text=True, check=True
    ).stdout.strip()


def main():
    service, data, run, state = sys.argv[1:5]
    pid = show(service, "MainPID")
    print(
        json.dumps(
            {
                "active": show(service, "ActiveState"),
                "restarts": int(show(service, "NRestarts")),
                "cwd": os.readlink(f"/proc/{pid}/cwd") if pid != "0" else None,
                "identity": {
                    "node": digest(os.path.join(data, "node_identity.json")),
                    "peer": digest(os.path.join(run, "data/keys/signing_key.pem")),
                    "validator": digest("/etc/xai/validator_key.json"),
                },
                "finality": tree(os.path.join(data, "finality")),
                "slashing": rows(os.path.join(data, "slashing.db")),
                "manifest": load(os.path.join(state, "migration_manifest.json")),
            }
        )
    )


if __name__ == "__main__":
    main()
