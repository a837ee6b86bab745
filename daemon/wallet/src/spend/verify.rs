//! Whether a signed input may spend its coin: the consensus rules for the three script types that the
//! wallet owns, and nothing laxer.

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::ecdsa;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::script::Instruction;
use bdk_wallet::bitcoin::secp256k1::Message;
use bdk_wallet::bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bdk_wallet::bitcoin::{
    CompressedPublicKey, PublicKey, Script, ScriptBuf, SegwitV0Sighash, Transaction, TxIn, TxOut,
};
use joinery_proto::{fidelity_bond, secp};

/// Why an input does not spend its coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The transaction has no such input.
    #[error("there is no such input")]
    NoSuchInput,
    /// Not P2WPKH, P2SH-P2WPKH or a bond.
    #[error("the coin has a script type that is not checked here")]
    UnknownScript,
    /// scriptSig is not what the script type needs.
    #[error("the scriptSig does not fit the coin")]
    ScriptSig,
    /// The witness has a wrong number or form of items.
    #[error("the witness does not fit the coin")]
    Witness,
    /// The key or witness script does not hash to the coin's program.
    #[error("the witness is for another coin")]
    Program,
    /// Not DER with SIGHASH_ALL.
    #[error("the signature is malformed or not over everything")]
    SignatureForm,
    /// The signature is not of this key over this transaction and value.
    #[error("the signature is wrong")]
    Signature,
    /// The lock time of the transaction does not open the bond.
    #[error("the bond is still locked for this transaction")]
    Locked,
}

/// Checks one signed input against the output it spends.
///
/// Accepts SIGHASH_ALL signatures with low S on P2WPKH, P2SH-P2WPKH and bond scripts.
///
/// # Errors
/// The first rule that is broken.
pub fn verify_input(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    prevout: &TxOut,
) -> Result<(), InputError> {
    let tx: &Transaction = cache.transaction();
    let input = tx.input.get(index).ok_or(InputError::NoSuchInput)?.clone();
    let lock_time = tx.lock_time;
    let script = &prevout.script_pubkey;
    if script.is_p2wsh() {
        return verify_bond(cache, index, &input, lock_time, prevout);
    }
    let program = if script.is_p2wpkh() {
        if !input.script_sig.is_empty() {
            return Err(InputError::ScriptSig);
        }
        script.clone()
    } else if script.is_p2sh() {
        nested_program(&input.script_sig, script)?
    } else {
        return Err(InputError::UnknownScript);
    };
    let mut items = input.witness.iter();
    let (Some(signature), Some(key), None) = (items.next(), items.next(), items.next()) else {
        return Err(InputError::Witness);
    };
    let key = CompressedPublicKey::from_slice(key).map_err(|_| InputError::Witness)?;
    if ScriptBuf::new_p2wpkh(&key.wpubkey_hash()) != program {
        return Err(InputError::Program);
    }
    let hash = cache
        .p2wpkh_signature_hash(index, &program, prevout.value, EcdsaSighashType::All)
        .map_err(|_| InputError::NoSuchInput)?;
    verify_signature(signature, hash, &key)
}

/// The P2WPKH program that a nested scriptSig reveals: exactly one push, of what the coin commits to.
fn nested_program(script_sig: &Script, script: &Script) -> Result<ScriptBuf, InputError> {
    let mut pushes = script_sig.instructions_minimal();
    let (Some(Ok(Instruction::PushBytes(redeem))), None) = (pushes.next(), pushes.next()) else {
        return Err(InputError::ScriptSig);
    };
    let program = ScriptBuf::from(redeem.as_bytes().to_vec());
    if !program.is_p2wpkh() {
        return Err(InputError::UnknownScript);
    }
    if *program.to_p2sh() != *script {
        return Err(InputError::Program);
    }
    Ok(program)
}

fn verify_bond(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    input: &TxIn,
    lock_time: LockTime,
    prevout: &TxOut,
) -> Result<(), InputError> {
    if !input.script_sig.is_empty() {
        return Err(InputError::ScriptSig);
    }
    let mut items = input.witness.iter();
    let (Some(signature), Some(script), None) = (items.next(), items.next(), items.next()) else {
        return Err(InputError::Witness);
    };
    let script = Script::from_bytes(script);
    if *script.to_p2wsh() != *prevout.script_pubkey {
        return Err(InputError::Program);
    }
    let (locktime, key) = bond_terms(script).ok_or(InputError::UnknownScript)?;
    let opened = match lock_time {
        LockTime::Seconds(time) => time.to_consensus_u32() >= locktime,
        LockTime::Blocks(_) => false,
    };
    if !opened || input.sequence.is_final() {
        return Err(InputError::Locked);
    }
    let hash = cache
        .p2wsh_signature_hash(index, script, prevout.value, EcdsaSighashType::All)
        .map_err(|_| InputError::NoSuchInput)?;
    verify_signature(signature, hash, &key)
}

/// Reads lock time and key of a bond's witness script, if it is one to the byte.
fn bond_terms(script: &Script) -> Option<(u32, CompressedPublicKey)> {
    let mut instructions = script.instructions_minimal();
    let Instruction::PushBytes(locktime) = instructions.next()?.ok()? else { return None };
    let bytes = locktime.as_bytes();
    if bytes.len() > 5 {
        return None;
    }
    let number = bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let locktime = u32::try_from(number).ok()?;
    let key = instructions.filter_map(Result::ok).find_map(|instruction| match instruction {
        Instruction::PushBytes(key) => Some(key.as_bytes()),
        Instruction::Op(_) => None,
    })?;
    let key = CompressedPublicKey::from_slice(key).ok()?;
    // Rebuilding it settles every question about signs, padding and opcodes.
    (*fidelity_bond::witness_script(locktime, &key.0) == *script).then_some((locktime, key))
}

fn verify_signature(
    signature: &[u8],
    hash: SegwitV0Sighash,
    key: &CompressedPublicKey,
) -> Result<(), InputError> {
    let signature =
        ecdsa::Signature::from_slice(signature).map_err(|_| InputError::SignatureForm)?;
    if signature.sighash_type != EcdsaSighashType::All {
        return Err(InputError::SignatureForm);
    }
    let message = Message::from_digest(hash.to_byte_array());
    secp()
        .verify_ecdsa(&message, &signature.signature, &PublicKey::from(*key).inner)
        .map_err(|_| InputError::Signature)
}
