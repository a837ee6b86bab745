//! `/obwatch/…` (`spec/api.md` 12, `spec/roles.md` 7.3).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{Amount, BlockHash, OutPoint, Txid};
use http::{Method, Request};
use http_body_util::BodyExt;
use joinery_api::{MarketView, order_book_router};
use joinery_proto::offer::{Offer, OrderType};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use joinery_roles::order_book::{
    Book, BookBond, BookOffer, BookPhase, BookTip, OrderBook, OrderBookConfig,
};
use joinery_wallet::chain::NoServer;
use joinery_wallet::types::Network;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::rig::Rig;

/// A market that a test moves by hand.
struct Market {
    rig: Rig,
    book: watch::Sender<Arc<Book>>,
    refresh: mpsc::Receiver<()>,
    problem: watch::Sender<Option<&'static str>>,
}

fn market(first: Book) -> Market {
    let (book, book_view) = watch::channel(Arc::new(first));
    let (refresh_view, refresh) = mpsc::channel(1);
    let (problem, problem_view) = watch::channel(None);
    let chain = Arc::new(NoServer::default());
    let rig = Rig::with(Network::Regtest, chain, |config| {
        config.market = Some(MarketView {
            book: book_view,
            refresh: refresh_view,
            problem: problem_view,
            directories: Arc::new(["127.0.0.1:5222".to_owned()]),
        });
    });
    Market { rig, book, refresh, problem }
}

fn collected() -> Book {
    let nick = "J5DdKBhSf2Ykxqqy".parse().unwrap();
    let offer = |order_type, fields: &str, bond_value| BookOffer {
        nick,
        offer: Offer::parse(order_type, fields).unwrap(),
        signed: true,
        disputed: false,
        heard: Duration::from_secs(1),
        directories: vec![DirectoryId(0)],
        direct: false,
        bond_value,
    };
    let key = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5".parse().unwrap();
    let bond = BookBond {
        nick,
        outpoint: OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 3 },
        value: 1234.5,
        locktime: 1_893_456_000,
        amount: Amount::from_sat(5_000_000),
        script: joinery_proto::fidelity_bond::script_pubkey(1_893_456_000, &key),
        confirmations: 7,
        confirmation_time: 1_700_000_000,
        key,
        cert_expiry: 400,
    };
    let mut book = Book::empty();
    book.phase = BookPhase::Complete;
    book.completed = Some(Duration::from_secs(1));
    book.tip =
        Some(BookTip { height: 800_000, hash: BlockHash::all_zeros(), median_time: 1_700_000_500 });
    book.offers = vec![
        offer(OrderType::Sw0Relative, "0 100000 5000000000 0 2e-5", 1234.5),
        offer(OrderType::Sw0Absolute, "1 27300 123456789 100 600", 0.0),
    ];
    book.bonds = vec![bond];
    book
}

#[tokio::test]
async fn book_has_the_shape_that_clients_read() {
    let market = market(collected());
    let reply = market.rig.get("/obwatch/orderbook.json").send().await;
    reply.expect(200);
    let body = reply.json();
    let keep = |entry: &Value, keys: &[&str]| -> Value {
        keys.iter().map(|key| ((*key).to_owned(), entry[*key].clone())).collect()
    };
    let keys = [
        "counterparty",
        "oid",
        "ordertype",
        "minsize",
        "maxsize",
        "txfee",
        "cjfee",
        "fidelity_bond_value",
    ];
    assert_eq!(
        keep(&body["offers"][0], &keys),
        json!({"counterparty": "J5DdKBhSf2Ykxqqy", "oid": 0, "ordertype": "sw0reloffer", "minsize": 100_000,
            "maxsize": 5_000_000_000_u64, "txfee": 0, "cjfee": "0.00002", "fidelity_bond_value": 1234.5})
    );
    assert_eq!(
        keep(&body["offers"][1], &keys),
        json!({"counterparty": "J5DdKBhSf2Ykxqqy", "oid": 1, "ordertype": "sw0absoffer", "minsize": 27_300,
            "maxsize": 123_456_789, "txfee": 100, "cjfee": 600, "fidelity_bond_value": 0.0})
    );
    assert_eq!(
        body["fidelitybonds"],
        json!([{"counterparty": "J5DdKBhSf2Ykxqqy", "utxo": {"txid": "01".repeat(32), "vout": 3},
            "bond_value": 1234.5, "locktime": 1_893_456_000, "amount": 5_000_000,
            "script": body["fidelitybonds"][0]["script"], "utxo_confirmations": 7,
            "utxo_confirmation_timestamp": 1_700_000_000,
            "utxo_pub": "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
            "cert_expiry": 400, "verification_valid": true}])
    );
    assert_eq!(body["current_block_height"], 800_000);
    assert_eq!(body["timestamp"], "2026-11-18T11:06:40Z");
    assert_eq!(body["offers"][0]["directory_nodes"], json!(["127.0.0.1:5222"]));
}

#[tokio::test]
async fn book_is_empty_while_connecting_and_says_how_each_directory_does() {
    let mut book = OrderBook::new(
        OrderBookConfig::new("J5DdKBhSf2Ykxqqy".parse().unwrap(), 1),
        Duration::ZERO,
    );
    let market = market((*book.book(Duration::ZERO)).clone());
    let body = market.rig.get("/obwatch/orderbook.json").send().await.json();
    assert_eq!((&body["offers"], &body["fidelitybonds"]), (&json!([]), &json!([])));
    assert_eq!(body["phase"], "connecting");
    assert_eq!(body["directory_stats"]["127.0.0.1:5222"]["connected"], false);
    // Nobody is there to be asked: the answer does not wait.
    market.rig.request(Method::POST, "/obwatch/refreshorderbook").send().await.expect(200);
    let up = ChannelEvent::Up(Source::Directory(DirectoryId(0)));
    book.event(&up, Duration::from_secs(1));
    market.book.send_replace(book.book(Duration::from_secs(1)));
    let body = market.rig.get("/obwatch/orderbook.json").send().await.json();
    assert_eq!(body["phase"], "collecting");
    assert_eq!(body["directory_stats"]["127.0.0.1:5222"]["connected"], true);
    market.problem.send_replace(Some("market_unreachable"));
    let session = market.rig.get("/api/v1/session").send().await.json();
    assert!(session["warnings"].as_array().unwrap().contains(&json!("market_unreachable")));
}

#[tokio::test]
async fn order_book_that_is_switched_off_says_so() {
    let rig = Rig::new();
    for (method, path) in [
        (Method::GET, "/obwatch/orderbook.json"),
        (Method::GET, "/obwatch/refreshorderbook"),
        (Method::POST, "/obwatch/refreshorderbook"),
    ] {
        let reply = rig.request(method, path).send().await;
        reply.expect_error(503, "Backend daemon not available");
        assert_eq!(reply.json()["details"]["reason"], "order_book_disabled");
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_waits_for_answers_and_asks_once_a_minute() {
    let mut market = market(collected());
    let refresh = |method| market.rig.request(method, "/obwatch/refreshorderbook").send();
    // Answered when the collection is over.
    let (reply, ()) = tokio::join!(refresh(Method::POST), async {
        market.refresh.recv().await.expect("the market is asked");
        let mut book = collected();
        book.completed = Some(Duration::from_secs(99));
        market.book.send_replace(Arc::new(book));
    });
    reply.expect(200);
    assert_eq!(reply.json(), json!({}));
    // Further ones within a minute do nothing, and nothing was forgotten.
    let before = tokio::time::Instant::now();
    refresh(Method::GET).await.expect(200);
    assert_eq!(before.elapsed(), Duration::ZERO);
    let body = market.rig.get("/obwatch/orderbook.json").send().await.json();
    assert_eq!(body["offers"].as_array().unwrap().len(), 2);
    // A market that does not answer costs five seconds.
    market.rig.clock.advance(60);
    let before = tokio::time::Instant::now();
    refresh(Method::GET).await.expect(200);
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    assert!(market.refresh.try_recv().is_ok(), "one request waits in the queue of one");
    assert!(market.refresh.try_recv().is_err());
}

#[tokio::test]
async fn port_for_proxies_has_the_order_book_and_nothing_else() {
    let market = market(collected());
    let router = order_book_router(&market.rig.app);
    let call = |method: Method, path: &'static str| {
        let request = Request::builder().method(method).uri(path);
        // As a proxy sends it: names and origins of whatever the browser calls.
        let request =
            request.header("host", "wallet.example").header("origin", "https://wallet.example");
        router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    for path in ["/orderbook.json", "/obwatch/orderbook.json"] {
        let response = call(Method::GET, path).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["offers"][0]["counterparty"], "J5DdKBhSf2Ykxqqy");
    }
    let mut book = collected();
    book.phase = BookPhase::Connecting;
    market.book.send_replace(Arc::new(book));
    for path in ["/refreshorderbook", "/obwatch/refreshorderbook"] {
        assert_eq!(call(Method::POST, path).await.unwrap().status(), 200, "{path}");
    }
    for path in ["/", "/api/v1/session", "/jmws", "/api/v1/wallet/all", "/obwatch/nope"] {
        assert_eq!(call(Method::GET, path).await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(call(Method::DELETE, "/orderbook.json").await.unwrap().status(), 405);
}
