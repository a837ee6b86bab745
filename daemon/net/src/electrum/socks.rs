//! Asking a SOCKS5 proxy (RFC 1928) for a connection. The name travels to the proxy as it is: nothing here
//! ever looks a name up.
//!
//! Always with a user name and password (RFC 1929), never with "no authentication": Tor keeps connections
//! with different ones on different circuits, and an offer of both would let a proxy drop that silently.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::url::Host;

const VERSION: u8 = 5;
const USER_PASSWORD: u8 = 2;
const USER_PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// User and password by which the proxy tells our connections apart: at most 255 bytes each.
#[derive(Debug, Clone)]
pub(crate) struct Isolation {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Why the proxy gave no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SocksError {
    /// The proxy cannot be reached or hung up.
    #[error("the proxy cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    /// It does not speak SOCKS5 as we do.
    #[error("the proxy does not speak SOCKS5 with user name and password")]
    NotSocks5,
    /// It answered no.
    #[error("the proxy could not connect: {0}")]
    Refused(&'static str),
    /// A field does not fit its length byte.
    #[error("a name is too long for SOCKS5")]
    TooLong,
}

/// Connects to `host` and `port` through `proxy`. The caller bounds the time.
pub(crate) async fn connect(
    proxy: SocketAddr,
    host: &Host,
    port: u16,
    isolation: &Isolation,
) -> Result<TcpStream, SocksError> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&[VERSION, 1, USER_PASSWORD]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    if chosen != [VERSION, USER_PASSWORD] {
        return Err(SocksError::NotSocks5);
    }
    let mut login = vec![USER_PASSWORD_VERSION];
    push_text(&mut login, &isolation.user)?;
    push_text(&mut login, &isolation.password)?;
    stream.write_all(&login).await?;
    let mut verdict = [0; 2];
    stream.read_exact(&mut verdict).await?;
    if verdict[1] != 0 {
        return Err(SocksError::Refused("it does not accept our user name"));
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match host {
        Host::Ip(IpAddr::V4(address)) => {
            request.push(ADDRESS_V4);
            request.extend(address.octets());
        }
        Host::Ip(IpAddr::V6(address)) => {
            request.push(ADDRESS_V6);
            request.extend(address.octets());
        }
        Host::Name(name) => {
            request.push(ADDRESS_NAME);
            push_text(&mut request, name)?;
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer[0] != VERSION {
        return Err(SocksError::NotSocks5);
    }
    if answer[1] != 0 {
        return Err(SocksError::Refused(reason(answer[1])));
    }
    // The address that the proxy uses itself follows; it is of no interest but must be taken off the stream.
    let length = match answer[3] {
        ADDRESS_V4 => 4,
        ADDRESS_V6 => 16,
        ADDRESS_NAME => usize::from(stream.read_u8().await?),
        _ => return Err(SocksError::NotSocks5),
    };
    let mut bound = [0; 255 + 2];
    let bound = bound.get_mut(..length + 2).ok_or(SocksError::NotSocks5)?;
    stream.read_exact(bound).await?;
    Ok(stream)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), SocksError> {
    bytes.push(u8::try_from(text.len()).map_err(|_| SocksError::TooLong)?);
    bytes.extend(text.as_bytes());
    Ok(())
}

/// Texts of RFC 1928 section 6 and of Tor's extensions (0xF0 and up, proposal 304).
const fn reason(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "timed out on the way",
        7 => "it does not know the command",
        8 => "it does not know the kind of address",
        0xF0 => "the onion service does not exist",
        0xF1 => "the onion service's descriptor is not valid",
        0xF2 | 0xF7 => "the onion service did not answer",
        0xF3 => "no circuit to the onion service",
        0xF4 | 0xF5 => "the onion service wants an authorisation",
        0xF6 => "the onion address is not valid",
        _ => "for an unknown reason",
    }
}
