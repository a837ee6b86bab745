//! Opening a wallet without its password, with a key that the machine keeps (`[board] resume`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use joinery_wallet::directory::{
    MAX_NOTE, OpenError, OpenedKeys, SealError, SealingKey, WalletDirectory, WalletName,
};
use joinery_wallet::file::KdfParams;
use joinery_wallet::types::{Network, WalletType};
use secrecy::SecretString;
use tempfile::TempDir;

const NOTE: &[u8] = b"{\"minsize\":\"1\"}";

fn password(text: &str) -> SecretString {
    text.to_owned().into()
}

fn name(text: &str) -> WalletName {
    text.parse().expect("a wallet name")
}

fn key(byte: u8) -> SealingKey {
    SealingKey::new(&[byte; 32])
}

fn new() -> (TempDir, WalletDirectory) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("wallets");
    let wallets = WalletDirectory::new(path, Network::Regtest, KdfParams::lightest());
    (dir, wallets.expect("directory"))
}

fn create(wallets: &WalletDirectory, text: &str) -> OpenedKeys {
    let made =
        wallets.create(&name(text), &password("p"), WalletType::FidelityBond, Some("extension"));
    made.expect("created")
}

/// Files of the directory that open a wallet without its password.
fn kept(wallets: &WalletDirectory) -> Vec<PathBuf> {
    let entries = fs::read_dir(wallets.path()).expect("directory");
    let paths = entries.map(|entry| entry.expect("entry").path());
    paths.filter(|path| path.to_string_lossy().contains(".resume")).collect()
}

#[test]
fn a_sealed_wallet_opens_with_its_key_and_is_the_same_wallet() {
    let (_dir, wallets) = new();
    assert_eq!(wallets.sealed(&key(1)), None);
    let keys = create(&wallets, "a.jmdat");
    keys.seal(&key(1), NOTE).expect("sealed");
    let words = keys.entropy().to_vec();
    let dek = *keys.dek();
    assert!(
        matches!(wallets.open_sealed(&name("a.jmdat"), &key(1)), Err(OpenError::InUse)),
        "it is open"
    );
    drop(keys);
    let sealed = wallets.sealed(&key(1)).expect("found");
    assert_eq!((sealed.name.as_str(), sealed.note.as_slice()), ("a.jmdat", NOTE));
    let opened = wallets.open_sealed(&sealed.name, &key(1)).expect("opens");
    assert_eq!((opened.entropy(), *opened.dek()), (words.as_slice(), dek));
    assert_eq!(opened.extension(), Some("extension"));
    // It knows its password.
    assert!(opened.verify_password(&password("p")) && !opened.verify_password(&password("q")));
    // And can be sealed again.
    opened.seal(&key(1), b"").expect("sealed again");
    assert_eq!(wallets.sealed(&key(1)).expect("found").note, b"");
    let files = kept(&wallets);
    assert_eq!(files.len(), 1);
    assert_eq!(fs::metadata(&files[0]).expect("file").permissions().mode() & 0o777, 0o600);
    wallets.forget_sealed().expect("forgotten");
    wallets.forget_sealed().expect("nothing to forget");
    assert!(kept(&wallets).is_empty());
    drop(opened);
    let opened = wallets.open_sealed(&name("a.jmdat"), &key(1));
    assert!(matches!(opened, Err(OpenError::WrongPassword)));
    wallets.open(&name("a.jmdat"), &password("p")).expect("the password still opens it");
}

#[test]
fn neither_the_secret_nor_the_words_stand_in_the_file() {
    let (_dir, wallets) = new();
    let keys = create(&wallets, "a.jmdat");
    keys.seal(&key(7), NOTE).expect("sealed");
    let file = fs::read(&kept(&wallets)[0]).expect("file");
    for secret in [keys.entropy(), keys.dek(), &[7; 8], NOTE, b"minsize"] {
        assert!(!file.windows(secret.len()).any(|part| part == secret));
    }
}

#[test]
fn another_key_a_changed_file_or_another_wallet_opens_nothing() {
    let (_dir, wallets) = new();
    create(&wallets, "a.jmdat").seal(&key(1), NOTE).expect("sealed");
    drop(create(&wallets, "b.jmdat"));
    let none = |with: &SealingKey| {
        assert_eq!(wallets.sealed(with), None);
        let opened = wallets.open_sealed(&name("a.jmdat"), with);
        assert!(matches!(opened, Err(OpenError::WrongPassword)), "{opened:?}");
    };
    none(&key(2));
    let path = kept(&wallets).remove(0);
    let good = fs::read(&path).expect("file");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&path, bad).expect("written");
        assert_eq!(wallets.sealed(&key(1)), None, "byte {at}");
    }
    for length in [0, 1, 8, 31, 32, 40, good.len() - 1] {
        fs::write(&path, &good[..length]).expect("written");
        none(&key(1));
    }
    fs::write(&path, vec![0; 1 << 20]).expect("written");
    none(&key(1));
    // The file of one wallet under the name of another.
    fs::write(&path, &good).expect("written");
    assert!(wallets.sealed(&key(1)).is_some());
    fs::rename(&path, wallets.path().join(".b.jmdat.resume")).expect("renamed");
    assert_eq!(wallets.sealed(&key(1)), None);
    none(&key(1));
}

#[test]
fn a_changed_password_or_a_replaced_wallet_file_ends_it() {
    let (_dir, wallets) = new();
    let keys = create(&wallets, "a.jmdat");
    keys.seal(&key(1), NOTE).expect("sealed");
    keys.change_password(&password("p"), &password("new")).expect("changed");
    drop(keys);
    assert!(wallets.sealed(&key(1)).is_some(), "it cannot be seen without the wallet file");
    let opened = wallets.open_sealed(&name("a.jmdat"), &key(1));
    assert!(matches!(opened, Err(OpenError::WrongPassword)), "{opened:?}");
    // Sealed after the change it opens.
    let keys = wallets.open(&name("a.jmdat"), &password("new")).expect("opens");
    keys.seal(&key(1), NOTE).expect("sealed");
    drop(keys);
    drop(wallets.open_sealed(&name("a.jmdat"), &key(1)).expect("opens"));
    // And when the password is changed while it is open, too.
    let keys = wallets.open_sealed(&name("a.jmdat"), &key(1)).expect("opens");
    keys.change_password(&password("new"), &password("newer")).expect("changed");
    keys.seal(&key(1), NOTE).expect("sealed");
    drop(keys);
    drop(wallets.open_sealed(&name("a.jmdat"), &key(1)).expect("opens"));

    fs::remove_file(wallets.path().join("a.jmdat")).expect("removed");
    assert_eq!(wallets.sealed(&key(1)), None, "there is no such wallet");
    drop(create(&wallets, "a.jmdat"));
    let opened = wallets.open_sealed(&name("a.jmdat"), &key(1));
    assert!(matches!(opened, Err(OpenError::WrongPassword)), "{opened:?}");
}

#[test]
fn one_wallet_is_kept_and_unfinished_files_go_too() {
    let (_dir, wallets) = new();
    create(&wallets, "a.jmdat").seal(&key(1), NOTE).expect("sealed");
    let unfinished = wallets.path().join(".a.jmdat.resume-tmp");
    fs::write(&unfinished, "half").expect("written");
    let keys = create(&wallets, "b.jmdat");
    keys.seal(&key(1), NOTE).expect("sealed");
    assert_eq!(wallets.sealed(&key(1)).expect("found").name.as_str(), "b.jmdat");
    assert_eq!(kept(&wallets).len(), 1);
    assert!(!unfinished.exists());
    // Too much to keep changes nothing.
    let refused = keys.seal(&key(1), &vec![b'x'; MAX_NOTE + 1]);
    assert!(matches!(refused, Err(SealError::NoteTooLong(_))));
    assert_eq!(wallets.sealed(&key(1)).expect("found").note, NOTE);
    keys.seal(&key(1), &vec![b'x'; MAX_NOTE]).expect("just fits");
    assert_eq!(wallets.sealed(&key(1)).expect("found").note.len(), MAX_NOTE);
}
