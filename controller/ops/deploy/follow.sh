#!/usr/bin/env bash
# Show what a unit writes until it has ended, and end with its status. usage: bash -s -- UNIT LINES_SEEN
set -uo pipefail
unit=$1 seen=$2

property() { systemctl show --property="$1" --value "$unit"; }

goes_on() {
    local state job
    job=$(property Job)
    state=$(property ActiveState)
    [ "${job:-0}" != 0 ] || [ "$state" = activating ] || [ "$state" = active ] || [ "$state" = deactivating ]
}

until invocation=$(property InvocationID); [ -n "$invocation" ] || ! goes_on; do sleep 0.2; done
if [ -n "$invocation" ]; then
    journalctl --quiet --output=cat --follow --lines=all "_SYSTEMD_INVOCATION_ID=$invocation" > >(tail --lines="+$((seen + 1))") 2>/dev/null &
    journal=$!
fi
while goes_on; do sleep 1; done
if [ -n "$invocation" ]; then
    sleep 1 # the journal's last lines
    kill "$journal" 2>/dev/null
    wait "$journal" 2>/dev/null
fi
if [ "$(property Result)" = success ]; then exit 0; fi
status=$(property ExecMainStatus)
if [ "$status" -ne 0 ]; then exit "$status"; fi
exit 70
