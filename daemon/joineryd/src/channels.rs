//! The message channels of one nick: the onion channel, and IRC where servers are configured. The order book watcher, a
//! taker, a maker and each commitment that is published have their own, with a nick that was never used before.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use joinery_net::irc::{self, IrcHandle, IrcSockets, IrcStatus};
use joinery_net::onion::{OnionConfig, OnionHandle, OnionStatus, Serving, spawn};
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_roles::channel::{Audience, ChannelConfig, ChannelTiming};
use joinery_roles::event::{ChannelEvent, Source};
use joinery_roles::irc_channel::{self, IrcConfig, IrcTiming};
use joinery_roles::routes::{Route, Routes};
use joinery_wallet::types::Network;
use tokio::sync::{mpsc, watch};

use crate::market::MarketConfig;

/// News that wait for whoever owns the channels.
const NEWS: usize = 256;

/// Why something was not said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotSaid(String);

impl NotSaid {
    fn because(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

/// The channels of one nick.
#[derive(Debug)]
pub(crate) struct Channels {
    onion: OnionHandle,
    irc: Option<IrcHandle>,
    /// Which channel each conversation takes; used only where there are two.
    routes: Mutex<Routes>,
}

impl Channels {
    /// Opens them under a new nick; `change` is for what the owner wants of the onion channel. News of all come out of
    /// one queue, and each is to be shown to [`Channels::heard`].
    ///
    /// # Errors
    /// When the machine gives no randomness, or we cannot listen where takers should reach us. That IRC cannot be used is
    /// none: directories are still there.
    pub(crate) fn open(
        config: &MarketConfig,
        purpose: &'static str,
        serving: Option<Serving>,
        change: impl FnOnce(&mut ChannelConfig),
    ) -> io::Result<(Self, mpsc::Receiver<ChannelEvent>)> {
        let regtest = config.network == Network::Regtest;
        let key = Arc::new(NickKey::new(draw_key()?));
        let mut channel = ChannelConfig::new(&config.jm_network, Arc::clone(&key));
        channel.directories.clone_from(&config.directories);
        channel.allow_plain = regtest;
        if regtest {
            channel.timing = ChannelTiming::regtest();
        }
        change(&mut channel);
        let (sender, news) = mpsc::channel(NEWS);
        let mut onion = OnionConfig::new(purpose);
        onion.proxy = Some(config.socks.0);
        onion.serving = serving;
        let onion = spawn(onion, channel, sender.clone()).map_err(io::Error::other)?;
        let irc = open_irc(config, purpose, key, sender);
        Ok((Self { onion, irc, routes: Mutex::default() }, news))
    }

    /// Our nick.
    pub(crate) const fn nick(&self) -> Nick {
        self.onion.nick()
    }

    /// How the onion channel does.
    pub(crate) fn onion_status(&self) -> watch::Receiver<OnionStatus> {
        self.onion.status()
    }

    /// How IRC does, where it is configured.
    pub(crate) fn irc_status(&self) -> Option<watch::Receiver<IrcStatus>> {
        self.irc.as_ref().map(IrcHandle::status)
    }

    /// Takes notice of where peers are.
    pub(crate) fn heard(&self, event: &ChannelEvent) {
        if self.irc.is_none() {
            return;
        }
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.event(event);
        if let ChannelEvent::Left { nick, .. } = event {
            routes.release(nick);
        }
    }

    /// Sends a private message on exactly one way; `answers`: where the message came from that this one answers.
    pub(crate) async fn send(
        &self,
        to: Nick,
        word: PrivateWord,
        payload: String,
        answers: Option<Source>,
    ) -> Result<(), NotSaid> {
        let route = self.irc.as_ref().and_then(|irc| {
            let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
            match routes.choose(&to, answers) {
                Some(Route::Irc(server)) => Some((irc, server)),
                _ => None,
            }
        });
        match route {
            Some((irc, server)) => {
                irc.send_private(server, to, word, payload).await.map_err(NotSaid::because)
            }
            None => {
                let prefer = answers.filter(|source| !matches!(source, Source::Irc(_)));
                self.onion.send_private(to, word, payload, prefer).await.map_err(NotSaid::because)
            }
        }
    }

    /// Sends a public message on one directory or IRC server, or on all that are up; to direct peers nothing is public.
    pub(crate) async fn announce(&self, text: String, on: Option<Source>) -> Result<(), NotSaid> {
        let (onion, irc) = match on {
            None => (Some(Audience::All), Some(irc_channel::Audience::All)),
            Some(Source::Directory(id)) => (Some(Audience::Directory(id)), None),
            Some(Source::Irc(server)) => (None, Some(irc_channel::Audience::Server(server))),
            Some(Source::Direct(_)) => (None, None),
        };
        if let Some((irc, to)) = self.irc.as_ref().zip(irc) {
            irc.announce(text.clone(), to).await.map_err(NotSaid::because)?;
        }
        match onion {
            Some(to) => self.onion.announce(text, to).await.map_err(NotSaid::because),
            None => Ok(()),
        }
    }

    /// Asks makers for their offers. False when the channel has ended.
    pub(crate) async fn ask_offers(&self, on: Source) -> bool {
        match (on, &self.irc) {
            (Source::Irc(server), Some(irc)) => {
                irc.request_orderbook(irc_channel::Audience::Server(server)).await.is_ok()
            }
            _ => self.announce("orderbook".to_owned(), Some(on)).await.is_ok(),
        }
    }

    /// Waits until the directories are up, or one of them after a minute.
    pub(crate) async fn ready(&self) -> Result<(), NotSaid> {
        self.onion.ready().await.map_err(NotSaid::because)
    }

    /// Lets go what was said last, closes every connection, and returns when that is done.
    pub(crate) async fn close(&self) {
        self.onion.stop();
        if let Some(irc) = &self.irc {
            irc.stop();
            irc.stopped().await;
        }
        self.onion.stopped().await;
    }
}

/// The IRC channel under the same nick, if there are servers.
fn open_irc(
    config: &MarketConfig,
    purpose: &'static str,
    key: Arc<NickKey>,
    events: mpsc::Sender<ChannelEvent>,
) -> Option<IrcHandle> {
    if config.irc.is_empty() {
        return None;
    }
    let mut sockets = IrcSockets::new(purpose);
    sockets.proxy = Some(config.socks.0);
    sockets.trust = config.irc.iter().map(|irc| irc.trust).collect();
    let mut channel = IrcConfig::new(key);
    channel.servers = config.irc.iter().map(|irc| irc.server.clone()).collect();
    if config.network == Network::Regtest {
        channel.timing = IrcTiming::regtest();
    }
    irc::spawn(sockets, channel, events)
        .inspect_err(|error| tracing::error!(%error, "IRC servers are not used"))
        .ok()
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// A secret key for a nick; one in 2^128 draws is not one.
fn draw_key() -> io::Result<SecretKey> {
    loop {
        if let Ok(key) = SecretKey::from_slice(&random::<32>()?) {
            return Ok(key);
        }
    }
}
