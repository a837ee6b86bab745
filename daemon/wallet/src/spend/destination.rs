//! The address somebody is paid to (`spec/wallet.md` 1 and 8.3, `spec/api.md` 6.15).

use std::str::FromStr;

use bdk_wallet::bitcoin::address::{NetworkUnchecked, ParseError};
use bdk_wallet::bitcoin::{Address, WitnessVersion};

use crate::types::Network;

/// Longest address text: a bech32 string has at most 90 characters (BIP173).
pub const MAX_ADDRESS_BYTES: usize = 90;

/// Why a text is not an address that can be paid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// Longer than any address.
    #[error("an address has at most {MAX_ADDRESS_BYTES} characters, this has {0}")]
    TooLong(usize),
    /// Wrong characters, checksum, length or version.
    #[error("not a valid address")]
    Malformed(#[source] ParseError),
    /// An address of another network.
    #[error("not an address of {0}")]
    OtherNetwork(Network),
    /// Version 1 with a length other than 32 bytes: anybody could take the coins.
    #[error("a version 1 witness program of {0} bytes belongs to nobody")]
    Unowned(usize),
}

/// Parses the address of a payment, exactly as given: no surrounding space, no URI.
///
/// Any standard type of the configured network is accepted, and later witness versions. Checksums decide:
/// a bech32 text with one wrong letter or of mixed case is refused.
///
/// # Errors
/// See [`DestinationError`].
pub fn parse_destination(text: &str, network: Network) -> Result<Address, DestinationError> {
    if text.len() > MAX_ADDRESS_BYTES {
        return Err(DestinationError::TooLong(text.len()));
    }
    let address =
        Address::<NetworkUnchecked>::from_str(text).map_err(DestinationError::Malformed)?;
    let address = address
        .require_network(network.bitcoin())
        .map_err(|_| DestinationError::OtherNetwork(network))?;
    if let Some(program) = address.witness_program() {
        let length = program.program().len();
        if program.version() == WitnessVersion::V1 && length != 32 {
            return Err(DestinationError::Unowned(length));
        }
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::{ScriptBuf, WitnessProgram};

    use super::*;

    const P2WPKH: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

    #[test]
    fn accepts_every_standard_type() {
        for text in [
            P2WPKH,
            &P2WPKH.to_uppercase(),
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "BC1SW50QGDZ25J",
        ] {
            let address = parse_destination(text, Network::Mainnet);
            assert!(address.is_ok(), "{text}: {address:?}");
        }
        let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        assert!(parse_destination(regtest, Network::Regtest).is_ok());
        let test = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
        for network in [Network::Testnet, Network::Testnet4, Network::Signet] {
            assert!(parse_destination(test, network).is_ok());
        }
    }

    #[test]
    fn address_checksum_and_network() {
        let one_wrong_letter = (0..P2WPKH.len()).flat_map(|position| {
            "qpzry9x8gf2tvdw0s3jn54khce6mua7l".chars().filter_map(move |letter| {
                let mut text: Vec<char> = P2WPKH.chars().collect();
                let changed = std::mem::replace(&mut text[position], letter) != letter;
                changed.then(|| text.into_iter().collect::<String>())
            })
        });
        let mut count = 0;
        for text in one_wrong_letter {
            assert!(parse_destination(&text, Network::Mainnet).is_err(), "{text}");
            count += 1;
        }
        assert!(count > 1000);
        for network in [Network::Testnet, Network::Testnet4, Network::Signet, Network::Regtest] {
            let error = parse_destination(P2WPKH, network);
            assert!(matches!(error, Err(DestinationError::OtherNetwork(_))), "{error:?}");
        }
        let legacy_of_testnet = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";
        assert!(parse_destination(legacy_of_testnet, Network::Mainnet).is_err());
        for text in [
            "",
            " ",
            "BURN",
            "INTERNAL",
            &format!(" {P2WPKH}"),
            &format!("{P2WPKH}\n"),
            &format!("bitcoin:{P2WPKH}"),
            &format!("bitcoin:{P2WPKH}?amount=1"),
            &P2WPKH.replace("kv8", "Kv8"),
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t",
            "\u{0412}C1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            "bc1\u{0440}w508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
            // BIP350: version 0 with the checksum of version 1, version 1 with that of version 0,
            // invalid lengths.
            "bc1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
            "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
            "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
            "bc1pw5dgrnzv",
            &"a".repeat(10_000),
        ] {
            assert!(parse_destination(text, Network::Mainnet).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_what_anybody_could_take() {
        for length in [2, 31, 33, 40] {
            let program = WitnessProgram::new(WitnessVersion::V1, &vec![7; length]).unwrap();
            let script = ScriptBuf::new_witness_program(&program);
            let address = Address::from_script(&script, Network::Mainnet.bitcoin()).unwrap();
            let error = parse_destination(&address.to_string(), Network::Mainnet);
            assert!(matches!(error, Err(DestinationError::Unowned(_))), "{length}: {error:?}");
        }
    }
}
