#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of a devnet: which hosts there are, where, and how to reach them. What they run is in group_vars beside this.

Three environment variables tell one devnet from another, so that several can be up at once:

    DEVNET_NAME        chainops        prefix of its containers, network and files
    DEVNET_SUBNET      10.89.77.0/24   a /24: validators are at .11, .12, ..., gateways at .201, ...
    DEVNET_VALIDATORS  4
    DEVNET_GATEWAYS    1

Keys, secrets and addresses of a devnet are in DEVNET_HOME (.cache/devnet of the repository) under its name.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import sys

NAME = os.environ.get("DEVNET_NAME") or "chainops"
SUBNET = os.environ.get("DEVNET_SUBNET") or "10.89.77.0/24"
HOME = pathlib.Path(os.environ.get("DEVNET_HOME") or pathlib.Path(__file__).resolve().parents[2] / ".cache" / "devnet").resolve()


def count(name: str, default: int, most: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or not 1 <= int(text) <= most:
        sys.exit(f"{name}={text}: must be a number from 1 to {most}")
    return int(text)


def inventory() -> dict[str, object]:
    try:
        network = ipaddress.IPv4Network(SUBNET)
    except ValueError as error:
        sys.exit(f"DEVNET_SUBNET={SUBNET}: {error}")
    if network.prefixlen != 24:
        sys.exit(f"DEVNET_SUBNET={SUBNET}: must be a /24, such as 10.89.77.0/24")
    validators = {f"val{n}": str(network[10 + n]) for n in range(1, count("DEVNET_VALIDATORS", 4, 150) + 1)}
    gateways = {f"gw{n}": str(network[200 + n]) for n in range(1, count("DEVNET_GATEWAYS", 1, 20) + 1)}
    home = HOME / NAME
    # A socket's path may be 107 bytes long, and a checkout's may be longer than that by itself.
    sockets = pathlib.Path("/run/chainops-devnet", NAME) if os.geteuid() == 0 else home / "cp"
    # What roles/devnet is to make.
    hosts = [{"name": name, "kind": "validator", "address": address} for name, address in validators.items()]
    hosts += [{"name": name, "kind": "gateway", "address": address} for name, address in gateways.items()]
    hostvars: dict[str, dict[str, object]] = {str(host["name"]): {"ansible_host": host["address"]} for host in hosts}
    hostvars["localhost"] = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    return {
        "_meta": {"hostvars": hostvars},
        "all": {
            "children": ["devnet", "ungrouped"],
            "vars": {"devnet_name": NAME, "devnet_subnet": SUBNET, "devnet_home": str(home), "devnet_hosts": hosts},
        },
        "devnet": {
            "children": ["validators", "gateways"],
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(home / "ssh" / "id_ed25519"),
                # A host that is cut off is noticed within 10 s, also by a connection that was open before.
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={home}/ssh/known_hosts -o IdentitiesOnly=yes"
                " -o ConnectTimeout=5 -o ServerAliveInterval=4 -o ServerAliveCountMax=2",
                "ansible_control_path_dir": str(sockets),
                "ansible_ssh_pipelining": True,
                "ansible_python_interpreter": "/usr/bin/python3",
            },
        },
        "validators": {"hosts": list(validators)},
        "gateways": {"hosts": list(gateways)},
        "ungrouped": {"hosts": ["localhost"]},
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--host"]:
        print("{}")
    else:
        print(json.dumps(inventory(), indent=2))
