#!/bin/bash
# Which of these units (names, or patterns) run a program or a library that was replaced since they started: each of them on a line.
set -euo pipefail
systemctl list-units --state=running --plain --no-legend -- "$@" | while read -r unit _; do
    # Whose group is the unit's, or one within it; what has ended meanwhile is no matter
    for group in $(grep -Els "/$unit(/|\$)" "${PROC:-/proc}"/[0-9]*/cgroup || true); do
        # Code alone, and of packages: memory that is shared has names of files that are gone, too
        if grep -Eqs "r-xp .* ${PACKAGES:-/usr/}.* [(]deleted[)]$" "${group%cgroup}maps"; then
            echo "$unit"
        fi
    done | sort -u
done
