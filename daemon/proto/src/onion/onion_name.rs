//! Version 3 onion names: base32 of a public key, a checksum and the version (Tor's `rend-spec-v3`,
//! "Encoding onion addresses").
//!
//! The checksum is two bytes of SHA3-256. It finds typing errors and made-up names; it proves nothing.

use sha3::{Digest, Sha3_256};

/// Characters of a name before `.onion`.
pub const NAME_LENGTH: usize = 56;
/// What follows the name.
const SUFFIX: &str = ".onion";
/// Bytes that the name encodes: key, checksum, version.
const BYTES: usize = 35;
/// The version that the last byte must be.
const VERSION: u8 = 3;
/// What the checksum is about.
const CHECKSUM: &[u8] = b".onion checksum";
/// RFC 4648 base32 in lower case, as Tor writes it.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The service's public key in a host such as `…d.onion`; `None` unless it is a version 3 name in lower case
/// with the right checksum.
#[must_use]
pub fn decode(host: &str) -> Option<[u8; 32]> {
    let name = host.strip_suffix(SUFFIX)?.as_bytes();
    if name.len() != NAME_LENGTH {
        return None;
    }
    let mut bytes = [0_u8; BYTES];
    // 8 characters of 5 bits are 5 bytes; 56 and 35 are both seven groups.
    for (group, out) in name.chunks_exact(8).zip(bytes.chunks_exact_mut(5)) {
        let mut bits = 0_u64;
        for character in group {
            let value = ALPHABET.iter().position(|letter| letter == character)?;
            bits = bits << 5 | u64::try_from(value).ok()?;
        }
        let [_, _, _, packed @ ..] = bits.to_be_bytes();
        out.copy_from_slice(&packed);
    }
    let (key, rest) = bytes.split_first_chunk::<32>()?;
    (rest == [checksum(key)[0], checksum(key)[1], VERSION]).then_some(*key)
}

/// The host of a service with this key, `.onion` included.
#[must_use]
pub fn encode(key: &[u8; 32]) -> String {
    let [first, second] = checksum(key);
    let bytes = key.iter().copied().chain([first, second, VERSION]);
    let (mut host, mut bits, mut held) = (String::with_capacity(62), 0_u32, 0_u32);
    for byte in bytes {
        bits = (bits << 8 | u32::from(byte)) & 0xfff;
        held = held.saturating_add(8);
        while held >= 5 {
            held = held.saturating_sub(5);
            let letter = ALPHABET.get((bits >> held & 31) as usize);
            host.extend(letter.map(|letter| char::from(*letter)));
        }
    }
    host.push_str(SUFFIX);
    host
}

fn checksum(key: &[u8; 32]) -> [u8; 2] {
    let digest = Sha3_256::new().chain_update(CHECKSUM).chain_update(key).chain_update([VERSION]);
    let [first, second, ..] = <[u8; 32]>::from(digest.finalize());
    [first, second]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode};

    /// Directories of the live network and a maker of the vectors.
    const REAL: [&str; 4] = [
        "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead.onion",
        "nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion",
        "odpwaf67rs5226uabcamvypg3y4bngzmfk7255flcdodesqhsvkptaid.onion",
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
    ];

    #[test]
    fn names_of_real_services_are_valid_and_round_trip() {
        for host in REAL {
            assert_eq!(encode(&decode(host).unwrap()), host);
        }
    }

    #[test]
    fn one_wrong_character_is_found() {
        for host in REAL {
            for place in 0..56 {
                let mut wrong = host.as_bytes().to_vec();
                wrong[place] = if wrong[place] == b'a' { b'b' } else { b'a' };
                assert_eq!(decode(std::str::from_utf8(&wrong).unwrap()), None, "{place}");
            }
        }
    }

    #[test]
    fn other_hosts_are_not_onions() {
        let upper = REAL[0].to_uppercase();
        for host in ["", ".onion", "127.0.0.1", "example.com", "expyuzz4wqqyqhjn.onion", &upper] {
            assert_eq!(decode(host), None, "{host}");
        }
    }

    proptest! {
        #[test]
        fn keys_round_trip(key in any::<[u8; 32]>()) {
            prop_assert_eq!(decode(&encode(&key)), Some(key));
        }

        #[test]
        fn decoding_never_panics(host in ".{0,70}") {
            let _ = decode(&host);
        }
    }
}
