#!/bin/bash
# Prints what the image is made of as CycloneDX 1.5: Debian's packages as dpkg has them, and those that were only
# unpacked. The crates of our programs are listed in the package itself (crates-licences.txt), not here.
#
# manifest.sh ROOT VERSION
set -euo pipefail
root=$1 version=$2
: "${SOURCE_DATE_EPOCH:?}"

{
  dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat='${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n'
  for package in "$root"/extra/*.deb; do
    # Our own is installed, and in dpkg's list.
    case $package in */joinery.deb) continue ;; esac
    dpkg-deb --show --showformat='${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' "$package"
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
    printf "%s\n{\"type\":\"library\",\"name\":%s,\"version\":%s,\"purl\":%s}", (NR > 1 ? "," : ""), quoted($1), quoted($2),
      quoted("pkg:deb/debian/" escaped($1) "@" escaped($2) "?arch=" $3 "&distro=trixie&upstream=" escaped($4) "%40" escaped($5))
  }
  END { print "\n]}" }'
