//! A maker's round opened at once: round, agreement, coins and addresses, all or none.

use bdk_wallet::bitcoin::OutPoint;
use joinery_wallet::round::RoundId;
use joinery_wallet::service::{
    MakerRound, OpenedRound, RoundAccounts, RoundError, RoundNews, RoundOutputs, Unusable,
    WalletHandle,
};
use joinery_wallet::store::{Fact, Store};
use joinery_wallet::types::{Branch, Mixdepth};

use crate::rig::{As, M0, Rig, coin, eventually, until};
use crate::round_stage::{
    SESSION, clock, coinjoin, end, funded, futures_poll, lend, news, round, sign,
};

const ACCOUNTS: RoundAccounts = RoundAccounts { equal: Mixdepth(1), change: M0 };

async fn open(
    wallet: &WalletHandle,
    coins: &[OutPoint],
    accounts: RoundAccounts,
) -> Result<OpenedRound, RoundError> {
    let outputs = RoundOutputs::Fresh(accounts);
    wallet.open_round(MakerRound { outputs, ..lend(coins) }).await
}

/// Next indexes of the internal branches that the rounds here draw from.
fn next_unused(wallet: &WalletHandle) -> [u32; 2] {
    let snapshot = wallet.snapshot();
    [ACCOUNTS.equal, ACCOUNTS.change]
        .map(|mixdepth| snapshot.branch(mixdepth, Branch::Internal).expect("branch").next_unused)
}

#[tokio::test]
async fn what_a_maker_tells_its_taker_comes_by_one_record_and_serves_to_the_end() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2]).await;
    let before = rig.store.records();
    let mut events = wallet.events();
    // In the order of the question, whatever the journal does with it.
    let mut asked = coins.clone();
    asked.sort_unstable();
    asked.reverse();
    let opened = open(&wallet, &asked, ACCOUNTS).await.expect("opened");
    assert_eq!(rig.store.records(), before, "nothing leaves yet, and nothing waits for the disk");
    wallet.reveal_round(opened.id, [1; 32], SESSION, asked[0]).await.expect("recorded");
    assert_eq!(rig.store.records() - before, 1, "one append, one sync");
    let told = [RoundNews::Begun, RoundNews::Coins, RoundNews::Step];
    assert_eq!(news(&mut events, 3).await, told, "when it is durable");
    assert_eq!(opened.id, RoundId(1));
    let snapshot = wallet.snapshot();
    for (own, outpoint) in opened.coins.iter().zip(&asked) {
        let held = coin(&snapshot, *outpoint).expect("coin");
        assert!(held.locked);
        assert_eq!((own.outpoint, own.value), (*outpoint, 100_000));
        assert_eq!(own.script, held.script);
    }
    let (equal, change) = (opened.equal, opened.change);
    assert_eq!(next_unused(&wallet), [1, 1]);
    let again = wallet.issue_address(Mixdepth(1), Branch::Internal).await.expect("issued");
    assert_ne!(again, equal);

    // The rest of the round goes on as ever.
    wallet.end_round(opened.id, end("replaced")).await.expect("ended");
    let outputs = RoundOutputs::Known { equal: equal.clone(), change: change.clone() };
    let again = MakerRound { outputs, ..lend(&coins[..1]) };
    let opened = wallet.open_round(again).await.expect("opened");
    assert_eq!((&opened.equal, &opened.change), (&equal, &change));
    assert_eq!(next_unused(&wallet), [2, 1], "nothing is drawn that is not asked for");
    let scripts = [equal.script_pubkey(), change.script_pubkey()];
    wallet.reveal_round(opened.id, [1; 32], SESSION, coins[0]).await.expect("recorded");
    let tx = coinjoin(coins[0], &scripts, 50);
    sign(&wallet, opened.id, &tx, clock()).await.expect("signed");
}

#[tokio::test]
async fn a_round_that_cannot_be_opened_leaves_nothing_behind() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1, 2, 3]).await;
    open(&wallet, &coins[..1], ACCOUNTS).await.expect("opened");
    wallet.set_frozen(vec![(coins[2], true)]).await.expect("free");
    let unknown = OutPoint { vout: 7, ..coins[0] };
    let before = (rig.store.records(), next_unused(&wallet));
    for (outpoint, reason) in
        [(coins[0], Unusable::Held), (coins[2], Unusable::Frozen), (unknown, Unusable::Unknown)]
    {
        let refused = open(&wallet, &[coins[1], outpoint], ACCOUNTS).await;
        assert!(
            matches!(&refused, Err(RoundError::Unusable { outpoint: named, reason: why })
                if *named == outpoint && *why == reason),
            "{refused:?}"
        );
    }
    let twice = open(&wallet, &[coins[1], coins[1]], ACCOUNTS).await;
    assert!(matches!(twice, Err(RoundError::OutOfOrder(_))), "{twice:?}");
    let none = open(&wallet, &[], ACCOUNTS).await;
    assert!(matches!(none, Err(RoundError::OutOfOrder(_))), "{none:?}");
    let many: Vec<OutPoint> = (0..600).map(|vout| OutPoint { vout, ..unknown }).collect();
    assert!(matches!(open(&wallet, &many, ACCOUNTS).await, Err(RoundError::TooLarge { .. })));
    let nowhere = RoundAccounts { equal: Mixdepth(9), change: M0 };
    let refused = open(&wallet, &coins[1..2], nowhere).await;
    assert!(matches!(refused, Err(RoundError::NoSuchMixdepth(Mixdepth(9)))), "{refused:?}");
    let elsewhere = MakerRound { mixdepth: Mixdepth(9), ..lend(&coins[1..2]) };
    let refused = wallet.open_round(elsewhere).await;
    assert!(matches!(refused, Err(RoundError::NoSuchMixdepth(Mixdepth(9)))), "{refused:?}");
    assert_eq!((rig.store.records(), next_unused(&wallet)), before);
    assert_eq!(wallet.rounds().len(), 1);
    assert!(!coin(&wallet.snapshot(), coins[1]).expect("coin").locked);
}

/// Nothing is told, the coins are free again, and no address is given to two takers.
#[tokio::test]
async fn a_full_disk_stops_a_round_before_anything_is_told() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    rig.store.set_failing(true);
    let opened = open(&wallet, &coins, ACCOUNTS).await.expect("in memory");
    let told = wallet.reveal_round(opened.id, [1; 32], SESSION, coins[0]).await;
    assert!(matches!(told, Err(RoundError::Store(_))), "{told:?}");
    let held = open(&wallet, &coins, ACCOUNTS).await;
    assert!(matches!(held, Err(RoundError::Unusable { reason: Unusable::Held, .. })), "{held:?}");
    wallet.end_round(opened.id, end("wallet_refused")).await.expect("needs no disk");
    assert!(!coin(&wallet.snapshot(), coins[0]).expect("coin").locked);
    rig.store.set_failing(false);
    let again = open(&wallet, &coins, ACCOUNTS).await.expect("opened");
    assert_eq!(again.id, RoundId(opened.id.0 + 1));
    assert!(again.equal != opened.equal && again.change != opened.change);
    wallet.reveal_round(again.id, [1; 32], SESSION, coins[0]).await.expect("recorded");
    // A power cut now: what was told is there, and so is what came before it.
    let kept = rig.store.reopen_after_crash();
    let rounds = &kept.facts().rounds;
    assert!(rounds[&opened.id].is_over() && rounds[&again.id].commitment == Some([1; 32]));
    assert_eq!(kept.facts().issued[&(1, 1)], 2);
}

#[tokio::test]
async fn a_power_cut_before_anything_is_told_leaves_no_trace_of_a_round() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let before = rig.store.reopen_after_crash().facts().clone();
    open(&wallet, &coins, ACCOUNTS).await.expect("opened");
    assert_eq!(rig.store.reopen_after_crash().facts(), &before);
}

#[tokio::test]
async fn both_addresses_of_one_account_differ() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let accounts = RoundAccounts { equal: M0, change: M0 };
    let opened = open(&wallet, &coins, accounts).await.expect("opened");
    let (equal, change) = (opened.equal, opened.change);
    assert_ne!(equal, change);
    let next = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    assert!(next != equal && next != change);
}

#[tokio::test]
async fn indexes_skip_after_a_loss_for_both_addresses_of_a_round() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let shown = open(&wallet, &coins, ACCOUNTS).await.expect("opened");
    wallet.close().await;
    rig.store.reopen().record(&[Fact::StateLost]).expect("recorded");
    let wallet = rig.open(As::Known).await;
    until(&wallet, "caught up", |s| s.sync.complete && s.coins.len() == 1).await;
    let opened = open(&wallet, &coins, ACCOUNTS).await.expect("opened");
    assert!(opened.equal != shown.equal && opened.change != shown.change);
    assert!(next_unused(&wallet).iter().all(|next| *next > 50), "{:?}", next_unused(&wallet));
}

/// The taker's side may be gone before the wallet has answered.
#[tokio::test]
async fn an_opened_round_that_nobody_waits_for_is_ended() {
    let rig = Rig::new();
    let (wallet, coins) = funded(&rig, &[1]).await;
    let mut number = 1;
    loop {
        let (other, coins) = (wallet.clone(), coins.clone());
        let mut request = Box::pin(async move { open(&other, &coins, ACCOUNTS).await });
        if !futures_poll(request.as_mut()) {
            break;
        }
        // The answer was there at the first look and has found somebody: asked again.
        wallet.end_round(RoundId(number), end("stopped")).await.unwrap();
        number += 1;
    }
    let id = RoundId(number);
    let is_over = || wallet.rounds().iter().any(|round| round.id == id && round.end.is_some());
    eventually("ended", is_over).await;
    assert!(!round(&wallet, id).holds_coins());
    let free: Result<OpenedRound, RoundError> = open(&wallet, &coins, ACCOUNTS).await;
    free.expect("the coin is free again");
}
