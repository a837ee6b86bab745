//! A maker's rounds in the wallet task: what is lent, what a taker is told, and what is signed (`spec/protocol.md` 11.3;
//! `docs/decisions/0012-the-wallet-signs-for-makers.md`).
//!
//! No key of a maker's coins leaves the task. What was agreed and where the money has to go are written down when the
//! round is opened, before anybody is told of a coin; a transaction is judged by that and by the wallet's own coins,
//! whatever the role believes. Three steps: [`State::open_round`], [`State::reveal_round`], [`State::sign_round`].

use std::sync::Arc;

use bdk_wallet::bitcoin::consensus::encode::serialize;
use bdk_wallet::bitcoin::{Address, OutPoint, Script, ScriptBuf, Transaction};
use joinery_proto::message::InputSignature;
use joinery_proto::nacl_box::NaclPublicKey;
use joinery_proto::transaction::fees::Agreement;
use joinery_proto::transaction::maker::{MakerRefusal, MakerShare};
use joinery_proto::transaction::signing::{Authorisation, LentCoin, OwnCoin};

use super::round_error::RoundError;
use super::rounds::{check_begin_texts, limited, unusable};
use super::state::State;
use super::{MakerRound, OpenedRound, RoundAccounts, RoundOutputs};
use crate::path::ScriptPlace;
use crate::round::{MAX_COINS, MAX_SIGNED, MAX_TRANSACTION, MAX_WORD, Round, RoundEvent, RoundId};
use crate::store::Fact;
use crate::types::{Branch, Keychain};

/// Addresses that are about to be handed out together.
struct Drawn {
    facts: [Fact; 2],
    keychains: [Keychain; 2],
    addresses: (Address, Address),
}

/// What a transaction of a maker's round is judged by.
fn share(round: &Round, coins: Vec<LentCoin>) -> Result<MakerShare, RoundError> {
    round.share(coins).ok_or(RoundError::OutOfOrder("it is not a maker's round"))
}

impl State {
    /// Everything that can be refused is looked at first. Nothing is durable yet: coins and scripts leave only after
    /// [`Self::reveal_round`], whose record has all of it.
    pub(super) fn open_round(&mut self, asked: &MakerRound) -> Result<OpenedRound, RoundError> {
        let (mixdepth, outpoints) = (asked.mixdepth, &asked.coins);
        self.check_mixdepth(mixdepth)?;
        check_begin_texts("", &asked.nick)?;
        limited("name of a counterparty", asked.taker.len(), MAX_WORD)?;
        limited("list of coins", outpoints.len(), MAX_COINS)?;
        let Agreement { fee, tx_fee, .. } = asked.agreement;
        if fee < tx_fee {
            return Err(MakerRefusal::NegativeEarning { fee, tx_fee }.into());
        }
        let id = self.store.facts().next_round();
        self.refresh_if_stale();
        let snapshot = self.snapshot.load_full();
        let mut coins = Vec::with_capacity(outpoints.len());
        for &outpoint in outpoints {
            let coin = self.coin(&snapshot, outpoint)?;
            self.check_coin(id, mixdepth, coin).map_err(|reason| unusable(outpoint, reason))?;
            coins.push(self.own_coin(outpoint)?.lent());
        }
        let mut held = outpoints.clone();
        held.sort_unstable();
        held.dedup();
        if held.is_empty() || held.len() != outpoints.len() {
            return Err(RoundError::OutOfOrder("no coin is named, or one twice"));
        }
        let (drawn, (equal, change)) = match &asked.outputs {
            RoundOutputs::Fresh(accounts) => {
                let drawn = self.round_addresses(*accounts)?;
                let addresses = drawn.addresses.clone();
                (Some(drawn), addresses)
            }
            RoundOutputs::Known { equal, change } => {
                self.check_handed_out([equal, change])?;
                (None, (equal.clone(), change.clone()))
            }
        };
        let begin = asked.begin(&equal, &change);
        let mut facts = vec![
            Fact::Round { round: id.0, event: RoundEvent::Begun(begin) },
            Fact::Round { round: id.0, event: RoundEvent::Reserved { outpoints: held } },
        ];
        facts.extend(drawn.iter().flat_map(|drawn| drawn.facts.clone()));
        self.note(&facts);
        for keychain in drawn.iter().flat_map(|drawn| drawn.keychains) {
            self.issued(keychain);
        }
        // Readers see it once it is durable.
        Ok(OpenedRound { id, coins, equal, change })
    }

    /// The next addresses for both outputs of a round. They are handed out when the facts are recorded.
    fn round_addresses(&mut self, accounts: RoundAccounts) -> Result<Drawn, RoundError> {
        let internal = |mixdepth| Keychain { mixdepth, branch: Branch::Internal };
        let keychains = [internal(accounts.equal), internal(accounts.change)];
        let (equal, of_equal) = self.next_address(keychains[0], None)?;
        // A wallet of one account draws both from the same branch.
        let (change, of_change) = self.next_address(keychains[1], Some(&equal))?;
        let addresses = (self.address_of(&equal)?, self.address_of(&change)?);
        Ok(Drawn { facts: [of_equal, of_change], keychains, addresses })
    }

    /// Two different ones, of the kind that is drawn for a round.
    fn check_handed_out(&self, [equal, change]: [&Address; 2]) -> Result<(), RoundError> {
        if equal == change {
            return Err(MakerRefusal::SameScript.into());
        }
        let ours = |address: &&Address| self.is_issued_internal(&address.script_pubkey());
        if [equal, change].iter().all(ours) {
            Ok(())
        } else {
            Err(RoundError::OutOfOrder("a script is not a handed out address of ours"))
        }
    }

    fn is_issued_internal(&self, script: &Script) -> bool {
        match self.graph.index().place_of(script) {
            Some(ScriptPlace::Ranged { keychain, index }) => {
                keychain.branch == Branch::Internal
                    && index < self.graph.index().next_unused(keychain)
            }
            _ => false,
        }
    }

    /// Makes durable that the round's coins and scripts are told to a taker, and proves with one of the coins that it is
    /// us who speaks.
    pub(super) fn reveal_round(
        &mut self,
        id: RoundId,
        commitment: [u8; 32],
        session: &NaclPublicKey,
        coin: OutPoint,
    ) -> Result<Authorisation, RoundError> {
        let round = self.running(id)?;
        let MakerShare { cj_script, change_script, .. } = share(&round, Vec::new())?;
        self.check_holds(&round, coin)?;
        let scripts = vec![cj_script, change_script];
        self.check_shown_to_nobody_else(&round, &scripts, commitment)?;
        let authorisation = self.own_coin(coin)?.authorise(session);
        if round.commitment.is_none() {
            self.record_event(id, RoundEvent::Revealed { scripts, commitment })?;
        }
        Ok(authorisation)
    }

    /// The same taker may see the same scripts again for the same commitment, and nobody else may.
    fn check_shown_to_nobody_else(
        &self,
        round: &Round,
        scripts: &[ScriptBuf],
        commitment: [u8; 32],
    ) -> Result<(), RoundError> {
        let shown = |other: &&Arc<Round>| {
            scripts.iter().any(|script| other.scripts.binary_search(script).is_ok())
        };
        let mut before = self.store.facts().rounds.values().filter(shown);
        if before.any(|other| other.commitment != Some(commitment)) {
            return Err(RoundError::ScriptUsed);
        }
        if round.commitment.is_some_and(|known| known != commitment) {
            return Err(RoundError::OutOfOrder("it was told for another commitment"));
        }
        Ok(())
    }

    fn check_holds(&self, round: &Round, outpoint: OutPoint) -> Result<(), RoundError> {
        if self.locks.round(&outpoint) == Some(round.id) {
            Ok(())
        } else {
            Err(RoundError::NotHeld { round: round.id, outpoint })
        }
    }

    /// Signs a transaction of a round if it spends exactly the coins of the round of all that are ours, and pays the round's
    /// outputs what was agreed or more; that it is signed is durable when this returns. Asked again for the same
    /// transaction the answer is the same, and nothing more is recorded.
    pub(super) fn sign_round(
        &mut self,
        id: RoundId,
        tx: Transaction,
        time: u64,
    ) -> Result<Vec<InputSignature>, RoundError> {
        let round = self.running(id)?;
        let share = share(&round, self.lent_coins(&round)?)?;
        if round.commitment.is_none() {
            return Err(RoundError::OutOfOrder("no taker was told of the coins"));
        }
        limited("transaction", tx.total_size(), MAX_TRANSACTION)?;
        let txid = tx.compute_txid();
        let known = round.signed.iter().any(|(known, _, _)| *known == txid);
        if !known && round.signed.len() >= MAX_SIGNED {
            return Err(RoundError::OutOfOrder("too many transactions are signed already"));
        }
        // A reorganisation must not change the answer to what was asked before.
        let height = self.tip.map(|tip| tip.height).filter(|_| !known);
        let verified = share.verify(tx, height)?;
        let inputs = verified.transaction().input.iter().map(|input| input.previous_output);
        let other = inputs
            .filter(|input| round.coins.binary_search(input).is_err())
            .find(|input| self.graph.is_ours(*input));
        if let Some(other) = other {
            return Err(MakerRefusal::OtherCoin(other).into());
        }
        let keys: Vec<OwnCoin> =
            round.coins.iter().map(|coin| self.own_coin(*coin)).collect::<Result<_, _>>()?;
        let signatures = verified
            .sign(&keys)
            .map_err(|_| RoundError::KeyCheck("a coin cannot be signed for"))?;
        if !known {
            let (raw, sums) = (serialize(verified.transaction()), round.sums_of(&share));
            self.record_event(id, RoundEvent::Signed { txid, raw, sums, time })?;
        }
        Ok(signatures)
    }

    /// The coins of a round as the wallet knows them.
    fn lent_coins(&self, round: &Round) -> Result<Vec<LentCoin>, RoundError> {
        let lent = |outpoint: &OutPoint| {
            self.check_holds(round, *outpoint)?;
            let (_, txout) = self.txout(*outpoint)?;
            let (value, script) = (txout.value.to_sat(), txout.script_pubkey.clone());
            Ok(LentCoin { outpoint: *outpoint, value, script })
        };
        round.coins.iter().map(lent).collect()
    }
}

impl From<MakerRefusal> for RoundError {
    fn from(refusal: MakerRefusal) -> Self {
        Self::Refused(refusal)
    }
}
