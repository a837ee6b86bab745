//! Facts taken apart again: the compact form that a rotated journal starts with, and the single entries
//! that the database keeps as a second copy.

use bdk_wallet::bitcoin::OutPoint;
use bdk_wallet::bitcoin::consensus::encode::serialize;

use super::{Fact, Facts, OwnTxState};
use crate::round::{RoundEvent, RoundId};

/// Coins in one [`Fact::CoinsSeen`] of the compact form.
const SEEN_AT_ONCE: usize = 500;

impl Facts {
    /// The shortest list of facts that folds to these (freeze times are not kept and come back as 0).
    #[must_use]
    pub fn unfold(&self) -> Vec<Fact> {
        let mut out = Vec::new();
        for (&(mixdepth, branch), &next_unused) in &self.issued {
            out.push(Fact::Issued { mixdepth, branch, next_unused });
        }
        for (&outpoint, &(frozen, by)) in &self.frozen {
            out.push(Fact::Frozen { outpoint, frozen, by, time: 0 });
        }
        let seen: Vec<OutPoint> = self.seen.iter().copied().collect();
        for outpoints in seen.chunks(SEEN_AT_ONCE) {
            out.push(Fact::CoinsSeen { outpoints: outpoints.to_vec() });
        }
        for (address, label) in &self.labels {
            out.push(Fact::Label { address: address.clone(), label: label.clone() });
        }
        out.extend(self.bonds.iter().map(|&timenumber| Fact::BondIssued { timenumber }));
        for (&outpoint, used) in &self.commitments {
            for (&index, &commitment) in used {
                out.push(Fact::CommitmentUsed { outpoint, index, commitment });
            }
        }
        for (&txid, tx) in &self.own_txs {
            out.push(Fact::OwnTransaction { txid, raw: tx.raw.clone(), time: tx.time });
            if tx.state != OwnTxState::Built {
                out.push(Fact::OwnTransactionState { txid, state: tx.state });
            }
        }
        if self.synced_once {
            out.push(Fact::SyncedOnce);
        }
        if self.imported {
            out.push(Fact::Imported);
        }
        if self.state_lost {
            out.push(Fact::StateLost);
        }
        for (&RoundId(round), known) in &self.rounds {
            out.extend(known.unfold().into_iter().map(|event| Fact::Round { round, event }));
        }
        out
    }
}

/// Splits a fact into parts that each concern one thing.
pub(super) fn entries(fact: &Fact) -> Vec<Fact> {
    match fact {
        Fact::CoinsSeen { outpoints } => {
            outpoints.iter().map(|&o| Fact::CoinsSeen { outpoints: vec![o] }).collect()
        }
        Fact::Round { round, event: RoundEvent::Reserved { outpoints } } => outpoints
            .iter()
            .map(|&o| Fact::Round {
                round: *round,
                event: RoundEvent::Reserved { outpoints: vec![o] },
            })
            .collect(),
        other => vec![other.clone()],
    }
}

/// What a single entry is about: of two entries with the same subject the newer one counts.
pub(super) fn subject(entry: &Fact) -> Vec<u8> {
    let (kind, name) = match entry {
        Fact::Issued { mixdepth, branch, .. } => (0, vec![*mixdepth, *branch]),
        Fact::Frozen { outpoint, .. } => (1, serialize(outpoint)),
        Fact::CoinsSeen { outpoints } => (2, outpoints.iter().flat_map(serialize).collect()),
        Fact::Label { address, .. } => (3, address.as_bytes().to_vec()),
        Fact::BondIssued { timenumber } => (4, timenumber.to_be_bytes().to_vec()),
        Fact::CommitmentUsed { outpoint, index, .. } => {
            (5, [serialize(outpoint), vec![*index]].concat())
        }
        // One subject: what is over takes the place of the transaction.
        Fact::OwnTransaction { txid, .. } | Fact::OwnTransactionOver { txid } => {
            (6, serialize(txid))
        }
        Fact::OwnTransactionState { txid, .. } => (7, serialize(txid)),
        Fact::SyncedOnce => (8, Vec::new()),
        Fact::Imported => (9, Vec::new()),
        // One subject: whichever came last decides.
        Fact::StateLost | Fact::IndexesSkipped => (10, Vec::new()),
        Fact::Round { round, event } => {
            (11, [round.to_be_bytes().to_vec(), round_subject(event)].concat())
        }
    };
    [vec![kind], name].concat()
}

/// What an event of a round is about. The order is that of [`Round::unfold`](crate::round::Round::unfold): events
/// that were stored together are read in the order of their subjects.
fn round_subject(event: &RoundEvent) -> Vec<u8> {
    let (kind, name) = match event {
        RoundEvent::Begun(_) => (0, Vec::new()),
        RoundEvent::Reserved { outpoints } => (1, outpoints.iter().flat_map(serialize).collect()),
        RoundEvent::Released => (2, Vec::new()),
        RoundEvent::CommitmentSent { commitment, .. } => (3, commitment.to_vec()),
        RoundEvent::Shown { txid, .. } => (4, serialize(txid)),
        RoundEvent::Revealed { scripts, commitment } => {
            let scripts = scripts.iter().flat_map(|script| script.as_bytes());
            (5, commitment.iter().chain(scripts).copied().collect())
        }
        RoundEvent::Signed { txid, .. } => (6, serialize(txid)),
        RoundEvent::Seen { .. } => (7, Vec::new()),
        RoundEvent::Confirmed { .. } => (8, Vec::new()),
        RoundEvent::Abandoned { .. } => (9, Vec::new()),
        RoundEvent::Accounted => (10, Vec::new()),
        RoundEvent::Ended(_) => (11, Vec::new()),
    };
    [vec![kind], name].concat()
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::hashes::Hash;
    use bdk_wallet::bitcoin::{ScriptBuf, Txid};

    use super::*;
    use crate::round::{Agreed, RoundBegin, RoundEnd, RoundRole, RoundSums};

    fn written(fact: &Fact) -> String {
        let mut bytes = Vec::new();
        ciborium::into_writer(fact, &mut bytes).expect("memory");
        let read: Fact = ciborium::from_reader(bytes.as_slice()).expect("its own form");
        assert_eq!(&read, fact);
        hex::encode(bytes)
    }

    #[test]
    fn a_transaction_that_is_over_leaves_nothing_behind() {
        let mut facts = Facts::default();
        for byte in 0..200 {
            let txid = Txid::from_byte_array([byte; 32]);
            let raw = vec![byte; 9000];
            for fact in [
                Fact::OwnTransaction { txid, raw, time: 1 },
                Fact::OwnTransactionState { txid, state: OwnTxState::Confirmed },
                Fact::OwnTransactionOver { txid },
                // Late news of it do not bring it back.
                Fact::OwnTransactionState { txid, state: OwnTxState::Confirmed },
            ] {
                written(&fact);
                facts.apply(&fact);
            }
            assert_eq!((facts.own_txs.len(), facts.unfold().len()), (0, 0));
        }
    }

    /// What journals hold must be readable for ever: a fact of the time before rounds, and each event of a round.
    #[test]
    fn the_stored_form_of_facts_is_frozen() {
        let txid = Txid::from_byte_array([1; 32]);
        let outpoint = OutPoint { txid, vout: 2 };
        let sums =
            RoundSums { counterparties: vec!["J5a".into()], cost: -3, ..RoundSums::default() };
        let begin = RoundBegin {
            role: RoundRole::Taker,
            time: 1,
            mixdepth: 2,
            amount: 3,
            counterparties: 4,
            destination: "INTERNAL".into(),
            nick: "J5b".into(),
            agreed: None,
        };
        let end = RoundEnd { code: "complete".into(), text: "Done.".into(), time: 5 };
        let commitment = [7; 32];
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let events = [
            RoundEvent::Begun(begin.clone()),
            RoundEvent::Reserved { outpoints: vec![outpoint] },
            RoundEvent::Released,
            RoundEvent::CommitmentSent { outpoint: None, index: 1, commitment },
            RoundEvent::Shown { txid, sums: sums.clone() },
            RoundEvent::Revealed { scripts: vec![script], commitment },
            RoundEvent::Signed { txid, raw: vec![9, 9], sums, time: 6 },
            RoundEvent::Seen { txid, time: 7 },
            RoundEvent::Confirmed { txid, height: 8, time: 9 },
            RoundEvent::Abandoned { time: 10 },
            RoundEvent::Accounted,
            RoundEvent::Ended(end),
        ];
        let mut all = vec![written(&Fact::CommitmentUsed { outpoint, index: 3, commitment })];
        all.extend(events.map(|event| written(&Fact::Round { round: 300, event })));
        let digest = <sha2::Sha256 as sha2::Digest>::digest(all.join("\n"));
        assert_eq!(
            hex::encode(digest),
            "37677d60907968a2ac1e6ee6069a10b594f4e87a812db5f0521afe9f64a0f97b",
            "{all:#?}"
        );
        // Added later; what was there before reads as ever.
        let agreed = Agreed {
            taker: "J5c".into(),
            coinjoin_fee: 11,
            miner_fee: 10,
            equal: ScriptBuf::from_bytes(vec![0x52]),
            change: ScriptBuf::from_bytes(vec![0x53]),
        };
        let begin = RoundBegin { role: RoundRole::Maker, agreed: Some(agreed), ..begin };
        let begun = written(&Fact::Round { round: 300, event: RoundEvent::Begun(begin) });
        assert_eq!(
            hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&begun)),
            "d0fe048068ab725a41c39c81b54391521f7c5f8eeee41bdc9afaffb9efa6eb64",
            "{begun}"
        );
    }
}
