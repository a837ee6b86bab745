//! What the tests of rounds play with: beginnings, agreements, transactions, news.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bdk_wallet::bitcoin::{Address, OutPoint, ScriptBuf, Transaction};
use joinery_proto::message::InputSignature;
use joinery_proto::nacl_box::NaclPublicKey;
use joinery_proto::transaction::fees::Agreement;
use joinery_wallet::round::{
    Round, RoundBegin, RoundEnd, RoundEvent, RoundId, RoundRole, RoundSums,
};
use joinery_wallet::service::{
    MakerRound, RoundAccounts, RoundError, RoundNews, RoundOutputs, WalletEvent, WalletHandle,
};
use joinery_wallet::snapshot::Snapshot;
use joinery_wallet::types::{Branch, Mixdepth};
use tokio::sync::broadcast;

use crate::rig::{As, M0, Rig, at, foreign, out, payment, spend, until};

pub(crate) fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A taker's round.
pub(crate) fn begin(mixdepth: u8) -> RoundBegin {
    RoundBegin {
        role: RoundRole::Taker,
        time: clock(),
        mixdepth,
        amount: 50_000,
        counterparties: 1,
        destination: String::new(),
        nick: "J5nick".to_owned(),
        agreed: None,
    }
}

/// A maker's round over coins of mixdepth 0 with fresh addresses, for 50 000 satoshi and a fee of 100.
pub(crate) fn lend(coins: &[OutPoint]) -> MakerRound {
    MakerRound {
        time: clock(),
        mixdepth: M0,
        nick: "J5nick".to_owned(),
        taker: "J5taker".to_owned(),
        agreement: Agreement { amount: 50_000, fee: 100, tx_fee: 0 },
        coins: coins.to_vec(),
        outputs: RoundOutputs::Fresh(RoundAccounts { equal: Mixdepth(1), change: M0 }),
    }
}

/// Key of a maker's session.
pub(crate) const SESSION: NaclPublicKey = NaclPublicKey::from_bytes([5; 32]);

pub(crate) fn end(code: &str) -> RoundEnd {
    RoundEnd { code: code.to_owned(), text: "It ended.".to_owned(), time: clock() }
}

pub(crate) fn round(wallet: &WalletHandle, id: RoundId) -> std::sync::Arc<Round> {
    wallet.rounds().iter().find(|round| round.id == id).expect("round").clone()
}

pub(crate) fn find(snapshot: &Snapshot, id: RoundId) -> &Round {
    snapshot.rounds.iter().find(|round| round.id == id).expect("round")
}

/// A wallet with a confirmed coin of 100 000 satoshi for each salt, in mixdepth 0.
pub(crate) async fn funded(rig: &Rig, salts: &[u8]) -> (WalletHandle, Vec<OutPoint>) {
    let wallet = rig.ready(As::Fresh).await;
    let mut txs = Vec::new();
    for salt in salts {
        let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
        txs.push(payment(*salt, &[out(&address, 100_000)]));
    }
    rig.chain.mine(&txs.iter().collect::<Vec<_>>());
    rig.chain.look().await;
    until(&wallet, "funds", |s| s.coins.len() == salts.len()).await;
    (wallet, txs.iter().map(|tx| at(tx, 0)).collect())
}

/// A maker's round up to the point where its coins and scripts are shown: coinjoin and change script.
pub(crate) async fn revealed(
    wallet: &WalletHandle,
    coins: &[OutPoint],
    commitment: u8,
) -> (RoundId, [ScriptBuf; 2]) {
    let opened = wallet.open_round(lend(coins)).await.expect("opened");
    let told = wallet.reveal_round(opened.id, [commitment; 32], SESSION, coins[0]).await;
    told.expect("recorded");
    (opened.id, [opened.equal.script_pubkey(), opened.change.script_pubkey()])
}

/// A coinjoin of two that spends one coin of ours, worth 100 000 satoshi, and earns us 100.
pub(crate) fn coinjoin(coin: OutPoint, scripts: &[ScriptBuf; 2], salt: u8) -> Transaction {
    let stranger = OutPoint { txid: payment(salt, &[]).compute_txid(), vout: 0 };
    let outputs = [
        (scripts[0].clone(), 50_000),
        (scripts[1].clone(), 50_100),
        (foreign(salt), 50_000),
        (foreign(salt.wrapping_add(1)), 7_000),
    ];
    spend(&[stranger, coin], &outputs)
}

pub(crate) fn earning(sats: i64) -> RoundSums {
    RoundSums { amount: 50_000, cost: -sats, ..RoundSums::default() }
}

/// Has a transaction of a maker's round signed.
pub(crate) async fn sign(
    wallet: &WalletHandle,
    id: RoundId,
    tx: &Transaction,
    time: u64,
) -> Result<Vec<InputSignature>, RoundError> {
    wallet.sign_round(id, tx.clone(), time).await
}

/// Outputs of a transaction.
pub(crate) fn pairs(tx: &Transaction) -> Vec<(ScriptBuf, u64)> {
    tx.output.iter().map(|out| (out.script_pubkey.clone(), out.value.to_sat())).collect()
}

/// A taker's transaction over one of its coins, with something that looks like signatures.
pub(crate) fn complete(coin: OutPoint, change: &Address, salt: u8) -> Transaction {
    let stranger = OutPoint { txid: payment(salt, &[]).compute_txid(), vout: 0 };
    let outputs = [
        (foreign(salt), 50_000),
        (foreign(salt.wrapping_add(1)), 50_000),
        (foreign(salt.wrapping_add(2)), 9_000),
        (change.script_pubkey(), 49_000),
    ];
    let mut tx = spend(&[stranger, coin], &outputs);
    tx.input.iter_mut().for_each(|input| input.witness.push([1; 72]));
    tx
}

/// The next news of rounds; they are told a moment after the snapshot shows them.
pub(crate) async fn news(
    events: &mut broadcast::Receiver<WalletEvent>,
    count: usize,
) -> Vec<RoundNews> {
    let mut out = Vec::new();
    let wait = async {
        while out.len() < count {
            if let WalletEvent::Round { what, .. } = events.recv().await.expect("the wallet lives")
            {
                out.push(what);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("news of rounds");
    out
}

pub(crate) fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let waker = std::task::Waker::noop();
    future.poll(&mut std::task::Context::from_waker(waker)).is_ready()
}

/// Opens a taker's round over a coin, with the transaction complete and kept.
pub(crate) async fn kept(
    wallet: &WalletHandle,
    coin: OutPoint,
    salt: u8,
    send: bool,
) -> (RoundId, Transaction) {
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    wallet.reserve(id, vec![coin]).await.expect("reserved");
    let change = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    let tx = complete(coin, &change, salt);
    let event = RoundEvent::Shown { txid: tx.compute_txid(), sums: earning(-900) };
    wallet.record_round(id, event).await.expect("recorded");
    wallet.keep_transaction(id, tx.clone(), earning(-900), send).await.expect("kept");
    (id, tx)
}
