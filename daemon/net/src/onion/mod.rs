//! Driver of the onion message channel: sockets for [`joinery_roles::channel::OnionChannel`], which decides.
//!
//! Names are never looked up on this machine: onion names travel to the SOCKS5 proxy as they are, each purpose
//! with a user and password of its own so that Tor keeps it on its own circuits; without a proxy only loopback
//! addresses are dialled, and those only when the channel says that it is a private chain's.
//!
//! ```no_run
//! # async fn example(channel: joinery_roles::channel::OnionChannel) -> Result<(), joinery_net::onion::ChannelStopped> {
//! use joinery_net::onion::{OnionConfig, start};
//!
//! let config = OnionConfig { proxy: Some(([127, 0, 0, 1], 9050).into()), ..OnionConfig::default() };
//! let (handle, mut events, driver) = start(channel, config);
//! tokio::spawn(driver);
//! handle.call(|channel, now| channel.request_orderbook(now)).await?;
//! while let Some(event) = events.recv().await {
//!     println!("{event:?}");
//! }
//! # Ok(()) }
//! ```

mod dial;
mod driver;
mod link;

use std::net::SocketAddr;
use std::time::Duration;

use joinery_roles::channel::OnionChannel;
use joinery_roles::event::ChannelEvent;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the driver.
const COMMANDS: usize = 64;
/// Events that wait for the roles; beyond, and beyond as many in the driver, nothing more is read.
const EVENTS: usize = 1_024;

/// What the driver needs to know.
#[derive(Debug)]
pub struct OnionConfig {
    /// SOCKS5 proxy: Tor. Without one only loopback is dialled.
    pub proxy: Option<SocketAddr>,
    /// Where peers' connections to our onion service arrive: bound to loopback.
    pub listener: Option<TcpListener>,
    /// How long a peer may take to read a line before it is given up.
    pub write_timeout: Duration,
    /// Lines that may wait for a peer to read them; one more and it is given up.
    pub write_queue: usize,
}

impl Default for OnionConfig {
    fn default() -> Self {
        Self {
            proxy: None,
            listener: None,
            write_timeout: Duration::from_secs(30),
            write_queue: 128,
        }
    }
}

/// The driver has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message channel has stopped")]
pub struct ChannelStopped;

type Call = Box<dyn FnOnce(&mut OnionChannel, Duration) + Send>;

/// Speaks to the running channel. When the last handle is dropped the channel closes its connections and ends.
#[derive(Debug, Clone)]
pub struct OnionHandle {
    calls: mpsc::Sender<Call>,
}

impl OnionHandle {
    /// Runs a short function on the machine, with the driver's time; what it wants done is done right after.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn call<T: Send + 'static>(
        &self,
        function: impl FnOnce(&mut OnionChannel, Duration) -> T + Send + 'static,
    ) -> Result<T, ChannelStopped> {
        let (answer, result) = oneshot::channel();
        let call: Call = Box::new(move |channel, now| {
            // Whoever asked may have gone.
            let _ = answer.send(function(channel, now));
        });
        self.calls.send(call).await.map_err(|_| ChannelStopped)?;
        result.await.map_err(|_| ChannelStopped)
    }
}

/// Makes the driver of a channel: a handle, the news, and the future that does the work until all handles or
/// the receiver of the news are dropped.
pub fn start(
    channel: OnionChannel,
    config: OnionConfig,
) -> (OnionHandle, mpsc::Receiver<ChannelEvent>, impl Future<Output = ()> + Send + 'static) {
    let (calls, commands) = mpsc::channel(COMMANDS);
    let (events, news) = mpsc::channel(EVENTS);
    let driver = driver::Driver::new(channel, config, events);
    (OnionHandle { calls }, news, driver.run(commands))
}
