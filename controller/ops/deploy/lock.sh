#!/usr/bin/env bash
# Hold the lock of this box while a line comes in now and then: it ends with the connection, however that ends.
# usage: bash -s -- WHO VERSION SILENCE_S no|break
set -uo pipefail
who=$1 version=$2 silence_s=$3 mode=$4
file=/run/windlass-deploy # where root alone may write, unlike in /run/lock

exec 9<>"$file"
if ! flock --nonblock 9; then
    IFS=$'\t' read -r holder since doing pid <"$file"
    # Who broke off waits for the own earlier connection, which ends by itself.
    wait_s=0
    if [ "$mode" = break ]; then
        # The number of one that has ended meanwhile may be another program's by now.
        if [ "$(readlink "/proc/$pid/fd/9")" = "$file" ]; then kill "$pid"; fi
        wait_s=5
    elif [ "$holder" = "$who" ]; then
        wait_s=$((silence_s + 5))
    fi
    if ! flock --timeout "$wait_s" 9; then
        printf 'held\t%s\t%s\t%s\n' "$holder" "$since" "$doing"
        exit 0
    fi
fi
printf '%s\t%s\t%s\t%s\n' "$who" "$(date --utc +%FT%TZ)" "$version" "$$" >"$file"
printf 'taken\n'
while IFS= read -r -t "$silence_s" _; do :; done
