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

# The units, with programs that exist. Those of the encrypted volume are of the image alone.
image=$PWD/../image/rootfs/etc/systemd/system
mkdir "$work/units"
for unit in joinery-key.service joinery-volume.socket joinery-volume@.service joinery-opened.service; do
  sed 's#^ExecStart=/usr/[a-z/-]*/[a-z-]*#ExecStart=/bin/true#; s/ joinery-settings.service nftables.service//' "$image/$unit" \
    >"$work/units/$unit"
done
for unit in joineryd.service joinery-board.service joinery-resume-key.service joinery-update.service \
  joinery-mark-good.service joinery-update.path joinery.target; do
  sed 's#^ExecStart=/usr/[a-z/-]*/[a-z-]*#ExecStart=/bin/true#' "$unit" >"$work/units/$unit"
done
# Other units of this machine may have faults of their own.
systemd-analyze verify --man=no --recursive-errors=no "$work"/units/* >"$work/log" 2>&1 \
  || fail "verify: $(cat "$work/log")"
if grep -E "joiner|$work" "$work/log" >&2; then fail "verify has something to say"; fi

# Tenths, at most.
for unit in joineryd:15 joinery-board:25 joinery-resume-key:15 joinery-update:15 joinery-mark-good:18 joinery-key:15 joinery-volume@:38; do
  name=${unit%:*}.service most=${unit#*:}
  path=$PWD/$name
  [ -e "$path" ] || path=$image/$name
  systemd-analyze security --offline=true --no-pager --threshold="$most" "$path" >"$work/log" 2>&1 \
    || fail "$(cat "$work/log")"
  grep "exposure level" "$work/log" | sed 's/^[^A-Z]*/units: /'
done

# The key for going on after a power cut: made once, kept, and made anew when this machine cannot open it. With the host's
# key in a file of this test; a TPM is used where there is one.
(
  export SYSTEMD_CREDENTIAL_SECRET="$work/secret" STATE_DIRECTORY="$work/state"
  mkdir "$STATE_DIRECTORY"
  made="$STATE_DIRECTORY/joinery.resume"
  opened() { systemd-creds decrypt --name=joinery.resume "$made" - 2>"$work/log" | sha256sum; }
  resume_key() { ./resume-key 2>"$work/log" || fail "resume-key: $(cat "$work/log")"; }
  resume_key
  first=$(opened)
  [ "$(systemd-creds decrypt --name=joinery.resume "$made" - 2>/dev/null | wc -c)" = 32 ] || fail "no key of 32 bytes"
  resume_key
  [ "$(opened)" = "$first" ] || fail "a key that opens was replaced"
  rm "$SYSTEMD_CREDENTIAL_SECRET"
  resume_key
  systemd-creds decrypt --name=joinery.resume "$made" - >/dev/null 2>"$work/log" || fail "the new key does not open"
  [ "$(opened)" != "$first" ] || fail "a key that does not open was kept"
  printf rubbish >"$made"
  resume_key
  systemd-creds decrypt --name=joinery.resume "$made" - >/dev/null 2>"$work/log" || fail "rubbish was kept"
  [ "$(ls "$STATE_DIRECTORY")" = joinery.resume ] || fail "resume-key leaves files behind"
)
echo "units: resume-key makes, keeps and replaces its key ($(systemd-creds has-tpm2 >/dev/null 2>&1 && echo TPM || echo host key))"
