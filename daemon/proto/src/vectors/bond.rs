//! `fidelity_bond.json` and `bond_value.json`.

use bdk_wallet::bitcoin::Amount;
use serde::Deserialize;

use crate::bond_proof::{BondProof, Certificate};
use crate::fidelity_bond::{self, BondTerms, TimeNumber};
use crate::nick::Nick;

#[derive(Deserialize)]
struct File {
    proofs: Vec<Proof>,
    verification: Vec<Verification>,
    timelock_scripts: Vec<TimelockScript>,
    timenumber: TimeNumbers,
    certificate_expiry_chosen_by_maker: Expiry,
    utxo_validation: Vec<UtxoValidation>,
    bond_value: Values,
}

#[derive(Deserialize)]
struct Proof {
    name: String,
    maker_nick: String,
    taker_nick: String,
    utxo_privkey: String,
    utxo_pubkey: String,
    cert_privkey: String,
    cert_pubkey: String,
    cert_expiry: u16,
    txid: String,
    vout: u32,
    locktime: u32,
    #[serde(alias = "proof", alias = "base64")]
    proof_base64: String,
    cert_signature_der: String,
}

#[derive(Deserialize)]
struct Verification {
    name: String,
    proof: String,
    maker_nick: String,
    taker_nick: String,
    second_implementation: bool,
}

#[derive(Deserialize)]
struct TimelockScript {
    locktime: u32,
    pubkey: String,
    witness_script: String,
    script_pubkey: String,
}

#[derive(Deserialize)]
struct TimeNumbers {
    valid: Vec<ValidTimeNumber>,
    invalid_timenumbers: Vec<InvalidTimeNumber>,
    timestamps_not_on_the_grid: Vec<OffGrid>,
}

#[derive(Deserialize)]
struct ValidTimeNumber {
    timenumber: u16,
    timestamp: u64,
}

#[derive(Deserialize)]
struct InvalidTimeNumber {
    timenumber: i64,
    accepted: bool,
}

#[derive(Deserialize)]
struct OffGrid {
    timestamp: u64,
}

#[derive(Deserialize)]
struct Expiry {
    cases: Vec<ExpiryCase>,
}

#[derive(Deserialize)]
struct ExpiryCase {
    height: u32,
    expected_cert_expiry: u16,
    expires_after_height: u32,
}

#[derive(Deserialize)]
struct UtxoValidation {
    name: String,
    utxo_exists: bool,
    confirmations: i64,
    script_matches: bool,
    current_height: u32,
    cert_expiry: u16,
    expected_valid: bool,
}

#[derive(Deserialize)]
struct Values {
    cases: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    value_sat: u64,
    confirmation_time: u64,
    locktime: u64,
    current_time: u64,
    interest_rate: f64,
    exponent: f64,
    expected_float: f64,
}

fn file() -> File {
    super::load("fidelity_bond")
}

#[test]
fn proofs_are_equal_byte_for_byte() {
    let file = file();
    assert_eq!(file.proofs.len(), 8);
    for case in &file.proofs {
        let (maker, taker): (Nick, Nick) =
            (case.maker_nick.parse().unwrap(), case.taker_nick.parse().unwrap());
        let outpoint = format!("{}:{}", case.txid, case.vout).parse().unwrap();
        let coin_key = case.utxo_pubkey.parse().unwrap();
        let cert_public = case.cert_pubkey.parse().unwrap();
        let certificate =
            Certificate::sign(&case.utxo_privkey.parse().unwrap(), &cert_public, case.cert_expiry);
        let proof = BondProof::create(
            &maker,
            &taker,
            &certificate,
            &case.cert_privkey.parse().unwrap(),
            &coin_key,
            &outpoint,
            case.locktime,
        );
        // Certificates of signers that only sign text differ in that one signature; we make the others.
        if case.name.contains("ascii") {
            assert_ne!(proof, case.proof_base64, "{}", case.name);
            assert!(!case.cert_signature_der.is_empty());
        } else {
            assert_eq!(proof, case.proof_base64, "{}", case.name);
        }
        let verified = BondProof::verify(&case.proof_base64, &maker, &taker).unwrap();
        assert_eq!(verified.outpoint, outpoint, "{}", case.name);
        assert_eq!(verified.locktime, case.locktime, "{}", case.name);
        assert_eq!(verified.coin_key, coin_key, "{}", case.name);
        assert_eq!(verified.cert_key, cert_public, "{}", case.name);
        assert_eq!(verified.cert_expiry, case.cert_expiry, "{}", case.name);
    }
}

#[test]
fn verification_decides_as_in_the_second_implementation() {
    let file = file();
    assert_eq!(file.verification.len(), 18);
    for case in &file.verification {
        let (maker, taker) = (case.maker_nick.parse().unwrap(), case.taker_nick.parse().unwrap());
        let result = BondProof::verify(&case.proof, &maker, &taker);
        assert_eq!(result.is_ok(), case.second_implementation, "{}: {result:?}", case.name);
    }
}

#[test]
fn bond_utxo_spk_matches() {
    for case in &file().timelock_scripts {
        let key = case.pubkey.parse().unwrap();
        let witness_script = fidelity_bond::witness_script(case.locktime, &key);
        assert_eq!(format!("{witness_script:x}"), case.witness_script);
        let script = fidelity_bond::script_pubkey(case.locktime, &key);
        assert_eq!(format!("{script:x}"), case.script_pubkey);
    }
}

#[test]
fn timenumbers_map_both_ways() {
    let TimeNumbers { valid, invalid_timenumbers, timestamps_not_on_the_grid } = file().timenumber;
    for case in &valid {
        let number = TimeNumber::new(case.timenumber).unwrap();
        assert_eq!(u64::from(number.locktime()), case.timestamp);
        assert_eq!(TimeNumber::from_locktime(case.timestamp), Ok(number));
    }
    for case in &invalid_timenumbers {
        let accepted =
            u16::try_from(case.timenumber).is_ok_and(|number| TimeNumber::new(number).is_ok());
        assert_eq!(accepted, case.accepted, "{}", case.timenumber);
    }
    for case in &timestamps_not_on_the_grid {
        assert!(TimeNumber::from_locktime(case.timestamp).is_err(), "{}", case.timestamp);
    }
}

fn proof_with_expiry(cert_expiry: u16) -> BondProof {
    let case = file().proofs.remove(0);
    let (maker, taker) = (case.maker_nick.parse().unwrap(), case.taker_nick.parse().unwrap());
    let proof = BondProof::verify(&case.proof_base64, &maker, &taker).unwrap();
    BondProof { cert_expiry, ..proof }
}

#[test]
fn cert_expiry_boundary() {
    let file = file();
    for case in &file.certificate_expiry_chosen_by_maker.cases {
        assert_eq!(Certificate::expiry_at(case.height), Some(case.expected_cert_expiry));
        let proof = proof_with_expiry(case.expected_cert_expiry);
        assert!(proof.check_expiry(case.expires_after_height).is_ok());
        assert!(proof.check_expiry(case.expires_after_height + 1).is_err());
    }
    assert_eq!(file.utxo_validation.len(), 6);
    for case in &file.utxo_validation {
        let valid = case.utxo_exists
            && case.confirmations >= 1
            && case.script_matches
            && proof_with_expiry(case.cert_expiry).check_expiry(case.current_height).is_ok();
        assert_eq!(valid, case.expected_valid, "{}", case.name);
    }
}

fn assert_close(actual: f64, expected: f64, name: &str) {
    let tolerance = expected.abs().max(1.0) * 1e-9;
    assert!((actual - expected).abs() <= tolerance, "{name}: {actual} instead of {expected}");
}

#[test]
fn values_agree() {
    for case in &file().bond_value.cases {
        let terms = BondTerms {
            amount: Amount::from_sat(case.value_sat),
            confirmation_time: case.confirmation_time,
            locktime: case.locktime,
        };
        let value =
            fidelity_bond::bond_value(&terms, case.current_time, case.interest_rate, case.exponent);
        assert_close(value, case.expected_float, &case.name);
    }
}

#[derive(Deserialize)]
struct BondValueFile {
    values: Vec<BondValueCase>,
    maker_cert_expiry: Vec<MakerExpiry>,
    cert_expiry_check: Vec<ExpiryCheck>,
    timenumber: Vec<ValidTimeNumber>,
    next_locktime: Vec<NextLocktime>,
}

#[derive(Deserialize)]
struct NextLocktime {
    from: String,
    next: String,
}

/// Unix time of `YYYY-MM-DDTHH:MM:SS`.
fn unix_time(text: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    let month = TimeNumber::from_month(&text[..7]).unwrap();
    let days = number(8..10) - 1;
    let seconds = (number(11..13) * 60 + number(14..16)) * 60 + number(17..19);
    u64::from(month.locktime()) + days * 86_400 + seconds
}

#[derive(Deserialize)]
struct BondValueCase {
    utxo_value: u64,
    confirmation_time: u64,
    locktime: u64,
    current_time: u64,
    interest_rate: f64,
    exponent: f64,
    bond_value: f64,
}

#[derive(Deserialize)]
struct MakerExpiry {
    block_height: u32,
    maker_cert_expiry: u16,
}

#[derive(Deserialize)]
struct ExpiryCheck {
    current_height: u32,
    cert_expiry: u16,
    valid: bool,
}

#[test]
fn bond_value_file_agrees() {
    let file: BondValueFile = super::load("bond_value");
    assert_eq!(file.values.len(), 150);
    for (index, case) in file.values.iter().enumerate() {
        let terms = BondTerms {
            amount: Amount::from_sat(case.utxo_value),
            confirmation_time: case.confirmation_time,
            locktime: case.locktime,
        };
        let value =
            fidelity_bond::bond_value(&terms, case.current_time, case.interest_rate, case.exponent);
        assert_close(value, case.bond_value, &format!("case {index}"));
    }
    for case in &file.maker_cert_expiry {
        assert_eq!(Certificate::expiry_at(case.block_height), Some(case.maker_cert_expiry));
    }
    for case in &file.cert_expiry_check {
        let valid = proof_with_expiry(case.cert_expiry).check_expiry(case.current_height).is_ok();
        assert_eq!(valid, case.valid);
    }
    for case in &file.timenumber {
        assert_eq!(u64::from(TimeNumber::new(case.timenumber).unwrap().locktime()), case.timestamp);
    }
    assert_eq!(file.next_locktime.len(), 5);
    for case in &file.next_locktime {
        let next = TimeNumber::after(unix_time(&case.from)).unwrap();
        assert_eq!(u64::from(next.locktime()), unix_time(&case.next), "{}", case.from);
    }
    assert_eq!(TimeNumber::after(4_099_766_400), None, "there is no month after December 2099");
}
