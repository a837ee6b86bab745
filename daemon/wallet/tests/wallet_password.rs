//! Changing the password of a wallet file (`spec/api.md` Appendix C 20).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use joinery_wallet::directory::{
    ChangePasswordError, OpenError, OpenedKeys, WalletDirectory, WalletName,
};
use joinery_wallet::file::KdfParams;
use joinery_wallet::types::{Network, WalletType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secrecy::{ExposeSecret, SecretString};

const DIR: &str = "WALLET_PASSWORD_DIR";
const KILLS: u32 = 60;

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

fn numbered(number: u32) -> SecretString {
    password(&format!("pässword {number}"))
}

fn create(wallets: &WalletDirectory, password: &SecretString) -> OpenedKeys {
    wallets
        .create(&name("w.jmdat"), password, WalletType::FidelityBond, Some("é"))
        .expect("created")
}

#[test]
fn the_new_password_opens_the_same_wallet_and_the_old_one_opens_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    let (old, new) = (password("old"), password("ñew ☃"));
    let keys = create(&wallets, &old);
    let (words, dek) = (keys.phrase(), *keys.dek());
    let before = fs::read(wallets.path().join("w.jmdat")).expect("readable");

    for wrong in ["", "Old", "old "] {
        let result = keys.change_password(&password(wrong), &new);
        assert!(matches!(result, Err(ChangePasswordError::WrongPassword)), "{result:?}");
    }
    let result = keys.change_password(&old, &password(""));
    assert!(matches!(result, Err(ChangePasswordError::EmptyPassword)), "{result:?}");
    assert_eq!(fs::read(wallets.path().join("w.jmdat")).expect("readable"), before);
    assert!(keys.verify_password(&old));

    keys.change_password(&old, &new).expect("changed");
    // At once, also for the wallet that is open.
    assert!(keys.verify_password(&new) && !keys.verify_password(&old));
    let result = keys.change_password(&old, &new);
    assert!(matches!(result, Err(ChangePasswordError::WrongPassword)), "{result:?}");
    drop(keys);
    assert!(matches!(wallets.open(&name("w.jmdat"), &old), Err(OpenError::WrongPassword)));
    let opened = wallets.open(&name("w.jmdat"), &new).expect("opens");
    assert_eq!(opened.phrase().expose_secret(), words.expose_secret());
    assert_eq!(opened.extension(), Some("é"));
    assert_eq!(*opened.dek(), dek, "the stored data stays readable");
    // Nothing of the old file is left: neither salt nor ciphertext.
    let after = fs::read(wallets.path().join("w.jmdat")).expect("readable");
    assert_ne!(before[18..34], after[18..34]);
    assert_eq!(wallets.list(), ["w.jmdat"]);
}

#[test]
fn a_file_of_another_program_that_is_kept_keeps_its_password() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    let file = "sample_sw_regtest_used.jmdat";
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let original = fs::read(Path::new(vectors).join(file)).expect("sample");
    fs::write(wallets.path().join(file), &original).expect("written");
    let (old, new) = (password("pässword ☃"), password("new"));
    let keys = wallets.clone().keep_legacy(true).open(&name(file), &old).expect("opens");
    let result = keys.change_password(&old, &new);
    assert!(matches!(result, Err(ChangePasswordError::KeptFile)), "{result:?}");
    drop(keys);
    assert_eq!(fs::read(wallets.path().join(file)).expect("readable"), original);

    // Converted at its opening it is ours, and so is its password.
    let keys = wallets.open(&name(file), &old).expect("opens");
    keys.change_password(&old, &new).expect("changed");
    let legacy = keys.legacy().cloned();
    drop(keys);
    let keys = wallets.open(&name(file), &new).expect("opens");
    assert_eq!(keys.legacy().cloned(), legacy, "facts that were not taken over yet stay");
    assert_eq!(keys.master().imported().places().count(), 1);
}

#[test]
fn a_file_that_was_replaced_by_hand_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    let old = password("old");
    let keys = create(&wallets, &old);
    let other = wallets
        .create(&name("other.jmdat"), &old, WalletType::FidelityBond, None)
        .expect("created");
    drop(other);
    fs::rename(wallets.path().join("other.jmdat"), wallets.path().join("w.jmdat")).expect("moved");
    let there = fs::read(wallets.path().join("w.jmdat")).expect("readable");
    let result = keys.change_password(&old, &password("new"));
    assert!(matches!(result, Err(ChangePasswordError::Open(OpenError::Damaged(_)))), "{result:?}");
    assert_eq!(fs::read(wallets.path().join("w.jmdat")).expect("readable"), there);
    fs::remove_file(wallets.path().join("w.jmdat")).expect("removed");
    let result = keys.change_password(&old, &password("new"));
    assert!(matches!(result, Err(ChangePasswordError::Open(OpenError::NotFound))), "{result:?}");
}

/// The child: changes the password for ever, and says before and after each time what it does.
#[test]
#[ignore = "run as a child process by the other test"]
fn child_changes_the_password_until_it_is_killed() {
    let path = std::env::var_os(DIR).expect("set by the parent");
    let wallets = directory(Path::new(&path));
    let mut number: u32 = fs::read_to_string(Path::new(&path).join("number"))
        .expect("written by the parent")
        .parse()
        .expect("a number");
    let keys = wallets.open(&name("w.jmdat"), &numbered(number)).expect("opens");
    let mut out = std::io::stdout().lock();
    loop {
        writeln!(out, "from {number}").and_then(|()| out.flush()).expect("parent listens");
        keys.change_password(&numbered(number), &numbered(number + 1)).expect("changes");
        number += 1;
        writeln!(out, "done {number}").and_then(|()| out.flush()).expect("parent listens");
    }
}

#[test]
fn kill9_at_any_moment_leaves_the_old_or_the_new_password() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = directory(dir.path());
    let mut number = 0;
    let keys = create(&wallets, &numbered(number));
    let words = keys.phrase();
    drop(keys);
    let temporary = wallets.path().join(".w.jmdat.tmp");
    let mut rng = StdRng::seed_from_u64(20);
    let (mut olds, mut news) = (0, 0);
    for kill in 0..KILLS {
        fs::write(dir.path().join("number"), number.to_string()).expect("written");
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--ignored", "--exact", "child_changes_the_password_until_it_is_killed"])
            .arg("--nocapture")
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts itself");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut done = number;
        let mut hear = |line: std::io::Result<String>| {
            let line = line.expect("text");
            if let Some(text) = line.split("done ").nth(1) {
                done = text.parse().expect("a number");
            }
            line.contains("from ")
        };
        let begun = lines.by_ref().any(&mut hear);
        assert!(begun, "the child ended by itself, kill {kill}");
        if kill % 2 == 0 {
            // While the file is being written, a moment that is hard to meet by chance.
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while !temporary.exists() && std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
        } else {
            // Anywhere in the change, its key derivations included.
            std::thread::park_timeout(Duration::from_micros(rng.random_range(0..120_000)));
        }
        child.kill().expect("is running");
        child.wait().expect("ends");
        for line in lines {
            hear(line);
        }
        // What was acknowledged holds; what was under way is there or not.
        number = match wallets.open(&name("w.jmdat"), &numbered(done)) {
            Ok(keys) => {
                olds += 1;
                assert_eq!(keys.phrase().expose_secret(), words.expose_secret());
                done
            }
            Err(OpenError::WrongPassword) => {
                news += 1;
                let keys = wallets.open(&name("w.jmdat"), &numbered(done + 1)).expect("opens");
                assert_eq!(keys.phrase().expose_secret(), words.expose_secret());
                done + 1
            }
            Err(other) => panic!("kill {kill}: {other}"),
        };
    }
    println!("{olds} kills left the old password, {news} the new one, at number {number}");
    assert!(olds > 0);
}
