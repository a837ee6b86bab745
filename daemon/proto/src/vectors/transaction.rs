//! `transaction.json`.

use std::collections::HashMap;

use bdk_wallet::bitcoin::consensus::encode::deserialize_hex;
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::{Address, Network, OutPoint, ScriptBuf, Transaction};
use serde::Deserialize;

use crate::message::{InputSignature, IoAuth, parse_tx, tx_payload};
use crate::nacl_box::NaclSecretKey;
use crate::nick::Nick;
use crate::offer::{Offer, OrderType};
use crate::transaction::fees::Agreement;
use crate::transaction::maker::MakerShare;
use crate::transaction::signing::{Authorisation, OwnCoin};
use crate::transaction::taker::{
    Coinjoin, FinishError, ForeignCoin, MakerFault, TakerShare, UsedPlaces, VerifiedMaker,
};
use crate::utxo::WireUtxo;

#[derive(Deserialize)]
struct File {
    amount: u64,
    miner_fee: u64,
    participants: HashMap<String, Participant>,
    unsigned_tx: String,
    tx_payload_base64: String,
    signatures: Vec<Signature>,
    final_tx: String,
    txid: String,
    maker_verification: Vec<Verification>,
    sig_message_parsing: Vec<SigMessage>,
}

#[derive(Deserialize)]
struct Participant {
    inputs: Vec<Input>,
    cj_address: String,
    change_address: String,
    change_value: u64,
    ordertype: Option<String>,
    cjfee: Option<String>,
    txfee: Option<u64>,
}

#[derive(Deserialize)]
struct Input {
    txid: String,
    vout: u32,
    value: u64,
}

impl Input {
    fn outpoint(&self) -> OutPoint {
        OutPoint { txid: self.txid.parse().unwrap(), vout: self.vout }
    }
}

#[derive(Deserialize)]
struct Signature {
    owner: String,
    txid: String,
    vout: u32,
    value: u64,
    privkey: String,
    script_pubkey: String,
    sig_message_base64: String,
}

impl Signature {
    fn outpoint(&self) -> OutPoint {
        OutPoint { txid: self.txid.parse().unwrap(), vout: self.vout }
    }

    fn message(&self) -> InputSignature {
        InputSignature::parse(&self.sig_message_base64).unwrap()
    }

    fn coin(&self) -> OwnCoin {
        let key: SecretKey = self.privkey.parse().unwrap();
        OwnCoin::new(self.outpoint(), self.value, key)
    }
}

#[derive(Deserialize)]
struct Verification {
    name: String,
    unsigned_tx: String,
    our_utxos: Vec<Input>,
    cj_address: String,
    change_address: String,
    amount: u64,
    ordertype: String,
    cjfee: String,
    txfee: u64,
    reference: bool,
    second_implementation: bool,
}

#[derive(Deserialize)]
struct SigMessage {
    name: String,
    base64: String,
    reference: SigOutcome,
}

#[derive(Deserialize)]
struct SigOutcome {
    ok: bool,
}

fn file() -> File {
    super::load("transaction")
}

fn script(address: &str) -> ScriptBuf {
    let address: Address<_> = address.parse().unwrap();
    address.require_network(Network::Regtest).unwrap().script_pubkey()
}

fn offer(order_type: &str, tx_fee: u64, fee: &str) -> Offer {
    let order_type = OrderType::parse(order_type).unwrap();
    Offer::parse(order_type, &format!("0 27300 {} {tx_fee} {fee}", u32::MAX)).unwrap()
}

#[test]
fn payload_round_trips() {
    let file = file();
    let tx: Transaction = deserialize_hex(&file.unsigned_tx).unwrap();
    assert_eq!(tx_payload(&tx), file.tx_payload_base64);
    assert_eq!(parse_tx(&file.tx_payload_base64).unwrap(), tx);
}

#[test]
fn maker_checks_decide_as_the_reference_or_stricter() {
    let file = file();
    assert_eq!(file.maker_verification.len(), 18);
    let coins: HashMap<OutPoint, OwnCoin> =
        file.signatures.iter().map(|s| (s.outpoint(), s.coin())).collect();
    for case in &file.maker_verification {
        let share = MakerShare {
            agreement: Agreement::of(&offer(&case.ordertype, case.txfee, &case.cjfee), case.amount),
            coins: case.our_utxos.iter().map(|utxo| coins[&utxo.outpoint()].lent()).collect(),
            cj_script: script(&case.cj_address),
            change_script: script(&case.change_address),
        };
        let result = share.verify(deserialize_hex(&case.unsigned_tx).unwrap(), None);
        let expected = case.reference && case.second_implementation;
        assert_eq!(result.is_ok(), expected, "{}: {result:?}", case.name);
    }
}

#[test]
fn makers_sign_byte_for_byte() {
    let file = file();
    for maker in ["maker1", "maker2"] {
        let participant = &file.participants[maker];
        let signatures: Vec<_> = file.signatures.iter().filter(|s| s.owner == maker).collect();
        let own: Vec<OwnCoin> = signatures.iter().map(|s| s.coin()).collect();
        let share = MakerShare {
            agreement: Agreement::of(&terms(&file, maker), file.amount),
            coins: own.iter().map(OwnCoin::lent).collect(),
            cj_script: script(&participant.cj_address),
            change_script: script(&participant.change_address),
        };
        assert_eq!(share.change(), Some(participant.change_value));
        for signature in &signatures {
            assert_eq!(format!("{:x}", signature.coin().script()), signature.script_pubkey);
        }
        let verified = share.verify(deserialize_hex(&file.unsigned_tx).unwrap(), None).unwrap();
        let made = verified.sign(&own).unwrap();
        let made: Vec<String> = made.iter().map(ToString::to_string).collect();
        let expected: Vec<String> =
            signatures.iter().map(|s| s.sig_message_base64.clone()).collect();
        assert_eq!(made, expected, "{maker}");
    }
}

#[test]
fn sig_messages_parse_as_in_the_reference() {
    for case in file().sig_message_parsing {
        let result = InputSignature::parse(&case.base64);
        // A push with OP_PUSHDATA1 is not minimal; no implementation sends it, and it is refused here.
        let expected = case.reference.ok && !case.name.contains("PUSHDATA1");
        assert_eq!(result.is_ok(), expected, "{}: {result:?}", case.name);
    }
}

/// Every byte of the session keys of these tests.
const SESSION_BYTE: u8 = 6;

/// A maker's `!ioauth` as the participants of the file would have made it, and what the chain says.
fn answer(file: &File, maker: &str) -> (IoAuth, NaclSecretKey, Vec<Option<ForeignCoin>>) {
    let participant = &file.participants[maker];
    let coins: Vec<OwnCoin> =
        file.signatures.iter().filter(|s| s.owner == maker).map(Signature::coin).collect();
    let session = NaclSecretKey::from_bytes([SESSION_BYTE; 32]);
    let Authorisation { key, signature } = coins[0].authorise(&session.public_key());
    let answer = IoAuth {
        utxos: participant.inputs.iter().map(|i| WireUtxo::plain(i.outpoint())).collect(),
        auth_key: key,
        cj_address: participant.cj_address.clone(),
        change_address: participant.change_address.clone(),
        btc_signature: signature,
    };
    let chain = participant.inputs.iter().map(|input| {
        let coin = coins.iter().find(|coin| coin.outpoint == input.outpoint()).unwrap();
        Some(ForeignCoin {
            outpoint: coin.outpoint,
            value: input.value,
            script: coin.script().clone(),
            confirmations: 1,
        })
    });
    let chain = chain.collect();
    (answer, session, chain)
}

fn nick(maker: &str) -> Nick {
    let text = if maker == "maker1" { "J5DdKBhSf2Ykxqqy" } else { "J5Zvy3UwYM5eSvPO" };
    text.parse().unwrap()
}

fn terms(file: &File, maker: &str) -> Offer {
    let participant = &file.participants[maker];
    offer(
        participant.ordertype.as_deref().unwrap(),
        participant.txfee.unwrap(),
        participant.cjfee.as_deref().unwrap(),
    )
}

fn check(
    file: &File,
    maker: &str,
    bend: impl FnOnce(&mut IoAuth, &mut Vec<Option<ForeignCoin>>, &mut UsedPlaces),
) -> Result<VerifiedMaker, MakerFault> {
    let (mut answer, session, mut coins) = answer(file, maker);
    let mut used = UsedPlaces::default();
    bend(&mut answer, &mut coins, &mut used);
    VerifiedMaker::check(
        nick(maker),
        &terms(file, maker),
        file.amount,
        &answer,
        &session.public_key(),
        &coins,
        Network::Regtest,
        &used,
    )
}

fn build(file: &File) -> Coinjoin {
    let taker = &file.participants["taker"];
    let share = TakerShare {
        coins: file.signatures.iter().filter(|s| s.owner == "taker").map(Signature::coin).collect(),
        amount: file.amount,
        destination: script(&taker.cj_address),
        change: Some(script(&taker.change_address)),
    };
    let makers = ["maker1", "maker2"].map(|maker| check(file, maker, |_, _, _| {}).unwrap());
    let tx: Transaction = deserialize_hex(&file.unsigned_tx).unwrap();
    let height = tx.lock_time.to_consensus_u32();
    let mut state = 1_usize;
    let draw = |bound| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % bound
    };
    Coinjoin::build(share, makers.into(), file.miner_fee, height, draw).unwrap()
}

#[test]
fn taker_builds_the_same_transaction_up_to_order() {
    let file = file();
    let coinjoin = build(&file);
    assert_eq!(coinjoin.miner_fee(), file.miner_fee);
    let mut ours = coinjoin.unsigned();
    let mut expected: Transaction = deserialize_hex(&file.unsigned_tx).unwrap();
    assert_ne!(ours.compute_txid(), expected.compute_txid(), "the order must be ours");
    for tx in [&mut ours, &mut expected] {
        tx.input.sort_by_key(|input| input.previous_output);
        tx.output.sort();
    }
    assert_eq!(ours, expected);
}

#[test]
fn tx_sent_to_makers_has_no_side_channel() {
    let unsigned = build(&file()).unsigned();
    let bytes = bdk_wallet::bitcoin::consensus::encode::serialize(&unsigned);
    // No segwit marker, and every input has the same empty script and sequence.
    assert_ne!(bytes.get(4..6), Some([0, 1].as_slice()));
    for input in &unsigned.input {
        assert!(input.script_sig.is_empty() && input.witness.is_empty());
        assert_eq!(input.sequence.0, 0xffff_fffe);
    }
}

#[test]
fn all_inputs_signed() {
    let file = file();
    let tx: Transaction = deserialize_hex(&file.unsigned_tx).unwrap();
    let mut coinjoin = build(&file).with_transaction(tx);
    let signatures: Vec<&Signature> =
        file.signatures.iter().filter(|s| s.owner != "taker").collect();
    assert_eq!(coinjoin.clone().finish(), Err(FinishError::Unsigned));
    // Any order, with repetitions.
    for signature in signatures.iter().rev().skip(1).chain(&signatures) {
        assert!(!coinjoin.makers_complete());
        coinjoin.add_signature(&nick(&signature.owner), &signature.message());
    }
    assert!(coinjoin.makers_complete());
    let first = signatures[0];
    assert!(!coinjoin.add_signature(&nick(&first.owner), &first.message()), "only once");
    let tx = coinjoin.finish().unwrap();
    assert_eq!(bdk_wallet::bitcoin::consensus::encode::serialize_hex(&tx), file.final_tx);
    assert_eq!(tx.compute_txid().to_string(), file.txid);
}

#[test]
fn sig_pubkey_owns_input() {
    let file = file();
    let tx: Transaction = deserialize_hex(&file.unsigned_tx).unwrap();
    let mut coinjoin = build(&file).with_transaction(tx);
    for signature in file.signatures.iter().filter(|s| s.owner != "taker") {
        // Another maker cannot sign for this one, and nobody for us.
        let other = if signature.owner == "maker1" { "maker2" } else { "maker1" };
        assert!(!coinjoin.add_signature(&nick(other), &signature.message()));
        let mut bent = signature.message();
        bent.signature[20] ^= 1;
        assert!(!coinjoin.add_signature(&nick(&signature.owner), &bent));
        let stranger = InputSignature { key: file.signatures[1].coin().public_key(), ..bent };
        assert!(!coinjoin.add_signature(&nick(&signature.owner), &stranger));
    }
    let own = file.signatures.iter().find(|s| s.owner == "taker").unwrap();
    assert!(!coinjoin.add_signature(&nick("maker1"), &own.message()));
}

#[test]
fn ioauth_binds_key_to_utxo() {
    let file = file();
    let (answer, _, coins) = answer(&file, "maker1");
    let foreign = NaclSecretKey::from_bytes([99; 32]).public_key();
    let used = UsedPlaces::default();
    let result = VerifiedMaker::check(
        nick("maker1"),
        &terms(&file, "maker1"),
        file.amount,
        &answer,
        &foreign,
        &coins,
        Network::Regtest,
        &used,
    );
    assert_eq!(result, Err(MakerFault::KeySignature));
    let stranger = file.signatures.iter().find(|s| s.owner == "taker").unwrap().coin();
    let result = check(&file, "maker1", |answer, _, _| {
        let session = NaclSecretKey::from_bytes([SESSION_BYTE; 32]).public_key();
        let Authorisation { key, signature } = stranger.authorise(&session);
        (answer.auth_key, answer.btc_signature) = (key, signature);
    });
    assert_eq!(result, Err(MakerFault::ForeignKey));
}

#[test]
fn bad_maker_answers_are_dropped() {
    let file = file();
    assert!(check(&file, "maker2", |_, _, _| {}).is_ok());
    let spent = check(&file, "maker2", |_, coins, _| coins[1] = None);
    assert!(matches!(spent, Err(MakerFault::Spent(_))));
    let unconfirmed = check(&file, "maker2", |_, coins, _| {
        coins[1].as_mut().unwrap().confirmations = 0;
    });
    assert!(matches!(unconfirmed, Err(MakerFault::Unconfirmed(_))));
    let taproot = check(&file, "maker2", |_, coins, _| {
        coins[1].as_mut().unwrap().script =
            ScriptBuf::from_bytes([vec![0x51, 0x20], vec![7; 32]].concat());
    });
    assert!(matches!(taproot, Err(MakerFault::ScriptType(_))));
    let twice = check(&file, "maker2", |answer, coins, _| {
        answer.utxos[1] = answer.utxos[0].clone();
        coins[1] = coins[0].clone();
    });
    assert!(matches!(twice, Err(MakerFault::DuplicateInput(_))));
    let of_another = check(&file, "maker2", |answer, _, used| {
        used.add([answer.utxos[0].outpoint], []);
    });
    assert!(matches!(of_another, Err(MakerFault::DuplicateInput(_))));
    let reused = check(&file, "maker2", |answer, _, used| {
        used.add([], [script(&answer.change_address)]);
    });
    assert_eq!(reused, Err(MakerFault::ReusedAddress));
    let mainnet = check(&file, "maker2", |answer, _, _| {
        answer.cj_address = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".to_owned();
    });
    assert_eq!(mainnet, Err(MakerFault::Address));
    let dust = check(&file, "maker2", |_, coins, _| {
        coins[0].as_mut().unwrap().value -= 3_000_500 - 27_299;
    });
    assert_eq!(dust, Err(MakerFault::DustChange { change: Some(27_299) }));
    let negative = check(&file, "maker2", |_, coins, _| coins[0].as_mut().unwrap().value = 0);
    assert_eq!(negative, Err(MakerFault::DustChange { change: None }));
}

#[test]
fn cj_and_change_distinct() {
    let result = check(&file(), "maker1", |answer, _, _| {
        answer.change_address = answer.cj_address.clone();
    });
    assert_eq!(result, Err(MakerFault::ReusedAddress));
}

#[test]
fn maker_input_cap() {
    let file = file();
    let result = check(&file, "maker1", |answer, coins, _| {
        let (utxo, coin) = (answer.utxos[0].clone(), coins[0].clone());
        for vout in 100..115 {
            let outpoint = OutPoint { vout, ..utxo.outpoint };
            answer.utxos.push(WireUtxo::plain(outpoint));
            coins.push(coin.clone().map(|coin| ForeignCoin { outpoint, ..coin }));
        }
    });
    assert_eq!(result, Err(MakerFault::InputCount(16)));
}

#[test]
fn maker_liquidity_confirmed_p2wpkh() {
    // The two halves are cases of `bad_maker_answers_are_dropped`; here every coin is checked, not only
    // the one that authorises.
    let file = file();
    for index in 0..2 {
        let result = check(&file, "maker2", |_, coins, _| {
            coins[index].as_mut().unwrap().confirmations = 0;
        });
        assert!(matches!(result, Err(MakerFault::Unconfirmed(_))), "coin {index}");
    }
}
