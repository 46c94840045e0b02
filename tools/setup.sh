#!/usr/bin/env bash
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes what the other targets need, and nothing twice:
#
#   tools/setup.sh python      .cache/venv from requirements/lock.txt
#   tools/setup.sh hosts       the packages that the devnet's hosts need (podman and its friends), and tests of file systems
#   tools/setup.sh services    what the integration tests run on loopback: HAProxy and nginx, not started; Prometheus and
#                              Alertmanager in .cache/services, not installed
#   tools/setup.sh bench       what the snapshot engine is measured against
#   tools/setup.sh collection  the built collection, installed in .cache/collections
#
# A second run takes well under a second a step.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
cache=$repo/.cache
stamps=$cache/stamps
mkdir -p "$stamps"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# $1: name of the stamp, the rest: what it depends on. True when the stamp is of exactly that.
fresh() { [ -f "$stamps/$1" ] && [ "$(cat "$stamps/$1")" = "$2" ]; }
digest() { sha256sum "$@" | sha256sum | cut -c1-32; }

apt_install() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "needs ${missing[*]}: this is neither Debian nor Ubuntu, so install them by hand (see roles/devnet/README.md)"
    [ "$(id -u)" = 0 ] || die "needs ${missing[*]}: run as root, or first: sudo apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    local log=$cache/apt.log quiet=(-o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 -qq --yes --no-install-recommends)
    export DEBIAN_FRONTEND=noninteractive
    apt-get "${quiet[@]}" install "${missing[@]}" >"$log" 2>&1 </dev/null && return 0
    # The lists may be missing or old; only then are they worth their time.
    apt-get -qq update >>"$log" 2>&1 </dev/null || true
    apt-get "${quiet[@]}" install "${missing[@]}" >>"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; die "apt-get could not install ${missing[*]}; the whole log is in .cache/apt.log"; }
}

# Prints the first Python that ansible-core of the lock runs on. The environment may name it: PYTHON=/usr/bin/python3.12 make test
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        command -v "$candidate" >/dev/null || continue
        "$candidate" - 2>/dev/null <<'PY' && return 0
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
print(sys.executable)
PY
    done
    return 1
}

setup_python() {
    local want
    want=$(digest requirements/lock.txt requirements/uv.txt tools/setup.sh)
    if fresh python "$want" && "$cache/venv/bin/python" -c '' 2>/dev/null; then return 0; fi
    local python
    if ! python=$(find_python); then
        apt_install python3
        python=$(find_python) || die "needs Python 3.11, 3.12 or 3.13; found $(python3 --version 2>&1 || true). Set PYTHON=/path/to/python3"
    fi
    if [ ! -x "$cache/uv/bin/uv" ] || ! fresh uv "$(digest requirements/uv.txt)"; then
        say "fetching uv"
        rm -rf "$cache/uv"
        if ! "$python" -m venv "$cache/uv" >/dev/null 2>&1; then
            apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
            rm -rf "$cache/uv"
            "$python" -m venv "$cache/uv"
        fi
        "$cache/uv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
        digest requirements/uv.txt >"$stamps/uv"
    fi
    # Unit tests sign approvals with it.
    command -v ssh-keygen >/dev/null || apt_install openssh-client
    # One of them ships a snapshot with it.
    command -v restic >/dev/null || apt_install restic
    # They make a disk fail by a small library of their own.
    echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1 || apt_install gcc libc6-dev
    say "making .cache/venv with $("$python" --version)"
    local pip_log=$cache/venv.log
    "$cache/uv/bin/uv" venv --quiet --clear --python "$python" "$cache/venv"
    UV_HTTP_TIMEOUT=180 "$cache/uv/bin/uv" pip sync --quiet --require-hashes --python "$cache/venv/bin/python" \
        requirements/lock.txt 2>"$pip_log" || { cat "$pip_log" >&2; die "could not install requirements/lock.txt"; }
    printf '%s' "$want" >"$stamps/python"
}

# For tools that want the collection's sources under its name: linters, unit tests.
setup_link() {
    local link=$cache/collections-dev/ansible_collections/chainops/validator
    mkdir -p "$(dirname "$link")"
    [ "$(readlink "$link")" = "$repo" ] || ln -sfn "$repo" "$link"
}

setup_hosts() {
    [ "$(uname -s)" = Linux ] || die "the devnet's hosts are Linux containers with systemd: use a Linux machine (Debian or Ubuntu, as root)"
    [ "$(id -u)" = 0 ] || die "the devnet makes containers with their own network and systemd: run as root (sudo -E make ...)"
    apt_install podman runc netavark aardvark-dns mmdebstrap debian-archive-keyring iptables openssh-client ca-certificates btrfs-progs xfsprogs
}

# Programs alone: the services that packages would start by themselves listen on all addresses.
setup_services() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ "$(id -u)" = 0 ] && [ ! -e "$policy" ]; then
        made=yes
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt_install haproxy nginx-light
    if [ "$made" = yes ]; then
        rm -f "$policy"
        trap - EXIT
    fi
    local want="prometheus prometheus-alertmanager" bin=$cache/services/usr/bin
    if fresh services "$want" && "$bin/promtool" --version >/dev/null 2>&1; then return 0; fi
    command -v apt-get >/dev/null || die "needs Prometheus and Alertmanager: this is neither Debian nor Ubuntu"
    say "fetching $want"
    local debs=$cache/services.debs log=$cache/apt.log package
    rm -rf "$debs" "$cache/services"
    mkdir -p "$debs" "$cache/services"
    # shellcheck disable=SC2086 # two words
    (cd "$debs" && { apt-get -qq download $want || { apt-get -qq update && apt-get -qq download $want; }; }) >"$log" 2>&1 </dev/null ||
        { tail -n 20 "$log" >&2; die "apt-get could not fetch $want; the whole log is in .cache/apt.log"; }
    for package in "$debs"/*.deb; do dpkg-deb --extract "$package" "$cache/services"; done
    rm -rf "$debs"
    printf '%s' "$want" >"$stamps/services"
}

# What is missing is left out of the bench, which says so.
setup_bench() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    apt_install lz4 zstd restic borgbackup xfsprogs btrfs-progs
    setup_services
}

# What the tarball is made of. Everything else may change without a new one.
collection_digest() {
    { find galaxy.yml README.md LICENSE CHANGELOG.md meta plugins roles playbooks -type f \
        ! -name '*.pyc' ! -path '*/.*' -print0 2>/dev/null || true; } | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32
}

setup_collection() {
    local want installed=$cache/collections/ansible_collections/chainops/validator
    want=$(collection_digest)
    if fresh collection "$want" && [ -f "$installed/MANIFEST.json" ]; then return 0; fi
    mkdir -p build "$cache/tmp"
    export ANSIBLE_LOCAL_TEMP=$cache/tmp ANSIBLE_HOME=$cache/ansible
    local log=$cache/collection.log
    { "$cache/venv/bin/ansible-galaxy" collection build --force --output-path build/ . &&
      "$cache/venv/bin/ansible-galaxy" collection install --force --offline --no-deps --collections-path "$cache/collections" \
          "build/chainops-validator-$(sed -n 's/^version: *//p' galaxy.yml).tar.gz"; } >"$log" 2>&1 \
      || { cat "$log" >&2; die "could not build and install the collection"; }
    printf '%s' "$want" >"$stamps/collection"
}

# Two targets at once (make -j) must not build one environment twice.
exec 9>"$stamps/lock"
flock 9

for step in "${@:-python}"; do
    case $step in
        python) setup_python; setup_link ;;
        hosts) setup_hosts ;;
        services) setup_services ;;
        bench) setup_bench ;;
        collection) setup_python; setup_link; setup_collection ;;
        *) die "unknown step $step: python, hosts, services, bench or collection" ;;
    esac
done
