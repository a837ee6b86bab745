//! What the chain says of a transaction before it is signed (`spec/roles.md` 4.7, rows 5 and 6). What the wallet says
//! of it, the wallet checks when it signs; what we want to earn is checked at the `!fill`.

use std::collections::HashSet;
use std::time::Duration;

use bdk_wallet::bitcoin::{OutPoint, Transaction};
use joinery_proto::transaction::maker::{MakerRefusal, MakerShare};
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_proto::utxo::WireUtxo;

/// Most inputs of others that are looked up: more than any honest coinjoin has.
const MAX_LOOKED_UP: usize = 200;
/// Witness of a P2WPKH input, weight units: the count, a signature of 71 bytes, a key.
const P2WPKH_WITNESS: u64 = 107;
/// The shortest witness of any other input: one Schnorr signature.
const LEAST_WITNESS: u64 = 66;
/// Marker and flag of a signed transaction, weight units.
const SEGWIT_MARKER: u64 = 2;

/// The values of a transaction's inputs are on their way.
#[derive(Debug)]
pub(super) struct InputCheck {
    /// Then it is signed without.
    pub(super) until: Duration,
    /// Coins of others, as the chain knows them; `None` while not answered.
    pub(super) inputs: Option<Vec<Option<ForeignCoin>>>,
    /// Lowest rate that the mempool takes, satoshi per 1000 virtual bytes; `None` while not answered, `Some(None)`
    /// when it is not to be known.
    pub(super) floor: Option<Option<u64>>,
}

/// Coins of others to look up; `None` when there are too many to ask for.
pub(super) fn foreign_inputs(tx: &Transaction, share: &MakerShare) -> Option<Vec<WireUtxo>> {
    let ours: HashSet<OutPoint> = share.coins.iter().map(|coin| coin.outpoint).collect();
    let foreign = tx.input.iter().map(|input| input.previous_output);
    let foreign: Vec<_> =
        foreign.filter(|input| !ours.contains(input)).map(WireUtxo::plain).collect();
    (foreign.len() <= MAX_LOOKED_UP).then_some(foreign)
}

/// Checks the fee rate, as far as every value is known.
///
/// A coin that the chain does not know leaves the rate unknown: if it does not exist the transaction can never
/// bind ours, and perhaps our server has only not seen its parent yet.
pub(super) fn by_chain(
    tx: &Transaction,
    share: &MakerShare,
    inputs: &[Option<ForeignCoin>],
    floor: Option<u64>,
) -> Result<(), MakerRefusal> {
    let Some(known) = inputs.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() else {
        return Ok(());
    };
    let foreign: u128 = known.iter().map(|coin| u128::from(coin.value)).sum();
    let value = foreign.saturating_add(u128::from(share.input_value()));
    let spent: u128 = tx.output.iter().map(|output| u128::from(output.value.to_sat())).sum();
    let fee = value.checked_sub(spent).ok_or(MakerRefusal::Overspent)?;
    let Some(floor) = floor else { return Ok(()) };
    let size = signed_size(tx, share, &known);
    let least = u128::from(size).saturating_mul(u128::from(floor)).div_ceil(1_000);
    if fee < least {
        let fee = u64::try_from(fee).unwrap_or(u64::MAX);
        return Err(MakerRefusal::FeeRate { fee, size, floor });
    }
    Ok(())
}

/// The least size of the transaction once all have signed, virtual bytes: nobody is refused for what an
/// estimate adds.
fn signed_size(tx: &Transaction, share: &MakerShare, foreign: &[&ForeignCoin]) -> u64 {
    let witness = |coin: &&&ForeignCoin| coin.script.is_p2wpkh();
    let p2wpkh = foreign.iter().filter(witness).count().saturating_add(share.coins.len());
    let others = foreign.len().saturating_sub(p2wpkh.saturating_sub(share.coins.len()));
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let witnesses = count(p2wpkh)
        .saturating_mul(P2WPKH_WITNESS)
        .saturating_add(count(others).saturating_mul(LEAST_WITNESS));
    let weight = tx.weight().to_wu();
    weight.saturating_add(SEGWIT_MARKER).saturating_add(witnesses).div_ceil(4)
}
