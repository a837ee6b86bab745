#!/bin/bash
# The root side of updates with the real RAUC: its service on a bus of its own, two slots, bundles of every kind. What is not
# real here: U-Boot's variables are lines of a file, `systemctl reboot` is noted and not done, slots are ordinary files,
# and bundles have RAUC's plain format, because kernels of build machines may lack device-mapper. Emulated boots are
# `make image-test`.
#
#   update-test.sh JOINERYD
#
# Needs root (mounts and processes of its own, loop devices for RAUC), rauc, rauc-service, dbus-daemon, squashfs-tools,
# e2fsprogs, curl. Changes nothing outside its temporary directory.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "${1:-}" != inside ]; then
  joineryd=$(realpath "$1")
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  work=$(mktemp -d /tmp/joinery-update.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  "${as_root[@]}" unshare --mount --pid --net --fork --kill-child "$0" inside "$joineryd" "$work"
  exit
fi

joineryd=$2 work=$3
failed() { echo "update: $*" >&2; tail -n 15 "$work"/*.log >&2; exit 1; }
checked=0
ok() { checked=$((checked + 1)); echo "update: $*"; }

# --- a machine: what it is, its slots, its boot loader
mount --make-rprivate /
mount -t proc proc /proc
ip link set lo up
mkdir -p "$work"/{bin,etc,run,data,own,slots,data-dir}
export DATA=$work/data OWN=$work/own
sed '/^IMAGE_VERSION=/d' /usr/lib/os-release >"$work/os-release"
runs() { sed -i '/^IMAGE_VERSION=/d' "$work/os-release"; echo "IMAGE_VERSION=$1" >>"$work/os-release"; }
runs 1.0.0
mount --bind "$work/os-release" /usr/lib/os-release
for slot in a b; do truncate -s 32M "$work/slots/$slot"; done
keys=$here/rauc/test-keys
# As on the box, but for where things are and the format.
sed -e "s#^path=.*#path=$keys/test-ca.cert.pem#; s#^bundle-formats=.*#bundle-formats=plain#" \
  -e "s#^data-directory=.*#statusfile=$work/rauc.status#; /^max-bundle-download-size/d; /^boot-attempts/d" \
  -e "s#^device=.*-02#device=$work/slots/a#; s#^device=.*-03#device=$work/slots/b#; s#^type=ext4#type=raw#" \
  "$here/rootfs/etc/rauc/system.conf" >"$work/etc/system.conf"
mkdir -p /etc/rauc
mount --bind "$work/etc" /etc/rauc
cat >"$work/bin/fw_printenv" <<'END'
#!/bin/sh
# The variables of the boot loader, as lines NAME=VALUE.
while [ $# -gt 1 ]; do shift; done
grep "^$1=" "$STATE" || { echo "## Error: \"$1\" not defined" >&2; exit 1; }
END
cat >"$work/bin/fw_setenv" <<'END'
#!/bin/sh
sed -i "/^$1=/d" "$STATE"
echo "$1=$2" >>"$STATE"
END
cat >"$work/bin/systemctl" <<'END'
#!/bin/sh
echo "$*" >>"$REBOOTS"
END
chmod +x "$work"/bin/*
export PATH=$work/bin:$PATH STATE=$work/env REBOOTS=$work/reboots
printf '%s\n' 'BOOT_ORDER=A B' BOOT_A_LEFT=3 BOOT_B_LEFT=3 >"$STATE"
: >"$REBOOTS"
variable() { sed -n "s/^$1=//p" "$STATE"; }

# --- RAUC's service, with the rules of the bus that the package brings
cat >"$work/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=$work/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow user="*"/><allow send_type="method_call"/><allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
    <allow receive_type="error"/><allow receive_type="signal"/><allow send_destination="org.freedesktop.DBus"/></policy>
  <include>/usr/share/dbus-1/system.d/de.pengutronix.rauc.conf</include>
  <include>$work/joinery.dbus.conf</include>
</busconfig>
END
# `nobody` stands for the daemon's user, which this machine need not have.
sed 's/user="joinery"/user="nobody"/; s/user="joinery-board"/user="daemon"/' "$here/../systemd/joinery.dbus.conf" >"$work/joinery.dbus.conf"
dbus-daemon --config-file="$work/bus.conf" --nofork --nopidfile >"$work/bus.log" 2>&1 &
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$work/bus
rauc=''
boots() { # SLOT: what a start from it begins with
  if [ -n "$rauc" ]; then kill "$rauc"; wait "$rauc" || true; fi
  rauc --mount="$work/run" --override-boot-slot="$1" service >>"$work/rauc.log" 2>&1 &
  rauc=$!
  for _ in $(seq 100); do (rauc status) >/dev/null 2>&1 && return; sleep 0.1; done
  failed "RAUC's service does not start"
}
for _ in $(seq 100); do [ -S "$work/bus" ] && break; sleep 0.1; done
boots A
chmod 0711 "$work"

# --- bundles
bundle() { # NAME VERSION SIGNER
  head -c 3M /dev/urandom >"$work/$1.img"
  FORMAT=plain RAUC_KEY=$keys/$3-signer.key.pem RAUC_CERT=$keys/$3-signer.cert.pem \
    "$here/rauc/bundle.sh" "$work/$1.img" "$2" "$work/$1.raucb" >>"$work/bundle.log" 2>&1 || failed "no bundle $1"
}
bundle new 1.1.0 test
bundle old 0.9.0 test
bundle foreign 1.1.0 other
head -c 2M "$work/new.raucb" >"$work/short.raucb"
cp "$work/new.raucb" "$work/changed.raucb"
printf 'X' | dd of="$work/changed.raucb" bs=1 seek=1000000 conv=notrunc status=none
# What the image really asks for.
FORMAT=verity RAUC_KEY=$keys/test-signer.key.pem RAUC_CERT=$keys/test-signer.cert.pem \
  "$here/rauc/bundle.sh" "$work/new.img" 1.1.0 "$work/verity.raucb" >>"$work/bundle.log" 2>&1 || failed "no verity bundle"
sed 's#^bundle-formats=.*#bundle-formats=verity#' "$work/etc/system.conf" >"$work/verity.conf"
rauc --conf="$work/verity.conf" info "$work/verity.raucb" >"$work/info.log" 2>&1 || failed "the verity bundle is not verified"
rauc --conf="$work/verity.conf" info "$work/new.raucb" >"$work/info.log" 2>&1 && failed "a plain bundle passes where verity is asked for"
ok "bundles of the formats verity and plain; the image's setting takes verity alone"

update() { "$joineryd" update "$@" --data-dir "$DATA" --update-dir "$OWN" >"$work/said.log" 2>&1; }
last() { sed -n 's/.*"last":{"ok":\([a-z]*\),"code":"\([a-z_]*\)".*/\1 \2/p' "$OWN/status.json"; }
state() { sed -n 's/.*"state":"\([a-z_]*\)".*/\1/p' "$OWN/status.json"; }
mkdir -p "$DATA/update"
chown -R nobody "$DATA"
asks() { # BUNDLE: as the daemon does
  cp "$1" "$DATA/update/bundle.raucb"
  chown nobody "$DATA/update/bundle.raucb"
  : >"$DATA/update/install"
}
before=$(sha256sum <"$work/slots/b")
unchanged() { [ "$(sha256sum <"$work/slots/b")" = "$before" ] || failed "$1: slot B was written to"; [ "$(variable BOOT_ORDER)" = "A B" ] || failed "$1: order $(variable BOOT_ORDER)"; }

update confirm || failed "confirm on an ordinary start"
[ "$(state)" = idle ] && [ "$(stat -c %a "$OWN/status.json")" = 644 ] || failed "report: $(cat "$OWN/status.json")"
ok "an ordinary start is good, and the daemon may read the report"

# --- what must not be installed, by the daemon's request and by hand
for wrong in foreign:bundle_invalid short:bundle_invalid changed:bundle_invalid old:downgrade_refused; do
  name=${wrong%:*} code=${wrong#*:}
  asks "$work/$name.raucb"
  if update requested; then failed "$name is installed"; fi
  [ "$(last)" = "false $code" ] || failed "$name: $(cat "$OWN/status.json")"
  if update "$work/$name.raucb"; then failed "$name is installed by hand"; fi
  [ "$(last)" = "false $code" ] || failed "$name by hand: $(cat "$OWN/status.json")"
  unchanged "$name"
  [ -z "$(ls "$DATA/update")" ] && [ ! -e "$OWN/bundle.raucb" ] || failed "$name: something is left"
  ok "$name: $code, nothing written, nothing left"
done
# A daemon that was taken over.
ln -s "$work/new.raucb" "$DATA/update/bundle.raucb"
: >"$DATA/update/install"
if update requested; then failed "a link is followed"; fi
[ "$(last)" = "false bundle_unreadable" ] || failed "a link: $(cat "$OWN/status.json")"
rm "$DATA/update/bundle.raucb"
: >"$DATA/update/restart"
update requested && [ ! -s "$REBOOTS" ] || failed "a restart without an update"
chmod 0644 "$work/new.raucb"
if setpriv --reuid=nobody --regid=nogroup --clear-groups rauc install "$work/new.raucb" >"$work/direct.log" 2>&1; then failed "the daemon's user may ask RAUC itself"; fi
grep -qi "rejected\|denied" "$work/direct.log" || failed "the bus did not refuse: $(cat "$work/direct.log")"
unchanged "a daemon that was taken over"
ok "links are not followed, no restart without an update, the daemon's user may not speak with RAUC"

# --- an update
asks "$work/new.raucb"
update requested || failed "the update is not installed: $(cat "$work/said.log")"
[ "$(state)" = restart_needed ] || failed "$(cat "$OWN/status.json")"
cmp -n "$(stat -c %s "$work/new.img")" "$work/new.img" "$work/slots/b" || failed "slot B is not what the bundle holds"
[ "$(variable BOOT_ORDER)" = "B A" ] || failed "order $(variable BOOT_ORDER)"
: >"$DATA/update/restart"
update requested
grep -q reboot "$REBOOTS" || failed "no restart"
update confirm || failed "confirm before the restart"
[ "$(state)" = restart_needed ] || failed "confirm before the restart: $(cat "$OWN/status.json")"
ok "a good bundle is written to slot B, which is next; a restart is done when asked for"

# --- the new system, with a real daemon; the boot loader has counted a try
another_start() { sed -i 's/"boot_id":"[^"]*"/"boot_id":"another"/' "$OWN/status.json"; }
another_start
boots B
"$work/bin/fw_setenv" BOOT_B_LEFT 2
runs 1.1.0
"$joineryd" --network regtest --data-dir "$work/data-dir" --listen 127.0.0.1:0 --wss-listen 127.0.0.1:0 >"$work/daemon.log" 2>&1 &
daemon=$!
DATA=$work/data-dir update confirm || failed "the healthy system is not kept: $(cat "$work/said.log")"
[ "$(last)" = "true updated" ] && [ "$(state)" = idle ] || failed "$(cat "$OWN/status.json")"
[ "$(variable BOOT_B_LEFT)" = 3 ] || failed "B is not marked good"
"$joineryd" health --data-dir "$work/data-dir" >"$work/health.log" || failed "health"
ok "kept after the daemon answered by HTTPS: $(cat "$work/health.log")"

# --- back to the older version, by force; the daemon of that system does not answer
kill "$daemon"
wait "$daemon" || failed "the daemon ended with $?"
if update "$work/old.raucb"; then failed "a downgrade"; fi
update --force "$work/old.raucb" || failed "a forced downgrade: $(cat "$work/said.log")"
another_start
boots A
runs 0.9.0
: >"$REBOOTS"
if DATA=$work/data-dir update confirm --patience 0; then failed "kept although nobody answers"; fi
grep -q reboot "$REBOOTS" || failed "no restart after a failed health check"
[ "$(state)" = restart_needed ] || failed "$(cat "$OWN/status.json")"
# Three tries later the boot loader takes the other slot.
another_start
boots B
runs 1.1.0
update confirm || failed "confirm after the fall back"
[ "$(last)" = "false fell_back" ] && [ "$(state)" = idle ] || failed "$(cat "$OWN/status.json")"
ok "forced downgrade; a system whose daemon does not answer is restarted, and the old one says why it is back"

# --- the power goes while a slot is written
sed -i 's/"state":"idle"/"state":"installing"/; s/"next_slot":null/"next_slot":"A"/' "$OWN/status.json"
another_start
update confirm || failed "confirm after a power cut"
[ "$(last)" = "false interrupted" ] && [ "$(state)" = idle ] || failed "$(cat "$OWN/status.json")"
ok "a power cut while a slot was written leaves the old system and a note"
echo "update: $checked groups of checks passed"
