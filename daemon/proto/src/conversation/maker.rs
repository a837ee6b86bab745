//! The maker's side: fill, auth, ioauth, tx, sig (`spec/protocol.md` 7.3 to 7.5).
//!
//! There are no keys of coins here: what proves that they are ours and what spends them is made by the wallet, by the
//! same step that makes it durable, and comes in with [`MakerSession::revealed`] and [`MakerSession::signed`].
//!
//! After its first signatures a session goes on until its deadline or until it is stopped: its taker may show up to
//! [`MAX_TRANSACTIONS`] different transactions, and each is verified and made durable by itself.

use bdk_wallet::bitcoin::{Transaction, Txid};

use super::{Ended, Fact, Millis};
use crate::blacklist::CommitmentBlacklist;
use crate::message::{self, FillError, FillFields, InputSignature, IoAuth, PayloadError, PubKey};
use crate::nacl_box::{NONCE_LENGTH, NaclBox, NaclError, NaclPublicKey, NaclSecretKey};
use crate::offer::Offer;
use crate::podle::{Commitment, PodleError, Revelation};
use crate::private_message::PrivateWord;
use crate::transaction::fees::Agreement;
use crate::transaction::maker::{MakerRefusal, MakerShare, VerifiedTransaction};
use crate::transaction::signing::{Authorisation, LentCoin};
use crate::transaction::taker::ForeignCoin;
use crate::utxo::{UtxoHint, WireUtxo};

/// A session that has waited this long for `!auth` may be given up for another taker, milliseconds
/// (`spec/protocol.md` 13.2). Where there is room it waits on: takers send `!auth` when the last of their makers
/// has answered or its time is over, which is a minute and more after the `!fill`.
pub const AUTH_PATIENCE: Millis = 60_000;
/// Longest life of a session, milliseconds (`session_timeout_sec`).
pub const SESSION_TIMEOUT: Millis = 300_000;
/// Different transactions that are signed in one session, with the same coins: a taker whose other makers fail
/// makes the transaction anew without them (`spec/roles.md` 3.11).
pub const MAX_TRANSACTIONS: usize = 3;

/// What a maker asks of a taker's commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitmentPolicy {
    /// `taker_utxo_retries`: NUMS indices 0 to this, exclusive.
    pub retries: u8,
    /// `taker_utxo_age`: confirmations.
    pub age: u32,
    /// `taker_utxo_amtpercent`: percent of the amount.
    pub amount_percent: u32,
}

impl Default for CommitmentPolicy {
    fn default() -> Self {
        Self { retries: 3, age: 5, amount_percent: 20 }
    }
}

impl CommitmentPolicy {
    /// Smallest value of the taker's coin, satoshi: `floor(amount * percent / 100)`.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "products of a u64 and a u32 fit 128 bits")]
    pub fn least_value(&self, amount: u64) -> u64 {
        let least = u128::from(amount) * u128::from(self.amount_percent) / 100;
        u64::try_from(least).unwrap_or(u64::MAX)
    }
}

/// Why a `!fill` gets no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FillRefusal {
    /// Malformed, or a commitment of another type.
    #[error(transparent)]
    Payload(#[from] FillError),
    /// The commitment was used, or another session uses it now.
    #[error("commitment {0} is used")]
    Blacklisted(Commitment),
    /// No such offer.
    #[error("no such offer")]
    UnknownOffer,
    /// Below or above the offer.
    #[error("amount is out of the offer's range")]
    AmountOutOfRange,
    /// The taker's key gives a known secret.
    #[error("{source}")]
    Key {
        /// The key, 64 hex digits.
        key: String,
        /// What is wrong with it.
        source: NaclError,
    },
}

impl FillRefusal {
    /// Text of the `!error`; the reference's where it has one.
    pub(super) fn reply(&self) -> Option<String> {
        Some(match self {
            Self::Blacklisted(commitment) => format!("Commitment is blacklisted: {commitment}"),
            Self::UnknownOffer => "oid not found".to_owned(),
            Self::AmountOutOfRange => "amount out of range".to_owned(),
            Self::Payload(FillError::CommitmentType(byte)) => {
                format!("Unsupported commitment type: {byte}")
            }
            Self::Payload(FillError::Key(key)) | Self::Key { key, .. } => {
                format!("Invalid nacl pubkey: {key}")
            }
            Self::Payload(FillError::Payload(
                error @ (PayloadError::Fields | PayloadError::Number),
            )) => error.to_string(),
            Self::Payload(FillError::Payload(_)) => return None,
        })
    }
}

/// Why an `!auth` is not answered with coins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthRefusal {
    /// The proof is not good.
    #[error(transparent)]
    Podle(#[from] PodleError),
    /// The coin is spent or never existed.
    #[error("the taker's coin is not unspent")]
    NotFound,
    /// The coin is younger than we ask for.
    #[error("the taker's coin has {found} confirmations of {needed}")]
    TooYoung {
        /// What it has.
        found: u32,
        /// What it needs.
        needed: u32,
    },
    /// The coin is smaller than we ask for.
    #[error("the taker's coin has {found} satoshi of {needed}")]
    TooSmall {
        /// What it has.
        found: u64,
        /// What it needs.
        needed: u64,
    },
}

impl AuthRefusal {
    /// One word that tells an honest taker what to do better, and nobody anything about coins.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Podle(_) => "proof",
            Self::NotFound => "utxo",
            Self::TooYoung { .. } => "age",
            Self::TooSmall { .. } => "size",
        }
    }
}

/// Step 1: a `!fill` was accepted, our key is on its way.
#[derive(Debug)]
struct Filled {
    offer: Offer,
    amount: u64,
    commitment: Commitment,
    secret: NaclSecretKey,
    shared: NaclBox,
}

/// Step 2: the proof is good; the chain has not been asked.
#[derive(Debug)]
struct Proved {
    filled: Filled,
    revelation: Revelation,
}

/// Step 3: the taker's coin is good; our coins are not chosen.
#[derive(Debug)]
struct Approved {
    filled: Filled,
    extended: bool,
}

/// Step 4: our coins are chosen, and told to nobody.
#[derive(Debug)]
struct Chosen {
    filled: Filled,
    share: MakerShare,
    utxos: Vec<WireUtxo>,
    cj_address: String,
    change_address: String,
}

/// Step 5: our coins are told.
#[derive(Debug)]
struct Revealed {
    filled: Filled,
    share: MakerShare,
    /// Transactions that were signed so far.
    signed: Vec<Txid>,
}

/// Step 6: the taker's transaction is what was agreed.
#[derive(Debug)]
struct Agreed {
    revealed: Revealed,
    txid: Txid,
    verified: VerifiedTransaction,
}

impl Filled {
    fn accept(
        payload: &str,
        offers: &[Offer],
        secret: NaclSecretKey,
        blacklist: &mut CommitmentBlacklist,
    ) -> Result<Self, FillRefusal> {
        let fill = FillFields::parse(payload)?;
        if blacklist.refuses(&fill.commitment) {
            return Err(FillRefusal::Blacklisted(fill.commitment));
        }
        let offer = offers.iter().find(|offer| offer.id == fill.offer);
        let offer = *offer.ok_or(FillRefusal::UnknownOffer)?;
        if !offer.accepts(fill.amount) {
            return Err(FillRefusal::AmountOutOfRange);
        }
        let key = fill.key()?;
        let shared = secret
            .shared_with(&key)
            .map_err(|source| FillRefusal::Key { key: key.to_string(), source })?;
        blacklist.reserve(fill.commitment);
        Ok(Self { offer, amount: fill.amount, commitment: fill.commitment, secret, shared })
    }

    fn prove(self, text: &str, retries: u8) -> Result<Proved, AuthRefusal> {
        let checked = text.parse::<Revelation>().and_then(|revelation| {
            revelation.proof.verify(&self.commitment, retries)?;
            Ok(revelation)
        });
        Ok(Proved { filled: self, revelation: checked? })
    }
}

impl Proved {
    fn approve(
        self,
        coin: Option<&ForeignCoin>,
        policy: &CommitmentPolicy,
    ) -> Result<Approved, AuthRefusal> {
        let outpoint = self.revelation.utxo.outpoint;
        let refusal = match coin.filter(|coin| coin.outpoint == outpoint) {
            None => Some(AuthRefusal::NotFound),
            Some(coin) if coin.confirmations < policy.age => {
                Some(AuthRefusal::TooYoung { found: coin.confirmations, needed: policy.age })
            }
            Some(coin) if coin.value < policy.least_value(self.filled.amount) => {
                let needed = policy.least_value(self.filled.amount);
                Some(AuthRefusal::TooSmall { found: coin.value, needed })
            }
            Some(coin) if !self.revelation.proof.owns_script(&coin.script) => {
                Some(AuthRefusal::Podle(PodleError::Script))
            }
            Some(_) => None,
        };
        match refusal {
            None => {
                let extended = self.revelation.utxo.hint.is_some();
                Ok(Approved { filled: self.filled, extended })
            }
            Some(refusal) => Err(refusal),
        }
    }
}

impl Approved {
    /// Takes what the wallet chose; `None` when that is no coins, or not for the terms of the session.
    fn choose(self, choice: MakerChoice) -> Option<Chosen> {
        let MakerChoice { share, cj_address, change_address, heights } = choice;
        let terms = Agreement::of(&self.filled.offer, self.filled.amount);
        if share.coins.is_empty() || share.agreement != terms {
            return None;
        }
        let utxo = |(index, coin): (usize, &LentCoin)| {
            let hint = heights.get(index).filter(|_| self.extended);
            let hint = hint.map(|height| UtxoHint { script: coin.script.clone(), height: *height });
            WireUtxo { outpoint: coin.outpoint, hint }
        };
        let utxos = share.coins.iter().enumerate().map(utxo).collect();
        Some(Chosen { filled: self.filled, share, utxos, cj_address, change_address })
    }
}

impl Chosen {
    /// Makes the `!ioauth`.
    fn reveal(self, authorisation: Authorisation, nonce: [u8; NONCE_LENGTH]) -> (Revealed, String) {
        let answer = IoAuth {
            utxos: self.utxos,
            auth_key: authorisation.key,
            cj_address: self.cj_address,
            change_address: self.change_address,
            btc_signature: authorisation.signature,
        };
        let sealed = self.filled.shared.seal(nonce, &answer.to_string());
        (Revealed { filled: self.filled, share: self.share, signed: Vec::new() }, sealed)
    }
}

impl Revealed {
    fn agree(
        self,
        tx: Transaction,
        txid: Txid,
        height: Option<u32>,
    ) -> Result<Agreed, MakerRefusal> {
        let verified = self.share.verify(tx, height)?;
        Ok(Agreed { revealed: self, txid, verified })
    }
}

/// The coins and addresses that the wallet chose for a session; reserved there before they come here.
#[derive(Debug)]
pub struct MakerChoice {
    /// Coins, scripts and terms.
    pub share: MakerShare,
    /// Address text of `share.cj_script`.
    pub cj_address: String,
    /// Address text of `share.change_script`.
    pub change_address: String,
    /// Heights of the coins, for takers that understand extended coin texts.
    pub heights: Vec<u32>,
}

/// What the machine wants done.
#[derive(Debug)]
pub enum MakerOutput {
    /// Send a private message to the taker: word and payload.
    Send(PrivateWord, String),
    /// Ask the chain for the taker's coin; answer with [`MakerSession::coin_found`]. The scripts are the
    /// ones that its key can own.
    LookUp(Box<Revelation>),
    /// Choose coins and addresses for this amount; answer with [`MakerSession::coins_chosen`].
    ChooseCoins {
        /// The terms.
        offer: Offer,
        /// Satoshi.
        amount: u64,
    },
    /// Have the wallet make a fact durable, and give out what only it can make when that is so: for
    /// [`Fact::CoinsRevealed`] [`MakerSession::revealed`] is called then, for [`Fact::Signed`]
    /// [`MakerSession::signed`].
    Persist(Fact),
    /// Publish the used commitment, after the answer has left.
    PublishCommitment(Commitment),
    /// The conversation is over.
    Ended(Ended),
}

#[derive(Debug)]
enum State {
    AwaitAuth(Filled),
    AwaitCoin(Proved),
    AwaitChoice(Approved),
    PersistReveal(Chosen),
    AwaitTx(Revealed),
    PersistSign(Agreed),
    Over,
}

/// A maker's conversation with one taker.
#[derive(Debug)]
pub struct MakerSession {
    state: State,
    started: Millis,
    timeout: Millis,
    commitment: Commitment,
    used_up: bool,
    policy: CommitmentPolicy,
    neutrino_compat: bool,
}

impl MakerSession {
    /// Answers a `!fill`. `secret` is a fresh key; `offers` are our standing offers. The
    /// commitment is reserved in the blacklist; when the session ends before it revealed coins the caller
    /// releases [`Self::reserved_commitment`].
    ///
    /// # Errors
    /// The refusal, and through [`Ended::reply`] what the taker may hear.
    pub fn start(
        payload: &str,
        offers: &[Offer],
        secret: NaclSecretKey,
        blacklist: &mut CommitmentBlacklist,
        policy: CommitmentPolicy,
        neutrino_compat: bool,
        now: Millis,
    ) -> Result<(Self, Vec<MakerOutput>), Ended> {
        let filled =
            Filled::accept(payload, offers, secret, blacklist).map_err(Ended::FillRefused)?;
        let reply = PubKey { key: filled.secret.public_key(), neutrino_compat };
        let outputs = vec![MakerOutput::Send(PrivateWord::PubKey, reply.to_string())];
        let commitment = filled.commitment;
        let state = State::AwaitAuth(filled);
        let used_up = false;
        let timeout = SESSION_TIMEOUT;
        let session =
            Self { state, started: now, timeout, commitment, used_up, policy, neutrino_compat };
        Ok((session, outputs))
    }

    /// Gives the session another longest life than [`SESSION_TIMEOUT`].
    pub const fn set_timeout(&mut self, timeout: Millis) {
        self.timeout = timeout;
    }

    /// Whether another `!fill` of the same taker may replace this session: while nothing was revealed and no proof
    /// is being checked, and again when the taker has what it came for.
    #[must_use]
    pub const fn is_replaceable(&self) -> bool {
        match &self.state {
            State::AwaitAuth(_) | State::Over => true,
            State::AwaitTx(revealed) => !revealed.signed.is_empty(),
            _ => false,
        }
    }

    /// Whether the session still waits for the taker's proof: it has cost us nothing.
    #[must_use]
    pub const fn awaits_auth(&self) -> bool {
        matches!(self.state, State::AwaitAuth(_))
    }

    /// Whether our coins were told, or are about to be.
    #[must_use]
    pub const fn has_revealed(&self) -> bool {
        self.used_up || matches!(self.state, State::PersistReveal(_))
    }

    /// The session key that one of our coins is to authorise: between [`MakerOutput::Persist`] of
    /// [`Fact::CoinsRevealed`] and [`Self::revealed`].
    #[must_use]
    pub fn session_key(&self) -> Option<NaclPublicKey> {
        match &self.state {
            State::PersistReveal(chosen) => Some(chosen.filled.secret.public_key()),
            _ => None,
        }
    }

    /// Whether the taker has signatures for a transaction.
    #[must_use]
    pub const fn has_signed(&self) -> bool {
        match &self.state {
            State::AwaitTx(revealed) => !revealed.signed.is_empty(),
            State::PersistSign(agreed) => !agreed.revealed.signed.is_empty(),
            _ => false,
        }
    }

    /// The transaction that is to be signed, with our share of it: between [`MakerOutput::Persist`] of
    /// [`Fact::Signed`] and [`Self::signed`].
    #[must_use]
    pub const fn agreed(&self) -> Option<(&Transaction, &MakerShare)> {
        match &self.state {
            State::PersistSign(agreed) => {
                Some((agreed.verified.transaction(), &agreed.revealed.share))
            }
            _ => None,
        }
    }

    /// Refuses the transaction of [`Self::agreed`] for something that only the wallet or the chain knows.
    pub fn refuse_transaction(&mut self, refusal: MakerRefusal) -> Vec<MakerOutput> {
        match self.state {
            State::PersistSign(_) => self.end(Ended::TransactionRefused(refusal)),
            _ => Vec::new(),
        }
    }

    /// Whether the conversation is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether extended coin texts were offered to the taker.
    #[must_use]
    pub const fn offers_neutrino_compat(&self) -> bool {
        self.neutrino_compat
    }

    /// Latest time at which the session ends.
    #[must_use]
    pub const fn deadline(&self) -> Millis {
        self.started.saturating_add(self.timeout)
    }

    /// Ends the conversation when its deadline has passed.
    pub fn tick(&mut self, now: Millis) -> Vec<MakerOutput> {
        if self.is_over() || now < self.deadline() {
            return Vec::new();
        }
        let waiting_for = match &self.state {
            State::AwaitAuth(_) => "auth",
            State::AwaitCoin(_) => "the chain",
            State::AwaitChoice(_) => "coins",
            State::AwaitTx(revealed) if !revealed.signed.is_empty() => {
                return self.end(Ended::Complete);
            }
            State::PersistReveal(_) | State::PersistSign(_) => "the disk",
            State::AwaitTx(_) | State::Over => "tx",
        };
        self.end(Ended::TimedOut { waiting_for })
    }

    /// Takes a private message of the taker whose signature was verified. What is not due is ignored:
    /// repeated, reordered, foreign and unreadable messages change nothing.
    pub fn received(
        &mut self,
        word: PrivateWord,
        payload: &str,
        height: Option<u32>,
        now: Millis,
    ) -> Vec<MakerOutput> {
        let late = self.tick(now);
        if !late.is_empty() {
            return late;
        }
        // A taker's `!error` only goes to its own log: it names no session and anybody on the way can
        // send one again.
        let opened = |shared: &NaclBox| {
            let sealed: String = payload.split(' ').collect();
            shared.open(&sealed).ok()
        };
        match (std::mem::replace(&mut self.state, State::Over), word) {
            (State::AwaitAuth(filled), PrivateWord::Auth) => {
                let Some(text) = opened(&filled.shared) else {
                    self.state = State::AwaitAuth(filled);
                    return Vec::new();
                };
                match filled.prove(&text, self.policy.retries) {
                    Ok(proved) => {
                        let revelation = Box::new(proved.revelation.clone());
                        self.state = State::AwaitCoin(proved);
                        vec![MakerOutput::LookUp(revelation)]
                    }
                    // Never answered twice: the session ends, another commitment is needed.
                    Err(refusal) => self.end(Ended::AuthRefused(refusal)),
                }
            }
            (State::AwaitTx(revealed), PrivateWord::Tx) => {
                let Some(text) = opened(&revealed.filled.shared) else {
                    self.state = State::AwaitTx(revealed);
                    return Vec::new();
                };
                let Ok(tx) = message::parse_tx(&text) else {
                    return self.end(Ended::Unreadable("tx"));
                };
                let txid = tx.compute_txid();
                if revealed.signed.contains(&txid) {
                    // A second copy of what was answered.
                    self.state = State::AwaitTx(revealed);
                    return Vec::new();
                }
                match revealed.agree(tx, txid, height) {
                    Ok(agreed) => {
                        let outpoints = agreed.verified.outpoints().collect();
                        self.state = State::PersistSign(agreed);
                        vec![MakerOutput::Persist(Fact::Signed { txid, outpoints })]
                    }
                    Err(refusal) => self.end(Ended::TransactionRefused(refusal)),
                }
            }
            (state, _) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The chain's answer to [`MakerOutput::LookUp`]: the coin with its real script, or `None`.
    pub fn coin_found(&mut self, coin: Option<&ForeignCoin>) -> Vec<MakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitCoin(proved) => match proved.approve(coin, &self.policy) {
                Ok(approved) => {
                    let Filled { offer, amount, .. } = approved.filled;
                    self.state = State::AwaitChoice(approved);
                    vec![MakerOutput::ChooseCoins { offer, amount }]
                }
                Err(refusal) => self.end(Ended::AuthRefused(refusal)),
            },
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The wallet's answer to [`MakerOutput::ChooseCoins`]; `None` when it has no coins for the amount.
    pub fn coins_chosen(&mut self, choice: Option<MakerChoice>) -> Vec<MakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitChoice(approved) => {
                let Some(chosen) = choice.and_then(|choice| approved.choose(choice)) else {
                    return self.end(Ended::NoCoins);
                };
                let share = &chosen.share;
                let fact = Fact::CoinsRevealed {
                    outpoints: share.coins.iter().map(|coin| coin.outpoint).collect(),
                    scripts: vec![share.cj_script.clone(), share.change_script.clone()],
                    commitment: chosen.filled.commitment,
                };
                self.state = State::PersistReveal(chosen);
                vec![MakerOutput::Persist(fact)]
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// That our coins are told is durable ([`Fact::CoinsRevealed`]), and one of them authorises
    /// [`Self::session_key`].
    pub fn revealed(
        &mut self,
        authorisation: Authorisation,
        blacklist: &mut CommitmentBlacklist,
        nonce: [u8; NONCE_LENGTH],
    ) -> Vec<MakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::PersistReveal(chosen) => {
                let (revealed, sealed) = chosen.reveal(authorisation, nonce);
                let commitment = revealed.filled.commitment;
                blacklist.use_up(commitment);
                self.used_up = true;
                self.state = State::AwaitTx(revealed);
                vec![
                    MakerOutput::Send(PrivateWord::IoAuth, sealed),
                    MakerOutput::PublishCommitment(commitment),
                ]
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// That the transaction of [`Self::agreed`] is signed is durable ([`Fact::Signed`]), and these are the signatures, in
    /// the order of its inputs. `nonce` draws 24 random bytes.
    pub fn signed(
        &mut self,
        signatures: &[InputSignature],
        mut nonce: impl FnMut() -> [u8; NONCE_LENGTH],
    ) -> Vec<MakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::PersistSign(Agreed { mut revealed, txid, .. }) => {
                let shared = &revealed.filled.shared;
                let send = |signature: &InputSignature| {
                    let sealed = shared.seal(nonce(), &signature.to_string());
                    MakerOutput::Send(PrivateWord::Sig, sealed)
                };
                let mut outputs: Vec<MakerOutput> = signatures.iter().map(send).collect();
                revealed.signed.push(txid);
                if revealed.signed.len() < MAX_TRANSACTIONS {
                    self.state = State::AwaitTx(revealed);
                } else {
                    outputs.push(MakerOutput::Ended(Ended::Complete));
                }
                outputs
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Stops the session from our side; complete when the taker has signatures. A signature that was made durable
    /// may still be sent by its owner.
    pub fn stop(&mut self) -> Vec<MakerOutput> {
        match self.state {
            State::Over => Vec::new(),
            _ if self.has_signed() => self.end(Ended::Complete),
            _ => self.end(Ended::Stopped),
        }
    }

    /// The commitment that this session reserved and has not used up: to be released in the blacklist when
    /// the session is over or replaced.
    #[must_use]
    pub fn reserved_commitment(&self) -> Option<Commitment> {
        (!self.used_up).then_some(self.commitment)
    }

    fn end(&mut self, reason: Ended) -> Vec<MakerOutput> {
        self.state = State::Over;
        vec![MakerOutput::Ended(reason)]
    }
}
