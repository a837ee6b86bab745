#!/bin/bash
# Checks the units: no mistakes (`systemd-analyze verify`), exposure no higher than it should be
# (`systemd-analyze security`), users and directories as the units expect them. Changes nothing outside a temporary
# directory. `make units` runs it.
set -euo pipefail
cd "$(dirname "$0")"

fail() { echo "units: $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Users and groups.
mkdir -p "$work/root/etc"
systemd-sysusers --root="$work/root" "$PWD/joinery.sysusers" 2>"$work/log" || fail "sysusers: $(cat "$work/log")"
for user in joinery joinery-board; do
  grep -q "^$user:.*nologin$" "$work/root/etc/passwd" || fail "sysusers does not make $user, or lets it log in"
done
for unit in joineryd:joinery joinery-board:joinery-board; do
  grep -qx "User=${unit#*:}" "${unit%:*}.service" || fail "${unit%:*} does not run as ${unit#*:}"
done

# The socket's directory. Only root may give it away.
if [ "$(id -u)" -eq 0 ]; then
  systemd-tmpfiles --root="$work/root" --create "$PWD/joinery.tmpfiles" 2>"$work/log" \
    || fail "tmpfiles: $(cat "$work/log")"
  id_of() { awk -F: -v name="$1" '$1 == name { print $3 }' "$work/root/etc/$2"; }
  expected="2750 $(id_of joinery passwd) $(id_of joinery-board group)"
  found=$(stat -c '%a %u %g' "$work/root/run/joinery")
  [ "$found" = "$expected" ] || fail "/run/joinery is $found, not $expected"
else
  echo "units: not root: the owner of /run/joinery is not checked"
fi

# The units, with programs that exist.
mkdir "$work/units"
for unit in joineryd.service joinery-board.service joinery.target; do
  sed 's#^ExecStart=/usr/bin/joinery[a-z-]*#ExecStart=/bin/true#' "$unit" >"$work/units/$unit"
done
# Other units of this machine may have faults of their own.
systemd-analyze verify --man=no --recursive-errors=no "$work"/units/* >"$work/log" 2>&1 \
  || fail "verify: $(cat "$work/log")"
if grep -E "joiner|$work" "$work/log" >&2; then fail "verify has something to say"; fi

# Tenths, at most.
for unit in joineryd:15 joinery-board:25; do
  name=${unit%:*}.service most=${unit#*:}
  systemd-analyze security --offline=true --no-pager --threshold="$most" "$PWD/$name" >"$work/log" 2>&1 \
    || fail "$(cat "$work/log")"
  grep "exposure level" "$work/log" | sed 's/^[^A-Z]*/units: /'
done
