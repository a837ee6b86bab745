//! The three clients as they call (`spec/api.md` 15, Appendix A).

use http::Method;
use serde_json::{Value, json};

use crate::money::{ELSEWHERE, fund};
use crate::rig::{Login, PASSWORD, Rig, WALLET, WORDS, until};

/// How a client sends its requests.
#[derive(Clone, Copy)]
struct Profile {
    content_type: Option<&'static str>,
    token_header: &'static str,
}

const JAM1: Profile =
    Profile { content_type: Some("text/plain;charset=UTF-8"), token_header: "x-jm-authorization" };
const JAM2: Profile =
    Profile { content_type: Some("application/json"), token_header: "x-jm-authorization" };
const FN: Profile =
    Profile { content_type: Some("application/json"), token_header: "authorization" };
const CURL: Profile = Profile {
    content_type: Some("application/x-www-form-urlencoded"),
    token_header: "authorization",
};
const BARE: Profile = Profile { content_type: None, token_header: "authorization" };

impl Profile {
    async fn call(
        self,
        rig: &Rig,
        login: Option<&Login>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut call = rig.request(method, format!("/api/v1{path}"));
        if let Some(body) = body {
            call = call.raw(body.to_string());
            if let Some(kind) = self.content_type {
                call = call.header("content-type", kind);
            }
        }
        if let Some(login) = login {
            call = call.header(self.token_header, &format!("Bearer {}", login.access));
        }
        let reply = call.send().await;
        // Every answer to these clients is JSON that they parse, never empty.
        (reply.status.as_u16(), reply.json())
    }
}

#[tokio::test]
async fn bodies_are_read_whatever_their_content_type() {
    for profile in [JAM1, JAM2, FN, CURL, BARE] {
        let rig = Rig::new();
        let body = json!({"walletname": WALLET, "password": PASSWORD, "wallettype": "sw-fb"});
        let (status, made) =
            profile.call(&rig, None, Method::POST, "/wallet/create", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        let login = Login::of(&made);
        let path = format!("/wallet/{WALLET}/display");
        let (status, _) = profile.call(&rig, Some(&login), Method::GET, &path, None).await;
        assert_eq!(status, 200);
    }
}

/// Journey A of Appendix A: create, back up, receive, send, coinjoin, earn, bond, lock.
async fn journey_a(profile: Profile) {
    let (rig, chain) = Rig::on_chain();
    let get = |login: Option<&Login>, path: &str| {
        let (rig, login, path) = (&rig, login.cloned(), path.to_owned());
        async move { profile.call(rig, login.as_ref(), Method::GET, &path, None).await }
    };
    let post = |login: Option<&Login>, path: &str, body: Value| {
        let (rig, login, path) = (&rig, login.cloned(), path.to_owned());
        async move { profile.call(rig, login.as_ref(), Method::POST, &path, Some(body)).await }
    };
    let w = |path: &str| format!("/wallet/{WALLET}{path}");

    let (_, info) = get(None, "/getinfo").await;
    let gate: Vec<u32> =
        info["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
    assert!(gate >= vec![0, 9, 11]);
    let (_, session) = get(None, "/session").await;
    assert_eq!(session["wallet_name"], "None");
    assert_eq!(session["rescanning"], false);
    let (_, all) = get(None, "/wallet/all").await;
    assert_eq!(all["wallets"], json!([]));
    let body = json!({"walletname": WALLET, "password": PASSWORD, "wallettype": "sw-fb"});
    let (status, made) = post(None, "/wallet/create", body).await;
    assert_eq!(status, 201);
    let owner = Login::of(&made);
    let login = Some(&owner);
    let (_, session) = get(login, "/session").await;
    assert_eq!(session["wallet_name"], WALLET);
    for key in [
        "session",
        "maker_running",
        "coinjoin_in_process",
        "wallet_name",
        "schedule",
        "offer_list",
        "nickname",
        "rescanning",
        "block_height",
    ] {
        assert!(session.get(key).is_some(), "{key}");
    }
    // Both at once, immediately.
    let (utxos, display) = (w("/utxos"), w("/display"));
    let (utxos, display) = tokio::join!(get(login, &utxos), get(login, &display));
    assert_eq!((utxos.0, display.0), (200, 200));
    let branch = display.1["walletinfo"]["accounts"][0]["branches"][0]["branch"].clone();
    assert_eq!(branch.as_str().unwrap().split('\t').next(), Some("external addresses"));
    let body = json!({"grant_type": "refresh_token", "refresh_token": made["refresh_token"]});
    let (status, _) = post(login, "/token", body).await;
    assert_eq!(status, 200);
    let (_, seed) = get(login, &w("/getseed")).await;
    assert_eq!(seed["seedphrase"], made["seedphrase"]);
    fund(&rig, &chain, &owner, 0, &[3_000_000, 1_000_000]).await;

    // Fee settings: five reads and five writes at once.
    let fields =
        ["tx_fees", "tx_fees_factor", "max_cj_fee_abs", "max_cj_fee_rel", "max_sweep_fee_change"];
    let path = w("/configget");
    let read = |field: &str| post(login, &path, json!({"section": "POLICY", "field": field}));
    let read = tokio::join!(
        read(fields[0]),
        read(fields[1]),
        read(fields[2]),
        read(fields[3]),
        read(fields[4])
    );
    assert_eq!([read.0.0, read.1.0, read.2.0, read.3.0, read.4.0], [200, 200, 409, 409, 200]);
    let path = w("/configset");
    let write = |field: &str, value: &str| {
        post(login, &path, json!({"section": "POLICY", "field": field, "value": value}))
    };
    let written = tokio::join!(
        write(fields[0], "5000"),
        write(fields[1], "0.25"),
        write(fields[2], "9000"),
        write(fields[3], "0.0003"),
        write(fields[4], "0.7")
    );
    for (status, body) in [written.0, written.1, written.2, written.3, written.4] {
        assert_eq!((status, body), (200, json!({})));
    }

    let (status, sent) = post(
        login,
        &w("/taker/direct-send"),
        json!({"mixdepth": 0, "amount_sats": 500_000, "destination": ELSEWHERE, "txfee": 3000}),
    )
    .await;
    assert_eq!(status, 200, "{sent}");
    let outputs = sent["txinfo"]["outputs"].as_array().unwrap();
    assert!(outputs.iter().any(|output| output["address"] == ELSEWHERE));
    let (_, left) = get(login, &w("/utxos")).await;
    for input in sent["txinfo"]["inputs"].as_array().unwrap() {
        let left = left["utxos"].as_array().unwrap();
        assert!(left.iter().all(|coin| coin["utxo"] != input["outpoint"]));
    }

    let coinjoin = json!({"mixdepth": 0, "amount_sats": 0, "destination": ELSEWHERE,
        "counterparties": 8});
    assert_eq!(post(login, &w("/taker/coinjoin"), coinjoin).await.0, 503);
    let maker = json!({"ordertype": "sw0reloffer", "minsize": "100000", "cjfee_a": "0",
        "cjfee_r": "0.0003", "txfee": "0"});
    assert_eq!(post(login, &w("/maker/start"), maker).await.0, 503);
    let report = get(None, "/wallet/yieldgen/report").await;
    assert_eq!(report.0, 404);

    // A bond from one frozen-out jar; the coin is there when its inputs have gone.
    let (_, bond) = get(login, &w("/address/timelock/new/2030-5")).await;
    let (status, sent) = post(
        login,
        &w("/taker/direct-send"),
        json!({"mixdepth": 0, "destination": bond["address"], "amount_sats": 0}),
    )
    .await;
    assert_eq!(status, 200, "{sent}");
    let (_, left) = get(login, &w("/utxos")).await;
    let coin = left["utxos"].as_array().unwrap().iter();
    let coin = coin.clone().find(|coin| coin["address"] == bond["address"]).unwrap();
    assert_eq!(coin["locktime"], "2030-05-01 00:00:00");
    assert_eq!(coin["path"].as_str().unwrap().split(':').count(), 2);
    let flag = json!({"utxo-string": format!("{}:0", sent["txinfo"]["txid"].as_str().unwrap()),
        "freeze": true});
    assert_eq!(post(login, &w("/freeze"), flag).await, (200, json!({})));

    let (status, lock) = get(login, &w("/lock")).await;
    assert_eq!((status, &lock["already_locked"]), (200, &json!(false)));
    assert_eq!(get(login, &w("/lock")).await.0, 401);
    assert_eq!(get(login, "/session").await.0, 401);
    assert_eq!(get(None, "/session").await.1["wallet_name"], "None");
}

#[tokio::test]
async fn jam_1_from_creation_to_lock() {
    journey_a(JAM1).await;
}

#[tokio::test]
async fn jam_2_from_creation_to_lock() {
    journey_a(JAM2).await;
}

#[tokio::test]
async fn the_phone_app_from_creation_to_lock() {
    journey_a(FN).await;
}

/// Journey B: an import with a wide gap, whose setting is put back before the scan.
#[tokio::test]
async fn jam_1_imports_a_wallet() {
    let (rig, _chain) = Rig::on_chain();
    let call = |login: Option<&Login>, method: Method, path: &str, body: Option<Value>| {
        let (rig, login, path) = (&rig, login.cloned(), path.to_owned());
        async move { JAM1.call(rig, login.as_ref(), method, &path, body).await }
    };
    let w = |path: &str| format!("/wallet/{WALLET}{path}");
    let body = json!({"walletname": WALLET, "password": PASSWORD, "seedphrase": WORDS,
        "wallettype": "sw-fb"});
    let (status, made) = call(None, Method::POST, "/wallet/recover", Some(body)).await;
    assert_eq!(status, 201);
    let first = Login::of(&made);
    let gap = |value: &str| json!({"section": "POLICY", "field": "gaplimit", "value": value});
    let key = json!({"section": "POLICY", "field": "gaplimit"});
    let old = call(Some(&first), Method::POST, &w("/configget"), Some(key)).await.1;
    assert_eq!(old["configvalue"], "6");
    call(Some(&first), Method::POST, &w("/configset"), Some(gap("40"))).await;
    assert_eq!(call(Some(&first), Method::GET, &w("/lock"), None).await.0, 200);
    let password = json!({"password": PASSWORD});
    let (status, body) = call(None, Method::POST, &w("/unlock"), Some(password)).await;
    assert_eq!(status, 200);
    let login = Login::of(&body);
    call(Some(&login), Method::POST, &w("/configset"), Some(gap("6"))).await;
    let (status, _) = call(Some(&login), Method::GET, &w("/rescanblockchain/481824"), None).await;
    assert_eq!(status, 200);
    let over = || async {
        call(Some(&login), Method::GET, "/session", None).await.1["rescanning"] == false
    };
    until("the scan is over", over).await;
    // The gap in force at the unlock still holds.
    let display = call(Some(&login), Method::GET, &w("/display"), None).await.1;
    let entries = &display["walletinfo"]["accounts"][4]["branches"][0]["entries"];
    assert_eq!(entries.as_array().unwrap().len(), 40);
    assert_eq!(rig.app.wallet().unwrap().snapshot().gap_limit, 40);
}

#[tokio::test]
async fn the_careful_way_to_change_things_is_post() {
    let rig = Rig::new();
    let login = rig.create().await;
    for (path, status) in [
        ("/address/new/0", 200),
        ("/rescanblockchain/0", 200),
        ("/maker/stop", 401),
        ("/taker/stop", 401),
        ("/lock", 200),
    ] {
        let path = format!("/api/v1/wallet/{WALLET}{path}");
        rig.request(Method::POST, path).token(&login.access).send().await.expect(status);
    }
}
