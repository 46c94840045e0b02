# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of manifests: only ever extended, whatever an origin tells."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core import canonical, files
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._manifest import fleet, manifest, replica
from ansible_collections.chainops.validator.plugins.module_utils._manifest.manifest import START, Entry
from ansible_collections.chainops.validator.plugins.module_utils._manifest.replica import Offered, offer, take

Json = t.Dict[str, t.Any]


def chain(count: int, word: str = "", since: int = 0) -> list[Json]:
    """``count`` entries; those after number ``since`` say ``word``, and so belong to another history than without it."""
    found: list[Json] = []
    for number in range(1, count + 1):
        body = {
            "seq": number,
            "prev": found[-1]["hash"] if found else START,
            "time": "t",
            "kind": "upgrade",
            "turn_id": f"t{number}",
        }
        body.update({"word": word} if word and number > since else {})
        found.append({**body, "hash": canonical.digest(body)})
    return found


def entries(items: t.Sequence[Json]) -> tuple[Entry, ...]:
    found, problem = manifest.follow((), items)
    assert problem == ""
    return found


def whole(items: t.Sequence[Json], since: int = 0, **more: t.Any) -> Offered:
    end = items[-1] if items else {"seq": 0, "hash": START}
    return Offered(end["seq"], end["hash"], list(items[since:]), **more)


OWN = chain(6)
FORK, EVIL = chain(6, "evil", 3), chain(6, "evil")
BROKEN = copy.deepcopy(OWN)
BROKEN[4]["turn_id"] = "other"
GAP = [*OWN[:4], OWN[5]]

#: what is kept, what is offered, what becomes of it, what is said
OFFERS: dict[str, tuple[list[Json], Offered, str, str]] = {
    "first": ([], whole(OWN), "extended", ""),
    "nothing": ([], whole([]), "same", ""),
    "next": (OWN[:5], whole(OWN, 5), "extended", ""),
    "three more": (OWN[:3], whole(OWN, 3), "extended", ""),
    "overlap": (OWN[:3], whole(OWN), "extended", ""),
    "part of what is new": (OWN[:3], Offered(6, OWN[5]["hash"], OWN[3:5]), "extended", "entries 6 to 6 are missing"),
    "same": (OWN, whole(OWN), "same", ""),
    "same, nothing sent": (OWN, whole(OWN, 6), "same", ""),
    "nothing of what is new": (OWN[:3], whole(OWN, 6), "behind", "entries 4 to 6 are missing"),
    "does not connect": (OWN[:3], whole(OWN, 5), "behind", "entries 4 to 6 are missing"),
    "shortened": (
        OWN,
        whole(OWN[:4]),
        "refused",
        f"it ends at entry 4 ({OWN[3]['hash']}), and entry 6 ({OWN[5]['hash']}) is kept",
    ),
    "lost": (OWN, whole([]), "refused", "there is none any more, and entry 6"),
    "forked, longer": (OWN[:5], whole(FORK, 5), "refused", f"entry 5 is {FORK[4]['hash']} there, and {OWN[4]['hash']} is kept"),
    "forked, as long": (OWN, whole(FORK), "refused", "entry 6 is"),
    "forked, shorter": (OWN, whole(FORK[:5]), "refused", "it ends at entry 5"),
    "forked where both have it": (OWN[:5], whole(FORK), "refused", f"entry 4 is {FORK[3]['hash']} there"),
    "forked, in the dark": (OWN[:4], whole(FORK, 6, marks={4: FORK[3]["hash"]}), "refused", f"entry 4 is {FORK[3]['hash']}"),
    "a mark that is right": (OWN[:4], whole(OWN, 6, marks={4: OWN[3]["hash"]}), "behind", "entries 5 to 6"),
    "rewritten from the start": (OWN[:1], whole(EVIL), "refused", "entry 1 is"),
    "edited": (OWN[:3], whole(BROKEN, 3), "refused", "entry 5: its content does not match its hash"),
    "dropped": ([], Offered(6, OWN[5]["hash"], GAP), "refused", "entry 5: it says it is number 6"),
    "another end": (OWN[:3], Offered(6, FORK[5]["hash"], OWN[3:]), "refused", "entry 6 is"),
    "more than it says": (OWN[:3], Offered(5, OWN[4]["hash"], OWN[3:]), "refused", "no entry of 1 to 5: number 6"),
    "no entries": (OWN[:3], Offered(6, OWN[5]["hash"], ["x"]), "refused", "number None"),
    "numbers that are none": (OWN[:3], Offered(6, OWN[5]["hash"], [{**OWN[3], "seq": True}]), "refused", "number True"),
    "an end without entries": ([], Offered(0, OWN[5]["hash"]), "refused", "can't end in"),
    "entries without an end": ([], Offered(3, START), "refused", "can't end in"),
}


@pytest.mark.parametrize("name", OFFERS)
def test_what_becomes_of_an_offer(name: str) -> None:
    kept, offered, state, says = OFFERS[name]
    verdict = offer(entries(kept), offered)
    assert verdict.state == state and says in verdict.reason, verdict
    assert bool(verdict.added) is (state == "extended")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Json], list[Json], Offered]:
    """What is kept, the history that is offered, and how much of it is handed over."""
    kept = OWN[: draw(st.integers(0, 6))]
    count, since = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    told = chain(count, draw(st.sampled_from(["", "evil"])), since)
    low, high = sorted((draw(st.integers(0, count)), draw(st.integers(0, count))))
    marks = {item["seq"]: item["hash"] for item in told if draw(st.booleans())}
    end = told[-1] if told else {"seq": 0, "hash": START}
    return kept, told, Offered(end["seq"], end["hash"], told[low:high], marks)


@settings(max_examples=500, deadline=None)
@given(histories())
def test_whatever_is_offered_what_is_kept_is_only_extended(case: tuple[list[Json], list[Json], Offered]) -> None:
    kept, told, offered = case
    verdict = offer(entries(kept), offered)
    now = (*entries(kept), *verdict.added)
    assert now[: len(kept)] == entries(kept)
    # What is added makes a whole chain, and is word for word the origin's.
    assert entries([one.as_dict() for one in now]) == now
    if verdict.state in ("extended", "same"):
        assert told[: len(now)] == [one.as_dict() for one in now]
    if told[: len(kept)] != kept:
        # Another history. Where nothing of it was handed over that contradicts, nothing is added.
        assert verdict.state in ("refused", "behind") and not verdict.added
        if len(told) <= len(kept) or len(kept) in offered.marks:
            assert verdict.state == "refused"
    else:
        assert verdict.state != "refused"


def test_an_honest_origin_gets_there_whatever_fits_into_a_call() -> None:
    kept: tuple[Entry, ...] = ()
    own = entries(chain(20))
    for round_ in range(20):
        told = replica.told(own, [len(kept)], most=3)
        assert 1 <= len(told) <= 3
        verdict = offer(kept, Offered(20, own[-1].hash, [one.as_dict() for one in told]))
        assert verdict.state == "extended", verdict
        kept = (*kept, *verdict.added)
        if kept == own:
            break
    assert kept == own and round_ == 6


def test_one_that_has_everything_to_catch_up_with_keeps_nobody_from_what_is_new() -> None:
    own = entries(chain(20))
    numbers = [one.seq for one in replica.told(own, [0, 18], most=5)]
    assert numbers == [1, 2, 3, 19, 20]
    assert [one.seq for one in replica.told(own, [18, 19, 20, 25, -1])] == [19, 20]
    assert [one.seq for one in replica.told(own, [0, 3], size=1)] == [4]
    assert replica.told(own, []) == () and replica.told((), [0]) == ()


def test_the_file_of_a_copy(tmp_path: pathlib.Path) -> None:
    root, path = str(tmp_path), tmp_path / "replicas/h1/migration_manifest.json"
    planned = take(root, "h1", whole(OWN[:2]), dry=True)
    assert planned["state"] == "extended" and planned["seq"] == 2 and list(tmp_path.iterdir()) == []
    done = take(root, "h1", whole(OWN[:2]))
    assert (done["before"], done["seq"], done["head"]) == ({"seq": 0, "head": START}, 2, OWN[1]["hash"])
    # It is a manifest as its origin has it: it can be put back by copying it.
    assert manifest.read(str(path)) == entries(OWN[:2])
    assert take(root, "h1", whole(OWN[:2]))["state"] == "same"
    assert take(root, "h1", whole(OWN, 2))["state"] == "extended"
    before = path.read_bytes()
    refused = take(root, "h1", whole(FORK))
    assert refused["state"] == "refused" and path.read_bytes() == before and refused["seq"] == 6
    with files.locked(str(path) + ".lock", what="copy"):
        assert take(root, "h1", whole(chain(7), 6))["state"] == "behind"
    path.write_text(path.read_text().replace('"t3"', '"x3"'))
    broken = path.read_bytes()
    refused = take(root, "h1", whole(chain(7), 6))
    assert refused["state"] == "refused" and "the copy is broken: entry 3" in refused["reason"] and path.read_bytes() == broken
    (row,) = replica.kept_here(root)
    assert (row["origin"], row["seq"], row["valid"], row["path"]) == ("h1", 2, False, str(path))


def test_a_copy_that_cannot_be_written_is_behind(tmp_path: pathlib.Path) -> None:
    (tmp_path / "replicas").write_text("in the way")
    done = take(str(tmp_path), "h1", whole(OWN))
    assert done["state"] == "behind" and "can't be written" in done["reason"]


@pytest.mark.parametrize(
    ("origin", "name"), [("a.example.net", "a.example.net"), ("fe80::1", "fe80%3A%3A1"), ("a/../b", "a%2F..%2Fb")]
)
def test_a_name_stays_in_its_directory(tmp_path: pathlib.Path, origin: str, name: str) -> None:
    take(str(tmp_path), origin, whole(OWN))
    assert os.listdir(tmp_path / "replicas") == [name]
    assert [row["origin"] for row in replica.kept_here(str(tmp_path))] == [origin]


@pytest.mark.parametrize("origin", ["", ".", "..", "x" * 201])
def test_what_is_no_name(origin: str) -> None:
    with pytest.raises(InputError):
        replica.require_origin(origin)


def given_to(module: t.Any) -> list[Json]:
    return t.cast(t.List[Json], json.loads(json.dumps(module)))


def test_a_call_is_bounded() -> None:
    one = {"origin": "h1", "seq": 6, "head": OWN[5]["hash"], "entries": OWN, "marks": {"1": OWN[0]["hash"]}}
    ((origin, offered),) = replica.asked(given_to([one]))
    assert origin == "h1" and offered.marks == {1: OWN[0]["hash"]} and offered.entries == tuple(OWN)
    big = {**one, "entries": [{"seq": 1, "x": "y" * replica.MOST_BYTES}]}
    many = {**one, "entries": [{"seq": 1}] * (replica.MOST_ENTRIES + 1)}
    for bad in (
        [big],
        [many],
        [one, one],
        [{**one, "seq": "x"}],
        [{**one, "marks": {"x": ""}}],
        [{**one, "entries": [float("nan")]}],
    ):
        with pytest.raises(InputError):
            replica.asked(bad)


class Hosts:
    """A fleet whose manifests and copies are files."""

    def __init__(self, folder: pathlib.Path, count: int) -> None:
        self.folder = folder
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.away: set[str] = set()

    def root(self, name: str) -> str:
        return str(self.folder / name)

    def write(self, name: str, items: t.Sequence[Json]) -> None:
        os.makedirs(self.root(name), exist_ok=True)
        manifest.write(os.path.join(self.root(name), manifest.NAME), entries(items))

    def look(self, name: str, after: t.Sequence[int] | None = None) -> Json:
        if name in self.away:
            return {"unreachable": True, "msg": "no route"}
        own, problems = manifest.look(os.path.join(self.root(name), manifest.NAME))
        said = {"seq": len(own), "head": own[-1].hash if own else START, "valid": not problems, "problems": problems}
        told = replica.told(own, after or [])
        marks = {str(number): own[number - 1].hash for number in after or () if 0 < number <= len(own)}
        return {
            **said,
            "entries": [one.as_dict() for one in told],
            "marks": marks,
            "replicas": replica.kept_here(self.root(name)),
        }

    def round(self, hand_over: bool = True) -> Json:
        looks = {name: self.look(name) for name in self.names}
        asks = fleet.asks(looks)
        news = {name: self.look(name, asks[name]) for name in self.names if name in asks}
        if not hand_over:
            return fleet.judge(looks, news)
        answers: dict[str, Json] = {}
        handed_over = fleet.offers(looks, news)
        for name in self.names:
            handed = handed_over.get(name, [])
            assert len(canonical.dumps(handed)) < replica.MOST_BYTES * 1.2
            if name in self.away:
                continue
            answers[name] = {"replicas": [take(self.root(name), o, offered) for o, offered in replica.asked(given_to(handed))]}
        return fleet.judge(looks, news, answers)


@pytest.fixture
def hosts(tmp_path: pathlib.Path) -> Hosts:
    return Hosts(tmp_path, 3)


def test_a_round_gives_every_host_what_every_other_has(hosts: Hosts) -> None:
    for number, name in enumerate(hosts.names):
        hosts.write(name, chain(number, name))
    seen = hosts.round()
    assert seen["refused"] == [] and seen["words"] == "2 of 2 manifests are kept whole by every other host"
    assert {name: row["kept_by"] for name, row in seen["origins"].items()} == {
        "h1": ["h2", "h3"],
        "h2": ["h1", "h3"],
        "h3": ["h1", "h2"],
    }
    assert hosts.round(hand_over=False) == seen == hosts.round()
    looks = {name: hosts.look(name) for name in hosts.names}
    assert fleet.asks(looks) == {} and list(fleet.offers(looks, {}).values()) == [[]] * 3


def test_who_is_away_is_told_and_catches_up(hosts: Hosts) -> None:
    hosts.write("h1", OWN[:2])
    hosts.away = {"h3"}
    seen = hosts.round()
    assert seen["unasked"] == ["h3"] and seen["refused"] == [] and seen["origins"]["h1"]["kept_by"] == ["h2"]
    assert "h3 is behind with h1" in seen["words"] and "not asked: h3" in seen["words"]
    hosts.write("h1", OWN[:4])
    hosts.away = set()
    assert hosts.round()["origins"]["h1"]["kept_by"] == ["h2", "h3"]
    assert entries(OWN[:4]) == manifest.read(replica.path_of(hosts.root("h3"), "h1"))


@pytest.mark.parametrize("hand_over", [True, False])
@pytest.mark.parametrize("harm", ["cut", "forked", "rewritten", "lost", "broken", "copy broken", "grown on a fork", "copy ahead"])
def test_harm_shows_and_no_copy_changes(hosts: Hosts, harm: str, hand_over: bool) -> None:
    for name in hosts.names:
        hosts.write(name, OWN[:5])
    hosts.round()
    path = pathlib.Path(hosts.root("h1"), manifest.NAME)
    copies = [pathlib.Path(replica.path_of(hosts.root(name), "h1")) for name in ("h2", "h3")]
    if harm == "broken":
        path.write_text(path.read_text().replace('"t2"', '"x2"'))
    elif harm == "lost":
        path.unlink()
    elif harm == "copy broken":
        copies[1].write_text(copies[1].read_text().replace('"t2"', '"x2"'))
    elif harm == "copy ahead":
        manifest.write(str(copies[1]), entries(OWN))
    else:
        hosts.write(
            "h1", {"cut": OWN[:3], "forked": FORK[:5], "rewritten": EVIL[:5], "grown on a fork": chain(6, "evil", 4)}[harm]
        )
    before = [one.read_bytes() for one in copies]
    seen = hosts.round(hand_over)
    assert [one.read_bytes() for one in copies] == before
    text = "; ".join(seen["refused"])
    holders = "h3" if harm in ("copy broken", "copy ahead") else "h2, h3"
    wanted = {
        "cut": f"h1's manifest is not the one that is kept on h2, h3: it ends at entry 3 ({OWN[2]['hash']}), and entry 5",
        "forked": f"entry 5 is {FORK[4]['hash']} there, and {OWN[4]['hash']} is kept",
        "rewritten": f"entry 5 is {EVIL[4]['hash']} there",
        "lost": "there is none any more, and entry 5",
        "broken": "h1: its manifest  is broken: entry 2",
        "copy broken": "the copy is broken: entry 2",
        "grown on a fork": f"and {OWN[4]['hash']} is kept: it was rewritten",
        "copy ahead": f"it ends at entry 5 ({OWN[4]['hash']}), and entry 6 ({OWN[5]['hash']}) is kept",
    }[harm]
    assert wanted in text, text
    assert harm == "broken" or f"is kept on {holders}: " in text
    assert "REFUSED" in seen["words"] and "roles/record/README.md" in seen["words"]


def test_a_long_history_is_caught_up_with_in_rounds(tmp_path: pathlib.Path) -> None:
    hosts = Hosts(tmp_path, 2)
    hosts.write("h1", chain(replica.TOLD_ENTRIES * 2 + 10))
    ends = [hosts.round()["origins"]["h1"] for dummy in range(3)]
    assert [bool(one["kept_by"]) for one in ends] == [False, False, True]
    assert ends[0]["behind"] == {"h2": f"entries {replica.TOLD_ENTRIES + 1} to 510 are missing here"}


def test_what_doesnt_fit_into_a_call_waits_and_small_ones_go_first() -> None:
    long = [{"seq": number, "hash": f"{number}", "x": "y" * 300_000} for number in range(1, 5)]
    looks = {
        "h1": {"seq": 4, "head": "4", "entries": long},
        "h2": {"seq": 1, "head": OWN[0]["hash"], "entries": OWN[:1]},
        "h3": {"seq": 0, "head": START},
    }
    handed = fleet.offers(looks, looks)["h3"]
    assert [(one["origin"], len(one["entries"])) for one in handed] == [("h2", 1), ("h1", 3)]
    assert replica.asked(handed)


def test_what_this_run_wrote_down_is_handed_over_as_it_is(hosts: Hosts) -> None:
    registered = {"h1": {"entry": OWN[1]}, "h2": {"entry": {"kind": "upgrade"}}, "h3": {"entry": OWN[0]}, "h4": None, "h5": {}}
    handed = fleet.records(registered)
    assert [(one["origin"], one["seq"], one["marks"]) for one in handed] == [("h1", 2, {"1": OWN[0]["hash"]}), ("h3", 1, {})]
    one = handed[0]
    pair, _other = replica.asked(handed)
    assert take(hosts.root("h3"), *pair)["state"] == "behind"
    take(hosts.root("h3"), "h1", whole(OWN[:1]))
    assert take(hosts.root("h3"), *pair)["state"] == "extended"
    take(hosts.root("h2"), "h1", whole(EVIL[:1]))
    results = [{"preflight_item": ["h2", handed], "replicas": [take(hosts.root("h2"), *pair)]}, {"unreachable": True}, None]
    (text,) = fleet.refusals(results)
    assert text.startswith("h1's manifest is not the one that is kept on h2: ") and one["marks"]["1"] in text


def test_a_rollout_of_many_hosts_fits_into_every_call() -> None:
    registered = {f"h{number}": {"entry": {**OWN[0], "time": f"{number:04}", "x": "y" * 1000}} for number in range(1200)}
    handed = fleet.records(registered)
    assert [one["origin"] for one in handed] == [f"h{number}" for number in range(1184, 1200)] and replica.asked(handed)


def test_what_was_told_in_an_earlier_round_counts_for_nothing() -> None:
    looks = {"h1": {"round": 2, "seq": 1}, "h2": {"round": "1", "seq": 1}, "h3": None, "h4": {}}
    assert fleet.of_round(looks, "2") == {"h1": looks["h1"], "h2": {}, "h3": {}, "h4": {}}
