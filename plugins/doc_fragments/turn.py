# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that speak to the turn's engine on a host (``_module/turn_options.py``)."""

    DOCUMENTATION = r"""
options:
  release_link:
    description:
      - The symbolic link that the node is started through; a turn switches it.
    type: path
    required: true
  service:
    description:
      - Name of the systemd unit that runs the node, with its ending C(.service).
      - Not used with O(service_scope=process).
    type: str
  service_scope:
    description:
      - Whose manager runs the node.
      - V(process) is a plain process without a manager, for rehearsals and tests; nobody starts it again after a reboot.
    type: str
    choices: [system, user, process]
    default: system
  process:
    description:
      - How the node is started without a service manager.
    type: dict
    suboptions:
      argv:
        description: Command and arguments; the command should lead through O(release_link).
        type: list
        elements: str
        required: true
      pidfile:
        description: Where the process's number is kept.
        type: path
        required: true
      cwd:
        description: Working directory.
        type: path
      env:
        description: More environment variables; no secrets, they are written into the plan.
        type: dict
      log:
        description: File that its output is appended to.
        type: path
"""
