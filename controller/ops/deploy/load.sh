#!/usr/bin/env bash
# Give the container engine the layers that have come, and remove them. usage: bash -s -- FOLDER VERSION
# Ends with 65 if a file has come damaged (it is removed, so that it is sent again), and with 66 if the engine does not take them.
set -euo pipefail
layers=$1/layers release=$1/$2

cd "$layers"
# An image may differ from one that is there by its configuration alone.
if [ -s "$release/images/sums" ] && ! sha256sum --check --quiet "$release/images/sums" >/dev/null 2>&1; then
    while read -r sum name; do
        printf '%s  %s\n' "$sum" "$name" | sha256sum --check --status 2>/dev/null || rm --force "$name"
    done <"$release/images/sums"
    exit 65
fi
mapfile -t names < <(awk '{print $2}' "$release/images/sums")
tar --create --file=- --directory="$release/images" --exclude=./sums . --directory="$layers" "${names[@]}" | docker load || exit 66
rm --recursive --force "$layers"
