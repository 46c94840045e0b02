# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Four real reference nodes on loopback, scraped by a real Prometheus."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import urllib.request

from .conftest import free_port, program, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "roles" / "devnet" / "files"), str(ROOT / "tests" / "unit" / "refnode")]

import refnode_support as refnodes

RULES = ROOT / "roles" / "verify" / "files" / "rollout.rules.yml"
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: xai-node
    static_configs:
{targets}
"""


class Fleet:
    def __init__(self, folder: pathlib.Path) -> None:
        self.net = refnodes.Net(folder / "net", validators=4)
        self.release = refnodes.release(folder / "release", "1.0.0", 1)
        for number in range(4):
            self.start(number)
        self.net.at(3)
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        (folder / "prometheus.yml").write_text(self.config(folder))
        self.log = (folder / "prometheus.log").open("wb")
        self.prometheus = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        until(lambda: urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).status == 200, "Prometheus is ready", 60)

    def config(self, folder: pathlib.Path) -> str:
        """Prometheus's configuration."""
        targets = "\n".join(
            f'      - {{targets: ["127.0.0.1:{node.port}"], labels: {{instance: "val{node.number}"}}}}' for node in self.net.nodes
        )
        return CONFIG.format(rules=RULES, targets=targets)

    def stop(self, number: int) -> None:
        node = self.net.nodes[number]
        if node.popen is not None and node.popen.poll() is None:
            node.stop()

    def start(self, number: int, misbehave: str = "", release: pathlib.Path | None = None) -> None:
        self.stop(number)
        self.net.nodes[number].start(release or self.release, REFNODE_BLOCK_INTERVAL="1.0", REFNODE_MISBEHAVE=misbehave)

    def nodes(self) -> list[dict[str, str]]:
        return [
            {"name": f"val{node.number}", "api_url": node.url, "address": identity["address"]}
            for node, identity in zip(self.net.nodes, self.net.members.identities)
        ]

    def close(self) -> None:
        self.prometheus.terminate()
        try:
            self.prometheus.wait(20)
        except subprocess.TimeoutExpired:
            self.prometheus.kill()
            self.prometheus.wait()
        self.log.close()
        self.net.__exit__()
