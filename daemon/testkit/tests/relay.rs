//! The relay in front of the fake server.
#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use joinery_testkit::fake_electrum::FakeElectrum;
use joinery_testkit::{Electrum, PATIENCE, Relay, SocksRequest, TestCertificate};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn pings(stream: impl Read + Write) -> bool {
    let mut reader = BufReader::new(stream);
    writeln!(reader.get_mut(), "{}", json!({"id": 1, "method": "server.ping"})).unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).is_ok_and(|_| line.contains("result"))
}

#[test]
fn cable_is_pulled_at_once_or_after_some_bytes() {
    let server = FakeElectrum::start().unwrap();
    let relay = Relay::plain(server.address()).unwrap();
    let mut client = Electrum::connect(relay.address(), PATIENCE).unwrap();
    client.call("server.ping", &json!([])).unwrap();
    relay.cut();
    assert!(client.call("server.ping", &json!([])).is_err());

    relay.cut_after(Some(10));
    let mut client = BufReader::new(connect(&relay));
    writeln!(client.get_mut(), "{}", json!({"id": 1, "method": "server.banner"})).unwrap();
    let mut read = Vec::new();
    // The end may come as a reset.
    let _ = client.read_to_end(&mut read);
    assert_eq!(read.len(), 10);
    relay.cut_after(None);
    assert!(pings(connect(&relay)));
    relay.refuse_connections(true);
    assert!(Electrum::connect(relay.address(), PATIENCE).is_err());
    assert_eq!(relay.accepted(), 3);
}

#[test]
fn tls_presents_the_certificate_that_was_made() {
    let server = FakeElectrum::start().unwrap();
    let certificate = TestCertificate::new(&[]).unwrap();
    let relay = Relay::tls(server.address(), &certificate).unwrap();
    let handshake = |roots: RootCertStore| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(&relay))
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut stream = handshake(roots);
    assert!(pings(&mut stream));
    let presented = stream.conn.peer_certificates().unwrap();
    assert_eq!(&presented[0], certificate.der());

    let other = TestCertificate::new(&[]).unwrap();
    assert_ne!(other.fingerprint(), certificate.fingerprint());
    let mut roots = RootCertStore::empty();
    roots.add(other.der().clone()).unwrap();
    assert!(handshake(roots).write_all(b"x").is_err());
}

#[test]
fn socks5_connects_known_names_and_remembers_all() {
    let server = FakeElectrum::start().unwrap();
    let relay = Relay::socks5([("server.onion:50001", server.address())]).unwrap();
    let ask = |host: &str, password: bool| -> (TcpStream, u8) {
        let mut stream = connect(&relay);
        if password {
            stream.write_all(&[5, 1, 2]).unwrap();
            stream.write_all(b"\x01\x04user\x04pass").unwrap();
            let mut chosen = [0; 4];
            stream.read_exact(&mut chosen).unwrap();
            assert_eq!(chosen, [5, 2, 1, 0]);
        } else {
            stream.write_all(&[5, 1, 0]).unwrap();
            let mut chosen = [0; 2];
            stream.read_exact(&mut chosen).unwrap();
            assert_eq!(chosen, [5, 0]);
        }
        stream.write_all(&[5, 1, 0, 3, u8::try_from(host.len()).unwrap()]).unwrap();
        stream.write_all(host.as_bytes()).unwrap();
        stream.write_all(&50_001_u16.to_be_bytes()).unwrap();
        let mut granted = [0; 10];
        stream.read_exact(&mut granted).unwrap();
        (stream, granted[1])
    };
    for password in [false, true] {
        let (stream, code) = ask("server.onion", password);
        assert_eq!(code, 0);
        assert!(pings(stream));
    }
    assert_eq!(ask("other.onion", false).1, 4);
    let requests = relay.requests();
    let credentials = Some(("user".to_owned(), "pass".to_owned()));
    let target = "server.onion:50001".to_owned();
    assert_eq!(requests[1], SocksRequest { target, credentials });
    assert_eq!(requests[2].target, "other.onion:50001");
    assert_eq!(requests[2].credentials, None);
}
