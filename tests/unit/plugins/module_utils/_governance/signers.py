# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""People with real SSH keys, made when they are first asked for, who sign with the real ssh-keygen."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import typing as t

from ansible_collections.chainops.validator.plugins.module_utils._governance import approval


def keygen(*argv: str, feed: str = "") -> str:
    assert shutil.which("ssh-keygen"), "these tests need ssh-keygen: install openssh-client"
    done = subprocess.run(["ssh-keygen", *argv], input=feed.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@functools.cache
def room() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@functools.cache
def key_of(name: str) -> str:
    """The path of a key; its public half beside it."""
    path = os.path.join(room().name, name)
    keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
    return path


def public(name: str) -> str:
    with open(key_of(name) + ".pub", encoding="utf-8") as stream:
        return " ".join(stream.read().split()[:2])


def signed(name: str, text: str, namespace: str = approval.APPROVAL, key: str | None = None) -> approval.Signature:
    """What a person hands in, made with their key or another one's."""
    return approval.Signature(name, keygen("-q", "-Y", "sign", "-n", namespace, "-f", key_of(key or name), feed=text))


def signers(*lines: str | tuple[str, str] | tuple[str, str, str]) -> bytes:
    """An allowed_signers file: names, or (principals, key's owner[, options])."""
    out = []
    for line in lines:
        who, owner, options = line if isinstance(line, tuple) and len(line) == 3 else (*_pair(line), "")
        out.append(" ".join(part for part in (who, options, public(owner)) if part))
    return ("\n".join(out) + "\n").encode()


def _pair(line: t.Any) -> tuple[str, str]:
    return (line, line) if isinstance(line, str) else (line[0], line[1])
