# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import json
import os
import pathlib
import stat
import typing as t

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError, InputError
from ansible_collections.chainops.validator.plugins.module_utils._governance import approval
from ansible_collections.chainops.validator.plugins.module_utils._governance.approval import Checked, Demand, Glass, Signature
from ansible_collections.chainops.validator.tests.unit.plugins.module_utils._governance.signers import (
    key_of,
    keygen,
    public,
    signed,
    signers,
)

TEXT = approval.statement("unit-1", "aa" * 32, "upgrade-2.0.0", "bb" * 32)
GLASS = Glass("the key leaked", 1200)
EMERGENCY = approval.statement("unit-1", "aa" * 32, "upgrade-2.0.0", "bb" * 32, GLASS)
KNOWN = ("alice", "bob", "carol")


def asked(
    *given: Signature, required: int = 2, names: tuple[str, ...] = (), text: str = TEXT, by: bytes = b""
) -> approval.Verdict:
    checked = approval.verify(text, approval.APPROVAL, given, by or signers(*KNOWN))
    return approval.decide(Demand(required, names), checked)


# --- the statement --------------------------------------------------------------------------------------------------------


def test_a_statement_is_one_line_that_says_everything() -> None:
    assert TEXT.endswith("\n") and TEXT.count("\n") == 1
    assert json.loads(TEXT) == {
        "format": "chainops.approval/1",
        "chain_id": "unit-1",
        "genesis_hash": "aa" * 32,
        "proposal_id": "upgrade-2.0.0",
        "payload_sha256": "bb" * 32,
    }
    more = {"kind": "break-glass", "reason": "the key leaked", "expires_height": 1200}
    assert json.loads(EMERGENCY) == {**json.loads(TEXT), **more}
    assert approval.statement(None, "aa", "naïve\n", "bb").isascii()


def test_no_two_things_have_the_same_statement() -> None:
    base: dict[str, t.Any] = {"chain_id": "c", "genesis_hash": "g", "proposal_id": "p", "payload_sha256": "s"}
    glasses = [None, Glass("r", 5), Glass("r", 6), Glass("q", 5)]
    changed = [{**base, name: f"{value}2"} for name, value in base.items()]
    texts = [approval.statement(**values, glass=glass) for values in (base, *changed) for glass in glasses]
    assert len(set(texts)) == 5 * 4


# --- what OpenSSH says ----------------------------------------------------------------------------------------------------


def test_enough_people_with_real_keys() -> None:
    verdict = asked(signed("alice", TEXT), signed("bob", TEXT))
    assert (verdict.ok, verdict.approvers, verdict.reasons, verdict.problems) == (True, ("alice", "bob"), (), ())
    assert asked(signed("bob", TEXT), signed("alice", TEXT)) == verdict


def test_too_few_says_how_many_and_why() -> None:
    verdict = asked(signed("alice", TEXT), signed("carol", TEXT.replace("2.0.0", "2.0.1")))
    assert verdict.reasons == (
        "1 of 2 approvals: carol's signature does not verify: it is over another text than this statement",
    )
    assert asked().reasons == ("0 of 2 approvals",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: signed("mallory", TEXT), "no line of the allowed signers holds the key that made it for mallory"),
        (lambda: signed("alice", TEXT, key="mallory"), "the key that made it is none of alice's"),
        (lambda: signed("alice", TEXT, key="bob"), "the key that made it is none of alice's"),
        (lambda: signed("alice", TEXT, approval.BREAK_GLASS), "made for another purpose, not in the namespace chainops-approval"),
        (lambda: signed("alice", TEXT, "file"), "made for another purpose"),
        (lambda: signed("alice", EMERGENCY), "over another text"),
        (lambda: signed("alice", TEXT.rstrip("\n")), "over another text"),
        (lambda: Signature("alice", "signed, alice"), "no OpenSSH signature"),
        (lambda: Signature("alice", ""), "no OpenSSH signature"),
        (lambda: Signature("alice", "-----BEGIN SSH SIGNATURE-----\nAAAA"), "no OpenSSH signature"),
        (lambda: Signature("alice", "x" * 20000), "longer than 16384"),
        (lambda: Signature("alice", None, "/srv/alice.sig can't be read: no such file"), "/srv/alice.sig can't be read"),
        (lambda: Signature("alice", "\udcff\x00"), "no OpenSSH signature"),
    ],
)
def test_what_does_not_verify_has_its_reason_and_spoils_nothing(given: t.Callable[[], Signature], words: str) -> None:
    bad = given()
    alone = asked(bad, required=1)
    assert not alone.ok and words in alone.reasons[0], alone.reasons
    among = asked(signed("bob", TEXT), bad, signed("carol", TEXT))
    assert among.ok and among.approvers == ("bob", "carol")
    assert words in among.problems[0]


@pytest.mark.parametrize(
    "name", ["-Oprint-pubkey", "", "a b", "alice\n", "alice,bob", "*", "a" * 101, "alice\x00", "!alice", "ålice"]
)
def test_names_with_odd_characters_are_refused_wherever_they_come_from(name: str) -> None:
    text = signed("alice", TEXT).text
    by = signers("alice", ("*", "alice"))
    checked = approval.verify(TEXT, approval.APPROVAL, [Signature(name, text)], by)
    assert checked[0].key is None and "not usable" in str(checked[0].problem)
    with pytest.raises(InputError, match="not usable"):
        approval.signatures_from([{"name": name, "signature": text}], "signatures")
    with pytest.raises(InputError, match="not usable"):
        Demand.from_dict({"required": 1, "names": [name]})


def test_a_key_that_is_out_of_date_or_meant_for_something_else() -> None:
    old = signers(("alice", "alice", 'valid-before="20200101"'), ("bob", "bob", 'valid-after="20990101"'))
    verdict = asked(signed("alice", TEXT), signed("bob", TEXT), by=old)
    assert verdict.approvers == ()
    assert "line 1: key has expired" in verdict.reasons[0] and "line 2: key is not yet valid" in verdict.reasons[0]
    other = signers(("alice", "alice", 'namespaces="chainops-break-glass"'))
    assert "not permitted for use in signature namespace" in asked(signed("alice", TEXT), by=other).reasons[0]
    right = signers(("alice", "alice", 'namespaces="chainops-*"'), ("bob", "bob", 'valid-after="20200101"'))
    assert asked(signed("alice", TEXT), signed("bob", TEXT), by=right).ok


def test_a_certificate_of_the_operators_own_authority_counts_as_the_key_in_it() -> None:
    keygen("-q", "-s", key_of("authority"), "-I", "dave", "-n", "dave", "-V", "+1h", key_of("dave") + ".pub")
    certified = keygen("-q", "-Y", "sign", "-n", approval.APPROVAL, "-f", key_of("dave") + "-cert.pub", feed=TEXT)
    by = f"dave cert-authority {public('authority')}\neve {public('dave')}\n".encode()
    assert asked(Signature("dave", certified), required=1, by=by).ok
    assert not asked(Signature("eve", certified), required=1, by=by).ok
    assert asked(Signature("dave", certified), signed("eve", TEXT, key="dave"), by=by).approvers == ("dave",)


def test_broken_signers_let_nobody_in() -> None:
    for by in (b"\n", b"garbage\n", b"\x00\xff", b"alice ssh-ed25519 AAAA\n"):
        assert not asked(signed("alice", TEXT), required=1, by=by).ok


def test_tampering_at_any_place_of_the_statement_or_the_signature() -> None:
    text = str(signed("alice", TEXT).text)
    by = signers("alice")
    for place in range(0, len(TEXT), 7):
        other = TEXT[:place] + ("x" if TEXT[place] != "x" else "y") + TEXT[place + 1 :]
        assert not asked(Signature("alice", text), required=1, text=other, by=by).ok, place
    lines = text.splitlines()
    for place in range(0, len(lines[-2]), 9):  # its end is the signature proper
        flipped = lines[-2][:place] + ("A" if lines[-2][place] != "A" else "B") + lines[-2][place + 1 :]
        changed = "\n".join([*lines[:-2], flipped, lines[-1]])
        assert not asked(Signature("alice", changed), required=1, by=by).ok, place


def test_ssh_keygen_gets_private_files_and_no_shell(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "ssh-keygen"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$SEEN/argv"; stat -c "%a %n" . ./* > "$SEEN/modes"; exit 1\n')
    tool.chmod(0o755)
    monkeypatch.setenv("SEEN", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    checked = approval.verify(TEXT, approval.APPROVAL, [Signature("alice", "x")], b"")
    assert checked[0].key is None
    modes = dict(reversed(line.split(" ", 1)) for line in (tmp_path / "modes").read_text().splitlines())
    assert modes == {".": "700", "./allowed_signers": "600", "./signature": "600"}
    argv = (tmp_path / "argv").read_text().split("\n")
    where = argv[argv.index("-f") + 1]
    assert argv[argv.index("-I") + 1] == "alice"
    assert not os.path.exists(os.path.dirname(where))


def test_an_ssh_keygen_that_says_yes_to_somebody_else_is_not_believed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "ssh-keygen"
    tool.write_text("#!/bin/sh\necho 'Good \"chainops-approval\" signature for bob with ED25519 key SHA256:x'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    checked = approval.verify(TEXT, approval.APPROVAL, [Signature("alice", "x"), Signature("bob", "x")], b"")
    assert checked[0].key is None and "makes no sense" in str(checked[0].problem)
    assert checked[1] == Checked("bob", "SHA256:x")


def test_one_that_hangs_is_ended(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "ssh-keygen"
    tool.write_text("#!/bin/sh\nexec sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(approval, "PATIENCE", 0.2)
    checked = approval.verify(TEXT, approval.APPROVAL, [Signature("alice", "x")], b"")
    assert "did not finish in 0.2 s" in str(checked[0].problem)


def test_without_ssh_keygen_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ChainopsError, match="install OpenSSH's client"):
        approval.verify(TEXT, approval.APPROVAL, [Signature("alice", "x")], b"")


def test_temporary_files_are_gone_afterwards(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = signed("alice", TEXT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked(given)
    assert list(tmp_path.iterdir()) == []
    assert stat.S_IMODE(os.stat(key_of("alice")).st_mode) == 0o600


# --- counting -------------------------------------------------------------------------------------------------------------


def test_neither_a_name_nor_a_key_counts_twice() -> None:
    both = signers("alice", ("alice", "alice2"), ("bob", "alice"))
    twice = asked(signed("alice", TEXT), signed("alice", TEXT), signed("alice", TEXT, key="alice2"), by=both)
    assert twice.approvers == ("alice",) and twice.reasons == ("1 of 2 approvals",)
    one_key = asked(signed("alice", TEXT), signed("bob", TEXT, key="alice"), by=both)
    assert one_key.approvers == ("alice",)
    assert one_key.reasons == ("1 of 2 approvals: bob signed with the key that counts for alice already",)
    two_keys = asked(signed("alice", TEXT), signed("bob", TEXT, key="alice"), signed("alice", TEXT, key="alice2"), by=both)
    assert two_keys.ok and two_keys.approvers == ("alice", "bob")


def test_those_who_must_be_among_them() -> None:
    pair = (signed("alice", TEXT), signed("bob", TEXT))
    assert asked(*pair, names=("bob",)).ok
    assert asked(*pair, names=("carol",)).reasons == ("carol must be among the approvals and is not",)
    assert asked(*pair, names=("carol", "dave"), required=3).reasons == (
        "2 of 3 approvals",
        "carol, dave must be among the approvals and are not",
    )


def test_a_shared_key_goes_to_the_one_who_must_be_there() -> None:
    checked = [Checked("alice", "K"), Checked("bob", "K")]
    assert approval.decide(Demand(1, ("bob",)), checked).approvers == ("bob",)
    assert approval.decide(Demand(1), checked).approvers == ("alice",)


PEOPLE = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("KLMN"), st.sampled_from([None, None, "bad"])).map(
        lambda it: Checked(it[0], None if it[2] else it[1], it[2])
    ),
    max_size=8,
)


def most(checked: t.Sequence[Checked]) -> int:
    """By trying every way to give each key to one of those who used it."""
    keys = sorted({one.key for one in checked if one.key is not None})
    users = [[one.name for one in checked if one.key == key] for key in keys]
    return max((len(set(names)) for names in itertools.product(*users)), default=0)


@given(PEOPLE, st.integers(0, 4), st.randoms())
def test_the_count_is_the_largest_and_does_not_depend_on_the_order(checked: list[Checked], required: int, random: t.Any) -> None:
    verdict = approval.decide(Demand(required), checked)
    assert len(verdict.approvers) == most(checked)
    assert verdict.ok is (most(checked) >= required)
    shuffled = list(checked)
    random.shuffle(shuffled)
    assert len(approval.decide(Demand(required), shuffled).approvers) == len(verdict.approvers)


@given(PEOPLE, PEOPLE, st.integers(0, 4))
def test_one_more_signature_never_closes(checked: list[Checked], more: list[Checked], required: int) -> None:
    if approval.decide(Demand(required), checked).ok:
        assert approval.decide(Demand(required), [*checked, *more]).ok


@given(PEOPLE, st.integers(1, 4), st.sets(st.sampled_from("abcd")))
def test_open_means_that_everybody_asked_for_signed(checked: list[Checked], required: int, names: set[str]) -> None:
    verdict = approval.decide(Demand(required, tuple(sorted(names))), checked)
    good = {one.name for one in checked if one.key is not None}
    assert set(verdict.approvers) <= good
    assert verdict.ok is (len(verdict.approvers) >= required and names <= set(verdict.approvers))
    assert verdict.ok is not bool(verdict.reasons)


# --- what is written in files and variables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], "must be a dictionary"),
        ({"required": "2"}, "approvals.required is '2'"),
        ({"required": True}, "approvals.required is True"),
        ({"required": -1}, "approvals.required is -1"),
        ({"required": 1, "names": "alice"}, "names must be a list"),
        ({"names": ["alice"]}, "say how many must"),
    ],
)
def test_demands_that_make_no_sense(raw: t.Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Demand.from_dict(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "must be a dictionary"),
        ({"reason": "  ", "expires_height": 5}, "reason is empty"),
        ({"expires_height": 5}, "reason is empty"),
        ({"reason": "x\ny", "expires_height": 5}, "one line"),
        ({"reason": "x" * 501, "expires_height": 5}, "one line"),
        ({"reason": "x", "expires_height": "5"}, "expires_height is '5'"),
        ({"reason": "x", "expires_height": True}, "expires_height is True"),
        ({"reason": "x"}, "expires_height is None"),
    ],
)
def test_break_glass_that_makes_no_sense(raw: t.Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Glass.from_dict(raw)


@pytest.mark.parametrize("raw", [None, {}, [None], [{}], [{"name": "alice"}], [{"name": "alice", "signature": 1}], [{}] * 65])
def test_lists_of_signatures_that_are_none(raw: t.Any) -> None:
    with pytest.raises(InputError, match="signatures"):
        approval.signatures_from(raw, "signatures")


def test_more_signatures_than_anybody_hands_in_are_not_looked_at() -> None:
    with pytest.raises(InputError, match="at most 64"):
        approval.verify(TEXT, approval.APPROVAL, [Signature("alice", "x")] * 65, b"")
