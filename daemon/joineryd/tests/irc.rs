//! The real daemon and a real IRC server: for makers that are on no directory.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_net::irc::{IrcHandle, IrcSockets, spawn};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_roles::event::{ChannelEvent, Source};
use joinery_roles::irc_channel::{Audience, IrcConfig, IrcServer, IrcTiming};
use joinery_testkit::{Ngircd, Relay};
use serde_json::{Value, json};
use support::{Client, Home, Market, Participant, until};
use tokio::sync::mpsc;

const FIELDS: &str = "0 27300 5000000000 0 0.00002";

fn offer() -> Offer {
    Offer::parse(OrderType::Sw0Relative, FIELDS).unwrap()
}

/// A maker that answers every request with its signed offer, under the other channel of the same role.
fn maker(server: &Ngircd) -> (Nick, IrcHandle) {
    let key = Arc::new(NickKey::new(SecretKey::from_slice(&[7; 32]).unwrap()));
    let nick = key.nick();
    let mut config = IrcConfig::new(key);
    let (host, port) = (server.address().ip().to_string(), server.address().port());
    config.servers = vec![IrcServer::new(&host, port, "joinmarket-pit", "testnet", false).unwrap()];
    config.timing = IrcTiming { line_gap: Duration::from_millis(10), ..IrcTiming::regtest() };
    let (sender, mut events) = mpsc::channel(64);
    let handle = spawn(IrcSockets::new("maker"), config, sender).unwrap();
    let speaks = handle.clone();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                ChannelEvent::Up(Source::Irc(server)) => {
                    let to = Audience::Server(server);
                    speaks.announce_offers(vec![offer()], to).await.unwrap();
                }
                ChannelEvent::Public { from, via: Source::Irc(server), text }
                    if text == "orderbook" =>
                {
                    let word = PrivateWord::Offer(OrderType::Sw0Relative);
                    speaks.send_private(server, from, word, FIELDS).await.unwrap();
                }
                _ => {}
            }
        }
    });
    (nick, handle)
}

async fn offers(client: &Client) -> Vec<Value> {
    let book = client.try_get("/obwatch/orderbook.json").await.unwrap().expect(200);
    book["offers"].as_array().unwrap().clone()
}

async fn signed(client: &Client, nick: Nick) {
    let offer = until("the signed offer", || async {
        let offers = offers(client).await;
        offers.into_iter().find(|offer| offer["signed"] == json!(true))
    })
    .await;
    assert_eq!(offer["counterparty"], json!(nick.to_string()));
    assert_eq!((&offer["cjfee"], &offer["oid"]), (&json!("0.00002"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_of_makers_on_irc_are_in_the_book_as_long_as_they_are_there() {
    let mut server = Ngircd::start(Some("TestNet")).unwrap();
    // The daemon goes by its proxy, by name, as it would by Tor.
    let routes = [("irc.example:6667", server.address())];
    let proxy = tokio::task::spawn_blocking(move || Relay::socks5(routes).unwrap()).await.unwrap();
    let home = Home::new();
    home.write_config(&format!(
        "[joinmarket]\nnetwork = \"testnet\"\nsocks = \"socks5://{}\"\n\
         [[joinmarket.irc]]\nhost = \"irc.example\"\ntls = false\nport = 6667\n",
        proxy.address()
    ));
    let (nick, first) = maker(&server);
    let daemon = home.start();
    let client = daemon.client();
    signed(&client, nick).await;
    // It leaves, and with it its offer; it comes back.
    first.stop();
    until("its absence", || async { offers(&client).await.is_empty().then_some(()) }).await;
    let (_, second) = maker(&server);
    until("its announcement", || async { (!offers(&client).await.is_empty()).then_some(()) }).await;
    // The server goes away and comes back: everybody meets again.
    server.kill().unwrap();
    until("nobody", || async { offers(&client).await.is_empty().then_some(()) }).await;
    server.restart().unwrap();
    // The maker may be back before the daemon, which would not ask again within half a minute.
    until("its offer again", || async {
        second.announce_offers(vec![offer()], Audience::All).await.unwrap();
        (!offers(&client).await.is_empty()).then_some(())
    })
    .await;
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.target == "irc.example:6667"));
    assert!(requests.iter().all(|request| {
        request.credentials.as_ref().is_some_and(|(user, _)| user == "orderbook-irc-0")
    }));
    daemon.stop();
}

/// A home whose daemons know this IRC server.
fn on_irc(home: Home, server: &Ngircd) -> Home {
    home.write_config(&format!(
        "[wallet]\nkdf_memory_mib = 19\n[[joinmarket.irc]]\nhost = \"127.0.0.1\"\nport = {}\n",
        server.address().port()
    ));
    home
}

/// Two makers are on IRC alone, two on the directory alone, and the taker on both: each is spoken to where it is, with
/// messages of several lines on IRC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coinjoin_with_makers_on_irc_and_makers_on_a_directory() {
    let market = Market::start();
    let server = Ngircd::start(Some("TestNet")).unwrap();
    let mut makers = Vec::new();
    for number in 0..4_u8 {
        let home = if number < 2 {
            on_irc(Home::with_electrum(&market.bench.endpoints().electrum), &server)
        } else {
            market.home()
        };
        let coins = [(0, 20_000_000 + u64::from(number))];
        makers.push(market.participant_at(home, &format!("maker{number}"), &coins).await);
    }
    let home = on_irc(market.home(), &server);
    let taker = market.participant_at(home, "taker", &[(0, 9_000_000), (0, 3_000_000)]).await;
    let everybody: Vec<&Participant> = makers.iter().chain([&taker]).collect();
    market.settle(&everybody).await;
    for maker in &makers {
        maker.make().await;
    }
    taker.sees_makers(4).await;
    taker.coinjoin(0, 5_000_000, 4, "INTERNAL").await;
    let status = taker.coinjoin_ended().await;
    assert_eq!(status["status"], json!("completed"), "{status}");
    let txid = status["txid"].as_str().unwrap().parse().unwrap();
    let transaction = market.bench.transaction(txid, None).unwrap();
    let equal = transaction.output.iter().filter(|output| output.value.to_sat() == 5_000_000);
    assert_eq!(equal.count(), 5);
    for maker in &makers {
        let rounds = maker.rounds().await;
        assert_eq!(rounds.len(), 1, "{rounds:?}");
    }
}
