//! A box that is not there: QEMU's `virt` machine with an arm64 processor that starts a kernel or a boot loader, a disk that forgets what was not flushed when
//! the power is cut ([`Disk`]), a button and a light on GPIO lines, and ports of the host that lead into it.
//!
//! The machine finds programs that listen on the host's loopback addresses at [`HOST`]. What it prints on its console
//! is in a file. Needs `qemu-system-aarch64` (Debian: qemu-system-arm); there is no help of the processor, so that it
//! runs anywhere, slowly.

mod disk;
mod lines;
mod qmp;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

pub use disk::{Cut, Disk, SECTOR};
pub use lines::Output;

use crate::process::Supervised;
use crate::wait::{PATIENCE, wait_for};
use lines::Lines;
use qmp::Qmp;

/// Where the machine finds the host's loopback addresses.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// What runs first.
    pub start: Start<'a>,
    /// What its clock shows when it is switched on, as QEMU's `-rtc base=` takes it: `utc` is now, or a date such as
    /// `1970-01-01`.
    pub clock: &'a str,
    /// TCP ports of the machine that are reached from the host.
    pub ports: &'a [u16],
    /// The machine reaches nothing, not even the host; [`Parts::ports`] lead into it all the same.
    pub alone: bool,
    /// A network device of the host that is the other end of a second cable; it has to be there. The card of the machine
    /// has the number 52:54:00:12:34:57.
    pub tap: Option<&'a str>,
    /// The line of the button, which connects it to ground: it is up when the machine is switched on. Without one the
    /// machine has no GPIO chip that is looked at.
    pub button: Option<usize>,
}

/// What a machine starts with.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// A kernel, put into its memory. When it gives up or wants to start again, the emulator ends.
    Linux {
        /// Linux for arm64, not compressed.
        kernel: &'a Path,
        /// Its first file system.
        initrd: &'a Path,
        /// What the kernel is told besides its console.
        command_line: &'a str,
    },
    /// A boot loader, which takes the rest from the disk, as often as the machine wants to start again.
    Firmware(&'a Path),
    /// A boot loader on a Raspberry Pi 3 instead of `virt`: the disk is its card, and there is nothing else, no network
    /// and no terminal.
    RaspberryPi {
        /// As the firmware of the board would start it.
        loader: &'a Path,
        /// The device tree that the firmware would hand over.
        tree: &'a Path,
    },
}

/// A machine that is switched on. Dropped, it is switched off.
#[derive(Debug)]
pub struct Machine {
    qemu: Supervised,
    qmp: Qmp,
    lines: Option<Lines>,
    /// See [`Machine::terminal`].
    terminal: Option<UnixStream>,
    /// What is written here is typed at the console.
    keyboard: UnixStream,
    console: PathBuf,
}

impl Machine {
    /// Switches a machine on. Its sockets and the file of its console, which is appended to, are in `directory`: one
    /// machine at a time.
    ///
    /// # Errors
    /// When the emulator cannot be started or does not answer.
    pub fn switch_on(parts: &Parts<'_>, disk: &Disk, directory: &Path) -> Result<Self> {
        let at = |name: &str| directory.join(name);
        let socket = |name: &str| {
            // One that an earlier machine left behind; it need not be there.
            let _ = std::fs::remove_file(at(name));
            format!("unix:{},server=on,wait=off", at(name).display())
        };
        let arguments = arguments(parts, disk, at("console").as_path(), socket);
        let program = Path::new("qemu-system-aarch64");
        let mut qemu = Supervised::start("the emulator", program, &arguments, &at("emulator.log"))?;
        let mut connect = |name: &str| {
            let stream = wait_for(PATIENCE, || match qemu.require_running() {
                Ok(()) => UnixStream::connect(at(name)).ok().map(Ok),
                Err(error) => Some(Err(error)),
            });
            stream.with_context(|| format!("the emulator does not listen at {name}"))?
        };
        let mut qmp = Qmp::new(connect("qmp")?)?;
        let keyboard = connect("keyboard")?;
        // What comes back is in the file; a machine that nobody listens to would wait.
        let mut shown = keyboard.try_clone()?;
        std::thread::Builder::new().name("console".into()).spawn(move || {
            let _ = std::io::copy(&mut shown, &mut std::io::sink());
        })?;
        let terminal = match parts.start {
            Start::RaspberryPi { .. } => None,
            Start::Linux { .. } | Start::Firmware(_) => Some(connect("terminal")?),
        };
        let lines = match parts.button {
            Some(button) => {
                let mut lines = Lines::new(connect("qtest")?, gpio_chip(&mut qmp)?)?;
                lines.set(button, true)?;
                Some(lines)
            }
            None => None,
        };
        qmp.execute("cont", &json!({}))?;
        Ok(Self { qemu, qmp, lines, terminal, keyboard, console: at("console") })
    }

    /// Where the host reaches a port of the machine, which is one of [`Parts::ports`].
    ///
    /// # Errors
    /// When it is not, or the emulator does not say.
    pub fn address(&mut self, port: u16) -> Result<SocketAddr> {
        let arguments = json!({"command-line": "info usernet"});
        let table = self.qmp.execute("human-monitor-command", &arguments)?;
        let table = table.as_str().unwrap_or_default();
        let outside = qmp::forwarded_port(table, port)
            .with_context(|| format!("port {port} is not forwarded: {table}"))?;
        Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, outside).into())
    }

    /// Connects a GPIO line of the machine to 3.3 V or to ground.
    ///
    /// # Errors
    /// When there is no such line or no chip with a button, or the emulator is gone.
    pub fn set_line(&mut self, line: usize, high: bool) -> Result<()> {
        self.lines.as_mut().context("a machine without a button")?.set(line, high)
    }

    /// What the machine drives a GPIO line to; `None` when there is no such line.
    #[must_use]
    pub fn line(&self, line: usize) -> Option<Output> {
        self.lines.as_ref()?.output(line)
    }

    /// The other end of `/dev/vport*`, a serial line besides the console.
    ///
    /// # Errors
    /// When the machine has none, or the system gives no second handle.
    pub fn terminal(&self) -> Result<UnixStream> {
        Ok(self.terminal.as_ref().context("a machine without a terminal")?.try_clone()?)
    }

    /// Types at the console.
    ///
    /// # Errors
    /// When the emulator is gone.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).context("the console")
    }

    /// What the console has shown so far, that of earlier machines in the same directory included.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// How long the host's processors have worked for the machine so far: what a busy host changes less than the time that
    /// passes.
    ///
    /// # Errors
    /// When the emulator is gone.
    pub fn worked(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.qemu.id()))?;
        // After the name, which is in brackets, utime and stime are the fields 14 and 15 of proc(5), in hundredths of a
        // second: what Linux shows is always in those.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let hundredths = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(hundredths * 10))
    }

    /// Refuses with the end of the console when the machine has switched itself off or its kernel has given up.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn require_running(&mut self) -> Result<()> {
        self.qemu.require_running().with_context(|| {
            format!("the console ends with\n{}", crate::process::tail(&self.console))
        })
    }

    /// Cuts the power. What the disk's cache holds is kept or lost with [`Disk::cut`].
    ///
    /// # Errors
    /// When the emulator cannot be killed.
    pub fn cut_power(mut self) -> Result<()> {
        self.qemu.kill()
    }
}

/// The command line of the emulator. `socket` makes the address of a socket that it listens at.
fn arguments(
    parts: &Parts<'_>,
    disk: &Disk,
    console: &Path,
    socket: impl Fn(&str) -> String,
) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let mut all = Vec::new();
    let mut add = |some: &[&str]| all.extend(some.iter().map(|&word| word.to_owned()));
    let stored = format!("driver=nbd,server.type=unix,server.path={}", path(disk.socket()));
    // What is typed comes in by a socket, what is shown goes to a file, whether somebody listens or not.
    let keyboard = socket("keyboard").replacen("unix:", "path=", 1);
    let shown = format!("socket,id=console,{keyboard},logfile={},logappend=on", path(console));
    add(&["-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-chardev", &shown]);
    add(&["-qmp", &socket("qmp"), "-qtest", &socket("qtest"), "-qtest-log", "none"]);
    match parts.start {
        Start::Linux { kernel, initrd, command_line } => {
            add(&["-no-reboot", "-kernel", &path(kernel), "-initrd", &path(initrd)]);
            add(&["-append", &format!("console=ttyAMA0 panic=-1 {command_line}")]);
        }
        Start::Firmware(loader) => add(&["-bios", &path(loader)]),
        Start::RaspberryPi { loader, tree } => {
            add(&["-M", "raspi3b", "-kernel", &path(loader), "-dtb", &path(tree)]);
            add(&["-drive", &format!("if=sd,{stored}")]);
            // Its first serial line leads to Bluetooth.
            add(&["-serial", "null", "-serial", "chardev:console"]);
            return all;
        }
    }
    // Two processors: as many as the machines have that tests run on.
    add(&["-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", "512"]);
    add(&["-rtc", &format!("base={}", parts.clock), "-serial", "chardev:console"]);
    let alone = if parts.alone { "on" } else { "off" };
    let forwards = parts.ports.iter().map(|port| format!(",hostfwd=tcp:127.0.0.1:0-:{port}"));
    let forwards: String = forwards.collect();
    add(&["-netdev", &format!("user,id=net,ipv6=off,restrict={alone}{forwards}")]);
    add(&["-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"]);
    if let Some(name) = parts.tap {
        add(&["-netdev", &format!("tap,id=cable,ifname={name},script=no,downscript=no")]);
        add(&["-device", "virtio-net-device,netdev=cable,mac=52:54:00:12:34:57"]);
    }
    let terminal = socket("terminal").replacen("unix:", "socket,id=terminal,path=", 1);
    add(&["-device", "virtio-serial-device", "-chardev", &terminal]);
    add(&["-device", "virtserialport,chardev=terminal,name=terminal"]);
    add(&["-blockdev", &format!("node-name=data,{stored}")]);
    add(&["-device", "virtio-blk-device,drive=data"]);
    all
}

/// The path of the GPIO chip in the emulator's tree of objects.
fn gpio_chip(qmp: &mut Qmp) -> Result<String> {
    let place = "/machine/unattached";
    let objects = qmp.execute("qom-list", &json!({"path": place}))?;
    let name = objects
        .as_array()
        .and_then(|objects| objects.iter().find(|object| object["type"] == "child<pl061>"))
        .and_then(|chip| chip["name"].as_str())
        .context("the emulated machine has no PL061")?;
    Ok(format!("{place}/{name}"))
}
