#!/usr/bin/env bash
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the devnet's two images unless they are there, and prints as JSON what to run them with:
#
#   build_images.sh CACHE_DIR SUITE [BASE]
#
# CACHE_DIR  where containers.conf goes, if this machine needs one
# SUITE      Debian release to bootstrap, when no BASE is given
# BASE       an image to start from instead of bootstrapping, such as docker.io/library/debian:bookworm-slim
#
# The images' tags are digests of what they are built from, so a changed Containerfile is a new image.
set -euo pipefail
cache=$1 suite=$2 base=${3:-}
context=$(cd "$(dirname "$0")/images" && pwd)
mkdir -p "$cache"
exec 9>"$cache/images.lock"
flock 9

key=$( (printf '%s\n' "$suite" "$base"; cd "$context"; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-16)
host=localhost/chainops-devnet-host:$key
gateway=localhost/chainops-devnet-gateway:$key
log=$cache/images.log
built=false

# Not every machine lets containers raise their limits or has the cgroups that podman's defaults expect. Where a plain
# run fails, a configuration of our own is tried; nothing global is touched.
conf=$cache/containers.conf
write_conf() {
    local files procs
    files=$(ulimit -Hn) procs=$(ulimit -Hu)
    [ "$files" = unlimited ] && files=1048576
    { [ "$procs" = unlimited ] || [ "$procs" -gt 32768 ]; } && procs=32768
    cat >"$conf" <<CONF
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=$procs:$procs"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
}
settle_conf() {
    if [ -f "$conf" ]; then export CONTAINERS_CONF=$conf; fi
    podman run --rm --network none "$1" true >>"$log" 2>&1 && return 0
    write_conf
    export CONTAINERS_CONF=$conf
    podman run --rm --network none "$1" true >>"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        echo "podman cannot run a container on this machine, with its own configuration or with $conf: see the lines above and $log" >&2
        exit 1
    }
}

if ! podman image exists "$host" || ! podman image exists "$gateway"; then
    : >"$log"
    built=true
    if [ -z "$base" ]; then
        base=localhost/chainops-devnet-base:$suite-$key
        if ! podman image exists "$base"; then
            tar=$cache/base-$$.tar
            trap 'rm -f "$tar"' EXIT
            mmdebstrap --quiet --variant=minbase "$suite" "$tar" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "mmdebstrap could not bootstrap Debian $suite (log: $log)" >&2; exit 1; }
            podman import --quiet "$tar" "$base" >>"$log" 2>&1
        fi
    elif ! podman image exists "$base"; then
        podman pull --quiet "$base" >>"$log" 2>&1 || { tail -n 5 "$log" >&2; echo "cannot pull $base; leave devnet_base empty to bootstrap with mmdebstrap" >&2; exit 1; }
    fi
    settle_conf "$base"
    for target in host gateway; do
        # The build goes out by the machine's own network: the devnet's may have no way out.
        podman build --quiet --network=host --build-arg "BASE=$base" --target "$target" --label chainops.devnet.image="$target" \
            --tag "${!target}" --file "$context/Containerfile" "$context" >>"$log" 2>&1 \
            || { tail -n 20 "$log" >&2; echo "building the $target image failed (log: $log)" >&2; exit 1; }
    done
    # Its layers stay as long as the two need them.
    case $base in localhost/chainops-devnet-base:*) podman untag "$base" >>"$log" 2>&1 || true ;; esac
else
    settle_conf "$host"
fi

printf '{"built": %s, "host": "%s", "gateway": "%s", "containers_conf": "%s"}\n' "$built" "$host" "$gateway" "${CONTAINERS_CONF:-}"
