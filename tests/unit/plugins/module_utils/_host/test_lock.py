# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import json
import os
import typing as t

import pytest

from ansible_collections.chainops.validator.plugins.module_utils._core import files
from ansible_collections.chainops.validator.plugins.module_utils._core.clock import Clock
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import fence, lock
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._manifest import manifest


class Hands(Clock):
    """Clocks that are moved by hand."""

    def __init__(self) -> None:
        self.mono, self.real = 1000.0, 1e9

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return self.real

    def sleep(self, seconds: float) -> None:
        self.mono += seconds

    def pass_(self, seconds: float) -> None:
        self.mono += seconds
        self.real += seconds


@pytest.fixture
def home(tmp_path: t.Any) -> Home:
    return Home(str(tmp_path), "node1")


@pytest.fixture
def hands() -> Hands:
    return Hands()


def asking(holder: str = "alice", rollout: str = "r1", **more: t.Any) -> lock.Asking:
    return lock.Asking(rollout, holder, more.pop("run", holder), lease_seconds=60, **more)


def hold(
    home: Home, hands: Hands, holder: str = "alice", rollout: str = "r1", *, dry: bool = False, **more: t.Any
) -> lock.Decision:
    return lock.hold(home, asking(holder, rollout, **more), dry=dry, clock=hands)[1]


def release(home: Home, hands: Hands, holder: str = "alice", **more: t.Any) -> lock.Decision:
    return lock.release(home, asking(holder, **more), clock=hands)[1]


def test_a_free_host_is_lent_out_and_the_lease_renewed(home: Home, hands: Hands) -> None:
    first = hold(home, hands)
    assert first.granted and first.changed and first.lease is not None and first.lease.token == 1
    hands.pass_(50)
    again = hold(home, hands)
    assert again.granted and not again.changed and again.lease is not None
    assert again.lease.token == 1 and again.lease.expires == hands.real + 60


def test_another_holder_is_told_who_has_it(home: Home, hands: Hands) -> None:
    hold(home, hands)
    for holder, rollout in (("bob", "r1"), ("alice", "r2")):
        refused = hold(home, hands, holder, rollout)
        assert not refused.granted and not refused.changed
        assert "rollout r1, held by alice under token 1" in refused.reason


def test_an_expired_lease_is_taken_over_and_the_old_token_is_worth_nothing(home: Home, hands: Hands) -> None:
    hold(home, hands)
    hands.pass_(61)
    taken = hold(home, hands, "bob", "r2")
    assert taken.granted and taken.lease is not None and taken.lease.token == 2
    assert fence.highest(home.fence) == 2
    with pytest.raises(Refused, match="older than 2"):
        fence.require(home.fence, 1)
    late = hold(home, hands, token=1)
    assert not late.granted and "older than 2" in late.reason


def test_a_clock_that_steps_does_not_expire_a_lease_within_one_boot(home: Home, hands: Hands, monkeypatch: t.Any) -> None:
    hold(home, hands)
    hands.real += 10**6
    assert not hold(home, hands, "bob").granted
    # After a reboot there is only the wall clock.
    monkeypatch.setenv("CHAINOPS_BOOT_ID", "another-boot")
    assert hold(home, hands, "bob").granted


def test_a_lease_under_which_an_engine_works_is_not_taken_over(home: Home, hands: Hands, monkeypatch: t.Any) -> None:
    hold(home, hands)
    hands.pass_(61)
    monkeypatch.setattr(lock, "engine_at_work", lambda home: {"turn_id": "t1", "token": 1, "pid": 1})
    refused = hold(home, hands, "bob")
    assert not refused.granted and "works on turn t1" in refused.reason


def test_breaking_a_lock_is_possible_and_recorded(home: Home, hands: Hands) -> None:
    hold(home, hands)
    # Whoever breaks a lock names whose: not the one that has it by now.
    assert not hold(home, hands, "bob", breaks=7).granted
    broken = hold(home, hands, "bob", breaks=1)
    assert broken.granted and broken.lease is not None and broken.lease.token == 2
    with open(os.path.join(home.evidence, "lock.jsonl"), encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    assert [line["token"] for line in lines] == [1, 2]
    assert lines[1]["broke"]["holder"] == "alice" and lines[1]["holder"] == "bob"
    (entry,) = manifest.read(home.manifest)
    assert (entry.kind, entry.fields["holder"], entry.fields["broke"]["holder"]) == ("lock_broken", "bob", "alice")
    # Whoever wakes up from under it can do nothing more, and the token never comes back.
    assert not hold(home, hands).granted and not hold(home, hands, token=1).granted
    assert release(home, hands, "carol", breaks=2).changed
    again = hold(home, hands, "dave")
    assert again.lease is not None and again.lease.token == 3


def test_only_its_holder_gives_it_back(home: Home, hands: Hands) -> None:
    hold(home, hands)
    assert not release(home, hands, "bob").granted
    assert release(home, hands).changed
    assert not release(home, hands).changed and lock.held(home.lock) is None
    assert fence.highest(home.fence) == 1


def test_a_token_is_lent_to_one_run_for_good(home: Home, hands: Hands) -> None:
    hold(home, hands)
    release(home, hands)
    # The same run comes back with the token it has on the other hosts; to anybody else it is gone.
    refused = hold(home, hands, "bob", token=1)
    assert not refused.granted and "lent once" in refused.reason and "alice" in refused.reason
    back = hold(home, hands, token=1)
    assert back.granted and back.lease is not None and back.lease.token == 1
    release(home, hands)
    fresh = hold(home, hands, "bob")
    assert fresh.lease is not None and fresh.lease.token == 2
    assert not hold(home, hands, token=1).granted


def test_two_runs_of_one_person_are_two_holders(home: Home, hands: Hands) -> None:
    hold(home, hands, run="pid 1")
    refused = hold(home, hands, run="pid 2")
    assert not refused.granted and "its lease runs on" in refused.reason
    taken = hold(home, hands, run="pid 2", over=(1,))
    assert taken.granted and "its process is gone" in taken.reason
    assert taken.lease is not None and taken.lease.token == 2


def test_a_holder_that_is_gone_is_not_taken_over_from_under_its_engine(home: Home, hands: Hands, monkeypatch: t.Any) -> None:
    hold(home, hands)
    monkeypatch.setattr(lock, "engine_at_work", lambda home: {"turn_id": "t1", "token": 1, "pid": 1})
    refused = hold(home, hands, "bob", over=(1,))
    assert not refused.granted and "its process is gone but the engine works on turn t1" in refused.reason


def test_a_lease_of_an_earlier_version_is_read(home: Home, hands: Hands) -> None:
    hold(home, hands)
    old = json.loads(files.read_or_none(home.lock) or b"")
    files.write_atomic(home.lock, json.dumps({k: v for k, v in old.items() if k not in ("run", "about", "released")}).encode())
    assert hold(home, hands).granted and not hold(home, hands, "bob").granted


def test_what_changes_something_needs_the_newest_token_and_renews_its_lease(home: Home, hands: Hands) -> None:
    hold(home, hands, token=3)
    hands.pass_(50)
    lock.use(home, 3, clock=hands)
    lease = lock.held(home.lock)
    assert lease is not None and lease.expires == hands.real + 60
    lock.use(home, 0, clock=hands)
    with pytest.raises(Refused, match="older than 3"):
        lock.use(home, 2, clock=hands)
    with pytest.raises(Refused, match="older than 3"):
        lock.use(home, 2, dry=True, clock=hands)
    # A higher one was lent by the other hosts; this one learns it, and lends nothing below it any more.
    hands.pass_(50)
    lock.use(home, 4, clock=hands)
    assert fence.highest(home.fence) == 4
    lease = lock.held(home.lock)
    assert lease is not None and lease.token == 3 and lease.expires == hands.real + 10
    assert not hold(home, hands).granted


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "No space left on device.*Make room"), (errno.EROFS, "Read-only file system.*Mount it writable")],
)
@pytest.mark.parametrize("call", ["make_dir", "locked", "write_atomic"])
def test_a_lock_that_cannot_be_written_is_not_held(
    home: Home, hands: Hands, monkeypatch: t.Any, call: str, number: int, says: str
) -> None:
    def fail(*args: t.Any, **kwargs: t.Any) -> t.Any:
        raise OSError(number, os.strerror(number), home.root)

    hold(home, hands)
    monkeypatch.setattr(lock.files, call, fail)
    for act in (lambda: hold(home, hands, token=2), lambda: lock.use(home, 2, clock=hands)):
        with pytest.raises(Refused, match=f"(?s)can't be kept in .*{says}"):
            act()
    monkeypatch.undo()
    lease = lock.held(home.lock)
    assert lease is not None and lease.token == 1


def test_hosts_that_have_seen_different_tokens_meet_at_the_highest(home: Home, hands: Hands) -> None:
    hold(home, hands)
    raised = hold(home, hands, token=7)
    assert raised.granted and raised.changed and fence.highest(home.fence) == 7


def test_looking_changes_nothing(home: Home, hands: Hands) -> None:
    assert hold(home, hands, dry=True).granted
    assert not os.path.exists(home.root)


def test_files_that_are_not_ours_are_not_guessed_at(home: Home, hands: Hands) -> None:
    hold(home, hands)
    files.write_atomic(home.fence, b"many")
    with pytest.raises(IntegrityError, match="holds no number"):
        hold(home, hands)
    files.write_atomic(home.fence, b"1")
    files.write_atomic(home.lock, b"{}")
    with pytest.raises(IntegrityError, match="not a lease"):
        hold(home, hands)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-a", "a b", "a" * 64, "a\n"])
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: t.Any, name: str) -> None:
    with pytest.raises(InputError):
        Home(str(tmp_path), name)
