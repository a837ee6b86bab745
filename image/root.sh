#!/bin/bash
# Makes Debian's root file system (base.sh) that of the box, in place: our files, our package, the kernel with the
# modules and the firmware that the boards need, the initrd, units on and off, and out with what no box needs. Runs as
# root, or what mmdebstrap lets look like it.
#
# root.sh ROOT JOINERY.deb VERSION SIGNATURE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$1 package=$2 version=$3 signature=$4
: "${SOURCE_DATE_EPOCH:?}"
export LC_ALL=C TZ=UTC
umask 022

work=$root/extra
extract() { # PACKAGE: where its files are
  mkdir -p "$work/$1"
  dpkg-deb -x "$work/$1"_*.deb "$work/$1"
  echo "$work/$1"
}
listed() { sed 's/#.*//' "$1"; }

# --- our package, then our files: what the image has of its own wins
cp "$package" "$work/joinery.deb"
chroot "$root" dpkg --force-confnew --install /extra/joinery.deb
tar -C "$here/rootfs" --owner=root:0 --group=root:0 --mode=u+w,go-w -c . | tar -C "$root" -x --no-same-permissions
# Without a keyring the box takes no updates; never that of the test keys unless somebody says so.
if [ -n "${JOINERY_KEYRING:-}" ]; then install -m 0644 "$JOINERY_KEYRING" "$root/etc/rauc/keyring.pem"; fi
grep -rl @SIGNATURE@ "$here/rootfs" | while read -r file; do
  sed -i "s/@SIGNATURE@/$signature/g" "$root/${file#"$here/rootfs/"}"
done
mkdir -p "$root/etc/joinery"
ln -sf /run/joinery-box/joineryd.toml "$root/etc/joinery/joineryd.toml"

# --- kernels, each with its modules and its initrd: Debian 13's, and beside it that of Debian 13's backports for the Pi 5
# Copies modules with what they depend on, uncompressed: root slot and initrd are compressed as a whole where it counts, and a
# start is quicker. What is built in needs no copy; an unknown name is an error.
copy_modules() { # FROM RELEASE TO, names on standard input
  local from=$1/usr release=$2 to=$3/usr/lib/modules/$2 name path
  mkdir -p "$to"
  cp "$from/lib/modules/$release/"modules.{order,builtin,builtin.modinfo} "$to"
  for name in $(cat); do
    modprobe -d "$from" -S "$release" --show-depends "$name" || { echo "root.sh: no module $name" >&2; return 1; }
  done | sed -n "s#^insmod .*/$release/\(kernel/[^ ]*\).*#\1#p" | sort -u | while read -r path; do
    install -D -m 0644 "$from/lib/modules/$release/$path" "$to/$path"
  done
  find "$to" -name '*.ko.xz' -exec xz -d {} +
  depmod -b "$3" "$release"
}
busybox=$(extract busybox-static)/usr/bin/busybox
# Busybox, a handful of modules, one script.
make_initrd() { # KERNEL RELEASE MODULES TO
  local initrd=$work/initrd name
  rm -rf "$initrd"
  mkdir -p "$initrd"/{bin,dev,proc,sys,root,usr/lib}
  ln -s usr/lib "$initrd/lib"
  cp "$busybox" "$initrd/bin/busybox"
  for name in sh mount modprobe cat sed grep sleep switch_root readlink dd od tr; do ln -s busybox "$initrd/bin/$name"; done
  listed "$3" | sed '/^[[:space:]]*$/d' >"$initrd/modules.load"
  copy_modules "$1" "$2" "$initrd" <"$initrd/modules.load"
  sed "s/@SIGNATURE@/$signature/g" "$here/initrd/init" >"$initrd/init"
  chmod 0755 "$initrd/init"
  find "$initrd" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  (cd "$initrd" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0) | zstd -q -19 -T1 >"$4"
}
# Takes what a kernel's packages hold, the file of the kernel among it; BOARDS is in the names of its lists, SUFFIX in those
# of what the boot loader's script takes.
install_kernel() { # DIRECTORY FILE BOARDS SUFFIX
  local release
  release=$(basename "$1"/usr/lib/modules/*)
  cp "$2" "$root/boot/Image$4"
  depmod -b "$1/usr" "$release"
  { listed "$here/modules.txt"; listed "$here/modules-$3.txt"; } | copy_modules "$1" "$release" "$root"
  make_initrd "$1" "$release" "$here/initrd/modules-$3.txt" "$root/boot/initrd$4"
}
unpack() { # DIRECTORY PACKAGES...
  local package
  for package in "${@:2}"; do dpkg-deb -x "$package" "$1"; done
}
mkdir "$work"/kernel{,-pi5}
unpack "$work/kernel" "$work"/linux-image-*.deb
unpack "$work/kernel-pi5" "$work"/linux-{base,binary,modules}-*.deb
install_kernel "$work/kernel" "$work"/kernel/boot/vmlinuz-* pi3-4 ''
install_kernel "$work/kernel-pi5" "$work"/kernel-pi5/usr/lib/modules/*/vmlinuz pi5 -pi5

# --- firmware of the boards' Wi-Fi; /usr/lib/firmware/brcm of Raspberry Pi's own package has what Debian's lacks
brcm=$(extract firmware-brcm80211)/usr/lib/firmware pi=$(extract raspi-firmware)/usr/lib/firmware
mkdir -p "$root/usr/lib/firmware"/{brcm,cypress}
cp -a "$brcm"/cypress/cyfmac43430-sdio.* "$brcm"/cypress/cyfmac43455-sdio.* "$root/usr/lib/firmware/cypress"
for name in brcmfmac43430-sdio brcmfmac43455-sdio brcmfmac43456-sdio; do
  for directory in "$pi" "$brcm"; do
    for file in "$directory/brcm/$name".{bin,clm_blob,txt} "$directory/brcm/$name.raspberrypi,"*; do
      if [ -e "$file" ] || [ -L "$file" ]; then cp -an "$file" "$root/usr/lib/firmware/brcm"; fi
    done
  done
done

# --- units
on=(systemd-networkd.service systemd-resolved.service systemd-timesyncd.service nftables.service avahi-daemon.service
  tor.service joinery-settings.service joinery-ssh.service joinery-tor-only.service joinery-key.service
  joinery-poweroff.path joinery-close-modules.timer)
# And what our package brings that wants to be on.
while read -r unit; do
  if grep -q '^\[Install\]' "$root/$unit"; then on+=("$(basename "$unit")"); fi
done < <(sed -n '\#^/usr/lib/systemd/system/[^/]*$#p' "$root/var/lib/dpkg/info/joinery.list")
systemctl --root="$root" --quiet enable "${on[@]}"
# Nobody logs in at a console, nothing on the box installs packages or writes a boot menu, nothing waits for a network, and
# what looks into the kernel stays shut.
off=(getty@.service serial-getty@.service console-getty.service container-getty@.service autovt@.service getty.target
  systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer
  e2scrub_all.timer e2scrub_reap.service wpa_supplicant.service systemd-firstboot.service
  systemd-hwdb-update.service systemd-update-done.service ldconfig.service systemd-journal-catalog-update.service
  systemd-pcrphase.service systemd-boot-update.service systemd-growfs-root.service systemd-machine-id-commit.service
  systemd-pstore.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
  modprobe@configfs.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
  sys-fs-fuse-connections.mount dev-hugepages.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service
  systemd-remount-fs.service systemd-network-generator.service)
for unit in "${off[@]}"; do
  find "$root/etc/systemd/system" -name "$unit" -delete
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# --- what the start finds
mkdir -p "$root"/{data,boot/firmware,var/lib/joinery}
: >"$root/etc/machine-id"
echo joinery >"$root/etc/hostname"
printf 'IMAGE_ID=joinery\nIMAGE_VERSION=%s\n' "$version" >>"$root/usr/lib/os-release"
# A box without a clock begins here.
touch -d "@$SOURCE_DATE_EPOCH" "$root/usr/lib/clock-epoch"
# No password for anyone, not an empty one either.
sed -i 's/^\([^:]*\):[^:]*:[0-9]*:/\1:!*:19000:/' "$root/etc/shadow"

# --- the package manifest, while dpkg still knows
"$here/manifest.sh" "$root" "$version" >"$work/manifest.cdx.json"

# --- out with what no box needs
chroot "$root" dpkg --purge --force-remove-essential --force-depends --force-remove-protected \
  apt sqv gpgv debian-archive-keyring 2>/dev/null || true
rm -rf "$root"/var/lib/apt "$root"/var/cache/* "$root"/var/log/* "$root"/etc/apt "$root"/var/lib/dpkg/*-old \
  "$root"/etc/*- "$root"/usr/share/doc/*/changelog* "$root"/usr/lib/udev/hwdb.bin "$root"/etc/udev/hwdb.bin \
  "$root"/usr/share/perl5 "$root"/var/lib/systemd/{catalog,deb-systemd-helper-enabled,deb-systemd-helper-masked} \
  "$root"/usr/lib/systemd/catalog "$root"/tmp/* "$root"/run/* "$root"/etc/.pwd.lock "$root"/etc/init.d "$root"/etc/rc*.d
