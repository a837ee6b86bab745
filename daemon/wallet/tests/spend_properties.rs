//! What holds for every wallet, amount and rate: value is conserved, nothing is spent that must not be,
//! the fee is what was asked for, and nothing panics.

use std::collections::HashSet;

use joinery_wallet::bitcoin::hashes::Hash;
use joinery_wallet::bitcoin::policy::MAX_STANDARD_TX_WEIGHT;
use joinery_wallet::bitcoin::{Amount, OutPoint, ScriptBuf, Txid, WPubkeyHash, WScriptHash};
use joinery_wallet::fee::{InputKind, TxSize, output_size};
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::select::{
    CandidateFilter, is_ordinary, select, select_coins, select_with_ordinary,
};
use joinery_wallet::service::SendError;
use joinery_wallet::snapshot::{Coin, CoinKind};
use joinery_wallet::spend::{CHANGE_FLOOR, Plan, SpendContext, plan};
use joinery_wallet::types::{Branch, Keychain, Mixdepth, WalletType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select as one_of, subsequence};
use rand::SeedableRng;
use rand::rngs::StdRng;

const TIP: u32 = 850_000;
const MEDIAN_TIME: u32 = 1_720_000_000;

fn algorithm() -> impl Strategy<Value = MergeAlgorithm> {
    one_of(vec![
        MergeAlgorithm::Default,
        MergeAlgorithm::Gradual,
        MergeAlgorithm::Greedy,
        MergeAlgorithm::Greediest,
    ])
}

/// Ordinary values mostly, sometimes dust, sometimes more than there is money.
fn satoshi() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 1_000..10_000_000_u64,
        2 => 0..1_000_u64,
        1 => 0..=2_100_000_000_000_000_u64,
        1 => any::<u64>(),
    ]
}

fn coin() -> impl Strategy<Value = Coin> {
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    // Timenumbers 24 (2022) and 50 are over at the median time, 100 and 217 are not.
    let bond = one_of(vec![None, None, None, None, Some(24), Some(50), Some(100), Some(217_u16)]);
    (satoshi(), 0..3_u8, flags, bond, any::<bool>(), 0..120_u32).prop_map(
        |(value, mixdepth, (frozen, locked, confirmed), bond, internal, age)| {
            let branch = if internal { Branch::Internal } else { Branch::External };
            let keychain = Keychain { mixdepth: Mixdepth(mixdepth), branch };
            let (place, script) = match bond {
                Some(timenumber) => (
                    ScriptPlace::Bond { timenumber },
                    ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([9; 32])),
                ),
                None => (
                    ScriptPlace::Ranged { keychain, index: 0 },
                    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20])),
                ),
            };
            Coin {
                outpoint: OutPoint::null(),
                value: Amount::from_sat(value),
                script,
                place,
                height: confirmed.then_some(TIP - age),
                kind: CoinKind::Deposit,
                frozen,
                locked,
                locktime: bond.map(locktime),
                commitments_used: Vec::new(),
            }
        },
    )
}

fn locktime(timenumber: u16) -> u32 {
    u32::try_from(joinery_proto::fidelity_bond::locktime_of_month(timenumber)).expect("below 2106")
}

fn coins(count: usize) -> impl Strategy<Value = Vec<Coin>> {
    vec(coin(), 0..count).prop_map(|mut coins| {
        for (index, coin) in (0_u32..).zip(&mut coins) {
            let txid = Txid::from_byte_array([u8::try_from(index % 7).expect("small"); 32]);
            coin.outpoint = OutPoint { txid, vout: index };
        }
        coins
    })
}

fn destination() -> impl Strategy<Value = ScriptBuf> {
    one_of(vec![
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([1; 20])),
        ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([2; 32])),
        ScriptBuf::from_hex(&format!("5120{}", "03".repeat(32))).expect("P2TR"),
        ScriptBuf::from_hex(&format!("a914{}87", "04".repeat(20))).expect("P2SH"),
        ScriptBuf::from_hex(&format!("76a914{}88ac", "05".repeat(20))).expect("P2PKH"),
        ScriptBuf::from_hex(&format!("6028{}", "06".repeat(40))).expect("witness version 16"),
    ])
}

fn change_script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([8; 20]))
}

#[derive(Debug, Clone)]
struct Terms {
    coins: Vec<Coin>,
    amount: Option<Amount>,
    destination: ScriptBuf,
    rate: u64,
    merge: MergeAlgorithm,
    seed: u64,
}

fn terms() -> impl Strategy<Value = Terms> {
    let rate = prop_oneof![8 => 100..350_000_u64, 1 => Just(1000), 1 => any::<u64>()];
    (
        coins(40),
        prop::option::weighted(0.8, satoshi().prop_map(Amount::from_sat)),
        destination(),
        rate,
        algorithm(),
        any::<u64>(),
    )
        .prop_map(|(coins, amount, destination, rate, merge, seed)| Terms {
            coins,
            amount,
            destination,
            rate,
            merge,
            seed,
        })
}

fn run(terms: &Terms, inputs: Option<&[OutPoint]>) -> Result<Plan, SendError> {
    let mut ctx = SpendContext {
        coins: &terms.coins,
        mixdepth: Mixdepth(0),
        tip_height: TIP,
        median_time: MEDIAN_TIME,
        rate_sat_per_kvb: terms.rate,
        merge: terms.merge,
        wallet_type: WalletType::FidelityBond,
        rng: &mut StdRng::seed_from_u64(terms.seed),
    };
    plan(&mut ctx, terms.amount, &terms.destination, inputs)
}

/// Everything that every plan must satisfy, however its inputs were chosen.
fn check(terms: &Terms, plan: &Plan) -> Result<(), TestCaseError> {
    let inputs = plan.inputs();
    prop_assert!(!inputs.is_empty());
    let unique: HashSet<OutPoint> = inputs.iter().map(|coin| coin.outpoint).collect();
    prop_assert_eq!(unique.len(), inputs.len());
    for coin in inputs {
        prop_assert!(terms.coins.contains(coin));
        prop_assert_eq!(coin.mixdepth(), Mixdepth(0));
        prop_assert!(!coin.frozen && !coin.locked);
        prop_assert!(coin.locktime.is_none_or(|time| time < MEDIAN_TIME));
    }

    // The transaction conserves value.
    let change = plan.change().map(|_| change_script());
    let mut rng = StdRng::seed_from_u64(terms.seed);
    let tx = plan.build(change, &mut rng).expect("a plan adds up");
    let spent: u128 = inputs.iter().map(|coin| u128::from(coin.value.to_sat())).sum();
    let paid: u128 = tx.output.iter().map(|out| u128::from(out.value.to_sat())).sum();
    prop_assert_eq!(spent, paid + u128::from(plan.fee().to_sat()));
    let spends: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    prop_assert_eq!(spends, unique);
    for output in &tx.output {
        prop_assert!(output.value >= output.script_pubkey.minimal_non_dust());
    }
    match terms.amount {
        Some(amount) => prop_assert_eq!(plan.destination().value, amount),
        None => prop_assert_eq!(tx.output.len(), 1),
    }
    prop_assert!(plan.change().is_none_or(|change| change >= CHANGE_FLOOR));

    // The fee is the rate times the size, and on top of it at most a change that is not worth making.
    let fee = u128::from(plan.fee().to_sat()) * 1000;
    let vsize = u128::from(plan.vsize());
    let rate = u128::from(terms.rate);
    let size = inputs.iter().fold(TxSize::new(), |size, coin| size.input(InputKind::of_coin(coin)));
    let size =
        tx.output.iter().fold(size, |size, out| size.output(output_size(&out.script_pubkey)));
    prop_assert_eq!(size.vsize(), plan.vsize());
    prop_assert!(fee >= rate * vsize, "fee {fee}, {vsize} vbytes");
    let one_for_rounding = 1000;
    let most = if terms.amount.is_some() && plan.change().is_none() {
        // With a change output of 31 vbytes, less than the floor would have come back.
        rate * (vsize + 31) + u128::from(CHANGE_FLOOR.to_sat()) * 1000 + one_for_rounding
    } else {
        rate * vsize + one_for_rounding
    };
    prop_assert!(fee <= most, "fee {fee}, {vsize} vbytes, at most {most}");
    prop_assert!(size.weight().to_wu() <= u64::from(MAX_STANDARD_TX_WEIGHT));

    // The lock time: of the newest bond, else a height of the last hundred.
    let lock_time = plan.lock_time();
    match inputs.iter().filter_map(|coin| coin.locktime).max() {
        Some(time) => {
            prop_assert!(lock_time.is_block_time());
            prop_assert_eq!(lock_time.to_consensus_u32(), time);
        }
        None => prop_assert!((TIP - 99..=TIP).contains(&lock_time.to_consensus_u32())),
    }
    prop_assert!(tx.input.iter().all(|input| input.sequence.to_consensus_u32() == 0xffff_fffd));
    Ok(())
}

/// The best that any number of coins can do is the largest of them, because all cost the same fee.
fn largest_do_not_pay(terms: &Terms, amount: Amount) -> Result<(), TestCaseError> {
    let filter = CandidateFilter {
        mixdepth: Mixdepth(0),
        min_confirmations: 0,
        tip_height: TIP,
        exclude: None,
    };
    let mut coins = filter.candidates(&terms.coins);
    coins.sort_by_key(|coin| std::cmp::Reverse(coin.value));
    let mut size = TxSize::new().output(output_size(&terms.destination));
    let mut sum = 0;
    for coin in coins {
        size = size.input(InputKind::P2wpkh);
        sum += u128::from(coin.value.to_sat());
        let needed = u128::from(amount.to_sat()) + u128::from(size.fee(terms.rate).to_sat());
        // Sums beyond 64 bits cannot exist and are refused.
        prop_assert!(sum < needed || sum > u128::from(u64::MAX), "{sum} of {needed}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn selection_reaches_the_target_without_taking_a_coin_twice(
        values in vec(satoshi(), 0..30),
        target in satoshi(),
        algorithm in algorithm(),
    ) {
        let values: Vec<Amount> = values.into_iter().map(Amount::from_sat).collect();
        let total: u128 = values.iter().map(|value| u128::from(value.to_sat())).sum();
        match select(algorithm, &values, Amount::from_sat(target)) {
            Ok(positions) => {
                let unique: HashSet<&usize> = positions.iter().collect();
                prop_assert_eq!(unique.len(), positions.len());
                prop_assert!(!positions.is_empty());
                let sum: u128 = positions.iter().map(|p| u128::from(values[*p].to_sat())).sum();
                prop_assert!(sum >= u128::from(target));
                prop_assert!(sum <= total);
            }
            Err(error) => {
                prop_assert!(total < u128::from(target).max(1));
                prop_assert_eq!(error.wanted, target);
            }
        }
    }

    #[test]
    fn payments_conserve_value_and_take_only_confirmed_coins_where_those_suffice(terms in terms()) {
        match run(&terms, None) {
            Ok(plan) => {
                check(&terms, &plan)?;
                if terms.amount.is_some() {
                    prop_assert!(!plan.includes_expired_bond());
                    if plan.inputs().iter().any(|coin| coin.height.is_none()) {
                        // Not possible with confirmed coins alone.
                        let mut confirmed = terms.clone();
                        confirmed.coins.retain(|coin| coin.height.is_some());
                        let error = run(&confirmed, None);
                        prop_assert!(
                            matches!(error, Err(SendError::InsufficientFunds { .. })),
                            "{error:?}"
                        );
                    }
                } else if plan.includes_expired_bond() {
                    prop_assert!(plan.inputs().iter().all(|coin| coin.place.is_bond()));
                }
            }
            Err(SendError::InsufficientFunds { wanted, available, .. }) => {
                // Not a refusal out of caution: the coins really do not pay for it in one transaction.
                let spendable: u128 = terms
                    .coins
                    .iter()
                    .filter(|coin| {
                        coin.mixdepth() == Mixdepth(0) && !coin.frozen && !coin.locked
                            && !coin.place.is_bond()
                    })
                    .map(|coin| u128::from(coin.value.to_sat()))
                    .sum();
                prop_assert_eq!(u128::from(available), spendable.min(u128::from(u64::MAX)));
                prop_assert!(wanted > available || available == u64::MAX);
                if let Some(amount) = terms.amount {
                    largest_do_not_pay(&terms, amount)?;
                }
            }
            Err(SendError::NothingToSweep(_)) => prop_assert!(terms.amount.is_none()),
            Err(SendError::DustOutput { value, limit }) => prop_assert!(value < limit),
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    #[test]
    fn explicit_inputs_are_spent_exactly_or_refused(
        (terms, list) in terms().prop_flat_map(|terms| {
            let outpoints: Vec<OutPoint> = terms.coins.iter().map(|coin| coin.outpoint).collect();
            let count = outpoints.len();
            (Just(terms), subsequence(outpoints, 0..=count.min(4)))
        }),
        stranger in prop::bool::weighted(0.05),
        twice in prop::bool::weighted(0.05),
    ) {
        let mut list = list;
        if stranger {
            list.push(OutPoint::new(Txid::from_byte_array([0xee; 32]), 0));
        }
        if twice && let Some(first) = list.first().copied() {
            list.push(first);
        }
        match run(&terms, Some(&list)) {
            Ok(plan) => {
                prop_assert!(!stranger && !twice);
                check(&terms, &plan)?;
                let spent: Vec<OutPoint> = plan.inputs().iter().map(|coin| coin.outpoint).collect();
                prop_assert_eq!(spent, list);
            }
            Err(SendError::BadInputList) => prop_assert!(list.is_empty() || twice),
            Err(SendError::UnusableInput { outpoint, .. }) => {
                let coin = terms.coins.iter().find(|coin| coin.outpoint == outpoint);
                let unusable = coin.is_none_or(|coin| {
                    coin.frozen
                        || coin.locked
                        || coin.mixdepth() != Mixdepth(0)
                        || coin.locktime.is_some_and(|time| time >= MEDIAN_TIME)
                });
                prop_assert!(unusable);
            }
            Err(SendError::InsufficientFunds { .. } | SendError::DustOutput { .. }) => {}
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    #[test]
    fn coinjoin_candidates_are_ordinary_confirmed_and_not_excluded(
        coins in coins(30),
        target in satoshi(),
        algorithm in algorithm(),
        min_confirmations in 0..8_u32,
        excluded in vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let exclude: HashSet<OutPoint> = excluded
            .iter()
            .filter(|_| !coins.is_empty())
            .map(|index| index.get(&coins).outpoint)
            .collect();
        let filter = CandidateFilter {
            mixdepth: Mixdepth(1),
            min_confirmations,
            tip_height: TIP,
            exclude: Some(&exclude),
        };
        let candidates = filter.candidates(&coins);
        let target = Amount::from_sat(target);
        let plain = select_coins(algorithm, &candidates, target);
        let ordinary =
            select_with_ordinary(algorithm, &candidates, target, WalletType::FidelityBond);
        prop_assert_eq!(plain.is_ok(), ordinary.is_ok());
        for coin in plain.iter().chain(&ordinary).flatten() {
            prop_assert_eq!(coin.mixdepth(), Mixdepth(1));
            prop_assert!(!coin.frozen && !coin.locked && !coin.place.is_bond());
            prop_assert!(coin.confirmations(Some(TIP)) >= min_confirmations);
            prop_assert!(!exclude.contains(&coin.outpoint));
        }
        if let Ok(coins) = ordinary {
            prop_assert!(is_ordinary(coins[0], WalletType::FidelityBond));
        }
    }
}
