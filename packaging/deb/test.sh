#!/bin/bash
# Installs the amd64 package in a clean Debian, as a person would, and looks whether it does what it should: the daemon
# runs from its unit's command line as the unit's user and answers by HTTPS; a wallet survives upgrade, removal and
# purge; nothing else does.
#
#   test.sh PROGRAMS LICENCES [SUITE...]
#
# PROGRAMS has joineryd and joinery-board, of any profile. LICENCES is what `licences` printed. Each SUITE is a Debian;
# bookworm and trixie unless given. Needs root (a chroot, other users, a network of its own), mmdebstrap and Debian's archive.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "${1:-}" != inside ]; then
  programs=$(realpath "$1") licences=$(realpath "$2")
  suites=("${@:3}")
  [ $# -gt 2 ] || suites=(bookworm trixie)
  # mmdebstrap lets its own user of the archive in only where everybody may go.
  work=$(mktemp -d -p /tmp joinery-deb.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  chmod 0755 "$work"
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  mkdir "$work/programs"
  for program in joineryd joinery-board; do
    strip -o "$work/programs/$program" "$programs/$program"
  done
  build() {
    "$here/build.sh" --arch amd64 --programs "$work/programs" --licences "$licences" --version "$1" --out "$work/$2"
  }
  build 0.1.0-1 old.deb
  build 0.1.0-1 again.deb
  cmp "$work/old.deb" "$work/again.deb" || { echo "deb: two builds from one tree differ" >&2; exit 1; }
  build 99.0.0-1 new.deb
  lintian --fail-on error,warning "$work/old.deb"
  for suite in "${suites[@]}"; do
    start=$SECONDS
    "${as_root[@]}" mmdebstrap --quiet --variant=minbase --mode=root --include=systemd,ca-certificates,curl \
      --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' \
      "$suite" "$work/root" </dev/null
    echo "deb: a clean $suite in $((SECONDS - start)) s"
    # Everything below: mounts, processes and network of its own, all gone when it ends.
    "${as_root[@]}" unshare --mount --pid --net --fork --kill-child "$0" inside "$work"
    # As root: what is in there belongs to root.
    "${as_root[@]}" rm -rf --one-file-system "$work/root"
    echo "deb: $suite took $((SECONDS - start)) s"
  done
  exit
fi

work=$2 root=$2/root
fail() { echo "deb: $*" >&2; [ ! -e "$work/daemon.log" ] || tail -20 "$work/daemon.log" >&2; exit 1; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
quietly() { "$@" >"$work/log" 2>&1 || fail "$*: $(cat "$work/log")"; }

mount --make-rprivate /
mount -t proc proc /proc
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
ip link set lo up
cp "$work/old.deb" "$work/new.deb" "$root/root"

installed() { inside dpkg-query --show --showformat='${Version}' joinery; }
owner() { stat -c '%a %U:%G' --dereference "$root$1"; }

# The daemon as systemd would start it: its command line, its user, its groups, the file mode it is given.
unit=$root/usr/lib/systemd/system/joineryd.service
daemon=''
start() {
  local command user
  command=$(sed -n 's/^ExecStart=//p' "$unit")
  user=$(sed -n 's/^User=//p' "$unit")
  # One process from here to the daemon, so that its id is known. No quoting is needed: the unit has none.
  # shellcheck disable=SC2086
  (exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs --bounding-set=-all $command) >>"$work/daemon.log" 2>&1 &
  daemon=$!
  for _ in $(seq 300); do
    kill -0 "$daemon" 2>/dev/null || fail "the daemon has ended"
    if answer=$(call /api/v1/getinfo 2>/dev/null); then return; fi
    sleep 0.2
  done
  fail "the daemon does not answer"
}
stop() {
  kill -TERM "$daemon"
  wait "$daemon" || fail "the daemon ended with $?"
  daemon=''
}
# A call that trusts the daemon's own certificate and nothing else.
call() {
  local path=$1
  shift
  inside curl --silent --show-error --fail-with-body --max-time 60 --cacert /var/lib/joinery/ssl/cert.pem "$@" "https://localhost:28183$path"
}
value() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

# Installed, by dpkg alone: what it depends on is there.
quietly inside dpkg --install /root/old.deb
[ "$(installed)" = 0.1.0-1 ] || fail "version $(installed) is installed"
# Names are looked up in there.
id_of() { awk -F: -v name="$1" '$1 == name { print $3 }' "$root/etc/$2"; }
[ "$(stat -c '%a %u' "$root/var/lib/joinery")" = "700 $(id_of joinery passwd)" ] || fail "/var/lib/joinery: $(owner /var/lib/joinery)"
[ "$(stat -c '%a %u' "$root/run/joinery")" = "2750 $(id_of joinery passwd)" ] || fail "/run/joinery: $(owner /run/joinery)"
inside test -L /etc/systemd/system/multi-user.target.wants/joinery.target || fail "joinery.target is not enabled"
quietly inside systemd-analyze verify --man=no /usr/lib/systemd/system/joinery.target
inside /usr/bin/joinery-board --help >/dev/null || fail "joinery-board does not run"
quietly inside joineryd --config /etc/joinery/joineryd.toml check-config

start
echo "deb: runs as user $(id_of joinery passwd) in a clean root: $answer"
[ "$(awk '/^Uid:/ { print $2, $3, $4 }' "/proc/$daemon/status" | xargs -n 1 | sort -u)" = "$(id_of joinery passwd)" ] \
  || fail "the daemon runs as somebody else"
made=$(call /api/v1/wallet/create --data '{"walletname":"box.jmdat","password":"correct horse","wallettype":"sw-fb"}')
address=$(call /api/v1/wallet/box.jmdat/address/new/0 --header "x-jm-authorization: Bearer $(echo "$made" | value token)" | value address)
[ -n "$address" ] || fail "no wallet was made: $made"
stop

# An upgrade keeps what a person has written into the configuration, and the wallet.
echo '# mine' >>"$root/etc/joinery/joineryd.toml"
quietly inside dpkg --install /root/new.deb
[ "$(installed)" = 99.0.0-1 ] || fail "the upgrade did not install"
grep -qx '# mine' "$root/etc/joinery/joineryd.toml" || fail "the upgrade replaced the configuration"
start
opened=$(call /api/v1/wallet/box.jmdat/unlock --data '{"password":"correct horse"}')
next=$(call /api/v1/wallet/box.jmdat/address/new/0 --header "x-jm-authorization: Bearer $(echo "$opened" | value token)" | value address)
# A wallet that had been lost and made anew would give the first address again.
[[ "$next" == bc1* && "$next" != "$address" ]] || fail "after the upgrade the wallet has forgotten that it gave out $address"
stop

# Neither removal nor purge touches wallets.
quietly inside dpkg --remove joinery
[ ! -e "$root/usr/bin/joineryd" ] || fail "removal leaves the program"
[ -e "$root/etc/joinery/joineryd.toml" ] && [ -s "$root/var/lib/joinery/wallets/box.jmdat" ] || fail "removal took too much"
quietly inside dpkg --purge joinery
grep -q "wallets is not empty" "$work/log" || fail "purge does not say that it kept wallets: $(cat "$work/log")"
[ -s "$root/var/lib/joinery/wallets/box.jmdat" ] || fail "purge took the wallet"
[ ! -e "$root/etc/joinery" ] || fail "purge leaves the configuration"

# Installed again the wallet is there; without wallets a purge leaves nothing.
quietly inside dpkg --install /root/new.deb
start
call /api/v1/wallet/box.jmdat/unlock --data '{"password":"correct horse"}' >/dev/null || fail "the kept wallet does not open"
stop
rm -r "$root/var/lib/joinery/wallets"
quietly inside dpkg --purge joinery
[ ! -e "$root/var/lib/joinery" ] || fail "purge leaves the data of no wallet"
left=$(find "$root/etc" "$root/usr" "$root/var/lib/systemd" -iname '*joinery*' -not -path "$root/var/lib/dpkg/*")
[ -z "$left" ] || fail "purge leaves $left"
echo "deb: installed, run, upgraded, removed and purged; the wallet survived what it should"
