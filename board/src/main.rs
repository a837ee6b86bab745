//! `joinery-board`: display, button and light of the box, beside the daemon. See `docs/hardware.md` and
//! `docs/board-link.md`.

mod cli;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use cli::Cli;

/// The command line cannot be understood (`sysexits.h`).
const USAGE: u8 = 64;
/// A device that is needed is not there; trying again later may help.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help that nobody reads is no error.
            let _ = write!(std::io::stdout(), "{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            return fail(USAGE, error.to_string().trim_start_matches("error: ").trim_end());
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(if cli.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO })
        .init();
    let parts = match cli.parts() {
        Ok(parts) => parts,
        Err(error) => return fail(UNAVAILABLE, &error.to_string()),
    };
    if cli.probe {
        let mut parts = parts;
        return match (parts.display)() {
            Ok(display) => {
                let _ = writeln!(std::io::stdout(), "{}", display.panel().name());
                ExitCode::SUCCESS
            }
            Err(error) => fail(UNAVAILABLE, &error.to_string()),
        };
    }
    match joinery_board::run::run(parts, cli.socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(UNAVAILABLE, &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    // Nobody is left to hear that stderr is closed.
    let _ = writeln!(std::io::stderr(), "joinery-board: {message}");
    code.into()
}
