//! Wallet files of joinmarket-ng, with and without magic (`spec/wallet.md` 4.6, vector
//! `ng_wallet_file.json`). They hold only the seed; labels and freeze flags live elsewhere.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use argon2::Algorithm;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::kdf::{self, Cost};
use super::{Content, FileError, StoredNetwork};
use crate::keys::ImportedKeys;
use crate::mnemonic;
use crate::types::{DEFAULT_MAX_MIXDEPTH, WalletType};

/// First bytes of the newer form.
const MAGIC: &[u8; 4] = b"JMNG";
const VERSION: u8 = 1;
const KDF_ARGON2ID: u8 = 1;
const SALT_LEN: usize = 16;
/// Rounds of the form without magic.
const PBKDF2_ROUNDS: u32 = 600_000;
/// A token holds one phrase; anything longer is not one.
const MAX_TOKEN_LEN: usize = 16 * 1024;
/// Limits of the header (`spec/wallet.md` 4.6): 1 GiB, 100 passes, 16 lanes.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_TIME: u32 = 100;
const MAX_LANES: u8 = 16;
/// Limit of memory times passes: ten passes over the largest memory take half a minute.
const MAX_WORK: u64 = 10 * 1024 * 1024;

const CUT: FileError = FileError::Damaged("file is cut short");

/// What a file demands before its password can be checked.
#[derive(Debug, Clone, Copy)]
enum Kdf {
    Argon2id(Cost),
    Pbkdf2,
}

struct Container<'a> {
    kdf: Kdf,
    salt: &'a [u8],
    token: Token,
}

/// A Fernet token: `0x80`, time, IV, ciphertext, HMAC-SHA256 over everything before it.
struct Token {
    bytes: Vec<u8>,
}

impl Token {
    /// 1 version, 8 time, 16 IV.
    const HEADER_LEN: usize = 25;
    const MAC_LEN: usize = 32;

    fn decode(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        if text.len() > MAX_TOKEN_LEN {
            return None;
        }
        let bytes = URL_SAFE.decode(text).ok()?;
        let ciphertext = bytes.len().checked_sub(Self::HEADER_LEN + Self::MAC_LEN)?;
        let valid = bytes.first() == Some(&0x80) && ciphertext > 0 && ciphertext % 16 == 0;
        valid.then_some(Self { bytes })
    }

    /// First half of the key signs, second half encrypts.
    fn open(&self, key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let (signing, encryption) = key.split_at(16);
        let cut = self.bytes.len().checked_sub(Self::MAC_LEN).ok_or(CUT)?;
        let (signed, mac) = self.bytes.split_at_checked(cut).ok_or(CUT)?;
        let mut hmac = Hmac::<Sha256>::new_from_slice(signing)
            .map_err(|_| FileError::Damaged("key of the token"))?;
        hmac.update(signed);
        // Constant time inside the crate. A wrong password and a damaged token look the same.
        hmac.verify_slice(mac).map_err(|_| FileError::WrongPassword)?;
        let (header, ciphertext) = signed.split_at_checked(Self::HEADER_LEN).ok_or(CUT)?;
        let iv = header.get(9..).ok_or(CUT)?;
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        let length = cbc::Decryptor::<aes::Aes128>::new_from_slices(encryption, iv)
            .map_err(|_| CUT)?
            .decrypt_padded_mut::<Pkcs7>(&mut plain)
            .map_err(|_| FileError::Damaged("padding of the token"))?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

fn container(file: &[u8]) -> Result<Container<'_>, FileError> {
    let Some(rest) = file.strip_prefix(MAGIC) else {
        // No magic: only a salt and a token can make this a wallet file.
        let (salt, token) = file.split_at_checked(SALT_LEN).ok_or(FileError::NotAWallet)?;
        let token = Token::decode(token).ok_or(FileError::NotAWallet)?;
        return Ok(Container { kdf: Kdf::Pbkdf2, salt, token });
    };
    let (header, rest) = rest.split_at_checked(11).ok_or(CUT)?;
    let (salt, token) = rest.split_at_checked(SALT_LEN).ok_or(CUT)?;
    let &[version, kdf, m0, m1, m2, m3, t0, t1, t2, t3, lanes] = header else {
        return Err(CUT);
    };
    if version != VERSION {
        return Err(FileError::UnsupportedVersion(version));
    }
    if kdf != KDF_ARGON2ID {
        return Err(FileError::Damaged("unknown key derivation"));
    }
    let memory_kib = u32::from_be_bytes([m0, m1, m2, m3]);
    let time = u32::from_be_bytes([t0, t1, t2, t3]);
    if memory_kib > MAX_MEMORY_KIB
        || time > MAX_TIME
        || lanes > MAX_LANES
        || u64::from(memory_kib) * u64::from(time) > MAX_WORK
    {
        return Err(FileError::ExcessiveKdf);
    }
    let token = Token::decode(token).ok_or(FileError::Damaged("token"))?;
    let cost = Cost { memory_kib, time, lanes: lanes.into() };
    Ok(Container { kdf: Kdf::Argon2id(cost), salt, token })
}

fn derive(kdf: Kdf, password: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, FileError> {
    match kdf {
        Kdf::Argon2id(cost) => kdf::argon2(Algorithm::Argon2id, cost, password, salt),
        Kdf::Pbkdf2 => {
            let mut key = Zeroizing::new([0; 32]);
            pbkdf2::pbkdf2::<Hmac<Sha256>>(password, salt, PBKDF2_ROUNDS, &mut *key)
                .map_err(|_| FileError::Damaged("key derivation"))?;
            Ok(key)
        }
    }
}

/// Reads a file of either form; whatever has no known structure is not a wallet.
pub(crate) fn decode(file: &[u8], password: &[u8]) -> Result<Content, FileError> {
    let container = container(file)?;
    let key = derive(container.kdf, password, container.salt)?;
    parse(&container.token.open(&key)?)
}

#[derive(Deserialize)]
struct Stored {
    mnemonic: String,
    wallet_type: String,
    #[serde(default)]
    creation_height: Option<u32>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.mnemonic.zeroize();
    }
}

fn parse(plain: &[u8]) -> Result<Content, FileError> {
    let stored: Stored =
        serde_json::from_slice(plain).map_err(|_| FileError::Damaged("content is not JSON"))?;
    let wallet_type = match WalletType::from_api_name(&stored.wallet_type) {
        // joinmarket-ng lets every native wallet have bonds whatever its type says; opened as `sw` they
        // would be invisible. All other addresses of the two types are the same.
        Some(WalletType::NativeSegwit) => WalletType::FidelityBond,
        Some(other) => other,
        None => {
            let name = stored.wallet_type.chars().take(32).collect::<String>();
            return Err(FileError::UnsupportedType(name.escape_debug().to_string()));
        }
    };
    let entropy = mnemonic::entropy_of_phrase(&stored.mnemonic)
        .map_err(|_| FileError::Damaged("recovery phrase"))?;
    Ok(Content {
        network: StoredNetwork::Unknown,
        wallet_type,
        entropy,
        extension: None,
        created: 0,
        birth_height: stored.creation_height,
        max_mixdepth: DEFAULT_MAX_MIXDEPTH,
        imported: ImportedKeys::default(),
        legacy: None,
    })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/ng_wallet_file.json")).expect("JSON")
    }

    fn bytes(value: &Value) -> Vec<u8> {
        STANDARD.decode(value["base64"].as_str().expect("text")).expect("base64")
    }

    fn check(case: &Value, plaintext: &str) {
        let file = bytes(case);
        let password = case["password"].as_str().expect("text").as_bytes();
        let container = container(&file).expect("container");
        let key = derive(container.kdf, password, container.salt).expect("bounded");
        assert_eq!(Some(hex::encode(*key).as_str()), case["derived_key"].as_str());
        let plain = container.token.open(&key).expect("right key");
        let content = parse(&plain).expect("valid content");
        let expected: Value = serde_json::from_str(plaintext).expect("JSON");
        let phrase = mnemonic::phrase_of_entropy(&content.entropy).expect("entropy");
        assert_eq!(Some(phrase.expose_secret()), expected["mnemonic"].as_str());
        assert_eq!(Some(content.wallet_type.api_name()), expected["wallet_type"].as_str());
        assert_eq!(decode(&file, b"wrong").err(), Some(FileError::WrongPassword));
    }

    #[test]
    fn the_file_with_magic_opens() {
        let file = vectors();
        let plaintext = file["plaintext_json"].as_str().expect("text");
        check(&file, plaintext);
        assert_eq!(bytes(&file), include_bytes!("../../tests/vectors/sample_ng.jmdat"));
        let content = decode(&bytes(&file), b"correct horse battery staple").expect("opens");
        assert_eq!(content.birth_height, Some(850_000));
    }

    #[test]
    fn the_older_file_without_magic_opens() {
        let file = vectors();
        let plaintext = file["plaintext_json"].as_str().expect("text");
        check(&file["legacy_pbkdf2"], plaintext);
    }

    #[test]
    fn damage_and_truncation_are_errors() {
        let file = bytes(&vectors());
        for length in [4, 5, 14, 15, 30, 31, 40, file.len() - 1] {
            let error = decode(&file[..length], b"pw").err();
            assert!(matches!(error, Some(FileError::Damaged(_))), "{length}: {error:?}");
        }
        let mut flipped = file.clone();
        let middle = file.len() / 2;
        flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
        let password = b"correct horse battery staple";
        assert_eq!(decode(&flipped, password).err(), Some(FileError::WrongPassword));
        for (range, value) in [(6..10, u32::MAX), (10..14, u32::MAX), (6..10, 1_048_577)] {
            let mut hostile = file.clone();
            hostile[range].copy_from_slice(&value.to_be_bytes());
            assert_eq!(decode(&hostile, password).err(), Some(FileError::ExcessiveKdf));
        }
        let mut version = file;
        version[4] = 2;
        assert_eq!(decode(&version, password).err(), Some(FileError::UnsupportedVersion(2)));
        assert_eq!(decode(b"", b"pw").err(), Some(FileError::NotAWallet));
        assert_eq!(
            decode(b"just some text that is no wallet", b"pw").err(),
            Some(FileError::NotAWallet)
        );
    }

    #[test]
    fn native_wallets_open_with_bonds_whatever_type_they_state() {
        let phrase = format!("{}about", "abandon ".repeat(11));
        let parse = |kind: &str| {
            parse(format!(r#"{{"mnemonic":"{phrase}","wallet_type":"{kind}"}}"#).as_bytes())
        };
        assert_eq!(parse("sw").map(|c| c.wallet_type).ok(), Some(WalletType::FidelityBond));
        assert_eq!(parse("sw-legacy").map(|c| c.wallet_type).ok(), Some(WalletType::NestedSegwit));
        assert_eq!(parse("tr").err(), Some(FileError::UnsupportedType("tr".to_owned())));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = container(&bytes);
            let _ = parse(&bytes);
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&bytes);
            let _ = container(&file);
        }
    }
}
