//! `joineryd wallet export`: a file for other JoinMarket programs, made by hand while no daemon has the wallet.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use support::Home;
use support::client::PASSWORD;
use support::daemon::binary;

const WALLET: &str = "w.jmdat";

/// Runs the command with a text on stdin; gives exit code, stdout and stderr.
fn export(home: &Home, name: &str, file: &Path, stdin: &str) -> (Option<i32>, String, String) {
    let mut process = binary()
        .arg("--data-dir")
        .arg(home.data())
        .args(["--network=regtest", "wallet", "export", name])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // An error means that it did not wait for a password.
    let _ = process.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = process.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn an_exported_wallet_goes_on_in_another_installation() {
    let home = Home::new();
    let daemon = home.start();
    let mut client = daemon.client();
    let words = client.create(WALLET).await;
    let first = client.address(0).await;
    let body = json!({"address": first, "label": "rent 日本"});
    client.wallet_post("/address/label", body).await.expect(200);
    let file = home.data().join("copy.jmdat");
    let line = format!("{PASSWORD}\n");

    let (code, _, error) = export(&home, WALLET, &file, &line);
    assert_eq!(code, Some(75), "{error}");
    assert!(error.contains("in use"), "{error}");
    daemon.stop();

    let (code, _, error) = export(&home, WALLET, &file, "wrong\n");
    assert_eq!((code, error.as_str()), (Some(77), "joineryd: wrong password\n"));
    let (code, _, _) = export(&home, "../w.jmdat", &file, &line);
    assert_eq!(code, Some(64));
    let (code, _, _) = export(&home, "none.jmdat", &file, &line);
    assert_eq!(code, Some(73));
    assert!(!file.exists());

    let (code, output, error) = export(&home, WALLET, &file, &line);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(output, format!("{}\n", file.display()));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let made = std::fs::read(&file).unwrap();
    assert!(made.starts_with(b"JMENCWLT"));
    // If a file is there nothing is even asked.
    let (code, _, error) = export(&home, WALLET, &file, "");
    assert_eq!(code, Some(73));
    assert!(error.contains("not overwritten"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), made);

    let other = Home::new();
    std::fs::create_dir_all(other.data().join("wallets")).unwrap();
    std::fs::copy(&file, other.data().join("wallets").join(WALLET)).unwrap();
    let daemon = other.start();
    let mut client = daemon.client();
    client.unlock(WALLET).await;
    let seed = client.wallet_get("/getseed").await.expect(200);
    assert_eq!(seed["seedphrase"], json!(words));
    assert_ne!(client.address(0).await, first, "the next index went with it");
    let display = client.wallet_get("/display").await.expect(200);
    // The labelled address has no coin and is not listed; the next ones are.
    let next = &display["walletinfo"]["accounts"][0]["branches"][0]["entries"][0]["hd_path"];
    assert_eq!(next, &json!("m/84'/1'/0'/0/2"));
    daemon.stop();
}
