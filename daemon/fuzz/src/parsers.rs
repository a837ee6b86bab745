//! One function per parser. What parses must survive its own encoding.

use joinery_proto::bitcoin::secp256k1::{PublicKey, SecretKey};
use joinery_proto::bond_proof::BondProof;
use joinery_proto::cjfee::RelativeFee;
use joinery_proto::line::RoutedLine;
use joinery_proto::message::{self, Fill, InputSignature, IoAuth, OfferMessage, PubKey};
use joinery_proto::nacl_box::{NaclPublicKey, NaclSecretKey};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::onion::envelope::Envelope;
use joinery_proto::onion::framing::LineReader;
use joinery_proto::onion::handshake::{DirectoryHandshake, PeerHandshake};
use joinery_proto::onion::location::Location;
use joinery_proto::onion::nick_auth::{Challenge, Proof, Verdict};
use joinery_proto::onion::onion_name;
use joinery_proto::onion::peerlist::{self, PeerEntry};
use joinery_proto::podle::{Commitment, Revelation};
use joinery_proto::private_message::{ONION_HOSTID, UnverifiedMessage};
use joinery_proto::signature as ecdsa;
use joinery_proto::{
    irc as irc_lines, message_signature as messages, public_message as public, secp,
};

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Parses, writes, parses again: both values must be equal.
fn round_trip<T: std::str::FromStr + std::fmt::Display + PartialEq>(data: &[u8]) -> bool {
    let Some(Ok(value)) = text(data).map(str::parse::<T>) else { return false };
    assert!(value.to_string().parse::<T>().ok() == Some(value), "own encoding is understood");
    true
}

fn some_nick() -> Nick {
    "J5DdKBhSf2Ykxqqy".parse().expect("a nick of the vectors")
}

fn some_key() -> PublicKey {
    SecretKey::from_slice(&[1; 32]).expect("a key").public_key(secp())
}

pub fn nick(data: &[u8]) -> bool {
    round_trip::<Nick>(data)
}

pub fn utxo(data: &[u8]) -> bool {
    round_trip::<joinery_proto::utxo::WireUtxo>(data)
}

pub fn cjfee(data: &[u8]) -> bool {
    let Some(Ok(fee)) = text(data).map(str::parse::<RelativeFee>) else { return false };
    for amount in [0, 1, 27_300, 100_000_000, 2_100_000_000_000_000] {
        assert!(fee.of(amount) <= amount, "a fee of at most 1 takes at most everything");
    }
    round_trip::<RelativeFee>(data)
}

/// The first byte picks the kind, the rest are the fields; seeds have the word in front.
fn order(data: &[u8]) -> Option<(OrderType, &str)> {
    let (word, fields) = text(data)?.split_once(' ')?;
    Some((OrderType::parse(word)?, fields))
}

pub fn offer(data: &[u8]) -> bool {
    let Some((order_type, fields)) = order(data) else { return false };
    let Ok(offer) = Offer::parse(order_type, fields) else { return false };
    assert_eq!(Offer::parse(order_type, &offer.fields()), Ok(offer));
    assert!(offer.min_size <= offer.max_size);
    true
}

pub fn offer_message(data: &[u8]) -> bool {
    let Some((order_type, fields)) = order(data) else { return false };
    let message = OfferMessage::parse(order_type, fields);
    assert!(message.offers.len() + message.bad.len() <= 2 * data.len());
    !message.offers.is_empty()
}

pub fn public_message(data: &[u8]) -> bool {
    text(data).is_some_and(|text| !public::parse(text).is_empty())
}

pub fn private_message(data: &[u8]) -> bool {
    let Some(Ok(message)) = text(data).map(UnverifiedMessage::parse) else { return false };
    let _ = message.verify(&some_nick(), ONION_HOSTID);
    true
}

pub fn line(data: &[u8]) -> bool {
    let Some(Ok(line)) = text(data).map(RoutedLine::parse) else { return false };
    let written = line.to_string();
    assert!(RoutedLine::parse(&written).is_ok(), "own encoding is understood");
    true
}

pub fn fill(data: &[u8]) -> bool {
    let Some(Ok(fill)) = text(data).map(Fill::parse) else { return false };
    assert_eq!(Fill::parse(&fill.to_string()), Ok(fill));
    true
}

pub fn pubkey(data: &[u8]) -> bool {
    let Some(Ok(key)) = text(data).map(PubKey::parse) else { return false };
    assert_eq!(PubKey::parse(&key.to_string()), Ok(key));
    true
}

pub fn revelation(data: &[u8]) -> bool {
    let Some(Ok(revelation)) = text(data).map(str::parse::<Revelation>) else { return false };
    let commitment = revelation.proof.commitment();
    let _ = revelation.proof.verify(&commitment, 3);
    round_trip::<Revelation>(data)
}

pub fn commitment(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    // Two forms: bare hex on the blacklist, with its type letter in `!fill`.
    let bare = Commitment::from_hex(text);
    if let Ok(commitment) = bare {
        assert_eq!(Commitment::from_hex(&commitment.to_string()), Ok(commitment));
    }
    let typed = text.parse::<Commitment>();
    if let Ok(commitment) = typed {
        assert_eq!(commitment.fill_field().parse(), Ok(commitment));
    }
    bare.is_ok() || typed.is_ok()
}

pub fn ioauth(data: &[u8]) -> bool {
    let Some(Ok(answer)) = text(data).map(IoAuth::parse) else { return false };
    assert_eq!(IoAuth::parse(&answer.to_string()), Ok(answer));
    true
}

pub fn tx(data: &[u8]) -> bool {
    let Some(Ok(tx)) = text(data).map(message::parse_tx) else { return false };
    assert_eq!(message::parse_tx(&message::tx_payload(&tx)).as_ref(), Ok(&tx));
    true
}

pub fn push(data: &[u8]) -> bool {
    text(data).is_some_and(|text| message::parse_push(text).is_ok())
}

pub fn sig(data: &[u8]) -> bool {
    let Some(Ok(signature)) = text(data).map(InputSignature::parse) else { return false };
    assert_eq!(InputSignature::parse(&signature.to_string()), Ok(signature));
    true
}

pub fn error_text(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let shown = message::error_text(text);
    assert!(!shown.contains(['\n', '\r', '\0', '\x1b']), "terminal control in {shown:?}");
    true
}

pub fn bond_proof(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    // Seeds belong to other nicks: what counts is that decoding and both checks were reached.
    match BondProof::verify(text, &some_nick(), &some_nick()) {
        Ok(_) => true,
        Err(error) => matches!(error, joinery_proto::bond_proof::BondProofError::NickSignature(_)),
    }
}

pub fn nacl_box(data: &[u8]) -> bool {
    let ours = NaclSecretKey::from_bytes([1; 32]);
    let peer = NaclSecretKey::from_bytes([2; 32]).public_key();
    let shared = ours.shared_with(&peer).expect("an ordinary key");
    let Some(text) = text(data) else { return false };
    if let Ok(key) = text.parse::<NaclPublicKey>() {
        let _ = ours.shared_with(&key);
        return true;
    }
    let _ = shared.open(text);
    let sealed = shared.seal([3; 24], text);
    if let Ok(opened) = shared.open(&sealed) {
        assert_eq!(opened, text);
    }
    false
}

pub fn signature(data: &[u8]) -> bool {
    let _ = ecdsa::verify_der(b"message", data, &some_key());
    let Some(text) = text(data) else { return false };
    matches!(
        ecdsa::verify(b"message", text, &some_key()),
        Ok(()) | Err(ecdsa::SignatureError::Mismatch)
    )
}

pub fn message_signature(data: &[u8]) -> bool {
    if let Ok(bytes) = data.try_into() {
        let _ = messages::recover(b"message", bytes);
    }
    let Some(text) = text(data) else { return false };
    messages::verify_base64(b"message", text, &some_key()).is_ok()
}

/// A signature, as a seed: the crate's vectors have no text of one by itself.
#[must_use]
pub fn signed_message() -> String {
    messages::sign_base64(b"message", &SecretKey::from_slice(&[1; 32]).expect("a key"))
}

/// Lines of the input go to the reassembler as pieces of one sender.
pub fn irc(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let mut pieces = irc_lines::Reassembler::default();
    let mut whole = false;
    for (time, piece) in (0..).zip(text.split('\n')) {
        let _ = irc_lines::source_nick(piece);
        if let Some(line) = irc_lines::IrcLine::parse(piece) {
            let _ = irc_lines::network_name(&line.params).map(irc_lines::is_host_id);
            let _ = pieces.push(line.name(), line.param(1), time);
        }
        whole |= pieces.push("J5CdDnhVDhc5R7Gg", piece, time).is_some();
    }
    whole
}

/// The first byte says where the stream is cut.
pub fn framing(data: &[u8]) -> bool {
    let Some((cut, stream)) = data.split_first() else { return false };
    let drain = |chunks: &[&[u8]]| {
        let (mut reader, mut lines) = (LineReader::default(), Vec::new());
        for chunk in chunks {
            reader.push(chunk);
            while let Ok(Some(line)) = reader.next_line() {
                lines.push(line);
            }
        }
        lines
    };
    let (head, tail) = stream.split_at(usize::from(*cut).min(stream.len()));
    let lines = drain(&[head, tail]);
    if stream.len() <= 40_000 {
        assert_eq!(lines, drain(&[stream]), "lines do not depend on how the stream is cut");
    }
    !lines.is_empty()
}

pub fn envelope(data: &[u8]) -> bool {
    let Ok(envelope) = Envelope::decode(data) else { return false };
    if let Ok(line) = envelope.encode() {
        assert_eq!(Envelope::decode(line.as_bytes()).as_ref(), Ok(&envelope));
    }
    true
}

pub fn handshake(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let mut understood = false;
    for network in ["mainnet", "testnet", "signet", "regtest"] {
        if let Ok(peer) = PeerHandshake::parse(text, network) {
            assert_eq!(PeerHandshake::parse(&peer.to_line(), network).as_ref(), Ok(&peer));
            understood = true;
        }
        understood |= DirectoryHandshake::parse(text, network).is_ok();
    }
    understood
}

pub fn location(data: &[u8]) -> bool {
    round_trip::<Location>(data)
}

pub fn onion_name(data: &[u8]) -> bool {
    if let Some(key) = data.first_chunk::<32>() {
        assert_eq!(onion_name::decode(&onion_name::encode(key)), Some(*key));
    }
    let Some(text) = text(data) else { return false };
    let Some(key) = onion_name::decode(text) else { return false };
    assert_eq!(onion_name::encode(&key), text);
    true
}

pub fn peerlist(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let entries = peerlist::parse(text);
    for entry in &entries {
        assert_eq!(PeerEntry::parse(&entry.to_string()).as_ref(), Some(entry));
    }
    !entries.is_empty()
}

pub fn nick_auth(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let proof = Proof::parse(text);
    if let Ok(proof) = &proof {
        let challenge = Challenge::new([7; 32], "directory");
        let _ = proof.verify(&challenge, "handshake", &some_nick());
    }
    let challenge = Challenge::parse(text, "directory");
    let reached =
        matches!(challenge, Ok(_) | Err(joinery_proto::onion::nick_auth::NickAuthError::Directory));
    proof.is_ok() || reached || Verdict::parse(text).is_ok()
}
