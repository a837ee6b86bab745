//! The real store: the files as they are at some moment, copied away and opened elsewhere, as after the
//! process was killed at that moment.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bdk_wallet::bitcoin::Amount;
use joinery_wallet::directory::WalletDirectory;
use joinery_wallet::file::KdfParams;
use joinery_wallet::service::{SendError, SendRequest, WalletHandle};
use joinery_wallet::store::{self, OwnTxState};
use joinery_wallet::types::{Branch, Mixdepth};
use secrecy::SecretString;

use crate::fake_chain::OnBroadcast;
use crate::rig::{As, M0, Rig, at, coin, foreign, out, payment, until};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for entry in std::fs::read_dir(from).expect("directory") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            // A file may be renamed or removed while we look: that is a moment too.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}

/// Opens the wallet of a directory with the real store.
async fn open(rig: &Rig, directory: &Path, how: As) -> WalletHandle {
    let directory = WalletDirectory::new(directory.to_owned(), rig.network, KdfParams::lightest());
    let options = rig.options(how);
    tokio::task::spawn_blocking(move || {
        let name = "test.jmdat".parse().expect("valid name");
        let password = SecretString::from("correct horse");
        let keys = directory.expect("directory").open(&name, &password).expect("opens");
        let store = store::open(keys.store_paths().clone(), keys.dek()).expect("store opens");
        WalletHandle::open(keys, store, options).expect("wallet opens")
    })
    .await
    .expect("does not panic")
}

#[tokio::test]
async fn a_kill_at_any_step_loses_no_address_label_flag_or_payment() {
    let rig = Rig::new();
    let live = rig.dir.path().join("wallets");
    let wallet = open(&rig, &live, As::Fresh).await;
    let mut step = 0;
    let mut kill = || {
        step += 1;
        let image = rig.dir.path().join(format!("image-{step}"));
        copy(&live, &image);
        image
    };
    let mut issued = HashSet::new();
    let mut images = Vec::new();
    for _ in 0..3 {
        let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
        assert!(issued.insert(address), "issued twice");
        images.push((kill(), issued.clone()));
    }
    let funds = payment(1, &[out(issued.iter().next().expect("issued"), 100_000)]);
    rig.chain.mine(&[&funds]);
    rig.chain.look().await;
    until(&wallet, "funds", |s| s.coins.len() == 1).await;
    let label_of = issued.iter().next().expect("issued").to_string();
    wallet.set_label(&label_of, "salary").await.expect("own");
    let labelled = kill();
    wallet.set_frozen(vec![(at(&funds, 0), true)]).await.expect("stored");
    let frozen = kill();
    wallet.set_frozen(vec![(at(&funds, 0), false)]).await.expect("stored");
    rig.chain.on_broadcast(OnBroadcast::Lost);
    let request = SendRequest {
        mixdepth: M0,
        amount: Some(Amount::from_sat(40_000)),
        destination: bdk_wallet::bitcoin::Address::from_script(&foreign(3), rig.network.bitcoin())
            .expect("address"),
        fees: None,
        inputs: None,
    };
    assert!(matches!(wallet.direct_send(request).await, Err(SendError::Uncertain)));
    let sent = kill();
    let txid = rig.chain.broadcasts()[0].compute_txid();
    wallet.close().await;

    for (image, before) in images {
        let wallet = open(&rig, &image, As::Known).await;
        for _ in 0..3 {
            let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
            assert!(!before.contains(&address), "issued again after {}", image.display());
        }
        wallet.close().await;
    }
    let wallet = open(&rig, &labelled, As::Known).await;
    let snapshot = until(&wallet, "funds", |s| s.coins.len() == 1 && s.sync.complete).await;
    let list = joinery_wallet::display::utxo_list(&snapshot, 3);
    assert_eq!(&*list[0].label, "salary");
    assert!(!list[0].frozen);
    wallet.close().await;
    let wallet = open(&rig, &frozen, As::Known).await;
    let snapshot = until(&wallet, "funds", |s| s.coins.len() == 1 && s.sync.complete).await;
    assert!(snapshot.coins[0].frozen);
    wallet.close().await;

    rig.chain.on_broadcast(OnBroadcast::Accept { listed: true });
    let wallet = open(&rig, &sent, As::Known).await;
    let snapshot = until(&wallet, "sent again", |s| {
        s.sync.complete && coin(s, at(&funds, 0)).is_none() && s.coins.len() == 1
    })
    .await;
    assert_eq!(snapshot.coins[0].outpoint.txid, txid);
    let next = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    assert_ne!(next.script_pubkey(), snapshot.coins[0].script, "change is not handed out again");
    wallet.close().await;
    let keys = {
        let directory =
            WalletDirectory::new(sent.clone(), rig.network, KdfParams::lightest()).expect("opens");
        directory
            .open(&"test.jmdat".parse().expect("name"), &SecretString::from("correct horse"))
            .expect("closed wallets are free")
    };
    let store = store::open(keys.store_paths().clone(), keys.dek()).expect("store opens");
    assert_eq!(store.facts().own_txs[&txid].state, OwnTxState::Broadcast);
}

#[tokio::test]
async fn a_damaged_database_costs_no_flag_label_or_address() {
    let rig = Rig::new();
    let live = rig.dir.path().join("wallets");
    let wallet = open(&rig, &live, As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let internal = wallet.issue_address(Mixdepth(2), Branch::Internal).await.expect("issued");
    let funds = payment(1, &[out(&address, 100_000)]);
    rig.chain.mine(&[&funds]);
    rig.chain.look().await;
    until(&wallet, "funds", |s| s.coins.len() == 1).await;
    wallet.set_label(&address.to_string(), "salary").await.expect("own");
    wallet.set_frozen(vec![(at(&funds, 0), true)]).await.expect("stored");
    wallet.close().await;
    let database = live.join(".test.jmdat.db");
    let name = std::fs::read_dir(&live)
        .expect("directory")
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".db"));
    let database = name.map_or(database, |entry| entry.path());
    for entry in std::fs::read_dir(&database).expect("database").filter_map(Result::ok) {
        if entry.file_type().expect("type").is_file() {
            std::fs::write(entry.path(), b"not a database at all").expect("overwritten");
        }
    }
    let wallet = open(&rig, &live, As::Known).await;
    let snapshot = until(&wallet, "found again", |s| s.coins.len() == 1 && s.sync.complete).await;
    let list = joinery_wallet::display::utxo_list(&snapshot, 3);
    assert!(list[0].frozen);
    assert_eq!(&*list[0].label, "salary");
    let again = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let skipped = wallet.issue_address(Mixdepth(2), Branch::Internal).await.expect("issued");
    assert_ne!(again, address);
    assert_ne!(skipped, internal);
    let next = wallet.snapshot().branch(Mixdepth(2), Branch::Internal).expect("branch").next_unused;
    assert!(next > 50, "internal indexes skip after a loss: {next}");
    let _keep: Arc<_> = rig.chain.clone();
}
