# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Approval by people, beside the chain's: what is signed, who must sign it, and whether enough of them did.

Each approver signs one line of canonical JSON with an SSH key of their own, and OpenSSH says whose signature it is: which keys
are whose, for what and until when stands in an ``allowed_signers`` file, described in ssh-keygen(1). What is allowed stands in
the text itself, and approvals and break-glass have namespaces of their own: no signature can be used for something else.

The decision is pure. The effect, ssh-keygen, has an argument list and no shell, and gets its input in a private directory.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
import typing as t

from .._core import canonical, process
from .._core.errors import ChainopsError, CommandFailed, InputError

FORMAT = "chainops.approval/1"

#: Namespaces of the signatures. OpenSSH binds them into what is signed.
APPROVAL = "chainops-approval"
BREAK_GLASS = "chainops-break-glass"

#: Seconds that one call of ssh-keygen may take, and how much of a signature or of a file of signers is looked at at all.
PATIENCE = 10.0
MAX_SIGNATURES = 64
MAX_SIGNATURE = 16 * 1024
MAX_SIGNERS = 1024 * 1024
MAX_REASON = 500

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}\Z")
_GOOD = re.compile(r'Good "(?P<namespace>[^"]*)" signature for (?P<name>\S+) with \S+ key (?P<key>SHA256:\S+)\Z')


# --- what is signed -------------------------------------------------------------------------------------------------------


def statement(
    chain_id: str | None,
    genesis_hash: str | None,
    proposal_id: str,
    payload_sha256: str,
    glass: Glass | None = None,
) -> str:
    """The text that approvers sign, newline included; the same, byte for byte, for the same things.

    With ``glass`` it is that of a break-glass, which says so, why, and until which height.
    """
    said: dict[str, t.Any] = {
        "format": FORMAT,
        "chain_id": chain_id,
        "genesis_hash": genesis_hash,
        "proposal_id": proposal_id,
        "payload_sha256": payload_sha256,
    }
    if glass is not None:
        said.update(kind="break-glass", reason=glass.reason, expires_height=glass.expires_height)
    return canonical.dumps(said).decode("ascii") + "\n"


def command(namespace: str, path: str = "STATEMENT") -> str:
    """How a person signs the statement at a path, for people to read."""
    return f"ssh-keygen -Y sign -n {namespace} -f YOUR_KEY < {path} > YOUR_NAME.sig"


# --- who must sign it -----------------------------------------------------------------------------------------------------


def require_name(value: t.Any, where: str) -> str:
    """An approver's name itself. Raises InputError for one that could be taken for an option, a pattern or two names."""
    if not isinstance(value, str) or not _NAME.match(value):
        raise InputError(
            f"{where} {value!r} is not usable; expected 1 to 100 letters, digits, '.', '_', '@', '+' or '-', "
            "the first a letter or digit"
        )
    return value


@dataclasses.dataclass(frozen=True)
class Demand:
    """How many people must approve, and who must be among them. 0 asks for nobody."""

    required: int = 0
    names: tuple[str, ...] = ()

    @staticmethod
    def from_dict(raw: t.Any, where: str = "approvals", least: int = 0) -> Demand:
        """From ``{"required": N, "names": [...]}``. Raises InputError naming what is wrong, and where."""
        if not isinstance(raw, dict):
            raise InputError(f"{where} must be a dictionary of required and names")
        required, names = raw.get("required", 0), raw.get("names")
        names = [] if names is None else names
        if required.__class__ is not int or required < least:
            raise InputError(f"{where}.required is {required!r}; expected a number of people, {least} or more")
        if not isinstance(names, (list, tuple)):
            raise InputError(f"{where}.names must be a list of approvers' names")
        listed = tuple(dict.fromkeys(require_name(name, f"{where}.names:") for name in names))
        if listed and not required:
            raise InputError(f"{where}.names says who must approve, but {where}.required is 0; say how many must")
        return Demand(required, listed)

    def joined(self, other: Demand) -> Demand:
        """Both at once."""
        return Demand(max(self.required, other.required), tuple(dict.fromkeys(self.names + other.names)))

    def as_dict(self) -> dict[str, t.Any]:
        return {"required": self.required, "names": list(self.names)}


@dataclasses.dataclass(frozen=True)
class Signature:
    """What somebody handed in under a name. ``problem`` says why there is no text."""

    name: str
    text: str | None
    problem: str | None = None

    def as_dict(self) -> dict[str, t.Any]:
        return {"name": self.name, "signature": self.text}


def signatures_from(raw: t.Any, where: str) -> tuple[Signature, ...]:
    """From a list of ``{"name", "signature"}``. Raises InputError naming what is wrong, and where."""
    if not isinstance(raw, (list, tuple)) or len(raw) > MAX_SIGNATURES:
        raise InputError(f"{where} must be a list of at most {MAX_SIGNATURES} signatures")
    found = []
    for number, item in enumerate(raw):
        here = f"{where}[{number}]"
        if not isinstance(item, dict) or not isinstance(item.get("signature"), str):
            raise InputError(f"{here} must have a name and a signature")
        found.append(Signature(require_name(item.get("name"), f"{here}.name"), item["signature"]))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Carried:
    """An approval as a proof carries it: what was signed, and the signatures, so that others can check them again."""

    statement: str
    signatures: tuple[Signature, ...]

    @staticmethod
    def from_dict(raw: t.Any, where: str) -> Carried:
        """Raises InputError naming what is wrong, and where."""
        if not isinstance(raw, dict) or not isinstance(raw.get("statement"), str):
            raise InputError(f"{where} must have a statement and signatures")
        return Carried(raw["statement"], signatures_from(raw.get("signatures"), f"{where}.signatures"))


@dataclasses.dataclass(frozen=True)
class Glass:
    """A break-glass: why, and the height after which it is worth nothing."""

    reason: str
    expires_height: int

    @staticmethod
    def from_dict(raw: t.Any, where: str = "break_glass") -> Glass:
        """Raises InputError naming what is wrong, and where."""
        if not isinstance(raw, dict):
            raise InputError(f"{where} must be a dictionary of reason and expires_height")
        reason, height = raw.get("reason"), raw.get("expires_height")
        if not isinstance(reason, str) or not reason.strip():
            raise InputError(f"{where}.reason is empty; say why the chain's approval can't be waited for")
        if len(reason) > MAX_REASON or not reason.isprintable():
            raise InputError(f"{where}.reason must be one line of at most {MAX_REASON} printable characters")
        if height.__class__ is not int or height < 1:
            raise InputError(f"{where}.expires_height is {height!r}; expected the height after which it is worth nothing")
        return Glass(reason, height)


# --- whether enough did ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Checked:
    """What OpenSSH says of one signature: the fingerprint of the key that made it, or why it doesn't count."""

    name: str
    key: str | None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether enough people approved. ``problems`` are of single signatures; they close nothing by themselves."""

    ok: bool
    demand: Demand
    approvers: tuple[str, ...]
    reasons: tuple[str, ...]
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "ok": self.ok,
            **self.demand.as_dict(),
            "approvers": list(self.approvers),
            "reasons": list(self.reasons),
            "problems": list(self.problems),
        }


def decide(demand: Demand, checked: t.Sequence[Checked], what: str = "approvals") -> Verdict:
    """Count people: neither a name nor a key counts twice, whatever the order. One bad signature doesn't spoil the good ones."""
    keys: dict[str, list[str]] = {}
    problems: list[str] = []
    for one in checked:
        if one.problem is not None or one.key is None:
            problems.append(f"{one.name}'s signature does not verify: {one.problem or 'no key is known to have made it'}")
        elif one.key not in keys.setdefault(one.name, []):
            keys[one.name].append(one.key)
    holders = _each_a_key_of_their_own(keys, demand.names)
    approvers = tuple(sorted(holders.values()))
    for name in sorted(set(keys) - set(approvers)):
        others = sorted({holders[key] for key in keys[name] if key in holders})
        problems.append(f"{name} signed with the key that counts for {' and '.join(others)} already")
    reasons = []
    if len(approvers) < demand.required:
        reasons.append(": ".join([f"{len(approvers)} of {demand.required} {what}", *(["; ".join(problems)] if problems else [])]))
    absent = [name for name in demand.names if name not in approvers] if demand.required else []
    if absent:
        reasons.append(f"{', '.join(absent)} must be among the {what} and {'is' if len(absent) == 1 else 'are'} not")
    return Verdict(not reasons, demand, approvers, tuple(reasons), tuple(problems))


def carried(text: str, signatures: t.Sequence[Signature], verdict: Verdict) -> dict[str, t.Any]:
    """For the proof: see ``Carried``. The verdict is that of whoever made the proof."""
    handed_in = [one.as_dict() for one in signatures if one.text is not None]
    return {"statement": text, "signatures": handed_in, "verdict": verdict.as_dict()}


def _each_a_key_of_their_own(keys: t.Mapping[str, t.Sequence[str]], first: t.Sequence[str]) -> dict[str, str]:
    """The most names that can each have a key that no other one has, those of ``first`` before the others: name by key."""
    holders: dict[str, str] = {}

    def seat(name: str, tried: set[str]) -> bool:
        for key in keys[name]:
            if key not in tried:
                tried.add(key)
                if key not in holders or seat(holders[key], tried):
                    holders[key] = name
                    return True
        return False

    for name in dict.fromkeys((*(name for name in first if name in keys), *sorted(keys))):
        seat(name, set())
    return holders


# --- what OpenSSH says ----------------------------------------------------------------------------------------------------


def verify(text: str, namespace: str, signatures: t.Sequence[Signature], allowed_signers: bytes) -> list[Checked]:
    """Ask ssh-keygen about each signature over ``text``. ``allowed_signers`` is that file's content.

    Raises ChainopsError when there is no ssh-keygen to ask, or none that verifies.
    """
    if len(signatures) > MAX_SIGNATURES:
        raise InputError(f"{len(signatures)} signatures; at most {MAX_SIGNATURES} are looked at")
    tool = shutil.which("ssh-keygen")
    if tool is None:
        raise ChainopsError(
            "ssh-keygen is not on this machine, and approvals can't be verified without it: install OpenSSH's client "
            "(Debian: openssh-client, Red Hat: openssh), 8.2 or later"
        )
    with tempfile.TemporaryDirectory(prefix="chainops-approval-") as room:  # made with mode 0700
        signers = os.path.join(room, "allowed_signers")
        _put(signers, allowed_signers)
        return [_verify_one(tool, room, signers, text, namespace, one) for one in signatures]


def _verify_one(tool: str, room: str, signers: str, text: str, namespace: str, one: Signature) -> Checked:
    try:
        require_name(one.name, "name")
    except InputError as exc:
        return Checked(repr(one.name), None, exc.message)
    if one.text is None:
        return Checked(one.name, None, one.problem or "there is none")
    if len(one.text) > MAX_SIGNATURE:
        return Checked(one.name, None, f"it is longer than {MAX_SIGNATURE} characters")
    where = os.path.join(room, "signature")
    _put(where, (one.text.strip() + "\n").encode("utf-8", "replace"))

    def ask(*about: str) -> process.Done:
        argv = [tool, "-Y", *about]
        env = {**os.environ, "LC_ALL": "C"}
        return process.run(argv, timeout=PATIENCE, env=env, cwd=room, check=False, feed=text.encode("ascii"))

    try:
        answer = ask("verify", "-f", signers, "-I", one.name, "-n", namespace, "-s", where)
        if answer.code == 0:
            found = _GOOD.match(answer.output.strip())
            if found is None or (found["namespace"], found["name"]) != (namespace, one.name):
                return Checked(one.name, None, f"ssh-keygen's answer makes no sense: {answer.output.strip()[:200]!r}")
            return Checked(one.name, found["key"])
        whole = ask("check-novalidate", "-n", namespace, "-s", where)
        if whole.code != 0:
            return Checked(one.name, None, _words(whole.output, namespace, signers) or "ssh-keygen says so, and not why")
        known = ask("match-principals", "-I", one.name, "-f", signers).code == 0
    except CommandFailed as exc:
        return Checked(one.name, None, exc.message)
    told = _words(answer.output, namespace, signers)
    if told:
        return Checked(one.name, None, told)
    if known:
        return Checked(one.name, None, f"the key that made it is none of {one.name}'s in the allowed signers")
    return Checked(one.name, None, f"no line of the allowed signers holds the key that made it for {one.name}")


def _words(output: str, namespace: str, signers: str) -> str:
    """What ssh-keygen complains about, in words that name the cause; empty where it only says no."""
    if "namespace does not match" in output:
        return f"it was made for another purpose, not in the namespace {namespace}"
    if "incorrect signature" in output:
        return "it is over another text than this statement"
    if "missing header" in output or "parse signature" in output or "incomplete message" in output:
        return "it is no OpenSSH signature, or not a whole one"
    lines = [line.strip().replace(f"{signers}:", "allowed signers, line ", 1) for line in output.splitlines()]
    return "; ".join(line for line in lines if line and line != "Could not verify signature.")[:400]


def _put(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
