#!/usr/bin/env bash
# A daemon with a funded wallet on a private chain: what `make demo` runs.
#
#   demo.sh JOINERYD REGTEST      the two programs
#
# Everything is in a temporary directory, which is removed at the end; Ctrl-C ends it.
set -euo pipefail

joineryd=$1
regtest=$2
listen=${DEMO_LISTEN:-127.0.0.1:28183}
wss_listen=${DEMO_WSS_LISTEN:-127.0.0.1:28283}
block_seconds=20
wallet=demo.jmdat
password=demo-password
dir=$(mktemp -d "${TMPDIR:-/tmp}/joinery-demo.XXXXXX")
bench_pid='' daemon_pid=''

finish() {
  trap - EXIT INT TERM
  # The daemon first: it stores what it knows before its server goes away.
  for pid in $daemon_pid $bench_pid; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$dir"
}
trap finish EXIT
trap 'echo; echo "stopping"; exit 0' INT TERM

fail() {
  echo "demo: $1" >&2
  [ -s "$dir/joineryd.log" ] && tail -n 5 "$dir/joineryd.log" >&2
  exit 1
}

# until_file FILE PID WHAT: waits for a file that is written whole, as long as its writer lives.
until_file() {
  for _ in $(seq 1200); do
    [ -s "$1" ] && return
    kill -0 "$2" 2>/dev/null || fail "$3 did not start"
    read -rt 0.1 <> <(:) || true
  done
  fail "$3 did not start in time"
}

field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

echo "starting a private chain ..."
"$regtest" up --dir "$dir/bench" >"$dir/bench.json" 2>"$dir/bench.log" &
bench_pid=$!
until_file "$dir/bench.json" "$bench_pid" "the private chain"
electrum=$(field electrum <"$dir/bench.json")

echo "starting joineryd ..."
"$joineryd" --data-dir "$dir/data" --network regtest --electrum "$electrum" \
  --listen "$listen" --wss-listen "$wss_listen" >"$dir/joineryd.log" 2>&1 &
daemon_pid=$!
until_file "$dir/data/listening.json" "$daemon_pid" "joineryd (is something else on $listen?)"
fingerprint=$(field fingerprint <"$dir/data/listening.json")

certificate=$dir/data/ssl/cert.pem
api=https://$listen/api/v1
call() { curl -sS --fail-with-body --cacert "$certificate" "$@"; }

token=$(call "$api/wallet/create" \
  -d "{\"walletname\":\"$wallet\",\"password\":\"$password\",\"wallettype\":\"sw-fb\"}" |
  field token) || fail "the demo wallet could not be made"
new_address() {
  call -H "Authorization: Bearer $token" "$api/wallet/$wallet/address/new/$1" | field address
}
for deposit in 0:1.5 0:0.25 1:0.8 2:0.4; do
  address=$(new_address "${deposit%%:*}")
  "$regtest" fund "$address" "${deposit##*:}" --dir "$dir/bench" >>"$dir/bench.log" 2>&1 ||
    fail "the demo wallet could not be funded"
done
"$regtest" mine 6 --dir "$dir/bench" >>"$dir/bench.log" 2>&1 || fail "no block could be mined"
# Not one that was paid already: coins on reused addresses are frozen.
address=$(new_address 3)

cat <<EOF

Joinery runs on a private chain. A block is mined every $block_seconds seconds; Ctrl-C ends everything.

  address        https://$listen
  websocket      wss://$wss_listen
  certificate    $fingerprint
  wallet         $wallet
  password       $password

Paste into another terminal:

  CERT=$certificate
  API=$api
  TOKEN=\$(curl -s --cacert \$CERT \$API/wallet/$wallet/unlock -d '{"password":"$password"}' | sed 's/.*"token":"\\([^"]*\\)".*/\\1/')

  curl -s --cacert \$CERT \$API/session; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/utxos; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/address/new/3; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/taker/direct-send -d '{"mixdepth":0,"amount_sats":10000000,"destination":"$address"}'; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/display; echo

EOF

while kill -0 "$daemon_pid" 2>/dev/null && kill -0 "$bench_pid" 2>/dev/null; do
  # A signal interrupts `wait`, not `sleep`.
  sleep "$block_seconds" &
  wait $! || true
  "$regtest" mine 1 --dir "$dir/bench" >>"$dir/bench.log" 2>&1 || true
done
fail "joineryd or the chain stopped"
