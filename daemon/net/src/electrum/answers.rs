//! What the answers of the server mean: each parser takes JSON text and gives a checked value or `None`.
//! None of them panics, and none keeps more than the answer's own (bounded) size.

use bdk_wallet::bitcoin::block::Header;
use bdk_wallet::bitcoin::consensus::encode::deserialize_hex;
use bdk_wallet::bitcoin::{BlockHash, Transaction, Txid};
use serde::Deserialize;

use super::merkle::MerkleProof;
use super::message::{object, value};
use super::script::HistoryEntry;

/// Length of a block header in hexadecimal.
pub(crate) const HEADER_HEX: usize = 160;
/// Rates above 1 BTC per 1000 bytes are not believed.
const RATE_MAX: f64 = 1.0;
/// Satoshi per bitcoin.
const COIN: f64 = 100_000_000.0;

/// `headers.subscribe`: the best block.
pub(crate) fn tip(text: &str) -> Option<(u32, Header)> {
    #[derive(Deserialize)]
    struct Tip {
        height: u32,
        hex: String,
    }
    let tip: Tip = object(text)?;
    Some((tip.height, header_hex(&tip.hex)?))
}

/// `block.header`.
pub(crate) fn header(text: &str) -> Option<Header> {
    header_hex(&value::<String>(text)?)
}

fn header_hex(hex: &str) -> Option<Header> {
    if hex.len() == HEADER_HEX { deserialize_hex(hex).ok() } else { None }
}

/// `block.headers`: one long text up to protocol 1.4, a list from 1.6 on.
pub(crate) fn headers(text: &str) -> Option<Vec<Header>> {
    #[derive(Deserialize)]
    struct Headers {
        #[serde(default)]
        hex: Option<String>,
        #[serde(default)]
        headers: Option<Vec<String>>,
    }
    let answer: Headers = object(text)?;
    match (answer.hex, answer.headers) {
        (Some(hex), None) => {
            if !hex.len().is_multiple_of(HEADER_HEX) || !hex.is_ascii() {
                return None;
            }
            hex.as_bytes()
                .chunks_exact(HEADER_HEX)
                .map(|hex| header_hex(std::str::from_utf8(hex).ok()?))
                .collect()
        }
        (None, Some(list)) => list.iter().map(|hex| header_hex(hex)).collect(),
        _ => None,
    }
}

/// `scripthash.get_history`. A height that cannot be makes it invalid.
pub(crate) fn history(text: &str) -> Option<Vec<HistoryEntry>> {
    #[derive(Deserialize)]
    struct Entry {
        tx_hash: Txid,
        height: i64,
    }
    let entries: Vec<Entry> = objects(text)?;
    entries
        .into_iter()
        .map(|entry| {
            let possible = (-1..=i64::from(u32::MAX)).contains(&entry.height);
            possible.then_some(HistoryEntry { txid: entry.tx_hash, height: entry.height })
        })
        .collect()
}

/// A list whose every element is an object.
fn objects<T: serde::de::DeserializeOwned>(text: &str) -> Option<Vec<T>> {
    let parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
    parts.into_iter().map(|part| object(part.get())).collect()
}

/// `transaction.get`: hexadecimal text of the transaction with this id, and of no other.
pub(crate) fn transaction(text: &str, txid: Txid) -> Option<Transaction> {
    let transaction: Transaction = deserialize_hex(&value::<String>(text)?).ok()?;
    (transaction.compute_txid() == txid).then_some(transaction)
}

/// `transaction.get_merkle`.
pub(crate) fn merkle(text: &str) -> Option<MerkleProof> {
    object(text)
}

/// One line of `scripthash.listunspent`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Unspent {
    pub(crate) tx_hash: Txid,
    pub(crate) tx_pos: u32,
    /// Satoshi.
    pub(crate) value: u64,
    /// Not positive in the mempool.
    pub(crate) height: i64,
}

/// `scripthash.listunspent`.
pub(crate) fn unspent(text: &str) -> Option<Vec<Unspent>> {
    objects(text)
}

/// `server.version`: software and protocol.
pub(crate) fn version(text: &str) -> Option<(String, String)> {
    value(text)
}

/// Whether a protocol version such as `1.4.2` is at least `major.minor`.
pub(crate) fn version_at_least(version: &str, major: u32, minor: u32) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(found_major), Some(found_minor)) => (found_major, found_minor) >= (major, minor),
        _ => false,
    }
}

/// `server.features`: the genesis block.
pub(crate) fn genesis(text: &str) -> Option<BlockHash> {
    #[derive(Deserialize)]
    struct Features {
        genesis_hash: BlockHash,
    }
    object::<Features>(text).map(|features| features.genesis_hash)
}

/// A rate that the server named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// It has none (`-1`, or any other number that is not positive).
    None,
    /// Satoshi per 1000 vbytes.
    SatPerKvb(u64),
}

/// `estimatefee`, `relayfee`: a number of bitcoins per 1000 bytes. `None` when it cannot be true.
pub(crate) fn rate(text: &str) -> Option<Rate> {
    rate_of(value::<f64>(text)?)
}

/// `mempool.get_info` of protocol 1.6.
pub(crate) fn mempool_info(text: &str) -> Option<Rate> {
    #[derive(Deserialize)]
    struct Info {
        mempoolminfee: f64,
    }
    rate_of(object::<Info>(text)?.mempoolminfee)
}

fn rate_of(bitcoin_per_kvb: f64) -> Option<Rate> {
    if !bitcoin_per_kvb.is_finite() || bitcoin_per_kvb > RATE_MAX {
        return None;
    }
    if bitcoin_per_kvb <= 0.0 {
        return Some(Rate::None);
    }
    // Between 0 and 10^8: fits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Some(Rate::SatPerKvb((bitcoin_per_kvb * COIN).round() as u64))
}

/// `mempool.get_fee_histogram`: the mempool's size in vbytes, and its lowest rate in satoshi per 1000 vbytes.
pub(crate) fn fee_histogram(text: &str) -> Option<(f64, u64)> {
    let buckets: Vec<(f64, f64)> = value(text)?;
    let mut total = 0.0;
    let mut lowest = f64::INFINITY;
    for (sat_per_vb, vbytes) in buckets {
        if !(sat_per_vb >= 0.0 && vbytes >= 0.0) {
            return None;
        }
        total += vbytes;
        lowest = lowest.min(sat_per_vb);
    }
    match rate_of((if lowest.is_finite() { lowest } else { 0.0 }) * 1000.0 / COIN)? {
        Rate::None => Some((total, 0)),
        Rate::SatPerKvb(rate) => Some((total, rate)),
    }
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::TxMerkleNode;
    use bdk_wallet::bitcoin::hashes::Hash;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_positive_finite_and_at_most_one_bitcoin() {
        assert_eq!(rate("0.00012345"), Some(Rate::SatPerKvb(12_345)));
        assert_eq!(rate("1e-5"), Some(Rate::SatPerKvb(1_000)));
        assert_eq!(rate("-1"), Some(Rate::None));
        assert_eq!(rate("0"), Some(Rate::None));
        for lie in ["1.1", "1e300", "1e400", "NaN", "null", "\"0.1\"", "[0.1]", "{}", ""] {
            assert_eq!(rate(lie), None, "{lie}");
        }
    }

    #[test]
    fn histogram_gives_size_and_lowest_rate() {
        assert_eq!(fee_histogram("[[53.01, 102131], [1.5, 110990]]"), Some((213_121.0, 1_500)));
        assert_eq!(fee_histogram("[]"), Some((0.0, 0)));
        assert_eq!(fee_histogram("[[1, -5]]"), None);
        assert_eq!(fee_histogram("[[1]]"), None);
    }

    #[test]
    fn history_with_an_impossible_height_is_refused() {
        let entry = |digit: &str, height: i64| {
            format!(r#"{{"tx_hash":"{}","height":{height}}}"#, digit.repeat(64))
        };
        let list = |entries: &[String]| history(&format!("[{}]", entries.join(",")));
        assert_eq!(list(&[entry("a", 5), entry("b", -1), entry("c", 0)]).unwrap().len(), 3);
        assert_eq!(list(&[entry("a", -2)]), None);
        assert_eq!(list(&[entry("a", 1 << 32)]), None);
        assert_eq!(
            history(&format!(r#"[["{}",5]]"#, "a".repeat(64))),
            None,
            "arrays are no entries"
        );
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version_at_least("1.6", 1, 6));
        assert!(version_at_least("1.10.2", 1, 6));
        assert!(version_at_least("2.0", 1, 6));
        assert!(!version_at_least("1.4.2", 1, 6));
        assert!(!version_at_least("", 1, 4));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            every_parser(&text);
        }

        #[test]
        fn no_json_panics(
            text in r#"[\[{]{0,3}("(hex|height|headers|tx_hash|merkle|pos|block_height)"|[:,\[\]{}0-9a-f".e-]|null|"[0-9a-f]{64}"){0,40}"#
        ) {
            every_parser(&text);
        }

        #[test]
        fn header_answers_of_any_hexadecimal_text_do_not_panic(hex in "[0-9a-fé]{0,400}") {
            let _ = headers(&format!(r#"{{"count":1,"hex":"{hex}","max":2016}}"#));
            let _ = tip(&format!(r#"{{"height":1,"hex":"{hex}"}}"#));
        }
    }

    fn every_parser(text: &str) {
        let _ = tip(text);
        let _ = header(text);
        let _ = headers(text);
        let _ = history(text);
        let _ = transaction(text, Txid::all_zeros());
        if let Some(proof) = merkle(text) {
            let _ = proof.proves(Txid::all_zeros(), 100, 0, TxMerkleNode::all_zeros());
            let _ = proof.neighbours(Txid::all_zeros(), &[Txid::all_zeros()]);
        }
        let _ = unspent(text);
        let _ = version(text);
        let _ = version_at_least(text, 1, 4);
        let _ = genesis(text);
        let _ = rate(text);
        let _ = mempool_info(text);
        let _ = fee_histogram(text);
    }
}
