# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest


def test_hosts_are_real_machines(devnet):
    for host in (*devnet.validators, *devnet.gateways):
        assert host.output("cat /proc/1/comm") == "systemd"
        assert host.output("systemctl is-system-running") == "running"


def test_python_is_bare(devnet):
    """What a node or the engine needs, they bring."""
    for host in devnet.validators:
        assert host.output("python3 -c 'import sys; print(sys.version_info >= (3, 9))'") == "True"
        for package in ("pip", "requests", "cryptography", "yaml", "aiohttp"):
            assert host.shell.run(f"python3 -c 'import {package}'").rc != 0, package


def test_hosts_have_keys_of_their_own(devnet):
    keys = {host.output("cat /etc/ssh/ssh_host_ed25519_key.pub") for host in (*devnet.validators, *devnet.gateways)}
    assert len(keys) == len(devnet.validators) + len(devnet.gateways)


@pytest.mark.parametrize("unit", ["haproxy", "prometheus", "prometheus-alertmanager", "webhook-sink"])
def test_gateway_services(devnet, unit):
    for gateway in devnet.gateways:
        service = gateway.shell.service(unit)
        assert service.is_running
        assert service.is_enabled


def test_secrets_are_for_their_owner_alone(devnet):
    secrets = [*sorted(devnet.home.glob("secrets/*")), devnet.home / "ssh" / "id_ed25519"]
    assert len(secrets) >= 4
    assert {oct(path.stat().st_mode & 0o777) for path in secrets} == {"0o600"}
