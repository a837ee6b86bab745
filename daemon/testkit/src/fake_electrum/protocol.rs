//! Requests and answers of Electrum protocol 1.4, honest and otherwise.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bdk_wallet::bitcoin::block::Header;
use bdk_wallet::bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bdk_wallet::bitcoin::hashes::{Hash, sha256, sha256d};
use bdk_wallet::bitcoin::{BlockHash, Transaction, Txid};
use serde_json::{Value, json};

use super::connection::Connection;
use super::{FakeChain, Fault, Reply, Request, State};
use crate::electrum::script_hash;

/// Headers in one answer at most.
const MAX_HEADERS: u32 = 2016;

/// Answers one line, which may be a batch.
pub(super) fn handle(line: &str, connection: &Arc<Connection>, state: &mut State) {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Array(calls)) => {
            let mut answers = Vec::new();
            for call in &calls {
                match answer(call, connection, state) {
                    Some(Ok(answer)) => answers.push(answer),
                    Some(Err(reply)) => return send(&Value::Null, reply, connection, state),
                    None => {}
                }
            }
            if !answers.is_empty() {
                deliver(&Value::Array(answers), connection, state);
            }
        }
        Ok(call) => match answer(&call, connection, state) {
            Some(Ok(answer)) => deliver(&answer, connection, state),
            Some(Err(reply)) => send(&Value::Null, reply, connection, state),
            None => {}
        },
        Err(_) => {
            send(&Value::Null, Reply::error(-32700, "parse error"), connection, state);
        }
    }
}

/// The JSON answer to one call, or what is done instead of answering in JSON, or nothing.
fn answer(
    call: &Value,
    connection: &Arc<Connection>,
    state: &mut State,
) -> Option<Result<Value, Reply>> {
    let id = call.get("id").cloned().unwrap_or(Value::Null);
    let method = call.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    let params = call.get("params").cloned().unwrap_or_else(|| json!([]));
    let request = Request { connection: connection.number, method, params };
    state.requests.push(request.clone());
    let asked = connection.asked.fetch_add(1, Ordering::SeqCst) + 1;
    let reply = match state.hook.as_mut().and_then(|hook| hook(&request)) {
        Some(reply) => reply,
        None => match misbehave(&request, asked, state) {
            Some(reply) => reply,
            None => honest_or_lying(&request, connection, state),
        },
    };
    let id = if state.faults.contains(&Fault::WrongId) { json!(4_000_000_000_u64) } else { id };
    match reply {
        Reply::Silence => None,
        Reply::Result(result) => Some(Ok(json!({"jsonrpc": "2.0", "id": id, "result": result}))),
        Reply::Error { code, message } => Some(Ok(
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
        )),
        other => Some(Err(other)),
    }
}

/// Writes a JSON answer, in the form that faults give it.
fn deliver(answer: &Value, connection: &Connection, state: &State) {
    let mut line = answer.to_string();
    for fault in &state.faults {
        match fault {
            Fault::Garbage => line = format!("\u{1}{{]{}", line.len()),
            Fault::DeepJson(depth) => {
                line = format!("{}{}", "[".repeat(*depth), "]".repeat(*depth))
            }
            Fault::Echo => connection.send_line(&line),
            _ => {}
        }
    }
    connection.send_line(&line);
}

fn send(id: &Value, reply: Reply, connection: &Connection, state: &State) {
    match reply {
        Reply::Line(line) => connection.send_line(&line),
        Reply::Stream(length) => connection.send_stream(length),
        Reply::Disconnect => connection.hang_up(),
        Reply::Silence => {}
        Reply::Result(result) => {
            deliver(&json!({"jsonrpc": "2.0", "id": id, "result": result}), connection, state);
        }
        Reply::Error { code, message } => deliver(
            &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
            connection,
            state,
        ),
    }
}

/// Faults that do not depend on the chain.
fn misbehave(request: &Request, asked: u64, state: &State) -> Option<Reply> {
    let own = |method: &Option<&str>| method.is_none_or(|method| method == request.method);
    state.faults.iter().find_map(|fault| match fault {
        Fault::EndlessLine { method } if own(method) => Some(Reply::Stream(None)),
        Fault::HugeLine { method, bytes } if own(method) => Some(Reply::Stream(Some(*bytes))),
        Fault::Silence { after } if asked > *after => Some(Reply::Silence),
        Fault::SilenceOn(method) if *method == request.method => Some(Reply::Silence),
        Fault::DisconnectOn(method) if *method == request.method => Some(Reply::Disconnect),
        Fault::DisconnectAfter { answers } if asked > *answers => Some(Reply::Disconnect),
        Fault::ErrorOn { method, code, message } if *method == request.method => {
            Some(Reply::error(*code, message.as_str()))
        }
        _ => None,
    })
}

/// Tells every connection what is new for it.
pub(super) fn notify(state: &mut State) {
    let view = View::new(&state.chain, &state.faults);
    let tip = view.tip();
    for connection in &state.connections {
        let mut subscriptions = connection.subscriptions();
        for (script, known) in &mut subscriptions.scripts {
            let status = view.status(script);
            if *known != status {
                connection.send_line(&notification(
                    "blockchain.scripthash.subscribe",
                    &json!([script, status]),
                ));
                *known = status;
            }
        }
        if let Some(known) = &mut subscriptions.tip
            && *known != tip.1
        {
            connection.send_line(&notification(
                "blockchain.headers.subscribe",
                &json!([{"height": tip.0, "hex": tip.1}]),
            ));
            known.clone_from(&tip.1);
        }
    }
}

fn notification(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

fn honest_or_lying(request: &Request, connection: &Connection, state: &mut State) -> Reply {
    if request.method == "blockchain.transaction.broadcast" {
        return broadcast(request, state);
    }
    let view = View::new(&state.chain, &state.faults);
    call(request, connection, &view).unwrap_or_else(|| Reply::error(-32602, "invalid params"))
}

/// `None` when a parameter is missing or of the wrong kind.
fn call(request: &Request, connection: &Connection, view: &View<'_>) -> Option<Reply> {
    let text = |index: usize| request.params.get(index).and_then(Value::as_str);
    let number = |index: usize| {
        request.params.get(index).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
    };
    let result = match request.method.as_str() {
        "server.version" => json!(["FakeElectrum 1.0", "1.4"]),
        "server.ping" | "server.donation_address" => Value::Null,
        "server.banner" => json!("A server for tests."),
        "server.peers.subscribe" | "mempool.get_fee_histogram" => json!([]),
        "server.features" => json!({
            "genesis_hash": view.chain.block(0)?.block_hash(),
            "hosts": {}, "protocol_max": "1.4", "protocol_min": "1.4", "pruning": null,
            "server_version": "FakeElectrum 1.0", "hash_function": "sha256",
        }),
        "blockchain.headers.subscribe" => {
            let (height, hex) = view.tip();
            connection.subscriptions().tip = Some(hex.clone());
            json!({"height": height, "hex": hex})
        }
        "blockchain.block.header" => match view.header(number(0)?) {
            Some(header) => json!(serialize_hex(&header)),
            None => return Some(Reply::error(1, format!("no header at {}", number(0)?))),
        },
        "blockchain.block.headers" => {
            let (start, count) = (number(0)?, number(1)?.min(MAX_HEADERS));
            let headers: Vec<String> = (start..start.saturating_add(count))
                .map_while(|height| view.header(height))
                .map(|header| serialize_hex(&header))
                .collect();
            json!({"count": headers.len(), "hex": headers.concat(), "max": MAX_HEADERS})
        }
        "blockchain.estimatefee" => view
            .number(|fault| match fault {
                Fault::EstimateFee(rate) => Some(*rate),
                _ => None,
            })
            .unwrap_or_else(|| json!(0.000_02)),
        "blockchain.relayfee" => view
            .number(|fault| match fault {
                Fault::RelayFee(rate) => Some(*rate),
                _ => None,
            })
            .unwrap_or_else(|| json!(0.000_01)),
        "blockchain.scripthash.subscribe" => {
            let status = view.status(text(0)?);
            let scripts = &mut connection.subscriptions().scripts;
            scripts.insert(text(0)?.to_owned(), status.clone());
            json!(status)
        }
        "blockchain.scripthash.unsubscribe" => {
            json!(connection.subscriptions().scripts.remove(text(0)?).is_some())
        }
        "blockchain.scripthash.get_history" => view.history_answer(text(0)?),
        "blockchain.scripthash.listunspent" => json!(view.unspent(text(0)?)),
        "blockchain.scripthash.get_balance" => {
            let sum = |unspent: &[Value], confirmed: bool| -> u64 {
                let wanted = |coin: &&Value| (coin["height"].as_u64() > Some(0)) == confirmed;
                unspent.iter().filter(wanted).filter_map(|coin| coin["value"].as_u64()).sum()
            };
            let unspent = view.unspent(text(0)?);
            json!({"confirmed": sum(&unspent, true), "unconfirmed": sum(&unspent, false)})
        }
        "blockchain.transaction.get" => return view.transaction(text(0)?.parse().ok()?),
        "blockchain.transaction.get_merkle" => {
            return view.proof(text(0)?.parse().ok()?, number(1)?);
        }
        "blockchain.transaction.id_from_pos" => {
            let block = view.chain.block(number(0)?)?;
            json!(block.txdata.get(usize::try_from(number(1)?).ok()?)?.compute_txid())
        }
        other => return Some(Reply::error(-32601, format!("unknown method {other:?}"))),
    };
    Some(Reply::Result(result))
}

fn broadcast(request: &Request, state: &mut State) -> Reply {
    let parsed = request
        .params
        .get(0)
        .and_then(Value::as_str)
        .and_then(|hex| deserialize_hex::<Transaction>(hex).ok());
    let Some(transaction) = parsed else {
        return Reply::error(1, "TX decode failed");
    };
    if state.faults.contains(&Fault::BroadcastWrongTxid) {
        let other = Txid::hash(transaction.compute_txid().as_byte_array());
        return Reply::Result(json!(other));
    }
    match state.chain.submit(transaction) {
        Ok(txid) => {
            notify(state);
            Reply::Result(json!(txid))
        }
        Err(reason) => Reply::error(2, reason),
    }
}

/// The chain as the faults show it.
struct View<'a> {
    chain: Cow<'a, FakeChain>,
    fork: Option<FakeChain>,
    faults: &'a [Fault],
}

impl<'a> View<'a> {
    fn new(chain: &'a FakeChain, faults: &'a [Fault]) -> Self {
        let mut shown = Cow::Borrowed(chain);
        let mut fork = None;
        for fault in faults {
            match fault {
                Fault::LowerTip { by } => {
                    shown = Cow::Owned(chain.up_to(chain.height().saturating_sub(*by)));
                }
                Fault::ForkedHeaders { from } => fork = Some(chain.forked(*from)),
                _ => {}
            }
        }
        Self { chain: shown, fork, faults }
    }

    fn number(&self, rate: impl FnMut(&Fault) -> Option<f64>) -> Option<Value> {
        self.faults.iter().find_map(rate).map(|rate| json!(rate))
    }

    fn header(&self, height: u32) -> Option<Header> {
        let within = height <= self.chain.height();
        let source = self.fork.as_ref().unwrap_or(&self.chain);
        let mut header = source.block(height).filter(|_| within)?.header;
        let forged =
            |fault: &Fault| matches!(fault, Fault::BadProofOfWork { from } if height >= *from);
        if self.faults.iter().any(forged) {
            while header.validate_pow(header.target()).is_ok() {
                header.nonce = header.nonce.wrapping_add(1);
            }
        }
        Some(header)
    }

    /// Height and hexadecimal header of the best block.
    fn tip(&self) -> (u32, String) {
        let height = self.chain.height();
        let mut header = self.header(height).unwrap_or_else(|| {
            bdk_wallet::bitcoin::constants::genesis_block(bdk_wallet::bitcoin::Network::Regtest)
                .header
        });
        if self.faults.contains(&Fault::UnlinkedTip) {
            header.prev_blockhash = BlockHash::hash(b"nowhere");
            while header.validate_pow(header.target()).is_err() {
                header.nonce = header.nonce.wrapping_add(1);
            }
        }
        (height, serialize_hex(&header))
    }

    /// Entries that the status is computed from.
    fn history(&self, script: &str) -> Vec<Value> {
        let mut entries: Vec<Value> = self
            .chain
            .history(script)
            .iter()
            .map(|entry| match entry.fee {
                Some(fee) => json!({"tx_hash": entry.txid, "height": entry.height, "fee": fee}),
                None => json!({"tx_hash": entry.txid, "height": entry.height}),
            })
            .collect();
        for fault in self.faults {
            match fault {
                Fault::ShrunkHistories { keep } => entries.truncate(*keep),
                Fault::InventedHistory { extra } => {
                    for number in 0..*extra {
                        let txid = Txid::hash(format!("{script} {number}").as_bytes());
                        entries.push(json!({"tx_hash": txid, "height": 1}));
                    }
                }
                _ => {}
            }
        }
        entries
    }

    fn history_answer(&self, script: &str) -> Value {
        let mut entries = self.history(script);
        for fault in self.faults {
            if let Fault::HistoriesBelieStatus { keep } = fault {
                entries.truncate(*keep);
            }
        }
        Value::Array(entries)
    }

    /// SHA-256 over `txid:height:` of each entry, hexadecimal; `None` for a script without history.
    fn status(&self, script: &str) -> Option<String> {
        let entries = self.history(script);
        if entries.is_empty() {
            return None;
        }
        let mut text = String::new();
        for entry in &entries {
            let txid = entry.get("tx_hash").and_then(Value::as_str).unwrap_or_default();
            let height = entry.get("height").and_then(Value::as_i64).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(text, "{txid}:{height}:");
        }
        Some(hex::encode(sha256::Hash::hash(text.as_bytes()).to_byte_array()))
    }

    fn unspent(&self, script: &str) -> Vec<Value> {
        let entries = self.history(script);
        let mut coins: BTreeMap<(Txid, u32), Value> = BTreeMap::new();
        let known = |entry: &Value| -> Option<(Transaction, i64)> {
            let txid: Txid = entry.get("tx_hash")?.as_str()?.parse().ok()?;
            Some((self.chain.transaction(&txid)?.clone(), entry.get("height")?.as_i64()?))
        };
        let transactions: Vec<(Transaction, i64)> = entries.iter().filter_map(known).collect();
        for (transaction, height) in &transactions {
            let txid = transaction.compute_txid();
            for (output, position) in transaction.output.iter().zip(0u32..) {
                if script_hash(&output.script_pubkey) == script {
                    let coin = json!({
                        "tx_hash": txid, "tx_pos": position,
                        "height": (*height).max(0), "value": output.value.to_sat(),
                    });
                    coins.insert((txid, position), coin);
                }
            }
        }
        for input in transactions.iter().flat_map(|(transaction, _)| &transaction.input) {
            coins.remove(&(input.previous_output.txid, input.previous_output.vout));
        }
        coins.into_values().collect()
    }

    fn transaction(&self, txid: Txid) -> Option<Reply> {
        let Some(transaction) = self.chain.transaction(&txid) else {
            let message = "No such mempool or blockchain transaction.";
            return Some(Reply::error(2, message));
        };
        if self.faults.contains(&Fault::UnparsableTransaction) {
            return Some(Reply::Result(json!("0200000000ff")));
        }
        let lied_about = self.faults.contains(&Fault::WrongTransaction)
            || self.faults.contains(&Fault::WrongTransactionFor(txid));
        let mut transaction = transaction.clone();
        if lied_about {
            // The most tempting lie: all the same, but ten times the money.
            for output in &mut transaction.output {
                output.value = output.value.checked_mul(10).unwrap_or(output.value);
            }
            transaction.version.0 ^= 1 << 8;
        }
        Some(Reply::Result(json!(serialize_hex(&transaction))))
    }

    fn proof(&self, txid: Txid, height: u32) -> Option<Reply> {
        let absent = || Some(Reply::error(1, format!("no transaction {txid} in block {height}")));
        let Some(block) = self.chain.block(height) else { return absent() };
        let ids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        let Some(mut position) = ids.iter().position(|other| *other == txid) else {
            return absent();
        };
        let mut branch = merkle_branch(&ids, position);
        for fault in self.faults {
            match fault {
                Fault::WrongMerkleProof => match branch.first_mut().and_then(|h| h.first_mut()) {
                    Some(byte) => *byte ^= 1,
                    // A block with one transaction has an empty proof; a wrong one has a step.
                    None => branch.push([1; 32]),
                },
                Fault::WrongMerklePosition => position ^= 1,
                Fault::DeepMerkleProof(depth) => branch.resize(*depth, [7; 32]),
                _ => {}
            }
        }
        let merkle: Vec<String> = branch
            .into_iter()
            .map(|mut hash| {
                hash.reverse();
                hex::encode(hash)
            })
            .collect();
        Some(Reply::Result(json!({"block_height": height, "pos": position, "merkle": merkle})))
    }
}

/// Siblings from the leaf up, in internal byte order.
fn merkle_branch(ids: &[Txid], mut position: usize) -> Vec<[u8; 32]> {
    let mut level: Vec<[u8; 32]> = ids.iter().map(|id| id.to_byte_array()).collect();
    let mut branch = Vec::new();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.extend(level.last().copied());
        }
        branch.extend(level.get(position ^ 1).copied());
        level = level
            .chunks(2)
            .map(|pair| sha256d::Hash::hash(&pair.concat()).to_byte_array())
            .collect();
        position /= 2;
    }
    branch
}
