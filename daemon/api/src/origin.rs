//! Which names we answer to and which pages may talk to us (`spec/api.md` 1.5).
//!
//! Unlocking, creating and listing wallets need no token, so a page that the user merely visits must not be
//! able to reach them: not by a name that it makes point at us, and not across origins.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::config::ApiConfig;

/// The name and port by which a request calls us.
fn authority(headers: &HeaderMap, uri: &Uri) -> Option<Result<Authority, ()>> {
    if let Some(authority) = uri.authority() {
        return Some(Ok(authority.clone()));
    }
    let mut values = headers.get_all(header::HOST).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(Err(()));
    }
    Some(value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(()))
}

/// Names that no DNS server can point at us: numbers, the machine itself, onion services.
fn is_safe_name(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok()
        || bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok())
        || host.strip_suffix(".onion").is_some_and(|label| {
            label.len() == 56 && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
        })
}

/// Whether the request calls us by a name of ours. Without any name it comes from no browser.
pub fn host_is_ours(config: &ApiConfig, headers: &HeaderMap, uri: &Uri) -> bool {
    if !config.check_host {
        return true;
    }
    match authority(headers, uri) {
        None => true,
        Some(Err(())) => false,
        Some(Ok(authority)) => {
            let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
            is_safe_name(&host) || config.hosts.contains(&host)
        }
    }
}

/// What the Origin header says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// No browser page, or one of old: a program.
    Absent,
    /// Our own page, a page of this machine, or one of the configured ones.
    Allowed,
    /// Any other page, `null` and nonsense included.
    Foreign,
}

/// Judges the Origin header. A program that serves something else than the API on its port asks it the same.
pub fn judge(config: &ApiConfig, headers: &HeaderMap, uri: &Uri) -> Origin {
    let mut values = headers.get_all(header::ORIGIN).iter();
    let Some(value) = values.next() else { return Origin::Absent };
    let text = match (value.to_str(), values.next()) {
        (Ok(text), None) => text.to_ascii_lowercase(),
        _ => return Origin::Foreign,
    };
    let Some((host, port)) = parse_origin(&text) else { return Origin::Foreign };
    let is_loopback = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
    let is_ours = matches!(authority(headers, uri), Some(Ok(ours))
        if ours.host().eq_ignore_ascii_case(&host)
            // Without a port in Host either default is meant: a proxy may have taken TLS off.
            && ours.port_u16().map_or(matches!(port, 80 | 443), |ours| ours == port));
    if is_loopback || is_ours || config.origins.contains(&text) {
        Origin::Allowed
    } else {
        Origin::Foreign
    }
}

/// Host and effective port of `http[s]://HOST[:PORT]`.
fn parse_origin(text: &str) -> Option<(String, u16)> {
    let (rest, default) = match text.split_once("://")? {
        ("http", rest) => (rest, 80),
        ("https", rest) => (rest, 443),
        _ => return None,
    };
    let authority: Authority = rest.parse().ok()?;
    if rest.contains('@') {
        return None;
    }
    Some((authority.host().to_owned(), authority.port_u16().unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ApiConfig {
        ApiConfig {
            hosts: vec!["joinery.local".to_owned()],
            origins: vec!["https://wallet.example:8443".to_owned()],
            ..ApiConfig::new("0")
        }
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(k, v)| (k.parse::<http::HeaderName>().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let onion = format!("{}.onion", "a2".repeat(28));
        for (host, ours) in [
            ("localhost:28183", true),
            ("127.0.0.1:28183", true),
            ("[::1]:28183", true),
            ("192.168.1.20", true),
            ("Joinery.Local:28183", true),
            ("joinery.local.", true),
            (&*onion, true),
            ("evil.example", false),
            ("joinery.local.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("short.onion", false),
            ("a b", false),
            ("", false),
        ] {
            let headers = headers(&[("host", host)]);
            let uri = Uri::from_static("/api/v1/session");
            assert_eq!(host_is_ours(&config(), &headers, &uri), ours, "{host}");
            let unchecked = ApiConfig { check_host: false, ..config() };
            assert!(host_is_ours(&unchecked, &headers, &uri));
        }
        let uri = Uri::from_static("/");
        assert!(host_is_ours(&config(), &HeaderMap::new(), &uri));
        let mut two = headers(&[("host", "localhost")]);
        two.append(header::HOST, "evil.example".parse().unwrap());
        assert!(!host_is_ours(&config(), &two, &uri));
    }

    #[test]
    fn cors_allowlist() {
        use Origin::{Allowed, Foreign};
        for (origin, host, expected) in [
            ("https://joinery.local:28183", "joinery.local:28183", Allowed),
            ("https://192.168.1.20:28183", "192.168.1.20:28183", Allowed),
            ("https://joinery.local", "joinery.local", Allowed),
            ("http://localhost:3000", "joinery.local:28183", Allowed),
            ("https://localhost", "joinery.local:28183", Allowed),
            ("http://127.0.0.1:8080", "joinery.local:28183", Allowed),
            ("http://[::1]:8080", "joinery.local:28183", Allowed),
            ("https://wallet.example:8443", "joinery.local:28183", Allowed),
            ("https://wallet.example", "joinery.local:28183", Foreign),
            ("https://joinery.local:1", "joinery.local:28183", Foreign),
            ("https://evil.example", "joinery.local:28183", Foreign),
            ("https://localhost.evil.example", "joinery.local:28183", Foreign),
            ("https://localhost@evil.example", "joinery.local:28183", Foreign),
            ("null", "joinery.local:28183", Foreign),
            ("", "joinery.local:28183", Foreign),
            ("file://", "joinery.local:28183", Foreign),
            ("chrome-extension://abc", "joinery.local:28183", Foreign),
        ] {
            let headers = headers(&[("host", host), ("origin", origin)]);
            let uri = Uri::from_static("/api/v1/session");
            assert_eq!(judge(&config(), &headers, &uri), expected, "{origin} at {host}");
        }
        let none = headers(&[("host", "localhost")]);
        assert_eq!(judge(&config(), &none, &Uri::from_static("/")), Origin::Absent);
    }
}
