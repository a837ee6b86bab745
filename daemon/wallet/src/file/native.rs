//! Our own key file, `JOINWLT1` (`spec/wallet.md` 13.3).
//!
//! ```text
//! 0   8   magic "JOINWLT1"
//! 8   1   key derivation: 1 = Argon2id, version 0x13
//! 9   4   memory KiB, u32 big-endian
//! 13  4   passes, u32 big-endian
//! 17  1   lanes
//! 18 16   salt
//! 34 24   nonce
//! 58 ..   XChaCha20-Poly1305 ciphertext and tag; bytes 0..34 are associated data
//! ```
//! The plaintext is CBOR. New fields are optional, so that older files still load; a change that older
//! programs must not ignore raises `version`.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::kdf::{KdfParams, PasswordCheck};
use super::{Content, FileError, LegacyFacts, StoredNetwork};
use crate::keys::{ImportedKey, ImportedKeys};
use crate::types::{Mixdepth, Network, WalletType};

/// First bytes of a native key file.
pub(crate) const MAGIC: &[u8; 8] = b"JOINWLT1";
const KDF_ARGON2ID: u8 = 1;
const HEADER_LEN: usize = 34;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const VERSION: u8 = 1;
/// The content nests five levels deep at most.
const MAX_CBOR_DEPTH: usize = 16;

/// Random bytes that a new file needs; passed in so that this module is a function of its inputs.
pub(crate) struct Randomness {
    pub(crate) salt: [u8; 16],
    pub(crate) nonce: [u8; NONCE_LEN],
}

/// A decrypted native file.
pub(crate) struct Opened {
    pub(crate) content: Content,
    pub(crate) dek: Zeroizing<[u8; 32]>,
    pub(crate) check: PasswordCheck,
}

/// A byte string that is erased on drop; CBOR type "byte string".
#[derive(Clone, Default)]
struct Bytes(Zeroizing<Vec<u8>>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(Zeroizing::new(bytes.to_vec())))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(Zeroizing::new(bytes)))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    network: String,
    wallet_type: u8,
    entropy: Bytes,
    /// UTF-8.
    extension: Option<Bytes>,
    created: u64,
    birth_height: Option<u32>,
    max_mixdepth: u8,
    /// Secret and script type by position; `None` for removed keys.
    imported: BTreeMap<u8, Vec<Option<(Bytes, u8)>>>,
    dek: Bytes,
    legacy: Option<LegacyFacts>,
}

fn header(params: KdfParams, salt: &[u8; 16]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(MAGIC);
    header.push(KDF_ARGON2ID);
    header.extend_from_slice(&params.memory_kib().to_be_bytes());
    header.extend_from_slice(&params.time().to_be_bytes());
    header.push(params.lanes());
    header.extend_from_slice(salt);
    header
}

/// Encrypts a key file. The network must be a precise one.
pub(crate) fn encode(
    content: &Content,
    network: Network,
    dek: &[u8; 32],
    password: &[u8],
    params: KdfParams,
    random: &Randomness,
) -> Result<(Vec<u8>, PasswordCheck), FileError> {
    let key = params.derive(password, &random.salt)?;
    let stored = Stored {
        version: VERSION,
        network: network.name().to_owned(),
        wallet_type: content.wallet_type.id(),
        entropy: Bytes(content.entropy.clone()),
        extension: content
            .extension
            .as_ref()
            .map(|text| Bytes(Zeroizing::new(text.as_bytes().to_vec()))),
        created: content.created,
        birth_height: content.birth_height,
        max_mixdepth: content.max_mixdepth,
        imported: content
            .imported
            .iter()
            .map(|(mixdepth, keys)| {
                let keys = keys.iter().map(|key| {
                    let key = key.as_ref()?;
                    Some((Bytes(Zeroizing::new(key.secret().to_vec())), key.key_type()))
                });
                (mixdepth.0, keys.collect())
            })
            .collect(),
        dek: Bytes(Zeroizing::new(dek.to_vec())),
        legacy: content.legacy.clone(),
    };
    // Serialise twice: the first pass counts, so that the buffer of secrets is never reallocated.
    let mut length = Counter(0);
    let mut plain = ciborium::into_writer(&stored, &mut length)
        .map(|()| Zeroizing::new(Vec::with_capacity(length.0)))
        .map_err(|_| FileError::Damaged("content cannot be encoded"))?;
    ciborium::into_writer(&stored, &mut *plain)
        .map_err(|_| FileError::Damaged("content cannot be encoded"))?;

    let header = header(params, &random.salt);
    let tag = XChaCha20Poly1305::new((&*key).into())
        .encrypt_in_place_detached(XNonce::from_slice(&random.nonce), &header, &mut plain)
        .map_err(|_| FileError::Damaged("content is too large"))?;
    let mut file = header;
    file.extend_from_slice(&random.nonce);
    file.extend_from_slice(&plain);
    file.extend_from_slice(&tag);
    Ok((file, PasswordCheck::new(params, random.salt, key)))
}

/// Counts bytes.
struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Parts<'a> {
    params: KdfParams,
    salt: [u8; 16],
    header: &'a [u8],
    nonce: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

fn split(file: &[u8]) -> Result<Parts<'_>, FileError> {
    const CUT: FileError = FileError::Damaged("file is cut short");
    let (header, rest) = file.split_at_checked(HEADER_LEN).ok_or(CUT)?;
    let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(CUT)?;
    let cut = rest.len().checked_sub(TAG_LEN).ok_or(CUT)?;
    let (ciphertext, tag) = rest.split_at_checked(cut).ok_or(CUT)?;
    let &[_, _, _, _, _, _, _, _, kdf, m0, m1, m2, m3, t0, t1, t2, t3, lanes, ref salt @ ..] =
        header
    else {
        return Err(CUT);
    };
    if kdf != KDF_ARGON2ID {
        return Err(FileError::Damaged("unknown key derivation"));
    }
    let memory = u32::from_be_bytes([m0, m1, m2, m3]);
    let params = KdfParams::new(memory, u32::from_be_bytes([t0, t1, t2, t3]), lanes)?;
    let salt = salt.try_into().map_err(|_| CUT)?;
    Ok(Parts { params, salt, header, nonce, ciphertext, tag })
}

/// Decrypts a key file. Damage that the cipher detects cannot be told from a wrong password.
pub(crate) fn decode(file: &[u8], password: &[u8]) -> Result<Opened, FileError> {
    if !file.starts_with(MAGIC) {
        return Err(FileError::NotAWallet);
    }
    let parts = split(file)?;
    let key = parts.params.derive(password, &parts.salt)?;
    decrypt(&parts, key)
}

/// Decrypts a key file with the key that its password was made into once. A file whose password was changed since, or
/// that was replaced, has another key: [`FileError::WrongPassword`].
pub(crate) fn decode_with_key(file: &[u8], key: Zeroizing<[u8; 32]>) -> Result<Opened, FileError> {
    if !file.starts_with(MAGIC) {
        return Err(FileError::NotAWallet);
    }
    decrypt(&split(file)?, key)
}

fn decrypt(parts: &Parts<'_>, key: Zeroizing<[u8; 32]>) -> Result<Opened, FileError> {
    let mut plain = Zeroizing::new(parts.ciphertext.to_vec());
    XChaCha20Poly1305::new((&*key).into())
        .decrypt_in_place_detached(
            XNonce::from_slice(parts.nonce),
            parts.header,
            &mut plain,
            Tag::from_slice(parts.tag),
        )
        .map_err(|_| FileError::WrongPassword)?;
    let check = PasswordCheck::new(parts.params, parts.salt, key);
    let (content, dek) = parse(&plain)?;
    Ok(Opened { content, dek, check })
}

fn parse(plain: &[u8]) -> Result<(Content, Zeroizing<[u8; 32]>), FileError> {
    let stored: Stored = ciborium::de::from_reader_with_recursion_limit(plain, MAX_CBOR_DEPTH)
        .map_err(|_| FileError::Damaged("content cannot be decoded"))?;
    if stored.version != VERSION {
        return Err(FileError::UnsupportedVersion(stored.version));
    }
    let network =
        Network::from_name(&stored.network).ok_or(FileError::Damaged("unknown network"))?;
    let wallet_type = WalletType::from_id(stored.wallet_type)
        .ok_or_else(|| FileError::UnsupportedType(stored.wallet_type.to_string()))?;
    let mut imported = ImportedKeys::default();
    for (mixdepth, keys) in stored.imported {
        for key in keys {
            let key = key
                .map(|(secret, key_type)| {
                    let mut bytes: [u8; 32] = secret
                        .0
                        .as_slice()
                        .try_into()
                        .map_err(|_| FileError::Damaged("imported key"))?;
                    let key = ImportedKey::new(&bytes, key_type)
                        .map_err(|_| FileError::Damaged("imported key"));
                    bytes.zeroize();
                    key
                })
                .transpose()?;
            imported.push(Mixdepth(mixdepth), key);
        }
    }
    let mut dek = Zeroizing::new([0; 32]);
    if stored.dek.0.len() != dek.len() {
        return Err(FileError::Damaged("data key"));
    }
    dek.copy_from_slice(&stored.dek.0);
    let extension = stored
        .extension
        .map(|bytes| {
            let text =
                std::str::from_utf8(&bytes.0).map_err(|_| FileError::Damaged("extension"))?;
            Ok::<_, FileError>(Zeroizing::new(text.to_owned()))
        })
        .transpose()?;
    let content = Content {
        network: StoredNetwork::Exactly(network),
        wallet_type,
        entropy: stored.entropy.0,
        extension,
        created: stored.created,
        birth_height: stored.birth_height,
        max_mixdepth: stored.max_mixdepth,
        imported,
        legacy: stored.legacy,
    };
    Ok((content, dek))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWORD: &[u8] = "pässwörd ☃".as_bytes();

    fn content() -> Content {
        let mut imported = ImportedKeys::default();
        imported.push(Mixdepth(2), None);
        imported.push(Mixdepth(2), Some(ImportedKey::new(&[1; 32], 2).expect("valid key")));
        let mut legacy = LegacyFacts::default();
        legacy.next_unused.insert((0, 1), 7);
        legacy.frozen.insert(bdk_wallet::bitcoin::OutPoint::null(), true);
        legacy.labels.insert("bcrt1q".to_owned(), "日本".to_owned());
        legacy.bonds.insert(96);
        Content {
            network: StoredNetwork::Unknown,
            wallet_type: WalletType::FidelityBond,
            entropy: Zeroizing::new(vec![9; 16]),
            extension: Some(Zeroizing::new("é vs e\u{301}".to_owned())),
            created: 1_700_000_000,
            birth_height: Some(850_000),
            max_mixdepth: 4,
            imported,
            legacy: Some(legacy),
        }
    }

    fn encoded() -> Vec<u8> {
        let random = Randomness { salt: [3; 16], nonce: [4; 24] };
        let params = KdfParams::lightest();
        encode(&content(), Network::Regtest, &[5; 32], PASSWORD, params, &random)
            .expect("encodes")
            .0
    }

    #[test]
    fn round_trip_keeps_everything() {
        let file = encoded();
        let Opened { content: found, dek, check } = decode(&file, PASSWORD).expect("decodes");
        let expected = content();
        assert_eq!(found.network, StoredNetwork::Exactly(Network::Regtest));
        assert_eq!(found.wallet_type, expected.wallet_type);
        assert_eq!(found.entropy, expected.entropy);
        assert_eq!(found.extension, expected.extension);
        assert_eq!(found.created, expected.created);
        assert_eq!(found.birth_height, expected.birth_height);
        assert_eq!(found.max_mixdepth, expected.max_mixdepth);
        assert_eq!(found.legacy, expected.legacy);
        let keys = |content: &Content| {
            content
                .imported
                .iter()
                .map(|(m, keys)| {
                    let keys: Vec<_> = keys
                        .iter()
                        .map(|k| k.as_ref().map(|k| (*k.secret(), k.key_type())))
                        .collect();
                    (m, keys)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&found), keys(&expected));
        assert_eq!(*dek, [5; 32]);
        assert_eq!(check.verify(PASSWORD), Ok(true));
        assert_eq!(check.verify(b"other"), Ok(false));
    }

    #[test]
    fn wrong_password_damage_and_truncation_are_errors() {
        let file = encoded();
        assert_eq!(decode(&file, b"other").err(), Some(FileError::WrongPassword));
        // A byte of each part: parameters are clamped, the rest is authenticated.
        for position in [8, 9, 12, 13, 16, 17, 18, 33, 34, 57, 58, file.len() - 17, file.len() - 1]
        {
            let mut flipped = file.clone();
            flipped[position] ^= 0x40;
            assert!(decode(&flipped, PASSWORD).is_err(), "byte {position}");
        }
        for length in [8, 9, 33, 34, 57, 58, 73] {
            assert_eq!(
                decode(&file[..length], PASSWORD).err(),
                Some(FileError::Damaged("file is cut short"))
            );
        }
        assert_eq!(decode(&file[..file.len() - 1], PASSWORD).err(), Some(FileError::WrongPassword));
    }

    #[test]
    fn hostile_parameters_are_refused_before_any_work() {
        let mut file = encoded();
        file[9..13].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(decode(&file, PASSWORD).err(), Some(FileError::ExcessiveKdf));
        let mut file = encoded();
        file[13..17].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(decode(&file, PASSWORD).err(), Some(FileError::ExcessiveKdf));
    }

    proptest! {
        #[test]
        fn parsers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = split(&bytes);
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&bytes);
            let _ = split(&file);
        }
    }
}
