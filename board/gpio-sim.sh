#!/bin/bash
# Runs board/examples/gpio_sim.rs in an emulated machine: board/gpio-sim.sh KERNEL MODULES, with the vmlinuz and the
# /lib/modules/VERSION of a kernel for this processor that has gpio-sim (Debian: linux-binary-7.3* and
# linux-modules-7.3* of trixie-backports, unpacked). Needs qemu-system-x86, busybox-static, cpio, kmod. A minute.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 2 ] || { echo "usage: board/gpio-sim.sh KERNEL MODULES" >&2; exit 64; }
kernel=$(realpath "$1") modules=$(realpath "$2")

cargo build --locked --quiet -p joinery-board --bin joinery-board --example gpio_sim
built=${CARGO_TARGET_DIR:-target}/debug
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$built/joinery-board" "$built/examples/gpio_sim" "$root/bin/"
strip "$root/bin/joinery-board" "$root/bin/gpio_sim"
# The libraries of both programs, at the places where they are looked for.
ldd "$built/joinery-board" "$built/examples/gpio_sim" | grep -o '/[^ :]*' | grep '\.so' | sort -u \
  | while read -r library; do cp --parents -L "$library" "$root"; done
for module in fs/configfs/configfs drivers/gpio/gpio-sim; do
  xz -dc "$modules/kernel/$module.ko.xz" >"$root/$(basename "$module").ko"
done
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /configfs.ko
/bin/busybox insmod /gpio-sim.ko
/bin/busybox mount -t configfs config /sys/kernel/config
/bin/busybox uname -sr
/bin/gpio_sim /bin/joinery-board || echo "gpio-sim: failed"
/bin/busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"
timeout 600 qemu-system-x86_64 -M q35 -m 512 -smp 1 -nographic -no-reboot -nic none \
  -kernel "$kernel" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" | tee "$work/log"
grep -q "gpio-sim: ok" "$work/log"
