# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exactly was approved: the upgrade payload, its hash, and how it differs from what is about to run."""

from __future__ import annotations

import json
import re
import typing as t
import unicodedata

from .._core import canonical
from .._core.errors import InputError

FORMAT = "chainops.upgrade/1"

#: A breaking change of the API as openapi_contract_info takes it: it names at least a verb and where in the API.
_API_CHANGE = re.compile(r"(?:GET|HEAD|OPTIONS|POST|PUT|PATCH|DELETE|TRACE) /\S* \S.*\Z")

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")

#: Characters that people take for one another, each by the one it is read as.
_LOOKS_LIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "5": "s", "а": "a", "е": "e", "о": "o", "р": "p", "с": "c"})

#: How the chain's own machinery would read these: an upgrade payload must never make it do something.
_FORBIDDEN = ("proposal_type", "parameter", "rule_name", "new_value", "feature_name")


def payload_digest(payload: t.Any) -> str:
    """SHA-256 of the canonical form: the hash that is approved."""
    return canonical.digest(payload)


def is_upgrade(payload: t.Any) -> bool:
    """Whether a payload claims to be one of ours (and must then be a whole one)."""
    return isinstance(payload, dict) and "format" in payload


def problems(payload: t.Any) -> list[str]:
    """What keeps a payload from being a complete upgrade payload; empty when nothing does."""
    if not isinstance(payload, dict):
        return ["the payload is not a dictionary"]
    found: list[str] = []

    def need(path: str, good: t.Callable[[t.Any], bool], what: str) -> None:
        value: t.Any = payload
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not good(value):
            found.append(f"{path} is {_show(value)}; expected {what}")

    need("format", lambda value: value == FORMAT, repr(FORMAT))
    need("chain_id", _text, "the chain's id, or the hash of its first block where it has none")
    need("release.id", _text, "the release's id")
    need("release.level", _level, "the storage level, a whole number, or none")
    need("release.artifacts", _artifacts, "a SHA-256 (64 lower-case hex digits) for each architecture, at least one")
    need("migrations", _migrations, "a list of id, direction, and from_level and to_level or neither")
    need("snapshot.required", lambda value: isinstance(value, bool), "true or false")
    need("target", lambda value: isinstance(value, dict), "the module, parameter or feature targeted")
    need("activation_height", _count, "a height, 0 for none")
    need("risk", lambda value: isinstance(value, str), "a text")
    need("reports", _reports, "a SHA-256 or null for each report")
    need("links", lambda value: isinstance(value, dict), "links to code and documents")
    if "api_changes" in payload:
        need("api_changes", _api_changes, "a list of breaking changes as 'GET /path kind $.field', at least one, none twice")
    for name in _FORBIDDEN:
        if name in payload:
            found.append(f"{name} has a meaning for the chain itself and must not be in an upgrade payload")
    return found


def require_complete(payload: t.Any) -> None:
    """Raises InputError listing everything that is wrong with an upgrade payload."""
    wrong = problems(payload)
    if wrong:
        raise InputError(f"payload: {'; '.join(wrong)}", problems=wrong)


def differences(approved: t.Any, about_to_run: t.Any) -> list[str]:
    """How what is about to run departs from what was approved, field by field; empty only when they are equal, byte for byte."""
    found: list[str] = []
    _compare("", approved, about_to_run, found)
    if not found and canonical.digest(approved) != canonical.digest(about_to_run):
        found.append("the payloads differ")
    return found


def artifact_problems(payload: t.Any, release_sha256: str, arch: str) -> list[str]:
    """Whether an archive of this digest is approved for this architecture."""
    release = payload.get("release") if isinstance(payload, dict) else None
    artifacts = release.get("artifacts") if isinstance(release, dict) else None
    if not isinstance(artifacts, dict) or not artifacts:
        return ["the approved payload names no release digests"]
    wanted = artifacts.get(arch)
    if wanted is None:
        return [f"no release is approved for {arch}; approved: {', '.join(sorted(map(str, artifacts)))}"]
    if wanted == release_sha256:
        return []
    others = sorted(name for name, digest in artifacts.items() if digest == release_sha256)
    if others:
        return [f"the release with digest {release_sha256} is approved for {', '.join(others)}, not for {arch}"]
    return [f"the release's digest is {release_sha256}; approved for {arch} is {wanted}"]


def chain_problems(payload: t.Any, chain_id: str | None, genesis_hash: str | None) -> list[str]:
    """Whether a payload was meant for this chain: by its id, or by the hash of its first block where it has no id."""
    meant = payload.get("chain_id") if isinstance(payload, dict) else None
    if meant is not None and meant in (chain_id, genesis_hash):
        return []
    return [f"the payload is for chain {_show(meant)}; this is {_show(chain_id or genesis_hash)}"]


def looks_like(one: str, other: str) -> bool:
    """Two different texts that a person may take for the same one."""
    return one != other and _seen(one) == _seen(other)


def _seen(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c) and not unicodedata.category(c).startswith(("C", "Z")))
    return re.sub(r"[-_.]", "", plain.translate(_LOOKS_LIKE).replace("rn", "m"))


def _compare(path: str, approved: t.Any, running: t.Any, found: list[str]) -> None:
    if isinstance(approved, dict) and isinstance(running, dict):
        for name in sorted(set(approved) | set(running)):
            here = f"{path}.{name}" if path else str(name)
            if name not in running:
                found.append(f"{here}: approved is {_show(approved[name])}, about to run has none")
            elif name not in approved:
                found.append(_unapproved(here, running[name], approved))
            else:
                _compare(here, approved[name], running[name], found)
    elif isinstance(approved, list) and isinstance(running, list):
        for index in range(max(len(approved), len(running))):
            here = f"{path}[{index}]"
            if index >= len(running):
                found.append(f"{here}: approved is {_show(approved[index])}, about to run has none")
            elif index >= len(approved):
                found.append(f"{here}: about to run is {_show(running[index])}, which is not approved")
            else:
                _compare(here, approved[index], running[index], found)
    elif canonical.dumps(approved) != canonical.dumps(running):
        found.append(_unequal(path, approved, running))


def _unapproved(path: str, running: t.Any, approved: t.Mapping[str, t.Any]) -> str:
    if path.startswith("release.artifacts."):
        listed = ", ".join(sorted(map(str, approved))) or "none"
        return f"{path}: no release is approved for this architecture; approved: {listed}"
    return f"{path}: about to run is {_show(running)}, which is not approved"


def _unequal(path: str, approved: t.Any, running: t.Any) -> str:
    hint = ""
    if isinstance(approved, str) and isinstance(running, str) and looks_like(approved, running):
        hint = "; they look alike, but are not the same"
    elif str(approved) == str(running):
        hint = f"; one is a {_kind(approved)}, the other a {_kind(running)}"
    elif path == "chain_id":
        hint = "; that is another chain"
    return f"{path or 'payload'}: approved is {_show(approved)}, about to run is {_show(running)}{hint}"


def _show(value: t.Any) -> str:
    """A value for messages: JSON with everything but printable ASCII escaped, so that look-alikes show."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return text if len(text) <= 100 else text[:97] + "..."


def _kind(value: t.Any) -> str:
    names = {bool: "truth value", int: "whole number", float: "decimal number", str: "text", type(None): "null"}
    return names.get(type(value), "structure")


def _text(value: t.Any) -> bool:
    return isinstance(value, str) and bool(value) and value == value.strip() and value.isprintable()


def _count(value: t.Any) -> bool:
    return value.__class__ is int and value >= 0


def _level(value: t.Any) -> bool:
    """Some chains' storage has no levels."""
    return value is None or _count(value)


def _digest(value: t.Any) -> bool:
    return isinstance(value, str) and _HEX64.match(value) is not None


def _artifacts(value: t.Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(_text(arch) and _digest(sha) for arch, sha in value.items())


def _reports(value: t.Any) -> bool:
    return isinstance(value, dict) and all(sha is None or _digest(sha) for sha in value.values())


def _api_changes(value: t.Any) -> bool:
    """Without any, the payload doesn't have the list: there is one way to say nothing."""
    if not isinstance(value, list) or not value:
        return False
    return all(_text(one) and _API_CHANGE.match(one) for one in value) and len(set(value)) == len(value)


def _migrations(value: t.Any) -> bool:
    return isinstance(value, list) and all(map(_migration, value))


def _migration(value: t.Any) -> bool:
    return (
        isinstance(value, dict)
        and _text(value.get("id"))
        and value.get("direction") in ("forward", "back")
        and _level(value.get("from_level"))
        and _level(value.get("to_level"))
        and (value.get("from_level") is None) is (value.get("to_level") is None)
    )


def draft(
    release: t.Mapping[str, t.Any],
    chain_id: str,
    *,
    target: t.Mapping[str, t.Any] | None = None,
    activation_height: int = 0,
    risk: str = "",
    reports: t.Mapping[str, t.Any] | None = None,
    links: t.Mapping[str, t.Any] | None = None,
    api_changes: t.Sequence[str] = (),
) -> dict[str, t.Any]:
    """The upgrade payload of a release descriptor, as ``propose`` submits it and the gate compares it. Raises InputError.

    Levels that the descriptor doesn't have (or has as null) are not in it, nor ``api_changes`` where there are none.
    """
    payload = {
        "format": FORMAT,
        "chain_id": chain_id,
        "release": {
            "id": str(release.get("id") or ""),
            **_levels(release, "level"),
            "artifacts": {arch: one.get("sha256") for arch, one in (release.get("artifacts") or {}).items()},
        },
        "migrations": [
            {"id": one["id"], "direction": "forward", **_levels(one, "from_level", "to_level")}
            for one in release.get("migrations") or ()
        ],
        "snapshot": {"required": True},
        "target": dict(target or {"module": str(release.get("module") or "node")}),
        "activation_height": int(activation_height),
        "risk": risk,
        "reports": {"api": None, "security": None, "monitoring": None, **(reports or {})},
        "links": dict(links or {}),
        **({"api_changes": list(api_changes)} if api_changes else {}),
    }
    require_complete(payload)
    return payload


def _levels(described: t.Mapping[str, t.Any], *names: str) -> dict[str, int]:
    return {name: int(described[name]) for name in names if described.get(name) is not None}
