//! A card with the image, and who puts it into a machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use joinery_testkit::emulator::{Disk, Machine, Parts, SECTOR, Start};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Client;
use crate::support::client::{PASSWORD, pem, shown_certificate};
use crate::support::daemon::Listening;

/// Longest time that a start may take: a loaded machine without help of the processor.
pub const START: Duration = Duration::from_secs(1200);
/// Between two looks: answering costs an emulated machine time.
pub const LOOK: Duration = Duration::from_secs(1);
/// Bytes of the emulated card.
pub const CARD: u64 = 4 << 30;
pub const WALLET: &str = "box.jmdat";

/// Ports of the API, of the websocket, of browsers, and of ssh.
pub const RPC: u16 = 28183;
pub const WEBSOCKET: u16 = 28283;
pub const HTTPS: u16 = 443;
pub const SSH: u16 = 22;

/// A card, and what the image was built with.
pub struct Card {
    /// Where `make image` and image/test.sh left their files.
    images: PathBuf,
    directory: TempDir,
    pub disk: Disk,
    /// Shown at the first start; no other is trusted later.
    certificate: Option<PathBuf>,
}

impl Card {
    /// The image on a bigger card, with a key for ssh in its `joinery.txt`.
    pub fn new() -> Self {
        let images = std::env::var_os("JOINERY_IMAGE");
        let images =
            PathBuf::from(images.expect("run `make image-test`, which builds what is booted here"));
        let directory = tempfile::Builder::new().prefix("joinery-image-").tempdir().unwrap();
        let card = directory.path().join("card");
        // `cp` keeps the holes.
        run(Command::new("cp").arg("--sparse=always").arg(only(&images, ".img")).arg(&card));
        File::options().write(true).open(&card).unwrap().set_len(CARD).unwrap();
        let key = directory.path().join("key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let disk = Disk::serve(&card, &directory.path().join("disk")).unwrap();
        let card = Self { images, directory, disk, certificate: None };
        let public = std::fs::read_to_string(card.at("key.pub")).unwrap();
        card.settings(|text| format!("{text}\nssh_key = {public}"));
        card
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Edits `joinery.txt`, as a person does who has the card in a computer; the machine is off.
    pub fn settings(&self, edit: impl FnOnce(String) -> String) {
        let (card, local) = (self.at("card"), self.at("joinery.txt"));
        let partition = format!("{}@@{}", card.display(), partition(&card, 1).0);
        run(Command::new("mcopy")
            .args(["-n", "-o", "-i", &partition, "::joinery.txt"])
            .arg(&local));
        std::fs::write(&local, edit(std::fs::read_to_string(&local).unwrap())).unwrap();
        run(Command::new("mcopy").args(["-o", "-i", &partition]).arg(&local).arg("::joinery.txt"));
    }

    /// Switches a machine on that starts as a person's does: boot loader, its script, what is on the card.
    pub fn switch_on(&self) -> Machine {
        self.machine(Start::Firmware(&self.images.join("u-boot-qemu.bin")))
    }

    /// The same machine without a boot loader, and with other words for the kernel.
    pub fn switch_on_with(&self, command_line: &str) -> Machine {
        let test = self.images.join("test");
        let (kernel, initrd) = (&test.join("Image"), &test.join("initrd"));
        self.machine(Start::Linux { kernel, initrd, command_line })
    }

    /// A Raspberry Pi 3, without a network.
    pub fn switch_on_pi(&self) -> Machine {
        let test = self.images.join("test");
        let (loader, tree) = (&test.join("u-boot.bin"), &test.join("bcm2837-rpi-3-b.dtb"));
        self.machine(Start::RaspberryPi { loader, tree })
    }

    /// The boot partition's files; the machine is off.
    pub fn boot_files(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.at("card"))
    }

    /// Those of the image.
    pub fn boot_files_as_flashed(&self) -> BTreeMap<String, Vec<u8>> {
        files(&only(&self.images, ".img"))
    }

    fn machine(&self, start: Start<'_>) -> Machine {
        let tap = std::env::var("JOINERY_IMAGE_TAP").ok();
        let parts = Parts {
            start,
            clock: "utc",
            ports: &[RPC, WEBSOCKET, HTTPS, SSH],
            alone: true,
            tap: tap.as_deref(),
            button: None,
        };
        Machine::switch_on(&parts, &self.disk, self.directory.path()).unwrap()
    }

    /// Waits until the API answers; gives a client that trusts the certificate of the first start alone.
    pub async fn client(&mut self, machine: &mut Machine) -> Client {
        let [rpc, websocket] = [RPC, WEBSOCKET].map(|port| machine.address(port).unwrap());
        if self.certificate.is_none() {
            let shown =
                awaited(machine, "HTTPS answers", async |_| shown_certificate(rpc).await).await;
            let path = self.at("certificate.pem");
            std::fs::write(&path, pem(&shown)).unwrap();
            self.certificate = Some(path);
        }
        let client = Client::new(&Listening {
            pid: 0,
            rpc: format!("https://{rpc}"),
            websocket: format!("wss://{websocket}"),
            certificate: self.certificate.clone(),
            fingerprint: None,
        });
        awaited(machine, "the API answers", async |_| {
            client.try_get("/api/v1/getinfo").await.filter(|answer| answer.status == 200)
        })
        .await;
        client
    }

    /// The same with an open wallet.
    pub async fn unlocked(&mut self, machine: &mut Machine) -> Client {
        let mut client = self.client(machine).await;
        // Emulated, and while other services start, the key derivation takes its time.
        let path = format!("/api/v1/wallet/{WALLET}/unlock");
        let body = serde_json::json!({"password": PASSWORD});
        let opened =
            awaited(machine, "the wallet opens", async |_| client.try_post(&path, &body).await)
                .await;
        client.take_tokens(&opened.expect(200));
        client
    }

    /// Waits for the page that asks for the password of the encrypted volume.
    pub async fn key_page(&self, machine: &mut Machine) -> KeyPage {
        let rpc = machine.address(RPC).unwrap();
        let shown = awaited(machine, "HTTPS answers", async |_| shown_certificate(rpc).await).await;
        let trusted = reqwest::Certificate::from_der(&shown).unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(START);
        let client = client.redirect(reqwest::redirect::Policy::none());
        let client = client.tls_certs_only([trusted]).build().unwrap();
        KeyPage { client, url: format!("https://{rpc}"), certificate: shown }
    }

    /// Whether these bytes are anywhere on the card.
    pub fn has(&self, bytes: &str) -> bool {
        // Between zeroes there are lines, too: most of the card is one.
        let mut grep = Command::new("grep");
        grep.env("LC_ALL", "C").args(["-z", "-a", "-q", "-F", "-e", bytes]).arg(self.at("card"));
        match grep.status().unwrap().code() {
            Some(0) => true,
            Some(1) => false,
            other => panic!("grep: {other:?}"),
        }
    }

    /// Runs a command in the machine as root, awaited until it ends well and prints what it should.
    pub async fn ssh_until(
        &self,
        machine: &mut Machine,
        command: &str,
        good: impl Fn(&str) -> bool,
    ) -> String {
        let mut last = String::new();
        awaited(machine, command, async |machine| match self.try_ssh(machine, command) {
            Ok(printed) if good(&printed) => Some(printed),
            Ok(printed) | Err(printed) => {
                if printed != last {
                    eprintln!("{command}: {printed}");
                    last = printed;
                }
                None
            }
        })
        .await
    }

    /// The same, whatever it prints.
    pub async fn ssh(&self, machine: &mut Machine, command: &str) -> String {
        self.ssh_until(machine, command, |_| true).await
    }

    fn try_ssh(&self, machine: &mut Machine, command: &str) -> Result<String, String> {
        let address = machine.address(SSH).unwrap();
        let output = Command::new("ssh")
            .arg("-i")
            .arg(self.at("key"))
            .args(["-p", &address.port().to_string(), "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "root@127.0.0.1", command])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{}; {} {}", output.status, text(&output.stdout), text(&output.stderr)))
        }
    }

    /// Switches off as the button does, and waits for the end.
    pub async fn switch_off(&self, mut machine: Machine) {
        // The connection may end before the command does.
        let _ = self.try_ssh(&mut machine, "touch /run/joinery/poweroff");
        let end = Instant::now() + START;
        while machine.require_running().is_ok() {
            assert!(Instant::now() < end, "the box stays on:\n{}", tail(&machine));
            tokio::time::sleep(LOOK).await;
        }
        // An orderly end leaves nothing in the cache that matters; what it leaves is lost.
        self.disk.cut(|| false).unwrap();
    }

    /// A bundle that image/test.sh has made.
    pub fn bundle(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.images.join("test").join(format!("{name}.raucb"))).unwrap()
    }

    /// Where a root slot that image/test.sh has made is.
    pub fn variant(&self, name: &str) -> PathBuf {
        self.images.join("test").join(format!("{name}.ext4"))
    }

    /// The root slot of the image.
    pub fn rootfs(&self) -> PathBuf {
        only(&self.images, "-rootfs.ext4")
    }

    /// Where a partition begins and how long it is, bytes.
    pub fn partition(&self, number: u64) -> (u64, u64) {
        partition(&self.at("card"), number)
    }

    /// Whether a partition is byte for byte as in the image.
    pub fn as_flashed(&self, number: u64) -> bool {
        let image = only(&self.images, ".img");
        self.same(number, &image, partition(&image, number).0)
    }

    /// Whether a partition is byte for byte this file.
    pub fn holds(&self, number: u64, file: &Path) -> bool {
        self.same(number, file, 0)
    }

    fn same(&self, number: u64, file: &Path, from: u64) -> bool {
        let (start, length) = self.partition(number);
        let (card, file) = (File::open(self.at("card")).unwrap(), File::open(file).unwrap());
        let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        (0..length).step_by(1 << 20).all(|at| {
            card.read_exact_at(&mut a, start + at).unwrap();
            file.read_exact_at(&mut b, from + at).unwrap();
            a == b
        })
    }
}

/// The page that asks for the password of the encrypted volume, and its certificate.
#[derive(Debug, Clone)]
pub struct KeyPage {
    client: reqwest::Client,
    url: String,
    pub certificate: Vec<u8>,
}

impl KeyPage {
    /// Status and text.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Types a password into its form. `None` when the machine ends before it answers.
    pub async fn enter(&self, password: &str) -> Option<(u16, String)> {
        let request = self.client.post(&self.url).header("origin", &self.url);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let body = format!("password={password}&again={password}");
        let answer = request.body(body).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Waits until somebody else answers in its place.
    pub async fn gone(&self, machine: &mut Machine) {
        let rpc = machine.address(RPC).unwrap();
        awaited(machine, "the daemon answers in the place of the page", async |_| {
            (shown_certificate(rpc).await? != self.certificate).then_some(())
        })
        .await;
    }
}

impl Drop for Card {
    /// A failed test shows what the box said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let bytes = std::fs::read(self.at("console")).unwrap_or_default();
            eprintln!("the console of the box:\n{}", String::from_utf8_lossy(&bytes));
        }
    }
}

/// How often U-Boot has started a kernel, by the console.
pub fn starts(machine: &Machine) -> usize {
    machine.console().matches("Starting kernel").count()
}

/// Waits until U-Boot has started a kernel so often.
pub async fn started(machine: &mut Machine, count: usize) {
    awaited(machine, "the next start", async |machine| (starts(machine) >= count).then_some(()))
        .await;
}

/// Stops the boot loader of a machine that starts, at the `count`th prompt that it shows in all, and has it do something else.
pub async fn at_prompt(machine: &mut Machine, prompt: &str, count: usize, commands: &str) {
    awaited(machine, "the boot loader's prompt", async |machine| {
        machine.type_in("\x03\r").unwrap();
        (machine.console().matches(prompt).count() >= count).then_some(())
    })
    .await;
    machine.type_in(&format!("\x03\r{commands}\r")).unwrap();
}

/// Looks until something is there, for as long as the machine runs and has time left.
pub async fn awaited<T>(
    machine: &mut Machine,
    what: &str,
    mut look: impl AsyncFnMut(&mut Machine) -> Option<T>,
) -> T {
    let end = Instant::now() + START;
    loop {
        if let Some(found) = look(machine).await {
            return found;
        }
        machine.require_running().unwrap();
        assert!(Instant::now() < end, "waited in vain: {what}\n{}", tail(machine));
        tokio::time::sleep(LOOK).await;
    }
}

fn tail(machine: &Machine) -> String {
    let console = machine.console();
    let lines: Vec<&str> = console.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The state of updates, awaited until it is as it should be.
pub async fn update_when(
    machine: &mut Machine,
    client: &Client,
    what: &str,
    good: impl Fn(&Value) -> bool,
) -> Value {
    awaited(machine, what, async |_| {
        let answer = client.try_get("/api/v1/update").await?;
        // Before the root side has said anything there are no updates here.
        (answer.status == 200 && good(&answer.body)).then_some(answer.body)
    })
    .await
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The one file in `directory` whose name ends so.
fn only(directory: &Path, end: &str) -> PathBuf {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    let [path] = found.as_slice() else { panic!("not one {end} in {directory:?}: {found:?}") };
    path.clone()
}

/// What is in the first partition of a card.
fn files(card: &Path) -> BTreeMap<String, Vec<u8>> {
    let copies = tempfile::tempdir().unwrap();
    let from = format!("{}@@{}", card.display(), partition(card, 1).0);
    run(Command::new("mcopy").args(["-s", "-n", "-i", &from, "::*"]).arg(copies.path()));
    let entries = std::fs::read_dir(copies.path()).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Where a partition of a card begins and how long it is, bytes, by its partition table.
fn partition(card: &Path, number: u64) -> (u64, u64) {
    let mut table = [0; SECTOR];
    File::open(card).unwrap().read_exact(&mut table).unwrap();
    let at = 446 + 16 * (usize::try_from(number).unwrap() - 1);
    let word = |at: usize| {
        u64::from(u32::from_le_bytes(table[at..at + 4].try_into().unwrap())) * SECTOR as u64
    };
    (word(at + 8), word(at + 12))
}
