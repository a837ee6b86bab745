//! Tokens over HTTP: `spec/api.md` 3, 6.2, Appendix D 2, 4, 5, 15; `spec/defects.md` rows 23, 26.

use http::Method;
use serde_json::json;

use crate::rig::{Login, PASSWORD, Rig, WALLET, contract};

const MISSING: &str = "No access token was provided.";
const EXPIRED: &str = "The access token provided is expired.";
const INVALID: &str =
    "The access token provided is revoked, malformed, or invalid for other reasons.";

/// Every documented operation that needs a token, with its path filled in for a wallet.
fn protected(wallet: &str) -> Vec<(Method, String)> {
    let document = contract().document();
    contract()
        .operations()
        .into_iter()
        .filter(|(method, path)| {
            let security = &document["paths"][path][method.to_lowercase()]["security"];
            security.as_array().unwrap().iter().any(|entry| entry.get("bearer").is_some())
                && !security.as_array().unwrap().contains(&json!({}))
        })
        .map(|(method, path)| {
            let path = path
                .replace("{walletname}", wallet)
                .replace("{mixdepth}", "0")
                .replace("{lockdate}", "2030-01")
                .replace("{blockheight}", "0");
            (method.parse().unwrap(), path)
        })
        .collect()
}

fn challenge(text: &str) -> String {
    format!("Bearer, error=\"invalid_token\", error_description=\"{text}\"")
}

#[tokio::test]
async fn authz_matrix() {
    let rig = Rig::new();
    let login = rig.create().await;
    let calls = protected(WALLET);
    assert!(calls.len() > 30, "{calls:?}");
    let hostile = [
        (None, MISSING),
        (Some("Bearer "), MISSING),
        (Some("Bearer"), MISSING),
        (Some("Basic dTpw"), MISSING),
        (Some("Bearer x"), INVALID),
        (Some("Bearer eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.eyJzY29wZSI6IndhbGxldHJwYyJ9."), INVALID),
    ];
    let refresh = format!("Bearer {}", login.refresh);
    let long = format!("Bearer {}", "a".repeat(8192));
    for (method, path) in calls {
        let more = [(Some(&*long), INVALID)];
        // `POST /token` takes a refresh token on purpose (a phone app sends it there).
        let swapped = (path != "/api/v1/token").then_some((Some(&*refresh), INVALID));
        for (value, text) in hostile.iter().copied().chain(more).chain(swapped) {
            for name in ["authorization", "x-jm-authorization"] {
                let mut call = rig.request(method.clone(), &path);
                if let Some(value) = value {
                    call = call.header(name, value);
                }
                let reply = call.send().await;
                reply.expect_error(401, text);
                assert_eq!(reply.challenge(), Some(&*challenge(text)), "{method} {path}");
            }
        }
        // Another wallet's name with our token is nobody's business, and no data of ours.
        if let Some(rest) = path.strip_prefix(&format!("/api/v1/wallet/{WALLET}")) {
            let other = format!("/api/v1/wallet/other.jmdat{rest}");
            let reply =
                rig.request(method.clone(), other).token(&login.access).raw("{}").send().await;
            reply.expect_error(400, "Invalid request format.");
        }
    }
    // Nothing of that did anything.
    assert_eq!(rig.session(&login).await["wallet_name"], WALLET);
}

#[tokio::test]
async fn tokens_of_one_wallet_are_nothing_to_the_next() {
    let rig = Rig::new();
    let first = rig.create().await;
    rig.wallet_get(&first, "/lock").await.expect(200);
    let body = json!({"walletname": "second.jmdat", "password": PASSWORD});
    let second = rig.post("/api/v1/wallet/create", &body).send().await;
    second.expect(201);
    for (method, path) in protected("second.jmdat").into_iter().chain(protected(WALLET)) {
        let reply = rig.request(method, path).token(&first.access).raw("{}").send().await;
        reply.expect_error(401, INVALID);
    }
    rig.get("/api/v1/session").token(&first.access).send().await.expect(401);
}

#[tokio::test]
async fn an_expired_token_says_so() {
    let rig = Rig::new();
    let login = rig.create().await;
    rig.clock.advance(1809);
    rig.get("/api/v1/session").token(&login.access).send().await.expect(200);
    rig.clock.advance(1);
    for path in ["/api/v1/session", "/api/v1/wallet/test.jmdat/display"] {
        let reply = rig.get(path).token(&login.access).send().await;
        reply.expect_error(401, EXPIRED);
        assert_eq!(reply.challenge(), Some(&*challenge(EXPIRED)));
    }
    // Without a token `/session` answers anybody.
    rig.get("/api/v1/session").send().await.expect(200);
    // And the expired token still serves to get a new one.
    let reply = refresh(&rig, &login.access, &login.refresh).await;
    reply.expect(200);
    rig.session(&Login::of(&reply.json())).await;
}

async fn refresh(rig: &Rig, access: &str, token: &str) -> crate::rig::Reply {
    let body = json!({"grant_type": "refresh_token", "refresh_token": token});
    rig.post("/api/v1/token", &body).token(access).send().await
}

#[tokio::test]
async fn refreshing_gives_a_pair_and_leaves_access_tokens_alone() {
    let rig = Rig::new();
    let login = rig.create().await;
    let reply = refresh(&rig, &login.access, &login.refresh).await;
    reply.expect(200);
    let body = reply.json();
    assert_eq!(body["walletname"], WALLET);
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(body["expires_in"], 1800);
    assert_eq!(body["scope"], "walletrpc dGVzdC5qbWRhdA==");
    assert!(body.get("seedphrase").is_none());
    rig.session(&login).await;
    rig.clock.advance(121);
    let replay = refresh(&rig, &login.access, &login.refresh).await;
    replay.expect_error(400, "invalid_grant");
    assert_eq!(
        replay.json()["error_description"],
        "The provided refresh_token is invalid, revoked, or was issued to another client."
    );
}

#[tokio::test]
async fn refresh_errors_have_their_codes() {
    let rig = Rig::new();
    let login = rig.create().await;
    let cases = [
        ("", "invalid_request"),
        ("{}", "invalid_request"),
        ("[]", "invalid_request"),
        (r#"{"grant_type":"refresh_token"}"#, "invalid_request"),
        (r#"{"grant_type":"refresh_token","refresh_token":5}"#, "invalid_request"),
        (r#"{"grant_type":"password","refresh_token":"x"}"#, "unsupported_grant_type"),
        (r#"{"grant_type":"refresh_token","refresh_token":"x"}"#, "invalid_grant"),
    ];
    for (body, code) in cases {
        let call = rig.request(Method::POST, "/api/v1/token").token(&login.access);
        call.raw(body).send().await.expect_error(400, code);
    }
    // The header's token comes first.
    let body = json!({"grant_type": "refresh_token", "refresh_token": login.refresh});
    rig.post("/api/v1/token", &body).send().await.expect_error(401, MISSING);
    rig.post("/api/v1/token", &body).token("x").send().await.expect_error(401, INVALID);
    // An access token is no refresh token.
    refresh(&rig, &login.access, &login.access).await.expect_error(400, "invalid_grant");
    rig.clock.advance(14_410);
    let late = refresh(&rig, &login.access, &login.refresh).await;
    late.expect_error(400, "invalid_grant");
    assert_eq!(late.json()["error_description"], "The provided refresh_token is expired.");
}

#[tokio::test]
async fn a_refresh_token_in_the_header_is_enough() {
    let rig = Rig::new();
    let login = rig.create().await;
    let call = rig.request(Method::POST, "/api/v1/token");
    let reply = call.header("authorization", &format!("Bearer {}", login.refresh)).send().await;
    reply.expect(200);
    let second = Login::of(&reply.json());
    let body = json!({"grant_type": "refresh_token", "refresh_token": second.refresh});
    rig.post("/api/v1/token", &body).token(&second.refresh).send().await.expect(200);
    // A different one in the body is no such request.
    let body = json!({"grant_type": "refresh_token", "refresh_token": "x"});
    rig.post("/api/v1/token", &body).token(&second.refresh).send().await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_refresh_ok() {
    let rig = std::sync::Arc::new(Rig::new());
    let login = rig.create().await;
    let tabs: Vec<_> = (0..8)
        .map(|_| {
            let (rig, login) = (rig.clone(), login.clone());
            tokio::spawn(async move {
                let reply = refresh(&rig, &login.access, &login.refresh).await;
                reply.expect(200);
                Login::of(&reply.json())
            })
        })
        .collect();
    let mut logins = Vec::new();
    for tab in tabs {
        logins.push(tab.await.unwrap());
    }
    // Long after the race every tab is still logged in and can refresh again.
    rig.clock.advance(1500);
    for login in &logins {
        rig.session(login).await;
        refresh(&rig, &login.access, &login.refresh).await.expect(200);
    }
}

#[tokio::test]
async fn a_second_login_leaves_the_first_client_logged_in() {
    let rig = Rig::new();
    let first = rig.create().await;
    let reply = rig.unlock(WALLET, PASSWORD).await;
    reply.expect(200);
    assert!(reply.json().get("seedphrase").is_none());
    let second = Login::of(&reply.json());
    rig.session(&second).await;
    rig.session(&first).await;
    rig.clock.advance(1000);
    refresh(&rig, &first.access, &first.refresh).await.expect(200);
    refresh(&rig, &second.access, &second.refresh).await.expect(200);
    // Logging out is for one client, and the wallet stays.
    rig.post("/api/v1/logout", &json!({})).token(&second.access).send().await.expect(200);
    rig.get("/api/v1/session").token(&second.access).send().await.expect(401);
    assert_eq!(rig.session(&first).await["wallet_name"], WALLET);
}

#[tokio::test]
async fn the_token_is_found_beside_a_proxys_login() {
    let rig = Rig::new();
    let login = rig.create().await;
    let bearer = format!("Bearer {}", login.access);
    let both = rig.get("/api/v1/wallet/test.jmdat/utxos");
    let both = both.header("authorization", "Basic dTpw").header("x-jm-authorization", &bearer);
    both.send().await.expect(200);
    let swapped = rig.get("/api/v1/wallet/test.jmdat/utxos");
    let swapped = swapped.header("authorization", &bearer).header("x-jm-authorization", "Bearer x");
    swapped.send().await.expect(401);
}

#[tokio::test]
async fn unauthenticated_calls_tell_nothing_of_the_wallet() {
    let rig = Rig::new();
    let login = rig.create().await;
    let session = rig.get("/api/v1/session").send().await.json();
    assert_eq!(session["session"], true);
    for key in ["schedule", "offer_list", "nickname", "block_height"] {
        assert!(session[key].is_null(), "{key}");
    }
    for path in ["/api/v1/session", "/api/v1/getinfo", "/api/v1/health", "/api/v1/wallet/all"] {
        let reply = rig.get(path).send().await;
        let text = String::from_utf8(reply.body).unwrap();
        assert!(!text.contains(&login.access) && !text.contains("bcrt1"), "{path}: {text}");
    }
}
