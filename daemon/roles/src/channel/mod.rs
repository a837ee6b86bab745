//! The onion message channel of a maker or taker (`spec/protocol.md` 4, 13.2, 14; vectors
//! `onion_envelopes.json`, `directory_behaviour.json`, `extensions.json`).
//!
//! [`OnionChannel`] keeps a connection to every configured directory, upgrades to direct connections, proves
//! who speaks, and sends each private message over exactly one way. It opens no sockets and reads no clock:
//! a driver tells it what happened ([`OnionChannel::opened`], [`OnionChannel::received`],
//! [`OnionChannel::closed`], [`OnionChannel::tick`]) and does what [`OnionChannel::poll`] says. The same
//! inputs at the same times with the same seed give the same outputs.
//!
//! # Rules for drivers
//!
//! * `now` is a steady clock since any start; the same clock in every call.
//! * After every input: take outputs until `poll` returns `None`, then sleep until
//!   [`OnionChannel::next_wake`] or the next input.
//! * [`Output::Dial`] is answered by exactly one of `opened` and `closed`; an open link by exactly one `closed`,
//!   unless the machine said [`Output::Close`] first: then by nothing.
//! * [`Output::Pause`] means: read nothing from this link until then. What the kernel holds back is not lost.
//! * A link whose peer sends a line above the limit or does not read what is written for too long is closed by
//!   the driver, which says so with `closed`.
//!
//! # Defects of other implementations
//!
//! Those that touch messaging (`spec/defects.md`, by number), and the tests that are named after them:
//!
//! | # | test | where |
//! |---|---|---|
//! | 6 | `nick_equality_only` | `channel/tests/routing.rs`; `nick.rs` of proto |
//! | 10 | `cert_expiry_boundary` | `bond_proof.rs`, `vectors/bond.rs` of proto |
//! | 11 | `no_tbond_in_pubmsg` | `tests/maker/defects.rs`; `public_message.rs` of proto |
//! | 12 | `sender_auth` | `channel/tests/routing.rs`, `tests/directory/relay.rs`; `private_message.rs` of proto |
//! | 13 | `hp2_priority_own_first` | `tests/maker/offers.rs` |
//! | 28 | `no_udp53_ever` | `channel/tests/peers.rs`; `tests/market/onion.rs`, `electrum/transport.rs` of net; with the whole daemon and a trap in place of DNS: `tests/no_dns.rs` of joineryd |
//! | 29 | `offer_update_quantised_and_delayed` | `tests/maker/offers.rs` |
//! | 33 | `econnreset_backoff` | `channel/tests/directories.rs`; `tests/directory.rs`, `tests/lies.rs` of net |
//! | 41 | `location_is_a_hint` | `channel/tests/peers.rs` |
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use joinery_proto::bitcoin::secp256k1::SecretKey;
//! use joinery_proto::private_message::{NickKey, PrivateWord};
//! use joinery_roles::channel::{ChannelConfig, DirectoryAddress, OnionChannel, Output};
//! use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
//!
//! // The nick's key is drawn for this run only; the seed decides jitter and choices of way.
//! let key = Arc::new(NickKey::new(SecretKey::from_slice(&[7; 32])?));
//! let mut config = ChannelConfig::new("testnet", key);
//! config.allow_plain = true; // regtest: loopback without Tor
//! config.directories = vec![DirectoryAddress::new("127.0.0.1:5222".parse()?)];
//! let mut channel = OnionChannel::new(config, [1; 32])?;
//!
//! let now = Duration::ZERO;
//! channel.tick(now);
//! let Some(Output::Dial { link, .. }) = channel.poll() else { panic!("it dials its directory") };
//! channel.opened(link, now);
//! assert!(matches!(channel.poll(), Some(Output::Send { .. })), "our handshake");
//! let answer = br#"{"type": 795, "line": "{\"app-name\": \"joinmarket\", \"directory\": true,
//!     \"proto-ver-min\": 5, \"proto-ver-max\": 5, \"features\": {}, \"accepted\": true,
//!     \"nick\": \"J5dnOOOOOOOOOOOO\", \"network\": \"testnet\", \"motd\": \"\"}"}"#;
//! # let answer = &answer.iter().copied().filter(|b| *b != b'\n').collect::<Vec<u8>>()[..];
//! channel.received(link, answer, now);
//! let up = ChannelEvent::Up(Source::Directory(DirectoryId(0)));
//! let outputs: Vec<Output> = std::iter::from_fn(|| channel.poll()).collect();
//! assert!(outputs.contains(&Output::Event(up)));
//!
//! channel.request_orderbook(now);
//! assert!(matches!(channel.poll(), Some(Output::Send { .. })));
//! let stranger = "J5DdKBhSf2Ykxqqy".parse()?;
//! assert!(channel.send_private(stranger, PrivateWord::Push, "AAAA", None, now).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod direct;
mod directory;
mod machine;
mod output;
mod peers;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;

pub use crate::complaints::Cause;
pub use config::{
    ChannelConfig, ChannelConfigError, ChannelTiming, DirectoryAddress, MAX_DIRECTORIES,
    NickAuthPolicy, directory_identity,
};
pub use directory::{DirectoryState, DirectoryStatus};
pub use machine::OnionChannel;
pub use output::{LogFact, Output, Purpose};
pub use peers::{MAX_PEERS, PeerInfo};
pub use sending::{Audience, SendError};
