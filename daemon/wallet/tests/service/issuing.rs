//! Handing out addresses, labels, seeds, signatures.

use std::collections::HashSet;

use joinery_wallet::path::ScriptPlace;
use joinery_wallet::service::ServiceError;
use joinery_wallet::store::{Fact, MemoryStore};
use joinery_wallet::types::{Branch, Keychain, Mixdepth, WalletType};
use secrecy::ExposeSecret;

use crate::rig::{As, M0, Rig, WORDS, at, coin, out, payment, until};

fn place(branch: Branch, index: u32) -> ScriptPlace {
    ScriptPlace::Ranged { keychain: Keychain { mixdepth: M0, branch }, index }
}

#[tokio::test]
async fn concurrent_requests_never_get_the_same_address() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let tasks: Vec<_> = (0..60)
        .map(|_| {
            let wallet = wallet.clone();
            tokio::spawn(async move { wallet.issue_address(M0, Branch::External).await })
        })
        .collect();
    let mut addresses = HashSet::new();
    for task in tasks {
        addresses.insert(task.await.expect("runs").expect("issued"));
    }
    assert_eq!(addresses.len(), 60);
    assert_eq!(wallet.snapshot().branch(M0, Branch::External).expect("branch").next_unused, 60);
}

#[tokio::test]
async fn an_issued_address_is_durable_and_the_window_reaches_beyond_it() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let keys = |index| place(Branch::External, index);
    for n in 0..250_u32 {
        let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
        let next_unused = n + 1;
        let fact = Fact::Issued { mixdepth: 0, branch: 0, next_unused };
        assert_eq!(rig.store.recorded().last(), Some(&fact));
        assert!(rig.chain.is_watched(&address.script_pubkey()), "index {n}");
    }
    rig.chain.look().await;
    wallet.close().await;
    let opened = rig.keys();
    let beyond = opened.master().script_pubkey(&keys(250 + 99)).expect("derived");
    assert!(rig.chain.is_watched(&beyond));
    let expected = opened.master().address(&keys(250)).expect("derived");
    drop(opened);
    // Nothing was committed but the facts: the next address is still the next one.
    let store = rig.store.reopen_after_crash();
    let wallet = rig.open_with(Box::new(store), rig.options(As::Known)).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    assert_eq!(address, expected);
}

#[tokio::test]
async fn a_full_disk_hands_out_nothing() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    rig.store.set_failing(true);
    let issued = wallet.issue_address(M0, Branch::External).await;
    assert!(matches!(issued, Err(ServiceError::Store(_))));
    let frozen = wallet.set_frozen(vec![(at(&payment(1, &[]), 0), true)]).await;
    assert!(matches!(frozen, Err(ServiceError::Store(_))));
    assert!(matches!(wallet.bond_address(100).await, Err(ServiceError::Store(_))));
    rig.store.set_failing(false);
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    wallet.close().await;
    assert_eq!(address, rig.keys().master().address(&place(Branch::External, 0)).expect("derived"));
}

#[tokio::test]
async fn unknown_mixdepths_months_and_kinds_are_refused() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let issued = wallet.issue_address(Mixdepth(5), Branch::External).await;
    assert!(matches!(issued, Err(ServiceError::NoSuchMixdepth(Mixdepth(5)))));
    assert!(matches!(wallet.bond_address(960).await, Err(ServiceError::NoSuchMonth(960))));
    let plain = Rig::on(joinery_wallet::types::Network::Regtest, WalletType::NativeSegwit, 1..=3);
    let wallet = plain.ready(As::Fresh).await;
    assert!(matches!(wallet.bond_address(100).await, Err(ServiceError::NoBonds)));
    assert_eq!(plain.wallet_type(), WalletType::NativeSegwit);
}

#[tokio::test]
async fn a_bond_address_is_the_same_each_time_and_watched_from_then_on() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.bond_address(100).await.expect("issued");
    assert_eq!(wallet.bond_address(100).await.expect("issued"), address);
    assert_eq!(
        rig.store.recorded().iter().filter(|fact| matches!(fact, Fact::BondIssued { .. })).count(),
        1
    );
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert!(rig.chain.is_watched(&address.script_pubkey()));
    let tx = payment(1, &[out(&address, 5_000_000)]);
    rig.chain.place(&tx, None);
    rig.chain.look().await;
    let snapshot = until(&wallet, "bond", |s| coin(s, at(&tx, 0)).is_some()).await;
    let bond = coin(&snapshot, at(&tx, 0)).expect("bond");
    assert!(bond.frozen, "frozen when it arrives, before it confirms");
    // The user's word stands, also over a restart.
    wallet.set_frozen(vec![(at(&tx, 0), false)]).await.expect("stored");
    rig.chain.mine(&[&tx]);
    rig.chain.look().await;
    until(&wallet, "confirmed", |s| coin(s, at(&tx, 0)).is_some_and(|c| c.height.is_some())).await;
    wallet.close().await;
    let wallet = rig.ready(As::Known).await;
    assert!(!coin(&wallet.snapshot(), at(&tx, 0)).expect("bond").frozen);
}

#[tokio::test]
async fn after_a_loss_of_state_internal_addresses_skip_ahead() {
    let mut rig = Rig::new();
    rig.store = MemoryStore::after_loss();
    // Before the sync: ahead of what the journal knows.
    rig.chain.connect(false);
    let wallet = rig.open(As::Known).await;
    let early = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    let next = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    // On the chain: index 70 was used by the life that was lost.
    let used = {
        let other = Rig::new();
        let script = other.keys().master().script_pubkey(&place(Branch::Internal, 70));
        script.expect("derived")
    };
    rig.chain.mine(&[&payment(1, &[(used, 30_000)])]);
    rig.chain.connect(true);
    until(&wallet, "complete", |s| s.sync.complete).await;
    let late = wallet.issue_address(M0, Branch::Internal).await.expect("issued");
    let external = wallet.issue_address(M0, Branch::External).await.expect("issued");
    let other = wallet.issue_address(Mixdepth(1), Branch::Internal).await.expect("issued");
    wallet.close().await;
    assert!(!joinery_wallet::store::Store::recovered_from_loss(&rig.store.reopen()));
    let keys = rig.keys();
    let master = keys.master();
    let address = |place| master.address(&place).expect("derived");
    assert_eq!(early, address(place(Branch::Internal, 50)));
    assert_eq!(next, address(place(Branch::Internal, 51)));
    assert_eq!(late, address(place(Branch::Internal, 71 + 50)));
    assert_eq!(external, address(place(Branch::External, 0)));
    let keychain = Keychain { mixdepth: Mixdepth(1), branch: Branch::Internal };
    assert_eq!(other, address(ScriptPlace::Ranged { keychain, index: 50 }));
}

#[tokio::test]
async fn labels_belong_to_own_addresses_and_survive() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let address = wallet.issue_address(M0, Branch::External).await.expect("issued");
    rig.chain.mine(&[&payment(1, &[out(&address, 1000)])]);
    rig.chain.look().await;
    until(&wallet, "coin", |s| s.coins.len() == 1).await;
    // Upper case is the same address.
    wallet.set_label(&address.to_string().to_uppercase(), "rent ü").await.expect("own");
    for foreign in [
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        "",
        "x",
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyT",
    ] {
        let result = wallet.set_label(foreign, "no").await;
        assert!(matches!(result, Err(ServiceError::UnknownAddress)), "{foreign}");
    }
    let long = "x".repeat(joinery_wallet::service::MAX_LABEL_BYTES + 1);
    let result = wallet.set_label(&address.to_string(), &long).await;
    assert!(matches!(result, Err(ServiceError::LabelTooLong(_))));
    wallet.close().await;
    let wallet = rig.open(As::Known).await;
    let label = |wallet: &joinery_wallet::service::WalletHandle| {
        let list = joinery_wallet::display::utxo_list(&wallet.snapshot(), 3);
        list[0].label.to_string()
    };
    assert_eq!(label(&wallet), "rent ü");
    wallet.set_label(&address.to_string(), "").await.expect("own");
    assert_eq!(label(&wallet), "");
}

#[tokio::test]
async fn seed_and_message_signature_are_those_of_the_keys() {
    let rig = Rig::new();
    let wallet = rig.ready(As::Fresh).await;
    let (words, extension) = wallet.seed().await.expect("open");
    assert_eq!(words.expose_secret(), WORDS);
    assert!(extension.is_none());
    let (signature, address) =
        wallet.sign_message("m/84'/1'/0'/0/3", "hello").await.expect("own path");
    let (_, bond) =
        wallet.sign_message("m/84'/1'/0'/2/100:1840752000", "hello").await.expect("own path");
    for path in ["m/84'/0'/0'/0/3", "m/84'/1'/5'/0/3", "m/49'/1'/0'/0/3", "", "m"] {
        let result = wallet.sign_message(path, "hello").await;
        assert!(matches!(result, Err(ServiceError::UnknownPath)), "{path}");
    }
    assert_eq!(bond, wallet.bond_address(100).await.expect("issued"));
    wallet.close().await;
    let keys = rig.keys();
    let signer = keys.master().signer(&place(Branch::External, 3)).expect("derived");
    assert_eq!(address, keys.master().address(&place(Branch::External, 3)).expect("derived"));
    assert_eq!(
        signature,
        joinery_proto::message_signature::sign_base64(b"hello", signer.secret_key())
    );
}
