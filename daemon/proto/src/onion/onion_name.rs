//! Version 3 onion names: base32 of a public key, a checksum and the version (Tor's `rend-spec-v3`,
//! "Encoding onion addresses").
//!
//! The checksum is two bytes of SHA3-256 over one short block. It finds typing errors and made-up names; it
//! proves nothing, so the few lines of Keccak below need not resist anybody.

/// Characters of a name before `.onion`.
pub const NAME_LENGTH: usize = 56;
/// What follows the name.
const SUFFIX: &str = ".onion";
/// Bytes that the name encodes: key, checksum, version.
const BYTES: usize = 35;
/// The version that the last byte must be.
const VERSION: u8 = 3;
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
    // One block of SHA3-256: the message, the padding of FIPS 202, zeros up to the rate of 136 bytes.
    let mut block = [0_u8; 136];
    let message = b".onion checksum".iter().chain(key).chain([VERSION, 0x06].iter());
    for (place, byte) in block.iter_mut().zip(message) {
        *place = *byte;
    }
    if let Some(last) = block.last_mut() {
        *last |= 0x80;
    }
    let mut state = [0_u64; 25];
    for (lane, bytes) in state.iter_mut().zip(block.as_chunks::<8>().0) {
        *lane = u64::from_le_bytes(*bytes);
    }
    keccak(&mut state);
    let [first, second, ..] = state[0].to_le_bytes();
    [first, second]
}

/// Round constants of Keccak-f[1600] (FIPS 202, 3.2.5).
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];
/// The walk of the steps rho and pi: which lane comes next and how far it is turned.
const WALK: [(usize, u32); 24] = [
    (10, 1),
    (7, 3),
    (11, 6),
    (17, 10),
    (18, 15),
    (3, 21),
    (5, 28),
    (16, 36),
    (8, 45),
    (21, 55),
    (24, 2),
    (4, 14),
    (15, 27),
    (23, 41),
    (19, 56),
    (13, 8),
    (12, 25),
    (2, 43),
    (20, 62),
    (14, 18),
    (22, 39),
    (9, 61),
    (6, 20),
    (1, 44),
];

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "constant positions below 25 in an array of 25"
)]
fn keccak(state: &mut [u64; 25]) {
    for constant in ROUNDS {
        let column = |x: usize| (0..5).fold(0, |sum, y| sum ^ state[x + 5 * y]);
        let columns = [column(0), column(1), column(2), column(3), column(4)];
        for x in 0..5 {
            let mix = columns[(x + 4) % 5] ^ columns[(x + 1) % 5].rotate_left(1);
            for y in 0..5 {
                state[x + 5 * y] ^= mix;
            }
        }
        let mut carried = state[1];
        for (lane, turn) in WALK {
            carried = std::mem::replace(&mut state[lane], carried.rotate_left(turn));
        }
        for row in state.as_chunks_mut::<5>().0 {
            let before = *row;
            for x in 0..5 {
                row[x] = before[x] ^ (!before[(x + 1) % 5] & before[(x + 2) % 5]);
            }
        }
        state[0] ^= constant;
    }
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
