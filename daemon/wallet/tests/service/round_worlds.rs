//! Rounds, payments, deposits, reorganisations and power cuts in random order. Whatever the order: no address, coin or
//! commitment serves twice, nothing leaves before it is durable, and in the end every round says what became of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_proto::transaction::fees::Agreement;
use joinery_wallet::round::{Round, RoundEvent, RoundId, RoundRole};
use joinery_wallet::service::{
    MakerRound, OpenedRound, RoundAccounts, RoundOutputs, RoundSent, SendRequest, WalletHandle,
};
use joinery_wallet::snapshot::Snapshot;
use joinery_wallet::store::{Fact, Facts};
use joinery_wallet::types::{Branch, Mixdepth};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

use crate::fake_chain::OnBroadcast;
use crate::rig::{As, Rig, at, coin, out, payment, spend, until};
use crate::round_stage::{SESSION, begin, clock, earning, end, lend, sign};

/// Worlds, and steps in each.
const WORLDS: u64 = 20;
const STEPS: usize = 120;

/// What the test knows of a round.
#[derive(Debug)]
struct Known {
    id: RoundId,
    role: RoundRole,
    coins: Vec<OutPoint>,
    /// Scripts for the equal amount and the change.
    scripts: [ScriptBuf; 2],
    /// What was signed; at most one of them can be in the chain.
    signed: Vec<Transaction>,
    ended: bool,
    /// We may send it.
    ours_to_send: bool,
    /// Its signature is so old that it is given up if nobody sees it.
    old: bool,
}

struct World {
    rig: Rig,
    wallet: Option<WalletHandle>,
    rng: StdRng,
    rounds: Vec<Known>,
    issued: HashSet<ScriptBuf>,
    salt: u32,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rig = Rig::new();
        // So that what others send is never ours to send.
        rig.policy.send_interrupted = false;
        rig.chain.be_strict();
        let wallet = rig.ready(As::Fresh).await;
        let rng = StdRng::seed_from_u64(seed);
        let (rounds, issued) = (Vec::new(), HashSet::new());
        Self { rig, wallet: Some(wallet), rng, rounds, issued, salt: 0 }
    }

    fn wallet(&self) -> WalletHandle {
        self.wallet.clone().expect("open")
    }

    fn stranger(&mut self) -> (OutPoint, ScriptBuf) {
        self.salt += 1;
        let mut script = vec![0, 20];
        script.extend([9; 16]);
        script.extend(self.salt.to_be_bytes());
        let tx = payment(7, &[(ScriptBuf::from_bytes(script.clone()), 1)]);
        (OutPoint { txid: tx.compute_txid(), vout: 0 }, ScriptBuf::from_bytes(script))
    }

    async fn address(&mut self, mixdepth: u8, branch: Branch) -> bdk_wallet::bitcoin::Address {
        let address =
            self.wallet().issue_address(Mixdepth(mixdepth), branch).await.expect("issued");
        assert!(self.issued.insert(address.script_pubkey()), "an address was handed out twice");
        address
    }

    /// Outpoints that something in the server's chain or mempool spends.
    fn spent(&self) -> HashSet<OutPoint> {
        let txs = self.rig.chain.transactions();
        txs.iter().flat_map(|(tx, _)| &tx.input).map(|input| input.previous_output).collect()
    }

    fn free_coins(&mut self, mixdepth: u8) -> Vec<OutPoint> {
        let snapshot = self.wallet().snapshot();
        let free = snapshot.coins.iter().filter(|coin| {
            !coin.locked
                && !coin.frozen
                && coin.mixdepth() == Mixdepth(mixdepth)
                && coin.value.to_sat() > 25_000
        });
        let count = self.rng.random_range(1..=2);
        free.map(|coin| coin.outpoint).choose_multiple(&mut self.rng, count)
    }

    // --- steps -----------------------------------------------------------------------------------

    async fn deposit(&mut self) {
        let mixdepth = self.rng.random_range(0..3);
        let address = self.address(mixdepth, Branch::External).await;
        let (stranger, _) = self.stranger();
        let tx = spend(&[stranger], &[out(&address, self.rng.random_range(60_000..200_000))]);
        if self.rng.random() {
            self.rig.chain.mine(&[&tx]);
        } else {
            self.rig.chain.place(&tx, None);
        }
    }

    async fn open_round(&mut self) {
        let mixdepth = self.rng.random_range(0..3);
        let coins = self.free_coins(mixdepth);
        if coins.is_empty() {
            return;
        }
        let role = if self.rng.random() { RoundRole::Maker } else { RoundRole::Taker };
        let opened = match role {
            RoundRole::Maker => self.open_as_maker(mixdepth, &coins).await,
            RoundRole::Taker => self.open_as_taker(mixdepth, &coins).await,
        };
        // What the snapshot showed may be spent or held by now; then all stay free.
        let Some((id, scripts)) = opened else { return };
        let wallet = self.wallet();
        let commitment = self.rng.random();
        match role {
            RoundRole::Maker => {
                let told = wallet.reveal_round(id, commitment, SESSION, coins[0]).await;
                told.expect("recorded");
            }
            RoundRole::Taker => {
                let snapshot = wallet.snapshot();
                let coin = snapshot.coins.iter().find(|coin| coin.outpoint == coins[0]);
                let index = coin.map_or(0, joinery_wallet::snapshot::Coin::tries);
                let outpoint = Some(coins[0]);
                let event = RoundEvent::CommitmentSent { outpoint, index, commitment };
                wallet.record_round(id, event.clone()).await.expect("recorded");
                wallet.record_round(id, event).await.expect_err("used up");
            }
        }
        self.rounds.push(Known {
            id,
            role,
            coins,
            scripts,
            signed: Vec::new(),
            ended: false,
            ours_to_send: false,
            old: false,
        });
    }

    /// Everything at once.
    async fn open_as_maker(
        &mut self,
        mixdepth: u8,
        coins: &[OutPoint],
    ) -> Option<(RoundId, [ScriptBuf; 2])> {
        let accounts =
            RoundAccounts { equal: Mixdepth((mixdepth + 1) % 5), change: Mixdepth(mixdepth) };
        let round = MakerRound {
            mixdepth: Mixdepth(mixdepth),
            agreement: Agreement { amount: 20_000, fee: 150, tx_fee: 50 },
            outputs: RoundOutputs::Fresh(accounts),
            ..lend(coins)
        };
        let OpenedRound { id, equal, change, .. } = self.wallet().open_round(round).await.ok()?;
        assert!(self.rounds.iter().all(|known| known.id < id), "a number was used twice");
        for address in [&equal, &change] {
            assert!(self.issued.insert(address.script_pubkey()), "an address was handed out twice");
        }
        Some((id, [equal.script_pubkey(), change.script_pubkey()]))
    }

    /// Step by step.
    async fn open_as_taker(
        &mut self,
        mixdepth: u8,
        coins: &[OutPoint],
    ) -> Option<(RoundId, [ScriptBuf; 2])> {
        let wallet = self.wallet();
        let id = wallet.begin_round(begin(mixdepth)).await.expect("begun");
        assert!(self.rounds.iter().all(|known| known.id < id), "a number was used twice");
        if wallet.reserve(id, coins.to_vec()).await.is_err() {
            wallet.end_round(id, end("no_funds")).await.expect("ended");
            return None;
        }
        let equal = self.address((mixdepth + 1) % 5, Branch::Internal).await.script_pubkey();
        let change = self.address(mixdepth, Branch::Internal).await.script_pubkey();
        Some((id, [equal, change]))
    }

    fn pick(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<usize> {
        let fitting = (0..self.rounds.len()).filter(|n| wanted(&self.rounds[*n]));
        fitting.choose(&mut self.rng)
    }

    async fn sign(&mut self) {
        let picked = self.pick(|known| {
            !known.ended && known.signed.len() < if known.role == RoundRole::Maker { 3 } else { 1 }
        });
        let Some(n) = picked else { return };
        let wallet = self.wallet();
        let (stranger, theirs) = self.stranger();
        let old = self.rng.random_ratio(1, 3);
        let send = self.rng.random();
        let known = &self.rounds[n];
        let sum = match known.role {
            RoundRole::Maker => {
                let snapshot = wallet.snapshot();
                let value = |outpoint: &OutPoint| Some(coin(&snapshot, *outpoint)?.value.to_sat());
                known.coins.iter().map(value).sum::<Option<u64>>()
            }
            RoundRole::Taker => {
                let own = wallet.coinjoin_coins(known.id, known.coins.clone()).await;
                own.ok().map(|own| own.iter().map(|coin| coin.value).sum())
            }
        };
        let Some(sum) = sum else {
            // A reorganisation took the coin away: the round is given up.
            wallet.end_round(known.id, end("coins_gone")).await.expect("ended");
            self.rounds[n].ended = true;
            return;
        };
        let keep = if known.role == RoundRole::Maker { sum + 100 } else { sum - 1000 };
        let outputs = [
            (known.scripts[0].clone(), 20_000),
            (theirs, 20_000),
            (known.scripts[1].clone(), keep - 20_000),
        ];
        let mut inputs = known.coins.clone();
        inputs.insert(0, stranger);
        let mut tx = spend(&inputs, &outputs);
        let id = known.id;
        match known.role {
            RoundRole::Maker => {
                let time = if old { clock() - 4000 } else { clock() };
                match sign(&wallet, id, &tx, time).await {
                    Ok(signatures) => {
                        assert_eq!(signatures.len(), self.rounds[n].coins.len());
                        self.rounds[n].old = old;
                    }
                    // A round whose first signature was too old has just let go of its coins.
                    Err(error) => {
                        assert!(self.rounds[n].old, "{error}");
                        return;
                    }
                }
            }
            RoundRole::Taker => {
                tx.input.iter_mut().for_each(|input| input.witness.push([1; 72]));
                wallet.keep_transaction(id, tx.clone(), earning(-1000), send).await.expect("kept");
                self.rounds[n].ours_to_send = send;
                if send {
                    let sent = wallet.send_round_transaction(id).await.expect("tried");
                    assert_ne!(sent, RoundSent::Rejected { text: String::new() });
                }
            }
        }
        // Some inputs of others change the id of what is sent.
        if self.rounds[n].role == RoundRole::Maker && self.rng.random_ratio(1, 4) {
            tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x16; 23]);
        }
        self.rounds[n].signed.push(tx);
    }

    async fn end_one(&mut self) {
        let Some(n) = self.pick(|known| !known.ended) else { return };
        self.wallet().end_round(self.rounds[n].id, end("over")).await.expect("ended");
        self.rounds[n].ended = true;
    }

    /// A counterparty sends something that was signed.
    fn publish(&mut self) {
        let Some(n) = self.pick(|known| !known.signed.is_empty()) else { return };
        let tx = self.rounds[n].signed.choose(&mut self.rng).expect("signed").clone();
        let txid = tx.compute_txid();
        let there = self.rig.chain.transactions().iter().any(|(tx, _)| tx.compute_txid() == txid);
        let possible = !there && self.rig.chain.objection(&tx).is_none();
        if possible {
            self.rig.chain.place(&tx, None);
        }
    }

    fn mine(&mut self) {
        let txs = self.rig.chain.transactions();
        let waiting: Vec<&Arc<Transaction>> =
            txs.iter().filter(|(_, height)| height.is_none()).map(|(tx, _)| tx).collect();
        let ids: HashSet<Txid> = waiting.iter().map(|tx| tx.compute_txid()).collect();
        let mut chosen: Vec<&Transaction> = Vec::new();
        for tx in &waiting {
            let parents = tx.input.iter().map(|input| input.previous_output.txid);
            let ready = parents.clone().all(|txid| !ids.contains(&txid));
            if ready && self.rng.random_ratio(2, 3) {
                chosen.push(tx);
            }
        }
        self.rig.chain.mine(&chosen);
    }

    fn reorganise(&mut self) {
        let depth = self.rng.random_range(1..=2);
        self.rig.chain.reorganise(depth);
        // What nothing depends on may be gone for good.
        let spent = self.spent();
        let candidates: Vec<Txid> = self
            .rig
            .chain
            .transactions()
            .iter()
            .filter(|(tx, height)| {
                height.is_none()
                    && (0..).zip(&tx.output).all(|(vout, _)| !spent.contains(&at(tx, vout)))
            })
            .map(|(tx, _)| tx.compute_txid())
            .filter(|txid| {
                let of_round = |known: &Known| {
                    !known.ours_to_send && known.signed.iter().any(|tx| tx.compute_txid() == *txid)
                };
                self.rounds.iter().any(of_round)
            })
            .collect();
        if let Some(txid) = candidates.choose(&mut self.rng) {
            self.rig.chain.forget(*txid);
        }
    }

    async fn pay(&mut self) {
        let (_, destination) = self.stranger();
        let network = self.rig.network.bitcoin();
        let request = SendRequest {
            mixdepth: Mixdepth(self.rng.random_range(0..3)),
            amount: self
                .rng
                .random::<bool>()
                .then(|| Amount::from_sat(self.rng.random_range(5_000..150_000))),
            destination: bdk_wallet::bitcoin::Address::from_script(&destination, network)
                .expect("address"),
            fees: None,
            inputs: None,
            max_fee: None,
        };
        // Not enough money is an ordinary answer here; what it took is looked at in the history.
        let _ = self.wallet().direct_send(request).await;
    }

    async fn freeze(&mut self) {
        let snapshot = self.wallet().snapshot();
        let Some(coin) = snapshot.coins.choose(&mut self.rng).map(|coin| coin.outpoint) else {
            return;
        };
        let held = self.held().contains(&coin);
        let result = self.wallet().set_frozen(vec![(coin, true)]).await;
        if held && self.held().contains(&coin) {
            result.expect_err("held");
        } else if result.is_ok() {
            self.wallet().set_frozen(vec![(coin, false)]).await.expect("free");
        }
    }

    async fn reopen(&mut self) {
        let wallet = self.wallet.take().expect("open");
        if self.rng.random() {
            wallet.close().await;
            self.wallet = Some(self.rig.ready(As::Known).await);
        } else {
            drop(wallet);
            let keys = self.rig.keys();
            drop(keys);
            let store = Box::new(self.rig.store.reopen_after_crash());
            let wallet = self.rig.open_with(store, self.rig.options(As::Known)).await;
            until(&wallet, "caught up", |s| s.sync.complete).await;
            self.wallet = Some(wallet);
        }
        for known in &mut self.rounds {
            known.ended = true;
        }
    }

    // --- what must hold --------------------------------------------------------------------------

    /// Coins that rounds hold according to the wallet.
    fn held(&self) -> HashSet<OutPoint> {
        let rounds = self.wallet().rounds();
        let holding = rounds.iter().filter(|round| round.holds_coins());
        holding.flat_map(|round| round.coins.clone()).collect()
    }

    fn check_now(&self) {
        let snapshot = self.wallet().snapshot();
        let mut held = HashSet::new();
        for round in snapshot.rounds.iter().filter(|round| round.holds_coins()) {
            held.extend(round.coins.iter().copied());
        }
        for coin in &snapshot.coins {
            assert_eq!(coin.locked, held.contains(&coin.outpoint), "{:?}", coin.outpoint);
        }
    }

    /// The whole history, from the first fact on.
    fn check_history(&self) {
        let mut facts = Facts::default();
        let mut used: BTreeSet<(OutPoint, u8)> = BTreeSet::new();
        let mut hashes: BTreeSet<[u8; 32]> = BTreeSet::new();
        let mut shown: HashMap<ScriptBuf, u64> = HashMap::new();
        let mut given_up: BTreeSet<u64> = BTreeSet::new();
        for fact in self.rig.store.recorded() {
            match &fact {
                Fact::CommitmentUsed { outpoint, index, commitment } => {
                    assert!(used.insert((*outpoint, *index)), "an index was used twice");
                    assert!(hashes.insert(*commitment), "a commitment was used twice");
                }
                Fact::Round { round, event: RoundEvent::Revealed { scripts, .. } } => {
                    for script in scripts {
                        let before = shown.insert(script.clone(), *round);
                        assert!(before.is_none_or(|before| before == *round), "shown twice");
                    }
                }
                Fact::Round { event: RoundEvent::Reserved { outpoints }, .. } => {
                    for outpoint in outpoints {
                        let other = facts
                            .rounds
                            .values()
                            .find(|other| other.holds_coins() && other.coins.contains(outpoint));
                        // One that was given up and seen after all may still name it.
                        let taken = other.filter(|other| !given_up.contains(&other.id.0));
                        assert!(taken.is_none(), "a coin was reserved twice");
                    }
                }
                Fact::Round { round, event: RoundEvent::Released | RoundEvent::Ended(_) } => {
                    let round = &facts.rounds[&RoundId(*round)];
                    assert!(round.end.is_none());
                }
                Fact::Round { round, event: RoundEvent::Abandoned { .. } } => {
                    given_up.insert(*round);
                }
                Fact::OwnTransaction { txid, raw, .. } => {
                    let tx: Transaction =
                        bdk_wallet::bitcoin::consensus::deserialize(raw).expect("a transaction");
                    let coins: Vec<OutPoint> =
                        tx.input.iter().map(|input| input.previous_output).collect();
                    let holder = facts.rounds.values().find(|round| {
                        round.holds_coins() && coins.iter().any(|coin| round.coins.contains(coin))
                    });
                    // The transaction of the round itself, or of one that was given up and seen after all.
                    let of_round = |round: &Arc<Round>| {
                        round.signed.iter().any(|(signed, _, _)| signed == txid)
                            || given_up.contains(&round.id.0)
                    };
                    assert!(holder.is_none_or(of_round), "a payment took a coin of a round");
                }
                _ => {}
            }
            facts.apply(&fact);
        }
        for tx in self.rig.chain.broadcasts() {
            let txid = tx.compute_txid();
            assert!(facts.own_txs.contains_key(&txid), "sent before it was durable");
            let not_ours = self.rounds.iter().find(|known| {
                !known.ours_to_send && known.signed.iter().any(|tx| tx.compute_txid() == txid)
            });
            assert!(not_ours.is_none(), "sent although others were to send it");
        }
    }

    /// What a round must say once the wallet knows everything.
    fn is_settled(
        &self,
        round: &Round,
        known: &Known,
        where_is: &BTreeMap<Txid, Option<u32>>,
    ) -> bool {
        if known.signed.is_empty() {
            return round.signed.is_empty() && (!known.ended || !round.holds_coins());
        }
        let found = known.signed.iter().find_map(|tx| {
            where_is.get(&tx.compute_txid()).map(|height| (tx.compute_txid(), *height))
        });
        match found {
            Some((txid, Some(height))) => {
                round.seen.is_some_and(|(seen, _)| seen == txid)
                    && round.confirmed.is_some_and(|(at, _)| at == height)
                    && !round.abandoned
            }
            Some((txid, None)) => {
                round.seen.is_some_and(|(seen, _)| seen == txid) && round.confirmed.is_none()
            }
            None if round.confirmed.is_some() => false,
            // Never seen, or seen and gone: it may still come, unless something else took its coins or its time is up.
            None => round.abandoned || round.holds_coins(),
        }
    }

    /// In the end everything that waits is mined, and every round knows what became of it.
    async fn finish(&mut self) {
        self.rig.chain.on_broadcast(OnBroadcast::Accept { listed: true });
        for _ in 0..6 {
            let txs = self.rig.chain.transactions();
            let waiting: Vec<&Transaction> =
                txs.iter().filter(|(_, height)| height.is_none()).map(|(tx, _)| &**tx).collect();
            self.rig.chain.mine(&waiting);
            self.rig.chain.look().await;
        }
        let wallet = self.wallet();
        let mut events = wallet.events();
        let tip = self.rig.chain.mine(&[]);
        self.rig.chain.look().await;
        until(&wallet, "the last block", |s| s.height() == Some(tip)).await;
        let patience = tokio::time::sleep(std::time::Duration::from_secs(60));
        tokio::pin!(patience);
        loop {
            let unsettled = self.unsettled(&wallet.snapshot());
            if unsettled.is_empty() {
                return;
            }
            tokio::select! {
                _ = events.recv() => {}
                () = &mut patience => panic!("not settled: {unsettled:#?}"),
            }
        }
    }

    /// Rounds that do not say what became of them, with where their transactions are.
    fn unsettled(&self, snapshot: &Snapshot) -> Vec<String> {
        // Our own may be sent again meanwhile.
        let txs = self.rig.chain.transactions();
        let where_is: BTreeMap<Txid, Option<u32>> =
            txs.iter().map(|(tx, height)| (tx.compute_txid(), *height)).collect();
        let mut out = Vec::new();
        for known in &self.rounds {
            let round = snapshot.rounds.iter().find(|round| round.id == known.id);
            if !round.is_some_and(|round| self.is_settled(round, known, &where_is)) {
                let places: Vec<_> = known
                    .signed
                    .iter()
                    .map(|tx| (tx.compute_txid(), where_is.get(&tx.compute_txid())))
                    .collect();
                let says = round.map(|round| {
                    (round.id, round.seen, round.confirmed, round.abandoned, &round.coins)
                });
                out.push(format!("{says:?}; {places:?}; {:?}", known.role));
            }
        }
        out
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..18 => self.deposit().await,
            18..38 => self.open_round().await,
            38..56 => self.sign().await,
            56..66 => self.publish(),
            66..70 => self.end_one().await,
            70..80 => self.mine(),
            80..84 => self.reorganise(),
            84..90 => self.pay().await,
            90..93 => self.freeze().await,
            93..96 => {
                let what = [
                    OnBroadcast::Accept { listed: true },
                    OnBroadcast::Accept { listed: false },
                    OnBroadcast::Lost,
                    OnBroadcast::ArrivedUnanswered,
                ];
                self.rig.chain.on_broadcast(what.choose(&mut self.rng).expect("four").clone());
            }
            _ => self.reopen().await,
        }
        if self.rng.random_ratio(3, 4) {
            self.rig.chain.look().await;
        }
        self.check_now();
    }
}

/// Says where a failure was.
struct Place {
    seed: u64,
    step: usize,
}

impl Drop for Place {
    #[expect(clippy::print_stderr, reason = "names the world of a failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("world {}, step {}", self.seed, self.step);
        }
    }
}

#[tokio::test]
async fn whatever_the_order_nothing_serves_twice_and_every_round_ends() {
    let mut signed = 0;
    for seed in 0..WORLDS {
        let mut world = World::new(seed).await;
        let mut place = Place { seed, step: 0 };
        for step in 0..STEPS {
            place.step = step;
            world.step().await;
        }
        world.finish().await;
        world.check_history();
        signed += world.rounds.iter().filter(|known| !known.signed.is_empty()).count();
        if let Some(wallet) = world.wallet.take() {
            wallet.close().await;
        }
    }
    assert!(signed > 100, "only {signed} signed rounds: the test lost its subject");
}
