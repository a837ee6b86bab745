#!/bin/bash
# Prints what the image is made of as CycloneDX 1.5: Debian's packages as dpkg has them, those that were only unpacked, and
# the crates in our programs, which our package lists (crates-licences.txt).
#
# manifest.sh ROOT VERSION
set -euo pipefail
root=$1 version=$2
: "${SOURCE_DATE_EPOCH:?}"

crates() {
  # In a file: `sed` ends before the end.
  dpkg-deb --fsys-tarfile "$root/extra/joinery.deb" | tar -xO ./usr/share/doc/joinery/crates-licences.txt.gz | gzip -d >"$root/extra/crates"
  # The list is what comes before the first text: lines such as `serde 1.0.228: MIT OR Apache-2.0; by …`.
  sed -n '/^Crates that come without the text/q; s/^\([A-Za-z0-9_-]*\) \([0-9][^ :]*\): \([^;]*\).*/crate\t\1\t\2\t\3/p' "$root/extra/crates"
}
[ "$(crates | wc -l)" -ge 100 ] || { echo "manifest.sh: the package does not list its crates" >&2; exit 1; }

{
  crates
  dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat='deb\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n'
  for package in "$root"/extra/*.deb; do
    # Our own is installed, and in dpkg's list.
    case $package in */joinery.deb) continue ;; esac
    dpkg-deb --show --showformat='deb\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' "$package"
  done
} | sort -u | awk -F '\t' -v version="$version" -v time="$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" '
  function quoted(text) { gsub(/["\\]/, "\\\\&", text); return "\"" text "\"" }
  # Colons, pluses and tildes have meanings in a package URL.
  function escaped(text) { gsub(/%/, "%25", text); gsub(/:/, "%3A", text); gsub(/\+/, "%2B", text); gsub(/~/, "%7E", text); return text }
  BEGIN {
    print "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.5\",\"version\":1,"
    print "\"metadata\":{\"timestamp\":\"" time "\",\"component\":{\"type\":\"operating-system\",\"name\":\"joinery-image\",\"version\":" quoted(version) "}},"
    printf "\"components\":["
  }
  {
    if ($1 == "crate") {
      # Some crates still write the slash of old.
      gsub(/ *\/ */, " OR ", $4)
      purl = "pkg:cargo/" $2 "@" escaped($3)
      more = ",\"licenses\":[{\"expression\":" quoted($4) "}]"
    } else {
      purl = "pkg:deb/debian/" escaped($2) "@" escaped($3) "?arch=" $4 "&distro=trixie&upstream=" escaped($5) "%40" escaped($6)
      more = ""
    }
    printf "%s\n{\"type\":\"library\",\"name\":%s,\"version\":%s,\"purl\":%s%s}", (NR > 1 ? "," : ""), quoted($2), quoted($3),
      quoted(purl), more
  }
  END { print "\n]}" }'
