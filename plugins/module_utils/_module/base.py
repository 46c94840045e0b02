# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ties a module to Ansible: argument specs, one way to fail, one way to report a change.

The only room that knows ``ansible.*``; imported by modules alone.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

from .._core import canonical
from .._core.errors import ChainopsError, InputError

Options = t.Dict[str, t.Dict[str, t.Any]]


class Change:
    """What a module would do: ``changed`` and ``diff`` both come from here.

    ``before`` and ``after`` are JSON values (shown as the diff); equal values mean that nothing changes.
    """

    def __init__(self, before: t.Any, after: t.Any, header: str = "") -> None:
        self.before = before
        self.after = after
        self.header = header

    @property
    def changed(self) -> bool:
        return bool(self.before != self.after)

    def result(self) -> dict[str, t.Any]:
        """``{"changed": bool, "diff": {...}}`` for exit_json."""
        diff: dict[str, t.Any] = {"before": self.before or {}, "after": self.after or {}}
        if self.header:
            diff["before_header"] = diff["after_header"] = self.header
        return {"changed": self.changed, "diff": diff}


class ArgumentSpec:
    """Options composed from shared pieces (see ``_module/options.py`` and the doc fragments of the same names)."""

    def __init__(self, *shared: Options, **options: dict[str, t.Any]) -> None:
        self.options: Options = {}
        for piece in (*shared, options):
            self.options.update(piece)

    def module(self, **constraints: t.Any) -> AnsibleModule:
        """An AnsibleModule with check mode; ``constraints`` are required_if, mutually_exclusive and their kin."""
        return AnsibleModule(argument_spec=self.options, supports_check_mode=True, **constraints)


def run(module: AnsibleModule, act: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> t.NoReturn:
    """Call ``act`` and exit with its dict, or fail with our error's message and fields."""
    try:
        result = act(module)
    except ChainopsError as exc:
        module.fail_json(msg=exc.message, error=exc.as_dict())
    module.exit_json(**{**_words(result), **result})
    raise AssertionError("exit_json returned")


def _words(result: t.Mapping[str, t.Any]) -> dict[str, str]:
    """``msg`` of what a result says is wrong: where a task's ``failed_when`` decides, Ansible shows that, or "Unknown error"."""
    parts = [result, *(value for value in result.values() if isinstance(value, dict))]
    lists = [part[name] for part in parts for name in ("reasons", "problems") if isinstance(part.get(name), list)]
    wrong = [word for words in lists for word in words if isinstance(word, str)]
    return {"msg": "; ".join(wrong)} if wrong else {}


def teller(path: str | None) -> t.Callable[[t.Mapping[str, t.Any]], None]:
    """Appends what it is told to a file, a line of JSON each, for whoever is watching; does nothing without a file."""

    def tell(report: t.Mapping[str, t.Any]) -> None:
        if path:
            try:
                with open(path, "ab") as stream:
                    stream.write(canonical.dumps(report) + b"\n")
            except OSError as exc:
                raise InputError(f"progress_file {path} can't be written: {exc.strerror}") from exc

    return tell
