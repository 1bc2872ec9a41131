#!/usr/bin/env bash
# Install what a stock Debian or Ubuntu lacks for Windlass; does nothing twice. usage: bash -s
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

have() { command -v "$1" >/dev/null 2>&1; }
known() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }
fail() { printf '%s\n' "$*" >&2 && exit 1; }

have apt-get || fail "wanted Debian, Ubuntu or JetPack, which have apt-get"
# shellcheck disable=SC1091 # a file of the box
. /etc/os-release
case ${ID:-} in
    debian) oldest=12 ;;
    ubuntu) oldest=22.04 ;;
    *) fail "wanted Debian, Ubuntu or JetPack, and this is ${PRETTY_NAME:-unknown}" ;;
esac
[ "$(printf '%s\n%s\n' "$oldest" "${VERSION_ID:-99}" | sort --version-sort | head -n 1)" = "$oldest" ] \
    || fail "wanted $ID $oldest or newer, and this is ${PRETTY_NAME:-unknown}"

refreshed=no
refresh() {
    if [ "$refreshed" = no ]; then apt-get update --quiet=2 </dev/null || echo "apt could not refresh all of its lists; going on with what it has"; fi
    refreshed=yes
}

wanted=()
for pair in rsync:rsync socat:socat curl:curl zstd:zstd flock:util-linux; do
    have "${pair%%:*}" || wanted+=("${pair##*:}")
done
if ! have dockerd; then
    refresh
    wanted+=(docker.io iptables ca-certificates)
    # From Debian 13 on, the command line is a package of its own.
    if known docker-cli; then wanted+=(docker-cli); fi
elif ! have docker; then
    wanted+=(docker-cli)
fi
if ! docker compose version >/dev/null 2>&1 && ! have docker-compose; then
    refresh
    compose=docker-compose
    # An engine of Docker's own comes with a plugin of its own, and Ubuntu has the plugin under another name than Debian.
    for name in docker-compose-v2 docker-compose-plugin; do
        if known "$name"; then compose=$name; fi
    done
    wanted+=("$compose")
fi
# An installation from the ISO image has a GPU and no way for it into containers.
if [ -e /etc/nv_tegra_release ] && ! have nvidia-container-runtime; then wanted+=(nvidia-container-toolkit); fi

# What was cut in the middle has to be brought to its end first, our own package, too; what goes on without us is waited for below.
dpkg --force-confdef --force-confold --configure --pending </dev/null || true
if [ "${#wanted[@]}" -gt 0 ]; then
    refresh
    echo "installing ${wanted[*]}"
    # What asks is answered by nobody: on the standard input lies the rest of this script. Settings that somebody changed stay.
    apt-get install --yes --quiet=2 --no-install-recommends --option=DPkg::Lock::Timeout=300 \
        --option=Dpkg::Options::=--force-confdef --option=Dpkg::Options::=--force-confold "${wanted[@]}" </dev/null
fi
if [ -d /run/systemd/system ]; then systemctl enable --quiet --now docker.service; fi
