# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pause of real reference nodes, and clients of theirs through a gateway."""

from __future__ import annotations

import json
import pathlib
import secrets
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._chain import handover
from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.tests.integration.governance.conftest import API_KEY, COLLECTION, Network
from ansible_collections.chainops.validator.tests.integration.governance.conftest import release as release

from .conftest import free_port, program, until

ADMIN = secrets.token_hex(8)

GATEWAY = """
global
  stats socket {folder}/admin.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  retries 3
  option redispatch 1
  retry-on conn-failure
  option idle-close-on-response
  timeout connect 1s
  timeout client 30s
  timeout server 30s
frontend api
  bind 127.0.0.1:{port}
  default_backend api
backend api
  option httpchk GET /health
  default-server check inter 250ms fall 2 rise 2
{servers}
"""


@pytest.fixture(scope="module")
def nodes(release: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Network]:
    made = Network(release, tmp_path_factory.mktemp("nodes"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda dummy: ADMIN)
        try:
            for number in range(4):
                made.start(number)
            made.wait_height(2)
            yield made
        finally:
            for number in list(made.processes):
                made.stop(number)


def test_a_node_is_paused_for_its_turn_and_stands_as_before_after_it(
    nodes: Network, tmp_path: pathlib.Path, ansible: t.Callable[..., dict[str, t.Any]]
) -> None:
    """The pause outlives the restart, the mining switch doesn't."""
    url = nodes.urls[0]
    options = {
        "driver": "node",
        "api_url": url,
        "api_key": API_KEY,
        "admin_token": ADMIN,
        "server": "node:val1",
        "receipt_dir": str(tmp_path / "r"),
        "turn_id": "t1",
        "fence_token": 1,
    }
    client = adapter("xai").client(url, admin_token=ADMIN)
    assert ansible("api_drain", **options, _check=True)["changed"] and client.status().paused is False
    out = ansible("api_drain", **options)
    assert out["changed"] and out["receipt"]["state"] == "drained", out
    assert (client.status().paused, client.status().mining) == (True, False)
    assert not ansible("api_drain", **options)["changed"]
    nodes.stop(0)
    nodes.start(0)
    nodes.wait_height(nodes.height(1), 0)
    assert (client.status().paused, client.status().mining) == (True, True)
    back = ansible("api_drain", state="active", **options)
    assert back["changed"] and back["receipt"]["state"] == "active", back
    assert (client.status().paused, client.status().mining) == (False, True)
    assert not ansible("api_drain", state="active", **options)["changed"]


def test_clients_notice_nothing_of_a_drain_and_a_restart(
    nodes: Network, tmp_path: pathlib.Path, ansible: t.Callable[..., dict[str, t.Any]]
) -> None:
    port, config = free_port(), tmp_path / "haproxy.cfg"
    servers = "\n".join(f"  server val{n} 127.0.0.1:{port}" for n, port in enumerate(nodes.ports[:4], 1))
    config.write_text(GATEWAY.format(folder=tmp_path, port=port, servers=servers))
    log = (tmp_path / "log").open("wb")
    gateway = subprocess.Popen(
        [program("haproxy"), "-W", "-S", f"{tmp_path}/master.sock", "-f", str(config)], stdout=log, stderr=log
    )
    key, summary = tmp_path / "key", tmp_path / "summary.json"
    key.write_text(API_KEY)
    until(lambda: (tmp_path / "admin.sock").exists(), "the gateway runs")
    load = subprocess.Popen(
        [
            *(sys.executable, str(COLLECTION / "roles" / "devnet" / "files" / "load_client.py")),
            *("--url", f"http://127.0.0.1:{port}", "--accounts", str(nodes.folder / "genesis" / "accounts.json")),
            *("--api-key-file", str(key), "--rate", "20", "--transfer-rate", "2", "--long", "4", "--duration", "120"),
            *("--out", str(tmp_path / "load.jsonl"), "--summary", str(summary)),
        ],
        stdout=log,
        stderr=log,
    )
    try:
        until(lambda: (tmp_path / "load.jsonl").exists() and (tmp_path / "load.jsonl").stat().st_size > 0, "the load has begun")
        options = {"socket": str(tmp_path / "admin.sock"), "server": "val2", "receipt_dir": str(tmp_path / "r"), "lease": 60}
        out = ansible("api_drain", **options)
        assert out["drain"]["in_flight"] == 0, out
        client = adapter("xai").client(nodes.urls[1])
        others = [adapter("xai").client(url) for n, url in enumerate(nodes.urls) if n != 1]
        until(lambda: handover.stranded(client, others) == [], "what it has accepted is with others, too")
        nodes.stop(1)
        nodes.start(1)
        nodes.wait_height(nodes.height(0), 1)
        back = ansible("api_drain", state="active", **options, traffic_timeout=10)
        assert back["drain"]["traffic"]["seen"], back
    finally:
        load.terminate()
        load.wait(90)
        gateway.terminate()
        gateway.wait(30)
        log.close()
    told = json.loads(summary.read_text())
    assert told["ok"], (told, (tmp_path / "load.jsonl").read_text()[-3000:])
    # Four are in flight at any time; how many follow them is how long this took.
    assert told["long_requests"] >= 4 and told["transfers_included"] > 0
