//! From a TCP connection to one that HTTP is spoken on: admission, TLS with a time limit, and a hint for those
//! who speak plain HTTP to a TLS port.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::guard::Guarded;
use super::limits::Admission;
use crate::config::Limits;

/// First byte of a TLS connection: a handshake record (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Most that is read of a plain request before the hint is sent.
const PLAIN_HEAD: usize = 8 * 1024;
/// What those hear who speak plain HTTP to a TLS port.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 53\r\n\
Connection: close\r\n\r\n{\"message\": \"This port speaks HTTPS: use https://.\"}\n";

/// Accepts connections of one listener.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: Option<TlsAcceptor>,
    admission: Admission,
    handshake: Duration,
    stall: Duration,
}

impl Acceptor {
    /// With TLS, or plain without.
    pub(crate) fn new(
        tls: Option<Arc<rustls::ServerConfig>>,
        admission: Admission,
        limits: &Limits,
    ) -> Self {
        Self {
            tls: tls.map(TlsAcceptor::from),
            admission,
            handshake: limits.handshake,
            stall: limits.stall,
        }
    }

    async fn open(self, stream: TcpStream) -> io::Result<Transport> {
        let address = stream.peer_addr()?.ip();
        let Some(permit) = self.admission.admit(address) else {
            tracing::debug!(%address, "too many connections");
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        stream.set_nodelay(true)?;
        let stream = Guarded::new(stream, self.stall, permit);
        let Some(tls) = self.tls else { return Ok(Transport::Plain(stream)) };
        timeout(self.handshake, async {
            let mut first = [0];
            if stream.stream().peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
                return refuse_plain(stream).await;
            }
            Ok(Transport::Tls(Box::new(tls.accept(stream).await?)))
        })
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn refuse_plain(mut stream: Guarded<TcpStream>) -> io::Result<Transport> {
    // Closing with unread bytes would reset the connection and lose the answer.
    let mut head = vec![0; PLAIN_HEAD];
    let _ = stream.read(&mut head).await?;
    stream.write_all(SPEAK_TLS).await?;
    stream.shutdown().await?;
    Err(io::ErrorKind::InvalidData.into())
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Transport;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Transport, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let acceptor = self.clone();
        Box::pin(async move { Ok((acceptor.open(stream).await?, service)) })
    }
}

/// A connection ready for HTTP.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Without encryption.
    Plain(Guarded<TcpStream>),
    /// With TLS; boxed because its state is large.
    Tls(Box<TlsStream<Guarded<TcpStream>>>),
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Self::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_for_plain_http_has_the_length_it_says() {
        let text = std::str::from_utf8(SPEAK_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
