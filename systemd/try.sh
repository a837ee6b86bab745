#!/bin/bash
# Starts daemon and board as their units say, under a real systemd that is process 1 of namespaces of its own: users,
# sandboxes, the socket between them and the key for going on after a power cut, with another machine's key, with rubbish
# and without one. Changes nothing outside of the namespaces and a temporary directory. Only root can do it.
#
# try.sh JOINERYD JOINERY-BOARD      the two programs
#
# What it cannot show: the board has no devices here, so its command line is that of `--backend png`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "${1:-}" != --inside ]; then
  [ "$(id -u)" -eq 0 ] || { echo "try.sh: only root can make namespaces with a systemd in them" >&2; exit 1; }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{root,disk,out}
  cp "$1" "$work/joineryd"
  cp "$2" "$work/joinery-board"
  timeout 180 unshare --mount --pid --fork --cgroup --ipc --uts --net bash "$0" --inside "$work" >"$work/out/console" 2>&1 || true
  cat "$work/out/result" 2>/dev/null || { tail -n 20 "$work/out/console" "$work"/out/*.log; exit 1; }
  grep -qx "everything is as it should be" "$work/out/result" || { tail -n 40 "$work"/out/*.log; exit 1; }
  exit 0
fi

# --- a root file system in memory: the machine's /usr below a layer of our own, everything else new
work=$2 root=$2/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$root"
mkdir -p "$root"/{usr,etc/systemd/system,etc/joinery,var/lib/systemd,var/log,run,tmp,proc,sys,dev,layer,out,old}
mkdir "$root"/layer/{upper,work}
mount -t overlay overlay -o "lowerdir=/usr,upperdir=$root/layer/upper,workdir=$root/layer/work" "$root/usr"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root"/dev/{shm,pts,mqueue,hugepages}
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/run"
mount --bind "$work/out" "$root/out"
# systemd-creds makes no key on a file system in memory.
mount --bind "$work/disk" "$root/var/lib/systemd"

cp "$work/joineryd" "$work/joinery-board" "$root/usr/bin"
mkdir -p "$root/usr/lib/joinery"
cp "$here/resume-key" "$root/usr/lib/joinery"
cp "$here"/*.service "$here"/*.target "$root/etc/systemd/system"
cp "$here/joinery.sysusers" "$root/usr/lib/sysusers.d/joinery.conf"
cp "$here/joinery.tmpfiles" "$root/usr/lib/tmpfiles.d/joinery.conf"
cp /etc/passwd /etc/group "$root/etc"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
systemd-sysusers --root="$root" "$root/usr/lib/sysusers.d/joinery.conf"
cat >"$root/etc/joinery/joineryd.toml" <<'TOML'
network = "regtest"
[http]
listen = "127.0.0.1:0"
wss_listen = "127.0.0.1:0"
[order_book]
watch = "off"
[board]
user = "joinery-board"
resume = true
TOML
for unit in joineryd joinery-board joinery-resume-key; do
  mkdir "$root/etc/systemd/system/$unit.service.d"
  printf '[Service]\nStandardOutput=append:/out/%s.log\nStandardError=append:/out/%s.log\n' "$unit" "$unit" \
    >"$root/etc/systemd/system/$unit.service.d/log.conf"
done
cat >"$root/etc/systemd/system/joinery-board.service.d/png.conf" <<'UNIT'
[Unit]
ConditionPathExistsGlob=
[Service]
ExecStart=
ExecStart=/usr/bin/joinery-board --socket /run/joinery/board.sock --backend png /tmp/pictures
UNIT
cat >"$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=joinery.target joineryd.service joinery-board.service
After=joineryd.service joinery-board.service
[Service]
Type=oneshot
ExecStart=/bin/bash /check.sh
ExecStopPost=/usr/bin/systemctl exit
StandardOutput=file:/out/result
StandardError=append:/out/check.log
UNIT
printf '[Unit]\nWants=try.service\nAllowIsolate=yes\n' >"$root/etc/systemd/system/default.target"

# --- what is looked at
cat >"$root/check.sh" <<'CHECK'
set -euo pipefail
fail() { echo "try.sh: $*"; exit 1; }
active() { for unit in "$@"; do systemctl is-active --quiet "$unit" || fail "$unit is $(systemctl is-active "$unit")"; done; }
key=/run/credentials/joineryd.service/joinery.resume
sealed=/var/lib/joinery-resume/joinery.resume
has_key() { [ "$(stat -c '%a %U %s' "$key")" = "400 joinery 32" ] || fail "the daemon's key is $(stat -c '%a %U %s' "$key")"; sha256sum <"$key"; }
runs_as() { [ "$(ps -o user:20= -C "$1")" = "$2" ] || fail "$1 runs as $(ps -o user:20= -C "$1")"; }

active joineryd joinery-board
runs_as joineryd joinery
runs_as joinery-board joinery-board
[ "$(stat -c '%a %U %G' /run/joinery/board.sock)" = "660 joinery joinery-board" ] || fail "the socket is not the board's"
for _ in $(seq 300); do grep -q "a board is connected" /out/joineryd.log && break; sleep 0.1; done
grep -q "a board is connected" /out/joineryd.log || fail "the board is not let in"

first=$(has_key)
systemctl restart joineryd
[ "$(has_key)" = "$first" ] || fail "the key changed at a restart"
# The card in another machine.
rm /var/lib/systemd/credential.secret
systemctl restart joineryd
active joineryd
second=$(has_key)
[ "$second" != "$first" ] || fail "a key that cannot be opened is still there"
echo rubbish >"$sealed"
systemctl restart joineryd
active joineryd
[ "$(has_key)" != "$second" ] || fail "rubbish was a key"
# Nobody makes one.
rm /etc/systemd/system/joinery-resume-key.service "$sealed"
systemctl daemon-reload
systemctl restart joineryd
active joineryd
[ "$(cat "$key")" = - ] || fail "there is a key although nobody made one"
if grep -q panicked /out/*.log; then fail "something panicked"; fi
echo "everything is as it should be"
CHECK

cd "$root"
pivot_root . old
umount -l /old
# As on a booted machine: credentials reach the daemon by that.
mount --make-rshared /
exec env -i container=try PATH=/usr/sbin:/usr/bin /usr/lib/systemd/systemd --system --unit=default.target
