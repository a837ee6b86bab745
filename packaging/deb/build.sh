#!/bin/bash
# Makes the Debian package out of programs that are built already. Needs nothing but dpkg-deb and binutils, and no root.
# From the same programs and the same commit it makes the same bytes.
#
#   build.sh --arch amd64|arm64 --programs DIR --licences FILE --out FILE.deb [--version VERSION]
#
# DIR has joineryd and joinery-board. FILE is what `licences` printed for that target. VERSION is a Debian version.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# The oldest system that we promise to run on is Debian 12, and Raspberry Pi OS of that time.
NEWEST_GLIBC=2.36

fail() { echo "deb: $*" >&2; exit 1; }

version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")-1
arch='' programs='' licences='' out=''
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 needs a value"
  case "$1" in
    --arch) arch=$2 ;;
    --programs) programs=$2 ;;
    --licences) licences=$2 ;;
    --out) out=$2 ;;
    --version) version=$2 ;;
    *) fail "unknown argument $1" ;;
  esac
  shift 2
done
case "$arch" in
  amd64) machine=X86-64 ;;
  arm64) machine=AArch64 ;;
  *) fail "--arch is amd64 or arm64" ;;
esac
[ -n "$programs" ] && [ -n "$out" ] && [ -s "$licences" ] || fail "give --programs, --licences and --out"
dpkg --validate-version "$version" || fail "$version is no Debian version"

# The time of everything in the package: that of the commit.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
  SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) || fail "set SOURCE_DATE_EPOCH: this is no git repository"
fi
export SOURCE_DATE_EPOCH
export LC_ALL=C.UTF-8 TZ=UTC

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
tree=$stage/tree
umask 022
install -d -m 0755 "$tree/DEBIAN"
put() { install -D -m "$1" "$2" "$tree/$3"; }
packed() { gzip -9n <"$1" >"$stage/packed" && put 0644 "$stage/packed" "$2.gz"; }

# Programs: for this machine, and for no newer C library than promised.
glibc=0
for program in joineryd joinery-board; do
  file=$programs/$program
  [ -f "$file" ] || fail "$file is missing"
  LC_ALL=C readelf -h "$file" | grep -q "Machine:.*$machine" || fail "$file is not for $arch"
  needed=$(LC_ALL=C readelf -V "$file" | grep -o 'GLIBC_2\.[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -1)
  [ "$(printf '%s\n' "$needed" "$NEWEST_GLIBC" | sort -V | tail -1)" = "$NEWEST_GLIBC" ] \
    || fail "$file needs glibc $needed; Debian 12 has $NEWEST_GLIBC. Build it on Debian 12, or with an older C library"
  glibc=$(printf '%s\n' "$needed" "$glibc" | sort -V | tail -1)
  put 0755 "$file" "usr/bin/$program"
done

units=usr/lib/systemd/system
for unit in "$root"/systemd/*.service "$root"/systemd/*.path "$root"/systemd/*.target; do
  [ -e "$unit" ] && put 0644 "$unit" "$units/$(basename "$unit")"
done
put 0755 "$root/systemd/resume-key" usr/lib/joinery/resume-key
put 0644 "$root/systemd/joinery.sysusers" usr/lib/sysusers.d/joinery.conf
put 0644 "$root/systemd/joinery.tmpfiles" usr/lib/tmpfiles.d/joinery.conf
put 0644 "$root/systemd/60-joinery-board.rules" usr/lib/udev/rules.d/60-joinery-board.rules
put 0644 "$root/systemd/joinery.dbus.conf" usr/share/dbus-1/system.d/joinery.conf
put 0644 "$here/joineryd.toml" etc/joinery/joineryd.toml
put 0644 "$here/lintian-overrides" usr/share/lintian/overrides/joinery

doc=usr/share/doc/joinery
for file in README.md docs/ARCHITECTURE.md docs/operator.md docs/hardware.md docs/interop.md docs/updates.md docs/joineryd.toml; do
  if [ -f "$root/$file" ]; then packed "$root/$file" "$doc/$(basename "$file")"; fi
done
packed "$root/CHANGELOG.md" "$doc/changelog"
packed "$licences" "$doc/crates-licences.txt"
cat >"$stage/changelog" <<END
joinery ($version) stable; urgency=medium

  * See changelog.gz.

 -- Joinery developers <packages@joinery.example>  $(date -R -d "@$SOURCE_DATE_EPOCH")
END
packed "$stage/changelog" "$doc/changelog.Debian"
mit=$(sed -n '5,$ { s/^$/./; s/^/ /; p }' "$root/LICENSE-MIT")
awk -v mit="$mit" '$0 == "@MIT@" { print mit; next } { print }' "$here/copyright" >"$stage/copyright"
put 0644 "$stage/copyright" "$doc/copyright"

# What dpkg reads.
for script in postinst prerm postrm; do install -m 0755 "$here/$script" "$tree/DEBIAN/$script"; done
echo /etc/joinery/joineryd.toml >"$tree/DEBIAN/conffiles"
size=$(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%s\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" -e "s/@GLIBC@/$glibc/" \
  "$here/control.in" >"$tree/DEBIAN/control"
(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs md5sum >DEBIAN/md5sums)
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$(dirname "$out")"
# One thread: the number of threads is visible in what xz makes.
dpkg-deb --root-owner-group --threads-max=1 -Zxz -z6 --build "$tree" "$out.part" >/dev/null
mv "$out.part" "$out"
echo "deb: $out ($version, $arch, glibc >= $glibc, $(stat -c %s "$out") bytes)"
