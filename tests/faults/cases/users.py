# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows 1 and 5 where nobody is root: the node is a unit of its user's own manager, and so is the engine."""

from __future__ import annotations

import contextlib
import functools
import typing as t

from trial import BACK, FORWARD, Case, Trial, part, wait

from cases.hosts import follows

USER = "xai"
HOME = "/var/lib/xai"
UNITS = f"{HOME}/.config/systemd/user"
SHOWN = f"runuser -u {USER} -- env XDG_RUNTIME_DIR=/run/user/$(id -u {USER}) systemctl --user show --property=Version --value"
#: Instead of logind, which containers have no use for: the manager runs from boot on, as for a user who lingers.
MANAGER = """
set -e
uid=$(id -u {user})
cd /etc/systemd/system
mkdir -p user-runtime-dir@.service.d user@.service.d multi-user.target.wants
mkdir -p /var/lib/systemd/linger {units}/chainops-turn@.service.d
touch /var/lib/systemd/linger/{user}
printf '[Service]\nExecStart=\nExecStart=/bin/sh -c "mkdir -p -m 700 /run/user/%%i && chown %%i /run/user/%%i"\nExecStop=\n' \
  > user-runtime-dir@.service.d/faults.conf
printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' > user@.service.d/faults.conf
systemctl stop xai-node
systemctl disable --quiet xai-node
sed -e '/^User=/d' -e 's/multi-user.target/default.target/' -e '/network-online/d' xai-node.service \
  > {units}/xai-node.service
printf '[Service]\nEnvironment=LD_PRELOAD=/var/lib/faults/boundary.so\n' > {units}/chainops-turn@.service.d/zz-faults.conf
chown {user}: $({shared}) && chown -R {user}: {home}/.config {state}
ln -sf /lib/systemd/system/user@.service multi-user.target.wants/user@$uid.service
systemctl daemon-reload
systemctl start user@$uid
{ctl} enable --quiet --now xai-node
"""
AWAY = """
uid=$(id -u {user})
{ctl} stop xai-node
systemctl stop user@$uid
set -e
cd /etc/systemd/system
rm -rf multi-user.target.wants/user@$uid.service user-runtime-dir@.service.d user@.service.d
rm -rf {home}/.config /var/lib/systemd/linger/{user}
chown root: $({shared}) && chown -R root: {state}
systemctl daemon-reload
systemctl enable --quiet --now xai-node
"""


@contextlib.contextmanager
def users_own(trial: Trial) -> t.Iterator[None]:
    """The host's node as a unit of a user that is not root, who owns all that a turn changes; afterwards as it was."""
    words = {
        "user": USER,
        "home": HOME,
        "units": UNITS,
        "state": f"/var/lib/chainops/{trial.host}",
        # Sealed snapshots stay whose they are.
        "shared": f"echo {HOME} /opt/{trial.host} /var/lib/faults; find {HOME}/.chainops -maxdepth 2",
        "ctl": f"runuser -u {USER} -- env XDG_RUNTIME_DIR=/run/user/$uid systemctl --user",
    }
    trial.ready()
    trial.turns.clear()
    trial.user = USER
    trial.settings = {
        "service": {"manager": "systemd", "unit": "xai-node.service", "scope": "user"},
        "roots": [
            {"name": "data", "path": f"{HOME}/data"},
            {"name": "wallets", "path": f"{HOME}/wallets"},
            {"name": "unit", "path": f"{UNITS}/xai-node.service"},
        ],
    }
    try:
        trial.net.sh(trial.host, MANAGER.format(**words))
        follows(trial)
        yield
    finally:
        trial.net.sh(trial.host, AWAY.format(**words))
        follows(trial)
        trial.user, trial.settings = "", {}


def taken(trial: Trial, act: t.Callable[[], tuple[str, dict[str, t.Any]]], way: str) -> str:
    """A turn, and all that a rollout does after it but giving the lock back."""
    turn_id, result = act()
    trial.undrain(turn_id)
    trial.record(turn_id, result, way)
    return str(result["outcome"])


def there_and_back(trial: Trial, parts: tuple[str, ...] = (), fault: str = "") -> str:
    """The engine, or the host, dies at a boundary, with nobody logged in; then back: only this user has that rollback point."""

    def plain(way: str) -> tuple[str, dict[str, t.Any]]:
        turn_id = trial.ready()
        return turn_id, trial.start(turn_id, way).answer()["result"]

    def interrupted() -> tuple[str, dict[str, t.Any]]:
        at = trial.stands(*parts, mode="kill-after" if fault == "engine" else "stop-after")
        if fault == "engine":
            result = at.controller.answer()["result"]
        else:
            trial.net.reboot(trial.host)
            at.controller.lose()
            wait(lambda: trial.net.sh(trial.host, SHOWN, check=False), "the user's manager is up", 60.0, 0.5)
            result = trial.asked_again(at)
        # After a reboot the first engine may come before its manager answers, and is started once more.
        trial.expect(result["sessions"] >= 2, f"nothing was interrupted: {result['sessions']} session: {result['reason']}")
        return at.turn_id, result

    with users_own(trial):
        came = [taken(trial, interrupted if fault else functools.partial(plain, FORWARD), FORWARD)]
        if came == ["committed"]:
            came.append(taken(trial, functools.partial(plain, BACK), BACK))
        # Nobody asks a node for anything while it changes hands.
        trial.ready()
    trial.undrain(trial.turns[trial.host].pop())
    trial.unlock()
    # Cut off in a migration it goes back by itself; otherwise nothing keeps it from its end.
    wanted = ["put_back"] if "migrate" in "".join(parts) else ["committed", "committed"]
    trial.expect(came == wanted, f"there and back: {came}, expected {wanted}")
    return f"{' and back '.join(came)}, without root"


CASES = [
    Case("users-own-unit-there-and-back", "1", there_and_back),
    Case(
        "users-own-unit-engine-killed-after-stop",
        "1",
        functools.partial(there_and_back, parts=part("done", "stop"), fault="engine"),
    ),
    Case(
        "users-own-unit-host-rebooted-at-migrate",
        "5",
        functools.partial(there_and_back, parts=part("begin", "migrate"), fault="host"),
    ),
]
