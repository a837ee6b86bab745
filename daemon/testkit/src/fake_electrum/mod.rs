//! An Electrum server whose every word a test decides: an honest one over a made-up chain, or a liar.
//!
//! ```
//! use joinery_testkit::fake_electrum::{FakeElectrum, Fault};
//! # fn main() -> anyhow::Result<()> {
//! # let script = joinery_testkit::funds_address().script_pubkey();
//! let server = FakeElectrum::start()?;
//! let paid = server.change(|chain| {
//!     chain.mine(3);
//!     chain.pay(&script, 50_000) // in the mempool; subscribers are told
//! });
//! server.change(|chain| chain.mine(1)); // confirmed
//! server.lie(Fault::WrongTransaction); // from now on
//! server.honest();
//! # let _ = (paid, server.url()); Ok(()) }
//! ```
//!
//! The server speaks protocol 1.4 over plain TCP on a loopback port, single requests and batches. It checks no
//! signatures: a broadcast is taken when it parses and spends nothing twice.

mod chain;
mod connection;
mod fault;
mod protocol;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

pub use chain::FakeChain;
use connection::Connection;
pub use fault::{Fault, Reply};

/// A request that a client made, in the order of arrival over all connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Number of the connection, from 0 in the order of acceptance.
    pub connection: u64,
    /// Method, e.g. `blockchain.scripthash.subscribe`.
    pub method: String,
    /// Parameters as sent.
    pub params: Value,
}

/// Decides over one request before the fault and the honest answer are considered.
type Hook = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

/// What all threads of a server share.
#[derive(Default)]
struct State {
    chain: FakeChain,
    faults: Vec<Fault>,
    hook: Option<Hook>,
    requests: Vec<Request>,
    connections: Vec<Arc<Connection>>,
    accepted: u64,
    refusing: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("State")
            .field("height", &self.chain.height())
            .field("faults", &self.faults)
            .field("requests", &self.requests.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stopped: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panicking hook belongs to a failing test; others can still look at what happened.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// A running fake server; it ends and closes its connections when dropped.
#[derive(Debug)]
pub struct FakeElectrum {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeElectrum {
    /// Starts an honest server over a chain that has only the regtest genesis block.
    ///
    /// # Errors
    /// When no loopback port is free or a thread cannot be made.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("fake-electrum".into())
            .spawn(move || accept(&listener, &for_acceptor))?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens, for its whole life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `tcp://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Changes the chain and then tells subscribers what changed for them, in this order: each script whose
    /// status is another, then the tip. Faults apply to what they are told.
    pub fn change<T>(&self, change: impl FnOnce(&mut FakeChain) -> T) -> T {
        let mut state = self.shared.state();
        let result = change(&mut state.chain);
        protocol::notify(&mut state);
        result
    }

    /// Changes the chain without telling anybody, as a server does that loses subscriptions.
    pub fn change_silently<T>(&self, change: impl FnOnce(&mut FakeChain) -> T) -> T {
        change(&mut self.shared.state().chain)
    }

    /// Adds a fault; it stays until [`Self::honest`]. Subscribers hear of what it changes for them.
    pub fn lie(&self, fault: Fault) {
        let mut state = self.shared.state();
        state.faults.push(fault);
        protocol::notify(&mut state);
    }

    /// Removes all faults and the hook; subscribers hear the truth.
    pub fn honest(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.hook = None;
        protocol::notify(&mut state);
    }

    /// Has every request decided by `hook` first; `None` leaves it to the faults and the chain. The hook must
    /// not call back into this server.
    pub fn answer_with(&self, hook: impl FnMut(&Request) -> Option<Reply> + Send + 'static) {
        self.shared.state().hook = Some(Box::new(hook));
    }

    /// Everything asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// How often `method` was asked so far.
    #[must_use]
    pub fn count(&self, method: &str) -> usize {
        self.shared.state().requests.iter().filter(|request| request.method == method).count()
    }

    /// Forgets what was asked, so that [`Self::count`] starts at zero.
    pub fn forget_requests(&self) {
        self.shared.state().requests.clear();
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Closes all connections; clients may come again.
    pub fn disconnect_all(&self) {
        for connection in self.shared.state().connections.drain(..) {
            connection.close();
        }
    }

    /// Closes new connections at once (`true`) or serves them again. Existing ones go on.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.state().refusing = refuse;
    }

    /// Sends a line to every connection, of whatever content: unasked notifications, garbage.
    pub fn send_line(&self, line: &str) {
        for connection in &self.shared.state().connections {
            connection.send_line(line);
        }
    }
}

impl Drop for FakeElectrum {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.disconnect_all();
        // Wakes the acceptor; when that fails, it has ended already.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        if let Some(acceptor) = self.acceptor.take() {
            // A panic in it has been printed; dropping must not panic again.
            let _ = acceptor.join();
        }
        // A connection accepted in between is closed by the acceptor itself, which looks at `stopped` first.
        self.disconnect_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopped() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let mut state = shared.state();
        if state.refusing {
            continue;
        }
        let number = state.accepted;
        state.accepted += 1;
        if let Ok(connection) = Connection::start(number, stream, Arc::clone(shared)) {
            state.connections.push(connection);
        }
    }
}
