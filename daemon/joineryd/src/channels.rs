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
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).event(event);
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

    /// Asks makers for their offers, and directories who is there: makers of the reference come back to a directory
    /// without a word. False when the channel has ended.
    pub(crate) async fn ask_offers(&self, on: Source) -> bool {
        match (on, &self.irc) {
            (Source::Irc(server), Some(irc)) => {
                irc.request_orderbook(irc_channel::Audience::Server(server)).await.is_ok()
            }
            _ => {
                self.announce("orderbook".to_owned(), Some(on)).await.is_ok()
                    && self.onion.request_peers().await.is_ok()
            }
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

#[cfg(test)]
mod tests {
    use joinery_net::TlsTrust;
    use joinery_roles::channel::DirectoryAddress;
    use joinery_roles::event::DirectoryId;
    use joinery_roles::irc_channel::IrcServer;
    use joinery_testkit::{DirectoryNode, Ngircd};
    use tokio::time::timeout;

    use super::*;
    use crate::config::Irc;
    use crate::market::Watch;

    /// Longer than anything takes.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
    const DIRECTORY: Source = Source::Directory(DirectoryId(0));
    const IRC: Source = Source::Irc(0);

    struct Peer {
        nick: Nick,
        channels: Channels,
        news: mpsc::Receiver<ChannelEvent>,
    }

    impl Peer {
        fn new(directory: Option<&DirectoryNode>, server: &Ngircd) -> Self {
            let address = |node: &DirectoryNode| node.address().to_string().parse().unwrap();
            let (host, port) = (server.address().ip().to_string(), server.address().port());
            let server = IrcServer::new(&host, port, "pit", "testnet", false).unwrap();
            let config = MarketConfig {
                watch: Watch::Off,
                network: Network::Regtest,
                jm_network: "testnet".to_owned(),
                directories: directory
                    .map(|node| DirectoryAddress::new(address(node)))
                    .into_iter()
                    .collect(),
                socks: "socks5://127.0.0.1:1".parse().unwrap(),
                irc: vec![Irc { server, trust: TlsTrust::System }],
            };
            let (channels, news) = Channels::open(&config, "test", None, |_| {}).unwrap();
            Self { nick: channels.nick(), channels, news }
        }

        /// The next event that counts.
        async fn until(&mut self, is: impl Fn(&ChannelEvent) -> bool) -> ChannelEvent {
            let wait = async {
                loop {
                    let event = self.news.recv().await.unwrap();
                    self.channels.heard(&event);
                    if is(&event) {
                        return event;
                    }
                }
            };
            timeout(PATIENCE, wait).await.unwrap()
        }

        /// Waits for several events in any order.
        async fn all(&mut self, mut events: Vec<ChannelEvent>) {
            while !events.is_empty() {
                let event = self.until(|event| events.contains(event)).await;
                events.retain(|expected| *expected != event);
            }
        }

        async fn sees(&mut self, nick: Nick, via: Source) {
            self.until(|event| *event == ChannelEvent::Seen { nick, via }).await;
        }

        /// The payload and the way of the next private message.
        async fn private(&mut self) -> (String, Source) {
            let event = self.until(|event| matches!(event, ChannelEvent::Private { .. })).await;
            let ChannelEvent::Private { text, via, .. } = event else { panic!("{event:?}") };
            (text.split(' ').nth(1).unwrap().to_owned(), via)
        }

        async fn says(&self, to: &Self, payload: &str, prefer: Option<Source>) {
            let payload = payload.to_owned();
            self.channels.send(to.nick, PrivateWord::Push, payload, prefer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn every_message_takes_one_channel_and_conversations_stay_where_they_are() {
        let (directory, server) = tokio::task::spawn_blocking(|| {
            (DirectoryNode::start("testnet").unwrap(), Ngircd::start(Some("TestNet")).unwrap())
        })
        .await
        .unwrap();
        // A maker that is on no directory is spoken to on IRC.
        let mut one = Peer::new(Some(&directory), &server);
        one.until(|event| *event == ChannelEvent::Up(DIRECTORY)).await;
        let mut lonely = Peer::new(None, &server);
        one.sees(lonely.nick, IRC).await;
        one.says(&lonely, "AAAA", None).await;
        assert_eq!(lonely.private().await, ("AAAA".to_owned(), IRC));
        lonely.says(&one, "BBBB", Some(IRC)).await;
        assert_eq!(one.private().await, ("BBBB".to_owned(), IRC));
        // One that is on both is spoken to by the directory, and by nothing else.
        let mut both = Peer::new(Some(&directory), &server);
        one.sees(both.nick, IRC).await;
        both.all(vec![
            ChannelEvent::Up(DIRECTORY),
            ChannelEvent::Seen { nick: one.nick, via: IRC },
        ])
        .await;
        both.channels.announce("cancel 7".to_owned(), None).await.unwrap();
        one.sees(both.nick, DIRECTORY).await;
        lonely.until(|event| matches!(event, ChannelEvent::Public { .. })).await;
        one.says(&both, "CCCC", None).await;
        one.says(&both, "DDDD", None).await;
        assert_eq!(both.private().await, ("CCCC".to_owned(), DIRECTORY));
        assert_eq!(both.private().await, ("DDDD".to_owned(), DIRECTORY));
        // An answer to what came on IRC goes there, and there the conversation stays.
        both.says(&one, "EEEE", Some(IRC)).await;
        both.says(&one, "FFFF", None).await;
        assert_eq!(one.private().await, ("EEEE".to_owned(), IRC));
        assert_eq!(one.private().await, ("FFFF".to_owned(), IRC));
        for peer in [one, lonely, both] {
            peer.channels.close().await;
        }
    }
}
