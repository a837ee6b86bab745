#!/bin/bash
# Builds the image that is written to a card, and what belongs beside it:
#
#   joinery-VERSION-arm64.img.zst, .img.bmap, .cdx.json (packages and crates), SHA256SUMS; and for updates and tests the root slot
#   by itself, joinery-VERSION-rootfs.ext4.
#
# build.sh VERSION JOINERY_arm64.deb OUT     (`make image` fills this in)
#
# Debian's part is kept in the cache between builds; FRESH=1 fetches it anew, as a release does. The same commit and the
# same Debian packages give the same bytes. KEYRING names the certificate under which updates must be signed
# (docs/updates.md); without it the box takes none. MIRROR and SECURITY_MIRROR name other servers of Debian's archive.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -eq 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 64; }
version=$1 package=$(realpath "$2") out=$3
export LC_ALL=C TZ=UTC
umask 022

# --- what makes a build the same as the last
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
# In the partition table, and so in the names of the partitions: all cards have the same.
signature=4a4f494e
fat_serial=4a4f424f
uuid() { echo "4a4f494e-0000-4000-8000-00000000000$1"; } # one for each file system and its hashes
slot_size=536870912
data_size=134217728

mkdir -p "$out"
out=$(realpath "$out")
work=$out/work
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT

# --- tools
needs=(mmdebstrap:mmdebstrap genimage:genimage mkfs.vfat:dosfstools mcopy:mtools mkimage:u-boot-tools cpio:cpio
  zstd:zstd bmaptool:bmap-tools depmod:kmod mke2fs:e2fsprogs xz:xz-utils systemd-sysusers:systemd fakeroot:fakeroot)
missing=()
for need in "${needs[@]}"; do command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}"); done
if [ ${#missing[@]} -gt 0 ]; then echo "build.sh: please install ${missing[*]}" >&2; exit 1; fi
if [ "$(uname -m)" != aarch64 ] && ! [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
  # Where no service manager did it, in a container or a sandbox.
  if [ "$(id -u)" -eq 0 ] && command -v update-binfmts >/dev/null; then
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    update-binfmts --enable qemu-aarch64
  fi
  [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] \
    || { echo "build.sh: programs for arm64 do not run here: install qemu-user-static and binfmt-support" >&2; exit 1; }
fi

# Owners of files are kept, without being root too.
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else fakeroot -s "$work/owners" -i "$work/owners" "$@"; fi; }
: >"$work/owners"

# --- Debian
cache=${JOINERY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/joinery}/image
mkdir -p "$cache"
# Not the time of the commit: what is kept from an earlier one must not differ. The day of Debian 13's release.
base_time=1754697600
key=$({ echo "$base_time"; cat "$here"/{base.sh,packages.txt,dpkg.cfg,users.conf}; } | sha256sum | cut -c 1-16)
base=$cache/base-$key.tar
if [ "${FRESH:-0}" = 1 ]; then rm -f "$base"; fi
if [ ! -e "$base" ]; then
  find "$cache" -maxdepth 1 -name 'base-*.tar*' -delete
  SOURCE_DATE_EPOCH=$base_time "$here/base.sh" "$base"
fi

# --- the root file system
JOINERY_KEYRING=${KEYRING:+$(realpath "$KEYRING")}
export JOINERY_KEYRING
export JOINERY_ROOT_SH="$here/root.sh" JOINERY_DEB="$package" JOINERY_VERSION="$version" JOINERY_SIGNATURE="$signature"
# shellcheck disable=SC2016 # these variables are of the hook
mmdebstrap --quiet --variant=custom --architectures=arm64 --skip=update,setup,cleanup \
  --setup-hook="tar-in '$base' /" \
  --customize-hook='"$JOINERY_ROOT_SH" "$1" "$JOINERY_DEB" "$JOINERY_VERSION" "$JOINERY_SIGNATURE"' \
  trixie "$work/root.tar" ''
mkdir "$work/root"
as_root tar -C "$work/root" -xf "$work/root.tar" --numeric-owner
rm "$work/root.tar"
# The kernel makes them.
find "$work/root/dev" -mindepth 1 -delete
mv "$work/root/extra" "$work/extra"
find "$work/root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# mke2fs takes two times of each file from the directory that it reads; nobody can set those.
steady() { # FILESYSTEM
  local inodes
  inodes=$(dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Inode count: *//p')
  local free
  free=$(dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Free inodes: *//p')
  # Inodes are given out from the first one on.
  seq 1 $((inodes - free)) | awk -v time="@$SOURCE_DATE_EPOCH" '
    { for (i = split("ctime atime crtime", field, " "); i > 0; i--) print "sif <" $1 "> " field[i] " " time }' \
    | debugfs -w -f - "$1" >/dev/null 2>&1
}
filesystem() { # FILE SIZE UUID LABEL DIRECTORY OPTIONS...
  local file=$1 size=$2 uuid=$3 label=$4 directory=$5
  shift 5
  truncate -s "$size" "$file"
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH as_root mke2fs -q -t ext4 -b 4096 -m 0 -U "$uuid" -L "$label" \
    -E "hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard" -d "$directory" "$@" "$file"
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH steady "$file"
  E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH e2fsck -fn "$file" >/dev/null
}
rootfs=$out/joinery-$version-rootfs.ext4
rm -f "$rootfs"
# No journal: nothing writes here. U-Boot reads what is left of the features.
filesystem "$rootfs" "$slot_size" "$(uuid 1)" joinery-root "$work/root" \
  -O ^has_journal,^metadata_csum,^64bit,^orphan_file -N 24576
mkdir "$work/empty"
# Grows to what the card has, online, which needs room for descriptors from the start.
filesystem "$work/data.ext4" "$data_size" "$(uuid 2)" joinery-data "$work/empty" -O ^orphan_file -J size=16 -i 16384

# --- the boot partition
extracted() { mkdir -p "$work/x/$1"; dpkg-deb -x "$work/extra/$1"_*.deb "$work/x/$1"; echo "$work/x/$1"; }
boot=$work/boot
mkdir "$boot"
firmware=$(extracted raspi-firmware)/usr/lib/raspi-firmware
cp "$firmware"/{bootcode.bin,start.elf,start_cd.elf,start4.elf,start4cd.elf,fixup.dat,fixup_cd.dat,fixup4.dat,fixup4cd.dat} "$boot"
cp "$work"/extra/kernel/usr/lib/linux-image-*/broadcom/{bcm2837-rpi-3-*,bcm2837-rpi-zero-2-w,bcm2711-rpi-4-b}.dtb "$boot"
cp "$work"/extra/kernel-pi5/usr/lib/modules/*/dtb/broadcom/{bcm2712-rpi-5-b,bcm2712-d-rpi-5-b}.dtb "$boot"
# What the firmware calls the newer stepping of the chip.
cp "$boot/bcm2712-d-rpi-5-b.dtb" "$boot/bcm2712d0-rpi-5-b.dtb"
cp "$(extracted u-boot-rpi)/usr/lib/u-boot/rpi_arm64/u-boot.bin" "$boot"
cp "$here"/boot/{config.txt,joinery.txt} "$boot"
# What U-Boot needs to know of the kernel's command line; docs/image.md says why each is there.
arguments='quiet loglevel=4 panic=10 lockdown=integrity init_on_alloc=1 slab_nomerge page_alloc.shuffle=1 randomize_kstack_offset=on vsyscall=none'
sed "s#@ARGS@#$arguments#" "$here/boot/boot.cmd" >"$work/boot.cmd"
mkimage -A arm64 -T script -n joinery -d "$work/boot.cmd" "$boot/boot.scr" >/dev/null
printf 'BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3\n' | mkenvimage -s 0x200 -p 0 -o "$boot/joinery.env" -
find "$boot" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
truncate -s 64M "$work/boot.vfat"
mkfs.vfat --invariant -F 32 -i "$fat_serial" -n JOINERY "$work/boot.vfat" >/dev/null
# One by one, in a fixed order.
for file in $(cd "$boot" && ls); do mcopy -m -i "$work/boot.vfat" "$boot/$file" ::; done

# --- the whole
mkdir "$work/input" "$work/tmp" "$work/none"
ln "$work/boot.vfat" "$work/data.ext4" "$work/input"
ln "$rootfs" "$work/input/rootfs.ext4" 2>/dev/null || cp --sparse=always "$rootfs" "$work/input/rootfs.ext4"
sed "s/@SIGNATURE@/0x$signature/; s/@SLOT_SIZE@/$slot_size/" "$here/genimage.cfg" >"$work/genimage.cfg"
genimage --loglevel 1 --config "$work/genimage.cfg" --rootpath "$work/none" --tmppath "$work/tmp" \
  --inputpath "$work/input" --outputpath "$work"
image=$out/joinery-$version-arm64.img
mv "$work/joinery.img" "$image"
bmaptool create -o "$image.bmap" "$image"
zstd -q -f "-${ZSTD_LEVEL:-19}" -T0 "$image" -o "$image.zst"
cp "$work/extra/manifest.cdx.json" "$out/joinery-$version-arm64.cdx.json"
# For machines without the firmware of a Raspberry Pi: tests boot the same image through it.
cp "$(extracted u-boot-qemu)/usr/lib/u-boot/qemu_arm64/u-boot.bin" "$out/u-boot-qemu.bin"
(cd "$out" && sha256sum "joinery-$version-arm64.img.zst" "joinery-$version-arm64.img.bmap" "joinery-$version-arm64.cdx.json" >SHA256SUMS)

echo "root: $(du -sm --apparent-size "$work/root" | cut -f 1) MB; image: $(($(stat -c %s "$image.zst") / 1000000)) MB to download"
cat "$out/SHA256SUMS"
