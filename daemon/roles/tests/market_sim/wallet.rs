//! A wallet in memory that answers the questions of a role, and watches that nothing is used twice.

use std::collections::{BTreeMap, BTreeSet};

use joinery_proto::bitcoin::consensus::encode;
use joinery_proto::bitcoin::hashes::{Hash, sha256};
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::{Address, Network, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_proto::message::InputSignature;
use joinery_proto::transaction::signing::{OwnCoin, p2wpkh};
use joinery_roles::ask::{
    Answer, AskError, AttemptFeeRate, Question, SendResult, WalletCoin, WalletView,
};
use joinery_wallet::round::{Round, RoundEnd, RoundEvent, RoundId, RoundSums};
use joinery_wallet::service::{OpenedRound, RoundOutputs};
use joinery_wallet::snapshot::CoinKind;
use joinery_wallet::types::Mixdepth;
use rand::Rng;
use rand::rngs::StdRng;

use crate::chain::Chain;

/// What goes wrong in a wallet or with its server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Chance that the server cannot be asked.
    pub(crate) unreachable: f64,
    /// The journal cannot be written from the event with this number on.
    pub(crate) full_after: Option<usize>,
    /// The server refuses every transaction.
    pub(crate) rejects: bool,
    /// No coin can be held.
    pub(crate) unusable: bool,
    /// The server gives no answer about these coins.
    pub(crate) unanswered: BTreeSet<OutPoint>,
}

#[derive(Debug)]
pub(crate) struct FakeWallet {
    name: String,
    keys: u32,
    scripts: BTreeMap<ScriptBuf, (Mixdepth, SecretKey)>,
    pub(crate) frozen: BTreeSet<OutPoint>,
    pub(crate) rounds: BTreeMap<RoundId, Round>,
    pub(crate) journal: Vec<(RoundId, RoundEvent)>,
    used: BTreeMap<OutPoint, BTreeSet<u8>>,
    commitments: BTreeSet<[u8; 32]>,
    pub(crate) issued: Vec<ScriptBuf>,
    pub(crate) signed: Vec<Transaction>,
    pub(crate) rate: u64,
    pub(crate) max_mixdepth: u8,
    pub(crate) faults: Faults,
}

fn key(text: &str) -> SecretKey {
    SecretKey::from_slice(&sha256::Hash::hash(text.as_bytes()).to_byte_array()).unwrap()
}

impl FakeWallet {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            keys: 0,
            scripts: BTreeMap::new(),
            frozen: BTreeSet::new(),
            rounds: BTreeMap::new(),
            journal: Vec::new(),
            used: BTreeMap::new(),
            commitments: BTreeSet::new(),
            issued: Vec::new(),
            signed: Vec::new(),
            rate: 5_000,
            max_mixdepth: 4,
            faults: Faults::default(),
        }
    }

    /// A fresh script of an account.
    pub(crate) fn script(&mut self, mixdepth: u8) -> ScriptBuf {
        self.keys += 1;
        let secret = key(&format!("{} {}", self.name, self.keys));
        let script = p2wpkh(&secret.public_key(joinery_proto::secp()));
        self.scripts.insert(script.clone(), (Mixdepth(mixdepth), secret));
        script
    }

    pub(crate) fn fund(
        &mut self,
        chain: &mut Chain,
        mixdepth: u8,
        value: u64,
        age: u32,
    ) -> OutPoint {
        let script = self.script(mixdepth);
        chain.fund(script, value, age)
    }

    pub(crate) fn owns(&self, script: &ScriptBuf) -> bool {
        self.scripts.contains_key(script)
    }

    fn held(&self) -> BTreeSet<OutPoint> {
        let rounds = self.rounds.values().filter(|round| round.holds_coins());
        rounds.flat_map(|round| round.coins.iter().copied()).collect()
    }

    pub(crate) fn view(&self, chain: &Chain) -> WalletView {
        let held = self.held();
        let coins = chain.coins.iter().filter(|(_, coin)| coin.spent_by.is_none());
        let coins = coins.filter_map(|(outpoint, coin)| {
            let (mixdepth, _) = self.scripts.get(&coin.script)?;
            let frozen = self.frozen.contains(outpoint);
            Some(WalletCoin {
                outpoint: *outpoint,
                value: coin.value,
                mixdepth: *mixdepth,
                confirmations: chain.confirmations(coin),
                height: coin.height,
                free: !frozen && !held.contains(outpoint),
                frozen,
                locktime: None,
                kind: CoinKind::Deposit,
                commitments_used: self.used.get(outpoint).into_iter().flatten().copied().collect(),
            })
        });
        WalletView {
            coins: coins.collect(),
            max_mixdepth: self.max_mixdepth,
            height: Some(chain.height),
            median_time: Some(1_700_000_000),
            synced: true,
        }
    }

    /// Uses commitments up before a request begins.
    pub(crate) fn use_commitments(&mut self, outpoint: OutPoint, indexes: &[u8]) {
        self.used.entry(outpoint).or_default().extend(indexes);
    }

    fn not_free(&self, outpoints: &[OutPoint], chain: &Chain) -> Option<OutPoint> {
        let view = self.view(chain);
        let free = |outpoint: &OutPoint| {
            view.coins.iter().any(|coin| coin.outpoint == *outpoint && coin.free)
        };
        outpoints.iter().find(|o| !free(o) || self.faults.unusable).copied()
    }

    fn reserve(
        &mut self,
        round: RoundId,
        outpoints: Vec<OutPoint>,
        chain: &Chain,
    ) -> Result<(), AskError> {
        if let Some(outpoint) = self.not_free(&outpoints, chain) {
            return Err(AskError::Unusable(outpoint));
        }
        self.record(round, RoundEvent::Reserved { outpoints })
    }

    fn address(&mut self, mixdepth: u8) -> Address {
        let script = self.script(mixdepth);
        assert!(!self.issued.contains(&script), "an address was issued twice");
        self.issued.push(script.clone());
        Address::from_script(&script, Network::Regtest).unwrap()
    }

    fn coins(&self, round: RoundId, outpoints: &[OutPoint], chain: &Chain) -> Vec<OwnCoin> {
        let round = &self.rounds[&round];
        let coins = outpoints.iter().map(|outpoint| {
            assert!(round.holds_coins() && round.coins.contains(outpoint), "not held");
            let coin = &chain.coins[outpoint];
            OwnCoin::new(*outpoint, coin.value, self.scripts[&coin.script].1)
        });
        coins.collect()
    }

    pub(crate) fn answer(
        &mut self,
        question: Question,
        chain: &mut Chain,
        rng: &mut StdRng,
    ) -> Answer {
        let down = self.faults.unreachable > 0.0 && rng.random_bool(self.faults.unreachable);
        let unreachable = || AskError::Unreachable("no route".to_owned());
        match question {
            Question::Begin(begin) => {
                let id = RoundId(self.rounds.len() as u64 + 1);
                self.rounds.insert(id, Round::new(id, *begin));
                Answer::Begun(Ok(id))
            }
            Question::Reserve { round, outpoints } => {
                Answer::Reserved(self.reserve(round, outpoints, chain))
            }
            Question::Open(asked) => {
                if let Some(outpoint) = self.not_free(&asked.coins, chain) {
                    return Answer::Opened(Err(AskError::Unusable(outpoint)));
                }
                let (equal, change) = match &asked.outputs {
                    RoundOutputs::Known { equal, change } => (equal.clone(), change.clone()),
                    RoundOutputs::Fresh(accounts) => {
                        (self.address(accounts.equal.0), self.address(accounts.change.0))
                    }
                };
                let id = RoundId(self.rounds.len() as u64 + 1);
                self.rounds.insert(id, Round::new(id, asked.begin(&equal, &change)));
                if let Err(error) = self.reserve(id, asked.coins.clone(), chain) {
                    return Answer::Opened(Err(error));
                }
                let coins = self.coins(id, &asked.coins, chain);
                let coins = coins.iter().map(OwnCoin::lent).collect();
                Answer::Opened(Ok(OpenedRound { id, coins, equal, change }))
            }
            Question::Reveal { round, commitment, session, coin } => {
                let agreed = self.rounds[&round].begin.agreed.clone().unwrap();
                let (scripts, commitment) =
                    (vec![agreed.equal, agreed.change], *commitment.as_bytes());
                let recorded = self.record(round, RoundEvent::Revealed { scripts, commitment });
                let proof = self.coins(round, &[coin], chain)[0].authorise(&session);
                Answer::Revealed(recorded.map(|()| proof))
            }
            Question::Sign { round, transaction, time } => {
                Answer::Signed(self.sign(round, *transaction, time, chain))
            }
            Question::Address { mixdepth } => Answer::Address(Ok(self.address(mixdepth.0))),
            Question::Coins { round, outpoints } => {
                Answer::Coins(Ok(self.coins(round, &outpoints, chain)))
            }
            Question::Record { round, event } => {
                if let RoundEvent::CommitmentSent { outpoint, index, commitment } = &*event {
                    assert!(self.commitments.insert(*commitment), "a commitment is used twice");
                    let new = self.used.entry(outpoint.unwrap()).or_default().insert(*index);
                    assert!(new, "an index is used twice");
                }
                Answer::Recorded(self.record(round, *event))
            }
            Question::End { round, end } => {
                Answer::Recorded(self.record(round, RoundEvent::Ended(end)))
            }
            Question::LookUp(_) if down => Answer::Found(Err(unreachable())),
            Question::LookUp(coins)
                if coins.iter().any(|coin| self.faults.unanswered.contains(&coin.outpoint)) =>
            {
                Answer::Found(Err(unreachable()))
            }
            Question::LookUp(coins) => {
                Answer::Found(Ok(coins.iter().map(|coin| chain.look_up(&coin.outpoint)).collect()))
            }
            Question::FeeRate if down => Answer::FeeRate(Err(unreachable())),
            Question::FeeRate => {
                Answer::FeeRate(Ok(AttemptFeeRate { rate: self.rate, floor: 1_000 }))
            }
            Question::Broadcast { round, transaction, sums, send } => {
                if let Err(error) = self.keep(round, &transaction, sums) {
                    return Answer::Broadcast(Err(error));
                }
                let result = if !send {
                    SendResult::Kept
                } else if down {
                    SendResult::Unknown
                } else if self.faults.rejects {
                    SendResult::Rejected("min relay fee not met".to_owned())
                } else {
                    chain
                        .send(&transaction)
                        .map_or_else(SendResult::Rejected, |()| SendResult::Accepted)
                };
                Answer::Broadcast(Ok(result))
            }
            Question::Push(transaction) => {
                let sent = chain.send(&transaction);
                Answer::Broadcast(Ok(
                    sent.map_or_else(SendResult::Rejected, |()| SendResult::Accepted)
                ))
            }
            Question::RememberCommitment(_) => Answer::Recorded(Ok(())),
            question => panic!("nobody answers {question:?}"),
        }
    }

    /// A maker's transaction.
    fn sign(
        &mut self,
        id: RoundId,
        tx: Transaction,
        time: u64,
        chain: &Chain,
    ) -> Result<Vec<InputSignature>, AskError> {
        let round = self.rounds[&id].clone();
        let keys = self.coins(id, &round.coins, chain);
        let share = round.share(keys.iter().map(OwnCoin::lent).collect()).unwrap();
        let verified = share.verify(tx, Some(chain.height)).map_err(AskError::Refused)?;
        let tx = verified.transaction();
        let (txid, raw) = (tx.compute_txid(), encode::serialize(tx));
        let sums = round.sums_of(&share);
        self.record(id, RoundEvent::Signed { txid, raw, sums, time })?;
        Ok(verified.sign(&keys).unwrap())
    }

    fn keep(&mut self, round: RoundId, tx: &Transaction, sums: RoundSums) -> Result<(), AskError> {
        let txid = tx.compute_txid();
        if self.rounds[&round].signed.iter().any(|(known, _, _)| *known == txid) {
            return Ok(());
        }
        let raw = encode::serialize(tx);
        self.record(round, RoundEvent::Signed { txid, raw, sums, time: 0 })?;
        self.signed.push(tx.clone());
        Ok(())
    }

    fn record(&mut self, round: RoundId, event: RoundEvent) -> Result<(), AskError> {
        if self.faults.full_after.is_some_and(|most| self.journal.len() >= most) {
            return Err(AskError::Storage("disk full".to_owned()));
        }
        let entry = self.rounds.get_mut(&round).expect("a round that was begun");
        entry.apply(&event);
        self.journal.push((round, event));
        Ok(())
    }

    /// What the wallet does when it is opened after a crash (`a_kill_at_any_step_of_a_round_reuses_no_coin_address_or_commitment`
    /// in its own tests): rounds come from the journal alone, those that ran are over, and what was signed is sent.
    pub(crate) fn reopen(&mut self, chain: &mut Chain) {
        for (id, round) in &mut self.rounds {
            let mut read = Round::new(*id, round.begin.clone());
            for (_, event) in self.journal.iter().filter(|(of, _)| of == id) {
                read.apply(event);
            }
            // The first sighting follows from the chain, not from the journal of this test.
            if let Some((txid, time)) = round.seen {
                read.apply(&RoundEvent::Seen { txid, time });
            }
            assert_eq!(*round, read, "the journal does not say everything");
        }
        let open = self.rounds.values().filter(|round| round.end.is_none()).map(|round| round.id);
        for id in open.collect::<Vec<_>>() {
            let end = RoundEnd { code: "interrupted".to_owned(), text: String::new(), time: 0 };
            self.record(id, RoundEvent::Ended(end)).expect("the disk is there");
        }
        for round in self.rounds.values() {
            let raw = round.signed.iter().map(|(_, raw, _)| raw);
            for tx in raw.filter_map(|raw| encode::deserialize(raw).ok()) {
                // Refused: it is beaten or known. It stays ours to follow.
                let _ = chain.send(&tx);
            }
        }
        self.notice(chain);
    }

    /// Notices what is in the mempool; returns rounds that changed.
    pub(crate) fn notice(&mut self, chain: &Chain) -> Vec<Round> {
        let mut changed = Vec::new();
        for round in self.rounds.values_mut() {
            let seen: Option<Txid> = round
                .signed
                .iter()
                .map(|(txid, _, _)| *txid)
                .find(|txid| chain.transactions.contains_key(txid));
            if let (Some(txid), None) = (seen, round.seen) {
                round.apply(&RoundEvent::Seen { txid, time: 0 });
                changed.push(round.clone());
            }
        }
        changed
    }
}
