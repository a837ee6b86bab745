//! Where the Electrum server and the proxy are: parsing of their URLs, and which servers are private.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest host name of DNS (RFC 1035), and the longest that SOCKS5 can carry in its length byte.
const NAME_MAX: usize = 253;
/// Longest label of a host name (RFC 1035).
const LABEL_MAX: usize = 63;
/// Length of the label of a version 3 onion service.
const ONION_V3_LABEL: usize = 56;

/// How bytes travel to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `tcp://`: no encryption. Only what the URL says in so many words.
    Tcp,
    /// `ssl://`: TLS.
    Ssl,
}

/// Host part of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address literal.
    Ip(IpAddr),
    /// A host name in lower case, without a final dot.
    Name(String),
}

impl Host {
    /// Whether this is the name of an onion service, which only a proxy can reach.
    #[must_use]
    pub fn is_onion(&self) -> bool {
        matches!(self, Self::Name(name) if name.ends_with(".onion"))
    }

    /// Whether a server there is somebody else's for all that can be said without asking DNS: not a
    /// loopback, private, link-local or unique local address, and no name that only means something on the
    /// local network (`localhost`, `.local`) or on Tor (`.onion`).
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        match self {
            Self::Ip(address) => !is_private(*address),
            Self::Name(name) => {
                let last = name.rsplit('.').next().unwrap_or_default();
                !matches!(last, "localhost" | "local" | "onion")
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Whether an address belongs to this machine or its own network: loopback, private (RFC 1918), link-local
/// or unique local (RFC 4193). IPv4 addresses inside IPv6 count as what they are.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private_v4(v4),
            None => is_private_v6(v6),
        },
    }
}

const fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_private() || address.is_link_local()
}

const fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
}

/// `tcp://HOST:PORT` or `ssl://HOST:PORT`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// With or without TLS.
    pub scheme: Scheme,
    /// Who.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Tcp => "tcp",
            Scheme::Ssl => "ssl",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// `socks5://ADDRESS:PORT`, parsed. The address is a literal (or `localhost`), so that using the proxy never
/// needs DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProxyUrl(pub SocketAddr);

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socks5://{}", self.0)
    }
}

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No or another scheme.
    #[error("the URL must start with {wanted}")]
    Scheme {
        /// What would be right.
        wanted: &'static str,
    },
    /// Something follows the port.
    #[error("the URL must end after the port")]
    TrailingText,
    /// User or password in the URL.
    #[error("the URL must not contain a user name or a password")]
    Credentials,
    /// Without a host.
    #[error("the URL has no host")]
    NoHost,
    /// Without a port, or with one that is not 1 to 65535.
    #[error("the URL needs a port from 1 to 65535, as in tcp://127.0.0.1:50001")]
    Port,
    /// An IPv6 address that is not in brackets or not an address.
    #[error("an IPv6 address must stand in brackets, as in tcp://[::1]:50001")]
    Ipv6,
    /// Not a host name.
    #[error("the host name is not valid")]
    HostName,
    /// Not a version 3 onion service.
    #[error("the onion address must have 56 characters before .onion")]
    Onion,
    /// A proxy that would have to be looked up.
    #[error("the proxy must be given by its IP address, so that no name has to be looked up")]
    ProxyName,
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = if let Some(rest) = strip_scheme(text, "tcp://") {
            (Scheme::Tcp, rest)
        } else if let Some(rest) = strip_scheme(text, "ssl://") {
            (Scheme::Ssl, rest)
        } else {
            return Err(UrlError::Scheme { wanted: "tcp:// or ssl://" });
        };
        let (host, port) = host_and_port(rest)?;
        Ok(Self { scheme, host, port })
    }
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // Both spellings are in use; names are always resolved by the proxy here.
        let rest = strip_scheme(text, "socks5://")
            .or_else(|| strip_scheme(text, "socks5h://"))
            .ok_or(UrlError::Scheme { wanted: "socks5://" })?;
        match host_and_port(rest)? {
            (Host::Ip(address), port) => Ok(Self(SocketAddr::new(address, port))),
            (Host::Name(name), port) if name == "localhost" => {
                Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
            }
            (Host::Name(_), _) => Err(UrlError::ProxyName),
        }
    }
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let start = text.get(..scheme.len())?;
    if start.eq_ignore_ascii_case(scheme) { text.get(scheme.len()..) } else { None }
}

fn host_and_port(rest: &str) -> Result<(Host, u16), UrlError> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(UrlError::Credentials);
    }
    if rest.contains(['/', '?', '#']) {
        return Err(UrlError::TrailingText);
    }
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or(UrlError::Ipv6)?;
        let address: Ipv6Addr = address.parse().map_err(|_| UrlError::Ipv6)?;
        (Host::Ip(IpAddr::V6(address)), after.strip_prefix(':').ok_or(UrlError::Port)?)
    } else {
        let Some((host, port)) = rest.rsplit_once(':') else {
            return Err(if rest.is_empty() { UrlError::NoHost } else { UrlError::Port });
        };
        if host.contains(':') {
            return Err(UrlError::Ipv6);
        }
        (name_or_v4(host)?, port)
    };
    // `parse` would take a plus sign.
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok((host, port)),
        _ => Err(UrlError::Port),
    }
}

fn name_or_v4(host: &str) -> Result<Host, UrlError> {
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(address)));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let valid_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() > NAME_MAX || !name.split('.').all(valid_label) {
        return Err(UrlError::HostName);
    }
    // A name that ends in a number is a mistyped address; some resolvers would make one up from it.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(UrlError::HostName);
    }
    if let Some(service) = name.strip_suffix(".onion") {
        // Subdomains of an onion service are allowed; the service's own label is the last one.
        let label = service.rsplit('.').next().unwrap_or_default();
        let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        if label.len() != ONION_V3_LABEL || !label.bytes().all(base32) {
            return Err(UrlError::Onion);
        }
    }
    Ok(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(text: &str) -> Result<ServerUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn good_urls_are_parsed_and_printed() {
        let onion = format!("tcp://{}.onion:50001", "a2".repeat(28));
        for (text, printed) in [
            ("tcp://127.0.0.1:50001", "tcp://127.0.0.1:50001"),
            ("ssl://electrum.example.org:50002", "ssl://electrum.example.org:50002"),
            ("SSL://Electrum.Example.ORG.:50002/", "ssl://electrum.example.org:50002"),
            ("tcp://[::1]:1", "tcp://[::1]:1"),
            ("ssl://[2001:DB8::7]:65535", "ssl://[2001:db8::7]:65535"),
            ("tcp://umbrel.local:50001", "tcp://umbrel.local:50001"),
            (onion.as_str(), onion.as_str()),
        ] {
            assert_eq!(server(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn bad_urls_are_refused_with_the_reason() {
        for (text, error) in [
            ("", UrlError::Scheme { wanted: "tcp:// or ssl://" }),
            ("127.0.0.1:50001", UrlError::Scheme { wanted: "tcp:// or ssl://" }),
            ("http://127.0.0.1:50001", UrlError::Scheme { wanted: "tcp:// or ssl://" }),
            ("tcp://", UrlError::NoHost),
            ("tcp://:50001", UrlError::NoHost),
            ("tcp://host", UrlError::Port),
            ("tcp://host:", UrlError::Port),
            ("tcp://host:0", UrlError::Port),
            ("tcp://host:+1", UrlError::Port),
            ("tcp://host:65536", UrlError::Port),
            ("tcp://host:1:s", UrlError::Ipv6),
            ("tcp://::1:50001", UrlError::Ipv6),
            ("tcp://[::1", UrlError::Ipv6),
            ("tcp://[::g]:1", UrlError::Ipv6),
            ("tcp://[::1]50001", UrlError::Port),
            ("tcp://user:pass@host:1", UrlError::Credentials),
            ("tcp://host:1/path", UrlError::TrailingText),
            ("tcp://host:1?x", UrlError::TrailingText),
            ("tcp://ho st:1", UrlError::HostName),
            ("tcp://-host:1", UrlError::HostName),
            ("tcp://a..b:1", UrlError::HostName),
            ("tcp://1.2.3:1", UrlError::HostName),
            ("tcp://256.1.1.1:1", UrlError::HostName),
            ("tcp://höst:1", UrlError::HostName),
            ("tcp://expyuzz4wqqyqhjn.onion:1", UrlError::Onion),
        ] {
            assert_eq!(server(text), Err(error), "{text}");
        }
        assert_eq!(server(&format!("tcp://{}.example:1", "a".repeat(64))), Err(UrlError::HostName));
        assert_eq!(server(&format!("tcp://{}b:1", "a.".repeat(127))), Err(UrlError::HostName));
    }

    #[test]
    fn foreign_is_what_is_neither_local_nor_onion() {
        for (host, foreign) in [
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.7", false),
            ("169.254.1.1", false),
            ("8.8.8.8", true),
            ("0.0.0.0", true),
            ("[::1]", false),
            ("[fd00::1]", false),
            ("[fe80::1]", false),
            ("[2001:db8::1]", true),
            ("[::ffff:192.168.1.1]", false),
            ("[::ffff:8.8.8.8]", true),
            ("localhost", false),
            ("node.local", false),
            ("local.example.org", true),
            ("electrum.example.org", true),
            ("onion.example", true),
        ] {
            let url = server(&format!("tcp://{host}:1")).unwrap();
            assert_eq!(url.host.is_foreign(), foreign, "{host}");
        }
        assert!(!server(&format!("tcp://{}.onion:1", "a".repeat(56))).unwrap().host.is_foreign());
    }

    #[test]
    fn proxy_needs_no_name_lookup() {
        let proxy: ProxyUrl = "socks5://localhost:9050".parse().unwrap();
        assert_eq!(proxy.to_string(), "socks5://127.0.0.1:9050");
        assert!("socks5h://[::1]:9050".parse::<ProxyUrl>().is_ok());
        assert_eq!("socks5://tor:9050".parse::<ProxyUrl>(), Err(UrlError::ProxyName));
        assert_eq!(
            "http://127.0.0.1:1".parse::<ProxyUrl>(),
            Err(UrlError::Scheme { wanted: "socks5://" })
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = server(&text);
            let _ = text.parse::<ProxyUrl>();
            let _ = server(&format!("tcp://{text}"));
        }

        #[test]
        fn what_is_accepted_reads_back_the_same(host in "[a-z0-9.\\[\\]:-]{1,30}", port in 0_u32..70_000) {
            if let Ok(url) = server(&format!("ssl://{host}:{port}")) {
                prop_assert_eq!(server(&url.to_string()), Ok(url));
            }
        }
    }
}
