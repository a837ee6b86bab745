//! What roles ask of an opened wallet about their coinjoin rounds.

use std::sync::Arc;

use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{OutPoint, Transaction};
use joinery_proto::message::InputSignature;
use joinery_proto::nacl_box::NaclPublicKey;
use joinery_proto::transaction::signing::{Authorisation, OwnCoin};

use super::command::{BegunRound, Command};
use super::{BondCertificate, MakerRound, OpenedRound, RoundError, RoundSent, WalletHandle, send};
use crate::round::{Round, RoundBegin, RoundEnd, RoundEvent, RoundId, RoundSums};

impl WalletHandle {
    /// Coinjoin rounds, ascending by number: all that are not over, and the last
    /// [`MAX_KEPT_ROUNDS`](crate::round::MAX_KEPT_ROUNDS) that are. Never waits.
    #[must_use]
    pub fn rounds(&self) -> Arc<Vec<Arc<Round>>> {
        Arc::clone(&self.snapshot().rounds)
    }

    /// Opens a taker's round. Durable when this returns. A round that is open when the process ends is ended as `interrupted`
    /// when the wallet is opened again; one whose number nobody hears, because the caller goes away, at once.
    ///
    /// # Errors
    /// [`RoundError::NoSuchMixdepth`], [`RoundError::TooLarge`], [`RoundError::MakerOnly`], [`RoundError::OutOfOrder`]
    /// for a maker's, [`RoundError::Store`], [`RoundError::Closed`].
    pub async fn begin_round(&self, begin: RoundBegin) -> Result<RoundId, RoundError> {
        let begin = Box::new(begin);
        let begun: Result<BegunRound<RoundId>, RoundError> =
            self.ask(|reply| Command::BeginRound { begin, reply }).await;
        begun.map(BegunRound::take)
    }

    /// Opens a maker's round: what was agreed, the coins that are held for it from now on, and the addresses of its two
    /// outputs. The coins are held as by [`WalletHandle::reserve`]; their keys stay here.
    ///
    /// Nothing of it may leave the machine yet: it is durable together with whatever the wallet records next, at the latest
    /// when [`WalletHandle::reveal_round`] returns, and readers of the snapshot see it then. A power cut before that leaves no trace of the round. The taker that
    /// waits for all this waits for the disk once.
    ///
    /// # Errors
    /// [`RoundError::Unusable`] names the first coin that cannot be held; [`RoundError::Refused`] when the agreement
    /// costs us money or both outputs are one; [`RoundError::NoSuchMixdepth`], [`RoundError::OutOfOrder`],
    /// [`RoundError::TooLarge`], [`RoundError::KeyCheck`], [`RoundError::Store`], [`RoundError::Closed`]. Nothing was
    /// recorded then: there is no round, no coin is held and no address is used up.
    pub async fn open_round(&self, round: MakerRound) -> Result<OpenedRound, RoundError> {
        let round = Box::new(round);
        let opened: Result<BegunRound<OpenedRound>, RoundError> =
            self.ask(|reply| Command::OpenRound { round, reply }).await;
        opened.map(BegunRound::take)
    }

    /// Makes a maker's round durable, and that its coins and outputs are told to its taker for this commitment; proves with
    /// one of the coins that the session key is ours. The outputs must have been shown to nobody else. For the same
    /// commitment it may be asked again; nothing more is recorded then.
    ///
    /// # Errors
    /// [`RoundError::ScriptUsed`], [`RoundError::NotHeld`], [`RoundError::OutOfOrder`] for a taker's round or another
    /// commitment, [`RoundError::NoSuchRound`], [`RoundError::Ended`], [`RoundError::KeyCheck`],
    /// [`RoundError::Store`], [`RoundError::Closed`]; nothing may leave then.
    pub async fn reveal_round(
        &self,
        round: RoundId,
        commitment: [u8; 32],
        session: NaclPublicKey,
        coin: OutPoint,
    ) -> Result<Authorisation, RoundError> {
        self.ask(|reply| Command::RevealRound { round, commitment, session, coin, reply }).await
    }

    /// Signs a transaction of a maker's round, and makes durable that it did ([`RoundEvent::Signed`]) before it returns:
    /// one signature for each coin of the round, in the order of the inputs.
    ///
    /// The transaction must spend every coin of the round and no other one of ours, pay both outputs of the round what
    /// [`WalletHandle::open_round`] agreed or more, and pass all checks of [`MakerShare::verify`]. At most three
    /// different ones are signed. Asked again for one that was signed, it gives the same signatures and records nothing,
    /// while the round runs; a round that was interrupted by the end of the process signs nothing more.
    ///
    /// `time` is in seconds since epoch.
    ///
    /// [`MakerShare::verify`]: joinery_proto::transaction::maker::MakerShare::verify
    ///
    /// # Errors
    /// [`RoundError::Refused`] says what the transaction is not. [`RoundError::NotHeld`] when the round was given up,
    /// [`RoundError::OutOfOrder`] before [`WalletHandle::reveal_round`], after three transactions or for a taker's round,
    /// [`RoundError::NoSuchRound`], [`RoundError::Ended`], [`RoundError::KeyCheck`], [`RoundError::TooLarge`],
    /// [`RoundError::Store`], [`RoundError::Closed`]. Nothing was recorded then, and no signature exists outside.
    pub async fn sign_round(
        &self,
        round: RoundId,
        transaction: Transaction,
        time: u64,
    ) -> Result<Vec<InputSignature>, RoundError> {
        let transaction = Box::new(transaction);
        self.ask(|reply| Command::SignRound { round, transaction, time, reply }).await
    }

    /// Holds coins for a taker's round, all or none: nothing else selects, spends or freezes them from then on, also after a
    /// power cut. They must be unspent P2WPKH coins of the round's mixdepth, neither frozen nor bonds nor held
    /// otherwise; those that the round holds already stay held. Confirmations are for the role to judge.
    ///
    /// # Errors
    /// [`RoundError::Unusable`] names the first coin that cannot be held; [`RoundError::NoSuchRound`],
    /// [`RoundError::Ended`], [`RoundError::OutOfOrder`] after signing, [`RoundError::TooLarge`],
    /// [`RoundError::Store`], [`RoundError::Closed`].
    pub async fn reserve(
        &self,
        round: RoundId,
        outpoints: Vec<OutPoint>,
    ) -> Result<(), RoundError> {
        self.ask(|reply| Command::Reserve { round, outpoints, reply }).await
    }

    /// Makes an event of a round durable before what it says leaves the machine. A role records:
    ///
    /// * [`RoundEvent::Released`] (taker) before signing;
    /// * [`RoundEvent::CommitmentSent`] (taker): the commitment is used up by the same record;
    /// * [`RoundEvent::Shown`] (taker);
    /// * [`RoundEvent::Accounted`] (maker), also when the round is over.
    ///
    /// All others are the wallet's own.
    ///
    /// # Errors
    /// [`RoundError`]; nothing may leave then.
    pub async fn record_round(&self, round: RoundId, event: RoundEvent) -> Result<(), RoundError> {
        let event = Box::new(event);
        self.ask(|reply| Command::RecordRound { round, event, reply }).await
    }

    /// Keys of coins that a running taker's round holds, in the order of the question. Each key is checked to own the script
    /// of its coin.
    ///
    /// # Errors
    /// [`RoundError::NotHeld`], [`RoundError::Unusable`] when a coin was spent meanwhile,
    /// [`RoundError::NoSuchRound`], [`RoundError::Ended`], [`RoundError::MakerOnly`], [`RoundError::KeyCheck`],
    /// [`RoundError::OutOfOrder`] for a maker's round, for which the wallet signs itself, [`RoundError::Closed`].
    pub async fn coinjoin_coins(
        &self,
        round: RoundId,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<OwnCoin>, RoundError> {
        self.ask(|reply| Command::CoinjoinCoins { round, outpoints, reply }).await
    }

    /// Durably ends the conversation part of a round. Without a signature of ours its coins are free from then on;
    /// what was signed is still followed. A sentence that is too long is cut. The end of a maker's round that no taker was
    /// told of is durable with the next record only, like its beginning, and needs no disk.
    ///
    /// # Errors
    /// [`RoundError::NoSuchRound`], [`RoundError::Ended`] when it was ended before (the first end stands),
    /// [`RoundError::Store`], [`RoundError::Closed`].
    pub async fn end_round(&self, round: RoundId, end: RoundEnd) -> Result<(), RoundError> {
        self.ask(|reply| Command::EndRound { round, end, reply }).await
    }

    /// Makes the complete transaction of a taker's round durable ([`RoundEvent::Signed`]). Nothing is sent by this.
    ///
    /// `send` says whether we are going to send it: then it is ours like a payment, and after a power cut it is sent
    /// when the wallet is opened again. Without `send` it is kept for others to send, and we send it only after
    /// [`WalletHandle::send_round_transaction`]; or, if the process ends before the round does, when the wallet is opened
    /// again and [`send_interrupted`](crate::policy::WalletPolicy::send_interrupted) says so. Keeping the same transaction again changes nothing but that.
    ///
    /// # Errors
    /// [`RoundError::WrongTransaction`], [`RoundError::NotHeld`], [`RoundError::OutOfOrder`] for a maker's round,
    /// [`RoundError::NoSuchRound`], [`RoundError::Ended`], [`RoundError::TooLarge`], [`RoundError::Store`],
    /// [`RoundError::Closed`].
    pub async fn keep_transaction(
        &self,
        round: RoundId,
        transaction: Transaction,
        sums: RoundSums,
        send: bool,
    ) -> Result<(), RoundError> {
        let (transaction, sums) = (Box::new(transaction), Box::new(sums));
        self.ask(|reply| Command::KeepTransaction { round, transaction, sums, send, reply }).await
    }

    /// Gives the complete transaction of a taker's round to the server. From then on it is sent with each block until
    /// the server lists it, also after a restart. May be called again, and when the conversation is over: a person
    /// may decide to send what others were to send. One that a block has counts as accepted. Runs to its end even if the caller goes away. Must be called on
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] when there is no complete transaction or it was given up,
    /// [`RoundError::NoSuchRound`], [`RoundError::MakerOnly`], [`RoundError::Store`], [`RoundError::Closed`].
    pub async fn send_round_transaction(&self, round: RoundId) -> Result<RoundSent, RoundError> {
        let task = tokio::spawn(send::run_round(self.clone(), round));
        // The join fails only if the runtime ends or the task panics; its lock guard has reported then.
        task.await.unwrap_or(Err(RoundError::Closed))
    }

    /// Certifies a key with the key of a fidelity bond of ours, unspent and confirmed, frozen or not. `expiry` is in
    /// periods of 2016 blocks.
    ///
    /// # Errors
    /// [`RoundError::Unusable`], [`RoundError::KeyCheck`], [`RoundError::Closed`].
    pub async fn certify_bond(
        &self,
        outpoint: OutPoint,
        cert_key: PublicKey,
        expiry: u16,
    ) -> Result<BondCertificate, RoundError> {
        self.ask(|reply| Command::CertifyBond { outpoint, cert_key, expiry, reply }).await
    }
}
