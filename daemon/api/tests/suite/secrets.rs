//! Nothing secret in the log (`spec/defects.md` row 25).

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::rig::{Login, Rig, WALLET, WORDS};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// In a process of its own: the subscriber is the process's, because wallets log from their threads.
#[test]
fn no_secrets_in_logs() {
    const CHILD: &str = "JOINERY_SECRETS_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "secrets::no_secrets_in_logs", "--nocapture"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_writer(captured.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let secrets = runtime.block_on(flow());
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("answered"), "the log was not captured: {log}");
    // Lines of one request can be told from those of another, also in work that goes on in a task of its own.
    let opened = log.lines().find(|line| line.contains("wallet opened")).unwrap_or_default();
    assert!(opened.contains("request{id="), "{opened}");
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log:\n{log}");
    }
}

/// A whole visit; what must not be in the log.
async fn flow() -> Vec<String> {
    const PASSWORD: &str = "planted-password-1742";
    const NEW: &str = "planted-new-password-1746";
    const WRONG: &str = "planted-wrong-password-1743";
    const EXTENSION: &str = "planted-extension-1744";
    const MESSAGE: &str = "planted-message-1745";
    let (rig, chain) = Rig::on_chain();
    let body = json!({"walletname": WALLET, "password": PASSWORD, "seedphrase": WORDS,
        "mnemonic_extension": EXTENSION});
    let bad = json!({"walletname": WALLET, "password": PASSWORD,
        "seedphrase": WORDS.replace("about", "planted")});
    rig.post("/api/v1/wallet/recover", &bad).send().await.expect(400);
    let made = rig.post("/api/v1/wallet/recover", &body).send().await;
    made.expect(201);
    let first = Login::of(&made.json());
    crate::money::fund(&rig, &chain, &first, 0, &[1_000_000]).await;
    let send = json!({"mixdepth": 0, "amount_sats": 100_000,
        "destination": crate::money::ELSEWHERE});
    rig.wallet_post(&first, "/taker/direct-send", &send).await.expect(200);
    let sign = json!({"hd_path": "m/84'/1'/0'/0/0", "message": MESSAGE});
    rig.wallet_post(&first, "/signmessage", &sign).await.expect(200);
    rig.wallet_get(&first, "/getseed").await.expect(200);
    rig.wallet_get(&first, "/display").await.expect(200);
    let body = json!({"grant_type": "refresh_token", "refresh_token": first.refresh});
    let refreshed = rig.post("/api/v1/token", &body).token(&first.access).send().await;
    let second = Login::of(&refreshed.json());
    rig.unlock(WALLET, WRONG).await.expect(401);
    rig.wallet_get(&second, "/lock").await.expect(200);
    let third = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    let change = json!({"password": PASSWORD, "new_password": NEW});
    let third = Login::of(&rig.wallet_post(&third, "/change-password", &change).await.json());
    rig.session(&third).await;
    rig.get("/api/v1/session").token(&first.access).send().await.expect(401);
    rig.app.shutdown().await;
    let mut secrets: Vec<String> =
        [PASSWORD, NEW, WRONG, EXTENSION, MESSAGE, "abandon", "planted"].map(String::from).into();
    for login in [first, second, third] {
        // The claims are enough to recognise a token by.
        for token in [login.access, login.refresh] {
            secrets.extend(token.split('.').skip(1).map(ToOwned::to_owned));
        }
    }
    secrets
}
