#!/bin/bash
# Debian's part of the image: packages.txt installed into an empty root, as one tar file. The packages of the kernel, of
# the firmware, of the boot loader and of busybox are not installed, only put beside it under /extra: build.sh takes
# what it needs out of them, so no initramfs is built on an emulated processor. There are two kernels: that of Debian 13,
# and the newest of its backports for the Pi 5, whose I/O chip the other does not know (docs/decisions/0013-two-kernels.md).
#
# base.sh OUTPUT.tar
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
output=$1
: "${SOURCE_DATE_EPOCH:?seconds since 1970 that all files of the image get at most}"
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${SECURITY_MIRROR:-http://deb.debian.org/debian-security}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

list() { sed 's/#.*//; /^[[:space:]]*$/d' "$1" | tr '\n' ',' ; }

dpkg_options=()
while read -r line; do dpkg_options+=(--dpkgopt="$line"); done < <(grep '^path-' "$here/dpkg.cfg")

# apt of this machine, with the configuration of the image: the emulated one would take minutes. The backports are not known
# to it before all else is there.
# shellcheck disable=SC2016 # these variables are of the hook
download='mkdir -p "$1/extra" && cd "$1/extra" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" &&
  kernel=$(apt-cache depends --no-recommends linux-image-arm64 | sed -n "s/^ *Depends: \(linux-image-[0-9].*\)/\1/p") &&
  apt-get -o APT::Sandbox::User=root -q download "$kernel" firmware-brcm80211 raspi-firmware u-boot-rpi u-boot-qemu busybox-static &&
  echo "deb [signed-by=$keyring] $mirror trixie-backports main" >"$1/etc/apt/sources.list.d/backports.list" && apt-get -q update &&
  newest=$(apt-cache madison linux-image-arm64 | sed -n "s/^[^|]*| *\([^ ]*\) *|.* trixie-backports.*/\1/p" | sort -V | tail -n 1) &&
  newer=$(apt-cache show "linux-image-arm64=$newest" | sed -n "s/^Depends:.* linux-image-\([0-9][^ ]*\).*/\1/p") &&
  apt-get -o APT::Sandbox::User=root -q download "linux-base-$newer" "linux-binary-$newer" "linux-modules-$newer"'

# What the hooks need is not visible to them by itself.
export here keyring mirror
mmdebstrap --variant=minbase --architectures=arm64 --include="$(list "$here/packages.txt")" \
  --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt=force-unsafe-io "${dpkg_options[@]}" \
  --essential-hook='systemd-sysusers --root="$1" "$here/users.conf"' \
  --customize-hook="$download" \
  trixie "$output.new.tar" \
  "deb [signed-by=$keyring] $mirror trixie main non-free-firmware" \
  "deb [signed-by=$keyring] $security trixie-security main non-free-firmware"
mv "$output.new.tar" "$output"
