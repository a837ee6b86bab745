#!/bin/bash
# Boots the image of `make image` as it is in an emulated machine: `make image-test` runs it; docs/image.md says what is
# looked at. daemon/joineryd/tests/image.rs does the looking; this script makes bundles to update with, and a network
# with nobody else in it.
#
#   test.sh IMAGES [ARGUMENTS OF THE TEST]
#
# IMAGES is where `make image KEYRING=image/rauc/test-keys/test-ca.cert.pem` left its files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "image-test: $*" >&2; exit 1; }

images=$(realpath "$1")
shift
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)
image=$images/joinery-$version-arm64.img
rootfs=$images/joinery-$version-rootfs.ext4
[ -s "$image" ] && [ -s "$rootfs" ] || fail "there is no image of $version in $images"
keys=image/rauc/test-keys

# --- how large it may be
download=$(stat -c %s "$image.zst")
blocks() { dumpe2fs -h "$rootfs" 2>/dev/null | sed -n "s/^$1: *//p"; }
root=$((($(blocks 'Block count') - $(blocks 'Free blocks')) * $(blocks 'Block size')))
echo "image-test: $download bytes to download, $root bytes in a root slot"
[ "$download" -le 150000000 ] || fail "more than 150 MB to download"
[ "$root" -le 350000000 ] || fail "more than 350 MB in a root slot"

# --- what is booted and installed
work=$images/test
mkdir -p "$work"
inside() { debugfs -R "cat $1" "$rootfs" 2>/dev/null; }
[ "$(inside /etc/rauc/keyring.pem)" = "$(cat "$keys/test-ca.cert.pem")" ] \
  || fail "the image does not trust the test keys: make image KEYRING=$keys/test-ca.cert.pem"
# For a start without boot loader, to compare times with.
for file in Image initrd; do inside "/boot/$file" >"$work/$file"; done
# What the firmware of a Raspberry Pi, which the emulator has none of, would take from the card.
start=$(sfdisk --dump "$image" | sed -n 's/.*img1 : start= *\([0-9]*\),.*/\1/p')
for file in u-boot.bin bcm2837-rpi-3-b.dtb; do mcopy -n -o -i "$image@@$((start * 512))" "::$file" "$work"; done

edited=$work/edited
rm -rf "$edited"
mkdir "$edited"
# Puts a local file in the place of one in the root slot NAME.ext4.
replace() { # NAME PATH LOCAL MODE
  printf '%s\n' "cd ${2%/*}" "unlink ${2##*/}" "write $3 ${2##*/}" "sif ${2##*/} mode 0100$4" "sif ${2##*/} uid 0" "sif ${2##*/} gid 0" \
    | debugfs -w -f - "$work/$1.ext4" >"$edited/log" 2>&1
  debugfs -R "cat $2" "$work/$1.ext4" 2>/dev/null | cmp -s - "$3" || fail "$2 was not replaced: $(cat "$edited/log")"
}
# The same root slot with another version.
variant() { # NAME VERSION
  cp --sparse=always "$rootfs" "$work/$1.ext4"
  inside /usr/lib/os-release | sed "s/^IMAGE_VERSION=.*/IMAGE_VERSION=$2/" >"$edited/os-release"
  replace "$1" /usr/lib/os-release "$edited/os-release" 644
}
bundle() { # NAME VERSION SIGNER [ROOTFS]
  RAUC_KEY=$keys/$3-signer.key.pem RAUC_CERT=$keys/$3-signer.cert.pem \
    image/rauc/bundle.sh "${4:-$work/$1.ext4}" "$2" "$work/$1.raucb" 2>/dev/null
}
next() { echo "${version%.*}.$((${version##*.} + $1))"; }

variant new "$(next 1)"
bundle new "$(next 1)" test
# joineryd does not run at all: not the daemon, nor what decides about the new system.
variant dead "$(next 2)"
printf '#!/bin/sh\nexit 1\n' >"$edited/dead"
replace dead /usr/bin/joineryd "$edited/dead" 755
bundle dead "$(next 2)" test
rm "$work/dead.ext4"
# The daemon ends at once, and nothing else does. What decides waits for 20 s instead of five minutes.
variant mute "$(next 3)"
printf '%s\n' 'cd /usr/bin' 'ln joineryd joineryd.real' | debugfs -w -f - "$work/mute.ext4" >"$edited/log" 2>&1
printf '%s\n' '#!/bin/sh' 'if [ "$1" = update ]; then exec /usr/bin/joineryd.real "$@"; fi' 'exit 1' >"$edited/mute"
replace mute /usr/bin/joineryd "$edited/mute" 755
unit=/usr/lib/systemd/system/joinery-mark-good.service
inside "$unit" | sed 's/update confirm$/update confirm --patience 20/' >"$edited/unit"
grep -q -- '--patience' "$edited/unit" || fail "$unit has another command"
replace mute "$unit" "$edited/unit" 644
bundle mute "$(next 3)" test
rm "$work/mute.ext4"
# Of somebody else; of an older version: what is in these is never looked at.
head -c 1M /dev/urandom >"$edited/noise"
bundle foreign "$(next 1)" other "$edited/noise"
bundle old 0.0.1 test "$edited/noise"
rm -rf "$edited"

# --- the looking
# --workspace: built with the same features as by the other tests, so that little is built anew.
cargo test --locked --workspace --test image --no-run
command=$(printf '%q ' cargo test --offline --locked --workspace --test image -- --ignored --nocapture --test-threads=1 "$@")
alone=(--net)
[ "$(id -u)" -eq 0 ] || alone+=(--map-root-user)
export JOINERY_IMAGE=$images JOINERY_IMAGE_TAP=outside
# The other end of the box's second network cable; many connections at once.
exec unshare "${alone[@]}" bash -euo pipefail -c "
  ip link set lo up
  ip tuntap add \$JOINERY_IMAGE_TAP mode tap
  ip link set \$JOINERY_IMAGE_TAP up
  ip address add 169.254.77.1/16 dev \$JOINERY_IMAGE_TAP
  ulimit -n 4096
  exec $command"
