#!/bin/bash
# Makes the two keys that updates need: an authority, whose certificate goes into images as their keyring, and a signer
# under it. The authority's key is only needed for the next signer: keep it off the machine that makes bundles.
#
#   make-keys.sh DIRECTORY NAME        writes NAME-ca.{key,cert}.pem and NAME-signer.{key,cert}.pem
set -euo pipefail
[ $# -eq 2 ] || { echo "make-keys: say DIRECTORY and NAME" >&2; exit 1; }
directory=$1 name=$2
umask 077
mkdir -p "$directory"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
key() { [ ! -e "$1" ] || { echo "make-keys: $1 is there already" >&2; exit 1; }; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
for part in ca signer; do key "$directory/$name-$part.key.pem"; done

# A box without a clock begins in the past: the certificates are older than any box. `openssl ca` sets dates, `x509` cannot.
cat >"$work/ca.cnf" <<END
[ca]
default_ca = box
[box]
database = $work/index.txt
serial = $work/serial
new_certs_dir = $work
default_md = sha256
default_startdate = 20200101000000Z
default_enddate = 20600101000000Z
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[signer]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = codeSigning
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END
: >"$work/index.txt"
openssl rand -hex 16 >"$work/serial"
sign() { # PART EXTENSIONS SIGNED-BY...
  local part=$1 extensions=$2
  shift 2
  openssl req -new -key "$directory/$name-$part.key.pem" -subj "/CN=Joinery updates: $name-$part" -out "$work/$part.csr"
  openssl ca -batch -config "$work/ca.cnf" -extensions "$extensions" -in "$work/$part.csr" -out "$work/$part.pem" -notext "$@" 2>"$work/log" \
    || { cat "$work/log" >&2; exit 1; }
  install -m 0644 "$work/$part.pem" "$directory/$name-$part.cert.pem"
}
sign ca authority -selfsign -keyfile "$directory/$name-ca.key.pem"
sign signer signer -keyfile "$directory/$name-ca.key.pem" -cert "$directory/$name-ca.cert.pem"
echo "make-keys: $directory/$name-{ca,signer}.{key,cert}.pem"
