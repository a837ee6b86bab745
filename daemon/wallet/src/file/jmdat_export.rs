//! Writing a wallet file of the reference, `JMENCWLT` (`spec/wallet.md` 4.1 to 4.3 and 13.3).
//!
//! The reference reads the whole state of a wallet from this one file, so everything it has a place for
//! is written: also the coins, although both programs read them again from the chain.

use std::collections::BTreeMap;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockEncryptMut, KeyIvInit};
use argon2::Algorithm;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{Amount, OutPoint};
use joinery_proto::fidelity_bond::locktime_of_month;
use zeroize::Zeroizing;

use super::bencode::Node;
use super::jmdat::{COST, MAGIC_CLEAR, MAGIC_ENCRYPTED};
use super::{FileError, kdf};
use crate::keys::{BOND_BRANCH, MasterKey};
use crate::path::ScriptPlace;
use crate::types::Network;

/// What the reference stores as the height of a coin in the mempool.
const UNCONFIRMED: i64 = 100_000_000;

/// A coin as the file lists it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedCoin {
    pub(crate) outpoint: OutPoint,
    pub(crate) value: Amount,
    pub(crate) place: ScriptPlace,
    pub(crate) height: Option<u32>,
}

/// Everything that is written.
pub(crate) struct Export<'a> {
    /// Keys, with network and wallet type.
    pub(crate) keys: &'a MasterKey,
    /// BIP39 entropy, 16 to 32 bytes.
    pub(crate) entropy: &'a [u8],
    pub(crate) extension: Option<&'a str>,
    /// Seconds since epoch.
    pub(crate) created: u64,
    pub(crate) max_mixdepth: u8,
    /// Next index to hand out by (mixdepth, branch 0 or 1).
    pub(crate) next_unused: BTreeMap<(u8, u8), u32>,
    /// Freeze flags by coin, also of spent ones.
    pub(crate) frozen: BTreeMap<OutPoint, bool>,
    /// Labels by address text.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) coins: Vec<ListedCoin>,
}

/// Random bytes of a file; passed in so that this module is a function of its inputs.
pub(crate) struct Randomness {
    pub(crate) salt: [u8; 16],
    pub(crate) iv: [u8; 16],
}

/// Encrypts a file. One key derivation, half a second on a desktop.
pub(crate) fn encode(
    export: &Export<'_>,
    password: &[u8],
    random: &Randomness,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let key = kdf::argon2(Algorithm::Argon2i, COST, password, &random.salt)?;
    let mut plain = Zeroizing::new(MAGIC_CLEAR.to_vec());
    wallet_data(export)?.encode(&mut plain);
    let data = cbc::Encryptor::<aes::Aes256>::new((&*key).into(), (&random.iv).into())
        .encrypt_padded_vec_mut::<Pkcs7>(&plain);
    let container = Node::dict([
        ("data", Node::bytes(&data)),
        ("enc", Node::dict([("iv", Node::bytes(&random.iv)), ("salt", Node::bytes(&random.salt))])),
    ]);
    let mut file = Zeroizing::new(MAGIC_ENCRYPTED.to_vec());
    container.encode(&mut file);
    Ok(file)
}

fn wallet_data(export: &Export<'_>) -> Result<Node, FileError> {
    let network: &[u8] = match export.keys.network() {
        Network::Mainnet => b"mainnet",
        Network::Signet => b"signet",
        // The reference tells its other test networks apart by its configuration.
        Network::Testnet | Network::Testnet4 | Network::Regtest => b"testnet",
    };
    let mut data = vec![
        ("addr_labels", labels(&export.labels)),
        ("created", Node::bytes(time_text(export.created).as_bytes())),
        ("entropy", Node::bytes(export.entropy)),
        ("imported_keys", imported(export.keys)),
        ("index_cache", indexes(export)),
        ("meta", frozen(&export.frozen)),
        ("network", Node::bytes(network)),
        ("utxo", coins(export)?),
        ("wallet_type", Node::Integer(export.keys.wallet_type().id().into())),
    ];
    if let Some(extension) = export.extension {
        data.push(("seed_extension", Node::bytes(extension.as_bytes())));
    }
    Ok(Node::dict(data))
}

/// A number as a dictionary key.
fn ascii(number: u8) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn labels(labels: &BTreeMap<String, String>) -> Node {
    Node::dict(
        labels.iter().map(|(address, label)| (address.as_str(), Node::bytes(label.as_bytes()))),
    )
}

fn imported(keys: &MasterKey) -> Node {
    Node::dict(keys.imported().iter().map(|(mixdepth, keys)| {
        let keys = keys.iter().map(|key| {
            // Positions are part of the path, so removed keys leave their gap.
            let (secret, key_type) = match key {
                Some(key) => {
                    let mut secret = Zeroizing::new(Vec::with_capacity(33));
                    secret.extend_from_slice(key.secret());
                    secret.push(1);
                    (secret, key.key_type().into())
                }
                None => (Zeroizing::default(), -1),
            };
            Node::List(vec![Node::Bytes(secret), Node::Integer(key_type)])
        });
        (ascii(mixdepth.0), Node::List(keys.collect()))
    }))
}

fn indexes(export: &Export<'_>) -> Node {
    let next = |mixdepth, branch| {
        let next = export.next_unused.get(&(mixdepth, branch)).copied().unwrap_or(0);
        (ascii(branch), Node::Integer(next.into()))
    };
    Node::dict(
        (0..=export.max_mixdepth)
            .map(|mixdepth| (ascii(mixdepth), Node::dict([next(mixdepth, 0), next(mixdepth, 1)]))),
    )
}

/// Key of a coin: txid as displayed, 32 bytes, then the output index in decimal.
fn coin_key(outpoint: &OutPoint) -> Vec<u8> {
    let mut key = outpoint.txid.to_byte_array().to_vec();
    key.reverse();
    key.extend_from_slice(outpoint.vout.to_string().as_bytes());
    key
}

fn frozen(frozen: &BTreeMap<OutPoint, bool>) -> Node {
    Node::dict(frozen.iter().map(|(outpoint, frozen)| {
        let flag = Node::dict([("disabled", Node::Integer((*frozen).into()))]);
        (coin_key(outpoint), flag)
    }))
}

fn coins(export: &Export<'_>) -> Result<Node, FileError> {
    let id = export.keys.reference_wallet_id();
    let mut by_mixdepth: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Node>> = BTreeMap::new();
    for coin in &export.coins {
        let value = i64::try_from(coin.value.to_sat())
            .map_err(|_| FileError::Damaged("value of a coin"))?;
        let height = coin.height.map_or(UNCONFIRMED, i64::from);
        let entry = Node::List(vec![
            Node::List(path(export.keys, id, &coin.place)),
            Node::Integer(value),
            Node::Integer(height),
        ]);
        let mixdepth = ascii(coin.place.mixdepth().0);
        by_mixdepth.entry(mixdepth).or_default().insert(coin_key(&coin.outpoint), entry);
    }
    Ok(Node::dict(by_mixdepth.into_iter().map(|(mixdepth, coins)| (mixdepth, Node::Dict(coins)))))
}

/// The reference's form of a path: the wallet id, then the levels, hardened ones with their top bit set;
/// bonds end with timenumber and lock time, imported keys have a word in place of the id.
fn path(keys: &MasterKey, id: [u8; 3], place: &ScriptPlace) -> Vec<Node> {
    let hardened = |level: u32| Node::Integer(i64::from(level) | (1 << 31));
    let account = |mixdepth: u8| {
        vec![
            Node::bytes(&id),
            hardened(keys.wallet_type().purpose()),
            hardened(keys.network().coin_type()),
            hardened(mixdepth.into()),
        ]
    };
    match *place {
        ScriptPlace::Ranged { keychain, index } => {
            let mut path = account(keychain.mixdepth.0);
            path.push(Node::Integer(keychain.branch.number().into()));
            path.push(Node::Integer(index.into()));
            path
        }
        ScriptPlace::Bond { timenumber } => {
            // 2099 is the last year; far below the limit.
            let locktime = i64::try_from(locktime_of_month(timenumber)).unwrap_or(i64::MAX);
            let mut path = account(0);
            path.push(Node::Integer(BOND_BRANCH.into()));
            path.push(Node::Integer(timenumber.into()));
            path.push(Node::Integer(locktime));
            path
        }
        ScriptPlace::Imported { mixdepth, index } => vec![
            Node::bytes(b"imported"),
            Node::Integer(mixdepth.0.into()),
            Node::Integer(index.into()),
        ],
    }
}

/// `YYYY/MM/DD HH:MM:SS`. The reference writes local time and never reads it; UTC is as good.
fn time_text(seconds: u64) -> String {
    let format = time::macros::format_description!("[year]/[month]/[day] [hour]:[minute]:[second]");
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "1970/01/01 00:00:00".to_owned())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::super::jmdat;
    use super::*;
    use crate::keys::{ImportedKey, ImportedKeys};
    use crate::types::{Branch, Keychain, Mixdepth, WalletType};

    const RANDOM: Randomness = Randomness { salt: [7; 16], iv: [8; 16] };

    #[test]
    fn what_is_written_is_what_is_read() {
        let outpoint =
            |n: u8, vout| OutPoint::from_str(&format!("{}:{vout}", hex::encode([n; 32])));
        let mut given = ImportedKeys::default();
        given.push(Mixdepth(2), None);
        given.push(Mixdepth(2), Some(ImportedKey::new(&[9; 32], 2).expect("valid")));
        for network in [Network::Mainnet, Network::Signet, Network::Testnet4, Network::Regtest] {
            let kind = WalletType::FidelityBond;
            let keys = MasterKey::from_entropy(&[3; 32], Some(" é "), kind, network, given.clone())
                .expect("valid");
            let keychain = Keychain { mixdepth: Mixdepth(6), branch: Branch::Internal };
            let places = [
                ScriptPlace::Ranged { keychain, index: 11 },
                ScriptPlace::Bond { timenumber: 959 },
                ScriptPlace::Imported { mixdepth: Mixdepth(2), index: 1 },
            ];
            let coins = places.iter().zip(1..).map(|(place, n)| ListedCoin {
                outpoint: outpoint(n, 10).expect("valid"),
                value: Amount::from_sat(2_100_000_000_000_000),
                place: *place,
                height: (n > 1).then_some(850_000),
            });
            let export = Export {
                keys: &keys,
                entropy: &[3; 32],
                extension: Some(" é "),
                created: 1_700_000_001,
                max_mixdepth: 6,
                next_unused: BTreeMap::from([((0, 0), 5), ((6, 1), 12), ((3, 1), 700)]),
                frozen: BTreeMap::from([
                    (outpoint(1, 10).expect("valid"), true),
                    (outpoint(200, 0).expect("valid"), false),
                ]),
                labels: BTreeMap::from([("bc1qsomething".to_owned(), "日本".to_owned())]),
                coins: coins.collect(),
            };
            let file = encode(&export, "pässword ☃".as_bytes(), &RANDOM).expect("encodes");
            assert!(matches!(jmdat::decode(&file, b"other"), Err(FileError::WrongPassword)));
            let found = jmdat::decode(&file, "pässword ☃".as_bytes()).expect("opens again");
            assert!(found.network.allows(network), "{network}");
            assert_eq!(found.network.allows(Network::Mainnet), network == Network::Mainnet);
            assert_eq!(found.wallet_type, kind);
            assert_eq!(found.entropy.as_slice(), [3; 32]);
            assert_eq!(found.extension.as_ref().map(|text| text.as_str()), Some(" é "));
            assert_eq!(found.created, 1_700_000_001);
            assert_eq!(found.max_mixdepth, 6);
            let legacy = found.legacy.expect("facts");
            assert_eq!(legacy.frozen, export.frozen);
            assert_eq!(legacy.labels, export.labels);
            assert_eq!(legacy.bonds.iter().copied().collect::<Vec<_>>(), [959]);
            for mixdepth in 0..=6 {
                for branch in [0, 1] {
                    let next = export.next_unused.get(&(mixdepth, branch)).copied();
                    let read = legacy.next_unused.get(&(mixdepth, branch)).copied();
                    assert_eq!(read, Some(next.unwrap_or(0)), "{mixdepth}/{branch}");
                }
            }
            let secrets: Vec<_> = found
                .imported
                .iter()
                .flat_map(|(m, keys)| keys.iter().map(move |key| (m, key)))
                .map(|(m, key)| (m.0, key.as_ref().map(|key| (*key.secret(), key.key_type()))))
                .collect();
            assert_eq!(secrets, [(2, None), (2, Some(([9; 32], 2)))]);
        }
    }

    #[test]
    fn the_full_sample_of_the_reference_is_reproduced_to_the_byte() {
        let samples: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/jmdat_files.json"))
                .expect("JSON");
        let samples = samples["files"].as_array().expect("list");
        let sample = samples
            .iter()
            .find(|sample| sample["file"] == "sample_sw_fb_signet_full.jmdat")
            .expect("sample");
        let hex = sample["plaintext_bencode_hex"].as_str().expect("text");
        let plain = hex::decode(hex).expect("hex");
        let whole = [MAGIC_CLEAR.as_slice(), &plain].concat();
        let content = jmdat::decode(&whole, b"").expect("valid");
        let legacy = content.legacy.as_ref().expect("facts");
        let keys = MasterKey::from_entropy(
            &content.entropy,
            None,
            content.wallet_type,
            Network::Signet,
            content.imported.clone(),
        )
        .expect("valid");
        let coin = |outpoint: String, timenumber, value, height| ListedCoin {
            outpoint: OutPoint::from_str(&outpoint).expect("valid"),
            value: Amount::from_sat(value),
            place: ScriptPlace::Bond { timenumber },
            height: Some(height),
        };
        let export = Export {
            keys: &keys,
            entropy: &content.entropy,
            extension: None,
            created: content.created,
            max_mixdepth: 4,
            next_unused: legacy.next_unused.clone(),
            frozen: legacy.frozen.clone(),
            labels: legacy.labels.clone(),
            coins: vec![
                coin(format!("{}:0", "55".repeat(32)), 96, 1_000_000, 200_000),
                coin(format!("{}:3", "66".repeat(32)), 0, 2_000_000, 200_001),
            ],
        };
        let mut written = Zeroizing::new(Vec::new());
        wallet_data(&export).expect("encodes").encode(&mut written);
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        // The reference counts branch 2 too, always 0 and without meaning.
        let expected = text(&plain).replacen("1:2i0e", "", 1);
        assert_eq!(text(&written), expected);
    }
}
