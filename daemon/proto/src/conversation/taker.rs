//! The taker's side of one pair: fill, pubkey, auth, ioauth, tx, sig (`spec/protocol.md` 7.2).
//!
//! The round (another crate) holds one session per maker. It opens two barriers: `!auth` leaves only when
//! the fill phase is closed, `!tx` only when every maker of the round was verified.

use bdk_wallet::bitcoin::{Network, Transaction};

use super::{Ended, Fact, Millis};
use crate::message::{self, Fill, InputSignature, IoAuth, PubKey};
use crate::nacl_box::{NONCE_LENGTH, NaclBox, NaclPublicKey, NaclSecretKey};
use crate::nick::Nick;
use crate::offer::Offer;
use crate::podle::Commitment;
use crate::private_message::PrivateWord;
use crate::transaction::taker::{ForeignCoin, UsedPlaces, VerifiedMaker};
use crate::utxo::WireUtxo;

/// Longest wait for each answer, milliseconds (`maker_timeout_sec`).
pub const ANSWER_TIMEOUT: Millis = 60_000;

/// Step 1: a maker was chosen.
#[derive(Debug)]
struct Chosen {
    maker: Nick,
    offer: Offer,
    amount: u64,
    secret: NaclSecretKey,
}

/// Step 2: its session key is known.
#[derive(Debug)]
struct Keyed {
    chosen: Chosen,
    maker_key: NaclPublicKey,
    shared: NaclBox,
    neutrino_compat: bool,
}

/// Step 3: it named its coins; the chain has not been asked.
#[derive(Debug)]
struct Named {
    keyed: Keyed,
    answer: IoAuth,
}

/// Step 4: its answer is good.
#[derive(Debug)]
struct Verified {
    keyed: Keyed,
}

/// What the machine wants done.
#[derive(Debug)]
pub enum TakerOutput {
    /// Send a private message to the maker: word and payload.
    Send(PrivateWord, String),
    /// The maker's key is known: it waits for [`TakerSession::authorise`]. True when it understands
    /// extended coin texts.
    Ready {
        /// Feature of the maker.
        neutrino_compat: bool,
    },
    /// Ask the chain for the maker's coins; answer with [`TakerSession::coins_found`], in this order.
    LookUp(Vec<WireUtxo>),
    /// The maker's answer passed every check: it waits for [`TakerSession::show_transaction`].
    Answered(Box<VerifiedMaker>),
    /// A signature to be put into the transaction, which decides whether it is good.
    Signature(InputSignature),
    /// Make a fact durable, then call [`TakerSession::durable`].
    Persist(Fact),
    /// The conversation is over.
    Ended(Ended),
}

#[derive(Debug)]
enum State {
    PersistFill(Chosen, String),
    AwaitPubKey(Chosen),
    /// The barrier before `!auth`.
    Ready(Keyed),
    AwaitIoAuth(Keyed),
    AwaitCoins(Named),
    /// The barrier before `!tx`.
    Answered(Verified),
    PersistTx(Verified, String),
    AwaitSignatures(Verified),
    Over,
}

/// A taker's conversation with one maker.
#[derive(Debug)]
pub struct TakerSession {
    state: State,
    /// When the current wait began; none while the round itself is waited for.
    waiting_since: Option<Millis>,
    timeout: Millis,
}

impl TakerSession {
    /// Begins with a maker. The `!fill` leaves after the commitment is durable.
    #[must_use]
    pub fn start(
        maker: Nick,
        offer: Offer,
        amount: u64,
        secret: NaclSecretKey,
        commitment: Commitment,
        timeout: Millis,
    ) -> (Self, Vec<TakerOutput>) {
        let fill = Fill { offer: offer.id, amount, key: secret.public_key(), commitment };
        let chosen = Chosen { maker, offer, amount, secret };
        let state = State::PersistFill(chosen, fill.to_string());
        let outputs = vec![TakerOutput::Persist(Fact::CommitmentSent { commitment })];
        (Self { state, waiting_since: None, timeout }, outputs)
    }

    /// Whether the conversation is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Latest time at which the maker must have answered; `None` while it is not the maker's turn. Signatures may
    /// take twice as long as other answers (`spec/roles.md` 3.3).
    #[must_use]
    pub const fn deadline(&self) -> Option<Millis> {
        let times = if matches!(self.state, State::AwaitSignatures(_)) { 2 } else { 1 };
        match self.waiting_since {
            Some(since) => Some(since.saturating_add(self.timeout.saturating_mul(times))),
            None => None,
        }
    }

    /// Ends the conversation when the maker's time is up.
    pub fn tick(&mut self, now: Millis) -> Vec<TakerOutput> {
        if self.is_over() || self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let waiting_for = match self.state {
            State::AwaitPubKey(_) => "pubkey",
            State::AwaitIoAuth(_) => "ioauth",
            State::AwaitSignatures(_) => "sig",
            _ => "our side",
        };
        self.end(Ended::TimedOut { waiting_for })
    }

    /// Takes a private message of this maker whose signature was verified. What is not due is ignored, so
    /// copies that arrive over several directories do no harm. A clear-text `!error` ends the
    /// conversation at once, except once signatures are due: then only the timeout does, because
    /// anybody on the way can repeat an old `!error`.
    pub fn received(&mut self, word: PrivateWord, payload: &str, now: Millis) -> Vec<TakerOutput> {
        let late = self.tick(now);
        if !late.is_empty() {
            return late;
        }
        let opened = |shared: &NaclBox| {
            let sealed: String = payload.split(' ').collect();
            shared.open(&sealed).ok()
        };
        match (std::mem::replace(&mut self.state, State::Over), word) {
            (State::AwaitPubKey(chosen), PrivateWord::PubKey) => {
                let parsed = PubKey::parse(payload).ok();
                let shared = parsed.as_ref().and_then(|p| chosen.secret.shared_with(&p.key).ok());
                let Some((PubKey { key, neutrino_compat }, shared)) = parsed.zip(shared) else {
                    return self.end(Ended::Unreadable("pubkey"));
                };
                self.waiting_since = None;
                self.state =
                    State::Ready(Keyed { chosen, maker_key: key, shared, neutrino_compat });
                vec![TakerOutput::Ready { neutrino_compat }]
            }
            (State::AwaitIoAuth(keyed), PrivateWord::IoAuth) => {
                let Some(text) = opened(&keyed.shared) else {
                    self.state = State::AwaitIoAuth(keyed);
                    return Vec::new();
                };
                let Ok(answer) = IoAuth::parse(&text) else {
                    return self.end(Ended::Unreadable("ioauth"));
                };
                self.waiting_since = None;
                let utxos = answer.utxos.clone();
                self.state = State::AwaitCoins(Named { keyed, answer });
                vec![TakerOutput::LookUp(utxos)]
            }
            (State::AwaitSignatures(verified), PrivateWord::Sig) => {
                let signature = opened(&verified.keyed.shared)
                    .and_then(|text| InputSignature::parse(&text).ok());
                self.state = State::AwaitSignatures(verified);
                signature.map(TakerOutput::Signature).into_iter().collect()
            }
            (
                State::AwaitPubKey(_) | State::Ready(_) | State::AwaitIoAuth(_),
                PrivateWord::Error,
            ) => self.end(Ended::CounterpartyError { text: message::error_text(payload) }),
            (state, _) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The fill phase is closed: opens the commitment to this maker. `revelation` is the text of
    /// `!auth`: extended for makers that understand it, plain for all others.
    pub fn authorise(
        &mut self,
        revelation: &str,
        nonce: [u8; NONCE_LENGTH],
        now: Millis,
    ) -> Vec<TakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Ready(keyed) => {
                let sealed = keyed.shared.seal(nonce, revelation);
                self.waiting_since = Some(now);
                self.state = State::AwaitIoAuth(keyed);
                vec![TakerOutput::Send(PrivateWord::Auth, sealed)]
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The chain's answer to [`TakerOutput::LookUp`].
    pub fn coins_found(
        &mut self,
        coins: &[Option<ForeignCoin>],
        network: Network,
        used: &mut UsedPlaces,
    ) -> Vec<TakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitCoins(Named { keyed, answer }) => {
                let Chosen { maker, offer, amount, .. } = &keyed.chosen;
                let checked = VerifiedMaker::check(
                    *maker,
                    offer,
                    *amount,
                    &answer,
                    &keyed.maker_key,
                    coins,
                    network,
                    used,
                );
                match checked {
                    Ok(verified) => {
                        used.add(verified.outpoints(), verified.scripts());
                        self.state = State::Answered(Verified { keyed });
                        vec![TakerOutput::Answered(Box::new(verified))]
                    }
                    Err(fault) => self.end(Ended::MakerRefused(fault)),
                }
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// Shows the unsigned transaction, after that fact is durable. While signatures are due another one may be shown:
    /// the same without makers that did not sign (`spec/roles.md` 3.11).
    pub fn show_transaction(
        &mut self,
        unsigned: &Transaction,
        nonce: [u8; NONCE_LENGTH],
    ) -> Vec<TakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Answered(verified) | State::AwaitSignatures(verified) => {
                let payload = message::tx_payload(unsigned);
                let sealed = verified.keyed.shared.seal(nonce, &payload);
                self.waiting_since = None;
                self.state = State::PersistTx(verified, sealed);
                let txid = unsigned.compute_txid();
                vec![TakerOutput::Persist(Fact::TransactionShown { txid })]
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The last [`TakerOutput::Persist`] is durable.
    pub fn durable(&mut self, now: Millis) -> Vec<TakerOutput> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::PersistFill(chosen, payload) => {
                self.waiting_since = Some(now);
                self.state = State::AwaitPubKey(chosen);
                vec![TakerOutput::Send(PrivateWord::Fill, payload)]
            }
            State::PersistTx(verified, sealed) => {
                self.waiting_since = Some(now);
                self.state = State::AwaitSignatures(verified);
                vec![TakerOutput::Send(PrivateWord::Tx, sealed)]
            }
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// All inputs of this maker are signed.
    pub fn signatures_complete(&mut self) -> Vec<TakerOutput> {
        if matches!(self.state, State::AwaitSignatures(_)) {
            self.end(Ended::Complete)
        } else {
            Vec::new()
        }
    }

    /// Stops the conversation from our side.
    pub fn stop(&mut self) -> Vec<TakerOutput> {
        if self.is_over() { Vec::new() } else { self.end(Ended::Stopped) }
    }

    /// Whether this maker understands extended coin texts; `None` before its key is known.
    #[must_use]
    pub const fn neutrino_compat(&self) -> Option<bool> {
        match &self.state {
            State::Ready(keyed) | State::AwaitIoAuth(keyed) => Some(keyed.neutrino_compat),
            State::AwaitCoins(Named { keyed, .. }) => Some(keyed.neutrino_compat),
            _ => None,
        }
    }

    fn end(&mut self, reason: Ended) -> Vec<TakerOutput> {
        self.state = State::Over;
        self.waiting_since = None;
        vec![TakerOutput::Ended(reason)]
    }
}
