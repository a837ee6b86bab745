use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::Config;

fn http(toml: &str) -> Http {
    let options =
        crate::cli::Options { data_dir: Some("/data".into()), ..crate::cli::Options::default() };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let options = crate::cli::Options { config: Some(file.path().to_owned()), ..options };
    Config::load(&options).unwrap().http
}

fn file(directory: &Path, name: &str) -> Vec<u8> {
    std::fs::read(directory.join(name)).unwrap()
}

#[test]
fn first_boot_makes_a_private_pair_for_all_names_of_the_machine() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("ssl");
    let http = http("http.names = [\"Box.example\"]\nhttp.listen = \"192.0.2.77:1\"");
    let made = Certificate::load_or_make(&directory, &http).unwrap();
    assert!(made.fresh);
    for name in ["localhost", "127.0.0.1", "::1", "box.example", "192.0.2.77"] {
        assert!(made.facts.names.iter().any(|have| have == name), "{name}: {:?}", made.facts.names);
    }
    assert_eq!(made.facts.not_before, NOT_BEFORE);
    assert!(made.facts.not_after - OffsetDateTime::now_utc() > Duration::days(10 * 366));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("key.pem")), 0o600);
    assert_eq!(mode(&directory.join("cert.pem")), 0o600);
}

#[test]
fn later_boots_keep_the_pair_to_the_byte() {
    let parent = tempfile::tempdir().unwrap();
    let http = http("");
    let first = Certificate::load_or_make(parent.path(), &http).unwrap();
    let files = (file(parent.path(), "key.pem"), file(parent.path(), "cert.pem"));
    let second =
        Certificate::load_or_make(parent.path(), &self::http("http.names = [\"new\"]")).unwrap();
    assert!(!second.fresh);
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(files, (file(parent.path(), "key.pem"), file(parent.path(), "cert.pem")));
}

#[test]
fn renewing_keeps_the_key_and_takes_new_names() {
    let parent = tempfile::tempdir().unwrap();
    let first = Certificate::load_or_make(parent.path(), &http("")).unwrap();
    let key = file(parent.path(), "key.pem");
    renew(parent.path(), &http("http.names = [\"new.example\"]")).unwrap();
    let second = Certificate::load(parent.path()).unwrap();
    assert_eq!(key, file(parent.path(), "key.pem"));
    assert_ne!(first.fingerprint(), second.fingerprint());
    assert!(second.facts.names.iter().any(|name| name == "new.example"));
}

#[test]
fn power_cut_between_key_and_certificate_is_finished_at_the_next_boot() {
    let parent = tempfile::tempdir().unwrap();
    let http = http("");
    Certificate::load_or_make(parent.path(), &http).unwrap();
    let key = file(parent.path(), "key.pem");
    std::fs::remove_file(parent.path().join("cert.pem")).unwrap();
    assert!(Certificate::load_or_make(parent.path(), &http).unwrap().fresh);
    assert_eq!(key, file(parent.path(), "key.pem"));
}

#[test]
fn certificate_without_its_key_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let http = http("");
    Certificate::load_or_make(parent.path(), &http).unwrap();
    std::fs::remove_file(parent.path().join("key.pem")).unwrap();
    let error = Certificate::load_or_make(parent.path(), &http).unwrap_err();
    assert!(matches!(error, CertificateError::HalfPair { .. }));
    assert!(!parent.path().join("key.pem").exists());
}

#[test]
fn foreign_key_broken_pem_and_empty_file_are_named() {
    let parent = tempfile::tempdir().unwrap();
    let http = http("");
    Certificate::load_or_make(parent.path(), &http).unwrap();
    let good = file(parent.path(), "key.pem");
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(parent.path().join("key.pem"), other).unwrap();
    let error = Certificate::load(parent.path()).unwrap_err();
    assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
    std::fs::write(parent.path().join("key.pem"), "nothing").unwrap();
    let error = Certificate::load(parent.path()).unwrap_err();
    assert!(error.to_string().ends_with("does not hold a private key in PEM form"), "{error}");
    std::fs::write(parent.path().join("key.pem"), good).unwrap();
    std::fs::write(parent.path().join("cert.pem"), "").unwrap();
    let error = Certificate::load(parent.path()).unwrap_err();
    assert!(error.to_string().ends_with("does not hold a certificate in PEM form"), "{error}");
}

/// A pair as packagers of the reference daemon make it, in both forms that openssl writes keys in.
#[test]
fn rsa_pairs_of_packagers_are_served() {
    for key in [
        include_str!("../../tests/fixtures/rsa_pkcs8.pem"),
        include_str!("../../tests/fixtures/rsa_pkcs1.pem"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("key.pem"), key).unwrap();
        let certificate = include_str!("../../tests/fixtures/rsa_cert.pem");
        std::fs::write(parent.path().join("cert.pem"), certificate).unwrap();
        let pair = Certificate::load_or_make(parent.path(), &http("")).unwrap();
        assert_eq!(pair.facts.names, ["localhost", "127.0.0.1"]);
        assert_eq!(pair.facts.not_after - pair.facts.not_before, Duration::days(3650));
        let pkcs8 = key.contains("BEGIN PRIVATE KEY");
        assert_eq!(renew(parent.path(), &http("")).is_ok(), pkcs8);
        Certificate::load(parent.path()).unwrap();
    }
}

#[test]
fn the_last_thirty_days_are_warned_of() {
    let parent = tempfile::tempdir().unwrap();
    let pair = Certificate::load_or_make(parent.path(), &http("")).unwrap();
    let end = pair.facts.not_after;
    assert_eq!(pair.ends_soon(end - Duration::days(31)), None);
    assert_eq!(pair.ends_soon(end - Duration::days(30)), Some(Duration::days(30)));
    assert_eq!(pair.ends_soon(end + Duration::days(1)), Some(Duration::days(-1)));
}

#[test]
fn certificates_made_in_decades_are_valid_for_more_than_ten_years() {
    let key = KeyPair::generate().unwrap();
    let now = datetime!(2058-01-01 00:00 UTC);
    let made = make(&key, vec!["localhost".into()], now).unwrap();
    assert!(Facts::read(made.der()).unwrap().not_after - now > Duration::days(10 * 366));
}
