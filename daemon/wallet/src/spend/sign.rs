//! Signing (`spec/wallet.md` 8.3, vector `direct_send.json`).

use std::collections::HashMap;

use bdk_wallet::bitcoin::ecdsa;
use bdk_wallet::bitcoin::script::{Builder, PushBytesBuf};
use bdk_wallet::bitcoin::secp256k1::Message;
use bdk_wallet::bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bdk_wallet::bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Witness};
use joinery_proto::secp;

use crate::keys::{MasterKey, Signer, SignerKind};
use crate::service::SendError;
use crate::snapshot::Coin;

use super::verify::verify_input;

/// Signs every input of a transaction with the keys of its coins, then checks each one as the network
/// will.
///
/// Signatures are SIGHASH_ALL with deterministic nonces and no search for a short R, as the references make
/// them: grinding would tell our transactions apart. The order of `inputs` does not matter.
///
/// # Errors
/// [`SendError::SigningCheck`]: an input without coin, a coin without input, a derived script that is not
/// the coin's, a bond that the lock time does not open, or an input that does not verify. The transaction
/// is unchanged then.
pub fn sign(tx: &mut Transaction, inputs: &[Coin], keys: &MasterKey) -> Result<(), SendError> {
    let coins: HashMap<OutPoint, &Coin> = inputs.iter().map(|coin| (coin.outpoint, coin)).collect();
    if coins.len() != inputs.len() || tx.input.len() != inputs.len() {
        return Err(SendError::SigningCheck("inputs and coins differ in number"));
    }
    // The coin of each input, in the order of the transaction.
    let coins = tx
        .input
        .iter()
        .map(|input| coins.get(&input.previous_output).copied())
        .collect::<Option<Vec<&Coin>>>()
        .ok_or(SendError::SigningCheck("an input is not one of the coins"))?;

    let mut signed = tx.clone();
    let mut cache = SighashCache::new(&*tx);
    for (index, (coin, input)) in coins.iter().zip(&mut signed.input).enumerate() {
        let signer = keys
            .signer(&coin.place)
            .map_err(|_| SendError::SigningCheck("the wallet has no key for a coin"))?;
        if *signer.script_pubkey() != coin.script {
            return Err(SendError::SigningCheck("a key does not own its coin"));
        }
        let (script_sig, witness) = spend(&mut cache, index, coin, &signer)?;
        input.script_sig = script_sig;
        input.witness = witness;
    }

    // With a fresh cache and from the finished bytes: what is checked is what is sent.
    let mut cache = SighashCache::new(&signed);
    for (index, coin) in coins.iter().enumerate() {
        let prevout = TxOut { value: coin.value, script_pubkey: coin.script.clone() };
        verify_input(&mut cache, index, &prevout).map_err(|error| {
            tracing::error!(%error, index, "a signed input does not verify");
            SendError::SigningCheck("a signed input does not verify")
        })?;
    }
    *tx = signed;
    Ok(())
}

/// The scriptSig and witness of one input.
fn spend(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    coin: &Coin,
    signer: &Signer,
) -> Result<(ScriptBuf, Witness), SendError> {
    let no_sighash = |_| SendError::SigningCheck("an input has no signature hash");
    let all = EcdsaSighashType::All;
    let program = ScriptBuf::new_p2wpkh(&signer.public_key().wpubkey_hash());
    let hash = match signer.witness_script() {
        Some(script) => {
            cache.p2wsh_signature_hash(index, script, coin.value, all).map_err(no_sighash)?
        }
        None => cache
            .p2wpkh_signature_hash(index, &program, coin.value, all)
            .map_err(|_| SendError::SigningCheck("an input has no signature hash"))?,
    };
    let signature = ecdsa::Signature {
        signature: secp().sign_ecdsa(&Message::from(hash), signer.secret_key()),
        sighash_type: all,
    };
    let key_witness = || Witness::p2wpkh(&signature, &signer.public_key().0);
    match (signer.kind(), signer.witness_script()) {
        (SignerKind::P2wpkh, None) => Ok((ScriptBuf::new(), key_witness())),
        (SignerKind::P2shP2wpkh, None) => {
            let push = PushBytesBuf::try_from(program.into_bytes())
                .map_err(|_| SendError::SigningCheck("a program is too long"))?;
            Ok((Builder::new().push_slice(push).into_script(), key_witness()))
        }
        (SignerKind::Bond { .. }, Some(script)) => {
            let items = [signature.to_vec(), script.to_bytes()];
            Ok((ScriptBuf::new(), Witness::from_slice(&items)))
        }
        _ => Err(SendError::SigningCheck("a bond without witness script")),
    }
}

#[cfg(test)]
mod tests;
