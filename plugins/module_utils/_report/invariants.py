# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The promise of a rollout, judged from its evidence. Pure: what wasn't observed is said to be so, and is never green.

``rollout`` is the dict that the ``rollout_report`` module takes; its documentation describes it. Each judge returns a verdict
with the evidence in words and numbers, so that a reader can check it against the data beside it.
"""

from __future__ import annotations

import dataclasses
import typing as t

HELD, BROKEN, NOT_OBSERVED = "held", "broken", "not_observed"
THIRD = 1 / 3

Rollout = t.Mapping[str, t.Any]
JsonDict = t.Dict[str, t.Any]

PROMISES: dict[str, str] = {
    "I1": "No validator key ever signs on two hosts, or twice for one height.",
    "I2": "The last-signed height of a key never goes down.",
    "I3": "The voting power that is offline stays below the budget.",
    "I4": "Every host ends old or new, never between, and its journal says which.",
    "I5": "Nothing is upgraded without a gate proof that was valid then.",
    "I6": "A verified rollback point exists until the whole rollout is finished.",
    "I7": "Evidence is append-only and hash-chained; tampering shows.",
    "I8": "No secret reaches a log, a diff, argv, a report or a notification.",
    "I9": "A drained host is either put back or reported as still drained.",
    "I10": "No client request that goes through the gateway fails because of the upgrade.",
}


@dataclasses.dataclass(frozen=True)
class Invariant:
    id: str
    promise: str
    status: str
    evidence: str

    def as_dict(self) -> JsonDict:
        return dataclasses.asdict(self)


class Doubt(Exception):
    """Something needed wasn't observed."""


def touched(rollout: Rollout) -> list[JsonDict]:
    """Hosts whose turn began."""
    return [h for h in rollout.get("hosts") or [] if (h.get("turn") or {}).get("outcome")]


def _need(rollout: Rollout, *path: str) -> t.Any:
    value: t.Any = rollout
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise Doubt(f"no {'.'.join(path)} was collected")
    return value


def _each(rollout: Rollout, key: str) -> list[tuple[str, t.Any]]:
    """(host, value) of every touched host. Raises Doubt where one lacks it, or when nothing was touched."""
    hosts = touched(rollout)
    if not hosts:
        raise Doubt("no host was touched")
    lacking = [str(h["name"]) for h in hosts if h.get(key) is None]
    if lacking:
        raise Doubt(f"no {key} was collected from {', '.join(lacking)}")
    return [(str(h["name"]), h[key]) for h in hosts]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _i1(rollout: Rollout) -> tuple[bool, str]:
    found = _need(rollout, "chain", "equivocations")
    if found:
        first = found[0]
        return False, f"{_many(len(found), 'equivocation')}; the first: {first.get('address')} at height {first.get('height')}"
    span = ""
    heights = [h for h in (rollout["chain"].get("first_height"), rollout["chain"].get("last_height")) if h is not None]
    if len(heights) == 2:
        span = f" from height {heights[0]} to {heights[1]}"
    return True, f"no equivocation recorded by any node{span}"


def _mark(mark: t.Any) -> tuple[int, int, int]:
    return int(mark["height"]), int(mark.get("round", 0)), int(mark.get("step", 0))


def _i2(rollout: Rollout) -> tuple[bool, str]:
    fallen, said = [], []
    for host, marks in _each(rollout, "watermark"):
        if not isinstance(marks, dict) or marks.get("before") is None or marks.get("after") is None:
            raise Doubt(f"no watermark before and after was collected from {host}")
        before, after = _mark(marks["before"]), _mark(marks["after"])
        said.append(f"{host} {before[0]} → {after[0]}")
        if after < before:
            fallen.append(host)
    return not fallen, f"{'fell on ' + ', '.join(fallen) + ': ' if fallen else ''}{'; '.join(said)}"


def _i3(rollout: Rollout) -> tuple[bool, str]:
    samples = _need(rollout, "chain", "power")
    if not samples:
        raise Doubt("voting power was never sampled")
    budget = float(rollout.get("power_budget") or THIRD)
    worst = max(float(s["offline_fraction"]) for s in samples)
    limit = min(budget, THIRD)
    held = worst < THIRD and worst <= limit
    return held, f"at most {worst:.1%} offline in {_many(len(samples), 'sample')}, budget {limit:.1%}"


def _i4(rollout: Rollout) -> tuple[bool, str]:
    hosts = touched(rollout)
    if not hosts:
        raise Doubt("no host was touched")
    wrong, said = [], []
    new = (rollout.get("release") or {}).get("sha256")
    for host in hosts:
        name, turn = str(host["name"]), host["turn"]
        running = (host.get("after") or {}).get("sha256")
        if running is None:
            raise Doubt(f"which release {name} runs was not collected")
        outcome = turn["outcome"]
        wanted = new if outcome == "committed" else (host.get("before") or {}).get("sha256") if outcome == "put_back" else None
        if wanted is None and outcome in ("committed", "put_back"):
            raise Doubt(f"which release {name} should run was not collected")
        if host.get("journal_verified") is None:
            raise Doubt(f"the journal of {name} was not verified")
        if running != wanted or not host["journal_verified"]:
            wrong.append(name)
        said.append(f"{name} {str(outcome).replace('_', ' ')}")
    return not wrong, f"{'in doubt: ' + ', '.join(wrong) + '; ' if wrong else ''}{'; '.join(said)}"


def _i5(rollout: Rollout) -> tuple[bool, str]:
    proof = _need(rollout, "proof")
    release = _need(rollout, "release", "sha256")
    digest = proof.get("sha256")
    if not digest:
        raise Doubt("the proof's digest was not collected")
    wrong = []
    if proof.get("open") is not True:
        wrong.append("the gate was not open")
    if proof.get("release_sha256") not in (None, release):
        wrong.append("the proof is for another release")
    checks = _each(rollout, "proof_problems")
    wrong += [f"{host}: {problem}" for host, problems in checks for problem in problems]
    said = "; ".join(wrong)
    if not wrong:
        of = f"proof {str(digest)[:12]}… of proposal {rollout.get('proposal_id', '?')}"
        said = f"{of} checked again by {_many(len(checks), 'host')}"
        if proof.get("approvers"):
            said += f", approved besides by {', '.join(proof['approvers'])}"
    return not wrong, break_glass(proof) + said


def break_glass(proof: t.Mapping[str, t.Any]) -> str:
    """What must be said first of a proof that people opened, and not the chain; empty for any other."""
    glass = proof.get("break_glass")
    if not glass:
        return ""
    by = ", ".join(glass.get("approvers") or ["nobody told"])
    return f"BREAK-GLASS by {by} until height {glass.get('expires_height')}, not approved on chain ({glass.get('reason')}): "


def _i6(rollout: Rollout) -> tuple[bool, str]:
    wrong, said = [], []
    for host, snapshot in _each(rollout, "snapshot"):
        if snapshot.get("verified") is None:
            raise Doubt(f"the snapshot of {host} was not verified")
        if not snapshot["verified"]:
            wrong.append(host)
        said.append(f"{host} {snapshot.get('id') or ''}")
    return not wrong, f"{'does not verify on ' + ', '.join(wrong) + ': ' if wrong else 'verified: '}{'; '.join(said)}"


def _i7(rollout: Rollout) -> tuple[bool, str]:
    wrong, entries = [], 0
    manifests = _each(rollout, "manifest")
    # A turn that ended before it stopped anything has nothing to write down, and may have been the host's first.
    changed = {str(h["name"]) for h in touched(rollout) if h["turn"].get("touched") is not False}
    for host, manifest in manifests:
        if manifest.get("valid") is None:
            raise Doubt(f"the manifest of {host} was not verified")
        entries += int(manifest.get("entries") or 0)
        if not manifest["valid"]:
            wrong.append(f"{host}: {'; '.join(manifest.get('problems') or ['does not verify'])}")
        elif not manifest.get("entries") and host in changed:
            wrong.append(f"{host}: its manifest is empty")
    copies = rollout.get("copies") or {}
    wrong += copies.get("refused") or []
    said = f"{_many(len(manifests), 'manifest')} with {entries} {'entry' if entries == 1 else 'entries'}, all verify"
    return not wrong, "; ".join(wrong) or "; ".join([said, *([copies["words"]] if copies.get("words") else [])])


def _i8(rollout: Rollout) -> tuple[bool, str]:
    scan = _need(rollout, "secrets_scan")
    if not scan.get("secrets") or not scan.get("files"):
        raise Doubt("no secret was given to look for, or no log to look through")
    found = scan.get("found") or []
    files = _many(int(scan.get("files", 0)), "file")
    where = f"{_many(int(scan['secrets']), 'secret')} looked for in {files} and the evidence, {int(scan['bytes']):,} bytes"
    return not found, f"found in {', '.join(found)}; {where}" if found else where


def _i9(rollout: Rollout) -> tuple[bool, str]:
    drains = rollout.get("drains")
    if not drains:
        raise Doubt("no drain was collected")
    back = [d for d in drains if d.get("restored") is True]
    still = [d for d in drains if d.get("restored") is False]
    lost = [d for d in drains if d.get("restored") is None]
    if lost:
        return False, "nobody knows how these stand: " + ", ".join(f"{d.get('server')} on {d.get('gateway')}" for d in lost)
    said = f"{_many(len(drains), 'drain')}, {len(back)} put back"
    if still:
        said += "; STILL DRAINED: " + ", ".join(f"{d.get('server')} on {d.get('gateway')}" for d in still)
    return True, said


def _i10(rollout: Rollout) -> tuple[bool, str]:
    load = _need(rollout, "load")
    sent = int(load.get("requests") or 0)
    if not sent or load.get("failed") is None:
        raise Doubt("no client request was watched")
    failed, twice = int(load["failed"]), int(load.get("double_spends") or 0)
    said = f"{sent:,} requests, {failed} failed"
    if load.get("double_spends") is not None:
        said += f", {twice} double spends"
    return failed == 0 and twice == 0, said


_JUDGES: dict[str, t.Callable[[Rollout], tuple[bool, str]]] = {
    "I1": _i1, "I2": _i2, "I3": _i3, "I4": _i4, "I5": _i5, "I6": _i6, "I7": _i7, "I8": _i8, "I9": _i9, "I10": _i10,
}  # fmt: skip


def judge(rollout: Rollout) -> tuple[Invariant, ...]:
    """All ten, in order. Data of another shape than documented is "not observed", with what was wrong with it."""
    result = []
    for name, look in _JUDGES.items():
        try:
            held, evidence = look(rollout)
            status = HELD if held else BROKEN
        except Doubt as exc:
            status, evidence = NOT_OBSERVED, str(exc)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            status, evidence = NOT_OBSERVED, f"the collected data has another shape than expected ({exc!r})"
        result.append(Invariant(name, PROMISES[name], status, evidence))
    return tuple(result)
