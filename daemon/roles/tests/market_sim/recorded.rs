//! Our taker among the recorded makers of both implementations (`tests/vectors/transcripts/`): it asks them for the
//! recorded amount, gets their recorded keys, coins, addresses and signatures over session keys, and pays them.
//!
//! What a maker sealed for the recorded taker is sealed again for ours. Signatures in the transaction are made anew by
//! the keys of the makers' wallets, because our transaction is another one; the makers' own rules decide whether they
//! are given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::hex::FromHex;
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::{Address, Network, OutPoint, ScriptBuf, Txid};
use joinery_proto::message::{Fill, IoAuth, OfferMessage, parse_tx};
use joinery_proto::nacl_box::NaclSecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::Revelation;
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::MakerShare;
use joinery_proto::transaction::signing::OwnCoin;
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use joinery_roles::order_book::{Book, BookOffer, BookPhase};
use joinery_roles::taker::{MakerFailure, Outcome, Output, Reason, Taker, TakerPolicy, TakerSetup};
use joinery_wallet::keys::{ImportedKeys, MasterKey};
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::types::{Branch, Keychain, Mixdepth, WalletType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::chain::{Chain, ChainCoin};
use crate::fake_maker::secret;
use crate::stage::request;
use crate::stories::plain;
use crate::wallet::FakeWallet;

/// What a maker of the recording said, and the keys behind it.
struct Maker {
    key: NickKey,
    entropy: Vec<u8>,
    offer: Option<Offer>,
    /// Answer to `!fill`, and the session key that it names.
    pubkey: Option<(String, NaclSecretKey)>,
    io: Option<IoAuth>,
    /// Answer to `!auth`.
    error: Option<String>,
    fill: Option<Fill>,
    share: Option<(MakerShare, Vec<OwnCoin>)>,
}

struct Recording {
    amount: u64,
    makers: BTreeMap<Nick, Maker>,
    coins: HashMap<OutPoint, (u64, ScriptBuf)>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn load(name: &str) -> Recording {
    let path = format!("{}/tests/vectors/transcripts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let entries = file["entries"].as_array().unwrap();
    let fills = entries.iter().filter(|entry| text(entry, "/jm/command") == "fill");
    let asked: Vec<Nick> = fills.clone().map(|e| text(e, "/jm/to_nick").parse().unwrap()).collect();
    let amount = fills.clone().map(|entry| Fill::parse(text(entry, "/jm/data")).unwrap().amount);
    let amount = amount.max().unwrap();
    let secrets: HashMap<String, NaclSecretKey> = file["session_box_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            let bytes = <[u8; 32]>::from_hex(text(key, "/seckey")).unwrap();
            (text(key, "/pubkey").to_owned(), NaclSecretKey::from_bytes(bytes))
        })
        .collect();
    let mut makers = BTreeMap::new();
    for party in file["parties"].as_object().unwrap().values() {
        for nick in party["nicks"].as_array().into_iter().flatten() {
            let name: Nick = text(nick, "/nick").parse().unwrap();
            if text(party, "/role") == "maker" && asked.contains(&name) {
                let key: SecretKey = text(nick, "/privkey").parse().unwrap();
                let entropy = Vec::from_hex(text(party, "/bip39_entropy")).unwrap();
                let maker = Maker {
                    key: NickKey::new(key),
                    entropy,
                    offer: None,
                    pubkey: None,
                    io: None,
                    error: None,
                    fill: None,
                    share: None,
                };
                makers.insert(name, maker);
            }
        }
    }
    for entry in entries {
        let Ok(from) = text(entry, "/jm/from_nick").parse::<Nick>() else { continue };
        let Some(maker) = makers.get_mut(&from) else { continue };
        let (word, data) = (text(entry, "/jm/command"), text(entry, "/jm/data"));
        match word {
            "pubkey" => {
                let public = data.split(' ').next().unwrap();
                let secret = secrets.get(public).cloned();
                maker.pubkey =
                    secret.map(|secret| (data.to_owned(), secret)).or_else(|| maker.pubkey.take());
            }
            "ioauth" => maker.io = Some(IoAuth::parse(text(entry, "/decrypted")).unwrap()),
            "error" => maker.error = Some(data.to_owned()),
            _ => {
                if let Some(kind) = OrderType::parse(word) {
                    maker.offer = OfferMessage::parse(kind, data).offers.first().copied();
                }
            }
        }
    }
    let inputs = file["transaction"]["inputs"].as_array().unwrap().iter().map(|input| {
        let txid: Txid = text(input, "/txid").parse().unwrap();
        let vout = u32::try_from(input["vout"].as_u64().unwrap()).unwrap();
        let script = ScriptBuf::from_hex(text(input, "/scriptPubKey")).unwrap();
        (OutPoint { txid, vout }, (input["value_sat"].as_u64().unwrap(), script))
    });
    Recording { amount, makers, coins: inputs.collect() }
}

/// The key of a script of a wallet, wherever it stands.
fn key_of(keys: &MasterKey, script: &ScriptBuf) -> SecretKey {
    for mixdepth in 0..5 {
        for branch in [Branch::External, Branch::Internal] {
            let keychain = Keychain { mixdepth: Mixdepth(mixdepth), branch };
            for index in 0..60 {
                let signer = keys.signer(&ScriptPlace::Ranged { keychain, index }).unwrap();
                if signer.script_pubkey() == script {
                    return *signer.secret_key();
                }
            }
        }
    }
    panic!("the wallet of the recording has no key for {script}");
}

fn script(address: &str) -> ScriptBuf {
    let address: Address<_> = address.parse().unwrap();
    address.require_network(Network::Regtest).unwrap().script_pubkey()
}

impl Maker {
    /// What it says to a message.
    fn answer(
        &mut self,
        word: PrivateWord,
        payload: &str,
        coins: &HashMap<OutPoint, (u64, ScriptBuf)>,
    ) -> Vec<(PrivateWord, String)> {
        let Some((key_text, session)) = &self.pubkey else { return Vec::new() };
        if word == PrivateWord::Fill {
            self.fill = Some(Fill::parse(payload).unwrap());
            return vec![(PrivateWord::PubKey, key_text.clone())];
        }
        let fill = self.fill.as_ref().expect("it was asked first");
        let shared = session.shared_with(&fill.key).unwrap();
        let opened = shared.open(payload).unwrap_or_default();
        match (word, &self.io) {
            (PrivateWord::Auth, io) => {
                let revelation: Revelation = opened.parse().unwrap();
                revelation.proof.verify(&fill.commitment, 3).unwrap();
                // joinmarket-ng announces with its key that it understands the long form; the reference chokes on it.
                let extended = key_text.contains("neutrino_compat");
                assert_eq!(revelation.utxo.hint.is_some(), extended);
                match (io, &self.error) {
                    (Some(io), _) => {
                        vec![(PrivateWord::IoAuth, shared.seal([5; 24], &io.to_string()))]
                    }
                    (None, Some(error)) => vec![(PrivateWord::Error, error.clone())],
                    (None, None) => Vec::new(),
                }
            }
            (PrivateWord::Tx, Some(io)) => {
                let (share, own) = self.share.get_or_insert_with(|| {
                    let keys = MasterKey::from_entropy(
                        &self.entropy,
                        None,
                        WalletType::NativeSegwit,
                        joinery_wallet::types::Network::Regtest,
                        ImportedKeys::default(),
                    )
                    .unwrap();
                    let coins = io.utxos.iter().map(|utxo| {
                        let (value, script) = &coins[&utxo.outpoint];
                        OwnCoin::new(utxo.outpoint, *value, key_of(&keys, script))
                    });
                    let own: Vec<OwnCoin> = coins.collect();
                    let share = MakerShare {
                        agreement: Agreement::of(&self.offer.unwrap(), fill.amount),
                        coins: own.iter().map(OwnCoin::lent).collect(),
                        cj_script: script(&io.cj_address),
                        change_script: script(&io.change_address),
                    };
                    (share, own)
                });
                let tx = parse_tx(&opened).unwrap();
                let signatures = share.verify(tx, Some(2_000)).unwrap().sign(own).unwrap();
                let sealed = (1..).zip(&signatures).map(|(nonce, signature)| {
                    (PrivateWord::Sig, shared.seal([nonce; 24], &signature.to_string()))
                });
                sealed.collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Plays a recording with as many makers as it has.
fn play(name: &str, minimum: u8) -> (Outcome, BTreeMap<Nick, Maker>, Chain) {
    let Recording { amount, mut makers, coins } = load(name);
    let mut chain = Chain::new();
    chain.height = 2_000;
    for (outpoint, (value, script)) in &coins {
        let coin =
            ChainCoin { value: *value, script: script.clone(), height: Some(500), spent_by: None };
        chain.coins.insert(*outpoint, coin);
    }
    let mut wallet = FakeWallet::new("replay");
    for value in [amount + 5_000_000, amount] {
        wallet.fund(&mut chain, 0, value, 20);
    }
    let mut now = Duration::from_secs(100);
    let offers = makers.iter().map(|(nick, maker)| BookOffer {
        nick: *nick,
        offer: maker.offer.expect("takers are told of an offer"),
        signed: true,
        disputed: false,
        heard: now,
        directories: vec![DirectoryId(0)],
        direct: true,
        bond_value: 0.0,
    });
    let book = Book {
        made: now,
        phase: BookPhase::Complete,
        completed: Some(now),
        offers: offers.collect(),
        ..Book::empty()
    };
    let counterparties = u8::try_from(makers.len()).unwrap();
    let mut wanted = request(counterparties);
    wanted.amount = amount;
    let setup = TakerSetup {
        request: wanted,
        policy: TakerPolicy { minimum_makers: minimum, ..plain() },
        nick: NickKey::new(secret("replaying taker")).nick(),
        own_nicks: Default::default(),
        avoid: Default::default(),
        epoch: 1_700_000_000,
    };
    let mut taker = Taker::new(setup, Arc::new(wallet.view(&chain)), Arc::new(book), [4; 32], now);
    let via = Source::Directory(DirectoryId(0));
    taker.heard(&ChannelEvent::Up(via), now);
    let mut rng = StdRng::seed_from_u64(1);
    loop {
        let Some(output) = taker.poll() else {
            now = taker.next_wake().unwrap();
            taker.tick(now);
            continue;
        };
        match output {
            Output::Send { to, word, payload, .. } => {
                let maker = makers.get_mut(&to).unwrap();
                for (word, payload) in maker.answer(word, &payload, &coins) {
                    let text = maker.key.sign_message(word, &payload, "onion-network");
                    taker.heard(&ChannelEvent::Private { from: to, via, text }, now);
                }
            }
            Output::Ask(id, question) => {
                let answer = wallet.answer(question, &mut chain, &mut rng);
                taker.answered(id, answer, now);
                for round in wallet.notice(&chain) {
                    taker.followed(&round, now);
                }
            }
            Output::Finished(outcome) => return (*outcome, makers, chain),
            Output::RefreshBook | Output::Progress(_) => {}
        }
    }
}

#[test]
fn recorded_makers_of_both_implementations_complete_our_coinjoin() {
    for (name, count) in [
        ("ng_taker_mixed_makers_direct", 6),
        ("ng_taker_ng_makers_via_directory", 3),
        ("reference_taker_mixed_makers_direct", 6),
    ] {
        let (outcome, makers, chain) = play(name, 3);
        assert_eq!(outcome.verdict.reason, Reason::Complete, "{name}: {:?}", outcome.failed);
        assert_eq!((makers.len(), outcome.honest.len()), (count, count), "{name}");
        // Every maker got exactly what it asked for.
        let tx = &chain.transactions[&outcome.txid.unwrap()];
        for maker in makers.values() {
            let (share, _) = maker.share.as_ref().unwrap();
            let paid: u64 = tx
                .output
                .iter()
                .filter(|o| [&share.cj_script, &share.change_script].contains(&&o.script_pubkey))
                .map(|output| output.value.to_sat())
                .sum();
            let earned = i128::from(paid) - i128::from(share.input_value());
            assert_eq!(earned, share.agreement.earning(), "{name}");
        }
    }
}

/// joinmarket-ng makers answer `!auth` in clear text; nothing is waited for.
#[test]
fn recorded_refusals_of_a_young_commitment_are_acted_on_at_once() {
    let name = "reference_taker_some_makers_refuse_young_commitment";
    let (outcome, makers, _) = play(name, 1);
    let refused = makers.values().filter(|maker| maker.error.is_some()).count();
    assert!(refused > 0);
    let told = |failure: &&MakerFailure| failure.code == "counterparty_error";
    assert_eq!(outcome.failed.values().filter(told).count(), refused, "{:?}", outcome.failed);
    assert_eq!(outcome.verdict.reason, Reason::Complete, "{:?}", outcome.verdict);
}
