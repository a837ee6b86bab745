//! A box that is not there: QEMU's `virt` machine with an arm64 processor, a disk that forgets what was not flushed when
//! the power is cut ([`Disk`]), a button and a light on GPIO lines, and ports of the host that lead into it.
//!
//! The machine finds programs that listen on the host's loopback addresses at [`HOST`]. What it prints on its console
//! is in a file. Needs `qemu-system-aarch64` (Debian: qemu-system-arm); there is no help of the processor, so that it
//! runs anywhere, slowly.

mod disk;
mod lines;
mod qmp;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

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
    /// Linux for arm64, not compressed.
    pub kernel: &'a Path,
    /// Its first file system.
    pub initrd: &'a Path,
    /// What the kernel is told besides its console.
    pub command_line: &'a str,
    /// What its clock shows when it is switched on, as QEMU's `-rtc base=` takes it: `utc` is now, or a date such as
    /// `1970-01-01`.
    pub clock: &'a str,
    /// TCP ports of the machine that are reached from the host.
    pub ports: &'a [u16],
    /// The line of the button, which connects it to ground: it is up when the machine is switched on.
    pub button: usize,
}

/// A machine that is switched on. Dropped, it is switched off.
#[derive(Debug)]
pub struct Machine {
    qemu: Supervised,
    qmp: Qmp,
    lines: Lines,
    /// See [`Machine::terminal`].
    terminal: UnixStream,
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
        let forwards: String =
            parts.ports.iter().map(|port| format!(",hostfwd=tcp:127.0.0.1:0-:{port}")).collect();
        let path = |path: &Path| path.display().to_string();
        let terminal = socket("terminal").replacen("unix:", "socket,id=terminal,path=", 1);
        let console = at("console");
        let arguments: Vec<String> = [
            // Two processors: as many as the machines have that tests run on.
            &["-M", "virt", "-accel", "tcg", "-cpu", "cortex-a53", "-smp", "2", "-m", "512"][..],
            &["-nodefaults", "-display", "none", "-no-reboot", "-S"],
            &["-kernel", &path(parts.kernel), "-initrd", &path(parts.initrd)],
            &["-append", &format!("console=ttyAMA0 panic=-1 {}", parts.command_line)],
            &["-rtc", &format!("base={}", parts.clock)],
            &["-chardev", &format!("file,id=console,append=on,path={}", path(&console))],
            &["-serial", "chardev:console"],
            &["-qmp", &socket("qmp"), "-qtest", &socket("qtest"), "-qtest-log", "none"],
            &["-netdev", &format!("user,id=net,ipv6=off{forwards}")],
            &["-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"],
            &["-device", "virtio-serial-device", "-chardev", &terminal],
            &["-device", "virtserialport,chardev=terminal,name=terminal"],
            &[
                "-blockdev",
                &format!(
                    "driver=nbd,node-name=data,server.type=unix,server.path={}",
                    path(disk.socket())
                ),
            ],
            &["-device", "virtio-blk-device,drive=data"],
        ]
        .concat()
        .into_iter()
        .map(String::from)
        .collect();
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
        let (qtest, terminal) = (connect("qtest")?, connect("terminal")?);
        let chip = gpio_chip(&mut qmp)?;
        let mut lines = Lines::new(qtest, chip)?;
        lines.set(parts.button, true)?;
        qmp.execute("cont", &json!({}))?;
        Ok(Self { qemu, qmp, lines, terminal, console })
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
    /// When there is no such line, or the emulator is gone.
    pub fn set_line(&mut self, line: usize, high: bool) -> Result<()> {
        self.lines.set(line, high)
    }

    /// What the machine drives a GPIO line to; `None` when there is no such line.
    #[must_use]
    pub fn line(&self, line: usize) -> Option<Output> {
        self.lines.output(line)
    }

    /// The other end of `/dev/vport*`, a serial line besides the console.
    ///
    /// # Errors
    /// When the system gives no second handle.
    pub fn terminal(&self) -> Result<UnixStream> {
        Ok(self.terminal.try_clone()?)
    }

    /// What the console has shown so far, that of earlier machines in the same directory included.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
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
