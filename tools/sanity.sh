#!/usr/bin/env bash
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-test sanity without Docker, on a copy: ansible-test insists on working in .../ansible_collections/chainops/validator.
# More arguments are ansible-test's own, such as: tools/sanity.sh --test validate-modules
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. tools/env.sh
cache=$PWD/.cache

copy=$cache/sanity/ansible_collections/chainops/validator
rm -rf "$copy"
mkdir -p "$copy"
# What the tarball has, and the tests.
parts=()
for part in galaxy.yml README.md LICENSE CHANGELOG.md meta plugins roles playbooks changelogs tests; do
    if [ -e "$part" ]; then parts+=("$part"); fi
done
tar --exclude=__pycache__ -cf - "${parts[@]}" | tar -C "$copy" -xf -
# In a checkout ansible-test asks git which files there are, and git knows nothing of a copy in an ignored directory.
if git rev-parse >/dev/null 2>&1; then git init --quiet "$copy"; fi

# ansible-test makes environments of its own with a bootstrap script that it would download. Here that script is made from pip's own
# package and put where ansible-test keeps its copy; pip's and everyone else's configuration stays in force.
home=$cache/sanity/home
mkdir -p "$home/.ansible/test/cache"
for own in .config .pip .netrc; do
    if [ -e "$HOME/$own" ] && [ ! -e "$home/$own" ]; then ln -s "$HOME/$own" "$home/$own"; fi
done
requirements=("$cache"/venv/lib/python3*/site-packages/ansible_test/_internal/python_requirements.py)
version=$(sed -n "s/^ *pip='\([0-9.]*\)',.*/\1/p" "${requirements[0]}" | head -n 1)
[ -n "$version" ] || { echo "sanity: cannot tell which pip ansible-test wants (${requirements[0]})" >&2; exit 1; }
script=$home/.ansible/test/cache/get_pip_${version//./_}.py
if [ ! -s "$script" ]; then
    wheels=$cache/sanity/wheels
    mkdir -p "$wheels"
    "$cache/uv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" "pip==$version"
    python - "$wheels/pip-$version-py3-none-any.whl" >"$script.new" <<'PY'
import base64
import sys

with open(sys.argv[1], "rb") as wheel:
    packed = base64.b85encode(wheel.read()).decode()
print(f'''import base64, os, runpy, sys, tempfile
place = tempfile.mkdtemp()
wheel = os.path.join(place, "pip-{sys.argv[1].split("-")[1]}-py3-none-any.whl")
with open(wheel, "wb") as file:
    file.write(base64.b85decode("{packed}"))
sys.path.insert(0, wheel)
options = [o for o in sys.argv[1:] if o not in ("--no-setuptools", "--no-wheel")]
sys.argv = [sys.argv[0], "install", "--upgrade", wheel, *options]
runpy.run_module("pip", run_name="__main__", alter_sys=True)''')
PY
    mv "$script.new" "$script"
fi

# Real interpreters: version managers' shims in PATH break ansible-test over several Pythons.
real=$(printf '%s' "$PATH" | tr ':' '\n' | grep -v '/shims$' | paste -sd:)
# What runs on hosts and controllers by Ansible's rules; the rest of the tree has ruff and mypy.
cd "$copy"
HOME=$home PATH=$real ansible-test sanity --local --python default --color no "${@:-plugins/}"
