//! The real store: the files as they are at some moment, copied away and opened elsewhere, as after the
//! process was killed at that moment.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bdk_wallet::bitcoin::{Address, Amount, OutPoint, ScriptBuf, Transaction, Txid};
use joinery_wallet::directory::WalletDirectory;
use joinery_wallet::file::KdfParams;
use joinery_wallet::policy::WalletPolicy;
use joinery_wallet::round::{RoundEvent, RoundId};
use joinery_wallet::service::{
    OpenOptions, OpenedRound, RoundError, RoundSent, SendError, SendRequest, WalletHandle,
};
use joinery_wallet::store::{self, OwnTxState};
use joinery_wallet::types::{Branch, Mixdepth};
use secrecy::SecretString;

use crate::fake_chain::OnBroadcast;
use crate::rig::{As, M0, Rig, at, coin, eventually, foreign, out, payment, until};
use crate::round_stage::{
    SESSION, begin, clock, coinjoin, complete, earning, end, lend, round, sign,
};

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
    open_with(rig, directory, rig.options(how)).await
}

async fn open_with(rig: &Rig, directory: &Path, options: OpenOptions) -> WalletHandle {
    let directory = WalletDirectory::new(directory.to_owned(), rig.network, KdfParams::lightest());
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
        destination: Address::from_script(&foreign(3), rig.network.bitcoin()).expect("address"),
        fees: None,
        inputs: None,
        max_fee: None,
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
    // The snapshot shows it from the start; what the server said is written down a moment after it was said.
    let mut looks = 0;
    eventually("written down as sent", || {
        looks += 1;
        let image = rig.dir.path().join(format!("look-{looks}"));
        copy(&sent, &image);
        own_state(&rig, &image, txid) == OwnTxState::Broadcast
    })
    .await;
    wallet.close().await;
}

/// What the files of a wallet that nobody has open say of a transaction of ours.
fn own_state(rig: &Rig, directory: &Path, txid: Txid) -> OwnTxState {
    let directory = WalletDirectory::new(directory.to_owned(), rig.network, KdfParams::lightest());
    let (name, password) = ("test.jmdat".parse().expect("name"), "correct horse".into());
    let keys = directory.expect("opens").open(&name, &password).expect("nobody has it open");
    let store = store::open(keys.store_paths().clone(), keys.dek()).expect("store opens");
    store.facts().own_txs[&txid].state
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

/// What was acknowledged at some moment.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    issued: HashSet<Address>,
    /// Commitments: coin, index and hash.
    used: Vec<(OutPoint, u8, [u8; 32])>,
    /// Rounds: their coins, and what was signed in them.
    rounds: BTreeMap<RoundId, (Vec<OutPoint>, Vec<Txid>)>,
    /// Rounds that were ended by us.
    ended: HashSet<RoundId>,
    /// What we promised to send.
    to_send: Vec<Txid>,
    /// What is kept for others to send.
    kept: Vec<Txid>,
}

/// A wallet whose directory is copied away after each acknowledged step.
struct Filmed<'a> {
    rig: &'a Rig,
    live: PathBuf,
    wallet: WalletHandle,
    known: Acknowledged,
    images: Vec<(PathBuf, Acknowledged)>,
}

impl Filmed<'_> {
    fn cut(&mut self) {
        let image = self.rig.dir.path().join(format!("image-{}", self.images.len()));
        copy(&self.live, &image);
        self.images.push((image, self.known.clone()));
    }

    async fn address(&mut self, mixdepth: u8, branch: Branch) -> Address {
        let address = self.wallet.issue_address(Mixdepth(mixdepth), branch).await.expect("issued");
        assert!(self.known.issued.insert(address.clone()), "issued twice");
        self.cut();
        address
    }

    async fn round(&mut self, coin: OutPoint) -> RoundId {
        let id = self.wallet.begin_round(begin(0)).await.expect("begun");
        assert!(
            self.known.rounds.insert(id, (Vec::new(), Vec::new())).is_none(),
            "number used twice"
        );
        self.cut();
        self.wallet.reserve(id, vec![coin]).await.expect("reserved");
        self.known.rounds.get_mut(&id).expect("known").0.push(coin);
        self.cut();
        id
    }

    /// A maker's round with its coin and both addresses, which are durable together with what a taker is told.
    async fn told(&mut self, coin: OutPoint, commitment: u8) -> (RoundId, [ScriptBuf; 2]) {
        let opened = self.wallet.open_round(lend(&[coin])).await;
        let OpenedRound { id, equal, change, .. } = opened.expect("opened");
        self.cut();
        let scripts = [equal.script_pubkey(), change.script_pubkey()];
        let told = self.wallet.reveal_round(id, [commitment; 32], SESSION, coin).await;
        told.expect("recorded");
        let new = self.known.rounds.insert(id, (vec![coin], Vec::new())).is_none();
        assert!(new, "number used twice");
        for address in [&equal, &change] {
            assert!(self.known.issued.insert(address.clone()), "issued twice");
        }
        self.cut();
        (id, scripts)
    }

    /// A transaction of a maker's round.
    async fn sign(&mut self, id: RoundId, tx: &Transaction) {
        sign(&self.wallet, id, tx, clock()).await.expect("signed");
        self.known.rounds.get_mut(&id).expect("known").1.push(tx.compute_txid());
        self.cut();
    }

    async fn record(&mut self, id: RoundId, event: RoundEvent) {
        self.wallet.record_round(id, event.clone()).await.expect("recorded");
        if let RoundEvent::CommitmentSent { outpoint: Some(coin), index, commitment } = event {
            self.known.used.push((coin, index, commitment));
        }
        self.cut();
    }
}

#[tokio::test]
async fn a_kill_at_any_step_of_a_round_reuses_no_coin_address_or_commitment() {
    let rig = Rig::new();
    let live = rig.dir.path().join("wallets");
    let wallet = open(&rig, &live, As::Fresh).await;
    until(&wallet, "caught up", |s| s.sync.complete).await;
    let mut film =
        Filmed { rig: &rig, live, wallet, known: Acknowledged::default(), images: Vec::new() };
    let mut funds = Vec::new();
    for salt in 1..=4 {
        let address = film.address(0, Branch::External).await;
        funds.push(payment(salt, &[out(&address, 100_000)]));
    }
    rig.chain.mine(&funds.iter().collect::<Vec<_>>());
    rig.chain.look().await;
    let coins: Vec<OutPoint> = funds.iter().map(|tx| at(tx, 0)).collect();
    until(&film.wallet, "funds", |s| s.coins.len() == 4).await;
    // Deposits count as looked at, so that no image takes them for news.
    film.wallet.set_frozen(Vec::new()).await.expect("nothing");

    // A maker's round whose taker vanishes, one that is signed, and two rounds as taker.
    let (lost, _) = film.told(coins[0], 1).await;
    let (maker, scripts) = film.told(coins[1], 2).await;
    for salt in [50, 52, 54] {
        let tx = coinjoin(coins[1], &scripts, salt);
        film.sign(maker, &tx).await;
    }
    film.wallet.end_round(maker, end("complete")).await.expect("ended");
    film.known.ended.insert(maker);
    film.cut();
    rig.chain.on_broadcast(OnBroadcast::Lost);
    for (coin, salt, send) in [(coins[2], 60, true), (coins[3], 70, false)] {
        let taker = film.round(coin).await;
        for index in 0..2 {
            let commitment = [salt + index; 32];
            let event = RoundEvent::CommitmentSent { outpoint: Some(coin), index, commitment };
            film.record(taker, event).await;
        }
        let change = film.address(0, Branch::Internal).await;
        let tx = complete(coin, &change, salt);
        let txid = tx.compute_txid();
        film.record(taker, RoundEvent::Shown { txid, sums: earning(-900) }).await;
        film.wallet.keep_transaction(taker, tx, earning(-900), send).await.expect("kept");
        film.known.rounds.get_mut(&taker).expect("known").1.push(txid);
        let promised = if send { &mut film.known.to_send } else { &mut film.known.kept };
        promised.push(txid);
        film.cut();
        if send {
            let sent = film.wallet.send_round_transaction(taker).await.expect("tried");
            assert_eq!(sent, RoundSent::Unknown);
            film.cut();
        }
    }
    film.wallet.end_round(lost, end("timeout")).await.expect("ended");
    film.known.ended.insert(lost);
    film.cut();
    let Filmed { wallet, mut images, .. } = film;
    wallet.close().await;
    assert!(images.len() > 25, "only {} images", images.len());

    // The last one both ways.
    let (last, known) = images.last().cloned().expect("images");
    let again = rig.dir.path().join("again");
    copy(&last, &again);
    images.push((again, known));
    for (number, (image, known)) in images.iter().enumerate() {
        // With `not-self` and without.
        check_image(&rig, image, known, &coins, number % 2 == 0).await;
    }
}

async fn check_image(
    rig: &Rig,
    image: &Path,
    known: &Acknowledged,
    coins: &[OutPoint],
    send_interrupted: bool,
) {
    let case = image.display();
    let before = rig.chain.broadcasts().len();
    let policy = WalletPolicy { send_interrupted, ..rig.policy.clone() };
    let policy = Arc::new(arc_swap::ArcSwap::from_pointee(policy));
    let wallet = open_with(rig, image, OpenOptions { policy, ..rig.options(As::Known) }).await;
    // Before anything is heard of the chain.
    for (id, (held, signed)) in &known.rounds {
        let now = round(&wallet, *id);
        let code = now.end.as_ref().expect("ended").code.clone();
        assert_eq!(code == "interrupted", !known.ended.contains(id), "{case}: {code}");
        assert_eq!(&now.coins, held, "{case}");
        assert_eq!(now.holds_coins(), !signed.is_empty(), "{case}");
        let mut kept: Vec<Txid> = now.signed.iter().map(|(txid, _, _)| *txid).collect();
        let mut expected = signed.clone();
        kept.sort_unstable();
        expected.sort_unstable();
        assert_eq!(kept, expected, "{case}");
    }
    assert_eq!(wallet.rounds().len(), known.rounds.len(), "{case}");
    let snapshot = until(&wallet, "caught up", |s| s.sync.complete).await;
    for coin in &snapshot.coins {
        let held = known
            .rounds
            .values()
            .any(|(coins, signed)| coins.contains(&coin.outpoint) && !signed.is_empty());
        assert_eq!(coin.locked, held, "{case}: {}", coin.outpoint);
    }
    // Nothing that was used is used again.
    let id = wallet.begin_round(begin(0)).await.expect("begun");
    assert!(known.rounds.keys().all(|old| *old < id), "{case}");
    for (coin, index, commitment) in &known.used {
        for (index, commitment) in [(*index, [0xee; 32]), (200, *commitment)] {
            let event = RoundEvent::CommitmentSent { outpoint: Some(*coin), index, commitment };
            let again = wallet.record_round(id, event).await;
            assert!(matches!(again, Err(RoundError::CommitmentUsed)), "{case}: {again:?}");
        }
    }
    for coin in coins {
        let signed =
            known.rounds.values().any(|(held, signed)| held.contains(coin) && !signed.is_empty());
        if signed {
            assert!(
                wallet.reserve(id, vec![*coin]).await.is_err(),
                "{case}: a signed coin is free"
            );
        }
    }
    for (mixdepth, branch) in [(0, Branch::Internal), (1, Branch::Internal), (0, Branch::External)]
    {
        let address = wallet.issue_address(Mixdepth(mixdepth), branch).await.expect("issued");
        assert!(!known.issued.contains(&address), "{case}: {address} again");
    }
    // What we promised to send is sent; what others were to send only if a person allows it. The server loses it all.
    let sent = || -> HashSet<Txid> {
        rig.chain.broadcasts()[before..].iter().map(|tx| tx.compute_txid()).collect()
    };
    let mut promised: HashSet<Txid> = known.to_send.iter().copied().collect();
    if send_interrupted {
        promised.extend(&known.kept);
    }
    eventually("sent again", || sent().is_superset(&promised)).await;
    assert!(sent().is_subset(&promised), "{case}");
    wallet.close().await;
}
