#!/usr/bin/env bash
# What this box is, one fact a line: a name, a tab, a value. Changes nothing. usage: bash -s -- HOME
set -uo pipefail
export LC_ALL=C
home=$1
tab=$'\t'

say() { printf '%s\t%s\n' "$1" "$(tr '\n\t' '  ' <<<"$2")"; }

# The nearest folder that exists: what is not there yet will lie on its disk.
nearest() {
    local path=$1
    until [ -d "$path" ]; do path=${path%/*}; path=${path:-/}; done
    printf '%s' "$path"
}

disk() {
    local path
    path=$(nearest "$2")
    say "$1_free" "$(df --block-size=1 --output=avail "$path" | tail -n 1)"
    say "$1_disk" "$(stat --format=%d "$path")"
}

say machine "$(uname -m)"
# shellcheck disable=SC1091 # a file of the box
say system "$(. /etc/os-release 2>/dev/null && printf '%s' "${PRETTY_NAME:-}")"
if [ -r /etc/nv_tegra_release ]; then say l4t "$(head -n 1 /etc/nv_tegra_release)"; fi
say uid "$(id -u)"
if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then say sudo yes; fi
say memory_kib "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)"
if command -v rsync >/dev/null; then say rsync "$(rsync --version | head -n 1)"; fi
say package "$(dpkg-query --show --showformat='${Version}' windlass-box 2>/dev/null)"
disk data "$home"

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

if as_root test -e "$home/incoming/deploy/loading"; then say loading yes; fi
as_root find "$home/incoming/deploy/layers" -name '*.tar' -printf 'arrived\t%f %s\n' 2>/dev/null
# Its warnings are no part of what it answers.
if engine=$(as_root docker version --format '{{.Server.Version}}' 2>/dev/null); then
    say engine "$engine"
    store=$(as_root docker info --format '{{json .DriverStatus}}' 2>/dev/null)
    say store "$store"
    folder=$(as_root docker info --format '{{.DockerRootDir}}' 2>/dev/null)
    # Images that containerd keeps lie in a folder of its own, which the engine does not tell.
    case $store in *io.containerd.snapshotter*) if [ -d /var/lib/containerd ]; then folder=/var/lib/containerd; fi ;; esac
    disk engine "$folder"
    say compose "$(as_root docker compose version --short 2>/dev/null || docker-compose version --short 2>/dev/null)"
    mapfile -t images < <(as_root docker image ls --all --quiet --no-trunc | sort --unique)
    if [ "${#images[@]}" -gt 0 ]; then
        as_root docker image inspect \
            --format "image$tab{{join .RepoTags \" \"}}|{{.Architecture}}|{{join .RootFS.Layers \" \"}}" "${images[@]}" 2>/dev/null
    fi
else
    say engine_error "$(as_root docker version --format '{{.Server.Version}}' 2>&1 >/dev/null)"
fi
if command -v systemctl >/dev/null; then
    say switching "$(systemctl list-units --plain --no-legend --state=activating,active 'windlass-switch@*' | awk '{print $1; exit}')"
fi
if [ -e /etc/rauc/system.conf ] && as_root /usr/lib/windlass/slot trial 2>/dev/null; then say trial yes; fi
if [ -x /usr/lib/windlass/release ]; then say status "$(as_root /usr/lib/windlass/release status --json)"; fi
exit 0
