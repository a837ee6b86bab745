//! `joineryd`: the JoinMarket wallet daemon.
//!
//! This file is the table of contents: harden, read the command line, check the configuration, then run or do what
//! the subcommand says. `docs/ARCHITECTURE.md` shows the whole, `docs/operator.md` is for whoever runs it.

mod board;
mod certificate;
mod channels;
mod cli;
mod config;
mod credential;
mod daemon;
mod datadir;
mod directory;
mod durable;
mod exit;
mod harden;
mod health;
mod key_page;
mod listen;
mod logging;
mod market;
mod roles;
#[cfg(test)]
mod scripted_chain;
mod supervise;
mod systemd;
mod terminal;
mod update;
mod wallet_command;
mod wiring;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use time::OffsetDateTime;

use certificate::Certificate;
use cli::{CertificateAction, Cli, Command, UpdateAction, WalletAction};
use config::Config;
use datadir::DataDir;
use exit::{Exit, Failure, OrExit};

fn main() -> ExitCode {
    // First of all: every file made and every secret held from here on is covered.
    let outcome = harden::harden()
        .context("the process cannot be closed to debuggers and core dumps")
        .or_exit(Exit::Software)
        .and_then(|()| parse())
        .and_then(|cli| cli.map_or(Ok(()), |cli| act(&cli)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to hear that stderr is closed.
            let _ = writeln!(std::io::stderr(), "joineryd: {failure}");
            failure.exit.into()
        }
    }
}

/// Reads the command line; `None` when it only asked for help, which was printed.
fn parse() -> Result<Option<Cli>, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if !error.use_stderr() => print(&error.to_string()).map(|()| None),
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            Err(Failure::new(Exit::Usage, anyhow::anyhow!("{text}")))
        }
    }
}

fn act(cli: &Cli) -> Result<(), Failure> {
    let config = || Config::load(&cli.options).or_exit(Exit::Config);
    match &cli.command {
        None => daemon::run(&config()?),
        Some(Command::CheckConfig) => config().and_then(|_| print("ok\n")),
        Some(Command::Version) => print(concat!("joineryd ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(Command::Certificate { action: CertificateAction::Show }) => show(&config()?),
        Some(Command::Certificate { action: CertificateAction::Renew }) => renew(&config()?),
        Some(Command::Directory(arguments)) => directory::run(&cli.options, arguments),
        Some(Command::Health) => {
            let answer = health::check(&config()?.data_dir).or_exit(Exit::Unavailable)?;
            print(&format!("joineryd {} answers at {}\n", answer.version, answer.url))
        }
        Some(Command::KeyPage(arguments)) => key_page::run(&config()?, arguments),
        Some(Command::Update { file, force, action }) => {
            let machine = update::Machine::new(&cli.options).or_exit(Exit::Usage)?;
            let said = match (file, action) {
                (Some(file), None) => machine.install_file(file, *force),
                (None, Some(UpdateAction::Requested)) => machine.requested(),
                (None, Some(UpdateAction::Confirm { patience })) => {
                    machine.confirm(Duration::from_secs(*patience))
                }
                _ => return Err(Failure::new(Exit::Usage, anyhow::anyhow!("name a bundle"))),
            };
            said.and_then(|text| print(&text))
        }
        Some(Command::Wallet { action: WalletAction::Export { name, file } }) => {
            wallet_command::export(&config()?, name, file)?;
            print(&format!("{}\n", file.display()))
        }
    }
}

fn show(config: &Config) -> Result<(), Failure> {
    let directory = DataDir::open(&config.data_dir).or_exit(Exit::DataDirectory)?;
    let certificate = Certificate::load(&directory.ssl()).or_exit(Exit::DataDirectory)?;
    describe(&certificate)
}

fn renew(config: &Config) -> Result<(), Failure> {
    let directory = DataDir::open(&config.data_dir).or_exit(Exit::DataDirectory)?;
    certificate::renew(&directory.ssl(), &config.http).or_exit(Exit::DataDirectory)?;
    describe(&Certificate::load(&directory.ssl()).or_exit(Exit::DataDirectory)?)?;
    print("It is used from the next start on. Apps that pinned the old one must be paired again.\n")
}

fn describe(certificate: &Certificate) -> Result<(), Failure> {
    let facts = &certificate.facts;
    let mut text = format!(
        "SHA-256:    {}\nnames:      {}\nvalid from: {}\nvalid to:   {}\nfile:       {}\n",
        certificate.fingerprint(),
        facts.names.join(", "),
        facts.not_before,
        facts.not_after,
        certificate.path.display(),
    );
    if let Some(left) = certificate.ends_soon(OffsetDateTime::now_utc()) {
        text += &format!("It ends in {} days.\n", left.whole_days());
    }
    print(&text)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("stdout cannot be written")
        .or_exit(Exit::Software)
}
