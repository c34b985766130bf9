#!/bin/bash
# Which of these units (names, or patterns) run a program or a library that was replaced since they started: each of them on a line.
set -euo pipefail
systemctl list-units --state=running --plain --no-legend -- "$@" | while read -r unit _; do
    group=$(systemctl show --property=ControlGroup --value -- "$unit")
    # Code alone, and of packages: memory that is shared has names of files that are gone, too
    find "${CGROUPS:-/sys/fs/cgroup}$group" -name cgroup.procs -exec cat {} + | while read -r process; do
        if grep -Eqs "r-xp .* ${PACKAGES:-/usr/}.* [(]deleted[)]$" "/proc/$process/maps"; then
            echo "$unit"
        fi
    done | sort -u
done
