#!/usr/bin/env bash
# Install the packages that a list names for one stage, in exactly these versions, each archive checked against its hash where the
# list has one, and see that nothing came with them that belongs to the host.
#
# usage: install.sh LIST STAGE [PACKAGE...]    further packages are those of the distribution
set -euo pipefail

list=${1:?usage: install.sh LIST STAGE [PACKAGE...]}
stage=${2:?usage: install.sh LIST STAGE [PACKAGE...]}
shift 2
archives=${ARCHIVES:-/var/cache/apt/archives}

# What a container gets from the host's driver: a second copy of another release breaks both.
of_the_host='^(nvidia-l4t-|nvidia-|libnvidia-|libcuda1|cuda-drivers|cuda-compat)'

mapfile -t wanted < <(awk -v stage="$stage" '$1 == stage {print $2 "=" $3}' "$list")
[ "${#wanted[@]}" -gt 0 ] || { echo "install.sh: $list names no package for $stage" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get install --yes --quiet --no-install-recommends --download-only "${wanted[@]}" "$@"
sums=$(awk -v stage="$stage" -v folder="$archives" '$1 == stage && $4 != "-" {print $4 "  " folder "/" $2 "_" $3 "_arm64.deb"}' "$list")
if [ -n "$sums" ]; then sha256sum --check --strict --quiet <<<"$sums"; fi
apt-get install --yes --quiet --no-install-recommends "${wanted[@]}" "$@"
apt-get clean
rm -rf /var/lib/apt/lists/*

if dpkg-query --show --showformat '${Package}\n' | grep --extended-regexp "$of_the_host"; then
    echo "install.sh: the packages above are the host's, and must not be in an image" >&2
    exit 1
fi
