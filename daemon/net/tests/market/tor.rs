use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_net::onion::{OnionConfig, OnionHandle, ServiceState, Serving, spawn};
use joinery_net::tor::{ControlAddress, TorConfig, TorState, TorTiming, run};
use joinery_proto::private_message::NickKey;
use joinery_roles::channel::{ChannelConfig, ChannelTiming, DirectoryAddress};
use joinery_testkit::Supervised;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::soon;

/// Where a test's Tor is controlled.
struct Control(ControlAddress);

impl From<SocketAddr> for Control {
    fn from(address: SocketAddr) -> Self {
        Self(ControlAddress::Tcp(address))
    }
}

impl From<&Path> for Control {
    fn from(path: &Path) -> Self {
        Self(ControlAddress::Unix(path.to_owned()))
    }
}

/// A running client of a control port.
struct Service {
    state: watch::Receiver<TorState>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// Patient with a loaded machine, quick otherwise.
fn timing() -> TorTiming {
    TorTiming {
        answer: Duration::from_secs(20),
        retry: (Duration::from_millis(50), Duration::from_millis(200)),
        progress: Duration::from_millis(50),
        ..TorTiming::USUAL
    }
}

fn serve(control: impl Into<Control>, change: impl FnOnce(&mut TorConfig)) -> Service {
    let Control(control) = control.into();
    let mut config = TorConfig::new(control, "127.0.0.1:5222".parse().unwrap());
    config.timing = timing();
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
            let ports = std::fs::read_to_string(&port_file).unwrap_or_default();
            if let Some(address) = ports.lines().find_map(|line| line.strip_prefix("PORT=")) {
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
async fn real_tor_is_spoken_to_by_a_unix_socket_too() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("data/control.sock");
    // Tor wants the directory of the socket to be its own.
    std::fs::create_dir(directory.path().join("data")).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(directory.path().join("data"), private).unwrap();
    let extra = format!("CookieAuthentication 1\nControlSocket {}", socket.display());
    let (_process, _control) = tor(directory.path(), &extra).await;
    let mut service = serve(socket.as_path(), |_| {});
    service.until("a service", |state| matches!(state, TorState::Bootstrapping { .. })).await;
    service.stop().await;
}

/// A channel that has Tor make a service, with one directory.
fn maker(control: SocketAddr, directory: SocketAddr) -> OnionHandle {
    let key = NickKey::new(SecretKey::from_slice(&[1; 32]).unwrap());
    let mut channel = ChannelConfig::new("testnet", key.into());
    channel.allow_plain = true;
    channel.timing = ChannelTiming::regtest();
    let directory = directory.to_string().parse().unwrap();
    channel.directories = vec![DirectoryAddress::new(directory)];
    let mut config = OnionConfig::new("maker");
    config.serving = Some(Serving::Onion {
        listen: "127.0.0.1:0".parse().unwrap(),
        control: ControlAddress::Tcp(control),
        cookie: None,
        timing: timing(),
    });
    // Nobody listens; the channel does not end while a sender could be received from.
    let (sender, mut events) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    spawn(config, channel, sender).unwrap()
}

async fn service_until(
    handle: &OnionHandle,
    what: &str,
    mut is: impl FnMut(&ServiceState) -> bool,
) -> ServiceState {
    let mut status = handle.status();
    soon(what, status.wait_for(|status| is(&status.service))).await.unwrap().service.clone()
}

/// While a real Tor is not connected to its network, absent, or refuses, the maker says so and dials nobody.
#[tokio::test]
async fn channel_waits_for_a_real_tor_and_says_what_it_waits_for() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (mut process, control) = tor(directory.path(), "CookieAuthentication 1").await;
    let handle = maker(control, nobody.local_addr().unwrap());
    let is = |state: &ServiceState| matches!(state, ServiceState::Bootstrapping { .. });
    service_until(&handle, "Tor's progress", is).await;
    process.kill().unwrap();
    let is = |state: &ServiceState| matches!(state, ServiceState::Absent { .. });
    service_until(&handle, "Tor's absence", is).await;
    assert!(!handle.status().borrow().is_up());
    handle.stop();
    soon("its end", handle.stopped()).await;

    let directory = tempfile::tempdir().unwrap();
    let password = "HashedControlPassword \
        16:872860B76453A77D60CA2BB8C1A7042072093276A3D701AD684053EC4C";
    let (_process, control) = tor(directory.path(), password).await;
    let handle = maker(control, nobody.local_addr().unwrap());
    let is = |state: &ServiceState| matches!(state, ServiceState::Refused { .. });
    service_until(&handle, "a refusal", is).await;
    handle.stop();
    soon("its end", handle.stopped()).await;
    let dialled = tokio::time::timeout(Duration::ZERO, nobody.accept()).await;
    assert!(dialled.is_err(), "a directory was dialled");
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

/// One connection after the other gets another service: the directory is told each of them, Tor is asked to remove
/// the last one.
#[tokio::test]
async fn lost_control_connection_means_a_new_address_which_directories_are_told() {
    let names = [
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid",
        "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = listener.local_addr().unwrap();
    let (lose, mut lost) = oneshot::channel::<()>();
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        for name in names {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut command = String::new();
            loop {
                tokio::select! {
                    read = stream.read_line(&mut command) => assert!(read.unwrap() > 0),
                    _ = &mut lost, if name == names[0] => break,
                }
                let _ = told.send(command.trim_end().to_owned());
                let answer = match command.split(' ').next().unwrap() {
                    "ADD_ONION" => format!("250-ServiceID={name}\r\n250 OK\r\n").into_bytes(),
                    _ => good(&command),
                };
                stream.write_all(&answer).await.unwrap();
                if command.starts_with("DEL_ONION") {
                    return;
                }
                command.clear();
            }
        }
    });
    let directory = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handle = maker(control, directory.local_addr().unwrap());
    let mut lose = Some(lose);
    for name in names {
        let (stream, _) = soon("a connection", directory.accept()).await.unwrap();
        let (mut stream, mut line) = (BufReader::new(stream), String::new());
        soon("the handshake", stream.read_line(&mut line)).await.unwrap();
        assert!(line.contains(&format!("{name}.onion:5222")), "{line}");
        let serves = handle.status().borrow().service.clone();
        assert!(matches!(serves, ServiceState::Serving { .. }), "{serves:?}");
        drop(lose.take());
    }
    handle.stop();
    soon("its end", handle.stopped()).await;
    let mut commands = Vec::new();
    while let Some(command) = soon("the script's end", asked.recv()).await {
        commands.push(command);
    }
    assert_eq!(commands.last().unwrap(), &format!("DEL_ONION {}", names[1]));
    assert_eq!(handle.status().borrow().service, ServiceState::Stopped);
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
