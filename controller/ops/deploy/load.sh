#!/usr/bin/env bash
# Give the container engine the layers that have come, and remove them. usage: bash -s -- FOLDER [VERSION]
# Without a version it only gives up what was cut. Ends with 65 if a file has come damaged (it is removed, so that it is sent
# again), and with 66 if the engine does not take them.
#
# The engine syncs what it notes of a layer and not the layer's files: a load that the power has cut leaves layers that count as
# whole and may be empty. `loading` says until all of it is on the disk whose images these are, and which releases were here before.
set -euo pipefail
folder=$1 version=${2:-} layers=$1/layers mark=$1/loading releases=${1%/incoming/*}/releases

archive() { # archive RELEASE: what of its layers has come
    local names
    mapfile -t names < <(awk '{print $2}' "$folder/$1/images/sums")
    tar --create --file=- --directory="$folder/$1/images" --exclude=./sums --exclude=./tags . --directory="$layers" "${names[@]}"
}

layers_of() { docker image inspect --format '{{.RootFS.Layers}}' "$1" 2>/dev/null; }

# A release that was not here when the loading began has come with images that are whole.
has_come_since() { # has_come_since TAG
    local file name
    for file in "$releases"/*/release.env; do
        name=${file%/*}
        if [ -L "$name" ] || ! grep --quiet --no-messages "=$1\$" "$file"; then continue; fi
        grep --quiet --line-regexp --fixed-strings "${name##*/}" <(tail --lines=+2 "$mark") || return 0
    done
    return 1
}

# By its number, and not by its name: that fails where a container runs on it, instead of taking the name from under it.
remove() { # remove NAME
    local id
    id=$(docker image inspect --format '{{.Id}}' "$1" 2>/dev/null) || return 0
    docker image rm --force "$id" >/dev/null
}

# Layers of an image that was not noted yet belong to nobody: taken once more, whole or not, they go with it. They are taken under
# another name, since what has the right one by now may have been shipped or made here meanwhile, and is whole.
give_up() { # give_up RELEASE
    local tag tags aside cut left=()
    sed --in-place 's|"windlass/|"windlass-cut/|' "$folder/$1/images/manifest.json"
    archive "$1" | docker load --quiet >/dev/null 2>&1 || true
    mapfile -t tags <"$folder/$1/images/tags"
    for tag in "${tags[@]}"; do
        aside=windlass-cut/${tag#windlass/}
        cut=$(layers_of "$aside") || cut=
        if [ -n "$cut" ] && [ "$(layers_of "$tag")" != "$cut" ]; then
            remove "$aside" || left+=("$aside")
        elif has_come_since "$tag"; then
            docker image rm "$aside" >/dev/null 2>&1 || true
        else
            { remove "$tag" && remove "$aside"; } || left+=("$tag")
        fi
    done
    # Another try is better than an image that stays half and counts as whole.
    [ "${#left[@]}" -eq 0 ] || {
        echo "may be half on its disk and cannot be removed: ${left[*]}; end the containers that use it, and run this again" >&2
        return 1
    }
}

mkdir -p "$layers"
exec {lock}<"$folder"
flock "$lock" # one that has lost its connection may still be at work

if [ -s "$mark" ]; then
    read -r cut <"$mark"
    give_up "$cut" || exit 1
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
{ echo "$version" && { ls "$releases" 2>/dev/null || true; }; } >"$mark.new"
sync # with the layers that have come, from which it is begun again
mv --force "$mark.new" "$mark" && sync "$folder"
code=0
archive "$version" | docker load --quiet || code=66
sync # wherever the engine keeps them
rm --force "$mark" && sync "$folder"
[ "$code" -eq 0 ] || exit "$code"
rm --recursive --force "$layers"
