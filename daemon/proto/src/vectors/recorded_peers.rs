//! `transcripts/`: complete coinjoins recorded between real peers of both implementations. Every line is read, every
//! signature verified, every box opened, every proof and bond checked, and both the maker's and the
//! taker's checks accept the transaction that was mined.

use std::collections::{HashMap, HashSet};

use bdk_wallet::bitcoin::consensus::encode::deserialize_hex;
use bdk_wallet::bitcoin::hex::FromHex;
use bdk_wallet::bitcoin::{
    Address, Amount, EcdsaSighashType, Network, OutPoint, ScriptBuf, Transaction, Txid, secp256k1,
    sighash::SighashCache,
};
use serde::Deserialize;

use crate::bond_proof::BondProof;
use crate::line::{Recipient, RoutedLine};
use crate::message::{
    Fill, InputSignature, IoAuth, OfferMessage, PubKey, error_text, parse_push, parse_tx,
};
use crate::nacl_box::{NaclBox, NaclPublicKey, NaclSecretKey};
use crate::nick::Nick;
use crate::offer::{Offer, OfferId};
use crate::onion::envelope::{Envelope, MessageType};
use crate::onion::handshake::{DirectoryHandshake, PeerHandshake};
use crate::onion::peerlist;
use crate::podle::{Commitment, Revelation};
use crate::private_message::{NickKey, PrivateWord, UnverifiedMessage};
use crate::public_message;
use crate::secp;
use crate::transaction::taker::{ForeignCoin, UsedPlaces, VerifiedMaker};

#[derive(Deserialize)]
struct File {
    jm_network: String,
    signature_hostid: String,
    parties: HashMap<String, Party>,
    session_box_keys: Vec<BoxKey>,
    transaction: Mined,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Party {
    #[serde(default)]
    nicks: Vec<NickEntry>,
}

#[derive(Deserialize)]
struct NickEntry {
    nick: String,
    privkey: String,
    pubkey: String,
}

#[derive(Deserialize)]
struct BoxKey {
    seckey: String,
    pubkey: String,
}

#[derive(Deserialize)]
struct Mined {
    txid: Txid,
    hex: String,
    inputs: Vec<MinedInput>,
}

#[derive(Deserialize)]
struct MinedInput {
    txid: Txid,
    vout: u32,
    value_sat: u64,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: String,
}

#[derive(Deserialize)]
struct Entry {
    line: Option<String>,
    #[serde(rename = "type")]
    kind: Option<u32>,
    jm: Option<Inner>,
    decrypted: Option<String>,
}

#[derive(Deserialize)]
struct Inner {
    from_nick: String,
    to_nick: String,
    command: Option<String>,
    data: Option<String>,
}

/// What one maker did in the recorded round.
#[derive(Default)]
struct MakerSide {
    key: Option<NaclPublicKey>,
    answer: Option<IoAuth>,
    signatures: Vec<InputSignature>,
}

struct Replay {
    file: File,
    /// Secret keys by the hex of their public keys.
    secrets: HashMap<String, NaclSecretKey>,
    fills: HashMap<(Nick, Nick), Fill>,
    offers: HashMap<(Nick, OfferId), Offer>,
    makers: HashMap<Nick, MakerSide>,
    taker: Option<Nick>,
    tx: Option<Transaction>,
    counts: HashMap<&'static str, usize>,
}

impl Replay {
    fn new(name: &str) -> Self {
        let file: File = super::load(&format!("transcripts/{name}"));
        let secrets = file
            .session_box_keys
            .iter()
            .map(|key| {
                let secret = NaclSecretKey::from_bytes(<[u8; 32]>::from_hex(&key.seckey).unwrap());
                assert_eq!(secret.public_key().to_string(), key.pubkey);
                (key.pubkey.clone(), secret)
            })
            .collect();
        Self {
            file,
            secrets,
            fills: HashMap::new(),
            offers: HashMap::new(),
            makers: HashMap::new(),
            taker: None,
            tx: None,
            counts: HashMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn run(&mut self) {
        for party in self.file.parties.values() {
            for NickEntry { nick, privkey, pubkey } in &party.nicks {
                let key = NickKey::new(privkey.parse().unwrap());
                assert_eq!(key.nick().as_str(), nick);
                assert_eq!(key.public_key().to_string(), *pubkey);
            }
        }
        for entry in std::mem::take(&mut self.file.entries) {
            let Some(line) = &entry.line else { continue };
            let envelope = Envelope::decode(line.as_bytes()).unwrap();
            assert_eq!(Some(envelope.kind.number()), entry.kind);
            self.count("lines");
            match envelope.kind {
                MessageType::Handshake => {
                    PeerHandshake::parse(&envelope.line, &self.file.jm_network).unwrap();
                }
                MessageType::DirectoryHandshake => {
                    DirectoryHandshake::parse(&envelope.line, &self.file.jm_network).unwrap();
                }
                MessageType::PeerList => {
                    assert_eq!(
                        peerlist::parse(&envelope.line).len(),
                        envelope.line.split(',').filter(|entry| entry.contains(';')).count()
                    );
                }
                MessageType::Private | MessageType::Public => self.routed(&envelope.line, &entry),
                _ => assert!(envelope.line.is_empty()),
            }
        }
    }

    fn routed(&mut self, line: &str, entry: &Entry) {
        let expected = entry.jm.as_ref().unwrap();
        let RoutedLine { from, to, text } = RoutedLine::parse(line).unwrap();
        assert_eq!(from.as_str(), expected.from_nick);
        let Recipient::Nick(to) = to else {
            assert_eq!(expected.to_nick, "PUBLIC");
            assert!(!public_message::parse(text).is_empty(), "{text}");
            self.count("public");
            return;
        };
        let message = UnverifiedMessage::parse(text).unwrap();
        let message = message.verify(&from, &self.file.signature_hostid).unwrap();
        self.count("signatures");
        assert_eq!(Some(message.word.as_str()), expected.command.as_deref());
        assert_eq!(Some(message.payload), expected.data.as_deref());
        if message.word.is_sealed() {
            let text = self.open(from, to, message.payload);
            assert_eq!(Some(&text), entry.decrypted.as_ref());
            self.count("boxes");
            self.sealed(from, to, message.word, &text);
        } else {
            self.clear(from, to, message.word, message.payload);
        }
    }

    /// Opens as the maker of the pair, or as the taker when only its key was recorded.
    fn open(&self, from: Nick, to: Nick, payload: &str) -> String {
        let (taker, maker) =
            if self.fills.contains_key(&(from, to)) { (from, to) } else { (to, from) };
        let taker_key = self.fills[&(taker, maker)].key;
        let maker_key = self.makers[&maker].key.unwrap();
        let shared: NaclBox = match self.secrets.get(&maker_key.to_string()) {
            Some(secret) => secret.shared_with(&taker_key).unwrap(),
            None => self.secrets[&taker_key.to_string()].shared_with(&maker_key).unwrap(),
        };
        shared.open(payload).unwrap()
    }

    fn clear(&mut self, from: Nick, to: Nick, word: PrivateWord, payload: &str) {
        match word {
            PrivateWord::Offer(order_type) => {
                let message = OfferMessage::parse(order_type, payload);
                assert!(message.bad.is_empty() && !message.offers.is_empty());
                for offer in message.offers {
                    self.offers.insert((from, offer.id), offer);
                }
                if let Some(bond) = message.bond {
                    BondProof::verify(&bond, &from, &to).unwrap();
                    assert!(BondProof::verify(&bond, &to, &from).is_err());
                    self.count("bonds");
                }
            }
            PrivateWord::Fill => {
                let fill = Fill::parse(payload).unwrap();
                assert_eq!(fill.to_string(), payload);
                self.taker = Some(from);
                self.fills.insert((from, to), fill);
            }
            PrivateWord::PubKey => {
                let key = PubKey::parse(payload).unwrap().key;
                self.makers.entry(from).or_default().key = Some(key);
            }
            PrivateWord::Error => {
                assert!(error_text(payload).contains("too young"), "{payload}");
                self.count("errors");
            }
            PrivateWord::Push => {
                let tx = parse_push(payload).unwrap();
                assert_eq!(tx.compute_txid(), self.file.transaction.txid);
            }
            PrivateWord::Hp2 => {
                Commitment::from_hex(payload).unwrap();
            }
            other => panic!("{other:?} in clear text"),
        }
    }

    fn sealed(&mut self, from: Nick, to: Nick, word: PrivateWord, text: &str) {
        match word {
            PrivateWord::Auth => {
                let revelation: Revelation = text.parse().unwrap();
                let fill = &self.fills[&(from, to)];
                revelation.proof.verify(&fill.commitment, 3).unwrap();
                assert_eq!(revelation.to_string(), text);
                self.count("proofs");
            }
            PrivateWord::IoAuth => {
                let answer = IoAuth::parse(text).unwrap();
                assert_eq!(answer.to_string(), text);
                self.makers.entry(from).or_default().answer = Some(answer);
            }
            PrivateWord::Tx => {
                let tx = parse_tx(text).unwrap();
                assert_eq!(tx.compute_txid(), self.file.transaction.txid);
                self.tx = Some(tx);
            }
            PrivateWord::Sig => {
                let signature = InputSignature::parse(text).unwrap();
                let known = &mut self.makers.entry(from).or_default().signatures;
                if !known.contains(&signature) {
                    known.push(signature);
                }
            }
            other => panic!("{other:?} is not sealed"),
        }
    }

    /// The taker's checks of each maker, the maker's checks of the transaction, and every signature.
    fn check_transaction(&mut self) {
        let mined: Transaction = deserialize_hex(&self.file.transaction.hex).unwrap();
        let mut unsigned = mined.clone();
        unsigned.input.iter_mut().for_each(|input| input.witness.clear());
        assert_eq!(self.tx, Some(unsigned.clone()));
        let coins: HashMap<OutPoint, ForeignCoin> = self
            .file
            .transaction
            .inputs
            .iter()
            .map(|input| {
                let outpoint = OutPoint { txid: input.txid, vout: input.vout };
                let script = ScriptBuf::from_bytes(Vec::from_hex(&input.script_pubkey).unwrap());
                let value = input.value_sat;
                (outpoint, ForeignCoin { outpoint, value, script, confirmations: 1 })
            })
            .collect();
        let taker = self.taker.unwrap();
        let mut used = UsedPlaces::default();
        let mut signed: HashSet<OutPoint> = HashSet::new();
        let participants: Vec<Nick> = self
            .makers
            .iter()
            .filter(|(_, side)| !side.signatures.is_empty())
            .map(|(nick, _)| *nick)
            .collect();
        assert!(!participants.is_empty());
        for maker in participants {
            let side = &self.makers[&maker];
            let answer = side.answer.as_ref().unwrap();
            let fill = &self.fills[&(taker, maker)];
            let offer = self.offers[&(maker, fill.offer)];
            let own: Vec<Option<ForeignCoin>> =
                answer.utxos.iter().map(|utxo| coins.get(&utxo.outpoint).cloned()).collect();
            let verified = VerifiedMaker::check(
                maker,
                &offer,
                fill.amount,
                answer,
                &side.key.unwrap(),
                &own,
                Network::Regtest,
                &used,
            )
            .unwrap();
            used.add(verified.outpoints(), verified.scripts());
            // What this maker was promised is in the transaction.
            let script = |text: &str| {
                let address: Address<_> = text.parse().unwrap();
                address.require_network(Network::Regtest).unwrap().script_pubkey()
            };
            let paid = |script: &ScriptBuf| -> Vec<u64> {
                let ours = mined.output.iter().filter(|output| output.script_pubkey == *script);
                ours.map(|output| output.value.to_sat()).collect()
            };
            let inputs: u64 = own.iter().flatten().map(|coin| coin.value).sum();
            let change =
                crate::transaction::fees::maker_change(&offer, fill.amount, inputs).unwrap();
            assert_eq!(paid(&script(&answer.cj_address)), [fill.amount]);
            let [paid_change] = paid(&script(&answer.change_address))[..] else {
                panic!("one change output")
            };
            assert!(paid_change >= change);
            for signature in &side.signatures {
                signed.extend(self.verify_signature(&unsigned, &coins, answer, signature));
            }
            assert_eq!(
                side.signatures.len(),
                answer.utxos.len(),
                "one signature for each coin of {maker}"
            );
        }
        self.counts.insert("signed inputs", signed.len());
    }

    fn verify_signature(
        &self,
        tx: &Transaction,
        coins: &HashMap<OutPoint, ForeignCoin>,
        answer: &IoAuth,
        signature: &InputSignature,
    ) -> Option<OutPoint> {
        let mut cache = SighashCache::new(tx);
        let (_, der) = signature.signature.split_last().unwrap();
        let parsed = secp256k1::ecdsa::Signature::from_der(der).unwrap();
        let mut owned = None;
        for (index, input) in tx.input.iter().enumerate() {
            let outpoint = input.previous_output;
            if !answer.utxos.iter().any(|utxo| utxo.outpoint == outpoint) {
                continue;
            }
            let coin = &coins[&outpoint];
            let hash = cache
                .p2wpkh_signature_hash(
                    index,
                    &coin.script,
                    Amount::from_sat(coin.value),
                    EcdsaSighashType::All,
                )
                .unwrap();
            let digest = secp256k1::Message::from(hash);
            if secp().verify_ecdsa(&digest, &parsed, &signature.key).is_ok() {
                owned = Some(outpoint);
            }
        }
        assert!(owned.is_some(), "a recorded signature that is good for no input of its maker");
        owned
    }
}

fn replay(name: &str) -> HashMap<&'static str, usize> {
    let mut replay = Replay::new(name);
    replay.run();
    replay.check_transaction();
    replay.counts
}

#[test]
fn joinmarket_ng_taker_and_makers_through_a_directory() {
    let counts = replay("ng_taker_ng_makers_via_directory");
    assert!(counts["boxes"] >= 12 && counts["proofs"] >= 3, "{counts:?}");
}

#[test]
fn joinmarket_ng_taker_with_makers_of_both_kinds() {
    let counts = replay("ng_taker_mixed_makers_direct");
    assert!(counts["bonds"] >= 1 && counts["signed inputs"] >= 6, "{counts:?}");
}

#[test]
fn reference_taker_with_makers_of_both_kinds() {
    let counts = replay("reference_taker_mixed_makers_direct");
    assert!(counts["bonds"] >= 1 && counts["signed inputs"] >= 6, "{counts:?}");
}

#[test]
fn reference_taker_whose_commitment_is_too_young_for_some() {
    let counts = replay("reference_taker_some_makers_refuse_young_commitment");
    assert!(counts["errors"] >= 1, "{counts:?}");
}
