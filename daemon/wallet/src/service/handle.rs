//! The handle of an opened wallet: commands to its task, and the snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bdk_wallet::bitcoin::{Address, OutPoint};
use secrecy::SecretString;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::command::{Command, Reply};
use super::{DrawnRate, SendError, SendRequest, SentTransaction, ServiceError, WalletEvent, send};
use crate::chain::ChainSource;
use crate::directory::{ChangePasswordError, SealError, SealingKey};
use crate::policy::{TxFees, WalletPolicy};
use crate::snapshot::Snapshot;
use crate::types::{Branch, Mixdepth};

/// Events that a slow listener may be behind before it loses some.
pub(super) const EVENT_QUEUE: usize = 256;

/// Transactions in the graph above which finished ones are set aside when the store is compacted
/// (`spec/wallet.md` 13.9). A coinjoin in the graph takes some 7 kB of memory, one that was set aside 0.6 kB.
pub const PRUNE_ABOVE: usize = 100;

/// What a handle and the wallet task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) events: broadcast::Sender<WalletEvent>,
    pub(super) chain: Arc<dyn ChainSource>,
    pub(super) policy: Arc<ArcSwap<WalletPolicy>>,
    /// The session is one for the maker only.
    pub(super) maker_only: Arc<AtomicBool>,
}

/// What an opened wallet may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionMode {
    /// Everything.
    #[default]
    Full,
    /// Rounds of the maker, addresses, and looking: it was opened without the password. Payments, rounds of the taker,
    /// the seed, signed messages, labels, freezing and bonds are refused by the wallet itself, and no key of a coin is
    /// given to anybody, until [`WalletHandle::unlock`].
    MakerOnly,
}

/// How a wallet is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Settings as they are at any moment; the gap limit is captured when the wallet is opened.
    pub policy: Arc<ArcSwap<WalletPolicy>>,
    /// The chain backend.
    pub chain: Arc<dyn ChainSource>,
    /// Smallest scan window of the first scan: `scan_range` of a recover request.
    pub min_gap: Option<u32>,
    /// The wallet was created a moment ago: there is nothing to discover.
    pub fresh: bool,
    /// The wallet was recovered from its words a moment ago: everything is to discover.
    pub recovered: bool,
    /// Transactions in the graph above which finished ones are set aside; [`PRUNE_ABOVE`] but for tests.
    pub prune_above: usize,
    /// What the wallet may be used for.
    pub mode: SessionMode,
}

/// An opened wallet. Clones are the same wallet; after [`WalletHandle::close`] on any of them, or after
/// the wallet task died, every call answers [`ServiceError::Closed`]. Readers use
/// [`WalletHandle::snapshot`], which never waits.
#[derive(Debug, Clone)]
pub struct WalletHandle {
    pub(super) shared: Arc<Shared>,
}

impl WalletHandle {
    /// The wallet as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Events from now on. A listener that falls behind by 256 events misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<WalletEvent> {
        self.shared.events.subscribe()
    }

    /// File name of the wallet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The chain backend that the wallet uses.
    #[must_use]
    pub fn chain(&self) -> &Arc<dyn ChainSource> {
        &self.shared.chain
    }

    pub(super) async fn ask<T, E: From<ServiceError>>(
        &self,
        command: impl FnOnce(Reply<T, E>) -> Command,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(command(reply)).map_err(|_| E::from(ServiceError::Closed))?;
        answer.await.map_err(|_| E::from(ServiceError::Closed))?
    }

    /// Hands out the next address of a branch. The index is durable and its script watched before this
    /// returns; no address is ever handed out twice.
    ///
    /// # Errors
    /// [`ServiceError::NoSuchMixdepth`], [`ServiceError::Exhausted`], [`ServiceError::Store`],
    /// [`ServiceError::Closed`].
    pub async fn issue_address(
        &self,
        mixdepth: Mixdepth,
        branch: Branch,
    ) -> Result<Address, ServiceError> {
        self.ask(|reply| Command::IssueAddress { mixdepth, branch, reply }).await
    }

    /// The timelocked address of a month (0 is January 2020); the same each time. Durable and watched
    /// before this returns.
    ///
    /// # Errors
    /// [`ServiceError::NoBonds`], [`ServiceError::NoSuchMonth`], [`ServiceError::Store`],
    /// [`ServiceError::Closed`].
    pub async fn bond_address(&self, timenumber: u16) -> Result<Address, ServiceError> {
        self.ask(|reply| Command::BondAddress { timenumber, reply }).await
    }

    /// Sets freeze flags, all or none, durable before this returns. Unknown coins are remembered.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Closed`].
    pub async fn set_frozen(&self, changes: Vec<(OutPoint, bool)>) -> Result<(), ServiceError> {
        self.ask(|reply| Command::SetFrozen { changes, reply }).await
    }

    /// Labels an address of the wallet; an empty label removes it.
    ///
    /// # Errors
    /// [`ServiceError::UnknownAddress`], [`ServiceError::LabelTooLong`], [`ServiceError::Store`],
    /// [`ServiceError::Closed`].
    pub async fn set_label(&self, address: &str, label: &str) -> Result<(), ServiceError> {
        let (address, label) = (address.to_owned(), label.to_owned());
        self.ask(|reply| Command::SetLabel { address, label, reply }).await
    }

    /// Pays (`spec/wallet.md` 8.3). Runs to its end even if the caller goes away: a request that was
    /// dropped can neither leave coins locked nor a payment half made. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// See [`SendError`]; after [`SendError::Uncertain`] the payment stands and is sent again later,
    /// after any other error nothing was paid.
    pub async fn direct_send(&self, request: SendRequest) -> Result<SentTransaction, SendError> {
        let task = tokio::spawn(send::run(self.clone(), request));
        // The join fails only if the runtime ends or the task panics; its lock guard has reported then.
        task.await.unwrap_or(Err(SendError::Closed))
    }

    /// Draws a fee rate as a payment would: by the policy, or by a rule of this call only, with its random factor.
    ///
    /// # Errors
    /// [`SendError::Chain`], [`SendError::AbsurdFee`].
    pub async fn fee_rate(&self, fees: Option<TxFees>) -> Result<DrawnRate, SendError> {
        send::draw_rate(self, fees).await
    }

    /// Signs a message with the key of a path (`spec/wallet.md` 11): base64 signature and the address.
    ///
    /// # Errors
    /// [`ServiceError::UnknownPath`], [`ServiceError::Closed`].
    pub async fn sign_message(
        &self,
        path: &str,
        message: &str,
    ) -> Result<(String, Address), ServiceError> {
        let (path, message) = (path.to_owned(), message.to_owned());
        self.ask(|reply| Command::SignMessage { path, message, reply }).await
    }

    /// Asks again for every script, with a window of at least `gap` addresses beyond the last used one
    /// . Joins a scan that runs already. When this returns, the snapshot says that it scans.
    ///
    /// # Errors
    /// [`ServiceError::Closed`].
    pub async fn rescan(&self, gap: u32) -> Result<(), ServiceError> {
        self.ask(|reply| Command::Rescan { gap, reply }).await
    }

    /// The seed words and the extension.
    ///
    /// # Errors
    /// [`ServiceError::Closed`].
    pub async fn seed(&self) -> Result<(SecretString, Option<SecretString>), ServiceError> {
        self.ask(|reply| Command::Seed { reply }).await
    }

    /// Whether this is the password of the wallet file. Costs one key derivation on its own thread.
    ///
    /// # Errors
    /// [`ServiceError::Closed`].
    pub async fn verify_password(&self, password: SecretString) -> Result<bool, ServiceError> {
        self.ask(|reply| Command::VerifyPassword { password, reply }).await
    }

    /// What the wallet may be used for now.
    #[must_use]
    pub fn mode(&self) -> SessionMode {
        if self.shared.maker_only.load(Ordering::Acquire) {
            SessionMode::MakerOnly
        } else {
            SessionMode::Full
        }
    }

    /// Whether this is the wallet's password; if so, the wallet may be used for everything from now on. Costs one key
    /// derivation on a thread of its own, and the wallet goes on meanwhile.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Closed`].
    pub async fn unlock(&self, password: SecretString) -> Result<bool, ServiceError> {
        let right = self.verify_password(password).await?;
        if right && self.mode() == SessionMode::MakerOnly {
            self.ask(|reply| Command::AllowEverything { reply }).await?;
        }
        Ok(right)
    }

    /// Lets the machine open this wallet without its password; see [`OpenedKeys::seal`].
    ///
    /// # Errors
    /// See [`SealError`].
    ///
    /// [`OpenedKeys::seal`]: crate::directory::OpenedKeys::seal
    pub async fn seal(&self, key: Arc<SealingKey>, note: Vec<u8>) -> Result<(), SealError> {
        self.ask(|reply| Command::Seal { key, note, reply }).await
    }

    /// Gives the wallet file another password; see [`OpenedKeys::change_password`]. Costs two key
    /// derivations on a thread of its own, and the wallet goes on meanwhile.
    ///
    /// # Errors
    /// See [`ChangePasswordError`].
    ///
    /// [`OpenedKeys::change_password`]: crate::directory::OpenedKeys::change_password
    pub async fn change_password(
        &self,
        current: SecretString,
        new: SecretString,
    ) -> Result<(), ChangePasswordError> {
        self.ask(|reply| Command::ChangePassword { current, new, reply }).await
    }

    /// Locks the wallet: stores everything, erases the keys, releases the locks on its files. When this
    /// returns the wallet can be opened again. Closing a closed wallet does nothing.
    pub async fn close(self) {
        let (reply, done) = oneshot::channel();
        if self.shared.commands.send(Command::Close { reply }).is_ok() {
            // An error means that the task has ended already.
            let _ = done.await;
        }
    }
}

impl From<ServiceError> for SendError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Store(error) => Self::Store(error),
            ServiceError::NoSuchMixdepth(mixdepth) => Self::NoSuchMixdepth(mixdepth),
            ServiceError::KeyCheck(what) => Self::SigningCheck(what),
            ServiceError::MakerOnly => Self::MakerOnly,
            _ => Self::Closed,
        }
    }
}
