//! The fake Electrum server, honest and lying, as a client on a socket sees it.
#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bdk_wallet::bitcoin::block::Header;
use bdk_wallet::bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bdk_wallet::bitcoin::hashes::{Hash, sha256d};
use bdk_wallet::bitcoin::{ScriptBuf, Transaction};
use joinery_testkit::fake_electrum::{FakeElectrum, Fault, Reply};
use joinery_testkit::{Electrum, PATIENCE, funds_address, script_hash, wait_until};
use serde_json::{Value, json};

fn script() -> ScriptBuf {
    funds_address().script_pubkey()
}

/// A client that sees lines, so that notifications are not lost.
struct Lines(BufReader<TcpStream>);

impl Lines {
    fn connect(server: &FakeElectrum) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, params: &Value) {
        let line = json!({"id": 7, "method": method, "params": params});
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.ask(method, params);
        loop {
            let answer = self.json();
            // A broadcast is notified of before it is answered.
            if answer["method"].is_null() {
                assert_eq!(answer["id"], 7);
                return answer["result"].clone();
            }
        }
    }

    fn is_silent(&mut self) -> bool {
        self.0.get_mut().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let outcome = self.0.read(&mut [0]);
        self.0.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        outcome
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn header(client: &mut Lines, height: u64) -> Header {
    let hex = client.call("blockchain.block.header", &json!([height]));
    deserialize_hex(hex.as_str().unwrap()).unwrap()
}

#[test]
fn subscribers_hear_of_a_payment_and_of_its_block() {
    let server = FakeElectrum::start().unwrap();
    let mut client = Lines::connect(&server);
    let hash = script_hash(&script());
    assert_eq!(client.call("server.version", &json!(["test", "1.4"]))[1], "1.4");
    assert_eq!(client.call("blockchain.headers.subscribe", &json!([]))["height"], 0);
    assert_eq!(client.call("blockchain.scripthash.subscribe", &json!([hash])), Value::Null);

    let paid = server.change(|chain| chain.pay(&script(), 5_000));
    let told = client.json();
    assert_eq!(told["method"], "blockchain.scripthash.subscribe");
    assert_eq!(told["params"][0], hash.as_str());
    let first = told["params"][1].clone();
    let history = client.call("blockchain.scripthash.get_history", &json!([hash]));
    let txid = paid.compute_txid();
    assert_eq!(history, json!([{"tx_hash": txid, "height": 0, "fee": 1000}]));

    server.change(|chain| chain.mine(1));
    let told = client.json();
    assert_ne!(told["params"][1], first);
    let told = client.json();
    assert_eq!(told["method"], "blockchain.headers.subscribe");
    assert_eq!(told["params"][0]["height"], 1);
    assert_eq!(
        client.call("blockchain.transaction.get", &json!([txid])),
        serialize_hex(&paid).as_str()
    );
    let balance = client.call("blockchain.scripthash.get_balance", &json!([hash]));
    assert_eq!(balance, json!({"confirmed": 5000, "unconfirmed": 0}));
    let coins = client.call("blockchain.scripthash.listunspent", &json!([hash]));
    assert_eq!(coins, json!([{"tx_hash": txid, "tx_pos": 0, "height": 1, "value": 5000}]));
    assert_eq!(server.count("blockchain.scripthash.get_history"), 1);
}

#[test]
fn merkle_proofs_hold_unless_they_are_lies() {
    let server = FakeElectrum::start().unwrap();
    let paid: Vec<Transaction> = server.change(|chain| {
        let paid = (1..=6).map(|n| chain.pay(&script(), n * 1_000)).collect();
        chain.mine(1);
        paid
    });
    let mut client = Lines::connect(&server);
    let root = header(&mut client, 1).merkle_root;
    let mut proves = |transaction: &Transaction| {
        let txid = transaction.compute_txid();
        let proof = client.call("blockchain.transaction.get_merkle", &json!([txid, 1]));
        let mut position = proof["pos"].as_u64().unwrap();
        let mut hash = txid.to_byte_array();
        for step in proof["merkle"].as_array().unwrap() {
            let mut sibling = hex::decode(step.as_str().unwrap()).unwrap();
            sibling.reverse();
            let pair = if position.is_multiple_of(2) {
                [hash.as_slice(), &sibling].concat()
            } else {
                [&sibling, hash.as_slice()].concat()
            };
            hash = sha256d::Hash::hash(&pair).to_byte_array();
            position /= 2;
        }
        hash == root.to_byte_array()
    };
    assert!(paid.iter().all(&mut proves));
    for fault in [Fault::WrongMerkleProof, Fault::WrongMerklePosition, Fault::DeepMerkleProof(40)] {
        server.lie(fault.clone());
        assert!(!proves(&paid[0]), "{fault:?}");
        server.honest();
    }
    assert!(proves(&paid[5]));
}

#[test]
fn headers_fork_forge_and_fall_behind_on_demand() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| chain.mine(10));
    let mut client = Lines::connect(&server);
    let (five, eight) = (header(&mut client, 5), header(&mut client, 8));

    server.lie(Fault::ForkedHeaders { from: 6 });
    assert_eq!(header(&mut client, 5), five);
    let six = header(&mut client, 6);
    assert_eq!(six.prev_blockhash, five.block_hash());
    assert!(six.validate_pow(six.target()).is_ok());
    assert_ne!(header(&mut client, 8), eight);
    server.honest();
    assert_eq!(header(&mut client, 8), eight);

    server.lie(Fault::BadProofOfWork { from: 8 });
    assert!(header(&mut client, 7).validate_pow(five.target()).is_ok());
    assert!(header(&mut client, 8).validate_pow(five.target()).is_err());
    server.honest();

    let tip = |client: &mut Lines| -> (u64, Header) {
        let tip = client.call("blockchain.headers.subscribe", &json!([]));
        let header = deserialize_hex(tip["hex"].as_str().unwrap()).unwrap();
        (tip["height"].as_u64().unwrap(), header)
    };
    let (_, honest) = tip(&mut client);
    server.lie(Fault::LowerTip { by: 3 });
    let told = client.json();
    assert_eq!(told["params"][0]["height"], 7, "subscribers are told of it");
    assert_eq!(tip(&mut client).0, 7);
    client.ask("blockchain.block.header", &json!([8]));
    assert!(client.json()["error"]["message"].is_string());
    server.honest();
    assert_eq!(client.json()["params"][0]["height"], 10);

    server.lie(Fault::UnlinkedTip);
    client.json();
    assert_ne!(tip(&mut client).1.prev_blockhash, honest.prev_blockhash);
    let batch = client.call("blockchain.block.headers", &json!([1, 5000]));
    assert_eq!(batch["count"], 10);
    assert_eq!(batch["hex"].as_str().unwrap().len(), 10 * 160);
}

#[test]
fn transactions_and_histories_lie_on_demand() {
    let server = FakeElectrum::start().unwrap();
    let paid = server.change(|chain| {
        let first = chain.pay(&script(), 1_000);
        chain.pay(&script(), 2_000);
        chain.mine(1);
        first
    });
    let txid = paid.compute_txid();
    let hash = script_hash(&script());
    let mut client = Lines::connect(&server);
    let status = |client: &mut Lines| {
        client.call("blockchain.scripthash.subscribe", &json!([hash])).as_str().unwrap().to_owned()
    };
    let honest = status(&mut client);
    let length = |client: &mut Lines| {
        let history = client.call("blockchain.scripthash.get_history", &json!([hash]));
        history.as_array().unwrap().len()
    };
    for fault in [Fault::WrongTransaction, Fault::WrongTransactionFor(txid)] {
        server.lie(fault);
        let hex = client.call("blockchain.transaction.get", &json!([txid]));
        let lie: Transaction = deserialize_hex(hex.as_str().unwrap()).unwrap();
        assert_ne!(lie.compute_txid(), txid);
        server.honest();
    }
    server.lie(Fault::UnparsableTransaction);
    let hex = client.call("blockchain.transaction.get", &json!([txid]));
    assert!(deserialize_hex::<Transaction>(hex.as_str().unwrap()).is_err());
    server.honest();

    server.lie(Fault::HistoriesBelieStatus { keep: 1 });
    assert_eq!(length(&mut client), 1);
    assert_eq!(status(&mut client), honest);
    server.honest();
    server.lie(Fault::ShrunkHistories { keep: 1 });
    assert_ne!(client.json()["params"][1], honest.as_str());
    assert_eq!(length(&mut client), 1);
    server.honest();
    assert_eq!(client.json()["params"][1], honest.as_str());
    server.lie(Fault::InventedHistory { extra: 3 });
    client.json();
    assert_eq!(length(&mut client), 5);
    server.honest();
    client.json();

    server.lie(Fault::EstimateFee(-1.0));
    assert_eq!(client.call("blockchain.estimatefee", &json!([2])), -1.0);
    server.lie(Fault::history_too_large());
    client.ask("blockchain.scripthash.get_history", &json!([hash]));
    assert_eq!(client.json()["error"]["message"], "history too large");
    server.lie(Fault::BroadcastWrongTxid);
    let mut spend = paid.clone();
    spend.input[0].previous_output.txid = txid;
    let answered = client.call("blockchain.transaction.broadcast", &json!([serialize_hex(&spend)]));
    assert_ne!(answered, json!(spend.compute_txid()));
    server.honest();
    let answered = client.call("blockchain.transaction.broadcast", &json!([serialize_hex(&spend)]));
    assert_eq!(answered, json!(spend.compute_txid()));
}

#[test]
fn connections_fail_on_demand() {
    let server = FakeElectrum::start().unwrap();
    let ping = json!([]);

    server.lie(Fault::Silence { after: 2 });
    let mut client = Lines::connect(&server);
    client.call("server.ping", &ping);
    client.call("server.ping", &ping);
    client.ask("server.ping", &ping);
    assert!(client.is_silent());
    server.honest();
    assert_eq!(client.call("server.ping", &ping), Value::Null);

    server.lie(Fault::DisconnectOn("blockchain.headers.subscribe"));
    client.call("server.ping", &ping);
    client.ask("blockchain.headers.subscribe", &ping);
    assert!(client.is_closed());
    server.honest();

    server.lie(Fault::DisconnectAfter { answers: 1 });
    let mut client = Lines::connect(&server);
    client.call("server.ping", &ping);
    client.ask("server.ping", &ping);
    assert!(client.is_closed());
    server.honest();

    let mut client = Lines::connect(&server);
    client.call("server.ping", &ping);
    server.disconnect_all();
    assert!(client.is_closed());
    assert!(wait_until(PATIENCE, || server.connected() == 0));
    server.refuse_connections(true);
    assert!(Electrum::connect(server.address(), PATIENCE).is_err());
    server.refuse_connections(false);
    let before = server.accepted();
    assert!(Electrum::connect(server.address(), PATIENCE).is_ok());
    assert_eq!(server.accepted(), before + 1);
}

#[test]
fn lines_are_huge_endless_or_garbage_on_demand() {
    let server = FakeElectrum::start().unwrap();
    server.lie(Fault::HugeLine { method: Some("server.banner"), bytes: 3_000_001 });
    let mut client = Lines::connect(&server);
    client.call("server.ping", &json!([]));
    client.ask("server.banner", &json!([]));
    assert_eq!(client.line().len(), 3_000_002);
    server.honest();

    server.lie(Fault::Garbage);
    client.ask("server.ping", &json!([]));
    assert!(serde_json::from_str::<Value>(&client.line()).is_err());
    server.honest();
    server.lie(Fault::DeepJson(100_000));
    client.ask("server.ping", &json!([]));
    assert_eq!(client.line().len(), 200_001);
    server.honest();
    server.lie(Fault::WrongId);
    client.ask("server.ping", &json!([]));
    assert_ne!(client.json()["id"], 7);
    server.honest();
    server.lie(Fault::Echo);
    client.ask("server.ping", &json!([]));
    assert_eq!(client.line(), client.line());
    server.honest();
    server.send_line("unasked");
    assert_eq!(client.line(), "unasked\n");

    server.lie(Fault::EndlessLine { method: None });
    client.ask("server.ping", &json!([]));
    let mut read = vec![0; 20_000_000];
    client.0.read_exact(&mut read).unwrap();
    assert!(!read.contains(&b'\n'));
    // Dropping the server while it writes to a client that does not read must not hang.
    drop(server);
}

#[test]
fn batches_hooks_and_unknown_methods_are_answered() {
    let server = FakeElectrum::start().unwrap();
    let mut client = Lines::connect(&server);
    let batch = json!([
        {"id": 1, "method": "server.ping", "params": []},
        {"id": 2, "method": "no.such.method", "params": []},
        {"id": 3, "method": "blockchain.block.header", "params": ["x"]},
    ]);
    writeln!(client.0.get_mut(), "{batch}").unwrap();
    let answers = client.json();
    assert_eq!(answers[0]["result"], Value::Null);
    assert_eq!(answers[1]["error"]["code"], -32601);
    assert_eq!(answers[2]["error"]["code"], -32602);

    server.answer_with(|request| {
        (request.method == "server.banner").then(|| Reply::Result(json!(request.params)))
    });
    assert_eq!(client.call("server.banner", &json!([1])), json!([1]));
    assert_eq!(client.call("server.ping", &json!([])), Value::Null);
    writeln!(client.0.get_mut(), "not json").unwrap();
    assert_eq!(client.json()["error"]["code"], -32700);
}
