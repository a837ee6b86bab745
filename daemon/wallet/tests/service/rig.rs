//! A wallet, a chain and a store for one test.

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::constants::genesis_block;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{
    Address, Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    transaction::Version,
};
use joinery_wallet::directory::{OpenedKeys, WalletDirectory, WalletName};
use joinery_wallet::file::KdfParams;
use joinery_wallet::policy::WalletPolicy;
use joinery_wallet::service::{OpenOptions, WalletEvent, WalletHandle};
use joinery_wallet::snapshot::{Coin, Snapshot};
use joinery_wallet::store::{MemoryStore, Store};
use joinery_wallet::types::{Mixdepth, Network, WalletType};
use secrecy::SecretString;
use tokio::sync::broadcast;

use crate::fake_chain::FakeChain;

/// The words of all test vectors.
pub(crate) const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                         abandon abandon about";

/// How long a condition may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const M0: Mixdepth = Mixdepth(0);

/// What one test works with.
pub(crate) struct Rig {
    pub chain: Arc<FakeChain>,
    pub store: MemoryStore,
    pub policy: WalletPolicy,
    pub network: Network,
    wallet_type: WalletType,
    directory: Arc<WalletDirectory>,
    pub dir: tempfile::TempDir,
}

fn name() -> WalletName {
    "test.jmdat".parse().expect("valid name")
}

pub(crate) fn password() -> SecretString {
    SecretString::from("correct horse")
}

/// How a wallet is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Fresh,
    Recovered,
    Known,
}

impl Rig {
    /// Regtest with 110 blocks.
    pub(crate) fn new() -> Self {
        Self::on(Network::Regtest, WalletType::FidelityBond, 1..=110)
    }

    pub(crate) fn on(
        network: Network,
        wallet_type: WalletType,
        heights: impl IntoIterator<Item = u32>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let directory =
            WalletDirectory::new(dir.path().join("wallets"), network, KdfParams::lightest())
                .expect("new directory");
        let genesis = genesis_block(network.bitcoin()).block_hash();
        let rig = Self {
            chain: FakeChain::new(genesis, heights),
            store: MemoryStore::new(),
            policy: WalletPolicy { tx_fees_factor: 0.0, ..WalletPolicy::default() },
            network,
            wallet_type,
            directory: Arc::new(directory),
            dir,
        };
        let keys = rig.directory.recover(&name(), &password(), wallet_type, WORDS, None);
        drop(keys.expect("recovered"));
        rig
    }

    pub(crate) fn keys(&self) -> OpenedKeys {
        // A wallet that was dropped without being closed lets go of its files a moment later.
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            match self.directory.open(&name(), &password()) {
                Ok(keys) => return keys,
                Err(error) if std::time::Instant::now() > end => panic!("{error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    pub(crate) fn options(&self, how: As) -> OpenOptions {
        OpenOptions {
            policy: Arc::new(arc_swap::ArcSwap::from_pointee(self.policy.clone())),
            chain: self.chain.clone(),
            min_gap: None,
            fresh: how == As::Fresh,
            recovered: how == As::Recovered,
            prune_above: joinery_wallet::service::PRUNE_ABOVE,
            mode: joinery_wallet::service::SessionMode::Full,
        }
    }

    pub(crate) async fn open_with(
        &self,
        store: Box<dyn Store>,
        options: OpenOptions,
    ) -> WalletHandle {
        let keys = self.keys();
        tokio::task::spawn_blocking(move || WalletHandle::open(keys, store, options))
            .await
            .expect("opening does not panic")
            .expect("opens")
    }

    /// Opens over the data that the last wallet left.
    pub(crate) async fn open(&self, how: As) -> WalletHandle {
        self.open_with(Box::new(self.store.reopen()), self.options(how)).await
    }

    /// Opens, and waits until the wallet has caught up with the chain.
    pub(crate) async fn ready(&self, how: As) -> WalletHandle {
        let wallet = self.open(how).await;
        until(&wallet, "caught up", |snapshot| snapshot.sync.complete).await;
        wallet
    }

    pub(crate) fn wallet_type(&self) -> WalletType {
        self.wallet_type
    }
}

/// Waits for a condition of the snapshot.
pub(crate) async fn until(
    wallet: &WalletHandle,
    what: &str,
    condition: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let mut events = wallet.events();
    let wait = async {
        loop {
            let snapshot = wallet.snapshot();
            if condition(&snapshot) {
                return snapshot;
            }
            if matches!(events.recv().await, Err(broadcast::error::RecvError::Closed)) {
                panic!("the wallet ended while waiting for: {what}");
            }
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(snapshot) => snapshot,
        Err(_) => panic!("not within {PATIENCE:?}: {what}\n{:#?}", wallet.snapshot().coins),
    }
}

/// Waits for a condition that no event of the wallet announces.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Transaction events that have arrived so far.
pub(crate) fn told(events: &mut broadcast::Receiver<WalletEvent>) -> Vec<(Txid, u32)> {
    let mut out = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let WalletEvent::Transaction { transaction, confirmations, .. } = event {
            out.push((transaction.compute_txid(), confirmations));
        }
    }
    out
}

/// Somebody else's payment. `salt` makes it another one.
pub(crate) fn payment(salt: u8, outputs: &[(ScriptBuf, u64)]) -> Transaction {
    spend(&[OutPoint { txid: Txid::from_byte_array([salt; 32]), vout: 0 }], outputs)
}

/// A transaction of given inputs and outputs, without signatures.
pub(crate) fn spend(inputs: &[OutPoint], outputs: &[(ScriptBuf, u64)]) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs
            .iter()
            .map(|previous_output| TxIn {
                previous_output: *previous_output,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect(),
        output: outputs
            .iter()
            .map(|(script, value)| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: script.clone(),
            })
            .collect(),
    }
}

pub(crate) fn out(address: &Address, value: u64) -> (ScriptBuf, u64) {
    (address.script_pubkey(), value)
}

/// Somebody else's script.
pub(crate) fn foreign(salt: u8) -> ScriptBuf {
    let mut bytes = vec![0, 20];
    bytes.extend([salt; 20]);
    ScriptBuf::from_bytes(bytes)
}

pub(crate) fn coin(snapshot: &Snapshot, outpoint: OutPoint) -> Option<&Coin> {
    snapshot.coins.iter().find(|coin| coin.outpoint == outpoint)
}

pub(crate) fn at(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint { txid: tx.compute_txid(), vout }
}
