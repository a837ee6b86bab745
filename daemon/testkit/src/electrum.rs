//! The smallest Electrum client: enough to ask electrs what it has indexed. Not for production and not a model
//! for it; the daemon's own engine is in `joinery-net`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bdk_wallet::bitcoin::hashes::{Hash, sha256};
use bdk_wallet::bitcoin::{Script, block::Header, consensus::encode::deserialize_hex};
use serde_json::{Value, json};

/// One plain connection with one request under way at a time.
#[derive(Debug)]
pub struct Electrum {
    reader: BufReader<TcpStream>,
    next: u64,
}

impl Electrum {
    /// Connects and says `server.version`. `silence` is the longest wait for an answer.
    ///
    /// # Errors
    /// When nobody listens or the server does not speak protocol 1.4.
    pub fn connect(address: SocketAddr, silence: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, silence)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        stream.set_nodelay(true)?;
        let mut client = Self { reader: BufReader::new(stream), next: 0 };
        client.call("server.version", &json!(["joinery-testkit", "1.4"]))?;
        Ok(client)
    }

    /// Calls `method`; notifications that come before the answer are dropped.
    ///
    /// # Errors
    /// When the server answers with an error or the connection breaks or stays silent.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut line = json!({"id": id, "method": method, "params": params}).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                bail!("the Electrum server closed the connection during {method}");
            }
            let answer: Value = serde_json::from_str(&line).context("answer that is not JSON")?;
            if answer.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            return match answer.get("error") {
                None | Some(Value::Null) => {
                    Ok(answer.get("result").cloned().unwrap_or(Value::Null))
                }
                Some(error) => bail!("{method}: {error}"),
            };
        }
    }

    /// Height and header of the server's best block.
    ///
    /// # Errors
    /// As [`Self::call`], and when the answer is not a header.
    pub fn tip(&mut self) -> Result<(u64, Header)> {
        let answer = self.call("blockchain.headers.subscribe", &json!([]))?;
        let height =
            answer.get("height").and_then(Value::as_u64).context("tip without a height")?;
        let hex = answer.get("hex").and_then(Value::as_str).context("tip without a header")?;
        Ok((height, deserialize_hex(hex)?))
    }

    /// The history of a script as the server sends it (`[{"tx_hash", "height", "fee"?}, ...]`).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn history(&mut self, script: &Script) -> Result<Vec<Value>> {
        let answer =
            self.call("blockchain.scripthash.get_history", &json!([script_hash(script)]))?;
        answer.as_array().cloned().context("history that is not a list")
    }
}

/// The Electrum protocol's name of a script: its SHA-256 in reversed byte order, hexadecimal, 64 characters.
#[must_use]
pub fn script_hash(script: &Script) -> String {
    let mut bytes = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    bytes.reverse();
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::ScriptBuf;

    use super::script_hash;

    /// The example of the Electrum protocol documentation (page "Basics", section "Script hashes"):
    /// the pay-to-public-key-hash script of the genesis block's address.
    #[test]
    fn script_hash_matches_the_protocol_documentation() {
        let script =
            ScriptBuf::from_hex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac").unwrap();
        assert_eq!(
            script_hash(&script),
            "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161"
        );
    }
}
