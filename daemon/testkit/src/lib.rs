//! What Joinery's tests stand on: a real bitcoind and electrs in a box, a lying Electrum server, published
//! vectors, and waiting for conditions.
//!
//! A dev-dependency only: nothing that ships uses it. It therefore reports errors as `anyhow` errors and
//! blocks instead of being async. The binary `regtest` offers the same bench on the command line.
//!
//! * [`Bench`]: `Bench::start()` gives a private regtest chain; [`Chain`] has what can be done to it.
//! * [`DirectoryNode`]: a JoinMarket directory on loopback.
//! * [`Makers`]: peers of a directory that answer with offers and bonds.
//! * [`Ngircd`]: an IRC server on loopback.
//! * [`fake_electrum`]: an Electrum server that is honest or lies, as a test wants it.
//! * [`Relay`]: TLS, a SOCKS5 proxy or a cable to pull, in front of either server.
//! * [`emulator`]: a box in QEMU, with a disk that a power cut catches.
//! * [`vectors`]: loads published vectors and reports every failing index.
//! * [`wait_until`]: awaits a condition with a deadline.
//! * [`Tools`]: fetches and builds bitcoind and electrs once per user.
//! * [`Supervised`]: child processes that cannot outlive their test.

mod bench;
mod directory;
mod electrum;
pub mod emulator;
pub mod fake_electrum;
mod makers;
mod ngircd;
mod process;
mod relay;
mod rpc;
mod tools;
pub mod vectors;
mod wait;

pub use bench::{Bench, Chain, Coin, Endpoints, INITIAL_BLOCKS, funds_address};
pub use directory::DirectoryNode;
pub use electrum::{Electrum, script_hash};
pub use makers::{Makers, TestBond, TestMaker};
pub use ngircd::Ngircd;
pub use process::Supervised;
pub use relay::{Relay, SocksRequest, TestCertificate};
pub use rpc::{Rpc, RpcError};
pub use tools::Tools;
pub use wait::{PATIENCE, wait_for, wait_until};
