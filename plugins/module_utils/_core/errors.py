# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of our own, with fields, so that a caller can decide and a person can act.

A message says what was wrong, where, and what to do. It never carries a secret.
"""

from __future__ import annotations

import typing as t


class ChainopsError(Exception):
    """Base of every error this collection raises on purpose.

    ``fields`` holds plain JSON values and is returned to Ansible as ``error``.
    """

    def __init__(self, message: str, **fields: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields: dict[str, t.Any] = fields

    def as_dict(self) -> dict[str, t.Any]:
        """``{"kind": class name, "message": str, **fields}``."""
        return {"kind": type(self).__name__, "message": self.message, **self.fields}


class InputError(ChainopsError):
    """What the user gave can't be used; nothing was done."""


class HttpError(ChainopsError):
    """The server answered, but not with what was asked for. Fields: url, status (int or None), body (str, cut)."""


class Unreachable(ChainopsError):
    """No answer: refused, timed out, no route, TLS failed. Fields: url."""


class WaitTimeout(ChainopsError):
    """A condition didn't come true in time. Fields: waited (seconds), last (the last state seen)."""


class IntegrityError(ChainopsError):
    """Stored data is not what it claims to be: truncated, tampered with, or another chain's."""


class Refused(ChainopsError):
    """It could be done, but must not be: a safety rule says no. Fields say which."""


class Busy(ChainopsError):
    """Somebody else holds it. Fields say who and since when."""


class CommandFailed(ChainopsError):
    """A command of a plan failed. Fields: argv, code (int, negative = signal, None = timed out), output (tail)."""
