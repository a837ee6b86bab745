//! The first words on a connection: who is there, and is it our chain?

use serde_json::json;

use super::answers;
use super::client::{Call, Client};
use super::error::{CallError, LinkError};
use super::rules::Rules;
use crate::text::printable;

/// Versions of the protocol that we speak.
const PROTOCOLS: [&str; 2] = ["1.4", "1.6"];

/// A server that answered and is on our chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Software and version, printable.
    pub(crate) software: String,
    /// Protocol version, e.g. `1.4`.
    pub(crate) protocol: String,
}

/// Says `server.version` first, as protocol 1.6 demands and older ones allow, then compares genesis blocks.
/// We give no name of our own.
///
/// # Errors
/// When the server refuses, is on another chain, or the connection breaks.
pub(crate) async fn greet(client: &Client, rules: &Rules) -> Result<Greeting, LinkError> {
    let version = client.require(Call::small("server.version", json!(["", PROTOCOLS]))).await?;
    let (software, protocol) = answers::version(version.text())
        .ok_or(LinkError::Protocol("a server version that is none"))?;
    if !answers::version_at_least(&protocol, 1, 4) {
        return Err(LinkError::Protocol("a protocol version older than 1.4"));
    }
    let genesis = match client.call(Call::small("server.features", json!([]))).await {
        Ok(features) => answers::genesis(features.text())
            .ok_or(LinkError::Protocol("server features without a genesis block"))?,
        // Not every server describes itself; the block itself tells as well.
        Err(CallError::Server(_)) => {
            let call = Call::small("blockchain.block.header", json!([0]));
            answers::header(client.require(call).await?.text())
                .ok_or(LinkError::Protocol("a block header that is none"))?
                .block_hash()
        }
        Err(error) => return Err(error.into_link("server.features")),
    };
    if rules.known().first().is_none_or(|(_, ours)| *ours != genesis) {
        let expected = rules.network().name();
        return Err(LinkError::WrongNetwork { expected, found: genesis.to_string() });
    }
    Ok(Greeting { software: printable(&software), protocol: printable(&protocol) })
}
