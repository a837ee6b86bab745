//! Makers whose every word a test decides: honest ones and all kinds of others.

use std::collections::BTreeSet;

use joinery_proto::bitcoin::hashes::{Hash, sha256};
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::{Address, Network, OutPoint, ScriptBuf, Transaction};
use joinery_proto::message::{Fill, InputSignature, IoAuth, PubKey, parse_push, parse_tx};
use joinery_proto::nacl_box::{NaclBox, NaclSecretKey};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::podle::{Commitment, Revelation};
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_proto::signature;
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::MakerShare;
use joinery_proto::transaction::signing::OwnCoin;
use joinery_proto::utxo::WireUtxo;
use rand::Rng;
use rand::rngs::StdRng;

use crate::chain::Chain;
use crate::wallet::FakeWallet;

/// What a maker does. Everything but the first costs the taker something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Honest,
    /// Understands extended coin texts.
    Neutrino,
    SilentAtFill,
    SilentAtAuth,
    SilentAtTx,
    RefusesFill,
    SaysBlacklisted,
    ErrorAtAuth,
    WeakKey,
    ForeignSessionKey,
    SpentCoin,
    UnconfirmedCoin,
    DustChange,
    /// Names a coin of the taker that is told to it out of band.
    TakersCoin,
    ManyInputs,
    SameAddresses,
    ForeignNetwork,
    BadSignatures,
    /// Signs the first transaction and closes its session, as joinmarket-ng does.
    SignsOnce,
    /// Signs, and spends its coin elsewhere before the transaction is complete.
    Steals,
    NeverPushes,
    /// Answers after this many seconds.
    Slow(u64),
}

pub(crate) const BAD: [Behaviour; 17] = [
    Behaviour::SilentAtFill,
    Behaviour::SilentAtFill,
    Behaviour::SilentAtAuth,
    Behaviour::SilentAtTx,
    Behaviour::RefusesFill,
    Behaviour::SaysBlacklisted,
    Behaviour::ErrorAtAuth,
    Behaviour::WeakKey,
    Behaviour::ForeignSessionKey,
    Behaviour::SpentCoin,
    Behaviour::UnconfirmedCoin,
    Behaviour::DustChange,
    Behaviour::ManyInputs,
    Behaviour::SameAddresses,
    Behaviour::BadSignatures,
    Behaviour::Steals,
    Behaviour::Slow(90),
];

struct Session {
    taker: Nick,
    amount: u64,
    commitment: Commitment,
    shared: NaclBox,
    public: String,
    share: Option<MakerShare>,
    signed: u32,
}

pub(crate) struct FakeMaker {
    pub(crate) key: NickKey,
    pub(crate) nick: Nick,
    pub(crate) offer: Offer,
    pub(crate) behaviour: Behaviour,
    pub(crate) wallet: FakeWallet,
    pub(crate) coins: Vec<OwnCoin>,
    pub(crate) blacklist: BTreeSet<Commitment>,
    pub(crate) takers_coin: Option<OutPoint>,
    /// Payload of the last `!auth`, opened.
    pub(crate) revelations: Vec<String>,
    pub(crate) fills: Vec<Fill>,
    /// Transactions that it was shown.
    pub(crate) shown: Vec<Transaction>,
    sessions: Vec<Session>,
    pub(crate) worth: u64,
}

pub(crate) fn secret(text: &str) -> SecretKey {
    SecretKey::from_slice(&sha256::Hash::hash(text.as_bytes()).to_byte_array()).unwrap()
}

fn address(script: &ScriptBuf) -> String {
    Address::from_script(script, Network::Regtest).unwrap().to_string()
}

impl FakeMaker {
    pub(crate) fn new(index: usize, behaviour: Behaviour, fee: &str, chain: &mut Chain) -> Self {
        let key = NickKey::new(secret(&format!("nick {index}")));
        let kind = if fee.contains('.') { OrderType::Sw0Relative } else { OrderType::Sw0Absolute };
        let mut maker = Self {
            nick: key.nick(),
            key,
            offer: Offer::parse(kind, &format!("0 27300 100000000 0 {fee}")).unwrap(),
            behaviour,
            wallet: FakeWallet::new(&format!("maker {index}")),
            coins: Vec::new(),
            blacklist: BTreeSet::new(),
            takers_coin: None,
            revelations: Vec::new(),
            fills: Vec::new(),
            shown: Vec::new(),
            sessions: Vec::new(),
            worth: 0,
        };
        let count = 1 + index % 2;
        for number in 0..count {
            let value = if behaviour == Behaviour::DustChange { 1 } else { 60_000_000 };
            let secret = secret(&format!("coin {index} {number}"));
            let script = joinery_proto::transaction::signing::p2wpkh(
                &secret.public_key(joinery_proto::secp()),
            );
            let age = u32::from(behaviour != Behaviour::UnconfirmedCoin) * 20;
            let outpoint = chain.fund(script, value, age);
            if behaviour == Behaviour::SpentCoin {
                chain.steal(&outpoint);
            }
            maker.coins.push(OwnCoin::new(outpoint, value, secret));
            maker.worth += value;
        }
        maker
    }

    pub(crate) fn owns(&self, script: &ScriptBuf) -> bool {
        self.wallet.owns(script) || self.coins.iter().any(|coin| coin.script() == script)
    }

    /// Hears a private message; returns answers, and a commitment to be published.
    pub(crate) fn hear(
        &mut self,
        from: Nick,
        word: PrivateWord,
        payload: &str,
        chain: &mut Chain,
        rng: &mut StdRng,
    ) -> (Vec<(PrivateWord, String)>, Option<Commitment>) {
        match word {
            PrivateWord::Fill => (self.fill(from, payload, rng).into_iter().collect(), None),
            PrivateWord::Auth => self.auth(from, payload, chain, rng),
            PrivateWord::Tx => (self.tx(from, payload, chain, rng), None),
            PrivateWord::Push => {
                if !matches!(self.behaviour, Behaviour::NeverPushes) {
                    let _ = chain.send(&parse_push(payload).unwrap());
                }
                (Vec::new(), None)
            }
            _ => (Vec::new(), None),
        }
    }

    fn fill(
        &mut self,
        from: Nick,
        payload: &str,
        rng: &mut StdRng,
    ) -> Option<(PrivateWord, String)> {
        let fill = Fill::parse(payload).expect("takers send good fills");
        self.fills.push(fill.clone());
        let error = |text: String| Some((PrivateWord::Error, text));
        match self.behaviour {
            Behaviour::SilentAtFill => return None,
            Behaviour::RefusesFill => return error("amount out of range".to_owned()),
            Behaviour::SaysBlacklisted => {
                return error(format!("Commitment is blacklisted: {}", fill.commitment));
            }
            _ => {}
        }
        if self.blacklist.contains(&fill.commitment) {
            return error(format!("Commitment is blacklisted: {}", fill.commitment));
        }
        assert!(self.offer.accepts(fill.amount), "makers are asked for what they offer");
        assert_eq!(fill.offer, self.offer.id);
        let secret = NaclSecretKey::from_bytes(rng.random());
        let public = secret.public_key();
        self.sessions.retain(|session| session.taker != from);
        self.sessions.push(Session {
            taker: from,
            amount: fill.amount,
            commitment: fill.commitment,
            shared: secret.shared_with(&fill.key).unwrap(),
            public: public.to_string(),
            share: None,
            signed: 0,
        });
        let neutrino_compat = self.behaviour == Behaviour::Neutrino;
        let mut answer = PubKey { key: public, neutrino_compat }.to_string();
        if self.behaviour == Behaviour::WeakKey {
            answer = "00".repeat(32);
        }
        Some((PrivateWord::PubKey, answer))
    }

    fn auth(
        &mut self,
        from: Nick,
        payload: &str,
        chain: &Chain,
        rng: &mut StdRng,
    ) -> (Vec<(PrivateWord, String)>, Option<Commitment>) {
        let nothing = (Vec::new(), None);
        let Some(session) = self.sessions.iter_mut().find(|session| session.taker == from) else {
            return nothing;
        };
        let Ok(text) = session.shared.open(payload) else { return nothing };
        if session.share.is_some() {
            return nothing;
        }
        self.revelations.push(text.clone());
        let revelation: Revelation = text.parse().expect("takers reveal well");
        let extended = revelation.utxo.hint.is_some();
        assert!(!extended || self.behaviour == Behaviour::Neutrino, "others choke on this form");
        revelation.proof.verify(&session.commitment, 3).expect("a good proof");
        let coin = chain.look_up(&revelation.utxo.outpoint).expect("the coin is unspent");
        assert!(revelation.proof.owns_script(&coin.script), "the key owns the coin");
        assert!(coin.confirmations >= 5 && coin.value >= session.amount / 5);
        if self.behaviour == Behaviour::ErrorAtAuth {
            let text = "Taker's UTXO too young: 2 < 5".to_owned();
            return (vec![(PrivateWord::Error, text)], None);
        }
        let commitment = session.commitment;
        if self.behaviour == Behaviour::SilentAtAuth {
            return (Vec::new(), Some(commitment));
        }
        let scripts = [self.wallet.script(1), self.wallet.script(0)];
        let [cj_script, mut change_script] = scripts;
        let mut utxos: Vec<WireUtxo> =
            self.coins.iter().map(|coin| WireUtxo::plain(coin.outpoint)).collect();
        let first = &self.coins[0];
        let mut signer = *first.secret_key();
        match self.behaviour {
            Behaviour::ForeignSessionKey => signer = secret("somebody else"),
            Behaviour::SameAddresses => change_script.clone_from(&cj_script),
            Behaviour::TakersCoin => {
                utxos.push(WireUtxo::plain(self.takers_coin.expect("told by the test")));
            }
            Behaviour::ManyInputs => {
                let more = (0..20).map(|vout| OutPoint { vout, ..first.outpoint });
                utxos.extend(more.map(WireUtxo::plain));
            }
            _ => {}
        }
        let answer = IoAuth {
            utxos,
            auth_key: first.public_key(),
            cj_address: if self.behaviour == Behaviour::ForeignNetwork {
                Address::from_script(&cj_script, Network::Bitcoin).unwrap().to_string()
            } else {
                address(&cj_script)
            },
            change_address: address(&change_script),
            btc_signature: signature::sign(session.public.as_bytes(), &signer),
        };
        session.share = Some(MakerShare {
            agreement: Agreement::of(&self.offer, session.amount),
            coins: self.coins.iter().map(OwnCoin::lent).collect(),
            cj_script,
            change_script,
        });
        let sealed = session.shared.seal(rng.random(), &answer.to_string());
        (vec![(PrivateWord::IoAuth, sealed)], Some(commitment))
    }

    fn tx(
        &mut self,
        from: Nick,
        payload: &str,
        chain: &mut Chain,
        rng: &mut StdRng,
    ) -> Vec<(PrivateWord, String)> {
        let Some(session) = self.sessions.iter_mut().find(|session| session.taker == from) else {
            return Vec::new();
        };
        let Ok(text) = session.shared.open(payload) else { return Vec::new() };
        let Some(share) = &session.share else { return Vec::new() };
        if self.behaviour == Behaviour::SilentAtTx
            || (self.behaviour == Behaviour::SignsOnce && session.signed > 0)
        {
            return Vec::new();
        }
        let tx = parse_tx(&text).expect("takers send good transactions");
        self.shown.push(tx.clone());
        let verified = share.verify(tx, Some(chain.height)).expect("takers pay what was agreed");
        session.signed += 1;
        let mut signatures = verified.sign(&self.coins).unwrap();
        if self.behaviour == Behaviour::BadSignatures {
            signatures = (0..3).map(|_| broken(&signatures[0])).collect();
        }
        if self.behaviour == Behaviour::Steals {
            chain.steal(&self.coins[0].outpoint);
        }
        let seal = |signature: &InputSignature| {
            (PrivateWord::Sig, session.shared.seal(rng.random(), &signature.to_string()))
        };
        signatures.iter().map(seal).collect()
    }
}

/// A signature of the right form by another key.
fn broken(signature: &InputSignature) -> InputSignature {
    let key = secret("forger");
    let digest = joinery_proto::bitcoin::secp256k1::Message::from_digest([7; 32]);
    let mut bytes = joinery_proto::secp().sign_ecdsa(&digest, &key).serialize_der().to_vec();
    bytes.push(1);
    InputSignature { signature: bytes, key: signature.key }
}
