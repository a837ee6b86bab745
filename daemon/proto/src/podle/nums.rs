//! The generators `J(0)` to `J(255)` (`spec/protocol.md` 9.2).

use std::sync::OnceLock;

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256};
use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::secp256k1::constants::{GENERATOR_X, GENERATOR_Y};

/// Number of generators.
pub const NUMS_COUNT: usize = 256;

/// The generator `J(index)`: nothing up my sleeve, found by hashing the curve's own generator.
///
/// Computed at first use, one at a time, and kept: a wallet needs three of them.
#[must_use]
pub fn nums_point(index: u8) -> PublicKey {
    static POINTS: [OnceLock<PublicKey>; NUMS_COUNT] = [const { OnceLock::new() }; NUMS_COUNT];
    POINTS
        .get(usize::from(index))
        .map_or_else(|| search(index), |point| *point.get_or_init(|| search(index)))
}

#[expect(clippy::expect_used, reason = "no foreign data is involved")]
fn search(index: u8) -> PublicKey {
    let parity = if GENERATOR_Y[31] & 1 == 0 { 0x02 } else { 0x03 };
    let compressed: Vec<u8> = std::iter::once(parity).chain(GENERATOR_X).collect();
    let uncompressed: Vec<u8> =
        std::iter::once(0x04).chain(GENERATOR_X).chain(GENERATOR_Y).collect();
    [compressed, uncompressed]
        .iter()
        .flat_map(|generator| (0..=u8::MAX).map(move |counter| (generator, counter)))
        .find_map(|(generator, counter)| {
            let mut engine = sha256::Hash::engine();
            engine.input(generator);
            engine.input(&[index, counter]);
            let x = sha256::Hash::from_engine(engine).to_byte_array();
            let candidate: Vec<u8> = std::iter::once(0x02).chain(x).collect();
            PublicKey::from_slice(&candidate).ok()
        })
        .expect("every index has a point within the first few counters, as podle.json lists")
}
