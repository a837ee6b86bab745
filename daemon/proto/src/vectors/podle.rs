//! `podle.json`.

use std::collections::BTreeMap;

use bdk_wallet::bitcoin::ScriptBuf;
use bdk_wallet::bitcoin::hex::{DisplayHex, FromHex};
use serde::Deserialize;

use crate::podle::{Commitment, PodleError, Proof, Revelation, nums_point};

#[derive(Deserialize)]
struct File {
    nums_points: BTreeMap<u8, String>,
    generate_with_nonce: Vec<Generated>,
    generate_deterministic_second_implementation: Vec<Generated>,
    verify: Vec<Verify>,
    deserialize: Vec<Deserialized>,
    bind_to_script: Vec<Binding>,
}

#[derive(Deserialize)]
struct Generated {
    privkey: String,
    nonce: Option<String>,
    index: u8,
    utxo: String,
    #[serde(rename = "P")]
    p: String,
    #[serde(rename = "P2")]
    p2: String,
    e: String,
    s: String,
    commitment: String,
    fill_field: Option<String>,
    revelation: String,
}

#[derive(Deserialize)]
struct Verify {
    name: String,
    #[serde(rename = "P")]
    p: String,
    #[serde(rename = "P2")]
    p2: String,
    s: String,
    e: String,
    commitment: String,
    index_range: [u8; 2],
    required: bool,
}

#[derive(Deserialize)]
struct Deserialized {
    name: String,
    revelation: String,
    second_implementation_ok: bool,
}

#[derive(Deserialize)]
struct Binding {
    name: String,
    #[serde(rename = "P")]
    p: String,
    scriptpubkey: String,
    second_implementation: bool,
}

#[test]
fn nums_points_are_equal() {
    let file: File = super::load("podle");
    assert_eq!(file.nums_points.len(), 256);
    for (index, point) in &file.nums_points {
        assert_eq!(nums_point(*index).to_string(), *point, "J({index})");
    }
}

#[test]
fn proofs_are_equal_byte_for_byte() {
    let file: File = super::load("podle");
    let all =
        file.generate_with_nonce.iter().chain(&file.generate_deterministic_second_implementation);
    for (number, case) in all.enumerate() {
        let key = case.privkey.parse().unwrap();
        let utxo: crate::utxo::WireUtxo = case.utxo.parse().unwrap();
        let proof = match &case.nonce {
            Some(nonce) => {
                Proof::generate_with_nonce(&key, &nonce.parse().unwrap(), case.index).unwrap()
            }
            None => Proof::generate(&key.keypair(crate::secp()), &utxo.outpoint, case.index),
        };
        assert_eq!(proof.p.to_string(), case.p, "case {number}");
        assert_eq!(proof.p2.to_string(), case.p2, "case {number}");
        assert_eq!(proof.e.to_lower_hex_string(), case.e, "case {number}");
        assert_eq!(proof.s.to_lower_hex_string(), case.s, "case {number}");
        assert_eq!(proof.commitment().to_string(), case.commitment, "case {number}");
        if let Some(field) = &case.fill_field {
            assert_eq!(proof.commitment().fill_field(), *field, "case {number}");
        }
        assert_eq!(Revelation { utxo, proof }.to_string(), case.revelation, "case {number}");
    }
}

#[test]
fn verification_decides_as_required() {
    let file: File = super::load("podle");
    for case in &file.verify {
        let text = format!("{}:0|{}|{}|{}|{}", "00".repeat(32), case.p, case.p2, case.s, case.e);
        assert_eq!(case.index_range[0], 0, "{}", case.name);
        let result = text.parse::<Revelation>().and_then(|revelation| {
            let commitment = Commitment::from_hex(&case.commitment)?;
            revelation.proof.verify(&commitment, case.index_range[1])
        });
        assert_eq!(result.is_ok(), case.required, "{}: {result:?}", case.name);
    }
}

#[test]
fn revelations_parse_as_in_the_second_implementation() {
    let file: File = super::load("podle");
    for case in &file.deserialize {
        let result: Result<Revelation, PodleError> = case.revelation.parse();
        assert_eq!(result.is_ok(), case.second_implementation_ok, "{}: {result:?}", case.name);
    }
}

#[test]
fn podle_pubkey_must_match_utxo_spk() {
    let file: File = super::load("podle");
    for case in &file.bind_to_script {
        let p = case.p.parse().unwrap();
        let proof = Proof { p, p2: p, s: [1; 32], e: [1; 32] };
        let script = ScriptBuf::from_bytes(Vec::from_hex(&case.scriptpubkey).unwrap());
        assert_eq!(proof.owns_script(&script), case.second_implementation, "{}", case.name);
    }
}
