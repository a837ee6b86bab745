//! The onion message channel: envelopes, handshakes, peer lists, nick authentication
//! (`spec/protocol.md` 4 and 14; vectors `onion_envelopes.json`, `extensions.json`,
//! `directory_behaviour.json`). Bytes in, values out; no sockets.

pub mod envelope;
pub mod features;
pub mod framing;
pub mod handshake;
pub mod location;
pub mod nick_auth;
pub mod onion_name;
pub mod peerlist;
