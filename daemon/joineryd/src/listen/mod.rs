//! The two listeners: the API and the websocket.
//!
//! Every connection is counted, has a time limit in each state in which it can keep something waiting (TLS
//! handshake, head, body, writing), and is drained at the end: listeners close, answers under way are finished
//! until the deadline, idle connections end.

mod acceptor;
mod body;
mod guard;
mod limits;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum_server::Handle;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use acceptor::Acceptor;
use body::TimedBody;
pub(crate) use limits::Admission;

/// Time for answers under way once the daemon is told to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes: an 8 KB token, and a proxy's additions.
const HEAD: usize = 32 * 1024;

/// A bound socket and how to speak on it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    admission: Admission,
    limits: Limits,
}

impl Listener {
    /// Binds; from here on connections are kept by the kernel until [`Self::serve`] takes them.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        admission: Admission,
        limits: Limits,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls, admission, limits })
    }

    /// Where it listens, with the port that was found for port 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then drains.
    ///
    /// # Errors
    /// When the socket cannot be used at all. Failures of single connections end those.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) -> io::Result<()> {
        let handle = Handle::new();
        let body_time = self.limits.body;
        let router = router.layer(axum::middleware::map_request(move |request: Request| {
            // A bundle takes as long as it takes: its call limits the pauses and the whole.
            let timed = request.uri().path() != joinery_api::UPLOAD_PATH;
            std::future::ready(if timed {
                request.map(|body| TimedBody::limit(body, body_time))
            } else {
                request
            })
        }));
        let mut server = axum_server::from_tcp(self.socket)?
            .acceptor(Acceptor::new(self.tls, self.admission, &self.limits))
            .handle(handle.clone());
        let mut http = Builder::new(TokioExecutor::new()).http1_only();
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(HEAD);
        // Set here and not with `Server::http1_only`, which would refuse websockets.
        *server.http_builder() = http;
        let draining = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(DRAIN));
            std::future::pending().await
        };
        tokio::select! {
            outcome = server.serve(router.into_make_service_with_connect_info::<SocketAddr>()) => outcome,
            never = draining => never,
        }
    }
}
