//! Signing of messages with the key of an address (`spec/wallet.md` 11, vector `signed_message.json`).

use bdk_wallet::bitcoin::Address;
use joinery_proto::fidelity_bond::TimeNumber;
use joinery_proto::message_signature;

use crate::keys::{BOND_BRANCH, KeyError, MasterKey};
use crate::path::ScriptPlace;
use crate::types::{Branch, Keychain, Mixdepth};

/// Longest path text that is looked at, bytes: `m/84'/1'/99'/1/2147483647` and a lock time fit well.
const MAX_PATH_LEN: usize = 64;

/// Why a message was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignMessageError {
    /// Empty path. The text is that of the reference.
    #[error("Error: no key path for signing specified")]
    NoPath,
    /// Empty message. The text is that of the reference.
    #[error("Error: no message specified")]
    NoMessage,
    /// Not a path, or of another wallet type, network, mixdepth or branch.
    #[error("not a key path of this wallet")]
    UnknownPath,
    /// The wallet has no such key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads a path as the display shows it: `m/84'/0'/0'/0/3`, `m/84'/0'/0'/2/100:1840752000` or
/// `imported/2/0`. Hardened levels are marked with `'` or `h`.
///
/// # Errors
/// [`SignMessageError::UnknownPath`] for everything that is not a script of this wallet.
pub fn parse_place(
    path: &str,
    keys: &MasterKey,
    max_mixdepth: Mixdepth,
) -> Result<ScriptPlace, SignMessageError> {
    place(path, keys, max_mixdepth).ok_or(SignMessageError::UnknownPath)
}

fn place(path: &str, keys: &MasterKey, max_mixdepth: Mixdepth) -> Option<ScriptPlace> {
    if path.len() > MAX_PATH_LEN {
        return None;
    }
    let mut levels = [""; 6];
    let mut count = 0;
    for level in path.split('/') {
        *levels.get_mut(count)? = level;
        count += 1;
    }
    match levels {
        ["imported", mixdepth, index, ..] if count == 3 => {
            let mixdepth = Mixdepth(number(mixdepth)?);
            Some(ScriptPlace::Imported { mixdepth, index: number(index)? })
        }
        ["m", purpose, coin, mixdepth, branch, index] if count == 6 => {
            if hardened(purpose)? != keys.wallet_type().purpose()
                || hardened(coin)? != keys.network().coin_type()
            {
                return None;
            }
            let mixdepth = Mixdepth(u8::try_from(hardened(mixdepth)?).ok()?);
            if mixdepth > max_mixdepth {
                return None;
            }
            let branch = match number::<u32>(branch)? {
                0 => Branch::External,
                1 => Branch::Internal,
                BOND_BRANCH if mixdepth == Mixdepth(0) => return bond(index),
                _ => return None,
            };
            let keychain = Keychain { mixdepth, branch };
            Some(ScriptPlace::Ranged {
                keychain,
                index: number(index).filter(|i: &u32| *i < 1 << 31)?,
            })
        }
        _ => None,
    }
}

/// `TIMENUMBER:LOCKTIME`, which must belong together.
fn bond(text: &str) -> Option<ScriptPlace> {
    let (timenumber, locktime) = text.split_once(':')?;
    let month = TimeNumber::new(number(timenumber)?).ok()?;
    (number::<u32>(locktime)? == month.locktime())
        .then_some(ScriptPlace::Bond { timenumber: month.number() })
}

/// Decimal digits without sign and leading zeros.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let shortest = text == "0" || !text.starts_with('0');
    (shortest && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn hardened(text: &str) -> Option<u32> {
    number(text.strip_suffix(['\'', 'h'])?)
}

/// Signs a message with the key of a path; returns the signature (standard base64 of 65 bytes, header 31
/// to 34) and the address of the path.
///
/// Bonds sign with their key and give the bond address; every network is allowed.
///
/// # Errors
/// See [`SignMessageError`]. An empty path is reported before an empty message.
pub fn sign(
    keys: &MasterKey,
    max_mixdepth: Mixdepth,
    path: &str,
    message: &str,
) -> Result<(String, Address), SignMessageError> {
    if path.is_empty() {
        return Err(SignMessageError::NoPath);
    }
    if message.is_empty() {
        return Err(SignMessageError::NoMessage);
    }
    let place = parse_place(path, keys, max_mixdepth)?;
    let signer = keys.signer(&place)?;
    let signature = message_signature::sign_base64(message.as_bytes(), signer.secret_key());
    Ok((signature, keys.address(&place)?))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::keys::{ImportedKey, ImportedKeys};
    use crate::mnemonic::entropy_of_phrase;
    use crate::types::{Network, WalletType};

    const MAX: Mixdepth = Mixdepth(4);

    fn keys(wallet_type: WalletType, network: Network) -> MasterKey {
        let phrase = format!("{}about", "abandon ".repeat(11));
        let mut imported = ImportedKeys::default();
        imported.push(Mixdepth(2), Some(ImportedKey::new(&[1; 32], 2).expect("valid key")));
        let entropy = entropy_of_phrase(&phrase).expect("valid phrase");
        MasterKey::from_entropy(&entropy, None, wallet_type, network, imported).expect("valid")
    }

    #[test]
    fn signatures_match_the_reference_byte_for_byte() {
        let text = include_str!("../tests/vectors/signed_message.json");
        let file: Value = serde_json::from_str(text).expect("JSON");
        let cases = file["cases"].as_array().expect("list");
        assert_eq!(cases.len(), 16);
        for (index, case) in cases.iter().enumerate() {
            let text = |key: &str| case[key].as_str().expect("text");
            let keys = MasterKey::from_entropy(
                &entropy_of_phrase(text("mnemonic")).expect("valid phrase"),
                None,
                WalletType::from_api_name(text("wallettype")).expect("type"),
                Network::from_name(text("network")).expect("network"),
                ImportedKeys::default(),
            )
            .expect("valid entropy");
            match sign(&keys, MAX, text("hd_path"), text("message")) {
                Ok((signature, address)) => {
                    assert_eq!(signature, text("signature"), "case {index}");
                    assert_eq!(address.to_string(), text("address"), "case {index}");
                    let signer = keys
                        .signer(&parse_place(text("hd_path"), &keys, MAX).expect("path"))
                        .expect("place");
                    let message = text("message").as_bytes();
                    let raw = message_signature::sign(message, signer.secret_key());
                    assert_eq!(hex::encode(raw), text("signature_hex"), "case {index}");
                    let public = signer.public_key().0;
                    assert_eq!(
                        message_signature::verify_base64(message, &signature, &public),
                        Ok(true)
                    );
                }
                Err(error) => assert_eq!(error.to_string(), text("error_message"), "case {index}"),
            }
        }
        assert_eq!(
            hex::encode(message_signature::digest(b"hello")),
            file["message_hash_hello"].as_str().expect("text")
        );
    }

    #[test]
    fn bonds_imported_keys_and_test_networks_sign_too() {
        let keys = keys(WalletType::FidelityBond, Network::Regtest);
        for path in ["m/84'/1'/0'/2/100:1840752000", "imported/2/0", "m/84h/1h/4h/1/2147483647"] {
            let (signature, address) = sign(&keys, MAX, path, "hello").expect("signs");
            let place = parse_place(path, &keys, MAX).expect("path");
            assert_eq!(address, keys.address(&place).expect("place"));
            let public = keys.signer(&place).expect("place").public_key().0;
            assert_eq!(
                message_signature::verify_base64(b"hello", &signature, &public),
                Ok(true),
                "{path}"
            );
        }
    }

    #[test]
    fn every_displayed_path_is_read_back() {
        let keys = keys(WalletType::FidelityBond, Network::Regtest);
        let keychain = Keychain { mixdepth: Mixdepth(3), branch: Branch::Internal };
        for place in [
            ScriptPlace::Ranged { keychain, index: 12 },
            ScriptPlace::Bond { timenumber: 0 },
            ScriptPlace::Bond { timenumber: 959 },
            ScriptPlace::Imported { mixdepth: Mixdepth(2), index: 0 },
        ] {
            assert_eq!(parse_place(&place.display(84, 1), &keys, MAX), Ok(place));
        }
    }

    #[test]
    fn foreign_and_malformed_paths_are_refused() {
        let keys = keys(WalletType::FidelityBond, Network::Mainnet);
        for path in [
            "m",
            "m/",
            "/",
            "x",
            "m/84'/0'/0'/0",
            "m/84'/0'/0'/0/0/0",
            "84'/0'/0'/0/0",
            "m/49'/0'/0'/0/0",
            "m/84'/1'/0'/0/0",
            "m/84/0/0/0/0",
            "m/84'/0'/0/0/0",
            "m/84'/0'/5'/0/0",
            "m/84'/0'/256'/0/0",
            "m/84'/0'/0'/0'/0",
            "m/84'/0'/0'/0/0'",
            "m/84'/0'/0'/3/0",
            "m/84'/0'/0'/4/0",
            "m/84'/0'/1'/2/100:1840752000",
            "m/84'/0'/0'/2/100",
            "m/84'/0'/0'/2/100:1840752001",
            "m/84'/0'/0'/2/960:4102444800",
            "m/84'/0'/0'/0/-1",
            "m/84'/0'/0'/0/+1",
            "m/84'/0'/0'/0/01",
            "m/84'/0'/0'/0/2147483648",
            "m/84'/0'/0'/0/",
            "m/84'/0'/0'/0/0x1",
            "m/84'/0'/0'/0/1 ",
            " m/84'/0'/0'/0/1",
            "m/84'/0'/0'/0/1:2",
            "m/84'/0'/0'/0/٣",
            "imported",
            "imported/2",
            "imported/2/0/0",
            "imported/2/-1",
            "imported/a/0",
        ] {
            assert_eq!(
                sign(&keys, MAX, path, "hello").err(),
                Some(SignMessageError::UnknownPath),
                "{path}"
            );
        }
        let long = format!("m/84'/0'/0'/0/{}", "1".repeat(10_000));
        assert_eq!(sign(&keys, MAX, &long, "m").err(), Some(SignMessageError::UnknownPath));
        for missing in ["imported/2/1", "imported/0/0"] {
            let error = sign(&keys, MAX, missing, "hello").err();
            assert!(
                matches!(error, Some(SignMessageError::Key(KeyError::NoImportedKey { .. }))),
                "{missing}"
            );
        }
        assert_eq!(sign(&keys, MAX, "", "").err(), Some(SignMessageError::NoPath));
        let native = self::keys(WalletType::NativeSegwit, Network::Mainnet);
        assert_eq!(
            sign(&native, MAX, "m/84'/0'/0'/2/100:1840752000", "hello").err(),
            Some(SignMessageError::Key(KeyError::NoBonds))
        );
    }

    #[test]
    fn a_message_of_ten_megabytes_signs() {
        let keys = keys(WalletType::NestedSegwit, Network::Regtest);
        let message = "x".repeat(10_000_000);
        let (signature, _) = sign(&keys, MAX, "m/49'/1'/0'/0/0", &message).expect("signs");
        assert_eq!(signature.len(), 88);
    }

    proptest::proptest! {
        #[test]
        fn path_parser_never_panics(text in "[mhimported0-9/':-]{0,40}", any in ".{0,80}") {
            let keys = keys(WalletType::FidelityBond, Network::Mainnet);
            let _ = parse_place(&text, &keys, MAX);
            let _ = parse_place(&any, &keys, MAX);
        }
    }
}
