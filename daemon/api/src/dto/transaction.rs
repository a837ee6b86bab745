//! `txinfo` and `txdetails` (`spec/api.md` 9).

use joinery_wallet::bitcoin::consensus::encode::serialize_hex;
use joinery_wallet::bitcoin::{Address, Network, ScriptBuf, Transaction};
use serde::Serialize;

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TxInput {
    outpoint: String,
    #[serde(rename = "scriptSig")]
    script_sig: String,
    #[serde(rename = "nSequence")]
    sequence: u32,
    /// Absent when the transaction has no witness at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<String>,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TxOutput {
    value_sats: u64,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: String,
    /// Absent for scripts without an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TxDetails {
    hex: String,
    inputs: Vec<TxInput>,
    outputs: Vec<TxOutput>,
    pub(crate) txid: String,
    #[serde(rename = "nLockTime")]
    lock_time: u32,
    #[serde(rename = "nVersion")]
    version: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmations: Option<u32>,
}

/// Describes a transaction. `destination` is the address text of a payment request: the output that pays
/// it is shown with exactly this text, because clients look for it letter by letter.
pub(crate) fn tx_details(
    tx: &Transaction,
    network: Network,
    confirmations: Option<u32>,
    destination: Option<(&ScriptBuf, &str)>,
) -> TxDetails {
    let has_witness = tx.input.iter().any(|input| !input.witness.is_empty());
    let inputs = tx.input.iter().map(|input| TxInput {
        outpoint: input.previous_output.to_string(),
        script_sig: input.script_sig.to_hex_string(),
        sequence: input.sequence.0,
        witness: has_witness.then(|| serialize_hex(&input.witness)),
    });
    let outputs = tx.output.iter().map(|output| TxOutput {
        value_sats: output.value.to_sat(),
        script_pubkey: output.script_pubkey.to_hex_string(),
        address: match destination {
            Some((script, text)) if *script == output.script_pubkey => Some(text.to_owned()),
            _ => Address::from_script(&output.script_pubkey, network)
                .ok()
                .map(|address| address.to_string()),
        },
    });
    TxDetails {
        hex: serialize_hex(tx),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        txid: tx.compute_txid().to_string(),
        lock_time: tx.lock_time.to_consensus_u32(),
        version: tx.version.0,
        confirmations,
    }
}

#[cfg(test)]
mod tests {
    use joinery_testkit::vectors;
    use joinery_wallet::bitcoin::consensus::encode::deserialize_hex;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        cases: Vec<Value>,
    }

    #[test]
    fn golden_txinfo() {
        let file: Vectors = vectors::load(env!("CARGO_MANIFEST_DIR"), "direct_send.json");
        // The other cases are of payments that fail.
        let cases: Vec<Value> =
            file.cases.into_iter().filter(|case| case.get("txinfo").is_some()).collect();
        assert_eq!(cases.len(), 7);
        vectors::each("direct_send.json", &cases, |case| {
            let expected = &case["txinfo"];
            let hex = expected["hex"].as_str().ok_or("no hex")?;
            let tx: Transaction = deserialize_hex(hex).map_err(|e| e.to_string())?;
            let details = tx_details(&tx, Network::Bitcoin, None, None);
            let found = serde_json::to_value(&details).map_err(|e| e.to_string())?;
            if found == *expected { Ok(()) } else { Err(format!("{found}\n{expected}")) }
        });
    }

    #[test]
    fn the_destination_keeps_its_spelling() {
        let file: Vectors = vectors::load(env!("CARGO_MANIFEST_DIR"), "direct_send.json");
        let hex = file.cases[0]["txinfo"]["hex"].as_str().unwrap();
        let tx: Transaction = deserialize_hex(hex).unwrap();
        let script = &tx.output[1].script_pubkey;
        let details = tx_details(&tx, Network::Bitcoin, Some(0), Some((script, "BC1QSHOUTED")));
        assert_eq!(details.outputs[1].address.as_deref(), Some("BC1QSHOUTED"));
        assert_ne!(details.outputs[0].address.as_deref(), Some("BC1QSHOUTED"));
        assert_eq!(details.confirmations, Some(0));
    }
}
