//! Command lines of the two programs, and choosing ports for them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Endpoints;
use crate::process::Supervised;
use crate::rpc::Rpc;
use crate::tools::Tools;
use crate::wait::{PATIENCE, wait_for};

/// Starts are tried this often: between finding a free port and binding it, somebody else may take it.
const ATTEMPTS: u32 = 4;

/// Free loopback ports, found by the kernel.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub(super) rpc: SocketAddr,
    pub(super) electrum: SocketAddr,
    p2p: SocketAddr,
    monitoring: SocketAddr,
}

impl Ports {
    fn choose() -> Result<Self> {
        // All four are held at once, so that they differ.
        let listeners: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<std::io::Result<_>>()
            .context("no free loopback port")?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;
        match addresses.as_slice() {
            &[rpc, electrum, p2p, monitoring] => Ok(Self { rpc, electrum, p2p, monitoring }),
            _ => bail!("four listeners have four addresses"),
        }
    }

    pub(super) fn endpoints(&self, directory: &Path) -> Endpoints {
        Endpoints {
            electrum: format!("tcp://{}", self.electrum),
            bitcoind_rpc: format!("http://{}", self.rpc),
            cookie_file: cookie_file(directory),
            directory: None,
        }
    }
}

pub(super) fn cookie_file(directory: &Path) -> PathBuf {
    directory.join("bitcoind/regtest/.cookie")
}

pub(super) fn electrs_log(directory: &Path) -> PathBuf {
    directory.join("electrs.log")
}

/// Starts bitcoind and waits until it answers.
pub(super) fn start_bitcoind(tools: &Tools, directory: &Path) -> Result<(Ports, Supervised)> {
    let data = directory.join("bitcoind");
    std::fs::create_dir_all(&data)?;
    // A cookie left by a killed predecessor would be taken for the new one's.
    match std::fs::remove_file(cookie_file(directory)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut last_error = None;
    for _ in 0..ATTEMPTS {
        let ports = Ports::choose()?;
        let mut bitcoind = Supervised::start(
            "bitcoind",
            &tools.bitcoind,
            bitcoind_arguments(&data, &ports),
            &directory.join("bitcoind.log"),
        )?;
        let rpc = Rpc::new(ports.rpc, cookie_file(directory));
        let answer = wait_for(PATIENCE, || {
            if let Err(ended) = bitcoind.require_running() {
                return Some(Err(ended));
            }
            rpc.call("getblockchaininfo", &json!([])).is_ok().then_some(Ok(()))
        });
        match answer {
            Some(Ok(())) => return Ok((ports, bitcoind)),
            Some(Err(ended)) => last_error = Some(ended),
            None => bail!("bitcoind does not answer; its log ends with\n{}", bitcoind.log_tail()),
        }
    }
    Err(last_error.context("bitcoind was never tried")?)
}

fn bitcoind_arguments(data: &Path, ports: &Ports) -> Vec<String> {
    vec![
        "-regtest".into(),
        format!("-datadir={}", data.display()),
        "-nosettings".into(),
        "-server".into(),
        "-rpcbind=127.0.0.1".into(),
        "-rpcallowip=127.0.0.1".into(),
        format!("-rpcport={}", ports.rpc.port()),
        "-rpcthreads=8".into(),
        "-rpcworkqueue=256".into(),
        // electrs reads blocks over the peer protocol, so one loopback port is open for it; nothing else is.
        "-listen=1".into(),
        format!("-bind={}", ports.p2p),
        "-whitelist=noban,download@127.0.0.1".into(),
        "-listenonion=0".into(),
        "-discover=0".into(),
        "-dnsseed=0".into(),
        "-fixedseeds=0".into(),
        "-natpmp=0".into(),
        // A chain whose last block is old (a kept directory) counts as complete all the same.
        "-maxtipage=3153600000".into(),
        // Regtest would accept non-standard transactions; the daemon must make such that mainnet relays.
        "-acceptnonstdtxn=0".into(),
        // electrs 0.10.10 takes no mempool entry without a field that this version of Core has retired.
        "-deprecatedrpc=bip125".into(),
        "-dbcache=16".into(),
        "-par=1".into(),
        "-printtoconsole=1".into(),
        "-nodebuglogfile".into(),
    ]
}

/// Starts electrs; it is ready when it answers with bitcoind's tip, which the caller awaits.
pub(super) fn start_electrs(tools: &Tools, directory: &Path, ports: &Ports) -> Result<Supervised> {
    let arguments = [
        "--skip-default-conf-files".into(),
        "--network=regtest".into(),
        format!("--db-dir={}", directory.join("electrs").display()),
        format!("--daemon-dir={}", directory.join("bitcoind").display()),
        format!("--cookie-file={}", cookie_file(directory).display()),
        format!("--daemon-rpc-addr={}", ports.rpc),
        format!("--daemon-p2p-addr={}", ports.p2p),
        format!("--electrum-rpc-addr={}", ports.electrum),
        format!("--monitoring-addr={}", ports.monitoring),
        "--wait-duration-secs=1".into(),
        "--jsonrpc-timeout-secs=60".into(),
        "--skip-block-download-wait".into(),
        "--log-filters=INFO".into(),
    ];
    Supervised::start("electrs", &tools.electrs, arguments, &electrs_log(directory))
}
