//! One wallet at a time: create, recover, unlock, switch, lock (`spec/api.md` 3.2, 4, 6.5 to 6.8).
//!
//! Each runs in a task of its own, under one mutex: a client that goes away in the middle leaves no
//! half-opened wallet behind.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use joinery_wallet::chain::ChainSource;
use joinery_wallet::directory::{
    ChangePasswordError, CreateError, OpenError, OpenedKeys, WalletName,
};
use joinery_wallet::service::{
    OpenOptions, PRUNE_ABOVE, ServiceError, SessionMode, WalletEvent, WalletHandle,
};
use joinery_wallet::store::StoreError;
use joinery_wallet::types::WalletType;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::app::{AppState, LoadedWallet};
use crate::auth::TokenPair;
use crate::consent::{Approval, Asked};
use crate::dto::transaction::tx_details;
use crate::error::ApiError;
use crate::glance::TransactionGlance;
use crate::hub::{Hub, News};

/// What create and recover ask for.
pub(crate) struct NewWallet {
    pub(crate) name: WalletName,
    pub(crate) password: SecretString,
    pub(crate) wallet_type: WalletType,
    pub(crate) extension: Option<SecretString>,
    /// The words of an existing seed.
    pub(crate) phrase: Option<SecretString>,
    /// Smallest scan window of an existing seed.
    pub(crate) scan_range: Option<u32>,
}

/// A wallet that was made, and the login to it.
pub(crate) struct Made {
    pub(crate) tokens: TokenPair,
    pub(crate) phrase: SecretString,
}

/// Runs a future to its end whatever becomes of the caller.
async fn detached<T: Send + 'static>(
    app: &AppState,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    app.tasks.spawn(work.in_current_span()).await.unwrap_or(Err(ApiError::Internal("panic")))
}

/// Runs blocking work (key derivation, files) off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or(Err(ApiError::Internal("panic")))
}

/// 401 for a wrong password.
fn right(matches: bool) -> Result<(), ApiError> {
    if matches { Ok(()) } else { Err(ApiError::InvalidCredentials) }
}

pub(crate) fn open_wallet(
    keys: OpenedKeys,
    options: OpenOptions,
) -> Result<(WalletHandle, broadcast::Receiver<WalletEvent>), ApiError> {
    let store =
        joinery_wallet::store::open(keys.store_paths().clone(), keys.dek()).map_err(|error| {
            match error {
                StoreError::InUse { .. } => ApiError::LockExists,
                error => ApiError::storage(&error),
            }
        })?;
    let handle = WalletHandle::open(keys, store, options)?;
    let events = handle.events();
    Ok((handle, events))
}

impl AppState {
    pub(crate) fn options(&self, mode: SessionMode) -> OpenOptions {
        OpenOptions {
            policy: self.settings.policy(),
            chain: Arc::clone(&self.chain) as Arc<dyn ChainSource>,
            min_gap: None,
            fresh: false,
            recovered: false,
            prune_above: PRUNE_ABOVE,
            mode,
        }
    }

    fn may_create(&self) -> Result<(), ApiError> {
        if self.is_stopping() {
            return Err(ApiError::BackendNotReady("shutting_down"));
        }
        match self.wallet.load().as_ref() {
            Some(_) => Err(ApiError::WalletAlreadyUnlocked),
            None => Ok(()),
        }
    }

    /// 401 while a wallet is loaded: asked before the body is even looked at.
    pub(crate) fn check_none_loaded(&self) -> Result<(), ApiError> {
        self.may_create()
    }

    /// Makes a wallet, with a new seed or from given words, and loads it. Durable when this returns; the
    /// first sync goes on in the background.
    pub(crate) async fn make_wallet(self: &Arc<Self>, new: NewWallet) -> Result<Made, ApiError> {
        let app = Arc::clone(self);
        detached(self, async move {
            let _turn = app.lifecycle.lock().await;
            app.may_create()?;
            let directory = app.directory.clone();
            let options = OpenOptions {
                min_gap: new.scan_range,
                fresh: new.phrase.is_none(),
                recovered: new.phrase.is_some(),
                ..app.options(SessionMode::Full)
            };
            let (handle, events, phrase) = blocking(move || {
                let extension = new.extension.as_ref().map(ExposeSecret::expose_secret);
                let keys = match &new.phrase {
                    None => directory.create(&new.name, &new.password, new.wallet_type, extension),
                    Some(phrase) => directory.recover(
                        &new.name,
                        &new.password,
                        new.wallet_type,
                        phrase.expose_secret(),
                        extension,
                    ),
                }?;
                let phrase = keys.phrase();
                let (handle, events) = open_wallet(keys, options)?;
                Ok((handle, events, phrase))
            })
            .await?;
            let tokens = app.load(handle, events).await;
            Ok(Made { tokens, phrase })
        })
        .await
    }

    /// Unlocks a wallet: the loaded one again, or another one instead of it. `from` is shown at the box when the
    /// unlock has to be approved there.
    pub(crate) async fn unlock_wallet(
        self: &Arc<Self>,
        name: WalletName,
        password: SecretString,
        from: Option<IpAddr>,
    ) -> Result<TokenPair, ApiError> {
        let app = Arc::clone(self);
        detached(self, async move {
            if !app.consent.needed_for_unlock() {
                return app.guess(app.enter(name, password, None)).await;
            }
            // The person is only asked about somebody who knows the password. Nothing of the wallet is kept in
            // memory while the box waits, and nothing is held: it can be locked.
            app.guess(app.check_password(name.clone(), password.clone())).await?;
            let asked = Asked::Unlock { wallet: name.as_str().to_owned() };
            let approval = app.consent.ask(asked, from).await?;
            app.enter(name, password, Some(approval)).await
        })
        .await
    }

    /// Runs something that tries a password, slowed down after wrong ones.
    async fn guess<T>(
        &self,
        attempted: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let attempt = self.throttle.attempt().await?;
        let outcome = attempted.await;
        match &outcome {
            Ok(_) => attempt.succeeded(),
            Err(ApiError::InvalidCredentials) => attempt.failed(),
            Err(_) => {}
        }
        outcome
    }

    /// Whether an unlock with this password would work, as far as the password goes.
    async fn check_password(
        &self,
        name: WalletName,
        password: SecretString,
    ) -> Result<(), ApiError> {
        let _turn = self.lifecycle.lock().await;
        if let Some(wallet) = self.loaded_as(&name) {
            return right(wallet.handle.verify_password(password).await?);
        }
        let directory = self.directory.clone();
        blocking(move || {
            directory.open(&name, &password)?;
            Ok(())
        })
        .await
    }

    /// The loaded wallet if it has this name.
    fn loaded_as(&self, name: &WalletName) -> Option<Arc<LoadedWallet>> {
        self.wallet.load_full().filter(|wallet| wallet.handle.name() == name.as_str())
    }

    async fn enter(
        &self,
        name: WalletName,
        password: SecretString,
        approval: Option<Approval>,
    ) -> Result<TokenPair, ApiError> {
        let _turn = self.lifecycle.lock().await;
        if self.is_stopping() {
            return Err(ApiError::BackendNotReady("shutting_down"));
        }
        let still_good = || approval.as_ref().map_or(Ok(()), |it| self.consent.still_good(it));
        still_good()?;
        if let Some(wallet) = self.loaded_as(&name) {
            right(wallet.handle.unlock(password).await?)?;
            still_good()?;
            return Ok(self.tokens.login());
        }
        let directory = self.directory.clone();
        let options = self.options(SessionMode::Full);
        // Up to here nothing of the loaded wallet is touched, so that an error leaves it as it is.
        let (handle, events) = blocking(move || {
            let keys = directory.open(&name, &password)?;
            drop(password);
            open_wallet(keys, options)
        })
        .await?;
        if let Err(refusal) = still_good() {
            handle.close().await;
            return Err(refusal.into());
        }
        Ok(self.load(handle, events).await)
    }

    /// The button of the box was held: refuses what waits for it and stops every role, at once.
    pub fn refuse_and_stop(&self) {
        self.consent.hold();
        self.activity.stop_any();
    }

    /// The button of the box was held: refuses what waits for it, stops every role and locks the wallet.
    pub async fn lock_at_the_box(self: &Arc<Self>) {
        self.refuse_and_stop();
        let app = Arc::clone(self);
        let outcome = detached(self, async move {
            let _turn = app.lifecycle.lock().await;
            if app.wallet.load().is_some() {
                app.unload(None).await;
            }
            app.forget_resume().await;
            Ok(())
        });
        if outcome.await.is_err() {
            tracing::error!("the wallet could not be locked at the box");
        }
    }

    /// Locks the loaded wallet if it is this one. False when none was loaded; the token has been checked
    /// by the caller, but another caller may have locked in the meantime.
    pub(crate) async fn lock_wallet(self: &Arc<Self>, name: String) -> Result<bool, ApiError> {
        let app = Arc::clone(self);
        detached(self, async move {
            let _turn = app.lifecycle.lock().await;
            if app.wallet.load().is_none() {
                return Ok(false);
            }
            app.loaded(&name)?;
            app.unload(None).await;
            app.forget_resume().await;
            Ok(true)
        })
        .await
    }

    /// Gives the loaded wallet another password and ends all tokens. Guessing the current one is slowed down
    /// as at an unlock: a token may be stolen.
    pub(crate) async fn change_password(
        self: &Arc<Self>,
        name: String,
        current: SecretString,
        new: SecretString,
    ) -> Result<TokenPair, ApiError> {
        let app = Arc::clone(self);
        detached(self, async move {
            let attempt = app.throttle.attempt().await?;
            let _turn = app.lifecycle.lock().await;
            let wallet = app.loaded(&name)?;
            let outcome = wallet.handle.change_password(current, new).await;
            match &outcome {
                Ok(()) | Err(ChangePasswordError::NotDurable(_)) => attempt.succeeded(),
                Err(ChangePasswordError::WrongPassword) => attempt.failed(),
                Err(_) => {}
            }
            if matches!(outcome, Ok(()) | Err(ChangePasswordError::NotDurable(_))) {
                let epoch = app.tokens.reset(Some(&name));
                app.hub.publish(News::KeysReset(epoch));
            }
            if matches!(outcome, Ok(()) | Err(ChangePasswordError::NotDurable(_))) {
                app.keep_new_password(&wallet).await;
            }
            outcome?;
            tracing::info!(wallet = name, "password changed");
            Ok(app.tokens.login())
        })
        .await
    }

    /// Puts a wallet into place that somebody opened with its password, and logs that one in.
    async fn load(
        &self,
        handle: WalletHandle,
        events: broadcast::Receiver<WalletEvent>,
    ) -> TokenPair {
        self.put_in_place(handle, events).await;
        // That person decides what runs.
        self.forget_resume().await;
        self.tokens.login()
    }

    /// Puts a wallet into place, out of which the one before it is taken first.
    pub(crate) async fn put_in_place(
        &self,
        handle: WalletHandle,
        events: broadcast::Receiver<WalletEvent>,
    ) {
        let wallet = Arc::new(LoadedWallet {
            loading: rand::random(),
            handle,
            newest: Mutex::default(),
            closed: CancellationToken::new(),
            drained: CancellationToken::new(),
        });
        self.unload(Some(&wallet)).await;
        // Only now: what the new wallet says is not for sockets that were let in for the old one.
        let network = self.directory.network().bitcoin();
        self.tasks.spawn(pump(events, Arc::clone(&self.hub), network, wallet));
        // Without its name: logs are shown to people who help.
        tracing::info!("wallet opened");
    }

    /// Takes the loaded wallet out, perhaps for another one: ends roles, kills tokens, closes the wallet,
    /// lets its last events out, and only then makes the websockets ask for tokens again.
    pub(crate) async fn unload(&self, next: Option<&Arc<LoadedWallet>>) {
        let name = next.map(|wallet| wallet.handle.name());
        let epoch = self.tokens.reset(name);
        let last = self.wallet.swap(next.cloned());
        self.activity.stop_any();
        self.board.clear();
        self.consent.wallet_closed();
        self.sends.clear();
        if let Some(last) = last {
            last.handle.clone().close().await;
            last.closed.cancel();
            last.drained.cancelled().await;
            tracing::info!("wallet closed");
        }
        self.hub.publish(News::KeysReset(epoch));
    }
}

/// Turns what a wallet says into news, until the wallet is closed and everything is said.
async fn pump(
    mut events: broadcast::Receiver<WalletEvent>,
    hub: Arc<Hub>,
    network: joinery_wallet::bitcoin::Network,
    wallet: Arc<LoadedWallet>,
) {
    let _drained = wallet.drained.clone().drop_guard();
    let say = |event| {
        if let WalletEvent::Transaction { transaction, confirmations, effect } = event {
            let txid = transaction.compute_txid();
            wallet.note_transaction(TransactionGlance { txid, confirmations, effect });
            let details = tx_details(&transaction, network, Some(confirmations), None);
            hub.publish_json(&serde_json::json!({"txid": details.txid, "txdetails": details}));
        }
    };
    loop {
        tokio::select! {
            () = wallet.closed.cancelled() => break,
            event = events.recv() => match event {
                Ok(event) => say(event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "wallet events came faster than they could be told");
                }
                Err(RecvError::Closed) => break,
            }
        }
    }
    loop {
        match events.try_recv() {
            Ok(event) => say(event),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::AlreadyExists => Self::WalletAlreadyExists,
            CreateError::InUse => Self::LockExists,
            // Not the error's own text: it may quote a word of somebody's seed.
            CreateError::BadPhrase(_) => Self::invalid_because(
                "seedphrase",
                "bad_seedphrase",
                "not a valid English BIP39 phrase",
            ),
            CreateError::ExtensionTooLong => Self::invalid("mnemonic_extension"),
            CreateError::EmptyPassword => Self::invalid("password"),
            error => Self::storage(&error),
        }
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotFound => Self::NoWallet("not_found"),
            OpenError::NotAWallet => Self::NoWallet("not_a_wallet"),
            OpenError::WrongNetwork { .. } => Self::NoWallet("wrong_network"),
            OpenError::Unsupported(error) => {
                tracing::warn!(%error, "wallet file cannot be opened");
                Self::NoWallet("unsupported")
            }
            OpenError::Damaged(what) => {
                tracing::error!(what, "wallet file is damaged");
                Self::NoWallet("damaged")
            }
            OpenError::InUse => Self::LockExists,
            OpenError::WrongPassword => Self::InvalidCredentials,
            error => Self::storage(&error),
        }
    }
}

impl From<ChangePasswordError> for ApiError {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::WrongPassword => Self::InvalidCredentials,
            ChangePasswordError::EmptyPassword => Self::invalid("new_password"),
            ChangePasswordError::KeptFile => Self::invalid_because(
                "walletname",
                "kept_wallet_file",
                "the wallet file is another program's and kept as it is; change its password there",
            ),
            ChangePasswordError::Closed => Self::NoWallet("locked_meanwhile"),
            ChangePasswordError::NotDurable(_) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the new password counts, but may be forgotten in a power cut"
                );
                Self::Internal("password_not_durable")
            }
            error => Self::storage(&error),
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Closed => Self::NoWallet("locked_meanwhile"),
            ServiceError::NoSuchMixdepth(_) => Self::invalid("mixdepth"),
            ServiceError::NoBonds => Self::invalid_because(
                "lockdate",
                "no_fidelity_bonds",
                "this kind of wallet has no timelocked addresses",
            ),
            ServiceError::NoSuchMonth(_) => Self::invalid("lockdate"),
            ServiceError::UnknownAddress => Self::invalid_because(
                "address",
                "unknown_address",
                "the address does not belong to this wallet",
            ),
            ServiceError::LabelTooLong(_) => Self::invalid("label"),
            ServiceError::UnknownPath => Self::invalid("hd_path"),
            ServiceError::HeldByRound { .. } => Self::ActionNotAllowed,
            ServiceError::MakerOnly => Self::PasswordNeeded,
            ServiceError::Store(error) => Self::storage(&error),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "wallet call failed");
                Self::Internal("wallet_failed")
            }
        }
    }
}
