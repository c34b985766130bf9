#!/bin/sh
# Scan what is new below folders since the last scan that ended well, or all of it: antivirus_scan.sh new|all FOLDER...
# What is infected goes into quarantine; every find and every failure is a line of the journal.
set -eu
state=/var/lib/groundcrew-antivirus what=$1
shift
for folder; do
  shift
  if [ -d "$folder" ]; then set -- "$@" "$folder"; else echo "$folder is not there yet"; fi
done
[ $# -gt 0 ] || exit 0
newer=
if [ "$what" = new ] && [ -e "$state/scanned" ]; then newer="-cnewer $state/scanned"; fi
# The two kinds may run at the same time
touch "$state/begun-$what"
# A file may go before its turn, and is not found by the next try; nor is what was moved away
for _ in 1 2 3; do
  # shellcheck disable=SC2086 # no word where all is scanned, else two
  found=$(find "$@" -xdev -type f $newer -exec clamdscan --fdpass --multiscan --no-summary --infected --move="$state/quarantine" {} + 2>&1) &&
    { mv "$state/begun-$what" "$state/scanned"; exit 0; }
  printf '%s\n' "$found"
done
echo "not all could be scanned: the next scan tries it again" >&2
exit 1
