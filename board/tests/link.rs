//! The format of `docs/board-link.md`: the samples are read, everything that breaks a bound is refused, no bytes
//! make the parser panic.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::path::Path;

use joinery_board::link::{Amount, Ask, Fee, Lines, LinkError, MAX_LINE, Status, Warning, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

fn samples() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/link");
    let mut samples: Vec<_> = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    samples.sort();
    assert!(samples.len() >= 16);
    samples
}

fn sample(name: &str) -> Value {
    let (_, text) = samples()
        .into_iter()
        .find(|(path, _)| path.ends_with(&format!("/{name}.json")))
        .unwrap_or_else(|| panic!("no sample {name}"));
    serde_json::from_str(&text).unwrap()
}

fn read(value: &Value) -> Result<Option<Status>, LinkError> {
    parse(value.to_string().as_bytes())
}

#[test]
fn every_sample_is_read_and_is_one_line() {
    for (name, text) in samples() {
        assert_eq!(text.trim_end().lines().count(), 1, "{name}");
        let status =
            parse(text.trim_end().as_bytes()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(status.is_some(), "{name}");
    }
}

#[test]
fn unknown_fields_and_types_are_for_later_versions() {
    let mut value = sample("send");
    value["new"] = json!({"deep": [1, 2]});
    value["pending"]["new"] = json!(1);
    assert_eq!(read(&value).unwrap(), read(&sample("send")).unwrap());
    assert!(read(&json!({"v": 1, "type": "news"})).unwrap().is_none());
}

#[test]
fn another_version_is_told_apart() {
    let mut value = sample("idle");
    value["v"] = json!(2);
    assert!(matches!(read(&value), Err(LinkError::Version { found: 2 })));
}

#[test]
fn requests_are_read_in_full() {
    let pending = |name: &str| read(&sample(name)).unwrap().unwrap().pending.unwrap();
    let Ask::Send(payment) = pending("send").ask else { panic!() };
    assert!(matches!(payment.amount, Amount::Exact(sats) if sats.to_sat() == 25_000_000));
    assert!(matches!(payment.fee, Fee::Exact(sats) if sats.to_sat() == 1240));
    assert_eq!(payment.destination.as_str(), "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
    let Ask::Send(payment) = pending("coinjoin").ask else { panic!() };
    assert!(matches!(payment.amount, Amount::Sweep(Some(_))));
    assert!(matches!(payment.fee, Fee::AtMost(sats) if sats.to_sat() == 61_728));
    assert_eq!((payment.makers, payment.jar, payment.own), (Some(9), Some(2), true));
    assert!(matches!(pending("unknown_request").ask, Ask::Unknown { text: Some(_) }));
    assert_eq!(pending("resume").expires_s, None);
}

#[test]
fn a_status_with_a_wrong_field_is_no_status() {
    let wrong: &[(&str, &str, Value)] = &[
        ("idle", "/locked", json!("yes")),
        ("idle", "/coinjoin_state", json!(3)),
        ("idle", "/coinjoin_state", json!(-1)),
        ("idle", "/sync", json!(101)),
        ("idle", "/backend", json!("fine")),
        ("idle", "/height", json!(-1)),
        ("idle", "/fingerprint", json!("12:34")),
        ("idle", "/wallet", json!("x".repeat(256))),
        ("locked", "/pairing", json!("x".repeat(1025))),
        ("transaction", "/transaction/txid", json!("4a5e")),
        ("transaction", "/transaction/direction", json!("up")),
        ("warnings", "/warnings", json!(vec![json!({"kind": "clock"}); 17])),
        ("taker", "/round/deadline_s", json!(86_401)),
        ("maker", "/maker/earned_today_sat", json!(-2_100_000_000_000_001_i64)),
        ("warnings", "/warnings/1/percent", json!(101)),
        ("warnings", "/warnings/0", json!({"kind": "new"})),
        ("warnings", "/warnings/0", json!({"kind": "hot"})),
        ("unlock", "/pending/id", json!("")),
        ("unlock", "/pending/id", json!("x".repeat(65))),
        ("unlock", "/pending/id", json!("a b")),
        ("unlock", "/pending/text", Value::Null),
        ("unlock", "/pending/text", json!("\u{200b}")),
        ("unlock", "/pending/expires_s", json!(3601)),
        ("send", "/pending/amount_sat", Value::Null),
        ("send", "/pending/amount_sat", json!(2_100_000_000_000_001_u64)),
        ("send", "/pending/amount_sat", json!(0)),
        ("send", "/pending/amount_sat", json!(0.5)),
        ("send", "/pending/amount_sat", json!("25000000")),
        ("send", "/pending/fee_sat", Value::Null),
        ("send", "/pending/destination", Value::Null),
        ("send", "/pending/destination", json!("bc1q")),
        ("send", "/pending/destination", json!("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3té")),
        ("send", "/pending/destination", json!("b".repeat(91))),
        ("coinjoin", "/pending/fee_max_sat", Value::Null),
    ];
    for (name, at, value) in wrong {
        let mut status = sample(name);
        *status.pointer_mut(at).unwrap() = value.clone();
        assert!(matches!(read(&status), Err(LinkError::Malformed(_))), "{name} {at} {value}");
    }
    let mut both = sample("send");
    both["pending"]["fee_max_sat"] = json!(1);
    assert!(read(&both).is_err(), "two fees");
    for missing in ["locked", "coinjoin_state", "v", "type"] {
        let mut status = sample("minimal");
        status.as_object_mut().unwrap().remove(missing);
        assert!(read(&status).is_err(), "{missing}");
    }
}

#[test]
fn a_field_that_comes_twice_is_refused() {
    // Which of the two would be shown, and which one paid?
    let text =
        sample("send").to_string().replace("\"amount_sat\"", "\"amount_sat\":1,\"amount_sat\"");
    assert!(matches!(parse(text.as_bytes()), Err(LinkError::Malformed(_))));
}

#[test]
fn the_longest_status_fits_into_a_line() {
    let wide = |count: usize| json!("\u{1f4b0}".repeat(count));
    let mut status = sample("coinjoin");
    for (field, count) in [
        ("version", 32),
        ("starting", 64),
        ("wallet", 255),
        ("phase", 16),
        ("hostname", 64),
        ("url", 255),
        ("pairing", 1024),
    ] {
        status[field] = wide(count);
    }
    let warning =
        json!({"kind": "\u{1f4b0}".repeat(32), "text": wide(64), "percent": 100, "celsius": 255});
    status["warnings"] = json!(vec![warning; 16]);
    status["pending"]["text"] = wide(255);
    status["pending"]["from"] = wide(64);
    status["pending"]["id"] = json!("x".repeat(64));
    assert!(read(&status).unwrap().is_some());
    let length = status.to_string().len();
    assert!((MAX_LINE / 2..MAX_LINE).contains(&length), "{length}");
}

#[test]
fn nesting_without_end_is_refused() {
    let deep = format!("{{\"v\":1,\"type\":\"status\",\"x\":{}", "[".repeat(MAX_LINE - 40));
    assert!(parse(deep.as_bytes()).is_err());
}

#[test]
fn a_fingerprint_may_have_colons() {
    let plain = read(&sample("idle")).unwrap().unwrap().fingerprint;
    let mut status = sample("idle");
    let digits: Vec<char> = status["fingerprint"].as_str().unwrap().chars().collect();
    let pairs: Vec<String> = digits.chunks(2).map(String::from_iter).collect();
    status["fingerprint"] = json!(pairs.join(":").to_uppercase());
    assert_eq!(read(&status).unwrap().unwrap().fingerprint, plain);
    status["fingerprint"] = json!(pairs.join(";"));
    assert!(read(&status).is_err());
}

#[test]
fn texts_are_cleaned() {
    let mut status = sample("unlock");
    status["pending"]["text"] = json!("Sato\u{202e}shi\u{7}\n1");
    let Ask::Unlock { wallet, .. } = read(&status).unwrap().unwrap().pending.unwrap().ask else {
        panic!()
    };
    assert_eq!(wallet.as_str(), "Satoshi  1");
    status["warnings"] = json!([{"kind": "new", "text": "e\u{301}"}]);
    let warnings = read(&status).unwrap().unwrap().warnings;
    assert!(matches!(&warnings[..], [Warning::Other(text)] if text.as_str() == "é"));
}

/// JSON of any shape, with names that the format knows.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u64..200).prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        prop::sample::select(vec!["status", "send", "unlock", "ok", "down", "in", "regtest"])
            .prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "locked",
        "wallet",
        "coinjoin_state",
        "phase",
        "round",
        "maker",
        "sync",
        "backend",
        "tor",
        "height",
        "url",
        "fingerprint",
        "warnings",
        "transaction",
        "pending",
        "id",
        "kind",
        "text",
        "amount_sat",
        "destination",
        "fee_sat",
        "expires_s",
        "asked",
        "answered",
        "deadline_s",
        "of_s",
        "offers",
        "percent",
        "txid",
    ]);
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..12)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        Lines::default().push(&bytes, |line| { let _ = line.and_then(parse); });
    }

    #[test]
    fn no_json_makes_the_parser_panic(mut value in any_json()) {
        if let Some(object) = value.as_object_mut() {
            object.insert("v".into(), json!(1));
            object.insert("type".into(), json!("status"));
        }
        let _ = read(&value);
    }

    /// A sample with one thing replaced by anything is read or refused, never more.
    #[test]
    fn damaged_samples_are_read_or_refused(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), value in any_json(),
    ) {
        let samples = samples();
        let (_, text) = which.get(&samples);
        let mut status: Value = serde_json::from_str(text).unwrap();
        let object = status.as_object_mut().unwrap();
        let names: Vec<String> = object.keys().filter(|name| !["v", "type"].contains(&name.as_str())).cloned().collect();
        let name = at.get(&names);
        object.insert(name.clone(), value);
        let _ = read(&status);
    }

    /// Cut anywhere, the stream gives the same lines.
    #[test]
    fn lines_do_not_depend_on_how_they_arrive(
        text in "[a-c\n]{0,200}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let whole: Vec<Vec<u8>> = text.split_terminator('\n').filter(|line| !line.is_empty())
            .map(|line| line.as_bytes().to_vec()).collect();
        let whole = if text.ends_with('\n') || text.is_empty() { whole } else {
            let ends = text.rsplit('\n').next().is_some_and(|last| !last.is_empty());
            let mut whole = whole;
            if ends { whole.pop(); }
            whole
        };
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for pair in at.windows(2) {
            lines.push(&text.as_bytes()[pair[0]..pair[1]], |line| got.push(line.unwrap().to_vec()));
        }
        prop_assert_eq!(got, whole);
    }
}
