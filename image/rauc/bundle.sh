#!/bin/bash
# Makes a signed update out of a root slot: `joinery-VERSION-rootfs.ext4` of `make image`.
#
#   bundle.sh ROOTFS.ext4 VERSION OUT.raucb
#
# RAUC_KEY and RAUC_CERT name the signer's key and certificate (make-keys.sh); the key may be a PKCS#11 URL. FORMAT is
# verity, which the image asks for, or plain, for tests on kernels without device-mapper.
set -euo pipefail
fail() { echo "bundle: $*" >&2; exit 1; }
[ $# -eq 3 ] || fail "say ROOTFS.ext4, VERSION and OUT.raucb"
rootfs=$1 version=$2 out=$3 format=${FORMAT:-verity}
[ -s "$rootfs" ] || fail "$rootfs is missing"
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "$version is no version such as 1.2.3"
[[ "$format" =~ ^(verity|plain)$ ]] || fail "FORMAT is verity or plain"
[ -n "${RAUC_KEY:-}" ] && [ -s "${RAUC_CERT:-}" ] || fail "RAUC_KEY and RAUC_CERT name the signer's key and certificate"
if [[ "$(realpath "$RAUC_CERT")" == */image/rauc/test-keys/* ]]; then
  echo "bundle: signed with the TEST KEY that everybody has: for tests only" >&2
fi

work=$(mktemp -d -p "$(dirname "$out")")
trap 'rm -rf "$work"' EXIT
mkdir "$work/content"
ln "$rootfs" "$work/content/rootfs.ext4" 2>/dev/null || cp --sparse=always "$rootfs" "$work/content/rootfs.ext4"
cat >"$work/content/manifest.raucm" <<END
[update]
compatible=joinery-arm64
version=$version

[bundle]
format=$format

[image.rootfs]
filename=rootfs.ext4
END
rauc --cert "$RAUC_CERT" --key "$RAUC_KEY" bundle "$work/content" "$work/bundle.raucb" >"$work/log" 2>&1 || fail "$(cat "$work/log")"
size=$(stat -c %s "$work/bundle.raucb")
[ "$size" -le $((512 * 1024 * 1024)) ] || fail "$size bytes are more than a box takes"
mv "$work/bundle.raucb" "$out"
echo "bundle: $out, version $version, $size bytes"
