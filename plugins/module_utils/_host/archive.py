# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking a release's archive so that nothing it holds can reach beyond its directory, or fill the host.

The digest proves that it is the archive people approved, not that they looked into it. It is read once, front to end, into a
directory of its own beside its place; what is refused leaves nothing behind. Files are made by us, never by names of the
archive's choosing: one tree below one top directory, plain files, directories, hard links to earlier files, symbolic links
that nothing lies below.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import typing as t
import zlib

from .._core import canonical, files
from .._core.errors import InputError, IntegrityError, Refused
from .._state.kernel import rename_new, sync_file_system
from . import release

_CHUNK = 1 << 20
#: A header that carries a long name, or attributes, is no longer than this; it is read into memory.
_HEADER = 1 << 20
_IN_MEMORY = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_Unreadable = tarfile.ReadError
_DEPTH, _NAME, _PATH = 64, 255, 2048
_MAGIC: t.Mapping[bytes, t.Callable[[t.BinaryIO], t.Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_BROKEN = (
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OverflowError,
    RecursionError,
    ValueError,  # UnicodeError among them
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """``entries``: names in the archive; ``bytes``: of everything it unpacks to, its own headers included."""

    entries: int = 200_000
    bytes: int = 16 << 30


class _Member(tarfile.TarInfo):
    """A header; those that would be read into memory whole are bounded."""

    # tarfile has every header pass through here, and says that subclasses may override it.
    def _proc_member(self, tarfile: t.Any) -> t.Any:
        if self.size < 0 or (self.type in _IN_MEMORY and self.size > _HEADER):
            raise _Unreadable(f"a header of {self.size} bytes")
        return super()._proc_member(tarfile)  # type: ignore[misc]


class _Bounded:
    """What is read of it in all has a limit."""

    def __init__(self, stream: t.Any, limit: int, what: str) -> None:
        self.stream, self.left, self.what = stream, limit, what

    def read(self, size: int) -> bytes:
        data = bytes(self.stream.read(size))
        self.left -= len(data)
        if self.left < 0:
            raise Refused(f"{self.what} unpacks to more bytes than are allowed")
        return data


class Tree:
    """Decides, name by name, where it goes. Pure; raises Refused with what is wrong. Paths are below the one top directory."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {"": "directory"}
        self.top: str | None = None

    def path(self, name: str, what: str = "name") -> str:
        """A name of the archive without its top directory; empty for that itself."""
        shown = ascii(name)
        first, *rest = name.rstrip("/").split("/")
        # Whoever packs "." has that for a top directory.
        parts = [first, *(part for part in rest if part != ".")]
        if ".." in parts or "" in parts:
            raise Refused(f"{what} {shown} is not one below the archive's top directory")
        if any(ord(c) < 32 or ord(c) == 127 for c in name):
            raise Refused(f"{what} {shown} holds a control character")
        if len(parts) > _DEPTH or len(os.fsencode(name)) > _PATH or any(len(os.fsencode(part)) > _NAME for part in parts):
            raise Refused(f"{what} {shown[:80]}... is too long or too deep")
        self.top = self.top or parts[0]
        if parts[0] != self.top:
            raise Refused(f"{what} {shown} is outside of the archive's one top directory {self.top!a}")
        return "/".join(parts[1:])

    def add(self, name: str, kind: str, mode: int = 0, link: str = "") -> tuple[str, str]:
        """``kind``: file, directory, symlink, hard link, or what it is. Returns the path, and a hard link's target's path."""
        path, target = self.path(name), ""
        if kind not in ("file", "directory", "symlink", "hard link"):
            raise Refused(f"{name!a} is a {kind}")
        if kind == "file" and mode & 0o6000:
            raise Refused(f"{name!a} would run as its owner or group (set-uid or set-gid)")
        if self.kinds.get(path) == "directory" and kind == "directory":
            return path, target
        if path in self.kinds:
            raise Refused(f"{name!a} is there twice")
        above = path
        while above:
            above = above.rpartition("/")[0]
            if self.kinds.setdefault(above, "directory") != "directory":
                raise Refused(f"{name!a} lies below the {self.kinds[above]} {above!a}")
        if kind == "hard link":
            target = self.path(link, "link target")
            if self.kinds.get(target) not in ("file", "hard link"):
                raise Refused(f"{name!a} is a hard link to {link!a}, which is no earlier file of the archive")
        if kind == "symlink" and (not link or "\0" in link or len(os.fsencode(link)) > _PATH):
            raise Refused(f"{name!a} is a symbolic link to nothing, or to too long a name")
        self.kinds[path] = kind
        return path, target


def unpack(source: str, sha256: str, directory: str, limits: Limits) -> dict[str, int]:
    """Unpack the archive that has this digest, and mark the release complete. Returns ``{"entries", "bytes"}``.

    Raises IntegrityError for another archive, or one that is broken, Refused for what may not be in one; then nothing of it
    is left. A directory that is there without its marker was never finished, and is replaced.
    """
    release.require_digest(sha256, "the release's digest")
    if release.digest_of(directory) != sha256:
        raise InputError(f"{directory} is not named after the digest {sha256}", path=directory)
    beside = directory + ".partial"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with open(source, "rb") as stream:
            found = _digest(stream)
            if found != sha256:
                raise IntegrityError(
                    f"{source} has the digest {found}, but {sha256} was promised; nothing was unpacked", path=source
                )
            done = _into(stream, source, beside, limits)
        sync_file_system(beside)
        if os.path.lexists(directory):
            shutil.rmtree(directory)
        rename_new(beside, directory)
        # Written last: without it nobody takes the directory for the release.
        files.write_atomic(directory + ".complete", canonical.dumps({"sha256": sha256}), 0o644)
        return done
    except OSError as exc:
        raise IntegrityError(f"could not unpack {source} to {directory}: {exc.strerror or exc}", path=source) from exc
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _digest(stream: t.BinaryIO) -> str:
    state = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        state.update(chunk)
    stream.seek(0)
    return state.hexdigest()


def _into(stream: t.BinaryIO, source: str, root: str, limits: Limits) -> dict[str, int]:
    start = stream.read(6)
    stream.seek(0)
    opened = next((opens(stream) for magic, opens in _MAGIC.items() if start.startswith(magic)), stream)
    content = _Bounded(opened, limits.bytes, source)
    tree, links, count, size = Tree(), [], 0, 0
    os.mkdir(root, 0o755)
    try:
        with tarfile.open(fileobj=t.cast(t.IO[bytes], content), mode="r|", tarinfo=_Member, errorlevel=2) as archive:
            for member in archive:
                count += 1
                if count > limits.entries:
                    raise Refused(f"{source} holds more than {limits.entries} names")
                path, target = tree.add(member.name, _kind(member), member.mode, member.linkname)
                # Holes take nothing in the archive, and much when somebody reads them.
                if size + member.size > limits.bytes:
                    raise Refused(f"{source} unpacks to more bytes than are allowed")
                where = os.path.join(root, path)
                if member.issym():
                    links.append((where, member.linkname))
                    continue
                os.makedirs(where if member.isdir() else os.path.dirname(where), 0o755, exist_ok=True)
                if member.isfile():
                    size += _file(archive, member, where)
                elif member.islnk():
                    os.link(os.path.join(root, target), where)
        # What is left belongs to the compression, which checks itself there.
        while content.read(_CHUNK):
            pass
    except (*_BROKEN, gzip.BadGzipFile) as exc:
        raise IntegrityError(f"{source} is not a whole tar archive: {type(exc).__name__}: {exc}", path=source) from exc
    if not count:
        raise IntegrityError(f"{source} is empty", path=source)
    # Last, so that nothing was ever written through one.
    for where, target in links:
        os.makedirs(os.path.dirname(where), 0o755, exist_ok=True)
        os.symlink(target, where)
    return {"entries": count, "bytes": size}


def _kind(member: tarfile.TarInfo) -> str:
    names = {"file": member.isfile(), "directory": member.isdir(), "symlink": member.issym(), "hard link": member.islnk()}
    special = {"FIFO": member.isfifo(), "device": member.isdev()}
    return next((name for name, is_one in {**names, **special}.items() if is_one), f"member of unknown type {member.type!r}")


def _file(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> int:
    content = archive.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    written = 0
    with open(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as out:
        for chunk in iter(lambda: content.read(_CHUNK), b""):
            out.write(chunk)
            written += len(chunk)
        os.fchmod(out.fileno(), member.mode & 0o755 | 0o400)
    if written != member.size:
        raise tarfile.ReadError(f"{member.name} has {written} of {member.size} bytes")
    moment = max(0, min(int(member.mtime), 2**33))
    os.utime(where, (moment, moment), follow_symlinks=False)
    return written
