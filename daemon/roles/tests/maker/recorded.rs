//! Our maker in the place of each recorded one (`tests/vectors/transcripts/`): real takers of both implementations
//! fill its offer, open their commitment and show their transaction.
//!
//! What the taker sealed for the recorded maker is sealed again for ours; everything else is as it was sent.

use std::collections::HashMap;

use bdk_wallet::bitcoin::hex::FromHex;
use bdk_wallet::bitcoin::{Address, Network, OutPoint, ScriptBuf, Txid};
use joinery_proto::cjfee::CjFee;
use joinery_proto::message::{Fill, IoAuth, OfferMessage, PubKey, parse_tx};
use joinery_proto::nacl_box::{NaclBox, NaclSecretKey};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::Revelation;
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_proto::transaction::signing::p2wpkh;
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_roles::maker::{MakerConfig, MakerTerms};
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::snapshot::CoinKind;
use serde_json::Value;

use crate::stage::{DIRECTORY, FakeCoin, FakeWallet, Stage, error_text, key, words};

/// What the recorded taker said to one maker.
#[derive(Default)]
struct Heard {
    offer: Option<Offer>,
    fill: Option<String>,
    auth: Option<String>,
    io: Option<IoAuth>,
    tx: Option<String>,
    signatures: usize,
    error: Option<String>,
}

struct Recording {
    taker: Nick,
    taker_key: NickKey,
    taker_secret: [u8; 32],
    /// Inputs of the transaction: value and script.
    inputs: HashMap<OutPoint, (u64, ScriptBuf)>,
    makers: HashMap<Nick, Heard>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn load(name: &str) -> Recording {
    let path = format!("{}/tests/vectors/transcripts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let entries = file["entries"].as_array().unwrap();
    let fill = entries.iter().find(|entry| text(entry, "/jm/command") == "fill").unwrap();
    let taker: Nick = text(fill, "/jm/from_nick").parse().unwrap();
    let nicks = file["parties"].as_object().unwrap().values();
    let nicks = nicks.filter_map(|party| party["nicks"].as_array()).flatten();
    let own = nicks.clone().find(|nick| text(nick, "/nick") == taker.as_str()).unwrap();
    let taker_key = NickKey::new(text(own, "/privkey").parse().unwrap());
    let session = Fill::parse(text(fill, "/jm/data")).unwrap().key.to_string();
    let keys = file["session_box_keys"].as_array().unwrap();
    let secret = keys.iter().find(|key| text(key, "/pubkey") == session).unwrap();
    let taker_secret = <[u8; 32]>::from_hex(text(secret, "/seckey")).unwrap();
    let inputs = file["transaction"]["inputs"].as_array().unwrap().iter().map(|input| {
        let txid: Txid = text(input, "/txid").parse().unwrap();
        let vout = u32::try_from(input["vout"].as_u64().unwrap()).unwrap();
        let script = ScriptBuf::from_hex(text(input, "/scriptPubKey")).unwrap();
        (OutPoint { txid, vout }, (input["value_sat"].as_u64().unwrap(), script))
    });
    let mut makers: HashMap<Nick, Heard> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for entry in entries {
        let (from, to) = (text(entry, "/jm/from_nick"), text(entry, "/jm/to_nick"));
        let (Ok(from), Ok(to)) = (from.parse::<Nick>(), to.parse::<Nick>()) else { continue };
        let (word, data) = (text(entry, "/jm/command"), text(entry, "/jm/data"));
        // A relayed message occurs twice.
        if !seen.insert((from, to, word.to_owned(), data.to_owned())) {
            continue;
        }
        let opened = text(entry, "/decrypted");
        if from == taker {
            let heard = makers.entry(to).or_default();
            match word {
                "fill" => heard.fill = Some(data.to_owned()),
                "auth" => heard.auth = Some(opened.to_owned()),
                "tx" => heard.tx = Some(opened.to_owned()),
                _ => {}
            }
        } else if to == taker {
            let heard = makers.entry(from).or_default();
            match word {
                "ioauth" => heard.io = Some(IoAuth::parse(opened).unwrap()),
                "sig" => heard.signatures += 1,
                "error" => heard.error = Some(data.to_owned()),
                _ => {
                    if let Some(order_type) = OrderType::parse(word) {
                        let offers = OfferMessage::parse(order_type, data).offers;
                        heard.offer =
                            offers.into_iter().find(|offer| offer.id.get() == 0).or(heard.offer);
                    }
                }
            }
        }
    }
    makers.retain(|_, heard| heard.fill.is_some());
    Recording { taker, taker_key, taker_secret, inputs: inputs.collect(), makers }
}

/// Our maker with the coins, addresses and terms of the recorded one.
fn stage(recording: &Recording, nick: Nick, heard: &Heard, confirmations: u32) -> Stage {
    let offer = heard.offer.expect("the taker was told of an offer");
    let mut terms = MakerTerms::new(offer.order_type);
    terms.min_size = offer.min_size;
    terms.tx_fee = offer.tx_fee;
    match offer.cj_fee {
        CjFee::Relative(fee) => terms.relative_fee = fee,
        CjFee::Absolute(fee) => terms.absolute_fee = fee - offer.tx_fee,
    }
    let mut config = MakerConfig::new(nick, terms, 1_700_000_000);
    config.rules.merge_algorithm = MergeAlgorithm::Greediest;
    let mut wallet = FakeWallet::new();
    match &heard.io {
        Some(io) => {
            for (number, utxo) in (0..).zip(&io.utxos) {
                let known = recording.inputs.get(&utxo.outpoint);
                let coin = FakeCoin {
                    outpoint: utxo.outpoint,
                    value: known.map_or(100_000_000, |(value, _)| *value),
                    mixdepth: 1,
                    height: Some(500),
                    frozen: false,
                    locktime: None,
                    kind: CoinKind::Deposit,
                    key: key(0xc0, number),
                };
                wallet.coins.push(coin);
            }
            for address in [&io.cj_address, &io.change_address] {
                let address: Address<_> = address.parse().unwrap();
                wallet.preset.push_back(address.require_network(Network::Regtest).unwrap());
            }
        }
        None => drop(wallet.fund(1, 1_000_000_000)),
    }
    for (outpoint, (value, script)) in &recording.inputs {
        let (outpoint, value, script) = (*outpoint, *value, script.clone());
        wallet.chain.insert(outpoint, ForeignCoin { outpoint, value, script, confirmations });
    }
    if let Some(auth) = &heard.auth {
        let revelation: Revelation = auth.parse().unwrap();
        let outpoint = revelation.utxo.outpoint;
        let key = auth.split('|').nth(1).unwrap().parse().unwrap();
        let coin =
            ForeignCoin { outpoint, value: 500_000_000, script: p2wpkh(&key), confirmations };
        wallet.chain.entry(outpoint).or_insert(coin);
    }
    wallet.height = 1_000;
    Stage::open(config, wallet)
}

/// Says a sealed message of the taker again, to our maker.
fn say(
    stage: &mut Stage,
    recording: &Recording,
    shared: &NaclBox,
    word: PrivateWord,
    text: &str,
) -> Vec<(PrivateWord, String)> {
    stage.take_left();
    let nonce = if word == PrivateWord::Auth { [1; 24] } else { [2; 24] };
    let sealed = shared.seal(nonce, text);
    stage.private(&recording.taker_key, DIRECTORY, word, &sealed);
    stage.said_to(recording.taker)
}

/// Plays one maker; how many signatures it gave, or what it refused with.
fn play(
    recording: &Recording,
    nick: Nick,
    heard: &Heard,
    confirmations: u32,
) -> Result<usize, String> {
    let mut stage = stage(recording, nick, heard, confirmations);
    stage.take_left();
    let fill = heard.fill.as_ref().unwrap();
    stage.private(&recording.taker_key, DIRECTORY, PrivateWord::Fill, fill);
    let said = stage.said_to(recording.taker);
    if let Some(error) = error_text(&said) {
        return Err(error.to_owned());
    }
    assert_eq!(words(&said), ["pubkey"]);
    let our_key = PubKey::parse(&said[0].1).unwrap().key;
    let secret = NaclSecretKey::from_bytes(recording.taker_secret);
    let shared = secret.shared_with(&our_key).unwrap();
    let Some(auth) = &heard.auth else { return Ok(0) };
    let said = say(&mut stage, recording, &shared, PrivateWord::Auth, auth);
    if let Some(error) = error_text(&said) {
        return Err(error.to_owned());
    }
    assert_eq!(words(&said), ["ioauth"]);
    let io = IoAuth::parse(&shared.open(&said[0].1).unwrap()).unwrap();
    let extended = auth.split('|').next().unwrap().matches(':').count() == 3;
    assert!(io.utxos.iter().all(|utxo| utxo.hint.is_some() == extended));
    let Some(tx) = &heard.tx else { return Ok(0) };
    // Coins that our choice does not need are not ours for this replay.
    let shown: Vec<OutPoint> = io.utxos.iter().map(|utxo| utxo.outpoint).collect();
    stage.wallet.coins.retain(|coin| shown.contains(&coin.outpoint));
    stage.refresh();
    let said = say(&mut stage, recording, &shared, PrivateWord::Tx, tx);
    assert!(said.iter().all(|(word, _)| *word == PrivateWord::Sig), "{said:?}");
    let spent = parse_tx(tx).unwrap().compute_txid();
    assert_eq!(stage.wallet.rounds()[0].signed[0].0, spent);
    Ok(said.len())
}

fn replay(name: &str, confirmations: u32) -> Vec<Result<usize, String>> {
    let recording = load(name);
    let mut makers: Vec<_> = recording.makers.iter().collect();
    makers.sort_by_key(|(nick, _)| **nick);
    makers
        .into_iter()
        .map(|(nick, heard)| {
            let result = play(&recording, *nick, heard, confirmations);
            if let Ok(signatures) = result {
                assert!(signatures <= heard.signatures, "{name}: {nick}");
                assert_eq!(signatures > 0, heard.tx.is_some(), "{name}: {nick}");
            }
            result
        })
        .collect()
}

#[test]
fn recorded_takers_get_the_signatures_of_our_maker() {
    for (name, makers) in [
        ("ng_taker_mixed_makers_direct", 6),
        ("ng_taker_ng_makers_via_directory", 3),
        ("reference_taker_mixed_makers_direct", 6),
    ] {
        let results = replay(name, 10);
        assert_eq!(results.len(), makers, "{name}");
        assert!(results.iter().all(|result| matches!(result, Ok(1..))), "{name}: {results:?}");
    }
}

#[test]
fn recorded_young_commitment_is_refused_and_an_old_one_served() {
    let name = "reference_taker_some_makers_refuse_young_commitment";
    let recording = load(name);
    let refused = recording.makers.values().filter(|heard| heard.error.is_some()).count();
    assert!(refused > 0);
    let results = replay(name, 2);
    assert_eq!(results.len(), 4);
    let rejected = |result: &Result<usize, String>| {
        result.as_ref().is_err_and(|error| error == "commitment rejected: age")
    };
    assert!(results.iter().all(rejected), "{results:?}");
    let results = replay(name, 5);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(1..))).count(), 1);
}
