//! The unsigned transaction of a plan (`spec/wallet.md` 8.3).

use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use rand::RngCore;
use rand::seq::SliceRandom;

use crate::select::sum;
use crate::service::SendError;

use super::Plan;

impl Plan {
    /// Builds the unsigned transaction: version 2, every sequence 0xfffffffd (replaceable, lock time in
    /// force), inputs and outputs each in random order.
    ///
    /// `change_script` is a fresh internal address of the same mixdepth, recorded as issued; it is needed
    /// exactly when [`Plan::change`] is `Some`.
    ///
    /// # Errors
    /// [`SendError::SigningCheck`] when a change script is missing or not wanted, when it is the
    /// destination's, or when inputs and outputs do not add up.
    pub fn build(
        &self,
        change_script: Option<ScriptBuf>,
        rng: &mut dyn RngCore,
    ) -> Result<Transaction, SendError> {
        let mut output = vec![self.destination.clone()];
        match (self.change, change_script) {
            (None, None) => {}
            (Some(_), Some(script)) if script == self.destination.script_pubkey => {
                return Err(SendError::SigningCheck("change would go to the destination"));
            }
            (Some(value), Some(script_pubkey)) => output.push(TxOut { value, script_pubkey }),
            (Some(_), None) => return Err(SendError::SigningCheck("change without an address")),
            (None, Some(_)) => return Err(SendError::SigningCheck("an address without change")),
        }
        let spent = sum(self.inputs.iter().map(|coin| coin.value));
        let paid = sum(output.iter().map(|out| out.value).chain([self.fee]));
        if spent != paid {
            return Err(SendError::SigningCheck("inputs are not outputs and fee"));
        }
        let mut input: Vec<TxIn> = self
            .inputs
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect();
        input.shuffle(rng);
        output.shuffle(rng);
        Ok(Transaction { version: Version::TWO, lock_time: self.lock_time, input, output })
    }
}
