# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``upstream`` blocks of an nginx configuration: finding their servers, and changing one without touching another byte.

The syntax is that of nginx's configuration files: words, quotes, ``#`` comments, ``;`` and braces. Pure functions on bytes.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._core.errors import InputError, Refused

_TOKEN = re.compile(
    rb"""(?P<space>\s+)|(?P<comment>\#[^\n]*)|(?P<mark>[;{}])"""
    rb"""|(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<word>(?!["'])(?:\\.|\$\{[^}]*\}|[^\s;{}\\])+)""",
    re.DOTALL,
)
_WEIGHT = re.compile(rb"weight=(\d{1,9})")


@dataclasses.dataclass(frozen=True)
class Word:
    text: bytes
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Place:
    """One ``server`` directive of one upstream."""

    upstream: str
    address: str  # as written
    words: tuple[Word, ...]

    @property
    def down(self) -> bool:
        return any(word.text == b"down" for word in self.words[2:])

    @property
    def backup(self) -> bool:
        return any(word.text == b"backup" for word in self.words[2:])

    @property
    def weight(self) -> int:
        found = [int(match.group(1)) for word in self.words[2:] if (match := _WEIGHT.fullmatch(word.text))]
        return found[0] if found else 1


def places(data: bytes, path: str) -> list[Place]:
    """Every server of every upstream in one file, in order. Raises InputError for what can't be read for sure."""
    found: list[Place] = []
    blocks: list[list[bytes]] = []
    words: list[Word] = []
    at = 0
    while at < len(data):
        match = _TOKEN.match(data, at)
        if match is None:
            raise InputError(f"{path}: can't make out what begins at byte {at}; is it an nginx configuration?", path=path)
        at = match.end()
        if match.lastgroup in ("word", "quoted"):
            text = match.group()
            words.append(Word(text[1:-1] if match.lastgroup == "quoted" else text, match.start(), match.end()))
        elif match.lastgroup == "mark":
            mark = match.group()
            if mark == b"{":
                blocks.append([word.text for word in words])
            elif mark == b"}":
                if not blocks or words:
                    raise InputError(f"{path}: a brace at byte {match.start()} closes nothing", path=path)
                blocks.pop()
            elif words and blocks and blocks[-1][:1] == [b"upstream"] and len(blocks[-1]) == 2:
                place = _place(blocks[-1][1], words, path)
                if place is not None:
                    found.append(place)
            words = []
    if blocks or words:
        raise InputError(f"{path}: it ends inside a block or a directive", path=path)
    return found


def _place(upstream: bytes, words: t.Sequence[Word], path: str) -> Place | None:
    name = upstream.decode("utf-8", "replace")
    if words[0].text == b"include":
        raise InputError(
            f"{path}: upstream {name} includes other files; write its servers into the upstream, so that none is overlooked",
            path=path,
        )
    if words[0].text != b"server" or len(words) < 2:
        return None
    return Place(name, words[1].text.decode("utf-8", "replace"), tuple(words))


def find(data: bytes, path: str, upstream: str, address: str) -> Place:
    """The one place of an address in an upstream. Raises InputError when there is none, or more than one."""
    there = [place for place in places(data, path) if (place.upstream, place.address) == (upstream, address)]
    if len(there) != 1:
        raise InputError(f"{path}: upstream {upstream} has server {address} {len(there)} times, not once", path=path)
    return there[0]


def with_down(data: bytes, path: str, upstream: str, address: str, down: bool) -> bytes:
    """The file with the server's ``down`` set or taken away; taking away what was set gives the same bytes again."""
    place = find(data, path, upstream, address)
    if place.down == down:
        return data
    if down:
        end = place.words[-1].end
        return data[:end] + b" down" + data[end:]
    number = next(i for i, word in enumerate(place.words) if i > 1 and word.text == b"down")
    return data[: place.words[number - 1].end] + data[place.words[number].end :]


def with_weight(data: bytes, path: str, upstream: str, address: str, weight: int) -> bytes:
    """The file with another weight for the server. nginx knows no weight of 0: that is ``down``."""
    if weight < 1:
        raise Refused(f"nginx knows no weight {weight}: a server without traffic is `down`", weight=weight)
    place = find(data, path, upstream, address)
    if place.weight == weight:
        return data
    for word in place.words[2:]:
        if _WEIGHT.fullmatch(word.text):
            return data[: word.start] + b"weight=%d" % weight + data[word.end :]
    end = place.words[1].end
    return data[:end] + b" weight=%d" % weight + data[end:]
