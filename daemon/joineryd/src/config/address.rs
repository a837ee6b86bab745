//! `HOST:PORT` in settings, and host names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Longest DNS name, and more than any address needs.
const MAX_HOST: usize = 253;

/// A host, by name or by address, and a port that is not 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// Name in lower case, or address without brackets.
    pub(crate) host: String,
    /// 1 to 65535.
    pub(crate) port: u16,
}

impl HostPort {
    /// Parses `HOST:PORT` or `[IPV6]:PORT`.
    ///
    /// # Errors
    /// With what is wrong, as the end of a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('@') {
            return Err("must not contain a user name or password");
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let (host, port) = (address.ip().to_string(), address.port());
            return if port == 0 {
                Err("needs a port from 1 to 65535")
            } else {
                Ok(Self { host, port })
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("needs a port, as in HOST:PORT")?;
        let port: u16 = port
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| port.parse().ok())
            .flatten()
            .filter(|port| *port != 0)
            .ok_or("needs a port from 1 to 65535")?;
        if !is_host_name(host) {
            return Err("does not name a host");
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Whether this is a DNS name (or an IPv4 address) as it may stand in a URL or a `Host` header: letters,
/// digits, hyphens, underscores and dots.
pub(crate) fn is_host_name(text: &str) -> bool {
    text.len() <= MAX_HOST
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_names_and_addresses_and_shows_them_as_given() {
        for text in ["127.0.0.1:5222", "abc.onion:5222", "[fd00::1]:1"] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_secrets_and_what_has_no_port() {
        for text in
            ["h", "h:0", "h:65536", "h:+1", "user:pw@h:1", ":1", "a b:1", "h:1/path", "h..x:1", ""]
        {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_shows_what_parses_again(text in "\\PC{0,80}") {
            if let Ok(parsed) = HostPort::parse(&text) {
                prop_assert_eq!(HostPort::parse(&parsed.to_string()).unwrap(), parsed);
            }
        }
    }
}
