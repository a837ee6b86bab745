//! Wallet files of the reference, `JMENCWLT` and `JMWALLET` (`spec/wallet.md` 4.1 to 4.5, vector
//! `jmdat_files.json`).
//!
//! The container has no authentication: a wrong password shows as bad padding or as a missing inner
//! magic, and damage can only be seen in the structure. So whatever in the file depends on the keys
//! (the wallet id in coin paths, cached scripts) is compared with the keys that were derived.

use std::collections::{BTreeMap, BTreeSet};

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use argon2::Algorithm;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{OutPoint, Txid};
use joinery_proto::fidelity_bond::TimeNumber;
use tracing::warn;
use zeroize::Zeroizing;

use super::bencode::{self, BencodeError, Dict, Value};
use super::kdf::{self, Cost};
use super::{Content, FileError, LegacyFacts, MAX_INDEX, MAX_MIXDEPTH, StoredNetwork};
use crate::keys::{BOND_BRANCH, ImportedKey, ImportedKeys, MasterKey};
use crate::path::ScriptPlace;
use crate::types::{Branch, DEFAULT_MAX_MIXDEPTH, Keychain, Mixdepth, Network, WalletType};

/// First bytes of an encrypted file.
pub(crate) const MAGIC_ENCRYPTED: &[u8; 8] = b"JMENCWLT";
/// First bytes of a clear file and of the plaintext of an encrypted one.
pub(crate) const MAGIC_CLEAR: &[u8; 8] = b"JMWALLET";

/// The fixed cost of the reference: Argon2i, 1000 KiB, 500 passes, 4 lanes.
pub(super) const COST: Cost = Cost { memory_kib: 1000, time: 500, lanes: 4 };

impl From<BencodeError> for FileError {
    fn from(error: BencodeError) -> Self {
        Self::Damaged(match error {
            BencodeError::Cut => "bencode ends in the middle of a value",
            BencodeError::Trailing => "bytes after the end",
            _ => "not valid bencode",
        })
    }
}

/// Reads a file of either magic. A clear file ignores the password.
pub(crate) fn decode(file: &[u8], password: &[u8]) -> Result<Content, FileError> {
    if let Some(clear) = file.strip_prefix(MAGIC_CLEAR) {
        return parse(clear);
    }
    let container = container(file)?;
    let key = kdf::argon2(Algorithm::Argon2i, COST, password, container.salt)?;
    parse(decrypt(&container, &key)?.get(MAGIC_CLEAR.len()..).unwrap_or_default())
}

struct Container<'a> {
    data: &'a [u8],
    iv: &'a [u8; 16],
    salt: &'a [u8; 16],
}

fn container(file: &[u8]) -> Result<Container<'_>, FileError> {
    const SHAPE: FileError = FileError::Damaged("encryption container");
    let body = file.strip_prefix(MAGIC_ENCRYPTED).ok_or(FileError::NotAWallet)?;
    let value = bencode::parse(body)?;
    let dict = value.dict().ok_or(SHAPE)?;
    let data = dict.get(b"data".as_slice()).and_then(Value::bytes).ok_or(SHAPE)?;
    let enc = dict.get(b"enc".as_slice()).and_then(Value::dict).ok_or(SHAPE)?;
    let field = |name: &[u8]| -> Result<&[u8; 16], FileError> {
        enc.get(name).and_then(Value::bytes).and_then(|b| b.try_into().ok()).ok_or(SHAPE)
    };
    if data.is_empty() || data.len() % 16 != 0 {
        return Err(FileError::Damaged("length of the encrypted data"));
    }
    Ok(Container { data, iv: field(b"iv")?, salt: field(b"salt")? })
}

/// Returns the plaintext with its magic.
fn decrypt(container: &Container<'_>, key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mut plain = Zeroizing::new(container.data.to_vec());
    let length = cbc::Decryptor::<aes::Aes256>::new(key.into(), container.iv.into())
        .decrypt_padded_mut::<Pkcs7>(&mut plain)
        .map_err(|_| FileError::WrongPassword)?
        .len();
    plain.truncate(length);
    if plain.starts_with(MAGIC_CLEAR) { Ok(plain) } else { Err(FileError::WrongPassword) }
}

/// Reads the bencoded wallet data and checks it against the keys that it leads to.
fn parse(data: &[u8]) -> Result<Content, FileError> {
    let value = bencode::parse(data)?;
    let dict = value.dict().ok_or(FileError::Damaged("wallet data"))?;
    let get = |name: &str| dict.get(name.as_bytes());

    for key in dict.keys() {
        let known = [
            "network",
            "created",
            "wallet_type",
            "entropy",
            "seed_extension",
            "index_cache",
            "utxo",
            "meta",
            "addr_labels",
            "imported_keys",
            "cache",
            "burner-out",
        ];
        if !known.iter().any(|name| name.as_bytes() == *key) {
            let name = String::from_utf8_lossy(key.get(..key.len().min(64)).unwrap_or_default());
            warn!(key = %name.escape_debug(), "wallet file has an unknown part, which is not taken over");
        }
    }
    if get("burner-out").and_then(Value::dict).is_some_and(|burns| !burns.is_empty()) {
        warn!("wallet file lists burnt coins, which are not taken over");
    }

    let network = match get("network").and_then(Value::text) {
        Some("mainnet") => StoredNetwork::Exactly(Network::Mainnet),
        Some("testnet") => StoredNetwork::AnyTest,
        Some("signet") => StoredNetwork::Exactly(Network::Signet),
        _ => return Err(FileError::Damaged("network")),
    };
    let wallet_type = wallet_type(get("wallet_type"))?;
    let entropy = get("entropy").and_then(Value::bytes).ok_or(FileError::Damaged("entropy"))?;
    if !matches!(entropy.len(), 16 | 20 | 24 | 28 | 32) {
        return Err(FileError::Damaged("length of the entropy"));
    }
    let extension = match get("seed_extension") {
        None => None,
        Some(value) => {
            let text = value.text().ok_or(FileError::Damaged("extension"))?;
            (!text.is_empty()).then(|| Zeroizing::new(text.to_owned()))
        }
    };

    let (next_unused, highest) = indexes(get("index_cache"))?;
    let mut legacy = LegacyFacts { next_unused, ..LegacyFacts::default() };
    let frozen = frozen(get("meta"))?;
    legacy.frozen = frozen;
    legacy.labels = labels(get("addr_labels"))?;
    let coins = coin_paths(get("utxo"))?;
    for coin in &coins {
        match coin {
            CoinPath::Ranged { mixdepth, branch, index } => {
                let next = legacy.next_unused.entry((*mixdepth, *branch)).or_default();
                *next = (*next).max(index + 1);
            }
            CoinPath::Bond(month) => {
                legacy.bonds.insert(month.number());
            }
        }
    }
    let highest = legacy.next_unused.keys().map(|(mixdepth, _)| *mixdepth).fold(highest, u8::max);

    let content = Content {
        network,
        wallet_type,
        entropy: Zeroizing::new(entropy.to_vec()),
        extension,
        created: get("created").and_then(Value::text).and_then(unix_time).unwrap_or_default(),
        birth_height: None,
        max_mixdepth: highest.max(DEFAULT_MAX_MIXDEPTH),
        imported: imported(get("imported_keys"))?,
        legacy: Some(legacy),
    };
    check_keys(&content, dict)?;
    Ok(content)
}

fn wallet_type(value: Option<&Value<'_>>) -> Result<WalletType, FileError> {
    let id = value.and_then(Value::integer).ok_or(FileError::Damaged("wallet type"))?;
    u8::try_from(id).ok().and_then(WalletType::from_id).ok_or_else(|| {
        FileError::UnsupportedType(match id {
            0 => "0 (legacy addresses without segwit)".to_owned(),
            6 => "6 (watch-only fidelity bonds)".to_owned(),
            other => other.to_string(),
        })
    })
}

/// A number written as a dictionary key.
fn ascii<N: std::str::FromStr>(key: &[u8]) -> Option<N> {
    let text = std::str::from_utf8(key).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn mixdepth(key: &[u8], part: &'static str) -> Result<u8, FileError> {
    ascii(key).filter(|number| *number <= MAX_MIXDEPTH).ok_or(FileError::Damaged(part))
}

fn dict_or_empty<'a, 'b>(
    value: Option<&'b Value<'a>>,
    part: &'static str,
) -> Result<impl Iterator<Item = (&'b &'a [u8], &'b Value<'a>)>, FileError> {
    let dict = match value {
        None => None,
        Some(value) => Some(value.dict().ok_or(FileError::Damaged(part))?),
    };
    Ok(dict.into_iter().flatten())
}

/// Next index per branch, and the highest mixdepth of the file.
#[expect(clippy::type_complexity, reason = "the map type is that of LegacyFacts::next_unused")]
fn indexes(value: Option<&Value<'_>>) -> Result<(BTreeMap<(u8, u8), u32>, u8), FileError> {
    const PART: &str = "index cache";
    let mut next = BTreeMap::new();
    let mut highest = 0;
    for (key, branches) in dict_or_empty(value, PART)? {
        let mixdepth = mixdepth(key, PART)?;
        highest = highest.max(mixdepth);
        for (branch, index) in dict_or_empty(Some(branches), PART)? {
            let branch: u8 = ascii(branch).ok_or(FileError::Damaged(PART))?;
            let index = index
                .integer()
                .and_then(|index| u32::try_from(index).ok())
                .filter(|index| *index <= MAX_INDEX)
                .ok_or(FileError::Damaged(PART))?;
            // Branches 2 (bonds) and 3 (burns) have no meaningful counter.
            if branch < 2 {
                next.insert((mixdepth, branch), index);
            }
        }
    }
    Ok((next, highest))
}

/// Key of a coin: txid as displayed, 32 bytes, then the output index in decimal.
fn outpoint(key: &[u8]) -> Option<OutPoint> {
    let (txid, vout) = key.split_at_checked(32)?;
    let mut txid: [u8; 32] = txid.try_into().ok()?;
    txid.reverse();
    Some(OutPoint::new(Txid::from_byte_array(txid), ascii(vout)?))
}

fn frozen(value: Option<&Value<'_>>) -> Result<BTreeMap<OutPoint, bool>, FileError> {
    const PART: FileError = FileError::Damaged("coin metadata");
    let mut frozen = BTreeMap::new();
    for (key, meta) in dict_or_empty(value, "coin metadata")? {
        let outpoint = outpoint(key).ok_or(PART)?;
        let meta = meta.dict().ok_or(PART)?;
        if let Some(disabled) = meta.get(b"disabled".as_slice()) {
            frozen.insert(outpoint, disabled.integer().ok_or(PART)? != 0);
        }
    }
    Ok(frozen)
}

fn labels(value: Option<&Value<'_>>) -> Result<BTreeMap<String, String>, FileError> {
    const PART: FileError = FileError::Damaged("address labels");
    dict_or_empty(value, "address labels")?
        .map(|(address, label)| {
            let address = std::str::from_utf8(address).map_err(|_| PART)?;
            Ok((address.to_owned(), label.text().ok_or(PART)?.to_owned()))
        })
        .collect()
}

fn imported(value: Option<&Value<'_>>) -> Result<ImportedKeys, FileError> {
    const PART: FileError = FileError::Damaged("imported keys");
    let mut imported = ImportedKeys::default();
    for (key, list) in dict_or_empty(value, "imported keys")? {
        let mixdepth = Mixdepth(mixdepth(key, "imported keys")?);
        for entry in list.list().ok_or(PART)? {
            let [secret, key_type] = entry.list().ok_or(PART)? else {
                return Err(PART);
            };
            let secret = secret.bytes().ok_or(PART)?;
            if secret.is_empty() {
                imported.push(mixdepth, None);
                continue;
            }
            let secret: &[u8; 32] = match secret {
                [secret @ .., 1] => secret.try_into().map_err(|_| PART)?,
                _ => return Err(PART),
            };
            let key_type = key_type.integer().and_then(|id| u8::try_from(id).ok()).ok_or(PART)?;
            if !matches!(key_type, 1 | 2) {
                warn!(key_type, "imported key of a type that cannot be spent here is kept unused");
            }
            imported.push(mixdepth, Some(ImportedKey::new(secret, key_type).map_err(|_| PART)?));
        }
    }
    Ok(imported)
}

enum CoinPath {
    Ranged { mixdepth: u8, branch: u8, index: u32 },
    Bond(TimeNumber),
}

/// The paths of the listed coins. The coins themselves are read again from the server.
fn coin_paths(value: Option<&Value<'_>>) -> Result<Vec<CoinPath>, FileError> {
    const PART: FileError = FileError::Damaged("coins");
    let mut paths = Vec::new();
    for (_, coins) in dict_or_empty(value, "coins")? {
        for (key, coin) in dict_or_empty(Some(coins), "coins")? {
            outpoint(key).ok_or(PART)?;
            let path = coin.list().and_then(<[_]>::first).and_then(Value::list).ok_or(PART)?;
            let levels: Vec<_> = path.iter().skip(1).map(Value::integer).collect();
            let unhardened = |level: i64| u8::try_from(level ^ (1 << 31)).ok();
            match *levels.as_slice() {
                [Some(_), Some(_), Some(mixdepth), Some(branch @ (0 | 1)), Some(index)] => {
                    let mixdepth =
                        unhardened(mixdepth).filter(|m| *m <= MAX_MIXDEPTH).ok_or(PART)?;
                    let branch = u8::from(branch == 1);
                    let index = u32::try_from(index).ok().filter(|i| *i < MAX_INDEX).ok_or(PART)?;
                    paths.push(CoinPath::Ranged { mixdepth, branch, index });
                }
                [Some(_), Some(_), Some(_), Some(branch), Some(number), Some(_)]
                    if branch == i64::from(BOND_BRANCH) =>
                {
                    let number = u16::try_from(number).map_err(|_| PART)?;
                    paths.push(CoinPath::Bond(TimeNumber::new(number).map_err(|_| PART)?));
                }
                // Imported keys and anything else: found again through the keys themselves.
                _ => {}
            }
        }
    }
    Ok(paths)
}

/// Compares what the file says about its keys with the keys that its entropy leads to.
fn check_keys(content: &Content, dict: &Dict<'_>) -> Result<(), FileError> {
    const MISMATCH: FileError = FileError::Damaged("its keys do not belong to its seed");
    let network = match content.network {
        StoredNetwork::Exactly(network) => network,
        StoredNetwork::AnyTest | StoredNetwork::Unknown => Network::Testnet,
    };
    let keys = MasterKey::from_entropy(
        &content.entropy,
        content.extension.as_ref().map(|text| text.as_str()),
        content.wallet_type,
        network,
        ImportedKeys::default(),
    )
    .map_err(|_| FileError::Damaged("entropy"))?;
    let id = keys.reference_wallet_id();

    let ids_of_coins: BTreeSet<&[u8]> = dict_or_empty(dict.get(b"utxo".as_slice()), "coins")?
        .filter_map(|(_, coins)| coins.dict())
        .flat_map(BTreeMap::values)
        .filter_map(|coin| coin.list()?.first()?.list()?.first()?.bytes())
        .filter(|id| *id != b"imported")
        .collect();
    if ids_of_coins.iter().any(|found| *found != id) {
        return Err(MISMATCH);
    }

    let mut level = dict.get(b"cache".as_slice()).and_then(Value::dict);
    let path = [
        id.to_vec(),
        format!("{}'", keys.wallet_type().purpose()).into_bytes(),
        format!("{}'", network.coin_type()).into_bytes(),
        b"0'".to_vec(),
        b"0".to_vec(),
        b"0".to_vec(),
    ];
    for step in &path {
        level = level.and_then(|dict| dict.get(step.as_slice())).and_then(Value::dict);
    }
    if let Some(cached) = level.and_then(|entry| entry.get(b"S".as_slice())).and_then(Value::bytes)
    {
        let keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };
        let script = keys
            .script_pubkey(&ScriptPlace::Ranged { keychain, index: 0 })
            .map_err(|_| MISMATCH)?;
        if script.as_bytes() != cached {
            return Err(MISMATCH);
        }
    }
    Ok(())
}

/// `YYYY/MM/DD HH:MM:SS` as seconds since epoch. The file has local time of an unknown zone.
fn unix_time(text: &str) -> Option<u64> {
    let format = time::macros::format_description!("[year]/[month]/[day] [hour]:[minute]:[second]");
    let time = time::PrimitiveDateTime::parse(text, format).ok()?;
    u64::try_from(time.assume_utc().unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::mnemonic::phrase_of_entropy;
    use secrecy::ExposeSecret;

    fn samples() -> Vec<Json> {
        let text = include_str!("../../tests/vectors/jmdat_files.json");
        let file: Json = serde_json::from_str(text).expect("JSON");
        file["files"].as_array().expect("list").clone()
    }

    fn bytes(sample: &Json) -> Vec<u8> {
        let text = sample["base64"].as_str().expect("text");
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    }

    fn plain(sample: &Json) -> Vec<u8> {
        hex::decode(sample["plaintext_bencode_hex"].as_str().expect("text")).expect("hex")
    }

    #[test]
    fn every_sample_opens_with_its_password() {
        let samples = samples();
        assert_eq!(samples.len(), 4);
        for sample in &samples {
            let name = sample["file"].as_str().expect("text");
            let expected = &sample["expected"];
            let file = bytes(sample);
            if let Some(key) = sample["derived_key"].as_str() {
                let container = container(&file).expect("container");
                let password = sample["password"].as_str().expect("text").as_bytes();
                let derived = kdf::argon2(Algorithm::Argon2i, COST, password, container.salt);
                let derived = derived.expect("bounded");
                assert_eq!(hex::encode(*derived), key, "{name}");
                let found = decrypt(&container, &derived).expect("right key");
                assert_eq!(found[8..], plain(sample), "{name}");
            }
            let password = sample["password"].as_str().unwrap_or("anything");
            let content = decode(&file, password.as_bytes()).expect("sample opens");
            assert_eq!(Some(u64::from(content.wallet_type.id())), expected["wallet_type"].as_u64());
            assert_eq!(Some(content.wallet_type.api_name()), expected["wallettype_api"].as_str());
            assert_eq!(Some(content.network.name()), expected["network"].as_str());
            let phrase = phrase_of_entropy(&content.entropy).expect("entropy");
            assert_eq!(Some(phrase.expose_secret()), expected["mnemonic"].as_str());
            assert_eq!(
                content.extension.as_ref().map(|text| text.as_str()),
                expected["extension"].as_str()
            );
            assert_eq!(content.max_mixdepth, 4);
            assert!(content.created > 1_700_000_000, "{name}: {}", content.created);
        }
    }

    fn decoded(name: &str) -> (Content, Json) {
        let samples = samples();
        let sample = samples.iter().find(|sample| sample["file"] == name).expect("sample");
        (parse(&plain(sample)).expect("valid"), sample["expected"].clone())
    }

    #[test]
    fn the_used_wallet_gives_indexes_freezes_labels_and_imported_keys() {
        let (content, expected) = decoded("sample_sw_regtest_used.jmdat");
        let legacy = content.legacy.as_ref().expect("legacy facts");
        let next: BTreeMap<String, u32> = legacy
            .next_unused
            .iter()
            .filter(|(_, next)| **next > 0)
            .map(|((mixdepth, branch), next)| (format!("{mixdepth}/{branch}"), *next))
            .collect();
        assert_eq!(serde_json::to_value(next).expect("JSON"), expected["next_index"]);
        let frozen: Vec<String> =
            legacy.frozen.iter().filter(|(_, f)| **f).map(|(o, _)| o.to_string()).collect();
        assert_eq!(serde_json::to_value(frozen).expect("JSON"), expected["frozen"]);
        assert_eq!(legacy.frozen.len(), 2, "an explicit decision not to freeze is kept too");
        assert_eq!(serde_json::to_value(&legacy.labels).expect("JSON"), expected["labels"]);

        let keys = MasterKey::from_entropy(
            &content.entropy,
            content.extension.as_ref().map(|text| text.as_str()),
            content.wallet_type,
            Network::Regtest,
            content.imported,
        )
        .expect("valid entropy");
        for (path, address) in expected["addresses"].as_object().expect("object") {
            let numbers: Vec<u32> = path.split('/').map(|n| n.parse().expect("number")).collect();
            let branch = if numbers[1] == 0 { Branch::External } else { Branch::Internal };
            let mixdepth = Mixdepth(u8::try_from(numbers[0]).expect("small"));
            let keychain = Keychain { mixdepth, branch };
            let place = ScriptPlace::Ranged { keychain, index: numbers[2] };
            let found = keys.address(&place).expect("place").to_string();
            assert_eq!(Some(found.as_str()), address.as_str());
        }
        let places: Vec<_> = keys.imported().places().collect();
        let place = ScriptPlace::Imported { mixdepth: Mixdepth(2), index: 0 };
        assert_eq!(places, [place]);
        let imported = &expected["imported"][0];
        assert_eq!(
            Some(keys.address(&place).expect("place").to_string().as_str()),
            imported["address"].as_str()
        );
        let signer = keys.signer(&place).expect("place");
        let wif = bdk_wallet::bitcoin::PrivateKey::new(
            *signer.secret_key(),
            bdk_wallet::bitcoin::Network::Regtest,
        );
        assert_eq!(Some(wif.to_wif().as_str()), imported["wif"].as_str());
    }

    #[test]
    fn the_bond_wallet_gives_its_bonds() {
        let (content, expected) = decoded("sample_sw_fb_signet_full.jmdat");
        let legacy = content.legacy.as_ref().expect("legacy facts");
        assert_eq!(legacy.bonds, BTreeSet::from([0, 96]));
        let outpoint: OutPoint =
            expected["bond"]["outpoint"].as_str().expect("text").parse().expect("outpoint");
        assert_eq!(legacy.frozen.get(&outpoint), Some(&true));
        let keys = MasterKey::from_entropy(
            &content.entropy,
            None,
            content.wallet_type,
            Network::Signet,
            content.imported,
        )
        .expect("valid entropy");
        let place = ScriptPlace::Bond { timenumber: 96 };
        assert_eq!(Some(place.display(84, 1).as_str()), expected["bond"]["path"].as_str());
        let address = keys.address(&place).expect("bond").to_string();
        assert_eq!(Some(address.as_str()), expected["bond"]["address"].as_str());
    }

    #[test]
    fn wrong_password_and_truncation_are_told_apart() {
        let samples = samples();
        let file = bytes(&samples[0]);
        assert_eq!(decode(&file, b"wrong").err(), Some(FileError::WrongPassword));
        for length in [8, 9, 20, 100, file.len() - 1] {
            let error = decode(&file[..length], b"wrong").err();
            assert!(matches!(error, Some(FileError::Damaged(_))), "{length}: {error:?}");
        }
        assert_eq!(decode(&file[..7], b"").err(), Some(FileError::NotAWallet));
        let longer = [file.as_slice(), b"x"].concat();
        assert_eq!(decode(&longer, b"").err(), Some(FileError::Damaged("bytes after the end")));
    }

    #[test]
    fn a_flipped_byte_never_panics_and_never_changes_the_seed_unseen() {
        for sample in &samples() {
            let Some(key) = sample["derived_key"].as_str() else { continue };
            let key: [u8; 32] = hex::decode(key).expect("hex").try_into().expect("32 bytes");
            let file = bytes(sample);
            let good = plain(sample);
            let seed = parse(&good).expect("valid").entropy;
            for position in 0..file.len() {
                let mut flipped = file.clone();
                flipped[position] ^= 1;
                let Ok(container) = container(&flipped) else { continue };
                let Ok(plain) = decrypt(&container, &key) else { continue };
                let Ok(content) = parse(&plain[8..]) else { continue };
                // The container has no authentication. What goes unseen must be without consequence
                // for the keys wherever the file lists a coin or a cached key.
                if !good.windows(10).any(|part| part == b"4:utxod1:0") {
                    continue;
                }
                assert_eq!(content.entropy, seed, "byte {position} of {}", sample["file"]);
            }
        }
    }

    #[test]
    fn unsupported_types_are_named() {
        let samples = samples();
        let text = String::from_utf8_lossy(&plain(&samples[0])).into_owned();
        for (id, name) in [(0, "0 (legacy"), (6, "6 (watch-only"), (3, "3"), (-1, "-1")] {
            let other = text.replace("11:wallet_typei5e", &format!("11:wallet_typei{id}e"));
            let error = parse(other.as_bytes()).err();
            assert!(
                matches!(&error, Some(FileError::UnsupportedType(text)) if text.starts_with(name)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn absurd_indexes_and_mixdepths_are_damage() {
        let (mut dict, owned) = (String::new(), samples());
        dict.push_str(&String::from_utf8_lossy(&plain(&owned[2])));
        assert!(dict.contains("1:0i1e"), "sample has an index");
        for bad in ["1:0i-1e", "1:0i1000001e", "1:0i4294967296e", "1:04:text", "1:xi1e"] {
            let other = dict.replacen("1:0i1e", bad, 1);
            assert_eq!(
                parse(other.as_bytes()).err(),
                Some(FileError::Damaged("index cache")),
                "{bad}"
            );
        }
        let other = dict.replacen("index_cached1:0", "index_cached3:100", 1);
        assert_eq!(parse(other.as_bytes()).err(), Some(FileError::Damaged("index cache")));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut file = MAGIC_ENCRYPTED.to_vec();
            file.extend_from_slice(&bytes);
            let _ = container(&file);
        }

        #[test]
        fn never_panics_on_mutated_samples(
            which in 0..4_usize, position in any::<prop::sample::Index>(), byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut data = plain(&samples()[which]);
            let position = position.index(data.len());
            data[position] = byte;
            let _ = parse(&data);
            let _ = parse(&data[..cut.index(data.len())]);
        }
    }
}
