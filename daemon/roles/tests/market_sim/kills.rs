//! The taker is killed at each step that it makes durable, before and after, and the machine is switched on again with
//! what the journal holds (row T20; `spec/roles.md` 3.13, 12 row 1).
//!
//! The wallet's own half of this (what its files hold after a kill) is in the wallet's tests, processes are killed in
//! the daemon's.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use joinery_proto::bitcoin::{ScriptBuf, Transaction};
use joinery_roles::taker::{BroadcastPolicy, Reason, TakerPolicy, TakerRequest};
use joinery_wallet::round::RoundEvent;
use joinery_wallet::types::Mixdepth;
use rand::Rng;

use crate::fake_maker::Behaviour::{self, *};
use crate::stage::{Cut, Stage, policy, request};

/// Kills at each step, at least.
const KILLS: usize = 200;
/// The steps.
const STEPS: [&str; 7] =
    ["begin", "reserve", "record commitment", "address", "record shown", "signed", "end"];
/// Account that a request after a sweep uses.
const OTHER: Mixdepth = Mixdepth(3);

/// A market of this seed, and a request.
fn begin(seed: u64) -> (Stage, bool) {
    const FIRST: [Behaviour; 6] =
        [Honest, SilentAtAuth, RefusesFill, ErrorAtAuth, SilentAtTx, NeverPushes];
    let mut makers = vec![Honest; 9];
    makers[0] = FIRST[usize::try_from(seed).unwrap() % FIRST.len()];
    let mut stage = Stage::new(seed, &makers);
    for _ in 0..3 {
        let value = stage.rng.random_range(2_500_000..6_000_000);
        stage.fund(value);
    }
    stage.wallet.fund(&mut stage.chain, OTHER.0, 9_000_000, 20);
    let sweep = stage.rng.random_bool(0.2);
    let broadcast =
        if seed.is_multiple_of(2) { BroadcastPolicy::Own } else { BroadcastPolicy::RandomPeer };
    let amount = if sweep { 0 } else { stage.rng.random_range(100_000..2_000_000) };
    let policy = TakerPolicy { broadcast, minimum_makers: 2, ..policy() };
    stage.begin(TakerRequest { amount, ..request(3) }, policy);
    (stage, sweep)
}

/// What the outside world has learnt of a taker.
#[derive(Debug, Default)]
struct Seen {
    commitments: BTreeSet<String>,
    scripts: BTreeSet<ScriptBuf>,
    txids: BTreeSet<joinery_proto::bitcoin::Txid>,
}

impl Seen {
    fn by(stage: &Stage) -> Self {
        let mut seen = Self::default();
        for maker in &stage.makers {
            seen.commitments.extend(maker.fills.iter().map(|fill| fill.commitment.to_string()));
            for tx in &maker.shown {
                seen.txids.insert(tx.compute_txid());
                let scripts = tx.output.iter().map(|output| &output.script_pubkey);
                seen.scripts.extend(scripts.filter(|script| stage.wallet.owns(script)).cloned());
            }
        }
        seen
    }
}

/// Everything that left was durable before.
fn check_written_before_said(stage: &Stage, seen: &Seen) {
    let mut commitments = BTreeSet::new();
    let mut shown = BTreeSet::new();
    let mut signed = BTreeSet::new();
    for (_, event) in &stage.wallet.journal {
        match event {
            RoundEvent::CommitmentSent { commitment, .. } => {
                commitments
                    .insert(joinery_proto::podle::Commitment::from_bytes(*commitment).to_string());
            }
            RoundEvent::Shown { txid, .. } => {
                shown.insert(*txid);
            }
            RoundEvent::Signed { txid, .. } => {
                signed.insert(*txid);
            }
            _ => {}
        }
    }
    assert!(seen.commitments.is_subset(&commitments), "a commitment left before it was used");
    assert!(seen.txids.is_subset(&shown), "a transaction was shown before that was durable");
    assert!(seen.scripts.iter().all(|script| stage.wallet.issued.contains(script)));
    let ours = |tx: &Transaction| {
        let mut inputs = tx.input.iter().map(|input| input.previous_output);
        inputs.any(|input| stage.wallet.owns(&stage.chain.coins[&input].script))
    };
    for (txid, tx) in &stage.chain.transactions {
        assert!(!ours(tx) || signed.contains(txid), "it was sent before it was kept");
    }
}

/// After the machine is on again.
fn check_settled(stage: &Stage) {
    for round in stage.wallet.rounds.values() {
        let end = round.end.as_ref().expect("no round runs: the state of the API is idle");
        assert!(!end.code.is_empty());
        let Some((txid, ..)) = round.signed.last() else {
            assert!(!round.holds_coins(), "nothing was signed: the coins are free");
            continue;
        };
        assert_eq!(round.signed.len(), 1);
        assert!(stage.chain.transactions.contains_key(txid), "what was signed is sent");
        assert_eq!(round.seen.map(|(seen, _)| seen), Some(*txid), "and followed");
        assert!(round.holds_coins());
    }
}

/// What was signed, by all takers together: no coin twice, and each costs what its journal says.
fn check_signed(stage: &Stage) {
    let mut spent = BTreeSet::new();
    for (_, event) in &stage.wallet.journal {
        let RoundEvent::Signed { raw, sums, .. } = event else { continue };
        let tx: Transaction = joinery_proto::bitcoin::consensus::encode::deserialize(raw).unwrap();
        let mut value = 0_i64;
        for input in &tx.input {
            let coin = &stage.chain.coins[&input.previous_output];
            if stage.wallet.owns(&coin.script) {
                assert!(spent.insert(input.previous_output), "a coin is signed away twice");
                value += i64::try_from(coin.value).unwrap();
            }
        }
        for output in tx.output.iter().filter(|output| stage.wallet.owns(&output.script_pubkey)) {
            value -= i64::try_from(output.value.to_sat()).unwrap();
        }
        assert_eq!(value, sums.cost, "nothing is lost but what was agreed");
    }
}

/// One request that is cut off, and one after it unless there were enough kills at that step. The name of the step;
/// `None` when the first request was over before.
fn kill(
    seed: u64,
    step: usize,
    cut: Cut,
    enough: impl FnOnce(&str) -> bool,
) -> Option<&'static str> {
    let (mut stage, sweep) = begin(seed);
    stage.cut = Some((step, cut));
    stage.play();
    let name = match stage.cut_at? {
        "keep" | "broadcast" => "signed",
        name => name,
    };
    if enough(name) {
        return Some(name);
    }
    let first = Seen::by(&stage);
    check_written_before_said(&stage, &first);
    let signed = stage.wallet.rounds.values().any(|round| !round.signed.is_empty());
    stage.power_returns();
    check_settled(&stage);

    // Honest makers with coins are left for the next request.
    let unspent = |coin: &joinery_proto::transaction::signing::OwnCoin| {
        stage.chain.look_up(&coin.outpoint).is_some()
    };
    stage.makers.retain(|maker| maker.behaviour == Honest && maker.coins.iter().all(unspent));
    for maker in &mut stage.makers {
        maker.fills.clear();
        maker.shown.clear();
    }
    // The coins of a sweep that was signed are gone, whether it is in a block or not.
    let mixdepth = if signed && sweep { OTHER } else { Mixdepth(0) };
    let policy = TakerPolicy { minimum_makers: 2, ..policy() };
    stage.begin(TakerRequest { mixdepth, amount: 150_000, ..request(3) }, policy);
    stage.play();
    let outcome = stage.outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict.reason, Reason::Complete, "{:?}", outcome.verdict);
    let second = Seen::by(&stage);
    assert!(first.commitments.is_disjoint(&second.commitments), "a commitment is used twice");
    assert!(first.scripts.is_disjoint(&second.scripts), "an address is shown twice");
    check_settled(&stage);
    check_signed(&stage);
    Some(name)
}

/// At least 200 kills at each step: nothing is lost, nothing used twice, what was signed is sent and followed, and each
/// round ends with a reason.
#[test]
fn killed_at_each_step_nothing_is_lost_and_nothing_used_twice() {
    let chosen = std::env::var("JOINERY_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let mut kills: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in chosen.map_or(0..2 * KILLS as u64, |seed| seed..seed + 1) {
        for step in 0..40 {
            // Each step of each seed in another way than that of the next.
            let cut = match (seed + step) % 5 {
                0 | 1 => Cut::Before,
                2 | 3 => Cut::After,
                _ => Cut::Between,
            };
            let enough = |name: &str| kills.get(name).is_some_and(|count| *count >= KILLS);
            let step = usize::try_from(step).unwrap();
            let outcome = catch_unwind(AssertUnwindSafe(|| kill(seed, step, cut, enough)));
            let name = outcome.unwrap_or_else(|panic| {
                println!("failed with JOINERY_SEED={seed} at step {step}, {cut:?}");
                resume_unwind(panic)
            });
            let Some(name) = name else { break };
            *kills.entry(name).or_default() += 1;
        }
        if STEPS.iter().all(|step| kills.get(step).is_some_and(|count| *count >= KILLS)) {
            break;
        }
    }
    println!("{kills:?}");
    if chosen.is_none() {
        for step in STEPS {
            assert!(kills.get(step).is_some_and(|count| *count >= KILLS), "{step}: {kills:?}");
        }
    }
}
