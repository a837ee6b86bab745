//! Payloads of private messages (`spec/protocol.md` 6.3, 6.4, 11.1, 11.5; vectors `commands.json`,
//! `session_transcript.json`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bdk_wallet::bitcoin::consensus::encode;
use bdk_wallet::bitcoin::secp256k1::PublicKey;
use bdk_wallet::bitcoin::{Transaction, hex::FromHex};

use crate::line::COMMAND_PREFIX;
use crate::nacl_box::NaclPublicKey;
use crate::offer::{MAX_MONEY, Offer, OfferId, OrderType};
use crate::podle::{Commitment, PodleError};
use crate::transaction::output_total;
use crate::utxo::{UtxoError, WireUtxo, canonical_u64};

/// Longest text of an `!error` that is kept, characters.
pub const MAX_ERROR_TEXT: usize = 256;
/// Largest serialised transaction that is decoded, bytes: a line cannot carry more.
pub const MAX_TRANSACTION: usize = 49_152;
/// Most coins in one `!ioauth` that are parsed; takers accept far fewer.
pub const MAX_IOAUTH_UTXOS: usize = 512;
/// Most offers of one private message that are looked at (`spec/protocol.md` 13.2).
pub const MAX_OFFERS: usize = 12;
/// Longest bond proof text that is kept, characters; a good one has 336.
const MAX_BOND_TEXT: usize = 512;
/// Longest address text: bech32 allows 90 characters.
const MAX_ADDRESS: usize = 90;
/// Most feature words after a `!pubkey`.
const MAX_FEATURES: usize = 16;
/// Feature word of peers that understand extended coin texts.
pub const NEUTRINO_COMPAT: &str = "neutrino_compat";

/// Why a payload was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Too few fields.
    #[error("payload has too few fields")]
    Fields,
    /// A number is malformed or out of range.
    #[error("number is malformed or out of range")]
    Number,
    /// A public key is malformed.
    #[error("public key is malformed")]
    Key,
    /// A commitment is malformed.
    #[error(transparent)]
    Commitment(#[from] PodleError),
    /// A coin is malformed.
    #[error(transparent)]
    Utxo(#[from] UtxoError),
    /// More than any honest peer sends.
    #[error("payload is longer than any honest peer sends")]
    TooLong,
    /// Not canonical base64.
    #[error("payload is not base64")]
    Base64,
    /// Not a transaction.
    #[error("payload is not a transaction")]
    Transaction,
    /// Not `push(signature) push(key)`.
    #[error("payload is not a signature and a key")]
    Signature,
}

/// A maker's answer to `!orderbook`: offers, then perhaps a bond proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferMessage {
    /// Acceptable offers, in order.
    pub offers: Vec<Offer>,
    /// Ids whose new terms were not acceptable.
    pub bad: Vec<OfferId>,
    /// Text of the bond proof; the last one counts.
    pub bond: Option<String>,
}

impl OfferMessage {
    /// Parses the payload behind a leading offer word. Both forms in use are understood: everything in
    /// one message (reference), or one offer and its bond per message (joinmarket-ng).
    #[must_use]
    pub fn parse(order_type: OrderType, payload: &str) -> Self {
        let mut message = Self { offers: Vec::new(), bad: Vec::new(), bond: None };
        let mut commands = payload.split(COMMAND_PREFIX);
        message.add(order_type, commands.next().unwrap_or_default());
        for command in commands.take(MAX_OFFERS + 4) {
            let (word, fields) = command.split_once(' ').unwrap_or((command, ""));
            if word == "tbond" {
                let proof = fields.split(' ').next().unwrap_or_default();
                // Whether it has the right length is for the verifier to say; this only bounds what is kept.
                if proof.len() <= MAX_BOND_TEXT {
                    message.bond = Some(proof.to_owned());
                }
            } else if let Some(order_type) = OrderType::parse(word) {
                message.add(order_type, fields);
            }
        }
        message
    }

    fn add(&mut self, order_type: OrderType, fields: &str) {
        match Offer::parse(order_type, fields) {
            Ok(offer) if self.offers.len() < MAX_OFFERS => self.offers.push(offer),
            Ok(_) => {}
            Err(_) => {
                let id = fields.split(' ').next().unwrap_or_default().parse::<OfferId>();
                if let (Ok(id), true) = (id, self.bad.len() < MAX_OFFERS) {
                    self.bad.push(id);
                }
            }
        }
    }

    /// Payload for one offer with a bond, behind the offer's word.
    #[must_use]
    pub fn payload(offer: &Offer, bond: Option<&str>) -> String {
        let fields = offer.fields();
        bond.map_or_else(|| fields.clone(), |proof| format!("{fields}!tbond {proof}"))
    }
}

/// `!fill`: a taker asks for a coinjoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Which offer.
    pub offer: OfferId,
    /// Satoshi.
    pub amount: u64,
    /// The taker's key of this session.
    pub key: NaclPublicKey,
    /// Its commitment.
    pub commitment: Commitment,
}

/// Why a `!fill` was refused. Most of the cases have an answer on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// Malformed; dropped silently.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Commitment of another type; the byte is printable.
    #[error("unsupported commitment type {0:?}")]
    CommitmentType(char),
    /// The key is not 64 hex digits: its text, as far as it is printable, at most 64 characters.
    #[error("key {0:?} is malformed")]
    Key(String),
}

impl Fill {
    /// Parses the payload.
    ///
    /// # Errors
    /// [`FillError`].
    pub fn parse(payload: &str) -> Result<Self, FillError> {
        let fields = FillFields::parse(payload)?;
        let FillFields { offer, amount, commitment, .. } = fields;
        Ok(Self { offer, amount, key: fields.key()?, commitment })
    }
}

/// A `!fill` whose key was not looked at: a maker does that last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FillFields<'a> {
    /// Which offer.
    pub(crate) offer: OfferId,
    /// Satoshi.
    pub(crate) amount: u64,
    key: &'a str,
    /// The taker's commitment.
    pub(crate) commitment: Commitment,
}

impl<'a> FillFields<'a> {
    pub(crate) fn parse(payload: &'a str) -> Result<Self, FillError> {
        let mut fields = payload.split(' ');
        let mut next = || fields.next().ok_or(PayloadError::Fields);
        let (offer, amount, key, commitment) = (next()?, next()?, next()?, next()?);
        let offer = offer.parse().map_err(|_| PayloadError::Number)?;
        let amount =
            canonical_u64(amount).filter(|a| *a <= MAX_MONEY).ok_or(PayloadError::Number)?;
        let commitment = commitment.parse().map_err(|error| match error {
            PodleError::CommitmentType => {
                let byte = commitment.chars().next().filter(char::is_ascii_graphic);
                FillError::CommitmentType(byte.unwrap_or('?'))
            }
            other => FillError::Payload(other.into()),
        })?;
        Ok(Self { offer, amount, key, commitment })
    }

    /// The taker's key.
    pub(crate) fn key(&self) -> Result<NaclPublicKey, FillError> {
        self.key.parse().map_err(|_| {
            FillError::Key(self.key.chars().filter(char::is_ascii_graphic).take(64).collect())
        })
    }
}

/// The payload on the wire.
impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offer, amount, key, commitment } = self;
        write!(f, "{offer} {amount} {key} {}", commitment.fill_field())
    }
}

/// `!pubkey`: the maker's key of this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubKey {
    /// The key.
    pub key: NaclPublicKey,
    /// Whether the maker understands extended coin texts.
    pub neutrino_compat: bool,
}

impl PubKey {
    /// Parses the payload; further fields are ignored.
    ///
    /// # Errors
    /// [`PayloadError::Key`].
    pub fn parse(payload: &str) -> Result<Self, PayloadError> {
        let mut fields = payload.split(' ');
        let key = fields.next().unwrap_or_default().parse().map_err(|_| PayloadError::Key)?;
        let neutrino_compat = fields
            .filter_map(|field| field.strip_prefix("features="))
            .flat_map(|features| features.split(',').take(MAX_FEATURES))
            .any(|feature| feature == NEUTRINO_COMPAT);
        Ok(Self { key, neutrino_compat })
    }
}

/// The payload on the wire.
impl fmt::Display for PubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if self.neutrino_compat { write!(f, " features={NEUTRINO_COMPAT}") } else { Ok(()) }
    }
}

/// `!ioauth`: the maker's coins and addresses. Addresses are text here; the network is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoAuth {
    /// The maker's inputs.
    pub utxos: Vec<WireUtxo>,
    /// Key of one of them.
    pub auth_key: PublicKey,
    /// Address for the equal amount output.
    pub cj_address: String,
    /// Address for the change.
    pub change_address: String,
    /// Signature by `auth_key` over the hex of the maker's session key, base64.
    pub btc_signature: String,
}

impl IoAuth {
    /// Parses the opened payload; further fields are ignored.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn parse(text: &str) -> Result<Self, PayloadError> {
        let mut fields = text.split(' ');
        let mut next = || fields.next().ok_or(PayloadError::Fields);
        let (utxos, auth_key, cj_address, change_address, btc_signature) =
            (next()?, next()?, next()?, next()?, next()?);
        if utxos.split(',').count() > MAX_IOAUTH_UTXOS {
            return Err(PayloadError::TooLong);
        }
        let utxos = utxos.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let auth_key = parse_public_key(auth_key).ok_or(PayloadError::Key)?;
        if cj_address.len() > MAX_ADDRESS
            || change_address.len() > MAX_ADDRESS
            || btc_signature.len() > crate::signature::MAX_SIGNATURE_TEXT
        {
            return Err(PayloadError::TooLong);
        }
        Ok(Self {
            utxos,
            auth_key,
            cj_address: cj_address.to_owned(),
            change_address: change_address.to_owned(),
            btc_signature: btc_signature.to_owned(),
        })
    }
}

/// The payload before sealing.
impl fmt::Display for IoAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, utxo) in self.utxos.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            utxo.fmt(f)?;
        }
        let Self { auth_key, cj_address, change_address, btc_signature, .. } = self;
        write!(f, " {auth_key} {cj_address} {change_address} {btc_signature}")
    }
}

fn parse_public_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_slice(&<[u8; 33]>::from_hex(text).ok()?).ok()
}

/// `!tx`: the unsigned transaction, base64 of the serialisation without witnesses.
///
/// # Errors
/// [`PayloadError`]; trailing bytes, witnesses, empty lists and more than all money are refused.
pub fn parse_tx(text: &str) -> Result<Transaction, PayloadError> {
    let bytes = decode_base64(text)?;
    // A transaction without witnesses whose input count is zero would be read as the segwit marker.
    let tx: Transaction = encode::deserialize(&bytes).map_err(|_| PayloadError::Transaction)?;
    let unsigned =
        tx.input.iter().all(|input| input.witness.is_empty() && input.script_sig.is_empty());
    if !unsigned || tx.input.is_empty() {
        return Err(PayloadError::Transaction);
    }
    possible(tx)
}

/// The payload of `!tx` or `!push`, before sealing: base64 of the consensus serialisation.
#[must_use]
pub fn tx_payload(tx: &Transaction) -> String {
    STANDARD.encode(encode::serialize(tx))
}

/// `!push`: a transaction to broadcast, with its witnesses.
///
/// # Errors
/// [`PayloadError`].
pub fn parse_push(payload: &str) -> Result<Transaction, PayloadError> {
    let bytes = decode_base64(payload.split(' ').next().unwrap_or_default())?;
    possible(encode::deserialize(&bytes).map_err(|_| PayloadError::Transaction)?)
}

/// Refuses what no chain could hold, so that nobody after this adds up more than all money.
fn possible(tx: Transaction) -> Result<Transaction, PayloadError> {
    if tx.output.is_empty() || output_total(&tx).is_none() {
        return Err(PayloadError::Transaction);
    }
    Ok(tx)
}

fn decode_base64(text: &str) -> Result<Vec<u8>, PayloadError> {
    if text.len() > MAX_TRANSACTION / 3 * 4 {
        return Err(PayloadError::TooLong);
    }
    STANDARD.decode(text).map_err(|_| PayloadError::Base64)
}

/// `!sig`: one input's signature and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSignature {
    /// DER with the sighash byte 0x01.
    pub signature: Vec<u8>,
    /// The compressed key.
    pub key: PublicKey,
}

/// SIGHASH_ALL.
const SIGHASH_ALL: u8 = 0x01;
/// Longest DER signature with its sighash byte.
const MAX_SIGNATURE: usize = crate::signature::MAX_DER + 1;

impl InputSignature {
    /// Parses the opened payload: base64 of `push(signature) push(key)`, perhaps a third push (the script
    /// code of nested segwit, ignored).
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn parse(text: &str) -> Result<Self, PayloadError> {
        // Two pushes of at most 73 and 33 bytes, a third one of 22 or so.
        if text.len() > 256 {
            return Err(PayloadError::TooLong);
        }
        let bytes = STANDARD.decode(text).map_err(|_| PayloadError::Base64)?;
        let (signature, rest) = split_push(&bytes).ok_or(PayloadError::Signature)?;
        let (key, rest) = split_push(rest).ok_or(PayloadError::Signature)?;
        if !rest.is_empty() && split_push(rest).is_none_or(|(_, end)| !end.is_empty()) {
            return Err(PayloadError::Signature);
        }
        if signature.len() > MAX_SIGNATURE || signature.last() != Some(&SIGHASH_ALL) {
            return Err(PayloadError::Signature);
        }
        let key: &[u8; 33] = key.try_into().map_err(|_| PayloadError::Signature)?;
        let key = PublicKey::from_slice(key).map_err(|_| PayloadError::Key)?;
        Ok(Self { signature: signature.to_vec(), key })
    }
}

/// The payload before sealing.
impl fmt::Display for InputSignature {
    #[expect(clippy::arithmetic_side_effects, reason = "lengths of short buffers")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.serialize();
        let mut bytes = Vec::with_capacity(2 + self.signature.len() + key.len());
        // Both lengths are below 0x4c: single-byte pushes.
        bytes.push(u8::try_from(self.signature.len()).unwrap_or_default());
        bytes.extend_from_slice(&self.signature);
        bytes.push(0x21);
        bytes.extend_from_slice(&key);
        f.write_str(&STANDARD.encode(bytes))
    }
}

/// One direct push (1 to 75 bytes).
fn split_push(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    if !(1..0x4c).contains(length) {
        return None;
    }
    rest.split_at_checked(usize::from(*length))
}

/// The text of an `!error`, cut and made printable for the log.
#[must_use]
pub fn error_text(payload: &str) -> String {
    payload
        .chars()
        .take(MAX_ERROR_TEXT)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fill, InputSignature, IoAuth, OfferMessage, PubKey, parse_push, parse_tx};
    use crate::offer::OrderType;

    #[test]
    fn fuzz_tx_parse() {
        use base64::Engine as _;
        let encode = |hex: &str| {
            use bdk_wallet::bitcoin::hex::FromHex as _;
            base64::engine::general_purpose::STANDARD.encode(Vec::from_hex(hex).unwrap())
        };
        for (name, hex) in [
            ("nothing", ""),
            ("no inputs", "02000000000000000000"),
            ("varint of 2^64 - 1 inputs", "02000000ffffffffffffffffff"),
            ("varint of 2^32 inputs", "02000000ff0000000001000000"),
            ("marker without flag", "0200000000020000000000"),
            ("witnesses without inputs", "020000000001000000000000"),
            (
                "huge script",
                "0200000001000000000000000000000000000000000000000000000000000000000000000000000000fe00000010",
            ),
        ] {
            assert!(parse_tx(&encode(hex)).is_err(), "{name}");
            let _ = parse_push(&encode(hex));
        }
        let long = "A".repeat(super::MAX_TRANSACTION * 2);
        assert_eq!(parse_tx(&long), Err(super::PayloadError::TooLong));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            for text in [&text, &encoded] {
                let _ = Fill::parse(text);
                let _ = PubKey::parse(text);
                let _ = IoAuth::parse(text);
                let _ = InputSignature::parse(text);
                let _ = parse_tx(text);
                let _ = parse_push(text);
                let _ = OfferMessage::parse(OrderType::Sw0Absolute, text);
            }
        }
    }
}
