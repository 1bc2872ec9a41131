#!/usr/bin/env bash
# Make the CPU base image with mmdebstrap: no container registry is asked for anything.
#
# usage: images/base/make.sh TAG
#
# The packages come from the mirrors mmdebstrap knows for the suite; set WINDLASS_DEBIAN_MIRROR to use another.
set -euo pipefail

tag=${1:?usage: images/base/make.sh TAG}
suite=bookworm

# The hooks call groupadd and useradd, which a plain user's PATH may not reach.
export PATH=$PATH:/usr/sbin:/sbin

# Documentation, translations and package lists are a third of a minimal system, and no container reads them.
# shellcheck disable=SC2016 # "$1" is mmdebstrap's: the root of the new system
image=$(mmdebstrap --quiet --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin' \
    --customize-hook='groupadd --root "$1" --gid 64000 windlass' \
    --customize-hook='useradd --root "$1" --uid 64001 --gid 64000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin worker' \
    --customize-hook='useradd --root "$1" --uid 64002 --gid 64000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway' \
    "$suite" - ${WINDLASS_DEBIAN_MIRROR:+"$WINDLASS_DEBIAN_MIRROR"} \
    | docker import --change 'CMD ["/bin/sh"]' -)
# Tagged only now: a system that was cut off half way must not pass for the base.
docker tag "$image" "$tag"
