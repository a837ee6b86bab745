//! The command line and the `JOINERY_*` variables.
//!
//! Nothing secret can be given here: other users of a machine see command lines, and service managers show
//! environments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Joinery: a JoinMarket wallet daemon with the jmwalletd API.
#[derive(Debug, Parser)]
#[command(name = "joineryd", disable_version_flag = true, args_conflicts_with_subcommands = false)]
pub(crate) struct Cli {
    /// Settings of the daemon; they are also those of the subcommands.
    #[command(flatten)]
    pub(crate) options: Options,
    /// What to do instead of running.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of running the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads the configuration, says what is wrong with it or prints "ok", and ends.
    CheckConfig,
    /// Prints the version and ends.
    Version,
    /// Shows or renews the TLS certificate of the data directory.
    Certificate {
        /// Which of both.
        #[command(subcommand)]
        action: CertificateAction,
    },
    /// Runs a directory node, where makers and takers of a JoinMarket network meet; needs no wallet. Listens at
    /// --listen; the network is --jm-network, or else --network.
    Directory(DirectoryArguments),
    /// Asks the running daemon of the data directory for its health, by HTTPS and with its own certificate. Fails when
    /// there is no answer.
    Health,
    /// Asks for the password of the box's encrypted volume by HTTPS at --listen, in the daemon's place.
    KeyPage(KeyPageArguments),
    /// Installs an update of the system (a RAUC bundle) on the box; needs root. It is used from the next start on.
    #[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Update {
        /// The bundle.
        file: Option<PathBuf>,
        /// Also when it is older than the system that runs.
        #[arg(long, requires = "file")]
        force: bool,
        /// What the units of the box run.
        #[command(subcommand)]
        action: Option<UpdateAction>,
    },
    /// Works with a wallet file while no daemon has the wallet unlocked.
    Wallet {
        /// What to do with it.
        #[command(subcommand)]
        action: WalletAction,
    },
}

/// Where the root side of the encrypted volume is.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct KeyPageArguments {
    /// Its socket.
    #[arg(long, value_name = "PATH", default_value = "/run/joinery-volume.sock")]
    pub(crate) root_side: PathBuf,
    /// File that says "new" where there is no volume yet.
    #[arg(long, value_name = "PATH", default_value = "/run/joinery-box/volume")]
    pub(crate) volume: PathBuf,
}

/// Settings of a directory node.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DirectoryArguments {
    /// Message of the day, shown to whoever connects.
    #[arg(long, value_name = "TEXT")]
    pub(crate) motd: Option<String>,
    /// How clients know this directory, usually NAME.onion:5222. With it they can prove that a nick is theirs;
    /// with an onion address the directory also lists itself.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) identity: Option<String>,
    /// Loopback address for metrics in Prometheus' text format.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// Most peers at a time; fewer when the process may not open that many files.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_peers: u32,
}

/// What to do with a wallet file.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum WalletAction {
    /// Writes a copy that the reference JoinMarket programs open, under the same password. The password is
    /// asked for on the terminal, or read as the first line of stdin.
    Export {
        /// File name of the wallet, such as wallet.jmdat.
        name: String,
        /// The file to make; an existing one is not overwritten.
        file: PathBuf,
    },
}

/// What the units of the box have to do with updates.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum UpdateAction {
    /// Does what the daemon asked for: verifies and installs the bundle in its inbox, or restarts into an installed
    /// one.
    Requested,
    /// After a start: keeps an update whose daemon is healthy, and restarts with one whose daemon is not, so that the
    /// boot loader goes back after three tries.
    Confirm {
        /// Seconds that the daemon of a new system may take until it answers.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        patience: u64,
    },
}

/// What to do with the certificate.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum CertificateAction {
    /// Prints fingerprint, names and validity.
    Show,
    /// Makes a new certificate for the present names and addresses with the same key.
    Renew,
}

/// Settings that override the file. A flag wins over its variable, the variable over the file, the file
/// over the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Options {
    /// Configuration file (TOML); default DATA/joineryd.toml if that exists.
    #[arg(long, global = true, env = "JOINERY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept; default ~/.joinery.
    #[arg(long, global = true, env = "JOINERY_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the root side of updates keeps its report; default /var/lib/joinery-update.
    #[arg(long, global = true, env = "JOINERY_UPDATE_DIR", value_name = "DIR")]
    pub(crate) update_dir: Option<PathBuf>,
    /// mainnet, signet, testnet4 or regtest.
    #[arg(long, global = true, env = "JOINERY_NETWORK", value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// Electrum server, tcp://HOST:PORT or ssl://HOST:PORT.
    #[arg(long, global = true, env = "JOINERY_ELECTRUM", value_name = "URL")]
    pub(crate) electrum: Option<String>,
    /// SOCKS5 proxy for outgoing connections, socks5://HOST:PORT.
    #[arg(long, global = true, env = "JOINERY_PROXY", value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// Directory node of the JoinMarket network; may be repeated; default those built in.
    #[arg(
        long,
        global = true,
        env = "JOINERY_DIRECTORY",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) directory: Option<Vec<String>>,
    /// Name of the JoinMarket network, if it is not that of the chain.
    #[arg(long, global = true, env = "JOINERY_JM_NETWORK", value_name = "NAME")]
    pub(crate) jm_network: Option<String>,
    /// Where the API listens; default 127.0.0.1:28183. Port 0 takes any free one.
    #[arg(long, global = true, env = "JOINERY_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
    /// Where the websocket listens; default 127.0.0.1:28283. Port 0 takes any free one.
    #[arg(long, global = true, env = "JOINERY_WSS_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) wss_listen: Option<String>,
    /// Plain HTTP, for a TLS proxy on the same machine.
    #[arg(
        long,
        global = true,
        env = "JOINERY_NO_TLS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) no_tls: Option<bool>,
    /// Directory with a browser wallet's static files, served at /.
    #[arg(long, global = true, env = "JOINERY_STATIC_DIR", value_name = "DIR")]
    pub(crate) static_dir: Option<PathBuf>,
    /// Unix socket for the process of the display and button.
    #[arg(long, global = true, env = "JOINERY_BOARD_SOCKET", value_name = "PATH")]
    pub(crate) board_socket: Option<PathBuf>,
    /// text or json.
    #[arg(long, global = true, env = "JOINERY_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Allow an Electrum server on a public address without a proxy: it learns our coins and our address.
    #[arg(
        long,
        global = true,
        env = "JOINERY_ALLOW_PUBLIC_ELECTRUM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) allow_public_electrum: Option<bool>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Cli {
        Cli::try_parse_from([&["joineryd"], arguments].concat()).unwrap()
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_design_is_known() {
        let cli = parse(&[
            "--config=c",
            "--data-dir=d",
            "--network=signet",
            "--electrum=tcp://h:1",
            "--proxy=socks5://h:2",
            "--directory=a:1",
            "--directory=b:2",
            "--jm-network=n",
            "--listen=127.0.0.1:0",
            "--wss-listen=127.0.0.1:0",
            "--no-tls",
            "--static-dir=s",
            "--board-socket=b",
            "--log-format=json",
            "--allow-public-electrum",
        ]);
        assert!(cli.command.is_none());
        assert_eq!(cli.options.directory, Some(vec!["a:1".into(), "b:2".into()]));
        assert_eq!(
            (cli.options.no_tls, cli.options.allow_public_electrum),
            (Some(true), Some(true))
        );
        assert_eq!(parse(&["--no-tls=false"]).options.no_tls, Some(false));
        assert_eq!(parse(&[]).options.no_tls, None);
    }

    #[test]
    fn settings_may_stand_before_and_after_the_subcommand() {
        for arguments in
            [["--data-dir=d", "certificate", "show"], ["certificate", "show", "--data-dir=d"]]
        {
            let cli = parse(&arguments);
            assert_eq!(cli.options.data_dir, Some(PathBuf::from("d")));
            assert!(matches!(
                cli.command,
                Some(Command::Certificate { action: CertificateAction::Show })
            ));
        }
    }

    #[test]
    fn directory_takes_its_settings_from_both_sides() {
        let cli = parse(&["directory", "--listen=127.0.0.1:0", "--network=signet", "--motd=hi"]);
        assert_eq!(cli.options.network.as_deref(), Some("signet"));
        let Some(Command::Directory(arguments)) = cli.command else { panic!("another command") };
        assert_eq!((arguments.motd.as_deref(), arguments.max_peers), (Some("hi"), 10_000));
        assert!(Cli::try_parse_from(["joineryd", "directory", "--max-peers=0"]).is_err());
    }

    /// Defects row 27: no flag takes a password, a seed, a token or a key.
    #[test]
    fn no_secret_argv() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                for secret in ["pass", "seed", "token", "secret", "mnemonic", "private", "user"] {
                    assert!(!name.contains(secret), "{name}");
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
