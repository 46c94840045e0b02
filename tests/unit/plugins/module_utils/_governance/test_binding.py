# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._governance import binding
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.chain_in_memory import payload

SHA = "ab" * 32


def changed(path: str, value: t.Any) -> dict[str, t.Any]:
    result = copy.deepcopy(payload())
    *parents, last = path.split(".")
    inner = result
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return result


def test_a_whole_payload_has_no_problems_and_no_differences_to_itself() -> None:
    assert binding.problems(payload()) == []
    assert binding.differences(payload(), copy.deepcopy(payload())) == []
    assert binding.payload_digest(payload()) == binding.payload_digest(dict(reversed(list(payload().items()))))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "chainops.upgrade/2"),
        ("chain_id", ""),
        ("release.id", " 2.0.0"),
        ("release.level", "2"),
        ("release.level", True),
        ("release.artifacts", {}),
        ("release.artifacts", {"x86_64": "AB" * 32}),
        ("migrations", [{"id": "x"}]),
        ("migrations", [{"id": "x", "direction": "forward", "from_level": "1", "to_level": 2}]),
        ("migrations", [{"id": "x", "direction": "forward", "from_level": None, "to_level": 2}]),
        ("snapshot", {}),
        ("target", None),
        ("activation_height", -1),
        ("risk", None),
        ("reports", {"api": "no"}),
        ("links", []),
        ("proposal_type", "modify_governance_rules"),
        ("new_value", 1),
    ],
)
def test_what_is_wrong_with_a_payload_is_named(path: str, value: t.Any) -> None:
    with pytest.raises(InputError, match=path):
        binding.require_complete(changed(path, value))


@pytest.mark.parametrize("levels", [{}, {"from_level": None, "to_level": None}])
def test_storage_without_levels_is_described_without_them(levels: dict[str, t.Any]) -> None:
    release = {"id": "2.0.0", "artifacts": {"x86_64": {"sha256": SHA}}, "migrations": [{"id": "x", **levels}]}
    drafted = binding.draft({**release, **({"level": None} if levels else {})}, "c")
    assert drafted == binding.draft(release, "c")
    assert drafted["release"] == {"id": "2.0.0", "artifacts": {"x86_64": SHA}}
    assert drafted["migrations"] == [{"id": "x", "direction": "forward"}]
    # Somebody else's payload may say null.
    assert binding.problems(changed("release.level", None)) == []
    assert binding.problems(changed("migrations", [{"id": "x", "direction": "forward", **levels}])) == []


def test_levels_that_are_there_stay() -> None:
    step = {"id": "x", "from_level": 0, "to_level": 1, "forward": ["{release}/x"]}
    drafted = binding.draft({"id": "2.0.0", "level": 0, "artifacts": {"x86_64": {"sha256": SHA}}, "migrations": [step]}, "c")
    assert drafted["release"]["level"] == 0
    assert drafted["migrations"] == [{"id": "x", "direction": "forward", "from_level": 0, "to_level": 1}]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("release.artifacts", {"x86_64": "cd" * 32}, "release.artifacts.x86_64: approved is"),
        ("release.artifacts", {"x86_64": SHA, "aarch64": SHA}, "no release is approved for this architecture; approved: x86_64"),
        ("release.artifacts", {"aarch64": SHA}, "about to run has none"),
        ("release.id", "2.O.0", "they look alike, but are not the same"),
        ("release.id", "2.0.0\u200b", "look alike"),
        ("release.level", "2", "one is a whole number, the other a text"),
        ("release.level", 2.0, "release.level"),
        ("chain_id", "mainnet-1", "that is another chain"),
        ("migrations", [], "migrations[0]: approved is"),
        ("snapshot", {"required": False}, "snapshot.required: approved is true, about to run is false"),
        ("activation_height", 500, "activation_height"),
        ("extra", 1, "extra: about to run is 1, which is not approved"),
    ],
)
def test_every_difference_is_named(path: str, value: t.Any, words: str) -> None:
    found = binding.differences(payload(), changed(path, value))
    assert any(words in text for text in found), found


def test_an_archive_is_approved_for_its_architecture_alone() -> None:
    two = changed("release.artifacts", {"x86_64": SHA, "aarch64": "cd" * 32})
    assert binding.artifact_problems(two, SHA, "x86_64") == []
    assert "is approved for x86_64, not for aarch64" in binding.artifact_problems(two, SHA, "aarch64")[0]
    assert "no release is approved for riscv64" in binding.artifact_problems(two, SHA, "riscv64")[0]
    assert "approved for x86_64 is " + SHA in binding.artifact_problems(two, "00" * 32, "x86_64")[0]
    assert binding.artifact_problems({}, SHA, "x86_64")
    assert binding.artifact_problems(None, SHA, "x86_64")


def test_a_payload_for_another_chain_is_none_for_this_one() -> None:
    assert binding.chain_problems(payload(), "unit-1", "g") == []
    assert binding.chain_problems(payload(chain_id="g"), None, "g") == []
    assert "this is" in binding.chain_problems(payload(), "other", "g")[0]
    assert binding.chain_problems({}, None, None)


@pytest.mark.parametrize(
    ("one", "other", "alike"), [("a-1", "a-l", True), ("a-1", "a-1", False), ("a-1", "a-2", False), ("pay", "рay", True)]
)
def test_looking_alike(one: str, other: str, alike: bool) -> None:
    assert binding.looks_like(one, other) is alike


@pytest.mark.parametrize(
    ("declared", "good"),
    [
        (["GET /stats removed $.peers"], True),
        (["GET /blocks/{index} * ", "POST /send *"], False),
        (["POST /send *"], True),
        ([], False),
        (["*"], False),
        (["GET * *"], False),
        (["stats removed $.peers"], False),
        (["GET /a type $.x", "GET /a type $.x"], False),
        ("GET /a type $.x", False),
        ([1], False),
    ],
)
def test_declared_changes_of_the_api_name_an_operation(declared, good):
    payload = binding.draft({"id": "2.0.0", "artifacts": {"x86_64": {"sha256": SHA}}}, "c")
    assert "api_changes" not in payload
    assert (binding.problems({**payload, "api_changes": declared}) == []) is good


def test_declared_changes_of_the_api_are_part_of_what_is_approved():
    release = {"id": "2.0.0", "artifacts": {"x86_64": {"sha256": SHA}}}
    plain, declared = (binding.draft(release, "c", api_changes=changes) for changes in ((), ["GET /a type $.x"]))
    assert binding.payload_digest(plain) != binding.payload_digest(declared)
    assert binding.differences(plain, declared) == ['api_changes: about to run is ["GET /a type $.x"], which is not approved']
