//! TLS with a pinned certificate and with the system's trust, SOCKS5, and connections that break.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

mod support;

use joinery_net::{ConfigError, ElectrumConfig, ElectrumEngine, Fingerprint, TlsTrust};
use joinery_testkit::fake_electrum::FakeElectrum;
use joinery_testkit::{Relay, TestCertificate};
use joinery_wallet::chain::{BroadcastError, ChainSource};
use joinery_wallet::types::Network;
use support::{TestWallet, ask, await_status, config, engine, script, scripts};

fn server() -> FakeElectrum {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| {
        chain.pay(&script(1), 1_000);
        chain.mine(3);
    });
    server
}

fn syncs(config: ElectrumConfig) {
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert_eq!(wallet.transactions(), 1);
}

fn refused(config: ElectrumConfig, reason: &str) {
    let engine = ElectrumEngine::start(config).unwrap();
    await_status(&engine, "refused", |status| {
        status.last_error.as_deref().is_some_and(|error| error.contains(reason))
    });
    assert!(!engine.status().borrow().connected);
}

#[test]
fn pinned_certificate_is_believed_and_no_other() {
    let server = server();
    let certificate = TestCertificate::new(&["somewhere.else.example"]).unwrap();
    let relay = Relay::tls(server.address(), &certificate).unwrap();
    let mut config = config(&format!("ssl://{}", relay.address()));
    config.tls = TlsTrust::Pin(Fingerprint(certificate.fingerprint()));
    syncs(config.clone());
    server.forget_requests();
    let other = TestCertificate::new(&["localhost"]).unwrap();
    config.tls = TlsTrust::Pin(Fingerprint(other.fingerprint()));
    refused(config, "TLS failed");
    assert!(server.requests().is_empty(), "not a word before the certificate is believed");
}

#[test]
fn system_trust_refuses_a_self_signed_certificate() {
    let server = server();
    let certificate = TestCertificate::new(&["localhost"]).unwrap();
    let relay = Relay::tls(server.address(), &certificate).unwrap();
    let config = config(&format!("ssl://localhost:{}", relay.address().port()));
    match ElectrumEngine::start(config.clone()) {
        // A machine without any certificates: refused, too, and with a reason.
        Err(error) => assert!(matches!(error, ConfigError::TrustStore { .. }), "{error}"),
        Ok(_) => refused(config, "TLS failed"),
    }
}

#[test]
fn plain_text_server_behind_an_ssl_url_is_refused() {
    let server = server();
    let mut config = config(&server.url().replace("tcp://", "ssl://"));
    config.tls = TlsTrust::Pin(Fingerprint([7; 32]));
    config.timing.connect = std::time::Duration::from_millis(700);
    let engine = ElectrumEngine::start(config).unwrap();
    await_status(&engine, "refused", |status| status.last_error.is_some());
    assert_eq!(server.count("server.version"), 0);
}

#[test]
fn proxy_gets_names_and_separate_credentials_for_each_purpose() {
    let server = server();
    let name = "electrum-server.example.org:50001";
    let proxy = Relay::socks5([(name, server.address())]).unwrap();
    let mut config =
        ElectrumConfig::new(format!("tcp://{name}").parse().unwrap(), Network::Regtest);
    config.timing = support::quick();
    config.proxy = Some(format!("socks5://{}", proxy.address()).parse().unwrap());
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert!(!engine.status().borrow().public_server, "behind a proxy");
    ask(engine.block_time(1)).unwrap();
    let requests = proxy.requests();
    assert_eq!(requests.len(), 2);
    // The name can only have been resolved by the proxy: it does not exist.
    assert!(requests.iter().all(|request| request.target == name), "{requests:?}");
    let credentials: Vec<_> =
        requests.iter().map(|r| r.credentials.clone().expect("user and password")).collect();
    assert_ne!(credentials[0], credentials[1], "one circuit for the wallet, one for lookups");
}

/// `spec/wallet.md` 13.8.
#[test]
fn each_transaction_is_sent_on_a_circuit_of_its_own_to_a_server_behind_a_proxy() {
    const BROADCAST: &str = "blockchain.transaction.broadcast";
    let server = server();
    let name = "electrum-server.example.org:50001";
    let proxy = Relay::socks5([(name, server.address())]).unwrap();
    let mut config =
        ElectrumConfig::new(format!("tcp://{name}").parse().unwrap(), Network::Regtest);
    config.timing = support::quick();
    config.proxy = Some(format!("socks5://{}", proxy.address()).parse().unwrap());
    let engine = ElectrumEngine::start(config).unwrap();
    let mut wallet = TestWallet::new(&engine, scripts(0..5));
    wallet.until_caught_up(0);
    assert!(engine.status().borrow().foreign_server);
    let unsent = [6_000, 7_000].map(|satoshi| {
        server.change_silently(|chain| {
            let tx = chain.pay(&script(9), satoshi);
            chain.evict(&tx.compute_txid());
            tx
        })
    });
    for tx in &unsent {
        ask(engine.broadcast(tx.clone())).unwrap();
        assert!(server.change_silently(|c| c.transaction(&tx.compute_txid()).is_some()));
    }
    let mut circuits: Vec<_> = proxy.requests().into_iter().map(|r| r.credentials).collect();
    assert_eq!(circuits.len(), 3, "the wallet's and two more");
    circuits.sort_unstable();
    circuits.dedup();
    assert_eq!(circuits.len(), 3);
    let requests = server.requests();
    let of = |method: &str| -> Vec<u64> {
        requests.iter().filter(|r| r.method == method).map(|r| r.connection).collect()
    };
    let wallets = of("blockchain.scripthash.subscribe");
    assert_eq!(of(BROADCAST).len(), 2);
    assert!(of(BROADCAST).iter().all(|connection| !wallets.contains(connection)));
    assert_ne!(of(BROADCAST)[0], of(BROADCAST)[1]);

    server.lie(joinery_testkit::fake_electrum::Fault::broadcast_refused("min relay fee not met"));
    let tx = server.change_silently(|chain| {
        let tx = chain.pay(&script(9), 8_000);
        chain.evict(&tx.compute_txid());
        tx
    });
    let refused = ask(engine.broadcast(tx.clone()));
    assert!(matches!(refused, Err(BroadcastError::Rejected { .. })), "{refused:?}");
    // Without the circuit it is not sent on another one.
    server.forget_requests();
    proxy.refuse_connections(true);
    let failed = ask(engine.broadcast(tx));
    assert!(matches!(failed, Err(BroadcastError::Unknown(_))), "{failed:?}");
    assert_eq!(server.count(BROADCAST), 0);
}

#[test]
fn unknown_name_behind_a_proxy_is_an_error_of_the_proxy() {
    let proxy = Relay::socks5(Vec::<(String, std::net::SocketAddr)>::new()).unwrap();
    let url = format!("tcp://{}.onion:50001", "a".repeat(56));
    let mut config = config(&url);
    config.proxy = Some(format!("socks5://{}", proxy.address()).parse().unwrap());
    refused(config, "the proxy could not connect");
}

#[test]
fn connection_that_breaks_in_the_middle_of_a_line_is_made_anew() {
    let server = FakeElectrum::start().unwrap();
    server.change(|chain| {
        for number in 0..100 {
            chain.pay(&script(number), 1_000);
        }
        chain.mine(2);
    });
    let relay = Relay::plain(server.address()).unwrap();
    relay.cut_after(Some(20_000));
    let engine = engine(&format!("tcp://{}", relay.address()));
    let mut wallet = TestWallet::new(&engine, scripts(0..100));
    wallet.until("two losses", |wallet| wallet.disconnected.len() > 1);
    relay.cut_after(None);
    wallet.until_caught_up(0);
    assert_eq!(wallet.transactions(), 100);
    relay.cut();
    wallet.caught_up = None;
    wallet.until_caught_up(0);
}

#[test]
fn public_server_is_refused_before_anything_starts() {
    let config =
        ElectrumConfig::new("ssl://electrum.example.org:50002".parse().unwrap(), Network::Mainnet);
    assert!(matches!(ElectrumEngine::start(config), Err(ConfigError::PublicServer { .. })));
}
