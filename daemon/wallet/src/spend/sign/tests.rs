use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{Amount, Sequence, TxIn, Txid, absolute};

use super::*;
use crate::keys::ImportedKeys;
use crate::mnemonic::entropy_of_phrase;
use crate::path::ScriptPlace;
use crate::snapshot::CoinKind;
use crate::spend::InputError;
use crate::types::{Branch, Keychain, Mixdepth, Network, WalletType};

const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                      abandon abandon about";
/// January 2022 and February 2038: witness scripts of 42 and 43 bytes.
const BONDS: [u16; 2] = [24, 217];

fn keys(wallet_type: WalletType) -> MasterKey {
    let entropy = entropy_of_phrase(PHRASE).unwrap();
    let imported = ImportedKeys::default();
    MasterKey::from_entropy(&entropy, None, wallet_type, Network::Regtest, imported).unwrap()
}

fn coin(keys: &MasterKey, place: ScriptPlace, number: u8) -> Coin {
    let locktime = match place {
        ScriptPlace::Bond { timenumber } => {
            u32::try_from(joinery_proto::fidelity_bond::locktime_of_month(timenumber)).ok()
        }
        _ => None,
    };
    Coin {
        outpoint: OutPoint { txid: Txid::from_byte_array([number; 32]), vout: number.into() },
        value: Amount::from_sat(100_000 + u64::from(number)),
        script: keys.script_pubkey(&place).unwrap(),
        place,
        height: Some(1),
        kind: CoinKind::Deposit,
        frozen: false,
        locked: false,
        locktime,
        commitments_used: Vec::new(),
    }
}

fn ranged(index: u32) -> ScriptPlace {
    let keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };
    ScriptPlace::Ranged { keychain, index }
}

fn transaction(coins: &[Coin], lock_time: u32) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: absolute::LockTime::from_consensus(lock_time),
        input: coins
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .collect(),
        output: vec![TxOut { value: Amount::from_sat(90_000), script_pubkey: ScriptBuf::new() }],
    }
}

/// Two ordinary coins and both kinds of bonds, with a lock time that opens them.
fn everything() -> (MasterKey, Vec<Coin>, Transaction) {
    let keys = keys(WalletType::FidelityBond);
    let bonds = BONDS.map(|timenumber| ScriptPlace::Bond { timenumber });
    let coins: Vec<Coin> = (1..)
        .zip([ranged(0), ranged(7), bonds[0], bonds[1]])
        .map(|(number, place)| coin(&keys, place, number))
        .collect();
    let lock_time = coins.iter().filter_map(|coin| coin.locktime).max().unwrap();
    let tx = transaction(&coins, lock_time);
    (keys, coins, tx)
}

fn refused(tx: &mut Transaction, coins: &[Coin], keys: &MasterKey) -> &'static str {
    let before = tx.clone();
    let error = sign(tx, coins, keys);
    assert_eq!(*tx, before, "a refused transaction is unchanged");
    match error {
        Err(SendError::SigningCheck(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn verify(tx: &Transaction, coins: &[Coin], index: usize) -> Result<(), InputError> {
    let coin = &coins[index];
    let prevout = TxOut { value: coin.value, script_pubkey: coin.script.clone() };
    verify_input(&mut SighashCache::new(tx), index, &prevout)
}

#[test]
fn all_inputs_signed() {
    let (keys, coins, mut tx) = everything();
    // The order of the coins is not that of the inputs.
    let mut shuffled = coins.clone();
    shuffled.reverse();
    sign(&mut tx, &shuffled, &keys).unwrap();
    for (index, input) in tx.input.iter().enumerate() {
        assert_eq!(input.witness.len(), 2);
        assert_eq!(verify(&tx, &coins, index), Ok(()));
    }

    let (_, _, mut tx) = everything();
    for missing in 0..coins.len() {
        let mut fewer = coins.clone();
        fewer.remove(missing);
        assert_eq!(refused(&mut tx, &fewer, &keys), "inputs and coins differ in number");
        let mut other = coins.clone();
        other[missing].outpoint.vout += 100;
        assert_eq!(refused(&mut tx, &other, &keys), "an input is not one of the coins");
        let mut twice = coins.clone();
        twice[missing] = coins[(missing + 1) % coins.len()].clone();
        assert_eq!(refused(&mut tx, &twice, &keys), "inputs and coins differ in number");
    }
    let mut more = coins.clone();
    more.push(coin(&keys, ranged(9), 9));
    assert_eq!(refused(&mut tx, &more, &keys), "inputs and coins differ in number");
}

#[test]
fn nested_inputs_are_signed_and_verified() {
    let keys = keys(WalletType::NestedSegwit);
    let coins = [coin(&keys, ranged(0), 1), coin(&keys, ranged(1), 2)];
    let mut tx = transaction(&coins, 100);
    sign(&mut tx, &coins, &keys).unwrap();
    assert_eq!(tx.input[0].script_sig.len(), 23);
    for index in 0..2 {
        assert_eq!(verify(&tx, &coins, index), Ok(()));
    }
    let other = tx.input[1].script_sig.clone();
    tx.input[0].script_sig = other;
    assert_eq!(verify(&tx, &coins, 0), Err(InputError::Program));
    tx.input[0].script_sig = ScriptBuf::new();
    assert_eq!(verify(&tx, &coins, 0), Err(InputError::ScriptSig));
}

#[test]
fn a_script_that_the_key_does_not_own_is_never_signed() {
    let (keys, coins, mut tx) = everything();
    for wrong in 0..coins.len() {
        let mut changed = coins.clone();
        changed[wrong].script = coins[(wrong + 1) % coins.len()].script.clone();
        assert_eq!(refused(&mut tx, &changed, &keys), "a key does not own its coin");
        let mut changed = coins.clone();
        changed[wrong].place = ranged(500);
        assert_eq!(refused(&mut tx, &changed, &keys), "a key does not own its coin");
    }
    let mut changed = coins;
    changed[0].place = ScriptPlace::Imported { mixdepth: Mixdepth(0), index: 0 };
    assert_eq!(refused(&mut tx, &changed, &keys), "the wallet has no key for a coin");
}

#[test]
fn bonds_are_not_signed_before_the_transaction_opens_them() {
    let (keys, coins, tx) = everything();
    let newest = coins.iter().filter_map(|coin| coin.locktime).max().unwrap();
    for lock_time in [0, 850_000, newest - 1] {
        let mut tx = tx.clone();
        tx.lock_time = absolute::LockTime::from_consensus(lock_time);
        assert_eq!(refused(&mut tx, &coins, &keys), "a signed input does not verify");
    }
    // A final sequence would switch the lock time off, and the script refuses that.
    let mut tx = tx;
    tx.input[3].sequence = Sequence::MAX;
    assert_eq!(refused(&mut tx, &coins, &keys), "a signed input does not verify");
}

#[test]
fn no_change_to_a_signed_transaction_goes_unnoticed() {
    let (keys, coins, mut tx) = everything();
    sign(&mut tx, &coins, &keys).unwrap();
    for index in 0..coins.len() {
        let mut richer = coins.clone();
        richer[index].value = Amount::from_sat(200_000);
        assert_eq!(verify(&tx, &richer, index), Err(InputError::Signature));

        let mut changed = tx.clone();
        changed.output[0].value = Amount::from_sat(90_001);
        assert_eq!(verify(&changed, &coins, index), Err(InputError::Signature));
        let mut changed = tx.clone();
        changed.version = Version::ONE;
        assert_eq!(verify(&changed, &coins, index), Err(InputError::Signature));
        let mut changed = tx.clone();
        changed.input[index].witness = tx.input[(index + 1) % coins.len()].witness.clone();
        assert!(verify(&changed, &coins, index).is_err());
        let mut changed = tx.clone();
        changed.input[index].script_sig = ScriptBuf::from(vec![0x51]);
        assert_eq!(verify(&changed, &coins, index), Err(InputError::ScriptSig));

        // One bit anywhere in the witness.
        let items = tx.input[index].witness.to_vec();
        for (item, bytes) in items.iter().enumerate() {
            for position in 0..bytes.len() {
                let mut items = items.clone();
                items[item][position] ^= 1;
                let mut changed = tx.clone();
                changed.input[index].witness = Witness::from_slice(&items);
                assert!(verify(&changed, &coins, index).is_err(), "{index} {item} {position}");
            }
        }
        for count in [0, 1, 3] {
            let mut changed = tx.clone();
            let mut items = items.clone();
            items.resize(count, vec![1]);
            changed.input[index].witness = Witness::from_slice(&items);
            assert_eq!(verify(&changed, &coins, index), Err(InputError::Witness));
        }
    }
    let mut none = coins;
    none[0].script = ScriptBuf::new();
    assert_eq!(verify(&tx, &none, 0), Err(InputError::UnknownScript));
    let prevout = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() };
    let error = verify_input(&mut SighashCache::new(&tx), 99, &prevout);
    assert_eq!(error, Err(InputError::NoSuchInput));
}

#[test]
fn signatures_are_not_ground() {
    // With 64 signatures, all of 71 bytes would be chance with probability 2^-64: grinding.
    let keys = keys(WalletType::NativeSegwit);
    let coins: Vec<Coin> = (0..64).map(|n: u8| coin(&keys, ranged(n.into()), n)).collect();
    let mut tx = transaction(&coins, 100);
    sign(&mut tx, &coins, &keys).unwrap();
    let long = tx.input.iter().filter(|input| input.witness[0].len() == 72).count();
    assert!((10..=54).contains(&long), "{long} of 64 signatures have a high R");
}
