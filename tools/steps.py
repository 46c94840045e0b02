#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the checks of `make lint` and `make test`, side by side where they don't need each other, and sums them up once.

    tools/steps.py lint            what reads the sources
    tools/steps.py test            that, unit and integration tests, sanity, Molecule scenarios, and a part of the fault suite
    tools/steps.py test unit lint  only these steps, and what they need

Each step's output goes to build/logs/<step>.log; a failed step's log is shown at the end. Ends with a line `N passed, N failed`
that counts every test
of a step that tells, and one for each step that doesn't. Exit status 0 only if nothing failed and every step ran.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[1]
CACHE = REPO / ".cache"
LOGS = REPO / "build" / "logs"
SOURCES = CACHE / "collections-dev" / "ansible_collections" / "chainops" / "validator"
TAIL = 60

# The fault suite's last line.
PLAIN_LINE = re.compile(r"^(\d+ passed, \d+ failed)$", re.MULTILINE)
# pytest's last line, with or without its frame: "== 3 failed, 12 passed, 1 skipped in 2.0s =="
PYTEST_LINE = re.compile(r"^=*\s*((?:\d+ [a-z]+, )*\d+ [a-z]+) in [\d.]+s.*$", re.MULTILINE)
ANSI = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b\a]*(?:\x1b\\\\|\a)")
# Scenarios in which no node is stopped: they may run beside tests that measure time.
LOOKING = {"default", "not_approved"}
# Steps that others are made from.
MAKES = {"collection", "images"}
RUNNING: set[subprocess.Popen[bytes]] = set()


@dataclasses.dataclass(frozen=True)
class Step:
    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    lint: bool = False
    cwd: pathlib.Path = REPO
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    timeout: int = 900
    # Steps of one lane never run at the same time.
    lane: str = ""
    # Its log has pytest's closing line, and no test passed is a failure.
    tests: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    step: Step
    status: str  # "ok", "failed", "not run"
    seconds: float
    passed: int
    failed: int
    skipped: int


def scenarios() -> list[str]:
    """Molecule's scenarios; `default` holds what they share and tests the devnet itself."""
    return sorted(path.parent.name for path in (REPO / "molecule").glob("*/molecule.yml"))


def steps() -> list[Step]:
    """Every step, in the order in which it is worth starting them: long ones first."""
    sources = {"PYTHONPATH": str(CACHE / "collections-dev"), "ANSIBLE_COLLECTIONS_PATH": str(CACHE / "collections-dev")}
    playbooks = tuple(str(path.relative_to(REPO)) for path in sorted((REPO / "playbooks").glob("*.yml")))
    shell = tuple(str(path.relative_to(REPO)) for path in sorted([*REPO.glob("tools/*.sh"), *REPO.glob("roles/*/files/*.sh")]))
    # Two a core: most of these tests wait for processes that they started.
    workers = str(2 * (os.cpu_count() or 2))
    found = [
        Step("images", ("bash", "roles/devnet/files/build_images.sh", str(CACHE / "devnet" / ".images"), "bookworm")),
        Step("collection", ("tools/setup.sh", "collection"), lint=True),
        Step(
            "ansible-lint",
            # It installs the collection for itself, once: what it installed last time would be looked at first.
            ("bash", "-c", "rm -rf $ANSIBLE_HOME/collections && exec ansible-lint --strict --nocolor --offline"),
            after=("collection",),
            lint=True,
            env={"ANSIBLE_HOME": str(CACHE / "ansible-lint")},
        ),
        Step(
            "syntax",
            ("ansible-playbook", "--syntax-check", "-i", "inventories/devnet", *playbooks),
            after=("collection",),
            lint=True,
        ),
        Step("ruff", ("ruff", "check", "."), lint=True),
        Step("format", ("ruff", "format", "--check", "."), lint=True),
        Step("yamllint", ("yamllint", "--strict", "."), lint=True),
        Step("shellcheck", ("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", ".ci/run", *shell), lint=True),
        Step("specs", ("python", "tools/check_argument_specs.py"), lint=True),
        Step("mypy", ("mypy", "--config-file", "mypy.ini", "plugins/module_utils"), lint=True, cwd=SOURCES),
        Step("rooms", ("lint-imports", "--cache-dir", str(CACHE / "import-linter")), lint=True, env=sources),
        Step(
            "environment",
            ("ansible-builder", "introspect", "--sanitize", str(CACHE / "collections")),
            after=("collection",),
            lint=True,
        ),
        Step("changelog", ("antsibull-changelog", "lint"), lint=True),
        Step(
            "docs",
            ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "self", "."),
            lint=True,
            cwd=SOURCES,
            env=sources,
        ),
        # Not beside images or lint: timing tests want their cores.
        Step(
            "unit",
            ("pytest", "-q", "-n", workers, "--dist", "loadgroup", "--durations=15", "tests/unit"),
            after=("ansible-lint", "mypy"),
            cwd=SOURCES,
            env=sources,
            timeout=2400,
            tests=True,
        ),
        # Real gateways, monitoring and nodes on loopback, not beside the scenarios: they measure time.
        Step(
            "integration",
            ("pytest", "-q", "-n", "2", "--dist", "loadfile", "--durations=10", "tests/integration"),
            after=("unit",),
            cwd=SOURCES,
            env=sources,
            timeout=1500,
            tests=True,
        ),
        Step("sanity", ("tools/sanity.sh",), after=("unit",), timeout=1800),
    ]
    # One after the other: a validator that is starved of its core misses blocks.
    for name in scenarios():
        found.append(
            Step(
                f"molecule-{name}",
                ("molecule", "test", "--no-command-borders", "--scenario-name", name),
                after=("collection", "images", "unit", *(() if name in LOOKING else ("integration",))),
                env={"MOLECULE_GLOB": "molecule/*/molecule.yml"},
                lane="molecule",
                timeout=1500,
                tests=True,
            )
        )
    found.append(
        Step(
            "faults",
            ("python", "tests/faults/run.py", "--quick"),
            after=("collection", "images", "unit", "integration"),
            env={"PYTHONPATH": sources["PYTHONPATH"]},
            lane="molecule",
            timeout=1500,
            tests=True,
        )
    )
    return found


def selected(all_steps: list[Step], suite: str, names: list[str]) -> list[Step]:
    known = {step.name: step for step in all_steps}
    wanted = {step.name for step in all_steps if suite == "test" or step.lint}
    if names:
        wanted = set()
        for name in names:
            matches = {
                step.name for step in all_steps if step.name == name or (name == "lint" and step.lint) or step.lane == name
            }
            if not matches:
                sys.exit(f"no step {name}; there are: lint, molecule, {', '.join(known)}")
            wanted |= matches
        # What a named step needs, except that it comes after others when all of them run.
        wanted |= {"collection", "images"} if any(known[name].lane == "molecule" for name in wanted) else set()
        wanted |= {"collection"} if wanted & {"ansible-lint", "syntax", "environment"} else set()
    return [step for step in all_steps if step.name in wanted]


def counts(step: Step, log: str, ok: bool) -> tuple[int, int, int]:
    """Tests passed, failed and skipped. A step that must test and shows no passed test has failed."""
    if step.tests:
        told = ANSI.sub("", log)
        lines = [*PYTEST_LINE.findall(told), *PLAIN_LINE.findall(told)]
        tally = {"passed": 0, "failed": 0, "skipped": 0, "error": 0, "errors": 0}
        for line in lines:
            for part in line.split(", "):
                number, word = part.split(" ")
                tally[word] = tally.get(word, 0) + int(number)
        failed = tally["failed"] + tally["error"] + tally["errors"]
        if failed or tally["passed"]:
            return tally["passed"], failed + (0 if ok or failed else 1), tally["skipped"]
        return 0, 1, tally["skipped"]
    return int(ok), int(not ok), 0


def run(step: Step) -> Result:
    started = time.monotonic()
    log_path = LOGS / f"{step.name}.log"
    with log_path.open("wb") as log:
        log.write(f"$ {' '.join(step.command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            step.command,
            cwd=step.cwd,
            env={**os.environ, **step.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        RUNNING.add(process)
        try:
            ok = process.wait(step.timeout) == 0
        except subprocess.TimeoutExpired:
            ok = False
            end(process)
            log.write(f"\nended after {step.timeout} s\n".encode())
        finally:
            RUNNING.discard(process)
    passed, failed, skipped = counts(step, log_path.read_text(encoding="utf-8", errors="replace"), ok)
    status = "ok" if ok and not failed else "failed"
    result = Result(step, status, time.monotonic() - started, passed, failed, skipped)
    tests = f"  {passed} passed, {failed} failed, {skipped} skipped" if step.tests else ""
    print(f"{status:8} {step.name:24} {result.seconds:7.1f} s{tests}", flush=True)
    return result


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a step and what it started: each runs in a session of its own."""
    for signal_number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def run_all(chosen: list[Step], workers: int) -> list[Result]:
    """Runs every step after those it waits for. One that needed a failed step is not run, and says so."""
    names = {step.name for step in chosen}
    waiting = list(chosen)
    done: dict[str, Result] = {}
    running: dict[concurrent.futures.Future[Result], Step] = {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            for step in list(waiting):
                needs = [name for name in step.after if name in names]
                lanes = {other.lane for other in running.values() if other.lane}
                if len(running) >= workers or any(name not in done for name in needs) or step.lane in lanes:
                    continue
                waiting.remove(step)
                # Only what a step is made from stops it; lint and tests that fail do not keep others from telling more.
                if any(done[name].status != "ok" for name in needs if name in MAKES):
                    done[step.name] = Result(step, "not run", 0.0, 0, 1, 0)
                    print(f"not run  {step.name}", flush=True)
                else:
                    running[pool.submit(run, step)] = step
            if not running:
                continue
            try:
                finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            except KeyboardInterrupt:
                for process in list(RUNNING):
                    end(process)
                raise
            for future in finished:
                done[running.pop(future).name] = future.result()
    return [done[step.name] for step in chosen]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", choices=["lint", "test"])
    parser.add_argument("steps", nargs="*", help="only these steps (lint and molecule stand for all of theirs)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="steps at once")
    arguments = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    chosen = selected(steps(), arguments.suite, arguments.steps)
    started = time.monotonic()
    # Ended from outside, it ends what it has started, which runs in sessions of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run_all(chosen, max(1, arguments.jobs))
    except KeyboardInterrupt:
        return 130
    bad = [result for result in results if result.status != "ok"]
    for result in bad:
        log_path = LOGS / f"{result.step.name}.log"
        print(f"\n----- {result.step.name}: {result.status} -----")
        if result.status == "failed":
            lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(lines[-TAIL:]))
            print(f"----- the whole log: {log_path.relative_to(REPO)} -----")
    print(f"\n{'step':24} {'seconds':>8}  result")
    for result in sorted(results, key=lambda result: -result.seconds):
        tests = f"  {result.passed} passed, {result.failed} failed, {result.skipped} skipped" if result.step.tests else ""
        print(f"{result.step.name:24} {result.seconds:8.1f}  {result.status}{tests}")
    print(f"{'in all':24} {time.monotonic() - started:8.1f}\n")
    skipped = sum(result.skipped for result in results)
    print(
        f"{sum(result.passed for result in results)} passed, {sum(result.failed for result in results)} failed"
        + (f", {skipped} skipped" if skipped else "")
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
