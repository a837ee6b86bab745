//! The websocket over a real socket: `spec/api.md` 11, Appendix D 8, 11.

use std::sync::Arc;
use std::time::Duration;

use joinery_api::{Role, router, websocket_router};
use joinery_wallet::chain::NoServer;
use joinery_wallet::types::Network;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::money::{ELSEWHERE, fund};
use crate::rig::{Login, PASSWORD, PATIENCE, Rig, WALLET, contract};

/// Listeners of one API on loopback.
struct Served {
    rpc: std::net::SocketAddr,
    websocket: std::net::SocketAddr,
    tasks: Vec<AbortHandle>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn serve(rig: &Rig) -> Served {
    let mut tasks = Vec::new();
    let mut addresses = Vec::new();
    for routes in [router(&rig.app), websocket_router(&rig.app)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        tasks.push(server.abort_handle());
    }
    Served { rpc: addresses[0], websocket: addresses[1], tasks }
}

struct Socket(WebSocketStream<TcpStream>);

async fn connect(address: std::net::SocketAddr, path: &str) -> Result<Socket, Error> {
    connect_from(address, path, None).await
}

async fn connect_from(
    address: std::net::SocketAddr,
    path: &str,
    origin: Option<&str>,
) -> Result<Socket, Error> {
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(request, stream).await.map(|(socket, _)| Socket(socket))
}

impl Socket {
    async fn say(&mut self, text: &str) {
        use futures_util::SinkExt;
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn send(&mut self, message: Message) -> Result<(), Error> {
        use futures_util::SinkExt;
        self.0.send(message).await
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        use futures_util::StreamExt;
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something happens")
    }

    /// The next event; pings are answered on the way.
    async fn event(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?} in place of an event"),
            }
        }
    }

    /// Code and reason with which we are closed.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?} in place of a close"),
            }
        }
    }

    /// Everything that has been sent so far: a ping goes out, and all that comes before its answer counts.
    async fn heard(&mut self) -> Vec<Value> {
        self.send(Message::Ping(vec![1, 2, 3].into())).await.unwrap();
        let mut heard = Vec::new();
        loop {
            match self.next().await {
                Some(Ok(Message::Text(text))) => heard.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Pong(data))) if *data == [1, 2, 3] => return heard,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn state(number: u8) -> Value {
    json!({"coinjoin_state": number})
}

#[tokio::test]
async fn the_socket_is_at_all_its_places() {
    let rig = Rig::new();
    let login = rig.create().await;
    let served = serve(&rig).await;
    for path in ["/jmws", "/ws", "/api/v1/ws"] {
        let mut socket = connect(served.rpc, path).await.unwrap();
        socket.say(&login.access).await;
        assert_eq!(socket.event().await, state(2));
    }
    for path in ["/", "/anything", "/jmws?x=1"] {
        let mut socket = connect(served.websocket, path).await.unwrap();
        socket.say(&login.access).await;
        assert_eq!(socket.event().await, state(2));
    }
    assert!(connect(served.rpc, "/elsewhere").await.is_err());
    // Without an upgrade it is an ordinary request.
    rig.get("/api/v1/ws").send().await.expect_error(400, "Websocket handshake expected.");
    assert!(connect_from(served.rpc, "/jmws", Some("https://evil.example")).await.is_err());
    assert!(connect_from(served.websocket, "/", Some("null")).await.is_err());
    assert!(connect_from(served.rpc, "/jmws", Some("http://localhost:3000")).await.is_ok());
}

#[tokio::test]
async fn tokens_open_the_socket_and_bad_ones_close_it() {
    let rig = Rig::new();
    let login = rig.create().await;
    let served = serve(&rig).await;
    // Nothing is said to strangers.
    let mut stranger = connect(served.websocket, "/").await.unwrap();
    let mut socket = connect(served.websocket, "/").await.unwrap();
    socket.say(&format!(" {}\n", login.access)).await;
    assert_eq!(socket.event().await, state(2));
    // A repeated token is taken in silence, binary frames mean nothing.
    socket.say(&login.access).await;
    socket.send(Message::binary(vec![0, 1, 2])).await.unwrap();
    let guard = rig.app.activity().begin(Role::Taker).unwrap();
    drop(guard);
    assert_eq!(socket.heard().await, [state(0), state(2)]);
    assert!(stranger.heard().await.is_empty());
    // Any other text is a bad token, also on a good socket.
    for bad in ["garbage", "", &*login.refresh] {
        let mut socket = connect(served.websocket, "/").await.unwrap();
        socket.say(bad).await;
        assert_eq!(socket.closed().await, (4001, "Invalid token".to_owned()));
    }
    socket.say("{}").await;
    assert_eq!(socket.closed().await, (4001, "Invalid token".to_owned()));
    rig.clock.advance(1810);
    let mut late = connect(served.websocket, "/").await.unwrap();
    late.say(&login.access).await;
    assert_eq!(late.closed().await.0, 4001);
}

#[tokio::test]
async fn a_large_message_ends_the_connection() {
    let rig = Rig::new();
    let served = serve(&rig).await;
    let mut socket = connect(served.websocket, "/").await.unwrap();
    let _ = socket.send(Message::text("x".repeat(9000))).await;
    match socket.next().await {
        Some(Ok(Message::Close(_)) | Err(_)) | None => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn locking_tells_everything_first_and_keeps_the_socket() {
    let rig = Rig::new();
    let login = rig.create().await;
    let served = serve(&rig).await;
    let mut socket = connect(served.rpc, "/jmws").await.unwrap();
    socket.say(&login.access).await;
    assert_eq!(socket.event().await, state(2));
    let guard = rig.app.activity().begin(Role::Maker).unwrap();
    rig.wallet_get(&login, "/lock").await.expect(200);
    assert!(guard.stopped().is_cancelled());
    assert_eq!(socket.heard().await, [state(1), state(2)]);
    // Open, but nobody's: what happens now is not told.
    drop(rig.app.activity().begin(Role::Maker));
    assert!(socket.heard().await.is_empty());
    // After the next unlock the same socket is told again.
    let login = Login::of(&rig.unlock(WALLET, PASSWORD).await.json());
    socket.say(&login.access).await;
    // Taken in silence; the answer to a ping shows that it was taken.
    assert!(socket.heard().await.is_empty());
    drop(rig.app.activity().begin(Role::Taker));
    assert_eq!(socket.heard().await, [state(0), state(2)]);
}

#[tokio::test]
async fn every_transaction_is_told_when_seen_and_when_confirmed() {
    let (rig, chain) = Rig::on_chain();
    let login = rig.recover().await;
    fund(&rig, &chain, &login, 0, &[1_000_000]).await;
    let served = serve(&rig).await;
    let mut socket = connect(served.websocket, "/").await.unwrap();
    socket.say(&login.access).await;
    assert_eq!(socket.event().await, state(2));
    let body = json!({"mixdepth": 0, "amount_sats": 100_000, "destination": ELSEWHERE});
    let sent = rig.wallet_post(&login, "/taker/direct-send", &body).await.json();
    let check = |event: &Value, confirmed: bool| {
        assert_eq!(event["txid"], sent["txinfo"]["txid"]);
        assert_eq!(event["txdetails"]["txid"], event["txid"]);
        assert_eq!(event.as_object().unwrap().len(), 2);
        contract().check_schema("TxDetails", &event["txdetails"]).unwrap();
        let confirmations = event["txdetails"]["confirmations"].as_u64().unwrap();
        assert_eq!(confirmations > 0, confirmed, "{event}");
    };
    check(&socket.event().await, false);
    let tx = chain.broadcasts().pop().unwrap();
    chain.mine(&[&tx]);
    chain.look().await;
    check(&socket.event().await, true);
    // Not again at the next block.
    chain.mine(&[]);
    chain.look().await;
    let now = || async {
        let utxos = rig.wallet_get(&login, "/utxos").await.json();
        utxos["utxos"][0]["confirmations"] == 2
    };
    crate::rig::until("the block is known", now).await;
    assert!(socket.heard().await.is_empty());
}

#[tokio::test]
async fn strangers_are_bounded_and_the_oldest_goes_first() {
    let chain = Arc::new(NoServer::default());
    let rig = Rig::with(Network::Regtest, chain, |config| config.idle_websockets = 3);
    let served = serve(&rig).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut socket = connect(served.websocket, "/").await.unwrap();
        assert!(socket.heard().await.is_empty());
        sockets.push(socket);
    }
    assert_eq!(sockets[0].closed().await, (1013, "Too many connections".to_owned()));
    for socket in &mut sockets[1..] {
        assert!(socket.heard().await.is_empty());
    }
}

#[tokio::test]
async fn the_server_pings_and_gives_up_on_the_dead() {
    let chain = Arc::new(NoServer::default());
    let rig = Rig::with(Network::Regtest, chain, |config| {
        config.websocket_ping = Duration::from_millis(20);
    });
    let served = serve(&rig).await;
    let mut alive = connect(served.websocket, "/").await.unwrap();
    for _ in 0..10 {
        assert!(matches!(alive.next().await, Some(Ok(Message::Ping(_)))));
    }
    // A peer that reads nothing answers nothing; the server lets go of it.
    let dead = connect(served.websocket, "/").await.unwrap();
    let (mut stream, mut buffer) = (dead.0.into_inner(), vec![0; 4096]);
    let gone = async {
        use tokio::io::AsyncReadExt;
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the server lets go");
}

#[tokio::test]
async fn shutting_down_closes_the_sockets() {
    let rig = Rig::new();
    let served = serve(&rig).await;
    let mut socket = connect(served.websocket, "/").await.unwrap();
    assert!(socket.heard().await.is_empty());
    rig.app.shutdown().await;
    assert_eq!(socket.closed().await.0, 1001);
}
