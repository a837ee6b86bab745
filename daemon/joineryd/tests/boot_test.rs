//! The programs for the box in an emulated one: first boot with a clock that shows 1970, approval at the button, the
//! button's own GPIO line, and the power cut while the wallet writes, with a disk that loses what was not flushed.
//!
//! `make boot-test` puts the machine together (`image/boot-test.sh`) and runs this; by itself it has nothing to boot.
//! The moments of the power cuts come from a seed that is printed; `JOINERY_BOOT_SEED` repeats it as far as two machines
//! can be repeated, `JOINERY_BOOT_CUTS` sets their number.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![allow(clippy::print_stderr, reason = "its output is read by people")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use joinery_testkit::Bench;
use joinery_testkit::emulator::{Cut, Disk, HOST, Machine, Parts, SECTOR, Start};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use support::acknowledged::{
    Acknowledged, agrees_with_the_chain, cut_while_busy, fund, try_unlock, verify,
};
use support::client::{PASSWORD, pem, shown_certificate};
use support::daemon::Listening;
use support::{Client, PATIENCE, until};
use tempfile::TempDir;
use time::macros::datetime;

/// Power cuts of the long test.
const CUTS: u32 = 20;
/// One cut of so many leaves a torn superblock.
const TORN: u32 = 5;
/// Longest time from the start of a batch of calls to the cut. Emulated, a call takes some 50 ms, an unlock a second.
const LONGEST_MS: u64 = 3000;
const WALLET: &str = "box.jmdat";
/// Ports of the API and of the websocket.
const PORTS: [u16; 2] = [28183, 28283];
/// GPIO lines of button and light (`image/boot-test/init`).
const BUTTON: usize = 5;
const LIGHT: usize = 6;

/// A box: what stays when it is switched off.
struct Emulated {
    images: PathBuf,
    directory: TempDir,
    disk: Disk,
    bench: Bench,
    /// The certificate that it showed first, in PEM form: no other is trusted later.
    certificate: Option<PathBuf>,
}

impl Emulated {
    /// A new one, with an empty disk, and a chain of its own on the host.
    fn new() -> Self {
        let images = std::env::var_os("JOINERY_BOOT_TEST");
        let images =
            PathBuf::from(images.expect("run `make boot-test`, which makes what is booted here"));
        let directory = tempfile::Builder::new().prefix("joinery-boot-").tempdir().unwrap();
        let image = directory.path().join("data");
        std::fs::copy(images.join("data"), &image).unwrap();
        let disk = Disk::serve(&image, &directory.path().join("disk")).unwrap();
        let bench = Bench::start().unwrap();
        Self { images, directory, disk, bench, certificate: None }
    }

    /// Switches it on. `settings` are read by `image/boot-test/init`.
    fn switch_on(&self, clock: &str, settings: &str) -> Machine {
        let electrum = self.bench.endpoints().electrum.replace("127.0.0.1", &HOST.to_string());
        let parts = Parts {
            start: Start::Linux {
                kernel: &self.images.join("kernel"),
                initrd: &self.images.join("initrd"),
                command_line: &format!("quiet electrum={electrum} {settings}"),
            },
            clock,
            ports: &PORTS,
            alone: false,
            tap: None,
            button: Some(BUTTON),
        };
        Machine::switch_on(&parts, &self.disk, self.directory.path()).unwrap()
    }

    /// Waits until the API answers; gives a client that trusts the certificate of the first boot alone.
    async fn client(&mut self, machine: &mut Machine) -> Client {
        let [rpc, websocket] = PORTS.map(|port| machine.address(port).unwrap());
        if self.certificate.is_none() {
            let certificate =
                when_running(machine, "HTTPS answers", || shown_certificate(rpc)).await;
            valid_from_2020_to_2060(&certificate);
            let path = self.directory.path().join("certificate.pem");
            std::fs::write(&path, pem(&certificate)).unwrap();
            self.certificate = Some(path);
        }
        let client = Client::new(&Listening {
            pid: 0,
            rpc: format!("https://{rpc}"),
            websocket: format!("wss://{websocket}"),
            certificate: self.certificate.clone(),
            fingerprint: None,
        });
        when_running(machine, "the API answers", async || {
            client.try_get("/api/v1/getinfo").await.filter(|answer| answer.status == 200)
        })
        .await;
        client
    }

    /// Makes of the file system, when the power is off, what a cut while its superblock is written may leave: the first
    /// of its two sectors is new, the second one is that of the day when it was made. No journal puts that right.
    fn tear_superblock(&self) {
        let mut sector = [0; SECTOR];
        let place = 3 * SECTOR as u64;
        File::open(self.images.join("data")).unwrap().read_exact_at(&mut sector, place).unwrap();
        let image = File::options().write(true).open(self.directory.path().join("data")).unwrap();
        image.write_all_at(&sector, place).unwrap();
    }

    /// What the console has shown.
    fn console(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Emulated {
    /// A failed test shows what the box said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the console of the box:\n{}", self.console());
        }
    }
}

/// Looks until something is there, for as long as the machine runs.
async fn when_running<T>(
    machine: &mut Machine,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        machine.require_running().unwrap();
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A clock that shows 1970 does not get into the certificate: it is valid today, and for decades.
fn valid_from_2020_to_2060(certificate: &[u8]) {
    let certificate = CertificateDer::from(certificate.to_vec());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    for (moment, valid) in [
        (datetime!(2019-12-31 23:59 UTC), false),
        (datetime!(2020-01-02 00:00 UTC), true),
        (time::OffsetDateTime::now_utc(), true),
        (datetime!(2059-12-31 00:00 UTC), true),
        (datetime!(2060-01-02 00:00 UTC), false),
    ] {
        let seconds = u64::try_from(moment.unix_timestamp()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let verdict = verifier.verify_server_cert(&certificate, &[], &name, &[], now);
        assert_eq!(verdict.is_ok(), valid, "{moment}: {verdict:?}");
    }
}

/// The board's backend `png` at the machine's terminal: it tells what it draws, and a word presses its button.
struct Panel {
    hand: UnixStream,
    told: Receiver<Value>,
    seen: Vec<Value>,
}

impl Panel {
    fn of(machine: &Machine) -> Self {
        let hand = machine.terminal().unwrap();
        let lines = BufReader::new(hand.try_clone().unwrap()).lines();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { hand, told, seen: Vec::new() }
    }

    /// Waits until something was told since the last time that this was asked for.
    fn until(&mut self, field: &str, value: &str) {
        let end = Instant::now() + PATIENCE;
        while let Ok(line) = self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            let found = line[field] == value;
            self.seen.push(line);
            if found {
                return;
            }
        }
        panic!("the board told of no {field} {value} but {:#?}", self.seen);
    }

    fn press(&mut self) {
        writeln!(self.hand, "press 0.2").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make boot-test makes what it boots"]
async fn first_boot_in_1970_approval_at_the_button_and_a_hold_that_locks() {
    let mut emulated = Emulated::new();
    let on = Instant::now();
    let mut machine = emulated.switch_on("1970-01-01", "board=png approve=unlock");
    let mut panel = Panel::of(&machine);
    let mut client = emulated.client(&mut machine).await;
    eprintln!("HTTPS answers {:.1} s after power-on", on.elapsed().as_secs_f32());
    assert!(emulated.console().contains("1970-01-01T00:"), "the clock of the box shows 1970");

    tokio::task::block_in_place(|| panel.until("warning", "clock is wrong"));

    // The button approves an unlock that its panel has shown.
    client.create(WALLET).await;
    client.lock().await;
    let body = json!({"password": PASSWORD});
    let path = format!("/api/v1/wallet/{WALLET}/unlock");
    let mut unlocking = {
        let (client, path, body) = (client.clone(), path.clone(), body.clone());
        tokio::spawn(async move { client.try_post(&path, &body).await })
    };
    tokio::task::block_in_place(|| panel.until("screen", "unlock"));
    // A press counts when the picture has been there for a while: press until one does.
    let answer = loop {
        panel.press();
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), &mut unlocking).await {
            break answer.unwrap().unwrap();
        }
    };
    client.take_tokens(&answer.expect(200));
    tokio::task::block_in_place(|| panel.until("screen", "outcome"));
    let words: Vec<&Value> = panel.seen.iter().filter(|line| line.get("led").is_some()).collect();
    assert!(words.iter().any(|line| line["led"] == "double-blink"), "{words:?}");
    let address = client.address(0).await;
    machine.cut_power().unwrap();
    // Nothing that was not flushed survives.
    emulated.disk.cut(|| false).unwrap();

    // Another day, with the right time: the same certificate, the same wallet. Now the board has its GPIO lines and no
    // display, so that it can lock and approve nothing.
    let mut machine = emulated.switch_on("utc", "board=gpiochip approve=");
    let mut client = emulated.client(&mut machine).await;
    client.unlock(WALLET).await;
    client.synced(emulated.bench.height().unwrap()).await;
    assert_ne!(client.address(0).await, address, "no address is handed out twice");
    until("the light is on", || async { machine.line(LIGHT)?.high.then_some(()) }).await;
    machine.set_line(BUTTON, false).unwrap();
    // Its token is void then.
    client.token.clear();
    until("a hold locks", || async {
        let session = client.get("/session").await.body;
        (session["session"] == json!(false)).then_some(())
    })
    .await;
    machine.set_line(BUTTON, true).unwrap();
    until("the light goes out", || async { (!machine.line(LIGHT)?.high).then_some(()) }).await;
    machine.require_running().unwrap();
    no_panic(&emulated.console());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make boot-test makes what it boots"]
async fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let seed = number("JOINERY_BOOT_SEED").unwrap_or_else(rand::random);
    let cuts = number("JOINERY_BOOT_CUTS").map_or(CUTS, |cuts| u32::try_from(cuts).unwrap());
    eprintln!("seed: JOINERY_BOOT_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut emulated = Emulated::new();
    let mut known = Acknowledged::default();
    let settings = "board=gpiochip approve=";

    let mut machine = emulated.switch_on("utc", settings);
    let mut client = emulated.client(&mut machine).await;
    client.create(WALLET).await;
    fund(&client, &emulated.bench, &mut known, 4).await;
    client.utxos_when("the first coins", |coins| coins.len() == 20).await;
    let mut running = Some(machine);
    let (mut calls, mut in_cache, mut torn) = (0, Cut::default(), 0);

    for round in 1..=cuts {
        let begin = Instant::now();
        let mut machine = running.take().unwrap_or_else(|| emulated.switch_on("utc", settings));
        let mut client = emulated.client(&mut machine).await;
        let moment = Duration::from_micros(rng.random_range(0..LONGEST_MS * 1000));
        let answered = if rng.random_bool(0.15) {
            // Cut while it unlocks.
            let _ = tokio::time::timeout(moment / 2, try_unlock(&mut client, WALLET)).await;
            machine.cut_power().unwrap();
            0
        } else {
            client.unlock(WALLET).await;
            verify(&client, &emulated.bench, &mut known).await;
            let cut = move || machine.cut_power().unwrap();
            cut_while_busy(cut, &client, &mut rng, &mut known, moment).await
        };
        // All that the disk had in its cache, nothing, or anything in between.
        let survival = f64::from(rng.random_range(0..=4)) / 4.0;
        let cut = emulated.disk.cut(|| rng.random_bool(survival)).unwrap();
        eprintln!(
            "cut {round}: {answered} calls in {} ms; of the cache {} sectors kept, {} lost; {:.1} s in all",
            moment.as_millis(),
            cut.kept,
            cut.lost,
            begin.elapsed().as_secs_f32(),
        );
        calls += answered;
        in_cache = Cut { kept: in_cache.kept + cut.kept, lost: in_cache.lost + cut.lost };
        if round % TORN == 1 {
            emulated.tear_superblock();
            torn += 1;
        }
        if rng.random_bool(0.2) {
            emulated.bench.mine(1, None).unwrap();
        }
    }
    let mut machine = emulated.switch_on("utc", settings);
    let mut client = emulated.client(&mut machine).await;
    client.unlock(WALLET).await;
    client.synced(emulated.bench.height().unwrap()).await;
    known.unseen.append(&mut known.sent);
    verify(&client, &emulated.bench, &mut known).await;
    agrees_with_the_chain(&client, &emulated.bench).await;
    eprintln!(
        "{cuts} power cuts, {calls} calls answered, {} addresses, {} payments, {} flags, {} labels; of the disk's cache \
         {} sectors kept, {} lost",
        known.addresses.len(),
        known.sent.len(),
        known.frozen.len(),
        known.labels.len(),
        in_cache.kept,
        in_cache.lost,
    );
    // As many cuts as usual that never catch a write would show nothing.
    assert!(cuts < CUTS || (calls > cuts && in_cache.lost > 0), "{calls} calls, {in_cache:?}");
    // Every address was flushed before it was given.
    assert!(emulated.disk.flushes() >= known.addresses.len() as u64);
    let console = emulated.console();
    let repaired = console.matches("init: /data was damaged: repaired").count();
    assert!(repaired >= torn, "{torn} superblocks were torn, {repaired} file systems repaired");
    eprintln!(
        "{torn} superblocks were torn on purpose, {repaired} file systems had to be repaired"
    );
    no_panic(&console);
}

/// Neither the kernel nor a program gave up.
fn no_panic(console: &str) {
    for word in ["panicked", "Kernel panic", "EXT4-fs error", "init: the daemon has ended"] {
        assert!(!console.contains(word), "{word}:\n{console}");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
