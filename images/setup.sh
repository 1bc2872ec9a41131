#!/usr/bin/env bash
# Install what the machine lacks, and see to it that a container engine runs. Says what it does, and does nothing twice.
#
# usage: images/setup.sh python    Python and the virtual environment: enough for `make check` and `make test-fast`
#        images/setup.sh lint      what `make check` needs beyond the virtual environment
#        images/setup.sh bench     what `make gateway` needs beyond the engine: wrk, nginx, a C compiler
#        images/setup.sh appliance what `make image`, `make boot` and `make update` need: mmdebstrap, the tools of file systems, GRUB, QEMU, RAUC
#        images/setup.sh machines  what `make test-appliance` needs beyond those: SSH, and a disk that forgets
#        images/setup.sh engine    Docker Engine, Compose and mmdebstrap as well, and the engine running
#
# An engine that already answers is used as it is, whoever runs it and however it is set up.
set -euo pipefail
cd "$(dirname "$0")/.."

engine_within_s=60

logs=build/logs
mkdir -p "$logs"

say() { printf '  %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "this needs root and there is no sudo: $*"
    fi
}

install_packages() {
    have apt-get || fail "needs $* and knows only apt to install them; install them by hand and run this again"
    [ "$(id -u)" -eq 0 ] || have sudo || fail "needs $*, and only root may install: ask an administrator to run apt install $*"
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update --quiet >"$logs/apt.log" 2>&1 \
        || say "apt could not refresh all of its lists; going on with what it has"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@" >>"$logs/apt.log" 2>&1 \
        || show_and_fail apt "apt could not install $*"
}

show_and_fail() {
    tail -n 20 "$logs/$1.log" >&2
    fail "$2; all of it is in $logs/$1.log"
}

# The environment holds what requirements/dev.lock lists, each file checked against its hashes, and this checkout in place.
make_environment() {
    say "the virtual environment in .venv, about a minute"
    local pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
    {
        { [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv; } \
            && "${pip[@]}" --require-hashes --requirement requirements/dev.lock \
            && "${pip[@]}" --no-deps --no-build-isolation --editable .
    } >"$logs/pip.log" 2>&1 || show_and_fail pip "the virtual environment could not be made"
}

# Ubuntu 22.04, and so JetPack 6, has an older one under the plain name and a newer one beside it.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if have "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$name"
            return
        fi
    done
    return 1
}

python_packages() {
    local python
    if python=$(find_python); then
        "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$python-venv"
    elif have python3; then
        echo python3.11 python3.11-venv
    else
        echo python3 python3-venv
    fi
}

engine_packages() {
    if ! have docker; then
        # Without a recommended CA bundle or iptables the engine starts and then fails in odd ways.
        echo docker.io iptables ca-certificates
        # From Debian 13 on, the command line is a package of its own, and newer engines build with buildx.
        for package in docker-cli docker-buildx; do
            if [ -n "$(apt-cache madison "$package" 2>/dev/null)" ]; then echo "$package"; fi
        done
    elif ! have dockerd && ! docker version >/dev/null 2>&1 && [ -z "${DOCKER_HOST:-}" ]; then
        # A command line without an engine, or an engine this user may not talk to; the latter has a socket.
        [ -S /var/run/docker.sock ] || echo docker.io iptables ca-certificates
    fi
    if ! docker compose version >/dev/null 2>&1 && ! have docker-compose; then
        if [ -n "$(apt-cache madison docker-compose-v2 2>/dev/null)" ]; then echo docker-compose-v2; else echo docker-compose; fi
    fi
    have mmdebstrap || echo mmdebstrap
    # The base image is Debian's, and its signatures are checked on Ubuntu, too.
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
    # A plain user's mmdebstrap works in a user namespace.
    if [ "$(id -u)" -ne 0 ] && ! have newuidmap; then echo uidmap; fi
}

bench_packages() {
    have wrk || echo wrk
    have cc || echo gcc
    [ -e /usr/include/stdio.h ] || echo libc6-dev
}

test_packages() {
    [ -x /usr/sbin/sshd ] || echo openssh-server
    have rsync || echo rsync
    have openssl || echo openssl
    have mcopy || echo mtools
}

appliance_packages() {
    local architecture
    architecture=$(dpkg --print-architecture)
    have mmdebstrap || echo mmdebstrap
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
    have mke2fs || echo e2fsprogs
    have mkfs.vfat || echo dosfstools
    have mcopy || echo mtools
    have sgdisk || echo gdisk
    have zstd || echo zstd
    have grub-mkimage || echo grub-common
    have rauc || echo rauc
    have mksquashfs || echo squashfs-tools
    have openssl || echo openssl
    [ -d "/usr/lib/grub/$(grub_platform "$architecture")" ] || echo "grub-efi-$architecture-bin"
    case $architecture in
        amd64)
            have qemu-system-x86_64 || echo qemu-system-x86
            [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || echo ovmf
            ;;
        arm64)
            have qemu-system-aarch64 || echo qemu-system-arm
            [ -e /usr/share/AAVMF/AAVMF_CODE.fd ] || echo qemu-efi-aarch64
            ;;
    esac
    have qemu-img || echo qemu-utils
}

machine_packages() {
    have ssh || echo openssh-client
    have rsync || echo rsync
    have nbdkit || echo nbdkit
}

grub_platform() {
    case $1 in arm64) echo arm64-efi ;; *) echo x86_64-efi ;; esac
}

# Unpacked and not installed: the installed package starts a server on port 80.
unpack_nginx() {
    [ -x build/nginx/usr/sbin/nginx ] && return
    say "unpacking nginx into build/nginx"
    mkdir -p build/nginx
    (cd build/nginx && apt-get download --quiet nginx >../logs/nginx.log 2>&1 && dpkg-deb --extract nginx_*.deb .) \
        || show_and_fail nginx "nginx could not be unpacked"
}

answers() { images/with-engine.sh true 2>/dev/null || as_root docker version >/dev/null 2>&1; }

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting the container engine (systemd)"
        as_root systemctl start docker
    else
        say "starting the container engine (dockerd, log in $logs/dockerd.log)"
        # Its own session, so that it outlives this terminal; the process id lets whoever started it end it.
        # shellcheck disable=SC2016 # the inner shell's own process id and argument
        as_root setsid sh -c 'echo $$ >build/dockerd.pid; exec dockerd >"$1" 2>&1' sh "$logs/dockerd.log" >/dev/null 2>&1 </dev/null &
    fi
    local deadline=$((SECONDS + engine_within_s))
    until answers; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            if [ -s "$logs/dockerd.log" ]; then tail -n 20 "$logs/dockerd.log" >&2; fi
            fail "the container engine does not answer after $engine_within_s s"
        fi
        sleep 0.5
    done
}

allow_user() {
    # Members of this group are root on this machine in all but name; it is what running containers as a plain user takes.
    if docker version >/dev/null 2>&1 || id -nG "$USER" | grep -qw docker; then
        return
    fi
    say "adding $USER to the group docker, which may control the container engine (and with it this machine)"
    as_root usermod --append --groups docker "$USER"
}

case "${1:-}" in
    python | engine) ;;
    lint)
        # From apt, since the package index has the binary for x86-64 alone.
        have shellcheck || install_packages shellcheck
        exit
        ;;
    appliance)
        packages=$(appliance_packages)
        # shellcheck disable=SC2086 # a list of package names
        if [ -n "$packages" ]; then install_packages $packages; fi
        exit
        ;;
    tests)
        packages=$(test_packages)
        # shellcheck disable=SC2086 # a list of package names
        if [ -n "$packages" ]; then install_packages $packages; fi
        exit
        ;;
    machines)
        packages=$(machine_packages)
        # shellcheck disable=SC2086 # a list of package names
        if [ -n "$packages" ]; then install_packages $packages; fi
        exit
        ;;
    bench)
        packages=$(bench_packages)
        # shellcheck disable=SC2086 # a list of package names
        if [ -n "$packages" ]; then install_packages $packages; fi
        have nginx || unpack_nginx
        exit
        ;;
    *) fail "usage: images/setup.sh python|lint|engine|tests|bench|appliance|machines" ;;
esac

USER=${USER:-$(id -un)}
missing=$(python_packages)
if [ "$1" = engine ]; then
    if have apt-get && ! have docker && [ -z "$(apt-cache madison docker.io 2>/dev/null)" ]; then
        as_root apt-get update --quiet >/dev/null # a fresh machine knows no packages yet, and the choice below asks for them
    fi
    missing="$missing $(engine_packages)"
fi
# shellcheck disable=SC2086 # a list of package names
if [ -n "${missing// /}" ]; then install_packages $missing; fi
find_python >/dev/null || fail "needs Python 3.11 or newer, got $(python3 --version)"

if [ "$1" = python ]; then make_environment; fi
if [ "$1" = engine ]; then
    answers || start_engine
    if [ "$(id -u)" -ne 0 ]; then allow_user; fi
fi
