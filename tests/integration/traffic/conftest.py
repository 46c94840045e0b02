# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real gateways and monitoring on loopback. What isn't installed is a failure, not a skip."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
import urllib.request

import pytest

from ansible_collections.chainops.validator.tests.gateways import HAProxyProcess, free_port, program, stop, until

HAPROXY = """
global
  stats socket {folder}/admin.sock mode 600 level admin expose-fd listeners
  stats socket ipv4@127.0.0.1:{runtime} level admin
defaults
  mode http
  option redispatch
  retries 3
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout queue 10s
frontend public
  bind 127.0.0.1:{port}
  use_backend ws if {{ path_beg /ws }}
  default_backend api
backend api
  option httpchk GET /health
  default-server check inter 100ms fall 2 rise 2
  server a {a} weight 70
  server b {b} weight 30
backend ws
  default-server check inter 100ms fall 2 rise 2
  server a {a}
  server b {b}
"""

NGINX = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  {scratch}
  include {folder}/conf.d/*.conf;
  map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Connection $connection_header;
    proxy_next_upstream error timeout;
    location /ws {{ proxy_pass http://ws; }}
    location / {{ proxy_pass http://api; }}
  }}
}}
"""

UPSTREAMS = """\
# Clients' requests.
upstream api {{
    least_conn;
    server 127.0.0.1:{a}  weight=7;
    server 127.0.0.1:{b};   # the other one
    keepalive 16;
}}
upstream ws {{ server 127.0.0.1:{a} ; server 127.0.0.1:{b} ; }}
"""


class Node:
    """A server that counts what it serves; ``/slow?S`` answers after S seconds."""

    def __init__(self, port: int = 0, address: str = "127.0.0.1") -> None:
        self.served: list[tuple[float, str]] = []
        self.alive = True
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.partition("?")[0].endswith("/slow"):
                    time.sleep(float(self.path.partition("?")[2] or 1))
                self.send_response(200 if node.alive else 503)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
                if self.path != "/health":
                    node.served.append((time.monotonic(), self.path))

            def log_message(self, *args: t.Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

            def handle_error(self, *args: t.Any) -> None:
                pass

        self._make: t.Callable[[int], Server] = lambda number: Server((address, number), Handler)
        self.port = port
        self.open()

    def open(self) -> None:
        """Serve, at the same port as before."""
        self.server = self._make(self.port)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Running:
    """What clients see of a gateway, and the nodes behind it."""

    process: subprocess.Popen[bytes]
    port: int
    nodes: dict[str, Node]

    def get(self, path: str, timeout: float = 20) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
            return int(answer.status)

    def close(self) -> None:
        stop(self.process)
        for node in self.nodes.values():
            node.close()


class Gateway(HAProxyProcess, Running):
    """``states``: a new process begins with what its server state file says. ``options``: HAProxy's own."""

    def __init__(self, folder: pathlib.Path, *options: str, address: str = "127.0.0.1", states: bool = False) -> None:
        self.nodes = {name: Node(address=address) for name in ("a", "b")}
        self.runtime = free_port()
        config = HAPROXY
        if states:
            config = config.replace("global\n", "global\n  server-state-file {folder}/state\n", 1)
            config = config.replace("defaults\n", "defaults\n  load-server-state-from-file global\n", 1)
        ports = {name: f"{address}:{node.port}" for name, node in self.nodes.items()}
        super().__init__(folder, config, *options, runtime=self.runtime, **ports)
        until(lambda: self.get("/") == 200, "haproxy answers")
        time.sleep(0.3)

    def close(self) -> None:
        super().close()
        for node in self.nodes.values():
            node.close()


def lasting(running: t.Any) -> t.Iterator[t.Any]:
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> t.Iterator[Gateway]:
    yield from lasting(Gateway(tmp_path))


@pytest.fixture
def mastered(tmp_path: pathlib.Path) -> t.Iterator[Gateway]:
    """Its master has a socket, as in Debian's unit."""
    yield from lasting(Gateway(tmp_path, "-S", f"{tmp_path}/master.sock"))


@pytest.fixture
def remembering(tmp_path: pathlib.Path) -> t.Iterator[Gateway]:
    yield from lasting(Gateway(tmp_path, "-S", f"{tmp_path}/master.sock", states=True))


@pytest.fixture
def gateway6(tmp_path: pathlib.Path) -> t.Iterator[Gateway]:
    """Its nodes listen on IPv6."""
    yield from lasting(Gateway(tmp_path, address="::1"))


class NginxGateway(Running):
    """The same two nodes behind nginx."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.nodes = {"a": Node(), "b": Node()}
        self.port = free_port()
        self.main, self.upstreams = folder / "nginx.conf", folder / "conf.d" / "upstreams.conf"
        self.config = str(self.main)
        self.upstreams.parent.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        scratch = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        self.main.write_text(NGINX.format(folder=folder, port=self.port, scratch=scratch))
        self.upstreams.write_text(UPSTREAMS.format(**{n: s.port for n, s in self.nodes.items()}))
        self.upstreams.chmod(0o640)
        self.process = subprocess.Popen([program("nginx"), "-c", self.config])
        until(lambda: self.get("/") == 200, "nginx answers")

    def server(self, name: str) -> str:
        return f"127.0.0.1:{self.nodes[name].port}"

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture
def nginx(tmp_path: pathlib.Path) -> t.Iterator[NginxGateway]:
    tmp_path.chmod(0o755)
    yield from lasting(NginxGateway(tmp_path))


@pytest.fixture
def ansible() -> t.Callable[..., dict[str, t.Any]]:
    """Run a module as Ansible would on a target: its own process, options as JSON; returns what it printed."""
    modules = pathlib.Path(__file__).parents[3] / "plugins" / "modules"
    roots = os.pathsep.join(sys.path)

    def call(name: str, _check: bool = False, _env: dict[str, str] | None = None, **options: t.Any) -> dict[str, t.Any]:
        arguments = {"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": _check, "_ansible_diff": True}}
        done = subprocess.run(
            [sys.executable, str(modules / f"{name}.py")],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": roots, **(_env or {})},
        )
        assert done.stdout.strip(), done.stderr
        return t.cast("dict[str, t.Any]", json.loads(done.stdout.strip().splitlines()[-1]))

    return call


PROMETHEUS = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}]}}
rule_files: [{folder}/rules.yml]
scrape_configs:
  - job_name: xai-node
    static_configs:
{targets}
"""

RULES = """
groups:
  - name: nodes
    rules:
      - {alert: NodeDown, expr: 'up{job="xai-node"} == 0', labels: {severity: critical}}
      - {alert: FewPeers, expr: 'xai_peers_connected < 1', labels: {severity: warning}}
      - {alert: NeverFires, expr: 'rate(xai_no_such_total[1m]) > 0'}
      - {record: 'job:xai_peers:sum', expr: 'sum by (job) (xai_peers_connected)'}
"""


class Exporter:
    """Serves whatever text ``metrics`` holds; None = refuses to."""

    def __init__(self) -> None:
        self.metrics: t.Callable[[], str | None] = lambda: ""
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = exporter.metrics()
                self.send_response(500 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Monitoring:
    """A real Prometheus and a real Alertmanager, and four exporters that they watch as val1 to val4."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.exporters = {f"val{n}": Exporter() for n in range(1, 5)}
        began = time.time()
        for number, exporter in enumerate(self.exporters.values()):
            exporter.metrics = lambda n=number: (
                f"xai_peers_connected 3\nxai_chain_height {int((time.time() - began) * 2)}\nxai_lag {n + time.time() % 1}\n"
            )
        ports = {"prometheus": free_port(), "alertmanager": free_port()}
        self.url = f"http://127.0.0.1:{ports['prometheus']}"
        self.alertmanager_url = f"http://127.0.0.1:{ports['alertmanager']}"
        targets = "\n".join(
            f'      - {{targets: ["127.0.0.1:{e.port}"], labels: {{instance: "{name}:8545"}}}}'
            for name, e in self.exporters.items()
        )
        (folder / "prometheus.yml").write_text(
            PROMETHEUS.format(folder=folder, targets=targets, alertmanager=ports["alertmanager"])
        )
        (folder / "rules.yml").write_text(RULES)
        (folder / "alertmanager.yml").write_text(
            "route: {receiver: operators}\n"
            "receivers: [{name: operators, webhook_configs: [{url: 'http://127.0.0.1:9/'}]}, {name: nobody-listens}]\n"
        )
        self.log = (folder / "monitoring.log").open("wb")
        self.processes = {
            "prometheus": self._start(
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
                "--web.enable-lifecycle",
            ),
            "alertmanager": self._start(
                "prometheus-alertmanager",
                f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
                "--cluster.listen-address=",
            ),
        }
        for url in (self.url, self.alertmanager_url):
            until(lambda url=url: urllib.request.urlopen(f"{url}/-/ready", timeout=2).status == 200, f"{url} is ready", 30)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([program(name), *arguments], stdout=self.log, stderr=subprocess.STDOUT)

    def stop(self, name: str) -> None:
        stop(self.processes.pop(name))

    def close(self) -> None:
        for name in list(self.processes):
            self.stop(name)
        self.log.close()
        for exporter in self.exporters.values():
            exporter.close()


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Monitoring]:
    yield from lasting(Monitoring(tmp_path_factory.mktemp("monitoring")))
