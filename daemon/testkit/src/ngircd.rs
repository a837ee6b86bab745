//! A real IRC server (Debian's `ngircd`) on loopback, with a configuration of the test's own.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::Supervised;
use crate::wait::{PATIENCE, wait_for};

/// Where Debian puts it, which is not in everybody's `PATH`.
const DEBIAN: &str = "/usr/sbin/ngircd";
/// Ports that are tried; between choosing one and listening on it somebody else may take it.
const ATTEMPTS: usize = 5;

/// A running server. It ends when dropped.
#[derive(Debug)]
pub struct Ngircd {
    directory: TempDir,
    address: SocketAddr,
    process: Supervised,
}

impl Ngircd {
    /// Starts a server that takes nicks of 30 characters. `network`: the name that it tells clients, if any.
    ///
    /// # Errors
    /// When the package `ngircd` is not installed, or no port is free.
    pub fn start(network: Option<&str>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // It does not run as root; whoever it runs as must find its configuration.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
        let mut refusal = String::new();
        for _ in 0..ATTEMPTS {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            configure(directory.path(), free, network)?;
            let mut process = run(directory.path())?;
            if is_listening(&mut process, free)? {
                return Ok(Self { directory, address: free, process });
            }
            refusal = process.log_tail();
        }
        bail!("ngircd does not start: {refusal}")
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the server, with all its connections.
    ///
    /// # Errors
    /// As [`Supervised::kill`].
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts the server again, at the same address, after [`Self::kill`].
    ///
    /// # Errors
    /// When somebody else took its port.
    pub fn restart(&mut self) -> Result<()> {
        self.process = run(self.directory.path())?;
        if is_listening(&mut self.process, self.address)? {
            return Ok(());
        }
        bail!("ngircd does not start again: {}", self.process.log_tail())
    }
}

fn configure(directory: &Path, address: SocketAddr, network: Option<&str>) -> Result<()> {
    let network = network.map(|name| format!("Network = {name}\n")).unwrap_or_default();
    let (ip, port) = (address.ip(), address.port());
    let text = format!(
        "[Global]\nName = irc.example.net\nInfo = a test\nAdminInfo1 = nobody\nAdminInfo2 = nowhere\n\
         AdminEMail = nobody@example.net\nMotdPhrase = hello\nListen = {ip}\nPorts = {port}\n{network}\
         [Limits]\nMaxNickLength = 30\nMaxConnectionsIP = 0\nMaxPenaltyTime = 0\n\
         [Options]\nDNS = no\nIdent = no\nPAM = no\n"
    );
    let path = config(directory);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o644))?;
    Ok(())
}

fn config(directory: &Path) -> PathBuf {
    directory.join("ngircd.conf")
}

fn run(directory: &Path) -> Result<Supervised> {
    let program = if Path::new(DEBIAN).exists() { DEBIAN } else { "ngircd" };
    let mut arguments: Vec<String> = Vec::new();
    if rustix::process::geteuid().is_root() {
        // As root it would change its user itself, and thereby outlive a test that is killed.
        let user = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];
        let ends = ["--pdeathsig", "SIGKILL", "--"];
        arguments.extend(user.into_iter().chain(ends).map(str::to_owned));
        arguments.push(program.to_owned());
    }
    let config = config(directory).display().to_string();
    arguments.extend(["--nodaemon".to_owned(), "--config".to_owned(), config]);
    let program = if rustix::process::geteuid().is_root() { "setpriv" } else { program };
    let log = directory.join("ngircd.log");
    Supervised::start("ngircd", Path::new(program), arguments, &log)
        .context("the package ngircd must be installed (make deps)")
}

/// Waits until it takes connections; false when it ended instead.
fn is_listening(process: &mut Supervised, address: SocketAddr) -> Result<bool> {
    let outcome = wait_for(PATIENCE, || {
        if !matches!(process.ended(), Ok(None)) {
            return Some(false);
        }
        let connection = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        connection.is_ok().then_some(true)
    });
    outcome.context("ngircd neither listens nor ends")
}
