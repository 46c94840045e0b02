# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import typing as t

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import Refused
from ansible_collections.chainops.validator.plugins.module_utils._governance import hostgate
from ansible_collections.chainops.validator.plugins.module_utils._governance.approval import Demand
from ansible_collections.chainops.validator.plugins.module_utils._governance.model import THRESHOLDS, Policy

WHOLE = {
    "chain_thresholds": {"min_voters": 3},
    "policy": {"thresholds": {"min_voters": 7}, "required_stage": "executed", "valid_blocks": 100},
    "approvals": {"required": 2, "names": ["alice"]},
    "break_glass": True,
}


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    where = tmp_path / "etc" / "unit1"
    where.mkdir(parents=True, mode=0o755)
    return where


def write(home: pathlib.Path, said: t.Any, mode: int = 0o644, name: str = "gate.json") -> None:
    path = home / name
    path.write_text(said if isinstance(said, str) else json.dumps(said), encoding="utf-8")
    path.chmod(mode)


def load(home: pathlib.Path) -> hostgate.HostGate:
    return hostgate.load("unit1", str(home.parent))


def refusal(home: pathlib.Path) -> str:
    with pytest.raises(Refused) as caught:
        load(home)
    assert "this host refuses every proof" in caught.value.message
    return caught.value.message


# --- the file -------------------------------------------------------------------------------------------------------------


def test_no_file_asks_for_nothing_and_takes_no_break_glass(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    nothing = hostgate.HostGate(str(home / "gate.json"))
    assert load(home) == nothing
    write(home, "alice ...", name="allowed_signers")
    assert load(home) == nothing
    assert hostgate.load("other", str(home.parent)) == hostgate.HostGate(str(home.parent / "other" / "gate.json"))
    assert not hostgate.load("unit1", str(tmp_path / "nowhere")).break_glass


def test_a_whole_file(home: pathlib.Path) -> None:
    write(home, WHOLE)
    write(home, "alice ssh-ed25519 AAAA\n", name="allowed_signers")
    found = load(home)
    assert found == hostgate.HostGate(
        str(home / "gate.json"), {"min_voters": 3}, WHOLE["policy"], Demand(2, ("alice",)), True, b"alice ssh-ed25519 AAAA\n"
    )
    write(home, {})
    assert load(home) == hostgate.HostGate(str(home / "gate.json"), signers=b"alice ssh-ed25519 AAAA\n")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ('{"break_glass": true, "break_glass": false}', "duplicate key"),
        ('{"policy": {"thresholds": {"min_voters": NaN}}}', "NaN"),
        ([], "must be a JSON object"),
        ({"breakglass": True}, "unknown key 'breakglass'"),
        ({"break_glass": "true"}, "break_glass is 'true'"),
        ({"break_glass": 1}, "break_glass is 1"),
        ({"approvals": {"required": "2"}}, "approvals.required is '2'"),
        ({"approvals": []}, "approvals must be a dictionary"),
        ({"approvals": {"required": 1, "names": ["-x"]}}, "not usable"),
        ({"policy": {"thresholds": {"voters": 2}}}, "unknown threshold 'voters'"),
        ({"policy": {"thresholds": {"min_voters": -1}}}, "min_voters is -1"),
        ({"policy": {"min_voters": 5}}, "unknown key 'min_voters'"),
        ({"policy": {"required_stage": "proposed"}}, "required_stage is 'proposed'"),
        ({"policy": {"valid_blocks": 0}}, "valid_blocks is 0"),
        ({"policy": {"chain_thresholds": {}}}, "stands beside it"),
        ({"policy": None}, "policy must be an object"),
        ({"chain_thresholds": {"voters": 2}}, "unknown threshold 'voters'"),
    ],
)
def test_a_file_that_says_what_can_not_be_refuses_everything(home: pathlib.Path, said: t.Any, words: str) -> None:
    write(home, said)
    assert words in refusal(home)


@pytest.mark.parametrize("name", ["gate.json", "allowed_signers"])
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_can_write_refuses_everything(home: pathlib.Path, name: str, mode: int) -> None:
    write(home, WHOLE)
    write(home, "alice ssh-ed25519 AAAA\n", name="allowed_signers")
    assert load(home).break_glass
    (home / name).chmod(mode)
    assert f"{home / name} can be written by others" in refusal(home)


def test_a_directory_that_others_can_write_refuses_everything(home: pathlib.Path) -> None:
    for where in (home, home.parent):
        for mode in (0o775, 0o757, 0o1777):
            where.chmod(mode)
            assert f"{where} can be written by others" in refusal(home)
        where.chmod(0o755)


def test_files_of_somebody_else_refuse_everything(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, WHOLE)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if os.getuid() == 0:
        assert load(home).break_glass  # root's file is good for whoever the engine runs as
        os.chown(home / "gate.json", 4711, -1)
        assert f"{home / 'gate.json'} belongs to uid 4711" in refusal(home)
    else:
        assert f"belongs to uid {os.getuid()}" in refusal(home)


def test_what_is_no_file_refuses_everything(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = home / "gate.json"
    write(tmp_path, WHOLE, name="elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert "it is a symbolic link" in refusal(home)
    path.unlink()
    path.mkdir()
    assert "is not a file" in refusal(home)
    path.rmdir()
    os.mkfifo(path)
    assert "is not a file" in refusal(home)
    path.unlink()
    write(home, " " * (hostgate.approval.MAX_SIGNERS + 1))
    assert "is larger than" in refusal(home)
    path.unlink()
    home.rmdir()
    home.write_text("")
    assert "is not a directory" in refusal(home)


# --- strictness -----------------------------------------------------------------------------------------------------------


def number(low: int = 0) -> st.SearchStrategy[t.Any]:
    return st.integers(low, 100) | st.floats(low, 100)


FIELDS: dict[str, st.SearchStrategy[t.Any]] = {
    name: st.sampled_from(rule) if isinstance(rule, tuple) else number() for name, rule in hostgate.STRICTNESS.items()
}
POLICIES = st.fixed_dictionaries(FIELDS)


@given(POLICIES)
def test_a_policy_is_as_strict_as_itself(policy: dict[str, t.Any]) -> None:
    assert hostgate.softer(policy, policy) == []


@given(POLICIES, POLICIES, POLICIES)
def test_strictness_is_an_order(one: dict[str, t.Any], two: dict[str, t.Any], three: dict[str, t.Any]) -> None:
    for name in FIELDS:
        a, b, c = {name: one[name]}, {name: two[name]}, {name: three[name]}
        assert not hostgate.softer(a, b) or not hostgate.softer(b, a)
        if not hostgate.softer(a, b) and not hostgate.softer(b, a):
            assert a == b
        if not hostgate.softer(a, b) and not hostgate.softer(b, c):
            assert not hostgate.softer(a, c)


@given(POLICIES, st.sets(st.sampled_from(sorted(FIELDS))), POLICIES)
def test_every_field_asked_for_is_told_and_no_other(
    given_policy: dict[str, t.Any], names: set[str], asked: dict[str, t.Any]
) -> None:
    told = hostgate.softer({name: asked[name] for name in names}, given_policy)
    softer = [name for name in names if hostgate.softer({name: asked[name]}, given_policy)]
    assert len(told) == len(softer)
    for name in softer:
        assert any(text.startswith(f"{name} is {given_policy[name]}") for text in told)


@pytest.mark.parametrize(
    ("name", "softer", "stricter"),
    [
        ("min_voters", 4, 6),
        ("approval_percent", 65.9, 66.1),
        ("max_individual_power_percent", 21, 19),
        ("min_code_reviewers", 4, 6),
        ("implementation_approval_percent", 40, 60),
        ("review_approval_percent", 60, 70),
        ("required_stage", "implementation_approved", "executed"),
        ("valid_blocks", 1001, 999),
        ("witnesses", 1, 3),
        ("voting_period", 10, 20),
        ("timelock", 10, 20),
        ("power", "declared", "lesser"),
    ],
)
def test_the_direction_of_every_field(name: str, softer: t.Any, stricter: t.Any) -> None:
    assert hostgate.softer({name: stricter}, {name: softer}) != []
    assert hostgate.softer({name: softer}, {name: stricter}) == []
    assert hostgate.softer({name: softer}, {}) != []
    assert hostgate.softer({name: softer}, {name: None}) != []
    assert hostgate.softer({}, {name: softer}) == []


def test_the_table_knows_every_field_of_a_policy() -> None:
    fields = {field.name for field in dataclasses.fields(Policy)} - {"thresholds", "chain_thresholds"}
    assert fields | set(THRESHOLDS) <= set(hostgate.STRICTNESS)


def test_words_and_truth_values_are_no_numbers() -> None:
    assert hostgate.softer({"min_voters": 1}, {"min_voters": True}) != []
    assert hostgate.softer({"min_voters": 1}, {"min_voters": "5"}) != []
    assert hostgate.softer({"power": "lesser"}, {"power": "least"}) != []
    assert hostgate.softer({"unheard_of": 1}, {"unheard_of": 1}) == ["unheard_of can't be compared by this version"]
