//! A wallet that was opened without its password: what it does for a maker, and that it signs nothing else.

use std::collections::HashSet;

use bdk_wallet::bitcoin::consensus::encode::serialize;
use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Transaction};
use joinery_wallet::round::{RoundEvent, RoundId, RoundRole, RoundSums};
use joinery_wallet::service::{RoundError, ServiceError, SessionMode, WalletHandle};
use joinery_wallet::types::{Branch, Mixdepth};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::rig::{As, Rig, eventually, foreign, password, payment, spend, until};
use crate::rounds::{begin, clock, end, funded, revealed};

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

/// A transaction that somebody proposes, and what the role says that it earns.
#[derive(Debug, Clone)]
struct Proposal {
    /// Which of our three coins go in; the round holds the first two.
    ours: [bool; 3],
    /// The first coin goes in twice.
    twice: bool,
    stranger: bool,
    /// Who is paid how much: the two scripts of the round, a script of ours that is not of the round, a stranger.
    outputs: Vec<(usize, u64)>,
    earned: i64,
}

/// What pays exactly what is claimed, more or less.
fn near(earned: i64, part: u64, off: i64) -> Vec<(usize, u64)> {
    let all = i64::try_from(2 * COIN).expect("small") + earned + off;
    let all = u64::try_from(all).unwrap_or(0);
    let first = part.min(all);
    vec![(0, first), (1, all - first)]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let mostly = |often: u32| prop::bool::weighted(f64::from(often) / 100.0);
    let earned = prop_oneof![
        8 => -3_i64..=1_000,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, -1, 0]),
    ];
    let other = prop::collection::vec((0_usize..4, prop_oneof![0..=COIN, 0..=4 * COIN]), 0..6);
    let coins = [mostly(95), mostly(95), mostly(5)];
    (coins, mostly(3), any::<bool>(), earned, 0..=2 * COIN, -3_i64..=3, other, any::<Index>())
        .prop_map(|(ours, twice, stranger, earned, part, off, other, which)| {
            let outputs = match which.index(4) {
                0 => other,
                // A good one, but the scripts of others are paid in place of ours.
                1 => near(earned.clamp(-3, 1_000), part, off)
                    .into_iter()
                    .map(|(to, value)| (to + 2, value))
                    .chain(other)
                    .collect(),
                _ => {
                    let mut good = near(earned.clamp(-3, 1_000), part, off);
                    good.extend(other.into_iter().filter(|(to, _)| *to >= 2));
                    good
                }
            };
            Proposal { ours, twice, stranger, outputs, earned }
        })
}

impl Proposal {
    fn build(&self, coins: &[OutPoint], scripts: &[ScriptBuf; 4], salt: u8) -> Transaction {
        let mut inputs: Vec<OutPoint> =
            coins.iter().zip(self.ours).filter(|(_, goes)| *goes).map(|(coin, _)| *coin).collect();
        if self.twice {
            inputs.push(coins[0]);
        }
        if self.stranger {
            inputs.push(OutPoint { txid: payment(salt, &[]).compute_txid(), vout: 0 });
        }
        let outputs: Vec<(ScriptBuf, u64)> =
            self.outputs.iter().map(|(to, value)| (scripts[*to].clone(), *value)).collect();
        spend(&inputs, &outputs)
    }

    /// Reckoned here once more, from what the proposal is and not from the transaction.
    fn pays_as_agreed(&self) -> bool {
        let paid: u128 =
            self.outputs.iter().filter(|(to, _)| *to < 2).map(|(_, v)| u128::from(*v)).sum();
        let doubled = self.twice && self.ours[0];
        let coins = self.ours == [true, true, false] && !doubled;
        let agreed = u128::try_from(self.earned).map(|earned| u128::from(2 * COIN) + earned);
        coins && agreed.is_ok_and(|agreed| paid >= agreed)
    }

    fn event(&self, tx: &Transaction) -> RoundEvent {
        let sums =
            RoundSums { amount: COIN, cost: self.earned.saturating_neg(), ..RoundSums::default() };
        RoundEvent::Signed { txid: tx.compute_txid(), raw: serialize(tx), sums, time: clock() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever a taker proposes and whatever the maker's role believes to earn by it: the wallet task puts down as
    /// signed only what gives all coins of the round back with what was agreed, and never less than they were worth.
    #[test]
    fn only_what_pays_the_maker_as_agreed_is_signed(
        proposals in prop::collection::vec(proposal(), 60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let rig = Rig::new();
            let (wallet, coins) = maker_only(&rig, &[1, 2, 3]).await;
            let (id, [cj, change]) = revealed(&wallet, &coins[..2], 1).await;
            let other = wallet.issue_address(Mixdepth(2), Branch::Internal).await.expect("issued");
            let scripts = [cj, change, other.script_pubkey(), foreign(7)];
            let mut signed = HashSet::new();
            for (number, proposal) in (0..).zip(&proposals) {
                let tx = proposal.build(&coins, &scripts, number);
                let result = wallet.record_round(id, proposal.event(&tx)).await;
                match (result, proposal.pays_as_agreed()) {
                    (Ok(()), true) => {
                        signed.insert(tx.compute_txid());
                    }
                    // Three are enough for any taker.
                    (Err(RoundError::OutOfOrder(_)), true) => prop_assert_eq!(signed.len(), 3),
                    (Err(error), true) => prop_assert!(false, "a good one is refused: {error}"),
                    (Ok(()), false) => prop_assert!(false, "signed: {proposal:?}"),
                    (Err(_), false) => {}
                }
            }
            let kept = wallet.rounds().iter().find(|round| round.id == id).expect("round").clone();
            let kept: HashSet<_> = kept.signed.iter().map(|(txid, _, _)| *txid).collect();
            prop_assert_eq!(kept, signed);
            prop_assert!(rig.chain.broadcasts().is_empty());
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
    let id = wallet.begin_round(begin(RoundRole::Maker, 0)).await.expect("begun");
    assert!(!wallet.unlock("wrong".to_owned().into()).await.expect("checked"));
    assert_eq!(wallet.mode(), SessionMode::MakerOnly);
    refused(wallet.seed().await.map(|_| ()));
    assert!(!wallet.verify_password("wrong".to_owned().into()).await.expect("checked"));

    assert!(wallet.unlock(password()).await.expect("checked"));
    assert_eq!(wallet.mode(), SessionMode::Full);
    wallet.seed().await.expect("shown");
    wallet.end_round(id, end("stopped")).await.expect("the maker's round went on");
    wallet.set_frozen(vec![(coins[0], true)]).await.expect("frozen");
    let taker = wallet.begin_round(begin(RoundRole::Taker, 0)).await.expect("begun");
    assert_ne!(taker, RoundId(0));
    assert!(wallet.unlock(password()).await.expect("again"), "nothing to do");
}

/// A taker's round that a power cut interrupted waits for the password: without it nothing of it is sent or ended.
#[tokio::test]
async fn an_interrupted_round_of_the_taker_is_taken_up_with_the_password() {
    use crate::rounds::{complete, earning, round};

    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let change = wallet.issue_address(Mixdepth(0), Branch::Internal).await.expect("issued");
    let id = wallet.begin_round(begin(RoundRole::Taker, 0)).await.expect("begun");
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
