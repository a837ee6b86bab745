//! A wallet that was opened without its password: what it does for a maker, and that it signs nothing else.

use std::collections::{HashMap, HashSet};

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::consensus::encode::deserialize;
use bdk_wallet::bitcoin::sighash::SighashCache;
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid};
use joinery_proto::message::InputSignature;
use joinery_proto::offer::MAX_MONEY;
use joinery_proto::transaction::fees::Agreement;
use joinery_wallet::round::RoundId;
use joinery_wallet::service::{MakerRound, RoundError, ServiceError, SessionMode, WalletHandle};
use joinery_wallet::spend::verify_input;
use joinery_wallet::types::{Branch, Mixdepth};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::rig::{As, Rig, eventually, foreign, password, payment, spend, until};
use crate::round_stage::{SESSION, begin, clock, end, funded, lend, round};

/// What each coin of these tests is worth, satoshi.
const COIN: u64 = 100_000;

/// A wallet with some coins of [`COIN`], opened for the maker only.
async fn maker_only(rig: &Rig, coins: &[u8]) -> (WalletHandle, Vec<OutPoint>) {
    let (wallet, coins) = funded(rig, coins).await;
    wallet.close().await;
    let mut options = rig.options(As::Known);
    options.mode = SessionMode::MakerOnly;
    let wallet = rig.open_with(Box::new(rig.store.reopen()), options).await;
    until(&wallet, "caught up", |s| s.sync.complete && s.coins.len() == coins.len()).await;
    (wallet, coins)
}

/// Coins of each of the rounds that are asked, and how many of these there are.
const COINS: usize = 2;
const ROUNDS: usize = 4;

/// Who is paid.
#[derive(Debug, Clone, Copy)]
enum To {
    /// The equal amount output of a round.
    Equal(usize),
    /// The change output of a round.
    Change(usize),
    /// An address of ours that is of no round.
    Own,
    Stranger(u8),
}

/// Which coin is spent.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// One of the coins of a round.
    Round(usize, usize),
    /// A coin of ours that is in no round.
    Free,
    /// An output of one of our coins' transactions that is not there.
    Beside(usize),
    Stranger(u8),
}

/// One thing that a role or a taker changes about a good transaction. Positions are taken modulo what there is.
#[derive(Debug, Clone)]
enum Bend {
    DropInput(Index),
    AddInput(Index, Of),
    DoubleInput(Index),
    SwapInputs(Index, Index),
    DropOutput(Index),
    AddOutput(Index, To, u64),
    DoubleOutput(Index),
    SwapOutputs(Index, Index),
    /// A little more or less.
    Nudge(Index, i64),
    Value(Index, u64),
    Script(Index, To),
    LockTime(u32),
    Version(i32),
    Sequence(Index, u32),
    /// Something stands where a signature goes.
    ScriptSig(Index),
    Witness(Index),
}

/// A transaction that is shown for a round.
#[derive(Debug, Clone)]
struct Proposal {
    /// The round that is asked.
    asked: usize,
    /// The round that it was a good transaction of.
    of: usize,
    bends: Vec<Bend>,
    /// Makes it another one.
    salt: u8,
    /// Asked again at once.
    twice: bool,
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        (0..ROUNDS).prop_map(To::Equal),
        (0..ROUNDS).prop_map(To::Change),
        Just(To::Own),
        any::<u8>().prop_map(To::Stranger),
    ]
}

fn of() -> impl Strategy<Value = Of> {
    prop_oneof![
        (0..ROUNDS, 0..COINS).prop_map(|(round, coin)| Of::Round(round, coin)),
        Just(Of::Free),
        (0..ROUNDS).prop_map(Of::Beside),
        any::<u8>().prop_map(Of::Stranger),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..=4 * COIN,
        1 => prop::sample::select(vec![0, MAX_MONEY, MAX_MONEY + 1, u64::MAX]),
    ]
}

fn bend() -> impl Strategy<Value = Bend> {
    let at = any::<Index>;
    let inputs = prop_oneof![
        at().prop_map(Bend::DropInput),
        (at(), of()).prop_map(|(at, of)| Bend::AddInput(at, of)),
        at().prop_map(Bend::DoubleInput),
        (at(), at()).prop_map(|(a, b)| Bend::SwapInputs(a, b)),
        (at(), any::<u32>()).prop_map(|(at, sequence)| Bend::Sequence(at, sequence)),
        at().prop_map(Bend::ScriptSig),
        at().prop_map(Bend::Witness),
    ];
    let outputs = prop_oneof![
        at().prop_map(Bend::DropOutput),
        (at(), to(), value()).prop_map(|(at, to, value)| Bend::AddOutput(at, to, value)),
        at().prop_map(Bend::DoubleOutput),
        (at(), at()).prop_map(|(a, b)| Bend::SwapOutputs(a, b)),
        (at(), value()).prop_map(|(at, value)| Bend::Value(at, value)),
        (at(), to()).prop_map(|(at, to)| Bend::Script(at, to)),
    ];
    let nudge = (at(), -2_i64..=2).prop_map(|(at, by)| Bend::Nudge(at, by));
    let lock_times = prop_oneof![0_u32..130, Just(499_999_999), Just(500_000_000), any::<u32>()];
    let versions = prop_oneof![-1_i32..=4, any::<i32>()];
    prop_oneof![
        7 => inputs,
        6 => outputs,
        3 => nudge,
        1 => lock_times.prop_map(Bend::LockTime),
        1 => versions.prop_map(Bend::Version),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let bends = prop_oneof![
        1 => Just(Vec::new()),
        4 => prop::collection::vec(bend(), 1..=2),
        1 => prop::collection::vec(bend(), 3..8),
    ];
    let other = prop::option::weighted(0.1, 0..ROUNDS);
    (0..ROUNDS, other, bends, 0_u8..6, prop::bool::weighted(0.2)).prop_map(
        |(asked, other, bends, salt, twice)| Proposal {
            asked,
            of: other.unwrap_or(asked),
            bends,
            salt,
            twice,
        },
    )
}

/// What a role agreed with the takers of all rounds, satoshi.
fn agreement() -> impl Strategy<Value = Agreement> {
    (1..=COIN, 0_u64..=2_000, 0_u64..=2_000).prop_map(|(amount, one, other)| Agreement {
        amount,
        fee: one.max(other),
        tx_fee: one.min(other),
    })
}

/// A wallet that is open for the maker only, with rounds whose takers were told of coins and outputs.
struct Market {
    rig: Rig,
    wallet: WalletHandle,
    agreement: Agreement,
    /// Height of the chain.
    height: u32,
    rounds: Vec<(RoundId, [OutPoint; COINS], [ScriptBuf; 2])>,
    free: OutPoint,
    own: ScriptBuf,
    /// Every coin of ours with what a signature for it must match.
    prevouts: HashMap<OutPoint, TxOut>,
}

impl Market {
    async fn open(agreement: Agreement) -> Self {
        let rig = Rig::new();
        let salts: Vec<u8> = (1..=9).collect();
        let (wallet, coins) = maker_only(&rig, &salts).await;
        let mut rounds = Vec::new();
        for (number, pair) in (1..).zip(coins.chunks_exact(COINS)) {
            let round = MakerRound { agreement, ..lend(pair) };
            let opened = wallet.open_round(round).await.expect("opened");
            let told = wallet.reveal_round(opened.id, [number; 32], SESSION, pair[0]).await;
            told.expect("recorded");
            let scripts = [opened.equal.script_pubkey(), opened.change.script_pubkey()];
            rounds.push((opened.id, [pair[0], pair[1]], scripts));
        }
        let own = wallet.issue_address(Mixdepth(2), Branch::Internal).await.expect("issued");
        let snapshot = wallet.snapshot();
        let prevouts = snapshot.coins.iter().map(|coin| {
            (coin.outpoint, TxOut { value: coin.value, script_pubkey: coin.script.clone() })
        });
        Self {
            agreement,
            height: snapshot.height().expect("caught up"),
            prevouts: prevouts.collect(),
            free: coins[8],
            own: own.script_pubkey(),
            rounds,
            wallet,
            rig,
        }
    }

    fn script(&self, to: To) -> ScriptBuf {
        match to {
            To::Equal(round) => self.rounds[round].2[0].clone(),
            To::Change(round) => self.rounds[round].2[1].clone(),
            To::Own => self.own.clone(),
            To::Stranger(byte) => foreign(byte),
        }
    }

    fn outpoint(&self, of: Of) -> OutPoint {
        match of {
            Of::Round(round, coin) => self.rounds[round].1[coin],
            Of::Free => self.free,
            Of::Beside(round) => OutPoint { vout: 7, ..self.rounds[round].1[0] },
            Of::Stranger(salt) => OutPoint { txid: payment(salt, &[]).compute_txid(), vout: 0 },
        }
    }

    /// What a round must be paid as change, satoshi.
    fn change(&self) -> u64 {
        let Agreement { amount, fee, tx_fee } = self.agreement;
        u64::try_from(COINS).expect("few") * COIN - amount + fee - tx_fee
    }

    fn build(&self, proposal: &Proposal) -> Transaction {
        let Proposal { of, salt, .. } = *proposal;
        let amount = self.agreement.amount;
        let inputs = [Of::Stranger(salt), Of::Round(of, 0), Of::Round(of, 1)];
        let outputs = [
            (To::Stranger(salt), amount),
            (To::Equal(of), amount),
            (To::Change(of), self.change()),
            (To::Stranger(200), 5_000),
        ];
        let inputs = inputs.map(|of| self.outpoint(of));
        let mut tx = spend(&inputs, &outputs.map(|(to, value)| (self.script(to), value)));
        proposal.bends.iter().for_each(|bend| self.bend(&mut tx, bend));
        tx
    }

    fn bend(&self, tx: &mut Transaction, bend: &Bend) {
        let (ins, outs) = (tx.input.len(), tx.output.len());
        let needs_input = !matches!(
            bend,
            Bend::AddInput(..) | Bend::AddOutput(..) | Bend::LockTime(_) | Bend::Version(_)
        );
        if needs_input && (ins == 0 || outs == 0) {
            return;
        }
        match bend {
            Bend::DropInput(at) => drop(tx.input.remove(at.index(ins))),
            Bend::AddInput(at, of) => {
                let input = spend(&[self.outpoint(*of)], &[]).input.remove(0);
                tx.input.insert(at.index(ins + 1), input);
            }
            Bend::DoubleInput(at) => tx.input.push(tx.input[at.index(ins)].clone()),
            Bend::SwapInputs(a, b) => tx.input.swap(a.index(ins), b.index(ins)),
            Bend::DropOutput(at) => drop(tx.output.remove(at.index(outs))),
            Bend::AddOutput(at, to, value) => {
                let (value, script_pubkey) = (Amount::from_sat(*value), self.script(*to));
                tx.output.insert(at.index(outs + 1), TxOut { value, script_pubkey });
            }
            Bend::DoubleOutput(at) => tx.output.push(tx.output[at.index(outs)].clone()),
            Bend::SwapOutputs(a, b) => tx.output.swap(a.index(outs), b.index(outs)),
            Bend::Nudge(at, by) => {
                let value = &mut tx.output[at.index(outs)].value;
                *value = Amount::from_sat(value.to_sat().saturating_add_signed(*by));
            }
            Bend::Value(at, value) => tx.output[at.index(outs)].value = Amount::from_sat(*value),
            Bend::Script(at, to) => tx.output[at.index(outs)].script_pubkey = self.script(*to),
            Bend::LockTime(time) => tx.lock_time = LockTime::from_consensus(*time),
            Bend::Version(version) => tx.version = Version(*version),
            Bend::Sequence(at, sequence) => tx.input[at.index(ins)].sequence = Sequence(*sequence),
            Bend::ScriptSig(at) => {
                tx.input[at.index(ins)].script_sig = ScriptBuf::from_bytes(vec![0x16; 23]);
            }
            Bend::Witness(at) => tx.input[at.index(ins)].witness.push([1; 72]),
        }
    }

    /// Whether a round may sign a transaction: reckoned here once more, from the transaction and what was agreed.
    fn is_good(&self, asked: usize, tx: &Transaction) -> bool {
        let (_, coins, [equal, change]) = &self.rounds[asked];
        let inputs: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let different: HashSet<OutPoint> = inputs.iter().copied().collect();
        let ours: HashSet<OutPoint> =
            different.iter().filter(|input| self.prevouts.contains_key(input)).copied().collect();
        let paid = |script: &ScriptBuf| -> Vec<u64> {
            let to = tx.output.iter().filter(|output| output.script_pubkey == *script);
            to.map(|output| output.value.to_sat()).collect()
        };
        let enough = |paid: Vec<u64>, least: u64| matches!(paid[..], [paid] if paid >= least);
        let all: u128 = tx.output.iter().map(|output| u128::from(output.value.to_sat())).sum();
        let lock_time = tx.lock_time.to_consensus_u32();
        inputs.len() == different.len()
            && ours == HashSet::from(*coins)
            && enough(paid(equal), self.agreement.amount)
            && enough(paid(change), self.change())
            && all <= u128::from(MAX_MONEY)
            && (1..=3).contains(&tx.version.0)
            && lock_time <= self.height + 2
    }

    /// Signatures spend exactly the coins of the round, in the order of the inputs, and pay at least what was agreed.
    fn check(
        &self,
        asked: usize,
        tx: &Transaction,
        signatures: &[InputSignature],
    ) -> Result<(), TestCaseError> {
        let (_, coins, scripts) = &self.rounds[asked];
        let mut signed = tx.clone();
        signed.input.iter_mut().for_each(|input| {
            input.script_sig = ScriptBuf::new();
            input.witness.clear();
        });
        let mut left = signatures.iter();
        let mut places = Vec::new();
        for (place, input) in signed.input.iter_mut().enumerate() {
            if coins.contains(&input.previous_output) {
                let signature = left.next().expect("one for each of our coins");
                input.witness.push(&signature.signature);
                input.witness.push(signature.key.serialize());
                places.push(place);
            }
        }
        prop_assert!(left.next().is_none(), "one for each of our coins and no more");
        prop_assert_eq!(places.len(), COINS);
        let mut cache = SighashCache::new(&signed);
        for place in &places {
            let prevout = &self.prevouts[&signed.input[*place].previous_output];
            prop_assert_eq!(verify_input(&mut cache, *place, prevout), Ok(()));
        }
        let spent: u64 = places
            .iter()
            .map(|at| self.prevouts[&signed.input[*at].previous_output].value.to_sat())
            .sum();
        let paid = signed.output.iter().filter(|output| scripts.contains(&output.script_pubkey));
        let paid: u64 = paid.map(|output| output.value.to_sat()).sum();
        prop_assert!(paid >= spent + self.agreement.fee - self.agreement.tx_fee);
        prop_assert!(paid >= spent);
        Ok(())
    }
}

/// Shows a list of proposals to a market; says how many were signed.
async fn show(market: &Market, proposals: &[Proposal]) -> Result<usize, TestCaseError> {
    let wallet = &market.wallet;
    let mut signed: Vec<HashMap<Txid, Vec<InputSignature>>> = vec![HashMap::new(); ROUNDS];
    for proposal in proposals {
        let tx = market.build(proposal);
        let (id, ..) = market.rounds[proposal.asked];
        let known = &mut signed[proposal.asked];
        for _ in 0..=usize::from(proposal.twice) {
            let before = rig_records(market);
            let result = wallet.sign_round(id, tx.clone(), clock()).await;
            let new = rig_records(market) - before;
            match (result, market.is_good(proposal.asked, &tx)) {
                (Ok(signatures), true) => {
                    market.check(proposal.asked, &tx, &signatures)?;
                    match known.get(&tx.compute_txid()) {
                        Some(first) => prop_assert_eq!((&signatures, new), (first, 0)),
                        None => prop_assert_eq!(new, 1, "durable before it is given out"),
                    }
                    known.insert(tx.compute_txid(), signatures);
                }
                // Three are enough for any taker.
                (Err(RoundError::OutOfOrder(_)), _) => {
                    prop_assert_eq!((known.len(), new), (3, 0));
                }
                (Err(RoundError::Refused(_)), false) => prop_assert_eq!(new, 0),
                (Ok(_), false) => prop_assert!(false, "signed: {proposal:?}"),
                (Err(error), _) => prop_assert!(false, "{error} for {proposal:?}"),
            }
        }
    }
    let kept = |id: RoundId| -> HashSet<Txid> {
        round(wallet, id).signed.iter().map(|(txid, _, _)| *txid).collect()
    };
    for ((id, ..), signed) in market.rounds.iter().zip(&signed) {
        prop_assert_eq!(kept(*id), signed.keys().copied().collect());
    }
    Ok(signed.iter().map(HashMap::len).sum())
}

/// What was recorded so far.
fn rig_records(market: &Market) -> usize {
    market.rig.store.records()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever transaction is shown for a round: signatures come out only if it gives all coins of the round back with
    /// what was agreed, and they are good for exactly these coins. What is refused leaves no trace, and after a
    /// power cut nothing more is signed.
    #[test]
    fn only_what_pays_the_maker_as_agreed_is_signed(
        agreement in agreement(),
        proposals in prop::collection::vec(proposal(), 60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let market = Market::open(agreement).await;
            let signed = show(&market, &proposals).await?;
            prop_assert!(signed > 0, "60 proposals and none is good: the test lost its subject");
            prop_assert!(market.rig.chain.broadcasts().is_empty());
            let wallet = market.wallet.clone();
            let kept: Vec<_> = market.rounds.iter().map(|(id, ..)| round(&wallet, *id)).collect();
            wallet.close().await;
            let mut options = market.rig.options(As::Known);
            options.mode = SessionMode::MakerOnly;
            let store = Box::new(market.rig.store.reopen_after_crash());
            let wallet = market.rig.open_with(store, options).await;
            let records = rig_records(&market);
            for before in kept {
                let now = round(&wallet, before.id);
                prop_assert_eq!(&now.signed, &before.signed);
                prop_assert_eq!(&now.begin, &before.begin);
                prop_assert_eq!(now.holds_coins(), !before.signed.is_empty());
                for (_, raw, time) in &now.signed {
                    let tx: Transaction = deserialize(raw).expect("a transaction");
                    let again = wallet.sign_round(now.id, tx, *time).await;
                    prop_assert!(matches!(again, Err(RoundError::Ended(_))), "{again:?}");
                }
            }
            prop_assert_eq!(rig_records(&market), records);
            wallet.close().await;
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn the_password_opens_it_for_everything_and_a_wrong_one_does_not() {
    let rig = Rig::new();
    let (wallet, coins) = maker_only(&rig, &[1]).await;
    assert_eq!(wallet.mode(), SessionMode::MakerOnly);
    let refused = |result: Result<(), ServiceError>| {
        assert!(matches!(result, Err(ServiceError::MakerOnly)));
    };
    refused(wallet.set_frozen(vec![(coins[0], true)]).await);
    let address = wallet.issue_address(Mixdepth(0), Branch::External).await.expect("to be paid at");
    refused(wallet.set_label(&address.to_string(), "mine").await);
    refused(wallet.bond_address(0).await.map(|_| ()));
    refused(wallet.seed().await.map(|_| ()));
    let id = wallet.open_round(lend(&coins)).await.expect("opened").id;
    assert!(!wallet.unlock("wrong".to_owned().into()).await.expect("checked"));
    assert_eq!(wallet.mode(), SessionMode::MakerOnly);
    refused(wallet.seed().await.map(|_| ()));
    assert!(!wallet.verify_password("wrong".to_owned().into()).await.expect("checked"));

    assert!(wallet.unlock(password()).await.expect("checked"));
    assert_eq!(wallet.mode(), SessionMode::Full);
    wallet.seed().await.expect("shown");
    wallet.end_round(id, end("stopped")).await.expect("the maker's round went on");
    wallet.set_frozen(vec![(coins[0], true)]).await.expect("frozen");
    let taker = wallet.begin_round(begin(0)).await.expect("begun");
    assert_ne!(taker, RoundId(0));
    assert!(wallet.unlock(password()).await.expect("again"), "nothing to do");
}

/// A taker's round that a power cut interrupted waits for the password: without it nothing of it is sent or ended.
#[tokio::test]
async fn an_interrupted_round_of_the_taker_is_taken_up_with_the_password() {
    use crate::round_stage::{complete, earning};

    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let change = wallet.issue_address(Mixdepth(0), Branch::Internal).await.expect("issued");
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    wallet.reserve(id, coins.clone()).await.expect("reserved");
    let tx = complete(coins[0], &change, 40);
    wallet.keep_transaction(id, tx.clone(), earning(-1_000), false).await.expect("kept");
    wallet.close().await;

    let mut options = rig.options(As::Known);
    options.mode = SessionMode::MakerOnly;
    let wallet = rig.open_with(Box::new(rig.store.reopen()), options).await;
    until(&wallet, "caught up", |s| s.sync.complete).await;
    assert!(round(&wallet, id).end.is_none());
    assert!(rig.chain.broadcasts().is_empty());
    assert!(wallet.snapshot().coins.iter().all(|coin| coin.locked), "still held");

    assert!(wallet.unlock(password()).await.expect("checked"));
    assert_eq!(round(&wallet, id).end.as_ref().map(|end| end.code.as_str()), Some("interrupted"));
    rig.chain.mine(&[]);
    rig.chain.look().await;
    eventually("it is sent", || {
        rig.chain.broadcasts().iter().any(|sent| sent.compute_txid() == tx.compute_txid())
    })
    .await;
}
