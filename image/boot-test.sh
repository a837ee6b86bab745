#!/bin/bash
# Boots the programs that `make cross` built in an emulated machine, presses the button and cuts the power.
# `make boot-test` runs it; docs/cross.md says what is looked at.
#
# This script puts together a kernel (that of Debian for the box, unpacked, not installed), and a first file system with
# busybox, e2fsck and the two programs; daemon/joineryd/tests/boot_test.rs does the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "boot-test: $*" >&2; exit 1; }

readonly TRIPLE=aarch64-unknown-linux-gnu
target=${CARGO_TARGET_DIR:-target}
built=$target/cross/$TRIPLE/release
work=$target/boot-test
mkdir -p "$work/packages"

# Downloads and unpacks the newest version that apt knows of a package, once; says where that is.
fetch() {
  local package=$1 candidate file unpacked
  candidate=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
  [ -n "$candidate" ] && [ "$candidate" != "(none)" ] || return 1
  # As the file is called: a colon is written as %3a.
  file=${package%:*}_${candidate//:/%3a}_arm64.deb
  unpacked=$work/unpacked/$file
  if [ ! -d "$unpacked" ]; then
    (cd "$work/packages" && apt-get -q -o APT::Sandbox::User=root download "$package=$candidate") >&2 || return 1
    rm -rf "$unpacked.new"
    mkdir -p "$unpacked.new"
    dpkg-deb -x "$work/packages/$file" "$unpacked.new" || return 1
    mv "$unpacked.new" "$unpacked"
    rm "$work/packages/$file"
  fi
  echo "$unpacked"
}

# Sets `version`, `kernel`, `busybox` and `e2fsck`: those of this system's Debian, for the box.
fetch_all() {
  local meta
  meta=$(apt-cache --no-all-versions show linux-image-arm64:arm64 2>/dev/null) || return 1
  version=$(sed -n 's/^Depends: linux-image-\([^ ,]*\).*/\1/p' <<<"$meta")
  [ -n "$version" ] || return 1
  kernel=$(fetch "linux-image-$version:arm64") || return 1
  busybox=$(fetch busybox-static:arm64) || return 1
  e2fsck=$(fetch e2fsck-static:arm64) || return 1
}

if ! fetch_all; then
  # A list of packages that is old names versions that are gone.
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q
  fetch_all || fail "cannot download a kernel, busybox and e2fsck for arm64"
fi

root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,etc,lib,modules,usr/bin,usr/lib/joinery}
cp image/boot-test/init "$root/init"
cp "$(find "$busybox" -path '*/bin/busybox')" "$root/bin/busybox"
cp "$(find "$e2fsck" -name e2fsck.static)" "$root/bin/e2fsck"
cp image/rootfs/usr/lib/joinery/repair-data "$root/usr/lib/joinery/"
cp "$built/joineryd" "$built/joinery-board" "$root/usr/bin/"
printf '%s\n' 'root:x:0:0::/:/bin/false' 'joinery:x:990:990::/:/bin/false' 'joinery-board:x:991:991::/:/bin/false' \
  >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'joinery:x:990:' 'joinery-board:x:991:' >"$root/etc/group"

# The libraries that both programs ask for; libc6:arm64 and libgcc-s1:arm64 came with the compiler's packages.
aarch64-linux-gnu-readelf --dynamic --wide "$built/joineryd" "$built/joinery-board" \
  | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u | while read -r library; do
  found=$(find -L /lib/aarch64-linux-gnu /usr/lib/aarch64-linux-gnu -name "$library" -print -quit)
  [ -n "$found" ] || fail "there is no $library for arm64"
  cp -L "$found" "$root/lib/"
done

# Modules in the order in which they are to be loaded, uncompressed. What is not there as a file is in the kernel.
modules=$(find "$kernel" -type d -path "*/lib/modules/$version/kernel")
[ -n "$modules" ] || fail "the kernel has no modules"
order=()
load() {
  local name=${1//-/_} file before
  [[ " ${order[*]} " != *" $name "* ]] || return 0
  file=$(find "$modules" -name "${name//_/[-_]}.ko*" -print -quit)
  if [ -z "$file" ]; then
    grep -q "/${name//_/[-_]}\.ko" "${modules%/kernel}/modules.builtin" || fail "the kernel has no module $name"
    return 0
  fi
  for before in $(modinfo -F depends "$file" | tr , ' '); do load "$before"; done
  order+=("$name")
  case $file in
    *.xz) xz -dc "$file" ;;
    *) cat "$file" ;;
  esac >"$root/modules/$(printf '%02d' "${#order[@]}")-$name.ko"
}
for module in virtio_mmio virtio_blk virtio_net virtio_console virtio_rng crc32c_generic ext4; do load "$module"; done

# Small, so that it is unpacked quickly.
(cd "$root" && find . -print0 | sort -z | cpio --null --quiet --create --format=newc --owner=0:0) | gzip -1 >"$work/initrd"
cp "$(find "$kernel" -name "vmlinuz-$version")" "$work/kernel"
# All of it is written now: a machine that would do it after its first start would be another one after each power cut.
rm -f "$work/data"
mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "$work/data" 96M
echo "boot-test: Linux $version, first file system $(stat -c %s "$work/initrd") bytes, modules ${order[*]}"

# --workspace: built with the same features as by the other tests, so that little is built anew.
JOINERY_BOOT_TEST=$(realpath "$work") exec cargo test --locked --workspace --test boot_test -- \
  --ignored --nocapture --test-threads=1
