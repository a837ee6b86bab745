//! PoDLE commitments: proof that two discrete logarithms are equal (`spec/protocol.md` 9, vectors
//! `podle.json`, `podle_sourcing.json`).
//!
//! A taker commits to a coin without naming it, and opens the commitment to makers later. The
//! commitment is the hash of `x*J(i)`, where `x` is the key of the coin and `J(i)` one of a few
//! generators whose discrete logarithm nobody knows; so each coin has only a few commitments.
//!
//! Secret scalars only meet constant-time operations of libsecp256k1 ([`SecretKey::public_key`],
//! [`shared_secret_point`], secret key tweaks); `PublicKey::mul_tweak` is variable-time and used on public
//! data only.

mod nonce;
mod nums;

use std::fmt;
use std::str::FromStr;

use bdk_wallet::bitcoin::hashes::{Hash, HashEngine, sha256};
use bdk_wallet::bitcoin::hex::{DisplayHex, FromHex};
use bdk_wallet::bitcoin::key::CompressedPublicKey;
use bdk_wallet::bitcoin::secp256k1::constants::CURVE_ORDER;
use bdk_wallet::bitcoin::secp256k1::ecdh::shared_secret_point;
use bdk_wallet::bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use bdk_wallet::bitcoin::secp256k1::{Keypair, Message, PublicKey, Scalar, SecretKey};
use bdk_wallet::bitcoin::{OutPoint, PubkeyHash, Script, ScriptBuf};

pub use nums::{NUMS_COUNT, nums_point};

use crate::secp;
use crate::utxo::{UtxoError, WireUtxo};

/// The only commitment type.
pub const COMMITMENT_PREFIX: char = 'P';
/// Longest revelation text: an extended coin and four fields of hex.
const MAX_REVELATION: usize = 1024;

/// A commitment: SHA256 of the compressed `P2`. Compared as bytes, never as text
/// (`podle_blacklist_is_over_bytes`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commitment([u8; 32]);

/// Why a commitment, proof or revelation was refused. For the log; counterparties hear nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PodleError {
    /// The commitment does not start with `P`.
    #[error("commitment type is not P")]
    CommitmentType,
    /// The commitment is not 64 hex digits.
    #[error("commitment is not 64 hex digits")]
    CommitmentFormat,
    /// The revelation does not have five parts.
    #[error("revelation does not have five parts")]
    Parts,
    /// The first part is not a coin.
    #[error("revealed coin: {0}")]
    Utxo(#[from] UtxoError),
    /// A point or scalar is malformed.
    #[error("revealed point or scalar is malformed")]
    Encoding,
    /// The commitment is not the hash of the revealed `P2`.
    #[error("revealed point does not match the commitment")]
    CommitmentMismatch,
    /// The equations do not hold for any index that is allowed.
    #[error("proof does not verify")]
    Proof,
    /// The key of the proof does not own the coin.
    #[error("revealed key does not own the coin")]
    Script,
}

impl Commitment {
    /// From the hash itself.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses exactly 64 hex digits of either case, without the type character (`!hp2`).
    ///
    /// # Errors
    /// [`PodleError::CommitmentFormat`].
    pub fn from_hex(text: &str) -> Result<Self, PodleError> {
        <[u8; 32]>::from_hex(text).map(Self).map_err(|_| PodleError::CommitmentFormat)
    }

    /// The form of `!fill`: `P` and 64 lower-case hex digits.
    #[must_use]
    pub fn fill_field(&self) -> String {
        format!("{COMMITMENT_PREFIX}{self}")
    }

    fn of(p2: &PublicKey) -> Self {
        Self(sha256::Hash::hash(&p2.serialize()).to_byte_array())
    }
}

/// The form of `!hp2`: 64 lower-case hex digits.
impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hex())
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The form of `!fill`.
impl FromStr for Commitment {
    type Err = PodleError;

    fn from_str(text: &str) -> Result<Self, PodleError> {
        let hex = text.strip_prefix(COMMITMENT_PREFIX).ok_or(PodleError::CommitmentType)?;
        Self::from_hex(hex)
    }
}

/// What is revealed in `!auth`: a coin and the proof that its key made the commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revelation {
    /// The coin.
    pub utxo: WireUtxo,
    /// The proof.
    pub proof: Proof,
}

/// A proof that `P = x*G` and `P2 = x*J(i)` have the same `x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// `x*G`: the public key of the coin.
    pub p: PublicKey,
    /// `x*J(i)`.
    pub p2: PublicKey,
    /// Response, big-endian.
    pub s: [u8; 32],
    /// Challenge, big-endian.
    pub e: [u8; 32],
}

impl Proof {
    /// Proves ownership of a coin for index `index`, with the deterministic nonce that joinmarket-ng
    /// uses (`podle_nonce_deterministic`): RFC 6979 over a tagged hash of coin, index and points.
    #[must_use]
    pub fn generate(pair: &Keypair, outpoint: &OutPoint, index: u8) -> Self {
        let mut key = pair.secret_key();
        let p = pair.public_key();
        let p2 = multiply_secret(&nums_point(index), &key);
        let message = nonce::message_hash(&outpoint.to_string(), index, &p, &p2);
        let mut candidates = nonce::Candidates::new(&key, &message);
        loop {
            // The first candidate serves except with a probability of about 2^-127.
            let mut k = candidates.next_scalar();
            let proof = prove(&key, &k, index, p, p2);
            k.non_secure_erase();
            if let Some(proof) = proof {
                key.non_secure_erase();
                return proof;
            }
        }
    }

    /// Proves with a nonce that the caller chose; it must never be used for anything else.
    /// Only the published vectors need this.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn generate_with_nonce(
        key: &SecretKey,
        nonce: &SecretKey,
        index: u8,
    ) -> Option<Self> {
        let p2 = multiply_secret(&nums_point(index), key);
        prove(key, nonce, index, key.public_key(secp()), p2)
    }

    /// The commitment that this proof opens.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment::of(&self.p2)
    }

    /// Verifies the proof against a commitment for the indices `0..retries`.
    ///
    /// Returns the index. Whether the coin exists, is unspent, old and large enough and belongs to `P` is
    /// for the caller ([`Self::owns_script`]).
    ///
    /// # Errors
    /// [`PodleError::CommitmentMismatch`], [`PodleError::Encoding`] or [`PodleError::Proof`].
    pub fn verify(&self, commitment: &Commitment, retries: u8) -> Result<u8, PodleError> {
        if self.commitment() != *commitment {
            return Err(PodleError::CommitmentMismatch);
        }
        // 0 < s < n, and e is a hash that is reduced like every scalar.
        let s = SecretKey::from_slice(&self.s).map_err(|_| PodleError::Encoding)?;
        let s_scalar = Scalar::from(s);
        let e = reduce(self.e).ok_or(PodleError::Proof)?;
        let minus_e = Scalar::from(e.negate());
        let secp = secp();
        let minus_e_p2 = self.p2.mul_tweak(secp, &minus_e).map_err(|_| PodleError::Proof)?;
        let kg = double_multiply(&s, &self.p, &e.negate()).ok_or(PodleError::Proof)?;
        for index in 0..retries {
            let Ok(s_j) = nums_point(index).mul_tweak(secp, &s_scalar) else { continue };
            let Ok(kj) = s_j.combine(&minus_e_p2) else { continue };
            if challenge(&kg, &kj, &self.p, &self.p2) == self.e {
                return Ok(index);
            }
        }
        Err(PodleError::Proof)
    }

    /// Whether `P` owns a coin with this script: P2WPKH, P2SH-P2WPKH or P2PKH of `P`
    /// (`podle_pubkey_must_match_utxo_spk`).
    #[must_use]
    pub fn owns_script(&self, script: &Script) -> bool {
        self.candidate_scripts().iter().any(|candidate| candidate.as_script() == script)
    }

    /// The scripts that `P` can own, most likely first: for a chain lookup by script.
    #[must_use]
    pub fn candidate_scripts(&self) -> [ScriptBuf; 3] {
        let key = CompressedPublicKey(self.p);
        let wpkh = ScriptBuf::new_p2wpkh(&key.wpubkey_hash());
        let nested = ScriptBuf::new_p2sh(&wpkh.script_hash());
        let pkh = ScriptBuf::new_p2pkh(&PubkeyHash::from(key));
        [wpkh, nested, pkh]
    }
}

/// `k*point` for a secret `k`, in constant time.
#[expect(
    clippy::expect_used,
    reason = "a multiple of a curve point by a nonzero scalar is a curve point"
)]
fn multiply_secret(point: &PublicKey, k: &SecretKey) -> PublicKey {
    let xy = shared_secret_point(point, k);
    let mut uncompressed = [0_u8; 65];
    let (tag, rest) = uncompressed.split_at_mut(1);
    tag.fill(0x04);
    rest.copy_from_slice(&xy);
    PublicKey::from_slice(&uncompressed)
        .expect("a nonzero multiple of a curve point is on the curve")
}

/// `a*G + b*P` for public `a` and `b`; `None` for the point at infinity. Variable time.
///
/// The library computes such sums in one pass only inside other operations. Recovering the key of an ECDSA
/// signature is the one that gives the sum out: it returns `(s/r)*R - (z/r)*G` for the point `R` with the
/// abscissa `r`, so that `R = P`, `s = b*r`, `z = -a*r` make it ours. That takes two thirds of the time of two
/// multiplications.
fn double_multiply(a: &SecretKey, point: &PublicKey, b: &SecretKey) -> Option<PublicKey> {
    let encoded = point.serialize();
    let (parity, abscissa) = encoded.split_first()?;
    let Ok(r) = SecretKey::from_slice(abscissa) else {
        // An abscissa above the curve order, as one of 2^128 points has.
        let bp = point.mul_tweak(secp(), &Scalar::from(*b)).ok()?;
        return bp.add_exp_tweak(secp(), &Scalar::from(*a)).ok();
    };
    let r_scalar = Scalar::from(r);
    let s = b.mul_tweak(&r_scalar).ok()?;
    let z = a.negate().mul_tweak(&r_scalar).ok()?;
    let mut compact = [0; 64];
    let (first, second) = compact.split_at_mut(32);
    first.copy_from_slice(abscissa);
    second.copy_from_slice(&s.secret_bytes());
    let recovery = RecoveryId::from_i32(i32::from(parity & 1)).ok()?;
    let signature = RecoverableSignature::from_compact(&compact, recovery).ok()?;
    secp().recover_ecdsa(&Message::from_digest(z.secret_bytes()), &signature).ok()
}

/// One attempt; `None` when challenge or response happens to be zero.
fn prove(key: &SecretKey, k: &SecretKey, index: u8, p: PublicKey, p2: PublicKey) -> Option<Proof> {
    let kg = k.public_key(secp());
    let kj = multiply_secret(&nums_point(index), k);
    let e = challenge(&kg, &kj, &p, &p2);
    let reduced = reduce(e)?;
    // s = k + x*e, by constant-time secret key tweaks.
    let mut x_e = key.mul_tweak(&Scalar::from(reduced)).ok()?;
    let s = k.add_tweak(&Scalar::from(x_e));
    x_e.non_secure_erase();
    Some(Proof { p, p2, s: s.ok()?.secret_bytes(), e })
}

/// `SHA256(KG || KJ || P || P2)` over compressed points.
fn challenge(kg: &PublicKey, kj: &PublicKey, p: &PublicKey, p2: &PublicKey) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    for point in [kg, kj, p, p2] {
        engine.input(&point.serialize());
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// A 256-bit integer reduced modulo the curve order; `None` when that is zero.
#[expect(clippy::arithmetic_side_effects, reason = "differences of bytes fit an i16")]
fn reduce(mut bytes: [u8; 32]) -> Option<SecretKey> {
    if bytes >= CURVE_ORDER {
        // 2^256 < 2n, so one subtraction suffices.
        let mut borrow = 0_i16;
        for (byte, order) in bytes.iter_mut().zip(CURVE_ORDER).rev() {
            let difference = i16::from(*byte) - i16::from(order) - borrow;
            borrow = i16::from(difference < 0);
            *byte = u8::try_from(difference.rem_euclid(256)).unwrap_or_default();
        }
    }
    SecretKey::from_slice(&bytes).ok()
}

impl FromStr for Revelation {
    type Err = PodleError;

    fn from_str(text: &str) -> Result<Self, PodleError> {
        if text.len() > MAX_REVELATION {
            return Err(PodleError::Parts);
        }
        let mut parts = text.splitn(6, '|');
        let (Some(utxo), Some(p), Some(p2), Some(s), Some(e), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PodleError::Parts);
        };
        let point = |hex: &str| {
            let bytes = <[u8; 33]>::from_hex(hex).map_err(|_| PodleError::Encoding)?;
            PublicKey::from_slice(&bytes).map_err(|_| PodleError::Encoding)
        };
        let scalar = |hex: &str| <[u8; 32]>::from_hex(hex).map_err(|_| PodleError::Encoding);
        Ok(Self {
            utxo: utxo.parse()?,
            proof: Proof { p: point(p)?, p2: point(p2)?, s: scalar(s)?, e: scalar(e)? },
        })
    }
}

/// The wire form of `!auth`.
impl fmt::Display for Revelation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proof { p, p2, s, e } = &self.proof;
        write!(f, "{}|{p}|{p2}|{}|{}", self.utxo, s.as_hex(), e.as_hex())
    }
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::secp256k1::SecretKey;
    use bdk_wallet::bitcoin::secp256k1::constants::{CURVE_ORDER, ONE};
    use bdk_wallet::bitcoin::{OutPoint, Txid, hashes::Hash};
    use proptest::prelude::*;

    use super::{Commitment, PodleError, Proof, Revelation, double_multiply, reduce};
    use crate::secp;
    use crate::utxo::WireUtxo;

    fn outpoint() -> OutPoint {
        OutPoint { txid: Txid::all_zeros(), vout: 1 }
    }

    #[test]
    fn reduction_wraps_once() {
        assert!(reduce(CURVE_ORDER).is_none());
        let mut one_more = CURVE_ORDER;
        one_more[31] += 1;
        let mut one = [0_u8; 32];
        one[31] = 1;
        assert_eq!(reduce(one_more).unwrap().secret_bytes(), one);
        assert_eq!(reduce(one).unwrap().secret_bytes(), one);
    }

    #[test]
    fn podle_blacklist_is_over_bytes() {
        let hex = "ab".repeat(32);
        let lower: Commitment = format!("P{hex}").parse().unwrap();
        let upper: Commitment = format!("P{}", hex.to_uppercase()).parse().unwrap();
        assert_eq!(lower, upper);
        assert_eq!(upper.fill_field(), format!("P{hex}"));
        assert_eq!(hex.parse::<Commitment>(), Err(PodleError::CommitmentType));
        for bad in ["P", "Pab", &format!("P{hex}0"), &format!("P{}", "g".repeat(64))] {
            assert_eq!(bad.parse::<Commitment>(), Err(PodleError::CommitmentFormat));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn double_multiplication_is_the_sum_of_two(
            a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), x in any::<[u8; 32]>(),
        ) {
            let [Some(a), Some(b), Some(x)] = [a, b, x].map(reduce) else { return Ok(()) };
            for point in [x.public_key(secp()), x.public_key(secp()).negate(secp())] {
                let b_point = point.mul_tweak(secp(), &b.into()).unwrap();
                let sum = a.public_key(secp()).combine(&b_point).unwrap();
                prop_assert_eq!(double_multiply(&a, &point, &b), Some(sum));
            }
            // a*G - a*G has no encoding.
            let generator = SecretKey::from_slice(&ONE).unwrap().public_key(secp());
            prop_assert_eq!(double_multiply(&a, &generator, &a.negate()), None);
        }

        #[test]
        fn proofs_verify_only_as_made(seed in any::<[u8; 32]>(), index in 0_u8..3, flip in 0_usize..64) {
            let Ok(key) = SecretKey::from_slice(&seed) else { return Ok(()) };
            let proof = Proof::generate(&key.keypair(secp()), &outpoint(), index);
            let commitment = proof.commitment();
            prop_assert_eq!(proof.verify(&commitment, 3), Ok(index));
            prop_assert_eq!(proof.verify(&commitment, index), Err(PodleError::Proof));
            prop_assert_eq!(
                proof.verify(&Commitment::from_bytes([1; 32]), 3),
                Err(PodleError::CommitmentMismatch)
            );
            let mut bent = proof.clone();
            if flip < 32 { bent.s[flip] ^= 1 } else { bent.e[flip - 32] ^= 1 }
            prop_assert!(bent.verify(&commitment, 3).is_err());
            let text = Revelation { utxo: WireUtxo::plain(outpoint()), proof }.to_string();
            prop_assert_eq!(text.parse::<Revelation>().unwrap().to_string(), text);
        }

        #[test]
        fn podle_nonce_deterministic(seed in any::<[u8; 32]>()) {
            let Ok(key) = SecretKey::from_slice(&seed) else { return Ok(()) };
            let first = Proof::generate(&key.keypair(secp()), &outpoint(), 0);
            prop_assert_eq!(&first, &Proof::generate(&key.keypair(secp()), &outpoint(), 0));
            // Another index or coin has another nonce: the responses must not reveal the key.
            prop_assert_ne!(first.s, Proof::generate(&key.keypair(secp()), &outpoint(), 1).s);
        }

        #[test]
        fn parsing_never_panics(text in "[0-9a-f|:]{0,400}") {
            let _ = text.parse::<Revelation>();
        }
    }
}
