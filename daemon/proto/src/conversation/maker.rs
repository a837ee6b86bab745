//! The maker's side: fill, auth, ioauth, tx, sig (`spec/protocol.md` 7.3 to 7.5).

use bdk_wallet::bitcoin::Transaction;

use super::{Ended, Fact, Millis};
use crate::blacklist::CommitmentBlacklist;
use crate::message::{self, Fill, FillError, IoAuth, PubKey};
use crate::nacl_box::{NONCE_LENGTH, NaclBox, NaclError, NaclSecretKey};
use crate::offer::Offer;
use crate::podle::{Commitment, PodleError, Revelation};
use crate::private_message::PrivateWord;
use crate::signature;
use crate::transaction::maker::{MakerRefusal, MakerShare, VerifiedTransaction};
use crate::transaction::signing::SigningError;
use crate::transaction::taker::ForeignCoin;
use crate::utxo::{UtxoHint, WireUtxo};

/// Longest wait for `!auth` after `!pubkey`, milliseconds (`spec/protocol.md` 13.2).
pub const AUTH_TIMEOUT: Millis = 60_000;
/// Longest life of a session, milliseconds.
pub const SESSION_TIMEOUT: Millis = 300_000;

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
    #[error(transparent)]
    Key(#[from] NaclError),
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

/// Step 4: our coins are told.
#[derive(Debug)]
struct Revealed {
    filled: Filled,
    share: MakerShare,
}

/// Step 5: the taker's transaction is what was agreed.
#[derive(Debug)]
struct Agreed {
    filled: Filled,
    verified: VerifiedTransaction,
}

impl Filled {
    fn accept(
        payload: &str,
        offers: &[Offer],
        secret: NaclSecretKey,
        blacklist: &mut CommitmentBlacklist,
    ) -> Result<Self, FillRefusal> {
        let fill = Fill::parse(payload)?;
        if blacklist.refuses(&fill.commitment) {
            return Err(FillRefusal::Blacklisted(fill.commitment));
        }
        let offer = offers.iter().find(|offer| offer.id == fill.offer);
        let offer = *offer.ok_or(FillRefusal::UnknownOffer)?;
        if !offer.accepts(fill.amount) {
            return Err(FillRefusal::AmountOutOfRange);
        }
        let shared = secret.shared_with(&fill.key)?;
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
    /// Makes the `!ioauth`; `None` when the choice has no coins or no addresses.
    fn reveal(self, choice: MakerChoice, nonce: [u8; NONCE_LENGTH]) -> Option<(Revealed, String)> {
        let MakerChoice { share, cj_address, change_address, heights } = choice;
        let auth = share.coins.first()?;
        let session_key = self.filled.secret.public_key().to_string();
        let utxo = |(index, coin): (usize, &crate::transaction::signing::OwnCoin)| {
            let hint = heights.get(index).filter(|_| self.extended);
            let hint =
                hint.map(|height| UtxoHint { script: coin.script().clone(), height: *height });
            WireUtxo { outpoint: coin.outpoint, hint }
        };
        let answer = IoAuth {
            utxos: share.coins.iter().enumerate().map(utxo).collect(),
            auth_key: auth.public_key(),
            cj_address,
            change_address,
            btc_signature: signature::sign(session_key.as_bytes(), auth.secret_key()),
        };
        let sealed = self.filled.shared.seal(nonce, &answer.to_string());
        Some((Revealed { filled: self.filled, share }, sealed))
    }
}

impl Revealed {
    fn agree(self, tx: Transaction, height: Option<u32>) -> Result<Agreed, MakerRefusal> {
        let verified = self.share.verify(tx, height)?;
        Ok(Agreed { filled: self.filled, verified })
    }
}

impl Agreed {
    fn sign(
        &self,
        mut nonce: impl FnMut() -> [u8; NONCE_LENGTH],
    ) -> Result<Vec<String>, SigningError> {
        let signatures = self.verified.sign()?;
        Ok(signatures
            .iter()
            .map(|sig| self.filled.shared.seal(nonce(), &sig.to_string()))
            .collect())
    }
}

/// The coins and addresses that the wallet chose for a session; reserved there before they come here.
#[derive(Debug)]
pub struct MakerChoice {
    /// Coins, scripts, terms and amount. The first coin authorises.
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
    /// Make a fact durable, then call [`MakerSession::durable`].
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
    PersistReveal(Revealed, String),
    AwaitTx(Revealed),
    PersistSign(Agreed),
    Over,
}

/// A maker's conversation with one taker.
#[derive(Debug)]
pub struct MakerSession {
    state: State,
    started: Millis,
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
        Ok((Self { state, started: now, commitment, used_up, policy, neutrino_compat }, outputs))
    }

    /// Whether another `!fill` of the same taker may replace this session: only while nothing was revealed
    /// and no proof is being checked.
    #[must_use]
    pub const fn is_replaceable(&self) -> bool {
        matches!(self.state, State::AwaitAuth(_) | State::Over)
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

    /// Latest time at which this state ends.
    #[must_use]
    pub const fn deadline(&self) -> Millis {
        let limit = match self.state {
            State::AwaitAuth(_) => AUTH_TIMEOUT,
            _ => SESSION_TIMEOUT,
        };
        self.started.saturating_add(limit)
    }

    /// Ends the conversation when its deadline has passed.
    pub fn tick(&mut self, now: Millis) -> Vec<MakerOutput> {
        if self.is_over() || now < self.deadline() {
            return Vec::new();
        }
        let waiting_for = match self.state {
            State::AwaitAuth(_) => "auth",
            State::AwaitCoin(_) => "the chain",
            State::AwaitChoice(_) => "coins",
            State::PersistReveal(..) | State::PersistSign(_) => "the disk",
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
                match revealed.agree(tx, height) {
                    Ok(agreed) => {
                        let txid = agreed.verified.transaction().compute_txid();
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
    pub fn coins_chosen(
        &mut self,
        choice: Option<MakerChoice>,
        nonce: [u8; NONCE_LENGTH],
    ) -> Vec<MakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitChoice(approved) => {
                let agreed = |choice: &MakerChoice| {
                    // The terms are those of the session, whatever the wallet made of them.
                    choice.share.offer == approved.filled.offer
                        && choice.share.amount == approved.filled.amount
                };
                let Some(choice) = choice.filter(agreed) else {
                    return self.end(Ended::NoCoins);
                };
                let Some((revealed, sealed)) = approved.reveal(choice, nonce) else {
                    return self.end(Ended::NoCoins);
                };
                let share = &revealed.share;
                let fact = Fact::CoinsRevealed {
                    outpoints: share.coins.iter().map(|coin| coin.outpoint).collect(),
                    scripts: vec![share.cj_script.clone(), share.change_script.clone()],
                    commitment: revealed.filled.commitment,
                };
                self.state = State::PersistReveal(revealed, sealed);
                vec![MakerOutput::Persist(fact)]
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The last [`MakerOutput::Persist`] is durable. `nonce` draws 24 random bytes.
    pub fn durable(
        &mut self,
        blacklist: &mut CommitmentBlacklist,
        nonce: impl FnMut() -> [u8; NONCE_LENGTH],
    ) -> Vec<MakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::PersistReveal(revealed, sealed) => {
                let commitment = revealed.filled.commitment;
                blacklist.use_up(commitment);
                self.used_up = true;
                self.state = State::AwaitTx(revealed);
                vec![
                    MakerOutput::Send(PrivateWord::IoAuth, sealed),
                    MakerOutput::PublishCommitment(commitment),
                ]
            }
            State::PersistSign(agreed) => match agreed.sign(nonce) {
                Ok(sealed) => {
                    let send = |sealed| MakerOutput::Send(PrivateWord::Sig, sealed);
                    let mut outputs: Vec<MakerOutput> = sealed.into_iter().map(send).collect();
                    outputs.push(MakerOutput::Ended(Ended::Complete));
                    outputs
                }
                Err(error) => self.end(Ended::Signing(error)),
            },
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Stops the session from our side. A signature that was made durable may still be sent by its owner.
    pub fn stop(&mut self) -> Vec<MakerOutput> {
        if self.is_over() { Vec::new() } else { self.end(Ended::Stopped) }
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
