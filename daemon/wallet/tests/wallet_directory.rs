//! Wallet files on disk: creation, recovery, opening, conversion, locks, crashes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use joinery_wallet::directory::{CreateError, OpenError, OpenedKeys, WalletDirectory, WalletName};
use joinery_wallet::file::KdfParams;
use joinery_wallet::mnemonic::PhraseError;
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};
use secrecy::{ExposeSecret, SecretString};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

fn open_directory(path: &Path, network: Network) -> WalletDirectory {
    WalletDirectory::new(path.join("wallets"), network, KdfParams::lightest()).expect("directory")
}

fn regtest() -> (tempfile::TempDir, WalletDirectory) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let wallets = open_directory(dir.path(), Network::Regtest);
    (dir, wallets)
}

fn name(text: &str) -> WalletName {
    text.parse().expect("valid name")
}

fn password(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn create(wallets: &WalletDirectory, text: &str) -> Result<OpenedKeys, CreateError> {
    wallets.create(&name(text), &password("pässword ☃"), WalletType::FidelityBond, None)
}

fn first_address(keys: &OpenedKeys) -> String {
    let keychain = Keychain { mixdepth: Mixdepth(0), branch: Branch::External };
    let place = ScriptPlace::Ranged { keychain, index: 0 };
    keys.master().address(&place).expect("ranged place").to_string()
}

fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

#[test]
fn a_created_wallet_opens_again_with_everything_it_had() {
    let (_dir, wallets) = regtest();
    let made = wallets
        .create(&name("w.jmdat"), &password("pw"), WalletType::FidelityBond, Some(" é "))
        .expect("created");
    assert_eq!(made.phrase().expose_secret().split(' ').count(), 12);
    assert_eq!(made.legacy(), None);
    assert!(made.created() > 1_700_000_000);
    let (phrase, address, dek) = (made.phrase(), first_address(&made), *made.dek());
    assert_ne!(dek, [0; 32]);
    drop(made);

    let opened = wallets.open(&name("w.jmdat"), &password("pw")).expect("opens");
    assert_eq!(opened.phrase().expose_secret(), phrase.expose_secret());
    assert_eq!(first_address(&opened), address);
    assert_eq!(*opened.dek(), dek);
    assert_eq!(opened.extension(), Some(" é "));
    assert_eq!(opened.wallet_type(), WalletType::FidelityBond);
    assert_eq!(opened.network(), Network::Regtest);
    assert_eq!(opened.max_mixdepth(), 4);
    assert!(opened.verify_password(&password("pw")));
    assert!(!opened.verify_password(&password("pw ")));
    assert!(!opened.verify_password(&password("")));
    assert_eq!(opened.store_paths().db, wallets.path().join(".w.jmdat.db"));

    // The phrase and the extension restore the same addresses under another name.
    let restored = wallets
        .recover(
            &name("again.jmdat"),
            &password("other"),
            WalletType::FidelityBond,
            &format!("  {}  ", phrase.expose_secret().to_uppercase().replace(' ', "\n ")),
            Some(" é "),
        )
        .expect("recovered");
    assert_eq!(first_address(&restored), address);
    assert_ne!(*restored.dek(), dek, "each file has a data key of its own");
    assert_eq!(wallets.list(), ["again.jmdat", "w.jmdat"]);
}

#[test]
fn two_created_wallets_share_nothing() {
    let (_dir, wallets) = regtest();
    let (a, b) = (create(&wallets, "a.jmdat").expect("a"), create(&wallets, "b.jmdat").expect("b"));
    assert_ne!(a.phrase().expose_secret(), b.phrase().expose_secret());
    assert_ne!(a.dek(), b.dek());
}

#[test]
fn nothing_is_readable_for_others() {
    let (_dir, wallets) = regtest();
    let keys = create(&wallets, "w.jmdat").expect("created");
    assert_eq!(mode(wallets.path()), 0o700);
    for entry in entries(wallets.path()) {
        assert_eq!(mode(&wallets.path().join(&entry)), 0o600, "{entry}");
    }
    drop(keys);
    // A directory that was made by hand is closed when it is used.
    fs::set_permissions(wallets.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let path = wallets.path().to_owned();
    WalletDirectory::new(path, Network::Regtest, KdfParams::lightest()).expect("directory");
    assert_eq!(mode(wallets.path()), 0o700);
}

#[test]
fn the_file_shows_no_secret() {
    let (_dir, wallets) = regtest();
    let keys = wallets
        .create(
            &name("w.jmdat"),
            &password("planted pw"),
            WalletType::NativeSegwit,
            Some("planted ext"),
        )
        .expect("created");
    let file = fs::read(wallets.path().join("w.jmdat")).expect("readable");
    assert!(file.starts_with(b"JOINWLT1"));
    let contains = |needle: &[u8]| file.windows(needle.len()).any(|part| part == needle);
    assert!(!contains(keys.entropy()) && !contains(keys.dek()) && !contains(b"planted"));
    let shown = format!("{keys:?}");
    for word in keys.phrase().expose_secret().split(' ') {
        assert!(!shown.contains(&format!(" {word} ")));
    }
    assert!(!shown.contains("planted"));
}

#[test]
fn bad_requests_to_create_leave_nothing_behind() {
    let (_dir, wallets) = regtest();
    let make = |pw: &str, extension: Option<&str>| {
        wallets.create(&name("w.jmdat"), &password(pw), WalletType::FidelityBond, extension)
    };
    assert!(matches!(make("", None), Err(CreateError::EmptyPassword)));
    let long = "x".repeat(1025);
    assert!(matches!(make("pw", Some(&long)), Err(CreateError::ExtensionTooLong)));
    let recover = |phrase: &str| {
        wallets.recover(&name("w.jmdat"), &password("pw"), WalletType::NativeSegwit, phrase, None)
    };
    for (phrase, error) in [
        ("", PhraseError::WordCount(0)),
        (&"abandon ".repeat(11), PhraseError::WordCount(11)),
        (&"abandon ".repeat(13), PhraseError::WordCount(13)),
        (&"abandon ".repeat(12), PhraseError::Checksum),
    ] {
        assert!(matches!(recover(phrase), Err(CreateError::BadPhrase(found)) if found == error));
    }
    assert_eq!(entries(wallets.path()), [""; 0]);
    // The empty extension is none.
    assert_eq!(make("pw", Some("")).expect("created").extension(), None);
}

#[test]
fn existing_names_are_never_overwritten() {
    let (dir, wallets) = regtest();
    let keys = create(&wallets, "w.jmdat").expect("created");
    let before = fs::read(wallets.path().join("w.jmdat")).expect("readable");
    // While it is open, and when it is closed.
    assert!(matches!(create(&wallets, "w.jmdat"), Err(CreateError::AlreadyExists)));
    drop(keys);
    assert!(matches!(create(&wallets, "w.jmdat"), Err(CreateError::AlreadyExists)));
    assert_eq!(fs::read(wallets.path().join("w.jmdat")).expect("readable"), before);
    // A directory, a link to a file and a dangling link have the name as well.
    fs::create_dir(wallets.path().join("dir.jmdat")).expect("directory");
    symlink(dir.path().join("nowhere"), wallets.path().join("dangling.jmdat")).expect("link");
    for other in ["dir.jmdat", "dangling.jmdat"] {
        assert!(matches!(create(&wallets, other), Err(CreateError::AlreadyExists)), "{other}");
    }
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn only_regular_wallet_files_are_listed_and_opened() {
    let (dir, wallets) = regtest();
    drop(create(&wallets, "w.jmdat").expect("created"));
    fs::create_dir(wallets.path().join("dir.jmdat")).expect("directory");
    symlink(wallets.path().join("w.jmdat"), wallets.path().join("link.jmdat")).expect("link");
    symlink(dir.path().join("nowhere"), wallets.path().join("dangling.jmdat")).expect("link");
    fs::write(wallets.path().join(".hidden.jmdat"), b"x").expect("written");
    fs::write(wallets.path().join(".w.jmdat.tmp"), b"half a fi").expect("written");
    fs::write(wallets.path().join("w.jmdat.imported-1"), b"x").expect("written");
    fs::write(wallets.path().join("other.txt"), b"x").expect("written");
    fs::write(wallets.path().join("wjmdat"), b"x").expect("written");
    fs::write(wallets.path().join("B.jmdat"), b"not a wallet").expect("written");
    fs::write(wallets.path().join("empty.jmdat"), b"").expect("written");
    assert_eq!(wallets.list(), ["B.jmdat", "empty.jmdat", "w.jmdat"]);

    let open = |text: &str| wallets.open(&name(text), &password("pässword ☃"));
    for other in ["dir.jmdat", "link.jmdat", "dangling.jmdat", "B.jmdat", "empty.jmdat"] {
        assert!(matches!(open(other), Err(OpenError::NotAWallet)), "{other}");
    }
    let before = entries(wallets.path());
    assert!(matches!(open("missing.jmdat"), Err(OpenError::NotFound)));
    assert_eq!(entries(wallets.path()), before, "made-up names leave no files");
    // A leftover temporary file, even a planted link, does not disturb writing and is not followed.
    let victim = dir.path().join("victim");
    fs::write(&victim, b"untouched").expect("written");
    symlink(&victim, wallets.path().join(".new.jmdat.tmp")).expect("link");
    drop(create(&wallets, "new.jmdat").expect("created"));
    assert_eq!(fs::read(&victim).expect("readable"), b"untouched");
    open("w.jmdat").expect("still opens");
    // Too large to be a wallet: it is not even read into memory.
    let large = fs::File::create(wallets.path().join("large.jmdat")).expect("file");
    large.set_len(1 << 40).expect("sparse file");
    assert!(matches!(open("large.jmdat"), Err(OpenError::NotAWallet)));
}

#[test]
fn a_pipe_does_not_block_an_unlock() {
    let (_dir, wallets) = regtest();
    let path = wallets.path().join("pipe.jmdat");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("pipe");
    let result = wallets.open(&name("pipe.jmdat"), &password("pw"));
    assert!(matches!(result, Err(OpenError::NotAWallet)));
}

#[test]
fn an_open_wallet_is_not_opened_twice() {
    let (dir, wallets) = regtest();
    let keys = create(&wallets, "w.jmdat").expect("created");
    let right = password("pässword ☃");
    assert!(matches!(wallets.open(&name("w.jmdat"), &right), Err(OpenError::InUse)));
    // Not even through another handle on the same directory.
    let other = open_directory(dir.path(), Network::Regtest);
    assert!(matches!(other.open(&name("w.jmdat"), &right), Err(OpenError::InUse)));
    // Another wallet may be opened meanwhile.
    drop(create(&wallets, "other.jmdat").expect("created"));
    drop(keys);
    assert!(matches!(
        wallets.open(&name("w.jmdat"), &password("wrong")),
        Err(OpenError::WrongPassword)
    ));
    assert!(matches!(wallets.open(&name("w.jmdat"), &password("")), Err(OpenError::WrongPassword)));
    other.open(&name("w.jmdat"), &right).expect("a failed attempt leaves no lock");
}

#[test]
fn wallets_of_another_network_are_refused() {
    let (dir, wallets) = regtest();
    drop(create(&wallets, "w.jmdat").expect("created"));
    for network in [Network::Mainnet, Network::Signet, Network::Testnet4] {
        let other = open_directory(dir.path(), network);
        let result = other.open(&name("w.jmdat"), &password("pässword ☃"));
        assert!(matches!(
            result,
            Err(OpenError::WrongNetwork { found: "regtest", expected }) if expected == network
        ));
    }
}

#[test]
fn damage_is_reported_and_nothing_is_changed() {
    let (_dir, wallets) = regtest();
    drop(create(&wallets, "w.jmdat").expect("created"));
    let path = wallets.path().join("w.jmdat");
    let good = fs::read(&path).expect("readable");
    let right = password("pässword ☃");
    for length in [8, 20, 57, 70] {
        fs::write(&path, &good[..length]).expect("written");
        let result = wallets.open(&name("w.jmdat"), &right);
        assert!(matches!(result, Err(OpenError::Damaged(_))), "{length}");
        assert_eq!(fs::read(&path).expect("readable"), good[..length]);
    }
    let mut flipped = good.clone();
    flipped[80] ^= 1;
    fs::write(&path, &flipped).expect("written");
    assert!(matches!(wallets.open(&name("w.jmdat"), &right), Err(OpenError::WrongPassword)));
    let mut hostile = good.clone();
    hostile[9..13].copy_from_slice(&u32::MAX.to_be_bytes());
    fs::write(&path, &hostile).expect("written");
    assert!(matches!(wallets.open(&name("w.jmdat"), &right), Err(OpenError::Unsupported(_))));
    fs::write(&path, &good).expect("written");
    wallets.open(&name("w.jmdat"), &right).expect("opens");
}

struct Sample {
    file: &'static str,
    password: &'static str,
    network: Network,
    wallet_type: WalletType,
    words: &'static str,
}

const ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                    abandon about";

const SAMPLES: [Sample; 5] = [
    Sample {
        file: "sample_sw_fb_mainnet.jmdat",
        password: "correct horse battery staple",
        network: Network::Mainnet,
        wallet_type: WalletType::FidelityBond,
        words: ZERO,
    },
    Sample {
        file: "sample_sw_regtest_used.jmdat",
        password: "pässword ☃",
        network: Network::Regtest,
        wallet_type: WalletType::NativeSegwit,
        words: "abandon amount liar amount expire adjust cage candy arch gather drum buyer",
    },
    Sample {
        file: "sample_sw_legacy_testnet_plain.jmdat",
        password: "chosen at import",
        network: Network::Testnet4,
        wallet_type: WalletType::NestedSegwit,
        words: "legal winner thank year wave sausage worth useful legal winner thank yellow",
    },
    Sample {
        file: "sample_sw_fb_signet_full.jmdat",
        password: "pw",
        network: Network::Signet,
        wallet_type: WalletType::FidelityBond,
        words: "abandon amount liar amount expire adjust cage candy arch gather drum bullet absurd \
                math era live bid rhythm alien crouch range attend journey unaware",
    },
    Sample {
        file: "sample_ng.jmdat",
        password: "correct horse battery staple",
        network: Network::Mainnet,
        wallet_type: WalletType::FidelityBond,
        words: ZERO,
    },
];

fn copy_sample(wallets: &WalletDirectory, file: &str) -> Vec<u8> {
    let bytes = fs::read(Path::new(VECTORS).join(file)).expect("sample");
    fs::write(wallets.path().join(file), &bytes).expect("written");
    bytes
}

#[test]
fn every_sample_file_is_converted_at_its_first_unlock() {
    for sample in &SAMPLES {
        let dir = tempfile::tempdir().expect("temporary directory");
        let wallets = open_directory(dir.path(), sample.network);
        let original = copy_sample(&wallets, sample.file);
        let name = name(sample.file);

        if !sample.file.contains("plain") {
            let result = wallets.open(&name, &password("wrong"));
            assert!(matches!(result, Err(OpenError::WrongPassword)), "{}", sample.file);
            assert_eq!(fs::read(wallets.path().join(sample.file)).expect("readable"), original);
        }

        let keys = wallets.open(&name, &password(sample.password)).expect("sample opens");
        assert_eq!(keys.phrase().expose_secret(), sample.words, "{}", sample.file);
        assert_eq!(keys.wallet_type(), sample.wallet_type);
        assert!(keys.verify_password(&password(sample.password)));
        let legacy = keys.legacy().cloned();
        let (address, dek) = (first_address(&keys), *keys.dek());
        let imported: Vec<_> = keys.master().imported().places().collect();
        drop(keys);

        // The original survives as a copy, the file itself is native now.
        let copies: Vec<_> = entries(wallets.path())
            .into_iter()
            .filter(|entry| entry.starts_with(&format!("{}.imported-", sample.file)))
            .collect();
        assert_eq!(copies.len(), 1, "{}", sample.file);
        let copy = wallets.path().join(&copies[0]);
        assert_eq!(fs::read(&copy).expect("readable"), original);
        assert_eq!(mode(&copy), 0o600);
        assert_eq!(mode(&wallets.path().join(sample.file)), 0o600);
        assert_eq!(wallets.list(), [sample.file]);

        // The facts stay available: a crash before they are recorded must not lose them.
        let again = wallets.open(&name, &password(sample.password)).expect("opens again");
        assert_eq!(again.legacy().cloned(), legacy);
        assert_eq!(first_address(&again), address);
        assert_eq!(*again.dek(), dek);
        assert_eq!(again.master().imported().places().collect::<Vec<_>>(), imported);
        assert_eq!(entries(wallets.path()).len(), 3, "file, copy and lock");

        if sample.file == "sample_sw_regtest_used.jmdat" {
            assert_eq!(again.extension(), Some("my extension é"));
            assert_eq!(imported.len(), 1);
            let legacy = legacy.expect("a used wallet");
            assert_eq!(legacy.next_unused.get(&(0, 0)), Some(&2));
            assert_eq!(legacy.frozen.values().filter(|frozen| **frozen).count(), 1);
            assert_eq!(legacy.labels.values().collect::<Vec<_>>(), ["Donation 日本"]);
        }
        if sample.file == "sample_ng.jmdat" {
            assert_eq!(again.birth_height(), Some(850_000));
        }
    }
}

#[test]
fn foreign_files_of_another_network_are_refused_before_conversion() {
    for (file, pw, network) in [
        ("sample_sw_fb_signet_full.jmdat", "pw", Network::Regtest),
        ("sample_sw_fb_signet_full.jmdat", "pw", Network::Mainnet),
        ("sample_sw_legacy_testnet_plain.jmdat", "pw", Network::Signet),
        ("sample_sw_legacy_testnet_plain.jmdat", "pw", Network::Mainnet),
        ("sample_sw_fb_mainnet.jmdat", "correct horse battery staple", Network::Testnet4),
    ] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let wallets = open_directory(dir.path(), network);
        let original = copy_sample(&wallets, file);
        let result = wallets.open(&name(file), &password(pw));
        assert!(matches!(result, Err(OpenError::WrongNetwork { .. })), "{file} on {network}");
        assert_eq!(fs::read(wallets.path().join(file)).expect("readable"), original);
    }
}

#[test]
fn kept_legacy_files_stay_as_they_are() {
    let (dir, wallets) = regtest();
    let wallets = wallets.keep_legacy(true);
    let file = "sample_sw_regtest_used.jmdat";
    let original = copy_sample(&wallets, file);
    let right = password("pässword ☃");
    let keys = wallets.open(&name(file), &right).expect("opens");
    let dek = *keys.dek();
    assert!(keys.legacy().is_some());
    assert!(keys.verify_password(&right) && !keys.verify_password(&password("x")));
    drop(keys);
    assert_eq!(fs::read(wallets.path().join(file)).expect("readable"), original);
    assert!(wallets.path().join(format!("{file}.key")).is_file());
    assert_eq!(wallets.list(), [file]);
    assert!(matches!(wallets.open(&name(file), &password("wrong")), Err(OpenError::WrongPassword)));
    assert_eq!(*wallets.open(&name(file), &right).expect("opens").dek(), dek);
    // When it is converted later, its stored data stays readable.
    let converting = open_directory(dir.path(), Network::Regtest);
    assert_eq!(*converting.open(&name(file), &right).expect("opens").dek(), dek);
    assert_ne!(fs::read(wallets.path().join(file)).expect("readable"), original);
}

#[test]
fn stored_data_of_a_removed_wallet_is_moved_aside_and_kept() {
    let (_dir, wallets) = regtest();
    let paths = create(&wallets, "w.jmdat").expect("created").store_paths().clone();
    fs::create_dir(&paths.db).expect("database");
    fs::write(&paths.journal, b"old journal").expect("journal");
    fs::remove_file(wallets.path().join("w.jmdat")).expect("removed by hand");
    drop(create(&wallets, "w.jmdat").expect("created"));
    assert!(!paths.db.exists() && !paths.journal.exists());
    let kept = entries(wallets.path());
    let old = kept.iter().find(|entry| entry.starts_with(".w.jmdat.journal.old-")).expect("kept");
    assert_eq!(fs::read(wallets.path().join(old)).expect("readable"), b"old journal");
    assert!(kept.iter().any(|entry| entry.starts_with(".w.jmdat.db.old-")));
}

#[test]
fn stale_lock_files_of_the_reference_do_not_block_and_live_ones_do() {
    let (_dir, wallets) = regtest();
    drop(create(&wallets, "w.jmdat").expect("created"));
    let lock = wallets.path().join(".w.jmdat.lock");
    let right = password("pässword ☃");
    let mut child = Command::new("sleep").arg("600").spawn().expect("sleep");
    fs::write(&lock, child.id().to_string()).expect("written");
    assert!(matches!(wallets.open(&name("w.jmdat"), &right), Err(OpenError::InUse)));
    child.kill().expect("own child");
    child.wait().expect("own child");
    wallets.open(&name("w.jmdat"), &right).expect("a dead process does not block");
    assert!(lock.exists(), "foreign files are left alone");
}

/// Environment variable that turns [`helper_process`] into the process that is killed.
const HELPER: &str = "JOINERY_TEST_HELPER_DIRECTORY";

/// Not a test of its own: the process that the tests below start and kill. Without the variable it has
/// nothing to do.
#[test]
fn helper_process() {
    let Some(path) = std::env::var_os(HELPER) else { return };
    let path = PathBuf::from(path);
    let wallets = open_directory(&path, Network::Regtest);
    if wallets.list().is_empty() || path.join("create-many").exists() {
        // Make wallets until killed; say after each one that it exists.
        for number in 0..1_000_000 {
            let keys = create(&wallets, &format!("w{number}.jmdat")).expect("created");
            let line = format!("w{number}.jmdat {}\n", keys.phrase().expose_secret());
            fs::write(path.join(format!("made-{number}.tmp")), line).expect("written");
            let from = path.join(format!("made-{number}.tmp"));
            fs::rename(from, path.join(format!("made-{number}"))).expect("renamed");
        }
    } else {
        let keys = wallets.open(&name("w.jmdat"), &password("pässword ☃")).expect("opens");
        fs::write(path.join("opened"), b"").expect("written");
        std::thread::park_timeout(Duration::from_secs(600));
        drop(keys);
    }
}

fn start_helper(directory: &Path) -> Child {
    Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "helper_process", "--nocapture"])
        .env(HELPER, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("own program starts")
}

/// Waits for a condition of the file system, with a deadline.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "timeout: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn kill9_then_unlock() {
    let (dir, wallets) = regtest();
    drop(create(&wallets, "w.jmdat").expect("created"));
    let right = password("pässword ☃");
    for _ in 0..3 {
        let mut child = start_helper(dir.path());
        wait_for("the helper opens the wallet", || dir.path().join("opened").exists());
        assert!(matches!(wallets.open(&name("w.jmdat"), &right), Err(OpenError::InUse)));
        child.kill().expect("own child");
        child.wait().expect("own child");
        // At once: the lock died with the process.
        wallets.open(&name("w.jmdat"), &right).expect("opens after the kill");
        fs::remove_file(dir.path().join("opened")).expect("removed");
    }
}

#[test]
fn kill9_while_creating_leaves_whole_wallets_or_none() {
    let (dir, wallets) = regtest();
    fs::write(dir.path().join("create-many"), b"").expect("written");
    let made = |number: u32| dir.path().join(format!("made-{number}"));
    for round in 0..12_u32 {
        for entry in wallets.list() {
            fs::remove_file(wallets.path().join(entry)).expect("removed");
        }
        for number in 0..100 {
            let _ = fs::remove_file(made(number));
        }
        let mut child = start_helper(dir.path());
        // Kill at another step of another wallet in each round.
        let number = 1 + round / 4;
        let file = |name: String| wallets.path().join(name).exists();
        wait_for("the helper is at the step", || {
            let finished = file(format!("w{number}.jmdat"));
            match round % 4 {
                0 => finished || file(format!(".w{number}.jmdat.flock")),
                1 => finished || file(format!(".w{number}.jmdat.tmp")),
                2 => finished,
                _ => made(number).exists(),
            }
        });
        child.kill().expect("own child");
        child.wait().expect("own child");
        let listed = wallets.list();
        // Every wallet that was acknowledged exists with its seed, and every listed one opens.
        for number in 0..100 {
            let Ok(line) = fs::read_to_string(made(number)) else { continue };
            let (file, phrase) = line.trim_end().split_once(' ').expect("name and words");
            let keys = wallets.open(&name(file), &password("pässword ☃")).expect("acknowledged");
            assert_eq!(keys.phrase().expose_secret(), phrase);
        }
        for file in &listed {
            wallets.open(&name(file), &password("pässword ☃")).expect("listed wallets are whole");
        }
    }
}
