//! A maker that goes on after a power cut with one press of the button and no password (`[board] resume`).
//!
//! While a maker runs, the key of its wallet's file and the maker's terms are kept beside the wallet, sealed with a key
//! that the service manager hands to the daemon and that is on no disk in the clear. Whatever ends the maker but the end
//! of the daemon removes them: a stop, a lock, a hold of the button, another wallet, an error. What is found at a start
//! was therefore running when the power went, and the person at the box is asked. The wallet then opens for the maker
//! only ([`SessionMode::MakerOnly`]) and nobody is logged in; an unlock with the password opens it for everything.

use std::sync::Arc;

use joinery_wallet::directory::{OpenError, Sealed, SealingKey};
use joinery_wallet::service::{SessionMode, WalletEvent};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::app::{AppState, LoadedWallet};
use crate::calls::MakerStart;
use crate::consent::{Approval, Asked, Refusal};
use crate::error::ApiError;
use crate::lifecycle::{blocking, open_wallet};

/// What is kept for the next start. One at a time works with the file.
#[derive(Debug)]
pub(crate) struct Resume {
    /// `None`: nothing is ever kept.
    key: Option<Arc<SealingKey>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Counts makers and removals, so that what belongs to an earlier maker is told from what belongs to this one.
    run: u64,
    /// What was sealed for the maker of this run.
    note: Option<Vec<u8>>,
}

impl Resume {
    pub(crate) fn new(key: Option<Arc<SealingKey>>) -> Self {
        Self { key, kept: Mutex::default() }
    }
}

impl AppState {
    /// Keeps what a maker that starts needs for going on after a power cut, for as long as it runs. Does not wait.
    pub(crate) fn keep_for_resume(
        self: &Arc<Self>,
        wallet: &Arc<LoadedWallet>,
        terms: &Value,
        stopped: CancellationToken,
    ) {
        let Some(key) = self.resume.key.clone() else { return };
        let (app, wallet, note) = (Arc::clone(self), Arc::clone(wallet), terms.to_string());
        let keeper = async move {
            let run = {
                let mut kept = app.resume.kept.lock().await;
                kept.run += 1;
                kept.note = None;
                let note = note.into_bytes();
                if !stopped.is_cancelled() {
                    match wallet.handle.seal(key, note.clone()).await {
                        Ok(()) => kept.note = Some(note),
                        Err(error) => tracing::warn!(
                            %error,
                            "after a power cut this maker will need the password"
                        ),
                    }
                }
                kept.run
            };
            stopped.cancelled().await;
            if app.is_stopping() {
                return;
            }
            let mut kept = app.resume.kept.lock().await;
            if kept.run == run {
                app.remove_kept(&mut kept).await;
            }
        };
        self.tasks.spawn(keeper.in_current_span());
    }

    /// Whatever ran is not to go on by itself. Durable when this returns, unless the disk fails, which is logged: a lock
    /// or a stop is not refused for that, and nothing goes on without a press.
    pub(crate) async fn forget_resume(&self) {
        if self.resume.key.is_none() {
            return;
        }
        let mut kept = self.resume.kept.lock().await;
        self.remove_kept(&mut kept).await;
    }

    async fn remove_kept(&self, kept: &mut Kept) {
        kept.run += 1;
        kept.note = None;
        let directory = self.directory.clone();
        let removed =
            blocking(move || directory.forget_sealed().map_err(|error| ApiError::storage(&error)));
        if let Err(error) = removed.await {
            tracing::error!(%error, "what was kept for a power cut cannot be removed: after the next one the box asks again");
        }
    }

    /// The password was changed: what is kept opens the old file only.
    pub(crate) async fn keep_new_password(&self, wallet: &LoadedWallet) {
        let Some(key) = self.resume.key.clone() else { return };
        let mut kept = self.resume.kept.lock().await;
        let Some(note) = kept.note.clone() else { return };
        if let Err(error) = wallet.handle.seal(key, note).await {
            tracing::warn!(%error, "after a power cut this maker will need the password");
            self.remove_kept(&mut kept).await;
        }
    }

    /// If a maker ran when the power was cut, asks the person at the box whether it shall go on. Does not wait.
    pub fn resume_after_power_cut(self: &Arc<Self>) {
        let Some(key) = self.resume.key.clone() else { return };
        let app = Arc::clone(self);
        self.tasks.spawn(async move { app.resume(key).await });
    }

    async fn resume(self: Arc<Self>, key: Arc<SealingKey>) {
        let (directory, with) = (self.directory.clone(), Arc::clone(&key));
        let sealed = blocking(move || Ok(directory.sealed(&with))).await.ok().flatten();
        let sealed = sealed.and_then(|sealed| Some((MakerStart::restore(&sealed.note)?, sealed)));
        let Some((start, sealed)) = sealed else {
            // Nothing, or what cannot be used: made with another key, or damaged.
            self.forget_resume().await;
            return;
        };
        tracing::info!("a maker ran when the power was cut; a press of the button lets it go on");
        let asked = Asked::Resume { wallet: sealed.name.as_str().to_owned() };
        let approval = tokio::select! {
            approval = self.consent.ask_standing(asked) => approval,
            // By its password: that person decides what runs.
            () = self.some_wallet() => return,
        };
        let loaded = match approval {
            Ok(approval) => self.open_for_the_maker(sealed, key, &approval).await,
            Err(Refusal::Refused) => {
                tracing::info!("refused at the box: the maker does not go on");
                self.forget_resume().await;
                return;
            }
            // The daemon ends; it is asked again at the next start.
            Err(_) => return,
        };
        let Some((wallet, events, run)) = loaded else { return };
        self.start_when_ready(&wallet, &start, events, run).await;
    }

    /// Waits until a wallet is loaded.
    async fn some_wallet(&self) {
        let mut changes = self.changes();
        while self.wallet.load().is_none() {
            changes.next().await;
        }
    }

    async fn open_for_the_maker(
        self: &Arc<Self>,
        sealed: Sealed,
        key: Arc<SealingKey>,
        approval: &Approval,
    ) -> Option<(Arc<LoadedWallet>, broadcast::Receiver<WalletEvent>, u64)> {
        let _turn = self.lifecycle.lock().await;
        if self.is_stopping() || self.wallet.load().is_some() {
            return None;
        }
        let (directory, options) = (self.directory.clone(), self.options(SessionMode::MakerOnly));
        let opened = blocking(move || match directory.open_sealed(&sealed.name, &key) {
            Ok(keys) => open_wallet(keys, options),
            // Not that of a client: nobody has typed one.
            Err(OpenError::WrongPassword) => Err(ApiError::Storage("sealed_key_does_not_fit")),
            Err(error) => Err(error.into()),
        });
        let (handle, events) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, "the wallet does not open without its password");
                self.forget_resume().await;
                return None;
            }
        };
        if self.consent.still_good(approval).is_err() {
            handle.close().await;
            self.forget_resume().await;
            return None;
        }
        let run = self.resume.kept.lock().await.run;
        let news = handle.events();
        self.put_in_place(handle, events).await;
        let wallet = self.wallet.load_full()?;
        Some((wallet, news, run))
    }

    /// Starts the maker as soon as the wallet has caught up and has something to offer; gives up when the wallet is
    /// closed, somebody starts something else, or what was kept for the maker is removed.
    async fn start_when_ready(
        self: &Arc<Self>,
        wallet: &Arc<LoadedWallet>,
        start: &MakerStart,
        mut events: broadcast::Receiver<WalletEvent>,
        run: u64,
    ) {
        let mut told = false;
        loop {
            if self.resume.kept.lock().await.run != run {
                return;
            }
            if wallet.snapshot().sync.complete {
                match start.begin(self, wallet) {
                    Ok(()) => {
                        tracing::info!("the maker goes on");
                        return;
                    }
                    Err(error @ ApiError::ServiceAlreadyStarted) => {
                        tracing::info!(%error, "the maker does not go on");
                        return;
                    }
                    Err(error) if !told => {
                        tracing::warn!(%error, "the maker goes on when it can");
                        told = true;
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = wallet.closed.cancelled() => return,
                event = events.recv() => if matches!(event, Err(RecvError::Closed)) { return },
            }
        }
    }
}
