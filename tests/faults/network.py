# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The devnet as the fault suite holds it: hosts, their containers and networks, playbooks, and clients behind the gateways."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time
import typing as t
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[1]
INVENTORY = REPO / "inventories" / "devnet"
ON_HOST = "/var/lib/faults"
UNIT = "xai-node.service"
JsonDict = t.Dict[str, t.Any]


class Broken(Exception):
    """A case did not end as it should, or could not be brought about. The text says what was seen."""


class Refusal(Exception):
    """The collection's code on a host said no."""

    def __init__(self, error: JsonDict) -> None:
        super().__init__(str(error.get("message", error)))
        self.error = error


def get(url: str, timeout: float = 3.0) -> t.Any:
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return json.load(answer)


def wait(holds: t.Callable[[], t.Any], what: str, seconds: float = 30.0, interval: float = 0.1) -> t.Any:
    """What ``holds`` returns once it is true. An error counts as not yet. Raises Broken."""
    until = time.monotonic() + seconds
    last: t.Any = None
    while True:
        try:
            last = holds()
            if last:
                return last
        except (OSError, ValueError, http.client.HTTPException, Refusal, Broken) as error:
            last = error
        if time.monotonic() >= until:
            raise Broken(f"not within {seconds:g} s: {what}; last seen: {last}")
        time.sleep(interval)


def answer(host: str, act: str, told: JsonDict) -> JsonDict:
    if "error" in told:
        raise Refusal(told["error"])
    if "ok" not in told:
        raise Broken(f"{host}: {act} broke: {told.get('broken', told)}")
    return t.cast("JsonDict", told["ok"])


class Agent:
    """The agent of one host, for as long as the connection to it lasts."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        self.waiting: dict[int, concurrent.futures.Future[JsonDict]] = {}
        self.alone = threading.Lock()
        self.number = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self.process.stdout:
                told = json.loads(line)
                self.waiting.pop(told.pop("id")).set_result(told)
        for future in list(self.waiting.values()):
            future.set_exception(OSError("the connection ended"))

    def ask(self, act: str, asked: JsonDict, patience: float) -> JsonDict:
        future: concurrent.futures.Future[JsonDict] = concurrent.futures.Future()
        with self.alone:
            self.number += 1
            self.waiting[self.number] = future
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"id": self.number, "act": act, "asked": asked}) + "\n")
            self.process.stdin.flush()
        if self.process.poll() is not None and not future.done():
            raise OSError("the connection ended")
        return future.result(patience)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Network:
    """Four validators and two gateways, and this machine as their controller."""

    def __init__(self, out: pathlib.Path) -> None:
        listed = subprocess.run([sys.executable, INVENTORY / "hosts.py"], check=True, capture_output=True, text=True)
        inventory = json.loads(listed.stdout)
        facts = inventory["_meta"]["hostvars"]
        self.out = out
        self.run = f"r{int(time.time()) % 0xFFFFF:05x}"
        self.name = str(inventory["all"]["vars"]["devnet_name"])
        self.home = pathlib.Path(inventory["all"]["vars"]["devnet_home"])
        self.validators: list[str] = inventory["validators"]["hosts"]
        self.gateways: list[str] = inventory["gateways"]["hosts"]
        self.address: dict[str, str] = {name: one["ansible_host"] for name, one in facts.items() if "ansible_host" in one}
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=16)
        self.playbooks = 0
        self.agents: dict[str, Agent] = {}
        self.alone = threading.Lock()

    # -- what the devnet made --------------------------------------------------------------------------------------------

    def release(self, name: str) -> JsonDict:
        path = self.home.parent / ".releases" / f"xai-refnode-{name}-x86_64.release.json"
        return t.cast("JsonDict", json.loads(path.read_text(encoding="utf-8")))

    def digest(self, name: str) -> str:
        return str(self.release(name)["artifacts"]["x86_64"]["sha256"])

    def key(self, host: str) -> str:
        """The address that a validator signs with."""
        public = json.loads((self.home / "network" / "public.json").read_text(encoding="utf-8"))
        return str(public["validators"][host])

    def secrets(self) -> list[str]:
        return [path.read_text(encoding="utf-8").strip() for path in sorted((self.home / "secrets").iterdir())]

    def api(self, host: str, port: int = 8545) -> str:
        return f"http://{self.address[host]}:{port}"

    def version(self, host: str) -> str:
        return str(get(f"{self.api(host)}/version")["version"])

    def height(self, host: str) -> int:
        return int(get(f"{self.api(host)}/block/latest?summary=1")["block_number"])

    # -- hosts -----------------------------------------------------------------------------------------------------------

    def ssh(self, host: str) -> list[str]:
        options = ["ConnectTimeout=5", "BatchMode=yes", "LogLevel=ERROR", "ServerAliveInterval=4", "ServerAliveCountMax=2"]
        flags = [part for option in options for part in ("-o", option)]
        return ["ssh", "-F", str(self.home / "ssh" / "config"), *flags, host]

    def forget(self, host: str) -> None:
        """The connection to a host that is gone."""
        agent = self.agents.pop(host, None)
        if agent is not None:
            agent.close()

    def ask(self, host: str, act: str, *, patience: float = 180.0, **asked: t.Any) -> JsonDict:
        """The agent's answer. Raises Refusal when the collection says no, Broken when the host can't be asked."""
        with self.alone:
            agent = self.agents.get(host)
            if agent is None or agent.process.poll() is not None:
                agent = self.agents[host] = Agent([*self.ssh(host), f"exec python3 -B {ON_HOST}/agent.py serve"])
        try:
            return answer(host, act, agent.ask(act, asked, patience))
        except (OSError, concurrent.futures.TimeoutError) as error:
            self.forget(host)
            raise Broken(f"{host}: {act}: {error or f'no answer within {patience:g} s'}") from error

    def ask_all(self, hosts: t.Iterable[str], act: str, **asked: t.Any) -> dict[str, JsonDict]:
        """All at once. Arguments that are callables are called with the host's name."""

        def one(host: str) -> JsonDict:
            return self.ask(host, act, **{key: value(host) if callable(value) else value for key, value in asked.items()})

        names = list(hosts)
        return dict(zip(names, self.pool.map(one, names)))

    def sh(self, host: str, script: str, *, check: bool = True, timeout: float = 60.0) -> str:
        done = self.ask(host, "shell", script=script, timeout=timeout)
        if check and done["rc"] != 0:
            raise Broken(f"{host}: {script}: status {done['rc']}: {done['err']}")
        return str(done["out"]).strip()

    def equip(self) -> None:
        """Bring the agent, the collection's code and the shim to every host, and put the shim under the engine."""
        for path in ("lib.zip", "boundary.so"):
            assert (self.out / path).exists()
        for host in (*self.validators, *self.gateways):
            command = [*self.ssh(host), f"mkdir -p {ON_HOST} && tar -xC {ON_HOST}"]
            pack = subprocess.run(
                ["tar", "-c", "-C", str(HERE), "agent.py", "-C", str(self.out), "lib.zip", "boundary.so"],
                capture_output=True,
                check=True,
            )
            subprocess.run(command, input=pack.stdout, check=True, capture_output=True)
        for host in self.validators:
            folder = f"/etc/systemd/system/chainops-turn@{host}.service.d"
            drop_in = f"[Service]\\nEnvironment=LD_PRELOAD={ON_HOST}/boundary.so\\n"
            self.sh(host, f"mkdir -p {folder} && printf '{drop_in}' > {folder}/zz-faults.conf && systemctl daemon-reload")

    # -- faults ----------------------------------------------------------------------------------------------------------

    def container(self, host: str) -> str:
        return f"{self.name}-{host}"

    def podman(self, *arguments: str) -> str:
        conf = self.home.parent / ".images" / "containers.conf"
        env = dict(os.environ)
        if conf.exists():
            env["CONTAINERS_CONF"] = str(conf)
        done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, env=env, timeout=120)
        if done.returncode:
            raise Broken(f"podman {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout.strip()

    def reboot(self, host: str, *, down: float = 0.0) -> None:
        """The machine's plug is pulled and put in again: every process ends at once, and what comes up has another boot id."""
        boot = f"rehearsed-{time.monotonic_ns()}"
        self.sh(
            host,
            f"mkdir -p /etc/systemd/system.conf.d && printf '[Manager]\\nDefaultEnvironment=CHAINOPS_BOOT_ID={boot}\\n'"
            f" > /etc/systemd/system.conf.d/faults.conf; echo {boot} > {ON_HOST}/boot_id;"
            f" echo CHAINOPS_BOOT_ID={boot} > /etc/environment; sync -f {ON_HOST}",
        )
        self.podman("kill", "--signal", "KILL", self.container(host))
        self.forget(host)
        wait(
            lambda: self.podman("inspect", "--format", "{{.State.Running}}", self.container(host)) == "false",
            f"{host} is off",
            20,
        )
        time.sleep(down)
        self.podman("start", self.container(host))

        def up() -> bool:
            self.announce(host)
            return bool(self.ask(host, "node", instance=host)["boot"] == boot)

        wait(up, f"{host} is up again", 60, 0.3)

    def announce(self, host: str) -> None:
        """A container that was started again has another MAC address, which the others learn from the first thing it sends."""
        others = [address for name, address in self.address.items() if name != host]
        others.append(others[0].rpartition(".")[0] + ".1")
        send = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); [s.sendto(b'', (one, 9)) for one in sys.argv[1:]]"
        self.inside(host, sys.executable, "-c", send, *others, check=False)

    def inside(self, host: str, *command: str, check: bool = True) -> None:
        """A command of this machine in the network namespace of a host."""
        pid = self.podman("inspect", "--format", "{{.State.Pid}}", self.container(host))
        done = subprocess.run(["nsenter", "-t", pid, "-n", *command], capture_output=True, text=True, check=False, timeout=30)
        if check and done.returncode:
            raise Broken(f"{host}: {shlex.join(command)}: {done.stderr.strip()}")

    def cut(self, host: str, *, ports: t.Sequence[int] = ()) -> None:
        """Drop what comes in and goes out, but for the host's own loopback; or only what has to do with some ports."""
        for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o")):
            rule = ["!", way, "lo", "-j", "DROP"]
            for port in ports:
                for side in ("--dport", "--sport"):
                    self.inside(host, "iptables", "-A", chain, "-p", "tcp", side, str(port), *rule)
            if not ports:
                self.inside(host, "iptables", "-A", chain, *rule)

    def mend(self, host: str) -> None:
        self.inside(host, "iptables", "-F", check=False)
        self.forget(host)

    @contextlib.contextmanager
    def being_cut(self, host: str, *, ports: t.Sequence[int] = ()) -> t.Iterator[None]:
        self.cut(host, ports=ports)
        try:
            yield
        finally:
            self.mend(host)

    # -- playbooks -------------------------------------------------------------------------------------------------------

    def play(
        self, playbook: str, *arguments: str, env: t.Mapping[str, str] | None = None, inventory: pathlib.Path | None = None
    ) -> Play:
        self.playbooks += 1
        log = self.out / "logs" / f"{self.playbooks:03d}-{pathlib.Path(playbook).stem}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        sources = [str(INVENTORY)] if inventory is None else [str(INVENTORY), str(inventory)]
        flags = [part for source in sources for part in ("-i", source)]
        if not playbook.startswith("/"):
            playbook = f"chainops.validator.{playbook}"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"ANSIBLE_NOCOLOR": "1", **(env or {})}
        output = log.open("wb")
        process = subprocess.Popen(
            ["ansible-playbook", *flags, playbook, *arguments],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
        output.close()
        return Play(process, log)


class Play:
    """A playbook that runs, or has run: a controller that can be killed."""

    def __init__(self, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
        self.process, self.log = process, log

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def done(self, timeout: float = 300.0) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise Broken(f"the playbook was not done after {timeout:g} s; see {self.log}") from error

    def signal(self, number: int) -> None:
        """To the playbook and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(20)

    def must(self, succeed: bool, *said: str, timeout: float = 300.0) -> Play:
        """Raises Broken unless it ended so, and said so."""
        rc = self.done(timeout)
        text = " ".join(self.text.split())
        missing = [words for words in said if " ".join(words.split()) not in text]
        if (rc == 0) != succeed or missing:
            tail = "\n".join(self.text.splitlines()[-15:])
            raise Broken(
                f"the playbook ended with status {rc}{f', and never said {missing}' if missing else ''}; see {self.log}\n{tail}"
            )
        return self


class Clients(threading.Thread):
    """Independent readers behind the gateways, all the time; what each request came to is kept with its time."""

    PATHS = ("/block/latest?summary=1", "/stats", "/health", "/mempool/stats")

    def __init__(self, addresses: t.Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.addresses = addresses
        self.asked: list[tuple[float, str]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.wait(0.12):
            number += 1
            began = time.monotonic()
            problem = ""
            try:
                connection = http.client.HTTPConnection(self.addresses[number // 4 % len(self.addresses)], 8545, timeout=20)
                connection.request("GET", self.PATHS[number % len(self.PATHS)])
                answer = connection.getresponse()
                answer.read()
                if answer.status >= 500:
                    problem = f"status {answer.status} of {self.PATHS[number % len(self.PATHS)]}"
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
            self.asked.append((began, problem))

    def since(self, moment: float) -> tuple[int, list[str]]:
        """How many requests there were, and what went wrong with those that failed."""
        some = [problem for began, problem in list(self.asked) if began >= moment]
        return len(some), [problem for problem in some if problem]


class Load:
    """The devnet's load client behind one gateway: reads, long requests and, behind the first gateway, signed transfers."""

    def __init__(self, net: Network, gateway: str, name: str, *, rate: float, long: int) -> None:
        self.out, self.summary = net.out / "logs" / f"{name}.jsonl", net.out / "logs" / f"{name}.json"
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(REPO / "roles" / "devnet" / "files" / "load_client.py"), "--url", net.api(gateway)),
                *("--accounts", str(net.home / "network" / "accounts.json"), "--skip-accounts", "5"),
                *("--api-key-file", str(net.home / "secrets" / "api_key")),
                *("--rate", str(rate), "--long", str(long), "--transfer-rate", "2" if gateway == net.gateways[0] else "0"),
                *("--duration", "1200", "--out", str(self.out), "--summary", str(self.summary)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def stop(self) -> JsonDict:
        """What the clients saw. Raises Broken when they don't tell."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)
            return t.cast("JsonDict", json.loads(self.summary.read_text(encoding="utf-8")))
        except (subprocess.TimeoutExpired, OSError, ValueError) as error:
            self.process.kill()
            raise Broken(f"the load client left no summary: {error}; see {self.out}") from error
