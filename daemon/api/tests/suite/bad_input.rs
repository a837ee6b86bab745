//! Whatever comes in, the answer is one of the document's and never a 500 (`spec/defects.md` 3).

use std::sync::Arc;

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::rig::{Login, Rig, WALLET, contract};

/// Every operation with a wallet path, a sample of each parameter.
fn operations(parameter: &str) -> Vec<(Method, String)> {
    contract()
        .operations()
        .into_iter()
        .map(|(method, path)| {
            let path = path.replace("{walletname}", WALLET);
            let filled: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { parameter } else { part })
                .collect::<Vec<_>>()
                .join("/");
            (method.parse().unwrap(), filled)
        })
        // These would end what the others need.
        .filter(|(_, path)| !path.ends_with("/lock") && !path.ends_with("/logout"))
        .collect()
}

fn posts() -> Vec<String> {
    let list = operations("0").into_iter();
    list.filter(|(method, _)| *method == Method::POST).map(|(_, path)| path).collect()
}

#[tokio::test]
async fn bodies_that_are_no_object_are_refused_everywhere() {
    let rig = Rig::new();
    let login = rig.create().await;
    let deep = ["{\"a\":", &"[".repeat(30_000), &"]".repeat(30_000), "}"].concat();
    let utf16: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"nonsense".to_vec(),
        b"null".to_vec(),
        b"5".to_vec(),
        b"\"text\"".to_vec(),
        b"{".to_vec(),
        b"{\"a\":1,\"a\":2}".to_vec(),
        b"{\"a\":NaN}".to_vec(),
        b"{\"a\":Infinity}".to_vec(),
        b"{\"a\":1e400}".to_vec(),
        b"{\"a\":\"\xff\xfe\"}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        utf16,
        deep.into_bytes(),
    ];
    let document = contract().document();
    for (method, path) in operations("0").into_iter().filter(|(method, _)| *method == Method::POST)
    {
        let template = path.replace(WALLET, "{walletname}");
        // A bundle is no JSON.
        let body = &document["paths"][&template]["post"]["requestBody"];
        if !body["content"]["application/json"].is_object() {
            continue;
        }
        for body in &bodies {
            let call = rig.request(method.clone(), &path).token(&login.access);
            let reply = call.raw(body.clone()).send().await;
            let expected = match &*path {
                "/api/v1/token" => "invalid_request",
                "/api/v1/wallet/create" | "/api/v1/wallet/recover" => "Wallet already unlocked.",
                _ => "Invalid request format.",
            };
            assert_eq!(reply.message(), expected, "{path} {:?}", String::from_utf8_lossy(body));
        }
        let huge = vec![b' '; 1 << 20];
        let reply = rig.request(method, &path).token(&login.access).raw(huge).send().await;
        if !path.ends_with("/create") && !path.ends_with("/recover") {
            reply.expect_error(413, "Request body too large.");
        }
    }
    // The deepest one, without any token.
    let deepest = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    assert!(deepest.len() > joinery_api::MAX_BODY);
    let path = format!("/api/v1/wallet/{WALLET}/unlock");
    let within = ["{\"password\":", &"[".repeat(32_000), &"]".repeat(32_000), "}"].concat();
    rig.request(Method::POST, &path).raw(within).send().await.expect(400);
    rig.request(Method::POST, &path).raw(deepest).send().await.expect(413);
}

#[tokio::test]
async fn a_full_megabyte_at_the_limit_is_measured_exactly() {
    let rig = Rig::new();
    let path = "/api/v1/wallet/none.jmdat/unlock";
    let padded = |length: usize| {
        let mut body = br#"{"password":"x"}"#.to_vec();
        body.resize(length, b' ');
        body
    };
    let fits = rig.request(Method::POST, path).raw(padded(joinery_api::MAX_BODY)).send().await;
    fits.expect(404);
    let over = rig.request(Method::POST, path).raw(padded(joinery_api::MAX_BODY + 1)).send().await;
    over.expect(413);
}

/// A value of any JSON type, with a liking for what parsers get wrong.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[-+]?[0-9]{0,22}(\\.[0-9]{0,4})?(e[0-9]{1,3})?".prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        prop::sample::select(vec![
            "INTERNAL",
            "BURN",
            "POLICY",
            "gaplimit",
            "tx_fees",
            "sw-fb",
            "sw",
            "sw-legacy",
            "refresh_token",
            "sw0reloffer",
            "sw0absoffer",
            "0",
            "5",
            "-1",
            "9223372036854775808",
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
            "m/84'/1'/0'/0/0",
            "m/84'/1'/0'/2/5",
            "0000000000000000000000000000000000000000000000000000000000000000:0",
            "\u{0}",
            "../x",
        ])
        .prop_map(Value::from),
        Just(json!([])),
        Just(json!([[], {}])),
        Just(json!({"a": {"b": null}})),
    ]
}

/// A body made of the keys that the calls look for.
fn body() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "mixdepth",
        "amount_sats",
        "destination",
        "txfee",
        "input_utxos",
        "counterparties",
        "utxo-string",
        "freeze",
        "section",
        "field",
        "value",
        "hd_path",
        "message",
        "address",
        "label",
        "password",
        "walletname",
        "wallettype",
        "seedphrase",
        "scan_range",
        "mnemonic_extension",
        "grant_type",
        "cjfee_a",
        "cjfee_r",
        "ordertype",
        "minsize",
        "destination_addresses",
        "tumbler_options",
        "destinations",
        "parameters",
        "force",
        "utxos",
    ]);
    prop::collection::btree_map(key, value(), 0..6)
        .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
}

/// One API for many cases: wallets are slow to make.
struct Shared {
    runtime: tokio::runtime::Runtime,
    rig: Arc<Rig>,
    login: Login,
}

impl Shared {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (rig, login) = runtime.block_on(async {
            let (rig, _chain) = Rig::on_chain();
            let login = rig.create().await;
            (rig, login)
        });
        Self { runtime, rig: Arc::new(rig), login }
    }
}

/// Fixed number of cases for a loaded machine; `PROPTEST_CASES` overrides it.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn no_body_gives_a_500() {
    let shared = Shared::new();
    let paths = posts();
    let strategy = (prop::sample::select(paths), body(), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::new(config());
    let outcome = runner.run(&strategy, |(path, body, with_token)| {
        shared.runtime.block_on(async {
            let mut call = shared.rig.post(path, &body);
            if with_token {
                call = call.token(&shared.login.access);
            }
            // Checks status, headers and body.
            call.send().await;
        });
        Ok(())
    });
    outcome.unwrap();
    shared.runtime.block_on(shared.rig.session(&shared.login));
}

#[test]
fn no_bytes_give_a_500() {
    let shared = Shared::new();
    let strategy = (prop::sample::select(posts()), prop::collection::vec(any::<u8>(), 0..200));
    let mut runner = proptest::test_runner::TestRunner::new(config());
    let outcome = runner.run(&strategy, |(path, bytes)| {
        shared.runtime.block_on(async {
            let call = shared.rig.request(Method::POST, path);
            call.token(&shared.login.access).raw(bytes).send().await;
        });
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn no_path_gives_a_500() {
    let shared = Shared::new();
    let segment = prop_oneof![
        "[0-9]{1,25}",
        "[0-9]{4}-[0-9]{1,2}",
        "[A-Za-z0-9._~-]{1,12}",
        "(%[0-9A-F]{2}){1,6}",
        Just("..".to_owned()),
        Just("%2e%2e".to_owned()),
        Just("%00".to_owned()),
        Just("%FF%FE".to_owned()),
        Just("%2F".to_owned()),
    ];
    let templates: Vec<(String, String)> = contract().operations();
    let strategy = (prop::sample::select(templates), segment.clone(), segment, any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::new(config());
    let outcome = runner.run(&strategy, |((method, template), name, parameter, own)| {
        let method: Method = method.parse().unwrap();
        let name = if own { WALLET.to_owned() } else { name };
        let filled: Vec<&str> = template
            .split('/')
            .map(|part| match part {
                "{walletname}" => name.as_str(),
                part if part.starts_with('{') => parameter.as_str(),
                part => part,
            })
            .collect();
        let path = filled.join("/");
        if path.ends_with("/lock") || path.ends_with("/logout") {
            return Ok(());
        }
        shared.runtime.block_on(async {
            let call = shared.rig.request(method, path).token(&shared.login.access);
            call.raw("{}").send().await;
        });
        Ok(())
    });
    outcome.unwrap();
}
