//! Every case of `wallet_derivation.json` and `timelocked_addresses.json`.

use joinery_wallet::bitcoin::hashes::{Hash, HashEngine, hash160, sha256};
use joinery_wallet::bitcoin::{PrivateKey, ScriptBuf};
use joinery_wallet::keys::{ImportedKeys, KeyError, MasterKey, SignerKind};
use joinery_wallet::mnemonic::{entropy_of_phrase, seed};
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("list")
}

fn number<N: TryFrom<u64, Error = std::num::TryFromIntError>>(value: &Value) -> N {
    value.as_u64().expect("number").try_into().expect("number in range")
}

fn keys(phrase: &str, extension: Option<&str>, wallet_type: &str, network: &str) -> MasterKey {
    MasterKey::from_entropy(
        &entropy_of_phrase(phrase).expect("valid phrase"),
        extension,
        WalletType::from_api_name(wallet_type).expect("wallet type"),
        Network::from_name(network).expect("network"),
        ImportedKeys::default(),
    )
    .expect("valid entropy")
}

fn wif(keys: &MasterKey, place: &ScriptPlace) -> String {
    let signer = keys.signer(place).expect("place exists");
    PrivateKey::new(*signer.secret_key(), keys.network().bitcoin()).to_wif()
}

#[test]
fn derivation_matches_the_reference() {
    let file: Value =
        serde_json::from_str(include_str!("vectors/wallet_derivation.json")).expect("JSON");
    let cases = list(&file["cases"]);
    assert_eq!(cases.len(), 13);
    let mut addresses = 0;
    for (position, case) in cases.iter().enumerate() {
        let phrase = text(&case["mnemonic"]);
        let extension = case["extension"].as_str();
        let keys = keys(phrase, extension, text(&case["wallettype"]), text(&case["network"]));
        let entropy = entropy_of_phrase(phrase).expect("valid phrase");
        let seed = seed(&entropy, extension).expect("valid entropy");
        assert_eq!(hex::encode(*seed), text(&case["seed_hex"]), "case {position}");
        assert_eq!(keys.fingerprint().to_string(), text(&case["ng_wallet_fingerprint"]));
        assert_eq!(hex::encode(keys.reference_wallet_id()), text(&case["wallet_id"]));
        let (purpose, coin) = (keys.wallet_type().purpose(), keys.network().coin_type());
        assert_eq!(format!("m/{purpose}'/{coin}'"), text(&case["root_path"]));
        for account in list(&case["accounts"]) {
            let mixdepth = Mixdepth(number(&account["mixdepth"]));
            assert_eq!(keys.account_xpub_text(mixdepth), text(&account["xpub_account"]));
            for branch in list(&account["branches"]) {
                let level: u32 = number(&branch["branch"]);
                assert_eq!(
                    keys.branch_xpub(mixdepth, level).to_string(),
                    text(&branch["xpub_branch"])
                );
                let branch_name = if level == 0 { Branch::External } else { Branch::Internal };
                for entry in list(&branch["addresses"]) {
                    let place = ScriptPlace::Ranged {
                        keychain: Keychain { mixdepth, branch: branch_name },
                        index: number(&entry["index"]),
                    };
                    assert_eq!(place.display(purpose, coin), text(&entry["hd_path"]));
                    let signer = keys.signer(&place).expect("ranged place");
                    assert_eq!(signer.public_key().to_string(), text(&entry["pubkey"]));
                    let script = keys.script_pubkey(&place).expect("ranged place");
                    assert_eq!(script.to_hex_string(), text(&entry["script_pubkey"]));
                    assert_eq!(&script, signer.script_pubkey());
                    let address = keys.address(&place).expect("ranged place").to_string();
                    assert_eq!(address, text(&entry["address"]));
                    if let Some(expected) = entry["wif"].as_str() {
                        assert_eq!(wif(&keys, &place), expected);
                    }
                    addresses += 1;
                }
            }
        }
    }
    assert!(addresses > 200, "only {addresses} addresses checked");
}

#[test]
fn bonds_match_the_reference() {
    let file: Value =
        serde_json::from_str(include_str!("vectors/timelocked_addresses.json")).expect("JSON");
    let cases = list(&file["cases"]);
    assert_eq!(cases.len(), 6);
    for case in cases {
        let keys = keys(text(&case["mnemonic"]), None, "sw-fb", text(&case["network"]));
        assert_eq!(keys.branch_xpub(Mixdepth(0), 2).to_string(), text(&case["branch_xpub"]));
        assert_eq!(keys.account_xpub_text(Mixdepth(0)), text(&case["account_xpub"]));
        for entry in list(&case["entries"]) {
            let timenumber: u16 = number(&entry["timenumber"]);
            let place = ScriptPlace::Bond { timenumber };
            assert_eq!(place.display(84, keys.network().coin_type()), text(&entry["hd_path"]));
            let signer = keys.signer(&place).expect("bond");
            assert_eq!(signer.public_key().to_string(), text(&entry["pubkey"]));
            let witness_script = signer.witness_script().expect("bond").to_hex_string();
            assert_eq!(witness_script, text(&entry["witness_script"]));
            assert_eq!(signer.script_pubkey().to_hex_string(), text(&entry["script_pubkey"]));
            let locktime: u32 = number(&entry["locktime"]);
            assert_eq!(signer.kind(), SignerKind::Bond { locktime });
            let address = keys.address(&place).expect("bond").to_string();
            assert_eq!(address, text(&entry["address"]));
            if let Some(expected) = entry["wif"].as_str() {
                assert_eq!(wif(&keys, &place), expected);
            }
        }
        if let Some(expected) = case["sha256_of_concatenated_script_pubkeys_0_to_959"].as_str() {
            let mut engine = sha256::Hash::engine();
            for timenumber in 0..960 {
                let script = keys.script_pubkey(&ScriptPlace::Bond { timenumber }).expect("bond");
                engine.input(script.as_bytes());
            }
            assert_eq!(sha256::Hash::from_engine(engine).to_string(), expected);
        }
        assert!(keys.script_pubkey(&ScriptPlace::Bond { timenumber: 960 }).is_err());
    }
    let hashed =
        cases.iter().filter(|c| c["sha256_of_concatenated_script_pubkeys_0_to_959"].is_string());
    assert!(hashed.count() >= 1);
}

#[test]
fn burn_branch_matches_the_reference() {
    use joinery_wallet::bitcoin::bip32::ChildNumber;
    let file: Value =
        serde_json::from_str(include_str!("vectors/timelocked_addresses.json")).expect("JSON");
    let phrase = format!("{}about", "abandon ".repeat(11));
    let branch = keys(&phrase, None, "sw-fb", "mainnet").branch_xpub(Mixdepth(0), 3);
    let cases = list(&file["burner_branch"]);
    assert_eq!(cases.len(), 3);
    for (index, case) in (0..).zip(cases) {
        let child = ChildNumber::Normal { index };
        let key = branch.derive_pub(joinery_proto::secp(), &[child]).expect("child");
        assert_eq!(key.public_key.to_string(), text(&case["pubkey"]));
        let hash = hash160::Hash::hash(&key.public_key.serialize());
        assert_eq!(format!("BURN-{hash}"), text(&case["display"]));
        let script = ScriptBuf::new_op_return(hash.to_byte_array());
        assert_eq!(script.to_hex_string(), text(&case["script_pubkey"]));
    }
}

#[test]
fn places_that_do_not_exist_are_errors() {
    let phrase = format!("{}about", "abandon ".repeat(11));
    let native = keys(&phrase, None, "sw", "mainnet");
    let bond = ScriptPlace::Bond { timenumber: 0 };
    assert_eq!(native.script_pubkey(&bond).err(), Some(KeyError::NoBonds));
    assert_eq!(native.signer(&bond).err(), Some(KeyError::NoBonds));
    let imported = ScriptPlace::Imported { mixdepth: Mixdepth(2), index: 0 };
    assert_eq!(
        native.signer(&imported).err(),
        Some(KeyError::NoImportedKey { mixdepth: Mixdepth(2), index: 0 })
    );
    let hardened = ScriptPlace::Ranged {
        keychain: Keychain { mixdepth: Mixdepth(0), branch: Branch::External },
        index: 1 << 31,
    };
    assert_eq!(native.signer(&hardened).err(), Some(KeyError::IndexOutOfRange(1 << 31)));
}

#[test]
fn debug_output_shows_no_secret() {
    let phrase = format!("{}about", "abandon ".repeat(11));
    let keys = keys(&phrase, None, "sw-fb", "mainnet");
    let shown = format!("{keys:?} {:?}", keys.signer(&ScriptPlace::Bond { timenumber: 1 }));
    assert!(!shown.contains("abandon") && !shown.contains("xprv") && !shown.contains("SecretKey"));
    assert!(shown.contains("73c5da0a"));
}
