# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever an archive holds: all of it in its directory, or nothing anywhere, with the reason."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pathlib
import stat
import tarfile
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError, IntegrityError, Refused
from ansible_collections.chainops.validator.plugins.module_utils._host import archive, release

GZIP: t.Callable[[bytes], bytes] = gzip.compress


def member(name: str, content: bytes | None = None, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> t.Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1_700_000_000
    info.size = len(content or b"")
    return info, content


def tar(*members: t.Any, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content) if content is not None else None)
    return out.getvalue()


class Place:
    """Where releases are unpacked, with a neighbour that nobody may touch."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.releases = base / "host" / "releases"
        self.releases.mkdir(parents=True)
        (base / "host" / "victim").write_text("mine")
        (base / "victim").write_text("mine")

    def unpack(self, data: bytes, limits: archive.Limits = archive.Limits(), promised: str = "") -> pathlib.Path:
        source = self.base / "archive"
        source.write_bytes(data)
        sha256 = promised or hashlib.sha256(data).hexdigest()
        directory = self.releases / sha256
        archive.unpack(str(source), sha256, str(directory), limits)
        release.require_complete(str(directory), sha256)
        return directory

    def outside(self) -> list[str]:
        """Everything but the archive itself, with content."""
        found = []
        for path in sorted(self.base.rglob("*")):
            if path != self.base / "archive":
                found.append(f"{path.relative_to(self.base)} {path.read_text() if path.is_file() else ''}")
        return found


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


DIRECTORY, SYMLINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
GOOD = (
    member("xai-2/", kind=DIRECTORY, mode=0o775),
    member("xai-2/bin/node", b"#!/bin/sh\n", mode=0o777),
    member("xai-2/lib/notes", b"text", mode=0o664),
    member("xai-2/lib/same", kind=HARD, link="xai-2/lib/notes"),
    member("xai-2/./current", kind=SYMLINK, link="lib"),
    member("xai-2/run", kind=SYMLINK, link="/proc/self/cwd/run"),
)


@pytest.mark.parametrize("pack", [bytes, GZIP, bz2.compress, lzma.compress])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_release_is_unpacked_without_its_top_directory(place: Place, pack: t.Callable[[bytes], bytes], form: int) -> None:
    where = place.unpack(pack(tar(*GOOD, form=form)))
    assert (where / "bin/node").read_bytes() == b"#!/bin/sh\n" and (where / "lib/same").read_text() == "text"
    assert os.path.samefile(where / "lib/notes", where / "lib/same")
    assert os.readlink(where / "current") == "lib" and os.readlink(where / "run") == "/proc/self/cwd/run"
    assert (stat.S_IMODE((where / "bin/node").stat().st_mode), stat.S_IMODE((where / "lib/notes").stat().st_mode)) == (
        0o755,
        0o644,
    )
    assert (where / "bin/node").stat().st_mtime == 1_700_000_000
    assert [entry for entry in os.listdir(place.releases) if "partial" in entry] == []


def test_what_was_packed_from_inside_has_the_dot_for_a_top(place: Place) -> None:
    where = place.unpack(
        tar(member("./", kind=DIRECTORY), member("./bin/node", b"1"), member("./l", kind=HARD, link="./bin/node"))
    )
    assert sorted(os.listdir(where)) == ["bin", "l"]


def test_an_unfinished_directory_is_replaced_and_a_finished_one_is_what_it_was(place: Place) -> None:
    data = GZIP(tar(*GOOD))
    directory = place.releases / hashlib.sha256(data).hexdigest()
    (directory / "half").mkdir(parents=True)
    (place.releases / f"{directory.name}.partial").mkdir()
    place.unpack(data)
    assert sorted(os.listdir(directory)) == ["bin", "current", "lib", "run"]


HOSTILE = {
    "a name that climbs": ([member("x/../../victim", b"!")], "not one below"),
    "an absolute name": ([member("/etc/victim", b"!")], "not one below"),
    "an empty name": ([member("", b"!")], "not one below"),
    "an empty part of a name": ([member("x//y", b"!")], "not one below"),
    "a dot and another top": ([member("./a", b"")], "one top directory"),
    "two tops": ([member("x/a", b""), member("y/a", b"")], "one top directory"),
    "a top that is a file": ([member("x", b"!")], "there twice"),
    "written through a symbolic link": (
        [member("x/l", kind=SYMLINK, link="../.."), member("x/l/victim", b"!")],
        "lies below the symlink",
    ),
    "written through a symbolic link that comes later": (
        [member("x/l/victim", b"!"), member("x/l", kind=SYMLINK, link="../..")],
        "there twice",
    ),
    "a chain of links with long names": (
        [
            member("x/" + "d" * 247 + "/", kind=DIRECTORY),
            member("x/a", kind=SYMLINK, link="d" * 247),
            *[member(f"x/{'a/' * n}{c}", kind=SYMLINK, link="d" * 247) for n, c in ((1, "b"), (2, "c"))],
        ],
        "lies below the symlink",
    ),
    "a link to nothing": ([member("x/l", kind=SYMLINK, link="")], "symbolic link to nothing"),
    "a hard link out": ([member("x/l", kind=HARD, link="../victim")], "link target"),
    "a hard link to an absolute name": ([member("x/l", kind=HARD, link="/etc/passwd")], "link target"),
    "a hard link through a symbolic link": (
        [member("x/s", kind=SYMLINK, link="../../victim"), member("x/l", kind=HARD, link="x/s")],
        "no earlier file",
    ),
    "a hard link to what comes later": ([member("x/l", kind=HARD, link="x/f"), member("x/f", b"")], "no earlier file"),
    "a hard link without a name": ([member("x/l", kind=HARD, link="")], "link target"),
    "a file twice": ([member("x/f", b"1"), member("x/f", b"2")], "there twice"),
    "a file where a directory was": ([member("x/d/f", b""), member("x/d", b"")], "there twice"),
    "below a file": ([member("x/f", b""), member("x/f/g", b"")], "lies below the file"),
    "a device": ([member("x/d", kind=tarfile.CHRTYPE)], "is a device"),
    "a FIFO": ([member("x/p", kind=tarfile.FIFOTYPE)], "is a FIFO"),
    "set-uid": ([member("x/su", b"", mode=0o4755)], "set-uid"),
    "set-gid": ([member("x/sg", b"", mode=0o2755)], "set-uid or set-gid"),
    "a line feed": ([member("x/a\nb", b"")], "control character"),
    "an escape": ([member("x/\x1b[2J", b"")], "control character"),
    "too long a name": ([member("x/" + "n" * 256, b"")], "too long"),
    "too deep": ([member("x/" + "d/" * 70 + "f", b"")], "too deep"),
    "a thousand times as much": ([member("x/zeros", bytes(4 << 20))], "more bytes"),
    "too many names": ([member(f"x/{n}", b"") for n in range(101)], "more than 100 names"),
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_leave_nothing(place: Place, what: str, form: int) -> None:
    members, why = HOSTILE[what]
    before = place.outside()
    with pytest.raises(Refused, match=why):
        place.unpack(GZIP(tar(member("x/", kind=DIRECTORY), *members, form=form)), archive.Limits(100, 1 << 20))
    assert place.outside() == before


def test_names_that_are_no_text_are_kept_as_they_are(place: Place) -> None:
    name = b"x/\xff\xfe".decode("utf-8", "surrogateescape")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as made:
        made.addfile(*[member(name, b"1")[0], io.BytesIO(b"1")])
    where = place.unpack(out.getvalue())
    assert os.listdir(os.fsencode(where)) == [b"\xff\xfe"]


def pax(records: bytes) -> bytes:
    """A header whose attributes are these very bytes, and a file behind it."""
    info = tarfile.TarInfo("x/pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    padding = bytes(-len(records) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + padding + tar(member("x/f", b"1"), form=tarfile.USTAR_FORMAT)


BROKEN = {
    "nothing": b"",
    "no tar": b"hello" * 1000,
    "cut": GZIP(tar(*GOOD))[:-20],
    "cut in a file": tar(member("x/f", b"1" * 4096))[:1536],
    "a flipped bit": bytes(byte ^ (1 if n == 40 else 0) for n, byte in enumerate(GZIP(tar(*GOOD)))),
    "a header of 64 MiB of attributes": pax(b"67108864 comment=" + bytes(64 << 20)),
    "attributes that are none": pax(b"99 path=x\n"),
    "a negative size": pax(b"13 size=-512\n"),
    "a huge size": pax(b"28 size=9999999999999999999\n"),
    "headers within headers": b"".join(pax(b"11 a=bcdef\n")[:1024] for dummy in range(3000)) + tar(member("x/f", b"1")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_archives_leave_nothing(place: Place, what: str) -> None:
    before = place.outside()
    with pytest.raises((IntegrityError, Refused)):
        place.unpack(BROKEN[what], archive.Limits(100, 1 << 20))
    assert place.outside() == before


def test_another_archive_than_the_promised_one_is_not_opened(place: Place) -> None:
    before = place.outside()
    with pytest.raises(IntegrityError, match="was promised"):
        place.unpack(GZIP(tar(*GOOD)), promised="0" * 64)
    assert place.outside() == before


def test_a_hole_is_counted_as_what_it_reads_as(place: Place) -> None:
    info = tarfile.TarInfo("x/hole")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 40),
    }
    info.size = 1
    before = place.outside()
    with pytest.raises(Refused, match="more bytes"):
        place.unpack(tar((info, b"1")))
    assert place.outside() == before


NAMES = st.sampled_from(
    ["x/a", "x/b", "x/a/b", "x/b/a", "x/../a", "x/a/../../../v", "/v", "x/./a", "x", "y/a", "x//a", "x/a/b/c"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            NAMES,
            st.sampled_from([tarfile.REGTYPE, DIRECTORY, SYMLINK, HARD]),
            st.sampled_from(["..", "../../victim", "x/a", "a"]),
        ),
        max_size=6,
    )
)
def test_whatever_it_holds_nothing_outside_changes(tmp_path_factory: pytest.TempPathFactory, members: list[t.Any]) -> None:
    place = Place(tmp_path_factory.mktemp("place"))
    data = tar(*[member(name, b"!" if kind == tarfile.REGTYPE else None, kind, link) for name, kind, link in members])
    before = place.outside()
    try:
        where = place.unpack(data)
    except ChainopsError:
        assert place.outside() == before
        return
    inside = f"{where.relative_to(place.base)}"
    assert [line for line in place.outside() if not line.startswith(inside)] == before
