//! A JoinMarket directory node on loopback, in a thread of the test's own process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use joinery_net::DirectoryServer;
use joinery_roles::directory::Settings;
use tokio_util::sync::CancellationToken;

/// A running directory node; ends when dropped. Peers may say that they serve on loopback addresses.
#[derive(Debug)]
pub struct DirectoryNode {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DirectoryNode {
    /// Starts one for a JoinMarket network on a free port.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn start(network: &str) -> Result<Self> {
        Self::start_with(Settings { loopback_peers: true, ..Settings::new(network) })
    }

    /// Starts one with these settings on a free port.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn start_with(settings: Settings) -> Result<Self> {
        let stop = CancellationToken::new();
        let (told, address) = channel();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("directory".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let bound = DirectoryServer::bind(listen, None, settings).await;
                let server = match bound {
                    Ok(server) => server,
                    Err(error) => return drop(told.send(Err(error))),
                };
                // Nobody waits when the start was given up; then it is stopped, too.
                let _ = told.send(Ok(server.address()));
                server.run(stopped).await;
            });
        })?;
        let address = address.recv().context("the directory's thread ended at once")??;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses when it has ended by itself.
    ///
    /// # Errors
    /// When its thread is gone.
    pub fn require_running(&self) -> Result<()> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            bail!("the directory node ended");
        }
        Ok(())
    }
}

impl Drop for DirectoryNode {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}
