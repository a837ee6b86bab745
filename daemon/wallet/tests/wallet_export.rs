//! A wallet written for other JoinMarket programs (`spec/wallet.md` 4 and 13.3), and read again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use joinery_wallet::directory::{ExportError, OpenError, OpenedKeys, WalletDirectory, WalletName};
use joinery_wallet::file::KdfParams;
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::store::{self, Fact, FreezeOrigin};
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};
use secrecy::{ExposeSecret, SecretString};

const PASSWORD: &str = "pässword ☃";

fn directory(path: &Path) -> WalletDirectory {
    WalletDirectory::new(path.join("wallets"), Network::Regtest, KdfParams::lightest())
        .expect("directory")
}

fn name(text: &str) -> WalletName {
    text.parse().expect("valid name")
}

fn password(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn first_address(keys: &OpenedKeys) -> String {
    let keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };
    keys.master().address(&ScriptPlace::Ranged { keychain, index: 0 }).expect("place").to_string()
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// A wallet that handed out addresses, with a label and two flags; gives its words.
fn used_wallet(wallets: &WalletDirectory) -> (String, String, [bdk_wallet::bitcoin::OutPoint; 2]) {
    let keys = wallets
        .create(&name("w.jmdat"), &password(PASSWORD), WalletType::FidelityBond, Some(" é "))
        .expect("created");
    let coins =
        [1, 2].map(|n| format!("{}:{n}", hex::encode([n; 32])).parse().expect("valid outpoint"));
    let mut store = store::open(keys.store_paths().clone(), keys.dek()).expect("store");
    let frozen =
        |outpoint, frozen| Fact::Frozen { outpoint, frozen, by: FreezeOrigin::User, time: 1 };
    store
        .record(&[
            Fact::Issued { mixdepth: 0, branch: 0, next_unused: 7 },
            Fact::Issued { mixdepth: 4, branch: 1, next_unused: 300 },
            Fact::Label { address: first_address(&keys), label: "日本, \"quoted\"".to_owned() },
            frozen(coins[0], true),
            frozen(coins[1], false),
            Fact::BondIssued { timenumber: 100 },
        ])
        .expect("recorded");
    (keys.phrase().expose_secret().to_owned(), first_address(&keys), coins)
}

#[test]
fn an_exported_wallet_opens_again_with_everything_it_had() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    let (words, address, coins) = used_wallet(&wallets);
    let before = files(wallets.path());
    let original = fs::read(wallets.path().join("w.jmdat")).expect("readable");

    let out = dir.path().join("out");
    fs::create_dir(&out).expect("made");
    let target = out.join("copy.jmdat");
    wallets.export(&name("w.jmdat"), &password(PASSWORD), &target).expect("exported");
    assert_eq!(files(&out), ["copy.jmdat"]);
    assert_eq!(fs::metadata(&target).expect("exists").permissions().mode() & 0o777, 0o600);
    assert!(fs::read(&target).expect("readable").starts_with(b"JMENCWLT"));
    assert_eq!(files(wallets.path()), before, "the wallet itself stays as it is");
    assert_eq!(fs::read(wallets.path().join("w.jmdat")).expect("readable"), original);

    // Another installation takes it over.
    let elsewhere = directory(&out);
    fs::copy(&target, elsewhere.path().join("copy.jmdat")).expect("copied");
    let wrong = elsewhere.open(&name("copy.jmdat"), &password("other"));
    assert!(matches!(wrong, Err(OpenError::WrongPassword)));
    let keys = elsewhere.open(&name("copy.jmdat"), &password(PASSWORD)).expect("opens");
    assert_eq!(keys.phrase().expose_secret(), words);
    assert_eq!(keys.extension(), Some(" é "));
    assert_eq!(keys.wallet_type(), WalletType::FidelityBond);
    assert_eq!(first_address(&keys), address);
    let legacy = keys.legacy().expect("facts");
    assert_eq!(legacy.next_unused.get(&(0, 0)), Some(&7));
    assert_eq!(legacy.next_unused.get(&(4, 1)), Some(&300));
    assert_eq!(legacy.next_unused.get(&(2, 0)), Some(&0));
    assert_eq!(legacy.frozen.get(&coins[0]), Some(&true));
    assert_eq!(legacy.frozen.get(&coins[1]), Some(&false));
    assert_eq!(legacy.labels.get(&address).map(String::as_str), Some("日本, \"quoted\""));
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    used_wallet(&wallets);
    let right = password(PASSWORD);
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("made");

    fs::write(out.join("file"), b"precious").expect("written");
    symlink(out.join("nowhere"), out.join("link")).expect("linked");
    for taken in ["file", "link"] {
        let result = wallets.export(&name("w.jmdat"), &right, &out.join(taken));
        assert!(matches!(result, Err(ExportError::Exists(_))), "{taken}: {result:?}");
    }
    let result = wallets.export(&name("w.jmdat"), &right, &out);
    assert!(matches!(result, Err(ExportError::Exists(_))), "{result:?}");
    let result = wallets.export(&name("w.jmdat"), &right, Path::new("/"));
    assert!(matches!(result, Err(ExportError::BadTarget(_))), "{result:?}");
    let result = wallets.export(&name("w.jmdat"), &right, &out.join("missing/file"));
    assert!(matches!(result, Err(ExportError::Io(_))), "{result:?}");
    let result = wallets.export(&name("w.jmdat"), &password("other"), &out.join("new"));
    assert!(matches!(result, Err(ExportError::Open(OpenError::WrongPassword))), "{result:?}");
    let result = wallets.export(&name("none.jmdat"), &right, &out.join("new"));
    assert!(matches!(result, Err(ExportError::Open(OpenError::NotFound))), "{result:?}");
    let opened = wallets.open(&name("w.jmdat"), &right).expect("opens");
    let result = wallets.export(&name("w.jmdat"), &right, &out.join("new"));
    assert!(matches!(result, Err(ExportError::Open(OpenError::InUse))), "{result:?}");
    drop(opened);
    assert_eq!(files(&out), ["file", "link"]);
    assert_eq!(fs::read(out.join("file")).expect("readable"), b"precious");
}

#[test]
fn another_programs_file_is_exported_only_when_it_was_kept_in_use() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    let file = "sample_sw_regtest_used.jmdat";
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let original = fs::read(Path::new(vectors).join(file)).expect("sample");
    fs::write(wallets.path().join(file), &original).expect("written");
    let target = dir.path().join("copy.jmdat");
    let right = password(PASSWORD);
    let result = wallets.export(&name(file), &right, &target);
    assert!(matches!(result, Err(ExportError::NeverOpened)), "{result:?}");

    let kept = wallets.clone().keep_legacy(true);
    drop(kept.open(&name(file), &right).expect("opens"));
    wallets.export(&name(file), &right, &target).expect("exported");
    assert_eq!(fs::read(wallets.path().join(file)).expect("readable"), original);
    // What the old file knew is in the new one, although the wallet never ran in between.
    fs::copy(&target, wallets.path().join("copy.jmdat")).expect("copied");
    let copy = wallets.open(&name("copy.jmdat"), &right).expect("opens");
    let sample = kept.open(&name(file), &right).expect("opens");
    let (copied, sampled) = (copy.legacy().expect("facts"), sample.legacy().expect("facts"));
    assert_eq!(copied.frozen, sampled.frozen);
    assert_eq!(copied.labels, sampled.labels);
    let used = |facts: &joinery_wallet::file::LegacyFacts| {
        let mut next = facts.next_unused.clone();
        next.retain(|_, next| *next > 0);
        next
    };
    assert_eq!(used(copied), used(sampled));
    let imported = |keys: &OpenedKeys| keys.master().imported().places().collect::<Vec<_>>();
    assert_eq!(imported(&copy), imported(&sample));
    assert_eq!(imported(&copy).len(), 1);
    assert_eq!(copy.extension(), sample.extension());
}
