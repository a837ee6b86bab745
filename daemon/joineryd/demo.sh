#!/usr/bin/env bash
# A small market on a private chain, a directory, four makers and your daemon: what `make demo` runs.
#
#   demo.sh JOINERYD REGTEST BOARD     the three programs
#
# Everything is in a temporary directory, which is removed at the end; Ctrl-C ends it.
set -euo pipefail

joineryd=$1
regtest=$2
board=$(realpath "$3")
listen=${DEMO_LISTEN:-127.0.0.1:28183}
wss_listen=${DEMO_WSS_LISTEN:-127.0.0.1:28283}
block_seconds=20
wallet=demo.jmdat
password=demo-password
makers=4
dir=$(mktemp -d "${TMPDIR:-/tmp}/joinery-demo.XXXXXX")
bench_pid='' daemon_pid='' maker_pids=''

finish() {
  trap - EXIT INT TERM
  # The daemon first: it stores what it knows before its server goes away.
  for pid in $daemon_pid $maker_pids; do kill "$pid" 2>/dev/null || true; done
  for pid in $daemon_pid $maker_pids $bench_pid; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$dir"
}
trap finish EXIT
trap 'echo; echo "stopping"; exit 0' INT TERM

fail() {
  echo "demo: $1" >&2
  [ -s "$dir/data.log" ] && tail -n 5 "$dir/data.log" >&2
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
directory=$(field directory <"$dir/bench.json")

# start NAME LISTEN WSS_LISTEN OPTION...: a daemon on the private chain and its market; its process is in $started.
start() {
  local name=$1 listen=$2 wss=$3
  shift 3
  "$joineryd" --data-dir "$dir/$name" --network regtest --electrum "$electrum" --directory "$directory" \
    --listen "$listen" --wss-listen "$wss" "$@" >"$dir/$name.log" 2>&1 &
  started=$!
}

# use NAME: calls go to this daemon from now on.
use() {
  certificate=$dir/$1/ssl/cert.pem
  api=$(field rpc <"$dir/$1/listening.json")/api/v1
}
call() { curl -sS --fail-with-body --cacert "$certificate" "$@"; }
ask() { call -H "Authorization: Bearer $token" "$@"; }

# make_wallet NAME: a wallet of this name in the daemon that is in use; the login is in $token.
make_wallet() {
  token=$(call "$api/wallet/create" \
    -d "{\"walletname\":\"$1\",\"password\":\"$password\",\"wallettype\":\"sw-fb\"}" |
    field token) || fail "the wallet $1 could not be made"
}
# deposit ADDRESS BTC
deposit() {
  "$regtest" fund "$1" "$2" --dir "$dir/bench" >>"$dir/bench.log" 2>&1 || fail "a wallet could not be funded"
}
mine() { "$regtest" mine "$1" --dir "$dir/bench" >>"$dir/bench.log" 2>&1; }
# until_says TEXT WHAT CALL...: asks until the answer has this text.
until_says() {
  local text=$1 what=$2
  shift 2
  for _ in $(seq 600); do
    case $("$@" 2>/dev/null || true) in *"$text"*) return ;; esac
    read -rt 0.2 <> <(:) || true
  done
  fail "$what"
}

echo "starting joineryd and $makers makers ..."
start data "$listen" "$wss_listen" --board-socket "$dir/board.sock"
daemon_pid=$started
for number in $(seq "$makers"); do
  start "maker$number" 127.0.0.1:0 127.0.0.1:0
  maker_pids="$maker_pids $started"
done
until_file "$dir/data/listening.json" "$daemon_pid" "joineryd (is something else on $listen?)"
fingerprint=$(field fingerprint <"$dir/data/listening.json")

tokens=()
number=0
for pid in $maker_pids; do
  number=$((number + 1))
  until_file "$dir/maker$number/listening.json" "$pid" "maker $number"
  use "maker$number"
  make_wallet maker.jmdat
  tokens+=("$token")
  for coin in 0:1.2 1:0.6; do
    deposit "$(ask "$api/wallet/maker.jmdat/address/new/${coin%%:*}" | field address)" "${coin##*:}"
  done
  if [ "$number" -eq 1 ]; then
    # A fidelity bond: a coin that nobody can spend before 2040, which makes this maker a likelier choice.
    deposit "$(ask "$api/wallet/maker.jmdat/address/timelock/new/2040-01" | field address)" 0.5
  fi
done

use data
make_wallet "$wallet"
for coin in 0:1.5 0:0.25 1:0.8 2:0.4; do
  deposit "$(ask "$api/wallet/$wallet/address/new/${coin%%:*}" | field address)" "${coin##*:}"
done
mine 6 || fail "no block could be mined"
# Not one that was paid already: coins on reused addresses are frozen.
address=$(ask "$api/wallet/$wallet/address/new/3" | field address)
demo_token=$token

# Of the 20 000 000 satoshi below that is less than 5 000, the lowest limit that a daemon may draw at its first start.
terms='{"txfee":"0","cjfee_a":"0","cjfee_r":"0.0002","ordertype":"sw0reloffer","minsize":"100000"}'
number=0
for token in "${tokens[@]}"; do
  number=$((number + 1))
  use "maker$number"
  # Only confirmed coins can be offered.
  until_says '{}' "maker $number does not start" ask "$api/wallet/maker.jmdat/maker/start" -d "$terms"
done
use data
token=$demo_token
offers() { call "https://$listen/obwatch/orderbook.json" | grep -o '"oid"' | grep -c . ; }
until_says "$makers" "the offers of the makers do not arrive" offers

cat <<EOF

Joinery runs on a private chain with $makers makers. A block is mined every $block_seconds seconds; Ctrl-C ends everything.

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

Mix: a coinjoin with four makers, from mixdepth 1 to the next; ask for its status until it is completed.

  curl -s --cacert \$CERT https://$listen/obwatch/orderbook.json; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/taker/coinjoin -d '{"mixdepth":1,"amount_sats":20000000,"counterparties":4,"destination":"INTERNAL"}'; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/taker/status; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/rounds; echo

Or earn: offer your own coins to others; nick and offer show in the session.

  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/maker/start -d '$terms'; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/session; echo
  curl -s --cacert \$CERT -H "Authorization: Bearer \$TOKEN" \$API/wallet/$wallet/maker/stop; echo

The face of the box, in a terminal of 128 columns and 34 lines: space presses its button, l holds it for three seconds, q ends it.

  $board --backend terminal --socket $dir/board.sock

EOF

while kill -0 "$daemon_pid" 2>/dev/null && kill -0 "$bench_pid" 2>/dev/null; do
  # A signal interrupts `wait`, not `sleep`.
  sleep "$block_seconds" &
  wait $! || true
  mine 1 || true
done
fail "joineryd or the chain stopped"
