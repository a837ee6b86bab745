//! The IRC message channel of a maker or taker (`spec/protocol.md` 5; vector `irc.json`): only for peers of the
//! reference that are not on the onion channel, and off unless configured.
//!
//! [`IrcChannel`] keeps a connection to every configured server, holds our nick there, joins the market's channel,
//! says who is there and who has proved to have spoken, and sends lines no faster than servers bear. It opens no
//! sockets and reads no clock: a driver tells it what happened ([`IrcChannel::opened`], [`IrcChannel::received`],
//! [`IrcChannel::closed`], [`IrcChannel::tick`]) and does what [`IrcChannel::poll`] says. The same inputs at the same
//! times with the same seed give the same outputs.
//!
//! News are of the same type as those of the onion channel. Who is in the channel when we come is told before
//! [`crate::event::ChannelEvent::Up`]. A server is believed about who is in its channel and
//! nothing else: private messages are believed by their signatures, which cover the name of the network, and public
//! lines are claims.
//!
//! # Rules for drivers
//!
//! Those of [`crate::channel`], and: [`Output::Close`] follows what was sent on the link; lines above
//! [`joinery_proto::irc::MAX_LINE_IN`] bytes close the link.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use joinery_proto::bitcoin::secp256k1::SecretKey;
//! use joinery_proto::private_message::NickKey;
//! use joinery_roles::event::{ChannelEvent, Source};
//! use joinery_roles::irc_channel::{IrcChannel, IrcConfig, IrcServer, Output};
//!
//! let key = Arc::new(NickKey::new(SecretKey::from_slice(&[7; 32])?));
//! let nick = key.nick();
//! let mut config = IrcConfig::new(key);
//! config.servers = vec![IrcServer::new("127.0.0.1", 6667, "joinmarket-pit", "testnet", false)?];
//! let mut channel = IrcChannel::new(config, [1; 32])?;
//!
//! let mut now = Duration::ZERO;
//! channel.tick(now);
//! let Some(Output::Dial { link, .. }) = channel.poll() else { panic!("it dials its server") };
//! channel.opened(link, now);
//! assert_eq!(channel.poll(), Some(Output::Send { link, line: format!("NICK {nick}\r\n") }));
//! channel.received(link, format!(":irc.example 001 {nick} :Welcome").as_bytes(), now);
//! channel.received(link, format!(":{nick}!u@h JOIN #joinmarket-pit-test").as_bytes(), now);
//! let end = format!(":irc.example 366 {nick} #joinmarket-pit-test :End of list");
//! channel.received(link, end.as_bytes(), now);
//! let outputs: Vec<Output> = std::iter::from_fn(|| channel.poll()).collect();
//! assert!(outputs.contains(&Output::Event(ChannelEvent::Up(Source::Irc(0)))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod machine;
mod output;
mod receiving;
mod sending;
mod server;
#[cfg(test)]
mod tests;

pub use config::{IrcConfig, IrcConfigError, IrcServer, IrcServerError, IrcTiming, MAX_SERVERS};
pub use machine::IrcChannel;
pub use output::{LogFact, Output};
pub use sending::{Audience, SendError};
pub use server::{MAX_PRESENT, ServerState, ServerStatus};
