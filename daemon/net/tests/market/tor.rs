use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use joinery_net::tor::{TorConfig, TorState, run};
use joinery_testkit::Supervised;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::soon;

/// A running client of a control port.
struct Service {
    state: watch::Receiver<TorState>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

fn serve(control: SocketAddr, change: impl FnOnce(&mut TorConfig)) -> Service {
    let mut config = TorConfig::new(control, "127.0.0.1:5222".parse().unwrap());
    config.timing.answer = Duration::from_secs(20);
    config.timing.retry = (Duration::from_millis(50), Duration::from_millis(200));
    config.timing.progress = Duration::from_millis(50);
    change(&mut config);
    let (state, states) = watch::channel(TorState::Starting);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(config, state, stopped));
    Service { state: states, stop: Some(stop), task }
}

impl Service {
    async fn until(&mut self, what: &str, is: impl FnMut(&TorState) -> bool) -> TorState {
        soon(what, self.state.wait_for(is)).await.unwrap().clone()
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        soon("its end", self.task).await.unwrap();
        assert_eq!(*self.state.borrow(), TorState::Stopped);
    }
}

/// A real Tor that may not touch the network; returns it and its control port.
async fn tor(directory: &Path, extra: &str) -> (Supervised, SocketAddr) {
    let data = directory.join("data");
    let port_file = directory.join("control-port");
    let config = directory.join("torrc");
    std::fs::write(
        &config,
        format!(
            "DataDirectory {}\nControlPort auto\nControlPortWriteToFile {}\nSocksPort 0\n\
             DisableNetwork 1\n{extra}\n",
            data.display(),
            port_file.display()
        ),
    )
    .unwrap();
    let arguments = ["-f".into(), config.into_os_string()];
    let log = directory.join("tor.log");
    let process = Supervised::start("tor", Path::new("tor"), arguments, &log).unwrap();
    let control = soon("Tor's control port", async {
        loop {
            let port = std::fs::read_to_string(&port_file).unwrap_or_default();
            if let Some(address) = port.trim().strip_prefix("PORT=") {
                return address.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    (process, control)
}

#[tokio::test]
async fn real_tor_makes_a_service_and_removes_it_when_we_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, control) = tor(directory.path(), "CookieAuthentication 1").await;
    let mut service = serve(control, |_| {});
    let state =
        service.until("a service", |state| matches!(state, TorState::Bootstrapping { .. })).await;
    let TorState::Bootstrapping { percent, address, .. } = state else { panic!("{state:?}") };
    assert!(percent < 100 && address.is_onion() && address.port() == 5222);
    service.stop().await;
    // When Tor goes away that is told, and when it never was there, too.
    let mut service = serve(control, |_| {});
    service.until("a service", |state| matches!(state, TorState::Bootstrapping { .. })).await;
    process.kill().unwrap();
    service.until("Tor's absence", |state| matches!(state, TorState::Absent { .. })).await;
    service.stop().await;
}

#[tokio::test]
async fn real_tor_that_wants_a_password_or_another_cookie_refuses() {
    let directory = tempfile::tempdir().unwrap();
    // Hash of the word "password" by tor --hash-password.
    let password = "HashedControlPassword \
        16:872860B76453A77D60CA2BB8C1A7042072093276A3D701AD684053EC4C";
    let (_process, control) = tor(directory.path(), password).await;
    let mut service = serve(control, |_| {});
    service.until("a refusal", |state| matches!(state, TorState::Refused { .. })).await;
    service.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let (_process, control) = tor(directory.path(), "CookieAuthentication 1").await;
    let cookie = directory.path().join("other-cookie");
    std::fs::write(&cookie, [7; 32]).unwrap();
    let mut service = serve(control, |config| config.cookie = Some(cookie));
    let state = service.until("a refusal", |s| matches!(s, TorState::Refused { .. })).await;
    let TorState::Refused { reason } = state else { panic!("{state:?}") };
    assert!(reason.contains("does not know Tor's cookie"), "{reason}");
    service.stop().await;
    let missing = directory.path().join("missing");
    let mut service = serve(control, |config| config.cookie = Some(missing));
    service.until("a refusal", |state| matches!(state, TorState::Refused { .. })).await;
    service.stop().await;
}

/// What a scripted port answers to a command.
type Answer = fn(&str) -> Vec<u8>;

/// Accepts one control connection after the other and answers each command by `answer`.
async fn script(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, answer));
        }
    });
    address
}

async fn converse(stream: TcpStream, answer: Answer) {
    let mut stream = BufReader::new(stream);
    let mut command = String::new();
    while stream.read_line(&mut command).await.is_ok_and(|count| count > 0) {
        let bytes = answer(command.trim_end());
        // Nothing ends the conversation in the middle of a reply.
        if stream.write_all(&bytes).await.is_err() || !bytes.ends_with(b"\r\n") {
            return;
        }
        command.clear();
    }
}

const INFO: &[u8] = b"250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250 OK\r\n";
const SERVICE: &[u8] =
    b"250-ServiceID=2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid\r\n250 OK\r\n";
const DONE: &[u8] = b"250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 TAG=done \
    SUMMARY=\"Done\"\r\n250 OK\r\n";

fn good(command: &str) -> Vec<u8> {
    match command.split(' ').next().unwrap() {
        "PROTOCOLINFO" => INFO.to_vec(),
        "ADD_ONION" => SERVICE.to_vec(),
        "GETINFO" => DONE.to_vec(),
        _ => b"250 OK\r\n".to_vec(),
    }
}

#[tokio::test]
async fn ready_when_tor_is() {
    let mut service = serve(script(good).await, |_| {});
    service.until("readiness", |state| matches!(state, TorState::Ready { .. })).await;
    service.stop().await;
}

#[tokio::test]
async fn faulty_control_ports_are_absent_or_refuse_and_never_hold_us() {
    let faults: [(Answer, bool); 6] = [
        // A line without end, 4 MiB at a time.
        (|_| vec![b'x'; 4 << 20], false),
        // Closes in the middle of a reply.
        (|_| b"250-PROTOCOLINFO 1\r\n250-AUTH METH".to_vec(), false),
        (|_| b"HTTP/1.1 400 Bad Request\r\n".to_vec(), false),
        (|_| b"250-AUTH METHODS=HASHEDPASSWORD\r\n250 OK\r\n".to_vec(), true),
        (
            |command| {
                if command.starts_with("ADD") { b"512 No\r\n".to_vec() } else { good(command) }
            },
            true,
        ),
        (
            |command| {
                let odd = b"250-ServiceID=../../etc/passwd\r\n250 OK\r\n".to_vec();
                if command.starts_with("ADD") { odd } else { good(command) }
            },
            false,
        ),
    ];
    for (index, (answer, refuses)) in faults.into_iter().enumerate() {
        let mut service = serve(script(answer).await, |_| {});
        let state = service.until("a state", |state| *state != TorState::Starting).await;
        assert_eq!(matches!(state, TorState::Refused { .. }), refuses, "fault {index}: {state:?}");
        assert_eq!(matches!(state, TorState::Absent { .. }), !refuses, "fault {index}: {state:?}");
        service.stop().await;
    }
}
