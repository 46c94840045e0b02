#!/usr/bin/env python3
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says where a role's meta/argument_specs.yml and its defaults/main.yml have drifted apart.

An argument specification's default sets nothing, so it is only true while defaults/main.yml says the same:

    every option with a default has that default in defaults/main.yml, and the other way round;
    every variable in defaults/main.yml is an option (internal ones, __role_x, are not public and are left out);
    public variables begin with the role's name.
"""

from __future__ import annotations

import pathlib
import sys
import typing as t

import yaml


def load(path: pathlib.Path) -> dict[str, t.Any]:
    if not path.exists():
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def problems(role: pathlib.Path) -> list[str]:
    specs = load(role / "meta" / "argument_specs.yml").get("argument_specs")
    if not specs:
        return [f"{role.name}: no meta/argument_specs.yml"]
    options: dict[str, t.Any] = {}
    found = []
    for entry_name, entry in specs.items():
        for name, option in (entry.get("options") or {}).items():
            if name in options and options[name] != option:
                found.append(f"{role.name}: {name} is told in two ways (again in entry point {entry_name})")
            options[name] = option
    defaults = {name: value for name, value in load(role / "defaults" / "main.yml").items() if not name.startswith("__")}
    for name, option in options.items():
        if "default" in option and option.get("required"):
            found.append(f"{role.name}: {name} is required and has a default")
        if "default" in option and name not in defaults:
            found.append(f"{role.name}: {name} has a default in the specification only, where it sets nothing")
        elif "default" in option and option["default"] != defaults[name]:
            found.append(f"{role.name}: {name} is {option['default']!r} in the specification, {defaults[name]!r} in defaults")
        elif "default" not in option and name in defaults:
            found.append(f"{role.name}: {name} is {defaults[name]!r} in defaults; the specification says nothing of it")
    found += [f"{role.name}: {name} is in defaults and not in the specification" for name in defaults if name not in options]
    found += [f"{role.name}: {name} does not begin with {role.name}_" for name in options if not name.startswith(f"{role.name}_")]
    return found


def main() -> int:
    roles = sorted(path for path in (pathlib.Path(__file__).resolve().parents[1] / "roles").iterdir() if path.is_dir())
    if not roles:
        print("no roles found: wrong directory?", file=sys.stderr)
        return 1
    found = [problem for role in roles for problem in problems(role)]
    print("\n".join(found) if found else f"{len(roles)} roles: specifications and defaults agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
