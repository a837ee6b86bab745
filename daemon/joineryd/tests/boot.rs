//! First boot, the certificate's life, configurations that are refused, and what others may see of the process.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::json;
use support::client::PASSWORD;
use support::daemon::binary;
use support::{Home, PATIENCE, Socket, until};

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Every file and directory below, with its mode.
fn modes(directory: &Path, out: &mut Vec<(String, u32)>) {
    for entry in directory.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let mode = path.symlink_metadata().unwrap().permissions().mode() & 0o777;
        out.push((path.display().to_string(), mode));
        if path.is_dir() {
            modes(&path, out);
        }
    }
}

#[tokio::test]
async fn nothing_is_readable_for_others() {
    // Also with the mask that lets everything through.
    rustix::process::umask(rustix::fs::Mode::empty());
    let home = Home::new();
    std::fs::remove_file(home.data().join("joineryd.toml")).unwrap();
    let daemon = home.start();
    let mut client = daemon.client();
    client.create("w.jmdat").await;
    client.address(0).await;
    let mut found =
        vec![(String::from("data"), home.data().metadata().unwrap().permissions().mode() & 0o777)];
    modes(&home.data(), &mut found);
    let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(open.is_empty(), "{open:?}");
    for expected in
        ["ssl/key.pem", "ssl/cert.pem", "wallets/w.jmdat", "settings.json", "listening.json"]
    {
        assert!(found.iter().any(|(path, _)| path.ends_with(expected)), "{expected}: {found:?}");
    }
}

#[tokio::test]
async fn certificate_is_made_once_shown_and_renewed_on_request_only() {
    let home = Home::new();
    let daemon = home.start();
    let first = daemon.listening.fingerprint.clone().unwrap();
    assert!(home.log_text().contains(&first), "the fingerprint is logged");
    daemon.client().get("/session").await.expect(200);
    daemon.stop();
    let again = home.start();
    assert_eq!(again.listening.fingerprint.as_ref(), Some(&first));
    again.stop();

    let (code, shown, _) = text(&home.command(&["certificate", "show"]));
    assert_eq!(code, Some(0));
    for expected in [&first, "localhost", "127.0.0.1", "::1", "2020-01-01", "2060-01-01"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let key = std::fs::read(home.data().join("ssl/key.pem")).unwrap();
    let (code, renewed, _) = text(&home.command(&["certificate", "renew"]));
    assert_eq!(code, Some(0));
    assert!(!renewed.contains(&first), "{renewed}");
    assert_eq!(std::fs::read(home.data().join("ssl/key.pem")).unwrap(), key);
    let daemon = home.start();
    assert_ne!(daemon.listening.fingerprint.as_ref(), Some(&first));
    daemon.client().get("/session").await.expect(200);
}

#[tokio::test]
async fn certificate_that_ends_soon_is_warned_of_in_log_and_session() {
    let home = Home::new();
    let ssl = home.data().join("ssl");
    std::fs::create_dir_all(&ssl).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(300);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(10);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(ssl.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(ssl.join("cert.pem"), certificate.pem()).unwrap();
    let daemon = home.start();
    let session = daemon.client().get("/session").await.expect(200);
    let warnings = session["warnings"].as_array().unwrap();
    assert!(warnings.contains(&json!("certificate_expires")), "{session}");
    until("the log warns", || async {
        home.log_text().contains("joineryd certificate renew").then_some(())
    })
    .await;
    assert_eq!(std::fs::read_to_string(ssl.join("cert.pem")).unwrap(), certificate.pem());
    let (_, shown, _) = text(&home.command(&["certificate", "show"]));
    assert!(shown.contains("It ends in 9 days."), "{shown}");
}

#[tokio::test]
async fn fee_limits_are_drawn_once_per_installation() {
    let mut seen = Vec::new();
    let home = Home::new();
    for start in 0..2 {
        let daemon = home.start();
        let mut client = daemon.client();
        if start == 0 {
            client.create("w.jmdat").await;
        } else {
            client.unlock("w.jmdat").await
        }
        let mut limits = Vec::new();
        for field in ["max_cj_fee_abs", "max_cj_fee_rel"] {
            let asked = json!({"section": "POLICY", "field": field});
            let answer = client.wallet_post("/configget", asked).await.expect(200);
            limits.push(answer["configvalue"].as_str().unwrap().to_owned());
        }
        let absolute: u32 = limits[0].parse().unwrap();
        assert!((5000..=10_000).contains(&absolute), "{absolute}");
        assert!(["0.0001", "0.0002", "0.0003"].contains(&&*limits[1]), "{limits:?}");
        seen.push(limits);
        daemon.stop();
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn runs_without_a_server_and_says_so() {
    let home = Home::new();
    let daemon = home.start();
    assert!(home.log_text().contains("no Electrum server is configured"));
    let mut client = daemon.client();
    let session = client.get("/session").await.expect(200);
    assert!(session["warnings"].as_array().unwrap().contains(&json!("backend_not_configured")));
    client.create("w.jmdat").await;
    let address = client.address(0).await;
    let answer = client.send(0, 100_000, &address).await;
    assert!(matches!(answer.status.as_u16(), 409 | 503), "{answer:?}");
    assert!(answer.body["message"].is_string());
}

#[test]
fn bad_configuration_gets_one_sentence_and_its_own_exit_code() {
    let home = Home::new();
    for (toml, expected) in [
        ("listen = 1\n", "line 1: unknown field `listen`"),
        ("network = \"dogecoin\"\n", "network (--network) is \"dogecoin\""),
        ("[http]\nlisten = \"everywhere\"\n", "http.listen (--listen) is \"everywhere\""),
        ("[electrum]\nurl = \"tcp://8.8.8.8:50001\"\n", "--allow-public-electrum"),
        ("[http\n", "line 1"),
    ] {
        home.write_config(toml);
        // The flags of this home would win over two of these keys.
        for command in [None, Some("check-config")] {
            let output =
                binary().arg("--data-dir").arg(home.data()).args(command).output().unwrap();
            let (code, out, err) = text(&output);
            assert_eq!((code, &*out), (Some(78), ""), "{err}");
            assert!(err.starts_with("joineryd: ") && err.contains(expected), "{err}");
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    }
    home.write_config("network = \"signet\"\n");
    assert_eq!(text(&home.command(&["check-config"])), (Some(0), "ok\n".into(), String::new()));
    let missing = home.command(&["--config=/nowhere.toml", "check-config"]);
    assert_eq!(missing.status.code(), Some(78));
}

#[test]
fn command_lines_that_make_no_sense_are_usage_errors() {
    for arguments in [&["--listne=1"][..], &["certificate"], &["directory"], &["--password=x"]] {
        let (code, _, err) = text(&binary().args(arguments).output().unwrap());
        assert_eq!(code, Some(64), "{arguments:?}: {err}");
    }
    let (code, out, _) = text(&binary().arg("version").output().unwrap());
    assert_eq!((code, out), (Some(0), format!("joineryd {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = text(&binary().arg("--help").output().unwrap());
    assert_eq!(code, Some(0));
    assert!(out.contains("JOINERY_ELECTRUM"));
}

#[test]
fn variables_win_over_the_file_and_flags_over_variables() {
    let home = Home::new();
    home.write_config("network = \"signet\"\n");
    let run = |flags: &[&str]| {
        let mut command = binary();
        command.arg("--data-dir").arg(home.data()).args(flags).arg("check-config");
        text(&command.env("JOINERY_NETWORK", "dogecoin").output().unwrap())
    };
    assert_eq!(run(&[]).0, Some(78));
    assert_eq!(run(&["--network=regtest"]).0, Some(0));
}

#[tokio::test]
async fn one_daemon_per_data_directory_and_none_on_a_taken_port() {
    let home = Home::new();
    let daemon = home.start();
    let (code, _, err) = text(&home.command(&[]));
    assert_eq!(code, Some(75), "{err}");
    assert!(err.contains("another joineryd uses data directory"), "{err}");

    let other = Home::new();
    let taken = format!("--listen={}", daemon.rpc_address());
    let mut command = binary();
    command.arg("--data-dir").arg(other.data()).args(["--network=regtest", &taken]);
    let (code, _, err) = text(&command.output().unwrap());
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains(&format!("cannot listen on {}", daemon.rpc_address())), "{err}");
    daemon.client().get("/session").await.expect(200);
}

#[tokio::test]
async fn file_of_a_killed_daemon_does_not_keep_the_next_one_out() {
    let home = Home::new();
    let daemon = home.start();
    daemon.client().create("w.jmdat").await;
    daemon.kill();
    let again = home.start();
    again.client().unlock("w.jmdat").await;
}

/// Defects row 43.
#[tokio::test]
async fn core_dumps_are_off() {
    let home = Home::new();
    let daemon = home.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(
        core.split_ascii_whitespace().skip(4).collect::<Vec<_>>()[..2],
        ["0", "0"],
        "{core}"
    );
}

/// Defects row 25: what users type and what clients hold is in no log, even when everything is logged.
#[tokio::test]
async fn no_secrets_in_logs() {
    let home = Home::new();
    home.write_config("[wallet]\nkdf_memory_mib = 19\n[log]\nfilter = \"trace\"\n");
    let daemon = home.start();
    let mut client = daemon.client();
    let words = client.create("w.jmdat").await;
    let mut secrets =
        vec![PASSWORD.to_owned(), words.clone(), client.token.clone(), client.refresh.clone()];
    // Single words of a seed are ordinary English; any four in a row are not.
    let list: Vec<&str> = words.split(' ').collect();
    secrets.extend(list.windows(4).map(|four| four.join(" ")));

    client.wallet_get("/getseed").await.expect(200);
    let wrong = "wrong-password-5d1c";
    secrets.push(wrong.to_owned());
    client.post("/wallet/w.jmdat/unlock", json!({"password": wrong})).await.expect(401);
    let body = json!({"grant_type": "refresh_token", "refresh_token": client.refresh});
    let fresh = client.post("/token", body).await.expect(200);
    client.take_tokens(&fresh);
    secrets.extend([client.token.clone(), client.refresh.clone()]);
    let mut socket = Socket::open(&daemon.listening, "/").await.unwrap();
    socket.say(&client.token).await;
    socket.say("not-a-token-77aa").await;
    secrets.push("not-a-token-77aa".to_owned());
    socket.close_code().await;
    let message = json!({"hd_path": "m/84'/1'/0'/0/0", "message": "hello"});
    client.wallet_post("/signmessage", message).await;
    let page =
        client.request(reqwest::Method::GET, "/jam/api/v0/log/jmwalletd_stdout.log", None).await;
    assert_eq!(page.status, 200);
    client.lock().await;
    let phrase = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    client.recover("r.jmdat", phrase).await;
    secrets.extend(["abandon abandon".to_owned(), client.token.clone(), client.refresh.clone()]);
    // A request that is not even right.
    let odd = json!({"walletname": "x.jmdat", "password": "odd-pw-91ff", "wallettype": "sw-fb", "seedphrase": 7});
    client.post("/wallet/recover", odd).await;
    secrets.push("odd-pw-91ff".to_owned());
    daemon.stop();

    let log = home.log_text();
    assert!(log.contains("DEBUG") || log.contains("TRACE"), "everything is logged: {log}");
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log");
    }
}

#[tokio::test]
async fn log_page_shows_the_log() {
    let home = Home::new();
    let daemon = home.start();
    let mut client = daemon.client();
    let path = "/jam/api/v0/log/jmwalletd_stdout.log";
    assert_eq!(client.request(reqwest::Method::GET, path, None).await.status, 401);
    client.create("w.jmdat").await;
    let page = client.raw_get(path).await;
    assert!(page.0.starts_with("text/plain"), "{}", page.0);
    assert!(page.1.contains("listening"), "{}", page.1);
}

#[tokio::test]
async fn service_manager_hears_ready_alive_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let home = Home::new()
        .variable("NOTIFY_SOCKET", &path.display().to_string())
        .variable("WATCHDOG_USEC", "200000");
    let mut daemon = home.start();
    let expect = |wanted: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length =
                manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                return;
            }
        }
    };
    expect("READY=1");
    expect("WATCHDOG=1");
    expect("WATCHDOG=1");
    daemon.signal(rustix::process::Signal::TERM);
    expect("STOPPING=1");
    assert_eq!(daemon.wait(), Some(0));
}

/// Defects row 37.
#[tokio::test]
async fn no_exit_on_user_error() {
    let home = Home::new();
    let mut daemon = home.start();
    let mut client = daemon.client();
    client.create("w.jmdat").await;
    let start = json!({
        "txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003", "ordertype": "sw0reloffer", "minsize": "100000",
    });
    let answer = client.wallet_post("/maker/start", start).await;
    assert!(matches!(answer.status.as_u16(), 409 | 503), "{answer:?}");
    tokio::time::timeout(Duration::from_secs(60), client.get("/session"))
        .await
        .unwrap()
        .expect(200);
    daemon.require_running();
}
