//! `joineryd directory`: a directory node as a process of its own. It opens no wallet, no data directory and no
//! configuration file.

use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use joinery_net::DirectoryServer;
use joinery_proto::onion::location::PeerAddress;
use joinery_proto::onion::onion_name;
use joinery_roles::directory::Settings;
use tokio_util::sync::CancellationToken;

use crate::cli::{DirectoryArguments, Options};
use crate::config::Log;
use crate::daemon::Signals;
use crate::exit::{Exit, Failure, OrExit};
use crate::{logging, print, systemd};

/// Threads: one for the machine and one for everybody's sockets.
const WORKERS: usize = 2;
/// Longest name of a network.
const MAX_NETWORK: usize = 32;
/// Longest identity.
const MAX_IDENTITY: usize = 128;

/// Runs until SIGTERM, SIGINT or SIGHUP. One line of JSON on stdout says where it listens.
///
/// # Errors
/// When the settings are wrong or it cannot listen.
pub(crate) fn run(options: &Options, arguments: &DirectoryArguments) -> Result<(), Failure> {
    let (listen, settings) = read(options, arguments).or_exit(Exit::Usage)?;
    let log = Log::from_options(options).or_exit(Exit::Usage)?;
    logging::start(&log).or_exit(Exit::Software)?;
    let network = settings.network.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("directory")
        .enable_all()
        .build()
        .or_exit(Exit::Software)?;
    runtime.block_on(async {
        let mut signals = Signals::new().or_exit(Exit::Software)?;
        let server = DirectoryServer::bind(listen, arguments.metrics, settings).await;
        let server = server.or_exit(Exit::Unavailable)?;
        let metrics = server.metrics_address().map(|address| address.to_string());
        tracing::info!(address = %server.address(), metrics, network, "directory listens");
        let said =
            serde_json::json!({"directory": server.address().to_string(), "metrics": metrics});
        print(&format!("{said}\n"))?;
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone()));
        tokio::pin!(running);
        systemd::ready();
        let watching = tokio::spawn(systemd::watchdog(stop.clone()));
        let ended = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                None
            }
            ended = &mut running => Some(ended),
        };
        systemd::stopping();
        stop.cancel();
        let ended = match ended {
            Some(_) => Err(Failure::new(Exit::Software, anyhow!("the directory ended by itself"))),
            None => running.await.context("the directory panicked").or_exit(Exit::Software),
        };
        watching.abort();
        tracing::info!("stopped");
        ended
    })
}

fn read(
    options: &Options,
    arguments: &DirectoryArguments,
) -> anyhow::Result<(SocketAddr, Settings)> {
    let listen = options.listen.as_ref().context("directory needs --listen ADDR:PORT")?;
    let listen: SocketAddr =
        listen.parse().map_err(|_| anyhow!("--listen {listen:?} is not an address with a port"))?;
    let network = options.jm_network.as_ref().or(options.network.as_ref());
    let network = network.context("directory needs --network NAME")?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if network.is_empty() || network.len() > MAX_NETWORK || !network.bytes().all(named) {
        anyhow::bail!("--network must be 1 to 32 letters, digits, hyphens or underscores");
    }
    let mut settings = Settings::new(network);
    settings.max_peers = usize::try_from(arguments.max_peers)?;
    // Peers that serve on loopback are of use only to those on the same machine.
    let test_network = matches!(network.as_str(), "regtest" | "testnet");
    settings.loopback_peers = test_network && listen.ip().is_loopback();
    if let Some(motd) = &arguments.motd {
        settings.motd.clone_from(motd);
    }
    if let Some(identity) = &arguments.identity {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b'.' | b':' | b'-' | b'_')
        };
        let begins_well =
            identity.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins_well || identity.len() > MAX_IDENTITY || !identity.bytes().all(allowed) {
            anyhow::bail!("--identity must be NAME.onion:PORT or another lower-case name");
        }
        let address: Option<PeerAddress> = identity.parse().ok();
        settings.address = address.filter(|address| onion_name::decode(address.host()).is_some());
        if identity.contains(".onion") && settings.address.is_none() {
            anyhow::bail!("--identity {identity:?} is not a version 3 onion address with a port");
        }
        settings.identity = Some(identity.clone());
    }
    Ok((listen, settings))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settings(arguments: &[&str]) -> anyhow::Result<(SocketAddr, Settings)> {
        let cli = Cli::try_parse_from([&["joineryd", "directory"], arguments].concat())?;
        let Some(Command::Directory(directory)) = &cli.command else { panic!("another command") };
        read(&cli.options, directory)
    }

    #[test]
    fn loopback_peers_are_for_test_networks_on_loopback() {
        for (listen, network, allowed) in [
            ("127.0.0.1:5222", "regtest", true),
            ("127.0.0.1:5222", "testnet", true),
            ("127.0.0.1:5222", "mainnet", false),
            ("0.0.0.0:5222", "regtest", false),
        ] {
            let (_, settings) = settings(&["--listen", listen, "--network", network]).unwrap();
            assert_eq!(settings.loopback_peers, allowed, "{listen} {network}");
        }
    }

    #[test]
    fn an_onion_identity_is_where_the_directory_lists_itself() {
        let onion = "nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion:5222";
        let base = ["--listen=127.0.0.1:0", "--network=mainnet"];
        let with = |identity: &str| settings(&[&base[..], &["--identity", identity]].concat());
        assert_eq!(with(onion).unwrap().1.address.unwrap().to_string(), onion);
        assert!(with("test:dir").unwrap().1.address.is_none());
        for wrong in ["", "UPPER", "short.onion:5222", &onion.replace("naka", "nake"), "a b"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listen_and_network_are_needed() {
        for arguments in [
            &["--network=signet"][..],
            &["--listen=127.0.0.1:0"],
            &["--listen=x", "--network=signet"],
        ] {
            assert!(settings(arguments).is_err(), "{arguments:?}");
        }
    }
}
