//! `cjfee.json`, `taker_transaction_build`: the outputs and the miner fee of whole rounds.

use std::collections::BTreeMap;

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::{Address, Network, OutPoint, ScriptBuf, Txid};
use serde::Deserialize;

use crate::message::IoAuth;
use crate::nacl_box::NaclSecretKey;
use crate::nick::Nick;
use crate::offer::{Offer, OrderType};
use crate::secp;
use crate::transaction::fees::sweep_fee_is_acceptable;
use crate::transaction::signing::{Authorisation, OwnCoin, p2wpkh};
use crate::transaction::taker::{
    BuildError, Coinjoin, ForeignCoin, MakerFault, TakerShare, UsedPlaces, VerifiedMaker,
};
use crate::utxo::WireUtxo;

#[derive(Deserialize)]
struct File {
    taker_transaction_build: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    label: String,
    requested_makers: usize,
    fee_rate_sat_per_kvb: u64,
    taker_inputs: Vec<u64>,
    cj_amount: u64,
    offers: BTreeMap<String, OfferJson>,
    maker_inputs: BTreeMap<String, Vec<u64>>,
    sweep: bool,
    initial_total_txfee: u64,
    excluded_subdust_change: Vec<String>,
    result: Outcome,
}

#[derive(Deserialize)]
struct OfferJson {
    ordertype: String,
    cjfee: String,
    txfee: u64,
}

#[derive(Deserialize)]
struct Outcome {
    ok: bool,
    reason: Option<String>,
    message: Option<String>,
    total_txfee_estimate: Option<u64>,
    cjfee_total: Option<u64>,
    outputs: Option<Vec<Output>>,
    actual_miner_fee: Option<u64>,
}

#[derive(Deserialize)]
struct Output {
    address: String,
    value: u64,
}

/// Keys of these tests: one for each name and number.
fn key(name: &str, number: usize) -> SecretKey {
    let seed = format!("{name} {number}");
    let hash = bdk_wallet::bitcoin::hashes::sha256::Hash::hash(seed.as_bytes());
    SecretKey::from_slice(&hash.to_byte_array()).unwrap()
}

fn coin(name: &str, number: usize, value: u64) -> OwnCoin {
    let key = key(name, number);
    let txid = Txid::from_byte_array(key.secret_bytes());
    OwnCoin::new(OutPoint { txid, vout: 0 }, value, key)
}

fn script(name: &str) -> ScriptBuf {
    p2wpkh(&key(name, 0).public_key(secp()))
}

fn address(name: &str) -> String {
    Address::from_script(&script(name), Network::Regtest).unwrap().to_string()
}

fn verified(case: &Case, maker: &str, values: &[u64]) -> Result<VerifiedMaker, MakerFault> {
    let OfferJson { ordertype, cjfee, txfee } = &case.offers[maker];
    let fields = format!("0 27300 10000000000 {txfee} {cjfee}");
    let offer = Offer::parse(OrderType::parse(ordertype).unwrap(), &fields).unwrap();
    let coins: Vec<OwnCoin> =
        values.iter().enumerate().map(|(number, value)| coin(maker, number, *value)).collect();
    let session = NaclSecretKey::from_bytes([7; 32]).public_key();
    let Authorisation { key, signature } = coins[0].authorise(&session);
    let answer = IoAuth {
        utxos: coins.iter().map(|coin| WireUtxo::plain(coin.outpoint)).collect(),
        auth_key: key,
        cj_address: address(&format!("CJ-{maker}")),
        change_address: address(&format!("CHG-{maker}")),
        btc_signature: signature,
    };
    let chain: Vec<Option<ForeignCoin>> = coins
        .iter()
        .map(|coin| {
            Some(ForeignCoin {
                outpoint: coin.outpoint,
                value: coin.value,
                script: coin.script().clone(),
                confirmations: 6,
            })
        })
        .collect();
    let nick: Nick = format!("J5{maker}{}", "z".repeat(13)).parse().unwrap();
    let used = UsedPlaces::default();
    let regtest = Network::Regtest;
    VerifiedMaker::check(nick, &offer, case.cj_amount, &answer, &session, &chain, regtest, &used)
}

/// The estimate that the reference made again with the real number of inputs: given, or in its message.
fn estimate(case: &Case) -> Option<u64> {
    let message = case.result.message.as_deref().unwrap_or_default();
    let told = message.split(['(', ' ']).zip(message.split(['(', ' ']).skip(1));
    let told = told.filter(|(_, unit)| unit.starts_with("sat")).find_map(|(n, _)| n.parse().ok());
    case.result.total_txfee_estimate.or(told)
}

/// Virtual bytes of a round of P2WPKH, by the reference's size model (`spec/wallet.md` 8.2).
fn vsize(inputs: usize, outputs: usize) -> u64 {
    let (inputs, outputs) = (inputs as u64, outputs as u64);
    (4 * (10 + 41 * inputs + 31 * outputs) + 2 + 108 * inputs).div_ceil(4)
}

#[test]
fn rounds_are_built_as_by_the_reference() {
    let file: File = super::load("cjfee");
    assert_eq!(file.taker_transaction_build.len(), 11);
    for case in &file.taker_transaction_build {
        let label = &case.label;
        let mut makers = Vec::new();
        for (maker, values) in &case.maker_inputs {
            match verified(case, maker, values) {
                Ok(maker) => makers.push(maker),
                Err(fault) => {
                    assert!(matches!(fault, MakerFault::DustChange { .. }), "{label}: {fault}");
                    assert!(case.excluded_subdust_change.contains(maker), "{label}: {maker}");
                }
            }
        }
        if case.result.reason.as_deref().is_some_and(|reason| reason.contains("Not enough")) {
            assert!(makers.len() < case.requested_makers - 1, "{label}");
            continue;
        }
        if case.result.reason.as_deref().is_some_and(|reason| reason.contains("feerate for sweep"))
        {
            let inputs =
                case.taker_inputs.len() + case.maker_inputs.values().map(Vec::len).sum::<usize>();
            let now = vsize(inputs, 2 * makers.len() + 1) * case.fee_rate_sat_per_kvb / 1000;
            let limit = if label.contains("0.3") { 0.3 } else { 0.8 };
            let accepted = sweep_fee_is_acceptable(case.initial_total_txfee, now, limit);
            assert!(!accepted, "{label}: {now} for {}", case.initial_total_txfee);
            continue;
        }
        let offers: u64 = makers.iter().map(|maker| maker.fee(case.cj_amount)).sum();
        if let Some(total) = case.result.cjfee_total {
            assert_eq!(offers, total, "{label}");
        }
        let share = TakerShare {
            coins: case
                .taker_inputs
                .iter()
                .enumerate()
                .map(|(n, v)| coin("taker", n, *v))
                .collect(),
            amount: case.cj_amount,
            destination: script("MYCJ"),
            change: (!case.sweep).then(|| script("MYCHANGE")),
        };
        let built = Coinjoin::build(share, makers, estimate(case).unwrap(), 100, |_| 0);
        let Some(expected) = &case.result.outputs else {
            assert!(!case.result.ok);
            assert!(matches!(built, Err(BuildError::InputsTooSmall { .. })), "{label}");
            continue;
        };
        let built = built.unwrap();
        let mut outputs: Vec<(ScriptBuf, u64)> = built
            .transaction()
            .output
            .iter()
            .map(|output| (output.script_pubkey.clone(), output.value.to_sat()))
            .collect();
        let mut expected: Vec<(ScriptBuf, u64)> =
            expected.iter().map(|output| (script(&output.address), output.value)).collect();
        outputs.sort();
        expected.sort();
        assert_eq!(outputs, expected, "{label}");
        assert_eq!(Some(built.miner_fee()), case.result.actual_miner_fee, "{label}");
    }
}
