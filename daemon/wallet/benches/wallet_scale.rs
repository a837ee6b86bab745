//! How long a big wallet takes: restoring 10 000 used addresses, opening after 5 000 deposits, opening
//! again, one new transaction, the display and the list of coins. Prints one line each.
//!
//! The server answers at once, so these are the wallet's own costs.

#![allow(clippy::print_stdout)] // The purpose of this program.

#[path = "../tests/service/fake_chain.rs"]
#[allow(dead_code)] // Shared with the tests, which use all of it.
mod fake_chain;
#[path = "../tests/service/rig.rs"]
#[allow(dead_code)]
mod rig;

use std::time::{Duration, Instant};

use joinery_wallet::display;
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::store;
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};

use rig::{As, M0, Rig, out, payment, until};

const NOW: u64 = 1_780_000_000;

fn line(what: &str, time: Duration) {
    println!("{what:<60} {:>9.1} ms", time.as_secs_f64() * 1000.0);
}

/// A wallet whose first `count` external addresses of mixdepth 0 hold a coin each.
fn deposits(rig: &Rig, count: u32) {
    let keys = rig.keys();
    let keychain = Keychain { mixdepth: M0, branch: Branch::External };
    rig.chain.place_all((0..count).map(|index| {
        let place = ScriptPlace::Ranged { keychain, index };
        let script = keys.master().script_pubkey(&place).expect("derived");
        let mut tx = payment(1, &[(script, 10_000 + u64::from(index))]);
        tx.input[0].previous_output.vout = index;
        (tx, 5 + index % 3000)
    }));
}

async fn scale(count: u32) {
    let rig = Rig::on(Network::Regtest, WalletType::FidelityBond, 1..=3100);
    deposits(&rig, count);
    let open = |how| {
        let (keys, options) = (rig.keys(), rig.options(how));
        let start = Instant::now();
        async move {
            let wallet = tokio::task::spawn_blocking(move || {
                let store = store::open(keys.store_paths().clone(), keys.dek()).expect("store");
                joinery_wallet::service::WalletHandle::open(keys, store, options).expect("opens")
            })
            .await
            .expect("does not panic");
            (wallet, start)
        }
    };
    let (wallet, start) = open(As::Recovered).await;
    let snapshot = until(&wallet, "restored", |s| s.sync.complete).await;
    line(&format!("restore, {count} used addresses"), start.elapsed());
    assert_eq!(snapshot.coins.len(), usize::try_from(count).expect("fits"));
    let start = Instant::now();
    wallet.close().await;
    line("  close", start.elapsed());

    let (wallet, start) = open(As::Known).await;
    line("  open again: last state served", start.elapsed());
    until(&wallet, "synced", |s| s.sync.complete).await;
    line("  open again: in sync", start.elapsed());

    let start = Instant::now();
    let address = wallet.issue_address(Mixdepth(1), Branch::External).await.expect("issued");
    line("  one new address", start.elapsed());
    let coins = wallet.snapshot().coins.len();
    rig.chain.place_all([(payment(9, &[out(&address, 5)]), 3100)]);
    let start = Instant::now();
    rig.chain.look().await;
    until(&wallet, "new coin", |s| s.coins.len() == coins + 1).await;
    line("  one new transaction (with the fake server's work)", start.elapsed());
    rig.chain.mine(&[]);
    let start = Instant::now();
    rig.chain.look().await;
    until(&wallet, "block", |s| s.height() == Some(3101)).await;
    line("  one empty block (with the fake server's work)", start.elapsed());

    let snapshot = wallet.snapshot();
    let start = Instant::now();
    let info = display::wallet_info(&snapshot, NOW);
    line("  display", start.elapsed());
    let start = Instant::now();
    let list = display::utxo_list(&snapshot, 3);
    line("  list of coins", start.elapsed());
    assert_eq!((info.accounts.len(), list.len()), (5, coins + 1));
    wallet.close().await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for count in [0, 5_000, 10_000] {
        scale(count).await;
    }
}
