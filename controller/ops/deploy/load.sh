#!/usr/bin/env bash
# Give the container engine the layers that have come, and remove them. usage: bash -s -- FOLDER [VERSION]
# Without a version it only gives up what was cut. Ends with 65 if a file has come damaged (it is removed, so that it is sent
# again), and with 66 if the engine does not take them.
#
# The engine syncs what it notes of a layer and not the layer's files: a load that the power has cut leaves layers that count as
# whole and may be empty. `loading` says until all of it is on the disk which images these are.
set -euo pipefail
folder=$1 version=${2:-} layers=$1/layers mark=$1/loading

archive() { # archive RELEASE: what of its layers has come
    local names
    mapfile -t names < <(awk '{print $2}' "$folder/$1/images/sums")
    tar --create --file=- --directory="$folder/$1/images" --exclude=./sums --exclude=./tags . --directory="$layers" "${names[@]}"
}

mkdir -p "$layers"
exec {lock}<"$folder"
flock "$lock" # one that has lost its connection may still be at work

if [ -s "$mark" ]; then
    cut=$(<"$mark")
    # Layers of an image that was not noted yet belong to nobody: taken once more, whole or not, they go with it.
    archive "$cut" | docker load --quiet >/dev/null 2>&1 || true
    while read -r tag; do
        if ! docker image inspect "$tag" >/dev/null 2>&1; then continue; fi
        docker image rm --force "$tag" >/dev/null
    done <"$folder/$cut/images/tags"
    rm --force "$mark" && sync "$folder"
fi
[ -n "$version" ] || exit 0

cd "$layers"
sums=$folder/$version/images/sums
# An image may differ from one that is there by its configuration alone.
if [ -s "$sums" ] && ! sha256sum --check --quiet "$sums" >/dev/null 2>&1; then
    while read -r sum name; do
        printf '%s  %s\n' "$sum" "$name" | sha256sum --check --status 2>/dev/null || rm --force "$name"
    done <"$sums"
    exit 65
fi
printf '%s\n' "$version" >"$mark.new"
sync # with the layers that have come, from which it is begun again
mv --force "$mark.new" "$mark" && sync "$folder"
code=0
archive "$version" | docker load --quiet || code=66
sync # wherever the engine keeps them
rm --force "$mark" && sync "$folder"
[ "$code" -eq 0 ] || exit "$code"
rm --recursive --force "$layers"
