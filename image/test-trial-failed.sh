#!/bin/bash
# Checks rootfs/usr/lib/joinery/trial-failed on a machine that is no box: which starts are tried again. `make units` runs it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0

echo 33333333-4444-5555-6666-777777777777 >"$work/boot_id"
report() { # STATE NEXT_SLOT BOOT_ID: as joineryd writes it
  echo "{\"version\":\"0.2.0\",\"slot\":\"A\",\"state\":\"$1\",\"next_version\":\"0.2.0\",\"next_slot\":$2,\"boot_id\":\"$3\",\"last\":null}" >"$work/report"
}
is() { # VERDICT SLOT WHAT
  local verdict
  echo "rauc.slot=$2 quiet loglevel=4" >"$work/cmdline"
  verdict=$(dash "$here/rootfs/usr/lib/joinery/trial-failed" "$work/report" "$work/cmdline" "$work/boot_id")
  [ "$verdict" = "$1" ] || { echo "trial-failed: $3: $verdict" >&2; exit 1; }
  count=$((count + 1))
}

report restart_needed '"B"' an-earlier-start
is restarts B "a new system in its first start"
is stays A "the old one, after three tries"
report installing '"B"' an-earlier-start
is restarts B "one whose installation was not reported in time"
report restart_needed '"B"' "$(cat "$work/boot_id")"
is stays B "one that waits for its restart"
report idle null an-earlier-start
is stays A "one that was found good before"
report idle '"B"' an-earlier-start
is stays B "the same in the other slot"
: >"$work/report"
is stays B "a damaged report"
rm "$work/report"
is stays A "no report"
echo "trial-failed: $count checks"
